package decode

import (
	"bytes"

	"firn/changelog"
)

// Oracle GoldenGate's JSON formatter, operation modeled (format=json): an operation with its images. Columns that a trail does not hold, as those
// of compressed updates, are not there; null is null. (Oracle GoldenGate for Big Data, "Using the JSON Formatter"; apache/flink:
// formats/json/ogg/OggJsonDeserializationSchema.java):
//
//	{"table":"QASOURCE.T","op_type":"U","op_ts":"2026-05-13 15:40:06.000000","current_ts":"2026-05-13T15:40:07.000","pos":"00000000000000000000143",
//	 "primary_keys":["ID"],"before":{"ID":1,"V":"a"},"after":{"ID":1,"V":"b"}}
//
// pos is the place of the operation in the trail: another one for each.

const (
	oggTable = iota
	oggOp
	oggTime
	oggPosition
	oggTxn
	oggKey
	oggBefore
	oggAfter
)

var oggMembers = []string{"table", "op_type", "op_ts", "pos", "xid", "primary_keys", "before", "after"} //nolint:gochecknoglobals // read only

// ogg reads a message's members.
func (d *Decoder) ogg() bool {
	f := &d.foreign
	h, m := &f.head, f.members
	h.database, h.schema, h.table = d.oggTable(d.plain(d.bytesOf(m[oggTable])))
	h.time = zonedMicros(d.plain(d.bytesOf(m[oggTime])))
	h.txn, h.partial = d.intern(lastText-1, d.bytesOf(m[oggTxn])), true
	if pos := d.plain(d.bytesOf(m[oggPosition])); len(pos) > 0 {
		h.native = d.nativeOf("ogg:", pos)
		h.position = append(h.position, pos...)
	}
	before, after := m[oggBefore], m[oggAfter]
	op := d.plain(d.bytesOf(m[oggOp]))
	switch string(op) {
	case "I":
		h.op, before = changelog.OpCreate, extent{}
	case "U":
		h.op = changelog.OpUpdate
	case "D":
		if after.given() {
			return d.fail(ReasonImagesContradict, "op_type D with after")
		}
		h.op, after, before = changelog.OpDelete, before, extent{}
	case "T":
		h.op, d.ev.Kind = changelog.OpTruncate, Truncate
		return true
	case "":
		return d.fail(ReasonOpMissing, "")
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(op))
	}
	return d.oneRow(after, before) && d.keyNames(m[oggKey])
}

// oggTable takes CATALOG.SCHEMA.TABLE or SCHEMA.TABLE apart.
func (d *Decoder) oggTable(name []byte) (catalog, schema, table string) {
	if i := bytes.LastIndexByte(name, '.'); i >= 0 {
		schema := name[:i]
		name = name[i+1:]
		if i = bytes.IndexByte(schema, '.'); i >= 0 {
			return d.intern(srcDB, schema[:i]), d.intern(srcSchema, schema[i+1:]), d.intern(srcTable, name)
		}
		return "", d.intern(srcSchema, schema), d.intern(srcTable, name)
	}
	return "", "", d.intern(srcTable, name)
}

// zonedMicros returns a time with a zone in µs since 1970-01-01 UTC; 0: it is none, or has no zone, so that nobody knows when it is.
func zonedMicros(text []byte) int64 {
	p := isoParser{b: text}
	var m moment
	if !p.date(&m) || !p.byte('T') && !p.byte(' ') || !p.clock(&m) || !p.zone(&m) || len(p.b) != 0 || !m.clock() || m.year < 1 || m.year > 9999 {
		return 0
	}
	days, ok := m.days()
	if !ok {
		return 0
	}
	micros, _ := m.micros()
	return days*microsPerDay + micros - m.offset*unitMicro
}

// oggPart writes a message that inserts or deletes one row.
func (d *Decoder) oggPart(insert bool, row []byte) []byte {
	out := d.without([]byte{'{'}, d.foreign.whole, "op_type", "before", "after")
	if insert {
		out = append(out, `"op_type":"I","after":`...)
	} else {
		out = append(out, `"op_type":"D","before":`...)
	}
	return append(append(out, row...), '}')
}
