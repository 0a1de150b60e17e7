package merge

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Feed yields the changes (from, to] out of the change files, ascending by SeqNum, whether or not the base store has
// them too (P5): rows with the same _file_offset are the images of one change. It reads tables that firn has
// written, where _file_offset is the SeqNum.
//
// Change files do not say all that the log does: positions, times and transactions are empty; a change that replaced a
// row whose before image the source gave is OpUpdate, any other with an after image OpCreate; truncate markers are
// not there. The bytes of a change are valid until the next one. An error comes last.
//
// Errors: ErrMissing, the files begin later than from+1 (they were expired after optimizing, or only markers came before);
// changelog.ErrCorrupt, a SeqNum is there twice.
//
// Memory: a batch of each file of one commit.
func (r *Reader) Feed(ctx context.Context, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		err := r.feed(ctx, from, to, func(c changelog.Change) error {
			if !yield(c, nil) {
				return errStop
			}
			return nil
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(changelog.Change{}, fmt.Errorf("change files (%d, %d]: %w", from, to, err))
		}
	}
}

func (r *Reader) feed(ctx context.Context, from, to changelog.SeqNum, visit func(changelog.Change) error) error {
	if to <= from {
		return nil
	}
	commits := map[int64][]File{}
	for _, f := range distinct(r.snap.Change) {
		if f.Info.Type == mixed.Insert || f.Info.Type == mixed.Delete {
			commits[f.Info.Txn] = append(commits[f.Info.Txn], f)
		}
	}
	fd := feeder{r: r, from: from, to: to, last: from, visit: visit}
	for _, txn := range slices.Sorted(maps.Keys(commits)) {
		least, greatest, err := r.span(ctx, commits[txn])
		if err != nil {
			return err
		}
		if !fd.begun && least > from+1 {
			return fmt.Errorf("first change there is %d: %w", least, ErrMissing)
		}
		fd.begun = true
		if greatest <= from {
			continue
		}
		if least > to {
			return nil
		}
		if err := fd.commit(ctx, commits[txn]); err != nil {
			return err
		}
	}
	if !fd.begun {
		return fmt.Errorf("no change files: %w", ErrMissing)
	}
	return nil
}

// span returns the least and greatest SeqNum of the files; what has no statistics may have any.
func (r *Reader) span(ctx context.Context, files []File) (least, greatest changelog.SeqNum, err error) {
	least = math.MaxUint64
	for _, f := range files {
		lo, hi, ok, err := r.files.offsets(ctx, f)
		if err != nil {
			return 0, 0, fmt.Errorf("statistics of %s: %w", f.Path, err)
		}
		if !ok {
			lo, hi = 0, math.MaxInt64
		}
		least = min(least, changelog.SeqNum(max(lo, 0)))       //nolint:gosec // not negative
		greatest = max(greatest, changelog.SeqNum(max(hi, 0))) //nolint:gosec // not negative
	}
	return least, greatest, nil
}

// feeder merges the files of one commit after the other.
type feeder struct {
	r        *Reader
	from, to changelog.SeqNum
	begun    bool
	last     changelog.SeqNum
	visit    func(changelog.Change) error

	before, after []byte
	key, other    changelog.Key
}

func (fd *feeder) commit(ctx context.Context, files []File) (err error) {
	var h cursors
	defer func() {
		for _, c := range h {
			err = errors.Join(err, c.close())
		}
	}()
	for _, f := range files {
		c, err := fd.r.files.rows(ctx, f, fd.r.schema, true)
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Path, err)
		}
		h = append(h, &feedCursor{cursor: c, file: f})
		if ok, err := h[len(h)-1].advance(); err != nil {
			return err
		} else if !ok {
			err := c.close()
			h = h[:len(h)-1]
			if err != nil {
				return err
			}
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if err := fd.one(&h); err != nil {
			return err
		}
	}
	return nil
}

// one takes the rows with the lowest SeqNum off the heap and visits the change that they are.
func (fd *feeder) one(h *cursors) error {
	seq := changelog.SeqNum((*h)[0].row().offset) //nolint:gosec // not negative: advance has looked
	wanted := seq > fd.from && seq <= fd.to
	if wanted && seq <= fd.last {
		return fmt.Errorf("%s: change %d again after %d: %w", (*h)[0].file.Path, seq, fd.last, changelog.ErrCorrupt)
	}
	c := changelog.Change{Seq: seq}
	removed := false
	for len(*h) > 0 && changelog.SeqNum((*h)[0].row().offset) == seq { //nolint:gosec // as above
		top := (*h)[0]
		if wanted {
			if err := fd.image(&c, top, &removed); err != nil {
				return err
			}
		}
		if err := h.step(); err != nil {
			return err
		}
	}
	if !wanted {
		return nil
	}
	fd.last = seq
	switch {
	case c.After == nil:
		c.Op = changelog.OpDelete
	case c.Before != nil:
		c.Op = changelog.OpUpdate
	default:
		c.Op = changelog.OpCreate
	}
	return fd.visit(c)
}

// image adds the row under the cursor to the change.
func (fd *feeder) image(c *changelog.Change, at *feedCursor, removed *bool) error {
	schema, values := fd.r.schema, at.row().values
	if c.Key == nil {
		fd.key = schema.KeyOf(fd.key[:0], values)
		c.Key = fd.key
	} else if fd.other = schema.KeyOf(fd.other[:0], values); !bytes.Equal(c.Key, fd.other) {
		return fmt.Errorf("%s: change %d has keys %s and %s: %w", at.file.Path, c.Seq, c.Key, fd.other, changelog.ErrCorrupt)
	}
	if at.file.Info.Type == mixed.Insert {
		if c.After != nil {
			return fmt.Errorf("%s: change %d has two after images: %w", at.file.Path, c.Seq, changelog.ErrCorrupt)
		}
		fd.after = changelog.AppendRow(fd.after[:0], schema, values)
		c.After = fd.after
		return nil
	}
	if *removed {
		return fmt.Errorf("%s: change %d has two before images: %w", at.file.Path, c.Seq, changelog.ErrCorrupt)
	}
	*removed = true
	if !keyOnly(schema, values) {
		fd.before = changelog.AppendRow(fd.before[:0], schema, values)
		c.Before = fd.before
	}
	return nil
}

// keyOnly reports whether a row has nothing but its key: what stands in for an image that the source did not give.
func keyOnly(s *changelog.Schema, values []changelog.Value) bool {
	for i, v := range values {
		if !v.Null && !slices.Contains(s.KeyOrdinals(), i) {
			return false
		}
	}
	return true
}

type feedCursor struct {
	cursor
	file File
	last int64
}

// advance goes to the next row. ok is false at the end.
func (c *feedCursor) advance() (ok bool, err error) {
	if !c.next() {
		if err := c.err(); err != nil {
			return false, fmt.Errorf("read %s: %w", c.file.Path, err)
		}
		return false, nil
	}
	if o := c.row().offset; o < 0 || o < c.last {
		return false, fmt.Errorf("%s, row %d: file offset %d after %d: %w", c.file.Path, c.row().ordinal, o, c.last, changelog.ErrCorrupt)
	}
	c.last = c.row().offset
	return true, nil
}

// cursors is a heap by file offset.
type cursors []*feedCursor

func (h cursors) Len() int           { return len(h) }
func (h cursors) Less(i, j int) bool { return cmp.Less(h[i].row().offset, h[j].row().offset) }
func (h cursors) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *cursors) Push(x any)        { *h = append(*h, x.(*feedCursor)) }
func (h *cursors) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// step advances the cursor on top, or closes it at its end.
func (h *cursors) step() error {
	top := (*h)[0]
	ok, err := top.advance()
	if err != nil {
		return err
	}
	if ok {
		heap.Fix(h, 0)
		return nil
	}
	heap.Pop(h)
	return top.close()
}
