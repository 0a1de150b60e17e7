package flush

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/table"
)

// bags are the worlds of tables without a key: without partitions, and with.
func bags() map[string]func(testing.TB, uint64) *world {
	return map[string]func(testing.TB, uint64) *world{"plain": newBagWorld, "partitions": newPartedBagWorld}
}

// TestUnkeyed flushes random histories of a table without a key, whose changes put rows in and take equal ones out, in
// batches of all sizes, with schema changes, and holds the lake against the model after each.
func TestUnkeyed(t *testing.T) {
	for name, world := range bags() {
		for seed := range uint64(12 / sweep) {
			t.Run(fmt.Sprint(name, "/seed=", seed), func(t *testing.T) { unkeyedHistory(t, world(t, seed)) })
		}
	}
}

func unkeyedHistory(t *testing.T, w *world) {
	n := w.open()
	f := w.flusher(n, nil)
	for range 6 {
		w.append(n, 1+w.rnd.IntN(60), 30)
		if w.rnd.IntN(4) == 0 {
			w.evolve(n)
			w.append(n, 1+w.rnd.IntN(20), 30)
		}
		if _, err := f.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.check(n, false)
	}
	w.drain(f)
	w.check(n, true)
	if s := w.stray(); len(s) > 0 {
		t.Errorf("stray files %v", s)
	}
	p := must(n.reg.Progress(n.id))
	if p.Optimized != p.Flushed || p.Flushed != w.mark(w.load()).To {
		t.Errorf("progress %+v", p)
	}
}

// rewriter commits like an optimizer in another process, once, before the flush that it is a hook of.
func rewriter(w *world, done *int) table.Hook {
	return func(ctx context.Context, _ table.Attempt, commit func() error) error {
		if *done == 0 {
			*done++
			other := must(table.Open(ctx, table.Options{URI: filepath.Join(w.dir, "catalog.db"), Warehouse: filepath.Join(w.dir, "lake")}))
			defer other.Close()
			t := must(other.Load(ctx, tableName))
			files := must(t.Base().Files(ctx))
			b := newBatch(t, w.schemas, 1, must(New(nil, nil, nil, Options{})).o.File)
			if of := must(t.Partitioner(w.schema())); of != nil {
				b.partition(of, w.schemas, 1)
			}
			c := table.BaseCommit{ID: "rewrite", Epoch: must(t.Epoch()), Replace: true, DataSequence: t.Base().Snapshot().Sequence, Planned: t.Base().Snapshot().Sequence}
			for row, err := range w.reader(t).Base(ctx) {
				if err == nil {
					err = b.add(&changelog.Change{Seq: 1, After: slices.Clone(row.Row)})
				}
				if err != nil {
					return err
				}
			}
			for _, f := range files {
				if f.Content == table.Data {
					c.Remove = append(c.Remove, f)
				} else {
					c.RemoveDeletes = append(c.RemoveDeletes, f)
				}
			}
			c.Add = must(b.finish())
			must(t.CommitBase(ctx, c))
		}
		return commit()
	}
}

// TestUnkeyedConflict: a flush that takes rows out of files that are rewritten meanwhile looks for the rows again.
func TestUnkeyedConflict(t *testing.T) {
	for seed := range uint64(6) {
		w := newBagWorld(t, 100+seed)
		if seed >= 3 {
			w = newPartedBagWorld(t, 100+seed)
		}
		n := w.open()
		f := w.flusher(n, nil)
		w.append(n, 60, 30)
		w.drain(f)
		w.append(n, 60, 30)
		done := 0
		w.setHook(rewriter(w, &done))
		w.drain(f)
		if done != 1 {
			t.Fatal("nothing was rewritten")
		}
		w.check(n, true)
		if s := w.stray(); len(s) > 0 {
			t.Errorf("stray files %v", s)
		}
	}
}

// TestUnkeyedUnknown: a commit whose answer is lost is found again, landed or not, also after a restart (P2).
func TestUnkeyedUnknown(t *testing.T) {
	for _, landed := range []bool{true, false} {
		for _, restart := range []bool{true, false} {
			t.Run(fmt.Sprintf("landed=%t restart=%t", landed, restart), func(t *testing.T) {
				w := newBagWorld(t, 7)
				n := w.open()
				f := w.flusher(n, nil)
				w.append(n, 40, 30)
				w.drain(f)
				w.append(n, 40, 30)
				w.setHook(func(_ context.Context, _ table.Attempt, commit func() error) error {
					if landed {
						return errors.Join(commit(), errLost)
					}
					return errLost
				})
				reg := &deadAt{n.reg, true}
				if restart {
					f = w.flusher(n, reg)
				}
				_, err := f.Flush(t.Context())
				if err == nil && !landed {
					t.Fatal("a commit that did not land is reported as done")
				}
				w.setHook(nil)
				if restart {
					n = n.crash()
					f = w.flusher(n, nil)
				}
				w.drain(f)
				w.check(n, true)
			})
		}
	}
}

// TestUnkeyedMissing: rows to take out that are not there are counted, and nothing else goes in their place.
func TestUnkeyedMissing(t *testing.T) {
	w := newBagWorld(t, 1)
	n := w.open()
	metrics := prometheus.NewRegistry()
	f := must(must(New(n.store, n.reg, w.catalog, Options{Registerer: metrics})).Flusher(n.id))
	row := func(v string, id int64) changelog.Row {
		return changelog.AppendRow(nil, w.schema(), []changelog.Value{{B: []byte(v)}, {I: id}})
	}
	put := func(cs ...changelog.Change) {
		for i := range cs {
			cs[i].Position = changelog.Position{Source: "k", Topic: "t", Offset: w.offset}
			w.offset++
		}
		must(n.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: n.id, Changes: cs}}}))
		w.drain(f)
	}
	put(changelog.Change{Op: changelog.OpCreate, After: row("a", 1)}, changelog.Change{Op: changelog.OpCreate, After: row("a", 1)})
	put(changelog.Change{Op: changelog.OpDelete, Before: row("b", 1)},
		changelog.Change{Op: changelog.OpUpdate, Before: row("a", 1), After: row("c", 2)},
		changelog.Change{Op: changelog.OpDelete, Before: row("c", 3)})
	w.rows = [][]changelog.Value{{{B: []byte("a")}, {I: 1}}, {{B: []byte("c")}, {I: 2}}}
	w.check(n, true)
	if got := missing(t, metrics); got != 2 {
		t.Errorf("%v rows are counted as missing", got)
	}
	put(changelog.Change{Op: changelog.OpTruncate}, changelog.Change{Op: changelog.OpDelete, Before: row("a", 1)})
	w.rows = nil
	w.check(n, true)
	if got := missing(t, metrics); got != 3 {
		t.Errorf("%v rows are counted as missing", got)
	}
}

// TestSpan: base files that cannot have a wanted row are not read.
func TestSpan(t *testing.T) {
	w := newBagWorld(t, 1)
	n := w.open()
	f := must(must(New(n.store, n.reg, w.catalog, Options{})).Flusher(n.id))
	for i := range int64(5) {
		var cs []changelog.Change
		for k := range int64(3) {
			values := []changelog.Value{{B: fmt.Appendf(nil, "file %d", i)}, {I: 10*i + k}}
			cs = append(cs, changelog.Change{Op: changelog.OpCreate, After: changelog.AppendRow(nil, w.schema(), values)})
		}
		must(n.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: n.id, Changes: cs}}}))
		must(f.Flush(t.Context()))
	}
	null := changelog.NullValue
	text := func(s string) changelog.Value { return changelog.Value{B: []byte(s)} }
	for _, tc := range []struct {
		name string
		rows [][]changelog.Value
		want int
	}{
		{"a row of one file", [][]changelog.Value{{text("file 1"), {I: 11}}}, 1},
		{"rows of two neighbours", [][]changelog.Value{{text("file 1"), {I: 12}}, {text("file 2"), {I: 20}}}, 2},
		{"columns that contradict", [][]changelog.Value{{text("file 1"), {I: 22}}}, 0},
		{"one column is null", [][]changelog.Value{{null, {I: 40}}}, 1},
		{"all is null", [][]changelog.Value{{null, null}}, 5},
		{"below and above", [][]changelog.Value{{text("e"), {I: -1}}, {text("g"), {I: 99}}}, 5},
	} {
		wanted := map[string]int{}
		for _, r := range tc.rows {
			wanted[string(changelog.AppendRow(nil, w.schema(), r))] = 1
		}
		s := must(newSpan(w.schema(), wanted))
		got := 0
		for _, file := range must(w.load().Base().Files(t.Context())) {
			if s.overlaps(&file) {
				got++
			}
		}
		if got != tc.want {
			t.Errorf("%s: %d files may have it, want %d", tc.name, got, tc.want)
		}
	}
}

// TestUnkeyedRestore: what the lake knows of a table without a key is all that is needed to go on (P4).
func TestUnkeyedRestore(t *testing.T) {
	for name, world := range bags() {
		t.Run(name, func(t *testing.T) { unkeyedRestore(t, world(t, 9)) })
	}
}

func unkeyedRestore(t *testing.T, w *world) {
	n := w.open()
	w.append(n, 80, 30)
	w.drain(w.flusher(n, nil))
	w.append(n, 30, 30)
	n.close()
	r, ok, err := Restore(t.Context(), w.load())
	if err != nil || !ok || r.Progress.Optimized != r.Progress.Flushed {
		t.Fatalf("%+v, %t, %v", r.Progress, ok, err)
	}
	n = openNode(t, vfs.NewCrashableMem())
	r.Progress.Rebuilding = false
	n.id = must(n.reg.Restore(t.Context(), r.Table, r.Progress, r.Positions)).ID
	n.close()
	n = openNode(t, n.disk)
	next, _, err := n.store.Position(changelog.StreamID{Source: "k", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	w.replay(n, next)
	w.drain(w.flusher(n, nil))
	w.check(n, true)
}

// missing returns how many rows the metric says were not there.
func missing(t *testing.T, reg *prometheus.Registry) (n float64) {
	t.Helper()
	for _, family := range must(reg.Gather()) {
		for _, m := range family.GetMetric() {
			if family.GetName() == "firn_flush_missing_rows_total" {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestUnkeyedOldSpec: a row to delete that may be in a file of another partition spec stops the flush, and names the file and the way
// out: it is not taken for a row that is not there.
func TestUnkeyedOldSpec(t *testing.T) {
	w := newPartedBagWorld(t, 1)
	n := w.open()
	row := changelog.AppendRow(nil, w.schema(), []changelog.Value{{B: []byte("v0")}, {I: 5}})
	must(n.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: n.id, Changes: []changelog.Change{{Op: changelog.OpCreate, After: row}}}}}))
	f := w.flusher(n, nil)
	must(f.Flush(t.Context()))
	base := w.load().Base()
	files := must(base.Files(t.Context()))
	files[0].Spec, files[0].Partition = 1, "somewhere=else"
	entry, _ := n.reg.ByID(n.id)
	find := func(id int64) error {
		b := must(f.newBatch(entry, 1))
		wanted := changelog.AppendRow(nil, w.schema(), []changelog.Value{{B: []byte("v0")}, {I: id}})
		b.removals.wanted = map[string]int{string(wanted): 1}
		return b.findRows(t.Context(), base, files)
	}
	if err := find(5); !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), files[0].Path+" cannot be deleted: it is of partition spec 1, the table's is 0") {
		t.Errorf("a row of the file: %v", err)
	}
	if err := find(6); err != nil {
		t.Errorf("a row that no file can have: %v", err)
	}
}
