package changelog

import (
	"encoding/json"
	"errors"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func partitionSchema(t *testing.T) *Schema {
	t.Helper()
	s, err := NewSchema([]Column{
		{Name: "id", Type: Primitive(Long)},
		{Name: "name", Type: Primitive(String)},
		{Name: "at", Type: Primitive(TimestampTZ)},
		{Name: "on", Type: Primitive(Date)},
		{Name: "price", Type: DecimalOf(4, 2)},
		{Name: "ratio", Type: Primitive(Double)},
		{Name: "raw", Type: Primitive(Binary)},
		{Name: "id_bucket", Type: Primitive(Int)},
		{Name: "list", Type: ListOf(Primitive(Int))},
		{Name: "clock", Type: Primitive(Time)},
		{Name: "u", Type: Primitive(UUID)},
		{Name: "yes", Type: Primitive(Boolean)},
	}, []string{"id", "name"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestParsePartition: the configuration's terms, their fields' names and their way through the registry's JSON.
func TestParsePartition(t *testing.T) {
	for term, want := range map[string]string{
		"name": "name identity name", " identity( name ) ": "name identity name", "bucket(16, id)": "id_bucket bucket[16] bucket(16, id)",
		"bucket(16,id)": "id_bucket bucket[16] bucket(16, id)", "truncate(4, name)": "name_trunc truncate[4] truncate(4, name)",
		"year(at)": "at_year year year(at)", "month(at)": "at_month month month(at)", "day(at)": "at_day day day(at)", "hour(at)": "at_hour hour hour(at)",
	} {
		spec, err := ParsePartition([]string{term})
		if err != nil {
			t.Errorf("%s: %v", term, err)
			continue
		}
		if f := spec[0]; f.Name+" "+f.Transform.String()+" "+f.String() != want {
			t.Errorf("%s: %s %s %s", term, f.Name, f.Transform, f)
		}
		b, err := json.Marshal(spec)
		var back PartitionSpec
		if err != nil || json.Unmarshal(b, &back) != nil || !back.Equal(spec) {
			t.Errorf("%s: %s, %v", term, b, back)
		}
	}
	for _, term := range []string{
		"", "bucket(id)", "bucket(0, id)", "bucket(-1, id)", "bucket(x, id)", "bucket(1073741825, id)", "day(1, at)", "hours(at)", "void(id)",
		"truncate(4, name", "truncate 4, name)", "bucket(16, id) x", "day()", "bucket(16, a, b)",
	} {
		if spec, err := ParsePartition([]string{term}); !errors.Is(err, ErrPartition) {
			t.Errorf("%q: %v, %v", term, spec, err)
		}
	}
}

// TestBind: what does not fit the schema is refused, with the column and the reason.
func TestBind(t *testing.T) {
	s := partitionSchema(t)
	for terms, want := range map[string]string{
		"id;name": "", "yes;price;on": "", "bucket(4, raw);bucket(4, clock);bucket(4, u);truncate(10, price)": "", "day(on);hour(at)": "",
		"nope": `no top-level column "nope"`, "list": "nested", "bucket(4, id)": "taken", "ratio": "do not survive", "bucket(4, ratio)": "no hash",
		"raw": "do not survive", "clock": "do not survive", "at": "do not survive", "u": "do not survive", "hour(on)": "want a timestamp",
		"day(id)": "want a date", "truncate(4, raw)": "want int", "truncate(4, on)": "want int", "bucket(4, yes)": "no hash", "name;name": "taken",
		"truncate(2, name);truncate(3, name)": "taken",
	} {
		spec, err := ParsePartition(strings.Split(terms, ";"))
		if err != nil {
			t.Fatal(err)
		}
		bound, err := spec.Bind(s)
		if want == "" {
			if err != nil || bound[0].SourceID == 0 || !bound.Equal(spec) {
				t.Errorf("%s: %v, %v", terms, bound, err)
			}
			continue
		}
		if !errors.Is(err, ErrPartition) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", terms, err, want)
		}
	}
}

// TestBadValue: values that read as others are refused after the transform, and only those.
func TestBadValue(t *testing.T) {
	s := partitionSchema(t)
	text := func(s string) Value { return Value{B: []byte(s)} }
	for _, tc := range []struct {
		term, column string
		v            Value
		bad          bool
	}{
		{"name", "name", text("null"), true},
		{"name", "name", text(HiveNull), true},
		{"name", "name", text("Null"), false},
		{"name", "name", text(""), false},
		{"name", "name", NullValue, false},
		{"truncate(4, name)", "name", text("nullable"), true},
		{"truncate(5, name)", "name", text("nullable"), false},
		{"name", "name", text(strings.Repeat("x", 250)), false},
		{"name", "name", text(strings.Repeat("x", 251)), true},
		{"name", "name", text(strings.Repeat("é", 41) + "1234"), false},
		{"name", "name", text(strings.Repeat("é", 41) + "12345"), true},
		{"truncate(26, name)", "name", text(HiveNull + "x"), true},
		{"bucket(4, name)", "name", text("null"), false},
		{"id", "id", Value{I: 1}, false},
		{"day(at)", "at", Value{I: 253402300800000000}, true},
		{"day(at)", "at", Value{I: 253402300799999999}, false},
		{"hour(at)", "at", Value{I: -62135596800000001}, true},
		{"month(at)", "at", Value{I: -62135596800000000}, false},
		{"on", "on", Value{I: 2932897}, true},
		{"on", "on", Value{I: 2932896}, false},
		{"bucket(4, on)", "on", Value{I: 2932897}, false},
		{"truncate(10000, price)", "price", Value{B: AppendBigInt(nil, big.NewInt(-1))}, true},
		{"truncate(1000, price)", "price", Value{B: AppendBigInt(nil, big.NewInt(-1))}, false},
	} {
		spec, err := ParsePartition([]string{tc.term})
		if err == nil {
			spec, err = spec.Bind(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		values := make([]Value, len(s.Columns))
		for i := range values {
			values[i] = NullValue
		}
		values[s.Ordinal(tc.column)] = tc.v
		column, why := spec.BadValue(s, values)
		if bad := column == tc.column && why != ""; bad != tc.bad {
			t.Errorf("%s of %v: %q %q", tc.term, tc.v, column, why)
		}
		if tc.bad && !spec.Restricts(s) {
			t.Errorf("%s: Restricts says that all values are good", tc.term)
		}
	}
}

// TestInKey: a row leaves its partition only if a column of the spec is outside of the key.
func TestInKey(t *testing.T) {
	s := partitionSchema(t)
	for terms, want := range map[string]bool{"bucket(4, id);name": true, "name": true, "name;day(at)": false, "day(at)": false} {
		spec, err := ParsePartition(strings.Split(terms, ";"))
		if err != nil {
			t.Fatal(err)
		}
		if got := spec.InKey(s); got != want {
			t.Errorf("%s: %v", terms, got)
		}
	}
}

// TestBigInt: numbers keep their value and their shortest form.
func TestBigInt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		n := big.NewInt(int64(i) - 1000)
		if i%2 == 0 {
			n.Lsh(n, uint(r.IntN(100)))
		}
		b := AppendBigInt(nil, n)
		if got := BigInt(b); got.Cmp(n) != 0 || !slices.Equal(b, ShortestInt(slices.Clone(b))) {
			t.Fatalf("%v became %x, which is %v", n, b, got)
		}
	}
}
