package datafile

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// withEmpty returns a column whose empty texts count in the statistics: where all of a batch are empty, Arrow may have no bytes
// for them, and the Parquet writer takes values without bytes for none at all (arrow-go v18, ByteArrayStatistics.minval). The lower
// bound of the file would then be above them, and readers would skip it. The column is the caller's to release.
func withEmpty(column arrow.Array) arrow.Array {
	data, changed := withEmptyData(column.Data())
	if !changed {
		column.Retain()
		return column
	}
	defer data.Release()
	return array.MakeFromData(data)
}

func withEmptyData(d arrow.ArrayData) (arrow.ArrayData, bool) {
	buffers := append([]*memory.Buffer(nil), d.Buffers()...)
	changed := false
	switch d.DataType().ID() {
	case arrow.STRING, arrow.BINARY:
		if buffers[2] != nil && buffers[2].Bytes() == nil {
			buffers[2], changed = memory.NewBufferBytes([]byte{}), true
		}
	default:
	}
	children := make([]arrow.ArrayData, len(d.Children()))
	for i, c := range d.Children() {
		child, fresh := withEmptyData(c)
		if fresh {
			defer child.Release()
		}
		children[i], changed = child, changed || fresh
	}
	if !changed {
		return d, false
	}
	return array.NewData(d.DataType(), d.Len(), buffers, children, d.NullN(), d.Offset()), true
}
