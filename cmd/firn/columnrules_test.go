package main

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/rowjson"
	colrules "firn/ingest/columns"
	"firn/ingest/decode"
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
	if want := "drop drop rename rename compute compute hash redact truncate cast constant constant metadata"; strings.Join(got, " ") != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	if got, want := ruledRow(t, in.Routes[0].Rules), `{"id":1,"first_name":"Ann","email":"`+readmeHash+`","zip":"10","account":9000000001,"tier":"gold","domain":"example.com","name":"Ann",`+
		`"region":"eu","shard":7,"_lake_source_ts":"2026-01-01T00:00:00.000000Z","_lake_topic":"shop.public.customers","_lake_partition":0,"_lake_offset":41,`+
		`"_lake_position":"lsn:00000000/00001A2B"}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// printf %s Ann@Example.com | openssl dgst -sha256 -hmac 'salt of the test'
const readmeHash = "9409017211c7aafdb91c22d54f3d730b2452932b80f4d39fab8e84eb048e8907"

// ruledRow is what rules make of a customer.
func ruledRow(t *testing.T, rules []colrules.Rule) string {
	t.Helper()
	set, err := colrules.Compile(colrules.Options{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	d := decode.New(decode.Options{Format: decode.FormatPlain})
	ev, err := d.Decode(decode.Record{Topic: "shop.public.customers", Key: []byte(`{"id":1}`), Value: []byte(`{"before":null,"after":{"id":1,"fname":"Ann","last_name":null,` +
		`"email":"Ann@Example.com","zip":"10115","account":"9000000001","cust_tier":"gold","internal_note":"x","tmp_a":1},"source":{"connector":"postgresql","name":"n",` +
		`"ts_ms":1767225600000,"db":"d","schema":"public","table":"customers","lsn":6699},"op":"c"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Applier().Event(ev, colrules.Origin{Topic: "shop.public.customers", Offset: 41}); err != nil {
		t.Fatal(err)
	}
	m, s, err := decode.Plan(nil, ev.Shape, decode.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := rowjson.NewEncoder(changelog.Schemas{s}, rowjson.Options{})
	if err != nil {
		t.Fatal(err)
	}
	row, err := enc.AppendRow(nil, m.Row(nil, ev.After))
	if err != nil {
		t.Fatal(err)
	}
	return string(row)
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
