package columns

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest/decode"
)

// manyRules takes what any event has.
func manyRules() []Rule {
	return []Rule{
		{Action: Compute, To: "computed_", Type: "string", Expr: `name == null ? "" : name + string(size(name))`},
		{Action: Compute, To: "sum_", Type: "long", Expr: `id + id`},
		{Action: Hash, Match: "id|.*e", Salt: testSalt},
		{Action: Cast, Match: "v|.*[sn]", Type: "string"},
		{Action: Redact, Match: ".*t"},
		{Action: Rename, Match: "(.)(.*)", To: "$2_$1"},
		{Action: Drop, Match: "_[a-c]"},
		{Action: Constant, To: "k", Value: "1", Type: "int"},
		{Action: Metadata, Columns: MetadataColumns()},
	}
}

// FuzzRules: rules never panic, whatever an event is, and give an event that a table can be planned for and a row written of, or say why not;
// the same event gives the same.
func FuzzRules(f *testing.F) {
	files, err := filepath.Glob("../decode/testdata/debezium/*.jsonl")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		addSamples(f, name)
	}
	all, err := Compile(Options{Rules: manyRules()})
	if err != nil {
		f.Fatal(err)
	}
	none, err := Compile(Options{Rules: manyRules(), NoKey: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, set := range []*Set{all, none} {
			o := decode.Options{Identity: decode.IdentityFull, NoKey: set == none}
			a, d := set.Applier(), decode.New(o)
			d.SetNaming(set)
			first := ruledOnce(t, a, d, key, value)
			if again := ruledOnce(t, a, d, key, value); again != first {
				t.Fatalf("first %s\nthen  %s", first, again)
			}
		}
	})
}

// TestSamples holds the seeds of FuzzRules to be worth something: rules apply to most of the sample events.
func TestSamples(t *testing.T) {
	set := compile(t, Options{Rules: manyRules()})
	a, d := set.Applier(), decode.New(decode.Options{Identity: decode.IdentityFull})
	outcomes := map[string]int{}
	for key, value := range samples(t, "../decode/testdata/debezium/types.jsonl") {
		outcome, _, _ := strings.Cut(ruledOnce(t, a, d, []byte(key), []byte(value)), ":")
		if len(outcome) > 20 {
			outcome = "row"
		}
		outcomes[outcome]++
	}
	if outcomes["row"] < 100 {
		t.Errorf("%v", outcomes)
	}
}

func addSamples(f *testing.F, name string) {
	f.Helper()
	for key, value := range samples(f, name) {
		f.Add([]byte(key), []byte(value))
	}
}

// samples yields the keys and values of a recording that are text.
func samples(t testing.TB, name string) iter.Seq2[string, string] {
	t.Helper()
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, string) bool) {
		for line := range bytes.Lines(file) {
			var l struct{ Key, Value string }
			if json.Unmarshal(line, &l) == nil && len(l.Value) < 64<<10 && !yield(l.Key, l.Value) {
				return
			}
		}
	}
}

func ruledOnce(t *testing.T, a *Applier, d *decode.Decoder, key, value []byte) string {
	t.Helper()
	if len(key) == 0 {
		key = nil
	}
	ev, err := d.Decode(decode.Record{Topic: "a.b.c", Key: key, Value: value})
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		a.Rejected(rejected)
		if len(rejected.Key) != len(rejected.KeyColumns) {
			t.Fatalf("%d key values, %d columns", len(rejected.Key), len(rejected.KeyColumns))
		}
		return err.Error()
	}
	if err != nil || ev.Kind != decode.Change {
		return "skipped"
	}
	if err := a.Event(ev, here); err != nil {
		_, rejected := errors.AsType[*decode.Rejected](err)
		if !rejected && Misfit(err) == nil {
			t.Fatal(err)
		}
		return err.Error()
	}
	m, s, err := decode.Plan(nil, ev.Shape, decode.PlanOptions{})
	if err != nil {
		return err.Error()
	}
	text := string(m.Key(nil, ev.Key))
	for _, image := range [][]changelog.Value{ev.Before, ev.After} {
		if image == nil {
			continue
		}
		if len(image) != len(ev.Shape.Columns) {
			t.Fatalf("%d values, %d columns", len(image), len(ev.Shape.Columns))
		}
		row := m.Row(nil, image)
		if _, err := changelog.AppendValues(nil, s, row); err != nil {
			t.Fatal(err)
		}
		text += string(row)
		for i, o := range ev.Shape.Key {
			if v, k := image[o], ev.Key[i]; len(ev.After) > 0 && &image[0] == &ev.After[0] && (v.I != k.I || string(v.B) != string(k.B)) {
				t.Fatalf("key column %s is %+v in the key, %+v in the row", ev.Shape.Columns[o].Name, k, v)
			}
		}
	}
	return text
}
