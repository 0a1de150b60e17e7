package optimizer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// Somebody else may commit to the base store: an Amoro server that optimizes the table, a query engine, a person who rolls it
// back. docs/0001-shared-tables.md says what may happen. The position index names the base snapshot that it describes, and
// is brought from there to the current one by what is different between the two: files do not change, so all other entries stand.

// baseState is what one snapshot of the base store is made of.
type baseState struct {
	snapshot      table.Snapshot
	data, deletes map[string]table.File
	optimized     map[string]int64
}

func baseAt(ctx context.Context, t *table.Table, sn table.Snapshot) (*baseState, error) {
	b := &baseState{snapshot: sn, data: map[string]table.File{}, deletes: map[string]table.File{}}
	files, err := t.Base().FilesAt(ctx, sn.ID)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the store
	}
	for _, f := range files {
		if f.Content == table.Data {
			b.data[f.Path] = f
		} else {
			b.deletes[f.Path] = f
		}
	}
	b.optimized, err = t.OptimizedAt(sn.ID)
	return b, err //nolint:wrapcheck // it names the store
}

// applies is lake.applies of the snapshot: whose table has a key.
func (b *baseState) applies(deletes, data string) bool {
	f, ok := b.data[data]
	return ok && f.Info.Node.IsSonOf(b.deletes[deletes].Info.Node)
}

// byOptimizer reports whether an optimizer says that it made the snapshot: rows only moved, or came from change files.
func byOptimizer(sn *table.Snapshot) bool {
	return sn.Summary[mixed.SummaryProducer] == mixed.ProducerOptimize
}

// lineage looks at what others have committed to the base store since the position index was brought up to date: it moves the
// index there, and mends what two optimizers have done to each other. again: the table is not as l has it any more. Everything
// that commits to the base store, or takes change files away, comes after it.
func (o *Optimizer) lineage(ctx context.Context, s *tableState, l *lake) (again bool, err error) {
	if !l.t.Keyed() {
		return false, nil // flushes commit to the base store as rewrites do, and Iceberg's own rules hold
	}
	if err := l.rolledBack(); err != nil {
		return false, err
	}
	if s.reg == nil {
		return false, nil
	}
	if err := s.openIndex(); err != nil {
		return false, err
	}
	p, err := s.reg.Progress(s.id)
	if err != nil || p.IndexSnapshot == 0 || p.IndexSnapshot == l.t.Base().SnapshotID() {
		return false, err //nolint:wrapcheck // it names the table
	}
	began := o.options.Now()
	c := &catchUp{o: o, s: s, l: l}
	again, err = c.run(ctx, p.IndexSnapshot)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, table.ErrNotFound), errors.Is(err, errStale):
		o.log.Warn("position index cannot follow the base store: it will be built anew", "table", s.name, "snapshot", p.IndexSnapshot, "err", err)
		return again, s.x.Reset(ctx) //nolint:wrapcheck // it names the table
	case err != nil:
		return again, fmt.Errorf("position index of %s from snapshot %d: %w", s.name, p.IndexSnapshot, err)
	case c.moved > 0:
		o.metrics.moves.WithLabelValues(s.name, "incremental").Inc()
		o.log.Info("position index moved to a foreign snapshot", "table", s.name, "how", "incremental", "snapshot", l.t.Base().SnapshotID(),
			"snapshots", c.moved, "rows", c.rows, "of", l.baseRows, "took", o.options.Now().Sub(began))
	}
	return again, nil
}

// rolledBack is the error of a base store that was put back to before our newest commit while its optimized sequences, which
// are a property, were not: the change files that were merged since would be in no reader's view.
func (l *lake) rolledBack() error {
	sn := l.t.Base().RolledBack()
	if sn == nil || l.t.InPuffin() {
		return nil // statistics go back with the snapshots: the change files are pending again
	}
	if sn = l.lastByProperty(sn); sn == nil {
		return nil
	}
	return fmt.Errorf("optimize %s: the base store was put back to before snapshot %d (commit %s), and its property %s, which says what change files are "+
		"merged, was not: rows merged since are in no reader's view. Make snapshot %d, or a descendant of it, the current one again; or, to keep "+
		"the older one, set the property in the base store to what it was then and %s to \"\": %w",
		l.t.Name(), sn.ID, sn.Summary[table.PropCommitID], mixed.PropPartitions, sn.ID, table.PropCommitID, errRolledBack)
}

// lastByProperty returns the newest commit of ours that published in the property, sn or one before it, if it is no ancestor of the current
// snapshot, either. Those in statistics leave the property as it was.
func (l *lake) lastByProperty(sn *table.Snapshot) *table.Snapshot {
	base := l.t.Base()
	for _, s := range slices.Backward(base.Snapshots()) {
		if _, marked := s.Summary[mixed.MarkOptimizedSequence]; marked || !s.Ours() || s.Sequence > sn.Sequence {
			continue
		}
		if _, ok := base.Lineage(s.ID); ok {
			return nil
		}
		return &s
	}
	return nil
}

var errRolledBack = errors.New("optimizer: base store rolled back")

// catchUp brings the position index to the current snapshot.
type catchUp struct {
	o     *Optimizer
	s     *tableState
	l     *lake
	known map[string]int64 // the highest optimized sequences so far: what is merged in the index
	moved int              // snapshots
	rows  int64            // read or looked up
}

// run goes from a snapshot to the current one. Where an optimizer has committed that does not look at what others did it goes snapshot by
// snapshot, because each commit is held against what was there before; else at once. Whole is what costs less than the difference: then
// nothing is done here.
func (c *catchUp) run(ctx context.Context, from int64) (again bool, err error) {
	base := c.l.t.Base()
	old := base.SnapshotOf(from)
	if old == nil {
		return false, fmt.Errorf("snapshot %d: %w", from, table.ErrNotFound)
	}
	at, err := baseAt(ctx, c.l.t, *old)
	if err != nil {
		return false, err
	}
	if known := c.s.x.Paths(); !slices.Equal(known, sortedPaths(at.data)) {
		return false, fmt.Errorf("the index knows %d data files and snapshot %d has %d: %w", len(known), from, len(at.data), errStale)
	}
	path, ancestor := base.Lineage(from)
	strangers := slices.ContainsFunc(path, func(sn table.Snapshot) bool { return unseen(&sn) })
	if !ancestor && c.l.expiredSince(old) {
		c.o.log.Warn("foreign commits cannot be checked: their snapshots have expired", "table", c.s.name, "snapshot", from)
	}
	if !ancestor || !strangers {
		return false, c.atOnce(ctx, at)
	}
	if err := c.knownAt(at); err != nil {
		return false, err
	}
	suspicious := false
	for _, sn := range path {
		next, err := baseAt(ctx, c.l.t, sn)
		if err != nil {
			return again, err
		}
		m, err := c.newMove(ctx, at, next)
		if err != nil {
			return again, err
		}
		if suspicious = suspicious || unseen(&sn); suspicious && toCheck(&sn) {
			if again, err = c.check(ctx, m); err != nil {
				return again, err
			}
		}
		if err := m.apply(ctx); err != nil {
			return again, err
		}
		if err := c.o.step("moved"); err != nil {
			return again, err
		}
		c.know(next.optimized)
		if c.moved, c.rows, at = c.moved+1, c.rows+m.rows, next; again {
			break // there is a newer snapshot: what is left is checked, and mended, on that
		}
	}
	return again, nil
}

// knownAt finds the sequences that are merged at a snapshot: its own, unless others have put them back since the newest commit of one
// who had looked. (What was put back is published again by a commit that may come later than this snapshot.)
func (c *catchUp) knownAt(at *baseState) error {
	c.known = map[string]int64{}
	c.know(at.optimized)
	sn := &at.snapshot
	for left := len(c.l.t.Base().Snapshots()); left > 0 && sn.Parent != 0 && (!sn.Ours() || unseen(sn)); left-- {
		if sn = c.l.t.Base().SnapshotOf(sn.Parent); sn == nil {
			return nil
		}
		seqs, err := c.l.t.OptimizedAt(sn.ID)
		if err != nil {
			return err //nolint:wrapcheck // it names the store
		}
		c.know(seqs)
	}
	return nil
}

// know raises the sequences that are merged.
func (c *catchUp) know(seqs map[string]int64) {
	for p, seq := range seqs {
		c.known[p] = max(c.known[p], seq)
	}
}

// expiredSince reports whether snapshots between one that is kept and the head are gone: the head then comes after it, or after its like,
// by a parent that nobody has. Else the store was put back.
func (l *lake) expiredSince(old *table.Snapshot) bool {
	sn := l.t.Base().Snapshot()
	for sn != nil && sn.Sequence > old.Sequence && sn.Parent != 0 {
		parent := l.t.Base().SnapshotOf(sn.Parent)
		if parent != nil && parent.Sequence >= sn.Sequence {
			return false // damaged
		}
		sn = parent
	}
	return sn == nil
}

// atOnce makes one move, unless building the index anew is less work.
func (c *catchUp) atOnce(ctx context.Context, at *baseState) error {
	next, err := baseAt(ctx, c.l.t, *c.l.t.Base().Snapshot())
	if err != nil {
		return err
	}
	m, err := c.newMove(ctx, at, next)
	if err != nil {
		return err
	}
	if m.work() > c.l.baseRows {
		return nil
	}
	c.moved++
	if err := m.apply(ctx); err != nil {
		return err
	}
	c.rows += m.rows
	return c.o.step("moved")
}

// move is the difference between two base snapshots, for the position index.
type move struct {
	*catchUp
	key            *changelog.Schema
	from, to       *baseState
	removed, added []table.File
	touched        map[string]*rowSet // rows of data files that stay, which position-delete files that came or went name
	dead           map[string]*rowSet // deleted rows, in to, of added files and those in touched
	bad            map[string]*rowSet // rows that ought not to live: see check
	rows           int64
}

func (c *catchUp) newMove(ctx context.Context, from, to *baseState) (*move, error) {
	key, err := datafile.ProjectKey(c.l.schema)
	if err != nil {
		return nil, err //nolint:wrapcheck // a table's own schema has its key columns
	}
	m := &move{
		catchUp: c, key: key, from: from, to: to, touched: map[string]*rowSet{}, bad: map[string]*rowSet{},
		removed: missing(from.data, to.data), added: missing(to.data, from.data),
	}
	for _, f := range append(missing(from.deletes, to.deletes), missing(to.deletes, from.deletes)...) {
		if f.Content != table.PositionDeletes {
			return nil, fmt.Errorf("%s has equality deletes: %w", f.Path, table.ErrUnsupported)
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := m.touch(f.Path); err != nil {
			return nil, err
		}
	}
	wanted := sortedPaths(m.touched)
	for _, f := range m.added {
		wanted = append(wanted, f.Path)
	}
	m.dead, err = c.deadAt(to, wanted)
	return m, err
}

// missing returns the files of a that b has not, by path.
func missing(a, b map[string]table.File) (files []table.File) {
	for _, p := range sortedPaths(a) {
		if _, ok := b[p]; !ok {
			files = append(files, a[p])
		}
	}
	return files
}

// touch adds the rows of data files that stay which a position-delete file names.
func (m *move) touch(path string) error {
	var last string
	var set *rowSet
	return readDeletes(m.l.t.FS(), path, m.o.files, func(p []byte, pos int64) error {
		if pos < 0 {
			return fmt.Errorf("position %d: %w", pos, datafile.ErrFile)
		}
		if string(p) != last {
			last, set = string(p), nil
			_, before := m.from.data[last]
			if _, after := m.to.data[last]; before && after {
				if set = m.touched[last]; set == nil {
					set = &rowSet{}
					m.touched[last] = set
				}
			}
		}
		if set != nil {
			set.add(pos)
		}
		return nil
	})
}

// deadAt returns the deleted rows of some data files in a snapshot. It reads the position-delete files that may name one of them.
func (c *catchUp) deadAt(b *baseState, wanted []string) (map[string]*rowSet, error) {
	sort.Strings(wanted)
	var files []string
	for _, p := range sortedPaths(b.deletes) {
		if f := b.deletes[p]; c.mayName(&f, wanted) {
			files = append(files, p)
		}
	}
	return loadDeletes(c.l.t.FS(), files, c.o.files, func(d, p string) bool {
		_, ok := slices.BinarySearch(wanted, p)
		return ok && b.applies(d, p)
	})
}

// mayName reports whether a position-delete file may name one of some data files, sorted: by what is known of the file's rows, else by
// its bounds.
func (c *catchUp) mayName(f *table.File, wanted []string) bool {
	if counts, ok := c.l.counts[f.Path]; ok {
		for p := range counts {
			if _, ok := slices.BinarySearch(wanted, p); ok {
				return true
			}
		}
		return false
	}
	i, _ := slices.BinarySearch(wanted, f.LowerPath)
	return i < len(wanted) && (f.UpperPath == "" || wanted[i] <= f.UpperPath || strings.HasPrefix(wanted[i], f.UpperPath))
}

// work is how many rows the move reads or looks up, about.
func (m *move) work() (rows int64) {
	for _, f := range append(slices.Clone(m.removed), m.added...) {
		rows += f.Records
	}
	for _, set := range m.touched {
		rows += set.len()
	}
	return rows
}

// apply moves the index, in one synced batch that names the new snapshot. First go the entries of rows that live no more, then come
// those of rows that do: a key whose row moved has both, and keeps the second.
func (m *move) apply(ctx context.Context) (err error) {
	b := m.s.x.Begin()
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, f := range m.removed {
		if err := m.forget(ctx, b, f, nil); err != nil {
			return err
		}
		b.DropFile(f.Path)
	}
	for _, p := range sortedPaths(m.touched) {
		if err := m.forget(ctx, b, m.to.data[p], m.touched[p]); err != nil {
			return err
		}
	}
	for _, p := range sortedPaths(m.touched) {
		if err := m.place(ctx, b, m.to.data[p], m.touched[p]); err != nil {
			return err
		}
	}
	for _, f := range m.added {
		if err := m.place(ctx, b, f, nil); err != nil {
			return err
		}
	}
	return b.Commit(ctx, m.to.snapshot.ID, nil) //nolint:wrapcheck // it names the table
}

// forget deletes the entries of a file's rows, of the given ones that are dead or of all, unless the key has its row elsewhere.
func (m *move) forget(ctx context.Context, b *state.IndexBatch, f table.File, only *rowSet) error {
	number, ok := m.s.x.FileOf(f.Path)
	if !ok {
		return fmt.Errorf("data file %s is not in the index: %w", f.Path, errStale)
	}
	q := m.query(func(k changelog.Key, row int64, at state.RowPosition, found bool) error {
		if found && at.File == number && at.Row == row {
			b.Delete(k)
		}
		return nil
	})
	dead := m.dead[f.Path]
	err := eachKeyOf(ctx, m.l.t.FS(), f.Path, m.key, m.o.files, only, func(k changelog.Key, row int64) error {
		m.rows++
		if only != nil && !dead.has(row) {
			return nil
		}
		return q.add(k, f.Partition, row)
	})
	return errors.Join(err, q.flush())
}

// place sets the entries of a file's rows, of the given ones or of all, as far as they live.
func (m *move) place(ctx context.Context, b *state.IndexBatch, f table.File, only *rowSet) error {
	dead, bad := m.dead[f.Path], m.bad[f.Path]
	if only != nil && dead.count(0, f.Records) == f.Records {
		return nil
	}
	if only != nil && !slices.ContainsFunc(slices.Collect(only.rows), func(row int64) bool { return !dead.has(row) }) {
		return nil // position deletes came, as nearly always
	}
	number := b.AddFile(f.Path)
	return eachKeyOf(ctx, m.l.t.FS(), f.Path, m.key, m.o.files, only, func(k changelog.Key, row int64) error {
		m.rows++
		if !dead.has(row) && !bad.has(row) {
			b.Set(indexKey(k, f.Partition), number, row)
		}
		return nil
	})
}

// query asks the index about many keys at once.
type query struct {
	x     *state.Index
	visit func(k changelog.Key, row int64, at state.RowPosition, found bool) error
	arena []byte
	keys  []changelog.Key
	rows  []int64
	at    []state.RowPosition
	found []bool
}

func (m *move) query(visit func(k changelog.Key, row int64, at state.RowPosition, found bool) error) *query {
	return &query{x: m.s.x, visit: visit}
}

func (q *query) add(k changelog.Key, partition string, row int64) error {
	n := len(q.arena)
	q.arena = append(append(q.arena, k...), partition...)
	q.keys, q.rows = append(q.keys, q.arena[n:len(q.arena):len(q.arena)]), append(q.rows, row)
	if len(q.keys) < lookUpKeys {
		return nil
	}
	return q.flush()
}

func (q *query) flush() error {
	if len(q.keys) == 0 {
		return nil
	}
	if len(q.at) < len(q.keys) {
		q.at, q.found = make([]state.RowPosition, len(q.keys)), make([]bool, len(q.keys))
	}
	clear(q.found)
	if err := q.x.Lookup(q.keys, q.at[:len(q.keys)], q.found[:len(q.keys)]); err != nil {
		return err //nolint:wrapcheck // it names the table
	}
	for i, k := range q.keys {
		if err := q.visit(k, q.rows[i], q.at[i], q.found[i]); err != nil {
			return err
		}
	}
	q.arena, q.keys, q.rows = nil, q.keys[:0], q.rows[:0]
	return nil
}

// eachKeyOf is eachKey of the given rows alone; nil: of all. Of what lies between them it skips what it can.
func eachKeyOf(ctx context.Context, fs table.FS, path string, key *changelog.Schema, o datafile.Options, only *rowSet,
	visit func(k changelog.Key, row int64) error,
) (err error) {
	if only == nil {
		return eachKey(ctx, fs, path, key, o, visit)
	}
	in, err := fs.Open(path)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := datafile.Open(in, in.Size(), key, false, o)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rows := datafile.NewRows(key)
	wanted := slices.Collect(only.rows)
	for len(wanted) > 0 && wanted[0] < r.Rows() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := someKeys(r, rows, wanted, visit)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		wanted = wanted[n:]
	}
	return nil
}

// someKeys visits the first of the wanted rows, as far as they are in the next batch that has one, and returns how many they are.
func someKeys(r *datafile.Reader, rows *datafile.Rows, wanted []int64, visit func(changelog.Key, int64) error) (n int, err error) {
	const near = 8192 // rows: reading on costs less than seeking
	if wanted[0] > r.Ordinal()+near {
		if err := r.SeekRow(wanted[0]); err != nil {
			return 0, err //nolint:wrapcheck // the caller names the file
		}
	}
	first := r.Ordinal()
	batch, err := r.Next()
	if err != nil {
		return 0, err //nolint:wrapcheck // the caller names the file
	}
	defer batch.Release()
	if err := rows.Reset(datafile.Batch{RecordBatch: batch, First: first}); err != nil {
		return 0, err //nolint:wrapcheck // the caller names the file
	}
	for n < len(wanted) && wanted[n] < first+batch.NumRows() {
		if err := visit(rows.AppendKey(nil, int(wanted[n]-first)), wanted[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
