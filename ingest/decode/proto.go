package decode

import (
	"encoding/binary"
	"slices"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	"firn/changelog"
)

// protoPlan is how the values or keys of one message type are read.
type protoPlan struct {
	root    *protoMessage
	row     *protoMessage // a row, or the key
	before  bool          // before is written as row is
	members []int         // of an envelope: what each field of root is
	source  []int         // of its source block, the same
}

// protoAs returns a registered schema as that of one of its message types, which path names.
func (p *parsed) protoAs(path protoPath) *parsed {
	for _, of := range p.types {
		if of.path == string(path.key) {
			return of
		}
	}
	of := &parsed{path: string(path.key)}
	var d protoreflect.MessageDescriptor
	if path.named {
		d = protoNamed(p.file.Messages(), string(path.key))
	} else {
		d = protoAt(p.file, path.indexes)
	}
	if d == nil {
		of.rej = reject(ReasonProtoIndex, "the schema has no message %s", path)
	} else {
		of.proto = protoTypes{}.message(d)
	}
	const most = 16
	if len(p.types) == most {
		p.types = slices.Delete(p.types, 0, 1)
	}
	p.types = append(p.types, of)
	return of
}

// compileProto compiles the schema of values.
func (d *Decoder) compileProto(root *protoMessage, from connector) *writerSchema {
	w := &writerSchema{from: from, proto: &protoPlan{root: root}}
	if d.o.Topic != TopicTable {
		if w.kind = kindOfSchema("." + root.name); w.kind != Change {
			return w
		}
	}
	row := root.field("after")
	if row == nil {
		row = root.field("before")
	}
	source := root.field("source")
	if row == nil || source == nil {
		w.rej = reject(ReasonEnvelopeShape, "message %s is no envelope", quote([]byte(root.name)))
		return w
	}
	if !w.proto.envelope(row, source) {
		w.rej = reject(ReasonEnvelopeShape, "before, after, source, transaction or op of %s is of an odd type", quote([]byte(root.name)))
		return w
	}
	if from == connectorOther {
		w.from = connectorOfSource(source.message.name)
	}
	w.row, w.rej = d.compileProtoRow(row.message, w.from)
	return w
}

func (d *Decoder) compileProtoRow(m *protoMessage, from connector) (*record, *Rejected) {
	s, rej := connectOfProto(m)
	if rej != nil {
		return nil, rej
	}
	if s.bad != nil {
		return nil, s.bad
	}
	return d.compiler(from).record(s)
}

func (d *Decoder) compileProtoKey(root *protoMessage) *writerSchema {
	w := &writerSchema{proto: &protoPlan{root: root, row: root}}
	if root.well != wellNone || len(root.fields) == 0 {
		w.rej = reject(ReasonKeyDecode, "the key's schema is %s, no message of key columns", quote([]byte(root.name)))
		return w
	}
	if w.row, w.rej = d.compileProtoRow(root, d.from); w.rej == nil {
		w.requireAll()
	}
	return w
}

// envelope lists the members of an envelope; false: one is of a type that it cannot be.
func (p *protoPlan) envelope(row, source *protoField) bool {
	if !row.block() || !source.block() {
		return false
	}
	p.row = row.message
	for i := range p.root.fields {
		f := &p.root.fields[i]
		m := envelopeMember([]byte(f.name))
		switch m {
		case memberBefore, memberAfter, memberTransaction:
			if !f.block() {
				return false
			}
			if m == memberBefore {
				p.before = f.message == p.row
			}
		case memberOp:
			if !f.text() {
				return false
			}
		}
		p.members = append(p.members, m)
	}
	for i := range source.message.fields {
		f := &source.message.fields[i]
		m := sourceMember([]byte(f.name))
		if !f.scalar() {
			m = srcMembers
		}
		p.source = append(p.source, m)
	}
	return true
}

// block reports whether a field is one message with fields.
func (f *protoField) block() bool {
	return f.kind == protoreflect.MessageKind && !f.repeated && f.message.well == wellNone
}

// bare returns what a field's value is: that of a wrapper.
func (f *protoField) bare() *protoField {
	if f.message != nil && f.message.well == wellWrapper {
		return &f.message.fields[0]
	}
	return f
}

// scalar reports whether a field is one value that JSON has, too.
func (f *protoField) scalar() bool {
	of := f.bare()
	return !f.repeated && of.message == nil && of.kind != protoreflect.BytesKind
}

func (f *protoField) text() bool {
	of := f.bare()
	return f.scalar() && (of.kind == protoreflect.StringKind || of.kind == protoreflect.EnumKind)
}

// protoPayload reads a value's body.
func (d *Decoder) protoPayload(s *writerSchema) bool {
	base, ok := d.protoFields(s.proto.root)
	if !ok {
		return false
	}
	if s.rej != nil { // a body that is no message is wrong first
		rej := *s.rej
		d.err = &rej
		return false
	}
	if s.kind != Change {
		d.ev.Kind = s.kind
		return true
	}
	d.from = s.from
	d.env.schema, d.env.row = s, s.row
	for i, m := range s.proto.members {
		head := d.spans[base+i]
		if head.next == 0 {
			continue
		}
		f := &s.proto.root.fields[i]
		if f.message != nil && m != memberOther && head.next > 1 {
			return d.fail(ReasonProtoDecode, "field %s of the envelope is there %d times", quote([]byte(f.name)), head.next)
		}
		if !d.protoMember(s.proto, m, f, d.spans[head.to]) {
			return false
		}
	}
	d.env.images = true // they are in the schema
	d.p = len(d.b)
	return d.classify()
}

// protoMember reads a member of an envelope.
func (d *Decoder) protoMember(p *protoPlan, m int, f *protoField, at protoSpan) bool {
	e := &d.env
	switch m {
	case memberOp:
		text, ok := d.protoText(f, at)
		if e.op, e.opText = 1, text; len(text) == 1 {
			e.op = text[0]
		}
		return ok
	case memberSource:
		e.sourceGiven = true
		return d.protoSource(p.source, f.message, at)
	case memberTransaction:
		return d.protoTransaction(f.message, at)
	case memberBefore: // what is wrong with it matters to who reads it
		if p.before {
			e.before = at.extent()
		}
		return true
	case memberAfter:
	default:
		return true
	}
	// What is wrong in a column is kept for later.
	e.after = at.extent()
	d.after = resize(d.after, len(e.row.fields))
	p0, spans := d.p, len(d.spans)
	if !d.readRow(e.after.from, e.row, d.after) {
		if structural(d.err.Reason) {
			return false
		}
		e.valueErr = d.err
		d.undo(p0)
	}
	d.spans = d.spans[:spans]
	return true
}

// extent is where a message stands. It begins with the last byte of its length: one that has no field has an extent, too.
func (s protoSpan) extent() extent { return extent{int(s.from) - 1, int(s.to)} }

// protoRowAt reads the row whose extent begins at p.
func (d *Decoder) protoRowAt(p int, m *protoMessage, r *record, out []changelog.Value) bool {
	to := d.env.after.to
	if p != d.env.after.from || !d.env.after.given() {
		to = d.env.before.to
	}
	whole := d.b
	d.b, d.p = whole[:to:to], p+1
	ok := d.protoRow(m, r, out, &d.marks, maxProtoDepth)
	d.b = whole
	return ok
}

// protoInside has f read a message, or a part of one, and goes back to where the decoder was.
func (d *Decoder) protoInside(at protoSpan, f func() bool) bool {
	b, p := d.b, d.p
	d.b, d.p = b[:at.to:at.to], int(at.from)
	ok := f()
	d.b, d.p = b, p
	return ok
}

// protoText reads a text or an enum's symbol.
func (d *Decoder) protoText(f *protoField, at protoSpan) (text []byte, ok bool) {
	raw, ok := d.protoJSON(f, at)
	return d.plain(raw), ok
}

// protoSource reads a source block. Its members are kept as JSON has them. A number that is not there is zero where the type
// has no presence, as the row of an event in a transaction is; a text that is not there says nothing.
func (d *Decoder) protoSource(members []int, m *protoMessage, at protoSpan) bool {
	return d.protoInside(at, func() bool {
		base, ok := d.protoFields(m)
		for i := 0; ok && i < len(members); i++ {
			if members[i] == srcMembers {
				continue
			}
			f, head := &m.fields[i], d.spans[base+i]
			switch {
			case head.next > 0:
				d.env.source[members[i]], ok = d.protoJSON(f, d.spans[head.to])
			case f.presence || f.kind == protoreflect.StringKind:
			case f.kind == protoreflect.BoolKind:
				d.env.source[members[i]] = jsonFalse
			case f.kind != protoreflect.EnumKind:
				d.env.source[members[i]] = jsonZero
			}
		}
		d.spans = d.spans[:min(base, len(d.spans))]
		return ok
	})
}

var (
	jsonFalse = []byte("false")
	jsonZero  = []byte("0")
)

func (d *Decoder) protoTransaction(m *protoMessage, at protoSpan) bool {
	return d.protoInside(at, func() bool {
		base, ok := d.protoFields(m)
		for i := 0; ok && i < len(m.fields); i++ {
			f, head := &m.fields[i], d.spans[base+i]
			if head.next == 0 || !f.scalar() {
				continue
			}
			switch f.name {
			case "id":
				d.env.txID, ok = d.protoJSON(f, d.spans[head.to])
			case "total_order":
				d.env.txOrder, ok = d.protoJSON(f, d.spans[head.to])
			}
		}
		d.spans = d.spans[:min(base, len(d.spans))]
		return ok
	})
}

// protoJSON reads a scalar and returns it as JSON has it.
func (d *Decoder) protoJSON(f *protoField, at protoSpan) (raw []byte, ok bool) {
	if f.message != nil { // a wrapper
		ok = d.protoInside(at, func() bool {
			base, ok := d.protoFields(f.message)
			if !ok {
				return false
			}
			inner, head := &f.message.fields[0], d.spans[base]
			switch {
			case head.next > 0:
				raw, ok = d.protoJSON(inner, d.spans[head.to])
			case inner.kind == protoreflect.StringKind:
				raw = []byte(`""`)
			case inner.kind == protoreflect.BoolKind:
				raw = jsonFalse
			default:
				raw = jsonZero
			}
			d.spans = d.spans[:base]
			return ok
		})
		return raw, ok
	}
	start := len(d.arena)
	ok = d.protoInside(at, func() bool { return d.appendProtoJSON(f) })
	return d.arena[start:len(d.arena):len(d.arena)], ok && d.room(0)
}

func (d *Decoder) appendProtoJSON(f *protoField) bool {
	switch f.kind {
	case protoreflect.StringKind:
		text, ok := d.protoUTF8()
		d.arena = appendJSONText(d.arena, text)
		return ok
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		x, ok := d.avroFloat(f.float())
		d.arena = strconv.AppendFloat(d.arena, x, 'g', -1, 64)
		return ok
	default:
	}
	i, ok := d.protoInteger(f.kind)
	switch f.kind {
	case protoreflect.BoolKind:
		d.arena = strconv.AppendBool(d.arena, i != 0)
	case protoreflect.EnumKind:
		text, found := f.symbol(i)
		if !found {
			return ok && d.fail(ReasonProtoDecode, "number %d of an enum", i)
		}
		d.arena = appendJSONText(d.arena, text)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		d.arena = strconv.AppendUint(d.arena, uint64(i), 10) //nolint:gosec // as it stood on the wire
	default:
		d.arena = strconv.AppendInt(d.arena, i, 10)
	}
	return ok
}

// protoKey reads a key's body into d.key.
func (d *Decoder) protoKey(s *writerSchema) bool {
	return d.protoRow(s.proto.row, s.row, d.key, nil, maxProtoDepth) && d.noNulls(s.row, d.key)
}

// protoPath names a message type of a schema.
type protoPath struct {
	key     []byte // the name, or the indexes as they stand
	named   bool
	indexes []int
}

// String returns the path as messages show it.
func (p protoPath) String() string {
	if p.named {
		return quote(p.key)
	}
	var b []byte
	for i, n := range p.indexes {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return "at " + string(b)
}

// protoIndexes reads Confluent's list of indexes (1.6), and returns how many bytes it is.
func (d *Decoder) protoIndexes(b []byte) (path protoPath, n int, ok bool) {
	next := func() int64 {
		i, size := binary.Varint(b[n:])
		if size <= 0 {
			ok = d.fail(ReasonFrameShort, "%d bytes, in the list of message indexes", len(b))
			return -1
		}
		n += size
		return i
	}
	ok = true
	count := next()
	if ok && (count < 0 || count > int64(len(b)-n) || count > maxSchemaDepth) {
		ok = d.fail(ReasonProtoIndex, "%d message indexes, %d bytes are left", count, len(b)-n)
	}
	d.indexes = d.indexes[:0]
	for i := int64(0); ok && i < count; i++ {
		index := next()
		if ok && (index < 0 || index > maxSchemaBytes) {
			ok = d.fail(ReasonProtoIndex, "message index %d", index)
		}
		d.indexes = append(d.indexes, int(index))
	}
	if !ok {
		return protoPath{}, 0, false
	}
	if count == 0 {
		d.indexes = append(d.indexes, 0)
	}
	return protoPath{key: b[:n], indexes: d.indexes}, n, true
}

// protoType takes what names the message type off a body: Confluent's indexes, which may be in the header instead, or Apicurio's
// header or reference (1.7).
func (d *Decoder) protoType(r *Record, body []byte, key bool) (path protoPath, rest []byte, ok bool) {
	whole := r.Value
	if key {
		whole = r.Key
	}
	framed := cap(whole) > cap(body) // body is a part of whole
	if !d.o.format(key).apicurio() {
		return d.confluentType(r.Headers, body, framed, key)
	}
	header := "apicurio.protobuf.type"
	if key {
		header += ".key"
	}
	if name := lastHeader(r.Headers, header); name != nil {
		return protoPath{key: name, named: true}, body, true
	}
	switch {
	case !framed, d.o.ProtobufRef == ProtobufRefNone:
		return protoPath{key: firstMessage, indexes: firstIndexes}, body, true
	case d.o.ProtobufRef == ProtobufRefIndexes:
		path, n, ok := d.protoIndexes(body)
		return path, body[n:], ok
	}
	n, size := binary.Uvarint(body)
	if size <= 0 || n > uint64(len(body)-size) {
		return path, nil, d.fail(ReasonFrameShort, "%d bytes, in the name of the message type", len(body))
	}
	ref := body[size : size+int(n)] //nolint:gosec // not above the length
	path = protoPath{named: true}
	eachField(ref, 1, func(name []byte) { path.key = name })
	if path.key == nil {
		return path, nil, d.fail(ReasonProtoIndex, "no reference to a message type before the body: set registry.apicurio.protobuf_ref")
	}
	return path, body[size+int(n):], true //nolint:gosec // as above
}

var (
	firstMessage = []byte{0}
	firstIndexes = []int{0}
)

func (d *Decoder) confluentType(headers []changelog.Header, body []byte, framed, key bool) (path protoPath, rest []byte, ok bool) {
	if framed {
		path, n, ok := d.protoIndexes(body)
		return path, body[n:], ok
	}
	name := schemaHeader(key)
	h := lastHeader(headers, name)
	_, from, _ := d.confluentFrame(h) // has been read before
	path, n, ok := d.protoIndexes(h[from:])
	if ok && from+n < len(h) {
		return path, nil, d.fail(ReasonFrameShort, "header %s is %d bytes, %d of them a schema id and message indexes", name, len(h), from+n)
	}
	return path, body, ok
}
