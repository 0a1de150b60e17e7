package logstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

const restoreBatch = 1 << 20

// PutRows writes rows as the current ones of their keys, whatever the keys had: it rebuilds the row space of a table
// from the lake (P4), before the table takes appends. Entries may come in any order; their bytes are needed until the
// next one only; their SeqNums are not above what the table was restored with. It returns when the rows are synced; a
// crash leaves some of them, and it can be repeated. Errors: state.ErrNotFound, ctx's, that of the sequence, I/O.
func (s *Store) PutRows(ctx context.Context, id changelog.TableID, rows iter.Seq2[RowEntry, error]) error {
	t, err := s.table(id)
	if err != nil {
		return fmt.Errorf("restore rows: %w", err)
	}
	applied := t.newest()
	b := s.db.NewBatch(pebble.WithInitialSizeBytes(restoreBatch + restoreBatch/8))
	defer func() { b.Close() }()
	for e, err := range rows {
		if err := errors.Join(err, ctx.Err(), s.Err()); err != nil {
			return fmt.Errorf("restore rows of table %d: %w", id, err)
		}
		if e.Seq > applied { // a reader would wait for it
			return fmt.Errorf("restore rows of table %d: row %s is of %d, the table is at %d", id, e.Key, e.Seq, applied)
		}
		d := b.SetDeferred(keyspace.ShardLen+len(e.Key), rowFixed+len(e.Row))
		keyspace.Row(d.Key[:0], id, 0, e.Key)
		binary.BigEndian.PutUint64(d.Value, uint64(e.Seq))
		d.Value[8] = rowLive
		copy(d.Value[rowFixed:], e.Row)
		if err := d.Finish(); err != nil {
			return fmt.Errorf("restore rows of table %d: %w", id, err)
		}
		if b.Len() < restoreBatch {
			continue
		}
		s.pause(b.Len())
		if err := b.Commit(pebble.NoSync); err != nil {
			return fmt.Errorf("restore rows of table %d: %w", id, err)
		}
		s.wrote.Add(restoreBatch)
		b.Reset()
	}
	if err := b.LogData(nil, nil); err != nil { // so that the last batch is there to be synced, with all before it
		return fmt.Errorf("restore rows of table %d: %w", id, err)
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("restore rows of table %d: %w", id, err)
	}
	return nil
}

// ClearRows removes all current rows of a table, for a PutRows that starts over. No append may be under way.
func (s *Store) ClearRows(ctx context.Context, id changelog.TableID) error {
	b := s.db.NewBatch()
	prefix := keyspace.Shard(nil, keyspace.SpaceRow, id, 0)
	if err := errors.Join(ctx.Err(), b.DeleteRange(prefix, keyspace.End(nil, prefix), nil)); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := s.db.commit(b); err != nil {
		return fmt.Errorf("clear rows of table %d: %w", id, err)
	}
	return nil
}
