package table_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// partedTable drives one partitioned table of the columns id, name and c.
type partedTable struct {
	*lake
	tbl    *table.Table
	schema *changelog.Schema
	of     *table.Partitioner
	rows   map[int64][]changelog.Value
	at     map[int64]datafile.PosDelete
	seq    changelog.SeqNum
	ids    int64
}

// specials are strings that paths have to escape, or that look like something else.
func specials() (values []changelog.Value) {
	for _, s := range []string{
		"", "a", "two words", "50%", "%2F", "a/b", "a\\b", "\"quoted\"", "it's", "x=y&z", "Zürich", "日本語", "😀 smile", "~*_.-", "..", "NULL", "a+b", "#?;:",
	} {
		values = append(values, changelog.Value{B: []byte(s)})
	}
	return values
}

func ints(values ...int64) (out []changelog.Value) {
	for _, v := range values {
		out = append(out, changelog.Value{I: v})
	}
	return out
}

func decimals(values ...int64) (out []changelog.Value) {
	for _, v := range values {
		b := []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
		out = append(out, changelog.Value{B: changelog.ShortestInt(b)})
	}
	return out
}

// partitionings are all transforms of all types that they take, with values; "c" is the column.
func partitionings() map[string]struct {
	typ    *changelog.Type
	terms  []string
	values []changelog.Value
} {
	type partitioning = struct {
		typ    *changelog.Type
		terms  []string
		values []changelog.Value
	}
	days := ints(-719162, -1, 0, 1, 19000, 2932896)
	micros := ints(-62135596800000000, -1, 0, 3_599_999_999, 1_700_000_000_000_000, 253402300799999999)
	uuids := []changelog.Value{{B: []byte("0123456789abcdef")}, {B: []byte("\xff\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e")}}
	p := changelog.Primitive
	return map[string]partitioning{
		"string":      {p(changelog.String), []string{"c", "bucket(5, c)", "truncate(1, c)", "truncate(3, c)"}, specials()},
		"int":         {p(changelog.Int), []string{"c", "bucket(5, c)", "truncate(10, c)"}, ints(-2147483640, -11, -10, -1, 0, 1, 9, 10, 2147483647)},
		"long":        {p(changelog.Long), []string{"c", "bucket(5, c)", "truncate(10, c)"}, ints(-1<<62, -11, -1, 0, 9, 1<<62)},
		"boolean":     {p(changelog.Boolean), []string{"c"}, ints(0, 1)},
		"decimal":     {changelog.DecimalOf(9, 2), []string{"c", "bucket(5, c)", "truncate(50, c)"}, decimals(-12345, -1, 0, 1, 49, 50, 999_999_99)},
		"small":       {changelog.DecimalOf(9, 8), []string{"c", "truncate(3, c)"}, decimals(-1, 0, 1, 7, 123)},
		"date":        {p(changelog.Date), []string{"c", "bucket(5, c)", "month(c)", "day(c)"}, days},
		"time":        {p(changelog.Time), []string{"bucket(5, c)"}, ints(0, 1, 86_399_999_999)},
		"timestamp":   {p(changelog.Timestamp), []string{"bucket(5, c)", "month(c)", "day(c)", "hour(c)"}, micros},
		"timestamptz": {p(changelog.TimestampTZ), []string{"bucket(5, c)", "month(c)", "day(c)", "hour(c)"}, micros},
		"uuid":        {p(changelog.UUID), []string{"bucket(5, c)"}, uuids},
		"fixed":       {&changelog.Type{Kind: changelog.Fixed, Length: 16}, []string{"bucket(5, c)"}, uuids},
		"binary":      {p(changelog.Binary), []string{"bucket(5, c)"}, uuids},
	}
}

// TestPartitions drives a table of each partitioning through flushes, position deletes, a rewrite, a merge of manifests and
// expiry: files keep their partitions, and the rows are right. With FIRN_LAKE_DIR it leaves the tables and their rows (id and name)
// there for other readers: NAME.base.jsonl.
func TestPartitions(t *testing.T) {
	dir := os.Getenv("FIRN_LAKE_DIR")
	keep := dir != ""
	if !keep {
		dir = t.TempDir()
		if memory, err := os.MkdirTemp("/dev/shm", "firn-table-*"); err == nil { //nolint:usetesting // memory, where there is some
			dir = memory
			t.Cleanup(func() { _ = os.RemoveAll(memory) })
		}
	}
	l := newLakeIn(t, dir)
	all := partitionings()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for i, term := range all[name].terms {
			p := l.parted(t, fmt.Sprintf("db.part_%s_%d", name, i), []string{"id"}, all[name].typ, term)
			p.life(append(all[name].values, changelog.NullValue))
			if keep {
				p.leave(fmt.Sprintf("part_%s_%d", name, i))
			}
		}
		if name == "fixed" || name == "binary" || name == "small" {
			continue // as uuid and decimal, for tables without a key
		}
		for i, terms := range keylessTerms(all[name].typ, all[name].terms) {
			p := l.parted(t, fmt.Sprintf("db.bag_%s_%d", name, i), nil, all[name].typ, terms...)
			p.life(append(all[name].values, changelog.NullValue))
			if keep {
				p.leave(fmt.Sprintf("bag_%s_%d", name, i))
			}
		}
	}
}

// keylessTerms are specs that only tables without a key may have: of several fields of a column, by time no more than one, and by year.
func keylessTerms(typ *changelog.Type, terms []string) (specs [][]string) {
	all := []string{}
	for _, s := range terms {
		hourly := slices.Contains(terms, "hour(c)")
		switch {
		case s == "month(c)", s == "day(c)" && hourly, s == "truncate(3, c)" && len(terms) > 2, s == "c" && typ.Kind == changelog.Decimal:
		default:
			all = append(all, s)
		}
	}
	specs = [][]string{all}
	if typ.Kind == changelog.Date || typ.Kind == changelog.Timestamp || typ.Kind == changelog.TimestampTZ {
		specs = append(specs, []string{"year(c)"})
	}
	return specs
}

func (l *lake) parted(t *testing.T, name string, key []string, typ *changelog.Type, terms ...string) *partedTable {
	t.Helper()
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)}, {Name: "name", Type: changelog.Primitive(changelog.String)}, {Name: "c", Type: typ},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := changelog.ParsePartition(terms)
	if err != nil {
		t.Fatal(err)
	}
	tbl, err := l.cat.CreatePartitioned(t.Context(), name, schema, spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	of, err := tbl.Partitioner(schema)
	if err != nil {
		t.Fatal(err)
	}
	return &partedTable{lake: l, tbl: tbl, schema: schema, of: of, rows: map[int64][]changelog.Value{}, at: map[int64]datafile.PosDelete{}}
}

func (p *partedTable) life(values []changelog.Value) {
	p.t.Helper()
	p.change(values, "first")
	p.change(values[:len(values)/2+1], "second")
	p.deleteSome()
	p.check()
	p.rewriteOne()
	p.check()
	for _, s := range p.load(p.tbl).Stores() {
		if err := p.tbl.RewriteManifests(p.t.Context(), s, 1); err != nil {
			p.t.Fatal(err)
		}
	}
	p.check()
	p.change(values, "third")
	p.check()
}

// write writes rows to files of their partitions.
func (p *partedTable) write(st *table.Store, typ mixed.FileType, ids []int64) (files []table.NewFile) {
	p.t.Helper()
	byPartition := map[string][]int64{}
	for _, id := range ids {
		path := p.of.Path(p.rows[id])
		byPartition[path] = append(byPartition[path], id)
	}
	for _, partition := range slices.Sorted(maps.Keys(byPartition)) {
		p.n++
		path := st.DataPathIn(partition, mixed.FileName{Type: typ, Txn: 1, Op: table.NewOp(), Count: p.n}.String())
		out, err := p.cat.FS().Create(path)
		if err != nil {
			p.t.Fatal(err)
		}
		w, err := datafile.NewWriter(out, p.schema, typ == mixed.Insert, datafile.Options{})
		if err != nil {
			p.t.Fatal(err)
		}
		for i, id := range byPartition[partition] {
			if err := w.WriteValues(p.rows[id], int64(p.seq)+int64(i)+1); err != nil {
				p.t.Fatal(err)
			}
			if typ == mixed.Base {
				p.at[id] = datafile.PosDelete{Path: path, Pos: int64(i)}
			}
		}
		written, err := w.Close()
		if err == nil {
			err = out.Commit()
		}
		if err != nil {
			p.t.Fatal(err)
		}
		files = append(files, table.NewFile{
			Path: path, Partition: partition, Schema: p.schema, Offset: typ == mixed.Insert, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata,
		})
	}
	return files
}

// change adds a row of each value, by way of the change store if there is one.
func (p *partedTable) change(values []changelog.Value, name string) {
	p.t.Helper()
	var ids []int64
	for _, v := range values {
		p.ids++
		id := p.ids
		p.rows[id] = []changelog.Value{{I: id}, {B: []byte(name)}, v}
		ids = append(ids, id)
	}
	if !p.tbl.Keyed() {
		p.append(p.tbl, p.commit(0, p.seq, p.seq+changelog.SeqNum(len(ids)), p.write(p.tbl.Base(), mixed.Base, ids)...))
		p.seq += changelog.SeqNum(len(ids))
		return
	}
	snap := p.append(p.tbl, p.commit(0, p.seq, p.seq+changelog.SeqNum(len(ids)), p.write(p.tbl.Change(), mixed.Insert, ids)...))
	seqs := map[string]int64{}
	for _, f := range p.files(p.load(p.tbl).Change()) {
		seqs[f.Partition] = snap.Sequence
	}
	add := p.write(p.tbl.Base(), mixed.Base, ids)
	base := p.base(p.tbl, table.BaseCommit{Add: add, Optimized: seqs})
	if got, want := base.Summary["changed-partition-count"], fmt.Sprint(len(add)); got != want {
		p.t.Errorf("%s: %s changed partitions, want %s", p.tbl.Name(), got, want)
	}
	for _, f := range p.files(p.load(p.tbl).Change()) {
		if !p.load(p.tbl).Merged(f) {
			p.t.Errorf("%s: %s is not merged: %v", p.tbl.Name(), f.Path, p.load(p.tbl).Optimized())
		}
	}
	p.seq += changelog.SeqNum(len(ids))
}

// deleteSome deletes every other row: a position-delete file a partition.
func (p *partedTable) deleteSome() {
	p.t.Helper()
	byPartition := map[string][]datafile.PosDelete{}
	for i, id := range slices.Sorted(maps.Keys(p.rows)) {
		if i%2 == 0 {
			path := p.of.Path(p.rows[id])
			byPartition[path] = append(byPartition[path], p.at[id])
			delete(p.rows, id)
		}
	}
	c := table.BaseCommit{}
	for partition, deletes := range byPartition {
		slices.SortFunc(deletes, func(a, b datafile.PosDelete) int { return strings.Compare(a.Path, b.Path)*1000 + int(a.Pos-b.Pos) })
		p.n++
		path := p.tbl.Base().DataPathIn(partition, mixed.FileName{Type: mixed.PositionDelete, Txn: 1, Op: table.NewOp(), Count: p.n}.String())
		out, err := p.cat.FS().Create(path)
		if err != nil {
			p.t.Fatal(err)
		}
		written, err := datafile.WritePositionDeletes(out, deletes, datafile.Options{})
		if err == nil {
			err = out.Commit()
		}
		if err != nil {
			p.t.Fatal(err)
		}
		c.AddDeletes = append(c.AddDeletes, table.NewFile{Path: path, Partition: partition, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata})
	}
	p.base(p.tbl, c)
}

// rewriteOne rewrites the files of the partition of the first row.
func (p *partedTable) rewriteOne() {
	p.t.Helper()
	now := p.load(p.tbl)
	partition := p.of.Path(p.rows[slices.Min(slices.Collect(maps.Keys(p.rows)))])
	c := table.BaseCommit{Replace: true, DataSequence: now.Base().Snapshot().Sequence}
	for _, f := range p.files(now.Base()) {
		switch {
		case f.Partition != partition:
		case f.Content == table.Data:
			c.Remove = append(c.Remove, f)
		default:
			c.RemoveDeletes = append(c.RemoveDeletes, f)
		}
	}
	var ids []int64
	for id, row := range p.rows {
		if p.of.Path(row) == partition {
			ids = append(ids, id)
		}
	}
	c.Add = p.write(p.tbl.Base(), mixed.Base, ids)
	p.base(p.tbl, c)
}

// check holds the base store against the model, and each file of both stores against the rows in it.
func (p *partedTable) check() {
	p.t.Helper()
	now := p.load(p.tbl)
	got := p.lake.rows(now.Base(), p.schema)
	for id, row := range p.rows {
		if got[id] != string(row[1].B) {
			p.t.Fatalf("%s: row %d is %q, want %q", p.tbl.Name(), id, got[id], row[1].B)
		}
	}
	if len(got) != len(p.rows) {
		p.t.Fatalf("%s: %d rows, want %d", p.tbl.Name(), len(got), len(p.rows))
	}
	for _, s := range now.Stores() {
		p.bounds(s)
		for _, f := range p.files(s) {
			if filepath.Dir(f.Path) != filepath.Dir(s.DataPathIn(f.Partition, "x")) {
				p.t.Errorf("%s is of partition %q", f.Path, f.Partition)
			}
			if f.Content == table.Data {
				p.read(f, p.schema, func(_ int64, v []changelog.Value) {
					if at := p.of.Path(v); at != f.Partition {
						p.t.Errorf("%s is of partition %q and has a row of %q", f.Path, f.Partition, at)
					}
				})
			}
		}
	}
}

// bounds: the manifest list tells bounds of the partition values of each manifest that has any, also of empty texts.
func (p *partedTable) bounds(s *table.Store) {
	p.t.Helper()
	text, err := os.ReadFile(strings.TrimPrefix(s.MetadataLocation(), "file://"))
	if err != nil {
		p.t.Fatal(err)
	}
	md, err := ice.ParseMetadataBytes(text)
	if err != nil {
		p.t.Fatal(err)
	}
	list, err := os.Open(strings.TrimPrefix(md.CurrentSnapshot().ManifestList, "file://"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer list.Close()
	manifests, err := iceberg.ReadManifestList(list)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, m := range manifests {
		for _, f := range m.Partitions() {
			if (f.LowerBound == nil || f.UpperBound == nil) && !f.ContainsNull {
				p.t.Errorf("%s: manifest %s has no bounds", p.tbl.Name(), m.FilePath())
			}
			if (f.LowerBound == nil) != (f.UpperBound == nil) {
				p.t.Errorf("%s: manifest %s has one bound", p.tbl.Name(), m.FilePath())
			}
		}
	}
}

func (p *partedTable) leave(name string) {
	p.t.Helper()
	var lines []string
	for id, v := range p.rows {
		lines = append(lines, fmt.Sprintf("{\"id\":%d,\"name\":%q}\n", id, v[1].B))
	}
	slices.Sort(lines)
	if err := os.WriteFile(filepath.Join(p.dir, name+".base.jsonl"), []byte(strings.Join(lines, "")), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// TestCreatePartitioned: both stores get the same spec, ids and all; what Amoro loses rows on is refused with the reason.
func TestCreatePartitioned(t *testing.T) {
	l := newLake(t, "sqlite")
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
		{Name: "at", Type: changelog.Primitive(changelog.Timestamp)},
		{Name: "odd name", Type: changelog.Primitive(changelog.String)},
		{Name: "raw", Type: changelog.Primitive(changelog.Binary)},
		{Name: "price", Type: changelog.DecimalOf(9, 2)},
		{Name: "cost", Type: changelog.DecimalOf(12, 4)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		terms []string
		want  string // in the error; empty: none
	}{
		{[]string{"bucket(16, id)", "day(at)"}, ""},
		{[]string{"year(at)"}, "take month(at)"},
		{[]string{"day(at)", "hour(at)"}, "has a partition field already"},
		{[]string{"odd name"}, "would have to be escaped"},
		{[]string{"raw"}, "do not survive"},
		{[]string{"nope"}, "no top-level column"},
		{[]string{"price", "cost"}, "one field of decimal values"},
		{[]string{"bucket(4, raw)"}, ""},
	} {
		spec, err := changelog.ParsePartition(tc.terms)
		if err != nil {
			t.Fatal(err)
		}
		tbl, err := l.cat.CreatePartitioned(t.Context(), fmt.Sprintf("db.t%d", i), schema, spec, nil)
		if tc.want != "" {
			if !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v: %v, want %q", tc.terms, err, tc.want)
			}
			if _, err := l.cat.Load(t.Context(), fmt.Sprintf("db.t%d", i)); !errors.Is(err, table.ErrNotFound) {
				t.Errorf("%v: a table was made: %v", tc.terms, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := tbl.Partition()
		if err != nil || !got.Equal(spec) || !slices.Equal(got.Strings(), tc.terms) {
			t.Errorf("%v: spec %v, %v", tc.terms, got, err)
		}
	}
	// A table without a key has no optimized sequences, and so not what paths do to them.
	bag, err := changelog.NewSchema(schema.Columns, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		terms []string
		want  string
	}{
		{[]string{"year(at)"}, ""},
		{[]string{"at", "hour(at)"}, "do not survive"},
		{[]string{"bucket(2, at)", "hour(at)"}, ""},
		{[]string{"day(at)", "hour(at)"}, "redundant partition field"},
		{[]string{"odd name"}, ""},
		{[]string{"raw"}, "do not survive"},
		{[]string{"nope"}, "no top-level column"},
		{[]string{"price", "truncate(5, price)"}, "one field of decimal values"},
		{[]string{"price", "bucket(5, price)"}, ""},
	} {
		spec, err := changelog.ParsePartition(tc.terms)
		if err != nil {
			t.Fatal(err)
		}
		tbl, err := l.cat.CreatePartitioned(t.Context(), fmt.Sprintf("db.bag%d", i), bag, spec, nil)
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("without a key, %v: %v, want %q", tc.terms, err, tc.want)
		} else if err == nil {
			if got, err := tbl.Partition(); err != nil || !got.Equal(spec) {
				t.Errorf("without a key, %v: spec %v, %v", tc.terms, got, err)
			}
		}
	}
	// Rows of files name their partition, and one that the spec does not have is refused.
	tbl, err := l.cat.Load(t.Context(), "db.t0")
	if err != nil {
		t.Fatal(err)
	}
	f := l.file(tbl.Change(), schema, mixed.Insert, 0, 1)
	for _, partition := range []string{"", "id_bucket=3", "id_bucket=x/at_day=2026-01-01", "at_day=2026-01-01/id_bucket=3"} {
		f.Partition = partition
		if _, err := tbl.AppendChanges(t.Context(), l.commit(0, 0, 1, f)); !errors.Is(err, table.ErrUnsupported) {
			t.Errorf("partition %q: %v", partition, err)
		}
	}
}
