package rowjson

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"firn/changelog"
)

// ErrKey reports text that is no key of the table: the wrong number of values, or one that its column cannot hold.
var ErrKey = errors.New("not a key of the table")

// ParseText reads the text of a value of type t, which is not nested: the form that AppendText writes, for timestamps
// any RFC 3339 text (one without a zone of its own is taken in UTC).
func ParseText(t *changelog.Type, s string) (changelog.Value, error) {
	v, err := parseText(t, s)
	if err != nil {
		if len(s) > 64 {
			s = strings.ToValidUTF8(s[:64], "") + "…"
		}
		return changelog.Value{}, fmt.Errorf("%q for %s: %w", s, article(t), err)
	}
	return v, nil
}

// article is the type as a sentence has it.
func article(t *changelog.Type) string {
	if t.Kind == changelog.Int {
		return "an int"
	}
	return "a " + t.String()
}

func parseText(t *changelog.Type, s string) (v changelog.Value, err error) {
	switch t.Kind {
	case changelog.Boolean:
		if s != "true" && s != "false" {
			return v, errors.New("not true or false")
		}
		if s == "true" {
			v.I = 1
		}
		return v, nil
	case changelog.Int:
		v.I, err = parseInt(s, 32)
	case changelog.Long:
		v.I, err = parseInt(s, 64)
	case changelog.Float, changelog.Double:
		return parseFloat(t, s)
	case changelog.Decimal:
		v.B, err = parseDecimal(s, t)
	case changelog.Date:
		v.I, err = parseDate(s)
		if err == nil && (v.I > math.MaxInt32 || v.I < math.MinInt32) {
			err = errRange
		}
	case changelog.Time:
		v.I, err = parseTime(s)
	case changelog.Timestamp, changelog.TimestampTZ:
		v.I, err = parseMoment(s, microsPerSecond, t.Kind == changelog.TimestampTZ)
	case changelog.TimestampNS, changelog.TimestampTZNS:
		v.I, err = parseMoment(s, nanosPerSecond, t.Kind == changelog.TimestampTZNS)
	case changelog.String:
		if !utf8.ValidString(s) {
			return v, errors.New("not UTF-8")
		}
		v.B = []byte(s)
	case changelog.UUID:
		v.B, err = parseUUID(s)
	case changelog.Fixed, changelog.Binary:
		if v.B, err = hex.DecodeString(s); err != nil {
			return v, errors.New("not hex digits, two a byte")
		}
		if t.Kind == changelog.Fixed && len(v.B) != t.Length {
			return v, fmt.Errorf("%d bytes", len(v.B))
		}
	case changelog.Struct, changelog.List, changelog.Map:
		return v, errors.New("nested types have no text")
	}
	return v, err
}

func parseInt(s string, bits int) (int64, error) {
	if strings.HasPrefix(s, "+") {
		return 0, errors.New("not a whole number")
	}
	n, err := strconv.ParseInt(s, 10, bits)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errRange
	}
	if err != nil {
		return 0, errors.New("not a whole number")
	}
	return n, nil
}

func parseFloat(t *changelog.Type, s string) (changelog.Value, error) {
	var f float64
	bits := 64
	if t.Kind == changelog.Float {
		bits = 32
	}
	switch s {
	case "NaN":
		f = math.NaN()
	case "Infinity":
		f = math.Inf(1)
	case "-Infinity":
		f = math.Inf(-1)
	default:
		if strings.Trim(s, "0123456789+-.eE") != "" || strings.HasPrefix(s, "+") {
			return changelog.Value{}, errors.New("not a number")
		}
		var err error
		if f, err = strconv.ParseFloat(s, bits); err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return changelog.Value{}, errRange
			}
			return changelog.Value{}, errors.New("not a number")
		}
	}
	if bits == 32 {
		return changelog.FloatValue(float32(f)), nil
	}
	return changelog.DoubleValue(f), nil
}

func parseUUID(s string) ([]byte, error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, errors.New("not 8-4-4-4-12 hex digits")
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return nil, errors.New("not 8-4-4-4-12 hex digits")
	}
	return b, nil
}

// keyNull stands for null in the text of a key, in an optional column. (A text of it is %2A there.)
const keyNull = "*"

// ParseKey appends to dst the key that text names: the key columns' values in key order, joined by commas, each
// percent-encoded where its text has a comma, a slash or a percent sign. It is a path segment as it came, not decoded
// yet. In a column that may be null, * is null. Error: ErrKey.
func ParseKey(dst []byte, s *changelog.Schema, text string) (changelog.Key, error) {
	key, n, err := parsePrefix(dst, s, text)
	if err != nil {
		return nil, err
	}
	if want := len(s.KeyOrdinals()); n != want {
		return nil, fmt.Errorf("%d values for the %d key columns %s: %w", n, want, strings.Join(s.KeyNames(), ", "), ErrKey)
	}
	return key, nil
}

// ParsePrefix is ParseKey for the leading key columns: text has at most as many values as the key has columns.
func ParsePrefix(dst []byte, s *changelog.Schema, text string) ([]byte, error) {
	key, _, err := parsePrefix(dst, s, text)
	return key, err
}

func parsePrefix(dst []byte, s *changelog.Schema, text string) (changelog.Key, int, error) {
	ordinals := s.KeyOrdinals()
	if len(ordinals) == 0 {
		return nil, 0, fmt.Errorf("the table has no key: %w", ErrKey)
	}
	n := 0
	for more := true; more; n++ {
		var part string
		if part, text, more = strings.Cut(text, ","); n == len(ordinals) {
			return nil, 0, fmt.Errorf("more than %d values for the key columns %s (encode a comma within a value as %%2C): %w",
				n, strings.Join(s.KeyNames(), ", "), ErrKey)
		}
		c := &s.Columns[ordinals[n]]
		if part == keyNull && !c.Required {
			dst = c.AppendKey(dst, changelog.NullValue)
			continue
		}
		if strings.IndexByte(part, '%') >= 0 {
			var err error
			if part, err = url.PathUnescape(part); err != nil {
				return nil, 0, fmt.Errorf("column %q: %s: %w", c.Name, err.Error(), ErrKey)
			}
		}
		v, err := ParseText(c.Type, part)
		if err != nil {
			return nil, 0, fmt.Errorf("column %q: %s: %w", c.Name, err.Error(), ErrKey)
		}
		dst = c.AppendKey(dst, v)
	}
	return dst, n, nil
}

// AppendKeyText appends the text of key that ParseKey reads. Error: changelog.ErrCorrupt.
func AppendKeyText(dst []byte, s *changelog.Schema, key changelog.Key) ([]byte, error) {
	values, err := s.KeyValues(key)
	if err != nil {
		return dst, err
	}
	for i, o := range s.KeyOrdinals() {
		if i > 0 {
			dst = append(dst, ',')
		}
		if values[i].Null {
			dst = append(dst, keyNull...)
			continue
		}
		for _, c := range AppendText(nil, s.Columns[o].Type, values[i]) {
			if unreserved(c) {
				dst = append(dst, c)
			} else {
				dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
			}
		}
	}
	return dst, nil
}

const upperHex = "0123456789ABCDEF"

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_.~:+", c) >= 0
}

// ReadKey reads a JSON array with one value a key column, in key order, from dec and appends the key to dst. A value
// has the row form. On ErrKey dec stands behind the array; any other error is dec's, and the text is no JSON.
func ReadKey(dst []byte, s *changelog.Schema, dec *jsontext.Decoder) (changelog.Key, error) {
	ordinals := s.KeyOrdinals()
	if dec.PeekKind() != '[' {
		if err := dec.SkipValue(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("a key is an array of the values of %s: %w", strings.Join(s.KeyNames(), ", "), ErrKey)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var bad error
	n := 0
	for ; dec.PeekKind() != ']'; n++ {
		if bad != nil || n >= len(ordinals) {
			if err := dec.SkipValue(); err != nil {
				return nil, err
			}
			continue
		}
		c := &s.Columns[ordinals[n]]
		v, err := readKeyValue(c, dec)
		switch {
		case errors.Is(err, ErrKey):
			bad = fmt.Errorf("column %q: %w", c.Name, err)
		case err != nil:
			return nil, err
		default:
			dst = c.AppendKey(dst, v)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if bad == nil && n != len(ordinals) {
		bad = fmt.Errorf("%d values for the %d key columns %s: %w", n, len(ordinals), strings.Join(s.KeyNames(), ", "), ErrKey)
	}
	return dst, bad
}

// readKeyValue is readValue, and takes null for an optional column.
func readKeyValue(c *changelog.Column, dec *jsontext.Decoder) (changelog.Value, error) {
	if dec.PeekKind() == 'n' && !c.Required {
		_, err := dec.ReadToken()
		return changelog.NullValue, err
	}
	return readValue(c.Type, dec)
}

// readValue reads one JSON value of the row form. ErrKey: the value is not of the type.
func readValue(t *changelog.Type, dec *jsontext.Decoder) (changelog.Value, error) {
	kind := dec.PeekKind()
	if kind == '{' || kind == '[' {
		if err := dec.SkipValue(); err != nil {
			return changelog.Value{}, err
		}
		return changelog.Value{}, fmt.Errorf("an object or array for %s: %w", article(t), ErrKey)
	}
	token, err := dec.ReadToken()
	if err != nil {
		return changelog.Value{}, err
	}
	var fits bool
	switch t.Kind {
	case changelog.Boolean:
		fits = kind == 't' || kind == 'f'
	case changelog.Int, changelog.Long:
		fits = kind == '0'
	case changelog.Float, changelog.Double: // NaN and the infinities are strings
		fits = kind == '0' || kind == '"'
	default:
		fits = kind == '"'
	}
	if !fits {
		return changelog.Value{}, fmt.Errorf("%s for %s: %w", kind, article(t), ErrKey)
	}
	text := token.String()
	v, err := ParseText(t, text)
	if err != nil {
		return v, fmt.Errorf("%s: %w", err.Error(), ErrKey)
	}
	return v, nil
}
