package decode

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"firn/changelog"
)

// cloud is what a CloudEvent says of itself (1.12), as JSON, or, from headers, as text. nil: it does not.
type cloud struct {
	given   bool // the record is a CloudEvent
	id      []byte
	from    []byte // the attribute source
	typ     []byte
	version []byte
	time    []byte
	content []byte // datacontenttype
	data    []byte
	base64  []byte // data_base64
	op      []byte
	txOrder []byte
	source  source
	sourced bool // a member of the source block is there
}

// isCloud reports whether values of f are CloudEvents.
func (f Format) isCloud() bool { return f == FormatCloudEvents || f == FormatCloudEventsAvro }

// cloudPrefix begins the extension attributes that Debezium adds.
const cloudPrefix = "iodebezium"

// cloudNames are the members of the source block by their extension attribute: lower case, without "_".
var cloudNames = func() map[string]int {
	out := map[string]int{}
	for _, name := range []string{
		"connector", "name", "db", "schema", "table", "collection", "snapshot", "ts_ms", "ts_us", "ts_ns", "sequence", "txId", "lsn", "gtid", "file",
		"pos", "row", "server_id", "commit_lsn", "change_lsn", "event_serial_no", "scn", "commit_scn", "rs_id", "ssn", "txSeq", "lcr_position", "ord",
		"lsid", "txnNumber",
	} {
		out[strings.ToLower(strings.ReplaceAll(name, "_", ""))] = sourceMember([]byte(name))
	}
	return out
}()

// cloudEvent reads a value that is a CloudEvent: a JSON object (structured mode), or the data alone, with the attributes in headers (binary
// mode).
func (d *Decoder) cloudEvent(r *Record) bool {
	if d.named != Change && !bytes.Contains(r.Value, []byte(`"specversion"`)) {
		return d.document(r.Value) // the converter wraps changes of rows only
	}
	content := lastHeader(r.Headers, "content-type")
	if lastHeader(r.Headers, "ce_specversion") == nil || bytes.HasPrefix(content, []byte("application/cloudevents")) {
		return d.structuredEvent(r)
	}
	c := &d.cloud
	for _, h := range r.Headers {
		name, ok := strings.CutPrefix(h.Key, "ce_")
		if !ok || h.Value == nil {
			continue
		}
		if !utf8.Valid(h.Value) {
			return d.fail(ReasonUTF8, "invalid UTF-8 in header %s", quote([]byte(h.Key)))
		}
		c.attribute([]byte(name), h.Value)
	}
	c.content, c.data = content, r.Value
	return d.cloudShape() && d.cloudData(r, false)
}

// structuredEvent reads a CloudEvent in structured mode.
func (d *Decoder) structuredEvent(r *Record) bool {
	if d.b = r.Value; !d.opening() || !d.validUTF8(d.b) {
		return false
	}
	if d.peek() != '{' {
		return d.skip(maxDepth) && d.end() && d.fail(ReasonCloudEvent, "no object")
	}
	return d.cloudMembers() && d.cloudShape() && d.cloudData(r, true)
}

// cloudMembers reads the members of a CloudEvent.
func (d *Decoder) cloudMembers() bool {
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok {
			return false
		}
		d.peek()
		from := d.p
		if !d.skip(maxDepth) {
			return false
		}
		switch raw := d.b[from:d.p:d.p]; {
		case string(name) == "data":
			d.cloud.data = raw
		case raw[0] != 'n':
			d.cloud.attribute(name, raw)
		}
	}
	return d.err == nil && d.end()
}

// attribute takes an attribute that is not null.
func (c *cloud) attribute(name, raw []byte) {
	switch string(name) {
	case "id":
		c.id = raw
	case "source":
		c.from = raw
	case "type":
		c.typ = raw
	case "specversion":
		c.version = raw
	case "time":
		c.time = raw
	case "datacontenttype":
		c.content = raw
	case "data_base64":
		c.base64 = raw
	case cloudPrefix + "op":
		c.op = raw
	case cloudPrefix + "txtotalorder":
		c.txOrder = bare(raw)
	default:
		if ext, ok := bytes.CutPrefix(name, []byte(cloudPrefix)); ok {
			if m, known := cloudNames[string(ext)]; known {
				c.source[m], c.sourced = bare(raw), true
			}
		}
	}
}

// bare takes the quotes from an integer: all attributes are strings, and the source block has numbers.
func bare(raw []byte) []byte {
	if len(raw) > 2 && raw[0] == '"' {
		if _, ok := number64(raw[1 : len(raw)-1]); ok {
			return raw[1 : len(raw)-1]
		}
	}
	return raw
}

// cloudShape checks what every CloudEvent has.
func (d *Decoder) cloudShape() bool {
	c := &d.cloud
	c.given = true
	if version := d.plain(c.version); string(version) != "1.0" {
		return d.fail(ReasonCloudEvent, "specversion is %s, not 1.0", quote(version))
	}
	for _, a := range [...]struct {
		name string
		raw  []byte
	}{{"id", c.id}, {"source", c.from}, {"type", c.typ}} {
		if len(d.plain(a.raw)) == 0 {
			return d.fail(ReasonCloudEvent, "attribute %s is missing", a.name)
		}
	}
	if c.data == nil && c.base64 == nil {
		return d.fail(ReasonCloudEvent, "no data")
	}
	return true
}

// cloudData reads the data of a CloudEvent by their content type. quoted: bytes are in base64, in a JSON string.
func (d *Decoder) cloudData(r *Record, quoted bool) bool {
	c := &d.cloud
	media, _, _ := strings.Cut(strings.ToLower(string(d.plain(c.content))), ";")
	media = strings.TrimSpace(media)
	isAvro := media == "application/avro"
	if !isAvro && media != "" && media != "application/json" && !strings.HasSuffix(media, "+json") {
		return d.fail(ReasonCloudEvent, "datacontenttype %s", quote([]byte(media)))
	}
	data := c.data
	if quoted && (isAvro || data == nil) {
		if data == nil {
			data = c.base64
		}
		if data[0] != '"' {
			return d.fail(ReasonCloudEvent, "data of type %s are no string in base64", quote([]byte(media)))
		}
		var ok bool
		if data, ok = d.base64(d.plain(data)); !ok {
			return false
		}
		data = bytes.Clone(data) // the arena is not kept
	}
	d.p = 0
	switch {
	case !isAvro && d.o.Form == FormOutbox:
		return d.outbox(r, data)
	case !isAvro:
		return d.document(data)
	case d.o.Format != FormatCloudEventsAvro || d.o.Form != FormEnvelope:
		return d.fail(ReasonCloudEvent, "data in Avro are read with format cloudevents_avro, as envelopes")
	}
	ref, n, ok := d.confluentFrame(data)
	if !ok {
		return false
	}
	p, ok := d.schemaOf(ref, encodingAvro)
	if !ok {
		return false
	}
	if p.value == nil {
		p.value = d.compileFramed(p, connectorOther)
	}
	d.b = data[n:]
	return d.avroPayload(p.value)
}

// cloudAttributes makes the attributes of a CloudEvent those of the change: what the data say themselves counts more.
func (d *Decoder) cloudAttributes() {
	c, e := &d.cloud, &d.env
	if !c.given {
		return
	}
	for i, raw := range c.source {
		if e.source[i] == nil {
			e.source[i] = raw
		}
	}
	e.sourceGiven = e.sourceGiven || c.sourced
	if e.op == 0 && c.op != nil && d.o.Form != FormPlain {
		if e.op, e.opText = 1, d.plain(c.op); len(e.opText) == 1 {
			e.op = e.opText[0]
		}
	}
	if e.txID == nil && c.txOrder != nil { // txId is the transaction's id then
		e.txID, e.txOrder = c.source[srcTxID], c.txOrder
	}
}

// cloudTime returns the attribute time in µs, which is that of the source's commit; 0: none, or not readable.
func (d *Decoder) cloudTime() int64 {
	text := d.plain(d.cloud.time)
	if len(text) == 0 {
		return 0
	}
	var v changelog.Value
	saved, reports := d.err, len(d.ev.Reports)
	_ = d.iso(&conv{op: readZoned, typ: changelog.Primitive(changelog.TimestampTZ)}, &v, text)
	d.err, d.ev.Reports = saved, d.ev.Reports[:reports]
	return v.I // 0 if it is not readable
}
