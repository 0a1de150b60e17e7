package decode

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"firn/changelog"
)

// encoding is how the bodies of records that name a registered schema are written.
type encoding uint8

const (
	encodingNone encoding = iota // records do not name schemas
	encodingAvro
	encodingJSON
	encodingProtobuf
	encodings
)

// String returns what the encoding's schemas are called.
func (e encoding) String() string {
	return [...]string{"none", "Avro", "JSON Schema", "Protobuf"}[e]
}

// schemaTypes are the registries' names for the types of schemas.
var schemaTypes = map[string]encoding{"AVRO": encodingAvro, "JSON": encodingJSON, "PROTOBUF": encodingProtobuf}

// encoding tells what follows the frame in f.
func (f Format) encoding() encoding {
	switch f {
	case FormatConfluentAvro, FormatApicurioAvro:
		return encodingAvro
	case FormatConfluentJSON, FormatApicurioJSON:
		return encodingJSON
	case FormatConfluentProtobuf, FormatApicurioProtobuf:
		return encodingProtobuf
	default:
		return encodingNone
	}
}

// framed reports whether records of f name a registered schema.
func (f Format) framed() bool { return f.encoding() != encodingNone }

// apicurio reports whether they do so in Apicurio's way.
func (f Format) apicurio() bool {
	return f == FormatApicurioAvro || f == FormatApicurioJSON || f == FormatApicurioProtobuf
}

// format returns how keys or values are written.
func (o *Options) format(key bool) Format {
	if key {
		return o.KeyFormat
	}
	return o.Format
}

// NeedsSchemas reports whether Decode asks for registered schemas.
func (o *Options) NeedsSchemas() bool {
	return o.Format.framed() || o.KeyFormat.framed() || o.Format == FormatCloudEventsAvro
}

// IDWidth is how many bytes Apicurio's ids have in a frame (1.7).
type IDWidth uint8

// The widths.
const (
	IDWidthAuto IDWidth = iota // 4; 8 where the first four are zero
	IDWidth4
	IDWidth8
)

// RefKind is what a registry finds a schema by.
type RefKind uint8

// The kinds.
const (
	RefID        RefKind = iota // Confluent's id
	RefGUID                     // Confluent's GUID
	RefContentID                // Apicurio's
	RefGlobalID                 // Apicurio's
	RefHash                     // Apicurio's content hash
	RefArtifact                 // Apicurio's group, artifact and version
	RefInline                   // the schema itself: no registry is asked
)

// SchemaRef names a registered schema as a record does. It is comparable.
type SchemaRef struct {
	Kind RefKind
	ID   uint64 // the id; of a GUID its last 8 bytes, big-endian
	High uint64 // of a GUID its first 8 bytes
	Name string // the hash; GROUP/ARTIFACT/VERSION, each path-escaped by who asks; the schema
}

// GUID returns the text of a GUID.
func (r SchemaRef) GUID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], r.High)
	binary.BigEndian.PutUint64(b[8:], r.ID)
	return string(appendUUID(nil, b[:]))
}

// String returns the reference as messages show it.
func (r SchemaRef) String() string {
	switch r.Kind {
	case RefGUID:
		return "GUID " + r.GUID()
	case RefContentID:
		return fmt.Sprintf("content id %d", r.ID)
	case RefGlobalID:
		return fmt.Sprintf("global id %d", r.ID)
	case RefHash:
		return "content hash " + quote([]byte(r.Name))
	case RefArtifact:
		return "artifact " + quote([]byte(r.Name))
	case RefInline:
		return "the schema in the header"
	default:
		return fmt.Sprintf("id %d", r.ID)
	}
}

// Schema is a registered schema.
type Schema struct {
	Text []byte
	// References are the schemas whose types Text uses, each after those that it uses itself.
	References []Reference
	// Type is what the registry says that Text is: AVRO, JSON or PROTOBUF. Default: it does not say.
	Type string
}

// Reference is a schema that another one uses under a name.
type Reference struct {
	Name string
	Text []byte
}

// MissingSchema says that the decoder needs a schema before it can decode the record: the caller asks the registry, gives
// the answer to AddSchema or RefuseSchema, and decodes the record again.
type MissingSchema struct { //nolint:errname // a request, not a failure
	Ref SchemaRef
}

// Error implements error.
func (m *MissingSchema) Error() string { return "decode: schema of " + m.Ref.String() + " is needed" }

// registered is a schema that records name. It is parsed and compiled when a record needs it.
type registered struct {
	ref    SchemaRef
	schema Schema
	as     [encodings]*parsed // a key and a value may name one schema, and be of different formats
}

// parsed is a registered schema, as the schema of one encoding.
type parsed struct {
	avro    *avroNode
	connect *connectSchema // of JSON Schema
	file    protoreflect.FileDescriptor
	types   []*parsed     // of file: its message types that records have named
	proto   *protoMessage // of these
	path    string        // as records name it
	rej     *Rejected     // it cannot be parsed
	value   *writerSchema // compiled, when the first value needed it
	key     *writerSchema // the same of keys, for keys of the connector keyFrom

	keyFrom connector
}

// refusal is a registry's answer that there is no such schema.
type refusal struct {
	ref SchemaRef
	rej *Rejected
}

// AddSchema gives the schema that Decode asked for. What is wrong with it becomes the rejection of the records that name it.
func (d *Decoder) AddSchema(ref SchemaRef, s Schema) {
	if len(d.registered) == maxSchemas {
		d.registered = d.registered[:maxSchemas-1]
	}
	d.registered = slices.Insert(d.registered, 0, &registered{ref: ref, schema: s})
}

// parse reads a registered schema.
func (e encoding) parse(s Schema) *parsed {
	p := &parsed{}
	if is, known := schemaTypes[s.Type]; s.Type != "" && (!known || is != e) {
		p.rej = reject(ReasonSchemaInvalid, "the schema is of type %s, the route's format is %s", quote([]byte(s.Type)), e)
		return p
	}
	size := len(s.Text)
	for _, r := range s.References {
		size += len(r.Text)
	}
	switch {
	case size > maxSchemaBytes:
		p.rej = reject(ReasonSchemaInvalid, "a schema of %d bytes", size)
	case e == encodingAvro:
		p.avro, p.rej = parseAvro(s)
	case e == encodingJSON:
		p.connect, p.rej = parseJSONSchema(s)
	default:
		p.file, p.rej = parseProto(s)
	}
	return p
}

// RefuseSchema says that the schema that Decode asked for is not to be had. It counts for the record at hand only.
func (d *Decoder) RefuseSchema(ref SchemaRef, rej *Rejected) {
	d.refused = append(d.refused, refusal{ref, rej})
}

// schemaOf finds a schema that has been added. Without, it fails: as refused, or so that Decode asks for it.
func (d *Decoder) schemaOf(ref SchemaRef, e encoding) (*parsed, bool) {
	for i, g := range d.registered {
		if g.ref != ref {
			continue
		}
		if i > 1 { // keys and values alternate: the first two stay as they are
			copy(d.registered[1:i+1], d.registered[:i])
			d.registered[0] = g
		}
		p := g.as[e]
		if p == nil {
			p = e.parse(g.schema)
			g.as[e] = p
		}
		if p.rej != nil {
			return nil, d.fail(p.rej.Reason, "%s: %s", ref, p.rej.Detail)
		}
		return p, true
	}
	for _, f := range d.refused {
		if f.ref == ref {
			return nil, d.fail(f.rej.Reason, "%s", f.rej.Detail)
		}
	}
	if ref.Kind == RefInline && e == encodingProtobuf { // compiling one takes 200 times its size in memory: not for what any record may say
		return nil, d.fail(ReasonSchemaInvalid, "a Protobuf schema in a header is not read: have the producer send the schema's id")
	}
	if ref.Kind == RefInline {
		d.AddSchema(ref, Schema{Text: []byte(ref.Name)})
		return d.schemaOf(ref, e)
	}
	d.missing = &MissingSchema{ref}
	return nil, d.fail(ReasonSchemaUnknown, "%s", ref)
}

// frame takes the frame off a key or value: it returns which schema that names, and the body.
func (d *Decoder) frame(headers []changelog.Header, b []byte, key bool) (ref SchemaRef, body []byte, ok bool) {
	if d.o.format(key).apicurio() {
		return d.apicurioFrame(headers, b, key)
	}
	name := schemaHeader(key)
	if h := lastHeader(headers, name); h != nil {
		ref, n, ok := d.confluentFrame(h)
		if ok && n < len(h) && d.o.format(key).encoding() != encodingProtobuf {
			return ref, nil, d.fail(ReasonFrameShort, "header %s is %d bytes, %d of them a schema id", name, len(h), n)
		}
		return ref, b, ok
	}
	ref, n, ok := d.confluentFrame(b)
	return ref, b[n:], ok
}

// schemaHeader returns the name of Confluent's header.
func schemaHeader(key bool) string {
	if key {
		return "__key_schema_id"
	}
	return "__value_schema_id"
}

// confluentFrame reads 00 and an id of 4 bytes, or 01 and a GUID of 16 (1.6), and returns how many bytes they are.
func (d *Decoder) confluentFrame(b []byte) (ref SchemaRef, n int, ok bool) {
	switch {
	case len(b) == 0:
		return ref, 0, d.fail(ReasonEmptyPayload, "")
	case b[0] > 1:
		return ref, 0, d.fail(ReasonMagicByte, "the first byte is %#02x: no frame of Confluent's", b[0])
	case b[0] == 1 && len(b) < 17, len(b) < 5:
		return ref, 0, d.fail(ReasonFrameShort, "%d bytes", len(b))
	case b[0] == 1:
		return SchemaRef{Kind: RefGUID, High: binary.BigEndian.Uint64(b[1:]), ID: binary.BigEndian.Uint64(b[9:])}, 17, true
	}
	id := binary.BigEndian.Uint32(b[1:])
	if id >= 1<<31 {
		return ref, 0, d.fail(ReasonSchemaUnknown, "id %d is negative", int32(id)) //nolint:gosec // as Java reads it
	}
	return SchemaRef{Kind: RefID, ID: uint64(id)}, 5, true
}

// apicurioFrame reads Apicurio's headers, or 00 and an id (1.7).
func (d *Decoder) apicurioFrame(headers []changelog.Header, b []byte, key bool) (ref SchemaRef, body []byte, ok bool) {
	if ref, ok := d.apicurioHeaders(headers, key); ok || d.err != nil {
		return ref, b, ok
	}
	ref = SchemaRef{Kind: RefContentID}
	if d.o.GlobalIDs {
		ref.Kind = RefGlobalID
	}
	switch {
	case len(b) == 0:
		return ref, nil, d.fail(ReasonEmptyPayload, "")
	case b[0] == '{' && d.o.format(key) == FormatApicurioJSON:
		return d.wrappedID(ref, b)
	case b[0] != 0:
		return ref, nil, d.fail(ReasonMagicByte, "the first byte is %#02x: no frame of Apicurio's", b[0])
	case len(b) < 5, d.o.IDWidth == IDWidth8 && len(b) < 9:
		return ref, nil, d.fail(ReasonFrameShort, "%d bytes", len(b))
	}
	ref.ID = uint64(binary.BigEndian.Uint32(b[1:]))
	if d.o.IDWidth == IDWidth8 || d.o.IDWidth == IDWidthAuto && ref.ID == 0 && len(b) >= 9 {
		ref.ID = binary.BigEndian.Uint64(b[1:])
		return ref, b[9:], d.positive(ref)
	}
	if ref.ID >= 1<<31 {
		return ref, nil, d.fail(ReasonSchemaUnknown, "id %d is negative", int32(uint32(ref.ID))) //nolint:gosec // as Java reads it
	}
	return ref, b[5:], true
}

// wrappedID reads {"schemaId":n,"payload":…}, as Apicurio's own JSON converter writes it (1.7).
func (d *Decoder) wrappedID(ref SchemaRef, b []byte) (_ SchemaRef, body []byte, ok bool) {
	d.b, d.p = b, 0
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	found := false
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok {
			return ref, nil, false
		}
		switch string(name) {
		case "schemaId":
			d.peek()
			id, ok := d.integer(0, 1<<63-1)
			if !ok {
				return ref, nil, false
			}
			ref.ID, found = uint64(id), true //nolint:gosec // not negative
			continue
		case "payload":
			d.peek()
		default:
			return ref, nil, d.fail(ReasonEnvelopeShape, "the wrapper of Apicurio's converter has a member %s", quote(name))
		}
		from := d.p
		if !d.skip(maxDepth) {
			return ref, nil, false
		}
		body = b[from:d.p]
	}
	switch {
	case d.err != nil || !d.end():
		return ref, nil, false
	case !found || body == nil:
		return ref, nil, d.fail(ReasonEnvelopeShape, "no wrapper of Apicurio's converter: schemaId and payload are needed")
	}
	return ref, body, true
}

// positive checks an id of 8 bytes.
func (d *Decoder) positive(ref SchemaRef) bool {
	return ref.ID < 1<<63 || d.fail(ReasonSchemaUnknown, "id %d is negative", int64(ref.ID)) //nolint:gosec // as Java reads it
}

// apicurioHeaders reads the headers that name a schema. false without an error: there are none.
func (d *Decoder) apicurioHeaders(headers []changelog.Header, key bool) (ref SchemaRef, ok bool) {
	var of apicurioHeaders
	for i := range headers {
		rest, found := strings.CutPrefix(headers[i].Key, "apicurio.")
		if !found {
			continue
		}
		side, name, _ := strings.Cut(rest, ".")
		if side == "key" && key || side == "value" && !key {
			of.set(name, headers[i].Value)
		}
	}
	if e := of.encoding; e != nil && d.o.format(key).encoding() == encodingAvro && !strings.EqualFold(string(e), "BINARY") {
		return ref, d.fail(ReasonAvroDecode, "encoding %s: only BINARY is read; set apicurio.registry.avro.encoding to it", quote(e))
	}
	switch {
	case of.global != nil:
		return d.headerID(RefGlobalID, of.global)
	case of.content != nil:
		return d.headerID(RefContentID, of.content)
	case of.hash != nil:
		return SchemaRef{Kind: RefHash, Name: string(of.hash)}, true
	case of.artifact != nil:
		return SchemaRef{Kind: RefArtifact, Name: string(of.group) + "/" + string(of.artifact) + "/" + string(of.version)}, true
	case of.schema != nil:
		return SchemaRef{Kind: RefInline, Name: string(of.schema)}, true
	}
	return ref, false
}

type apicurioHeaders struct{ global, content, hash, group, artifact, version, schema, encoding []byte }

// set keeps the last one of each name.
func (a *apicurioHeaders) set(name string, value []byte) {
	switch name {
	case "globalId":
		a.global = value
	case "contentId":
		a.content = value
	case "contentHash":
		a.hash = value
	case "groupId":
		a.group = value
	case "artifactId":
		a.artifact = value
	case "version":
		a.version = value
	case "schema":
		a.schema = value
	case "encoding":
		a.encoding = value
	}
}

func (d *Decoder) headerID(kind RefKind, b []byte) (SchemaRef, bool) {
	ref := SchemaRef{Kind: kind}
	if len(b) != 8 {
		return ref, d.fail(ReasonFrameShort, "the header's id has %d bytes, not 8: %s", len(b), hex.EncodeToString(b[:min(len(b), 8)]))
	}
	ref.ID = binary.BigEndian.Uint64(b)
	return ref, d.positive(ref)
}

// lastHeader returns the last value of a header that is not null.
func lastHeader(headers []changelog.Header, name string) []byte {
	for _, h := range slices.Backward(headers) {
		if h.Key == name && h.Value != nil {
			return h.Value
		}
	}
	return nil
}

// KeyFrame returns the part of a key that names its schema, which producers hash with the rest of it (1.2); nil: keys have
// none, or it is in a header.
func (d *Decoder) KeyFrame(r Record) []byte {
	if !d.o.KeyFormat.framed() || d.noKey(r.Key) {
		return nil
	}
	saved := d.scanner
	defer func() { d.scanner = saved }()
	d.err = nil
	_, body, ok := d.frame(r.Headers, r.Key, true)
	if n := cap(r.Key) - cap(body); ok && n > 0 { // body is a part of the key
		return r.Key[:n:n]
	}
	return nil
}
