package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// runner runs one source of a pipeline. It is the source's Handler.
type runner struct {
	pipeline *Pipeline
	source   Source
	router   *router
	schemas  Schemas
	window   int // how many events of a partition are remembered
	epochs   epochs

	mu struct {
		sync.Mutex
		partitions  map[Partition]*partitionState
		topics      map[string]*topic
		warned      map[warning]bool
		paused      bool
		stop        context.CancelCauseFunc // ends the source's Run; nil while it does not run
		changed     chan struct{}           // closed when paused or stop changes
		reached     bool
		unreachable string
		finished    bool
		failed      string
	}
}

var (
	_ Handler = (*runner)(nil)

	errPaused = errors.New("ingest: source is paused")
)

func newRunner(p *Pipeline, in Input) *runner {
	r := &runner{pipeline: p, source: in.Source, router: newRouter(in.Routes), schemas: in.Schemas, window: in.ReplayWindow}
	r.mu.partitions = map[Partition]*partitionState{}
	r.mu.topics = map[string]*topic{}
	r.mu.warned = map[warning]bool{}
	r.mu.changed = make(chan struct{})
	return r
}

// run reads the source until ctx ends or the source does, with breaks while it is paused.
func (r *runner) run(ctx context.Context) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop()
	if err := r.look(ctx); err != nil {
		if _, clash := errors.AsType[*ClashError](err); clash {
			return fmt.Errorf("source %s: %w", r.source.Name(), err)
		}
	}
	watch.Go(func() { r.watch(watching) })
	for {
		running, err := r.start(ctx)
		if err != nil {
			return nil
		}
		err = r.source.Run(running, r)
		cause := context.Cause(running)
		r.stopped()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(cause, errPaused):
			continue
		case cause != nil: // a worker's
			r.fail(cause)
			return cause
		case err != nil:
			r.fail(err)
			return fmt.Errorf("source %s: %w", r.source.Name(), err)
		}
		r.mu.Lock()
		r.mu.finished = true
		r.mu.Unlock()
		return nil
	}
}

func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.failed = err.Error()
}

// start waits until the source is not paused, and returns the context of its next run.
func (r *runner) start(ctx context.Context) (context.Context, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.mu.paused {
		changed := r.mu.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	running, stop := context.WithCancelCause(ctx)
	r.mu.stop = stop
	return running, nil
}

func (r *runner) stopped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.stop(nil)
	r.mu.stop = nil
	r.mu.topics = map[string]*topic{}
	r.changedLocked()
}

func (r *runner) changedLocked() {
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

func (r *runner) pause(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.paused = true
	if r.mu.stop != nil {
		r.mu.stop(errPaused)
	}
	for r.mu.stop != nil && r.mu.paused {
		changed := r.mu.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for source %s to stop: %w", r.source.Name(), err)
		}
	}
	return nil
}

func (r *runner) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	stopped := false
	for _, s := range r.mu.partitions {
		s.update(func(p *PartitionStatus) {
			stopped = stopped || p.Error != ""
			p.Error = ""
			r.pipeline.table(p.Table).stopped.Store(nil)
		})
	}
	if !r.mu.paused && stopped && r.mu.stop != nil {
		r.mu.stop(errPaused) // and the next run begins: it reads the partitions that have stopped, too
	}
	r.mu.paused = false
	r.changedLocked()
}

// watch asks for bounds from time to time.
func (r *runner) watch(ctx context.Context) {
	tick := time.NewTicker(r.pipeline.opts.WatchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.pipeline.logger.Warn("look at source", "source", r.source.Name(), "err", err)
		}
	}
}

// look asks for the bounds of all partitions, for the status. It returns clashes of the default route, too.
func (r *runner) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(r.pipeline.opts.WatchInterval, time.Second))
	defer cancel()
	bounds, err := r.source.Bounds(ctx, "")
	r.mu.Lock()
	if err != nil {
		r.mu.unreachable = err.Error()
		r.mu.Unlock()
		return err
	}
	r.mu.reached, r.mu.unreachable = true, ""
	r.mu.Unlock()
	var topics []string
	for i, b := range bounds {
		if i == 0 || bounds[i-1].Topic != b.Topic {
			topics = append(topics, b.Topic)
		}
		s := r.state(b.Partition)
		if s.get().Next == Unknown {
			r.position(s, b.Partition)
		}
		s.update(func(p *PartitionStatus) { p.Oldest, p.End = b.Oldest, max(p.End, b.End) })
	}
	return r.router.clashes(r.source.Name(), topics)
}

// position fills in the stored position of a partition that is not read here.
func (r *runner) position(s *partitionState, p Partition) {
	next, ok, err := r.pipeline.log.Position(p.Stream(r.source.Name()))
	if err == nil && ok {
		s.update(func(p *PartitionStatus) { p.Next = next })
	}
}

func (r *runner) state(p Partition) *partitionState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.partitions[p]
	if s == nil {
		s = newPartitionState(p, r.router.route(p.Topic).table)
		r.mu.partitions[p] = s
	}
	return s
}

func (r *runner) topic(name string) *topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.mu.topics[name]
	if t == nil {
		t = newTopic(name, r.source.Bounds)
		r.mu.topics[name] = t
	}
	return t
}

// Resume implements Handler.
func (r *runner) Resume(_ context.Context, p Partition) (Resume, error) {
	next, ok, err := r.pipeline.log.Position(p.Stream(r.source.Name()))
	if err != nil {
		return Resume{}, err
	}
	r.topic(p.Topic).expect(p.Index, time.Now())
	if !ok {
		return Resume{Next: Unknown}, nil
	}
	return Resume{Next: next, Rewind: int64(r.window)}, nil
}

// Consume implements Handler.
func (r *runner) Consume(ctx context.Context, s Stream) {
	err := r.consume(ctx, s)
	state := r.state(s.Partition())
	state.update(func(p *PartitionStatus) { p.Assigned = false })
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil && !errors.Is(err, errFinal) {
		return
	}
	state.update(func(p *PartitionStatus) { p.Error = err.Error() })
	r.pipeline.logger.Error("partition has stopped", "source", r.source.Name(), "topic", s.Partition().Topic, "partition", s.Partition().Index, "err", err)
	if errors.Is(err, errFinal) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.mu.stop != nil {
			r.mu.stop(err)
		}
	}
}

// errFinal marks errors that end the pipeline, not one partition only.
var errFinal = errors.New("ingest: the pipeline cannot go on")

// epochs counts the epochs of each connector of a source (spec/debezium.md 2.3).
type epochs struct {
	mu    sync.Mutex
	count map[string]int
}

func (e *epochs) current(connector string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count[connector]
}

func (e *epochs) begin(connector string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == nil {
		e.count = map[string]int{}
	}
	e.count[connector]++
	return e.count[connector]
}
