package ingest

import (
	"context"
	"sync"
	"time"
)

// acknowledger waits for the syncs of a worker's appends, in order, and tells the source and the status afterwards (P1:
// nothing is acknowledged before it is durable).
type acknowledger struct {
	stream  Stream
	state   *partitionState
	metrics *partitionMetrics
	queue   chan submitted
	abort   context.CancelFunc
	done    sync.WaitGroup
	err     error // what a sync failed with; read after done
}

// submitted is an append on its way to disk.
type submitted struct {
	ticket Ticket // nil: there was nothing to store
	next   int64
	end    int64
	counts Counts
}

// newAcknowledger starts one. fail ends the worker when a sync has failed.
func newAcknowledger(ctx context.Context, w *worker, fail context.CancelCauseFunc) *acknowledger {
	waiting, abort := context.WithCancel(context.WithoutCancel(ctx)) // a stop waits for what is submitted
	a := &acknowledger{
		stream: w.stream, state: w.state, abort: abort, queue: make(chan submitted, max(0, w.opts.InFlight-1)),
		metrics: w.runner.pipeline.metrics.partition(w.id.Source, w.part),
	}
	a.done.Go(func() { a.run(waiting, fail) })
	return a
}

func (a *acknowledger) run(ctx context.Context, fail context.CancelCauseFunc) {
	for s := range a.queue {
		if a.err != nil {
			continue
		}
		if s.ticket != nil {
			if _, err := s.ticket.Wait(ctx); err != nil {
				a.err = final(err)
				fail(a.err)
				continue
			}
		}
		a.stream.Acknowledge(s.next)
		a.metrics.add(s.counts)
		a.state.update(func(p *PartitionStatus) {
			p.Next = max(p.Next, s.next)
			if s.end != Unknown {
				p.End = max(p.End, s.end)
			}
			p.Counts.add(s.counts)
			if p.End != Unknown {
				a.metrics.lag.Set(float64(max(0, p.End-p.Next)))
			}
		})
	}
}

// push hands over an append. It blocks while too many are on their way, also when ctx ends: what is submitted must be
// waited for before the partition may go to another reader.
func (a *acknowledger) push(ctx context.Context, s submitted) {
	select {
	case a.queue <- s:
		return
	default:
	}
	select {
	case a.queue <- s:
	case <-ctx.Done():
		timer := time.AfterFunc(stopWait, a.abort)
		defer timer.Stop()
		a.queue <- s
	}
}

// stop returns when all that was pushed is durable, or the error of a sync.
func (a *acknowledger) stop() error {
	close(a.queue)
	timer := time.AfterFunc(stopWait, a.abort)
	a.done.Wait()
	timer.Stop()
	a.abort()
	return a.err
}
