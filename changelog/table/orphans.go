package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MinOrphanAge is the least age of an orphan: longer than any file waits for its commit.
const MinOrphanAge = time.Hour

// RemoveOrphans removes the Orphans that are older than age.
//
// The caller makes sure that no commit is under way whose files are that old: one whose outcome is unknown (P2) is settled
// first. Error: ErrUnsupported, age is below MinOrphanAge.
func (t *Table) RemoveOrphans(ctx context.Context, age time.Duration) (Expired, error) {
	if age < MinOrphanAge {
		return Expired{}, fmt.Errorf("orphans of age %s, not %s: %w", age, MinOrphanAge, ErrUnsupported)
	}
	paths, err := t.Orphans(ctx, t.catalog.options.Now().Add(-age))
	if err != nil {
		return Expired{}, err
	}
	files, size, err := t.remove(ctx, paths)
	return Expired{Files: files, Bytes: size}, err
}

// Orphans returns the files in the directories of the table's stores, sorted, that nothing names and that were last written
// before a time: what crashes and refused commits have left. Only files of the kinds that tables have are looked at.
func (t *Table) Orphans(ctx context.Context, before time.Time) ([]string, error) {
	candidates := map[string]bool{}
	for _, s := range t.Stores() {
		if err := t.catalog.fs.old(ctx, s.Location(), before, candidates); err != nil {
			return nil, err
		}
	}
	if t.catalog.backend.ownsMetadata() { // only the server knows which of them it needs
		maps.DeleteFunc(candidates, func(path string, _ bool) bool { return strings.HasSuffix(path, ".metadata.json") })
	}
	// Listed first, asked second: what was committed in between is not taken for an orphan.
	for _, s := range t.Stores() {
		now, err := s.reload(ctx)
		if err != nil {
			return nil, err
		}
		md := now.loaded.metadata
		delete(candidates, now.loaded.location)
		for e := range md.PreviousFiles() {
			delete(candidates, e.MetadataFile)
		}
		for st := range md.PartitionStatistics() {
			delete(candidates, st.StatisticsPath)
		}
	}
	return t.unreferenced(ctx, candidates)
}

// old adds to files the paths of table files in a directory and below that were last written before a time.
func (s FS) old(ctx context.Context, dir string, before time.Time, files map[string]bool) error {
	root, err := local(dir)
	if err != nil {
		return err
	}
	names, err := s.disk.List(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		info, err := s.disk.Stat(s.disk.PathJoin(root, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("list %s: %w", dir, err)
		case info.IsDir():
			if err := s.old(ctx, dir+"/"+name, before, files); err != nil {
				return err
			}
		case tableFile(name) && info.ModTime().Before(before):
			files[dir+"/"+name] = true
		}
	}
	return nil
}

func tableFile(name string) bool {
	if strings.HasPrefix(name, tempPrefix) {
		return true
	}
	return slices.Contains([]string{".parquet", ".orc", ".avro", ".puffin", ".json"}, filepath.Ext(name))
}
