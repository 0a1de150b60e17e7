package changelog

import (
	"fmt"
	"slices"
)

// Projection turns rows of one schema of a table into values of another one, by field id: columns that the target
// lacks are left out, those that the source lacks are null, widened types are widened. It reuses its buffers: not
// safe for concurrent use.
type Projection struct {
	from, to *Schema
	target   []int       // ordinal in to for each column of from, or -1
	promote  []Promotion // of each column of from
	values   []Value
	scratch  []byte
}

// NewProjection returns the projection from one schema to another of the same table. Error: ErrIncompatible, a column
// has types in the two that no promotion connects.
func NewProjection(from, to *Schema) (*Projection, error) {
	n := len(from.Columns)
	p := &Projection{from: from, to: to, target: make([]int, n), promote: make([]Promotion, n), values: make([]Value, len(to.Columns))}
	for i, c := range from.Columns {
		o := to.OrdinalOf(c.ID)
		p.target[i] = o
		if o < 0 {
			continue
		}
		var err error
		if p.promote[i], err = PromotionOf(c.Type, to.Columns[o].Type); err != nil {
			return nil, fmt.Errorf("column %q: %w", c.Name, err)
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
			if p.promote[i] != nil && !v.Null {
				var err error
				if v, err = p.promote[i](v); err != nil {
					return nil, fmt.Errorf("column %q: %w", p.from.Columns[i].Name, err)
				}
			}
			p.values[o] = v
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

// Promotion turns a value that is not null into one of another type of the same column. It is safe for concurrent use. Error:
// ErrCorrupt.
type Promotion func(v Value) (Value, error)

// PromotionOf returns how values of a column's type in one schema read in its type in another, either way: narrower numbers
// are widened, wider ones are taken to fit, members of structs are matched by field id. nil: they read as they are
// (integers and decimals do in every width; a float's bits do not). Error: ErrIncompatible.
func PromotionOf(from, to *Type) (Promotion, error) {
	switch {
	case from.Kind == Float && to.Kind == Double:
		return func(v Value) (Value, error) { return DoubleValue(float64(v.Float())), nil }, nil
	case from.Kind == Double && to.Kind == Float:
		return func(v Value) (Value, error) { return FloatValue(float32(v.Double())), nil }, nil
	case from.Nested() && from.Kind == to.Kind:
		return promotionOfNested(from, to)
	case from.CanWidenTo(to), to.CanWidenTo(from):
		return nil, nil //nolint:nilnil // nil is the promotion that changes nothing
	}
	return nil, fmt.Errorf("from %s to %s: %w", from, to, ErrIncompatible)
}

// parts is how the parts of a nested value are promoted.
type parts struct {
	from, to *Type
	source   []int       // of each part of to: its place in from, or -1
	promote  []Promotion // of each part of to
}

func promotionOfNested(from, to *Type) (Promotion, error) {
	p := parts{from, to, make([]int, len(to.Fields)), make([]Promotion, len(to.Fields))}
	same := len(from.Fields) == len(to.Fields)
	for i, f := range to.Fields {
		p.source[i] = slices.IndexFunc(from.Fields, func(c Column) bool { return c.ID == f.ID })
		if to.Kind != Struct {
			p.source[i] = i
		}
		if p.source[i] < 0 {
			same = false
			continue
		}
		var err error
		if p.promote[i], err = PromotionOf(from.Fields[p.source[i]].Type, f.Type); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		same = same && p.source[i] == i && p.promote[i] == nil
	}
	switch {
	case same:
		return nil, nil //nolint:nilnil // as above
	case to.Kind == List:
		return p.list, nil
	case to.Kind == Map:
		return p.entries, nil
	}
	return p.members, nil
}

func (p *parts) part(i int, v Value) (Value, error) {
	if p.promote[i] == nil || v.Null {
		return v, nil
	}
	return p.promote[i](v)
}

func (p *parts) all(i int, values []Value) error {
	for j := range values {
		var err error
		if values[j], err = p.part(i, values[j]); err != nil {
			return err
		}
	}
	return nil
}

func (p *parts) list(v Value) (Value, error) {
	elements, err := AppendElements(nil, p.from, v.B)
	if err == nil {
		err = p.all(0, elements)
	}
	if err != nil {
		return Value{}, err
	}
	return Value{B: AppendList(nil, p.to, elements)}, nil
}

func (p *parts) entries(v Value) (Value, error) {
	keys, values, err := AppendEntries(nil, nil, p.from, v.B)
	if err == nil {
		err = p.all(0, keys)
	}
	if err == nil {
		err = p.all(1, values)
	}
	if err != nil {
		return Value{}, err
	}
	return Value{B: AppendMap(nil, p.to, keys, values)}, nil
}

func (p *parts) members(v Value) (Value, error) {
	var rr RowReader
	if err := rr.ResetStruct(p.from, v.B); err != nil {
		return Value{}, err
	}
	old := make([]Value, 0, len(p.from.Fields))
	for m, ok := rr.Next(); ok; m, ok = rr.Next() {
		old = append(old, m)
	}
	if err := rr.Err(); err != nil {
		return Value{}, err
	}
	members := make([]Value, len(p.to.Fields))
	for i, at := range p.source {
		members[i] = NullValue
		if at < 0 {
			continue
		}
		var err error
		if members[i], err = p.part(i, old[at]); err != nil {
			return Value{}, err
		}
	}
	return Value{B: AppendStruct(nil, p.to, members)}, nil
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
