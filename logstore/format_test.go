package logstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/state/keyspace"
)

// goldenAppend has one of everything.
func goldenAppend(s *testStore) changelog.Append {
	at := changelog.Position{Source: "k", Topic: "t", Partition: 3, Offset: 100, Native: "lsn:0/10"}
	next := at
	next.Offset, next.Native = 101, "lsn:0/20"
	return changelog.Append{
		Tables: []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{
			{Op: changelog.OpCreate, Key: testKey(1), After: testRow(s.schema, 1, "a"), Position: at, SourceTime: 5_000_000, IngestTime: 6_000_000, Txn: "tx"},
			{Op: changelog.OpUpdate, Key: testKey(2), Before: testRow(s.schema, 2, "b"), After: testRow(s.schema, 2, "c"), Position: at, SourceTime: 5_000_001, IngestTime: 6_000_000, Txn: "tx"},
			{Op: changelog.OpDelete, Key: testKey(3), Position: next, SourceTime: 5_000_001, IngestTime: 6_000_002},
			{Op: changelog.OpTruncate, Position: next, SourceTime: 5_000_001, IngestTime: 6_000_002},
		}}},
		Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "t", Partition: 3}, Next: 105}},
		Parked: []changelog.Parked{{
			Table: s.table, Key: testKey(4), Reason: "utf8", Detail: "payload.after.v", Applied: true, Time: 7_000_000, Position: at, Timestamp: 5000,
			RecordKey: []byte("{}"), RecordValue: []byte("x"), Headers: []changelog.Header{{Key: "h", Value: []byte("v")}, {Key: "n"}},
		}},
		Moved: []changelog.MovedRow{{Table: s.table, Key: testKey(5), Native: "lsn:0/10", Row: testRow(s.schema, 5, "m")}},
		Stale: []changelog.StaleMark{{Table: s.table, Key: testKey(4), Set: true, Reason: "utf8"}},
	}
}

// golden is every key and value that goldenAppend and a consumer write, in key order. These bytes are on users' disks:
// a change of them needs a new version next to the old one.
var golden = []string{
	"046b000174000100000003 = 01d201",
	"100000000100000000000000000001 = 010000000000000000040180b6dc0580ade20401016b017406c8010a1100000000086c736e3a302f3130027478088000000000000001050000020161fa00020008800000000000000205000004016205000004016323020004086c736e3a302f323000088000000000000003e500000000",
	"110000000100008000000000000001 = 0000000000000001010000020161",
	"110000000100008000000000000002 = 0000000000000002010000040163",
	"110000000100008000000000000003 = 000000000000000302",
	"14000000010000000000000001 = 0104757466380f7061796c6f61642e61667465722e760180bfd606016b017406c801086c736e3a302f3130904e098000000000000004037b7d02780201680276016e00",
	"15000000018000ff00ff00ff00ff00ff00ff0400010000000000000001 = 01",
	"160000000175746638 = 0102a001",
	"170000000100008000ff00ff00ff00ff00ff00ff0500016c736e3a302f3130 = 0180c8d00700000a016d",
	"180000000100008000000000000004 = 0175746638",
	"1900000001776562 = 010380d1ca08",
}

// TestGoldenFormats pins the bytes on disk.
func TestGoldenFormats(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.Now = fixedNow
	s := openTest(t, "d", o)
	if _, err := s.Append(t.Context(), goldenAppend(s)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetConsumer(t.Context(), s.table, Consumer{Name: "web", Acked: 3, LeaseUntil: 9_000_000}); err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, space := range []keyspace.Space{
		keyspace.SpaceSource, keyspace.SpaceLog, keyspace.SpaceRow, keyspace.SpaceParked, keyspace.SpaceParkedKey,
		keyspace.SpaceParkedCount, keyspace.SpaceMoved, keyspace.SpaceStale, keyspace.SpaceConsumer,
	} {
		err := s.each([]byte{byte(space)}, func(key, value []byte) error {
			got := hex.EncodeToString(key) + " = " + hex.EncodeToString(value)
			if i >= len(golden) || got != golden[i] {
				t.Errorf("pair %d:\n\t%q,", i, got)
			}
			i++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if i != len(golden) {
		t.Errorf("%d pairs, want %d", i, len(golden))
	}
}

// TestGoldenReads: what the golden bytes say is what was appended.
func TestGoldenReads(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	b := s.db.NewBatch()
	for _, pair := range golden {
		var key, value []byte
		if _, err := fmt.Sscanf(pair, "%x = %x", &key, &value); err != nil {
			t.Fatal(err)
		}
		if err := b.Set(key, value, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.Commit(pebble.Sync), b.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.db, s.reg, s.opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Store = again
	want := goldenAppend(s)
	i := 0
	for c, err := range s.Scan(t.Context(), s.table, 0, 100) {
		if err != nil {
			t.Fatal(err)
		}
		w := want.Tables[0].Changes[i]
		i++
		w.Seq = changelog.SeqNum(i)
		if !reflect.DeepEqual(c, w) {
			t.Errorf("change %d:\n%+v\nwant\n%+v", i, c, w)
		}
	}
	p, err := s.ParkedGet(t.Context(), 1)
	want.Parked[0].ID = 1
	if err != nil || !reflect.DeepEqual(p, want.Parked[0]) {
		t.Errorf("parked: %+v, %v\nwant %+v", p, err, want.Parked[0])
	}
	row, ok, err := s.MovedRow(s.table, testKey(5), "lsn:0/10")
	if !ok || err != nil || s.text(row) != "5=m" {
		t.Errorf("moved: %s %t %v", s.text(row), ok, err)
	}
	if reason, ok, err := s.Stale(s.table, testKey(4)); reason != "utf8" || !ok || err != nil {
		t.Errorf("stale: %s %t %v", reason, ok, err)
	}
	if c, err := s.Consumers(s.table); err != nil || len(c) != 1 || c[0] != (Consumer{"web", 3, 9_000_000}) {
		t.Errorf("consumers: %+v %v", c, err)
	}
	if next, ok, err := s.Position(want.Positions[0].StreamID); next != 105 || !ok || err != nil {
		t.Errorf("position %d %t %v", next, ok, err)
	}
	for id, text := range map[int64]string{1: "1=a", 2: "2=c", 3: "-"} {
		if v, err := s.Row(t.Context(), s.table, testKey(id)); err != nil || s.text(v.Row) != text || v.Seq != changelog.SeqNum(id) {
			t.Errorf("row %d: %+v %v", id, v, err)
		}
	}
}

// TestBlockPositions: a block that an append's size closed has applied what it holds, but not the record that it
// breaks off in; the last block has applied all.
func TestBlockPositions(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	var changes []changelog.Change
	text := string(make([]byte, 10_000))
	for i := range int64(40) {
		offset := i
		if i >= 10 && i < 30 {
			offset = 10 // twenty changes of one record
		}
		changes = append(changes, s.put(changelog.OpUpdate, i, text, offset))
	}
	s.append(77, changes...)
	n, last := 0, changelog.SeqNum(0)
	for b, err := range s.Blocks(t.Context(), s.table, 0, 40) {
		if err != nil {
			t.Fatal(err)
		}
		want := int64(77)
		if b.Last < 40 {
			at, after := changes[b.Last-1].Position.Offset, changes[b.Last].Position.Offset
			if want = at + 1; at == after {
				want = at
			}
		}
		if len(b.Streams) != 1 || b.Streams[0].Next != want || b.First != last+1 {
			t.Errorf("block %d-%d: %+v, want next %d", b.First, b.Last, b.Streams, want)
		}
		n, last = n+1, b.Last
	}
	if n < 3 || last != 40 {
		t.Errorf("%d blocks up to %d", n, last)
	}
}

// FuzzBlock: no bytes make the reader panic, or yield more changes than the block says.
func FuzzBlock(f *testing.F) {
	for _, pair := range golden {
		var key, value []byte
		if _, err := fmt.Sscanf(pair, "%x = %x", &key, &value); err == nil && key[0] == byte(keyspace.SpaceLog) {
			f.Add(value)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBlock(1, data)
		if err != nil {
			return
		}
		n := uint64(0)
		for _, err := range b.Changes() {
			if err != nil {
				if !errors.Is(err, changelog.ErrCorrupt) {
					t.Error(err)
				}
				return
			}
			if n++; n > uint64(b.Last) {
				t.Fatalf("more than %d changes", b.Last)
			}
		}
		if p, err := parseParked(1, 1, data); err == nil && len(p.Headers) > len(data) {
			t.Error("more headers than bytes")
		}
	})
}

// goldenQueue is what goldenQueueAppend writes of records that are cut or edited and of marks that begin a queue.
var goldenQueue = []string{
	"14000000010000000000000001 = 0204757466380f7061796c6f61642e61667465722e760080bfd606016b017406c801086c736e3a302f3130904e098000000000000004037b7d02780201680276016e00" +
		"03e0c508010200000000000000000000000000000000000000000000000000000000002003616e6e80c8d007026b000101650277",
	"180000000100008000000000000004 = 0201000000000000000175746638",
	"180000000100008000000000000006 = 02020000000000000009736b6970706564",
}

func goldenQueueAppend(s *testStore) changelog.Append {
	p := goldenAppend(s).Parked[0]
	p.Applied = false
	p.Cut = &changelog.ParkedCut{Bytes: 70_000, SHA256: [32]byte{1, 2, 31: 32}}
	p.Edit = &changelog.ParkedEdit{By: "ann", Time: 8_000_000, RecordKey: []byte("k"), Headers: []changelog.Header{{Key: "e", Value: []byte("w")}}}
	return changelog.Append{
		Parked: []changelog.Parked{p},
		Stale: []changelog.StaleMark{
			{Table: s.table, Key: testKey(4), Set: true, Reason: "utf8", Hold: true, Record: 1},
			{Table: s.table, Key: testKey(6), Set: true, Reason: "skipped", First: 9, Skipped: true},
		},
	}
}

// TestGoldenQueue pins the second versions of parked records and stale marks, and reads them back.
func TestGoldenQueue(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	want := goldenQueueAppend(s)
	if _, err := s.Append(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, space := range []keyspace.Space{keyspace.SpaceParked, keyspace.SpaceStale} {
		if err := s.each([]byte{byte(space)}, func(key, value []byte) error {
			got = append(got, fmt.Sprintf("%x = %x", key, value))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, goldenQueue) {
		t.Errorf("stored:\n%q,", strings.Join(got, "\",\n\t\""))
	}
	p, err := s.ParkedGet(t.Context(), 1)
	want.Parked[0].ID = 1
	if err != nil || !reflect.DeepEqual(p, want.Parked[0]) {
		t.Errorf("read back %+v, %v", p, err)
	}
	for n := range len(appendParked(nil, &p)) {
		if _, err := parseParked(1, s.table, appendParked(nil, &p)[:n]); err == nil {
			t.Errorf("the first %d bytes are read as a record", n)
		}
	}
}
