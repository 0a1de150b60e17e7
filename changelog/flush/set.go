// Package flush brings the log into the lake: for each table, ranges of changes become change files and one Iceberg
// append each, of which the registry learns afterwards.
//
//	log (flushed, applied] ─► I and ED files, synced ─► one commit: files and mark ─► Progress.Flushed
//	                                                      │
//	             crash here: files that nothing names     │   crash here: the mark in the lake is one ahead of the
//	             (an orphan cleaner's)                    │   progress, and names us: recover adopts it (P2)
//
// The mark (table.FlushMark) in a snapshot's summary is the only truth about a flush. It names the commit, its writer
// and epoch, the range of SeqNums and the source positions from which everything after the range can be read again (P4).
package flush

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"firn/changelog"
	"firn/state"
)

// Tables is what a Set needs of the registry. *state.Registry implements it.
type Tables interface {
	Registry
	Tables() []*state.Table
	// Changed returns a channel that is closed when a table comes, goes or changes.
	Changed() <-chan struct{}
}

// Set runs a Flusher for each table of a registry.
type Set struct {
	log     Log
	tables  Tables
	catalog Catalog
	o       Options
	metrics *metrics
	slots   chan struct{}

	mu struct {
		sync.Mutex
		running map[changelog.TableID]*Flusher
		stopped map[changelog.TableID]error // tables that a person must decide about
	}
}

// New returns a Set. Error: bad options.
func New(log Log, tables Tables, catalog Catalog, o Options) (*Set, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("flush options: %w", err)
	}
	s := &Set{log: log, tables: tables, catalog: catalog, o: o, metrics: newMetrics(o.Registerer), slots: make(chan struct{}, o.Parallel)}
	s.mu.running, s.mu.stopped = map[changelog.TableID]*Flusher{}, map[changelog.TableID]error{}
	return s, nil
}

// Flusher returns a new Flusher of one table of the registry. A table may have only one that is in use. Error:
// state.ErrNotFound.
func (s *Set) Flusher(id changelog.TableID) (*Flusher, error) {
	entry, ok := s.tables.ByID(id)
	if !ok {
		return nil, fmt.Errorf("flush table %d: %w", id, state.ErrNotFound)
	}
	o := s.o
	if o.Table != nil {
		o.Interval, o.MaxBytes = o.Table(entry.Name)
	}
	return &Flusher{
		id: id, name: entry.Name, log: s.log, registry: s.tables, catalog: s.catalog, o: &o, metrics: s.metrics, slots: s.slots,
		logger: s.o.Logger.With(slog.String("table", entry.Name)), perChange: 512, positions: positions{}, times: sourceTimes{}, nudge: make(chan chan<- error),
		done: make(chan struct{}), flushNow: s.FlushNow,
	}, nil
}

// Run runs a Flusher for each table, also those that are created meanwhile, until ctx ends; a dropped table's ends by
// itself. A table that has diverged is stopped, until the process is started again: Stopped tells why, and the others go on.
//
// It returns nil after a clean stop. Error: state.ErrFenced, another writer owns a table (P3): the process should end, because
// the other one is fed by the same sources.
func (s *Set) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for ctx.Err() == nil {
		changed := s.tables.Changed()
		for _, t := range s.tables.Tables() {
			f, fresh, err := s.start(t.ID)
			if errors.Is(err, state.ErrNotFound) || err == nil && !fresh {
				continue
			}
			if err != nil {
				return errors.Join(err, g.Wait())
			}
			g.Go(func() error {
				err := f.Run(ctx)
				s.ended(f, err)
				if errors.Is(err, state.ErrNotFound) || errors.Is(err, ErrDiverged) {
					return nil
				}
				return err
			})
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return g.Wait()
}

func (s *Set) start(id changelog.TableID) (f *Flusher, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.mu.running[id]; f != nil || s.mu.stopped[id] != nil {
		return f, false, nil
	}
	if f, err = s.Flusher(id); err != nil {
		return nil, false, err
	}
	s.mu.running[id] = f
	return f, true, nil
}

// ended takes note that a Flusher has returned err.
func (s *Set) ended(f *Flusher, err error) {
	s.mu.Lock()
	delete(s.mu.running, f.id)
	if errors.Is(err, ErrDiverged) {
		s.mu.stopped[f.id] = err
	}
	s.mu.Unlock()
	if _, ok := s.tables.ByID(f.id); !ok {
		s.metrics.forget(f.name)
	} else if errors.Is(err, ErrDiverged) {
		s.metrics.stopped.WithLabelValues(f.name).Set(1)
		f.logger.Error("table stopped: nothing of it is written until it is mended and firn started again", slog.Any("err", err))
	}
}

// Stopped returns why a table is not written any more, an ErrDiverged; nil if it is.
func (s *Set) Stopped(id changelog.TableID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.stopped[id]
}

// FlushNow makes the running Flusher of a table flush what its log has, without waiting for the interval, and returns when
// it is committed. A batch that a limit cuts is followed by the next as usual. Errors: ErrDiverged, the table is stopped;
// state.ErrNotFound, no Flusher of it runs; ctx's; that of the flush.
func (s *Set) FlushNow(ctx context.Context, id changelog.TableID) error {
	s.mu.Lock()
	f, stopped := s.mu.running[id], s.mu.stopped[id]
	s.mu.Unlock()
	if stopped != nil {
		return stopped
	}
	if f == nil {
		return fmt.Errorf("flush table %d: %w", id, state.ErrNotFound)
	}
	answer := make(chan error, 1)
	select {
	case f.nudge <- answer:
	case <-f.done:
		return fmt.Errorf("flush table %d: %w", id, state.ErrNotFound)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-answer: // whoever took it answers
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
