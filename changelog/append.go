package changelog

// Append is one unit of taking changes in: it becomes durable whole or not at all. Its slices and the bytes in them
// belong to the caller and are copied.
type Append struct {
	Tables    []TableAppend
	Positions []StreamPosition // how far each stream is applied once the append is durable
	Parked    []Parked
	Moved     []MovedRow
	Stale     []StaleMark

	// Unparked are the IDs of parked records that are gone once the append is durable: it holds their changes, or they are
	// given up. Reparked are parked records in the place of those with their IDs. The append is refused whole if one of them
	// is not there, so that what was parked is applied once (P1), whoever else works on it. Skipped are those of Unparked that
	// are given up.
	Unparked []uint64
	Skipped  []uint64
	Reparked []Parked
}

// TableAppend is the changes of one table, in order. Their Seq is ignored: the LogStore gives it.
type TableAppend struct {
	Table   TableID
	Changes []Change
}

// Header is one header of a source record. A nil Value is a null one.
type Header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// Parked is a record that could not be applied, or only in part, as it was received (P6).
type Parked struct {
	ID      uint64  // given by the LogStore: ascending, never reused
	Table   TableID // 0: the record reached no table
	Target  string  // the name of the table that it is for, where Table is 0; empty: not known
	Key     Key     // nil: the key was not readable
	Reason  string  // one of the reasons of spec/debezium.md 5.2
	Detail  string  // what and where; at most 256 bytes of the record's own text
	Applied bool    // the change was applied with a value reduced or nulled; this is the report of it
	Time    int64   // when it was parked, µs since 1970-01-01 UTC

	Position    Position
	Timestamp   int64 // the record's own time, ms since 1970-01-01 UTC
	RecordKey   []byte
	RecordValue []byte
	Headers     []Header

	Attempts int // replays that failed
	Part     int // tells apart what is parked of one source record

	Cut  *ParkedCut  // RecordValue is the beginning of a larger value; nil: it is whole
	Edit *ParkedEdit // what an operator put in place of the record; nil: nothing
}

// ParkedCut tells of a value that was too large to be parked whole.
type ParkedCut struct {
	Bytes  int64 // of the value
	SHA256 [32]byte
}

// ParkedEdit is what is read in place of a parked record, which stays as it was received.
type ParkedEdit struct {
	By          string // who
	Time        int64  // when, µs since 1970-01-01 UTC
	RecordKey   []byte
	RecordValue []byte
	Headers     []Header
}

// MovedRow is the last row of a key that a key change deleted, kept for the create of the new key, whose columns out
// of line the source does not send again. It is found by the old key and the position that both halves share.
type MovedRow struct {
	Table  TableID
	Key    Key    // the old key
	Native string // Position.Native of the delete and of the create
	Row    Row
}

// StaleMark says that the stored row of a key may be older than a rejected event (Set), or is whole again.
type StaleMark struct {
	Table  TableID
	Key    Key
	Set    bool
	Reason string // why, where Set

	// Hold says that later events of the key queue behind its parked records (on_parked: queue). First is the ID of the
	// oldest of those: what was parked before it is superseded. Where it is to be parked by the append that sets the mark,
	// Record is 1 + its index in Parked, and First is the LogStore's to give. Skipped says that an event before First was
	// given up: replays must not build on the stored row either.
	Hold    bool
	Skipped bool
	First   uint64
	Record  int
}

// Applied tells what an Append became.
type Applied struct {
	Last map[TableID]SeqNum // the SeqNum of the last change, for each table of the append
}
