package merge

import (
	"context"
	"errors"
	"iter"
	"math"

	"firn/changelog"
)

// Rows yields the table's rows, merged from base and change files, by partition and tree node and in no useful order
// within. An error comes last. A key comes once as long as the stores hold it once: inserts are not deduplicated.
//
// Memory: the deletes of one node at a time, at most Options.MaxKeys of them, a bit for each base row of the node up
// to its last position delete, and a batch of one file.
func (r *Reader) Rows(ctx context.Context) iter.Seq2[Row, error] {
	return r.rows(ctx, func(yield func(Row) error) error { return r.merge(ctx, newShare(1), yield) })
}

// Base yields the rows of the base store alone, position deletes applied: what any Iceberg engine sees. Seq is 0.
func (r *Reader) Base(ctx context.Context) iter.Seq2[Row, error] {
	base := &Reader{
		schema: r.schema, files: r.files, o: r.o,
		snap: Snapshot{Base: r.snap.Base, Deletes: r.snap.Deletes},
	}
	return base.Rows(ctx)
}

// BaseCount returns how many rows Base yields. It reads position deletes only.
func (r *Reader) BaseCount(ctx context.Context) (int64, error) {
	n := int64(0)
	for _, t := range plan(&Snapshot{Base: r.snap.Base, Deletes: r.snap.Deletes}) {
		positions, err := r.loadPositions(ctx, t.positions, t.data)
		if err != nil {
			return 0, err
		}
		for _, f := range t.data {
			n += f.Records - positions[f.Path].count()
		}
	}
	return n, nil
}

// rows makes an iterator of a walk.
func (r *Reader) rows(ctx context.Context, walk func(func(Row) error) error) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		err := walk(func(row Row) error {
			if !yield(row, nil) {
				return errStop
			}
			return nil
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Row{}, err)
		}
	}
}

// merge visits the merged rows of the keys in s.
func (r *Reader) merge(ctx context.Context, s share, visit func(Row) error) error {
	for _, t := range plan(&r.snap) {
		positions, err := r.loadPositions(ctx, t.positions, t.data)
		if err != nil {
			return err
		}
		// The task's own shares are taken within s: another seed makes the two splits independent.
		inner := newShare(passesFor(t.rows(), r.o.MaxKeys))
		for ; inner.pass < inner.passes; inner.pass++ {
			deletes, err := r.loadDeletes(ctx, t.deletes, &inner)
			if err != nil {
				return err
			}
			for _, f := range t.data {
				m := merger{r: r, file: f, dead: positions[f.Path], deletes: deletes, outer: &s, inner: &inner, visit: visit}
				m.related = len(t.deletes) > 0
				if err := r.each(ctx, f.File, r.schema, !f.base, m.row); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// merger decides on the rows of one file.
type merger struct {
	r            *Reader
	file         dataFile
	dead         *bits
	deletes      keyDeletes
	related      bool // the task has delete files
	outer, inner *share
	visit        func(Row) error

	key changelog.Key
	enc []byte
}

func (m *merger) row(row *fileRow) error {
	if m.dead != nil && m.dead.has(row.ordinal) {
		return nil
	}
	schema := m.r.schema
	out := Row{File: m.file.Path, Ordinal: row.ordinal}
	if len(schema.Key) > 0 {
		m.key = schema.KeyOf(m.key[:0], row.values)
		if !m.outer.has(m.key) || !m.inner.has(m.key) {
			return nil
		}
		out.Key = m.key
	}
	at := lsn{m.file.Info.Txn, math.MaxInt64}
	if !m.file.base {
		if row.offset < 0 && m.related {
			return noOffset(m.file.Path, row.ordinal)
		}
		at.offset = row.offset
		out.Seq = changelog.SeqNum(max(row.offset, 0)) //nolint:gosec // not negative
	}
	if m.deletes.kills(m.key, at) {
		return nil
	}
	m.enc = changelog.AppendRow(m.enc[:0], schema, row.values)
	out.Row = m.enc
	return m.visit(out)
}
