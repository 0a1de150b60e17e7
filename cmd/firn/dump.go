package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/merge"
	"firn/changelog/mixed"
	"firn/changelog/rowjson"
	"firn/changelog/table"
	"firn/logstore/httpapi"
)

type dumpFlags struct {
	lakeFlags
	from     string
	columns  []string
	snapshot int64
	count    bool
}

// dumpSources are where dump reads from.
var dumpSources = []string{"index", "log", "change", "base", "merged", "union"}

func newDumpCmd(e *env) *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use:   "dump TABLE --from index|log|change|base|merged|union",
		Short: "Print all rows in the sorted common form",
		Long: `Dump prints a table's rows as JSON lines, columns sorted by name, lines sorted bytewise: two dumps of the same rows are the
same bytes. --from says where the rows are read:

  index   what lookups answer from
  log     what the changes that the log holds have left
  change  rows of the change store, with _file_offset, _change_action and _transaction_id
  base    the base store as any Iceberg engine reads it
  merged  base store and change store, as Amoro reads them
  union   merged, and the changes of the log that are not flushed yet

index, log and union ask a running server, or with -c the data directory when none runs. All but index and log read the
lake: that of -c or --catalog-uri, else the running server's own, which must be on this machine.`,
		Example: `  firn dump shop.orders --from index
  firn dump shop.orders --from base -c firn.yaml --columns id,status
  firn dump shop.orders --from merged --catalog-uri firn-data/catalog.db`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error { return e.dump(cmd.Context(), args[0], f) }),
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.from, "from", "index", strings.Join(dumpSources, ", "))
	cmd.Flags().StringSliceVar(&f.columns, "columns", nil, "only these columns")
	cmd.Flags().Int64Var(&f.snapshot, "snapshot", 0, "this snapshot of the store (base, change) instead of the newest")
	cmd.Flags().BoolVar(&f.count, "count", false, "print only how many rows there are")
	return cmd
}

func (e *env) dump(ctx context.Context, name string, f dumpFlags) (err error) {
	if !slices.Contains(dumpSources, f.from) {
		return usageError("dump: --from %q: %s are known", f.from, strings.Join(dumpSources, ", "))
	}
	if f.snapshot != 0 && f.from != "base" && f.from != "change" {
		return usageError("dump: --snapshot goes with --from base and --from change")
	}
	s, err := f.open(ctx, f.from != "index" && f.from != "log", f.from == "index" || f.from == "log" || f.from == "union")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	lines := newLineSorter()
	defer func() { err = errors.Join(err, lines.Close()) }()
	count := 0
	add := func(line []byte) error {
		count++
		if f.count {
			return nil
		}
		return lines.add(line)
	}
	if err := s.dump(ctx, name, f, add); err != nil {
		return err
	}
	if f.count {
		_, err := fmt.Fprintln(e.Stdout, count)
		return err
	}
	out := bufio.NewWriterSize(e.Stdout, 1<<20)
	for line, err := range lines.lines() {
		if err != nil {
			return err
		}
		_, _ = out.Write(line) // bufio keeps the error for Flush
		_ = out.WriteByte('\n')
	}
	return out.Flush()
}

// dump calls add with each row, in no order.
func (s *stores) dump(ctx context.Context, name string, f dumpFlags, add func(line []byte) error) error {
	if f.from == "index" || f.from == "log" {
		q := url.Values{"from": {f.from}}
		columnsQuery(q, f.columns)
		return s.client.lines(ctx, tablePath(name, "/dump", q), lineReader{visit: add})
	}
	t, err := s.catalog.Load(ctx, name)
	if err != nil {
		return lakeError(err)
	}
	if f.from == "union" && !t.Keyed() {
		return s.dumpBag(ctx, t, f.columns, add)
	}
	if f.from == "union" {
		return s.dumpUnion(ctx, t, f.columns, add)
	}
	r, schema, err := reader(ctx, t, nil, f.snapshot, f.from)
	if f.snapshot != 0 && errors.Is(err, table.ErrNotFound) {
		return &exitError{exitNo, fmt.Errorf("the %s store of %s has no snapshot %d (any more): firn table snapshots %[2]s lists those there are", f.from, name, f.snapshot)}
	}
	if err != nil {
		return lakeError(err)
	}
	if f.from == "change" && !t.Keyed() {
		return &exitError{exitNo, fmt.Errorf("dump: table %s has no key, and so no change store: its changes are in the log (firn tail)", name)}
	}
	if f.from == "change" {
		return dumpChanges(ctx, r, schema, f.columns, add)
	}
	encoder, err := sortedEncoder(schema, f.columns)
	if err != nil {
		return err
	}
	rows := r.Rows
	if f.from == "base" {
		rows = r.Base
	}
	var line []byte
	for row, err := range rows(ctx) {
		if err != nil {
			return lakeError(fmt.Errorf("dump %s: %w", name, err))
		}
		if line, err = encoder.AppendRow(line[:0], row.Row); err != nil {
			return err
		}
		if err := add(line); err != nil {
			return err
		}
	}
	return nil
}

// lakeError gives an error of the lake its exit status.
func lakeError(err error) error {
	if errors.Is(err, table.ErrNotFound) {
		return &exitError{exitNo, err}
	}
	return err
}

// sortedEncoder renders rows of one schema.
func sortedEncoder(s *changelog.Schema, columns []string) (*rowjson.Encoder, error) {
	history := make(changelog.Schemas, s.ID+1) // rows name their schema by its place
	for i := range history {
		history[i] = s
	}
	encoder, err := rowjson.NewEncoder(history, rowjson.Options{Columns: columns, Sorted: true})
	if errors.Is(err, rowjson.ErrColumn) {
		return nil, usageError("dump: %w", err)
	}
	return encoder, err
}

// dumpChanges adds the rows of change files with the columns that Amoro's readers give them.
func dumpChanges(ctx context.Context, r *merge.Reader, schema *changelog.Schema, columns []string, add func([]byte) error) error {
	long := changelog.Primitive(changelog.Long)
	shown := &changelog.Schema{ID: schema.ID, Columns: append(slices.Clone(schema.Columns),
		changelog.Column{ID: mixed.FileOffsetID, Name: mixed.FileOffsetColumn, Type: long},
		changelog.Column{ID: mixed.ChangeActionID, Name: mixed.ChangeActionColumn, Type: changelog.Primitive(changelog.String)},
		changelog.Column{ID: mixed.TransactionIDID, Name: mixed.TransactionIDColumn, Type: long})}
	if err := shown.Index(); err != nil {
		return err
	}
	encoder, err := sortedEncoder(shown, columns)
	if err != nil {
		return err
	}
	var values []changelog.Value
	var line []byte
	for row, err := range r.Changes(ctx) {
		if err != nil {
			return lakeError(err)
		}
		if values, err = changelog.AppendValues(values[:0], schema, row.Row); err != nil {
			return err
		}
		offset := changelog.Value{I: row.Offset, Null: row.Offset < 0}
		values = append(values, offset, changelog.Value{B: []byte(row.Action)}, changelog.Value{I: row.Txn})
		if line, err = encoder.AppendValues(line[:0], values); err != nil {
			return err
		}
		if err := add(line); err != nil {
			return err
		}
	}
	return nil
}

// dumpUnion adds the merged rows with the changes applied that the log has and the change store has not.
func (s *stores) dumpUnion(ctx context.Context, t *table.Table, columns []string, add func([]byte) error) (err error) {
	keyed := newLineSorter()
	defer func() { err = errors.Join(err, keyed.Close()) }()
	u, err := s.union(ctx, t, 0, keyed)
	if err != nil {
		return err
	}
	for _, c := range columns {
		if u.schema.Ordinal(c) < 0 {
			return usageError("dump: column %q: no such column", c)
		}
	}
	for row, err := range newest(keyed) {
		if err != nil {
			return err
		}
		line := row.row
		if len(columns) > 0 {
			if line, err = onlyColumns(line, columns); err != nil {
				return err
			}
		}
		if err := add(line); err != nil {
			return err
		}
	}
	return nil
}

// unionInfo tells what a union was made of.
type unionInfo struct {
	schema  *changelog.Schema
	flushed changelog.SeqNum // all up to it came from the lake
	applied changelog.SeqNum // the rest up to here from the log
	merged  int              // rows of the lake
	tail    int              // changes of the log
}

// union adds to keyed the merged rows of the lake and what the log's changes (flushed, to] have left. to 0: all there
// are. The lake was loaded before: what is flushed meanwhile is read from the log, which still holds it.
func (s *stores) union(ctx context.Context, t *table.Table, to changelog.SeqNum, keyed *lineSorter) (u unionInfo, err error) {
	mark, _, err := t.LastCommit()
	if err != nil {
		return u, err
	}
	u.flushed = mark.To
	answer, err := s.client.table(ctx, t.Name())
	if err != nil {
		return u, err
	}
	if u.schema, err = httpapi.ParseIcebergSchema(answer.Schema); err != nil {
		return u, err
	}
	if u.applied = to; to == 0 {
		u.applied = answer.Applied
	}
	r, schema, err := reader(ctx, t, u.schema, 0, "")
	if err != nil {
		return u, lakeError(err)
	}
	encoder, err := sortedEncoder(schema, nil)
	if err != nil {
		return u, err
	}
	var line []byte
	for row, err := range r.Rows(ctx) {
		if err != nil {
			return u, lakeError(err)
		}
		if line, err = rowjson.AppendKeyObject(line[:0], schema, row.Key); err != nil {
			return u, err
		}
		if line, err = encoder.AppendRow(appendSeq(line, 0), row.Row); err != nil {
			return u, err
		}
		if err := keyed.add(line); err != nil {
			return u, err
		}
		u.merged++
	}
	u.tail, err = s.changes(ctx, t.Name(), u.schema, u.flushed, u.applied, keyed)
	return u, err
}

// keyedRow is a line of a sorter by key: what a change of number seq left of the row.
type keyedRow struct {
	key    []byte // JSON
	row    []byte // JSON; nil: deleted
	copies int    // lines of the key with seq 0: more than one is wrong
}

// appendSeq ends the key of a keyed line; seq orders the lines of a key, 0 is what the lake has.
func appendSeq(key []byte, seq changelog.SeqNum) []byte {
	return fmt.Appendf(key, "\x00%020d\x00", seq)
}

// changes adds to keyed what the log's changes (from, to] have left of their keys.
func (s *stores) changes(ctx context.Context, name string, schema *changelog.Schema, from, to changelog.SeqNum, keyed *lineSorter) (n int, err error) {
	if from >= to {
		return 0, nil
	}
	q := url.Values{"from": {"seq:" + seqText(from)}, "follow": {"false"}}
	var line []byte
	done := errors.New("all changes are read")
	err = s.client.lines(ctx, tablePath(name, "/changes", q), lineReader{visit: func(change []byte) error {
		fields, err := fieldsOf(change)
		if err != nil {
			return fmt.Errorf("change %s: %w", change, err)
		}
		var seq uint64
		var key, after []byte
		for _, m := range fields {
			switch m.name {
			case "seq":
				if _, err := fmt.Sscan(string(m.value), &seq); err != nil {
					return fmt.Errorf("change %s: %w", change, err)
				}
			case "key":
				key = m.value
			case "after":
				after = m.value
			}
		}
		if key == nil {
			return nil // a control line
		}
		if changelog.SeqNum(seq) > to {
			return done
		}
		n++
		line = appendSeq(append(line[:0], key...), changelog.SeqNum(seq))
		if string(after) != "null" {
			if line, err = appendSortedRow(line, after, schema); err != nil {
				return fmt.Errorf("change %d: %w", seq, err)
			}
		}
		return keyed.add(line)
	}})
	if errors.Is(err, done) {
		err = nil
	}
	return n, err
}

// appendSortedRow appends a row in the table's order as one sorted by name, with all the columns of schema.
func appendSortedRow(dst, row []byte, schema *changelog.Schema) ([]byte, error) {
	fields, err := fieldsOf(row)
	if err != nil {
		return dst, err
	}
	for _, c := range schema.Columns { // a change of a table that has got columns since
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == c.Name }) {
			fields = append(fields, field{name: c.Name, value: []byte("null")})
		}
	}
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return appendFields(dst, fields), nil
}

func appendFields(dst []byte, fields []field) []byte {
	dst = append(dst, '{')
	for i, f := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(rowjson.AppendString(dst, f.name), ':'), f.value...)
	}
	return append(dst, '}')
}

func onlyColumns(row []byte, columns []string) ([]byte, error) {
	fields, err := fieldsOf(row)
	if err != nil {
		return nil, err
	}
	fields = slices.DeleteFunc(fields, func(f field) bool { return !slices.Contains(columns, f.name) })
	return appendFields(nil, fields), nil
}

// newest yields the last state of each key in keyed, deleted ones left out, by key. A row is valid until the next one.
func newest(keyed *lineSorter) func(yield func(keyedRow, error) bool) {
	return func(yield func(keyedRow, error) bool) {
		for r, err := range states(keyed) {
			if err != nil || r.row != nil {
				if !yield(r, err) {
					return
				}
			}
		}
	}
}

// states is newest with deleted keys, whose row is nil.
func states(keyed *lineSorter) func(yield func(keyedRow, error) bool) {
	return func(yield func(keyedRow, error) bool) {
		var last keyedRow
		var held []byte
		for line, err := range keyed.lines() {
			if err != nil {
				yield(keyedRow{}, err)
				return
			}
			end := bytes.IndexByte(line, 0)
			key, seq, row := line[:end], line[end+1:end+21], line[end+22:]
			same := last.key != nil && bytes.Equal(key, last.key)
			if last.key != nil && !same && !yield(last, nil) {
				return
			}
			copies := 0
			if same {
				copies = last.copies
			}
			if bytes.Equal(seq, zeroSeq) {
				copies++
			}
			held = append(append(held[:0], key...), row...)
			last = keyedRow{key: held[:len(key):len(key)], copies: copies}
			if len(row) > 0 {
				last.row = held[len(key):]
			}
		}
		if last.key != nil {
			yield(last, nil)
		}
	}
}

var zeroSeq = []byte("00000000000000000000")
