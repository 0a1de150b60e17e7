package logstore

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// gate is Pebble's compaction scheduler. It refuses all until release: pebble.Open flushes the replayed memtables and
// would wait for the compactions that these flushes start. Afterwards it grants as many as Pebble allows, like Pebble's
// own scheduler; the compactions that were refused are asked for again, for Pebble itself does not.
type gate struct {
	db pebble.DBForCompaction // set by Register, before all other calls

	mu struct {
		sync.Mutex
		open     bool // release was called, Unregister was not
		running  int
		granting bool       // one goroutine grants at a time, without the lock
		idle     *sync.Cond // granting became false
	}
	poke chan struct{} // capacity 1: something may have changed
	stop chan struct{}
	wg   sync.WaitGroup
}

func newGate() *gate {
	g := &gate{poke: make(chan struct{}, 1), stop: make(chan struct{})}
	g.mu.idle = sync.NewCond(&g.mu)
	return g
}

// release lets compactions run from now on. It is called once, after pebble.Open has succeeded.
func (g *gate) release() {
	g.mu.Lock()
	g.mu.open = true
	g.mu.Unlock()
	g.wg.Go(g.run)
}

func (g *gate) run() {
	tick := time.NewTicker(100 * time.Millisecond) // what Pebble allows may rise without a call to us
	defer tick.Stop()
	for {
		g.grant()
		select {
		case <-tick.C:
		case <-g.poke:
		case <-g.stop:
			return
		}
	}
}

// grant starts waiting compactions while there is room.
func (g *gate) grant() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.mu.granting {
		g.mu.idle.Wait()
	}
	if !g.mu.open {
		return
	}
	g.mu.granting = true
	for g.mu.open && g.mu.running < g.db.GetAllowedWithoutPermission() {
		g.mu.running++
		g.mu.Unlock() // both calls take the DB's lock, which is taken before ours
		waiting, _ := g.db.GetWaitingCompaction()
		started := waiting && g.db.Schedule(g)
		g.mu.Lock()
		if !started {
			g.mu.running--
			break
		}
	}
	g.mu.granting = false
	g.mu.idle.Broadcast()
}

// Register implements pebble.CompactionScheduler.
func (g *gate) Register(_ int, db pebble.DBForCompaction) { g.db = db }

// Unregister implements pebble.CompactionScheduler: after it, no call to the DB is made.
func (g *gate) Unregister() {
	g.mu.Lock()
	if g.mu.open {
		close(g.stop)
	}
	g.mu.open = false
	for g.mu.granting {
		g.mu.idle.Wait()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// TrySchedule implements pebble.CompactionScheduler.
func (g *gate) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.mu.open || g.mu.running >= g.db.GetAllowedWithoutPermission() {
		return false, nil
	}
	g.mu.running++
	return true, g
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler. Pebble holds its lock here.
func (g *gate) UpdateGetAllowedWithoutPermission() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// Started implements pebble.CompactionGrantHandle.
func (g *gate) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (g *gate) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (g *gate) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle: one compaction is over.
func (g *gate) Done() {
	g.mu.Lock()
	g.mu.running--
	g.mu.Unlock()
	g.UpdateGetAllowedWithoutPermission()
}
