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
	e.arena = append(append(e.arena, staleVersion), m.Reason...)
	e.end(opSet, key, val, 0, 0)
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
	v, closer, err := s.db.Get(keyspace.Stale(nil, id, 0, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("stale mark %s of table %d: %w", key, id, err)
	}
	if len(v) == 0 || v[0] != staleVersion {
		return "", false, errors.Join(fmt.Errorf("stale mark %s of table %d: %w", key, id, errCorrupt), closer.Close())
	}
	reason = string(v[1:]) // before Close, in a statement of its own: the order of the two is not defined
	return reason, true, closer.Close()
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
			if len(value) == 0 || value[0] != staleVersion {
				return fmt.Errorf("mark %s: %w", k, errCorrupt)
			}
			if !yield(changelog.StaleMark{Table: id, Key: slices.Clone(k), Set: true, Reason: string(value[1:])}, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(changelog.StaleMark{}, fmt.Errorf("stale keys of table %d: %w", id, err))
		}
	}
}
