package decode

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"firn/changelog"
)

// FuzzDecode: whatever the bytes are, there is an event or a rejection with a reason; the event's values are what its
// shape says; the decoder, fresh or used, says the same.
func FuzzDecode(f *testing.F) {
	for _, file := range []string{"bad.jsonl", "types.jsonl", "postgres.jsonl", "postgres_schemaless.jsonl", "mysql.jsonl", "oracle.jsonl", "sqlserver.jsonl", "mongodb.jsonl"} {
		for _, l := range readLines(f, samples+file) {
			if len(l.Value) < 16<<10 {
				f.Add(l.Key, l.Value)
			}
		}
	}
	for _, r := range []Record{plain(`{"id":1}`, `{"id":1,"a":[{"x":1},{"y":[2.5]}],"b":{"c":null}}`), message("oracle", `{"type":"map","keys":{"type":"int8"},"values":{"type":"array","items":{"type":"string"}}}`, `[[1,["a"]]]`)} {
		f.Add(r.Key, r.Value)
	}
	used := newDecoder(f, Options{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r := Record{Topic: "p.s.t", Key: key, Value: value}
		for _, o := range []Options{{}, {Format: FormatSchema, Identity: IdentityFull}, {Format: FormatPlain, Hints: []Hint{{"v", []byte(`{"type":"int32","name":"io.debezium.time.Date"}`)}}}} {
			checkDecode(t, newDecoder(t, o), r)
		}
		checkDecode(t, used, r)
	})
}

// FuzzFlattened is FuzzDecode for rows without an envelope.
func FuzzFlattened(f *testing.F) {
	for _, file := range []string{"flattened.jsonl", "bad.jsonl", "outbox.jsonl"} {
		for _, l := range readLines(f, samples+file) {
			if len(l.Value) < 16<<10 {
				f.Add(l.Key, l.Value, []byte("d"))
			}
		}
	}
	metadata := map[string]string{"__op": "op", "__lsn": "source.lsn", "__table": "source.table", "__source_ts_ms": "source.ts_ms", "__tx": "transaction.id"}
	used := newDecoder(f, Options{Form: FormFlattened, Deletes: DeletesRewrite, Metadata: metadata, Connector: "postgresql"})
	f.Fuzz(func(t *testing.T, key, value, header []byte) {
		r := Record{Topic: "p.s.t", Key: key, Value: value, Headers: []changelog.Header{{Key: "__op", Value: header}}}
		for _, o := range []Options{{Form: FormFlattened}, {Form: FormFlattened, Format: FormatSchema, Deletes: DeletesRewrite, Metadata: metadata}, {Form: FormPlain, NoKey: true}} {
			checkDecode(t, newDecoder(t, o), r)
		}
		checkDecode(t, used, r)
	})
}

func checkDecode(t *testing.T, d *Decoder, r Record) {
	t.Helper()
	ev, err := d.Decode(r)
	checkEvent(t, d, ev, err)
	for d.More() {
		if d.Several() && len(r.Value) < 1<<12 {
			d.Part()
		}
		ev, err = d.Next()
		checkEvent(t, d, ev, err)
	}
}

func checkEvent(t *testing.T, d *Decoder, ev *Event, err error) {
	t.Helper()
	if err != nil {
		var rej *Rejected
		if !errors.As(err, &rej) || rej.Reason == "" || len(rej.Key) != len(rej.KeyColumns) || !utf8.ValidString(rej.Detail) {
			t.Fatalf("%#v", err)
		}
		return
	}
	if ev.Kind != Change {
		return
	}
	if len(ev.Key) != len(ev.Shape.Key) || ev.After == nil && ev.Op != changelog.OpDelete {
		t.Fatalf("%+v", ev)
	}
	for _, image := range [][]changelog.Value{ev.Before, ev.After} {
		if image == nil {
			continue
		}
		if len(image) != len(ev.Shape.Columns) {
			t.Fatalf("%d values, %d columns", len(image), len(ev.Shape.Columns))
		}
		for i, c := range ev.Shape.Columns {
			checkValue(t, c.Type, image[i])
		}
	}
	m, s, err := Plan(nil, ev.Shape, PlanOptions{})
	if err != nil || ev.After == nil {
		return
	}
	if _, err := changelog.AppendValues(nil, s, m.Row(nil, ev.After)); err != nil {
		t.Fatal(err)
	}
	m.Key(nil, ev.Key)
	if _, next, err := Plan(s, ev.Shape, PlanOptions{}); err != nil || next != nil {
		t.Fatalf("the table of an event does not take it: %v %s", err, show(next))
	}
	d.SetTable(s)
}

// checkValue checks that a value is one of its type.
func checkValue(t *testing.T, typ *changelog.Type, v changelog.Value) {
	t.Helper()
	if v.Null {
		return
	}
	ok := true
	switch typ.Kind {
	case changelog.Boolean:
		ok = v.I == 0 || v.I == 1
	case changelog.Int, changelog.Date:
		ok = v.I == int64(int32(v.I))
	case changelog.Time:
		ok = v.I >= 0 && v.I < microsPerDay
	case changelog.String:
		ok = utf8.Valid(v.B)
	case changelog.UUID:
		ok = len(v.B) == 16
	case changelog.Decimal:
		ok = len(v.B) > 0 && len(v.B) <= 16
		if ok {
			w, _ := magnitude(v.B)
			ok = w.less(powers[typ.Precision])
		}
	case changelog.List:
		elements, err := changelog.AppendElements(nil, typ, v.B)
		ok = err == nil
		for _, e := range elements {
			checkValue(t, typ.Fields[0].Type, e)
		}
	case changelog.Map:
		keys, values, err := changelog.AppendEntries(nil, nil, typ, v.B)
		ok = err == nil
		for i := range keys {
			checkValue(t, typ.Fields[0].Type, keys[i])
			checkValue(t, typ.Fields[1].Type, values[i])
		}
	case changelog.Struct:
		var rr changelog.RowReader
		ok = rr.ResetStruct(typ, v.B) == nil
		for _, f := range typ.Fields {
			m, there := rr.Next()
			ok = ok && there
			checkValue(t, f.Type, m)
		}
	default:
	}
	if !ok {
		t.Fatalf("value %v of type %s", v, typ)
	}
}

// FuzzForeign is FuzzDecode for the envelopes of other tools; and what a message makes the decoder allocate is bounded by its size.
func FuzzForeign(f *testing.F) {
	for form := FormCanal; int(form) < len(formNames); form++ {
		for _, l := range foreignLines(f, formNames[form]) {
			f.Add(byte(form-FormCanal), []byte(`{"database":"d","table":"t","pk.id":1}`), l)
		}
	}
	var used []*Decoder
	for form := FormCanal; int(form) < len(formNames); form++ {
		used = append(used, newDecoder(f, Options{Form: form, Identity: IdentityFull}))
	}
	f.Fuzz(func(t *testing.T, form byte, key, value []byte) {
		form %= byte(len(used))
		r := Record{Topic: "t", Key: key, Value: value}
		for _, o := range []Options{{}, {KeyColumns: []string{"id"}}, {NoKey: true, Identity: IdentityFull}} {
			o.Form = FormCanal + Form(form)
			d := newDecoder(t, o)
			checkDecode(t, d, r)
			checkAllocated(t, d, r)
		}
		checkDecode(t, used[form], r)
	})
}

// TestForeignAllocates: the messages that make most of little stay within the bound, too, or are refused.
func TestForeignAllocates(t *testing.T) {
	const n = 1 << 16
	many := func(row string) string { return strings.TrimSuffix(strings.Repeat(row+",", n), ",") }
	var types, names strings.Builder
	for i := range n / 8 {
		if i < 1900 {
			fmt.Fprintf(&types, `"c%d":"int",`, i)
		}
		if i < 100 {
			fmt.Fprintf(&names, `"c%d",`, i)
		}
	}
	for _, c := range []struct{ name, reason, value string }{
		{"small rows", "", `{"type":"INSERT","data":[` + many(`{"a":"1"}`) + `],"mysqlType":{"a":"int"},"pkNames":["a"]}`},
		{"small rows without types", "", `{"type":"INSERT","data":[` + many(`{"a":1}`) + `],"pkNames":["a"]}`},
		{"rows that are wrong", ReasonTypeMismatch, `{"type":"INSERT","data":[` + many(`{"a":"x"}`) + `],"mysqlType":{"a":"int"},"pkNames":["a"]}`},
		{"rows without a key", ReasonKeyNull, `{"type":"INSERT","data":[` + many(`{"b":""}`) + `],"mysqlType":{"a":"int","b":"text"},"pkNames":["a"]}`},
		{"empty rows", ReasonNoImage, `{"type":"INSERT","data":[` + many(`{}`) + `],"mysqlType":{"a":"int"},"pkNames":["a"]}`},
		{"nulls", ReasonNoImage, `{"type":"INSERT","data":[` + many(`null`) + `],"mysqlType":{"a":"int"},"pkNames":["a"]}`},
		{"many columns, many rows", ReasonSchemaLimit, `{"type":"INSERT","data":[` + many(`{"c0":"1"}`) + `],"mysqlType":{` + types.String() + `"c":"int"},"pkNames":["c0"]}`},
		{"a set of long members", ReasonSchemaLimit, `{"type":"INSERT","data":[` + many(`{"a":"3"}`) + `],"mysqlType":{"a":"set('` + strings.Repeat("x", 1<<15) + `','` + strings.Repeat("y", 1<<15) + `')"},"pkNames":["a"]}`},
		{"a key of many columns", ReasonSchemaLimit, `{"type":"INSERT","data":[{"a":"1"}],"pkNames":[` + names.String() + `"c"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder(t, Options{Form: FormCanal})
			r := Record{Topic: "t", Value: []byte(c.value)}
			if _, err := d.Decode(r); (c.reason != "" || err != nil) && reasonOf(err) != c.reason {
				t.Fatal(err)
			}
			checkAllocated(t, d, r)
		})
	}
}

// FuzzAvro: as FuzzDecode, of bodies of any schema; and what a body makes the decoder allocate is bounded by its size.
func FuzzAvro(f *testing.F) {
	for _, s := range sampleSchemas(f) {
		for _, l := range readLines(f, samples+"wire_avro.jsonl")[:3] {
			f.Add(s.Text, l.Value[5:])
		}
	}
	for _, v := range []string{`{"type":"array","items":["null","int"]}`, `{"type":"map","values":{"type":"array","items":"boolean"}}`, `{"type":"record","name":"L","fields":[{"name":"n","type":["null","L"]}]}`} {
		f.Add(avroEnvelope(v).Text, avroCreate(avroBody{}.long(1).text("a").long(1).long(0)).Value[5:])
	}
	f.Fuzz(func(t *testing.T, schema, body []byte) {
		d := newDecoder(t, Options{Format: FormatConfluentAvro, Identity: IdentityFull})
		d.AddSchema(SchemaRef{ID: 1}, avroKey)
		d.AddSchema(SchemaRef{ID: 2}, Schema{Text: schema})
		r := Record{Topic: "p.s.t", Key: avroBody{0, 0, 0, 0, 1}.long(1), Value: append([]byte{0, 0, 0, 0, 2}, body...)}
		checkDecode(t, d, r) // compiles the schema
		checkAllocated(t, d, r)
	})
}

// FuzzJSONSchema: as FuzzAvro, of documents with any JSON Schema.
func FuzzJSONSchema(f *testing.F) {
	schemas := registrar{}
	for _, l := range readLines(f, samples+"types.jsonl")[:60] {
		r := schemas.asFramedJSON(f, l.Record)
		s := schemas[SchemaRef{ID: uint64(r.Value[4])}]
		f.Add(s.Text, r.Value[5:])
	}
	for _, v := range []string{`{"$ref":"#/definitions/D"}`, `{"type":"array","connect.type":"map","items":{"type":"object","properties":{"key":{"type":"integer"},"value":{"type":["null","string"]}}}}`} {
		f.Add(jsonEnvelope(v).Text, []byte(jsonCreate(`[{"key":1,"value":"x"}]`)))
	}
	f.Fuzz(func(t *testing.T, schema, body []byte) {
		d := newDecoder(t, Options{Format: FormatConfluentJSON, KeyFormat: FormatPlain, Identity: IdentityFull})
		d.AddSchema(SchemaRef{ID: 2}, Schema{Text: schema})
		r := Record{Topic: "p.s.t", Key: []byte(`{"id":1}`), Value: append([]byte{0, 0, 0, 0, 2}, body...)}
		checkDecode(t, d, r) // compiles the schema
		checkAllocated(t, d, r)
	})
}

// protoSeeds calls f with schemas and bodies.
func protoSeeds(tb testing.TB, f func(s Schema, body []byte)) {
	tb.Helper()
	for i, l := range readLines(tb, samples+"types.jsonl") {
		schemas := registrar{}
		if r, why := schemas.asProtobuf(tb, l.Record, protoMode(i%3)); why == "" {
			f(schemas[SchemaRef{ID: 2}], r.Value[5:])
		}
	}
	for _, v := range []string{"repeated sint32 v = 2;", "map<int32, Leaf> v = 2;", "oneof o { Pair v = 2; string w = 3; }", "repeated Leaf v = 2; repeated bool w = 3;", "google.protobuf.StringValue v = 2;"} {
		f(protoEnvelope(v), protoCreate(protoBody{}.bytes(2, []byte{8, 1}).varint(3, 1).bytes(2, []byte{18, 0})).Value[5:])
	}
}

// FuzzProtobuf: as FuzzAvro, of bodies of many schemas.
func FuzzProtobuf(f *testing.F) {
	var decoders []*Decoder
	protoSeeds(f, func(s Schema, body []byte) {
		d := newDecoder(f, Options{Format: FormatConfluentProtobuf, KeyFormat: FormatPlain, Identity: IdentityFull})
		d.AddSchema(SchemaRef{ID: 2}, s)
		f.Add(uint16(len(decoders)), body)
		decoders = append(decoders, d)
	})
	f.Fuzz(func(t *testing.T, which uint16, body []byte) {
		d := decoders[int(which)%len(decoders)]
		r := Record{Topic: "p.s.t", Key: []byte(`{"id":1}`), Value: append([]byte{0, 0, 0, 0, 2}, body...)}
		checkDecode(t, d, r) // compiles the schema
		checkAllocated(t, d, r)
	})
}

// FuzzProtobufSchema: the same of any schema.
func FuzzProtobufSchema(f *testing.F) {
	n := 0
	protoSeeds(f, func(s Schema, body []byte) {
		if n++; n%3 == 0 {
			f.Add(s.Text, body)
		}
	})
	f.Fuzz(func(t *testing.T, schema, body []byte) {
		d := newDecoder(t, Options{Format: FormatConfluentProtobuf, KeyFormat: FormatPlain, Identity: IdentityFull})
		d.AddSchema(SchemaRef{ID: 2}, Schema{Text: schema})
		r := Record{Topic: "p.s.t", Key: []byte(`{"id":1}`), Value: append([]byte{0, 0, 0, 0, 2}, body...)}
		checkDecode(t, d, r)
		checkAllocated(t, d, r)
	})
}

// TestProtobufAllocates: the bodies that make most of little stay within the bound, too.
func TestProtobufAllocates(t *testing.T) {
	const n = 1 << 20
	repeat := func(b protoBody) protoBody { return bytes.Repeat(b, n) }
	for _, c := range []struct {
		name, field string
		body        protoBody
	}{
		{"packed", "repeated bool v = 2;", protoBody{}.bytes(2, make([]byte, n))},
		{"not packed", "repeated bool v = 2;", repeat(protoBody{}.varint(2, 1))},
		{"texts of nothing", "repeated string v = 2;", repeat(protoBody{}.bytes(2, nil))},
		{"two by turns", "repeated string v = 2; repeated string w = 3;", repeat(protoBody{}.bytes(2, nil).bytes(3, nil))},
		{"messages of nothing", "repeated Leaf v = 2;", repeat(protoBody{}.bytes(2, nil))},
		{"entries of nothing", "map<string, string> v = 2;", repeat(protoBody{}.bytes(2, nil))},
		{"messages that are merged", "Leaf v = 2;", repeat(protoBody{}.bytes(2, protoBody{}.varint(1, 1)))},
		{"the last one counts", "int32 v = 2;", repeat(protoBody{}.varint(2, 1))},
		{"unknown fields", "int32 v = 2;", repeat(protoBody{}.varint(7, 1))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder(t, Options{Format: FormatConfluentProtobuf})
			d.AddSchema(SchemaRef{ID: 2}, protoEnvelope(c.field))
			_, _ = d.Decode(protoCreate(nil)) // compiles the schema
			checkAllocated(t, d, protoCreate(c.body))
		})
	}
}

// FuzzFrame: whatever frames and headers are, a schema is asked for or there is a reason.
func FuzzFrame(f *testing.F) {
	for _, l := range readLines(f, samples+"wire_avro.jsonl") {
		for _, h := range append(l.Headers, changelog.Header{}) {
			f.Add(l.Value, h.Key, h.Value, byte(0))
			f.Add([]byte(`{"schemaId":7,"payload":null}`), h.Key, h.Value, byte(17))
		}
	}
	f.Fuzz(func(t *testing.T, value []byte, header string, of []byte, mode byte) {
		format := [...]Format{FormatConfluentAvro, FormatApicurioAvro, FormatConfluentJSON, FormatApicurioJSON, FormatConfluentProtobuf, FormatApicurioProtobuf}[(mode&1|mode>>4&3<<1)%6]
		o := Options{Format: format, IDWidth: IDWidth(mode >> 1 % 3), GlobalIDs: mode>>3&1 == 1, ProtobufRef: ProtobufRef(mode >> 6 % 3)}
		d := newDecoder(t, o)
		r := Record{Topic: "p.s.t", Value: value, Headers: []changelog.Header{{Key: header, Value: of}}}
		for range 3 {
			_, err := d.Decode(r)
			m, ok := errors.AsType[*MissingSchema](err)
			if !ok {
				break
			}
			d.AddSchema(m.Ref, Schema{Text: []byte(`{"type":"record","name":"R","fields":[],"properties":{}}`)})
		}
		checkDecode(t, d, r)
		checkAllocated(t, d, r)
	})
}

// checkAllocated decodes a record again and bounds what that allocates: 64 times its size, and some for the decoder itself.
func checkAllocated(t *testing.T, d *Decoder, r Record) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = d.Decode(r)
	for d.More() {
		_, _ = d.Next()
	}
	runtime.ReadMemStats(&after)
	size := uint64(len(r.Key) + len(r.Value))
	for _, h := range r.Headers {
		size += uint64(len(h.Key) + len(h.Value))
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20+64*size {
		t.Fatalf("%d bytes allocated for a record of %d", got, size)
	}
}

// TestAvroAllocates: the bodies that make most of little stay within the bound, too.
func TestAvroAllocates(t *testing.T) {
	const n = 1 << 20
	block := avroBody{}.long(n)
	ones := avroBody{}
	for range n {
		ones = append(ones, 2, 1)
	}
	entries := avroBody{}.long(n)
	for range n {
		entries = append(entries, 0, 1)
	}
	for _, c := range []struct {
		name, schema string
		body         []byte
	}{
		{"one block", `{"type":"array","items":"boolean"}`, append(append(block, make([]byte, n)...), 0)},
		{"blocks of one", `{"type":"array","items":"boolean"}`, append(ones, 0)},
		{"entries of one key", `{"type":"map","values":"boolean"}`, append(entries, 0)},
		{"lists of nothing", `{"type":"array","items":{"type":"array","items":"int"}}`, append(append(block, make([]byte, n)...), 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder(t, Options{Format: FormatConfluentAvro})
			d.AddSchema(SchemaRef{ID: 1}, avroKey)
			d.AddSchema(SchemaRef{ID: 2}, avroEnvelope(c.schema))
			checkAllocated(t, d, avroCreate(c.body))
		})
	}
}
