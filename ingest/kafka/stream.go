package kafka

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"firn/changelog"
	"firn/ingest"
)

// stream is one assigned partition: a queue between the poll loop and the partition's consumer.
type stream struct {
	reader    *reader
	partition ingest.Partition
	ctx       context.Context // the life of the assignment
	cancel    context.CancelCauseFunc
	done      sync.WaitGroup
	started   bool // with begin: of the client's group goroutine
	begin     int64
	filled    chan struct{} // the queue is not empty, or there is an error

	mu struct {
		sync.Mutex
		queue  []*kgo.Record
		bytes  int
		end    int64
		moved  bool // end has moved with no records behind it
		paused bool
		err    error
	}

	taken   []*kgo.Record // the queue's other half; the consumer's
	records []ingest.Record
	headers []changelog.Header
	next    int64
}

var _ ingest.Stream = (*stream)(nil)

func newStream(r *reader, p ingest.Partition) *stream {
	s := &stream{reader: r, partition: p, filled: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(r.ctx)
	return s
}

// start runs the consumer. It returns the offset to fetch from: the client asks again when a rebalance comes before
// the first fetch, and gets the first answer.
func (s *stream) start(offset int64, err error) int64 {
	if s.started {
		return s.begin
	}
	s.started, s.begin, s.next = true, offset, offset
	s.mu.end = offset
	if err != nil {
		s.fail(err)
	}
	s.done.Go(func() { s.reader.handler.Consume(s.ctx, s) })
	return offset
}

// Partition implements ingest.Stream.
func (s *stream) Partition() ingest.Partition { return s.partition }

// Begin implements ingest.Stream.
func (s *stream) Begin() int64 { return s.begin }

// recordOverhead is what a record takes beside its bytes.
const recordOverhead = 200

// push queues records and reports whether the queue is full.
func (s *stream) push(records []*kgo.Record, stable, high int64) bool {
	end := stable
	if end < 0 {
		end = high // brokers before 0.11
	}
	s.mu.Lock()
	if s.mu.err == nil {
		s.mu.queue = append(s.mu.queue, records...)
		for _, r := range records {
			s.mu.bytes += len(r.Key) + len(r.Value) + recordOverhead
		}
	}
	s.mu.moved = s.mu.moved || end != s.mu.end
	s.mu.end = end
	full := s.mu.bytes > s.reader.source.opts.QueueBytes
	s.mu.Unlock()
	s.signal()
	return full
}

func (s *stream) signal() {
	select {
	case s.filled <- struct{}{}:
	default:
	}
}

// fail ends the stream: Next returns err once the queue is empty.
func (s *stream) fail(err error) {
	s.mu.Lock()
	if s.mu.err == nil {
		s.mu.err = err
	}
	s.mu.Unlock()
	s.pause()
	s.signal()
}

func (s *stream) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes > s.reader.source.opts.QueueBytes
}

func (s *stream) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.paused {
		s.mu.paused = true
		s.reader.client.PauseFetchPartitions(map[string][]int32{s.partition.Topic: {s.partition.Index}})
	}
}

func (s *stream) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.paused {
		s.mu.paused = false
		s.reader.client.ResumeFetchPartitions(map[string][]int32{s.partition.Topic: {s.partition.Index}})
	}
}

// Next implements ingest.Stream.
func (s *stream) Next(ctx context.Context) (ingest.Batch, error) {
	for {
		if ctx.Err() != nil {
			return ingest.Batch{}, context.Cause(ctx)
		}
		b, ok, err := s.take()
		if ok || err != nil {
			return b, err
		}
		select {
		case <-s.filled:
		case <-ctx.Done():
		}
	}
}

// take returns all that is queued.
func (s *stream) take() (ingest.Batch, bool, error) {
	s.mu.Lock()
	clear(s.taken)
	s.taken, s.mu.queue = s.mu.queue, s.taken[:0]
	wasFull := s.mu.bytes > s.reader.source.opts.QueueBytes
	s.mu.bytes = 0
	end, moved, paused, err := s.mu.end, s.mu.moved, s.mu.paused, s.mu.err
	s.mu.moved = false
	s.mu.Unlock()
	if wasFull {
		select {
		case s.reader.room <- struct{}{}:
		default:
		}
	}
	if len(s.taken) == 0 {
		if err != nil {
			return ingest.Batch{}, false, err
		}
		if paused {
			s.resume()
		}
		return ingest.Batch{Next: s.next, End: max(end, s.next)}, moved, nil
	}
	s.convert()
	return ingest.Batch{Records: s.records, Next: s.next, End: max(end, s.next)}, true, nil
}

// convert turns what was taken into records, and leaves out the marks of transactions, which are offsets only.
func (s *stream) convert() {
	clear(s.records)
	s.records, s.headers = s.records[:0], s.headers[:0]
	for _, r := range s.taken {
		s.next = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		from := len(s.headers)
		for _, h := range r.Headers {
			s.headers = append(s.headers, changelog.Header{Key: h.Key, Value: h.Value})
		}
		s.records = append(s.records, ingest.Record{
			Topic: s.partition.Topic, Partition: s.partition.Index, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(),
			Key: r.Key, Value: r.Value, Headers: s.headers[from:len(s.headers):len(s.headers)],
		})
	}
}

// Acknowledge implements ingest.Stream.
func (s *stream) Acknowledge(next int64) {
	s.reader.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{
		s.partition.Topic: {s.partition.Index: {Epoch: -1, Offset: next}},
	})
}
