package ingest

import (
	"context"
	"testing"
)

// silent is a source that does nothing.
type silent struct{ name string }

func (s silent) Name() string                                   { return s.name }
func (silent) Run(context.Context, Handler) error               { return nil }
func (silent) Bounds(context.Context, string) ([]Bounds, error) { return nil, nil }

// TestReplayWindowIsPerSource: a source's own window, else the pipeline's.
func TestReplayWindowIsPerSource(t *testing.T) {
	p, err := New(nil, nil, []Input{{Source: silent{"a"}, ReplayWindow: 5}, {Source: silent{"b"}}}, Options{ReplayWindow: 9})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{5, 9} {
		if got := p.runners[i].window; got != want {
			t.Errorf("source %s remembers %d events, want %d", p.runners[i].source.Name(), got, want)
		}
	}
	if _, err := New(nil, nil, []Input{{Source: silent{"a"}, ReplayWindow: -1}}, Options{}); err == nil {
		t.Error("a negative window is taken")
	}
}
