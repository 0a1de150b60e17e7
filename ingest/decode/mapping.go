package decode

import (
	"slices"

	"firn/changelog"
)

// Mapping turns the values of events of one Shape into rows and keys of one schema of a table. It reuses its buffers:
// not safe for concurrent use.
type Mapping struct {
	schema   *changelog.Schema
	columns  []mapped // one a column of the table
	key      []mapped // one a key column of the table, in its key's order; from: place in the event's key
	ordinals []int    // of the table, one a column of the shape; -1: it is dropped
	names    []string // in the table, one a column of the shape

	values, keyValues []changelog.Value
	scratch           []byte
}

// mapped is where a column's value comes from.
type mapped struct {
	from    int // -1: nowhere, it is null
	convert converter
}

// converter turns a value that is not null into one of the table's type. The result may be in *scratch. nil: it is one.
type converter func(scratch *[]byte, v changelog.Value) changelog.Value

// Schema returns the schema of the rows.
func (m *Mapping) Schema() *changelog.Schema { return m.schema }

// Name returns what a column of the shape is called in the table, whatever its type: renames are declared.
func (m *Mapping) Name(column int) string { return m.names[column] }

// Ordinal returns the table's column for a column of the shape: where a placeholder is to be filled in; -1: the table
// does not have it any more.
func (m *Mapping) Ordinal(column int) int { return m.ordinals[column] }

// Values turns the values of an image into one Value for each column of the table. They are valid until the next call of
// a method and as long as values' bytes are.
func (m *Mapping) Values(values []changelog.Value) []changelog.Value {
	m.scratch = m.scratch[:0]
	for i := range m.columns {
		m.values[i] = m.columns[i].value(&m.scratch, values)
	}
	return m.values
}

// Row appends the row that an image is in the table to dst.
func (m *Mapping) Row(dst changelog.Row, values []changelog.Value) changelog.Row {
	return changelog.AppendRow(dst, m.schema, m.Values(values))
}

// Key appends the key that an event's key (Event.Key, OldKey or NewKey) is in the table to dst.
func (m *Mapping) Key(dst changelog.Key, key []changelog.Value) changelog.Key {
	m.scratch = m.scratch[:0]
	for i := range m.key {
		m.keyValues[i] = m.key[i].value(&m.scratch, key)
	}
	return m.schema.AppendKey(dst, m.keyValues)
}

func (c *mapped) value(scratch *[]byte, values []changelog.Value) changelog.Value {
	if c.from < 0 {
		return changelog.NullValue
	}
	v := values[c.from]
	if c.convert == nil || v.Null {
		return v
	}
	return c.convert(scratch, v)
}

// converterOf returns how values of one type become values of another that they fit.
func converterOf(from, to *changelog.Type) converter {
	switch {
	case sameEncoding(from, to):
		return nil
	case from.Kind == changelog.Float:
		return func(_ *[]byte, v changelog.Value) changelog.Value { return changelog.DoubleValue(float64(v.Float())) }
	case hasKeyText(from):
		return func(scratch *[]byte, v changelog.Value) changelog.Value {
			return appended(scratch, func(dst []byte) []byte { return appendKeyText(dst, from, v.B) })
		}
	case from.Kind == changelog.Decimal:
		return func(_ *[]byte, v changelog.Value) changelog.Value { return rescaled(v, to.Scale-from.Scale) }
	default:
		return func(scratch *[]byte, v changelog.Value) changelog.Value { return nested(scratch, from, to, v) }
	}
}

func appended(scratch *[]byte, f func(dst []byte) []byte) changelog.Value {
	start := len(*scratch)
	*scratch = f(*scratch)
	return changelog.Value{B: (*scratch)[start:len(*scratch):len(*scratch)]}
}

// sameEncoding reports whether a value of from is one of to as it stands, inside nested values, too.
func sameEncoding(from, to *changelog.Type) bool {
	switch {
	case from.Kind == changelog.Int && to.Kind == changelog.Long:
		return true
	case from.Kind != to.Kind || len(from.Fields) != len(to.Fields):
		return false
	case from.Kind == changelog.Decimal:
		return from.Scale == to.Scale
	}
	for i := range from.Fields {
		if from.Fields[i].Name != to.Fields[i].Name || !sameEncoding(from.Fields[i].Type, to.Fields[i].Type) {
			return false
		}
	}
	return true
}

// rescaled multiplies an unscaled value by 10^n. The planner has seen that it fits.
func rescaled(v changelog.Value, n int) changelog.Value {
	w, negative := magnitude(v.B)
	for range n {
		w, _ = w.mul10(0)
	}
	var d Decoder
	return changelog.Value{B: d.decimalOf(w, negative)}
}

// nested re-encodes a nested value.
func nested(scratch *[]byte, from, to *changelog.Type, v changelog.Value) changelog.Value {
	part := func(from, to *changelog.Type, v changelog.Value) changelog.Value {
		if c := converterOf(from, to); c != nil && !v.Null {
			return c(scratch, v)
		}
		return v
	}
	switch from.Kind {
	case changelog.List:
		elements, err := changelog.AppendElements(nil, from, v.B)
		if err != nil {
			return changelog.NullValue // not possible: this package has encoded it
		}
		for i := range elements {
			elements[i] = part(from.Fields[0].Type, to.Fields[0].Type, elements[i])
		}
		return appended(scratch, func(dst []byte) []byte { return changelog.AppendList(dst, to, elements) })
	case changelog.Map:
		keys, values, err := changelog.AppendEntries(nil, nil, from, v.B)
		if err != nil {
			return changelog.NullValue // as above
		}
		for i := range values {
			values[i] = part(from.Fields[1].Type, to.Fields[1].Type, values[i])
		}
		return appended(scratch, func(dst []byte) []byte { return changelog.AppendMap(dst, to, keys, values) })
	default:
		members := make([]changelog.Value, len(to.Fields))
		for i := range members {
			members[i] = changelog.NullValue
		}
		var rr changelog.RowReader
		if err := rr.ResetStruct(from, v.B); err != nil {
			return changelog.NullValue // as above
		}
		for _, f := range from.Fields {
			m, ok := rr.Next()
			if !ok {
				return changelog.NullValue // as above
			}
			i := slices.IndexFunc(to.Fields, func(t changelog.Column) bool { return t.Name == f.Name })
			members[i] = part(f.Type, to.Fields[i].Type, m)
		}
		return appended(scratch, func(dst []byte) []byte { return changelog.AppendStruct(dst, to, members) })
	}
}
