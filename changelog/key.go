package changelog

import (
	"encoding/binary"
	"fmt"
	"math"
)

// AppendKey appends the order-preserving encoding of key values to dst: bytes.Compare of two keys of one table orders
// them as their columns do. types and values are in key order; no value may be null: Schema.AppendKey takes those. int and long
// have one encoding, so that widening a key column keeps every key. Values that are no number are one, as in Java.
//
//	boolean                      1 byte
//	int, long, date, time, …     8 bytes big-endian, sign bit flipped
//	float, double                the bits, big-endian; all flipped if negative, else the sign bit
//	decimal                      16 bytes two's complement big-endian, sign bit flipped
//	uuid, fixed                  their bytes
//	string, binary               00 becomes 00 ff; then 00 01
//
// (Own code: github.com/google/orderedcode, which the design names, boxes each value, and its module was not to be had.)
func AppendKey(dst []byte, types []*Type, values []Value) Key {
	for i, t := range types {
		dst = appendKeyValue(dst, t, values[i])
	}
	return dst
}

// AppendKey appends a value of a key column. Where the column is optional, which it is only in tables that others have made, a
// byte tells whether there is a value: 00 stands for null, the least of all, 01 is before a value.
func (c *Column) AppendKey(dst []byte, v Value) Key {
	switch {
	case c.Required:
		return appendKeyValue(dst, c.Type, v)
	case v.Null:
		return append(dst, 0)
	}
	return appendKeyValue(append(dst, 1), c.Type, v)
}

// AppendKey appends the key of a table with schema s: its values in key order.
func (s *Schema) AppendKey(dst []byte, key []Value) Key {
	for i, o := range s.byKey {
		dst = s.Columns[o].AppendKey(dst, key[i])
	}
	return dst
}

func appendKeyValue(dst []byte, t *Type, v Value) []byte {
	switch t.Kind {
	case Boolean:
		return append(dst, byte(v.I))
	case Int, Long, Date, Time, Timestamp, TimestampTZ, TimestampNS, TimestampTZNS:
		return binary.BigEndian.AppendUint64(dst, uint64(v.I)^1<<63) //nolint:gosec // bits, not a number
	case Float:
		b := uint32(v.I) //nolint:gosec // bits, not a number
		if f := v.Float(); f != f {
			b = 0x7fc00000
		}
		return binary.BigEndian.AppendUint32(dst, b^(uint32(int32(b)>>31)|1<<31)) //nolint:gosec // bits
	case Double:
		b := uint64(v.I) //nolint:gosec // bits, not a number
		if f := v.Double(); f != f {
			b = 0x7ff8000000000000
		}
		return binary.BigEndian.AppendUint64(dst, b^(uint64(int64(b)>>63)|1<<63)) //nolint:gosec // bits
	case Decimal:
		return appendWide(dst, v.B)
	case UUID, Fixed:
		return append(dst, v.B...)
	case String, Binary:
		return appendEscaped(dst, v.B)
	case Struct, List, Map:
	}
	panic("changelog: nested key column: Schema.Index refuses them")
}

func appendWide(dst, b []byte) []byte {
	var wide [16]byte
	if len(b) > 0 && b[0]&0x80 != 0 {
		for i := range wide {
			wide[i] = 0xff
		}
	}
	copy(wide[16-len(b):], b)
	wide[0] ^= 0x80
	return append(dst, wide[:]...)
}

func appendEscaped(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, c)
		if c == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

// KeyTypes returns the types of the key columns in key order.
func (s *Schema) KeyTypes() []*Type {
	types := make([]*Type, len(s.byKey))
	for i, o := range s.byKey {
		types[i] = s.Columns[o].Type
	}
	return types
}

// KeyValues decodes a key of a table with schema s: one Value a key column, in key order. Error: ErrCorrupt.
func (s *Schema) KeyValues(k Key) ([]Value, error) {
	values := make([]Value, 0, len(s.byKey))
	rest := []byte(k)
	for _, o := range s.byKey {
		v, after, ok := s.Columns[o].cutKey(rest)
		if !ok {
			return nil, fmt.Errorf("key %s, column %q: %w", k, s.Columns[o].Name, ErrCorrupt)
		}
		values, rest = append(values, v), after
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("key %s: %d bytes left over: %w", k, len(rest), ErrCorrupt)
	}
	return values, nil
}

// KeyRow returns a row of schema s that has the key's columns and nulls elsewhere: what stands in for an image that
// the source did not give.
func (s *Schema) KeyRow(k Key) (Row, error) {
	key, err := s.KeyValues(k)
	if err != nil {
		return nil, err
	}
	values := make([]Value, len(s.Columns))
	for i := range values {
		values[i] = NullValue
	}
	for i, o := range s.byKey {
		values[o] = key[i]
	}
	return AppendRow(nil, s, values), nil
}

// KeyOf appends the key of a full row's values (one a column of s) to dst.
func (s *Schema) KeyOf(dst []byte, values []Value) Key {
	for _, o := range s.byKey {
		dst = s.Columns[o].AppendKey(dst, values[o])
	}
	return dst
}

// cutKey is the inverse of Column.AppendKey.
func (c *Column) cutKey(b []byte) (v Value, rest []byte, ok bool) {
	if c.Required {
		return cutKey(c.Type, b)
	}
	switch {
	case len(b) > 0 && b[0] == 0:
		return NullValue, b[1:], true
	case len(b) > 0 && b[0] == 1:
		return cutKey(c.Type, b[1:])
	}
	return v, nil, false
}

func cutKey(t *Type, b []byte) (v Value, rest []byte, ok bool) {
	switch t.Kind {
	case Boolean:
		if len(b) < 1 {
			return v, nil, false
		}
		return Value{I: int64(b[0])}, b[1:], true
	case Int, Long, Date, Time, Timestamp, TimestampTZ, TimestampNS, TimestampTZNS:
		if len(b) < 8 {
			return v, nil, false
		}
		return Value{I: int64(binary.BigEndian.Uint64(b) ^ 1<<63)}, b[8:], true //nolint:gosec // bits, not a number
	case Float:
		if len(b) < 4 {
			return v, nil, false
		}
		u := binary.BigEndian.Uint32(b)
		if u>>31 == 1 {
			u ^= 1 << 31
		} else {
			u = ^u
		}
		return FloatValue(math.Float32frombits(u)), b[4:], true
	case Double:
		if len(b) < 8 {
			return v, nil, false
		}
		u := binary.BigEndian.Uint64(b)
		if u>>63 == 1 {
			u ^= 1 << 63
		} else {
			u = ^u
		}
		return DoubleValue(math.Float64frombits(u)), b[8:], true
	case Decimal:
		if len(b) < 16 {
			return v, nil, false
		}
		wide := append([]byte(nil), b[:16]...)
		wide[0] ^= 0x80
		return Value{B: ShortestInt(wide)}, b[16:], true
	case UUID:
		return cutBytes(b, 16)
	case Fixed:
		return cutBytes(b, t.Length)
	case String, Binary:
		return cutEscaped(b)
	case Struct, List, Map:
	}
	return v, nil, false
}

func cutEscaped(b []byte) (v Value, rest []byte, ok bool) {
	for i := 0; i+1 < len(b); i++ {
		if b[i] != 0 {
			continue
		}
		switch b[i+1] {
		case 1:
			return Value{B: b[:i:i]}, b[i+2:], true
		case 0xff: // the rare text with a NUL: decode it by copying
			return cutEscapedSlow(b)
		default:
			return v, nil, false
		}
	}
	return v, nil, false
}

func cutEscapedSlow(b []byte) (v Value, rest []byte, ok bool) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != 0 {
			out = append(out, b[i])
			continue
		}
		if i+1 == len(b) {
			return v, nil, false
		}
		switch b[i+1] {
		case 1:
			return Value{B: out}, b[i+2:], true
		case 0xff:
			out = append(out, 0)
			i++
		default:
			return v, nil, false
		}
	}
	return v, nil, false
}

// ShortestInt cuts redundant sign bytes off a big-endian two's complement number: the form of a Decimal Value. An
// empty b is zero.
func ShortestInt(b []byte) []byte {
	if len(b) == 0 {
		return []byte{0}
	}
	for len(b) > 1 && (b[0] == 0 && b[1]&0x80 == 0 || b[0] == 0xff && b[1]&0x80 != 0) {
		b = b[1:]
	}
	return b
}
