// Package amorotest is a second optimizer for tests. It stands in for Amoro's server: its planner, executor and commit are
// written from the description of Amoro's (spec self-optimizing 7 to 9, spec mixed-format 6 and 7) and share nothing with
// firn's optimizer but the readers and writers of files and the catalog.
//
// It is deliberately simple: one task a partition (a file at the root node forces that in Amoro, too), rows one by one, all in
// memory. What matters is kept: a round works on the snapshots that it was planned on, however old; a partition is skipped
// if its optimized sequence has reached the round's first; the base files that were rewritten must be live at the commit,
// and nothing else is looked at; sequences are published as Puffin statistics of a marked snapshot; position deletes that
// are not needed any more leave in a commit of their own, which may fail.
package amorotest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// Optimizer optimizes one table.
type Optimizer struct {
	Catalog *table.Catalog
	Table   string
	// FragmentBytes: base files up to this size are rewritten, larger ones get position deletes.
	FragmentBytes int64
	// BaseOnly leaves change files alone: rounds rewrite base files, as Amoro's do where no change file is pending.
	BaseOnly bool
	// UpTo leaves change files of higher sequences for a later round, as Amoro's bound on files does. 0: none.
	UpTo int64
}

// Round is a planned round: what it read the snapshots of, and what it will do.
type Round struct {
	t     *table.Table
	tasks []*task
	read  map[string]int64 // the optimized sequences as Read found them; nil: Commit reads them
}

// Outcome is what a round came to.
type Outcome struct {
	Committed bool // there is a new snapshot
	Conflict  bool // a file to remove was gone: Amoro fails the round and plans anew
	Skipped   int  // partitions that somebody else had merged
	Snapshot  int64
	// Published is what Amoro would have published after a Read, where sequences may be lower than the table's. The catalog wrapper
	// does not let them go back: the statistics of Snapshot have the table's.
	Published map[string]int64
}

// task is the work on one partition.
type task struct {
	partition string
	fragments []table.File // to rewrite
	segments  []table.File // to write position deletes of
	inserts   []table.File
	deletes   []table.File // of the change store
	positions []table.File // position-delete files of the base store that are read
	obsolete  []table.File // those that name files of this task only
	from, to  int64        // sequences of the change files; 0: none

	data, pds []table.NewFile
}

// Plan looks at the table as it is. nil: there is nothing to do.
func (o *Optimizer) Plan(ctx context.Context) (*Round, error) {
	t, err := o.Catalog.Load(ctx, o.Table)
	if err != nil {
		return nil, err
	}
	if !t.Keyed() {
		return nil, nil //nolint:nilnil // such tables have no change files to merge
	}
	base, err := t.Base().Files(ctx)
	if err != nil {
		return nil, err
	}
	change, err := t.Change().Files(ctx)
	if err != nil {
		return nil, err
	}
	tasks := map[string]*task{}
	at := func(p string) *task {
		if tasks[p] == nil {
			tasks[p] = &task{partition: p}
		}
		return tasks[p]
	}
	for _, f := range base {
		k := at(f.Partition)
		switch {
		case f.Content == table.PositionDeletes:
			k.positions = append(k.positions, f)
		case f.Bytes <= o.FragmentBytes:
			k.fragments = append(k.fragments, f)
		default:
			k.segments = append(k.segments, f)
		}
	}
	for _, f := range change {
		if t.Merged(f) || o.BaseOnly || o.UpTo > 0 && f.DataSequence > o.UpTo {
			continue
		}
		k := at(f.Partition)
		if f.Info.Type == mixed.Insert {
			k.inserts = append(k.inserts, f)
		} else {
			k.deletes = append(k.deletes, f)
		}
	}
	r := &Round{t: t}
	for _, p := range slices.Sorted(maps.Keys(tasks)) {
		if k := tasks[p]; k.settle() {
			r.tasks = append(r.tasks, k)
		}
	}
	if len(r.tasks) == 0 {
		return nil, nil //nolint:nilnil // as documented
	}
	return r, nil
}

// settle decides what the task is; it reports whether there is any work.
func (k *task) settle() bool {
	if len(k.deletes) == 0 && len(k.positions) < 2 {
		k.segments = nil // they are left alone
	}
	if len(k.fragments)+len(k.segments)+len(k.inserts) == 0 {
		return false // delete files alone make no task
	}
	for _, f := range append(slices.Clone(k.inserts), k.deletes...) {
		if k.from == 0 || f.DataSequence < k.from {
			k.from = f.DataSequence
		}
		k.to = max(k.to, f.DataSequence)
	}
	return k.from > 0 || len(k.fragments) > 1 || len(k.segments) > 0 || len(k.fragments) == 1 && len(k.positions) > 0
}

// lsn orders rows and deletes.
type lsn struct{ txn, offset int64 }

func (l lsn) less(o lsn) bool { return l.txn < o.txn || l.txn == o.txn && l.offset < o.offset }

// baseOffset is the offset of base rows: after all changes of their transaction.
const baseOffset = int64(1<<63 - 1)

// Execute writes the round's new files.
func (r *Round) Execute(ctx context.Context) error {
	for _, k := range r.tasks {
		if err := r.execute(ctx, k); err != nil {
			return fmt.Errorf("partition %q: %w", k.partition, err)
		}
	}
	return nil
}

func (r *Round) execute(ctx context.Context, k *task) error {
	s := r.t.Schemas().Current()
	gone, err := r.positionsOf(k)
	if err != nil {
		return err
	}
	deleted := map[string]lsn{}
	for _, f := range k.deletes {
		err := r.each(ctx, f, s, true, func(key string, _ changelog.Row, at lsn, _ int64) error {
			if deleted[key].less(at) {
				deleted[key] = at
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	var rows []changelog.Row
	var txn int64
	for _, f := range append(slices.Clone(k.fragments), k.inserts...) {
		txn = max(txn, f.Info.Txn)
		err := r.each(ctx, f, s, f.Info.Type == mixed.Insert && slices.ContainsFunc(k.inserts, func(i table.File) bool { return i.Path == f.Path }),
			func(key string, row changelog.Row, at lsn, n int64) error {
				if !gone[f.Path][n] && !at.less(deleted[key]) {
					rows = append(rows, slices.Clone(row))
				}
				return nil
			})
		if err != nil {
			return err
		}
	}
	if len(rows) > 0 {
		if err := r.writeRows(k, s, txn, rows); err != nil {
			return err
		}
	}
	return r.writePositions(ctx, k, s, gone, deleted)
}

// positionsOf reads the task's position deletes, and finds those files that will not be needed.
func (r *Round) positionsOf(k *task) (map[string]map[int64]bool, error) {
	inPlan := map[string]bool{}
	for _, f := range append(slices.Clone(k.fragments), k.segments...) {
		inPlan[f.Path] = true
	}
	gone := map[string]map[int64]bool{}
	for _, f := range k.positions {
		reserved := false
		in, err := r.t.FS().Open(f.Path)
		if err != nil {
			return nil, err
		}
		d, err := datafile.OpenDeletes(in, in.Size(), datafile.Options{})
		if err != nil {
			return nil, errors.Join(err, in.Close())
		}
		err = d.Each(func(path []byte, pos int64) error {
			if gone[string(path)] == nil {
				gone[string(path)] = map[int64]bool{}
			}
			gone[string(path)][pos] = true
			reserved = reserved || !inPlan[string(path)]
			return nil
		})
		if err := errors.Join(err, d.Close(), in.Close()); err != nil {
			return nil, err
		}
		if !reserved {
			k.obsolete = append(k.obsolete, f)
		}
	}
	return gone, nil
}

// each visits the rows of a file.
func (r *Round) each(ctx context.Context, f table.File, s *changelog.Schema, offset bool,
	visit func(key string, row changelog.Row, at lsn, n int64) error,
) error {
	in, err := r.t.FS().Open(f.Path)
	if err != nil {
		return err
	}
	d, err := datafile.Open(in, in.Size(), s, offset, datafile.Options{})
	if err != nil {
		return errors.Join(err, in.Close())
	}
	rows := datafile.NewRows(s)
	for b, e := range d.Batches(ctx) {
		if err = e; err != nil {
			break
		}
		if err = rows.Reset(b); err != nil {
			break
		}
		for i := range rows.Len() {
			at := lsn{f.Info.Txn, baseOffset}
			if offset {
				at.offset, _ = rows.Offset(i)
			}
			if err = visit(string(rows.AppendKey(nil, i)), rows.AppendRow(nil, i), at, b.First+int64(i)); err != nil {
				break
			}
		}
	}
	return errors.Join(err, d.Close(), in.Close())
}

func (r *Round) create(k *task, typ mixed.FileType, node mixed.TreeNode, txn int64) (*table.Output, string, error) {
	path := r.t.Base().DataPathIn(k.partition, mixed.FileName{Node: node, Type: typ, Txn: txn, Op: table.NewOp(), Count: 1}.String())
	out, err := r.t.FS().Create(path)
	return out, path, err
}

func (r *Round) writeRows(k *task, s *changelog.Schema, txn int64, rows []changelog.Row) error {
	out, path, err := r.create(k, mixed.Base, mixed.TreeNode{}, txn)
	if err != nil {
		return err
	}
	defer out.Abort()
	w, err := datafile.NewWriter(out, s, false, datafile.Options{})
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := w.WriteRow(row, 0); err != nil {
			w.Abort()
			return err
		}
	}
	done, err := w.Close()
	if err != nil {
		return err
	}
	k.data = append(k.data, table.NewFile{Path: path, Partition: k.partition, Schema: s, Rows: done.Rows, Bytes: done.Bytes, Footer: done.Metadata})
	return out.Commit()
}

// writePositions writes the old and new deletes of the segments, one file a node.
func (r *Round) writePositions(ctx context.Context, k *task, s *changelog.Schema, gone map[string]map[int64]bool, deleted map[string]lsn) error {
	byNode, txns := map[mixed.TreeNode][]datafile.PosDelete{}, map[mixed.TreeNode]int64{}
	for _, f := range k.segments {
		err := r.each(ctx, f, s, false, func(key string, _ changelog.Row, at lsn, n int64) error {
			if gone[f.Path][n] || at.less(deleted[key]) {
				byNode[f.Info.Node] = append(byNode[f.Info.Node], datafile.PosDelete{Path: f.Path, Pos: n})
				txns[f.Info.Node] = max(txns[f.Info.Node], f.Info.Txn)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for node, list := range byNode {
		slices.SortFunc(list, func(a, b datafile.PosDelete) int {
			return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Pos, b.Pos))
		})
		out, path, err := r.create(k, mixed.PositionDelete, node, txns[node])
		if err != nil {
			return err
		}
		done, err := datafile.WritePositionDeletes(out, list, datafile.Options{})
		if err == nil {
			err = out.Commit()
		}
		out.Abort()
		if err != nil {
			return err
		}
		k.pds = append(k.pds, table.NewFile{Path: path, Partition: k.partition, Rows: done.Rows, Bytes: done.Bytes, Footer: done.Metadata})
	}
	return nil
}

// producer marks snapshots as Amoro does.
var producer = map[string]string{mixed.SummaryProducer: mixed.ProducerOptimize} //nolint:gochecknoglobals // read only

// Read has the commit look at the optimized sequences now: Amoro does before Iceberg's transaction, which repeats itself on newer
// snapshots and publishes what was read all the same.
func (r *Round) Read(ctx context.Context) error {
	now, err := r.t.Reload(ctx)
	if err != nil {
		return err
	}
	r.read = now.Optimized()
	return nil
}

// Commit publishes what Execute wrote, on whatever the table is now.
//
// It differs from Amoro in what the catalog wrapper does: base files and position deletes come in one snapshot, not in two
// of one transaction; and a sequence that would go back is a conflict, which Amoro does not notice: Outcome.Published.
func (r *Round) Commit(ctx context.Context) (out Outcome, err error) {
	now, err := r.t.Reload(ctx)
	if err != nil {
		return out, err
	}
	epoch, err := now.Epoch()
	if err != nil {
		return out, err
	}
	c := table.BaseCommit{ID: "amoro-" + rand.Text(), Epoch: epoch, Summary: producer, Optimized: now.Optimized(), Sequence: table.SequencePuffin}
	if r.read != nil {
		c.Optimized = maps.Clone(r.read)
	}
	var obsolete []table.File
	for _, k := range r.tasks {
		if reached, ok := c.Optimized[k.partition]; ok && k.from > 0 && reached >= k.from {
			out.Skipped++
			continue
		}
		c.Add, c.AddDeletes, c.Remove = append(c.Add, k.data...), append(c.AddDeletes, k.pds...), append(c.Remove, k.fragments...)
		obsolete = append(obsolete, k.obsolete...)
		if k.to > 0 {
			c.Optimized[k.partition] = k.to
		}
	}
	if len(c.Add)+len(c.AddDeletes)+len(c.Remove) == 0 {
		return out, nil // and no sequence either (hazard H20)
	}
	if r.read != nil {
		out.Published, c.Optimized = c.Optimized, nil
	}
	sn, err := r.t.CommitBase(ctx, c)
	if table.IsConflict(err) {
		out.Conflict = true
		return out, nil
	}
	if err != nil {
		return out, err
	}
	out.Committed, out.Snapshot = true, sn.ID
	if len(obsolete) == 0 {
		return out, nil
	}
	_, err = r.t.CommitBase(ctx, table.BaseCommit{ID: "amoro-" + rand.Text(), Epoch: epoch, Summary: producer, Replace: true, RemoveDeletes: obsolete})
	if table.IsConflict(err) {
		err = nil // they dangle, and stay
	}
	return out, err
}
