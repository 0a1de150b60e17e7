package table

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/rowjson"
)

// TestForeignTables reads the files of tables that another writer made, by the newest schema of each: native tables without deletes
// in the namespace peer of a SQLite catalog, as deploy/peers/javaiceberg/types leaves them in the directory FIRN_PEER_TYPES, with the
// rows that are in them (NAME.jsonl).
func TestForeignTables(t *testing.T) {
	dir := os.Getenv("FIRN_PEER_TYPES")
	if dir == "" {
		t.Skip("FIRN_PEER_TYPES does not name a directory of deploy/peers/javaiceberg/types")
	}
	c, err := Open(t.Context(), Options{Type: "sqlite", Name: "firn", URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "warehouse")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expected, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(expected) == 0 {
		t.Fatal(expected, err)
	}
	for _, file := range expected {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		t.Run(name, func(t *testing.T) {
			have, err := c.backend.load(t.Context(), ident{"peer", name})
			if err != nil {
				t.Fatal(err)
			}
			if name == "types_evolved_v3" {
				t.Skip("columns with defaults are of format v3")
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			schema, err := changelogSchema(have.metadata.CurrentSchema(), nil)
			if err != nil {
				t.Fatal(err)
			}
			schema.ID = 0
			var lines []string
			for e, err := range c.entries(t.Context(), have.metadata.CurrentSnapshot(), nil) {
				if err != nil {
					t.Fatal(err)
				}
				lines = append(lines, foreignRows(t, e.DataFile().FilePath(), schema)...)
			}
			slices.Sort(lines)
			if got := strings.Join(lines, ""); got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func foreignRows(t *testing.T, path string, s *changelog.Schema) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(strings.TrimPrefix(path, "file:"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := datafile.Open(bytes.NewReader(b), int64(len(b)), s, false, datafile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	e, err := rowjson.NewEncoder(changelog.Schemas{s}, rowjson.Options{Sorted: true})
	if err != nil {
		t.Fatal(err)
	}
	rows := datafile.NewRows(s)
	for batch, err := range r.Batches(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if err := rows.Reset(batch); err != nil {
			t.Fatal(err)
		}
		for i := range rows.Len() {
			line, err := e.AppendRow(nil, rows.AppendRow(nil, i))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(line)+"\n")
		}
	}
	return lines
}
