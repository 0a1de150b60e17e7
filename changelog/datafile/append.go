package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"firn/changelog"
)

// ErrNull reports a null in a column that is required.
var ErrNull = errors.New("datafile: null in a required column")

// Appender builds Arrow batches from rows, with one typed builder a column. It is not safe for concurrent use.
type Appender struct {
	schema  *changelog.Schema
	arrow   *arrow.Schema
	builder *array.RecordBuilder
	columns []appendFunc
	offsets *array.Int64Builder // nil: no _file_offset
	rows    int
	bytes   int64
}

// appendFunc appends one value to its column's builder.
type appendFunc func(v changelog.Value) error

// NewAppender returns an appender of rows of s, with _file_offset at the end if offset. Release frees its memory.
func NewAppender(mem memory.Allocator, s *changelog.Schema, offset bool) *Appender {
	a := &Appender{schema: s, arrow: ArrowSchema(s, offset)}
	a.builder = array.NewRecordBuilder(mem, a.arrow)
	a.columns = make([]appendFunc, len(s.Columns))
	for i := range s.Columns {
		a.columns[i] = appendTo(a.builder.Field(i), &s.Columns[i])
	}
	if offset {
		a.offsets = a.builder.Field(len(s.Columns)).(*array.Int64Builder) // the type of ArrowSchema
	}
	return a
}

// Schema returns the Arrow schema of the batches.
func (a *Appender) Schema() *arrow.Schema { return a.arrow }

// Rows returns how many rows the next batch has so far.
func (a *Appender) Rows() int { return a.rows }

// Bytes returns about how many bytes the rows of the next batch take.
func (a *Appender) Bytes() int64 { return a.bytes }

// AppendRow appends a row that the appender's schema encoded. offset is its _file_offset, where there is one. The bytes
// are copied. After an error the appender is unusable. Errors: ErrNull, changelog.ErrCorrupt.
func (a *Appender) AppendRow(r changelog.Row, offset int64) error {
	var rr changelog.RowReader
	if err := rr.Reset(a.schema, r); err != nil {
		return err
	}
	for _, appendValue := range a.columns {
		v, ok := rr.Next()
		if !ok {
			return rr.Err()
		}
		if err := appendValue(v); err != nil {
			return err
		}
	}
	a.finishRow(offset, len(r))
	return nil
}

// AppendValues appends a row: one value a column of the appender's schema. Otherwise as AppendRow.
func (a *Appender) AppendValues(values []changelog.Value, offset int64) error {
	size := 8 * len(values)
	for i, appendValue := range a.columns {
		if err := appendValue(values[i]); err != nil {
			return err
		}
		size += len(values[i].B)
	}
	a.finishRow(offset, size)
	return nil
}

func (a *Appender) finishRow(offset int64, size int) {
	if a.offsets != nil {
		a.offsets.Append(offset)
	}
	a.rows++
	a.bytes += int64(size)
}

// NewBatch returns the rows appended since the last call as a batch, which the caller releases.
func (a *Appender) NewBatch() arrow.RecordBatch {
	a.rows, a.bytes = 0, 0
	return a.builder.NewRecordBatch()
}

// Release frees the builders.
func (a *Appender) Release() { a.builder.Release() }

// appendTo returns the function that appends values of column c to b, which arrowType(c.Type) gave.
func appendTo(b array.Builder, c *changelog.Column) appendFunc {
	put := appendKind(b, c.Type)
	if c.Required {
		name := c.Name
		return func(v changelog.Value) error {
			if v.Null {
				return fmt.Errorf("column %q: %w", name, ErrNull)
			}
			return put(v)
		}
	}
	return func(v changelog.Value) error {
		if v.Null {
			b.AppendNull()
			return nil
		}
		return put(v)
	}
}

// appendKind returns the function that appends values that are not null.
//
//nolint:gosec // values are in the range of their kind; builders are of the types that arrowType names
func appendKind(b array.Builder, t *changelog.Type) appendFunc {
	switch t.Kind {
	case changelog.Boolean:
		b := b.(*array.BooleanBuilder)
		return func(v changelog.Value) error { b.Append(v.I != 0); return nil }
	case changelog.Int:
		b := b.(*array.Int32Builder)
		return func(v changelog.Value) error { b.Append(int32(v.I)); return nil }
	case changelog.Long:
		b := b.(*array.Int64Builder)
		return func(v changelog.Value) error { b.Append(v.I); return nil }
	case changelog.Float:
		b := b.(*array.Float32Builder)
		return func(v changelog.Value) error { b.Append(v.Float()); return nil }
	case changelog.Double:
		b := b.(*array.Float64Builder)
		return func(v changelog.Value) error { b.Append(v.Double()); return nil }
	case changelog.Decimal:
		b := b.(*array.Decimal128Builder)
		return func(v changelog.Value) error { b.Append(decimalOf(v.B)); return nil }
	case changelog.Date:
		b := b.(*array.Date32Builder)
		return func(v changelog.Value) error { b.Append(arrow.Date32(v.I)); return nil }
	case changelog.Time:
		b := b.(*array.Time64Builder)
		return func(v changelog.Value) error { b.Append(arrow.Time64(v.I)); return nil }
	case changelog.Timestamp, changelog.TimestampTZ, changelog.TimestampNS, changelog.TimestampTZNS:
		b := b.(*array.TimestampBuilder)
		return func(v changelog.Value) error { b.Append(arrow.Timestamp(v.I)); return nil }
	case changelog.String:
		b := b.(*array.StringBuilder).BinaryBuilder
		return func(v changelog.Value) error { b.Append(v.B); return nil }
	case changelog.Binary:
		b := b.(*array.BinaryBuilder)
		return func(v changelog.Value) error { b.Append(v.B); return nil }
	case changelog.UUID:
		b := b.(*extensions.UUIDBuilder)
		return func(v changelog.Value) error { b.AppendBytes([16]byte(v.B)); return nil }
	case changelog.Fixed:
		b := b.(*array.FixedSizeBinaryBuilder)
		return func(v changelog.Value) error { b.Append(v.B); return nil }
	case changelog.Struct:
		return appendStruct(b.(*array.StructBuilder), t)
	case changelog.List:
		return appendList(b.(*array.ListBuilder), t)
	case changelog.Map:
		return appendMap(b.(*array.MapBuilder), t)
	}
	panic("datafile: column of unknown kind " + t.Kind.String())
}

func appendStruct(b *array.StructBuilder, t *changelog.Type) appendFunc {
	fields := make([]appendFunc, len(t.Fields))
	for i := range t.Fields {
		fields[i] = appendTo(b.FieldBuilder(i), &t.Fields[i])
	}
	return func(v changelog.Value) error {
		var rr changelog.RowReader
		if err := rr.ResetStruct(t, v.B); err != nil {
			return err
		}
		b.Append(true)
		for _, put := range fields {
			f, ok := rr.Next()
			if !ok {
				return rr.Err()
			}
			if err := put(f); err != nil {
				return err
			}
		}
		return nil
	}
}

func appendList(b *array.ListBuilder, t *changelog.Type) appendFunc {
	put := appendTo(b.ValueBuilder(), &t.Fields[0])
	var scratch []changelog.Value
	return func(v changelog.Value) (err error) {
		if scratch, err = changelog.AppendElements(scratch[:0], t, v.B); err != nil {
			return err
		}
		b.Append(true)
		for _, e := range scratch {
			if err := put(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func appendMap(b *array.MapBuilder, t *changelog.Type) appendFunc {
	putKey, putValue := appendTo(b.KeyBuilder(), &t.Fields[0]), appendTo(b.ItemBuilder(), &t.Fields[1])
	var keys, values []changelog.Value
	return func(v changelog.Value) (err error) {
		if keys, values, err = changelog.AppendEntries(keys[:0], values[:0], t, v.B); err != nil {
			return err
		}
		b.Append(true)
		for i := range keys {
			if err := putKey(keys[i]); err != nil {
				return err
			}
			if err := putValue(values[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// decimalOf widens a two's complement big-endian number of at most 16 bytes.
func decimalOf(b []byte) decimal128.Num {
	if len(b) <= 8 {
		var u uint64
		for _, c := range b {
			u = u<<8 | uint64(c)
		}
		shift := uint(64 - 8*len(b)) //nolint:gosec // 0 to 64
		if shift == 64 {
			return decimal128.Num{}
		}
		return decimal128.FromI64(int64(u<<shift) >> shift) //nolint:gosec // sign extension
	}
	var wide [16]byte
	if b[0]&0x80 != 0 {
		for i := range wide {
			wide[i] = 0xff
		}
	}
	copy(wide[16-len(b):], b)
	return decimal128.New(int64(binary.BigEndian.Uint64(wide[:8])), binary.BigEndian.Uint64(wide[8:])) //nolint:gosec // bits
}
