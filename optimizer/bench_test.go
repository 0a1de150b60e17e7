package optimizer

import (
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// cpu returns the CPU time of this process, all threads.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakHeap samples the heap in use until stop, which returns its peak.
func peakHeap() (stop func() uint64) {
	var peak atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapInuse))
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(done); <-ended; return peak.Load() }
}

func orders(tb testing.TB) *changelog.Schema {
	col := func(name string, k changelog.Kind) changelog.Column {
		return changelog.Column{Name: name, Type: changelog.Primitive(k)}
	}
	s, err := changelog.NewSchema([]changelog.Column{
		col("id", changelog.Long), col("customer", changelog.Long), col("status", changelog.String), col("address", changelog.String),
		col("note", changelog.String), col("qty", changelog.Int),
		{Name: "price", Type: changelog.DecimalOf(12, 2)},
		col("created", changelog.TimestampTZ), col("updated", changelog.TimestampTZ), col("paid", changelog.Boolean),
	}, []string{"id"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func orderRow(dst []changelog.Value, id, version int64) []changelog.Value {
	h := uint64(id)*0x9e3779b97f4a7c15 ^ uint64(version)*0xbf58476d1ce4e5b9
	return append(dst[:0],
		changelog.Value{I: id}, changelog.Value{I: int64(h % 100_000)}, changelog.Value{B: []byte([]string{"new", "paid", "shipped", "closed"}[h%4])},
		changelog.Value{B: strconv.AppendUint([]byte("Street "), h, 16)}, changelog.Value{B: fmt.Appendf(nil, "note %x of version %d, %x", h, version, h*31)},
		changelog.Value{I: int64(h % 50)}, changelog.Value{B: changelog.ShortestInt([]byte{0, byte(h >> 8), byte(h)})},
		changelog.Value{I: 1_700_000_000_000_000 + id}, changelog.Value{I: 1_700_000_000_000_000 + version}, changelog.Value{I: int64(h & 1)})
}

// flushOrders commits changes of a table of orders: n of them, the i-th of key id(i).
func (w *world) flushOrders(n int, id func(i int) int64) (bytes int64) {
	t := w.table()
	s := t.Schemas().Current()
	var add []table.NewFile
	for _, typ := range []mixed.FileType{mixed.Insert, mixed.Delete} {
		var values []changelog.Value
		f := w.write(t.Change(), s, typ, mixed.TreeNode{}, 0, true, n, func(i int) ([]changelog.Value, int64) {
			at := int64(w.seq) + int64(i) + 1
			values = orderRow(values, id(i), at)
			if typ == mixed.Delete {
				for c := 1; c < len(values); c++ {
					values[c] = changelog.NullValue
				}
			}
			return values, at
		})
		bytes += f.Bytes
		add = append(add, f)
	}
	w.names++
	_, err := t.AppendChanges(w.ctx(), table.Commit{
		FlushMark: table.FlushMark{CommitID: "flush-" + strconv.Itoa(w.names), From: w.seq, To: w.seq + changelog.SeqNum(n)}, Add: add,
	})
	w.must(err)
	w.seq += changelog.SeqNum(n)
	return bytes
}

func newOrders(tb testing.TB) *world {
	w := &world{TB: tb, dir: tempDir(tb), disk: nil, now: time.Now()}
	w.openLake()
	schema := orders(tb)
	_, err := w.catalog.Create(w.ctx(), tableName, schema, nil)
	w.must(err)
	w.openDisk()
	_, err = w.reg.Create(w.ctx(), tableName, schema, state.TopicRef{}, nil)
	w.must(err)
	w.clock = time.Now
	w.open()
	tb.Cleanup(func() {
		w.must(w.db.Close())
		w.must(w.catalog.Close())
	})
	return w
}

// BenchmarkMinor merges a million updates in 16 commits, over keys that the base store has.
func BenchmarkMinor(b *testing.B) {
	for _, distinct := range []int64{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("changes=1000000/keys=%d", distinct), func(b *testing.B) {
			const changes, commits = 1_000_000, 16
			w := newOrders(b)
			w.flushOrders(int(distinct), func(i int) int64 { return int64(i) })
			w.once(Minor)
			var total, bytes int64
			var spent time.Duration
			var peak uint64
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				for range commits {
					at := int64(w.seq)
					bytes += w.flushOrders(changes/commits, func(i int) int64 { return (at + int64(i)) * 7919 % distinct })
				}
				runtime.GC()
				stop, before := peakHeap(), cpu()
				b.StartTimer()
				w.once(Minor)
				b.StopTimer()
				spent += cpu() - before
				peak = max(peak, stop())
				total += changes
				b.StartTimer()
			}
			rows := int64(0)
			for _, f := range w.live(table.Data) {
				rows += f.Records
			}
			for _, f := range w.live(table.PositionDeletes) {
				rows -= f.Records
			}
			if rows != distinct {
				b.Fatalf("%d rows live, want %d", rows, distinct)
			}
			b.ReportMetric(float64(spent.Microseconds())/float64(total), "cpu-µs/change")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(total), "µs/change")
			b.ReportMetric(float64(bytes)/1e6/b.Elapsed().Seconds(), "MB/s")
			b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
		})
	}
}

// BenchmarkMajor rewrites a base store of one file in which a tenth of the rows is deleted.
func BenchmarkMajor(b *testing.B) {
	const rows = 1_000_000
	w := newOrders(b)
	for i := range 10 {
		w.flushOrders(rows/10, func(j int) int64 { return int64(i*rows/10 + j) })
		w.once(Minor)
	}
	var spent time.Duration
	var read int64
	var peak uint64
	b.ResetTimer()
	for b.Loop() {
		b.StopTimer()
		at := int64(w.seq)
		w.flushOrders(rows/10, func(i int) int64 { return (at + int64(i)*10) % rows })
		w.once(Minor)
		runtime.GC()
		stop, before := peakHeap(), cpu()
		b.StartTimer()
		report := w.once(Full)
		b.StopTimer()
		spent += cpu() - before
		peak = max(peak, stop())
		for _, d := range report.Done {
			read += d.BytesRead
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(read)/1e6/spent.Seconds(), "MB/cpu-s")
	b.ReportMetric(float64(read)/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/rows, "cpu-ns/row")
	b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
}
