package optimizer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"firn/changelog/table"
)

// Orphans removes files in the data directories of a table's stores that are older than age and that no kept snapshot of
// either store names: what a crash left between writing and commit. It returns their paths, sorted; a dry run only names
// them. age must be longer than any writer of the table takes from its first file to its commit.
func (o *Optimizer) Orphans(ctx context.Context, name string, age time.Duration, dryRun bool) ([]string, error) {
	s := o.state(name)
	s.work.Lock()
	defer s.work.Unlock()
	l, err := o.look(ctx, s)
	if err != nil {
		return nil, err
	}
	return o.removeOrphans(ctx, l, age, dryRun)
}

func (o *Optimizer) removeOrphans(ctx context.Context, l *lake, age time.Duration, dryRun bool) ([]string, error) {
	old := map[string]bool{} // local paths
	for _, st := range l.stores() {
		if err := oldFiles(old, localPath(st.Location()+"/data"), o.options.Now().Add(-age)); err != nil {
			return nil, fmt.Errorf("orphans of %s: %w", st.Name(), err)
		}
	}
	for p := range l.files {
		delete(old, localPath(p))
	}
	// Few are left as a rule, and none mostly: only then are the other snapshots read.
	for _, st := range l.stores() {
		for _, sn := range st.Snapshots() {
			if len(old) == 0 {
				return nil, nil
			}
			files, err := st.FilesAt(ctx, sn.ID)
			if err != nil {
				return nil, fmt.Errorf("orphans of %s: %w", st.Name(), err)
			}
			for _, f := range files {
				delete(old, localPath(f.Path))
			}
		}
	}
	orphans := sortedPaths(old)
	if dryRun {
		return orphans, nil
	}
	for _, p := range orphans {
		if err := l.t.FS().Remove(p); err != nil {
			return nil, fmt.Errorf("orphans of %s: %w", l.t.Name(), err)
		}
	}
	o.metrics.expired.WithLabelValues("orphan").Add(float64(len(orphans)))
	o.log.Info("orphans removed", "table", l.t.Name(), "files", len(orphans), "first", orphans[0])
	return orphans, nil
}

// stores returns both stores as they were loaded.
func (l *lake) stores() []*table.Store { return []*table.Store{l.t.Base(), l.t.Change()} }

// localPath returns the operating system's path of a lake path; there are local lakes only.
func localPath(p string) string { return strings.TrimPrefix(strings.TrimPrefix(p, "file:"), "//") }

// oldFiles adds all files below dir that were last changed before the given time. Puffin statistics are the table's own.
func oldFiles(to map[string]bool, dir string, before time.Time) error {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "puffin":
			return fs.SkipDir
		case !d.Type().IsRegular() || !slices.Contains([]string{".parquet", ".tmp"}, filepath.Ext(path)):
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.ModTime().Before(before) {
			to[path] = true
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("walk %s: %w", dir, err)
	}
	return nil
}
