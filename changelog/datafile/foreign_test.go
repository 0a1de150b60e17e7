package datafile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"firn/changelog"
)

// int96 is a time as old Spark and Impala write it: the nanoseconds of the day, and the Julian day.
func int96(day, nanos int64) (v parquet.Int96) {
	binary.LittleEndian.PutUint64(v[:8], uint64(nanos))         //nolint:gosec // positive
	binary.LittleEndian.PutUint32(v[8:], uint32(day+2_440_588)) //nolint:gosec // positive
	return v
}

// foreignFile writes one column, as node says, with the levels given; all rows of one row group.
func foreignFile(t *testing.T, node schema.Node, write func(w file.ColumnChunkWriter) error) []byte {
	t.Helper()
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, schema.FieldList{node}, -1)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := file.NewParquetWriter(&out, root)
	group, err := w.AppendRowGroupChecked()
	if err != nil {
		t.Fatal(err)
	}
	column, err := group.NextColumn()
	if err == nil {
		err = write(column)
	}
	for _, c := range []interface{ Close() error }{column, group, w} {
		err = errors.Join(err, c.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shown reads a file in a schema of one column and shows its values.
func shown(t *testing.T, b []byte, typ *changelog.Type) (string, error) {
	t.Helper()
	s := &changelog.Schema{Columns: []changelog.Column{{ID: 1, Name: "c", Type: typ}}}
	if err := s.Index(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(bytes.NewReader(b), int64(len(b)), s, false, Options{})
	if err != nil {
		return "", err
	}
	defer r.Close()
	rows := NewRows(s)
	var all []string
	for batch, err := range r.Batches(t.Context()) {
		if err != nil {
			return "", err
		}
		if err := rows.Reset(batch); err != nil {
			return "", err
		}
		for i := range rows.Len() {
			all = append(all, showValue(t, typ, rows.Values(i)[0]))
		}
	}
	return strings.Join(all, " "), nil
}

func showValue(t *testing.T, typ *changelog.Type, v changelog.Value) string {
	t.Helper()
	switch {
	case v.Null:
		return "null"
	case typ.Kind == changelog.List:
		elements, err := changelog.AppendElements(nil, typ, v.B)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range elements {
			all = append(all, showValue(t, typ.Fields[0].Type, e))
		}
		return "[" + strings.Join(all, ",") + "]"
	case typ.Kind == changelog.Struct:
		var rr changelog.RowReader
		if err := rr.ResetStruct(typ, v.B); err != nil {
			t.Fatal(err)
		}
		var all []string
		for m, ok := rr.Next(); ok; m, ok = rr.Next() {
			all = append(all, showValue(t, typ.Fields[len(all)].Type, m))
		}
		return "{" + strings.Join(all, ",") + "}"
	case typ.Kind == changelog.Decimal:
		return changelog.BigInt(v.B).String()
	case v.B != nil || typ.Kind == changelog.String || typ.Kind == changelog.Binary:
		return fmt.Sprintf("%q", v.B)
	}
	return fmt.Sprint(v.I)
}

// TestForeignTypes: columns are read as Iceberg's Java library reads them from other writers' files, at the top and in lists of two
// and three levels; what cannot be is an error that names the types.
func TestForeignTypes(t *testing.T) {
	leaf := func(name string, rep parquet.Repetition, logical schema.LogicalType, typ parquet.Type, length int) schema.Node {
		return schema.MustPrimitive(schema.NewPrimitiveNodeLogical(name, rep, logical, typ, length, 1))
	}
	optional := parquet.Repetitions.Optional
	column := func(logical schema.LogicalType, typ parquet.Type, length int) schema.Node {
		return leaf("c", optional, logical, typ, length)
	}
	levels := []int16{1, 0, 1} // value, null, value
	i32 := func(a, b int32) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.Int32ColumnChunkWriter).WriteBatch([]int32{a, b}, levels, nil)
			return err
		}
	}
	i64 := func(a, b int64) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.Int64ColumnChunkWriter).WriteBatch([]int64{a, b}, levels, nil)
			return err
		}
	}
	raw := func(a, b string) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.ByteArrayColumnChunkWriter).WriteBatch([]parquet.ByteArray{[]byte(a), []byte(b)}, levels, nil)
			return err
		}
	}
	fixed := func(a, b string) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.FixedLenByteArrayColumnChunkWriter).WriteBatch([]parquet.FixedLenByteArray{[]byte(a), []byte(b)}, levels, nil)
			return err
		}
	}
	times96 := func(a, b parquet.Int96) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.Int96ColumnChunkWriter).WriteBatch([]parquet.Int96{a, b}, levels, nil)
			return err
		}
	}
	list := func(elements ...schema.Node) schema.Node {
		return schema.MustGroup(schema.NewGroupNodeLogical("c", optional, elements, schema.NewListLogicalType(), 1))
	}
	group := func(name string, rep parquet.Repetition, fields ...schema.Node) schema.Node {
		return schema.MustGroup(schema.NewGroupNode(name, rep, fields, -1))
	}
	// [1, 2], null, [], and for elements that may be null [null].
	two := func(values, def, rep []int16) func(file.ColumnChunkWriter) error {
		return func(w file.ColumnChunkWriter) error {
			var n []int32
			for _, v := range values {
				n = append(n, int32(v))
			}
			_, err := w.(*file.Int32ColumnChunkWriter).WriteBatch(n, def, rep)
			return err
		}
	}
	none, str := schema.NoLogicalType{}, schema.StringLogicalType{}
	types := parquet.Types
	prim := changelog.Primitive
	kind := func(k changelog.Kind) *changelog.Type { return prim(k) }
	micros := func(unit schema.TimeUnitType, utc bool) schema.LogicalType {
		return schema.NewTimestampLogicalType(utc, unit)
	}
	uuid := "0123456789abcdef"
	for name, c := range map[string]struct {
		node  schema.Node
		write func(file.ColumnChunkWriter) error
		typ   *changelog.Type
		want  string // "": refused
	}{
		"decimal in 32 bits":      {column(schema.NewDecimalLogicalType(9, 2), types.Int32, 0), i32(-5, math.MaxInt32), changelog.DecimalOf(9, 2), "-5 null 2147483647"},
		"decimal in 64 bits":      {column(schema.NewDecimalLogicalType(18, 2), types.Int64, 0), i64(math.MinInt64, 7), changelog.DecimalOf(18, 2), "-9223372036854775808 null 7"},
		"narrow decimal, 64 bits": {column(schema.NewDecimalLogicalType(5, 2), types.Int64, 0), i64(-1, 7), changelog.DecimalOf(5, 2), "-1 null 7"},
		"decimal in bytes":        {column(schema.NewDecimalLogicalType(38, 2), types.ByteArray, 0), raw("\xff", "\x00\x80"), changelog.DecimalOf(38, 2), "-1 null 128"},
		"decimal in fixed":        {column(schema.NewDecimalLogicalType(20, 2), types.FixedLenByteArray, 9), fixed("\xff\xff\xff\xff\xff\xff\xff\xff\xfe", "\x01\x00\x00\x00\x00\x00\x00\x00\x00"), changelog.DecimalOf(20, 2), "-2 null 18446744073709551616"},
		"decimal in wide fixed":   {column(schema.NewDecimalLogicalType(4, 2), types.FixedLenByteArray, 16), fixed(strings.Repeat("\xff", 16), strings.Repeat("\x00", 15)+"\x05"), changelog.DecimalOf(4, 2), "-1 null 5"},
		"decimal, widened":        {column(schema.NewDecimalLogicalType(9, 2), types.Int32, 0), i32(-5, 6), changelog.DecimalOf(38, 2), "-5 null 6"},
		"decimal of other scale":  {column(schema.NewDecimalLogicalType(9, 2), types.Int32, 0), i32(-5, 6), changelog.DecimalOf(9, 3), ""},
		"decimal, narrowed":       {column(schema.NewDecimalLogicalType(9, 2), types.Int32, 0), i32(-5, 6), changelog.DecimalOf(8, 2), ""},

		"int to long":       {column(none, types.Int32, 0), i32(-5, 6), kind(changelog.Long), "-5 null 6"},
		"long to int":       {column(none, types.Int64, 0), i64(-5, 6), kind(changelog.Int), ""},
		"byte to int":       {column(schema.NewIntLogicalType(8, true), types.Int32, 0), i32(-128, 127), kind(changelog.Int), "-128 null 127"},
		"short to long":     {column(schema.NewIntLogicalType(16, true), types.Int32, 0), i32(-32768, 32767), kind(changelog.Long), "-32768 null 32767"},
		"uint16 to int":     {column(schema.NewIntLogicalType(16, false), types.Int32, 0), i32(0, 65535), kind(changelog.Int), "0 null 65535"},
		"uint8 to int":      {column(schema.NewIntLogicalType(8, false), types.Int32, 0), i32(0, 255), kind(changelog.Int), "0 null 255"},
		"uint32 to long":    {column(schema.NewIntLogicalType(32, false), types.Int32, 0), i32(-1, 1), kind(changelog.Long), "4294967295 null 1"},
		"uint32 to int":     {column(schema.NewIntLogicalType(32, false), types.Int32, 0), i32(-1, 1), kind(changelog.Int), ""},
		"int32 with a sign": {column(schema.NewIntLogicalType(32, true), types.Int32, 0), i32(-1, 1), kind(changelog.Int), "-1 null 1"},
		"int to string":     {column(none, types.Int32, 0), i32(-1, 1), kind(changelog.String), ""},
		"no values": {column(schema.NullLogicalType{}, types.Int32, 0), func(w file.ColumnChunkWriter) error {
			_, err := w.(*file.Int32ColumnChunkWriter).WriteBatch(nil, []int16{0, 0}, nil)
			return err
		}, kind(changelog.Timestamp), "null null"},

		"INT96":                {column(none, types.Int96, 0), times96(int96(0, 1_999), int96(-1, 86_399_999_999_999)), kind(changelog.TimestampTZ), "1 null -1"},
		"INT96 without a zone": {column(none, types.Int96, 0), times96(int96(19_723, 0), int96(-25_567, 1000)), kind(changelog.Timestamp), "1704067200000000 null -2208988799999999"},
		"INT96, far away":      {column(none, types.Int96, 0), times96(int96(200_000, 0), int96(0, 0)), kind(changelog.Timestamp), ""},
		"timestamp in ms":      {column(micros(schema.TimeUnitMillis, true), types.Int64, 0), i64(-1, 2), kind(changelog.TimestampTZ), "-1000 null 2000"},
		"timestamp in ns":      {column(micros(schema.TimeUnitNanos, false), types.Int64, 0), i64(-1, 2001), kind(changelog.Timestamp), "-1 null 2"},
		"timestamp as a local": {column(micros(schema.TimeUnitMicros, true), types.Int64, 0), i64(-1, 2), kind(changelog.Timestamp), "-1 null 2"},
		"time in ms":           {column(schema.NewTimeLogicalType(false, schema.TimeUnitMillis), types.Int32, 0), i32(1, 86_399_999), kind(changelog.Time), "1000 null 86399999000"},
		"time in ns":           {column(schema.NewTimeLogicalType(true, schema.TimeUnitNanos), types.Int64, 0), i64(1_999, 86_399_999_999_999), kind(changelog.Time), "1 null 86399999999"},
		"date to timestamp":    {column(schema.DateLogicalType{}, types.Int32, 0), i32(1, 2), kind(changelog.Timestamp), ""},

		"text without a note": {column(none, types.ByteArray, 0), raw("é", ""), kind(changelog.String), `"é" null ""`},
		"an enum":             {column(schema.EnumLogicalType{}, types.ByteArray, 0), raw("A", "B"), kind(changelog.String), `"A" null "B"`},
		"JSON":                {column(schema.JSONLogicalType{}, types.ByteArray, 0), raw("{}", "[]"), kind(changelog.String), `"{}" null "[]"`},
		"text to bytes":       {column(str, types.ByteArray, 0), raw("A", "B"), kind(changelog.Binary), `"A" null "B"`},
		"uuid":                {column(schema.UUIDLogicalType{}, types.FixedLenByteArray, 16), fixed(uuid, uuid), kind(changelog.UUID), fmt.Sprintf("%q null %q", uuid, uuid)},
		"uuid without a note": {column(none, types.FixedLenByteArray, 16), fixed(uuid, uuid), kind(changelog.UUID), fmt.Sprintf("%q null %q", uuid, uuid)},
		"uuid as fixed":       {column(schema.UUIDLogicalType{}, types.FixedLenByteArray, 16), fixed(uuid, uuid), &changelog.Type{Kind: changelog.Fixed, Length: 16}, fmt.Sprintf("%q null %q", uuid, uuid)},
		"fixed of no uuid":    {column(none, types.FixedLenByteArray, 8), fixed(uuid[:8], uuid[8:]), kind(changelog.UUID), ""},

		"list of three levels": {
			list(group("list", parquet.Repetitions.Repeated, leaf("element", optional, none, types.Int32, 0))),
			two([]int16{1, 2}, []int16{3, 3, 0, 1, 2}, []int16{0, 1, 0, 0, 0}), changelog.ListOf(kind(changelog.Int)), "[1,2] null [] [null]",
		},
		"list of three levels, other names": {
			list(group("bag", parquet.Repetitions.Repeated, leaf("item", optional, none, types.Int32, 0))),
			two([]int16{1, 2}, []int16{3, 3, 0, 1, 2}, []int16{0, 1, 0, 0, 0}), changelog.ListOf(kind(changelog.Long)), "[1,2] null [] [null]",
		},
		"list of two levels": {
			list(leaf("array", parquet.Repetitions.Repeated, none, types.Int32, 0)),
			two([]int16{1, 2}, []int16{2, 2, 0, 1}, []int16{0, 1, 0, 0}), changelog.ListOf(kind(changelog.Int)), "[1,2] null []",
		},
		"list of two levels, widened": {
			list(leaf("array", parquet.Repetitions.Repeated, schema.NewIntLogicalType(8, true), types.Int32, 0)),
			two([]int16{-1, 2}, []int16{2, 2, 0, 1}, []int16{0, 1, 0, 0}), changelog.ListOf(kind(changelog.Long)), "[-1,2] null []",
		},
		"list of two levels, of structs": {
			list(group("array", parquet.Repetitions.Repeated, leaf("x", optional, none, types.Int32, 0))),
			two([]int16{1}, []int16{3, 2, 0, 1}, []int16{0, 1, 0, 0}),
			changelog.ListOf(&changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{{ID: 1, Name: "x", Type: kind(changelog.Int)}}}), "[{1},{null}] null []",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := foreignFile(t, c.node, c.write)
			got, err := shown(t, b, c.typ)
			switch {
			case c.want == "" && (err == nil || !errors.Is(err, changelog.ErrIncompatible) && !errors.Is(err, ErrFile)):
				t.Errorf("%s, %v", got, err)
			case c.want != "" && (err != nil || got != c.want):
				t.Errorf("%s, %v, want %s", got, err, c.want)
			}
		})
	}
}

// TestForeignArrow: what type a writer had in memory is nothing to us: PyIceberg, for one, notes large and dictionary-encoded
// strings in its files.
func TestForeignArrow(t *testing.T) {
	mem := memory.DefaultAllocator
	dictionary := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}
	field := func(name string, typ arrow.DataType, id string) arrow.Field {
		return arrow.Field{Name: name, Type: typ, Nullable: true, Metadata: arrow.NewMetadata([]string{fieldIDKey}, []string{id})}
	}
	element := arrow.Field{Name: "element", Type: arrow.BinaryTypes.LargeString, Nullable: true, Metadata: arrow.NewMetadata([]string{fieldIDKey}, []string{"5"})}
	written := arrow.NewSchema([]arrow.Field{
		field("large", arrow.BinaryTypes.LargeString, "1"), field("dict", dictionary, "2"), field("bin", arrow.BinaryTypes.LargeBinary, "3"),
		field("list", arrow.LargeListOfField(element), "4"), field("at", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "Europe/Warsaw"}, "6"),
	}, nil)
	b := array.NewRecordBuilder(mem, written)
	defer b.Release()
	b.Field(0).(*array.LargeStringBuilder).AppendValues([]string{"a", "é"}, nil)
	if err := b.Field(1).(*array.BinaryDictionaryBuilder).AppendString("x"); err != nil {
		t.Fatal(err)
	}
	b.Field(1).AppendNull()
	b.Field(2).(*array.BinaryBuilder).AppendValues([][]byte{{1}, {0xff}}, nil)
	l := b.Field(3).(*array.LargeListBuilder)
	l.Append(true)
	l.ValueBuilder().(*array.LargeStringBuilder).AppendValues([]string{"p", "q"}, nil)
	l.AppendNull()
	b.Field(4).(*array.TimestampBuilder).AppendValues([]arrow.Timestamp{7, -7}, nil)
	batch := b.NewRecordBatch()
	defer batch.Release()
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(written, &out, parquet.NewWriterProperties(), pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err == nil {
		err = errors.Join(w.Write(batch), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	str := primitive(changelog.String)
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "large", Type: str},
		{Name: "dict", Type: str},
		{Name: "bin", Type: primitive(changelog.Binary)},
		{Name: "list", Type: changelog.ListOf(str)},
		{Name: "at", Type: primitive(changelog.TimestampTZ)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Columns[4].ID, s.Columns[3].Type.Fields[0].ID = 6, 5
	if err := s.Index(); err != nil {
		t.Fatal(err)
	}
	rows, _ := readAll(t, out.Bytes(), s, false, Options{})
	var got []string
	for _, r := range rows {
		values, err := changelog.AppendValues(nil, s, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			got = append(got, showValue(t, s.Columns[i].Type, v))
		}
	}
	if want := `"a" "x" "\x01" ["p","q"] 7 "é" null "\xff" null -7`; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", strings.Join(got, " "), want)
	}
}
