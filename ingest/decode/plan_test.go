package decode

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
)

// typeOf reads a type as changelog.Type.String shows it.
func typeOf(t testing.TB, s string) *changelog.Type {
	t.Helper()
	var p, q int
	if n, _ := fmt.Sscanf(s, "decimal(%d,%d)", &p, &q); n == 2 {
		return changelog.DecimalOf(p, q)
	}
	if inner, ok := strings.CutPrefix(s, "list<"); ok {
		return changelog.ListOf(typeOf(t, strings.TrimSuffix(inner, ">")))
	}
	if inner, ok := strings.CutPrefix(s, "map<"); ok {
		k, v, _ := strings.Cut(strings.TrimSuffix(inner, ">"), ",")
		return changelog.MapOf(typeOf(t, k), typeOf(t, v))
	}
	if inner, ok := strings.CutPrefix(s, "struct<"); ok {
		st := &changelog.Type{Kind: changelog.Struct}
		for f := range strings.SplitSeq(strings.TrimSuffix(inner, ">"), ",") {
			name, typ, _ := strings.Cut(f, ":")
			st.Fields = append(st.Fields, changelog.Column{Name: name, Type: typeOf(t, typ)})
		}
		return st
	}
	if n, _ := fmt.Sscanf(s, "fixed(%d)", &p); n == 1 {
		return &changelog.Type{Kind: changelog.Fixed, Length: p}
	}
	for k := changelog.Boolean; k <= changelog.TimestampTZNS; k++ {
		if k.String() == s {
			return changelog.Primitive(k)
		}
	}
	t.Fatalf("type %q", s)
	return nil
}

// shapeFrom makes a shape of "name type" columns separated by blanks; those marked with ! are its key.
func shapeFrom(t testing.TB, s string) *Shape {
	t.Helper()
	shape := &Shape{}
	words := strings.Fields(s)
	for i := 0; i < len(words); i += 2 {
		name, key := strings.CutSuffix(words[i], "!")
		if key {
			shape.Key = append(shape.Key, len(shape.Columns))
		}
		shape.Columns = append(shape.Columns, Column{Name: name, Type: typeOf(t, words[i+1])})
	}
	return shape
}

// show lists a schema's columns as shapeFrom takes them.
func show(s *changelog.Schema) string {
	if s == nil {
		return "unchanged"
	}
	var words []string
	for _, c := range s.Columns {
		name := c.Name
		if c.Required {
			name += "!"
		}
		words = append(words, name+" "+c.Type.String())
	}
	return strings.Join(words, " ")
}

func renames(pairs ...string) PlanOptions {
	o := PlanOptions{Renames: map[string]string{}}
	for i := 0; i < len(pairs); i += 2 {
		o.Renames[pairs[i]] = pairs[i+1]
	}
	return o
}

func drops(names ...string) PlanOptions { return PlanOptions{Drops: names} }

// TestPlanOptional: what a table from elsewhere has required, beside its key, is optional before a row of ours is in it.
func TestPlanOptional(t *testing.T) {
	_, s, err := Plan(nil, shapeFrom(t, "id! long a int b string"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Columns[1].Required, s.Columns[2].Required = true, true
	m, next, err := Plan(s, shapeFrom(t, "id! long a int"), drops("b"))
	if err != nil {
		t.Fatal(err)
	}
	if got := show(next); got != "id! long a int" {
		t.Errorf("%s", got)
	}
	if _, again, err := Plan(next, shapeFrom(t, "id! long a int b string"), drops("b")); err != nil || again != nil {
		t.Errorf("again: %v, %v", show(again), err)
	}
	if m.Name(1) != "a" || m.Ordinal(1) != 1 {
		t.Errorf("column a is %s at %d", m.Name(1), m.Ordinal(1))
	}
}

func TestPlanOptionsValidate(t *testing.T) {
	for _, c := range []struct {
		o    PlanOptions
		want string
	}{
		{o: PlanOptions{Renames: map[string]string{"a": "b", "b": "c"}, Drops: []string{"d"}}},
		{o: renames("a", "b", "b", "a"), want: "would become itself"},
		{o: renames("a", "a"), want: "would become itself"},
		{o: renames("a", "c", "b", "c"), want: "both"},
		{o: renames("a", ""), want: "1 to 255 bytes"},
		{o: PlanOptions{Renames: map[string]string{"a": "b"}, Drops: []string{"b"}}, want: "drops"},
		{o: PlanOptions{Renames: map[string]string{"a": "b"}, Drops: []string{"a"}}, want: "drops"},
	} {
		err := c.o.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

func TestPlan(t *testing.T) {
	long := strings.Repeat("n", 256)
	for _, c := range []struct {
		name           string
		current, event string // no current: a new table
		o              PlanOptions
		want           string // the next schema, "unchanged", or the reason of a rejection
	}{
		{name: "new table", event: "id! long name string", want: "id! long name string"},
		{name: "new table without key", event: "a int b list<string>", want: "a int b list<string>"},
		{name: "new table, uuid key", event: "id! uuid u uuid", want: "id! string u uuid"},
		{name: "new table, binary and fixed keys", event: "a! binary b! fixed(3) c binary d fixed(3)", want: "a! string b! string c binary d fixed[3]"},
		{name: "new table, native keys", event: "u! uuid a! binary b! fixed(3)", o: PlanOptions{NativeKeys: true}, want: "u! uuid a! binary b! fixed[3]"},
		{name: "float key", event: "id! float", want: ReasonKeyDecode},
		{name: "double key", event: "a int id! double", want: ReasonKeyDecode},
		{name: "nested key", event: "id! list<int>", want: ReasonKeyDecode},
		{name: "same", current: "id! long name string", event: "id! long name string", want: "unchanged"},
		{name: "other order", current: "id! long a string b int", event: "b int a string id! long", want: "unchanged"},
		{name: "new column", current: "id! long", event: "id! long name string", want: "id! long name string"},
		{name: "new column in the middle", current: "id! long z int", event: "id! long name string z int", want: "id! long z int name string"},
		{name: "dropped column", current: "id! long name string", event: "id! long", want: "unchanged"},
		{name: "rename", current: "id! long name string", event: "id! long title string", want: "id! long name string title string"},
		{name: "int to long", current: "id! long a int", event: "id! long a long", want: "id! long a long"},
		{name: "long to int", current: "id! long a long", event: "id! long a int", want: "unchanged"},
		{name: "float to double", current: "id! long a float", event: "id! long a double", want: "id! long a double"},
		{name: "double to float", current: "id! long a double", event: "id! long a float", want: "unchanged"},
		{name: "decimal wider", current: "id! long a decimal(10,2)", event: "id! long a decimal(14,2)", want: "id! long a decimal(14,2)"},
		{name: "decimal narrower", current: "id! long a decimal(10,2)", event: "id! long a decimal(8,2)", want: "unchanged"},
		{name: "decimal scale up", current: "id! long a decimal(10,2)", event: "id! long a decimal(12,4)", want: "id! long a decimal(10,2) a__decimal_12_4 decimal(12,4)"},
		{name: "decimal scale down", current: "id! long a decimal(10,2)", event: "id! long a decimal(9,1)", want: "id! long a decimal(10,2) a__decimal_9_1 decimal(9,1)"},
		{name: "decimal scale down, kept", current: "id! long a decimal(10,2)", event: "id! long a decimal(9,1)", o: PlanOptions{KeepReducedScale: true}, want: "unchanged"},
		{name: "decimal scale down, too wide", current: "id! long a decimal(10,2)", event: "id! long a decimal(10,1)", o: PlanOptions{KeepReducedScale: true}, want: "id! long a decimal(10,2) a__decimal_10_1 decimal(10,1)"},
		{name: "decimal over 38", current: "id! long a decimal(38,2)", event: "id! long a string", want: "id! long a decimal(38,2) a__string string"},
		{name: "int to string", current: "id! long a int", event: "id! long a string", want: "id! long a int a__string string"},
		{name: "and back", current: "id! long a int a__string string", event: "id! long a int", want: "unchanged"},
		{name: "and again", current: "id! long a int a__string string", event: "id! long a string", want: "unchanged"},
		{name: "a third type", current: "id! long a int a__string string", event: "id! long a boolean", want: "id! long a int a__string string a__boolean boolean"},
		{name: "string to int", current: "id! long a string", event: "id! long a int", want: "id! long a string a__int int"},
		{name: "variant widens to none", current: "id! long a string a__int int", event: "id! long a long", want: "id! long a string a__int int a__long long"},
		{name: "date to timestamp", current: "id! long a date", event: "id! long a timestamp", want: "id! long a date a__timestamp timestamp"},
		{name: "timestamp to timestamptz", current: "id! long a timestamp", event: "id! long a timestamptz", want: "id! long a timestamp a__timestamptz timestamptz"},
		{name: "long to decimal", current: "id! long a long", event: "id! long a decimal(20,0)", want: "id! long a long a__decimal_20_0 decimal(20,0)"},
		{name: "scalar to list", current: "id! long a int", event: "id! long a list<int>", want: "id! long a int a__list list<int>"},
		{name: "list element narrower", current: "id! long a list<long>", event: "id! long a list<int>", want: "unchanged"},
		{name: "list element wider", current: "id! long a list<int>", event: "id! long a list<long>", want: "id! long a list<long>"},
		{name: "list again wider", current: "id! long a list<int> a__list list<long>", event: "id! long a list<string>", want: "id! long a list<int> a__list list<long> a__list_2 list<string>"},
		{name: "struct member gone", current: "id! long a struct<x:int,y:string>", event: "id! long a struct<y:string>", want: "unchanged"},
		{name: "struct member new", current: "id! long a struct<x:int>", event: "id! long a struct<x:int,y:string>", want: "id! long a struct<x:int,y:string>"},
		{name: "struct, both ways", current: "id! long a struct<x:long,z:float>", event: "id! long a struct<y:string,x:int,z:double>", want: "id! long a struct<x:long,z:double,y:string>"},
		{name: "struct member of another type", current: "id! long a struct<x:int>", event: "id! long a struct<x:string>", want: "id! long a struct<x:int> a__struct struct<x:string>"},
		{name: "list of structs", current: "id! long a list<struct<x:int>>", event: "id! long a list<struct<x:int,y:int>>", want: "id! long a list<struct<x:int,y:int>>"},
		{name: "map value wider", current: "id! long a map<string,int>", event: "id! long a map<string,long>", want: "id! long a map<string,long>"},
		{name: "map value", current: "id! long a map<string,long>", event: "id! long a map<string,int>", want: "unchanged"},
		{name: "map key", current: "id! long a map<long,string>", event: "id! long a map<int,string>", want: "id! long a map<long,string> a__map map<int,string>"},

		{name: "renamed", current: "id! long a int z int", event: "id! long b int z int", o: renames("a", "b"), want: "id! long b int z int"},
		{name: "renamed and widened", current: "id! long a int", event: "id! long b long", o: renames("a", "b"), want: "id! long b long"},
		{name: "renamed, of another type", current: "id! long a int", event: "id! long b string", o: renames("a", "b"), want: "id! long b int b__string string"},
		{name: "renamed, all types of it", current: "id! long a int a__string string", event: "id! long b string", o: renames("a", "b"), want: "id! long b int b__string string"},
		{name: "renamed, old event", current: "id! long b int", event: "id! long a int", o: renames("a", "b"), want: "unchanged"},
		{name: "renamed, old event of another type", current: "id! long b int", event: "id! long a string", o: renames("a", "b"), want: "id! long b int b__string string"},
		{name: "renamed, and a new one of the old name", current: "id! long b int", event: "id! long a string b int", o: renames("a", "b"), want: "id! long b int a string"},
		{name: "not yet renamed", current: "id! long a int", event: "id! long a int", o: renames("a", "b"), want: "unchanged"},
		{name: "both there", current: "id! long a int", event: "id! long a int b int", o: renames("a", "b"), want: "id! long a int b int"},
		{name: "twice renamed", current: "id! long a int", event: "id! long b int", o: renames("a", "b", "b", "c"), want: "id! long b int"},
		{name: "twice renamed at once", current: "id! long a int", event: "id! long c int", o: renames("a", "b", "b", "c"), want: "id! long c int"},
		{name: "twice renamed, second", current: "id! long b int", event: "id! long c int", o: renames("a", "b", "b", "c"), want: "id! long c int"},
		{name: "twice renamed, oldest event", current: "id! long c int", event: "id! long a int", o: renames("a", "b", "b", "c"), want: "unchanged"},
		{name: "renamed key", current: "id! long a int", event: "key! long a int", o: renames("id", "key"), want: ReasonKeyColumnsChanged},
		{name: "renamed, new table", event: "id! long b int", o: renames("a", "b"), want: "id! long b int"},
		{name: "dropped", current: "id! long a int a__string string b int", event: "id! long b int", o: drops("a"), want: "id! long b int"},
		{name: "dropped, still sent", current: "id! long a int", event: "id! long a int", o: drops("a"), want: "unchanged"},
		{name: "dropped, old event", current: "id! long b int", event: "id! long a int b int", o: drops("a"), want: "unchanged"},
		{name: "dropped, new table", event: "id! long a int b int", o: drops("a"), want: "id! long b int"},
		{name: "dropped key", current: "id! long a int", event: "id! long a int", o: drops("id"), want: "unchanged"},

		{name: "key int to long", current: "id! int", event: "id! long", want: "id! long"},
		{name: "key long to int", current: "id! long", event: "id! int", want: "unchanged"},
		{name: "key uuid", current: "id! string", event: "id! uuid", want: "unchanged"},
		{name: "key binary", current: "id! string", event: "id! binary", want: "unchanged"},
		{name: "key fixed", current: "id! string", event: "id! fixed(2)", want: "unchanged"},
		{name: "key string of a binary one", current: "id! binary", event: "id! string", want: "unchanged"}, // the table has text
		{name: "key to string", current: "id! long", event: "id! string", want: ReasonKeyColumnsChanged},
		{name: "key from string", current: "id! string", event: "id! long", want: ReasonKeyColumnsChanged},
		{name: "key order", current: "a! int b! int", event: "b! int a! int", want: "unchanged"},
		{name: "key column more", current: "a! int b int", event: "a! int b! int", want: ReasonKeyColumnsChanged},
		{name: "key column fewer", current: "a! int b! int", event: "a! int b int", want: ReasonKeyColumnsChanged},
		{name: "another key column", current: "a! int b int", event: "a int b! int", want: ReasonKeyColumnsChanged},
		{name: "key of a table without", current: "a int", event: "a! int", want: ReasonKeyColumnsChanged},
		{name: "no key of a table with one", current: "a! int", event: "a int", want: ReasonKeyMissing},

		{name: "case, told apart", event: "name int NAME int", want: "name int NAME int"},
		{name: "case, folded", event: "name int NAME int", o: PlanOptions{FoldNames: true}, want: ReasonNameCollision},
		{name: "case of a column that is there", current: "name int", event: "NAME int", o: PlanOptions{FoldNames: true}, want: ReasonNameCollision},
		{name: "case, all there", current: "name int", event: "name int", o: PlanOptions{FoldNames: true}, want: "unchanged"},
		{name: "twice", event: "a int a int", want: ReasonNameCollision},
		{name: "variant's name is taken", current: "id! long a int", event: "id! long a string a__string string", want: ReasonNameCollision},
		{name: "dots in names", event: "a.b int a struct<c:int>", want: "a.b int a struct<c:int>"},
		{name: "one path twice", event: "a.b int a struct<b:int>", want: ReasonNameCollision},
		{name: "one path twice, in a list", event: "a.element.b int a list<struct<b:int>>", want: ReasonNameCollision},
		{name: "one path twice, later", current: "a struct<b:int>", event: "a struct<b:int> a.b int", want: ReasonNameCollision},
		{name: "one path twice, a new member", current: "a.b int a struct<c:int>", event: "a struct<c:int,b:int>", want: ReasonNameCollision},
		{name: "of change files", event: "id! int _file_offset long", want: ReasonReservedName},
		{name: "of change files, nearly", event: "id! int _file_offsets long", want: "id! int _file_offsets long"},
		{name: "reserved", event: "_lake_op string", want: ReasonReservedName},
		{name: "reserved otherwise", event: "_lake_op string", o: PlanOptions{ReservedPrefix: "__x"}, want: "_lake_op string"},
		{name: "long name", event: long + " int", want: ReasonSchemaLimit},
		{name: "long variant name", current: long[:250] + " int", event: long[:250] + " string", want: ReasonSchemaLimit},
		{name: "long member name", event: "a struct<" + long + ":int>", want: ReasonSchemaLimit},
		{name: "no new columns", current: "id! long", event: "id! long a int", o: PlanOptions{NoNewColumns: true}, want: ReasonEvolutionBlocked},
		{name: "no new columns, wider", current: "id! long a int", event: "id! long a long", o: PlanOptions{NoNewColumns: true}, want: "id! long a long"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var current *changelog.Schema
			if c.current != "" {
				var err error
				if _, current, err = Plan(nil, shapeFrom(t, c.current), PlanOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			shape := shapeFrom(t, c.event)
			m, next, err := Plan(current, shape, c.o)
			if err != nil {
				if got := reasonOf(err); got != c.want {
					t.Fatalf("%v, want %s", err, c.want)
				}
				return
			}
			if got := show(next); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if next == nil {
				next = current
			} else if current != nil && int(next.ID) != int(current.ID)+1 {
				t.Errorf("schema %d after %d", next.ID, current.ID)
			}
			if m.Schema() != next {
				t.Errorf("the mapping is for schema %v", m.Schema())
			}
		})
	}
}

func TestPlanLimits(t *testing.T) {
	shape := func(n int) *Shape {
		s := &Shape{}
		for i := range n {
			s.Columns = append(s.Columns, Column{Name: fmt.Sprintf("c%d", i), Type: changelog.Primitive(changelog.Int)})
		}
		return s
	}
	if _, _, err := Plan(nil, shape(2001), PlanOptions{}); err == nil || reasonOf(err) != ReasonSchemaLimit {
		t.Errorf("2001 columns: %v", err)
	}
	_, s, err := Plan(nil, shape(2000), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	one := &Shape{Columns: []Column{{Name: "x", Type: changelog.Primitive(changelog.Int)}}}
	if _, _, err := Plan(s, one, PlanOptions{}); err == nil || reasonOf(err) != ReasonSchemaLimit {
		t.Errorf("one column more: %v", err)
	}
	_, s, err = Plan(nil, shape(1), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Plan(s, shape(101), PlanOptions{}); err != nil {
		t.Errorf("100 new columns: %v", err)
	}
	if _, _, err := Plan(s, shape(102), PlanOptions{}); err == nil || reasonOf(err) != ReasonSchemaLimit {
		t.Errorf("101 new columns: %v", err)
	}
}

// TestMapping: values get to their columns, converted where the types differ; a value is in one column of its variants.
func TestMapping(t *testing.T) {
	b := func(s string) changelog.Value { return changelog.Value{B: []byte(s)} }
	i := func(n int64) changelog.Value { return changelog.Value{I: n} }
	null := changelog.NullValue
	structOf := func(typ string, values ...changelog.Value) changelog.Value {
		return changelog.Value{B: changelog.AppendStruct(nil, typeOf(t, typ), values)}
	}
	listOf := func(typ string, values ...changelog.Value) changelog.Value {
		return changelog.Value{B: changelog.AppendList(nil, typeOf(t, typ), values)}
	}
	mapOf := func(typ string, k, v changelog.Value) changelog.Value {
		return changelog.Value{B: changelog.AppendMap(nil, typeOf(t, typ), []changelog.Value{k}, []changelog.Value{v})}
	}
	for _, c := range []struct {
		name, table, event string
		values             []changelog.Value
		o                  PlanOptions
		want               string
	}{
		{"order", "a int b string", "b string a int", []changelog.Value{b("x"), i(1)}, PlanOptions{}, `[1,"x"]`},
		{"gone", "a int b string", "a int", []changelog.Value{i(1)}, PlanOptions{}, `[1,<nil>]`},
		{"float to double", "a double", "a float", []changelog.Value{changelog.FloatValue(0.5)}, PlanOptions{}, `[0.5]`},
		{"null float", "a double", "a float", []changelog.Value{null}, PlanOptions{}, `[<nil>]`},
		{"variant", "a int a__string string", "a string", []changelog.Value{b("x")}, PlanOptions{}, `[<nil>,"x"]`},
		{"not variant", "a int a__string string", "a int", []changelog.Value{i(3)}, PlanOptions{}, `[3,<nil>]`},
		{"scale", "a decimal(10,3)", "a decimal(8,1)", []changelog.Value{b("\xff")}, PlanOptions{KeepReducedScale: true}, `["-0.100"]`},
		{"list", "a list<long>", "a list<int>", []changelog.Value{listOf("list<int>", i(1), null)}, PlanOptions{}, `[[1,<nil>]]`},
		{"list of floats", "a list<double>", "a list<float>", []changelog.Value{listOf("list<float>", changelog.FloatValue(0.25), null)}, PlanOptions{}, `[[0.25,<nil>]]`},
		{"map of floats", "a map<string,double>", "a map<string,float>", []changelog.Value{mapOf("map<string,float>", b("k"), changelog.FloatValue(0.25))}, PlanOptions{}, `[[["k",0.25]]]`},
		{"struct", "a struct<x:int,y:string>", "a struct<y:string>", []changelog.Value{structOf("struct<y:string>", b("q"))}, PlanOptions{}, `[{"x":<nil>,"y":"q"}]`},
		{"struct order", "a struct<x:double,y:string>", "a struct<y:string,x:float>", []changelog.Value{structOf("struct<y:string,x:float>", b("q"), changelog.FloatValue(2))}, PlanOptions{}, `[{"x":2,"y":"q"}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, s, err := Plan(nil, shapeFrom(t, c.table), PlanOptions{})
			if err != nil {
				t.Fatal(err)
			}
			m, next, err := Plan(s, shapeFrom(t, c.event), c.o)
			if err != nil || next != nil {
				t.Fatal(show(next), err)
			}
			for range 2 {
				values, err := changelog.AppendValues(nil, s, m.Row(nil, c.values))
				if err != nil {
					t.Fatal(err)
				}
				var out []any
				for j, v := range values {
					out = append(out, form(t, s.Columns[j].Type, v))
				}
				if got := text(out); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			}
		})
	}
}

// TestMappingKey: keys are in the table's order and types; a wider column keeps its keys.
func TestMappingKey(t *testing.T) {
	_, s, err := Plan(nil, shapeFrom(t, "a! int u! uuid x string"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u := changelog.Value{B: []byte("0123456789abcdef")}
	m, _, err := Plan(s, shapeFrom(t, "x string u! uuid a! int"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key := m.Key(nil, []changelog.Value{u, {I: 7}})
	want := changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{{I: 7}, {B: []byte("30313233-3435-3637-3839-616263646566")}})
	if key.String() != want.String() {
		t.Errorf("key %s, want %s", key, want)
	}
	wide, next, err := Plan(s, shapeFrom(t, "u! uuid a! long"), PlanOptions{})
	if err != nil || show(next) != "a! long u! string x string" {
		t.Fatal(show(next), err)
	}
	if got := wide.Key(nil, []changelog.Value{u, {I: 7}}); got.String() != want.String() {
		t.Errorf("key of the wider column %s, want %s", got, want)
	}
}

// TestKeyText: uuid, binary and fixed key columns are text in a new table, in its rows, in the keys of mappings and in keys that are
// read without one; a table that has them as they are keeps them, whatever the options say now.
func TestKeyText(t *testing.T) {
	shape := shapeFrom(t, "u! uuid b! binary f! fixed(2) v binary")
	values := []changelog.Value{{B: []byte("0123456789abcdef")}, {B: []byte{}}, {B: []byte{0xAB, 0x0C}}, {B: []byte{0xff}}}
	text := []changelog.Value{{B: []byte("30313233-3435-3637-3839-616263646566")}, {B: []byte("")}, {B: []byte("ab0c")}, {B: []byte{0xff}}}
	for name, c := range map[string]struct {
		made, now bool // NativeKeys
		want      []changelog.Value
	}{"text": {false, false, text}, "native": {true, true, values}, "made with text": {false, true, text}, "made native": {true, false, values}} {
		_, s, err := Plan(nil, shape, PlanOptions{NativeKeys: c.made})
		if err != nil {
			t.Fatal(err)
		}
		m, next, err := Plan(s, shape, PlanOptions{NativeKeys: c.now})
		if err != nil || next != nil {
			t.Fatalf("%s: %s, %v", name, show(next), err)
		}
		if got, want := string(m.Row(nil, values)), string(changelog.AppendRow(nil, s, c.want)); got != want {
			t.Errorf("%s: row %x, want %x", name, got, want)
		}
		want := changelog.AppendKey(nil, s.KeyTypes(), c.want[:3])
		if got := m.Key(nil, values[:3]); got.String() != want.String() {
			t.Errorf("%s: key %s, want %s", name, got, want)
		}
		if got, ok := tableKey(nil, s, shape.Columns[:3], values[:3]); !ok || got.String() != want.String() {
			t.Errorf("%s: key without a mapping %s, want %s", name, got, want)
		}
	}
}

// TestPlanFixed: a column whose type a rule gives goes into one of that type, widened or as a key's text, and never beside another.
func TestPlanFixed(t *testing.T) {
	fixed := func(text string) *Shape {
		s := shapeFrom(t, text)
		for i := range s.Columns {
			s.Columns[i].Fixed = true
		}
		return s
	}
	_, table, err := Plan(nil, fixed("id! uuid a int"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Columns[0].Type.String(); got != "string" {
		t.Errorf("the key is %s", got)
	}
	if _, next, err := Plan(table, fixed("id! uuid a int"), PlanOptions{}); next != nil || err != nil {
		t.Errorf("again: %v, %v", next, err)
	}
	if _, next, err := Plan(table, fixed("id! uuid a long"), PlanOptions{}); err != nil || next == nil || next.Columns[1].Type.Kind != changelog.Long {
		t.Errorf("wider: %v, %v", next, err)
	}
	for _, text := range []string{"id! uuid a string", "id! long a int"} {
		_, next, err := Plan(table, fixed(text), PlanOptions{})
		if rejected, ok := errors.AsType[*Rejected](err); !ok || rejected.Reason != ReasonColumnRule || next != nil {
			t.Errorf("%s: %v, %v", text, next, err)
		}
	}
}

// TestPlanOwn: only the pipeline's own columns have names that begin with the reserved prefix.
func TestPlanOwn(t *testing.T) {
	s := shapeFrom(t, "id! int _lake_op string")
	if _, _, err := Plan(nil, s, PlanOptions{}); err == nil {
		t.Error("a source's column is called _lake_op")
	}
	s.Columns[1].Own = true
	if _, _, err := Plan(nil, s, PlanOptions{}); err != nil {
		t.Error(err)
	}
}
