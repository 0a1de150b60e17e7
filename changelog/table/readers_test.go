package table_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/rowjson"
	"firn/changelog/table"
)

// everything is a schema of all types that format v2 has.
func everything(t testing.TB) *changelog.Schema {
	t.Helper()
	columns := []changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
		{Name: "name", Type: changelog.Primitive(changelog.String)},
		{Name: "d1", Type: changelog.DecimalOf(5, 2)},
		{Name: "d2", Type: changelog.DecimalOf(18, 6)},
		{Name: "d3", Type: changelog.DecimalOf(38, 10)},
		{Name: "fx", Type: &changelog.Type{Kind: changelog.Fixed, Length: 5}},
		{Name: "li", Type: changelog.ListOf(changelog.Primitive(changelog.String))},
		{Name: "ma", Type: changelog.MapOf(changelog.Primitive(changelog.String), changelog.ListOf(changelog.Primitive(changelog.Int)))},
		{Name: "st", Type: &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{
			{Name: "a", Type: changelog.Primitive(changelog.Int)}, {Name: "b", Type: changelog.ListOf(changelog.DecimalOf(9, 3))},
		}}},
	}
	for _, k := range []changelog.Kind{
		changelog.Boolean, changelog.Int, changelog.Float, changelog.Double, changelog.Date, changelog.Time,
		changelog.Timestamp, changelog.TimestampTZ, changelog.UUID, changelog.Binary,
	} {
		columns = append(columns, changelog.Column{Name: "c_" + k.String(), Type: changelog.Primitive(k)})
	}
	s, err := changelog.NewSchema(columns, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func randomValue(r *rand.Rand, c *changelog.Column) changelog.Value {
	if !c.Required && r.IntN(5) == 0 {
		return changelog.NullValue
	}
	bytes := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	t := c.Type
	several := func(c *changelog.Column) (v []changelog.Value) {
		for range r.IntN(4) {
			v = append(v, randomValue(r, c))
		}
		return v
	}
	switch t.Kind {
	case changelog.Boolean:
		return changelog.Value{I: r.Int64N(2)}
	case changelog.Int, changelog.Date:
		return changelog.Value{I: r.Int64N(100_000) - 50_000}
	case changelog.Time:
		return changelog.Value{I: r.Int64N(86_400_000_000)}
	case changelog.Float:
		return changelog.FloatValue(float32(r.NormFloat64()))
	case changelog.Double:
		return changelog.DoubleValue(r.NormFloat64() * 1e100)
	case changelog.Decimal:
		b := bytes((t.Precision * 3) / 8)
		return changelog.Value{B: changelog.ShortestInt(b)}
	case changelog.String:
		return changelog.Value{B: []byte(strings.Repeat("é😀x", r.IntN(12)))}
	case changelog.UUID:
		return changelog.Value{B: bytes(16)}
	case changelog.Fixed:
		return changelog.Value{B: bytes(t.Length)}
	case changelog.Binary:
		return changelog.Value{B: bytes(r.IntN(40))}
	case changelog.List:
		return changelog.Value{B: changelog.AppendList(nil, t, several(&t.Fields[0]))}
	case changelog.Map:
		values := several(&t.Fields[1])
		keys := make([]changelog.Value, len(values))
		for i := range keys {
			keys[i] = changelog.Value{B: []byte{'k', byte('0' + i)}}
		}
		return changelog.Value{B: changelog.AppendMap(nil, t, keys, values)}
	case changelog.Struct:
		v := make([]changelog.Value, len(t.Fields))
		for i := range v {
			v[i] = randomValue(r, &t.Fields[i])
		}
		return changelog.Value{B: changelog.AppendStruct(nil, t, v)}
	default:
		return changelog.Value{I: r.Int64N(4e15) - 1e15}
	}
}

// model drives a table as firn does, with random rows, and knows what must be in it.
type model struct {
	*lake
	tbl     *table.Table
	r       *rand.Rand
	schema  *changelog.Schema
	history changelog.Schemas
	rows    map[int64][]changelog.Value // merged
	pending map[int64][]changelog.Value // nil value: deleted
	at      map[int64]datafile.PosDelete
	seq     changelog.SeqNum
	opt     int64
}

const buckets = 4

func (m *model) node(id int64) mixed.TreeNode {
	return mixed.NodeFor(mixed.KeyHash(m.schema.KeyTypes(), []changelog.Value{{I: id}}), buckets)
}

// write writes rows by node and returns the files.
func (m *model) write(st *table.Store, typ mixed.FileType, txn int64, rows map[int64][]changelog.Value, offset map[int64]int64) (files []table.NewFile) {
	m.t.Helper()
	byNode := map[mixed.TreeNode][]int64{}
	for id := range rows {
		byNode[m.node(id)] = append(byNode[m.node(id)], id)
	}
	for node, ids := range byNode {
		slices.SortFunc(ids, func(a, b int64) int {
			if offset != nil {
				return int(offset[a] - offset[b])
			}
			return int(a - b)
		})
		m.n++
		path := st.DataPath(mixed.FileName{Node: node, Type: typ, Txn: txn, Op: table.NewOp(), Count: m.n}.String())
		out, err := m.cat.FS().Create(path)
		if err != nil {
			m.t.Fatal(err)
		}
		w, err := datafile.NewWriter(out, m.schema, offset != nil, datafile.Options{})
		if err != nil {
			m.t.Fatal(err)
		}
		for i, id := range ids {
			if err := w.WriteValues(rows[id], offset[id]); err != nil {
				m.t.Fatal(err)
			}
			if typ == mixed.Base {
				m.at[id] = datafile.PosDelete{Path: path, Pos: int64(i)}
			}
		}
		written, err := w.Close()
		if err != nil {
			m.t.Fatal(err)
		}
		if err := out.Commit(); err != nil {
			m.t.Fatal(err)
		}
		files = append(files, table.NewFile{
			Path: path, Schema: m.schema, Offset: offset != nil, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata,
		})
	}
	return files
}

// flush commits n changes: each touches a key once.
func (m *model) flush(n int) {
	m.t.Helper()
	ins, del, offset := map[int64][]changelog.Value{}, map[int64][]changelog.Value{}, map[int64]int64{}
	from := m.seq
	for range n {
		id := m.r.Int64N(120) - 20
		if _, done := offset[id]; done {
			continue
		}
		m.seq++
		offset[id] = int64(m.seq)
		before, known := m.pending[id]
		if !known {
			before = m.rows[id]
		}
		if before != nil {
			del[id] = before
		}
		m.pending[id] = nil
		if before == nil || m.r.IntN(4) > 0 {
			v := make([]changelog.Value, len(m.schema.Columns))
			for i := range v {
				v[i] = randomValue(m.r, &m.schema.Columns[i])
			}
			v[m.schema.OrdinalOf(1)], v[m.schema.OrdinalOf(2)] = changelog.Value{I: id}, changelog.Value{B: fmt.Appendf(nil, "v%d", m.seq)}
			m.pending[id], ins[id] = v, v
		}
	}
	add := append(m.write(m.tbl.Change(), mixed.Insert, 0, ins, offset), m.write(m.tbl.Change(), mixed.Delete, 0, del, offset)...)
	m.append(m.tbl, m.commit(0, from, m.seq, add...))
	m.opt++
}

// minor merges what is pending.
func (m *model) minor() {
	m.t.Helper()
	ins := map[int64][]changelog.Value{}
	dels := map[mixed.TreeNode][]datafile.PosDelete{}
	for id, v := range m.pending {
		if p, ok := m.at[id]; ok {
			dels[m.node(id)] = append(dels[m.node(id)], p)
			delete(m.at, id)
			delete(m.rows, id)
		}
		if v != nil {
			ins[id], m.rows[id] = v, v
		}
	}
	c := table.BaseCommit{Optimized: map[string]int64{"": m.load(m.tbl).Change().Snapshot().Sequence}, Expect: m.load(m.tbl).Base().SnapshotID()}
	for node, d := range dels {
		slices.SortFunc(d, func(a, b datafile.PosDelete) int {
			if a.Path != b.Path {
				return strings.Compare(a.Path, b.Path)
			}
			return int(a.Pos - b.Pos)
		})
		f := m.deletes(m.tbl.Base(), 1, d...)
		renamed := m.tbl.Base().DataPath(mixed.FileName{Node: node, Type: mixed.PositionDelete, Txn: 1, Op: table.NewOp(), Count: m.n}.String())
		if err := os.Rename(strings.TrimPrefix(f.Path, "file://"), strings.TrimPrefix(renamed, "file://")); err != nil {
			m.t.Fatal(err)
		}
		f.Path = renamed
		c.AddDeletes = append(c.AddDeletes, f)
	}
	c.Add = m.write(m.tbl.Base(), mixed.Base, m.load(m.tbl).Change().Snapshot().Sequence, ins, nil)
	m.base(m.tbl, c)
	m.pending = map[int64][]changelog.Value{}
}

// major rewrites the whole base store.
func (m *model) major() {
	m.t.Helper()
	now := m.load(m.tbl)
	c := table.BaseCommit{Replace: true, Expect: now.Base().SnapshotID(), DataSequence: now.Base().Snapshot().Sequence}
	var txn int64
	for _, f := range m.files(now.Base()) {
		txn = max(txn, f.Info.Txn)
		if f.Content == table.Data {
			c.Remove = append(c.Remove, f)
		} else {
			c.RemoveDeletes = append(c.RemoveDeletes, f)
		}
	}
	c.Add = m.write(m.tbl.Base(), mixed.Base, txn, m.rows, nil)
	m.base(m.tbl, c)
}

func (m *model) expire() {
	m.t.Helper()
	now := m.load(m.tbl)
	merged := slices.DeleteFunc(m.files(now.Change()), func(f table.File) bool { return !now.Merged(f) })
	if _, err := m.tbl.RemoveChangeFiles(m.t.Context(), merged, 0); err != nil {
		m.t.Fatal(err)
	}
	m.now = time.Now().Add(time.Second)
	for _, s := range []*table.Store{m.tbl.Base(), m.tbl.Change()} {
		if _, err := m.tbl.ExpireSnapshots(m.t.Context(), s, 3, 0); err != nil {
			m.t.Fatal(err)
		}
	}
}

// steps are what evolve does, one after another.
func (m *model) steps() []changelog.Evolution {
	prim := changelog.Primitive
	turned := []string(nil)
	for _, c := range m.schema.Columns {
		turned = append([]string{c.Name}, turned...)
	}
	return []changelog.Evolution{
		{Add: []changelog.Column{{Name: "more", Type: changelog.ListOf(prim(changelog.Date))}}, Widen: map[string]*changelog.Type{
			"c_int": prim(changelog.Long), "c_float": prim(changelog.Double), "d1": changelog.DecimalOf(9, 2),
		}},
		{Drop: []string{"c_date", "d2"}, Rename: map[string]string{"c_double": "c_float", "c_float": "c_double", "fx": "fixed"}},
		{Add: []changelog.Column{{Name: "c_date", Type: prim(changelog.String)}}, Order: append(turned, "c_date")},
		{Widen: map[string]*changelog.Type{
			"d1": changelog.DecimalOf(30, 2), "ma": changelog.MapOf(prim(changelog.String), changelog.ListOf(prim(changelog.Long))),
			"st": {Kind: changelog.Struct, Fields: []changelog.Column{{Name: "c", Type: prim(changelog.String)}, {Name: "a", Type: prim(changelog.Long)}}},
		}, Rename: map[string]string{"more": "much"}},
	}
}

func (m *model) evolve() {
	m.t.Helper()
	next, err := m.schema.Apply(m.steps()[len(m.history)-1])
	if err != nil {
		m.t.Fatal(err)
	}
	m.history = append(m.history, next)
	if err := m.tbl.SyncSchemas(m.t.Context(), m.history); err != nil {
		m.t.Fatal(err)
	}
	p, err := changelog.NewProjection(m.schema, next)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, rows := range []map[int64][]changelog.Value{m.rows, m.pending} {
		for id, v := range rows {
			if v == nil {
				continue
			}
			now, err := p.Values(changelog.AppendRow(nil, m.schema, v))
			if err != nil {
				m.t.Fatal(err)
			}
			rows[id] = slices.Clone(now)
		}
	}
	m.schema = next
}

// check compares the base store with the model.
func (m *model) check() {
	m.t.Helper()
	got := m.lake.rows(m.load(m.tbl).Base(), m.schema)
	if len(got) != len(m.rows) {
		m.t.Fatalf("%d rows, want %d", len(got), len(m.rows))
	}
	for id, v := range m.rows {
		if got[id] != string(v[m.schema.OrdinalOf(2)].B) {
			m.t.Fatalf("row %d is %q, want %q", id, got[id], v[m.schema.OrdinalOf(2)].B)
		}
	}
}

// TestLife drives tables of all types through flushes, minor and major rounds, expiry and evolution, and compares each
// round with a model. With FIRN_LAKE_DIR it leaves them in that directory, each with the rows (id and name) that readers
// must show, NAME.base.jsonl and NAME.merged.jsonl, and whole rows in the row form, sorted: NAME.base.rows.jsonl and NAME.merged.rows.jsonl.
func TestLife(t *testing.T) {
	dir := os.Getenv("FIRN_LAKE_DIR")
	keep := dir != ""
	if !keep {
		dir = t.TempDir()
	}
	l := newLakeIn(t, dir)
	steps := map[string]string{"flushed": "ff", "minor": "fffm", "again": "ffmfmffmf", "major": "ffmfmMf", "expired": "ffmfmMffmfxf", "evolved": "ffmfefmeffmfefmMfefmxfmf"}
	for name, script := range steps {
		s := everything(t)
		m := &model{
			lake: l, tbl: l.create("db."+name, s), r: rand.New(rand.NewPCG(7, uint64(len(script)))), schema: s, history: changelog.Schemas{s},
			rows: map[int64][]changelog.Value{}, pending: map[int64][]changelog.Value{}, at: map[int64]datafile.PosDelete{},
		}
		for _, step := range script {
			switch step {
			case 'f':
				m.flush(40)
			case 'm':
				m.minor()
			case 'M':
				m.major()
			case 'x':
				m.expire()
			case 'e':
				m.evolve()
			}
			m.check()
		}
		if keep {
			m.leave(name)
		}
	}
}

func (m *model) leave(name string) {
	m.t.Helper()
	merged := maps.Clone(m.rows)
	for id, v := range m.pending {
		delete(merged, id)
		if v != nil {
			merged[id] = v
		}
	}
	whole, err := rowjson.NewEncoder(m.history, rowjson.Options{Sorted: true})
	if err != nil {
		m.t.Fatal(err)
	}
	for part, rows := range map[string]map[int64][]changelog.Value{"base": m.rows, "merged": merged} {
		var lines, all []string
		for id, v := range rows {
			lines = append(lines, fmt.Sprintf("{\"id\":%d,\"name\":%q}\n", id, v[m.schema.OrdinalOf(2)].B))
			row, err := whole.AppendValues(nil, v)
			if err != nil {
				m.t.Fatal(err)
			}
			all = append(all, string(row)+"\n")
		}
		slices.Sort(all)
		if err := os.WriteFile(filepath.Join(m.dir, name+"."+part+".rows.jsonl"), []byte(strings.Join(all, "")), 0o600); err != nil {
			m.t.Fatal(err)
		}
		slices.Sort(lines)
		if err := os.WriteFile(filepath.Join(m.dir, name+"."+part+".jsonl"), []byte(strings.Join(lines, "")), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
}
