package datafile

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"firn/changelog"
	"firn/changelog/mixed"
)

// PosDelete marks one row of a data file as deleted. Path is the file's path as the manifest has it, byte for byte; Pos
// is the row's ordinal in the file, from 0.
type PosDelete struct {
	Path string
	Pos  int64
}

// ErrUnsorted reports position deletes that are not in order.
var ErrUnsorted = errors.New("datafile: position deletes are not ascending")

// deleteSchema is Iceberg's schema of position delete files.
func deleteSchema() *changelog.Schema {
	s := &changelog.Schema{Columns: []changelog.Column{
		{ID: mixed.DeletePathID, Name: "file_path", Type: changelog.Primitive(changelog.String), Required: true},
		{ID: mixed.DeletePosID, Name: "pos", Type: changelog.Primitive(changelog.Long), Required: true},
	}}
	if err := s.Index(); err != nil {
		panic(err) // two different names and ids
	}
	return s
}

// DeleteWriter writes one file of position deletes.
type DeleteWriter struct {
	w    *Writer
	path *array.StringBuilder
	pos  *array.Int64Builder
	last PosDelete
}

// NewDeleteWriter starts a position delete file in w. Close ends the file and leaves w open.
func NewDeleteWriter(w io.Writer, o Options) (*DeleteWriter, error) {
	dw, err := NewWriter(w, deleteSchema(), false, o)
	if err != nil {
		return nil, err
	}
	return &DeleteWriter{
		w:    dw,
		path: dw.appender.builder.Field(0).(*array.StringBuilder), // the type of deleteSchema
		pos:  dw.appender.builder.Field(1).(*array.Int64Builder),  // the type of deleteSchema
	}, nil
}

// Write appends one delete: paths ascending, positions within one ascending without duplicates. Error: ErrUnsorted.
func (d *DeleteWriter) Write(p PosDelete) error {
	if d.w.err != nil {
		return d.w.err
	}
	if d.w.Rows() > 0 && (p.Path < d.last.Path || p.Path == d.last.Path && p.Pos <= d.last.Pos) {
		d.w.err = fmt.Errorf("%s:%d after %s:%d: %w", p.Path, p.Pos, d.last.Path, d.last.Pos, ErrUnsorted)
		return d.w.err
	}
	d.last = p
	d.path.Append(p.Path)
	d.pos.Append(p.Pos)
	d.w.appender.finishRow(0, len(p.Path)+8)
	return d.w.wrote(nil, 0)
}

// Rows returns how many deletes were written.
func (d *DeleteWriter) Rows() int64 { return d.w.Rows() }

// Close writes what is left and the footer.
func (d *DeleteWriter) Close() (*Written, error) { return d.w.Close() }

// Abort releases the writer without finishing the file.
func (d *DeleteWriter) Abort() { d.w.Abort() }

// WritePositionDeletes writes one file of position deletes, which are sorted by path and position. Error: ErrUnsorted.
func WritePositionDeletes(w io.Writer, deletes []PosDelete, o Options) (*Written, error) {
	d, err := NewDeleteWriter(w, o)
	if err != nil {
		return nil, err
	}
	for _, p := range deletes {
		if err := d.Write(p); err != nil {
			d.Abort()
			return nil, err
		}
	}
	return d.Close()
}

// DeleteReader reads position delete files.
type DeleteReader struct {
	r *Reader
}

// OpenDeletes opens a position delete file of any writer.
func OpenDeletes(r io.ReaderAt, size int64, o Options) (*DeleteReader, error) {
	in, err := Open(r, size, deleteSchema(), false, o)
	if err != nil {
		return nil, err
	}
	if slices.Contains(in.source, -1) { // columns that are not there would read as nulls: no deletes at all
		return nil, errors.Join(fmt.Errorf("open position deletes: the file has no columns file_path and pos: %w", ErrFile), in.Close())
	}
	return &DeleteReader{r: in}, nil
}

// Rows returns how many deletes the file has.
func (d *DeleteReader) Rows() int64 { return d.r.Rows() }

// Each calls f for each delete in file order; the path is valid during the call. It ends at f's first error.
func (d *DeleteReader) Each(f func(path []byte, pos int64) error) error {
	for {
		batch, err := d.r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = eachDelete(batch, f)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

func eachDelete(batch arrow.RecordBatch, f func(path []byte, pos int64) error) error {
	rows := NewRows(deleteSchema())
	if err := rows.Reset(batch); err != nil {
		return err
	}
	for i := range rows.Len() {
		v := rows.Values(i)
		if err := f(v[0].B, v[1].I); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the reader.
func (d *DeleteReader) Close() error { return d.r.Close() }
