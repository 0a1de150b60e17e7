package decode

import (
	"strings"
	"testing"

	"firn/changelog"
)

const eventID = "4d47e190-0402-4048-bc2c-89dd54343cdc"

// outboxRow is the row that the sample's events have, with a type and a payload.
func outboxRow(typ, payload string) string {
	return `{"aggregateid":"1","aggregatetype":"order","headers":[],"id":"` + eventID + `","payload":` + payload + `,"timestamp":"2026-01-01T00:00:00.000000Z","type":` + typ + `}`
}

// TestOutbox: the samples: the payload as escaped text, expanded, in an envelope, and none (1.14).
func TestOutbox(t *testing.T) {
	envelope := map[string]string{"eventType": "type"}
	escaped := `"{\"id\":1,\"lineItems\":[{\"id\":1,\"qty\":2}]}"`
	for name, c := range map[string]struct {
		o    Options
		want [4]string // "": nothing to add
	}{
		"text": {Options{Metadata: envelope}, [4]string{outboxRow("<nil>", escaped), outboxRow("<nil>", escaped), outboxRow(`"OrderCreated"`, `"{\"id\":1}"`), ""}},
		"text, no envelope": {Options{}, [4]string{
			outboxRow("<nil>", escaped), outboxRow("<nil>", escaped), outboxRow("<nil>", `"{\"payload\":{\"id\":1},\"eventType\":\"OrderCreated\"}"`), "",
		}},
		"expanded": {Options{Payload: PayloadExpanded, Metadata: envelope}, [4]string{
			outboxRow("<nil>", `{"id":1,"lineItems":[{"id":1,"qty":2}]}`), outboxRow("<nil>", `{"id":1,"lineItems":[{"id":1,"qty":2}]}`), outboxRow(`"OrderCreated"`, `{"id":1}`), "",
		}},
		"binary": {Options{Payload: PayloadBinary}, [4]string{
			outboxRow("<nil>", `"227b5c226964`), outboxRow("<nil>", `"7b226964223a31`), outboxRow("<nil>", `"7b227061796c6f61`), "",
		}},
	} {
		lines := readLines(t, samples+"outbox.jsonl")
		if len(lines) != 4 {
			t.Fatalf("%d lines", len(lines))
		}
		c.o.Form = FormOutbox
		used := newDecoder(t, c.o)
		for i, l := range lines {
			l.Timestamp = 1767225600000
			for _, d := range []*Decoder{newDecoder(t, c.o), used} {
				ev, err := d.Decode(l.Record)
				if err != nil {
					t.Fatalf("%s, line %d: %v", name, i, err)
				}
				if c.want[i] == "" {
					if ev.Kind != Tombstone {
						t.Errorf("%s, line %d is a %s", name, i, ev.Kind)
					}
					continue
				}
				want := c.want[i]
				got := strings.Replace(rowText(t, ev), `,"lineItems":<nil>`, "", 1) // as the last payload was read
				if name == "binary" {                                               // its beginning
					want, _, _ = strings.Cut(want, `,"timestamp"`)
				}
				if ev.Op != changelog.OpCreate || len(ev.Key)+len(ev.Shape.Key) != 0 || !strings.HasPrefix(got, want) || !ev.HasIdentity || ev.SourceTime != 1767225600000000 || len(ev.Reports) != 0 {
					t.Errorf("%s, line %d: %s, want %s; %+v", name, i, got, want, ev)
				}
			}
		}
	}
}

// outboxEventOf decodes a value with an id.
func outboxEventOf(t *testing.T, o Options, r Record) (*Event, error) {
	t.Helper()
	o.Form = FormOutbox
	r.Headers = append(r.Headers, changelog.Header{Key: "id", Value: []byte("e1")})
	if r.Topic == "" {
		r.Topic = outboxPrefix + "t"
	}
	return newDecoder(t, o).Decode(r)
}

// column is the value of a column of an event's row.
func column(t *testing.T, ev *Event, name string) string {
	t.Helper()
	for i, c := range ev.Shape.Columns {
		if c.Name == name {
			return text(form(t, c.Type, ev.After[i]))
		}
	}
	return "no such column"
}

// TestOutboxPayload: what a payload becomes, however it is written.
func TestOutboxPayload(t *testing.T) {
	text, expanded := Options{}, Options{Payload: PayloadExpanded}
	plain, schema, metadata := Options{Format: FormatPlain}, Options{Format: FormatSchema}, Options{Metadata: map[string]string{"tenant": "header", "kind": "type"}}
	for name, c := range map[string]struct {
		o             Options
		value, result string // a reason has no quotes
	}{
		"a text":                 {text, `"hello"`, `"hello"`},
		"an empty text":          {text, `""`, `""`},
		"a number":               {text, ` 5 `, `"5"`},
		"an array":               {text, `[1, "a\n"]`, `"[1, \"a\\n\"]"`},
		"a null":                 {text, `null`, ""},
		"with a schema":          {text, `{"schema":{"type":"string","optional":false},"payload":"{\"a\":1}"}`, `"{\"a\":1}"`},
		"a null with one":        {text, `{"schema":{"type":"string","optional":true},"payload":null}`, ""},
		"a null schema":          {text, `{"schema":null,"payload":{"a":1}}`, `"{\"a\":1}"`},
		"a schema of the event":  {text, `{"schema":"v1","payload":{"a":1}}`, `"{\"schema\":\"v1\",\"payload\":{\"a\":1}}"`},
		"never a schema":         {plain, `{"schema":null,"payload":{"a":1}}`, `"{\"schema\":null,\"payload\":{\"a\":1}}"`},
		"always a schema":        {schema, `{"a":1}`, ReasonSchemaMissing},
		"an expanded text":       {expanded, `"[1,2]"`, `[1,2]`},
		"a text that is no JSON": {expanded, `"{no"`, `"{no"`},
		"a text of a number":     {expanded, `"5"`, `"5"`},
		"an expanded schema":     {expanded, `{"schema":{"type":"struct","fields":[{"type":"int32","field":"a"}]},"payload":{"a":1}}`, `{"a":1}`},
		"expanded types":         {expanded, `{"a":1,"b":1.5,"c":true,"d":null,"e":[],"f":{"g":"h"}}`, `{"a":1,"b":1.5,"c":true,"f":{"g":"h"}}`},
		"a name twice":           {expanded, `"{\"a\":1,\"a\":2}"`, `"{\"a\":1,\"a\":2}"`},
		"an envelope":            {metadata, `{"payload":"x","tenant":"t1","kind":null}`, `"x"`},
		"a payload by name":      {text, `{"payload":5}`, `"{\"payload\":5}"`},
		"only a payload":         {metadata, `{"payload":5}`, `"5"`},
		"no envelope":            {metadata, `{"payload":"x","other":1}`, `"{\"payload\":\"x\",\"other\":1}"`},
		"an envelope of nothing": {metadata, `{"payload":null,"tenant":"t1"}`, ""},
		"a schema's envelope":    {metadata, `{"schema":{"type":"struct","fields":[]},"payload":{"payload":"x","kind":"k"}}`, `"x"`},
		"not JSON":               {text, `hello`, ReasonJSONSyntax},
		"empty":                  {text, ``, ReasonEmptyPayload},
		"no text":                {text, "\"\xff\"", ReasonUTF8},
		"framed":                 {text, "\x00\x00\x00\x00\x01a", ReasonJSONSyntax},
		"framed, as it is":       {Options{Payload: PayloadBinary}, "\x00\x00\x00\x00\x01a", `"000000000161"`},
		"too deep":               {text, strings.Repeat("[", 70) + strings.Repeat("]", 70), ReasonJSONDepth},
	} {
		ev, err := outboxEventOf(t, c.o, Record{Value: []byte(c.value)})
		switch {
		case err != nil:
			if reasonOf(err) != c.result {
				t.Errorf("%s: %v, want %s", name, err, c.result)
			}
		case ev.Kind == Tombstone:
			if c.result != "" {
				t.Errorf("%s: nothing", name)
			}
		case column(t, ev, "payload") != c.result:
			t.Errorf("%s: %s, want %s", name, column(t, ev, "payload"), c.result)
		}
	}
	if ev, err := outboxEventOf(t, text, Record{}); err != nil || ev.Kind != Tombstone {
		t.Errorf("a null value without a key: %v, %+v", err, ev)
	}
}

// TestOutboxFacts: where a row's other columns come from.
func TestOutboxFacts(t *testing.T) {
	h := func(key, value string) changelog.Header { return changelog.Header{Key: key, Value: []byte(value)} }
	o := Options{Metadata: map[string]string{"eventType": "type", "aggregate": "aggregatetype", "tenant": "header", "of": "aggregateid"}}
	r := Record{Topic: "outbox.event.com.acme.Order", Value: []byte(`{"payload":1,"tenant":"t1","eventType":"T"}`), Headers: []changelog.Header{
		h("eventType", "header"), h("trace", "1"), h("trace", `"2"`), {Key: "none"}, h("tenant", "later"),
	}}
	ev, err := outboxEventOf(t, o, r)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"id": `"e1"`, "type": `"T"`, "aggregatetype": `"com.acme.Order"`, "aggregateid": "<nil>", "timestamp": "<nil>",
		"headers": `[["none",<nil>],["tenant","t1"],["trace","\"2\""]]`,
	} {
		if got := column(t, ev, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	r.Topic, r.Key, r.Headers = "events.orders", []byte("5"), []changelog.Header{h("eventType", `"E"`), h("aggregate", "A"), h("of", "7"), h("bad", "\xff"), h(`\q`, `\q`)}
	r.Value = []byte("1")
	if ev, err = outboxEventOf(t, o, r); err != nil {
		t.Fatal(err)
	}
	if got := column(t, ev, "type") + column(t, ev, "aggregatetype") + column(t, ev, "aggregateid") + column(t, ev, "headers"); got != `"E""A""7"[["\\q","\\q"],["bad",<nil>]]` {
		t.Errorf("%s", got)
	}
	if len(ev.Reports) != 1 || ev.Reports[0].Reason != ReasonUTF8 || ev.Reports[0].Column != "headers" {
		t.Errorf("a header that is no text: %+v", ev.Reports)
	}
	if ev, err = outboxEventOf(t, Options{}, r); err != nil || column(t, ev, "aggregatetype") != `"orders"` {
		t.Errorf("the topic's last part: %v, %+v", err, ev)
	}
	for key, want := range map[string]string{
		`1`: `"1"`, `"a"`: `"a"`, `a b`: `"a b"`, `{"id":"x"}`: `"x"`, `{"id":{"a":1}}`: `"{\"id\":{\"a\":1}}"`, `{"a":1,"b":2}`: `"{\"a\":1,\"b\":2}"`, `null`: "<nil>",
		`{"schema":{"type":"string"},"payload":"y"}`: `"y"`, `{"schema":{"type":"struct","fields":[]},"payload":{"id":9}}`: `"9"`, "default": "<nil>", "\xff": ReasonKeyDecode,
	} {
		ev, err := outboxEventOf(t, Options{NullKey: "default"}, Record{Key: []byte(key), Value: []byte("1")})
		var got string
		if err != nil {
			got = reasonOf(err)
		} else {
			got = column(t, ev, "aggregateid")
		}
		if got != want {
			t.Errorf("key %q: %s, want %s", key, got, want)
		}
	}
	for _, headers := range [][]changelog.Header{nil, {h("id", "")}, {{Key: "id"}}} {
		if _, err := newDecoder(t, Options{Form: FormOutbox}).Decode(Record{Topic: "o", Value: []byte("1"), Headers: headers}); reasonOf(err) != ReasonRequiredMissing {
			t.Errorf("without an id: %v", err)
		}
	}
}

// TestOutboxHeaders: headers may be large where the value is small, and the last of a name counts beside what an envelope has.
func TestOutboxHeaders(t *testing.T) {
	large := changelog.Header{Key: "large", Value: []byte(strings.Repeat("x", 3<<20))}
	ev, err := outboxEventOf(t, Options{}, Record{Value: []byte("1"), Headers: []changelog.Header{large}})
	if err != nil || len(column(t, ev, "headers")) < 3<<20 {
		t.Errorf("%v", err)
	}
	r := Record{Value: []byte(`{"payload":1,"tenant":"t1"}`), Headers: []changelog.Header{{Key: "tenant", Value: []byte("t2")}}}
	if ev, err = outboxEventOf(t, Options{Metadata: map[string]string{"tenant": "header"}}, r); err != nil || column(t, ev, "headers") != `[["tenant","t1"]]` || len(ev.Reports) != 0 {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestOutboxIdentity: the event's id, and nothing else, tells a repeat.
func TestOutboxIdentity(t *testing.T) {
	of := func(o Options, id, value string) [16]byte {
		t.Helper()
		o.Form = FormOutbox
		ev, err := newDecoder(t, o).Decode(Record{Topic: "outbox.event.a", Value: []byte(value), Headers: []changelog.Header{{Key: "id", Value: []byte(id)}, {Key: "uuid", Value: []byte("u1")}}})
		if err != nil || !ev.HasIdentity {
			t.Fatalf("%v, %+v", err, ev)
		}
		return ev.Identity
	}
	if of(Options{}, "1", "{}") != of(Options{}, "1", "[]") || of(Options{}, "1", "{}") == of(Options{}, "2", "{}") {
		t.Error("the identity is not that of the id")
	}
	if o := (Options{Metadata: map[string]string{"uuid": "id"}}); of(o, "1", "{}") != of(o, "2", "{}") {
		t.Error("the identity is not that of the header that the route names")
	}
	r := Record{Topic: "o", Value: []byte("1"), Headers: []changelog.Header{{Key: "uuid", Value: []byte("u1")}, {Key: "id", Value: []byte("other")}}}
	ev, err := newDecoder(t, Options{Form: FormOutbox, Metadata: map[string]string{"uuid": "id"}}).Decode(r)
	if err != nil || column(t, ev, "id")+column(t, ev, "headers") != `"u1"[["id","other"]]` {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestOutboxCloudEvents: an outbox behind the CloudEvents converter: data are the payload, id is the event's unless a header says it.
func TestOutboxCloudEvents(t *testing.T) {
	d := newDecoder(t, Options{Form: FormOutbox, Format: FormatCloudEvents})
	r := cloudRecord(t, map[string]string{"data": `"{\"a\":1}"`, "id": `"ce1"`, "type": `"OrderCreated"`, "time": `"2026-01-01T00:00:01Z"`})
	ev, err := d.Decode(r)
	if err != nil || column(t, ev, "id")+column(t, ev, "type")+column(t, ev, "payload") != `"ce1""OrderCreated""{\"a\":1}"` || ev.SourceTime != 1767225601000000 {
		t.Fatalf("%v, %+v", err, ev)
	}
	r = cloudRecord(t, map[string]string{"data": `[1]`})
	r.Headers = []changelog.Header{{Key: "id", Value: []byte("h1")}}
	if ev, err = d.Decode(r); err != nil || column(t, ev, "id")+column(t, ev, "type")+column(t, ev, "payload") != `"h1"<nil>"[1]"` {
		t.Errorf("%v, %+v", err, ev)
	}
	r = cloudRecord(t, map[string]string{"data": `null`})
	if ev, err = d.Decode(r); err != nil || ev.Kind != Tombstone {
		t.Errorf("null data: %v, %+v", err, ev)
	}
}

// TestOutboxOptions: what does not go together.
func TestOutboxOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"Avro":                  {Form: FormOutbox, Format: FormatConfluentAvro},
		"a payload elsewhere":   {Form: FormPlain, Payload: PayloadExpanded},
		"no such payload":       {Form: FormOutbox, Payload: 9},
		"no such column":        {Form: FormOutbox, Metadata: map[string]string{"x": "op"}},
		"the payload as a type": {Form: FormOutbox, Metadata: map[string]string{"payload": "type"}},
		"flattened metadata":    {Form: FormFlattened, Metadata: map[string]string{"x": "header"}},
	} {
		if o.Validate() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzOutbox: as FuzzDecode, of outbox events; and what a record makes the decoder allocate is bounded by its size.
func FuzzOutbox(f *testing.F) {
	for _, file := range []string{"outbox.jsonl", "flattened.jsonl", "bad.jsonl"} {
		for _, l := range readLines(f, samples+file) {
			if len(l.Value) < 16<<10 {
				f.Add(l.Key, l.Value, "eventType", []byte(`"T"`), byte(0))
			}
		}
	}
	f.Add([]byte(`{"schema":{"type":"string"},"payload":"y"}`), []byte(`{"schema":{"type":"string"},"payload":"{\"a\":[1,{}]}"}`), "id", []byte(`\q`), byte(1))
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte, mode byte) {
		r := Record{Topic: "outbox.event.t", Key: key, Value: value, Timestamp: int64(mode), Headers: []changelog.Header{{Key: "id", Value: []byte("1")}, {Key: name, Value: header}}}
		for _, o := range []Options{
			{Payload: Payload(mode % 3)}, {Payload: Payload(mode % 3), Format: FormatSchema, Metadata: map[string]string{"eventType": "type", "x": "header"}},
		} {
			o.Form = FormOutbox
			d := newDecoder(t, o)
			checkDecode(t, d, r)
			if mode&4 == 4 {
				checkAllocated(t, d, r)
			}
		}
	})
}
