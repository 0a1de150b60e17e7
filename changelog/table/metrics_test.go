package table_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/table"
)

// measured returns what a manifest says of a file with the rows in a table with the properties; a row group has two rows.
func measured(t *testing.T, props map[string]string, s *changelog.Schema, rows ...[]changelog.Value) table.Metrics {
	t.Helper()
	l := newLake(t, "sqlite")
	tbl, err := l.cat.Create(t.Context(), "db.t", s, props)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := datafile.NewWriter(&file, s, false, datafile.Options{RowGroupRows: 2, BatchRows: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := w.WriteValues(append([]changelog.Value{{I: 1}}, r...), 0); err != nil {
			t.Fatal(err)
		}
	}
	done, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	m, err := tbl.Base().Metrics(table.NewFile{Path: "file:///f", Schema: s, Rows: done.Rows, Bytes: done.Bytes, Footer: done.Metadata, NaNs: done.NaNs})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// metricsSchema is a key and one column, called c, whose field id is 2.
func metricsSchema(t *testing.T, typ *changelog.Type) *changelog.Schema {
	t.Helper()
	s, err := changelog.NewSchema([]changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Long)}, {Name: "c", Type: typ}}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBounds: the bounds of a column hold all of its values, whatever row groups they are in; those of long ones are cut, the upper
// one up, at a code point or a byte, and left out where there is none above. What a footer does not tell bounds nothing.
func TestBounds(t *testing.T) {
	const none = "none"
	text := func(values ...string) (rows [][]changelog.Value) {
		for _, v := range values {
			if v == none {
				rows = append(rows, []changelog.Value{changelog.NullValue})
			} else {
				rows = append(rows, []changelog.Value{{B: []byte(v)}})
			}
		}
		return rows
	}
	float := func(values ...float64) (rows [][]changelog.Value) {
		for _, v := range values {
			rows = append(rows, []changelog.Value{changelog.DoubleValue(v)})
		}
		return rows
	}
	eight := func(f float64) string {
		return string(binary.LittleEndian.AppendUint64(nil, math.Float64bits(f)))
	}
	x, z, most, ff := strings.Repeat("x", 16), strings.Repeat("z", 5000), strings.Repeat("\U0010FFFF", 16), strings.Repeat("\xff", 16)
	str, bin, dbl := changelog.Primitive(changelog.String), changelog.Primitive(changelog.Binary), changelog.Primitive(changelog.Double)
	nan, inf, zero := math.NaN(), math.Inf(1), math.Copysign(0, -1)
	for name, c := range map[string]struct {
		typ          *changelog.Type
		rows         [][]changelog.Value
		lower, upper string
	}{
		"short":                         {str, text("b", "a", none, "c"), "a", "c"},
		"null":                          {str, text(none, none), none, none},
		"empty among others":            {str, text("", "c", "b"), none, "c"},
		"of the length that is kept":    {str, text(x, "y"), x, "y"},
		"longer":                        {str, text(x+"a", x+"b"), x, x[1:] + "y"},
		"code points, not bytes":        {str, text(strings.Repeat("é", 17)), strings.Repeat("é", 16), strings.Repeat("é", 15) + "ê"},
		"before the surrogates":         {str, text(x[1:] + "\uD7FF!"), x[1:] + "\uD7FF", x[1:] + "\uE000"},
		"last code points are passed":   {str, text("a" + most), "a" + most[4:], "b"},
		"nothing above":                 {str, text(most + "!"), most, none},
		"bytes":                         {bin, text("a" + ff), "a" + ff[1:], "b"},
		"no bytes above":                {bin, text(ff + "!"), ff, none},
		"sixteen bytes":                 {bin, text(ff), ff, ff},
		"too long for one footer":       {str, text("m", "n", z, "a"), "a", none},
		"too long, alone":               {str, text("m", "n", z), none, none},
		"too long and least":            {bin, text("m", "n", "a"+z, "q"), none, "q"},
		"too long in the first group":   {str, text(z, "a", "m", "n"), "a", none},
		"a group of nulls":              {str, text("m", "n", none, none), "m", "n"},
		"numbers":                       {dbl, float(2, -1, 3), eight(-1), eight(3)},
		"zeros of one sign are of both": {dbl, float(0, 0), eight(zero), eight(0)},
		"negative zeros":                {dbl, float(zero), eight(zero), eight(0)},
		"no numbers bound nothing":      {dbl, float(nan, 5, nan, nan, 7, nan), eight(5), eight(7)},
		"no number at all":              {dbl, float(nan, nan), none, none},
		"infinities":                    {dbl, float(inf, -inf, nan), eight(-inf), eight(inf)},
	} {
		t.Run(name, func(t *testing.T) {
			m := measured(t, nil, metricsSchema(t, c.typ), c.rows...)
			for side, bound := range map[string][2]string{"lower": {show(m.Lower, 2), c.lower}, "upper": {show(m.Upper, 2), c.upper}} {
				if want := bound[1]; bound[0] != want && bound[0] != hex.EncodeToString([]byte(want)) {
					t.Errorf("%s %s, want %.40q", side, bound[0], want)
				}
			}
			if m.Values[2] != int64(len(c.rows)) || show(m.Lower, 1) != "0100000000000000" || m.Sizes[2] == 0 {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestMemberBounds: the members of structs have bounds as columns have, by their own modes; what is in lists and maps has none.
func TestMemberBounds(t *testing.T) {
	str, long := changelog.Primitive(changelog.String), changelog.Primitive(changelog.Long)
	in := &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{{Name: "m", Type: changelog.DecimalOf(9, 2)}, {Name: "l", Type: changelog.ListOf(long)}}}
	out := &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{{Name: "n", Type: str}, {Name: "in", Type: in}}}
	for name, c := range map[string]struct {
		props map[string]string
		upper string
	}{
		"as columns":          {nil, "bbbbbbbbbbbbbbbc"},
		"a member's own mode": {map[string]string{"write.metadata.metrics.column.c.n": "truncate(2)"}, "bc"},
	} {
		s, err := changelog.NewSchema([]changelog.Column{{Name: "id", Type: long}, {Name: "c", Type: out}}, []string{"id"})
		if err != nil {
			t.Fatal(err)
		}
		out := s.Columns[1].Type
		in := out.Fields[1].Type
		row := func(text string, amount byte) []changelog.Value {
			list := changelog.Value{B: changelog.AppendList(nil, in.Fields[1].Type, []changelog.Value{{I: 7}})}
			inner := changelog.AppendStruct(nil, in, []changelog.Value{{B: []byte{amount}}, list})
			return []changelog.Value{{B: changelog.AppendStruct(nil, out, []changelog.Value{{B: []byte(text)}, {B: inner}})}}
		}
		null := []changelog.Value{changelog.NullValue}
		m := measured(t, c.props, s, row(strings.Repeat("b", 20), 3), null, row("a", 0xff), null, null)
		upper := show(m.Upper, out.Fields[0].ID)
		if upper != c.upper && upper != hex.EncodeToString([]byte(c.upper)) {
			t.Errorf("%s: upper bound of a text %s, want %s", name, upper, c.upper)
		}
		if lower, upper := show(m.Lower, in.Fields[0].ID), show(m.Upper, in.Fields[0].ID); lower != "ff" || upper != "03" {
			t.Errorf("%s: bounds of a decimal %s, %s", name, lower, upper)
		}
		element := in.Fields[1].Type.Fields[0].ID
		if m := measured(t, nil, s, null, null); len(m.Lower) != 1 || len(m.Upper) != 1 {
			t.Errorf("nulls: %+v", m)
		}
		if _, bounded := m.Lower[element]; bounded || m.Values[element] == 0 || show(m.Lower, 1) == "none" {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func show(bounds map[int][]byte, id int) string {
	b, ok := bounds[id]
	if !ok {
		return "none"
	}
	return hex.EncodeToString(b)
}

// TestNaNCounts: values that are no number are counted where they are, in batches and nested values alike; nulls are not.
func TestNaNCounts(t *testing.T) {
	float := changelog.Primitive(changelog.Float)
	structOf := &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{{Name: "m", Type: float}, {Name: "n", Type: changelog.ListOf(changelog.Primitive(changelog.Double))}}}
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)}, {Name: "f", Type: float}, {Name: "s", Type: structOf}, {Name: "m", Type: changelog.MapOf(float, float)}, {Name: "all", Type: float},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	nan, one, null := changelog.FloatValue(float32(math.NaN())), changelog.FloatValue(1), changelog.NullValue
	list := func(v ...changelog.Value) changelog.Value {
		return changelog.Value{B: changelog.AppendList(nil, s.Columns[2].Type.Fields[1].Type, v)}
	}
	nested := func(f, list changelog.Value) changelog.Value {
		return changelog.Value{B: changelog.AppendStruct(nil, s.Columns[2].Type, []changelog.Value{f, list})}
	}
	dnan := changelog.DoubleValue(math.NaN())
	var rows [][]changelog.Value
	for range 5 {
		pairs := changelog.Value{B: changelog.AppendMap(nil, s.Columns[3].Type, []changelog.Value{one, nan}, []changelog.Value{nan, null})}
		rows = append(rows, []changelog.Value{nan, nested(nan, list(dnan, null, dnan)), pairs, one}, []changelog.Value{null, nested(one, null), null, one},
			[]changelog.Value{one, null, null, null})
	}
	m := measured(t, nil, s, rows...)
	ids := fmt.Sprint(s.Columns[1].ID, s.Columns[2].Type.Fields, s.Columns[3].Type.Fields)
	want := map[int]int64{2: 5, s.Columns[2].Type.Fields[0].ID: 5, s.Columns[2].Type.Fields[1].Type.Fields[0].ID: 10, s.Columns[3].Type.Fields[0].ID: 5, s.Columns[3].Type.Fields[1].ID: 5, 5: 0}
	if fmt.Sprint(m.NaNs) != fmt.Sprint(want) {
		t.Errorf("%v, want %v, of %s", m.NaNs, want, ids)
	}
	if m := measured(t, map[string]string{"write.metadata.metrics.column.f": "none"}, s, rows...); m.NaNs[2] != 0 || len(m.NaNs) != len(want)-1 {
		t.Errorf("without metrics of f: %v", m.NaNs)
	}
	if m := measured(t, nil, metricsSchema(t, changelog.Primitive(changelog.String)), []changelog.Value{null}); len(m.NaNs) != 0 {
		t.Errorf("no floats: %v", m.NaNs)
	}
}

// TestMetricsModes: tables say which metrics they want; what is no mode counts as not said, as with Iceberg's Java library.
func TestMetricsModes(t *testing.T) {
	const long = "aaaaaaaaaaaaaaaaaaaaaaaa"
	for name, c := range map[string]struct {
		props  map[string]string
		lower  string
		counts bool
	}{
		"default":         {nil, long[:16], true},
		"none":            {map[string]string{"default": "none"}, "none", false},
		"counts":          {map[string]string{"default": " Counts "}, "none", true},
		"full":            {map[string]string{"column.c": "full"}, long, true},
		"shorter":         {map[string]string{"default": "none", "column.c": "truncate(3)"}, long[:3], true},
		"no mode":         {map[string]string{"default": "some"}, long[:16], true},
		"no width":        {map[string]string{"default": "counts", "column.c": "truncate(0)"}, "none", true},
		"no mode at all":  {map[string]string{"column.c": ""}, long[:16], true},
		"another's":       {map[string]string{"column.id": "bogus(", "column.gone": "what"}, long[:16], true},
		"width too large": {map[string]string{"column.c": "truncate(99999999999999999999)"}, long[:16], true},
	} {
		props := map[string]string{}
		for k, v := range c.props {
			props["write.metadata.metrics."+k] = v
		}
		m := measured(t, props, metricsSchema(t, changelog.Primitive(changelog.String)), []changelog.Value{{B: []byte(long)}})
		_, counted := m.Values[2]
		if got := show(m.Lower, 2); got != c.lower && got != hex.EncodeToString([]byte(c.lower)) || counted != c.counts {
			t.Errorf("%s: lower bound %s, counts %v", name, got, m.Values)
		}
	}
}
