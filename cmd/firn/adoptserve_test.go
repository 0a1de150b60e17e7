package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"firn/state"
)

// TestAdoptServe: a route feeds an adopted table, also with a column that it has not had. Lookups and feeds are right at once, and feeds begin at the
// adoption; with the data directory lost, the table comes back from the lake (P4).
func TestAdoptServe(t *testing.T) {
	_, config := amoroLake(t, "opt_minor_then_changes")
	data, admin := freePort(t), freePort(t)
	text := fmt.Sprintf(`
data: data
listen: {data: '%s', admin: '%s'}
catalog: {uri: catalog.db, warehouse: 'file:lake'}
sources:
  - {name: shop, file: {path: shop.jsonl, follow: true}, routes: [{topic: 'shop\.public\.adopted', table: '%s'}]}
tables: {defaults: {flush: {interval: 100ms}, optimize: {minor: {interval: 200ms}}}}
`, data, admin, adoptable)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	columns := newShopTable("adopted", shopColumn{name: "id", literal: "int64", key: true, encode: strings.TrimSpace},
		shopColumn{name: "v", literal: "string", encode: strconv.Quote}, shopColumn{name: "n", literal: "int64", encode: strings.TrimSpace},
		shopColumn{name: "extra", literal: "string", encode: strconv.Quote})
	var lines strings.Builder
	for i, id := range []string{"-105", "-12", "7000001", "7000002"} {
		r := columns.record("u", shopRow{id, "new", "1", "more"}, int64(i+1)<<8, 1767225600000)
		line, err := json.Marshal(map[string]any{"key": string(r.key), "value": string(r.value)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, `{"topic":%q,"partition":0,"offset":%d,%s`+"\n", r.topic, i, line[1:])
	}
	if err := os.WriteFile("shop.jsonl", []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	firnOK(t, "table", "adopt", adoptable, "-c", config)
	s := &diskServer{t: t, data: "http://" + data, admin: "http://" + admin}
	at := s.data + "/v1/tables/" + adoptable
	flushed := func() bool {
		var now struct{ Applied, Flushed, Optimized int }
		s.into(at, &now)
		return now.Applied == 91 && now.Flushed == 91 && now.Optimized == 91
	}
	check := func(when string) {
		t.Helper()
		for id, want := range map[string]string{"-105": `"extra":"more"`, "7000002": `"v":"new"`} {
			if code, row := s.get(at + "/rows/" + id); code != http.StatusOK || !strings.Contains(row, want) {
				t.Errorf("%s, row %s: %d %s", when, id, code, row)
			}
		}
		if code, text := s.get(at + "/changes?from=seq:5&follow=false"); code != http.StatusGone {
			t.Errorf("%s, a feed from before the adoption: %d %s", when, code, text)
		}
		if code, text := s.get(at + "/changes?from=seq:87&follow=false"); code != http.StatusOK || strings.Count(text, `"seq":`) != 4 {
			t.Errorf("%s, a feed from the adoption: %d %s", when, code, text)
		}
		if out := firnOK(t, "verify", adoptable, "-c", config); strings.Contains(out, "DIFFERS") {
			t.Errorf("%s: %s", when, out)
		}
	}
	s.start(config)
	s.until("the changes are optimized", flushed)
	check("fed")
	s.stop()
	if err := os.RemoveAll("data"); err != nil {
		t.Fatal(err)
	}
	s.start(config)
	s.until("the table is back", flushed)
	check("restored")
	s.stop()
}

// TestNotAdopted: a route that names a table of the lake that this data directory does not know does not write to it: its rows would be in no lookup.
func TestNotAdopted(t *testing.T) {
	_, config := amoroLake(t, "opt_minor_then_changes")
	p := openTestParts(t, config)
	lake, err := p.catalog.Load(t.Context(), adoptable)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.registry.CreatePartitioned(t.Context(), adoptable, lake.Schemas()[0], nil, state.TopicRef{Source: "shop", Topic: "t"}, nil); err != nil {
		t.Fatal(err)
	}
	head := metadataOf(t, adoptable)
	w := newAdopted(t, p, adoptable, 5)
	w.change(3)
	if _, err := w.flusher.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "firn table adopt") {
		t.Errorf("flushed: %v", err)
	}
	if metadataOf(t, adoptable) != head {
		t.Error("it was written to")
	}
}
