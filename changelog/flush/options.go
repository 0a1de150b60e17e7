package flush

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// Options are the settings of a Set. The zero value is ready for EnsureDefaults.
type Options struct {
	// Interval closes a batch this long after its first change: the bound on how old the change store is. Longer means
	// fewer, bigger change files. Default 10s.
	Interval time.Duration
	// MaxBytes closes a batch at this many bytes of keys and rows, before compression, without waiting for Interval.
	// Default 64 MiB.
	MaxBytes int64
	// Table, if set, answers for single tables what Interval and MaxBytes do for all. It must not block.
	Table func(name string) (interval time.Duration, maxBytes int64)
	// Before, if set, names a table of the registry whose rows must be in the lake before those that another table got by the
	// same appends, and before the positions of those are published: the table of its parked records. "": there is none. It
	// must not block.
	Before func(name string) string
	// MaxRows closes a batch at this many changes. Default 1,000,000.
	MaxRows int
	// BucketRows is how many changes a batch must have to be spread over Buckets nodes; a smaller one is one I and one ED file at
	// the root node, which the format allows always, because files cost readers more than nodes save them. Default 50,000.
	BucketRows int
	// Buckets is over how many tree nodes large batches are spread: a power of two. More lets optimizing work in smaller
	// parts. The table's property change.file-index.hash-bucket, if it is set, is what every batch is spread over instead, whatever
	// its size (up to 256). Default 4.
	Buckets int
	// Parallel is how many tables write and commit at the same time. Each takes up to 2 × Buckets × 4 MiB of memory
	// while it does. Default 2.
	Parallel int
	// MinBackoff and MaxBackoff bound the wait after a failed flush; it doubles from one to the other. Default 500ms, 1m.
	MinBackoff, MaxBackoff time.Duration
	// CommitTimeout bounds one attempt to commit, which goes on when the Flusher is stopped. Default 1m.
	CommitTimeout time.Duration
	// File are the settings of change files. Default: datafile's, with small row groups and batches.
	File datafile.Options

	// Now tells the time that lags are measured by. Default time.Now.
	Now func() time.Time
	// Logger receives state transitions. Default: none.
	Logger *slog.Logger
	// Registerer receives the metrics. Default: none.
	Registerer prometheus.Registerer
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.Interval, 10*time.Second)
	setDefault(&o.MaxBytes, 64<<20)
	setDefault(&o.MaxRows, 1_000_000)
	setDefault(&o.BucketRows, 50_000)
	setDefault(&o.Buckets, mixed.DefaultBuckets)
	setDefault(&o.Parallel, 2)
	setDefault(&o.MinBackoff, 500*time.Millisecond)
	setDefault(&o.MaxBackoff, time.Minute)
	setDefault(&o.CommitTimeout, time.Minute)
	setDefault(&o.File.RowGroupBytes, 4<<20)
	setDefault(&o.File.BatchRows, 2048)
	setDefault(&o.File.BatchBytes, 1<<20)
	o.File.EnsureDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Validate reports everything that is wrong, at once.
func (o *Options) Validate() error {
	var errs []error
	least := func(name string, v int64) {
		if v < 1 {
			errs = append(errs, fmt.Errorf("%s is %d, must be positive", name, v))
		}
	}
	least("Interval", int64(o.Interval))
	least("MaxBytes", o.MaxBytes)
	least("MaxRows", int64(o.MaxRows))
	least("BucketRows", int64(o.BucketRows))
	least("Parallel", int64(o.Parallel))
	least("MinBackoff", int64(o.MinBackoff))
	least("CommitTimeout", int64(o.CommitTimeout))
	if o.MaxBackoff < o.MinBackoff {
		errs = append(errs, fmt.Errorf("MaxBackoff %s is below MinBackoff %s", o.MaxBackoff, o.MinBackoff))
	}
	if !mixed.ValidBuckets(o.Buckets) {
		errs = append(errs, fmt.Errorf("number of buckets is %d, must be a power of two", o.Buckets))
	}
	errs = append(errs, o.File.Validate())
	return errors.Join(errs...)
}
