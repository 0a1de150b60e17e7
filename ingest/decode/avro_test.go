package decode

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"firn/changelog"
)

// sampleSchemas are the schemas of wire_schemas.json by how records name them.
func sampleSchemas(t testing.TB) map[SchemaRef]Schema {
	t.Helper()
	b, err := os.ReadFile(samples + "wire_schemas.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		IDs map[string]struct{ Schema json.RawMessage } `json:"ids"`

		GUIDs      map[string]json.RawMessage `json:"guids"`
		GlobalIDs  map[string]json.RawMessage `json:"apicurio_global_ids"`
		ContentIDs map[string]json.RawMessage `json:"apicurio_content_ids"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	out := map[SchemaRef]Schema{}
	for id, s := range file.IDs {
		out[SchemaRef{Kind: RefID, ID: number(t, id)}] = Schema{Text: s.Schema}
	}
	alias := func(kind RefKind, ids map[string]json.RawMessage) {
		for name, to := range ids {
			ref := SchemaRef{Kind: kind}
			if kind == RefGUID {
				guid := strings.ReplaceAll(name, "-", "")
				high, err1 := strconv.ParseUint(guid[:16], 16, 64)
				low, err2 := strconv.ParseUint(guid[16:], 16, 64)
				if err := errors.Join(err1, err2); err != nil {
					t.Fatal(err)
				}
				ref.High, ref.ID = high, low
			} else {
				ref.ID = number(t, name)
			}
			id := strings.Trim(string(to), `"`)
			out[ref] = out[SchemaRef{Kind: RefID, ID: number(t, id)}]
		}
	}
	alias(RefGUID, file.GUIDs)
	alias(RefGlobalID, file.GlobalIDs)
	alias(RefContentID, file.ContentIDs)
	return out
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unknownSchema is what a registry's client says of an id that it does not have.
func unknownSchema(ref SchemaRef) *Rejected { return reject(ReasonSchemaUnknown, "%s", ref) }

// decodeFramed decodes as a pipeline does: it gives the decoder the schemas that it asks for.
func decodeFramed(t testing.TB, d *Decoder, r Record, schemas map[SchemaRef]Schema) (*Event, error) {
	t.Helper()
	for range 5 {
		ev, err := d.Decode(r)
		m, ok := errors.AsType[*MissingSchema](err)
		if !ok {
			return ev, err
		}
		if s, known := schemas[m.Ref]; known {
			d.AddSchema(m.Ref, s)
		} else {
			d.RefuseSchema(m.Ref, unknownSchema(m.Ref))
		}
	}
	t.Fatal("the decoder asks for ever")
	return nil, nil
}

// framings are the options for each framing of wire_avro.jsonl.
var framings = map[string]Options{
	"confluent prefix":           {Format: FormatConfluentAvro},
	"confluent guid prefix":      {Format: FormatConfluentAvro},
	"confluent guid header":      {Format: FormatConfluentAvro},
	"apicurio 4 byte content id": {Format: FormatApicurioAvro},
	"apicurio 8 byte global id":  {Format: FormatApicurioAvro, GlobalIDs: true},
	"apicurio content id header": {Format: FormatApicurioAvro},
	"apicurio global id header":  {Format: FormatApicurioAvro},
}

// TestFramings: each of the seven framings gives the events that the same data gives as JSON (T4), and identities tell the
// same events apart.
func TestFramings(t *testing.T) {
	schemas := sampleSchemas(t)
	asJSON := newDecoder(t, Options{Format: FormatSchema})
	decoders, seen := map[string]*Decoder{}, map[string]int{}
	for _, l := range readLines(t, samples+"wire_avro.jsonl") {
		o, ok := framings[l.Framing]
		if !ok {
			t.Fatalf("framing %q", l.Framing)
		}
		if decoders[l.Framing] == nil {
			decoders[l.Framing] = newDecoder(t, o)
		}
		seen[l.Framing]++
		ev, err := decodeFramed(t, decoders[l.Framing], l.Record, schemas)
		if err != nil {
			t.Fatalf("%s: %v", l.Framing, err)
		}
		got := describe(t, ev)
		if l.Value == nil {
			if ev.Kind != Tombstone {
				t.Errorf("%s: %s", l.Framing, ev.Kind)
			}
			continue
		}
		want, err := asJSON.Decode(asConnectJSON(t, l))
		if err != nil {
			t.Fatal(err)
		}
		if text := describe(t, want); got != text {
			t.Errorf("%s:\n%s\nas JSON:\n%s", l.Framing, got, text)
		}
	}
	if len(seen) != 7 {
		t.Errorf("framings %v", seen)
	}
	for framing, n := range seen {
		if n != 4 {
			t.Errorf("%s: %d events", framing, n)
		}
	}
}

// describe writes down all that an event is. Of its identity it tells whether there is one.
func describe(t testing.TB, ev *Event) string {
	t.Helper()
	return describeWith(t, ev, func(c Column) string { return c.Name + " " + c.Type.String() + " " + c.Connect })
}

func describeWith(t testing.TB, ev *Event, column func(Column) string) string {
	t.Helper()
	if ev.Kind != Change {
		return ev.Kind.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s key %v\n", ev.Kind, ev.Op, ev.Shape.Key)
	image := func(name string, values []changelog.Value) {
		if values == nil {
			return
		}
		fmt.Fprintf(&b, "%s", name)
		for i, v := range values {
			fmt.Fprintf(&b, " %s", text(form(t, ev.Shape.Columns[i].Type, v)))
		}
		b.WriteByte('\n')
	}
	for _, c := range ev.Shape.Columns {
		b.WriteString(column(c) + ", ")
	}
	image("\nbefore", ev.Before)
	image("\nafter", ev.After)
	for i, k := range ev.Key {
		fmt.Fprintf(&b, "key %s", text(form(t, ev.Shape.Columns[ev.Shape.Key[i]].Type, k)))
	}
	fmt.Fprintf(&b, "\nholes %v reports %v native %s time %d txn %s snapshot %d %s/%s/%s/%s/%s identity %v", ev.Placeholders, ev.Reports,
		ev.Native, ev.SourceTime, ev.Txn, ev.Snapshot, ev.Connector, ev.SourceName, ev.Database, ev.Schema, ev.Table, ev.HasIdentity)
	return b.String()
}

// asConnectJSON makes a record of wire_avro.jsonl, from its decoded form, what the JSON converter makes of the event.
func asConnectJSON(t testing.TB, l line) Record {
	t.Helper()
	const row = `{"type":"struct","optional":true,"name":"avro.public.customers.Value","fields":[{"type":"int32","field":"id"},{"type":"string","optional":true,"field":"name"},` +
		`{"type":"int16","optional":true,"field":"small"},{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2","connect.decimal.precision":"10"},"field":"amt"},` +
		`{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","field":"ts"},{"type":"bytes","optional":true,"field":"raw"}`
	value := `{"schema":{"type":"struct","name":"avro.public.customers.Envelope","fields":[` + row + `],"field":"before"},` + row + `],"field":"after"},` +
		`{"type":"struct","name":"io.debezium.connector.postgresql.Source","fields":[],"field":"source"}]},"payload":` + string(exact(t, l.Decoded, "value")) + `}`
	key := `{"schema":{"type":"struct","name":"avro.public.customers.Key","fields":[{"type":"int32","field":"id"}]},"payload":` + string(exact(t, l.Decoded, "key")) + `}`
	return Record{Topic: l.Topic, Key: []byte(key), Value: []byte(value)}
}

// exact returns a member of a document with bytes, which it has as {"b64":…}, as base64.
func exact(t testing.TB, doc []byte, member string) json.RawMessage {
	t.Helper()
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(doc, &parts); err != nil {
		t.Fatal(err)
	}
	s := string(parts[member])
	for {
		i := strings.Index(s, `{"b64":`)
		if i < 0 {
			return json.RawMessage(s)
		}
		end := i + strings.IndexByte(s[i:], '}')
		s = s[:i] + s[i+len(`{"b64":`):end] + s[end+1:]
	}
}

// TestIdentityOfFrames: the framing of an event is no part of its identity, what it says is.
func TestIdentityOfFrames(t *testing.T) {
	schemas := sampleSchemas(t)
	byEvent := map[int]map[[16]byte]bool{}
	for i, l := range readLines(t, samples+"wire_avro.jsonl") {
		ev, err := decodeFramed(t, newDecoder(t, framings[l.Framing]), l.Record, schemas)
		if err != nil {
			t.Fatal(err)
		}
		if l.Value == nil {
			continue
		}
		if !ev.HasIdentity {
			t.Fatalf("line %d has none", i)
		}
		if byEvent[i%4] == nil {
			byEvent[i%4] = map[[16]byte]bool{}
		}
		byEvent[i%4][ev.Identity] = true
	}
	all := map[[16]byte]bool{}
	for i, ids := range byEvent {
		if len(ids) != 1 {
			t.Errorf("event %d has %d identities", i, len(ids))
		}
		for id := range ids {
			all[id] = true
		}
	}
	if len(all) != 3 {
		t.Errorf("%d identities of 3 events", len(all))
	}
}

// TestBadFrames: the lines of bad.jsonl for framed routes give the outcome and reason that they name (T3). B106 asks for a
// schema, and what comes of that is the pipeline's: see TestRegistryDown there.
func TestBadFrames(t *testing.T) {
	schemas := sampleSchemas(t)
	n := 0
	for _, l := range readLines(t, samples+"bad.jsonl") {
		if c, err := strconv.Atoi(strings.TrimPrefix(l.Case, "B")); err != nil || c < 102 || c > 111 {
			continue
		}
		n++
		t.Run(l.Case+"/"+l.ID, func(t *testing.T) {
			var expect struct{ Outcome, Reason string }
			if err := json.Unmarshal(l.Expect, &expect); err != nil {
				t.Fatal(err)
			}
			d := newDecoder(t, Options{Format: FormatConfluentAvro})
			if l.Case == "B106" {
				d.AddSchema(SchemaRef{ID: 7}, schemas[SchemaRef{ID: 7}])
				_, err := d.Decode(l.Record)
				if m, ok := errors.AsType[*MissingSchema](err); !ok || m.Ref != (SchemaRef{ID: 9}) {
					t.Errorf("%v", err)
				}
				return
			}
			for range 2 {
				_, err := decodeFramed(t, d, l.Record, schemas)
				if err == nil || reasonOf(err) != expect.Reason {
					t.Fatalf("%v, want %s", err, expect.Reason)
				}
				if key := rejected(err).Key; len(key) != 1 || key[0].I != 1 {
					t.Errorf("key %v", key)
				}
			}
		})
	}
	if n != 10 {
		t.Errorf("%d lines", n)
	}
}

// avroBody writes bodies for tests.
type avroBody []byte

func (b avroBody) long(i int64) avroBody { return binary.AppendVarint(b, i) }

func (b avroBody) text(s string) avroBody { return append(b.long(int64(len(s))), s...) }

// avroEnvelope returns an envelope's schema whose rows have the column id, and v of the type.
func avroEnvelope(v string) Schema {
	return Schema{Text: []byte(`{"type":"record","name":"Envelope","namespace":"p.s.t","connect.name":"p.s.t.Envelope","fields":[` +
		`{"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"int"},{"name":"v","type":` + v + `}]}],"default":null},` +
		`{"name":"after","type":["null","Value"]},` +
		`{"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[{"name":"connector","type":"string"}]}},` +
		`{"name":"op","type":"string"}]}`)}
}

var avroKey = Schema{Text: []byte(`{"type":"record","name":"Key","namespace":"p.s.t","fields":[{"name":"id","type":"int"}]}`)}

// avroCreate returns a create of the row with id 1, with schema id 2, and v as it is written.
func avroCreate(v []byte) Record {
	b := avroBody{0, 0, 0, 0, 2, 0}.long(1).long(1)
	b = append(b, v...)
	return Record{Topic: "p.s.t", Key: avroBody{0, 0, 0, 0, 1}.long(1), Value: b.text("postgresql").text("c")}
}

func avroDecode(t testing.TB, v string, body []byte) (*Event, error) {
	t.Helper()
	d := newDecoder(t, Options{Format: FormatConfluentAvro})
	d.AddSchema(SchemaRef{ID: 1}, avroKey)
	d.AddSchema(SchemaRef{ID: 2}, avroEnvelope(v))
	return d.Decode(avroCreate(body))
}

// TestAvroTypes: each of Avro's types, and of Connect's in Avro (1.8), becomes the right column and value.
func TestAvroTypes(t *testing.T) {
	b64 := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const decimal = `"connect.name":"org.apache.kafka.connect.data.Decimal","logicalType":"decimal"`
	for _, c := range []struct {
		name, schema string
		body         []byte
		typ, want    string
	}{
		{"boolean", `"boolean"`, avroBody{1}, "boolean", "true"},
		{"int8", `{"type":"int","connect.type":"int8"}`, avroBody{}.long(-7), "int", "-7"},
		{"long", `"long"`, avroBody{}.long(1 << 60), "long", "1152921504606846976"},
		{"float", `"float"`, avroBody{0, 0, 0xc0, 0x3f}, "float", "1.5"},
		{"NaN", `"double"`, avroBody{1, 0, 0, 0, 0, 0, 0xf8, 0x7f}, "double", `"NaN"`},
		{"null second", `["string","null"]`, avroBody{2}, "string", "<nil>"},
		{"value first", `["string","null"]`, avroBody{0}.text("x"), "string", `"x"`},
		{"decimal", `{"type":"bytes","scale":2,"precision":10,` + decimal + `}`, avroBody{}.text(string(b64("/2o="))), "decimal(10,2)", `"-1.50"`},
		{"precision unknown", `{"type":"bytes","scale":2,"precision":64,` + decimal + `,"connect.parameters":{"scale":"2"}}`, avroBody{}.text("\x64"), "decimal(38,2)", `"1.00"`},
		{"negative scale", `{"type":"bytes","scale":-2,"precision":4,` + decimal + `}`, avroBody{}.text("\x05"), "decimal(6,0)", `"500"`},
		{"scale above precision", `{"type":"bytes","scale":4,"precision":2,` + decimal + `}`, avroBody{}.text("\x05"), "decimal(4,4)", `"0.0005"`},
		{"logical decimal", `{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":4}`, avroBody{0, 5}, "decimal(4,0)", `"5"`},
		{"connect date", `{"type":"int","connect.name":"io.debezium.time.Date"}`, avroBody{}.long(1), "date", `"1970-01-02"`},
		{"logical date", `{"type":"int","logicalType":"date"}`, avroBody{}.long(1), "date", `"1970-01-02"`},
		{"instant", `{"type":"long","logicalType":"timestamp-micros"}`, avroBody{}.long(1), "timestamptz", `"1970-01-01T00:00:00.000001Z"`},
		{"local", `{"type":"long","logicalType":"local-timestamp-millis"}`, avroBody{}.long(1), "timestamp", `"1970-01-01T00:00:00.001000"`},
		{"time", `{"type":"long","logicalType":"time-micros"}`, avroBody{}.long(1), "time", `"00:00:00.000001"`},
		{"uuid", `{"type":"string","logicalType":"uuid"}`, avroBody{}.text("00000000-0000-0000-0000-000000000001"), "uuid", `"00000000-0000-0000-0000-000000000001"`},
		{"fixed uuid", `{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}`, make([]byte, 16), "uuid", `"00000000-0000-0000-0000-000000000000"`},
		{"fixed", `{"type":"fixed","name":"F","size":2}`, avroBody{1, 2}, "binary", `"0102"`},
		{"enum", `{"type":"enum","name":"E","symbols":["a","b"]}`, avroBody{}.long(1), "string", `"b"`},
		{"array", `{"type":"array","items":["null","int"]}`, avroBody{}.long(-2).long(3).long(1).long(5).long(0).long(1).long(1).long(6).long(0), "list<int>", "[5,<nil>,6]"},
		{"map", `{"type":"map","values":"int"}`, avroBody{}.long(3).text("a").long(1).text("b").long(2).text("a").long(3).long(0), "map<string,int>", `[["a",3],["b",2]]`},
		{
			"entries", `{"type":"array","items":{"type":"record","name":"MapEntry","namespace":"io.confluent.connect.avro","fields":[{"name":"key","type":"int"},{"name":"value","type":"string"}]}}`,
			avroBody{}.long(1).long(4).text("x").long(0), "map<int,string>", `[[4,"x"]]`,
		},
		{"struct", `{"type":"record","name":"S","fields":[{"name":"a","type":["null","int"]},{"name":"b","type":"string"}]}`, avroBody{2}.long(3).text("y"), "struct<a:int,b:string>", `{"a":3,"b":"y"}`},
		{
			"variable decimal", `{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}`,
			avroBody{}.long(1).text("\x7b"), "string", `"12.3"`,
		},
		{
			"structured date", `{"type":"record","name":"StructuredDate","namespace":"io.debezium.time","fields":[{"name":"year","type":["null","int"]},{"name":"month","type":["null","int"]},{"name":"day","type":["null","int"]},{"name":"specialValue","type":["null","string"]}]}`,
			avroBody{2}.long(2024), "", "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := c.body
			if c.name == "structured date" {
				body = append(avroBody{2}.long(2024), avroBody{2}.long(2)...)
				body = append(append(body, avroBody{2}.long(29)...), 0)
				c.typ, c.want = "date", `"2024-02-29"`
			}
			ev, err := avroDecode(t, c.schema, body)
			if err != nil {
				t.Fatal(err)
			}
			col := ev.Shape.Columns[1]
			if got := text(form(t, col.Type, ev.After[1])); col.Type.String() != c.typ || got != c.want {
				t.Errorf("%s %s, want %s %s", col.Type, got, c.typ, c.want)
			}
		})
	}
}

// TestAvroBad: what is wrong with a body or a schema (5.3, text rows).
func TestAvroBad(t *testing.T) {
	deep := func(n int) []byte {
		b := avroBody{}
		for range n {
			b = append(b, 2)
		}
		return append(b, 0)
	}
	for _, c := range []struct {
		name, schema string
		body         []byte
		reason       string
	}{
		{"recursion", `{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`, deep(10_000), ReasonAvroDecode},
		{"recursion that ends", `{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}`, deep(3), ReasonSchemaInvalid},
		{"no end", `{"type":"record","name":"L","fields":[{"name":"next","type":"L"}]}`, nil, ReasonSchemaInvalid},
		{"many nulls", `{"type":"array","items":"null"}`, avroBody{}.long(1 << 40).long(0), ReasonAvroDecode},
		{"nulls", `{"type":"array","items":"null"}`, avroBody{}.long(1000).long(0), ReasonSchemaInvalid},
		{"many items", `{"type":"array","items":"int"}`, avroBody{}.long(1 << 40), ReasonAvroDecode},
		{"least count", `{"type":"array","items":"int"}`, avroBody{}.long(-1 << 63).long(0), ReasonAvroDecode},
		{"branch", `["null","int"]`, avroBody{}.long(2), ReasonAvroDecode},
		{"symbol", `{"type":"enum","name":"E","symbols":["a"]}`, avroBody{}.long(1), ReasonAvroDecode},
		{"wide int", `"int"`, avroBody{}.long(1 << 31), ReasonAvroDecode},
		{"int16", `{"type":"int","connect.type":"int16"}`, avroBody{}.long(1 << 15), ReasonIntRange},
		{"boolean", `"boolean"`, avroBody{2}, ReasonAvroDecode},
		{"text", `"string"`, avroBody{}.text("\xff"), ReasonUTF8},
		{"union", `["null","int","string"]`, avroBody{0}, ReasonSchemaInvalid},
		{"negative length", `"bytes"`, avroBody{}.long(-5), ReasonAvroDecode},
		{"bits", `{"type":"bytes","connect.name":"io.debezium.data.Bits","connect.parameters":{"length":"8"}}`, avroBody{}.text("abc"), ReasonBitsLength},
		{"unknown type", `"nonsense"`, nil, ReasonSchemaInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := avroDecode(t, c.schema, c.body)
			if err == nil || reasonOf(err) != c.reason {
				t.Errorf("%v, want %s", err, c.reason)
			}
		})
	}
}

// TestMixedFormats: keys and values have formats of their own, and the last header counts.
func TestMixedFormats(t *testing.T) {
	d := newDecoder(t, Options{Format: FormatConfluentAvro, KeyFormat: FormatPlain})
	d.AddSchema(SchemaRef{ID: 2}, avroEnvelope(`"string"`))
	r := avroCreate(avroBody{}.text("x"))
	r.Key = []byte(`{"id":1}`)
	r.Headers = []changelog.Header{{Key: "__value_schema_id", Value: []byte("nonsense")}, {Key: "__value_schema_id", Value: r.Value[:5]}, {Key: "__value_schema_id"}}
	r.Value = r.Value[5:]
	ev, err := d.Decode(r)
	if err != nil || len(ev.Key) != 1 || string(ev.After[1].B) != "x" {
		t.Errorf("%v, %+v", err, ev)
	}
	if got := d.KeyFrame(r); got != nil {
		t.Errorf("frame %x of a key in JSON", got)
	}
	if got := newDecoder(t, Options{Format: FormatConfluentAvro}).KeyFrame(avroCreate(nil)); len(got) != 5 {
		t.Errorf("frame %x", got)
	}
}
