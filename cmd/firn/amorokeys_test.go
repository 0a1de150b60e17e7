package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
)

// keyedEvents writes a recorded topic of a PostgreSQL table with the key (u uuid, b bytea): rows are "uuid hex v"; v "-" is a delete.
func keyedEvents(topic, name string, rows ...string) string {
	var out strings.Builder
	uuid := fmt.Sprintf(`{"type":"string","optional":false,"name":"io.debezium.data.Uuid","field":%q}`, name)
	const bytea = `{"type":"bytes","optional":false,"field":"b"}`
	for i, row := range rows {
		f := strings.Fields(row)
		b64 := ""
		if f[1] != "." {
			raw := make([]byte, len(f[1])/2)
			must(fmt.Sscanf(f[1], "%x", &raw))
			b64 = base64.StdEncoding.EncodeToString(raw)
		}
		key := fmt.Sprintf(`{%q:%q,"b":%q`, name, f[0], b64)
		op, after := "c", key+fmt.Sprintf(`,"other":%q,"v":%s}`, f[0], f[2])
		if f[2] == "-" {
			op, after = "d", "null"
		}
		record := map[string]any{"topic": topic, "partition": 0, "offset": i, "timestamp": 1767225600000 + i}
		record["key"] = fmt.Sprintf(`{"schema":{"type":"struct","fields":[%s,%s],"optional":false,"name":"k"},"payload":%s}}`, uuid, bytea, key)
		record["value"] = fmt.Sprintf(`{"schema":{"type":"struct","fields":[`+
			`{"type":"struct","fields":[%[1]s],"optional":true,"name":"V","field":"before"},{"type":"struct","fields":[%[1]s],"optional":true,"name":"V","field":"after"},`+
			`{"type":"struct","fields":[{"type":"string","optional":false,"field":"connector"},{"type":"int64","optional":true,"field":"lsn"},{"type":"string","optional":false,"field":"table"}],`+
			`"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"},{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"Envelope"},`+
			`"payload":{"before":null,"after":%[2]s,"source":{"connector":"postgresql","lsn":%[3]d,"table":"t"},"op":%[4]q}}`,
			uuid+","+bytea+`,{"type":"string","optional":true,"name":"io.debezium.data.Uuid","field":"other"},{"type":"int32","optional":true,"field":"v"}`, after, 1000+i, op)
		out.Write(must(json.Marshal(record)))
		out.WriteByte('\n')
	}
	return out.String()
}

// TestAmoroKeys: uuid and bytea keys are text in a table by default, and stay what they are where the route says so; rows are found
// by key, replaced and deleted in log and lake alike. A key that the format cannot carry is parked, and all else flows.
func TestAmoroKeys(t *testing.T) {
	const a, b, c = "f79c3e09-677c-4bbd-a479-3f349cb785e7", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"
	rows := []string{a + " 01ff80 1", b + " . 2", c + " 00 3", a + " 01ff80 4", b + " . -", a + " 01ff81 5", c + " 00 -", c + " 00 6"}
	dir := t.TempDir()
	events := filepath.Join(dir, "events.jsonl")
	if err := os.WriteFile(events, []byte(keyedEvents("x.text", "u", rows...)+keyedEvents("x.native", "u", rows...)+keyedEvents("x.comma", "u,v", rows[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "firn.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
data: %[1]s/data
listen: {data: '127.0.0.1:0', admin: '127.0.0.1:0'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
tables: {defaults: {flush: {interval: 100ms}, optimize: {minor: {interval: 1s}}}}
sources:
  - name: s
    file: {path: %[1]s/events.jsonl}
    routes: [{topic: 'x\.native', table: x.native, amoro_keys: false}, {topic: 'x\.text', table: x.text}]
`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s, end := startServer(t, config)
	defer end()
	at := s.data.Addr().String()
	want := func(native bool) string {
		u := strings.ToLower(c)
		return fmt.Sprintf(`{"b":"00","other":%[1]q,"u":%[1]q,"v":6}`+"\n"+`{"b":"01ff80","other":%[2]q,"u":%[2]q,"v":4}`+"\n"+`{"b":"01ff81","other":%[2]q,"u":%[2]q,"v":5}`+"\n", u, a)
	}
	for name, types := range map[string]string{"x.text": "string string uuid", "x.native": "uuid binary uuid"} {
		await(t, func() string {
			_, out, errOut := firnVerb(t.Context(), "", "dump", name, "--from", "base", "--server", at)
			if out == want(name == "x.native") {
				return ""
			}
			return name + ": " + out + errOut
		})
		lake := must(s.catalog.Load(t.Context(), name))
		columns := lake.Schemas().Current().Columns
		if got := fmt.Sprint(columns[0].Type, " ", columns[1].Type, " ", columns[2].Type); got != types {
			t.Errorf("%s: %s, want %s", name, got, types)
		}
		for _, store := range lake.Stores() {
			if got := store.Properties()[mixed.PropAmoroKeys] == "false"; got != (name == "x.native") {
				t.Errorf("%s: %s is %q", name, mixed.PropAmoroKeys, store.Properties()[mixed.PropAmoroKeys])
			}
		}
		for _, from := range []string{"merged", "union", "index", "log"} {
			if _, out, errOut := firnVerb(t.Context(), "", "dump", name, "--from", from, "--server", at); out != want(false) {
				t.Errorf("%s from %s: %s%s", name, from, out, errOut)
			}
		}
		if code, out, errOut := firnVerb(t.Context(), "", "get", name, a+",01ff81", "--json", "--server", at); code != 0 || !strings.Contains(out, `"v":5`) {
			t.Errorf("%s: get %d %s%s", name, code, out, errOut)
		}
		if code, out, _ := firnVerb(t.Context(), "", "get", name, b+",", "--server", at); code == 0 {
			t.Errorf("%s: a deleted key is there: %s", name, out)
		}
	}
	if code, out, _ := firnVerb(t.Context(), "", "parked", "list", "--server", at); code != 0 || !strings.Contains(out, "table_unfit") || strings.Count(out, "\n") > 3 {
		t.Errorf("parked: %d\n%s", code, out)
	}
	if _, ok := s.registry.Table("x.comma"); ok {
		t.Error("a table was made whose key the format cannot carry")
	}
}

// await fails the test unless what returns "" within ten seconds.
func await(t *testing.T, what func() string) {
	t.Helper()
	var last string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if last = what(); last == "" {
			return
		}
	}
	t.Fatal(last)
}

// TestKeyProperties: only a key that Amoro does not take marks a table; what the format cannot carry is an error, whatever the marks.
func TestKeyProperties(t *testing.T) {
	key := func(name string, k changelog.Kind) *changelog.Schema {
		return must(changelog.NewSchema([]changelog.Column{{Name: name, Type: changelog.Primitive(k)}}, []string{name}))
	}
	given := map[string]string{"a": "b"}
	if got, err := keyProperties(key("k", changelog.String), given); err != nil || len(got) != 1 {
		t.Error(got, err)
	}
	if got, err := keyProperties(key("k", changelog.UUID), given); err != nil || got["a"] != "b" || got[mixed.PropAmoroKeys] != "false" || len(given) != 1 {
		t.Error(got, given, err)
	}
	if got, err := keyProperties(key("k", changelog.Binary), nil); err != nil || got[mixed.PropAmoroKeys] != "false" {
		t.Error(got, err)
	}
	for _, name := range []string{"a,b", " "} {
		if _, err := keyProperties(key(name, changelog.UUID), map[string]string{mixed.PropAmoroKeys: "false"}); err == nil || !strings.Contains(err.Error(), "comma") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
