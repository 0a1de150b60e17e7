package main

import (
	"context"
	"log/slog"
	"testing"
)

// startServer runs a server of a configuration in this process, until end.
func startServer(t *testing.T, config string) (s *server, end func()) {
	t.Helper()
	s, err := openServer(t.Context(), must(loadConfig(config)), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	return s, func() {
		t.Helper()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}
