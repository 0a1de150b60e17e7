package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
)

// Start says where to read a partition from for which no position is stored.
type Start string

// The starts.
const (
	Earliest Start = "earliest"
	Latest   Start = "latest"
)

// Options are the settings of one Kafka source.
type Options struct {
	// Name is the source's configured name: part of stored positions. Required.
	Name string
	// Brokers are host:port pairs to begin with. Required.
	Brokers []string
	// Group is the consumer group. Default "firn-" and Name.
	Group string
	// Instance, if set, makes the reader a static member of its group: after a crash it gets its partitions back at
	// once instead of after SessionTimeout. It must be unique within the group, and the same after a restart.
	Instance string
	// Topics are anchored regular expressions; new topics that match are found while running. Required.
	Topics []string
	// Exclude are anchored regular expressions of topics to leave out.
	Exclude []string
	// Start is used where no position is stored. Default earliest.
	Start Start

	// FetchBytes bounds one answer of one broker, before decompression. Default 8 MiB.
	FetchBytes int32
	// PartitionBytes bounds the share of one partition in it. Default 1 MiB.
	PartitionBytes int32
	// QueueBytes is how much of one partition waits to be taken in before the partition is held back; one answer
	// more may arrive. Default 4 MiB.
	QueueBytes int
	// Discover is how often new topics and partitions are looked for. Default 10s.
	Discover time.Duration
	// SessionTimeout is how long the group waits for a member that is silent. Default 30s.
	SessionTimeout time.Duration
	// MirrorInterval is how often applied positions are committed to the group, where lag tools see them. They are
	// never read back. Default 1s.
	MirrorInterval time.Duration

	// TLS, if set, encrypts connections; SASL, if set, authenticates.
	TLS  *tls.Config
	SASL sasl.Mechanism

	Logger *slog.Logger // nil: nothing is logged
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	setDefault(&o.Group, "firn-"+o.Name)
	setDefault(&o.Start, Earliest)
	setDefault(&o.FetchBytes, 8<<20)
	setDefault(&o.PartitionBytes, 1<<20)
	setDefault(&o.QueueBytes, 4<<20)
	setDefault(&o.Discover, 10*time.Second)
	setDefault(&o.SessionTimeout, 30*time.Second)
	setDefault(&o.MirrorInterval, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate reports all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Name == "" {
		bad("no name")
	}
	if len(o.Brokers) == 0 {
		bad("no brokers")
	}
	if len(o.Topics) == 0 {
		bad("no topics")
	}
	if o.Start != Earliest && o.Start != Latest {
		bad("start %q: it is %q or %q", o.Start, Earliest, Latest)
	}
	if o.FetchBytes < o.PartitionBytes {
		bad("fetch bytes %d are below partition bytes %d", o.FetchBytes, o.PartitionBytes)
	}
	for name, v := range map[string]int64{
		"fetch bytes": int64(o.FetchBytes), "partition bytes": int64(o.PartitionBytes), "queue bytes": int64(o.QueueBytes),
		"discover": int64(o.Discover), "session timeout": int64(o.SessionTimeout), "mirror interval": int64(o.MirrorInterval),
	} {
		if v < 0 {
			bad("%s is negative", name)
		}
	}
	if o.MirrorInterval < 100*time.Millisecond {
		bad("mirror interval %s is below 100ms", o.MirrorInterval)
	}
	for _, p := range append(append([]string(nil), o.Topics...), o.Exclude...) {
		if _, err := regexp.Compile(anchor(p)); err != nil {
			bad("topic pattern %q: %w", p, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kafka source %q: %w", o.Name, err)
	}
	return nil
}

func anchor(pattern string) string { return "^(?:" + pattern + ")$" }

// client returns the settings that all of the source's connections share.
func (o *Options) client() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(o.Brokers...), kgo.ClientID("firn-" + o.Name), kgo.WithLogger(&logger{log: o.Logger.With("source", o.Name)}),
		kgo.MetadataMaxAge(o.Discover), kgo.MetadataMinAge(min(o.Discover, time.Second)),
	}
	if o.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(o.TLS))
	}
	if o.SASL != nil {
		opts = append(opts, kgo.SASL(o.SASL))
	}
	return opts
}
