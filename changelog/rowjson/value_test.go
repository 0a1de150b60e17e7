package rowjson

import (
	"math"
	"strings"
	"testing"

	"firn/changelog"
)

func prim(k changelog.Kind) *changelog.Type { return changelog.Primitive(k) }

func i64(i int64) changelog.Value    { return changelog.Value{I: i} }
func f64(f float64) changelog.Value  { return changelog.DoubleValue(f) }
func f32(f float32) changelog.Value  { return changelog.FloatValue(f) }
func raw(b ...byte) changelog.Value  { return changelog.Value{B: b} }
func text(s string) changelog.Value  { return changelog.Value{B: []byte(s)} }
func micros(s int64) changelog.Value { return i64(s * 1e6) }

// The expected texts are those of deploy/peers/rowform.py, written by hand from the table in its README.
func TestAppendValue(t *testing.T) {
	for _, c := range []struct {
		typ  *changelog.Type
		v    changelog.Value
		want string
	}{
		{prim(changelog.Int), changelog.NullValue, `null`},
		{prim(changelog.Boolean), i64(1), `true`},
		{prim(changelog.Boolean), i64(0), `false`},
		{prim(changelog.Int), i64(math.MinInt32), `-2147483648`},
		{prim(changelog.Long), i64(math.MaxInt64), `9223372036854775807`},
		{prim(changelog.Long), i64(math.MinInt64), `-9223372036854775808`},

		{prim(changelog.Double), f64(1), `1`},
		{prim(changelog.Double), f64(0.1), `0.1`},
		{prim(changelog.Double), f64(-0.5), `-0.5`},
		{prim(changelog.Double), f64(100), `100`},
		{prim(changelog.Double), f64(1e20), `100000000000000000000`},
		{prim(changelog.Double), f64(123456789012345680000), `123456789012345680000`},
		{prim(changelog.Double), f64(1e21), `1e+21`},
		{prim(changelog.Double), f64(1.5e21), `1.5e+21`},
		{prim(changelog.Double), f64(1e-6), `0.000001`},
		{prim(changelog.Double), f64(1e-7), `1e-7`},
		{prim(changelog.Double), f64(1.25e-10), `1.25e-10`},
		{prim(changelog.Double), f64(1e100), `1e+100`},
		{prim(changelog.Double), f64(math.MaxFloat64), `1.7976931348623157e+308`},
		{prim(changelog.Double), f64(math.SmallestNonzeroFloat64), `5e-324`},
		{prim(changelog.Double), f64(math.Copysign(0, -1)), `-0`},
		{prim(changelog.Double), f64(0), `0`},
		{prim(changelog.Double), f64(math.NaN()), `"NaN"`},
		{prim(changelog.Double), f64(math.Inf(1)), `"Infinity"`},
		{prim(changelog.Double), f64(math.Inf(-1)), `"-Infinity"`},
		{prim(changelog.Float), f32(0.1), `0.1`},
		{prim(changelog.Float), f32(16777216), `16777216`},
		{prim(changelog.Float), f32(1e-6), `0.000001`},
		{prim(changelog.Float), f32(1e-7), `1e-7`},
		{prim(changelog.Float), f32(1e21), `1e+21`},
		{prim(changelog.Float), f32(1e20), `100000000000000000000`},
		{prim(changelog.Float), f32(math.MaxFloat32), `3.4028235e+38`},
		{prim(changelog.Float), f32(math.SmallestNonzeroFloat32), `1e-45`},
		{prim(changelog.Float), f32(float32(math.Copysign(0, -1))), `-0`},
		{prim(changelog.Float), f32(float32(math.NaN())), `"NaN"`},

		{changelog.DecimalOf(9, 2), raw(0x04, 0xce), `"12.30"`},
		{changelog.DecimalOf(9, 2), raw(0x05), `"0.05"`},
		{changelog.DecimalOf(9, 2), raw(0xfb), `"-0.05"`},
		{changelog.DecimalOf(9, 2), raw(0), `"0.00"`},
		{changelog.DecimalOf(9, 0), raw(0xff), `"-1"`},
		{changelog.DecimalOf(18, 0), raw(0x80, 0, 0, 0, 0, 0, 0, 0), `"-9223372036854775808"`},
		{changelog.DecimalOf(38, 10), twosOf("99999999999999999999999999999999999999"), `"9999999999999999999999999999.9999999999"`},
		{changelog.DecimalOf(38, 38), twosOf("-1"), `"-0.00000000000000000000000000000000000001"`},
		{changelog.DecimalOf(38, 38), twosOf("-99999999999999999999999999999999999999"), `"-0.99999999999999999999999999999999999999"`},

		{prim(changelog.Date), i64(20484), `"2026-01-31"`},
		{prim(changelog.Date), i64(0), `"1970-01-01"`},
		{prim(changelog.Date), i64(-1), `"1969-12-31"`},
		{prim(changelog.Date), i64(-719528), `"0000-01-01"`},
		{prim(changelog.Date), i64(-719529), `"-0001-12-31"`},
		{prim(changelog.Date), i64(-735160), `"-0043-03-15"`},
		{prim(changelog.Date), i64(2932896), `"9999-12-31"`},
		{prim(changelog.Date), i64(2932897), `"+10000-01-01"`},
		{prim(changelog.Date), i64(106751991), `"+294247-01-10"`},
		{prim(changelog.Date), i64(11016), `"2000-02-29"`},
		{prim(changelog.Time), i64(3723_123456), `"01:02:03.123456"`},
		{prim(changelog.Time), i64(0), `"00:00:00.000000"`},
		{prim(changelog.Time), i64(86399_999999), `"23:59:59.999999"`},
		{prim(changelog.Timestamp), i64(1769821323_123456), `"2026-01-31T01:02:03.123456"`},
		{prim(changelog.TimestampTZ), i64(1769821323_123456), `"2026-01-31T01:02:03.123456Z"`},
		{prim(changelog.TimestampTZ), i64(-1), `"1969-12-31T23:59:59.999999Z"`},
		{prim(changelog.Timestamp), micros(-62167219200), `"0000-01-01T00:00:00.000000"`},
		{prim(changelog.TimestampTZ), i64(math.MaxInt64), `"+294247-01-10T04:00:54.775807Z"`},
		{prim(changelog.Timestamp), i64(math.MinInt64), `"-290308-12-21T19:59:05.224192"`},
		{prim(changelog.TimestampNS), i64(1769821323_123456789), `"2026-01-31T01:02:03.123456789"`},
		{prim(changelog.TimestampTZNS), i64(-1), `"1969-12-31T23:59:59.999999999Z"`},

		{prim(changelog.String), text(""), `""`},
		{prim(changelog.String), text("a\"b\\c/d"), `"a\"b\\c/d"`},
		{prim(changelog.String), text("\b\f\n\r\t\x00\x1f\x7f"), `"\b\f\n\r\t\u0000\u001f` + "\x7f" + `"`},
		{prim(changelog.String), text("grün <&> \u2028 😀"), `"grün <&> ` + "\u2028" + ` 😀"`},
		{prim(changelog.String), text("\ufffd"), `"` + "\ufffd" + `"`},
		{
			prim(changelog.UUID), raw(0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0, 0xa7, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6),
			`"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"`,
		},
		{prim(changelog.Binary), raw(), `""`},
		{prim(changelog.Binary), raw(0, 0xAB, 0xff), `"00abff"`},
		{&changelog.Type{Kind: changelog.Fixed, Length: 2}, raw(1, 2), `"0102"`},
	} {
		got, err := AppendValue([]byte("x"), c.typ, c.v)
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%s %+v: %s, %v, want %s", c.typ, c.v, got, err, c.want)
		}
	}
}

func twosOf(s string) changelog.Value {
	b, err := parseDecimal(s, changelog.DecimalOf(38, 0))
	if err != nil {
		panic(err)
	}
	return changelog.Value{B: b}
}

func TestAppendNested(t *testing.T) {
	structType := &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{
		{ID: 1, Name: "z", Type: prim(changelog.Int)},
		{ID: 2, Name: "a b", Type: prim(changelog.String)},
		{ID: 3, Name: "B", Type: prim(changelog.Double)},
	}}
	list := changelog.ListOf(prim(changelog.Int))
	mapType := changelog.MapOf(prim(changelog.Int), structType)
	body := func(z int64) changelog.Value {
		return changelog.Value{B: changelog.AppendStruct(nil, structType, []changelog.Value{i64(z), text("q\""), changelog.NullValue})}
	}
	for _, c := range []struct {
		name string
		typ  *changelog.Type
		v    changelog.Value
		want string
	}{
		{"struct sorted by name bytes", structType, body(7), `{"B":null,"a b":"q\"","z":7}`},
		{"empty struct", &changelog.Type{Kind: changelog.Struct}, changelog.Value{}, `{}`},
		{"list", list, changelog.Value{B: changelog.AppendList(nil, list, []changelog.Value{i64(3), changelog.NullValue, i64(1)})}, `[3,null,1]`},
		{"empty list", list, changelog.Value{B: changelog.AppendList(nil, list, nil)}, `[]`},
		{
			"map sorted by the key's text, so 10 before 9", mapType,
			changelog.Value{B: changelog.AppendMap(nil, mapType, []changelog.Value{i64(9), i64(10), i64(-1)},
				[]changelog.Value{changelog.NullValue, body(1), body(2)})},
			`[[-1,{"B":null,"a b":"q\"","z":2}],[10,{"B":null,"a b":"q\"","z":1}],[9,null]]`,
		},
		{"empty map", mapType, changelog.Value{B: changelog.AppendMap(nil, mapType, nil, nil)}, `[]`},
	} {
		got, err := AppendValue(nil, c.typ, c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	if _, err := AppendValue(nil, list, raw(200)); err == nil {
		t.Error("a corrupt list is rendered")
	}
}

func TestEncoder(t *testing.T) {
	s0, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: prim(changelog.Int)},
		{Name: "name", Type: prim(changelog.String)},
		{Name: "f", Type: prim(changelog.Float)},
	}, []string{"name", "id"})
	if err != nil {
		t.Fatal(err)
	}
	s1, err := s0.Evolve([]changelog.Column{{Name: "a", Type: prim(changelog.Boolean)}},
		map[string]*changelog.Type{"id": prim(changelog.Long), "f": prim(changelog.Double)})
	if err != nil {
		t.Fatal(err)
	}
	history := changelog.Schemas{s0, s1}
	old := changelog.AppendRow(nil, s0, []changelog.Value{i64(1), text("x"), f32(0.5)})
	row := changelog.AppendRow(nil, s1, []changelog.Value{i64(1 << 40), text("y"), f64(0.1), i64(1)})
	for _, c := range []struct {
		name string
		o    Options
		r    changelog.Row
		want string
	}{
		{"table order", Options{}, row, `{"id":1099511627776,"name":"y","f":0.1,"a":true}`},
		{"sorted", Options{Sorted: true}, row, `{"a":true,"f":0.1,"id":1099511627776,"name":"y"}`},
		{"old schema", Options{}, old, `{"id":1,"name":"x","f":0.5,"a":null}`},
		{"old schema, sorted", Options{Sorted: true}, old, `{"a":null,"f":0.5,"id":1,"name":"x"}`},
		{"columns keep the table's order", Options{Columns: []string{"f", "id"}}, row, `{"id":1099511627776,"f":0.1}`},
		{"only a column that the row lacks", Options{Columns: []string{"a"}}, old, `{"a":null}`},
		{"columns, sorted", Options{Columns: []string{"name", "a"}, Sorted: true}, row, `{"a":true,"name":"y"}`},
	} {
		e, err := NewEncoder(history, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.AppendRow(nil, c.r); err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	e, err := NewEncoder(history, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.AppendValues(nil, []changelog.Value{i64(5), text("z"), f64(1), changelog.NullValue}); err != nil || string(got) != `{"id":5,"name":"z","f":1,"a":null}` {
		t.Errorf("values: %s, %v", got, err)
	}
	key := s1.KeyOf(nil, []changelog.Value{i64(5), text("z,/"), f64(1), changelog.NullValue})
	if got, err := e.AppendKey(nil, key); err != nil || string(got) != `{"name":"z,/","id":5}` {
		t.Errorf("key: %s, %v", got, err)
	}
	if got, err := AppendKeyText(nil, s1, key); err != nil || string(got) != `z%2C%2F,5` {
		t.Errorf("key text: %s, %v", got, err)
	}
	if _, err := NewEncoder(history, Options{Columns: []string{"nope"}}); err == nil || !strings.Contains(err.Error(), `"nope"`) {
		t.Errorf("unknown column: %v", err)
	}
	if _, err := e.AppendRow(nil, row[:4]); err == nil {
		t.Error("a cut row is rendered")
	}
}

func TestEncoderAllocates(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: prim(changelog.Long)},
		{Name: "name", Type: prim(changelog.String)},
		{Name: "at", Type: prim(changelog.TimestampTZ)},
		{Name: "price", Type: changelog.DecimalOf(12, 2)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	row := changelog.AppendRow(nil, s, []changelog.Value{i64(1), text("grün\n"), i64(1769821323_123456), raw(0x04, 0xce)})
	dst := make([]byte, 0, 1024)
	for _, sorted := range []bool{false, true} {
		e, err := NewEncoder(changelog.Schemas{s}, Options{Sorted: sorted})
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { dst, _ = e.AppendRow(dst[:0], row) }); n != 0 {
			t.Errorf("sorted=%v: %v allocations a row", sorted, n)
		}
	}
}
