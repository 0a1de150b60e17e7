package logstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/state"
)

// model is what a Store must hold, as maps.
type model struct {
	log     []string // by SeqNum-1
	rows    map[int64]modelRow
	stale   map[int64]bool
	parked  map[uint64]int64 // id to key
	lastID  uint64
	next    int64
	trimmed changelog.SeqNum
	flushed changelog.SeqNum
}

type modelRow struct {
	text string // "-": deleted
	seq  changelog.SeqNum
}

const modelKeys = 40

// TestModel runs random operations on a Store and on maps, with crashes and clean restarts in between.
func TestModel(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 1))
			disk := vfs.NewCrashableMem()
			o := testOptions(disk)
			o.MaxBatchBytes = int64(4<<10 + rng.IntN(64<<10))
			s, err := tryOpen(t, "d", o)
			if err != nil {
				t.Fatal(err)
			}
			m := &model{rows: map[int64]modelRow{}, stale: map[int64]bool{}, parked: map[uint64]int64{}}
			defer func() { s.close() }()
			for range 150 {
				switch p := rng.IntN(100); {
				case p < 70:
					m.append(t, rng, s)
				case p < 80:
					m.trim(t, rng, s)
				case p < 85:
					m.unpark(t, rng, s)
				case p < 90:
					if err := s.db.Flush(); err != nil {
						t.Fatal(err)
					}
				case p < 95:
					if rng.IntN(2) == 0 {
						o.FS = disk.CrashClone(vfs.CrashCloneCfg{})
						disk = o.FS.(*vfs.MemFS)
					}
					s.close()
					if s, err = tryOpen(t, "d", o); err != nil {
						t.Fatal(err)
					}
					m.check(t, s)
				default:
					m.check(t, s)
				}
				if t.Failed() {
					return
				}
			}
			m.check(t, s)
		})
	}
}

func (m *model) append(t *testing.T, rng *rand.Rand, s *testStore) {
	t.Helper()
	a := changelog.Append{}
	var changes []changelog.Change
	n := rng.IntN(6)
	if rng.IntN(20) == 0 {
		n = 3000 // several blocks
	}
	for range n {
		id := rng.Int64N(modelKeys)
		op := []changelog.Op{changelog.OpCreate, changelog.OpUpdate, changelog.OpUpdate, changelog.OpDelete}[rng.IntN(4)]
		c := s.put(op, id, fmt.Sprintf("v%d-%s", m.next, strings.Repeat("x", rng.IntN(80))), m.next)
		if rng.IntN(3) == 0 {
			c.Before, c.Txn, c.SourceTime = testRow(s.schema, id, "before"), fmt.Sprint("t", m.next/5), m.next*1000
		}
		if rng.IntN(2) == 0 {
			c.Position.Native = fmt.Sprintf("lsn:%d", m.next/3)
		}
		m.next++
		changes = append(changes, c)
		m.log = append(m.log, changeText(s, &c))
		m.rows[id] = modelRow{s.text(c.After), changelog.SeqNum(len(m.log))}
	}
	if n > 0 {
		a.Tables = []changelog.TableAppend{{Table: s.table, Changes: changes}}
	}
	if rng.IntN(4) == 0 {
		id := rng.Int64N(modelKeys)
		m.lastID++
		m.parked[m.lastID] = id
		a.Parked = []changelog.Parked{{Table: s.table, Key: testKey(id), Reason: "utf8", RecordValue: []byte("v"), Headers: []changelog.Header{{Key: "h"}}}}
		m.stale[id] = true
		a.Stale = []changelog.StaleMark{{Table: s.table, Key: testKey(id), Set: true, Reason: "utf8"}}
	} else if rng.IntN(4) == 0 {
		id := rng.Int64N(modelKeys)
		delete(m.stale, id)
		a.Stale = []changelog.StaleMark{{Table: s.table, Key: testKey(id)}}
	}
	a.Positions = []changelog.StreamPosition{{StreamID: testStream, Next: m.next}}
	r, err := s.Append(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	if n > 0 && int(r.Last[s.table]) != len(m.log) {
		t.Errorf("last seq %d, want %d", r.Last[s.table], len(m.log))
	}
}

// changeText shows all of a change but its Seq and IngestTime.
func changeText(s *testStore, c *changelog.Change) string {
	return fmt.Sprintf("%s %s %s>%s %v %d %s", c.Op, c.Key, s.text(c.Before), s.text(c.After), c.Position, c.SourceTime, c.Txn)
}

func (m *model) trim(t *testing.T, rng *rand.Rand, s *testStore) {
	t.Helper()
	ctx := context.Background()
	m.flushed += changelog.SeqNum(rng.Int64N(int64(len(m.log)) - int64(m.flushed) + 1))
	err := s.reg.UpdateProgress(ctx, s.table, func(p *state.Progress) { p.Flushed = m.flushed })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(ctx, s.table, 1<<60); err != nil {
		t.Fatal(err)
	}
	oldest, _, err := s.Bounds(s.table)
	if err != nil || oldest > m.flushed+1 || oldest <= m.trimmed {
		t.Errorf("oldest %d after flush to %d, %v; trimmed before: %d", oldest, m.flushed, err, m.trimmed)
	}
	m.trimmed = oldest - 1
	for id, r := range m.rows {
		if r.text == "-" && r.seq <= m.trimmed {
			delete(m.rows, id) // its mark has to go, too
		}
	}
}

func (m *model) unpark(t *testing.T, rng *rand.Rand, s *testStore) {
	t.Helper()
	for id := range m.parked {
		if rng.IntN(3) > 0 {
			continue
		}
		if err := s.Unpark(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		delete(m.parked, id)
	}
}

func (m *model) check(t *testing.T, s *testStore) {
	t.Helper()
	ctx := t.Context()
	keys := make([]changelog.Key, modelKeys)
	for id := range keys {
		keys[id] = testKey(int64(id))
	}
	views, err := s.Rows(ctx, s.table, keys)
	if err != nil {
		t.Fatal(err)
	}
	var live []int64
	for id, v := range views {
		want, ok := m.rows[int64(id)]
		if !ok {
			want.text = "-"
		}
		if got := s.text(v.Row); got != want.text || v.Seq != want.seq || int(v.Applied) != len(m.log) {
			t.Errorf("row %d: %s of %d, applied %d; want %+v, applied %d", id, got, v.Seq, v.Applied, want, len(m.log))
		}
		if v.Found {
			live = append(live, int64(id))
		}
		if _, stale, err := s.Stale(s.table, keys[id]); stale != m.stale[int64(id)] || err != nil {
			t.Errorf("key %d stale: %t, %v", id, stale, err)
		}
	}
	snap, err := s.Snapshot(ctx, s.table)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	var seen []int64
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.schema.KeyValues(e.Key)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, v[0].I)
	}
	if !slices.Equal(seen, live) {
		t.Errorf("snapshot has %v, lookups %v", seen, live)
	}
	m.checkLog(t, s)
	parked := map[uint64]int64{}
	for p, err := range s.ParkedAll(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		v, _ := s.schema.KeyValues(p.Key)
		parked[p.ID] = v[0].I
	}
	if fmt.Sprint(parked) != fmt.Sprint(m.parked) || s.ParkedCounts()[ParkedKind{s.table, "utf8"}].Records != int64(len(parked)) {
		t.Errorf("parked %v, want %v; counted %v", parked, m.parked, s.ParkedCounts())
	}
}

func (m *model) checkLog(t *testing.T, s *testStore) {
	t.Helper()
	seq := m.trimmed
	for c, err := range s.Scan(t.Context(), s.table, m.trimmed, 1<<60) {
		if err != nil {
			t.Fatal(err)
		}
		seq++
		if got := changeText(s, &c); c.Seq != seq || got != m.log[seq-1] {
			t.Fatalf("change %d: %s\nwant %d: %s", c.Seq, got, seq, m.log[seq-1])
		}
	}
	if int(seq) != len(m.log) {
		t.Errorf("log ends at %d, want %d", seq, len(m.log))
	}
	if next, _, err := s.Position(testStream); next != m.next && m.next > 0 || err != nil {
		t.Errorf("position %d, %v, want %d", next, err, m.next)
	}
}

// TestConcurrentAppends: many callers, some of whom read their own rows; SeqNums stay dense, each caller's changes keep
// their order, followers see each change once, and a row that Row returns is never beyond what is synced.
func TestConcurrentAppends(t *testing.T) {
	const callers, units, each = 8, 40, 5
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	ctx := t.Context()
	var wg sync.WaitGroup
	for p := range callers {
		wg.Go(func() {
			offset := int64(0)
			var ticket *Ticket
			for u := range units {
				a := changelog.Append{Tables: []changelog.TableAppend{{Table: s.table}}}
				for range each {
					c := s.put(changelog.OpUpdate, int64(p), fmt.Sprint(offset), offset)
					c.Position.Partition = int32(p)
					a.Tables[0].Changes = append(a.Tables[0].Changes, c)
					offset++
				}
				id := changelog.StreamID{Source: "k", Topic: "t", Partition: int32(p)}
				a.Positions = []changelog.StreamPosition{{StreamID: id, Next: offset}}
				next, err := s.Submit(ctx, a)
				if err != nil {
					t.Error(err)
					return
				}
				if v, err := s.RowNow(ctx, s.table, testKey(int64(p))); err != nil || s.text(v.Row) != fmt.Sprintf("%d=%d", p, offset-1) {
					t.Errorf("caller %d does not see its own row %d: %s, %v", p, offset-1, s.text(v.Row), err)
				}
				v, err := s.Row(ctx, s.table, testKey(int64((p+u)%callers)))
				if err != nil || v.Seq > s.tableNewest() || v.Seq > v.Applied {
					t.Errorf("row of %d, applied %d: %v", v.Seq, v.Applied, err)
				}
				if ticket != nil {
					if _, err := ticket.Wait(ctx); err != nil {
						t.Error(err)
					}
				}
				ticket = next
			}
			if r, err := ticket.Wait(ctx); err != nil || r.Last[s.table] == 0 {
				t.Errorf("%+v %v", r, err)
			}
		})
	}
	wg.Go(func() {
		offsets := make([]int64, callers)
		seq := changelog.SeqNum(0)
		for seq < callers*units*each {
			newest, err := s.Wait(ctx, s.table, seq)
			if err != nil {
				t.Error(err)
				return
			}
			for c, err := range s.Scan(ctx, s.table, seq, newest) {
				if seq++; err != nil || c.Seq != seq || c.Position.Offset != offsets[c.Position.Partition] {
					t.Errorf("change %d, %v of %v, want %d of offset %d", c.Seq, err, c.Position, seq, offsets[c.Position.Partition])
					return
				}
				offsets[c.Position.Partition]++
			}
		}
	})
	wg.Wait()
}

func (s *testStore) tableNewest() changelog.SeqNum {
	_, applied, err := s.Bounds(s.table)
	if err != nil {
		s.tb.Error(err)
	}
	return applied
}
