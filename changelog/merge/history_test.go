package merge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// memFile is a file of rows, or of position deletes, in memory.
type memFile struct {
	File
	schema  *changelog.Schema
	rows    [][]changelog.Value
	offsets []int64 // nil in the base store
	deletes []datafile.PosDelete
}

// lake is a table whose files are in memory, written by a deliberately plain writer and optimizer.
type lake struct {
	t       *testing.T
	rnd     *rand.Rand
	schemas changelog.Schemas
	files   map[string]*memFile
	snap    Snapshot
	change  int64 // sequence number of the change store
	base    int64 // of the base store
	seq     changelog.SeqNum
	model   map[int64]*modelRow
	changes []changelog.Change // all, in order
	names   int
}

type modelRow struct {
	values []changelog.Value
	part   string
	seq    changelog.SeqNum
}

func newLake(t *testing.T, seed uint64) *lake {
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Int)},
		{Name: "p", Type: changelog.Primitive(changelog.String)},
		{Name: "v", Type: changelog.Primitive(changelog.Int)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return &lake{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), schemas: changelog.Schemas{s}, files: map[string]*memFile{},
		model: map[int64]*modelRow{}, snap: Snapshot{Optimized: map[string]int64{}},
	}
}

func (l *lake) schema() *changelog.Schema { return l.schemas.Current() }

// evolve adds a column and widens v.
func (l *lake) evolve() {
	n := len(l.schemas)
	s, err := l.schema().Evolve([]changelog.Column{{Name: fmt.Sprint("c", n), Type: changelog.Primitive(changelog.String)}},
		map[string]*changelog.Type{"v": changelog.Primitive(changelog.Long)})
	if err != nil {
		l.t.Fatal(err)
	}
	l.schemas = append(l.schemas, s)
	for _, r := range l.model {
		r.values = append(slices.Clone(r.values), changelog.NullValue)
	}
}

func (l *lake) node(id int64, buckets int) mixed.TreeNode {
	s := l.schemas[0]
	return mixed.NodeFor(mixed.KeyHash(s.KeyTypes(), []changelog.Value{{I: id}}), buckets)
}

// add makes a file of the lake.
func (l *lake) add(f *memFile, name mixed.FileName) *memFile {
	l.names++
	name.Op = int64(l.names)
	name.Count = 1
	f.Path = "mem://t/" + f.Partition + "/" + name.String()
	f.schema = l.schema()
	f.Records = int64(len(f.rows) + len(f.deletes))
	l.files[f.Path] = f
	return f
}

func (l *lake) row(id int64) []changelog.Value {
	values := []changelog.Value{{I: id}, {B: fmt.Appendf(nil, "p%d", l.rnd.IntN(2))}, {I: int64(l.rnd.IntN(1000)) - 500}}
	for range len(l.schema().Columns) - 3 {
		if l.rnd.IntN(3) == 0 {
			values = append(values, changelog.NullValue)
		} else {
			values = append(values, changelog.Value{B: fmt.Appendf(nil, "x%d", l.rnd.IntN(100))})
		}
	}
	return values
}

func partOf(values []changelog.Value) string { return "p=" + string(values[1].B) }

// commit writes n random changes as one commit, spread over buckets nodes.
func (l *lake) commit(n, keys, buckets int) {
	l.change++
	type target struct {
		part string
		node mixed.TreeNode
		typ  mixed.FileType
	}
	out := map[target]*memFile{}
	put := func(part string, typ mixed.FileType, id int64, values []changelog.Value) {
		k := target{part, l.node(id, buckets), typ}
		if out[k] == nil {
			out[k] = &memFile{File: File{Partition: part, Sequence: l.change}}
		}
		out[k].rows = append(out[k].rows, values)
		out[k].offsets = append(out[k].offsets, int64(l.seq)) //nolint:gosec // small
	}
	for range n {
		id := int64(l.rnd.IntN(keys)) - int64(keys/2)
		old, now := l.model[id], []changelog.Value(nil)
		l.seq++
		c := changelog.Change{Seq: l.seq, Op: changelog.OpDelete, Key: changelog.AppendKey(nil, l.schema().KeyTypes(), []changelog.Value{{I: id}})}
		switch {
		case old == nil && l.rnd.IntN(8) == 0: // a delete of what is not there
		case old == nil || l.rnd.IntN(3) > 0:
			now = l.row(id)
			c.Op, c.After = changelog.OpCreate, changelog.AppendRow(nil, l.schema(), now)
		}
		// An upsert: also a create deletes, in the partition where the old row is, or else in its own.
		before := make([]changelog.Value, len(l.schema().Columns))
		for i := range before {
			before[i] = changelog.NullValue
		}
		before[0].I, before[0].Null = id, false
		part := "p=p0"
		if now != nil {
			part = partOf(now)
		}
		if old != nil {
			part = old.part
			if l.rnd.IntN(4) > 0 {
				before = old.values
				c.Before = changelog.AppendRow(nil, l.schema(), before)
				if c.After != nil {
					c.Op = changelog.OpUpdate
				}
			}
		}
		put(part, mixed.Delete, id, before)
		delete(l.model, id)
		if now != nil {
			put(partOf(now), mixed.Insert, id, now)
			l.model[id] = &modelRow{values: now, part: partOf(now), seq: l.seq}
		}
		l.changes = append(l.changes, c)
	}
	for k, f := range out {
		l.add(f, mixed.FileName{Node: k.node, Type: k.typ})
		f.Info = must(mixed.ParseChange(f.Path, l.change))
		l.snap.Change = append(l.snap.Change, f.File)
	}
	l.rnd.Shuffle(len(l.snap.Change), func(i, j int) {
		l.snap.Change[i], l.snap.Change[j] = l.snap.Change[j], l.snap.Change[i]
	})
}

// minor merges a partition's pending change files into the base store: new base files and position deletes.
func (l *lake) minor(part string, buckets int) {
	l.base++
	top, deletes, inserts := l.snap.Optimized[part], []dead{}, []living{}
	for _, f := range l.snap.Change {
		if f.Partition != part || f.Sequence <= l.snap.Optimized[part] {
			continue
		}
		top = max(top, f.Sequence)
		for i, values := range l.files[f.Path].rows {
			at := lsn{f.Info.Txn, l.files[f.Path].offsets[i]}
			if f.Info.Type == mixed.Delete {
				deletes = append(deletes, dead{values[0].I, at})
			} else {
				inserts = append(inserts, living{values, at})
			}
		}
	}
	for _, f := range slices.Clone(l.snap.Base) {
		if f.Partition != part {
			continue
		}
		pd := &memFile{File: File{Partition: part, Sequence: l.base}}
		for i, values := range l.files[f.Path].rows {
			if slices.ContainsFunc(deletes, func(d dead) bool { return d.id == values[0].I && f.Info.Txn < d.at.txn }) {
				pd.deletes = append(pd.deletes, datafile.PosDelete{Path: f.Path, Pos: int64(i)})
			}
		}
		if len(pd.deletes) > 0 {
			node := f.Info.Node
			if l.rnd.IntN(2) == 0 {
				node = mixed.TreeNode{} // above the data is right, too
			}
			l.add(pd, mixed.FileName{Node: node, Type: mixed.PositionDelete, Txn: f.Info.Txn})
			pd.Info = must(mixed.ParseBase(pd.Path))
			l.snap.Deletes = append(l.snap.Deletes, pd.File)
		}
	}
	l.addBase(part, top, buckets, slices.DeleteFunc(inserts, func(r living) bool {
		return slices.ContainsFunc(deletes, func(d dead) bool { return d.id == r.values[0].I && r.at.less(d.at) })
	}))
	l.snap.Optimized[part] = top
}

type dead struct {
	id int64
	at lsn
}

type living struct {
	values []changelog.Value
	at     lsn
}

func (l *lake) addBase(part string, txn int64, buckets int, rows []living) {
	out := map[mixed.TreeNode]*memFile{}
	for _, r := range rows {
		n := l.node(r.values[0].I, buckets)
		if out[n] == nil {
			out[n] = &memFile{File: File{Partition: part, Sequence: l.base}}
		}
		for len(r.values) < len(l.schema().Columns) {
			r.values = append(slices.Clone(r.values), changelog.NullValue)
		}
		out[n].rows = append(out[n].rows, r.values)
	}
	for n, f := range out {
		l.add(f, mixed.FileName{Node: n, Type: mixed.Base, Txn: txn})
		f.Info = must(mixed.ParseBase(f.Path))
		l.snap.Base = append(l.snap.Base, f.File)
	}
}

// major rewrites a partition's base files.
func (l *lake) major(part string, buckets int) {
	l.base++
	var rows []living
	txn := int64(0)
	inPart := func(f File) bool { return f.Partition == part }
	for _, f := range l.snap.Base {
		if !inPart(f) {
			continue
		}
		txn = max(txn, f.Info.Txn)
		for i, values := range l.files[f.Path].rows {
			if !l.positionDeleted(f.Path, int64(i)) {
				rows = append(rows, living{values, lsn{}})
			}
		}
	}
	l.snap.Base = slices.DeleteFunc(slices.Clone(l.snap.Base), inPart)
	l.snap.Deletes = slices.DeleteFunc(slices.Clone(l.snap.Deletes), inPart)
	l.addBase(part, txn, buckets, rows)
}

func (l *lake) positionDeleted(path string, i int64) bool {
	return slices.ContainsFunc(l.snap.Deletes, func(f File) bool {
		return slices.Contains(l.files[f.Path].deletes, datafile.PosDelete{Path: path, Pos: i})
	})
}

// rows, positions and offsets make the lake an opener.
func (l *lake) rows(_ context.Context, f File, schema *changelog.Schema, offset bool) (cursor, error) {
	file := l.files[f.Path]
	p, err := changelog.NewProjection(file.schema, schema)
	if err != nil {
		return nil, err
	}
	return &memCursor{file: file, p: p, at: -1}, nil
}

func (l *lake) positions(_ context.Context, f File, visit func([]byte, int64) error) error {
	for _, d := range l.files[f.Path].deletes {
		if err := visit([]byte(d.Path), d.Pos); err != nil {
			return err
		}
	}
	return nil
}

func (l *lake) offsets(_ context.Context, f File) (least, greatest int64, ok bool, err error) {
	o := l.files[f.Path].offsets
	return o[0], o[len(o)-1], l.rnd.IntN(2) == 0, nil // statistics may be missing
}

type memCursor struct {
	file *memFile
	p    *changelog.Projection
	at   int
	cur  fileRow
	fail error
}

func (c *memCursor) next() bool {
	c.at++
	if c.at >= len(c.file.rows) || c.fail != nil {
		return false
	}
	c.cur = fileRow{ordinal: int64(c.at), offset: -1}
	if c.file.offsets != nil {
		c.cur.offset = c.file.offsets[c.at]
	}
	c.cur.values, c.fail = c.p.Values(changelog.AppendRow(nil, c.file.schema, c.file.rows[c.at]))
	return c.fail == nil
}
func (c *memCursor) row() *fileRow { return &c.cur }
func (c *memCursor) err() error    { return c.fail }
func (c *memCursor) close() error  { return nil }

// parquet writes all files as Parquet.
func (l *lake) parquet() Opener {
	out := parquetFiles{}
	for path, f := range l.files {
		var buf bytes.Buffer
		if f.deletes != nil {
			must(datafile.WritePositionDeletes(&buf, f.deletes, datafile.Options{}))
		} else {
			w := must(datafile.NewWriter(&buf, f.schema, f.offsets != nil, datafile.Options{RowGroupRows: 7}))
			for i, values := range f.rows {
				o := int64(0)
				if f.offsets != nil {
					o = f.offsets[i]
				}
				if err := w.WriteRow(changelog.AppendRow(nil, f.schema, values), o); err != nil {
					l.t.Fatal(err)
				}
			}
			must(w.Close())
		}
		out[path] = buf.Bytes()
	}
	return out
}

type parquetFiles map[string][]byte

func (p parquetFiles) Open(_ context.Context, path string) (ReadAtCloser, int64, error) {
	b, ok := p[path]
	if !ok {
		return nil, 0, fmt.Errorf("no file %s", path)
	}
	return nopCloser{bytes.NewReader(b)}, int64(len(b)), nil
}

type nopCloser struct{ io.ReaderAt }

func (nopCloser) Close() error { return nil }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// text shows a row for comparing.
func (l *lake) text(values []changelog.Value, seq changelog.SeqNum) string {
	s := fmt.Sprint(seq, " ", values[0].I, " ", string(values[1].B), " ", values[2].I)
	for _, v := range values[3:] {
		if v.Null {
			s += " null"
		} else {
			s += " " + string(v.B)
		}
	}
	return s
}

// naive is a second implementation of merge on read, word by word from spec/mixed-format.md 6.1 and 6.2: for each row,
// look at each delete. It returns the rows as text, sorted.
func (l *lake) naive() []string {
	var out []string
	decide := func(f File, i int, values []changelog.Value, at lsn, seq changelog.SeqNum) {
		for _, ed := range l.snap.Change {
			if ed.Info.Type != mixed.Delete || ed.Partition != f.Partition || ed.Sequence <= l.snap.Optimized[ed.Partition] {
				continue
			}
			if !ed.Info.Node.IsSonOf(f.Info.Node) && !f.Info.Node.IsSonOf(ed.Info.Node) {
				continue
			}
			for j, del := range l.files[ed.Path].rows {
				d := lsn{ed.Info.Txn, l.files[ed.Path].offsets[j]}
				if del[0].I == values[0].I && (d.txn > at.txn || d.txn == at.txn && d.offset > at.offset) {
					return
				}
			}
		}
		for len(values) < len(l.schema().Columns) {
			values = append(slices.Clone(values), changelog.NullValue)
		}
		out = append(out, l.text(values, seq))
	}
	for _, f := range l.snap.Base {
		for i, values := range l.files[f.Path].rows {
			if !l.positionDeleted(f.Path, int64(i)) {
				decide(f, i, values, lsn{f.Info.Txn, 1<<63 - 1}, 0)
			}
		}
	}
	for _, f := range l.snap.Change {
		if f.Info.Type != mixed.Insert || f.Sequence <= l.snap.Optimized[f.Partition] {
			continue
		}
		for i, values := range l.files[f.Path].rows {
			o := l.files[f.Path].offsets[i]
			decide(f, i, values, lsn{f.Info.Txn, o}, changelog.SeqNum(o)) //nolint:gosec // small
		}
	}
	slices.Sort(out)
	return out
}

// want returns the model's rows as text without SeqNums, sorted.
func (l *lake) want() []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(l.model)) {
		out = append(out, l.text(l.model[id].values, 0))
	}
	slices.Sort(out)
	return out
}

// play runs a random history of commits and optimizing.
func (l *lake) play(steps int) {
	buckets := []int{1, 4, 16}
	for range steps {
		part := []string{"p=p0", "p=p1"}[l.rnd.IntN(2)]
		b := buckets[l.rnd.IntN(3)]
		switch n := l.rnd.IntN(12); {
		case n < 7:
			l.commit(1+l.rnd.IntN(40), 60, b)
		case n < 9:
			l.minor(part, b)
		case n < 10:
			l.major(part, b)
		case n < 11 && len(l.schemas) < 4:
			l.evolve()
		}
	}
}
