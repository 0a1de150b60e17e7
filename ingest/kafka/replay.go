package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"firn/ingest"
)

// Target is a cluster to write to.
type Target struct {
	Brokers []string
	TLS     *tls.Config    // nil: not encrypted
	SASL    sasl.Mechanism // nil: not authenticated
}

// maxUnsent bounds the records that wait to be sent.
const maxUnsent = 20_000

// Replay writes records to the topics and partitions that they name, in order within a partition, with their keys,
// values, headers and times; the broker gives offsets. topics are made first, with the number of partitions given, where
// they are not there. It returns how many records the broker has taken.
func Replay(ctx context.Context, to Target, topics map[string]int32, records iter.Seq2[ingest.Record, error]) (int64, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(to.Brokers...), kgo.ClientID("firn-replay"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(maxUnsent), kgo.ProducerBatchMaxBytes(16 << 20), kgo.BrokerMaxWriteBytes(64 << 20),
		kgo.MetadataMinAge(metadataPoll), // the client answers from its memory meanwhile
	}
	if to.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(to.TLS))
	}
	if to.SASL != nil {
		opts = append(opts, kgo.SASL(to.SASL))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return 0, fmt.Errorf("replay: %w", err)
	}
	defer cl.Close()
	if err := makeTopics(ctx, kadm.NewClient(cl), topics); err != nil {
		return 0, fmt.Errorf("replay: %w", err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var taken atomic.Int64
	done := func(r *kgo.Record, err error) {
		if err != nil {
			fail(fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, err))
			return
		}
		taken.Add(1)
	}
	for r, err := range records {
		if err != nil {
			fail(err)
		}
		if ctx.Err() != nil {
			break
		}
		cl.Produce(ctx, record(r), done)
	}
	if err := cl.Flush(ctx); err != nil {
		return taken.Load(), fmt.Errorf("replay: %w", context.Cause(ctx))
	}
	if err := context.Cause(ctx); err != nil {
		return taken.Load(), fmt.Errorf("replay: %w", err)
	}
	return taken.Load(), nil
}

func record(r ingest.Record) *kgo.Record {
	out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Timestamp: time.UnixMilli(r.Timestamp), Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return out
}

// makeTopics makes the topics that are not there, without a time of retention: the records' own times count for it, and
// recorded ones are old. A topic that has fewer partitions than it needs is an error.
func makeTopics(ctx context.Context, admin *kadm.Client, topics map[string]int32) error {
	names := make([]string, 0, len(topics))
	forever := "-1"
	for topic, n := range topics {
		_, err := admin.CreateTopic(ctx, n, -1, map[string]*string{"retention.ms": &forever}, topic)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", topic, err)
		}
		names = append(names, topic)
	}
	return awaitPartitions(ctx, admin, topics, names)
}

const (
	metadataTimeout = 30 * time.Second       // for new topics to be known to every broker
	metadataPoll    = 100 * time.Millisecond // between two questions
)

// awaitPartitions waits until the topics can be written to: a broker may answer that a topic is made before it, or the one
// that is asked next, has heard of its partitions and their leaders.
func awaitPartitions(ctx context.Context, admin *kadm.Client, topics map[string]int32, names []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, metadataTimeout, fmt.Errorf("not known to the brokers %s after they were made", metadataTimeout))
	defer cancel()
	for {
		details, err := admin.ListTopics(ctx, names...)
		if err != nil {
			return fmt.Errorf("list topics: %w", err)
		}
		wait, err := settling(topics, details)
		if err != nil || wait == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s: %w", wait, context.Cause(ctx))
		case <-time.After(metadataPoll):
		}
	}
}

// settling names a topic that is not ready to be written to yet, or "". A topic that is ready and has fewer partitions
// than it needs is an error.
func settling(topics map[string]int32, details kadm.TopicDetails) (string, error) {
	for topic, n := range topics {
		d := details[topic]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition), errors.Is(d.Err, kerr.LeaderNotAvailable), d.Err == nil && len(d.Partitions) == 0:
			return topic, nil
		case d.Err != nil:
			return "", fmt.Errorf("topic %s: %w", topic, d.Err)
		case len(d.Partitions) < int(n):
			return "", fmt.Errorf("topic %s has %d partitions, the records need %d", topic, len(d.Partitions), n)
		}
	}
	return "", nil
}
