package datafile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"firn/changelog"
)

// ErrFile reports a file that is no Parquet file, or not one of the table.
var ErrFile = errors.New("datafile: unreadable file")

// Reader reads one Parquet file as batches in a given schema. Memory: the compressed pages being read and one batch. It
// is not safe for concurrent use.
type Reader struct {
	schema    *changelog.Schema
	arrow     *arrow.Schema
	options   Options
	file      *file.Reader
	in        pqarrow.RecordReader // nil: no column of the schema is in the file
	source    []int                // for each column of the batch: its place in what in reads, or -1
	convertTo []conversion
	next      int64 // ordinal of the next row
	rows      int64
}

// Open opens a file for the columns of s (Project gives fewer than a table's), and _file_offset if offset. Columns are
// found by field id, or by name in a file that has no ids at all. r stays the caller's and must outlive the reader.
//
// Errors: ErrFile; changelog.ErrIncompatible, a column of a type that does not widen to the schema's.
func Open(r io.ReaderAt, size int64, s *changelog.Schema, offset bool, o Options) (*Reader, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open data file: %w", err)
	}
	properties := parquet.NewReaderProperties(o.Allocator)
	properties.BufferedStreamEnabled = true
	properties.BufferSize = 64 << 10
	in, err := file.NewParquetReader(io.NewSectionReader(r, 0, size), file.WithReadProps(properties))
	if err != nil {
		return nil, fmt.Errorf("open data file of %d bytes: %w: %w", size, ErrFile, err)
	}
	rd := &Reader{schema: s, arrow: ArrowSchema(s, offset), options: o, file: in, rows: in.NumRows()}
	// What Arrow type a writer had in hand (large or dictionary-encoded strings, say) is nothing to us: without its note the types are
	// those of the Parquet schema.
	in.MetaData().FileMetaData.KeyValueMetadata = nil
	if err := rd.open(); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return rd, nil
}

func (r *Reader) open() error {
	in, err := pqarrow.NewFileReader(r.file, pqarrow.ArrowReadProperties{BatchSize: int64(r.options.BatchRows)}, r.options.Allocator)
	if err != nil {
		return fmt.Errorf("open data file: %w: %w", ErrFile, err)
	}
	leaves, source := columnsOf(r.file.MetaData().Schema, r.arrow)
	r.source, r.convertTo = source, make([]conversion, len(source))
	if len(leaves) == 0 {
		return nil
	}
	// The context would end the reading of pages; Next and the caller's ReaderAt do that.
	if r.in, err = in.GetRecordReader(context.Background(), leaves, nil); err != nil { //nolint:forbidigo // no call is bound to it
		return fmt.Errorf("open data file: %w: %w", ErrFile, err)
	}
	for i, at := range r.source {
		if at < 0 {
			continue
		}
		from, to := r.in.Schema().Field(at), r.arrow.Field(i)
		if r.convertTo[i] = convertible(from.Type, to.Type); r.convertTo[i] == nil {
			return fmt.Errorf("open data file: column %q from %s to %s: %w", to.Name, from.Type, to.Type, changelog.ErrIncompatible)
		}
	}
	return nil
}

// columnsOf finds the columns of want in a file: the leaves to read, and for each column of want its place among the
// fields that are read, or -1.
func columnsOf(s *schema.Schema, want *arrow.Schema) (leaves, source []int) {
	root := s.Root()
	hasIDs := false
	for i := range root.NumFields() {
		hasIDs = hasIDs || root.Field(i).FieldID() > 0
	}
	fields := make([]int, want.NumFields()) // place in the file, or -1
	for i, f := range want.Fields() {
		fields[i] = -1
		id, _ := f.Metadata.GetValue(fieldIDKey)
		for j := range root.NumFields() {
			n := root.Field(j)
			if hasIDs && fmt.Sprint(n.FieldID()) == id || !hasIDs && n.Name() == f.Name {
				fields[i] = j
			}
		}
	}
	read := make(map[int]int) // place in the file to place in the reader, which keeps file order
	for l := range s.NumColumns() {
		top := root.FieldIndexByField(s.ColumnRoot(l))
		if !slices.Contains(fields, top) {
			continue
		}
		leaves = append(leaves, l)
		if _, ok := read[top]; !ok {
			read[top] = len(read)
		}
	}
	source = make([]int, len(fields))
	for i, j := range fields {
		source[i] = -1
		if at, ok := read[j]; ok {
			source[i] = at
		}
	}
	return leaves, source
}

// Schema returns the schema of the rows, without _file_offset.
func (r *Reader) Schema() *changelog.Schema { return r.schema }

// ArrowSchema returns the schema of the batches.
func (r *Reader) ArrowSchema() *arrow.Schema { return r.arrow }

// Rows returns the number of rows of the file.
func (r *Reader) Rows() int64 { return r.rows }

// Metadata returns the file's footer.
func (r *Reader) Metadata() *metadata.FileMetaData { return r.file.MetaData() }

// Ordinal returns the ordinal in the file of the first row of the next batch.
func (r *Reader) Ordinal() int64 { return r.next }

// SeekRow makes row ordinal the first of the next batch.
func (r *Reader) SeekRow(ordinal int64) error {
	if ordinal < 0 || ordinal > r.rows {
		return fmt.Errorf("row %d of %d: %w", ordinal, r.rows, ErrFile)
	}
	if r.in != nil && ordinal < r.rows {
		if err := r.in.SeekToRow(ordinal); err != nil {
			return fmt.Errorf("seek to row %d: %w: %w", ordinal, ErrFile, err)
		}
	}
	r.next = ordinal
	return nil
}

// Next returns the next batch, which the caller releases, or io.EOF after the last one. Error: ErrFile.
func (r *Reader) Next() (arrow.RecordBatch, error) {
	if r.next >= r.rows {
		return nil, io.EOF
	}
	if r.in == nil {
		n := min(r.rows-r.next, int64(r.options.BatchRows))
		r.next += n
		return r.nulls(n), nil
	}
	batch, err := r.in.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read rows from %d on: %w: %w", r.next, ErrFile, err)
	}
	r.next += batch.NumRows()
	return r.convert(batch)
}

// Batches yields all batches that are left, each with the ordinal of its first row. A batch is valid until the next one;
// an error comes last.
func (r *Reader) Batches(ctx context.Context) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		for ctx.Err() == nil {
			b := Batch{First: r.next}
			var err error
			b.RecordBatch, err = r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Batch{}, err)
				return
			}
			more := yield(b, nil)
			b.Release()
			if !more {
				return
			}
		}
		yield(Batch{}, context.Cause(ctx))
	}
}

// Batch is consecutive rows of a file. First is the ordinal of the first one.
type Batch struct {
	arrow.RecordBatch
	First int64
}

// Close releases the reader.
func (r *Reader) Close() error {
	if r.in != nil {
		r.in.Release()
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close data file: %w", err)
	}
	return nil
}

func (r *Reader) nulls(n int64) arrow.RecordBatch {
	columns := make([]arrow.Array, r.arrow.NumFields())
	for i, f := range r.arrow.Fields() {
		columns[i] = array.MakeArrayOfNull(r.options.Allocator, f.Type, int(n))
	}
	return r.batch(columns, n)
}

func (r *Reader) batch(columns []arrow.Array, n int64) arrow.RecordBatch {
	b := array.NewRecordBatch(r.arrow, columns, n)
	for _, c := range columns {
		c.Release()
	}
	return b
}

func (r *Reader) convert(batch arrow.RecordBatch) (arrow.RecordBatch, error) {
	n := batch.NumRows()
	columns := make([]arrow.Array, r.arrow.NumFields())
	for i, at := range r.source {
		to := r.arrow.Field(i)
		if at < 0 {
			columns[i] = array.MakeArrayOfNull(r.options.Allocator, to.Type, int(n))
			continue
		}
		c := batch.Column(at)
		if !to.Nullable && c.NullN() > 0 {
			return nil, fmt.Errorf("column %q: %w: %w", to.Name, ErrFile, ErrNull)
		}
		columns[i] = r.convertTo[i](r.options.Allocator, c)
	}
	return r.batch(columns, n), nil
}
