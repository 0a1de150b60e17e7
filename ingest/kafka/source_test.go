package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"firn/ingest"
	"firn/ingest/kafka"
	"firn/ingest/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a broker in this process, and a producer.
type cluster struct {
	brokers []string
	client  *kgo.Client
	ends    map[int32]int64
}

func newCluster(t *testing.T, topics map[string]int32) *cluster {
	t.Helper()
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}
	for topic, n := range topics {
		opts = append(opts, kfake.SeedTopics(n, topic))
	}
	fake, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return &cluster{brokers: fake.ListenAddrs(), client: cl, ends: map[int32]int64{}}
}

func (c *cluster) produce(t *testing.T, topic string, partition int32, n int) {
	t.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Topic: topic, Partition: partition, Value: []byte(sourcetest.Value(c.ends[partition] + int64(i)))}
	}
	if err := c.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.ends[partition] += int64(n)
}

func (c *cluster) open(t *testing.T, topics ...string) *kafka.Source {
	t.Helper()
	s, err := kafka.Open(kafka.Options{
		Name: "test", Brokers: c.brokers, Topics: topics, Discover: 200 * time.Millisecond, SessionTimeout: 5 * time.Second,
		MirrorInterval: 100 * time.Millisecond, QueueBytes: 1 << 20, Logger: testLog(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		const topic = "a.b.c"
		c := newCluster(t, map[string]int32{topic: 2})
		return sourcetest.Fixture{
			Topic: topic, Follows: true, Shares: true,
			Open:    func(t *testing.T) ingest.Source { return c.open(t, `a\..*`) },
			Produce: func(t *testing.T, p int32, n int) { c.produce(t, topic, p, n) },
			Trim: func(t *testing.T, p int32, before int64) {
				_, err := kadm.NewClient(c.client).DeleteRecords(t.Context(), kadm.Offsets{topic: {p: {Topic: topic, Partition: p, At: before}}})
				if err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// TestInstance: a static member that comes back after a crash has its partitions at once, not after the session timeout.
func TestInstance(t *testing.T) {
	c := newCluster(t, map[string]int32{"t": 2})
	c.produce(t, "t", 0, 10)
	o := kafka.Options{Name: "test", Brokers: c.brokers, Topics: []string{"t"}, Instance: "one", SessionTimeout: 30 * time.Second, Logger: testLog()}
	for life := range 3 {
		s, err := kafka.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		h := &firstBatch{got: make(chan ingest.Batch, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- s.Run(ctx, h) }()
		select {
		case b := <-h.got:
			if len(b.Records) != 10 || time.Since(start) > 10*time.Second {
				t.Errorf("life %d: %d records after %s", life, len(b.Records), time.Since(start))
			}
		case <-time.After(20 * time.Second):
			t.Errorf("life %d: nothing", life)
		}
		cancel() // a static member does not leave its group: to the others it is as if it had crashed
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

// firstBatch hands on the first records of any partition.
type firstBatch struct{ got chan ingest.Batch }

func (h *firstBatch) Resume(context.Context, ingest.Partition) (ingest.Resume, error) {
	return ingest.Resume{Next: ingest.Unknown}, nil
}

func (h *firstBatch) Consume(ctx context.Context, s ingest.Stream) {
	for {
		b, err := s.Next(ctx)
		if err != nil {
			return
		}
		if len(b.Records) > 0 {
			h.got <- b
			<-ctx.Done()
			return
		}
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]kafka.Options{
		"nothing":         {},
		"pattern":         {Name: "x", Brokers: []string{"b"}, Topics: []string{"("}},
		"start":           {Name: "x", Brokers: []string{"b"}, Topics: []string{"t"}, Start: "middle"},
		"mirror interval": {Name: "x", Brokers: []string{"b"}, Topics: []string{"t"}, MirrorInterval: time.Millisecond},
		"fetch bytes":     {Name: "x", Brokers: []string{"b"}, Topics: []string{"t"}, FetchBytes: 1000},
	} {
		if s, err := kafka.Open(o); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
