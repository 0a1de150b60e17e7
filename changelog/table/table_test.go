package table_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// lake is a catalog in a directory of the test, and the clock that it sees.
type lake struct {
	t    testing.TB
	dir  string
	cat  *table.Catalog
	hook table.Hook // nil: none
	now  time.Time
	n    int // numbers commits and files

	options table.Options // which catalog
	rest    *restFake     // nil: another kind of catalog
}

func newLake(t testing.TB, kind string) *lake {
	t.Helper()
	l := &lake{t: t, dir: t.TempDir(), now: time.Now()}
	l.at(kind)
	l.cat = l.open(table.Options{})
	return l
}

// newLakeIn is a lake in a directory, with a SQLite catalog.
func newLakeIn(t testing.TB, dir string) *lake {
	t.Helper()
	l := &lake{t: t, dir: dir, now: time.Now()}
	l.at("sqlite")
	l.cat = l.open(table.Options{})
	return l
}

// open opens the lake's catalog once more, as another process would.
func (l *lake) open(o table.Options) *table.Catalog {
	l.t.Helper()
	o.Type, o.Name, o.URI, o.Warehouse, o.Client = l.options.Type, l.options.Name, l.options.URI, l.options.Warehouse, l.options.Client
	o.Now = func() time.Time { return l.now }
	o.Hook = func(ctx context.Context, a table.Attempt, commit func() error) error {
		if l.hook == nil {
			return commit()
		}
		return l.hook(ctx, a, commit)
	}
	c, err := table.Open(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return c
}

func (l *lake) create(name string, s *changelog.Schema) *table.Table {
	l.t.Helper()
	t, err := l.cat.Create(l.t.Context(), name, s, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return t
}

func (l *lake) load(t *table.Table) *table.Table {
	l.t.Helper()
	now, err := t.Reload(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return now
}

// users is the schema of most tests: a key, a string, and nested columns in the middle, whose ids the library would give
// in another order.
func users(t testing.TB) *changelog.Schema {
	t.Helper()
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
		{Name: "tags", Type: changelog.MapOf(changelog.Primitive(changelog.String), changelog.ListOf(changelog.Primitive(changelog.Int)))},
		{Name: "name", Type: changelog.Primitive(changelog.String), Doc: "what they are called"},
		{Name: "amount", Type: changelog.DecimalOf(12, 3)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// row is a row of users.
type row struct {
	id   int64
	name string
}

func (r row) values(s *changelog.Schema) []changelog.Value {
	v := make([]changelog.Value, len(s.Columns))
	for i := range v {
		v[i] = changelog.NullValue
	}
	v[s.Ordinal("id")] = changelog.Value{I: r.id}
	v[s.Ordinal("name")] = changelog.Value{B: []byte(r.name)}
	v[s.Ordinal("amount")] = changelog.Value{B: []byte{byte(r.id)}}
	return v
}

// file writes rows to a store under a name of the given type; offsets of change files count from first.
func (l *lake) file(st *table.Store, s *changelog.Schema, typ mixed.FileType, txn, first int64, rows ...row) table.NewFile {
	l.t.Helper()
	l.n++
	path := st.DataPath(mixed.FileName{Type: typ, Txn: txn, Op: table.NewOp(), Count: l.n}.String())
	out, err := l.cat.FS().Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	offset := typ != mixed.Base
	w, err := datafile.NewWriter(out, s, offset, datafile.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	for i, r := range rows {
		if err := w.WriteValues(r.values(s), first+int64(i)); err != nil {
			l.t.Fatal(err)
		}
	}
	written, err := w.Close()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		l.t.Fatal(err)
	}
	return table.NewFile{Path: path, Schema: s, Offset: offset, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
}

// deletes writes position deletes of rows of base files.
func (l *lake) deletes(st *table.Store, txn int64, deletes ...datafile.PosDelete) table.NewFile {
	l.t.Helper()
	l.n++
	path := st.DataPath(mixed.FileName{Type: mixed.PositionDelete, Txn: txn, Op: table.NewOp(), Count: l.n}.String())
	out, err := l.cat.FS().Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	written, err := datafile.WritePositionDeletes(out, deletes, datafile.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		l.t.Fatal(err)
	}
	f := table.NewFile{Path: path, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata, Referenced: deletes[0].Path}
	if deletes[len(deletes)-1].Path != f.Referenced {
		f.Referenced = ""
	}
	return f
}

// commit is the next flush of the test: its id says which.
func (l *lake) commit(epoch changelog.Epoch, from, to changelog.SeqNum, add ...table.NewFile) table.Commit {
	l.n++
	return table.Commit{
		FlushMark: table.FlushMark{
			CommitID: "commit-" + strconv.Itoa(l.n), Writer: "writer-1", Epoch: epoch, From: from, To: to,
			Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "t", Partition: 3}, Next: int64(to) + 10}},
		},
		Add: add,
	}
}

func (l *lake) append(t *table.Table, c table.Commit) table.Snapshot {
	l.t.Helper()
	snap, err := t.AppendChanges(l.t.Context(), c)
	if err != nil {
		l.t.Fatal(err)
	}
	return snap
}

func (l *lake) base(t *table.Table, c table.BaseCommit) table.Snapshot {
	l.t.Helper()
	l.n++
	if c.ID == "" {
		c.ID = "base-" + strconv.Itoa(l.n)
	}
	snap, err := t.CommitBase(l.t.Context(), c)
	if err != nil {
		l.t.Fatal(err)
	}
	return snap
}

func (l *lake) files(s *table.Store) []table.File {
	l.t.Helper()
	files, err := s.Files(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return files
}

// rows reads a base store: its data files without what its position deletes name.
func (l *lake) rows(s *table.Store, schema *changelog.Schema) map[int64]string {
	l.t.Helper()
	files := l.files(s)
	dead := map[datafile.PosDelete]bool{}
	for _, f := range files {
		if f.Content != table.PositionDeletes {
			continue
		}
		in := l.input(f.Path)
		r, err := datafile.OpenDeletes(in, in.Size(), datafile.Options{})
		if err != nil {
			l.t.Fatal(err)
		}
		if err := r.Each(func(path []byte, pos int64) error {
			dead[datafile.PosDelete{Path: string(path), Pos: pos}] = true
			return nil
		}); err != nil {
			l.t.Fatal(err)
		}
		if err := errors.Join(r.Close(), in.Close()); err != nil {
			l.t.Fatal(err)
		}
	}
	out := map[int64]string{}
	for _, f := range files {
		if f.Content == table.Data {
			l.read(f, schema, func(pos int64, v []changelog.Value) {
				if dead[datafile.PosDelete{Path: f.Path, Pos: pos}] {
					return
				}
				id := v[schema.Ordinal("id")].I
				if _, twice := out[id]; twice {
					l.t.Fatalf("row %d is there twice", id)
				}
				out[id] = string(v[schema.Ordinal("name")].B)
			})
		}
	}
	return out
}

func (l *lake) input(path string) *table.Input {
	l.t.Helper()
	in, err := l.cat.FS().Open(path)
	if err != nil {
		l.t.Fatal(err)
	}
	return in
}

func (l *lake) read(f table.File, schema *changelog.Schema, each func(pos int64, v []changelog.Value)) {
	l.t.Helper()
	in := l.input(f.Path)
	r, err := datafile.Open(in, in.Size(), schema, false, datafile.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	rows := datafile.NewRows(schema)
	for b, err := range r.Batches(l.t.Context()) {
		if err != nil {
			l.t.Fatal(err)
		}
		if err := rows.Reset(b); err != nil {
			l.t.Fatal(err)
		}
		for i := range rows.Len() {
			each(b.First+int64(i), rows.Values(i))
		}
	}
	if err := errors.Join(r.Close(), in.Close()); err != nil {
		l.t.Fatal(err)
	}
}

// onDisk returns the files of the warehouse, without metadata JSON.
func (l *lake) onDisk() []string {
	l.t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(l.dir, "warehouse"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".metadata.json") {
			out = append(out, "file://"+path)
		}
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func testCreate(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	if tbl.Name() != "db.users" || !tbl.Keyed() || tbl.Change().Name() != "db.users_change_" {
		t.Fatalf("created %s with change store %s", tbl.Name(), tbl.Change().Name())
	}
	sameSchemas(t, tbl.Schemas(), changelog.Schemas{s})
	base, change := tbl.Base().Properties(), tbl.Change().Properties()
	for k, v := range map[string]string{
		"table-format": "MIXED_ICEBERG", "mixed-format.table-store": "base", "mixed-format.primary-key-fields": "id",
		"mixed-format.change.identifier": "db.users_change_", "write.metadata.delete-after-commit.enabled": "true",
	} {
		if base[k] != v {
			t.Errorf("base property %s is %q", k, base[k])
		}
	}
	if change["mixed-format.table-store"] != "change" || change["mixed-format.primary-key-fields"] != "id" ||
		base["table.create-timestamp"] == "" || base["format-version"] != "" {
		t.Errorf("base %v, change %v", base, change)
	}
	if names, err := l.cat.List(t.Context()); err != nil || !slices.Equal(names, []string{"db.users"}) {
		t.Errorf("listed %v, %v", names, err)
	}
	if _, err := l.cat.Create(t.Context(), "db.users", s, nil); !errors.Is(err, table.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := l.cat.Load(t.Context(), "db.none"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("loaded what is not there: %v", err)
	}
	if _, err := l.cat.Load(t.Context(), "db.users_change_"); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("loaded a change store as a table: %v", err)
	}
	if err := l.cat.Drop(t.Context(), "db.users", true); err != nil {
		t.Fatal(err)
	}
	if names, err := l.cat.List(t.Context()); err != nil || len(names) != 0 || len(l.onDisk()) != 0 {
		t.Errorf("dropped: %v, %v", names, err)
	}
}

// sameSchemas compares everything that files and commits depend on, nested field ids included.
func sameSchemas(t *testing.T, got, want changelog.Schemas) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d schemas, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := fmt.Sprintf("%+v", flat(got[i].Columns)), fmt.Sprintf("%+v", flat(want[i].Columns))
		if g != w || got[i].ID != want[i].ID || !slices.Equal(got[i].Key, want[i].Key) || got[i].LastID != want[i].LastID {
			t.Errorf("schema %d:\ngot  %s key %v last %d\nwant %s key %v last %d", i, g, got[i].Key, got[i].LastID, w, want[i].Key, want[i].LastID)
		}
	}
}

func flat(columns []changelog.Column) (out []string) {
	for _, c := range columns {
		out = append(out, fmt.Sprintf("%d %s %s %v %s", c.ID, c.Name, c.Type, c.Required, c.Doc))
		out = append(out, flat(c.Type.Fields)...)
	}
	return out
}

func testCreateRefuses(t *testing.T, kind string) {
	l := newLake(t, kind)
	key := func(name string, k changelog.Kind) *changelog.Schema {
		s, err := changelog.NewSchema([]changelog.Column{{Name: name, Type: changelog.Primitive(k)}}, []string{name})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	later, err := users(t).Evolve([]changelog.Column{{Name: "x", Type: changelog.Primitive(changelog.Int)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*changelog.Schema{
		"nodot": users(t), "a.b.c": users(t), ".t": users(t), "db.": users(t), "db.a/b": users(t),
		"db.uuid": key("id", changelog.UUID), "db.binary": key("id", changelog.Binary), "db.comma": key("a,b", changelog.Long),
		"db.later": later,
	} {
		if _, err := l.cat.Create(t.Context(), name, s, nil); !errors.Is(err, table.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCreateRollsBack: a base store without its change store does not stay.
func testCreateRollsBack(t *testing.T, kind string) {
	l := newLake(t, kind)
	plain, err := changelog.NewSchema([]changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Long)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.create("db.t_change_", plain) // takes the name
	if _, err := l.cat.Create(t.Context(), "db.t", users(t), nil); !errors.Is(err, table.ErrExists) {
		t.Fatalf("got %v", err)
	}
	if _, err := l.cat.Load(t.Context(), "db.t"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("base store is still there: %v", err)
	}
}

// TestFlush: change files of a commit, their names' meaning, offsets, sequence numbers and the mark.
func testFlush(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	if _, ok, err := tbl.LastCommit(); ok || err != nil {
		t.Fatalf("mark of a new table: %v", err)
	}
	for n := range int64(3) {
		c := l.commit(0, changelog.SeqNum(10*n), changelog.SeqNum(10*n+10),
			l.file(tbl.Change(), s, mixed.Insert, 0, 10*n+1, row{n, "a"}, row{n + 100, "b"}),
			l.file(tbl.Change(), s, mixed.Delete, 0, 10*n+3, row{n, "a"}))
		c.Summary = map[string]string{"mine": "yes"}
		snap := l.append(tbl, c)
		if snap.Sequence != n+1 || snap.Operation != "append" || snap.Summary["mine"] != "yes" || snap.Summary["snapshot.producer"] != "" ||
			snap.Summary["firn.commit-id"] != c.CommitID || snap.Summary["firn.seq-to"] != fmt.Sprint(c.To) ||
			snap.Summary["total-data-files"] != fmt.Sprint(2*n+2) || snap.Summary["total-records"] != fmt.Sprint(3*n+3) {
			t.Fatalf("snapshot %+v", snap)
		}
		mark, ok, err := l.load(tbl).LastCommit()
		if err != nil || !ok || fmt.Sprintf("%+v", mark) != fmt.Sprintf("%+v", c.FlushMark) {
			t.Fatalf("mark %+v, want %+v, %v", mark, c.FlushMark, err)
		}
	}
	now := l.load(tbl)
	files := l.files(now.Change())
	if len(files) != 6 || now.Base().Snapshot() != nil {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		n := f.DataSequence
		if f.Content != table.Data || f.Info.Txn != n || f.Info.Node != (mixed.TreeNode{}) || f.Partition != "" || now.Merged(f) {
			t.Errorf("file %+v", f)
		}
		first := 10*(n-1) + 1
		if f.Info.Type == mixed.Delete {
			first += 2
		}
		if f.FirstOffset != first || f.LastOffset != first+f.Records-1 {
			t.Errorf("%s: offsets %d to %d, want %d", f.Path, f.FirstOffset, f.LastOffset, first)
		}
	}
	if got, err := now.Change().FilesAt(t.Context(), now.Change().Snapshots()[0].ID); err != nil || len(got) != 2 {
		t.Errorf("%d files in the first snapshot, %v", len(got), err)
	}
	// A mark alone: no snapshot.
	c := l.commit(0, 30, 40)
	if snap := l.append(tbl, c); snap.Sequence != 3+l.extra() {
		t.Errorf("snapshot %+v of a commit without files", snap)
	}
	if mark, _, err := l.load(tbl).LastCommit(); err != nil || mark.To != 40 {
		t.Errorf("mark %+v, %v", mark, err)
	}
}

// merged brings the table to: rows 1 and 3 in base, deleted 2; change files of sequence 1 merged.
func (l *lake) merged(tbl *table.Table, s *changelog.Schema) (first, second table.Snapshot) {
	l.t.Helper()
	l.append(tbl, l.commit(0, 0, 3, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}, row{2, "b"}, row{3, "c"})))
	data := l.file(tbl.Base(), s, mixed.Base, 1, 0, row{1, "a"}, row{2, "b"}, row{3, "c"})
	first = l.base(tbl, table.BaseCommit{Add: []table.NewFile{data}, Optimized: map[string]int64{"": 1}, Expect: table.ExpectNone})
	l.append(tbl, l.commit(0, 3, 4, l.file(tbl.Change(), s, mixed.Delete, 0, 4, row{2, "b"})))
	pd := l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path, Pos: 1})
	second = l.base(tbl, table.BaseCommit{AddDeletes: []table.NewFile{pd}, Optimized: map[string]int64{"": 2}, Expect: first.ID})
	return first, second
}

// TestMinor: data, position deletes and optimized sequence land together.
func testMinor(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	first, second := l.merged(tbl, s)
	if first.Operation != "append" || second.Operation != "delete" || second.Parent != first.ID ||
		second.Summary["total-position-deletes"] != "1" || second.Summary["total-delete-files"] != "1" {
		t.Errorf("snapshots %+v and %+v", first, second)
	}
	now := l.load(tbl)
	if got := l.rows(now.Base(), s); !maps.Equal(got, map[int64]string{1: "a", 3: "c"}) {
		t.Errorf("rows %v", got)
	}
	if got := now.Optimized(); !maps.Equal(got, map[string]int64{"": 2}) {
		t.Errorf("optimized %v", got)
	}
	if got := now.Base().Properties()["table.partition-properties"]; got != `{"":{"max-txId":"2"}}` {
		t.Errorf("property %s", got)
	}
	for _, f := range l.files(now.Change()) {
		if !now.Merged(f) {
			t.Errorf("%s is not merged", f.Path)
		}
	}
	// A round whose changes cancel: the sequence alone moves.
	l.append(tbl, l.commit(0, 4, 6, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{9, "x"})))
	if snap := l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 3}}); (snap.ID != second.ID) != (l.extra() == 1) {
		t.Errorf("snapshot %+v", snap)
	}
	if got := l.load(tbl).Optimized()[""]; got != 3 {
		t.Errorf("optimized %d", got)
	}
	if _, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "back", Optimized: map[string]int64{"": 2}}); !table.IsConflict(err) {
		t.Errorf("the sequence went back: %v", err)
	}
	for _, f := range l.files(l.load(tbl).Base()) {
		if f.Content == table.PositionDeletes && (f.Referenced == "" || f.LowerPath != f.Referenced || f.UpperPath != f.Referenced) {
			t.Errorf("position deletes %+v", f)
		}
	}
}

// TestOneCommitOwnFiles: position deletes may name a data file of their own commit.
func testOneCommitOwnFiles(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	data := l.file(tbl.Base(), s, mixed.Base, 1, 0, row{1, "a"}, row{2, "b"})
	pd := l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path, Pos: 0})
	l.base(tbl, table.BaseCommit{Add: []table.NewFile{data}, AddDeletes: []table.NewFile{pd}})
	if got := l.rows(l.load(tbl).Base(), s); !maps.Equal(got, map[int64]string{2: "b"}) {
		t.Errorf("rows %v", got)
	}
	bad := l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path + ".gone", Pos: 0})
	if _, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "bad", AddDeletes: []table.NewFile{bad}}); !table.IsConflict(err) {
		t.Errorf("deletes of a file that is not live: %v", err)
	}
}

// TestMajor: a rewrite keeps rows, carries the planned sequence number, and takes the deletes out.
func testMajor(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	_, planned := l.merged(tbl, s)
	var data, dels []table.File
	for _, f := range l.files(l.load(tbl).Base()) {
		if f.Content == table.Data {
			data = append(data, f)
		} else {
			dels = append(dels, f)
		}
	}
	c := table.BaseCommit{
		ID: "major", Replace: true, Add: []table.NewFile{l.file(tbl.Base(), s, mixed.Base, 1, 0, row{1, "a"}, row{3, "c"})},
		Remove: data, RemoveDeletes: dels, DataSequence: planned.Sequence, Expect: planned.ID,
	}
	snap := l.base(tbl, c)
	if snap.Operation != "replace" || snap.Summary["total-data-files"] != "1" || snap.Summary["total-delete-files"] != "0" ||
		snap.Summary["total-records"] != "2" || snap.Summary["total-position-deletes"] != "0" {
		t.Errorf("snapshot %+v", snap)
	}
	now := l.load(tbl)
	files := l.files(now.Base())
	if len(files) != 1 || files[0].DataSequence != planned.Sequence || now.Optimized()[""] != 2 {
		t.Errorf("files %+v", files)
	}
	if got := l.rows(now.Base(), s); !maps.Equal(got, map[int64]string{1: "a", 3: "c"}) {
		t.Errorf("rows %v", got)
	}
	c.ID = "again"
	if _, err := tbl.CommitBase(t.Context(), c); !table.IsConflict(err) {
		t.Errorf("planned on an old head: %v", err)
	}
	c.Expect = 0
	if _, err := tbl.CommitBase(t.Context(), c); !table.IsConflict(err) {
		t.Errorf("removed files that are gone: %v", err)
	}
	if n := len(l.files(l.load(tbl).Base())); n != 1 {
		t.Errorf("%d files after refused commits", n)
	}
}

// TestExpire: merged change files go, then snapshots, then exactly the files that no snapshot names.
func testExpire(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	pending := l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{7, "new"})
	l.append(tbl, l.commit(0, 4, 5, pending))
	change := l.files(l.load(tbl).Change())
	if _, err := tbl.RemoveChangeFiles(t.Context(), change, 0); !errors.Is(err, table.ErrUnsupported) {
		t.Fatalf("removed a file that is not merged: %v", err)
	}
	now := l.load(tbl)
	merged := slices.DeleteFunc(change, func(f table.File) bool { return !now.Merged(f) })
	snap, err := tbl.RemoveChangeFiles(t.Context(), merged, 0)
	if err != nil || snap.Operation != "delete" || snap.Summary["deleted-data-files"] != "2" || snap.Summary["snapshot.producer"] != "DATA_EXPIRATION" {
		t.Fatalf("%+v, %v", snap, err)
	}
	if again, err := tbl.RemoveChangeFiles(t.Context(), merged, 0); err != nil || again.ID != snap.ID {
		t.Errorf("removed twice: %+v, %v", again, err)
	}
	mark, _, err := l.load(tbl).LastCommit()
	if err != nil {
		t.Fatal(err)
	}
	l.now = l.now.Add(time.Hour)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Change(), 1, 2*time.Hour); err != nil || got.Snapshots != 0 {
		t.Errorf("expired young snapshots: %+v, %v", got, err)
	}
	os.Remove(strings.TrimPrefix(merged[0].Path, "file://")) // gone already: no error
	for _, st := range []*table.Store{tbl.Change(), tbl.Base()} {
		got, err := tbl.ExpireSnapshots(t.Context(), st, 1, time.Minute)
		if err != nil || got.Snapshots == 0 || got.Files == 0 {
			t.Fatalf("%s: %+v, %v", st.Kind(), got, err)
		}
	}
	now = l.load(tbl)
	l.exactlyNamed(now)
	if after, ok, err := now.LastCommit(); err != nil || !ok || after.CommitID != mark.CommitID {
		t.Errorf("mark %+v after expiry, was %+v, %v", after, mark, err)
	}
	if files := l.files(now.Change()); len(files) != 1 || files[0].Path != pending.Path {
		t.Errorf("change files %+v", files)
	}
	if got := l.rows(now.Base(), s); !maps.Equal(got, map[int64]string{1: "a", 3: "c"}) {
		t.Errorf("rows %v", got)
	}
}

// exactlyNamed checks that the files on disk are those that the kept snapshots name.
func (l *lake) exactlyNamed(t *table.Table) {
	l.t.Helper()
	named := map[string]bool{}
	for _, s := range []*table.Store{t.Base(), t.Change()} {
		for _, snap := range s.Snapshots() {
			files, err := s.FilesAt(l.t.Context(), snap.ID)
			if err != nil {
				l.t.Fatal(err)
			}
			for _, f := range files {
				named[f.Path] = true
			}
		}
	}
	for _, path := range l.onDisk() {
		if strings.Contains(path, "/data/") && !named[path] {
			l.t.Errorf("%s is still there", path)
		}
		delete(named, path)
	}
	for path := range named {
		l.t.Errorf("%s is gone", path)
	}
}

// TestExpireKeepsSharedFiles: an expired snapshot's files that a kept one still names stay.
func testExpireKeepsSharedFiles(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	for n := range int64(6) {
		l.append(tbl, l.commit(0, changelog.SeqNum(n), changelog.SeqNum(n+1), l.file(tbl.Change(), s, mixed.Insert, 0, n+1, row{n, "x"})))
	}
	l.now = l.now.Add(time.Minute)
	got, err := tbl.ExpireSnapshots(t.Context(), tbl.Change(), 2, 0)
	if err != nil || got.Snapshots != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	now := l.load(tbl)
	if n := len(l.files(now.Change())); n != 6 || len(now.Change().Snapshots()) != 2 {
		t.Errorf("%d files", n)
	}
	l.exactlyNamed(now)
}

func (l *lake) metadataFiles() int {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.dir, "warehouse", "*", "*", "metadata", "*.metadata.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	return len(files)
}

// TestOrphans: what nothing names goes once it is old, and nothing else.
func testOrphans(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	lost := l.file(tbl.Change(), s, mixed.Insert, 0, 9, row{9, "never committed"})
	l.hook = func(context.Context, table.Attempt, func() error) error { return errLost }
	if _, err := tbl.AppendChanges(t.Context(), l.commit(0, 8, 9, lost)); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	l.hook = nil
	other := strings.TrimPrefix(tbl.Base().DataPath("notes.txt"), "file://")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := l.cat.FS().Create(tbl.Base().DataPath("half.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	if got, err := tbl.RemoveOrphans(t.Context(), time.Hour); err != nil || got.Files != 0 {
		t.Fatalf("removed young files: %+v, %v", got, err)
	}
	if _, err := tbl.RemoveOrphans(t.Context(), time.Minute); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	before, metadata := l.rows(l.load(tbl).Base(), s), l.metadataFiles()
	l.now = l.now.Add(2 * time.Hour)
	// The data file, manifest and list of the snapshot that it was to be in, and the half one.
	if got, err := tbl.RemoveOrphans(t.Context(), time.Hour); err != nil || got.Files != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("somebody else's file: %v", err)
	}
	os.Remove(other)
	if n := l.metadataFiles(); n != metadata { // the hook let none be written: all are in a log
		t.Errorf("%d metadata files of %d", n, metadata)
	}
	l.exactlyNamed(l.load(tbl))
	if got := l.rows(l.load(tbl).Base(), s); !maps.Equal(got, before) {
		t.Errorf("rows %v", got)
	}
	if got, err := tbl.RemoveOrphans(t.Context(), time.Hour); err != nil || got.Files != 0 {
		t.Errorf("again: %+v, %v", got, err)
	}
}

// TestEvolve: columns added and widened, base first, ids ours; old files read in the new schema.
func testEvolve(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	s1, err := s.Evolve([]changelog.Column{{Name: "addr", Type: &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{
		{Name: "city", Type: changelog.Primitive(changelog.String)}, {Name: "zip", Type: changelog.Primitive(changelog.Int)},
	}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s2, err := s1.Evolve(nil, map[string]*changelog.Type{"amount": changelog.DecimalOf(20, 3)})
	if err != nil {
		t.Fatal(err)
	}
	history := changelog.Schemas{s, s1, s2}
	for range 2 { // the second time nothing is left to do
		if err := l.load(tbl).SyncSchemas(t.Context(), history); err != nil {
			t.Fatal(err)
		}
	}
	now := l.load(tbl)
	sameSchemas(t, now.Schemas(), history)
	l.append(now, l.commit(0, 4, 5, l.file(now.Change(), s2, mixed.Insert, 0, 5, row{5, "e"})))
	l.base(now, table.BaseCommit{Add: []table.NewFile{l.file(now.Base(), s2, mixed.Base, 3, 0, row{5, "e"})}, Optimized: map[string]int64{"": 3}})
	if got := l.rows(l.load(tbl).Base(), s2); !maps.Equal(got, map[int64]string{1: "a", 3: "c", 5: "e"}) {
		t.Errorf("rows %v", got)
	}
	other, err := s1.Evolve([]changelog.Column{{Name: "else", Type: changelog.Primitive(changelog.Int)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := now.SyncSchemas(t.Context(), changelog.Schemas{s, s1, other}); !errors.Is(err, table.ErrUnsupported) {
		t.Errorf("another schema 2: %v", err)
	}
}

// TestFence (P3): a claimed epoch ends the commits of older ones, also one that is on its way.
func testFence(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	first, err := tbl.ClaimEpoch(t.Context(), "writer-1", 0)
	if err != nil || first != 1 {
		t.Fatalf("epoch %d, %v", first, err)
	}
	l.append(tbl, l.commit(first, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})))

	// The second writer claims while the first one's commit is between its look at the table and the catalog.
	other := l.open(table.Options{})
	var second changelog.Epoch
	raced := false
	l.hook = func(ctx context.Context, a table.Attempt, commit func() error) error {
		if a.ID != "" && !raced {
			raced = true
			mine, err := other.Load(ctx, "db.users")
			if err != nil {
				t.Fatal(err)
			}
			if second, err = mine.ClaimEpoch(ctx, "writer-2", 0); err != nil {
				t.Fatal(err)
			}
		}
		return commit()
	}
	late := l.commit(first, 1, 2, l.file(tbl.Change(), s, mixed.Insert, 0, 2, row{2, "late"}))
	if _, err := tbl.AppendChanges(t.Context(), late); !errors.Is(err, table.ErrFenced) {
		t.Fatalf("commit across a claim: %v", err)
	}
	l.hook = nil
	if !raced || second != 2 {
		t.Fatalf("raced %v, epoch %d", raced, second)
	}
	if _, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "b", Epoch: first, Optimized: map[string]int64{"": 1}}); !errors.Is(err, table.ErrFenced) {
		t.Errorf("base commit of the old epoch: %v", err)
	}
	if _, err := tbl.RemoveChangeFiles(t.Context(), nil, first); !errors.Is(err, table.ErrFenced) {
		t.Errorf("removal under the old epoch: %v", err)
	}
	next, err := s.Evolve([]changelog.Column{{Name: "late", Type: changelog.Primitive(changelog.Int)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tbl.SyncSchemasUnder(t.Context(), changelog.Schemas{s, next}, first); !errors.Is(err, table.ErrFenced) {
		t.Errorf("schema of the old epoch: %v", err)
	}
	now := l.load(tbl)
	if n := len(l.files(now.Change())); n != 1 {
		t.Errorf("%d files: the fenced commit is in the table", n)
	}
	if e, err := now.Epoch(); err != nil || e != second {
		t.Errorf("epoch %d, %v", e, err)
	}
	l.append(tbl, l.commit(second, 1, 2, l.file(tbl.Change(), s, mixed.Insert, 0, 2, row{2, "b"})))
	if third, err := tbl.ClaimEpoch(t.Context(), "writer-3", 40); err != nil || third != 40 {
		t.Errorf("epoch %d, %v", third, err)
	}
}

var errLost = errors.New("connection lost")

// TestUnknownOutcome (P2): a commit that landed and whose answer was lost is found, not repeated; one that did not land is
// an error, and is committed when it is sent again.
func testUnknownOutcome(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.hook = func(_ context.Context, _ table.Attempt, commit func() error) error {
		return errors.Join(errLost, commit())
	}
	c := l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}))
	snap, err := tbl.AppendChanges(t.Context(), c)
	if err != nil || snap.Sequence != 1 {
		t.Fatalf("landed without an answer: %+v, %v", snap, err)
	}
	l.hook = nil
	if again := l.append(tbl, c); again.ID != snap.ID {
		t.Errorf("sent again: %+v, not %+v", again, snap)
	}
	b := table.BaseCommit{ID: "base", Optimized: map[string]int64{"": 1}}
	l.hook = func(_ context.Context, _ table.Attempt, commit func() error) error {
		return errors.Join(errLost, commit())
	}
	if _, err := tbl.CommitBase(t.Context(), b); err != nil {
		t.Errorf("base commit without a snapshot: %v", err)
	}

	l.hook = func(context.Context, table.Attempt, func() error) error { return errLost }
	d := l.commit(0, 1, 2, l.file(tbl.Change(), s, mixed.Insert, 0, 2, row{2, "b"}))
	if _, err := tbl.AppendChanges(t.Context(), d); !errors.Is(err, errLost) {
		t.Errorf("never sent: %v", err)
	} else if remote := l.options.Type != ""; errors.Is(err, table.ErrUnknownOutcome) != remote {
		t.Errorf("never sent, as far as can be known: %v", err) // over a network it may still come
	}
	l.hook = nil
	if n := len(l.files(l.load(tbl).Change())); n != 1 {
		t.Errorf("%d files", n)
	}
	if snap := l.append(tbl, d); snap.Sequence != 2 {
		t.Errorf("sent again: %+v", snap)
	}
	if n := len(l.files(l.load(tbl).Change())); n != 2 {
		t.Errorf("%d files", n)
	}
	// Long after its snapshot has expired, the newest flush is still found by the mark.
	l.now = l.now.Add(time.Hour)
	if _, err := tbl.ExpireSnapshots(t.Context(), tbl.Change(), 1, 0); err != nil {
		t.Fatal(err)
	}
	l.now = l.now.Add(-time.Hour)
	l.append(tbl, l.commit(0, 2, 2))
	last, _, err := l.load(tbl).LastCommit()
	if err != nil {
		t.Fatal(err)
	}
	l.append(tbl, table.Commit{FlushMark: last, Add: []table.NewFile{l.file(tbl.Change(), s, mixed.Insert, 0, 3, row{3, "c"})}})
	if n := len(l.files(l.load(tbl).Change())); n != 2 {
		t.Errorf("%d files: a commit that was there is there twice", n)
	}
}

// TestUnknownStays (P2): where even the look at the table fails, the outcome is unknown, nothing is removed, and the same commit
// sent again finds what it became.
func testUnknownStays(t *testing.T, kind string) {
	if kind == "rest-server" {
		t.Skip("a server outside of the test cannot be cut off")
	}
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	c := l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}))
	other := l.open(table.Options{})
	mine, err := other.Load(t.Context(), "db.users")
	if err != nil {
		t.Fatal(err)
	}
	l.hook = func(_ context.Context, _ table.Attempt, commit func() error) error {
		if l.rest != nil {
			defer l.rest.down.Store(true)
		}
		return errors.Join(errLost, commit(), other.Close()) // the catalog is out of reach from here on
	}
	if _, err = mine.AppendChanges(t.Context(), c); !errors.Is(err, table.ErrUnknownOutcome) || !errors.Is(err, errLost) {
		t.Errorf("got %v", err)
	}
	l.hook = nil
	if l.rest != nil {
		l.rest.down.Store(false)
	}
	if got := l.rows(l.load(tbl).Change(), s); len(got) != 1 {
		t.Fatalf("rows %v", got)
	}
	if again := l.append(tbl, c); again.Sequence != 1 {
		t.Errorf("sent again: %+v", again)
	}
	if n := len(l.files(l.load(tbl).Change())); n != 1 {
		t.Errorf("%d files", n)
	}
}

// TestRace: writers of two processes append side by side; every commit lands once.
func testRace(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	other, err := l.open(table.Options{}).Load(t.Context(), "db.users")
	if err != nil {
		t.Fatal(err)
	}
	const each = 8
	var commits [2][each]table.Commit
	for w := range commits {
		for i := range each {
			commits[w][i] = l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{int64(100*w + i), "x"}))
		}
	}
	errs := make(chan error, 2*each)
	for w, mine := range []*table.Table{tbl, other} {
		go func() {
			for i := range each {
				_, err := mine.AppendChanges(context.Background(), commits[w][i])
				errs <- err
			}
		}()
	}
	for range 2 * each {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	now := l.load(tbl)
	if n := len(l.files(now.Change())); n != 2*each || now.Change().Snapshot().Sequence != 2*each {
		t.Errorf("%d files, %+v", n, now.Change().Snapshot())
	}
}

// TestManifestsStayFew: commits merge manifests past the limit, and RewriteManifests does at once.
func testManifestsStayFew(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	l.cat = l.open(table.Options{ManifestsMax: 4})
	tbl := l.create("db.users", s)
	data := l.file(tbl.Base(), s, mixed.Base, 1, 0, make([]row, 20)...)
	l.base(tbl, table.BaseCommit{Add: []table.NewFile{data}})
	for n := range int64(20) {
		l.base(tbl, table.BaseCommit{
			Add:        []table.NewFile{l.file(tbl.Base(), s, mixed.Base, 1, 0, row{n + 1, "x"})},
			AddDeletes: []table.NewFile{l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path, Pos: n})},
		})
		l.now = l.now.Add(time.Second)
	}
	manifests := func() int {
		n := 0
		for _, path := range l.onDisk() {
			if strings.Contains(path, "-m") && strings.HasSuffix(path, ".avro") {
				n++
			}
		}
		return n
	}
	if _, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil {
		t.Fatal(err)
	}
	if n := manifests(); n > 2*5 {
		t.Errorf("%d manifests", n)
	}
	if err := l.load(tbl).RewriteManifests(t.Context(), l.load(tbl).Base(), 2); err != nil {
		t.Fatal(err)
	}
	now := l.load(tbl)
	if sn := now.Base().Snapshot(); sn.Operation != "replace" || sn.Summary["snapshot.producer"] != "OPTIMIZE" {
		t.Errorf("snapshot %+v", sn)
	}
	l.now = l.now.Add(time.Second)
	if _, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil {
		t.Fatal(err)
	}
	if n := manifests(); n != 2 {
		t.Errorf("%d manifests", n)
	}
	if got := l.rows(l.load(tbl).Base(), s); len(got) != 20 {
		t.Errorf("%d rows", len(got))
	}
}

// TestUnkeyed: flushes of a table without a key go to the base store.
func testUnkeyed(t *testing.T, kind string) {
	l := newLake(t, kind)
	s, err := changelog.NewSchema(users(t).Columns, nil)
	if err != nil {
		t.Fatal(err)
	}
	tbl := l.create("db.events", s)
	if tbl.Keyed() || tbl.Change() != nil {
		t.Fatal("has a change store")
	}
	c := l.commit(0, 0, 2, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{1, "a"}, row{2, "b"}))
	l.append(tbl, c)
	now := l.load(tbl)
	if mark, ok, err := now.LastCommit(); err != nil || !ok || mark.To != 2 {
		t.Errorf("mark %+v, %v", mark, err)
	}
	if got := l.rows(now.Base(), s); len(got) != 2 {
		t.Errorf("rows %v", got)
	}
}

// TestMetadataFilesStayFew: old metadata files go with the commits.
func testMetadataFilesStayFew(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	for n := range 40 {
		if err := tbl.SetProperties(t.Context(), map[string]string{"x": strconv.Itoa(n)}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(strings.TrimPrefix(tbl.Base().Location(), "file://") + "/metadata/*.metadata.json")
	if err != nil || len(files) < 2 || len(files) > 21 && l.options.Type != table.TypeREST { // there they are the server's
		t.Errorf("%d metadata files, %v", len(files), err)
	}
	if got := l.load(tbl).Change().Properties()["x"]; got != "39" {
		t.Errorf("property %q", got)
	}
}

// TestWrongRows: a footer that does not fit what the caller says is not committed.
func testWrongRows(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	f := l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})
	f.Rows++
	if _, err := tbl.AppendChanges(t.Context(), l.commit(0, 0, 1, f)); !errors.Is(err, table.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
