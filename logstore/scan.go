package logstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// chunkBytes is how much of the log one iterator reads before its blocks are handed out: no iterator, with the files
// and memtables that it pins, waits for a slow reader.
const chunkBytes = 512 << 10

// Blocks yields the blocks of a table that lie in (from, to], ascending; of synced ones only. The first block starts at
// from+1 even where it is stored with earlier changes; a last one that reaches beyond to is left out: Last of the last
// block tells what was seen. An error comes last: ErrTrimmed, from is no longer held; state.ErrNotFound; ctx's;
// changelog.ErrCorrupt; I/O.
func (s *Store) Blocks(ctx context.Context, id changelog.TableID, from, to changelog.SeqNum) iter.Seq2[*Block, error] {
	return func(yield func(*Block, error) bool) {
		for b, err := range s.blocks(ctx, id, from, to) {
			if err != nil {
				yield(nil, fmt.Errorf("blocks of table %d in (%d, %d]: %w", id, from, to, err))
				return
			}
			if b.Last > to || !yield(b, nil) {
				return
			}
		}
	}
}

// Scan yields the changes of a table in (from, to], ascending; of synced ones only. Changes stay valid (see Block). An
// error comes last: as of Blocks.
func (s *Store) Scan(ctx context.Context, id changelog.TableID, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		for b, err := range s.blocks(ctx, id, from, to) {
			if err != nil {
				yield(changelog.Change{}, fmt.Errorf("scan table %d in (%d, %d]: %w", id, from, to, err))
				return
			}
			for c, err := range b.Changes() {
				if err != nil {
					yield(changelog.Change{}, fmt.Errorf("scan table %d in (%d, %d]: %w", id, from, to, err))
					return
				}
				if c.Seq > to || !yield(c, nil) {
					return
				}
			}
		}
	}
}

// blocks yields the blocks that overlap (from, to], the first one clipped.
func (s *Store) blocks(ctx context.Context, id changelog.TableID, from, to changelog.SeqNum) iter.Seq2[*Block, error] {
	return func(yield func(*Block, error) bool) {
		t, err := s.table(id)
		if err != nil {
			yield(nil, err)
			return
		}
		for first := true; ; first = false {
			chunk, err := s.readChunk(ctx, t, from, to, first)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, b := range chunk {
				if !yield(b, nil) {
					return
				}
				from = b.Last
			}
			if len(chunk) == 0 {
				return
			}
		}
	}
}

// readChunk reads blocks after from; inside tells that from may lie inside of a block.
func (s *Store) readChunk(ctx context.Context, t *table, from, to changelog.SeqNum, inside bool) ([]*Block, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	oldest, synced := t.mu.oldest, t.mu.synced
	t.mu.Unlock()
	if to = min(to, synced); from >= to {
		return nil, nil
	}
	if from+1 < oldest {
		return nil, fmt.Errorf("%d is held, %d is not: %w", oldest, from+1, ErrTrimmed)
	}
	it, err := s.logIter(t.id, oldest)
	if err != nil {
		return nil, err
	}
	var chunk []*Block
	var valid bool
	if inside {
		valid = it.SeekLT(logKey(t.id, from+2)) // the block that holds from+1
	} else {
		valid = it.SeekGE(logKey(t.id, from+1))
	}
	for bytes := 0; valid && bytes < chunkBytes; valid = it.Next() {
		b, err := blockAt(it)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if b.First > to {
			break
		}
		if b.First > from+1 || b.Last <= from { // trimmed since we looked, or a hole
			return nil, errors.Join(s.hole(t, from), it.Close())
		}
		b.First = from + 1
		from = b.Last
		bytes += b.bytes
		chunk = append(chunk, b)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, err
	}
	if len(chunk) == 0 {
		return nil, s.hole(t, from)
	}
	return chunk, nil
}

// hole tells why there is no block after from though it is synced.
func (s *Store) hole(t *table, from changelog.SeqNum) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.dropped:
		return state.ErrNotFound
	case from+1 < t.mu.oldest:
		return fmt.Errorf("%d is held, %d is not: %w", t.mu.oldest, from+1, ErrTrimmed)
	default:
		return fmt.Errorf("no block holds %d: %w", from+1, errCorrupt)
	}
}

// Wait blocks until a table has a synced change after the given one and returns the newest. Errors: state.ErrNotFound,
// also when the table is dropped meanwhile; ctx's; ErrClosed; what has failed the Store.
func (s *Store) Wait(ctx context.Context, id changelog.TableID, after changelog.SeqNum) (changelog.SeqNum, error) {
	t, err := s.table(id)
	if err != nil {
		return 0, fmt.Errorf("wait for table %d: %w", id, err)
	}
	var newest changelog.SeqNum
	err = s.waitTable(ctx, t, func() bool {
		newest = t.mu.synced
		return newest > after
	})
	return newest, err
}

// waitTable waits until done, which is called with t locked, says so.
func (s *Store) waitTable(ctx context.Context, t *table, done func() bool) error {
	for {
		if err := s.Err(); err != nil {
			return err
		}
		t.mu.Lock()
		if t.mu.dropped {
			t.mu.Unlock()
			return fmt.Errorf("wait for table %d: %w", t.id, state.ErrNotFound)
		}
		if done() {
			t.mu.Unlock()
			return nil
		}
		if t.mu.changed == nil {
			t.mu.changed = make(chan struct{})
		}
		changed := t.mu.changed
		t.mu.Unlock()
		if err := s.await(ctx, changed); err != nil {
			return fmt.Errorf("wait for table %d: %w", t.id, err)
		}
	}
}

// SeqAt returns the newest SeqNum of a table whose block was taken in before the time (µs since 1970-01-01 UTC), to
// begin a feed after it: all changes taken in at or after the time follow. It returns one before the oldest held if all
// are younger. Errors: state.ErrNotFound, I/O.
func (s *Store) SeqAt(ctx context.Context, id changelog.TableID, micros int64) (changelog.SeqNum, error) {
	t, err := s.table(id)
	if err != nil {
		return 0, fmt.Errorf("table %d at a time: %w", id, err)
	}
	t.mu.Lock()
	low, high := t.mu.oldest-1, t.mu.synced // all up to low is older; what follows high is not
	t.mu.Unlock()
	for low < high {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b, err := s.blockHolding(id, low+(high-low+1)/2)
		switch {
		case err != nil:
			return 0, fmt.Errorf("table %d at a time: %w", id, err)
		case b == nil || b.Last <= low:
			return low, nil // trimmed meanwhile
		case b.ingest < micros:
			low = min(b.Last, high)
		default:
			high = b.first - 1
		}
	}
	return low, nil
}

// blockHolding reads the block with seq, or the nearest before it; nil: none.
func (s *Store) blockHolding(id changelog.TableID, seq changelog.SeqNum) (*Block, error) {
	it, err := s.logIter(id, 0)
	if err != nil {
		return nil, err
	}
	var b *Block
	if it.SeekLT(logKey(id, seq+1)) {
		if b, err = blockAt(it); err != nil {
			return nil, errors.Join(err, it.Close())
		}
	}
	return b, errors.Join(it.Error(), it.Close())
}

func logKey(id changelog.TableID, seq changelog.SeqNum) []byte { return keyspace.Log(nil, id, 0, seq) }
