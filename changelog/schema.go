package changelog

import (
	"fmt"
	"slices"
)

// Column is a column of a table or a field of a nested type.
type Column struct {
	ID       int    `json:"id"` // Iceberg field id; never reused within a table
	Name     string `json:"name"`
	Type     *Type  `json:"type"`
	Required bool   `json:"required,omitempty"` // only key columns and map keys are
	Doc      string `json:"doc,omitempty"`
}

// Schema is one schema of a table. It is immutable and safe for concurrent use.
type Schema struct {
	ID      SchemaID `json:"id"`
	Columns []Column `json:"columns"`
	Key     []int    `json:"key"` // field ids of the key columns in key order; empty: no key
	LastID  int      `json:"lastId"`

	byID  map[int]int // field id to ordinal; nil until Index is called
	byKey []int       // ordinals of the key columns
}

// NewSchema returns schema 0 of a new table with fresh field ids, given as Iceberg gives them (top-level columns
// first, in order; then the parts of nested ones): whatever ids columns carry are replaced. key names the key columns
// in key order. The columns' types are copied.
//
// Errors: an unknown or repeated name, a key column of a nested type.
func NewSchema(columns []Column, key []string) (*Schema, error) {
	s := &Schema{Columns: cloneColumns(columns)}
	s.LastID = assignIDs(s.Columns, 0)
	for _, name := range key {
		i := s.Ordinal(name)
		if i < 0 {
			return nil, fmt.Errorf("key column %q: no such column", name)
		}
		s.Columns[i].Required = true
		s.Key = append(s.Key, s.Columns[i].ID)
	}
	return s, s.Index()
}

// Index checks s and prepares its lookups. Whoever decodes a Schema from outside calls it once before sharing s.
func (s *Schema) Index() error {
	s.byID = make(map[int]int, len(s.Columns))
	names := make(map[string]bool, len(s.Columns))
	for i, c := range s.Columns {
		if c.Type == nil {
			return fmt.Errorf("column %q: no type", c.Name)
		}
		if names[c.Name] {
			return fmt.Errorf("column %q: name is there twice", c.Name)
		}
		if _, twice := s.byID[c.ID]; twice || c.ID <= 0 {
			return fmt.Errorf("column %q: field id %d is not positive or not unique", c.Name, c.ID)
		}
		names[c.Name], s.byID[c.ID] = true, i
	}
	s.byKey = make([]int, 0, len(s.Key))
	for _, id := range s.Key {
		i, ok := s.byID[id]
		if !ok {
			return fmt.Errorf("key column with field id %d: no such column", id)
		}
		if s.Columns[i].Type.Nested() {
			return fmt.Errorf("key column %q: a %s cannot be a key", s.Columns[i].Name, s.Columns[i].Type)
		}
		s.byKey = append(s.byKey, i)
	}
	return nil
}

// Ordinal returns the place of the column called name, or -1.
func (s *Schema) Ordinal(name string) int {
	return slices.IndexFunc(s.Columns, func(c Column) bool { return c.Name == name })
}

// OrdinalOf returns the place of the column with the field id, or -1.
func (s *Schema) OrdinalOf(id int) int {
	if i, ok := s.byID[id]; ok {
		return i
	}
	return -1
}

// KeyOrdinals returns the places of the key columns in key order. The caller must not change them.
func (s *Schema) KeyOrdinals() []int { return s.byKey }

// KeyNames returns the names of the key columns in key order.
func (s *Schema) KeyNames() []string {
	names := make([]string, len(s.byKey))
	for i, o := range s.byKey {
		names[i] = s.Columns[o].Name
	}
	return names
}

// assignIDs numbers columns from last+1 on, parts of nested types after all columns of a level, and returns the last.
// Source: org.apache.iceberg.types.AssignFreshIds.
func assignIDs(columns []Column, last int) int {
	for i := range columns {
		last++
		columns[i].ID = last
	}
	for i := range columns {
		if columns[i].Type.Nested() {
			last = assignIDs(columns[i].Type.Fields, last)
		}
	}
	return last
}

func cloneColumns(columns []Column) []Column {
	out := slices.Clone(columns)
	for i := range out {
		out[i].Type = cloneType(out[i].Type)
	}
	return out
}

func cloneType(t *Type) *Type {
	if t == nil {
		return nil
	}
	c := *t
	c.Fields = cloneColumns(t.Fields)
	return &c
}
