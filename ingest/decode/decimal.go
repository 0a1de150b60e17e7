package decode

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"math/bits"
	"strconv"

	"firn/changelog"
)

// maxPrecision is Iceberg's.
const maxPrecision = 38

// maxDecimalBytes and maxDecimalTextBytes bound unscaled values before any arithmetic (3.3).
const (
	maxDecimalBytes     = 32
	maxDecimalTextBytes = 1 << 16
)

// wide is an unsigned number of 128 bits.
type wide struct{ hi, lo uint64 }

func (w wide) less(o wide) bool { return w.hi < o.hi || w.hi == o.hi && w.lo < o.lo }

// mul10 returns 10·w + digit; false if that is over 128 bits.
func (w wide) mul10(digit uint64) (wide, bool) {
	carry, lo := bits.Mul64(w.lo, 10)
	over, hi := bits.Mul64(w.hi, 10)
	lo, c := bits.Add64(lo, digit, 0)
	hi, c = bits.Add64(hi, carry, c)
	return wide{hi, lo}, over == 0 && c == 0
}

// tens returns 10^n, n from 0 to 38.
func tens(n int) wide {
	w := wide{lo: 1}
	for range n {
		w, _ = w.mul10(0)
	}
	return w
}

// powers holds 10^0 to 10^38.
var powers = func() (p [maxPrecision + 1]wide) {
	for i := range p {
		p[i] = tens(i)
	}
	return p
}()

// magnitude reads a two's complement number of up to 16 bytes.
func magnitude(b []byte) (w wide, negative bool) {
	var full [16]byte
	if negative = b[0]&0x80 != 0; negative {
		for i := range full {
			full[i] = 0xff
		}
	}
	copy(full[16-len(b):], b)
	w = wide{binary.BigEndian.Uint64(full[:]), binary.BigEndian.Uint64(full[8:])}
	if negative {
		lo, c := bits.Add64(^w.lo, 1, 0)
		hi, _ := bits.Add64(^w.hi, 0, c)
		w = wide{hi, lo}
	}
	return w, negative
}

// decimalOf returns the bytes of a Decimal Value, in the arena.
func (d *Decoder) decimalOf(w wide, negative bool) []byte {
	if negative {
		lo, c := bits.Add64(^w.lo, 1, 0)
		hi, _ := bits.Add64(^w.hi, 0, c)
		w = wide{hi, lo}
	}
	start := len(d.arena)
	d.arena = binary.BigEndian.AppendUint64(d.arena, w.hi)
	d.arena = binary.BigEndian.AppendUint64(d.arena, w.lo)
	return changelog.ShortestInt(d.arena[start : start+16 : start+16])
}

// readDecimal reads a decimal: its unscaled value in base64 or, as converters may be told, a number (1.4).
func (d *Decoder) readDecimal(c *conv, v *changelog.Value) bool {
	switch first := d.b[d.p]; {
	case first == '-' || first-'0' <= 9:
		return d.numericDecimal(c, v)
	case first != '"':
		return d.mismatch("a decimal")
	}
	text, ok := d.text()
	if !ok {
		return false
	}
	b, ok := d.base64(text)
	return ok && d.decimalBytes(c, v, b)
}

// decimalBytes reads a decimal's unscaled value.
func (d *Decoder) decimalBytes(c *conv, v *changelog.Value, b []byte) (ok bool) {
	bound := maxDecimalBytes
	if c.op == readDecimalText {
		bound = maxDecimalTextBytes
	}
	if len(b) == 0 || len(b) > bound {
		return d.fail(ReasonDecimalBytes, "an unscaled value of %d bytes", len(b))
	}
	b = changelog.ShortestInt(b)
	if c.op == readDecimalText {
		return d.canonical(v, b, c.scale)
	}
	if len(b) > 16 {
		return d.tooWide(c, v)
	}
	w, negative := magnitude(b)
	if c.scale < 0 {
		for range -c.scale {
			if w, ok = w.mul10(0); !ok {
				return d.tooWide(c, v)
			}
		}
		b = d.decimalOf(w, negative)
	}
	if !w.less(powers[c.typ.Precision]) {
		return d.tooWide(c, v)
	}
	*v = changelog.Value{B: b}
	return true
}

func (d *Decoder) tooWide(c *conv, v *changelog.Value) bool {
	return d.null(v, ReasonDecimalPrecision, "a value that "+c.typ.String()+" cannot hold")
}

// numericDecimal reads a decimal from the text of a number. It takes more digits of the fraction than the type has if
// they are zeros.
func (d *Decoder) numericDecimal(c *conv, v *changelog.Value) bool {
	text, _, ok := d.number()
	if !ok {
		return false
	}
	if len(text) > maxDecimalDigits {
		return d.fail(ReasonDecimalBytes, "a number of %d digits", len(text))
	}
	digits, exponent, negative, ok := splitNumber(text)
	if !ok {
		return d.fail(ReasonDecimalBytes, "exponent of %s", quote(text))
	}
	if c.op == readDecimalText {
		n, _ := new(big.Int).SetString(string(digits), 10) // "" is not possible, and all are digits
		if negative {
			n.Neg(n)
		}
		return d.canonicalBig(v, n, -exponent)
	}
	// value = digits · 10^exponent = unscaled · 10^-scale
	shift := exponent + c.typ.Scale
	for shift < 0 && len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits, shift = digits[:len(digits)-1], shift+1
	}
	if len(digits) == 1 && digits[0] == '0' {
		*v = changelog.Value{B: d.decimalOf(wide{}, false)}
		return true
	}
	if shift < 0 || len(digits)+shift > c.typ.Precision {
		return d.tooWide(c, v)
	}
	var w wide
	for _, digit := range digits {
		w, _ = w.mul10(uint64(digit - '0'))
	}
	for range shift {
		w, _ = w.mul10(0)
	}
	*v = changelog.Value{B: d.decimalOf(w, negative)}
	return true
}

// splitNumber takes a JSON number apart: digits without leading zeros, and the power of ten they are multiplied with.
func splitNumber(text []byte) (digits []byte, exponent int, negative, ok bool) {
	if text[0] == '-' {
		negative, text = true, text[1:]
	}
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		e, err := strconv.Atoi(string(text[i+1:]))
		if err != nil || e > maxScale || e < -maxScale {
			return nil, 0, false, false
		}
		text, exponent = text[:i], e
	}
	if i := bytes.IndexByte(text, '.'); i >= 0 {
		exponent -= len(text) - i - 1
		text = append(append([]byte(nil), text[:i]...), text[i+1:]...)
	}
	for len(text) > 1 && text[0] == '0' {
		text = text[1:]
	}
	return text, exponent, negative, true
}

// readVariable reads {"scale":…,"value":…}, a decimal of any scale (3.3), to its canonical text.
func (d *Decoder) readVariable(_ *conv, v *changelog.Value) bool {
	if d.b[d.p] != '{' {
		return d.mismatch("a decimal with its scale")
	}
	var scale int64
	var unscaled []byte
	haveScale, haveValue := false, false
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok {
			return false
		}
		switch string(name) {
		case "scale":
			if d.peek() == 0 {
				return d.syntax("a value")
			}
			scale, ok = d.integer(-1<<31, 1<<31-1)
			haveScale = true
		case "value":
			var text []byte
			if d.peek() != '"' {
				return d.mismatch("base64")
			}
			if text, ok = d.text(); ok {
				unscaled, ok = d.base64(text)
			}
			haveValue = true
		default:
			return d.fail(ReasonSchemaMismatch, "member %s of a decimal", quote(name))
		}
		if !ok {
			return false
		}
	}
	switch {
	case d.err != nil:
		return false
	case !haveScale || !haveValue:
		return d.fail(ReasonRequiredMissing, "a decimal without scale or value")
	}
	return d.variable(v, scale, unscaled)
}

func (d *Decoder) variable(v *changelog.Value, scale int64, unscaled []byte) bool {
	switch {
	case len(unscaled) == 0 || len(unscaled) > maxDecimalTextBytes:
		return d.fail(ReasonDecimalBytes, "an unscaled value of %d bytes", len(unscaled))
	case scale > maxScale || scale < -maxScale:
		return d.fail(ReasonDecimalBytes, "a scale of %d", scale)
	}
	return d.canonical(v, changelog.ShortestInt(unscaled), int(scale))
}

// canonical makes v the text of unscaled·10^-scale: plain, no zeros at the end of the fraction, "0" for zero.
func (d *Decoder) canonical(v *changelog.Value, unscaled []byte, scale int) bool {
	if len(unscaled) <= 8 {
		w, negative := magnitude(unscaled)
		var digits [20]byte
		return d.canonicalDigits(v, strconv.AppendUint(digits[:0], w.lo, 10), negative, scale)
	}
	n := new(big.Int)
	if unscaled[0]&0x80 != 0 {
		n.SetBit(n, 8*len(unscaled), 1)
		n.Sub(new(big.Int).SetBytes(unscaled), n)
	} else {
		n.SetBytes(unscaled)
	}
	return d.canonicalBig(v, n, scale)
}

func (d *Decoder) canonicalBig(v *changelog.Value, n *big.Int, scale int) bool {
	digits := n.Append(nil, 10)
	negative := digits[0] == '-'
	if negative {
		digits = digits[1:]
	}
	return d.canonicalDigits(v, digits, negative, scale)
}

func (d *Decoder) canonicalDigits(v *changelog.Value, digits []byte, negative bool, scale int) bool {
	if !d.room(max(scale, -scale)) {
		return false
	}
	start := len(d.arena)
	if negative {
		d.arena = append(d.arena, '-')
	}
	for scale > 0 && len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits, scale = digits[:len(digits)-1], scale-1
	}
	switch {
	case len(digits) == 1 && digits[0] == '0':
		d.arena = append(d.arena, '0')
	case scale <= 0:
		d.arena = append(d.arena, digits...)
		for range -scale {
			d.arena = append(d.arena, '0')
		}
	case scale >= len(digits):
		d.arena = append(d.arena, "0."...)
		for range scale - len(digits) {
			d.arena = append(d.arena, '0')
		}
		d.arena = append(d.arena, digits...)
	default:
		d.arena = append(d.arena, digits[:len(digits)-scale]...)
		d.arena = append(d.arena, '.')
		d.arena = append(d.arena, digits[len(digits)-scale:]...)
	}
	*v = changelog.Value{B: d.arena[start:len(d.arena):len(d.arena)]}
	return true
}
