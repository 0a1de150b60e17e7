package decode

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
)

// foreignLines reads the messages of a tool.
func foreignLines(t testing.TB, tool string) [][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/foreign/" + tool + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte{'\n'}), []byte{'\n'})
}

// tell decodes a message and tells of its events, one a line.
func tell(t testing.TB, d *Decoder, r Record) string {
	t.Helper()
	var out []string
	ev, err := d.Decode(r)
	for {
		out = append(out, tellEvent(t, ev, err))
		if !d.More() {
			return strings.Join(out, "\n")
		}
		ev, err = d.Next()
	}
}

func tellEvent(t testing.TB, ev *Event, err error) string {
	t.Helper()
	if rej, ok := errors.AsType[*Rejected](err); ok {
		return rej.Reason + tellValues(t, " key", rej.KeyColumns, rej.Key)
	}
	if err != nil {
		t.Fatal(err)
	}
	if ev.Kind != Change {
		return ev.Kind.String()
	}
	s := map[string]string{"c": "create", "r": "read", "u": "update", "d": "delete"}[ev.Op.String()] + tellValues(t, "", ev.Shape.keyColumns(), ev.Key)
	if ev.Before != nil {
		s += tellValues(t, " before", ev.Shape.Columns, ev.Before)
	}
	if ev.After != nil {
		s += tellValues(t, " after", ev.Shape.Columns, ev.After)
	}
	for _, o := range ev.Placeholders {
		s += " lacks " + ev.Shape.Columns[o].Name
	}
	for _, rep := range ev.Reports {
		s += " report " + rep.Column + ":" + rep.Reason
	}
	return s
}

func tellValues(t testing.TB, what string, columns []Column, values []changelog.Value) string {
	t.Helper()
	if len(values) == 0 {
		return ""
	}
	var all []string
	for i, c := range columns {
		text := "null"
		if !values[i].Null {
			text = fmt.Sprint(form(t, c.Type, values[i]))
		}
		all = append(all, c.Name+"="+text)
	}
	return what + " {" + strings.Join(all, " ") + "}"
}

// value makes a record of a topic of a tool.
func foreignRecord(value string) Record { return Record{Topic: "shop", Value: []byte(value)} }

// TestCanal: the events of Canal's messages: several rows in one, old rows that have what differs, a row that takes another key, deletes,
// DDL and truncates.
func TestCanal(t *testing.T) {
	d := newDecoder(t, Options{Form: FormCanal})
	want := []string{
		"create {id=1} after {id=1 name=bolt price=2.50 made=2026-03-01T08:15:00.000000}\n" +
			"create {id=2} after {id=2 name=nut price=null made=null}",
		"update {id=1} before {id=1 name=bolt price=2.50 made=2026-03-01T08:15:00.000000} after {id=1 name=bolt price=3.00 made=2026-03-01T08:15:00.000000}\n" +
			"delete {id=2} before {id=2 name=nut price=null made=null}\n" +
			"create {id=3} after {id=3 name=nut price=0.10 made=null}",
		"delete {id=3} before {id=3 name=nut price=0.10 made=null}",
		"schema_change",
		"truncate",
	}
	lines := foreignLines(t, "canal")
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for range 2 {
		for i, l := range lines {
			if got := tell(t, d, Record{Topic: "shop", Value: l}); got != want[i] {
				t.Errorf("line %d:\n%s\nwant\n%s", i, got, want[i])
			}
		}
	}
	ev, err := d.Decode(Record{Topic: "shop", Value: lines[1]})
	if err != nil || ev.Native != "gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:23" || ev.Txn != "3e11fa47-71ca-11e1-9e33-c80aa9429562:23" || ev.SourceTime != 1772352901000000 ||
		ev.Database != "shop" || ev.Table != "parts" || ev.Connector != "canal" || ev.HasIdentity || ev.Shape.Columns[2].Type.String() != "decimal(10,2)" {
		t.Errorf("%v, %+v %s", err, ev, ev.Shape.Columns[2].Type)
	}
}

// checkLines decodes the messages of a tool, twice with one decoder.
func checkLines(t *testing.T, o Options, want []string) {
	t.Helper()
	d, lines := newDecoder(t, o), foreignLines(t, formNames[o.Form])
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for range 2 {
		for i, l := range lines {
			if got := tell(t, d, Record{Topic: "shop", Value: l}); got != want[i] {
				t.Errorf("line %d:\n%s\nwant\n%s", i, got, want[i])
			}
		}
	}
}

// TestMaxwell: the events of Maxwell's messages.
func TestMaxwell(t *testing.T) {
	const row = "name=bolt price=null made=2026-03-01 08:15:00}"
	checkLines(t, Options{Form: FormMaxwell}, []string{
		"create {id=1} after {id=1 name=bolt price=2.5 made=2026-03-01 08:15:00}",
		"update {id=1} before {id=1 name=bolt price=2.5 made=2026-03-01 08:15:00} after {id=1 " + row,
		"delete {id=1} before {id=1 " + row + "\ncreate {id=2} after {id=2 " + row,
		"delete {id=2} before {id=2 " + row,
		"notification",
		"read {id=7} after {id=7 name=nut price=0.1 made=null}",
		"notification",
		"schema_change",
	})
	l := foreignLines(t, "maxwell")
	d := newDecoder(t, Options{Form: FormMaxwell})
	for i, want := range []string{
		"binlog:master.000006/800911 23396 1772352900000000 true 0", "binlog:master.000006/801200 23397 1772352901000000 true 0",
		"gtid:3e11fa47-71ca-11e1-9e33-c80aa9429562:23 23398 1772352902000000 true 0", 3: "binlog:master.000006/801500 23399 1772352903000000 true 0", 5: "  1772352904000000 false 3",
	} {
		if want == "" {
			continue
		}
		ev, err := d.Decode(Record{Topic: "shop", Value: l[i]})
		if got := fmt.Sprint(ev.Native, " ", ev.Txn, " ", ev.SourceTime, " ", ev.HasIdentity, " ", uint8(ev.Snapshot)); err != nil || got != want {
			t.Errorf("line %d: %v, %s", i, err, got)
		}
	}
}

// TestMaxwellHints: with hints, dates and times are such as SQL writes them, not text; without a zone an instant is not known.
func TestMaxwellHints(t *testing.T) {
	o := Options{Form: FormMaxwell}
	for column, name := range map[string]string{"d": "IsoDate", "t": "IsoTimestamp", "h": "IsoTime", "z": "ZonedTimestamp"} {
		o.Hints = append(o.Hints, Hint{column, []byte(`{"type":"string","optional":true,"name":"io.debezium.time.` + name + `"}`)})
	}
	for _, c := range [][2]string{
		{`{"id":1,"d":"2026-03-01","t":"2026-03-01 08:15:00.25"}`, "d=2026-03-01 t=2026-03-01T08:15:00.250000 h=null z=null id=1"},
		{`{"id":1,"d":"2026-03-01T00:00:00Z","t":"2026-03-01","h":"08:15:00"}`, "d=2026-03-01 t=2026-03-01T00:00:00.000000 h=08:15:00.000000 z=null id=1"},
		{`{"id":1,"d":"0000-00-00","z":"2026-03-01 08:15:00 +02:00"}`, "d=null t=null h=null z=2026-03-01T06:15:00.000000Z id=1"},
		{`{"id":1,"d":"2026-03-01 08:15:00"}`, "temporal_format"},
		{`{"id":1,"z":"2026-03-01 08:15:00"}`, "temporal_format"},
		{`{"id":1,"t":"2026-03-01 08:15:00x"}`, "temporal_format"},
	} {
		slices.SortFunc(o.Hints, func(a, b Hint) int { return strings.Index("dthz", a.Column) - strings.Index("dthz", b.Column) })
		got := tell(t, newDecoder(t, o), foreignRecord(maxwellOf(`"type":"insert","data":`+c[0])))
		got = strings.TrimSuffix(strings.TrimPrefix(got, "create after {"), "}")
		if got, _, _ = strings.Cut(got, "} report"); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
}

// maxwellOf is a message of Maxwell.
func maxwellOf(rest string) string {
	return `{"database":"d","table":"t","ts":1772352900,` + rest + `}`
}

// TestMaxwellBad: what is wrong says why, and where no key is told, the Kafka key is one.
func TestMaxwellBad(t *testing.T) {
	const one = `"type":"insert","data":{"Id":1,"v":"x"}`
	for _, c := range [][3]string{ // Kafka key, message, what it is
		{`{"database":"d","table":"t","pk.id":1}`, one, "create {Id=1} after {Id=1 v=x}"},
		{`["d","t",[{"id":1},{"v":"x"}]]`, one, "create {Id=1 v=x} after {Id=1 v=x}"},
		{`["d","t",[]]`, one, "create after {Id=1 v=x}"},
		{`{"database":"d","table":"t","_uuid":"f79c"}`, one, "create after {Id=1 v=x}"},
		{"", one, "create after {Id=1 v=x}"},
		{`{"pk.k":1}`, one, "key_missing"},
		{`{"pk.id":1`, one, "key_decode"},
		{`["d"]`, one, "key_decode"},
		{`{"pk.id":1} {}`, one, "key_decode"},
		{`["d","t",[{"id":1}]`, one, "key_decode"},
		{`5`, one, "key_decode"},
		{`{"pk.v":1}`, `"primary_key_columns":["Id"],` + one, "create {Id=1} after {Id=1 v=x}"},
		{`{"pk.id":1}`, `"type":"update","data":{"Id":2,"v":null},"old":{"Id":1,"w":5}`, "delete {Id=1}\ncreate {Id=2} after {Id=2}"},
		{`{"pk.id":1}`, `"type":"delete","data":{"v":"x"}`, "key_missing"},
		{"", `"type":"insert","data":"c2VjcmV0"`, "envelope_shape"},
		{"", `"type":"insert","data":{}`, "no_image"},
		{"", `"type":"insert"`, "no_image"},
		{"", `"type":"update","data":{"a":1},"old":[]`, "envelope_shape"},
		{"", `"type":"merge","data":{"a":1}`, "op_unknown"},
		{"", `"data":{"a":1}`, "op_missing"},
		{"", `"type":"insert","data":{"a":null}`, "no_image"},
		{"", `"type":"database-create"`, "schema_change"},
	} {
		r := foreignRecord(maxwellOf(c[1]))
		if c[0] != "" {
			r.Key = []byte(c[0])
		}
		if got := tell(t, newDecoder(t, Options{Form: FormMaxwell}), r); got != c[2] {
			t.Errorf("%s %s:\n%s\nwant\n%s", c[0], c[1], got, c[2])
		}
	}
}

// TestOGG: the events of GoldenGate's messages. What an update does not hold comes from the old row, or was not sent.
func TestOGG(t *testing.T) {
	d := newDecoder(t, Options{Form: FormOGG})
	table, err := changelog.NewSchema([]changelog.Column{
		{Name: "ID", Type: changelog.Primitive(changelog.Long)},
		{Name: "NAME", Type: changelog.Primitive(changelog.String)},
		{Name: "PRICE", Type: changelog.DecimalOf(10, 2)},
		{Name: "MADE", Type: changelog.Primitive(changelog.Timestamp)},
	}, []string{"ID"})
	if err != nil {
		t.Fatal(err)
	}
	d.SetTable(table)
	const made = "MADE=2026-03-01T08:15:00.000000}"
	want := []string{
		"create {ID=1} after {ID=1 NAME=bolt PRICE=2.50 " + made,
		"update {ID=1} before {ID=1 NAME=bolt PRICE=2.50 " + made + " after {ID=1 NAME=bolt PRICE=3.00 " + made,
		"update {ID=1} after {ID=1 NAME=null PRICE=null MADE=null} lacks NAME lacks MADE",
		"delete {ID=1} before {ID=1 NAME=bolt PRICE=null " + made + "\ncreate {ID=2} after {ID=2 NAME=bolt PRICE=null " + made,
		"delete {ID=2} before {ID=2 NAME=bolt PRICE=null " + made,
		"truncate",
	}
	for range 2 {
		for i, l := range foreignLines(t, "ogg") {
			if got := tell(t, d, Record{Topic: "shop", Value: l}); got != want[i] {
				t.Errorf("line %d:\n%s\nwant\n%s", i, got, want[i])
			}
		}
	}
	ev, err := d.Decode(Record{Topic: "shop", Value: foreignLines(t, "ogg")[1]})
	if err != nil || ev.Native != "ogg:00000000000000001673" || ev.SourceTime != 0 || !ev.HasIdentity || ev.Schema != "SHOP" || ev.Table != "PARTS" {
		t.Errorf("%v, %+v", err, ev)
	}
	for _, c := range [][2]string{
		{`"op_type":"U","before":{"ID":1,"NAME":"x"},"after":{"ID":2,"NAME":"x"}`, "delete {ID=1}\nno_image key {ID=2}"},
		{`"op_type":"I","after":{"ID":1,"NAME":"x"}`, "create {ID=1} after {ID=1 NAME=x PRICE=null MADE=null}"},
		{`"op_type":"I","before":{"ID":9,"NAME":"y"},"after":{"ID":1}`, "create {ID=1} after {ID=1 NAME=null PRICE=null MADE=null}"},
		{`"op_type":"U","after":{"ID":1,"PRICE":1}`, "update {ID=1} after {ID=1 NAME=null PRICE=1.00 MADE=null} lacks NAME lacks MADE"},
		{`"op_type":"D","before":{"ID":1}`, "delete {ID=1}"},
		{`"op_type":"D","before":{"ID":1},"after":{"ID":1}`, "images_contradict"},
		{`"op_type":"D"`, "no_image"},
		{`"op_type":"U","before":{"ID":1}`, "no_image"},
		{`"op_type":"I","after":[]`, "envelope_shape"},
		{`"op_type":"X"`, "op_unknown"},
		{`"pos":"1"`, "op_missing"},
		{`"op_type":"I","after":{"ID":1,"MADE":"soon"}`, "temporal_format key {ID=1}"},
		{`"op_type":"I","after":{"NAME":"x"}`, "key_null"},
	} {
		if got := tell(t, d, foreignRecord(`{"table":"C.SHOP.PARTS","primary_keys":["ID"],`+c[0]+`}`)); got != c[1] {
			t.Errorf("%s:\n%s\nwant\n%s", c[0], got, c[1])
		}
	}
	if ev, err := d.Decode(foreignRecord(`{"table":"C.SHOP.PARTS","op_type":"I","op_ts":"2026-03-01T08:15:00+01:00","xid":"0.5.7","primary_keys":["ID"],"after":{"ID":1}}`)); err != nil ||
		ev.Database != "C" || ev.Schema != "SHOP" || ev.SourceTime != 1772349300000000 || ev.Txn != "0.5.7" || ev.HasIdentity || ev.Native != "" {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestOGGNew: without a table, columns come from both images.
func TestOGGNew(t *testing.T) {
	got := tell(t, newDecoder(t, Options{Form: FormOGG}), foreignRecord(`{"op_type":"U","primary_keys":["ID"],"before":{"ID":1,"A":"x","B":2},"after":{"B":3}}`))
	if want := "update {ID=1} before {B=2 ID=1 A=x} after {B=3 ID=1 A=x}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDMS: the events of DMS' messages, which say no key; before images are trusted only if the route says that they are whole.
func TestDMS(t *testing.T) {
	o := Options{Form: FormDMS, KeyColumns: []string{"id"}}
	checkLines(t, o, []string{
		"schema_change",
		"read {id=1} after {id=1 name=bolt price=2.5}",
		"create {id=2} after {id=2 name=nut price=0.1}",
		"update {id=2} after {id=2 name=nut}",
		"delete {id=2}\ncreate {id=3} after {id=3 name=nut price=0.2}",
		"delete {id=3}",
	})
	l := foreignLines(t, "dms")
	ev, err := newDecoder(t, o).Decode(Record{Topic: "shop", Value: l[2]})
	if err != nil || ev.Native != "dms:00000002/7C007178.3.00000002/7C007178" || ev.Txn != "1139" || ev.SourceTime != 1772352901974340 || !ev.HasIdentity || ev.Schema != "shop" || ev.Table != "parts" {
		t.Errorf("%v, %+v", err, ev)
	}
	if ev, err := newDecoder(t, o).Decode(Record{Topic: "shop", Value: l[1]}); err != nil || ev.Snapshot != SnapshotRow || ev.HasIdentity || ev.SourceTime != 0 {
		t.Errorf("%v, %+v", err, ev)
	}
	for what, value := range map[string][]byte{
		"a loaded row":                   bytes.Replace(l[2], []byte(`"insert"`), []byte(`"load"`), 1),
		"no place in the transaction":    bytes.Replace(l[2], []byte(`"transaction-record-id":1,`), nil, 1),
		"no transaction":                 bytes.Replace(l[2], []byte(`"transaction-id":1139,`), nil, 1),
		"a position that is not telling": bytes.Replace(l[2], []byte(`"stream-position":"00000002/7C007178.3.00000002/7C007178"`), []byte(`"x":1`), 1),
	} {
		if ev, err := newDecoder(t, o).Decode(Record{Topic: "shop", Value: value}); err != nil || ev.HasIdentity {
			t.Errorf("%s: %v, %+v", what, err, ev)
		}
	}
	mysql := o
	mysql.Connector = "mysql"
	if got := tell(t, newDecoder(t, mysql), Record{Topic: "shop", Value: l[4]}); strings.Contains(got, "before") {
		t.Errorf("an image that may be the key's alone is trusted: %s", got)
	}
	const meta = `"metadata":{"record-type":"data","table-name":"t","operation":`
	for _, c := range [][2]string{
		{`{"data":{"id":1,"v":"b"},"before-image":{"v":"a"},` + meta + `"update"}}`, "update {id=1} before {id=1 v=a} after {id=1 v=b}"},
		{`{"data":{"id":1,"v":"b"},` + meta + `"update"}}`, "update {id=1} after {id=1 v=b}"},
		{`{"data":{"id":1},` + meta + `"delete"}}`, "delete {id=1} before {id=1}"},
		{`{"data":{"v":"b"},` + meta + `"insert"}}`, "key_missing"},
		{`{` + meta + `"insert"}}`, "no_image"},
		{`{"data":{"id":1},` + meta + `"upsert"}}`, "op_unknown"},
		{`{"data":{"id":1},"metadata":{"record-type":"data"}}`, "op_missing"},
		{`{"data":{"id":1},"metadata":{"operation":"insert"}}`, "envelope_shape"},
		{`{"data":{"id":1},"metadata":[]}`, "envelope_shape"},
		{`{"data":{"id":1}}`, "envelope_shape"},
		{`{"control":{},"metadata":{"record-type":"control","operation":"truncate-table"}}`, "truncate"},
		{`{"control":{},"metadata":{"record-type":"control","operation":"add-column"}}`, "schema_change"},
	} {
		if got := tell(t, newDecoder(t, Options{Form: FormDMS, KeyColumns: []string{"id"}, Identity: IdentityFull}), foreignRecord(c[0])); got != c[1] {
			t.Errorf("%s:\n%s\nwant\n%s", c[0], got, c[1])
		}
	}
}

// TestForeignIdentity: what a tool sends again has the identity that it had; what is another event has another one.
func TestForeignIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		o     Options
		other []string // replaced by
	}{
		"maxwell": {Options{Form: FormMaxwell}, []string{`"xid":23396`, `"xid":1`, `"xoffset":0`, `"xoffset":1`, `"server_id":23042`, `"server_id":1`, `2.5`, `2.6`, `"table":"parts"`, `"table":"x"`, `"ts":1772352900`, `"ts":1`}},
		"ogg":     {Options{Form: FormOGG}, []string{`1444`, `1445`, `2.50`, `2.51`, `SHOP.PARTS`, `SHOP.P`, `"op_type":"I"`, `"op_type":"U"`}},
		"dms":     {Options{Form: FormDMS, KeyColumns: []string{"id"}}, []string{`7C007178.3`, `7C007178.4`, `"transaction-id":1139`, `"transaction-id":1`, `"transaction-record-id":1`, `"transaction-record-id":2`, `0.1`, `0.2`}},
	} {
		line := foreignLines(t, name)[map[string]int{"dms": 2}[name]]
		d := newDecoder(t, c.o)
		id := func(value []byte) [16]byte {
			ev, err := d.Decode(Record{Topic: "t", Value: value})
			if err != nil || !ev.HasIdentity {
				t.Fatalf("%s: %v, %+v", value, err, ev)
			}
			return ev.Identity
		}
		first := id(line)
		if id(line) != first || id(bytes.Replace(line, []byte(`"current_ts":"2026`), []byte(`"current_ts":"2027`), 1)) != first {
			t.Errorf("%s: not the same again", name)
		}
		for i := 0; i < len(c.other); i += 2 {
			if changed := bytes.Replace(line, []byte(c.other[i]), []byte(c.other[i+1]), 1); bytes.Equal(changed, line) || id(changed) == first {
				t.Errorf("%s: the same with %s", name, c.other[i+1])
			}
		}
	}
	// The halves of a row that takes another key are two events.
	d := newDecoder(t, Options{Form: FormMaxwell})
	ev, _ := d.Decode(Record{Topic: "t", Value: foreignLines(t, "maxwell")[2]})
	first := ev.Identity
	if next, err := d.Next(); err != nil || !next.HasIdentity || next.Identity == first {
		t.Errorf("%v, %+v", err, next)
	}
	// A row of a transaction without its place in it may be any of them.
	if ev, err := d.Decode(foreignRecord(maxwellOf(`"type":"insert","xid":5,"data":{"a":1}`))); err != nil || ev.HasIdentity {
		t.Errorf("%v, %+v", err, ev)
	}
}

// canalOf is a message of one column v beside the key.
func canalOf(typ, v string) Record {
	return foreignRecord(`{"data":[{"id":"1","v":` + v + `}],"isDdl":false,"mysqlType":{"id":"int","v":"` + typ + `"},"pkNames":["id"],"type":"INSERT"}`)
}

// TestCanalTypes: values by the type of their column.
func TestCanalTypes(t *testing.T) {
	for _, c := range [][4]string{ // type, value, type in the table, value in the table or reason
		{"tinyint(1)", `"1"`, "int", "1"},
		{"INT UNSIGNED", `"4294967295"`, "long", "4294967295"},
		{"int", `"2147483648"`, "", "int_range"},
		{"int", `"12a"`, "", "type_mismatch"},
		{"int", `""`, "", "type_mismatch"},
		{"int", `"null"`, "", "type_mismatch"},
		{"int", `" 1"`, "", "type_mismatch"},
		{"int", `7`, "int", "7"},
		{"int", `[7]`, "", "type_mismatch"},
		{"bigint(20)", `"-9223372036854775808"`, "long", "-9223372036854775808"},
		{"bigint(20) unsigned", `"18446744073709551615"`, "decimal(20,0)", "18446744073709551615"},
		{"float", `"1.5E10"`, "float", "1.5e+10"},
		{"double", `"-0.25"`, "double", "-0.25"},
		{"NUMERIC(8,3)", `"99999.999"`, "decimal(8,3)", "99999.999"},
		{"decimal", `"12.34"`, "string", "12.34"},
		{"decimal(65,2)", `"12.34"`, "string", "12.34"},
		{"bit(1)", `"1"`, "boolean", "true"},
		{"bit(1)", `"2"`, "", "type_mismatch"},
		{"bit(8)", `"129"`, "long", "129"},
		{"date", `"2026-02-28"`, "date", "2026-02-28"},
		{"date", `"2026-02-30"`, "", "temporal_format"},
		{"date", `"0000-00-00"`, "date", "null report v:temporal_range"},
		{"datetime(6)", `"2026-02-28 23:59:59.123456"`, "timestamp", "2026-02-28T23:59:59.123456"},
		{"timestamp", `"2026-02-28 23:59:59"`, "timestamp", "2026-02-28T23:59:59.000000"},
		{"datetime", `"2026-02-28 24:00:00"`, "", "temporal_format"},
		{"datetime", `"soon"`, "", "temporal_format"},
		{"time", `"-838:59:59.5"`, "long", "-3020399500000"},
		{"time", `"08:15:00"`, "long", "29700000000"},
		{"time", `"8:15"`, "", "temporal_format"},
		{"year(4)", `"2026"`, "int", "2026"},
		{"varchar(8)", `"x"`, "string", "x"},
		{"varchar(8)", `"__debezium_unavailable_value"`, "string", "__debezium_unavailable_value"},
		{"varchar(8)", `5`, "", "type_mismatch"},
		{"json", `"{\"a\": 1}"`, "string", `{"a": 1}`},
		{"varbinary(4)", `"a\u00ff\u0000"`, "binary", "61ff00"},
		{"blob", `"\u0100"`, "", "type_mismatch"},
		{"enum('a','it''s')", `"2"`, "string", "it's"},
		{"enum('a','b')", `"0"`, "string", ""},
		{"enum('a','b')", `"3"`, "string", "3"},
		{"enum('2','b')", `"2"`, "string", "2"},
		{"enum", `"b"`, "string", "b"},
		{"set('a','b','c')", `"5"`, "string", "a,c"},
		{"set('a','b','c')", `"8"`, "string", "8"},
		{"vector(3)", `"x"`, "string", "x"},
	} {
		d := newDecoder(t, Options{Form: FormCanal})
		got := tell(t, d, canalOf(c[0], c[1]))
		want := "create {id=1} after {id=1 v=" + c[3] + "}"
		if name, report, ok := strings.Cut(c[3], " report "); ok {
			want = "create {id=1} after {id=1 v=" + name + "} report " + report
		}
		if c[2] == "" {
			want = c[3] + " key {id=1}"
		}
		if got != want {
			t.Errorf("%s %s: %s, want %s", c[0], c[1], got, want)
			continue
		}
		if c[2] == "" {
			continue
		}
		if ev, err := d.Decode(canalOf(c[0], c[1])); err != nil || ev.Shape.Columns[1].Type.String() != c[2] {
			t.Errorf("%s %s is a %s", c[0], c[1], ev.Shape.Columns[1].Type)
		}
	}
	// By JDBC's types, where the columns' own are not known; and by the values alone.
	for types, want := range map[string]string{
		`"sqlType":{"id":4,"v":8}`:                     "create {id=1} after {id=1 v=1.5}",
		`"mysqlType":null,"sqlType":{"id":-5,"v":12}`:  "create {id=1} after {id=1 v=1.5}",
		`"mysqlType":{"id":null,"v":"double"}`:         "create {id=1} after {id=1 v=1.5}",
		`"ts":1`:                                       "create {id=1} after {id=1 v=1.5}",
		`"mysqlType":{"id":{},"v":"double"}`:           "schema_invalid",
		`"mysqlType":[]`:                               "schema_invalid",
		`"mysqlType":{}`:                               "schema_invalid",
		`"sqlType":{"id":4,"v":8.5}`:                   "schema_invalid",
		`"mysqlType":{"id":"int"}`:                     "schema_payload_mismatch key {id=1}",
		`"mysqlType":{"id":"int","v":"int","w":"int"}`: "type_mismatch key {id=1}",
	} {
		if got := tell(t, newDecoder(t, Options{Form: FormCanal}), foreignRecord(`{"data":[{"id":"1","v":"1.5"}],"isDdl":false,`+types+`,"pkNames":["id"],"type":"INSERT"}`)); got != want {
			t.Errorf("%s: %s", types, got)
		}
	}
}

// TestCanalBad: what is wrong with a row does not keep the others from being read; what is wrong with a message does.
func TestCanalBad(t *testing.T) {
	const types = `"mysqlType":{"id":"int","v":"int"},`
	for _, c := range [][2]string{
		{
			`{"data":[{"id":"1","v":"x"},{"id":"2","v":"2"},{"id":null,"v":"2"},{"v":"2"},{"id":"y"}],` + types + `"pkNames":["id"],"type":"INSERT"}`,
			"type_mismatch key {id=1}\ncreate {id=2} after {id=2 v=2}\nkey_null\nkey_null\ntype_mismatch",
		},
		{
			`{"data":[{"id":"1","v":"x"},{"id":"3","v":"3"}],"old":[{"id":"0"},{"id":"2","v":"x"}],` + types + `"pkNames":["id"],"type":"UPDATE"}`,
			"delete {id=0}\ntype_mismatch key {id=1}\ndelete {id=2}\ncreate {id=3} after {id=3 v=3}",
		},
		{`{"data":[{"id":"1","v":"1"}],"old":[{"id":null}],` + types + `"pkNames":["id"],"type":"UPDATE"}`, "key_null\ncreate {id=1} after {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],"old":[{"id":"1"}],` + types + `"pkNames":["id"],"type":"UPDATE"}`, "update {id=1} before {id=1 v=1} after {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],"old":[null],` + types + `"pkNames":["id"],"type":"UPDATE"}`, "update {id=1} after {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":["id"],"type":"UPDATE"}`, "update {id=1} after {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":null,"type":"INSERT"}`, "create after {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":[],"type":"DELETE"}`, "delete before {id=1 v=1}"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":["k"],"type":"INSERT"}`, "key_missing"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":["id","id"],"type":"INSERT"}`, "key_decode"},
		{`{"data":[{"id":"1","v":"1"}],` + types + `"pkNames":"id","type":"INSERT"}`, "envelope_shape"},
		{`{"data":[{"id":"1"},{}],` + types + `"pkNames":["id"],"type":"INSERT"}`, "no_image"},
		{`{"data":[{"id":"1"},null],` + types + `"pkNames":["id"],"type":"INSERT"}`, "no_image"},
		{`{"data":[{"id":"1"},5],` + types + `"pkNames":["id"],"type":"INSERT"}`, "envelope_shape"},
		{`{"data":{"id":"1"},` + types + `"pkNames":["id"],"type":"INSERT"}`, "envelope_shape"},
		{`{"data":[],` + types + `"pkNames":["id"],"type":"INSERT"}`, "no_image"},
		{`{"data":null,"isDdl":false,"type":"UPDATE","sql":"update t set v=1"}`, "no_image"},
		{`{"data":[{"id":"1"},{"id":"2"}],"old":[{"v":"1"}],` + types + `"pkNames":["id"],"type":"UPDATE"}`, "images_contradict"},
		{`{"data":[{"id":"1"}],` + types + `"pkNames":["id"]}`, "op_missing"},
		{`{"data":[{"id":"1"}],` + types + `"pkNames":["id"],"type":"MERGE"}`, "op_unknown"},
		{`{"data":[{"id":"1"}],"data":[],"type":"INSERT"}`, "json_duplicate_key"},
		{`{"data":[{"id":"1","id":"2"}],"type":"INSERT"}`, "json_duplicate_key"},
		{`{"data":[{"id":"1"}],"type":"INSERT"} {}`, "json_trailing"},
		{`{"data":[{"id":"1"}],"type":"INSERT"`, "json_syntax"},
		{`[]`, "envelope_shape"},
		{`null`, "null_literal"},
		{`{"type":"XACOMMIT"}`, "transaction"},
		{`{"isDdl":false,"type":"TIDB_WATERMARK"}`, "heartbeat"},
		{`{"isDdl":true,"type":"QUERY"}`, "schema_change"},
	} {
		if got := tell(t, newDecoder(t, Options{Form: FormCanal}), foreignRecord(c[0])); got != c[1] {
			t.Errorf("%s:\n%s\nwant\n%s", c[0], got, c[1])
		}
	}
	ev, err := newDecoder(t, Options{Form: FormCanal}).Decode(Record{Topic: "t"})
	if err != nil || ev.Kind != TombstoneWithoutKey {
		t.Errorf("a null value: %v, %+v", err, ev)
	}
	if _, err := newDecoder(t, Options{Form: FormCanal, SourceTable: "shop.other"}).Decode(Record{Topic: "t", Value: foreignLines(t, "canal")[0]}); reasonOf(err) != ReasonSourceMismatch {
		t.Errorf("another table: %v", err)
	}
}

// TestCanalKeys: the route's key counts more than the message's, also where a row takes another one; without a key rows have none.
func TestCanalKeys(t *testing.T) {
	l := foreignLines(t, "canal")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{KeyColumns: []string{"name"}}, "update {name=bolt} update {name=nut}"},
		{Options{KeyColumns: []string{"price", "id"}}, "delete {price=2.50 id=1} create {price=3.00 id=1} key_null create {price=0.10 id=3}"},
		{Options{NoKey: true}, "update update"},
		{Options{Identity: IdentityDefault}, "update {id=1} delete {id=2} create {id=3}"},
	} {
		c.o.Form = FormCanal
		var got []string
		for s := range strings.SplitSeq(tell(t, newDecoder(t, c.o), Record{Topic: "shop", Value: l[1]}), "\n") {
			s, _, _ = strings.Cut(s, " after")
			if c.o.Identity == IdentityDefault && strings.Contains(s, "before") {
				t.Errorf("an old row that is not trusted: %s", s)
			}
			s, _, _ = strings.Cut(s, " before")
			got = append(got, s)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v: %s, want %s", c.o.KeyColumns, s, c.want)
		}
	}
}

// TestForeignParts: each event of a message, as it is parked alone, reads as it did among the others.
func TestForeignParts(t *testing.T) {
	bad := `{"type":"UPDATE","x":{"data":[1]},"data":[{"id":"1","v":"x"},{"v":"3","id":"3"}],"old":[{"id":"0"},null],"mysqlType":{"id":"int","v":"int"},"pkNames":["id"],"z":1}`
	type message struct {
		form  Form
		value []byte
	}
	all := []message{{FormCanal, []byte(bad)}}
	for form := FormCanal; form <= FormDMS; form++ {
		for _, l := range foreignLines(t, formNames[form]) {
			all = append(all, message{form, l})
		}
	}
	for _, m := range all {
		l, o := m.value, Options{Form: m.form}
		if m.form == FormDMS {
			o.KeyColumns = []string{"id"}
		}
		d := newDecoder(t, o)
		ev, err := d.Decode(Record{Topic: "shop", Value: l})
		for {
			whole := tellEvent(t, ev, err)
			if d.Several() {
				one := newDecoder(t, o)
				if got := tell(t, one, Record{Topic: "shop", Value: d.Part()}); got != whole || one.Several() {
					t.Errorf("%s\nbecomes\n%s\n%s, was %s", l, d.Part(), got, whole)
				}
			}
			if !d.More() {
				break
			}
			ev, err = d.Next()
		}
	}
}

// TestForeignOptions: settings that say nothing of such messages are refused.
func TestForeignOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"JSON without a schema":         {Form: FormCanal, Format: FormatSchema},
		"messages of canal are JSON":    {Form: FormCanal, Format: FormatConfluentAvro},
		"envelopes of other tools only": {KeyColumns: []string{"id"}},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
