package flush

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// TestChangeBuckets: the property change.file-index.hash-bucket, once it is set, spreads every batch, however small, and every
// partition; without it small ones are at the root; a number that is no power of two is named once and is as none.
func TestChangeBuckets(t *testing.T) {
	for _, w := range []*world{newWorld(t, 5), newPartedWorld(t, 5)} {
		n := w.open()
		var logged bytes.Buffer
		o := Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))}
		before := map[string]bool{}
		for _, step := range []struct {
			value string
			mask  int64
		}{{"", 0}, {"8", 7}, {"6", 0}, {"1", 0}, {"1024", maxBuckets - 1}, {"2", 1}} {
			if step.value == "1024" && len(w.parts) > 0 {
				continue // many small files
			}
			if step.value != "" {
				if err := w.load().SetProperties(t.Context(), map[string]string{mixed.PropChangeBuckets: step.value}); err != nil {
					t.Fatal(err)
				}
			}
			f := must(must(New(n.store, n.reg, w.catalog, o)).Flusher(n.id)) // the table is loaded anew
			nodes := map[mixed.TreeNode]bool{}
			for range 2 {
				w.append(n, 20, 30)
				w.drain(f)
			}
			for _, file := range must(w.load().Change().Files(t.Context())) {
				if !before[file.Path] && file.Content == table.Data {
					before[file.Path], nodes[file.Info.Node] = true, true
				}
			}
			for node := range nodes {
				if node.Mask != step.mask {
					t.Errorf("%d buckets asked for with %q: a file of node %s", step.mask+1, step.value, node)
				}
			}
			if step.mask > 0 && len(nodes) < 2 {
				t.Errorf("buckets %q: files of nodes %v", step.value, nodes)
			}
			w.check(n, true)
		}
		if got := strings.Count(logged.String(), "not a power of two"); got != 1 {
			t.Errorf("%d warnings in %s", got, &logged)
		}
	}
}
