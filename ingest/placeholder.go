package ingest

import (
	"context"
	"errors"
	"fmt"

	"firn/changelog"
	"firn/ingest/decode"
)

// fill returns the full row of an event that leaves out values that did not change (spec/debezium.md 2.7), with the
// values of the row before it, or the reason why there is none to take them from. It leaves the binding that the row is
// of in w.last, and the key in w.key.
//
// The rows to take from, in this order; the first one found has all values, or the event is rejected whole:
//
//	for a create that moves a row to a new key: the old key's row as the delete with the same position found it; else,
//	if the delete has not been read, the old key's current row
//	the key's row in the batch, or in the log, unless it is stale
//	without the filter of repeats: the key's row as its last delete found it
//
// Without the filter the create may be a repeat, and its key in use since: then the key's own row comes first.
func (w *worker) fill(ctx context.Context, r *Record, ev *decode.Event, b *binding) (changelog.Row, string, error) {
	row, found, err := w.previous(ctx, ev)
	if err != nil {
		return nil, "", err
	}
	if row == nil {
		w.placeholderMetric(found)
		if found == foundStale {
			return nil, reasonKeyStale, nil
		}
		return nil, reasonUnresolved, nil
	}
	filled, err := w.merge(ctx, ev, b, row)
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		return nil, rejected.Reason, nil
	}
	if _, misfit := errors.AsType[*ColumnRulesError](err); misfit {
		return nil, "", err // stops this topic only
	}
	if err != nil {
		return nil, "", final(fmt.Errorf("fill placeholders of %s, offset %d: %w", w.part, r.Offset, err))
	}
	w.placeholderMetric(found)
	return filled, "", nil
}

// Where a row was found: labels of a metric.
const (
	foundMoved   = "moved"
	foundOldKey  = "old_key"
	foundBatch   = "batch"
	foundRow     = "row"
	foundDeleted = "deleted"
	foundStale   = "stale"
	foundNothing = "nothing"
)

func (w *worker) placeholderMetric(found string) {
	w.runner.pipeline.metrics.placeholders.WithLabelValues(w.table.name, found).Inc()
}

// previous returns the row before ev, or nil, and where it was found.
func (w *worker) previous(ctx context.Context, ev *decode.Event) (changelog.Row, string, error) {
	moves := ev.OldKey != nil && ev.Op == changelog.OpCreate
	if moves && w.filter != nil {
		if row, found, err := w.movedFrom(ctx, ev); row != nil || err != nil {
			return row, found, err
		}
	}
	stale := w.isStale(w.key)
	if !stale {
		if row, found, err := w.current(ctx, w.key); row != nil || err != nil {
			return row, found, err
		}
	}
	if moves && w.filter == nil {
		if row, found, err := w.movedFrom(ctx, ev); row != nil || err != nil {
			return row, found, err
		}
	}
	if w.filter == nil && !stale {
		if row, ok := w.batch.movedRow(w.key, lastDelete); ok && row != nil {
			return row, foundDeleted, nil
		}
		row, ok, err := w.log.MovedRow(ctx, w.last.table.ID, w.key, lastDelete)
		if err != nil {
			return nil, "", final(err)
		}
		if ok && len(row) > 0 {
			return row, foundDeleted, nil
		}
	}
	if stale {
		return nil, foundStale, nil
	}
	return nil, foundNothing, nil
}

// current returns the row that a key has now, or nil.
func (w *worker) current(ctx context.Context, key changelog.Key) (changelog.Row, string, error) {
	if c := w.batch.last(key); c != nil {
		return c.After, foundBatch, nil
	}
	row, ok, err := w.log.Row(ctx, w.last.table.ID, key)
	if err != nil {
		return nil, "", w.readError(ctx, err)
	}
	if !ok {
		return nil, foundNothing, nil
	}
	return row, foundRow, nil
}

func (w *worker) readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return final(fmt.Errorf("read %s: %w", w.table.name, err))
}

// movedFrom returns the row that a create gets from its old key, or nil.
func (w *worker) movedFrom(ctx context.Context, ev *decode.Event) (changelog.Row, string, error) {
	old := w.last.mapping.Key(nil, ev.OldKey)
	var row changelog.Row
	seen := false
	find := func() (_ bool, err error) {
		if row, seen = w.batch.movedRow(old, ev.Native); seen {
			return true, nil
		}
		row, seen, err = w.log.MovedRow(ctx, w.last.table.ID, old, ev.Native)
		if err != nil {
			return false, w.readError(ctx, err)
		}
		return seen, nil
	}
	if ev.Native != "" {
		if ok, err := find(); err != nil {
			return nil, "", err
		} else if !ok {
			if err := w.waitForMove(ctx, find); err != nil {
				return nil, "", err
			}
		}
	}
	switch {
	case seen && len(row) > 0:
		return row, foundMoved, nil
	case seen: // the delete found no row, or a stale one
		return nil, foundNothing, nil
	case w.isStale(old):
		return nil, foundNothing, nil
	}
	row, found, err := w.current(ctx, old)
	if row != nil {
		found = foundOldKey
	}
	return row, found, err
}

// waitForMove waits for the other half of a key change, where another partition may have it.
func (w *worker) waitForMove(ctx context.Context, find func() (bool, error)) error {
	if w.member.alone() { // maybe the other has just come to its end
		_, err := find()
		return err
	}
	// Another partition may be waiting for a delete that stands in our batch.
	if err := w.submit(ctx, Unknown); err != nil {
		return err
	}
	w.state.update(func(p *PartitionStatus) { p.Waiting = "key change: waits for the delete in another partition" })
	defer w.state.update(func(p *PartitionStatus) { p.Waiting = "" })
	return w.member.others(ctx, w.opts.MoveWait, find)
}

// lastDelete is where a table whose repeats are kept has the rows of deleted keys: in place of a position.
const lastDelete = "deleted"

// move keeps the row of a key that is deleted because its row takes another key, for the create of that key. A delete
// that found no row to trust says so: nobody needs to wait for it. What is kept first stays. Where repeats are kept, the
// row of every delete is kept besides.
func (w *worker) move(ctx context.Context, ev *decode.Event, b *binding) error {
	moves := ev.NewKey != nil && ev.Native != ""
	if !moves && w.filter != nil {
		return nil
	}
	w.last = b
	var row changelog.Row
	if !w.isStale(w.key) {
		var err error
		if row, _, err = w.current(ctx, w.key); err != nil {
			return err
		}
	}
	if moves {
		_, kept := w.batch.movedRow(w.key, ev.Native)
		if !kept {
			var err error
			if _, kept, err = w.log.MovedRow(ctx, b.table.ID, w.key, ev.Native); err != nil {
				return w.readError(ctx, err)
			}
		}
		if !kept {
			w.batch.moved = append(w.batch.moved, changelog.MovedRow{Table: b.table.ID, Key: w.keep(w.key), Native: ev.Native, Row: row})
		}
	}
	if w.filter == nil && row != nil {
		w.batch.moved = append(w.batch.moved, changelog.MovedRow{Table: b.table.ID, Key: w.keep(w.key), Native: lastDelete, Row: row})
	}
	return nil
}

// merge returns the row of ev with the values of row in the columns that ev leaves out.
func (w *worker) merge(ctx context.Context, ev *decode.Event, b *binding, row changelog.Row) (changelog.Row, error) {
	id, err := row.SchemaID()
	if err != nil {
		return nil, err
	}
	if id > b.schema.ID { // the row may have a value where b has no column
		if b, err = w.rebind(ctx, ev.Shape); err != nil {
			return nil, err
		}
		if b.rejected != nil {
			return nil, b.rejected
		}
		w.last = b
	}
	old, err := w.project(b, row)
	if err != nil {
		return nil, err
	}
	values := b.mapping.Values(ev.After)
	for _, hole := range ev.Placeholders {
		for _, o := range b.columns(hole) {
			values[o] = old[o]
		}
	}
	return w.batch.arena.keep(changelog.AppendRow(w.batch.arena.tail(), b.schema, values)), nil
}

// project decodes a row of any schema of the table into values of the binding's schema.
func (w *worker) project(b *binding, row changelog.Row) ([]changelog.Value, error) {
	schema, err := w.table.schemas().Of(row)
	if err != nil {
		return nil, err
	}
	p := b.projections[schema.ID]
	if p == nil {
		if p, err = changelog.NewProjection(schema, b.schema); err != nil {
			return nil, err
		}
		if b.projections == nil {
			b.projections = map[changelog.SchemaID]*changelog.Projection{}
		}
		b.projections[schema.ID] = p
	}
	return p.Values(row)
}

// truncate deletes all rows of the source's table, where it is sure that they are older than the truncate: the topic
// has one partition, and no other topic feeds the table.
func (w *worker) truncate(ctx context.Context, r *Record, ev *decode.Event) error {
	t := w.table.current.Load()
	switch {
	case w.target.Truncate == TruncateIgnore:
		w.count(&w.batch.counts.Skipped, r)
		return nil
	case w.target.Truncate == TruncatePark:
		w.reject(r, reasonTruncateUnsafe, "the route says so", nil)
		return nil
	case t != nil && len(t.Topics) > 1:
		w.reject(r, reasonTruncateUnsafe, "several topics feed the table", nil)
		return nil
	}
	ends, err := w.member.topic.ends(ctx)
	if err != nil {
		return err
	}
	if len(ends) > 1 {
		w.reject(r, reasonTruncateUnsafe, fmt.Sprintf("the topic has %d partitions: older changes may still be unread in others", len(ends)), nil)
		return nil
	}
	if t == nil { // no row came before it
		w.count(&w.batch.counts.Skipped, r)
		return nil
	}
	if err := w.submit(ctx, Unknown); err != nil {
		return err
	}
	return w.deleteAll(ctx, r, ev, t)
}

// deleteAll deletes the keys that have a row now, and marks the truncate after them. A crash in between leaves some of
// the deletes, and the position before the truncate: it comes again.
func (w *worker) deleteAll(ctx context.Context, r *Record, ev *decode.Event, t *Table) error {
	position := w.position(r, ev.Native)
	w.begin()
	for key, err := range w.log.Keys(ctx, t.ID) {
		if err != nil {
			return w.readError(ctx, err)
		}
		w.batch.changes = append(w.batch.changes, changelog.Change{
			Op: changelog.OpDelete, Key: w.keep(key), Position: position, SourceTime: ev.SourceTime, IngestTime: w.now, Txn: ev.Txn,
		})
		if len(w.batch.changes) >= w.opts.BatchRecords {
			if err := w.submit(ctx, Unknown); err != nil {
				return err
			}
		}
	}
	for _, key := range w.table.stale.all() {
		w.batch.stale = append(w.batch.stale, changelog.StaleMark{Table: t.ID, Key: key})
	}
	w.batch.changes = append(w.batch.changes, changelog.Change{
		Op: changelog.OpTruncate, Position: position, SourceTime: ev.SourceTime, IngestTime: w.now, Txn: ev.Txn,
	})
	w.count(&w.batch.counts.Applied, r)
	return nil
}
