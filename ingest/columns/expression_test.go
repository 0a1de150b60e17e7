package columns

import (
	"errors"
	"strings"
	"testing"

	"firn/ingest/decode"
)

// TestExpressions: the types and functions of the language, and what comes of nulls and errors.
func TestExpressions(t *testing.T) {
	const shape = "id! int, s string, n long, f double, b boolean, d decimal(9,2), day date, at timestamptz, local timestamp, u uuid, tm time, bin binary, e float, l list"
	const full = "7|Ann@Example.com|5|0.5|true|12.50|2026-02-28|2026-01-31T23:30:00.5Z|2026-01-31T01:02:03|00000000-0000-0000-0000-0000000000ff|01:02:03|00ff|0.25|x"
	const nulls = "7|null|null|null|null|null|null|null|null|null|null|null|null|null"
	failed := func(expr, why string) string { return `expression: column "x" = ` + quote(expr) + ": " + why }
	misfit := func(expr, why string) string { return "column rule 1: " + quote(expr) + ": " + why }
	for _, c := range []struct{ expr, typ, row, want string }{
		{`s.split("@")[1].lowerAscii()`, "string", full, "example.com"},
		{`s + "/" + string(n)`, "string", full, "Ann@Example.com/5"},
		{`s.substring(0, 3).upperAscii().replace("N", "m")`, "string", full, "Amm"},
		{`s.matches("^[A-Z].*@.*$")`, "boolean", full, "true"},
		{`"%s has %d".format([s, n])`, "string", full, "Ann@Example.com has 5"},
		{`size(s)`, "int", full, "15"},
		{`n * 2 + id`, "long", full, "17"},
		{`n`, "decimal(5,1)", full, "5.0"},
		{`n > 3 && b || f < 0.1`, "boolean", full, "true"},
		{`n > 3 ? "big" : "small"`, "string", full, "big"},
		{`f * 2.0`, "double", full, "1"},
		{`f + 0.25`, "float", full, "0.75"},
		{`e`, "float", full, "0.25"},
		{`math.greatest(n, id)`, "long", full, "7"},
		{`math.round(f)`, "double", full, "1"},
		{`double(d) / 2.0`, "double", full, "6.25"},
		{`d`, "decimal(10,3)", full, "12.500"},
		{`d`, "string", full, "12.50"},
		{`at`, "timestamptz", full, "2026-01-31T23:30:00.500000Z"},
		{`at + duration("1h")`, "timestamp", full, "2026-02-01T00:30:00.500000"},
		{`at.getFullYear() * 100 + at.getMonth() + 1`, "int", full, "202601"},
		{`at.getHours("+02:00")`, "int", full, "1"},
		{`timestamp(string(at).substring(0, 10) + "T00:00:00Z")`, "date", full, "2026-01-31"},
		{`day`, "date", full, "2026-02-28"},
		{`day + duration("24h")`, "timestamp", full, "2026-03-01T00:00:00.000000"},
		{`local < at`, "boolean", full, "true"},
		{`string(at).substring(0, 10)`, "date", full, "2026-01-31"},
		{`u`, "uuid", full, "00000000-0000-0000-0000-0000000000ff"},
		{`tm`, "time", full, "01:02:03.000000"},
		{`bin + b"\x01"`, "binary", full, "00ff01"},
		{`[s, "x", u].exists(e, e == "x")`, "boolean", full, "true"},
		{`s.split("@").map(p, p.size()).filter(p, p > 3).size()`, "int", full, "1"},
		{`"k"`, "string", nulls, "k"},

		// nulls
		{`s.size() + n`, "long", nulls, "null"},
		{`s + "x"`, "string", nulls, "null"},
		{`s == null ? "none" : s`, "string", nulls, "none"},
		{`s == null ? "none" : s.lowerAscii()`, "string", full, "ann@example.com"},
		{`n == null ? 0 : n + 1`, "long", nulls, "0"},
		{`n == null ? 0 : n + 1`, "long", full, "6"},
		{`at == null ? false : at > timestamp("2020-01-01T00:00:00Z")`, "boolean", nulls, "false"},
		{`at == null`, "boolean", full, "false"},

		// at run time
		{`s.split("@")[2]`, "string", full, failed(`s.split("@")[2]`, "index out of bounds: 2")},
		{`n / (n - 5)`, "long", full, failed(`n / (n - 5)`, "division by zero")},
		{`n + 9223372036854775807`, "long", full, failed(`n + 9223372036854775807`, "integer overflow")},
		{`n * 1000000000`, "int", full, failed(`n * 1000000000`, `its result "5000000000" is no int`)},
		{`s`, "decimal(9,2)", full, failed(`s`, `its result "Ann@Example.com" is no decimal(9,2)`)},
		{`f + 0.1`, "float", full, failed(`f + 0.1`, `its result "0.6" is no float`)},
		{`at`, "date", full, failed(`at`, `its result "2026-01-31 23:30:00.5 +0000 UTC" is no date`)},
		{`int(s)`, "int", full, failed(`int(s)`, `type conversion error from 'string' to 'int'`)},
		{`n == null ? 0 : 1 / n`, "long", "7|null|0" + nulls[len("7|null|null"):], failed(`n == null ? 0 : 1 / n`, "division by zero")},
		{`string(day)`, "string", strings.Replace(full, "2026-02-28", "+12026-02-28", 1), failed(`string(day)`, `column "day" has a value that expressions cannot read: years are 1 to 9999`)},
		{`string(at)`, "string", strings.Replace(full, "2026-01-31T23:30:00.5Z", "+292026-01-31T23:30:00.5Z", 1), failed(`string(at)`, `column "at" has a value that expressions cannot read: years are 1 to 9999`)},

		// against the columns
		{`n + s`, "string", full, misfit(`n + s`, "1:3: found no matching overload for '_+_' applied to '(int, string)'")},
		{`n`, "string", full, misfit(`n`, "its type is int, of which no string can be made")},
		{`f`, "long", full, misfit(`f`, "its type is double, of which no long can be made")},
		{`s.split("@")`, "string", full, misfit(`s.split("@")`, "its type is list(string), of which no string can be made")},
		{`s`, "binary", full, misfit(`s`, "its type is string, of which no binary can be made")},
		{`dyn(n)`, "long", full, misfit(`dyn(n)`, "its type is dyn, of which no long can be made")},
		{`s.now()`, "string", full, misfit(`s.now()`, "1:6: undeclared reference to 'now' (in container '')")},
		{`l`, "string", full, `column rule 1: column "l" is a list, which expressions cannot read`},
		{`gone + 1`, "long", full, "null"},
		{`gone == null ? s : gone`, "string", full, "Ann@Example.com"},
		{`gone == null ? s : s + gone`, "string", nulls, "null"},
		{`gone == null ? n : gone`, "string", full, failed(`gone == null ? n : gone`, `its result "5" is no string`)},
		{`gone == null ? n + s : gone`, "string", full, misfit(`gone == null ? n + s : gone`, "1:18: found no matching overload for '_+_' applied to '(wrapper(int), wrapper(string))'")},
	} {
		t.Run(c.expr, func(t *testing.T) {
			got := outcome(t, Options{Rules: []Rule{{Action: Compute, To: "x", Type: c.typ, Expr: c.expr}}}, event(t, shapeOf(t, shape), "", c.row))
			if i := strings.LastIndex(got, " x="); i >= 0 && strings.HasPrefix(got, "id=7") {
				got = got[i+3:]
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestExpressionBounds: the text, the steps and the result of an expression are bounded.
func TestExpressionBounds(t *testing.T) {
	s := shapeOf(t, "id! int, s string")
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 60), ",") + "]"
	for _, c := range []struct{ expr, value, want string }{
		{list + ".map(a, " + list + ".map(b, " + list + ".map(c, a + b + c).size()).size()).size() > 0 ? s : s", "x", "actual cost limit exceeded"},
		{`s.replace("x", "1234567890123456").replace("1", "1234567890123456")`, strings.Repeat("x", 60_000), "actual cost limit exceeded"},
		{`s.split("").map(x, s).join("")`, strings.Repeat("x", 1500), "actual cost limit exceeded"},
		{`s.split("").map(x, s).join("")`, strings.Repeat("x", 60_000), "actual cost limit exceeded"},
		{`s.size() > 0 ? "a" : "b"`, strings.Repeat("x", 65<<10), "the columns that it reads have over 65536 bytes"},
	} {
		got := outcome(t, Options{Rules: []Rule{{Action: Compute, To: "x", Type: "string", Expr: c.expr}}}, event(t, s, "", "1|"+c.value))
		if !strings.HasPrefix(got, "expression: ") || !strings.Contains(got, c.want) || len(got) > 600 {
			t.Errorf("%s: %.300s", c.expr, got)
		}
	}
}

// TestCompileExpression: what is wrong with an expression whatever the columns are.
func TestCompileExpression(t *testing.T) {
	rule := func(expr string) Options {
		return Options{Rules: []Rule{{Action: Compute, To: "x", Type: "string", Expr: expr}}}
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{rule(`a +`), "column rule 1: expr: 1:4: Syntax error: "},
		{rule(""), "column rule 1: compute needs expr"},
		{rule(strings.Repeat("a", 5000)), "column rule 1: expr: "},
		{rule(`{"a": b}.map(k, k)[0]`), "column rule 1: expr: maps and messages are not to be had: their order is not fixed"},
		{rule(`a.getHours("Europe/Paris")`), `column rule 1: expr: getHours takes a fixed zone only, such as "+02:00": named zones are the machine's`},
		{rule(`a.replace("x", a)`), "column rule 1: expr: replace takes a text of at most 16 bytes, no column, to put in place of another"},
		{rule(`a.replace("", "` + strings.Repeat("x", 17) + `", 3)`), "column rule 1: expr: replace takes a text of at most 16 bytes, no column, to put in place of another"},
		{rule(`[a, a].join(a)`), "column rule 1: expr: join takes a text of at most 16 bytes, no column, to put between others"},
		{rule(`a.getDate(zone)`), `column rule 1: expr: getDate takes a fixed zone only, such as "+02:00": named zones are the machine's`},
		{Options{Rules: []Rule{{Action: Compute, To: "x", Expr: "a"}}}, "column rule 1: compute needs type"},
		{Options{Rules: []Rule{{Action: Compute, Type: "int", Expr: "a"}}}, "column rule 1: compute needs to: the new name"},
		{Options{Rules: []Rule{{Action: Compute, To: "x", Type: "int", Expr: "a", Columns: []string{"a"}}}}, "column rule 1: compute adds a column: it has to, and neither columns nor match"},
	} {
		if _, err := Compile(c.o); err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// TestComputedOrder: an expression reads the columns as the rules before it have left them, and later rules take what it makes.
func TestComputedOrder(t *testing.T) {
	s := shapeOf(t, "id! int, email string")
	rules := []Rule{
		{Action: Compute, To: "domain", Type: "string", Expr: `email.split("@")[1]`},
		{Action: Hash, Columns: []string{"email"}, Salt: testSalt},
		{Action: Compute, To: "short", Type: "string", Expr: `email.substring(0, 4) + domain`},
		{Action: Drop, Columns: []string{"domain"}},
		{Action: Metadata, Columns: []string{"_lake_op"}},
		{Action: Compute, To: "op", Type: "string", Expr: `_lake_op == null ? "" : _lake_op`},
	}
	h := hmacOf("a@b.c")
	ev := event(t, s, "1|a@b.c", "1|a@b.c")
	if got, want := outcome(t, Options{Rules: rules}, ev), "id=1 email="+h+" short="+h[:4]+"b.c _lake_op=u op=u"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := show(ev.Shape.Columns, ev.Before, nil), "id=1 email="+h+" short="+h[:4]+"b.c _lake_op=null op="; got != want {
		t.Errorf("before %s, want %s", got, want)
	}
}

// TestComputedPlaceholders: of a column that was not sent, computed columns keep their value; with one that was sent, it cannot be computed.
func TestComputedPlaceholders(t *testing.T) {
	s := shapeOf(t, "id! int, a string, b string")
	rules := []Rule{{Action: Compute, To: "x", Type: "string", Expr: "a"}, {Action: Compute, To: "y", Type: "string", Expr: "x + a"}}
	if got := outcome(t, Options{Rules: rules}, event(t, s, "", "1|?|z")); got != "id=1 a=? b=z x=? y=?" {
		t.Error(got)
	}
	if got := outcome(t, Options{Rules: rules}, event(t, s, "", "1|z|?")); got != "id=1 a=z b=? x=z y=zz" {
		t.Error(got)
	}
	rules = append(rules, Rule{Action: Compute, To: "z", Type: "string", Expr: "a + b"})
	err := compile(t, Options{Rules: rules}).Applier().Event(event(t, s, "", "1|?|z"), here)
	rejected, _ := errors.AsType[*decode.Rejected](err)
	if rejected == nil || rejected.Detail != `column "z" = "a + b": column "a" was not sent, others were: it takes whole rows (REPLICA IDENTITY FULL)` || len(rejected.Key) != 1 {
		t.Errorf("%+v", rejected)
	}
}

// TestMissing: it is said once that an expression reads a column which events do not have.
func TestMissing(t *testing.T) {
	a := compile(t, Options{Rules: []Rule{{Action: Compute, To: "x", Type: "int", Expr: "gone + 1"}}}).Applier()
	for i, want := range []int{1, 0} { // two shapes
		if err := a.Event(event(t, shapeOf(t, "id! int"), "", "1"), here); err != nil {
			t.Fatal(err)
		}
		if m := a.Missing(); len(m) != want || want > 0 && m[0] != `the expression of column "x" reads column "gone", which some events do not have: it is null there` {
			t.Errorf("%d: %q", i, m)
		}
	}
}
