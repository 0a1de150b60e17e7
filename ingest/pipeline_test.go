package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/ingest"
)

// run takes the records of makers in, and fails the test on an error.
func run(t *testing.T, l *fakeLog, o ingest.Options, routes []ingest.Route, makers ...*maker) *ingest.Pipeline {
	t.Helper()
	var all []ingest.Record
	for _, m := range makers {
		all = append(all, m.records...)
	}
	p, err := runOnce(t, l, newMemSource(all), routes, o)
	if err != nil {
		t.Fatal(err)
	}
	l.check(t)
	return p
}

// rows returns a table's rows, a line each.
func rows(t *testing.T, l *fakeLog, name string) string {
	t.Helper()
	table, ok := l.Table(name)
	if !ok {
		return "no table " + name
	}
	var b strings.Builder
	for _, r := range dump(t, table, l.visible.rows) {
		b.Write(r)
		b.WriteByte('\n')
	}
	return b.String()
}

// parkedReasons returns what is parked, in order, as offset:reason.
func parkedReasons(l *fakeLog) string {
	var all []string
	for _, p := range l.visible.parked {
		all = append(all, fmt.Sprintf("%d:%s", p.Position.Offset, p.Reason))
	}
	return strings.Join(all, " ")
}

func TestPlaceholders(t *testing.T) {
	for _, c := range []struct {
		name   string
		events func(m *maker)
		rows   string
		parked string
		stale  int
	}{
		{
			name:   "from the row before",
			events: func(m *maker) { m.add("c", 1, `"v":1,"note":"a"`); m.add("u", 1, `"v":2,"note":`+hole) },
			rows:   `{"id":1,"v":2,"note":"a"}`,
		},
		{
			name:   "a null is a value",
			events: func(m *maker) { m.add("c", 1, `"v":1,"note":null`); m.add("u", 1, `"v":2,"note":`+hole) },
			rows:   `{"id":1,"v":2,"note":null}`,
		},
		{
			name: "the last row counts",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("u", 1, `"v":2,"note":"b"`)
				m.add("u", 2, `"v":2,"note":"c"`)
				m.add("u", 1, `"v":3,"note":`+hole)
				m.add("u", 1, `"v":4,"note":`+hole)
			},
			rows: `{"id":1,"v":4,"note":"b"} {"id":2,"v":2,"note":"c"}`,
		},
		{
			name:   "no row before",
			events: func(m *maker) { m.add("u", 1, `"v":2,"note":`+hole) },
			parked: "0:placeholder_unresolved", stale: 1,
		},
		{
			name: "a deleted row is none",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("d", 1, "")
				m.add("u", 1, `"v":2,"note":`+hole)
			},
			parked: "2:placeholder_unresolved", stale: 1,
		},
		{
			name: "a rejected event makes the key stale until a whole row comes",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("u", 1, `"v":"no number","note":"b"`)
				m.add("u", 1, `"v":3,"note":`+hole)
				m.add("u", 2, `"v":1,"note":"other"`)
				m.add("u", 1, `"v":4,"note":"c"`)
				m.add("u", 1, `"v":5,"note":`+hole)
			},
			rows:   `{"id":1,"v":5,"note":"c"} {"id":2,"v":1,"note":"other"}`,
			parked: "1:type_mismatch 2:key_stale",
		},
		{
			name: "a delete makes the key whole, too",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("u", 1, `"v":"no number","note":"b"`)
				m.add("d", 1, "")
			},
			parked: "1:type_mismatch",
		},
		{
			name: "a row takes another key",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.move(1, 2, `"v":2,"note":`+hole)
				m.move(2, 3, `"v":3,"note":`+hole)
				m.add("c", 1, `"v":9,"note":"new"`)
			},
			rows: `{"id":1,"v":9,"note":"new"} {"id":3,"v":3,"note":"a"}`,
		},
		{
			name: "a row takes a key that an older row has left",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("c", 2, `"v":1,"note":"wrong"`)
				m.move(1, 2, `"v":2,"note":`+hole) // the delete of 2 was never seen
			},
			rows: `{"id":2,"v":2,"note":"a"}`,
		},
		{
			name:   "a row takes another key that was never seen",
			events: func(m *maker) { m.add("c", 9, `"v":1,"note":"x"`); m.move(1, 2, `"v":2,"note":`+hole) },
			rows:   `{"id":9,"v":1,"note":"x"}`, parked: "2:placeholder_unresolved", stale: 1,
		},
		{
			name: "a stale row does not move",
			events: func(m *maker) {
				m.add("c", 1, `"v":1,"note":"a"`)
				m.add("u", 1, `"v":"no number","note":"b"`)
				m.move(1, 2, `"v":2,"note":`+hole)
			},
			parked: "1:type_mismatch 3:placeholder_unresolved", stale: 1,
		},
	} {
		for _, batch := range []int{1, 2, 100} {
			t.Run(fmt.Sprintf("%s/batch=%d", c.name, batch), func(t *testing.T) {
				m := newMaker("a.b.t", 1)
				c.events(m)
				l := openLog(newDisk())
				p := run(t, l, ingest.Options{BatchRecords: batch}, nil, m)
				if got := strings.Join(strings.Fields(rows(t, l, "a_b.t")), " "); got != c.rows && !strings.HasPrefix(got, "no table") {
					t.Errorf("rows %s\nwant %s", got, c.rows)
				}
				if got := parkedReasons(l); got != c.parked {
					t.Errorf("parked %s, want %s", got, c.parked)
				}
				if len(l.visible.stale) != c.stale && len(l.disk.tables) > 0 {
					t.Errorf("stale %v, want %d", l.visible.stale, c.stale)
				}
				if n := p.Status()[0].Counts; n.Read != int64(len(m.records)) || n.Read != n.Applied+n.Parked {
					t.Errorf("counts %+v", n)
				}
			})
		}
	}
}

// TestStaleSurvives: a key stays stale over a restart.
func TestStaleSurvives(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("u", 1, `"v":"no number","note":"b"`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, nil, m)
	l = l.crash(0)
	m.add("u", 1, `"v":3,"note":`+hole)
	run(t, l, ingest.Options{}, nil, m)
	if got := parkedReasons(l); got != "1:type_mismatch 2:key_stale" {
		t.Error(got)
	}
}

// TestMovesAcrossPartitions: rows change keys all the time, and both halves are in different partitions, of which any
// one is behind.
func TestMovesAcrossPartitions(t *testing.T) {
	m := newMaker("a.b.t", 3)
	const n = 40
	for id := range int64(n) {
		m.add("c", id, fmt.Sprintf(`"v":0,"note":"row %d"`, id))
	}
	for round := range int64(10) {
		for id := range int64(n) {
			m.move(id+round*1000, id+(round+1)*1000, fmt.Sprintf(`"v":%d,"note":%s`, round+1, hole))
		}
	}
	want := ""
	for id := range int64(n) {
		want += fmt.Sprintf(`{"id":%d,"v":10,"note":"row %d"}`+"\n", id+10000, id)
	}
	for slow := range int32(4) {
		for _, batch := range []int{1, 10, 1000} {
			s := newMemSource(m.records)
			s.batch = batch
			s.order = func(p ingest.Partition, _ int64) {
				if p.Index == slow {
					time.Sleep(2 * time.Millisecond)
				}
			}
			l := openLog(newDisk())
			start := time.Now()
			if _, err := runOnce(t, l, s, nil, ingest.Options{BatchRecords: batch}); err != nil {
				t.Fatal(err)
			}
			if got := rows(t, l, "a_b.t"); got != want || len(l.visible.parked) > 0 {
				t.Errorf("slow %d, batch %d: parked %s, got\n%s", slow, batch, parkedReasons(l), got)
			}
			if d := time.Since(start); d > 25*time.Second {
				t.Errorf("slow %d, batch %d: took %s", slow, batch, d)
			}
		}
	}
}

func truncateValue(m *maker) string {
	m.lsn++
	return fmt.Sprintf(`{"before":null,"after":null,"source":{"connector":"postgresql","name":"n","ts_ms":1767225600000,"snapshot":"false","db":"d","schema":"public","table":"t","txId":7,"lsn":%d},"op":"t","ts_ms":1}`, m.lsn)
}

func TestTruncate(t *testing.T) {
	for _, partitions := range []int32{1, 2} {
		for _, batch := range []int{1, 7, 1000} {
			m := newMaker("a.b.t", partitions)
			for id := range int64(20) {
				m.add("c", id, `"v":1,"note":"a"`)
			}
			m.add("u", 5, `"v":"no number","note":"b"`)
			at := len(m.records)
			m.raw("", truncateValue(m))
			m.add("c", 50, `"v":1,"note":"after"`)
			l := openLog(newDisk())
			run(t, l, ingest.Options{BatchRecords: batch}, nil, m)
			if partitions > 1 {
				if got := parkedReasons(l); !strings.Contains(got, "truncate_unsafe") || strings.Count(rows(t, l, "a_b.t"), "\n") != 21 {
					t.Errorf("two partitions: parked %s, rows\n%s", got, rows(t, l, "a_b.t"))
				}
				continue
			}
			if got := rows(t, l, "a_b.t"); got != `{"id":50,"v":1,"note":"after"}`+"\n" {
				t.Errorf("batch %d: got %s", batch, got)
			}
			if len(l.visible.stale) > 0 {
				t.Errorf("stale %v", l.visible.stale)
			}
			marks := 0
			for i, c := range l.visible.changes {
				if c.Op == changelog.OpTruncate {
					marks++
					if c.Position.Offset != int64(at) || i != len(l.visible.changes)-2 {
						t.Errorf("truncate at %d of %d, offset %d", i, len(l.visible.changes), c.Position.Offset)
					}
				}
			}
			if marks != 1 {
				t.Errorf("%d truncates", marks)
			}
		}
	}
}

// TestEvolveTogether: partitions that alternate between old and new schemas give the union of both, once.
// TestTruncateFirst: a truncate that comes before any row of its table is parked where another partition may have older
// ones, and is nothing where none can.
func TestTruncateFirst(t *testing.T) {
	for partitions, want := range map[int32]string{1: "", 2: "truncate_unsafe"} {
		m := newMaker("a.b.t", partitions)
		m.raw("", truncateValue(m))
		if partitions > 1 {
			m.records = append(m.records, ingest.Record{Topic: "a.b.t", Partition: 1 - m.records[0].Partition}) // a tombstone without a key
		}
		l := openLog(newDisk())
		run(t, l, ingest.Options{}, nil, m)
		if got := parkedReasons(l); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%d partitions: parked %q, want %q", partitions, got, want)
		}
	}
}

// TestBrokenRecord: what the source could not make a record of is parked, and the rest flows.
func TestBrokenRecord(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.raw("", "{")
	m.records[1].Broken = "line 2 is torn"
	m.add("c", 2, `"v":1,"note":"b"`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, nil, m)
	if got := rows(t, l, "a_b.t"); strings.Count(got, "\n") != 2 {
		t.Errorf("rows %s", got)
	}
	if got := parkedReasons(l); got != "1:record_broken" {
		t.Errorf("parked %s", got)
	}
}

func TestEvolveTogether(t *testing.T) {
	m := newMaker("a.b.t", 4)
	for i := range int64(400) {
		switch i % 3 {
		case 0:
			m.columns = "v:int64,note:string"
			m.add("u", i%40, fmt.Sprintf(`"v":%d,"note":"n"`, i))
		case 1:
			m.columns = "v:int64,extra:int32"
			m.add("u", i%40, fmt.Sprintf(`"v":%d,"extra":1`, i))
		default:
			m.columns = "note:string,v:string"
			m.add("u", i%40, fmt.Sprintf(`"note":"n","v":"%d"`, i))
		}
	}
	for range 5 {
		l := openLog(newDisk())
		run(t, l, ingest.Options{BatchRecords: 3}, nil, m)
		table, _ := l.Table("a_b.t")
		var names []string
		for _, c := range table.Schemas.Current().Columns {
			names = append(names, c.Name)
		}
		slices.Sort(names)
		if n := len(names); n != 5 || len(table.Schemas) > 3 {
			t.Fatalf("columns %v after %d schemas", names, len(table.Schemas))
		}
		if len(l.visible.parked) > 0 || len(l.visible.changes) != 400 {
			t.Fatalf("parked %s, %d changes", parkedReasons(l), len(l.visible.changes))
		}
	}
}

// TestParkedAsReceived: a parked record has everything that the source gave (P6).
func TestParkedAsReceived(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.raw(m.keyText(1), "{nonsense", changelog.Header{Key: "h", Value: []byte("x")}, changelog.Header{Key: "null"})
	m.raw("", `{"before":null,"after":{"id":1},"op":"c"}`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, nil, m)
	if len(l.visible.parked) != 2 {
		t.Fatalf("parked %s", parkedReasons(l))
	}
	p, want := l.visible.parked[0], m.records[1]
	if string(p.RecordKey) != string(want.Key) || string(p.RecordValue) != string(want.Value) || fmt.Sprint(p.Headers) != fmt.Sprint(want.Headers) ||
		p.Timestamp != want.Timestamp || p.Position.Source != "mem" || p.Position.Topic != "a.b.t" || p.Position.Offset != 1 || p.Time == 0 ||
		p.Table != 1 || p.Reason != "json_syntax" || p.Headers[1].Value != nil {
		t.Errorf("got %+v", p)
	}
	if _, ok := l.visible.stale[rowKey(1, p.Key)]; !ok || p.Key == nil {
		t.Errorf("key %s, stale %v", p.Key, l.visible.stale)
	}
}

func TestLogFull(t *testing.T) {
	m := newMaker("a.b.t", 1)
	for i := range int64(100) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	l := openLog(newDisk())
	l.full = 5
	run(t, l, ingest.Options{BatchRecords: 10}, nil, m)
	if len(l.visible.changes) != 100 {
		t.Fatalf("%d changes", len(l.visible.changes))
	}
	checkOnce(t, l)
}

// TestLogFullWaits: while the log is full a source waits, says so, and asks the log once; it goes on by itself when there
// is space, and stops at once when it is to stop (P7).
func TestLogFullWaits(t *testing.T) {
	for _, stop := range []bool{false, true} {
		m := newMaker("a.b.t", 1)
		for i := range int64(100) {
			m.add("c", i, `"v":1,"note":"a"`)
		}
		l := openLog(newDisk())
		l.space = make(chan struct{})
		reg := prometheus.NewRegistry()
		source := newMemSource(m.records)
		source.follow = make(chan struct{})
		p, err := ingest.New(l, l, []ingest.Input{{Source: source}}, ingest.Options{BatchRecords: 10, Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		until := func(what string, ok func(ingest.SourceStatus) bool) {
			t.Helper()
			for !ok(p.Status()[0]) {
				if ctx.Err() != nil {
					t.Fatalf("%s: not within 20 s: %+v", what, p.Status()[0])
				}
				time.Sleep(time.Millisecond)
			}
		}
		until("waits", func(st ingest.SourceStatus) bool {
			return st.State == ingest.SourceWaiting && strings.Contains(st.Partitions[0].Waiting, "no space")
		})
		until("asks for space", func(ingest.SourceStatus) bool { l.mu.Lock(); defer l.mu.Unlock(); return l.waits > 0 })
		time.Sleep(20 * time.Millisecond) // it does not ask again and again
		if n := counter(t, reg, "firn_source_log_full_total"); n != 1 {
			t.Errorf("%v waits are counted, want 1", n)
		}
		l.mu.Lock()
		if l.waits != 1 || len(l.appends) != 0 {
			t.Errorf("waited %d times for space, %d appends", l.waits, len(l.appends))
		}
		l.mu.Unlock()
		if stop {
			cancel()
			if err := <-done; err != nil || p.Status()[0].State == ingest.SourceFailed {
				t.Errorf("stopped while it waits: %v, %+v", err, p.Status()[0])
			}
			continue
		}
		close(l.space)
		until("goes on", func(st ingest.SourceStatus) bool {
			return st.State == ingest.SourceRunning && st.Partitions[0].Waiting == "" && st.Partitions[0].Next == 100
		})
		close(source.follow)
		if err := <-done; err != nil || len(l.visible.changes) != 100 {
			t.Errorf("%d changes, %v", len(l.visible.changes), err)
		}
		checkOnce(t, l)
	}
}

// TestTableStopped: while a table takes no changes its topic waits and says why, without asking for space, and goes on when the
// table is mended (P7).
func TestTableStopped(t *testing.T) {
	m := newMaker("a.b.t", 1)
	for i := range int64(20) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	l := openLog(newDisk())
	l.mended = make(chan struct{})
	p, err := ingest.New(l, l, []ingest.Input{{Source: newMemSource(m.records)}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for st := p.Status()[0]; st.State != ingest.SourceWaiting || !strings.Contains(st.Partitions[0].Waiting, "it has diverged"); st = p.Status()[0] {
		if ctx.Err() != nil {
			t.Fatalf("it does not wait: %+v", st)
		}
		time.Sleep(time.Millisecond)
	}
	close(l.mended)
	if err := <-done; err != nil || len(l.visible.changes) != 20 {
		t.Errorf("%d changes, %v", len(l.visible.changes), err)
	}
	if l.waits != 0 {
		t.Errorf("it waited %d times for space", l.waits)
	}
}

// counter returns the value of a metric without labels.
func counter(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// slowTables is a registry in which adding the column p takes until the other topic has gone on, or for a while.
type slowTables struct {
	*fakeLog
	begun, other chan struct{} // closed when that begins, when the other topic has gone on
}

func (s *slowTables) AddSchema(ctx context.Context, id changelog.TableID, schema *changelog.Schema) (*ingest.Table, error) {
	made, err := s.fakeLog.AddSchema(ctx, id, schema)
	if schema.Columns[len(schema.Columns)-1].Name == "p" {
		close(s.begun)
		await(s.other, 200*time.Millisecond)
	}
	return made, err
}

func await(c <-chan struct{}, limit time.Duration) {
	select {
	case <-c:
	case <-time.After(limit):
	}
}

// TestEvolveAtOnce: while one topic adds a column to a table, another one that feeds it does, too. Neither forgets the
// schema of the other: rows that were written with it are read on.
func TestEvolveAtOnce(t *testing.T) {
	a, b := newMaker("a.b.t", 1), newMaker("a_b.t", 1)
	a.add("c", 1, `"v":1,"note":"a"`)
	b.add("c", 11, `"v":1,"note":"b"`)
	a.columns += ",p:string"
	a.add("c", 2, `"v":1,"note":"a","p":"p"`)
	b.columns += ",q:string"
	b.add("c", 12, `"v":1,"note":"b","q":"q"`)
	b.add("u", 12, `"v":2,"note":"c","q":`+hole)
	l := &slowTables{fakeLog: openLog(newDisk()), begun: make(chan struct{}), other: make(chan struct{})}
	s := newMemSource(slices.Concat(a.records, b.records))
	s.batch = 1
	added := make(chan struct{}) // p
	s.order = func(p ingest.Partition, next int64) {
		switch {
		case p.Topic == "a.b.t" && next == 2:
			close(added)
		case p.Topic == "a_b.t" && next == 1:
			await(l.begun, 10*time.Second)
		case p.Topic == "a_b.t" && next == 2:
			close(l.other)
			await(added, 10*time.Second)
		}
	}
	routes := []ingest.Route{{Topic: `a(.)b\.t`, Table: "shop.all"}}
	p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: routes}}, ingest.Options{BatchRecords: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, l.fakeLog, "shop.all"); len(l.visible.parked) != 0 || strings.Count(got, "\n") != 4 || !strings.Contains(got, `"id":12,"v":2,"note":"c"`) || !strings.Contains(got, `"q":"q"`) {
		t.Errorf("parked %q, rows\n%s", parkedReasons(l.fakeLog), got)
	}
	if n := len(l.disk.tables["shop.all"].Schemas); n != 3 {
		t.Errorf("%d schemas, want 3", n)
	}
}

// foreignTables is a registry that another process changes just before this one does, once each.
type foreignTables struct {
	*fakeLog
	created, added bool
}

func (f *foreignTables) Create(ctx context.Context, name string, s *changelog.Schema, topic ingest.Topic) (*ingest.Table, error) {
	if !f.created {
		f.created = true
		if _, err := f.fakeLog.Create(ctx, name, s, topic); err != nil {
			return nil, err
		}
	}
	return f.fakeLog.Create(ctx, name, s, topic)
}

func (f *foreignTables) AddSchema(ctx context.Context, id changelog.TableID, s *changelog.Schema) (*ingest.Table, error) {
	if !f.added {
		f.added = true
		if _, err := f.fakeLog.AddSchema(ctx, id, s); err != nil {
			return nil, err
		}
	}
	return f.fakeLog.AddSchema(ctx, id, s)
}

// TestEvolvedElsewhere: a table that somebody else makes or evolves at the same moment is looked at again.
func TestEvolvedElsewhere(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.columns += ",p:string"
	m.add("c", 2, `"v":1,"note":"a","p":"p"`)
	l := &foreignTables{fakeLog: openLog(newDisk())}
	p, err := ingest.New(l, l, []ingest.Input{{Source: newMemSource(m.records)}}, ingest.Options{BatchRecords: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := rows(t, l.fakeLog, "a_b.t"); !l.created || !l.added || strings.Count(got, "\n") != 2 || !strings.Contains(got, `"p":"p"`) {
		t.Errorf("rows\n%s", got)
	}
}

func TestClash(t *testing.T) {
	a, b := newMaker("a.b.t", 1), newMaker("a_b.t", 1)
	a.add("c", 1, `"v":1,"note":"a"`)
	b.add("c", 1, `"v":1,"note":"b"`)
	all := slices.Concat(a.records, b.records)

	_, err := runOnce(t, openLog(newDisk()), newMemSource(all), nil, ingest.Options{})
	clash, ok := errors.AsType[*ingest.ClashError](err)
	if !ok || clash.Table != "a_b.t" {
		t.Errorf("at start: %v", err)
	}

	s := newMemSource(all)
	s.hidden = "a_b.t"
	l := openLog(newDisk())
	p, err := runOnce(t, l, s, nil, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := p.Status()[0]
	if st.State != ingest.SourceFailed || !strings.Contains(st.Error, "route one of them elsewhere") || len(l.visible.changes) != 1 || len(p.Unready()) != 1 {
		t.Errorf("while running: %+v, %d changes", st, len(l.visible.changes))
	}

	l = openLog(newDisk())
	routes := []ingest.Route{{Topic: `a(.)b\.t`, Table: "shop.all"}}
	if _, err := runOnce(t, l, newMemSource(all), routes, ingest.Options{}); err != nil {
		t.Fatal(err)
	}
	table, ok := l.Table("shop.all")
	if !ok || len(table.Topics) != 2 || len(l.visible.changes) != 2 {
		t.Errorf("a route may merge: %+v", table)
	}
}

// TestAcknowledge: the source hears of a position after it is durable, never before (P1), and in the end of all.
func TestAcknowledge(t *testing.T) {
	m := newMaker("a.b.t", 2)
	for i := range int64(500) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	l := openLog(newDisk())
	l.manual = true
	s := newMemSource(m.records)
	s.batch = 7
	var mu sync.Mutex
	acked := map[ingest.Partition]int64{}
	s.acked = func(p ingest.Partition, next int64) {
		l.mu.Lock()
		defer l.mu.Unlock()
		durable := int64(0)
		for _, a := range l.appends[:l.synced] {
			for _, pos := range a.Positions {
				if pos.Topic == p.Topic && pos.Partition == p.Index {
					durable = pos.Next
				}
			}
		}
		if next > durable {
			t.Errorf("%s: acknowledged %d, durable %d", p, next, durable)
		}
		mu.Lock()
		defer mu.Unlock()
		acked[p] = next
	}
	stop := make(chan struct{})
	var syncs sync.WaitGroup
	syncs.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				l.sync()
			}
		}
	})
	_, err := runOnce(t, l, s, nil, ingest.Options{BatchRecords: 7})
	close(stop)
	syncs.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for p := range s.partitions {
		if acked[p] != s.end(p) {
			t.Errorf("%s: acknowledged %d of %d", p, acked[p], s.end(p))
		}
	}
}

// TestBrokenPartition: a partition that cannot be read stops alone, and says why.
func TestBrokenPartition(t *testing.T) {
	m := newMaker("a.b.t", 2)
	for i := range int64(50) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	s := newMemSource(m.records)
	bad := ingest.Partition{Topic: "a.b.t", Index: 1}
	s.broken = map[ingest.Partition]error{bad: ingest.CheckPosition("mem", ingest.Bounds{Partition: bad, Oldest: 5, End: 9}, 3)}
	l := openLog(newDisk())
	p, err := runOnce(t, l, s, nil, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	st := p.Status()[0]
	if st.State != ingest.SourceFailed || !strings.Contains(st.Error, "source reset mem") || st.Partitions[0].Lag != 0 || st.Partitions[1].Error == "" {
		t.Errorf("%+v", st)
	}
	if int64(len(l.visible.changes)) != s.end(ingest.Partition{Topic: "a.b.t"}) {
		t.Errorf("%d changes", len(l.visible.changes))
	}
}

func TestPauseResume(t *testing.T) {
	m := newMaker("a.b.t", 2)
	for i := range int64(2000) {
		m.add("c", i, `"v":1,"note":"a"`)
	}
	s := newMemSource(m.records)
	s.batch = 3
	s.follow = make(chan struct{})
	s.order = func(ingest.Partition, int64) { time.Sleep(100 * time.Microsecond) }
	l := openLog(newDisk())
	p, err := ingest.New(l, l, []ingest.Input{{Source: s}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.visible.changes)
	}
	for count() < 100 {
		time.Sleep(time.Millisecond)
	}
	if err := p.Pause(ctx, "mem"); err != nil {
		t.Fatal(err)
	}
	n := count()
	time.Sleep(20 * time.Millisecond)
	if st := p.Status()[0]; count() != n || n == 2000 || st.State != ingest.SourcePaused || len(p.Unready()) != 0 || st.Partitions[0].Lag == 0 {
		t.Errorf("%d then %d changes, %+v", n, count(), st)
	}
	if err := p.Resume("mem"); err != nil {
		t.Fatal(err)
	}
	for count() < 2000 {
		time.Sleep(time.Millisecond)
	}
	if st := p.Status()[0]; st.State != ingest.SourceRunning {
		t.Errorf("%+v", st)
	}
	checkOnce(t, l)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(t.Context(), "other"); !errors.Is(err, ingest.ErrNoSource) {
		t.Error(err)
	}
}

// TestKeyColumns: a route may name the key.
func TestKeyColumns(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.columns = "v:int64,note:string"
	m.add("c", 1, `"v":7,"note":"a"`)
	m.add("c", 2, `"v":7,"note":"b"`)
	m.add("c", 3, `"v":null,"note":"c"`)
	m.add("d", 1, "")
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Key: ingest.KeyColumns, Columns: []string{"v"}}}, m)
	if got := rows(t, l, "a_b.t"); got != `{"id":2,"v":7,"note":"b"}`+"\n" {
		t.Error(got)
	}
	if got := parkedReasons(l); got != "2:key_null 3:key_missing" {
		t.Error(got)
	}
}

// TestEpoch: what the source sends again is dropped, but not after it has begun anew.
func TestEpoch(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.addAt(5, "c", 1, `"v":1,"note":"a"`)
	m.addAt(5, "c", 1, `"v":1,"note":"a"`)
	m.addAt(6, "c", 2, `"v":1,"note":"a"`)
	m.records[2].Value = []byte(strings.Replace(string(m.records[2].Value), `"snapshot":"false"`, `"snapshot":"first"`, 1))
	m.addAt(5, "c", 1, `"v":1,"note":"a"`)
	l := openLog(newDisk())
	p := run(t, l, ingest.Options{}, nil, m)
	if c := p.Status()[0].Counts; c.Applied != 3 || c.Replayed != 1 {
		t.Errorf("%+v", c)
	}
}

func TestRoutes(t *testing.T) {
	for topic, want := range map[string]string{
		"a.b.c": "a_b.c", "b.c": "b.c", "c": "default.c", "a-1.b c.d$": "a_1_b_c.d_", ".c": "_.c", "é.x": "_.x",
	} {
		if got := ingest.TableName(topic); got != want {
			t.Errorf("%s: %s, want %s", topic, got, want)
		}
	}
	for _, r := range []ingest.Route{{}, {Topic: "("}, {Topic: "a", Key: ingest.KeyColumns}, {Topic: "a", Columns: []string{"x"}}} {
		if err := r.Validate(); err == nil {
			t.Errorf("%+v is valid", r)
		}
	}
	m := newMaker("shop.public.orders", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: `shop\.public\.(.*)`, Table: "shop.$1_x"}}, m)
	if _, ok := l.Table("shop.orders_x"); !ok {
		t.Errorf("tables %v", l.disk.tables)
	}
}
