package decode

import (
	"bytes"
	"slices"

	"firn/changelog"
)

// Maxwell's messages hold one row; old has the columns that differ (zendesk/maxwell: docs/dataformat.md, row/RowMap.java):
//
//	{"database":"d","table":"t","type":"update","ts":1477053217,"xid":23396,"xoffset":3,"position":"master.000006:800911","server_id":23042,
//	 "primary_key_columns":["id"],"data":{"id":1,"v":"b"},"old":{"v":"a"}}
//
// What is not configured (output_xoffset, output_binlog_position, output_primary_key_columns) is not there. A row is told from all others by its
// transaction and its place in it: the last one has commit instead.

const (
	maxwellDatabase = iota
	maxwellTable
	maxwellType
	maxwellTime
	maxwellTxn
	maxwellOffset
	maxwellCommit
	maxwellPosition
	maxwellGTID
	maxwellServer
	maxwellKey
	maxwellData
	maxwellOld
)

var maxwellMembers = []string{ //nolint:gochecknoglobals // read only
	"database", "table", "type", "ts", "xid", "xoffset", "commit", "position", "gtid", "server_id", "primary_key_columns", "data", "old",
}

// maxwell reads a message's members.
func (d *Decoder) maxwell() bool {
	f := &d.foreign
	h, m := &f.head, f.members
	h.database, h.table = d.intern(srcDB, d.bytesOf(m[maxwellDatabase])), d.intern(srcTable, d.bytesOf(m[maxwellTable]))
	if s, ok := number64(d.bytesOf(m[maxwellTime])); ok && s < 1<<40 && s > -1<<40 {
		h.time = s * 1_000_000
	}
	typ := d.plain(d.bytesOf(m[maxwellType]))
	switch string(typ) {
	case "insert":
		h.op = changelog.OpCreate
	case "bootstrap-insert":
		h.op, h.snapshot = changelog.OpRead, SnapshotRow
	case "update":
		h.op = changelog.OpUpdate
	case "delete":
		h.op = changelog.OpDelete
	case "bootstrap-start", "bootstrap-complete":
		d.ev.Kind = Notification
		return true
	case "table-create", "table-alter", "table-drop", "database-create", "database-alter", "database-drop":
		d.ev.Kind = SchemaChange
		return true
	case "":
		return d.fail(ReasonOpMissing, "")
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(typ))
	}
	d.maxwellPlace()
	return d.oneRow(m[maxwellData], m[maxwellOld]) && d.maxwellKey()
}

// maxwellPlace sets where in the binlog a row is.
func (d *Decoder) maxwellPlace() {
	h, m := &d.foreign.head, d.foreign.members
	file, at, _ := bytes.Cut(d.plain(d.bytesOf(m[maxwellPosition])), []byte{':'})
	if gtid := d.plain(d.bytesOf(m[maxwellGTID])); len(gtid) > 0 {
		h.native = d.nativeOf("gtid:", gtid)
	} else if len(file) > 0 && len(at) > 0 {
		h.native = d.nativeOf("binlog:", slices.Concat(file, []byte{'/'}, at))
	}
	txn := d.bytesOf(m[maxwellTxn])
	h.txn = d.intern(lastText-1, txn)
	if txn == nil || !m[maxwellOffset].given() && string(d.bytesOf(m[maxwellCommit])) != "true" {
		return
	}
	for _, i := range [...]int{maxwellServer, maxwellTxn, maxwellOffset, maxwellCommit, maxwellPosition, maxwellTime} {
		h.position = append(append(h.position, d.bytesOf(m[i])...), 0)
	}
}

// oneRow takes the row of a message, and what it was before.
func (d *Decoder) oneRow(row, old extent) bool {
	for _, e := range [...]extent{row, old} {
		if e.given() && d.b[e.from] != '{' {
			return d.fail(ReasonEnvelopeShape, "a row is no object: %s", quote(d.b[e.from:e.to]))
		}
	}
	if d.empty(row) {
		return d.fail(ReasonNoImage, "no row")
	}
	d.foreign.rows = append(d.foreign.rows, foreignRow{row, old})
	return true
}

// maxwellKey sets the columns of the key: those that the message names, or its Kafka key does, in lower case: {"database":"d","table":"t","pk.id":1}
// or ["d","t",[{"id":1}]].
func (d *Decoder) maxwellKey() bool {
	f := &d.foreign
	at := f.members[maxwellKey]
	if len(d.o.KeyColumns) > 0 || at.given() || d.keyBytes == nil || d.o.NoKey {
		return d.keyNames(at)
	}
	x := &scanner{b: d.keyBytes}
	names, ok := x.maxwellNames()
	if !ok || !x.end() {
		d.err = reject(ReasonKeyDecode, "the Kafka key is none of Maxwell's: %s", quote(d.keyBytes))
		return false
	}
	f.folded = true
	if !slices.EqualFunc(names, f.names, func(a []byte, b string) bool { return string(a) == b }) {
		f.names = nil
		for _, name := range names {
			f.names = append(f.names, string(name))
		}
	}
	f.raw = nil
	return true
}

// maxwellNames reads the names of the columns in a Kafka key.
func (x *scanner) maxwellNames() (names [][]byte, ok bool) {
	if x.peek() == '[' {
		return x.maxwellArray()
	}
	for more := x.open(); more; more = x.more('}') {
		name, ok := x.text()
		if !ok || !x.next(':') || !x.skip(1) {
			return nil, false
		}
		if column, of := bytes.CutPrefix(name, []byte("pk.")); of {
			names = append(names, column)
		}
	}
	return names, x.err == nil && len(names) <= maxKeyColumns
}

func (x *scanner) maxwellArray() (names [][]byte, ok bool) {
	x.p++
	if !x.skip(1) || !x.next(',') || !x.skip(1) || !x.next(',') || !x.next('[') {
		return nil, false
	}
	if x.peek() == ']' {
		x.p++
		return nil, x.next(']')
	}
	for more := true; more; more = x.more(']') {
		for member := x.open(); member; member = x.more('}') {
			name, ok := x.text()
			if !ok || !x.next(':') || !x.skip(1) || len(names) == maxKeyColumns {
				return nil, false
			}
			names = append(names, name)
		}
	}
	return names, x.err == nil && x.next(']')
}

// maxwellPart writes a message that inserts or deletes one row.
func (d *Decoder) maxwellPart(insert bool, row []byte) []byte {
	out := d.without([]byte{'{'}, d.foreign.whole, "type", "data", "old")
	if insert {
		out = append(out, `"type":"insert","data":`...)
	} else {
		out = append(out, `"type":"delete","data":`...)
	}
	return append(append(out, row...), '}')
}
