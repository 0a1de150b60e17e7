package ingest

import "firn/changelog"

// Record is one record of a source, as received.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Timestamp int64 // ms since 1970-01-01 UTC
	Key       []byte
	Value     []byte
	Headers   []changelog.Header
	// Broken tells why the source could not make a record of what it read: Value is that, as it was. Such a record is
	// parked. Empty: it is a record.
	Broken string
}
