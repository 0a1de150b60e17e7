package ingest_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/decode"
)

// writer makes the messages of a capture tool: of one statement that changes rows, each from old to now (nil: none).
type writer func(n int, rows []rowChange) []string

type rowChange struct{ old, now map[string]any }

// tools are the tools whose messages are read, and what they tell of repeats.
var tools = map[string]struct {
	form   decode.Form
	write  writer
	exact  bool // repeats are recognised
	config func(*ingest.Route)
}{
	"canal":   {form: decode.FormCanal, write: canalMessages},
	"maxwell": {form: decode.FormMaxwell, write: maxwellMessages, exact: true},
	"ogg":     {form: decode.FormOGG, write: oggMessages, exact: true},
	"dms": {form: decode.FormDMS, write: dmsMessages, exact: true, config: func(r *ingest.Route) {
		r.Key, r.Columns = ingest.KeyColumns, []string{"id"}
	}},
}

func jsonOf(row map[string]any, quoted bool) string {
	if row == nil {
		return "null"
	}
	var members []string
	for _, name := range []string{"id", "v", "note"} {
		v, ok := row[name]
		switch {
		case !ok:
			continue
		case v == nil:
			members = append(members, fmt.Sprintf("%q:null", name))
		case name == "note" || quoted:
			members = append(members, fmt.Sprintf("%q:%q", name, fmt.Sprint(v)))
		default:
			members = append(members, fmt.Sprintf("%q:%v", name, v))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

// differs returns the members of old that now does not have alike.
func (c rowChange) differs() map[string]any {
	d := map[string]any{}
	for name, v := range c.old {
		if c.now[name] != v {
			d[name] = v
		}
	}
	return d
}

func (c rowChange) kind() string {
	switch {
	case c.old == nil:
		return "insert"
	case c.now == nil:
		return "delete"
	}
	return "update"
}

// canalMessages: all rows of one kind in one message.
func canalMessages(n int, rows []rowChange) []string {
	var out []string
	for len(rows) > 0 {
		kind := rows[0].kind()
		var data, old []string
		for len(rows) > 0 && rows[0].kind() == kind {
			if row := rows[0].now; kind != "delete" {
				data = append(data, jsonOf(row, true))
			} else {
				data = append(data, jsonOf(rows[0].old, true))
			}
			old = append(old, jsonOf(rows[0].differs(), true))
			rows = rows[1:]
		}
		olds := "null"
		if kind == "update" {
			olds = "[" + strings.Join(old, ",") + "]"
		}
		out = append(out, fmt.Sprintf(`{"data":[%s],"database":"d","es":%d000,"id":%d,"isDdl":false,"mysqlType":{"id":"int","v":"bigint","note":"varchar(9)"},"old":%s,"pkNames":["id"],"sql":"","sqlType":{},"table":"t","ts":1,"type":%q}`,
			strings.Join(data, ","), 1772352900+n, n, olds, strings.ToUpper(kind)))
	}
	return out
}

// maxwellMessages: one row in each, the statement is a transaction.
func maxwellMessages(n int, rows []rowChange) (out []string) {
	for i, c := range rows {
		data, old := c.now, ""
		switch c.kind() {
		case "delete":
			data = c.old
		case "update":
			old = `,"old":` + jsonOf(c.differs(), false)
		}
		place := fmt.Sprintf(`"xoffset":%d`, i)
		if i == len(rows)-1 {
			place = `"commit":true`
		}
		out = append(out, fmt.Sprintf(`{"database":"d","table":"t","type":%q,"ts":%d,"xid":%d,%s,"primary_key_columns":["id"],"data":%s%s}`,
			c.kind(), 1772352900+n, 1000+n, place, jsonOf(data, false), old))
	}
	return out
}

// oggMessages: updates are compressed, unless a row takes another key.
func oggMessages(n int, rows []rowChange) (out []string) {
	for i, c := range rows {
		before, now := jsonOf(c.old, false), jsonOf(c.now, false)
		op := map[string]string{"insert": "I", "update": "U", "delete": "D"}[c.kind()]
		if op == "U" && c.old["id"] == c.now["id"] {
			changed := rowChange{c.now, c.old}.differs()
			changed["id"] = c.now["id"]
			before, now = fmt.Sprintf(`{"id":%v}`, c.old["id"]), jsonOf(changed, false)
		}
		out = append(out, fmt.Sprintf(`{"table":"D.T","op_type":%q,"op_ts":"2026-03-01 08:15:00.000000","pos":"%020d","primary_keys":["id"],"before":%s,"after":%s}`, op, 100*n+i, before, now))
	}
	return out
}

// dmsMessages: null columns are not there, before images have the key.
func dmsMessages(n int, rows []rowChange) (out []string) {
	for i, c := range rows {
		data, before := maps.Clone(c.now), ""
		switch {
		case c.kind() == "delete":
			data = map[string]any{"id": c.old["id"]}
		case c.kind() == "update" && c.old["id"] != c.now["id"]:
			before = fmt.Sprintf(`"before-image":{"id":%v},`, c.old["id"])
		}
		maps.DeleteFunc(data, func(_ string, v any) bool { return v == nil })
		out = append(out, fmt.Sprintf(`{"data":%s,%s"metadata":{"record-type":"data","operation":%q,"schema-name":"d","table-name":"t","transaction-id":%d,"transaction-record-id":%d,"stream-position":"%d.%d"}}`,
			jsonOf(data, false), before, c.kind(), n, i+1, n, i))
	}
	return out
}

// workload makes statements of one table, and the rows that are there in the end, by id.
func workload(seed uint64, statements int) (all [][]rowChange, model map[int]map[string]any) {
	rng := rand.New(rand.NewPCG(seed, 7))
	model = map[int]map[string]any{}
	row := func(id int) map[string]any {
		m := map[string]any{"id": id, "v": rng.IntN(1000), "note": nil}
		if rng.IntN(3) > 0 {
			m["note"] = fmt.Sprintf("n%d", rng.IntN(9))
		}
		return m
	}
	for range statements {
		var rows []rowChange
		used := map[int]bool{}
		for range 1 + rng.IntN(5) {
			id := rng.IntN(30)
			if used[id] {
				continue
			}
			used[id] = true
			old := model[id]
			to := id
			if free := 30 + rng.IntN(30); old != nil && rng.IntN(5) == 0 && model[free] == nil && !used[free] { // it takes another key
				to, used[free] = free, true
			}
			now := row(to)
			if old != nil && rng.IntN(4) == 0 {
				now = nil
			}
			delete(model, id)
			if now != nil {
				model[to] = now
			}
			rows = append(rows, rowChange{old, now})
		}
		slices.SortStableFunc(rows, func(a, b rowChange) int { return strings.Compare(a.kind(), b.kind()) })
		all = append(all, rows)
	}
	return all, model
}

// foreignRecords are a workload's messages; with again, some come again, in a run, as the tool sends them after a crash.
func foreignRecords(tool string, seed uint64, again bool) ([]ingest.Record, map[int]map[string]any) {
	statements, model := workload(seed, 60)
	rng := rand.New(rand.NewPCG(seed, 8))
	var values []string
	for n, rows := range statements {
		values = append(values, tools[tool].write(n, rows)...)
		if again && rng.IntN(10) == 0 {
			values = append(values, values[max(0, len(values)-1-rng.IntN(12)):]...)
		}
	}
	var records []ingest.Record
	for i, v := range values {
		records = append(records, ingest.Record{Topic: "t", Offset: int64(i), Value: []byte(v)})
	}
	return records, model
}

func foreignRoute(tool string) ingest.Route {
	r := ingest.Route{Topic: ".*", Table: "a.t", Decode: decode.Options{Form: tools[tool].form}}
	if f := tools[tool].config; f != nil {
		f(&r)
	}
	return r
}

func wantRows(model map[int]map[string]any) string {
	var all []string
	for id := range 60 {
		if m := model[id]; m != nil {
			all = append(all, jsonOf(m, false))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func sortedRows(t *testing.T, l *fakeLog) string {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(rows(t, l, "a.t"), "\n"), "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// TestForeign: the messages of each tool make the rows that a simple model has, over crashes at every k-th append, transports that give
// records again, and tools that send a run of messages again; each record is applied whole and once.
func TestForeign(t *testing.T) {
	for tool := range tools {
		for seed := range uint64(12) {
			for _, batch := range []int{1, 7, 1000} {
				records, model := foreignRecords(tool, seed, seed%3 == 0)
				l := openLog(newDisk())
				rng := rand.New(rand.NewPCG(seed, uint64(batch)))
				lives := 0
				for {
					s := newMemSource(records)
					s.batch, s.twice, s.earlier = 1+rng.IntN(10), rng.IntN(2) == 0, int64(rng.IntN(3))
					l.dieAfter = 1 + rng.IntN(max(2, 40/batch))
					if lives > 60 {
						l.dieAfter = 0
					}
					_, err := runOnce(t, l, s, []ingest.Route{foreignRoute(tool)}, ingest.Options{BatchRecords: batch, ReplayWindow: 50})
					if err == nil {
						break
					}
					if !errors.Is(err, errDead) {
						t.Fatal(err)
					}
					l = l.crash(rng.IntN(2))
					lives++
				}
				if got, want := sortedRows(t, l), wantRows(model); got != want {
					t.Fatalf("%s, seed %d, batch %d: rows\n%s\nwant\n%s", tool, seed, batch, got, want)
				}
				if p := parkedReasons(l); p != "" {
					t.Fatalf("%s: parked %s", tool, p)
				}
				l.check(t)
				checkWhole(t, l, tool, records)
			}
		}
	}
}

// checkWhole: a record is applied once and whole, in order; where repeats are recognised, they are not applied.
func checkWhole(t *testing.T, l *fakeLog, tool string, records []ingest.Record) {
	t.Helper()
	applied, last := map[int64]int{}, int64(-1)
	for _, c := range l.visible.changes {
		if c.Position.Offset < last {
			t.Fatalf("%s: offset %d after %d", tool, c.Position.Offset, last)
		}
		last = c.Position.Offset
		applied[last]++
	}
	o := foreignRoute(tool)
	o.Decode.KeyColumns = o.Columns
	d, distinct := decode.New(o.Decode), map[string]bool{}
	for _, r := range records {
		again := distinct[string(r.Value)]
		distinct[string(r.Value)] = true
		events := 1
		for _, _ = d.Decode(decode.Record{Topic: r.Topic, Key: r.Key, Value: r.Value}); d.More(); events++ {
			_, _ = d.Next()
		}
		if again && tools[tool].exact {
			events = 0
		}
		if n := applied[r.Offset]; n != events {
			t.Fatalf("%s: %d of %d changes of %s", tool, n, events, r.Value)
		}
	}
}

// canalOf3 is one message of three rows: the second one is bad.
const canalOf3 = `{"data":[{"id":"1","v":"1"},{"id":"2","v":"x"},{"id":"3","v":"3"}],"isDdl":false,"mysqlType":{"id":"int","v":"int"},"pkNames":["id"],"type":"INSERT"}`

func canalRow(typ, row, old string) string {
	return `{"data":[` + row + `],"isDdl":false,"mysqlType":{"id":"int","v":"int"},"old":[` + old + `],"pkNames":["id"],"type":"` + typ + `"}`
}

func foreignLog(t *testing.T, o ingest.Options, route ingest.Route, values ...string) (*ingest.Pipeline, *fakeLog, error) {
	t.Helper()
	l := openLog(newDisk())
	p, err := runOnce(t, l, newMemSource(foreignValues(values...)), []ingest.Route{route}, o)
	return p, l, err
}

func foreignValues(values ...string) (records []ingest.Record) {
	for i, v := range values {
		records = append(records, ingest.Record{Topic: "t", Offset: int64(i), Value: []byte(v)})
	}
	return records
}

// TestForeignParked: a bad row of a message parks its own key: the other rows are applied, later ones of the key queue, and a replay
// applies them in order, each part of a message once.
func TestForeignParked(t *testing.T) {
	route := foreignRoute("canal")
	route.OnParked = ingest.ParkedQueue
	p, l, err := foreignLog(t, ingest.Options{}, route, canalRow("INSERT", `{"id":"9","v":"9"}`, ""), canalOf3,
		canalRow("UPDATE", `{"id":"2","v":"20"},{"id":"3","v":"30"}`, `{"v":"2"},{"v":"3"}`), canalRow("UPDATE", `{"id":"5","v":"20"}`, `{"id":"2"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := parkedReasons(l); got != "1:type_mismatch 2:key_queued 3:key_queued" {
		t.Fatalf("parked %s", got)
	}
	if got := sortedRows(t, l); got != `{"id":1,"v":1}`+"\n"+`{"id":3,"v":30}`+"\n"+`{"id":5,"v":20}`+"\n"+`{"id":9,"v":9}` {
		t.Errorf("rows %s", got)
	}
	for i, want := range []string{`"data":[{"id":"2","v":"x"}],"old":null`, `"data":[{"id":"2","v":"20"}],"old":[{"v":"2"}]`, `"type":"DELETE","data":[{"id":"2","v":"20"}]`} {
		if got := string(l.visible.parked[i].RecordValue); !strings.Contains(got, want) {
			t.Errorf("parked %s", got)
		}
	}
	if e, err := p.ExplainParked(t.Context(), 1); err != nil || e.Now != "type_mismatch" {
		t.Errorf("%+v, %v", e, err)
	}
	edit := []byte(canalRow("INSERT", `{"id":"2","v":"2"}`, ""))
	if err := p.EditParked(t.Context(), 1, ingest.ParkedChange{By: "ann", Value: &edit}); err != nil {
		t.Fatal(err)
	}
	before := len(l.visible.changes)
	if out, err := p.ReplayTable(t.Context(), "a.t"); err != nil || out.Applied != 3 || out.Failed != 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	var ops string
	for _, c := range l.visible.changes[before:] {
		ops += c.Op.String()
	}
	if ops != "cud" || len(l.visible.parked)+len(l.visible.marks) > 0 {
		t.Errorf("changes %s, parked %s, marks %v", ops, parkedReasons(l), l.visible.marks)
	}
	if got := sortedRows(t, l); got != `{"id":1,"v":1}`+"\n"+`{"id":3,"v":30}`+"\n"+`{"id":5,"v":20}`+"\n"+`{"id":9,"v":9}` {
		t.Errorf("rows %s", got)
	}
}

// TestForeignEdited: an edit may turn a record into several rows: of a key that waits, only its own; of a record that has none, all or none.
func TestForeignEdited(t *testing.T) {
	p, l, err := foreignLog(t, ingest.Options{}, foreignRoute("canal"), canalRow("INSERT", `{"id":"2","v":"x"}`, ""), `{"type":"INSERT"}`, canalRow("INSERT", `{"id":"7","v":"7"}`, ""),
		canalRow("INSERT", `{"id":"2","v":"x"}`, ""))
	if err != nil || parkedReasons(l) != "0:type_mismatch 1:no_image 3:type_mismatch" {
		t.Fatalf("%v, parked %s", err, parkedReasons(l))
	}
	two := []byte(canalRow("INSERT", `{"id":"3","v":"3"},{"id":"2","v":"2"}`, ""))
	for _, id := range []uint64{2, 3} {
		if err := p.EditParked(t.Context(), id, ingest.ParkedChange{By: "ann", Value: &two}); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := p.ReplayParked(t.Context(), 3, false); err != nil || out.Applied != 0 || out.Failed != 1 || out.Failures[0].Reason != "key_mismatch" {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := p.ReplayParked(t.Context(), 2, true); err == nil || !strings.Contains(err.Error(), "other parked records") {
		t.Errorf("a row of a key that has parked records: %v", err)
	}
	half := []byte(canalRow("INSERT", `{"id":"4","v":"4"},{"id":"5","v":"x"}`, ""))
	if err := p.EditParked(t.Context(), 2, ingest.ParkedChange{By: "ann", Value: &half}); err != nil {
		t.Fatal(err)
	}
	if out, err := p.ReplayParked(t.Context(), 2, true); err != nil || out.Failed != 1 || sortedRows(t, l) != `{"id":7,"v":7}` {
		t.Errorf("%+v, %v, rows %s", out, err, sortedRows(t, l))
	}
	whole := []byte(canalRow("INSERT", `{"id":"4","v":"4"},{"id":"5","v":"5"}`, ""))
	if err := p.EditParked(t.Context(), 2, ingest.ParkedChange{By: "ann", Value: &whole}); err != nil {
		t.Fatal(err)
	}
	if out, err := p.ReplayParked(t.Context(), 2, true); err != nil || out.Applied != 1 || !strings.Contains(sortedRows(t, l), `{"id":5,"v":5}`) {
		t.Errorf("%+v, %v, rows %s", out, err, sortedRows(t, l))
	}
}

// TestForeignFailFast: a record with a bad row that must not be parked is not applied in part.
func TestForeignFailFast(t *testing.T) {
	route := foreignRoute("canal")
	route.FailFast, route.Key = true, ingest.KeyNone
	p, l, err := foreignLog(t, ingest.Options{}, route, canalRow("INSERT", `{"id":"9","v":"9"}`, ""), canalOf3)
	if err != nil {
		t.Fatal(err)
	}
	part := p.Status()[0].Partitions[0]
	if len(l.visible.changes) != 1 || len(l.visible.parked) != 0 || part.Next != 1 || !strings.Contains(part.Error, "type_mismatch") {
		t.Errorf("%d changes, parked %s, %+v", len(l.visible.changes), parkedReasons(l), part)
	}
	if c := p.Status()[0].Counts; c.Read != 1 || c.Applied != 1 {
		t.Errorf("%+v", c)
	}
}

// TestForeignCounts: each row of a message counts as one; a truncate is applied.
func TestForeignCounts(t *testing.T) {
	p, l, err := foreignLog(t, ingest.Options{}, foreignRoute("canal"), canalOf3, `{"isDdl":true,"type":"ALTER"}`, `{"isDdl":true,"type":"TRUNCATE"}`)
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Status()[0].Counts; c.Read != 5 || c.Applied != 3 || c.Parked != 1 || c.Skipped != 1 {
		t.Errorf("%+v", c)
	}
	whole := canalRow("INSERT", `{"id":"1","v":"1"},{"id":"2","v":"2"},{"id":"3","v":"3"}`, "")
	if _, l, err := foreignLog(t, ingest.Options{BatchBytes: 2 * len(whole)}, foreignRoute("canal"), whole, whole); err != nil || len(l.appends) != 1 {
		t.Errorf("%v, %d appends: the bytes of a record count once", err, len(l.appends))
	}
	if n := len(l.visible.changes); rows(t, l, "a.t") != "" || l.visible.changes[n-1].Op != changelog.OpTruncate {
		t.Errorf("rows %s", rows(t, l, "a.t"))
	}
}
