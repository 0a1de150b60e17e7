package flush

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// batch writes the files of one commit: an I file and an ED file for each partition and node that has such rows, ascending
// by _file_offset because changes come so (spec/mixed-format.md 2.2, 12). In a table without a key it is one base file for each
// partition, and one of position deletes where rows go. Rows of a table with partitions are held until the end, so that only the
// files of one partition are open at a time.
type batch struct {
	fs      table.FS
	path    func(partition, name string) string
	schema  *changelog.Schema
	rows    *datafile.Projector
	types   []*changelog.Type // of the key
	buckets int
	op      int64
	options datafile.Options

	parted *parted // nil: no partitions

	files  []*dataFile // in the order of their making
	byNode [2][]*dataFile
	key    []changelog.Value // a row of nulls and a key

	removals removals                        // without a key: what the changes take out
	dead     map[string][]datafile.PosDelete // where those rows are in base files, by partition

	times   sourceTimes // of the changes
	changes int         // those that made rows
	bytes   int64
}

// dataFile is a file being written.
type dataFile struct {
	path      string
	partition string
	out       *table.Output
	w         *datafile.Writer
	done      *datafile.Written
}

const (
	inserts = 0
	deletes = 1
)

func newBatch(t *table.Table, history changelog.Schemas, buckets int, o datafile.Options) *batch {
	schema := history.Current()
	b := &batch{
		fs: t.FS(), path: t.Base().DataPathIn, schema: schema, rows: datafile.NewProjector(history, schema),
		types: schema.KeyTypes(), buckets: buckets, op: rand.Int64(), options: o,
		key: make([]changelog.Value, len(schema.Columns)), times: sourceTimes{},
	}
	if t.Keyed() {
		b.path = t.Change().DataPathIn
	} else {
		b.buckets = 1
	}
	for i := range b.key {
		b.key[i] = changelog.NullValue
	}
	b.spread(b.buckets)
	return b
}

// spread makes ready for the files of another partition, over so many nodes.
func (b *batch) spread(buckets int) {
	b.buckets = buckets
	b.byNode[inserts], b.byNode[deletes] = make([]*dataFile, buckets), make([]*dataFile, buckets)
}

// add writes the rows of a change, or holds them if there are partitions. A change with an after image replaces whatever row its key has, so each has a
// delete row; the pair shares its offset and the delete kills only what is older.
func (b *batch) add(c *changelog.Change) error {
	if c.Op == changelog.OpTruncate {
		return nil
	}
	if len(b.types) == 0 {
		if c.After == nil || c.Seq <= b.removals.truncated || b.removals.cancelled[c.Seq] {
			return nil // it puts no row in that stays
		}
		b.changes++
		if b.parted != nil {
			return b.holdInsert(c)
		}
		return b.write(inserts, 0, c.After, c.Seq)
	}
	key, err := b.schema.KeyValues(c.Key)
	if err != nil {
		return fmt.Errorf("change %d: %w", c.Seq, err)
	}
	node := 0
	if b.buckets > 1 {
		node = int(mixed.NodeFor(mixed.KeyHash(b.types, key), b.buckets).Index)
	}
	b.changes++
	if b.parted != nil {
		return b.hold(c, key)
	}
	if c.Before != nil {
		err = b.write(deletes, node, c.Before, c.Seq)
	} else {
		err = b.writeValues(deletes, node, b.keyRow(key), c.Seq)
	}
	if err == nil && c.After != nil {
		err = b.write(inserts, node, c.After, c.Seq)
	}
	return err
}

// keyRow returns a row of a key and nulls, valid until the next call.
func (b *batch) keyRow(key []changelog.Value) []changelog.Value {
	for i, o := range b.schema.KeyOrdinals() {
		b.key[o] = key[i]
	}
	return b.key
}

func (b *batch) write(kind, node int, r changelog.Row, seq changelog.SeqNum) error {
	id, err := r.SchemaID()
	if err != nil {
		return fmt.Errorf("change %d: %w", seq, err)
	}
	if id != b.schema.ID {
		values, err := b.rows.Values(r)
		if err != nil {
			return fmt.Errorf("change %d: %w", seq, err)
		}
		return b.writeValues(kind, node, values, seq)
	}
	f, err := b.file(kind, node)
	if err != nil {
		return err
	}
	if err := f.w.WriteRow(r, int64(seq)); err != nil { //nolint:gosec // SeqNums are dense from 1
		return fmt.Errorf("change %d: %w", seq, err)
	}
	return nil
}

func (b *batch) writeValues(kind, node int, values []changelog.Value, seq changelog.SeqNum) error {
	f, err := b.file(kind, node)
	if err != nil {
		return err
	}
	if err := f.w.WriteValues(values, int64(seq)); err != nil { //nolint:gosec // SeqNums are dense from 1
		return fmt.Errorf("change %d: %w", seq, err)
	}
	return nil
}

// file returns the open file of a kind and node.
func (b *batch) file(kind, node int) (*dataFile, error) {
	if f := b.byNode[kind][node]; f != nil {
		return f, nil
	}
	name := mixed.FileName{
		Node: mixed.TreeNode{Mask: int64(b.buckets) - 1, Index: int64(node)}, Op: b.op, Count: len(b.files) + 1,
	}
	switch {
	case kind == deletes:
		name.Type = mixed.Delete
	case len(b.types) == 0:
		name.Type = mixed.Base
	default:
		name.Type = mixed.Insert
	}
	f := &dataFile{}
	if b.parted != nil {
		f.partition = b.parted.current
	}
	f.path = b.path(f.partition, name.String())
	out, err := b.fs.Create(f.path)
	if err != nil {
		return nil, err
	}
	f.out = out
	if f.w, err = datafile.NewWriter(out, b.schema, len(b.types) > 0, b.options); err != nil {
		out.Abort()
		return nil, err
	}
	b.files = append(b.files, f)
	b.byNode[kind][node] = f
	return f, nil
}

// finish makes the files durable and returns what is to be committed. After an error, abort is due.
func (b *batch) finish() ([]table.NewFile, error) {
	if b.parted != nil {
		if err := b.writeHeld(); err != nil {
			return nil, err
		}
	}
	if err := b.closeFiles(0); err != nil {
		return nil, err
	}
	add := make([]table.NewFile, 0, len(b.files))
	for _, f := range b.files {
		add = append(add, table.NewFile{
			Path: f.path, Partition: f.partition, Schema: b.schema, Offset: len(b.types) > 0, Rows: f.done.Rows, Bytes: f.done.Bytes, Footer: f.done.Metadata,
			NaNs: f.done.NaNs,
		})
	}
	return add, nil
}

// closeFiles makes the files that are open, which are among those from the first-th on, durable.
func (b *batch) closeFiles(first int) error {
	for _, f := range b.files[first:] {
		if f.done != nil {
			continue
		}
		w := f.w
		f.w = nil
		var err error
		if f.done, err = w.Close(); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		if err := f.out.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// abort removes all files: none was part of a commit.
func (b *batch) abort() error {
	var errs []error
	for _, f := range b.files {
		if f.w != nil {
			f.w.Abort()
		}
		f.out.Abort()
		errs = append(errs, b.fs.Remove(f.path))
	}
	return errors.Join(errs...)
}

// limits end a batch.
type limits struct {
	rows  int
	bytes int64
	each  int64 // bytes that a change counts beside its own
}

// fill writes changes after from until they end or a limit is reached, and returns the SeqNum of the last one and how
// far the streams that it has seen are applied by then.
func (b *batch) fill(ctx context.Context, from changelog.SeqNum, changes iter.Seq2[changelog.Change, error], l limits) (changelog.SeqNum, positions, error) {
	if b.parted != nil { // it holds rows, and each takes more than its bytes
		l.each = 2 * imageBytes
	}
	to, seen, size, err := walk(ctx, from, changes, l, func(c *changelog.Change) error {
		b.times.note(c)
		return b.add(c)
	})
	b.bytes += size
	return to, seen, err
}

// walk visits changes after from until they end or a limit is reached. It returns the SeqNum of the last one, how far
// the streams that it has seen are applied by then, and the bytes of keys and rows.
func walk(ctx context.Context, from changelog.SeqNum, changes iter.Seq2[changelog.Change, error], l limits, visit func(*changelog.Change) error) (
	to changelog.SeqNum, seen positions, size int64, err error,
) {
	to, seen = from, positions{}
	n := 0
	for c, err := range changes {
		if err != nil {
			return to, seen, size, err
		}
		if n >= l.rows || size >= l.bytes {
			seen.cut(&c.Position)
			return to, seen, size, nil
		}
		if c.Seq != to+1 {
			return to, seen, size, fmt.Errorf("change %d follows %d in the log: %w", c.Seq, to, changelog.ErrCorrupt)
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return to, seen, size, context.Cause(ctx)
		}
		if err := visit(&c); err != nil {
			return to, seen, size, err
		}
		size += int64(len(c.Key)+len(c.Before)+len(c.After)) + l.each
		seen.note(&c.Position)
		to = c.Seq
		n++
	}
	return to, seen, size, ctx.Err()
}
