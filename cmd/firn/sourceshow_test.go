package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/logstore/httpapi"
)

// TestSourceShow: what the configuration says for each topic, defaults included, what was read, and what the operator should know.
func TestSourceShow(t *testing.T) {
	dir := t.TempDir()
	var events strings.Builder
	for i, topic := range []string{"x.t", "x.t", "y.u"} {
		events.Write(must(json.Marshal(map[string]any{
			"topic": topic, "partition": 0, "offset": i, "timestamp": 1767225600000 + i, "key": fmt.Sprintf(`{"id":%d}`, i),
			"value": fmt.Sprintf(`{"id":%d,"v":"a","__op":"c","__ts_ms":1767225600000}`, i),
		})))
		events.WriteByte('\n')
	}
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(events.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "firn.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
data: %[1]s/data
listen: {data: '127.0.0.1:0', admin: '127.0.0.1:0'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
sources:
  - name: s
    shape: flattened
    deletes: drop
    metadata: {__ts_ms: source.ts_ms}
    file: {path: %[1]s/events.jsonl}
    routes: [{topic: 'y\.(.*)', table: 'z.$1', key: [id, v], on_parked: supersede, format: json}]
`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s, end := startServer(t, config)
	defer end()
	at := s.data.Addr().String()
	var d httpapi.SourceDetail
	await(t, func() string {
		d = httpapi.SourceDetail{}
		code, out, errOut := firnVerb(t.Context(), "", "source", "show", "s", "--json", "--server", at)
		if code != 0 || json.Unmarshal([]byte(out), &d) != nil {
			return out + errOut
		}
		if len(d.Topics) != 2 || d.Topics[0].Last == nil || d.Topics[1].Last == nil || d.Topics[0].Last.Offset != 1 {
			return "not all is read: " + out
		}
		return ""
	})
	x, y := d.Topics[0], d.Topics[1]
	for _, c := range []struct{ got, want any }{
		{x.Topic + " " + x.Table + " " + x.Route, "x.t x.t default"},
		{y.Topic + " " + y.Table + " " + y.Route, `y.u z.u y\.(.*)`},
		{x.Shape + " " + x.Format + " " + x.KeyFormat, "flattened json json"},
		{x.Key, []string{"id"}},
		{y.Key, []string{"id", "v"}},
		{x.KeyOf + " " + y.KeyOf, "message columns"},
		{x.Policies["on_parked"] + " " + y.Policies["on_parked"], "queue supersede"},
		{x.Policies["metadata"], "__ts_ms: source.ts_ms"},
		{x.Policies["deletes"], "drop"},
		{x.Last.Outcome + " " + x.Last.Op, "applied c"},
		{*x.Last.SourceTime, "2026-01-01T00:00:00Z"},
		{*x.Columns[1].Stored, "string"},
	} {
		if fmt.Sprint(c.got) != fmt.Sprint(c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
	for _, want := range []string{"column __op: named as", "rows that are deleted at the source stay"} {
		if !strings.Contains(strings.Join(x.Warnings, "\n"), want) {
			t.Errorf("warnings %q, want %q", x.Warnings, want)
		}
	}
	code, out, _ := firnVerb(t.Context(), "", "source", "show", "s", "--server", at)
	for _, want := range []string{"x.t (partitions: 1)", "id (key: message)", "dlq_max_bytes       16MiB", "offset 1", "(key)", "READ AS", "warning", "applied, change, c"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s", code, want, out)
		}
	}
	if code, _, errOut := firnVerb(t.Context(), "", "source", "show", "nope", "--server", at); code != exitNo || !strings.Contains(errOut, "GET /v1/sources") {
		t.Errorf("exit %d %s", code, errOut)
	}
	code, out, errOut := firnVerb(t.Context(), "", "source", "reset", "s", "--topic", "x.t", "--to", "earliest", "--dry-run", "--server", at)
	if code != 0 || !strings.Contains(out, "reads 2 offsets again") || !strings.Contains(out, "nothing is changed") {
		t.Errorf("exit %d %s%s", code, out, errOut)
	}
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"--to 1 --topic x.t --partition 0", "s is reset", 0},
		{"--to latest --topic x.t --json", `"partitions":[{"topic":"x.t","partition":0,"table":"x.t","from":1,"to":2,"effect":"passes over 1 offsets`, 0},
		{"--to 9 --topic x.t --partition 0", "the partition has 0 to 2", exitNo},
		{"--to soon", "not earliest, latest or an offset", exitUsage},
		{"", `"to" not set`, exitUsage},
	} {
		code, out, errOut := firnVerb(t.Context(), "", append(append([]string{"source", "reset", "s"}, strings.Fields(c.args)...), "--server", at)...)
		if code != c.code || !strings.Contains(out+errOut, c.want) {
			t.Errorf("reset %s: exit %d %s%s", c.args, code, out, errOut)
		}
	}
}
