package logstore

import (
	"errors"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
)

// metrics are what the Store counts as it goes; what Pebble and the registry know is read when it is asked for.
type metrics struct {
	reg        prometheus.Registerer
	collectors []prometheus.Collector

	append, batch, trim            prometheus.Histogram
	changes, batches, bytes, paced prometheus.Counter
	trimErrors                     prometheus.Counter
}

func newMetrics(s *Store, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{reg: reg}
	seconds := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "firn_log_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		})
		m.collectors = append(m.collectors, h)
		return h
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "firn_log_" + name, Help: help})
		m.collectors = append(m.collectors, c)
		return c
	}
	m.append = seconds("append_seconds", "Seconds from the submission of an append until it is synced.")
	m.batch = seconds("batch_seconds", "Seconds from the first append of a batch until it is synced.")
	m.trim = seconds("trim_seconds", "Seconds that trimming a table's log took.")
	m.changes = counter("changes_total", "Changes synced.")
	m.batches = counter("batches_total", "Batches synced.")
	m.bytes = counter("bytes_total", "Bytes synced, before compression.")
	m.paced = counter("paced_seconds_total", "Seconds that appends were held back so that Pebble need not stall.")
	m.trimErrors = counter("trim_errors_total", "Trims that failed.")
	m.collectors = append(m.collectors, newCollector(s))
	if reg == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := reg.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// close takes the metrics away: their source is about to be closed.
func (m *metrics) close() {
	if m.reg == nil {
		return
	}
	for _, c := range m.collectors {
		m.reg.Unregister(c)
	}
}

func (m *metrics) synced(g *group, changes int) {
	m.batch.Observe(time.Since(g.begin).Seconds())
	m.batches.Inc()
	m.bytes.Add(float64(g.bytes))
	m.changes.Add(float64(changes))
}

// sample is one metric that collector reads.
type sample struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*pebble.Metrics) float64
}

// collector reads the state of Store, registry and Pebble at each scrape.
type collector struct {
	s       *Store
	samples []sample

	seq, parked, held, stallCount, stallSeconds, background, disk, full *prometheus.Desc
}

func newCollector(s *Store) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	c := &collector{
		s:            s,
		seq:          desc("firn_table_seq", "SeqNum that a table has reached: applied to the log, flushed, optimized.", "table", "kind"),
		parked:       desc("firn_parked_records", "Records parked now.", "table", "reason"),
		held:         desc("firn_log_held_bytes", "Bytes of log blocks held, before compression.", "table"),
		stallCount:   desc("firn_pebble_stalls_total", "Write stalls of Pebble.", "reason"),
		stallSeconds: desc("firn_pebble_stall_seconds_total", "Seconds that Pebble stalled writes.", "reason"),
		background:   desc("firn_pebble_background_errors_total", "Flushes and compactions that failed; Pebble tries them again."),
		disk:         desc("firn_pebble_disk_bytes", "Disk space in use."),
		full:         desc("firn_log_full", "1 while appends are refused for want of disk space."),
	}
	c.samples = pebbleSamples()
	return c
}

func pebbleSamples() []sample {
	var out []sample
	add := func(kind prometheus.ValueType, name, help string, value func(*pebble.Metrics) float64) {
		out = append(out, sample{prometheus.NewDesc("firn_pebble_"+name, help, nil, nil), kind, value})
	}
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	add(counter, "wal_written_bytes_total", "Bytes written to the write-ahead log.", func(m *pebble.Metrics) float64 { return float64(m.WAL.BytesWritten) })
	add(counter, "wal_in_bytes_total", "Bytes of batches given to the write-ahead log.", func(m *pebble.Metrics) float64 { return float64(m.WAL.BytesIn) })
	add(gauge, "memtable_bytes", "Bytes of memtables and large batches.", func(m *pebble.Metrics) float64 { return float64(m.MemTable.Size) })
	add(gauge, "memtables", "Number of memtables.", func(m *pebble.Metrics) float64 { return float64(m.MemTable.Count) })
	add(gauge, "memtable_zombie_bytes", "Bytes of memtables that only open iterators hold.", func(m *pebble.Metrics) float64 { return float64(m.MemTable.ZombieSize) })
	add(counter, "flushes_total", "Memtable flushes.", func(m *pebble.Metrics) float64 { return float64(m.Flush.Count) })
	add(counter, "flush_work_seconds_total", "Seconds that flushes worked.", func(m *pebble.Metrics) float64 { return m.Flush.WriteThroughput.WorkDuration.Seconds() })
	add(counter, "flush_bytes_total", "Bytes that flushes wrote.", func(m *pebble.Metrics) float64 { return float64(m.Flush.WriteThroughput.Bytes) })
	add(gauge, "l0_sublevels", "Sublevels of level 0.", func(m *pebble.Metrics) float64 { return float64(m.Levels[0].Sublevels) })
	add(gauge, "read_amplification", "Levels and sublevels that a lookup may visit.", func(m *pebble.Metrics) float64 { return float64(m.ReadAmp()) })
	add(counter, "compactions_total", "Compactions.", func(m *pebble.Metrics) float64 { return float64(m.Compact.Count) })
	add(gauge, "compactions_running", "Compactions that run now.", func(m *pebble.Metrics) float64 { return float64(m.Compact.NumInProgress) })
	add(gauge, "compaction_debt_bytes", "Bytes that have to be compacted to come to rest.", func(m *pebble.Metrics) float64 { return float64(m.Compact.EstimatedDebt) })
	add(counter, "compacted_bytes_total", "Bytes that compactions wrote.", func(m *pebble.Metrics) float64 {
		t := m.Total()
		return float64(t.TableBytesCompacted + t.BlobBytesCompacted)
	})
	add(gauge, "cache_bytes", "Bytes in the block cache.", func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Size) })
	add(counter, "cache_hits_total", "Hits of the block cache.", func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Hits) })
	add(counter, "cache_misses_total", "Misses of the block cache.", func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Misses) })
	add(counter, "filter_hits_total", "Block reads that a bloom filter saved.", func(m *pebble.Metrics) float64 { return float64(m.Filter.Hits) })
	add(counter, "filter_misses_total", "Questions that a bloom filter could not answer.", func(m *pebble.Metrics) float64 { return float64(m.Filter.Misses) })
	add(gauge, "tombstones", "Tombstones stored, estimated.", func(m *pebble.Metrics) float64 { return float64(m.Keys.TombstoneCount) })
	add(gauge, "snapshots", "Open snapshots of Pebble.", func(m *pebble.Metrics) float64 { return float64(m.Snapshots.Count) })
	add(gauge, "table_iterators", "Open iterators of files.", func(m *pebble.Metrics) float64 { return float64(m.TableIters) })
	add(gauge, "blob_files", "Live blob files: separated log blocks.", func(m *pebble.Metrics) float64 { return float64(m.BlobFiles.LiveCount) })
	add(gauge, "blob_bytes", "Bytes of live blob files.", func(m *pebble.Metrics) float64 { return float64(m.BlobFiles.LiveSize) })
	return out
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.seq, c.parked, c.held, c.stallCount, c.stallSeconds, c.background, c.disk, c.full} {
		to <- d
	}
	for i := range c.samples {
		to <- c.samples[i].desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, t := range c.s.reg.Tables() {
		_, applied, err := c.s.Bounds(t.ID)
		p, perr := c.s.reg.Progress(t.ID)
		held, herr := c.s.LogBytes(t.ID)
		if errors.Join(err, perr, herr) != nil {
			continue // dropped meanwhile
		}
		send(c.seq, prometheus.GaugeValue, float64(applied), t.Name, "applied")
		send(c.seq, prometheus.GaugeValue, float64(p.Flushed), t.Name, "flushed")
		send(c.seq, prometheus.GaugeValue, float64(p.Optimized), t.Name, "optimized")
		send(c.held, prometheus.GaugeValue, float64(held), t.Name)
	}
	for k, n := range c.s.ParkedCounts() {
		send(c.parked, prometheus.GaugeValue, float64(n.Records), c.tableName(k.Table), k.Reason)
	}
	full, used := c.s.Full()
	send(c.full, prometheus.GaugeValue, float64(flag(full)))
	send(c.disk, prometheus.GaugeValue, float64(used))
	stall := &c.s.db.stall
	stall.mu.Lock()
	for reason, n := range stall.count {
		send(c.stallCount, prometheus.CounterValue, float64(n), reason)
		send(c.stallSeconds, prometheus.CounterValue, stall.seconds[reason], reason)
	}
	send(c.background, prometheus.CounterValue, float64(stall.bgErrors))
	stall.mu.Unlock()
	m := c.s.db.Metrics()
	for i := range c.samples {
		send(c.samples[i].desc, c.samples[i].kind, c.samples[i].value(m))
	}
}

// tableName is the label of a table: empty for records that reached none.
func (c *collector) tableName(id changelog.TableID) string {
	if id == 0 {
		return ""
	}
	if t, ok := c.s.reg.ByID(id); ok {
		return t.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}
