package logstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// movedVersion and staleVersion begin the values of their spaces. Written to disk, append only.
const (
	movedVersion = 1
	staleVersion = 1
	staleQueue   = 2 // flags and the first parked id come before the reason

	staleFixed = 1 + 1 + 8 // of staleQueue

	staleHold    = 0x01 // flags
	staleSkipped = 0x02
)

// moved adds the write of the last row of a deleted old key.
func (e *encoded) moved(m *changelog.MovedRow, now int64) {
	key := e.begin()
	e.arena = keyspace.Moved(e.arena, m.Table, 0, m.Key, m.Native)
	val := e.begin()
	e.arena = binary.AppendVarint(append(e.arena, movedVersion), now)
	e.arena = append(e.arena, m.Row...)
	e.end(opSet, key, val, 0, 0)
}

// stale adds the write of a stale mark, or of its removal.
func (e *encoded) stale(m *changelog.StaleMark) {
	key := e.begin()
	e.arena = keyspace.Stale(e.arena, m.Table, 0, m.Key)
	val := e.begin()
	if !m.Set {
		e.end(opDelete, key, val, 0, 0)
		return
	}
	if !m.Hold && !m.Skipped && m.First == 0 && m.Record == 0 {
		e.arena = append(append(e.arena, staleVersion), m.Reason...)
		e.end(opSet, key, val, 0, 0)
		return
	}
	e.arena = append(e.arena, staleQueue, flag(m.Hold)*staleHold|flag(m.Skipped)*staleSkipped)
	e.arena = binary.BigEndian.AppendUint64(e.arena, m.First)
	e.arena = append(e.arena, m.Reason...)
	if m.Record > 0 {
		e.end(opStale, key, val, 0, m.Record-1)
	} else {
		e.end(opSet, key, val, 0, 0)
	}
}

// parseStale reads the value of a stale mark. It copies what it keeps.
func parseStale(id changelog.TableID, key changelog.Key, v []byte) (changelog.StaleMark, error) {
	m := changelog.StaleMark{Table: id, Key: slices.Clone(key), Set: true}
	switch {
	case len(v) >= staleFixed && v[0] == staleQueue:
		m.Hold, m.Skipped = v[1]&staleHold != 0, v[1]&staleSkipped != 0
		m.First, m.Reason = binary.BigEndian.Uint64(v[2:]), string(v[staleFixed:])
	case len(v) > 0 && v[0] == staleVersion:
		m.Reason = string(v[1:])
	default:
		return m, fmt.Errorf("stale mark %s of table %d: %w", key, id, errCorrupt)
	}
	return m, nil
}

// MovedRow returns the last row of an old key that a key change at the native position deleted, synced or not.
func (s *Store) MovedRow(id changelog.TableID, key changelog.Key, native string) (changelog.Row, bool, error) {
	v, closer, err := s.db.Get(keyspace.Moved(nil, id, 0, key, native))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("moved row %s of table %d at %s: %w", key, id, native, err)
	}
	_, row, err := parseMoved(v)
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("moved row %s of table %d at %s: %w", key, id, native, err), closer.Close())
	}
	return slices.Clone(row), true, closer.Close()
}

func parseMoved(v []byte) (micros int64, row changelog.Row, err error) {
	r := reader{b: v}
	if r.byte() != movedVersion {
		return 0, nil, errCorrupt
	}
	micros = r.varint()
	if r.bad {
		return 0, nil, errCorrupt
	}
	return micros, changelog.Row(r.b), nil
}

// Stale tells whether a key is marked stale, synced or not, and why.
func (s *Store) Stale(id changelog.TableID, key changelog.Key) (reason string, stale bool, err error) {
	m, stale, err := s.StaleMark(id, key)
	return m.Reason, stale, err
}

// StaleMark returns the mark of a key, synced or not; false if it has none.
func (s *Store) StaleMark(id changelog.TableID, key changelog.Key) (changelog.StaleMark, bool, error) {
	v, closer, err := s.db.Get(keyspace.Stale(nil, id, 0, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return changelog.StaleMark{}, false, nil
	}
	if err != nil {
		return changelog.StaleMark{}, false, fmt.Errorf("stale mark %s of table %d: %w", key, id, err)
	}
	m, err := parseStale(id, key, v)
	err = errors.Join(err, closer.Close())
	return m, err == nil, err
}

// StaleKeys yields the stale marks of a table in key order. An error comes last.
func (s *Store) StaleKeys(ctx context.Context, id changelog.TableID) iter.Seq2[changelog.StaleMark, error] {
	return func(yield func(changelog.StaleMark, error) bool) {
		errStop := errors.New("stop") // never leaves
		err := s.each(keyspace.Shard(nil, keyspace.SpaceStale, id, 0), func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			k, err := keyspace.KeyOf(key)
			if err != nil {
				return err
			}
			m, err := parseStale(id, k, value)
			if err != nil {
				return err
			}
			if !yield(m, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(changelog.StaleMark{}, fmt.Errorf("stale keys of table %d: %w", id, err))
		}
	}
}
