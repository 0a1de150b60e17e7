package ingest

import (
	"slices"
	"strings"
	"time"

	"firn/changelog"
	"firn/ingest/decode"
)

// The reasons that this package gives, beside those of decode (spec/debezium.md 5.2).
const (
	reasonUnresolved     = "placeholder_unresolved"
	reasonKeyStale       = "key_stale"
	reasonKeyQueued      = "key_queued" // ours: nothing is wrong with it but that an earlier event of its key is parked
	reasonTruncateUnsafe = "truncate_unsafe"
	reasonRegistry       = "registry_unavailable" // of repairs: readers wait
	reasonRecordBroken   = "record_broken"        // ours: the source itself could not read it
	reasonPartition      = "partition_value"
	reasonTableUnfit     = "table_unfit"
)

const maxDetail = 512

// reject parks a record as it was received, and marks its key stale where there may be a row of it: what comes for the
// key afterwards must not build on that row (spec/debezium.md 2.7). key gives the key; nil: it has none.
func (w *worker) reject(r *Record, reason, detail string, key func(changelog.Key, *changelog.Schema) (changelog.Key, bool)) {
	if !w.rejected(r, reason, detail) {
		return
	}
	w.count(&w.batch.counts.Parked, r)
	w.seen.reason = reason
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
	queue := w.target.OnParked == ParkedQueue
	stale, hold := w.staleMark(p.Key)
	if hold || stale && !queue {
		w.batch.behind = append(w.batch.behind, len(w.batch.parked)-1)
		return
	}
	w.batch.stale = append(w.batch.stale, changelog.StaleMark{
		Table: t.ID, Key: p.Key, Set: true, Reason: reason, Hold: queue, Skipped: stale, Record: len(w.batch.parked),
	})
}

// queue parks a record whose key, in w.key, has a parked one.
func (w *worker) queue(r *Record, table changelog.TableID) {
	w.count(&w.batch.counts.Parked, r)
	w.seen.reason = reasonKeyQueued
	w.park(r, reasonKeyQueued, "an earlier event of the key is parked", false)
	n := len(w.batch.parked) - 1
	w.batch.parked[n].Table, w.batch.parked[n].Key = table, w.keep(w.key)
	w.batch.behind = append(w.batch.behind, n)
}

// marks returns the stale marks of the batch, and such as begin a queue anew with records whose mark has gone since they were
// parked: the queue was replayed or skipped meanwhile. The caller has the table's marks.
func (w *worker) marks() []changelog.StaleMark {
	b := &w.batch
	all := slices.Clip(b.stale)
	queue := w.target.OnParked == ParkedQueue
	for _, i := range b.behind {
		p := &b.parked[i]
		if lastMark(all, p.Key) != nil {
			continue
		}
		stale, hold := w.table.stale.get(p.Key)
		if hold || stale && !queue {
			continue
		}
		all = append(all, changelog.StaleMark{Table: p.Table, Key: p.Key, Set: true, Reason: p.Reason, Hold: queue, Skipped: stale, Record: i + 1})
	}
	return all
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

// partOf numbers what is parked of one record, so that each has a place of its own: from 0 when it is read, from -1 down when a
// replay reports it.
func (w *worker) partOf(r *Record) int {
	n := 0
	for i := len(w.batch.parked) - 1; i >= 0 && w.batch.parked[i].Position.Offset == r.Offset; i-- {
		n++
	}
	if w.repairs {
		return -1 - n
	}
	return n
}

func (w *worker) park(r *Record, reason, detail string, applied bool) {
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	value := r.Value
	if w.several {
		value = w.decoder.Part() // its own part of the record: the others are applied
	}
	w.batch.parked = append(w.batch.parked, changelog.Parked{
		Reason: reason, Detail: detail, Applied: applied, Time: w.now, Position: w.position(r, ""), Timestamp: r.Timestamp, Target: w.table.name,
		Part:      w.partOf(r),
		RecordKey: r.Key, RecordValue: value, Headers: r.Headers,
	})
	w.cut(&w.batch.parked[len(w.batch.parked)-1])
	if w.repairs && !applied {
		return // it was counted when it was parked first
	}
	w.runner.pipeline.metrics.parked.WithLabelValues(w.id.Source, w.id.Topic, reason).Inc()
}
