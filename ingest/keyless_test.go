package ingest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"firn/ingest"
)

// keylessMaker makes events of a table without a key, as a MariaDB connector does, or PostgreSQL's with whole old rows.
type keylessMaker struct {
	*maker
	connector string
	order     bool // with transaction metadata
	pos       int64
	key       string // of the messages; empty: none
	snapshot  string
}

func newKeylessMaker(connector string, partitions int32) *keylessMaker {
	return &keylessMaker{maker: newMaker("a.b.events", partitions), connector: connector, order: true, snapshot: "false"}
}

// event adds an event; before and after are columns v and note, empty: null.
func (m *keylessMaker) event(op, before, after string) {
	m.pos++
	m.eventAt(m.pos, op, before, after)
}

func (m *keylessMaker) eventAt(pos int64, op, before, after string) {
	image := func(s string) string {
		if s == "" {
			return "null"
		}
		v, note, _ := strings.Cut(s, " ")
		return fmt.Sprintf(`{"v":%s,"note":%s}`, v, note)
	}
	const row = `{"type":"struct","fields":[{"type":"int64","optional":true,"field":"v"},{"type":"string","optional":true,"field":"note"}],"optional":true,"name":"V","field":%q}`
	place, order := fmt.Sprintf(`"lsn":%d`, 100), "null"
	if m.connector == "mariadb" {
		place = fmt.Sprintf(`"file":"b.1","pos":%d,"row":0,"server_id":1`, pos)
	} else if m.order {
		order = fmt.Sprintf(`{"id":"7:1","total_order":%d,"data_collection_order":1}`, pos)
	}
	m.raw(m.key, fmt.Sprintf(`{"schema":{"type":"struct","fields":[`+row+`,`+row+`,`+
		`{"type":"struct","fields":[{"type":"string","optional":false,"field":"connector"}],"optional":false,"name":"io.debezium.connector.x.Source","field":"source"},`+
		`{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"t.Envelope"},`+
		`"payload":{"before":%s,"after":%s,"source":{"connector":%q,"name":"n","ts_ms":1767225600000,"snapshot":%q,"db":"d","schema":"s","table":"events",%s},`+
		`"op":%q,"transaction":%s}}`, "before", "after", image(before), image(after), m.connector, m.snapshot, place, op, order))
}

// bagRows returns the rows that the log's changes come to, sorted.
func bagRows(t *testing.T, l *fakeLog) string {
	t.Helper()
	table, ok := l.Table("a_b.events")
	if !ok {
		return "no table"
	}
	var all []string
	for _, r := range dumpBag(t, l, table) {
		all = append(all, string(r))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func ops(l *fakeLog) string {
	var b strings.Builder
	for _, c := range l.visible.changes {
		b.WriteString(c.Op.String())
		if c.Before != nil {
			b.WriteString("-")
		}
	}
	return b.String()
}

// TestKeyless: what the rules of 2.6 make of creates, updates, deletes and truncates.
func TestKeyless(t *testing.T) {
	history := func(m *keylessMaker) {
		m.event("c", "", `1 "a"`)
		m.event("c", "", `1 "a"`)
		m.event("c", "", `2 "b"`)
		m.event("u", `1 "a"`, `3 "c"`)
		m.event("d", `2 "b"`, "")
		m.event("d", "", "")
	}
	for _, tc := range []struct {
		name       string
		connector  string
		rule       ingest.KeylessRule
		partitions int32
		key        string
		route      ingest.KeyRule
		events     func(*keylessMaker)
		rows       string
		ops        string
		parked     string
	}{
		{
			name: "append", connector: "mariadb", events: history,
			rows: `{"v":1,"note":"a"} {"v":1,"note":"a"} {"v":2,"note":"b"} {"v":3,"note":"c"}`, ops: "cccu",
			parked: "4:key_missing 5:key_missing",
		},
		{
			name: "reject_changes", connector: "mariadb", rule: ingest.KeylessReject, events: history,
			rows: `{"v":1,"note":"a"} {"v":1,"note":"a"} {"v":2,"note":"b"}`, ops: "ccc",
			parked: "3:key_missing 4:key_missing 5:key_missing",
		},
		{
			name: "full_row", connector: "mariadb", rule: ingest.KeylessFullRow, events: history,
			rows: `{"v":1,"note":"a"} {"v":3,"note":"c"}`, ops: "cccu-d-", parked: "5:key_missing",
		},
		{
			name: "full_row of postgres, which logs whole rows of tables without a key", connector: "postgresql", rule: ingest.KeylessFullRow, events: history,
			rows: `{"v":1,"note":"a"} {"v":3,"note":"c"}`, ops: "cccu-d-", parked: "5:key_missing",
		},
		{
			name: "full_row in several partitions: there is no order", connector: "mariadb", rule: ingest.KeylessFullRow, partitions: 2, events: history,
			rows: `{"v":1,"note":"a"} {"v":1,"note":"a"} {"v":2,"note":"b"}`, ops: "ccc", parked: "key_missing key_missing key_missing",
		},
		{
			name: "full_row without a trusted old row", connector: "postgresql", rule: ingest.KeylessFullRow, route: ingest.KeyNone, key: `{"v":1}`, events: history,
			rows: `{"v":1,"note":"a"} {"v":1,"note":"a"} {"v":2,"note":"b"}`, ops: "ccc", parked: "3:key_missing 4:key_missing 5:key_missing",
		},
		{
			name: "key: none passes over the messages' keys", connector: "mariadb", route: ingest.KeyNone, key: `{"v":1}`,
			events: func(m *keylessMaker) { m.event("c", "", `1 "a"`); m.raw(m.key, ""); m.event("c", "", `1 "b"`) },
			rows:   `{"v":1,"note":"a"} {"v":1,"note":"b"}`, ops: "cc",
		},
		{
			name: "a truncate", connector: "mariadb",
			events: func(m *keylessMaker) {
				m.event("c", "", `1 "a"`)
				m.event("t", "", "")
				m.event("c", "", `2 "b"`)
			},
			rows: `{"v":2,"note":"b"}`, ops: "ctc",
		},
		{
			name: "placeholders are the old row's", connector: "postgresql", rule: ingest.KeylessFullRow,
			events: func(m *keylessMaker) { m.event("c", "", `1 "a"`); m.event("u", `1 "a"`, `2 `+hole) },
			rows:   `{"v":2,"note":"a"}`, ops: "cu-",
		},
		{
			name: "placeholders without an old row", connector: "postgresql",
			events: func(m *keylessMaker) { m.event("c", "", `1 "a"`); m.event("u", ``, `2 `+hole) },
			rows:   `{"v":1,"note":"a"}`, ops: "c", parked: "1:placeholder_unresolved",
		},
		{
			name: "a key that comes later", connector: "mariadb",
			events: func(m *keylessMaker) {
				m.event("c", "", `1 "a"`)
				m.key = `{"v":2}`
				m.event("c", "", `2 "b"`)
				m.key = ""
				m.event("c", "", `3 "c"`)
			},
			rows: `{"v":1,"note":"a"} {"v":3,"note":"c"}`, ops: "cc", parked: "1:key_columns_changed",
		},
		{
			name: "a key that goes", connector: "mariadb", key: `{"v":1}`,
			events: func(m *keylessMaker) { m.event("c", "", `1 "a"`); m.key = ""; m.event("c", "", `2 "b"`) },
			ops:    "c", parked: "1:key_missing",
		},
	} {
		for _, batch := range []int{1, 100} {
			t.Run(fmt.Sprintf("%s/batch=%d", tc.name, batch), func(t *testing.T) {
				m := newKeylessMaker(tc.connector, max(tc.partitions, 1))
				m.key = tc.key
				tc.events(m)
				l := openLog(newDisk())
				p := run(t, l, ingest.Options{BatchRecords: batch}, []ingest.Route{{Topic: ".*", Key: tc.route, Keyless: tc.rule}}, m.maker)
				if tc.rows != "" {
					if got := bagRows(t, l); got != tc.rows {
						t.Errorf("rows %s\nwant %s", got, tc.rows)
					}
				}
				if got := ops(l); got != tc.ops {
					t.Errorf("changes %s, want %s", got, tc.ops)
				}
				parked := parkedReasons(l)
				if tc.partitions > 1 { // in any order
					parked = strings.Join(slices.Repeat([]string{"key_missing"}, strings.Count(parked, ":key_missing")), " ")
				}
				if parked != tc.parked {
					t.Errorf("parked %s, want %s", parked, tc.parked)
				}
				if len(l.visible.stale) != 0 {
					t.Errorf("stale %v", l.visible.stale)
				}
				if n := p.Status()[0].Counts; n.Read != n.Applied+n.Parked+n.Skipped {
					t.Errorf("counts %+v", n)
				}
			})
		}
	}
}

// TestKeylessRepeats: what a connector sends again is dropped where positions tell equal rows apart, and else kept.
func TestKeylessRepeats(t *testing.T) {
	for _, tc := range []struct {
		name      string
		connector string
		order     bool
		rows      int
	}{
		{"binlog positions", "mariadb", true, 4},
		{"the place in the transaction", "postgresql", true, 4},
		{"one position for many rows", "postgresql", false, 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newKeylessMaker(tc.connector, 1)
			m.order = tc.order
			for range 4 {
				m.event("c", "", `1 "a"`)
			}
			for again := range int64(3) {
				m.eventAt(again+2, "c", "", `1 "a"`)
			}
			l := openLog(newDisk())
			half := *m.maker
			half.records = m.records[:5]
			run(t, l, ingest.Options{}, nil, &half)
			l = l.crash(0) // the memory of what came is read again
			run(t, l, ingest.Options{}, nil, m.maker)
			if got := strings.Count(bagRows(t, l), "{"); got != tc.rows {
				t.Errorf("%d rows, want %d", got, tc.rows)
			}
			checkOnce(t, l)
		})
	}
}

// TestKeylessSnapshotAgain: rows of a snapshot that comes again would be there twice. The partition stops before them, or
// the table is emptied.
func TestKeylessSnapshotAgain(t *testing.T) {
	snapshot := func(m *keylessMaker, marks ...string) {
		for i, mark := range marks {
			m.snapshot = mark
			m.event("r", "", fmt.Sprintf(`%d "row"`, i))
		}
		m.snapshot = "false"
	}
	whole := []string{"first_in_data_collection", "true", "last_in_data_collection"}
	for _, tc := range []struct {
		name  string
		rows  func(*keylessMaker)
		stops bool // before its fourth event
		want  string
	}{
		{"once", func(m *keylessMaker) { snapshot(m, whole...) }, false, "0 1 2"},
		{"once, in the middle of the run", func(m *keylessMaker) { snapshot(m, "true", "true", "last"); m.event("c", "", `7 "row"`) }, false, "0 1 2 7"},
		{"begun again", func(m *keylessMaker) { snapshot(m, "first", "true", "true"); snapshot(m, "first", "true", "last") }, true, "0 1 2"},
		{"after changes", func(m *keylessMaker) {
			snapshot(m, whole[0], whole[2])
			m.event("c", "", `7 "row"`)
			snapshot(m, whole...)
			m.event("c", "", `8 "row"`)
		}, true, "0 1 2 8"},
		{"of one row, after changes", func(m *keylessMaker) {
			snapshot(m, "last_in_data_collection")
			m.event("c", "", `7 "row"`)
			m.event("c", "", `8 "row"`)
			snapshot(m, "last")
			m.event("c", "", `9 "row"`)
		}, true, "0 9"},
		{"incremental", func(m *keylessMaker) {
			snapshot(m, whole...)
			m.event("c", "", `7 "row"`)
			m.snapshot = "incremental"
			m.event("r", "", `8 "row"`)
		}, false, "0 1 2 7 8"},
	} {
		for _, cut := range []int{0, 1, 2, 3, 4, 5} { // a restart after so many events
			t.Run(fmt.Sprintf("%s/cut=%d", tc.name, cut), func(t *testing.T) {
				m := newKeylessMaker("mariadb", 1)
				tc.rows(m)
				for _, rule := range []ingest.ResnapshotRule{ingest.ResnapshotReload, ingest.ResnapshotStop} {
					routes := []ingest.Route{{Topic: ".*", Resnapshot: rule}}
					l := openLog(newDisk())
					if cut > 0 {
						half := *m.maker
						half.records = m.records[:min(cut, len(m.records))]
						if _, err := runOnce(t, l, newMemSource(half.records), routes, ingest.Options{}); err != nil {
							t.Fatal(err)
						}
						l = l.crash(0)
					}
					p, err := runOnce(t, l, newMemSource(m.records), routes, ingest.Options{})
					stopped := ""
					for _, part := range p.Status()[0].Partitions {
						stopped += part.Error
					}
					if rule == ingest.ResnapshotStop && tc.stops {
						if !strings.Contains(stopped+fmt.Sprint(err), "keyless_resnapshot: reload") {
							t.Fatalf("it did not stop: %v, %s", err, stopped)
						}
						if got := strings.Count(bagRows(t, l), "{"); got != 3 {
							t.Errorf("%d rows after the stop, want those of 3 events", got)
						}
						continue
					}
					if err != nil || stopped != "" {
						t.Fatal(err, stopped)
					}
					var want []string
					for v := range strings.FieldsSeq(tc.want) {
						want = append(want, fmt.Sprintf(`{"v":%s,"note":"row"}`, v))
					}
					if got := bagRows(t, l); got != strings.Join(want, " ") {
						t.Errorf("rows %s\nwant %s", got, want)
					}
				}
			})
		}
	}
	t.Run("of several partitions", func(t *testing.T) {
		m := newKeylessMaker("mariadb", 2)
		snapshot(m, "first", "true", "last")
		snapshot(m, "true", "first", "last")
		l := openLog(newDisk())
		p, err := runOnce(t, l, newMemSource(m.records), []ingest.Route{{Topic: ".*", Resnapshot: ingest.ResnapshotReload}}, ingest.Options{})
		var stopped string
		for _, part := range p.Status()[0].Partitions {
			stopped += part.Error
		}
		var again *ingest.ResnapshotError
		if !strings.Contains(stopped, "2 partitions") && (!errors.As(err, &again) || again.Why == "") {
			t.Errorf("it did not stop: %v, %q", err, stopped)
		}
	})
}
