package logstore

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/state"
)

// TestRowCount: the count follows the rows, deletes included, is not repeated while nothing changes, and rests for many
// times what it took.
func TestRowCount(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	count := func() int64 {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // on a busy machine a count may outlast the patience
			n, known, err := s.RowCount(t.Context(), s.table)
			if err != nil {
				t.Fatal(err)
			}
			log := must(s.Store.table(s.table))
			log.count.Lock()
			fresh := known && log.count.at == log.newest()
			log.count.Unlock()
			if fresh {
				return n
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("not counted")
		return 0
	}
	if n := count(); n != 0 {
		t.Errorf("empty table: %d", n)
	}
	for id := range int64(10) {
		s.append(id+1, s.put(changelog.OpCreate, id, "v", id))
	}
	s.append(11, s.put(changelog.OpUpdate, 3, "w", 10))
	s.append(12, s.put(changelog.OpDelete, 4, "", 11))
	if n := count(); n != 9 {
		t.Errorf("%d rows, want 9", n)
	}
	log := must(s.Store.table(s.table))
	ended := log.count.ended
	if n := count(); n != 9 || !log.count.ended.Equal(ended) {
		t.Errorf("%d rows; counted again though nothing has changed", n)
	}
	log.count.took = time.Hour // as that of a very large table
	s.append(13, s.put(changelog.OpDelete, 5, "", 12))
	if n, known, err := s.RowCount(t.Context(), s.table); err != nil || !known || n != 9 || !log.count.ended.Equal(ended) {
		t.Errorf("%d, %t, %v; counted again without a rest", n, known, err)
	}
	if _, _, err := s.RowCount(t.Context(), 99); !errors.Is(err, state.ErrNotFound) {
		t.Error(err)
	}
	log.count.took = 0
	s.close()
	if _, _, err := s.RowCount(t.Context(), s.table); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
