package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestConfigFiles loads every file of testdata/config: X.good.yaml must load, and must load to the same again after
// `config show`; X.bad.yaml must give exactly the lines of X.bad.want.
func TestConfigFiles(t *testing.T) {
	good, bad := match(t, "*.good.yaml"), match(t, "*.bad.yaml")
	for _, file := range good {
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, err := loadConfig(file)
			if err != nil {
				t.Fatal(err)
			}
			shown, err := showConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseConfig("shown", shown)
			if err != nil {
				t.Fatalf("what config show prints does not load: %v\n%s", err, shown)
			}
			if twice, _ := showConfig(again); string(twice) != string(shown) {
				t.Errorf("config show is not stable:\n%s\n%s", shown, twice)
			}
		})
	}
	for _, file := range bad {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text := read(t, file)
			_, err := parseConfig(filepath.Base(file), []byte(text))
			if err == nil {
				t.Fatal("it loads")
			}
			if want := strings.TrimSpace(read(t, strings.TrimSuffix(file, ".yaml")+".want")); err.Error() != want {
				t.Errorf("got:\n%v\nwant:\n%s", err, want)
			}
		})
	}
}

func match(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "config", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConfigOverrideIsOverDefaults(t *testing.T) {
	cfg, err := parseConfig("f", []byte(`
tables:
  overrides: [{match: 'a\..*', flush: {bytes: 1MiB}, properties: {x: y}}, {match: 'a\.b', flush: {bytes: 2MiB}}]
  defaults: {flush: {interval: 3s}}
sources: [{name: s, file: {path: x}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Table("a.b"); got.Flush.Bytes != 1<<20 || got.Flush.Interval != 3*time.Second || got.Properties["x"] != "y" {
		t.Errorf("a.b has %+v", got)
	}
	if got := cfg.Table("b.a"); got.Flush.Bytes != 64<<20 || len(got.Properties) != 0 {
		t.Errorf("b.a has %+v", got)
	}
}

// TestConfigSecrets: values that come out of ${…} are used, and are not shown.
func TestConfigSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FIRN_TEST_BROKER", "10.0.0.1:9092")
	t.Setenv("FIRN_TEST_MEMORY", "123MiB")
	cfg, err := parseConfig("f", []byte(`
sources: [{name: s, topics: [a], kafka: {brokers: ["${FIRN_TEST_BROKER}"], sasl: {mechanism: plain, user: u, password: "${file:`+secret+`}"}}}]
catalog: {type: rest, uri: 'https://me:hush@c:8181', properties: {address: "${FIRN_TEST_BROKER}", token: "${FIRN_TEST_BROKER}", header.Key: hush-hush, credential: "me:hush"}}
limits: {memory: "${FIRN_TEST_MEMORY}"}
`))
	if err != nil {
		t.Fatal(err)
	}
	k := cfg.Sources[0].Kafka
	if k.Brokers[0] != "10.0.0.1:9092" || k.SASL.Password != "hush" || cfg.Limits.Memory != 123<<20 {
		t.Errorf("kafka %+v, memory %s", k, cfg.Limits.Memory)
	}
	shown, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hush", "10.0.0.1", "123"} {
		if strings.Contains(string(shown), word) {
			t.Errorf("config show prints the secret %q", word)
		}
	}
}

// TestConfigErrorsHideSecrets: an error about a value that came out of ${…} shows the reference, whatever is wrong with it.
func TestConfigErrorsHideSecrets(t *testing.T) {
	const secret = "hush(hunter2"
	t.Setenv("FIRN_TEST_SECRET", secret)
	t.Setenv("FIRN_TEST_SMALL", "7")
	for text, want := range map[string]string{
		`log: {level: "${FIRN_TEST_SECRET}"}`:                                                                    `log.level: "${FIRN_TEST_SECRET}" is not one of`,
		`limits: {connections: "x${FIRN_TEST_SECRET}"}`:                                                          `limits.connections: "x${FIRN_TEST_SECRET}" is no whole number`,
		`limits: {memory: "${FIRN_TEST_SECRET}"}`:                                                                `limits.memory: "${FIRN_TEST_SECRET}" is no size`,
		`limits: {disk: "${FIRN_TEST_SMALL}"}`:                                                                   `limits.disk: "${FIRN_TEST_SMALL}" is less than 64MiB`,
		`tables: {defaults: {flush: {interval: "${FIRN_TEST_SECRET}"}}}`:                                         `interval: "${FIRN_TEST_SECRET}" is no duration`,
		`tables: {defaults: {optimize: {enabled: "${FIRN_TEST_SECRET}"}}}`:                                       `enabled: "${FIRN_TEST_SECRET}" is not true or false`,
		`tables: {defaults: {optimize: {major: {duplicate_ratio: "${FIRN_TEST_SECRET}"}}}}`:                      `"${FIRN_TEST_SECRET}" is no number`,
		`tables: {overrides: [{match: a, format: "${FIRN_TEST_SECRET}"}]}`:                                       `overrides[0].format: "${FIRN_TEST_SECRET}" is not`,
		`catalog: {warehouse: "${FIRN_TEST_SECRET}"}`:                                                            `catalog.warehouse: "${FIRN_TEST_SECRET}" does not begin`,
		`catalog: {warehouse: "s3://me:hush(hunter2@host/"}`:                                                     `"s3://********@host/" does not begin`,
		`listen: {data: "${FIRN_TEST_SECRET}"}`:                                                                  `listen.data: "${FIRN_TEST_SECRET}" is not HOST:PORT`,
		`sources: [{name: "${FIRN_TEST_SECRET}/", file: {path: x}}]`:                                             `name: "${FIRN_TEST_SECRET}/" is no name`,
		`sources: [{name: s, file: {path: x}, topics: ["${FIRN_TEST_SECRET}"]}]`:                                 `topics[0]: "${FIRN_TEST_SECRET}" is no regular expression: missing closing )` + "\n",
		`sources: [{name: s, file: {path: x}, routes: [{topic: a, table: "${FIRN_TEST_SECRET}"}]}]`:              `table: "${FIRN_TEST_SECRET}" is not namespace.table`,
		`sources: [{name: s, file: {path: x}, routes: [{topic: a, table: b.c, key: "${FIRN_TEST_SECRET}"}]}]`:    `key: "${FIRN_TEST_SECRET}" is not message`,
		`sources: [{name: s, kafka: {brokers: ["${FIRN_TEST_SECRET}"]}, topics: [a]}]`:                           `brokers[0]: "${FIRN_TEST_SECRET}" is not HOST:PORT`,
		`sources: [{name: s, kafka: {brokers: ["a:1"], sasl: {mechanism: "${FIRN_TEST_SECRET}"}}, topics: [a]}]`: `mechanism: "${FIRN_TEST_SECRET}" is not one of`,
	} {
		file := filepath.Join(t.TempDir(), "firn.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for verb, args := range map[string][]string{"check": {"config", "check", file}, "serve": {"serve", "-c", file}} {
			code, out, errText := firnVerb(t.Context(), "", args...)
			if code == 0 || !strings.Contains(errText+"\n", want) || strings.Contains(out+errText, "hunter2") {
				t.Errorf("%s of %s: exit %d\n%s\nwant %s", verb, text, code, errText, want)
			}
		}
	}
}

// TestServeHidesSecrets: errors and log lines of other parts do not show secrets either.
func TestServeHidesSecrets(t *testing.T) {
	t.Setenv("FIRN_TEST_DIR", "/proc/no-such-secret")
	cfg, err := parseConfig("f", []byte(`
data: "${FIRN_TEST_DIR}/data"
listen: {data: "127.0.0.1:0", admin: "127.0.0.1:0"}
sources: [{name: s, topics: [a], kafka: {brokers: ["a:1"], sasl: {mechanism: plain, user: u, password: hunter2}}}]
catalog: {properties: {url: "postgres://me:letmein@db/x"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "firn.yaml")
	if err := os.WriteFile(file, []byte("data: ${FIRN_TEST_DIR}/data\nlisten: {data: '127.0.0.1:0', admin: '127.0.0.1:0'}\nsources: [{name: s, file: {path: x}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"serve", "-c", file}, {"table", "list", "-c", file}, {"dump", "a.b", "-c", file}} {
		code, out, errText := firnVerb(t.Context(), "", args...)
		if code != exitOpen || !strings.Contains(errText, "${FIRN_TEST_DIR}") || strings.Contains(out+errText, "no-such-secret") {
			t.Errorf("%v: exit %d %s%s", args, code, out, errText)
		}
	}
	var log strings.Builder
	cfg.newLogger(nil, &log).Error("cannot use hunter2", "err", errors.New("open /proc/no-such-secret/data"), "url", "postgres://me:letmein@db/x", "n", 1)
	want := `msg="cannot use ********" err="open ${FIRN_TEST_DIR}/data" url=postgres://********@db/x n=1`
	if !strings.Contains(log.String(), want) {
		t.Errorf("log: %swant %s", log.String(), want)
	}
}

func TestConfigShowMasks(t *testing.T) {
	var props strings.Builder
	secrets := []string{
		"password", "jdbc.password", "s3.secret-access-key", "s3.access-key-id", "s3.session-token", "token", "credential", "adls.account-key",
		"header.Authorization", "header.X-API-Key", "apikey", "client_secret", "proxy-passwd", "header.Cookie",
	}
	for i, name := range secrets {
		fmt.Fprintf(&props, "    %s: hunter%d\n", name, i)
	}
	text := "sources: [{name: shop, topics: [a], kafka: {brokers: ['a:1'], sasl: {mechanism: plain, user: u, password: hunter2}}}]\n" +
		"tables:\n  defaults:\n    properties: {x.secret: hunter2, plain: seen1}\n  overrides: [{match: a, properties: {token: hunter2}}]\n" +
		"catalog:\n  type: rest\n  uri: https://me:hunter2@db/x?password=hunter3&ssl=seen2\n  properties:\n" + props.String() +
		"    uri: http://hunter2@host/p@th\n    dsn: host=seen3;AccountKey=hunter2;x\n    monkeys: seen4\n    region: seen5\n"
	cfg, err := parseConfig("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(shown)) {
		if strings.Contains(line, "hunter") {
			t.Errorf("config show prints a secret: %s", line)
		}
	}
	for _, want := range []string{"seen1", "ssl=seen2", "host=seen3", "seen5", "https://********@db/x?password=********&", "http://********@host/p@th", "s3.session-token: '********'"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("config show does not print %s:\n%s", want, shown)
		}
	}
}

// TestConfigShowsEffective: what is left out follows from other settings, and is shown.
func TestConfigShowsEffective(t *testing.T) {
	cfg, err := parseConfig("f", []byte(`
sources:
  - {name: shop, topics: [a], format: json_schema, kafka: {brokers: ['a:1'], tls: {ca: x.pem}}, routes: [{topic: a, table: b.c}]}
  - {name: rec, file: {path: x}}
`))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"group: firn-shop\n", "enabled: true\n", "schema: always\n", "key: message\n", "topics: [.*]\n"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("config show does not print %s", want)
		}
	}
}

func TestConfigExitStatus(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	for file, text := range map[string]string{good: "sources: [{name: s, file: {path: x}}]\n", bad: "sources: []\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, verb := range []string{"check", "show"} {
		for file, want := range map[string]int{good: 0, bad: exitNo, filepath.Join(dir, "none.yaml"): exitOpen, dir: exitOpen} {
			if code, _, errText := firnVerb(t.Context(), "", "config", verb, file); code != want {
				t.Errorf("config %s %s: exit %d, want %d: %s", verb, file, code, want, errText)
			}
		}
	}
}

// TestReload: a changed secret is a difference, and lists without an entry are [].
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "firn.yaml")
	write := func(level, password string) {
		text := fmt.Sprintf("log: {level: %s}\nsources: [{name: s, topics: [a], kafka: {brokers: ['a:1'], sasl: {mechanism: plain, user: u, password: %s}}}]\n", level, password)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("info", "a")
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	level := new(slog.LevelVar)
	a := &admin{metrics: prometheus.NewRegistry(), reload: func() ([]string, []string, error) { return reload(cfg, level) }}
	for _, step := range []struct{ level, password, want string }{
		{"info", "a", `{"applied":[],"needs_restart":[]}`},
		{"info", "b", `{"applied":[],"needs_restart":["sources[0].kafka.sasl.password"]}`},
		{"debug", "a", `{"applied":["log.level"],"needs_restart":[]}`},
	} {
		write(step.level, step.password)
		w := httptest.NewRecorder()
		a.handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/config:reload", nil))
		if got := strings.TrimSpace(w.Body.String()); got != step.want {
			t.Errorf("%+v: got %s", step, got)
		}
	}
	if level.Level() != slog.LevelDebug {
		t.Errorf("level is %s", level.Level())
	}
}

// TestSampleConfig holds deploy/firn.yaml, the configuration reference, against the settings that there are: it is what
// `firn config show` prints of one Kafka source.
func TestSampleConfig(t *testing.T) {
	cfg := defaultConfig()
	src := defaultSource()
	src.Name = "shop"
	src.Topics = []string{`shop\..*`}
	kafka := defaultKafka()
	kafka.Brokers = []string{"127.0.0.1:9092"}
	src.Kafka = &kafka
	route := defaultRoute()
	route.Topic, route.Table = `shop\.public\.(.*)`, "shop.$1"
	src.Routes = []RouteConfig{route}
	cfg.Sources = []SourceConfig{src}
	cfg.fill()
	want, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "deploy", "firn.yaml")
	if os.Getenv("FIRN_UPDATE") != "" {
		if err := os.WriteFile(file, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, file); got != string(want) {
		t.Errorf("%s is not what config show prints: FIRN_UPDATE=1 go test ./cmd/firn -run TestSampleConfig writes it", file)
	}
	if _, err := loadConfig(file); err != nil {
		t.Error(err)
	}
}
