package decode

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"firn/changelog"
)

// The wire types of Protobuf (https://protobuf.dev/programming-guides/encoding).
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// maxProtoDepth bounds how deep bodies nest, as Protobuf's own readers do.
const maxProtoDepth = 100

// protoSpan is one occurrence of a field: where its value stands, without its length. Those of one field are a list. Of a
// message's fields the spans come first, as heads of their lists: from is the first of it, to the last, next how many there are.
// Spans of its oneofs follow: from is the number of the field that is set, and one more.
type protoSpan struct {
	from, to int32
	next     int32 // negative: as positive, and the value is packed; 0: the last one
}

// protoFields reads what fields the message at hand has, up to the end of the body at hand. Their spans begin at base.
// Fields may come in any order, and often: reading them one by one afterwards takes no longer, and no memory but this.
func (d *Decoder) protoFields(m *protoMessage) (base int, ok bool) {
	base = len(d.spans)
	for range len(m.fields) + m.oneofs {
		d.spans = append(d.spans, protoSpan{})
	}
	guess := 0
	for d.p < len(d.b) {
		number, wire, ok := d.protoTag()
		if !ok {
			return base, false
		}
		packed := false
		i := m.find(number, guess)
		if i >= 0 {
			f := &m.fields[i]
			if packed = wire == wireBytes && f.wire != wireBytes && f.repeated; !packed && wire != f.wire {
				return base, d.fail(ReasonProtoDecode, "field %s has wire type %d, its type has %d", quote([]byte(f.name)), wire, f.wire)
			}
			guess = i
			if !f.repeated {
				guess++
			}
		}
		from, ok := d.protoSkip(wire)
		if !ok {
			return base, false
		}
		if i >= 0 {
			d.protoOccurs(m, base, i, protoSpan{from: int32(from), to: int32(d.p)}, packed) //nolint:gosec // bodies are below 2 GiB
		}
	}
	return base, true
}

// protoOccurs adds an occurrence to a field's list. Of the fields of a oneof the last one counts.
func (d *Decoder) protoOccurs(m *protoMessage, base, i int, s protoSpan, packed bool) {
	if of := m.fields[i].oneof; of >= 0 {
		set := &d.spans[base+len(m.fields)+of]
		if set.from != 0 && int(set.from) != i+1 {
			d.spans[base+int(set.from)-1] = protoSpan{}
		}
		set.from = int32(i + 1) //nolint:gosec // few
	}
	if packed {
		s.next = packedLast
	}
	k := int32(len(d.spans)) //nolint:gosec // as above
	d.growSpans()
	d.spans = append(d.spans, s)
	head := &d.spans[base+i]
	if head.next == 0 {
		head.from = k
	} else if last := &d.spans[head.to]; last.next < 0 {
		last.next = -k
	} else {
		last.next = k
	}
	head.to = k
	head.next++
}

// packedLast marks a packed occurrence that is the last one. No list goes on there: it is the span of a field.
const packedLast = math.MinInt32

// after returns the next occurrence; 0: there is none.
func (s protoSpan) after() int32 {
	if s.next == packedLast {
		return 0
	}
	return max(s.next, -s.next)
}

// growSpans makes room for another span, and for no more than the rest of the body can need.
func (d *Decoder) growSpans() {
	if n := len(d.spans); n == cap(d.spans) {
		more := min(max(64, n), (len(d.b)-d.p)/2+1)
		d.spans = append(make([]protoSpan, 0, n+more), d.spans...)
	}
}

// protoTag reads the number and wire type of a field.
func (d *Decoder) protoTag() (number, wire uint64, ok bool) {
	at := d.p
	tag, ok := d.uvarint()
	if !ok {
		return 0, 0, false
	}
	number, wire = tag>>3, tag&7
	if number == 0 || number > 1<<29-1 {
		return 0, 0, d.fail(ReasonProtoDecode, "field number %d at byte %d", number, at)
	}
	return number, wire, true
}

// protoSkip reads the value of a field and returns where it begins, after its length.
func (d *Decoder) protoSkip(wire uint64) (from int, ok bool) {
	from = d.p
	switch wire {
	case wireVarint:
		_, ok = d.uvarint()
	case wireFixed64:
		_, ok = d.protoOctets(8)
	case wireFixed32:
		_, ok = d.protoOctets(4)
	case wireBytes:
		n, sound := d.uvarint()
		if !sound {
			return 0, false
		}
		from = d.p
		_, ok = d.protoOctets(n)
	case 3, 4:
		return 0, d.fail(ReasonProtoDecode, "a group at byte %d", d.p)
	default:
		return 0, d.fail(ReasonProtoDecode, "wire type %d at byte %d", wire, d.p)
	}
	return from, ok
}

// uvarint reads a varint.
func (d *Decoder) uvarint() (uint64, bool) {
	if d.p < len(d.b) && d.b[d.p] < 0x80 {
		d.p++
		return uint64(d.b[d.p-1]), true
	}
	u, n := binary.Uvarint(d.b[d.p:])
	switch {
	case n == 0:
		return 0, d.fail(ReasonProtoDecode, "the body ends at byte %d, in a number", len(d.b))
	case n < 0:
		return 0, d.fail(ReasonProtoDecode, "the number at byte %d is longer than 64 bits", d.p)
	}
	d.p += n
	return u, true
}

func (d *Decoder) protoOctets(n uint64) ([]byte, bool) {
	if n > uint64(len(d.b)-d.p) {
		return nil, d.fail(ReasonProtoDecode, "%d bytes wanted at byte %d, %d are left", n, d.p, len(d.b)-d.p)
	}
	return d.octets(int(n)) //nolint:gosec // not above the length
}

// protoUTF8 takes the rest of the body at hand as text.
func (d *Decoder) protoUTF8() ([]byte, bool) {
	text := d.b[d.p:len(d.b):len(d.b)]
	d.p = len(d.b)
	return text, utf8.Valid(text) || d.fail(ReasonUTF8, "invalid UTF-8 in a string before byte %d", d.p)
}

// protoInteger reads a number, a boolean or an enum's number.
func (d *Decoder) protoInteger(kind protoreflect.Kind) (int64, bool) {
	switch kind {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		b, ok := d.protoOctets(4)
		if !ok {
			return 0, false
		}
		u := binary.LittleEndian.Uint32(b)
		if kind == protoreflect.Sfixed32Kind {
			return int64(int32(u)), true //nolint:gosec // a two's complement
		}
		return int64(u), true
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind:
		b, ok := d.protoOctets(8)
		if !ok {
			return 0, false
		}
		return int64(binary.LittleEndian.Uint64(b)), true //nolint:gosec // as above
	default:
	}
	u, ok := d.uvarint()
	switch kind {
	case protoreflect.BoolKind:
		return int64(min(u, 1)), ok //nolint:gosec // 0 or 1
	case protoreflect.Int32Kind, protoreflect.EnumKind:
		return int64(int32(u)), ok //nolint:gosec // the type has 32 bits, whatever the wire has
	case protoreflect.Uint32Kind:
		return int64(uint32(u)), ok //nolint:gosec // as above
	case protoreflect.Sint32Kind:
		return int64(int32(uint32(u)>>1) ^ -int32(u&1)), ok //nolint:gosec // as above
	case protoreflect.Sint64Kind:
		return int64(u>>1) ^ -int64(u&1), ok //nolint:gosec // a two's complement
	default:
		return int64(u), ok //nolint:gosec // as above
	}
}

func (f *protoField) float() avroKind {
	if f.kind == protoreflect.FloatKind {
		return avroFloat
	}
	return avroDouble
}

// symbol returns the name of an enum's number.
func (f *protoField) symbol(i int64) ([]byte, bool) {
	for _, s := range f.symbols {
		if int64(s.number) == i {
			return s.name, true
		}
	}
	return nil, false
}

// protoRow reads the message at hand into out, as record does for JSON.
func (d *Decoder) protoRow(m *protoMessage, r *record, out []changelog.Value, marks *[]int, depth int) bool {
	base, ok := d.protoFields(m)
	if !ok {
		return false
	}
	for i := range r.fields {
		f := &r.fields[i]
		if marks != nil {
			d.column = f.name
		}
		d.hole = false
		if !d.protoField(&m.fields[i], d.spans[base+i], f.conv, &out[i], depth-1) {
			return d.at(f.name)
		}
		if d.hole && !d.mark(f, i, out, marks) {
			return false
		}
	}
	d.spans = d.spans[:base]
	return true
}

// protoField reads the value of a field, whose list of occurrences head begins.
func (d *Decoder) protoField(f *protoField, head protoSpan, c *conv, v *changelog.Value, depth int) bool {
	switch {
	case f.entry:
		return d.protoEntries(f, head, c, v, depth)
	case f.repeated:
		return d.protoList(f, head, c, v, depth)
	case head.next == 0:
		return d.protoAbsent(f, c, v)
	case f.message == nil || head.next == 1:
		return d.protoValue(f, d.spans[head.to], c, v, depth)
	}
	// A message that is there several times is one with the fields of all.
	start := len(d.arena)
	for k := head.from; k != 0; k = d.spans[k].after() {
		at := d.spans[k]
		if !d.room(int(at.to - at.from)) {
			return false
		}
		d.arena = append(d.arena, d.b[at.from:at.to]...)
	}
	b, p := d.b, d.p
	d.b = d.arena[start:len(d.arena):len(d.arena)]
	ok := d.protoValue(f, protoSpan{to: int32(len(d.b))}, c, v, depth) //nolint:gosec // no longer than the body
	d.b, d.p = b, p
	return ok
}

// protoAbsent makes v what a field that is not there says: null, or the zero of its type. A text that no value of the column has is null.
func (d *Decoder) protoAbsent(f *protoField, c *conv, v *changelog.Value) bool {
	*v = changelog.NullValue
	switch {
	case f.required:
		return d.fail(ReasonRequiredMissing, "field %s", quote([]byte(f.name)))
	case f.presence:
		return true
	}
	switch f.kind {
	case protoreflect.StringKind:
		if c.op == readText || c.op == readEnum {
			*v = changelog.Value{B: []byte{}}
		}
		return true
	case protoreflect.BytesKind:
		if c.op == readBytes || c.op == readBits {
			*v = changelog.Value{B: []byte{}}
		}
		return true
	case protoreflect.EnumKind:
		text, ok := f.symbol(0)
		return !ok || d.textOrHole(c, v, text)
	case protoreflect.FloatKind:
		*v = changelog.FloatValue(0)
		return true
	case protoreflect.DoubleKind:
		return d.protoFloating(f, c, v, 0)
	case protoreflect.BoolKind:
		*v = changelog.Value{}
		return true
	default:
		return d.avroInteger(c, v, 0)
	}
}

// protoValue reads one value.
func (d *Decoder) protoValue(f *protoField, at protoSpan, c *conv, v *changelog.Value, depth int) bool {
	b, p := d.b, d.p
	d.b, d.p = b[:at.to:at.to], int(at.from)
	var ok bool
	switch f.kind {
	case protoreflect.StringKind:
		var text []byte
		if text, ok = d.protoUTF8(); ok {
			ok = d.textOrHole(c, v, text)
		}
	case protoreflect.BytesKind:
		ok = d.avroBinary(c, v, d.b[d.p:len(d.b):len(d.b)])
	case protoreflect.MessageKind:
		ok = d.protoNested(f.message, c, v, depth)
	default:
		ok = d.protoPrimitive(f, c, v)
	}
	d.b, d.p = b, p
	return ok
}

// protoPrimitive reads a value that has no length.
func (d *Decoder) protoPrimitive(f *protoField, c *conv, v *changelog.Value) bool {
	switch f.kind {
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		x, ok := d.avroFloat(f.float())
		return ok && d.protoFloating(f, c, v, x)
	default:
	}
	i, ok := d.protoInteger(f.kind)
	switch {
	case !ok:
		return false
	case f.kind == protoreflect.BoolKind:
		*v = changelog.Value{I: i}
		return true
	case f.kind == protoreflect.EnumKind:
		text, ok := f.symbol(i)
		return (ok || d.fail(ReasonProtoDecode, "number %d of an enum", i)) && d.textOrHole(c, v, text)
	}
	return d.avroInteger(c, v, i)
}

func (d *Decoder) protoFloating(f *protoField, c *conv, v *changelog.Value, x float64) bool {
	switch {
	case c.op == readWhole:
		return d.whole(v, x)
	case f.kind == protoreflect.FloatKind:
		*v = changelog.FloatValue(float32(x))
	default:
		*v = changelog.DoubleValue(x)
	}
	return true
}

// protoNested reads the message at hand.
func (d *Decoder) protoNested(m *protoMessage, c *conv, v *changelog.Value, depth int) bool {
	if depth <= 0 {
		return d.fail(ReasonProtoDecode, "more than %d levels at byte %d", maxProtoDepth, d.p)
	}
	base, ok := d.protoFields(m)
	if !ok {
		return false
	}
	switch {
	case m.well == wellWrapper:
		ok = d.protoField(&m.fields[0], d.spans[base], c, v, depth-1)
	case m.well == wellDecimal, c.op == readVariable:
		ok = d.protoDecimal(m, base, c, v)
	case m.well != wellNone:
		ok = d.protoTime(m, base, c, v)
	case c.op == readStructured:
		ok = d.protoStructured(m, base, c, v)
	default:
		ok = d.protoStruct(m, base, c, v, depth)
	}
	d.spans = d.spans[:min(base, len(d.spans))]
	return ok
}

func (d *Decoder) protoStruct(m *protoMessage, base int, c *conv, v *changelog.Value, depth int) bool {
	at := len(d.stack)
	for range c.rec.fields {
		d.stack = append(d.stack, changelog.NullValue)
	}
	members := d.stack[at:len(d.stack):len(d.stack)] // stays where it is, though the stack may move
	for i := range c.rec.fields {
		d.hole = false
		if !d.protoField(&m.fields[i], d.spans[base+i], c.rec.fields[i].conv, &members[i], depth-1) {
			return d.at(c.rec.fields[i].name)
		}
	}
	start := len(d.arena)
	d.arena = changelog.AppendStruct(d.arena, c.typ, members)
	d.stack = d.stack[:at]
	return d.body(c, v, start)
}

// protoPart reads a field of a message that stands for one value; of one that is not there it returns zero, or nothing.
func (d *Decoder) protoPart(m *protoMessage, base, i int) (n int64, b []byte, ok bool) {
	head := d.spans[base+i]
	f := &m.fields[i]
	if head.next == 0 {
		return 0, nil, true
	}
	at := d.spans[head.to]
	if f.wire == wireBytes {
		return 0, d.b[at.from:at.to:at.to], f.message == nil || d.fail(ReasonProtoDecode, "field %s of %s is a message", quote([]byte(f.name)), quote([]byte(m.name)))
	}
	p := d.p
	d.p = int(at.from)
	n, ok = d.protoInteger(f.kind)
	d.p = p
	return n, nil, ok
}

// protoDecimal reads a confluent.type.Decimal, or Debezium's decimal with a scale of its own.
func (d *Decoder) protoDecimal(m *protoMessage, base int, c *conv, v *changelog.Value) bool {
	var scale int64
	var unscaled []byte
	for i := range m.fields {
		n, b, ok := d.protoPart(m, base, i)
		switch {
		case !ok:
			return false
		case m.fields[i].name == "scale":
			scale = n
		case m.fields[i].name == "value":
			unscaled = b
		}
	}
	if c.op == readVariable {
		return d.variable(v, scale, unscaled)
	}
	if scale != int64(c.scale) {
		return d.fail(ReasonSchemaMismatch, "a decimal of scale %d, the schema says %d", scale, c.scale)
	}
	return d.decimalBytes(c, v, unscaled)
}

// protoTime reads a google.type.Date or TimeOfDay or a google.protobuf.Timestamp.
func (d *Decoder) protoTime(m *protoMessage, base int, c *conv, v *changelog.Value) bool {
	var parts [4]int64
	for i := range min(len(parts), len(m.fields)) {
		var ok bool
		if parts[i], _, ok = d.protoPart(m, base, i); !ok {
			return false
		}
	}
	switch m.well {
	case wellDate:
		return d.moment(c, v, &moment{year: parts[0], month: parts[1], day: parts[2]})
	case wellTimeOfDay:
		if parts[0] < 0 || parts[0] > 24 || parts[1] < 0 || parts[1] > 59 || parts[2] < 0 || parts[2] > 59 {
			return d.fail(ReasonTemporalFormat, "%d:%d:%d is no time", parts[0], parts[1], parts[2])
		}
		*v = changelog.Value{I: (parts[0]*3600 + parts[1]*60 + parts[2]) * 1_000_000}
		parts[0], parts[1] = 0, parts[3]
	default:
		if parts[0] > math.MaxInt64/1_000_000-1 || parts[0] < math.MinInt64/1_000_000+1 {
			return d.null(v, ReasonTemporalRange, "a time outside the range of microseconds")
		}
		*v = changelog.Value{I: parts[0] * 1_000_000}
	}
	if parts[1] < 0 || parts[1] > 999_999_999 {
		return d.fail(ReasonTemporalFormat, "%d nanoseconds", parts[1])
	}
	v.I += parts[1] / 1000
	if parts[1]%1000 != 0 {
		d.report(ReasonSubMicro, "nanoseconds were cut")
	}
	if m.well == wellTimeOfDay && c.op == readTime {
		return d.timeOfDay(v, v.I)
	}
	return true
}

// protoStructured reads a time that is written as its components (3.4).
func (d *Decoder) protoStructured(m *protoMessage, base int, c *conv, v *changelog.Value) bool {
	var t moment
	var special []byte
	for i := range m.fields {
		f := m.fields[i].bare()
		head := d.spans[base+i]
		if head.next == 0 {
			continue
		}
		part := t.part(m.fields[i].name)
		if part == nil && m.fields[i].name != specialMember || !m.fields[i].scalar() {
			continue
		}
		if f != &m.fields[i] { // a wrapper
			raw, ok := d.protoJSON(&m.fields[i], d.spans[head.to])
			if !ok {
				return false
			}
			if part != nil {
				*part, _ = number64(raw)
			} else {
				special = d.plain(raw)
			}
			continue
		}
		n, b, ok := d.protoPart(m, base, i)
		if !ok {
			return false
		}
		if part != nil {
			*part = n
		} else {
			special = b
		}
	}
	return d.structured(c, v, &t, special)
}

// protoList reads a repeated field. Its elements are collected on the decoder's stack, for lists nest.
func (d *Decoder) protoList(f *protoField, head protoSpan, c *conv, v *changelog.Value, depth int) bool {
	at := len(d.stack)
	count, ok := d.protoCount(f, head)
	if !ok {
		return false
	}
	d.stack = d.reserve(d.stack, count+protoParts)
	var e changelog.Value
	for k := head.from; k != 0; k = d.spans[k].after() {
		s := d.spans[k]
		if s.next >= 0 {
			if !d.protoValue(f, s, c.elem, &e, depth-1) {
				return false
			}
			d.stack = append(d.stack, e)
			continue
		}
		b, p := d.b, d.p
		for d.b, d.p = b[:s.to:s.to], int(s.from); d.p < len(d.b); {
			if !d.protoPrimitive(f, c.elem, &e) {
				return false
			}
			d.stack = append(d.stack, e)
		}
		d.b, d.p = b, p
	}
	start := len(d.arena)
	d.arena = changelog.AppendList(d.arena, c.typ, d.stack[at:])
	d.stack = d.stack[:at]
	d.hole = false
	return d.body(c, v, start)
}

// protoParts is room on the stack for the parts of the element at hand.
const protoParts = maxMembers + 12

// protoCount returns how many elements a repeated field has.
func (d *Decoder) protoCount(f *protoField, head protoSpan) (count int, ok bool) {
	for k := head.from; k != 0; k = d.spans[k].after() {
		s := d.spans[k]
		size := int(s.to - s.from)
		switch {
		case s.next >= 0:
			count++
		case f.wire == wireVarint:
			for _, b := range d.b[s.from:s.to] {
				if b < 0x80 {
					count++
				}
			}
		case f.wire == wireFixed32 && size%4 == 0:
			count += size / 4
		case f.wire == wireFixed64 && size%8 == 0:
			count += size / 8
		default:
			return 0, d.fail(ReasonProtoDecode, "%d bytes of packed values in field %s", size, quote([]byte(f.name)))
		}
	}
	return count, true
}

// protoEntries reads a map. Keys and values are collected on a stack each.
func (d *Decoder) protoEntries(f *protoField, head protoSpan, c *conv, v *changelog.Value, depth int) bool {
	if depth <= 0 {
		return d.fail(ReasonProtoDecode, "more than %d levels at byte %d", maxProtoDepth, d.p)
	}
	keys, values := len(d.stack), len(d.others)
	d.stack, d.others = d.reserve(d.stack, int(head.next)+protoParts), d.reserve(d.others, int(head.next))
	var k, e changelog.Value
	for i := head.from; i != 0; i = d.spans[i].after() {
		s := d.spans[i]
		b, p := d.b, d.p
		d.b, d.p = b[:s.to:s.to], int(s.from)
		base, ok := d.protoFields(f.message)
		if !ok || !d.protoField(&f.message.fields[0], d.spans[base], c.key, &k, depth-1) || !d.protoField(&f.message.fields[1], d.spans[base+1], c.elem, &e, depth-1) {
			return false
		}
		if k.Null {
			return d.fail(ReasonTypeMismatch, "a map has a null key")
		}
		d.spans = d.spans[:base]
		d.b, d.p = b, p
		d.stack, d.others = append(d.stack, k), append(d.others, e)
	}
	d.lastEntries(keys, values)
	start := len(d.arena)
	d.arena = changelog.AppendMap(d.arena, c.typ, d.stack[keys:], d.others[values:])
	d.stack, d.others = d.stack[:keys], d.others[:values]
	d.hole = false
	return d.body(c, v, start)
}
