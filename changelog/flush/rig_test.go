package flush

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"firn/changelog"
	"firn/changelog/merge"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

const tableName = "shop.orders"

var (
	errLost  = errors.New("answer lost")
	errDead  = errors.New("process is dead")
	topicRef = state.TopicRef{Source: "k", Topic: "t"}
)

// node is a data directory with an open store: one process of firn, as far as flushing goes.
type node struct {
	tb     testing.TB
	disk   *vfs.MemFS
	db     *logstore.DB
	reg    *state.Registry
	store  *logstore.Store
	id     changelog.TableID
	closed bool
}

func openNode(tb testing.TB, disk *vfs.MemFS) *node { return openNodeOn(tb, disk, disk) }

// openNodeOn opens a node whose writes to the disk go through fs.
func openNodeOn(tb testing.TB, disk *vfs.MemFS, fs vfs.FS) *node {
	tb.Helper()
	o := logstore.Options{FS: fs, MemoryBytes: 16 << 20, MinFreeBytes: -1, TrimInterval: -1}
	db := must(logstore.OpenDB("data", o))
	reg := must(state.OpenRegistry(db.DB))
	n := &node{tb: tb, disk: disk, db: db, reg: reg, store: must(logstore.Open(db, reg, o))}
	if t, ok := reg.Table(tableName); ok {
		n.id = t.ID
	}
	tb.Cleanup(n.close)
	return n
}

func (n *node) close() {
	if n.closed {
		return
	}
	n.closed = true
	if err := errors.Join(n.store.Close(), n.db.Close()); err != nil {
		n.tb.Error(err)
	}
}

// crash loses power: the node that it returns has only what was synced.
func (n *node) crash() *node {
	n.tb.Helper()
	disk := n.disk.CrashClone(vfs.CrashCloneCfg{})
	n.close()
	return openNode(n.tb, disk)
}

// world is a lake, a source of changes, and a model of what they make.
type world struct {
	tb      testing.TB
	rnd     *rand.Rand
	dir     string
	catalog *table.Catalog
	hook    atomic.Pointer[table.Hook] // of flushes; nil: commits go through
	every   table.Hook                 // of all commits; nil: hook
	schemas changelog.Schemas
	parts   []string // terms of the partition spec
	model   map[int64][]changelog.Value
	bag     bool                // the table has no key, and
	rows    [][]changelog.Value // these are its rows
	offset  int64               // of the source's next record
	records []changelog.Append
}

func newWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := &world{tb: tb, rnd: rand.New(rand.NewPCG(seed, 2)), dir: tempDir(tb), model: map[int64][]changelog.Value{}}
	w.openLake(vfs.Default)
	tb.Cleanup(func() { _ = w.catalog.Close() })
	w.schemas = changelog.Schemas{must(changelog.NewSchema([]changelog.Column{
		{Name: "v", Type: changelog.Primitive(changelog.String)},
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
	}, []string{"id"}))}
	return w
}

// newBagWorld is a world whose table has no key, and whose changes take out equal rows.
func newBagWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := newWorld(tb, seed)
	w.bag = true
	w.schemas = changelog.Schemas{must(changelog.NewSchema(w.schemas[0].Columns, nil))}
	return w
}

// newPartedBagWorld is that of a table with partitions, which updates move rows between.
func newPartedBagWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := newBagWorld(tb, seed)
	w.parts = []string{"truncate(2, v)", "bucket(2, id)"}
	return w
}

// newPartedWorld is a world whose table has partitions by a column that updates change.
func newPartedWorld(tb testing.TB, seed uint64) *world {
	tb.Helper()
	w := newWorld(tb, seed)
	w.parts = []string{"truncate(2, v)"}
	return w
}

// tempDir is a directory in memory where there is one: what needs the disk to sync has a disk that can lose power.
func tempDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "firn-flush-*") //nolint:usetesting // not the test's own directory: memory
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// openLake opens the catalog, anew if it is open. SQLite's file is on the disk, the tables' are where files says.
func (w *world) openLake(files vfs.FS) {
	w.tb.Helper()
	if w.catalog != nil {
		_ = w.catalog.Close()
	}
	w.catalog = must(table.Open(w.tb.Context(), table.Options{
		URI: filepath.Join(w.dir, "catalog.db"), Warehouse: filepath.Join(w.dir, "lake"), FS: files,
		Hook: func(ctx context.Context, a table.Attempt, commit func() error) error {
			if w.every != nil {
				return w.every(ctx, a, commit)
			}
			if h := w.hook.Load(); h != nil && (a.Store == mixed.StoreChange || w.bag) && a.ID != "" {
				return (*h)(ctx, a, commit)
			}
			return commit()
		},
	}))
}

func (w *world) setHook(h table.Hook) {
	if h == nil {
		w.hook.Store(nil)
		return
	}
	w.hook.Store(&h)
}

func (w *world) open() *node {
	w.tb.Helper()
	n := openNode(w.tb, vfs.NewCrashableMem())
	w.register(n)
	return n
}

func (w *world) register(n *node) {
	w.tb.Helper()
	spec := must(changelog.ParsePartition(w.parts))
	n.id = must(n.reg.CreatePartitioned(w.tb.Context(), tableName, w.schemas[0], spec, topicRef, nil)).ID
}

// moves reports whether rows can leave their partition: then every change of a key has the row before it.
func (w *world) moves() bool {
	spec := must(must(changelog.ParsePartition(w.parts)).Bind(w.schemas[0]))
	return !spec.InKey(w.schemas[0])
}

func (w *world) schema() *changelog.Schema { return w.schemas.Current() }

func (w *world) key(id int64) changelog.Key {
	return changelog.AppendKey(nil, w.schema().KeyTypes(), []changelog.Value{{I: id}})
}

// append makes one record after another of the source and appends each: of one change mostly, of several sometimes.
func (w *world) append(n *node, records, keys int) {
	w.tb.Helper()
	for range records {
		var cs []changelog.Change
		p := changelog.Position{Source: "k", Topic: "t", Offset: w.offset}
		w.offset++
		switch w.rnd.IntN(20) {
		case 0: // truncate
			for _, id := range slices.Sorted(maps.Keys(w.model)) {
				c := changelog.Change{Op: changelog.OpDelete, Key: w.key(id), Position: p}
				if w.moves() {
					c.Before = w.row(w.model[id])
				}
				cs = append(cs, c)
			}
			w.model, w.rows = map[int64][]changelog.Value{}, nil
			cs = append(cs, changelog.Change{Op: changelog.OpTruncate, Position: p})
		case 1: // nothing that is of interest
		default:
			if w.bag {
				cs = append(cs, w.bagChange(int64(w.rnd.IntN(keys)), p))
				break
			}
			cs = append(cs, w.change(int64(w.rnd.IntN(keys))-int64(keys/2), p))
		}
		a := changelog.Append{Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "t"}, Next: w.offset}}}
		if len(cs) > 0 {
			a.Tables = []changelog.TableAppend{{Table: n.id, Changes: cs}}
		}
		w.records = append(w.records, a)
		must(n.store.Append(w.tb.Context(), a))
	}
}

func (w *world) row(values []changelog.Value) changelog.Row {
	for len(values) < len(w.schema().Columns) {
		values = append(slices.Clone(values), changelog.NullValue)
	}
	return changelog.AppendRow(nil, w.schema(), values)
}

func (w *world) change(id int64, p changelog.Position) changelog.Change {
	old := w.model[id]
	c := changelog.Change{Op: changelog.OpDelete, Key: w.key(id), Position: p, SourceTime: 1e15 + p.Offset}
	if old != nil && (w.rnd.IntN(3) > 0 || w.moves()) {
		c.Before = w.row(old)
	}
	delete(w.model, id)
	if w.rnd.IntN(4) == 0 {
		return c
	}
	now := w.values(id)
	w.model[id] = now
	c.Op, c.After = changelog.OpCreate, changelog.AppendRow(nil, w.schema(), now)
	if c.Before != nil {
		c.Op = changelog.OpUpdate
	}
	return c
}

// bagChange takes a row out, puts one in, or both. Rows are often equal; one to take out may not be there, and then differs from all
// others in a column that stays: rows that differ only in a column that is dropped later are equal to a flush after that.
func (w *world) bagChange(id int64, p changelog.Position) changelog.Change {
	c := changelog.Change{Op: changelog.OpCreate, Position: p, SourceTime: 1e15 + p.Offset}
	if w.rnd.IntN(2) == 0 {
		old := w.bagRow(id)
		if len(w.rows) > 0 && w.rnd.IntN(5) > 0 {
			old = w.rows[w.rnd.IntN(len(w.rows))]
		}
		if i := slices.IndexFunc(w.rows, func(r []changelog.Value) bool { return w.text(r) == w.text(old) }); i >= 0 {
			w.rows = slices.Delete(w.rows, i, i+1)
		} else {
			old[w.schema().OrdinalOf(idColumn)].I = -1
		}
		c.Op, c.Before = changelog.OpDelete, changelog.AppendRow(nil, w.schema(), old)
		if w.rnd.IntN(2) == 0 {
			return c
		}
		c.Op = changelog.OpUpdate
	}
	row := w.bagRow(id)
	w.rows = append(w.rows, row)
	c.After = changelog.AppendRow(nil, w.schema(), row)
	return c
}

// bagRow returns a row of few values, some of them null.
func (w *world) bagRow(id int64) []changelog.Value {
	row := make([]changelog.Value, len(w.schema().Columns))
	for o, c := range w.schema().Columns {
		switch {
		case c.ID == idColumn:
			row[o] = changelog.Value{I: id / 4}
		case w.rnd.IntN(8) == 0:
			row[o] = changelog.NullValue
		case c.ID == vColumn:
			row[o] = changelog.Value{B: fmt.Appendf(nil, "v%d", w.rnd.IntN(2))}
		default:
			row[o] = w.value(c.Type)
		}
	}
	return row
}

// replay gives a node the records from the offset on again, as a source does.
func (w *world) replay(n *node, from int64) {
	w.tb.Helper()
	for i := from; i < w.offset; i++ {
		a := w.records[i]
		for j := range a.Tables {
			a.Tables[j].Table = n.id
		}
		must(n.store.Append(w.tb.Context(), a))
	}
}

func (w *world) options() Options {
	return Options{
		Interval: 20 * time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
		MaxRows: 1 + w.rnd.IntN(60), BucketRows: 1 + w.rnd.IntN(40), Buckets: []int{1, 4, 16}[w.rnd.IntN(3)],
	}
}

// flusher returns a fresh one, as after a start of the process.
func (w *world) flusher(n *node, reg Tables) *Flusher {
	w.tb.Helper()
	if reg == nil {
		reg = n.reg
	}
	return must(must(New(n.store, reg, w.catalog, w.options())).Flusher(n.id))
}

// drain flushes until the lake has all that makes rows.
func (w *world) drain(f *Flusher) {
	w.tb.Helper()
	for last := changelog.SeqNum(0); ; {
		seq, err := f.Flush(w.tb.Context())
		if err != nil {
			w.tb.Fatal(err)
		}
		if seq == last {
			return
		}
		last = seq
	}
}

func (w *world) reader(t *table.Table) *merge.Reader {
	w.tb.Helper()
	s := merge.Snapshot{Optimized: t.Optimized()}
	for _, f := range must(t.Base().Files(w.tb.Context())) {
		if f.Content == table.PositionDeletes {
			s.Deletes = append(s.Deletes, MergeFile(&f))
		} else {
			s.Base = append(s.Base, MergeFile(&f))
		}
	}
	if t.Keyed() {
		for _, f := range must(t.Change().Files(w.tb.Context())) {
			s.Change = append(s.Change, MergeFile(&f))
		}
	}
	return must(merge.New(t.Schemas().Current(), s, LakeFiles{FS: t.FS()}, merge.Options{}))
}

func (w *world) load() *table.Table {
	w.tb.Helper()
	return must(w.catalog.Load(w.tb.Context(), tableName))
}

func (w *world) text(values []changelog.Value) string {
	id, v := w.schema().OrdinalOf(idColumn), w.schema().OrdinalOf(vColumn)
	s := fmt.Sprint(values[id].I, " ", string(values[v].B))
	for o, c := range w.schema().Columns {
		if o != id && o != v {
			s += fmt.Sprintf(" %s:%v,%d,%x", c.Name, values[o].Null, values[o].I, values[o].B)
		}
	}
	return s
}

func (w *world) want() []string {
	var out []string
	for _, v := range w.rows {
		out = append(out, w.text(v))
	}
	for _, v := range w.model {
		out = append(out, w.text(v))
	}
	slices.Sort(out)
	return out
}

// check compares the lake, alone and with the log's tail, with the model; and what change files and log say of every
// change (P5).
func (w *world) check(n *node, drained bool) {
	w.tb.Helper()
	ctx := w.tb.Context()
	t := w.load()
	r, mark := w.reader(t), w.mark(t)
	_, applied, err := n.store.Bounds(n.id)
	if err != nil {
		w.tb.Fatal(err)
	}
	var got []string
	for row, err := range r.Union(ctx, merge.Tail{
		From: mark.To, To: applied, Schemas: w.schemas, Changes: n.store.Scan(ctx, n.id, mark.To, applied),
	}) {
		if err != nil {
			w.tb.Fatal(err)
		}
		got = append(got, w.textOf(row.Row, t))
	}
	w.equal("union", got)
	if drained {
		got = nil
		for row, err := range r.Rows(ctx) {
			if err != nil {
				w.tb.Fatal(err)
			}
			got = append(got, w.textOf(row.Row, t))
		}
		w.equal("lake", got)
	}
	if w.bag {
		w.bagFiles(t)
		return
	}
	w.feed(n, r, mark.To)
	w.files(t)
}

func (w *world) textOf(r changelog.Row, t *table.Table) string {
	w.tb.Helper()
	p := must(changelog.NewProjection(t.Schemas().Current(), w.schema()))
	return w.text(must(p.Values(r)))
}

func (w *world) mark(t *table.Table) table.FlushMark {
	w.tb.Helper()
	mark, _, err := t.LastCommit()
	if err != nil {
		w.tb.Fatal(err)
	}
	return mark
}

func (w *world) equal(what string, got []string) {
	w.tb.Helper()
	slices.Sort(got)
	if want := w.want(); !slices.Equal(got, want) {
		w.tb.Fatalf("%s: %d rows, want %d\ngot  %v\nwant %v", what, len(got), len(want), got, want)
	}
}

// feed compares the changes up to flushed in the change files with those in the log.
func (w *world) feed(n *node, r *merge.Reader, flushed changelog.SeqNum) {
	w.tb.Helper()
	ctx := w.tb.Context()
	var got, want []string
	first := changelog.SeqNum(0)
	for c, err := range n.store.Scan(ctx, n.id, 0, flushed) {
		if err != nil {
			w.tb.Fatal(err)
		}
		if c.Op != changelog.OpTruncate {
			break
		}
		first = c.Seq // files cannot tell markers at their very beginning from expired changes
	}
	for c, err := range r.Feed(ctx, first, flushed) {
		if err != nil {
			w.tb.Fatal(err)
		}
		got = append(got, fmt.Sprint(c.Seq, c.Op, c.Key, c.Before != nil, c.After != nil))
	}
	for c, err := range n.store.Scan(ctx, n.id, 0, flushed) {
		if err != nil {
			w.tb.Fatal(err)
		}
		if c.Op != changelog.OpTruncate {
			want = append(want, fmt.Sprint(c.Seq, c.Op, c.Key, c.Before != nil, c.After != nil))
		}
	}
	if !slices.Equal(got, want) {
		w.tb.Fatalf("change files have %d changes, the log %d\n%v\n%v", len(got), len(want), got, want)
	}
}

// files checks what spec/mixed-format.md asks of change files: one of a type for each commit and node.
func (w *world) files(t *table.Table) {
	w.tb.Helper()
	type slot struct {
		seq       int64
		partition string
		info      mixed.FileInfo
	}
	of := must(t.Partitioner(t.Schemas().Current()))
	seen, paths := map[slot]bool{}, map[string]bool{}
	for _, f := range must(t.Change().Files(w.tb.Context())) {
		s := slot{f.DataSequence, f.Partition, f.Info}
		w.place(t, f, of)
		if seen[s] {
			w.tb.Fatalf("two files %v in one commit", s)
		}
		seen[s] = true
		if paths[f.Path] {
			w.tb.Fatalf("%s is there twice", f.Path)
		}
		paths[f.Path] = true
		if f.Info.Txn != f.DataSequence || f.Content != table.Data || f.FirstOffset < 1 || f.LastOffset < f.FirstOffset {
			w.tb.Fatalf("file %+v", f)
		}
	}
}

// bagFiles checks what a flush writes of a table without a key: in the root node, a file of rows and one of position deletes for
// each partition, whose rows are of the partition, and whose deletes name data files of the partition.
func (w *world) bagFiles(t *table.Table) {
	w.tb.Helper()
	of := must(t.Partitioner(t.Schemas().Current()))
	files := must(t.Base().Files(w.tb.Context()))
	type slot struct {
		seq       int64
		partition string
		content   table.Content
	}
	seen, at := map[slot]bool{}, map[string]string{}
	for _, f := range files {
		if f.Content == table.Data {
			at[f.Path] = f.Partition
		}
	}
	for _, f := range files {
		w.place(t, f, of)
		if s := (slot{f.DataSequence, f.Partition, f.Content}); seen[s] {
			w.tb.Fatalf("two files %v in one commit", s)
		} else {
			seen[s] = true
		}
		if want := (mixed.TreeNode{}); f.Info.Node != want || !strings.HasPrefix(filepath.Base(f.Path), "1-") {
			w.tb.Fatalf("file %s is not of the root node", f.Path)
		}
		if p, live := at[f.Referenced]; f.Referenced != "" && live && p != f.Partition {
			w.tb.Fatalf("%s names a file of partition %q", f.Path, p)
		}
	}
}

// place checks that the rows of a file are in the partition that they belong to, and all of a file in its directory.
func (w *world) place(t *table.Table, f table.File, of *table.Partitioner) {
	w.tb.Helper()
	store := t.Change()
	if w.bag {
		store = t.Base()
	}
	if (of == nil) != (f.Partition == "") || filepath.Dir(f.Path) != filepath.Dir(store.DataPathIn(f.Partition, "x")) {
		w.tb.Fatalf("partition %q of %s", f.Partition, f.Path)
	}
	if of == nil || f.Content != table.Data {
		return
	}
	schema := t.Schemas().Current()
	s := merge.Snapshot{Base: []merge.File{MergeFile(&f)}}
	r := must(merge.New(schema, s, LakeFiles{FS: t.FS()}, merge.Options{}))
	for row, err := range r.Base(w.tb.Context()) {
		if err != nil {
			w.tb.Fatal(err)
		}
		if at := of.Path(must(changelog.AppendValues(nil, schema, row.Row))); at != f.Partition {
			w.tb.Fatalf("a row of %q is in %s", at, f.Path)
		}
	}
}

// stray returns the data files of the store that flushes go to that no snapshot names.
func (w *world) stray() []string {
	w.tb.Helper()
	store := w.load().Base()
	if !w.bag {
		store = w.load().Change()
	}
	named := map[string]bool{}
	for _, sn := range store.Snapshots() {
		for _, f := range must(store.FilesAt(w.tb.Context(), sn.ID)) {
			named[filepath.Base(f.Path)] = true
		}
	}
	dir := store.DataPath("")[len("file://"):]
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !named[filepath.Base(p)] {
			out = append(out, filepath.Base(p))
		}
		return err
	})
	if err != nil {
		w.tb.Fatal(err)
	}
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
