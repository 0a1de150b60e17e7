// Package merge reads mixed tables: the base store as it stands, the change store as it stands, both merged into the
// table's rows (merge on read, spec/mixed-format.md section 6), that plus the tail of a log, and the changes that the
// change files hold.
//
// A row's place in history is its LSN, (transaction, offset). The transaction comes from the name or the sequence
// number of its file; the offset is _file_offset in change files and infinite in base files. A row lives unless a
// delete row of its key, in its partition and in a related tree node, has a greater LSN.
//
//	node 5   base B rows ─┐
//	         insert rows ─┼─ position deletes ─ key in deletes with a greater LSN? ─ row
//	ED of node 1, 2, 5 ───┘        (by path)         (a map, or a share of it at a time)
//
// The package gets its files from the caller as a Snapshot and opens them through an Opener: it knows no catalog.
package merge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"firn/changelog"
	"firn/changelog/mixed"
)

// File is one live file of a store.
type File struct {
	Path      string // as the manifest has it: position deletes name it byte for byte
	Partition string // partition path; empty where the table is not partitioned
	Sequence  int64  // Iceberg data sequence number
	Records   int64
	Info      mixed.FileInfo // mixed.ParseChange or ParseBase of the path
}

// Snapshot is the files that one read works on. The base store must have been loaded before the change store: the
// other way round rows could be missing.
type Snapshot struct {
	Base    []File // data files of the base store
	Deletes []File // its position delete files
	Change  []File // data files of the change store, of both kinds
	// Optimized holds for each partition path up to which sequence number change files are in the base store. A
	// partition without an entry has none there.
	Optimized map[string]int64
}

// ReadAtCloser is an open file.
type ReadAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Opener opens the files of a table.
type Opener interface {
	// Open returns the file at path and its size.
	Open(ctx context.Context, path string) (ReadAtCloser, int64, error)
}

// Options are the settings of a Reader.
type Options struct {
	// MaxKeys is how many keys of deletes, or of the log's tail, are held in memory at once, at some 100 bytes and
	// the key each; with the rows, for the tail. Where a tree node has more, its files are read several times, each
	// time for a share of the keys. Default 1,000,000.
	MaxKeys int
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	if o.MaxKeys == 0 {
		o.MaxKeys = 1_000_000
	}
}

// Validate reports everything that is wrong, at once.
func (o *Options) Validate() error {
	if o.MaxKeys < 1 {
		return fmt.Errorf("MaxKeys is %d, must be at least 1", o.MaxKeys)
	}
	return nil
}

// ErrMissing reports changes that the change files no longer hold: they are in the base store only.
var ErrMissing = errors.New("merge: changes are no longer in change files")

// Row is one row of a table. Its bytes are valid until the next row.
type Row struct {
	Seq changelog.SeqNum // of the change that wrote it; 0: not known (base rows, foreign change files)
	Key changelog.Key    // nil where the table has no key
	Row changelog.Row    // of the Reader's schema

	// File and Ordinal are where the row lies; empty for a row of a tail.
	File    string
	Ordinal int64
}

// Reader reads one Snapshot of one table. It holds nothing open between calls. Safe for concurrent use.
type Reader struct {
	schema *changelog.Schema
	snap   Snapshot
	files  opener
	o      Options
}

// New returns a Reader that gives rows of schema, the table's current one: columns of older files are found by field
// id, are null where a file lacks them, and widened where it has a narrower type. Error: bad options.
func New(schema *changelog.Schema, s Snapshot, files Opener, o Options) (*Reader, error) {
	return newReader(schema, s, parquetOpener{files}, o)
}

func newReader(schema *changelog.Schema, s Snapshot, files opener, o Options) (*Reader, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Reader{schema: schema, snap: s, files: files, o: o}, nil
}

// opener is how the package sees its files: one place decodes Parquet, and tests have rows in memory.
type opener interface {
	// rows opens the rows of a data file, in schema, with their _file_offset where offset says so.
	rows(ctx context.Context, f File, schema *changelog.Schema, offset bool) (cursor, error)
	// positions calls visit for each row of a position delete file; path is valid during the call.
	positions(ctx context.Context, f File, visit func(path []byte, position int64) error) error
	// offsets returns the least and the greatest _file_offset of a change file as its statistics have them.
	offsets(ctx context.Context, f File) (least, greatest int64, ok bool, err error)
}

// cursor walks the rows of a file in the file's order.
type cursor interface {
	next() bool
	row() *fileRow
	err() error // what ended next, or nil
	close() error
}

// fileRow is a row of a file, valid until the cursor's next.
type fileRow struct {
	ordinal int64
	offset  int64 // -1: the row has none
	values  []changelog.Value
}

// each calls visit for the rows of a file until it returns an error, which each returns.
func (r *Reader) each(ctx context.Context, f File, schema *changelog.Schema, offset bool, visit func(*fileRow) error) (err error) {
	c, err := r.files.rows(ctx, f, schema, offset)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.Path, err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for c.next() {
		if err := visit(c.row()); err != nil {
			return err
		}
	}
	if err := c.err(); err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	return ctx.Err()
}

// errStop ends a walk whose consumer wants no more.
var errStop = errors.New("merge: stop")
