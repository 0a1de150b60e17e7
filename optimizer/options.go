package optimizer

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// Rules decide when and how the files of one table are optimized. They are the defaults of all tables; a table's own
// properties override them (Rules.Of), by the names that Amoro gives them.
type Rules struct {
	// Disabled leaves the table alone; Once works on it all the same. Property self-optimizing.enabled (inverted).
	// An Amoro cluster that optimizes the table needs this. Default false.
	Disabled bool
	// MinorInterval is how long change files may wait for a merge: the bound on the base store's staleness, besides the
	// merge's own time. Property self-optimizing.minor.trigger.interval, ms. Default 30s (Amoro: 1 h).
	MinorInterval time.Duration
	// MinorFiles pending change files start a merge before the interval is over. Property
	// self-optimizing.minor.trigger.file-count. Default 12.
	MinorFiles int
	// MaxFiles, MaxRows and MaxBytes bound one merge; what is left follows in the next one. At least one commit of the
	// change store is taken, whatever its size. A merge holds about 100 bytes and the key for each distinct key among
	// MaxRows. Property of the first: self-optimizing.max-file-count. Defaults 10000, 1,000,000 and 1 GiB.
	MaxFiles int
	MaxRows  int64
	MaxBytes int64
	// TargetBytes is the size of base files that are left alone, and the most a rewritten one gets. Property
	// self-optimizing.target-size. Default 128 MiB.
	TargetBytes int64
	// FragmentRatio: base files of at most TargetBytes/FragmentRatio are fragments, which deletes do not make dirty (they
	// are merged soon anyway). Property self-optimizing.fragment-ratio. Default 8.
	FragmentRatio int64
	// MinTargetRatio: base files of more than this share of TargetBytes are not merged with others. Property
	// self-optimizing.min-target-size-ratio. Default 0.75.
	MinTargetRatio float64
	// DuplicateRatio: a base file that is no fragment is rewritten once more than this share of its rows is deleted. The
	// lower it is, the less readers skip and the more is rewritten: 1/DuplicateRatio rows for each updated one, if
	// updates hit all files evenly. Property self-optimizing.major.trigger.duplicate-ratio. Default 0.1.
	DuplicateRatio float64
	// FanIn small files of about one size (within a factor of FanIn) are merged into one: each row is rewritten once a
	// factor of FanIn, and at most about FanIn-1 files a factor stay. Default 8.
	FanIn int
	// MaxDeletes bounds the position-delete files of a (partition, node): at that many, small ones are put together.
	// Default 16.
	MaxDeletes int
	// FullInterval is how often all of a partition is rewritten; negative: never. Property
	// self-optimizing.full.trigger.interval, ms. Default -1.
	FullInterval time.Duration
	// FullKeepClean leaves files that are large and have no deletes out of a full rewrite. Property
	// self-optimizing.full.rewrite-all-files (inverted). Default false.
	FullKeepClean bool
	// Buckets is over how many tree nodes base files are spread: a power of two up to 65536; base files of other nodes are
	// rewritten. 0 (auto-bucket): each partition has as many as its size needs (see tree). Property
	// base.file-index.hash-bucket, unless firn.auto-bucket is true; firn.auto-bucket=false alone means 4, as in Amoro.
	// Default 0.
	Buckets int
	// ChangeTTL is how long a change file stays in the change store after its commit; then it goes, if it is merged.
	// Property change.data.ttl.minutes. Default 5m (Amoro: 7 days). See Options.Hold.
	ChangeTTL time.Duration
	// KeepSnapshots is how many snapshots each store keeps. A file that left a store stays on disk as long as one
	// of them names it, so this also is the time that readers of an older snapshot have. Property
	// snapshot.keep.min-count. Default 50.
	KeepSnapshots int
	// KeepAge is the least age at which a snapshot is expired, even if there are more than KeepSnapshots. Property
	// snapshot.keep.duration ("90s", "10min", "12h", "7d"). Default 1m (Amoro: 720min).
	KeepAge time.Duration
	// Sequence is where the optimized sequences are published. Property firn.optimized-sequence. Default table.SequenceAuto.
	Sequence table.SequenceForm
}

// EnsureDefaults sets fields that are zero to their defaults.
func (r *Rules) EnsureDefaults() {
	set(&r.MinorInterval, 30*time.Second)
	set(&r.MinorFiles, 12)
	set(&r.MaxFiles, 10_000)
	set(&r.MaxRows, 1_000_000)
	set(&r.MaxBytes, 1<<30)
	set(&r.TargetBytes, 128<<20)
	set(&r.FragmentRatio, 8)
	set(&r.MinTargetRatio, 0.75)
	set(&r.DuplicateRatio, 0.1)
	set(&r.FanIn, 8)
	set(&r.MaxDeletes, 16)
	set(&r.FullInterval, -1)
	set(&r.ChangeTTL, 5*time.Minute)
	set(&r.KeepSnapshots, 50)
	set(&r.KeepAge, time.Minute)
	set(&r.Sequence, table.SequenceAuto)
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all settings that cannot be.
func (r *Rules) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("optimizer: "+format, args...))
		}
	}
	check(r.MinorInterval >= 0, "minor interval %s is negative", r.MinorInterval)
	check(r.MinorFiles > 0, "minor file count %d is not positive", r.MinorFiles)
	check(r.MaxFiles > 0 && r.MaxRows > 0 && r.MaxBytes > 0, "a bound of a merge (files %d, rows %d, bytes %d) is not positive",
		r.MaxFiles, r.MaxRows, r.MaxBytes)
	check(r.MaxRows <= maxRows, "at most %d rows a merge, not %d", maxRows, r.MaxRows)
	check(r.TargetBytes > 0, "target size %d is not positive", r.TargetBytes)
	check(r.FragmentRatio > 0, "fragment ratio %d is not positive", r.FragmentRatio)
	check(r.MinTargetRatio > 0 && r.MinTargetRatio <= 1, "min target size ratio %g is not in (0,1]", r.MinTargetRatio)
	check(r.DuplicateRatio >= 0 && r.DuplicateRatio <= 1, "duplicate ratio %g is not in [0,1]", r.DuplicateRatio)
	check(r.FanIn >= 2, "fan-in %d is less than 2", r.FanIn)
	check(r.MaxDeletes >= 2, "at least 2 position-delete files, not %d", r.MaxDeletes)
	check(r.Buckets == 0 || mixed.ValidBuckets(r.Buckets), "%d buckets: %w", r.Buckets, mixed.ErrBuckets)
	check(r.ChangeTTL >= 0, "change TTL %s is negative", r.ChangeTTL)
	check(r.KeepSnapshots > 0, "kept snapshots %d: at least 1", r.KeepSnapshots)
	check(r.KeepAge >= 0, "kept snapshots' age %s is negative", r.KeepAge)
	if _, err := table.ParseSequenceForm(string(r.Sequence)); err != nil {
		errs = append(errs, fmt.Errorf("optimizer: %w", err))
	}
	return errors.Join(errs...)
}

const (
	maxRows = 1 << 30 // row numbers of a merge fit in 32 bits
	maxOpen = 256     // files that a task writes at a time, one a node; with more buckets rows come to their nodes in steps
)

// propAutoBucket is the table property of Rules.Buckets = 0.
const propAutoBucket = "firn.auto-bucket"

// Of returns the rules of a table with the given properties: those that are there and can be read override r's.
// Unreadable ones are reported together and leave r's value.
func (r Rules) Of(properties map[string]string) (Rules, error) {
	var errs []error
	apply := func(name string, parse func(string) error) {
		v, ok := properties[name]
		if !ok {
			return
		}
		if err := parse(v); err != nil {
			errs = append(errs, fmt.Errorf("table property %s=%q: %w", name, v, err))
		}
	}
	was := r
	apply("self-optimizing.enabled", negated(&r.Disabled))
	apply("self-optimizing.minor.trigger.interval", duration(&r.MinorInterval, time.Millisecond))
	apply("self-optimizing.minor.trigger.file-count", integer(&r.MinorFiles))
	apply("self-optimizing.max-file-count", integer(&r.MaxFiles))
	apply("self-optimizing.target-size", integer(&r.TargetBytes))
	apply("self-optimizing.fragment-ratio", integer(&r.FragmentRatio))
	apply("self-optimizing.min-target-size-ratio", float(&r.MinTargetRatio))
	apply("self-optimizing.major.trigger.duplicate-ratio", float(&r.DuplicateRatio))
	apply("self-optimizing.full.trigger.interval", duration(&r.FullInterval, time.Millisecond))
	apply("self-optimizing.full.rewrite-all-files", negated(&r.FullKeepClean))
	buckets, err := r.bucketsOf(properties)
	if err != nil {
		errs = append(errs, err)
	}
	r.Buckets = buckets
	apply("change.data.ttl.minutes", duration(&r.ChangeTTL, time.Minute))
	apply("snapshot.keep.min-count", integer(&r.KeepSnapshots))
	apply("snapshot.keep.duration", amoroDuration(&r.KeepAge))
	apply(table.PropSequence, func(v string) (err error) {
		f, err := table.ParseSequenceForm(v)
		if err == nil {
			r.Sequence = f
		}
		return err //nolint:wrapcheck // it names the value
	})
	if err := r.Validate(); err != nil {
		return was, errors.Join(append(errs, err)...)
	}
	return r, errors.Join(errs...)
}

// bucketsOf returns Buckets of a table; r's after an error.
func (r *Rules) bucketsOf(properties map[string]string) (int, error) {
	n, fixed, err := mixed.ParseBuckets(properties, mixed.PropBaseBuckets)
	if err != nil {
		return r.Buckets, err //nolint:wrapcheck // it names the property
	}
	v, ok := properties[propAutoBucket]
	auto, err := strconv.ParseBool(v)
	switch {
	case ok && err != nil:
		return r.Buckets, fmt.Errorf("table property %s=%q: %w", propAutoBucket, v, err)
	case auto:
		return 0, nil
	case fixed:
		return n, nil
	case ok:
		return mixed.DefaultBuckets, nil
	}
	return r.Buckets, nil
}

func negated(to *bool) func(string) error {
	return func(s string) error {
		b, err := strconv.ParseBool(s)
		if err == nil {
			*to = !b
		}
		return err
	}
}

func integer[T int | int64](to *T) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err == nil {
			*to = T(n)
		}
		return err
	}
}

func float(to *float64) func(string) error {
	return func(s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err == nil {
			*to = f
		}
		return err
	}
}

func duration(to *time.Duration, unit time.Duration) func(string) error {
	return func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err == nil {
			*to = time.Duration(n) * unit
		}
		return err
	}
}

// amoroDuration parses a whole number with a unit, as Amoro spells it.
func amoroDuration(to *time.Duration) func(string) error {
	units := []struct {
		name string
		unit time.Duration
	}{{"ms", time.Millisecond}, {"min", time.Minute}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}}
	return func(s string) error {
		for _, u := range units {
			if n, ok := strings.CutSuffix(strings.TrimSpace(s), u.name); ok {
				return duration(to, u.unit)(strings.TrimSpace(n))
			}
		}
		return errors.New("no unit: ms, s, min, h or d")
	}
}

// Options of an Optimizer.
type Options struct {
	// Rules are those of tables whose properties say nothing else.
	Rules Rules
	// TableRules, if set, answers for single tables what Rules does for all: properties still override. It must not block.
	TableRules func(name string) Rules
	// Workers tables are worked on at once, each by one goroutine. Default 1: on two cores the rest is ingest's.
	Workers int
	// CheckInterval is how often a table that seems to have nothing to do is looked at in the catalog all the same, for
	// what others committed to it. Default 1m.
	CheckInterval time.Duration
	// MaxBackoff is the longest pause after failures in a row; the first one is one second, each doubles. Default 10m.
	MaxBackoff time.Duration
	// ExpireInterval is how often merged change files and old snapshots of a table are removed. Default 1m.
	ExpireInterval time.Duration
	// OrphanAge is how old a file in a store's data directory that no snapshot names must be to be removed: what a crash
	// left between writing and commit. It is far more than any writer's round takes. Negative: none is removed.
	// Default 48h. Amoro: clean-orphan-file.min-existing-time-minutes.
	OrphanAge time.Duration
	// OrphanInterval is how often orphans are looked for. Default 6h; the first time an interval after the start.
	OrphanInterval time.Duration
	// Hold returns the first SeqNum of a table whose change files must stay, whatever Rules.ChangeTTL says: a feed needs
	// them for what the LogStore has trimmed. ok is false if none must. nil: none. It must not block.
	Hold func(changelog.TableID) (first changelog.SeqNum, ok bool)

	// Stopped reports whether nothing may be written to a table until a person has looked at it: Run leaves it alone. nil: none
	// is. It must not block.
	Stopped func(changelog.TableID) bool

	// Files are the options of the Parquet files that are written and read.
	Files datafile.Options

	Registerer prometheus.Registerer // nil: metrics are kept, not registered
	Logger     *slog.Logger          // nil: discarded
	Now        func() time.Time      // nil: time.Now
}

// EnsureDefaults sets fields that are zero to their defaults.
func (o *Options) EnsureDefaults() {
	o.Rules.EnsureDefaults()
	o.Files.EnsureDefaults()
	set(&o.Workers, 1)
	set(&o.CheckInterval, time.Minute)
	set(&o.MaxBackoff, 10*time.Minute)
	set(&o.ExpireInterval, time.Minute)
	set(&o.OrphanAge, 48*time.Hour)
	set(&o.OrphanInterval, 6*time.Hour)
	if o.Stopped == nil {
		o.Stopped = func(changelog.TableID) bool { return false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate reports all settings that cannot be.
func (o *Options) Validate() error {
	err := o.Rules.Validate()
	if o.Workers < 1 {
		err = errors.Join(err, fmt.Errorf("optimizer: %d workers: at least 1", o.Workers))
	}
	if min(o.CheckInterval, o.MaxBackoff, o.ExpireInterval, o.OrphanInterval) < 0 {
		err = errors.Join(err, errors.New("optimizer: an interval is negative"))
	}
	return err
}

// rulesOf returns the rules of a table before its properties.
func (o *Options) rulesOf(name string) Rules {
	if o.TableRules == nil {
		return o.Rules
	}
	r := o.TableRules(name)
	r.EnsureDefaults()
	return r
}
