package ingest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/columns"
	"firn/ingest/decode"
)

func liveRules() []columns.Rule {
	return []columns.Rule{
		{Action: columns.Drop, Columns: []string{"v"}},
		{Action: columns.Rename, Columns: []string{"note"}, To: "remark"},
		{Action: columns.Rename, Match: "i(.)", To: "k${1}"},
		{Action: columns.Rename, Columns: []string{"kd"}, To: "key"},
		{Action: columns.Constant, To: "tenant", Value: "eu"},
		{Action: columns.Metadata, Columns: []string{"_lake_offset", "_lake_op", "_lake_position"}},
	}
}

const salt = "sixteen bytes of salt"

func hashed(v any) any {
	if v == nil {
		return nil
	}
	mac := hmac.New(sha256.New, []byte(salt))
	fmt.Fprint(mac, v)
	return hex.EncodeToString(mac.Sum(nil))
}

// ruledRow is a row of the source, and what its last event was.
type ruledRow struct {
	id     int64
	v      any // int64 or nil
	note   any // string or nil
	offset int
	op     string
	lsn    int64
}

// TestColumnRulesLive streams changes of a table through rules: placeholders, key changes, records that the connector sends again, a
// widened key; the log dies now and then. The rows are those of a simple model.
func TestColumnRulesLive(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []columns.Rule
		parts []string
		model func(r *ruledRow) map[string]any
	}{
		{"names and metadata", liveRules(), nil, func(r *ruledRow) map[string]any {
			return map[string]any{"key": r.id, "remark": r.note, "tenant": "eu", "_lake_offset": r.offset, "_lake_op": r.op, "_lake_position": fmt.Sprintf("lsn:00000000/%08X", r.lsn)}
		}},
		{"masks, of the key, too", []columns.Rule{
			{Action: columns.Hash, Columns: []string{"id"}, Salt: salt},
			{Action: columns.Rename, Columns: []string{"id"}, To: "who"},
			{Action: columns.Hash, Columns: []string{"note"}, Salt: salt},
			{Action: columns.Redact, Columns: []string{"v"}, Value: "-1"},
		}, nil, func(r *ruledRow) map[string]any {
			v := any(-1)
			if r.v == nil {
				v = nil
			}
			return map[string]any{"who": hashed(r.id), "note": hashed(r.note), "v": v}
		}},
		{"casts, of the key, too, in partitions", []columns.Rule{
			{Action: columns.Cast, Columns: []string{"id"}, Type: "string"},
			{Action: columns.Cast, Columns: []string{"v"}, Type: "decimal(12,2)"},
			{Action: columns.Truncate, Columns: []string{"note"}, Length: 2},
			{Action: columns.Metadata, Columns: []string{"_lake_op"}},
		}, []string{"_lake_op", "note"}, func(r *ruledRow) map[string]any {
			v, note := any(nil), any(nil)
			if r.v != nil {
				v = fmt.Sprintf("%d.00", r.v)
			}
			if s, ok := r.note.(string); ok {
				note = s[:2]
			}
			return map[string]any{"id": fmt.Sprint(r.id), "v": v, "note": note, "_lake_op": r.op}
		}},
		{"computed", []columns.Rule{
			{Action: columns.Compute, To: "large", Type: "boolean", Expr: `v > 70`},
			{Action: columns.Compute, To: "upper", Type: "string", Expr: `note.upperAscii()`},
			{Action: columns.Compute, To: "some", Type: "string", Expr: `v == null ? "none" : string(v)`},
			{Action: columns.Drop, Columns: []string{"note", "v"}},
		}, nil, func(r *ruledRow) map[string]any {
			m := map[string]any{"id": r.id, "large": nil, "upper": nil, "some": "none"}
			if v, ok := r.v.(int64); ok {
				m["large"], m["some"] = v > 70, fmt.Sprint(v)
			}
			if s, ok := r.note.(string); ok {
				m["upper"] = strings.ToUpper(s)
			}
			return m
		}},
	} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint(c.name, "/seed=", seed), func(t *testing.T) {
				m, model := ruledStream(seed)
				var want []json.RawMessage
				for _, r := range model {
					b, err := json.Marshal(c.model(r))
					if err != nil {
						t.Fatal(err)
					}
					want = append(want, b)
				}
				disk := newDisk()
				if c.parts != nil {
					disk.parts = map[string][]string{"t": c.parts}
				}
				l := runWithDeaths(t, seed, disk, []ingest.Route{{Topic: ".*", Rules: c.rules}}, m)
				table, _ := l.Table(m.table())
				if len(l.visible.parked) > 0 {
					t.Errorf("parked %s: %s", parkedReasons(l), l.visible.parked[0].Detail)
				}
				compareRows(t, "t", dump(t, table, l.visible.rows), want)
				if c.parts != nil {
					checkBefore(t, l)
				}
			})
		}
	}
}

// ruledStream makes changes of a table, and the rows that it has after them.
func ruledStream(seed uint64) (*maker, map[int64]*ruledRow) {
	m, rnd := newMaker("a.b.t", 1), rand.New(rand.NewPCG(seed, 5))
	model := map[int64]*ruledRow{}
	set := func(op string, id int64, v, note any) {
		model[id] = &ruledRow{id: id, v: v, note: note, offset: len(m.records) - 1, op: op, lsn: m.lsn}
	}
	for i := range int64(150) {
		if i == 75 {
			m.idType = "int64"
		}
		id := rnd.Int64N(12)
		row := model[id]
		switch k := rnd.IntN(8); {
		case k == 0:
			m.add("d", id, "")
			delete(model, id)
		case k == 1 && row != nil: // the note is not sent
			m.add("u", id, fmt.Sprintf(`"v":%d,"note":%s`, i, hole))
			set("u", id, i, row.note)
		case k == 2 && row != nil && model[id+20] == nil:
			m.move(id, id+20, fmt.Sprintf(`"v":%d,"note":%s`, i, hole))
			set("c", id+20, i, row.note)
			delete(model, id)
		case k == 3 && len(m.records) > 0: // what was sent is sent again
			r := m.records[len(m.records)-1]
			m.place.Place(&r)
			m.records = append(m.records, r)
		default:
			v, note := any(i), any(fmt.Sprint("note", i))
			if rnd.IntN(5) == 0 {
				v, note = nil, nil
			}
			a, _ := json.Marshal(v)
			b, _ := json.Marshal(note)
			m.add("u", id, fmt.Sprintf(`"v":%s,"note":%s`, a, b))
			set("u", id, v, note)
		}
	}
	return m, model
}

// runWithDeaths takes in a maker's records over a log that dies now and then.
func runWithDeaths(t *testing.T, seed uint64, disk *disk, routes []ingest.Route, m *maker) *fakeLog {
	t.Helper()
	l, rng := openLog(disk), rand.New(rand.NewPCG(seed, 1))
	for lives := 0; ; lives++ {
		source := newMemSource(m.records)
		source.batch, source.jitter = 1+rng.IntN(9), rand.New(rand.NewPCG(rng.Uint64(), 1))
		l.dieAfter = 3 + rng.IntN(10)
		_, err := runOnce(t, l, source, routes, ingest.Options{BatchRecords: 1 + rng.IntN(12), ReplayWindow: 200})
		if err == nil {
			if lives == 0 {
				t.Error("the log never died")
			}
			l.check(t)
			return l
		}
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		l = l.crash(rng.IntN(3))
	}
}

// TestColumnRulesEvolve: the source's changes of type and of columns go through the rules.
func TestColumnRulesEvolve(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.columns = "n:int32,gone:string"
	m.add("c", 1, `"n":1,"gone":"x"`)
	m.columns = "n:int64" // widened; the dropped column goes
	m.add("c", 2, `"n":5000000000`)
	m.columns = "gone:int64,n:int64,more:string" // it comes back with another type, and nobody sees it
	m.add("c", 3, `"gone":7,"n":3,"more":"y"`)
	l := openLog(newDisk())
	rules := []columns.Rule{{Action: columns.Drop, Columns: []string{"gone"}}, {Action: columns.Rename, Columns: []string{"n"}, To: "count"}, {Action: columns.Constant, To: "c", Value: "1", Type: "int"}}
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Rules: rules}}, m)
	want := `{"id":1,"count":1,"c":1,"more":null}` + "\n" + `{"id":2,"count":5000000000,"c":1,"more":null}` + "\n" + `{"id":3,"count":3,"c":1,"more":"y"}` + "\n"
	if got := rows(t, l, "a_b.t"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	// Other rules on the live table: a column more is added, one that is not dropped any more comes.
	rules = []columns.Rule{{Action: columns.Rename, Columns: []string{"n"}, To: "count"}, {Action: columns.Constant, To: "d", Value: "2", Type: "long"}}
	m.add("c", 4, `"gone":8,"n":4,"more":"z"`)
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Rules: rules}}, m)
	if got := rows(t, l, "a_b.t"); !strings.Contains(got, `{"id":4,"count":4,"c":null,"more":"z","gone":8,"d":2}`) {
		t.Error(got)
	}
}

// TestColumnRulesMisfit: rules that do not fit stop the topic with the reason, what came before is applied and nothing is parked; with
// better rules it goes on where it stood.
func TestColumnRulesMisfit(t *testing.T) {
	for _, c := range []struct {
		name  string
		rules []columns.Rule
		want  string
	}{
		{"two columns of one name", []columns.Rule{{Action: columns.Rename, Columns: []string{"note"}, To: "more"}}, `topic a.b.t cannot go on into table a_b.t: column rule 1: two columns are called "more"`},
		{"a key column dropped", []columns.Rule{{Action: columns.Drop, Match: "id"}}, `"id" is a key column and cannot be dropped`},
		{
			"another type on a live table",
			[]columns.Rule{{Action: columns.Drop, Columns: []string{"note"}}, {Action: columns.Constant, To: "note", Value: "1", Type: "int"}},
			`column "note" is int by the route's column rules, the table has string: give it another name, or read the topic into a new table`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMaker("a.b.t", 1)
			m.add("c", 1, `"v":1,"note":"a"`)
			l := openLog(newDisk())
			run(t, l, ingest.Options{}, nil, m)
			m.columns = "v:int64,note:string,more:string"
			m.add("c", 2, `"v":2,"note":"b","more":"c"`)
			p := run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Rules: c.rules}}, m)
			status := p.Status()[0].Partitions[0]
			if !strings.Contains(status.Error, c.want) || status.Next != 1 {
				t.Errorf("error %q, next %d", status.Error, status.Next)
			}
			if len(l.visible.parked) > 0 {
				t.Errorf("parked %s", parkedReasons(l))
			}
			run(t, l, ingest.Options{}, nil, m)
			if got := rows(t, l, "a_b.t"); !strings.Contains(got, `"id":2`) {
				t.Error(got)
			}
		})
	}
}

// TestColumnRulesMisfitLater: what is read before the record that the rules do not fit is durable.
func TestColumnRulesMisfitLater(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("c", 2, `"v":1,"note":"b"`)
	m.columns = "v:int64,note:string,more:string"
	m.add("c", 3, `"v":2,"note":"b","more":"c"`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Rules: []columns.Rule{{Action: columns.Rename, Columns: []string{"note"}, To: "more"}}}}, m)
	if got := rows(t, l, "a_b.t"); got != `{"id":1,"v":1,"more":"a"}`+"\n"+`{"id":2,"v":1,"more":"b"}`+"\n" {
		t.Error(got)
	}
}

// TestColumnRulesParked: a record that cannot be read is parked by the key that the rules make, and replayed through the rules with
// the metadata of its first reading.
func TestColumnRulesParked(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("u", 1, `"v":"no number","note":"b"`)
	m.add("u", 1, `"v":3,"note":"c"`)
	l := openLog(newDisk())
	routes := []ingest.Route{{Topic: ".*", OnParked: ingest.ParkedQueue, Rules: liveRules()}}
	for i := range routes[0].Rules {
		if routes[0].Rules[i].Action == columns.Drop {
			routes[0].Rules[i] = columns.Rule{Action: columns.Rename, Columns: []string{"v"}, To: "w"}
		}
	}
	p := run(t, l, ingest.Options{}, routes, m)
	if got := parkedReasons(l); got != "1:type_mismatch 2:key_queued" {
		t.Fatal(got)
	}
	table, _ := l.Table("a_b.t")
	key := l.visible.parked[0].Key
	if len(key) == 0 || string(key) != string(l.visible.parked[1].Key) {
		t.Fatalf("keys %x and %x", key, l.visible.parked[1].Key)
	}
	if values, err := table.Schemas.Current().KeyValues(key); err != nil || values[0].I != 1 {
		t.Fatal(values, err)
	}
	good := newMaker("a.b.t", 1)
	good.lsn = 1001
	good.add("u", 1, `"v":2,"note":"b"`)
	if err := p.EditParked(t.Context(), l.visible.parked[0].ID, ingest.ParkedChange{Value: &good.records[0].Value}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReplayParked(t.Context(), l.visible.parked[0].ID, false); err != nil {
		t.Fatal(err)
	}
	want := `{"key":1,"w":3,"remark":"c","tenant":"eu","_lake_offset":2,"_lake_op":"u","_lake_position":"lsn:00000000/000003EB"}` + "\n"
	if got := rows(t, l, "a_b.t"); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestColumnRulesWithoutSchema: columns of messages without a schema are read by the table's types under the names that the rules gave
// them, by who has not seen one of them before.
func TestColumnRulesWithoutSchema(t *testing.T) {
	event := func(topic string, id int, d, x string) *maker {
		m := newMaker(topic, 1)
		m.raw(fmt.Sprintf(`{"id":%d}`, id), fmt.Sprintf(`{"before":null,"after":{"id":%d,"d":%s,"x_y":%s},"source":{"connector":"postgresql","name":"n",`+
			`"ts_ms":1767225600000,"db":"d","schema":"public","table":"t","lsn":7},"op":"c"}`, id, d, x))
		return m
	}
	for _, rules := range [][]columns.Rule{
		{{Action: columns.Rename, Columns: []string{"d"}, To: "e"}, {Action: columns.Rename, Match: "x_(.*)", To: "$1"}, {Action: columns.Constant, To: "c", Value: "k"}},
		{{Action: columns.Rename, Columns: []string{"d"}, To: "e"}, {Action: columns.Rename, Columns: []string{"x_y"}, To: "y"}, {Action: columns.Constant, To: "c", Value: "k"}},
	} {
		l := openLog(newDisk())
		routes := []ingest.Route{{Topic: ".*", Table: "a_b.t", Rules: rules}}
		run(t, l, ingest.Options{}, routes, event("a.b.t", 1, "1.5", "2.5"))
		run(t, l, ingest.Options{}, routes, event("a.b.u", 2, "1", "2")) // whole numbers, which would be long by themselves
		if got := rows(t, l, "a_b.t"); got != `{"id":1,"e":1.5,"y":2.5,"c":"k"}`+"\n"+`{"id":2,"e":1,"y":2,"c":"k"}`+"\n" {
			t.Error(got)
		}
	}
}

// TestColumnRulesCastParked: a value that a cast does not take parks the record under its key, and later events of the key wait.
func TestColumnRulesCastParked(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"7"`)
	m.add("u", 1, `"v":1,"note":"seven"`)
	m.add("u", 2, `"v":1,"note":"8"`)
	m.add("u", 1, `"v":1,"note":"9"`)
	l := openLog(newDisk())
	routes := []ingest.Route{{Topic: ".*", OnParked: ingest.ParkedQueue, Rules: []columns.Rule{
		{Action: columns.Cast, Columns: []string{"note"}, Type: "int"}, {Action: columns.Hash, Columns: []string{"id"}, Salt: salt}, {Action: columns.Drop, Columns: []string{"v"}},
	}}}
	p := run(t, l, ingest.Options{}, routes, m)
	if got := parkedReasons(l); got != "1:cast_inexact 3:key_queued" {
		t.Fatal(got)
	}
	if d := l.visible.parked[0].Detail; d != `column "note": "seven" is no int` {
		t.Error(d)
	}
	if _, err := p.SkipParked(t.Context(), l.visible.parked[0].ID, false); err != nil {
		t.Fatal(err)
	}
	table, _ := l.Table("a_b.t")
	compareRows(t, "t", dump(t, table, l.visible.rows), []json.RawMessage{
		fmt.Appendf(nil, `{"id":%q,"note":9}`, hashed(1)), fmt.Appendf(nil, `{"id":%q,"note":8}`, hashed(2)),
	})
}

// TestColumnRulesExpressionParked: a row for which an expression fails is parked with column, expression and why, and can be edited.
func TestColumnRulesExpressionParked(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 2, `"v":2,"note":"c@d"`)
	m.add("c", 1, `"v":0,"note":"a@b"`)
	l := openLog(newDisk())
	routes := []ingest.Route{{Topic: ".*", Rules: []columns.Rule{{Action: columns.Compute, To: "q", Type: "long", Expr: "10 / v"}}}}
	p := run(t, l, ingest.Options{}, routes, m)
	if got := parkedReasons(l); got != "1:expression" {
		t.Fatal(got)
	}
	if d := l.visible.parked[0].Detail; d != `column "q" = "10 / v": division by zero` {
		t.Error(d)
	}
	good := newMaker("a.b.t", 1)
	good.add("c", 1, `"v":5,"note":"a@b"`)
	if err := p.EditParked(t.Context(), l.visible.parked[0].ID, ingest.ParkedChange{Value: &good.records[0].Value}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReplayParked(t.Context(), l.visible.parked[0].ID, false); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, l, "a_b.t"); got != `{"id":1,"v":5,"note":"a@b","q":2}`+"\n"+`{"id":2,"v":2,"note":"c@d","q":5}`+"\n" {
		t.Error(got)
	}
}

// TestColumnRulesEvolveCast: a column that the source widens goes on into the type that it is cast to, and hashes as before.
func TestColumnRulesEvolveCast(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.columns = "n:int32,h:float"
	m.add("c", 1, `"n":1,"h":0.1`)
	m.columns = "n:int64,h:double"
	m.add("c", 2, `"n":1,"h":0.10000000149011612`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Rules: []columns.Rule{
		{Action: columns.Cast, Columns: []string{"n"}, Type: "decimal(20,1)"}, {Action: columns.Hash, Columns: []string{"h"}, Salt: salt},
	}}}, m)
	h := hashed("0.10000000149011612")
	if got, want := rows(t, l, "a_b.t"), fmt.Sprintf(`{"id":1,"n":"1.0","h":%q}`+"\n"+`{"id":2,"n":"1.0","h":%q}`+"\n", h, h); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestColumnRulesBefore: before images are the rows as the rules left them.
func TestColumnRulesBefore(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("u", 1, `"v":2,"note":"b"`)
	m.records[1].Value = []byte(strings.Replace(string(m.records[1].Value), `"before":null`, `"before":{"id":1,"v":1,"note":"a"}`, 1))
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Decode: decode.Options{Identity: decode.IdentityFull}, Rules: liveRules()}}, m)
	table, _ := l.Table("a_b.t")
	var befores []changelog.Row
	for _, c := range l.visible.changes {
		befores = append(befores, c.Before)
	}
	if len(befores) != 2 || befores[0] != nil {
		t.Fatalf("%d changes", len(befores))
	}
	values, err := changelog.AppendValues(nil, table.Schemas.Current(), befores[1])
	if err != nil || len(values) != 6 || values[0].I != 1 || string(values[1].B) != "a" || string(values[2].B) != "eu" || !values[3].Null {
		t.Errorf("%+v, %v", values, err)
	}
}
