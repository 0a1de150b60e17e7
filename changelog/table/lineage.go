package table

import (
	"fmt"
	"slices"

	ice "github.com/apache/iceberg-go/table"

	"firn/changelog/mixed"
)

// Lineage returns the snapshots that came after one of the store's, up to the current one and oldest first, along their
// parents. ok is false if it is no ancestor of the current one as far as these are kept: the store was rolled back, or
// snapshots in between have expired.
func (s *Store) Lineage(after int64) (path []Snapshot, ok bool) {
	for sn := range ancestors(s.loaded.metadata) {
		if sn.SnapshotID == after {
			slices.Reverse(path)
			return path, true
		}
		path = append(path, snapshotOf(sn))
	}
	return nil, false
}

// SnapshotOf returns a snapshot that is kept, an ancestor of the current one or not; nil: it is not.
func (s *Store) SnapshotOf(id int64) *Snapshot {
	sn := s.loaded.metadata.SnapshotByID(id)
	if sn == nil {
		return nil
	}
	out := snapshotOf(sn)
	return &out
}

// Ours reports whether a firn made the snapshot as one of its planned commits (CommitBase, AppendChanges).
func (s *Snapshot) Ours() bool { return s.Summary[PropWriter] != "" }

// RolledBack returns the snapshot of the newest commit of ours, if the store was put back to before it: if it is kept and no
// ancestor of the current snapshot. Properties do not go back with snapshots. nil: no sign of it.
func (s *Store) RolledBack() *Snapshot {
	md := s.loaded.metadata
	id := md.Properties()[PropCommitID]
	if id == "" {
		return nil
	}
	all := md.Snapshots()
	i := slices.IndexFunc(all, func(sn ice.Snapshot) bool {
		return sn.Summary != nil && sn.Summary.Properties[PropCommitID] == id
	})
	if i < 0 {
		return nil // it made no snapshot, or that has expired
	}
	for sn := range ancestors(md) {
		if sn.SnapshotID == all[i].SnapshotID {
			return nil
		}
	}
	out := snapshotOf(&all[i])
	return &out
}

// OptimizedAt returns Optimized as a reader of an earlier base snapshot has it. Where no ancestor of that is marked it is the
// property, of which there is only the newest value. Errors: ErrNotFound, ErrCorrupt.
func (t *Table) OptimizedAt(snapshot int64) (map[string]int64, error) {
	md := t.base.loaded.metadata
	sn := md.SnapshotByID(snapshot)
	if sn == nil {
		return nil, fmt.Errorf("snapshot %d of %s: %w", snapshot, t.base.id, ErrNotFound)
	}
	seqs, err := t.catalog.markedMapAt(md, sn, mixed.MarkOptimizedSequence, blobSequence)
	if seqs != nil || err != nil {
		return seqs, err
	}
	props, err := mixed.ParsePartitionProperties(md.Properties()[mixed.PropPartitions])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.id, err)
	}
	return props.Optimized()
}
