package decode

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// protoMode is how a producer writes fields that may be null: what optional.for.nullables and wrapper.for.nullables of
// Confluent's converter decide.
type protoMode int

const (
	nullableOptional protoMode = iota
	nullableWrapper
	nullablePlain
)

// protoWriter writes Connect schemas and values in Protobuf, as Confluent's converter does.
type protoWriter struct {
	t    testing.TB
	mode protoMode
	why  string // what cannot be written is no sample: why not
}

func (w *protoWriter) not(format string, args ...any) {
	if w.why == "" {
		w.why = fmt.Sprintf(format, args...)
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// lastName returns what a message is called inside of its parent.
func lastName(s *connectSchema, or string) string {
	name := s.name[strings.LastIndexByte(s.name, '.')+1:]
	if name == "" {
		return or
	}
	return name
}

// schema returns the text of a file whose first message s is.
func (w *protoWriter) schema(s *connectSchema) string {
	var b strings.Builder
	b.WriteString("syntax = \"proto3\";\n")
	if i := strings.LastIndexByte(s.name, '.'); i > 0 {
		fmt.Fprintf(&b, "package %s;\n", strings.ReplaceAll(s.name[:i], "-", "_")) // scrub.invalid.names
	}
	for _, file := range []string{"confluent/meta.proto", "confluent/type/decimal.proto", "google/protobuf/wrappers.proto", "google/protobuf/timestamp.proto", "google/type/date.proto", "google/type/timeofday.proto"} {
		fmt.Fprintf(&b, "import %q;\n", file)
	}
	w.message(&b, lastName(s, "Root"), s)
	return b.String()
}

func (w *protoWriter) message(b *strings.Builder, name string, s *connectSchema) {
	if !identifier.MatchString(name) {
		w.not("message %q", name)
	}
	fmt.Fprintf(b, "message %s {\n", name)
	var defined []string
	for i, f := range s.fields {
		if !identifier.MatchString(f.name) {
			w.not("field %q", f.name)
		}
		label, of := "", f.schema
		switch {
		case of.typ == "array":
			label, of = "repeated ", of.items
		case of.typ == "map":
			label = "repeated "
		case of.optional && w.mode == nullableOptional:
			label = "optional "
		}
		typ := w.typ(f.name, of)
		if of.typ == "struct" && !slices.Contains(defined, typ) {
			w.message(b, typ, of)
			defined = append(defined, typ)
		}
		if of.typ == "map" {
			w.message(b, typ, &connectSchema{fields: []connectField{{"key", of.keys}, {"value", of.values}}})
		}
		fmt.Fprintf(b, "%s%s %s = %d%s;\n", label, typ, f.name, i+1, w.options(f.schema, of))
	}
	b.WriteString("}\n")
}

func (w *protoWriter) typ(field string, s *connectSchema) string {
	plain, wrapper := "", ""
	switch s.typ {
	case "boolean":
		plain, wrapper = "bool", "BoolValue"
	case "int8", "int16", "int32":
		plain, wrapper = "int32", "Int32Value"
	case "int64":
		plain, wrapper = "int64", "Int64Value"
	case "float", "float32":
		plain, wrapper = "float", "FloatValue"
	case "double", "float64":
		plain, wrapper = "double", "DoubleValue"
	case "string":
		plain, wrapper = "string", "StringValue"
	case "bytes":
		plain, wrapper = "bytes", "BytesValue"
	case "struct":
		return lastName(s, "Struct"+field)
	case "map":
		return strings.ToUpper(field[:1]) + field[1:] + "Entry"
	default:
		w.not("an array of %s", s.typ)
	}
	switch s.name {
	case nameDecimal:
		return "confluent.type.Decimal"
	case nameConnectDate:
		return "google.type.Date"
	case nameConnectTime:
		return "google.type.TimeOfDay"
	case nameConnectTS:
		return "google.protobuf.Timestamp"
	}
	if s.optional && w.mode == nullableWrapper {
		return "google.protobuf." + wrapper
	}
	return plain
}

// options writes what the types do not tell: Connect's width, name and parameters; and a default, which proto3 does not have, as the
// converter does.
func (w *protoWriter) options(field, s *connectSchema) string {
	params := slices.Clone(s.params)
	if s.name == nameDecimal {
		for i, p := range params {
			if p.name == "connect.decimal.precision" {
				params[i].name = "precision"
			}
		}
	}
	if s.typ == "int8" || s.typ == "int16" {
		params = append(params, param{"connect.type", s.typ})
	}
	if s.name != "" && s.typ != "struct" && s.name != nameConnectDate && s.name != nameConnectTime && s.name != nameConnectTS {
		params = append(params, param{"connect.name", s.name})
	}
	var all []string
	if field.hasDefault && s.typ == "string" && w.mode != nullableWrapper {
		all = append(all, `default = "false"`)
	}
	if len(params) > 0 {
		meta := "(confluent.field_meta) = { params: ["
		for i, p := range params {
			if i > 0 {
				meta += ","
			}
			meta += fmt.Sprintf("{key: %q, value: %s}", p.name, strconv.QuoteToASCII(p.value))
		}
		all = append(all, meta+"] }")
	}
	if len(all) == 0 {
		return ""
	}
	return " [" + strings.Join(all, ", ") + "]"
}

// body writes a struct.
func (w *protoWriter) body(s *connectSchema, payload any) []byte {
	members, ok := payload.(map[string]any)
	if !ok {
		w.not("a payload that is no object")
	}
	var b []byte
	for i, f := range s.fields {
		b = w.field(b, protowire.Number(i+1), f.schema, members[f.name])
	}
	return b
}

func (w *protoWriter) field(b []byte, n protowire.Number, s *connectSchema, v any) []byte {
	message := func(body []byte) { b = protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), body) }
	switch {
	case s.typ == "array" && v == nil, s.typ == "map" && v == nil:
		w.not("a list or map that is null")
	case v == nil:
	case s.typ == "array":
		for _, e := range v.([]any) {
			if e == nil {
				w.not("a null in a list")
			}
			before := len(b)
			if b = w.value(b, n, s.items, e); len(b) == before {
				b = w.scalar(b, n, s.items, e) // zero, too
			}
		}
	case s.typ == "map":
		entry := &connectSchema{typ: "struct", fields: []connectField{{"key", s.keys}, {"value", s.values}}}
		if object, ok := v.(map[string]any); ok {
			for k, e := range object {
				message(w.body(entry, map[string]any{"key": k, "value": e}))
			}
			break
		}
		for _, pair := range v.([]any) {
			message(w.body(entry, map[string]any{"key": pair.([]any)[0], "value": pair.([]any)[1]}))
		}
	default:
		return w.value(b, n, s, v)
	}
	return b
}

// value writes one value that is not null: a zero that needs no presence is left out.
func (w *protoWriter) value(b []byte, n protowire.Number, s *connectSchema, v any) []byte {
	message := func(body []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), body)
	}
	varint := func(to []byte, n protowire.Number, i int64) []byte {
		if i == 0 {
			return to
		}
		return protowire.AppendVarint(protowire.AppendTag(to, n, protowire.VarintType), uint64(i))
	}
	switch {
	case s.typ == "struct":
		return message(w.body(s, v))
	case s.name == nameDecimal:
		scale, _ := s.param("scale")
		i, _ := strconv.ParseInt(scale, 10, 32)
		text, ok := v.(string)
		if !ok {
			w.not("a decimal as a number")
		}
		unscaled, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			w.not("a decimal of %q", text)
		}
		body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), unscaled)
		return message(varint(varint(body, 2, 9), 3, i))
	case s.name == nameConnectDate:
		day := strings.Split(dateForm(w.integer(v)), "-")
		body := []byte(nil)
		for i, part := range day {
			k, err := strconv.ParseInt(part, 10, 64)
			if err != nil {
				w.not("date %v", v)
			}
			body = varint(body, protowire.Number(i+1), k)
		}
		return message(body)
	case s.name == nameConnectTime:
		ms := w.integer(v)
		if ms < 0 || ms >= 24*3600*1000 {
			w.not("time %d", ms)
		}
		body := varint(varint(varint(nil, 1, ms/3_600_000), 2, ms/60_000%60), 3, ms/1000%60)
		return message(varint(body, 4, ms%1000*1_000_000))
	case s.name == nameConnectTS:
		ms := w.integer(v)
		return message(varint(varint(nil, 1, floorDiv(ms, 1000)), 2, (ms-floorDiv(ms, 1000)*1000)*1_000_000))
	case s.optional && w.mode == nullableWrapper:
		return message(w.implicit(w.scalar(nil, 1, s, v)))
	case s.optional && w.mode == nullableOptional:
		return w.scalar(b, n, s, v)
	}
	return append(b, w.implicit(w.scalar(nil, n, s, v))...)
}

// implicit leaves a field out that is zero.
func (w *protoWriter) implicit(field []byte) []byte {
	_, typ, n := protowire.ConsumeTag(field)
	if typ == protowire.BytesType && len(field) > n+1 || typ != protowire.BytesType && strings.Trim(string(field[n:]), "\x00") != "" {
		return field
	}
	return nil
}

// scalar writes a field, zero or not.
func (w *protoWriter) scalar(b []byte, n protowire.Number, s *connectSchema, v any) []byte {
	switch s.typ {
	case "boolean":
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), protowire.EncodeBool(v == true))
	case "float", "float32":
		return protowire.AppendFixed32(protowire.AppendTag(b, n, protowire.Fixed32Type), math.Float32bits(float32(w.float(v))))
	case "double", "float64":
		return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), math.Float64bits(w.float(v)))
	case "string", "bytes":
		text, ok := v.(string)
		if !ok {
			w.not("a string of %v", v)
		}
		value := []byte(text)
		if s.typ == "bytes" {
			var err error
			if value, err = base64.StdEncoding.DecodeString(text); err != nil {
				w.not("bytes of %q", text)
			}
		}
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), value)
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(w.integer(v)))
}

func (w *protoWriter) integer(v any) int64 {
	n, ok := v.(json.Number)
	i, err := n.Int64()
	if !ok || err != nil {
		w.not("an integer of %v", v)
	}
	return i
}

func (w *protoWriter) float(v any) float64 {
	f, err := strconv.ParseFloat(strings.Trim(fmt.Sprint(v), `"`), 64)
	if err != nil {
		w.not("a number of %v", v)
	}
	return f
}

// asProtobuf makes a record with schemas what a producer with Confluent's Protobuf converter makes of it; why: none, for that reason.
func (r registrar) asProtobuf(t testing.TB, in Record, mode protoMode) (out Record, why string) {
	t.Helper()
	w := &protoWriter{t: t, mode: mode}
	of := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		s, payload := split(t, b)
		if s.typ != "struct" || string(payload) == "null" {
			w.not("no struct")
			return nil
		}
		body := w.body(s, parse(t, payload))
		if w.why != "" {
			return nil
		}
		return append(append(r.register(Schema{Text: []byte(w.schema(s)), Type: "PROTOBUF"}), 0), body...)
	}
	out = in
	out.Key, out.Value = of(in.Key), of(in.Value)
	return out, w.why
}
