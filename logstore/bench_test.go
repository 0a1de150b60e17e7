package logstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"firn/changelog"
)

// benchOptions are those of production, with the given share of memory.
func benchOptions(mem int64) Options { return Options{MemoryBytes: mem, TrimInterval: -1} }

// cpuSeconds is what the process has used.
func cpuSeconds() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// benchRow is a row of about size bytes, half of them random.
func benchRow(s *changelog.Schema, rng *rand.Rand, id int64, size int) changelog.Row {
	text := make([]byte, size-12)
	for i := range text {
		text[i] = 'x'
		if i%2 == 0 {
			text[i] = byte('a' + rng.IntN(26))
		}
	}
	return testRow(s, id, string(text))
}

// BenchmarkAppend appends changes with after images from one goroutine, two appends in flight: 80 % updates of 1 M
// keys, 5 % deletes, 15 % creates. A change is one iteration. It is synced on the disk of b.TempDir, and runs until
// the last sync.
func BenchmarkAppend(b *testing.B) {
	for _, row := range []int{250, 400} {
		for _, batch := range []int{100, 1000, 5000} {
			b.Run(fmt.Sprintf("row=%dB/batch=%d", row, batch), func(b *testing.B) { benchAppend(b, row, batch) })
		}
	}
}

func benchAppend(b *testing.B, row, batch int) {
	s := openTest(b, b.TempDir(), benchOptions(256<<20))
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]changelog.Row, 256)
	for i := range rows {
		rows[i] = benchRow(s.schema, rng, int64(i), row)
	}
	changes := make([]changelog.Change, batch)
	keys := make([]byte, 0, batch*8)
	created, offset := int64(1_000_000), int64(0)
	types, value := []*changelog.Type{changelog.Primitive(changelog.Long)}, make([]changelog.Value, 1)
	fill := func() {
		keys = keys[:0]
		for i := range changes {
			c := &changes[i]
			*c = changelog.Change{Op: changelog.OpUpdate, SourceTime: 1e15 + offset, IngestTime: 1e15 + offset/1000}
			c.Position = changelog.Position{Source: "shop", Topic: "shop.public.orders", Offset: offset, Native: "lsn:0/1A2B3C4D"}
			offset++
			value[0].I = rng.Int64N(1_000_000)
			switch p := rng.IntN(100); {
			case p < 5:
				c.Op = changelog.OpDelete
			case p < 20:
				c.Op = changelog.OpCreate
				created++
				value[0].I = created
			}
			n := len(keys)
			keys = changelog.AppendKey(keys, types, value)
			c.Key = keys[n:]
			if c.Op != changelog.OpDelete {
				c.After = rows[rng.IntN(len(rows))]
			}
		}
	}
	ctx := context.Background()
	var flight []*Ticket
	cpu := cpuSeconds()
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	done := 0
	for ; done < b.N; done += batch {
		fill()
		t, err := s.Submit(ctx, changelog.Append{
			Tables:    []changelog.TableAppend{{Table: s.table, Changes: changes}},
			Positions: []changelog.StreamPosition{{StreamID: testStream, Next: offset}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if flight = append(flight, t); len(flight) > 2 {
			if _, err := flight[0].Wait(ctx); err != nil {
				b.Fatal(err)
			}
			flight = flight[1:]
		}
	}
	for _, t := range flight {
		if _, err := t.Wait(ctx); err != nil {
			b.Fatal(err)
		}
	}
	wall, used := time.Since(begin).Seconds(), cpuSeconds()-cpu
	b.StopTimer()
	b.ReportMetric(float64(done)/wall, "changes/s")
	b.ReportMetric(used*1e6/float64(done), "cpu-µs/change")
	m := s.db.Metrics()
	if b.N > 1 {
		settle(b, s) // the debt that the appends left is theirs, too
		b.ReportMetric((cpuSeconds()-cpu)*1e6/float64(done), "cpu-µs/change-settled")
		b.Logf("settled: debt %d MiB, %d running", s.db.Metrics().Compact.EstimatedDebt>>20, s.db.Metrics().Compact.NumInProgress)
	}
	s.db.stall.mu.Lock()
	b.Logf("%d changes in %.1fs, cpu %.1fs; disk %d MiB, flushes %d, compactions %d, debt %d MiB, sublevels %d, stalls %v %v, paced %v",
		done, wall, used, m.DiskSpaceUsage()>>20, m.Flush.Count, m.Compact.Count, m.Compact.EstimatedDebt>>20, m.Levels[0].Sublevels,
		s.db.stall.count, s.db.stall.seconds, metricValue(b, s.metrics.paced))
	s.db.stall.mu.Unlock()
}

// benchRows fills a table with n rows of 250 B, ids 0, 2, 4, …, and lets compactions come to rest.
func benchRows(b *testing.B, n int64, mem int64) *testStore {
	b.Helper()
	s := openTest(b, b.TempDir(), benchOptions(mem))
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]changelog.Row, 256)
	for i := range rows {
		rows[i] = benchRow(s.schema, rng, int64(i), 250)
	}
	err := s.PutRows(context.Background(), s.table, func(yield func(RowEntry, error) bool) {
		for i := range n {
			if !yield(RowEntry{Key: testKey(2 * i), Seq: 0, Row: rows[i%256]}, nil) {
				return
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	settle(b, s)
	return s
}

func settle(b *testing.B, s *testStore) {
	b.Helper()
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	for range 1200 {
		if m := s.db.Metrics(); m.Compact.NumInProgress == 0 && m.Compact.EstimatedDebt < 1<<20 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// BenchmarkRow looks up uniform keys among 1 M rows of 250 B. One and two goroutines; 100 keys in one call.
func BenchmarkRow(b *testing.B) {
	s := benchRows(b, 1_000_000, 256<<20)
	ctx := context.Background()
	for _, what := range []string{"hit", "miss"} {
		odd := int64(0)
		if what == "miss" {
			odd = 1
		}
		one := func(b *testing.B, rng *rand.Rand) {
			v, err := s.Row(ctx, s.table, testKey(2*rng.Int64N(1_000_000)+odd))
			if err != nil || v.Found != (odd == 0) {
				b.Errorf("%+v %v", v, err)
			}
		}
		b.Run(what, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(3, 4))
			b.ReportAllocs()
			for b.Loop() {
				one(b, rng)
			}
		})
		b.Run(what+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				rng := rand.New(rand.NewPCG(3, rand.Uint64()))
				for pb.Next() {
					one(b, rng)
				}
			})
		})
		b.Run(what+"/keys=100", func(b *testing.B) {
			rng := rand.New(rand.NewPCG(3, 4))
			keys := make([]changelog.Key, 100)
			n := 0
			for b.Loop() {
				for i := range keys {
					keys[i] = testKey(2*rng.Int64N(1_000_000) + odd)
				}
				if _, err := s.Rows(ctx, s.table, keys); err != nil {
					b.Fatal(err)
				}
				n += len(keys)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// BenchmarkScan reads a log of 1 M changes of 250 B rows; a pass is one iteration.
func BenchmarkScan(b *testing.B) {
	const total, batch = 1_000_000, 1000
	s := openTest(b, b.TempDir(), benchOptions(256<<20))
	rng := rand.New(rand.NewPCG(1, 2))
	row := benchRow(s.schema, rng, 1, 250)
	changes := make([]changelog.Change, batch)
	for n := int64(0); n < total; n += batch {
		for i := range changes {
			changes[i] = s.put(changelog.OpUpdate, n+int64(i), "", n+int64(i))
			changes[i].After = row
		}
		s.append(n+batch, changes...)
	}
	ctx := context.Background()
	held, err := s.LogBytes(s.table)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(held)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range s.Scan(ctx, s.table, 0, total) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != total {
			b.Fatalf("%d changes, want %d", n, total)
		}
	}
	b.ReportMetric(float64(total*b.N)/b.Elapsed().Seconds(), "changes/s")
}
