package datafile

import (
	"bytes"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/metadata"

	"firn/changelog"
)

// TestEmptyTextBound: the lower bound of a column of texts is the empty one, also where all texts of a batch are empty.
func TestEmptyTextBound(t *testing.T) {
	s, err := changelog.NewSchema([]changelog.Column{{Name: "s", Type: changelog.Primitive(changelog.String)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, s, false, Options{BatchRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	// One empty text, as compute kernels may leave it: a buffer without bytes.
	data := array.NewData(arrow.BinaryTypes.String, 1, []*memory.Buffer{nil, memory.NewBufferBytes(make([]byte, 8)), memory.NewBufferBytes(nil)}, nil, 0, 0)
	defer data.Release()
	empty := array.NewRecordBatch(w.appender.Schema(), []arrow.Array{array.MakeFromData(data)}, 1)
	if err := w.Write(empty); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteValues([]changelog.Value{{B: []byte("b")}}, 0); err != nil {
		t.Fatal(err)
	}
	done, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := done.Metadata.RowGroup(0).ColumnChunk(0)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := chunk.Statistics()
	if err != nil {
		t.Fatal(err)
	}
	if got := stats.(*metadata.ByteArrayStatistics).Min(); string(got) != "" {
		t.Errorf("the least text is %q", got)
	}
}
