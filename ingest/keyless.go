package ingest

import (
	"context"
	"fmt"

	"firn/changelog"
	"firn/ingest/decode"
)

// rowsBefore is what the last row event of a partition was.
type rowsBefore uint8

const (
	rowsNone       rowsBefore = iota // there was none
	rowsUnknown                      // there was one, before this process began
	rowsOfSnapshot                   // a row of a snapshot
	rowsStreamed                     // a change
)

// note takes a row event in.
func (b *rowsBefore) note(ev *decode.Event) {
	switch ev.Snapshot {
	case decode.SnapshotNone:
		*b = rowsStreamed
	case decode.SnapshotFirst, decode.SnapshotFirstInTable, decode.SnapshotRow, decode.SnapshotLastInTable, decode.SnapshotLast:
		*b = rowsOfSnapshot
	case decode.SnapshotIncremental:
	}
}

// again reports whether ev begins a snapshot of a table whose rows the partition has had already. The marks of a first row
// tell; a table of one row has none, but after changes any row of a snapshot does.
func (b rowsBefore) again(ev *decode.Event) bool {
	switch ev.Snapshot {
	case decode.SnapshotFirst, decode.SnapshotFirstInTable:
		return b != rowsNone
	case decode.SnapshotRow, decode.SnapshotLastInTable, decode.SnapshotLast:
		return b == rowsStreamed
	case decode.SnapshotNone, decode.SnapshotIncremental:
	}
	return false
}

// ResnapshotError reports a snapshot that comes again for a table without a key (spec/debezium.md 2.6).
type ResnapshotError struct {
	Table  string
	Topic  string
	Offset int64
	Why    string // why the table cannot be emptied first; empty: the route does not say so
}

// Error names the way out.
func (e *ResnapshotError) Error() string {
	if e.Why != "" {
		return fmt.Sprintf("a snapshot of %s begins again at offset %d of topic %s, its rows would be there twice, and the table cannot be "+
			"emptied first: %s", e.Table, e.Offset, e.Topic, e.Why)
	}
	return fmt.Sprintf("a snapshot of %s, which has no key, begins again at offset %d of topic %s, and its rows would be there twice: "+
		"set keyless_resnapshot: reload to have the table emptied first, and restart", e.Table, e.Offset, e.Topic)
}

// keylessChange takes in a change of a table without a key: see changelog.Bag for what its images do.
func (w *worker) keylessChange(ctx context.Context, r *Record, ev *decode.Event, b *binding) error {
	w.key = w.key[:0]
	if w.rows.again(ev) {
		if err := w.reload(ctx, r, ev, b); err != nil {
			return err
		}
	}
	takes, refused, err := w.takes(ctx, ev, b)
	if err != nil {
		return err
	}
	if refused != "" {
		w.reject(r, decode.ReasonKeyMissing, refused, nil)
		return nil
	}
	if len(ev.Placeholders) > 0 {
		if ev.Before == nil {
			w.reject(r, reasonUnresolved, "the table has no key to find the row before by", nil)
			return nil
		}
		for _, o := range ev.Placeholders {
			ev.After[o] = ev.Before[o]
		}
	}
	c := changelog.Change{
		Op: ev.Op, Position: w.position(r, ev.Native), SourceTime: ev.SourceTime, IngestTime: w.now, Txn: ev.Txn,
	}
	if ev.After != nil {
		c.After = w.batch.arena.keep(b.mapping.Row(w.batch.arena.tail(), ev.After))
	}
	if b.restricted && c.After != nil {
		if detail, err := w.badPartition(b, c.After); err != nil {
			return final(err)
		} else if detail != "" {
			w.reject(r, reasonPartition, detail, nil)
			return nil
		}
	}
	if takes {
		c.Before = w.batch.arena.keep(b.mapping.Row(w.batch.arena.tail(), ev.Before))
	}
	w.batch.changes = append(w.batch.changes, c)
	w.rows.note(ev)
	if len(ev.Reports) > 0 {
		w.report(r, ev)
	}
	w.count(&w.batch.counts.Applied, r)
	if ev.Snapshot == decode.SnapshotNone && !ev.HasIdentity && w.filter != nil && !w.twice {
		w.twice = true
	}
	return nil
}

// takes reports whether an event takes its old row out, or why it is refused.
func (w *worker) takes(ctx context.Context, ev *decode.Event, b *binding) (takes bool, refused string, err error) {
	if ev.Op != changelog.OpUpdate && ev.Op != changelog.OpDelete {
		return false, "", nil
	}
	switch w.target.Keyless {
	case KeylessAppend:
		if ev.Op == changelog.OpDelete {
			return false, "a delete in a table without a key, to which rows are only added (keyless: append)", nil
		}
		return false, "", nil
	case KeylessReject:
		return false, "an update or delete in a table without a key (keyless: reject_changes)", nil
	case KeylessFullRow:
	}
	if ev.Before == nil {
		return false, "the old row is not known, or is not to be trusted (identity: full says that it is)", nil
	}
	why, err := w.unordered(ctx, b.table)
	if why != "" {
		return false, "order is needed to take a row out: " + why, err
	}
	return true, "", err
}

// unordered tells why changes of a table may come in another order than they were made; "" if they do not.
func (w *worker) unordered(ctx context.Context, t *Table) (string, error) {
	if len(t.Topics) > 1 {
		return "several topics feed the table", nil
	}
	if w.partitions == 0 {
		ends, err := w.member.topic.ends(ctx)
		if err != nil {
			return "", err
		}
		w.partitions = len(ends) // a topic that grows is assigned anew
	}
	if w.partitions > 1 {
		return fmt.Sprintf("the topic has %d partitions", w.partitions), nil
	}
	return "", nil
}

// reload empties the table before the first row of a snapshot that comes again, in the append of that row, or says that the
// partition stops here.
func (w *worker) reload(ctx context.Context, r *Record, ev *decode.Event, b *binding) error {
	stop := &ResnapshotError{Table: w.table.name, Topic: w.id.Topic, Offset: r.Offset}
	if w.target.Resnapshot == ResnapshotReload {
		var err error
		if stop.Why, err = w.unordered(ctx, b.table); err != nil {
			return err
		}
		if stop.Why == "" {
			w.batch.changes = append(w.batch.changes, changelog.Change{
				Op: changelog.OpTruncate, Position: w.position(r, ev.Native), SourceTime: ev.SourceTime, IngestTime: w.now,
			})
			w.runner.pipeline.logger.Info("a snapshot begins again: the table is emptied", "table", w.table.name, "topic", w.id.Topic, "offset", r.Offset)
			return nil
		}
	}
	if err := w.submit(ctx, Unknown); err != nil { // what came before is sound
		return err
	}
	return stop
}
