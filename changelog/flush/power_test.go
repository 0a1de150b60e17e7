package flush

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"firn/changelog"
	"firn/changelog/table"
)

// plug is pulled before one of the writes to the disk, the lake's and Pebble's counted alike: it keeps what the disk holds
// for sure by then, and perhaps some of what it was not asked to sync.
type plug struct {
	disk  *vfs.MemFS
	lucky bool // some unsynced data survives

	mu    sync.Mutex
	left  int // writes to go; below 1: not counting
	after *vfs.MemFS
	where string
}

// on returns the disk with the plug in it. After the power cut no write to the lake gets through; Pebble, which would stop
// the process for an error, goes on in vain.
func (p *plug) on(where string) vfs.FS {
	return errorfs.Wrap(p.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && p.write(where) && where == "lake" {
			return errDead
		}
		return nil
	}))
}

func (p *plug) write(where string) (dead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left--; p.left == 0 && p.after == nil {
		cfg := vfs.CrashCloneCfg{}
		if p.lucky {
			cfg = vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(3, 4))}
		}
		p.after, p.where = p.disk.CrashClone(cfg), where
	}
	return p.after != nil
}

func (p *plug) dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after != nil
}

// TestPowerLoss cuts the power before each write to the disk in turn, from the creation of the table in the lake through two
// flushes. After a restart and a replay of what the source has, nothing is missing and nothing is there twice (P1, P2, P5).
// It is the same without a key, where each change counts: one that is applied twice shows.
func TestPowerLoss(t *testing.T) {
	for _, tc := range []struct {
		name  string
		world func(testing.TB, uint64) *world
		lucky bool
		step  int
	}{
		{"lost", newWorld, false, 1},
		{"some unsynced data survives", newWorld, true, 4},
		{"partitions", newPartedWorld, false, 12},
		{"lost, no key", newBagWorld, false, 1},
		{"some unsynced data survives, no key", newBagWorld, true, 4},
		{"partitions, no key", newPartedBagWorld, false, 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			points := map[string]int{}
			for k := 1; powerLossAt(t, tc.world(t, 5), k, tc.lucky, points); k += tc.step * sweep {
			}
			t.Logf("power cut at %v", points)
			if points["lake"] < 50/tc.step/sweep || points["pebble"] < 20/tc.step/sweep {
				t.Errorf("power cut at %v only", points)
			}
		})
	}
}

// powerLossAt is one run, with a power cut at write k; it reports whether there was such a write.
func powerLossAt(t *testing.T, w *world, k int, lucky bool, points map[string]int) bool {
	p := &plug{disk: vfs.NewCrashableMem(), lucky: lucky}
	w.openLake(p.on("lake"))
	w.setHook(func(_ context.Context, _ table.Attempt, commit func() error) error {
		if p.dead() {
			return errDead
		}
		return commit()
	})
	n := openNodeOn(t, p.disk, p.on("pebble"))
	w.register(n)
	o := Options{MaxRows: 20, BucketRows: 8, Buckets: 2}
	f := must(must(New(n.store, n.reg, w.catalog, o)).Flusher(n.id))
	p.mu.Lock()
	p.left = k
	p.mu.Unlock()
	for range 2 {
		w.append(n, 15, 30)
		if _, err := f.Flush(t.Context()); err != nil && (!errors.Is(err, errDead) || !p.dead()) {
			t.Fatal(err)
		}
	}
	if !p.dead() {
		return false
	}
	points[p.where]++
	w.setHook(nil)
	n.close()
	w.openLake(p.after)
	n = openNode(t, p.after)
	next, _, err := n.store.Position(changelog.StreamID{Source: "k", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	w.replay(n, next)
	w.append(n, 10, 30)
	w.append(n, 1, 1)
	f = must(must(New(n.store, n.reg, w.catalog, o)).Flusher(n.id))
	if err := f.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.drain(f)
	w.check(n, true)
	n.close()
	if t.Failed() {
		t.Fatalf("power cut %d, at %s", k, p.where)
	}
	return true
}
