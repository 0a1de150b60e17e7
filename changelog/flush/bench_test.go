package flush

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// fixedLog is a log in memory.
type fixedLog []changelog.Change

func (l fixedLog) scan(to int) iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		for _, c := range l[:to] {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// BenchmarkBatch writes the files of one commit: changes of rows of about 300 bytes, an I and an ED row each, with the
// before image in the ED row or only the key, at the root or over four nodes. It reports CPU time of the process, with
// that of garbage collection and page compression.
func BenchmarkBatch(b *testing.B) {
	for _, before := range []bool{true, false} {
		for _, buckets := range []int{1, 4} {
			b.Run(fmt.Sprintf("before=%v/buckets=%d/row=300B", before, buckets), func(b *testing.B) { benchmarkBatch(b, before, buckets) })
		}
	}
}

func benchmarkBatch(b *testing.B, before bool, buckets int) {
	const changes = 200_000
	dir := b.TempDir()
	catalog := must(table.Open(b.Context(), table.Options{URI: filepath.Join(dir, "c.db"), Warehouse: filepath.Join(dir, "lake")}))
	defer func() { _ = catalog.Close() }()
	schema := orders(b)
	t := must(catalog.Create(b.Context(), tableName, schema, nil))
	log, size := orderLog(schema, changes, before)
	o := Options{}
	o.EnsureDefaults()
	var cpu time.Duration
	var bytes int64
	n := 0
	for b.Loop() {
		started := cpuTime()
		w := newBatch(t, changelog.Schemas{schema}, buckets, o.File)
		if _, _, err := w.fill(context.Background(), 0, log.scan(changes), limits{rows: 1 << 30, bytes: 1 << 40}); err != nil {
			b.Fatal(err)
		}
		add, err := w.finish()
		if err != nil {
			b.Fatal(err)
		}
		cpu += cpuTime() - started
		n += changes
		bytes = 0
		for _, f := range add {
			bytes += f.Bytes
		}
		if err := w.abort(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(n), "cpu-ns/change")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
	b.ReportMetric(float64(size), "row-B")
	b.ReportMetric(float64(bytes)/changes, "file-B/change")
	b.ReportMetric(0, "ns/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func orders(tb testing.TB) *changelog.Schema {
	column := func(name string, t *changelog.Type) changelog.Column { return changelog.Column{Name: name, Type: t} }
	long, text := changelog.Primitive(changelog.Long), changelog.Primitive(changelog.String)
	s, err := changelog.NewSchema([]changelog.Column{
		column("id", long), column("customer_id", long), column("status", text), column("amount", changelog.DecimalOf(12, 2)),
		column("created", changelog.Primitive(changelog.TimestampTZ)), column("updated", changelog.Primitive(changelog.TimestampTZ)),
		column("address", text), column("note", text), column("quantity", changelog.Primitive(changelog.Int)),
		column("weight", changelog.Primitive(changelog.Double)),
	}, []string{"id"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// orderLog makes changes of rows that a zstd page shrinks by about three.
func orderLog(s *changelog.Schema, n int, before bool) (fixedLog, int) {
	rnd := rand.New(rand.NewPCG(1, 1))
	words := []string{"street ", "north ", "delivery ", "blue ", "fragile ", "call ", "seven ", "avenue ", "urgent ", "gate "}
	text := func(n int) []byte {
		var b []byte
		for len(b) < n {
			b = fmt.Appendf(b, "%s%d ", words[rnd.IntN(len(words))], rnd.IntN(1000))
		}
		return b[:n]
	}
	row := func(id int64) changelog.Row {
		return changelog.AppendRow(nil, s, []changelog.Value{
			{I: id},
			{I: rnd.Int64N(1e6)},
			{B: []byte([]string{"new", "paid", "sent", "returned"}[rnd.IntN(4)])},
			{B: changelog.ShortestInt([]byte{0, byte(rnd.IntN(256)), byte(rnd.IntN(256)), byte(rnd.IntN(256))})},
			{I: 1.7e15 + rnd.Int64N(1e12)},
			{I: 1.7e15 + rnd.Int64N(1e12)},
			{B: text(110)},
			{B: text(130)},
			{I: rnd.Int64N(100)},
			changelog.DoubleValue(rnd.Float64()),
		})
	}
	log := make(fixedLog, n)
	for i := range log {
		id := rnd.Int64N(1e7)
		log[i] = changelog.Change{
			Seq: changelog.SeqNum(i + 1), Op: changelog.OpUpdate, After: row(id), Position: changelog.Position{Source: "k", Topic: "t", Offset: int64(i)}, //nolint:gosec // small
			Key: changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{{I: id}}),
		}
		if before {
			log[i].Before = row(id)
		}
	}
	return log, len(log[0].After)
}

// BenchmarkHash is the price of a change's node.
func BenchmarkHash(b *testing.B) {
	s := orders(b)
	key := changelog.AppendKey(nil, s.KeyTypes(), []changelog.Value{{I: 123456789}})
	for b.Loop() {
		if _, err := mixed.HashOf(s, key); err != nil {
			b.Fatal(err)
		}
	}
}
