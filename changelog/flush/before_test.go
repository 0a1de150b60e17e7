package flush

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

const firstName = "shop.parked"

// pair is a table, and the one whose rows are to be in the lake before those of the same append.
type pair struct {
	*world

	n     *node
	first changelog.TableID
	rows  map[int64]changelog.SeqNum // of first, by the offset that its append ends at
}

func newPair(t *testing.T, seed uint64) *pair {
	w := newWorld(t, seed)
	n := w.open()
	p := &pair{world: w, n: n, rows: map[int64]changelog.SeqNum{}}
	p.first = must(n.reg.Create(t.Context(), firstName, w.schemas[0], state.TopicRef{}, nil)).ID
	return p
}

func (p *pair) options() Options {
	o := p.world.options()
	o.MaxRows = 1 + p.rnd.IntN(20)
	o.Before = func(name string) string {
		if name == tableName {
			return firstName
		}
		return ""
	}
	return o
}

// append appends a record with a change of either table or both, as parking a record does.
func (p *pair) append() {
	p.tb.Helper()
	at := changelog.Position{Source: "k", Topic: "t", Offset: p.offset}
	p.offset++
	a := changelog.Append{Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "t"}, Next: p.offset}}}
	which := p.rnd.IntN(3)
	if which != 0 {
		a.Tables = append(a.Tables, changelog.TableAppend{Table: p.n.id, Changes: []changelog.Change{p.change(int64(p.rnd.IntN(10)), at)}})
	}
	if which != 1 {
		c := p.change(at.Offset, changelog.Position{})
		c.Op, c.Before = changelog.OpCreate, nil
		if c.After == nil {
			c.After = p.row([]changelog.Value{{B: []byte("x")}, {I: at.Offset}})
		}
		a.Tables = append(a.Tables, changelog.TableAppend{Table: p.first, Changes: []changelog.Change{c}})
	}
	got := must(p.n.store.Append(p.tb.Context(), a))
	p.rows[p.offset] = p.rows[p.offset-1]
	if seq, ok := got.Last[p.first]; ok {
		p.rows[p.offset] = seq
	}
}

// check holds what the lake has of the table against what it has of the first.
func (p *pair) check() (flushed changelog.SeqNum) {
	p.tb.Helper()
	lake := must(p.catalog.Load(p.tb.Context(), tableName))
	mark, _, err := lake.LastCommit()
	if err != nil {
		p.tb.Fatal(err)
	}
	has := changelog.SeqNum(0)
	if first, err := p.catalog.Load(p.tb.Context(), firstName); err == nil {
		m, _, err := first.LastCommit()
		if err != nil {
			p.tb.Fatal(err)
		}
		if has = m.To; len(m.Positions) > 0 {
			p.tb.Errorf("the first table says that sources are read up to %v", m.Positions)
		}
	}
	for _, at := range mark.Positions {
		if want := p.rows[at.Next]; has < want {
			p.tb.Errorf("the lake's %s is behind offset %d, with %d rows of %d in %s", tableName, at.Next, has, want, firstName)
		}
	}
	return mark.To
}

// TestFlushBefore (P4): no flush of a table is in the lake before the rows that its parked records got by the same appends, though
// commits fail, and answers are lost. It waits, also for a Flusher that is only about to be started.
func TestFlushBefore(t *testing.T) {
	p := newPair(t, 11)
	var fails atomic.Int64
	p.every = func(_ context.Context, a table.Attempt, commit func() error) error {
		if a.Store != mixed.StoreChange || a.ID == "" {
			return commit()
		}
		switch fails.Add(1) % 5 {
		case 0:
			return errLost
		case 1:
			return errors.Join(commit(), errLost)
		}
		err := commit()
		return err
	}
	s := must(New(p.n.store, p.n.reg, p.catalog, p.options()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	p.append()
	for range 12 {
		for range 10 {
			p.append()
		}
		time.Sleep(10 * time.Millisecond)
		if _, err := p.catalog.Load(t.Context(), tableName); err == nil {
			p.check()
		}
	}
	_, applied, err := p.n.store.Bounds(p.n.id)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); must(p.n.reg.Progress(p.n.id)).Flushed < applied; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("flushed %d of %d", must(p.n.reg.Progress(p.n.id)).Flushed, applied)
		}
	}
	if got := p.check(); got != applied {
		t.Errorf("the lake has %d of %d", got, applied)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestFlushBeforeFails: while the first table cannot be flushed, the other is not, but it is not given up either; and without
// rows that are waited for it goes on.
func TestFlushBeforeFails(t *testing.T) {
	p := newPair(t, 12)
	broken := true
	p.every = func(_ context.Context, a table.Attempt, commit func() error) error {
		if broken && a.Table == firstName {
			return errLost
		}
		return commit()
	}
	s := must(New(p.n.store, p.n.reg, p.catalog, p.options()))
	f, first := must(s.Flusher(p.n.id)), must(s.Flusher(p.first))
	f.flushNow = func(ctx context.Context, id changelog.TableID) error {
		if id != p.first {
			t.Errorf("flush of table %d", id)
		}
		_, err := first.Flush(ctx)
		return err
	}
	for p.rows[p.offset] == 0 || p.offset < 10 {
		p.append()
	}
	_, err := f.Flush(t.Context())
	if err == nil || !strings.Contains(err.Error(), firstName+" has to be flushed first") || permanent(err) != nil {
		t.Errorf("got %v", err)
	}
	if _, err := p.catalog.Load(t.Context(), tableName); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("the table is in the lake: %v", err)
	}
	f.flushNow = func(context.Context, changelog.TableID) error { return ErrDiverged }
	if _, err := f.Flush(t.Context()); err == nil || permanent(err) != nil {
		t.Errorf("got %v", err)
	}
	f.flushNow = s.FlushNow // no Flusher runs
	if _, err := f.Flush(t.Context()); err == nil || permanent(err) != nil {
		t.Errorf("got %v", err)
	}
	broken = false
	if _, err := first.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for must(p.n.reg.Progress(p.first)).Flushed < p.rows[p.offset] {
		must(first.Flush(t.Context()))
	}
	if seq, err := f.Flush(t.Context()); err != nil || seq == 0 {
		t.Errorf("flushed %d, %v", seq, err)
	}
	p.check()
}
