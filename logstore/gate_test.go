package logstore

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
)

// TestGate: while the instance opens no compaction runs, though the flush of the replayed log asks for some; once it is
// open they do run, until nothing is left to do, and so do those of later flushes.
func TestGate(t *testing.T) {
	disk := vfs.NewCrashableMem()
	o := testOptions(disk)
	s := openTest(t, "d", o)
	s.db.gate.mu.Lock() // as if it were not released: files pile up in level 0
	s.db.gate.mu.open = false
	s.db.gate.mu.Unlock()
	next := int64(0)
	fill := func(s *testStore) {
		t.Helper()
		changes := make([]changelog.Change, 0, 200)
		for i := range 200 {
			changes = append(changes, s.put(changelog.OpUpdate, int64(i), string(make([]byte, 500)), next))
			next++
		}
		s.append(next, changes...)
	}
	for range 8 {
		fill(s)
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	fill(s) // stays in the write-ahead log
	if m := s.db.Metrics(); m.Levels[0].TablesCount < 8 || m.Compact.Count != 0 {
		t.Fatalf("level 0 has %d files after %d compactions", m.Levels[0].TablesCount, m.Compact.Count)
	}
	o.FS = disk.CrashClone(vfs.CrashCloneCfg{})
	s.db.gate.mu.Lock()
	s.db.gate.mu.open = true // so that Close finds it as it expects
	s.db.gate.mu.Unlock()
	s.close()

	ran := 0 // before the release
	g := newGate()
	p := PebbleOptions(o, nopLogger())
	p.Experimental.CompactionScheduler = g
	p.EventListener = &pebble.EventListener{CompactionBegin: func(pebble.CompactionInfo) { ran++ }}
	db, err := pebble.Open("d", p)
	if err != nil {
		t.Fatal(err)
	}
	if m := db.Metrics(); ran != 0 || m.Compact.Count != 0 || m.Levels[0].TablesCount < 9 {
		t.Errorf("while opening: %d compactions began, %d ran, level 0 has %d files", ran, m.Compact.Count, m.Levels[0].TablesCount)
	}
	g.release()
	rest(t, db, "after opening")
	if m := db.Metrics(); m.Compact.Count == 0 {
		t.Error("no compaction ran after opening")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	s = openTest(t, "d", o)
	before := s.db.Metrics().Compact.Count
	for range 8 {
		fill(s)
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	rest(t, s.db.DB, "after later flushes")
	if n := s.db.Metrics().Compact.Count; n == before {
		t.Error("no compaction ran after later flushes")
	}
}

// rest waits until level 0 is small and nothing runs.
func rest(t *testing.T, db *pebble.DB, when string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m := db.Metrics(); m.Levels[0].TablesCount < 4 && m.Compact.NumInProgress == 0 {
			return
		}
	}
	t.Errorf("%s, after 10s:\n%s", when, db.Metrics())
}
