package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

// emptyServer is a server with an empty data directory and the lake of b, as far as restoring goes.
func emptyServer(t *testing.T, b *badLake) *server {
	t.Helper()
	o := logstore.Options{MinFreeBytes: -1, MemoryBytes: 32 << 20, TrimInterval: -1}
	s := &server{parts: parts{cfg: defaultConfig(), log: defaultConfig().newLogger(nil, t.Output()), catalog: b.catalog}}
	s.cfg.Sources = []SourceConfig{{Name: "shop"}}
	var err error
	s.db, err = openData(filepath.Join(t.TempDir(), "data"), o)
	b.must(err)
	s.registry, err = state.OpenRegistry(s.db.DB)
	b.must(err)
	s.store, err = logstore.Open(s.db, s.registry, o)
	b.must(err)
	t.Cleanup(func() { b.must(errors.Join(s.store.Close(), s.db.Close())) })
	return s
}

// half makes a table of which the change store is missing.
func (b *badLake) half(name string, used bool) {
	b.t.Helper()
	tbl, err := b.catalog.Create(b.t.Context(), "shop."+name, b.schema(), nil)
	b.must(err)
	if used {
		_, err := tbl.ClaimEpoch(b.t.Context(), "somebody", 0)
		b.must(err)
	}
	b.row(`DELETE FROM iceberg_tables WHERE table_name = ?`, name+"_change_")
}

// TestRestoreLeavesOut (P4): half tables, and tables of others that firn cannot take, do not keep a server with a lost data directory from
// bringing back its own.
func TestRestoreLeavesOut(t *testing.T) {
	b := newBadLake(t)
	b.half("half", false)
	b.half("used", true)
	for _, name := range []string{"v3", "cut"} {
		_, err := b.catalog.Create(t.Context(), "shop."+name, b.schema(), nil)
		b.must(err)
	}
	v3, err := b.catalog.Load(t.Context(), "shop.v3")
	b.must(err)
	text, err := os.ReadFile(localPath(v3.Base().MetadataLocation()))
	b.must(err)
	at := filepath.Join(localPath(v3.Base().Location()), "metadata", "00001-v3.metadata.json")
	b.must(os.WriteFile(at, []byte(strings.Replace(string(text), `"format-version":2`, `"format-version":3,"next-row-id":0`, 1)), 0o600))
	b.row(`UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = 'v3'`, "file://"+at)
	cut, err := b.catalog.Load(t.Context(), "shop.cut")
	b.must(err)
	at = filepath.Join(localPath(cut.Base().Location()), "metadata", "00001-cut.metadata.json")
	b.must(os.WriteFile(at, []byte("{"), 0o600))
	b.row(`UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = 'cut'`, "file://"+at)

	s := emptyServer(t, b)
	before := b.everything()
	b.must(s.restoreTables(t.Context()))
	for name := range before {
		if b.everything()[name] != before[name] {
			t.Errorf("%s was written or removed", name)
		}
	}
	tables := s.registry.Tables()
	if len(tables) != 1 || tables[0].Name != "shop.orders" {
		t.Fatalf("restored %v", tables)
	}
	schema := b.schema()
	for id, want := range map[int64]bool{1: true, 3: false, 12: true} {
		v, err := s.store.RowNow(t.Context(), tables[0].ID, schema.KeyOf(nil, []changelog.Value{{I: id}, {B: []byte("eu")}, changelog.NullValue}))
		if err != nil || v.Found != want {
			t.Errorf("row %d: %v, %v", id, v.Found, err)
		}
	}
	p, err := s.registry.Progress(tables[0].ID)
	if err != nil || p.Rebuilding || p.Flushed != 17 {
		t.Errorf("progress %+v, %v", p, err)
	}

	// Whose flusher meets half a table makes it whole, if it was never used, and else says what to do.
	set, err := flush.New(s.store, s.registry, s.catalog, flush.Options{})
	b.must(err)
	for name, used := range map[string]bool{"shop.half": false, "shop.used": true} {
		entry, err := s.registry.Create(t.Context(), name, schema, state.TopicRef{Source: "shop", Topic: name}, nil)
		b.must(err)
		values := []changelog.Value{{I: 1}, {B: []byte("eu")}, {B: []byte{1}}}
		_, err = s.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: entry.ID, Changes: []changelog.Change{{
			Op: changelog.OpCreate, Key: schema.KeyOf(nil, values), After: changelog.AppendRow(nil, schema, values),
			Position: changelog.Position{Source: "shop", Topic: name},
		}}}}})
		b.must(err)
		f, err := set.Flusher(entry.ID)
		b.must(err)
		_, err = f.Flush(t.Context())
		tbl, load := b.catalog.Load(t.Context(), name)
		switch {
		case used && (!errors.Is(err, table.ErrHalf) || !strings.Contains(err.Error(), "register it again") || !errors.Is(load, table.ErrHalf)):
			t.Errorf("%s: %v, %v", name, err, load)
		case !used && (err != nil || load != nil):
			t.Errorf("%s: %v, %v", name, err, load)
		case !used && tbl.Change().SnapshotID() == 0:
			t.Errorf("%s: nothing is flushed", name)
		}
	}
}

// TestRestoreStopsAtOwn: a table that this directory was bringing back, and that cannot be read now, stops the start.
func TestRestoreStopsAtOwn(t *testing.T) {
	b := newBadLake(t)
	s := emptyServer(t, b)
	r, ok, err := flush.Restore(t.Context(), b.lake)
	if err != nil || !ok {
		t.Fatal(err)
	}
	_, err = s.registry.Restore(t.Context(), r.Table, r.Progress, r.Positions)
	b.must(err)
	b.must(os.Truncate(localPath(b.lake.Base().MetadataLocation()), 10))
	s.catalog, err = table.Open(t.Context(), table.Options{URI: b.uri(), Warehouse: filepath.Join(b.dir, "lake")}) // that has loaded nothing yet
	b.must(err)
	defer s.catalog.Close()
	if err := s.restoreTables(t.Context()); !errors.Is(err, table.ErrCorrupt) || !strings.Contains(err.Error(), "shop.orders") {
		t.Errorf("got %v", err)
	}
}

// TestWarnPartitions: a table that was made with other partitions than the configuration has now is named at the start, with both; others are not.
func TestWarnPartitions(t *testing.T) {
	b := newBadLake(t)
	s := emptyServer(t, b)
	var said strings.Builder
	s.log = slog.New(slog.NewTextHandler(&said, nil))
	s.cfg.Tables.Defaults.Partition = []string{"bucket(4, id)"}
	for name, terms := range map[string][]string{"shop.same": {"bucket(4, id)"}, "shop.fewer": {"bucket(2, id)"}, "shop.none": nil} {
		spec, err := changelog.ParsePartition(terms)
		b.must(err)
		_, err = s.registry.CreatePartitioned(t.Context(), name, b.schema(), spec, state.TopicRef{Source: "shop", Topic: name}, nil)
		b.must(err)
	}
	s.warnPartitions()
	text := said.String()
	if strings.Count(text, "level=WARN") != 2 || strings.Contains(text, "shop.same") ||
		!strings.Contains(text, `table=shop.fewer partition="bucket(2, id)" configured="bucket(4, id)"`) || !strings.Contains(text, `table=shop.none partition="" configured="bucket(4, id)"`) {
		t.Error(text)
	}
}
