package datafile

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"firn/changelog"
)

// benchRows makes rows of ten mixed columns, about 130 bytes each as the common row form.
func benchRows(b testing.TB, n int) (*changelog.Schema, []changelog.Row) {
	b.Helper()
	s, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: primitive(changelog.Long)},
		{Name: "name", Type: primitive(changelog.String)},
		{Name: "email", Type: primitive(changelog.String)},
		{Name: "balance", Type: changelog.DecimalOf(12, 2)},
		{Name: "score", Type: primitive(changelog.Double)},
		{Name: "active", Type: primitive(changelog.Boolean)},
		{Name: "created", Type: primitive(changelog.TimestampTZ)},
		{Name: "born", Type: primitive(changelog.Date)},
		{Name: "visits", Type: primitive(changelog.Int)},
		{Name: "note", Type: primitive(changelog.String)},
	}, []string{"id"})
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]changelog.Row, n)
	for i := range rows {
		id := r.Int64N(10_000_000)
		note := changelog.NullValue
		if i%3 == 0 {
			note = changelog.Value{B: fmt.Appendf(nil, "note %x of many", r.Uint64())}
		}
		rows[i] = changelog.AppendRow(nil, s, []changelog.Value{
			{I: id},
			{B: fmt.Appendf(nil, "customer %d", id)},
			{B: fmt.Appendf(nil, "c%d@example.com", id)},
			{B: changelog.ShortestInt([]byte{0, 0, byte(id >> 16), byte(id >> 8), byte(id)})},
			changelog.DoubleValue(r.Float64()),
			{I: id & 1},
			{I: 1_700_000_000_000_000 + r.Int64N(1e12)},
			{I: 10_000 + id%9_000},
			{I: id % 1_000},
			note,
		})
	}
	return s, rows
}

func writeRows(b testing.TB, w io.Writer, s *changelog.Schema, rows []changelog.Row, o Options) *Written {
	b.Helper()
	out, err := NewWriter(w, s, true, o)
	if err != nil {
		b.Fatal(err)
	}
	for i, r := range rows {
		if err := out.WriteRow(r, int64(i)); err != nil {
			b.Fatal(err)
		}
	}
	written, err := out.Close()
	if err != nil {
		b.Fatal(err)
	}
	return written
}

func BenchmarkWrite(b *testing.B) {
	for _, level := range []int{1, 3} {
		for _, n := range []int{1_000, 200_000} {
			s, rows := benchRows(b, n)
			b.Run(fmt.Sprintf("zstd=%d/rows=%d", level, n), func(b *testing.B) {
				var size, done int64
				for b.Loop() {
					size = writeRows(b, io.Discard, s, rows, Options{Level: level}).Bytes
					done += int64(n)
				}
				b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "rows/s")
				b.ReportMetric(float64(size)/float64(n), "B/row")
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	const n = 200_000
	s, rows := benchRows(b, n)
	var file bytes.Buffer
	writeRows(b, &file, s, rows, Options{})
	key, err := ProjectKey(s)
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]struct {
		schema *changelog.Schema
		use    func(*Rows, int)
	}{
		"keys":    {key, func(r *Rows, i int) { scratch = r.AppendKey(scratch[:0], i) }},
		"rows":    {s, func(r *Rows, i int) { scratch = r.AppendRow(scratch[:0], i) }},
		"batches": {s, nil},
	} {
		b.Run(name, func(b *testing.B) {
			var done int64
			for b.Loop() {
				done += readBench(b, file.Bytes(), c.schema, c.use)
			}
			b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

var scratch []byte //nolint:gochecknoglobals // keeps the benchmark's work from being dropped

func readBench(b *testing.B, file []byte, s *changelog.Schema, use func(*Rows, int)) (n int64) {
	b.Helper()
	r, err := Open(bytes.NewReader(file), int64(len(file)), s, true, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	in := NewRows(s)
	for batch, err := range r.Batches(b.Context()) {
		if err != nil {
			b.Fatal(err)
		}
		if err := in.Reset(batch); err != nil {
			b.Fatal(err)
		}
		for i := range in.Len() {
			if use != nil {
				use(in, i)
			}
		}
		n += batch.NumRows()
	}
	return n
}
