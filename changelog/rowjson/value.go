// Package rowjson is the one JSON form of rows: what lookups, feeds, dumps and logs of parked records show, and what
// keys are read from. The same value never has two spellings, so that outputs can be compared bytewise.
//
//	int, long             number, all digits
//	float, double         number, the fewest digits that read back, laid out as ECMAScript does; -0; "NaN", "Infinity", "-Infinity"
//	decimal               string with exactly its scale
//	boolean, string       true, "text" with only the escapes that JSON demands
//	binary, fixed         lower-case hex
//	uuid                  8-4-4-4-12, lower case
//	date                  2026-01-31; years outside 0000 to 9999 with a sign: +294247-01-01, -0043-03-15
//	time                  HH:MM:SS.ffffff
//	timestamp(_ns)        2026-01-31T01:02:03.123456 (nine digits for _ns); timestamptz(_ns) the same in UTC with Z
//	list                  array
//	map                   array of [key,value], sorted by the key's JSON text
//	struct                object, keys sorted by name
//
// A row is an object with the table's columns in the table's order, or sorted by name (dump). Everything appends to
// the caller's buffer.
package rowjson

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"firn/changelog"
)

// AppendValue appends v, a value of type t, to dst. Error: changelog.ErrCorrupt, from the body of a nested value.
func AppendValue(dst []byte, t *changelog.Type, v changelog.Value) ([]byte, error) {
	if v.Null {
		return append(dst, "null"...), nil
	}
	switch t.Kind {
	case changelog.Boolean, changelog.Int, changelog.Long:
		return appendBare(dst, t, v), nil
	case changelog.Float, changelog.Double:
		f, bits := number(t, v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(appendBare(append(dst, '"'), t, v), '"'), nil
		}
		return appendNumber(dst, f, bits), nil
	case changelog.String:
		return AppendString(dst, v.B), nil
	case changelog.Struct:
		return appendStruct(dst, t, v.B)
	case changelog.List:
		return appendList(dst, t, v.B)
	case changelog.Map:
		return appendMap(dst, t, v.B)
	default:
		return append(appendBare(append(dst, '"'), t, v), '"'), nil
	}
}

// AppendText appends the plain text of v, a value of a type that is not nested and not null: what AppendValue puts
// between quotes, without quotes and without JSON's escapes. ParseText reads it back.
func AppendText(dst []byte, t *changelog.Type, v changelog.Value) []byte {
	if t.Kind == changelog.String {
		return append(dst, v.B...)
	}
	return appendBare(dst, t, v)
}

// appendBare: the text of a value of a primitive type other than string; it never needs an escape.
func appendBare(dst []byte, t *changelog.Type, v changelog.Value) []byte {
	switch t.Kind {
	case changelog.Boolean:
		return strconv.AppendBool(dst, v.I != 0)
	case changelog.Int, changelog.Long:
		return strconv.AppendInt(dst, v.I, 10)
	case changelog.Float, changelog.Double:
		f, bits := number(t, v)
		switch {
		case math.IsNaN(f):
			return append(dst, "NaN"...)
		case math.IsInf(f, 1):
			return append(dst, "Infinity"...)
		case math.IsInf(f, -1):
			return append(dst, "-Infinity"...)
		}
		return appendNumber(dst, f, bits)
	case changelog.Decimal:
		return appendDecimal(dst, v.B, t.Scale)
	case changelog.Date:
		return appendDate(dst, v.I)
	case changelog.Time:
		return appendClock(dst, v.I, microsPerSecond)
	case changelog.Timestamp:
		return appendMoment(dst, v.I, microsPerSecond)
	case changelog.TimestampTZ:
		return append(appendMoment(dst, v.I, microsPerSecond), 'Z')
	case changelog.TimestampNS:
		return appendMoment(dst, v.I, nanosPerSecond)
	case changelog.TimestampTZNS:
		return append(appendMoment(dst, v.I, nanosPerSecond), 'Z')
	case changelog.UUID:
		return appendUUID(dst, v.B)
	case changelog.Fixed, changelog.Binary:
		return hex.AppendEncode(dst, v.B)
	case changelog.String, changelog.Struct, changelog.List, changelog.Map:
	}
	panic("rowjson: no text for a " + t.Kind.String())
}

func number(t *changelog.Type, v changelog.Value) (f float64, bits int) {
	if t.Kind == changelog.Float {
		return float64(v.Float()), 32
	}
	return v.Double(), 64
}

// appendNumber lays a finite number out as ECMAScript's Number::toString does, but for negative zero, which keeps
// its sign.
func appendNumber(dst []byte, f float64, bits int) []byte {
	abs := math.Abs(f)
	small, large := abs < 1e-6, abs >= 1e21
	if bits == 32 { // the digits are chosen as binary32, so the limits are, too
		small, large = float32(abs) < 1e-6, float32(abs) >= 1e21
	}
	if abs == 0 || !small && !large {
		return strconv.AppendFloat(dst, f, 'f', -1, bits)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	if n := len(dst); dst[n-4] == 'e' && dst[n-2] == '0' { // e-07 is spelt e-7
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}

func appendUUID(dst, b []byte) []byte {
	if len(b) != 16 {
		return hex.AppendEncode(dst, b)
	}
	dst = hex.AppendEncode(dst, b[:4])
	for _, part := range [][]byte{b[4:6], b[6:8], b[8:10], b[10:]} {
		dst = hex.AppendEncode(append(dst, '-'), part)
	}
	return dst
}

// AppendString appends s as a JSON string. Bytes that are no UTF-8, which no table holds, become U+FFFD.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = appendEscape(append(dst, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if r == utf8.RuneError && n == 1 {
			dst = utf8.AppendRune(append(dst, s[start:i]...), utf8.RuneError)
			start = i + 1
		}
		i += n
	}
	return append(append(dst, s[start:]...), '"')
}

const lowerHex = "0123456789abcdef"

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
}

func appendStruct(dst []byte, t *changelog.Type, body []byte) ([]byte, error) {
	var rr changelog.RowReader
	if err := rr.ResetStruct(t, body); err != nil {
		return dst, err
	}
	values := make([]changelog.Value, 0, len(t.Fields))
	order := make([]int, 0, len(t.Fields))
	for v, ok := rr.Next(); ok; v, ok = rr.Next() {
		order = append(order, len(values))
		values = append(values, v)
	}
	if err := rr.Err(); err != nil {
		return dst, err
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(t.Fields[a].Name, t.Fields[b].Name) })
	dst = append(dst, '{')
	for i, o := range order {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, t.Fields[o].Name), ':')
		var err error
		if dst, err = AppendValue(dst, t.Fields[o].Type, values[o]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendList(dst []byte, t *changelog.Type, body []byte) ([]byte, error) {
	elements, err := changelog.AppendElements(nil, t, body)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '[')
	for i, v := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = AppendValue(dst, t.Fields[0].Type, v); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendMap(dst []byte, t *changelog.Type, body []byte) ([]byte, error) {
	keys, values, err := changelog.AppendEntries(nil, nil, t, body)
	if err != nil {
		return dst, err
	}
	type pair struct{ key, text []byte }
	pairs := make([]pair, len(keys))
	for i := range keys {
		text, err := AppendValue([]byte{'['}, t.Fields[0].Type, keys[i])
		if err != nil {
			return dst, err
		}
		key := text[1:len(text):len(text)]
		if text, err = AppendValue(append(text, ','), t.Fields[1].Type, values[i]); err != nil {
			return dst, err
		}
		pairs[i] = pair{key: key, text: append(text, ']')}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	dst = append(dst, '[')
	for i, p := range pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p.text...)
	}
	return append(dst, ']'), nil
}
