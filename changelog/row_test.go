package changelog

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// testSchema has a column of every kind.
func testSchema(t testing.TB) *Schema {
	t.Helper()
	s, err := NewSchema([]Column{
		{Name: "id", Type: Primitive(Long)},
		{Name: "ok", Type: Primitive(Boolean)},
		{Name: "n", Type: Primitive(Int)},
		{Name: "f", Type: Primitive(Float)},
		{Name: "d", Type: Primitive(Double)},
		{Name: "dec", Type: DecimalOf(38, 2)},
		{Name: "day", Type: Primitive(Date)},
		{Name: "at", Type: Primitive(Time)},
		{Name: "ts", Type: Primitive(Timestamp)},
		{Name: "tz", Type: Primitive(TimestampTZ)},
		{Name: "s", Type: Primitive(String)},
		{Name: "u", Type: Primitive(UUID)},
		{Name: "fx", Type: &Type{Kind: Fixed, Length: 3}},
		{Name: "b", Type: Primitive(Binary)},
		{Name: "l", Type: ListOf(Primitive(String))},
		{Name: "m", Type: MapOf(Primitive(String), Primitive(Long))},
		{Name: "st", Type: &Type{Kind: Struct, Fields: []Column{{Name: "x", Type: Primitive(Double)}, {Name: "y", Type: ListOf(Primitive(Int))}}}},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func drawValue(t *rapid.T, typ *Type, optional bool) Value {
	if optional && rapid.IntRange(0, 4).Draw(t, "null") == 0 {
		return NullValue
	}
	some := func(n int) []byte { return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes") }
	switch typ.Kind {
	case Boolean:
		return Value{I: rapid.Int64Range(0, 1).Draw(t, "bool")}
	case Int, Date:
		return Value{I: int64(rapid.Int32().Draw(t, "int"))}
	case Float:
		return FloatValue(rapid.Float32().Draw(t, "float"))
	case Double:
		return DoubleValue(rapid.Float64().Draw(t, "double"))
	case Decimal:
		return Value{B: ShortestInt(rapid.SliceOfN(rapid.Byte(), 1, 16).Draw(t, "unscaled"))}
	case UUID:
		return Value{B: some(16)}
	case Fixed:
		return Value{B: some(typ.Length)}
	case String, Binary:
		return Value{B: rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xff}), 0, 9).Draw(t, "text")}
	case List:
		return Value{B: AppendList(nil, typ, drawValues(t, typ.Fields[0].Type, true, 3))}
	case Map:
		keys := drawValues(t, typ.Fields[0].Type, false, 3)
		values := make([]Value, len(keys))
		for i := range values {
			values[i] = drawValue(t, typ.Fields[1].Type, true)
		}
		return Value{B: AppendMap(nil, typ, keys, values)}
	case Struct:
		values := make([]Value, len(typ.Fields))
		for i := range values {
			values[i] = drawValue(t, typ.Fields[i].Type, true)
		}
		return Value{B: AppendStruct(nil, typ, values)}
	default:
		return Value{I: rapid.Int64().Draw(t, "long")}
	}
}

func drawValues(t *rapid.T, typ *Type, optional bool, most int) []Value {
	values := make([]Value, rapid.IntRange(0, most).Draw(t, "count"))
	for i := range values {
		values[i] = drawValue(t, typ, optional)
	}
	return values
}

func drawRow(t *rapid.T, s *Schema) []Value {
	values := make([]Value, len(s.Columns))
	for i, c := range s.Columns {
		values[i] = drawValue(t, c.Type, !c.Required)
	}
	return values
}

func sameValues(a, b []Value) bool {
	return slices.EqualFunc(a, b, func(x, y Value) bool {
		return x.Null == y.Null && x.I == y.I && bytes.Equal(x.B, y.B)
	})
}

func TestRowRoundTrip(t *testing.T) {
	s := testSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		want := drawRow(t, s)
		row := Row(AppendRow(nil, s, want))
		got, err := AppendValues(nil, s, row)
		if err != nil || !sameValues(got, want) {
			t.Fatalf("read %v, %v; wrote %v", got, err, want)
		}
		for cut := range row { // a row cut short is an error or shorter values, never a panic
			if _, err := AppendValues(nil, s, row[:cut]); err == nil {
				t.Fatalf("%d of %d bytes read as a whole row", cut, len(row))
			}
		}
	})
}

func TestNestedRoundTrip(t *testing.T) {
	list, m := ListOf(Primitive(String)), MapOf(Primitive(String), Primitive(Long))
	rapid.Check(t, func(t *rapid.T) {
		elements := drawValues(t, list.Fields[0].Type, true, 20)
		got, err := AppendElements(nil, list, AppendList(nil, list, elements))
		if err != nil || !sameValues(got, elements) {
			t.Fatalf("list: read %v, %v; wrote %v", got, err, elements)
		}
		keys := drawValues(t, m.Fields[0].Type, false, 20)
		values := make([]Value, len(keys))
		for i := range values {
			values[i] = drawValue(t, m.Fields[1].Type, true)
		}
		k, v, err := AppendEntries(nil, nil, m, AppendMap(nil, m, keys, values))
		if err != nil || !sameValues(k, keys) || !sameValues(v, values) {
			t.Fatalf("map: read %v %v, %v; wrote %v %v", k, v, err, keys, values)
		}
	})
}

// TestRowGolden holds the bytes on disk: they are for ever.
func TestRowGolden(t *testing.T) {
	s, err := NewSchema([]Column{
		{Name: "id", Type: Primitive(Long)},
		{Name: "s", Type: Primitive(String)},
		{Name: "gone", Type: Primitive(Int)},
		{Name: "dec", Type: DecimalOf(9, 2)},
		{Name: "d", Type: Primitive(Double)},
		{Name: "l", Type: ListOf(Primitive(Int))},
	}, []string{"id", "s"})
	if err != nil {
		t.Fatal(err)
	}
	s.ID = 300
	list := AppendList(nil, s.Columns[5].Type, []Value{{I: 1}, NullValue})
	values := []Value{{I: -2}, {B: []byte("a\x00b")}, NullValue, {B: []byte{0xff, 0x38}}, DoubleValue(1.5), {B: list}}
	if got, want := hex.EncodeToString(AppendRow(nil, s, values)), "ac020403036100620"+"2ff38000000000000f83f03020202"; got != want {
		t.Errorf("row %s, want %s", got, want)
	}
	if got, want := s.KeyOf(nil, values).String(), "7ffffffffffffffe6100ff620001"; got != want {
		t.Errorf("key %s, want %s", got, want)
	}
}

func TestKeyOrderAndRoundTrip(t *testing.T) {
	for _, kind := range []Kind{Boolean, Int, Long, Float, Double, Date, Time, Timestamp, TimestampTZ, String, UUID, Binary} {
		t.Run(kind.String(), func(t *testing.T) { checkKeys(t, Primitive(kind)) })
	}
	t.Run("decimal", func(t *testing.T) { checkKeys(t, DecimalOf(38, 3)) })
	t.Run("fixed", func(t *testing.T) { checkKeys(t, &Type{Kind: Fixed, Length: 4}) })
}

func checkKeys(t *testing.T, typ *Type) {
	s, err := NewSchema([]Column{{Name: "a", Type: typ}, {Name: "b", Type: Primitive(String)}}, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		x := []Value{drawValue(t, typ, false), drawValue(t, Primitive(String), false)}
		y := []Value{drawValue(t, typ, false), drawValue(t, Primitive(String), false)}
		kx, ky := s.KeyOf(nil, x), s.KeyOf(nil, y)
		if got, err := s.KeyValues(kx); err != nil || !sameValues(got, x) {
			t.Fatalf("read %v, %v; wrote %v", got, err, x)
		}
		want := compareValues(typ, x[0], y[0])
		if want == 0 {
			want = bytes.Compare(x[1].B, y[1].B)
		}
		if got := bytes.Compare(kx, ky); got != want {
			t.Fatalf("keys of %v and %v compare as %d, want %d", x, y, got, want)
		}
	})
}

func compareValues(typ *Type, x, y Value) int {
	switch typ.Kind {
	case Float, Double:
		fx, fy := x.Double(), y.Double()
		if typ.Kind == Float {
			fx, fy = float64(x.Float()), float64(y.Float())
		}
		switch {
		case fx < fy, fx == fy && math.Signbit(fx) && !math.Signbit(fy):
			return -1
		case fx > fy, fx == fy && math.Signbit(fy) && !math.Signbit(fx):
			return 1
		}
		return 0
	case Decimal:
		wx, wy := appendWide(nil, x.B), appendWide(nil, y.B)
		return bytes.Compare(wx, wy)
	case String, Binary, UUID, Fixed:
		return bytes.Compare(x.B, y.B)
	default:
		return cmp.Compare(x.I, y.I)
	}
}

func TestDecimalKeyOrder(t *testing.T) {
	s, err := NewSchema([]Column{{Name: "a", Type: DecimalOf(10, 2)}}, []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	var last Key
	for _, unscaled := range [][]byte{{0x80, 0}, {0xff, 0}, {0xff}, {0}, {1}, {0x7f}, {0, 0x80}, {1, 0}} {
		k := s.KeyOf(nil, []Value{{B: unscaled}})
		if bytes.Compare(last, k) >= 0 {
			t.Errorf("key of %x is not above the one before", unscaled)
		}
		last = k
	}
}

func TestEvolveAndProject(t *testing.T) {
	v0, err := NewSchema([]Column{
		{Name: "id", Type: Primitive(Int)}, {Name: "f", Type: Primitive(Float)}, {Name: "l", Type: ListOf(Primitive(Int))},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	if v0.Columns[2].ID != 3 || v0.Columns[2].Type.Fields[0].ID != 4 {
		t.Fatalf("ids %+v", v0.Columns)
	}
	v1, err := v0.Evolve([]Column{{Name: "s", Type: Primitive(String), Required: true}}, map[string]*Type{"id": Primitive(Long), "f": Primitive(Double)})
	if err != nil {
		t.Fatal(err)
	}
	if c := v1.Columns[3]; c.ID != 5 || c.Required || v1.ID != 1 || v1.Columns[2].Type.Fields[0].ID != 4 {
		t.Fatalf("evolved to %+v", v1)
	}
	row := AppendRow(nil, v0, []Value{{I: 7}, FloatValue(0.5), NullValue})
	p, err := NewProjection(v0, v1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Values(row)
	if err != nil || !sameValues(got, []Value{{I: 7}, DoubleValue(0.5), NullValue, NullValue}) {
		t.Errorf("projected %v, %v", got, err)
	}
	if _, err := v1.Evolve(nil, map[string]*Type{"id": Primitive(String)}); !errors.Is(err, ErrIncompatible) {
		t.Errorf("long to string: %v", err)
	}
	if _, err := v1.Evolve([]Column{{Name: "id", Type: Primitive(Int)}}, nil); err == nil {
		t.Error("a second column id was added")
	}
	if k0, k1 := v0.KeyOf(nil, []Value{{I: 7}}), v1.KeyOf(nil, []Value{{I: 7}}); !bytes.Equal(k0, k1) {
		t.Errorf("widening the key changed it: %s, %s", k0, k1)
	}
}

func FuzzRow(f *testing.F) {
	s := testSchema(f)
	values := make([]Value, len(s.Columns))
	for i := range values {
		values[i] = NullValue
	}
	values[0] = Value{I: 1}
	f.Add(AppendRow(nil, s, values))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := AppendValues(nil, s, b)
		if err != nil {
			return
		}
		for i, v := range got {
			var err error
			switch typ := s.Columns[i].Type; typ.Kind {
			case List:
				_, err = AppendElements(nil, typ, v.B)
			case Map:
				_, _, err = AppendEntries(nil, nil, typ, v.B)
			default:
			}
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkAppendValues(b *testing.B) {
	s := testSchema(b)
	values := make([]Value, len(s.Columns))
	for i, c := range s.Columns {
		values[i] = Value{I: 1, B: make([]byte, 16)}
		switch c.Type.Kind {
		case Fixed:
			values[i].B = values[i].B[:3]
		case Struct, List, Map:
			values[i] = NullValue
		default:
		}
	}
	row := Row(AppendRow(nil, s, values))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if values, err = AppendValues(values[:0], s, row); err != nil {
			b.Fatal(err)
		}
	}
}
