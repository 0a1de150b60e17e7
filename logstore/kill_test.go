package logstore

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"firn/changelog"
)

// killDir tells the process that it is the child of a kill test: where to write. killFill tells it to write the given
// MiB of log before it says so.
const (
	killDir  = "FIRN_TEST_KILL_DIR"
	killFill = "FIRN_TEST_KILL_FILL"
)

// TestKillChild is no test but what the children of TestKill and TestReopen run until they are killed.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("runs in a child process only")
	}
	o := Options{MemoryBytes: 16 << 20, TrimInterval: -1}
	if fill := os.Getenv(killFill); fill != "" {
		mib, err := strconv.ParseInt(fill, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		fillLog(t, openTest(t, dir, benchOptions(256<<20)), mib<<20)
		return
	}
	s := openTest(t, dir, o)
	next, _, err := s.Position(testStream)
	if err != nil {
		t.Fatal(err)
	}
	for i := int(next/2) + 1; ; i++ {
		if _, err := s.Append(context.Background(), s.unit(i)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stdout, "acked", i)
	}
}

// fillLog appends 600 B rows of 2 M keys until the log has the bytes, says so, and goes on.
func fillLog(t *testing.T, s *testStore, bytes int64) {
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]changelog.Row, 1024)
	for i := range rows {
		rows[i] = benchRow(s.schema, rng, int64(i), 600)
	}
	changes := make([]changelog.Change, 1000)
	for next := int64(0); ; next += 1000 {
		for i := range changes {
			changes[i] = s.put(changelog.OpUpdate, rng.Int64N(2_000_000), "", next+int64(i))
			changes[i].After = rows[rng.IntN(len(rows))]
		}
		s.append(next+1000, changes...)
		if held, err := s.LogBytes(s.table); err != nil {
			t.Fatal(err)
		} else if held > bytes {
			fmt.Fprintln(os.Stdout, "acked", next+1000)
		}
	}
}

// child starts TestKillChild on dir. acked receives the numbers that it says were acknowledged.
func child(t *testing.T, dir string, env ...string) (acked <-chan int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillChild$", "-test.timeout=0") // killed below
	cmd.Env = append(append(os.Environ(), killDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ch := make(chan int, 1)
	go func() {
		defer close(ch)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
				i, err := strconv.Atoi(n)
				if err != nil {
					t.Error(err)
				}
				ch <- i
			}
		}
	}()
	return ch, func() {
		_ = cmd.Process.Kill()
		for range ch { // what it said before it died
		}
		_ = cmd.Wait()
	}
}

// TestKill kills a writing process (SIGKILL) at random moments, on a real disk: all that it said is acknowledged is
// there, whole.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for round := range 4 {
		acked, kill := child(t, dir)
		last := <-acked
		for end := time.Now().Add(time.Duration(rng.IntN(400)) * time.Millisecond); time.Now().Before(end); {
			last = max(last, <-acked)
		}
		kill()
		o := Options{MemoryBytes: 16 << 20, TrimInterval: -1}
		s, err := tryOpen(t, dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.checkUnits(t); n < last {
			t.Errorf("round %d: %d units, %d acknowledged", round, n, last)
		}
		s.close()
	}
}

// TestReopen measures the time from the start of Open after a SIGKILL to the first answer. FIRN_TEST_REOPEN_MIB is the
// size of the log; it is skipped without.
func TestReopen(t *testing.T) {
	mib := os.Getenv("FIRN_TEST_REOPEN_MIB")
	if mib == "" {
		t.Skip("FIRN_TEST_REOPEN_MIB is not set")
	}
	dir := t.TempDir()
	acked, kill := child(t, dir, killFill+"="+mib)
	last := 0
	for range 20 {
		last = <-acked
	}
	kill()
	cpu, begin := cpuSeconds(), time.Now()
	s := openTest(t, dir, benchOptions(256<<20))
	opened := time.Since(begin)
	if _, err := s.Row(t.Context(), s.table, testKey(1)); err != nil {
		t.Fatal(err)
	}
	first, cpuFirst := time.Since(begin), cpuSeconds()-cpu
	begin = time.Now()
	s.append(int64(last), s.put(changelog.OpUpdate, 1, "x", int64(last)))
	m := s.db.Metrics()
	t.Logf("%d changes; open %v, first answer %v (CPU %.2fs), first append %v; disk %d MiB, L0 files %d, debt %d MiB",
		s.tableNewest(), opened, first, cpuFirst, time.Since(begin), m.DiskSpaceUsage()>>20, m.Levels[0].TablesCount, m.Compact.EstimatedDebt>>20)
	if s.tableNewest() <= changelog.SeqNum(last) {
		t.Errorf("newest %d, acknowledged %d", s.tableNewest(), last)
	}
}
