package optimizer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// check holds a commit of another optimizer against what was there before it, and mends what it did to ours: rows that live although
// they were deleted, or live twice, are deleted, and an optimized sequence that went back is published again. This is done on the
// current snapshot before the index moves to the commit that was checked: after a crash it is found again, or found done.
//
// Amoro's commit of a keyed table removes the base files that it has rewritten, and adds others, without looking for position
// deletes that came after its plan; it adds position deletes of files that may be gone; and it reads the optimized sequences before
// it commits (docs/0001-shared-tables.md). Which rows a commit may leave is known all the same. What was live before it is in the index, and what it
// merged is in the change files between the two optimized sequences:
//
//   - a key that these change files do not touch has a row in the added files only if it had one in the removed ones;
//   - a key that they touch last with an insert has its row in the added files, and no other;
//   - a key that they touch last with a delete has none;
//   - of several rows of a key in the added files the one stays that is equal to the row in the removed file, or to the inserted one.
//
// Change files that a commit before it had merged, too, although the sequence has gone back since, count as not merged by it.
func (c *catchUp) check(ctx context.Context, m *move) (mended bool, err error) {
	for _, p := range m.partitions() {
		changes, ok, err := m.merged(ctx, p)
		if err != nil {
			return false, err
		}
		if !ok {
			c.o.log.Warn("a foreign commit cannot be checked: the change files that it merged are gone", "table", c.s.name,
				"snapshot", m.to.snapshot.ID, "partition", p)
			continue
		}
		if err := m.checkAdded(ctx, p, changes); err != nil {
			return false, err
		}
		if err := m.checkKept(p, changes); err != nil {
			return false, err
		}
	}
	return c.mend(ctx, m)
}

// partitions returns those in which the commit wrote files, or merged.
func (m *move) partitions() []string {
	all := map[string]bool{}
	for _, f := range m.added {
		all[f.Partition] = true
	}
	for p, to := range m.to.optimized {
		if from, ok := m.known[p]; !ok || to > from {
			all[p] = true
		}
	}
	return sortedPaths(all)
}

// mergedChanges is what a commit has merged in a partition. A nil one is nothing.
type mergedChanges struct {
	*merge
	files []ChangeFile
}

// merged folds the change files that the commit merged in a partition; nil: none. ok is false if they are not there any more.
func (m *move) merged(ctx context.Context, partition string) (changes *mergedChanges, ok bool, err error) {
	from, before := m.known[partition]
	to, after := m.to.optimized[partition]
	if !after || before && to <= from {
		return nil, true, nil
	}
	var files []ChangeFile
	for _, f := range m.l.view.Change {
		if f.Partition == partition && f.Sequence <= to && (!before || f.Sequence > from) {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return nil, false, nil
	}
	slices.SortStableFunc(files, func(a, b ChangeFile) int { return cmp.Compare(a.Txn, b.Txn) })
	changes = &mergedChanges{
		merge: &merge{fs: m.l.t.FS(), schema: m.l.schema, types: m.l.schema.KeyTypes(), options: m.o.files}, files: files,
	}
	if err := changes.readKeys(ctx, files); err != nil {
		return nil, false, err
	}
	m.rows += changes.stats.rows
	return changes, true, nil
}

// entry returns what the changes do last to a key: nil if they do not touch it.
func (c *mergedChanges) entry(k changelog.Key) (number int, e *foldEntry) {
	if c == nil {
		return 0, nil
	}
	i, _, ok := c.fold.find(k, hashKey(k))
	if !ok {
		return 0, nil
	}
	return i, c.fold.at(i)
}

// addedRows is the added files of a partition while they are checked.
type addedRows struct {
	*move
	partition string
	changes   *mergedChanges
	copied    map[uint64]*rowSet  // rows of removed files of which there is one here, by the file's number
	inserted  rowSet              // entries of changes of which there is one
	twice     map[string]rightRow // keys with two or more
}

// rightRow is the row to which the only right one of a key is equal.
type rightRow struct {
	path string
	row  int64
}

// checkAdded finds rows in the added files of a partition that ought not to live.
func (m *move) checkAdded(ctx context.Context, partition string, changes *mergedChanges) error {
	a := &addedRows{move: m, partition: partition, changes: changes, copied: map[uint64]*rowSet{}, twice: map[string]rightRow{}}
	for _, f := range m.removed {
		if n, ok := m.s.x.FileOf(f.Path); ok {
			a.copied[n] = &rowSet{}
		}
	}
	err := a.each(ctx, func(path string) *query {
		return m.query(func(k changelog.Key, row int64, at state.RowPosition, found bool) error {
			if !a.right(k[:len(k)-len(partition)], at, found) {
				m.kill(path, row)
			}
			return nil
		})
	})
	if err != nil || len(a.twice) == 0 {
		return err
	}
	return a.keepOne(ctx)
}

// each asks the index about the keys of the live rows, file by file.
func (a *addedRows) each(ctx context.Context, ask func(path string) *query) error {
	for _, f := range a.added {
		if f.Partition != a.partition {
			continue
		}
		dead, q := a.dead[f.Path], ask(f.Path)
		err := eachKey(ctx, a.l.t.FS(), f.Path, a.key, a.o.files, func(k changelog.Key, row int64) error {
			a.rows++
			if dead.has(row) {
				return nil
			}
			return q.add(k, a.partition, row)
		})
		if err == nil {
			err = q.flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// right reports whether a row of the key may live here. at is where the key had its row before, if found.
func (a *addedRows) right(k changelog.Key, at state.RowPosition, found bool) bool {
	number, e := a.changes.entry(k)
	switch {
	case e != nil && !e.lives():
		return false
	case e != nil:
		if a.inserted.has(int64(number)) {
			a.twice[string(k)] = rightRow{a.changes.files[e.file].Path, int64(e.row)}
		}
		a.inserted.add(int64(number))
		return true
	}
	copied := a.copied[at.File]
	if !found || copied == nil {
		return false
	}
	if copied.has(at.Row) {
		path, _ := a.s.x.Path(at.File)
		a.twice[string(k)] = rightRow{path, at.Row}
	}
	copied.add(at.Row)
	return true
}

// keepOne finds the rows of keys that are here twice, all but the right one. If none is equal to that (which cannot be), the last one stays.
func (a *addedRows) keepOne(ctx context.Context) error {
	want := map[string]map[int64]string{} // texts of right rows, by path and row
	for _, right := range a.twice {
		if want[right.path] == nil {
			want[right.path] = map[int64]string{}
		}
		want[right.path][right.row] = ""
	}
	for path, rows := range want {
		err := a.eachRow(ctx, path, func(_ changelog.Key, row int64, text changelog.Row) {
			if _, ok := rows[row]; ok {
				rows[row] = string(text)
			}
		})
		if err != nil {
			return err
		}
	}
	type kept struct {
		rightRow
		equal bool
	}
	keep := map[string]kept{}
	for _, f := range a.added {
		if f.Partition != a.partition {
			continue
		}
		dead := a.dead[f.Path]
		err := a.eachRow(ctx, f.Path, func(k changelog.Key, row int64, text changelog.Row) {
			right, ok := a.twice[string(k)]
			if !ok || dead.has(row) {
				return
			}
			had, is := keep[string(k)], kept{rightRow{f.Path, row}, want[right.path][right.row] == string(text)}
			switch {
			case had.equal:
				a.kill(f.Path, row)
				return
			case had.path != "":
				a.kill(had.path, had.row)
			}
			keep[string(k)] = is
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachRow visits the rows of a file, encoded as rows of the table's current schema.
func (a *addedRows) eachRow(ctx context.Context, path string, visit func(k changelog.Key, row int64, text changelog.Row)) error {
	rows := datafile.NewRows(a.l.schema)
	var key changelog.Key
	var text changelog.Row
	return eachBatch(ctx, a.l.t.FS(), path, a.l.schema, false, a.o.files, func(b datafile.Batch) error {
		if err := rows.Reset(b); err != nil {
			return err //nolint:wrapcheck // eachBatch names the file
		}
		for i := range rows.Len() {
			key, text = rows.AppendKey(key[:0], i), rows.AppendRow(text[:0], i)
			visit(key, b.First+int64(i), text)
		}
		return nil
	})
}

// checkKept finds rows in files that stay of keys that the commit merged changes of.
func (m *move) checkKept(partition string, changes *mergedChanges) error {
	if changes == nil {
		return nil
	}
	q := m.query(func(_ changelog.Key, entry int64, at state.RowPosition, found bool) error {
		if !found {
			return nil
		}
		path, _ := m.s.x.Path(at.File)
		f, stays := m.to.data[path]
		if stays && changes.txns[changes.fold.at(int(entry)).touched()] > f.Info.Txn {
			m.kill(path, at.Row)
		}
		return nil
	})
	for _, e := range changes.fold.sorted() {
		if err := q.add(changes.fold.key(int(e)), partition, int64(e)); err != nil {
			return err
		}
	}
	m.rows += int64(changes.fold.len())
	return q.flush()
}

func (m *move) kill(path string, row int64) {
	set := m.bad[path]
	if set == nil {
		set = &rowSet{}
		m.bad[path] = set
	}
	set.add(row)
}

// mend deletes the rows in m.bad that live in the current snapshot and raises the sequences that went back, in one commit.
func (c *catchUp) mend(ctx context.Context, m *move) (mended bool, err error) {
	kills, err := c.living(m.bad)
	if err != nil {
		return false, err
	}
	seqs := m.regressed()
	if len(kills) == 0 && seqs == nil {
		return false, nil
	}
	who, err := c.o.owner(c.l, c.s)
	if err != nil {
		return false, err
	}
	out := newOutputs(c.l.t.FS(), c.l.t.Base(), c.l.schema, c.o.files, c.l.rules.TargetBytes)
	rows, err := c.writeMend(out, kills)
	if err != nil {
		return false, abandon(out, err)
	}
	if err := c.o.step("mend written"); err != nil {
		return false, abandon(out, err)
	}
	snap, err := commit(ctx, c.l, who, kindMend, out, table.BaseCommit{Optimized: seqs})
	if err != nil {
		return false, err
	}
	c.o.metrics.mended.WithLabelValues(c.s.name).Add(float64(rows))
	c.o.log.Warn("rows that another optimizer brought back are deleted again", "table", c.s.name, "its_snapshot", m.to.snapshot.ID,
		"snapshot", snap.ID, "rows", rows, "sequences_back", seqs != nil)
	return true, c.o.step("mended")
}

// kindMend is the propType of a snapshot that mends.
const kindMend = kind("mend")

type kind string

func (k kind) String() string { return string(k) }

// living returns those of some rows that live in the current snapshot. (Those of a file that has gone since are found in the one that
// replaced it, when its commit is checked.)
func (c *catchUp) living(rows map[string]*rowSet) (map[string]*rowSet, error) {
	wanted := slices.DeleteFunc(sortedPaths(rows), func(p string) bool { _, ok := c.l.base[p]; return !ok })
	if len(wanted) == 0 {
		return nil, nil //nolint:nilnil // none
	}
	dead, err := loadDeletes(c.l.t.FS(), c.l.deletePaths(), c.o.files, func(d, p string) bool {
		_, ok := slices.BinarySearch(wanted, p)
		return ok && c.l.applies(d, p)
	})
	if err != nil {
		return nil, err
	}
	live := map[string]*rowSet{}
	for _, p := range wanted {
		set := &rowSet{}
		for row := range rows[p].rows {
			if !dead[p].has(row) {
				set.add(row)
			}
		}
		if set.len() > 0 {
			live[p] = set
		}
	}
	return live, nil
}

// writeMend writes position deletes: one file a partition and node.
func (c *catchUp) writeMend(out *outputs, kills map[string]*rowSet) (rows int64, err error) {
	type place struct {
		partition string
		node      mixed.TreeNode
	}
	sets, txns := map[place]map[string]*rowSet{}, map[place]int64{}
	for p, set := range kills {
		f := c.l.base[p]
		at := place{f.Partition, f.Node}
		if sets[at] == nil {
			sets[at] = map[string]*rowSet{}
		}
		sets[at][p], txns[at] = set, max(txns[at], f.Txn)
		rows += set.len()
	}
	for at, set := range sets {
		if err := out.writeDeletes(at.partition, at.node, txns[at], set); err != nil {
			return 0, err
		}
	}
	return rows, nil
}

// regressed returns the optimized sequences of the current snapshot with those raised that the commit has put back, although change
// files that were merged are still there; nil: there are none.
func (m *move) regressed() map[string]int64 {
	var seqs map[string]int64
	for _, f := range m.l.view.Change {
		before, ok := m.known[f.Partition]
		if !ok || f.Sequence > before {
			continue
		}
		if after, ok := m.to.optimized[f.Partition]; ok && after >= f.Sequence {
			continue
		}
		if now, ok := m.l.view.Optimized[f.Partition]; ok && now >= before {
			continue
		}
		if seqs == nil {
			seqs = maps.Clone(m.l.view.Optimized)
		}
		seqs[f.Partition] = max(seqs[f.Partition], before)
	}
	return seqs
}

// errUnchecked is a conflict: foreign commits are to be checked before ours.
func (l *lake) errUnchecked(since int64) error {
	return &table.ConflictError{
		Table: l.t.Name(), Store: mixed.StoreBase, Want: since, Head: l.t.Base().SnapshotID(),
		Reason: fmt.Sprintf("the position index was built as of snapshot %d, and what others have committed since is checked first", since),
	}
}
