package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"firn/changelog"
	"firn/ingest/decode"
)

// submit hands the batch to the log together with the position after it, and begins a new one. It does not wait for
// the sync. end is the partition's end as far as it is known. An error is ctx's or final.
func (w *worker) submit(ctx context.Context, end int64) error {
	b := &w.batch
	w.publish()
	if b.records == 0 && b.empty() { // a position that nothing hangs on is stored with the next change
		w.acks.push(ctx, submitted{next: w.next, end: end})
		w.member.progress(w.next)
		return nil
	}
	leave, err := w.completeBefore(ctx)
	if err != nil {
		return err
	}
	a := changelog.Append{
		Positions: []changelog.StreamPosition{{StreamID: w.id, Next: w.next}},
		Parked:    b.parked, Moved: b.moved,
	}
	if len(b.changes) > 0 {
		a.Tables = []changelog.TableAppend{{Table: w.table.current.Load().ID, Changes: b.changes}}
	}
	w.freed = w.freed[:0]
	ticket, err := w.append(ctx, a)
	leave()
	if err != nil {
		return err
	}
	if n := int(w.table.stale.count.Load()); len(b.stale)+len(b.behind) > 0 && n > w.opts.MaxStaleKeys {
		err = final(fmt.Errorf("table %s has %d stale keys, the limit is %d", w.table.name, n, w.opts.MaxStaleKeys))
	}
	for kind, n := range b.skipped {
		if n > 0 {
			w.runner.pipeline.metrics.skipped.WithLabelValues(w.id.Source, w.id.Topic, decode.Kind(kind).String()).Add(float64(n)) //nolint:gosec // below kinds
		}
	}
	w.acks.push(ctx, submitted{ticket: ticket, next: w.next, end: end, counts: b.counts})
	w.member.progress(w.next)
	if len(w.freed) > 0 && err == nil {
		err = w.release(ctx, w.freed)
	}
	b.reset()
	return err
}

// append submits a, and waits as long as it takes for space, or for a stopped table: the source is held back meanwhile (P7).
func (w *worker) append(ctx context.Context, a changelog.Append) (Ticket, error) {
	for delay := time.Duration(0); ; delay = min(delay+100*time.Millisecond, 5*time.Second) {
		ticket, err := w.tryAppend(ctx, a)
		if err == nil {
			return ticket, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		full := errors.Is(err, ErrFull)
		if !full && !errors.Is(err, ErrTableStopped) {
			return nil, final(fmt.Errorf("append %s up to offset %d: %w", w.id, w.next, err))
		}
		if delay == 0 {
			w.runner.pipeline.logger.Warn("reading waits", "source", w.id.Source, "topic", w.id.Topic, "partition", w.id.Partition, "err", err)
		}
		w.state.update(func(p *PartitionStatus) { p.Waiting = err.Error() })
		err = nil
		if full {
			w.runner.pipeline.metrics.full.Inc()
			err = w.log.WaitForSpace(ctx)
		}
		select { // the space may be gone again, or of a kind that WaitForSpace does not wait for
		case <-time.After(delay):
		case <-ctx.Done():
		}
		w.state.update(func(p *PartitionStatus) { p.Waiting = "" })
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, final(fmt.Errorf("wait for space in the log: %w", err))
		}
	}
}

// tryAppend submits a with the stale marks of the batch, which count when it returns. Nobody replays or skips parked records of
// the table meanwhile; while the caller waits to try again, they may: it can be what makes the space.
func (w *worker) tryAppend(ctx context.Context, a changelog.Append) (Ticket, error) {
	if len(w.batch.stale) == 0 && len(w.batch.behind) == 0 {
		return w.log.Submit(ctx, a)
	}
	unlock, err := w.table.lockMarks(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a.Stale = w.marks()
	ticket, err := w.log.Submit(ctx, a)
	if err == nil {
		w.table.marked(a.Stale)
		for _, m := range a.Stale[len(w.batch.stale):] {
			if queuesFreely(&m) {
				w.freed = append(w.freed, m)
			}
		}
	}
	return ticket, err
}
