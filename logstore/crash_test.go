package logstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// crashAt opens a Store on a disk that loses power at its k-th write after Open, and runs work on it. dead tells work
// that power is lost: what is acknowledged before need be there. It returns the disk as it is after the loss, nil if
// work did fewer writes.
func crashAt(t *testing.T, k int, options func(vfs.FS) Options, work func(s *testStore, dead func() bool)) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewCrashableMem()
	var left atomic.Int64
	var after atomic.Pointer[vfs.MemFS]
	o := options(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) == 0 {
			after.Store(disk.CrashClone(vfs.CrashCloneCfg{})) // only synced data survives
		}
		return nil
	})))
	s, err := tryOpen(t, "d", o)
	if err != nil {
		t.Fatal(err)
	}
	left.Store(int64(k))
	work(s, func() bool { return after.Load() != nil })
	s.close()
	return after.Load()
}

// sweep loses power at each write of work once and checks what is left. It returns the number of writes.
func sweep(t *testing.T, work func(s *testStore, dead func() bool), check func(t *testing.T, k int, s *testStore)) {
	t.Helper()
	sweepWith(t, testOptions, work, check)
}

func sweepWith(t *testing.T, options func(vfs.FS) Options, work func(s *testStore, dead func() bool), check func(t *testing.T, k int, s *testStore)) {
	t.Helper()
	for k := 1; ; k++ {
		disk := crashAt(t, k, options, work)
		if disk == nil {
			t.Logf("%d writes", k-1)
			return
		}
		s, err := tryOpen(t, "d", options(disk))
		if err != nil {
			t.Fatalf("crash at write %d: %v", k, err)
		}
		check(t, k, s)
		s.close()
		if t.Failed() {
			return
		}
	}
}

// unit is the i-th append of the crash tests, from 1: two changes from offsets 2i-2 and 2i-1, the second one deletes
// or writes the key of the unit before. Each third unit parks a record and marks its key stale, each fourth clears
// the mark of the unit before; each has a moved row.
func (s *testStore) unit(i int) changelog.Append {
	first := int64(2*i - 2)
	op := changelog.OpUpdate
	if i%2 == 0 {
		op = changelog.OpDelete
	}
	a := changelog.Append{
		Tables: []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{
			s.put(changelog.OpCreate, int64(i), fmt.Sprint("new", i), first),
			s.put(op, int64(i-1), fmt.Sprint("again", i), first+1),
		}}},
		Positions: []changelog.StreamPosition{{StreamID: testStream, Next: first + 2}},
		Moved:     []changelog.MovedRow{{Table: s.table, Key: testKey(int64(i)), Native: "lsn:1", Row: testRow(s.schema, int64(i), "old")}},
	}
	switch {
	case i%3 == 0:
		a.Parked = []changelog.Parked{{Table: s.table, Key: testKey(int64(i)), Reason: "int_range", RecordValue: []byte("{")}}
		a.Stale = []changelog.StaleMark{{Table: s.table, Key: testKey(int64(i)), Set: true, Reason: "int_range"}}
	case i%4 == 0:
		a.Stale = []changelog.StaleMark{{Table: s.table, Key: testKey(int64(i - 1))}}
	}
	return a
}

// checkUnits checks that the Store holds the units 1 to some n whole and nothing of later ones, and returns n.
func (s *testStore) checkUnits(t *testing.T) (n int) {
	t.Helper()
	ctx := t.Context()
	next, _, err := s.Position(testStream)
	if err != nil || next%2 != 0 {
		t.Fatalf("position %d, %v: not between units", next, err)
	}
	n = int(next / 2)
	oldest, applied, err := s.Bounds(s.table)
	if err != nil || int(applied) != 2*n {
		t.Errorf("%d units by position: applied %d, %v", n, applied, err)
	}
	seq := oldest - 1
	for c, err := range s.Scan(ctx, s.table, oldest-1, applied) {
		if err != nil {
			t.Fatal(err)
		}
		if seq++; c.Seq != seq || c.Position.Offset != int64(seq)-1 {
			t.Errorf("change %d at offset %d, want %d", c.Seq, c.Position.Offset, seq)
		}
	}
	if seq != applied {
		t.Errorf("log ends at %d, want %d", seq, applied)
	}
	s.checkUnitRows(t, n, oldest)
	s.checkUnitMarks(t, n)
	return n
}

func (s *testStore) checkUnitRows(t *testing.T, n int, oldest changelog.SeqNum) {
	t.Helper()
	for i := 1; i <= n+1; i++ {
		want, seq := fmt.Sprintf("%d=new%d", i, i), changelog.SeqNum(2*i-1)
		switch {
		case i > n:
			want, seq = "-", 0
		case i < n && i%2 == 1:
			want, seq = "-", changelog.SeqNum(2*i+2)
		case i < n:
			want, seq = fmt.Sprintf("%d=again%d", i, i+1), changelog.SeqNum(2*i+2)
		}
		v, err := s.Row(t.Context(), s.table, testKey(int64(i)))
		if err != nil {
			t.Fatal(err)
		}
		trimmed := want == "-" && v.Seq == 0 && seq < oldest+32 // its mark may be gone before its block is
		if s.text(v.Row) != want || v.Seq != seq && !trimmed {
			t.Errorf("%d units, oldest %d: row %d is %s of %d, want %s of %d", n, oldest, i, s.text(v.Row), v.Seq, want, seq)
		}
		if _, ok, err := s.MovedRow(s.table, testKey(int64(i)), "lsn:1"); ok != (i <= n) || err != nil {
			t.Errorf("%d units: moved row %d: %t, %v", n, i, ok, err)
		}
	}
}

func (s *testStore) checkUnitMarks(t *testing.T, n int) {
	t.Helper()
	parked := 0
	for p, err := range s.ParkedList(t.Context(), s.table, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if parked++; p.ID != uint64(parked) || string(p.Key) != string(testKey(int64(3*parked))) {
			t.Errorf("parked record %d: %+v", parked, p)
		}
	}
	count := s.ParkedCounts()[ParkedKind{s.table, "int_range"}].Records
	if parked != n/3 || count != int64(n/3) || s.parked.next != uint64(n/3+1) {
		t.Errorf("%d units: %d parked, counted %d, next id %d", n, parked, count, s.parked.next)
	}
	for i := 1; i <= n+1; i++ {
		_, stale, err := s.Stale(s.table, testKey(int64(i)))
		cleared := (i+1)%4 == 0 && (i+1)%3 != 0 && i+1 <= n
		if want := i <= n && i%3 == 0 && !cleared; stale != want || err != nil {
			t.Errorf("%d units: key %d stale %t, %v, want %t", n, i, stale, err, want)
		}
	}
}

// TestAppendCrash: P1. What was acknowledged is there after the loss of power at any write, and no append is there in
// part: log, rows, position, parked records, marks.
func TestAppendCrash(t *testing.T) {
	var acked int
	work := func(s *testStore, dead func() bool) {
		acked = 0
		for i := 1; i <= 16 && !dead(); i++ {
			if _, err := s.Append(context.Background(), s.unit(i)); err != nil {
				t.Fatal(err)
			}
			if !dead() {
				acked = i
			}
			if i == 8 {
				if err := s.db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	sweep(t, work, func(t *testing.T, k int, s *testStore) {
		if n := s.checkUnits(t); n < acked || t.Failed() {
			t.Errorf("crash at write %d: %d units, %d acknowledged", k, n, acked)
		}
	})
}

// TestTrimCrash: the same while the log is trimmed: either bound, never a hole, and no row but marks of trimmed deletes
// is lost.
func TestTrimCrash(t *testing.T) {
	var acked int
	var trimmed changelog.SeqNum
	work := func(s *testStore, dead func() bool) {
		ctx := context.Background()
		acked, trimmed = 0, 0
		for i := 1; i <= 12 && !dead(); i++ {
			if _, err := s.Append(ctx, s.unit(i)); err != nil {
				t.Fatal(err)
			}
			if !dead() {
				acked = i
			}
			if i%4 != 0 {
				continue
			}
			upTo := changelog.SeqNum(i)
			err := s.reg.UpdateProgress(ctx, s.table, func(p *state.Progress) { p.Flushed = upTo })
			if err = errors.Join(err, s.Trim(ctx, s.table, upTo)); err != nil {
				t.Fatal(err)
			}
			if !dead() {
				trimmed = upTo
			}
			if i == 8 {
				if err := s.db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	sweep(t, work, func(t *testing.T, k int, s *testStore) {
		n := s.checkUnits(t)
		oldest, _, err := s.Bounds(s.table)
		p, perr := s.reg.Progress(s.table)
		if n < acked || oldest <= trimmed || oldest > p.Flushed+1 || errors.Join(err, perr) != nil || t.Failed() {
			t.Errorf("crash at write %d: %d units, %d acknowledged; oldest %d, trimmed %d, flushed %d", k, n, acked, oldest, trimmed, p.Flushed)
		}
	})
}

// TestUnparkCrash: records, their keys and their counts agree after the loss of power at any write, and what was
// acknowledged as parked or removed is.
func TestUnparkCrash(t *testing.T) {
	parked, removed := 0, 0 // acknowledged, in twos and ones: with i, the records 2i+1 and 2i+2, and the first of them goes
	work := func(s *testStore, dead func() bool) {
		ctx := context.Background()
		parked, removed = 0, 0
		for i := 0; i < 6 && !dead(); i++ {
			a := changelog.Append{Parked: []changelog.Parked{{Reason: "utf8", Key: testKey(int64(i)), RecordValue: []byte("x")}, {Reason: "utf8"}}}
			if _, err := s.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
			if !dead() {
				parked = i + 1
			}
			if err := s.Unpark(ctx, uint64(2*i+1)); err != nil {
				t.Fatal(err)
			}
			if !dead() {
				removed = i + 1
			}
		}
	}
	sweep(t, work, func(t *testing.T, k int, s *testStore) {
		var records, keyed, keys, bytes int64
		last := uint64(0)
		for p, err := range s.ParkedList(t.Context(), 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if p.Key != nil {
				keyed++
			}
			records++
			bytes += int64(len(appendParked(nil, &p))) + 13
			last = p.ID
			if int(p.ID) <= 2*removed && p.ID%2 == 1 {
				t.Errorf("crash at write %d: record %d is there, %d removals are acknowledged", k, p.ID, removed)
			}
		}
		c := s.ParkedCounts()[ParkedKind{0, "utf8"}]
		if c.Records != records || c.Bytes != bytes || last >= s.parked.next || int(last) < 2*parked {
			t.Errorf("crash at write %d: %d records of %d bytes, counted %+v; last id %d, next %d, acknowledged %d", k, records, bytes, c, last, s.parked.next, 2*parked)
		}
		if err := s.each([]byte{byte(keyspace.SpaceParkedKey)}, func(_, _ []byte) error { keys++; return nil }); err != nil || keys != keyed {
			t.Errorf("crash at write %d: %d keys of %d records that have one; %v", k, keys, keyed, err)
		}
	})
}

// TestSettleCrash: P1 for replayed records. After the loss of power at any write a parked record is there or its change is,
// never both or neither, and the mark of its key is with the record; a second replay of the same record is refused.
func TestSettleCrash(t *testing.T) {
	done := 0 // acknowledged replays
	work := func(s *testStore, dead func() bool) {
		ctx := context.Background()
		done = 0
		for i := 0; i < 8 && !dead(); i++ {
			key := testKey(int64(i))
			a := changelog.Append{
				Parked: []changelog.Parked{{Table: s.table, Reason: "utf8", Key: key, RecordValue: []byte("x")}},
				Stale:  []changelog.StaleMark{{Table: s.table, Key: key, Set: true, Hold: true, Record: 1, Reason: "utf8"}},
			}
			if _, err := s.Append(ctx, a); err != nil {
				t.Fatal(err)
			}
			replay := changelog.Append{
				Tables:   []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpCreate, int64(i), "v", int64(i))}}},
				Unparked: []uint64{uint64(i + 1)}, Stale: []changelog.StaleMark{{Table: s.table, Key: key}},
			}
			var group sync.WaitGroup
			var refused atomic.Int64
			for range 2 {
				group.Go(func() {
					if _, err := s.Append(ctx, replay); errors.Is(err, ErrNoParked) {
						refused.Add(1)
					} else if err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if !dead() {
				if done = i + 1; refused.Load() != 1 {
					t.Errorf("record %d: %d of 2 replays are refused", i+1, refused.Load())
				}
			}
		}
	}
	sweep(t, work, func(t *testing.T, k int, s *testStore) {
		parked := map[string]bool{}
		for p, err := range s.ParkedList(t.Context(), s.table, 0) {
			if err != nil {
				t.Fatal(err)
			}
			parked[string(p.Key)] = true
			if mark, ok, err := s.Stale(s.table, p.Key); !ok || mark != "utf8" || err != nil {
				t.Errorf("crash at write %d: record %d is parked, and its key has no mark: %v", k, p.ID, err)
			}
		}
		_, applied, err := s.Bounds(s.table)
		if err != nil {
			t.Fatal(err)
		}
		changes := 0
		for c, err := range s.Scan(t.Context(), s.table, 0, applied) {
			if err != nil {
				t.Fatal(err)
			}
			changes++
			if parked[string(c.Key)] {
				t.Errorf("crash at write %d: change %d is there, and the parked record too", k, c.Seq)
			}
		}
		count := s.ParkedCounts()[ParkedKind{s.table, "utf8"}].Records
		if total := changes + len(parked); changes < done || count != int64(len(parked)) || total != int(s.parked.next)-1 {
			t.Errorf("crash at write %d: %d changes (%d acknowledged), %d parked, counted %d, of %d", k, changes, done, len(parked), count, s.parked.next-1)
		}
	})
}

// TestWALFailure: after a failed write of the log nothing is acknowledged any more, nothing panics or hangs, and the
// next process finds what was acknowledged.
func TestWALFailure(t *testing.T) {
	disk := vfs.NewCrashableMem()
	var failing atomic.Bool
	broken := errors.New("broken disk")
	o := testOptions(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return broken
		}
		return nil
	})))
	s, err := tryOpen(t, "d", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := s.Append(ctx, s.unit(1)); err != nil {
		t.Fatal(err)
	}
	failing.Store(true)
	var last error
	for i := 2; i < 30; i++ { // several: the first ones may be in flight when the failure is seen
		if _, err := s.Append(ctx, s.unit(2)); err == nil {
			t.Fatalf("append %d acknowledged", i)
		} else {
			last = err
		}
	}
	if !errors.Is(last, broken) || !errors.Is(s.Err(), broken) {
		t.Errorf("append: %v; health: %v", last, s.Err())
	}
	if _, err := s.Wait(ctx, s.table, 2); !errors.Is(err, broken) {
		t.Errorf("wait: %v", err)
	}
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	failing.Store(false)
	s.open = false
	if err := s.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
	if err := s.db.Close(); err != nil && !errors.Is(err, broken) {
		t.Errorf("close db: %v", err)
	}
	if n := openTest(t, "d", testOptions(after)).checkUnits(t); n != 1 {
		t.Errorf("%d units after the crash, want 1", n)
	}
}
