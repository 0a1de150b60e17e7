package decode

import (
	"fmt"
	"strings"
	"testing"
)

// TestNotes: what the schema tells of columns whose values cannot be trusted (spec/debezium.md 1.4, 2.7, 3.2, 7).
func TestNotes(t *testing.T) {
	const bytea = `,"parameters":{"__debezium.source.column.type":"BYTEA"}`
	const varbit = `{"type":"bytes","optional":true,"name":"io.debezium.data.Bits","parameters":{"length":"%d"},"field":"v"}`
	for _, c := range []struct {
		connector, column string
		want              Note
	}{
		{"postgresql", `{"type":"int64","optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"string","optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"bytes","optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"array","items":{"type":"string","optional":true},"optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"array","items":{"type":"int32","optional":true},"optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"array","items":{"type":"double","optional":true},"optional":true,"field":"v"}`, NoteUnsent},
		{"postgresql", `{"type":"array","items":{"type":"boolean","optional":true},"optional":true,"field":"v"}`, NoteUnsent},
		{"postgresql", `{"type":"array","items":{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp"},"optional":true,"field":"v"}`, NoteUnsent},
		{"postgresql", `{"type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}],` +
			`"optional":true,"name":"io.debezium.data.VariableScaleDecimal","field":"v"}`, NoteUnsent},
		{"postgresql", fmt.Sprintf(varbit, 3), 0},
		{"postgresql", fmt.Sprintf(varbit, 2147483647), NoteUnsent},
		{"postgresql", `{"type":"string","optional":true,"field":"v"` + bytea + `}`, NoteUnsentText},
		{"mysql", `{"type":"string","optional":true,"field":"v"` + bytea + `}`, 0},
		{"mysql", `{"type":"array","items":{"type":"double","optional":true},"optional":true,"field":"v"}`, 0},
		{"postgresql", `{"type":"int32","optional":true,"default":7,"field":"v"}`, NoteNullDefault},
		{"postgresql", `{"type":"int32","optional":false,"default":7,"field":"v"}`, 0},
		{"mysql", `{"type":"int64","optional":true,"field":"v"}`, NoteUnsigned},
		{"mariadb", `{"type":"int64","optional":true,"field":"v"}`, NoteUnsigned},
		{"mysql", `{"type":"int64","optional":true,"field":"v","parameters":{"__debezium.source.column.type":"BIGINT"}}`, 0},
		{"mysql", `{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","field":"v"}`, 0},
		{"mysql", `{"type":"int32","optional":true,"field":"v"}`, 0},
	} {
		d := New(Options{})
		value := fmt.Sprintf(`{"schema":{"type":"struct","fields":[{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},%[1]s],"optional":true,"name":"a.b.t.Value",`+
			`"field":"before"},{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},%[1]s],"optional":true,"name":"a.b.t.Value","field":"after"},`+
			`{"type":"struct","fields":[{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},{"type":"string","optional":false,"field":"db"},`+
			`{"type":"string","optional":false,"field":"table"}],"optional":false,"name":"io.debezium.connector.Source","field":"source"},`+
			`{"type":"string","optional":false,"field":"op"}],"optional":false,"name":"a.b.t.Envelope"},`+
			`"payload":{"before":null,"after":{"id":1,"v":null},"source":{"connector":%[2]q,"name":"a","db":"d","table":"t"},"op":"c"}}`, c.column, c.connector)
		value = strings.Replace(value, `"v":null`, `"v":`+map[bool]string{true: "7", false: "null"}[strings.Contains(c.column, `"optional":false,"default"`)], 1)
		ev, err := d.Decode(Record{
			Topic: "a.b.t", Value: []byte(value),
			Key: []byte(`{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,"name":"a.b.t.Key"},"payload":{"id":1}}`),
		})
		if err != nil {
			t.Errorf("%s %s: %v", c.connector, c.column, err)
			continue
		}
		want := "[]"
		if c.want != 0 {
			want = fmt.Sprint([]ColumnNote{{"v", c.want}})
		}
		if got := fmt.Sprint(ev.Shape.Notes); got != want {
			t.Errorf("%s %s: notes %s, want %s", c.connector, c.column, got, want)
		}
	}
}
