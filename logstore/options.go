package logstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"firn/state"
)

// Retention is how much of a table's log is kept once it is flushed. Whatever exceeds either bound may go; what is not
// flushed, or is leased by a consumer, stays.
type Retention struct {
	Time  time.Duration // 0: no bound
	Bytes int64         // of log blocks before compression; 0: no bound
}

// Options are the settings of a DB and its Store. The zero value is ready for EnsureDefaults.
type Options struct {
	// MemoryBytes is the store's share of memory: a quarter becomes Pebble's block cache, a quarter its memtables,
	// the rest is for iterators, compactions and batches in flight. More cache makes lookups faster. Default 256 MiB.
	MemoryBytes int64
	// MaxBatchBytes bounds what one synced batch groups; one larger Append still goes alone. Default 2 MiB.
	MaxBatchBytes int64
	// Retention is what tables keep of their log. Default 24h and 10 GiB.
	Retention Retention
	// TableRetention, if set, answers for single tables what Retention does for all. It must not block.
	TableRetention func(*state.Table) Retention
	// MovedRetention is how long the last rows of deleted old keys are kept for the create that may need them.
	// Default 24h.
	MovedRetention time.Duration
	// TrimInterval is how often retention is applied. Default 10s; negative: never.
	TrimInterval time.Duration
	// DiskBytes bounds the disk space of the Pebble instance. Near it, what is flushed is trimmed before its time; at
	// it, appends get ErrFull. Default 50 GiB.
	DiskBytes int64
	// MinFreeBytes is what appends leave free on the file system of Dir: below it they get ErrFull, so that Pebble
	// itself never meets a full disk. Default 512 MiB; negative: not checked.
	MinFreeBytes int64
	// ParkedBytes bounds the parked records: an append of more gets ErrParkedFull. Default 1 GiB.
	ParkedBytes int64
	// ParkedTable is where parked records have rows, too. Default: nowhere.
	ParkedTable ParkedTable

	// FS is where the files are. Default vfs.Default.
	FS vfs.FS
	// Now tells the time that is stored with changes without one, and by which the log is trimmed. Default time.Now.
	Now func() time.Time
	// Logger receives state transitions. Default: none.
	Logger *slog.Logger
	// Registerer receives the metrics. Default: none.
	Registerer prometheus.Registerer

	blobAge time.Duration // of blob files before Pebble rewrites them; default 15s
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.MemoryBytes, 256<<20)
	setDefault(&o.MaxBatchBytes, 2<<20)
	if o.Retention == (Retention{}) {
		o.Retention = Retention{Time: 24 * time.Hour, Bytes: 10 << 30}
	}
	setDefault(&o.MovedRetention, 24*time.Hour)
	setDefault(&o.TrimInterval, 10*time.Second)
	setDefault(&o.DiskBytes, 50<<30)
	setDefault(&o.MinFreeBytes, 512<<20)
	setDefault(&o.ParkedBytes, 1<<30)
	setDefault(&o.blobAge, 15*time.Second)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Validate reports everything that is wrong, at once.
func (o *Options) Validate() error {
	var errs []error
	least := func(name string, v, least int64) {
		if v < least {
			errs = append(errs, fmt.Errorf("%s is %d, must be at least %d", name, v, least))
		}
	}
	least("MemoryBytes", o.MemoryBytes, 8<<20)
	least("MaxBatchBytes", o.MaxBatchBytes, 4<<10)
	least("DiskBytes", o.DiskBytes, 4<<20)
	least("ParkedBytes", o.ParkedBytes, 0)
	least("Retention.Time", int64(o.Retention.Time), 0)
	least("Retention.Bytes", o.Retention.Bytes, 0)
	least("MovedRetention", int64(o.MovedRetention), 0)
	if o.ParkedTable.Name != "" && o.ParkedTable.Target == nil {
		errs = append(errs, errors.New("ParkedTable has a Name and no Target"))
	}
	return errors.Join(errs...)
}
