package flush

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	rows, bytes, files, errors, missing *prometheus.CounterVec
	seconds                             *prometheus.HistogramVec
	commit                              *prometheus.HistogramVec
	pending, stopped                    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		rows: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_flush_changes_total", Help: "Changes committed to the change store.",
		}, []string{"table"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_flush_bytes_total", Help: "Bytes of committed change files.",
		}, []string{"table"}),
		files: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_flush_files_total", Help: "Committed change files.",
		}, []string{"table"}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_flush_errors_total", Help: "Flushes that failed and are tried again.",
		}, []string{"table"}),
		missing: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_flush_missing_rows_total", Help: "Rows that changes of tables without a key were to take out and that were not there.",
		}, []string{"table"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firn_flush_seconds", Help: "Time to read a batch from the log and to write its files, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"table"}),
		// The base store's commits have the same name and another store label.
		commit: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firn_commit_seconds", Help: "Time to commit to the lake, in seconds.",
			ConstLabels: prometheus.Labels{"store": "change"}, Buckets: prometheus.ExponentialBuckets(0.002, 2, 14),
		}, []string{"outcome"}),
		pending: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firn_flush_pending_changes", Help: "Changes in the log that the change store did not have when last looked.",
		}, []string{"table"}),
		stopped: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firn_flush_stopped", Help: "1: the table and the lake have diverged; nothing of it is read or written until it is mended and firn started again.",
		}, []string{"table"}),
	}
}

func (m *metrics) forget(table string) {
	for _, v := range []interface{ DeleteLabelValues(...string) bool }{
		m.rows, m.bytes, m.files, m.errors, m.missing, m.seconds, m.pending, m.stopped,
	} {
		v.DeleteLabelValues(table)
	}
}

func (m *metrics) committed(outcome string, took time.Duration) {
	m.commit.WithLabelValues(outcome).Observe(took.Seconds())
}
