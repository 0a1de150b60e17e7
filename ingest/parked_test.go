package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/ingest"
	"firn/logstore"
	"firn/state"
)

// queueRoutes send everything by the default names, with queues behind parked records.
func queueRoutes() []ingest.Route { return []ingest.Route{{Topic: ".*", OnParked: ingest.ParkedQueue}} }

// badThenGood is a topic with a bad event of key 1 in the middle of good ones.
func badThenGood() *maker {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("c", 2, `"v":1,"note":"b"`)
	m.add("u", 1, `"v":"no number","note":"c"`) // 2: bad
	m.add("u", 1, `"v":3,"note":`+hole)
	m.add("u", 2, `"v":2,"note":"d"`)
	m.add("u", 1, `"v":4,"note":`+hole)
	return m
}

// edited returns a change of a parked record's value by an event of m.
func edited(m *maker, op string, id int64, after string) ingest.ParkedChange {
	m.add(op, id, after)
	r := m.records[len(m.records)-1]
	m.records = m.records[:len(m.records)-1]
	return ingest.ParkedChange{By: "ann", Value: &r.Value}
}

func lines(l *fakeLog, t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Fields(rows(t, l, "a_b.t")), " ")
}

// TestQueue: events of a key with a parked one wait behind it, in order, and all others are applied; once the bad one is edited,
// a replay applies the queue in order, with the positions that its records had.
func TestQueue(t *testing.T) {
	for _, batch := range []int{1, 2, 100} {
		m := badThenGood()
		l := openLog(newDisk())
		p := run(t, l, ingest.Options{BatchRecords: batch}, queueRoutes(), m)
		if got := parkedReasons(l); got != "2:type_mismatch 3:key_queued 5:key_queued" {
			t.Fatalf("parked %s", got)
		}
		if got := lines(l, t); got != `{"id":1,"v":1,"note":"a"} {"id":2,"v":2,"note":"d"}` {
			t.Fatalf("rows %s", got)
		}
		out, err := p.ReplayParked(t.Context(), 3, false) // a record of the queue stands for the queue
		if err != nil || out.Applied != 0 || out.Failed != 1 || out.Failures[0].ID != 1 || out.Failures[0].Reason != "type_mismatch" {
			t.Fatalf("replay of what is still bad: %+v, %v", out, err)
		}
		if err := p.EditParked(t.Context(), 1, edited(m, "u", 1, `"v":2,"note":"fixed"`)); err != nil {
			t.Fatal(err)
		}
		if got, err := l.ParkedGet(t.Context(), 1); err != nil || got.Edit.By != "ann" || !strings.Contains(string(got.RecordValue), "no number") {
			t.Fatalf("edited record %+v, %v", got, err)
		}
		before := len(l.visible.changes)
		if out, err = p.ReplayTable(t.Context(), "a_b.t"); err != nil || out.Applied != 3 || out.Failed != 0 {
			t.Fatalf("replay %+v, %v", out, err)
		}
		var offsets []int64
		for _, c := range l.visible.changes[before:] {
			offsets = append(offsets, c.Position.Offset)
		}
		if last := l.appends[len(l.appends)-1]; batch == 100 && !slices.Equal(last.Unparked, []uint64{1, 2, 3}) || len(last.Tables) != 1 || len(last.Stale) != 1 {
			t.Errorf("changes, records and mark are not of one append: %+v", last)
		}
		if got := lines(l, t); got != `{"id":1,"v":4,"note":"fixed"} {"id":2,"v":2,"note":"d"}` || !slices.Equal(offsets, []int64{2, 3, 5}) {
			t.Errorf("rows %s, offsets %v", got, offsets)
		}
		if len(l.visible.parked) > 0 || len(l.visible.marks) > 0 {
			t.Errorf("left: parked %s, marks %v", parkedReasons(l), l.visible.marks)
		}
		l = l.crash(0)
		m.add("u", 1, `"v":9,"note":`+hole) // flows again, also over a restart
		run(t, l, ingest.Options{}, queueRoutes(), m)
		if got := lines(l, t); !strings.Contains(got, `{"id":1,"v":9,"note":"fixed"}`) {
			t.Errorf("after the replay: rows %s", got)
		}
	}
}

// TestSkip: what queued behind a record that is given up is applied, but nothing is built on the row from before it: an event
// that leaves values out stays parked until a whole row comes, or the row is trusted by name.
func TestSkip(t *testing.T) {
	for _, c := range []struct {
		name  string
		then  func(t *testing.T, p *ingest.Pipeline, m *maker)
		rows  string
		left  string
		marks int
	}{
		{"the head", func(*testing.T, *ingest.Pipeline, *maker) {}, `{"id":1,"v":1,"note":"a"}`, "3:key_stale 5:key_queued", 1},
		{"the head, then replay", func(t *testing.T, p *ingest.Pipeline, _ *maker) {
			if out, err := p.ReplayParked(t.Context(), 2, false); err != nil || out.Failed != 1 || out.Failures[0].Reason != "key_stale" {
				t.Errorf("%+v, %v", out, err)
			}
		}, `{"id":1,"v":1,"note":"a"}`, "3:key_stale 5:key_queued", 1},
		{"the head, then trust the row", func(t *testing.T, p *ingest.Pipeline, _ *maker) {
			if out, err := p.ReplayParked(t.Context(), 2, true); err != nil || out.Applied != 2 {
				t.Errorf("%+v, %v", out, err)
			}
		}, `{"id":1,"v":4,"note":"a"}`, "", 0},
		{"the head, then edit", func(t *testing.T, p *ingest.Pipeline, m *maker) {
			if err := p.EditParked(t.Context(), 2, edited(m, "u", 1, `"v":3,"note":"whole"`)); err != nil {
				t.Fatal(err)
			}
			if out, err := p.ReplayParked(t.Context(), 2, false); err != nil || out.Applied != 2 {
				t.Errorf("%+v, %v", out, err)
			}
		}, `{"id":1,"v":4,"note":"whole"}`, "", 0},
		{"all", func(t *testing.T, p *ingest.Pipeline, _ *maker) {
			if out, err := p.SkipParked(t.Context(), 2, true); err != nil || out.Skipped != 2 {
				t.Errorf("%+v, %v", out, err)
			}
		}, `{"id":1,"v":1,"note":"a"}`, "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := badThenGood()
			l := openLog(newDisk())
			p := run(t, l, ingest.Options{}, queueRoutes(), m)
			_, err := p.SkipParked(t.Context(), 3, false)
			if refused, ok := errors.AsType[*ingest.ParkedRefusedError](err); !ok || !strings.Contains(refused.Why, "record 1 ") {
				t.Fatalf("skip of one in the middle: %v", err)
			}
			if out, err := p.SkipParked(t.Context(), 1, false); err != nil || out.Skipped != 1 {
				t.Fatalf("%+v, %v", out, err)
			}
			c.then(t, p, m)
			if got := strings.TrimSuffix(lines(l, t), ` {"id":2,"v":2,"note":"d"}`); got != c.rows || parkedReasons(l) != c.left || len(l.visible.marks) != c.marks {
				t.Errorf("rows %s, parked %s, marks %v", got, parkedReasons(l), l.visible.marks)
			}
			if c.name != "all" {
				return
			}
			m.add("u", 1, `"v":7,"note":`+hole) // on a row that is older than what was skipped
			m.add("u", 1, `"v":8,"note":"n"`)   // waits for it
			run(t, l, ingest.Options{}, queueRoutes(), m)
			if got := parkedReasons(l); got != "6:key_stale 7:key_queued" {
				t.Errorf("after all are skipped: parked %s", got)
			}
		})
	}
}

// TestExplain: of a parked record it is told which rule it has broken, how far it can be read, whether it can be decoded now, and
// whether a replay takes it; nothing changes.
func TestExplain(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.raw(m.keyText(1), `{"payload":{"op":"u","after":{"id":1,"v":[1,x`)
	m.add("u", 1, `"v":2,"note":"b"`)
	l := openLog(newDisk())
	p := run(t, l, ingest.Options{}, nil, m)
	if got := parkedReasons(l); got != "1:json_syntax" {
		t.Fatalf("parked %s", got)
	}
	before := len(l.appends)
	e, err := p.ExplainParked(t.Context(), 1)
	if err != nil || e.Now != "json_syntax" || !e.Superseded || e.Queue || e.Value.Path != "/payload/after/v/1" || e.Value.Bytes != 44 || e.Key.Error != "" || !strings.Contains(e.Rule, "RFC 8259") {
		t.Errorf("%+v, %v", e, err)
	}
	m.columns = "new:int64" // which a replay would add to the table
	if err := p.EditParked(t.Context(), 1, edited(m, "u", 1, `"new":1`)); err != nil {
		t.Fatal(err)
	}
	table, _ := l.Table("a_b.t")
	if e, err = p.ExplainParked(t.Context(), 1); err != nil || e.Now != "" || e.Value.Error != "" {
		t.Errorf("edited: %+v, %v", e, err)
	}
	if after, _ := l.Table("a_b.t"); after != table || len(l.appends) != before+1 {
		t.Errorf("it has changed: %d schemas, %d appends", len(after.Schemas), len(l.appends)-before)
	}
	if _, err := p.ExplainParked(t.Context(), 9); !errors.Is(err, errNoParked) {
		t.Error(err)
	}
}

// TestSupersede: on a route that supersedes, a whole row ends what was parked before it: a replay must not undo it.
func TestSupersede(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("u", 1, `"v":"no number","note":"b"`) // 1
	m.add("u", 1, `"v":3,"note":"c"`)
	m.add("u", 1, `"v":"no number","note":"d"`) // 3
	m.add("u", 1, `"v":5,"note":`+hole)         // 4
	l := openLog(newDisk())
	p := run(t, l, ingest.Options{}, nil, m)
	if got := parkedReasons(l); got != "1:type_mismatch 3:type_mismatch 4:key_stale" {
		t.Fatalf("parked %s", got)
	}
	for id, v := range map[uint64]string{1: `"v":2,"note":"old"`, 2: `"v":4,"note":"e"`} {
		if err := p.EditParked(t.Context(), id, edited(m, "u", 1, v)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.ReplayParked(t.Context(), 1, false); !refused(err) {
		t.Errorf("replay of a superseded record: %v", err)
	}
	if out, err := p.ReplayTable(t.Context(), "a_b.t"); err != nil || out.Applied != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	if got := lines(l, t); got != `{"id":1,"v":5,"note":"e"}` || parkedReasons(l) != "1:type_mismatch" {
		t.Errorf("rows %s, parked %s", got, parkedReasons(l))
	}
	if out, err := p.ReplayParked(t.Context(), 1, true); err != nil || out.Applied != 1 || lines(l, t) != `{"id":1,"v":2,"note":"old"}` {
		t.Errorf("forced: %+v, %v; rows %s", out, err, lines(l, t))
	}
}

func refused(err error) bool {
	_, ok := errors.AsType[*ingest.ParkedRefusedError](err)
	return ok
}

// TestParkedAlone: records that hold no queue. Those without a key are applied when they can be read and the operator says that
// they are the newest; an edit may not give a queue's record another key; a source's broken record needs an edit.
func TestParkedAlone(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.raw("{broken", "{")
	m.add("u", 1, `"v":"no number","note":"b"`)
	m.raw("", "torn")
	m.records[3].Broken = "line 4 is torn"
	l := openLog(newDisk())
	p := run(t, l, ingest.Options{}, queueRoutes(), m)
	if got := parkedReasons(l); got != "1:json_syntax 2:type_mismatch 3:record_broken" && got != "1:key_decode 2:type_mismatch 3:record_broken" {
		t.Fatalf("parked %s", got)
	}
	key := []byte(m.keyText(5))
	e := edited(m, "c", 5, `"v":5,"note":"e"`)
	e.Key = &key
	if err := p.EditParked(t.Context(), 1, e); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReplayParked(t.Context(), 1, false); !refused(err) {
		t.Errorf("a record without a mark: %v", err)
	}
	if out, err := p.ReplayParked(t.Context(), 1, true); err != nil || out.Applied != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if err := p.EditParked(t.Context(), 2, e); err != nil {
		t.Fatal(err)
	}
	if out, err := p.ReplayParked(t.Context(), 2, false); err != nil || out.Failed != 1 || out.Failures[0].Reason != "key_mismatch" {
		t.Errorf("another key: %+v, %v", out, err)
	}
	if out, err := p.ReplayParked(t.Context(), 3, true); err != nil || out.Failed != 1 || out.Failures[0].Reason != "record_broken" {
		t.Errorf("broken: %+v, %v", out, err)
	}
	key = []byte(m.keyText(1))
	e = edited(m, "u", 1, `"v":6,"note":"f"`)
	e.Key = &key
	if err := p.EditParked(t.Context(), 3, e); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReplayParked(t.Context(), 3, true); !refused(err) { // key 1 has a queue
		t.Errorf("beside a queue: %v", err)
	}
	if got := lines(l, t); got != `{"id":1,"v":1,"note":"a"} {"id":5,"v":5,"note":"e"}` {
		t.Errorf("rows %s", got)
	}
}

// TestReplayBetween: a replay ends a queue after an event was read for it and before that is in the log. The event begins a queue
// anew, which waits for nothing: it is replayed at once, or when the topic is read again after a crash in between.
func TestReplayBetween(t *testing.T) {
	for _, crash := range []bool{false, true} {
		m := newMaker("a.b.t", 1)
		m.add("c", 1, `"v":1,"note":"a"`)
		m.add("c", 2, `"v":1,"note":"b"`)
		m.add("u", 1, `"v":"no number","note":"c"`)
		l := openLog(newDisk())
		run(t, l, ingest.Options{}, queueRoutes(), m)
		fixed := edited(m, "u", 1, `"v":2,"note":"fixed"`)
		m.add("u", 1, `"v":3,"note":`+hole) // 4, since an offset went to the edit: queues
		m.add("u", 2, `"v":2,"note":`+hole) // reads its row
		p, err := ingest.New(l, l, []ingest.Input{{Source: newMemSource(m.records), Routes: queueRoutes()}}, ingest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l.onRow = func() {
			if err := p.EditParked(t.Context(), 1, fixed); err != nil {
				t.Error(err)
			}
			if out, err := p.ReplayParked(t.Context(), 1, false); err != nil || out.Applied != 1 {
				t.Errorf("%+v, %v", out, err)
			}
			if crash {
				l.dieAfter = len(l.appends) + 1
			}
		}
		if err := p.Run(t.Context()); (err != nil) != crash {
			t.Fatal(err)
		}
		if crash {
			l = l.crash(1)
			if got := parkedReasons(l); got != "4:key_queued" {
				t.Fatalf("after the crash: parked %s", got)
			}
			run(t, l, ingest.Options{}, queueRoutes(), m)
		}
		if got := lines(l, t); got != `{"id":1,"v":3,"note":"fixed"} {"id":2,"v":2,"note":"b"}` || len(l.visible.parked)+len(l.visible.marks) > 0 {
			t.Errorf("crash %t: rows %s, parked %s, marks %v", crash, got, parkedReasons(l), l.visible.marks)
		}
	}
}

// TestReplayWhileReading: the operator edits and replays while events of the key keep coming. None is lost, doubled or out of
// order, and no queue is left that waits for nothing.
func TestReplayWhileReading(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := newMaker("a.b.t", 1)
		var want []int64
		for i := range int64(400) {
			switch id := i % 3; {
			case id == 1 && rng.IntN(12) == 0:
				m.add("u", id, fmt.Sprintf(`"v":"bad","note":"n%d"`, i))
			case id == 1 && i > 30 && rng.IntN(2) == 0:
				m.add("u", id, fmt.Sprintf(`"v":%d,"note":%s`, i, hole))
			default:
				m.add("u", id, fmt.Sprintf(`"v":%d,"note":"n%d"`, i, i))
			}
			if i%3 == 1 {
				want = append(want, i)
			}
		}
		l := openLog(newDisk())
		s := newMemSource(m.records)
		s.batch = 1 + rng.IntN(4)
		s.order = func(ingest.Partition, int64) { time.Sleep(time.Duration(rng.IntN(300)) * time.Microsecond) }
		p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: queueRoutes()}}, ingest.Options{BatchRecords: 1 + rng.IntN(8)})
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		reading.Go(func() {
			if err := p.Run(t.Context()); err != nil {
				t.Error(err)
			}
		})
		mend := func() (left int) {
			l.mu.Lock()
			parked := slices.Clone(l.visible.parked)
			l.mu.Unlock()
			for _, rec := range parked {
				if rec.Reason == "type_mismatch" && rec.Edit == nil {
					value := []byte(strings.Replace(string(rec.RecordValue), `"v":"bad"`, fmt.Sprintf(`"v":%d`, rec.Position.Offset), 1))
					if err := p.EditParked(t.Context(), rec.ID, ingest.ParkedChange{Value: &value}); err != nil {
						t.Error(err)
					}
				}
				if _, err := p.ReplayParked(t.Context(), rec.ID, false); err != nil && !errors.Is(err, errNoParked) {
					t.Error(err)
				}
			}
			return len(parked)
		}
		done := make(chan struct{})
		go func() { reading.Wait(); close(done) }()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			case <-time.After(200 * time.Microsecond):
			}
			mend()
		}
		for _, rec := range l.visible.parked {
			if rec.Reason == "key_queued" {
				t.Errorf("seed %d: record %d of offset %d queues, marks %v", seed, rec.ID, rec.Position.Offset, l.visible.marks)
			}
		}
		mend()
		var got []int64
		for _, c := range l.visible.changes {
			if c.Position.Offset%3 == 1 {
				got = append(got, c.Position.Offset)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: offsets of key 1 %v\nwant %v", seed, got, want)
		}
		if len(l.visible.marks) > 0 || len(l.visible.parked) > 0 {
			t.Errorf("seed %d: left %s, marks %v", seed, parkedReasons(l), l.visible.marks)
		}
	}
}

// TestReplayCrash: the real LogStore loses power at random while bad events of a few keys are edited, skipped and replayed. Each
// event is applied once and in the order of its key, or parked, or given up: never lost, never doubled (P1, P6).
func TestReplayCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	m := newMaker("a.b.t", 1)
	const n = 240
	for i := range int64(n) {
		v := fmt.Sprint(i)
		if rng.IntN(10) == 0 {
			v = `"bad"`
		}
		m.add("u", i%4, fmt.Sprintf(`"v":%s,"note":"n"`, v))
	}
	disk := vfs.NewCrashableMem()
	skipped := map[uint64]int64{} // asked for: id to offset
	for life := 0; ; life++ {
		next, over := repairLife(t, disk, m, rng, life > 40, skipped)
		if over {
			t.Logf("%d lives, %d skips", life+1, len(skipped))
			return
		}
		disk = next
	}
}

// repairLife reads and repairs until the power fails, or to the end.
func repairLife(t *testing.T, disk *vfs.MemFS, m *maker, rng *rand.Rand, last bool, skipped map[uint64]int64) (*vfs.MemFS, bool) {
	t.Helper()
	o := logstore.Options{FS: disk, MinFreeBytes: -1, ParkedTable: parkedTable}
	db, err := logstore.OpenDB("d", o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	reg, err := state.OpenRegistry(db.DB)
	if err != nil {
		t.Fatal(err)
	}
	store, err := logstore.Open(db, reg, o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	checkParkedTable(t, store, reg, "a_b")
	s := newMemSource(m.records)
	s.batch = 1 + rng.IntN(10)
	s.order = func(ingest.Partition, int64) { time.Sleep(100 * time.Microsecond) }
	p, err := ingest.New(realLog{store}, realTables{reg}, []ingest.Input{{Source: s, Routes: queueRoutes()}}, ingest.Options{BatchRecords: 1 + rng.IntN(10)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	repairs := 3 + rng.IntN(15)
	for i := 0; last || i < repairs; i++ {
		if !repairOne(t, p, store, rng, skipped) && last && parkedCount(store) == 0 {
			break
		}
	}
	if !last {
		after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(100), RNG: rng})
		cancel()
		reading.Wait()
		return after, false
	}
	reading.Wait()
	for repairOne(t, p, store, rng, skipped) {
	}
	checkRepaired(t, store, reg, m, skipped)
	states := checkParkedTable(t, store, reg, "a_b")
	for _, offset := range skipped {
		if got := states[offset]; got != logstore.ParkedSkipped {
			t.Errorf("offset %d was skipped, its row is %q", offset, got)
		}
	}
	return nil, true
}

func parkedCount(store *logstore.Store) (n int64) {
	for _, c := range store.ParkedCounts() {
		n += c.Records
	}
	return n
}

// repairOne edits, skips or replays the first bad record. It reports whether there was one.
func repairOne(t *testing.T, p *ingest.Pipeline, store *logstore.Store, rng *rand.Rand, skipped map[uint64]int64) bool {
	t.Helper()
	for rec, err := range store.ParkedAll(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if rec.Reason == "key_queued" {
			continue
		}
		switch {
		case rng.IntN(3) == 0:
			skipped[rec.ID] = rec.Position.Offset // whether or not the power fails in it
			_, err = p.SkipParked(t.Context(), rec.ID, false)
		case rec.Edit == nil:
			value := []byte(strings.Replace(string(rec.RecordValue), `"v":"bad"`, fmt.Sprintf(`"v":%d`, rec.Position.Offset), 1))
			err = p.EditParked(t.Context(), rec.ID, ingest.ParkedChange{By: "test", Value: &value})
		default:
			_, err = p.ReplayParked(t.Context(), rec.ID, false)
		}
		if err != nil && !errors.Is(err, logstore.ErrNoParked) && !refused(err) {
			t.Fatal(err)
		}
		return true
	}
	return false
}

// checkRepaired: per key, the offsets in the log ascend, and with those given up they are all there are.
func checkRepaired(t *testing.T, store *logstore.Store, reg *state.Registry, m *maker, skipped map[uint64]int64) {
	t.Helper()
	table, ok := reg.Table("a_b.t")
	if !ok {
		t.Fatal("no table")
	}
	if n := parkedCount(store); n != 0 {
		t.Errorf("%d records are parked", n)
	}
	given := map[int64]bool{}
	for _, offset := range skipped {
		given[offset] = true
	}
	_, applied, err := store.Bounds(table.ID)
	if err != nil {
		t.Fatal(err)
	}
	last := map[int64]int64{}
	seen := map[int64]bool{}
	for c, err := range store.Scan(t.Context(), table.ID, 0, applied) {
		if err != nil {
			t.Fatal(err)
		}
		at := c.Position.Offset
		if before, ok := last[at%4]; ok && before >= at {
			t.Errorf("key %d: offset %d after %d", at%4, at, before)
		}
		last[at%4], seen[at] = at, true
	}
	for i := range int64(len(m.records)) {
		if !seen[i] && !given[i] {
			t.Errorf("offset %d is lost", i)
		}
	}
	for m, err := range store.StaleKeys(t.Context(), table.ID) {
		if err != nil || m.Hold {
			t.Errorf("mark %+v, %v", m, err)
		}
	}
}
