package decode

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"unicode/utf8"

	"firn/changelog"
)

// Decoder decodes the records of one topic. It is not safe for concurrent use: each partition has its own.
type Decoder struct {
	scanner
	o     Options
	codec *base64.Encoding
	holes holes

	values, keys schemaCache
	types        schemaCache         // of Canal's columns
	idKey        *record             // of documents
	textRow      *record             // of documents that are kept as text
	doc          []byte              // the row of the outbox event at hand, as JSON
	cloud        cloud               // of the record at hand
	metadata     map[string]metadata // of flattened rows
	flatRow      *record             // how flattened rows with a schema were last read
	headers      []changelog.Header  // of the record at hand
	loose        loose
	foreign      foreign
	from         connector // of the record at hand, or expected of it

	ev      Event
	env     envelope
	column  string            // the column at hand
	hole    bool              // the value at hand is the placeholder
	unknown bool              // a message without a schema does not fit the record it is read with
	stack   []changelog.Value // parts of nested values
	others  []changelog.Value // the values of maps in Avro, whose keys are on the stack
	spans   []protoSpan       // the fields of messages in Protobuf
	indexes []int             // of the message type at hand, in the schema
	limit   int               // of the arena, for the record at hand

	before, after, key, other []changelog.Value // what Event's slices are made of
	marks                     []int
	scratch                   []byte
	texts                     [lastText]interned
	native                    string        // of the last event
	keyBytes                  []byte        // the record's key, without its frame
	registered                []*registered // the first two are what was used last, or nearly so
	refused                   []refusal
	missing                   *MissingSchema // what the record at hand needs
	topic                     string
	named                     Kind // what the topic's name says
}

// New returns a decoder. It panics if o is not valid: Validate is for input.
func New(o Options) *Decoder {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		panic(err)
	}
	raw, _ := placeholderBytes(o.Placeholder) // valid
	d := &Decoder{o: o, codec: base64.StdEncoding.Strict(), holes: newHoles(raw)}
	if d.o.Form != FormOutbox {
		d.metadata, _ = metadataOf(d.o.Metadata) // valid
	}
	d.o.NoKey = d.o.NoKey || d.o.Form == FormOutbox // keys of messages are a column
	if o.Form.Foreign() {
		d.holes, d.from = holes{}, foreignConnector(o)
	}
	d.types.compile = compileCanal
	d.values.compile = d.compileValue
	d.keys.compile = d.compileKey
	d.loose.stale = true
	return d
}

// SetPlan tells how the table may change, before the first record. It matters to messages without a schema only: columns
// that have been or may be renamed or dropped are theirs only if they have them.
func (d *Decoder) SetPlan(o PlanOptions) { d.loose.plan, d.loose.stale = o, true }

// SetTable tells the table that the topic's events go to, before the first record and after each change of it. It
// matters to messages without a schema only: they are read by the table's columns.
func (d *Decoder) SetTable(s *changelog.Schema) {
	if s != d.loose.table {
		d.loose.table, d.loose.stale = s, true
	}
}

// Decode decodes one record, or the first event of one that has several: More tells, and Next gives the others. The error, if any, is a
// *Rejected or, in formats with a registry, a *MissingSchema. The event is valid until the next call.
func (d *Decoder) Decode(r Record) (*Event, error) {
	d.reset()
	d.missing, d.keyBytes, d.cloud = nil, r.Key, cloud{}
	d.limit = arenaSlack + arenaFactor*(len(r.Key)+len(r.Value))
	ok := d.decode(&r)
	if rej := d.err; !ok && d.missing == nil {
		d.attachKey(&r, rej)
		if d.missing == nil {
			d.refused = d.refused[:0]
			return nil, rej
		}
	}
	if d.missing != nil {
		return nil, d.missing
	}
	d.refused = d.refused[:0]
	return &d.ev, nil
}

func (d *Decoder) reset() {
	// Buffers that one huge record has grown are not kept for ever.
	const keep = 1 << 20
	if cap(d.arena) > keep {
		d.arena = nil
	}
	if cap(d.doc) > keep {
		d.doc = nil
	}
	if cap(d.stack) > keep/32 {
		d.stack = nil
	}
	d.scanner = scanner{names: d.names[:0], arena: d.arena[:0]}
	if cap(d.others) > keep/32 {
		d.others = nil
	}
	if cap(d.spans) > keep/8 {
		d.spans = nil
	}
	d.spans = d.spans[:0]
	d.stack, d.others, d.marks, d.key, d.other = d.stack[:0], d.others[:0], d.marks[:0], d.key[:0], d.other[:0]
	d.ev = Event{Reports: d.ev.Reports[:0]}
	d.env = envelope{}
	d.column, d.hole, d.unknown = "", false, false
	d.loose.read = nil
}

func (d *Decoder) decode(r *Record) bool {
	d.foreign.begin()
	if n := int64(len(r.Key)) + int64(len(r.Value)); n > d.o.MaxMessageBytes {
		return d.fail(ReasonMessageSize, "%d bytes", n)
	}
	d.headers = r.Headers
	if r.Topic != d.topic {
		d.topic, d.named = r.Topic, d.kindOfName(r.Topic)
	}
	if r.Value == nil {
		return d.nullValue(r)
	}
	if d.named == Heartbeat {
		d.ev.Kind = Heartbeat
		return true
	}
	if !d.readValue(r) {
		d.foreign.begin()
		return false
	}
	switch d.ev.Kind {
	case Change:
		if d.o.Form.Foreign() {
			return d.foreignChange()
		}
		return d.change(r)
	case Truncate:
		d.identify(nil, false)
		return true
	default:
		return true
	}
}

// kindOfName tells what a topic's name says: a hint that its messages must confirm, but for heartbeats.
func (d *Decoder) kindOfName(topic string) Kind {
	last := topic[strings.LastIndexByte(topic, '.')+1:]
	switch {
	case d.o.Topic == TopicTable || d.o.Form.Foreign():
		return Change
	case strings.HasPrefix(topic, d.o.HeartbeatPrefix+"."):
		return Heartbeat
	case last == "transaction":
		return Transaction
	case last == "message":
		return Message
	case last == topic:
		return SchemaChange
	}
	return Change
}

func (d *Decoder) noKey(key []byte) bool {
	return key == nil || d.o.NoKey || d.o.NullKey != "" && string(key) == d.o.NullKey
}

// readValue reads a value that is not null.
func (d *Decoder) readValue(r *Record) bool {
	switch {
	case d.o.Format.framed():
		return d.framedValue(r)
	case d.o.Format.isCloud():
		return d.cloudEvent(r)
	case d.o.Form == FormOutbox:
		return d.outbox(r, r.Value)
	}
	return d.document(r.Value)
}

// opening refuses documents by their first bytes, where those tell what is wrong.
func (d *Decoder) opening() bool {
	switch b := d.b; {
	case len(b) == 0:
		return d.fail(ReasonEmptyPayload, "")
	case b[0] <= 1:
		return d.fail(ReasonJSONSyntax, "looks framed: the first byte is %#02x", b[0])
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return d.fail(ReasonJSONSyntax, "looks compressed")
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return d.fail(ReasonJSONBOM, "")
	}
	return true
}

// document reads a value in JSON.
func (d *Decoder) document(b []byte) bool {
	if d.b = b; !d.opening() {
		return false
	}
	format := d.o.Format
	if format == FormatAuto || format.isCloud() || d.named != Change {
		format = FormatPlain
		if hasSchema(b) && !d.o.Form.Foreign() {
			format = FormatSchema
		}
	}
	if format == FormatPlain {
		return d.validUTF8(b) && d.payload(nil) && d.end()
	}
	if p, ok := d.values.known(b); ok {
		d.p = len(p.bytes)
		if !d.validUTF8(b[d.p:]) {
			return false
		}
		if !d.payload(p.schema) {
			return false
		}
		if d.peek() == '}' {
			d.p++
			return d.end()
		}
		d.restart()
	}
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		if d.o.Form != FormEnvelope {
			return d.nullRow()
		}
		return d.fail(ReasonNullLiteral, "")
	}
	if !d.validUTF8(b) {
		return false
	}
	s, payload, ok := d.wrapper(&d.values)
	if !ok {
		return false
	}
	d.p = payload
	return d.payload(s)
}

// restart forgets what was read of the record.
func (d *Decoder) restart() {
	b := d.b
	d.reset()
	d.b = b
}

func (d *Decoder) validUTF8(b []byte) bool {
	if utf8.Valid(b) {
		return true
	}
	return d.fail(ReasonUTF8, "invalid UTF-8")
}

// payload reads what the wrapper of a message with schema s wraps, or a message without one.
func (d *Decoder) payload(s *writerSchema) bool {
	if s != nil {
		if s.rej != nil {
			rej := *s.rej
			d.err = &rej
			return false
		}
		if s.kind != Change {
			d.ev.Kind = s.kind
			return d.skip(maxDepth)
		}
		d.from = s.from
	}
	if d.o.Form.Foreign() {
		return d.foreignMessage()
	}
	if d.o.Form != FormEnvelope {
		return d.flat(s)
	}
	switch d.peek() {
	case '{':
	case 'n':
		return d.literal("null") && d.fail(ReasonNullLiteral, "")
	default:
		if !d.skip(maxDepth) || s == nil && !d.end() {
			return false
		}
		return d.fail(ReasonEnvelopeShape, "no object")
	}
	return d.envelope(s)
}

// change completes a Change: its columns, key and identity.
func (d *Decoder) change(r *Record) bool {
	key, ok := d.readKey(r)
	if !ok {
		return false
	}
	if d.env.stale && !d.documents() && !d.rereadAfter() {
		return false
	}
	if d.env.valueErr != nil {
		d.err = d.env.valueErr
		return false
	}
	if key == nil && d.ev.Op == changelog.OpDelete && !d.env.before.given() {
		return d.fail(ReasonKeyMissing, "a delete without key and before")
	}
	row := d.env.row
	if row == nil && d.o.Form != FormEnvelope && !d.env.before.given() && !d.env.after.given() {
		row = d.keyOnly(r.Key)
	}
	if d.documents() && (d.env.doc != nil || !d.env.after.given()) {
		if row, ok = d.documentRow(); !ok {
			return false
		}
	}
	if row == nil {
		if row, ok = d.looseRow(); !ok {
			return false
		}
	}
	shape, rej := shapeOf(row, key)
	if rej != nil {
		d.err = rej
		return false
	}
	d.ev.Shape = shape
	if d.env.after.given() {
		d.after = resize(d.after, len(shape.Columns))
		if !d.fillKey(shape, len(row.columns())) {
			return false
		}
		d.ev.After, d.ev.Placeholders = d.after, d.marks
	}
	d.ev.Key = d.key
	d.readBefore(r, row, shape)
	d.otherKeys(r.Headers, key)
	d.identify(key, key == nil)
	return true
}

// rereadAfter reads After as the connector that the source block names writes it.
func (d *Decoder) rereadAfter() bool {
	e := &d.env
	if e.row == nil {
		if d.err = e.schema.rej; d.err == nil {
			return d.fail(ReasonTypeMismatch, "the row is no object")
		}
		return false
	}
	e.valueErr = nil
	if !e.after.given() {
		return true
	}
	d.marks, d.ev.Reports = d.marks[:0], d.ev.Reports[:0]
	d.after = resize(d.after, len(e.row.fields))
	return d.readRow(e.after.from, e.row, d.after)
}

// readRow reads the row that stands at p, in the format of the record at hand.
func (d *Decoder) readRow(p int, row *record, out []changelog.Value) bool {
	d.p = p
	if s := d.env.schema; s != nil && s.avro != nil {
		return d.avroRow(s.avro.row, row, out, &d.marks, maxAvroDepth)
	} else if s != nil && s.proto != nil {
		return d.protoRowAt(p, s.proto.row, row, out)
	}
	return d.record(row, out, &d.marks, maxDepth-1)
}

// resize returns values with n elements; what it holds stays.
func resize(values []changelog.Value, n int) []changelog.Value {
	if values == nil { // an image without columns is one, too
		values = []changelog.Value{}
	}
	if n <= cap(values) {
		return values[:n]
	}
	return append(values[:cap(values)], make([]changelog.Value, n-cap(values))...)
}

// fillKey gives After the key's values where rows have none, and compares them where they have (1.16).
func (d *Decoder) fillKey(shape *Shape, fields int) bool {
	for i, o := range shape.Key {
		k := d.key[i]
		if o >= fields {
			d.after[o] = k
			continue
		}
		if j := slices.Index(d.marks, o); j >= 0 {
			d.after[o] = k
			d.marks = slices.Delete(d.marks, j, j+1)
			continue
		}
		v := d.after[o]
		if v.Null || v.I != k.I || !bytes.Equal(v.B, k.B) {
			return d.fail(ReasonKeyMismatch, "column %s differs between key and row", quote([]byte(shape.Columns[o].Name)))
		}
	}
	return true
}

// readBefore decodes the old row where it can be trusted (D4) and is whole.
func (d *Decoder) readBefore(r *Record, row *record, shape *Shape) {
	if d.ev.Op != changelog.OpUpdate && d.ev.Op != changelog.OpDelete || !d.env.before.given() || d.o.Form != FormEnvelope {
		return
	}
	if !d.trusted() && (!d.o.TrustKeyless || r.Key != nil) {
		return
	}
	d.before = resize(d.before, len(shape.Columns))
	marks, reports := len(d.marks), len(d.ev.Reports)
	d.unknown = false
	read := func() bool { return d.readRow(d.env.before.from, row, d.before) }
	if d.env.oldDoc != nil {
		read = func() bool { return d.oldDocument(row, d.before) }
	}
	ok := read() && !d.unknown && len(d.marks) == marks
	d.marks, d.ev.Reports, d.err = d.marks[:marks], d.ev.Reports[:reports], nil
	if !ok {
		return // the change itself is sound: it goes without its old row
	}
	for i, o := range shape.Key {
		if o >= len(row.fields) {
			d.before[o] = d.key[i]
		}
	}
	d.ev.Before = d.before
}

func (d *Decoder) trusted() bool {
	switch d.o.Identity {
	case IdentityFull:
		return true
	case IdentityDefault:
		return false
	default:
		switch d.from {
		case connectorMySQL, connectorMariaDB, connectorSQLServer, connectorOracle:
			return true
		default:
			return false
		}
	}
}

// shapeOf returns the shape of rows read as row with keys read as key.
func shapeOf(row, key *record) (*Shape, *Rejected) {
	for _, k := range row.shapes {
		if k.key == key {
			return k.shape, k.rej
		}
	}
	shape, rej := newShape(row, key)
	const most = 8
	if len(row.shapes) == most {
		row.shapes = slices.Delete(row.shapes, 0, 1)
	}
	row.shapes = append(row.shapes, keyedShape{key, shape, rej})
	return shape, rej
}

func newShape(row, key *record) (*Shape, *Rejected) {
	s := &Shape{}
	for _, f := range row.columns() {
		s.Columns = append(s.Columns, f.shapeColumn())
		if f.note != 0 {
			s.Notes = append(s.Notes, ColumnNote{f.name, f.note})
		}
	}
	if key == nil {
		return s, nil
	}
	for _, f := range key.fields {
		i, ok := row.index[f.name]
		if !ok || i >= len(row.columns()) {
			i = len(s.Columns)
			s.Columns = append(s.Columns, f.shapeColumn())
		} else if a, b := s.Columns[i].Type, f.conv.typ; !sameValues(a, b) {
			return nil, reject(ReasonKeyMismatch, "column %s is %s in the key, %s in the row", quote([]byte(f.name)), b, a)
		}
		s.Key = append(s.Key, i)
	}
	return s, nil
}

func (f *field) shapeColumn() Column {
	return Column{Name: f.name, Type: f.conv.typ, Connect: f.conv.connect}
}

// sameValues reports whether equal values of two types have equal Values.
func sameValues(a, b *changelog.Type) bool {
	switch a.Kind {
	case changelog.Int, changelog.Long:
		return b.Kind == changelog.Int || b.Kind == changelog.Long
	case changelog.Decimal:
		return b.Kind == changelog.Decimal && a.Scale == b.Scale
	default:
		return a.Equal(b)
	}
}
