package ingest

import (
	"strings"
	"time"

	"firn/changelog"
	"firn/ingest/decode"
)

// The reasons that this package gives, beside those of decode (spec/debezium.md 5.2).
const (
	reasonUnresolved     = "placeholder_unresolved"
	reasonKeyStale       = "key_stale"
	reasonTruncateUnsafe = "truncate_unsafe"
	reasonRecordBroken   = "record_broken" // ours: the source itself could not read it
	reasonPartition      = "partition_value"
	reasonTableUnfit     = "table_unfit"
)

const maxDetail = 512

// reject parks a record as it was received, and marks its key stale where there may be a row of it: what comes for the
// key afterwards must not build on that row (spec/debezium.md 2.7). key gives the key; nil: it has none.
func (w *worker) reject(r *Record, reason, detail string, key func(changelog.Key, *changelog.Schema) (changelog.Key, bool)) {
	w.count(&w.batch.counts.Parked, r)
	w.park(r, reason, detail, false)
	t := w.table.current.Load()
	if t == nil {
		return
	}
	p := &w.batch.parked[len(w.batch.parked)-1]
	p.Table = t.ID
	if key == nil {
		return
	}
	k, ok := key(w.batch.arena.tail(), t.Schemas.Current())
	if !ok || len(k) == 0 {
		return
	}
	p.Key = w.batch.arena.keep(k)
	w.batch.stale = append(w.batch.stale, changelog.StaleMark{Table: t.ID, Key: p.Key, Set: true, Reason: reason})
}

// subMicroEvery is how often cut digits of a column's times are reported: they come with every event.
const subMicroEvery = int64(time.Hour / time.Microsecond)

// report parks a record that was applied with values nulled or reduced.
func (w *worker) report(r *Record, ev *decode.Event) {
	reason := ""
	details := make([]string, 0, len(ev.Reports))
	for _, rep := range ev.Reports {
		if rep.Reason == decode.ReasonSubMicro && !w.sample(rep.Column) {
			continue
		}
		if reason == "" {
			reason = rep.Reason
		}
		d := rep.Reason
		if rep.Column != "" {
			d = rep.Column + ": " + d
		}
		if rep.Detail != "" {
			d += ": " + rep.Detail
		}
		details = append(details, d)
	}
	if reason == "" {
		return
	}
	w.park(r, reason, strings.Join(details, "; "), true)
	p := &w.batch.parked[len(w.batch.parked)-1]
	if p.Table = w.last.table.ID; len(w.key) > 0 {
		p.Key = w.keep(w.key)
	}
}

// sample reports whether it is time for a report of a column again.
func (w *worker) sample(column string) bool {
	if last, ok := w.sampled[column]; ok && w.now-last < subMicroEvery {
		return false
	}
	if w.sampled == nil {
		w.sampled = map[string]int64{}
	}
	w.sampled[column] = w.now
	return true
}

func (w *worker) park(r *Record, reason, detail string, applied bool) {
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	w.batch.parked = append(w.batch.parked, changelog.Parked{
		Reason: reason, Detail: detail, Applied: applied, Time: w.now, Position: w.position(r, ""), Timestamp: r.Timestamp,
		RecordKey: r.Key, RecordValue: r.Value, Headers: r.Headers,
	})
	w.runner.pipeline.metrics.parked.WithLabelValues(w.id.Source, w.id.Topic, reason).Inc()
}
