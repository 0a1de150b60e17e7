package logstore

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/state"
)

// TestDiskFull: at the disk limit appends get ErrFull and lose nothing; when what was held can be trimmed, space comes
// free by itself and appends go on, not before.
func TestDiskFull(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.DiskBytes, o.blobAge = 24<<20, time.Second
	o.TrimInterval = time.Hour // only the watcher's call
	s := openTest(t, "d", o)
	ctx := t.Context()
	value := noise()
	next := int64(0)
	full := func() bool { // for good: what Pebble writes twice for a while is not all of it
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		return errors.Is(s.WaitForSpace(short), context.DeadlineExceeded)
	}
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		a := changelog.Append{
			Tables:    []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{s.put(changelog.OpUpdate, next, value, next)}}},
			Positions: []changelog.StreamPosition{{StreamID: testStream, Next: next + 1}},
		}
		if _, err = s.Append(ctx, a); err == nil {
			next++
		} else if !errors.Is(err, ErrFull) || full() {
			break
		}
	}
	if !errors.Is(err, ErrFull) || s.Err() != nil {
		t.Fatalf("after %d appends: %v; health: %v", next, err, s.Err())
	}
	if applied := s.tableNewest(); int64(applied) != next {
		t.Errorf("applied %d, acknowledged %d", applied, next)
	}
	if err := s.reg.UpdateProgress(ctx, s.table, func(p *state.Progress) { p.Flushed = changelog.SeqNum(next) }); err != nil {
		t.Fatal(err)
	}
	long, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := s.WaitForSpace(long); err != nil {
		full, used := s.Full()
		t.Fatalf("%v; full %t, %d bytes used\n%s", err, full, used, s.db.Metrics())
	}
	if got := s.append(next+1, s.put(changelog.OpUpdate, 1, "small", next)); int64(got) != next+1 {
		t.Errorf("seq %d, want %d", got, next+1)
	}
}

// TestTrimFreesSpace: on a full disk what is trimmed comes free though all of it lies in the deepest level and nothing but
// the trim asks for compactions: appends wait.
func TestTrimFreesSpace(t *testing.T) {
	free := &atomic.Int64{}
	free.Store(1 << 40)
	o := testOptions(lowFS{vfs.NewMem(), free})
	o.MinFreeBytes = 1000
	s := openTest(t, "d", o)
	ctx := t.Context()
	before := testRow(s.schema, 1, noise()) // in the log only: the rows are small
	const changes = 300
	for i := range int64(changes) {
		c := s.put(changelog.OpUpdate, i, "small", i)
		c.Before = before
		s.append(i+1, c)
	}
	if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	free.Store(0)
	eventually(t, func() bool { full, _ := s.Full(); return full })
	if err := s.reg.UpdateProgress(ctx, s.table, func(p *state.Progress) { p.Flushed = changes }); err != nil {
		t.Fatal(err)
	}
	s.trimAll(ctx)
	if m := s.db.Metrics(); m.BlobFiles.LiveSize > 1<<20 { // at once: with luck, something else would compact it later
		t.Errorf("%d bytes of blob files after trimming:\n%s", m.BlobFiles.LiveSize, m)
	}
}

// TestReclaimShared: on a full disk what is trimmed comes free also from blob files that hold rows, when nothing else happens.
func TestReclaimShared(t *testing.T) {
	free := &atomic.Int64{}
	free.Store(1 << 40)
	o := testOptions(lowFS{vfs.NewMem(), free})
	o.MinFreeBytes, o.TrimInterval, o.blobAge = 1000, time.Hour, 2*time.Second
	s := openTest(t, "d", o)
	value := noise()[:3000]
	const changes = 100
	for i := range int64(changes) {
		s.append(i+1, s.put(changelog.OpUpdate, i%10, value, i))
	}
	if err := s.db.Flush(); err != nil { // all values to one file
		t.Fatal(err)
	}
	held := s.db.Metrics().BlobFiles
	if held.LiveCount != 1 {
		t.Fatalf("%d blob files", held.LiveCount)
	}
	free.Store(0)
	if err := s.reg.UpdateProgress(t.Context(), s.table, func(p *state.Progress) { p.Flushed = changes }); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); s.db.Metrics().BlobFiles.LiveSize > held.LiveSize/4; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			m := s.db.Metrics()
			t.Fatalf("%d bytes of blob files, of which %d are in use:\n%s", m.BlobFiles.LiveSize, m.BlobFiles.ReferencedValueSize, m)
		}
	}
}

// TestDiskUsed: the space in use is that of the files, also of those that a restart finds, and when these go away.
func TestDiskUsed(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, "d", testOptions(fs))
	value := strings.Repeat("v", 60_000)
	next := int64(0)
	fill := func() {
		for range 100 {
			s.append(next+1, s.put(changelog.OpUpdate, next%10, value, next))
			next++
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		var files, used int64
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			files, used = fileBytes(t, fs), int64(diskUsed(s.db.Metrics()))
			if used > files-files/4 && used < files+files/4 { // the write-ahead log is counted as it was when it was opened
				return
			}
		}
		t.Errorf("%s: %d bytes used, the files have %d", when, used, files)
	}
	fill()
	check("written")
	s.close()
	s = openTest(t, "d", testOptions(fs))
	check("reopened")
	fill()
	check("written after reopening")
	if err := s.reg.UpdateProgress(t.Context(), s.table, func(p *state.Progress) { p.Flushed = changelog.SeqNum(next) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(t.Context(), s.table, changelog.SeqNum(next)); err != nil {
		t.Fatal(err)
	}
	fill()
	check("trimmed")
	if files := fileBytes(t, fs); files > 16<<20 {
		t.Errorf("nothing went away: %d bytes", files)
	}
}

func fileBytes(t *testing.T, fs vfs.FS) (sum int64) {
	t.Helper()
	names, err := fs.List("d")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := fs.Stat(fs.PathJoin("d", name))
		if err != nil {
			continue // it went away meanwhile
		}
		sum += info.Size()
	}
	return sum
}

// noise is a large value that compression in the deepest levels leaves large.
func noise() string {
	b := make([]byte, 30_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return hex.EncodeToString(b)
}

// lowFS tells of a file system with little left.
type lowFS struct {
	vfs.FS
	free *atomic.Int64
}

func (f lowFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(f.free.Load())}, nil
}

// TestFileSystemFull: little space on the file system counts as a full disk, and ends by itself.
func TestFileSystemFull(t *testing.T) {
	free := &atomic.Int64{}
	free.Store(100)
	o := testOptions(lowFS{vfs.NewMem(), free})
	o.MinFreeBytes = 1000
	s := openTest(t, "d", o)
	eventually(t, func() bool { full, _ := s.Full(); return full })
	if _, err := s.Append(t.Context(), s.unit(1)); !errors.Is(err, ErrFull) {
		t.Errorf("append: %v", err)
	}
	free.Store(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.WaitForSpace(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(ctx, s.unit(1)); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("not within 10s")
}

func TestParkedFull(t *testing.T) {
	o := testOptions(vfs.NewMem())
	o.ParkedBytes = 1000
	s := openTest(t, "d", o)
	park := changelog.Append{Parked: []changelog.Parked{{Reason: "utf8", RecordValue: make([]byte, 1200)}}}
	if _, err := s.Append(t.Context(), park); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), park); !errors.Is(err, ErrParkedFull) {
		t.Errorf("second: %v", err)
	}
	if _, err := s.Append(t.Context(), s.unit(1)); err != nil {
		t.Errorf("without parked records: %v", err)
	}
	if err := s.Unpark(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), park); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestWaits: each wait ends when what it waits for is synced, or with the error that its comment names.
func TestWaits(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	ctx := t.Context()
	first := s.put(changelog.OpCreate, 1, "a", 0)
	first.Position.Native = "lsn:0/FF"
	s.append(1, first)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	for name, c := range map[string]struct {
		err, want error
	}{
		"seq":              {second(s.Wait(short, s.table, 1)), context.DeadlineExceeded},
		"no table":         {second(s.Wait(short, 99, 1)), state.ErrNotFound},
		"position":         {s.WaitPosition(short, testStream, 1), context.DeadlineExceeded},
		"position is here": {s.WaitPosition(ctx, testStream, 0), nil},
		"lsn":              {s.WaitNative(short, s.table, "lsn:1/0"), context.DeadlineExceeded},
		"lsn is here":      {s.WaitNative(ctx, s.table, "lsn:0/F0"), nil},
		"unknown kind":     {s.WaitNative(ctx, s.table, "gtid:0-1-5"), ErrUnknown},
		"no position":      {s.WaitNative(ctx, s.table, "5"), ErrUnknown},
	} {
		if !errors.Is(c.err, c.want) || c.want == nil && c.err != nil {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	errs := make(chan error, 4)
	other := changelog.StreamID{Source: "k", Topic: "new"}
	go func() { errs <- second(s.Wait(ctx, s.table, 1)) }()
	go func() { errs <- s.WaitPosition(ctx, testStream, 1) }()
	go func() { errs <- s.WaitPosition(ctx, other, 7) }()
	go func() { errs <- s.WaitNative(ctx, s.table, "lsn:1/0") }()
	time.Sleep(10 * time.Millisecond)
	if _, ok, err := s.Position(other); ok || err != nil {
		t.Errorf("a stream that is only waited for: %t %v", ok, err)
	}
	c := s.put(changelog.OpUpdate, 1, "b", 1)
	c.Position.Native = "lsn:1/2"
	a := changelog.Append{
		Tables:    []changelog.TableAppend{{Table: s.table, Changes: []changelog.Change{c}}},
		Positions: []changelog.StreamPosition{{StreamID: testStream, Next: 2}, {StreamID: other, Next: 8}},
	}
	if _, err := s.Append(ctx, a); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	go func() { errs <- second(s.Wait(ctx, s.table, 2)) }()
	go func() { errs <- s.WaitPosition(ctx, testStream, 2) }()
	time.Sleep(10 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
	if _, err := s.Append(ctx, a); !errors.Is(err, ErrClosed) {
		t.Errorf("append after Close: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestParseNative(t *testing.T) {
	for _, c := range []struct {
		less, more string
		track      string
	}{
		{"lsn:0/FFFFFFFF", "lsn:1/0", "lsn"},
		{"lsn:4294967295", "lsn:1/0", "lsn"},
		{"lsn:00000027:00000758:0005", "lsn:00000027:00000759:0001", "lsn"},
		{"binlog:mysql-bin.000009/999", "binlog:mysql-bin.000010/4", "binlog"},
		{"binlog:mysql-bin.000009/9", "binlog:mysql-bin.000009/10", "binlog"},
		{"gtid:0-1-9", "gtid:0-2-10", "gtid:0"},
		{"gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9", "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:23", "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562"},
		{"scn:9", "scn:10", "scn"},
	} {
		lt, l, lok := parseNative(c.less)
		mt, m, mok := parseNative(c.more)
		if !lok || !mok || lt != c.track || mt != c.track || !l.less(m) || m.less(l) {
			t.Errorf("%s (%s %+v %t) and %s (%s %+v %t)", c.less, lt, l, lok, c.more, mt, m, mok)
		}
	}
	for _, bad := range []string{"", "lsn", "lsn:", "lsn:x/1", "lsn:1:2", "binlog:f/1", "gtid:1", "gtid:a:b"} {
		if track, p, ok := parseNative(bad); ok {
			t.Errorf("%q is read as %s %+v", bad, track, p)
		}
	}
}

// TestRestore: P4. A table that comes from the lake goes on after its last flush, with its rows and positions.
func TestRestore(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, "d", testOptions(fs))
	ctx := t.Context()
	table, err := s.reg.Restore(ctx, state.Table{Name: "shop.old", Schemas: changelog.Schemas{s.schema}},
		state.Progress{Flushed: 1000, Rebuilding: true}, []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "old"}, Next: 500}})
	if err != nil {
		t.Fatal(err)
	}
	rows := func(yield func(RowEntry, error) bool) {
		for i := range int64(20_000) {
			if !yield(RowEntry{Key: testKey(i * 7 % 20_000), Seq: changelog.SeqNum(i%1000 + 1), Row: testRow(s.schema, i*7%20_000, strings.Repeat("r", 100))}, nil) {
				return
			}
		}
	}
	if err := s.PutRows(ctx, table.ID, rows); err != nil {
		t.Fatal(err)
	}
	err = s.PutRows(ctx, table.ID, func(yield func(RowEntry, error) bool) { yield(RowEntry{Key: testKey(1), Seq: 1001}, nil) })
	if err == nil {
		t.Error("a row of the future is restored")
	}
	s.close()
	s = openTest(t, "d", testOptions(fs))
	n := 0
	snap, err := s.Snapshot(ctx, table.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range snap.Rows(nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := snap.Close(); n != 20_000 || snap.Applied != 1000 || err != nil {
		t.Errorf("%d rows, applied %d, %v", n, snap.Applied, err)
	}
	if next, ok, err := s.Position(changelog.StreamID{Source: "k", Topic: "old"}); next != 500 || !ok || err != nil {
		t.Errorf("position %d %t %v", next, ok, err)
	}
	a := changelog.Append{Tables: []changelog.TableAppend{{Table: table.ID, Changes: []changelog.Change{s.put(changelog.OpUpdate, 5, "new", 500)}}}}
	if r, err := s.Append(ctx, a); err != nil || r.Last[table.ID] != 1001 {
		t.Errorf("first append after the restore: %+v %v", r, err)
	}
	for _, err := range s.Scan(ctx, table.ID, 0, 2000) {
		if !errors.Is(err, ErrTrimmed) {
			t.Errorf("scan from 0: %v", err)
		}
		break
	}
}

// TestSnapshotPrefix: rows by leading key bytes, from a cursor.
func TestSnapshotPrefix(t *testing.T) {
	s := openTest(t, "d", testOptions(vfs.NewMem()))
	var changes []changelog.Change
	for i := range int64(600) {
		changes = append(changes, s.put(changelog.OpCreate, i, "v", i))
	}
	s.append(600, changes...)
	snap, err := s.Snapshot(t.Context(), s.table)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	s.append(601, s.put(changelog.OpDelete, 258, "", 600)) // after the view
	prefix := testKey(256)[:7]                             // 256 to 511
	for _, c := range []struct {
		prefix, after changelog.Key
		first, n      int64
	}{{nil, nil, 0, 600}, {prefix, nil, 256, 256}, {prefix, testKey(257), 258, 254}, {prefix, testKey(3), 256, 256}, {prefix, testKey(511), 0, 0}, {nil, testKey(598), 599, 1}} {
		n, first := int64(0), int64(-1)
		for e, err := range snap.Rows(c.prefix, c.after) {
			if err != nil {
				t.Fatal(err)
			}
			if v, err := s.schema.KeyValues(e.Key); n == 0 && err == nil {
				first = v[0].I
			}
			n++
		}
		if n != c.n || n > 0 && first != c.first {
			t.Errorf("prefix %s after %s: %d rows from %d, want %d from %d", c.prefix, c.after, n, first, c.n, c.first)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	o := testOptions(vfs.NewMem())
	o.Registerer = reg
	s := openTest(t, "d", o)
	a := s.unit(3)
	a.Parked = append(a.Parked, changelog.Parked{Reason: "topic_unrouted"})
	if _, err := s.Append(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := s.reg.UpdateProgress(t.Context(), s.table, func(p *state.Progress) { p.Flushed, p.Optimized = 2, 1 }); err != nil {
		t.Fatal(err)
	}
	got := gathered(t, reg)
	for name, want := range map[string]float64{
		"firn_table_seq{applied,shop.orders}": 2, "firn_table_seq{flushed,shop.orders}": 2, "firn_table_seq{optimized,shop.orders}": 1,
		"firn_parked_records{int_range,shop.orders}": 1, "firn_parked_records{topic_unrouted,}": 1,
		"firn_log_changes_total{}": 2, "firn_log_batches_total{}": 1, "firn_log_full{}": 0,
	} {
		if v, ok := got[name]; v != want || !ok {
			t.Errorf("%s is %v %t, want %v", name, v, ok, want)
		}
	}
	if got["firn_pebble_memtables{}"] < 1 {
		t.Error("no memtables")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := gathered(t, reg); len(left) != 0 {
		t.Errorf("after Close: %v", left)
	}
}

func TestOptions(t *testing.T) {
	var o Options
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	bad := Options{MemoryBytes: 1, MaxBatchBytes: 1, DiskBytes: -1, ParkedBytes: -1, Retention: Retention{Time: -1, Bytes: -1}, MovedRetention: -1}
	err := bad.Validate()
	for _, name := range []string{"MemoryBytes", "MaxBatchBytes", "DiskBytes", "ParkedBytes", "Retention.Time", "Retention.Bytes", "MovedRetention"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not reported: %v", name, err)
		}
	}
	if _, err := OpenDB("d", bad); err == nil {
		t.Error("a DB opens with bad options")
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		pressure float64
		want     time.Duration
	}{{0, 0}, {0.5, 0}, {0.75, 20 * time.Millisecond}, {1, 80 * time.Millisecond}, {9, 320 * time.Millisecond}} {
		if got := pace(c.pressure); got != c.want {
			t.Errorf("pace at %v is %v, want %v", c.pressure, got, c.want)
		}
	}
}
