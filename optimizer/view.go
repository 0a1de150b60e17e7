package optimizer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// lake is a table as one round of optimizing sees it: what the catalog had when it was loaded. It is not changed.
type lake struct {
	t       *table.Table
	rules   Rules
	schema  *changelog.Schema
	view    View
	base    map[string]DataFile     // live data files of the base store, by path
	files   map[string]table.File   // all live files of both stores, by path
	counts  map[string]deleteCounts // of each live position-delete file
	pending []ChangeFile            // change files that are not merged, ascending by sequence
	parted  bool                    // the table has partitions

	baseRows int64 // without the deleted ones
}

// open loads a table and lists its files. counts of position-delete files that known has are taken from there: files do not
// change.
func (o *Optimizer) open(ctx context.Context, name string, props map[string]string, known map[string]deleteCounts) (*lake, error) {
	t, err := o.catalog.Load(ctx, name)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the table
	}
	l := &lake{t: t, schema: t.Schemas().Current(), base: map[string]DataFile{}, files: map[string]table.File{}, counts: map[string]deleteCounts{}}
	properties := t.Base().Properties()
	if properties[table.PropKeptOptimizing] != "" { // of an adopted table: it says so to Amoro, not to us
		delete(properties, table.PropOptimizing)
	}
	maps.Copy(properties, props)
	var bad error
	if l.rules, bad = o.options.rulesOf(t.Name()).Of(properties); bad != nil {
		o.log.Warn("table property ignored", "table", name, "err", bad)
	}
	if err := t.CheckSequence(l.rules.Sequence); err != nil {
		return nil, fmt.Errorf("optimize %w", err)
	}
	spec, err := t.Partition()
	if err != nil {
		return nil, fmt.Errorf("optimize %s: %w", name, err)
	}
	l.parted = len(spec) > 0
	if l.rules.Buckets = mixed.Buckets(t.Schemas(), l.rules.Buckets); !t.Keyed() {
		l.rules.Buckets = 1
	}
	l.view.Optimized = t.Optimized()
	l.view.LastFull = lastFull(properties)
	if err := l.listBase(ctx, o.files, known); err != nil {
		return nil, err
	}
	return l, l.listChange(ctx)
}

func lastFull(properties map[string]string) time.Time {
	for _, name := range []string{table.PropLastFull, mixed.PropCreated} {
		if ms, err := strconv.ParseInt(properties[name], 10, 64); err == nil {
			return time.UnixMilli(ms)
		}
	}
	return time.Time{}
}

func (l *lake) listBase(ctx context.Context, o datafile.Options, known map[string]deleteCounts) error {
	files, err := l.t.Base().Files(ctx)
	if err != nil {
		return err //nolint:wrapcheck // it names the store
	}
	for _, f := range files {
		l.files[f.Path] = f
		switch f.Content {
		case table.Data:
			d := DataFile{Path: f.Path, Partition: f.Partition, Node: f.Info.Node, Txn: f.Info.Txn, Bytes: f.Bytes, Rows: f.Records}
			if !l.t.Keyed() {
				d.Node = mixed.TreeNode{} // no key, no tree
			}
			l.base[f.Path] = d
		case table.PositionDeletes:
			counts, ok := known[f.Path]
			if !ok {
				if counts, err = countDeletes(l.t.FS(), f.Path, o); err != nil {
					return err
				}
			}
			l.counts[f.Path] = counts
		case table.EqualityDeletes:
			return fmt.Errorf("optimize %w", l.t.Base().Foreign(&f))
		}
	}
	for path, counts := range l.counts {
		f := l.files[path]
		d := DeleteFile{Path: path, Partition: f.Partition, Node: f.Info.Node, Bytes: f.Bytes, Rows: f.Records}
		for p, n := range counts {
			if data, ok := l.base[p]; ok {
				d.Live += n
				if l.applies(path, p) {
					data.Deleted += n
				}
				l.base[p] = data
			}
		}
		l.view.Deletes = append(l.view.Deletes, d)
	}
	for _, p := range sortedPaths(l.base) {
		f := l.base[p]
		l.view.Base = append(l.view.Base, f)
		l.baseRows += f.Rows - f.Deleted
	}
	return nil
}

func (l *lake) listChange(ctx context.Context) error {
	if !l.t.Keyed() {
		return nil
	}
	files, err := l.t.Change().Files(ctx)
	if err != nil {
		return err //nolint:wrapcheck // it names the store
	}
	for _, f := range files {
		l.files[f.Path] = f
		if f.Info.Type != mixed.Insert && f.Info.Type != mixed.Delete || f.Content != table.Data {
			return fmt.Errorf("optimize %w", l.t.Change().Foreign(&f))
		}
		l.view.Change = append(l.view.Change, ChangeFile{
			Path: f.Path, Partition: f.Partition, Type: f.Info.Type, Txn: f.Info.Txn, Sequence: f.DataSequence,
			Bytes: f.Bytes, Rows: f.Records,
		})
	}
	l.pending = l.view.Pending()
	return nil
}

// applies reports whether a live position-delete file's rows count for a data file: if the data file is live and in a table
// with a key at the delete file's node or below it (spec/mixed-format.md 6.1).
func (l *lake) applies(deletes, data string) bool {
	f, ok := l.base[data]
	return ok && (!l.t.Keyed() || f.Node.IsSonOf(l.files[deletes].Info.Node))
}

// deletePaths returns the live position-delete files, sorted.
func (l *lake) deletePaths() []string { return sortedPaths(l.counts) }

// deletesOf returns those of a partition: they name data files of their own partition only.
func (l *lake) deletesOf(partition string) []string {
	if !l.parted {
		return l.deletePaths()
	}
	var paths []string
	for p := range l.counts {
		if l.files[p].Partition == partition {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return paths
}

// dataOf returns the live data files of a partition of the base store, sorted.
func (l *lake) dataOf(partition string) []string {
	var paths []string
	for _, f := range l.view.Base {
		if f.Partition == partition {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// deadDeletes returns the position-delete files that name no live data file once those in gone are out.
func (l *lake) deadDeletes(gone map[string]bool) (dead []table.File) {
	for _, p := range l.deletePaths() {
		live := false
		for data := range l.counts[p] {
			if _, ok := l.base[data]; ok && !gone[data] {
				live = true
				break
			}
		}
		if !live {
			dead = append(dead, l.files[p])
		}
	}
	return dead
}

// changeTimes returns when the commits of the change store happened, by snapshot id, and the time of the oldest one that
// is kept. A table without a key has none.
func (l *lake) changeTimes() (times map[int64]time.Time, oldest time.Time) {
	times = map[int64]time.Time{}
	if !l.t.Keyed() {
		return times, oldest
	}
	for _, s := range l.t.Change().Snapshots() {
		at := time.UnixMilli(s.TimeMS)
		times[s.ID] = at
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return times, oldest
}

// waited returns for how long the oldest pending change file has waited; 0 if none does.
func (l *lake) waited(now time.Time) time.Duration {
	if len(l.pending) == 0 {
		return 0
	}
	times, oldest := l.changeTimes()
	at, ok := times[l.files[l.pending[0].Path].Snapshot]
	if !ok {
		at = oldest
	}
	return max(0, now.Sub(at))
}

// optimized returns up to which SeqNum all changes are in the base store once the given change files are merged, too; 0
// if the table's flushes do not tell.
func (l *lake) optimized(merged []ChangeFile) (changelog.SeqNum, error) {
	mark, ok, err := l.t.LastCommit()
	if err != nil || !ok {
		return 0, err //nolint:wrapcheck // it names the table
	}
	taken := make(map[string]bool, len(merged))
	for _, f := range merged {
		taken[f.Path] = true
	}
	adopted, err := l.t.Adopted()
	if err != nil {
		return 0, err //nolint:wrapcheck // it names the table
	}
	// What comes before the first change that is left is merged.
	upTo := mark.To
	for _, f := range l.pending {
		if taken[f.Path] {
			continue
		}
		file := l.files[f.Path]
		first := file.FirstOffset
		if file.Predates(adopted) { // of changes before the adoption, which is all that is known of them
			first = int64(adopted) //nolint:gosec // an offset: below 2^63
		}
		if first <= 0 {
			return 0, nil
		}
		upTo = min(upTo, changelog.SeqNum(first-1))
	}
	return upTo, nil
}
