package logstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// RowView is the current row of a key, or that there is none. Its bytes are its own.
type RowView struct {
	Row   changelog.Row    // nil unless Found
	Seq   changelog.SeqNum // of the change that wrote the row, or deleted it and is not yet trimmed; 0: no change is known
	Found bool
	// Applied is the newest synced SeqNum of the table before the row was read: the view reflects all up to it.
	Applied changelog.SeqNum
}

// Row returns the current row of a key, as it is on disk: a row that is not synced yet is waited for. A miss costs no
// more than a hit. Errors: state.ErrNotFound; ctx's while waiting; changelog.ErrCorrupt; I/O.
func (s *Store) Row(ctx context.Context, id changelog.TableID, key changelog.Key) (RowView, error) {
	v, err := s.RowNow(ctx, id, key)
	if err != nil || v.Seq <= v.Applied {
		return v, err
	}
	_, err = s.Wait(ctx, id, v.Seq-1)
	v.Applied = v.Seq // batches become visible in order: who sees one change sees all before it
	return v, err
}

// RowNow returns the row that the appends submitted so far have left, synced or not: Seq may be above Applied. It is
// for the goroutine that submits. Errors: as Row's.
func (s *Store) RowNow(_ context.Context, id changelog.TableID, key changelog.Key) (RowView, error) {
	t, err := s.table(id)
	if err != nil {
		return RowView{}, fmt.Errorf("row %s of table %d: %w", key, id, err)
	}
	v := RowView{Applied: t.newest()}
	r, err := s.rowReader(id)
	if err == nil {
		err = errors.Join(r.get(key, &v), r.it.Close())
	}
	if err != nil {
		return RowView{}, fmt.Errorf("row %s of table %d: %w", key, id, err)
	}
	return v, nil
}

// Rows returns the current rows of keys in their order, all of one moment and as they are on disk. Errors: as Row's.
func (s *Store) Rows(ctx context.Context, id changelog.TableID, keys []changelog.Key) ([]RowView, error) {
	t, err := s.table(id)
	if err != nil {
		return nil, fmt.Errorf("%d rows of table %d: %w", len(keys), id, err)
	}
	applied := t.newest()
	r, err := s.rowReader(id)
	if err != nil {
		return nil, fmt.Errorf("%d rows of table %d: %w", len(keys), id, err)
	}
	views := make([]RowView, len(keys))
	newest := applied
	for i, k := range keys {
		if err := r.get(k, &views[i]); err != nil {
			return nil, errors.Join(fmt.Errorf("row %s of table %d: %w", k, id, err), r.it.Close())
		}
		newest = max(newest, views[i].Seq)
	}
	if err := r.it.Close(); err != nil {
		return nil, fmt.Errorf("%d rows of table %d: %w", len(keys), id, err)
	}
	if newest > applied {
		if _, err = s.Wait(ctx, id, newest-1); err != nil {
			return nil, err
		}
	}
	for i := range views {
		views[i].Applied = newest
	}
	return views, nil
}

func (t *table) newest() changelog.SeqNum {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.synced
}

// rowReader looks keys up in one view. An iterator, not DB.Get: only it can ask the filters of the last level, which
// makes misses cheap.
type rowReader struct {
	it  *pebble.Iterator
	key []byte
}

func (s *Store) rowReader(id changelog.TableID) (rowReader, error) {
	prefix := keyspace.Shard(make([]byte, 0, 64), keyspace.SpaceRow, id, 0)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.End(nil, prefix), UseL6Filters: true})
	return rowReader{it: it, key: prefix}, err
}

func (r *rowReader) get(key changelog.Key, v *RowView) error {
	r.key = append(r.key[:keyspace.ShardLen], key...)
	if !r.it.SeekPrefixGE(r.key) {
		return r.it.Error()
	}
	val, err := r.it.ValueAndErr()
	if err != nil {
		return err
	}
	row, err := parseRow(val, v)
	if err != nil || !v.Found {
		return err
	}
	v.Row = bytes.Clone(row)
	return nil
}

// parseRow reads a value of the row space; the row is a part of val.
func parseRow(val []byte, v *RowView) (changelog.Row, error) {
	if len(val) < rowFixed {
		return nil, fmt.Errorf("row value of %d bytes: %w", len(val), errCorrupt)
	}
	v.Seq = changelog.SeqNum(binary.BigEndian.Uint64(val))
	switch kind := val[8]; kind {
	case rowLive:
		v.Found = true
		return changelog.Row(val[rowFixed:]), nil
	case rowDeleted:
		return nil, nil
	default:
		return nil, fmt.Errorf("row value of kind %d: %w", kind, errCorrupt)
	}
}

// Snapshot is the rows of a table at one SeqNum. While it is open it keeps files and memtables from going: it is for a
// pass over the rows, not to be held. Not safe for concurrent use.
type Snapshot struct {
	// Applied is the SeqNum: the rows are what all changes up to it, and none after it, have left. It is synced.
	Applied changelog.SeqNum

	it     *pebble.Iterator
	prefix []byte // of the table's rows
}

// RowEntry is a row with its key and the SeqNum that wrote it.
type RowEntry struct {
	Key changelog.Key
	Seq changelog.SeqNum
	Row changelog.Row
}

// Snapshot opens a consistent view of a table's rows. The caller closes it. Errors: state.ErrNotFound, ctx's, I/O.
func (s *Store) Snapshot(ctx context.Context, id changelog.TableID) (*Snapshot, error) {
	t, err := s.table(id)
	if err != nil {
		return nil, fmt.Errorf("snapshot of table %d: %w", id, err)
	}
	prefix := keyspace.Shard(nil, keyspace.SpaceRow, id, 0)
	s.commitMu.Lock() // no batch is between its numbers and its rows
	snap := &Snapshot{Applied: t.next - 1, prefix: prefix}
	snap.it, err = s.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.End(nil, prefix)})
	s.commitMu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("snapshot of table %d: %w", id, err)
	}
	if snap.Applied > t.newest() {
		if _, err := s.Wait(ctx, id, snap.Applied-1); err != nil {
			return nil, errors.Join(err, snap.Close())
		}
	}
	return snap, nil
}

// Rows yields the live rows in key order: those whose keys begin with prefix (nil: all) and come after the key after
// (nil: from the first). An entry's bytes are valid until the next one. An error comes last.
func (s *Snapshot) Rows(prefix, after changelog.Key) iter.Seq2[RowEntry, error] {
	return func(yield func(RowEntry, error) bool) {
		all := append(bytes.Clone(s.prefix), prefix...)
		low := all
		if from := append(bytes.Clone(s.prefix), after...); bytes.Compare(from, low) > 0 {
			low = from
		}
		for ok := s.it.SeekGE(low); ok && bytes.HasPrefix(s.it.Key(), all); ok = s.it.Next() {
			e := RowEntry{Key: changelog.Key(s.it.Key()[len(s.prefix):])}
			val, err := s.it.ValueAndErr()
			var v RowView
			if err == nil {
				e.Row, err = parseRow(val, &v)
			}
			if err != nil {
				yield(RowEntry{}, fmt.Errorf("row %s: %w", e.Key, err))
				return
			}
			e.Seq = v.Seq
			if v.Found && (after == nil || !bytes.Equal(e.Key, after)) && !yield(e, nil) {
				return
			}
		}
		if err := s.it.Error(); err != nil {
			yield(RowEntry{}, fmt.Errorf("rows: %w", err))
		}
	}
}

// Close releases the view.
func (s *Snapshot) Close() error { return s.it.Close() }
