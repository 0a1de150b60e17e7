package decode

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unsafe"

	"firn/changelog"
)

// reader says how a value is read.
type reader uint8

const (
	readBool reader = iota
	readInt
	readUnsigned // int64 that stands for uint64
	readFloat
	readDouble
	readWhole // a number that may have a fraction, of zero, to an integer
	readText
	readEnum
	readBytes
	readBits
	readUUID
	readDecimal     // bytes or number, to decimal
	readDecimalText // the same, to its canonical text
	readVariable    // {scale, value}, to its canonical text
	readDate
	readTime
	readDuration
	readTimestamp
	readTimestampNS // nanoseconds, kept
	readISODate
	readISOTime
	readISOTimestamp
	readZoned
	readStructured
	readList
	readMap     // object
	readPairs   // array of arrays of two
	readEntries // array of objects of key and value
	readStruct
	readSQL // text as MySQL shows it (sqltext.go)
	readRaw // any value, to its JSON text
	readID  // an _id, to a text
)

// conv is how the values of one column, or of a part of one, are read, and the type that they have then.
type conv struct {
	op      reader
	typ     *changelog.Type
	connect string // semantic name

	low, high int64 // of integers; high: bytes of bits
	unit      int64 // of times: how many make a second
	scale     int   // of decimals on the wire
	infinite  bool  // infinities are what PostgreSQL writes for them
	members   []string
	holes     [][]byte
	elem, key *conv
	rec       *record
}

func (v *conv) set(op reader, k changelog.Kind) { v.op, v.typ = op, changelog.Primitive(k) }

// referencePrefix begins text that stands for a value kept elsewhere (1.18).
const referencePrefix = "__debezium:s3:ref:v1:"

// value reads a value. It sets d.hole if that is the placeholder.
func (d *Decoder) value(c *conv, v *changelog.Value, depth int) bool {
	switch d.peek() {
	case 'n':
		*v = changelog.NullValue
		return d.literal("null")
	case 0:
		return d.syntax("a value") // from here on there is a byte at d.p
	case '{', '"':
		if d.from == connectorMongoDB && d.documents() && c.op.isScalar() && (d.b[d.p] == '{' || c.op != readText) {
			return d.extendedValue(c, v, depth)
		}
	}
	switch c.op {
	case readBool:
		return d.readBool(v)
	case readInt:
		i, ok := d.integer(c.low, c.high)
		*v = changelog.Value{I: i}
		return ok
	case readUnsigned:
		return d.readUnsigned(c, v)
	case readFloat, readDouble:
		return d.readFloat(c, v)
	case readWhole:
		return d.readWhole(c, v)
	case readDecimal, readDecimalText:
		return d.readDecimal(c, v)
	case readDate, readTime, readDuration, readTimestamp, readTimestampNS:
		return d.readTemporal(c, v)
	case readList:
		return d.readList(c, v, depth)
	case readMap, readPairs, readEntries:
		return d.readMap(c, v, depth)
	case readStruct:
		return d.readStruct(c, v, depth)
	case readSQL:
		return d.readSQL(c, v)
	case readVariable:
		return d.readVariable(c, v)
	case readStructured:
		return d.readStructured(c, v)
	case readRaw:
		return d.readRaw(v, depth)
	case readID:
		return d.readID(v, depth)
	case readText, readEnum, readBytes, readBits, readUUID, readISODate, readISOTime, readISOTimestamp, readZoned:
	}
	if d.b[d.p] != '"' {
		return d.mismatch("a string")
	}
	text, ok := d.text()
	if !ok {
		return false
	}
	return d.textOrHole(c, v, text)
}

// textOrHole converts the text of a string, which may be the placeholder.
func (d *Decoder) textOrHole(c *conv, v *changelog.Value, text []byte) bool {
	if c.holes != nil && anyEqual(text, c.holes) {
		d.hole = true
		*v = changelog.NullValue
		return true
	}
	return d.ofText(c, v, text)
}

// ofText converts the text of a string.
func (d *Decoder) ofText(c *conv, v *changelog.Value, text []byte) bool {
	switch c.op {
	case readEnum:
		text = canonicalMember(c.members, text)
	case readBytes:
		b, ok := d.base64(text)
		*v = changelog.Value{B: b}
		return ok && d.noReference(b)
	case readBits:
		b, ok := d.base64(text)
		return ok && d.bits(c, v, b)
	case readUUID:
		return d.uuid(v, text)
	case readISODate, readISOTime, readISOTimestamp, readZoned:
		return d.iso(c, v, text)
	default:
	}
	*v = changelog.Value{B: text}
	return d.noReference(text)
}

func (d *Decoder) bits(c *conv, v *changelog.Value, b []byte) bool {
	if int64(len(b)) > c.high {
		return d.fail(ReasonBitsLength, "%d bytes, the type has %d", len(b), c.high)
	}
	*v = changelog.Value{B: b}
	return true
}

func (d *Decoder) noReference(b []byte) bool {
	if len(b) > len(referencePrefix) && b[0] == '_' && string(b[:len(referencePrefix)]) == referencePrefix {
		return d.fail(ReasonValueReference, "the value is elsewhere: %s", quote(b))
	}
	return true
}

// mismatch fails because the value at hand, which must be sound JSON, is of another type than the column.
func (d *Decoder) mismatch(want string) bool {
	here := d.here()
	if !d.skip(maxDepth) {
		return false
	}
	return d.fail(ReasonTypeMismatch, "%s expected, found %s", want, here)
}

func (d *Decoder) readBool(v *changelog.Value) bool {
	switch d.b[d.p] {
	case 't':
		*v = changelog.Value{I: 1}
		return d.literal("true")
	case 'f':
		*v = changelog.Value{}
		return d.literal("false")
	}
	return d.mismatch("a boolean")
}

// maxIntDigits, maxDoubleDigits and maxDecimalDigits bound the text of numbers (1.5, R6).
const (
	maxIntDigits     = 20
	maxDoubleDigits  = 400
	maxDecimalDigits = 4 << 10
)

// integer reads an integer between low and high.
func (d *Decoder) integer(low, high int64) (int64, bool) {
	b, p := d.b, d.p
	negative := p < len(b) && b[p] == '-'
	if negative {
		p++
	}
	first := p
	var u uint64
	for p < len(b) && b[p]-'0' <= 9 && p-first < 18 {
		u = u*10 + uint64(b[p]-'0')
		p++
	}
	if p == first || b[first] == '0' && p > first+1 || p < len(b) && (b[p]-'0' <= 9 || b[p] == '.' || b[p]|0x20 == 'e') {
		return d.longInteger(low, high)
	}
	d.p = p
	i := int64(u) //nolint:gosec // at most 18 digits
	if negative {
		i = -i
	}
	if i < low || i > high {
		return 0, d.fail(ReasonIntRange, "%d is not in [%d, %d]", i, low, high)
	}
	return i, true
}

// longInteger is integer for what is long, no integer or no number.
func (d *Decoder) longInteger(low, high int64) (int64, bool) {
	if d.p >= len(d.b) {
		return 0, d.fail(ReasonJSONSyntax, "an integer expected at the end, byte %d", d.p)
	}
	if c := d.b[d.p]; c != '-' && c-'0' > 9 {
		return 0, d.mismatch("an integer")
	}
	text, integer, ok := d.number()
	switch {
	case !ok:
		return 0, false
	case !integer:
		return 0, d.fail(ReasonTypeMismatch, "an integer expected, found %s", quote(text))
	case len(text) > maxIntDigits:
		return 0, d.fail(ReasonIntRange, "a number of %d digits", len(text))
	}
	i, err := strconv.ParseInt(str(text), 10, 64)
	if err != nil || i < low || i > high {
		return 0, d.fail(ReasonIntRange, "%s is not in [%d, %d]", text, low, high)
	}
	return i, true
}

// str shows bytes as a string that does not outlive the call it is made for.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (d *Decoder) readUnsigned(c *conv, v *changelog.Value) bool {
	i, ok := d.integer(c.low, c.high)
	if !ok {
		return false
	}
	d.unsigned(v, i)
	return true
}

func (d *Decoder) unsigned(v *changelog.Value, i int64) {
	*v = changelog.Value{B: d.decimalOf(wide{lo: uint64(i)}, false)} //nolint:gosec // the source wrapped it
}

func (d *Decoder) readFloat(c *conv, v *changelog.Value) bool {
	bitSize := 64
	if c.op == readFloat {
		bitSize = 32
	}
	var f float64
	if d.b[d.p] == '"' {
		text, ok := d.text()
		if !ok {
			return false
		}
		switch string(text) {
		case "NaN":
			f = math.NaN()
		case "Infinity":
			f = math.Inf(1)
		case "-Infinity":
			f = math.Inf(-1)
		default:
			return d.fail(ReasonTypeMismatch, "a number expected, found the text %s", quote(text))
		}
	} else {
		if c := d.b[d.p]; c != '-' && c-'0' > 9 {
			return d.mismatch("a number")
		}
		text, _, ok := d.number()
		if !ok {
			return false
		}
		if len(text) > maxDoubleDigits {
			return d.fail(ReasonFloatRange, "a number of %d digits", len(text))
		}
		var err error
		if f, err = strconv.ParseFloat(str(text), bitSize); err != nil {
			return d.fail(ReasonFloatRange, "%s", quote(text))
		}
	}
	if bitSize == 32 {
		*v = changelog.FloatValue(float32(f))
	} else {
		*v = changelog.DoubleValue(f)
	}
	return true
}

// readWhole reads durations, which one page says are binary64 numbers (8.3).
func (d *Decoder) readWhole(c *conv, v *changelog.Value) bool {
	return d.readFloat(c, v) && d.whole(v, v.Double())
}

func (d *Decoder) whole(v *changelog.Value, f float64) bool {
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 { // NaN is neither
		return d.fail(ReasonTypeMismatch, "%v is no integer", f)
	}
	*v = changelog.Value{I: int64(f)}
	return true
}

// canonicalMember returns an enum's value as the column has it: what is no member, but one with an escape, loses that.
func canonicalMember(members []string, text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 || slices.Contains(members, string(text)) {
		return text
	}
	plain := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		plain = append(plain, text[i])
	}
	if slices.Contains(members, string(plain)) {
		return plain
	}
	return text
}

// base64 decodes standard base64: padded, no line breaks, no spare bits.
func (d *Decoder) base64(text []byte) ([]byte, bool) {
	start := len(d.arena)
	n := base64.StdEncoding.DecodedLen(len(text))
	d.arena = slices.Grow(d.arena, n)
	dst := d.arena[start : start+n]
	n, err := d.codec.Decode(dst, text)
	if err != nil || bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, d.fail(ReasonBase64, "no base64: %s", quote(text))
	}
	d.arena = d.arena[:start+n]
	return dst[:n:n], true
}

// uuid reads 32 hex digits, with or without dashes, in either case.
func (d *Decoder) uuid(v *changelog.Value, text []byte) bool {
	start := len(d.arena)
	var digits int
	var last byte
	for _, c := range text {
		var n byte
		switch {
		case c >= '0' && c <= '9':
			n = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			n = (c | 0x20) - 'a' + 10
		case c == '-':
			continue
		default:
			return d.fail(ReasonUUID, "%s", quote(text))
		}
		if digits%2 == 1 && digits < 32 {
			d.arena = append(d.arena, last<<4|n)
		}
		last = n
		digits++
	}
	dashed := len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-'
	if digits != 32 || len(text) != 32 && !dashed {
		return d.fail(ReasonUUID, "%s", quote(text))
	}
	*v = changelog.Value{B: d.arena[start:len(d.arena):len(d.arena)]}
	return true
}

// readList reads an array. Its elements are collected on the decoder's stack, for arrays nest.
func (d *Decoder) readList(c *conv, v *changelog.Value, depth int) bool {
	if d.b[d.p] != '[' {
		return d.mismatch("an array")
	}
	if depth == 0 {
		return d.fail(ReasonJSONDepth, "too many levels at byte %d", d.p)
	}
	d.p++
	base := len(d.stack)
	if d.peek() == ']' {
		d.p++
	} else {
		var e changelog.Value // out here it stays on the stack
		for more := true; more; more = d.more(']') {
			if !d.value(c.elem, &e, depth-1) {
				return false
			}
			d.stack = append(d.stack, e)
		}
		if d.err != nil {
			return false
		}
	}
	start := len(d.arena)
	d.arena = changelog.AppendList(d.arena, c.typ, d.stack[base:])
	d.stack = d.stack[:base]
	return d.body(c, v, start)
}

// arenaSlack and arenaFactor bound what the values of a record may take, however they nest or are written out, by what
// the record takes.
const (
	arenaSlack  = 1 << 20
	arenaFactor = 16
)

// room reports whether the arena may have n bytes more.
func (d *Decoder) room(n int) bool {
	if len(d.arena)+n > d.limit {
		return d.fail(ReasonMessageSize, "values of over %d bytes", d.limit)
	}
	return true
}

// body makes the arena from start on the value of a nested type.
func (d *Decoder) body(c *conv, v *changelog.Value, start int) bool {
	if !d.room(0) {
		return false
	}
	*v = changelog.Value{B: d.arena[start:len(d.arena):len(d.arena)]}
	if c.holes != nil && anyEqual(v.B, c.holes) {
		d.hole = true
	}
	return true
}

func (d *Decoder) readStruct(c *conv, v *changelog.Value, depth int) bool {
	if d.b[d.p] != '{' {
		return d.mismatch("an object")
	}
	base := len(d.stack)
	for range c.rec.fields {
		d.stack = append(d.stack, changelog.NullValue)
	}
	// The stack may move while members are read: they go to a slice that stays, and it is found again after.
	members := d.stack[base:len(d.stack):len(d.stack)]
	if !d.record(c.rec, members, nil, depth) {
		return false
	}
	start := len(d.arena)
	d.arena = changelog.AppendStruct(d.arena, c.typ, members)
	d.stack = d.stack[:base]
	return d.body(c, v, start)
}

func (d *Decoder) readMap(c *conv, v *changelog.Value, depth int) bool {
	open := byte('{')
	if c.op != readMap {
		open = '['
	}
	if d.b[d.p] != open {
		return d.mismatch("a map")
	}
	if depth < 2 {
		return d.fail(ReasonJSONDepth, "too many levels at byte %d", d.p)
	}
	base := len(d.stack)
	read := d.entries
	switch c.op {
	case readPairs:
		read = d.pairs
	case readEntries:
		read = d.keyValues
	default:
	}
	if !read(c, depth) {
		return false
	}
	// pairs and entries leave key, value, key, value, … on the stack
	n := (len(d.stack) - base) / 2
	for i := range n {
		d.stack = append(d.stack, d.stack[base+2*i])
	}
	for i := range n {
		d.stack = append(d.stack, d.stack[base+2*i+1])
	}
	start := len(d.arena)
	d.arena = changelog.AppendMap(d.arena, c.typ, d.stack[base+2*n:base+3*n], d.stack[base+3*n:])
	d.stack = d.stack[:base]
	return d.body(c, v, start)
}

func (d *Decoder) entries(c *conv, depth int) bool {
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	var k, e changelog.Value
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok {
			return false
		}
		if !d.ofText(c.key, &k, name) || !d.value(c.elem, &e, depth-1) {
			return false
		}
		d.stack = append(d.stack, k, e)
	}
	return d.err == nil
}

func (d *Decoder) pairs(c *conv, depth int) bool {
	base := len(d.stack)
	d.p++
	if d.peek() == ']' {
		d.p++
		return true
	}
	var k, e changelog.Value
	for more := true; more; more = d.more(']') {
		if !d.next('[') || !d.value(c.key, &k, depth-2) || !d.next(',') || !d.value(c.elem, &e, depth-2) || !d.next(']') {
			return false
		}
		if k.Null {
			return d.fail(ReasonTypeMismatch, "a map has a null key")
		}
		d.stack = append(d.stack, k, e)
	}
	return d.err == nil && d.lastPairs(base)
}

// keyValues reads a map that is an array of objects (1.9).
func (d *Decoder) keyValues(c *conv, depth int) bool {
	base := len(d.stack)
	d.p++
	if d.peek() == ']' {
		d.p++
		return true
	}
	var k, e changelog.Value
	for more := true; more; more = d.more(']') {
		if !d.keyValue(c, &k, &e, depth-2) {
			return false
		}
		if k.Null {
			return d.fail(ReasonTypeMismatch, "a map has a null key")
		}
		d.stack = append(d.stack, k, e)
	}
	return d.err == nil && d.lastPairs(base)
}

func (d *Decoder) keyValue(c *conv, k, e *changelog.Value, depth int) bool {
	*k, *e = changelog.NullValue, changelog.NullValue
	if d.peek() != '{' {
		return d.fail(ReasonTypeMismatch, "an entry of a map expected, found %s", d.here())
	}
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		switch {
		case !ok:
		case string(name) == "key":
			ok = d.value(c.key, k, depth)
		case string(name) == "value":
			ok = d.value(c.elem, e, depth)
		default:
			return d.fail(ReasonSchemaMismatch, "member %s of a map's entry", quote(name))
		}
		if !ok {
			return false
		}
	}
	return d.err == nil
}

// lastPairs drops pairs whose key comes again later: the last one counts (3.2).
func (d *Decoder) lastPairs(base int) bool {
	pairs := d.stack[base:]
	if len(pairs) < 4 {
		return true
	}
	last := make(map[string]int, len(pairs)/2)
	out := pairs[:0]
	for i := 0; i < len(pairs); i += 2 {
		k := string(pairs[i].B) + "/" + strconv.FormatInt(pairs[i].I, 10)
		if o, twice := last[k]; twice {
			out[o+1] = pairs[i+1]
			d.report(ReasonJSONDuplicateKey, "a map has a key twice: the last value counts")
			continue
		}
		last[k] = len(out)
		out = append(out, pairs[i], pairs[i+1])
	}
	d.stack = d.stack[:base+len(out)]
	return true
}

// report notes that the column at hand is applied reduced or as null.
func (d *Decoder) report(reason, detail string) {
	d.ev.Reports = append(d.ev.Reports, Report{Column: d.column, Reason: reason, Detail: detail})
}

// null makes v null with a report.
func (d *Decoder) null(v *changelog.Value, reason, detail string) bool {
	*v = changelog.NullValue
	d.report(reason, detail)
	return true
}
