package decode

import (
	"bytes"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"firn/changelog"
)

// This file reads the envelopes of other capture tools. They have no schema block, and some say several things at once: a message
// becomes a list of rows, a row one event, or two where it takes another key (a delete of the old one and a create of the new one):
//
//	message → rows → the next row → its key, now and before → event
//
// canal.go, maxwell.go, ogg.go and dms.go know the members of each tool's messages.

// Foreign reports whether values have the envelope of another tool than Debezium.
func (f Form) Foreign() bool { return f >= FormCanal }

// foreign is what was read of the message at hand.
type foreign struct {
	whole   extent   // of the message
	members []extent // of it, by the numbers of its tool; not given: absent or null
	head    head
	rows    []foreignRow
	next    int      // row: those before are done, or at hand
	half    half     // of the row at hand
	typed   *record  // how rows are read where the message says the types of its columns
	names   []string // of the key's columns; none: it has no key
	raw     []byte   // what names were read from
	folded  bool     // names are in lower case, whatever the columns' are
	keys    []foreignKey
	key     *record // of the event at hand, whose values are read; nil: it has none, or they cannot be read
	event   bool    // the event at hand is not the first of its record
}

// head is what all events of a message have in common.
type head struct {
	op       changelog.Op
	snapshot Snapshot
	database string
	schema   string
	table    string
	native   string
	txn      string
	time     int64  // µs since 1970-01-01 UTC; 0: not known
	position []byte // tells each event of the source from all others; nil: nothing does
	partial  bool   // images have some columns only: what a new one lacks is in the old one, or was not sent
}

// foreignRow is where a row stands: its image, and what differed, or all there was, before. A delete's row is its old one.
type foreignRow struct{ row, old extent }

// half tells which event of a row is at hand.
type half uint8

const (
	halfNone   half = iota
	halfDelete      // the row has taken another key: of the old one
	halfCreate      // of the new one
)

// foreignKey is a key that is made of columns of rows.
type foreignKey struct {
	row    *record
	names  []string
	folded bool
	key    *record
	lacks  string // the column that rows do not have; empty: none
}

const maxForeignKeys = 8

// begin forgets the rows of the last message.
func (f *foreign) begin() {
	f.rows, f.next, f.half, f.event, f.key = f.rows[:0], 0, halfNone, false, nil
}

// foreignMessage reads a message up to its rows.
func (d *Decoder) foreignMessage() bool {
	f := &d.foreign
	*f = foreign{members: f.members[:0], rows: f.rows[:0], names: f.names, raw: f.raw, keys: f.keys}
	if cap(f.rows) > 1<<16 {
		f.rows = nil
	}
	switch d.peek() {
	case '{':
	case 'n':
		return d.literal("null") && d.fail(ReasonNullLiteral, "")
	default:
		return d.skip(maxDepth) && d.fail(ReasonEnvelopeShape, "no object")
	}
	f.whole.from = d.p
	members, read := d.tool()
	if !d.membersOf(members, &f.members) {
		return false
	}
	f.whole.to = d.p
	ok := read()
	d.p = f.whole.to
	return ok && d.foreignSource()
}

// tool returns the members of a tool's messages, and what reads them.
func (d *Decoder) tool() (members []string, read func() bool) {
	switch d.o.Form {
	case FormMaxwell:
		return maxwellMembers, d.maxwell
	case FormOGG:
		return oggMembers, d.ogg
	case FormDMS:
		return dmsMembers, d.dms
	case FormCanal, FormEnvelope, FormFlattened, FormPlain, FormOutbox:
	}
	return canalMembers, d.canal
}

// part writes a message of one row of a tool.
func (d *Decoder) part(insert bool, row, old []byte) []byte {
	switch d.o.Form {
	case FormMaxwell:
		return d.maxwellPart(insert, row)
	case FormOGG:
		return d.oggPart(insert, row)
	case FormDMS:
		return d.dmsPart(insert, row)
	case FormCanal, FormEnvelope, FormFlattened, FormPlain, FormOutbox:
	}
	typ := "DELETE"
	if insert {
		typ = "INSERT"
	}
	return d.canalPart(typ, row, old)
}

// membersOf reads an object, and leaves where the members called names stand.
func (d *Decoder) membersOf(names []string, out *[]extent) bool {
	*out = append((*out)[:0], make([]extent, len(names))...)
	seen := nameSet{x: &d.scanner, base: len(d.names)}
	defer seen.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := seen.next()
		if !ok {
			return false
		}
		d.peek()
		from := d.p
		if !d.skip(maxDepth - 1) {
			return false
		}
		if i := slices.Index(names, str(name)); i >= 0 && d.b[from] != 'n' {
			(*out)[i] = extent{from, d.p}
		}
	}
	return d.err == nil
}

// bytesOf returns a value as it stands; nil: absent or null.
func (d *Decoder) bytesOf(e extent) []byte {
	if !e.given() {
		return nil
	}
	return d.b[e.from:e.to]
}

// foreignSource checks the table that a message is of, and how its rows are to be read.
func (d *Decoder) foreignSource() bool {
	h := &d.foreign.head
	if want := d.o.SourceTable; want != "" && d.ev.Kind != SchemaChange && want != h.table && want != h.database+"."+h.table && want != h.schema+"."+h.table {
		return d.fail(ReasonSourceMismatch, "table %s", quote([]byte(h.table)))
	}
	d.headEvent()
	return true
}

// headEvent begins an event with what the message says of all of them.
func (d *Decoder) headEvent() {
	h, kind, reports := &d.foreign.head, d.ev.Kind, d.ev.Reports[:0]
	d.ev = Event{
		Kind: kind, Op: h.op, Snapshot: h.snapshot, Database: h.database, Schema: h.schema, Table: h.table, Native: h.native, Txn: h.txn,
		SourceTime: h.time, Connector: d.foreignName(), Reports: reports,
	}
}

func (d *Decoder) foreignName() string { return formNames[d.o.Form] }

// formNames are the names of forms, as the configuration has them.
var formNames = [...]string{FormEnvelope: "envelope", FormFlattened: "flattened", FormPlain: "plain", FormCanal: "canal", FormMaxwell: "maxwell", FormOGG: "ogg", FormDMS: "dms"}

// array collects the objects of an array. Rows stand behind each other, so that what they take is bounded by their bytes.
func (d *Decoder) array(at extent, row func(i int, at extent) bool) bool {
	if !at.given() {
		return true
	}
	d.p = at.from
	if d.peek() != '[' {
		return d.fail(ReasonEnvelopeShape, "rows are no array: %s", d.here())
	}
	d.p++
	if d.peek() == ']' {
		return true
	}
	i := 0
	for more := true; more; more = d.more(']') {
		c := d.peek()
		from := d.p
		if !d.skip(maxDepth) {
			return false
		}
		at := extent{from, d.p}
		if c == 'n' {
			at = extent{}
		} else if c != '{' {
			return d.fail(ReasonEnvelopeShape, "row %d is no object", i+1)
		}
		if !row(i, at) {
			return false
		}
		i++
	}
	return d.err == nil
}

// empty reports whether there is no object, or one without members.
func (d *Decoder) empty(at extent) bool {
	x := scanner{b: d.b, p: at.from}
	return !at.given() || !x.open()
}

// More reports whether the record last decoded has another event: Next gives it.
func (d *Decoder) More() bool {
	return d.o.Form.Foreign() && (d.foreign.half == halfDelete || d.foreign.next < len(d.foreign.rows))
}

// Next decodes the next event of a record. It is valid until the following call, as the one before is no more. The error, if any, is a
// *Rejected: of this event only, others may follow. Call it only after More.
func (d *Decoder) Next() (*Event, error) {
	d.foreign.event = true
	d.arena, d.err = d.arena[:0], nil
	d.stack, d.others, d.marks, d.names = d.stack[:0], d.others[:0], d.marks[:0], d.names[:0]
	d.ev.Kind = Change
	d.headEvent()
	if !d.foreignChange() {
		rej := d.err
		d.foreignRejectKey(rej)
		return nil, rej
	}
	return &d.ev, nil
}

// Several reports whether the event at hand is one of several of its record: Part gives the record of it alone.
func (d *Decoder) Several() bool { return d.foreign.event || d.More() }

// row returns the row at hand.
func (f *foreign) row() *foreignRow { return &f.rows[f.next-1] }

// foreignChange decodes the event at hand: the next row's, or the second half of one's.
func (d *Decoder) foreignChange() bool {
	f := &d.foreign
	d.column, d.hole, d.unknown, d.loose.read = "", false, false, nil
	f.key = nil
	if f.half == halfDelete {
		f.half = halfCreate
	} else {
		f.half = halfNone
		f.next++
	}
	row := f.row()
	rec, ok := d.foreignRecord(row)
	if !ok {
		return false
	}
	key, ok := d.foreignKeys(rec, row)
	if !ok {
		return false
	}
	f.key = key
	shape, rej := shapeOf(rec, key)
	if rej != nil {
		d.err = rej
		return false
	}
	if len(shape.Columns) == 0 {
		return d.fail(ReasonNoImage, "the row has no column with a value")
	}
	d.ev.Shape, d.ev.Key = shape, d.key
	switch f.half {
	case halfDelete:
		d.ev.Op = changelog.OpDelete
	case halfCreate:
		d.ev.Op = changelog.OpCreate
	case halfNone:
	}
	if d.ev.Op != changelog.OpDelete && !d.foreignAfter(rec, row) {
		return false
	}
	d.foreignBefore(rec, row)
	if key == nil && d.ev.Op == changelog.OpDelete && d.ev.Before == nil {
		return d.fail(ReasonKeyMissing, "a delete without a key, whose old row is not to be trusted")
	}
	d.foreignIdentity(row)
	return true
}

// foreignAfter reads the new row.
func (d *Decoder) foreignAfter(rec *record, row *foreignRow) bool {
	d.after = resize(d.after, len(rec.fields))
	if !d.image(rec, row.row, d.rest(row), d.after) {
		return false
	}
	if h := &d.foreign.head; !h.partial || h.op != changelog.OpUpdate {
		d.marks = d.marks[:0] // they are null
	}
	if len(d.marks) > 0 && d.foreign.half == halfCreate {
		return d.fail(ReasonNoImage, "the row takes another key, and not all of its columns are there: log them all at the source")
	}
	d.ev.After, d.ev.Placeholders = d.after, d.marks
	return true
}

// rest returns where columns are that the new image lacks.
func (d *Decoder) rest(row *foreignRow) extent {
	if d.foreign.head.partial {
		return row.old
	}
	return extent{}
}

// foreignBefore reads the old row, where it is whole and to be trusted. The change itself is sound without it.
func (d *Decoder) foreignBefore(rec *record, row *foreignRow) {
	h := &d.foreign.head
	if d.ev.Op != changelog.OpUpdate && d.ev.Op != changelog.OpDelete || !d.trusted() || d.o.Form == FormDMS && d.o.Identity != IdentityFull {
		return
	}
	main, rest := row.old, row.row // Canal's and Maxwell's have what differs
	switch {
	case h.op == changelog.OpDelete:
		main, rest = row.row, extent{}
	case h.partial: // it stands on its own
		rest = extent{}
	}
	if !main.given() {
		return
	}
	marks, reports, column := len(d.marks), len(d.ev.Reports), d.column
	d.before = resize(d.before, len(rec.fields))
	d.unknown = false
	ok := d.image(rec, main, rest, d.before) && !d.unknown && (len(d.marks) == marks || !h.partial)
	d.marks, d.ev.Reports, d.err, d.column, d.unknown, d.stack = d.marks[:marks], d.ev.Reports[:reports], nil, column, false, d.stack[:0]
	if ok {
		d.ev.Before = d.before
	}
}

// image reads a row into out: the members of main, and those of rest that main does not have. What neither has is null, and d.marks gets
// its columns.
func (d *Decoder) image(rec *record, main, rest extent, out []changelog.Value) bool {
	var got memberSet
	for _, e := range [...]extent{main, rest} {
		if e.given() && !d.underlay(rec, e, out, &got) {
			return false
		}
	}
	for i := range rec.fields {
		if !got.has(i) {
			out[i] = changelog.NullValue
			d.marks = append(d.marks, i)
		}
	}
	return true
}

// underlay reads the members of an object that got does not have, and adds them to it.
func (d *Decoder) underlay(rec *record, at extent, out []changelog.Value, got *memberSet) bool {
	var seen memberSet
	unknown := nameSet{x: &d.scanner, base: len(d.names)}
	defer unknown.release()
	d.p = at.from
	if d.peek() != '{' {
		return d.fail(ReasonEnvelopeShape, "the row is no object: %s", d.here())
	}
	next := 0
	for more := d.open(); more; more = d.more('}') {
		i, name, ok := d.member(rec, next, &seen)
		switch {
		case !ok:
			return false
		case i < 0:
			if !d.unknownMember(rec, &unknown, name, maxDepth-1) {
				return false
			}
			continue
		}
		next = i + 1
		if !got.add(i) {
			if !d.skip(maxDepth - 1) {
				return false
			}
			continue
		}
		d.column = rec.fields[i].name
		if !d.value(rec.fields[i].conv, &out[i], maxDepth-2) {
			return d.at(rec.fields[i].name)
		}
	}
	return d.err == nil
}

// foreignRecord returns how the row at hand is read.
func (d *Decoder) foreignRecord(row *foreignRow) (*record, bool) {
	if d.foreign.typed != nil {
		return d.foreign.typed, true
	}
	l := &d.loose
	if l.stale {
		d.rebuildLoose()
	}
	if rec := l.last; rec != nil && d.readsLoose(rec, row) {
		return rec, true
	}
	if d.err != nil && structural(d.err.Reason) {
		return nil, false
	}
	d.err = nil
	rec, ok := d.recordFor(row.row.from, d.rest(row))
	if ok {
		l.last = rec
	}
	d.ev.Reports, d.stack, d.unknown = d.ev.Reports[:0], d.stack[:0], false
	return rec, ok
}

// readsLoose reports whether a record made for another row reads this one, too: it has all of its members, and, of those that are not the
// table's, no others.
func (d *Decoder) readsLoose(rec *record, row *foreignRow) bool {
	d.after = resize(d.after, len(rec.fields))
	d.unknown = false
	ok := d.image(rec, row.row, d.rest(row), d.after)
	for _, i := range d.marks {
		ok = ok && i < rec.extra
	}
	ok = ok && !d.unknown
	d.marks, d.ev.Reports, d.unknown, d.stack, d.column = d.marks[:0], d.ev.Reports[:0], false, d.stack[:0], ""
	d.arena = d.arena[:0]
	return ok
}

// foreignKeys reads the key of the row at hand into d.key, and finds out whether the row had another one before. It returns how the key is
// read; nil: the table has none.
func (d *Decoder) foreignKeys(rec *record, row *foreignRow) (*record, bool) {
	if d.key = d.key[:0]; d.o.NoKey || len(d.foreign.names) == 0 {
		return nil, true
	}
	key, ok := d.foreignKey(rec)
	if !ok {
		return nil, false
	}
	d.key = resize(d.key, len(key.fields))
	for i := range d.key {
		d.key[i] = changelog.NullValue
	}
	if !d.keyMembers(key, d.rest(row), d.key) || !d.keyMembers(key, row.row, d.key) {
		return nil, false
	}
	if d.foreign.half != halfCreate && row.old.given() && d.foreign.head.op == changelog.OpUpdate {
		d.other = append(d.other[:0], d.key...)
		if !d.keyMembers(key, row.old, d.other) {
			return nil, false
		}
		if !slices.EqualFunc(d.key, d.other, sameValue) {
			d.foreign.half = halfDelete
			d.key, d.other = d.other, d.key
		}
	}
	return key, d.noNulls(key, d.key)
}

func sameValue(a, b changelog.Value) bool {
	return a.Null == b.Null && a.I == b.I && bytes.Equal(a.B, b.B)
}

// keyMembers reads those members of an object that are the key's.
func (d *Decoder) keyMembers(key *record, at extent, out []changelog.Value) bool {
	if !at.given() {
		return true
	}
	d.p = at.from
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return false
		}
		i, of := key.index[str(name)]
		if !of {
			if !d.skip(maxDepth - 1) {
				return false
			}
			continue
		}
		d.column = key.fields[i].name
		if !d.value(key.fields[i].conv, &out[i], maxDepth-2) {
			return d.at(key.fields[i].name)
		}
	}
	return d.err == nil
}

// foreignKey returns how the key is read that has the columns which the message or the route names.
func (d *Decoder) foreignKey(rec *record) (*record, bool) {
	f := &d.foreign
	i := slices.IndexFunc(f.keys, func(k foreignKey) bool { return k.row == rec && k.folded == f.folded && slices.Equal(k.names, f.names) })
	if i < 0 {
		if len(f.keys) == maxForeignKeys {
			f.keys = slices.Delete(f.keys, 0, 1)
		}
		k := foreignKey{row: rec, names: slices.Clone(f.names), folded: f.folded, key: &record{}}
		for _, name := range f.names {
			o, ok := rec.index[name]
			if !ok && f.folded {
				o = slices.IndexFunc(rec.fields, func(c field) bool { return strings.ToLower(c.name) == name })
				ok = o >= 0
			}
			if !ok {
				k.lacks = name
				break
			}
			k.key.add(rec.fields[o].name, rec.fields[o].conv, true)
		}
		f.keys = append(f.keys, k)
		i = len(f.keys) - 1
	}
	if k := &f.keys[i]; k.lacks != "" {
		return nil, d.fail(ReasonKeyMissing, "key column %s is not in the row", quote([]byte(k.lacks)))
	}
	return f.keys[i].key, true
}

// keyNames sets the key's columns: those that the route names, or an array of names in the message.
func (d *Decoder) keyNames(at extent) bool {
	f := &d.foreign
	f.folded = false
	if len(d.o.KeyColumns) > 0 {
		f.names = d.o.KeyColumns
		return true
	}
	raw := d.bytesOf(at)
	if f.raw != nil && bytes.Equal(raw, f.raw) {
		return true
	}
	f.names, f.raw = nil, nil
	if raw == nil {
		return true
	}
	d.p = at.from
	if d.peek() != '[' {
		return d.fail(ReasonEnvelopeShape, "the names of the key's columns are no array: %s", d.here())
	}
	d.p++
	if d.peek() == ']' {
		return true
	}
	var names []string
	for more := true; more; more = d.more(']') {
		name, ok := d.text()
		switch {
		case !ok:
			return false
		case slices.Contains(names, str(name)):
			return d.fail(ReasonKeyDecode, "key column %s is named twice", quote(name))
		case len(names) == maxKeyColumns:
			return d.fail(ReasonSchemaLimit, "a key of more than %d columns", maxKeyColumns)
		}
		names = append(names, string(name))
	}
	f.names, f.raw = names, bytes.Clone(raw)
	return d.err == nil
}

// maxKeyColumns bounds keys: no database that these tools read has more (MySQL 16, Oracle 32).
const maxKeyColumns = 64

// foreignIdentity sets the identity of an event that the tool tells the exact place of: a hash of that, what it does, and its images.
func (d *Decoder) foreignIdentity(row *foreignRow) {
	h := &d.foreign.head
	if len(h.position) == 0 || h.op == changelog.OpRead {
		return
	}
	b := append(d.scratch[:0], formNames[d.o.Form]...)
	for _, part := range [...]string{h.database, h.schema, h.table} {
		b = append(append(b, 0), part...)
	}
	b = append(append(b, 0), h.position...)
	b = append(b, byte(h.op), byte(d.foreign.half))
	b = appendHash(b, d.bytesOf(row.row))
	b = appendHash(b, d.bytesOf(row.old))
	d.scratch = b
	d.ev.Identity, d.ev.HasIdentity = xxh3.Hash128(b).Bytes(), true
}

// foreignRejectKey gives a rejection the key of the event at hand, if that was readable.
func (d *Decoder) foreignRejectKey(rej *Rejected) {
	if key := d.foreign.key; key != nil {
		rej.setKey(key, d.key)
	}
}

// setKey gives a rejection a key. The values outlive the decoder's next record.
func (r *Rejected) setKey(key *record, values []changelog.Value) {
	for i := range key.fields {
		r.KeyColumns = append(r.KeyColumns, key.fields[i].shapeColumn())
		v := values[i]
		v.B = slices.Clone(v.B)
		r.Key = append(r.Key, v)
	}
}

// Part returns the value of the record at hand as it would be if the event at hand were its only one: what is parked in its place. The
// halves of a row that takes another key become a delete and an insert.
func (d *Decoder) Part() []byte {
	f := &d.foreign
	row := f.row()
	switch f.half {
	case halfDelete:
		return d.part(false, d.merged(row.old, row.row), nil)
	case halfCreate:
		return d.part(true, d.merged(row.row, d.rest(row)), nil)
	default: // one of the rows of Canal's messages
		return d.canalPart("", d.bytesOf(row.row), d.bytesOf(row.old))
	}
}

// without appends the members of the object at at, but for some, each with a comma behind it.
func (d *Decoder) without(dst []byte, at extent, names ...string) []byte {
	x := scanner{b: d.b, p: at.from}
	for more := x.open(); more; more = x.more('}') {
		x.peek()
		from := x.p
		name, _ := x.text()
		_ = x.next(':') && x.skip(maxDepth) // it was read before
		if !slices.Contains(names, str(name)) {
			dst = append(append(dst, d.b[from:x.p]...), ',')
		}
	}
	return dst
}

// merged returns the object that has the members of main, and those of rest that main does not have.
func (d *Decoder) merged(main, rest extent) []byte {
	var names []string
	x := scanner{b: d.b, p: main.from}
	for more := main.given() && x.open(); more; more = x.more('}') {
		name, _ := x.text()
		names = append(names, string(name))
		_ = x.next(':') && x.skip(maxDepth)
	}
	out := []byte{'{'}
	if main.given() {
		out = d.without(out, main)
	}
	if rest.given() {
		out = d.without(out, rest, names...)
	}
	return append(bytes.TrimSuffix(out, []byte{','}), '}')
}

// foreignConnector returns what connector's types a tool's rows have.
func foreignConnector(o Options) connector {
	switch {
	case o.Form == FormCanal, o.Form == FormMaxwell:
		return connectorMySQL
	case o.Form == FormOGG && o.Connector == "":
		return connectorOracle
	}
	return connectorOf(o.Connector)
}
