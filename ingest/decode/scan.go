package decode

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// maxDepth and maxSchemaDepth bound how deep data and schemas nest (1.5, R6).
const (
	maxDepth       = 64
	maxSchemaDepth = 128
)

// scanner reads one JSON document from bytes that are valid UTF-8. It is strict (1.5): the grammar, lone surrogates,
// names that are there twice. Where a method returns false, err says why.
type scanner struct {
	b   []byte
	p   int // next byte to read
	err *Rejected

	names [][]byte // names of the objects that skip is in
	arena []byte   // texts that are not in b as they stand: grows, is never rewritten within a record
}

func (x *scanner) fail(reason, format string, args ...any) bool {
	if x.err == nil {
		x.err = reject(reason, format, args...)
	}
	return false
}

func (x *scanner) syntax(what string) bool {
	if x.p >= len(x.b) {
		return x.fail(ReasonJSONSyntax, "%s expected, the document ends at byte %d", what, len(x.b))
	}
	return x.fail(ReasonJSONSyntax, "%s expected at byte %d, found %s", what, x.p, quote(x.b[x.p:min(len(x.b), x.p+8)]))
}

// peek skips white space and returns the next byte, or 0 at the end.
func (x *scanner) peek() byte {
	b, p := x.b, x.p
	for p < len(b) {
		c := b[p]
		if c > ' ' || c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			x.p = p
			return c
		}
		p++
	}
	x.p = p
	return 0
}

// next reads the byte c, which may have white space before it.
func (x *scanner) next(c byte) bool {
	if x.p < len(x.b) && x.b[x.p] == c || x.peek() == c && x.p < len(x.b) {
		x.p++
		return true
	}
	return x.syntax(string(rune(c)))
}

// more reads what stands after a member or element: true after a comma; false after the closing byte, which it reads
// too, or, with err set, after anything else.
func (x *scanner) more(closing byte) bool {
	switch x.peek() {
	case ',':
		x.p++
		return true
	case closing:
		x.p++
		return false
	}
	return x.syntax("',' or '" + string(rune(closing)) + "'")
}

// literal reads s, one of true, false and null.
func (x *scanner) literal(s string) bool {
	if len(x.b)-x.p >= len(s) && string(x.b[x.p:x.p+len(s)]) == s {
		x.p += len(s)
		return true
	}
	return x.syntax("a value")
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// span reads a string whose opening quote is next. It returns the place of its text and whether that has escapes, which
// are checked.
func (x *scanner) span() (start, end int, escaped, ok bool) {
	if x.peek() != '"' {
		return 0, 0, false, x.syntax("a string")
	}
	b, p := x.b, x.p+1
	start = p
	for {
		// eight bytes at a time while none is a quote, a backslash or a control character
		for p+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[p:])
			q, s := w^(ones*'"'), w^(ones*'\\')
			hit := ((q-ones)&^q | (s-ones)&^s | (w-ones*0x20)&^w) & highs
			if hit != 0 {
				p += bits.TrailingZeros64(hit) / 8 // borrows only reach bytes after the first hit
				break
			}
			p += 8
		}
		for p < len(b) && b[p] != '"' && b[p] != '\\' && b[p] >= 0x20 { // the last few bytes
			p++
		}
		switch {
		case p >= len(b):
			x.p = p
			return 0, 0, false, x.syntax("the end of a string")
		case b[p] == '"':
			x.p = p + 1
			if escaped && !x.checkEscapes(b[start:p]) {
				return 0, 0, false, false
			}
			return start, p, escaped, true
		case b[p] == '\\':
			escaped = true
			p = min(p+2, len(b))
		case b[p] < 0x20:
			x.p = p
			return 0, 0, false, x.fail(ReasonJSONSyntax, "control character %#02x in a string at byte %d", b[p], p)
		}
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// checkEscapes checks the escapes of the text of a string.
func (x *scanner) checkEscapes(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			return true
		}
		_, n, reason := unescape(b[i:])
		if reason != "" {
			return x.fail(reason, "escape %s in a string", quote(b[i:min(len(b), i+12)]))
		}
		b = b[i+n:]
	}
}

// unescape reads the escape that b begins with. reason is empty if it is sound.
func unescape(b []byte) (r rune, n int, reason string) {
	if len(b) < 2 {
		return 0, 0, ReasonJSONSyntax
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2, ""
	case 'b':
		return '\b', 2, ""
	case 'f':
		return '\f', 2, ""
	case 'n':
		return '\n', 2, ""
	case 'r':
		return '\r', 2, ""
	case 't':
		return '\t', 2, ""
	case 'u':
	default:
		return 0, 0, ReasonJSONSyntax
	}
	r, ok := hex4(b[2:])
	switch {
	case !ok:
		return 0, 0, ReasonJSONSyntax
	case r < 0xd800 || r > 0xdfff:
		return r, 6, ""
	case r > 0xdbff || len(b) < 12 || b[6] != '\\' || b[7] != 'u':
		return 0, 0, ReasonUTF8 // a low half alone, or a high one
	}
	low, ok := hex4(b[8:])
	if !ok || low < 0xdc00 || low > 0xdfff {
		return 0, 0, ReasonUTF8
	}
	return 0x10000 + (r-0xd800)<<10 + (low - 0xdc00), 12, ""
}

// text reads a string and returns its text: part of the document, or of the arena if it had escapes.
func (x *scanner) text() ([]byte, bool) {
	start, end, escaped, ok := x.span()
	if !ok {
		return nil, false
	}
	if !escaped {
		return x.b[start:end:end], true
	}
	return x.unescaped(x.b[start:end]), true
}

func (x *scanner) unescaped(b []byte) []byte {
	start := len(x.arena)
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 {
			x.arena = append(x.arena, b...)
			return x.arena[start:len(x.arena):len(x.arena)]
		}
		x.arena = append(x.arena, b[:i]...)
		r, n, reason := unescape(b[i:]) // checked by span
		if reason != "" {               // but not in a header: it stays as it is
			r, n = rune(b[i]), 1
		}
		x.arena = utf8.AppendRune(x.arena, r)
		b = b[i+n:]
	}
}

// number reads a number and returns its text and whether it is an integer: no fraction, no exponent.
func (x *scanner) number() (text []byte, integer, ok bool) {
	b, start := x.b, x.p
	p := start
	if p < len(b) && b[p] == '-' {
		p++
	}
	first := p
	for p < len(b) && b[p]-'0' <= 9 {
		p++
	}
	if p == first || b[first] == '0' && p > first+1 {
		return nil, false, x.syntax("a value")
	}
	integer = true
	if p < len(b) && b[p] == '.' {
		integer = false
		p++
		digits := p
		for p < len(b) && b[p]-'0' <= 9 {
			p++
		}
		if p == digits {
			return nil, false, x.syntax("a number")
		}
	}
	if p < len(b) && b[p]|0x20 == 'e' {
		integer = false
		p++
		if p < len(b) && (b[p] == '+' || b[p] == '-') {
			p++
		}
		digits := p
		for p < len(b) && b[p]-'0' <= 9 {
			p++
		}
		if p == digits {
			return nil, false, x.syntax("a number")
		}
	}
	x.p = p
	return b[start:p:p], integer, true
}

// skip reads any value, and checks it, within depth more levels.
func (x *scanner) skip(depth int) bool {
	switch c := x.peek(); c {
	case '"':
		_, _, _, ok := x.span()
		return ok
	case '{':
		return x.skipObject(depth)
	case '[':
		if depth == 0 {
			return x.fail(ReasonJSONDepth, "too many levels at byte %d", x.p)
		}
		x.p++
		if x.peek() == ']' {
			x.p++
			return true
		}
		for {
			if !x.skip(depth - 1) {
				return false
			}
			if !x.more(']') {
				return x.err == nil
			}
		}
	case 't':
		return x.literal("true")
	case 'f':
		return x.literal("false")
	case 'n':
		return x.literal("null")
	default:
		_, _, ok := x.number()
		return ok
	}
}

func (x *scanner) skipObject(depth int) bool {
	if depth == 0 {
		return x.fail(ReasonJSONDepth, "too many levels at byte %d", x.p)
	}
	n := nameSet{x: x, base: len(x.names)}
	defer n.release()
	for more := x.open(); more; more = x.more('}') {
		if _, ok := n.next(); !ok {
			return false
		}
		if !x.skip(depth - 1) {
			return false
		}
	}
	return x.err == nil
}

// open reads the opening brace and, of an empty object, the closing one. It reports whether a member follows.
func (x *scanner) open() bool {
	if !x.next('{') {
		return false
	}
	if x.peek() == '}' {
		x.p++
		return false
	}
	return true
}

// nameSet reads an object's names and refuses those that it has read before.
type nameSet struct {
	x    *scanner
	base int                 // names from here on are of this object
	many map[string]struct{} // instead, of an object with many
}

const manyNames = 32

// next reads a name and its colon.
func (n *nameSet) next() ([]byte, bool) {
	x := n.x
	name, ok := x.text()
	if !ok || !x.next(':') || !n.add(name) {
		return nil, false
	}
	return name, true
}

// add adds a name.
func (n *nameSet) add(name []byte) bool {
	x := n.x
	if n.many != nil {
		if _, twice := n.many[string(name)]; twice {
			return x.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(name))
		}
		n.many[string(name)] = struct{}{}
		return true
	}
	for _, other := range x.names[n.base:] {
		if bytes.Equal(name, other) {
			return x.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(name))
		}
	}
	x.names = append(x.names, name)
	if len(x.names)-n.base > manyNames {
		n.many = make(map[string]struct{}, 4*manyNames)
		for _, other := range x.names[n.base:] {
			n.many[string(other)] = struct{}{}
		}
		x.names = x.names[:n.base]
	}
	return true
}

// release forgets the object's names.
func (n *nameSet) release() { n.x.names = n.x.names[:n.base] }

// end checks that nothing but white space is left.
func (x *scanner) end() bool {
	x.peek()
	if x.p < len(x.b) {
		return x.fail(ReasonJSONTrailing, "%d bytes after the document: %s", len(x.b)-x.p, quote(x.b[x.p:min(len(x.b), x.p+16)]))
	}
	return true
}
