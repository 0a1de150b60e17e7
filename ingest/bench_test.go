package ingest_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/kafka"
)

// noLog takes everything and keeps nothing but tables.
type noLog struct {
	*fakeLog
	changes atomic.Int64
}

func (l *noLog) Submit(_ context.Context, a changelog.Append) (ingest.Ticket, error) {
	for _, t := range a.Tables {
		l.changes.Add(int64(len(t.Changes)))
	}
	return doneTicket{}, nil
}

func (l *noLog) Row(context.Context, changelog.TableID, changelog.Key) (changelog.Row, bool, error) {
	return nil, false, nil
}

func (l *noLog) Keys(context.Context, changelog.TableID) iter.Seq2[changelog.Key, error] {
	return each(nil)
}

type doneTicket struct{}

func (doneTicket) Wait(context.Context) (changelog.Applied, error) { return changelog.Applied{}, nil }

// loopSource gives the same records again and again, with new offsets, n to each partition.
type loopSource struct {
	records    []ingest.Record
	partitions int
	n          int64
}

func (s *loopSource) Name() string { return "loop" }

func (s *loopSource) Bounds(context.Context, string) ([]ingest.Bounds, error) {
	var all []ingest.Bounds
	for i := range s.partitions {
		all = append(all, ingest.Bounds{Partition: ingest.Partition{Topic: s.records[0].Topic, Index: int32(i)}, End: s.n})
	}
	return all, nil
}

func (s *loopSource) Run(ctx context.Context, h ingest.Handler) error {
	bounds, _ := s.Bounds(ctx, "")
	var wg sync.WaitGroup
	for _, b := range bounds {
		wg.Go(func() { h.Consume(ctx, &loopStream{source: s, partition: b.Partition}) })
	}
	wg.Wait()
	return nil
}

type loopStream struct {
	source    *loopSource
	partition ingest.Partition
	next      int64
	batch     []ingest.Record
}

func (s *loopStream) Partition() ingest.Partition { return s.partition }
func (s *loopStream) Begin() int64                { return 0 }
func (s *loopStream) Acknowledge(int64)           {}

func (s *loopStream) Next(context.Context) (ingest.Batch, error) {
	if s.next >= s.source.n {
		return ingest.Batch{}, io.EOF
	}
	s.batch = s.batch[:0]
	for range min(2000, s.source.n-s.next) {
		r := s.source.records[int(s.next)%len(s.source.records)]
		r.Offset, r.Partition = s.next, s.partition.Index
		s.next++
		s.batch = append(s.batch, r)
	}
	return ingest.Batch{Records: s.batch, Next: s.next, End: s.source.n}, nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPipeline is decoding, filtering and building appends, with a log that does nothing. One operation is one
// record.
func BenchmarkPipeline(b *testing.B) {
	for _, schemas := range []bool{true, false} {
		for _, filter := range []bool{true, false} {
			b.Run(fmt.Sprintf("schemas=%v/filter=%v", schemas, filter), func(b *testing.B) {
				m := newMaker("a.b.t", 1)
				m.columns = "customer:int64,amount:double,note:string,v:int64,status:string"
				for i := range int64(20000) {
					m.add("u", i, fmt.Sprintf(`"customer":%d,"amount":%d.25,"note":"some words about order %d","v":%d,"status":"paid"`, i%977, i, i, i))
				}
				size := 0
				for i := range m.records {
					if !schemas {
						r := &m.records[i]
						_, r.Key, _ = cutPayload(r.Key)
						_, r.Value, _ = cutPayload(r.Value)
					}
					size += len(m.records[i].Key) + len(m.records[i].Value)
				}
				l := &noLog{fakeLog: openLog(newDisk())}
				s := &loopSource{records: m.records, partitions: 4, n: int64(b.N+3) / 4}
				p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: []ingest.Route{{Topic: ".*", KeepRepeats: !filter}}}}, ingest.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size / len(m.records)))
				b.ReportAllocs()
				b.ResetTimer()
				start := cpu()
				if err := p.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(b.N)/(cpu()-start).Seconds(), "records/cpu-s")
				if c := p.Status()[0].Counts; c.Parked > 0 || c.Applied+c.Replayed != c.Read {
					b.Fatalf("%+v", c)
				}
			})
		}
	}
}

func cutPayload(b []byte) (before, payload []byte, ok bool) {
	i := strings.Index(string(b), `"payload":`)
	if i < 0 {
		return nil, b, false
	}
	return nil, b[i+len(`"payload":`) : len(b)-1], true
}

// BenchmarkKafka is BenchmarkPipeline behind a broker in the same process, which takes part of the processor.
func BenchmarkKafka(b *testing.B) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	defer fake.Close()
	m := newMaker("a.b.t", 4)
	for i := range int64(b.N) {
		m.add("u", i, fmt.Sprintf(`"v":%d,"note":"some words about order %d"`, i, i))
		r := &m.records[i]
		_, r.Key, _ = cutPayload(r.Key)
		_, r.Value, _ = cutPayload(r.Value)
	}
	if _, err := kafka.Replay(b.Context(), kafka.Target{Brokers: fake.ListenAddrs()}, map[string]int32{"a.b.t": 4}, seq(m.records)); err != nil {
		b.Fatal(err)
	}
	m.records = nil
	s, err := kafka.Open(kafka.Options{Name: "shop", Brokers: fake.ListenAddrs(), Topics: []string{".*"}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l := &noLog{fakeLog: openLog(newDisk())}
	p, err := ingest.New(l, l, []ingest.Input{{Source: s}}, ingest.Options{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	go func() { done <- p.Run(ctx) }()
	for l.changes.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(b.N)/(cpu()-start).Seconds(), "records/cpu-s")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
