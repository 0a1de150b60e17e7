package decode

import (
	"firn/changelog"
)

// extent is where a value stands in the document.
type extent struct{ from, to int }

func (e extent) given() bool { return e.to > e.from }

// envelope is what was read of a row's envelope (1.10).
type envelope struct {
	before, after extent // not given: absent or null
	sourceGiven   bool
	images        bool // before or after is there, if only as a null
	op            byte // 0: none; 1: no letter that is known
	opText        []byte
	source        source
	txID          []byte // transaction.id and total_order as they stand; nil: none
	txOrder       []byte
	schema        *writerSchema
	stale         bool      // after was read for another connector
	row           *record   // how After was read, or is to be; nil: without a schema, not known yet
	valueErr      *Rejected // what is wrong with a column; what is wrong with the document or the key counts first
	doc, oldDoc   []byte    // after and before where they are text: MongoDB's documents
	update        extent    // updateDescription
	status        bool      // has the member status, as transactions have
	ddl           bool
	message       bool
	unreadable    bool // the position is: the event has no identity
	deleted       bool // a flattened row says that it is
}

// The members of an envelope.
const (
	memberBefore = iota
	memberAfter
	memberSource
	memberTransaction
	memberOp
	memberTsMs
	memberTsUs
	memberTsNs
	memberUpdate
	memberStatus
	memberDDL
	memberMessage
	memberOther
)

func envelopeMember(name []byte) int {
	switch string(name) {
	case "before":
		return memberBefore
	case "after":
		return memberAfter
	case "source":
		return memberSource
	case "transaction":
		return memberTransaction
	case "op":
		return memberOp
	case "ts_ms":
		return memberTsMs
	case "ts_us":
		return memberTsUs
	case "ts_ns":
		return memberTsNs
	case "updateDescription":
		return memberUpdate
	case "status":
		return memberStatus
	case "ddl":
		return memberDDL
	case "message":
		return memberMessage
	}
	return memberOther
}

// envelope reads an envelope and decides what the record is.
func (d *Decoder) envelope(s *writerSchema) bool {
	e := &d.env
	if s != nil {
		e.schema, e.row = s, s.row
	}
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	var seen uint32
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return false
		}
		m := envelopeMember(name)
		if m == memberOther {
			if !names.add(name) || !d.skip(maxDepth-1) {
				return false
			}
			continue
		}
		if seen>>m&1 == 1 {
			return d.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(name))
		}
		seen |= 1 << m
		if !d.envelopeMember(m) {
			return false
		}
	}
	if d.err != nil {
		return false
	}
	e.images = seen&(1<<memberBefore|1<<memberAfter) != 0
	e.status, e.ddl, e.message = seen>>memberStatus&1 == 1, seen>>memberDDL&1 == 1, seen>>memberMessage&1 == 1
	return d.classify()
}

func (d *Decoder) envelopeMember(m int) bool {
	e := &d.env
	switch m {
	case memberBefore:
		if d.peek() == 'n' {
			return d.literal("null")
		}
		e.before.from = d.p
		var ok bool
		if d.peek() == '"' {
			e.oldDoc, ok = d.text()
		} else if row := d.guessedRow(); row != nil {
			ok = d.walk(row, maxDepth-1)
		} else {
			ok = d.skip(maxDepth - 1)
		}
		e.before.to = d.p
		return ok
	case memberAfter:
		return d.readAfter()
	case memberSource:
		if d.peek() == 'n' {
			return d.literal("null")
		}
		e.sourceGiven = true
		return d.readSource()
	case memberTransaction:
		return d.readTransaction()
	case memberUpdate:
		d.peek()
		e.update.from = d.p
		ok := d.skip(maxDepth - 1)
		e.update.to = d.p
		return ok
	case memberOp:
		return d.readOp()
	default:
		return d.skip(maxDepth - 1)
	}
}

// guessedRow returns how rows are read: by the schema, or as the last ones without one.
func (d *Decoder) guessedRow() *record {
	if d.env.row != nil {
		return d.env.row
	}
	return d.loose.guess()
}

// readAfter reads the new row. What is wrong in a column is kept for later; without a schema the row may have to be read
// again, when all is known.
func (d *Decoder) readAfter() bool {
	if d.peek() == 'n' {
		return d.literal("null")
	}
	e := &d.env
	e.after.from = d.p
	if e.row == nil && d.b[d.p] == '"' {
		text, ok := d.text()
		e.doc, e.after.to = text, d.p
		return ok
	}
	row := d.guessedRow()
	if row != nil {
		d.after = resize(d.after, len(row.fields))
		if d.record(row, d.after, &d.marks, maxDepth-1) && !d.unknown {
			e.after.to = d.p
			if e.row == nil {
				d.loose.read = row
			}
			return true
		}
		if d.err != nil && structural(d.err.Reason) {
			return false
		}
		if e.row != nil {
			e.valueErr = d.err
		}
		d.undo(e.after.from)
	}
	ok := d.skip(maxDepth - 1)
	e.after.to = d.p
	return ok
}

// undo forgets what reading a row has left behind and goes back to where it began.
func (d *Decoder) undo(p int) {
	d.p, d.err, d.unknown, d.hole = p, nil, false, false
	d.stack, d.others, d.marks, d.ev.Reports = d.stack[:0], d.others[:0], d.marks[:0], d.ev.Reports[:0]
}

func (d *Decoder) readOp() bool {
	e := &d.env
	switch d.peek() {
	case 'n':
		return d.literal("null")
	case '"':
		text, ok := d.text()
		e.op, e.opText = 1, text
		if len(text) == 1 {
			e.op = text[0]
		}
		return ok
	default:
		from := d.p
		if !d.skip(maxDepth - 1) {
			return false
		}
		e.op, e.opText = 1, d.b[from:d.p]
		return true
	}
}

func (d *Decoder) readTransaction() bool {
	if d.peek() != '{' {
		return d.skip(maxDepth - 1)
	}
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok {
			return false
		}
		d.peek()
		from := d.p
		if !d.skip(maxDepth - 2) {
			return false
		}
		switch string(name) {
		case "id":
			d.env.txID = d.b[from:d.p]
		case "total_order":
			d.env.txOrder = d.b[from:d.p]
		}
	}
	return d.err == nil
}

// classify checks the envelope as a whole (1.10, 1.11, 1.15).
func (d *Decoder) classify() bool {
	d.cloudAttributes()
	e := &d.env
	if !e.images {
		switch {
		case d.named == Transaction && e.status:
			d.ev.Kind = Transaction
			return true
		case d.named == SchemaChange && e.ddl:
			d.ev.Kind = SchemaChange
			return true
		case e.op == 'm' && e.message:
			d.ev.Kind = Message
			return true
		case e.op == 0 || e.op == 'm':
			return d.fail(ReasonEnvelopeShape, "neither before nor after: no change of a row")
		}
	}
	switch e.op {
	case 0:
		return d.fail(ReasonOpMissing, "")
	case 'c':
		d.ev.Op = changelog.OpCreate
	case 'r':
		d.ev.Op = changelog.OpRead
	case 'u':
		d.ev.Op = changelog.OpUpdate
	case 'd':
		d.ev.Op = changelog.OpDelete
	case 't':
		d.ev.Op, d.ev.Kind = changelog.OpTruncate, Truncate
	case 'm':
		d.ev.Kind = Message
		return true
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(e.opText))
	}
	if !e.sourceGiven {
		return d.fail(ReasonSourceMissing, "")
	}
	if !d.origin() {
		return false
	}
	switch d.ev.Op {
	case changelog.OpCreate, changelog.OpRead, changelog.OpUpdate:
		if !e.after.given() {
			if e.update.given() && d.documents() {
				return d.fail(ReasonNoImage, "an update without the document: capture.mode change_streams_update_full sends it")
			}
			return d.fail(ReasonNoImage, "op %s without after", d.ev.Op)
		}
	case changelog.OpDelete:
		if e.after.given() {
			return d.fail(ReasonImagesContradict, "op d with after")
		}
	case changelog.OpTruncate:
	}
	return true
}
