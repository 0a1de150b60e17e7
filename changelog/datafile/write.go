package datafile

import (
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"firn/changelog"
)

// Options of writing and reading files.
type Options struct {
	// Level is the zstd level of written pages, from 1 (fast) to 22. Default 1.
	Level int
	// RowGroupBytes closes a row group that has this many encoded bytes. A writer holds about one row group in memory,
	// a reader the columns that it reads of one. Default 32 MiB.
	RowGroupBytes int64
	// RowGroupRows closes a row group that has this many rows. Default 1,048,576.
	RowGroupRows int64
	// BatchRows is the most rows of a batch that a Reader returns, and that a Writer collects before it encodes them.
	// Default 8192.
	BatchRows int
	// BatchBytes closes a batch of a Writer that takes this many bytes. Default 8 MiB.
	BatchBytes int64
	// Allocator is where Arrow memory comes from. Default: Go's heap.
	Allocator memory.Allocator
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	if o.Level == 0 {
		o.Level = 1
	}
	if o.RowGroupBytes == 0 {
		o.RowGroupBytes = 32 << 20
	}
	if o.RowGroupRows == 0 {
		o.RowGroupRows = 1 << 20
	}
	if o.BatchRows == 0 {
		o.BatchRows = 8192
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 8 << 20
	}
	if o.Allocator == nil {
		o.Allocator = memory.DefaultAllocator
	}
}

// Validate reports all settings that are out of range.
func (o *Options) Validate() error {
	var errs []error
	if o.Level < 1 || o.Level > 22 {
		errs = append(errs, fmt.Errorf("zstd level %d is not in 1 to 22", o.Level))
	}
	for name, n := range map[string]int64{
		"row group bytes": o.RowGroupBytes, "row group rows": o.RowGroupRows,
		"batch rows": int64(o.BatchRows), "batch bytes": o.BatchBytes,
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", name, n))
		}
	}
	return errors.Join(errs...)
}

// Written is what a file became.
type Written struct {
	Rows, Bytes int64
	// FirstOffset and LastOffset are the smallest and largest _file_offset; 0 in a file without.
	FirstOffset, LastOffset int64
	// Metadata is the file's footer, from which the table takes its statistics.
	Metadata *metadata.FileMetaData
	// NaNs is how many values of each float column are no number, by field id; nil: there is no float column.
	NaNs map[int]int64
}

// Writer writes one Parquet file. It is not safe for concurrent use.
type Writer struct {
	out      *counter
	options  Options
	appender *Appender
	file     *pqarrow.FileWriter // nil until the first batch, which decides the encodings
	nans     nans
	written  Written
	err      error // sticky: what a failed write left is no file
}

// NewWriter starts a file of rows of s in w, with a _file_offset if offset. Close ends the file and leaves w open; a
// writer that is given up needs Abort. Errors: of w, and of invalid options.
func NewWriter(w io.Writer, s *changelog.Schema, offset bool, o Options) (*Writer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	a := NewAppender(o.Allocator, s, offset)
	return &Writer{out: &counter{w: w}, options: o, appender: a, nans: newNaNs(a.Schema())}, nil
}

// begin starts the file once its first rows are known: a column that hardly repeats in them gets no dictionary, which
// would cost more time than all the rest.
func (w *Writer) begin(sample arrow.RecordBatch) error {
	properties := []parquet.WriterProperty{
		parquet.WithAllocator(w.options.Allocator),
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithCompressionLevel(w.options.Level),
		parquet.WithMaxRowGroupLength(w.options.RowGroupRows),
		parquet.WithStats(true),
		parquet.WithCreatedBy("firn"),
		parquet.WithStoreDecimalAsInteger(true), // of up to 18 digits (Iceberg's appendix A)
	}
	for i, f := range w.appender.Schema().Fields() {
		if sample != nil && !repeats(sample.Column(i)) {
			properties = append(properties, parquet.WithDictionaryPath(parquet.ColumnPath{f.Name}, false))
		}
	}
	var err error
	w.file, err = pqarrow.NewFileWriter(w.appender.Schema(), w.out, parquet.NewWriterProperties(properties...),
		pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(w.options.Allocator)))
	if err != nil {
		w.err = fmt.Errorf("begin data file: %w", err)
	}
	return w.err
}

// WriteRow appends a row that the writer's schema encoded. offset is its _file_offset. The bytes are copied. An error is
// final. Errors: ErrNull, changelog.ErrCorrupt, those of the underlying writer.
func (w *Writer) WriteRow(r changelog.Row, offset int64) error {
	if w.err != nil {
		return w.err
	}
	return w.wrote(w.appender.AppendRow(r, offset), offset)
}

// WriteValues appends a row: one value a column. Otherwise as WriteRow.
func (w *Writer) WriteValues(values []changelog.Value, offset int64) error {
	if w.err != nil {
		return w.err
	}
	return w.wrote(w.appender.AppendValues(values, offset), offset)
}

func (w *Writer) wrote(err error, offset int64) error {
	if err != nil {
		w.err = fmt.Errorf("write row %d: %w", w.written.Rows, err)
		return w.err
	}
	if w.appender.offsets != nil {
		w.sawOffset(offset)
	}
	w.written.Rows++
	if w.appender.Rows() < w.options.BatchRows && w.appender.Bytes() < w.options.BatchBytes {
		return nil
	}
	return w.flush()
}

func (w *Writer) sawOffset(offset int64) {
	if w.written.Rows == 0 || offset < w.written.FirstOffset {
		w.written.FirstOffset = offset
	}
	w.written.LastOffset = max(w.written.LastOffset, offset)
}

// Write appends the rows of a batch of the writer's Arrow schema (field names, types and nullability; metadata may
// differ). The batch stays the caller's. Its offsets do not count for Written. An error is final.
func (w *Writer) Write(batch arrow.RecordBatch) error {
	if w.err != nil {
		return w.err
	}
	if w.appender.Rows() > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if err := w.encode(batch); err != nil {
		return err
	}
	w.written.Rows += batch.NumRows()
	return nil
}

func (w *Writer) flush() error {
	batch := w.appender.NewBatch()
	defer batch.Release()
	return w.encode(batch)
}

func (w *Writer) encode(batch arrow.RecordBatch) error {
	if w.file == nil {
		if err := w.begin(batch); err != nil {
			return err
		}
	}
	columns := make([]arrow.Array, batch.NumCols())
	for i, c := range batch.Columns() {
		columns[i] = withEmpty(c)
		defer columns[i].Release()
	}
	batch = array.NewRecordBatch(batch.Schema(), columns, batch.NumRows())
	defer batch.Release()
	if err := w.file.WriteBuffered(batch); err != nil {
		w.err = fmt.Errorf("write %d rows: %w", batch.NumRows(), err)
		return w.err
	}
	w.nans.add(batch)
	if w.file.RowGroupTotalBytesWritten() >= w.options.RowGroupBytes {
		if err := w.file.NewBufferedRowGroupChecked(); err != nil {
			w.err = fmt.Errorf("end row group: %w", err)
			return w.err
		}
	}
	return nil
}

// Rows returns how many rows were written.
func (w *Writer) Rows() int64 { return w.written.Rows }

// Bytes returns about how long the file is so far, with what is not encoded yet counted whole.
func (w *Writer) Bytes() int64 {
	n := w.out.n + w.appender.Bytes()
	if w.file != nil {
		n += w.file.RowGroupTotalBytesWritten()
	}
	return n
}

// Close writes what is left and the footer. The writer is released whatever the error.
func (w *Writer) Close() (*Written, error) {
	defer w.appender.Release()
	if w.err != nil {
		return nil, errors.Join(w.err, w.abandon())
	}
	if w.appender.Rows() > 0 {
		if err := w.flush(); err != nil {
			return nil, errors.Join(err, w.abandon())
		}
	}
	if w.file == nil {
		if err := w.begin(nil); err != nil {
			return nil, err
		}
	}
	w.written.NaNs = w.nans.counts
	return finish(w.file, w.out, w.written)
}

// Abort releases the writer without finishing the file.
func (w *Writer) Abort() {
	defer w.appender.Release()
	_ = w.abandon() // what it writes is thrown away
}

// abandon lets the library release its buffers: nothing more reaches the underlying writer.
func (w *Writer) abandon() error {
	w.out.w = io.Discard
	if w.file == nil {
		return nil
	}
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("abandon file: %w", err)
	}
	return nil
}

func finish(file *pqarrow.FileWriter, out *counter, written Written) (*Written, error) {
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("end data file: %w", err)
	}
	md, err := file.FileMetadata()
	if err != nil {
		return nil, fmt.Errorf("footer of data file: %w", err)
	}
	written.Bytes, written.Metadata = out.n, md
	return &written, nil
}

// counter counts what passes. It has no Close, so that the Parquet writer cannot close what is not its own.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
