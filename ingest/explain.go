package ingest

import (
	"context"
	"errors"

	"firn/changelog"
	"firn/ingest/decode"
)

// explainBytes is how much of a parked key or value an explanation shows.
const explainBytes = 64 << 10

// ParkedExplanation tells why a record is parked, as far as its bytes tell.
type ParkedExplanation struct {
	Rule       string // the rule that it has broken
	Queue      bool   // the mark of its key counts it: it is replayed with the others of its key
	Superseded bool   // a later change of its key was applied
	Now        string // the reason why it cannot be decoded as the route is now; empty: it can
	NowDetail  string
	Key, Value decode.Reading // what a replay would read
}

// own are the rules of the reasons that this package gives.
var own = map[string]string{
	reasonUnresolved:     "a value that was not sent is in the row before, which has to be there",
	reasonKeyStale:       "a value that was not sent is in the row before, which is older than an event that was rejected",
	reasonKeyQueued:      "it waits for an earlier parked record of its key",
	reasonTruncateUnsafe: "a truncate is applied where no change from before it can come after it: topics of one partition, tables of one topic",
	reasonRecordBroken:   "the source could read the record",
	reasonRegistry:       "the schema registry answers; replay it again when it does",
	reasonPartition:      "the lake can partition the row by its value",
	reasonTableUnfit:     "the table's settings go with the columns of its first events",
}

// Rule returns the rule behind a reason, as a sentence.
func Rule(reason string) string {
	if r := own[reason]; r != "" {
		return r
	}
	return decode.Rule(reason)
}

// ExplainParked decodes a parked record, as the configuration is now, and changes nothing. Errors: the log's.
func (p *Pipeline) ExplainParked(ctx context.Context, id uint64) (ParkedExplanation, error) {
	rec, err := p.log.ParkedGet(ctx, id)
	if err != nil {
		return ParkedExplanation{}, err
	}
	e := ParkedExplanation{Rule: Rule(rec.Reason)}
	if e.Queue, err = p.holds(&rec); err != nil {
		return ParkedExplanation{}, err
	}
	e.Superseded = !e.Queue && !rec.Applied && rec.Table != 0 && len(rec.Key) > 0
	key, value, headers := payloadOf(&rec)
	e.Key, e.Value = decode.Read(key, explainBytes), decode.Read(value, explainBytes)
	w, err := p.repairer(ctx, &rec)
	if refused, ok := errors.AsType[*ParkedRefusedError](err); ok {
		e.Now, e.NowDetail = "refused", refused.Why
		return e, nil
	}
	if err != nil {
		return ParkedExplanation{}, err
	}
	e.Now, e.NowDetail, err = w.readable(ctx, &rec, key, value, headers)
	return e, err
}

// readable decodes a parked record, and returns the reason why it cannot be.
func (w *worker) readable(ctx context.Context, rec *changelog.Parked, key, value []byte, headers []changelog.Header) (reason, detail string, err error) {
	if rec.Edit == nil && (rec.Cut != nil || rec.Reason == reasonRecordBroken) {
		return rec.Reason, rec.Detail, nil
	}
	w.begin()
	r := Record{Topic: rec.Position.Topic, Key: key, Value: value, Headers: headers, Timestamp: rec.Timestamp}
	_, err = w.decode(ctx, &r)
	for err == nil && w.decoder.More() {
		_, err = w.nextEvent(ctx, &r)
	}
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		return rejected.Reason, rejected.Detail, nil
	}
	return "", "", err
}
