package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/ingest"
	"firn/ingest/decode"
	"firn/logstore"
	"firn/optimizer"
	"firn/state"
)

// TestKeyWidens: a wider key column is refused as long as files of the table are placed by the narrower one's hash. Where all are of the
// root it is taken, all files after it are of the root, too, and its rows replace those of before, negative keys included.
func TestKeyWidens(t *testing.T) {
	for name, target := range map[string]int64{"base files of the root": 0, "base files of several nodes": 1000} {
		t.Run(name, func(t *testing.T) { keyWidens(t, target) })
	}
}

func keyWidens(t *testing.T, target int64) {
	dir := t.TempDir()
	catalog := must(table.Open(t.Context(), table.Options{URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "lake")}))
	defer catalog.Close()
	o := logstore.Options{FS: vfs.NewMem(), MemoryBytes: 16 << 20, MinFreeBytes: -1, TrimInterval: -1}
	db := must(logstore.OpenDB("data", o))
	defer db.Close()
	registry := must(state.OpenRegistry(db.DB))
	store := must(logstore.Open(db, registry, o))
	defer store.Close()
	narrow := must(changelog.NewSchema([]changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Int)}}, []string{"id"}))
	tables := ingestTables{registry: registry, settings: func(string) TableConfig { return TableConfig{} }, lake: catalog, log: slog.New(slog.DiscardHandler)}
	made := must(tables.Create(t.Context(), "shop.t", narrow, ingest.Topic{Source: "s", Topic: "t"}))
	put := func(ids ...int64) {
		t.Helper()
		a := changelog.TableAppend{Table: made.ID}
		entry, _ := registry.ByID(made.ID)
		s := entry.Schemas.Current()
		for _, id := range ids {
			v := []changelog.Value{{I: id}}
			a.Changes = append(a.Changes, changelog.Change{Op: changelog.OpCreate, Key: s.KeyOf(nil, v), After: changelog.AppendRow(nil, s, v)})
		}
		must(store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{a}}))
	}
	flusher := must(must(flush.New(store, registry, catalog, flush.Options{BucketRows: 1, Buckets: 4})).Flusher(made.ID))
	round := func(r optimizer.Rules) {
		t.Helper()
		opt := must(optimizer.New(catalog, registry, optimizer.Options{Rules: r}))
		must(opt.Once(t.Context(), "shop.t", optimizer.Minor, false))
	}
	wide := must(narrow.Evolve(nil, map[string]*changelog.Type{"id": changelog.Primitive(changelog.Long)}))
	refused := func(when string) {
		t.Helper()
		_, err := tables.AddSchema(t.Context(), made.ID, wide)
		rejected, ok := errors.AsType[*decode.Rejected](err)
		if !ok || rejected.Reason != decode.ReasonKeyColumnsChanged || !strings.Contains(rejected.Detail, mixed.PropBaseBuckets) {
			t.Fatalf("%s: %v", when, err)
		}
	}
	put(-7, -6, -5, 1, 2, 3)
	must(flusher.Flush(t.Context()))
	refused("change files in four nodes")
	round(optimizer.Rules{TargetBytes: target}) // from here on the change files are merged
	if target > 0 {
		refused("base files in four nodes")
		return
	}
	put(-7)
	must(tables.AddSchema(t.Context(), made.ID, wide))
	put(-6, 4)
	must(flusher.Flush(t.Context()))
	round(optimizer.Rules{})
	var rows int64
	for _, f := range must(must(catalog.Load(t.Context(), "shop.t")).Base().Files(t.Context())) {
		if f.Info.Node.Mask != 0 {
			t.Errorf("%s is not of the root", f.Path)
		}
		if f.Content == table.Data {
			rows += f.Records
		} else {
			rows -= f.Records
		}
	}
	if rows != 7 {
		t.Errorf("%d rows, want 7", rows)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
