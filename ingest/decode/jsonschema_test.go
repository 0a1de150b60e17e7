package decode

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
)

// split takes a document with its schema apart.
func split(t testing.TB, b []byte) (*connectSchema, []byte) {
	t.Helper()
	var doc struct{ Schema, Payload json.RawMessage }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	x := &scanner{b: doc.Schema}
	s, _, ok := x.connectSchema(maxSchemaDepth)
	if !ok {
		t.Fatal(x.err)
	}
	return s, doc.Payload
}

// asJSONSchema writes a Connect schema as JSON Schema's converter does (1.9).
func asJSONSchema(s *connectSchema) map[string]any {
	out := map[string]any{}
	switch s.typ {
	case "int8", "int16", "int32", "int64":
		out["type"], out["connect.type"] = "integer", s.typ
	case "float", "float32":
		out["type"], out["connect.type"] = "number", "float32"
	case "double", "float64":
		out["type"], out["connect.type"] = "number", "float64"
	case "bytes":
		out["type"], out["connect.type"] = "string", "bytes"
		if s.name == nameDecimal {
			out["type"] = "number"
		}
	case "array":
		out["type"], out["items"] = "array", asJSONSchema(s.items)
	case "map":
		out["connect.type"] = "map"
		if s.keys.typ == "string" && !s.keys.optional {
			out["type"], out["additionalProperties"] = "object", asJSONSchema(s.values)
			break
		}
		key, value := asJSONSchema(s.keys), asJSONSchema(s.values)
		key["connect.index"], value["connect.index"] = 0, 1
		out["type"], out["items"] = "array", map[string]any{"type": "object", "properties": map[string]any{"key": key, "value": value}}
	case "struct":
		properties := map[string]any{}
		for i, f := range s.fields {
			p := asJSONSchema(f.schema)
			p["connect.index"] = i
			properties[f.name] = p
		}
		out["type"], out["properties"] = "object", properties
	default:
		out["type"] = s.typ
	}
	if s.name != "" {
		out["title"] = s.name
	}
	if len(s.params) > 0 {
		params := map[string]any{}
		for _, p := range s.params {
			params[p.name] = p.value
		}
		out["connect.parameters"] = params
	}
	if s.optional {
		return map[string]any{"oneOf": []any{map[string]any{"type": "null"}, out}}
	}
	return out
}

// asEntries writes the maps of a payload as JSON Schema's converter does. Payloads without one stay as they are.
func asEntries(t testing.TB, s *connectSchema, payload []byte) []byte {
	t.Helper()
	if string(payload) == "null" {
		return payload
	}
	var b strings.Builder
	switch {
	case s.typ == "struct":
		var members map[string]json.RawMessage
		if err := json.Unmarshal(payload, &members); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('{')
		for _, f := range s.fields {
			if raw, ok := members[f.name]; ok {
				if b.Len() > 1 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "%s%s", quoted(f.name), asEntries(t, f.schema, raw))
			}
		}
		b.WriteByte('}')
	case s.typ == "map" && s.keys.typ != "string":
		var pairs [][2]json.RawMessage
		if err := json.Unmarshal(payload, &pairs); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('[')
		for i, p := range pairs {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"key":%s,"value":%s}`, p[0], asEntries(t, s.values, p[1]))
		}
		b.WriteByte(']')
	default:
		return payload
	}
	return []byte(b.String())
}

// registrar numbers schemas as a registry does.
type registrar map[SchemaRef]Schema

func (r registrar) register(s Schema) []byte {
	id := uint64(0)
	for ref, known := range r {
		if string(known.Text) == string(s.Text) {
			id = ref.ID
		}
	}
	if id == 0 {
		id = uint64(len(r) + 1)
		r[SchemaRef{ID: id}] = s
	}
	return binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
}

// asFramedJSON makes a record with schemas what a producer with Confluent's JSON Schema converter makes of it.
func (r registrar) asFramedJSON(t testing.TB, in Record) Record {
	t.Helper()
	of := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		s, payload := split(t, b)
		text, err := json.Marshal(asJSONSchema(s))
		if err != nil {
			t.Fatal(err)
		}
		return append(r.register(Schema{Text: text, Type: "JSON"}), asEntries(t, s, payload)...)
	}
	in.Key, in.Value = of(in.Key), of(in.Value)
	return in
}

// pairedSamples are the recordings whose records have schemas, which other formats must make the same events of.
var pairedSamples = []string{"types.jsonl", "postgres.jsonl", "mysql.jsonl", "mariadb.jsonl", "oracle.jsonl", "sqlserver.jsonl"}

// forPairs calls f with the recorded records that have schemas, and what they are as JSON: an event, or the reason.
func forPairs(t *testing.T, f func(name string, r Record, want string)) {
	t.Helper()
	n := 0
	for _, file := range pairedSamples {
		d := newDecoder(t, Options{Format: FormatSchema})
		for i, l := range readLines(t, samples+file) {
			want := outcome(t, d, l.Record, nil)
			if strings.HasPrefix(want, "rejected") {
				continue // a sample of bad JSON
			}
			n++
			f(fmt.Sprintf("%s:%d", file, i+1), l.Record, want)
		}
	}
	if n < 190 {
		t.Errorf("%d pairs", n)
	}
}

// outcome describes what becomes of a record.
func outcome(t testing.TB, d *Decoder, r Record, schemas map[SchemaRef]Schema) string {
	t.Helper()
	ev, err := decodeFramed(t, d, r, schemas)
	if err != nil {
		return "rejected: " + err.Error()
	}
	return describe(t, ev)
}

// TestJSONSchemaPairs: what JSON with schemas says, framed JSON with a JSON Schema says, too: the same columns, types, values, keys and
// positions, of each type and each connector.
func TestJSONSchemaPairs(t *testing.T) {
	schemas := registrar{}
	d := newDecoder(t, Options{Format: FormatConfluentJSON})
	forPairs(t, func(name string, r Record, want string) {
		if got := outcome(t, d, schemas.asFramedJSON(t, r), schemas); got != want {
			t.Errorf("%s:\n%s\nas JSON:\n%s", name, got, want)
		}
	})
}

// jsonEnvelope returns the JSON Schema of an envelope whose rows have the column id, and v of a type.
func jsonEnvelope(v string) Schema {
	row := `{"oneOf":[{"type":"null"},{"type":"object","title":"p.s.t.Value","properties":{"id":{"type":"integer","connect.type":"int32"},"v":` + v + `},"required":["id"]}]}`
	return Schema{Type: "JSON", Text: []byte(`{"type":"object","title":"p.s.t.Envelope","properties":{"before":` + row + `,"after":` + row +
		`,"source":{"type":"object","title":"io.debezium.connector.postgresql.Source","properties":{"connector":{"type":"string"}}},"op":{"type":"string"}},` +
		`"definitions":{"D":{"type":"integer","title":"io.debezium.time.Date","connect.type":"int32"}}}`)}
}

func jsonDecode(t testing.TB, s Schema, value string) (*Event, error) {
	t.Helper()
	d := newDecoder(t, Options{Format: FormatConfluentJSON})
	schemas := map[SchemaRef]Schema{
		{ID: 1}: {Type: "JSON", Text: []byte(`{"type":"object","title":"p.s.t.Key","properties":{"id":{"type":"integer","connect.type":"int32"}}}`)},
		{ID: 2}: s,
	}
	r := Record{Topic: "p.s.t", Key: []byte("\x00\x00\x00\x00\x01" + `{"id":1}`)}
	r.Value = []byte("\x00\x00\x00\x00\x02" + value)
	return decodeFramed(t, d, r, schemas)
}

func jsonCreate(v string) string {
	return `{"before":null,"after":{"id":1,"v":` + v + `},"source":{"connector":"postgresql"},"op":"c"}`
}

// TestJSONSchemaTypes: each way to write a type becomes the right column, whoever has written the schema.
func TestJSONSchemaTypes(t *testing.T) {
	for _, c := range []struct{ name, schema, value, typ, want string }{
		{"integer", `{"type":"integer"}`, "1152921504606846976", "long", "1152921504606846976"},
		{"int8", `{"type":"integer","connect.type":"int8"}`, "-7", "int", "-7"},
		{"number", `{"type":"number"}`, "1.5", "double", "1.5"},
		{"NaN", `{"type":"number","connect.type":"float32"}`, `"NaN"`, "float", `"NaN"`},
		{"nullable", `{"type":["string","null"]}`, `null`, "string", "<nil>"},
		{"anyOf", `{"anyOf":[{"type":"boolean"},{"type":"null"}]}`, `true`, "boolean", "true"},
		{"enum", `{"enum":["a","b",null]}`, `"b"`, "string", `"b"`},
		{"definition", `{"$ref":"#/definitions/D"}`, `1`, "date", `"1970-01-02"`},
		{"definition in allOf", `{"allOf":[{"$ref":"#/definitions/D"}]}`, `1`, "date", `"1970-01-02"`},
		{"bytes", `{"type":"string","connect.type":"bytes"}`, `"AAE="`, "binary", `"0001"`},
		{"decimal", `{"type":"number","connect.type":"bytes","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2","connect.decimal.precision":"10"}}`, `"/2o="`, "decimal(10,2)", `"-1.50"`},
		{"decimal as number", `{"type":"number","connect.type":"bytes","title":"org.apache.kafka.connect.data.Decimal","connect.parameters":{"scale":"2"}}`, `-1.5`, "decimal(38,2)", `"-1.50"`},
		{"object as map", `{"type":"object","additionalProperties":{"type":"integer"}}`, `{"a":1}`, "map<string,long>", `[["a",1]]`},
		{
			"entries", `{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"integer","connect.type":"int32"},"value":{"type":"string"}}}}`,
			`[{"key":4,"value":"x"},{"value":"y","key":4},{"key":5,"value":null}]`, "map<int,string>", `[[4,"y"],[5,<nil>]]`,
		},
		{"array", `{"type":"array","items":{"type":"string"}}`, `["a",null]`, "list<string>", `["a",<nil>]`},
		{"struct in the order of connect.index", `{"type":"object","properties":{"b":{"type":"string","connect.index":1},"a":{"type":"integer","connect.index":0}}}`, `{"b":"y","a":3}`, "struct<a:long,b:string>", `{"a":3,"b":"y"}`},
		{"struct in the order of the document", `{"properties":{"b":{"type":"string"},"a":{"type":"integer"}},"required":["b"]}`, `{"b":"y"}`, "struct<b:string,a:long>", `{"a":<nil>,"b":"y"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ev, err := jsonDecode(t, jsonEnvelope(c.schema), jsonCreate(c.value))
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

// TestJSONSchemaReferences: a schema may use others that are registered, as a whole or by a part.
func TestJSONSchemaReferences(t *testing.T) {
	for ref, want := range map[string]string{"types.json#/$defs/t/0": "date", "whole.json": "int", "id.json": "boolean", "#/definitions/D": "date", "none.json": "", "types.json#/$defs/u": ""} {
		s := jsonEnvelope(`{"$ref":"` + ref + `"}`)
		s.References = []Reference{
			{"types.json", []byte(`{"$defs":{"t":[{"$ref":"#/$defs/d"}],"d":{"type":"integer","title":"io.debezium.time.Date","connect.type":"int32"}}}`)},
			{"whole.json", []byte(`{"type":"integer","connect.type":"int16"}`)},
			{"another", []byte(`{"$id":"id.json","type":"boolean"}`)},
		}
		ev, err := jsonDecode(t, s, `{"after":{"id":1},"source":{"connector":"postgresql"},"op":"c"}`)
		switch {
		case want == "":
			if err == nil || reasonOf(err) != ReasonSchemaInvalid {
				t.Errorf("%s: %v", ref, err)
			}
		case err != nil:
			t.Errorf("%s: %v", ref, err)
		case ev.Shape.Columns[1].Type.String() != want:
			t.Errorf("%s: %s", ref, ev.Shape.Columns[1].Type)
		}
	}
}

// TestJSONSchemaBad: what is wrong with a schema or a body.
func TestJSONSchemaBad(t *testing.T) {
	deep := strings.Repeat(`{"type":"array","items":`, 200) + `{"type":"string"}` + strings.Repeat("}", 200)
	definitions := `{"definitions":{"0":{"type":"string"},`
	for i := range 40 { // each doubles what the one before makes
		definitions += fmt.Sprintf(`"%d":{"type":"object","properties":{"a":{"$ref":"#/definitions/%d"},"b":{"$ref":"#/definitions/%d"}}},`, i+1, i, i)
	}
	definitions = strings.TrimSuffix(definitions, ",") + "}}"
	for _, c := range []struct {
		name   string
		schema Schema
		value  string
		reason string
	}{
		{"no JSON", Schema{Text: []byte("syntax")}, "{}", ReasonSchemaInvalid},
		{"two documents", Schema{Text: []byte("{}{}")}, "{}", ReasonSchemaInvalid},
		{"a member twice", Schema{Text: []byte(`{"type":"object","type":"array"}`)}, "{}", ReasonSchemaInvalid},
		{"Avro, by its registry", Schema{Text: jsonEnvelope(`{"type":"string"}`).Text, Type: "AVRO"}, jsonCreate(`"x"`), ReasonSchemaInvalid},
		{"any", jsonEnvelope("true"), "{}", ReasonSchemaInvalid},
		{"any object", jsonEnvelope("{}"), "{}", ReasonSchemaInvalid},
		{"union", jsonEnvelope(`{"oneOf":[{"type":"string"},{"type":"integer"}]}`), "{}", ReasonSchemaInvalid},
		{"two types", jsonEnvelope(`{"type":["string","integer"]}`), "{}", ReasonSchemaInvalid},
		{"unknown type", jsonEnvelope(`{"type":"text"}`), "{}", ReasonSchemaInvalid},
		{"circle", jsonEnvelope(`{"$ref":"#"}`), "{}", ReasonSchemaInvalid},
		{"circle of references", jsonEnvelope(`{"$ref":"#/properties/after/oneOf/1/properties/v"}`), "{}", ReasonSchemaInvalid},
		{"entries of three", jsonEnvelope(`{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"string"},"value":{"type":"string"},"x":{"type":"string"}}}}`), "{}", ReasonSchemaInvalid},
		{"deep", jsonEnvelope(deep), "{}", ReasonSchemaInvalid},
		{"growing", Schema{Text: jsonEnvelope(`{"$ref":"d#/definitions/40"}`).Text, References: []Reference{{"d", []byte(definitions)}}}, "{}", ReasonSchemaLimit},
		{"no envelope", Schema{Text: []byte(`{"type":"object","properties":{"id":{"type":"integer"}}}`)}, "{}", ReasonEnvelopeShape},
		{"too large", Schema{Text: append([]byte(`{"description":"`), make([]byte, maxSchemaBytes)...)}, "{}", ReasonSchemaInvalid},
		{"syntax", jsonEnvelope(`{"type":"string"}`), "{", ReasonJSONSyntax},
		{"trailing", jsonEnvelope(`{"type":"string"}`), jsonCreate(`"x"`) + "{}", ReasonJSONTrailing},
		{"UTF-8", jsonEnvelope(`{"type":"string"}`), jsonCreate("\"\xff\""), ReasonUTF8},
		{"null", jsonEnvelope(`{"type":"string"}`), "null", ReasonNullLiteral},
		{"range", jsonEnvelope(`{"type":"integer","connect.type":"int8"}`), jsonCreate("128"), ReasonIntRange},
		{"type", jsonEnvelope(`{"type":"integer"}`), jsonCreate(`"1"`), ReasonTypeMismatch},
		{"unknown member", jsonEnvelope(`{"type":"integer"}`), `{"after":{"id":1,"v":1,"w":2},"source":{},"op":"c"}`, ReasonSchemaMismatch},
		{"required", jsonEnvelope(`{"type":"integer"}`), `{"after":{"v":1},"source":{},"op":"c"}`, ReasonRequiredMissing},
		{"an entry's member", jsonEnvelope(`{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"integer"},"value":{"type":"string"}}}}`), jsonCreate(`[{"key":1,"valu":"x"}]`), ReasonSchemaMismatch},
		{"an entry's key", jsonEnvelope(`{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"integer"},"value":{"type":"string"}}}}`), jsonCreate(`[{"value":"x"}]`), ReasonTypeMismatch},
		{"no entry", jsonEnvelope(`{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"integer"},"value":{"type":"string"}}}}`), jsonCreate(`[[1,"x"]]`), ReasonTypeMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := jsonDecode(t, c.schema, c.value); err == nil || reasonOf(err) != c.reason {
				t.Errorf("%v, want %s", err, c.reason)
			}
		})
	}
}

// TestApicurioJSON: Apicurio's converter writes an id before JSON or around it, or names the schema in headers; what it registers is
// Connect's schema (1.7).
func TestApicurioJSON(t *testing.T) {
	l := readLines(t, samples+"postgres.jsonl")[0]
	keySchema, key := rawSplit(t, l.Key)
	valueSchema, value := rawSplit(t, l.Value)
	want := outcome(t, newDecoder(t, Options{Format: FormatSchema}), l.Record, nil)
	schemas := map[SchemaRef]Schema{
		{Kind: RefGlobalID, ID: 1}: {Text: keySchema}, {Kind: RefGlobalID, ID: 2}: {Text: valueSchema},
	}
	header := func(side string, id byte) changelog.Header {
		return changelog.Header{Key: "apicurio." + side + ".globalId", Value: []byte{0, 0, 0, 0, 0, 0, 0, id}}
	}
	for name, r := range map[string]Record{
		"prefix":  {Key: append([]byte{0, 0, 0, 0, 1}, key...), Value: append([]byte{0, 0, 0, 0, 2}, value...)},
		"wide":    {Key: append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1}, key...), Value: append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 2}, value...)},
		"wrapper": {Key: []byte(`{"schemaId":1,"payload":` + string(key) + `}`), Value: []byte(`{"payload": ` + string(value) + ` , "schemaId":2}`)},
		"headers": {Key: key, Value: value, Headers: []changelog.Header{header("key", 1), header("value", 2), {Key: "apicurio.value.encoding", Value: []byte("JSON")}}},
	} {
		r.Topic = l.Topic
		d := newDecoder(t, Options{Format: FormatApicurioJSON, GlobalIDs: true})
		if got := outcome(t, d, r, schemas); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
		frame := map[string]string{"prefix": string(r.Key[:5]), "wide": string(r.Key[:min(9, len(r.Key))]), "wrapper": `{"schemaId":1,"payload":`}[name]
		if got := d.KeyFrame(r); string(got) != frame {
			t.Errorf("%s: frame %q of the key, want %q", name, got, frame)
		}
	}
	for value, reason := range map[string]string{
		`{"schemaId":1}`: ReasonEnvelopeShape, `{"payload":{}}`: ReasonEnvelopeShape, `{"schemaId":1,"payload":{},"x":1}`: ReasonEnvelopeShape,
		`{"schemaId":-1,"payload":{}}`: ReasonIntRange, `{"schemaId":2,"payload":{}`: ReasonJSONSyntax, `{"schemaId":2,"payload":{}}x`: ReasonJSONTrailing,
		"x": ReasonMagicByte,
	} {
		_, err := decodeFramed(t, newDecoder(t, Options{Format: FormatApicurioJSON, GlobalIDs: true, NoKey: true}), Record{Topic: l.Topic, Value: []byte(value)}, schemas)
		if err == nil || reasonOf(err) != reason {
			t.Errorf("%s: %v, want %s", value, err, reason)
		}
	}
}

func rawSplit(t testing.TB, b []byte) (schema, payload []byte) {
	t.Helper()
	var doc struct{ Schema, Payload json.RawMessage }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Schema, doc.Payload
}

// TestJSONSchemaFlattened: flattened rows may have a JSON Schema, and their deletes are null values.
func TestJSONSchemaFlattened(t *testing.T) {
	schemas := map[SchemaRef]Schema{
		{ID: 1}: {Text: []byte(`{"type":"object","title":"k","properties":{"id":{"type":"integer","connect.type":"int32"}}}`)},
		{ID: 2}: {Text: []byte(`{"type":"object","title":"v","properties":{"id":{"type":"integer","connect.type":"int32","connect.index":0},"__op":{"type":"string","connect.index":1},"v":{"type":"string","connect.index":2}}}`)},
	}
	d := newDecoder(t, Options{Format: FormatConfluentJSON, Form: FormFlattened, Metadata: map[string]string{"__op": "op"}})
	key := []byte("\x00\x00\x00\x00\x01" + `{"id":7}`)
	ev, err := decodeFramed(t, d, Record{Topic: "p.s.t", Key: key, Value: []byte("\x00\x00\x00\x00\x02" + `{"id":7,"__op":"u","v":"x"}`)}, schemas)
	if err != nil || ev.Op != changelog.OpUpdate || len(ev.Shape.Columns) != 2 || string(ev.After[1].B) != "x" || ev.Key[0].I != 7 {
		t.Fatalf("%v %+v", err, ev)
	}
	shape := ev.Shape
	ev, err = decodeFramed(t, d, Record{Topic: "p.s.t", Key: key}, schemas)
	if err != nil || ev.Op != changelog.OpDelete || ev.Key[0].I != 7 || ev.Shape != shape {
		t.Errorf("%v %+v", err, ev)
	}
}
