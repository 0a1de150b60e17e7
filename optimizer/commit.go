package optimizer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// commitTimeout bounds a commit that was begun, and what has to follow it, when the process is asked to stop.
const commitTimeout = time.Minute

// commitAttempts is how often a commit of unknown outcome is sent again, under its id.
const commitAttempts = 3

// owner is under which name and epoch commits are made.
type owner struct {
	writer string
	epoch  changelog.Epoch
}

// propType is the summary key that tells what kind of optimizing made a snapshot.
const propType = "firn.optimize"

// commit publishes what a task wrote: one commit of the base store, only on the snapshot that was planned on; without a key
// on any one in which the task's files are live and have lost no more rows. If it certainly did not happen the new files are removed; if its outcome stays unknown they stay (P2).
func commit(ctx context.Context, l *lake, who owner, t fmt.Stringer, out *outputs, c table.BaseCommit) (table.Snapshot, error) {
	c.ID, c.Writer, c.Epoch = rand.Text(), who.writer, who.epoch // P2, P3
	c.Summary = map[string]string{mixed.SummaryProducer: mixed.ProducerOptimize, propType: t.String()}
	c.Sequence = l.rules.Sequence
	c.Expect = table.ExpectNone
	if s := l.t.Base().Snapshot(); s != nil {
		c.Expect = s.ID
		if c.Replace {
			c.DataSequence = s.Sequence
		}
		if !l.t.Keyed() {
			c.Expect, c.Planned = 0, s.Sequence // flushes commit to the base store, too: they are no reason to plan again
		}
	}
	for _, f := range out.files {
		n := table.NewFile{Path: f.path, Partition: f.partition, Schema: f.schema, Rows: f.Rows, Bytes: f.Bytes, Footer: f.Metadata, NaNs: f.NaNs, Referenced: f.referenced}
		if f.content == mixed.PositionDelete {
			c.AddDeletes = append(c.AddDeletes, n)
		} else {
			c.Add = append(c.Add, n)
		}
	}
	if len(c.Add)+len(c.AddDeletes)+len(c.Remove) == 0 && len(c.RemoveDeletes) > 0 {
		c.Summary[mixed.SummaryProducer] = mixed.ProducerDangling
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	snap, err := l.t.CommitBase(ctx, c)
	for i := 1; i < commitAttempts && errors.Is(err, table.ErrUnknownOutcome); i++ {
		if sleep(ctx, time.Duration(i)*time.Second) != nil {
			break
		}
		snap, err = l.t.CommitBase(ctx, c)
	}
	switch {
	case err == nil:
		return snap, nil
	case errors.Is(err, table.ErrUnknownOutcome):
		return snap, fmt.Errorf("%s of %s: its %d files stay: %w", t, l.t.Name(), len(out.created), err)
	case errors.Is(err, table.ErrFenced):
		err = fenced(ctx, l, who, err)
	}
	return snap, errors.Join(fmt.Errorf("%s of %s: %w", t, l.t.Name(), err), out.remove())
}

// fenced tells another writer's newer epoch, for which work on the table ends, from one that our own flusher has claimed since the work was
// planned: then it is planned again.
func fenced(ctx context.Context, l *lake, who owner, err error) error {
	now, reloadErr := l.t.Reload(ctx)
	if reloadErr != nil {
		return errors.Join(err, reloadErr)
	}
	writer, readErr := now.Writer()
	if readErr != nil || writer != who.writer {
		return errors.Join(fmt.Errorf("%w: %w", state.ErrFenced, err), readErr)
	}
	return &table.ConflictError{Table: l.t.Name(), Store: now.Base().Kind(), Reason: "this writer has claimed a newer epoch meanwhile"}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// moveIndex brings the position index to the base snapshot that merges made: in key order in each partition, and with the
// progress, in one synced batch.
func moveIndex(ctx context.Context, x *state.Index, out *outputs, merges []*merge, snapshot int64, progress func(*state.Progress)) (err error) {
	b := x.Begin()
	defer func() { err = errors.Join(err, b.Close()) }()
	numbers := make([]uint64, len(out.created))
	for _, f := range out.files {
		if f.content == mixed.Base {
			numbers[f.number] = b.AddFile(f.path)
		}
	}
	for _, m := range merges {
		m.moveRows(b, numbers)
	}
	return b.Commit(ctx, snapshot, progress)
}

// moveRows adds a merge's part to a batch of the index. numbers are those of the new files, by their place in outputs.created.
func (m *merge) moveRows(b *state.IndexBatch, numbers []uint64) {
	for _, p := range m.gone {
		b.DropFile(p)
	}
	for _, e := range m.order {
		key := indexKey(m.fold.key(int(e)), m.partition)
		switch m.ends[e] {
		case added, replaced:
			b.Set(key, numbers[m.moves[e].file], int64(m.moves[e].row))
		case removed:
			b.Delete(key)
		case untouched:
		}
	}
}
