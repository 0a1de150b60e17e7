package main

import (
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/table"
	"firn/ingest"
	"firn/optimizer"
)

// TestStageMetrics: each stage's lag grows while it lacks something and is 0 when it has all; drift is counted when the
// stages stand at one change, and sees a row too many on either side.
func TestStageMetrics(t *testing.T) {
	r := newShopRig(t)
	status := []ingest.SourceStatus{{Partitions: []ingest.PartitionStatus{{Table: "shop.orders"}}}}
	m := newStageMetrics(r.store, r.reg, r.catalog, func() []ingest.SourceStatus { return status })
	registry := prometheus.NewPedanticRegistry()
	r.must(registry.Register(m))
	seen := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		r.must(err)
		out := map[string]float64{}
		for _, f := range families {
			for _, v := range f.GetMetric() {
				name := f.GetName()
				for _, l := range v.GetLabel() {
					if l.GetName() == "stage" {
						name = l.GetValue()
					}
				}
				out[name] = v.GetGauge().GetValue()
			}
		}
		return out
	}
	want := func(what string, want map[string]float64) {
		t.Helper()
		if got := seen(); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	want("empty", map[string]float64{"log": 0, "change": 0, "base": 0})

	r.put(1, 1, 2, 3)
	r.put(2, -2, 4)
	var first int64
	for c, err := range r.store.Scan(t.Context(), r.table.ID, 0, 1) {
		r.must(err)
		first = c.IngestTime
	}
	m.now = func() time.Time { return time.UnixMicro(first).Add(time.Minute) }
	want("in the log only", map[string]float64{"log": 0, "change": 60, "base": 60})
	status[0].Partitions[0].Lag = 7
	m.now = func() time.Time { return time.UnixMicro(first).Add(2 * time.Minute) }
	if got := seen(); got["log"] < 100 || got["log"] > 120 {
		t.Errorf("source has more: %v", got)
	}
	status[0].Partitions[0].Lag = 0
	r.flush()
	want("flushed", map[string]float64{"log": 0, "change": 0, "base": 120})

	opt, err := optimizer.New(r.catalog, r.reg, optimizer.Options{})
	r.must(err)
	_, err = opt.Once(t.Context(), "shop.orders", optimizer.Minor, false)
	r.must(err)
	want("optimized", map[string]float64{"log": 0, "change": 0, "base": 0, "firn_drift_rows": 0})

	m.mu.drifts = map[changelog.TableID]drift{}
	lake, err := r.catalog.Load(t.Context(), "shop.orders")
	r.must(err)
	files, err := lake.Base().Files(t.Context())
	r.must(err)
	_, err = lake.CommitBase(t.Context(), table.BaseCommit{ID: "loss", Epoch: epochOf(t, r), Remove: files[:1]})
	r.must(err)
	if got := seen(); got["firn_drift_rows"] != float64(files[0].Records) {
		t.Errorf("%s lost: %v", filepath.Base(files[0].Path), got)
	}
}

func epochOf(t *testing.T, r *shopRig) changelog.Epoch {
	t.Helper()
	p, err := r.reg.Progress(r.table.ID)
	r.must(err)
	return p.Epoch
}
