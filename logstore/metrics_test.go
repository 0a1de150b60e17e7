package logstore

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// gathered returns the values of counters and gauges by name{label,…}.
func gathered(tb testing.TB, reg prometheus.Gatherer) map[string]float64 {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// metricValue reads a counter.
func metricValue(tb testing.TB, c prometheus.Collector) float64 {
	tb.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	for _, v := range gathered(tb, reg) {
		return v
	}
	return 0
}
