package optimizer

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"firn/changelog/datafile"
)

// rewrite writes the live rows of a Rewrite task's files into new base files in out. Memory: one batch, one row group a node
// (smaller ones for more nodes: see forNodes) and the deleted rows' bits. It returns how many rows it wrote.
func rewrite(ctx context.Context, l *lake, task Task, out *outputs) (rows int64, err error) {
	wanted := make(map[string]bool, len(task.Data))
	var txn, live int64
	for _, f := range task.Data {
		wanted[f.Path] = true
		txn = max(txn, f.Txn)
		live += f.liveBytes()
	}
	gone, err := loadDeletes(l.t.FS(), l.deletesOf(task.Partition), out.options, func(d, p string) bool { return wanted[p] && l.applies(d, p) })
	if err != nil {
		return 0, err
	}
	w := newSpreader(l, task, txn, out)
	out.target = rollAt(live/int64(w.nodes), out.target)
	defer w.abort()
	for _, f := range task.Data {
		dead := gone[f.Path]
		if dead.len() == f.Rows {
			continue
		}
		err := eachBatch(ctx, l.t.FS(), f.Path, l.schema, false, out.options, func(b datafile.Batch) error {
			kept, release, err := without(ctx, out.options, b, dead)
			if err != nil || kept == nil {
				return err
			}
			defer release()
			rows += kept.NumRows()
			return w.write(ctx, kept)
		})
		if err != nil {
			return rows, err
		}
	}
	return rows, w.finish()
}

// rollAt is at which size files are closed that hold about live bytes in all, so that they are of one size: at most about
// target. Sizes are estimates, so each has some room.
func rollAt(live, target int64) int64 {
	n := (live + target - 1) / target
	if n <= 1 {
		return 2 * target // one file is wanted
	}
	return live/n + live/n/8
}

// collect writes the rows of a Collect task's position-delete files that name live data files into one file in out; none
// if there are none. The files are of one node and so is the new one: a row of it counts for a data file if it did before.
func collect(ctx context.Context, l *lake, task Task, out *outputs) (rows int64, err error) {
	files := make([]string, len(task.Deletes))
	for i, f := range task.Deletes {
		files[i] = f.Path
	}
	sets, err := loadDeletes(l.t.FS(), files, out.options, func(_, p string) bool { _, ok := l.base[p]; return ok })
	if err != nil || len(sets) == 0 {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("collect position deletes: %w", context.Cause(ctx))
	}
	var txn int64
	for p, set := range sets {
		txn, rows = max(txn, l.base[p].Txn), rows+set.len()
	}
	return rows, out.writeDeletes(task.Partition, task.Node, txn, sets)
}

// without returns the rows of a batch that are not dead; nil if all are.
func without(ctx context.Context, o datafile.Options, b datafile.Batch, dead *rowSet) (kept arrow.RecordBatch, release func(), err error) {
	n := b.NumRows()
	gone := dead.count(b.First, n)
	if gone == n {
		return nil, nil, nil
	}
	if gone == 0 {
		return b.RecordBatch, func() {}, nil
	}
	rows := make([]int32, 0, n-gone)
	for i := range int32(n) { //nolint:gosec // a batch is small
		if !dead.has(b.First + int64(i)) {
			rows = append(rows, i)
		}
	}
	return take(ctx, o, b.RecordBatch, rows)
}
