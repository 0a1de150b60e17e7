package optimizer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

const eventsName = "shop.events"

// bag is a table without a key in a world, with a model of its rows.
type bag struct {
	*world
	s    *changelog.Schema
	rows []string
	seq  changelog.SeqNum
}

func newBag(w *world) *bag {
	s, err := changelog.NewSchema(columns(), nil)
	w.must(err)
	_, err = w.catalog.Create(w.ctx(), eventsName, s, nil)
	w.must(err)
	_, err = w.reg.Create(w.ctx(), eventsName, s, state.TopicRef{}, nil)
	w.must(err)
	return &bag{world: w, s: s}
}

func (b *bag) table() *table.Table {
	t, err := b.catalog.Load(b.ctx(), eventsName)
	b.must(err)
	return t
}

// live returns the rows of the base store by brute force, each with its place.
func (b *bag) live() (rows []string, places []datafile.PosDelete) {
	files, err := b.table().Base().Files(b.ctx())
	b.must(err)
	dead := b.deadSets(files)
	for _, f := range files {
		if f.Content != table.Data {
			continue
		}
		b.eachRow(f.Path, b.s, false, func(key, row string, _ changelog.Key, _, ordinal int64) {
			if !dead[f.Path][ordinal] {
				rows, places = append(rows, key+" "+row), append(places, datafile.PosDelete{Path: f.Path, Pos: ordinal})
			}
		})
	}
	return rows, places
}

func (b *bag) check(what string) {
	b.Helper()
	got, _ := b.live()
	slices.Sort(got)
	want := slices.Sorted(slices.Values(b.rows))
	if !slices.Equal(got, want) {
		b.Fatalf("%s: %d rows, want %d\ngot  %q\nwant %q", what, len(got), len(want), got, want)
	}
}

// flush puts n rows in, some of them equal, and takes others out, as changelog/flush does.
func (b *bag) flush(r *rand.Rand, n, take int) {
	b.Helper()
	t := b.table()
	b.names++
	c := table.Commit{
		FlushMark: table.FlushMark{CommitID: "events-" + strconv.Itoa(b.names), From: b.seq, To: b.seq + changelog.SeqNum(n+take)},
		Expect:    table.ExpectNone,
	}
	if id := t.Base().SnapshotID(); id != 0 {
		c.Expect = id
	}
	rows, places := b.live()
	var dead []datafile.PosDelete
	for range min(take, len(rows)) {
		i := r.IntN(len(rows))
		dead = append(dead, places[i])
		at := slices.Index(b.rows, rows[i])
		b.rows = slices.Delete(b.rows, at, at+1)
		rows, places = slices.Delete(rows, i, i+1), slices.Delete(places, i, i+1)
	}
	if n > 0 {
		c.Add = append(c.Add, b.write(t.Base(), b.s, mixed.Base, mixed.TreeNode{}, 0, false, n, func(int) ([]changelog.Value, int64) {
			values := op{a: r.Int64N(5), b: "x", v: fmt.Sprintf("v%d", r.IntN(20))}.values(b.s)
			key, row := text(b.s, values)
			b.rows = append(b.rows, key+" "+row)
			return values, 0
		}))
	}
	if len(dead) > 0 {
		c.AddDeletes = append(c.AddDeletes, b.writeDead(t.Base(), dead))
	}
	b.seq = c.To
	_, err := t.AppendChanges(b.ctx(), c)
	b.must(err)
}

func (b *bag) writeDead(st *table.Store, dead []datafile.PosDelete) table.NewFile {
	slices.SortFunc(dead, func(x, y datafile.PosDelete) int {
		if x.Path != y.Path {
			if x.Path < y.Path {
				return -1
			}
			return 1
		}
		return int(x.Pos - y.Pos)
	})
	b.names++
	path := st.DataPath(mixed.FileName{Type: mixed.PositionDelete, Op: table.NewOp(), Count: b.names}.String())
	out, err := b.catalog.FS().Create(path)
	b.must(err)
	written, err := datafile.WritePositionDeletes(out, dead, datafile.Options{})
	b.must(err)
	b.must(out.Commit())
	f := table.NewFile{Path: path, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
	if dead[0].Path == dead[len(dead)-1].Path {
		f.Referenced = dead[0].Path
	}
	return f
}

func (b *bag) once(t Type) Report {
	b.Helper()
	r, err := b.opt.Once(b.ctx(), eventsName, t, false)
	b.must(err)
	return r
}

func (b *bag) dataFiles() (n int) {
	files, err := b.table().Base().Files(b.ctx())
	b.must(err)
	for _, f := range files {
		if f.Content == table.Data {
			n++
		}
	}
	return n
}

// TestUnkeyed: small files of a table without a key are put together, deleted rows go, old snapshots expire; a minor has
// nothing to do.
func TestUnkeyed(t *testing.T) {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.open()
	b := newBag(w)
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 40 {
		b.flush(r, 5, []int{0, 0, 3}[i%3])
	}
	b.check("before")
	if got := b.once(Minor); len(got.Done) != 0 {
		t.Errorf("minor did %d tasks", len(got.Done))
	}
	before := b.dataFiles()
	if got := b.once(Major); len(got.Done) == 0 {
		t.Error("major had nothing to do")
	}
	b.check("after a major")
	if after := b.dataFiles(); after >= before || after > 20 {
		t.Errorf("%d data files, before %d", after, before)
	}
	if sn := b.table().Base().Snapshot(); sn.Operation != "replace" {
		t.Errorf("operation %s", sn.Operation)
	}
	b.flush(r, 3, 10)
	b.once(Full)
	b.check("after a full")
	files, err := b.table().Base().Files(w.ctx())
	w.must(err)
	for _, f := range files {
		if f.Content != table.Data {
			t.Errorf("%s is left after a full rewrite", f.Path)
		}
	}
	w.now = time.Now().Add(time.Hour)
	b.opt.options.Rules.KeepSnapshots, b.opt.options.Rules.KeepAge = 1, time.Nanosecond
	x, err := b.opt.Expire(w.ctx(), eventsName, false)
	w.must(err)
	if x.Snapshots == 0 || x.Files == 0 || len(x.Changes) != 0 {
		t.Errorf("expired %+v", x)
	}
	b.check("after expiry")
	if mark, ok, err := b.table().LastCommit(); err != nil || !ok || mark.To != b.seq {
		t.Errorf("mark %+v, %v", mark, err)
	}
}

// TestUnkeyedBesideFlushes: a rewrite under way goes through beside flushes that append. One that takes rows out of its
// files makes it plan again, and no row comes back.
func TestUnkeyedBesideFlushes(t *testing.T) {
	for _, take := range []int{0, 8} {
		t.Run(fmt.Sprint("take=", take), func(t *testing.T) {
			w := newWorld(t, nil)
			w.options = small(20_000)
			w.open()
			b := newBag(w)
			r := rand.New(rand.NewPCG(6, uint64(take)))
			for range 12 {
				b.flush(r, 5, 0)
			}
			tried, conflicts := 0, 0
			b.opt.step = func(name string) error {
				if name == "written" {
					if tried++; tried < 4 {
						b.flush(r, 5, take)
					}
				}
				return nil
			}
			w.hook = func(_ context.Context, _ table.Attempt, commit func() error) error { return commit() }
			report, err := b.opt.Once(w.ctx(), eventsName, Full, false)
			if table.IsConflict(err) {
				conflicts++
			} else {
				w.must(err)
			}
			b.check("after a full beside flushes")
			if take == 0 && (tried != len(report.Done) || conflicts > 0) {
				t.Errorf("%d tries for %d tasks: appends made it plan again", tried, len(report.Done))
			}
			if take > 0 && tried <= len(report.Done) && conflicts == 0 {
				t.Errorf("%d tries for %d tasks: nothing was planned again", tried, len(report.Done))
			}
			b.opt.step = func(string) error { return nil }
			b.once(Full)
			b.check("at the end")
		})
	}
}

// TestUnkeyedSchedule: the scheduler looks after tables without a key, too.
func TestUnkeyedSchedule(t *testing.T) {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.clock = time.Now
	w.open()
	b := newBag(w)
	r := rand.New(rand.NewPCG(6, 6))
	for range 30 {
		b.flush(r, 3, 1)
	}
	before := b.dataFiles()
	ctx, stop := context.WithCancel(w.ctx())
	done := make(chan error, 1)
	go func() { done <- w.opt.Run(ctx) }()
	deadline := time.Now().Add(20 * time.Second)
	for b.dataFiles() >= before && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	w.must(<-done)
	b.check("optimized by the clock")
	if after := b.dataFiles(); after >= before {
		t.Errorf("%d data files, as before", after)
	}
}

// TestUnkeyedCrash is TestCrash for a table without a key: the power goes at each point of a full round.
func TestUnkeyedCrash(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lucky bool
		step  int
	}{{"lost", false, 1}, {"some unsynced data survives", true, 4}} {
		t.Run(tc.name, func(t *testing.T) {
			points := map[string]int{}
			for k := 1; unkeyedCrashAt(t, k, tc.lucky, points); k += tc.step * sweep {
			}
			t.Logf("crashed at %v", points)
			for _, where := range []string{"lake", "written", "before commit", "after commit", "committed"} {
				if points[where] == 0 && tc.step*sweep == 1 {
					t.Errorf("no crash at %q", where)
				}
			}
		})
	}
}

func unkeyedCrashAt(t *testing.T, k int, lucky bool, points map[string]int) bool {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.open()
	b := newBag(w)
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 4 {
		b.flush(r, 4, i%3)
	}
	c := &crasher{w: w, lucky: lucky, left: k}
	crashed := w.crash(c, points, func() error {
		_, err := w.opt.Once(w.ctx(), eventsName, Full, false)
		return err
	})
	if !crashed {
		return false
	}
	what := fmt.Sprintf("crash %d at %s", k, c.where)
	b.check(what)
	b.flush(r, 4, 4)
	b.once(Full)
	b.check(what + ", a full later")
	w.now = time.Now().Add(time.Hour)
	_, err := w.opt.Orphans(w.ctx(), eventsName, time.Minute, false)
	w.must(err)
	b.check(what + ", orphans gone")
	return true
}
