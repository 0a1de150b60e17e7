package flush

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/changelog/table"
	"firn/state"
)

// The field ids of the columns that every row has.
const (
	vColumn  = 1
	idColumn = 2
)

// values returns a new row in the current schema.
func (w *world) values(id int64) []changelog.Value {
	values := make([]changelog.Value, len(w.schema().Columns))
	for o, c := range w.schema().Columns {
		switch c.ID {
		case idColumn:
			values[o] = changelog.Value{I: id}
		case vColumn:
			values[o] = changelog.Value{B: fmt.Appendf(nil, "v%d", w.rnd.IntN(1000))}
		default:
			values[o] = w.value(c.Type)
		}
	}
	return values
}

// value returns a value that every type that t widens to can show.
func (w *world) value(t *changelog.Type) changelog.Value {
	n := int64(w.rnd.IntN(90)) - 40
	if w.bag { // rows are to be equal often
		n %= 2
	}
	switch t.Kind {
	case changelog.Float:
		return changelog.FloatValue(float32(n) + 0.5)
	case changelog.Double:
		return changelog.DoubleValue(float64(n) + 0.5)
	case changelog.Decimal:
		return changelog.Value{B: []byte{byte(n)}}
	case changelog.Struct:
		members := make([]changelog.Value, len(t.Fields))
		for i, f := range t.Fields {
			members[i] = w.value(f.Type)
		}
		return changelog.Value{B: changelog.AppendStruct(nil, t, members)}
	default:
		return changelog.Value{I: n}
	}
}

var (
	narrowTypes = []*changelog.Type{
		changelog.Primitive(changelog.Int), changelog.Primitive(changelog.Float), changelog.DecimalOf(5, 1),
		{Kind: changelog.Struct, Fields: []changelog.Column{{Name: "a", Type: changelog.Primitive(changelog.Int)}}},
	}
	wideTypes = map[changelog.Kind]*changelog.Type{
		changelog.Int: changelog.Primitive(changelog.Long), changelog.Float: changelog.Primitive(changelog.Double), changelog.Decimal: changelog.DecimalOf(25, 1),
		changelog.Struct: {Kind: changelog.Struct, Fields: []changelog.Column{
			{Name: "b", Type: changelog.Primitive(changelog.Long)}, {Name: "a", Type: changelog.Primitive(changelog.Long)},
		}},
	}
)

// evolve takes the table one random step further: it adds a column and does something to about half of the others.
func (w *world) evolve(n *node) {
	w.tb.Helper()
	old := w.schema()
	c := fmt.Sprint("c", len(w.schemas))
	e := changelog.Evolution{
		Rename: map[string]string{}, Widen: map[string]*changelog.Type{},
		Add: []changelog.Column{{Name: c, Type: narrowTypes[w.rnd.IntN(len(narrowTypes))]}},
	}
	order := []string{c}
	for _, col := range old.Columns {
		name := col.Name
		switch what := w.rnd.IntN(8); {
		case what == 0 && col.ID > idColumn:
			e.Drop = append(e.Drop, name)
			continue
		case what == 1 && col.ID != idColumn:
			name = fmt.Sprintf("r%d_%d", len(w.schemas), col.ID)
			e.Rename[col.Name] = name
		case what < 5 && wideTypes[col.Type.Kind] != nil:
			e.Widen[col.Name] = wideTypes[col.Type.Kind]
		}
		order = append(order, name)
	}
	w.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	e.Order = order
	s := must(old.Apply(e))
	w.schemas = append(w.schemas, s)
	must(n.reg.AddSchema(w.tb.Context(), n.id, s))
	for id, v := range w.model {
		w.model[id] = moved(old, s, v)
	}
	for i, v := range w.rows {
		w.rows[i] = moved(old, s, v)
	}
}

// moved is the model's own idea of a row after a step.
func moved(old, s *changelog.Schema, v []changelog.Value) []changelog.Value {
	now := make([]changelog.Value, len(s.Columns))
	for o, c := range s.Columns {
		now[o] = changelog.NullValue
		was := slices.IndexFunc(old.Columns, func(f changelog.Column) bool { return f.ID == c.ID })
		if was < 0 || v[was].Null {
			continue
		}
		now[o] = v[was]
		switch from := old.Columns[was].Type; {
		case from.Kind == changelog.Float && c.Type.Kind == changelog.Double:
			now[o] = changelog.DoubleValue(float64(v[was].Float()))
		case from.Kind == changelog.Struct && len(from.Fields) == 1 && len(c.Type.Fields) == 2: // {a} became {a, b}
			now[o].B = changelog.AppendStruct(nil, c.Type, append(must(changelog.AppendValues(nil,
				&changelog.Schema{Columns: from.Fields}, append([]byte{0}, v[was].B...))), changelog.NullValue))
		}
	}
	return now
}

// TestEvolveWhileFlushing: after every step of any kind, log, union, merged rows and feed equal the model, with rows of all
// schemas in the log and in the change files, over crashes (P1, P5).
func TestEvolveWhileFlushing(t *testing.T) {
	for seed := range max(uint64(1), 4/sweep) {
		w := newWorld(t, 100+seed)
		n := w.open()
		f := w.flusher(n, nil)
		for i := range 10 {
			w.append(n, 10, 30)
			w.evolve(n)
			w.append(n, 10, 30)
			if w.rnd.IntN(3) == 0 {
				w.evolve(n) // two steps between flushes: their rows go in one file
				w.append(n, 5, 30)
			}
			if i%3 < 2 {
				w.append(n, 1, 1)
				w.drain(f)
				w.check(n, true)
				if !w.load().InStep(len(w.schemas)) {
					t.Fatal("the stores are out of step")
				}
			}
			w.current(n)
			if i == 5 {
				n = n.crash()
				f = w.flusher(n, nil)
			}
		}
	}
}

// current compares the current rows of the log with the model.
func (w *world) current(n *node) {
	w.tb.Helper()
	snap := must(n.store.Snapshot(w.tb.Context(), n.id))
	defer snap.Close()
	var got []string
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			w.tb.Fatal(err)
		}
		s := must(w.schemas.Of(e.Row))
		got = append(got, w.text(must(must(changelog.NewProjection(s, w.schema())).Values(e.Row))))
	}
	w.equal("log", got)
}

// TestSchemaPowerLoss cuts the power before each write to the disk while two schema changes go to the lake. The base store is
// never behind, nor more than one ahead (spec/mixed-format.md 1.4), and the start of the process brings the two in step,
// before anything is flushed.
func TestSchemaPowerLoss(t *testing.T) {
	apart, where := 0, map[string]int{}
	for k := 1; schemaPowerLossAt(t, k, &apart, where); k++ {
	}
	t.Logf("power cut at %v, between the stores %d times", where, apart)
	if apart < 2 || where["lake"] < 20 {
		t.Errorf("power cut at %v, between the stores %d times only", where, apart)
	}
}

func schemaPowerLossAt(t *testing.T, k int, apart *int, where map[string]int) bool {
	p := &plug{disk: vfs.NewCrashableMem()}
	w := newWorld(t, 5)
	w.openLake(p.on("lake"))
	n := openNodeOn(t, p.disk, p.on("pebble"))
	n.id = must(n.reg.Create(t.Context(), tableName, w.schemas[0], topicRef, nil)).ID
	o := Options{MaxRows: 50, BucketRows: 8, Buckets: 2}
	f := must(must(New(n.store, n.reg, w.catalog, o)).Flusher(n.id))
	w.append(n, 15, 30)
	w.append(n, 1, 1)
	w.drain(f)
	p.mu.Lock()
	p.left = k
	p.mu.Unlock()
	w.every = func(_ context.Context, _ table.Attempt, commit func() error) error {
		if p.dead() {
			return errDead
		}
		return commit()
	}
	w.evolve(n)
	w.evolve(n)
	w.append(n, 15, 30)
	w.append(n, 1, 1)
	if _, err := f.Flush(t.Context()); err != nil && (!errors.Is(err, errDead) || !p.dead()) {
		t.Fatal(err)
	}
	if !p.dead() {
		return false
	}
	where[p.where]++
	w.every = nil
	n.close()
	w.openLake(p.after)
	n = openNode(t, p.after)
	entry, _ := n.reg.ByID(n.id)
	w.schemas = w.schemas[:len(entry.Schemas)] // what the registry has not kept is found again by ingest
	lake := w.load()
	if !lake.InStep(1) {
		*apart++
	}
	f = must(must(New(n.store, n.reg, w.catalog, o)).Flusher(n.id))
	if err := f.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.load(); !got.InStep(len(lake.Schemas())) || len(got.Schemas()) > len(w.schemas) {
		t.Fatalf("power cut %d: out of step after the start", k)
	}
	if len(w.schemas) == 3 {
		next, _, err := n.store.Position(changelog.StreamID{Source: "k", Topic: "t"})
		if err != nil {
			t.Fatal(err)
		}
		w.replay(n, next)
		w.append(n, 5, 30)
		w.append(n, 1, 1)
		w.drain(f)
		w.check(n, true)
	}
	n.close()
	return true
}

// TestFencedSchema (P3): a writer whose epoch is over adds no schema.
func TestFencedSchema(t *testing.T) {
	w := newWorld(t, 3)
	n := w.open()
	f := w.flusher(n, nil)
	w.append(n, 20, 30)
	w.drain(f)
	if _, err := w.load().ClaimEpoch(t.Context(), "another", 0); err != nil {
		t.Fatal(err)
	}
	w.evolve(n)
	w.append(n, 20, 30)
	if _, err := f.Flush(t.Context()); !errors.Is(err, state.ErrFenced) {
		t.Errorf("flush: %v", err)
	}
	if got := len(w.load().Schemas()); got != 1 {
		t.Errorf("%d schemas in the lake", got)
	}
}
