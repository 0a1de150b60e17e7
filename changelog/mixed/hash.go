package mixed

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"firn/changelog"
)

// KeyHash returns the hash of a primary key that picks its node: values in key order, one a type. It is never
// negative. The key types of mixed tables are those that Amoro reads (KeyTypeOK); the hash is defined for all
// that are not nested.
//
// Source: amoro:amoro-format-iceberg/src/main/java/org/apache/amoro/data/PrimaryKeyData.java, over
// java.util.Arrays.hashCode and the hashCode of Iceberg's internal representations.
func KeyHash(types []*changelog.Type, values []changelog.Value) int32 {
	h := int32(1)
	for i, t := range types {
		h = 31*h + valueHash(t, values[i])
	}
	if h < 0 {
		h = -h
	}
	if h < 0 { // -(-2^31) is itself
		h = math.MaxInt32
	}
	return h
}

// HashOf returns KeyHash of a key of a table with schema s. Error: changelog.ErrCorrupt.
func HashOf(s *changelog.Schema, k changelog.Key) (int32, error) {
	values, err := s.KeyValues(k)
	if err != nil {
		return 0, err
	}
	return KeyHash(s.KeyTypes(), values), nil
}

// Buckets returns over how many nodes the keys of a table may be spread, given its schemas: want, or 1 if a key
// column's hash changed on the way (an int that became a long has another hash if it is negative; a float that became
// a double always), because deletes at the new node would miss rows at the old one.
func Buckets(history changelog.Schemas, want int) int {
	first := history[0]
	for _, s := range history[1:] {
		for _, id := range s.Key {
			was, is := first.OrdinalOf(id), s.OrdinalOf(id)
			if was < 0 || is < 0 || first.Columns[was].Type.Kind != s.Columns[is].Type.Kind {
				return 1
			}
		}
	}
	return want
}

// KeyTypeOK reports whether Amoro can read and optimize tables with a key column of type t. Its Parquet path loses
// deletes of uuid, binary and fixed keys (spec/mixed-format.md 6.2).
func KeyTypeOK(t *changelog.Type) bool {
	switch t.Kind {
	case changelog.Boolean, changelog.Int, changelog.Long, changelog.Float, changelog.Double, changelog.Decimal,
		changelog.Date, changelog.Time, changelog.Timestamp, changelog.TimestampTZ, changelog.String:
		return true
	case changelog.UUID, changelog.Fixed, changelog.Binary, changelog.Struct, changelog.List, changelog.Map,
		changelog.TimestampNS, changelog.TimestampTZNS:
	}
	return false
}

//nolint:gosec // conversions cut and wrap as Java's do
func valueHash(t *changelog.Type, v changelog.Value) int32 {
	if v.Null {
		return 0
	}
	switch t.Kind {
	case changelog.Boolean:
		if v.I != 0 {
			return 1231
		}
		return 1237
	case changelog.Int, changelog.Date:
		return int32(v.I)
	case changelog.Long, changelog.Time, changelog.Timestamp, changelog.TimestampTZ, changelog.TimestampNS,
		changelog.TimestampTZNS:
		return fold(uint64(v.I))
	case changelog.Float:
		if f := v.Float(); f != f {
			return 0x7fc00000
		}
		return int32(uint32(v.I))
	case changelog.Double:
		if f := v.Double(); f != f {
			return fold(0x7ff8000000000000)
		}
		return fold(uint64(v.I))
	case changelog.Decimal:
		return 31*bigHash(v.B) + int32(t.Scale)
	case changelog.String:
		return stringHash(v.B)
	case changelog.UUID:
		return fold(binary.BigEndian.Uint64(v.B) ^ binary.BigEndian.Uint64(v.B[8:]))
	case changelog.Fixed, changelog.Binary:
		h := int32(1)
		for _, c := range slices.Backward(v.B) {
			h = 31*h + int32(int8(c))
		}
		return h
	case changelog.Struct, changelog.List, changelog.Map:
	}
	panic(fmt.Sprintf("mixed: key column of type %s: Schema.Index refuses it", t))
}

// fold is Long.hashCode.
func fold(u uint64) int32 { return int32(uint32(u ^ u>>32)) } //nolint:gosec // the low half

// stringHash is String.hashCode: over UTF-16 code units.
func stringHash(b []byte) int32 {
	h := int32(0)
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			h, b = 31*h+int32(b[0]), b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		b = b[n:]
		if r >= 0x10000 {
			r -= 0x10000
			h = 31*h + (0xd800 + r>>10)
			r = 0xdc00 + r&0x3ff
		}
		h = 31*h + r
	}
	return h
}

// bigHash is BigInteger.hashCode of a two's complement big-endian number: over the 32-bit words of the magnitude,
// highest first, times the sign.
func bigHash(b []byte) int32 {
	if len(b) == 0 {
		return 0
	}
	negative := b[0]&0x80 != 0
	var wide [20]byte // the magnitude of 16 bytes may need all of 128 bits
	if negative {
		for i := range wide {
			wide[i] = 0xff
		}
	}
	if len(b) > 16 {
		panic("mixed: decimal of more than 16 bytes")
	}
	copy(wide[len(wide)-len(b):], b)
	if negative {
		negate(wide[:])
	}
	h := int32(0)
	for i := 0; i < len(wide); i += 4 {
		// Leading zero words leave h at 0, as if they were not there.
		h = 31*h + int32(binary.BigEndian.Uint32(wide[i:])) //nolint:gosec // wraps as Java's does
	}
	if negative {
		h = -h
	}
	return h
}

func negate(b []byte) {
	carry := true
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = ^b[i]
		if carry {
			b[i]++
			carry = b[i] == 0
		}
	}
}
