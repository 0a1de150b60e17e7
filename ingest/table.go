package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"firn/changelog"
	"firn/ingest/decode"
)

// table is one table that streams of this process feed. Its schema is evolved under one lock; what is decided is
// published by an atomic pointer, so that streams that need nothing new take none.
type table struct {
	name    string
	tables  Tables
	metrics *metrics
	current atomic.Pointer[Table] // nil: it is not made yet
	stale   staleKeys
	stopped atomic.Pointer[StoppedError] // nil: it takes records
	loaded  atomic.Bool                  // the stale keys are those of the log

	evolution sync.Mutex
	appends   chan struct{}         // has one element while a stream reads rows and appends what it makes of them
	free      []changelog.StaleMark // queues that a crash has left before they were replayed; guarded by evolution
	marks     chan struct{}         // has one element while an append that depends on stale marks, or changes them, is submitted
}

// lockMarks waits until nobody else submits an append that depends on the stale marks. It comes after enter, where both are needed.
func (t *table) lockMarks(ctx context.Context) (unlock func(), err error) {
	select {
	case t.marks <- struct{}{}:
		return func() { <-t.marks }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// freeQueues returns, once, the queues that wait for nothing.
func (t *table) freeQueues() []changelog.StaleMark {
	t.evolution.Lock()
	defer t.evolution.Unlock()
	free := t.free
	t.free = nil
	return free
}

// marked makes marks of a submitted append count, and returns how many keys are stale.
func (t *table) marked(marks []changelog.StaleMark) int {
	n := t.stale.apply(marks)
	t.metrics.stale.WithLabelValues(t.name).Set(float64(n))
	return n
}

// enter waits until no other stream is between reading the table's rows and appending changes of them.
func (t *table) enter(ctx context.Context) (leave func(), err error) {
	select {
	case t.appends <- struct{}{}:
		return func() { <-t.appends }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open looks up the table, if it is there, and reads its stale keys once.
func (t *table) open(ctx context.Context, log Log) error {
	t.evolution.Lock()
	defer t.evolution.Unlock()
	return t.openLocked(ctx, log)
}

func (t *table) openLocked(ctx context.Context, log Log) error {
	now, ok := t.tables.Table(t.name)
	if !ok {
		return nil
	}
	t.current.Store(now)
	if t.loaded.Load() {
		return nil
	}
	var marks []changelog.StaleMark
	for m, err := range log.StaleKeys(ctx, now.ID) {
		if err != nil {
			return fmt.Errorf("read stale keys of %s: %w", t.name, err)
		}
		marks = append(marks, m)
		if queuesFreely(&m) {
			t.free = append(t.free, m)
		}
	}
	t.marked(marks)
	t.loaded.Store(true)
	return nil
}

// plan returns the table and the mapping of shape to it, and makes or evolves it to hold the shape's columns: the union
// of all that was asked for, whatever the order (spec/debezium.md 4.4).
//
// Errors: a *decode.Rejected, the shape does not fit; a *ClashError, another topic feeds the table; anything else is
// final.
func (t *table) plan(ctx context.Context, log Log, shape *decode.Shape, o decode.PlanOptions, topic Topic, merges bool) (*Table, *decode.Mapping, error) {
	t.evolution.Lock()
	defer t.evolution.Unlock()
	for {
		if err := t.openLocked(ctx, log); err != nil {
			return nil, nil, err
		}
		now := t.current.Load()
		var schema *changelog.Schema
		if now != nil {
			if err := t.claimLocked(ctx, now, topic, merges); err != nil {
				return nil, nil, err
			}
			schema = now.Schemas.Current()
		}
		mapping, next, err := decode.Plan(schema, shape, o)
		if err != nil {
			return nil, nil, err
		}
		if next == nil {
			return t.current.Load(), mapping, nil
		}
		if now != nil {
			if err := now.Schemas.Follows(next); err != nil {
				return nil, nil, &decode.Rejected{Reason: decode.ReasonEvolutionBlocked, Detail: err.Error()}
			}
			for _, f := range now.Partition {
				if next.OrdinalOf(f.SourceID) < 0 {
					return nil, nil, &decode.Rejected{Reason: decode.ReasonEvolutionBlocked, Detail: fmt.Sprintf(
						"the table is partitioned by %s: its column cannot be dropped; take it out of the route's drops", f)}
				}
			}
		}
		made, err := t.changeLocked(ctx, now, next, topic)
		if errors.Is(err, ErrTableExists) || errors.Is(err, ErrTableChanged) {
			continue
		}
		if errors.Is(err, ErrTableUnfit) {
			return nil, nil, &decode.Rejected{Reason: reasonTableUnfit, Detail: err.Error()}
		}
		if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
			return nil, nil, rejected
		}
		if err != nil {
			return nil, nil, fmt.Errorf("change schema of %s: %w", t.name, err)
		}
		t.metrics.evolutions.WithLabelValues(t.name).Inc()
		t.current.Store(made)
		if now == nil {
			t.loaded.Store(true) // a new table has none
		}
		return made, mapping, nil
	}
}

func (t *table) changeLocked(ctx context.Context, now *Table, next *changelog.Schema, topic Topic) (*Table, error) {
	if now == nil {
		return t.tables.Create(ctx, t.name, next, topic)
	}
	return t.tables.AddSchema(ctx, now.ID, next)
}

// claimLocked records that topic feeds the table, unless only a route may add topics to it.
func (t *table) claimLocked(ctx context.Context, now *Table, topic Topic, merges bool) error {
	if slices.Contains(now.Topics, topic) {
		return nil
	}
	if len(now.Topics) > 0 && !merges {
		return &ClashError{Source: topic.Source, Topic: topic.Topic, Table: t.name, Other: now.Topics[0]}
	}
	made, err := t.tables.AddTopic(ctx, now.ID, topic)
	if err != nil {
		return fmt.Errorf("add topic %s of source %s to %s: %w", topic.Topic, topic.Source, t.name, err)
	}
	t.current.Store(made)
	return nil
}

// schemas returns the table's history, which holds the schema of each of its rows.
func (t *table) schemas() changelog.Schemas { return t.current.Load().Schemas }
