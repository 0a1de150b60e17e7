package datafile

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// This file is about columns that firn does not write and others do: what Iceberg's Java library reads as a type, firn does, too
// (org.apache.iceberg.data.parquet.BaseParquetReaders, GenericParquetReaders).

// foreign returns how columns of a type that firn does not write are read; nil: they are not.
func foreign(from, to arrow.DataType) conversion {
	switch {
	case from.ID() == arrow.NULL: // a column that a writer had no value for
		return func(mem memory.Allocator, a arrow.Array) arrow.Array { return array.MakeArrayOfNull(mem, to, a.Len()) }
	case to.ID() == arrow.INT32 || to.ID() == arrow.INT64:
		return foreignInt(from, to)
	case to.ID() == arrow.STRING && from.ID() == arrow.BINARY, to.ID() == arrow.BINARY && from.ID() == arrow.STRING:
		// Text without the annotation, or with one of ENUM, JSON, BSON; bytes that are called text.
		return func(_ memory.Allocator, a arrow.Array) arrow.Array { return retype(a, to) }
	}
	switch to := to.(type) {
	case *arrow.FixedSizeBinaryType:
		if _, ok := from.(*extensions.UUIDType); ok && to.ByteWidth == 16 {
			return func(_ memory.Allocator, a arrow.Array) arrow.Array { return retype(a, to) }
		}
	case *arrow.TimestampType:
		if from, ok := from.(*arrow.TimestampType); ok { // INT96 is read as nanoseconds
			return rescale[int64](to, from.Unit, to.Unit)
		}
	case *arrow.Time64Type:
		switch from := from.(type) {
		case *arrow.Time64Type:
			return rescale[int64](to, from.Unit, to.Unit)
		case *arrow.Time32Type:
			return rescale[int32](to, from.Unit, to.Unit)
		}
	}
	return nil
}

// foreignInt reads integers that are annotated as narrower ones.
func foreignInt(from, to arrow.DataType) conversion {
	wide := to.ID() == arrow.INT64
	switch from.ID() {
	case arrow.INT8:
		return intsOf[int8](to, wide)
	case arrow.INT16:
		return intsOf[int16](to, wide)
	case arrow.UINT8:
		return intsOf[uint8](to, wide)
	case arrow.UINT16:
		return intsOf[uint16](to, wide)
	case arrow.UINT32:
		if wide {
			return intsOf[uint32](to, wide)
		}
	default:
	}
	return nil
}

func intsOf[F int8 | int16 | uint8 | uint16 | uint32](to arrow.DataType, wide bool) conversion {
	if wide {
		return mapValues(to, func(v F) int64 { return int64(v) })
	}
	return mapValues(to, func(v F) int32 { return int32(v) }) //nolint:gosec // not of uint32: see foreignInt
}

// rescale reads times of another unit; a finer one is cut down, also before 1970.
func rescale[F int32 | int64](to arrow.DataType, from, unit arrow.TimeUnit) conversion {
	per := func(u arrow.TimeUnit) int64 { return int64(math.Pow10(3 * int(u))) } // units a second
	have, want := per(from), per(unit)
	if want >= have {
		n := want / have
		return mapValues(to, func(v F) int64 { return int64(v) * n })
	}
	n := have / want
	return mapValues(to, func(v F) int64 {
		q := int64(v) / n
		if int64(v)%n < 0 {
			q--
		}
		return q
	})
}

// mapValues makes an array of what f makes of each value.
func mapValues[F, T arrow.IntType | arrow.UintType](to arrow.DataType, f func(F) T) conversion {
	return func(mem memory.Allocator, a arrow.Array) arrow.Array {
		in := arrow.GetValues[F](a.Data(), 1)
		buf := memory.NewResizableBuffer(mem)
		defer buf.Release()
		buf.Resize(len(in) * to.(arrow.FixedWidthDataType).Bytes()) // integers and times are
		for i, out := 0, arrow.GetData[T](buf.Bytes()); i < len(in); i++ {
			out[i] = f(in[i])
		}
		return widened(mem, a, to, buf)
	}
}
