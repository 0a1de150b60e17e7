package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plainEvents writes a recorded topic of rows (id, v, note) without schemas: an event is "op id v note", note "?" is a value that was
// not sent.
func plainEvents(topic string, events ...string) string {
	var out strings.Builder
	for i, e := range events {
		f := strings.Fields(e)
		note := f[3]
		if note == "?" {
			note = "__debezium_unavailable_value"
		}
		value := fmt.Sprintf(`{"before":null,"after":{"id":%s,"v":%s,"note":%q},"source":{"connector":"postgresql","name":"n","lsn":%d,"table":"t"},"op":%q}`, f[1], f[2], note, 1000+i, f[0])
		out.Write(must(json.Marshal(map[string]any{
			"topic": topic, "partition": 0, "offset": i, "timestamp": 1767225600000 + i, "key": `{"id":` + f[1] + `}`, "value": value,
		})))
		out.WriteByte('\n')
	}
	return out.String()
}

// TestParkedRepair: by the command line, against a server that flushes all the time: what queues behind a bad record is edited,
// skipped and replayed, log, lookups and lake have the same rows.
func TestParkedRepair(t *testing.T) {
	dir := t.TempDir()
	events := plainEvents("x.t", "c 1 1 a", "c 2 1 b", "z 1 2 c", "u 1 3 ?", "u 2 2 d", "z 2 4 e", "u 2 5 ?", "u 2 6 f", "u 3 1 g")
	if err := os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(events), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "firn.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
data: %[1]s/data
listen: {data: '127.0.0.1:0', admin: '127.0.0.1:0'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
tables: {defaults: {flush: {interval: 100ms}, optimize: {minor: {interval: 500ms}}}}
sources:
  - name: s
    file: {path: %[1]s/events.jsonl}
`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s, end := startServer(t, config)
	defer end()
	at := s.data.Addr().String()
	verb := func(code int, stdin string, args ...string) string {
		t.Helper()
		got, out, errOut := firnVerb(t.Context(), stdin, append(args, "--server", at)...)
		if got != code {
			t.Fatalf("firn %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errOut)
		}
		return out + errOut
	}
	dump := func(from, want string) {
		t.Helper()
		await(t, func() string {
			_, out, errOut := firnVerb(t.Context(), "", "dump", "x.t", "--from", from, "--server", at)
			if got := strings.Join(strings.Fields(out), " "); got != want {
				return from + ": " + got + errOut
			}
			return ""
		})
	}
	dump("base", `{"id":1,"note":"a","v":1} {"id":2,"note":"d","v":2} {"id":3,"note":"g","v":1}`)
	var reasons []string
	for line := range strings.Lines(verb(0, "", "parked", "list", "x.t", "--json")) {
		var p parkedLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		reasons = append(reasons, fmt.Sprintf("%d:%s", p.Offset, p.Reason))
	}
	if got := strings.Join(reasons, " "); got != "2:op_unknown 3:key_queued 5:op_unknown 6:key_queued 7:key_queued" {
		t.Fatalf("parked %s", got)
	}
	if out := verb(exitNo, "", "parked", "replay", "x.t"); !strings.Contains(out, "still parked 2") {
		t.Errorf("replay of what is bad: %s", out)
	}
	var shown parkedRecord
	if err := json.Unmarshal([]byte(verb(0, "", "parked", "show", "1", "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	verb(0, strings.Replace(*shown.RecordValue.Text, `"op":"z"`, `"op":"u"`, 1), "parked", "edit", "1", "--value", "-", "--by", "ann")
	if out := verb(0, "", "parked", "show", "1"); !strings.Contains(out, "by ann") || !strings.Contains(out, `"op":"z"`) {
		t.Errorf("show: %s", out)
	}
	if out := verb(0, "", "parked", "show", "3"); !strings.Contains(out, "op is one of c, u, d, r, t, m") || !strings.Contains(out, "op_unknown: ") || !strings.Contains(out, "in order") {
		t.Errorf("show: %s", out)
	}
	if out := verb(exitNo, "", "parked", "skip", "5"); !strings.Contains(out, "record 3 ") { // its queue begins with 3
		t.Errorf("skip of one in the middle: %s", out)
	}
	if out := verb(exitNo, "", "parked", "skip", "3"); !strings.Contains(out, "skipped 1, still parked 1") || !strings.Contains(out, "4: key_stale") {
		t.Errorf("skip: %s", out)
	}
	if out := verb(0, "", "parked", "replay", "4", "--force"); !strings.Contains(out, "applied 2") {
		t.Errorf("forced replay: %s", out)
	}
	if out := verb(0, "", "parked", "replay", "x.t"); !strings.Contains(out, "applied 2, skipped 0, still parked 0") {
		t.Errorf("replay: %s", out)
	}
	want := `{"id":1,"note":"c","v":3} {"id":2,"note":"f","v":6} {"id":3,"note":"g","v":1}`
	for _, from := range []string{"base", "merged", "union", "index", "log"} {
		dump(from, want)
	}
	if out := verb(0, "", "parked", "list", "--json"); out != "" {
		t.Errorf("left: %s", out)
	}
	verb(exitNo, "", "parked", "replay", "1")
	verb(exitNo, "", "parked", "replay", "x.nope")
	verb(exitUsage, "", "parked", "replay", "x.t", "--force")
	verb(exitUsage, "", "parked", "edit", "1")
	verb(exitUsage, "", "parked", "skip", "x")
	verb(0, "", "verify", "x.t")
}
