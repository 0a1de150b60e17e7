package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
)

// expectedTable is a table of stream_2000.expected.json.
type expectedTable struct {
	Key     []string
	Columns []struct {
		Name         string
		Type         string
		Required     bool
		SourceColumn string            `json:"source_column"`
		ConnectType  string            `json:"connect_type"`
		ConnectName  string            `json:"connect_name"`
		Parameters   map[string]string `json:"parameters"`
	}
	Rows []json.RawMessage
}

func expectedStream(t testing.TB) map[string]expectedTable {
	t.Helper()
	b, err := os.ReadFile(samples + "stream_2000.expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Tables map[string]expectedTable }
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e.Tables
}

// hints are the schemas of the columns as a decoder is given them.
func (e expectedTable) hints(t testing.TB) []Hint {
	t.Helper()
	var hints []Hint
	for _, c := range e.Columns {
		s := map[string]any{"type": c.ConnectType, "optional": true}
		if c.ConnectName != "" {
			s["name"] = c.ConnectName
		}
		if c.Parameters != nil {
			s["parameters"] = c.Parameters
		}
		if element, ok := strings.CutPrefix(c.Type, "list<"); ok {
			s["items"] = map[string]any{"type": strings.TrimSuffix(element, ">"), "optional": true}
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		hints = append(hints, Hint{c.SourceColumn, b})
	}
	return hints
}

// TestStream: the generated stream gives the rows and types expected, with and without schemas (T5).
func TestStream(t *testing.T) {
	expected := expectedStream(t)
	for _, c := range []struct {
		file    string
		options func(table string) Options
	}{
		{"stream_2000.jsonl.gz", func(table string) Options { return Options{Format: FormatPlain, Hints: expected[table].hints(t)} }},
		{"stream_2000_schema.jsonl.gz", func(string) Options { return Options{Format: FormatSchema} }},
	} {
		t.Run(c.file, func(t *testing.T) {
			l := newLake(t, c.options)
			lines := readLines(t, samples+c.file)
			for _, r := range lines {
				l.apply(r.Record)
			}
			for name, e := range expected {
				var rows []any
				for _, r := range e.Rows {
					rows = append(rows, parse(t, r))
				}
				l.compare(name, rows)
				schema := l.tables[name].history.Current()
				for _, column := range e.Columns {
					o := schema.Ordinal(column.Name)
					if o < 0 {
						t.Errorf("%s.%s: no such column", name, column.Name)
						continue
					}
					got := schema.Columns[o]
					if got.Type.String() != column.Type || got.Required != column.Required {
						t.Errorf("%s.%s: %s, required %v; want %s, %v", name, column.Name, got.Type, got.Required, column.Type, column.Required)
					}
				}
				if got := fmt.Sprint(schema.KeyNames()); got != fmt.Sprint(e.Key) {
					t.Errorf("%s: key %s, want %s", name, got, e.Key)
				}
			}
			if want := repeats(lines); len(l.rejected) != 0 || l.replays != want || want < 50 {
				t.Errorf("rejected %v, replays %d, want %d", l.rejected, l.replays, want)
			}
		})
	}
}

// repeats counts the streaming changes that are in a recording twice, but for the connector's own times.
func repeats(lines []line) int {
	times := regexp.MustCompile(`"ts_ms":\d+,"ts_us":\d+,"ts_ns":\d+\}+$`)
	seen := map[string]bool{}
	n := 0
	for _, l := range lines {
		if !bytes.Contains(l.Value, []byte(`"snapshot":"false"`)) || bytes.Contains(l.Value, []byte(`"op":"m"`)) {
			continue
		}
		k := l.Topic + " " + string(l.Key) + " " + string(times.ReplaceAll(l.Value, nil))
		if seen[k] {
			n++
		}
		seen[k] = true
	}
	return n
}

// TestSamples: the sample files decode without a rejection (T1). Those of other shapes and encodings have tests
// of their own: flattened, cloudevents, outbox, mongodb and wire_avro.
func TestSamples(t *testing.T) {
	for file, want := range map[string]map[Kind]int{
		"postgres":            {Change: 10, Truncate: 1, Tombstone: 2, Message: 1, Heartbeat: 1, Transaction: 2},
		"postgres_schemaless": {Change: 10, Truncate: 1, Tombstone: 2, Message: 1, Heartbeat: 1, Transaction: 2},
		"mysql":               {Change: 9, Truncate: 1, Tombstone: 2, Heartbeat: 1, Transaction: 2, SchemaChange: 1},
		"mariadb":             {Change: 9, Truncate: 1, Tombstone: 2, Heartbeat: 1, Transaction: 2, SchemaChange: 1},
		"sqlserver":           {Change: 7, Tombstone: 2, Heartbeat: 1, Transaction: 2, SchemaChange: 1},
		"oracle":              {Change: 6, Truncate: 1, Tombstone: 1, Heartbeat: 1, Transaction: 2},
	} {
		l := newLake(t, func(string) Options { return Options{} })
		for _, r := range readLines(t, samples+file+".jsonl") {
			l.apply(r.Record)
		}
		if len(l.rejected) != 0 {
			t.Errorf("%s: rejected %v", file, l.rejected)
		}
		if !maps.Equal(l.kinds, want) {
			t.Errorf("%s: kinds %v, want %v", file, l.kinds, want)
		}
	}
}
