package httpapi

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"firn/changelog"
)

func TestIcebergSchema(t *testing.T) {
	nested := &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{
		{Name: "a", Type: changelog.ListOf(changelog.DecimalOf(9, 2))},
		{Name: "b", Type: changelog.MapOf(prim(changelog.String), changelog.ListOf(prim(changelog.UUID))), Doc: "d"},
	}}
	columns := []changelog.Column{{Name: "n", Type: nested}, {Name: "f", Type: &changelog.Type{Kind: changelog.Fixed, Length: 7}}}
	for k := changelog.Boolean; k <= changelog.TimestampTZNS; k++ {
		if typ := prim(k); !typ.Nested() && k != changelog.Fixed && k != changelog.Decimal {
			columns = append(columns, changelog.Column{Name: k.String(), Type: typ})
		}
	}
	s, err := changelog.NewSchema(columns, []string{"string", "int"})
	if err != nil {
		t.Fatal(err)
	}
	body := IcebergSchema(s)
	for _, part := range []string{`"identifier-field-ids":[`, `{"element":"decimal(9, 2)","element-id":`, `"type":"fixed[7]"`, `"type":"timestamptz_ns"`} {
		if !strings.Contains(string(body), part) {
			t.Errorf("no %s in %s", part, body)
		}
	}
	back, err := ParseIcebergSchema(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back.Columns, s.Columns) || !reflect.DeepEqual(back.Key, s.Key) || !bytes.Equal(IcebergSchema(back), body) {
		t.Errorf("got %+v\nwant %+v", back, s)
	}
	for _, bad := range []string{`{`, `{"fields":[{"id":1,"name":"x","type":"nope"}]}`, `{"fields":[{"id":1,"name":"x","type":{"type":"set"}}]}`, `{"identifier-field-ids":[9],"fields":[]}`} {
		if _, err := ParseIcebergSchema([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
