package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/table"
	"firn/ingest"
	"firn/logstore"
	"firn/state"
)

// stageMetrics tells at each scrape how far the stages of each table are behind each other, and whether they hold as many
// rows. It asks no source: that is the pipeline's to know.
type stageMetrics struct {
	store    *logstore.Store
	registry *state.Registry
	catalog  *table.Catalog
	sources  func() []ingest.SourceStatus
	now      func() time.Time

	lag, drift *prometheus.Desc

	mu struct {
		sync.Mutex
		drifts map[changelog.TableID]drift
	}
}

// drift is how many more rows lookups have than the lake, or it than they, when both stood at one change.
type drift struct {
	at   changelog.SeqNum
	rows int64
}

// scrapeTimeout bounds what one scrape reads.
const scrapeTimeout = 5 * time.Second

func newStageMetrics(store *logstore.Store, registry *state.Registry, catalog *table.Catalog, sources func() []ingest.SourceStatus) *stageMetrics {
	m := &stageMetrics{
		store: store, registry: registry, catalog: catalog, sources: sources, now: time.Now,
		lag: prometheus.NewDesc("firn_stage_lag_seconds",
			"Seconds that a stage is behind the one before. log: age of the newest change while its source has more; change, base: age in the log of the oldest change that the store lacks. 0: it has all.",
			[]string{"table", "stage"}, nil),
		drift: prometheus.NewDesc("firn_drift_rows",
			"Difference between the numbers of current rows and of live rows in the base store, when both last stood at one change. Not 0: run firn verify.",
			[]string{"table"}, nil),
	}
	m.mu.drifts = map[changelog.TableID]drift{}
	return m
}

// Describe implements prometheus.Collector.
func (m *stageMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.lag
	to <- m.drift
}

// Collect implements prometheus.Collector.
func (m *stageMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	behind := m.behind()
	for _, t := range m.registry.Tables() {
		p, err := m.registry.Progress(t.ID)
		_, applied, berr := m.store.Bounds(t.ID)
		if errors.Join(err, berr) != nil {
			continue // dropped meanwhile
		}
		if more, known := behind[t.Name]; known {
			var age float64
			if more {
				age = m.age(ctx, t.ID, applied-1, applied, true)
			}
			gauge(m.lag, age, t.Name, "log")
		}
		gauge(m.lag, m.age(ctx, t.ID, p.Flushed, applied, false), t.Name, "change")
		gauge(m.lag, m.age(ctx, t.ID, p.Optimized, applied, false), t.Name, "base")
		if rows, ok := m.drifted(ctx, t, p, applied); ok {
			gauge(m.drift, float64(rows), t.Name)
		}
	}
}

// behind returns for each table that is fed whether a partition of its sources has more than was read.
func (m *stageMetrics) behind() map[string]bool {
	out := map[string]bool{}
	for _, s := range m.sources() {
		for _, p := range s.Partitions {
			if p.Lag >= 0 {
				out[p.Table] = out[p.Table] || p.Lag > 0
			}
		}
	}
	return out
}

// age returns for how many seconds the first change after one has been there: in its source, or in the log. The log may
// have lost it: then it is the oldest that is held. 0: there is none.
func (m *stageMetrics) age(ctx context.Context, id changelog.TableID, after, applied changelog.SeqNum, inSource bool) float64 {
	if oldest, _, err := m.store.Bounds(id); err == nil && after+1 < oldest {
		after = oldest - 1
	}
	if after >= applied {
		return 0
	}
	for c, err := range m.store.Scan(ctx, id, after, after+1) {
		if err != nil {
			break
		}
		at := c.IngestTime
		if inSource && c.SourceTime != 0 {
			at = c.SourceTime
		}
		return math.Max(0, m.now().Sub(time.UnixMicro(at)).Seconds())
	}
	return 0
}

// drifted returns the difference as it was counted last; ok is false before the first time.
func (m *stageMetrics) drifted(ctx context.Context, t *state.Table, p state.Progress, applied changelog.SeqNum) (rows int64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.mu.drifts[t.ID]
	if applied == 0 || p.Optimized != applied || p.Rebuilding || ok && last.at == applied || len(t.Schemas.Current().Key) == 0 {
		return last.rows, ok
	}
	if rows, counted := m.count(ctx, t, applied); counted {
		m.mu.drifts[t.ID] = drift{at: applied, rows: rows}
		return rows, true
	}
	return last.rows, ok
}

// count compares the rows of both sides if they still stand at a change.
func (m *stageMetrics) count(ctx context.Context, t *state.Table, at changelog.SeqNum) (difference int64, counted bool) {
	current, known, err := m.store.RowCount(ctx, t.ID)
	if err != nil || !known {
		return 0, false
	}
	lake, err := m.catalog.Load(ctx, t.Name)
	if err != nil {
		return 0, false
	}
	files, err := lake.Base().Files(ctx)
	if err != nil {
		return 0, false
	}
	var live int64
	for _, f := range files {
		if f.Content == table.Data {
			live += f.Records
		} else {
			live -= f.Records
		}
	}
	_, applied, err := m.store.Bounds(t.ID)
	p, perr := m.registry.Progress(t.ID)
	if errors.Join(err, perr) != nil || applied != at || p.Optimized != at {
		return 0, false
	}
	return max(current-live, live-current), true
}
