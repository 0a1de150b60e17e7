package keyspace_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"firn/changelog"
	"firn/state/keyspace"
)

// TestGoldenKeys pins the bytes of every key: they are on users' disks.
func TestGoldenKeys(t *testing.T) {
	key := changelog.Key("k\x00y")
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"meta", keyspace.Meta(nil, "format"), "01666f726d6174"},
		{"table", keyspace.Table(nil, keyspace.SpaceTable, 0x01020304), "0201020304"},
		{"progress", keyspace.Shard(nil, keyspace.SpaceProgress, 5, 6), "03000000050006"},
		{"source", keyspace.Source(nil, changelog.StreamID{Source: "s", Topic: "a\x00b", Partition: 7}), "04" + "730001" + "6100ff620001" + "00000007"},
		{"log", keyspace.Log(nil, 5, 6, 0x0102030405060708), "100000000500060102030405060708"},
		{"row", keyspace.Row(nil, 5, 6, key), "110000000500066b0079"},
		{"position", keyspace.Position(nil, 5, 6, key), "120000000500066b0079"},
		{"position file", keyspace.PositionFile(nil, 5, 6, 9), "130000000500060000000000000009"},
		{"parked", keyspace.Parked(nil, 5, 9), "14000000050000000000000009"},
		{"parked key", keyspace.ParkedKey(nil, 5, key, 9), "1500000005" + "6b00ff790001" + "0000000000000009"},
		{"parked count", keyspace.ParkedCount(nil, 5, "utf8"), "160000000575746638"},
		{"moved", keyspace.Moved(nil, 5, 6, key, "lsn:1"), "17000000050006" + "6b00ff790001" + "6c736e3a31"},
		{"stale", keyspace.Stale(nil, 5, 6, key), "180000000500066b0079"},
		{"consumer", keyspace.Consumer(nil, 5, "web"), "1900000005776562"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestParse: each key says what it was made of, and nothing else is read as one.
func TestParse(t *testing.T) {
	for _, id := range []changelog.StreamID{{}, {Source: "s", Topic: "t", Partition: -1}, {Source: "a\x00", Topic: "\x00\x01\xff", Partition: 1 << 30}} {
		if got, err := keyspace.Stream(keyspace.Source(nil, id)); got != id || err != nil {
			t.Errorf("stream %q: %q, %v", id, got, err)
		}
	}
	if seq, err := keyspace.LogSeq(keyspace.Log(nil, 1, 2, 77)); seq != 77 || err != nil {
		t.Errorf("log: %d, %v", seq, err)
	}
	if k, err := keyspace.KeyOf(keyspace.Row(nil, 1, 2, changelog.Key("pk"))); string(k) != "pk" || err != nil {
		t.Errorf("row: %q, %v", k, err)
	}
	if n, err := keyspace.PositionFileNumber(keyspace.PositionFile(nil, 1, 2, 77)); n != 77 || err != nil {
		t.Errorf("position file: %d, %v", n, err)
	}
	if table, id, err := keyspace.ParkedID(keyspace.Parked(nil, 1, 77)); table != 1 || id != 77 || err != nil {
		t.Errorf("parked: %d %d, %v", table, id, err)
	}
	if id, err := keyspace.ParkedKeyID(keyspace.ParkedKey(nil, 1, nil, 77)); id != 77 || err != nil {
		t.Errorf("parked key: %d, %v", id, err)
	}
	if table, reason, err := keyspace.ParkedCountOf(keyspace.ParkedCount(nil, 1, "utf8")); table != 1 || reason != "utf8" || err != nil {
		t.Errorf("parked count: %d %s, %v", table, reason, err)
	}
	if name, err := keyspace.ConsumerName(keyspace.Consumer(nil, 1, "c")); name != "c" || err != nil {
		t.Errorf("consumer: %s, %v", name, err)
	}
	for _, bad := range [][]byte{nil, {0x04}, {0x10}, {0x04, 's', 0, 1, 't', 0, 1, 0}, {0x04, 's', 0, 2}, {0x14, 1}, {0x15, 1}, {0x16}, {0x19}, {0x13, 0}} {
		_, e1 := keyspace.Stream(bad)
		_, e2 := keyspace.LogSeq(bad)
		_, _, e3 := keyspace.ParkedID(bad)
		_, e4 := keyspace.ParkedKeyID(bad)
		_, _, e5 := keyspace.ParkedCountOf(bad)
		_, e6 := keyspace.ConsumerName(bad)
		_, e7 := keyspace.PositionFileNumber(bad)
		_, e8 := keyspace.KeyOf(bad)
		for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8} {
			if err == nil {
				t.Errorf("parser %d takes %x", i, bad)
			}
		}
	}
}

// TestEnd: the bound is above every key with the prefix and not above the next one.
func TestEnd(t *testing.T) {
	for _, c := range []struct{ prefix, want string }{
		{"04", "05"}, {"1000000001", "1000000002"}, {"10000000ff", "1000000100"[:8]}, {"10ffffffff", "11"}, {"10ffffffffffff", "11"},
	} {
		prefix, _ := hex.DecodeString(c.prefix)
		got := keyspace.End([]byte("x"), prefix)
		if hex.EncodeToString(got[1:]) != c.want {
			t.Errorf("end of %s: %x, want %s", c.prefix, got[1:], c.want)
		}
		if bytes.Compare(append(prefix, 0xff, 0xff), got[1:]) >= 0 {
			t.Errorf("end of %s is %x: not above its keys", c.prefix, got[1:])
		}
	}
}

// TestSpacesAreApart: no two spaces share their byte, and dropping a table leaves meta and sources.
func TestSpacesAreApart(t *testing.T) {
	seen := map[keyspace.Space]bool{keyspace.SpaceMeta: true, keyspace.SpaceSource: true}
	for _, s := range keyspace.TableSpaces() {
		if seen[s] || s == 0xff {
			t.Errorf("space %#x is there twice, or has no end", s)
		}
		seen[s] = true
	}
}
