package rowjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"firn/changelog"
)

func TestParseText(t *testing.T) {
	for _, c := range []struct {
		typ      *changelog.Type
		in, want string // want: the text in the row form; "!…": the error holds …
	}{
		{prim(changelog.Boolean), "true", "true"},
		{prim(changelog.Boolean), "1", "!not true or false"},
		{prim(changelog.Int), "-7", "-7"},
		{prim(changelog.Int), "007", "7"},
		{prim(changelog.Int), "2147483648", "!out of range"},
		{prim(changelog.Int), "+1", "!not a whole number"},
		{prim(changelog.Long), "1.0", "!not a whole number"},
		{prim(changelog.Long), "", "!not a whole number"},
		{prim(changelog.Long), "1_000", "!not a whole number"},
		{prim(changelog.Double), "1E3", "1000"},
		{prim(changelog.Double), "-0", "-0"},
		{prim(changelog.Double), "Infinity", "Infinity"},
		{prim(changelog.Double), "inf", "!not a number"},
		{prim(changelog.Double), "0x1p4", "!not a number"},
		{prim(changelog.Double), "1e999", "!out of range"},
		{prim(changelog.Float), "0.1", "0.1"},
		{changelog.DecimalOf(5, 2), "12.3", "12.30"},
		{changelog.DecimalOf(5, 2), "12.300", "12.30"},
		{changelog.DecimalOf(5, 2), "-0012", "-12.00"},
		{changelog.DecimalOf(5, 2), "12.345", "!more digits after the point"},
		{changelog.DecimalOf(5, 2), "1234", "!more digits before the point"},
		{changelog.DecimalOf(5, 2), ".5", "!not a decimal"},
		{changelog.DecimalOf(5, 2), "1.", "!not a decimal"},
		{changelog.DecimalOf(38, 0), "-99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"},
		{prim(changelog.Date), "2024-02-29", "2024-02-29"},
		{prim(changelog.Date), "2023-02-29", "!not a date"},
		{prim(changelog.Date), "1900-02-29", "!not a date"},
		{prim(changelog.Date), "-0043-03-15", "-0043-03-15"},
		{prim(changelog.Date), "+294247-01-01", "+294247-01-01"},
		{prim(changelog.Date), "10000-01-01", "!not a date"},
		{prim(changelog.Date), "+9999999-01-01", "!out of range"},
		{prim(changelog.Date), "2024-2-9", "!not a date"},
		{prim(changelog.Time), "23:59:59", "23:59:59.000000"},
		{prim(changelog.Time), "23:59:59.1", "23:59:59.100000"},
		{prim(changelog.Time), "23:59:59.1234567", "!not a time"},
		{prim(changelog.Time), "24:00:00", "!not a time"},
		{prim(changelog.Timestamp), "2026-01-31T01:02:03", "2026-01-31T01:02:03.000000"},
		{prim(changelog.Timestamp), "2026-01-31T01:02:03.5+02:00", "2026-01-30T23:02:03.500000"},
		{prim(changelog.TimestampTZ), "2026-01-31T01:02:03.123456Z", "2026-01-31T01:02:03.123456Z"},
		{prim(changelog.TimestampTZ), "2026-01-31t01:02:03-01:30", "2026-01-31T02:32:03.000000Z"},
		{prim(changelog.TimestampTZ), "2026-01-31T01:02:03.1234560Z", "2026-01-31T01:02:03.123456Z"},
		{prim(changelog.TimestampTZ), "2026-01-31T01:02:03.1234567Z", "!not a timestamp"},
		{prim(changelog.TimestampTZ), "2026-01-31T01:02:03", "!zone is missing"},
		{prim(changelog.TimestampTZ), "+294247-01-10T04:00:54.775807Z", "+294247-01-10T04:00:54.775807Z"},
		{prim(changelog.TimestampTZ), "+294247-01-10T04:00:54.775808Z", "!out of range"},
		{prim(changelog.Timestamp), "-290308-12-21T19:59:05.224192", "-290308-12-21T19:59:05.224192"},
		{prim(changelog.Timestamp), "-290308-12-21T19:59:05.224191", "!out of range"},
		{prim(changelog.TimestampNS), "2262-04-11T23:47:16.854775807", "2262-04-11T23:47:16.854775807"},
		{prim(changelog.TimestampNS), "2262-04-11T23:47:16.854775808", "!out of range"},
		{prim(changelog.TimestampNS), "2000-01-01T00:00:00.000000001", "2000-01-01T00:00:00.000000001"},
		{prim(changelog.String), "a b/ü", "a b/ü"},
		{prim(changelog.String), "\xff", "!not UTF-8"},
		{prim(changelog.UUID), "F81D4FAE-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
		{prim(changelog.UUID), "f81d4fae7dec11d0a76500a0c91e6bf6", "!8-4-4-4-12"},
		{prim(changelog.Binary), "00ABff", "00abff"},
		{prim(changelog.Binary), "0", "!hex"},
		{&changelog.Type{Kind: changelog.Fixed, Length: 2}, "0102", "0102"},
		{&changelog.Type{Kind: changelog.Fixed, Length: 2}, "010203", "!3 bytes"},
		{changelog.ListOf(prim(changelog.Int)), "[]", "!nested"},
		{prim(changelog.Int), "x", `!"x" for an int: `},
		{prim(changelog.Long), "x", `!"x" for a long: `},
	} {
		v, err := ParseText(c.typ, c.in)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %q: %v, want an error with %q", c.typ, c.in, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", c.typ, c.in, err)
			continue
		}
		if got := string(AppendText(nil, c.typ, v)); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.typ, c.in, got, c.want)
		}
	}
}

func keySchema(t testing.TB) *changelog.Schema {
	t.Helper()
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "v", Type: prim(changelog.Double)},
		{Name: "id", Type: prim(changelog.Long)},
		{Name: "region", Type: prim(changelog.String)},
	}, []string{"region", "id"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseKey(t *testing.T) {
	s := keySchema(t)
	want := func(region string, id int64) string {
		return string(changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{text(region), i64(id)}))
	}
	for in, key := range map[string]string{
		"eu,7":           want("eu", 7),
		",-7":            want("", -7),
		"a%2Cb%2f%25,1":  want("a,b/%", 1),
		"a+b%20c,%31":    want("a+b c", 1),
		"gr%C3%BCn,0":    want("grün", 0),
		"x\u00fc,000012": want("xü", 12),
	} {
		got, err := ParseKey(nil, s, in)
		if err != nil || string(got) != key {
			t.Errorf("%q: %x, %v, want %x", in, got, err, key)
		}
	}
	for in, message := range map[string]string{
		"eu":       "1 values for the 2 key columns region, id",
		"eu,7,8":   "more than 2 values",
		"eu,x":     `column "id"`,
		"%zz,1":    "invalid URL escape",
		"%ff,1":    "not UTF-8",
		"eu,":      "not a whole number",
		"eu,7%2C8": "not a whole number",
	} {
		if _, err := ParseKey(nil, s, in); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v, want an ErrKey with %q", in, err, message)
		}
	}
	if got, err := ParsePrefix(nil, s, "eu"); err != nil || !bytes.HasPrefix([]byte(want("eu", 7)), got) {
		t.Errorf("prefix: %x, %v", got, err)
	}
}

func TestReadKey(t *testing.T) {
	s := keySchema(t)
	for _, c := range []struct{ in, want string }{
		{`["eu",7]`, `eu,7`},
		{`["a,b",-1]`, `a%2Cb,-1`},
		{`["eu"]`, `!1 values for the 2 key columns`},
		{`["eu",7,8]`, `!3 values for the 2 key columns`},
		{`["eu","7"]`, `!string for a long`},
		{`["eu",7.5]`, `!not a whole number`},
		{`[null,7]`, `!null for a string`},
		{`["eu",[7]]`, `!an object or array`},
		{`"eu"`, `!a key is an array`},
		{`{"region":"eu"}`, `!a key is an array`},
	} {
		dec := jsontext.NewDecoder(strings.NewReader(c.in + ` 1`))
		key, err := ReadKey(nil, s, dec)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want an ErrKey with %q", c.in, err, want)
			}
		} else if got, textErr := AppendKeyText(nil, s, key); err != nil || textErr != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, %v, want %s", c.in, got, err, textErr, c.want)
		}
		if token, err := dec.ReadToken(); err != nil || token.String() != "1" {
			t.Errorf("%s: the decoder stands at %v, %v after the key", c.in, token, err)
		}
	}
	for _, in := range []string{`["eu",7`, `["eu" 7]`, ``, `[1,2}`} {
		if _, err := ReadKey(nil, s, jsontext.NewDecoder(strings.NewReader(in))); err == nil || errors.Is(err, ErrKey) {
			t.Errorf("%s: %v, want an error of JSON", in, err)
		}
	}
}

var primitives = []*changelog.Type{
	prim(changelog.Boolean), prim(changelog.Int), prim(changelog.Long), prim(changelog.Float), prim(changelog.Double),
	changelog.DecimalOf(18, 4), changelog.DecimalOf(38, 0), changelog.DecimalOf(38, 38), prim(changelog.Date),
	prim(changelog.Time), prim(changelog.Timestamp), prim(changelog.TimestampTZ), prim(changelog.String),
	prim(changelog.UUID),
	{Kind: changelog.Fixed, Length: 5},
	prim(changelog.Binary), prim(changelog.TimestampNS),
	prim(changelog.TimestampTZNS),
}

// valueOf makes a valid value of t out of arbitrary input.
func valueOf(t *changelog.Type, i int64, b []byte) changelog.Value {
	switch t.Kind {
	case changelog.Boolean:
		return i64(i & 1)
	case changelog.Int:
		return i64(int64(int32(i)))
	case changelog.Date: // what seven digits of year can say
		return i64(i % 300_000_000)
	case changelog.Float:
		return changelog.Value{I: int64(uint32(i))}
	case changelog.Time:
		_, rest := floorDiv(i, 86400e6)
		return i64(rest)
	case changelog.Decimal:
		b = b[:min(len(b), 7*t.Precision/18)]
		return changelog.Value{B: changelog.ShortestInt(b)}
	case changelog.String:
		return text(strings.ToValidUTF8(string(b), "?"))
	case changelog.UUID, changelog.Fixed:
		n := 16
		if t.Kind == changelog.Fixed {
			n = t.Length
		}
		return changelog.Value{B: append(b, make([]byte, n)...)[:n:n]}
	case changelog.Binary:
		return changelog.Value{B: b}
	default:
		return i64(i)
	}
}

// FuzzRoundTrip: every value's text and JSON read back as the value, the JSON is JSON, and the key's text is its key.
func FuzzRoundTrip(f *testing.F) {
	for kind := range primitives {
		for _, i := range []int64{0, -1, math.MinInt64, math.MaxInt64, 1769821323_123456, 0x7ff8000000000001} {
			f.Add(uint8(kind), i, []byte("a,b/%\"\\\x00\x1f\xffü😀0123456789"))
			f.Add(uint8(kind), i, []byte{0x80})
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, i int64, b []byte) {
		typ := primitives[int(kind)%len(primitives)]
		s, err := changelog.NewSchema([]changelog.Column{{Name: "k", Type: typ}}, []string{"k"})
		if err != nil {
			t.Fatal(err)
		}
		v := valueOf(typ, i, b)
		form, err := AppendValue(nil, typ, v)
		if err != nil || !json.Valid(form) {
			t.Fatalf("%s %+v: %s, %v", typ, v, form, err)
		}
		key := changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{v})
		if nan := string(form) == `"NaN"`; nan { // of the many NaNs one has a text
			return
		}
		keyText, err := AppendKeyText(nil, s, key)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseKey(nil, s, string(keyText)); err != nil || !bytes.Equal(back, key) {
			t.Errorf("%s %+v: text %s reads as %x, %v, want %x", typ, v, keyText, back, err, key)
		}
		dec := jsontext.NewDecoder(strings.NewReader("[" + string(form) + "]"))
		if back, err := ReadKey(nil, s, dec); err != nil || !bytes.Equal(back, key) {
			t.Errorf("%s %+v: JSON %s reads as %x, %v, want %x", typ, v, form, back, err, key)
		}
	})
}

// FuzzParseKey: no text panics, and what is accepted has one canonical text.
func FuzzParseKey(f *testing.F) {
	f.Add(uint8(3), "1e5")
	f.Add(uint8(10), "2026-01-31T01:02:03.5+02:00")
	f.Fuzz(func(t *testing.T, kind uint8, in string) {
		s, err := changelog.NewSchema([]changelog.Column{{Name: "k", Type: primitives[int(kind)%len(primitives)]}}, []string{"k"})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = ReadKey(nil, s, jsontext.NewDecoder(strings.NewReader(in)))
		key, err := ParseKey(nil, s, in)
		if err != nil {
			return
		}
		canonical, err := AppendKeyText(nil, s, key)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseKey(nil, s, string(canonical)); err != nil || !bytes.Equal(back, key) {
			t.Errorf("%q is %x, but its canonical text %s is %x, %v", in, key, canonical, back, err)
		}
	})
}

func TestReadKeyStream(t *testing.T) {
	s := keySchema(t)
	dec := jsontext.NewDecoder(strings.NewReader(`["a",1]["b",2]`))
	for range 2 {
		if _, err := ReadKey(nil, s, dec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadKey(nil, s, dec); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestReadValueErrors: what JSON of another kind is told.
func TestReadValueErrors(t *testing.T) {
	for in, want := range map[string]string{`"7"`: "string for an int", `[7]`: "an object or array for an int"} {
		if _, err := readValue(prim(changelog.Int), jsontext.NewDecoder(strings.NewReader(in))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", in, err, want)
		}
	}
}

// TestNullKeyText: the null of an optional key column has a text of its own, which no value has; a required column has no null.
func TestNullKeyText(t *testing.T) {
	s := &changelog.Schema{Columns: []changelog.Column{
		{ID: 1, Name: "a", Type: changelog.Primitive(changelog.String)}, {ID: 2, Name: "b", Type: changelog.Primitive(changelog.String), Required: true},
	}, Key: []int{1, 2}}
	if err := s.Index(); err != nil {
		t.Fatal(err)
	}
	star := changelog.Value{B: []byte("*")}
	for text, v := range map[string]changelog.Value{"*,%2A": changelog.NullValue, "%2A,%2A": star, ",%2A": {B: []byte{}}, "null,%2A": {B: []byte("null")}} {
		want := s.AppendKey(nil, []changelog.Value{v, star})
		for _, spelt := range []string{text, strings.TrimSuffix(text, "%2A") + "*"} { // the second column takes both spellings for the text
			if got, err := ParseKey(nil, s, spelt); err != nil || string(got) != string(want) {
				t.Errorf("%s: %x, %v, want %x", spelt, got, err, want)
			}
		}
		if got, err := AppendKeyText(nil, s, want); err != nil || string(got) != text {
			t.Errorf("%x: text %s, %v, want %s", want, got, err, text)
		}
	}
	null := s.AppendKey(nil, []changelog.Value{changelog.NullValue, star})
	if got, err := ReadKey(nil, s, jsontext.NewDecoder(strings.NewReader(`[null,"*"]`))); err != nil || string(got) != string(null) {
		t.Errorf("%x, %v, want %x", got, err, null)
	}
	if got, err := ReadKey(nil, s, jsontext.NewDecoder(strings.NewReader(`["*",null]`))); !errors.Is(err, ErrKey) {
		t.Errorf("null in a required column: %x, %v", got, err)
	}
	if got, err := AppendKeyObject(nil, s, null); err != nil || string(got) != `{"a":null,"b":"*"}` {
		t.Errorf("%s, %v", got, err)
	}
}
