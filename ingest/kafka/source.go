// Package kafka reads Kafka topics as an ingest.Source, with franz-go, and writes recorded topics to Kafka.
//
// The reader is a member of a consumer group, which assigns partitions (cooperatively); where to read them from the
// group does not decide: positions come from the handler, whose log has them (P1), and are mirrored to the group only for
// others to see. Transactions that are aborted or open are not seen.
//
// One goroutine polls and hands records to one bounded queue a partition. When a queue is full, polling waits for a
// moment; if the queue's consumer does not move on by then, its partition is paused at the client and polling goes on, so
// that a consumer that waits for another partition does not wait for ever.
package kafka

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"firn/ingest"
)

// Source reads the topics of one Kafka cluster. It implements ingest.Source.
type Source struct {
	opts            Options
	admin           *kadm.Client // its own connection: bounds are asked for while a fetch is waiting
	include, except []*regexp.Regexp
}

var _ ingest.Source = (*Source)(nil)

// Open returns a source; it connects when it is used. Close it when Run has returned. Error: o is not valid.
func Open(o Options) (*Source, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(o.client()...)
	if err != nil {
		return nil, fmt.Errorf("kafka source %q: %w", o.Name, err)
	}
	s := &Source{opts: o, admin: kadm.NewClient(cl)}
	for _, p := range o.Topics {
		s.include = append(s.include, regexp.MustCompile(anchor(p)))
	}
	for _, p := range o.Exclude {
		s.except = append(s.except, regexp.MustCompile(anchor(p)))
	}
	return s, nil
}

// Close ends the source's connections.
func (s *Source) Close() { s.admin.Close() }

// Name implements ingest.Source.
func (s *Source) Name() string { return s.opts.Name }

func (s *Source) matches(topic string) bool {
	match := func(re *regexp.Regexp) bool { return re.MatchString(topic) }
	return slices.ContainsFunc(s.include, match) && !slices.ContainsFunc(s.except, match)
}

// Bounds implements ingest.Source. Ends are those of read_committed.
func (s *Source) Bounds(ctx context.Context, topic string) ([]ingest.Bounds, error) {
	topics := []string{topic}
	if topic == "" {
		all, err := s.admin.ListTopics(ctx)
		if err != nil {
			return nil, fmt.Errorf("source %s: list topics: %w", s.opts.Name, err)
		}
		topics = slices.DeleteFunc(all.Names(), func(t string) bool { return !s.matches(t) })
		if len(topics) == 0 {
			return nil, nil
		}
	}
	return s.bounds(ctx, topics, s.admin.ListCommittedOffsets)
}

type listOffsets func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

func (s *Source) bounds(ctx context.Context, topics []string, list listOffsets) ([]ingest.Bounds, error) {
	starts, err := s.admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: list start offsets: %w", s.opts.Name, err)
	}
	ends, err := list(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: list end offsets: %w", s.opts.Name, err)
	}
	var bounds []ingest.Bounds
	starts.Each(func(o kadm.ListedOffset) {
		end, ok := ends.Lookup(o.Topic, o.Partition)
		if !ok {
			return // made between the two requests
		}
		bounds = append(bounds, ingest.Bounds{
			Partition: ingest.Partition{Topic: o.Topic, Index: o.Partition}, Oldest: o.Offset, End: end.Offset,
		})
	})
	slices.SortFunc(bounds, func(a, b ingest.Bounds) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Index - b.Index)
	})
	return bounds, nil
}

// Run implements ingest.Source.
func (s *Source) Run(ctx context.Context, h ingest.Handler) error {
	r := &reader{source: s, handler: h, ctx: ctx, room: make(chan struct{}, 1), attached: make(chan struct{})}
	r.mu.streams = make(map[ingest.Partition]*stream)
	include := make([]string, len(s.opts.Topics))
	for i, p := range s.opts.Topics {
		include[i] = anchor(p)
	}
	opts := append(s.opts.client(),
		kgo.ConsumerGroup(s.opts.Group), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(s.opts.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.opts.SessionTimeout/3)),
		kgo.ConsumeRegex(), kgo.ConsumeTopics(include...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeStartOffset(kgo.NoResetOffset()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(s.opts.FetchBytes), kgo.FetchMaxPartitionBytes(s.opts.PartitionBytes), kgo.FetchMaxWait(fetchWait),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(s.opts.MirrorInterval),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(r.assigned), kgo.OnPartitionsRevoked(r.revoked), kgo.OnPartitionsLost(r.lost),
		kgo.AdjustFetchOffsetsFn(r.adjust),
	)
	if len(s.opts.Exclude) > 0 {
		exclude := make([]string, len(s.opts.Exclude))
		for i, p := range s.opts.Exclude {
			exclude[i] = anchor(p)
		}
		opts = append(opts, kgo.ConsumeExcludeTopics(exclude...))
	}
	if s.opts.Instance != "" {
		opts = append(opts, kgo.InstanceID(s.opts.Instance))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka source %q: %w", s.opts.Name, err)
	}
	r.client = cl
	close(r.attached)
	r.poll(ctx)
	r.stop(nil) // all consumers have returned, and marked what they applied
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	if err := cl.CommitMarkedOffsets(last); err != nil {
		s.opts.Logger.Warn("mirror last positions", "source", s.opts.Name, "err", err)
	}
	cl.CloseAllowingRebalance()
	return nil
}

const (
	// fetchWait is how long a broker may hold an empty fetch: a resumed partition waits that long at most.
	fetchWait = 250 * time.Millisecond
	// pauseWait is how long a full queue holds up polling before its partition is paused.
	pauseWait = 100 * time.Millisecond
	// stopWait bounds the last commit to the group: it is only a mirror.
	stopWait = 3 * time.Second
)

// reader is one Run of a source.
type reader struct {
	source   *Source
	handler  ingest.Handler
	client   *kgo.Client // set before attached is closed
	attached chan struct{}
	ctx      context.Context // Run's: callbacks of the client have no other way to it
	room     chan struct{}   // a full queue has room again

	mu struct {
		sync.Mutex
		streams map[ingest.Partition]*stream
	}
}
