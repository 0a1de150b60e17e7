package kafka

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"
)

// logger passes the client's own messages on. Its informational ones are for debugging.
type logger struct{ log *slog.Logger }

// Level implements kgo.Logger.
func (l *logger) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log implements kgo.Logger.
func (l *logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	at := slog.LevelDebug
	switch level {
	case kgo.LogLevelError, kgo.LogLevelWarn:
		at = slog.LevelWarn
	case kgo.LogLevelNone, kgo.LogLevelInfo, kgo.LogLevelDebug:
	}
	l.log.Log(context.Background(), at, "kafka client", append([]any{"client_message", msg}, keyvals...)...) //nolint:forbidigo // the client has no context to give
}
