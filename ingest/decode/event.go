package decode

import "firn/changelog"

// Kind is what a record is.
type Kind uint8

// The kinds. Only Change and Truncate have an effect on tables; the others are skipped and counted.
const (
	Change              Kind = iota // a row was created, read, updated or deleted
	Truncate                        // all rows of the source's table are gone
	Tombstone                       // a null value, which follows a delete and means nothing more
	TombstoneWithoutKey             // a null value without a key, which names no row
	Message                         // a logical decoding message
	Heartbeat
	Transaction // BEGIN or END
	SchemaChange
	Notification
)

var kindNames = [...]string{
	"change", "truncate", "tombstone", "tombstone_without_key", "logical_message", "heartbeat", "transaction",
	"schema_change", "notification",
}

// String returns the kind as metrics show it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Skip reports whether records of this kind have no effect on tables.
func (k Kind) Skip() bool { return k != Change && k != Truncate }

// Snapshot is source.snapshot: whether and where in a snapshot of the source the event was read (1.17).
type Snapshot uint8

// The markers.
const (
	SnapshotNone Snapshot = iota // not from a snapshot
	SnapshotFirst
	SnapshotFirstInTable
	SnapshotRow
	SnapshotLastInTable
	SnapshotLast
	SnapshotIncremental
)

// Column is a column of a Shape.
type Column struct {
	Name    string
	Type    *changelog.Type
	Connect string // the semantic name, such as "io.debezium.time.Date"; empty: none, or not known

	Own   bool // the pipeline's own, not the source's: its name may begin with the reserved prefix
	Fixed bool // a rule of the route gives the type: values go nowhere but to a column of that type
}

// Shape is the columns of the rows of some events. Shapes are immutable and compared by pointer: a Decoder gives equal
// records the same one as long as it is in its cache. (A new one for columns seen before is possible and harmless.)
type Shape struct {
	Columns []Column // a row's, in the source's order; then key columns that rows do not have
	Key     []int    // ordinals of the key columns in Columns, in the key's order; empty: the table has no key

	Notes []ColumnNote // what an operator should know, for a warning once a table
}

// Report is a value that was applied reduced or as null (outcome apply_report).
type Report struct {
	Column string // empty: not of a column
	Reason string
	Detail string
}

// Event is a decoded record. It, and all bytes in its values, are valid until the decoder's next Decode and as long as
// the record's bytes are; its strings may be kept.
type Event struct {
	Kind  Kind
	Op    changelog.Op      // of a Change or Truncate
	Shape *Shape            // of a Change
	Key   []changelog.Value // of a Change, in the order of Shape.Key; empty: no key

	// Before and After have a value for each of the Shape's columns; nil: none, or, of Before, not to be trusted.
	// After has the key's values in columns that rows do not have.
	Before, After []changelog.Value

	Placeholders []int    // ordinals of After whose value the source did not send: they are null in After
	Reports      []Report // what was reduced or nulled

	// OldKey is set on the create that is one half of a key change, NewKey on the delete: the other half's key, as
	// Key. Both are nil where the header is missing or does not parse.
	OldKey, NewKey []changelog.Value

	Native     string   // the source's position: changelog.Position.Native; empty: none
	SourceTime int64    // when the source committed it, µs since 1970-01-01 UTC; 0: not known
	Txn        string   // the source's transaction, the same for all its events; empty: not known
	TxnOrder   []byte   // the place in it, as the document has it; nil: not known
	Snapshot   Snapshot // where in a snapshot
	Connector  string   // source.connector
	SourceName string   // source.name
	Database   string   // source.db
	Schema     string   // source.schema
	Table      string   // source.table or source.collection

	// Identity is the same for what a connector sends again, and for nothing else (2.4); it is set if HasIdentity.
	Identity    [16]byte
	HasIdentity bool // false for snapshot rows, skipped records, where the position is unreadable, and without a key where equal rows share it
}

// TableKey appends the event's key, as a key of a table with schema s, to dst; false if it does not fit it. A Mapping's
// Key is the fast way.
func (e *Event) TableKey(dst changelog.Key, s *changelog.Schema) (changelog.Key, bool) {
	return tableKey(dst, s, e.Shape.keyColumns(), e.Key)
}

func (s *Shape) keyColumns() []Column {
	columns := make([]Column, len(s.Key))
	for i, o := range s.Key {
		columns[i] = s.Columns[o]
	}
	return columns
}
