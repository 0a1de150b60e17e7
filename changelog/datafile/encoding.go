package datafile

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/zeebo/xxh3"
)

// sampleRows bounds how many rows tell whether a column repeats.
const sampleRows = 4096

// repeats reports whether a column is worth a dictionary: at most half of the sampled values are distinct. Nested columns
// and booleans are not looked at (true: the library decides).
func repeats(a arrow.Array) bool {
	hash := hashOf(a)
	if hash == nil {
		return true
	}
	n := min(a.Len(), sampleRows)
	// Open addressing over hashes: at most half full. A collision of 64 bits counts one value too few.
	var table [2 * sampleRows]uint64
	distinct, valid := 0, 0
	for i := range n {
		if a.IsNull(i) {
			continue
		}
		valid++
		h := hash(i) | 1 // 0 is an empty place
		at := h >> 51
		for table[at] != 0 && table[at] != h {
			at = (at + 1) % uint64(len(table))
		}
		if table[at] == 0 {
			table[at] = h
			distinct++
		}
	}
	return 2*distinct <= valid
}

// hashOf returns the hash of a value of a, or nil if a has no simple values.
func hashOf(a arrow.Array) func(i int) uint64 {
	if a.Len() == 0 {
		return nil
	}
	if e, ok := a.(array.ExtensionArray); ok {
		a = e.Storage()
	}
	d := a.Data()
	switch t := a.DataType().(type) {
	case *arrow.StringType, *arrow.BinaryType:
		if d.Buffers()[2] == nil {
			return nil
		}
		offsets := arrow.Int32Traits.CastFromBytes(d.Buffers()[1].Bytes())[d.Offset():]
		data := d.Buffers()[2].Bytes()
		return func(i int) uint64 { return xxh3.Hash(data[offsets[i]:offsets[i+1]]) }
	case arrow.FixedWidthDataType:
		if t.ID() == arrow.BOOL || t.BitWidth()%8 != 0 || d.Buffers()[1] == nil {
			return nil
		}
		width := t.BitWidth() / 8
		values := d.Buffers()[1].Bytes()[d.Offset()*width:]
		if width == 8 {
			return func(i int) uint64 { return mix(binary.LittleEndian.Uint64(values[8*i:])) }
		}
		if width == 4 {
			return func(i int) uint64 { return mix(uint64(binary.LittleEndian.Uint32(values[4*i:]))) }
		}
		return func(i int) uint64 { return xxh3.Hash(values[i*width : (i+1)*width]) }
	}
	return nil
}

// mix spreads a number over 64 bits (the finish of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
