package decode

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strconv"

	"firn/changelog"
)

// avroPlan is how the values or keys of one registered schema are read.
type avroPlan struct {
	root   *avroNode
	row    *avroNode    // a row, or the key; maybe a union with null
	before bool         // before is written as row is
	steps  []avroMember // of an envelope, in its order
	source []avroMember // of its source block
}

// avroMember is a field of an envelope or a source block.
type avroMember struct {
	member int // memberOther, srcMembers: passed over
	node   *avroNode
}

// compileAvro compiles the schema of values.
func (d *Decoder) compileAvro(root *avroNode, from connector) *writerSchema {
	w := &writerSchema{from: from, avro: &avroPlan{root: root}}
	name := root.attrs.connectName
	if name == "" {
		name = root.name
	}
	if d.o.Topic != TopicTable {
		if w.kind = kindOfSchema(name); w.kind != Change {
			return w
		}
	}
	row := root.field("after")
	if row == nil {
		row = root.field("before")
	}
	source := root.field("source")
	if root.kind != avroRecord || row == nil || source == nil && !d.o.Format.isCloud() {
		w.rej = reject(ReasonEnvelopeShape, "schema %s is no envelope's", quote([]byte(name)))
		return w
	}
	if !w.avro.envelope(root, row, source) {
		w.rej = reject(ReasonEnvelopeShape, "before, after, source, transaction or op of %s is of an odd type", quote([]byte(name)))
		return w
	}
	if source != nil && from == connectorOther {
		block, _, _ := source.nullable()
		if w.from = connectorOfSource(block.attrs.connectName); w.from == connectorOther {
			w.from = connectorOfSource(block.name)
		}
	}
	if rows, _, _ := row.nullable(); rows.kind == avroString { // MongoDB's documents, if they are not another's text
		if w.from == connectorOther && (source == nil || root.field("updateDescription") != nil) {
			w.from = connectorMongoDB
		}
		if w.from != connectorMongoDB {
			w.rej = reject(ReasonEnvelopeShape, "rows of %s are text", quote([]byte(name)))
		}
		return w
	}
	w.row, w.rej = d.compileRow(row, w.from)
	return w
}

// compileRow compiles how rows and keys are read.
func (d *Decoder) compileRow(n *avroNode, from connector) (*record, *Rejected) {
	s, rej := connectOf(n)
	if rej != nil {
		return nil, rej
	}
	return d.compiler(from).record(s)
}

// envelope lists the members of an envelope; false: one is of a type that it cannot be.
func (p *avroPlan) envelope(root, row, source *avroNode) bool {
	p.row = row
	rows, _, _ := row.nullable()
	for _, f := range root.fields {
		m := avroMember{envelopeMember([]byte(f.name)), f.node}
		value, _, plain := f.node.nullable()
		switch m.member {
		case memberBefore, memberAfter:
			if !plain || value.kind != avroRecord && value.kind != avroString {
				return false
			}
			if m.member == memberBefore {
				p.before = value == rows
			}
		case memberSource, memberTransaction:
			if !plain || value.kind != avroRecord {
				return false
			}
		case memberOp:
			if !plain || value.kind != avroString && value.kind != avroEnum {
				return false
			}
		}
		p.steps = append(p.steps, m)
	}
	if source == nil {
		return true
	}
	block, _, _ := source.nullable()
	for _, f := range block.fields {
		m := avroMember{sourceMember([]byte(f.name)), f.node}
		if value, _, plain := f.node.nullable(); !plain || value.kind > avroEnum || value.kind == avroBytes || value.kind == avroFixed {
			m.member = srcMembers
		}
		p.source = append(p.source, m)
	}
	return true
}

// avroPayload reads a value's body.
func (d *Decoder) avroPayload(s *writerSchema) bool {
	if s.rej != nil {
		// A body that is no value of its schema, or has no end, is wrong first.
		if !d.avroSkip(s.avro.root, maxAvroDepth) || !d.avroEnd() {
			return false
		}
		rej := *s.rej
		d.err = &rej
		return false
	}
	if s.kind != Change {
		d.ev.Kind = s.kind
		return d.avroSkip(s.avro.root, maxAvroDepth) && d.avroEnd()
	}
	d.from = s.from
	d.env.schema, d.env.row = s, s.row
	for i := range s.avro.steps {
		if !d.avroMember(s.avro, &s.avro.steps[i]) {
			return false
		}
	}
	d.env.images = true // they are in the schema
	return d.avroEnd() && d.classify()
}

func (d *Decoder) avroEnd() bool {
	return d.p == len(d.b) || d.fail(ReasonAvroTrailing, "%d bytes after the body", len(d.b)-d.p)
}

// avroMember reads a member of an envelope.
func (d *Decoder) avroMember(p *avroPlan, m *avroMember) bool {
	e, from := &d.env, d.p
	switch m.member {
	case memberOp:
		text, ok := d.avroText(m.node)
		if text != nil {
			if e.op, e.opText = 1, text; len(text) == 1 {
				e.op = text[0]
			}
		}
		return ok
	case memberBefore, memberAfter, memberSource, memberTransaction:
	case memberUpdate:
		ok := d.avroSkip(m.node, maxAvroDepth)
		e.update = extent{from, d.p}
		return ok
	default:
		return d.avroSkip(m.node, maxAvroDepth)
	}
	n, ok := d.branch(m.node)
	if !ok || n.kind == avroNull {
		return ok
	}
	if n.kind == avroString {
		text, ok := d.avroUTF8()
		if m.member == memberAfter {
			e.doc, e.after = text, extent{from, d.p}
		} else {
			e.oldDoc, e.before = text, extent{from, d.p}
		}
		return ok
	}
	switch m.member {
	case memberSource:
		e.sourceGiven = true
		return d.avroSource(p.source)
	case memberTransaction:
		return d.avroTransaction(n)
	case memberBefore:
		ok = d.avroSkip(n, maxAvroDepth-1)
		if p.before {
			e.before = extent{from, d.p}
		}
		return ok
	}
	// What is wrong in a column is kept for later.
	d.after = resize(d.after, len(e.row.fields))
	if !d.readRow(from, e.row, d.after) {
		if structural(d.err.Reason) {
			return false
		}
		e.valueErr = d.err
		d.undo(from)
		if !d.avroSkip(m.node, maxAvroDepth) {
			return false
		}
	}
	e.after = extent{from, d.p}
	return true
}

// avroSource reads a source block. Its members are kept as JSON has them: what is made of them is the same.
func (d *Decoder) avroSource(members []avroMember) bool {
	for i := range members {
		m := &members[i]
		if m.member == srcMembers {
			if !d.avroSkip(m.node, maxAvroDepth-1) {
				return false
			}
			continue
		}
		text, ok := d.avroJSON(m.node)
		if !ok {
			return false
		}
		d.env.source[m.member] = text
	}
	return true
}

func (d *Decoder) avroTransaction(n *avroNode) (ok bool) {
	for i := range n.fields {
		f := &n.fields[i]
		switch value, _, _ := f.node.nullable(); {
		case value == nil, value.kind != avroString && value.kind != avroLong && value.kind != avroInt:
			ok = d.avroSkip(f.node, maxAvroDepth-1)
		case f.name == "id":
			d.env.txID, ok = d.avroJSON(f.node)
		case f.name == "total_order":
			d.env.txOrder, ok = d.avroJSON(f.node)
		default:
			ok = d.avroSkip(f.node, maxAvroDepth-1)
		}
		if !ok {
			return false
		}
	}
	return true
}

// avroJSON reads a scalar and returns it as JSON has it; nil: a null.
func (d *Decoder) avroJSON(n *avroNode) ([]byte, bool) {
	n, ok := d.branch(n)
	if !ok {
		return nil, false
	}
	start := len(d.arena)
	switch n.kind {
	case avroNull:
		return nil, true
	case avroInt, avroLong:
		i, ok := d.varint(n.kind)
		if !ok {
			return nil, false
		}
		d.arena = strconv.AppendInt(d.arena, i, 10)
	case avroString, avroEnum:
		text, ok := d.avroText(n)
		if !ok {
			return nil, false
		}
		d.arena = appendJSONText(d.arena, text)
	case avroBoolean:
		b, ok := d.octets(1)
		if !ok {
			return nil, false
		}
		d.arena = strconv.AppendBool(d.arena, b[0] == 1)
	case avroFloat, avroDouble:
		f, ok := d.avroFloat(n.kind)
		if !ok {
			return nil, false
		}
		d.arena = strconv.AppendFloat(d.arena, f, 'g', -1, 64)
	default:
		return nil, d.fail(ReasonAvroDecode, "no scalar: %s", n.name) // not possible
	}
	return d.arena[start:len(d.arena):len(d.arena)], d.room(0)
}

// appendJSONText appends text, which is valid UTF-8, as a JSON string.
func appendJSONText(dst, text []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i, c := range text {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		if c < 0x20 {
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		} else {
			dst = append(dst, '\\', c)
		}
	}
	return append(append(dst, text[from:]...), '"')
}

// avroKey reads a key's body into d.key.
func (d *Decoder) avroKey(s *writerSchema) bool {
	return d.avroRow(s.avro.row, s.row, d.key, nil, maxAvroDepth) && d.avroEnd() && d.noNulls(s.row, d.key)
}

func (d *Decoder) compileAvroKey(root *avroNode) *writerSchema {
	w := &writerSchema{avro: &avroPlan{root: root, row: root}}
	if root.kind != avroRecord || len(root.fields) == 0 {
		w.rej = reject(ReasonKeyDecode, "the key's schema is %s, no record of key columns", quote([]byte(root.name)))
		return w
	}
	if w.row, w.rej = d.compileRow(root, d.from); w.rej == nil {
		w.requireAll()
	}
	return w
}

// avroRow reads a record into out, as record does for JSON.
func (d *Decoder) avroRow(n *avroNode, r *record, out []changelog.Value, marks *[]int, depth int) bool {
	n, ok := d.branch(n)
	if !ok {
		return false
	}
	if n.kind != avroRecord || depth == 0 {
		return d.fail(ReasonAvroDecode, "no row, or too many levels at byte %d", d.p)
	}
	for i := range r.fields {
		f := &r.fields[i]
		if marks != nil {
			d.column = f.name
		}
		d.hole = false
		if !d.avroValue(n.fields[i].node, f.conv, &out[i], depth-1) {
			return d.at(f.name)
		}
		if d.hole && !d.mark(f, i, out, marks) {
			return false
		}
	}
	return true
}

// avroValue reads a value. It sets d.hole if that is the placeholder.
func (d *Decoder) avroValue(n *avroNode, c *conv, v *changelog.Value, depth int) bool {
	n, ok := d.branch(n)
	if !ok {
		return false
	}
	switch n.kind {
	case avroNull:
		*v = changelog.NullValue
		return true
	case avroBoolean:
		b, ok := d.octets(1)
		if ok {
			*v = changelog.Value{I: int64(b[0] & 1)}
		}
		return ok && (b[0] <= 1 || d.fail(ReasonAvroDecode, "a boolean of %#02x", b[0]))
	case avroInt, avroLong:
		i, ok := d.varint(n.kind)
		return ok && d.avroInteger(c, v, i)
	case avroFloat, avroDouble:
		return d.avroFloating(n.kind, c, v)
	case avroString, avroEnum:
		text, ok := d.avroText(n)
		return ok && d.textOrHole(c, v, text)
	case avroBytes, avroFixed:
		b, ok := d.avroOctets(n)
		return ok && d.avroBinary(c, v, b)
	default:
		return d.avroNested(n, c, v, depth)
	}
}

func (d *Decoder) avroNested(n *avroNode, c *conv, v *changelog.Value, depth int) bool {
	if depth <= 0 {
		return d.fail(ReasonAvroDecode, "more than %d levels at byte %d", maxAvroDepth, d.p)
	}
	switch {
	case n.kind == avroMap, c.op == readMap, c.op == readPairs:
		return d.avroEntries(n, c, v, depth)
	case n.kind == avroArray:
		return d.avroList(n, c, v, depth)
	case c.op == readVariable:
		return d.avroVariable(n, v)
	case c.op == readStructured:
		return d.avroStructured(n, c, v)
	}
	base := len(d.stack)
	for range c.rec.fields {
		d.stack = append(d.stack, changelog.NullValue)
	}
	members := d.stack[base:len(d.stack):len(d.stack)] // stays where it is, though the stack may move
	for i := range c.rec.fields {
		d.hole = false
		if !d.avroValue(n.fields[i].node, c.rec.fields[i].conv, &members[i], depth-1) {
			return d.at(c.rec.fields[i].name)
		}
	}
	start := len(d.arena)
	d.arena = changelog.AppendStruct(d.arena, c.typ, members)
	d.stack = d.stack[:base]
	return d.body(c, v, start)
}

func (d *Decoder) avroInteger(c *conv, v *changelog.Value, i int64) bool {
	if i < c.low || i > c.high {
		return d.fail(ReasonIntRange, "%d is not in [%d, %d]", i, c.low, c.high)
	}
	switch c.op {
	case readInt:
		*v = changelog.Value{I: i}
		return true
	case readUnsigned:
		d.unsigned(v, i)
		return true
	default:
		return d.temporal(c, v, i)
	}
}

func (d *Decoder) avroFloating(kind avroKind, c *conv, v *changelog.Value) bool {
	f, ok := d.avroFloat(kind)
	switch {
	case !ok:
		return false
	case c.op == readWhole:
		return d.whole(v, f)
	case kind == avroFloat:
		*v = changelog.FloatValue(float32(f))
	default:
		*v = changelog.DoubleValue(f)
	}
	return true
}

// avroFloat reads a float or double. There is one NaN.
func (d *Decoder) avroFloat(kind avroKind) (float64, bool) {
	size := 8
	if kind == avroFloat {
		size = 4
	}
	b, ok := d.octets(size)
	if !ok {
		return 0, false
	}
	var f float64
	if kind == avroFloat {
		f = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	} else {
		f = math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	if math.IsNaN(f) {
		f = math.NaN()
	}
	return f, true
}

func (d *Decoder) avroBinary(c *conv, v *changelog.Value, b []byte) bool {
	switch c.op {
	case readDecimal, readDecimalText:
		return d.decimalBytes(c, v, b)
	case readBits:
		return d.bits(c, v, b)
	case readUUID:
		*v = changelog.Value{B: b}
		return len(b) == 16 || d.fail(ReasonUUID, "%d bytes", len(b))
	default:
	}
	if c.holes != nil && bytes.Equal(b, d.holes.raw) {
		d.hole = true
		*v = changelog.NullValue
		return true
	}
	*v = changelog.Value{B: b}
	return d.noReference(b)
}

// avroList reads an array. Its elements are collected on the decoder's stack, for arrays nest.
func (d *Decoder) avroList(n *avroNode, c *conv, v *changelog.Value, depth int) bool {
	base := len(d.stack)
	for {
		count, ok := d.block(n.elem.leastBytes())
		if !ok {
			return false
		}
		if count == 0 {
			break
		}
		d.stack = d.reserve(d.stack, count)
		var e changelog.Value
		for range count {
			if !d.avroValue(n.elem, c.elem, &e, depth-1) {
				return false
			}
			d.stack = append(d.stack, e)
		}
	}
	start := len(d.arena)
	d.arena = changelog.AppendList(d.arena, c.typ, d.stack[base:])
	d.stack = d.stack[:base]
	d.hole = false
	return d.body(c, v, start)
}

// reserve makes room for n more values. It allocates no more than what is left of the body can need.
func (d *Decoder) reserve(values []changelog.Value, n int) []changelog.Value {
	if n <= cap(values)-len(values) {
		return values
	}
	more := max(n, min(3*len(values), len(d.b)-d.p))
	return append(make([]changelog.Value, 0, len(values)+more), values...)
}

// avroEntries reads a map, or an array of entries. Keys and values are collected on a stack each.
func (d *Decoder) avroEntries(n *avroNode, c *conv, v *changelog.Value, depth int) bool {
	keys, values := len(d.stack), len(d.others)
	least := 1 + n.elem.leastBytes()
	if n.kind == avroArray {
		least = n.elem.leastBytes()
	}
	var k, e changelog.Value
	for {
		count, ok := d.block(least)
		if !ok {
			return false
		}
		if count == 0 {
			break
		}
		d.stack, d.others = d.reserve(d.stack, count), d.reserve(d.others, count)
		for range count {
			if !d.avroEntry(n, c, &k, &e, depth) {
				return false
			}
			d.stack, d.others = append(d.stack, k), append(d.others, e)
		}
	}
	d.lastEntries(keys, values)
	start := len(d.arena)
	d.arena = changelog.AppendMap(d.arena, c.typ, d.stack[keys:], d.others[values:])
	d.stack, d.others = d.stack[:keys], d.others[:values]
	d.hole = false
	return d.body(c, v, start)
}

func (d *Decoder) avroEntry(n *avroNode, c *conv, k, e *changelog.Value, depth int) bool {
	if n.kind == avroMap {
		text, ok := d.avroUTF8()
		return ok && d.ofText(c.key, k, text) && d.avroValue(n.elem, c.elem, e, depth-1)
	}
	if !d.avroValue(n.elem.fields[0].node, c.key, k, depth-2) || !d.avroValue(n.elem.fields[1].node, c.elem, e, depth-2) {
		return false
	}
	return !k.Null || d.fail(ReasonTypeMismatch, "a map has a null key")
}

// lastEntries drops entries whose key comes again later: the last one counts, in the place of the first (3.2).
func (d *Decoder) lastEntries(from, fromValues int) {
	keys := d.stack[from:]
	if len(keys) < 2 {
		return
	}
	order := make([]int32, len(keys))
	for i := range order {
		order[i] = int32(i) //nolint:gosec // below the size of a message
	}
	same := func(a, b int32) int {
		return cmp.Or(cmp.Compare(keys[a].I, keys[b].I), bytes.Compare(keys[a].B, keys[b].B))
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(same(a, b), cmp.Compare(a, b)) })
	twice := false
	for i := 1; i < len(order); i++ {
		if same(order[i-1], order[i]) == 0 {
			twice = true
		}
	}
	if twice {
		d.dropRepeated(order, same, from, fromValues)
	}
}

// dropRepeated keeps the first of the entries with one key, and gives it the last one's value.
func (d *Decoder) dropRepeated(order []int32, same func(a, b int32) int, from, fromValues int) {
	drop := make([]bool, len(order))
	first := order[0]
	values := d.others[fromValues:]
	for i := 1; i < len(order); i++ {
		if same(first, order[i]) != 0 {
			first = order[i]
			continue
		}
		drop[order[i]], values[first] = true, values[order[i]]
	}
	d.report(ReasonJSONDuplicateKey, "a map has a key twice: the last value counts")
	keys, n := d.stack[from:], 0
	for i := range keys {
		if !drop[i] {
			keys[n], values[n] = keys[i], values[i]
			n++
		}
	}
	d.stack, d.others = d.stack[:from+n], d.others[:fromValues+n]
}
