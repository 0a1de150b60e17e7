package datafile

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// conversion returns an array of the wanted type; the caller releases it.
type conversion func(mem memory.Allocator, a arrow.Array) arrow.Array

// convertible returns how columns of type from are read as type to, or nil if they cannot be.
func convertible(from, to arrow.DataType) conversion {
	switch {
	case sameStorage(from, to):
		return func(_ memory.Allocator, a arrow.Array) arrow.Array { return retype(a, to) }
	case from.ID() == arrow.INT32 && to.ID() == arrow.INT64:
		return func(mem memory.Allocator, a arrow.Array) arrow.Array {
			return widen(mem, a, to, a.(*array.Int32).Values()) // its id says so
		}
	case from.ID() == arrow.FLOAT32 && to.ID() == arrow.FLOAT64:
		return func(mem memory.Allocator, a arrow.Array) arrow.Array {
			return widenFloats(mem, a, to, a.(*array.Float32).Values()) // its id says so
		}
	}
	if convert := foreign(from, to); convert != nil || from.ID() != to.ID() {
		return convert
	}
	switch to := to.(type) {
	case *arrow.StructType:
		return structConversion(from.(*arrow.StructType), to) // the ids are equal
	case *arrow.ListType:
		return listConversion(from.(*arrow.ListType).Elem(), to, to.Elem()) // as above
	case *arrow.MapType:
		have := from.(*arrow.MapType) // as above
		return listConversion(arrow.StructOf(have.KeyField(), have.ItemField()), to, arrow.StructOf(to.KeyField(), to.ItemField()))
	}
	return nil
}

// structConversion matches members by field id, or by name where the file has none; what it lacks is null.
func structConversion(from, to *arrow.StructType) conversion {
	source, convert := make([]int, to.NumFields()), make([]conversion, to.NumFields())
	for i, f := range to.Fields() {
		source[i] = slices.IndexFunc(from.Fields(), func(have arrow.Field) bool { return sameField(have, f) })
		if source[i] < 0 {
			continue
		}
		if convert[i] = convertible(from.Field(source[i]).Type, f.Type); convert[i] == nil {
			return nil
		}
	}
	return func(mem memory.Allocator, a arrow.Array) arrow.Array {
		s := a.(*array.Struct) // as from says
		members := make([]arrow.ArrayData, len(source))
		for i, at := range source {
			var m arrow.Array
			if at < 0 {
				m = array.MakeArrayOfNull(mem, to.Field(i).Type, a.Len())
			} else {
				m = convert[i](mem, s.Field(at)) // cut to the rows of a
			}
			defer m.Release()
			members[i] = m.Data()
		}
		nulls := nullsOf(mem, a)
		if nulls != nil {
			defer nulls.Release()
		}
		d := array.NewData(to, a.Len(), []*memory.Buffer{nulls}, members, a.NullN(), 0)
		defer d.Release()
		return array.MakeFromData(d)
	}
}

func sameField(have, want arrow.Field) bool {
	id, ok := have.Metadata.GetValue(fieldIDKey)
	if !ok {
		return have.Name == want.Name
	}
	wanted, _ := want.Metadata.GetValue(fieldIDKey)
	return id == wanted
}

// listConversion converts the elements of a list, or the entries of a map, and leaves offsets and nulls as they are.
func listConversion(from, to, elem arrow.DataType) conversion {
	convert := convertible(from, elem)
	if convert == nil {
		return nil
	}
	return func(mem memory.Allocator, a arrow.Array) arrow.Array {
		values := array.MakeFromData(a.Data().Children()[0])
		defer values.Release()
		converted := convert(mem, values)
		defer converted.Release()
		d := array.NewData(to, a.Len(), a.Data().Buffers(), []arrow.ArrayData{converted.Data()}, a.NullN(), a.Data().Offset())
		defer d.Release()
		return array.MakeFromData(d)
	}
}

// sameStorage reports whether arrays of the two types have the same buffers: equal types but for field names, metadata
// and zone; a uuid and its bytes; decimals of one scale.
func sameStorage(from, to arrow.DataType) bool {
	if _, ok := to.(*extensions.UUIDType); ok {
		fixed, raw := from.(*arrow.FixedSizeBinaryType)
		return from.ID() == arrow.EXTENSION || raw && fixed.ByteWidth == 16
	}
	if from.ID() != to.ID() {
		return false
	}
	switch to := to.(type) {
	case *arrow.Decimal128Type:
		from := from.(*arrow.Decimal128Type) // the ids are equal
		return from.Scale == to.Scale && from.Precision <= to.Precision
	case *arrow.TimestampType:
		return from.(*arrow.TimestampType).Unit == to.Unit // the ids are equal
	case *arrow.FixedSizeBinaryType:
		return from.(*arrow.FixedSizeBinaryType).ByteWidth == to.ByteWidth // the ids are equal
	case *arrow.Time64Type:
		return from.(*arrow.Time64Type).Unit == to.Unit // the ids are equal
	case arrow.NestedType:
		have, want := from.(arrow.NestedType).Fields(), to.Fields() // the ids are equal
		for i := range want {
			if len(have) != len(want) || from.ID() == arrow.STRUCT && !sameField(have[i], want[i]) || !sameStorage(have[i].Type, want[i].Type) {
				return false
			}
		}
	}
	return true
}

func retype(a arrow.Array, to arrow.DataType) arrow.Array {
	if arrow.TypeEqual(a.DataType(), to, arrow.CheckMetadata()) {
		a.Retain()
		return a
	}
	d := retypeData(a.Data(), to)
	defer d.Release()
	return array.MakeFromData(d)
}

func retypeData(d arrow.ArrayData, to arrow.DataType) arrow.ArrayData {
	storage := to
	if e, ok := to.(arrow.ExtensionType); ok {
		storage = e.StorageType()
	}
	children := make([]arrow.ArrayData, len(d.Children()))
	if nested, ok := storage.(arrow.NestedType); ok {
		for i, c := range d.Children() {
			children[i] = retypeData(c, nested.Fields()[i].Type)
			defer children[i].Release()
		}
	}
	return array.NewData(to, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
}

func widen(mem memory.Allocator, a arrow.Array, to arrow.DataType, values []int32) arrow.Array {
	buf := memory.NewResizableBuffer(mem)
	defer buf.Release()
	buf.Resize(arrow.Int64Traits.BytesRequired(len(values)))
	for i, out := 0, arrow.Int64Traits.CastFromBytes(buf.Bytes()); i < len(values); i++ {
		out[i] = int64(values[i])
	}
	return widened(mem, a, to, buf)
}

func widenFloats(mem memory.Allocator, a arrow.Array, to arrow.DataType, values []float32) arrow.Array {
	buf := memory.NewResizableBuffer(mem)
	defer buf.Release()
	buf.Resize(arrow.Float64Traits.BytesRequired(len(values)))
	for i, out := 0, arrow.Float64Traits.CastFromBytes(buf.Bytes()); i < len(values); i++ {
		out[i] = float64(values[i])
	}
	return widened(mem, a, to, buf)
}

// widened makes an array of new values with the nulls of a, whose values may begin at an offset.
func widened(mem memory.Allocator, a arrow.Array, to arrow.DataType, values *memory.Buffer) arrow.Array {
	nulls := nullsOf(mem, a)
	if nulls != nil {
		defer nulls.Release()
	}
	d := array.NewData(to, a.Len(), []*memory.Buffer{nulls, values}, nil, a.NullN(), 0)
	defer d.Release()
	return array.MakeFromData(d)
}

// nullsOf returns the validity bitmap of a from its first row on; nil if it has no nulls.
func nullsOf(mem memory.Allocator, a arrow.Array) *memory.Buffer {
	if a.NullN() == 0 {
		return nil
	}
	nulls := memory.NewResizableBuffer(mem)
	nulls.Resize((a.Len() + 7) / 8)
	clear(nulls.Bytes())
	for i := range a.Len() {
		if a.IsValid(i) {
			nulls.Bytes()[i/8] |= 1 << (i % 8)
		}
	}
	return nulls
}
