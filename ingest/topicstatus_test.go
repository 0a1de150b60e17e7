package ingest_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"firn/ingest"
	"firn/ingest/decode"
)

// TestTopicStatus: what a topic's newest records were, whatever became of them, and how its columns are read and stored.
func TestTopicStatus(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.columns = "v:int32,old:string"
	m.add("c", 1, `"v":1,"old":"a"`)
	m.columns = "v:int64,old:string,tags:string"
	m.add("u", 1, `"v":2,"old":"b","tags":"x"`)
	l := openLog(newDisk())
	routes := []ingest.Route{{Topic: `a\..*`, Plan: decode.PlanOptions{Drops: []string{"old"}}}}
	p := run(t, l, ingest.Options{}, routes, m)
	status := func() ingest.TopicStatus {
		t.Helper()
		topics, err := p.Topics("mem")
		if err != nil || len(topics) != 1 {
			t.Fatalf("%v %+v", err, topics)
		}
		return topics[0]
	}
	s := status()
	if s.Topic != "a.b.t" || s.Table != "a_b.t" || s.Route != `a\..*` || s.Partitions != 1 || s.Rejected != "" || len(s.Warnings) != 0 {
		t.Errorf("%+v", s)
	}
	want := `[{id  int id int true} {v  long v long false} {old  string   false} {tags  string tags string false}]`
	if got := fmt.Sprint(s.Columns); got != want {
		t.Errorf("columns %s\nwant %s", got, want)
	}
	if got := *s.Last; got.Offset != 1 || got.Partition != 0 || got.Outcome != "applied" || got.Kind != "change" || got.Op != "u" || got.Connector != "postgresql" ||
		!strings.HasPrefix(got.Position, "lsn:") || got.SourceTime != 1767225600000000 || got.Time != 1767225600000+1002 || got.Read == 0 || got.Snapshot || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	if _, err := p.Topics("nope"); !errors.Is(err, ingest.ErrNoSource) {
		t.Errorf("a source that is not there: %v", err)
	}
	for _, c := range []struct {
		add  func()
		want string
	}{
		{func() { m.raw(m.keyText(1), "") }, "skipped tombstone  "},
		{func() { m.raw(m.keyText(2), "{") }, "parked json_syntax"},
		{func() { m.add("u", 2, `"v":3,"old":"c","tags":"y"`) }, "parked key_queued"},
		{func() { m.addAt(m.lsn, "u", 2, `"v":3,"old":"c","tags":"y"`) }, "replayed change"},
		{func() { m.columns = "v:string"; m.add("c", 3, `"v":"x"`) }, "applied change"},
	} {
		c.add()
		routes[0].OnParked = ingest.ParkedQueue
		p = run(t, openLog(newDisk()), ingest.Options{}, routes, m)
		last := status().Last
		got := strings.Join(strings.Fields(last.Outcome+" "+last.Reason+" "+last.Kind), " ")
		if !strings.HasPrefix(got, strings.TrimSpace(c.want)) || last.Offset != int64(len(m.records)-1) {
			t.Errorf("got %q at %d, want %q", got, last.Offset, c.want)
		}
	}
}

// TestWarnings: each is logged once a topic, and kept for who asks (spec/debezium.md 7).
func TestWarnings(t *testing.T) {
	text := func(l *fakeLog, routes []ingest.Route, makers ...*maker) (warnings []string, log string) {
		t.Helper()
		var b bytes.Buffer
		p := run(t, l, ingest.Options{Logger: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelWarn}))}, routes, makers...)
		topics, _ := p.Topics("mem")
		for _, s := range topics {
			warnings = append(warnings, s.Warnings...)
		}
		return warnings, b.String()
	}
	check := func(name, want string, warnings []string, log string) {
		t.Helper()
		if len(warnings) != 1 || !strings.Contains(warnings[0], want) {
			t.Errorf("%s: %q", name, warnings)
		}
		if n := strings.Count(log, "level=WARN"); n != 1 || !strings.Contains(log, "table=a_b.t") {
			t.Errorf("%s: %d lines\n%s", name, n, log)
		}
	}
	quiet := newMaker("a.b.t", 1)
	quiet.add("c", 1, `"v":1,"note":"a"`)
	if w, log := text(openLog(newDisk()), nil, quiet); len(w) != 0 || log != "" {
		t.Errorf("of nothing: %q %s", w, log)
	}

	m := newMaker("a.b.t", 3) // keys with their schema, in several partitions
	for id := range int64(30) {
		m.add("c", id, `"v":1,"note":"a"`)
	}
	w, log := text(openLog(newDisk()), nil, m)
	check("keys", "keys hold their schema", w, log)

	hidden := func(identity decode.Identity) ([]string, string) {
		m := newMaker("a.b.t", 1)
		for i := range 3 { // the same shape, and another one
			m.add("c", int64(i), `"v":1,"note":"a"`)
			m.records[i].Value = bytes.ReplaceAll(m.records[i].Value, []byte(`{"type":"string","optional":true,"field":"note"}`),
				[]byte(`{"type":"string","optional":true,"parameters":{"__debezium.source.column.type":"BYTEA"},"field":"note"}`))
		}
		return text(openLog(newDisk()), []ingest.Route{{Topic: ".*", Decode: decode.Options{Identity: identity}}}, m)
	}
	w, log = hidden(decode.IdentityAuto)
	check("bytea", "column note: bytea as text", w, log)
	if w, log := hidden(decode.IdentityFull); len(w) != 0 || log != "" {
		t.Errorf("with whole rows: %q %s", w, log)
	}

	flat := newMaker("a.b.t", 1)
	flat.raw(`{"id":1}`, `{"id":1,"v":2,"__op":"c","__lsn":5}`)
	w, log = text(openLog(newDisk()), []ingest.Route{{Topic: ".*", Decode: decode.Options{Form: decode.FormFlattened, Metadata: map[string]string{"__lsn": "source.lsn"}}}}, flat)
	check("metadata", "column __op: named as", w, log)

	keyless := newMaker("a.b.t", 1)
	keyless.addAt(7, "c", 1, `"v":1,"note":"a"`)
	keyless.records[0].Key = nil
	w, log = text(openLog(newDisk()), nil, keyless)
	check("keyless", "cannot be told from equal rows", w, log)
}
