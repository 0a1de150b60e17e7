package decode

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"firn/changelog"
)

// metadata is what a member of a flattened row is if it is no column: metaSource and the number of a member of the source block, or one
// of the others. 0: a column.
type metadata uint8

const (
	metaIgnored metadata = iota + 1
	metaOp
	metaDeleted
	metaTxID
	metaTxOrder
	metaSource // and above
)

// metadataOf reads Options.Metadata.
func metadataOf(names map[string]string) (map[string]metadata, error) {
	out := make(map[string]metadata, len(names))
	for _, name := range slices.Sorted(maps.Keys(names)) {
		member, ofSource := strings.CutPrefix(names[name], "source.")
		switch what := names[name]; {
		case name == "":
			return nil, fmt.Errorf("decode: metadata: a member without a name is %q", what)
		case ofSource && sourceMember([]byte(member)) < srcMembers:
			out[name] = metaSource + metadata(sourceMember([]byte(member))) //nolint:gosec // few
		case ofSource && member != "", what == "ts_ms", what == "ts_us", what == "ts_ns", what == "transaction.data_collection_order":
			out[name] = metaIgnored
		case what == "op":
			out[name] = metaOp
		case what == "deleted":
			out[name] = metaDeleted
		case what == "transaction.id":
			out[name] = metaTxID
		case what == "transaction.total_order":
			out[name] = metaTxOrder
		default:
			return nil, fmt.Errorf("decode: metadata: %q is %q: want op, deleted, ts_ms, ts_us, ts_ns, transaction.id, transaction.total_order, "+
				"transaction.data_collection_order or source. and a member of the source block", name, what)
		}
	}
	return out, nil
}

// compileFlat compiles the schema of flattened or plain rows: that of the row itself. Metadata come last.
func (d *Decoder) compileFlat(w *writerSchema, s *connectSchema) *writerSchema {
	if s.typ != "struct" {
		w.rej = reject(ReasonEnvelopeShape, "the schema is %q, no row's", s.typ)
		return w
	}
	if w.from == connectorOther {
		w.from = connectorOf(d.o.Connector)
	}
	slices.SortStableFunc(s.fields, func(a, b connectField) int { return compareBool(d.metadata[a.name] > 0, d.metadata[b.name] > 0) })
	if w.row, w.rej = d.compiler(w.from).record(s); w.rej == nil {
		w.row.split(d.metadata)
	}
	return w
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// split marks the fields that are metadata. They stand behind the columns.
func (r *record) split(metadata map[string]metadata) {
	for i := range r.fields {
		if m := metadata[r.fields[i].name]; m > 0 {
			r.fields[i].meta, r.fields[i].required = m, false
			r.meta++
		}
	}
}

// columns returns the fields that are columns.
func (r *record) columns() []field { return r.fields[:len(r.fields)-r.meta] }

// flatMember takes the value at hand, of a member that is no column.
func (d *Decoder) flatMember(m metadata) bool {
	if m == metaOp {
		return d.readOp()
	}
	d.peek()
	from := d.p
	if !d.skip(maxDepth - 2) {
		return false
	}
	raw := d.b[from:d.p]
	if raw[0] == 'n' {
		raw = nil
	}
	return d.metadatum(m, raw)
}

// metadatum takes a value of metadata, as JSON or, from a header, as text; nil: null.
func (d *Decoder) metadatum(m metadata, raw []byte) bool {
	e := &d.env
	switch m {
	case metaDeleted:
		switch string(d.plain(raw)) {
		case "true":
			e.deleted = true
		case "false", "":
		default:
			return d.fail(ReasonEnvelopeShape, "the mark of deletes is %s, not true or false", quote(raw))
		}
	case metaTxID:
		e.txID = raw
	case metaTxOrder:
		e.txOrder = raw
	case metaIgnored:
	case metaOp:
		if e.op, e.opText = 1, d.plain(raw); len(e.opText) == 1 {
			e.op = e.opText[0]
		}
	default:
		e.source[m-metaSource] = raw
	}
	return true
}

// flat reads a value that is a row, or null. s is its schema; nil: it has none.
func (d *Decoder) flat(s *writerSchema) bool {
	e := &d.env
	if s == nil && d.named != Change { // a transaction's or a message's, which no transformation flattens; or a table with such a name
		at := d.p
		if d.envelope(nil) && d.ev.Kind != Change {
			return true
		}
		d.restart()
		d.p = at
	}
	if s != nil {
		e.schema, e.row = s, s.row
		d.flatRow = s.row
	} else {
		d.expect(connectorOf(d.o.Connector))
	}
	switch d.peek() {
	case 'n':
		return d.literal("null") && d.nullRow()
	case '{':
	default:
		if !d.skip(maxDepth) {
			return false
		}
		return d.fail(ReasonEnvelopeShape, "no object")
	}
	if !d.readAfter() || e.valueErr != nil && !d.onlyMetadata() {
		return false
	}
	if s == nil { // what the row says of itself has to be known
		end := d.p
		row, ok := d.looseRow()
		if !ok {
			return false
		}
		d.loose.read, d.p = row, end
	}
	return d.flatHeaders(d.headers) && d.classifyFlat()
}

// onlyMetadata reads the metadata of a row that is not read to its end because of a column: a delete needs none.
func (d *Decoder) onlyMetadata() bool {
	end := d.p
	d.p = d.env.after.from
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return false
		}
		if m := d.metadata[string(name)]; m > 0 {
			ok = d.flatMember(m)
		} else {
			ok = d.skip(maxDepth - 2)
		}
		if !ok {
			return false
		}
	}
	d.p = end
	return d.err == nil
}

// expect has values read as a connector writes them.
func (d *Decoder) expect(from connector) {
	if from != d.from {
		d.from, d.loose.stale = from, true
	}
}

// nullRow makes a value that is null what it means: a delete, or nothing (1.13).
func (d *Decoder) nullRow() bool {
	if d.o.Form != FormFlattened || d.o.Deletes != DeletesNull {
		d.ev.Kind = Tombstone
		return true
	}
	d.ev.Op, d.env.op = changelog.OpDelete, 'd'
	return true
}

// flatHeaders takes the metadata that are in headers (add.headers of the transformation); what the row has counts more.
func (d *Decoder) flatHeaders(headers []changelog.Header) bool {
	if len(d.metadata) == 0 {
		return true
	}
	row := d.env
	for _, h := range headers {
		if m := d.metadata[h.Key]; m > 0 && len(h.Value) > 0 && utf8.Valid(h.Value) && !d.metadatum(m, h.Value) {
			return false
		}
	}
	e := &d.env
	e.deleted = e.deleted || row.deleted
	if row.op != 0 {
		e.op, e.opText = row.op, row.opText
	}
	if row.txID != nil {
		e.txID, e.txOrder = row.txID, row.txOrder
	}
	for i, raw := range row.source {
		if raw != nil {
			e.source[i] = raw
		}
	}
	return true
}

// classifyFlat decides what a row is by its metadata.
func (d *Decoder) classifyFlat() bool {
	d.cloudAttributes()
	e := &d.env
	switch {
	case e.deleted || e.op == 'd':
		e.op, d.ev.Op = 'd', changelog.OpDelete
		// The row is that of before, and only its key can be trusted (D4).
		e.before, e.after, e.valueErr = e.after, extent{}, nil
		d.marks, d.ev.Reports = d.marks[:0], d.ev.Reports[:0]
	case e.op == 'c', e.op == 0: // an insert or an update, it does not tell: the old row of its key goes (D5)
		d.ev.Op = changelog.OpCreate
	case e.op == 'r':
		d.ev.Op = changelog.OpRead
	case e.op == 'u':
		d.ev.Op = changelog.OpUpdate
	default:
		return d.fail(ReasonOpUnknown, "%s", quote(e.opText))
	}
	if e.source[srcConnector] == nil && d.from != connectorOther {
		e.source[srcConnector] = []byte(d.o.Connector)
	}
	return d.origin()
}

// nullValue decides what a record with a null value is.
func (d *Decoder) nullValue(r *Record) bool {
	switch {
	case d.noKey(r.Key) && d.o.Form != FormPlain && d.o.Form != FormOutbox:
		d.ev.Kind = TombstoneWithoutKey
		return true
	case d.o.Form != FormFlattened || d.o.Deletes != DeletesNull || d.named == Heartbeat:
		d.ev.Kind = Tombstone
		return true
	}
	d.expect(connectorOf(d.o.Connector))
	return d.nullRow() && d.change(r)
}

// keyOnly is how the row of a delete without a row is read where its key has a schema: as rows were last, so that it asks nothing else of
// the table; before there was one, as a row of the key's columns.
func (d *Decoder) keyOnly(key []byte) *record {
	if !d.o.KeyFormat.framed() && !hasSchema(key) {
		return nil
	}
	if d.flatRow == nil {
		d.flatRow = &record{}
	}
	return d.flatRow
}
