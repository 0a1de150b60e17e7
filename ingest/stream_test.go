package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/ingest"
	"firn/ingest/decode"
	"firn/ingest/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const samples = "decode/testdata/debezium/"

// expectedTable is a table of stream_2000.expected.json.
type expectedTable struct {
	Topic   string
	Key     []string
	Columns []struct {
		Name         string
		SourceColumn string            `json:"source_column"`
		Type         string            `json:"type"`
		ConnectType  string            `json:"connect_type"`
		ConnectName  string            `json:"connect_name"`
		Parameters   map[string]string `json:"parameters"`
	}
	Rows []json.RawMessage
}

func expectedTables(t testing.TB) map[string]expectedTable {
	t.Helper()
	return readExpected(t, samples+"stream_2000.expected.json")
}

func readExpected(t testing.TB, path string) map[string]expectedTable {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var e struct{ Tables map[string]expectedTable }
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	return e.Tables
}

// route is the route of a table's topic; hints are for messages without schema.
func (e expectedTable) route(t testing.TB, hints bool) ingest.Route {
	t.Helper()
	r := ingest.Route{Topic: strings.ReplaceAll(e.Topic, ".", `\.`)}
	if !hints {
		return r
	}
	for _, c := range e.Columns {
		s := map[string]any{"type": c.ConnectType, "optional": true}
		if c.ConnectName != "" {
			s["name"] = c.ConnectName
		}
		if c.Parameters != nil {
			s["parameters"] = c.Parameters
		}
		if element, ok := strings.CutPrefix(c.Type, "list<"); ok {
			s["items"] = map[string]any{"type": strings.TrimSuffix(element, ">"), "optional": true}
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		r.Decode.Hints = append(r.Decode.Hints, decode.Hint{Column: c.SourceColumn, Schema: b})
	}
	return r
}

var recordings = map[string][]ingest.Record{} // tests of this package are not parallel

func readRecording(t testing.TB, name string, partitions int32) []ingest.Record {
	t.Helper()
	id := fmt.Sprint(name, partitions)
	if all := recordings[id]; all != nil {
		return all
	}
	var all []ingest.Record
	defer func() { recordings[id] = all }()
	place := file.NewPartitioner(partitions)
	path := name
	if !filepath.IsAbs(name) {
		path = samples + name
	}
	for r, err := range file.Records(t.Context(), path) {
		if err != nil {
			t.Fatal(err)
		}
		if partitions > 1 {
			place.Place(&r)
		}
		all = append(all, r)
	}
	return all
}

// compareTables compares what the log holds with the expected state of tables.
func compareTables(t *testing.T, l *fakeLog, expected map[string]expectedTable, tables ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range tables {
		e := expected[name]
		table := l.disk.tables[ingest.TableName(e.Topic)]
		if table == nil {
			t.Errorf("%s: no table", name)
			continue
		}
		for _, c := range e.Columns {
			o := table.Schemas.Current().Ordinal(c.Name)
			if o < 0 || table.Schemas.Current().Columns[o].Type.String() != c.Type {
				t.Errorf("%s: no column %s of type %s", name, c.Name, c.Type)
			}
		}
		got := dump(t, table, l.visible.rows)
		if len(e.Key) == 0 {
			got = dumpBag(t, l, table)
		}
		compareRows(t, name, got, e.Rows)
	}
}

// dumpBag returns the rows of a table without a key in the row form.
func dumpBag(t testing.TB, l *fakeLog, table *ingest.Table) (all [][]byte) {
	t.Helper()
	enc, err := rowjson.NewEncoder(table.Schemas, rowjson.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var bag changelog.Bag
	image := func(r changelog.Row, do func([]byte)) {
		if r == nil {
			return
		}
		b, err := enc.AppendRow(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		do(b)
	}
	for _, c := range l.visible.changes {
		switch {
		case c.table != table.ID:
		case c.Key != nil:
			t.Fatalf("a change of %s has key %s", table.Name, c.Key)
		case c.Op == changelog.OpTruncate:
			bag.Truncate()
		default:
			image(c.Before, bag.Take)
			image(c.After, bag.Add)
		}
	}
	for row, n := range bag.Added {
		for range n {
			all = append(all, []byte(row))
		}
	}
	return all
}

// dump returns the rows of a table in the row form.
func dump(t testing.TB, table *ingest.Table, rows map[string]changelog.Row) [][]byte {
	t.Helper()
	enc, err := rowjson.NewEncoder(table.Schemas, rowjson.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, key := range keysOf(rows, table.ID) {
		b, err := enc.AppendRow(nil, rows[rowKey(table.ID, key)])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func compareRows(t *testing.T, name string, got [][]byte, want []json.RawMessage) {
	t.Helper()
	var g, w []string
	for _, r := range got {
		g = append(g, canonical(t, r))
	}
	for _, r := range want {
		w = append(w, canonical(t, r))
	}
	slices.Sort(g)
	slices.Sort(w)
	bad := 0
	for i := range max(len(g), len(w)) {
		a, b := "nothing", "nothing"
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a == b {
			continue
		}
		if bad++; bad <= 3 {
			t.Errorf("%s: row %d of %d, want %d rows\n got %s\nwant %s", name, i, len(g), len(w), a, b)
		}
	}
}

// canonical spells a JSON text in one way: names sorted, numbers as fractions.
func canonical(t testing.TB, b []byte) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var simple func(v any) any
	simple = func(v any) any {
		switch v := v.(type) {
		case json.Number:
			r, ok := new(big.Rat).SetString(v.String())
			if !ok {
				t.Fatalf("number %s", v)
			}
			return r.RatString()
		case map[string]any:
			for k := range v {
				v[k] = simple(v[k])
			}
		case []any:
			for i := range v {
				v[i] = simple(v[i])
			}
		}
		return v
	}
	out, err := json.Marshal(simple(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// runOnce runs a pipeline to the end of its sources.
func runOnce(t *testing.T, l *fakeLog, s ingest.Source, routes []ingest.Route, o ingest.Options) (*ingest.Pipeline, error) {
	t.Helper()
	p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: routes}}, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err = p.Run(ctx)
	if ctx.Err() != nil {
		t.Fatalf("the pipeline does not end: %+v", p.Status())
	}
	return p, err
}

// keyed are the tables of the stream that have a key and one partition order each.
var keyed = []string{"customers", "orders", "order_items"}

func routesOf(t *testing.T, expected map[string]expectedTable, hints bool) []ingest.Route {
	var routes []ingest.Route
	for _, e := range expected {
		routes = append(routes, e.route(t, hints))
	}
	return routes
}

// TestStream: the stream of events gives the expected tables, whatever the batches, partitions and formats (T5).
func TestStream(t *testing.T) {
	expected := expectedTables(t)
	for _, name := range []string{"stream_2000_schema.jsonl.gz", "stream_2000.jsonl.gz"} {
		for _, partitions := range []int32{1, 3} {
			for _, batch := range []int{1, 7, 100, 1 << 20} {
				for _, repeats := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/partitions=%d/batch=%d/repeats=%v", name, partitions, batch, repeats), func(t *testing.T) {
						records := readRecording(t, name, partitions)
						s := newMemSource(records)
						routes := routesOf(t, expected, !strings.Contains(name, "schema"))
						for i := range routes {
							routes[i].KeepRepeats = repeats
						}
						l := openLog(newDisk())
						p, err := runOnce(t, l, s, routes, ingest.Options{BatchRecords: batch})
						if err != nil {
							t.Fatal(err)
						}
						tables := keyed
						if partitions == 1 {
							tables = append(slices.Clone(keyed), "staging")
							if !repeats { // else rows without a key are there again
								tables = append(tables, "audit_log")
							}
						}
						compareTables(t, l, expected, tables...)
						checkCounts(t, p, int64(len(records)), repeats)
						checkParked(t, l, partitions)
						l.check(t)
					})
				}
			}
		}
	}
}

func checkCounts(t *testing.T, p *ingest.Pipeline, records int64, repeats bool) {
	t.Helper()
	c := p.Status()[0].Counts
	if c.Read != records || c.Read != c.Applied+c.Skipped+c.Parked+c.Replayed+c.Duplicate || c.Duplicate != 0 {
		t.Errorf("counts %+v of %d records", c, records)
	}
	if !repeats && c.Replayed < 80 || repeats && c.Replayed != 0 {
		t.Errorf("replayed %d", c.Replayed)
	}
}

// checkParked: nothing is parked but truncates of several partitions.
func checkParked(t *testing.T, l *fakeLog, partitions int32) {
	t.Helper()
	for _, p := range l.visible.parked {
		if ok := partitions > 1 && p.Reason == "truncate_unsafe"; !ok && !p.Applied {
			t.Errorf("parked %s/%d/%d: %s %s", p.Position.Topic, p.Position.Partition, p.Position.Offset, p.Reason, p.Detail)
		}
	}
	if len(l.visible.stale) > 0 {
		t.Errorf("stale keys: %v", l.visible.stale)
	}
}

// TestKill: the log dies at every k-th append, with whatever was not synced; the pipeline ends in the same state (P1).
func TestKill(t *testing.T) {
	expected := expectedTables(t)
	every := []int{97}
	if os.Getenv("FIRN_TEST_LONG") != "" {
		every = []int{1, 2, 13}
	}
	for _, name := range []string{"stream_2000_schema.jsonl.gz", "stream_2000.jsonl.gz"} {
		for _, partitions := range []int32{1, 3} {
			for _, batch := range []int{1, 7, 100, 1 << 20} {
				if testing.Short() && (partitions == 1 || batch == 1) {
					continue
				}
				for _, k := range every {
					t.Run(fmt.Sprintf("%s/partitions=%d/batch=%d/k=%d", name, partitions, batch, k), func(t *testing.T) {
						testKill(t, expected, name, partitions, batch, k)
					})
				}
			}
		}
	}
}

func testKill(t *testing.T, expected map[string]expectedTable, name string, partitions int32, batch, k int) {
	records := readRecording(t, name, partitions)
	routes := routesOf(t, expected, !strings.Contains(name, "schema"))
	tables := keyed
	if partitions == 1 {
		tables = append(slices.Clone(keyed), "staging", "audit_log")
	}
	l := runKilled(t, func() *memSource { return newMemSource(records) }, routes, ingest.Options{BatchRecords: batch, ReplayWindow: 400}, k)
	compareTables(t, l, expected, tables...)
	checkParked(t, l, partitions)
	l.check(t)
	checkOnce(t, l)
	checkBefore(t, l)
}

// runKilled takes in a source with a log that dies at every k-th record or so, and comes back with whatever was synced, until all is read.
func runKilled(t *testing.T, source func() *memSource, routes []ingest.Route, o ingest.Options, k int) *fakeLog {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(k), uint64(o.BatchRecords)))
	l := openLog(newDisk())
	l.disk.parts = map[string][]string{"orders": {"truncate(2, status)"}, "customers": {"bucket(4, id)"}}
	lives := 0
	for {
		s := source()
		s.batch = 1 + rng.IntN(2*min(o.BatchRecords, 200))
		l.dieAfter = max(1, k/min(o.BatchRecords, k))
		l.manual = rng.IntN(2) == 0
		stop := make(chan struct{})
		if l.manual { // syncs come at any time
			go func(l *fakeLog) {
				for {
					select {
					case <-stop:
						return
					case <-time.After(200 * time.Microsecond):
						l.sync()
					}
				}
			}(l)
		}
		_, err := runOnce(t, l, s, routes, o)
		close(stop)
		if err == nil {
			break
		}
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		l = l.crash(rng.IntN(3))
		if lives++; lives > 20_000 {
			t.Fatal("no progress")
		}
	}
	if lives == 0 {
		t.Error("the log never died")
	}
	return l
}

// checkOnce: no record is applied twice, and each partition's changes are in order (P1).
func checkOnce(t *testing.T, l *fakeLog) {
	t.Helper()
	last := map[string]int64{}
	for _, c := range l.visible.changes {
		p := fmt.Sprintf("%s/%d", c.Position.Topic, c.Position.Partition)
		at, ok := last[p]
		truncate := c.Op == changelog.OpDelete || c.Op == changelog.OpTruncate
		if ok && (c.Position.Offset < at || c.Position.Offset == at && !truncate) {
			t.Fatalf("%s: offset %d after %d", p, c.Position.Offset, at)
		}
		last[p] = c.Position.Offset
	}
	seen := map[string]bool{}
	for _, p := range l.visible.parked {
		at := fmt.Sprintf("%s/%d/%d", p.Position.Topic, p.Position.Partition, p.Position.Offset)
		if seen[at] {
			t.Fatalf("%s is parked twice", at)
		}
		seen[at] = true
	}
}

// TestTransportRepeats: a message that comes twice, and a transport that begins earlier than it was asked to, change
// nothing (T7).
func TestTransportRepeats(t *testing.T) {
	expected := expectedTables(t)
	for _, partitions := range []int32{1, 3} {
		for _, earlier := range []int64{0, 1, 50, 1 << 40} {
			t.Run(fmt.Sprintf("partitions=%d/earlier=%d", partitions, earlier), func(t *testing.T) {
				records := readRecording(t, "stream_2000_schema.jsonl.gz", partitions)
				l := openLog(newDisk())
				read := int64(0)
				for cut := 1; ; cut++ {
					s := newMemSource(records)
					s.twice, s.earlier, s.batch = true, earlier, 10
					l.dieAfter = 80
					_, err := runOnce(t, l, s, routesOf(t, expected, false), ingest.Options{BatchRecords: 10, ReplayWindow: 1000})
					if err == nil {
						break
					}
					if !errors.Is(err, errDead) {
						t.Fatal(err)
					}
					l = l.crash(cut % 2)
					if read++; read > 500 {
						t.Fatal("no end")
					}
				}
				compareTables(t, l, expected, keyed...)
				if partitions == 1 {
					compareTables(t, l, expected, "audit_log")
				}
				checkParked(t, l, partitions)
				checkOnce(t, l)
				l.check(t)
			})
		}
	}
}
