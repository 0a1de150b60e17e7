package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/changelog/table"
	"firn/logstore/httpapi"
)

// checkRows: base and change files with the log's tail on top are, key by key, the rows of the key index. Both are as of
// the index's SeqNum.
func (v *verifier) checkRows(ctx context.Context, t *verified, c *check) (err error) {
	if t.lake != nil { // first: what is flushed after it comes from the log
		if t.lake, err = t.lake.Reload(ctx); err != nil {
			return err
		}
	}
	_, schema, err := v.stores.asked(ctx, t.name)
	if err != nil {
		return err
	}
	index, union := newLineSorter(), newLineSorter()
	defer func() { err = errors.Join(err, index.Close(), union.Close()) }()
	rows, applied, err := v.stores.indexRows(ctx, t.name, schema, index)
	if err != nil {
		return err
	}
	var u unionInfo
	if t.lake == nil {
		u.tail, err = v.stores.changes(ctx, t.name, schema, 0, applied, union)
	} else {
		u, err = v.stores.union(ctx, t.lake, applied, union)
	}
	if err != nil {
		return err
	}
	c.Detail = fmt.Sprintf("%d rows at %d in lookups; %d rows of the lake at %d and %d changes of the log", rows, applied, u.merged, u.flushed, u.tail)
	return compareRows(index, union, "lookups", "the lake with the log's tail", c)
}

// checkLog: what the log's changes left of their keys is what the index has.
func (v *verifier) checkLog(ctx context.Context, t *verified, c *check) (err error) {
	answer, schema, err := v.stores.asked(ctx, t.name)
	if err != nil {
		return err
	}
	index, log := newLineSorter(), newLineSorter()
	defer func() { err = errors.Join(err, index.Close(), log.Close()) }()
	_, applied, err := v.stores.indexRows(ctx, t.name, schema, index)
	if err != nil {
		return err
	}
	from := max(answer.Oldest, 1) - 1
	n, err := v.stores.changes(ctx, t.name, schema, from, applied, log)
	if err != nil {
		return err
	}
	c.Detail = fmt.Sprintf("%d changes in (%d, %d]", n, from, applied)
	return compareStates(index, log, c)
}

// asked returns what the log's side says of a table now, and its schema.
func (s *stores) asked(ctx context.Context, name string) (tableAnswer, *changelog.Schema, error) {
	answer, err := s.client.table(ctx, name)
	if err != nil {
		return answer, nil, err
	}
	schema, err := httpapi.ParseIcebergSchema(answer.Schema)
	return answer, schema, err
}

// indexRows adds the rows of the key index to keyed.
func (s *stores) indexRows(ctx context.Context, name string, schema *changelog.Schema, keyed *lineSorter) (n int, applied changelog.SeqNum, err error) {
	var line []byte
	err = s.client.lines(ctx, tablePath(name, "/dump", url.Values{"from": {"index"}}), lineReader{
		begin: func(seq changelog.SeqNum) { applied = seq },
		visit: func(row []byte) error {
			n++
			fields, err := fieldsOf(row)
			if err != nil {
				return fmt.Errorf("row %s: %w", row, err)
			}
			if line, err = appendKeyOf(line[:0], schema, fields); err != nil {
				return err
			}
			line = append(appendSeq(line, 0), row...)
			return keyed.add(line)
		},
	})
	return n, applied, err
}

// appendKeyOf appends the key object of a row.
func appendKeyOf(dst []byte, schema *changelog.Schema, fields []field) ([]byte, error) {
	dst = append(dst, '{')
	for i, name := range schema.KeyNames() {
		var value jsontext.Value
		for _, f := range fields {
			if f.name == name {
				value = f.value
			}
		}
		if value == nil {
			return dst, fmt.Errorf("a row without the key column %q", name)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(rowjson.AppendString(dst, name), ':'), value...)
	}
	return append(dst, '}'), nil
}

// compareRows tells in which keys two sets of keyed lines differ.
func compareRows(a, b *lineSorter, aName, bName string, c *check) error {
	nextA, stopA := iter.Pull2(newest(a))
	defer stopA()
	nextB, stopB := iter.Pull2(newest(b))
	defer stopB()
	ra, errA, okA := nextA()
	rb, errB, okB := nextB()
	for okA || okB {
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		var order int
		switch {
		case !okB:
			order = -1
		case !okA:
			order = 1
		default:
			order = bytes.Compare(ra.key, rb.key)
		}
		switch {
		case order < 0:
			c.differ("%s: only in %s", ra.key, aName)
		case order > 0:
			c.differ("%s: only in %s", rb.key, bName)
		case !bytes.Equal(ra.row, rb.row):
			c.differ("%s: %s", ra.key, firstDifference(ra.row, rb.row, aName, bName))
		}
		if order >= 0 && rb.copies > 1 {
			c.differ("%s: %d rows in the lake", rb.key, rb.copies)
		}
		if order <= 0 {
			ra, errA, okA = nextA()
		}
		if order >= 0 {
			rb, errB, okB = nextB()
		}
	}
	return nil
}

// compareStates tells which keys of the log are not in the index what they should be. The index may have more keys.
func compareStates(index, log *lineSorter, c *check) error {
	nextRow, stop := iter.Pull2(newest(index))
	defer stop()
	row, err, ok := nextRow()
	for s, serr := range states(log) {
		if serr != nil {
			return serr
		}
		for ok && err == nil && bytes.Compare(row.key, s.key) < 0 {
			row, err, ok = nextRow()
		}
		if err != nil {
			return err
		}
		has := ok && bytes.Equal(row.key, s.key)
		switch {
		case s.row == nil && has:
			c.differ("%s: deleted by the log, but lookups have it", s.key)
		case s.row != nil && !has:
			c.differ("%s: the log has a row, lookups have none", s.key)
		case s.row != nil && !bytes.Equal(s.row, row.row):
			c.differ("%s: %s", s.key, firstDifference(row.row, s.row, "lookups", "the log"))
		}
	}
	return nil
}

// firstDifference names the first column that differs.
func firstDifference(a, b []byte, aName, bName string) string {
	fa, errA := fieldsOf(a)
	fb, errB := fieldsOf(b)
	if errA != nil || errB != nil || len(fa) != len(fb) {
		return fmt.Sprintf("%s in %s, %s in %s", short(a), aName, short(b), bName)
	}
	for i := range fa {
		if fa[i].name != fb[i].name || !bytes.Equal(fa[i].value, fb[i].value) {
			return fmt.Sprintf("column %q is %s in %s, %s in %s", fa[i].name, short(fa[i].value), aName, short(fb[i].value), bName)
		}
	}
	return "the same columns in another order"
}

func short(b []byte) string {
	if len(b) > 80 {
		return string(bytes.ToValidUTF8(b[:77], nil)) + "…"
	}
	return string(b)
}

// flushMark reads the mark of a flush out of a snapshot's summary; ok is false if the snapshot is none.
func flushMark(summary map[string]string) (m table.FlushMark, ok bool, err error) {
	if summary[table.PropSeqTo] == "" {
		return m, false, nil
	}
	number := func(key string) uint64 {
		n, nerr := strconv.ParseUint(summary[key], 10, 64)
		if nerr != nil && err == nil {
			err = fmt.Errorf("%s is %q", key, summary[key])
		}
		return n
	}
	m.From, m.To = changelog.SeqNum(number(table.PropSeqFrom)), changelog.SeqNum(number(table.PropSeqTo))
	m.Epoch = changelog.Epoch(number(table.PropEpoch))
	if text := summary[table.PropPositions]; text != "" && err == nil {
		if jerr := json.Unmarshal([]byte(text), &m.Positions); jerr != nil {
			err = fmt.Errorf("%s: %w", table.PropPositions, jerr)
		}
	}
	return m, true, err
}

// wentBack names the streams whose next offset is lower than it was, or that are gone.
func wentBack(before, after []changelog.StreamPosition) []string {
	var out []string
	for _, b := range before {
		found := false
		for _, a := range after {
			if a.StreamID == b.StreamID {
				found = true
				if a.Next < b.Next {
					out = append(out, fmt.Sprintf("%s went back from offset %d to %d", b.StreamID, b.Next, a.Next))
				}
			}
		}
		if !found {
			out = append(out, fmt.Sprintf("%s has no position any more", b.StreamID))
		}
	}
	return out
}
