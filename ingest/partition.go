package ingest

import (
	"context"
	"fmt"

	"firn/changelog"
)

// badPartition returns why the lake cannot take a row of the binding's schema, with the column; "": it can.
func (w *worker) badPartition(b *binding, row changelog.Row) (detail string, err error) {
	if w.values, err = changelog.AppendValues(w.values[:0], b.schema, row); err != nil {
		return "", err
	}
	column, why := b.table.Partition.BadValue(b.schema, w.values)
	if why != "" {
		detail = fmt.Sprintf("column %q: %s", column, why)
	}
	return detail, nil
}

// completeBefore gives each change of the batch the row that its key has before it, where changes can take rows to other
// partitions of the lake (Table.moves): the change store deletes a row in its own partition only. What the source gave does not
// count, because the row that is to be deleted is the one that is stored: they differ after a rejected event, or a change of a
// column's type. No other stream appends to the table between the reads and leave.
//
// It costs a read for each key of the batch, and the streams of the table take turns.
func (w *worker) completeBefore(ctx context.Context) (leave func(), err error) {
	t := w.table.current.Load()
	if t == nil || !t.moves() || len(w.batch.changes) == 0 {
		return func() {}, nil
	}
	if leave, err = w.table.enter(ctx); err != nil {
		return nil, err
	}
	if err := w.complete(ctx, t); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// complete is completeBefore for a caller that has entered t, a table whose rows move.
func (w *worker) complete(ctx context.Context, t *Table) error {
	rows := make(map[string]changelog.Row, len(w.batch.changes))
	for i := range w.batch.changes {
		c := &w.batch.changes[i]
		if c.Op == changelog.OpTruncate {
			continue
		}
		before, known := rows[string(c.Key)]
		if !known {
			var err error
			if before, _, err = w.log.Row(ctx, t.ID, c.Key); err != nil {
				return w.readError(ctx, err)
			}
		}
		c.Before = before
		rows[string(c.Key)] = c.After
	}
	return nil
}
