package decode

import (
	"firn/changelog"
)

// Canal's flat messages hold the rows of one statement, or a part of them, with the types of their columns. Values are text or null, and an old
// row has the columns that differ (alibaba/canal: protocol/FlatMessage.java, connector/core/producer/MQMessageUtils.java):
//
//	{"database":"d","table":"t","pkNames":["id"],"isDdl":false,"type":"UPDATE","es":1589373515000,"gtid":"",
//	 "mysqlType":{"id":"int","v":"varchar(8)"},"sqlType":{"id":4,"v":12},"data":[{"id":"1","v":"b"}],"old":[{"v":"a"}]}
//
// A message has no position but the GTID of its transaction, which several messages share: nothing tells what Canal sends again.

const (
	canalDatabase = iota
	canalTable
	canalKey
	canalDDL
	canalType
	canalTime
	canalGTID
	canalMySQLType
	canalSQLType
	canalData
	canalOld
)

var canalMembers = []string{ //nolint:gochecknoglobals // read only
	"database", "table", "pkNames", "isDdl", "type", "es", "gtid", "mysqlType", "sqlType", "data", "old",
}

// canal reads a message's members up to where its rows stand.
func (d *Decoder) canal() bool {
	f := &d.foreign
	h, m := &f.head, f.members
	h.database, h.table = d.intern(srcDB, d.bytesOf(m[canalDatabase])), d.intern(srcTable, d.bytesOf(m[canalTable]))
	if ms, ok := number64(d.bytesOf(m[canalTime])); ok && ms < 1<<53 && ms > -1<<53 {
		h.time = ms * 1000
	}
	gtid := d.plain(d.bytesOf(m[canalGTID]))
	if len(gtid) > 0 {
		h.native, h.txn = d.nativeOf("gtid:", gtid), d.intern(lastText-1, d.bytesOf(m[canalGTID]))
	}
	typ := d.plain(d.bytesOf(m[canalType]))
	if string(d.bytesOf(m[canalDDL])) == "true" && string(typ) != "TRUNCATE" {
		d.ev.Kind = SchemaChange
		return true
	}
	switch string(typ) {
	case "INSERT":
		h.op = changelog.OpCreate
	case "UPDATE":
		h.op = changelog.OpUpdate
	case "DELETE":
		h.op = changelog.OpDelete
	case "TRUNCATE":
		h.op, d.ev.Kind = changelog.OpTruncate, Truncate
		return true
	case "XACOMMIT", "XAROLLBACK":
		d.ev.Kind = Transaction
		return true
	case "TIDB_WATERMARK": // of TiCDC, which writes this format, too
		d.ev.Kind = Heartbeat
		return true
	case "":
		return d.fail(ReasonOpMissing, "")
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(typ))
	}
	return d.canalTypes() && d.keyNames(m[canalKey]) && d.canalRows()
}

// nativeOf returns a position as the last event had it, if it is the same.
func (d *Decoder) nativeOf(kind string, text []byte) string {
	if b := append(append(d.scratch[:0], kind...), text...); d.native != string(b) {
		d.native, d.scratch = string(b), b
	}
	return d.native
}

// canalTypes finds how rows are read.
func (d *Decoder) canalTypes() bool {
	at := d.foreign.members[canalMySQLType]
	if !at.given() {
		at = d.foreign.members[canalSQLType]
	}
	if !at.given() {
		return true // by their values
	}
	w := d.types.lookup(d.bytesOf(at))
	if w.rej != nil {
		rej := *w.rej
		d.err = &rej
		return false
	}
	d.foreign.typed = w.row
	return true
}

// compileCanal compiles the types of a table's columns: of MySQL, by text, or of JDBC, by number.
func compileCanal(raw []byte) *writerSchema {
	w := &writerSchema{raw: raw, from: connectorMySQL, row: &record{strict: true}}
	x := &scanner{b: raw}
	if x.peek() != '{' {
		w.rej = reject(ReasonSchemaInvalid, "the types of columns are no object")
		return w
	}
	for more := x.open(); more; more = x.more('}') {
		name, ok := x.text()
		ok = ok && x.next(':')
		v := sqlConv("")
		switch x.peek() {
		case '"':
			typ, sound := x.text()
			v, ok = sqlConv(string(typ)), ok && sound
		case 'n':
			ok = ok && x.literal("null")
		default:
			from := x.p
			ok = ok && x.skip(0)
			n, sound := number64(x.b[from:x.p])
			v, ok = jdbcConv(n), ok && sound
		}
		if !ok || len(w.row.fields) == maxColumns {
			w.rej = reject(ReasonSchemaInvalid, "the type of column %s is neither text nor a number, or there are more than %d columns", quote(name), maxColumns)
			return w
		}
		w.row.add(string(name), v, false)
	}
	if len(w.row.fields) == 0 {
		w.rej = reject(ReasonSchemaInvalid, "no types of columns")
	}
	return w
}

// What all single rows of a message may take together where they are parked one by one, each with the members of the whole message.
const (
	partsFactor = 64
	partsSlack  = 1 << 20
)

// canalRows collects the rows and their old images.
func (d *Decoder) canalRows() bool {
	f := &d.foreign
	data, old, olds := f.members[canalData], f.members[canalOld], 0
	ok := d.array(data, func(i int, at extent) bool {
		if d.empty(at) {
			return d.fail(ReasonNoImage, "row %d has no columns", i+1)
		}
		f.rows = append(f.rows, foreignRow{row: at})
		return true
	}) && d.array(old, func(i int, at extent) bool {
		if olds = i + 1; i < len(f.rows) {
			f.rows[i].old = at
		}
		return true
	})
	size := f.whole.to - f.whole.from
	rest := size - (data.to - data.from) - (old.to - old.from)
	switch {
	case !ok:
	case len(f.rows) == 0:
		ok = d.fail(ReasonNoImage, "no rows: is the source's binlog_format ROW?")
	case olds > 0 && olds != len(f.rows):
		ok = d.fail(ReasonImagesContradict, "%d rows, and %d old ones", len(f.rows), olds)
	case rest*len(f.rows) > partsSlack+partsFactor*size:
		ok = d.fail(ReasonSchemaLimit, "%d rows in a message with %d bytes beside them", len(f.rows), rest)
	}
	return ok
}

// canalPart writes a message of one row. typ: "": the message's own.
func (d *Decoder) canalPart(typ string, row, old []byte) []byte {
	f := &d.foreign
	out := d.without([]byte{'{'}, f.whole, "type", "data", "old")
	out = append(out, `"type":`...)
	if typ == "" {
		out = append(out, d.bytesOf(f.members[canalType])...)
	} else {
		out = append(append(append(out, '"'), typ...), '"')
	}
	out = append(append(append(out, `,"data":[`...), row...), `],"old":`...)
	if old == nil {
		return append(out, "null}"...)
	}
	return append(append(append(out, '['), old...), "]}"...)
}
