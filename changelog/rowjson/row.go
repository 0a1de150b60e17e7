package rowjson

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
)

// ErrColumn reports the name of a column that the table does not have.
var ErrColumn = errors.New("no such column")

// Options says which columns of a row are shown, and how.
type Options struct {
	Columns []string // the names of those to show; empty: all. Their order does not matter
	Sorted  bool     // by name, as dumps do; else in the table's order
}

// Encoder renders rows of one table in its current schema: columns that a row's own schema lacks are null, widened
// ones are widened. It is immutable and safe for concurrent use.
type Encoder struct {
	schemas changelog.Schemas
	fields  []field
	plans   []plan // one a schema of the history
}

// field is one column shown.
type field struct {
	label []byte // `"name":`, with the comma before it if it is not the first
	typ   *changelog.Type
	id    int
}

// plan says where the fields are in the rows of one schema.
type plan struct {
	ordinals   []int                 // one a field; -1: not there
	promote    []changelog.Promotion // one a field
	sequential bool                  // the ordinals ascend: values are rendered as they are read
}

// NewEncoder returns an Encoder for the tables's history of schemas. Errors: ErrColumn; changelog.ErrIncompatible, the
// history changes a column's type by no promotion.
func NewEncoder(history changelog.Schemas, o Options) (*Encoder, error) {
	current := history.Current()
	for _, name := range o.Columns {
		if current.Ordinal(name) < 0 {
			return nil, fmt.Errorf("column %q: %w", name, ErrColumn)
		}
	}
	columns := make([]*changelog.Column, 0, len(current.Columns))
	for i := range current.Columns {
		if c := &current.Columns[i]; len(o.Columns) == 0 || slices.Contains(o.Columns, c.Name) {
			columns = append(columns, c)
		}
	}
	if o.Sorted {
		slices.SortFunc(columns, func(a, b *changelog.Column) int { return strings.Compare(a.Name, b.Name) })
	}
	e := &Encoder{schemas: history, fields: make([]field, len(columns)), plans: make([]plan, len(history))}
	for i, c := range columns {
		var label []byte
		if i > 0 {
			label = append(label, ',')
		}
		e.fields[i] = field{label: append(AppendString(label, c.Name), ':'), typ: c.Type, id: c.ID}
	}
	for i, s := range history {
		var err error
		if e.plans[i], err = e.planOf(s); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *Encoder) planOf(s *changelog.Schema) (plan, error) {
	p := plan{ordinals: make([]int, len(e.fields)), promote: make([]changelog.Promotion, len(e.fields)), sequential: true}
	last := -1
	for i, f := range e.fields {
		o := s.OrdinalOf(f.id)
		p.ordinals[i] = o
		if o < 0 {
			continue
		}
		var err error
		if p.promote[i], err = changelog.PromotionOf(s.Columns[o].Type, f.typ); err != nil {
			return plan{}, fmt.Errorf("schema %d, column %q: %w", s.ID, s.Columns[o].Name, err)
		}
		p.sequential = p.sequential && o > last
		last = o
	}
	return p, nil
}

// AppendRow appends r, a row of any schema of the table, as an object. Error: changelog.ErrCorrupt.
func (e *Encoder) AppendRow(dst []byte, r changelog.Row) ([]byte, error) {
	s, err := e.schemas.Of(r)
	if err != nil {
		return dst, err
	}
	var rr changelog.RowReader
	if err := rr.Reset(s, r); err != nil {
		return dst, err
	}
	p := &e.plans[s.ID]
	if !p.sequential {
		return e.appendShuffled(dst, p, &rr)
	}
	dst = append(dst, '{')
	next := 0 // the ordinal that rr reads next
	for i := range e.fields {
		v := changelog.NullValue
		if o := p.ordinals[i]; o >= 0 {
			for ; next <= o; next++ {
				var ok bool
				if v, ok = rr.Next(); !ok {
					return dst, rr.Err()
				}
			}
		}
		if dst, err = e.appendField(dst, i, v, p.promote[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// appendShuffled renders a row whose columns are shown in another order than they are stored in.
func (e *Encoder) appendShuffled(dst []byte, p *plan, rr *changelog.RowReader) ([]byte, error) {
	var buf [48]changelog.Value
	values := buf[:0]
	for v, ok := rr.Next(); ok; v, ok = rr.Next() {
		values = append(values, v)
	}
	if err := rr.Err(); err != nil {
		return dst, err
	}
	dst = append(dst, '{')
	var err error
	for i := range e.fields {
		v := changelog.NullValue
		if o := p.ordinals[i]; o >= 0 {
			v = values[o]
		}
		if dst, err = e.appendField(dst, i, v, p.promote[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (e *Encoder) appendField(dst []byte, i int, v changelog.Value, promote changelog.Promotion) ([]byte, error) {
	if promote != nil && !v.Null {
		var err error
		if v, err = promote(v); err != nil {
			return dst, err
		}
	}
	f := &e.fields[i]
	return AppendValue(append(dst, f.label...), f.typ, v)
}

// AppendValues appends values, one a column of the current schema, as an object. Error: changelog.ErrCorrupt.
func (e *Encoder) AppendValues(dst []byte, values []changelog.Value) ([]byte, error) {
	current := e.schemas.Current()
	p := &e.plans[current.ID]
	dst = append(dst, '{')
	var err error
	for i := range e.fields {
		if dst, err = e.appendField(dst, i, values[p.ordinals[i]], nil); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// AppendKey appends key as an object of its columns in key order, all of them whatever Options.Columns says. Error:
// changelog.ErrCorrupt.
func (e *Encoder) AppendKey(dst []byte, key changelog.Key) ([]byte, error) {
	return AppendKeyObject(dst, e.schemas.Current(), key)
}

// AppendKeyObject appends key as an object of its columns in key order. Error: changelog.ErrCorrupt.
func AppendKeyObject(dst []byte, s *changelog.Schema, key changelog.Key) ([]byte, error) {
	values, err := s.KeyValues(key)
	if err != nil {
		return dst, err
	}
	dst = append(dst, '{')
	for i, o := range s.KeyOrdinals() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, s.Columns[o].Name), ':')
		if dst, err = AppendValue(dst, s.Columns[o].Type, values[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}
