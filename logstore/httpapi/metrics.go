package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	row, batch, scan prometheus.Observer
	feeds            prometheus.Gauge
	feedChanges      prometheus.Counter
	feedBytes        prometheus.Counter
	feedsClosed      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	lookups := f.NewHistogramVec(prometheus.HistogramOpts{
		Name: "firn_lookup_seconds", Help: "Time to answer a lookup, waiting for min= included, in seconds, by kind: one row, a batch of keys, a page of rows.",
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
	}, []string{"kind"})
	return &metrics{
		row: lookups.WithLabelValues("row"), batch: lookups.WithLabelValues("batch"), scan: lookups.WithLabelValues("page"),
		feeds: f.NewGauge(prometheus.GaugeOpts{Name: "firn_feed_connections", Help: "Change feeds that are open."}),
		feedChanges: f.NewCounter(prometheus.CounterOpts{
			Name: "firn_feed_changes_total", Help: "Changes and snapshot rows sent by change feeds.",
		}),
		feedBytes: f.NewCounter(prometheus.CounterOpts{Name: "firn_feed_bytes_total", Help: "Bytes sent by change feeds."}),
		feedsClosed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_feeds_closed_total", Help: "Change feeds that ended, by reason: done, client gone or too slow, trimmed, shutdown, failed.",
		}, []string{"reason"}),
	}
}
