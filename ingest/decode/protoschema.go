package decode

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/ast"
	"github.com/bufbuild/protocompile/parser"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// protoMessage is a message type, as it is read: descriptors are left behind once a schema is compiled. Types are one
// protoMessage wherever they are used, which may form circles.
type protoMessage struct {
	name   string // full name
	well   wellKnown
	fields []protoField // in the schema's order
	order  []int32      // indexes of fields, by number
	oneofs int
}

type protoField struct {
	name     string
	number   uint64
	kind     protoreflect.Kind
	wire     uint64 // wire type of one value
	repeated bool
	presence bool // absent is null; without, it is the type's zero
	required bool
	oneof    int           // -1: in none
	message  *protoMessage // of kind message
	entry    bool          // repeated entries of a map
	symbols  []protoSymbol // of enums
	params   []param
}

type protoSymbol struct {
	number int32
	name   []byte
}

// wellKnown are the messages that stand for single values.
type wellKnown uint8

const (
	wellNone wellKnown = iota
	wellWrapper
	wellDecimal
	wellDate
	wellTimeOfDay
	wellTimestamp
)

var wellKnowns = map[string]wellKnown{
	"confluent.type.Decimal": wellDecimal, "google.type.Date": wellDate, "google.type.TimeOfDay": wellTimeOfDay, "google.protobuf.Timestamp": wellTimestamp,
	"google.protobuf.DoubleValue": wellWrapper, "google.protobuf.FloatValue": wellWrapper, "google.protobuf.Int64Value": wellWrapper,
	"google.protobuf.UInt64Value": wellWrapper, "google.protobuf.Int32Value": wellWrapper, "google.protobuf.UInt32Value": wellWrapper,
	"google.protobuf.BoolValue": wellWrapper, "google.protobuf.StringValue": wellWrapper, "google.protobuf.BytesValue": wellWrapper,
}

// field returns the field called name.
func (m *protoMessage) field(name string) *protoField {
	i := slices.IndexFunc(m.fields, func(f protoField) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return &m.fields[i]
}

// find returns the index of the field with a number, which almost always is the one at guess; -1: there is none.
func (m *protoMessage) find(number uint64, guess int) int {
	if guess < len(m.fields) && m.fields[guess].number == number {
		return guess
	}
	low, high := 0, len(m.order)
	for low < high {
		mid := (low + high) / 2
		if m.fields[m.order[mid]].number < number {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(m.order) && m.fields[m.order[low]].number == number {
		return int(m.order[low])
	}
	return -1
}

// protoFiles are what schemas import without registering it: Confluent's serializers know these files, too.
//
//go:embed proto
var protoFiles embed.FS

// protoMain is the name of the file that a registered schema is.
const protoMain = "firn-registered-schema.proto"

// parseProto reads a registered schema in Protobuf's language, with what it imports.
func parseProto(s Schema) (protoreflect.FileDescriptor, *Rejected) {
	files := map[string][]byte{}
	for _, r := range append(slices.Clone(s.References), Reference{protoMain, s.Text}) {
		if err := checkNesting(r.Text); err != nil {
			return nil, reject(ReasonSchemaInvalid, "%s: %v", quote([]byte(r.Name)), err)
		}
		files[r.Name] = r.Text
	}
	known, err := fs.Sub(protoFiles, "proto")
	if err != nil {
		return nil, reject(ReasonSchemaInvalid, "%v", err) // not possible
	}
	resolve := func(name string) (protocompile.SearchResult, error) {
		text, ok := files[name]
		if !ok {
			var err error
			if text, err = fs.ReadFile(known, name); err != nil {
				return protocompile.SearchResult{}, errors.New("no such file among the registered references")
			}
		}
		parsed, err := parseProtoFile(name, text)
		return protocompile.SearchResult{ParseResult: parsed}, err
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protocompile.ResolverFunc(resolve)), MaxParallelism: 1}
	out, err := compiler.Compile(context.Background(), protoMain) //nolint:forbidigo // it reads no file, and its input is bounded
	if err != nil {
		return nil, reject(ReasonSchemaInvalid, "%s", quote([]byte(err.Error())))
	}
	return out[0], nil
}

// parseProtoFile parses a file. Confluent's converter writes defaults where proto3 has none (of source.snapshot, say): they
// are left out, as nothing is made of defaults (D11).
func parseProtoFile(name string, text []byte) (parser.Result, error) {
	handler := reporter.NewHandler(nil)
	file, err := parser.Parse(name, bytes.NewReader(text), handler)
	if err != nil {
		return nil, err
	}
	if file.Syntax != nil && file.Syntax.Syntax.AsString() == "proto3" {
		isDefault := func(o *ast.OptionNode) bool { return len(o.Name.Parts) == 1 && o.Name.Parts[0].Value() == "default" }
		err := ast.Walk(file, &ast.SimpleVisitor{DoVisitCompactOptionsNode: func(n *ast.CompactOptionsNode) error {
			n.Options = slices.DeleteFunc(n.Options, isDefault)
			return nil
		}})
		if err != nil {
			return nil, err
		}
	}
	return parser.ResultFromAST(file, true, handler)
}

// checkNesting bounds how deep the brackets of a file nest, for its compiler follows them by recursion.
func checkNesting(text []byte) error {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '{', '[', '(', '<':
			if depth++; depth > maxSchemaDepth {
				return fmt.Errorf("more than %d levels", maxSchemaDepth)
			}
		case '}', ']', ')', '>':
			depth = max(0, depth-1)
		case '"', '\'':
			for i++; i < len(text) && text[i] != c && text[i] != '\n'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '/':
			i += commentLength(text[i:])
		}
	}
	return nil
}

// commentLength returns how many bytes of a comment follow the slash that text begins with.
func commentLength(text []byte) int {
	var end int
	switch {
	case bytes.HasPrefix(text, []byte("//")):
		end = bytes.IndexByte(text, '\n')
	case bytes.HasPrefix(text, []byte("/*")):
		if end = bytes.Index(text[2:], []byte("*/")); end >= 0 {
			end += 3
		}
	default:
		return 0
	}
	if end < 0 {
		return len(text)
	}
	return end
}

// protoAt finds a message type by Confluent's indexes: of each level, its place among the messages written there. Entries of
// maps and groups are none.
func protoAt(file protoreflect.FileDescriptor, indexes []int) protoreflect.MessageDescriptor {
	var at protoreflect.MessageDescriptor
	all := file.Messages()
	for _, index := range indexes {
		at = nil
		for i := range all.Len() {
			m := all.Get(i)
			if m.IsMapEntry() || isGroup(m) {
				continue
			}
			if index == 0 {
				at = m
				break
			}
			index--
		}
		if at == nil {
			return nil
		}
		all = at.Messages()
	}
	return at
}

// isGroup reports whether a message type is one of a group, which is written as a field.
func isGroup(m protoreflect.MessageDescriptor) bool {
	var fields protoreflect.FieldDescriptors
	switch parent := m.Parent().(type) {
	case protoreflect.MessageDescriptor:
		fields = parent.Fields()
	default:
		return false
	}
	f := fields.ByName(protoreflect.Name(strings.ToLower(string(m.Name()))))
	return f != nil && f.Kind() == protoreflect.GroupKind && f.Message() == m
}

// protoNamed finds a message type by the name that Apicurio's serializers write: that of the type, in the file or in one of its
// messages.
func protoNamed(all protoreflect.MessageDescriptors, name string) protoreflect.MessageDescriptor {
	for i := range all.Len() {
		if m := all.Get(i); string(m.Name()) == name || string(m.FullName()) == name {
			return m
		}
	}
	for i := range all.Len() {
		if m := protoNamed(all.Get(i).Messages(), name); m != nil {
			return m
		}
	}
	return nil
}

// protoTypes makes protoMessages of descriptors.
type protoTypes map[protoreflect.FullName]*protoMessage

func (p protoTypes) message(d protoreflect.MessageDescriptor) *protoMessage {
	if m := p[d.FullName()]; m != nil {
		return m
	}
	m := &protoMessage{name: string(d.FullName()), well: wellKnowns[string(d.FullName())], oneofs: d.Oneofs().Len()}
	p[d.FullName()] = m
	fields := d.Fields()
	for i := range fields.Len() {
		m.fields = append(m.fields, p.field(fields.Get(i)))
		m.order = append(m.order, int32(i)) //nolint:gosec // few
	}
	slices.SortFunc(m.order, func(a, b int32) int { return int(d.Fields().Get(int(a)).Number() - d.Fields().Get(int(b)).Number()) })
	if m.well != wellNone && !m.sound() {
		m.well = wellNone
	}
	return m
}

// sound reports whether a message with a well-known name has the fields that it is known for.
func (m *protoMessage) sound() bool {
	names := map[wellKnown]string{
		wellWrapper: "value", wellDecimal: "value precision scale", wellDate: "year month day", wellTimeOfDay: "hours minutes seconds nanos", wellTimestamp: "seconds nanos",
	}[m.well]
	for i, name := range strings.Fields(names) {
		if i >= len(m.fields) || m.fields[i].name != name || m.fields[i].repeated || m.fields[i].message != nil {
			return false
		}
		if bytesField := m.well == wellDecimal && i == 0; m.well != wellWrapper && bytesField != (m.fields[i].kind == protoreflect.BytesKind) {
			return false
		}
	}
	return true
}

func (p protoTypes) field(d protoreflect.FieldDescriptor) protoField {
	f := protoField{
		name: string(d.Name()), number: uint64(d.Number()), kind: d.Kind(), repeated: d.Cardinality() == protoreflect.Repeated, //nolint:gosec // not negative
		presence: d.HasPresence(), required: d.Cardinality() == protoreflect.Required, oneof: -1, params: metaParams(d),
	}
	if of := d.ContainingOneof(); of != nil {
		f.oneof = of.Index()
	}
	switch f.kind {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		f.message, f.wire = p.message(d.Message()), wireBytes
		f.entry = f.repeated && isEntry(d)
	case protoreflect.StringKind, protoreflect.BytesKind:
		f.wire = wireBytes
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		f.wire = wireFixed32
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		f.wire = wireFixed64
	case protoreflect.EnumKind:
		values := d.Enum().Values()
		for i := range values.Len() {
			f.symbols = append(f.symbols, protoSymbol{int32(values.Get(i).Number()), []byte(values.Get(i).Name())})
		}
	default:
	}
	return f
}

// isEntry reports whether a repeated message is a map's: declared as one, or as Connect's converter writes those, whose keys may
// be of any type, a message FIELDEntry of key and value inside of the field's.
func isEntry(d protoreflect.FieldDescriptor) bool {
	if d.IsMap() {
		return true
	}
	m := d.Message()
	want := strings.ReplaceAll(string(d.Name()), "_", "") + "Entry"
	f := m.Fields()
	return m.Parent() == d.Parent() && strings.EqualFold(strings.ReplaceAll(string(m.Name()), "_", ""), want) && f.Len() == 2 &&
		f.Get(0).Name() == "key" && f.Get(0).Number() == 1 && f.Get(1).Name() == "value" && f.Get(1).Number() == 2 &&
		f.Get(0).Cardinality() != protoreflect.Repeated
}

// fieldMeta is the number of Confluent's option with what Connect notes beside a field; its field 2 is a map of texts.
const fieldMeta = 1088

// metaParams reads the parameters in a field's options.
func metaParams(d protoreflect.FieldDescriptor) (out []param) {
	options, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.Options())
	if err != nil {
		return nil // options that the compiler has made
	}
	eachField(options, fieldMeta, func(meta []byte) {
		eachField(meta, 2, func(entry []byte) {
			var p param
			eachField(entry, 1, func(b []byte) { p.name = string(b) })
			eachField(entry, 2, func(b []byte) { p.value = string(b) })
			out = append(out, p)
		})
	})
	return out
}

// eachField calls f with the fields of a message that have a number and a length.
func eachField(b []byte, number protowire.Number, f func([]byte)) {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return
		}
		b = b[size:]
		if n == number && typ == protowire.BytesType {
			if value, size := protowire.ConsumeBytes(b); size >= 0 {
				f(value)
			}
		}
		if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
			return
		}
		b = b[size:]
	}
}

// param returns a parameter.
func (f *protoField) param(name string) string {
	for _, p := range f.params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// protoColumns makes Connect schemas of Protobuf's (1.9).
type protoColumns struct {
	left   int
	within []*protoMessage // messages that are open
}

func connectOfProto(m *protoMessage) (*connectSchema, *Rejected) {
	return (&protoColumns{left: maxAvroTypes}).message(m)
}

// message makes a struct of a message. What no column can be is an error only if it is to be one.
func (p *protoColumns) message(m *protoMessage) (*connectSchema, *Rejected) {
	s := &connectSchema{typ: "struct", name: connectStruct(m)}
	if slices.Contains(p.within, m) {
		return &connectSchema{bad: reject(ReasonSchemaInvalid, "message %s contains itself: no column has such a type", quote([]byte(m.name)))}, nil
	}
	p.within = append(p.within, m)
	defer func() { p.within = p.within[:len(p.within)-1] }()
	for i := range m.fields {
		of, rej := p.field(&m.fields[i])
		if rej != nil {
			return nil, rej
		}
		s.fields = append(s.fields, connectField{m.fields[i].name, of})
	}
	return s, nil
}

// connectStruct returns the semantic name of a message: nested ones have Debezium's name at the end of theirs.
func connectStruct(m *protoMessage) string {
	switch last := m.name[strings.LastIndexByte(m.name, '.')+1:]; last {
	case "VariableScaleDecimal":
		return nameVariableDecimal
	case "StructuredDate", "StructuredTime", "StructuredTimestamp", "StructuredZonedTimestamp":
		return timePrefix + last
	}
	return m.name
}

func (p *protoColumns) field(f *protoField) (*connectSchema, *Rejected) {
	if p.left--; p.left < 0 {
		return nil, reject(ReasonSchemaLimit, "a row of more than %d types", maxAvroTypes)
	}
	if f.entry {
		keys, rej := p.field(&f.message.fields[0])
		if rej != nil {
			return nil, rej
		}
		values, rej := p.field(&f.message.fields[1])
		return &connectSchema{typ: "map", optional: true, keys: keys, values: values}, rej
	}
	s, rej := p.value(f)
	if rej != nil {
		return nil, rej
	}
	if f.repeated {
		s = &connectSchema{typ: "array", items: s}
	}
	s.optional = true // what is there and what is not, the wire tells
	return s, nil
}

// value makes the schema of one value of a field.
func (p *protoColumns) value(f *protoField) (*connectSchema, *Rejected) {
	s := &connectSchema{name: f.param("connect.name"), params: f.params}
	if f.kind == protoreflect.MessageKind {
		switch f.message.well {
		case wellWrapper:
			inner := f.message.fields[0]
			inner.params = f.params
			return p.value(&inner)
		case wellDecimal:
			f.decimal(s)
		case wellDate:
			s.typ, s.name = "int32", nameConnectDate
		case wellTimeOfDay:
			s.typ, s.name = "int32", nameConnectTime
		case wellTimestamp:
			s.typ, s.name = "int64", nameConnectTS
		default:
			return p.message(f.message)
		}
		return s, nil
	}
	switch f.kind {
	case protoreflect.BoolKind:
		s.typ = "boolean"
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		s.typ = oneOf(f.param("connect.type"), "int32", "int8", "int16")
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		s.typ = "int64"
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		s.typ, s.params = "int64", append(slices.Clone(s.params), param{"__debezium.source.column.type", "BIGINT UNSIGNED"})
	case protoreflect.FloatKind:
		s.typ = "float"
	case protoreflect.DoubleKind:
		s.typ = "double"
	case protoreflect.StringKind, protoreflect.EnumKind:
		s.typ = "string"
	case protoreflect.BytesKind:
		s.typ = "bytes"
	default:
		s.bad = reject(ReasonSchemaInvalid, "a group is no column")
	}
	return s, nil
}

// decimal gives s the type of a confluent.type.Decimal: with the scale in its options, or one of its own in each value.
func (f *protoField) decimal(s *connectSchema) {
	if f.param("scale") == "" {
		s.typ, s.name = "struct", nameVariableDecimal
		return
	}
	s.typ, s.name = "bytes", nameDecimal
	if precision := f.param("precision"); precision != "" && f.param("connect.decimal.precision") == "" {
		s.params = append(slices.Clone(s.params), param{"connect.decimal.precision", precision})
	}
}
