package decode

import (
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
)

// plain makes a record without schema.
func plain(key, after string) Record {
	r := Record{Topic: "p.s.t", Value: []byte(`{"before":null,"after":` + after + `,"source":{"connector":"postgresql","name":"p","lsn":1},"op":"c"}`)}
	if key != "" {
		r.Key = []byte(key)
	}
	return r
}

// looseTable decodes messages into a table as a pipeline would.
type looseTable struct {
	t testing.TB
	d *Decoder
	s *changelog.Schema
	o PlanOptions
}

// add takes one message and shows the row; after a change of the table, its schema too.
func (l *looseTable) add(r Record) string {
	l.t.Helper()
	ev, err := l.d.Decode(r)
	if err != nil {
		return reasonOf(err)
	}
	m, next, err := Plan(l.s, ev.Shape, l.o)
	if err != nil {
		return reasonOf(err)
	}
	change := ""
	if next != nil {
		l.s = next
		change = show(next) + " | "
	}
	var out []any
	for i, v := range m.Values(ev.After) {
		out = append(out, form(l.t, l.s.Columns[i].Type, v))
	}
	change += text(out)
	if next != nil {
		l.d.SetTable(next)
	}
	return change
}

// TestInference follows a table without schemas and hints through its changes (1.4, 4.1).
func TestInference(t *testing.T) {
	l := &looseTable{t: t, d: newDecoder(t, Options{})}
	for i, c := range []struct{ after, want string }{
		{`{"id":1,"a":null,"b":[],"c":{}}`, `id! long | [1]`},
		{`{"id":1,"a":5}`, `id! long a long | [1,5]`},
		{`{"id":1,"a":9223372036854775807}`, `[1,9223372036854775807]`},
		{`{"id":1}`, `[1,<nil>]`},
		{`{"id":1,"a":1.5}`, `id! long a long a__double double | [1,<nil>,1.5]`},
		{`{"id":1,"a":3}`, `[1,3,<nil>]`},
		{`{"id":1,"a":"x"}`, `id! long a long a__double double a__string string | [1,<nil>,<nil>,"x"]`},
		{`{"id":1,"a":2.5}`, `[1,<nil>,2.5,<nil>]`},
		{`{"a":null,"id":1}`, `[1,<nil>,<nil>,<nil>]`},
		{`{"id":1,"b":[1,2.5,null]}`, `id! long a long a__double double a__string string b list<double> | [1,<nil>,<nil>,<nil>,[1,2.5,<nil>]]`},
		{`{"id":1,"b":[]}`, `[1,<nil>,<nil>,<nil>,[]]`},
		{`{"id":1,"b":[1,"x"]}`, ReasonTypeMismatch},
		{`{"id":1,"b":[{"x":1},{"y":true}]}`, `id! long a long a__double double a__string string b list<double> b__list list<struct<x:long,y:boolean>> | [1,<nil>,<nil>,<nil>,<nil>,[{"x":1,"y":<nil>},{"x":<nil>,"y":true}]]`},
		{`{"id":1,"_lake_x":1}`, ReasonReservedName},
		{`{"id":2,"a":4}`, `[2,4,<nil>,<nil>,<nil>,<nil>]`},
		{`{"id":1,"a":1,"a":2}`, ReasonJSONDuplicateKey},
		{`{"id":1,"new":null,"new":null}`, ReasonJSONDuplicateKey},
	} {
		key := `{"id":1}`
		if strings.Contains(c.after, `"id":2`) {
			key = `{"id":2}`
		}
		if got := l.add(plain(key, c.after)); got != c.want {
			t.Errorf("%d, %s:\n%s, want\n%s", i, c.after, got, c.want)
		}
	}
}

// TestDeclaredWithoutSchemas: declared renames and drops work for messages without a schema, whose rows are read by the table's
// columns under each of their names.
func TestDeclaredWithoutSchemas(t *testing.T) {
	o := PlanOptions{Renames: map[string]string{"a": "b", "b": "c"}, Drops: []string{"x"}}
	l := &looseTable{t: t, d: newDecoder(t, Options{}), o: o}
	l.d.SetPlan(o)
	for i, c := range []struct{ after, want string }{
		{`{"id":1,"a":"s","x":5}`, `id! long a string | [1,"s"]`},
		{`{"id":1,"b":"t"}`, `id! long b string | [1,"t"]`},
		{`{"id":1,"a":"u","x":5}`, `[1,"u"]`},
		{`{"id":1,"c":null}`, `[1,<nil>]`},
		{`{"id":1,"c":7}`, `id! long c string c__long long | [1,<nil>,7]`},
		{`{"id":1,"a":8}`, `[1,<nil>,8]`},
		{`{"id":1,"b":"v","x":"y"}`, `[1,"v",<nil>]`},
		{`{"id":1,"c":"w","d":true}`, `id! long c string c__long long d boolean | [1,"w",<nil>,true]`},
	} {
		if got := l.add(plain(`{"id":1}`, c.after)); got != c.want {
			t.Errorf("message %d, %s:\n got %s\nwant %s", i, c.after, got, c.want)
		}
	}
}

// TestRenamedHints: the table's type tells how a value is read under each name of its column.
func TestRenamedHints(t *testing.T) {
	_, s, err := Plan(nil, shapeFrom(t, "id! long a decimal(10,2)"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := &looseTable{t: t, d: newDecoder(t, Options{}), s: s, o: renames("a", "b")}
	l.d.SetPlan(l.o)
	l.d.SetTable(s)
	for i, c := range []struct{ after, want string }{
		{`{"id":1,"b":12.5}`, `id! long b decimal(10,2) | [1,"12.50"]`},
		{`{"id":1,"a":3.5}`, `[1,"3.50"]`},
	} {
		if got := l.add(plain(`{"id":1}`, c.after)); got != c.want {
			t.Errorf("message %d, %s: got %s, want %s", i, c.after, got, c.want)
		}
	}
}

// TestTableHints: values are read by the table's columns where those tell how.
func TestTableHints(t *testing.T) {
	_, s, err := Plan(nil, shapeFrom(t, "id! int n decimal(10,2) d date ts timestamp z timestamptz u uuid b binary f float x list<long> m map<string,int> st struct<p:int,q:string>"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ after, want string }{
		{`{"id":1,"n":"AeJA"}`, `"1234.56"`},
		{`{"id":1,"n":12.5}`, `"12.50"`},
		{`{"id":1,"d":20454}`, `"2026-01-01"`},
		{`{"id":1,"d":"2026-01-01Z"}`, `"2026-01-01"`},
		{`{"id":1,"ts":"2026-01-01T00:00:00Z"}`, `"2026-01-01T00:00:00.000000"`},
		{`{"id":1,"z":"2026-01-01T00:00:00+01:00"}`, `"2025-12-31T23:00:00.000000Z"`},
		{`{"id":1,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}`, `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{`{"id":1,"u":"no"}`, ReasonUUID},
		{`{"id":1,"b":"AAE="}`, `"0001"`},
		{`{"id":1,"b":"AAE"}`, ReasonBase64},
		{`{"id":1,"f":1.5}`, `1.5`},
		{`{"id":1,"f":"NaN"}`, `"NaN"`},
		{`{"id":1,"x":[1,null]}`, `[1,<nil>]`},
		{`{"id":1,"m":{"b":1,"a":null}}`, `[["a",<nil>],["b",1]]`},
		{`{"id":1,"st":{"q":"y"}}`, `{"p":<nil>,"q":"y"}`},
		// a number does not tell its unit: it is kept as it is, beside
		{`{"id":1,"ts":1767225600000}`, `id! int n decimal(10,2) d date ts timestamp z timestamptz u uuid b binary f float x list<long> m map<string,int> st struct<p:int,q:string> ts__long long | 1767225600000`},
		// wider than the column
		{`{"id":3000000000}`, `id! long n decimal(10,2) d date ts timestamp z timestamptz u uuid b binary f float x list<long> m map<string,int> st struct<p:int,q:string> | 3000000000`},
		{`{"id":1,"x":[1.5]}`, `id! int n decimal(10,2) d date ts timestamp z timestamptz u uuid b binary f float x list<long> m map<string,int> st struct<p:int,q:string> x__list list<double> | [1.5]`},
	} {
		l := &looseTable{t: t, d: newDecoder(t, Options{}), s: s}
		l.d.SetTable(s)
		key := `{"id":1}`
		if strings.Contains(c.after, "3000000000") {
			key = `{"id":3000000000}`
		}
		got := l.add(plain(key, c.after))
		// show the one value besides the key, or the key
		if change, row, ok := strings.Cut(got, " | "); ok {
			got = change + " | " + lone(row)
		} else {
			got = lone(got)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.after, got, c.want)
		}
	}
}

// lone returns the part of a row's text that is not null and not the key 1.
func lone(row string) string {
	inner, ok := strings.CutPrefix(row, "[1,")
	if !ok {
		inner, ok = strings.CutPrefix(row, "[")
	}
	if !ok {
		return row
	}
	inner = strings.TrimSuffix(inner, "]")
	inner = strings.TrimSuffix(strings.TrimLeft(strings.ReplaceAll(inner, "<nil>", "\x00"), "\x00,"), "")
	inner = strings.TrimRight(inner, "\x00,")
	return strings.ReplaceAll(inner, "\x00", "<nil>")
}

// TestOddMessageStaysAlone: what one message holds does not make later ones unacceptable.
func TestOddMessageStaysAlone(t *testing.T) {
	d := newDecoder(t, Options{})
	first, err := d.Decode(plain(`{"id":1}`, `{"id":1,"a":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	shape := first.Shape
	if _, err := d.Decode(plain(`{"id":1}`, `{"id":1,"a":"x","_lake_odd":1}`)); err != nil {
		t.Fatal(err)
	}
	ev, err := d.Decode(plain(`{"id":1}`, `{"id":1,"a":"y"}`))
	if err != nil || ev.Shape != shape {
		t.Errorf("shape %v, want %v (%v)", ev.Shape, shape, err)
	}
}

// TestManyShapes: a topic in which each message has other columns costs no memory without end.
func TestManyShapes(t *testing.T) {
	d := newDecoder(t, Options{})
	for i := range 1000 {
		if _, err := d.Decode(plain(`{"id":1}`, fmt.Sprintf(`{"id":1,"c%d":1}`, i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.loose.recent); n > maxRecent {
		t.Errorf("%d records", n)
	}
	for i := range 3 * maxSchemas {
		r := message("mysql", `{"type":"string","doc":"`+fmt.Sprint(i)+`"}`, `"x"`)
		if _, err := d.Decode(r); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(d.values.byHash); n > maxSchemas || len(d.values.order) != n || len(d.values.prefixes) > maxPrefixes {
		t.Errorf("%d schemas, %d in order, %d prefixes", n, len(d.values.order), len(d.values.prefixes))
	}
}

// TestConnectorOfSource: rows are read as the connector that the source block names writes them, also where the first
// guess, by the schema or by the message before, was another.
func TestConnectorOfSource(t *testing.T) {
	const micro = `{"type":"int64","name":"io.debezium.time.MicroTime"}`
	d := newDecoder(t, Options{})
	r := message("mysql", micro, "-1")
	r.Value = []byte(strings.Replace(string(r.Value), "io.debezium.connector.mysql.Source", "com.example.Source", 1))
	for range 2 {
		ev, err := d.Decode(r)
		if err != nil || ev.Shape.Columns[1].Type.Kind != changelog.Long || ev.After[1].I != -1 {
			t.Fatal(ev, err)
		}
	}
	d = newDecoder(t, Options{Hints: []Hint{{"v", []byte(micro)}}})
	for range 2 {
		for _, c := range []struct{ connector, want string }{{"mysql", "long"}, {"postgresql", "time"}} {
			r := plain(`{"id":1}`, `{"id":1,"v":5}`)
			r.Value = []byte(strings.Replace(string(r.Value), "postgresql", c.connector, 1))
			ev, err := d.Decode(r)
			if err != nil || ev.Shape.Columns[0].Type.String() != c.want {
				t.Fatal(c, ev, err)
			}
		}
	}
}
