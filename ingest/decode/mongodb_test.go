package decode

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"firn/changelog"
)

// TestMongoDB: the sample: documents as columns and as text, the delete, and the update without a document (1.10, 2.2).
func TestMongoDB(t *testing.T) {
	row := func(id, name string) string {
		return `{"_id":"` + id + `","first_name":"` + name + `","joined":"2026-01-01T00:00:00.000000Z","spent":"10.5"}`
	}
	want := []struct {
		op       changelog.Op // 0: not a change
		key, row string
		snapshot Snapshot
		reason   string
	}{
		{changelog.OpRead, "1001", row("1001", "Sally"), SnapshotFirst, ""},
		{changelog.OpRead, "1002", row("1002", "George"), SnapshotLast, ""},
		{changelog.OpCreate, "1004", row("1004", "Anne"), SnapshotNone, ""},
		{changelog.OpUpdate, "1004", row("1004", "Anne Marie"), SnapshotNone, ""},
		{changelog.OpUpdate, "1002", "", SnapshotNone, ReasonNoImage},
		{changelog.OpDelete, "1001", "", SnapshotNone, ""},
		{},
		{changelog.OpCreate, "596e275826f08b2730779e1f", `{"_id":"596e275826f08b2730779e1f","n":1}`, SnapshotNone, ""},
		{},
	}
	lines := readLines(t, samples+"mongodb.jsonl")
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for _, documents := range []Documents{DocumentColumns, DocumentText} {
		used := newDecoder(t, Options{Documents: documents})
		for i, l := range lines {
			w := want[i]
			for _, d := range []*Decoder{newDecoder(t, Options{Documents: documents}), used, used} {
				ev, err := d.Decode(l.Record)
				if w.reason != "" {
					rej := rejected(err)
					if rej.Reason != w.reason || len(rej.Key) != 1 || rej.KeyColumns[0].Name != "_id" || string(rej.Key[0].B) != w.key {
						t.Errorf("line %d: %v, %+v", i, err, rej)
					}
					continue
				}
				if err != nil {
					t.Fatalf("line %d: %v", i, err)
				}
				if w.op == 0 {
					if !ev.Kind.Skip() {
						t.Errorf("line %d is a %s", i, ev.Kind)
					}
					continue
				}
				if ev.Op != w.op || len(ev.Key) != 1 || string(ev.Key[0].B) != w.key || ev.Shape.Columns[ev.Shape.Key[0]].Name != "_id" || ev.Snapshot != w.snapshot ||
					ev.HasIdentity != (w.snapshot == SnapshotNone) || ev.Table != "customers" || ev.Database != "inventory" || ev.Before != nil {
					t.Errorf("line %d: %+v", i, ev)
				}
				if ev.After == nil {
					continue
				}
				got := rowText(t, ev)
				if documents == DocumentText {
					if !strings.HasPrefix(got, `{"_id":"`+w.key+`","document":"{\"_id\": {`) {
						t.Errorf("line %d: %s", i, got)
					}
				} else if got = strings.NewReplacer(`,"first_name":<nil>,"joined":<nil>`, "", `,"spent":<nil>`, "").Replace(got); got != w.row {
					t.Errorf("line %d: %s, want %s", i, got, w.row)
				}
			}
		}
	}
}

// document is a change of a document without schemas.
func document(op, id, after, update string) Record {
	if after != "" {
		after = strconv.Quote(after)
	} else {
		after = "null"
	}
	if update == "" {
		update = "null"
	}
	return Record{Topic: "m.db.c", Key: []byte(`{"id":` + strconv.Quote(id) + `}`), Value: fmt.Appendf(nil, `{"before":null,"after":%s,"updateDescription":%s,`+
		`"source":{"connector":"mongodb","name":"m","ts_ms":1767225600000,"db":"db","collection":"c","ord":1,"lsid":null,"txnNumber":null},"op":%q,"ts_ms":1}`, after, update, op)}
}

// TestExtendedJSON: what values of documents become, in the canonical and the relaxed form and that of version 1.
func TestExtendedJSON(t *testing.T) {
	const micros = `"2026-01-01T00:00:00.123000Z"`
	for value, want := range map[string]string{ // a type and a value
		`{"$oid":"596e275826f08b2730779e1f"}`:              `string "596e275826f08b2730779e1f"`,
		`"text"`:                                           `string "text"`,
		`true`:                                             `boolean true`,
		`5`:                                                `long 5`,
		`{"$numberInt":"5"}`:                               `long 5`,
		`{"$numberLong":"-9223372036854775808"}`:           `long -9223372036854775808`,
		`5.25`:                                             `double 5.25`,
		`{"$numberDouble":"5.0"}`:                          `double 5`,
		`{"$numberDouble":"-Infinity"}`:                    `double "-Infinity"`,
		`{"$numberDouble":"NaN"}`:                          `double "NaN"`,
		`{"$numberDecimal":"10.50"}`:                       `string "10.5"`,
		`{"$numberDecimal":"-1E+3"}`:                       `string "-1000"`,
		`{"$numberDecimal":"1E-3"}`:                        `string "0.001"`,
		`{"$numberDecimal":"1E+6144"}`:                     `string "1E+6144"`,
		`{"$numberDecimal":"NaN"}`:                         `string "NaN"`,
		`{"$date":1767225600123}`:                          `timestamptz ` + micros,
		`{"$date":{"$numberLong":"1767225600123"}}`:        `timestamptz ` + micros,
		`{"$date":"2026-01-01T01:00:00.123+01:00"}`:        `timestamptz ` + micros,
		`{"$date":{"$numberLong":"-1"}}`:                   `timestamptz "1969-12-31T23:59:59.999000Z"`,
		`{"$date":9223372036854775807}`:                    `string "{\"$date\":9223372036854775807}"`,
		`{"$binary":{"base64":"AAE=","subType":"00"}}`:     `binary "0001"`,
		`{"$binary":"AAE=","$type":"00"}`:                  `binary "0001"`,
		`{"$type":"00","$binary":"AAE="}`:                  `binary "0001"`,
		`{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}`: `uuid "00112233-4455-6677-8899-aabbccddeeff"`,
		`{"$binary":{"base64":"ABEiM0RVZneImaq7zN3u/w==","subType":"04"}}`: `uuid "00112233-4455-6677-8899-aabbccddeeff"`,
		`{"$binary":{"base64":"@","subType":"00"}}`:                        `string "{\"$binary\":{\"base64\":\"@\",\"subType\":\"00\"}}"`,
		`{"$timestamp":{"t":1,"i":2}}`:                                     `string "{\"$timestamp\":{\"t\":1,\"i\":2}}"`,
		`{"$minKey":1}`:                                                    `string "{\"$minKey\":1}"`,
		`{"$regularExpression":{"pattern":"a","options":"i"}}`:             `string "{\"$regularExpression\":{\"pattern\":\"a\",\"options\":\"i\"}}"`,
		`{"$oid":5}`:                 `string "{\"$oid\":5}"`,
		`[1,2]`:                      `list<long> [1,2]`,
		`[{"$numberLong":"1"},2]`:    `list<long> [1,2]`,
		`[1,2.5,{"$numberInt":"3"}]`: `list<double> [1,2.5,3]`,
		`[1,"a",{"b":2}]`:            `string "[1,\"a\",{\"b\":2}]"`,
		`{"b":[[1],["x"]]}`:          `struct<b:string> {"b":"[[1],[\"x\"]]"}`,
		`{"at":{"$date":1767225600123},"n":{"$undefined":true}}`: `struct<at:timestamptz> {"at":` + micros + `}`,
		`{"$unknown":1}`:      `struct<$unknown:long> {"$unknown":1}`,
		`{"$undefined":true}`: "no such column",
		`null`:                "no such column",
	} {
		d := newDecoder(t, Options{})
		for range 2 { // as the first, and as the last one
			ev, err := d.Decode(document("c", "1", `{"_id":1,"v":`+value+`}`, ""))
			if err != nil {
				t.Errorf("%s: %v", value, err)
				continue
			}
			got := column(t, ev, "v")
			for _, c := range ev.Shape.Columns {
				if c.Name == "v" {
					got = c.Type.String() + " " + got
				}
			}
			if got != want {
				t.Errorf("%s: %s, want %s", value, got, want)
			}
			checkDecode(t, d, document("c", "1", `{"_id":1,"v":`+value+`}`, ""))
		}
	}
}

// TestDocumentsEvolve: a value that a column cannot hold gets a column of its own, however it is written; one that it can, does not.
func TestDocumentsEvolve(t *testing.T) {
	d := newDecoder(t, Options{})
	var table *changelog.Schema
	for i, c := range []struct{ v, columns string }{
		{`1`, "_id v"},
		{`{"$numberLong":"2"}`, "_id v"},
		{`1.5`, "_id v v__double"},
		{`"2026-01-01T00:00:00Z"`, "_id v v__double v__string"},
		{`{"$date":5}`, "_id v v__double v__string v__timestamptz"},
		{`{"$oid":"596e275826f08b2730779e1f"}`, "_id v v__double v__string v__timestamptz"},
		{`"AAAA"`, "_id v v__double v__string v__timestamptz"},
		{`{"$binary":{"base64":"AAAA","subType":"00"}}`, "_id v v__double v__string v__timestamptz v__binary"},
		{`"AAAA"`, "_id v v__double v__string v__timestamptz v__binary"},
		{`{"a":1}`, "_id v v__double v__string v__timestamptz v__binary v__struct"},
		{`{"b":{"$date":5}}`, "_id v v__double v__string v__timestamptz v__binary v__struct"},
		{`3`, "_id v v__double v__string v__timestamptz v__binary v__struct"},
	} {
		ev, err := d.Decode(document("u", "1", `{"_id":1,"v":`+c.v+`}`, ""))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		_, next, err := Plan(table, ev.Shape, PlanOptions{})
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if next != nil {
			table = next
			d.SetTable(table)
		}
		var names []string
		for _, col := range table.Columns {
			names = append(names, col.Name)
		}
		if got := strings.Join(names, " "); got != c.columns {
			t.Errorf("%d: columns %s, want %s", i, got, c.columns)
		}
	}
}

// TestDocumentsFit: values go to the column of their field where it can hold them as they are, and text is never taken for something else.
func TestDocumentsFit(t *testing.T) {
	for _, c := range []struct{ first, second, columns string }{
		{`1.5`, `{"$numberInt":"2"}`, "_id v"},
		{`1.5`, `2`, "_id v"},
		{`{"$date":5}`, `"2026-01-01T00:00:00Z"`, "_id v v__string"},
		{`{"$binary":{"base64":"AAAA","subType":"00"}}`, `"AAAA"`, "_id v v__string"},
		{`{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}`, `"x"`, "_id v v__string"},
		{`{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}`, `{"$binary":{"base64":"AAAA","subType":"04"}}`, "_id v v__binary"},
		{`[1.5]`, `[{"$numberLong":"1"}]`, "_id v"},
		{`{"a":{"$date":5}}`, `{"a":{"$date":"2026-01-01T00:00:00Z"}}`, "_id v"},
	} {
		for _, fresh := range []bool{false, true} {
			d := newDecoder(t, Options{})
			ev, err := d.Decode(document("c", "1", `{"_id":1,"v":`+c.first+`}`, ""))
			if err != nil {
				t.Fatal(err)
			}
			_, table, _ := Plan(nil, ev.Shape, PlanOptions{})
			if fresh {
				d = newDecoder(t, Options{})
			}
			d.SetTable(table)
			if ev, err = d.Decode(document("c", "1", `{"_id":1,"v":`+c.second+`}`, "")); err != nil {
				t.Errorf("%s after %s: %v", c.second, c.first, err)
				continue
			}
			if _, next, _ := Plan(table, ev.Shape, PlanOptions{}); next != nil {
				table = next
			}
			var names []string
			for _, col := range table.Columns {
				names = append(names, col.Name)
			}
			if got := strings.Join(names, " "); got != c.columns {
				t.Errorf("%s after %s: columns %s, want %s", c.second, c.first, got, c.columns)
			}
		}
	}
	r := Record{Topic: "m.db.c", Key: []byte(`{"n":1}`), Value: []byte(`{"before":{"n":1},"after":null,"source":{"connector":"mongodb","name":"m"},"op":"d"}`)}
	if ev, err := newDecoder(t, Options{}).Decode(r); err != nil || ev.Shape.Columns[ev.Shape.Key[0]].Name != "n" {
		t.Errorf("rows that are no documents: %v, %+v", err, ev)
	}
}

// TestDocumentIDs: ids that MongoDB takes for equal are equal keys, others are not, in whatever form key and document have them (1.16).
func TestDocumentIDs(t *testing.T) {
	groups := []struct {
		text  string
		forms []string
	}{
		{`1001`, []string{`1001`, `{"$numberLong":"1001"}`, `{"$numberInt": "1001"}`, `1001.0`, `{"$numberDouble":"1001.0"}`, `{"$numberDecimal":"1001"}`, `{"$numberDecimal":"10.010E2"}`}},
		{`1152921504606846976`, []string{`1152921504606846976`, `1152921504606846976.0`, `{"$numberDouble":"1.152921504606846976e18"}`}},
		{`0`, []string{`0`, `-0.0`, `{"$numberDecimal":"0E-10"}`}},
		{`"1001"`, []string{`"1001"`}},
		{`abc`, []string{`"abc"`, `"\u0061bc"`}},
		{``, []string{`""`}},
		{`596e275826f08b2730779e1f`, []string{`{"$oid":"596e275826f08b2730779e1f"}`, `{ "$oid" : "596E275826F08B2730779E1F" }`}},
		{`"596e275826f08b2730779e1f"`, []string{`"596e275826f08b2730779e1f"`}},
		{`"{\"$oid\":1}"`, []string{`"{\"$oid\":1}"`}},
		{`"\"a\""`, []string{`"\"a\""`}},
		{`1.5`, []string{`1.5`, `15e-1`, `{"$numberDouble":"1.5"}`}},
		{`{"$numberDecimal":"105E-1"}`, []string{`{"$numberDecimal":"10.5"}`, `{"$numberDecimal":"10.50"}`}},
		{`{"$date":1767225600123}`, []string{`{"$date":1767225600123}`, `{"$date":"2026-01-01T00:00:00.123Z"}`, `{"$date":{"$numberLong":"1767225600123"}}`}},
		{`{"$binary":{"base64":"ABEiM0RVZneImaq7zN3u/w==","subType":"04"}}`, []string{
			`{"$uuid":"00112233-4455-6677-8899-AABBCCDDEEFF"}`, `{"$binary":"ABEiM0RVZneImaq7zN3u/w==","$type":"4"}`, `{"$binary":{"subType":"04","base64":"ABEiM0RVZneImaq7zN3u/w=="}}`,
		}},
		{`{"a":1,"b":[1,"x",[],{}],"c":{"$oid":"596e275826f08b2730779e1f"}}`, []string{`{"a":{"$numberInt":"1"}, "b":[ 1 ,"x",[ ],{ }],"c":{"$oid":"596e275826f08b2730779e1f"}}`}},
		{`{"b":1,"a":1}`, []string{`{"b":1,"a":1}`}},
		{`true`, []string{`true`}},
		{`"true"`, []string{`"true"`}},
	}
	seen := map[string]bool{}
	for _, g := range groups {
		if seen[g.text] {
			t.Errorf("%s is two ids", g.text)
		}
		seen[g.text] = true
		for _, key := range g.forms {
			for _, documents := range []Documents{DocumentColumns, DocumentText} {
				d := newDecoder(t, Options{Documents: documents})
				ev, err := d.Decode(document("c", key, `{"a":1,"_id":`+g.forms[0]+`}`, ""))
				if err != nil || string(ev.Key[0].B) != g.text || column(t, ev, "_id") != strconv.Quote(g.text) {
					t.Errorf("key %s: %v, %+v, want %s", key, err, ev, g.text)
					continue
				}
				if ev, err = d.Decode(document("d", key, "", "")); err != nil || string(ev.Key[0].B) != g.text {
					t.Errorf("delete of %s: %v", key, err)
				}
			}
		}
	}
	for key, reason := range map[string]string{
		`{"id":"1"}`: "", `{"id":"2"}`: ReasonKeyMismatch, `{"id":1}`: ReasonKeyDecode, `{"id":null}`: ReasonKeyNull, `{"id":"x y"}`: ReasonKeyDecode, `{"id":""}`: ReasonKeyDecode,
		`{"id":"1","b":2}`: ReasonKeyDecode, `[1]`: ReasonKeyDecode, `{"id":"1"`: ReasonKeyDecode, "{\"id\":\"\xff\"}": ReasonKeyDecode, `{"id":"1e999"}`: ReasonKeyDecode,
		`{"schema":{"type":"struct","fields":[{"type":"string","field":"id"}]},"payload":{"id":"1"}}`: "",
	} {
		r := document("c", "1", `{"_id":1}`, "")
		r.Key = []byte(key)
		if _, err := newDecoder(t, Options{}).Decode(r); reason == "" && err != nil || reason != "" && reasonOf(err) != reason {
			t.Errorf("key %s: %v, want %q", key, err, reason)
		}
	}
}

// TestDocumentErrors: documents that are none.
func TestDocumentErrors(t *testing.T) {
	for after, reason := range map[string]string{
		`[1]`: ReasonTypeMismatch, `5`: ReasonTypeMismatch, `{"_id":1} {}`: ReasonJSONTrailing, `{"_id":1`: ReasonJSONSyntax, `{"_id":1,"_id":1}`: ReasonJSONDuplicateKey,
		`{"_id":1,"a":1,"a":2}`: ReasonJSONDuplicateKey, `{"_id":1,"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`: ReasonJSONDepth, `{"a":1,"_id":2}`: ReasonKeyMismatch,
	} {
		for _, documents := range []Documents{DocumentColumns, DocumentText} {
			d := newDecoder(t, Options{Documents: documents})
			for range 2 {
				if _, err := d.Decode(document("c", "1", after, "")); err == nil || reasonOf(err) != reason {
					t.Errorf("%s, %d: %v, want %s", after, documents, err, reason)
				}
				if _, err := d.Decode(document("c", "1", `{"_id":1,"a":7}`, "")); err != nil {
					t.Errorf("after %s: %v", after, err)
				}
			}
		}
	}
	for _, after := range []string{`{"_id":null,"a":7}`, `{"a":7}`} { // the key has it
		d := newDecoder(t, Options{})
		for range 2 {
			ev, err := d.Decode(document("c", "null", after, ""))
			if err != nil || column(t, ev, "_id") != `"null"` {
				t.Fatalf("%s: %v, %+v", after, err, ev)
			}
			_, table, _ := Plan(nil, ev.Shape, PlanOptions{})
			d.SetTable(table)
		}
	}
	r := document("c", "1", `{"_id":1}`, "")
	r.Value = []byte(strings.Replace(string(r.Value), "mongodb", "postgresql", 1))
	if _, err := newDecoder(t, Options{}).Decode(r); reasonOf(err) != ReasonTypeMismatch {
		t.Errorf("text as a row of another source: %v", err)
	}
	l := readLines(t, samples+"mongodb.jsonl")[0]
	for _, other := range []string{"postgresql", "other"} {
		l := l
		l.Value = []byte(strings.Replace(string(l.Value), `"connector":"mongodb"`, `"connector":"`+other+`"`, 1))
		if _, err := newDecoder(t, Options{}).Decode(l.Record); err == nil || reasonOf(err) != map[string]string{"postgresql": ReasonEnvelopeShape, "other": ReasonTypeMismatch}[other] {
			t.Errorf("a row of text from %s: %v", other, err)
		}
	}
}

// TestDocumentIdentity: what tells a change from what is sent again.
func TestDocumentIdentity(t *testing.T) {
	of := func(r Record) [16]byte {
		t.Helper()
		ev, err := newDecoder(t, Options{}).Decode(r)
		if err != nil || !ev.HasIdentity {
			t.Fatalf("%v, %+v", err, ev)
		}
		return ev.Identity
	}
	const update = `{"removedFields":null,"updatedFields":"{\"a\": 1}","truncatedArrays":null}`
	base := of(document("u", "1", `{"_id":1,"a":1}`, update))
	later := document("u", "1", `{"_id":1,"a":1}`, update)
	later.Value = []byte(strings.Replace(string(later.Value), `"ts_ms":1}`, `"ts_ms":99}`, 1))
	if of(later) != base {
		t.Error("the connector's own time counts")
	}
	for name, r := range map[string]Record{
		"another document": document("u", "1", `{"_id":1,"a":2}`, update), "another update": document("u", "1", `{"_id":1,"a":1}`, strings.Replace(update, "1", "2", 1)),
		"no update": document("u", "1", `{"_id":1,"a":1}`, ""), "another operation": document("c", "1", `{"_id":1,"a":1}`, update),
	} {
		if of(r) == base {
			t.Errorf("%s is taken for what was sent before", name)
		}
	}
	for from, to := range map[string]string{`"ord":1`: `"ord":2`, `"ts_ms":1767225600000`: `"ts_ms":1767225600001`, `"lsid":null`: `"lsid":"x"`, `"txnNumber":null`: `"txnNumber":4`} {
		r := document("u", "1", `{"_id":1,"a":1}`, update)
		r.Value = []byte(strings.Replace(string(r.Value), from, to, 1))
		if of(r) == base {
			t.Errorf("%s is taken for what was sent before", to)
		}
	}
}

// TestDocumentBefore: a document from before is trusted where the route says that it is whole.
func TestDocumentBefore(t *testing.T) {
	for _, documents := range []Documents{DocumentColumns, DocumentText} {
		r := document("u", "1", `{"_id":1,"a":"new"}`, "")
		r.Value = []byte(strings.Replace(string(r.Value), `"before":null`, `"before":"{\"_id\":1,\"a\":\"old\"}"`, 1))
		if ev, err := newDecoder(t, Options{Documents: documents}).Decode(r); err != nil || ev.Before != nil {
			t.Errorf("not trusted: %v, %+v", err, ev)
		}
		ev, err := newDecoder(t, Options{Documents: documents, Identity: IdentityFull}).Decode(r)
		if err != nil || ev.Before == nil || !strings.Contains(string(ev.Before[1].B), "old") || string(ev.Before[0].B) != "1" {
			t.Errorf("trusted: %v, %+v", err, ev)
		}
	}
}

// TestDocumentsAvro: an envelope in Avro has documents as text, too, and a key of one.
func TestDocumentsAvro(t *testing.T) {
	schema := func(source, more string) Schema {
		return Schema{Text: []byte(`{"type":"record","name":"Envelope","namespace":"m.db.c","fields":[
			{"name":"before","type":["null",{"type":"string","connect.name":"io.debezium.data.Json"}]},{"name":"after","type":["null",{"type":"string","connect.name":"io.debezium.data.Json"}]},` + more + `
			{"name":"source","type":{"type":"record","name":"Source","namespace":"` + source + `","fields":[{"name":"connector","type":"string"},{"name":"ord","type":"int"}]}},{"name":"op","type":"string"}]}`)}
	}
	key := Schema{Text: []byte(`{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}`)}
	update := `{"name":"updateDescription","type":["null","string"]},`
	record := func(connector, before, after, description, op string) Record {
		b := avroBody{0, 0, 0, 0, 2}
		for _, v := range []string{before, after, description} {
			if b = b.long(0); v != "" {
				b = b[:len(b)-1].long(1).text(v)
			}
		}
		return Record{Topic: "m.db.c", Key: avroBody{0, 0, 0, 0, 1}.text(`{"$oid":"596e275826f08b2730779e1f"}`), Value: b.text(connector).long(1).text(op)}
	}
	decoder := func(o Options, s Schema) *Decoder {
		o.Format = FormatConfluentAvro
		d := newDecoder(t, o)
		d.AddSchema(SchemaRef{ID: 1}, key)
		d.AddSchema(SchemaRef{ID: 2}, s)
		return d
	}
	doc := func(v string) string { return `{"_id":{"$oid":"596e275826f08b2730779e1f"},"v":` + v + `}` }
	for _, source := range []string{"io.debezium.connector.mongo", "other"} {
		d := decoder(Options{Identity: IdentityFull}, schema(source, update))
		ids := map[[16]byte]bool{}
		for _, description := range []string{"", "x", "y"} {
			ev, err := d.Decode(record("mongodb", doc("1"), doc(`{"$date":0}`), description, "u"))
			if err != nil || string(ev.Key[0].B) != "596e275826f08b2730779e1f" || column(t, ev, "v") != `"1970-01-01T00:00:00.000000Z"` {
				t.Fatalf("%s: %v, %+v", source, err, ev)
			}
			ids[ev.Identity] = true
		}
		if len(ids) != 3 {
			t.Errorf("%d identities", len(ids))
		}
		if ev, err := d.Decode(record("mongodb", doc("1"), doc("2"), "", "u")); err != nil || ev.Before == nil || ev.Before[1].I != 1 || ev.After[1].I != 2 {
			t.Errorf("before: %v, %+v", err, ev)
		}
		if ev, err := d.Decode(record("mongodb", "", "", "", "d")); err != nil || ev.Op != changelog.OpDelete || len(ev.Key) != 1 {
			t.Errorf("delete: %v, %+v", err, ev)
		}
		if _, err := d.Decode(record("mongodb", "", "", "x", "u")); err == nil || reasonOf(err) != ReasonNoImage {
			t.Errorf("an update without the document: %v", err)
		}
		if _, err := decoder(Options{}, schema(source, update)).Decode(record("postgresql", "", doc("1"), "", "c")); err == nil || reasonOf(err) == "" {
			t.Errorf("text as another source's row: %v", err)
		}
	}
	key = Schema{Text: []byte(`{"type":"record","name":"Key","fields":[{"name":"id","type":"string"},{"name":"shard","type":"string"}]}`)}
	two := record("mongodb", "", doc("1"), "", "c")
	two.Key = avroBody(two.Key).text("s1")
	if _, err := decoder(Options{}, schema("other", update)).Decode(two); err == nil || reasonOf(err) != ReasonKeyDecode {
		t.Errorf("a key of two fields: %v", err)
	}
	if _, err := decoder(Options{}, schema("io.debezium.connector.postgresql", update)).Decode(record("postgresql", "", doc("1"), "", "c")); err == nil || reasonOf(err) != ReasonEnvelopeShape {
		t.Errorf("text as PostgreSQL's row: %v", err)
	}
}

// TestDocumentsJSONSchema: the same with JSON Schemas of a registry.
func TestDocumentsJSONSchema(t *testing.T) {
	d := newDecoder(t, Options{Format: FormatConfluentJSON})
	d.AddSchema(SchemaRef{ID: 1}, Schema{Text: []byte(`{"type":"object","title":"m.db.c.Key","properties":{"id":{"type":"string"}}}`)})
	text := `{"oneOf":[{"type":"null"},{"type":"string","title":"io.debezium.data.Json"}]}`
	d.AddSchema(SchemaRef{ID: 2}, Schema{Text: []byte(`{"type":"object","title":"m.db.c.Envelope","properties":{"before":` + text + `,"after":` + text + `,"updateDescription":` + text + `,
		"source":{"type":"object","title":"io.debezium.connector.mongo.Source","properties":{"connector":{"type":"string"},"name":{"type":"string"},"ord":{"type":"integer","connect.type":"int32"}}},"op":{"type":"string"}}}`)})
	r := document("c", `{"$numberLong":"7"}`, `{"_id":7,"v":{"$date":0}}`, "")
	r.Key, r.Value = append([]byte{0, 0, 0, 0, 1}, r.Key...), append([]byte{0, 0, 0, 0, 2}, r.Value...)
	ev, err := d.Decode(r)
	if err != nil || string(ev.Key[0].B) != "7" || column(t, ev, "v") != `"1970-01-01T00:00:00.000000Z"` || !ev.HasIdentity {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestDocumentsAllocate: documents that make most of little stay within 64 times their size.
func TestDocumentsAllocate(t *testing.T) {
	const n = 20_000
	for name, after := range map[string]string{
		"decimals": `{"_id":1,"a":[` + strings.Repeat(`{"$numberDecimal":"1E+64"},`, n) + `{"$numberDecimal":"1"}]}`,
		"objects":  `{"_id":1,"a":[` + strings.Repeat(`{"b":1},`, n) + `{"c":1}]}`,
		"unlike":   `{"_id":1,"a":[` + strings.Repeat(`[1],`, n) + `"x"]}`,
		"an id":    `{"_id":{"a":[` + strings.Repeat(`1,`, n) + `1]}}`,
	} {
		d := newDecoder(t, Options{})
		r := document("c", "1", after, "")
		if name == "an id" {
			r = document("c", after[len(`{"_id":`):len(after)-1], after, "")
		}
		if _, err := d.Decode(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkAllocated(t, newDecoder(t, Options{}), r)
	}
}

// FuzzDocuments: as FuzzDecode, of MongoDB's documents; and what a record makes the decoder allocate is bounded by its size.
func FuzzDocuments(f *testing.F) {
	for _, v := range []string{`{"$date":{"$numberLong":"1"}}`, `{"$binary":"AAE=","$type":"00"}`, `[1,{"$numberDecimal":"1E+64"}]`, `{"b":[[1],["x"]]}`, `{"$uuid":"00112233-4455-6677-8899-aabbccddeeff"}`} {
		f.Add(v, `{"_id":`+v+`,"a":`+v+`}`, `{"updatedFields":"{}"}`, byte(0))
	}
	f.Add(`1`, `{"_id":{"$numberDouble":"1.0"}}`, ``, byte(7))
	used := newDecoder(f, Options{Identity: IdentityFull})
	f.Fuzz(func(t *testing.T, id, after, update string, mode byte) {
		r := document("u", id, after, update)
		r.Value = []byte(strings.Replace(string(r.Value), `"before":null`, `"before":`+strconv.Quote(after), 1))
		for _, o := range []Options{{}, {Documents: DocumentText, Identity: IdentityFull}} {
			d := newDecoder(t, o)
			checkDecode(t, d, r)
			if mode&1 == 1 {
				checkAllocated(t, d, r)
			}
		}
		checkDecode(t, used, r)
	})
}
