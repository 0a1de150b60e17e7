package optimizer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// Done is what a task came to.
type Done struct {
	Task     Task
	Executed bool // false in a dry run
	Snapshot int64
	Sequence int64 // Merge: the partition's new optimized sequence

	RowsRead, RowsWritten, RowsDeleted int64
	Keys                               int64 // Merge: distinct keys
	BytesRead, BytesWritten            int64
	FilesAdded, FilesRemoved           int
	Took                               time.Duration
}

// execute carries out one task, or all Merge tasks of a plan together, and commits it. x is nil where there is no position
// index; then a merge scans the base store.
func (o *Optimizer) execute(ctx context.Context, l *lake, tasks []Task, s *tableState, who owner) ([]Done, error) {
	began := o.options.Now()
	out := newOutputs(l.t.FS(), l.t.Base().Location(), l.schema, o.files, l.rules.TargetBytes)
	var done []Done
	var err error
	switch tasks[0].Action {
	case Merge:
		done, err = o.runMerge(ctx, l, tasks, s, who, out)
	case Rewrite:
		done, err = o.runRewrite(ctx, l, tasks[0], s, who, out)
	case Collect:
		done, err = o.runCollect(ctx, l, tasks[0], s, who, out)
	}
	for i := range done {
		done[i].Executed, done[i].Took = true, o.options.Now().Sub(began)
	}
	return done, err
}

// abandon removes the files of a task that did not come to its commit.
func abandon(out *outputs, err error) error { return errors.Join(err, out.remove()) }

func (o *Optimizer) runMerge(ctx context.Context, l *lake, tasks []Task, s *tableState, who owner, out *outputs) ([]Done, error) {
	if len(tasks) != 1 {
		return nil, fmt.Errorf("merge of %s: %d partitions: %w", l.t.Name(), len(tasks), table.ErrUnsupported)
	}
	task := tasks[0]
	if err := s.index(ctx, o, l); err != nil {
		return nil, err
	}
	var x index = &scanIndex{ctx: ctx, l: l, o: o.files}
	if s.x != nil {
		x = s.x
	}
	m := &merge{
		fs: l.t.FS(), schema: l.schema, types: l.schema.KeyTypes(), options: o.files, rules: l.rules, buckets: l.rules.Buckets,
		base: l.base, deletes: l.deletePaths(), out: out,
	}
	if err := m.run(ctx, task, x); err != nil {
		if errors.Is(err, errStale) && s.x != nil {
			err = errors.Join(err, s.x.Reset(ctx)) // it is rebuilt at the next attempt
		}
		return nil, abandon(out, err)
	}
	d := Done{
		Task: task, RowsRead: m.stats.rows, RowsWritten: m.stats.stayed, RowsDeleted: m.stats.deleted, Keys: m.stats.keys,
		BytesRead: m.stats.bytes, Sequence: task.Changes[len(task.Changes)-1].Sequence,
	}
	c := table.BaseCommit{Optimized: maps.Clone(l.view.Optimized)}
	if c.Optimized == nil {
		c.Optimized = map[string]int64{}
	}
	c.Optimized[task.Partition] = d.Sequence
	gone := map[string]bool{}
	for _, p := range m.gone {
		gone[p] = true
		c.Remove = append(c.Remove, l.files[p])
	}
	c.RemoveDeletes = l.deadDeletes(gone)
	seq, err := l.optimized(task.Changes)
	if err != nil {
		return nil, abandon(out, err)
	}
	if err := o.publish(ctx, l, who, &d, out, c); err != nil {
		return nil, err
	}
	if s.x == nil {
		return []Done{d}, nil
	}
	return []Done{d}, s.after(ctx, o, func(ctx context.Context) error {
		return m.moveIndex(ctx, s.x, m.order, d.Snapshot, func(p *state.Progress) { p.Optimized = max(p.Optimized, seq) })
	})
}

// publish commits and completes d.
func (o *Optimizer) publish(ctx context.Context, l *lake, who owner, d *Done, out *outputs, c table.BaseCommit) error {
	if err := o.step("written"); err != nil {
		return abandon(out, err)
	}
	started := time.Now()
	snap, err := commit(ctx, l, who, d.Task.Type, out, c)
	o.metrics.commit.WithLabelValues(table.Outcome(err)).Observe(time.Since(started).Seconds())
	if err != nil {
		return err
	}
	d.Snapshot, d.FilesAdded, d.FilesRemoved = snap.ID, len(out.files), len(c.Remove)+len(c.RemoveDeletes)
	for _, f := range out.files {
		d.BytesWritten += f.Bytes
	}
	return o.step("committed")
}

func (o *Optimizer) runRewrite(ctx context.Context, l *lake, task Task, s *tableState, who owner, out *outputs) ([]Done, error) {
	rows, err := rewrite(ctx, l, task, out)
	if err != nil {
		return nil, abandon(out, err)
	}
	d := Done{Task: task, RowsWritten: rows}
	c := table.BaseCommit{Replace: true}
	gone := map[string]bool{}
	for _, f := range task.Data {
		gone[f.Path] = true
		c.Remove = append(c.Remove, l.files[f.Path])
		d.RowsRead, d.BytesRead, d.RowsDeleted = d.RowsRead+f.Rows, d.BytesRead+f.Bytes, d.RowsDeleted+f.Deleted
	}
	c.RemoveDeletes = l.deadDeletes(gone)
	valid := s.valid(l)
	if err := o.publish(ctx, l, who, &d, out, c); err != nil {
		return nil, err
	}
	if !valid {
		return []Done{d}, nil // there is no index, or it has to be rebuilt anyway
	}
	return []Done{d}, s.after(ctx, o, func(ctx context.Context) (err error) {
		b := s.x.Begin()
		defer func() { err = errors.Join(err, b.Close()) }()
		for _, p := range sortedPaths(gone) {
			b.DropFile(p)
		}
		var added []string
		for _, f := range out.files {
			if f.content == mixed.Base {
				added = append(added, f.path)
			}
		}
		if err := addRows(ctx, l.t.FS(), l.schema, b, added, nil, o.files); err != nil {
			return err
		}
		return b.Commit(ctx, d.Snapshot, nil)
	})
}

func (o *Optimizer) runCollect(ctx context.Context, l *lake, task Task, s *tableState, who owner, out *outputs) ([]Done, error) {
	rows, err := collect(ctx, l, task, out)
	if err != nil {
		return nil, abandon(out, err)
	}
	d := Done{Task: task, RowsWritten: rows}
	c := table.BaseCommit{Replace: true}
	for _, f := range task.Deletes {
		c.RemoveDeletes = append(c.RemoveDeletes, l.files[f.Path])
		d.RowsRead, d.BytesRead = d.RowsRead+f.Rows, d.BytesRead+f.Bytes
	}
	valid := s.valid(l)
	if err := o.publish(ctx, l, who, &d, out, c); err != nil {
		return nil, err
	}
	if !valid {
		return []Done{d}, nil
	}
	return []Done{d}, s.after(ctx, o, func(ctx context.Context) (err error) {
		b := s.x.Begin()
		defer func() { err = errors.Join(err, b.Close()) }()
		return b.Commit(ctx, d.Snapshot, nil)
	})
}
