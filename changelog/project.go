package changelog

import (
	"fmt"
)

// Projection turns rows of one schema of a table into values of another one, by field id: columns that the target
// lacks are left out, those that the source lacks are null, widened types are widened. It reuses its buffers: not
// safe for concurrent use.
type Projection struct {
	from, to *Schema
	target   []int // ordinal in to for each column of from, or -1
	values   []Value
	scratch  []byte
}

// NewProjection returns the projection from one schema to another of the same table. Error: ErrIncompatible, a column
// has types in the two that no promotion connects.
func NewProjection(from, to *Schema) (*Projection, error) {
	p := &Projection{from: from, to: to, target: make([]int, len(from.Columns)), values: make([]Value, len(to.Columns))}
	for i, c := range from.Columns {
		o := to.OrdinalOf(c.ID)
		p.target[i] = o
		if o >= 0 && !c.Type.CanWidenTo(to.Columns[o].Type) && !to.Columns[o].Type.CanWidenTo(c.Type) {
			return nil, fmt.Errorf("column %q from %s to %s: %w", c.Name, c.Type, to.Columns[o].Type, ErrIncompatible)
		}
	}
	return p, nil
}

// Values decodes r, a row of the projection's source, into one Value for each column of its target. They are valid
// until the next call and as long as r's bytes are.
func (p *Projection) Values(r Row) ([]Value, error) {
	var rr RowReader
	if err := rr.Reset(p.from, r); err != nil {
		return nil, err
	}
	for i := range p.values {
		p.values[i] = NullValue
	}
	for i := range p.from.Columns {
		v, ok := rr.Next()
		if !ok {
			return nil, rr.Err()
		}
		if o := p.target[i]; o >= 0 {
			p.values[o] = widenValue(v, p.from.Columns[i].Type, p.to.Columns[o].Type)
		}
	}
	return p.values, nil
}

// Row re-encodes r for the projection's target. The result is valid until the next call.
func (p *Projection) Row(r Row) (Row, error) {
	if p.from.ID == p.to.ID {
		return r, nil
	}
	values, err := p.Values(r)
	if err != nil {
		return nil, err
	}
	p.scratch = AppendRow(p.scratch[:0], p.to, values)
	return p.scratch, nil
}

// widenValue: integers and decimals read the same in every width; a float's bits do not.
func widenValue(v Value, from, to *Type) Value {
	if !v.Null && from.Kind == Float && to.Kind == Double {
		return DoubleValue(float64(v.Float()))
	}
	if !v.Null && from.Kind == Double && to.Kind == Float {
		return FloatValue(float32(v.Double()))
	}
	return v
}

// Schemas is the history of a table's schemas: the index is the SchemaID.
type Schemas []*Schema

// Current returns the newest schema. It panics on an empty history: every table has schema 0.
func (h Schemas) Current() *Schema { return h[len(h)-1] }

// Of returns the schema that encoded r. Error: ErrCorrupt, no such schema.
func (h Schemas) Of(r Row) (*Schema, error) {
	id, err := r.SchemaID()
	if err != nil {
		return nil, err
	}
	if int(id) >= len(h) {
		return nil, fmt.Errorf("row of schema %d, the table has %d: %w", id, len(h), ErrCorrupt)
	}
	return h[id], nil
}
