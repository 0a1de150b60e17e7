package optimizer

import (
	"context"
	"errors"
	"fmt"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/state"
)

// rebuild makes x the index of the base store as l has it, or as it was at a snapshot: from the key columns of all data files
// without the deleted rows. It takes O(base) time; memory is the deleted rows' bits and one batch.
func rebuild(ctx context.Context, l *lake, at *baseState, x *state.Index, o datafile.Options) (err error) {
	data, deletes, applies, snapshot := l.view.Base, l.deletePaths(), l.applies, l.t.Base().SnapshotID()
	if at != nil {
		data, deletes, applies, snapshot = nil, sortedPaths(at.deletes), at.applies, at.snapshot.ID
		for _, p := range sortedPaths(at.data) {
			data = append(data, DataFile{Path: p, Partition: at.data[p].Partition})
		}
	}
	b := x.Begin()
	defer func() { err = errors.Join(err, b.Close()) }()
	b.Reset()
	if err := addRows(ctx, l, b, data, deletes, applies, o); err != nil {
		return fmt.Errorf("rebuild position index of %s: %w", l.t.Name(), err)
	}
	return b.Commit(ctx, snapshot, nil)
}

// indexKey appends what stands for a key in the position index: the key, and behind it the path of the partition, because a key
// that has left a partition may still have its row there when it has one in the next. A key ends itself, so no two
// of them look alike; in a table without partitions the path is empty. k may be overwritten behind its end.
func indexKey(k changelog.Key, partition string) changelog.Key { return append(k, partition...) }

// addRows sets the positions of all live rows of data files, of which only Path and Partition count. applies says which
// position-delete files count for which of them.
func addRows(ctx context.Context, l *lake, b *state.IndexBatch, data []DataFile, deletes []string, applies func(deletes, data string) bool, o datafile.Options) error {
	key, err := datafile.ProjectKey(l.schema)
	if err != nil {
		return err //nolint:wrapcheck // the caller says for what
	}
	wanted := make(map[string]bool, len(data))
	for _, f := range data {
		wanted[f.Path] = true
	}
	gone, err := loadDeletes(l.t.FS(), deletes, o, func(d, p string) bool { return wanted[p] && applies(d, p) })
	if err != nil {
		return err
	}
	for _, f := range data {
		file, dead := b.AddFile(f.Path), gone[f.Path]
		err := eachKey(ctx, l.t.FS(), f.Path, key, o, func(k changelog.Key, row int64) error {
			if !dead.has(row) {
				b.Set(indexKey(k, f.Partition), file, row)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// scanIndex answers lookups by reading the key columns of a whole partition of the base store: what firn optimize uses where
// there is no Pebble instance. All keys of a merge come in one Lookup. Memory: the keys looked up.
type scanIndex struct {
	ctx       context.Context // one merge long: Lookup of state.Index takes none
	l         *lake
	partition string
	o         datafile.Options
	path      []string // by file number, less one
}

// Lookup implements index.
func (x *scanIndex) Lookup(keys []changelog.Key, out []state.RowPosition, found []bool) error {
	want := newFold(len(keys))
	for _, k := range keys {
		want.entry(k) // entry i is keys[i]: they are distinct
	}
	key, err := datafile.ProjectKey(x.l.schema)
	if err != nil {
		return err //nolint:wrapcheck // a table's own schema has its key columns
	}
	gone, err := loadDeletes(x.l.t.FS(), x.l.deletesOf(x.partition), x.o, x.l.applies)
	if err != nil {
		return err
	}
	for _, p := range x.l.dataOf(x.partition) {
		x.path = append(x.path, p)
		file := uint64(len(x.path))
		err := eachKey(x.ctx, x.l.t.FS(), p, key, x.o, func(k changelog.Key, row int64) error {
			k = indexKey(k, x.partition)
			if i, _, ok := want.find(k, hashKey(k)); ok && !gone[p].has(row) {
				out[i], found[i] = state.RowPosition{File: file, Row: row}, true
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Path implements index.
func (x *scanIndex) Path(file uint64) (string, bool) {
	if file == 0 || file > uint64(len(x.path)) {
		return "", false
	}
	return x.path[file-1], true
}
