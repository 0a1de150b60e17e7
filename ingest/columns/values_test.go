package columns

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest/decode"
)

const testSalt = "sixteen bytes of salt"

func hmacOf(text string) string {
	mac := hmac.New(sha256.New, []byte(testSalt))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// TestMasks: what masks make of each type.
func TestMasks(t *testing.T) {
	hash := Rule{Action: Hash, Columns: []string{"a"}, Salt: testSalt}
	for _, c := range []struct {
		name       string
		rule       Rule
		typ, value string
		want       string // of column a
	}{
		// printf %s alice@example.com | openssl dgst -sha256 -hmac 'sixteen bytes of salt'
		{"hash of a known vector", hash, "string", "alice@example.com", "fb206dfd8d521b2e64766dc2c077a3f326d740d6b286df3316e298cde8e4590d"},
		{"hash string", hash, "string", "ä", hmacOf("ä")},
		{"hash empty", hash, "string", "", hmacOf("")},
		{"hash null", hash, "string", "null", "null"},
		{"hash placeholder", hash, "string", "?", "?"},
		{"hash int", hash, "int", "-5", hmacOf("-5")},
		{"hash long, as the int", hash, "long", "-5", hmacOf("-5")},
		{"hash boolean", hash, "boolean", "true", hmacOf("true")},
		{"hash float", hash, "float", "0.1", hmacOf("0.10000000149011612")},
		{"hash double, as the float", hash, "double", "0.10000000149011612", hmacOf("0.10000000149011612")},
		{"hash decimal", hash, "decimal(9,2)", "1.50", hmacOf("1.5")},
		{"hash decimal of another scale", hash, "decimal(9,3)", "100.000", hmacOf("100")},
		{"hash decimal without scale", hash, "decimal(9,0)", "100", hmacOf("100")},
		{"hash date", hash, "date", "2026-01-31", hmacOf("2026-01-31")},
		{"hash timestamptz", hash, "timestamptz", "2026-01-31T01:02:03Z", hmacOf("2026-01-31T01:02:03.000000Z")},
		{"hash uuid", hash, "uuid", "00000000-0000-0000-0000-0000000000ff", hmacOf("00000000-0000-0000-0000-0000000000ff")},
		{"hash binary", hash, "binary", "00ff", hmacOf("00ff")},
		{"hash list", hash, "list", "x", `column rule 1: column "a" is a list: lists, maps and structs have no text to hash`},
		{"redact string", Rule{Action: Redact, Columns: []string{"a"}}, "string", "x", "REDACTED"},
		{"redact string by a value", Rule{Action: Redact, Columns: []string{"a"}, Value: "-"}, "string", "x", "-"},
		{"redact null", Rule{Action: Redact, Columns: []string{"a"}}, "string", "null", "null"},
		{"redact placeholder", Rule{Action: Redact, Columns: []string{"a"}}, "string", "?", "?"},
		{"redact int", Rule{Action: Redact, Columns: []string{"a"}}, "int", "5", "null"},
		{"redact int by a value", Rule{Action: Redact, Columns: []string{"a"}, Value: "0"}, "int", "5", "0"},
		{"redact int by a text", Rule{Action: Redact, Columns: []string{"a"}, Value: "x"}, "int", "5", `column rule 1: column "a" cannot hold value: "x" for an int: not a whole number`},
		{"redact list", Rule{Action: Redact, Columns: []string{"a"}}, "list", "x", "null"},
		{"redact list by a value", Rule{Action: Redact, Columns: []string{"a"}, Value: "x"}, "list", "x", `column rule 1: column "a" is a list: leave value out, and it is null`},
		{"truncate", Rule{Action: Truncate, Columns: []string{"a"}, Length: 2}, "string", "äöü", "äö"},
		{"truncate what is short", Rule{Action: Truncate, Columns: []string{"a"}, Length: 4}, "string", "äöü", "äöü"},
		{"truncate null", Rule{Action: Truncate, Columns: []string{"a"}, Length: 4}, "string", "null", "null"},
		{"truncate int", Rule{Action: Truncate, Columns: []string{"a"}, Length: 4}, "int", "5", `column rule 1: column "a" is a int: only strings can be truncated`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := outcome(t, Options{Rules: []Rule{c.rule}}, event(t, shapeOf(t, "id! int, a "+c.typ), "", "1|"+c.value))
			if want := "id=1 a=" + c.want; got != want && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestCasts: each pair of types, values that fit and such that do not.
func TestCasts(t *testing.T) {
	for _, c := range []struct{ from, value, to, want string }{
		{"int", "5", "long", "5"},
		{"long", "2147483647", "int", "2147483647"},
		{"long", "2147483648", "int", `cast_inexact: column "a": "2147483648" is no int`},
		{"long", "-5", "decimal(3,1)", "-5.0"},
		{"long", "100", "decimal(3,1)", `cast_inexact: column "a": "100" is no decimal(3,1)`},
		{"long", "9007199254740992", "double", "9007199254740992"},
		{"long", "9007199254740993", "double", `cast_inexact: column "a": "9007199254740993" is no double`},
		{"int", "16777216", "float", "16777216"},
		{"int", "16777217", "float", `cast_inexact: column "a": "16777217" is no float`},
		{"int", "1", "boolean", `column rule 1: column "a" is a int, which cannot be cast to boolean without loss`},
		{"int", "1", "date", `column rule 1: column "a" is a int, which cannot be cast to date without loss`},
		{"boolean", "true", "string", "true"},
		{"int", "-7", "string", "-7"},
		{"float", "0.1", "string", "0.1"},
		{"double", "1e300", "string", "1e+300"},
		{"decimal(5,2)", "-0.10", "string", "-0.10"},
		{"date", "2026-01-31", "string", "2026-01-31"},
		{"time", "01:02:03", "string", "01:02:03.000000"},
		{"timestamp", "2026-01-31T01:02:03", "string", "2026-01-31T01:02:03.000000"},
		{"timestamptz", "2026-01-31T01:02:03+01:00", "string", "2026-01-31T00:02:03.000000Z"},
		{"uuid", "00000000-0000-0000-0000-0000000000FF", "string", "00000000-0000-0000-0000-0000000000ff"},
		{"binary", "00FF", "string", "00ff"},
		{"string", "05", "int", "5"},
		{"string", " 5", "int", `cast_inexact: column "a": " 5" is no int`},
		{"string", "5.0", "long", `cast_inexact: column "a": "5.0" is no long`},
		{"string", "1.5", "decimal(5,2)", "1.50"},
		{"string", "1.505", "decimal(5,2)", `cast_inexact: column "a": "1.505" is no decimal(5,2)`},
		{"string", "true", "boolean", "true"},
		{"string", "yes", "boolean", `cast_inexact: column "a": "yes" is no boolean`},
		{"string", "0.1", "double", "0.1"},
		{"string", "0.10", "double", `cast_inexact: column "a": "0.10" is no double`},
		{"string", "2026-01-31", "date", "2026-01-31"},
		{"string", "2026-01-31T01:02:03.5+01:00", "timestamptz", "2026-01-31T00:02:03.500000Z"},
		{"string", "2026-01-31T01:02:03", "timestamptz", `cast_inexact: column "a": "2026-01-31T01:02:03" is no timestamptz`},
		{"string", "2026-01-31T01:02:03.1234567Z", "timestamptz", `cast_inexact: column "a": "2026-01-31T01:02:03.1234567Z" is no timestamptz`},
		{"string", "2026-01-31T01:02:03", "timestamp", "2026-01-31T01:02:03.000000"},
		{"string", "2026-01-31T01:02:03Z", "timestamp", `cast_inexact: column "a": "2026-01-31T01:02:03Z" is no timestamp`},
		{"string", "2026-01-31 01:02:03-01:00", "timestamp", `cast_inexact: column "a": "2026-01-31 01:02:03-01:00" is no timestamp`},
		{"string", "01:02:03", "time", "01:02:03.000000"},
		{"string", "00FF", "binary", "00ff"},
		{"string", strings.Repeat("1", 2000), "long", `cast_inexact: column "a": "` + strings.Repeat("1", 64) + `"… is no long`},
		{"string", "null", "int", "null"},
		{"string", "?", "int", "?"},
		{"decimal(5,2)", "7.00", "int", "7"},
		{"decimal(5,2)", "7.10", "int", `cast_inexact: column "a": "7.10" is no int`},
		{"decimal(12,0)", "2147483648", "int", `cast_inexact: column "a": "2147483648" is no int`},
		{"decimal(5,2)", "-7.10", "decimal(9,3)", "-7.100"},
		{"decimal(5,2)", "7.10", "decimal(4,1)", "7.1"},
		{"decimal(5,2)", "7.11", "decimal(4,1)", `cast_inexact: column "a": "7.11" is no decimal(4,1)`},
		{"decimal(5,2)", "7.10", "double", `column rule 1: column "a" is a decimal(5,2), which cannot be cast to double without loss`},
		{"float", "0.5", "double", "0.5"},
		{"double", "0.5", "float", "0.5"},
		{"double", "NaN", "float", "NaN"},
		{"double", "0.1", "float", `cast_inexact: column "a": "0.1" is no float`},
		{"double", "1", "long", `column rule 1: column "a" is a double, which cannot be cast to long without loss`},
		{"date", "2026-01-31", "timestamp", "2026-01-31T00:00:00.000000"},
		{"date", "2026-01-31", "timestamptz", `column rule 1: column "a" is a date, which cannot be cast to timestamptz without loss`},
		{"timestamp", "2026-01-31T01:02:03", "timestamptz", `column rule 1: column "a" is a timestamp, which cannot be cast to timestamptz without loss`},
		{"list", "x", "string", `column rule 1: column "a" is a list<int>, which cannot be cast to string without loss`},
	} {
		t.Run(c.from+" "+quote(c.value)+" to "+c.to, func(t *testing.T) {
			rule := Rule{Action: Cast, Columns: []string{"a"}, Type: c.to}
			ev := event(t, shapeOf(t, "id! int, a "+c.from), "", "1|"+c.value)
			got := outcome(t, Options{Rules: []Rule{rule}}, ev)
			if got != "id=1 a="+c.want && got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if strings.HasPrefix(got, "id=1") && ev.Shape.Columns[1].Type.String() != c.to {
				t.Errorf("type %s", ev.Shape.Columns[1].Type)
			}
		})
	}
}

// TestCastDateRange: days whose microseconds do not fit are no timestamps.
func TestCastDateRange(t *testing.T) {
	f := caster(changelog.Primitive(changelog.Date), changelog.Primitive(changelog.Timestamp), false)
	for days, want := range map[int64]bool{math.MaxInt64 / microsPerDay: true, math.MaxInt64/microsPerDay + 1: false, math.MinInt32: false, -math.MaxInt64 / microsPerDay: true} {
		if v, ok := f(nil, changelog.Value{I: days}); ok != want || ok && v.I/microsPerDay != days {
			t.Errorf("%d days: %d, %t", days, v.I, ok)
		}
	}
}

// TestKeyValues: the key, the halves of a key change and both images have the same value of a key column.
func TestKeyValues(t *testing.T) {
	s := shapeOf(t, "a string, id! int, k! string")
	o := Options{Rules: []Rule{
		{Action: Hash, Columns: []string{"id"}, Salt: testSalt}, {Action: Rename, Columns: []string{"id"}, To: "who"}, {Action: Cast, Columns: []string{"k"}, Type: "long"},
	}}
	a := compile(t, o).Applier()
	ev := event(t, s, "x|1|2", "y|1|2")
	ev.OldKey = []changelog.Value{{I: 9}, {B: []byte("8")}}
	if err := a.Event(ev, here); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{showShape(ev.Shape), "a string, who! string, k! long"},
		{keyOf(ev), "who=" + hmacOf("1") + " k=2"},
		{show(ev.Shape.Columns, ev.Before, nil), "a=x who=" + hmacOf("1") + " k=2"},
		{show(ev.Shape.Columns, ev.After, nil), "a=y who=" + hmacOf("1") + " k=2"},
		{show(ev.Shape.Columns[1:], ev.OldKey, nil), "who=" + hmacOf("9") + " k=8"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %s, want %s", c[0], c[1])
		}
	}
	// What cannot be read is parked by the same key.
	rejected := &decode.Rejected{KeyColumns: s.Columns[1:], Key: []changelog.Value{{I: 1}, {B: []byte("2")}}}
	a.Rejected(rejected)
	if got := show(rejected.KeyColumns, rejected.Key, nil); got != "who="+hmacOf("1")+" k=2" {
		t.Errorf("rejected: %s", got)
	}
	// A text of a key that is not the one that rows show would make one key of two.
	if err := a.Event(event(t, s, "", "y|1|02"), here); err == nil || !strings.Contains(err.Error(), `column "k": "02" is no long`) {
		t.Error(err)
	}
	// A value that cannot be cast is rejected with the key, a before image is left out.
	o.Rules = append(o.Rules, Rule{Action: Cast, Columns: []string{"a"}, Type: "int"})
	a = compile(t, o).Applier()
	err := a.Event(event(t, s, "", "y|1|2"), here)
	rejected, _ = errors.AsType[*decode.Rejected](err)
	if rejected == nil || rejected.Reason != decode.ReasonCastInexact || show(rejected.KeyColumns, rejected.Key, nil) != "who="+hmacOf("1")+" k=2" {
		t.Errorf("%+v", rejected)
	}
	ev = event(t, s, "y|1|2", "4|1|2")
	if err := a.Event(ev, here); err != nil || ev.Before != nil || ev.After[0].I != 4 {
		t.Errorf("before %v, after %v: %v", ev.Before, ev.After, err)
	}
}

// TestLossyKeys: what makes one key of two is refused for keys, whoever names them, and for others not.
func TestLossyKeys(t *testing.T) {
	s := shapeOf(t, "id! string, a string")
	for _, r := range []Rule{{Action: Redact, Match: ".*"}, {Action: Truncate, Match: ".*", Length: 3}} {
		want := `column rule 1: "id" is a key column: ` + r.Action.String() + ` would make one row of several (hash keeps them apart)`
		if got := outcome(t, Options{Rules: []Rule{r}}, event(t, s, "", "1|x")); got != want {
			t.Errorf("got %s", got)
		}
		want = `column rule 1: "b" is a key column: ` + r.Action.String() + ` would make one row of several (hash keeps them apart)`
		r.Match, r.Columns = "", []string{"a"}
		if got := outcome(t, Options{Rules: []Rule{r, {Action: Rename, Columns: []string{"a"}, To: "b"}}, Key: []string{"b"}}, event(t, s, "", "1|x")); strings.ReplaceAll(got, `"a"`, `"b"`) != want {
			t.Errorf("got %s", got)
		}
		if got := outcome(t, Options{Rules: []Rule{r}, NoKey: true}, event(t, s, "", "1|x")); !strings.HasPrefix(got, "id=1 a=") {
			t.Errorf("got %s", got)
		}
	}
}

// TestChains: rules that follow each other on one column, and a name that another column had.
func TestChains(t *testing.T) {
	s := shapeOf(t, "id! int, a string, b string")
	for _, c := range []struct {
		rules []Rule
		row   string
		want  string
	}{
		{[]Rule{{Action: Truncate, Columns: []string{"a"}, Length: 2}, {Action: Cast, Columns: []string{"a"}, Type: "int"}}, "1|123|x", "id=1 a=12 b=x"},
		{[]Rule{{Action: Cast, Columns: []string{"a"}, Type: "int"}, {Action: Redact, Columns: []string{"a"}}, {Action: Cast, Columns: []string{"a"}, Type: "string"}}, "1|123|x", "id=1 a=null b=x"},
		{[]Rule{{Action: Hash, Columns: []string{"a"}, Salt: testSalt}, {Action: Truncate, Columns: []string{"a"}, Length: 8}}, "1|x|y", "id=1 a=" + hmacOf("x")[:8] + " b=y"},
		{[]Rule{{Action: Hash, Match: "a|b", Salt: testSalt}}, "1|x|x", "id=1 a=" + hmacOf("x") + " b=" + hmacOf("x")},
		{[]Rule{{Action: Rename, Columns: []string{"a"}, To: "c"}, {Action: Rename, Columns: []string{"b"}, To: "a"}, {Action: Redact, Columns: []string{"a"}}}, "1|x|y", "id=1 c=x a=REDACTED"},
		{[]Rule{{Action: Constant, To: "k", Value: "7"}, {Action: Cast, Columns: []string{"k"}, Type: "int"}, {Action: Hash, Columns: []string{"k"}, Salt: testSalt}}, "1|x|y", "id=1 a=x b=y k=" + hmacOf("7")},
	} {
		if got := outcome(t, Options{Rules: c.rules}, event(t, s, "", c.row)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// TestMaskedReport: the value of a masked column is not told.
func TestMaskedReport(t *testing.T) {
	ev := event(t, shapeOf(t, "id! int, a string"), "", "1|x")
	ev.Reports = []decode.Report{{Column: "a", Reason: "r", Detail: "a secret"}}
	outcome(t, Options{Rules: []Rule{{Action: Hash, Columns: []string{"a"}, Salt: testSalt}}}, ev)
	if len(ev.Reports) != 1 || ev.Reports[0].Detail != "" || ev.Reports[0].Column != "a" {
		t.Errorf("%+v", ev.Reports)
	}
}
