// Package interop holds the matrix of table shapes: what firn makes of random histories, read by firn, by a second reader written
// from the format's specification, by foreign engines, and kept in a model in memory. README.md tells how to run it.
package interop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What run.sh says. Without it go test runs a few cells of one seed, and asks no foreign readers.
var (
	size    = os.Getenv("INTEROP_SIZE")                      // small, default or full; empty: a few of small
	only    = regexp.MustCompile(os.Getenv("INTEROP_CELLS")) // cells whose line matches
	seeds   = os.Getenv("INTEROP_SEEDS")                     // such as 1-5, or 3
	foreign = strings.Fields(os.Getenv("INTEROP_READERS"))   // names of readers, and amoro
	absent  = strings.Fields(os.Getenv("INTEROP_ABSENT"))    // those that cannot be had here
)

// groupRuns is how many tables share a catalog, and a process of each foreign reader.
const groupRuns = 100

func chosen() []cell {
	all := cells(size)
	if size == "" {
		small := cells("small")
		for i := 1; i < len(small); i += 7 {
			all = append(all, small[i])
		}
	}
	return slices.DeleteFunc(all, func(c cell) bool { return !only.MatchString(c.String()) })
}

func chosenSeeds(t *testing.T) (first, last uint64) {
	if seeds == "" {
		return 1, 1
	}
	from, to, ranged := strings.Cut(seeds, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 32)
	last, err2 := strconv.ParseUint(to, 10, 32)
	if err1 != nil || err2 != nil || first < 1 || last < first {
		t.Fatalf("INTEROP_SEEDS=%q: want such as 1-5, or 3", seeds)
	}
	return first, last
}

// TestMatrix runs the cells, and prints a line a cell where run.sh asks for more than go test does.
func TestMatrix(t *testing.T) {
	first, last := chosenSeeds(t)
	all := chosen()
	if len(all) == 0 {
		t.Fatal("no cell matches")
	}
	m := &matrix{start: time.Now(), peers: must(filepath.Abs("../peers"))}
	per := max(1, groupRuns/int(last-first+1)) //nolint:gosec // small
	for group := range slices.Chunk(all, per) {
		m.group(t, group, first, last)
	}
	if size == "" {
		return
	}
	for _, u := range unfit {
		fmt.Printf("SKIP  key=%s: %s\n", u[0], u[1])
	}
	fmt.Printf("total: %d cells, %d runs, %d comparisons, %d red, %d skipped, %.0f s; read by %s\n",
		len(all), m.runs, m.steps, m.red, m.skipped, time.Since(m.start).Seconds(), m.readers())
}

type matrix struct {
	start                     time.Time
	peers                     string // the directory deploy/peers
	runs, steps, red, skipped int
	good                      map[string]int
}

// result is what became of the runs of a cell.
type result struct {
	outcomes
	runs, steps, rows int
	unfit             error
}

// group runs cells in a lake of their own, asks the foreign readers, and reports.
func (m *matrix) group(t *testing.T, group []cell, first, last uint64) {
	t.Helper()
	dir := tempDir(t)
	l := openLake(t.Context(), dir)
	results := make([]result, len(group))
	var runs []*history
	of := map[*history]*result{}
	for i, c := range group {
		res := &results[i]
		res.good, res.cannot = map[string]int{}, map[string]string{}
		for seed := first; seed <= last; seed++ {
			h, err := run(t.Context(), l, c, seed, fmt.Sprintf("m.t%d_%d", i, seed))
			switch {
			case errors.Is(err, errUnfit):
				res.unfit = err
				continue
			case err != nil:
				res.bad = append(res.bad, fmt.Sprintf("seed %d, partitioned by %q: %v", seed, c.variant(seed), err))
				continue
			}
			res.runs, res.steps, res.rows = res.runs+1, res.steps+h.steps, res.rows+len(h.want(h.flushed))
			of[h] = res
			runs = append(runs, h)
		}
	}
	ask(t.Context(), m.peers, dir, runs, func(name, outcome string, h *history) { of[h].add(name, outcome, h) })
	for i, c := range group {
		m.report(t, c, &results[i])
	}
	if err := errors.Join(l.close(), os.RemoveAll(dir)); err != nil {
		t.Error(err)
	}
}

// ask has all foreign readers read the runs, two readers at a time.
func ask(ctx context.Context, peers, dir string, runs []*history, add func(name, outcome string, h *history)) {
	slots := make(chan struct{}, 2)
	var all sync.WaitGroup
	for _, r := range readers(peers) {
		if !slices.Contains(foreign, r.name) || len(runs) == 0 {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r.ask(ctx, dir, runs, func(h *history, outcome string) { add(r.name, outcome, h) })
		})
	}
	all.Wait()
	if slices.Contains(foreign, "amoro") && len(runs) > 0 {
		amoro(ctx, peers, runs, func(h *history, outcome string) { add("amoro", outcome, h) })
	}
}

// report prints the line of a cell; what is red is told at once, and fails the test.
func (m *matrix) report(t *testing.T, c cell, r *result) {
	t.Helper()
	m.runs, m.steps = m.runs+r.runs, m.steps+r.steps
	verdict := "ok"
	switch {
	case len(r.bad) > 0:
		verdict = "RED"
		m.red++
	case r.unfit != nil:
		verdict = "SKIP"
		m.skipped++
	}
	if m.good == nil {
		m.good = map[string]int{}
	}
	var read []string
	for _, name := range slices.Sorted(maps.Keys(r.good)) {
		read = append(read, fmt.Sprintf("%s %d", name, r.good[name]))
		m.good[name] += r.good[name]
	}
	for _, name := range slices.Sorted(maps.Keys(r.cannot)) {
		read = append(read, fmt.Sprintf("%s cannot: %s", name, r.cannot[name]))
	}
	for _, name := range absent {
		read = append(read, name+" SKIPPED")
	}
	if r.unfit != nil {
		read = append(read, r.unfit.Error())
	}
	if size != "" {
		fmt.Printf("%-4s  %-50s %d runs, %d comparisons, %d rows; %s\n", verdict, c, r.runs, r.steps, r.rows, strings.Join(read, ", "))
	}
	for _, why := range r.bad {
		t.Errorf("%s: %s", c, why)
		if size != "" {
			fmt.Println("      " + why)
		}
	}
}

func (m *matrix) readers() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.good)) {
		out = append(out, fmt.Sprintf("%s %d", name, m.good[name]))
	}
	for _, name := range absent {
		out = append(out, fmt.Sprintf("%s SKIPPED (all %d runs)", name, m.runs))
	}
	if len(out) == 0 {
		return "no foreign reader"
	}
	return strings.Join(out, ", ")
}

// tempDir is a directory in memory where there is one.
func tempDir(tb testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "firn-interop-*") //nolint:usetesting // not the test's own directory: memory
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// run plays one history and returns what went wrong.
func run(ctx context.Context, l *lake, c cell, seed uint64, name string) (h *history, err error) {
	defer func() {
		if r := recover(); r != nil {
			if e, ok := r.(error); ok && os.Getenv("INTEROP_TRACE") == "" {
				err = e
				return
			}
			panic(r)
		}
	}()
	h = newHistory(ctx, l, c, seed, name)
	h.play()
	return h, nil
}
