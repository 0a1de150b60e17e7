package optimizer

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"firn/changelog/table"
)

// expireBase expires all snapshots of the base store but the newest, as somebody else does.
func (w *world) expireBase(keep int) {
	w.Helper()
	other := w.amoro(0, false)
	t, err := other.Catalog.Load(w.ctx(), tableName)
	w.must(err)
	_, err = t.ExpireSnapshots(w.ctx(), t.Base(), keep, 0)
	w.must(err)
}

// allPut puts a row of each key.
func (w *world) allPut(v string) (ops []op) {
	for o := range w.allKeys() {
		o.v = v
		ops = append(ops, o)
	}
	return ops
}

// TestIndexLostLineage: somebody else has committed, and the way from the snapshot of the index to the head is not there any more:
// the index's snapshot has expired, those in between have, or a file that left the table is gone from the disk. The index is built anew,
// or moved at once; it is as it should be, what cannot be checked is logged, and firn goes on.
func TestIndexLostLineage(t *testing.T) {
	for _, tc := range []struct {
		name string
		lose func(w *world, known int64)
		log  string
		how  string
	}{
		{"expired", func(w *world, _ int64) { w.expireBase(1) }, "it will be built anew", "whole"},
		{"expired in between", func(w *world, known int64) {
			w.tagBase("kept", known)
			w.expireBase(1)
		}, "cannot be checked", "incremental"},
		{"file gone", func(w *world, known int64) {
			old, err := w.table().Base().FilesAt(w.ctx(), known)
			w.must(err)
			now := w.live(table.Data)
			gone := 0
			for _, f := range old {
				if f.Content == table.Data && !slices.ContainsFunc(now, func(n table.File) bool { return n.Path == f.Path }) {
					w.must(w.catalog.FS().Remove(f.Path))
					gone++
				}
			}
			if gone == 0 {
				w.Fatal("no file has left")
			}
		}, "it will be built anew", "whole"},
	} {
		for _, parts := range [][]string{nil, {"truncate(1, v)"}} {
			t.Run(tc.name+strings.Join(parts, ","), func(t *testing.T) {
				w := newPartedWorld(t, nil, parts...)
				var log bytes.Buffer
				w.options.Logger = slog.New(slog.NewTextHandler(&log, nil))
				w.open()
				w.flush(w.allPut("a1")...)
				w.once(Minor)
				w.flush(many("a2")...)
				w.once(Minor)
				for i, v := range []string{"a2", "b3", "a4"} {
					w.flush(put(1, v), put(2, ""), put(3, "b"))
					w.committed(w.planned(w.amoro([]int64{0, 1500}[i%2], false)))
				}
				known := w.progress().IndexSnapshot
				tc.lose(w, known)
				w.flush(put(1, "b9"), put(3, ""))
				w.followed()
				w.check()
				if got := w.progress().IndexSnapshot; got == known {
					t.Error("the index stays")
				}
				w.once(Minor)
				w.check()
				w.byNodes()
				w.sameAsRebuilt()
				w.upToDate()
				if !strings.Contains(log.String(), tc.log) || !strings.Contains(log.String(), "how="+tc.how) {
					t.Errorf("log without %q or %q:\n%s", tc.log, tc.how, log.String())
				}
				w.flush(put(1, ""), put(4, "c"))
				w.once(Minor)
				w.once(Full)
				w.check()
				w.sameAsRebuilt()
			})
		}
	}
}
