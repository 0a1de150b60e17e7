package merge

import (
	"context"
	"fmt"
	"hash/maphash"
	mathbits "math/bits"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// lsn is a row's place in history.
type lsn struct {
	txn    int64
	offset int64
}

func (a lsn) less(b lsn) bool {
	return a.txn < b.txn || a.txn == b.txn && a.offset < b.offset
}

// share is the part of all keys that one pass over a task's files deals with.
type share struct {
	pass, passes uint64
	seed         maphash.Seed
}

func newShare(passes uint64) share { return share{passes: max(passes, 1), seed: maphash.MakeSeed()} }

func (s *share) has(k changelog.Key) bool {
	return s.passes <= 1 || maphash.Bytes(s.seed, k)%s.passes == s.pass
}

// passesFor returns into how many shares n keys must be split so that none is expected to exceed limit.
func passesFor(n int64, limit int) uint64 {
	return uint64((n + int64(limit) - 1) / int64(limit)) //nolint:gosec // neither is negative
}

// keyDeletes is the newest delete of each key.
type keyDeletes map[string]lsn

// kills reports whether a delete of k is newer than at.
func (d keyDeletes) kills(k changelog.Key, at lsn) bool {
	if len(d) == 0 {
		return false
	}
	del, ok := d[string(k)]
	return ok && at.less(del)
}

// loadDeletes reads the deletes of the share's keys.
func (r *Reader) loadDeletes(ctx context.Context, files []File, s *share) (keyDeletes, error) {
	if len(files) == 0 {
		return nil, nil
	}
	schema, err := datafile.ProjectKey(r.schema)
	if err != nil {
		return nil, err
	}
	deletes := keyDeletes{}
	var key changelog.Key
	for _, f := range files {
		err := r.each(ctx, f, schema, true, func(row *fileRow) error {
			if row.offset < 0 {
				return noOffset(f.Path, row.ordinal)
			}
			key = schema.KeyOf(key[:0], row.values)
			if !s.has(key) {
				return nil
			}
			at := lsn{f.Info.Txn, row.offset}
			if old, ok := deletes[string(key)]; !ok || old.less(at) {
				deletes[string(key)] = at
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return deletes, nil
}

// noOffset reports a row of a change file that has no place among the others.
func noOffset(path string, row int64) error {
	return fmt.Errorf("change file %s, row %d has no %s, so nobody knows which deletes come after it: take the file out of the change store, "+
		"or write its rows anew with it: %w", path, row, mixed.FileOffsetColumn, changelog.ErrCorrupt)
}

// bits is a set of row ordinals.
type bits []uint64

func (b bits) has(i int64) bool {
	return i>>6 < int64(len(b)) && b[i>>6]>>(i&63)&1 == 1
}

func (b *bits) set(i int64) {
	for int64(len(*b)) <= i>>6 {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

// count returns how many rows are in the set; none if b is nil.
func (b *bits) count() (n int64) {
	if b == nil {
		return 0
	}
	for _, word := range *b {
		n += int64(mathbits.OnesCount64(word))
	}
	return n
}

// loadPositions returns the deleted rows of each of the data files, a bit a row. A position delete concerns data that
// is not newer than itself.
func (r *Reader) loadPositions(ctx context.Context, files []File, data []dataFile) (map[string]*bits, error) {
	if len(files) == 0 {
		return nil, nil
	}
	sequence := make(map[string]int64, len(data))
	for _, d := range data {
		if d.base {
			sequence[d.Path] = d.Sequence
		}
	}
	dead := map[string]*bits{}
	for _, f := range files {
		if err := r.addPositions(ctx, f, sequence, dead); err != nil {
			return nil, fmt.Errorf("position deletes %s: %w", f.Path, err)
		}
	}
	return dead, nil
}

func (r *Reader) addPositions(ctx context.Context, f File, sequence map[string]int64, dead map[string]*bits) error {
	var last string
	var set *bits
	return r.files.positions(ctx, f, func(path []byte, pos int64) error {
		if last == "" || string(path) != last {
			last, set = string(path), nil
			if seq, ok := sequence[last]; ok && seq <= f.Sequence {
				if dead[last] == nil {
					dead[last] = new(bits)
				}
				set = dead[last]
			}
		}
		if pos < 0 {
			return fmt.Errorf("position %d: %w", pos, changelog.ErrCorrupt)
		}
		if set != nil {
			set.set(pos)
		}
		return nil
	})
}
