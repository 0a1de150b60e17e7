package ingest

import (
	"context"
	"errors"
	"fmt"

	"firn/ingest/columns"
	"firn/ingest/decode"
)

// ColumnRulesError reports a route whose column rules do not fit what its topic or its table has. The records are sound: reading waits
// until the rules are changed.
type ColumnRulesError struct {
	Topic  string
	Table  string
	Detail string
}

// Error names the way out.
func (e *ColumnRulesError) Error() string {
	return fmt.Sprintf("topic %s cannot go on into table %s: %s; change the route's column rules and restart", e.Topic, e.Table, e.Detail)
}

// ruled applies the column rules to what read has returned. Error: as decode's.
func (w *worker) ruled(ctx context.Context, r *Record, ev *decode.Event, err error) (*decode.Event, error) {
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		w.columns.Rejected(rejected)
	}
	if err != nil || ev.Kind != decode.Change {
		return ev, err
	}
	err = w.columns.Event(ev, columns.Origin{Topic: w.id.Topic, Partition: r.Partition, Offset: r.Offset})
	for _, why := range w.columns.Missing() {
		w.runner.pipeline.logger.Warn("a column rule does without a column", "table", w.table.name, "topic", w.id.Topic, "why", why)
	}
	if misfit := columns.Misfit(err); misfit != nil {
		if w.repairs { // the record stays parked
			return nil, &decode.Rejected{Reason: decode.ReasonColumnRule, Detail: misfit.Error()}
		}
		return nil, w.misfit(ctx, misfit.Error())
	}
	if err != nil {
		return nil, err
	}
	return ev, nil
}

// nextEvent decodes the next event of a record that has several. Error: as decode's.
func (w *worker) nextEvent(ctx context.Context, r *Record) (*decode.Event, error) {
	ev, err := w.decoder.Next()
	if w.columns == nil {
		return ev, err
	}
	return w.ruled(ctx, r, ev, err)
}

// misfit submits what was read so far, if that is whole records, and returns the error that stops the topic.
func (w *worker) misfit(ctx context.Context, detail string) error {
	if w.batch.records > 0 && w.place == 0 {
		if err := w.submit(ctx, Unknown); err != nil {
			return err
		}
	}
	return &ColumnRulesError{Topic: w.id.Topic, Table: w.table.name, Detail: detail}
}
