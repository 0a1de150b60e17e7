package flush

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/table"
	"firn/state"
)

// specs are without partitions, by the key, by what updates change, and both.
var specs = [][]string{nil, {"bucket(4, id)"}, {"truncate(2, v)"}, {"truncate(2, v)", "bucket(2, id)"}}

// TestFlush flushes random histories, with cuts in the middle of records and schema changes, and holds the lake against
// the model and the log.
func TestFlush(t *testing.T) {
	for seed := range uint64(16 / sweep) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			w.parts = specs[seed%uint64(len(specs))]
			n := w.open()
			f := w.flusher(n, nil)
			for range 5 {
				w.append(n, 1+w.rnd.IntN(60), 30)
				if w.rnd.IntN(3) == 0 {
					w.evolve(n)
					w.append(n, 1+w.rnd.IntN(20), 30)
				}
				if _, err := f.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := w.catalog.Load(t.Context(), tableName); errors.Is(err, table.ErrNotFound) {
					continue // markers only, so far
				}
				w.check(n, false)
			}
			w.append(n, 1, 30)
			w.drain(f)
			w.check(n, true)
			if s := w.stray(); len(s) > 0 {
				t.Errorf("stray files %v", s)
			}
		})
	}
}

// deadAt is a registry that dies before progress is recorded.
type deadAt struct {
	*state.Registry
	armed bool
}

func (d *deadAt) UpdateProgress(ctx context.Context, id changelog.TableID, change func(*state.Progress)) error {
	var before, after state.Progress
	change(&after)
	if d.armed && before.Flushed != after.Flushed {
		return errDead
	}
	return d.Registry.UpdateProgress(ctx, id, change)
}

// TestCrash stops the process at each of the places where a flush can be interrupted, with a power cut, and goes on:
// nothing is missing, nothing is there twice (P1, P2).
func TestCrash(t *testing.T) {
	for _, tc := range []struct {
		name   string
		landed bool // the commit is in the lake
		hook   table.Hook
		dead   bool
	}{
		{name: "before the commit", hook: func(context.Context, table.Attempt, func() error) error { return errDead }},
		{name: "after the commit, answer lost", landed: true, dead: true, hook: func(_ context.Context, _ table.Attempt, commit func() error) error {
			return errors.Join(commit(), errLost)
		}},
		{name: "after the commit, before the progress", landed: true, dead: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(4) {
				w := newWorld(t, seed)
				w.parts = specs[seed]
				n := w.open()
				w.append(n, 30, 30)
				w.drain(w.flusher(n, nil))
				w.append(n, 40, 30)
				w.setHook(tc.hook)
				_, err := w.flusher(n, &deadAt{Registry: n.reg, armed: tc.dead}).Flush(t.Context())
				if !errors.Is(err, errDead) {
					t.Fatalf("flush: %v", err)
				}
				w.setHook(nil)
				before := must(n.reg.Progress(n.id))
				if landed := w.mark(w.load()).From == before.Flushed; landed != tc.landed {
					t.Fatalf("landed: %v", landed)
				}
				n = n.crash()
				if p := must(n.reg.Progress(n.id)); p.Flushed != before.Flushed {
					t.Fatalf("progress after the crash %+v, before %+v", p, before)
				}
				w.append(n, 10, 30)
				f := w.flusher(n, nil)
				if err := f.recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				if p := must(n.reg.Progress(n.id)); (p.Flushed > before.Flushed) != tc.landed || p.ChangeSequence == 0 {
					t.Fatalf("progress after recovery %+v, before %+v", p, before)
				}
				w.append(n, 10, 30)
				w.append(n, 1, 1)
				w.drain(f)
				w.check(n, true)
			}
		})
	}
}

// TestAnswerLost: commits of which no answer comes are tried again under their id, whether they landed or not, and no file
// of theirs is removed before the outcome is known (P2).
func TestAnswerLost(t *testing.T) {
	for seed := range uint64(2) {
		w := newWorld(t, seed)
		n := w.open()
		f := w.flusher(n, nil)
		w.append(n, 60, 30)
		w.drain(f)
		for i := range 8 {
			w.append(n, 5, 30)
			w.append(n, 1, 1)
			calls := 0
			w.setHook(func(_ context.Context, _ table.Attempt, commit func() error) error {
				calls++
				switch {
				case i%4 == 0 && calls == 1: // not sent
					return errLost
				case i%4 == 1 && calls == 1: // sent, answer lost
					return errors.Join(commit(), errLost)
				case i%4 == 2 && calls < 4: // not sent, several times
					return errLost
				}
				return commit()
			})
			for tries := 0; ; tries++ {
				_, err := f.Flush(t.Context())
				if err == nil {
					break
				}
				if !errors.Is(err, errLost) || tries > 5 {
					t.Fatal(err)
				}
			}
			w.setHook(nil)
			w.check(n, false)
		}
		w.drain(f)
		w.check(n, true)
		if s := w.stray(); len(s) > 0 {
			t.Errorf("stray files %v", s)
		}
	}
}

// TestUnknownOutcome: the catalog takes a commit and then cannot be read. Whether the process goes on or stops there, the
// commit is found in the lake, with its files (P2).
func TestUnknownOutcome(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart=", restart), func(t *testing.T) {
			w := newWorld(t, 1)
			n := w.open()
			f := w.flusher(n, nil)
			w.append(n, 30, 30)
			w.drain(f)
			w.append(n, 20, 30)
			hide, show := w.hiding()
			w.setHook(func(_ context.Context, _ table.Attempt, commit func() error) error {
				err := commit()
				hide()
				return errors.Join(err, errLost)
			})
			if _, err := f.Flush(t.Context()); !errors.Is(err, table.ErrUnknownOutcome) {
				t.Fatalf("flush: %v", err)
			}
			w.setHook(nil)
			if restart {
				if err := f.release(); err != nil { // a stop while the outcome is unknown
					t.Fatal(err)
				}
				n = n.crash()
				f = w.flusher(n, nil)
			}
			show()
			w.append(n, 1, 1)
			w.drain(f)
			w.check(n, true)
			if s := w.stray(); len(s) > 0 {
				t.Errorf("stray files %v", s)
			}
		})
	}
}

// TestStopped: a batch that was written and is known not to have landed leaves no files when the Flusher stops.
func TestStopped(t *testing.T) {
	w := newWorld(t, 1)
	n := w.open()
	f := w.flusher(n, nil)
	w.append(n, 30, 30)
	w.drain(f)
	w.append(n, 20, 30)
	tried := make(chan struct{}, 100)
	w.setHook(func(context.Context, table.Attempt, func() error) error {
		tried <- struct{}{}
		return errLost
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	<-tried
	<-tried
	if len(w.stray()) == 0 {
		t.Error("no files while the commit is tried again")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if s := w.stray(); len(s) > 0 {
		t.Errorf("stray files %v", s)
	}
}

// TestSecondWriter: a second data directory, restored from the lake, takes the table over (P3, P4). The first one's next
// commit fails, and so does its next start, without harm to the second.
func TestSecondWriter(t *testing.T) {
	for seed := range uint64(3) {
		w := newWorld(t, seed)
		a := w.open()
		fa := w.flusher(a, nil)
		w.append(a, 60, 30)
		w.evolve(a)
		w.append(a, 60, 30)
		if _, err := fa.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		b := w.restore()
		fb := w.flusher(b, nil)
		if err := fb.recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		// a is fenced, and removes its files.
		w.append(a, 1, 30)
		w.append(a, 1, 1)
		for range 3 {
			if _, err := fa.Flush(t.Context()); !errors.Is(err, state.ErrFenced) {
				t.Fatalf("fenced writer: %v", err)
			}
		}
		if s := w.stray(); len(s) > 0 {
			t.Errorf("stray files %v", s)
		}
		// b reads on where the lake's positions say, and ends in the same state (P4).
		from := w.mark(w.load()).Positions[0].Next
		w.replay(b, from)
		w.drain(fb)
		w.checkRestored(b)
		// A restart of a is refused before it claims anything.
		a = a.crash()
		fa = w.flusher(a, nil)
		_, err := fa.Flush(t.Context())
		if !errors.Is(err, state.ErrFenced) || !strings.Contains(err.Error(), b.reg.WriterID()) {
			t.Fatalf("restart of the old writer: %v", err)
		}
		w.append(b, 5, 30)
		w.append(b, 1, 1)
		w.drain(fb)
		w.checkRestored(b)
	}
}

// restore makes a data directory from the lake, as cmd does (P4).
func (w *world) restore() *node {
	w.tb.Helper()
	n := openNode(w.tb, newDisk())
	t := w.load()
	r, ok, err := Restore(w.tb.Context(), t)
	if err != nil || !ok {
		w.tb.Fatal(ok, err)
	}
	n.id = must(n.reg.Restore(w.tb.Context(), r.Table, r.Progress, r.Positions)).ID
	if err := n.store.PutRows(w.tb.Context(), n.id, entries(w.reader(t).Rows(w.tb.Context()))); err != nil {
		w.tb.Fatal(err)
	}
	if err := n.reg.UpdateProgress(w.tb.Context(), n.id, func(p *state.Progress) { p.Rebuilding = false }); err != nil {
		w.tb.Fatal(err)
	}
	return n
}

// checkRestored compares lake and lookups of a restored node with the model.
func (w *world) checkRestored(n *node) {
	w.tb.Helper()
	t := w.load()
	var lake, local []string
	for row, err := range w.reader(t).Rows(w.tb.Context()) {
		if err != nil {
			w.tb.Fatal(err)
		}
		lake = append(lake, w.textOf(row.Row, t))
	}
	w.equal("lake", lake)
	snap := must(n.store.Snapshot(w.tb.Context(), n.id))
	defer snap.Close()
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			w.tb.Fatal(err)
		}
		s := must(w.schemas.Of(e.Row))
		local = append(local, w.text(must(must(changelog.NewProjection(s, w.schema())).Values(e.Row))))
	}
	w.equal("rows of the restored store", local)
	w.files(t)
}

// TestJudge has every way in which a data directory and the lake can stand to each other.
func TestJudge(t *testing.T) {
	mark := table.FlushMark{CommitID: "c2", Writer: "me", From: 10, To: 20}
	for _, tc := range []struct {
		name    string
		mark    table.FlushMark
		ok      bool
		p       state.Progress
		applied changelog.SeqNum
		want    verdict
	}{
		{"both new", table.FlushMark{}, false, state.Progress{}, 5, inStep},
		{"the lake lost its flushes", table.FlushMark{}, false, state.Progress{Flushed: 10, CommitID: "c1"}, 30, apart},
		{"same", mark, true, state.Progress{Flushed: 20, CommitID: "c2"}, 30, inStep},
		{"restored from another writer's", table.FlushMark{CommitID: "c2", Writer: "you", From: 10, To: 20}, true, state.Progress{Flushed: 20, CommitID: "c2"}, 20, inStep},
		{"our commit in doubt", mark, true, state.Progress{Flushed: 10, CommitID: "c1"}, 20, ahead},
		{"our first commit in doubt", table.FlushMark{CommitID: "c1", Writer: "me", To: 20}, true, state.Progress{}, 20, ahead},
		{"our commit of changes that the log lost", mark, true, state.Progress{Flushed: 10, CommitID: "c1"}, 19, apart},
		{"the lake was put back", mark, true, state.Progress{Flushed: 30, CommitID: "c3"}, 40, apart},
		{"the directory was put back", mark, true, state.Progress{Flushed: 5, CommitID: "c0"}, 40, apart},
		{"another writer came later", table.FlushMark{CommitID: "x", Writer: "you", From: 10, To: 20}, true, state.Progress{Flushed: 10, CommitID: "c1"}, 40, foreign},
		{"another writer's table, new directory", table.FlushMark{CommitID: "x", Writer: "you", From: 10, To: 20}, true, state.Progress{}, 40, foreign},
	} {
		if got := judge(tc.mark, tc.ok, tc.p, tc.applied, "me"); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestDiverged: a lake that has lost a flushed table is not written to.
func TestDiverged(t *testing.T) {
	w := newWorld(t, 1)
	n := w.open()
	w.append(n, 20, 30)
	w.drain(w.flusher(n, nil))
	if err := w.catalog.Drop(t.Context(), tableName, true); err != nil {
		t.Fatal(err)
	}
	w.append(n, 20, 30)
	if err := w.flusher(n, nil).Run(t.Context()); !errors.Is(err, ErrDiverged) {
		t.Errorf("Run: %v", err)
	}
	if _, err := w.catalog.Load(t.Context(), tableName); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("table was created again: %v", err)
	}
}

// TestPositions: the positions of a commit are those of its last change, and where it reaches the end of the log also
// those of records without changes; a cut inside of a record leaves the record to be read again (P4).
func TestPositions(t *testing.T) {
	w := newWorld(t, 1)
	n := w.open()
	s := must(New(n.store, n.reg, w.catalog, Options{MaxRows: 3}))
	f := must(s.Flusher(n.id))
	at := func(partition int32, offset int64) changelog.Position {
		return changelog.Position{Source: "k", Topic: "t", Partition: partition, Offset: offset}
	}
	del := func(id int64, p changelog.Position) changelog.Change {
		return changelog.Change{Op: changelog.OpDelete, Key: w.key(id), Position: p}
	}
	next := func(partition int32, next int64) changelog.StreamPosition {
		return changelog.StreamPosition{StreamID: changelog.StreamID{Source: "k", Topic: "t", Partition: partition}, Next: next}
	}
	other := changelog.StreamPosition{StreamID: changelog.StreamID{Source: "k", Topic: "other"}, Next: 9}
	put := func(a changelog.Append, changes ...changelog.Change) {
		if len(changes) > 0 {
			a.Tables = []changelog.TableAppend{{Table: n.id, Changes: changes}}
		}
		must(n.store.Append(t.Context(), a))
	}
	put(changelog.Append{Positions: []changelog.StreamPosition{next(0, 6), other}}, del(1, at(0, 4)), del(2, at(0, 5)))
	put(changelog.Append{Positions: []changelog.StreamPosition{next(1, 8)}}, del(3, at(1, 7)), del(4, at(1, 7)), del(5, at(1, 7)))
	put(changelog.Append{Positions: []changelog.StreamPosition{next(0, 10)}}) // no changes
	for i, want := range [][]changelog.StreamPosition{
		{next(0, 6), next(1, 7)},  // cut inside of record 7
		{next(0, 10), next(1, 8)}, // at the end of the log
	} {
		if _, err := f.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.mark(w.load()).Positions; !slices.Equal(got, want) {
			t.Errorf("commit %d: positions %v, want %v", i+1, got, want)
		}
	}
	put(changelog.Append{Positions: []changelog.StreamPosition{next(0, 20)}})
	before := w.mark(w.load())
	if _, err := f.Flush(t.Context()); err != nil || w.mark(w.load()).CommitID != before.CommitID {
		t.Errorf("an empty range made a commit: %v", err)
	}
	put(changelog.Append{Positions: []changelog.StreamPosition{next(1, 30)}}, del(3, at(1, 29)))
	must(f.Flush(t.Context()))
	if got := w.mark(w.load()).Positions; !slices.Equal(got, []changelog.StreamPosition{next(0, 20), next(1, 30)}) {
		t.Errorf("positions of records without changes were lost: %v", got)
	}
	// A cut commit, after a restart too, keeps the positions of streams that it has no changes of.
	f = must(s.Flusher(n.id))
	put(changelog.Append{Positions: []changelog.StreamPosition{next(1, 36)}},
		del(3, at(1, 30)), del(3, at(1, 31)), del(3, at(1, 32)), del(3, at(1, 33)))
	must(f.Flush(t.Context()))
	if got := w.mark(w.load()).Positions; !slices.Equal(got, []changelog.StreamPosition{next(0, 20), next(1, 33)}) {
		t.Errorf("after a restart: %v", got)
	}
}
