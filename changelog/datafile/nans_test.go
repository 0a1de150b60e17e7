package datafile

import (
	"fmt"
	"math"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"firn/changelog"
)

// TestNaNsOfBatches: of a batch that is a slice only its own values count, and not what nulls stand on.
func TestNaNsOfBatches(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "f", Type: primitive(changelog.Double)},
		{Name: "l", Type: changelog.ListOf(primitive(changelog.Double))},
		{Name: "m", Type: changelog.MapOf(primitive(changelog.Double), primitive(changelog.Double))},
		{Name: "n", Type: primitive(changelog.Long)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := NewAppender(memory.DefaultAllocator, s, true)
	defer a.Release()
	nan := changelog.DoubleValue(math.NaN())
	for range 4 {
		list := changelog.AppendList(nil, s.Columns[1].Type, []changelog.Value{nan, nan, changelog.DoubleValue(1)})
		pairs := changelog.AppendMap(nil, s.Columns[2].Type, []changelog.Value{nan}, []changelog.Value{changelog.DoubleValue(2)})
		if err := a.AppendValues([]changelog.Value{nan, {B: list}, {B: pairs}, {I: 1}}, 1); err != nil {
			t.Fatal(err)
		}
	}
	batch := a.NewBatch()
	defer batch.Release()
	// A validity bitmap that takes the second value away, and leaves it in place.
	d := batch.Column(0).Data()
	valid := memory.NewBufferBytes([]byte{0b1101})
	holed := array.NewData(d.DataType(), 4, []*memory.Buffer{valid, d.Buffers()[1]}, nil, 1, 0)
	defer holed.Release()
	f := array.MakeFromData(holed)
	defer f.Release()
	columns := append([]arrow.Array{f}, batch.Columns()[1:]...)
	whole := array.NewRecordBatch(batch.Schema(), columns, 4)
	defer whole.Release()
	part := whole.NewSlice(1, 3)
	defer part.Release()
	for name, c := range map[string]struct {
		batch arrow.RecordBatch
		want  string
	}{"whole": {whole, "map[1:3 5:8 6:4 7:0]"}, "slice": {part, "map[1:1 5:4 6:2 7:0]"}} {
		n := newNaNs(a.Schema())
		n.add(c.batch)
		if got := fmt.Sprint(n.counts); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
