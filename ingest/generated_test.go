package ingest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"firn/ingest"
	"firn/ingest/file"
)

// generator writes streams of events and the rows that they end in.
const generator = "../deploy/peers/debezium-data/gen_debezium.py"

// seeds is how many generated streams are taken in; FIRN_TEST_SEEDS says another number, and FIRN_TEST_SEED the first one.
const seeds = 12

// generated is what the generator is asked for.
type generated struct {
	seed                              uint64
	Events, Rows, Partitions          int
	Restarts, DupMax                  int
	Schemas, Tombstones, Transactions bool
	Incremental                       bool
}

// TestSeeds takes in generated streams: with batches of 1, 7, 100 and all, filters exact and off, three partitions in any interleaving, a
// connector that sends again, a transport that gives records twice and begins earlier, and a log that dies at every k-th record
// (spec/debezium.md T5, T6, T7; P1).
func TestSeeds(t *testing.T) {
	count, first := seeds, uint64(1)
	for name, to := range map[string]func(int){
		"FIRN_TEST_SEEDS": func(n int) { count = n }, "FIRN_TEST_SEED": func(n int) { first = uint64(n) }, //nolint:gosec // not negative
	} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			to(n)
		}
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the generator needs python3, which is not here")
	}
	const group = 50 // streams of one run of the generator: starting it takes as long as a stream
	for n := 0; n < count; n += group {
		var all []generated
		for i := n; i < min(n+group, count); i++ {
			all = append(all, variant(first+uint64(i))) //nolint:gosec // not negative
		}
		t.Run(fmt.Sprintf("from=%d", all[0].seed), func(t *testing.T) {
			dir := t.TempDir()
			generate(t, dir, all)
			for _, g := range all {
				t.Run(fmt.Sprintf("seed=%d", g.seed), func(t *testing.T) {
					t.Parallel()
					testGenerated(t, dir, g)
				})
			}
		})
	}
}

// variant draws what a seed's stream is like.
func variant(seed uint64) generated {
	r := rand.New(rand.NewPCG(seed, 6))
	return generated{
		seed: seed, Events: 40 + r.IntN(140), Rows: 2 + r.IntN(10), Partitions: []int{1, 3}[r.IntN(2)], Restarts: r.IntN(10), DupMax: 1 + r.IntN(200),
		Schemas: r.IntN(3) > 0, Tombstones: r.IntN(4) > 0, Transactions: r.IntN(4) > 0, Incremental: r.IntN(2) > 0,
	}
}

func generate(t *testing.T, dir string, all []generated) {
	t.Helper()
	calls := make([][]string, 0, len(all))
	for _, g := range all {
		args := []string{"x", "stream", "--out", dir, "--name", fmt.Sprint(g.seed), "--seed", fmt.Sprint(g.seed)}
		for flag, n := range map[string]int{"events": g.Events, "rows": g.Rows, "partitions": g.Partitions, "restarts": g.Restarts, "dup-max": g.DupMax} {
			args = append(args, "--"+flag, strconv.Itoa(n))
		}
		for flag, on := range map[string]bool{"schemas": g.Schemas, "tombstones": g.Tombstones, "transactions": g.Transactions, "incremental": g.Incremental} {
			args = append(args, map[bool]string{true: "--", false: "--no-"}[on]+flag)
		}
		calls = append(calls, args)
	}
	text, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	script := "import sys, json; sys.path.insert(0, sys.argv[1]); import gen_debezium as g\nfor a in json.load(sys.stdin):\n    sys.argv = a\n    try: g.main()\n    except SystemExit as e:\n        if e.code: raise\n"
	cmd := exec.CommandContext(t.Context(), "python3", "-B", "-c", script, filepath.Dir(generator))
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the generator: %v\n%s", err, out)
	}
}

func testGenerated(t *testing.T, dir string, g generated) {
	path := filepath.Join(dir, fmt.Sprint(g.seed))
	expected := readExpected(t, path+".expected.json")
	var records []ingest.Record
	for r, err := range file.Records(t.Context(), path+".jsonl") {
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	r := rand.New(rand.NewPCG(g.seed, 7))
	routes := routesOf(t, expected, !g.Schemas)
	batch := []int{1, 7, 100, 1 << 20}[r.IntN(4)]
	source := func() *memSource {
		s := newMemSource(records)
		s.jitter = rand.New(rand.NewPCG(g.seed, 8))
		return s
	}
	tables := slices.Clone(keyed)
	if g.Partitions == 1 { // else a truncate is parked, and what is sent again without a key goes to any partition
		if tables = append(tables, "staging"); g.Transactions { // else equal rows and repeats cannot be told apart
			tables = append(tables, "audit_log")
		}
	}
	check := func(l *fakeLog, tables []string) {
		t.Helper()
		dropUnseen(t, l, expected)
		compareTables(t, l, expected, slices.DeleteFunc(slices.Clone(tables), func(name string) bool { // no event had it
			return len(expected[name].Rows) == 0 && l.disk.tables[ingest.TableName(expected[name].Topic)] == nil
		})...)
		checkParked(t, l, int32(g.Partitions)) //nolint:gosec // 1 or 3
		l.check(t)
		checkOnce(t, l)
		if t.Failed() {
			t.Logf("%+v, batches of %d: FIRN_TEST_SEED=%d FIRN_TEST_SEEDS=1", g, batch, g.seed)
		}
	}
	o := ingest.Options{BatchRecords: batch, ReplayWindow: 4000}
	k := func(least int) int { return least + r.IntN(min(150, len(records)/4)) }

	l := openLog(newDisk())
	if _, err := runOnce(t, l, source(), routes, o); err != nil {
		t.Fatal(err)
	}
	check(l, tables)

	check(runKilled(t, source, routes, o, k(1)), tables)

	twice := func() *memSource {
		s := source()
		s.twice, s.earlier = true, []int64{0, 1, 50, 1 << 40}[r.IntN(4)]
		return s
	}
	check(runKilled(t, twice, routes, o, k(20)), tables)

	if g.Incremental { // an event that is sent again would undo what an incremental snapshot has read since: that is what the filter is for
		return
	}
	for i := range routes {
		routes[i].KeepRepeats = true
	}
	check(runKilled(t, source, routes, o, k(20)), keyed) // rows without a key are there again
}

// dropUnseen takes the columns of expected tables out that no event had: the source had them, after the last event of the table.
func dropUnseen(t *testing.T, l *fakeLog, expected map[string]expectedTable) {
	t.Helper()
	for name, e := range expected {
		table := l.disk.tables[ingest.TableName(e.Topic)]
		if table == nil {
			continue
		}
		rows := make([]map[string]json.RawMessage, len(e.Rows))
		for i, row := range e.Rows {
			if err := json.Unmarshal(row, &rows[i]); err != nil {
				t.Fatal(err)
			}
		}
		kept := e.Columns[:0:0]
		for _, c := range e.Columns {
			used := slices.ContainsFunc(rows, func(row map[string]json.RawMessage) bool { return string(row[c.Name]) != "null" })
			if used || table.Schemas.Current().Ordinal(c.Name) >= 0 {
				kept = append(kept, c)
				continue
			}
			for i := range rows {
				delete(rows[i], c.Name)
			}
		}
		if len(kept) == len(e.Columns) {
			continue
		}
		for i, row := range rows {
			var err error
			if e.Rows[i], err = json.Marshal(row); err != nil {
				t.Fatal(err)
			}
		}
		e.Columns = kept
		expected[name] = e
	}
}
