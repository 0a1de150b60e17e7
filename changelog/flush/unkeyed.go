package flush

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/merge"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// removals is what a batch of a table without a key takes out, by the rules of changelog.Bag: rows that the batch itself
// puts in, and rows of the base store.
//
//	c A · c B · d A · d C · t · c D        truncated: all before t, and all base files
//	c A · c B · d A · d C                  cancelled: the first c A; wanted: one row C of the base store
//
// Rows are in the encoding of the batch's schema: older ones are projected to it first, on both sides.
type removals struct {
	truncated changelog.SeqNum          // the last truncate; 0: none
	wanted    map[string]int            // equal rows to find in the base store, by row
	cancelled map[changelog.SeqNum]bool // changes whose After a later one takes out
}

// bagSurvey finds the removals of the changes in a batch, before a row of it is written: in one pass over the changes what
// is taken out, in another one, if there is anything, where each of it was put in.
type bagSurvey struct {
	b     *batch
	takes map[string]*placed // by row
	r     removals
	enc   []byte
}

// placed is where the batch has put in rows that are equal, and how many are to be found elsewhere.
type placed struct {
	at     []changelog.SeqNum // not taken out again, ascending
	wanted int
}

func (b *batch) survey(ctx context.Context, from changelog.SeqNum, changes iter.Seq2[changelog.Change, error], l limits) error {
	s := &bagSurvey{b: b, takes: map[string]*placed{}}
	to, _, _, err := walk(ctx, from, changes, l, s.note)
	if err != nil {
		return err
	}
	if len(s.takes) > 0 {
		upTo := limits{rows: int(to - from), bytes: 1 << 62} //nolint:gosec // a number of changes of one batch
		if _, _, _, err := walk(ctx, from, changes, upTo, s.match); err != nil {
			return err
		}
	}
	s.r.wanted = map[string]int{}
	for row, p := range s.takes {
		if p.wanted > 0 {
			s.r.wanted[row] = p.wanted
		}
	}
	b.removals = s.r
	return nil
}

// note is the first pass.
func (s *bagSurvey) note(c *changelog.Change) error {
	if c.Op == changelog.OpTruncate {
		s.r.truncated = c.Seq
		clear(s.takes)
	}
	if c.Before == nil {
		return nil
	}
	row, err := s.row(c.Seq, c.Before)
	if err == nil && s.takes[string(row)] == nil {
		s.takes[string(row)] = &placed{}
	}
	return err
}

// match is the second pass.
func (s *bagSurvey) match(c *changelog.Change) error {
	if c.Seq <= s.r.truncated {
		return nil
	}
	if c.Before != nil {
		row, err := s.row(c.Seq, c.Before)
		if err != nil {
			return err
		}
		p := s.takes[string(row)]
		switch last := len(p.at) - 1; {
		case last >= 0:
			if s.r.cancelled == nil {
				s.r.cancelled = map[changelog.SeqNum]bool{}
			}
			s.r.cancelled[p.at[last]] = true
			p.at = p.at[:last]
		default:
			p.wanted++ // after a truncate in vain: take tells
		}
	}
	if c.After == nil {
		return nil
	}
	row, err := s.row(c.Seq, c.After)
	if err != nil {
		return err
	}
	if p := s.takes[string(row)]; p != nil {
		p.at = append(p.at, c.Seq)
	}
	return nil
}

// row returns r in the batch's schema; it is valid until the next call.
func (s *bagSurvey) row(seq changelog.SeqNum, r changelog.Row) ([]byte, error) {
	values, err := s.b.rows.Values(r)
	if err != nil {
		return nil, fmt.Errorf("change %d: %w", seq, err)
	}
	s.enc = changelog.AppendRow(s.enc[:0], s.b.schema, values)
	return s.enc, nil
}

// take finds the rows that the pending batch takes out of the base store and adds their removal to the commit, which is good
// for the store as it was read only.
func (f *Flusher) take(ctx context.Context, b *batch, c *table.Commit) error {
	c.Marked = true // also what comes to nothing is a flush
	r := &b.removals
	if r.truncated == 0 && len(r.wanted) == 0 {
		return nil
	}
	if err := f.reload(ctx); err != nil {
		return err
	}
	store := f.lake.Base()
	c.Expect = table.ExpectNone
	if id := store.SnapshotID(); id != 0 {
		c.Expect = id
	}
	files, err := store.Files(ctx)
	if err != nil {
		return err
	}
	if r.truncated > 0 {
		for _, file := range files {
			if file.Content == table.Data {
				c.Remove = append(c.Remove, file)
			} else {
				c.RemoveDeletes = append(c.RemoveDeletes, file)
			}
		}
	} else if err := b.findRows(ctx, store, files); err != nil {
		return err
	}
	missing := 0
	for _, n := range r.wanted {
		missing += n
	}
	if missing > 0 {
		f.metrics.missing.WithLabelValues(f.name).Add(float64(missing))
		f.logger.Warn("rows to delete are not there: nothing equal to what the source had", slog.Int("rows", missing),
			slog.Uint64("from", uint64(c.From)), slog.Uint64("seq", uint64(c.To)))
	}
	c.AddDeletes, err = b.finishDeletes()
	return err
}

// findRows looks for the wanted rows in the base files whose partition and bounds allow one, and leaves in removals.wanted what
// it has not found. The rows found are in b.dead. Memory: the positions found, and what merge.Reader.Base takes.
//
// Error: table.ErrUnsupported, a file that may have them is of an earlier partition spec.
func (b *batch) findRows(ctx context.Context, store *table.Store, files []table.File) error {
	wanted := b.removals.wanted
	may, err := newSpan(b.schema, wanted)
	if err != nil {
		return err
	}
	places, err := b.partitionsOf(wanted)
	if err != nil {
		return err
	}
	var s merge.Snapshot
	partitions := map[string]string{} // by data file
	for _, f := range files {
		if err := store.Foreign(&f); err != nil {
			return fmt.Errorf("find rows: %w", err)
		}
		wrong := store.CheckSpec(&f)
		switch {
		case wrong == nil && places != nil && !places[f.Partition]:
		case f.Content != table.Data:
			s.Deletes = append(s.Deletes, MergeFile(&f))
		case may.overlaps(&f):
			if wrong != nil {
				return wrong
			}
			s.Base = append(s.Base, MergeFile(&f))
			partitions[f.Path] = f.Partition
		}
	}
	if len(s.Base) == 0 {
		return nil
	}
	r, err := merge.New(b.schema, s, LakeFiles{FS: b.fs}, merge.Options{})
	if err != nil {
		return fmt.Errorf("find rows: %w", err)
	}
	b.dead = map[string][]datafile.PosDelete{}
	for row, err := range r.Base(ctx) {
		if err != nil {
			return fmt.Errorf("find rows: %w", err)
		}
		n := wanted[string(row.Row)]
		if n == 0 {
			continue
		}
		at := partitions[row.File]
		b.dead[at] = append(b.dead[at], datafile.PosDelete{Path: row.File, Pos: row.Ordinal})
		if n > 1 {
			wanted[string(row.Row)] = n - 1
			continue
		}
		if delete(wanted, string(row.Row)); len(wanted) == 0 {
			return nil
		}
	}
	return nil
}

// partitionsOf returns the partitions that rows in the batch's schema belong to; nil if the table has none.
func (b *batch) partitionsOf(rows map[string]int) (map[string]bool, error) {
	if b.parted == nil {
		return nil, nil //nolint:nilnil // as documented
	}
	out := map[string]bool{}
	for row := range rows {
		at, err := b.parted.place(changelog.Row(row))
		if err != nil {
			return nil, fmt.Errorf("row to delete: %w", err)
		}
		out[at] = true
	}
	return out, nil
}

// finishDeletes writes the position deletes of the rows found: a file for each partition, which Iceberg asks for.
func (b *batch) finishDeletes() (add []table.NewFile, err error) {
	for _, at := range slices.Sorted(maps.Keys(b.dead)) {
		f, err := b.writeDeletes(at, b.dead[at])
		if err != nil {
			return nil, err
		}
		add = append(add, *f)
	}
	return add, nil
}

// writeDeletes writes position deletes of one partition. Readers ask for them sorted.
func (b *batch) writeDeletes(partition string, dead []datafile.PosDelete) (*table.NewFile, error) {
	slices.SortFunc(dead, func(a, c datafile.PosDelete) int {
		if a.Path != c.Path {
			return bytes.Compare([]byte(a.Path), []byte(c.Path))
		}
		return int(a.Pos - c.Pos)
	})
	name := mixed.FileName{Type: mixed.PositionDelete, Op: b.op, Count: len(b.files) + 1}
	f := &dataFile{path: b.path(partition, name.String()), partition: partition}
	out, err := b.fs.Create(f.path)
	if err != nil {
		return nil, err
	}
	f.out = out
	b.files = append(b.files, f)
	if f.done, err = datafile.WritePositionDeletes(out, dead, b.options); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	if err := out.Commit(); err != nil {
		return nil, err
	}
	add := &table.NewFile{Path: f.path, Partition: partition, Rows: f.done.Rows, Bytes: f.done.Bytes, Footer: f.done.Metadata}
	if first := dead[0].Path; first == dead[len(dead)-1].Path {
		add.Referenced = first
	}
	return add, nil
}

// span is between which values the columns of some rows lie: a file whose bounds are elsewhere in one column has none of
// them.
type span struct {
	columns []columnSpan
}

type columnSpan struct {
	id        int
	whole     bool // numbers of 4 or 8 bytes; else strings
	low, high changelog.Value
}

func newSpan(s *changelog.Schema, rows map[string]int) (*span, error) {
	all := make([]*columnSpan, len(s.Columns)) // nil: not to be told apart by
	for i, c := range s.Columns {
		switch c.Type.Kind {
		case changelog.Int, changelog.Long, changelog.Date, changelog.Time, changelog.Timestamp, changelog.TimestampTZ,
			changelog.TimestampNS, changelog.TimestampTZNS:
			all[i] = &columnSpan{id: c.ID, whole: true}
		case changelog.String:
			all[i] = &columnSpan{id: c.ID}
		case changelog.Boolean, changelog.Float, changelog.Double, changelog.Decimal, changelog.UUID, changelog.Fixed, changelog.Binary,
			changelog.Struct, changelog.List, changelog.Map:
		}
	}
	var values []changelog.Value
	first := true
	for row := range rows {
		var err error
		if values, err = changelog.AppendValues(values[:0], s, changelog.Row(row)); err != nil {
			return nil, fmt.Errorf("row to delete: %w", err)
		}
		for i, c := range all {
			if c != nil && !c.take(values[i], first) {
				all[i] = nil
			}
		}
		first = false
	}
	out := &span{}
	for _, c := range all {
		if c != nil {
			out.columns = append(out.columns, *c)
		}
	}
	return out, nil
}

// take widens the span to v, and reports whether it is one: bounds do not tell of nulls.
func (c *columnSpan) take(v changelog.Value, first bool) bool {
	if v.Null {
		return false
	}
	if first || c.less(v, c.low) {
		c.low = v
	}
	if first || c.less(c.high, v) {
		c.high = v
	}
	return true
}

func (c *columnSpan) less(a, b changelog.Value) bool {
	if c.whole {
		return a.I < b.I
	}
	return bytes.Compare(a.B, b.B) < 0
}

// overlaps reports whether the file may have a row of the span.
func (s *span) overlaps(f *table.File) bool {
	for i := range s.columns {
		c := &s.columns[i]
		low, lok := c.bound(f, false)
		high, hok := c.bound(f, true)
		if lok && c.less(c.high, low) || hok && c.less(high, c.low) {
			return false
		}
	}
	return true
}

// bound returns one bound of the file's column; false if it has none. A column that was widened since has narrow ones.
func (c *columnSpan) bound(f *table.File, upper bool) (changelog.Value, bool) {
	b, high := f.Bounds(c.id)
	if upper {
		b = high
	}
	switch {
	case len(b) == 0 && (c.whole || upper): // an upper bound that is empty may stand for none
		return changelog.Value{}, false
	case !c.whole:
		return changelog.Value{B: b}, true
	case len(b) == 8:
		return changelog.Value{I: int64(binary.LittleEndian.Uint64(b))}, true //nolint:gosec // bits, not a number
	case len(b) == 4:
		return changelog.Value{I: int64(int32(binary.LittleEndian.Uint32(b)))}, true //nolint:gosec // as above
	}
	return changelog.Value{}, false
}

// errAgain says that a flush found the table changed, and is to be prepared anew.
var errAgain = errors.New("prepare again")
