package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"firn/changelog/table"
	"firn/logstore/httpapi"
)

// TestDiverged: a table that the lake has lost stops alone. Its source waits and says why, its rows are still looked up, nothing of it
// is written to the lake; the other table goes on (P7).
func TestDiverged(t *testing.T) {
	dir := t.TempDir()
	data, admin := freePort(t), freePort(t)
	config := filepath.Join(dir, "firn.yaml")
	text := fmt.Sprintf(`
data: %[1]s/data
listen: {data: '%[2]s', admin: '%[3]s'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
sources:
  - {name: lost, file: {path: %[1]s/lost.jsonl, follow: true}, routes: [{topic: 'shop\.public\.(.*)', table: 'shop.$1'}]}
  - {name: kept, file: {path: %[1]s/kept.jsonl, follow: true}, routes: [{topic: 'shop\.public\.(.*)', table: 'shop.$1'}]}
tables: {defaults: {flush: {interval: 100ms}, optimize: {minor: {interval: 100ms}}}}
`, dir, data, admin)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &divergedRig{t: t, dir: dir}
	r.add("lost")
	r.add("kept")
	s := &diskServer{t: t, data: "http://" + data, admin: "http://" + admin}
	at := func(name string) (st httpapi.SourceStatus, applied, flushed int) {
		var sources struct{ Sources []httpapi.SourceStatus }
		s.into(s.data+"/v1/sources", &sources)
		for _, one := range sources.Sources {
			if one.Name == name {
				st = one
			}
		}
		var tables struct {
			Tables []struct {
				Name             string
				Applied, Flushed int
			}
		}
		s.into(s.data+"/v1/tables", &tables)
		for _, one := range tables.Tables {
			if one.Name == "shop."+name {
				applied, flushed = one.Applied, one.Flushed
			}
		}
		return st, applied, flushed
	}
	all := func(name string, n int) func() bool {
		return func() bool { _, applied, flushed := at(name); return applied == n && flushed == n }
	}
	s.start(config)
	s.until("both tables are flushed", func() bool { return all("lost", 10)() && all("kept", 10)() })
	s.stop()

	lake, err := table.Open(t.Context(), table.Options{URI: filepath.Join(dir, "catalog.db"), Warehouse: "file:" + filepath.Join(dir, "lake")})
	if err != nil {
		t.Fatal(err)
	}
	defer lake.Close()
	if err := lake.Drop(t.Context(), "shop.lost", true); err != nil {
		t.Fatal(err)
	}
	s.start(config)
	s.until("the table is stopped", func() bool { return strings.Contains(s.metrics(), "\nfirn_flush_stopped{table=\"shop.lost\"} 1\n") })
	r.add("lost")
	r.add("kept")
	s.until("the other table goes on", all("kept", 20))
	s.until("the source waits", func() bool {
		st, _, _ := at("lost")
		return st.State == "waiting" && strings.Contains(st.Partitions[0].Waiting, "the lake has no such table")
	})
	if code, text := s.get(s.data + "/v1/tables/shop.lost/rows/3"); code != http.StatusOK {
		t.Errorf("lookup in the stopped table: %d: %s", code, text)
	}
	if code, text := s.post("/v1/tables/shop.lost/optimize"); code == http.StatusOK || !strings.Contains(text, "diverged") {
		t.Errorf("optimize of the stopped table: %d: %s", code, text)
	}
	if _, applied, _ := at("lost"); applied != 10 {
		t.Errorf("the stopped table went on to %d", applied)
	}
	s.stop()
	if names, err := lake.List(t.Context()); err != nil || len(names) != 1 || names[0] != "shop.kept" {
		t.Errorf("tables of the lake: %v, %v", names, err)
	}
}

type divergedRig struct {
	t   *testing.T
	dir string
	n   map[string]int
}

// add appends ten records to a table's recording.
func (r *divergedRig) add(name string) {
	r.t.Helper()
	if r.n == nil {
		r.n = map[string]int{}
	}
	table := newShopTable(name, shopColumn{name: "id", literal: "int64", key: true, encode: strings.TrimSpace},
		shopColumn{name: "body", literal: "string", encode: strconv.Quote})
	file, err := os.OpenFile(filepath.Join(r.dir, name+".jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	for range 10 {
		n := r.n[name]
		r.n[name]++
		record := table.record("c", shopRow{fmt.Sprint(n), "x"}, int64(n+1)<<8, 1767225600000)
		line, err := json.Marshal(map[string]any{"key": string(record.key), "value": string(record.value)})
		if err != nil {
			r.t.Fatal(err)
		}
		if _, err := fmt.Fprintf(file, `{"topic":%q,"partition":0,"offset":%d,%s`+"\n", record.topic, n, line[1:]); err != nil {
			r.t.Fatal(err)
		}
	}
}
