package datafile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"firn/changelog"
	"firn/changelog/mixed"
)

func primitive(k changelog.Kind) *changelog.Type { return changelog.Primitive(k) }

// anyType draws a type; nested ones up to depth.
func anyType(t *rapid.T, depth int) *changelog.Type {
	last := changelog.TimestampTZNS
	kind := changelog.Kind(rapid.Uint8Range(uint8(changelog.Boolean), uint8(last)).Draw(t, "kind"))
	if primitive(kind).Nested() && depth == 0 {
		kind = changelog.String
	}
	switch kind {
	case changelog.Decimal:
		p := rapid.IntRange(1, 38).Draw(t, "precision")
		return changelog.DecimalOf(p, rapid.IntRange(0, p).Draw(t, "scale"))
	case changelog.Fixed:
		return &changelog.Type{Kind: kind, Length: rapid.IntRange(1, 40).Draw(t, "length")}
	case changelog.List:
		out := changelog.ListOf(anyType(t, depth-1))
		out.Fields[0].Required = rapid.Bool().Draw(t, "required")
		return out
	case changelog.Map:
		out := changelog.MapOf(anyType(t, 0), anyType(t, depth-1))
		out.Fields[1].Required = rapid.Bool().Draw(t, "required")
		return out
	case changelog.Struct:
		out := &changelog.Type{Kind: kind}
		for i := range rapid.IntRange(1, 3).Draw(t, "fields") {
			out.Fields = append(out.Fields, changelog.Column{Name: fmt.Sprintf("f%d", i), Type: anyType(t, depth-1), Required: rapid.Bool().Draw(t, "required")})
		}
		return out
	default:
		return primitive(kind)
	}
}

func anyValue(t *rapid.T, c *changelog.Column) changelog.Value {
	if !c.Required && rapid.IntRange(0, 4).Draw(t, "null") == 0 {
		return changelog.NullValue
	}
	typ := c.Type
	raw := func(n int) changelog.Value {
		return changelog.Value{B: rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes")}
	}
	switch typ.Kind {
	case changelog.Boolean:
		return changelog.Value{I: int64(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case changelog.Int, changelog.Date:
		return changelog.Value{I: int64(rapid.Int32().Draw(t, "int"))}
	case changelog.Float:
		return changelog.FloatValue(rapid.Float32().Draw(t, "float"))
	case changelog.Double:
		return changelog.DoubleValue(rapid.Float64().Draw(t, "double"))
	case changelog.Time:
		return changelog.Value{I: rapid.Int64Range(0, 86_399_999_999).Draw(t, "time")}
	case changelog.Long, changelog.Timestamp, changelog.TimestampTZ, changelog.TimestampNS, changelog.TimestampTZNS:
		return changelog.Value{I: rapid.Int64().Draw(t, "long")}
	case changelog.Decimal:
		return changelog.Value{B: anyDecimal(t, typ.Precision)}
	case changelog.String:
		return changelog.Value{B: []byte(rapid.String().Draw(t, "string"))}
	case changelog.UUID:
		return raw(16)
	case changelog.Fixed:
		return raw(typ.Length)
	case changelog.Binary:
		return raw(rapid.IntRange(0, 30).Draw(t, "size"))
	case changelog.Struct:
		values := make([]changelog.Value, len(typ.Fields))
		for i := range values {
			values[i] = anyValue(t, &typ.Fields[i])
		}
		return changelog.Value{B: changelog.AppendStruct(nil, typ, values)}
	case changelog.List:
		values := make([]changelog.Value, rapid.IntRange(0, 4).Draw(t, "elements"))
		for i := range values {
			values[i] = anyValue(t, &typ.Fields[0])
		}
		return changelog.Value{B: changelog.AppendList(nil, typ, values)}
	case changelog.Map:
		n := rapid.IntRange(0, 4).Draw(t, "entries")
		keys, values := make([]changelog.Value, n), make([]changelog.Value, n)
		for i := range n {
			keys[i], values[i] = anyValue(t, &typ.Fields[0]), anyValue(t, &typ.Fields[1])
		}
		return changelog.Value{B: changelog.AppendMap(nil, typ, keys, values)}
	}
	panic("no such kind")
}

// anyDecimal draws a number of at most precision digits.
func anyDecimal(t *rapid.T, precision int) []byte {
	digits := rapid.OneOf(rapid.StringOfN(rapid.RuneFrom([]rune("0123456789")), 1, precision, -1), rapid.Just(strings.Repeat("9", precision)))
	n, _ := new(big.Int).SetString(digits.Draw(t, "digits"), 10)
	if rapid.Bool().Draw(t, "negative") {
		n.Neg(n)
	}
	return changelog.AppendBigInt(nil, n)
}

func anySchema(t *rapid.T) *changelog.Schema {
	columns := []changelog.Column{{Name: "id", Type: primitive(changelog.Long)}}
	for i := range rapid.IntRange(1, 5).Draw(t, "columns") {
		columns = append(columns, changelog.Column{Name: fmt.Sprintf("c%d", i), Type: anyType(t, 2)})
	}
	s, err := changelog.NewSchema(columns, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func anyRow(t *rapid.T, s *changelog.Schema) changelog.Row {
	values := make([]changelog.Value, len(s.Columns))
	for i := range values {
		values[i] = anyValue(t, &s.Columns[i])
	}
	return changelog.AppendRow(nil, s, values)
}

// readAll reads a file in schema s and returns its rows, keys and offsets.
func readAll(t testing.TB, b []byte, s *changelog.Schema, offset bool, o Options) (rows []changelog.Row, offsets []int64) {
	t.Helper()
	r, err := Open(bytes.NewReader(b), int64(len(b)), s, offset, o)
	if err != nil {
		t.Fatal(err)
	}
	in := NewRows(s)
	for batch, err := range r.Batches(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if batch.First != int64(len(rows)) {
			t.Fatalf("batch begins at %d after %d rows", batch.First, len(rows))
		}
		if err := in.Reset(batch); err != nil {
			t.Fatal(err)
		}
		for i := range in.Len() {
			rows = append(rows, in.AppendRow(nil, i))
			if n, ok := in.Offset(i); ok {
				offsets = append(offsets, n)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return rows, offsets
}

// TestRoundTrip: rows of any schema come back byte for byte, whatever the batches and row groups, and Arrow memory is freed.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
		s := anySchema(rt)
		o := Options{
			Allocator: mem, BatchRows: rapid.IntRange(1, 9).Draw(rt, "batch"),
			RowGroupRows: int64(rapid.IntRange(1, 20).Draw(rt, "group")),
		}
		var file bytes.Buffer
		w, err := NewWriter(&file, s, true, o)
		if err != nil {
			rt.Fatal(err)
		}
		rows := make([]changelog.Row, rapid.IntRange(0, 30).Draw(rt, "rows"))
		for i := range rows {
			rows[i] = anyRow(rt, s)
			if err := w.WriteRow(rows[i], int64(100+i)); err != nil {
				rt.Fatal(err)
			}
		}
		written, err := w.Close()
		if err != nil {
			rt.Fatal(err)
		}
		if written.Rows != int64(len(rows)) || written.Bytes != int64(file.Len()) || written.Metadata.NumRows != written.Rows {
			rt.Fatalf("written %+v of %d rows, %d bytes", written, len(rows), file.Len())
		}
		if len(rows) > 0 && (written.FirstOffset != 100 || written.LastOffset != int64(99+len(rows))) {
			rt.Fatalf("offsets %d to %d", written.FirstOffset, written.LastOffset)
		}
		got, offsets := readAll(t, file.Bytes(), s, true, o)
		if len(got) != len(rows) || len(offsets) != len(rows) {
			rt.Fatalf("%d rows and %d offsets of %d", len(got), len(offsets), len(rows))
		}
		for i := range rows {
			if !bytes.Equal(got[i], rows[i]) || offsets[i] != int64(100+i) {
				rt.Fatalf("row %d, offset %d:\ngot  %x\nwant %x", i, offsets[i], got[i], rows[i])
			}
		}
		mem.AssertSize(t, 0)
	})
}

// evolved returns a schema and the one that adds a column and widens three.
func evolved(t testing.TB) changelog.Schemas {
	t.Helper()
	s0, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: primitive(changelog.Int)},
		{Name: "f", Type: primitive(changelog.Float)},
		{Name: "d", Type: changelog.DecimalOf(5, 2)},
		{Name: "s", Type: primitive(changelog.String)},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	s1, err := s0.Evolve([]changelog.Column{{Name: "new", Type: changelog.ListOf(primitive(changelog.String))}}, map[string]*changelog.Type{
		"id": primitive(changelog.Long), "f": primitive(changelog.Double), "d": changelog.DecimalOf(30, 2),
	})
	if err != nil {
		t.Fatal(err)
	}
	return changelog.Schemas{s0, s1}
}

func rowOf(s *changelog.Schema, values ...changelog.Value) changelog.Row {
	return changelog.AppendRow(nil, s, values)
}

// TestPromotion: a file of an older schema reads in the newer one: widened, the missing column null. (With nulls and more
// rows than a batch, so that bitmaps begin at an offset.)
func TestPromotion(t *testing.T) {
	h := evolved(t)
	var file bytes.Buffer
	w, err := NewWriter(&file, h[0], false, Options{BatchRows: 7})
	if err != nil {
		t.Fatal(err)
	}
	var want []changelog.Row
	for i := range 50 {
		f := changelog.FloatValue(float32(i) + 0.5)
		wide := changelog.DoubleValue(float64(i) + 0.5)
		if i%3 == 0 {
			f, wide = changelog.NullValue, changelog.NullValue
		}
		id, d, s := changelog.Value{I: int64(-i)}, changelog.Value{B: []byte{byte(i)}}, changelog.Value{B: []byte{'x'}}
		if err := w.WriteRow(rowOf(h[0], id, f, d, s), 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, rowOf(h[1], id, wide, d, s, changelog.NullValue))
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
	got, offsets := readAll(t, file.Bytes(), h[1], true, Options{BatchRows: 16, Allocator: mem})
	if !slices.EqualFunc(got, want, func(a, b changelog.Row) bool { return bytes.Equal(a, b) }) {
		t.Fatal("rows differ")
	}
	if len(offsets) != 0 {
		t.Errorf("%d offsets in a file that has none", len(offsets))
	}
	mem.AssertSize(t, 0)

	if _, err := Open(bytes.NewReader(file.Bytes()), int64(file.Len()), mustProject(t, h[1], 4), false, Options{}); err != nil {
		t.Errorf("string column: %v", err)
	}
	narrow, err := changelog.NewSchema([]changelog.Column{{Name: "id", Type: primitive(changelog.String)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(bytes.NewReader(file.Bytes()), int64(file.Len()), narrow, false, Options{}); !errors.Is(err, changelog.ErrIncompatible) {
		t.Errorf("int as string: %v", err)
	}
}

func mustProject(t testing.TB, s *changelog.Schema, ids ...int) *changelog.Schema {
	t.Helper()
	p, err := Project(s, ids...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestProjection reads keys and offsets only, by field id, and a column that no file has.
func TestProjection(t *testing.T) {
	h := evolved(t)
	var file bytes.Buffer
	w, err := NewWriter(&file, h[0], true, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		v := changelog.Value{I: int64(i)}
		if err := w.WriteValues([]changelog.Value{v, changelog.NullValue, changelog.NullValue, changelog.NullValue}, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := ProjectKey(h[1])
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(file.Bytes()), int64(file.Len()), key, true, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SeekRow(4); err != nil {
		t.Fatal(err)
	}
	batch, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Release()
	rows := NewRows(key)
	if err := rows.Reset(batch); err != nil {
		t.Fatal(err)
	}
	want := changelog.AppendKey(nil, []*changelog.Type{primitive(changelog.Long)}, []changelog.Value{{I: 4}})
	if got := rows.AppendKey(nil, 0); rows.Len() != 6 || !bytes.Equal(got, want) {
		t.Errorf("%d rows, first key %s, want %s", rows.Len(), got, want)
	}
	if n, ok := rows.Offset(5); !ok || n != 9 {
		t.Errorf("offset %d, %v", n, ok)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
	got, _ := readAll(t, file.Bytes(), mustProject(t, h[1], 5), false, Options{BatchRows: 3})
	if len(got) != 10 {
		t.Errorf("%d rows of a column that the file lacks", len(got))
	}
	if _, err := Project(h[0], 99); err == nil {
		t.Error("unknown column projected")
	}
}

// TestShape: field ids, REQUIRED key columns, an optional _file_offset, fixed decimals of minimal width.
func TestShape(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: primitive(changelog.Long)},
		{Name: "d", Type: changelog.DecimalOf(12, 3)},
		{Name: "u", Type: primitive(changelog.UUID)},
		{Name: "l", Type: changelog.ListOf(primitive(changelog.Int))},
		{Name: "m", Type: changelog.MapOf(primitive(changelog.String), primitive(changelog.Double))},
	}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(io.Discard, s, true, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteRow(anyRowOnce(t, s), 7); err != nil {
		t.Fatal(err)
	}
	written, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	got := written.Metadata.Schema.String()
	for _, want := range []string{
		"required int64 field_id=1 id", "optional int64 field_id=2 d", "optional fixed_len_byte_array field_id=3 u",
		"optional group field_id=4 l (List)", "field_id=6 element", "field_id=7 key", "field_id=8 value",
		"optional int64 field_id=2147482645 _file_offset",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	chunk, err := written.Metadata.RowGroup(0).ColumnChunk(0)
	if err != nil {
		t.Fatal(err)
	}
	if set, err := chunk.StatsSet(); err != nil || !set {
		t.Errorf("no statistics: %v", err)
	}
}

func anyRowOnce(t *testing.T, s *changelog.Schema) changelog.Row {
	t.Helper()
	return rapid.Custom(func(t *rapid.T) changelog.Row { return anyRow(t, s) }).Example(1)
}

// TestDictionaries: columns that repeat have one, others (the key, the offset) do not.
func TestDictionaries(t *testing.T) {
	s, rows := benchRows(t, 3000)
	written := writeRows(t, io.Discard, s, rows, Options{})
	got := map[string]bool{}
	for i := range written.Metadata.Schema.NumColumns() {
		c, err := written.Metadata.RowGroup(0).ColumnChunk(i)
		if err != nil {
			t.Fatal(err)
		}
		got[written.Metadata.Schema.Column(i).Name()] = c.HasDictionaryPage()
	}
	for name, want := range map[string]bool{
		"id": false, "name": false, "score": false, "created": false, "note": false, "_file_offset": false, "visits": true,
	} {
		if got[name] != want {
			t.Errorf("column %s: dictionary %v", name, got[name])
		}
	}
}

func TestRequired(t *testing.T) {
	h := evolved(t)
	w, err := NewWriter(io.Discard, h[0], false, Options{})
	if err != nil {
		t.Fatal(err)
	}
	null := changelog.NullValue
	if err := w.WriteValues([]changelog.Value{null, null, null, null}, 0); !errors.Is(err, ErrNull) {
		t.Errorf("null key: %v", err)
	}
	if err := w.WriteValues([]changelog.Value{{I: 1}, null, null, null}, 0); !errors.Is(err, ErrNull) {
		t.Errorf("after an error: %v", err)
	}
	if _, err := w.Close(); !errors.Is(err, ErrNull) {
		t.Errorf("closed after an error: %v", err)
	}
}

// TestWriterError: what the underlying writer reports comes out.
func TestWriterError(t *testing.T) {
	h := evolved(t)
	w, err := NewWriter(&fullDisk{left: 1000}, h[0], false, Options{BatchRows: 4, RowGroupRows: 8})
	if err != nil {
		t.Fatal(err)
	}
	row := rowOf(h[0], changelog.Value{I: 1}, changelog.NullValue, changelog.NullValue, changelog.Value{B: []byte("text")})
	for range 1000 {
		if err = w.WriteRow(row, 0); err != nil {
			break
		}
	}
	if _, closed := w.Close(); !errors.Is(err, errFull) || !errors.Is(closed, errFull) {
		t.Errorf("got %v, %v", err, closed)
	}
}

var errFull = errors.New("disk is full")

type fullDisk struct{ left int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestBatchCopy: batches of a reader can be written as they are.
func TestBatchCopy(t *testing.T) {
	h := evolved(t)
	var from, to bytes.Buffer
	w, err := NewWriter(&from, h[1], true, Options{})
	if err != nil {
		t.Fatal(err)
	}
	row := rowOf(h[1], changelog.Value{I: 1}, changelog.NullValue, changelog.Value{B: []byte{9}}, changelog.Value{B: []byte("x")}, changelog.NullValue)
	for i := range 100 {
		if err := w.WriteRow(row, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(from.Bytes()), int64(from.Len()), h[1], true, Options{BatchRows: 30})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := NewWriter(&to, h[1], true, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range r.Batches(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if written, err := out.Close(); err != nil || written.Rows != 100 {
		t.Fatalf("%+v, %v", written, err)
	}
	a, _ := readAll(t, from.Bytes(), h[1], true, Options{})
	b, offsets := readAll(t, to.Bytes(), h[1], true, Options{})
	if !slices.EqualFunc(a, b, func(a, b changelog.Row) bool { return bytes.Equal(a, b) }) || offsets[99] != 99 {
		t.Fatal("copies differ")
	}
}

func TestPositionDeletes(t *testing.T) {
	var file bytes.Buffer
	want := []PosDelete{{"file:///a", 1}, {"file:///a", 5}, {"file:///b", 0}}
	written, err := WritePositionDeletes(&file, want, Options{})
	if err != nil || written.Rows != 3 {
		t.Fatalf("%+v, %v", written, err)
	}
	if s := written.Metadata.Schema.String(); !strings.Contains(s, fmt.Sprintf("required byte_array field_id=%d file_path", mixed.DeletePathID)) ||
		!strings.Contains(s, fmt.Sprintf("required int64 field_id=%d pos", mixed.DeletePosID)) {
		t.Error(s)
	}
	r, err := OpenDeletes(bytes.NewReader(file.Bytes()), int64(file.Len()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []PosDelete
	if err := r.Each(func(path []byte, pos int64) error {
		got = append(got, PosDelete{string(path), pos})
		return nil
	}); err != nil || !slices.Equal(got, want) || r.Rows() != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	for _, bad := range [][]PosDelete{{{"b", 0}, {"a", 0}}, {{"a", 1}, {"a", 1}}, {{"a", 2}, {"a", 1}}} {
		if _, err := WritePositionDeletes(io.Discard, bad, Options{}); !errors.Is(err, ErrUnsorted) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestNoPositionDeletes: a file of rows (of equality deletes, say) is no file of position deletes.
func TestNoPositionDeletes(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{{Name: "id", Type: primitive(changelog.Long)}, {Name: "pos", Type: primitive(changelog.Long)}}, []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := NewWriter(&file, s, false, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteValues([]changelog.Value{{I: 1}, {I: 2}}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := OpenDeletes(bytes.NewReader(file.Bytes()), int64(file.Len()), Options{}); !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), "file_path") {
		t.Errorf("opened %v, %v", r, err)
	}
}

func TestBadFiles(t *testing.T) {
	h := evolved(t)
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("PAR1 is not all of it"), "short": []byte("PAR1")} {
		if _, err := Open(bytes.NewReader(b), int64(len(b)), h[0], false, Options{}); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptions(t *testing.T) {
	o := Options{Level: 23, BatchRows: -1}
	o.EnsureDefaults()
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "23") || !strings.Contains(err.Error(), "batch rows") {
		t.Errorf("got %v", err)
	}
	if _, err := NewWriter(io.Discard, evolved(t)[0], false, Options{Level: -1}); err == nil {
		t.Error("level -1 accepted")
	}
}

// TestEveryDecimal: decimals of every precision and scale come back, in the physical type that Iceberg's spec has for them.
func TestEveryDecimal(t *testing.T) {
	var columns []changelog.Column
	for p := 1; p <= 38; p++ {
		for s := 0; s <= p; s++ {
			columns = append(columns, changelog.Column{Name: fmt.Sprintf("d%d_%d", p, s), Type: changelog.DecimalOf(p, s)})
		}
		columns = append(columns, changelog.Column{Name: fmt.Sprintf("l%d", p), Type: changelog.ListOf(changelog.DecimalOf(p, p))})
	}
	schema, err := changelog.NewSchema(columns, nil)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := NewWriter(&file, schema, false, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var rows []changelog.Row
	for _, sign := range []int64{-1, 0, 1} {
		values := make([]changelog.Value, len(columns))
		for i, c := range columns {
			if c.Type.Kind == changelog.List { // of the decimal before it
				values[i] = changelog.Value{B: changelog.AppendList(nil, c.Type, []changelog.Value{values[i-1], changelog.NullValue})}
				continue
			}
			most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Precision)), nil)
			most.Sub(most, big.NewInt(1))
			values[i] = changelog.Value{B: changelog.AppendBigInt(nil, most.Mul(most, big.NewInt(sign)))}
		}
		rows = append(rows, changelog.AppendRow(nil, schema, values))
		if err := w.WriteRow(rows[len(rows)-1], 0); err != nil {
			t.Fatal(err)
		}
	}
	done, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	got, _ := readAll(t, file.Bytes(), schema, false, Options{})
	for i := range rows {
		if !bytes.Equal(got[i], rows[i]) {
			t.Errorf("row %d is another", i)
		}
	}
	for i := range done.Metadata.Schema.NumColumns() {
		c, p := done.Metadata.Schema.Column(i), columns[i].Type
		if p.Kind == changelog.List {
			p = p.Fields[0].Type
		}
		most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(p.Precision)), nil)
		want := fmt.Sprintf("FIXED_LEN_BYTE_ARRAY %d", most.BitLen()/8+1) // a sign bit and those of 10^p - 1
		switch {
		case p.Precision <= 9:
			want = "INT32 0"
		case p.Precision <= 18:
			want = "INT64 0"
		}
		if got := fmt.Sprint(c.PhysicalType(), " ", c.TypeLength()); got != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}
