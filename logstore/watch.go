package logstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	watchInterval = 25 * time.Millisecond // a busy writer fills less than a tenth of the memtables meanwhile
	idleInterval  = 500 * time.Millisecond
	diskInterval  = 250 * time.Millisecond

	// debtBytes is the compaction debt that appends are paced for like full memtables: it is several times what one
	// second of compactions works off.
	debtBytes = 2 << 30
)

// space is whether there is room on the disk.
type space struct {
	mu struct {
		sync.Mutex
		full, tight bool
		freed       chan struct{} // closed when full becomes false
		used        uint64
	}
}

func (d *space) init() { d.mu.freed = make(chan struct{}) }

func (d *space) isFull() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.full
}

// isTight tells that the disk is nearly full: what may be trimmed is.
func (d *space) isTight() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.tight || d.mu.full
}

// set notes the state and reports whether full has changed.
func (d *space) set(used uint64, full, tight bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := d.mu.full != full
	if changed && !full {
		close(d.mu.freed)
		d.mu.freed = make(chan struct{})
	}
	d.mu.used, d.mu.full, d.mu.tight = used, full, tight
	return changed
}

// WaitForSpace blocks while appends get ErrFull. Errors: ctx's, ErrClosed.
func (s *Store) WaitForSpace(ctx context.Context) error {
	for {
		s.space.mu.Lock()
		full, freed := s.space.mu.full, s.space.mu.freed
		s.space.mu.Unlock()
		if !full {
			return nil
		}
		if err := s.await(ctx, freed); err != nil {
			return fmt.Errorf("wait for space: %w", err)
		}
	}
}

// Full reports whether appends get ErrFull now, and the disk space in use.
func (s *Store) Full() (full bool, usedBytes int64) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return s.space.mu.full, int64(s.space.mu.used) //nolint:gosec // a size
}

// watchLoop looks at Pebble's state while appends come in: how fast they may, and whether there is room.
func (s *Store) watchLoop() {
	var seen, written uint64 // written: when the disk was looked at
	var idle time.Duration
	var disk time.Time
	for s.sleep(watchInterval) {
		wrote := s.wrote.Load()
		if idle += watchInterval; wrote == seen && idle < idleInterval && s.pace.Load() == 0 {
			continue
		}
		seen, idle = wrote, 0
		m := s.db.Metrics()
		s.pace.Store(int64(pace(pressure(m, s.opts.MemoryBytes/4))))
		if time.Since(disk) >= diskInterval || wrote-written >= uint64(s.opts.DiskBytes)/64 { //nolint:gosec // not negative: Validate
			disk, written = time.Now(), wrote
			s.watchDisk(m)
		}
	}
}

// pressure tells how near Pebble is to stalling writers: 1 is a stall.
func pressure(m *pebble.Metrics, memtableBytes int64) float64 {
	p := float64(m.MemTable.Size) / float64(memtableBytes)
	p = max(p, float64(m.Levels[0].Sublevels)/l0StopWrites)
	return max(p, float64(m.Compact.EstimatedDebt)/debtBytes)
}

// pace returns how long to wait for each MiB: nothing up to half of the way to a stall; then more and more, so that
// it settles where appends are as fast as flushes and compactions.
func pace(pressure float64) time.Duration {
	if pressure <= 0.5 {
		return 0
	}
	over := (min(pressure, 1.5) - 0.5) / 0.25
	return time.Duration(over * over * float64(20*time.Millisecond))
}

// maxPause bounds a single wait, so that the pace is looked at again.
const maxPause = 500 * time.Millisecond

// pause slows the committer, and with it who submits: Pebble's own stalls are longer and come without warning.
func (s *Store) pause(bytes int) {
	d := min(time.Duration(float64(s.pace.Load())*float64(bytes)/(1<<20)), maxPause)
	if d < time.Millisecond {
		return
	}
	s.metrics.paced.Add(d.Seconds())
	s.sleep(d)
}

// diskUsed returns the space that Pebble's files take. Pebble's own sum is wrong after a restart: its count of live blob
// files begins at nothing when it opens, and goes below that, which is a huge number, as the files that it found go away.
// The count that it takes from the current version is right, and all files are local.
func diskUsed(m *pebble.Metrics) uint64 {
	return m.DiskSpaceUsage() - m.BlobFiles.Local.LiveSize + m.BlobFiles.LiveSize
}

func (s *Store) watchDisk(m *pebble.Metrics) {
	used := diskUsed(m)
	limit := uint64(s.opts.DiskBytes) //nolint:gosec // not negative: Validate
	wasFull := s.space.isFull()
	full, tight := used >= limit, used >= limit/10*9
	if wasFull && used >= limit/100*95 { // some room first, or full and not full take turns
		full = true
	}
	if free, ok := s.freeBytes(); ok {
		least := uint64(max(s.opts.MinFreeBytes, 0)) //nolint:gosec // not negative
		full = full || free < least || wasFull && free < least/10*11
		tight = tight || free < 2*least
	}
	if s.space.set(used, full, tight) {
		if full {
			s.opts.Logger.Error("disk limit reached: appends wait", slog.Uint64("used_bytes", used))
		} else {
			s.opts.Logger.Info("disk has room again", slog.Uint64("used_bytes", used))
		}
	}
	if tight || full {
		select {
		case s.trims <- struct{}{}:
		default:
		}
	}
}

// freeBytes returns what is free on the file system; ok is false where that is not checked or not known.
func (s *Store) freeBytes() (free uint64, ok bool) {
	if s.opts.MinFreeBytes < 0 {
		return 0, false
	}
	u, err := s.opts.FS.GetDiskUsage(s.db.dir)
	return u.AvailBytes, err == nil
}
