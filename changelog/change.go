// Package changelog is firn's vocabulary: tables, schemas, rows and the changes between rows. Every other package
// speaks in these types. It imports the standard library only.
//
// A row is bytes (Row), tagged with the id of the schema that wrote it and readable column by column without
// allocation; a primary key is bytes too (Key), in an encoding whose byte order is the key's order, so that the same
// bytes serve as an index key, a map key and an identity. FORMAT.md draws both.
package changelog

import (
	"encoding/hex"
	"fmt"
	"strconv"
)

// TableID is a table's number in one data directory. Numbers start at 1 and are never reused. Written to disk.
type TableID uint32

// Shard is a fixed share of a table's source partitions: a key is always in one shard. There is one shard, 0, so far;
// SeqNums, epochs and retention are per (table, shard). Written to disk.
type Shard uint16

// SeqNum numbers the changes of one (table, shard): dense, ascending, from 1; 0 means "before the first". It is the
// _file_offset of the change's rows in change files. Written to disk.
type SeqNum uint64

// Epoch is the fencing number of a table's writer; the highest wins. Written to disk.
type Epoch uint64

// SchemaID numbers the schemas of one table from 0. It is the schema-id in the table's Iceberg metadata, too.
type SchemaID uint32

// Op is what a change does to its key. Written to disk, append only.
type Op uint8

// The operations. Create, Read and Update all replace whatever row the key has: a source's "create" is no proof that
// the key is new (a connector sends events again after a crash).
const (
	OpCreate   Op = 1 // a row that the source inserted
	OpUpdate   Op = 2 // a row that the source updated
	OpDelete   Op = 3 // the row is gone; After is nil
	OpRead     Op = 4 // a row that a snapshot of the source read
	OpTruncate Op = 5 // a marker after the deletes that a truncate became (without a key: all rows are gone); Key, Before and After are nil
)

// String returns the letter that feeds show: c, u, d, r, t.
func (o Op) String() string {
	switch o {
	case OpCreate:
		return "c"
	case OpUpdate:
		return "u"
	case OpDelete:
		return "d"
	case OpRead:
		return "r"
	case OpTruncate:
		return "t"
	}
	return "op(" + strconv.Itoa(int(o)) + ")"
}

// Key is a primary key in the order-preserving encoding of AppendKey.
type Key []byte

// String shows the key in hex: a key's values are only readable with its schema.
func (k Key) String() string { return hex.EncodeToString(k) }

// Position says where in a source a change came from.
type Position struct {
	Source    string // the configured name of the source
	Topic     string
	Partition int32
	Offset    int64 // the change's own offset; the next to read is Offset+1

	// Native is the database's own position as text with its kind in front, such as "lsn:0/1A2B",
	// "gtid:0-1-42" or "binlog:mysql-bin.000003/157"; empty when the source gives none.
	Native string
}

// Change is one change of one row. An update carries both images and has one SeqNum.
//
// In a table without a key (see Bag) Before is not news but an order: one row that is equal to it goes. A change that only
// adds a row has none there, whatever the source knew.
type Change struct {
	Seq    SeqNum
	Op     Op
	Key    Key
	Before Row // nil: not known, or there was none
	After  Row // nil for a delete

	Position   Position
	SourceTime int64  // when the source committed it, µs since 1970-01-01 UTC; 0: not known
	IngestTime int64  // when firn took it in, µs since 1970-01-01 UTC
	Txn        string // the source's transaction; empty: not known
}

// StreamID names one partition of one topic of one source: the unit in which order is kept.
type StreamID struct {
	Source    string
	Topic     string
	Partition int32
}

// String shows the stream as source:topic/partition.
func (s StreamID) String() string { return fmt.Sprintf("%s:%s/%d", s.Source, s.Topic, s.Partition) }

// StreamPosition is how far a stream has been applied.
type StreamPosition struct {
	StreamID
	Next int64 // the offset to read next
}
