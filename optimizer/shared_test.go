package optimizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/optimizer/amorotest"
	"firn/state"
)

// amoro returns the second optimizer, with a catalog of its own.
func (w *world) amoro(fragment int64, baseOnly bool) *amorotest.Optimizer {
	other, err := table.Open(w.ctx(), w.lake(w.disk))
	w.must(err)
	w.Cleanup(func() { w.must(other.Close()) })
	return &amorotest.Optimizer{Catalog: other, Table: tableName, FragmentBytes: fragment, BaseOnly: baseOnly}
}

// planned is a round that has been executed and waits for its commit.
func (w *world) planned(a *amorotest.Optimizer) *amorotest.Round {
	w.Helper()
	r, err := a.Plan(w.ctx())
	w.must(err)
	if r != nil {
		w.must(r.Execute(w.ctx()))
	}
	return r
}

func (w *world) commitRound(r *amorotest.Round) amorotest.Outcome {
	w.Helper()
	out, err := r.Commit(w.ctx())
	w.must(err)
	return out
}

// followed has the optimizer look at what others did, without a merge.
func (w *world) followed() {
	w.Helper()
	s := w.opt.state(tableName)
	for again := true; again; {
		l, err := w.opt.look(w.ctx(), s)
		w.must(err)
		again, err = w.opt.lineage(w.ctx(), s, l)
		w.must(err)
	}
}

// sameAsRebuilt compares the position index with one that is built anew.
func (w *world) sameAsRebuilt() {
	w.Helper()
	if got, want := w.progress().IndexSnapshot, w.table().Base().SnapshotID(); got != want {
		w.Fatalf("the index is of snapshot %d, the table at %d", got, want)
	}
	entries := func() map[string]string {
		x, err := w.reg.OpenIndex(w.id())
		w.must(err)
		out := map[string]string{}
		s := w.table().Schemas().Current()
		partitions := w.partitions()
		partitions[""] = true
		for o := range w.allKeys() {
			for p := range partitions {
				k := indexKey(s.KeyOf(nil, o.values(s)), p)
				var at [1]state.RowPosition
				var ok [1]bool
				w.must(x.Lookup([]changelog.Key{k}, at[:], ok[:]))
				if ok[0] {
					path, _ := x.Path(at[0].File)
					out[string(k)] = path + ":" + string(rune('0'+at[0].Row%10))
				}
			}
		}
		return out
	}
	moved := entries()
	s := w.opt.state(tableName)
	l, err := w.opt.look(w.ctx(), s)
	w.must(err)
	w.must(rebuild(w.ctx(), l, nil, s.x, w.opt.files))
	if whole := entries(); !maps.Equal(moved, whole) {
		w.Fatalf("the index that was moved differs from the one built anew:\n%v\n%v", moved, whole)
	}
}

// TestRevived: Amoro plans to rewrite base files without change files; firn merges deletes and updates of their rows; then Amoro
// commits: deleted rows live again and updated ones twice, until firn looks (hazard H7 of the description), also after a second round of Amoro's
// that has moved them on.
func TestRevived(t *testing.T) {
	for i := range 4 {
		rebuilt, again := i%2 > 0, i/2 > 0
		w := newWorld(t, nil)
		w.flush(op{a: 1, b: "x", v: "1"}, op{a: 2, b: "x", v: "2"}, op{a: 5, b: "x", v: "5"})
		w.once(Minor)
		w.flush(op{a: 3, b: "x", v: "3"})
		w.once(Minor)
		round := w.planned(w.amoro(1<<20, true))
		w.flush(op{a: 1, b: "x"}, op{a: 2, b: "x", v: "new"})
		w.once(Minor)
		if out := w.commitRound(round); !out.Committed {
			t.Fatalf("%+v", out)
		}
		if again { // both rows of a key come into one file
			w.committed(w.planned(w.amoro(1<<20, true)))
		}
		if rebuilt { // the data directory's index is lost in between
			w.must(w.opt.state(tableName).x.Reset(w.ctx()))
			w.flush(op{a: 9, b: "x", v: "9"})
			w.once(Minor)
		}
		w.followed()
		w.check()
		w.flush(op{a: 1, b: "x", v: "again"})
		w.once(Minor)
		w.check()
		w.sameAsRebuilt()
		w.upToDate()
	}
}

// TestDeleteMissesRewritten: Amoro plans position deletes of a file; firn rewrites the file; Amoro commits: the rows that it deleted live on
// in the new file, until firn looks.
func TestDeleteMissesRewritten(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "1"}, op{a: 2, b: "x", v: "2"}, op{a: 3, b: "x", v: "3"})
	w.once(Minor)
	w.flush(op{a: 4, b: "x", v: "4"})
	w.once(Minor)
	w.flush(op{a: 1, b: "x"}, op{a: 2, b: "x", v: "new"})
	round := w.planned(w.amoro(0, false)) // all are segments
	w.once(Full)
	if out := w.commitRound(round); !out.Committed {
		t.Fatalf("%+v", out)
	}
	w.followed()
	w.check()
	w.sameAsRebuilt()
	w.upToDate()
}

// TestAmoroSkips: what firn has merged meanwhile is not merged again by Amoro's round, and the other way round.
func TestAmoroSkips(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "1"})
	w.once(Minor)
	w.flush(op{a: 1, b: "x", v: "2"})
	round := w.planned(w.amoro(1<<20, false))
	w.once(Minor)
	if out := w.commitRound(round); out.Committed || out.Skipped != 1 {
		t.Errorf("%+v", out)
	}
	w.check()
	w.flush(op{a: 1, b: "x", v: "3"}, op{a: 2, b: "x", v: "3"})
	round = w.planned(w.amoro(1<<20, false))
	w.onBase(1, func(commit func() error) error {
		w.hook = nil
		if out := w.commitRound(round); !out.Committed {
			t.Errorf("%+v", out)
		}
		return commit()
	})
	w.once(Minor)
	w.followed()
	w.check()
	w.upToDate()
	if !w.table().InPuffin() {
		t.Error("Amoro's mark is lost")
	}
}

// TestSharedModel: firn and Amoro work on one table in random interleavings: rounds are planned at one time and committed at
// another, the index follows or not, firn restarts. Base store, merged view and index are held against the model and against an
// index that is built anew. FIRN_SHARED_SEEDS says how many histories.
func TestSharedModel(t *testing.T) {
	seeds := 4
	if testing.Short() || sweep > 1 {
		seeds = 2
	}
	if n, err := strconv.Atoi(os.Getenv("FIRN_SHARED_SEEDS")); err == nil {
		seeds = n
	}
	specs := [][]string{nil, {"truncate(2, v)"}, nil, {"bucket(2, a)"}}
	mended, conflicts, committed, skipped := 0, 0, 0, 0
	for seed := range seeds {
		w := newPartedWorld(t, map[string]string{"snapshot.keep.duration": "0s", "snapshot.keep.min-count": "30"}, specs[seed%len(specs)]...)
		w.options = small([]int64{20_000, 3000}[seed%2])
		w.buckets = 1 << (seed % 3)
		w.open()
		r := rand.New(rand.NewPCG(uint64(seed), 9))
		fragment := []int64{1 << 20, 2000, 0}[seed%3]
		merging, moving := w.amoro(fragment, false), w.amoro(1<<20, true)
		var rounds []*amorotest.Round
		for range 24 {
			w.now = w.now.Add(1000)
			switch r.IntN(10) {
			case 0, 1, 2:
				w.flush(w.random(r, 1+r.IntN(30))...)
			case 3:
				w.once(Minor)
			case 4:
				w.once(Type(2 + r.IntN(2)))
			case 5, 6, 8:
				round := w.planned([]*amorotest.Optimizer{merging, moving}[r.IntN(2)])
				if round == nil {
					continue
				}
				if r.IntN(3) == 0 {
					rounds = append(rounds, round)
					continue
				}
				w.flush(w.random(r, 1+r.IntN(3))...)
				w.once([]Type{Minor, Minor, Full}[r.IntN(3)])
				out := w.commitRound(round)
				committed, conflicts, skipped = committed+count(out.Committed), conflicts+count(out.Conflict), skipped+out.Skipped
				if r.IntN(3) == 0 { // and another one before firn looks
					if next := w.planned([]*amorotest.Optimizer{merging, moving}[r.IntN(2)]); next != nil {
						w.commitRound(next)
					}
				}
			case 7:
				if len(rounds) == 0 {
					continue
				}
				out := w.commitRound(rounds[len(rounds)-1])
				rounds = rounds[:len(rounds)-1]
				committed, conflicts, skipped = committed+count(out.Committed), conflicts+count(out.Conflict), skipped+out.Skipped
			case 9:
				w.open()
			}
			before := w.table().Base().SnapshotID()
			w.followed()
			mended += count(w.table().Base().SnapshotID() != before)
			w.check()
			if p := w.progress(); p.IndexSnapshot != 0 && r.IntN(4) == 0 {
				w.sameAsRebuilt()
			}
		}
		w.once(Minor)
		w.check()
	}
	t.Logf("%d commits of the other optimizer, %d conflicts, %d partitions skipped, %d mended", committed, conflicts, skipped, mended)
	if committed == 0 || conflicts == 0 || mended == 0 {
		t.Error("nothing was tried")
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestIndexFollows: foreign commits of other kinds (a delete by position, rows that come and go, a roll-back) move the index by what is
// different, and leave it as one that is built anew.
func TestIndexFollows(t *testing.T) {
	w := prepared(t)
	metrics := prometheus.NewRegistry()
	w.options.Registerer = metrics
	w.open()
	w.once(Minor)
	for _, a := range w.live(table.Data) {
		sets := map[string]*rowSet{a.Path: {}}
		sets[a.Path].add(0)
		w.strange(sets)
		w.followed()
		w.sameAsRebuilt()
	}
	families, err := metrics.Gather()
	w.must(err)
	moves := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "firn_optimize_index_moves_total" {
				moves[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if moves["incremental"] == 0 {
		t.Errorf("moves of the index: %v", moves)
	}
}

// strange commits position deletes as a stranger, such as a query engine.
func (w *world) strange(sets map[string]*rowSet) {
	t := w.table()
	out := newOutputs(w.catalog.FS(), t.Base(), t.Schemas().Current(), w.opt.files, 1<<20)
	w.must(out.writeDeletes("", mixed.TreeNode{}, 1, sets))
	f := out.files[0]
	_, err := t.CommitBase(w.ctx(), table.BaseCommit{ID: f.path, AddDeletes: []table.NewFile{{
		Path: f.path, Rows: f.Rows, Bytes: f.Bytes, Footer: f.Metadata,
	}}})
	w.must(err)
}

// TestMergedMeanwhile: changes that cancel are merged by somebody else without a snapshot between plan and commit. The head has not moved, but
// the sequence has: the merge is planned again, and finds nothing to do.
func TestMergedMeanwhile(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "here"}, op{a: 1, b: "x"})
	once := true
	w.opt.step = func(name string) error {
		if name == "written" && once {
			once = false
			w.byHand(Minor)
		}
		return nil
	}
	if done := w.once(Minor).Done; len(done) != 0 {
		t.Errorf("merged what was merged: %+v", done)
	}
	w.check()
}

// TestRolledBack: the base store is put back to an earlier snapshot, but the property with its sequences is not. Nothing is optimized or
// expired, and the error says what to do; with the snapshot made the current one again it goes on.
func TestRolledBack(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "1"})
	w.once(Minor)
	first := w.table().Base().SnapshotID()
	w.flush(op{a: 2, b: "x", v: "2"})
	w.once(Minor)
	second := w.table().Base().SnapshotID()
	w.setHead(first)
	w.flush(op{a: 3, b: "x", v: "3"})
	if _, err := w.opt.Once(w.ctx(), tableName, Minor, false); !errors.Is(err, errRolledBack) || !strings.Contains(err.Error(), fmt.Sprint(second)) {
		t.Errorf("minor: %v", err)
	}
	if _, err := w.opt.Expire(w.ctx(), tableName, false); !errors.Is(err, errRolledBack) {
		t.Errorf("expire: %v", err)
	}
	w.setHead(second)
	w.once(Minor)
	w.check()
	w.upToDate()
}

// setHead makes a snapshot that is kept the current one of the base store, as a person's roll-back does.
func (w *world) setHead(id int64) {
	w.editBase(func(md map[string]any) {
		number := json.Number(strconv.FormatInt(id, 10))
		md["current-snapshot-id"] = number
		md["refs"].(map[string]any)["main"].(map[string]any)["snapshot-id"] = number
	})
}

// tagBase names a snapshot of the base store, which then is kept.
func (w *world) tagBase(name string, id int64) {
	w.editBase(func(md map[string]any) {
		md["refs"].(map[string]any)[name] = map[string]any{"snapshot-id": json.Number(strconv.FormatInt(id, 10)), "type": "tag"}
	})
}

// editBase changes the base store's metadata file, past the catalog.
func (w *world) editBase(edit func(md map[string]any)) {
	path := w.table().Base().MetadataLocation()
	raw, err := w.catalog.FS().ReadFile(path)
	w.must(err)
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var md map[string]any
	w.must(d.Decode(&md))
	edit(md)
	raw, err = json.Marshal(md)
	w.must(err)
	out, err := w.disk.Create(strings.TrimPrefix(path, "file://"), vfs.WriteCategoryUnspecified)
	w.must(err)
	_, err = out.Write(raw)
	w.must(errors.Join(err, out.Sync(), out.Close(), w.catalog.Close()))
	w.openLake()
	w.open()
}
