package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strconv"

	"firn/changelog"
	"firn/changelog/table"
)

// Rows of a table without a key are folded as changelog.Bag does, but on disk: a sorter has a line for each row that was put
// in or taken out, in the order of rows and then of changes.
//
//	row JSON, 00, 20 digits of SeqNum (0: the state before), 00, 0 taken out or 1 put in

// appendBagLine ends the row of such a line.
func appendBagLine(row []byte, seq changelog.SeqNum, put bool) []byte {
	kind := '0'
	if put {
		kind = '1'
	}
	return fmt.Appendf(row, "\x00%020d\x00%c", seq, kind)
}

// bagState is a bag in a sorter.
type bagState struct {
	lines     *lineSorter
	truncated changelog.SeqNum // the last truncate: what came before it is gone; 0: none
	rows      int              // of the state before
	changes   int
}

// addBase adds the rows of a base store, of a snapshot that is kept or of the newest one (0).
func (b *bagState) addBase(ctx context.Context, t *table.Table, schema *changelog.Schema, snapshot int64) error {
	r, schema, err := reader(ctx, t, schema, snapshot, "base")
	if err != nil {
		return lakeError(err)
	}
	encoder, err := sortedEncoder(schema, nil)
	if err != nil {
		return err
	}
	var line []byte
	for row, err := range r.Base(ctx) {
		if err != nil {
			return lakeError(err)
		}
		if line, err = encoder.AppendRow(line[:0], row.Row); err != nil {
			return err
		}
		line = appendBagLine(line, 0, true)
		if err := b.lines.add(line); err != nil {
			return err
		}
		b.rows++
	}
	return nil
}

// addChanges adds what the log's changes (from, to] put in and took out.
func (b *bagState) addChanges(ctx context.Context, c *client, name string, schema *changelog.Schema, from, to changelog.SeqNum) error {
	if from >= to {
		return nil
	}
	q := url.Values{"from": {"seq:" + seqText(from)}, "follow": {"false"}}
	done := errors.New("all changes are read")
	err := c.lines(ctx, tablePath(name, "/changes", q), lineReader{visit: func(change []byte) error {
		more, err := b.addChange(change, schema, to)
		if err != nil {
			return fmt.Errorf("change %s: %w", change, err)
		}
		if !more {
			return done
		}
		return nil
	}})
	if errors.Is(err, done) {
		err = nil
	}
	return err
}

// addChange adds one line of a feed; more is false if it is of a change after to.
func (b *bagState) addChange(change []byte, schema *changelog.Schema, to changelog.SeqNum) (more bool, err error) {
	fields, err := fieldsOf(change)
	if err != nil {
		return false, err
	}
	var before, after []byte
	var seq changelog.SeqNum
	truncate := false
	for _, m := range fields {
		switch m.name {
		case "seq", "truncate":
			n, err := strconv.ParseUint(string(m.value), 10, 64)
			if err != nil {
				return false, err
			}
			seq, truncate = changelog.SeqNum(n), m.name == "truncate"
		case "before":
			before = m.value
		case "after":
			after = m.value
		}
	}
	if seq > to {
		return false, nil
	}
	if truncate {
		b.truncated = seq
	}
	if seq != 0 {
		b.changes++
	}
	for put, image := range [][]byte{before, after} {
		if image == nil || string(image) == "null" {
			continue
		}
		line, err := appendSortedRow(nil, image, schema)
		if err != nil {
			return false, err
		}
		if err := b.lines.add(appendBagLine(line, seq, put == 1)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// bagRow is a row and how often it is there. It is valid until the next one.
type bagRow struct {
	row []byte
	n   int
}

// all yields the rows that are there in the end, sorted. It can be asked once.
func (b *bagState) all() iter.Seq2[bagRow, error] {
	return func(yield func(bagRow, error) bool) {
		var last bagRow
		for line, err := range b.lines.lines() {
			if err != nil {
				yield(bagRow{}, err)
				return
			}
			end := bytes.IndexByte(line, 0)
			row, kind := line[:end], line[len(line)-1]
			seq, err := strconv.ParseUint(string(line[end+1:end+21]), 10, 64)
			if err != nil {
				yield(bagRow{}, err)
				return
			}
			if !bytes.Equal(row, last.row) {
				if last.n > 0 && !yield(last, nil) {
					return
				}
				last = bagRow{row: append(last.row[:0], row...)}
			}
			switch {
			case changelog.SeqNum(seq) < b.truncated:
			case kind == '1':
				last.n++
			case last.n > 0: // nothing equal may be there
				last.n--
			}
		}
		if last.n > 0 {
			yield(last, nil)
		}
	}
}

// unionBag makes a bag of a table's rows in the lake and the log's changes that are not there yet. The lake was loaded before.
func (s *stores) unionBag(ctx context.Context, t *table.Table, b *bagState) (*changelog.Schema, error) {
	mark, _, err := t.LastCommit()
	if err != nil {
		return nil, err
	}
	answer, schema, err := s.asked(ctx, t.Name())
	if err != nil {
		return nil, err
	}
	if err := b.addBase(ctx, t, schema, 0); err != nil {
		return nil, err
	}
	return schema, b.addChanges(ctx, s.client, t.Name(), schema, mark.To, answer.Applied)
}

// dumpBag is dumpUnion for a table without a key.
func (s *stores) dumpBag(ctx context.Context, t *table.Table, columns []string, add func([]byte) error) (err error) {
	b := &bagState{lines: newLineSorter()}
	defer func() { err = errors.Join(err, b.lines.Close()) }()
	schema, err := s.unionBag(ctx, t, b)
	if err != nil {
		return err
	}
	for _, c := range columns {
		if schema.Ordinal(c) < 0 {
			return usageError("dump: column %q: no such column", c)
		}
	}
	for row, err := range b.all() {
		if err != nil {
			return err
		}
		line := row.row
		if len(columns) > 0 {
			if line, err = onlyColumns(line, columns); err != nil {
				return err
			}
		}
		for range row.n {
			if err := add(line); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBag is checkRows for a table without a key, which has no lookups: the base store as the oldest flush that the log
// reaches back to left it, with the log's changes on top, is the base store as it is. So a rewrite or a flush that lost,
// doubled or revived a row shows, as far back as both log and snapshots are kept.
func (v *verifier) checkBag(ctx context.Context, t *verified, c *check) (err error) {
	if t.lake, err = t.lake.Reload(ctx); err != nil {
		return err
	}
	mark, _, err := t.lake.LastCommit()
	if err != nil {
		return err
	}
	answer, schema, err := v.stores.asked(ctx, t.name)
	if err != nil {
		return err
	}
	from, snapshot, ok := flushBefore(t.lake, answer.Oldest)
	if !ok {
		c.Detail = fmt.Sprintf("the log begins at %d, and no kept snapshot is of a flush that reaches it: nothing to compare", answer.Oldest)
		return nil
	}
	now, then := &bagState{lines: newLineSorter()}, &bagState{lines: newLineSorter()}
	defer func() { err = errors.Join(err, now.lines.Close(), then.lines.Close()) }()
	if err := now.addBase(ctx, t.lake, schema, 0); err != nil {
		return err
	}
	if from > 0 {
		if err := then.addBase(ctx, t.lake, schema, snapshot); err != nil {
			return err
		}
	}
	if err := then.addChanges(ctx, v.stores.client, t.name, schema, from, mark.To); err != nil {
		return err
	}
	c.Detail = fmt.Sprintf("%d rows of the lake at %d; %d rows of it at %d and %d changes of the log", now.rows, mark.To, then.rows, from, then.changes)
	return compareBags(now, then, c)
}

// flushBefore returns the oldest flush whose snapshot is kept and after which the log has all changes. from 0: the log
// has all changes there were.
func flushBefore(t *table.Table, oldest changelog.SeqNum) (from changelog.SeqNum, snapshot int64, ok bool) {
	if oldest <= 1 {
		return 0, 0, true
	}
	for _, s := range t.Base().Snapshots() {
		mark, is, err := flushMark(s.Summary)
		if err == nil && is && mark.To+1 >= oldest {
			return mark.To, s.ID, true
		}
	}
	return 0, 0, false
}

// compareBags tells which rows are not there as often as they should be.
func compareBags(now, then *bagState, c *check) error {
	nextA, stopA := iter.Pull2(now.all())
	defer stopA()
	nextB, stopB := iter.Pull2(then.all())
	defer stopB()
	a, errA, okA := nextA()
	b, errB, okB := nextB()
	for okA || okB {
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		order := bytes.Compare(a.row, b.row)
		if !okA || okB && order > 0 {
			c.differ("%s: not in the lake, %d times by the log", short(b.row), b.n)
			b, errB, okB = nextB()
			continue
		}
		if !okB || order < 0 {
			c.differ("%s: %d times in the lake, not by the log", short(a.row), a.n)
			a, errA, okA = nextA()
			continue
		}
		if a.n != b.n {
			c.differ("%s: %d times in the lake, %d times by the log", short(a.row), a.n, b.n)
		}
		a, errA, okA = nextA()
		b, errB, okB = nextB()
	}
	return nil
}
