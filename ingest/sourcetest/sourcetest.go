// Package sourcetest is the contract that every ingest.Source passes.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/ingest"
)

// Fixture is one topic, with partitions 0 and 1, of one kind of source.
type Fixture struct {
	// Topic is the topic's name.
	Topic string
	// Open returns a source that reads the topic, and closes it when the test ends.
	Open func(t *testing.T) ingest.Source
	// Produce adds records to a partition; the value of the record at offset n is Value(n).
	Produce func(t *testing.T, partition int32, n int)
	// Trim removes the records before an offset.
	Trim func(t *testing.T, partition int32, before int64)
	// Follows says that the source waits for more at the end of its data.
	Follows bool
	// Shares says that two sources that are open at once share the partitions.
	Shares bool
}

// Value is the value of the record at an offset.
func Value(offset int64) string { return fmt.Sprintf("value %d %s", offset, strings.Repeat("x", 100)) }

const patience = 30 * time.Second

// Run runs the contract. fixture is called once for each test.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Fixture)
	}{
		{"all records of each partition come in order", testOrder},
		{"reading resumes at a position", testResume},
		{"a position in the trimmed part is refused", testTrimmed},
		{"a position after the end is refused", testBeyondEnd},
		{"what was rewound over and is trimmed is left out", testRewindTrimmed},
		{"a position that cannot be read is asked for again", testResumeError},
		{"bounds", testBounds},
		{"one partition's consumer does not hold up the other", testSlow},
		{"a stop waits for consumers", testStop},
		{"records that come later are read", testFollow},
		{"a partition moves to another source without loss or repetition", testMove},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, fixture(t)) })
	}
}

// reader is a Handler that collects.
type reader struct {
	t    *testing.T
	hold func(ctx context.Context, p ingest.Partition) // called before each Next

	mu struct {
		sync.Mutex
		resume  func(p ingest.Partition) (ingest.Resume, error)
		offsets map[int32][]int64
		begins  map[int32]int64
		ends    map[int32]int64
		errs    map[int32]error
		active  map[int32]int
		changed chan struct{}
	}
}

func newReader(t *testing.T) *reader {
	r := &reader{t: t}
	r.mu.offsets, r.mu.begins, r.mu.ends = map[int32][]int64{}, map[int32]int64{}, map[int32]int64{}
	r.mu.errs, r.mu.active = map[int32]error{}, map[int32]int{}
	r.mu.changed = make(chan struct{})
	r.mu.resume = func(ingest.Partition) (ingest.Resume, error) { return ingest.Resume{Next: ingest.Unknown}, nil }
	return r
}

func (r *reader) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// wait waits until cond, which is called with the lock held, says yes.
func (r *reader) wait(what string, cond func() bool) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		ok, changed := cond(), r.mu.changed
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("waited too long for %s: begins %v, records %d and %d, errors %v", what, r.mu.begins, len(r.mu.offsets[0]), len(r.mu.offsets[1]), r.mu.errs)
		}
	}
}

func (r *reader) Resume(_ context.Context, p ingest.Partition) (ingest.Resume, error) {
	r.mu.Lock()
	f := r.mu.resume
	r.mu.Unlock()
	return f(p)
}

func (r *reader) Consume(ctx context.Context, s ingest.Stream) {
	p := s.Partition().Index
	r.change(func() {
		if r.mu.active[p]++; r.mu.active[p] > 1 {
			r.t.Errorf("partition %d is in two hands", p)
		}
		r.mu.begins[p] = s.Begin()
	})
	defer r.change(func() { r.mu.active[p]-- })
	for {
		if r.hold != nil {
			r.hold(ctx, s.Partition())
		}
		b, err := s.Next(ctx)
		if err != nil {
			r.change(func() { r.mu.errs[p] = err })
			return
		}
		r.change(func() { r.collect(p, b) })
		s.Acknowledge(b.Next)
	}
}

func (r *reader) collect(p int32, b ingest.Batch) {
	for _, rec := range b.Records {
		if rec.Partition != p || string(rec.Value) != Value(rec.Offset) {
			r.t.Errorf("partition %d, offset %d: record of partition %d with value %.30q", p, rec.Offset, rec.Partition, rec.Value)
		}
		r.mu.offsets[p] = append(r.mu.offsets[p], rec.Offset)
	}
	if n := len(b.Records); n > 0 && b.Next != b.Records[n-1].Offset+1 {
		r.t.Errorf("next %d after a batch that ends at offset %d", b.Next, b.Records[n-1].Offset)
	}
	if b.End < b.Next {
		r.t.Errorf("end %d is below next %d", b.End, b.Next)
	}
	r.mu.ends[p] = b.End
}

// read checks that the offsets of a partition are [from, to), each once.
func (r *reader) read(p int32, from, to int64) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.mu.offsets[p]
	for i, o := range got {
		if o != from+int64(i) {
			r.t.Fatalf("partition %d: record %d has offset %d, want %d", p, i, o, from+int64(i))
		}
	}
	if int64(len(got)) != to-from {
		r.t.Fatalf("partition %d: %d records, want offsets [%d,%d)", p, len(got), from, to)
	}
}

// start runs a source; the returned function stops it and returns Run's error.
func start(t *testing.T, s ingest.Source, h ingest.Handler) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := s.Run(ctx, h)
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		done <- err
	}()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(patience):
				err = errors.New("Run does not return")
			}
		})
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func testOrder(t *testing.T, f Fixture) {
	f.Produce(t, 0, 1000)
	f.Produce(t, 1, 500)
	r := newReader(t)
	stop := start(t, f.Open(t), r)
	r.wait("all records", func() bool { return len(r.mu.offsets[0]) >= 1000 && len(r.mu.offsets[1]) >= 500 })
	if !f.Follows {
		r.wait("the end", func() bool { return errors.Is(r.mu.errs[0], io.EOF) && errors.Is(r.mu.errs[1], io.EOF) })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 0, 1000)
	r.read(1, 0, 500)
	if r.mu.ends[0] != 1000 || r.mu.ends[1] != 500 {
		t.Fatalf("ends %v", r.mu.ends)
	}
}

func testResume(t *testing.T, f Fixture) {
	f.Produce(t, 0, 100)
	f.Produce(t, 1, 100)
	r := newReader(t)
	r.mu.resume = func(p ingest.Partition) (ingest.Resume, error) {
		if p.Index == 0 {
			return ingest.Resume{Next: 40, Rewind: 10}, nil
		}
		return ingest.Resume{Next: 100}, nil
	}
	stop := start(t, f.Open(t), r)
	r.wait("records", func() bool { _, ok := r.mu.begins[1]; return len(r.mu.offsets[0]) >= 70 && ok })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 30, 100)
	r.read(1, 100, 100)
	if r.mu.begins[0] != 30 || r.mu.begins[1] != 100 {
		t.Fatalf("begins %v", r.mu.begins)
	}
}

func testTrimmed(t *testing.T, f Fixture) {
	f.Produce(t, 0, 100)
	f.Produce(t, 1, 10)
	f.Trim(t, 0, 50)
	wantRefused(t, f, 49, ingest.ErrTrimmed, 50, 100)
}

func testBeyondEnd(t *testing.T, f Fixture) {
	f.Produce(t, 0, 100)
	f.Produce(t, 1, 10)
	wantRefused(t, f, 101, ingest.ErrBeyondEnd, 0, 100)
}

// wantRefused resumes partition 0 where it cannot be, and sees the other one read.
func wantRefused(t *testing.T, f Fixture, next int64, want error, oldest, end int64) {
	t.Helper()
	r := newReader(t)
	r.mu.resume = func(p ingest.Partition) (ingest.Resume, error) {
		if p.Index == 0 {
			return ingest.Resume{Next: next, Rewind: 10}, nil
		}
		return ingest.Resume{Next: ingest.Unknown}, nil
	}
	stop := start(t, f.Open(t), r)
	r.wait("the refusal", func() bool { return r.mu.errs[0] != nil && len(r.mu.offsets[1]) == 10 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 0, 0)
	refused, ok := errors.AsType[*ingest.PositionError](r.mu.errs[0])
	if !ok || !errors.Is(refused, want) || refused.Next != next || refused.Oldest != oldest || refused.End != end {
		t.Fatalf("got %v, want %v at %d of [%d,%d)", r.mu.errs[0], want, next, oldest, end)
	}
}

func testRewindTrimmed(t *testing.T, f Fixture) {
	f.Produce(t, 0, 100)
	f.Trim(t, 0, 50)
	f.Produce(t, 1, 10)
	r := newReader(t)
	r.mu.resume = func(p ingest.Partition) (ingest.Resume, error) {
		return ingest.Resume{Next: 10 + 50*int64(1-p.Index), Rewind: 1000}, nil
	}
	stop := start(t, f.Open(t), r)
	r.wait("records", func() bool { return len(r.mu.offsets[0]) >= 50 && len(r.mu.offsets[1]) >= 10 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 50, 100)
	r.read(1, 0, 10)
}

func testResumeError(t *testing.T, f Fixture) {
	f.Produce(t, 0, 10)
	f.Produce(t, 1, 10)
	r := newReader(t)
	asked := 0
	r.mu.resume = func(p ingest.Partition) (ingest.Resume, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if asked++; p.Index == 1 && asked < 4 {
			return ingest.Resume{}, errors.New("not now")
		}
		return ingest.Resume{Next: 5}, nil
	}
	stop := start(t, f.Open(t), r)
	r.wait("records", func() bool { return len(r.mu.offsets[0]) >= 5 && len(r.mu.offsets[1]) >= 5 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 5, 10)
	r.read(1, 5, 10)
}

func testBounds(t *testing.T, f Fixture) {
	f.Produce(t, 0, 100)
	f.Produce(t, 1, 7)
	f.Trim(t, 0, 10)
	s := f.Open(t)
	for _, topic := range []string{f.Topic, ""} {
		got, err := s.Bounds(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		want := []ingest.Bounds{
			{Partition: ingest.Partition{Topic: f.Topic, Index: 0}, Oldest: 10, End: 100},
			{Partition: ingest.Partition{Topic: f.Topic, Index: 1}, Oldest: 0, End: 7},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("topic %q: got %v, want %v", topic, got, want)
		}
	}
}

func testSlow(t *testing.T, f Fixture) {
	const n = 20000 // more than is read ahead
	f.Produce(t, 0, n)
	f.Produce(t, 1, n)
	r := newReader(t)
	r.hold = func(ctx context.Context, p ingest.Partition) {
		if p.Index != 0 {
			return
		}
		for ctx.Err() == nil {
			r.mu.Lock()
			ok, changed := len(r.mu.offsets[1]) >= n, r.mu.changed
			r.mu.Unlock()
			if ok {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	stop := start(t, f.Open(t), r)
	r.wait("all records", func() bool { return len(r.mu.offsets[0]) >= n && len(r.mu.offsets[1]) >= n })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 0, n)
	r.read(1, 0, n)
}

func testStop(t *testing.T, f Fixture) {
	f.Produce(t, 0, 10)
	f.Produce(t, 1, 10)
	r := newReader(t)
	held := make(chan struct{})
	var once sync.Once
	r.hold = func(ctx context.Context, _ ingest.Partition) {
		once.Do(func() { close(held) })
		<-ctx.Done()
		time.Sleep(50 * time.Millisecond) // work that is being finished
	}
	stop := start(t, f.Open(t), r)
	<-held
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.active[0] != 0 || r.mu.active[1] != 0 {
		t.Fatalf("consumers run after Run: %v", r.mu.active)
	}
	for p, err := range r.mu.errs {
		if !errors.Is(err, ingest.ErrRevoked) && !errors.Is(err, context.Canceled) {
			t.Fatalf("partition %d: %v", p, err)
		}
	}
}

func testFollow(t *testing.T, f Fixture) {
	if !f.Follows {
		t.Skip("the source ends with its data")
	}
	f.Produce(t, 0, 10)
	f.Produce(t, 1, 10)
	r := newReader(t)
	stop := start(t, f.Open(t), r)
	r.wait("the first records", func() bool { return len(r.mu.offsets[0]) >= 10 })
	f.Produce(t, 0, 20)
	r.wait("later records", func() bool { return len(r.mu.offsets[0]) >= 30 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 0, 30)
}

func testMove(t *testing.T, f Fixture) {
	if !f.Shares {
		t.Skip("sources do not share partitions")
	}
	f.Produce(t, 0, 1000)
	f.Produce(t, 1, 1000)
	r := newReader(t) // one handler for both: its Consume notices a partition in two hands
	r.mu.resume = func(p ingest.Partition) (ingest.Resume, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return ingest.Resume{Next: int64(len(r.mu.offsets[p.Index]))}, nil
	}
	r.hold = func(context.Context, ingest.Partition) { time.Sleep(time.Millisecond) }
	first := start(t, f.Open(t), r)
	r.wait("records at the first source", func() bool { return len(r.mu.offsets[0]) > 0 && len(r.mu.offsets[1]) > 0 })
	second := start(t, f.Open(t), r)
	moved := func() bool { return r.mu.errs[0] != nil || r.mu.errs[1] != nil }
	for range 100 {
		f.Produce(t, 0, 20)
		f.Produce(t, 1, 20)
		r.mu.Lock()
		done := moved()
		r.mu.Unlock()
		if done {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.wait("a partition to move", moved)
	if err := first(); err != nil {
		t.Fatal(err)
	}
	f.Produce(t, 0, 100)
	f.Produce(t, 1, 100)
	bounds, err := f.Open(t).Bounds(t.Context(), f.Topic)
	if err != nil {
		t.Fatal(err)
	}
	r.wait("the rest at the second source", func() bool {
		return int64(len(r.mu.offsets[0])) >= bounds[0].End && int64(len(r.mu.offsets[1])) >= bounds[1].End
	})
	if err := second(); err != nil {
		t.Fatal(err)
	}
	r.read(0, 0, bounds[0].End)
	r.read(1, 0, bounds[1].End)
}
