package logstore

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"

	"firn/changelog"
)

const (
	memtables    = 4 // a quarter of the memory in four parts: small ones make reopening fast
	l0StopWrites = 20
)

// DB is the Pebble instance that Store and state.Registry share, with what the Store needs to know of its inside.
type DB struct {
	*pebble.DB
	dir   string
	opts  Options
	gate  *gate
	stall stalls

	broken atomic.Pointer[error] // why no write may reach Pebble any more
	stuck  atomic.Bool           // Pebble has panicked and holds its locks
}

// stalls counts what Pebble itself made writers wait, by reason.
type stalls struct {
	mu       sync.Mutex
	reason   string
	begin    time.Time
	count    map[string]int
	seconds  map[string]float64
	bgErrors int
	bgLast   error
}

// OpenDB opens the Pebble instance in dir, or makes one. Compactions wait until it is open. Close it after all that use
// it. Errors: a wrong option, I/O, a directory in use.
func OpenDB(dir string, o Options) (*DB, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	d := &DB{dir: dir, opts: o, gate: newGate()}
	d.stall.count, d.stall.seconds = map[string]int{}, map[string]float64{}
	p := PebbleOptions(o, o.Logger)
	p.Experimental.CompactionScheduler = d.gate
	d.listen(p, o.Logger)
	db, err := pebble.Open(dir, p)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	d.DB = db
	d.gate.release()
	return d, nil
}

// Close closes the instance. Where Pebble has panicked over a failed write-ahead log it only says so: Pebble holds its
// locks then, and the process has to end.
func (d *DB) Close() error {
	if d.stuck.Load() {
		return fmt.Errorf("close %s: left open after: %w", d.dir, *d.broken.Load())
	}
	if err := d.DB.Close(); err != nil {
		return fmt.Errorf("close %s: %w", d.dir, err)
	}
	return nil
}

// blobGarbage is the part of the blob files that may be garbage before Pebble rewrites some.
const blobGarbage = 0.3

// PebbleOptions returns the options of the instance, without the compaction gate that OpenDB adds. What is chosen here
// was measured: see FORMAT.md, "Pebble".
func PebbleOptions(o Options, log *slog.Logger) *pebble.Options {
	p := &pebble.Options{
		FS:                          o.FS,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		CacheSize:                   o.MemoryBytes / 4,
		MemTableSize:                uint64(o.MemoryBytes / 4 / memtables), //nolint:gosec // not negative: Validate
		MemTableStopWritesThreshold: memtables,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       l0StopWrites,
		LBaseMaxBytes:               64 << 20,
		MaxOpenFiles:                4000,
		BytesPerSync:                1 << 20,
		FlushDelayDeleteRange:       10 * time.Second,                  // an idle store must still free the trimmed log
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 }, // an upper bound of 0 panics in Pebble
		Logger:                      pebbleLog{log},
	}
	p.TargetFileSizes[0] = 16 << 20
	p.Levels[0].FilterPolicy = bloom.FilterPolicy(10) // deeper levels inherit it
	for i := range p.Levels {                         // upper levels are soon rewritten: see FORMAT.md for what compressing them costs
		profile := sstable.NoCompression
		if i >= 5 {
			profile = sstable.MinLZCompression
		}
		p.Levels[i].Compression = func() *sstable.CompressionProfile { return profile }
	}
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy { // keeps log blocks out of compactions
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: 2 << 10, MaxBlobReferenceDepth: 10,
			RewriteMinimumAge: o.blobAge, TargetGarbageRatio: blobGarbage,
		}
	}
	return p
}

func (d *DB) listen(p *pebble.Options, log *slog.Logger) {
	s := &d.stall
	p.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			s.mu.Lock()
			s.bgErrors, s.bgLast = s.bgErrors+1, err
			s.mu.Unlock()
			log.Error("pebble background error", slog.Any("err", err))
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reason, s.begin = i.Reason, time.Now()
			s.count[i.Reason]++
		},
		WriteStallEnd: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seconds[s.reason] += time.Since(s.begin).Seconds()
		},
	}
}

// fail notes why no write may reach Pebble any more and returns the first such reason.
func (d *DB) fail(err error) error {
	d.broken.CompareAndSwap(nil, &err)
	return *d.broken.Load()
}

// apply hands b to Pebble without waiting for the sync. Pebble panics when its write-ahead log has failed before.
func (d *DB) apply(b *pebble.Batch) (err error) {
	if err := d.broken.Load(); err != nil {
		return *err
	}
	defer func() {
		if p := recover(); p != nil {
			cause, ok := p.(error)
			if !ok {
				panic(p)
			}
			err = d.fail(fmt.Errorf("write-ahead log: %w", cause))
			d.stuck.Store(true)
		}
	}()
	return d.ApplyNoSyncWait(b, pebble.Sync)
}

// commit applies b, waits until it is synced, and closes it. A failure is final.
func (d *DB) commit(b *pebble.Batch) error {
	if err := d.apply(b); err != nil {
		return d.fail(err)
	}
	if err := b.SyncWait(); err != nil {
		return d.fail(fmt.Errorf("sync: %w", err))
	}
	return b.Close()
}

// pebbleLog hands Pebble's messages to slog.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("pebble", slog.Any("text", lazyText{format, args}))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("pebble", slog.String("text", fmt.Sprintf(format, args...)))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	l.log.Error("pebble gave up", slog.String("text", fmt.Sprintf(format, args...)))
	panic(fmt.Sprintf(format, args...))
}

// lazyText is formatted only if it is logged.
type lazyText struct {
	format string
	args   []any
}

// LogValue implements slog.LogValuer.
func (t lazyText) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(t.format, t.args...)) }

// errCorrupt is what unreadable stored bytes wrap.
var errCorrupt = changelog.ErrCorrupt
