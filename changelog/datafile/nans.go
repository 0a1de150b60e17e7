package datafile

import (
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// nans counts the values of a file's float columns that are no number, by field id, at any depth. Footers do not have it; Iceberg's
// manifests do.
type nans struct {
	fields []arrow.Field // those with floats in them
	places []int
	counts map[int]int64 // nil: no column has floats
}

func newNaNs(s *arrow.Schema) nans {
	var n nans
	for i, f := range s.Fields() {
		if hasFloats(f.Type) {
			n.fields, n.places = append(n.fields, f), append(n.places, i)
		}
	}
	if n.fields != nil {
		n.counts = map[int]int64{}
		for _, f := range n.fields {
			n.count(f, nil, 0, 0)
		}
	}
	return n
}

func hasFloats(t arrow.DataType) bool {
	switch t := t.(type) {
	case *arrow.Float32Type, *arrow.Float64Type:
		return true
	case arrow.NestedType:
		for _, f := range t.Fields() {
			if hasFloats(f.Type) {
				return true
			}
		}
	}
	return false
}

// add counts in a batch, whose columns are those of the schema.
func (n *nans) add(batch arrow.RecordBatch) {
	for i, f := range n.fields {
		n.count(f, batch.Column(n.places[i]), 0, int(batch.NumRows()))
	}
}

// count counts in the values from..to-1 of a column; a is nil to only enter what there is to count.
func (n *nans) count(f arrow.Field, a arrow.Array, from, to int) {
	switch t := f.Type.(type) {
	case *arrow.Float32Type:
		n.found(f, countNaNs(a, from, to, func(a *array.Float32) []float32 { return a.Float32Values() }))
	case *arrow.Float64Type:
		n.found(f, countNaNs(a, from, to, func(a *array.Float64) []float64 { return a.Float64Values() }))
	case *arrow.StructType:
		for i, m := range t.Fields() {
			if s, ok := a.(*array.Struct); ok {
				n.count(m, s.Field(i), from, to)
			} else {
				n.count(m, nil, 0, 0)
			}
		}
	case *arrow.ListType:
		l, ok := a.(*array.List)
		if ok && from < to {
			first, _ := l.ValueOffsets(from)
			_, end := l.ValueOffsets(to - 1)
			n.count(t.ElemField(), l.ListValues(), int(first), int(end))
		} else {
			n.count(t.ElemField(), nil, 0, 0)
		}
	case *arrow.MapType:
		m, ok := a.(*array.Map)
		if ok && from < to {
			first, _ := m.ValueOffsets(from)
			_, end := m.ValueOffsets(to - 1)
			n.count(t.KeyField(), m.Keys(), int(first), int(end))
			n.count(t.ItemField(), m.Items(), int(first), int(end))
		} else {
			n.count(t.KeyField(), nil, 0, 0)
			n.count(t.ItemField(), nil, 0, 0)
		}
	}
}

func (n *nans) found(f arrow.Field, count int64) {
	text, _ := f.Metadata.GetValue(fieldIDKey)
	if id, err := strconv.Atoi(text); err == nil && (count > 0 || n.counts[id] == 0) {
		n.counts[id] += count
	}
}

func countNaNs[A arrow.Array, F float32 | float64](a arrow.Array, from, to int, valuesOf func(A) []F) (n int64) {
	floats, ok := a.(A)
	if !ok {
		return 0
	}
	values := valuesOf(floats)
	for i := from; i < to; i++ {
		if v := values[i]; v != v && a.IsValid(i) { // what a null stands on is anything
			n++
		}
	}
	return n
}
