package decode

import (
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
)

// from makes a record without schema whose source block is as given.
func from(source, rest string) Record {
	return Record{
		Topic: "p.s.t", Key: []byte(`{"id":1}`),
		Value: []byte(`{"before":null,"after":{"id":1,"a":"x"},"source":` + source + `,"op":"c"` + rest + `}`),
	}
}

func TestPositions(t *testing.T) {
	for _, c := range []struct{ name, source, rest, want string }{
		{"postgres", `{"connector":"postgresql","ts_us":5,"txId":9,"lsn":24023128,"sequence":"[\"1\",\"24023128\"]"}`, ``, "lsn:0/16E9058 9 5 true"},
		{"postgres upper half", `{"connector":"postgresql","ts_ms":5,"txId":9,"lsn":72057594037927936}`, ``, "lsn:1000000/0 9 5000 true"},
		{"postgres negative", `{"connector":"postgresql","lsn":-1}`, ``, "lsn:FFFFFFFF/FFFFFFFF  0 true"},
		{"postgres transaction", `{"connector":"postgresql","txId":9,"lsn":1}`, `,"transaction":{"id":"556:24023400","total_order":1,"data_collection_order":1}`, "lsn:0/1 556 0 true"},
		{"postgres sequence only", `{"connector":"postgresql","txId":9,"lsn":null,"sequence":"[null,\"26\"]"}`, ``, "lsn:0/1A 9 0 false"},
		{"postgres sequence garbage", `{"connector":"postgresql","lsn":1,"sequence":"[1,"}`, ``, "lsn:0/1  0 false position_unreadable"},
		{"postgres incremental", `{"connector":"postgresql","snapshot":"incremental"}`, ``, "  0 false"},
		{"postgres snapshot", `{"connector":"postgresql","lsn":1,"snapshot":true}`, ``, "lsn:0/1  0 false"},
		{"mysql gtid", `{"connector":"mysql","gtid":"a-b:7","file":"bin.000003","pos":157,"row":0}`, ``, "gtid:a-b:7 a-b:7 0 true"},
		{"mysql file", `{"connector":"mysql","gtid":null,"file":"bin.000003","pos":157,"row":0}`, ``, "binlog:bin.000003/157  0 true"},
		{"mariadb", `{"connector":"mariadb","gtid":"0-1-42","file":"bin.000003","pos":157,"ts_ns":1999}`, `,"transaction":{"id":"0-1-42"}`, "gtid:0-1-42 0-1-42 1 true"},
		{"sqlserver", `{"connector":"sqlserver","commit_lsn":"00:02","change_lsn":"00:01","event_serial_no":2}`, ``, "commit-lsn:00:02/00:01/2 00:02 0 true"},
		{"sqlserver snapshot row", `{"connector":"sqlserver","commit_lsn":"00:02","change_lsn":null,"event_serial_no":null,"snapshot":"last"}`, ``, "commit-lsn:00:02 00:02 0 false"},
		{"oracle", `{"connector":"oracle","scn":"17","commit_scn":"18","txId":"t1"}`, ``, "scn:18 t1 0 true"},
		{"oracle without commit", `{"connector":"oracle","scn":"17"}`, ``, "scn:17  0 true"},
		{"other", `{"connector":"vitess","pos":5}`, ``, "  0 false"},
		{"none", `{}`, ``, "  0 false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ev, err := newDecoder(t, Options{}).Decode(from(c.source, c.rest))
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s %s %d %v", ev.Native, ev.Txn, ev.SourceTime, ev.HasIdentity)
			for _, r := range ev.Reports {
				got += " " + r.Reason
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	d := newDecoder(t, Options{})
	ev, err := d.Decode(from(`{"connector":"postgresql","name":"p\"q","db":"d","schema":"s","table":"t","snapshot":"first_in_data_collection"}`, ``))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(ev.Connector, " ", ev.SourceName, " ", ev.Database, " ", ev.Schema, " ", ev.Table, " ", ev.Snapshot); got != `postgresql p"q d s t 2` {
		t.Error(got)
	}
	for want, ok := range map[string]bool{"t": true, "s.t": true, "d.t": true, "x.t": false, "u": false} {
		_, err := newDecoder(t, Options{SourceTable: want}).Decode(from(`{"connector":"postgresql","db":"d","schema":"s","table":"t"}`, ``))
		if (err == nil) != ok {
			t.Errorf("source table %s: %v", want, err)
		}
	}
	for _, source := range []string{`7`, `{"snapshot":"maybe"}`, `{"snapshot":1}`} {
		if _, err := d.Decode(from(source, ``)); err == nil || reasonOf(err) != ReasonSourceInvalid {
			t.Errorf("source %s: %v", source, err)
		}
	}
}

// TestIdentity: it is of what a connector sends again in the same form, and of nothing else (2.4).
func TestIdentity(t *testing.T) {
	base := Record{
		Topic: "p.s.t", Key: []byte(`{"id":1}`),
		Value: []byte(`{"before":{"id":1,"a":"w"},"after":{"id":1,"a":"x"},"source":{"version":"3","connector":"postgresql","name":"p","ts_ms":1,"snapshot":"false","db":"d","sequence":"[\"1\",\"2\"]","schema":"s","table":"t","txId":5,"lsn":2,"xmin":null},"transaction":{"id":"5:2","total_order":3,"data_collection_order":1},"op":"u","ts_ms":10}`),
	}
	identity := func(r Record) [16]byte {
		t.Helper()
		ev, err := newDecoder(t, Options{}).Decode(r)
		if err != nil || !ev.HasIdentity {
			t.Fatal(ev, err)
		}
		return ev.Identity
	}
	want := identity(base)
	for _, c := range []struct {
		old, new string
		same     bool
	}{
		{`"ts_ms":10`, `"ts_ms":11`, true},
		{`"version":"3"`, `"version":"4"`, true},
		{`"xmin":null`, `"xmin":7`, true},
		{`[\"1\",\"2\"]`, `[\"0\",\"2\"]`, true},
		{`"total_order":3`, `"total_order":4`, true},
		{`"snapshot":"false"`, `"snapshot":null`, true},
		{`"lsn":2`, `"lsn":3`, false},
		{`"txId":5`, `"txId":6`, false},
		{`"name":"p"`, `"name":"q"`, false},
		{`"table":"t"`, `"table":"u"`, false},
		{`"op":"u"`, `"op":"c"`, false},
		{`"a":"x"`, `"a":"y"`, false},
		{`"a":"w"`, `"a":"v"`, false},
	} {
		r := base
		r.Value = []byte(strings.Replace(string(base.Value), c.old, c.new, 1))
		if got := identity(r) == want; got != c.same {
			t.Errorf("%s for %s: same %v", c.new, c.old, got)
		}
	}
	other := base
	other.Key = []byte(`{"id": 1}`)
	if identity(other) == want {
		t.Error("another key has the same identity")
	}
	keyless := base
	keyless.Key = nil
	again := keyless
	again.Value = []byte(strings.Replace(string(base.Value), `"total_order":3`, `"total_order":4`, 1))
	if identity(keyless) == identity(again) {
		t.Error("two rows of a keyless table have the same identity")
	}
}

// TestKeylessIdentity: without a key an event has an identity only if its position is its own among equal rows.
func TestKeylessIdentity(t *testing.T) {
	for _, c := range []struct {
		connector, source, transaction string
		want                           bool
	}{
		{"postgresql", `"lsn":1,"txId":2`, `{"id":"2:1","total_order":3}`, true},
		{"postgresql", `"lsn":1,"txId":2`, `{"id":"2:1","total_order":null}`, false},
		{"postgresql", `"lsn":1,"txId":2`, `null`, false},
		{"mysql", `"file":"b.1","pos":4,"row":0`, `null`, true},
		{"mariadb", `"file":"b.1","pos":4`, `null`, false},
		{"sqlserver", `"commit_lsn":"a","change_lsn":"b","event_serial_no":1`, `null`, true},
		{"sqlserver", `"commit_lsn":"a","change_lsn":"b","event_serial_no":null`, `null`, false},
		{"db2", `"commit_lsn":"a","change_lsn":"b"`, `null`, false},
		{"oracle", `"scn":"1","txId":"2","txSeq":3`, `null`, true},
		{"oracle", `"scn":"1","txId":"2"`, `null`, false},
	} {
		value := []byte(`{"before":null,"after":{"id":1,"a":"x"},"source":{"connector":"` + c.connector + `",` + c.source + `},"op":"c","transaction":` + c.transaction + `}`)
		for _, o := range []Options{{}, {NoKey: true}} {
			r := Record{Topic: "t", Value: value}
			if o.NoKey {
				r.Key = []byte(`{"id":1}`)
			}
			ev, err := newDecoder(t, o).Decode(r)
			if err != nil {
				t.Fatal(err)
			}
			if ev.HasIdentity != c.want || len(ev.Key) != 0 || len(ev.Shape.Key) != 0 {
				t.Errorf("%s %s %s: identity %t, key %v", c.connector, c.source, c.transaction, ev.HasIdentity, ev.Key)
			}
		}
	}
}

func TestBefore(t *testing.T) {
	value := func(connector, op, before string) Record {
		after := `{"id":1,"a":"x"}`
		if op == "d" {
			after = "null"
		}
		return Record{Topic: "t", Key: []byte(`{"id":1}`), Value: []byte(`{"before":` + before + `,"after":` + after + `,"source":{"connector":"` + connector + `"},"op":"` + op + `"}`)}
	}
	const whole = `{"id":1,"a":"w"}`
	for _, c := range []struct {
		identity              Identity
		connector, op, before string
		want                  bool
	}{
		{IdentityAuto, "postgresql", "u", whole, false},
		{IdentityAuto, "postgresql", "d", whole, false},
		{IdentityFull, "postgresql", "u", whole, true},
		{IdentityFull, "postgresql", "d", whole, true},
		{IdentityAuto, "mysql", "u", whole, true},
		{IdentityAuto, "mariadb", "d", whole, true},
		{IdentityDefault, "mysql", "u", whole, false},
		{IdentityAuto, "mysql", "c", whole, false},
		{IdentityAuto, "mysql", "u", "null", false},
		{IdentityAuto, "oracle", "u", `{"id":1,"a":"__debezium_unavailable_value"}`, false},
		{IdentityAuto, "mongodb", "u", whole, false},
	} {
		ev, err := newDecoder(t, Options{Identity: c.identity}).Decode(value(c.connector, c.op, c.before))
		if err != nil {
			t.Fatal(err)
		}
		if (ev.Before != nil) != c.want || c.want && string(ev.Before[1].B) != "w" || len(ev.Placeholders) != 0 {
			t.Errorf("%+v: before %v, placeholders %v", c, ev.Before, ev.Placeholders)
		}
	}
}

// TestKeyChange: the headers of a key change give the other half's key; what does not parse is left out.
func TestKeyChange(t *testing.T) {
	for _, c := range []struct{ op, header, value, oldKey, newKey string }{
		{"c", "__debezium.oldkey", `{"id":4}`, "4", ""},
		{"d", "__debezium.newkey", `{"id":4}`, "", "4"},
		{"d", "__debezium.newkey", `{"schema":{"type":"struct","fields":[{"type":"int32","field":"id"}]},"payload":{"id":4}}`, "", "4"},
		{"c", "__debezium.newkey", `{"id":4}`, "", ""},
		{"u", "__debezium.oldkey", `{"id":4}`, "", ""},
		{"c", "__debezium.oldkey", `{"id":4`, "", ""},
		{"c", "__debezium.oldkey", `{"other":4}`, "", ""},
		{"c", "__debezium.oldkey", `{"id":null}`, "", ""},
		{"c", "__debezium.oldkey", "\xff", "", ""},
		{"c", "__debezium.oldkey", ``, "", ""},
	} {
		after := `{"id":1}`
		if c.op == "d" {
			after = "null"
		}
		ev, err := newDecoder(t, Options{}).Decode(Record{
			Topic: "t", Key: []byte(`{"id":1}`),
			Value:   []byte(`{"before":null,"after":` + after + `,"source":{"connector":"postgresql","lsn":1},"op":"` + c.op + `"}`),
			Headers: []changelog.Header{{Key: "x"}, {Key: c.header, Value: []byte(c.value)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		shown := func(key []changelog.Value) string {
			if key == nil {
				return ""
			}
			return fmt.Sprint(key[0].I)
		}
		if shown(ev.OldKey) != c.oldKey || shown(ev.NewKey) != c.newKey || ev.Key[0].I != 1 || !ev.HasIdentity {
			t.Errorf("%+v: old %v, new %v, key %v", c, ev.OldKey, ev.NewKey, ev.Key)
		}
	}
}

func TestTopicKinds(t *testing.T) {
	const (
		change      = `{"before":null,"after":{"id":1},"source":{"connector":"postgresql"},"op":"c"}`
		transaction = `{"status":"BEGIN","id":"1:2","event_count":null,"data_collections":null,"ts_ms":1}`
		ddl         = `{"source":{},"ts_ms":1,"databaseName":"d","schemaName":null,"ddl":"CREATE","tableChanges":[]}`
		logical     = `{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"p","content":""}}`
	)
	for _, c := range []struct {
		topic, value string
		kind         TopicKind
		want         string
	}{
		{"p.s.t", change, TopicAuto, "change"},
		{"p.s.transaction", change, TopicAuto, "change"},
		{"p.transaction", transaction, TopicAuto, "transaction"},
		{"p.s.t", transaction, TopicAuto, ReasonEnvelopeShape},
		{"p.transaction", transaction, TopicTable, ReasonEnvelopeShape},
		{"p", ddl, TopicAuto, "schema_change"},
		{"p", change, TopicAuto, "change"},
		{"p.s.t", ddl, TopicAuto, ReasonEnvelopeShape},
		{"p.message", logical, TopicAuto, "logical_message"},
		{"__debezium-heartbeat.p", `{"ts_ms":1}`, TopicAuto, "heartbeat"},
		{"__debezium-heartbeat.p", `{"ts_ms":1}`, TopicTable, ReasonEnvelopeShape},
		{"p.s.t", `{"schema":{"type":"struct","fields":[],"name":"io.debezium.connector.common.Notification"},"payload":{"id":"x"}}`, TopicAuto, "notification"},
	} {
		ev, err := newDecoder(t, Options{Topic: c.kind}).Decode(Record{Topic: c.topic, Key: []byte(`{"id":1}`), Value: []byte(c.value)})
		var got string
		if err != nil {
			got = reasonOf(err)
		} else {
			got = ev.Kind.String()
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.topic, c.value, got, c.want)
		}
	}
}

// TestRejectedKey: a rejection carries the key where that is readable, in memory of its own.
func TestRejectedKey(t *testing.T) {
	d := newDecoder(t, Options{})
	_, s, err := Plan(nil, shapeFrom(t, "id! string a int"), PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Decode(Record{Topic: "t", Key: []byte(`{"id":"k\n1"}`), Value: []byte(`{"before":null`)})
	rej := rejected(err)
	if _, err := d.Decode(Record{Topic: "t", Key: []byte(`{"id":"other"}`), Value: []byte(`{"before":null`)}); err == nil {
		t.Fatal("accepted")
	}
	k, ok := rej.TableKey(nil, s)
	if want := changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{{B: []byte("k\n1")}}); !ok || k.String() != want.String() {
		t.Errorf("key %v (%v), want %v", k, ok, want)
	}
	_, err = d.Decode(Record{Topic: "t", Key: []byte(`{"id":`), Value: []byte(`{"before":null`)})
	if rej := rejected(err); rej.Reason != ReasonJSONSyntax || rej.Key != nil {
		t.Errorf("%v, key %v", rej, rej.Key)
	}
	if _, ok := rej.TableKey(nil, s); ok == (s == nil) {
		t.Error("TableKey")
	}
}

// TestFormats: Auto takes either form; the other formats take one.
func TestFormats(t *testing.T) {
	schema := message("mysql", `{"type":"string"}`, `"x"`)
	loose := plain(`{"id":1}`, `{"id":1,"a":"x"}`)
	for _, c := range []struct {
		format Format
		r      Record
		want   string
	}{
		{FormatAuto, schema, ""},
		{FormatAuto, loose, ""},
		{FormatSchema, schema, ""},
		{FormatPlain, loose, ""},
		{FormatSchema, loose, ReasonEnvelopeShape},
		{FormatPlain, schema, ReasonEnvelopeShape},
	} {
		got := ""
		if _, err := newDecoder(t, Options{Format: c.format}).Decode(c.r); err != nil {
			got = reasonOf(err)
		}
		if got != c.want {
			t.Errorf("format %d: %q, want %q", c.format, got, c.want)
		}
	}
	// payload before schema, and white space, are as good
	var swapped Record
	swapped.Topic, swapped.Key = schema.Topic, schema.Key
	s, p, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(string(schema.Value), `{"schema":`), "}"), `,"payload":`)
	swapped.Value = []byte(" {\n\"payload\" : " + p + " , \"schema\" :" + s + "}\n")
	d := newDecoder(t, Options{})
	a, err := d.Decode(schema)
	if err != nil {
		t.Fatal(err)
	}
	shape := a.Shape
	b, err := d.Decode(swapped)
	if err != nil || b.Shape != shape {
		t.Errorf("swapped: %v, the same shape: %v", err, b != nil && b.Shape == shape)
	}
}

func TestOptionsValidate(t *testing.T) {
	for _, o := range []Options{{Format: FormatCloudEventsAvro + 1}, {KeyFormat: FormatCloudEvents}, {MaxMessageBytes: -1}, {Placeholder: "hex:zz"}, {Hints: []Hint{{"a", []byte(`{"type":"x"}`)}}}, {Hints: []Hint{{"a", []byte(`{`)}}}} {
		if o.Validate() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestAllocations: decoding takes no memory once the decoder is warm.
func TestAllocations(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		options Options
	}{
		"plain":  {"stream_2000.jsonl.gz", Options{Format: FormatPlain, Hints: expectedStream(t)["customers"].hints(t)}},
		"schema": {"stream_2000_schema.jsonl.gz", Options{Format: FormatSchema}},
	} {
		var create Record
		for _, r := range changesOf(t, samples+c.file, "customers") {
			if strings.Contains(string(r.Value), `"op":"c"`) {
				create = r
				break
			}
		}
		d := newDecoder(t, c.options)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := d.Decode(create); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
