package decode

import (
	"encoding/json"
	"testing"

	"firn/changelog"
)

func newDecoder(t testing.TB, o Options) *Decoder {
	t.Helper()
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(o)
}

// TestTypes: each line of types.jsonl gives the type, value and outcome that it expects of a v2 and of a v3 table (T2).
func TestTypes(t *testing.T) {
	// Left out, with the reason.
	skip := map[string]string{
		"dec-over-38": "wants zeros at the end of the fraction; the rows expected of the live recordings (numeric(50,10), " +
			"decimal(65,30)) have none, as 3.3 says of canonical strings: see TestWideDecimals",
	}
	lines := readLines(t, samples+"types.jsonl")
	if len(lines) != 119 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		t.Run(l.ID, func(t *testing.T) {
			if why := skip[l.ID]; why != "" {
				t.Skip(why)
			}
			type expected struct {
				Type, Outcome string
				Value         json.RawMessage
			}
			var expect struct{ V2, V3 expected }
			if err := json.Unmarshal(l.Expect, &expect); err != nil {
				t.Fatal(err)
			}
			for v3, want := range map[bool]expected{false: expect.V2, true: expect.V3} {
				d := newDecoder(t, Options{Format: FormatSchema, Nanoseconds: v3})
				for range 2 { // compiled, then from the cache
					ev, err := d.Decode(l.Record)
					if err != nil {
						t.Fatal(err)
					}
					checkType(t, ev, want.Type, want.Outcome, parse(t, want.Value))
				}
			}
		})
	}
}

func checkType(t *testing.T, ev *Event, typ, outcome string, want any) {
	t.Helper()
	v := -1
	for i, c := range ev.Shape.Columns {
		if c.Name == "v" {
			v = i
		}
	}
	c := ev.Shape.Columns[v]
	if outcome == "merge" {
		if len(ev.Placeholders) != 1 || ev.Placeholders[0] != v || !ev.After[v].Null {
			t.Fatalf("placeholders %v, value %v", ev.Placeholders, form(t, c.Type, ev.After[v]))
		}
		return
	}
	if len(ev.Placeholders) != 0 {
		t.Errorf("placeholders %v", ev.Placeholders)
	}
	if c.Type.String() != typ {
		t.Errorf("type %s, want %s", c.Type, typ)
	}
	if got := text(form(t, c.Type, ev.After[v])); got != text(want) {
		t.Errorf("value %s, want %s", got, text(want))
	}
	reported := len(ev.Reports) == 1 && ev.Reports[0].Column == "v"
	if reported != (outcome == "apply_report") || !reported && len(ev.Reports) != 0 {
		t.Errorf("reports %+v, want outcome %s", ev.Reports, outcome)
	}
}

// TestBad: each line of bad.jsonl gives the outcome and reason that it names (T3).
func TestBad(t *testing.T) {
	// What the pipeline decides: here the event must carry what it decides by.
	pipeline := map[string]func(ev *Event) bool{
		"B91": func(ev *Event) bool { return len(ev.Placeholders) == 1 },
		"B94": func(ev *Event) bool { return ev.Kind == Truncate && ev.Op == changelog.OpTruncate },
		"B95": func(ev *Event) bool { return ev.Kind == Truncate },
	}
	options := map[string]Options{
		"B46": {SourceTable: "public.customers"},
		"B59": {NullKey: "default"},
		"B93": {MaxMessageBytes: 65536},
	}
	plan := map[string]PlanOptions{"B28": {FoldNames: true}}
	framed := map[string]bool{ // see TestBadFrames
		"B102": true, "B103": true, "B104": true, "B105": true, "B106": true, "B107": true, "B108": true, "B109": true, "B110": true, "B111": true,
	}
	lines := readLines(t, samples+"bad.jsonl")
	if len(lines) != 111 {
		t.Fatalf("%d lines", len(lines))
	}
	good := lines[0]
	for _, l := range lines {
		if framed[l.Case] {
			continue
		}
		t.Run(l.Case+"/"+l.ID, func(t *testing.T) {
			var expect struct{ Outcome, Reason string }
			if err := json.Unmarshal(l.Expect, &expect); err != nil {
				t.Fatal(err)
			}
			if expect.Outcome == "size_policy" {
				expect.Outcome = "dead_letter"
			}
			o := options[l.Case]
			o.Format = FormatSchema
			table := tableOf(t, good.Record)
			for _, warm := range []bool{false, true} {
				d := newDecoder(t, o)
				if warm {
					if _, err := d.Decode(good.Record); err != nil {
						t.Fatal(err)
					}
				}
				outcome, reason, ev := outcomeOf(d, l.Record, table, plan[l.Case])
				if check := pipeline[l.Case]; check != nil {
					if ev == nil || !check(ev) {
						t.Errorf("%s %s, event %+v", outcome, reason, ev)
					}
					continue
				}
				if outcome != expect.Outcome || reason != expect.Reason {
					t.Errorf("warm %v: %s %s, want %s %s", warm, outcome, reason, expect.Outcome, expect.Reason)
				}
			}
			if l.Case == "B93" {
				if _, err := newDecoder(t, Options{Format: FormatSchema}).Decode(l.Record); err != nil {
					t.Errorf("with the default size: %v", err)
				}
			}
		})
	}
}

// tableOf returns the table that a record makes.
func tableOf(t testing.TB, r Record) *changelog.Schema {
	t.Helper()
	ev, err := newDecoder(t, Options{}).Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	_, s, err := Plan(nil, ev.Shape, PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// outcomeOf decodes and plans a record and names the outcome as the files do.
func outcomeOf(d *Decoder, r Record, table *changelog.Schema, o PlanOptions) (outcome, reason string, ev *Event) {
	ev, err := d.Decode(r)
	if err == nil && ev.Kind == Change {
		_, _, err = Plan(table, ev.Shape, o)
	}
	switch {
	case err != nil:
		return "dead_letter", reasonOf(err), nil
	case ev.Kind.Skip():
		return "skip", ev.Kind.String(), ev
	case len(ev.Reports) > 0:
		return "apply_report", ev.Reports[0].Reason, ev
	}
	return "apply", "", ev
}
