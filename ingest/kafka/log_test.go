package kafka_test

import (
	"log/slog"
	"os"
)

func testLog() *slog.Logger {
	if os.Getenv("FIRN_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
