package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are the settings of a Pipeline.
type Options struct {
	// BatchRecords closes an append at this many records. Default 4096.
	BatchRecords int
	// BatchBytes closes an append at this many bytes of records, as received. Default 4 MiB.
	BatchBytes int
	// InFlight is how many appends of one partition may wait for their sync. Default 2.
	InFlight int
	// ReplayWindow is how many events of a partition are remembered to drop them when a connector sends them again:
	// about 28 bytes each. As many records are read again when a partition is assigned. Default 100,000.
	ReplayWindow int
	// MoveWait bounds the wait for the other half of a key change in another partition. Default 30s.
	MoveWait time.Duration
	// MaxStaleKeys stops the pipeline when a table has so many stale keys: about 100 bytes of memory each.
	// Default 1,000,000.
	MaxStaleKeys int
	// WatchInterval is how often the ends of partitions are asked for, for lag and readiness. Default 5s.
	WatchInterval time.Duration

	Logger     *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: metrics are not exported
	Now        func() time.Time      // nil: time.Now
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	setDefault(&o.BatchRecords, 4096)
	setDefault(&o.BatchBytes, 4<<20)
	setDefault(&o.InFlight, 2)
	setDefault(&o.ReplayWindow, 100_000)
	setDefault(&o.MoveWait, 30*time.Second)
	setDefault(&o.MaxStaleKeys, 1_000_000)
	setDefault(&o.WatchInterval, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// maxWindow keeps places in the memory of identities within 31 bits.
const maxWindow = 1 << 28

// Validate reports all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"batch records", int64(o.BatchRecords)},
		{"batch bytes", int64(o.BatchBytes)},
		{"appends in flight", int64(o.InFlight)},
		{"replay window", int64(o.ReplayWindow)},
		{"move wait", int64(o.MoveWait)},
		{"stale keys", int64(o.MaxStaleKeys)},
		{"watch interval", int64(o.WatchInterval)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("ingest: %s: %d is negative", f.name, f.value))
		}
	}
	if o.ReplayWindow > maxWindow {
		errs = append(errs, fmt.Errorf("ingest: replay window %d is above %d", o.ReplayWindow, maxWindow))
	}
	return errors.Join(errs...)
}
