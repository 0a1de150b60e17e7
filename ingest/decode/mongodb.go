package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"

	"firn/changelog"
)

// Documents is what a table has of MongoDB's documents.
type Documents uint8

// The ways.
const (
	DocumentColumns Documents = iota // a column a field
	DocumentText                     // _id, and the document as Extended JSON in column document
)

// The columns that tables of documents have.
const (
	idColumn       = "_id"
	documentColumn = "document"
)

// documents reports whether the rows of the record at hand are documents, in Extended JSON.
func (d *Decoder) documents() bool {
	if d.from != connectorMongoDB || d.o.Form != FormEnvelope {
		return false
	}
	e := &d.env
	return (e.doc != nil || !e.after.given()) && (e.oldDoc != nil || !e.before.given())
}

// extendedKind is what an object of Extended JSON stands for.
type extendedKind uint8

const (
	extRaw extendedKind = iota // something that has no type of its own here: its JSON is its text
	extOID
	extInteger
	extDouble
	extDecimal
	extDate
	extBinary
	extUndefined
)

// extended is a value of Extended JSON, canonical, relaxed or of version 1 (mongodb/specifications, extended-json).
type extended struct {
	kind    extendedKind
	text    []byte // of an id, a decimal; else the object
	integer int64  // or µs since 1970
	double  float64
	octets  []byte
	subtype byte
}

// extendedObject reads the object at hand if it stands for a value; else it reads nothing.
func (d *Decoder) extendedObject(depth int) (e extended, is, ok bool) {
	y := scanner{b: d.b, p: d.p}
	if !y.open() || y.peek() != '"' || y.p+1 >= len(y.b) || y.b[y.p+1] != '$' {
		return e, false, true
	}
	name, ok := y.text()
	if !ok || !extendedName(string(name)) {
		return e, false, true
	}
	from := d.p
	if !d.skip(depth) {
		return e, true, false
	}
	raw := d.b[from:d.p:d.p]
	if e, ok = d.parseExtended(raw); !ok {
		e = extended{text: raw}
	}
	return e, true, true
}

func extendedName(name string) bool {
	switch name {
	case "$oid", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$date", "$binary", "$uuid", "$undefined", "$timestamp",
		"$regularExpression", "$regex", "$options", "$symbol", "$code", "$scope", "$dbPointer", "$minKey", "$maxKey", "$type":
		return true
	}
	return false
}

// parseExtended takes apart a sound object; false: it is not of a form that has a type here.
func (d *Decoder) parseExtended(raw []byte) (e extended, ok bool) {
	var names [2]string
	var values [2][]byte
	n := 0
	for name, value := range jsonMembers(raw) {
		if n == len(names) {
			return e, false
		}
		names[n], values[n] = string(name), value
		n++
	}
	if names[0] == "$type" { // version 1, in either order
		names[0], names[1], values[0], values[1] = names[1], names[0], values[1], values[0]
	}
	if names[0] == "$binary" {
		return d.extendedBinary(values[0], names[1], values[1])
	}
	if n != 1 {
		return e, false
	}
	value := values[0]
	text := d.plain(value)
	switch names[0] {
	case "$oid":
		e.kind, e.text = extOID, text
		return e, value[0] == '"' && len(text) == 24 && isHex(text)
	case "$numberInt", "$numberLong":
		e.kind = extInteger
		e.integer, ok = number64(text)
		return e, ok
	case "$numberDouble":
		e.kind = extDouble
		e.double, ok = doubleOf(text)
		return e, ok
	case "$numberDecimal":
		e.kind, e.text = extDecimal, text
		return e, value[0] == '"' && isDecimal(text)
	case "$date":
		e.kind = extDate
		e.integer, ok = d.extendedDate(value)
		return e, ok
	case "$uuid":
		var v changelog.Value
		e.kind, e.subtype = extBinary, 4
		saved := d.err
		ok = d.uuid(&v, text)
		d.err, e.octets = saved, v.B
		return e, ok
	case "$undefined":
		e.kind = extUndefined
		return e, true
	}
	return e, false
}

func isHex(text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func doubleOf(text []byte) (float64, bool) {
	switch string(text) {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	if !isNumber(text) || len(text) > maxDoubleDigits {
		return 0, false
	}
	f, err := strconv.ParseFloat(str(text), 64)
	return f, err == nil
}

func isNumber(text []byte) bool {
	x := scanner{b: text}
	_, _, ok := x.number()
	return ok && x.p == len(text)
}

func isDecimal(text []byte) bool {
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return true
	}
	return len(text) <= maxDoubleDigits && isNumber(text)
}

// extendedDate returns the µs of a $date: ms, as a number or a $numberLong, or ISO text.
func (d *Decoder) extendedDate(value []byte) (micros int64, ok bool) {
	switch value[0] {
	case '"':
		var v changelog.Value
		saved, reports := d.err, len(d.ev.Reports)
		ok = d.iso(&conv{op: readZoned, typ: changelog.Primitive(changelog.TimestampTZ)}, &v, d.plain(value))
		ok = ok && len(d.ev.Reports) == reports
		d.err, d.ev.Reports = saved, d.ev.Reports[:reports]
		return v.I, ok
	case '{':
		n := 0
		for name, inner := range jsonMembers(value) {
			if n++; n > 1 || string(name) != "$numberLong" {
				return 0, false
			}
			value = d.plain(inner)
		}
	}
	ms, ok := number64(value)
	return ms * 1000, ok && ms <= math.MaxInt64/1000 && ms >= math.MinInt64/1000
}

// extendedBinary reads {"base64":…,"subType":"04"}, or, of version 1, text beside "$type".
func (d *Decoder) extendedBinary(value []byte, second string, typ []byte) (e extended, ok bool) {
	text := value
	switch {
	case value[0] == '{' && second == "":
		text = nil
		n := 0
		for name, inner := range jsonMembers(value) {
			switch n++; string(name) {
			case "base64":
				text = inner
			case "subType":
				typ = inner
			}
		}
		if n != 2 {
			return e, false
		}
	case second != "$type":
		return e, false
	}
	if len(text) == 0 || text[0] != '"' || len(typ) == 0 {
		return e, false
	}
	e.kind = extBinary
	saved := d.err
	e.octets, ok = d.base64(d.plain(text))
	d.err = saved
	sub, err := strconv.ParseUint(str(d.plain(typ)), 16, 8)
	e.subtype = byte(sub)
	return e, ok && err == nil
}

// isScalar reports whether values of a reader are no parts of a document by themselves.
func (r reader) isScalar() bool {
	switch r {
	case readList, readMap, readPairs, readStruct, readVariable, readStructured, readRaw, readID:
		return false
	default:
		return true
	}
}

// extendedValue reads a scalar of a document that is an object, or text where the column has none.
func (d *Decoder) extendedValue(c *conv, v *changelog.Value, depth int) bool {
	here := d.here()
	if d.b[d.p] != '{' {
		return d.skip(depth) && d.fail(ReasonTypeMismatch, "%s expected, found %s", c.typ, here)
	}
	e, is, ok := d.extendedObject(depth)
	switch {
	case !ok:
		return false
	case !is:
		return d.skip(depth) && d.fail(ReasonTypeMismatch, "%s expected, found %s", c.typ, here)
	case e.kind == extUndefined:
		*v = changelog.NullValue
		return true
	}
	*v = changelog.Value{}
	switch c.op {
	case readText:
		ok = d.extendedText(v, &e)
	case readInt:
		v.I, ok = e.integer, e.kind == extInteger && e.integer >= c.low && e.integer <= c.high
	case readDouble:
		if e.kind == extInteger {
			e.kind, e.double = extDouble, float64(e.integer)
		}
		*v, ok = changelog.DoubleValue(e.double), e.kind == extDouble
	case readDecimal:
		ok = e.kind == extDecimal && d.decimalOfText(c, v, e.text)
	case readZoned:
		v.I, ok = e.integer, e.kind == extDate
	case readBytes:
		v.B, ok = e.octets, e.kind == extBinary
	case readUUID:
		v.B, ok = e.octets, e.kind == extBinary && len(e.octets) == 16
	default:
		ok = false
	}
	return ok || d.fail(ReasonTypeMismatch, "%s expected, found %s", c.typ, here)
}

// extendedText makes v what an object is in a column of text.
func (d *Decoder) extendedText(v *changelog.Value, e *extended) bool {
	switch e.kind {
	case extOID, extRaw:
		v.B = e.text
		return true
	case extDecimal:
		digits, exponent, negative, ok := []byte(nil), 0, false, false
		if c := e.text[len(e.text)-1]; c >= '0' && c <= '9' {
			digits, exponent, negative, ok = splitNumber(e.text)
		}
		const most = 64 // of zeros that no digit asks for
		if !ok || exponent > most || exponent < -len(digits)-most {
			v.B = e.text
			return true
		}
		return d.canonicalDigits(v, digits, negative, -exponent)
	default:
		return false
	}
}

func (d *Decoder) decimalOfText(c *conv, v *changelog.Value, text []byte) bool {
	b, p, saved := d.b, d.p, d.err
	d.b, d.p = text, 0
	ok := d.numericDecimal(c, v)
	d.b, d.p = b, p
	if !ok {
		d.err = saved
	}
	return ok
}

// inferExtended makes a conv from the object at at, if that stands for a value; nil: it does not, or says nothing.
func (d *Decoder) inferExtended(at, depth int) (v *conv, is, ok bool) {
	d.p = at
	e, is, ok := d.extendedObject(depth)
	if !ok || !is || e.kind == extUndefined {
		return nil, is, ok
	}
	v = &conv{}
	switch e.kind {
	case extInteger:
		v.set(readInt, changelog.Long)
		v.low, v.high = -1<<63, 1<<63-1
	case extDouble:
		v.set(readDouble, changelog.Double)
	case extDate:
		v.set(readZoned, changelog.TimestampTZ)
	case extBinary:
		if v.set(readBytes, changelog.Binary); e.subtype == 4 && len(e.octets) == 16 {
			v.set(readUUID, changelog.UUID)
		}
	default:
		v.set(readText, changelog.String)
	}
	return v, true, true
}

// rawConv reads any value as its JSON text: what has no type of its own, such as arrays of unlike elements.
func rawConv() *conv {
	v := &conv{}
	v.set(readRaw, changelog.String)
	return v
}

// readRaw reads any value as its JSON text.
func (d *Decoder) readRaw(v *changelog.Value, depth int) bool {
	from := d.p
	if !d.skip(depth) {
		return false
	}
	*v = changelog.Value{B: d.b[from:d.p:d.p]}
	return true
}

// idRecord is how keys of documents are read.
func (d *Decoder) idRecord() *record {
	if d.idKey == nil {
		v := &conv{}
		v.set(readID, changelog.String)
		d.idKey = &record{}
		d.idKey.add(idColumn, v, true)
	}
	return d.idKey
}

// documentKey decodes a key of documents, {"id":"<Extended JSON>"}, into d.key (1.16).
func (d *Decoder) documentKey(r *Record) (*record, bool) {
	var id []byte
	if d.o.KeyFormat.framed() {
		key, ok := d.framedKey(r)
		if !ok {
			return nil, false
		}
		if len(key.fields) != 1 || key.fields[0].conv.typ.Kind != changelog.String {
			return nil, d.fail(ReasonKeyDecode, "the key is no record of a string id")
		}
		id = d.key[0].B
	} else {
		x := scanner{b: r.Key}
		if !d.keyUTF8(r.Key) {
			return nil, false
		}
		if !x.skip(maxDepth) || !x.end() {
			return nil, d.fail(x.err.Reason, "%s", x.err.Detail)
		}
		doc := bytes.TrimSpace(r.Key)
		if inner, ok := unwrapped(doc); ok {
			doc = inner
		}
		n := 0
		for name, raw := range jsonMembers(doc) {
			if n++; string(name) == "id" {
				id = raw
			}
		}
		switch {
		case n != 1 || id == nil:
			return nil, d.fail(ReasonKeyDecode, "the key is no object of an id")
		case id[0] == 'n':
			return nil, d.fail(ReasonKeyNull, "column %s", quote([]byte("id")))
		case id[0] != '"':
			return nil, d.fail(ReasonKeyDecode, "the id is no string of Extended JSON")
		}
		id = d.plain(id)
	}
	d.b, d.p = id, 0
	d.key = resize(d.key, 1)
	return d.idRecord(), d.readID(&d.key[0], maxDepth) && d.end()
}

// readID reads an _id. Equal ids are equal texts, unequal ones are not: of an ObjectId its hexadecimal digits, of a string itself, unless that
// could be another id's text (then in quotes), of another value its Extended JSON in one form (1.16).
func (d *Decoder) readID(v *changelog.Value, depth int) bool {
	var start int
	if d.peek() == '"' {
		text, ok := d.text()
		if !ok {
			return false
		}
		if *v = (changelog.Value{B: text}); !likeID(text) {
			return true
		}
		start = len(d.arena)
		d.arena = appendJSONText(d.arena, text)
	} else {
		if d.p == len(d.b) {
			return d.syntax("a value")
		}
		from := d.p
		if !d.skip(depth) {
			return false
		}
		out, ok := d.canonicalID(nil, d.b[from:d.p], true)
		if !ok {
			return false
		}
		start = len(d.arena)
		d.arena = append(d.arena, out...)
	}
	*v = changelog.Value{B: d.arena[start:len(d.arena):len(d.arena)]}
	return d.room(0)
}

// likeID reports whether the text of a string could be that of an id which is no string.
func likeID(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	switch c := text[0]; {
	case c == '{' || c == '[' || c == '"':
		return true
	case len(text) == 24 && isHex(text):
		return true
	}
	switch string(text) {
	case "true", "false", "null", "NaN", "Infinity", "-Infinity":
		return true
	}
	return isNumber(text)
}

// canonicalID appends a sound value in the one form that equal values have. Only at the top is an ObjectId bare.
func (d *Decoder) canonicalID(dst, raw []byte, top bool) ([]byte, bool) {
	switch raw[0] {
	case '{':
		return d.canonicalObject(dst, raw, top)
	case '[':
		return d.canonicalArray(dst, raw)
	case '"':
		return appendJSONText(dst, d.plain(raw)), true
	case 't', 'f', 'n':
		return append(dst, raw...), true
	}
	if i, ok := number64(raw); ok {
		return strconv.AppendInt(dst, i, 10), true
	}
	f, ok := doubleOf(raw)
	if !ok {
		return dst, d.fail(ReasonFloatRange, "%s", quote(raw))
	}
	return appendDouble(dst, f), true
}

func (d *Decoder) canonicalArray(dst, raw []byte) ([]byte, bool) {
	x := scanner{b: raw, p: 1}
	dst = append(dst, '[')
	for first := true; x.peek() != ']'; first = false {
		if !first { // a comma
			x.p++
			x.peek()
			dst = append(dst, ',')
		}
		from := x.p
		if !x.skip(maxDepth) {
			return dst, false // not possible
		}
		var ok bool
		if dst, ok = d.canonicalID(dst, raw[from:x.p], false); !ok {
			return dst, false
		}
	}
	return append(dst, ']'), true
}

func (d *Decoder) canonicalObject(dst, raw []byte, top bool) ([]byte, bool) {
	b, p := d.b, d.p
	d.b, d.p = raw, 0
	e, is, ok := d.extendedObject(maxDepth)
	d.b, d.p = b, p
	if is && ok && e.kind != extRaw && e.kind != extUndefined {
		return appendExtended(dst, &e, top), true
	}
	dst = append(dst, '{')
	first := true
	for name, inner := range jsonMembers(raw) {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendJSONText(dst, name), ':')
		if dst, ok = d.canonicalID(dst, inner, false); !ok {
			return dst, false
		}
	}
	return append(dst, '}'), true
}

func appendExtended(dst []byte, e *extended, top bool) []byte {
	switch e.kind {
	case extOID:
		if top {
			return append(dst, bytes.ToLower(e.text)...)
		}
		return append(append(append(dst, `{"$oid":"`...), bytes.ToLower(e.text)...), `"}`...)
	case extInteger:
		return strconv.AppendInt(dst, e.integer, 10)
	case extDouble:
		return appendDouble(dst, e.double)
	case extDecimal:
		return appendDecimalID(dst, e.text)
	case extDate:
		return append(strconv.AppendInt(append(dst, `{"$date":`...), floorDiv(e.integer, 1000), 10), '}')
	default:
		dst = base64.StdEncoding.AppendEncode(append(dst, `{"$binary":{"base64":"`...), e.octets)
		dst = hex.AppendEncode(append(dst, `","subType":"`...), []byte{e.subtype})
		return append(dst, `"}}`...)
	}
}

// appendDouble appends a double; a whole one is as an integer is, for they are equal as ids.
func appendDouble(dst []byte, f float64) []byte {
	const most = 1 << 63
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 0):
		return append(dst, map[bool]string{true: "Infinity", false: "-Infinity"}[f > 0]...)
	case f == math.Trunc(f) && math.Abs(f) < most:
		return strconv.AppendInt(dst, int64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// appendDecimalID appends a decimal: an integer as one; else its digits without zeros at the end, and the power of ten.
func appendDecimalID(dst, text []byte) []byte {
	digits, exponent, negative, ok := []byte(nil), 0, false, false
	if isNumber(text) {
		digits, exponent, negative, ok = splitNumber(text)
	}
	if !ok {
		return append(append(append(dst, `{"$numberDecimal":"`...), text...), `"}`...)
	}
	for len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits, exponent = digits[:len(digits)-1], exponent+1
	}
	if len(digits) == 1 && digits[0] == '0' {
		return append(dst, '0')
	}
	const most = 19 // digits of an integer
	whole := exponent >= 0 && len(digits)+exponent <= most
	if !whole {
		dst = append(dst, `{"$numberDecimal":"`...)
	}
	if negative {
		dst = append(dst, '-')
	}
	dst = append(dst, digits...)
	if whole {
		return append(dst, "0000000000000000000"[:exponent]...)
	}
	return append(strconv.AppendInt(append(dst, 'E'), int64(exponent), 10), `"}`...)
}

// documentRow reads the documents of the record at hand, and returns how.
func (d *Decoder) documentRow() (*record, bool) {
	l, e := &d.loose, &d.env
	if l.stale {
		d.rebuildLoose()
	}
	row := l.base
	if d.o.Documents == DocumentText {
		row = d.documentRecord()
	}
	if e.doc == nil {
		return row, true
	}
	b, p := d.b, d.p
	d.b, d.p = e.doc, 0
	var ok bool
	if d.o.Documents == DocumentText {
		d.after = resize(d.after, len(row.fields))
		ok = d.documentText(d.after)
	} else {
		row, ok = d.documentColumns()
	}
	d.b, d.p = b, p
	if ok && len(d.key) == 1 {
		if i, there := row.index[idColumn]; there && d.after[i].Null { // a null id, or none: the key has it
			d.after[i] = d.key[0]
		}
	}
	return row, ok
}

// documentColumns reads a document into a column a field.
func (d *Decoder) documentColumns() (*record, bool) {
	if row := d.loose.guess(); row != nil && len(row.fields) > 0 {
		d.after = resize(d.after, len(row.fields))
		if d.record(row, d.after, &d.marks, maxDepth-1) && !d.unknown {
			return row, d.end()
		}
		if d.err != nil && structural(d.err.Reason) {
			return nil, false
		}
		d.undo(0)
	}
	if !d.skip(maxDepth) || !d.end() {
		return nil, false
	}
	row, ok := d.recordFor(0, extent{})
	if !ok {
		return nil, false
	}
	d.loose.last = row
	d.after = resize(d.after, len(row.fields))
	d.undo(0)
	return row, d.record(row, d.after, &d.marks, maxDepth-1)
}

// documentRecord is how documents are read as text.
func (d *Decoder) documentRecord() *record {
	if d.textRow == nil {
		text := &conv{}
		text.set(readText, changelog.String)
		d.textRow = &record{}
		d.textRow.add(idColumn, d.idRecord().fields[0].conv, false)
		d.textRow.add(documentColumn, text, false)
	}
	return d.textRow
}

// documentText reads a document as its _id and its text.
func (d *Decoder) documentText(out []changelog.Value) bool {
	if d.peek() != '{' {
		return d.skip(maxDepth) && d.fail(ReasonTypeMismatch, "the document is no object")
	}
	doc := d.b
	if !d.skip(maxDepth) || !d.end() {
		return false
	}
	out[0], out[1] = changelog.NullValue, changelog.Value{B: doc}
	for name, raw := range jsonMembers(doc) {
		if string(name) == idColumn {
			d.b, d.p = raw, 0
			return d.readID(&out[0], maxDepth)
		}
	}
	return true
}

// oldDocument reads the document of before, as after is read.
func (d *Decoder) oldDocument(row *record, out []changelog.Value) bool {
	b, p := d.b, d.p
	d.b, d.p = d.env.oldDoc, 0
	var ok bool
	if d.o.Documents == DocumentText {
		ok = d.documentText(out)
	} else {
		ok = d.record(row, out, &d.marks, maxDepth-1) && d.end()
	}
	d.b, d.p = b, p
	return ok
}
