package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
)

func TestHintsFile(t *testing.T) {
	dir := t.TempDir()
	read := func(text string) (string, error) {
		path := filepath.Join(dir, "hints.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		hints, err := readHints(path)
		var all []string
		for table, list := range hints {
			for _, h := range list {
				all = append(all, fmt.Sprintf("%s:%s=%s", table, h.Column, h.Schema))
			}
		}
		return strings.Join(all, " "), err
	}
	for text, want := range map[string]string{
		`{"a":{"type":"int32"}}`:                       `:a={"type":"int32"}`,
		`{"a":[{"type":"int32"},{"type":"string"}]}`:   `:a={"type":"int32"} :a={"type":"string"}`,
		`{"t":{"a":{"type":"int32"}}}`:                 `t:a={"type":"int32"}`,
		`{"t":{"type":{"type":"int32"}}}`:              `t:type={"type":"int32"}`, // a table with a column of that name
		`{"t":{"b":[{"type":"int32"}]}, "u":{"c":[]}}`: `error: column "c" of "u"`,
		`{"a":7}`:               `error: "a" is no schema`,
		`{"a":{"type":"odd"}}`:  `error: column "a"`,
		`{"t":{"a":7}}`:         `error: column "a" of "t"`,
		`[]`:                    `error: hints.json`,
		`{"a":{"type":"int32"}`: `error: hints.json`,
	} {
		got, err := read(text)
		if why, bad := strings.CutPrefix(want, "error: "); bad {
			if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), dir+"/", ""), why) {
				t.Errorf("%s: %v, want %s", text, err, why)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	if _, err := readHints(filepath.Join(dir, "nope")); err == nil {
		t.Error("a file that is not there")
	}
}

// TestHints: a route's own hints count, the source's for the rest; tables are told apart.
func TestHints(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"all.json": `{"t":{"v":{"type":"int32","name":"io.debezium.time.Date"}},"u":{"v":{"type":"int64","name":"io.debezium.time.MicroTimestamp"}}}`,
		"w.json":   `{"v":{"type":"bytes"}}`,
		"events.jsonl": `{"topic":"x.t","partition":0,"offset":0,"key":"{\"id\":1}","value":"{\"before\":null,\"after\":{\"id\":1,\"v\":20000},\"source\":{\"connector\":\"postgresql\",\"name\":\"n\",\"lsn\":1,\"table\":\"t\"},\"op\":\"c\"}"}
{"topic":"x.u","partition":0,"offset":0,"key":"{\"id\":1}","value":"{\"before\":null,\"after\":{\"id\":1,\"v\":1000000},\"source\":{\"connector\":\"postgresql\",\"name\":\"n\",\"lsn\":2,\"table\":\"u\"},\"op\":\"c\"}"}
{"topic":"x.w","partition":0,"offset":0,"key":"{\"id\":1}","value":"{\"before\":null,\"after\":{\"id\":1,\"v\":\"AP8=\"},\"source\":{\"connector\":\"postgresql\",\"name\":\"n\",\"lsn\":3,\"table\":\"w\"},\"op\":\"c\"}"}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "firn.yaml")
	text := fmt.Sprintf(`
data: %[1]s/data
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
sources:
  - name: s
    hints: %[1]s/all.json
    file: {path: %[1]s/events.jsonl}
    routes: [{topic: 'x\.w', table: x.w, hints: %[1]s/w.json}]
`, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := openTestParts(t, config)
	in, err := newInput(must(loadConfig(config)).Sources[0], "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	log := ingestLog{Store: p.store, stopped: func(changelog.TableID) error { return nil }}
	tables := ingestTables{registry: p.registry, settings: must(loadConfig(config)).Table, parked: must(loadConfig(config)).parkedTableOf, lake: p.catalog, log: slog.New(slog.DiscardHandler)}
	pipeline, err := ingest.New(log, tables, []ingest.Input{in}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pipeline.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"x.t": "date", "x.u": "timestamp", "x.w": "binary"} {
		table, ok := p.registry.Table(name)
		if !ok {
			t.Fatalf("no table %s", name)
		}
		s := table.Schemas.Current()
		if got := s.Columns[s.Ordinal("v")].Type.String(); got != want {
			t.Errorf("%s: v is %s, want %s", name, got, want)
		}
	}
	bad := strings.Replace(text, "w.json", "nope.json", 1)
	if _, err := parseConfig("firn.yaml", []byte(bad)); err == nil || !strings.Contains(err.Error(), "hints: open ") {
		t.Errorf("%v", err)
	}
}
