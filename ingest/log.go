package ingest

import (
	"context"
	"errors"
	"iter"

	"firn/changelog"
)

// Log is what the pipeline needs of the LogStore. Its methods are safe for concurrent use.
type Log interface {
	// Submit takes a in, whole or not at all, and copies what it keeps. When it returns without an error the
	// append is visible to Row and MovedRow, and durable once the ticket's Wait has returned. Appends of one
	// goroutine become durable in order. Errors: ErrFull, nothing was taken in and the same append may be tried
	// again after WaitForSpace; ErrTableStopped, nothing was taken in and it may be tried again; anything else is final.
	Submit(ctx context.Context, a changelog.Append) (Ticket, error)

	// WaitForSpace blocks until Submit may work again after ErrFull.
	WaitForSpace(ctx context.Context) error

	// Position returns the offset to read next of a stream; false if there is none.
	Position(id changelog.StreamID) (int64, bool, error)

	// ResetPositions sets positions, forwards or back, all or none, and returns when they are durable. Nobody submits appends of the
	// streams meanwhile.
	ResetPositions(ctx context.Context, positions []changelog.StreamPosition) error

	// Row returns the current row of a key, in memory of its own; false if the key has none.
	Row(ctx context.Context, table changelog.TableID, key changelog.Key) (changelog.Row, bool, error)

	// MovedRow returns what an append's Moved kept under (key, native), which may be an empty row: the delete was
	// there, its row was not.
	MovedRow(ctx context.Context, table changelog.TableID, key changelog.Key, native string) (changelog.Row, bool, error)

	// Keys yields the keys that have a row, as of one moment after all that this goroutine has submitted. A key is
	// valid until the next one.
	Keys(ctx context.Context, table changelog.TableID) iter.Seq2[changelog.Key, error]

	// StaleKeys yields the marks of keys that are marked stale.
	StaleKeys(ctx context.Context, table changelog.TableID) iter.Seq2[changelog.StaleMark, error]

	// StaleMark returns the mark of a key; false if it has none.
	StaleMark(table changelog.TableID, key changelog.Key) (changelog.StaleMark, bool, error)

	// ParkedGet returns a parked record. An error says that there is none with the ID.
	ParkedGet(ctx context.Context, id uint64) (changelog.Parked, error)

	// ParkedOf yields the parked records of a key with IDs from first, ascending.
	ParkedOf(ctx context.Context, table changelog.TableID, key changelog.Key, first uint64) iter.Seq2[changelog.Parked, error]

	// ParkedList yields the parked records of a table (0: those that reached no table) with IDs above after, ascending.
	ParkedList(ctx context.Context, table changelog.TableID, after uint64) iter.Seq2[changelog.Parked, error]
}

// Ticket is one submitted append.
type Ticket interface {
	// Wait blocks until the append is durable. An error of the log is final: nothing of it was acknowledged.
	Wait(ctx context.Context) (changelog.Applied, error)
}

// ErrFull says that the disk budget of the log is spent.
var ErrFull = errors.New("ingest: the log is full")

// ErrTableStopped says that a table does not take changes until somebody has mended it. Its topics wait, so that its changes do
// not fill the log at the cost of the other tables (P7).
var ErrTableStopped = errors.New("ingest: the table is stopped")

// Topic names a topic of a source.
type Topic struct {
	Source string
	Topic  string
}

// Table is a table as the registry has it. It is immutable.
type Table struct {
	ID      changelog.TableID
	Name    string
	Schemas changelog.Schemas
	Topics  []Topic // what feeds it

	// Partition is the spec of its partitions in the lake, bound to Schemas[0]; empty: none.
	Partition changelog.PartitionSpec
}

// moves reports whether a change can take a row to another partition of the lake. The change store needs the old one then,
// so that each change of the table has the row before it, whatever the source gave. A table without a key has no change store.
func (t *Table) moves() bool {
	s := t.Schemas.Current()
	return len(t.Partition) > 0 && len(s.Key) > 0 && !t.Partition.InKey(s)
}

// Tables is what the pipeline needs of the table registry. Its methods are safe for concurrent use.
type Tables interface {
	// Table returns a table by its name.
	Table(name string) (*Table, bool)

	// Create makes a table that t feeds, durably. Errors: ErrTableExists; ErrTableUnfit, it is not to be had with the schema.
	Create(ctx context.Context, name string, schema *changelog.Schema, t Topic) (*Table, error)

	// AddSchema makes s, whose id is the length of the table's history, the table's current schema, durably.
	// Errors: ErrTableChanged, the history has grown; a *decode.Rejected, the lake cannot take it.
	AddSchema(ctx context.Context, id changelog.TableID, s *changelog.Schema) (*Table, error)

	// AddTopic records, durably, that t feeds the table, too.
	AddTopic(ctx context.Context, id changelog.TableID, t Topic) (*Table, error)
}

var (
	// ErrTableExists says that somebody else has made the table. Look again.
	ErrTableExists = errors.New("ingest: table exists")
	// ErrTableUnfit says that the settings of a table do not go with the schema that its first events have.
	ErrTableUnfit = errors.New("ingest: the table's settings do not fit its columns")
	// ErrTableChanged says that somebody else has changed the table's schema. Look again.
	ErrTableChanged = errors.New("ingest: table has changed")
)
