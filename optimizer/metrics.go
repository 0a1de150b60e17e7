package optimizer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	tasks, rowsRead, rowsWritten, bytesRead, bytesWritten *prometheus.CounterVec
	seconds, commit                                       *prometheus.HistogramVec
	moves, mended, expired                                *prometheus.CounterVec
	pending, pendingSeconds, files                        *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		tasks:        counter("firn_optimize_tasks_total", "Optimizing tasks, by how they ended.", "type", "outcome"),
		rowsRead:     counter("firn_optimize_read_rows_total", "Rows that committed optimizing tasks read.", "type"),
		rowsWritten:  counter("firn_optimize_written_rows_total", "Rows that committed optimizing tasks wrote.", "type"),
		bytesRead:    counter("firn_optimize_read_bytes_total", "Bytes of files that committed optimizing tasks read.", "type"),
		bytesWritten: counter("firn_optimize_written_bytes_total", "Bytes of files that committed optimizing tasks wrote.", "type"),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firn_optimize_seconds", Help: "Time of an optimizing task with its commit, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 16),
		}, []string{"type"}),
		moves: counter("firn_optimize_index_moves_total",
			"Times that the position index was brought to a base snapshot that others made: incremental, or whole from the base store.", "table", "how"),
		mended:  counter("firn_optimize_mended_rows_total", "Rows that another optimizer had brought back and that were deleted again.", "table"),
		expired: counter("firn_optimize_expired_total", "What was expired: snapshot, change (file taken out of the change store), file (removed from the disk), orphan (removed).", "kind"),
		// The change store's commits have the same name and another store label.
		commit: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firn_commit_seconds", Help: "Time to commit to the lake, in seconds.",
			ConstLabels: prometheus.Labels{"store": "base"}, Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"outcome"}),
		pending:        gauge("firn_optimize_pending_files", "Change files that are not in the base store yet.", "table"),
		pendingSeconds: gauge("firn_optimize_pending_seconds", "Age of the oldest commit of the change store that is not in the base store yet, in seconds.", "table"),
		files:          gauge("firn_table_files", "Live files of a table's stores, by kind: data, insert, delete, position_delete.", "table", "store", "kind"),
	}
}

func (m *metrics) done(d Done) {
	t := d.Task.Type.String()
	m.tasks.WithLabelValues(t, "committed").Inc()
	m.rowsRead.WithLabelValues(t).Add(float64(d.RowsRead))
	m.rowsWritten.WithLabelValues(t).Add(float64(d.RowsWritten))
	m.bytesRead.WithLabelValues(t).Add(float64(d.BytesRead))
	m.bytesWritten.WithLabelValues(t).Add(float64(d.BytesWritten))
	m.seconds.WithLabelValues(t).Observe(d.Took.Seconds())
}

func (m *metrics) saw(l *lake, now time.Time) {
	name := l.t.Name()
	inserts := 0
	for _, f := range l.view.Change {
		if f.isInsert() {
			inserts++
		}
	}
	m.files.WithLabelValues(name, "base", "data").Set(float64(len(l.view.Base)))
	m.files.WithLabelValues(name, "base", "position_delete").Set(float64(len(l.view.Deletes)))
	m.files.WithLabelValues(name, "change", "insert").Set(float64(inserts))
	m.files.WithLabelValues(name, "change", "delete").Set(float64(len(l.view.Change) - inserts))
	m.pending.WithLabelValues(name).Set(float64(len(l.pending)))
	m.pendingSeconds.WithLabelValues(name).Set(l.waited(now).Seconds())
}

func (m *metrics) forget(table string) {
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.moves, m.mended, m.pending, m.pendingSeconds, m.files} {
		v.DeletePartialMatch(prometheus.Labels{"table": table})
	}
}
