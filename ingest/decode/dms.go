package decode

import (
	"firn/changelog"
)

// AWS DMS with a Kafka or Kinesis target: a row and what is known of it, which says no key (AWS Database Migration Service, "Using Apache Kafka as a
// target"; apache/paimon: cdc/format/dms/DMSRecordParser.java; crate/commons-codec: tests/transform/test_aws_dms.py):
//
//	{"data":{"id":1,"v":"b"},"before-image":{"v":"a"},"metadata":{"timestamp":"2026-03-01T08:15:01.000000Z","record-type":"data","operation":"update",
//	 "partition-key-type":"schema-table","schema-name":"d","table-name":"t","transaction-id":1140,"transaction-record-id":1,
//	 "commit-timestamp":"2026-03-01T08:15:00.000000Z","stream-position":"00000002/7C007328.2.00000002/7C007328"}}
//
// Null columns are not there (IncludeNullAndEmpty). before-image has the key's columns, or all, of those that changed (BeforeImageSettings). With
// IncludeTransactionDetails a change is told from all others by its transaction and its place in it.

const (
	dmsData = iota
	dmsBefore
	dmsMetadata
)

const (
	dmsRecordType = iota
	dmsOperation
	dmsSchema
	dmsTable
	dmsTxn
	dmsRecord
	dmsPosition
	dmsCommit
)

var (
	dmsMembers  = []string{"data", "before-image", "metadata"} //nolint:gochecknoglobals // read only
	dmsMetaData = []string{                                    //nolint:gochecknoglobals // read only
		"record-type", "operation", "schema-name", "table-name", "transaction-id", "transaction-record-id", "stream-position", "commit-timestamp",
	}
)

// dms reads a message's members.
func (d *Decoder) dms() bool {
	f := &d.foreign
	h, m := &f.head, f.members
	at := m[dmsMetadata]
	if !at.given() || d.b[at.from] != '{' {
		return d.fail(ReasonEnvelopeShape, "no metadata")
	}
	meta := make([]extent, 0, len(dmsMetaData))
	if d.p = at.from; !d.membersOf(dmsMetaData, &meta) {
		return false
	}
	h.schema, h.table = d.intern(srcSchema, d.bytesOf(meta[dmsSchema])), d.intern(srcTable, d.bytesOf(meta[dmsTable]))
	h.time = zonedMicros(d.plain(d.bytesOf(meta[dmsCommit])))
	h.txn = d.intern(lastText-1, d.bytesOf(meta[dmsTxn]))
	op := d.plain(d.bytesOf(meta[dmsOperation]))
	switch typ := d.plain(d.bytesOf(meta[dmsRecordType])); string(typ) {
	case "data":
	case "control":
		d.ev.Kind = SchemaChange
		if string(op) == "truncate-table" {
			h.op, d.ev.Kind = changelog.OpTruncate, Truncate
		}
		return true
	default:
		return d.fail(ReasonEnvelopeShape, "record-type %s", quote(typ))
	}
	switch string(op) {
	case "load":
		h.op, h.snapshot = changelog.OpRead, SnapshotRow
	case "insert":
		h.op = changelog.OpCreate
	case "update":
		h.op = changelog.OpUpdate
	case "delete":
		h.op = changelog.OpDelete
	case "":
		return d.fail(ReasonOpMissing, "")
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(op))
	}
	position := d.plain(d.bytesOf(meta[dmsPosition]))
	if len(position) > 0 {
		h.native = d.nativeOf("dms:", position)
		if meta[dmsTxn].given() && meta[dmsRecord].given() {
			for _, part := range [...][]byte{position, d.bytesOf(meta[dmsTxn]), d.bytesOf(meta[dmsRecord])} {
				h.position = append(append(h.position, part...), 0)
			}
		}
	}
	return d.oneRow(m[dmsData], m[dmsBefore]) && d.keyNames(extent{})
}

// dmsPart writes a message that inserts or deletes one row.
func (d *Decoder) dmsPart(insert bool, row []byte) []byte {
	out := d.without([]byte{'{'}, d.foreign.whole, "data", "before-image", "metadata")
	out = append(append(append(out, `"data":`...), row...), `,"metadata":{`...)
	out = d.without(out, d.foreign.members[dmsMetadata], "operation")
	if insert {
		return append(out, `"operation":"insert"}}`...)
	}
	return append(out, `"operation":"delete"}}`...)
}
