package changelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Row is one row in the row codec (FORMAT.md): the id of its schema, a bitmap of nulls, the values in column order.
// A Row is self-contained; nil means "no row".
type Row []byte

// ErrCorrupt reports bytes that are no row, key or block.
var ErrCorrupt = errors.New("changelog: corrupt bytes")

// SchemaID returns the id of the schema that encoded the row.
func (r Row) SchemaID() (SchemaID, error) {
	id, n := binary.Uvarint(r)
	if n <= 0 || id > math.MaxUint32 {
		return 0, fmt.Errorf("row of %d bytes, schema id: %w", len(r), ErrCorrupt)
	}
	return SchemaID(id), nil
}

// Value is one value of a row: a view into the row's bytes, valid as long as they are. What I and B hold depends on
// the kind of its type: see Kind.
type Value struct {
	Null bool
	I    int64
	B    []byte
}

// Float returns a Float value.
func (v Value) Float() float32 { return math.Float32frombits(uint32(v.I)) } //nolint:gosec // bits, not a number

// Double returns a Double value.
func (v Value) Double() float64 { return math.Float64frombits(uint64(v.I)) } //nolint:gosec // bits, not a number

// NullValue is a null of any type.
var NullValue = Value{Null: true}

// FloatValue returns the Value of a Float column.
func FloatValue(f float32) Value { return Value{I: int64(math.Float32bits(f))} }

// DoubleValue returns the Value of a Double column.
func DoubleValue(f float64) Value { return Value{I: int64(math.Float64bits(f))} } //nolint:gosec // bits, not a number

// AppendRow appends the encoding of a row of schema s to dst and returns the extended buffer. values has one Value for each
// column of s, in order. The values' bytes are copied.
func AppendRow(dst []byte, s *Schema, values []Value) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.ID))
	return appendFields(dst, s.Columns, values)
}

func appendFields(dst []byte, columns []Column, values []Value) []byte {
	bitmap := len(dst)
	for range (len(columns) + 7) / 8 {
		dst = append(dst, 0)
	}
	for i := range columns {
		if values[i].Null {
			dst[bitmap+i/8] |= 1 << (i % 8)
			continue
		}
		dst = appendValue(dst, columns[i].Type, values[i])
	}
	return dst
}

func appendValue(dst []byte, t *Type, v Value) []byte {
	switch t.Kind {
	case Boolean:
		return append(dst, byte(v.I))
	case Int, Long, Date, Time, Timestamp, TimestampTZ, TimestampNS, TimestampTZNS:
		return binary.AppendVarint(dst, v.I)
	case Float:
		return binary.LittleEndian.AppendUint32(dst, uint32(v.I)) //nolint:gosec // bits, not a number
	case Double:
		return binary.LittleEndian.AppendUint64(dst, uint64(v.I)) //nolint:gosec // bits, not a number
	case UUID, Fixed:
		return append(dst, v.B...)
	case Decimal, String, Binary, Struct, List, Map:
		dst = binary.AppendUvarint(dst, uint64(len(v.B)))
		return append(dst, v.B...)
	}
	panic("changelog: value of unknown kind " + t.Kind.String())
}

// AppendStruct appends the body of a Struct value (what its Value.B holds) to dst.
func AppendStruct(dst []byte, t *Type, values []Value) []byte {
	return appendFields(dst, t.Fields, values)
}

// AppendList appends the body of a List value to dst.
func AppendList(dst []byte, t *Type, elements []Value) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(elements)))
	return appendSequence(dst, t.Fields[0].Type, elements)
}

// AppendMap appends the body of a Map value to dst; keys and values are of the same length, keys are not null.
func AppendMap(dst []byte, t *Type, keys, values []Value) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(keys)))
	dst = appendSequence(dst, t.Fields[0].Type, keys)
	return appendSequence(dst, t.Fields[1].Type, values)
}

func appendSequence(dst []byte, t *Type, values []Value) []byte {
	bitmap := len(dst)
	for range (len(values) + 7) / 8 {
		dst = append(dst, 0)
	}
	for i, v := range values {
		if v.Null {
			dst[bitmap+i/8] |= 1 << (i % 8)
			continue
		}
		dst = appendValue(dst, t, v)
	}
	return dst
}

// RowReader reads the values of one row in column order, without allocating. The zero value is ready for Reset.
type RowReader struct {
	columns []Column
	bitmap  []byte
	rest    []byte
	next    int
	err     error
}

// Reset starts reading r, which s must have encoded: the caller picks s by r.SchemaID.
func (rr *RowReader) Reset(s *Schema, r Row) error {
	id, n := binary.Uvarint(r)
	if n <= 0 || id != uint64(s.ID) {
		rr.columns, rr.err = nil, fmt.Errorf("row of %d bytes is not of schema %d: %w", len(r), s.ID, ErrCorrupt)
		return rr.err
	}
	return rr.resetFields(s.Columns, r[n:])
}

// ResetStruct starts reading the fields of a Struct value of type t.
func (rr *RowReader) ResetStruct(t *Type, body []byte) error { return rr.resetFields(t.Fields, body) }

func (rr *RowReader) resetFields(columns []Column, b []byte) error {
	*rr = RowReader{columns: columns}
	n := (len(columns) + 7) / 8
	if len(b) < n {
		rr.columns, rr.err = nil, fmt.Errorf("bitmap of %d columns in %d bytes: %w", len(columns), len(b), ErrCorrupt)
		return rr.err
	}
	rr.bitmap, rr.rest = b[:n], b[n:]
	return nil
}

// Next returns the value of the next column; ok is false after the last one and after an error, which Err tells.
func (rr *RowReader) Next() (v Value, ok bool) {
	if rr.next >= len(rr.columns) {
		return Value{}, false
	}
	i := rr.next
	rr.next++
	if rr.bitmap[i/8]>>(i%8)&1 == 1 {
		return NullValue, true
	}
	v, rest, ok := cutValue(rr.columns[i].Type, rr.rest)
	if !ok {
		rr.err = fmt.Errorf("column %q: %w", rr.columns[i].Name, ErrCorrupt)
		rr.next = len(rr.columns)
		return Value{}, false
	}
	rr.rest = rest
	return v, true
}

// Err returns what ended Next early, or nil.
func (rr *RowReader) Err() error { return rr.err }

func cutValue(t *Type, b []byte) (v Value, rest []byte, ok bool) {
	switch t.Kind {
	case Boolean:
		if len(b) < 1 {
			return v, nil, false
		}
		return Value{I: int64(b[0])}, b[1:], true
	case Int, Long, Date, Time, Timestamp, TimestampTZ, TimestampNS, TimestampTZNS:
		i, n := binary.Varint(b)
		if n <= 0 {
			return v, nil, false
		}
		return Value{I: i}, b[n:], true
	case Float:
		if len(b) < 4 {
			return v, nil, false
		}
		return Value{I: int64(binary.LittleEndian.Uint32(b))}, b[4:], true
	case Double:
		if len(b) < 8 {
			return v, nil, false
		}
		return Value{I: int64(binary.LittleEndian.Uint64(b))}, b[8:], true //nolint:gosec // bits, not a number
	case UUID:
		return cutBytes(b, 16)
	case Fixed:
		return cutBytes(b, t.Length)
	case Decimal, String, Binary, Struct, List, Map:
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			return v, nil, false
		}
		return cutBytes(b[n:], int(l)) //nolint:gosec // not above len(b)
	}
	return v, nil, false
}

func cutBytes(b []byte, n int) (v Value, rest []byte, ok bool) {
	if n < 0 || len(b) < n {
		return v, nil, false
	}
	return Value{B: b[:n:n]}, b[n:], true
}

// AppendValues decodes all values of the row r of schema s onto dst: one Value a column.
func AppendValues(dst []Value, s *Schema, r Row) ([]Value, error) {
	var rr RowReader
	if err := rr.Reset(s, r); err != nil {
		return dst, err
	}
	for {
		v, ok := rr.Next()
		if !ok {
			return dst, rr.Err()
		}
		dst = append(dst, v)
	}
}

// AppendElements decodes the body of a List value of type t onto dst.
func AppendElements(dst []Value, t *Type, body []byte) ([]Value, error) {
	n, body, err := cutCount(t, body)
	if err != nil {
		return dst, err
	}
	dst, _, err = appendDecoded(dst, t.Fields[0].Type, n, body)
	return dst, err
}

// AppendEntries decodes the body of a Map value of type t onto keys and values.
func AppendEntries(keys, values []Value, t *Type, body []byte) ([]Value, []Value, error) {
	n, body, err := cutCount(t, body)
	if err != nil {
		return keys, values, err
	}
	keys, body, err = appendDecoded(keys, t.Fields[0].Type, n, body)
	if err != nil {
		return keys, values, err
	}
	values, _, err = appendDecoded(values, t.Fields[1].Type, n, body)
	return keys, values, err
}

func cutCount(t *Type, b []byte) (int, []byte, error) {
	c, n := binary.Uvarint(b)
	if n <= 0 || c > 8*uint64(len(b)) { // each element has at least its bit
		return 0, nil, fmt.Errorf("%s of %d bytes: %w", t, len(b), ErrCorrupt)
	}
	return int(c), b[n:], nil //nolint:gosec // bounded above
}

func appendDecoded(dst []Value, t *Type, n int, b []byte) ([]Value, []byte, error) {
	size := (n + 7) / 8
	if len(b) < size {
		return dst, nil, fmt.Errorf("%d elements in %d bytes: %w", n, len(b), ErrCorrupt)
	}
	bitmap, rest := b[:size], b[size:]
	for i := range n {
		if bitmap[i/8]>>(i%8)&1 == 1 {
			dst = append(dst, NullValue)
			continue
		}
		v, after, ok := cutValue(t, rest)
		if !ok {
			return dst, nil, fmt.Errorf("element %d of type %s: %w", i, t, ErrCorrupt)
		}
		dst, rest = append(dst, v), after
	}
	return dst, rest, nil
}
