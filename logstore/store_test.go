package logstore

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"firn/changelog"
	"firn/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testSchema is (id long key, v string).
func testSchema(tb testing.TB) *changelog.Schema {
	tb.Helper()
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)}, {Name: "v", Type: changelog.Primitive(changelog.String)},
	}, []string{"id"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func testKey(id int64) changelog.Key {
	return changelog.AppendKey(nil, []*changelog.Type{changelog.Primitive(changelog.Long)}, []changelog.Value{{I: id}})
}

func testRow(s *changelog.Schema, id int64, v string) changelog.Row {
	return changelog.AppendRow(nil, s, []changelog.Value{{I: id}, {B: []byte(v)}})
}

// testOptions are those of tests: a disk in memory, nothing happens by itself.
func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, MemoryBytes: 16 << 20, MinFreeBytes: -1, TrimInterval: -1}
}

// testStore is an open Store with one table.
type testStore struct {
	*Store
	tb     testing.TB
	db     *DB
	reg    *state.Registry
	schema *changelog.Schema
	table  changelog.TableID
	open   bool
}

func openTest(tb testing.TB, dir string, o Options) *testStore {
	tb.Helper()
	s, err := tryOpen(tb, dir, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.close)
	return s
}

func tryOpen(tb testing.TB, dir string, o Options) (*testStore, error) {
	tb.Helper()
	db, err := OpenDB(dir, o)
	if err != nil {
		return nil, err
	}
	reg, err := state.OpenRegistry(db.DB)
	if err != nil {
		db.Close()
		return nil, err
	}
	s := &testStore{tb: tb, db: db, reg: reg, open: true}
	t, ok := reg.Table("shop.orders")
	if !ok {
		if t, err = reg.Create(context.Background(), "shop.orders", testSchema(tb), state.TopicRef{Source: "k", Topic: "t"}, nil); err != nil {
			db.Close()
			return nil, err
		}
	}
	s.schema, s.table = t.Schema(), t.ID
	if s.Store, err = Open(db, reg, o); err != nil {
		db.Close()
		return nil, err
	}
	return s, nil
}

func (s *testStore) close() {
	if !s.open {
		return
	}
	s.open = false
	if err := s.Close(); err != nil && s.Err() == nil {
		s.tb.Errorf("close store: %v", err)
	}
	if err := s.db.Close(); err != nil && s.Err() == nil {
		s.tb.Errorf("close db: %v", err)
	}
}

var testStream = changelog.StreamID{Source: "k", Topic: "t"}

// put is the change that sets the row of id at an offset.
func (s *testStore) put(op changelog.Op, id int64, v string, offset int64) changelog.Change {
	c := changelog.Change{Op: op, Key: testKey(id), Position: changelog.Position{Source: "k", Topic: "t", Offset: offset}}
	if op != changelog.OpDelete {
		c.After = testRow(s.schema, id, v)
	}
	return c
}

func (s *testStore) append(next int64, changes ...changelog.Change) changelog.SeqNum {
	s.tb.Helper()
	a := changelog.Append{
		Tables:    []changelog.TableAppend{{Table: s.table, Changes: changes}},
		Positions: []changelog.StreamPosition{{StreamID: testStream, Next: next}},
	}
	r, err := s.Append(context.Background(), a)
	if err != nil {
		s.tb.Fatal(err)
	}
	return r.Last[s.table]
}

func (s *testStore) text(r changelog.Row) string {
	s.tb.Helper()
	if r == nil {
		return "-"
	}
	v, err := changelog.AppendValues(nil, s.schema, r)
	if err != nil {
		s.tb.Fatal(err)
	}
	return fmt.Sprintf("%d=%s", v[0].I, v[1].B)
}

func TestAppendAndRead(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, "d", testOptions(fs))
	ctx := t.Context()
	if got := s.append(3, s.put(changelog.OpCreate, 7, "a", 0), s.put(changelog.OpUpdate, 7, "b", 1), s.put(changelog.OpCreate, 8, "c", 2)); got != 3 {
		t.Fatalf("last seq %d, want 3", got)
	}
	s.append(4, s.put(changelog.OpDelete, 8, "", 3))
	check := func(s *testStore) {
		t.Helper()
		for _, c := range []struct {
			id    int64
			seq   changelog.SeqNum
			found bool
			text  string
		}{{7, 2, true, "7=b"}, {8, 4, false, "-"}, {9, 0, false, "-"}} {
			v, err := s.Row(ctx, s.table, testKey(c.id))
			if err != nil {
				t.Fatal(err)
			}
			if v.Seq != c.seq || v.Found != c.found || s.text(v.Row) != c.text || v.Applied != 4 {
				t.Errorf("row %d: %+v %s, want %+v", c.id, v, s.text(v.Row), c)
			}
		}
		var got []string
		for c, err := range s.Scan(ctx, s.table, 1, 4) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%d %s %s@%d", c.Seq, c.Op, s.text(c.After), c.Position.Offset))
		}
		if want := "[2 u 7=b@1 3 c 8=c@2 4 d -@3]"; fmt.Sprint(got) != want {
			t.Errorf("scan: %v, want %s", got, want)
		}
		next, ok, err := s.Position(testStream)
		if next != 4 || !ok || err != nil {
			t.Errorf("position %d %t %v, want 4", next, ok, err)
		}
	}
	check(s)
	s.close()
	check(openTest(t, "d", testOptions(fs)))
}

func nopLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func fixedNow() time.Time { return time.UnixMicro(8_000_000) }
