package flush

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/merge"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

func newDisk() *vfs.MemFS { return vfs.NewCrashableMem() }

// entries turns merged rows into those that logstore.PutRows takes.
func entries(rows iter.Seq2[merge.Row, error]) iter.Seq2[logstore.RowEntry, error] {
	return func(yield func(logstore.RowEntry, error) bool) {
		for row, err := range rows {
			if !yield(logstore.RowEntry{Key: row.Key, Seq: row.Seq, Row: row.Row}, err) {
				return
			}
		}
	}
}

// hiding returns functions that make the catalog unreadable, and readable again.
func (w *world) hiding() (hide, show func()) {
	db := must(sql.Open("sqlite", filepath.Join(w.dir, "catalog.db")+"?_pragma=busy_timeout(5000)"))
	w.tb.Cleanup(func() { _ = db.Close() })
	rename := func(from, to string) func() {
		return func() { must(db.Exec("ALTER TABLE " + from + " RENAME TO " + to)) }
	}
	return rename("iceberg_tables", "hidden"), rename("hidden", "iceberg_tables")
}

// TestSetRun runs a Set on tables that come and go, with commits that fail now and then.
func TestSetRun(t *testing.T) {
	w := newWorld(t, 5)
	n := w.open()
	calls := 0
	w.setHook(func(_ context.Context, _ table.Attempt, commit func() error) error {
		calls++
		if calls%2 == 0 {
			return errLost
		}
		return commit()
	})
	o := w.options()
	o.Registerer = prometheus.NewPedanticRegistry()
	s := must(New(n.store, n.reg, w.catalog, o))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for range 10 {
		w.append(n, 20, 30)
		time.Sleep(5 * time.Millisecond)
	}
	w.append(n, 1, 1)
	_, applied, err := n.store.Bounds(n.id)
	if err != nil {
		t.Fatal(err)
	}
	for must(n.reg.Progress(n.id)).Flushed < applied {
		if err := s.FlushNow(t.Context(), n.id); err != nil && !errors.Is(err, errLost) {
			t.Fatal(err)
		}
	}
	w.check(n, true)
	second := must(n.reg.Create(t.Context(), "shop.items", w.schemas[0], state.TopicRef{Source: "k", Topic: "i"}, nil))
	must(n.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: second.ID, Changes: []changelog.Change{
		{Op: changelog.OpDelete, Key: w.key(1), Position: changelog.Position{Source: "k", Topic: "i"}},
	}}}}))
	for must(n.reg.Progress(second.ID)).Flushed == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := n.store.Drop(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	for s.FlushNow(t.Context(), second.ID) == nil {
		time.Sleep(time.Millisecond)
	}
	if families, err := o.Registerer.(*prometheus.Registry).Gather(); err != nil || len(families) < 6 {
		t.Errorf("%d metric families, %v", len(families), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestOptions reports all that is wrong at once.
func TestOptions(t *testing.T) {
	o := Options{Interval: -1, MaxRows: -1, Buckets: 3, MinBackoff: time.Hour}
	o.EnsureDefaults()
	err := o.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("%v", err)
	}
}

// TestSetDiverged: a table that has diverged is stopped, says why, and is not written; the others go on.
func TestSetDiverged(t *testing.T) {
	w := newWorld(t, 1)
	n := w.open()
	second := must(n.reg.Create(t.Context(), "shop.items", w.schemas[0], state.TopicRef{Source: "k", Topic: "i"}, nil))
	change := func() {
		must(n.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: second.ID, Changes: []changelog.Change{
			{Op: changelog.OpDelete, Key: w.key(1), Position: changelog.Position{Source: "k", Topic: "i"}},
		}}}}))
	}
	w.append(n, 20, 30)
	w.drain(w.flusher(n, nil))
	if err := w.catalog.Drop(t.Context(), tableName, true); err != nil {
		t.Fatal(err)
	}
	w.append(n, 20, 30)
	o := w.options()
	reg := prometheus.NewPedanticRegistry()
	o.Registerer = reg
	s := must(New(n.store, n.reg, w.catalog, o))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for s.Stopped(n.id) == nil {
		time.Sleep(time.Millisecond)
	}
	for to := range changelog.SeqNum(3) {
		change()
		for must(n.reg.Progress(second.ID)).Flushed <= to {
			select {
			case err := <-done:
				t.Fatalf("Run ended: %v", err)
			case <-time.After(time.Millisecond):
			}
		}
	}
	if err := s.Stopped(n.id); !errors.Is(err, ErrDiverged) {
		t.Errorf("Stopped: %v", err)
	}
	if err := s.Stopped(second.ID); err != nil {
		t.Errorf("the other table is stopped: %v", err)
	}
	if err := s.FlushNow(t.Context(), n.id); !errors.Is(err, ErrDiverged) {
		t.Errorf("FlushNow: %v", err)
	}
	if _, err := w.catalog.Load(t.Context(), tableName); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("the table was created again: %v", err)
	}
	stopped := 0.0
	for _, f := range must(reg.Gather()) {
		if f.GetName() == "firn_flush_stopped" {
			stopped = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if stopped != 1 {
		t.Errorf("firn_flush_stopped is %g", stopped)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
