package ingest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/decode"
)

// shaped takes records in with one route until the end, and dies and goes on after every k appends, in which it reads all records twice and
// begins before the position it asked for; k 0: it does not die.
func shaped(t *testing.T, k int, route ingest.Route, records []ingest.Record) *fakeLog {
	t.Helper()
	route.Topic = ".*"
	l := openLog(newDisk())
	for lives := 0; ; lives++ {
		s := newMemSource(records)
		s.batch, s.twice, s.earlier = 1, k > 0, int64(k)
		l.dieAfter = k
		_, err := runOnce(t, l, s, []ingest.Route{route}, ingest.Options{BatchRecords: 1})
		if err == nil {
			if k > 0 && lives == 0 {
				t.Error("the log never died")
			}
			break
		}
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		if lives > 10*len(records)+10 {
			t.Fatal("no progress")
		}
		l = l.crash(lives % 3)
	}
	l.check(t)
	return l
}

// changesOf counts the changes of a table by operation.
func changesOf(l *fakeLog) map[changelog.Op]int {
	out := map[changelog.Op]int{}
	for _, c := range l.visible.changes {
		out[c.Op]++
	}
	return out
}

// again appends records once more, at later offsets, as a connector sends them after a crash.
func again(records []ingest.Record, from ...ingest.Record) []ingest.Record {
	records = slices.Clip(records)
	for _, r := range from {
		r.Offset = records[len(records)-1].Offset + 1
		records = append(records, r)
	}
	return records
}

// TestCloudEventsPipeline: a topic of CloudEvents makes the table that its envelopes would, also with restarts, and what the connector sends
// again is dropped: other rows of one position are not.
func TestCloudEventsPipeline(t *testing.T) {
	event := func(op string, lsn, pk int, name string) ingest.Record {
		row := fmt.Sprintf(`{"pk":%d,"name":%q}`, pk, name)
		if op == "d" {
			row = "null"
		}
		return ingest.Record{Topic: "ce.s1.a", Key: fmt.Appendf(nil, `{"pk":%d}`, pk), Value: fmt.Appendf(nil, `{"specversion":"1.0","id":"lsn:%d","source":"/debezium/postgresql/s",`+
			`"type":"io.debezium.connector.postgresql.DataChangeEvent","iodebeziumop":%q,"iodebeziumconnector":"postgresql","iodebeziumname":"s","iodebeziumtsms":"1767225600000",`+
			`"iodebeziumsnapshot":"false","iodebeziumdb":"d","iodebeziumschema":"s1","iodebeziumtable":"a","iodebeziumlsn":"%d","iodebeziumtxid":"5","data":{"before":null,"after":%s}}`, lsn, op, lsn, row)}
	}
	records := again([]ingest.Record{event("c", 10, 1, "a")}, event("c", 10, 2, "b"), event("u", 11, 1, "c"), event("d", 12, 2, ""),
		event("c", 10, 1, "a"), event("c", 10, 2, "b"), // sent again
		event("c", 13, 3, "e"), ingest.Record{Topic: "ce.s1.a", Key: []byte(`{"pk":2}`)},
		ingest.Record{Topic: "ce.s1.a", Key: []byte(`{"pk":9}`), Value: []byte(`{"specversion":"0.3","id":"1","source":"s","type":"t","data":{}}`)})
	for _, k := range []int{0, 1, 2, 3} {
		l := shaped(t, k, ingest.Route{Decode: decode.Options{Format: decode.FormatCloudEvents}}, records)
		want := `{"pk":1,"name":"c"} {"pk":3,"name":"e"}`
		if got := strings.Join(strings.Fields(rows(t, l, "ce_s1.a")), " "); got != want {
			t.Errorf("after every %d: rows %s, want %s", k, got, want)
		}
		if got := parkedReasons(l); got != "8:cloudevent_shape" {
			t.Errorf("after every %d: parked %s", k, got)
		}
		if n := changesOf(l); n[changelog.OpCreate] != 3 || n[changelog.OpUpdate] != 1 || n[changelog.OpDelete] != 1 {
			t.Errorf("after every %d: %v", k, n)
		}
	}
}

// TestOutboxPipeline: each event of an outbox adds one row, however often the process dies and the connector sends it: its id counts, not its
// position or its bytes. The table has no key, or the id.
func TestOutboxPipeline(t *testing.T) {
	event := func(id, aggregate, value string) ingest.Record {
		r := ingest.Record{Topic: "outbox.event.order", Timestamp: 1767225600000, Key: []byte(aggregate), Headers: []changelog.Header{{Key: "id", Value: []byte(id)}, {Key: "eventType", Value: []byte("T")}}}
		if value != "" {
			r.Value = []byte(value)
		}
		return r
	}
	records := again([]ingest.Record{event("e1", "1", `{"a":1}`)}, event("e2", "1", `{"a":1}`), event("e3", "2", `{"b":"x"}`), event("e4", "2", ""),
		event("e2", "1", `{"a":1}`), event("e3", "2", `{"b":"x","late":true}`), event("e5", "3", `"{\"a\":2,\"b\":null}"`), // two are sent again
		ingest.Record{Topic: "outbox.event.order", Value: []byte(`{}`)})
	row := func(id, aggregate, payload string) string {
		return fmt.Sprintf(`{"id":%q,"aggregatetype":"order","aggregateid":%q,"type":"T","timestamp":"2026-01-01T00:00:00.000000Z","headers":[],"payload":%s}`, id, aggregate, payload)
	}
	want := []string{row("e1", "1", `{"a":1,"b":null}`), row("e2", "1", `{"a":1,"b":null}`), row("e3", "2", `{"a":null,"b":"x"}`), row("e5", "3", `{"a":2,"b":null}`)}
	for name, route := range map[string]ingest.Route{
		"no key": {Key: ingest.KeyNone}, "the id": {Key: ingest.KeyColumns, Columns: []string{"id"}},
	} {
		route.Table = "events.orders"
		route.Decode = decode.Options{Form: decode.FormOutbox, Payload: decode.PayloadExpanded, Metadata: map[string]string{"eventType": "type"}}
		for _, k := range []int{0, 1, 2, 3, 5} {
			l := shaped(t, k, route, records)
			var got []string
			if route.Key == ingest.KeyNone {
				got = added(t, l, "events.orders")
			} else {
				got = strings.Split(strings.TrimSpace(rows(t, l, "events.orders")), "\n")
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s, after every %d: rows\n%s\nwant\n%s", name, k, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if n := changesOf(l); n[changelog.OpCreate] != 4 || len(n) != 1 {
				t.Errorf("%s, after every %d: %v", name, k, n)
			}
			if got := parkedReasons(l); got != "7:required_missing" {
				t.Errorf("%s, after every %d: parked %s", name, k, got)
			}
		}
	}
}

// TestOutboxSample: the four forms of the sample are one event by their id.
func TestOutboxSample(t *testing.T) {
	l := shaped(t, 0, ingest.Route{Key: ingest.KeyNone, Table: "events.orders", Decode: decode.Options{Form: decode.FormOutbox}}, readRecording(t, "outbox.jsonl", 1))
	if got := added(t, l, "events.orders"); len(got) != 1 || !strings.Contains(got[0], `"payload":"{\"id\":1,\"lineItems\":[{\"id\":1,\"qty\":2}]}"`) {
		t.Errorf("rows %s", got)
	}
}

// added returns the rows of a table without a key.
func added(t *testing.T, l *fakeLog, name string) []string {
	t.Helper()
	table, ok := l.Table(name)
	if !ok {
		return nil
	}
	var all []string
	for _, row := range dumpBag(t, l, table) {
		all = append(all, string(row))
	}
	return all
}

// TestMongoPipeline: a collection becomes a table, whatever its documents' fields hold, also with restarts; what the connector sends again is
// dropped; an update without the document is parked, and its key is stale until the next document.
func TestMongoPipeline(t *testing.T) {
	event := func(op, id, after, update string, ord int) ingest.Record {
		if after != "null" {
			after = fmt.Sprintf("%q", after)
		}
		return ingest.Record{Topic: "m.db.people", Key: fmt.Appendf(nil, `{"id":%q}`, id), Value: fmt.Appendf(nil, `{"before":null,"after":%s,"updateDescription":%s,`+
			`"source":{"connector":"mongodb","name":"m","ts_ms":1767225600000,"snapshot":"false","db":"db","collection":"people","ord":%d,"lsid":null,"txnNumber":null},"op":%q,"ts_ms":1}`,
			after, update, ord, op)}
	}
	const oid = `{"$oid":"596e275826f08b2730779e1f"}`
	patch := event("u", "1", "null", `{"removedFields":null,"updatedFields":"{\"a.b\":1}","truncatedArrays":null}`, 6)
	records := again([]ingest.Record{event("c", "1", `{"_id":1,"v":1}`, "null", 1)}, event("c", oid, `{"_id":`+oid+`,"v":2,"at":{"$date":0}}`, "null", 2),
		event("c", `"1"`, `{"_id":"1","v":"x"}`, "null", 3), event("u", "1", `{"_id":{"$numberLong":"1"},"v":{"$numberLong":"5"},"tags":["a"]}`, "null", 4),
		event("d", oid, "null", "null", 5), event("c", "1", `{"_id":1,"v":1}`, "null", 1), // sent again
		event("c", oid, `{"_id":`+oid+`,"v":2,"at":{"$date":0}}`, "null", 2), patch, event("u", "1", `{"_id":1,"v":9}`, "null", 7))
	for _, documents := range []decode.Documents{decode.DocumentColumns, decode.DocumentText} {
		for _, k := range []int{0, 1, 2, 3} {
			l := shaped(t, k, ingest.Route{Decode: decode.Options{Documents: documents}}, records)
			got := strings.Split(strings.TrimSpace(rows(t, l, "m_db.people")), "\n")
			slices.Sort(got)
			all := []string{`{"_id":"1","v":9,"at":null,"v__string":null,"tags":null}`, `{"_id":"\"1\"","v":null,"at":null,"v__string":"x","tags":null}`}
			if documents == decode.DocumentText {
				all = []string{`{"_id":"1","document":"{\"_id\":1,\"v\":9}"}`, `{"_id":"\"1\"","document":"{\"_id\":\"1\",\"v\":\"x\"}"}`}
			}
			if !slices.Equal(got, all) {
				t.Errorf("%d, after every %d: rows\n%s\nwant\n%s", documents, k, strings.Join(got, "\n"), strings.Join(all, "\n"))
			}
			if got := parkedReasons(l); got != "7:no_image" {
				t.Errorf("%d, after every %d: parked %s", documents, k, got)
			}
			if n := changesOf(l); n[changelog.OpCreate] != 3 || n[changelog.OpUpdate] != 2 || n[changelog.OpDelete] != 1 {
				t.Errorf("%d, after every %d: %v", documents, k, n)
			}
		}
	}
}
