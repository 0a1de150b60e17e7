package changelog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func structOf(fields ...Column) *Type { return &Type{Kind: Struct, Fields: fields} }

func column(name string, t *Type) Column { return Column{Name: name, Type: t} }

// spell lists columns as name#id type, with ! where they are required.
func spell(columns []Column) string {
	var all []string
	for _, c := range columns {
		s := fmt.Sprintf("%s#%d", c.Name, c.ID)
		if c.Required {
			s += "!"
		}
		if c.Type.Nested() {
			s += " " + c.Type.Kind.String() + "(" + spell(c.Type.Fields) + ")"
		} else {
			s += " " + c.Type.String()
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func evolvable(t *testing.T) *Schema {
	t.Helper()
	s, err := NewSchema([]Column{
		column("id", Primitive(Int)), column("a", Primitive(Int)), column("b", Primitive(Float)), column("c", DecimalOf(9, 2)),
		column("st", structOf(column("x", Primitive(Int)), column("y", Primitive(String)))), column("l", ListOf(Primitive(Int))),
		column("m", MapOf(Primitive(String), Primitive(Float))),
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	s.Columns[1].Required = true
	return s
}

// TestApply: what each kind of step makes of a schema, and what none can.
func TestApply(t *testing.T) {
	const (
		id   = "id#1! int"
		rest = "st#5 struct(x#8 int, y#9 string), l#6 list(element#10 int), m#7 map(key#11! string, value#12 float)"
	)
	for _, c := range []struct {
		name string
		e    Evolution
		want string
		err  error // errAny: whatever it is
	}{
		{name: "add", e: Evolution{Add: []Column{{Name: "n", Type: Primitive(Long), Required: true}}}, want: id + ", a#2! int, b#3 float, c#4 decimal(9,2), " + rest + ", n#13 long"},
		{
			name: "widen", e: Evolution{Widen: map[string]*Type{"a": Primitive(Long), "b": Primitive(Double), "c": DecimalOf(20, 2), "id": Primitive(Long)}},
			want: "id#1! long, a#2! long, b#3 double, c#4 decimal(20,2), " + rest,
		},
		{name: "widen parts", e: Evolution{Widen: map[string]*Type{
			"st": structOf(column("z", Primitive(Boolean)), column("x", Primitive(Long))), "l": ListOf(Primitive(Long)), "m": MapOf(Primitive(String), Primitive(Double)),
		}}, want: id + ", a#2! int, b#3 float, c#4 decimal(9,2), st#5 struct(x#8 long, y#9 string, z#13 boolean), l#6 list(element#10 long), m#7 map(key#11! string, value#12 double)"},
		{name: "drop", e: Evolution{Drop: []string{"b", "st"}}, want: id + ", a#2! int, c#4 decimal(9,2), l#6 list(element#10 int), m#7 map(key#11! string, value#12 float)"},
		{name: "drop and add", e: Evolution{Drop: []string{"b"}, Add: []Column{column("b", Primitive(String))}}, want: id + ", a#2! int, c#4 decimal(9,2), " + rest + ", b#13 string"},
		{name: "rename", e: Evolution{Rename: map[string]string{"a": "b", "b": "a"}}, want: id + ", b#2! int, a#3 float, c#4 decimal(9,2), " + rest},
		{name: "rename to a dropped one", e: Evolution{Rename: map[string]string{"a": "b"}, Drop: []string{"b"}}, want: id + ", b#2! int, c#4 decimal(9,2), " + rest},
		{name: "optional", e: Evolution{Optional: []string{"a"}}, want: id + ", a#2 int, b#3 float, c#4 decimal(9,2), " + rest},
		{
			name: "order", e: Evolution{Order: []string{"st", "id", "n", "a", "b", "c", "m", "l"}, Add: []Column{column("n", Primitive(Int))}},
			want: "st#5 struct(x#8 int, y#9 string), " + id + ", n#13 int, a#2! int, b#3 float, c#4 decimal(9,2), m#7 map(key#11! string, value#12 float), l#6 list(element#10 int)",
		},

		{name: "drop the key", e: Evolution{Drop: []string{"id"}}, err: ErrKeyColumn},
		{name: "rename the key", e: Evolution{Rename: map[string]string{"id": "x"}}, err: ErrKeyColumn},
		{name: "key optional", e: Evolution{Optional: []string{"id"}}, err: ErrKeyColumn},
		{name: "narrow", e: Evolution{Widen: map[string]*Type{"c": DecimalOf(8, 2)}}, err: ErrIncompatible},
		{name: "scale", e: Evolution{Widen: map[string]*Type{"c": DecimalOf(12, 3)}}, err: ErrIncompatible},
		{name: "member to another type", e: Evolution{Widen: map[string]*Type{"st": structOf(column("x", Primitive(String)))}}, err: ErrIncompatible},
		{name: "map key", e: Evolution{Widen: map[string]*Type{"m": MapOf(Primitive(Long), Primitive(Float))}}, err: ErrIncompatible},
		{name: "drop nothing", e: Evolution{Drop: []string{"zz"}}, err: errAny},
		{name: "rename to one that is there", e: Evolution{Rename: map[string]string{"a": "b"}}, err: errAny},
		{name: "order of some", e: Evolution{Order: []string{"id"}}, err: errAny},
		{name: "order with one twice", e: Evolution{Order: []string{"id", "id", "b", "c", "st", "l", "m"}}, err: errAny},
	} {
		s := evolvable(t)
		before := spell(s.Columns)
		n, err := s.Apply(c.e)
		switch {
		case c.err == nil && err != nil, c.err != nil && err == nil, c.err != nil && !errors.Is(c.err, errAny) && !errors.Is(err, c.err):
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		case err == nil && (spell(n.Columns) != c.want || n.ID != 1 || !slices.Equal(n.Key, []int{1})):
			t.Errorf("%s: schema %d, key %v\n got %s\nwant %s", c.name, n.ID, n.Key, spell(n.Columns), c.want)
		case err == nil:
			if err := (Schemas{s}).Follows(n); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if spell(s.Columns) != before {
			t.Errorf("%s has changed the old schema: %s", c.name, spell(s.Columns))
		}
	}
}

var errAny = errors.New("any")

// TestFloatKey: a key of floats is never widened, neither by a step nor by a schema from elsewhere; one of ints keeps its bytes and may be.
func TestFloatKey(t *testing.T) {
	for from, c := range map[Kind]struct {
		to  Kind
		err error
	}{Float: {Double, ErrKeyColumn}, Int: {Long, nil}} {
		s, err := NewSchema([]Column{column("k", Primitive(from)), column("v", Primitive(Float))}, []string{"k"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Evolve(nil, map[string]*Type{"k": Primitive(c.to)}); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", from, err)
		}
		next, err := s.Evolve(nil, map[string]*Type{"v": Primitive(Double)})
		if err != nil {
			t.Fatal(err)
		}
		next.Columns[0].Type = Primitive(c.to)
		if err := (Schemas{s}).Follows(next); !errors.Is(err, c.err) {
			t.Errorf("%s elsewhere: %v", from, err)
		}
	}
}

// TestFollows: field ids are never used twice, the key stays, and Iceberg keeps no schema twice.
func TestFollows(t *testing.T) {
	s := evolvable(t)
	step := func(from *Schema, e Evolution) *Schema {
		t.Helper()
		n, err := from.Apply(e)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	h := Schemas{s, step(s, Evolution{Drop: []string{"m"}})}
	h = append(h, step(h[1], Evolution{Add: []Column{column("m", Primitive(Int))}}))
	if id := h[2].Columns[h[2].Ordinal("m")].ID; id != 13 {
		t.Errorf("a column that comes again has id %d", id)
	}
	back := step(step(s, Evolution{Rename: map[string]string{"a": "z"}}), Evolution{Rename: map[string]string{"z": "a"}})
	back.ID = 1
	if err := (Schemas{s}).Follows(back); err != nil {
		t.Errorf("a rename back: %v", err)
	}
	order := []string{"a", "id", "b", "c", "st", "l", "m"}
	moved := step(s, Evolution{Order: order})
	again := step(moved, Evolution{Order: []string{"id", "a", "b", "c", "st", "l", "m"}})
	if err := (Schemas{s, moved}).Follows(again); err == nil || !strings.Contains(err.Error(), "schema 0 again") {
		t.Errorf("an order again: %v", err)
	}
	if err := h.Follows(h[2]); err == nil {
		t.Error("an id that is taken follows")
	}
	for name, spoil := range map[string]func(n *Schema){
		"another key":      func(n *Schema) { n.Key = []int{2} },
		"key renamed":      func(n *Schema) { n.Columns[0].Name = "key" },
		"key optional":     func(n *Schema) { n.Columns[0].Required = false },
		"id used again":    func(n *Schema) { n.Columns[len(n.Columns)-1].ID = 7 },
		"incompatible":     func(n *Schema) { n.Columns[1].Type = Primitive(String) },
		"incompatible, in": func(n *Schema) { n.Columns[n.Ordinal("st")].Type.Fields[0].Type = Primitive(String) },
	} {
		n := step(h[2], Evolution{Add: []Column{column("more", Primitive(Int))}})
		spoil(n)
		if err := n.Index(); err != nil {
			t.Fatal(name, err)
		}
		if err := h.Follows(n); err == nil {
			t.Errorf("%s follows", name)
		}
	}
}

// TestProjectNested: rows of old schemas read in newer ones, inside nested values, too, and the other way.
func TestProjectNested(t *testing.T) {
	s := evolvable(t)
	n, err := s.Apply(Evolution{
		Rename: map[string]string{"a": "z"}, Drop: []string{"c"}, Add: []Column{column("c", Primitive(String))},
		Widen: map[string]*Type{
			"a": Primitive(Long), "st": structOf(column("w", Primitive(Double)), column("x", Primitive(Long))), "l": ListOf(Primitive(Long)),
			"m": MapOf(Primitive(String), Primitive(Double)),
		},
		Order: []string{"m", "c", "st", "z", "id", "b", "l"},
	})
	if err != nil {
		t.Fatal(err)
	}
	typ := func(s *Schema, name string) *Type { return s.Columns[s.Ordinal(name)].Type }
	key := []Value{{B: []byte("k")}, {B: []byte("l")}}
	list := []Value{{I: -3}, NullValue}
	row := AppendRow(nil, s, []Value{
		{I: 1},
		{I: 2},
		FloatValue(0.5),
		{B: []byte{7}},
		{B: AppendStruct(nil, typ(s, "st"), []Value{{I: -9}, {B: []byte("y")}})},
		{B: AppendList(nil, typ(s, "l"), list)},
		{B: AppendMap(nil, typ(s, "m"), key, []Value{FloatValue(1.5), NullValue})},
	})
	want := []Value{
		{B: AppendMap(nil, typ(n, "m"), key, []Value{DoubleValue(1.5), NullValue})},
		NullValue,
		{B: AppendStruct(nil, typ(n, "st"), []Value{{I: -9}, {B: []byte("y")}, NullValue})},
		{I: 2},
		{I: 1},
		FloatValue(0.5),
		{B: AppendList(nil, typ(n, "l"), list)},
	}
	p, err := NewProjection(s, n)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.Values(row); err != nil || !sameValues(got, want) {
		t.Errorf("forward: %v\ngot  %v\nwant %v", err, got, want)
	}
	back, err := NewProjection(n, s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := back.Values(AppendRow(nil, n, want))
	if err != nil {
		t.Fatal(err)
	}
	old, err := AppendValues(nil, s, row)
	if err != nil {
		t.Fatal(err)
	}
	old[3] = NullValue // dropped
	if !sameValues(got, old) {
		t.Errorf("back: got %v\nwant %v", got, old)
	}
}
