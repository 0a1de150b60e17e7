package decode

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"firn/changelog"
)

// cloudSchema is of data in Avro: the sample's body is one of it.
var cloudSchema = Schema{Text: []byte(`{"type":"record","name":"Envelope","namespace":"ce.s1.a","fields":[
	{"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"},{"name":"c","type":"int"}]}]},
	{"name":"after","type":["null","Value"]}]}`)}

// TestCloudEvents: the samples, with data with and without a schema and in Avro, and a null value (1.12).
func TestCloudEvents(t *testing.T) {
	want := []struct {
		op             changelog.Op // 0: a tombstone
		native, values string
	}{
		{changelog.OpCreate, "lsn:0/1BEB2D0", `{"name":"Bob","pk":1}`},
		{changelog.OpUpdate, "lsn:0/1BEB314", `{"name":"Bobby","pk":1}`},
		{changelog.OpDelete, "lsn:0/1BEB378", ""},
		{},
		{changelog.OpCreate, "lsn:0/1BEB2D0", `{"a":1,"b":1,"c":1,"pk":2}`},
	}
	lines := readLines(t, samples+"cloudevents.jsonl")
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	d := newDecoder(t, Options{Format: FormatCloudEventsAvro})
	d.AddSchema(SchemaRef{ID: 1}, cloudSchema)
	for range 2 {
		ids := map[[16]byte]bool{}
		for i, l := range lines {
			ev, err := d.Decode(l.Record)
			if err != nil {
				t.Fatalf("line %d: %v", i, err)
			}
			if want[i].op == 0 {
				if ev.Kind != Tombstone {
					t.Errorf("line %d is a %s", i, ev.Kind)
				}
				continue
			}
			if ev.Op != want[i].op || ev.Native != want[i].native || len(ev.Key) != 1 || ev.Before != nil {
				t.Errorf("line %d: %+v", i, ev)
			}
			if ev.Connector != "postgresql" || ev.SourceName != "test_server" || ev.Database != "postgres" || ev.Schema != "s1" || ev.Table != "a" ||
				ev.SourceTime != 1767225600000000 || ev.Txn != "565" || ev.Snapshot != SnapshotNone || !ev.HasIdentity || len(ev.Reports) != 0 {
				t.Errorf("line %d: %+v", i, ev)
			}
			ids[ev.Identity] = true
			if got := rowText(t, ev); ev.After != nil && got != want[i].values {
				t.Errorf("line %d: row %s, want %s", i, got, want[i].values)
			}
		}
		if len(ids) != 4 { // the attribute id is the same for two of them: it is no identity
			t.Errorf("%d identities", len(ids))
		}
	}
}

// rowText is the new row of an event as JSON.
func rowText(t testing.TB, ev *Event) string {
	t.Helper()
	row := map[string]any{}
	for i, v := range ev.After {
		row[ev.Shape.Columns[i].Name] = form(t, ev.Shape.Columns[i].Type, v)
	}
	return text(row)
}

// TestCloudEventAvro: data in Avro need their schema, and a format that has a registry.
func TestCloudEventAvro(t *testing.T) {
	r := readLines(t, samples+"cloudevents.jsonl")[4].Record
	if _, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(r); reasonOf(err) != ReasonCloudEvent || !strings.Contains(err.Error(), "cloudevents_avro") {
		t.Errorf("without a registry: %v", err)
	}
	d := newDecoder(t, Options{Format: FormatCloudEventsAvro})
	if _, err := d.Decode(r); err == nil || err.(*MissingSchema).Ref != (SchemaRef{ID: 1}) { //nolint:errorlint // it is that one or the test fails
		t.Fatalf("without the schema: %v", err)
	}
	d.RefuseSchema(SchemaRef{ID: 1}, reject(ReasonSchemaUnknown, "id 1"))
	if _, err := d.Decode(r); reasonOf(err) != ReasonSchemaUnknown {
		t.Errorf("without such a schema: %v", err)
	}
	o := Options{Format: FormatCloudEventsAvro}
	if !o.NeedsSchemas() || (&Options{Format: FormatCloudEvents}).NeedsSchemas() {
		t.Error("which format has a registry")
	}
	d.AddSchema(SchemaRef{ID: 1}, cloudSchema)
	for _, value := range []string{
		strings.Replace(string(r.Value), `"data":`, `"data_base64":`, 1), strings.Replace(string(r.Value), `"application/avro"`, `"Application/Avro; x=y"`, 1),
	} {
		if ev, err := d.Decode(Record{Topic: r.Topic, Key: r.Key, Value: []byte(value)}); err != nil || len(ev.After) != 4 {
			t.Errorf("%s: %v", value, err)
		}
	}
	for data, reason := range map[string]string{
		`"AAAAAAEAAgICAgA="`: ReasonAvroTrailing, `"AAAAAAEAAgIC"`: ReasonAvroDecode, `"AgAAAAEA"`: ReasonMagicByte, `"AAAA"`: ReasonFrameShort, `"@"`: ReasonBase64,
		`{"x":1}`: ReasonCloudEvent,
	} {
		value := strings.Replace(string(r.Value), `"AAAAAAEAAgICAg=="`, data, 1)
		if _, err := d.Decode(Record{Topic: r.Topic, Key: r.Key, Value: []byte(value)}); reasonOf(err) != reason {
			t.Errorf("%s: %v, want %s", data, err, reason)
		}
	}
}

// cloudRecord is a create of row 1 with some members changed: raw JSON, or "" for none.
func cloudRecord(t testing.TB, change map[string]string) Record {
	t.Helper()
	members := map[string]json.RawMessage{}
	l := readLines(t, samples+"cloudevents.jsonl")[0]
	if err := json.Unmarshal(l.Value, &members); err != nil {
		t.Fatal(err)
	}
	for name, raw := range change {
		if members[name] = json.RawMessage(raw); raw == "" {
			delete(members, name)
		}
	}
	value, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return Record{Topic: l.Topic, Key: l.Key, Value: value}
}

// TestCloudEventShape: what a CloudEvent must have, and what its attributes tell.
func TestCloudEventShape(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		reason string
	}{
		"as it is":               {nil, ""},
		"specversion 0.3":        {map[string]string{"specversion": `"0.3"`}, ReasonCloudEvent},
		"no specversion":         {map[string]string{"specversion": ""}, ReasonCloudEvent},
		"no id":                  {map[string]string{"id": ""}, ReasonCloudEvent},
		"an empty source":        {map[string]string{"source": `""`}, ReasonCloudEvent},
		"a null type":            {map[string]string{"type": "null"}, ReasonCloudEvent},
		"no data":                {map[string]string{"data": ""}, ReasonCloudEvent},
		"null data":              {map[string]string{"data": "null"}, ReasonNullLiteral},
		"data as an array":       {map[string]string{"data": "[1]"}, ReasonEnvelopeShape},
		"data in base64":         {map[string]string{"data": "", "data_base64": `"` + base64.StdEncoding.EncodeToString([]byte(`{"before":null,"after":{"pk":1,"name":"Bob"}}`)) + `"`}, ""},
		"no UTF-8 in base64":     {map[string]string{"data": "", "data_base64": `"` + base64.StdEncoding.EncodeToString([]byte("{\"after\":{\"pk\":1,\"name\":\"\xff\"}}")) + `"`}, ReasonUTF8},
		"XML":                    {map[string]string{"datacontenttype": `"application/xml"`}, ReasonCloudEvent},
		"no content type":        {map[string]string{"datacontenttype": ""}, ""},
		"another JSON":           {map[string]string{"datacontenttype": `"application/x+json; charset=utf-8"`}, ""},
		"no operation":           {map[string]string{"iodebeziumop": ""}, ReasonOpMissing},
		"an unknown operation":   {map[string]string{"iodebeziumop": `"z"`}, ReasonOpUnknown},
		"a snapshot of odd name": {map[string]string{"iodebeziumsnapshot": `"maybe"`}, ReasonSourceInvalid},
		"a delete with a row":    {map[string]string{"iodebeziumop": `"d"`}, ReasonImagesContradict},
		"a create without a row": {map[string]string{"data": `{"before":null,"after":null}`}, ReasonNoImage},
		"a column twice":         {map[string]string{"data": `{"after":{"pk":1,"pk":1}}`}, ReasonJSONDuplicateKey},
		"another key":            {map[string]string{"data": `{"after":{"pk":2}}`}, ReasonKeyMismatch},
		"extensions of others":   {map[string]string{"traceparent": `"x"`, "iodebeziumother": `"y"`}, ""},
	} {
		ev, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(cloudRecord(t, c.change))
		switch {
		case c.reason != "":
			if reasonOf(err) != c.reason {
				t.Errorf("%s: %v, want %s", name, err, c.reason)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case rowText(t, ev) != `{"name":"Bob","pk":1}` || ev.Native != "lsn:0/1BEB2D0":
			t.Errorf("%s: %+v", name, ev)
		}
	}
	for _, value := range []string{"[]", "1", `"x"`} {
		if _, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(Record{Topic: "a.b.c", Value: []byte(value)}); reasonOf(err) != ReasonCloudEvent {
			t.Errorf("%s: %v", value, err)
		}
	}
}

// TestCloudEventTwice: a member that is there twice counts as in any JSON.
func TestCloudEventTwice(t *testing.T) {
	r := cloudRecord(t, nil)
	r.Value = append([]byte(`{"specversion":"1.0",`), r.Value[1:]...)
	if _, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(r); reasonOf(err) != ReasonJSONDuplicateKey {
		t.Errorf("%v", err)
	}
}

// TestCloudEventReread: data that were in base64 are what they were when they are read again.
func TestCloudEventReread(t *testing.T) {
	data := base64.StdEncoding.EncodeToString([]byte(`{"name":"` + strings.Repeat(`\u0041`, 20) + `","id":1}`))
	r := cloudRecord(t, map[string]string{"data": "", "data_base64": `"` + data + `"`})
	r.Topic = "s.transaction"
	ev, err := newDecoder(t, Options{Format: FormatCloudEvents, Form: FormPlain, NoKey: true}).Decode(r)
	if err != nil || rowText(t, ev) != `{"id":1,"name":"AAAAAAAAAAAAAAAAAAAA"}` {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestCloudEventAttributes: txid is the source's, or, beside txtotalorder, the transaction's; time is the source's where it has no other; what
// the data say themselves counts more.
func TestCloudEventAttributes(t *testing.T) {
	decoded := func(change map[string]string) *Event {
		t.Helper()
		ev, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(cloudRecord(t, change))
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	if ev := decoded(map[string]string{"iodebeziumtxid": `"565:29274832"`}); ev.Txn != "565" {
		t.Errorf("transaction %q", ev.Txn)
	}
	none := map[string]string{"iodebeziumtxtotalorder": "null", "iodebeziumtxid": `"77"`}
	if ev := decoded(none); ev.Txn != "77" {
		t.Errorf("source transaction %q", ev.Txn)
	}
	if ev := decoded(map[string]string{"iodebeziumtsms": "", "time": `"2026-01-01T00:00:01.5+01:00"`}); ev.SourceTime != 1767222001500000 {
		t.Errorf("time %d", ev.SourceTime)
	}
	if ev := decoded(map[string]string{"iodebeziumtsms": "", "time": `"yesterday"`}); ev.SourceTime != 0 || len(ev.Reports) != 0 {
		t.Errorf("no time %d", ev.SourceTime)
	}
	own := `{"op":"u","after":{"pk":1,"name":"Bob"},"source":{"connector":"postgresql","lsn":1,"table":"t2"}}`
	if ev := decoded(map[string]string{"data": own}); ev.Op != changelog.OpUpdate || ev.Native != "lsn:0/1" || ev.Table != "t2" || ev.Schema != "s1" {
		t.Errorf("the data's own: %+v", ev)
	}
	own = `{"op":"u","after":{"pk":1,"name":"Bob"},"source":{"connector":"postgresql","lsn":1,"txId":9}}`
	if ev := decoded(map[string]string{"data": own, "iodebeziumtxtotalorder": "", "iodebeziumtxid": `"77"`}); ev.Txn != "9" {
		t.Errorf("the data's own transaction: %q", ev.Txn)
	}
	mysql := map[string]string{
		"iodebeziumconnector": `"mysql"`, "iodebeziumserverid": `"223344"`, "iodebeziumfile": `"mysql-bin.000003"`, "iodebeziumpos": `"484"`, "iodebeziumrow": `"0"`,
		"iodebeziumlsn": "", "iodebeziumsequence": "", "data": `{"before":{"pk":1,"name":"A"},"after":{"pk":1,"name":"Bob"}}`, "iodebeziumop": `"u"`,
	}
	if ev := decoded(mysql); ev.Native != "binlog:mysql-bin.000003/484" || ev.Before == nil || !ev.HasIdentity {
		t.Errorf("mysql: %+v", ev)
	}
	pos := decoded(mysql).Identity
	mysql["iodebeziumrow"] = `"1"`
	if decoded(mysql).Identity == pos {
		t.Error("another row of one position is taken for a repeat")
	}
}

// TestCloudEventBinary: attributes in headers, the data alone in the value.
func TestCloudEventBinary(t *testing.T) {
	h := func(key, value string) changelog.Header { return changelog.Header{Key: key, Value: []byte(value)} }
	headers := []changelog.Header{
		h("ce_specversion", "1.0"), h("ce_id", "x"), h("ce_source", "/debezium/postgresql/s"), h("ce_type", "io.debezium.connector.postgresql.DataChangeEvent"),
		h("ce_iodebeziumop", "u"), h("ce_iodebeziumconnector", "postgresql"), h("ce_iodebeziumlsn", "29274832"), h("ce_iodebeziumtable", "a"),
		h("content-type", "application/json"),
		{Key: "ce_iodebeziumxmin"},
	}
	r := Record{Topic: "ce.s1.a", Key: []byte(`{"pk":1}`), Value: []byte(`{"before":null,"after":{"pk":1,"name":"Bob"}}`), Headers: headers}
	for range 2 {
		ev, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(r)
		if err != nil || ev.Op != changelog.OpUpdate || ev.Native != "lsn:0/1BEB2D0" || ev.Table != "a" || rowText(t, ev) != `{"name":"Bob","pk":1}` {
			t.Errorf("%v, %+v", err, ev)
		}
		l := readLines(t, samples+"cloudevents.jsonl")[1]
		r.Value = l.Value[strings.Index(string(l.Value), `{"schema"`) : len(l.Value)-1]
		r.Value = []byte(strings.Replace(string(r.Value), "Bobby", "Bob", 1))
	}
	framed := r
	framed.Headers = append(append([]changelog.Header(nil), headers...), h("content-type", "application/avro"))
	framed.Key, framed.Value = []byte(`{"pk":2}`), []byte{0, 0, 0, 0, 1, 0, 2, 2, 2, 2}
	d := newDecoder(t, Options{Format: FormatCloudEventsAvro})
	d.AddSchema(SchemaRef{ID: 1}, cloudSchema)
	if ev, err := d.Decode(framed); err != nil || rowText(t, ev) != `{"a":1,"b":1,"c":1,"pk":2}` {
		t.Errorf("Avro: %v, %+v", err, ev)
	}
	r.Headers = append(r.Headers, h("ce_iodebeziumname", `"\q"`))
	if ev, err := newDecoder(t, Options{Format: FormatCloudEvents}).Decode(r); err != nil || ev.SourceName != `\q` {
		t.Errorf("an escape that is none: %v, %+v", err, ev)
	}
	r.Headers = append(r.Headers, h("ce_time", "\xff"))
	if _, err := d.Decode(r); reasonOf(err) != ReasonUTF8 {
		t.Errorf("a header that is no text: %v", err)
	}
	r.Headers = headers[:3]
	if _, err := d.Decode(r); reasonOf(err) != ReasonCloudEvent {
		t.Errorf("no type: %v", err)
	}
	r = cloudRecord(t, nil)
	r.Headers = []changelog.Header{h("ce_specversion", "1.0"), h("content-type", "application/cloudevents+json; charset=UTF-8")}
	if ev, err := d.Decode(r); err != nil || ev.Native != "lsn:0/1BEB2D0" {
		t.Errorf("structured: %v, %+v", err, ev)
	}
}

// TestCloudEventForms: data may be flattened rows, or any producer's.
func TestCloudEventForms(t *testing.T) {
	o := Options{Format: FormatCloudEvents, Form: FormFlattened, Deletes: DeletesRewrite}
	ev, err := newDecoder(t, o).Decode(cloudRecord(t, map[string]string{"data": `{"pk":1,"name":"Bob","__deleted":"false"}`, "iodebeziumop": `"u"`}))
	if err != nil || ev.Op != changelog.OpUpdate || rowText(t, ev) != `{"name":"Bob","pk":1}` || ev.Native != "lsn:0/1BEB2D0" {
		t.Errorf("flattened: %v, %+v", err, ev)
	}
	ev, err = newDecoder(t, o).Decode(cloudRecord(t, map[string]string{"data": `{"pk":1,"name":"Bob","__deleted":"true"}`}))
	if err != nil || ev.Op != changelog.OpDelete {
		t.Errorf("a flattened delete: %v, %+v", err, ev)
	}
	ev, err = newDecoder(t, Options{Format: FormatCloudEvents, Form: FormPlain, NoKey: true}).Decode(cloudRecord(t, map[string]string{"data": `{"x":1}`, "iodebeziumop": `"d"`}))
	if err != nil || ev.Op != changelog.OpCreate || rowText(t, ev) != `{"x":1}` {
		t.Errorf("plain: %v, %+v", err, ev)
	}
	r := Record{Topic: "p.transaction", Value: []byte(`{"status":"BEGIN","id":"5","ts_ms":1}`)}
	if ev, err = newDecoder(t, Options{Format: FormatCloudEvents}).Decode(r); err != nil || ev.Kind != Transaction {
		t.Errorf("a transaction, which is no CloudEvent: %v, %+v", err, ev)
	}
}

// FuzzCloudEvents: as FuzzDecode, of CloudEvents in both modes; and what a record makes the decoder allocate is bounded by its size.
func FuzzCloudEvents(f *testing.F) {
	for _, l := range readLines(f, samples+"cloudevents.jsonl") {
		f.Add(l.Key, l.Value, []byte("op"), []byte("c"), byte(0))
	}
	for _, l := range readLines(f, samples+"flattened.jsonl") {
		f.Add(l.Key, l.Value, []byte("lsn"), []byte("24023128"), byte(1))
	}
	for _, data := range []string{`{"pk":1,"__deleted":"true"}`, `null`, `{"op":"m","message":{}}`, `"x"`} {
		f.Add([]byte(`{"pk":1}`), cloudRecord(f, map[string]string{"data": data}).Value, []byte("txid"), []byte("5:7"), byte(3))
	}
	f.Fuzz(func(t *testing.T, key, value, name, header []byte, mode byte) {
		r := Record{Topic: "p.s.t", Key: key, Value: value}
		if mode&1 == 1 {
			for _, h := range []string{"ce_specversion 1.0", "ce_id 1", "ce_source s", "ce_type t", "ce_iodebeziumop c", "ce_iodebeziumconnector postgresql"} {
				key, v, _ := strings.Cut(h, " ")
				r.Headers = append(r.Headers, changelog.Header{Key: key, Value: []byte(v)})
			}
			r.Headers = append(r.Headers, changelog.Header{Key: "ce_iodebezium" + string(name), Value: header})
		}
		if mode&2 == 2 {
			r.Headers = append(r.Headers, changelog.Header{Key: "content-type", Value: []byte("application/avro")})
		}
		for _, o := range []Options{
			{Format: FormatCloudEventsAvro, Identity: IdentityFull}, {Format: FormatCloudEvents, Form: FormFlattened, Deletes: DeletesRewrite}, {Format: FormatCloudEvents, Form: FormPlain, NoKey: true},
		} {
			d := newDecoder(t, o)
			d.AddSchema(SchemaRef{ID: 1}, cloudSchema)
			if _, err := d.Decode(r); err != nil {
				if m, ok := err.(*MissingSchema); ok { //nolint:errorlint // it is returned as it is
					d.RefuseSchema(m.Ref, reject(ReasonSchemaUnknown, "%s", m.Ref))
				}
			}
			checkDecode(t, d, r)
			if mode&4 == 4 {
				checkAllocated(t, d, r)
			}
		}
	})
}
