package decode

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"firn/changelog"
)

// What Avro's bodies are made of. Every length is checked against the bytes that are left before it is used.

// varint reads an int or long.
func (d *Decoder) varint(kind avroKind) (int64, bool) {
	if d.p < len(d.b) && d.b[d.p] < 0x80 {
		u := d.b[d.p]
		d.p++
		return int64(u>>1) ^ -int64(u&1), true
	}
	i, n := binary.Varint(d.b[d.p:])
	switch {
	case n == 0:
		return 0, d.fail(ReasonAvroDecode, "the body ends at byte %d, in a number", len(d.b))
	case n < 0, kind == avroInt && (i > math.MaxInt32 || i < math.MinInt32):
		return 0, d.fail(ReasonAvroDecode, "the number at byte %d is too large for its type", d.p)
	}
	d.p += n
	return i, true
}

// octets reads n bytes.
func (d *Decoder) octets(n int) ([]byte, bool) {
	if n > len(d.b)-d.p {
		return nil, d.fail(ReasonAvroDecode, "%d bytes wanted at byte %d, the body ends at %d", n, d.p, len(d.b))
	}
	b := d.b[d.p : d.p+n : d.p+n]
	d.p += n
	return b, true
}

// lengthed reads bytes with their length before them.
func (d *Decoder) lengthed() ([]byte, bool) {
	n, ok := d.varint(avroLong)
	if !ok {
		return nil, false
	}
	if n < 0 || n > int64(len(d.b)-d.p) {
		return nil, d.fail(ReasonAvroDecode, "a length of %d at byte %d, %d bytes are left", n, d.p, len(d.b)-d.p)
	}
	return d.octets(int(n))
}

// index reads a number from 0 to n-1.
func (d *Decoder) index(n int, of string) (int, bool) {
	at := d.p
	i, ok := d.varint(avroLong)
	if !ok {
		return 0, false
	}
	if i < 0 || i >= int64(n) {
		return 0, d.fail(ReasonAvroDecode, "%s %d of %d at byte %d", of, i, n, at)
	}
	return int(i), true
}

// branch reads which of a union's types the value has; of other types it returns the type.
func (d *Decoder) branch(n *avroNode) (*avroNode, bool) {
	if n.kind != avroUnion {
		return n, true
	}
	i, ok := d.index(len(n.branches), "branch")
	if !ok {
		return nil, false
	}
	return n.branches[i], true
}

func (d *Decoder) avroUTF8() ([]byte, bool) {
	text, ok := d.lengthed()
	if ok && !utf8.Valid(text) {
		return nil, d.fail(ReasonUTF8, "invalid UTF-8 in a string before byte %d", d.p)
	}
	return text, ok
}

// avroText reads a string or an enum's symbol; nil: a null.
func (d *Decoder) avroText(n *avroNode) ([]byte, bool) {
	n, ok := d.branch(n)
	if !ok {
		return nil, false
	}
	switch n.kind {
	case avroNull:
		return nil, true
	case avroEnum:
		i, ok := d.index(len(n.symbols), "symbol")
		if !ok {
			return nil, false
		}
		return n.symbols[i], true
	default:
		return d.avroUTF8()
	}
}

func (d *Decoder) avroOctets(n *avroNode) ([]byte, bool) {
	if n.kind == avroFixed {
		return d.octets(n.size)
	}
	return d.lengthed()
}

// maxEmptyItems bounds the items of one array that take no bytes (5.3).
const maxEmptyItems = 1_000_000

// block reads how many items the next block of an array or map has, each of them least bytes or more; 0: it was the last.
func (d *Decoder) block(least int) (int, bool) {
	count, ok := d.varint(avroLong)
	if !ok || count == 0 {
		return 0, ok
	}
	if count < 0 {
		count = -count
		size, ok := d.varint(avroLong)
		if !ok {
			return 0, false
		}
		if size < 0 || size > int64(len(d.b)-d.p) {
			return 0, d.fail(ReasonAvroDecode, "a block of %d bytes at byte %d, %d are left", size, d.p, len(d.b)-d.p)
		}
	}
	most := int64(maxEmptyItems)
	if least > 0 {
		most = int64((len(d.b) - d.p) / least)
	}
	if count < 0 || count > most {
		return 0, d.fail(ReasonAvroDecode, "%d items at byte %d, %d bytes are left", count, d.p, len(d.b)-d.p)
	}
	return int(count), true
}

// avroSkip reads any value, and checks it, within depth levels.
func (d *Decoder) avroSkip(n *avroNode, depth int) bool {
	n, ok := d.branch(n)
	if !ok {
		return false
	}
	switch n.kind {
	case avroNull:
		return true
	case avroBoolean:
		_, ok = d.octets(1)
	case avroInt, avroLong:
		_, ok = d.varint(n.kind)
	case avroFloat:
		_, ok = d.octets(4)
	case avroDouble:
		_, ok = d.octets(8)
	case avroString, avroEnum:
		_, ok = d.avroText(n)
	case avroBytes, avroFixed:
		_, ok = d.avroOctets(n)
	default:
		return d.avroSkipNested(n, depth)
	}
	return ok
}

func (d *Decoder) avroSkipNested(n *avroNode, depth int) bool {
	if depth <= 0 {
		return d.fail(ReasonAvroDecode, "more than %d levels at byte %d", maxAvroDepth, d.p)
	}
	if n.kind == avroRecord {
		for i := range n.fields {
			if !d.avroSkip(n.fields[i].node, depth-1) {
				return false
			}
		}
		return true
	}
	least, items := n.elem.leastBytes(), 0
	if n.kind == avroMap {
		least++
	}
	for {
		count, ok := d.block(least)
		if !ok || count == 0 {
			return ok
		}
		if least == 0 { // no value of the type takes any bytes: there is nothing to read
			if items += count; items > maxEmptyItems {
				return d.fail(ReasonAvroDecode, "%d items without bytes", items)
			}
			continue
		}
		for range count {
			if n.kind == avroMap {
				if _, ok := d.avroUTF8(); !ok {
					return false
				}
			}
			if !d.avroSkip(n.elem, depth-1) {
				return false
			}
		}
	}
}

// avroVariable reads a decimal with its own scale (3.3), to its canonical text.
func (d *Decoder) avroVariable(n *avroNode, v *changelog.Value) bool {
	var scale int64
	var unscaled []byte
	for i := range n.fields {
		f := &n.fields[i]
		of, ok := d.branch(f.node)
		switch {
		case !ok:
			return false
		case f.name == "scale" && of.kind == avroInt:
			scale, ok = d.varint(avroInt)
		case f.name == "value" && of.kind == avroBytes:
			unscaled, ok = d.lengthed()
		default:
			return d.fail(ReasonSchemaMismatch, "member %s, a %s, of a decimal", quote([]byte(f.name)), of.name)
		}
		if !ok {
			return false
		}
	}
	if len(n.fields) != 2 {
		return d.fail(ReasonRequiredMissing, "a decimal without scale or value")
	}
	return d.variable(v, scale, unscaled)
}

// avroStructured reads a time that is written as its components (3.4).
func (d *Decoder) avroStructured(n *avroNode, c *conv, v *changelog.Value) bool {
	var m moment
	var special []byte
	for i := range n.fields {
		f := &n.fields[i]
		of, ok := d.branch(f.node)
		if !ok {
			return false
		}
		part := m.part(f.name)
		switch {
		case part != nil && of.kind == avroInt, part != nil && of.kind == avroLong:
			*part, ok = d.varint(avroInt) // no component is a long
		case f.name == specialMember && of.kind == avroString:
			special, ok = d.avroUTF8()
		default:
			ok = d.avroSkip(of, 1)
		}
		if !ok {
			return false
		}
	}
	return d.structured(c, v, &m, special)
}
