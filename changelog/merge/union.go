package merge

import (
	"context"
	"fmt"
	"iter"

	"firn/changelog"
	"firn/changelog/datafile"
)

// Tail is the changes of a table that its files do not hold yet.
type Tail struct {
	From, To changelog.SeqNum // (From, To]; From is the To of the last commit that the Snapshot's change store has
	// Changes yields them, ascending; it may be called for several times. *logstore.Store's Scan does.
	Changes iter.Seq2[changelog.Change, error]
	// Schemas is the table's history, to read the changes' rows.
	Schemas changelog.Schemas
}

// Union yields the table's rows as they are with the tail applied: the merged rows of keys that the tail does not touch
// and the last row of each key that it does. Each key comes once. An error comes last.
//
// Memory: as Rows, and the keys and last rows of the tail, at most Options.MaxKeys at once: with a longer tail, all
// files and the tail are read several times.
func (r *Reader) Union(ctx context.Context, tail Tail) iter.Seq2[Row, error] {
	return r.rows(ctx, func(visit func(Row) error) error {
		s := newShare(passesFor(int64(tail.To-tail.From), r.o.MaxKeys)) //nolint:gosec // a number of changes
		for ; s.pass < s.passes; s.pass++ {
			last, err := r.loadTail(tail, &s)
			if err != nil {
				return fmt.Errorf("log (%d, %d]: %w", tail.From, tail.To, err)
			}
			err = r.merge(ctx, s, func(row Row) error {
				if _, touched := last[string(row.Key)]; touched {
					return nil
				}
				return visit(row)
			})
			if err != nil {
				return err
			}
			for key, row := range last {
				if row.Row == nil {
					continue
				}
				row.Key = changelog.Key(key)
				if err := visit(row); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// loadTail returns the last row of each of the share's keys that the tail touches; a deleted key has no Row.
func (r *Reader) loadTail(tail Tail, s *share) (map[string]Row, error) {
	last := map[string]Row{}
	if tail.Changes == nil || tail.To <= tail.From {
		return last, nil
	}
	p := datafile.NewProjector(tail.Schemas, r.schema)
	for c, err := range tail.Changes {
		if err != nil {
			return nil, err
		}
		if c.Seq <= tail.From || c.Seq > tail.To || c.Op == changelog.OpTruncate || !s.has(c.Key) {
			continue
		}
		row := Row{Seq: c.Seq}
		if c.After != nil {
			values, err := p.Values(c.After)
			if err != nil {
				return nil, fmt.Errorf("change %d: %w", c.Seq, err)
			}
			row.Row = changelog.AppendRow(nil, r.schema, values)
		}
		last[string(c.Key)] = row
	}
	return last, nil
}
