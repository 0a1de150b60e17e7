package optimizer

import (
	"context"
	"errors"
	"fmt"
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
	out := newOutputs(l.t.FS(), l.t.Base(), l.schema, o.files, l.rules.TargetBytes)
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

// runMerge merges in all partitions of the tasks and publishes it in one commit.
func (o *Optimizer) runMerge(ctx context.Context, l *lake, tasks []Task, s *tableState, who owner, out *outputs) ([]Done, error) {
	if err := s.index(ctx, o, l); err != nil {
		return nil, err
	}
	placed, err := s.place(ctx, l)
	if err != nil {
		return nil, err
	}
	defer placed()
	c := table.BaseCommit{Optimized: l.optimizedAfter(tasks), From: map[string]int64{}}
	gone := map[string]bool{}
	var merges []*merge
	var done []Done
	var taken []ChangeFile
	for _, task := range tasks {
		m, err := o.mergeOne(ctx, l, task, s, out)
		if err != nil {
			return nil, abandon(out, fmt.Errorf("minor of %s: %w", l.t.Name(), err))
		}
		merges = append(merges, m)
		done = append(done, Done{
			Task: task, RowsRead: m.stats.rows, RowsWritten: m.stats.stayed, RowsDeleted: m.stats.deleted, Keys: m.stats.keys,
			BytesRead: m.stats.bytes, Sequence: task.Changes[len(task.Changes)-1].Sequence,
		})
		taken = append(taken, task.Changes...)
		c.From[task.Partition] = task.Changes[0].Sequence
		for _, p := range m.gone {
			gone[p] = true
			c.Remove = append(c.Remove, l.files[p])
		}
	}
	c.RemoveDeletes = l.deadDeletes(gone)
	seq, err := l.optimized(taken)
	if err == nil {
		c.Watermark, err = l.t.WatermarkOf(seq)
	}
	if err != nil {
		return nil, abandon(out, err)
	}
	if err := o.publish(ctx, l, who, done, out, c); err != nil {
		return nil, err
	}
	if s.x == nil {
		return done, nil
	}
	return done, s.after(ctx, o, func(ctx context.Context) error {
		return moveIndex(ctx, s.x, out, merges, done[0].Snapshot, func(p *state.Progress) { p.Optimized = max(p.Optimized, seq) })
	})
}

// place keeps the types of the key as they are while base files are placed by their hash; l.rules are then as these types ask for.
func (s *tableState) place(ctx context.Context, l *lake) (done func(), err error) {
	if s.reg == nil {
		return func() {}, nil
	}
	if done, err = s.reg.Place(ctx, s.id); err != nil {
		return nil, fmt.Errorf("optimize %s: %w", s.name, err)
	}
	s.fitBuckets(l)
	return done, nil
}

// mergeOne merges in one partition; the new files are in out.
func (o *Optimizer) mergeOne(ctx context.Context, l *lake, task Task, s *tableState, out *outputs) (*merge, error) {
	var x index = &scanIndex{ctx: ctx, l: l, partition: task.Partition, o: o.files}
	if s.x != nil {
		x = s.x
	}
	m := &merge{
		fs: l.t.FS(), schema: l.schema, types: l.schema.KeyTypes(), options: o.files, rules: l.rules,
		base: l.base, deletes: l.deletesOf(task.Partition), applies: l.applies, tree: newTree(l.view.Base, task.Partition, l.rules), out: out,
	}
	err := m.run(ctx, task, x)
	if errors.Is(err, errStale) && s.x != nil {
		err = errors.Join(err, s.x.Reset(ctx)) // it is rebuilt at the next attempt
	}
	return m, err
}

// optimizedAfter returns the optimized sequences of all partitions once merges are done. Those of partitions without a live
// change file are left out: no reader asks for them, and there is no end to partitions by time.
func (l *lake) optimizedAfter(merges []Task) map[string]int64 {
	seqs := map[string]int64{}
	for _, f := range l.view.Change {
		if seq, ok := l.view.Optimized[f.Partition]; ok {
			seqs[f.Partition] = seq
		}
	}
	for _, task := range merges {
		seqs[task.Partition] = task.Changes[len(task.Changes)-1].Sequence
	}
	return seqs
}

// publish commits and completes done, the only tasks in out.
func (o *Optimizer) publish(ctx context.Context, l *lake, who owner, done []Done, out *outputs, c table.BaseCommit) error {
	if err := o.step("written"); err != nil {
		return abandon(out, err)
	}
	started := time.Now()
	snap, err := commit(ctx, l, who, done[0].Task.Type, out, c)
	o.metrics.commit.WithLabelValues(table.Outcome(err)).Observe(time.Since(started).Seconds())
	if err != nil {
		return err
	}
	for i := range done {
		d := &done[i]
		d.Snapshot = snap.ID
		for _, f := range out.files {
			if f.partition == d.Task.Partition {
				d.BytesWritten, d.FilesAdded = d.BytesWritten+f.Bytes, d.FilesAdded+1
			}
		}
		for _, files := range [][]table.File{c.Remove, c.RemoveDeletes} {
			for _, f := range files {
				if f.Partition == d.Task.Partition {
					d.FilesRemoved++
				}
			}
		}
	}
	return o.step("committed")
}

func (o *Optimizer) runRewrite(ctx context.Context, l *lake, task Task, s *tableState, who owner, out *outputs) ([]Done, error) {
	placed, err := s.place(ctx, l)
	if err != nil {
		return nil, err
	}
	defer placed()
	if l.rules.Buckets == 1 {
		task.Spread = 1 // the plan may be older than a wider key
	}
	rows, err := rewrite(ctx, l, task, out)
	if err != nil {
		return nil, abandon(out, err)
	}
	done := []Done{{Task: task, RowsWritten: rows}}
	d := &done[0]
	c := table.BaseCommit{Replace: true}
	gone := map[string]bool{}
	for _, f := range task.Data {
		gone[f.Path] = true
		c.Remove = append(c.Remove, l.files[f.Path])
		d.RowsRead, d.BytesRead, d.RowsDeleted = d.RowsRead+f.Rows, d.BytesRead+f.Bytes, d.RowsDeleted+f.Deleted
	}
	c.RemoveDeletes = l.deadDeletes(gone)
	valid := s.valid(l)
	if err := o.publish(ctx, l, who, done, out, c); err != nil {
		return nil, err
	}
	if !valid {
		return done, nil // there is no index, or it has to be rebuilt anyway
	}
	return done, s.after(ctx, o, func(ctx context.Context) (err error) {
		b := s.x.Begin()
		defer func() { err = errors.Join(err, b.Close()) }()
		for _, p := range sortedPaths(gone) {
			b.DropFile(p)
		}
		var added []DataFile
		for _, f := range out.files {
			if f.content == mixed.Base {
				added = append(added, DataFile{Path: f.path, Partition: f.partition})
			}
		}
		if err := addRows(ctx, l, b, added, nil, l.applies, o.files); err != nil {
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
	done := []Done{{Task: task, RowsWritten: rows}}
	d := &done[0]
	c := table.BaseCommit{Replace: true}
	for _, f := range task.Deletes {
		c.RemoveDeletes = append(c.RemoveDeletes, l.files[f.Path])
		d.RowsRead, d.BytesRead = d.RowsRead+f.Rows, d.BytesRead+f.Bytes
	}
	valid := s.valid(l)
	if err := o.publish(ctx, l, who, done, out, c); err != nil {
		return nil, err
	}
	if !valid {
		return done, nil
	}
	return done, s.after(ctx, o, func(ctx context.Context) (err error) {
		b := s.x.Begin()
		defer func() { err = errors.Join(err, b.Close()) }()
		return b.Commit(ctx, d.Snapshot, nil)
	})
}
