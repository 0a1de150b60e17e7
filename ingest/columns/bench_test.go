package columns

import (
	"testing"

	"firn/changelog"
	"firn/ingest/decode"
)

// BenchmarkRules applies rules to an event of ten columns; what a rule costs is the difference to none.
func BenchmarkRules(b *testing.B) {
	const shape = "id! long, a string, b string, c long, d double, e timestamptz, f string, g decimal(9,2), h boolean, i string"
	const row = "1|alice@example.com|x|3|0.5|2026-01-31T23:30:00Z|y|12.50|true|z"
	for _, c := range []struct {
		name  string
		rules []Rule
	}{
		{"rename", []Rule{{Action: Rename, Columns: []string{"a"}, To: "x"}}},
		{"drop", []Rule{{Action: Drop, Columns: []string{"a", "i"}}}},
		{"metadata", []Rule{{Action: Metadata, Columns: []string{"_lake_source_ts", "_lake_topic", "_lake_partition", "_lake_offset", "_lake_position"}}}},
		{"hash", []Rule{{Action: Hash, Columns: []string{"a"}, Salt: testSalt}}},
		{"cast", []Rule{{Action: Cast, Columns: []string{"c"}, Type: "string"}}},
		{"compute", []Rule{{Action: Compute, To: "x", Type: "string", Expr: `a.split("@")[1]`}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			a := compile(b, Options{Rules: c.rules}).Applier()
			ev := event(b, shapeOf(b, shape), "", row)
			b.ReportAllocs()
			var e decode.Event
			for b.Loop() {
				e = *ev
				if err := a.Event(&e, here); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAllocations: rules do not allocate for each event, but for expressions.
func TestAllocations(t *testing.T) {
	a := compile(t, Options{Rules: []Rule{
		{Action: Rename, Columns: []string{"b"}, To: "x"},
		{Action: Drop, Columns: []string{"c"}},
		{Action: Hash, Match: "id|a", Salt: testSalt},
		{Action: Truncate, Columns: []string{"x"}, Length: 1},
		{Action: Cast, Columns: []string{"d"}, Type: "string"},
		{Action: Constant, To: "k", Value: "v"},
		{Action: Metadata, Columns: []string{"_lake_topic", "_lake_offset", "_lake_position"}},
	}}).Applier()
	ev := event(t, shapeOf(t, "id! long, a string, b string, c string, d long"), "1|x|y|z|2", "1|u|v|w|3")
	var e decode.Event
	n := testing.AllocsPerRun(100, func() {
		e = decode.Event{Op: changelog.OpUpdate, Shape: ev.Shape, Key: ev.Key, Before: ev.Before, After: ev.After, Native: ev.Native}
		if err := a.Event(&e, here); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}
