package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestConfigSecrets(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FIRN_TEST_BROKER", "10.0.0.1:9092")
	cfg, err := parseConfig("f", []byte(`
sources: [{name: s, kafka: {brokers: ["${FIRN_TEST_BROKER}"], sasl: {mechanism: plain, user: u, password: "${file:`+secret+`}"}}}]
catalog: {type: rest, uri: 'https://me:hush@c:8181', properties: {token: "${FIRN_TEST_BROKER}", header.Key: hush-hush, credential: "me:hush"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	k := cfg.Sources[0].Kafka
	if k.Brokers[0] != "10.0.0.1:9092" || k.SASL.Password != "hush" {
		t.Errorf("kafka %+v", k)
	}
	shown, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hush", "10.0.0.1"} {
		if strings.Contains(string(shown), word) {
			t.Errorf("config show prints the secret %q", word)
		}
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
	src.Routes = []RouteConfig{{Topic: `shop\.public\.(.*)`, Table: "shop.$1"}}
	cfg.Sources = []SourceConfig{src}
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
