package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog/mixed"
)

// Expired tells what ExpireSnapshots did.
type Expired struct {
	Snapshots int
	Files     int // removed: data and delete files, manifests, lists, statistics
	Bytes     int64
}

// ExpireSnapshots removes the snapshots of a store that are neither among the newest keep nor younger than age, nor named by
// a tag or branch, nor the newest with Amoro's mark or on the way to it from the head, nor, in a table that no firn has claimed, the
// same of Flink's newest checkpoint; then it removes the files that no snapshot of either store of the table names any more. keep is at
// least 1. Files that are gone already are no error. It is not fenced: it changes no rows.
//
// A reader that planned on an expired snapshot may find its files gone: age is how long readers may take.
func (t *Table) ExpireSnapshots(ctx context.Context, s *Store, keep int, age time.Duration) (Expired, error) {
	now, err := s.reload(ctx)
	if err != nil {
		return Expired{}, err
	}
	oldest := t.catalog.options.Now().Add(-age).UnixMilli()
	var gone []ice.Snapshot
	before := now.loaded.metadata // whose statistics tell which go with their snapshots
	_, err = now.commit(ctx, plan{build: func(_ context.Context, s *Store) (edit, error) {
		gone = expirable(s.loaded.metadata, max(keep, 1), oldest)
		if len(gone) == 0 {
			return edit{}, nil
		}
		before = s.loaded.metadata
		ids := make([]int64, len(gone))
		for i := range gone {
			ids[i] = gone[i].SnapshotID
		}
		return edit{updates: []ice.Update{ice.NewRemoveSnapshotsUpdate(ids, false)}}, nil
	}})
	if err != nil || len(gone) == 0 {
		return Expired{}, err
	}
	candidates, err := t.catalog.reachable(ctx, gone, before)
	if err != nil {
		return Expired{Snapshots: len(gone)}, err
	}
	paths, err := t.unreferenced(ctx, candidates)
	if err != nil {
		return Expired{Snapshots: len(gone)}, err
	}
	files, size, err := t.remove(ctx, paths)
	return Expired{Snapshots: len(gone), Files: files, Bytes: size}, err
}

// expirable picks the snapshots to remove.
func expirable(md ice.Metadata, keep int, oldest int64) []ice.Snapshot {
	all := slices.Clone(md.Snapshots())
	slices.SortFunc(all, func(a, b ice.Snapshot) int { return int(b.SequenceNumber - a.SequenceNumber) })
	held := map[int64]bool{}
	for _, ref := range md.Refs() {
		held[ref.SnapshotID] = true
	}
	holdWay(md, mixed.MarkOptimizedSequence, held)
	if epoch, err := epochOf(md.Properties()); err == nil && epoch == 0 {
		holdWay(md, summaryFlinkCheckpoint, held)
	}
	var gone []ice.Snapshot
	for i := range all {
		if i >= keep && !held[all[i].SnapshotID] && all[i].TimestampMs < oldest {
			gone = append(gone, all[i])
		}
	}
	return gone
}

// summaryFlinkCheckpoint is the summary key by which a restored Flink job finds what it has committed: without it the job commits it
// again. A table that firn has claimed has no such writer any more, and would keep its snapshots for ever.
// Source: iceberg:flink/src/main/java/org/apache/iceberg/flink/sink/IcebergFilesCommitter.java.
const summaryFlinkCheckpoint = "flink.max-committed-checkpoint-id"

// holdWay holds the newest ancestor of the head with a summary key, and those in between: readers go from parent to parent, and if one
// is gone they find nothing.
func holdWay(md ice.Metadata, key string, held map[int64]bool) {
	marked := markedSnapshot(md, key)
	if marked == nil {
		return
	}
	for sn := range ancestors(md) {
		held[sn.SnapshotID] = true
		if sn.SnapshotID == marked.SnapshotID {
			return
		}
	}
}

// reachable returns all files that snapshots name: lists, manifests, the files in these (live or deleted), statistics. A list
// or manifest that is gone names nothing.
func (c *Catalog) reachable(ctx context.Context, snapshots []ice.Snapshot, md ice.Metadata) (map[string]bool, error) {
	files, seen := map[string]bool{}, map[string]bool{}
	ids := map[int64]bool{}
	for i := range snapshots {
		sn := &snapshots[i]
		ids[sn.SnapshotID] = true
		files[sn.ManifestList] = true
		manifests, err := c.manifests(sn)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range manifests {
			if seen[m.FilePath()] {
				continue
			}
			seen[m.FilePath()], files[m.FilePath()] = true, true
			if err := c.collect(ctx, m, files); err != nil {
				return nil, err
			}
		}
	}
	for st := range md.Statistics() {
		if ids[st.SnapshotID] {
			files[st.StatisticsPath] = true
		}
	}
	return files, nil
}

func (c *Catalog) collect(ctx context.Context, m iceberg.ManifestFile, files map[string]bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for e, err := range m.Entries(libraryFS{c.fs}, false) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("manifest %s: %w: %w", m.FilePath(), ErrCorrupt, err)
		}
		files[e.DataFile().FilePath()] = true
	}
	return nil
}

// unreferenced returns those of the candidates, sorted, that no snapshot of either store names. It looks at the stores as
// they are now, after the expiry; a commit that lands meanwhile names new files only, or ones that its head names, too.
func (t *Table) unreferenced(ctx context.Context, candidates map[string]bool) ([]string, error) {
	for _, s := range t.Stores() {
		now, err := s.reload(ctx)
		if err != nil {
			return nil, err
		}
		named, err := t.catalog.named(ctx, now.loaded.metadata)
		if err != nil {
			return nil, err
		}
		for path := range named {
			delete(candidates, path)
		}
	}
	paths := make([]string, 0, len(candidates))
	for _, path := range slices.Sorted(maps.Keys(candidates)) {
		if slices.ContainsFunc(t.Stores(), func(s *Store) bool { return strings.HasPrefix(path, s.Location()+"/") }) {
			paths = append(paths, path) // else not in our directories: somebody else's
		}
	}
	return paths, nil
}

// remove removes files, and returns how many of them were there and their bytes.
func (t *Table) remove(ctx context.Context, paths []string) (files int, size int64, err error) {
	for _, path := range paths {
		if ctx.Err() != nil {
			return files, size, context.Cause(ctx)
		}
		n, err := t.catalog.fs.removeSized(path)
		if err != nil {
			return files, size, err
		}
		if n >= 0 {
			files++
			size += n
		}
	}
	return files, size, nil
}

// named returns all files that the kept snapshots of a store name; entries that a snapshot marks deleted do not count.
func (c *Catalog) named(ctx context.Context, md ice.Metadata) (map[string]bool, error) {
	files, seen := map[string]bool{}, map[string]bool{}
	snapshots := md.Snapshots()
	for i := range snapshots {
		files[snapshots[i].ManifestList] = true
		manifests, err := c.manifests(&snapshots[i])
		if err != nil {
			return nil, err
		}
		for _, m := range manifests {
			if seen[m.FilePath()] {
				continue
			}
			seen[m.FilePath()], files[m.FilePath()] = true, true
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			for e, err := range m.Entries(libraryFS{c.fs}, true) {
				if err != nil {
					return nil, fmt.Errorf("manifest %s: %w: %w", m.FilePath(), ErrCorrupt, err)
				}
				files[e.DataFile().FilePath()] = true
			}
		}
	}
	for st := range md.Statistics() {
		files[st.StatisticsPath] = true
	}
	return files, nil
}
