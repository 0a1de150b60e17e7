package merge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/parquet/metadata"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// batchRows is how many rows of a file are decoded at once: few enough that the files of one commit, a batch each, are
// a few MiB.
const batchRows = 4096

// parquetOpener reads Parquet files.
type parquetOpener struct{ files Opener }

func (p parquetOpener) open(ctx context.Context, f File, schema *changelog.Schema, offset bool) (*parquetCursor, error) {
	in, size, err := p.files.Open(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	r, err := datafile.Open(in, size, schema, offset, datafile.Options{BatchRows: batchRows})
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return &parquetCursor{ctx: ctx, in: in, reader: r, rows: datafile.NewRows(schema), release: func() {}}, nil
}

func (p parquetOpener) rows(ctx context.Context, f File, schema *changelog.Schema, offset bool) (cursor, error) {
	return p.open(ctx, f, schema, offset)
}

func (p parquetOpener) positions(ctx context.Context, f File, visit func(path []byte, position int64) error) (err error) {
	in, size, err := p.files.Open(ctx, f.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := datafile.OpenDeletes(in, size, datafile.Options{BatchRows: batchRows})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.Each(visit)
}

func (p parquetOpener) offsets(ctx context.Context, f File) (least, greatest int64, ok bool, err error) {
	none := &changelog.Schema{}
	if err := none.Index(); err != nil {
		return 0, 0, false, err
	}
	c, err := p.open(ctx, f, none, true)
	if err != nil {
		return 0, 0, false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return offsetBounds(c.reader.Metadata())
}

// offsetBounds returns the bounds of _file_offset over all row groups; ok is false where one has none.
func offsetBounds(md *metadata.FileMetaData) (least, greatest int64, ok bool, err error) {
	column := -1
	for i := range md.Schema.NumColumns() {
		if md.Schema.Column(i).SchemaNode().FieldID() == mixed.FileOffsetID {
			column = i
		}
	}
	if column < 0 {
		return 0, 0, false, nil
	}
	for i := range md.NumRowGroups() {
		chunk, err := md.RowGroup(i).ColumnChunk(column)
		if err != nil {
			return 0, 0, false, fmt.Errorf("row group %d: %w", i, err)
		}
		set, err := chunk.StatsSet()
		if err != nil {
			return 0, 0, false, fmt.Errorf("row group %d: %w", i, err)
		}
		if !set {
			return 0, 0, false, nil
		}
		stats, err := chunk.Statistics()
		if err != nil {
			return 0, 0, false, fmt.Errorf("row group %d: %w", i, err)
		}
		s, isLong := stats.(*metadata.Int64Statistics)
		if !isLong || !s.HasMinMax() {
			return 0, 0, false, nil
		}
		if !ok || s.Min() < least {
			least = s.Min()
		}
		if !ok || s.Max() > greatest {
			greatest = s.Max()
		}
		ok = true
	}
	return least, greatest, ok, nil
}

// parquetCursor walks the rows of a Parquet file.
type parquetCursor struct {
	ctx     context.Context //nolint:containedctx // of the walk that opened the cursor
	in      ReadAtCloser
	reader  *datafile.Reader
	rows    *datafile.Rows
	release func() // the batch that rows reads

	first   int64
	at, end int
	current fileRow
	failed  error
}

func (c *parquetCursor) next() bool {
	if c.failed != nil {
		return false
	}
	if c.at == c.end && !c.fill() {
		return false
	}
	i := c.at
	c.at++
	c.current = fileRow{ordinal: c.first + int64(i), offset: -1, values: c.rows.Values(i)}
	if o, ok := c.rows.Offset(i); ok {
		c.current.offset = o
	}
	return true
}

// fill decodes the next batch that has rows.
func (c *parquetCursor) fill() bool {
	for c.at == c.end {
		if c.failed = c.ctx.Err(); c.failed != nil {
			return false
		}
		c.release()
		c.release = func() {}
		c.first = c.reader.Ordinal()
		batch, err := c.reader.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c.failed = err
			}
			return false
		}
		c.release = batch.Release
		if c.failed = c.rows.Reset(batch); c.failed != nil {
			return false
		}
		c.at, c.end = 0, c.rows.Len()
	}
	return true
}

func (c *parquetCursor) row() *fileRow { return &c.current }
func (c *parquetCursor) err() error    { return c.failed }

func (c *parquetCursor) close() error {
	c.release()
	c.release = func() {}
	return errors.Join(c.reader.Close(), c.in.Close())
}
