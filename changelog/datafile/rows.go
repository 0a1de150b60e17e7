package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"firn/changelog"
)

// ErrBatch reports a batch whose columns are not those of the schema that it is read with.
var ErrBatch = errors.New("datafile: batch does not fit the schema")

// Rows reads the rows of Arrow batches in one schema (those that a Reader of the schema gives). It keeps a buffer a
// column: not safe for concurrent use.
type Rows struct {
	schema  *changelog.Schema
	columns []valueFunc
	offsets *array.Int64
	n       int
	values  []changelog.Value
	key     []changelog.Value
}

// valueFunc returns the value of a row. Its bytes are valid until the next call and as long as the batch is.
type valueFunc func(i int) changelog.Value

// NewRows returns a reader of batches of the schema s.
func NewRows(s *changelog.Schema) *Rows {
	return &Rows{
		schema:  s,
		columns: make([]valueFunc, len(s.Columns)),
		values:  make([]changelog.Value, len(s.Columns)),
		key:     make([]changelog.Value, len(s.Key)),
	}
}

// Reset makes batch the one to read. It must have the schema's columns first, in order; _file_offset may follow. The batch
// must not be released while its rows are read. Error: ErrBatch.
func (r *Rows) Reset(batch arrow.RecordBatch) error {
	n := int(batch.NumCols())
	if n != len(r.columns) && n != len(r.columns)+1 {
		return fmt.Errorf("%d columns, not %d: %w", n, len(r.columns), ErrBatch)
	}
	for i := range r.columns {
		f, err := valueOf(batch.Column(i), r.schema.Columns[i].Type)
		if err != nil {
			return fmt.Errorf("column %q: %w", r.schema.Columns[i].Name, err)
		}
		r.columns[i] = f
	}
	r.offsets = nil
	if n > len(r.columns) {
		offsets, ok := batch.Column(n - 1).(*array.Int64)
		if !ok {
			return fmt.Errorf("offsets of type %s: %w", batch.Column(n-1).DataType(), ErrBatch)
		}
		r.offsets = offsets
	}
	r.n = int(batch.NumRows())
	return nil
}

// Len returns the number of rows in the batch.
func (r *Rows) Len() int { return r.n }

// Values returns the values of row i: one a column. They are valid until the next call of a method.
func (r *Rows) Values(i int) []changelog.Value {
	for c, value := range r.columns {
		r.values[c] = value(i)
	}
	return r.values
}

// AppendRow appends row i, in the encoding of the schema, to dst.
func (r *Rows) AppendRow(dst []byte, i int) changelog.Row {
	return changelog.AppendRow(dst, r.schema, r.Values(i))
}

// Key returns the key values of row i in key order, valid until the next call of a method.
func (r *Rows) Key(i int) []changelog.Value {
	for k, o := range r.schema.KeyOrdinals() {
		r.key[k] = r.columns[o](i)
	}
	return r.key
}

// AppendKey appends the key of row i to dst.
func (r *Rows) AppendKey(dst []byte, i int) changelog.Key {
	return r.schema.AppendKey(dst, r.Key(i))
}

// Offset returns the _file_offset of row i; ok is false where it is null or not read.
func (r *Rows) Offset(i int) (offset int64, ok bool) {
	if r.offsets == nil || r.offsets.IsNull(i) {
		return 0, false
	}
	return r.offsets.Value(i), true
}

// AppendRow appends row i of batch, which has the columns of s, to dst. For many rows Rows is faster.
func AppendRow(dst []byte, s *changelog.Schema, batch arrow.RecordBatch, i int) (changelog.Row, error) {
	r := NewRows(s)
	if err := r.Reset(batch); err != nil {
		return nil, err
	}
	return r.AppendRow(dst, i), nil
}

func valueOf(a arrow.Array, t *changelog.Type) (valueFunc, error) {
	f := valueKind(a, t)
	if f == nil {
		return nil, fmt.Errorf("%s for %s: %w", a.DataType(), t, ErrBatch)
	}
	if a.NullN() == 0 {
		return f, nil
	}
	return func(i int) changelog.Value {
		if a.IsNull(i) {
			return changelog.NullValue
		}
		return f(i)
	}, nil
}

// valueKind returns the function for values that are not null, or nil if a is not of t's type.
func valueKind(a arrow.Array, t *changelog.Type) valueFunc {
	switch t.Kind {
	case changelog.Boolean:
		if a, ok := a.(*array.Boolean); ok {
			return func(i int) changelog.Value {
				if a.Value(i) {
					return changelog.Value{I: 1}
				}
				return changelog.Value{}
			}
		}
	case changelog.Int:
		if a, ok := a.(*array.Int32); ok {
			return func(i int) changelog.Value { return changelog.Value{I: int64(a.Value(i))} }
		}
	case changelog.Long:
		if a, ok := a.(*array.Int64); ok {
			return func(i int) changelog.Value { return changelog.Value{I: a.Value(i)} }
		}
	case changelog.Float:
		if a, ok := a.(*array.Float32); ok {
			return func(i int) changelog.Value { return changelog.FloatValue(a.Value(i)) }
		}
	case changelog.Double:
		if a, ok := a.(*array.Float64); ok {
			return func(i int) changelog.Value { return changelog.DoubleValue(a.Value(i)) }
		}
	case changelog.Decimal:
		if a, ok := a.(*array.Decimal128); ok {
			return decimalValue(a)
		}
	case changelog.Date:
		if a, ok := a.(*array.Date32); ok {
			return func(i int) changelog.Value { return changelog.Value{I: int64(a.Value(i))} }
		}
	case changelog.Time:
		if a, ok := a.(*array.Time64); ok {
			return func(i int) changelog.Value { return changelog.Value{I: int64(a.Value(i))} }
		}
	case changelog.Timestamp, changelog.TimestampTZ, changelog.TimestampNS, changelog.TimestampTZNS:
		if a, ok := a.(*array.Timestamp); ok {
			return func(i int) changelog.Value { return changelog.Value{I: int64(a.Value(i))} }
		}
	case changelog.String:
		if a, ok := a.(*array.String); ok {
			return stringValue(a)
		}
	case changelog.Binary:
		if a, ok := a.(*array.Binary); ok {
			return func(i int) changelog.Value { return changelog.Value{B: a.Value(i)} }
		}
	case changelog.UUID:
		if a, ok := a.(*extensions.UUIDArray); ok {
			return valueKind(a.Storage(), &changelog.Type{Kind: changelog.Fixed, Length: 16})
		}
	case changelog.Fixed:
		if a, ok := a.(*array.FixedSizeBinary); ok {
			return func(i int) changelog.Value { return changelog.Value{B: a.Value(i)} }
		}
	case changelog.Struct:
		if a, ok := a.(*array.Struct); ok && a.NumField() == len(t.Fields) {
			return structValue(a, t)
		}
	case changelog.List:
		if a, ok := a.(*array.List); ok {
			return listValue(a, t)
		}
	case changelog.Map:
		if a, ok := a.(*array.Map); ok {
			return mapValue(a, t)
		}
	}
	return nil
}

// stringValue reads the buffers themselves: the array gives strings, which would have to be copied.
func stringValue(a *array.String) valueFunc {
	d := a.Data()
	if d.Len() == 0 || d.Buffers()[2] == nil {
		return func(int) changelog.Value { return changelog.Value{} }
	}
	offsets := arrow.Int32Traits.CastFromBytes(d.Buffers()[1].Bytes())[d.Offset():]
	data := d.Buffers()[2].Bytes()
	return func(i int) changelog.Value {
		from, to := offsets[i], offsets[i+1]
		return changelog.Value{B: data[from:to:to]}
	}
}

func decimalValue(a *array.Decimal128) valueFunc {
	var scratch [16]byte
	return func(i int) changelog.Value {
		n := a.Value(i)
		putDecimal(scratch[:], n)
		return changelog.Value{B: changelog.ShortestInt(scratch[:])}
	}
}

func putDecimal(dst []byte, n decimal128.Num) {
	binary.BigEndian.PutUint64(dst, uint64(n.HighBits())) //nolint:gosec // bits, not a number
	binary.BigEndian.PutUint64(dst[8:], n.LowBits())
}

func structValue(a *array.Struct, t *changelog.Type) valueFunc {
	fields := make([]valueFunc, len(t.Fields))
	for i := range fields {
		f, err := valueOf(a.Field(i), t.Fields[i].Type)
		if err != nil {
			return nil
		}
		fields[i] = f
	}
	values := make([]changelog.Value, len(fields))
	var scratch []byte
	return func(i int) changelog.Value {
		for f, value := range fields {
			values[f] = value(i)
		}
		scratch = changelog.AppendStruct(scratch[:0], t, values)
		return changelog.Value{B: scratch}
	}
}

// elements collects the values of rows from to to of one column; a nested one's bytes are copied, because its function
// has one buffer.
type elements struct {
	value  valueFunc
	copies bool
	buf    []byte
	list   []changelog.Value
}

func newElements(a arrow.Array, t *changelog.Type) *elements {
	f, err := valueOf(a, t)
	if err != nil {
		return nil
	}
	return &elements{value: f, copies: t.Nested() || t.Kind == changelog.Decimal}
}

func (e *elements) collect(from, to int64) []changelog.Value {
	e.list, e.buf = e.list[:0], e.buf[:0]
	for i := from; i < to; i++ {
		v := e.value(int(i))
		if e.copies && !v.Null {
			at := len(e.buf)
			e.buf = append(e.buf, v.B...) // a grown buffer leaves the earlier values in the old one
			v.B = e.buf[at:len(e.buf):len(e.buf)]
		}
		e.list = append(e.list, v)
	}
	return e.list
}

func listValue(a *array.List, t *changelog.Type) valueFunc {
	items := newElements(a.ListValues(), t.Fields[0].Type)
	if items == nil {
		return nil
	}
	var scratch []byte
	return func(i int) changelog.Value {
		from, to := a.ValueOffsets(i)
		scratch = changelog.AppendList(scratch[:0], t, items.collect(from, to))
		return changelog.Value{B: scratch}
	}
}

func mapValue(a *array.Map, t *changelog.Type) valueFunc {
	keys, items := newElements(a.Keys(), t.Fields[0].Type), newElements(a.Items(), t.Fields[1].Type)
	if keys == nil || items == nil {
		return nil
	}
	var scratch []byte
	return func(i int) changelog.Value {
		from, to := a.ValueOffsets(i)
		scratch = changelog.AppendMap(scratch[:0], t, keys.collect(from, to), items.collect(from, to))
		return changelog.Value{B: scratch}
	}
}
