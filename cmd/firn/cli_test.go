package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// TestUsageErrors: a command line that cannot be meant is exit status 2, nothing on standard output, and a message that
// says what is wrong with it.
func TestUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"nosuch":                            `firn has no verb "nosuch" (there are bench, config, demo, dump, get, `,
		"nosuch --server x":                 `firn has no verb "nosuch"`,
		"table drop x":                      `firn table has no verb "drop" (there are adopt, files, list, release, show, snapshots)`,
		"table nosuch":                      `firn table has no verb "nosuch"`,
		"table lst":                         `did you mean list?`,
		"parked nosuch":                     `firn parked has no verb "nosuch" (there are edit, list, replay, show, skip)`,
		"parked skip x":                     `parked skip: "x" is no id`,
		"source nosuch":                     `firn source has no verb "nosuch" (there are list, pause, reset, resume, show)`,
		"config nosuch":                     `firn config has no verb "nosuch" (there are check, show)`,
		"bench nosuch":                      `firn bench has no verb "nosuch" (there are ingest, lookup)`,
		"completion nosuch":                 `firn completion has no verb "nosuch"`,
		"help nosuch":                       `firn has no verb "nosuch"`,
		"help table nosuch":                 `firn table has no verb "nosuch"`,
		"table --nosuch":                    `table: unknown flag: --nosuch`,
		"table list --nosuch":               `table list: unknown flag: --nosuch`,
		"get a.b --nosuch":                  `get: unknown flag: --nosuch`,
		"get a.b":                           `get: accepts 2 arg(s), received 1`,
		"get a.b --min -1":                  `get: accepts 2 arg(s), received 1`,
		"get a.b 1 --timeout -1x":           `invalid argument "-1x" for "--timeout"`,
		"tail a.b --limit -1":               `tail: --limit -1 is negative`,
		"parked list --limit -1":            `parked list: --limit -1 is negative`,
		"replay x --to a:1 --partitions -1": `replay: --partitions -1`,
		"replay x":                          `replay: --to must name a broker`,
		"demo --rate 0":                     `demo: --rate must be positive`,
		"demo --for -1s":                    `--for must not be negative`,
		"bench ingest --kafka a --topic b --rate -1": `--rate must not be negative`,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		code, out, errText := firnVerb(ctx, "", strings.Fields(args)...)
		cancel()
		if code != exitUsage || out != "" || !strings.Contains(errText, want) {
			t.Errorf("firn %s: exit %d, standard output %q, standard error %q; want %q", args, code, out, errText, want)
		}
	}
}

// TestHelp: every verb shows an example of itself.
func TestHelp(t *testing.T) {
	var visit func(path []string, cmd *cobra.Command)
	visit = func(path []string, cmd *cobra.Command) {
		code, out, errText := firnVerb(t.Context(), "", append(slices.Clone(path), "-h")...)
		if code != 0 || !strings.Contains(out, "Examples:\n") || !strings.Contains(out, strings.Join(append([]string{"firn"}, path...), " ")) {
			t.Errorf("firn %s -h: exit %d\n%s%s", strings.Join(path, " "), code, out, errText)
		}
		if code, byHelp, _ := firnVerb(t.Context(), "", append([]string{"help"}, path...)...); code != 0 || byHelp != out {
			t.Errorf("firn help %s: exit %d\n%s\nwant\n%s", strings.Join(path, " "), code, byHelp, out)
		}
		for _, c := range cmd.Commands() {
			visit(append(slices.Clone(path), c.Name()), c)
		}
	}
	visit(nil, newRootCmd(&env{}))
}

// TestGetNegativeKeys: a key that begins with a negative number is no flag.
func TestGetNegativeKeys(t *testing.T) {
	r := newShopRig(t)
	for i, key := range [][]string{{"id"}, {"id", "region"}} {
		schema, err := changelog.NewSchema([]changelog.Column{
			{Name: "id", Type: changelog.Primitive(changelog.Long)}, {Name: "region", Type: changelog.Primitive(changelog.String)},
		}, key)
		r.must(err)
		table, err := r.reg.Create(t.Context(), fmt.Sprintf("shop.by%d", len(key)), schema, state.TopicRef{Source: "shop", Topic: key[i]}, nil)
		r.must(err)
		values := []changelog.Value{{I: -1}, {B: []byte("-x")}}
		s := table.Schemas.Current()
		_, err = r.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: table.ID, Changes: []changelog.Change{{
			Op: changelog.OpUpdate, Key: s.KeyOf(nil, values), After: changelog.AppendRow(nil, s, values), Position: changelog.Position{Source: "shop", Topic: key[i]},
		}}}}})
		r.must(err)
	}
	for args, want := range map[string]string{
		"shop.by1 -1 --json --server " + r.at():                 `"row":{"id":-1,"region":"-x"}`,
		"--server " + r.at() + " shop.by1 -1 --json":            `"row":{"id":-1,"region":"-x"}`,
		"--json shop.by1 --server=" + r.at() + " -1":            `"row":{"id":-1,"region":"-x"}`,
		"--server " + r.at() + " --json -- shop.by1 -1":         `"row":{"id":-1,"region":"-x"}`,
		"shop.by2 -1,-x --columns id --json --server " + r.at(): `"row":{"id":-1}`,
	} {
		if code, out, errText := firnVerb(t.Context(), "", append([]string{"get"}, strings.Fields(args)...)...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("get %s: exit %d %s%s", args, code, out, errText)
		}
	}
	code, _, errText := firnVerb(t.Context(), "", "get", "shop.by1", "-2", "--server", r.at())
	if code != exitNo || !strings.Contains(errText, "no row with key -2") {
		t.Errorf("get -2: exit %d %s", code, errText)
	}
}

// TestTableOfLake: what the lake alone tells of a table, before and after its changes are in the base store.
func TestTableOfLake(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	table := func(args ...string) string {
		t.Helper()
		code, out, errText := r.firn("", append(append([]string{"table"}, args...), "--catalog-uri", r.uri())...)
		if code != 0 {
			t.Errorf("table %v: exit %d %s", args, code, errText)
		}
		return out
	}
	for _, optimized := range []string{"0", "7"} {
		want := "TABLE        KEY        ROWS  APPLIED  FLUSHED  OPTIMIZED  LAG\nshop.orders  region,id  -     -        7        " + optimized + "          -\n"
		if got := table("list"); got != want {
			t.Errorf("list: got\n%swant\n%s", got, want)
		}
		summary := `"name":"shop.orders","format":"mixed-iceberg","key":["region","id"],"applied":null,"flushed":7,"optimized":` + optimized + `,"rows":null,"lag_seconds":null`
		if got := table("list", "--json"); got != `{"tables":[{`+summary+"}]}\n" {
			t.Errorf("list --json: %s", got)
		}
		got := table("show", "shop.orders")
		for _, line := range []string{"rows       -", "applied    -", "flushed    7 (change store)", "optimized  " + optimized + " (base store)", "oldest     -", "lag        -", "watermark  -"} {
			if !strings.Contains(got, line+"\n") {
				t.Errorf("show: no line %q in\n%s", line, got)
			}
		}
		if got := table("show", "shop.orders", "--json"); !strings.HasPrefix(got, "{"+summary+`,"oldest":null,"schema":{`) || !strings.Contains(got, `"partition":[]`) {
			t.Errorf("show --json: %s", got)
		}
		if code, _, errText := r.firn("", "optimize", "shop.orders", "--type", "minor", "--catalog-uri", r.uri()); code != 0 {
			t.Fatalf("optimize: exit %d %s", code, errText)
		}
	}
	lake, err := r.catalog.Load(t.Context(), "shop.orders")
	r.must(err)
	r.must(lake.SetProperties(t.Context(), map[string]string{"watermark.table": "1700000000123"}))
	if got := table("show", "shop.orders"); !strings.Contains(got, "watermark  2023-11-14T22:13:20.123Z (change store), 2023-11-14T22:13:20.123Z (base store)\n") {
		t.Errorf("show: no watermark in\n%s", got)
	}
	// A table that firn has not flushed to yet.
	schema := r.table.Schemas.Current()
	_, err = r.catalog.Create(t.Context(), "shop.empty", schema, nil)
	r.must(err)
	if got := table("list"); !strings.Contains(got, "shop.empty   region,id  -     -        -        -          -\n") {
		t.Errorf("list: %s", got)
	}
}

// TestTableJSONOfServer: show --json has all that the server tells.
func TestTableJSONOfServer(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	var server, shown map[string]any
	c, err := newClient(r.at())
	r.must(err)
	r.must(c.getJSON(t.Context(), "/v1/tables/shop.orders", &server))
	code, out, errText := r.firn("", "table", "show", "shop.orders", "--json", "--server", r.at())
	if code != 0 {
		t.Fatalf("exit %d %s", code, errText)
	}
	r.must(json.Unmarshal([]byte(out), &shown))
	for key := range server {
		if _, ok := shown[key]; !ok {
			t.Errorf("show --json has no %s", key)
		}
	}
}

// TestSourceKinds: a source's kind is that of the configuration.
func TestSourceKinds(t *testing.T) {
	r := newShopRig(t)
	r.fill()
	cfg := &Config{Sources: []SourceConfig{{Name: "shop", Kafka: &KafkaConfig{}}, {Name: "rec", File: &FileConfig{}}}}
	for name, want := range map[string]string{"shop": "kafka", "rec": "file", "gone": "unknown"} {
		if got := cfg.kind(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	stored, err := storedSources{r.store, r.reg, cfg}.Sources(t.Context())
	if err != nil || len(stored) != 1 || stored[0].Kind != "kafka" || len(stored[0].Partitions) != 1 {
		t.Errorf("%+v %v", stored, err)
	}
}

// TestServerSourceKind: GET /v1/sources of a server has the kinds.
func TestServerSourceKind(t *testing.T) {
	s, _, err := openFileServer(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	sources, err := sourceStatus{s.pipeline, s.cfg}.Sources(t.Context())
	if err != nil || len(sources) != 1 || sources[0].Name != "rec" || sources[0].Kind != "file" {
		t.Errorf("%+v %v", sources, err)
	}
}

// TestNewerFormat: a data directory of a newer firn is refused with one error, before anything is said to be open.
func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	s, log, err := openFileServer(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), `msg="data directory is open"`) {
		t.Errorf("log: %s", log)
	}
	if err := s.db.Set(keyspace.Meta(nil, "format"), []byte("2"), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	_, log, err = openFileServer(t, dir)
	if err == nil || !strings.Contains(err.Error(), "newer version of firn") || log.Len() > 0 {
		t.Errorf("%v; log: %s", err, log)
	}
}

// openFileServer opens a server over dir with a source that reads an empty file.
func openFileServer(t *testing.T, dir string) (*server, *strings.Builder, error) {
	t.Helper()
	cfg, err := parseConfig("f", fmt.Appendf(nil, `
data: %[1]s/data
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
catalog: {uri: %[1]s/catalog.db, warehouse: "file:%[1]s/lake"}
sources: [{name: rec, file: {path: %[2]s}}]
`, dir, filepath.Join("testdata", "config", "empty.bad.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	log := &strings.Builder{}
	s, err := openServer(t.Context(), cfg, cfg.newLogger(nil, log), nil)
	return s, log, err
}

// TestDemoWelcome: the demo says where its broker is.
func TestDemoWelcome(t *testing.T) {
	s, _, err := openFileServer(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	own := demoConfig(demoFlags{}, &demoBroker{fake: new(kfake.Cluster)})
	s.cfg = demoConfig(demoFlags{dir: t.TempDir()}, &demoBroker{addrs: []string{"127.0.0.1:1234"}})
	if own.Sources[0].Topics[0] != ".*" || s.cfg.Sources[0].Topics[0] == ".*" {
		t.Errorf("topics: %q of the own broker, %q of another", own.Sources[0].Topics, s.cfg.Sources[0].Topics)
	}
	var out strings.Builder
	(&demoRun{server: s, out: &out}).welcome()
	for _, want := range []string{"broker   127.0.0.1:1234", "firn replay RECORDING.jsonl.gz --to 127.0.0.1:1234\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}
