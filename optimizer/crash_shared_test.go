package optimizer

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/optimizer/amorotest"
)

// shared is a table to which somebody else has committed since firn looked.
type shared struct {
	name  string
	parts []string
	lucky bool
	// prepare makes the commits. All else that happens is firn's, and is crashed.
	prepare func(w *world)
	mends   bool
}

// never is a point that is not reached.
const never = 1 << 30

func put(a int64, v string) op { return op{a: a, b: "x", v: v} }

// sharedTables are what the other may have done.
func sharedTables() []shared {
	revived := func(w *world) { // TestRevived
		w.flush(put(1, "a1"), put(2, "b2"), put(5, "a5"), put(7, "b7"))
		w.once(Minor)
		w.flush(put(3, "a3"), put(6, "b6"), put(8, "b8"))
		w.once(Minor)
		round := w.planned(w.amoro(1<<20, true))
		w.flush(put(1, ""), put(2, "a2"), put(6, "b7"))
		w.once(Minor)
		w.committed(round)
	}
	return []shared{
		{"revived", nil, false, revived, true},
		{"revived, some unsynced data survives", nil, true, revived, true},
		{"revived in partitions", []string{"truncate(1, v)"}, false, revived, true},
		{"delete misses rewritten", nil, false, func(w *world) { // TestDeleteMissesRewritten
			w.flush(put(1, "1"), put(2, "2"), put(3, "3"))
			w.once(Minor)
			w.flush(put(4, "4"))
			w.once(Minor)
			w.flush(put(1, ""), put(2, "new"))
			round := w.planned(w.amoro(0, false))
			w.once(Full)
			w.committed(round)
		}, true},
		{"sequence back", nil, false, func(w *world) { // TestSequenceBack
			w.flush(put(1, "1"), put(2, "2"), put(3, "3"))
			w.once(Minor)
			w.flush(put(2, "new"), put(4, "4"))
			round := w.read(w.planned(w.amoro(0, false)))
			w.flush(put(1, ""), put(2, "newer"), put(4, ""), put(3, "new"))
			w.once(Minor)
			w.repeated(round)
		}, true},
		{"sequence back only", []string{"truncate(1, v)"}, false, func(w *world) {
			w.flush(put(1, "a1"), put(2, "b2"))
			w.once(Minor)
			w.flush(put(1, "a2"))
			round := w.read(w.planned(w.amoro(0, false)))
			w.flush(put(2, "b3"))
			w.once(Minor)
			w.repeated(round)
		}, true},
		{"clean rounds", nil, false, func(w *world) {
			w.flush(put(1, "1"), put(2, "2"), put(3, "3"))
			w.once(Minor)
			for i, o := range []op{put(1, ""), put(2, "new"), put(6, "6")} {
				w.flush(o, put(3, strings.Repeat("3", i+2)))
				w.committed(w.planned(w.amoro([]int64{0, 1 << 20}[i%2], false)))
			}
		}, false},
		{"query engine", nil, false, func(w *world) {
			w.flush(many("1")...)
			w.once(Minor)
			w.flush(put(8, "8"), put(9, "9"))
			w.once(Minor)
			w.foreignRows()
		}, false},
		{"rolled back", nil, false, func(w *world) {
			w.options.Rules.Sequence = table.SequencePuffin
			w.open()
			w.flush(many("1")...)
			w.once(Minor)
			w.flush(put(1, ""), put(4, "4"))
			w.once(Minor)
			first := w.table().Base().SnapshotID()
			w.flush(put(2, "new"), put(4, ""))
			w.once(Minor)
			w.setHead(first)
			w.back = true
		}, false},
	}
}

// foreignRows deletes a row of one data file and puts another row in the place of the other file, as an engine does; the model knows.
func (w *world) foreignRows() {
	w.Helper()
	t := w.table()
	s := t.Schemas().Current()
	c := table.BaseCommit{ID: "engine"}
	last := t.Optimized()[""]
	forget := func(path string, row int64) {
		w.eachRow(path, s, false, func(key, _ string, _ changelog.Key, _, at int64) {
			if at == row {
				delete(w.model, key)
				delete(w.history[last], key)
			}
		})
	}
	files := w.live(table.Data)
	if len(files) != 2 {
		w.Fatalf("%d data files", len(files))
	}
	slices.SortFunc(files, func(a, b table.File) int { return int(b.Records - a.Records) })
	sets := map[string]*rowSet{files[0].Path: {}}
	sets[files[0].Path].add(1)
	forget(files[0].Path, 1)
	out := newOutputs(w.catalog.FS(), t.Base(), s, w.opt.files, 1<<20)
	w.must(out.writeDeletes("", mixed.TreeNode{}, 1, sets))
	f := out.files[0]
	c.AddDeletes = []table.NewFile{{Path: f.path, Rows: f.Rows, Bytes: f.Bytes, Footer: f.Metadata}}
	w.eachRow(files[1].Path, s, false, func(key, _ string, _ changelog.Key, _, _ int64) {
		delete(w.model, key)
		delete(w.history[last], key)
	})
	added := put(8, "new")
	c.Remove = files[1:]
	c.Add = []table.NewFile{w.write(t.Base(), s, mixed.Base, mixed.TreeNode{}, last, false, 1, func(int) ([]changelog.Value, int64) { return added.values(s), 0 })}
	key, row := text(s, added.values(s))
	w.model[key], w.history[last][key] = row, row
	_, err := t.CommitBase(w.ctx(), c)
	w.must(err)
}

// many is rows of many keys.
func many(v string) (ops []op) {
	for i := range int64(8) {
		ops = append(ops, put(i, v))
	}
	return ops
}

// TestCrashShared cuts the power at points of what firn does after somebody else's commits: checking and mending them, moving the
// position index over them, one at a time or at once, and the merge that follows. After a restart firn finds the same again, or finds it done.
// FIRN_CRASH_SHARED=all takes every point, minutes long; else each table has its share of those that all have.
func TestCrashShared(t *testing.T) {
	rare := map[string]int{
		"before commit": 4, "after commit": 4, "written": 3, "committed": 3, "indexed": 3, "moved": 2,
		"pebble": 7 * sweep, "lake": 41 * sweep,
	}
	all := os.Getenv("FIRN_CRASH_SHARED") == "all"
	points := map[string]int{}
	for n, tc := range sharedTables() {
		if sweep > 1 && n%3 > 0 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			seen := map[string]int{}
			for _, where := range tc.run(t, "", never, map[string]int{}) {
				seen[where]++
				if every := rare[where]; !all && every > 0 && (seen[where]+n)%every != 0 {
					continue
				}
				tc.run(t, where, seen[where], points)
				if t.Failed() {
					t.Fatalf("crash %d at %s", seen[where], where)
				}
			}
			for _, where := range []string{"mend written", "mended"} {
				if (seen[where] > 0) != tc.mends {
					t.Errorf("points %v, mends: %v", seen, tc.mends)
				}
			}
			if seen["moved"] == 0 {
				t.Errorf("the index was not moved: %v", seen)
			}
		})
	}
	t.Logf("crashed at %v", points)
	for _, where := range []string{"lake", "mend written", "before commit", "after commit", "mended", "pebble", "moved", "written", "committed", "indexed"} {
		if points[where] == 0 && sweep == 1 {
			t.Errorf("no crash at %q", where)
		}
	}
}

// run crashes at the k-th of some points and returns all that there were until then.
func (tc shared) run(t *testing.T, where string, k int, points map[string]int) []string {
	w := newPartedWorld(t, map[string]string{"snapshot.keep.duration": "0s", "snapshot.keep.min-count": "30"}, tc.parts...)
	tc.prepare(w)
	w.flush(put(2, "after"), put(9, "9"))
	c := &crasher{w: w, lucky: tc.lucky, always: !tc.lucky, only: where, left: k}
	crashed := w.crash(c, points, func() error {
		if _, err := w.opt.Once(w.ctx(), tableName, Minor, false); err != nil || c.after != nil {
			return err
		}
		_, err := w.opt.Expire(w.ctx(), tableName, false)
		return err
	})
	trace := c.end()
	if !crashed && k == never {
		w.check()
		w.upToDate()
		return trace
	}
	w.followed()
	w.check()
	w.byNodes()
	w.once(Minor)
	w.check()
	w.sameAsRebuilt()
	w.upToDate()
	w.now = time.Now().Add(time.Hour)
	_, err := w.opt.Orphans(w.ctx(), tableName, time.Minute, false)
	w.must(err)
	w.noLitter()
	return trace
}

// end returns the points that were passed; no others come.
func (c *crasher) end() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = 0
	return slices.Clone(c.trace)
}

// committed commits a round that must not be refused.
func (w *world) committed(r *amorotest.Round) {
	w.Helper()
	if out := w.commitRound(r); !out.Committed {
		w.Fatalf("%+v", out)
	}
}
