package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	for name, buckets := range map[string]int{"base files of the root": 1, "base files of several nodes": 4} {
		t.Run(name, func(t *testing.T) { keyWidens(t, buckets) })
	}
}

// widenRig is a table of one int key, with all that writes its files.
type widenRig struct {
	t        *testing.T
	hook     table.Hook // of all commits; nil: they go through
	catalog  *table.Catalog
	registry *state.Registry
	store    *logstore.Store
	tables   ingestTables
	id       changelog.TableID
	wide     *changelog.Schema // the next one
}

func newWidenRig(t *testing.T) *widenRig {
	t.Helper()
	r := &widenRig{t: t}
	dir := t.TempDir()
	r.catalog = must(table.Open(t.Context(), table.Options{
		URI: filepath.Join(dir, "catalog.db"), Warehouse: filepath.Join(dir, "lake"),
		Hook: func(ctx context.Context, a table.Attempt, commit func() error) error {
			if r.hook != nil && a.ID != "" {
				return r.hook(ctx, a, commit)
			}
			return commit()
		},
	}))
	t.Cleanup(func() { _ = r.catalog.Close() })
	o := logstore.Options{FS: vfs.NewMem(), MemoryBytes: 16 << 20, MinFreeBytes: -1, TrimInterval: -1}
	db := must(logstore.OpenDB("data", o))
	t.Cleanup(func() { _ = db.Close() })
	r.registry = must(state.OpenRegistry(db.DB))
	r.store = must(logstore.Open(db, r.registry, o))
	t.Cleanup(func() { _ = r.store.Close() })
	narrow := must(changelog.NewSchema([]changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Int)}}, []string{"id"}))
	r.wide = must(narrow.Evolve(nil, map[string]*changelog.Type{"id": changelog.Primitive(changelog.Long)}))
	r.tables = ingestTables{
		registry: r.registry, parked: defaultConfig().parkedTableOf, settings: func(string) TableConfig { return TableConfig{} }, lake: r.catalog, log: slog.New(slog.DiscardHandler),
	}
	r.id = must(r.tables.Create(t.Context(), "shop.t", narrow, ingest.Topic{Source: "s", Topic: "t"})).ID
	return r
}

func (r *widenRig) put(ids ...int64) {
	r.t.Helper()
	a := changelog.TableAppend{Table: r.id}
	entry, _ := r.registry.ByID(r.id)
	s := entry.Schemas.Current()
	for _, id := range ids {
		v := []changelog.Value{{I: id}}
		a.Changes = append(a.Changes, changelog.Change{Op: changelog.OpCreate, Key: s.KeyOf(nil, v), After: changelog.AppendRow(nil, s, v)})
	}
	must(r.store.Append(r.t.Context(), changelog.Append{Tables: []changelog.TableAppend{a}}))
}

// flusher returns one that spreads batches of so many rows over four nodes.
func (r *widenRig) flusher(rows int) *flush.Flusher {
	r.t.Helper()
	return must(must(flush.New(r.store, r.registry, r.catalog, flush.Options{BucketRows: rows, Buckets: 4})).Flusher(r.id))
}

func (r *widenRig) minor(rules optimizer.Rules) { r.t.Helper(); r.optimize(rules, optimizer.Minor) }

func (r *widenRig) optimize(rules optimizer.Rules, kind optimizer.Type) {
	r.t.Helper()
	opt := must(optimizer.New(r.catalog, r.registry, optimizer.Options{Rules: rules}))
	must(opt.Once(r.t.Context(), "shop.t", kind, false))
}

func (r *widenRig) refused(when string, err error) {
	r.t.Helper()
	rejected, ok := errors.AsType[*decode.Rejected](err)
	if !ok || rejected.Reason != decode.ReasonKeyColumnsChanged || !strings.Contains(rejected.Detail, mixed.PropBaseBuckets) {
		r.t.Fatalf("%s: %v", when, err)
	}
}

// TestKeyWidensBeside: a wider key column waits for a flush, a merge and a rewrite that are under way, and is refused when they have
// placed files by the narrower one's hash.
func TestKeyWidensBeside(t *testing.T) {
	for _, name := range []string{"flush", "merge", "rewrite"} {
		t.Run(name, func(t *testing.T) {
			r, merging := newWidenRig(t), name != "flush"
			work := func() { must(r.flusher(1).Flush(t.Context())) }
			for id := range int64(1000) {
				r.put(id)
			}
			if merging { // of files of the root
				must(r.flusher(10_000).Flush(t.Context()))
				work = func() { r.minor(optimizer.Rules{TargetBytes: 1000}) }
			}
			if name == "rewrite" {
				r.minor(optimizer.Rules{Buckets: 1})
				work = func() { r.optimize(optimizer.Rules{Buckets: 4}, optimizer.Major) }
			}
			answer, began := make(chan error, 1), false
			r.hook = func(_ context.Context, a table.Attempt, commit func() error) error {
				if !began && (a.Store == mixed.StoreBase) == merging {
					began = true
					go func() {
						_, err := r.tables.AddSchema(t.Context(), r.id, r.wide)
						answer <- err
					}()
					select {
					case err := <-answer:
						answer <- err
						t.Errorf("answered beside a commit under way: %v", err)
					case <-time.After(100 * time.Millisecond): // that it waits shows in nothing else
					}
				}
				return commit()
			}
			work()
			if !began {
				t.Fatal("there was no commit")
			}
			r.refused("after the "+name, <-answer)
		})
	}
}

// TestKeyWidensFirst: a rewrite that was planned over several nodes when the key's type was narrower leaves its rows at the root.
func TestKeyWidensFirst(t *testing.T) {
	r := newWidenRig(t)
	for id := range int64(100) {
		r.put(-id)
	}
	must(r.flusher(10_000).Flush(t.Context()))
	r.minor(optimizer.Rules{Buckets: 1})
	release := must(r.registry.HoldPlacing(t.Context(), r.id))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.optimize(optimizer.Rules{Buckets: 4}, optimizer.Major)
	}()
	select {
	case <-done:
		t.Fatal("it did not wait")
	case <-time.After(100 * time.Millisecond): // planned, and waiting: that shows in nothing else
	}
	must(r.registry.AddSchema(t.Context(), r.id, r.wide))
	release()
	<-done
	for _, f := range must(must(r.catalog.Load(t.Context(), "shop.t")).Base().Files(t.Context())) {
		if f.Info.Node.Mask != 0 {
			t.Errorf("%s is not of the root", f.Path)
		}
	}
}

func keyWidens(t *testing.T, buckets int) {
	r := newWidenRig(t)
	flusher := r.flusher(1)
	refused := func(when string) {
		t.Helper()
		_, err := r.tables.AddSchema(t.Context(), r.id, r.wide)
		r.refused(when, err)
	}
	put, round := r.put, r.minor
	put(-7, -6, -5, 1, 2, 3)
	must(flusher.Flush(t.Context()))
	refused("change files in four nodes")
	round(optimizer.Rules{Buckets: buckets}) // from here on the change files are merged
	if buckets > 1 {
		refused("base files in four nodes")
		return
	}
	put(-7)
	must(r.tables.AddSchema(t.Context(), r.id, r.wide))
	put(-6, 4)
	must(flusher.Flush(t.Context()))
	round(optimizer.Rules{})
	var rows int64
	for _, f := range must(must(r.catalog.Load(t.Context(), "shop.t")).Base().Files(t.Context())) {
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
