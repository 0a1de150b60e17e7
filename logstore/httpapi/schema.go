package httpapi

import (
	"encoding/json"
	"fmt"
	"strings"

	"firn/changelog"
)

// IcebergSchema returns the Iceberg JSON of a schema.
func IcebergSchema(s *changelog.Schema) json.RawMessage {
	schema := struct {
		Type       string         `json:"type"`
		ID         uint32         `json:"schema-id"`
		Identifier []int          `json:"identifier-field-ids"`
		Fields     []icebergField `json:"fields"`
	}{Type: "struct", ID: uint32(s.ID), Identifier: append([]int{}, s.Key...), Fields: icebergFields(s.Columns)}
	body, err := json.Marshal(schema)
	if err != nil {
		panic("httpapi: a schema cannot be encoded: " + err.Error()) // strings and numbers only
	}
	return body
}

type icebergField struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`
	Required bool   `json:"required"`
	Type     any    `json:"type"`
	Doc      string `json:"doc,omitempty"`
}

func icebergFields(columns []changelog.Column) []icebergField {
	fields := make([]icebergField, len(columns))
	for i, c := range columns {
		fields[i] = icebergField{ID: c.ID, Name: c.Name, Required: c.Required, Type: icebergType(c.Type), Doc: c.Doc}
	}
	return fields
}

func icebergType(t *changelog.Type) any {
	switch t.Kind {
	case changelog.Struct:
		return map[string]any{"type": "struct", "fields": icebergFields(t.Fields)}
	case changelog.List:
		e := t.Fields[0]
		return map[string]any{"type": "list", "element-id": e.ID, "element": icebergType(e.Type), "element-required": e.Required}
	case changelog.Map:
		k, v := t.Fields[0], t.Fields[1]
		return map[string]any{
			"type": "map", "key-id": k.ID, "key": icebergType(k.Type), "value-id": v.ID, "value": icebergType(v.Type),
			"value-required": v.Required,
		}
	case changelog.Decimal:
		return fmt.Sprintf("decimal(%d, %d)", t.Precision, t.Scale)
	default:
		return t.String()
	}
}

// ParseIcebergSchema reads what IcebergSchema wrote: what a client needs to know of a table's rows. The field ids of
// parts of nested types are kept, too.
func ParseIcebergSchema(body []byte) (*changelog.Schema, error) {
	var schema struct {
		ID         uint32      `json:"schema-id"`
		Identifier []int       `json:"identifier-field-ids"`
		Fields     []jsonField `json:"fields"`
	}
	if err := json.Unmarshal(body, &schema); err != nil {
		return nil, fmt.Errorf("iceberg schema: %w", err)
	}
	s := &changelog.Schema{ID: changelog.SchemaID(schema.ID), Key: schema.Identifier}
	var err error
	if s.Columns, err = columnsOf(schema.Fields); err != nil {
		return nil, fmt.Errorf("iceberg schema: %w", err)
	}
	if err := s.Index(); err != nil {
		return nil, fmt.Errorf("iceberg schema: %w", err)
	}
	return s, nil
}

type jsonField struct {
	ID       int             `json:"id"`
	Name     string          `json:"name"`
	Required bool            `json:"required"`
	Type     json.RawMessage `json:"type"`
	Doc      string          `json:"doc"`
}

func columnsOf(fields []jsonField) ([]changelog.Column, error) {
	columns := make([]changelog.Column, len(fields))
	for i, f := range fields {
		t, err := typeOf(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
		columns[i] = changelog.Column{ID: f.ID, Name: f.Name, Type: t, Required: f.Required, Doc: f.Doc}
	}
	return columns, nil
}

func typeOf(body json.RawMessage) (*changelog.Type, error) {
	var name string
	if json.Unmarshal(body, &name) == nil {
		return primitiveOf(name)
	}
	var nested struct {
		Type            string          `json:"type"`
		Fields          []jsonField     `json:"fields"`
		ElementID       int             `json:"element-id"`
		Element         json.RawMessage `json:"element"`
		ElementRequired bool            `json:"element-required"`
		KeyID           int             `json:"key-id"`
		Key             json.RawMessage `json:"key"`
		ValueID         int             `json:"value-id"`
		Value           json.RawMessage `json:"value"`
		ValueRequired   bool            `json:"value-required"`
	}
	if err := json.Unmarshal(body, &nested); err != nil {
		return nil, err
	}
	fields, kind := nested.Fields, changelog.Struct
	switch nested.Type {
	case "struct":
	case "list":
		kind = changelog.List
		fields = []jsonField{{ID: nested.ElementID, Name: "element", Required: nested.ElementRequired, Type: nested.Element}}
	case "map":
		kind = changelog.Map
		fields = []jsonField{
			{ID: nested.KeyID, Name: "key", Required: true, Type: nested.Key},
			{ID: nested.ValueID, Name: "value", Required: nested.ValueRequired, Type: nested.Value},
		}
	default:
		return nil, fmt.Errorf("type %q is not known", nested.Type)
	}
	columns, err := columnsOf(fields)
	return &changelog.Type{Kind: kind, Fields: columns}, err
}

func primitiveOf(name string) (*changelog.Type, error) {
	t := &changelog.Type{}
	if _, err := fmt.Sscanf(name, "decimal(%d, %d)", &t.Precision, &t.Scale); err == nil {
		t.Kind = changelog.Decimal
		return t, nil
	}
	if strings.HasPrefix(name, "fixed[") {
		t.Kind = changelog.Fixed
		_, err := fmt.Sscanf(name, "fixed[%d]", &t.Length)
		return t, err
	}
	for k := changelog.Boolean; k <= changelog.TimestampTZNS; k++ {
		t.Kind = k
		if !t.Nested() && k.String() == name {
			return t, nil
		}
	}
	return nil, fmt.Errorf("type %q is not known", name)
}
