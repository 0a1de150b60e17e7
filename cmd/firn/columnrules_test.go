package main

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

// readmeConfigs returns the YAML of the README that begins with a comment of its file's name.
func readmeConfigs(t *testing.T, name string) string {
	t.Helper()
	m := regexp.MustCompile("(?s)```yaml\n# " + regexp.QuoteMeta(name) + "\n(.*?)```").FindStringSubmatch(read(t, "../../README.md"))
	if m == nil {
		t.Fatalf("README.md has no %s", name)
	}
	return m[1]
}

// TestReadmeColumnRules: the README's example of column rules is one that loads, and becomes the route's rules.
func TestReadmeColumnRules(t *testing.T) {
	t.Setenv("FIRN_SALT", "salt of the test")
	cfg, err := parseConfig("columns.yaml", []byte(readmeConfigs(t, "columns.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	in, err := newInput(cfg.Sources[0], "i", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range in.Routes[0].Rules {
		got = append(got, r.Action.String())
	}
	if want := "drop drop rename rename constant constant metadata"; strings.Join(got, " ") != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if err := in.Routes[0].Validate(); err != nil {
		t.Error(err)
	}
}
