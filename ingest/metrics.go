package ingest

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	records      *prometheus.CounterVec
	lag          *prometheus.GaugeVec
	parked       *prometheus.CounterVec
	skipped      *prometheus.CounterVec
	placeholders *prometheus.CounterVec
	stale        *prometheus.GaugeVec
	barriers     *prometheus.CounterVec
	evolutions   *prometheus.CounterVec
	full         prometheus.Counter
	repaired     *prometheus.CounterVec
	stops        *prometheus.CounterVec
	registry     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	partition := []string{"source", "topic", "partition"}
	return &metrics{
		records: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_records_total",
			Help: "Records read, by what became of them: applied, skipped, parked, replayed (sent again by the connector), duplicate (given again by the broker).",
		}, append(partition, "outcome")),
		lag: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firn_source_lag_records", Help: "Offsets between what is durable and the partition's end.",
		}, partition),
		parked: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_parked_total", Help: "Records parked, and reports of values nulled or reduced, by reason.",
		}, []string{"source", "topic", "reason"}),
		skipped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_skipped_total", Help: "Records without an effect on a table, by kind.",
		}, []string{"source", "topic", "kind"}),
		placeholders: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_placeholders_total", Help: "Events with values that the source did not send, by where the values were found.",
		}, []string{"table", "found"}),
		stale: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "firn_source_stale_keys", Help: "Keys whose row may be older than a parked event.",
		}, []string{"table"}),
		barriers: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_key_schema_barriers_total", Help: "Times that a partition waited for the others of its topic at a new key schema.",
		}, []string{"source", "topic"}),
		evolutions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_schema_changes_total", Help: "Schemas that events have given a table, its first one included.",
		}, []string{"table"}),
		full: f.NewCounter(prometheus.CounterOpts{
			Name: "firn_source_log_full_total", Help: "Times that a partition waited for space in the log.",
		}),
		stops: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_stops_total", Help: "Times that a table was stopped because too many records were rejected, or one with fail_fast.",
		}, []string{"source", "topic"}),
		repaired: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_parked_repaired_total", Help: "Parked records, by what was done with them: edited, skipped (given up), replayed (applied).",
		}, []string{"action"}),
		registry: f.NewCounterVec(prometheus.CounterOpts{
			Name: "firn_source_registry_waits_total", Help: "Times that a partition began to wait for the schema registry, which gave no answer.",
		}, []string{"source", "topic"}),
	}
}

// partitionMetrics are the counters of one partition, looked up once.
type partitionMetrics struct {
	applied, skipped, parked, replayed, duplicate prometheus.Counter
	lag                                           prometheus.Gauge
}

func (m *metrics) partition(source string, p Partition) *partitionMetrics {
	index := strconv.Itoa(int(p.Index))
	outcome := func(o string) prometheus.Counter { return m.records.WithLabelValues(source, p.Topic, index, o) }
	return &partitionMetrics{
		applied: outcome("applied"), skipped: outcome("skipped"), parked: outcome("parked"), replayed: outcome("replayed"),
		duplicate: outcome("duplicate"), lag: m.lag.WithLabelValues(source, p.Topic, index),
	}
}

func (m *partitionMetrics) add(c Counts) {
	m.applied.Add(float64(c.Applied))
	m.skipped.Add(float64(c.Skipped))
	m.parked.Add(float64(c.Parked))
	m.replayed.Add(float64(c.Replayed))
	m.duplicate.Add(float64(c.Duplicate))
}
