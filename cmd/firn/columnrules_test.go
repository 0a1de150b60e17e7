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
	if want := "drop drop rename rename hash redact truncate cast constant constant metadata"; strings.Join(got, " ") != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if err := in.Routes[0].Validate(); err != nil {
		t.Error(err)
	}
}

// TestColumnSaltIsSecret: a salt is used as it is, and not shown, whether it stands in the file or comes from elsewhere.
func TestColumnSaltIsSecret(t *testing.T) {
	t.Setenv("FIRN_SALT", "from the environment")
	cfg, err := parseConfig("f", []byte(`
sources: [{name: s, file: {path: x}, routes: [{topic: a, table: b.c, columns: [{rule: hash, columns: [e], salt: "${FIRN_SALT}"}, {rule: hash, columns: [f], salt: in the file itself}]}]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	rules := cfg.Sources[0].Routes[0].columnRules()
	if rules[0].Salt != "from the environment" || rules[1].Salt != "in the file itself" {
		t.Errorf("%+v", rules)
	}
	shown, err := showConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"from the environment", "in the file itself"} {
		if strings.Contains(string(shown), secret) || strings.Contains(cfg.hider()("it is "+secret), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
	if n := strings.Count(string(shown), "salt: '"+masked+"'") + strings.Count(string(shown), "salt: \""+masked+"\"") + strings.Count(string(shown), "salt: "+masked); n != 2 {
		t.Errorf("%d masked salts in\n%s", n, shown)
	}
}
