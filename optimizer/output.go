package optimizer

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// written is a file that a task wrote and that no snapshot names yet.
type written struct {
	path      string
	partition string
	number    int            // its place in outputs.created
	content   mixed.FileType // Base or PositionDelete
	schema    *changelog.Schema
	// referenced is the only data file that a position-delete file names; "": several.
	referenced string
	*datafile.Written
}

// outputs names and collects the files of one commit of a base store.
type outputs struct {
	fs        table.FS
	base      *table.Store
	schema    *changelog.Schema
	options   datafile.Options
	target    int64
	operation int64 // random: no two commits share a name
	count     int
	files     []written
	created   []string // paths of all that may be there, also of failed writes
}

func newOutputs(fs table.FS, base *table.Store, s *changelog.Schema, o datafile.Options, target int64) *outputs {
	return &outputs{
		fs: fs, base: base, schema: s, options: o, target: target,
		operation: table.NewOp(),
	}
}

// create starts the file that the name's fields and the next number tell.
func (o *outputs) create(partition string, node mixed.TreeNode, t mixed.FileType, txn int64) (*table.Output, string, error) {
	o.count++
	path := o.base.DataPathIn(partition, mixed.FileName{Node: node, Type: t, Txn: txn, Op: o.operation, Count: o.count}.String())
	out, err := o.fs.Create(path)
	if err != nil {
		return nil, "", err //nolint:wrapcheck // it names the file
	}
	o.created = append(o.created, path)
	return out, path, nil
}

// remove deletes all files of a commit that certainly did not happen.
func (o *outputs) remove() error {
	var errs []error
	for _, p := range o.created {
		errs = append(errs, o.fs.Remove(p))
	}
	return errors.Join(errs...)
}

// rolling writes rows of one partition and node into files of about the target size.
type rolling struct {
	o         *outputs
	partition string
	node      mixed.TreeNode
	txn       int64

	path   string
	number int
	out    *table.Output // nil: no file is open
	w      *datafile.Writer
}

func (o *outputs) rolling(partition string, node mixed.TreeNode, txn int64) *rolling {
	return &rolling{o: o, partition: partition, node: node, txn: txn}
}

// write appends a batch of the outputs' schema and returns where its rows begin: in which file (its place in
// outputs.created) and at which row.
func (r *rolling) write(batch arrow.RecordBatch) (file int, row int64, err error) {
	if r.out == nil {
		if err := r.open(); err != nil {
			return 0, 0, err
		}
	}
	file, row = r.number, r.w.Rows()
	if err := r.w.Write(batch); err != nil {
		return 0, 0, fmt.Errorf("write %s: %w", r.path, err)
	}
	if r.w.Bytes() >= r.o.target {
		return file, row, r.finish()
	}
	return file, row, nil
}

func (r *rolling) open() (err error) {
	if r.out, r.path, err = r.o.create(r.partition, r.node, mixed.Base, r.txn); err != nil {
		return err
	}
	r.number = len(r.o.created) - 1
	if r.w, err = datafile.NewWriter(r.out, r.o.schema, false, r.o.options); err != nil {
		r.out.Abort()
		r.out = nil
		return fmt.Errorf("write %s: %w", r.path, err)
	}
	return nil
}

// finish makes the open file durable.
func (r *rolling) finish() error {
	if r.out == nil {
		return nil
	}
	w, err := r.w.Close()
	if err == nil {
		err = r.out.Commit()
	}
	r.out.Abort()
	r.out = nil
	if err != nil {
		return fmt.Errorf("write %s: %w", r.path, err)
	}
	r.o.files = append(r.o.files, written{path: r.path, partition: r.partition, number: r.number, content: mixed.Base, schema: r.o.schema, Written: w})
	return nil
}

// abort drops the open file, if any.
func (r *rolling) abort() {
	if r.out != nil {
		r.w.Abort()
		r.out.Abort()
		r.out = nil
	}
}

// writeDeletes writes one position-delete file that names the given rows of data files, by path.
func (o *outputs) writeDeletes(partition string, node mixed.TreeNode, txn int64, sets map[string]*rowSet) error {
	out, path, err := o.create(partition, node, mixed.PositionDelete, txn)
	if err != nil {
		return err
	}
	defer out.Abort()
	w, err := datafile.NewDeleteWriter(out, o.options)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	names := sortedPaths(sets)
	for _, p := range names {
		for pos := range sets[p].rows {
			if err := w.Write(datafile.PosDelete{Path: p, Pos: pos}); err != nil {
				w.Abort()
				return fmt.Errorf("write %s: %w", path, err)
			}
		}
	}
	done, err := w.Close()
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f := written{path: path, partition: partition, number: len(o.created) - 1, content: mixed.PositionDelete, Written: done}
	if len(names) == 1 {
		f.referenced = names[0]
	}
	o.files = append(o.files, f)
	return nil
}
