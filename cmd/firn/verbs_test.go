package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/table"
	"firn/logstore"
	"firn/logstore/httpapi"
	"firn/state"
)

// shopRig is a data directory and a lake with the table shop.orders, and a server over them.
type shopRig struct {
	t       *testing.T
	dir     string
	db      *logstore.DB
	reg     *state.Registry
	store   *logstore.Store
	catalog *table.Catalog
	set     *flush.Set
	table   *state.Table
	api     *httpapi.API
	server  *httptest.Server
	offset  int64
	closed  bool
}

func newShopRig(t *testing.T) *shopRig { return newShopRigIn(t, t.TempDir()) }

func newShopRigIn(t *testing.T, dir string) *shopRig {
	t.Helper()
	r := &shopRig{t: t, dir: dir}
	cfg := defaultConfig().Catalog
	cfg.URI, cfg.Warehouse = filepath.Join(r.dir, "catalog.db"), "file:"+filepath.Join(r.dir, "lake")
	var err error
	r.catalog, err = openCatalog(t.Context(), cfg, defaultConfig().newLogger(nil, t.Output()))
	r.must(err)
	o := logstore.Options{MinFreeBytes: -1, MemoryBytes: 32 << 20, TrimInterval: -1}
	r.db, err = openData(filepath.Join(r.dir, "data"), o)
	r.must(err)
	r.reg, err = state.OpenRegistry(r.db.DB)
	r.must(err)
	r.store, err = logstore.Open(r.db, r.reg, o)
	r.must(err)
	r.set, err = flush.New(r.store, r.reg, r.catalog, flush.Options{})
	r.must(err)
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
		{Name: "region", Type: changelog.Primitive(changelog.String)},
		{Name: "total", Type: changelog.DecimalOf(12, 2)},
	}, []string{"region", "id"})
	r.must(err)
	r.table, err = r.reg.Create(t.Context(), "shop.orders", schema, state.TopicRef{Source: "shop", Topic: "orders"}, nil)
	r.must(err)
	r.api, err = httpapi.New(httpapi.Options{
		Store: r.store, Registry: r.reg, ChangeFiles: changeFiles{r.catalog},
		Catalog: httpapi.Catalog{Type: "sqlite", Name: "firn", URI: cfg.URI, Warehouse: cfg.Warehouse},
	})
	r.must(err)
	r.server = httptest.NewServer(r.api)
	t.Cleanup(r.close)
	return r
}

func (r *shopRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// close stops all; the directory stays.
func (r *shopRig) close() {
	if r.closed {
		return
	}
	r.closed = true
	r.api.Close()
	r.server.Close()
	r.must(r.store.Close())
	r.must(r.db.Close())
	r.must(r.catalog.Close())
}

// put upserts rows of region eu with the ids; a negative one deletes.
func (r *shopRig) put(total byte, ids ...int64) {
	r.t.Helper()
	s := r.table.Schemas.Current()
	var changes []changelog.Change
	for _, id := range ids {
		values := []changelog.Value{{I: max(id, -id)}, {B: []byte("eu")}, {B: []byte{total}}}
		c := changelog.Change{Op: changelog.OpUpdate, Key: s.KeyOf(nil, values), Position: changelog.Position{Source: "shop", Topic: "orders", Offset: r.offset}}
		if c.After = changelog.AppendRow(nil, s, values); id < 0 {
			c.Op, c.After = changelog.OpDelete, nil
		}
		changes = append(changes, c)
		r.offset++
	}
	_, err := r.store.Append(r.t.Context(), changelog.Append{
		Tables:    []changelog.TableAppend{{Table: r.table.ID, Changes: changes}},
		Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "shop", Topic: "orders"}, Next: r.offset}},
	})
	r.must(err)
}

func (r *shopRig) flush() {
	r.t.Helper()
	f, err := r.set.Flusher(r.table.ID)
	r.must(err)
	_, err = f.Flush(r.t.Context())
	r.must(err)
}

// fill leaves rows 1 to 9 but 3, of which 5 and up are in the log only.
func (r *shopRig) fill() {
	r.t.Helper()
	r.put(1, 1, 2, 3, 4)
	r.flush()
	r.put(2, 2, -3, 5)
	r.flush()
	r.put(3, 1, 5, 6, 7, 8, 9, 10, -10)
}

// firn runs a command line.
func (r *shopRig) firn(stdin string, args ...string) (code int, stdout, stderr string) {
	r.t.Helper()
	return firnVerb(r.t.Context(), stdin, args...)
}

func firnVerb(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errw bytes.Buffer
	root := newRootCmd(&env{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errw})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0, out.String(), errw.String()
	}
	code = exitUsage
	var exit *exitError
	if e, ok := err.(*exitError); ok { //nolint:errorlint // what main would see, unwrapped
		exit = e
		code = exit.code
	}
	return code, out.String(), errw.String() + err.Error()
}

func (r *shopRig) at() string  { return r.server.Listener.Addr().String() }
func (r *shopRig) uri() string { return filepath.Join(r.dir, "catalog.db") }

func (r *shopRig) config() string {
	r.t.Helper()
	file := filepath.Join(r.dir, "firn.yaml")
	text := fmt.Sprintf("data: %s\nlisten: {data: %s}\ncatalog: {uri: %s, warehouse: 'file:%s'}\nsources:\n  - {name: shop, kafka: {brokers: [127.0.0.1:1]}, topics: [orders]}\n",
		filepath.Join(r.dir, "data"), r.at(), r.uri(), filepath.Join(r.dir, "lake"))
	r.must(os.WriteFile(file, []byte(text), 0o600))
	return file
}

func TestGet(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	for _, c := range []struct {
		args  string
		stdin string
		code  int
		out   string // a part of standard output
		err   string // a part of standard error
	}{
		{"shop.orders eu,2", "", 0, "region     eu\ntotal      0.02\n", ""},
		{"shop.orders eu,2 --json", "", 0, `{"row":{"id":2,"region":"eu","total":"0.02"},"seq":5,"applied":15}` + "\n", ""},
		{"shop.orders eu,2 --json --columns total", "", 0, `{"row":{"total":"0.02"},`, ""},
		{"shop.orders eu,2 --json --min seq:15", "", 0, `{"row":`, ""},
		{"shop.orders eu,2 --min seq:99 --timeout 10ms", "", 1, "", "not applied after 10ms"},
		{"shop.orders eu,3", "", 1, "", "no row with key eu,3"},
		{"shop.orders eu,3 --json", "", 1, `{"row":null,"applied":15}` + "\n", ""},
		{"shop.orders eu", "", 2, "", "1 values for the 2 key columns"},
		{"shop.orders eu,x", "", 2, "", "not a whole number"},
		{"shop.orders a/b%2C.,1", "", 1, "", "no row"},
		{"nope 1", "", 1, "", `no table "nope"`},
		{"shop.orders eu,2 --columns nope", "", 2, "", "no such column"},
		{"shop.orders", "", 2, "", "accepts 2 arg"},
		{"shop.orders -", "eu,1\neu,2\n", 0, "id  region  total\n1   eu      0.03\n2   eu      0.02\n", ""},
		{"shop.orders - --json", "eu,1\neu,3\n", 1, `"seq":8,"applied":15}` + "\n" + `{"row":null,"applied":15}` + "\n", "1 keys have no row"},
	} {
		args := append([]string{"get", "--server", r.at()}, strings.Fields(c.args)...)
		code, out, errText := r.firn(c.stdin, args...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errText, c.err) {
			t.Errorf("get %s: exit %d\n%s\n%s\nwant %d %q %q", c.args, code, out, errText, c.code, c.out, c.err)
		}
	}
	if code, _, errText := r.firn("", "get", "shop.orders", "eu,1", "--server", "127.0.0.1:1"); code != exitOpen || !strings.Contains(errText, "cannot reach") {
		t.Errorf("no server: exit %d %s", code, errText)
	}
	t.Setenv("FIRN_SERVER", r.at())
	if code, out, _ := r.firn("", "get", "shop.orders", "eu,1", "--json"); code != 0 || !strings.Contains(out, `"id":1`) {
		t.Errorf("$FIRN_SERVER: exit %d %s", code, out)
	}
}

func TestTail(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	code, out, _ := r.firn("", "tail", "shop.orders", "--server", r.at(), "--from", "13", "--no-follow", "--columns", "total")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 2 || !strings.HasPrefix(lines[0], `{"seq":14,"op":"u","key":{"region":"eu","id":10},"before":null,"after":{"total":"0.03"},`) {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out, _ := r.firn("", "tail", "shop.orders", "--server", r.at(), "--from", "snapshot", "--no-follow"); code != 0 || !strings.HasSuffix(out, `{"snapshot":"complete","applied":15}`+"\n") || strings.Count(out, `"op":"r"`) != 8 {
		t.Errorf("snapshot: exit %d: %s", code, out)
	}
	if code, out, _ := r.firn("", "tail", "shop.orders", "--server", r.at(), "--from", "earliest", "--limit", "3"); code != 0 || strings.Count(out, "\n") != 3 {
		t.Errorf("limit: exit %d: %s", code, out)
	}
	if code, _, errText := r.firn("", "tail", "shop.orders", "--server", r.at(), "--from", "sometime"); code != exitUsage || !strings.Contains(errText, "from=sometime") {
		t.Errorf("from: exit %d %s", code, errText)
	}
	if code, _, _ := r.firn("", "tail", "nope", "--server", r.at()); code != exitNo {
		t.Errorf("no table: exit %d", code)
	}
}

// TestTailResumes: a feed whose connection breaks goes on where it was.
func TestTailResumes(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type result struct {
		code        int
		out, errOut string
	}
	done := make(chan result, 1)
	go func() {
		code, out, errOut := firnVerb(ctx, "", "tail", "shop.orders", "--server", r.at(), "--limit", "4")
		done <- result{code, out, errOut}
	}()
	time.Sleep(100 * time.Millisecond)
	r.put(4, 11, 12)
	time.Sleep(100 * time.Millisecond)
	r.server.CloseClientConnections()
	r.put(4, 13, 14)
	got := <-done
	for i, line := range strings.Split(strings.TrimSpace(got.out), "\n") {
		if !strings.HasPrefix(line, fmt.Sprintf(`{"seq":%d,`, 16+i)) {
			t.Errorf("line %d: %s", i, line)
		}
	}
	if got.code != 0 || strings.Count(got.out, "\n") != 4 || !strings.Contains(got.errOut, "trying again from seq:17") {
		t.Errorf("exit %d\n%s\n%s", got.code, got.out, got.errOut)
	}
}

const (
	row1 = `{"id":1,"region":"eu","total":"0.03"}`
	row2 = `{"id":2,"region":"eu","total":"0.02"}`
	row4 = `{"id":4,"region":"eu","total":"0.01"}`
)

func TestDump(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	want := []string{row1, row2, row4}
	for id := 5; id <= 9; id++ {
		want = append(want, fmt.Sprintf(`{"id":%d,"region":"eu","total":"0.03"}`, id))
	}
	all := strings.Join(want, "\n") + "\n"
	merged := strings.Join([]string{`{"id":1,"region":"eu","total":"0.01"}`, row2, row4, `{"id":5,"region":"eu","total":"0.02"}`}, "\n") + "\n"
	change := `{"_change_action":"DELETE","_file_offset":6,"_transaction_id":2,"id":3,"region":"eu","total":null}` + "\n"
	lake := []string{"--catalog-uri", r.uri()}
	dump := func(args ...string) string {
		t.Helper()
		code, out, errText := r.firn("", append([]string{"dump", "shop.orders"}, args...)...)
		if code != 0 {
			t.Errorf("dump %v: exit %d %s", args, code, errText)
		}
		return out
	}
	check := func(how string, common ...string) {
		t.Helper()
		for from, want := range map[string]string{"index": all, "log": all, "union": all, "merged": merged, "base": ""} {
			if got := dump(append([]string{"--from", from}, common...)...); got != want {
				t.Errorf("%s, %s: got\n%swant\n%s", how, from, got, want)
			}
		}
		got := dump(append([]string{"--from", "change"}, common...)...)
		lines := strings.Split(strings.TrimSpace(got), "\n")
		if len(lines) != 13 || !slices.IsSorted(lines) || !strings.Contains(got, change) {
			t.Errorf("%s, change: %s", how, got)
		}
	}
	check("server", append(lake, "--server", r.at())...)
	cfg := r.config()
	check("config, server running", "-c", cfg)
	check("the server's own lake", "--server", r.at())
	if got := dump("--from", "union", "--columns", "total,id", "-c", cfg); !strings.HasPrefix(got, `{"id":1,"total":"0.03"}`+"\n") {
		t.Errorf("columns: %s", got)
	}
	if got := dump("--from", "merged", "--columns", "total", "--catalog-uri", r.uri()); got != "{\"total\":\"0.01\"}\n{\"total\":\"0.01\"}\n{\"total\":\"0.02\"}\n{\"total\":\"0.02\"}\n" {
		t.Errorf("columns: %s", got)
	}
	if got := dump("--from", "merged", "--count", "--catalog-uri", r.uri()); got != "4\n" {
		t.Errorf("count: %s", got)
	}
	for _, from := range []string{"base", "change"} {
		code, _, errText := r.firn("", "dump", "shop.orders", "--from", from, "--snapshot", "17", "--catalog-uri", r.uri())
		want := "the " + from + " store of shop.orders has no snapshot 17 (any more): firn table snapshots shop.orders lists those there are"
		if code != exitNo || errText != want {
			t.Errorf("snapshot of %s: exit %d %s", from, code, errText)
		}
	}
	r.close()
	check("config, no server", "-c", cfg)
	for args, code := range map[string]int{
		"shop.orders --from nowhere":                                       exitUsage,
		"shop.orders --from base --server 127.0.0.1:1":                     exitOpen,
		"shop.nope --from base --catalog-uri " + r.uri():                   exitNo,
		"nope --from index -c " + cfg:                                      exitNo,
		"shop.orders --from base --columns nope --catalog-uri " + r.uri():  exitUsage,
		"shop.orders --from union --columns nope -c " + cfg:                exitUsage,
		"shop.orders --from index --columns nope -c " + cfg:                exitUsage,
		"shop.orders --from index --snapshot 1 -c " + cfg:                  exitUsage,
		"shop.orders --from base --catalog-uri /no/such/file":              exitOpen,
		"shop.orders --from index -c /no/such/file":                        exitOpen,
		"shop.orders --from index --server 127.0.0.1:1":                    exitOpen,
		"shop.orders --from change --snapshot 17 --catalog-uri " + r.uri(): exitNo,
	} {
		if got, _, errText := r.firn("", append([]string{"dump"}, strings.Fields(args)...)...); got != code {
			t.Errorf("dump %s: exit %d, want %d: %s", args, got, code, errText)
		}
	}
}

func TestTableVerbs(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	cfg := r.config()
	for args, want := range map[string]string{
		"list --server " + r.at():                          "shop.orders  region,id  8     15       7        0          -\n",
		"list -c " + cfg:                                   "shop.orders  region,id  8     15       7        0          -\n",
		"list --catalog-uri " + r.uri():                    "shop.orders  region,id  -     -        7        0          -\n",
		"list --json -c " + cfg:                            `{"tables":[{"name":"shop.orders","format":"mixed-iceberg","key":["region","id"],"applied":15,`,
		"show shop.orders -c " + cfg:                       "applied    15 (log)\n",
		"show shop.orders --catalog-uri " + r.uri():        "change  insert  2      6     ",
		"show shop.orders --json --catalog-uri " + r.uri(): `"change":{"location":"file:`,
		"files shop.orders -c " + cfg:                      "change  delete  3     ",
		"files shop.orders --json -c " + cfg:               `"records":3,`,
		"snapshots shop.orders -c " + cfg:                  "4-7",
		"snapshots shop.orders --json -c " + cfg:           `"firn.seq-to":"7"`,
	} {
		code, out, errText := r.firn("", append([]string{"table"}, strings.Fields(args)...)...)
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("table %s: exit %d\n%s%s\nwant %s", args, code, out, errText, want)
		}
	}
	for args, code := range map[string]int{"show nope -c " + cfg: exitNo, "files shop.nope -c " + cfg: exitNo, "files shop.orders --server 127.0.0.1:1": exitOpen} {
		if got, _, errText := r.firn("", append([]string{"table"}, strings.Fields(args)...)...); got != code {
			t.Errorf("table %s: exit %d, want %d: %s", args, got, code, errText)
		}
	}
}

func TestParkedVerbs(t *testing.T) {
	r := newShopRig(t)
	_, err := r.store.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{{
		Table: r.table.ID, Reason: "not_json", Detail: "offset 3", Time: 1, Position: changelog.Position{Source: "shop", Topic: "orders", Offset: 9}, RecordValue: []byte("{x"),
	}}})
	r.must(err)
	for args, want := range map[string]string{
		"list":                    "1   shop.orders  orders/0/9  not_json  no",
		"list shop.orders --json": `{"id":1,"table":"shop.orders","source":"shop","topic":"orders","partition":0,"offset":9,"reason":"not_json","detail":"offset 3",`,
		"show 1":                  "record value  {x\n",
		"show 1 --json":           `"record_value":{"text":"{x"}`,
	} {
		code, out, errText := r.firn("", append([]string{"parked", "--server", r.at()}, strings.Fields(args)...)...)
		if code == exitUsage { // the flag belongs to the verb
			code, out, errText = r.firn("", append(append([]string{"parked"}, strings.Fields(args)...), "--server", r.at())...)
		}
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("parked %s: exit %d\n%s%s\nwant %s", args, code, out, errText, want)
		}
	}
	if code, out, _ := r.firn("", "parked", "list", "--server", "127.0.0.1:1"); code != exitOpen || out != "" {
		t.Errorf("no server: exit %d %s", code, out)
	}
	if code, out, _ := r.firn("", "parked", "list", "shop.orders", "--limit", "1", "--server", r.at()); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("limit: exit %d %s", code, out)
	}
	if code, _, _ := r.firn("", "parked", "show", "2", "--server", r.at()); code != exitNo {
		t.Errorf("parked show 2: exit %d", code)
	}
	if code, out, _ := r.firn("", "source", "list", "--server", r.at()); code != 0 || !strings.HasPrefix(out, "SOURCE") {
		t.Errorf("source list: exit %d %s", code, out)
	}
	if code, _, _ := r.firn("", "source", "pause", "shop", "--server", r.at()); code != exitOpen {
		t.Errorf("source pause: exit %d", code)
	}
}

// verifyLines runs verify and returns its checks by name.
func (r *shopRig) verify(args ...string) (code int, checks map[string]check, text string) {
	r.t.Helper()
	code, out, errText := r.firn("", append([]string{"verify", "--json"}, args...)...)
	checks = map[string]check{}
	for line := range strings.Lines(out) {
		var c check
		r.must(json.Unmarshal([]byte(line), &c))
		checks[c.Check] = c
	}
	return code, checks, out + errText
}

func TestVerify(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	cfg := r.config()
	for _, args := range [][]string{
		{"--deep", "--server", r.at(), "--catalog-uri", r.uri()}, {"--deep", "-c", cfg}, {"shop.orders", "--deep", "-c", cfg},
	} {
		code, checks, text := r.verify(args...)
		if code != 0 || len(checks) != 6 {
			t.Errorf("%v: exit %d %s", args, code, text)
		}
	}
	if code, checks, text := r.verify("--lake-only", "--catalog-uri", r.uri()); code != 0 || len(checks) != 3 {
		t.Errorf("lake only: exit %d %s", code, text)
	}
	code, out, errText := r.firn("", "verify", "-c", cfg)
	if code != 0 || !strings.Contains(out, "shop.orders                  rows        ok       8 rows at 15 in lookups; 4 rows of the lake at 7 and 8 changes of the log\n") {
		t.Errorf("exit %d %s%s", code, out, errText)
	}
	if code, _, _ := r.verify("nope", "-c", cfg); code != exitNo {
		t.Errorf("nope: exit %d", code)
	}
	if code, checks, text := r.verify("--server", r.at()); code != 0 || len(checks) != 4 {
		t.Errorf("the server's own lake: exit %d %s", code, text)
	}
	if code, _, _ := r.verify("--server", "127.0.0.1:1"); code != exitOpen {
		t.Errorf("no server: exit %d", code)
	}
	r.close()
	if code, checks, text := r.verify("--deep", "-c", cfg); code != 0 || len(checks) != 6 {
		t.Errorf("no server: exit %d %s", code, text)
	}
}

// TestVerifyFinds breaks one thing after another: each is found by its check and named.
func TestVerifyFinds(t *testing.T) {
	files := func(r *shopRig, part string) (paths []string) {
		r.must(filepath.WalkDir(filepath.Join(r.dir, "lake"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.Contains(path, part) {
				paths = append(paths, path)
			}
			return err
		}))
		return paths
	}
	put := func(r *shopRig, id int64, total byte) { // behind the log's back
		s := r.table.Schemas.Current()
		values := []changelog.Value{{I: id}, {B: []byte("eu")}, {B: []byte{total}}}
		r.must(r.store.PutRows(t.Context(), r.table.ID, func(yield func(logstore.RowEntry, error) bool) {
			yield(logstore.RowEntry{Key: s.KeyOf(nil, values), Seq: 1, Row: changelog.AppendRow(nil, s, values)}, nil)
		}))
	}
	for _, c := range []struct {
		name   string
		damage func(r *shopRig)
		checks map[string]string // check to a part of a difference
	}{
		{"a row changed", func(r *shopRig) { put(r, 4, 77) }, map[string]string{
			"rows": `{"region":"eu","id":4}: column "total" is "0.77" in lookups, "0.01" in the lake`, "log": `{"region":"eu","id":4}: column "total"`,
		}},
		{"a row too many", func(r *shopRig) { put(r, 44, 1) }, map[string]string{"rows": `{"region":"eu","id":44}: only in lookups`}},
		{"a deleted row came back", func(r *shopRig) { put(r, 3, 1) }, map[string]string{
			"rows": `{"region":"eu","id":3}: only in lookups`, "log": `{"region":"eu","id":3}: deleted by the log`,
		}},
		{"rows lost", func(r *shopRig) { r.must(r.store.ClearRows(t.Context(), r.table.ID)) }, map[string]string{
			"rows": `{"region":"eu","id":1}: only in the lake with the log's tail`, "log": `{"region":"eu","id":1}: the log has a row, lookups have none`,
		}},
		{"a file is missing", func(r *shopRig) { r.must(os.Remove(files(r, "-I-")[0])) }, map[string]string{
			"references": "missing: ", "statistics": "no such file", "rows": "no such file", "data": "no such file",
		}},
		{"a stray file", func(r *shopRig) {
			r.must(os.WriteFile(filepath.Join(filepath.Dir(files(r, "-I-")[0]), "stray.parquet"), []byte("x"), 0o600))
		}, map[string]string{"references": "not referenced: "}},
		{"an old orphan", func(r *shopRig) {
			path := filepath.Join(filepath.Dir(files(r, "-I-")[0]), "1-I-0-00000-0-1-00001.parquet")
			r.must(os.WriteFile(path, []byte("x"), 0o600))
			r.must(os.Chtimes(path, time.Time{}, time.Now().Add(-2*inFlight)))
		}, map[string]string{"references": "not referenced: "}},
		{"progress ahead of the log", func(r *shopRig) {
			r.must(r.reg.UpdateProgress(t.Context(), r.table.ID, func(p *state.Progress) { p.Optimized = 99 }))
		}, map[string]string{"positions": "optimized 99, flushed 7, applied 15 are not in order"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newShopRig(t)
			r.fill()
			c.damage(r)
			code, checks, text := r.verify("--deep", "--server", r.at(), "--catalog-uri", r.uri())
			if code != exitNo {
				t.Fatalf("exit %d %s", code, text)
			}
			for name, got := range checks {
				want, broken := c.checks[name]
				if got.OK == broken || !strings.Contains(strings.Join(got.Differences, "\n"), want) {
					t.Errorf("%s: %+v, want %q", name, got, want)
				}
			}
		})
	}
}

func TestLineSorter(t *testing.T) {
	for _, limit := range []int{sortMemory, 100, 1} {
		s := newLineSorter()
		s.limit = limit
		var want []string
		for i := range 300 {
			line := fmt.Sprintf("%d line \xff%d", i*7919%300, i%3)
			want = append(want, line)
			if err := s.add([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		var got []string
		for line, err := range s.lines() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(line))
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %d lines, want %d", limit, len(got), len(want))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBenchLookup(t *testing.T) {
	code, out, errText := firnVerb(t.Context(), "", "bench", "lookup", "--rows", "500", "--connections", "2", "--duration", "30ms", "--rounds", "1", "--json")
	var result struct {
		Phases []phase `json:"phases"`
	}
	if err := json.Unmarshal([]byte(out), &result); code != 0 || err != nil || len(result.Phases) != 4 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errText)
	}
	for _, p := range result.Phases {
		if p.Requests == 0 || p.P99 < p.P50 || p.P50 <= 0 {
			t.Errorf("%+v", p)
		}
	}
	r := newShopRig(t)
	r.fill()
	code, out, errText = r.firn("", "bench", "lookup", "--server", r.at(), "--table", "shop.orders", "--connections", "2", "--duration", "30ms", "--rounds", "1")
	if code != 0 || !strings.Contains(out, "hit") {
		t.Errorf("exit %d\n%s%s", code, out, errText)
	}
}

// TestChangesUpTo: verify compares as of the SeqNum of the index, whatever comes after it.
func TestChangesUpTo(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	c, err := newClient(r.at())
	r.must(err)
	keyed := newLineSorter()
	n, err := (&stores{client: c}).changes(t.Context(), "shop.orders", r.table.Schemas.Current(), 7, 9, keyed)
	r.must(err)
	var got []string
	for row, err := range newest(keyed) {
		r.must(err)
		got = append(got, string(row.key)+" "+string(row.row))
	}
	want := []string{`{"region":"eu","id":1} {"id":1,"region":"eu","total":"0.03"}`, `{"region":"eu","id":5} {"id":5,"region":"eu","total":"0.03"}`}
	if n != 2 || !slices.Equal(got, want) {
		t.Errorf("%d changes: %q", n, got)
	}
}

// TestCompareRows: keys that only one side has, rows that differ, and keys that the lake has twice.
func TestCompareRows(t *testing.T) {
	sorter := func(lines ...string) *lineSorter {
		s := newLineSorter()
		for _, l := range lines {
			key, row, _ := strings.Cut(l, " ")
			if err := s.add(append(appendSeq([]byte(key), 0), row...)); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	c := &check{}
	err := compareRows(sorter("1 {}", `2 {"a":1}`, "4 {}", "5 {}"), sorter("1 {}", `2 {"a":2}`, "3 {}", "5 {}", "5 {}"), "A", "B", c)
	want := []string{`2: column "a" is 1 in A, 2 in B`, "3: only in B", "4: only in A", "5: 2 rows in the lake"}
	if err != nil || !slices.Equal(c.Differences, want) || c.Count != 4 {
		t.Errorf("%v, %d: %q", err, c.Count, c.Differences)
	}
}
