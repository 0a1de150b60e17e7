// Package interop holds the matrix of table shapes: what firn makes of random histories, read by firn, by a second reader written
// from the format's specification, by foreign engines, and kept in a model in memory. README.md tells how to run it.
package interop

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// tempDir is a directory in memory where there is one.
func tempDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "firn-interop-*") //nolint:usetesting // not the test's own directory: memory
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// run plays one history and returns what went wrong.
func run(ctx context.Context, l *lake, c cell, seed uint64, name string) (h *history, err error) {
	defer func() {
		if r := recover(); r != nil {
			if e, ok := r.(error); ok && os.Getenv("INTEROP_TRACE") == "" {
				err = e
				return
			}
			panic(r)
		}
	}()
	h = newHistory(ctx, l, c, seed, name)
	h.play()
	return h, nil
}

func TestSmoke(t *testing.T) {
	l := openLake(t.Context(), tempDir(t))
	for i, c := range cells("small") {
		for seed := uint64(1); seed < 3; seed++ {
			_, err := run(t.Context(), l, c, seed, fmt.Sprintf("m.t%d_%d", i, seed))
			if err != nil {
				t.Errorf("%s seed=%d %v: %v", c, seed, c.variant(seed), err)
			}
		}
	}
	check(l.close())
}
