package logstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/state"
)

// parkedOptions are testOptions with tables of parked records.
func parkedOptions(fs vfs.FS) Options {
	o := testOptions(fs)
	o.ParkedTable = ParkedTable{
		Name: "parked", Target: func(topic string) string { return "old." + topic },
		KeyText: func(_ *changelog.Schema, k changelog.Key) string { return k.String() },
		Rule:    func(reason string) string { return "no " + reason },
	}
	return o
}

// parkedRows returns the rows of a table of parked records, by offset.
func (s *testStore) parkedRows(t *testing.T, name string) map[int64]parkedFields {
	t.Helper()
	out := map[int64]parkedFields{}
	table, ok := s.reg.Table(name)
	if !ok {
		return out
	}
	snap, err := s.Snapshot(t.Context(), table.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		values, err := changelog.AppendValues(nil, table.Schema(), bytes.Clone(e.Row))
		if err != nil {
			t.Fatal(err)
		}
		f := parkedFields{}
		for i, c := range table.Schema().Columns {
			f[c.Name] = values[i]
		}
		if key := table.Schema().KeyOf(nil, values); !bytes.Equal(key, e.Key) {
			t.Errorf("row %s has the key %s", e.Key, key)
		}
		out[f.number("offset")] = f
	}
	return out
}

// states shows the rows of a table of parked records: offset:state, with what else tells of them.
func (s *testStore) states(t *testing.T, name string) string {
	t.Helper()
	var out []string
	rows := s.parkedRows(t, name)
	for offset := range int64(100) {
		f, ok := rows[offset]
		if !ok {
			continue
		}
		text := fmt.Sprintf("%d:%s", offset, f.text("state"))
		if f.has("settled_seq") {
			text += fmt.Sprintf("<%s@%d", f.text("state_before"), f.number("settled_seq"))
		}
		if f.number("holds_queue") == 1 {
			text += "+q"
		}
		if f.number("row_suspect") == 1 {
			text += "+s"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// record is a record of key 1 that is parked at an offset.
func (s *testStore) record(offset int64) changelog.Parked {
	return changelog.Parked{
		Table: s.table, Key: testKey(1), Reason: "utf8", Detail: "at 3", Time: 5_000_000, Timestamp: 4_000,
		Position:  changelog.Position{Source: "k", Topic: "t", Offset: offset, Native: "lsn:1"},
		RecordKey: []byte("{1"), RecordValue: []byte("x"), Headers: []changelog.Header{{Key: "h", Value: []byte("v")}, {Key: "n"}},
	}
}

func (s *testStore) mark(first uint64, record int) changelog.StaleMark {
	return changelog.StaleMark{Table: s.table, Key: testKey(1), Set: true, Hold: true, Reason: "utf8", First: first, Record: record}
}

// step makes an append, and says what the rows are then.
func (s *testStore) step(t *testing.T, a changelog.Append, want string) {
	t.Helper()
	if _, err := s.Append(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := s.states(t, "shop.parked"); got != want {
		t.Errorf("rows are %s, want %s", got, want)
	}
}

// TestParkedTable: each append that parks, edits, replays, skips or supersedes records leaves their rows with what they are then.
func TestParkedTable(t *testing.T) {
	s := openTest(t, "d", parkedOptions(vfs.NewMem()))
	s.append(1, s.put(changelog.OpCreate, 1, "a", 0), s.put(changelog.OpCreate, 2, "b", 1))
	clear := changelog.StaleMark{Table: s.table, Key: testKey(1)}
	change := []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpUpdate, 1, "n", 9)}}}

	s.step(t, changelog.Append{Parked: []changelog.Parked{s.record(2), s.record(3)}, Stale: []changelog.StaleMark{s.mark(0, 1)}}, "2:parked+q 3:parked+q")
	edited := must(s.ParkedGet(t.Context(), 1))
	edited.Edit = &changelog.ParkedEdit{By: "ann", Time: 6_000_000, RecordKey: []byte("{2"), Headers: []changelog.Header{{Key: "e"}}}
	edited.Attempts = 1
	s.step(t, changelog.Append{Reparked: []changelog.Parked{edited}}, "2:parked+q 3:parked+q")
	f := s.parkedRows(t, "shop.parked")[2]
	got, err := f.parked()
	want := s.record(2)
	want.ID, want.Table, want.Target, want.Edit, want.Attempts = 1, 0, "shop.orders", edited.Edit, 1
	if !reflect.DeepEqual(got, want) || err != nil {
		t.Errorf("row of %+v, %v\nwant   %+v", got, err, want)
	}
	if f.text("target_key") != testKey(1).String() || f.text("rule") != "no utf8" || f.number("record_time") != 4_000_000 || f.has("value_bytes") {
		t.Errorf("row %v", f)
	}

	s.step(t, changelog.Append{Tables: change, Unparked: []uint64{1}, Stale: []changelog.StaleMark{s.mark(2, 0)}}, "2:replayed<parked@3+q 3:parked+q")
	suspect := changelog.StaleMark{Table: s.table, Key: testKey(1), Set: true, Skipped: true, First: 3}
	s.step(t, changelog.Append{Unparked: []uint64{2}, Skipped: []uint64{2}, Stale: []changelog.StaleMark{suspect}}, "2:replayed<parked@3+q 3:skipped<parked@3+q+s")
	before := "2:replayed<parked@3+q 3:skipped<parked@3+q+s "

	// A whole row ends what was parked of its key; what was parked before it, in the same append, too; a report stays one.
	stale := changelog.StaleMark{Table: s.table, Key: testKey(1), Set: true, Reason: "utf8", Record: 1}
	report := s.record(6)
	report.Applied = true
	s.step(t, changelog.Append{Parked: []changelog.Parked{s.record(4)}, Stale: []changelog.StaleMark{stale}}, before+"4:parked")
	s.step(t, changelog.Append{Tables: change, Parked: []changelog.Parked{s.record(5), report}, Stale: []changelog.StaleMark{clear}},
		before+"4:superseded<parked@4 5:superseded<parked@4 6:reported")
	s.step(t, changelog.Append{Tables: change, Unparked: []uint64{3}}, before+"4:replayed<superseded@5 5:superseded<parked@4 6:reported")
	s.step(t, changelog.Append{Unparked: []uint64{5}, Skipped: []uint64{5}}, before+"4:replayed<superseded@5 5:superseded<parked@4 6:skipped<reported@5")
	s.step(t, changelog.Append{Parked: []changelog.Parked{s.record(7), s.record(8)}, Stale: []changelog.StaleMark{s.mark(0, 1), clear, s.mark(0, 2)}},
		before+"4:replayed<superseded@5 5:superseded<parked@4 6:skipped<reported@5 7:superseded<parked@5+q 8:parked+q")

	// What reached no table goes by the name of the one that it is for.
	lost := s.record(9)
	lost.Table, lost.Key, lost.Target = 0, nil, "other.orders"
	older := s.record(10)
	older.Table, older.Key = 0, nil
	if _, err := s.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{lost, older}}); err != nil {
		t.Fatal(err)
	}
	if got, old := s.states(t, "other.parked"), s.states(t, "old.parked"); got != "9:parked" || old != "10:parked" {
		t.Errorf("rows of other.parked %s, of old.parked %s", got, old)
	}
	if got := must(s.ParkedGet(t.Context(), 8)); got.Target != "other.orders" {
		t.Errorf("parked %+v", got)
	}
	if got := s.parkedRows(t, "other.parked")[9].text("target_table"); got != "other.orders" {
		t.Errorf("for table %q", got)
	}

	// Its log is one as any: dense, with images that lookups agree with.
	table, _ := s.reg.Table("shop.parked")
	_, applied, err := s.Bounds(table.ID)
	if err != nil {
		t.Fatal(err)
	}
	n := changelog.SeqNum(0)
	for c, err := range s.Scan(t.Context(), table.ID, 0, applied) {
		if n++; err != nil || c.Seq != n || c.After == nil || c.Position.Source != "" {
			t.Errorf("change %+v, %v", c, err)
		}
	}
	if n != applied || n != 13 {
		t.Errorf("%d changes, applied %d", n, applied)
	}
}

// TestParkedTableName: the name of a table with other columns is not written to, and one that was dropped is made anew.
func TestParkedTableName(t *testing.T) {
	s := openTest(t, "d", parkedOptions(vfs.NewMem()))
	own, err := s.reg.Create(t.Context(), "shop.parked", testSchema(t), state.TopicRef{Source: "k", Topic: "parked"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := changelog.Append{Parked: []changelog.Parked{s.record(1)}}
	if _, err := s.Append(t.Context(), a); !errors.Is(err, ErrParkedTable) || !strings.Contains(err.Error(), "shop.parked") {
		t.Fatalf("got %v", err)
	}
	for range 2 {
		if err := s.Drop(t.Context(), own.ID); err != nil {
			t.Fatal(err)
		}
		s.step(t, a, "1:parked")
		own, _ = s.reg.Table("shop.parked")
		a.Parked[0].RecordValue = nil
	}
}

// TestBackfillParked: what was parked without a table of parked records gets its rows once, with the states that it has.
func TestBackfillParked(t *testing.T) {
	disk := vfs.NewMem()
	s := openTest(t, "d", testOptions(disk))
	all := make([]changelog.Parked, 2*backfillRecords+5)
	for i := range all {
		all[i] = s.record(int64(i))
		if i%2 == 1 {
			all[i].Key = testKey(int64(i))
		}
	}
	if _, err := s.Append(t.Context(), changelog.Append{Parked: all, Stale: []changelog.StaleMark{s.mark(0, 3)}}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.BackfillParked(t.Context()); n != 0 || err != nil {
		t.Fatalf("without a table: %d, %v", n, err)
	}
	s.close()
	s = openTest(t, "d", parkedOptions(disk))
	for _, want := range []int{len(all), 0} {
		if n, err := s.BackfillParked(t.Context()); n != want || err != nil {
			t.Fatalf("backfilled %d, %v, want %d", n, err, want)
		}
	}
	rows := s.parkedRows(t, "shop.parked")
	if len(rows) != len(all) {
		t.Errorf("%d rows", len(rows))
	}
	for offset, f := range rows {
		want := ParkedWaits
		if offset%2 == 1 || offset < 2 { // of a key without a mark, or from before it
			want = ParkedSuperseded
		}
		if f.text("state") != want || f.number("id") != offset+1 {
			t.Errorf("row %d: %s of %d, want %s", offset, f.text("state"), f.number("id"), want)
		}
	}
	s.step(t, changelog.Append{}, s.states(t, "shop.parked"))
}

// TestParkedTableCrash: P1 for rows of parked records. After the loss of power at any write, what is parked has a row that says so
// and what was replayed or skipped one that says that.
func TestParkedTableCrash(t *testing.T) {
	work := func(s *testStore, dead func() bool) {
		ctx := context.Background()
		for i := 0; i < 5 && !dead(); i++ {
			p := s.record(int64(i))
			p.Key = testKey(int64(i))
			mark := changelog.StaleMark{Table: s.table, Key: p.Key, Set: true, Hold: true, Record: 1, Reason: "utf8"}
			if _, err := s.Append(ctx, changelog.Append{Parked: []changelog.Parked{p}, Stale: []changelog.StaleMark{mark}}); err != nil {
				t.Fatal(err)
			}
			a := changelog.Append{Unparked: []uint64{uint64(i + 1)}, Stale: []changelog.StaleMark{{Table: s.table, Key: p.Key}}}
			if i%2 == 0 {
				a.Skipped = a.Unparked
			} else {
				a.Tables = []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpCreate, int64(i), "v", int64(i))}}}
			}
			if _, err := s.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
		}
	}
	sweepWith(t, parkedOptions, work, func(t *testing.T, k int, s *testStore) {
		var want []string
		parked := map[int64]bool{}
		for p, err := range s.ParkedAll(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			parked[p.Position.Offset] = true
		}
		seq := 0
		for offset := range int64(s.parked.next - 1) { //nolint:gosec // few
			if offset%2 == 1 && !parked[offset] {
				seq++
			}
			switch {
			case parked[offset]:
				want = append(want, fmt.Sprintf("%d:parked+q", offset))
			case offset%2 == 0:
				want = append(want, fmt.Sprintf("%d:skipped<parked@%d+q", offset, seq))
			default:
				want = append(want, fmt.Sprintf("%d:replayed<parked@%d+q", offset, seq))
			}
		}
		if got := s.states(t, "shop.parked"); got != strings.Join(want, " ") {
			t.Errorf("crash at write %d: rows are %s, want %s", k, got, want)
		}
		_, applied, err := s.Bounds(s.table)
		if err != nil || int(applied) != seq {
			t.Errorf("crash at write %d: %d changes, %d replayed; %v", k, applied, seq, err)
		}
	})
}

// TestRestoreParked (P4): from the rows of a table of parked records come back what is behind the positions of its streams, with
// its ids and marks; what was settled by changes that are lost is parked again; a second try changes nothing.
func TestRestoreParked(t *testing.T) {
	s := openTest(t, "d", parkedOptions(vfs.NewMem()))
	key := func(p changelog.Parked, id int64) changelog.Parked { p.Key = testKey(id); return p }
	mark := func(id int64, first uint64, record int, hold bool) changelog.StaleMark {
		return changelog.StaleMark{Table: s.table, Key: testKey(id), Set: true, Hold: hold, Reason: "utf8", First: first, Record: record}
	}
	change := func(id int64) []changelog.TableAppend {
		return []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpUpdate, id, "n", 50)}}}
	}
	report := s.record(5)
	report.Applied = true
	cut := key(s.record(6), 6)
	cut.Cut = &changelog.ParkedCut{Bytes: 99, SHA256: [32]byte{1}}
	steps := []changelog.Append{
		{
			Parked: []changelog.Parked{key(s.record(0), 1), key(s.record(1), 1), key(s.record(2), 2), key(s.record(3), 3), key(s.record(4), 4), report, cut},
			Stale:  []changelog.StaleMark{mark(1, 0, 1, true), mark(2, 0, 3, false), mark(3, 0, 4, true), mark(4, 0, 5, true), mark(6, 0, 7, true)},
		},
		{Tables: change(3), Unparked: []uint64{4}, Stale: []changelog.StaleMark{{Table: s.table, Key: testKey(3)}}}, // seq 1
		{Tables: change(4)}, // 2: a row, for the suspect mark
		{Unparked: []uint64{5}, Skipped: []uint64{5}, Stale: []changelog.StaleMark{{Table: s.table, Key: testKey(4), Set: true, Skipped: true, First: 6}}},
		{Tables: change(2), Stale: []changelog.StaleMark{{Table: s.table, Key: testKey(2)}}},                               // 3: supersedes
		{Tables: change(1), Unparked: []uint64{1}, Stale: []changelog.StaleMark{mark(1, 2, 0, true)}},                      // 4
		{Parked: []changelog.Parked{key(s.record(20), 1)}},                                                                 // 8
		{Tables: change(2), Unparked: []uint64{3}},                                                                         // 5: superseded, and replayed all the same
		{Parked: []changelog.Parked{key(s.record(7), 7)}, Stale: []changelog.StaleMark{mark(7, 0, 1, false)}, Tables: nil}, // 9
	}
	for _, a := range steps {
		if _, err := s.Append(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		flushed changelog.SeqNum
		want    string
		marks   string
		states  string
	}{
		// The lake has all but the last replay, and the position is before the record at offset 20.
		{
			4, "2@1 3@2 6@5 7@6 9@7", "1:2+h 4:6+s 6:7+h 7:9",
			"0:replayed<parked@4+q 1:parked+q 2:superseded 3:replayed<parked@1+q 4:skipped<parked@2+q+s 5:reported 6:parked+q 7:parked 20:parked+q",
		},
		// It has only the first replay: the others are to be done again.
		{
			2, "1@0 2@1 3@2 6@5 7@6 9@7", "1:1+h 4:6+s 6:7+h 7:9",
			"0:parked+q 1:parked+q 2:superseded 3:replayed<parked@1+q 4:skipped<parked@2+q+s 5:reported 6:parked+q 7:parked 20:parked+q",
		},
	} {
		table, _ := s.reg.Table("shop.parked")
		next := openTest(t, "d", parkedOptions(vfs.NewMem()))
		restored, err := next.reg.Restore(t.Context(), state.Table{Name: "shop.parked", Schemas: table.Schemas, Properties: table.Properties}, state.Progress{Flushed: 100}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.reg.UpdateProgress(t.Context(), next.table, func(p *state.Progress) { p.Flushed = c.flushed }); err != nil {
			t.Fatal(err)
		}
		next.close()
		next = s.restoreInto(t, next.opts, restored.ID, c.flushed)
		for range 2 {
			n, err := next.RestoreParked(t.Context(), restored.ID)
			if want := len(strings.Fields(c.want)); err != nil || n != want {
				t.Fatalf("flushed %d: restored %d, %v, want %d", c.flushed, n, err, want)
			}
			next.checkRestored(t, c.want, c.marks, c.states)
		}
		// New ids are above all that were ever given.
		if _, err := next.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{next.record(20)}}); err != nil {
			t.Fatal(err)
		}
		if got := next.parkedRows(t, "shop.parked")[20]; got.number("id") != 10 {
			t.Errorf("a new record has id %d", got.number("id"))
		}
	}
}

// restoreInto opens a store, which has the tables, and gives it the rows of s, as the lake would.
func (s *testStore) restoreInto(t *testing.T, o Options, id changelog.TableID, flushed changelog.SeqNum) *testStore {
	t.Helper()
	next := openTest(t, "d", o)
	if err := next.ResetPositions(t.Context(), []changelog.StreamPosition{{StreamID: testStream, Next: 20}}); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]changelog.TableID{"shop.parked": id, "shop.orders": next.table} {
		from, _ := s.reg.Table(name)
		snap, err := s.Snapshot(t.Context(), from.ID)
		if err != nil {
			t.Fatal(err)
		}
		rows := func(yield func(RowEntry, error) bool) {
			for e, err := range snap.Rows(nil, nil) {
				if name == "shop.orders" && e.Seq > flushed {
					continue
				}
				if !yield(e, err) {
					return
				}
			}
		}
		if err := errors.Join(next.PutRows(t.Context(), to, rows), snap.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return next
}

// checkRestored holds the parked records (id@offset), the marks (key:first, h for hold, s for skipped) and the rows against what they should be.
func (s *testStore) checkRestored(t *testing.T, records, marks, states string) {
	t.Helper()
	var got []string
	count := map[ParkedKind]ParkedCount{}
	for p, err := range s.ParkedAll(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d@%d", p.ID, p.Position.Offset))
		c := count[ParkedKind{p.Table, p.Reason}]
		count[ParkedKind{p.Table, p.Reason}] = ParkedCount{c.Records + 1, c.Bytes + storedBytes(&p)}
		of := slices.Collect(func(yield func(uint64) bool) {
			for q, err := range s.ParkedOf(t.Context(), p.Table, p.Key, p.ID) {
				if err != nil || !yield(q.ID) {
					return
				}
			}
		})
		if p.Table != s.table || !slices.Contains(of, p.ID) || p.Position.Offset == 6 && (p.Cut == nil || p.Cut.Bytes != 99 || p.Cut.SHA256[0] != 1) {
			t.Errorf("restored %+v, of its key %v", p, of)
		}
	}
	if text := strings.Join(got, " "); text != records || fmt.Sprint(s.ParkedCounts()) != fmt.Sprint(count) {
		t.Errorf("restored %s, want %s; counted %v, want %v", text, records, s.ParkedCounts(), count)
	}
	got = nil
	for m, err := range s.StaleKeys(t.Context(), s.table) {
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%d:%d", must(s.schema.KeyValues(m.Key))[0].I, m.First)
		if m.Hold {
			text += "+h"
		}
		if m.Skipped {
			text += "+s"
		}
		got = append(got, text)
	}
	if text := strings.Join(got, " "); text != marks {
		t.Errorf("marks %s, want %s", text, marks)
	}
	if text := s.states(t, "shop.parked"); text != states {
		t.Errorf("rows are %s\nwant     %s", text, states)
	}
}

// TestParkedTableFirst: who sees the changes of an append that parks or settles records sees their rows too (a flush relies on it).
func TestParkedTableFirst(t *testing.T) {
	s := openTest(t, "d", parkedOptions(vfs.NewMem()))
	s.step(t, changelog.Append{Parked: []changelog.Parked{s.record(1)}}, "1:parked")
	table, _ := s.reg.Table("shop.parked")
	rows := must(s.Store.table(table.ID))
	rows.mu.Lock() // as if its turn took long
	done := make(chan error, 1)
	go func() {
		_, err := s.Append(t.Context(), changelog.Append{
			Tables: []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpCreate, 1, "v", 2)}}}, Unparked: []uint64{1},
		})
		done <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if _, applied, err := s.Bounds(s.table); applied != 0 || err != nil {
		t.Errorf("the change is seen before the row: applied %d, %v", applied, err)
	}
	rows.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestParkedParts: several parts of one record have rows of their own, which are settled one by one, and what is read back tells them apart.
func TestParkedParts(t *testing.T) {
	s := openTest(t, "d", parkedOptions(vfs.NewMem()))
	s.append(1, s.put(changelog.OpCreate, 1, "a", 0))
	part := func(n int) changelog.Parked {
		p := s.record(7)
		p.Part, p.Key = n, testKey(int64(n))
		return p
	}
	rows := func() (out []string) {
		table, ok := s.reg.Table("shop.parked")
		if !ok {
			t.Fatal("no table")
		}
		snap, err := s.Snapshot(t.Context(), table.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		for e, err := range snap.Rows(nil, nil) {
			if err != nil {
				t.Fatal(err)
			}
			values, err := changelog.AppendValues(nil, table.Schema(), e.Row)
			if err != nil {
				t.Fatal(err)
			}
			f := parkedFields{}
			for i, c := range table.Schema().Columns {
				f[c.Name] = values[i]
			}
			out = append(out, fmt.Sprintf("%d/%d:%s", f.number("offset"), f.number("part"), f.text("state")))
		}
		return out
	}
	if _, err := s.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{part(0), part(1), part(300), part(-1)}}); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(rows()), "[7/-1:parked 7/0:parked 7/1:parked 7/300:parked]"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	for id, want := range map[uint64]int{1: 0, 2: 1, 3: 300, 4: -1} {
		if p, err := s.ParkedGet(t.Context(), id); err != nil || p.Part != want {
			t.Errorf("record %d: part %d, %v", id, p.Part, err)
		}
	}
	if _, err := s.Append(t.Context(), changelog.Append{Unparked: []uint64{2}}); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(rows()), "[7/-1:parked 7/0:parked 7/1:replayed 7/300:parked]"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}
