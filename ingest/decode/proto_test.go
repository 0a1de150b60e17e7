package decode

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"firn/changelog"
)

// TestProtobufPairs: what JSON with schemas says, Protobuf says, too: the same columns, types, values, keys and positions, of each
// type and each connector, whichever way nulls are written.
func TestProtobufPairs(t *testing.T) {
	for mode, least := range map[protoMode]int{nullableOptional: 170, nullableWrapper: 170} {
		schemas, n := registrar{}, 0
		d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
		json := newDecoder(t, Options{Format: FormatSchema})
		bare := func(c Column) string { return c.Name + " " + c.Type.String() } // Protobuf has no semantic names of structs
		forPairs(t, func(name string, r Record, _ string) {
			in, why := schemas.asProtobuf(t, r, mode)
			if why != "" {
				t.Logf("%s: %s", name, why)
				return
			}
			n++
			ev, err := json.Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			want := describeWith(t, ev, bare)
			got, err := decodeFramed(t, d, in, schemas)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if text := describeWith(t, got, bare); text != want {
				t.Errorf("%s:\n%s\nas JSON:\n%s", name, text, want)
			}
		})
		if n < least {
			t.Errorf("mode %d: %d pairs", mode, n)
		}
	}
}

// TestProtobufIndexes: the recorded vectors of message indexes name the messages that they should, in the body and in the header.
func TestProtobufIndexes(t *testing.T) {
	b, err := os.ReadFile(samples + "wire_protobuf_indexes.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Indexes []int
			Bytes   string `json:"bytes_hex"`
			Framed  string `json:"framed_hex"`
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 8 {
		t.Errorf("%d vectors", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		raw, err := hex.DecodeString(v.Framed)
		if err != nil {
			t.Fatal(err)
		}
		d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
		ref, body, ok := d.frame(nil, raw, false)
		if !ok || ref.ID != 9 {
			t.Fatalf("%v %v", ref, d.err)
		}
		path, rest, ok := d.protoType(&Record{Value: raw}, body, false)
		if !ok || !slices.Equal(path.indexes, v.Indexes) || len(rest) != 0 || hex.EncodeToString(path.key) != v.Bytes {
			t.Errorf("%v: %v, %d bytes left, %v", v.Indexes, path.indexes, len(rest), d.err)
		}
	}
}

// protoFile is a schema of many messages: entries of maps and groups count for nothing among them.
const protoFile = `syntax = "proto2"; package p;
message A { optional group Sub = 1 { message In { optional int32 a = 1; } } map<string, int32> m = 2; message AA { message AAA {} message AAB {} } message AB {} enum E { X = 0; } message AC {} }
message B { message BA {} }
enum F { Y = 0; }
message C {}
`

func TestProtobufMessages(t *testing.T) {
	file, rej := parseProto(Schema{Text: []byte(protoFile)})
	if rej != nil {
		t.Fatal(rej)
	}
	for _, c := range []struct {
		indexes []int
		want    protoreflect.FullName
	}{
		{[]int{0}, "p.A"},
		{[]int{1}, "p.B"},
		{[]int{2}, "p.C"},
		{[]int{3}, ""},
		{[]int{0, 0}, "p.A.AA"},
		{[]int{0, 0, 1}, "p.A.AA.AAB"},
		{[]int{0, 1}, "p.A.AB"},
		{[]int{0, 2}, "p.A.AC"},
		{[]int{0, 3}, ""},
		{[]int{1, 0}, "p.B.BA"},
		{[]int{1, 0, 0}, ""},
		{[]int{0, 1 << 20}, ""},
	} {
		var got protoreflect.FullName
		if m := protoAt(file, c.indexes); m != nil {
			got = m.FullName()
		}
		if got != c.want {
			t.Errorf("%v is %s, want %s", c.indexes, got, c.want)
		}
	}
	for name, want := range map[string]protoreflect.FullName{"B": "p.B", "BA": "p.B.BA", "p.A.AC": "p.A.AC", "AAB": "p.A.AA.AAB", "Z": ""} {
		var got protoreflect.FullName
		if m := protoNamed(file.Messages(), name); m != nil {
			got = m.FullName()
		}
		if got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// protoEnvelope returns the schema of an envelope, the first message, whose rows have the column id, and the field v, which has number 2.
func protoEnvelope(v string) Schema {
	return Schema{Type: "PROTOBUF", Text: []byte(`syntax = "proto3"; package p.s.t;
import "confluent/meta.proto"; import "confluent/type/decimal.proto"; import "google/protobuf/wrappers.proto"; import "google/protobuf/timestamp.proto"; import "google/type/date.proto"; import "google/type/timeofday.proto";
message Envelope { Value before = 1; Value after = 2; Source source = 3; string op = 4;
message Value { int32 id = 1; ` + v + ` }
message Source { string connector = 1; } }
message Key { int32 id = 1; }
enum Color { RED = 0; BLUE = 5; }
message Pair { optional int32 a = 1; repeated string b = 2; Pair p = 3; }
message Leaf { optional int32 a = 1; string b = 2; }
message VariableScaleDecimal { int32 scale = 1; bytes value = 2; }
message StructuredDate { google.protobuf.Int32Value year = 1; optional int32 month = 2; int32 day = 3; string specialValue = 4; }
`)}
}

type protoBody []byte

func (b protoBody) bytes(n protowire.Number, v []byte) protoBody {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func (b protoBody) text(n protowire.Number, v string) protoBody { return b.bytes(n, []byte(v)) }

func (b protoBody) varint(n protowire.Number, v uint64) protoBody {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func (b protoBody) fixed32(n protowire.Number, v uint32) protoBody {
	return protowire.AppendFixed32(protowire.AppendTag(b, n, protowire.Fixed32Type), v)
}

func (b protoBody) fixed64(n protowire.Number, v uint64) protoBody {
	return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), v)
}

// protoCreate returns a create of the row with id 1 and the fields of v.
func protoCreate(v protoBody) Record {
	body := protoBody{}.bytes(2, append(protoBody{}.varint(1, 1), v...)).bytes(3, protoBody{}.text(1, "postgresql")).text(4, "c")
	return Record{Topic: "p.s.t", Key: append([]byte{0, 0, 0, 0, 2, 2, 2}, protoBody{}.varint(1, 1)...), Value: append([]byte{0, 0, 0, 0, 2, 0}, body...)}
}

func protoDecode(t testing.TB, v string, r Record) (*Event, error) {
	t.Helper()
	d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
	d.AddSchema(SchemaRef{ID: 2}, protoEnvelope(v))
	return d.Decode(r)
}

// TestProtobufTypes: each of Protobuf's types, however it is written, becomes the right column and value.
func TestProtobufTypes(t *testing.T) {
	minus := func(i int64) uint64 { return uint64(i) }
	const scale2 = ` [(confluent.field_meta) = { params: [{key: "scale", value: "2"}, {key: "precision", value: "10"}] }]`
	for _, c := range []struct {
		name, field string
		body        protoBody
		typ, want   string
	}{
		{"bool", "bool v = 2;", protoBody{}.varint(2, 1), "boolean", "true"},
		{"int32", "int32 v = 2;", protoBody{}.varint(2, minus(-7)), "int", "-7"},
		{"sint32", "sint32 v = 2;", protoBody{}.varint(2, 13), "int", "-7"},
		{"sfixed32", "sfixed32 v = 2;", protoBody{}.fixed32(2, 0xfffffff9), "int", "-7"},
		{"uint32", "uint32 v = 2;", protoBody{}.varint(2, 1<<32-1), "long", "4294967295"},
		{"fixed32", "fixed32 v = 2;", protoBody{}.fixed32(2, 1<<32-1), "long", "4294967295"},
		{"int64", "int64 v = 2;", protoBody{}.varint(2, minus(-7)), "long", "-7"},
		{"sint64", "sint64 v = 2;", protoBody{}.varint(2, 1<<64-1), "long", "-9223372036854775808"},
		{"sfixed64", "sfixed64 v = 2;", protoBody{}.fixed64(2, minus(-7)), "long", "-7"},
		{"uint64", "uint64 v = 2;", protoBody{}.varint(2, 1<<64-1), "decimal(20,0)", `"18446744073709551615"`},
		{"fixed64", "fixed64 v = 2;", protoBody{}.fixed64(2, 1<<63), "decimal(20,0)", `"9223372036854775808"`},
		{"float", "float v = 2;", protoBody{}.fixed32(2, 0x3fc00000), "float", "1.5"},
		{"double", "double v = 2;", protoBody{}.fixed64(2, 0x7ff8000000000001), "double", `"NaN"`},
		{"string", "string v = 2;", protoBody{}.text(2, "Ž"), "string", `"Ž"`},
		{"bytes", "bytes v = 2;", protoBody{}.bytes(2, []byte{0, 1}), "binary", `"0001"`},
		{"enum", "Color v = 2;", protoBody{}.varint(2, 5), "string", `"BLUE"`},
		{"int16", `int32 v = 2 [(confluent.field_meta) = { params: [{key: "connect.type", value: "int16"}] }];`, protoBody{}.varint(2, minus(-7)), "int", "-7"},
		{"a name", `int64 v = 2 [(confluent.field_meta) = { params: [{key: "connect.name", value: "io.debezium.time.MicroTimestamp"}] }];`, protoBody{}.varint(2, 1), "timestamp", `"1970-01-01T00:00:00.000001"`},
		{"a default", `string v = 2 [default = "x"];`, nil, "string", `""`},

		{"zero", "int32 v = 2;", nil, "int", "0"},
		{"zero text", "string v = 2;", nil, "string", `""`},
		{"zero enum", "Color v = 2;", nil, "string", `"RED"`},
		{"zero unsigned", "uint64 v = 2;", nil, "decimal(20,0)", `"0"`},
		{"zero double", "double v = 2;", nil, "double", "0"},
		{"no uuid", `string v = 2 [(confluent.field_meta) = { params: [{key: "connect.name", value: "io.debezium.data.Uuid"}] }];`, nil, "uuid", "<nil>"},
		{"null", "optional int32 v = 2;", nil, "int", "<nil>"},
		{"optional zero", "optional int32 v = 2;", protoBody{}.varint(2, 0), "int", "0"},
		{"null message", "Leaf v = 2;", nil, "struct<a:int,b:string>", "<nil>"},
		{"null wrapper", "google.protobuf.StringValue v = 2;", nil, "string", "<nil>"},
		{"wrapper", "google.protobuf.Int64Value v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 9)), "long", "9"},
		{"wrapper of zero", "google.protobuf.BoolValue v = 2;", protoBody{}.bytes(2, nil), "boolean", "false"},
		{"not of the oneof", "oneof o { int32 v = 2; string w = 3; }", protoBody{}.varint(2, 4).text(3, "x"), "int", "<nil>"},
		{"of the oneof", "oneof o { int32 v = 2; string w = 3; }", protoBody{}.text(3, "x").varint(2, 4), "int", "4"},

		{"the last one counts", "int32 v = 2;", protoBody{}.varint(2, 4).varint(2, 5), "int", "5"},
		{"unknown fields", "int32 v = 2;", protoBody{}.text(100, "x").varint(2, 4).fixed64(1<<29-1, 1).fixed32(99, 1).varint(98, 1), "int", "4"},
		{"messages are merged", "Leaf v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 1).text(2, "x")).bytes(2, protoBody{}.text(2, "y")), "struct<a:int,b:string>", `{"a":1,"b":"y"}`},
		{"struct", "Leaf v = 2;", protoBody{}.bytes(2, protoBody{}.text(2, "x")), "struct<a:int,b:string>", `{"a":<nil>,"b":"x"}`},
		{"empty struct", "Leaf v = 2;", protoBody{}.bytes(2, nil), "struct<a:int,b:string>", `{"a":<nil>,"b":""}`},

		{"packed", "repeated sint32 v = 2;", protoBody{}.bytes(2, []byte{1, 2, 0x80, 1}), "list<int>", "[-1,1,64]"},
		{"not packed", "repeated sint32 v = 2;", protoBody{}.varint(2, 1).varint(2, 2), "list<int>", "[-1,1]"},
		{"both, between others", "repeated sint32 v = 2; int32 w = 3;", protoBody{}.bytes(2, []byte{2, 10}).varint(3, 1).varint(2, 4).varint(3, 1).bytes(2, []byte{6, 8}), "list<int>", "[1,5,2,3,4]"},
		{"packed nothing", "repeated int32 v = 2;", protoBody{}.bytes(2, nil), "list<int>", "[]"},
		{"packed fixed", "repeated fixed32 v = 2;", protoBody{}.bytes(2, []byte{1, 0, 0, 0, 2, 0, 0, 0}), "list<long>", "[1,2]"},
		{"packed doubles", "repeated double v = 2;", protoBody{}.bytes(2, make([]byte, 16)), "list<double>", "[0,0]"},
		{"none", "repeated string v = 2;", nil, "list<string>", "[]"},
		{"texts", "repeated string v = 2;", protoBody{}.text(2, "a").text(2, ""), "list<string>", `["a",""]`},
		{"wrappers", "repeated google.protobuf.Int32Value v = 2;", protoBody{}.bytes(2, nil).bytes(2, protoBody{}.varint(1, 3)), "list<int>", "[0,3]"},
		{"map", "map<string, int32> v = 2;", protoBody{}.bytes(2, protoBody{}.text(1, "b").varint(2, 1)).bytes(2, protoBody{}.varint(2, 7)).bytes(2, protoBody{}.varint(2, 3).text(1, "b")), "map<string,int>", `[["",7],["b",3]]`},
		{"map of messages", "map<int32, Leaf> v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 4).bytes(2, protoBody{}.text(2, "x"))).bytes(2, nil), "map<int,struct<a:int,b:string>>", `[[0,<nil>],[4,{"a":<nil>,"b":"x"}]]`},
		{"map of Connect", "message VEntry { double key = 1; bytes value = 2; } repeated VEntry v = 2;", protoBody{}.bytes(2, protoBody{}.fixed64(1, 0x3ff8000000000000).bytes(2, []byte{1})), "map<double,binary>", `[[1.5,"01"]]`},
		{"no map", "message Entry { int32 key = 1; int32 value = 2; } repeated Entry v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 4)), "list<struct<key:int,value:int>>", `[{"key":4,"value":0}]`},

		{"decimal", "confluent.type.Decimal v = 2" + scale2 + ";", protoBody{}.bytes(2, protoBody{}.bytes(1, []byte{0xff, 0x6a}).varint(2, 3).varint(3, 2)), "decimal(10,2)", `"-1.50"`},
		{"decimal without a scale", "confluent.type.Decimal v = 2;", protoBody{}.bytes(2, protoBody{}.bytes(1, []byte{0x7b}).varint(3, 1)), "string", `"12.3"`},
		{"variable decimal", "VariableScaleDecimal v = 2;", protoBody{}.bytes(2, protoBody{}.bytes(2, []byte{0x7b}).varint(1, minus(-1))), "string", `"1230"`},
		{"date", "google.type.Date v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 2024).varint(2, 2).varint(3, 29)), "date", `"2024-02-29"`},
		{"time of day", "google.type.TimeOfDay v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, 23).varint(3, 1).varint(4, 2000)), "time", `"23:00:01.000002"`},
		{"timestamp", "google.protobuf.Timestamp v = 2;", protoBody{}.bytes(2, protoBody{}.varint(1, minus(-1)).varint(2, 999_999_000)), "timestamp", `"1969-12-31T23:59:59.999999"`},
		{"structured date", "StructuredDate v = 2;", protoBody{}.bytes(2, protoBody{}.bytes(1, protoBody{}.varint(1, 2024)).varint(2, 2).varint(3, 29)), "date", `"2024-02-29"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ev, err := protoDecode(t, c.field, protoCreate(c.body))
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(ev.Shape.Columns, func(c Column) bool { return c.Name == "v" })
			col := ev.Shape.Columns[i]
			if got := text(form(t, col.Type, ev.After[i])); col.Type.String() != c.typ || got != c.want {
				t.Errorf("%s %s, want %s %s", col.Type, got, c.typ, c.want)
			}
			if (len(ev.Reports) != 0) != (c.name == "map") { // which has a key twice
				t.Errorf("reports %v", ev.Reports)
			}
		})
	}
}

// TestProtobufBad: what is wrong with a body, a schema or what names the message type.
func TestProtobufBad(t *testing.T) {
	deep := protoBody{}
	for range maxProtoDepth + 2 {
		deep = protoBody{}.bytes(3, deep)
	}
	chain, chained := "M0 v = 2;", protoBody{}
	for i := range 120 {
		chain += fmt.Sprintf(" message M%d { M%d m = 1; }", i, i+1)
		chained = protoBody{}.bytes(1, chained)
	}
	chain += " message M120 { int32 a = 1; }"
	with := func(value ...byte) Record {
		r := protoCreate(nil)
		r.Value = append([]byte{}, value...)
		return r
	}
	for _, c := range []struct {
		name, field string
		r           Record
		reason      string
	}{
		{"wire type", "int32 v = 2;", protoCreate(protoBody{}.text(2, "x")), ReasonProtoDecode},
		{"wire type of a message", "Leaf v = 2;", protoCreate(protoBody{}.varint(2, 1)), ReasonProtoDecode},
		{"wire type inside", "Leaf v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.text(1, "x"))), ReasonProtoDecode},
		{"group", "int32 v = 2;", protoCreate(protoBody{11<<3 | 3, 11<<3 | 4}), ReasonProtoDecode},
		{"wire type 6", "int32 v = 2;", protoCreate(protoBody{11<<3 | 6}), ReasonProtoDecode},
		{"field 0", "int32 v = 2;", protoCreate(protoBody{0, 0}), ReasonProtoDecode},
		{"field too large", "int32 v = 2;", protoCreate(protoBody{0x80, 0x80, 0x80, 0x80, 0x10, 0}), ReasonProtoDecode},
		{"short number", "int32 v = 2;", protoCreate(protoBody{0x10, 0x80}), ReasonProtoDecode},
		{"long number", "int32 v = 2;", protoCreate(protoBody{0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}), ReasonProtoDecode},
		{"length", "string v = 2;", protoCreate(protoBody{0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 'x'}), ReasonProtoDecode},
		{"length of 64 bits", "string v = 2;", protoCreate(protoBody{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}), ReasonProtoDecode},
		{"short fixed", "fixed64 v = 2;", protoCreate(protoBody{0x11, 1, 2}), ReasonProtoDecode},
		{"packed fixed", "repeated fixed32 v = 2;", protoCreate(protoBody{}.bytes(2, make([]byte, 5))), ReasonProtoDecode},
		{"packed number", "repeated int32 v = 2;", protoCreate(protoBody{}.bytes(2, []byte{0x80})), ReasonProtoDecode},
		{"packed, of one", "int32 v = 2;", protoCreate(protoBody{}.bytes(2, []byte{1})), ReasonProtoDecode},
		{"UTF-8", "string v = 2;", protoCreate(protoBody{}.text(2, "\xff")), ReasonUTF8},
		{"UTF-8 of a wrapper", "google.protobuf.StringValue v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.text(1, "\xff"))), ReasonUTF8},
		{"enum", "Color v = 2;", protoCreate(protoBody{}.varint(2, 6)), ReasonProtoDecode},
		{"int8", `int32 v = 2 [(confluent.field_meta) = { params: [{key: "connect.type", value: "int8"}] }];`, protoCreate(protoBody{}.varint(2, 128)), ReasonIntRange},
		{"scale", `confluent.type.Decimal v = 2 [(confluent.field_meta) = { params: [{key: "scale", value: "2"}] }];`, protoCreate(protoBody{}.bytes(2, protoBody{}.bytes(1, []byte{1}).varint(3, 3))), ReasonSchemaMismatch},
		{"no decimal", "confluent.type.Decimal v = 2;", protoCreate(protoBody{}.bytes(2, nil)), ReasonDecimalBytes},
		{"no date", "google.type.Date v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.varint(1, 2023).varint(2, 2).varint(3, 29))), ReasonTemporalFormat},
		{"no time", "google.type.TimeOfDay v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.varint(2, 60))), ReasonTemporalFormat},
		{"no nanoseconds", "google.protobuf.Timestamp v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.varint(2, 1<<30))), ReasonTemporalFormat},
		{"recursion", "Pair v = 2;", protoCreate(protoBody{}.bytes(2, deep)), ReasonSchemaInvalid},
		{"levels", chain, protoCreate(protoBody{}.bytes(2, chained)), ReasonProtoDecode},
		{"a null key of a map", "message VEntry { optional int32 key = 1; int32 value = 2; } repeated VEntry v = 2;", protoCreate(protoBody{}.bytes(2, protoBody{}.varint(2, 1))), ReasonTypeMismatch},

		{"no schema", "nonsense", protoCreate(nil), ReasonSchemaInvalid},
		{"an import", `message X {} } } import "none.proto"; message Y { message Z {`, protoCreate(nil), ReasonSchemaInvalid},
		{"deep brackets", strings.Repeat("message X {", 200) + strings.Repeat("}", 200), protoCreate(nil), ReasonSchemaInvalid},
		{"empty", "int32 v = 2;", with(), ReasonEmptyPayload},
		{"no indexes", "int32 v = 2;", with(0, 0, 0, 0, 2), ReasonFrameShort},
		{"short indexes", "int32 v = 2;", with(0, 0, 0, 0, 2, 2, 0x80), ReasonFrameShort},
		{"fewer indexes than said", "int32 v = 2;", with(0, 0, 0, 0, 2, 4, 0), ReasonProtoIndex},
		{"many indexes", "int32 v = 2;", with(0, 0, 0, 0, 2, 0xfe, 0xff, 0xff, 0xff, 0x0f), ReasonProtoIndex},
		{"negative count", "int32 v = 2;", with(0, 0, 0, 0, 2, 1), ReasonProtoIndex},
		{"negative index", "int32 v = 2;", with(0, 0, 0, 0, 2, 2, 1), ReasonProtoIndex},
		{"index outside", "int32 v = 2;", with(0, 0, 0, 0, 2, 2, 40), ReasonProtoIndex},
		{"index outside, inside", "int32 v = 2;", with(0, 0, 0, 0, 2, 4, 0, 40), ReasonProtoIndex},
		{"no envelope", "int32 v = 2;", with(0, 0, 0, 0, 2, 2, 2), ReasonEnvelopeShape},
		{"no message at all", "int32 v = 2;", with(0, 0, 0, 0, 2, 2, 2, 0xff), ReasonProtoDecode},
		{"no op", "int32 v = 2;", with(0, 0, 0, 0, 2, 0), ReasonOpMissing},
		{"after twice", "int32 v = 2;", with(append(protoCreate(nil).Value, 0x12, 0)...), ReasonProtoDecode},
		{"no source", "int32 v = 2;", with(0, 0, 0, 0, 2, 0, 0x12, 0, 0x22, 1, 'c'), ReasonSourceMissing},
		{"no after", "int32 v = 2;", with(0, 0, 0, 0, 2, 0, 0x1a, 0, 0x22, 1, 'c'), ReasonNoImage},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := protoDecode(t, c.field, c.r); err == nil || reasonOf(err) != c.reason {
				t.Errorf("%v, want %s", err, c.reason)
			}
		})
	}
}

// TestProtobufFramings: a message type is named after the schema's id, in Confluent's header, or in Apicurio's ways, and each gives the same event.
func TestProtobufFramings(t *testing.T) {
	plain := protoCreate(protoBody{}.varint(2, 7))
	key, value := plain.Key[7:], plain.Value[6:]
	want, err := protoDecode(t, "int32 v = 2;", plain)
	if err != nil {
		t.Fatal(err)
	}
	text := describe(t, want)
	header := func(name, value string) changelog.Header { return changelog.Header{Key: name, Value: []byte(value)} }
	guid := "\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x04"
	join := func(parts ...string) []byte { return []byte(strings.Join(parts, "")) }
	ref := func(name string) string { return string(protowire.AppendBytes(nil, protoBody{}.text(1, name))) }
	confluent, apicurio := Options{Format: FormatConfluentProtobuf}, Options{Format: FormatApicurioProtobuf}
	indexes, none := apicurio, apicurio
	indexes.ProtobufRef, none.ProtobufRef, none.KeyFormat = ProtobufRefIndexes, ProtobufRefNone, FormatPlain
	for _, c := range []struct {
		name  string
		o     Options
		r     Record
		frame string // of the key
	}{
		{"prefix", confluent, plain, "\x00\x00\x00\x00\x02"},
		{"indexes written out", confluent, Record{Key: plain.Key, Value: join("\x00\x00\x00\x00\x02\x02\x00", string(value))}, "\x00\x00\x00\x00\x02"},
		{"GUID", confluent, Record{Key: join(guid, "\x02\x02", string(key)), Value: join(guid, "\x00", string(value))}, guid},
		{"header", confluent, Record{Key: key, Value: value, Headers: []changelog.Header{header("__key_schema_id", guid+"\x02\x02"), header("__value_schema_id", guid+"\x00")}}, ""},
		{"reference", apicurio, Record{Key: join("\x00\x00\x00\x00\x02", ref("Key"), string(key)), Value: join("\x00\x00\x00\x00\x02", ref("Envelope"), string(value))}, "\x00\x00\x00\x00\x02"},
		{"Apicurio's indexes", indexes, Record{Key: plain.Key, Value: plain.Value}, "\x00\x00\x00\x00\x02"},
		{"nothing", none, Record{Key: []byte(`{"id":1}`), Value: join("\x00\x00\x00\x00\x02", string(value))}, ""},
		{"Apicurio's headers", apicurio, Record{Key: key, Value: value, Headers: []changelog.Header{
			header("apicurio.key.contentId", "\x00\x00\x00\x00\x00\x00\x00\x02"), header("apicurio.protobuf.type.key", "Key"),
			header("apicurio.value.contentId", "\x00\x00\x00\x00\x00\x00\x00\x02"), header("apicurio.protobuf.type", "Envelope"),
		}}, ""},
		{"Apicurio's headers without a type", Options{Format: FormatApicurioProtobuf, KeyFormat: FormatPlain}, Record{Key: []byte(`{"id":1}`), Value: value, Headers: []changelog.Header{
			header("apicurio.value.contentId", "\x00\x00\x00\x00\x00\x00\x00\x02"),
		}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.r.Topic = plain.Topic
			s := protoEnvelope("int32 v = 2;")
			schemas := map[SchemaRef]Schema{{ID: 2}: s, {Kind: RefGUID, High: 3, ID: 4}: s, {Kind: RefContentID, ID: 2}: s}
			d := newDecoder(t, c.o)
			for range 2 { // compiled, then as it is
				if got := outcome(t, d, c.r, schemas); strings.ReplaceAll(got, "id long", "id int") != text {
					t.Errorf("%s\nwant\n%s", got, text)
				}
			}
			if got := string(d.KeyFrame(c.r)); got != c.frame {
				t.Errorf("frame %q of the key", got)
			}
		})
	}
	for name, r := range map[string]Record{
		ReasonFrameShort: {Value: value, Headers: []changelog.Header{header("__value_schema_id", guid+"\x00\x00")}},
		ReasonProtoIndex: {Value: value, Headers: []changelog.Header{header("__value_schema_id", guid+"\x02\x20")}},
	} {
		_, err := decodeFramed(t, newDecoder(t, Options{Format: FormatConfluentProtobuf, NoKey: true}), r, map[SchemaRef]Schema{{Kind: RefGUID, High: 3, ID: 4}: protoEnvelope("int32 v = 2;")})
		if err == nil || reasonOf(err) != name {
			t.Errorf("%v, want %s", err, name)
		}
	}
	_, err = newDecoder(t, Options{Format: FormatApicurioProtobuf, NoKey: true}).Decode(Record{Value: value, Headers: []changelog.Header{header("apicurio.value.schema", protoFile)}})
	if err == nil || reasonOf(err) != ReasonSchemaInvalid {
		t.Errorf("a schema in a header: %v", err)
	}
	for value, reason := range map[string]string{"\x7f": ReasonFrameShort, "\x02\x08\x01": ReasonProtoIndex, ref("Nobody"): ReasonProtoIndex, "": ReasonFrameShort} {
		_, err := decodeFramed(t, newDecoder(t, Options{Format: FormatApicurioProtobuf, NoKey: true}), Record{Value: join("\x00\x00\x00\x00\x02", value)}, map[SchemaRef]Schema{{Kind: RefContentID, ID: 2}: protoEnvelope("int32 v = 2;")})
		if err == nil || reasonOf(err) != reason {
			t.Errorf("%q: %v, want %s", value, err, reason)
		}
	}
}

// TestProtobufReferences: a schema may import others that are registered, under the names that it has for them.
func TestProtobufReferences(t *testing.T) {
	s := protoEnvelope("other.Money v = 2;")
	s.Text = append(s.Text, `import "shop/other.proto";`...)
	s.References = []Reference{
		{"deep.proto", []byte(`syntax = "proto3"; enum Currency { EUR = 0; SEK = 1; }`)},
		{"shop/other.proto", []byte(`syntax = "proto2"; package other; import "deep.proto"; message Money { required Currency of = 1; optional sint64 cents = 2 [default = 5]; }`)},
	}
	d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
	d.AddSchema(SchemaRef{ID: 2}, s)
	ev, err := d.Decode(protoCreate(protoBody{}.bytes(2, protoBody{}.varint(1, 1))))
	if err != nil {
		t.Fatal(err)
	}
	if c := ev.Shape.Columns[1]; c.Type.String() != "struct<of:string,cents:long>" || text(form(t, c.Type, ev.After[1])) != `{"cents":<nil>,"of":"SEK"}` {
		t.Errorf("%s %s", c.Type, text(form(t, c.Type, ev.After[1])))
	}
	if _, err := d.Decode(protoCreate(protoBody{}.bytes(2, nil))); err == nil || reasonOf(err) != ReasonRequiredMissing {
		t.Error(err)
	}
}

// TestProtobufCaches: however many message types of however many schemas records name, few are kept.
func TestProtobufCaches(t *testing.T) {
	d := newDecoder(t, Options{Format: FormatConfluentProtobuf, NoKey: true})
	for id := range byte(2 * maxSchemas) {
		for index := range byte(20) {
			r := Record{Topic: "p.s.t", Value: []byte{0, 0, 0, 0, id, 2, 2 * index}}
			if _, err := decodeFramed(t, d, r, map[SchemaRef]Schema{{ID: uint64(id)}: {Text: []byte(protoFile)}}); err == nil {
				t.Fatal("no envelope is taken")
			}
		}
	}
	if len(d.registered) > maxSchemas {
		t.Errorf("%d schemas", len(d.registered))
	}
	for _, g := range d.registered {
		if n := len(g.as[encodingProtobuf].types); n > 16 {
			t.Errorf("%d types", n)
		}
	}
}

// TestProtobufOtherTopics: transactions and the like are told by the name of their message.
func TestProtobufOtherTopics(t *testing.T) {
	s := Schema{Text: []byte(`syntax = "proto3"; package io.debezium.connector.common; message TransactionMetadataValue { string status = 1; }`)}
	d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
	d.AddSchema(SchemaRef{ID: 2}, s)
	ev, err := d.Decode(Record{Topic: "p.transaction", Value: []byte{0, 0, 0, 0, 2, 0, 10, 1, 'B'}})
	if err != nil || ev.Kind != Transaction {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestProtobufNesting: brackets are counted where they are brackets.
func TestProtobufNesting(t *testing.T) {
	deep := strings.Repeat("[", maxSchemaDepth+1)
	for text, ok := range map[string]bool{
		deep: false, strings.Repeat("{}", 1000): true, `"` + deep + `"`: true, "'\\'" + deep + "'": true, "//" + deep: true, "//x\n" + deep: false,
		"/*" + deep + "*/ {": true, "/**/" + deep: false, "/*" + deep: true, "/ " + deep: false, `"` + "\n" + deep: false,
	} {
		if err := checkNesting([]byte(text)); (err == nil) != ok {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
