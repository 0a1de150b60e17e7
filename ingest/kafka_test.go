package ingest_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"firn/ingest"
	"firn/ingest/file"
	"firn/ingest/kafka"
)

func newBroker(t *testing.T) []string {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake.ListenAddrs()
}

func seq(records []ingest.Record) iter.Seq2[ingest.Record, error] {
	return func(yield func(ingest.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func produce(t *testing.T, brokers []string, topics map[string]int32, records []ingest.Record) {
	t.Helper()
	n, err := kafka.Replay(t.Context(), kafka.Target{Brokers: brokers}, topics, seq(records))
	if err != nil || n != int64(len(records)) {
		t.Fatalf("replayed %d of %d: %v", n, len(records), err)
	}
}

func testLogger() *slog.Logger {
	if os.Getenv("FIRN_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// startKafka runs a pipeline with one Kafka source on l. stop ends it.
func startKafka(t *testing.T, brokers []string, l *fakeLog, topics string, routes []ingest.Route) (p *ingest.Pipeline, stop func()) {
	t.Helper()
	s, err := kafka.Open(kafka.Options{
		Name: "shop", Brokers: brokers, Topics: []string{topics}, Discover: 200 * time.Millisecond, SessionTimeout: 5 * time.Second,
		MirrorInterval: 100 * time.Millisecond, Logger: testLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err = ingest.New(l, l, []ingest.Input{{Source: s, Routes: routes}}, ingest.Options{WatchInterval: 100 * time.Millisecond, Logger: testLogger()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
			s.Close()
		})
	}
	t.Cleanup(stop)
	return p, stop
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (l *fakeLog) applied() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.visible.changes)
}

// TestKafkaStream: the recorded stream through a broker, one and three partitions.
func TestKafkaStream(t *testing.T) {
	expected := expectedTables(t)
	for _, partitions := range []int32{1, 3} {
		brokers := newBroker(t)
		records := readRecording(t, "stream_2000_schema.jsonl.gz", partitions)
		topics, err := file.Partitions(t.Context(), samples+"stream_2000_schema.jsonl.gz")
		if err != nil {
			t.Fatal(err)
		}
		for topic := range topics {
			topics[topic] = partitions
		}
		produce(t, brokers, topics, records)
		l := openLog(newDisk())
		p, stop := startKafka(t, brokers, l, `(__debezium-heartbeat\.)?dbserver1.*`, nil)
		waitFor(t, "all records", func() bool { return p.Status()[0].Counts.Read >= int64(len(records)) })
		waitFor(t, "no lag", func() bool {
			for _, part := range p.Status()[0].Partitions {
				if part.Lag != 0 {
					return false
				}
			}
			return len(p.Unready()) == 0
		})
		stop()
		checkCounts(t, p, int64(len(records)), false)
		compareTables(t, l, expected, keyed...)
		checkParked(t, l, partitions)
		checkOnce(t, l)
	}
}

// TestRebalance: two members share a group and one log; partitions move between them while records come, and nothing
// is lost or applied twice (P1).
func TestRebalance(t *testing.T) {
	const partitions, rounds, rowsPerRound = 6, 60, 50
	brokers := newBroker(t)
	m := newMaker("a.b.t", partitions)
	version := 0
	next := func() []ingest.Record {
		m.records = nil
		version++
		for id := range int64(rowsPerRound) {
			m.add("u", id, fmt.Sprintf(`"v":%d,"note":"x"`, version))
		}
		return m.records
	}
	topics := map[string]int32{"a.b.t": partitions}
	produce(t, brokers, topics, next())
	l := openLog(newDisk())
	_, stopA := startKafka(t, brokers, l, `a\..*`, nil)
	waitFor(t, "the first records", func() bool { return l.applied() >= rowsPerRound })
	var b, c *ingest.Pipeline
	var stopB func()
	for round := 1; round < rounds; round++ {
		produce(t, brokers, topics, next())
		switch round {
		case 10:
			b, stopB = startKafka(t, brokers, l, `a\..*`, nil)
		case 20:
			waitFor(t, "partitions at the second member", func() bool { return assigned(b) == partitions/2 })
		case 30:
			stopA()
		case 40:
			c, _ = startKafka(t, brokers, l, `a\..*`, nil)
		case 50:
			waitFor(t, "partitions at the third member", func() bool { return assigned(c) == partitions/2 })
			stopB()
		}
	}
	waitFor(t, "all records", func() bool { return l.applied() >= rounds*rowsPerRound })
	time.Sleep(50 * time.Millisecond)
	l.check(t)
	checkOnce(t, l)
	checkVersions(t, l, m, rowsPerRound, rounds)
}

func assigned(p *ingest.Pipeline) int {
	n := 0
	for _, part := range p.Status()[0].Partitions {
		if part.Assigned {
			n++
		}
	}
	return n
}

// TestDiscovery: topics that are made while the source runs are read, excluded ones are not; positions are mirrored to
// the group; transaction marks leave no lag and aborted records are not seen.
func TestDiscovery(t *testing.T) {
	brokers := newBroker(t)
	first, later, other := newMaker("a.b.t", 1), newMaker("a.b.later", 2), newMaker("x.b.t", 1)
	for i := range int64(10) {
		first.add("c", i, `"v":1,"note":"a"`)
		later.add("c", i, `"v":1,"note":"a"`)
		other.add("c", i, `"v":1,"note":"a"`)
	}
	produce(t, brokers, map[string]int32{"a.b.t": 1, "x.b.t": 1}, append(first.records, other.records...))
	l := openLog(newDisk())
	p, _ := startKafka(t, brokers, l, `a\..*`, nil)
	waitFor(t, "the first topic", func() bool { return l.applied() == 10 })
	produce(t, brokers, map[string]int32{"a.b.later": 2}, later.records)
	waitFor(t, "the later topic", func() bool { return l.applied() == 20 })

	tx, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	for i, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		m := newMaker("a.b.t", 1)
		m.lsn = int64(5000 + 100*i)
		m.add("c", int64(100+i), fmt.Sprintf(`"v":%d,"note":"tx"`, i))
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), &kgo.Record{Topic: "a.b.t", Key: m.records[0].Key, Value: m.records[0].Value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "committed records", func() bool { return l.applied() == 22 })
	waitFor(t, "no lag", func() bool {
		st := p.Status()[0]
		return st.State == ingest.SourceRunning && len(st.Partitions) == 3 && st.Partitions[2].Topic == "a.b.t" && st.Partitions[2].End == 16 && st.Partitions[2].Lag == 0
	})
	if got := rows(t, l, "a_b.t"); strings.Contains(got, `"id":101`) || !strings.Contains(got, `"id":102`) {
		t.Errorf("rows\n%s", got)
	}
	waitFor(t, "the mirror", func() bool {
		offsets, err := kadm.NewClient(tx).FetchOffsets(t.Context(), "firn-shop")
		if err != nil {
			t.Fatal(err)
		}
		o, ok := offsets.Lookup("a.b.t", 0)
		return ok && o.At == 16
	})
}

// TestKafkaResume: positions come from the log, not from the group.
func TestKafkaResume(t *testing.T) {
	brokers := newBroker(t)
	m := newMaker("a.b.t", 1)
	for i := range int64(100) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	produce(t, brokers, map[string]int32{"a.b.t": 1}, m.records)
	for life := range 3 { // each has lost its disk: the group's offsets would give nothing
		l := openLog(newDisk())
		p, stop := startKafka(t, brokers, l, `a\..*`, nil)
		waitFor(t, "records", func() bool { return p.Status()[0].Counts.Applied == 100 })
		stop()
		l = l.crash(0)
		again, stop := startKafka(t, brokers, l, `a\..*`, nil)
		waitFor(t, "the position", func() bool {
			st := again.Status()[0]
			return len(st.Partitions) == 1 && st.Partitions[0].Assigned && st.Partitions[0].Lag == 0
		})
		stop()
		if c := again.Status()[0].Counts; c.Read != 0 || l.applied() != 100 {
			t.Errorf("life %d: %+v, %d changes", life, c, l.applied())
		}
	}
}
