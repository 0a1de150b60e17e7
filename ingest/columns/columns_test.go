package columns

import (
	"errors"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest/decode"
)

// TestRules: what lists of rules make of a row.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		name       string
		rules      []Rule
		shape, row string
		want       string
	}{
		{"drop", []Rule{{Action: Drop, Columns: []string{"b", "gone"}}}, "id! int, a string, b string, c long", "1|x|y|2", "id=1 a=x c=2"},
		{"drop by pattern, anchored", []Rule{{Action: Drop, Match: "tmp_.*"}}, "id! int, tmp_a string, a_tmp_ string", "1|x|y", "id=1 a_tmp_=y"},
		{"rename", []Rule{{Action: Rename, Columns: []string{"a"}, To: "b"}}, "id! int, a string", "1|x", "id=1 b=x"},
		{"rename by pattern", []Rule{{Action: Rename, Match: "c_(.*)", To: "$1_x"}}, "id! int, c_a string, c_b string, d int", "1|x|y|3", "id=1 a_x=x b_x=y d=3"},
		{"swap", []Rule{
			{Action: Rename, Columns: []string{"a"}, To: "t"}, {Action: Rename, Columns: []string{"b"}, To: "a"}, {Action: Rename, Columns: []string{"t"}, To: "b"},
		}, "id! int, a string, b string", "1|x|y", "id=1 b=x a=y"},
		{"order counts", []Rule{{Action: Rename, Columns: []string{"a"}, To: "b"}, {Action: Drop, Columns: []string{"a"}}}, "id! int, a string", "1|x", "id=1 b=x"},
		{
			"rename into a place that a drop has left",
			[]Rule{{Action: Drop, Columns: []string{"b"}}, {Action: Rename, Columns: []string{"a"}, To: "b"}},
			"id! int, a string, b string", "1|x|y", "id=1 b=x",
		},
		{"constant", []Rule{{Action: Constant, To: "n", Value: "7", Type: "long"}, {Action: Constant, To: "s", Value: "eu"}}, "id! int", "1", "id=1 n=7 s=eu"},
		{"constant decimal", []Rule{{Action: Constant, To: "d", Value: "1.50", Type: "decimal(5,2)"}}, "id! int", "1", "id=1 d=1.50"},
		{
			"metadata",
			[]Rule{{Action: Metadata, Columns: MetadataColumns()}},
			"id! int", "1",
			"id=1 _lake_source_ts=2026-01-01T00:00:00.123456Z _lake_topic=shop.public.t _lake_partition=2 _lake_offset=41 " +
				"_lake_position=lsn:00000000/00001A2B _lake_op=u _lake_tx_id=7 _lake_tx_order=3 _lake_snapshot=null",
		},
		{"metadata renamed", []Rule{{Action: Metadata, Columns: []string{"_lake_offset"}}, {Action: Rename, Columns: []string{"_lake_offset"}, To: "pos"}}, "id! int", "1", "id=1 pos=41"},
		{"nested columns pass", []Rule{{Action: Rename, Columns: []string{"l"}, To: "m"}}, "id! int, l list", "1|x", "id=1 m=list<int>"},
		{"key renamed", []Rule{{Action: Rename, Columns: []string{"id"}, To: "key"}}, "id! int, a string", "1|x", "key=1 a=x"},
		{
			"placeholders move with their columns",
			[]Rule{{Action: Drop, Columns: []string{"a"}}, {Action: Rename, Columns: []string{"c"}, To: "d"}},
			"id! int, a string, b string, c string", "1|?|x|?", "id=1 b=x d=?",
		},
		{
			"two of one name",
			[]Rule{{Action: Rename, Columns: []string{"a"}, To: "b"}},
			"id! int, a string, b string", "1|x|y",
			`column rule 1: two columns are called "b": the source's "a" and the source's "b"`,
		},
		{
			"two renamed to one",
			[]Rule{{Action: Rename, Match: "(.)_.*", To: "$1"}},
			"id! int, a_x string, a_y string", "1|x|y",
			`column rule 1: two columns are called "a": the source's "a_x" and the source's "a_y"`,
		},
		{
			"a constant of a name that is there",
			[]Rule{{Action: Constant, To: "a", Value: "x"}},
			"id! int, a string", "1|x",
			`column rule 1: two columns are called "a": the source's "a" and that of rule 1`,
		},
		{
			"a name that is too long",
			[]Rule{{Action: Rename, Match: "(a+)", To: "$1$1$1"}},
			"id! int, " + strings.Repeat("a", 60) + " string, " + strings.Repeat("a", 90) + " string", "1|x|y",
			`column rule 1: ` + quote(strings.Repeat("a", 90)) + ` would get a name of 270 bytes`,
		},
		{"a reserved name", []Rule{{Action: Rename, Match: "(.*)a", To: "_lak${1}"}}, "id! int, e_a string", "1|x", `column rule 1: "e_a" would be called "_lake_": names that begin with _lake_ are for metadata`},
		{"an empty name", []Rule{{Action: Rename, Match: "a(.*)", To: "$1"}}, "id! int, a string", "1|x", `column rule 1: "a" would get a name of 0 bytes`},
		{
			"a key column dropped",
			[]Rule{{Action: Drop, Match: "i.*"}},
			"id! int, a string", "1|x",
			`column rule 1: "id" is a key column and cannot be dropped: rows are found by it (hash keeps it secret)`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := shapeOf(t, c.shape)
			if got := outcome(t, Options{Rules: c.rules}, event(t, s, "", c.row)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestCompile: what is wrong with rules is said before the first event.
func TestCompile(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Rules: []Rule{{}}}, "column rule 1: no action"},
		{Options{Rules: []Rule{{Action: Drop}}}, "column rule 1: drop needs columns or match, one of them"},
		{Options{Rules: []Rule{{Action: Drop, Columns: []string{"a"}, Match: "a"}}}, "column rule 1: drop needs columns or match, one of them"},
		{Options{Rules: []Rule{{Action: Drop, Columns: []string{"a", "a"}}}}, `column rule 1: columns: "a" is empty or there twice`},
		{Options{Rules: []Rule{{Action: Drop, Match: "("}}}, "column rule 1: match: error parsing regexp: missing closing ): `^(?:()$`"},
		{Options{Rules: []Rule{{Action: Drop, Columns: []string{"a"}, To: "b", Value: "c", Type: "int"}}}, "column rule 1: drop has no to\ncolumn rule 1: drop has no value\ncolumn rule 1: drop has no type"},
		{Options{Rules: []Rule{{Action: Rename, Columns: []string{"a"}}}}, "column rule 1: rename needs to: the new name"},
		{Options{Rules: []Rule{{Action: Rename, Columns: []string{"a", "b"}, To: "c"}}}, `column rule 1: rename takes one column to one name, these are 2: ["a" "b"]`},
		{Options{Rules: []Rule{{Action: Rename, Match: "a.*", To: "c"}}}, `column rule 1: to "c" has no group of match, such as $1: all columns that match would get one name`},
		{Options{Rules: []Rule{{Action: Rename, Columns: []string{"a"}, To: "_lake_a"}}}, `column rule 1: to is "_lake_a": a name has at most 255 bytes, and does not begin with _lake_`},
		{Options{Rules: []Rule{{Action: Constant, To: "a", Value: "x", Type: "int"}}}, `column rule 1: value: "x" for an int: not a whole number`},
		{Options{Rules: []Rule{{Action: Constant, To: "a", Type: "text"}}}, `column rule 1: type is "text": want boolean, int, long, float, double, decimal(P,S), date, time, timestamp, timestamptz, string, uuid or binary`},
		{Options{Rules: []Rule{{Action: Constant, To: "a", Columns: []string{"b"}}}}, "column rule 1: constant adds a column: it has to, and neither columns nor match"},
		{Options{Rules: []Rule{{Action: Hash, Columns: []string{"a"}}}}, "column rule 1: hash needs salt: ${ENV} or ${file:PATH}"},
		{Options{Rules: []Rule{{Action: Hash, Columns: []string{"a"}, Salt: "hush"}}}, "column rule 1: salt has 4 bytes: at least 16, or values can be guessed"},
		{Options{Rules: []Rule{{Action: Truncate, Columns: []string{"a"}}}}, "column rule 1: truncate needs length: the characters to keep, at least 1"},
		{Options{Rules: []Rule{{Action: Truncate, Columns: []string{"a"}, Length: -1}}}, "column rule 1: truncate needs length: the characters to keep, at least 1"},
		{Options{Rules: []Rule{{Action: Cast, Columns: []string{"a"}}}}, "column rule 1: cast needs type"},
		{Options{Rules: []Rule{{Action: Cast, Columns: []string{"a"}, Type: "int8", Salt: "x", Length: 3}}}, "column rule 1: cast has no salt\ncolumn rule 1: cast has no length"},
		{Options{Rules: []Rule{{Action: Redact, Columns: []string{"a"}}}, Key: []string{"a"}}, "column rule 1: a is a key column: redact would make one row of several (hash keeps them apart)"},
		{Options{Rules: []Rule{{Action: Metadata}}}, "column rule 1: metadata needs columns: those to add, of " + strings.Join(MetadataColumns(), ", ")},
		{Options{Rules: []Rule{{Action: Metadata, Columns: []string{"_lake_before"}}}}, `column rule 1: columns: "_lake_before" is no metadata column: want ` + strings.Join(MetadataColumns(), ", ")},
		{Options{Rules: []Rule{{Action: Constant, To: "a"}, {Action: Constant, To: "a"}}}, `column rule 2: a rule before it makes a column a, too`},
		{Options{Rules: []Rule{{Action: Drop, Columns: []string{"a"}}}, Key: []string{"a"}}, "column rule 1: a is a key column and cannot be dropped: rows are found by it (hash keeps it secret)"},
		{Options{Rules: []Rule{{Action: Metadata, Columns: []string{"_lake_offset"}}}, Key: []string{"_lake_offset"}}, "column rule 1: _lake_offset cannot be a key column: a delete has another one than the row"},
		{Options{Rules: []Rule{{Action: Metadata, Columns: []string{"_lake_offset"}}}, NoKey: true, WholeRows: true}, "column rule 1: " + noWholeRows},
	} {
		if _, err := Compile(c.o); err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// TestImages: before images, keys, deletes and the other half of a key change go through the rules, too; only metadata are not in a before image.
func TestImages(t *testing.T) {
	s := shapeOf(t, "a string, id! int")
	o := Options{Rules: []Rule{{Action: Rename, Columns: []string{"id"}, To: "key"}, {Action: Drop, Columns: []string{"a"}}, {Action: Constant, To: "c", Value: "x"}, {Action: Metadata, Columns: []string{"_lake_op"}}}}
	a := compile(t, o).Applier()
	ev := event(t, s, "x|1", "y|1")
	if err := a.Event(ev, here); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{showShape(ev.Shape), "key! int, c string, _lake_op string"},
		{keyOf(ev), "key=1"},
		{show(ev.Shape.Columns, ev.Before, nil), "key=1 c=x _lake_op=null"},
		{show(ev.Shape.Columns, ev.After, nil), "key=1 c=x _lake_op=u"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %s, want %s", c[0], c[1])
		}
	}
	shape := ev.Shape
	ev = event(t, s, "x|2", "")
	ev.NewKey = []changelog.Value{{I: 3}}
	if err := a.Event(ev, here); err != nil {
		t.Fatal(err)
	}
	if ev.Shape != shape || keyOf(ev) != "key=2" || ev.After != nil || len(ev.NewKey) != 1 || ev.NewKey[0].I != 3 {
		t.Errorf("delete: the same shape %t, key %s, after %v, new key %v", ev.Shape == shape, keyOf(ev), ev.After, ev.NewKey)
	}
}

// TestMessageKeyDropped: where the route names the key, the message key's columns are columns as all others.
func TestMessageKeyDropped(t *testing.T) {
	s := shapeOf(t, "id! int, a string")
	ev := event(t, s, "", "1|x")
	o := Options{Rules: []Rule{{Action: Drop, Columns: []string{"id"}}}, Key: []string{"a"}}
	if err := compile(t, o).Applier().Event(ev, here); err != nil {
		t.Fatal(err)
	}
	if got := showShape(ev.Shape); got != "a string" || len(ev.Key) != 0 {
		t.Errorf("%s, key %v", got, ev.Key)
	}
	o.Rules[0] = Rule{Action: Drop, Match: "a"}
	if _, misfit := errors.AsType[*MisfitError](compile(t, o).Applier().Event(event(t, s, "", "1|x"), here)); !misfit {
		t.Error("the route's key column is dropped")
	}
}

// TestNaming: names of the table and of messages without a schema lead to each other.
func TestNaming(t *testing.T) {
	s := compile(t, Options{Rules: []Rule{
		{Action: Rename, Columns: []string{"a"}, To: "b"},
		{Action: Drop, Columns: []string{"d"}},
		{Action: Rename, Match: "x_(.*)", To: "y_$1"},
		{Action: Constant, To: "c", Value: "1"},
		{Action: Metadata, Columns: []string{"_lake_op"}},
	}})
	for _, c := range []struct{ source, target string }{{"a", "b"}, {"e", "e"}, {"x_y", "y_y"}, {"d", ""}} {
		if got := s.Target(c.source); got != c.target {
			t.Errorf("target of %s: %q", c.source, got)
		}
	}
	for _, c := range []struct {
		target, source string
		ok             bool
	}{{"b", "a", true}, {"e", "e", true}, {"c", "", false}, {"_lake_op", "", false}, {"a", "a", false}, {"d", "d", false}, {"y_y", "", false}} {
		if got, ok := s.Source(c.target); ok != c.ok || ok && got != c.source {
			t.Errorf("source of %s: %q, %t", c.target, got, ok)
		}
	}
}

// TestReports: what was reduced is told of columns by their new names, and not of dropped ones.
func TestReports(t *testing.T) {
	s := shapeOf(t, "id! int, a string, b string")
	ev := event(t, s, "", "1|x|y")
	ev.Reports = []decode.Report{{Column: "a", Reason: "r", Detail: "d"}, {Column: "b", Reason: "r"}, {Reason: "whole"}}
	o := Options{Rules: []Rule{{Action: Rename, Columns: []string{"a"}, To: "c"}, {Action: Drop, Columns: []string{"b"}}}}
	if err := compile(t, o).Applier().Event(ev, here); err != nil {
		t.Fatal(err)
	}
	if len(ev.Reports) != 2 || ev.Reports[0] != (decode.Report{Column: "c", Reason: "r", Detail: "d"}) || ev.Reports[1].Reason != "whole" {
		t.Errorf("%+v", ev.Reports)
	}
}

// TestNotes: what operators should know is told of the columns that are left, by their new names.
func TestNotes(t *testing.T) {
	s := shapeOf(t, "id! int, a string, b string")
	s.Notes = []decode.ColumnNote{{Column: "a", Note: decode.NoteNullDefault}, {Column: "b", Note: decode.NoteUnsent}}
	ev := event(t, s, "", "1|x|y")
	outcome(t, Options{Rules: []Rule{{Action: Rename, Columns: []string{"a"}, To: "c"}, {Action: Drop, Columns: []string{"b"}}}}, ev)
	if len(ev.Shape.Notes) != 1 || ev.Shape.Notes[0] != (decode.ColumnNote{Column: "c", Note: decode.NoteNullDefault}) {
		t.Errorf("%+v", ev.Shape.Notes)
	}
}

// TestRejectedKey: the key of a record that cannot be decoded is the table's.
func TestRejectedKey(t *testing.T) {
	s := shapeOf(t, "id! int")
	rejected := &decode.Rejected{KeyColumns: s.Columns, Key: []changelog.Value{{I: 5}}}
	compile(t, Options{Rules: []Rule{{Action: Rename, Columns: []string{"id"}, To: "key"}, {Action: Metadata, Columns: []string{"_lake_op"}}}}).Applier().Rejected(rejected)
	if len(rejected.Key) != 1 || rejected.Key[0].I != 5 || rejected.KeyColumns[0].Name != "key" {
		t.Errorf("%+v", rejected)
	}
}

// TestSortable: positions of a connector compare as texts.
func TestSortable(t *testing.T) {
	for _, c := range [][2]string{
		{"lsn:0/FFFFFFFF", "lsn:1/0"},
		{"lsn:0/9", "lsn:0/1A"},
		{"binlog:mysql-bin.000003/999", "binlog:mysql-bin.000003/1000"},
		{"gtid:0-1-9", "gtid:0-1-10"},
		{"gtid:aa:9", "gtid:aa:10"},
		{"scn:99", "scn:100"},
		{"commit-lsn:00:01", "commit-lsn:00:02"},
	} {
		a, b := string(appendSortable(nil, c[0])), string(appendSortable(nil, c[1]))
		if a >= b {
			t.Errorf("%s is not below %s", a, b)
		}
	}
}
