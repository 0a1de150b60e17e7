package optimizer

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// crasher cuts the power at one of many points: it takes what the disk holds for sure by then, and perhaps some of what it
// was not asked to sync, and lets nothing more reach it.
type crasher struct {
	w       *world
	lucky   bool        // some unsynced data survives
	always  bool        // all of Pebble's writes are points, once it is open
	indexes atomic.Bool // between the commit to the lake and the end of the index batch

	only  string     // the places that count; "": all
	mu    sync.Mutex // Pebble's own goroutines come to points, too
	left  int        // points to go
	after *vfs.MemFS
	where string
	trace []string // the points that were passed
}

// point is one place to crash at; it reports whether the process is dead.
func (c *crasher) point(where string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.after != nil {
		return true
	}
	c.trace = append(c.trace, where)
	if c.only != "" && c.only != where {
		return false
	}
	if c.left--; c.left == 0 {
		cfg := vfs.CrashCloneCfg{}
		if c.lucky {
			cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, uint64(len(where))))}
		}
		c.after, c.where = c.w.disk.CrashClone(cfg), where
	}
	return c.after != nil
}

func (c *crasher) die(where string) {
	if c.point(where) {
		panic(errCrash)
	}
}

// TestCrash cuts the power at each point of a minor and a major in turn: before each write to the lake's files, after files
// are written, before and after the catalog's commit, before the index's batch, at each write of Pebble in it, and after
// it. After a restart base store, merged view and index are right, and optimizing goes on (P2, P4).
func TestCrash(t *testing.T) {
	places := []string{"lake", "written", "before commit", "after commit", "committed", "pebble", "indexed"}
	for _, tc := range []struct {
		name  string
		lucky bool
		step  int
		parts []string
		form  table.SequenceForm
	}{
		{"lost", false, 1, nil, table.SequenceAuto},
		{"some unsynced data survives", true, 4, nil, table.SequenceAuto},
		{"partitions", false, 17, []string{"truncate(2, v)"}, table.SequenceAuto},
		// The property holds the sequences before; the first commit after it goes to Puffin.
		{"to Puffin", false, 5, nil, table.SequencePuffin},
		{"to Puffin, partitions", false, 29, []string{"truncate(2, v)"}, table.SequencePuffin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			points := map[string]int{}
			for k := 1; crashAt(t, k, tc.lucky, tc.parts, tc.form, points); k += tc.step * sweep {
			}
			t.Logf("crashed at %v", points)
			for _, where := range places {
				if points[where] == 0 && tc.step*sweep == 1 {
					t.Errorf("no crash at %q", where)
				}
			}
		})
	}
}

// crashAt is one run, with a crash at point k; it reports whether there was such a point.
func crashAt(t *testing.T, k int, lucky bool, parts []string, form table.SequenceForm, points map[string]int) bool {
	w := newPartedWorld(t, nil, parts...)
	w.options = small(20_000)
	w.open()
	r := rand.New(rand.NewPCG(7, 7))
	for range 3 {
		w.flush(w.random(r, 25)...)
		w.once(Minor)
	}
	w.flush(w.random(r, 25)...)
	w.options.Rules.Sequence = form
	c := &crasher{w: w, lucky: lucky, left: k}
	crashed := w.crash(c, points, func() error {
		for _, typ := range []Type{Minor, Major} {
			if _, err := w.opt.Once(w.ctx(), tableName, typ, false); err != nil || c.after != nil {
				return err
			}
		}
		return nil
	})
	if !crashed {
		return false
	}
	w.check()
	w.once(Minor)
	w.check()
	w.flush(w.random(r, 25)...)
	w.once(Minor)
	w.check()
	w.once(Major)
	w.check()
	w.now = time.Now().Add(time.Hour)
	_, err := w.opt.Orphans(w.ctx(), tableName, time.Minute, false)
	w.must(err)
	w.check()
	w.noLitter()
	w.upToDate()
	if p := w.progress(); p.IndexSnapshot != w.table().Base().SnapshotID() {
		t.Errorf("crash %d: index is of snapshot %d", k, p.IndexSnapshot)
	}
	if got := w.table().InPuffin(); got != (form == table.SequencePuffin) {
		t.Errorf("crash %d: in Puffin %v", k, got)
	}
	if t.Failed() {
		t.Fatalf("crash %d at %s", k, c.where)
	}
	return true
}

// crash runs work until c crashes it, and opens all anew on what the crash has left; it reports whether it came to that.
func (w *world) crash(c *crasher, points map[string]int, work func() error) bool {
	w.Helper()
	w.crashable(c)
	died := w.until(func() {
		err := work()
		if c.after != nil {
			panic(errCrash)
		}
		w.must(err)
	})
	if c.after == nil {
		if died {
			w.Fatal("died without a crash")
		}
		return false
	}
	points[c.where]++
	c.indexes.Store(false)
	w.hook, w.onWrite = nil, nil
	w.must(errors.Join(w.db.Close(), w.catalog.Close()))
	w.disk = c.after
	w.openLake()
	w.openState(w.disk)
	w.open()
	return true
}

// crashable lets c watch the lake's commits and writes, the optimizer's steps and Pebble's writes.
func (w *world) crashable(c *crasher) {
	w.hook = func(_ context.Context, _ table.Attempt, commit func() error) error {
		c.die("before commit")
		err := commit()
		c.die("after commit")
		return err
	}
	w.onWrite = func() error {
		if c.point("lake") {
			return errCrash
		}
		return nil
	}
	w.must(w.db.Close())
	w.openState(errorfs.Wrap(w.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.indexes.Load() {
			c.point("pebble")
		}
		return nil
	})))
	w.open()
	c.indexes.Store(c.always)
	w.opt.step = func(name string) error {
		c.indexes.Store(c.always || name == "committed")
		c.die(name)
		return nil
	}
}

// until runs f and reports whether it died of a crash.
func (w *world) until(f func()) (died bool) {
	defer func() {
		if p := recover(); p != nil {
			if p != errCrash { //nolint:errorlint // the very value
				panic(p)
			}
			died = true
		}
	}()
	f()
	return false
}

// TestCrashNodes cuts the power at points of majors that split the root's files into four nodes, with a minor in between, and put
// them together again. FIRN_CRASH_NODES=all takes every point, minutes long.
func TestCrashNodes(t *testing.T) {
	points := map[string]int{}
	step := 13 * sweep
	if os.Getenv("FIRN_CRASH_NODES") == "all" {
		step = 1
	}
	for k := 1; crashNodesAt(t, k, points); k += step {
	}
	t.Logf("crashed at %v", points)
	for _, where := range []string{"lake", "written", "before commit", "after commit", "committed", "pebble", "indexed"} {
		if points[where] == 0 && step == 1 {
			t.Errorf("no crash at %q", where)
		}
	}
}

// crashNodesAt is one run, with a crash at point k; it reports whether there was such a point.
func crashNodesAt(t *testing.T, k int, points map[string]int) bool {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.setBuckets(1, 0)
	w.open()
	r := rand.New(rand.NewPCG(8, 8))
	w.flush(w.random(r, 25)...)
	w.once(Minor)
	w.flush(w.random(r, 25)...) // a merge to come, with deletes of rows that move
	w.setBuckets(4, 0)
	c := &crasher{w: w, left: k}
	joined := false
	crashed := w.crash(c, points, func() error {
		if _, err := w.opt.Once(w.ctx(), tableName, Major, false); err != nil || c.after != nil {
			return err
		}
		if _, err := w.opt.Once(w.ctx(), tableName, Minor, false); err != nil || c.after != nil {
			return err
		}
		if nodes := w.placed(); len(nodes) != 4 {
			t.Errorf("split into nodes %v", nodes)
		}
		joined = true
		if err := w.table().SetProperties(w.ctx(), map[string]string{mixed.PropBaseBuckets: "1"}); err != nil || c.after != nil {
			return err
		}
		_, err := w.opt.Once(w.ctx(), tableName, Major, false)
		return err
	})
	if !crashed {
		if nodes := w.placed(); len(nodes) != 1 || !joined {
			t.Errorf("put together in nodes %v", nodes)
		}
		return false
	}
	w.check()
	w.byNodes()
	w.flush(w.random(r, 5)...)
	w.once(Minor)
	w.once(Major)
	w.check()
	w.byNodes()
	w.placed()
	w.now = time.Now().Add(time.Hour)
	_, err := w.opt.Orphans(w.ctx(), tableName, time.Minute, false)
	w.must(err)
	w.noLitter()
	w.upToDate()
	if t.Failed() {
		t.Fatalf("crash %d at %s", k, c.where)
	}
	return true
}
