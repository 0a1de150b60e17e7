package decode

import (
	"bytes"
	"testing"

	"firn/changelog"
)

// changesOf returns the row changes of a recording's topics whose name ends as given.
func changesOf(t testing.TB, file string, suffixes ...string) []Record {
	t.Helper()
	var out []Record
	for _, l := range readLines(t, file) {
		for _, s := range suffixes {
			if l.Value != nil && bytes.HasSuffix([]byte(l.Topic), []byte("."+s)) && bytes.Contains(l.Value, []byte(`"after":`)) {
				out = append(out, l.Record)
			}
		}
	}
	return out
}

// BenchmarkDecode decodes the changes of one topic of the generated stream. Bytes are those of keys and values.
func BenchmarkDecode(b *testing.B) {
	hints := expectedStream(b)["customers"].hints(b)
	for _, c := range []struct {
		name, file string
		options    Options
	}{
		{"json", "stream_2000.jsonl.gz", Options{Format: FormatPlain, Hints: hints}},
		{"json_schema", "stream_2000_schema.jsonl.gz", Options{Format: FormatSchema}},
		{"json_auto", "stream_2000_schema.jsonl.gz", Options{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			records := changesOf(b, samples+c.file, "customers")
			n := int64(0)
			for _, r := range records {
				n += int64(len(r.Key) + len(r.Value))
			}
			d := newDecoder(b, c.options)
			b.SetBytes(n)
			b.ReportAllocs()
			rows := 0
			for b.Loop() {
				for _, r := range records {
					ev, err := d.Decode(r)
					if err != nil {
						b.Fatal(err)
					}
					rows += len(ev.Key)
				}
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// BenchmarkDecodeForeign decodes the row changes of each tool's messages.
func BenchmarkDecodeForeign(b *testing.B) {
	for form := FormCanal; form <= FormDMS; form++ {
		b.Run(formNames[form], func(b *testing.B) {
			o := Options{Form: form}
			if form == FormDMS {
				o.KeyColumns = []string{"id"}
			}
			d := newDecoder(b, o)
			var records []Record
			n, events := int64(0), 0
			for _, l := range foreignLines(b, formNames[form]) {
				r := Record{Topic: "t", Value: l}
				if ev, err := d.Decode(r); err == nil && ev.Kind == Change {
					records, n = append(records, r), n+int64(len(l))
				}
			}
			b.SetBytes(n)
			b.ReportAllocs()
			for b.Loop() {
				for _, r := range records {
					_, err := d.Decode(r)
					for events++; err == nil && d.More(); events++ {
						_, err = d.Next()
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkMapping turns decoded events into rows and keys.
func BenchmarkMapping(b *testing.B) {
	records := changesOf(b, samples+"stream_2000_schema.jsonl.gz", "order_items")
	d := newDecoder(b, Options{})
	ev, err := d.Decode(records[0])
	if err != nil {
		b.Fatal(err)
	}
	m, _, err := Plan(nil, ev.Shape, PlanOptions{})
	if err != nil {
		b.Fatal(err)
	}
	var row changelog.Row
	var key changelog.Key
	b.ReportAllocs()
	for b.Loop() {
		row = m.Row(row[:0], ev.After)
		key = m.Key(key[:0], ev.Key)
	}
}

// BenchmarkDecodeAvro decodes the changes of wire_avro.jsonl. Bytes are those of keys and values.
func BenchmarkDecodeAvro(b *testing.B) {
	schemas := sampleSchemas(b)
	d := newDecoder(b, framings["confluent prefix"])
	n := int64(0)
	lines := readLines(b, samples+"wire_avro.jsonl")[:3]
	for _, l := range lines {
		n += int64(len(l.Key) + len(l.Value))
		if _, err := decodeFramed(b, d, l.Record, schemas); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(n)
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		for i := range lines {
			ev, err := d.Decode(lines[i].Record)
			if err != nil {
				b.Fatal(err)
			}
			rows += len(ev.Key)
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkDecodeJSONSchema decodes the changes of one topic of the generated stream, framed. Bytes are those of keys and values.
func BenchmarkDecodeJSONSchema(b *testing.B) {
	schemas := registrar{}
	records := changesOf(b, samples+"stream_2000_schema.jsonl.gz", "customers")
	for i := range records {
		records[i] = schemas.asFramedJSON(b, records[i])
	}
	benchFramed(b, newDecoder(b, Options{Format: FormatConfluentJSON}), records, schemas)
}

// BenchmarkDecodeProtobuf is the same of Protobuf.
func BenchmarkDecodeProtobuf(b *testing.B) {
	schemas := registrar{}
	records := changesOf(b, samples+"stream_2000_schema.jsonl.gz", "customers")
	out := records[:0]
	for _, r := range records {
		r, why := schemas.asProtobuf(b, r, nullableOptional)
		if why == "" { // no null in a list
			out = append(out, r)
		}
	}
	benchFramed(b, newDecoder(b, Options{Format: FormatConfluentProtobuf}), out, schemas)
}

func benchFramed(b *testing.B, d *Decoder, records []Record, schemas map[SchemaRef]Schema) {
	n := int64(0)
	for _, r := range records {
		n += int64(len(r.Key) + len(r.Value))
		if _, err := decodeFramed(b, d, r, schemas); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(n)
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		for _, r := range records {
			ev, err := d.Decode(r)
			if err != nil {
				b.Fatal(err)
			}
			rows += len(ev.Key)
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "records/s")
}
