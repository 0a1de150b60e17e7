package optimizer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tableName = "shop.users"

// world is a lake with one table, a data directory and an Optimizer, with a model of what the table holds: rows by key
// as text, after each flush.
type world struct {
	testing.TB
	dir     string           // the catalog's
	disk    *vfs.MemFS       // Pebble's and the lake's files
	onWrite func() error     // before each write to the lake's files; nil: nothing
	clock   func() time.Time // nil: now
	hook    table.Hook
	catalog *table.Catalog
	db      *pebble.DB
	reg     *state.Registry
	opt     *Optimizer
	options Options
	now     time.Time // of the Optimizer; the catalog has the real one, as the library that stamps metadata

	key     []string
	seq     changelog.SeqNum
	buckets int
	model   map[string]string
	history map[int64]map[string]string // by data sequence number of the flush
	of      *table.Partitioner          // nil: no partitions
	at      map[string]string           // the partition of each row of model, by key
	been    map[int64]map[string]string // at, as history has model
	names   int
	back    bool // the base store was put back to an earlier snapshot: its watermark and the progress were not
}

func columns() []changelog.Column {
	col := func(name string, t *changelog.Type) changelog.Column { return changelog.Column{Name: name, Type: t} }
	return []changelog.Column{
		col("a", changelog.Primitive(changelog.Long)), col("b", changelog.Primitive(changelog.String)),
		col("v", changelog.Primitive(changelog.String)), col("n", changelog.DecimalOf(10, 2)), col("u", changelog.Primitive(changelog.UUID)),
		col("list", changelog.ListOf(changelog.Primitive(changelog.Int))), col("flag", changelog.Primitive(changelog.Boolean)),
	}
}

// tempDir is a directory in memory where there is one: no test here needs the disk to have synced.
func tempDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "firn-optimizer-*") //nolint:usetesting // not the test's own directory: memory
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newWorld(tb testing.TB, props map[string]string) *world { return newPartedWorld(tb, props) }

// newPartedWorld makes the world's table with partitions, as terms say.
func newPartedWorld(tb testing.TB, props map[string]string, terms ...string) *world {
	w := &world{
		at: map[string]string{}, been: map[int64]map[string]string{0: {}},
		TB: tb, dir: tempDir(tb), disk: vfs.NewCrashableMem(), key: []string{"b", "a"}, buckets: 1,
		model: map[string]string{}, history: map[int64]map[string]string{0: {}}, now: time.Now(),
	}
	w.openLake()
	schema, err := changelog.NewSchema(columns(), w.key)
	w.must(err)
	spec, err := changelog.ParsePartition(terms)
	w.must(err)
	t, err := w.catalog.CreatePartitioned(w.ctx(), tableName, schema, spec, props)
	w.must(err)
	w.of, err = t.Partitioner(schema)
	w.must(err)
	w.openState(w.disk)
	_, err = w.reg.CreatePartitioned(w.ctx(), tableName, schema, spec, state.TopicRef{}, nil)
	w.must(err)
	w.open()
	tb.Cleanup(func() {
		w.must(w.db.Close())
		w.must(w.catalog.Close())
	})
	return w
}

func (w *world) ctx() context.Context { return w.Context() }

func (w *world) must(err error) {
	if err != nil {
		w.Helper()
		w.Fatal(err)
	}
}

// lake returns the options of the world's catalog. SQLite has its own files, on the disk.
func (w *world) lake(disk vfs.FS) table.Options {
	return table.Options{URI: filepath.Join(w.dir, "catalog.db"), Warehouse: filepath.Join(w.dir, "wh"), FS: disk}
}

func (w *world) openLake() {
	if w.disk == nil { // benchmarks have theirs on the disk, too
		var err error
		w.catalog, err = table.Open(w.ctx(), w.lake(nil))
		w.must(err)
		return
	}
	o := w.lake(errorfs.Wrap(w.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if w.onWrite != nil && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return w.onWrite()
		}
		return nil
	})))
	o.Hook = func(ctx context.Context, a table.Attempt, commit func() error) error {
		if w.hook != nil {
			return w.hook(ctx, a, commit)
		}
		return commit()
	}
	var err error
	w.catalog, err = table.Open(w.ctx(), o)
	w.must(err)
}

func (w *world) openState(fs vfs.FS) {
	var err error
	w.db, err = pebble.Open("db", &pebble.Options{FS: fs, Logger: quiet{}})
	w.must(err)
	w.reg, err = state.OpenRegistry(w.db)
	w.must(err)
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	panic(fmt.Sprintf(f, a...))
}

// open makes a new Optimizer, as after a restart.
func (w *world) open() {
	w.options.Now = func() time.Time { return w.now }
	if w.clock != nil {
		w.options.Now = w.clock
	}
	var err error
	w.opt, err = New(w.catalog, w.reg, w.options)
	w.must(err)
}

func (w *world) table() *table.Table {
	t, err := w.catalog.Load(w.ctx(), tableName)
	w.must(err)
	return t
}

func (w *world) id() changelog.TableID {
	e, ok := w.reg.Table(tableName)
	if !ok {
		w.Fatal("not registered")
	}
	return e.ID
}

func (w *world) progress() state.Progress {
	p, err := w.reg.Progress(w.id())
	w.must(err)
	return p
}

// op is one change of the model: a put (v != "") or a delete.
type op struct {
	a int64
	b string
	v string
}

func (o op) values(s *changelog.Schema) []changelog.Value {
	values := make([]changelog.Value, len(s.Columns))
	for i := range s.Columns {
		values[i] = changelog.NullValue
	}
	h := int64(len(o.v))*7919 + o.a
	for i, c := range s.Columns {
		switch c.ID { // names and places change: see evolve
		case aColumn:
			values[i] = changelog.Value{I: o.a}
			continue
		case bColumn:
			values[i] = changelog.Value{B: []byte(o.b)}
			continue
		}
		if o.v == "" {
			continue
		}
		switch c.ID {
		case vColumn:
			values[i] = changelog.Value{B: []byte(o.v)}
		case nColumn:
			values[i] = changelog.Value{B: changelog.ShortestInt([]byte{byte(h >> 8), byte(h)})}
		case uColumn:
			values[i] = changelog.Value{B: fmt.Appendf(nil, "%016d", o.a)}
		case listColumn:
			values[i] = changelog.Value{B: changelog.AppendList(nil, c.Type, []changelog.Value{{I: o.a}, changelog.NullValue})}
		case flagColumn:
			values[i] = changelog.Value{I: h & 1}
		default: // an int or a long
			values[i] = changelog.Value{I: h}
		}
	}
	return values
}

// The field ids of the columns that a table begins with.
const (
	aColumn = 1 + iota
	bColumn
	vColumn
	nColumn
	uColumn
	listColumn
	flagColumn
)

func (o op) key() string { return fmt.Sprintf("%s/%d", o.b, o.a) }

// text shows all of a row's values but the key's and nulls, by field id: renames and order do not matter to it.
func text(s *changelog.Schema, values []changelog.Value) (key, row string) {
	var words []string
	for i, v := range values {
		if id := s.Columns[i].ID; id != aColumn && id != bColumn && !v.Null {
			words = append(words, word(id)+fmt.Sprintf("%d:%x", v.I, v.B))
		}
	}
	slices.Sort(words)
	return fmt.Sprintf("%s/%d", values[s.OrdinalOf(bColumn)].B, values[s.OrdinalOf(aColumn)].I), strings.Join(words, " ")
}

// word is how the value of a column begins in a row's text.
func word(id int) string { return fmt.Sprintf("#%d=", id) }

// partition returns the partition of a row, or "".
func (w *world) partition(values []changelog.Value) string {
	if w.of == nil {
		return ""
	}
	return w.of.Path(values)
}

// flush writes a batch of changes as change files, as changelog/flush does: a put is a delete and an insert of one offset, the
// delete in the partition that the key had.
func (w *world) flush(ops ...op) {
	t := w.table()
	s := t.Schemas().Current()
	type file struct {
		typ       mixed.FileType
		node      mixed.TreeNode
		partition string
	}
	rows := map[file][]int{}
	for i, o := range ops {
		values := o.values(s)
		key := []changelog.Value{values[s.OrdinalOf(bColumn)], values[s.OrdinalOf(aColumn)]}
		node := mixed.NodeFor(mixed.KeyHash(s.KeyTypes(), key), w.buckets)
		to := w.partition(values)
		from, had := w.at[o.key()]
		if !had {
			from = to
		}
		del := file{mixed.Delete, node, from}
		rows[del] = append(rows[del], i)
		if o.v != "" {
			ins := file{mixed.Insert, node, to}
			rows[ins] = append(rows[ins], i)
			_, w.model[o.key()] = text(s, values)
			w.at[o.key()] = to
		} else {
			delete(w.model, o.key())
			delete(w.at, o.key())
		}
	}
	w.names++
	c := table.Commit{FlushMark: table.FlushMark{
		CommitID: "flush-" + strconv.Itoa(w.names), Epoch: w.progress().Epoch, From: w.seq, To: w.seq + changelog.SeqNum(len(ops)),
		Watermark: int64(w.seq) + int64(len(ops)), //nolint:gosec // small: the source's clock ticks with each change
	}}
	for f, list := range rows {
		c.Add = append(c.Add, w.writeIn(t.Change(), s, f.partition, f.typ, f.node, 0, true, len(list), func(i int) ([]changelog.Value, int64) {
			o := ops[list[i]]
			if f.typ == mixed.Delete {
				o.v = ""
			}
			return o.values(s), int64(w.seq) + int64(list[i]) + 1
		}))
	}
	snap, err := t.AppendChanges(w.ctx(), c)
	w.must(err)
	w.seq += changelog.SeqNum(len(ops))
	w.history[snap.Sequence], w.been[snap.Sequence] = maps.Clone(w.model), maps.Clone(w.at)
	w.must(w.reg.UpdateProgress(w.ctx(), w.id(), func(p *state.Progress) { p.Flushed = w.seq }))
}

func (w *world) write(st *table.Store, s *changelog.Schema, typ mixed.FileType, node mixed.TreeNode, txn int64, offset bool, n int,
	row func(i int) ([]changelog.Value, int64),
) table.NewFile {
	return w.writeIn(st, s, "", typ, node, txn, offset, n, row)
}

func (w *world) writeIn(st *table.Store, s *changelog.Schema, partition string, typ mixed.FileType, node mixed.TreeNode, txn int64, offset bool, n int,
	row func(i int) ([]changelog.Value, int64),
) table.NewFile {
	w.names++
	path := st.DataPathIn(partition, mixed.FileName{Node: node, Type: typ, Txn: txn, Op: table.NewOp(), Count: w.names}.String())
	out, err := w.catalog.FS().Create(path)
	w.must(err)
	dw, err := datafile.NewWriter(out, s, offset, datafile.Options{})
	w.must(err)
	for i := range n {
		values, at := row(i)
		w.must(dw.WriteValues(values, at))
	}
	written, err := dw.Close()
	w.must(err)
	w.must(out.Commit())
	return table.NewFile{Path: path, Partition: partition, Schema: s, Offset: offset, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
}

// deadSets reads all live position deletes, and fails at one that names a row twice.
func (w *world) deadSets(files []table.File) map[string]map[int64]bool {
	dead := map[string]map[int64]bool{}
	for _, f := range files {
		if f.Content != table.PositionDeletes {
			continue
		}
		w.must(readDeletes(w.catalog.FS(), f.Path, datafile.Options{}, func(p []byte, pos int64) error {
			if dead[string(p)] == nil {
				dead[string(p)] = map[int64]bool{}
			}
			if dead[string(p)][pos] {
				return fmt.Errorf("%s:%d is deleted twice", p, pos)
			}
			dead[string(p)][pos] = true
			return nil
		}))
	}
	return dead
}

// inPartition names a key's row in a partition.
func inPartition(key, partition string) string {
	if partition == "" {
		return key
	}
	return key + "@" + partition
}

// wantBase is what the base store must hold: each partition as it was before the first of its change files that is not merged.
func (w *world) wantBase(t *table.Table) map[string]string {
	if w.of == nil {
		return w.history[t.Optimized()[""]]
	}
	files, err := t.Change().Files(w.ctx())
	w.must(err)
	seqs := t.Optimized()
	first := map[string]int64{}
	for _, f := range files {
		if n, ok := first[f.Partition]; !t.Merged(f) && (!ok || f.DataSequence < n) {
			first[f.Partition] = f.DataSequence
		}
	}
	want := map[string]string{}
	last := slices.Max(slices.Collect(maps.Keys(w.history)))
	for partition := range w.partitions() {
		n := last
		if p, ok := first[partition]; ok {
			n = p - 1
		}
		for w.history[n] == nil {
			n-- // expiry makes snapshots, too
		}
		for key, at := range w.been[n] {
			if at == partition {
				want[inPartition(key, at)] = w.history[n][key]
			}
		}
		if s, ok := seqs[partition]; ok && s > last {
			w.Errorf("partition %s: optimized sequence %d of %d", partition, s, last)
		}
	}
	return want
}

// partitions returns all that there have ever been.
func (w *world) partitions() map[string]bool {
	all := map[string]bool{}
	for _, at := range w.been {
		for _, p := range at {
			all[p] = true
		}
	}
	return all
}

// eachRow reads all rows of a file by brute force.
func (w *world) eachRow(path string, s *changelog.Schema, offset bool, visit func(key, row string, k changelog.Key, at, ordinal int64)) {
	rows := datafile.NewRows(s)
	w.must(eachBatch(w.ctx(), w.catalog.FS(), path, s, offset, datafile.Options{}, func(b datafile.Batch) error {
		if err := rows.Reset(b); err != nil {
			return err
		}
		for i := range rows.Len() {
			at, _ := rows.Offset(i)
			key, row := text(s, rows.Values(i))
			visit(key, row, rows.AppendKey(nil, i), at, b.First+int64(i))
		}
		return nil
	}))
}

// check compares the base store with the model at the optimized sequence, the merged view with the model as it is, and
// the position index, where it is valid, with the base store.
func (w *world) check() {
	w.Helper()
	t := w.table()
	s := t.Schemas().Current()
	baseFiles, err := t.Base().Files(w.ctx())
	w.must(err)
	dead := w.deadSets(baseFiles)
	type place struct {
		path string
		row  int64
	}
	base, places := map[string]string{}, map[string]place{}
	txns := map[string]int64{}
	for _, f := range baseFiles {
		if f.Content != table.Data {
			continue
		}
		w.eachRow(f.Path, s, false, func(key, row string, k changelog.Key, _, ordinal int64) {
			if dead[f.Path][ordinal] {
				return
			}
			key, k = inPartition(key, f.Partition), indexKey(k, f.Partition)
			if _, twice := base[key]; twice {
				w.Errorf("key %s is in the base store twice: %v and %s:%d", key, places[string(k)], f.Path, ordinal)
			}
			base[key], places[string(k)], txns[key] = row, place{f.Path, ordinal}, f.Info.Txn
		})
	}
	w.producers(t)
	w.same("base store", base, w.wantBase(t))
	w.same("merged view", w.merged(t, base, txns), w.model)

	p := w.progress()
	changes, err := t.Change().Files(w.ctx())
	w.must(err)
	for _, f := range changes {
		if w.back {
			break
		}
		if !t.Merged(f) && t.Base().Watermark() >= f.FirstOffset {
			w.Errorf("base watermark is %d, and %s with change %d is not merged", t.Base().Watermark(), f.Path, f.FirstOffset)
		}
		if !t.Merged(f) && int64(p.Optimized) >= f.FirstOffset { //nolint:gosec // small
			w.Errorf("optimized up to change %d, and %s with change %d is not merged", p.Optimized, f.Path, f.FirstOffset)
		}
	}
	if p.IndexSnapshot != t.Base().SnapshotID() {
		return
	}
	x, err := w.reg.OpenIndex(w.id())
	w.must(err)
	for k, want := range places {
		var at [1]state.RowPosition
		var ok [1]bool
		w.must(x.Lookup([]changelog.Key{[]byte(k)}, at[:], ok[:]))
		if path, _ := x.Path(at[0].File); !ok[0] || path != want.path || at[0].Row != want.row {
			w.Errorf("index of %x: %v %s:%d, want %v", k, ok[0], path, at[0].Row, want)
		}
	}
	all := w.partitions()
	if w.of == nil {
		all = map[string]bool{"": true}
	}
	for o := range w.allKeys() {
		for partition := range all {
			k := indexKey(s.KeyOf(nil, o.values(s)), partition)
			var at [1]state.RowPosition
			var ok [1]bool
			w.must(x.Lookup([]changelog.Key{k}, at[:], ok[:]))
			if _, has := places[string(k)]; ok[0] && !has {
				w.Errorf("index has deleted key %s", inPartition(o.key(), partition))
			}
		}
	}
	if w.Failed() {
		w.FailNow()
	}
}

// producers checks that the snapshots of optimizing say what made them.
func (w *world) producers(t *table.Table) {
	w.Helper()
	for _, sn := range t.Base().Snapshots() {
		has := func(key string) bool { return sn.Summary[key] != "" }
		want := mixed.ProducerOptimize
		if has("removed-delete-files") && !has("added-delete-files") && !has("added-data-files") && !has("deleted-data-files") {
			want = mixed.ProducerDangling
		}
		if got := sn.Summary[mixed.SummaryProducer]; has(propType) && got != want {
			w.Errorf("snapshot %d is by %q, want %q: %v", sn.ID, got, want, sn.Summary)
		}
	}
}

// merged applies the pending change files as spec/mixed-format.md 6.2 says, by brute force.
func (w *world) merged(t *table.Table, base map[string]string, txns map[string]int64) map[string]string {
	s := t.Schemas().Current()
	files, err := t.Change().Files(w.ctx())
	w.must(err)
	type at struct{ txn, offset int64 }
	later := func(a, b at) bool { return a.txn > b.txn || a.txn == b.txn && a.offset > b.offset }
	del := map[string]at{}
	for _, f := range files {
		if f.Info.Type == mixed.Delete && !t.Merged(f) {
			w.eachRow(f.Path, s, true, func(key, _ string, _ changelog.Key, o, _ int64) {
				key = inPartition(key, f.Partition)
				if l := (at{f.Info.Txn, o}); later(l, del[key]) {
					del[key] = l
				}
			})
		}
	}
	out := map[string]string{}
	for k, row := range base {
		if l, ok := del[k]; !ok || l.txn <= txns[k] {
			key, _, _ := strings.Cut(k, "@")
			if _, twice := out[key]; twice {
				w.Errorf("key %s is in the merged view twice", k)
			}
			out[key] = row
		}
	}
	for _, f := range files {
		if f.Info.Type == mixed.Insert && !t.Merged(f) {
			w.eachRow(f.Path, s, true, func(key, row string, _ changelog.Key, o, _ int64) {
				if l, ok := del[inPartition(key, f.Partition)]; ok && later(l, at{f.Info.Txn, o}) {
					return
				}
				if _, twice := out[key]; twice {
					w.Errorf("key %s is in the merged view twice", key)
				}
				out[key] = row
			})
		}
	}
	return out
}

func (w *world) same(what string, got, want map[string]string) {
	w.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			w.Errorf("%s: key %s is %q, want %q", what, k, got[k], want[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok {
			w.Errorf("%s: key %s should not be there", what, k)
		}
	}
}

const keySpace = 40

func (w *world) allKeys() map[op]bool {
	all := map[op]bool{}
	for i := range int64(keySpace) {
		all[keyOf(i)] = true
	}
	return all
}

func keyOf(i int64) op {
	return op{a: i / 4, b: []string{"", "x", "longer than eight", "longer than eighty"}[i%4]}
}

// random returns n random changes.
func (w *world) random(r *rand.Rand, n int) []op {
	ops := make([]op, n)
	for i := range ops {
		o := keyOf(r.Int64N(keySpace))
		if r.IntN(4) > 0 {
			o.v = fmt.Sprintf("v%d", r.IntN(1000))
		}
		ops[i] = o
	}
	return ops
}

func (w *world) once(t Type) Report {
	w.Helper()
	r, err := w.opt.Once(w.ctx(), tableName, t, false)
	w.must(err)
	return r
}

// noLitter fails at data files on disk that no kept snapshot names.
func (w *world) noLitter() {
	w.Helper()
	t := w.table()
	named := map[string]bool{}
	for _, st := range []*table.Store{t.Base(), t.Change()} {
		for _, sn := range st.Snapshots() {
			files, err := st.FilesAt(w.ctx(), sn.ID)
			w.must(err)
			for _, f := range files {
				named[f.Path[strings.LastIndexByte(f.Path, '/')+1:]] = true
			}
		}
		for _, p := range w.statistics(st) {
			named[p[strings.LastIndexByte(p, '/')+1:]] = true
		}
	}
	for _, st := range []*table.Store{t.Base(), t.Change()} {
		w.eachOnDisk(strings.TrimPrefix(st.Location(), "file://")+"/data", func(dir, name string) {
			if !named[name] {
				w.Errorf("%s/%s is on disk and in no snapshot", dir, name)
			}
		})
	}
}

// statistics returns the paths of a store's statistics files.
func (w *world) statistics(st *table.Store) (paths []string) {
	b, err := w.catalog.FS().ReadFile(st.MetadataLocation())
	w.must(err)
	var md struct {
		Statistics []struct {
			Path string `json:"statistics-path"`
		}
	}
	w.must(json.Unmarshal(b, &md))
	for _, s := range md.Statistics {
		paths = append(paths, s.Path)
	}
	return paths
}

// eachOnDisk visits the files in a directory and below.
func (w *world) eachOnDisk(dir string, visit func(dir, name string)) {
	names, err := w.disk.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.Fatal(err)
	}
	for _, name := range names {
		info, err := w.disk.Stat(dir + "/" + name)
		w.must(err)
		if info.IsDir() {
			w.eachOnDisk(dir+"/"+name, visit)
		} else {
			visit(dir, name)
		}
	}
}

var errCrash = errors.New("crash")

// openDisk opens the data directory on the disk, as benchmarks want it.
func (w *world) openDisk() {
	var err error
	w.db, err = pebble.Open(filepath.Join(w.dir, "db"), &pebble.Options{Logger: quiet{}, MemTableSize: 32 << 20})
	w.must(err)
	w.reg, err = state.OpenRegistry(w.db)
	w.must(err)
}
