package ingest

import (
	"context"
	"crypto/sha256"
	"fmt"

	"firn/changelog"
)

// rejectWindow is how many records of a partition Route.MaxRejectedShare is a share of (spec/debezium.md 5.1).
const rejectWindow = 10_000

// cutBytes is how much is kept of a value above Route.MaxParkedBytes.
const cutBytes = 64 << 10

// rejections counts what a partition rejects, to tell bad records from a wrong configuration. Records that only queue, reports of
// values that were reduced, and records without an effect do not count.
type rejections struct {
	run      int // since the last record that was applied
	window   int // records of the window so far
	rejected int // of them
}

func (c *rejections) applied() {
	c.run = 0
	c.pass()
}

func (c *rejections) pass() {
	if c.window++; c.window >= rejectWindow {
		c.window, c.rejected = 0, 0
	}
}

// reject counts a rejected record, and returns why the table is to stop after it; "": it goes on.
func (c *rejections) reject(t *Route) string {
	c.run++
	c.rejected++
	run, rejected := c.run, c.rejected
	c.pass()
	switch {
	case t.MaxRejectedRun > 0 && run >= t.MaxRejectedRun:
		return fmt.Sprintf("%d records were parked one after the other (max_rejected_run)", run)
	case t.MaxRejectedShare > 0 && float64(rejected) > t.MaxRejectedShare*rejectWindow:
		return fmt.Sprintf("%d of the last records, fewer than %d, were parked (max_rejected_share)", rejected, rejectWindow)
	}
	return ""
}

// StoppedError reports that a table takes no more records, because too many of them were rejected, or because its route demands that
// none is (fail_fast).
type StoppedError struct {
	Table     string
	Topic     string
	Partition int32
	Offset    int64 // of the last rejected record
	Before    bool  // it is not parked: reading goes on with it
	Reason    string
	Detail    string
	Why       string
}

// Error names the way out.
func (e *StoppedError) Error() string {
	where := fmt.Sprintf("table %s is stopped at topic %s, partition %d, offset %d: ", e.Table, e.Topic, e.Partition, e.Offset)
	last := e.Reason
	if e.Detail != "" {
		last += ": " + e.Detail
	}
	if e.Before {
		return where + last + " (fail_fast: the record is not parked; mend it or the route, or turn fail_fast off, and resume the source)"
	}
	return where + e.Why + ", the last with " + last + "; see firn parked list, mend the route if it is wrong, and resume the source to go on"
}

// rejected counts a rejection, which may stop the table. It returns false where the record is not to be parked.
func (w *worker) rejected(r *Record, reason, detail string) bool {
	if w.repairs {
		return true
	}
	stop := &StoppedError{Table: w.table.name, Topic: w.id.Topic, Partition: w.id.Partition, Offset: r.Offset, Reason: reason, Detail: detail}
	if w.target.FailFast {
		stop.Before = true
		w.stop = stop
		return false
	}
	if stop.Why = w.rejects.reject(&w.target.Route); stop.Why != "" {
		w.stop = stop
	}
	return true
}

// passed goes on behind a record.
func (w *worker) passed(r *Record) {
	if w.stop == nil || !w.stop.Before {
		w.next = r.Offset + 1
	}
}

// halt stops the table: what was read is sound, and stays.
func (w *worker) halt(ctx context.Context) error {
	stop := w.stop
	if err := w.submit(ctx, Unknown); err != nil {
		return err
	}
	w.table.stopped.Store(stop)
	w.runner.pipeline.metrics.stops.WithLabelValues(w.id.Source, w.id.Topic).Inc()
	return stop
}

// cut keeps the beginning of a value that is too large to be parked. What queues is never cut: it is to be applied.
func (w *worker) cut(p *changelog.Parked) {
	limit := w.target.MaxParkedBytes
	if limit <= 0 || int64(len(p.RecordValue)) <= limit || p.Reason == reasonKeyQueued {
		return
	}
	p.Cut = &changelog.ParkedCut{Bytes: int64(len(p.RecordValue)), SHA256: sha256.Sum256(p.RecordValue)}
	p.RecordValue = p.RecordValue[:min(len(p.RecordValue), cutBytes)]
}
