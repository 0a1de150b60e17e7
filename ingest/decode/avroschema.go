package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The schemas of 1.8 are read here and not by a library: Connect's converter writes decimals whose scale is negative or
// above their precision, which github.com/twmb/avro and others refuse, and their attributes are what counts.

// avroKind is how a value is written.
type avroKind uint8

const (
	avroNull avroKind = iota
	avroBoolean
	avroInt
	avroLong
	avroFloat
	avroDouble
	avroBytes
	avroString
	avroFixed
	avroEnum
	avroArray
	avroMap
	avroRecord
	avroUnion
)

var avroKinds = map[string]avroKind{
	"null": avroNull, "boolean": avroBoolean, "int": avroInt, "long": avroLong, "float": avroFloat, "double": avroDouble,
	"bytes": avroBytes, "string": avroString,
}

// avroNode is a parsed Avro schema. Named types are one node wherever they are used: nodes may form circles.
type avroNode struct {
	kind     avroKind
	name     string // full name
	size     int    // of fixed
	least    int    // fewest bytes that a value takes, once measured
	measured int    // how far leastBytes is
	symbols  [][]byte
	fields   []avroField // of records
	elem     *avroNode   // of arrays and maps
	branches []*avroNode // of unions
	null     int         // of unions of null and one other type: null's index; else -1
	attrs    avroAttrs
}

type avroField struct {
	name       string
	node       *avroNode
	hasDefault bool // and not null
}

// avroAttrs is what Connect and others note beside a type.
type avroAttrs struct {
	connectName, connectType, connectInternal, logical string
	params                                             []param
	hasDefault                                         bool
	scale, precision                                   string // as text; "": not there
}

// nullable takes a union of null and one other type apart; false: it is another union.
func (n *avroNode) nullable() (value *avroNode, optional, ok bool) {
	if n.kind != avroUnion {
		return n, false, true
	}
	if n.null < 0 {
		return nil, false, false
	}
	return n.branches[1-n.null], true, true
}

// field returns the field of a record called name.
func (n *avroNode) field(name string) *avroNode {
	for i := range n.fields {
		if n.fields[i].name == name {
			return n.fields[i].node
		}
	}
	return nil
}

// maxAvroDepth bounds how deep bodies nest (5.3), maxSchemaBytes a schema with its references (1.6).
const (
	maxAvroDepth   = 128
	maxSchemaBytes = 4 << 20
)

// parseAvro reads a registered schema.
func parseAvro(s Schema) (*avroNode, *Rejected) {
	p := avroParser{names: map[string]*avroNode{}}
	var root *avroNode
	for _, r := range append(slices.Clone(s.References), Reference{Text: s.Text}) {
		doc, err := decodeSchema(r.Text)
		if err == nil {
			root, err = p.parse(doc, "", maxSchemaDepth)
		}
		if err != nil {
			return nil, reject(ReasonSchemaInvalid, "%s", quote([]byte(err.Error())))
		}
	}
	if root.leastBytes() < 0 {
		return nil, reject(ReasonSchemaInvalid, "record %s contains itself without an end", quote([]byte(root.name)))
	}
	return root, nil
}

func decodeSchema(text []byte) (doc any, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err = dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the schema", len(rest))
	}
	return doc, nil
}

type avroParser struct{ names map[string]*avroNode }

// parse reads a schema inside of a namespace.
func (p *avroParser) parse(doc any, space string, depth int) (*avroNode, error) {
	if depth == 0 {
		return nil, fmt.Errorf("more than %d levels", maxSchemaDepth)
	}
	switch doc := doc.(type) {
	case string:
		return p.named(doc, space)
	case []any:
		return p.union(doc, space, depth)
	case map[string]any:
		return p.object(doc, space, depth)
	}
	return nil, fmt.Errorf("%v is no schema", doc)
}

// named finds a type by its name.
func (p *avroParser) named(name, space string) (*avroNode, error) {
	if k, ok := avroKinds[name]; ok {
		return &avroNode{kind: k, name: name, null: -1}, nil
	}
	if space != "" && !strings.Contains(name, ".") {
		if n := p.names[space+"."+name]; n != nil {
			return n, nil
		}
	}
	if n := p.names[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("unknown type %q", name)
}

func (p *avroParser) union(doc []any, space string, depth int) (*avroNode, error) {
	n := &avroNode{kind: avroUnion, name: "union", null: -1}
	if len(doc) == 0 {
		return nil, fmt.Errorf("a union of nothing")
	}
	for _, d := range doc {
		b, err := p.parse(d, space, depth-1)
		if err != nil {
			return nil, err
		}
		if b.kind == avroUnion {
			return nil, fmt.Errorf("a union in a union")
		}
		n.branches = append(n.branches, b)
	}
	if len(n.branches) == 2 && (n.branches[0].kind == avroNull) != (n.branches[1].kind == avroNull) {
		if n.branches[1].kind == avroNull {
			n.null = 1
		} else {
			n.null = 0
		}
	}
	return n, nil
}

func (p *avroParser) object(doc map[string]any, space string, depth int) (*avroNode, error) {
	name, ok := doc["type"].(string)
	if !ok {
		if doc["type"] == nil {
			return nil, fmt.Errorf("a schema without a type")
		}
		return p.parse(doc["type"], space, depth-1) // {"type":{…}}
	}
	n := &avroNode{name: name, null: -1, attrs: attrsOf(doc)}
	var err error
	switch name {
	case "array":
		n.kind = avroArray
		n.elem, err = p.parse(doc["items"], space, depth-1)
	case "map":
		n.kind = avroMap
		n.elem, err = p.parse(doc["values"], space, depth-1)
	case "record", "error":
		n.kind = avroRecord
		err = p.record(n, doc, space, depth)
	case "enum":
		n.kind = avroEnum
		err = p.enum(n, doc, space)
	case "fixed":
		n.kind = avroFixed
		err = p.fixed(n, doc, space)
	default:
		if n.kind, ok = avroKinds[name]; !ok {
			return p.named(name, space)
		}
	}
	return n, err
}

// define names n, and returns the namespace of what is in it.
func (p *avroParser) define(n *avroNode, doc map[string]any, space string) (string, error) {
	name, _ := doc["name"].(string)
	if name == "" {
		return "", fmt.Errorf("a %s without a name", n.name)
	}
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		space = name[:i]
	} else {
		if s, ok := doc["namespace"].(string); ok {
			space = s
		}
		if space != "" {
			name = space + "." + name
		}
	}
	if p.names[name] != nil {
		return "", fmt.Errorf("type %s is there twice", name)
	}
	n.name, p.names[name] = name, n
	return space, nil
}

func (p *avroParser) record(n *avroNode, doc map[string]any, space string, depth int) error {
	space, err := p.define(n, doc, space)
	if err != nil {
		return err
	}
	fields, ok := doc["fields"].([]any)
	if !ok {
		return fmt.Errorf("record %s has no fields", n.name)
	}
	seen := map[string]bool{}
	for _, f := range fields {
		doc, _ := f.(map[string]any)
		name, _ := doc["name"].(string)
		if name == "" || seen[name] {
			return fmt.Errorf("record %s has a field without a name, or one twice: %q", n.name, name)
		}
		seen[name] = true
		of, err := p.parse(doc["type"], space, depth-1)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", name, n.name, err)
		}
		n.fields = append(n.fields, avroField{name: name, node: of, hasDefault: doc["default"] != nil})
	}
	return nil
}

func (p *avroParser) enum(n *avroNode, doc map[string]any, space string) error {
	if _, err := p.define(n, doc, space); err != nil {
		return err
	}
	symbols, _ := doc["symbols"].([]any)
	for _, s := range symbols {
		text, ok := s.(string)
		if !ok {
			return fmt.Errorf("enum %s has a symbol that is no text", n.name)
		}
		n.symbols = append(n.symbols, []byte(text))
	}
	if len(n.symbols) == 0 {
		return fmt.Errorf("enum %s has no symbols", n.name)
	}
	return nil
}

func (p *avroParser) fixed(n *avroNode, doc map[string]any, space string) error {
	if _, err := p.define(n, doc, space); err != nil {
		return err
	}
	size, err := strconv.ParseInt(fmt.Sprint(doc["size"]), 10, 32)
	if err != nil || size < 0 {
		return fmt.Errorf("fixed %s has size %v", n.name, doc["size"])
	}
	n.size = int(size)
	return nil
}

func attrsOf(doc map[string]any) avroAttrs {
	text := func(name string) string { s, _ := doc[name].(string); return s }
	a := avroAttrs{
		connectName: text("connect.name"), connectType: text("connect.type"), connectInternal: text("connect.internal.type"),
		logical: text("logicalType"), hasDefault: doc["connect.default"] != nil,
	}
	number := func(name string) string {
		if n, ok := doc[name].(json.Number); ok {
			return n.String()
		}
		return ""
	}
	a.scale, a.precision = number("scale"), number("precision")
	params, _ := doc["connect.parameters"].(map[string]any)
	for name, v := range params {
		if s, ok := v.(string); ok {
			a.params = append(a.params, param{name, s})
		}
	}
	return a
}

// leastBytes works out least of n and of all that is in it. -1: a value of it would have no end.
func (n *avroNode) leastBytes() int {
	const (
		open = iota + 1
		done
	)
	switch n.measured {
	case open:
		return -1
	case done:
		return n.least
	}
	n.measured = open
	switch n.kind {
	case avroNull:
	case avroFloat:
		n.least = 4
	case avroDouble:
		n.least = 8
	case avroFixed:
		n.least = n.size
	case avroRecord:
		for i := range n.fields {
			of := n.fields[i].node.leastBytes()
			if of < 0 {
				return -1
			}
			n.least = min(n.least+of, 1<<30)
		}
	default:
		n.least = 1
	}
	n.measured = done
	for _, b := range append(slices.Clone(n.branches), n.elem) { // circles through these end: a value may leave them out
		if b != nil && b.measured != open && b.leastBytes() < 0 {
			return -1
		}
	}
	return n.least
}

// maxAvroTypes bounds how many types a row is made of: named types count each time they are used.
const maxAvroTypes = 20_000

// avroTypes makes Connect schemas of Avro's (1.8).
type avroTypes struct {
	left   int
	within []*avroNode // records that are open
}

func connectOf(n *avroNode) (*connectSchema, *Rejected) {
	return (&avroTypes{left: maxAvroTypes}).schema(n)
}

func (a *avroTypes) schema(n *avroNode) (*connectSchema, *Rejected) {
	if a.left--; a.left < 0 {
		return nil, reject(ReasonSchemaLimit, "a row of more than %d types", maxAvroTypes)
	}
	value, optional, ok := n.nullable()
	if !ok {
		return nil, reject(ReasonSchemaInvalid, "a union of %d types is no column", len(n.branches))
	}
	s := &connectSchema{optional: optional, name: value.attrs.connectName, params: value.attrs.params, hasDefault: value.attrs.hasDefault}
	var rej *Rejected
	switch value.kind {
	case avroBoolean:
		s.typ = "boolean"
	case avroInt, avroLong:
		value.integer(s)
	case avroFloat:
		s.typ = "float"
	case avroDouble:
		s.typ = "double"
	case avroString, avroEnum:
		s.typ = "string"
		if s.name == "" && value.attrs.logical == "uuid" {
			s.name = nameUUID
		}
	case avroBytes, avroFixed:
		value.octets(s)
	case avroMap:
		s.typ, s.keys = "map", &connectSchema{typ: "string"}
		s.values, rej = a.schema(value.elem)
	case avroArray:
		rej = a.array(s, value)
	case avroRecord:
		rej = a.record(s, value)
	default:
		rej = reject(ReasonSchemaInvalid, "%s alone is no column", value.name)
	}
	return s, rej
}

// The logical types that Connect does not have: points in time, with a zone.
const (
	nameInstantMillis = "timestamp-millis"
	nameInstantMicros = "timestamp-micros"
	nameInstantNanos  = "timestamp-nanos"
)

// integer gives s the type of an int or long. Logical types count where Connect's name is not there.
func (n *avroNode) integer(s *connectSchema) {
	if n.kind == avroLong {
		s.typ = "int64"
	} else {
		s.typ = "int32"
		if t := n.attrs.connectType; t == "int8" || t == "int16" {
			s.typ = t
		}
	}
	if s.name != "" {
		return
	}
	switch logical := n.attrs.logical; {
	case n.kind == avroInt && logical == "date":
		s.name = nameConnectDate
	case n.kind == avroInt && logical == "time-millis":
		s.name = nameConnectTime
	case n.kind == avroInt:
	case logical == "time-micros":
		s.name = timePrefix + "MicroTime"
	case logical == nameInstantMillis, logical == nameInstantMicros, logical == nameInstantNanos:
		s.name = logical
	case logical == "local-timestamp-millis":
		s.name = timePrefix + "Timestamp"
	case logical == "local-timestamp-micros":
		s.name = timePrefix + "MicroTimestamp"
	case logical == "local-timestamp-nanos":
		s.name = timePrefix + "NanoTimestamp"
	}
}

// unknownPrecision is what the converter writes where Connect gave none.
const unknownPrecision = "64"

// octets gives s the type of bytes or fixed. A decimal is one by its name; scale and precision are in the parameters or
// beside the type, whatever Avro's rules say of them.
func (n *avroNode) octets(s *connectSchema) {
	s.typ = "bytes"
	switch {
	case s.name == nameDecimal:
	case s.name != "":
		return
	case n.attrs.logical == "decimal":
		s.name = nameDecimal
		if n.attrs.scale == "" {
			n.attrs.scale = "0" // Avro's default
		}
	case n.attrs.logical == "uuid" && n.kind == avroFixed && n.size == 16:
		s.name = nameUUID
		return
	default:
		return
	}
	if _, ok := s.param("scale"); !ok {
		s.params = append(slices.Clone(s.params), param{"scale", n.attrs.scale})
	}
	if _, ok := s.param("connect.decimal.precision"); !ok && n.attrs.precision != "" && n.attrs.precision != unknownPrecision {
		s.params = append(slices.Clone(s.params), param{"connect.decimal.precision", n.attrs.precision})
	}
}

// array gives s the type of an array, which is one, or a map whose keys are no text.
func (a *avroTypes) array(s *connectSchema, n *avroNode) (rej *Rejected) {
	if n.elem.leastBytes() == 0 {
		return reject(ReasonSchemaInvalid, "an array of %s, which takes no bytes", n.elem.name)
	}
	if !n.elem.isMapEntry() {
		s.typ = "array"
		s.items, rej = a.schema(n.elem)
		return rej
	}
	s.typ = "map"
	if s.keys, rej = a.schema(n.elem.fields[0].node); rej == nil {
		s.values, rej = a.schema(n.elem.fields[1].node)
	}
	return rej
}

// isMapEntry reports whether a record is an entry of a map.
func (n *avroNode) isMapEntry() bool {
	return n.kind == avroRecord && len(n.fields) == 2 && n.fields[0].name == "key" && n.fields[1].name == "value" &&
		(n.attrs.connectInternal == "MapEntry" || n.name[strings.LastIndexByte(n.name, '.')+1:] == "MapEntry")
}

func (a *avroTypes) record(s *connectSchema, n *avroNode) *Rejected {
	s.typ = "struct"
	if s.name == "" {
		s.name = n.name
	}
	if slices.Contains(a.within, n) {
		return reject(ReasonSchemaInvalid, "record %s contains itself: no column has such a type", quote([]byte(n.name)))
	}
	a.within = append(a.within, n)
	defer func() { a.within = a.within[:len(a.within)-1] }()
	for _, f := range n.fields {
		of, rej := a.schema(f.node)
		if rej != nil {
			return rej
		}
		of.hasDefault = of.hasDefault || f.hasDefault
		s.fields = append(s.fields, connectField{f.name, of})
	}
	return nil
}
