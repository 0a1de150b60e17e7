package decode

import (
	"slices"
	"strings"
	"testing"

	"firn/changelog"
)

// TestFlattened: the samples of every way of deletes (1.13).
func TestFlattened(t *testing.T) {
	rewrite := map[string]string{
		"__op": "op", "__table": "source.table", "__lsn": "source.lsn", "__source_ts_ms": "source.ts_ms", "__deleted": "deleted",
	}
	modes := map[string]Options{
		"tombstone": {Form: FormFlattened}, "delete-to-tombstone": {Form: FormFlattened},
		"rewrite":                {Form: FormFlattened, Deletes: DeletesRewrite, Metadata: rewrite},
		"rewrite-with-tombstone": {Form: FormFlattened, Deletes: DeletesRewrite, Metadata: rewrite},
	}
	want := []struct {
		op      changelog.Op // 0: a tombstone
		columns string
	}{
		{changelog.OpCreate, "id name amt"},
		{changelog.OpDelete, ""},
		{changelog.OpDelete, ""},
		{changelog.OpDelete, ""},
		{changelog.OpUpdate, "id name amt"},
		{changelog.OpDelete, ""},
		{changelog.OpDelete, ""},
		{0, ""},
		{changelog.OpCreate, "id name amt"},
		{changelog.OpCreate, "id name op before"},
	}
	lines := readLines(t, samples+"flattened.jsonl")
	if len(lines) != len(want) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, l := range lines {
		o := modes[l.Mode]
		o.Connector = "postgresql"
		d := newDecoder(t, o)
		for range 2 {
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
			var names []string
			for _, c := range ev.Shape.Columns {
				names = append(names, c.Name)
			}
			if ev.Kind != Change || ev.Op != want[i].op || len(ev.Key) != 1 || (ev.After == nil) != (want[i].op == changelog.OpDelete) || ev.Before != nil {
				t.Errorf("line %d: %+v", i, ev)
			}
			if ev.After != nil && strings.Join(names, " ") != want[i].columns {
				t.Errorf("line %d: columns %q", i, names)
			}
			if l.Mode == "rewrite" && i < 6 && (ev.Native != "lsn:0/16E9058" || ev.SourceTime == 0 || ev.Table != "customers" || !ev.HasIdentity) {
				t.Errorf("line %d: position %q, time %d, table %q, identity %t", i, ev.Native, ev.SourceTime, ev.Table, ev.HasIdentity)
			}
		}
	}
}

// flat decodes a value of a flattened topic with a key.
func flat(t *testing.T, o Options, value string) (*Event, error) {
	t.Helper()
	o.Form = FormFlattened
	r := Record{Topic: "s.public.t", Key: []byte(`{"id":1}`), Value: []byte(value)}
	if value == "" {
		r.Value = nil
	}
	return newDecoder(t, o).Decode(r)
}

// TestFlattenedNulls: what says that a row is gone says so in that mode only; elsewhere it says nothing, and loses nothing.
func TestFlattenedNulls(t *testing.T) {
	wrapped := `{"schema":{"type":"struct","optional":true,"fields":[{"type":"int64","optional":false,"field":"id"}]},"payload":null}`
	for _, value := range []string{"", "null", " null ", wrapped} {
		for deletes, kind := range map[Deletes]Kind{DeletesNull: Change, DeletesRewrite: Tombstone, DeletesDrop: Tombstone} {
			ev, err := flat(t, Options{Deletes: deletes}, value)
			if err != nil || ev.Kind != kind || kind == Change && (ev.Op != changelog.OpDelete || len(ev.Key) != 1 || ev.After != nil) {
				t.Errorf("%q, %d: %v, %+v", value, deletes, err, ev)
			}
		}
		o := Options{Form: FormPlain, NoKey: true}
		r := Record{Topic: "t", Value: []byte(value)}
		if value == "" {
			r.Value = nil
		}
		ev, err := newDecoder(t, o).Decode(r)
		if err != nil || ev.Kind != Tombstone {
			t.Errorf("plain %q: %v, %+v", value, err, ev)
		}
	}
	ev, err := newDecoder(t, Options{Form: FormFlattened}).Decode(Record{Topic: "s.public.t"})
	if err != nil || ev.Kind != TombstoneWithoutKey {
		t.Errorf("neither key nor value: %v, %+v", err, ev)
	}
	if _, err := newDecoder(t, Options{Form: FormFlattened}).Decode(Record{Topic: "s.public.t", Value: []byte("null")}); reasonOf(err) != ReasonKeyMissing {
		t.Errorf("a delete of no key: %v", err)
	}
}

// TestFlattenedRows: metadata are no columns, whatever they are called, and other members are, whatever they are called.
func TestFlattenedRows(t *testing.T) {
	metadata := map[string]string{
		"__op": "op", "gone": "deleted", "__ts_ms": "ts_ms", "__source_snapshot": "source.snapshot", "__tx": "transaction.id", "__version": "source.version",
	}
	for name, c := range map[string]struct {
		value, reason string
		op            changelog.Op
		columns       string
	}{
		"a read":             {`{"id":1,"v":"x","__op":"r","__ts_ms":5,"__source_snapshot":"first","__version":"3"}`, "", changelog.OpRead, "id v"},
		"metadata before":    {`{"__op":"u","gone":"false","id":1,"v":"x"}`, "", changelog.OpUpdate, "id v"},
		"metadata between":   {`{"id":1,"__op":"c","v":"x","__tx":"5:7"}`, "", changelog.OpCreate, "id v"},
		"a boolean mark":     {`{"id":1,"v":"x","gone":true}`, "", changelog.OpDelete, ""},
		"the operation only": {`{"id":1,"v":null,"__op":"d"}`, "", changelog.OpDelete, ""},
		"no metadata":        {`{"id":1,"__table":"t","op":"x"}`, "", changelog.OpCreate, "id __table op"},
		"null metadata":      {`{"id":1,"v":"x","__op":null,"gone":null,"__tx":null}`, "", changelog.OpCreate, "id v"},
		"no such operation":  {`{"id":1,"__op":"z"}`, ReasonOpUnknown, 0, ""},
		"a truncate":         {`{"id":1,"__op":"t"}`, ReasonOpUnknown, 0, ""},
		"no mark":            {`{"id":1,"gone":"maybe"}`, ReasonEnvelopeShape, 0, ""},
		"twice":              {`{"id":1,"__op":"c","__op":"d"}`, ReasonJSONDuplicateKey, 0, ""},
		"no snapshot":        {`{"id":1,"__source_snapshot":"maybe"}`, ReasonSourceInvalid, 0, ""},
		"another key":        {`{"id":2}`, ReasonKeyMismatch, 0, ""},
		"a delete's row":     {`{"id":2,"gone":"true"}`, "", changelog.OpDelete, ""}, // only its key is trusted
		"an array":           {`[1]`, ReasonEnvelopeShape, 0, ""},
		"more behind it":     {`{"id":1} {}`, ReasonJSONTrailing, 0, ""},
		"cut short":          {`{"id":1,"__op":"c"`, ReasonJSONSyntax, 0, ""},
	} {
		ev, err := flat(t, Options{Deletes: DeletesRewrite, Metadata: metadata}, c.value)
		if c.reason != "" {
			if reasonOf(err) != c.reason {
				t.Errorf("%s: %v, want %s", name, err, c.reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var names []string
		for _, col := range ev.Shape.Columns {
			names = append(names, col.Name)
		}
		if ev.Op != c.op || c.columns != "" && (strings.Join(names, " ") != c.columns || ev.After[0].I != 1) || len(ev.Reports) != 0 {
			t.Errorf("%s: %+v, columns %q", name, ev, names)
		}
		if name == "a read" && ev.Snapshot != SnapshotFirst {
			t.Errorf("%s: snapshot %v", name, ev.Snapshot)
		}
	}
}

// TestPlain: each row of a plain topic is one to add, with a key or without, whatever its members are called.
func TestPlain(t *testing.T) {
	for _, key := range []string{"", `{"id":1}`} {
		r := Record{Topic: "readings", Value: []byte(`{"id":1,"op":"d","before":null,"__deleted":"true","at":{"x":1.5}}`)}
		if key != "" {
			r.Key = []byte(key)
		}
		ev, err := newDecoder(t, Options{Form: FormPlain}).Decode(r)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range ev.Shape.Columns {
			names = append(names, c.Name+" "+c.Type.Kind.String())
		}
		if ev.Op != changelog.OpCreate || strings.Join(names, ", ") != "id long, op string, __deleted string, at struct" || (len(ev.Key) == 1) != (key != "") || ev.HasIdentity {
			t.Errorf("key %q: %+v, %q", key, ev, names)
		}
	}
}

// TestFlattenedHeaders: metadata may be in headers; what the row has counts more.
func TestFlattenedHeaders(t *testing.T) {
	o := Options{Form: FormFlattened, Metadata: map[string]string{"__op": "op", "__lsn": "source.lsn", "__gone": "deleted"}, Connector: "postgresql"}
	header := func(key, value string) changelog.Header { return changelog.Header{Key: key, Value: []byte(value)} }
	for name, c := range map[string]struct {
		value          string
		headers        []changelog.Header
		op             changelog.Op
		native, reason string
	}{
		"in headers":     {`{"id":1}`, []changelog.Header{header("__op", "u"), header("__lsn", "24023128"), header("other", "\xff")}, changelog.OpUpdate, "lsn:0/16E9058", ""},
		"quoted":         {`{"id":1}`, []changelog.Header{header("__op", `"r"`)}, changelog.OpRead, "", ""},
		"the row's":      {`{"id":1,"__op":"c","__lsn":1}`, []changelog.Header{header("__op", "u"), header("__lsn", "2")}, changelog.OpCreate, "lsn:0/1", ""},
		"a delete":       {`{"id":1}`, []changelog.Header{header("__gone", "true")}, changelog.OpDelete, "", ""},
		"no operation":   {`{"id":1}`, []changelog.Header{header("__op", "what")}, 0, "", ReasonOpUnknown},
		"no escape":      {`{"id":1}`, []changelog.Header{header("__lsn", `"\q"`)}, changelog.OpCreate, "", ""},
		"not text":       {`{"id":1}`, []changelog.Header{header("__op", "\xff")}, changelog.OpCreate, "", ""},
		"not configured": {`{"id":1}`, []changelog.Header{header("__deleted", "true")}, changelog.OpCreate, "", ""},
	} {
		ev, err := newDecoder(t, o).Decode(Record{Topic: "s.public.t", Key: []byte(`{"id":1}`), Value: []byte(c.value), Headers: c.headers})
		if c.reason != "" {
			if reasonOf(err) != c.reason {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || ev.Op != c.op || ev.Native != c.native {
			t.Errorf("%s: %v, %+v", name, err, ev)
		}
	}
}

// schemaRow is a message with a schema of id and the given fields.
func schemaRow(fields, payload string) []byte {
	return []byte(`{"schema":{"type":"struct","optional":false,"fields":[{"type":"int64","optional":false,"field":"id"},` + fields + `]},"payload":` + payload + `}`)
}

// TestFlattenedDeletes: of the row of a delete only its key counts: not values that no column takes, not reports, not a row of before.
func TestFlattenedDeletes(t *testing.T) {
	o := Options{Form: FormFlattened, Deletes: DeletesRewrite, Metadata: map[string]string{"gone": "deleted"}}
	gone := `{"type":"string","optional":false,"field":"gone"}`
	for name, value := range map[string]string{
		"a value of another type": string(schemaRow(`{"type":"int32","optional":true,"field":"n"},`+gone, `{"id":1,"n":"x","gone":"true"}`)),
		"a value to report":       string(schemaRow(`{"type":"int32","optional":true,"name":"io.debezium.time.Time","field":"n"},`+gone, `{"id":1,"n":-5,"gone":"true"}`)),
		"a placeholder":           string(schemaRow(`{"type":"string","optional":true,"field":"n"},`+gone, `{"id":1,"n":"__debezium_unavailable_value","gone":"true"}`)),
		"a whole row":             string(schemaRow(`{"type":"string","optional":true,"field":"n"},`+gone, `{"id":1,"n":"x","gone":"true"}`)),
	} {
		for _, connector := range []string{"postgresql", "mysql"} {
			o.Connector, o.Identity = connector, IdentityFull
			ev, err := newDecoder(t, o).Decode(Record{Topic: "s.public.t", Key: []byte(`{"id":1}`), Value: []byte(value)})
			if err != nil || ev.Op != changelog.OpDelete || ev.Before != nil || ev.After != nil || len(ev.Reports)+len(ev.Placeholders) != 0 || len(ev.Key) != 1 {
				t.Errorf("%s, %s: %v, %+v", name, connector, err, ev)
			}
		}
	}
	// A mark that the schema demands and the row lacks says nothing.
	if ev, err := newDecoder(t, o).Decode(Record{Topic: "s.public.t", Key: []byte(`{"id":1}`), Value: schemaRow(gone, `{"id":1}`)}); err != nil || ev.Op != changelog.OpCreate {
		t.Errorf("without a mark: %v, %+v", err, ev)
	}
}

// TestFlattenedKeys: a delete that comes before any row is read by its key alone, whatever types the table has made of it; a key's column
// may be called as metadata are.
func TestFlattenedKeys(t *testing.T) {
	table, err := changelog.NewSchema([]changelog.Column{{Name: "u", Type: changelog.Primitive(changelog.String)}, {Name: "v", Type: changelog.Primitive(changelog.Long)}}, []string{"u"})
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder(t, Options{Form: FormFlattened})
	d.SetTable(table)
	key := `{"schema":{"type":"struct","optional":false,"fields":[{"type":"string","optional":false,"name":"io.debezium.data.Uuid","field":"u"}]},"payload":{"u":"f79c3e09-677c-4bbd-a479-3f349cb785e7"}}`
	ev, err := d.Decode(Record{Topic: "s.public.t", Key: []byte(key)})
	if err != nil || ev.Op != changelog.OpDelete {
		t.Fatalf("%v, %+v", err, ev)
	}
	if k, ok := ev.TableKey(nil, table); !ok || !strings.HasPrefix(string(k), "f79c3e09-") {
		t.Errorf("key %q, %t", k, ok)
	}
	ev, err = newDecoder(t, Options{Form: FormFlattened, Metadata: map[string]string{"k": "ts_ms"}}).Decode(Record{Topic: "s.public.t", Key: []byte(`{"k":9}`), Value: []byte(`{"a":1,"k":5}`)})
	if err != nil || len(ev.Shape.Columns) != 2 || ev.Shape.Key[0] != 1 || ev.After[1].I != 9 {
		t.Errorf("%v, %+v", err, ev)
	}
}

// TestFlattenedTypes: without a source block the connector that is named decides how values are read.
func TestFlattenedTypes(t *testing.T) {
	value := `{"schema":{"type":"struct","optional":false,"fields":[{"type":"int64","optional":false,"field":"id"},` +
		`{"type":"int64","optional":true,"name":"io.debezium.time.MicroTime","field":"t"}]},"payload":{"id":1,"t":-5}}`
	for connector, want := range map[string]string{"mysql": "long", "": "time", "postgresql": "time"} {
		ev, err := flat(t, Options{Connector: connector}, value)
		if err != nil {
			t.Errorf("%q: %v", connector, err)
		} else if got := ev.Shape.Columns[1].Type.String(); got != want {
			t.Errorf("%q: %s, want %s", connector, got, want)
		}
	}
}

// TestFlattenedOther: transactions and messages of the connector, which no transformation flattens, are told from rows.
func TestFlattenedOther(t *testing.T) {
	for topic, c := range map[string]struct {
		value string
		kind  Kind
	}{
		"s.transaction": {`{"status":"BEGIN","id":"5","ts_ms":1,"event_count":null,"data_collections":null}`, Transaction},
		"s.message":     {`{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"p","content":"eA=="}}`, Message},
		"orders":        {`{"id":1,"v":"a topic without dots"}`, Change},
		"s.t.message":   {`{"id":1,"message":"a table with such a name"}`, Change},
	} {
		r := Record{Topic: topic, Key: []byte(`{"id":1}`), Value: []byte(c.value)}
		if ev, err := newDecoder(t, Options{Form: FormFlattened}).Decode(r); err != nil || ev.Kind != c.kind {
			t.Errorf("%s: %v, %+v", topic, err, ev)
		}
	}
}

// TestFlattenedOptions: what is no metadata is refused by name.
func TestFlattenedOptions(t *testing.T) {
	for want, o := range map[string]Options{
		`"__x" is "what"`:     {Form: FormFlattened, Metadata: map[string]string{"__x": "what"}},
		`"__x" is "source."`:  {Form: FormFlattened, Metadata: map[string]string{"__x": "source."}},
		`connector "cobol"`:   {Form: FormFlattened, Connector: "cobol"},
		"of flattened topics": {Metadata: map[string]string{"__op": "op"}},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	o := Options{Form: FormFlattened, Deletes: DeletesRewrite}
	o.EnsureDefaults()
	if o.Metadata["__deleted"] != "deleted" {
		t.Errorf("metadata %v", o.Metadata)
	}
}

// TestFlattenedColumns: a row reads the same wherever metadata stand among its columns, and a key's column that the row lacks is added.
func TestFlattenedColumns(t *testing.T) {
	o := Options{Form: FormFlattened, Metadata: map[string]string{"m": "op", "n": "ts_ms"}}
	d := newDecoder(t, o)
	for _, value := range []string{`{"a":1,"m":"c","b":"x"}`, `{"m":"c","a":1,"n":7,"b":"x"}`, `{"a":1,"b":"x"}`, `{"n":7,"a":1,"b":"x","m":"c"}`} {
		ev, err := d.Decode(Record{Topic: "s.public.t", Key: []byte(`{"k":9}`), Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		names := slices.Collect(func(yield func(string) bool) {
			for _, c := range ev.Shape.Columns {
				if !yield(c.Name) {
					return
				}
			}
		})
		if strings.Join(names, " ") != "a b k" || len(ev.After) != 3 || ev.After[0].I != 1 || string(ev.After[1].B) != "x" || ev.After[2].I != 9 {
			t.Errorf("%s: %q %v", value, names, ev.After)
		}
	}
}
