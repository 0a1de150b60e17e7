package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// RowPosition is where a row lies in the base store.
type RowPosition struct {
	File uint64 // a number that the Index gave to the file's path, from 1
	Row  int64  // the row's ordinal in the file, from 0
}

// Index is the position index of one table: primary key to place in the base store, valid for the base snapshot that
// Progress.IndexSnapshot names (0: it is not valid and has to be built). Lookups are safe for concurrent use; there is
// one writer at a time.
type Index struct {
	r     *Registry
	table changelog.TableID
	shard changelog.Shard

	mu struct {
		sync.RWMutex
		next   uint64 // the next file number: never reused, so that an entry never means another file
		paths  map[uint64]string
		number map[string]uint64
	}
}

// OpenIndex opens the position index of a table and reads its file numbers. Errors: ErrNotFound, ErrCorrupt, I/O.
func (r *Registry) OpenIndex(table changelog.TableID) (*Index, error) {
	if _, ok := r.ByID(table); !ok {
		return nil, notFound(table)
	}
	x := &Index{r: r, table: table}
	x.mu.next, x.mu.paths, x.mu.number = 1, map[uint64]string{}, map[string]uint64{}
	prefix := keyspace.Shard(nil, keyspace.SpacePositionFile, table, x.shard)
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.End(nil, prefix)})
	if err != nil {
		return nil, fmt.Errorf("open position index of table %d: %w", table, err)
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = x.loadFile(it.Key(), v)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open position index of table %d: %w", table, err), it.Close())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, fmt.Errorf("open position index of table %d: %w", table, err)
	}
	return x, nil
}

func (x *Index) loadFile(key, value []byte) error {
	n, err := keyspace.PositionFileNumber(key)
	if err != nil {
		return err
	}
	if len(value) == 0 || value[0] != valueVersion {
		return fmt.Errorf("file %d: %w", n, ErrCorrupt)
	}
	if n == 0 {
		next, size := binary.Uvarint(value[1:])
		if size <= 0 {
			return fmt.Errorf("next file number: %w", ErrCorrupt)
		}
		x.mu.next = max(x.mu.next, next)
		return nil
	}
	x.mu.paths[n], x.mu.number[string(value[1:])] = string(value[1:]), n
	x.mu.next = max(x.mu.next, n+1)
	return nil
}

// Lookup finds the positions of keys, best sorted: out[i] and found[i] tell of keys[i]; both are as long as keys. A
// miss costs no more than a hit.
func (x *Index) Lookup(keys []changelog.Key, out []RowPosition, found []bool) error {
	prefix := keyspace.Shard(nil, keyspace.SpacePosition, x.table, x.shard)
	it, err := x.r.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.End(nil, prefix), UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("look up positions in table %d: %w", x.table, err)
	}
	for i, k := range keys {
		prefix = append(prefix[:keyspace.ShardLen], k...)
		if found[i] = it.SeekPrefixGE(prefix); !found[i] {
			if err := it.Error(); err != nil {
				return errors.Join(fmt.Errorf("look up positions in table %d: %w", x.table, err), it.Close())
			}
			continue
		}
		v, err := it.ValueAndErr()
		if err == nil {
			out[i], err = parseRowPosition(v)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("look up position of %s in table %d: %w", k, x.table, err), it.Close())
		}
	}
	return it.Close()
}

// Path returns the path of a file number.
func (x *Index) Path(file uint64) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	p, ok := x.mu.paths[file]
	return p, ok
}

// FileOf returns the number of a path.
func (x *Index) FileOf(path string) (uint64, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n, ok := x.mu.number[path]
	return n, ok
}

// Paths returns all paths that the index knows, sorted.
func (x *Index) Paths() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Sorted(maps.Keys(x.mu.number))
}

// SpillBytes is where an IndexBatch begins to write before its Commit.
const SpillBytes = 32 << 20

// IndexBatch collects changes of an Index. One of at most SpillBytes is applied by Commit whole or not at all. A larger
// one is written in parts: first it marks the index as not valid (Progress.IndexSnapshot 0), and a crash before
// Commit's end leaves it so. Not safe for concurrent use; Close it in any case.
type IndexBatch struct {
	x       *Index
	b       *pebble.Batch
	key     []byte
	add     map[string]uint64
	drop    map[string]bool
	spilled bool
	err     error // the first one: kept for Commit
}

// Begin starts a batch.
func (x *Index) Begin() *IndexBatch {
	return &IndexBatch{x: x, b: x.r.db.NewBatch(), add: map[string]uint64{}, drop: map[string]bool{}}
}

// AddFile returns the number of path, giving it the next one if it has none.
func (b *IndexBatch) AddFile(path string) uint64 {
	delete(b.drop, path)
	if n, ok := b.add[path]; ok {
		return n
	}
	if n, ok := b.x.FileOf(path); ok {
		return n
	}
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	n := b.x.mu.next // taken for good, committed or not
	b.x.mu.next++
	b.add[path] = n
	return n
}

// DropFile forgets the path. Entries that still name its number find no path.
func (b *IndexBatch) DropFile(path string) {
	delete(b.add, path)
	b.drop[path] = true
}

// Set says that the row of key is the row-th (from 0) of file, which is a number from AddFile. key is copied.
func (b *IndexBatch) Set(key changelog.Key, file uint64, row int64) {
	b.key = keyspace.Position(b.key[:0], b.x.table, b.x.shard, key)
	n := len(b.key)
	b.key = appendRowPosition(b.key, RowPosition{File: file, Row: row})
	b.keep(b.b.Set(b.key[:n], b.key[n:], nil))
	b.spill()
}

// Delete says that the base store has no row of key.
func (b *IndexBatch) Delete(key changelog.Key) {
	b.key = keyspace.Position(b.key[:0], b.x.table, b.x.shard, key)
	b.keep(b.b.Delete(b.key, nil))
	b.spill()
}

// Reset removes all entries and files; what is set before it in the batch is lost, too.
func (b *IndexBatch) Reset() {
	prefix := keyspace.Shard(nil, keyspace.SpacePosition, b.x.table, b.x.shard)
	b.keep(b.b.DeleteRange(prefix, keyspace.End(nil, prefix), nil))
	clear(b.add)
	for _, p := range b.x.Paths() {
		b.drop[p] = true
	}
}

func (b *IndexBatch) keep(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *IndexBatch) spill() {
	if b.b.Len() < SpillBytes || b.err != nil {
		return
	}
	if b.spilled { // the mark of the first part is synced; the parts between it and the last one need no sync
		b.keep(b.b.Commit(pebble.NoSync))
	} else {
		b.keep(b.x.r.commitProgress(b.b, b.x.table, func(p *Progress) { p.IndexSnapshot = 0 }))
	}
	b.spilled = true
	b.keep(b.b.Close())
	b.b = b.x.r.db.NewBatch()
}

// Commit applies the batch, says that the index now describes the base snapshot, and lets change (or nil) change more of
// the progress, all in one synced batch. Errors: of any call before it, ErrNotFound, I/O.
func (b *IndexBatch) Commit(ctx context.Context, snapshot int64, change func(*Progress)) error {
	b.keep(ctx.Err())
	x := b.x
	for path, n := range b.add {
		b.keep(b.b.Set(keyspace.PositionFile(nil, x.table, x.shard, n), append([]byte{valueVersion}, path...), nil))
	}
	for path := range b.drop {
		if n, ok := x.FileOf(path); ok {
			b.keep(b.b.Delete(keyspace.PositionFile(nil, x.table, x.shard, n), nil))
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	b.keep(b.b.Set(keyspace.PositionFile(nil, x.table, x.shard, 0), binary.AppendUvarint([]byte{valueVersion}, x.mu.next), nil))
	if b.err == nil {
		b.err = x.r.commitProgress(b.b, x.table, func(p *Progress) {
			p.IndexSnapshot = snapshot
			if change != nil {
				change(p)
			}
		})
	}
	if b.err != nil {
		return fmt.Errorf("commit position index of table %d at snapshot %d: %w", x.table, snapshot, b.err)
	}
	for path := range b.drop {
		delete(x.mu.paths, x.mu.number[path])
		delete(x.mu.number, path)
	}
	for path, n := range b.add {
		x.mu.paths[n], x.mu.number[path] = path, n
	}
	return nil
}

// Close releases the batch; what was not committed is dropped.
func (b *IndexBatch) Close() error { return b.b.Close() }

// Reset empties the index and marks it as not valid.
func (x *Index) Reset(ctx context.Context) (err error) {
	b := x.Begin()
	defer func() { err = errors.Join(err, b.Close()) }()
	b.Reset()
	return b.Commit(ctx, 0, nil)
}

func appendRowPosition(dst []byte, p RowPosition) []byte {
	dst = binary.AppendUvarint(append(dst, valueVersion), p.File)
	return binary.AppendUvarint(dst, uint64(p.Row)) //nolint:gosec // an ordinal: not negative
}

func parseRowPosition(b []byte) (p RowPosition, err error) {
	if len(b) == 0 || b[0] != valueVersion {
		return p, fmt.Errorf("position of %d bytes: %w", len(b), ErrCorrupt)
	}
	file, n := binary.Uvarint(b[1:])
	if n <= 0 {
		return p, fmt.Errorf("position of %d bytes: %w", len(b), ErrCorrupt)
	}
	row, m := binary.Uvarint(b[1+n:])
	if m <= 0 || 1+n+m != len(b) || row > 1<<62 {
		return p, fmt.Errorf("position of %d bytes: %w", len(b), ErrCorrupt)
	}
	return RowPosition{File: file, Row: int64(row)}, nil
}
