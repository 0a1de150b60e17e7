package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/optimizer"
)

// badLake is a good lake with the table shop.orders, base rows, merged and pending change files, that a test is to damage.
type badLake struct {
	*shopRig
	lake  *table.Table
	files int
}

// newBadLake stops firn before it returns: what follows is done to a lake at rest.
func newBadLake(t *testing.T) *badLake {
	t.Helper()
	r := newShopRig(t)
	r.fill()
	if code, _, errText := r.firn("", "optimize", "shop.orders", "--type", "minor", "--catalog-uri", r.uri()); code != 0 {
		t.Fatal(errText)
	}
	r.put(9, 11, 12)
	r.flush()
	b := &badLake{shopRig: r}
	b.close()
	var err error
	cfg, err := (CatalogConfig{Type: "sqlite", Name: "firn", URI: b.uri()}).readable()
	b.must(err)
	b.catalog, err = openCatalog(t.Context(), cfg, slog.New(slog.DiscardHandler))
	b.must(err)
	t.Cleanup(func() { b.must(b.catalog.Close()) })
	b.lake, err = b.catalog.Load(t.Context(), "shop.orders")
	b.must(err)
	return b
}

// write writes rows of region eu to a store in a file of any name; s is the schema of the file, offset whether it has offsets.
func (b *badLake) write(st *table.Store, name string, s *changelog.Schema, offset bool, ids ...int64) table.NewFile {
	b.t.Helper()
	out, err := b.catalog.FS().Create(st.DataPath(name))
	b.must(err)
	w, err := datafile.NewWriter(out, s, offset, datafile.Options{})
	b.must(err)
	for i, id := range ids {
		values := []changelog.Value{{I: id}, {B: []byte("eu")}, {B: []byte{7}}}
		for len(values) < len(s.Columns) {
			values = append(values, changelog.NullValue)
		}
		b.must(w.WriteValues(values, 100+int64(i)))
	}
	written, err := w.Close()
	b.must(err)
	b.must(out.Commit())
	return table.NewFile{Path: st.DataPath(name), Schema: s, Offset: offset, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
}

// change commits a file to the change store.
func (b *badLake) change(f table.NewFile) {
	b.t.Helper()
	b.files++
	mark, _, err := b.lake.LastCommit()
	b.must(err)
	mark.CommitID, mark.From, mark.To = fmt.Sprint("bad-", b.files), mark.To, mark.To+1
	_, err = b.lake.AppendChanges(b.t.Context(), table.Commit{FlushMark: mark, Add: []table.NewFile{f}})
	b.must(err)
}

func (b *badLake) schema() *changelog.Schema { return b.lake.Schemas().Current() }

// row runs a statement on the catalog's tables.
func (b *badLake) row(statement string, args ...any) {
	b.t.Helper()
	db, err := sql.Open("sqlite", b.uri())
	b.must(err)
	defer db.Close()
	_, err = db.ExecContext(b.t.Context(), statement, args...)
	b.must(err)
}

// metadata replaces a store's metadata by an edited copy.
func (b *badLake) metadata(name string, edit func(md map[string]any)) {
	b.t.Helper()
	t, err := b.lake.Reload(b.t.Context())
	b.must(err)
	s := t.Base()
	if name != "shop.orders" {
		s = t.Change()
	}
	text, err := os.ReadFile(localPath(s.MetadataLocation()))
	b.must(err)
	md := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	b.must(d.Decode(&md))
	edit(md)
	text, err = json.Marshal(md)
	b.must(err)
	path := filepath.Join(localPath(s.Location()), "metadata", "99999-00000000-0000-4000-8000-000000000000.metadata.json")
	b.must(os.WriteFile(path, text, 0o600))
	b.row(`UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = ?`, "file://"+path, strings.TrimPrefix(name, "shop."))
}

// everything is all that could be written or removed: files with their bytes, and the catalog's rows.
func (b *badLake) everything() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	b.must(filepath.WalkDir(filepath.Join(b.dir, "lake"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		out[path] = string(text)
		return err
	}))
	db, err := sql.Open("sqlite", b.uri())
	b.must(err)
	defer db.Close()
	rows, err := db.QueryContext(b.t.Context(), `SELECT table_name, metadata_location, previous_metadata_location FROM iceberg_tables`)
	b.must(err)
	defer rows.Close()
	for rows.Next() {
		var name, at string
		var before sql.NullString
		b.must(rows.Scan(&name, &at, &before))
		out["row "+name] = at + " " + before.String
	}
	b.must(rows.Err())
	return out
}

// deedOrder has what writes at the end.
var deedOrder = []string{
	"show", "files", "dump base", "dump change", "dump merged", "plan", "verify", "clean orphans", "major", "full", "optimize", "expire",
}

// deeds are all that is done with a table.
var deeds = map[string]func(b *badLake) (out, errText string){
	"show":        verb("table", "show", "shop.orders"),
	"files":       verb("table", "files", "shop.orders"),
	"dump base":   verb("dump", "shop.orders", "--from", "base"),
	"dump change": verb("dump", "shop.orders", "--from", "change"),
	"dump merged": verb("dump", "shop.orders", "--from", "merged"),
	"optimize":    verb("optimize", "shop.orders", "--type", "minor"),
	"major":       verb("optimize", "shop.orders", "--type", "major"),
	"full":        verb("optimize", "shop.orders", "--type", "full"),
	"plan":        verb("optimize", "shop.orders", "--dry-run"),
	"verify":      verb("verify", "shop.orders", "--lake-only", "--deep"),
	"expire": byOptimizer(func(ctx context.Context, o *optimizer.Optimizer) error {
		_, err := o.Expire(ctx, "shop.orders", false)
		return err
	}),
	"clean orphans": byOptimizer(func(ctx context.Context, o *optimizer.Optimizer) error {
		_, err := o.Orphans(ctx, "shop.orders", 0, false)
		return err
	}),
}

func verb(args ...string) func(b *badLake) (out, errText string) {
	return func(b *badLake) (string, string) {
		ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
		defer cancel()
		code, out, errText := firnVerb(ctx, "", append(slices.Clone(args), "--catalog-uri", b.uri())...)
		if code != 0 && args[0] == "verify" {
			errText += out
		}
		if code == 0 {
			errText = ""
		}
		return out, errText
	}
}

func byOptimizer(do func(ctx context.Context, o *optimizer.Optimizer) error) func(b *badLake) (out, errText string) {
	return func(b *badLake) (string, string) {
		cfg, err := (CatalogConfig{Type: "sqlite", Name: "firn", URI: b.uri()}).readable()
		b.must(err)
		catalog, err := openCatalog(b.t.Context(), cfg, slog.New(slog.DiscardHandler)) // one that has loaded nothing yet
		b.must(err)
		defer func() { b.must(catalog.Close()) }()
		o, err := optimizer.New(catalog, nil, optimizer.Options{
			Now:   func() time.Time { return time.Now().Add(time.Hour) },
			Rules: optimizer.Rules{ChangeTTL: 1, KeepSnapshots: 1, KeepAge: 1},
		})
		b.must(err)
		if err := do(b.t.Context(), o); err != nil {
			return "", err.Error()
		}
		return "", ""
	}
}

// badInput is a damage, and what is said of it.
type badInput struct {
	damage func(b *badLake)
	wants  []string // in each error: the table, the file, the way out
	works  []string // deeds that the damage does not concern, by how their names begin
}

// baseOnly reads no change file.
const baseOnly = "dump base"

// TestBadInput: a lake that is not as it should be ends in an error that names the table, the file and the way out; never in a panic,
// a wrong answer, a write or a deletion.
func TestBadInput(t *testing.T) {
	good := newBadLake(t)
	want := map[string]string{}
	for _, deed := range deedOrder {
		out, errText := deeds[deed](good)
		if errText != "" {
			t.Fatalf("a good lake: %s: %s", deed, errText)
		}
		want[deed] = out
	}
	for name, c := range badInputs() {
		t.Run(name, func(t *testing.T) {
			b := newBadLake(t)
			c.damage(b)
			for _, deed := range deedOrder {
				before := b.everything()
				out, errText := deeds[deed](b)
				if slices.ContainsFunc(c.works, func(w string) bool { return strings.HasPrefix(deed, w) }) {
					if errText != "" || deed == baseOnly && out != want[deed] {
						t.Errorf("%s: %s\n%s\nwant\n%s", deed, errText, out, want[deed])
					}
					continue
				}
				for _, w := range append([]string{"shop.orders"}, c.wants...) {
					if !strings.Contains(errText, w) {
						t.Errorf("%s: no %q in %q, %s", deed, w, errText, out)
					}
				}
				if !maps.Equal(before, b.everything()) {
					t.Errorf("%s: it has written or removed something", deed)
				}
			}
		})
	}
}

func badInputs() map[string]badInput {
	named := func(name string) func(b *badLake) {
		return func(b *badLake) { b.change(b.write(b.lake.Change(), name, b.schema(), true, 77)) }
	}
	// unplaced is a change file without offsets, or with nulls for them.
	unplaced := func(name string, nulls bool) badInput {
		return badInput{
			func(b *badLake) {
				s := b.schema()
				if nulls {
					s = &changelog.Schema{ID: s.ID, Key: s.Key, LastID: s.LastID, Columns: append(slices.Clone(s.Columns),
						changelog.Column{ID: mixed.FileOffsetID, Name: mixed.FileOffsetColumn, Type: changelog.Primitive(changelog.Long)})}
					b.must(s.Index())
				}
				b.change(b.write(b.lake.Change(), name, s, false, 1))
			},
			[]string{name, "no _file_offset"},
			// What was merged before may go, and the base store be optimized by itself.
			[]string{"show", "files", baseOnly, "dump change", "plan", "major", "full", "clean", "expire"},
		}
	}
	// unread is a file of the change store that nobody can read as what it is.
	unread := func(name, way string, works ...string) badInput {
		return badInput{named(name), []string{name, way}, append(works, baseOnly)}
	}
	return map[string]badInput{
		"no change store": {
			func(b *badLake) { b.row(`DELETE FROM iceberg_tables WHERE table_name = 'orders_change_'`) },
			[]string{"names its change store shop.orders_change_, which is not in the catalog", "register it again"},
			nil,
		},
		"I without offsets":        unplaced("1-I-0-00000-0-5-00001.parquet", false),
		"ED without offsets":       unplaced("1-ED-0-00000-0-5-00001.parquet", false),
		"I with null offsets":      unplaced("1-I-0-00000-0-5-00001.parquet", true),
		"ED with null offsets":     unplaced("1-ED-0-00000-0-5-00001.parquet", true),
		"node 0":                   unread("0-I-0-00000-0-5-00001.parquet", "take it out of the store"),
		"node beyond int64":        unread("9223372036854775808-I-0-00000-0-5-00001.parquet", "take it out of the store"),
		"transaction beyond int64": unread("1-I-9223372036854775808-00000-0-5-00001.parquet", "take it out of the store"),
		"B among changes":          unread("1-B-0-00000-0-5-00001.parquet", "take it out of the store", "show", "files"),
		"PD among changes":         unread("1-PD-0-00000-0-5-00001.parquet", "take it out of the store", "show", "files"),
		"node 0 in the base store": {
			func(b *badLake) { b.base("0-B-0-00000-0-5-00001.parquet") },
			[]string{"0-B-0-00000-0-5-00001.parquet", "take it out of the store"},
			nil,
		},
		"equality deletes": {
			func(b *badLake) { b.equalityDelete() },
			[]string{"00000-0-f79c3e09-677c-4bbd-a479-3f349cb785e7-00002.parquet has equality deletes", "rewrite the table's data files"},
			[]string{"show", "files"},
		},
		"two schemas ahead": {
			func(b *badLake) { b.addSchemas(2) },
			[]string{"has 3 schemas and its change store shop.orders_change_ 1", "repeat the schema changes"},
			nil,
		},
		"another partition spec": {
			func(b *badLake) { b.metadata("shop.orders", addSpec); b.metadata("shop.orders_change_", addSpec) },
			[]string{".parquet is of partition spec 0, the table's is 1", "take them into a new table"},
			nil,
		},
		"version 3": {
			func(b *badLake) { b.metadata("shop.orders", upgrade) },
			[]string{"shop.orders is of Iceberg's format version 3", "copy its rows"},
			nil,
		},
		"version 3 of the change store": {
			func(b *badLake) { b.metadata("shop.orders_change_", upgrade) },
			[]string{"shop.orders_change_ is of Iceberg's format version 3", "copy its rows"},
			nil,
		},
		"a mark without statistics": {
			func(b *badLake) {
				b.metadata("shop.orders", func(md map[string]any) {
					sn := md["snapshots"].([]any)
					sn[len(sn)-1].(map[string]any)["summary"].(map[string]any)["optimized-sequence.exist"] = "true"
				})
			},
			[]string{"has 0 entries of statistics", "roll the base store back"},
			nil,
		},
		"statistics cut short": {
			func(b *badLake) { b.cutStatistics() },
			[]string{".puffin", "restore the file"},
			nil,
		},
		"metadata cut short": {
			func(b *badLake) {
				path := localPath(b.lake.Change().MetadataLocation())
				b.must(os.Truncate(path, 100))
			},
			[]string{"corrupt metadata", ".metadata.json"},
			nil,
		},
	}
}

// base commits a file with a row to the base store.
func (b *badLake) base(name string) {
	b.t.Helper()
	epoch, err := b.lake.Epoch()
	b.must(err)
	_, err = b.lake.CommitBase(b.t.Context(), table.BaseCommit{ID: name, Epoch: epoch, Add: []table.NewFile{b.write(b.lake.Base(), name, b.schema(), false, 77)}})
	b.must(err)
}

// cutStatistics has the optimized sequences in a statistics file, of which a part is gone.
func (b *badLake) cutStatistics() {
	b.t.Helper()
	epoch, err := b.lake.Epoch()
	b.must(err)
	_, err = b.lake.CommitBase(b.t.Context(), table.BaseCommit{ID: "p", Epoch: epoch, Optimized: map[string]int64{"": 3}, Sequence: table.SequencePuffin})
	b.must(err)
	files, err := filepath.Glob(filepath.Join(b.dir, "lake", "shop", "orders", "data", "puffin", "*.puffin"))
	b.must(err)
	if len(files) != 1 {
		b.t.Fatal(files)
	}
	b.must(os.Truncate(files[0], 60))
}

// addSchemas adds schemas to the base store alone.
func (b *badLake) addSchemas(n int) {
	b.t.Helper()
	b.metadata("shop.orders", func(md map[string]any) {
		first := md["schemas"].([]any)[0].(map[string]any)
		for id := 1; id <= n; id++ {
			next := maps.Clone(first)
			next["schema-id"] = id
			next["fields"] = append(slices.Clone(first["fields"].([]any)), map[string]any{"id": 10 + id, "name": fmt.Sprint("c", id), "type": "int", "required": false})
			md["schemas"] = append(md["schemas"].([]any), next)
		}
		md["current-schema-id"], md["last-column-id"] = n, 10+n
	})
}

func addSpec(md map[string]any) {
	md["partition-specs"] = append(md["partition-specs"].([]any), map[string]any{"spec-id": 1, "fields": []any{
		map[string]any{"source-id": 2, "field-id": 1000, "transform": "identity", "name": "region"},
	}})
	md["default-spec-id"], md["last-partition-id"] = 1, 1000
}

func upgrade(md map[string]any) { md["format-version"], md["next-row-id"] = 3, 0 }

// TestForeignName: a change file whose name says nothing is inserts at the root, for every writer's table (spec/mixed-format.md 3.3).
func TestForeignName(t *testing.T) {
	b := newBadLake(t)
	before, _ := deeds["dump merged"](b)
	b.change(b.write(b.lake.Change(), "00000-0-f79c3e09-677c-4bbd-a479-3f349cb785e7-00001.parquet", b.schema(), true, 77))
	row := `{"id":77,"region":"eu","total":"0.07"}` + "\n"
	for range 2 { // as a change, then as a base row
		merged, errText := deeds["dump merged"](b)
		if !strings.Contains(merged, row) || strings.Replace(merged, row, "", 1) != before {
			t.Errorf("merged: %s\n%s\nwant %s and\n%s", errText, merged, row, before)
		}
		if _, errText := deeds["optimize"](b); errText != "" {
			t.Error(errText)
		}
	}
	if base, _ := deeds["dump base"](b); !strings.Contains(base, row) {
		t.Errorf("base:\n%s", base)
	}
	if _, errText := deeds["verify"](b); errText != "" {
		t.Error(errText)
	}
}

// TestOneSchemaAhead: what a crash between the two commits of a schema leaves is read and optimized; the flusher mends it.
func TestOneSchemaAhead(t *testing.T) {
	b := newBadLake(t)
	before, _ := deeds["dump merged"](b)
	b.addSchemas(1)
	for _, deed := range deedOrder {
		out, errText := deeds[deed](b)
		if errText != "" || deed == "dump merged" && strings.ReplaceAll(out, `"c1":null,`, "") != before {
			t.Errorf("%s: %s\n%s", deed, errText, out)
		}
	}
}

// TestOthersGoOn: a table that cannot be loaded is a difference to verify and an error of the list, and the others are told of.
func TestOthersGoOn(t *testing.T) {
	b := newBadLake(t)
	_, err := b.catalog.Create(t.Context(), "shop.good", b.schema(), nil)
	b.must(err)
	b.must(os.Truncate(localPath(b.lake.Base().MetadataLocation()), 100))
	code, out, _ := firnVerb(t.Context(), "", "verify", "--lake-only", "--catalog-uri", b.uri())
	if code != exitNo || !strings.Contains(out, "shop.orders                  lake        DIFFERS") || !strings.Contains(out, "shop.good                    positions   ok") {
		t.Errorf("exit %d\n%s", code, out)
	}
	// With the log beside it, which has the table's changes.
	code, out, _ = firnVerb(t.Context(), "", "verify", "--deep", "-c", b.config())
	if code != exitNo || strings.Count(out, "DIFFERS") != 1 || !strings.Contains(out, "shop.orders                  lake        DIFFERS") || !strings.Contains(out, "shop.orders                  log         ok") {
		t.Errorf("exit %d\n%s", code, out)
	}
	code, out, errText := firnVerb(t.Context(), "", "table", "list", "--catalog-uri", b.uri())
	if code == 0 || !strings.Contains(out, "shop.good") || !strings.Contains(errText, "shop.orders") {
		t.Errorf("exit %d\n%s%s", code, out, errText)
	}
}

// equalityDelete adds to the base store what Flink's upserts leave: a delete file with the key's values.
func (b *badLake) equalityDelete() {
	b.t.Helper()
	f := b.write(b.lake.Base(), "00000-0-f79c3e09-677c-4bbd-a479-3f349cb785e7-00002.parquet", b.schema(), false, 1)
	var list, manifest bytes.Buffer
	const id = int64(4711)
	b.metadata("shop.orders", func(md map[string]any) {
		text, err := json.Marshal(md)
		b.must(err)
		var now struct {
			Location string            `json:"location"`
			Sequence int64             `json:"last-sequence-number"`
			Current  int64             `json:"current-snapshot-id"`
			Schemas  []*iceberg.Schema `json:"schemas"`
			List     []struct {
				ID   int64  `json:"snapshot-id"`
				List string `json:"manifest-list"`
			} `json:"snapshots"`
		}
		b.must(json.Unmarshal(text, &now))
		builder, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentEqDeletes, f.Path, iceberg.ParquetFile, nil, nil, nil, 1, f.Bytes)
		b.must(err)
		df := builder.EqualityFieldIDs([]int{1, 2}).Build()
		snapshot := id
		w, err := iceberg.NewManifestWriter(2, &manifest, *iceberg.UnpartitionedSpec, now.Schemas[0], id, iceberg.WithManifestWriterContent(iceberg.ManifestContentDeletes))
		b.must(err)
		b.must(w.Add(iceberg.NewManifestEntryBuilder(iceberg.EntryStatusADDED, &snapshot, df).Build()))
		b.must(w.Close())
		path := now.Location + "/metadata/eq-m0.avro"
		m, err := w.ToManifestFile(path, int64(manifest.Len()), iceberg.WithManifestFileContent(iceberg.ManifestContentDeletes))
		b.must(err)
		b.must(os.WriteFile(localPath(path), manifest.Bytes(), 0o600))
		var all []iceberg.ManifestFile
		for _, sn := range now.List {
			if sn.ID == now.Current {
				text, err := os.ReadFile(localPath(sn.List))
				b.must(err)
				all, err = iceberg.ReadManifestList(bytes.NewReader(text))
				b.must(err)
			}
		}
		next := now.Sequence + 1
		b.must(iceberg.WriteManifestList(2, &list, id, &now.Current, &next, 0, append(all, m)))
		at := now.Location + "/metadata/snap-4711-1-eq.avro"
		b.must(os.WriteFile(localPath(at), list.Bytes(), 0o600))
		md["last-sequence-number"], md["current-snapshot-id"] = next, id
		md["snapshots"] = append(md["snapshots"].([]any), map[string]any{
			"snapshot-id": id, "parent-snapshot-id": now.Current, "sequence-number": next, "timestamp-ms": time.Now().UnixMilli(),
			"manifest-list": at, "summary": map[string]any{"operation": "delete"}, "schema-id": 0,
		})
		md["refs"] = map[string]any{"main": map[string]any{"snapshot-id": id, "type": "branch"}}
	})
}
