package optimizer

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/table"
)

// eachBatch calls visit for each batch of a data file's columns s, with the ordinal of its first row. from is the row to
// begin with.
func eachBatch(ctx context.Context, fs table.FS, path string, s *changelog.Schema, offset bool, o datafile.Options,
	visit func(datafile.Batch) error,
) (err error) {
	in, err := fs.Open(path)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := datafile.Open(in, in.Size(), s, offset, o)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for batch, err := range r.Batches(ctx) {
		if err == nil {
			err = visit(batch)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	return nil
}

// eachKey calls visit with the key of each row of a data file and its ordinal; the key is valid during the call.
func eachKey(ctx context.Context, fs table.FS, path string, key *changelog.Schema, o datafile.Options,
	visit func(k changelog.Key, row int64) error,
) error {
	rows := datafile.NewRows(key)
	var buf changelog.Key
	return eachBatch(ctx, fs, path, key, false, o, func(b datafile.Batch) error {
		if err := rows.Reset(b); err != nil {
			return err //nolint:wrapcheck // eachBatch names the file
		}
		for i := range rows.Len() {
			buf = rows.AppendKey(buf[:0], i)
			if err := visit(buf, b.First+int64(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// rowSet is a set of row ordinals of one file.
type rowSet struct {
	words []uint64
	n     int64
}

func (s *rowSet) add(row int64) {
	w := int(row >> 6)
	if w >= len(s.words) {
		s.words = append(s.words, make([]uint64, w+1-len(s.words))...)
	}
	if bit := uint64(1) << (row & 63); s.words[w]&bit == 0 {
		s.words[w] |= bit
		s.n++
	}
}

func (s *rowSet) has(row int64) bool {
	if s == nil {
		return false
	}
	w := int(row >> 6)
	return w < len(s.words) && s.words[w]>>(row&63)&1 == 1
}

// len returns the number of rows in the set.
func (s *rowSet) len() int64 {
	if s == nil {
		return 0
	}
	return s.n
}

// count returns how many rows from first on, up to first+n, are in the set.
func (s *rowSet) count(first, n int64) int64 {
	if s == nil {
		return 0
	}
	var c int64
	for row := first; row < first+n; {
		w := int(row >> 6)
		if w >= len(s.words) {
			break
		}
		word := s.words[w] >> (row & 63)
		step := min(64-row&63, first+n-row)
		if step < 64 {
			word &= 1<<step - 1
		}
		c += int64(bits.OnesCount64(word))
		row += step
	}
	return c
}

// rows yields the set's members in order.
func (s *rowSet) rows(yield func(int64) bool) {
	for w, word := range s.words {
		for ; word != 0; word &= word - 1 {
			if !yield(int64(w)<<6 | int64(bits.TrailingZeros64(word))) {
				return
			}
		}
	}
}

// deleteCounts is how many rows of each data file a position-delete file names. It is immutable.
type deleteCounts map[string]int64

// readDeletes calls visit for each row of a position-delete file; path is valid during the call.
func readDeletes(fs table.FS, path string, o datafile.Options, visit func(path []byte, pos int64) error) (err error) {
	in, err := fs.Open(path)
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := datafile.OpenDeletes(in, in.Size(), o)
	if err != nil {
		return fmt.Errorf("read position deletes %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Each(visit); err != nil {
		return fmt.Errorf("read position deletes %s: %w", path, err)
	}
	return nil
}

func countDeletes(fs table.FS, path string, o datafile.Options) (deleteCounts, error) {
	counts := deleteCounts{}
	var last string
	var n int64
	err := readDeletes(fs, path, o, func(p []byte, _ int64) error {
		if string(p) != last {
			if n > 0 {
				counts[last] += n
			}
			last, n = string(p), 0
		}
		n++
		return nil
	})
	if n > 0 {
		counts[last] += n
	}
	return counts, err
}

// loadDeletes returns the deleted rows of data files, by path: what a position-delete file says of those for which wanted is true.
func loadDeletes(fs table.FS, files []string, o datafile.Options, wanted func(deletes, data string) bool) (map[string]*rowSet, error) {
	sets := map[string]*rowSet{}
	for _, f := range files {
		var last string
		var set *rowSet
		err := readDeletes(fs, f, o, func(p []byte, pos int64) error {
			if string(p) != last {
				last, set = string(p), nil
				if wanted(f, last) {
					if set = sets[last]; set == nil {
						set = &rowSet{}
						sets[last] = set
					}
				}
			}
			if set != nil {
				if pos < 0 {
					return fmt.Errorf("position %d: %w", pos, datafile.ErrFile)
				}
				set.add(pos)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// sortedPaths returns the keys of m, sorted.
func sortedPaths[V any](m map[string]V) []string {
	paths := make([]string, 0, len(m))
	for p := range m {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}
