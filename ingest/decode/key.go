package decode

import (
	"encoding/hex"
	"slices"
	"unicode/utf8"

	"firn/changelog"
)

// readKey decodes the key of a record into d.key, and returns how it was read; nil if there is no key.
func (d *Decoder) readKey(r *Record) (*record, bool) {
	b := r.Key
	if d.noKey(b) {
		return nil, true
	}
	saved := d.scanner
	d.b, d.p, d.column = b, 0, ""
	key, ok := d.keyOf(r)
	saved.arena, saved.err = d.arena, d.err
	d.scanner = saved
	if ok {
		return key, true
	}
	switch d.err.Reason {
	case ReasonKeyNull, ReasonPlaceholderInKey, ReasonKeyDecode, ReasonSchemaUnknown:
	default:
		d.err = reject(ReasonKeyDecode, "%s: %s", d.err.Reason, d.err.Detail)
	}
	return nil, false
}

func (d *Decoder) keyOf(r *Record) (*record, bool) {
	if d.documents() {
		return d.documentKey(r)
	}
	if d.o.KeyFormat.framed() {
		return d.framedKey(r)
	}
	return d.keyDocument(r.Key)
}

func (d *Decoder) keyDocument(b []byte) (*record, bool) {
	format := d.o.KeyFormat
	if format == FormatAuto {
		format = FormatPlain
		if hasSchema(b) {
			format = FormatSchema
		}
	}
	if d.keys.from != d.from { // how keys are read depends on the connector, which their schema does not tell
		d.keys = schemaCache{compile: d.keys.compile, from: d.from}
	}
	if format == FormatPlain {
		if !d.keyUTF8(b) {
			return nil, false
		}
		return d.looseKey()
	}
	if p, ok := d.keys.known(b); ok && utf8.Valid(b[len(p.bytes):]) {
		d.p = len(p.bytes)
		if key, ok := d.keyPayload(p.schema); ok && d.peek() == '}' {
			d.p++
			return key, d.end()
		} else if !ok {
			return nil, false
		}
		d.p, d.key = 0, d.key[:0]
	}
	if !d.keyUTF8(b) {
		return nil, false
	}
	s, payload, ok := d.wrapper(&d.keys)
	if !ok {
		return nil, false
	}
	d.p = payload
	return d.keyPayload(s)
}

func (d *Decoder) keyUTF8(b []byte) bool {
	return utf8.Valid(b) || d.fail(ReasonKeyDecode, "invalid UTF-8")
}

func (d *Decoder) keyPayload(s *writerSchema) (*record, bool) {
	if s.rej != nil {
		return nil, d.fail(s.rej.Reason, "%s", s.rej.Detail)
	}
	d.key = resize(d.key, len(s.row.fields))
	return s.row, d.keyRecord(s.row, d.key)
}

// keyRecord reads a key's struct. No part of a key may be null or the placeholder.
func (d *Decoder) keyRecord(key *record, out []changelog.Value) bool {
	return d.record(key, out, nil, maxDepth) && d.noNulls(key, out)
}

func (d *Decoder) noNulls(key *record, out []changelog.Value) bool {
	for i := range out {
		if out[i].Null {
			return d.fail(ReasonKeyNull, "column %s", quote([]byte(key.fields[i].name)))
		}
	}
	return true
}

// otherKeys decodes the headers that tie the halves of a key change together. What does not parse is left out.
func (d *Decoder) otherKeys(headers []changelog.Header, key *record) {
	if key == nil || len(headers) == 0 {
		return
	}
	want, to := "__debezium.oldkey", &d.ev.OldKey
	switch d.ev.Op {
	case changelog.OpCreate:
	case changelog.OpDelete:
		want, to = "__debezium.newkey", &d.ev.NewKey
	default:
		return
	}
	i := slices.IndexFunc(headers, func(h changelog.Header) bool { return h.Key == want })
	if i < 0 || !utf8.Valid(headers[i].Value) {
		return
	}
	saved, reports := d.scanner, len(d.ev.Reports)
	d.b, d.p = headers[i].Value, 0
	ok := true
	if hasSchema(d.b) {
		_, d.p, ok = d.wrapper(&d.keys)
	}
	d.other = resize(d.other, len(key.fields))
	if ok && d.keyRecord(key, d.other) {
		*to = d.other
	}
	saved.arena = d.arena
	d.scanner = saved
	d.stack, d.others, d.ev.Reports = d.stack[:0], d.others[:0], d.ev.Reports[:reports]
}

// attachKey gives a rejection the record's key, if that is readable. The values outlive the decoder's next record.
func (d *Decoder) attachKey(r *Record, rej *Rejected) {
	if d.o.Form.Foreign() {
		d.foreignRejectKey(rej)
		return
	}
	if rej.Reason == ReasonMessageSize || d.noKey(r.Key) {
		return
	}
	d.scanner = scanner{names: d.names[:0], arena: d.arena}
	d.stack, d.others, d.key = d.stack[:0], d.others[:0], d.key[:0]
	key, ok := d.readKey(r)
	d.err = nil
	if !ok || key == nil {
		return
	}
	rej.setKey(key, d.key)
}

// tableKey appends the key of a table to dst: columns are found by name, values fit if the types read the same.
func tableKey(dst changelog.Key, s *changelog.Schema, columns []Column, values []changelog.Value) (changelog.Key, bool) {
	ordinals := s.KeyOrdinals()
	if len(ordinals) == 0 || len(columns) != len(ordinals) || len(values) != len(columns) {
		return dst, false
	}
	start := len(dst)
	for _, o := range ordinals {
		c := s.Columns[o]
		i := slices.IndexFunc(columns, func(k Column) bool { return k.Name == c.Name })
		if i < 0 {
			return dst[:start], false
		}
		v, ok := keyValue(values[i], columns[i].Type, c.Type)
		if !ok {
			return dst[:start], false
		}
		dst = c.AppendKey(dst, v)
	}
	return dst, true
}

// keyValue converts a value of a key column to the table's type.
func keyValue(v changelog.Value, from, to *changelog.Type) (changelog.Value, bool) {
	if hasKeyText(from) && to.Kind == changelog.String {
		return changelog.Value{B: appendKeyText(nil, from, v.B)}, true
	}
	return v, sameValues(from, to)
}

// hasKeyText reports whether key columns of a type are strings in tables that Amoro is to read (design section 7).
func hasKeyText(t *changelog.Type) bool {
	return t.Kind == changelog.UUID || t.Kind == changelog.Binary || t.Kind == changelog.Fixed
}

// appendKeyText appends what a key column's value is in a string column: the canonical text of a UUID, else lower-case hex.
func appendKeyText(dst []byte, t *changelog.Type, b []byte) []byte {
	if t.Kind == changelog.UUID {
		return appendUUID(dst, b)
	}
	return hex.AppendEncode(dst, b)
}

// appendUUID appends the text of a UUID of 16 bytes.
func appendUUID(dst, b []byte) []byte {
	const digits = "0123456789abcdef"
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}
