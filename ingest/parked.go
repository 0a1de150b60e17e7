package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"firn/changelog"
	"firn/ingest/decode"
)

// This file is what an operator does with parked records: edit, skip, replay. docs/0001-parked-records.md has the rules.

// ParkedOutcome tells what a skip or a replay did.
type ParkedOutcome struct {
	Applied  int             `json:"applied"`            // records whose changes the table has now
	Skipped  int             `json:"skipped"`            // given up, or without an effect on the table
	Failed   int             `json:"failed"`             // still parked: they end the replay of their keys
	Failures []ParkedFailure `json:"failures,omitempty"` // the first of them
}

// ParkedFailure is a record that was not applied.
type ParkedFailure struct {
	ID     uint64 `json:"id"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

const maxFailures = 20

func (o *ParkedOutcome) fail(id uint64, reason, detail string) {
	if o.Failed++; len(o.Failures) < maxFailures {
		o.Failures = append(o.Failures, ParkedFailure{id, reason, detail})
	}
}

// ParkedRefusedError says that a parked record is not for what was asked, and what to do instead.
type ParkedRefusedError struct {
	ID  uint64
	Why string
}

func (e *ParkedRefusedError) Error() string { return fmt.Sprintf("parked record %d: %s", e.ID, e.Why) }

func refuse(id uint64, format string, args ...any) error {
	return &ParkedRefusedError{ID: id, Why: fmt.Sprintf(format, args...)}
}

// ParkedChange is an edit of a parked record. What is nil stays.
type ParkedChange struct {
	By      string // who
	Key     *[]byte
	Value   *[]byte
	Headers *[]changelog.Header
}

// lockRepair waits until nobody else works on parked records.
func (p *Pipeline) lockRepair(ctx context.Context) (unlock func(), err error) {
	select {
	case p.repair <- struct{}{}:
		return func() { <-p.repair }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// EditParked puts a key, a value or headers in place of a parked record's, which are kept beside them. Errors:
// *ParkedRefusedError; the log's.
func (p *Pipeline) EditParked(ctx context.Context, id uint64, c ParkedChange) error {
	unlock, err := p.lockRepair(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	rec, err := p.log.ParkedGet(ctx, id)
	if err != nil {
		return err
	}
	if rec.Applied {
		return refuse(id, "%s", appliedAlready)
	}
	if rec.Cut != nil && rec.Edit == nil && c.Value == nil {
		return refuse(id, "only the beginning of its value is kept: the edit has to give the value")
	}
	key, value, headers := payloadOf(&rec)
	e := changelog.ParkedEdit{By: c.By, Time: p.opts.Now().UnixMicro(), RecordKey: key, RecordValue: value, Headers: headers}
	if c.Key != nil {
		e.RecordKey = *c.Key
	}
	if c.Value != nil {
		e.RecordValue = *c.Value
	}
	if c.Headers != nil {
		e.Headers = *c.Headers
	}
	rec.Edit = &e
	if err := p.settle(ctx, changelog.Append{Reparked: []changelog.Parked{rec}}); err != nil {
		return err
	}
	p.metrics.repaired.WithLabelValues("edited").Inc()
	return nil
}

const appliedAlready = "its change was applied, with a value reduced or nulled; it is a report, which skip removes"

// payloadOf returns what a parked record is read from.
func payloadOf(rec *changelog.Parked) (key, value []byte, headers []changelog.Header) {
	if rec.Edit != nil {
		return rec.Edit.RecordKey, rec.Edit.RecordValue, rec.Edit.Headers
	}
	return rec.RecordKey, rec.RecordValue, rec.Headers
}

// settle makes an append durable.
func (p *Pipeline) settle(ctx context.Context, a changelog.Append) error {
	t, err := p.log.Submit(ctx, a)
	if err != nil {
		return err
	}
	_, err = t.Wait(ctx)
	return err
}

// SkipParked gives a parked record up. Where later events of its key queue behind it, they are replayed; queue gives up all of
// them instead. The key's row stays suspect until an event with a whole row, or a delete, is applied. Errors:
// *ParkedRefusedError, another record of the key comes first; the log's.
func (p *Pipeline) SkipParked(ctx context.Context, id uint64, queue bool) (ParkedOutcome, error) {
	unlock, err := p.lockRepair(ctx)
	if err != nil {
		return ParkedOutcome{}, err
	}
	defer unlock()
	rec, err := p.log.ParkedGet(ctx, id)
	if err != nil {
		return ParkedOutcome{}, err
	}
	holds, err := p.holds(&rec)
	if err != nil {
		return ParkedOutcome{}, err
	}
	var out ParkedOutcome
	if !holds {
		if err := p.settle(ctx, changelog.Append{Unparked: []uint64{id}, Skipped: []uint64{id}}); err != nil {
			return ParkedOutcome{}, err
		}
		out.Skipped = 1
		p.metrics.repaired.WithLabelValues("skipped").Inc()
		return out, nil
	}
	w, err := p.repairer(ctx, &rec)
	if err != nil {
		return ParkedOutcome{}, err
	}
	give := giveUpHead
	if queue {
		give = giveUpAll
	}
	return out, w.queueOf(ctx, rec.Key, give, id, &out)
}

// holds reports whether a parked record is one that the mark of its key counts: it is not applied, and not superseded.
func (p *Pipeline) holds(rec *changelog.Parked) (bool, error) {
	if rec.Applied || rec.Table == 0 || len(rec.Key) == 0 {
		return false, nil
	}
	m, ok, err := p.log.StaleMark(rec.Table, rec.Key)
	return ok && rec.ID >= m.First, err
}

// ReplayParked decodes a parked record again, as the configuration is now, and applies it; where it is of a stale key, all
// records of the key in order, from the first to the first that fails. Of other keys the order is not known any more: force
// applies the record as the key's newest change; for a stale key force trusts the stored row, though an event before was given
// up. Errors: *ParkedRefusedError; the log's.
func (p *Pipeline) ReplayParked(ctx context.Context, id uint64, force bool) (ParkedOutcome, error) {
	unlock, err := p.lockRepair(ctx)
	if err != nil {
		return ParkedOutcome{}, err
	}
	defer unlock()
	var out ParkedOutcome
	rec, err := p.log.ParkedGet(ctx, id)
	if err != nil {
		return out, err
	}
	return out, p.replay(ctx, &rec, force, &out)
}

func (p *Pipeline) replay(ctx context.Context, rec *changelog.Parked, force bool, out *ParkedOutcome) error {
	if rec.Applied {
		return refuse(rec.ID, "%s", appliedAlready)
	}
	holds, err := p.holds(rec)
	if err != nil {
		return err
	}
	w, err := p.repairer(ctx, rec)
	if err != nil {
		return err
	}
	if !holds {
		return w.alone(ctx, rec, force, out)
	}
	give := giveUpNone
	if force {
		give = trustRow
	}
	return w.queueOf(ctx, rec.Key, give, 0, out)
}

// ReplayTable replays all parked records of a table whose order is known: those of stale keys, and those of tables without a
// key. A failure ends the replay of its key only. Errors: ErrNoTable; the log's.
func (p *Pipeline) ReplayTable(ctx context.Context, name string) (ParkedOutcome, error) {
	unlock, err := p.lockRepair(ctx)
	if err != nil {
		return ParkedOutcome{}, err
	}
	defer unlock()
	var out ParkedOutcome
	t, ok := p.tables.Table(name)
	if !ok {
		return out, fmt.Errorf("table %s: %w", name, ErrNoTable)
	}
	ids, err := p.first(ctx, t)
	if err != nil {
		return out, err
	}
	for _, id := range ids {
		rec, err := p.log.ParkedGet(ctx, id)
		if err != nil {
			return out, err
		}
		err = p.replay(ctx, &rec, false, &out)
		if refused, ok := errors.AsType[*ParkedRefusedError](err); ok {
			out.fail(id, rec.Reason, refused.Why)
		} else if err != nil {
			return out, err
		}
	}
	return out, nil
}

// first returns the ids of the parked records that a replay of the table begins with: the first of each stale key, and, of a
// table without a key, all.
func (p *Pipeline) first(ctx context.Context, t *Table) ([]uint64, error) {
	keyed := len(t.Schemas.Current().Key) > 0
	seen := map[string]bool{}
	var ids []uint64
	for rec, err := range p.log.ParkedList(ctx, t.ID, 0) {
		if err != nil {
			return nil, err
		}
		holds, err := p.holds(&rec)
		if err != nil {
			return nil, err
		}
		switch {
		case rec.Applied:
		case !keyed:
			ids = append(ids, rec.ID)
		case holds && !seen[string(rec.Key)]:
			seen[string(rec.Key)] = true
			ids = append(ids, rec.ID)
		}
	}
	return ids, nil
}

// repairer returns a worker that takes parked records of one topic in, one append after the other, beside those that read it.
func (p *Pipeline) repairer(ctx context.Context, rec *changelog.Parked) (*worker, error) {
	r, err := p.runner(rec.Position.Source)
	if err != nil {
		return nil, refuse(rec.ID, "source %q is not configured any more, which says how it is read: add it, or skip the record", rec.Position.Source)
	}
	w := r.worker(Partition{Topic: rec.Position.Topic, Index: rec.Position.Partition})
	w.repairs = true
	if w.filter != nil {
		w.filter = newIdentities(0) // repeats are told from events, not from what is parked
	}
	w.member = newTopic(w.part.Topic, r.source.Bounds).join(w.part.Index, rec.Position.Offset)
	if err := w.table.open(ctx, w.log); err != nil {
		return nil, err
	}
	if now := w.table.current.Load(); rec.Table != 0 && (now == nil || now.ID != rec.Table) {
		return nil, refuse(rec.ID, "topic %s goes to %s now, another table than it was parked for: change the route back, or skip the record", w.part.Topic, w.table.name)
	}
	return w, nil
}

// enterBoth takes what keeps others from the table's rows and marks.
func (w *worker) enterBoth(ctx context.Context) (leave func(), err error) {
	left, err := w.table.enter(ctx)
	if err != nil {
		return nil, err
	}
	unlock, err := w.table.lockMarks(ctx)
	if err != nil {
		left()
		return nil, err
	}
	return func() { unlock(); left() }, nil
}

// giveUp is what of a queue is not applied.
type giveUp uint8

const (
	giveUpNone giveUp = iota
	giveUpHead        // the first record
	giveUpAll
	trustRow // none, and the row is good to build on, though an event was given up
)

// queueOf replays the queue of a key: in one append, or in several that each end between two records. give tells what of it is
// given up first; head is the record that this was asked for.
func (w *worker) queueOf(ctx context.Context, key changelog.Key, give giveUp, head uint64, out *ParkedOutcome) error {
	for {
		more, err := w.queuePart(ctx, key, give, head, out)
		if err != nil || !more {
			return err
		}
		give, head = giveUpNone, 0
	}
}

// queuePart replays as much of a queue as one append may hold. more tells that there is more of it to replay, maybe parked
// meanwhile.
func (w *worker) queuePart(ctx context.Context, key changelog.Key, give giveUp, head uint64, out *ParkedOutcome) (more bool, err error) {
	leave, err := w.enterBoth(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	t := w.table.current.Load()
	mark, ok, err := w.log.StaleMark(t.ID, key)
	if err != nil || !ok {
		return false, err
	}
	w.batch.reset()
	w.begin()
	q := queueReplay{worker: w, mark: mark, give: give, head: head}
	// Until a whole row comes: nothing was applied since the queue began, so the stored row is what its first event builds on.
	own := changelog.StaleMark{Table: t.ID, Key: key, Set: mark.Skipped && give != trustRow}
	w.batch.stale = append(w.batch.stale, own)
	for rec, err := range w.log.ParkedOf(ctx, t.ID, key, mark.First) {
		if err != nil {
			return false, err
		}
		if rec.Applied {
			continue
		}
		if more, err = q.take(ctx, &rec); err != nil {
			return false, err
		}
		if more || q.failed != nil || q.next != nil {
			break
		}
	}
	if len(q.gone) == 0 && q.failed == nil && give == giveUpNone {
		return false, nil
	}
	if err := q.commit(ctx, t, key, more, out); err != nil {
		return false, err
	}
	return more, nil
}

// queueReplay is one part of the replay of a key's queue.
type queueReplay struct {
	*worker

	mark changelog.StaleMark
	give giveUp
	head uint64

	gone             []uint64 // applied or given up
	givenUp          []uint64 // those of them
	applied, skipped int
	failed, next     *changelog.Parked // the record that ended it; the one that the next part begins with
}

// take takes the next record of the queue in. full tells that it is for the next append.
func (q *queueReplay) take(ctx context.Context, rec *changelog.Parked) (full bool, err error) {
	first := len(q.gone) == 0
	switch {
	case q.give == giveUpAll, q.give == giveUpHead && first:
		if q.give == giveUpHead && rec.ID != q.head {
			return false, refuse(q.head, "it queues behind record %d of its key: replay or skip that one first, or give up the whole queue (--queue)", rec.ID)
		}
		q.gone, q.givenUp = append(q.gone, rec.ID), append(q.givenUp, rec.ID)
		q.skipped++
		q.batch.stale = append(q.batch.stale[:0], changelog.StaleMark{Table: rec.Table, Key: rec.Key, Set: true})
		return false, nil
	case q.give == giveUpHead && !q.mark.Hold: // the others do not wait for this one
		q.next = rec
		return false, nil
	case len(q.gone) >= q.opts.BatchRecords || q.batch.bytes >= q.opts.BatchBytes:
		q.next = rec
		return true, nil
	}
	changed, reason, detail, err := q.again(ctx, rec, rec.Key)
	switch {
	case err != nil:
		return false, err
	case reason != "":
		failed := *rec
		failed.Reason, failed.Detail = reason, detail
		failed.Attempts++
		q.failed = &failed
	case changed:
		q.applied++
		q.gone = append(q.gone, rec.ID)
	default:
		q.skipped++
		q.gone = append(q.gone, rec.ID)
	}
	return false, nil
}

// commit makes what was taken durable, with the mark that the key has afterwards.
func (q *queueReplay) commit(ctx context.Context, t *Table, key changelog.Key, more bool, out *ParkedOutcome) error {
	a := changelog.Append{Unparked: q.gone, Skipped: q.givenUp}
	suspect := q.batch.mark(key).Set
	mark := changelog.StaleMark{Table: t.ID, Key: key, Set: true, Hold: q.mark.Hold, Skipped: suspect, Reason: q.mark.Reason}
	switch {
	case q.failed != nil:
		mark.First, mark.Reason = q.failed.ID, q.failed.Reason
		a.Reparked = []changelog.Parked{*q.failed}
	case q.next != nil:
		mark.First, mark.Reason = q.next.ID, q.next.Reason
	case suspect:
		mark.Hold, mark.First = false, q.gone[len(q.gone)-1]+1
	default:
		mark = changelog.StaleMark{Table: t.ID, Key: key}
	}
	a.Stale = []changelog.StaleMark{mark}
	if err := q.finish(ctx, t, a); err != nil {
		return err
	}
	out.Applied += q.applied
	out.Skipped += q.skipped
	if q.failed != nil {
		out.fail(q.failed.ID, q.failed.Reason, q.failed.Detail)
	}
	q.runner.pipeline.metrics.repaired.WithLabelValues("replayed").Add(float64(q.applied))
	q.runner.pipeline.metrics.repaired.WithLabelValues("skipped").Add(float64(q.skipped))
	return nil
}

// finish appends the changes of the batch with a, and what a does to parked records and marks, in one append.
func (w *worker) finish(ctx context.Context, t *Table, a changelog.Append) error {
	b := &w.batch
	if now := w.table.current.Load(); now != nil { // a replay may have made or evolved it
		t = now
	}
	if len(b.changes) > 0 {
		if t.moves() {
			if err := w.complete(ctx, t); err != nil {
				return err
			}
		}
		a.Tables = []changelog.TableAppend{{Table: t.ID, Changes: b.changes}}
	}
	a.Parked, a.Moved = b.parked, b.moved // reports of values that were reduced
	ticket, err := w.log.Submit(ctx, a)
	if err != nil {
		return err
	}
	if len(a.Stale) > 0 {
		w.table.marked(a.Stale)
	}
	_, err = ticket.Wait(ctx)
	return err
}

// again decodes a parked record and takes its change into the batch. A reason tells why not. key is what the change has to be
// of; nil: any.
func (w *worker) again(ctx context.Context, rec *changelog.Parked, key changelog.Key) (changed bool, reason, detail string, err error) {
	r := Record{Topic: rec.Position.Topic, Partition: rec.Position.Partition, Offset: rec.Position.Offset, Timestamp: rec.Timestamp}
	r.Key, r.Value, r.Headers = payloadOf(rec)
	switch {
	case rec.Edit != nil:
	case rec.Cut != nil:
		return false, decode.ReasonMessageSize, fmt.Sprintf("only the first %d of %d bytes are kept: edit gives the whole value", len(rec.RecordValue), rec.Cut.Bytes), nil
	case rec.Reason == reasonRecordBroken:
		return false, rec.Reason, rec.Detail, nil
	}
	begin := w.batch.at()
	w.rows = rowsNone
	reason, detail, err = w.eventsAgain(ctx, &r)
	if err != nil {
		return false, "", "", err
	}
	taken := w.batch.changes[begin.changes:]
	other := func(c changelog.Change) bool { return key != nil && !bytes.Equal(c.Key, key) }
	if reason == "" && slices.ContainsFunc(taken, other) {
		reason, detail = decode.ReasonKeyMismatch, "the edited record is of another key than the one that waits for it"
	}
	if reason != "" {
		w.batch.back(begin)
		return false, reason, detail, nil
	}
	return len(taken) > 0, "", "", nil
}

// eventsAgain takes the events of a parked record in, up to one that is rejected. A reason tells why it was.
func (w *worker) eventsAgain(ctx context.Context, r *Record) (reason, detail string, err error) {
	defer func() { w.place = 0 }()
	ev, err := w.decode(ctx, r)
	for {
		if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
			return rejected.Reason, rejected.Detail, nil
		}
		if err != nil {
			return "", "", err
		}
		if ev.Kind == decode.Truncate {
			return reasonTruncateUnsafe, "a truncate is not replayed: later changes would be lost; skip it", nil
		}
		w.connector, w.streaming = ev.SourceName, false // no epoch begins here
		parked := len(w.batch.parked)
		if err := w.event(ctx, r, ev); err != nil {
			return "", "", err
		}
		if n := len(w.batch.parked); n > parked && !w.batch.parked[n-1].Applied {
			return w.batch.parked[n-1].Reason, w.batch.parked[n-1].Detail, nil
		}
		if !w.decoder.More() {
			return "", "", nil
		}
		w.place++
		ev, err = w.nextEvent(ctx, r)
	}
}

// alone replays a record that no mark counts.
func (w *worker) alone(ctx context.Context, rec *changelog.Parked, force bool, out *ParkedOutcome) error {
	leave, err := w.enterBoth(ctx)
	if err != nil {
		return err
	}
	defer leave()
	w.batch.reset()
	w.begin()
	changed, reason, detail, err := w.again(ctx, rec, nil)
	if err != nil {
		return err
	}
	a := changelog.Append{Unparked: []uint64{rec.ID}}
	if reason != "" {
		now := *rec
		now.Reason, now.Detail = reason, detail
		now.Attempts++
		out.fail(rec.ID, reason, detail)
		return w.runner.pipeline.settle(ctx, changelog.Append{Reparked: []changelog.Parked{now}})
	}
	if changed {
		if err := w.mayApply(rec, force); err != nil {
			return err
		}
	}
	if err := w.finish(ctx, w.table.current.Load(), a); err != nil {
		return err
	}
	if changed {
		out.Applied++
		w.runner.pipeline.metrics.repaired.WithLabelValues("replayed").Inc()
	} else {
		out.Skipped++
		w.runner.pipeline.metrics.repaired.WithLabelValues("skipped").Inc()
	}
	return nil
}

// mayApply refuses the change of a record that no mark counts where it may undo a later one.
func (w *worker) mayApply(rec *changelog.Parked, force bool) error {
	keyed := false
	for _, c := range w.batch.changes {
		if stale, _ := w.table.stale.get(c.Key); stale && len(c.Key) > 0 {
			return refuse(rec.ID, "it is of a key that has other parked records, and its place among them is not known: replay or skip those first")
		}
		keyed = keyed || len(c.Key) > 0
	}
	if keyed && !force {
		return refuse(rec.ID, "later events of its key may be applied, and it would undo them: skip it, or apply it as the newest change of the key (--force)")
	}
	return nil
}

// release replays queues that wait for no record any more: what they waited for was replayed or skipped while their first record
// was on its way to the log. A queue that cannot be replayed stays, and is listed.
func (w *worker) release(ctx context.Context, marks []changelog.StaleMark) error {
	for _, m := range marks {
		if err := w.runner.pipeline.releaseKey(ctx, m); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			w.runner.pipeline.logger.Warn("a queue of parked records stays", "table", w.table.name, "key", m.Key, "err", err)
		}
	}
	return nil
}

func (p *Pipeline) releaseKey(ctx context.Context, m changelog.StaleMark) error {
	unlock, err := p.lockRepair(ctx) // it may store a record again, which nobody may edit meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	m, ok, err := p.log.StaleMark(m.Table, m.Key)
	if err != nil || !ok || !queuesFreely(&m) {
		return err
	}
	rec, err := p.log.ParkedGet(ctx, m.First)
	if err != nil {
		return err
	}
	w, err := p.repairer(ctx, &rec)
	if err != nil {
		return err
	}
	var out ParkedOutcome
	return w.queueOf(ctx, m.Key, giveUpNone, 0, &out)
}

// queuesFreely reports whether the queue of a mark begins with a record that has nothing wrong with it but that it queued.
func queuesFreely(m *changelog.StaleMark) bool { return m.Set && m.Hold && m.Reason == reasonKeyQueued }

// ErrNoTable says that no table has that name.
var ErrNoTable = errors.New("ingest: no such table")
