package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/logstore"
	"firn/state"
)

// parkedRig is a server on a file of events, whose data directory can get lost.
type parkedRig struct {
	t      *testing.T
	dir    string
	config string
	s      *server
	end    func()
}

func newParkedRig(t *testing.T, events string) *parkedRig {
	t.Helper()
	r := &parkedRig{t: t, dir: t.TempDir()}
	r.config = filepath.Join(r.dir, "firn.yaml")
	for name, text := range map[string]string{"events.jsonl": events, "firn.yaml": fmt.Sprintf(`
data: %[1]s/data
listen: {data: '127.0.0.1:0', admin: '127.0.0.1:0'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
tables: {defaults: {flush: {interval: 100ms}, optimize: {minor: {interval: 500ms}}}}
sources:
  - name: s
    file: {path: %[1]s/events.jsonl}
`, r.dir)} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *parkedRig) start() {
	r.t.Helper()
	r.s, r.end = startServer(r.t, r.config)
}

// lose ends the server and removes its data directory.
func (r *parkedRig) lose() {
	r.t.Helper()
	r.end()
	if err := os.RemoveAll(filepath.Join(r.dir, "data")); err != nil {
		r.t.Fatal(err)
	}
}

func (r *parkedRig) verb(code int, stdin string, args ...string) string {
	r.t.Helper()
	got, out, errOut := firnVerb(r.t.Context(), stdin, append(args, "--server", r.s.data.Addr().String())...)
	if got != code {
		r.t.Fatalf("firn %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	return out + errOut
}

// flushed waits until the lake has all that the log has of the tables.
func (r *parkedRig) flushed(tables ...string) {
	r.t.Helper()
	await(r.t, func() string {
		for _, name := range tables {
			entry, ok := r.s.registry.Table(name)
			if !ok {
				return "no table " + name
			}
			_, applied, err := r.s.store.Bounds(entry.ID)
			p, perr := r.s.registry.Progress(entry.ID)
			if err != nil || perr != nil || p.Flushed < applied || applied == 0 {
				return fmt.Sprintf("%s is flushed up to %d of %d; %v %v", name, p.Flushed, applied, err, perr)
			}
		}
		return ""
	})
}

func (r *parkedRig) list() string {
	r.t.Helper()
	var all []string
	for line := range strings.Lines(r.verb(0, "", "parked", "list", "--json")) {
		var p parkedLine
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d:%d:%s", p.ID, p.Offset, p.Reason))
	}
	return strings.Join(all, " ")
}

// states shows the rows of x.parked as a store has them: offset:state.
func (r *parkedRig) states(from string) string {
	r.t.Helper()
	_, out, errOut := firnVerb(r.t.Context(), "", "dump", "x.parked", "--from", from, "--columns", "offset,state", "--server", r.s.data.Addr().String())
	if errOut != "" {
		return errOut
	}
	var all []string
	for line := range strings.Lines(out) {
		var row struct {
			Offset int64
			State  string
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d:%s", row.Offset, row.State))
	}
	return strings.Join(all, " ")
}

// TestRestoreParkedTable (P4, P6): with the data directory lost, what was parked is listed, shown, edited, skipped and replayed as
// before; queues and the rows of x.parked go on where they were.
func TestRestoreParkedTable(t *testing.T) {
	r := newParkedRig(t, plainEvents("x.t", "c 1 1 a", "c 2 1 b", "z 1 2 c", "u 1 3 ?", "u 2 2 d", "z 2 4 e", "u 2 5 ?", "u 2 6 ?", "z 3 1 g", "c 4 1 h"))
	r.start()
	await(t, func() string {
		if got := r.list(); got != "1:2:op_unknown 2:3:key_queued 3:5:op_unknown 4:6:key_queued 5:7:key_queued 6:8:op_unknown" {
			return "parked: " + got
		}
		return ""
	})
	r.verb(exitNo, "", "parked", "replay", "1") // an attempt
	r.verb(0, "", "parked", "skip", "6")
	r.verb(exitNo, "", "parked", "skip", "3") // its queue leaves values out
	listed := "1:2:op_unknown 2:3:key_queued 4:6:key_stale 5:7:key_queued"
	if got := r.list(); got != listed {
		t.Fatalf("parked %s", got)
	}
	shown := r.verb(0, "", "parked", "show", "1", "--json")
	r.flushed("x.parked", "x.t")
	rows := "2:parked 3:parked 5:skipped 6:parked 7:parked 8:skipped"
	for _, from := range []string{"index", "union"} {
		await(t, func() string {
			if got := r.states(from); got != rows {
				return from + ": " + got
			}
			return ""
		})
	}

	for range 2 { // also of what was restored
		r.lose()
		r.start()
		if got := r.list(); got != listed {
			t.Fatalf("restored %s, want %s", got, listed)
		}
		if got := r.verb(0, "", "parked", "show", "1", "--json"); got != shown {
			t.Errorf("restored %s\nwant %s", got, shown)
		}
		if got := r.states("index"); got != rows {
			t.Errorf("rows %s", got)
		}
	}
	var record parkedRecord
	if err := json.Unmarshal([]byte(shown), &record); err != nil {
		t.Fatal(err)
	}
	r.verb(0, strings.Replace(*record.RecordValue.Text, `"op":"z"`, `"op":"u"`, 1), "parked", "edit", "1", "--value", "-", "--by", "ann")
	if out := r.verb(exitNo, "", "parked", "skip", "5"); !strings.Contains(out, "record 4 ") { // the queue is one again
		t.Errorf("skip of one in the middle: %s", out)
	}
	if out := r.verb(exitNo, "", "parked", "replay", "4"); !strings.Contains(out, "key_stale") { // and its row is suspect
		t.Errorf("replay onto a row that a skip left behind: %s", out)
	}
	r.verb(0, "", "parked", "replay", "4", "--force")
	r.verb(0, "", "parked", "replay", "x.t")
	if got := r.list(); got != "" {
		t.Errorf("left %s", got)
	}
	r.flushed("x.parked", "x.t")
	want := "2:replayed 3:replayed 5:skipped 6:replayed 7:replayed 8:skipped"
	r.lose()
	r.start()
	defer r.end()
	if got := r.list() + r.states("index"); got != want {
		t.Errorf("restored %s, want %s", got, want)
	}
	for _, from := range []string{"index", "union"} {
		_, out, _ := firnVerb(t.Context(), "", "dump", "x.t", "--from", from, "--server", r.s.data.Addr().String())
		if got := strings.Join(strings.Fields(out), " "); got != `{"id":1,"note":"c","v":3} {"id":2,"note":"d","v":6} {"id":4,"note":"h","v":1}` {
			t.Errorf("%s: %s", from, got)
		}
	}
	r.verb(0, "", "verify", "x.t", "x.parked")
}

// TestParkedTableTaken: a table that bears the name is no table of parked records, and the server says what to do.
func TestParkedTableTaken(t *testing.T) {
	r := newParkedRig(t, plainEvents("x.t", "c 1 1 a"))
	r.start()
	r.flushed("x.t")
	entry, _ := r.s.registry.Table("x.t")
	if _, err := r.s.registry.Create(t.Context(), "x.parked", entry.Schemas[0], state.TopicRef{Source: "s", Topic: "x.parked"}, nil); err != nil {
		t.Fatal(err)
	}
	r.end()
	s, err := openServer(t.Context(), must(loadConfig(r.config)), slog.New(slog.DiscardHandler), nil)
	if err == nil {
		_ = s.close()
	}
	if err == nil || !strings.Contains(err.Error(), "parked.table") || !strings.Contains(err.Error(), "x.parked") {
		t.Errorf("got %v", err)
	}
}

// TestParkedTopic: events of a topic whose table would have the name of the table of parked records are parked there.
func TestParkedTopic(t *testing.T) {
	r := newParkedRig(t, plainEvents("x.parked", "c 1 1 a", "c 2 1 b"))
	r.start()
	defer func() { r.end() }()
	await(t, func() string {
		if got := r.list(); got != "1:0:table_unfit 2:1:table_unfit" {
			return "parked: " + got
		}
		return ""
	})
	if out := r.verb(0, "", "parked", "show", "1"); !strings.Contains(out, "parked.table") {
		t.Errorf("show: %s", out)
	}
	r.end() // and again, now that there is the table
	if err := os.WriteFile(filepath.Join(r.dir, "events.jsonl"), []byte(plainEvents("x.parked", "c 1 1 a", "c 2 1 b", "c 3 1 c")), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	await(t, func() string {
		if got := r.states("index"); got != "0:parked 1:parked 2:parked" {
			return "rows " + got
		}
		return ""
	})
	for _, table := range r.s.registry.Tables() {
		if !logstore.IsParkedTable(table) || len(table.Topics) > 0 {
			t.Errorf("table %s of %v", table.Name, table.Topics)
		}
	}
}

// TestRestoreParkedOfOthers: a table of parked records of sources that are not configured is left alone; one of both says so.
func TestRestoreParkedOfOthers(t *testing.T) {
	r := newParkedRig(t, plainEvents("x.t", "z 1 1 a", "c 2 1 b"))
	r.start()
	r.flushed("x.t", "x.parked")
	other := changelog.Parked{Reason: "utf8", Target: "x.u", Position: changelog.Position{Source: "other", Topic: "u"}}
	if _, err := r.s.store.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{other}}); err != nil {
		t.Fatal(err)
	}
	r.flushed("x.parked")
	r.lose()
	s, err := openServer(t.Context(), must(loadConfig(r.config)), slog.New(slog.DiscardHandler), nil)
	if err == nil {
		_ = s.close()
	}
	if err == nil || !strings.Contains(err.Error(), `"other"`) || !strings.Contains(err.Error(), "x.parked") {
		t.Errorf("got %v", err)
	}
	cfg := must(loadConfig(r.config))
	cfg.Sources[0].Name = "third"
	if err := os.RemoveAll(filepath.Join(r.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if s, err = openServer(t.Context(), cfg, slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
	if tables := s.registry.Tables(); len(tables) > 0 {
		t.Errorf("restored %v", tables[0])
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
