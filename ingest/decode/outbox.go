package decode

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/zeebo/xxh3"

	"firn/changelog"
)

// Payload is what column payload of an outbox table holds (1.14).
type Payload uint8

// The ways.
const (
	PayloadText     Payload = iota // the JSON text, whether the router has expanded it or not
	PayloadExpanded                // a struct or list, read from the JSON
	PayloadBinary                  // the value as it is, in any format
)

// The columns of an outbox table, as Debezium calls them.
const (
	outboxID            = "id"
	outboxAggregateType = "aggregatetype"
	outboxAggregateID   = "aggregateid"
	outboxType          = "type"
	outboxTimestamp     = "timestamp"
	outboxHeaders       = "headers"
	outboxPayload       = "payload"
)

// outboxPrefix begins the names of the router's topics; the aggregate's type follows.
const outboxPrefix = "outbox.event."

// outboxEvent is what is known of an event before its row is read. Texts are not quoted; nil: not there.
type outboxEvent struct {
	texts   map[string][]byte // of columns id, aggregatetype, aggregateid and type
	headers []changelog.Header
	id      []byte
}

// outboxMetadata checks Options.Metadata of an outbox.
func outboxMetadata(names map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch what := names[name]; what {
		case outboxID, outboxType, outboxAggregateType, outboxAggregateID, "header":
			if name == "" || name == outboxPayload {
				return fmt.Errorf("decode: metadata: %q is no name of a header or of a member beside payload", name)
			}
		default:
			return fmt.Errorf("decode: metadata: %q is %q: want id, type, aggregatetype, aggregateid or header", name, what)
		}
	}
	return nil
}

// outboxFields returns the columns that every outbox table has.
func (d *Decoder) outboxFields(add func(name string, v *conv)) {
	text := func(name string) {
		v := &conv{}
		v.set(readText, changelog.String)
		add(name, v)
	}
	text(outboxID)
	text(outboxAggregateType)
	text(outboxAggregateID)
	text(outboxType)
	at := &conv{low: -1 << 63, high: 1<<63 - 1}
	at.op, at.typ, at.unit = readTimestamp, changelog.Primitive(changelog.TimestampTZ), 1000
	add(outboxTimestamp, at)
	headers := &conv{op: readMap, key: &conv{}, elem: &conv{}}
	headers.key.set(readText, changelog.String)
	headers.elem.set(readText, changelog.String)
	headers.typ = changelog.MapOf(headers.key.typ, headers.elem.typ)
	add(outboxHeaders, headers)
	switch d.o.Payload {
	case PayloadText:
		text(outboxPayload)
	case PayloadBinary:
		v := &conv{}
		v.set(readBytes, changelog.Binary)
		add(outboxPayload, v)
	case PayloadExpanded: // as the payloads are
	}
}

// outbox reads the value of an event that the outbox router has made: a row to add. The row is written out as JSON without a schema, and read
// as such: what it has of payloads evolves like any other column.
func (d *Decoder) outbox(r *Record, value []byte) bool {
	ev := &outboxEvent{texts: map[string][]byte{}}
	payload, ok := d.outboxValue(value, ev)
	switch {
	case !ok:
		return false
	case payload == nil:
		d.ev.Kind = Tombstone // there is nothing to add
		return true
	case !d.outboxFacts(r, ev):
		return false
	}
	d.doc = d.outboxDocument(d.doc[:0], r, ev, payload)
	d.limit += arenaFactor * len(d.doc)
	d.b, d.p, d.ev.Op, d.env.op = d.doc, 0, changelog.OpCreate, 'c'
	if !d.readAfter() {
		return false
	}
	end := d.p
	row, ok := d.looseRow()
	if !ok {
		return false
	}
	d.loose.read, d.p = row, end
	if d.ev.SourceTime = d.cloudTime(); r.Timestamp > 0 && r.Timestamp < 1<<53 {
		d.ev.SourceTime = r.Timestamp * 1000
	}
	d.ev.Identity, d.ev.HasIdentity = xxh3.Hash128(ev.id).Bytes(), true
	for _, h := range ev.headers {
		if !utf8.Valid(h.Value) {
			d.column = outboxHeaders
			d.report(ReasonUTF8, "header "+quote([]byte(h.Key))+" is no text")
		}
	}
	return true
}

// outboxValue finds the payload, as JSON, of a value, and what stands beside it; nil: a null.
func (d *Decoder) outboxValue(value []byte, ev *outboxEvent) ([]byte, bool) {
	if d.b = value; d.o.Payload == PayloadBinary {
		return append(d.codec.AppendEncode([]byte{'"'}, value), '"'), true
	}
	if !d.opening() || !d.validUTF8(value) || !d.skip(maxDepth) || !d.end() {
		return nil, false
	}
	payload := bytes.TrimSpace(value)
	if d.o.Format == FormatSchema || d.o.Format != FormatPlain && hasSchema(payload) {
		inner, wrapped := unwrapped(payload)
		switch {
		case wrapped:
			payload = inner
		case d.o.Format == FormatSchema:
			return nil, d.fail(ReasonSchemaMissing, "the message has no schema")
		}
	}
	if inner, ok := d.outboxEnvelope(payload, ev); ok {
		payload = inner
	}
	switch {
	case payload[0] == 'n':
		return nil, true
	case d.o.Payload == PayloadText && payload[0] != '"':
		return appendJSONText(nil, payload), true
	case d.o.Payload == PayloadExpanded && payload[0] == '"':
		if inner := bytes.TrimSpace(d.plain(payload)); len(inner) > 0 && (inner[0] == '{' || inner[0] == '[') {
			x := scanner{b: inner}
			if x.skip(maxDepth-1) && x.end() {
				return inner, true
			}
		}
	}
	return payload, true
}

// unwrapped returns the payload of {"schema":…,"payload":…}; false: doc, which is sound JSON, is something else.
func unwrapped(doc []byte) ([]byte, bool) {
	var schema, payload []byte
	for name, raw := range jsonMembers(doc) {
		switch string(name) {
		case "schema":
			schema = raw
		case "payload":
			payload = raw
		default:
			return nil, false
		}
	}
	if schema == nil || payload == nil {
		return nil, false
	}
	if schema[0] != 'n' {
		x := scanner{b: schema}
		if _, _, ok := x.connectSchema(maxSchemaDepth); !ok {
			return nil, false
		}
	}
	return payload, true
}

// outboxEnvelope takes apart a value that holds the payload and columns which the router was told to put beside it; false: it is another one.
func (d *Decoder) outboxEnvelope(doc []byte, ev *outboxEvent) (payload []byte, ok bool) {
	if len(d.o.Metadata) == 0 || doc[0] != '{' {
		return nil, false
	}
	for name, raw := range jsonMembers(doc) {
		if string(name) == outboxPayload {
			payload = raw
		} else if d.o.Metadata[string(name)] == "" {
			return nil, false
		}
	}
	if payload == nil {
		return nil, false
	}
	for name, raw := range jsonMembers(doc) {
		if what := d.o.Metadata[string(name)]; what != "" && raw[0] != 'n' {
			ev.set(what, string(name), d.plain(raw))
		}
	}
	return payload, true
}

// jsonMembers ranges over the members of a sound document that is an object; of another one there are none.
func jsonMembers(doc []byte) func(yield func(name, raw []byte) bool) {
	return func(yield func(name, raw []byte) bool) {
		x := scanner{b: doc}
		if x.peek() != '{' {
			return
		}
		for more := x.open(); more; more = x.more('}') {
			name, ok := x.text()
			if !ok || !x.next(':') {
				return
			}
			x.peek()
			from := x.p
			if !x.skip(maxDepth) || !yield(name, doc[from:x.p:x.p]) {
				return
			}
		}
	}
}

// set takes a header or member that Options.Metadata names.
func (ev *outboxEvent) set(what, name string, text []byte) {
	if what == "header" {
		ev.headers = append(ev.headers, changelog.Header{Key: name, Value: text})
		return
	}
	ev.texts[what] = text
}

// outboxFacts takes what headers, key and topic say.
func (d *Decoder) outboxFacts(r *Record, ev *outboxEvent) bool {
	seen := map[string]bool{}
	for _, h := range ev.headers { // from beside the payload
		seen[h.Key] = true
	}
	named := slices.Contains(slices.Collect(maps.Values(d.o.Metadata)), outboxID)
	for _, h := range slices.Backward(r.Headers) { // the last one counts
		what := d.o.Metadata[h.Key]
		if what == "" && h.Key == outboxID && !named {
			what = outboxID
		}
		switch {
		case seen[h.Key] || !utf8.ValidString(h.Key):
		case what == "":
			ev.headers = append(ev.headers, h)
		case h.Value != nil && utf8.Valid(h.Value) && (what == "header" || ev.texts[what] == nil):
			ev.set(what, h.Key, d.plain(h.Value))
		}
		seen[h.Key] = true
	}
	if ev.texts[outboxID] == nil && d.cloud.given {
		ev.texts[outboxID] = d.plain(d.cloud.id)
	}
	if ev.texts[outboxType] == nil && d.cloud.given && !bytes.HasPrefix(d.plain(d.cloud.typ), []byte("io.debezium.")) {
		ev.texts[outboxType] = d.plain(d.cloud.typ)
	}
	if ev.id = ev.texts[outboxID]; len(ev.id) == 0 {
		return d.fail(ReasonRequiredMissing, "no header id: the event cannot be told from one that is sent again")
	}
	if ev.texts[outboxAggregateID] == nil && r.Key != nil && (d.o.NullKey == "" || string(r.Key) != d.o.NullKey) {
		if !utf8.Valid(r.Key) {
			return d.fail(ReasonKeyDecode, "the key is no text")
		}
		ev.texts[outboxAggregateID] = d.outboxKey(r.Key)
	}
	if ev.texts[outboxAggregateType] == nil {
		of, ok := strings.CutPrefix(r.Topic, outboxPrefix)
		if !ok {
			of = of[strings.LastIndexByte(of, '.')+1:]
		}
		ev.texts[outboxAggregateType] = []byte(of)
	}
	return true
}

// outboxKey returns the text of a key: a scalar, as JSON with or without a schema or as it is, or a struct, which stays JSON but for one of
// a single scalar.
func (d *Decoder) outboxKey(key []byte) []byte {
	x := scanner{b: key}
	if !x.skip(maxDepth) || !x.end() {
		return key
	}
	doc := bytes.TrimSpace(key)
	if inner, ok := unwrapped(doc); ok {
		doc = inner
	}
	n, only := 0, doc
	for _, raw := range jsonMembers(doc) {
		n, only = n+1, raw
	}
	if n == 1 && only[0] != '{' && only[0] != '[' {
		doc = only
	}
	if string(doc) == "null" {
		return nil
	}
	return d.plain(doc)
}

// outboxDocument appends the row as JSON.
func (d *Decoder) outboxDocument(dst []byte, r *Record, ev *outboxEvent, payload []byte) []byte {
	dst = append(dst, '{')
	for _, name := range [...]string{outboxID, outboxAggregateType, outboxAggregateID, outboxType} {
		dst = append(append(append(dst, '"'), name...), `":`...)
		if text := ev.texts[name]; text != nil {
			dst = appendJSONText(dst, text)
		} else {
			dst = append(dst, "null"...)
		}
		dst = append(dst, ',')
	}
	if r.Timestamp > 0 {
		dst = strconv.AppendInt(append(dst, `"timestamp":`...), r.Timestamp, 10)
		dst = append(dst, ',')
	}
	dst = append(dst, `"headers":{`...)
	for i, h := range ev.headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONText(dst, []byte(h.Key)), ':')
		if h.Value != nil && utf8.Valid(h.Value) {
			dst = appendJSONText(dst, h.Value)
		} else {
			dst = append(dst, "null"...)
		}
	}
	return append(append(append(dst, `},"payload":`...), payload...), '}')
}
