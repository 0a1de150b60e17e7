package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/table"
	"firn/optimizer"
	"firn/state"
)

// amoroRefused are the tables of Amoro that firn does not adopt, with a part of what it says. Those with keys that Amoro loses deletes of in
// Parquet files were written in ORC.
var amoroRefused = map[string]string{
	"orc":          "it is ORC, and firn reads Parquet only",
	"key_uuid":     `key column "k": Amoro loses deletes of uuid keys`,
	"key_binary":   `key column "k": Amoro loses deletes of binary keys`,
	"key_fixed_16": `key column "k": Amoro loses deletes of fixed[16] keys`,
}

// amoroUnread are those with ORC files, by the parts that have them.
var amoroUnread = map[string][]string{
	"orc":          {"base", "change", "merged"},
	"key_uuid":     {"change", "merged"},
	"key_binary":   {"change", "merged"},
	"key_fixed_16": {"change", "merged"},
}

// amoroLake unpacks the tables that Amoro wrote, and what it says about them (shared data/amoro/tables.tar.xz), into a new working directory,
// because their paths are relative, and takes them into a catalog there: all, or only some. It returns their names and a configuration.
func amoroLake(t *testing.T, only ...string) (names []string, config string) {
	t.Helper()
	var archives []*os.File
	for _, name := range []string{"warehouse", "said"} {
		f, err := os.Open(filepath.Join("testdata", "amoro", name+".tar.gz"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		archives = append(archives, f)
	}
	t.Chdir(t.TempDir())
	for _, f := range archives {
		if err := unpack(f, only); err != nil {
			t.Fatal(err)
		}
	}
	c, err := table.Open(t.Context(), table.Options{URI: "catalog.db", Warehouse: "file:lake"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stores, err := filepath.Glob("warehouse/amoro/*")
	if err != nil || len(only) == 0 && len(stores) != 83 {
		t.Fatalf("%d stores, %v", len(stores), err)
	}
	for _, dir := range stores {
		newest := 1
		for ; ; newest++ {
			if _, err := os.Stat(fmt.Sprintf("%s/metadata/v%d.metadata.json", dir, newest+1)); err != nil {
				break
			}
		}
		name := filepath.Base(dir)
		if err := c.Register(t.Context(), "amoro."+name, fmt.Sprintf("%s/metadata/v%d.metadata.json", dir, newest)); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_change_") {
			names = append(names, name)
		}
	}
	config = "firn.yaml"
	text := "data: data\ncatalog: {uri: catalog.db, warehouse: 'file:lake'}\nlimits: {memory: 256MiB}\nsources: [{name: shop, file: {path: shop.jsonl}}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return names, config
}

// unpack unpacks an archive into the working directory; of the tables only some, if they are named.
func unpack(f io.Reader, only []string) error {
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		dir, _, _ := strings.Cut(strings.TrimPrefix(h.Name, "warehouse/amoro/"), "/")
		if h.Typeflag == tar.TypeDir || len(only) > 0 && dir != h.Name && strings.HasPrefix(h.Name, "warehouse/") &&
			!slices.Contains(only, strings.TrimSuffix(dir, "_change_")) {
			continue
		}
		b, err := io.ReadAll(r)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(h.Name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(h.Name, b, 0o644)
		}
		if err != nil {
			return err
		}
	}
}

// said is what Amoro's dump of a table printed.
func said(t *testing.T, part, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(part, "amoro."+name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAmoroTables: firn dump of every table of Amoro's, base store, change store and merged, prints byte for byte what Amoro's own program
// printed, and firn table files lists the same files with the same meaning. ORC files are refused by name.
func TestAmoroTables(t *testing.T) {
	names, _ := amoroLake(t)
	if len(names) != 43 {
		t.Fatalf("%d tables", len(names))
	}
	for _, name := range names {
		for part, dir := range map[string]string{"base": "base", "change": "change", "merged": "expected"} {
			code, got, errText := firnVerb(t.Context(), "", "dump", "amoro."+name, "--from", part, "--catalog-uri", "catalog.db")
			switch {
			case slices.Contains(amoroUnread[name], part):
				if code == 0 || !strings.Contains(errText, "it is ORC, and firn reads Parquet only") || !strings.Contains(errText, ".orc") {
					t.Errorf("%s, %s: exit %d %s", name, part, code, errText)
				}
			case part == "change" && strings.HasPrefix(name, "unkeyed"):
				if code != exitNo || !strings.Contains(errText, "no change store") {
					t.Errorf("%s, %s: exit %d %s", name, part, code, errText)
				}
			case code != 0:
				t.Errorf("%s, %s: exit %d %s", name, part, code, errText)
			default:
				if want := said(t, dir, name); got != want {
					t.Errorf("%s, %s: %s", name, part, firstLine(got, want))
				}
			}
		}
		amoroTableFiles(t, name)
	}
}

// firstLine tells where two texts differ.
func firstLine(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d of %d, %d:\n  got %s\n want %s", i+1, len(g), len(w), g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// amoroTableFiles holds firn table files against Amoro's file list.
func amoroTableFiles(t *testing.T, name string) {
	t.Helper()
	code, out, errText := firnVerb(t.Context(), "", "table", "files", "amoro."+name, "--json", "--catalog-uri", "catalog.db")
	if code != 0 {
		t.Errorf("files of %s: exit %d %s", name, code, errText)
		return
	}
	got := map[string]fileLine{}
	for line := range strings.Lines(out) {
		var f fileLine
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(f.Path, "/data/")
		got[f.Store+" data/"+rest] = f
	}
	kinds := map[string]string{"BASE_FILE": "base", "INSERT_FILE": "insert", "EQ_DELETE_FILE": "delete", "POS_DELETE_FILE": "position-delete"}
	n := 0
	for line := range strings.Lines(said(t, "files", name)) {
		n++
		var w struct {
			Store, File, Type, Partition string
			Node, Records, Bytes         int64
			Sequence                     int64            `json:"data_sequence"`
			First                        changelog.SeqNum `json:"first_offset"`
			Last                         changelog.SeqNum `json:"last_offset"`
			Pending                      bool
		}
		if err := json.Unmarshal([]byte(line), &w); err != nil {
			t.Fatal(err)
		}
		f := got[w.Store+" "+w.File]
		if f.Kind != kinds[w.Type] || f.Node != w.Node || f.Records != w.Records || f.Bytes != w.Bytes || f.Sequence != w.Sequence ||
			f.Partition != w.Partition || f.Merged != (w.Store == "change" && !w.Pending) {
			t.Errorf("%s: got %+v\nwant %s", name, f, line)
		}
		if strings.HasSuffix(w.File, ".parquet") && w.Store == "change" && (f.SeqFrom != w.First || f.SeqTo != w.Last) {
			t.Errorf("%s: offsets %d to %d, want %s", name, f.SeqFrom, f.SeqTo, line)
		}
	}
	if n != len(got) {
		t.Errorf("%s: %d files, Amoro sees %d", name, len(got), n)
	}
}

// adoptSome are the tables that TestAdoptAmoro takes, for adoptBatches batches; FIRN_AMORO=all: all, for 20.
var adoptSome = []string{"evolved", "opt_positions", "part_two", "unkeyed_deletes"}

const adoptBatches = 4

// TestAdoptAmoro adopts tables of Amoro, with change files that are not merged yet, and goes on with them as with its own: batches of
// random changes through log and flush, with minor, major and full rounds in between. After each step the merged rows are those of a model that began
// with Amoro's rows; at the end log, lookups and lake agree in all that verify looks at. Tables that cannot be had are refused by name.
// FIRN_TEST_JAVAICEBERG=deploy/peers/javaiceberg (absolute): Iceberg's Java library then reads and checks them all.
func TestAdoptAmoro(t *testing.T) {
	names, config := amoroLake(t)
	all := os.Getenv("FIRN_AMORO") == "all"
	var taken []string
	var before map[string]string
	if javaPeer() != "" {
		var adoptable []string
		for _, name := range names {
			if amoroRefused[name] == "" {
				adoptable = append(adoptable, "amoro."+name)
			}
		}
		before = javaReads(t, "check", adoptable)
		for name, text := range before {
			if text != "" {
				t.Logf("check of %s as Amoro wrote it: %s", name, text)
			}
		}
	}
	for _, name := range names {
		if why, no := amoroRefused[name]; no {
			refusesAmoro(t, config, name, why)
			continue
		}
		if !all && !slices.Contains(adoptSome, name) {
			continue
		}
		taken = append(taken, "amoro."+name)
		t.Run(name, func(t *testing.T) { adoptsAmoro(t, config, name) })
	}
	t.Logf("%d tables adopted", len(taken))
	if javaPeer() != "" {
		soundForJava(t, before, taken)
	}
}

// refusesAmoro: nothing is written, neither to the lake nor to the data directory.
func refusesAmoro(t *testing.T, config, name, why string) {
	t.Helper()
	head := metadataOf(t, "amoro."+name)
	code, _, errText := firnVerb(t.Context(), "", "table", "adopt", "amoro."+name, "-c", config)
	if code != exitNo || !strings.Contains(errText, why) || !strings.Contains(errText, "amoro."+name) {
		t.Errorf("adopt %s: exit %d %s", name, code, errText)
	}
	if now := metadataOf(t, "amoro."+name); now != head {
		t.Errorf("%s was written to: %s", name, now)
	}
	if code, out, _ := firnVerb(t.Context(), "", "table", "list", "-c", config); code != 0 || strings.Contains(out, name+" ") {
		t.Errorf("%s is in the data directory: %s", name, out)
	}
}

// metadataOf names the metadata of both stores of a table.
func metadataOf(t *testing.T, name string) string {
	t.Helper()
	c, err := table.Open(t.Context(), table.Options{URI: "catalog.db", Warehouse: "file:lake"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lake, err := c.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, s := range lake.Stores() {
		out += s.MetadataLocation() + "\n"
	}
	return out
}

func adoptsAmoro(t *testing.T, config, name string) {
	full := "amoro." + name
	p := openTestParts(t, config)
	if _, err := p.adopt(t.Context(), full, false, false); err != nil {
		t.Fatal(err)
	}
	w := newAdopted(t, p, full, 1)
	if got, want := strings.Join(w.merged(), ""), said(t, "expected", name); got != want {
		t.Fatalf("as adopted: %s", firstLine(got, want))
	}
	w.check("as adopted")
	w.verify("as adopted")
	batches := adoptBatches
	if os.Getenv("FIRN_AMORO") == "all" {
		batches = 20
	}
	for batch := range batches {
		w.change(8 + w.rng.IntN(20))
		w.flush()
		w.check(fmt.Sprintf("batch %d", batch))
		for _, kind := range [][]optimizer.Type{nil, {optimizer.Minor}, {optimizer.Minor, optimizer.Major}, {optimizer.Full}}[w.rng.IntN(4)] {
			w.optimize(kind)
			w.check(fmt.Sprintf("batch %d, %s", batch, kind))
		}
	}
	for _, kind := range []optimizer.Type{optimizer.Minor, optimizer.Major, optimizer.Full} {
		w.optimize(kind)
		w.check("at the end, " + kind.String())
	}
	w.change(5)
	w.verify("at the end")
}

func openTestParts(t *testing.T, config string) *parts {
	t.Helper()
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openParts(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// adopted is an adopted table and a model of its rows.
type adopted struct {
	t         *testing.T
	p         *parts
	rng       *rand.Rand
	entry     *state.Table
	schema    *changelog.Schema
	flusher   *flush.Flusher
	optimizer *optimizer.Optimizer

	rows map[string][]changelog.Value // by key
	bag  [][]changelog.Value          // rows of a table without a key
	pool [][]changelog.Value          // values that each column has had, in base or change files
}

func newAdopted(t *testing.T, p *parts, name string, seed uint64) *adopted {
	t.Helper()
	w := &adopted{t: t, p: p, rng: rand.New(rand.NewPCG(seed, 0)), rows: map[string][]changelog.Value{}}
	w.entry, _ = p.registry.Table(name)
	w.schema = w.entry.Schema()
	set, err := flush.New(p.store, p.registry, p.catalog, flush.Options{BucketRows: 12})
	w.must(err)
	w.flusher, err = set.Flusher(w.entry.ID)
	w.must(err)
	w.optimizer, err = optimizer.New(p.catalog, p.registry, optimizer.Options{Rules: optimizer.Rules{FanIn: 2, MaxDeletes: 2}})
	w.must(err)
	w.pool = make([][]changelog.Value, len(w.schema.Columns))
	lake, err := p.catalog.Load(t.Context(), name)
	w.must(err)
	r, _, err := reader(t.Context(), lake, nil, 0, "")
	w.must(err)
	for row, err := range r.Rows(t.Context()) {
		w.must(err)
		values := w.values(row.Row)
		w.rows[string(row.Key)] = values
		w.bag = append(w.bag, values)
		w.seen(values)
	}
	for row, err := range r.Changes(t.Context()) {
		w.must(err)
		w.seen(w.values(row.Row))
	}
	return w
}

func (w *adopted) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *adopted) values(r changelog.Row) []changelog.Value {
	w.t.Helper()
	values, err := changelog.AppendValues(nil, w.schema, slices.Clone(r))
	w.must(err)
	return values
}

func (w *adopted) seen(values []changelog.Value) {
	for i, v := range values {
		w.pool[i] = append(w.pool[i], v)
	}
}

// random returns a row of values that their columns have had, so that keys come again after their deletion and rows move between
// partitions, with some new numbers.
func (w *adopted) random() []changelog.Value {
	row := make([]changelog.Value, len(w.schema.Columns))
	for i, c := range w.schema.Columns {
		switch k := c.Type.Kind; {
		case (k == changelog.Int || k == changelog.Long) && (len(w.pool[i]) == 0 || w.rng.IntN(3) == 0):
			row[i] = changelog.Value{I: w.rng.Int64N(2000) - 1000}
		case len(w.pool[i]) > 0:
			row[i] = w.pool[i][w.rng.IntN(len(w.pool[i]))]
		default:
			row[i] = changelog.Value{B: fmt.Append(nil, w.rng.IntN(100))}
		}
	}
	return row
}

// change makes n changes in the log and the model.
func (w *adopted) change(n int) {
	w.t.Helper()
	var changes []changelog.Change
	for range n {
		if w.entry.Keyed() {
			changes = append(changes, w.keyed())
		} else {
			changes = append(changes, w.keyless())
		}
	}
	_, err := w.p.store.Append(w.t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: w.entry.ID, Changes: changes}}})
	w.must(err)
}

func (w *adopted) keyed() changelog.Change {
	row := w.random()
	if len(w.rows) > 0 && w.rng.IntN(2) == 0 { // a key that is there
		old := w.rows[w.oneOf()]
		for _, o := range w.schema.KeyOrdinals() {
			row[o] = old[o]
		}
	}
	key := w.schema.KeyOf(nil, row)
	c := changelog.Change{Op: changelog.OpCreate, Key: key}
	old, there := w.rows[string(key)]
	if there && (len(w.entry.Partition) > 0 || w.rng.IntN(2) == 0) { // partitioned tables get them all, as from ingest
		c.Op, c.Before = changelog.OpUpdate, changelog.AppendRow(nil, w.schema, old)
	}
	if there && w.rng.IntN(3) == 0 {
		c.Op = changelog.OpDelete
		delete(w.rows, string(key))
		return c
	}
	c.After = changelog.AppendRow(nil, w.schema, row)
	w.rows[string(key)] = row
	return c
}

func (w *adopted) oneOf() string {
	keys := make([]string, 0, len(w.rows))
	for k := range w.rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[w.rng.IntN(len(keys))]
}

func (w *adopted) keyless() changelog.Change {
	c := changelog.Change{Op: changelog.OpCreate}
	if len(w.bag) > 0 && w.rng.IntN(3) == 0 {
		i := w.rng.IntN(len(w.bag))
		c.Op, c.Before = changelog.OpDelete, changelog.AppendRow(nil, w.schema, w.bag[i])
		w.bag = slices.Delete(w.bag, i, i+1)
		return c
	}
	row := w.random()
	c.After = changelog.AppendRow(nil, w.schema, row)
	w.bag = append(w.bag, row)
	return c
}

func (w *adopted) flush() {
	w.t.Helper()
	_, err := w.flusher.Flush(w.t.Context())
	w.must(err)
}

func (w *adopted) optimize(kind optimizer.Type) {
	w.t.Helper()
	_, err := w.optimizer.Once(w.t.Context(), w.entry.Name, kind, false)
	w.must(err)
}

// merged returns the lines of firn dump --from merged.
func (w *adopted) merged() (lines []string) {
	w.t.Helper()
	s := &stores{catalog: w.p.catalog}
	w.must(s.dump(w.t.Context(), w.entry.Name, dumpFlags{from: "merged"}, func(line []byte) error {
		lines = append(lines, string(line)+"\n")
		return nil
	}))
	slices.Sort(lines)
	return lines
}

// check holds the merged rows against the model.
func (w *adopted) check(when string) {
	w.t.Helper()
	encoder, err := sortedEncoder(w.schema, nil)
	w.must(err)
	rows := w.bag
	if w.entry.Keyed() {
		rows = rows[:0:0]
		for _, row := range w.rows {
			rows = append(rows, row)
		}
	}
	var want []string
	for _, row := range rows {
		line, err := encoder.AppendValues(nil, row)
		w.must(err)
		want = append(want, string(line)+"\n")
	}
	slices.Sort(want)
	if got := w.merged(); !slices.Equal(got, want) {
		w.t.Fatalf("%s: %s", when, firstLine(strings.Join(got, ""), strings.Join(want, "")))
	}
}

func (w *adopted) verify(when string) {
	w.t.Helper()
	var out strings.Builder
	ok, err := verify(w.t.Context(), verifyLake{catalog: w.p.catalog, registry: w.p.registry, store: w.p.store, cfg: w.p.cfg}, []string{w.entry.Name}, true, &out)
	if err != nil || !ok {
		w.t.Errorf("%s: verify: %v\n%s", when, err, out.String())
	}
}
