package decode

import (
	"bytes"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
)

// The cache of compiled schemas holds as many as a topic can sensibly alternate between.
const (
	maxSchemas  = 64
	maxPrefixes = 4
)

// writerSchema is a compiled schema of values or keys. It is shared by all messages that carry the same bytes.
type writerSchema struct {
	raw  []byte // the schema's bytes
	kind Kind
	rej  *Rejected // why messages with it are rejected
	row  *record   // of values: how rows are read; of keys: the key
	avro *avroPlan // nil: it is JSON
	from connector // of values, by the name of their source block

	proto   *protoPlan     // of Protobuf
	connect *connectSchema // of JSON with a registered schema, which has no raw
}

// schemaCache finds the compiled schema of a message. Almost always it begins with the same bytes as one before, up to
// the payload; else its schema is found, hashed and looked up; else it is compiled.
type schemaCache struct {
	compile  func(raw []byte) *writerSchema
	from     connector // what schemas of keys are compiled for
	prefixes []prefix  // most recent first
	byHash   map[xxh3.Uint128]*writerSchema
	order    []xxh3.Uint128 // oldest first
}

// prefix is what a message begins with: {"schema":…,"payload":
type prefix struct {
	bytes  []byte
	schema *writerSchema
}

// known finds the prefix that b begins with.
func (c *schemaCache) known(b []byte) (*prefix, bool) {
	for i := range c.prefixes {
		p := &c.prefixes[i]
		if len(b) > len(p.bytes) && bytes.Equal(b[:len(p.bytes)], p.bytes) {
			if i > 0 {
				first := *p
				copy(c.prefixes[1:i+1], c.prefixes[:i])
				c.prefixes[0] = first
			}
			return &c.prefixes[0], true
		}
	}
	return nil, false
}

// wrapper reads {"schema":…,"payload":…} whole, finds or compiles the schema, and returns where the payload begins.
func (x *scanner) wrapper(c *schemaCache) (s *writerSchema, payload int, ok bool) {
	if x.peek() != '{' {
		if !x.skip(maxDepth) || !x.end() {
			return nil, 0, false
		}
		return nil, 0, x.fail(ReasonEnvelopeShape, "no object")
	}
	start := x.p
	names := nameSet{x: x, base: len(x.names)}
	defer names.release()
	var schemaStart, schemaEnd, payloadEnd int
	var odd []byte
	for more := x.open(); more; more = x.more('}') {
		name, ok := names.next()
		if !ok {
			return nil, 0, false
		}
		x.peek()
		depth := maxDepth
		from := x.p
		if string(name) == "schema" {
			depth = maxSchemaDepth
		}
		if !x.skip(depth) {
			return nil, 0, false
		}
		switch string(name) {
		case "schema":
			schemaStart, schemaEnd = from, x.p
		case "payload":
			payload, payloadEnd = from, x.p
		default:
			odd = name
		}
	}
	if x.err != nil || !x.end() {
		return nil, 0, false
	}
	raw := x.b[schemaStart:schemaEnd]
	switch {
	case odd != nil:
		return nil, 0, x.fail(ReasonEnvelopeShape, "the wrapper has a member %s", quote(odd))
	case len(raw) == 0 && payloadEnd == 0:
		return nil, 0, x.fail(ReasonEnvelopeShape, "neither schema nor payload")
	case len(raw) == 0 || raw[0] == 'n':
		return nil, 0, x.fail(ReasonSchemaMissing, "the message has no schema")
	case payloadEnd == 0:
		return nil, 0, x.fail(ReasonEnvelopeShape, "the wrapper has no payload")
	}
	s = c.lookup(raw)
	if schemaStart < payload && start == 0 {
		c.remember(x.b[:payload], s)
	}
	return s, payload, true
}

func (c *schemaCache) lookup(raw []byte) *writerSchema {
	h := xxh3.Hash128(raw)
	if s, ok := c.byHash[h]; ok && bytes.Equal(s.raw, raw) {
		return s
	}
	s := c.compile(bytes.Clone(raw))
	if c.byHash == nil {
		c.byHash = make(map[xxh3.Uint128]*writerSchema)
	}
	if len(c.order) == maxSchemas {
		delete(c.byHash, c.order[0])
		c.order = slices.Delete(c.order, 0, 1)
	}
	if _, ok := c.byHash[h]; !ok {
		c.order = append(c.order, h)
	}
	c.byHash[h] = s
	return s
}

func (c *schemaCache) remember(b []byte, s *writerSchema) {
	if len(c.prefixes) == maxPrefixes {
		c.prefixes = c.prefixes[:maxPrefixes-1]
	}
	c.prefixes = slices.Insert(c.prefixes, 0, prefix{bytes.Clone(b), s})
}

// hasSchema reports whether a document is, by its first member, a wrapper.
func hasSchema(b []byte) bool {
	x := scanner{b: b}
	if !x.next('{') || x.peek() != '"' {
		return false
	}
	for _, name := range []string{`"schema"`, `"payload"`} {
		if rest := b[x.p:]; len(rest) > len(name) && string(rest[:len(name)]) == name {
			x.p += len(name)
			return x.peek() == ':'
		}
	}
	return false
}

// compileValue compiles the schema of values.
func (d *Decoder) compileValue(raw []byte) *writerSchema { return d.compileFor(raw, connectorOther) }

// compileFor is compileValue for messages that come from a connector which their schema does not name.
func (d *Decoder) compileFor(raw []byte, from connector) *writerSchema {
	w := &writerSchema{raw: raw, from: from}
	x := &scanner{b: raw}
	s, _, ok := x.connectSchema(maxSchemaDepth)
	if !ok {
		w.rej = x.err
		return w
	}
	return d.compileConnect(w, s)
}

// compileConnect compiles a schema of values, for messages that come from the connector w.from.
func (d *Decoder) compileConnect(w *writerSchema, s *connectSchema) *writerSchema {
	if d.o.Topic != TopicTable {
		if w.kind = kindOfSchema(s.name); w.kind != Change {
			return w
		}
	}
	if d.o.Form != FormEnvelope {
		return d.compileFlat(w, s)
	}
	row := s.field("after")
	if row == nil {
		row = s.field("before")
	}
	source := s.field("source")
	if s.typ != "struct" || row == nil || source == nil && !d.o.Format.isCloud() {
		w.rej = reject(ReasonEnvelopeShape, "schema %s is no envelope's", quote([]byte(s.name)))
		return w
	}
	if row.typ == "string" && (w.from == connectorMongoDB || w.from == connectorOther && ofDocuments(s, source)) {
		w.from = connectorMongoDB // how documents are read, they tell themselves
		return w
	}
	if row.typ != "struct" {
		w.rej = reject(ReasonEnvelopeShape, "rows are of type %q, no struct", row.typ)
		return w
	}
	if w.from == connectorOther && source != nil {
		w.from = connectorOfSource(source.name)
	}
	w.row, w.rej = d.compiler(w.from).record(row)
	return w
}

// ofDocuments reports whether an envelope, whose rows are text, is MongoDB's.
func ofDocuments(s, source *connectSchema) bool {
	return source == nil || connectorOfSource(source.name) == connectorMongoDB || s.field("updateDescription") != nil
}

// kindOfSchema tells a message's kind by its schema's name (1.15). Heartbeats are told by their topic: one in a table's
// topic is an error.
func kindOfSchema(name string) Kind {
	switch {
	case strings.HasSuffix(name, ".TransactionMetadataValue"):
		return Transaction
	case strings.HasSuffix(name, ".SchemaChangeValue"):
		return SchemaChange
	case strings.HasSuffix(name, ".MessageValue"):
		return Message
	case strings.HasSuffix(name, ".Notification"):
		return Notification
	}
	return Change
}

// connectorOfSource takes the connector from a name such as io.debezium.connector.postgresql.Source.
func connectorOfSource(name string) connector {
	rest, ok := strings.CutPrefix(name, "io.debezium.connector.")
	if !ok {
		return connectorOther
	}
	if rest, _, _ = strings.Cut(rest, "."); rest == "mongo" {
		return connectorMongoDB
	}
	return connectorOf(rest)
}

// compileKey compiles the schema of keys.
func (d *Decoder) compileKey(raw []byte) *writerSchema {
	w := &writerSchema{raw: raw}
	x := &scanner{b: raw}
	s, _, ok := x.connectSchema(maxSchemaDepth)
	if !ok {
		w.rej = x.err
		return w
	}
	return d.compileConnectKey(w, s)
}

// compileConnectKey compiles a schema of keys.
func (d *Decoder) compileConnectKey(w *writerSchema, s *connectSchema) *writerSchema {
	if s.typ != "struct" || len(s.fields) == 0 {
		w.rej = reject(ReasonKeyDecode, "the key's schema is %q, no struct of key columns", s.typ)
		return w
	}
	if w.row, w.rej = d.compiler(d.from).record(s); w.rej == nil {
		w.requireAll()
	}
	return w
}

// requireAll makes all fields of a key required.
func (w *writerSchema) requireAll() {
	for i := range w.row.fields {
		w.row.fields[i].required = true
	}
}
