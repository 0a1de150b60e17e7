package logstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

func (s *Store) loadStreams() error {
	prefix := []byte{byte(keyspace.SpaceSource)}
	return s.each(prefix, func(key, value []byte) error {
		id, err := keyspace.Stream(key)
		if err != nil {
			return err
		}
		next, err := state.ParsePosition(value)
		if err != nil {
			return fmt.Errorf("position of %s: %w", id, err)
		}
		s.mu.streams[id] = &stream{next: next}
		return nil
	})
}

// each calls visit for the pairs whose keys begin with prefix, in key order. Their bytes are valid in the call only.
func (s *Store) each(prefix []byte, visit func(key, value []byte) error) error {
	return s.eachFrom(prefix, keyspace.End(nil, prefix), visit)
}

func (s *Store) setStreamLocked(p changelog.StreamPosition) {
	st := s.mu.streams[p.StreamID]
	if st == nil {
		st = &stream{}
		s.mu.streams[p.StreamID] = st
	}
	st.next = p.Next
	if st.changed != nil {
		close(st.changed)
		st.changed = nil
	}
}

// Position returns the offset of a stream to read next: all before it is applied and synced. ok is false for a stream
// that has never been read.
func (s *Store) Position(id changelog.StreamID) (next int64, ok bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.Err(); err != nil {
		return 0, false, err
	}
	st := s.mu.streams[id]
	if st == nil || st.next == unread {
		return 0, false, nil
	}
	return st.next, true, nil
}

// unread is the next offset of a stream that somebody waits for before it has a position.
const unread = -1 << 63

// Positions returns the positions of all streams of a source, by topic and partition.
func (s *Store) Positions(source string) ([]changelog.StreamPosition, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.Err(); err != nil {
		return nil, err
	}
	var out []changelog.StreamPosition
	for id, st := range s.mu.streams {
		if id.Source == source && st.next != unread {
			out = append(out, changelog.StreamPosition{StreamID: id, Next: st.next})
		}
	}
	slices.SortFunc(out, func(a, b changelog.StreamPosition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out, nil
}

// ResetPositions sets positions, forwards or back, in one synced batch. No append of the streams may be under way:
// whoever reads the source is stopped.
func (s *Store) ResetPositions(ctx context.Context, positions []changelog.StreamPosition) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	for _, p := range positions {
		if err := b.Set(keyspace.Source(nil, p.StreamID), state.AppendPosition(nil, p.Next), nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	if err := s.db.commit(b); err != nil {
		return fmt.Errorf("reset %d positions: %w", len(positions), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range positions {
		s.setStreamLocked(p)
	}
	return nil
}

// WaitPosition blocks until the record at offset of a stream is applied and synced. Errors: ctx's, ErrClosed, what has
// failed the Store.
func (s *Store) WaitPosition(ctx context.Context, id changelog.StreamID, offset int64) error {
	for {
		if err := s.Err(); err != nil {
			return err
		}
		s.mu.Lock()
		st := s.mu.streams[id]
		if st == nil {
			st = &stream{next: unread}
			s.mu.streams[id] = st
		}
		if st.next > offset {
			s.mu.Unlock()
			return nil
		}
		if st.changed == nil {
			st.changed = make(chan struct{})
		}
		changed := st.changed
		s.mu.Unlock()
		if err := s.await(ctx, changed); err != nil {
			return fmt.Errorf("wait for %s offset %d: %w", id, offset, err)
		}
	}
}

// await waits for changed. Errors: ctx's, ErrClosed.
func (s *Store) await(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

// notifyAll wakes all waiters, for the Store has failed.
func (s *Store) notifyAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.mu.streams {
		if st.changed != nil {
			close(st.changed)
			st.changed = nil
		}
	}
	for _, t := range s.mu.tables {
		t.mu.Lock()
		t.notifyLocked()
		t.mu.Unlock()
	}
}
