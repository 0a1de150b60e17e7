package optimizer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// errStale reports an index that is out of step with the base store: it has to be built again.
var errStale = errors.New("optimizer: the position index is out of step with the base store")

// index finds base rows by key. *state.Index and *scanIndex implement it.
type index interface {
	// Lookup finds the positions of sorted keys: out[i] and found[i] tell of keys[i].
	Lookup(keys []changelog.Key, out []state.RowPosition, found []bool) error
	// Path returns the path of a position's file.
	Path(file uint64) (string, bool)
}

// merge is one execution of a Merge task, in one partition. It reads the key columns of all change files and folds them to the final state
// of each key; asks the index which base rows they delete; then streams the insert files and writes the rows that
// stand for their keys in the end. It holds the keys, never rows.
type merge struct {
	fs      table.FS
	schema  *changelog.Schema // the table's current one: that of the new base files
	types   []*changelog.Type // of its key columns
	options datafile.Options
	rules   Rules
	base    map[string]DataFile             // live data files of the base store, by path
	deletes []string                        // the partition's position-delete files
	applies func(deletes, data string) bool // as lake's
	tree    *tree                           // the partition's
	out     *outputs

	partition string // its path; "" without partitions

	fold  *fold
	order []int32   // its entries by key
	txns  []int64   // by rank; txns[0] is none
	ends  []ending  // what became of each entry of fold
	moves []baseRow // the new place of each living entry, by entry

	gone  []string // data files of which no row is left
	stats mergeStats
}

// ending says what a merge does to a key in the base store.
type ending uint8

const (
	untouched ending = 0 // it has no row, before and after; or the base store's row is newer
	removed   ending = 1 // its row goes
	added     ending = 2 // it gets a row
	replaced  ending = 3 // its row goes and it gets another one
)

// baseRow is a row of a new base file: the number of the file among those that the merge wrote.
type baseRow struct {
	file int32
	row  int32
}

type mergeStats struct {
	files           int
	rows, bytes     int64 // read
	keys            int64
	deleted, stayed int64 // base rows deleted; rows written
}

// run executes the task and leaves the new files in m.out.
func (m *merge) run(ctx context.Context, task Task, x index) error {
	m.partition = task.Partition
	files := slices.Clone(task.Changes)
	slices.SortStableFunc(files, func(a, b ChangeFile) int { return cmp.Compare(a.Txn, b.Txn) })
	if err := m.readKeys(ctx, files); err != nil {
		return err
	}
	m.order = m.fold.sorted()
	kills, err := m.lookUp(ctx, x, m.order)
	if err != nil {
		return err
	}
	txn := m.txns[len(m.txns)-1]
	if err := m.writeRows(ctx, files, txn); err != nil {
		return err
	}
	return m.writeKills(kills)
}

// readKeys is the first pass.
func (m *merge) readKeys(ctx context.Context, files []ChangeFile) error {
	key, err := datafile.ProjectKey(m.schema)
	if err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	var rows int64
	for _, f := range files {
		rows += f.Rows
	}
	if rows > maxRows {
		return fmt.Errorf("merge of %d rows at once: at most %d", rows, maxRows)
	}
	m.fold = newFold(int(rows / 8))
	m.txns = []int64{math.MinInt64}
	for i, f := range files {
		if f.Txn != m.txns[len(m.txns)-1] {
			m.txns = append(m.txns, f.Txn)
		}
		at := lsn{rank: int32(len(m.txns) - 1)} //nolint:gosec // at most maxRows
		if err := m.foldFile(ctx, f, key, at, int32(i)); err != nil {
			return err
		}
		m.stats.files, m.stats.bytes = m.stats.files+1, m.stats.bytes+f.Bytes
	}
	m.stats.rows, m.stats.keys = rows, int64(m.fold.len())
	return nil
}

func (m *merge) foldFile(ctx context.Context, f ChangeFile, key *changelog.Schema, at lsn, number int32) error {
	rows := datafile.NewRows(key)
	var buf changelog.Key
	return eachBatch(ctx, m.fs, f.Path, key, true, m.options, func(b datafile.Batch) error {
		if err := rows.Reset(b); err != nil {
			return err //nolint:wrapcheck // eachBatch names the file
		}
		for i := range rows.Len() {
			var ok bool
			if at.offset, ok = rows.Offset(i); !ok {
				return fmt.Errorf("row %d has no %s, so nobody knows which deletes come after it: take the file out of the change store, or "+
					"write its rows anew with it: %w", b.First+int64(i), mixed.FileOffsetColumn, datafile.ErrFile)
			}
			buf = rows.AppendKey(buf[:0], i)
			if f.isInsert() {
				m.fold.insert(buf, at, number, int32(b.First)+int32(i)) //nolint:gosec // at most maxRows
			} else {
				m.fold.remove(buf, at)
			}
		}
		return nil
	})
}

// lookUpKeys is how many keys are looked up at once, but in a scanIndex.
const lookUpKeys = 8192

// lookUp asks the index for the rows of all keys and decides the ending of each. It returns the rows to delete, by
// data file.
func (m *merge) lookUp(ctx context.Context, x index, order []int32) (map[string]*rowSet, error) {
	kills := map[string]*rowSet{}
	m.ends = make([]ending, m.fold.len())
	size := lookUpKeys
	if _, scans := x.(*scanIndex); scans {
		size = max(1, len(order))
	}
	keys := make([]changelog.Key, 0, min(size, len(order)))
	positions, found := make([]state.RowPosition, cap(keys)), make([]bool, cap(keys))
	var lastFile uint64
	var last DataFile
	var set *rowSet
	for chunk := range slices.Chunk(order, size) {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		keys = keys[:0]
		for _, e := range chunk {
			keys = append(keys, indexKey(m.fold.key(int(e)), m.partition))
		}
		clear(found)
		if err := x.Lookup(keys, positions[:len(keys)], found[:len(keys)]); err != nil {
			return nil, err //nolint:wrapcheck // it names the table
		}
		for i, e := range chunk {
			if !found[i] {
				m.decide(int(e), math.MinInt64, false)
				continue
			}
			if p := positions[i].File; p != lastFile || set == nil {
				path, _ := x.Path(p)
				var ok bool
				if last, ok = m.base[path]; !ok {
					return nil, fmt.Errorf("key %s is in file %d (%q), which is no live one: %w", keys[i], p, path, errStale)
				}
				if lastFile, set = p, kills[path]; set == nil {
					set = &rowSet{}
					kills[path] = set
				}
			}
			if m.decide(int(e), last.Txn, true) {
				set.add(positions[i].Row)
			}
		}
	}
	for p, set := range kills {
		m.stats.deleted += set.len()
		if set.len() == 0 {
			delete(kills, p)
		}
	}
	return kills, nil
}

// decide picks the ending of an entry whose key has, or has not, a base row of transaction txn, and reports whether that
// row is to be deleted. A base row loses only against a later transaction (spec/mixed-format.md 6.3); firn's own base
// files are named with merged transactions, so all pending ones are later.
func (m *merge) decide(e int, txn int64, exists bool) (kill bool) {
	lives := m.fold.at(e).lives()
	switch {
	case exists && m.txns[m.fold.at(e).touched()] <= txn:
		return false
	case exists && lives:
		m.ends[e] = replaced
	case exists:
		m.ends[e] = removed
	case lives:
		m.ends[e] = added
	}
	return exists
}

// writeRows is the second pass.
func (m *merge) writeRows(ctx context.Context, files []ChangeFile, txn int64) error {
	winners := m.fold.winners(func(e int) bool { return m.ends[e] >= added })
	m.stats.stayed = int64(len(winners))
	m.moves = make([]baseRow, m.fold.len())
	nodes, err := m.nodes(files, winners)
	if err != nil {
		return err
	}
	writers := map[mixed.TreeNode]*rolling{}
	defer func() {
		for _, w := range writers {
			w.abort()
		}
	}()
	for len(winners) > 0 {
		file := m.fold.at(int(winners[0])).file
		n := 1
		for n < len(winners) && m.fold.at(int(winners[n])).file == file {
			n++
		}
		err := m.copyRows(ctx, files[file].Path, winners[:n], func(batch datafile.Batch, entries []int32) error {
			for node, part := range nodes.split(batch, entries) {
				w := writers[node]
				if w == nil {
					w = m.out.rolling(m.partition, node, txn)
					writers[node] = w
				}
				if err := m.put(ctx, w, batch.RecordBatch, part); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		winners = winners[n:]
	}
	return m.finish(writers)
}

func (m *merge) finish(writers map[mixed.TreeNode]*rolling) error {
	for _, w := range writers {
		if err := w.finish(); err != nil {
			return err
		}
	}
	return nil
}

// copyRows calls visit with each batch of an insert file that has winners, and the entries of those: ascending by row.
func (m *merge) copyRows(ctx context.Context, path string, winners []int32, visit func(datafile.Batch, []int32) error) error {
	return eachBatch(ctx, m.fs, path, m.schema, false, m.options, func(b datafile.Batch) error {
		end, n := b.First+b.NumRows(), 0
		for n < len(winners) && int64(m.fold.at(int(winners[n])).row) < end {
			n++
		}
		if n == 0 {
			return nil
		}
		entries := winners[:n]
		winners = winners[n:]
		return visit(b, entries)
	})
}

// put writes the rows of some entries, which all are in batch.
func (m *merge) put(ctx context.Context, w *rolling, batch arrow.RecordBatch, part part) error {
	rows, release, err := take(ctx, m.options, batch, part.rows)
	if err != nil {
		return err
	}
	defer release()
	number, row, err := w.write(rows)
	if err != nil {
		return err
	}
	for i, e := range part.entries {
		m.moves[e] = baseRow{file: int32(number), row: int32(row) + int32(i)} //nolint:gosec // at most maxRows rows, and few files
	}
	return nil
}

// take returns the given rows of a batch, ascending: the batch itself if that is all of them.
func take(ctx context.Context, o datafile.Options, batch arrow.RecordBatch, rows []int32) (taken arrow.RecordBatch, release func(), err error) {
	if int64(len(rows)) == batch.NumRows() {
		return batch, func() {}, nil
	}
	if n := len(rows); n > 0 && int(rows[n-1]-rows[0]) == n-1 {
		s := batch.NewSlice(int64(rows[0]), int64(rows[n-1])+1)
		return s, s.Release, nil
	}
	b := array.NewInt32Builder(o.Allocator)
	defer b.Release()
	b.AppendValues(rows, nil)
	indices := b.NewInt32Array()
	defer indices.Release()
	ctx = compute.WithAllocator(ctx, o.Allocator)
	columns := make([]arrow.Array, batch.NumCols())
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i := range columns {
		if columns[i], err = compute.TakeArray(ctx, batch.Column(i), indices); err != nil {
			return nil, nil, fmt.Errorf("take %d rows of column %q: %w", len(rows), batch.ColumnName(i), err)
		}
	}
	taken = array.NewRecordBatch(batch.Schema(), columns, int64(len(rows)))
	return taken, taken.Release, nil
}

// maxDeleteNodes is for how many nodes a merge writes position-delete files of their own. Deletes in more make one file of the node above
// all of them: nodes must not multiply the files.
const maxDeleteNodes = 4

// writeKills writes the position deletes: one file a node, or one for all. A data file that has no row left goes instead.
func (m *merge) writeKills(kills map[string]*rowSet) error {
	if err := m.dropDead(kills); err != nil {
		return err
	}
	byNode := map[mixed.TreeNode]map[string]*rowSet{}
	txns := map[mixed.TreeNode]int64{}
	for p, set := range kills {
		f := m.base[p]
		if byNode[f.Node] == nil {
			byNode[f.Node] = map[string]*rowSet{}
		}
		byNode[f.Node][p] = set
		txns[f.Node] = max(txns[f.Node], f.Txn)
	}
	if len(byNode) > maxDeleteNodes {
		byNode, txns = together(byNode, txns)
	}
	for _, node := range sortedNodes(byNode) {
		if err := m.out.writeDeletes(m.partition, node, txns[node], byNode[node]); err != nil {
			return err
		}
	}
	return nil
}

// together returns the deletes of several nodes as those of the lowest node above all.
func together(byNode map[mixed.TreeNode]map[string]*rowSet, txns map[mixed.TreeNode]int64) (map[mixed.TreeNode]map[string]*rowSet, map[mixed.TreeNode]int64) {
	all, txn := map[string]*rowSet{}, int64(0)
	nodes := sortedNodes(byNode)
	above := nodes[0]
	for _, n := range nodes {
		above, txn = above.Common(n), max(txn, txns[n])
		maps.Copy(all, byNode[n])
	}
	return map[mixed.TreeNode]map[string]*rowSet{above: all}, map[mixed.TreeNode]int64{above: txn}
}

// dropDead moves data files all of whose rows are deleted now from kills to m.gone.
func (m *merge) dropDead(kills map[string]*rowSet) error {
	dying := map[string]bool{}
	for p, set := range kills {
		if f := m.base[p]; f.Deleted+set.len() >= f.Rows {
			dying[p] = true
		}
	}
	if len(dying) == 0 {
		return nil
	}
	before, err := loadDeletes(m.fs, m.deletes, m.options, func(d, p string) bool { return dying[p] && m.applies(d, p) })
	if err != nil {
		return err
	}
	for _, p := range sortedPaths(dying) {
		all := before[p]
		if all == nil {
			all = &rowSet{}
		}
		for row := range kills[p].rows {
			all.add(row)
		}
		if all.len() == m.base[p].Rows { // counted row by row: f.Deleted may count one twice
			m.gone = append(m.gone, p)
			delete(kills, p)
		}
	}
	return nil
}

// nodes says in which node each winner goes.
type nodes struct {
	buckets int
	bucket  []uint8 // of each entry; nil: all go to the root
	fold    *fold
}

// part is the rows of a batch that go to one node, and their entries.
type part struct {
	rows    []int32
	entries []int32
}

// nodes spreads the winners over nodes as the partition's tree says.
func (m *merge) nodes(files []ChangeFile, winners []int32) (*nodes, error) {
	n := &nodes{fold: m.fold}
	var rows, bytes int64
	for _, f := range files {
		if f.isInsert() {
			rows, bytes = rows+f.Rows, bytes+f.Bytes
		}
	}
	bytes = int64(float64(bytes) * float64(len(winners)) / float64(max(rows, 1)))
	n.buckets = m.tree.fan(mixed.TreeNode{}, bytes)
	if n.buckets == 1 || bytes < m.tree.least(n.buckets) {
		return n, nil
	}
	m.out.options = forNodes(m.out.options, n.buckets)
	n.bucket = make([]uint8, m.fold.len())
	for _, e := range winners {
		values, err := m.schema.KeyValues(m.fold.key(int(e)))
		if err != nil {
			return nil, fmt.Errorf("bucket of a key: %w", err)
		}
		n.bucket[e] = uint8(mixed.NodeFor(mixed.KeyHash(m.types, values), n.buckets).Index) //nolint:gosec // less than maxOpen
	}
	return n, nil
}

// split yields the nodes of the entries, each with its rows in batch.
func (n *nodes) split(b datafile.Batch, entries []int32) func(func(mixed.TreeNode, part) bool) {
	return func(yield func(mixed.TreeNode, part) bool) {
		if n.bucket == nil {
			p := part{entries: entries, rows: make([]int32, len(entries))}
			for i, e := range entries {
				p.rows[i] = n.fold.at(int(e)).row - int32(b.First) //nolint:gosec // at most maxRows
			}
			yield(mixed.TreeNode{}, p)
			return
		}
		parts := make([]part, n.buckets)
		for _, e := range entries {
			p := &parts[n.bucket[e]]
			p.entries, p.rows = append(p.entries, e), append(p.rows, n.fold.at(int(e)).row-int32(b.First)) //nolint:gosec // as above
		}
		for i, p := range parts {
			if len(p.rows) > 0 && !yield(mixed.TreeNode{Mask: int64(n.buckets) - 1, Index: int64(i)}, p) {
				return
			}
		}
	}
}

func sortedNodes[V any](m map[mixed.TreeNode]V) []mixed.TreeNode {
	out := make([]mixed.TreeNode, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b mixed.TreeNode) int { return cmp.Compare(a.ID(), b.ID()) })
	return out
}
