package optimizer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"firn/changelog"
)

// small makes rounds of a few rows do what production does with millions.
func small(target int64) Options {
	return Options{Rules: Rules{TargetBytes: target, FanIn: 3, MaxDeletes: 3, MaxRows: 60}}
}

// TestModel runs random histories of flushes, minors, majors, fulls and expiries, with and without a data directory,
// over restarts and changes of schema of all kinds, and compares base store, merged view and position index with the model after each.
func TestModel(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	seeds = max(1, seeds/sweep)
	specs := [][]string{nil, {"truncate(2, v)"}, nil, {"flag", "bucket(2, a)"}, nil, {"truncate(1, b)"}}
	for seed := range seeds {
		w := newPartedWorld(t, map[string]string{"change.data.ttl.minutes": "0", "snapshot.keep.duration": "0s", "snapshot.keep.min-count": "3"}, specs[seed%len(specs)]...)
		w.options = small([]int64{20_000, 2000, 5000}[seed%3])
		w.options.Rules.Buckets = []int{4, 1, 0}[seed%3]
		w.buckets = 1 << (seed % 4)
		w.open()
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		for i := range 30 {
			w.now = w.now.Add(1000)
			switch r.IntN(10) {
			case 0, 1, 2, 3:
				w.flush(w.random(r, 1+r.IntN(40))...)
			case 4:
				w.once(Minor)
			case 5:
				w.some(r)
			case 6, 7:
				w.once(Major)
			case 8:
				w.once(Full)
			case 9:
				_, err := w.opt.Expire(w.ctx(), tableName, false)
				w.must(err)
			}
			w.check()
			switch r.IntN(12) {
			case 0:
				w.open() // a restart
			case 1:
				w.byHand(Type(1 + r.IntN(3)))
				w.check()
			}
			if i%4 == 3 {
				w.evolve(r)
				w.check()
			}
		}
		w.once(Minor)
		w.check()
		w.upToDate()
		if p := w.progress(); p.Optimized != w.seq {
			t.Errorf("seed %d: optimized up to %d of %d", seed, p.Optimized, w.seq)
		}
		w.noLitter()
	}
}

// some merges in some of the partitions that have pending changes, and not in the others, as Amoro may.
func (w *world) some(r *rand.Rand) {
	s := w.opt.state(tableName)
	l, err := w.opt.look(w.ctx(), s)
	w.must(err)
	tasks, _ := Plan(l.view, l.rules, w.now, Minor)
	r.Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
	if len(tasks) > 0 {
		_, err = w.opt.work(w.ctx(), l, s, tasks[:1+r.IntN(len(tasks))])
		w.must(err)
	}
}

// upToDate fails if the base store alone is not the model.
func (w *world) upToDate() {
	w.Helper()
	want := map[string]string{}
	for key, row := range w.model {
		want[inPartition(key, w.at[key])] = row
	}
	w.same("base store at the end", want, w.wantBase(w.table()))
}

// TestPartitionsTogether: one round merges all partitions in one commit, which has the sequence of each; those of partitions
// whose change files are gone are left out, and a partition that comes back has all that comes in it merged again.
func TestPartitionsTogether(t *testing.T) {
	w := newPartedWorld(t, map[string]string{"change.data.ttl.minutes": "0", "snapshot.keep.duration": "0s", "snapshot.keep.min-count": "1"}, "truncate(2, v)")
	put := func(a int64, v string) op { return op{a: a, b: "x", v: v} }
	w.flush(put(1, "a1"), put(2, "b1"), put(3, "c1"))
	w.flush(put(1, "b2"), put(2, "a2"))
	report := w.once(Minor)
	if len(report.Done) != 5 || len(w.table().Base().Snapshots()) != 1 {
		t.Errorf("%d tasks in %d snapshots", len(report.Done), len(w.table().Base().Snapshots()))
	}
	want := map[string]int64{"v_trunc=a1": 2, "v_trunc=a2": 2, "v_trunc=b1": 2, "v_trunc=b2": 2, "v_trunc=c1": 1}
	if got := w.table().Optimized(); !maps.Equal(got, want) {
		t.Errorf("optimized %v, want %v", got, want)
	}
	w.check()
	w.now = time.Now().Add(time.Hour)
	_, err := w.opt.Expire(w.ctx(), tableName, false)
	w.must(err)
	w.check()
	w.flush(put(4, "c1"), put(3, "d1"))
	w.once(Minor)
	if got := w.table().Optimized(); len(got) != 2 || got["v_trunc=c1"] == 0 || got["v_trunc=d1"] == 0 {
		t.Errorf("optimized %v", got)
	}
	w.check()
	w.flush(put(5, "a1"))
	w.check()
	w.once(Full)
	w.once(Minor)
	w.check()
	w.upToDate()
}

// byHand optimizes as firn optimize does beside, or without, the process that has the data directory.
func (w *world) byHand(t Type) {
	o := w.options
	o.Registerer = nil
	opt, err := New(w.catalog, nil, o)
	w.must(err)
	_, err = opt.Once(w.ctx(), tableName, t, false)
	w.must(err)
}

// evolve takes the table one random step further: it adds a column, and drops, renames, widens and moves others.
func (w *world) evolve(r *rand.Rand) {
	t := w.table()
	now := t.Schemas().Current()
	e := randomStep(r, now, func(c *changelog.Column) bool { return c.ID > nColumn }, w.forget)
	next, err := now.Apply(e)
	w.must(err)
	w.must(t.SyncSchemas(w.ctx(), append(t.Schemas(), next)))
	_, err = w.reg.AddSchema(w.ctx(), w.id(), next)
	w.must(err)
	if w.of != nil {
		w.of, err = w.table().Partitioner(next)
		w.must(err)
	}
}

// randomStep adds a column to a schema, and drops, renames, widens and moves others; it drops only what it may, and tells forget.
func randomStep(r *rand.Rand, now *changelog.Schema, mayDrop func(*changelog.Column) bool, forget func(id int)) changelog.Evolution {
	e := changelog.Evolution{
		Rename: map[string]string{}, Widen: map[string]*changelog.Type{},
		Add: []changelog.Column{{Name: fmt.Sprint("new", now.ID), Type: changelog.Primitive(changelog.Int)}},
	}
	order := []string{e.Add[0].Name}
	for i := range now.Columns {
		c := &now.Columns[i]
		name := c.Name
		switch what := r.IntN(6); {
		case c.Required:
		case what == 0 && mayDrop(c):
			e.Drop = append(e.Drop, name)
			forget(c.ID)
			continue
		case what == 1:
			name = fmt.Sprintf("r%d_%d", now.ID, c.ID)
			e.Rename[c.Name] = name
		case what == 2 && c.Type.Kind == changelog.Int:
			e.Widen[name] = changelog.Primitive(changelog.Long)
		case what == 3 && c.Type.Kind == changelog.Decimal:
			e.Widen[name] = changelog.DecimalOf(min(38, c.Type.Precision+9), c.Type.Scale)
		case what == 4 && c.Type.Kind == changelog.List:
			e.Widen[name] = changelog.ListOf(changelog.Primitive(changelog.Long))
		}
		order = append(order, name)
	}
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	e.Order = order
	return e
}

// forget drops a column from the model.
func (w *world) forget(id int) {
	for _, rows := range append(slices.Collect(maps.Values(w.history)), w.model) {
		for k, row := range rows {
			rows[k] = forgotten(row, id)
		}
	}
}

// forgotten is a row's text without a column.
func forgotten(row string, id int) string {
	words := slices.DeleteFunc(strings.Split(row, " "), func(s string) bool { return strings.HasPrefix(s, word(id)) })
	return strings.Join(words, " ")
}
