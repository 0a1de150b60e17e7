package optimizer

import (
	"math/rand/v2"
	"testing"

	"firn/changelog"
)

// small makes rounds of a few rows do what production does with millions.
func small(target int64) Options {
	return Options{Rules: Rules{TargetBytes: target, FanIn: 3, MaxDeletes: 3, MaxRows: 60}}
}

// TestModel runs random histories of flushes, minors, majors, fulls and expiries, with and without a data directory,
// over restarts and a change of schema, and compares base store, merged view and position index with the model after each.
func TestModel(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		w := newWorld(t, map[string]string{"change.data.ttl.minutes": "0", "snapshot.keep.duration": "0s", "snapshot.keep.min-count": "3"})
		w.options = small([]int64{20_000, 2000, 5000}[seed%3])
		w.buckets = 1 << (seed % 4)
		w.open()
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		for i := range 30 {
			w.now = w.now.Add(1000)
			switch r.IntN(10) {
			case 0, 1, 2, 3:
				w.flush(w.random(r, 1+r.IntN(40))...)
			case 4, 5:
				w.once(Minor)
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
			if i == 15 {
				w.evolve()
			}
		}
		w.once(Minor)
		w.check()
		w.same("base store at the end", w.model, w.history[w.table().Optimized()[""]])
		if p := w.progress(); p.Optimized != w.seq {
			t.Errorf("seed %d: optimized up to %d of %d", seed, p.Optimized, w.seq)
		}
		w.noLitter()
	}
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

// evolve adds a column.
func (w *world) evolve() {
	t := w.table()
	next, err := t.Schemas().Current().Evolve([]changelog.Column{{Name: "extra", Type: changelog.Primitive(changelog.Long)}}, nil)
	w.must(err)
	w.must(t.SyncSchemas(w.ctx(), append(t.Schemas(), next)))
	_, err = w.reg.AddSchema(w.ctx(), w.id(), next)
	w.must(err)
}
