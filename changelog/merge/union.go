package merge

import (
	"context"
	"errors"
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
// and the last row of each key that it does. Each key comes once; without a key the tail is folded as a changelog.Bag. An
// error comes last.
//
// Memory: as Rows, and the keys and last rows of the tail, at most Options.MaxKeys at once: with a longer tail, all
// files and the tail are read several times.
func (r *Reader) Union(ctx context.Context, tail Tail) iter.Seq2[Row, error] {
	return r.rows(ctx, func(visit func(Row) error) error {
		s := newShare(passesFor(int64(tail.To-tail.From), r.o.MaxKeys)) //nolint:gosec // a number of changes
		for ; s.pass < s.passes; s.pass++ {
			if len(r.schema.Key) == 0 {
				if err := r.unionBag(ctx, tail, &s, visit); err != nil {
					return err
				}
				continue
			}
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

// unionBag is one pass of Union for a table without a key: over the rows in s.
func (r *Reader) unionBag(ctx context.Context, tail Tail, s *share, visit func(Row) error) error {
	bag, err := r.loadBag(tail, s)
	if err != nil {
		return fmt.Errorf("log (%d, %d]: %w", tail.From, tail.To, err)
	}
	err = r.merge(ctx, newShare(1), func(row Row) error {
		if !s.has(changelog.Key(row.Row)) || !bag.Keeps(row.Row) {
			return nil
		}
		return visit(row)
	})
	for row, n := range bag.Added {
		for ; n > 0 && err == nil; n-- {
			err = visit(Row{Row: changelog.Row(row)})
		}
	}
	return err
}

func (r *Reader) loadBag(tail Tail, s *share) (bag changelog.Bag, err error) {
	if tail.Changes == nil || tail.To <= tail.From {
		return bag, nil
	}
	p := datafile.NewProjector(tail.Schemas, r.schema)
	var buf []byte
	image := func(row changelog.Row, do func([]byte)) error {
		if row == nil {
			return nil
		}
		values, err := p.Values(row)
		if err != nil {
			return err
		}
		if buf = changelog.AppendRow(buf[:0], r.schema, values); s.has(buf) {
			do(buf)
		}
		return nil
	}
	for c, err := range tail.Changes {
		switch {
		case err != nil:
			return bag, err
		case c.Seq <= tail.From || c.Seq > tail.To:
			continue
		case c.Op == changelog.OpTruncate:
			bag.Truncate()
			continue
		}
		if err := errors.Join(image(c.Before, bag.Take), image(c.After, bag.Add)); err != nil {
			return bag, fmt.Errorf("change %d: %w", c.Seq, err)
		}
	}
	return bag, nil
}
