package optimizer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
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
	of   *table.Partitioner // nil: no partitions
	rows []string
	seq  changelog.SeqNum
}

// bagSpecs are the partition specs that bags are tried with.
var bagSpecs = map[string][]string{"plain": nil, "partitions": {"truncate(2, v)", "bucket(2, a)"}}

func newBag(w *world, terms ...string) *bag {
	s, err := changelog.NewSchema(columns(), nil)
	w.must(err)
	spec, err := changelog.ParsePartition(terms)
	w.must(err)
	t, err := w.catalog.CreatePartitioned(w.ctx(), eventsName, s, spec, nil)
	w.must(err)
	_, err = w.reg.CreatePartitioned(w.ctx(), eventsName, s, spec, state.TopicRef{}, nil)
	w.must(err)
	b := &bag{world: w, s: s}
	b.of, err = t.Partitioner(s)
	w.must(err)
	return b
}

func (b *bag) table() *table.Table {
	t, err := b.catalog.Load(b.ctx(), eventsName)
	b.must(err)
	return t
}

// live returns the rows of the base store by brute force, each with its place.
func (b *bag) live() (rows []string, places []place) {
	files, err := b.table().Base().Files(b.ctx())
	b.must(err)
	dead := b.deadSets(files)
	for _, f := range files {
		if f.Content != table.Data {
			continue
		}
		b.eachRow(f.Path, b.s, false, func(key, row string, _ changelog.Key, _, ordinal int64) {
			if !dead[f.Path][ordinal] {
				rows, places = append(rows, key+" "+row), append(places, place{datafile.PosDelete{Path: f.Path, Pos: ordinal}, f.Partition})
			}
		})
	}
	return rows, places
}

// place is where a row of a bag is.
type place struct {
	datafile.PosDelete
	partition string
}

func (b *bag) check(what string) {
	b.Helper()
	b.placed(what)
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
	dead := map[string][]datafile.PosDelete{}
	for range min(take, len(rows)) {
		i := r.IntN(len(rows))
		dead[places[i].partition] = append(dead[places[i].partition], places[i].PosDelete)
		at := slices.Index(b.rows, rows[i])
		b.rows = slices.Delete(b.rows, at, at+1)
		rows, places = slices.Delete(rows, i, i+1), slices.Delete(places, i, i+1)
	}
	fresh := map[string][][]changelog.Value{}
	for range n {
		values := op{a: r.Int64N(5), b: "x", v: fmt.Sprintf("v%d", r.IntN(20))}.values(b.s)
		if r.IntN(6) == 0 {
			values[b.s.OrdinalOf(vColumn)] = changelog.NullValue
		}
		key, row := text(b.s, values)
		b.rows = append(b.rows, key+" "+row)
		fresh[b.partition(values)] = append(fresh[b.partition(values)], values)
	}
	for _, at := range slices.Sorted(maps.Keys(fresh)) {
		c.Add = append(c.Add, b.writeIn(t.Base(), b.s, at, mixed.Base, mixed.TreeNode{}, 0, false, len(fresh[at]), func(i int) ([]changelog.Value, int64) {
			return fresh[at][i], 0
		}))
	}
	for _, at := range slices.Sorted(maps.Keys(dead)) {
		c.AddDeletes = append(c.AddDeletes, b.writeDead(t.Base(), at, dead[at]))
	}
	b.seq = c.To
	_, err := t.AppendChanges(b.ctx(), c)
	b.must(err)
}

// partition returns the partition of a row, or "".
func (b *bag) partition(values []changelog.Value) string {
	if b.of == nil {
		return ""
	}
	return b.of.Path(values)
}

// placed: each file is in the directory of its partition and has rows of it only.
func (b *bag) placed(what string) {
	b.Helper()
	if b.of == nil {
		return
	}
	base := b.table().Base()
	files, err := base.Files(b.ctx())
	b.must(err)
	for _, f := range files {
		if filepath.Dir(f.Path) != filepath.Dir(base.DataPathIn(f.Partition, "x")) {
			b.Fatalf("%s: %s is of partition %q", what, f.Path, f.Partition)
		}
		if f.Content != table.Data {
			continue
		}
		rows := datafile.NewRows(b.s)
		b.must(eachBatch(b.ctx(), b.catalog.FS(), f.Path, b.s, false, datafile.Options{}, func(batch datafile.Batch) error {
			if err := rows.Reset(batch); err != nil {
				return err
			}
			for i := range rows.Len() {
				if at := b.partition(rows.Values(i)); at != f.Partition {
					b.Fatalf("%s: a row of %q is in %s", what, at, f.Path)
				}
			}
			return nil
		}))
	}
}

// evolve takes the table one random step further, as world.evolve does.
func (b *bag) evolve(r *rand.Rand) {
	t := b.table()
	now := t.Schemas().Current()
	e := randomStep(r, now, func(c *changelog.Column) bool { return c.ID > nColumn }, func(id int) {
		for i, row := range b.rows {
			b.rows[i] = forgotten(row, id)
		}
	})
	next, err := now.Apply(e)
	b.must(err)
	b.must(t.SyncSchemas(b.ctx(), append(t.Schemas(), next)))
	entry, _ := b.reg.Table(eventsName)
	_, err = b.reg.AddSchema(b.ctx(), entry.ID, next)
	b.must(err)
	b.s = next
	if b.of != nil {
		b.of, err = b.table().Partitioner(next)
		b.must(err)
	}
}

func (b *bag) writeDead(st *table.Store, partition string, dead []datafile.PosDelete) table.NewFile {
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
	path := st.DataPathIn(partition, mixed.FileName{Type: mixed.PositionDelete, Op: table.NewOp(), Count: b.names}.String())
	out, err := b.catalog.FS().Create(path)
	b.must(err)
	written, err := datafile.WritePositionDeletes(out, dead, datafile.Options{})
	b.must(err)
	b.must(out.Commit())
	f := table.NewFile{Path: path, Partition: partition, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
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
	for name, terms := range bagSpecs {
		if sweep > 1 && len(terms) == 0 {
			continue // the other takes the same ways
		}
		t.Run(name, func(t *testing.T) { unkeyedLife(t, terms) })
	}
}

func unkeyedLife(t *testing.T, terms []string) {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.open()
	b := newBag(w, terms...)
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
	if after := b.dataFiles(); after >= before || after > 20 && len(terms) == 0 {
		t.Errorf("%d data files, before %d", after, before)
	}
	if sn := b.table().Base().Snapshot(); sn.Operation != "replace" {
		t.Errorf("operation %s", sn.Operation)
	}
	for range 4 {
		b.evolve(r)
		b.flush(r, 6, 4)
		b.check("evolved")
		b.once([]Type{Major, Full}[r.IntN(2)])
		b.check("evolved and rewritten")
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
		terms []string
	}{{"lost", false, 1, nil}, {"some unsynced data survives", true, 4, nil}, {"partitions", false, 7, bagSpecs["partitions"]}} {
		t.Run(tc.name, func(t *testing.T) {
			points := map[string]int{}
			for k := 1; unkeyedCrashAt(t, k, tc.lucky, tc.terms, points); k += tc.step * sweep {
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

func unkeyedCrashAt(t *testing.T, k int, lucky bool, terms []string, points map[string]int) bool {
	w := newWorld(t, nil)
	w.options = small(20_000)
	w.open()
	b := newBag(w, terms...)
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
