package ingest_test

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"firn/ingest"
)

// memSource reads records in memory. It is as nasty as a source may be.
type memSource struct {
	name       string
	partitions map[ingest.Partition][]ingest.Record // ascending by offset
	batch      int                                  // records a Next; 0: all
	twice      bool                                 // each record is given twice
	earlier    int64                                // reading begins so much earlier than it was asked for
	jitter     *rand.Rand                           // partitions wait at random: other interleavings
	order      func(p ingest.Partition, next int64) // called before a batch is given
	follow     chan struct{}                        // the end of data waits for it to be closed
	hidden     string                               // a topic that Bounds does not tell of
	broken     map[ingest.Partition]error           // what Next of a partition returns
	acked      func(p ingest.Partition, next int64) // called at each acknowledgement

	mu sync.Mutex
}

func newMemSource(records []ingest.Record) *memSource {
	s := &memSource{name: "mem", partitions: map[ingest.Partition][]ingest.Record{}}
	for _, r := range records {
		p := ingest.Partition{Topic: r.Topic, Index: r.Partition}
		s.partitions[p] = append(s.partitions[p], r)
	}
	return s
}

func (s *memSource) Name() string { return s.name }

func (s *memSource) end(p ingest.Partition) int64 {
	r := s.partitions[p]
	if len(r) == 0 {
		return 0
	}
	return r[len(r)-1].Offset + 1
}

func (s *memSource) Bounds(_ context.Context, topic string) ([]ingest.Bounds, error) {
	var all []ingest.Bounds
	for _, p := range s.sorted() {
		if (topic == "" || topic == p.Topic) && p.Topic != s.hidden {
			all = append(all, ingest.Bounds{Partition: p, End: s.end(p)})
		}
	}
	return all, nil
}

func (s *memSource) sorted() []ingest.Partition {
	return slices.SortedFunc(maps.Keys(s.partitions), func(a, b ingest.Partition) int {
		if a.Topic != b.Topic {
			return slices.Compare([]byte(a.Topic), []byte(b.Topic))
		}
		return int(a.Index - b.Index)
	})
}

func (s *memSource) Run(ctx context.Context, h ingest.Handler) error {
	var streams []*memStream
	for _, p := range s.sorted() {
		r, err := h.Resume(ctx, p)
		if err != nil {
			return err
		}
		begin := max(0, r.Next-r.Rewind-s.earlier)
		if r.Next == ingest.Unknown {
			begin = 0
		}
		st := &memStream{source: s, partition: p, begin: begin, next: begin}
		for _, rec := range s.partitions[p] {
			if rec.Offset < begin {
				continue
			}
			st.rest = append(st.rest, rec)
			if s.twice {
				st.rest = append(st.rest, rec)
			}
		}
		streams = append(streams, st)
	}
	var wg sync.WaitGroup
	for _, st := range streams {
		wg.Go(func() { h.Consume(ctx, st) })
	}
	wg.Wait()
	return nil
}

type memStream struct {
	source      *memSource
	partition   ingest.Partition
	begin, next int64
	rest        []ingest.Record
	given       []ingest.Record
}

func (s *memStream) Partition() ingest.Partition { return s.partition }
func (s *memStream) Begin() int64                { return s.begin }

func (s *memStream) Next(ctx context.Context) (ingest.Batch, error) {
	for i := range s.given { // a batch is not valid any more
		clear(s.given[i].Key)
		clear(s.given[i].Value)
	}
	if err := s.source.broken[s.partition]; err != nil {
		return ingest.Batch{}, err
	}
	if s.source.order != nil {
		s.source.order(s.partition, s.next)
	}
	if s.source.jitter != nil {
		s.source.mu.Lock()
		d := time.Duration(s.source.jitter.IntN(300)) * time.Microsecond
		s.source.mu.Unlock()
		time.Sleep(d)
	}
	if ctx.Err() != nil {
		return ingest.Batch{}, context.Cause(ctx)
	}
	if len(s.rest) == 0 {
		if s.source.follow != nil {
			select {
			case <-s.source.follow:
			case <-ctx.Done():
				return ingest.Batch{}, context.Cause(ctx)
			}
		}
		return ingest.Batch{}, io.EOF
	}
	n := len(s.rest)
	if s.source.batch > 0 {
		n = min(n, s.source.batch)
	}
	s.given = s.given[:0]
	for _, r := range s.rest[:n] {
		r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value)
		s.given = append(s.given, r)
	}
	s.rest = s.rest[n:]
	s.next = max(s.next, s.given[n-1].Offset+1)
	return ingest.Batch{Records: s.given, Next: s.next, End: max(s.next, s.source.end(s.partition))}, nil
}

func (s *memStream) Acknowledge(next int64) {
	if s.source.acked != nil {
		s.source.acked(s.partition, next)
	}
}
