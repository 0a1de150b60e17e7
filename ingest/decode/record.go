package decode

import (
	"strings"

	"firn/changelog"
)

// record is how an object is read against known members: a row, a key, a struct.
type record struct {
	fields []field
	index  map[string]int // only for members that are out of order
	strict bool           // an unknown member is an error; else it sets unknown of the decoder
	extra  int            // of records that are not strict: fields from here on must be there, else unknown is set
	meta   int            // so many fields at the end are no columns

	shapes []keyedShape
}

// keyedShape is the shape of rows with one kind of key.
type keyedShape struct {
	key   *record // nil: no key
	shape *Shape
	rej   *Rejected
}

type field struct {
	name     string
	quoted   []byte // the name and the colon, as converters write them
	required bool   // must be there
	note     Note
	meta     metadata // 0: it is a column
	conv     *conv
}

func (r *record) add(name string, v *conv, required bool) {
	if r.index == nil {
		r.index = map[string]int{}
	}
	r.index[name] = len(r.fields)
	r.fields = append(r.fields, field{name: name, quoted: quoted(name), required: required, conv: v})
}

// quoted returns a member's name and colon as JSON with the escapes that everyone must write.
func quoted(name string) []byte {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, len(name)+3)
	b = append(b, '"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"', ':')
}

func (r *record) structType() *changelog.Type {
	t := &changelog.Type{Kind: changelog.Struct}
	for _, f := range r.fields {
		t.Fields = append(t.Fields, changelog.Column{Name: f.name, Type: f.conv.typ})
	}
	return t
}

// memberSet marks the members of an object that were read.
type memberSet [(maxColumns + 63) / 64]uint64

func (s *memberSet) add(i int) bool {
	bit := uint64(1) << (i & 63)
	if s[i>>6]&bit != 0 {
		return false
	}
	s[i>>6] |= bit
	return true
}

func (s *memberSet) has(i int) bool { return s[i>>6]>>(i&63)&1 == 1 }

// member finds the next member of an object: its field's number, or -1 and its name if the record has none. next is the
// number after the last one found, where almost always the member is.
func (x *scanner) member(r *record, next int, seen *memberSet) (i int, name []byte, ok bool) {
	if next < len(r.fields) {
		q := r.fields[next].quoted
		if p := x.p; len(x.b)-p >= len(q) && string(x.b[p:p+len(q)]) == string(q) {
			if !seen.add(next) {
				return 0, nil, x.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(q[:len(q)-1]))
			}
			x.p = p + len(q)
			return next, nil, true
		}
	}
	name, ok = x.text()
	if !ok || !x.next(':') {
		return 0, nil, false
	}
	i, known := r.index[string(name)]
	if !known {
		return -1, name, true
	}
	if !seen.add(i) {
		return 0, nil, x.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(name))
	}
	return i, nil, true
}

// record reads an object into out, which has a value for each field. Where marks is not nil it collects the fields that
// held the placeholder.
func (d *Decoder) record(r *record, out []changelog.Value, marks *[]int, depth int) bool {
	if d.peek() != '{' {
		return d.fail(ReasonTypeMismatch, "no object: %s", d.here())
	}
	if depth == 0 {
		return d.fail(ReasonJSONDepth, "too many levels at byte %d", d.p)
	}
	var seen memberSet
	unknown := nameSet{x: &d.scanner, base: len(d.names)}
	defer unknown.release()
	next, count := 0, 0
	for more := d.open(); more; more = d.more('}') {
		i, name, ok := d.member(r, next, &seen)
		switch {
		case !ok:
			return false
		case i < 0:
			if !d.unknownMember(r, &unknown, name, depth) {
				return false
			}
			continue
		}
		next, count = i+1, count+1
		f := &r.fields[i]
		if f.meta > 0 {
			if out[i] = changelog.NullValue; !d.flatMember(f.meta) {
				return d.at(f.name)
			}
			continue
		}
		if marks != nil {
			d.column = f.name
		}
		d.hole = false
		if !d.value(f.conv, &out[i], depth-1) {
			return d.at(f.name)
		}
		if d.hole && !d.mark(f, i, out, marks) {
			return false
		}
	}
	if d.err != nil {
		return false
	}
	if count == len(r.fields) {
		return true
	}
	for i := range r.fields {
		if seen.has(i) {
			continue
		}
		if r.fields[i].required {
			return d.fail(ReasonRequiredMissing, "member %s", quote([]byte(r.fields[i].name)))
		}
		if !r.strict && i >= r.extra {
			d.unknown = true
		}
		out[i] = changelog.NullValue
	}
	return true
}

// mark notes that field i held the placeholder: it is null in out, and in marks, unless the record is a key.
func (d *Decoder) mark(f *field, i int, out []changelog.Value, marks *[]int) bool {
	if marks == nil {
		return d.fail(ReasonPlaceholderInKey, "member %q", f.name)
	}
	out[i] = changelog.NullValue
	*marks = append(*marks, i)
	d.hole = false
	return true
}

// unknownMember deals with a member that r has no field for. Without a schema a null says nothing.
func (d *Decoder) unknownMember(r *record, names *nameSet, name []byte, depth int) bool {
	if r.strict {
		return d.fail(ReasonSchemaMismatch, "member %s is not in the schema", quote(name))
	}
	if !names.add(name) {
		return false
	}
	if d.peek() != 'n' {
		d.unknown = true
	}
	return d.skip(depth - 1)
}

// walk checks an object as skip does, and as fast as record reads.
func (d *Decoder) walk(r *record, depth int) bool {
	if d.peek() != '{' {
		return d.skip(depth)
	}
	var seen memberSet
	unknown := nameSet{x: &d.scanner, base: len(d.names)}
	defer unknown.release()
	next := 0
	for more := d.open(); more; more = d.more('}') {
		i, name, ok := d.member(r, next, &seen)
		if !ok || i < 0 && !unknown.add(name) || !d.skip(depth-1) {
			return false
		}
		if i >= 0 {
			next = i + 1
		}
	}
	return d.err == nil
}

// at puts the name of a member before the detail of the error.
func (d *Decoder) at(name string) bool {
	if d.err != nil && !structural(d.err.Reason) {
		if strings.HasPrefix(d.err.Detail, "column ") {
			d.err.Detail = d.err.Detail[len("column "):]
			d.err.Detail = "column " + quote([]byte(name)) + "." + d.err.Detail
		} else {
			d.err.Detail = "column " + quote([]byte(name)) + ": " + d.err.Detail
		}
	}
	return false
}

// structural reports whether a reason is about the document, not about a value in it.
func structural(reason string) bool {
	switch reason {
	case ReasonUTF8, ReasonJSONBOM, ReasonJSONSyntax, ReasonJSONTrailing, ReasonJSONDepth, ReasonJSONDuplicateKey, ReasonAvroDecode, ReasonAvroTrailing, ReasonProtoDecode:
		return true
	}
	return false
}

func (d *Decoder) here() string { return quote(d.b[d.p:min(len(d.b), d.p+24)]) }
