package ingest

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"firn/changelog"
	"firn/ingest/columns"
	"firn/ingest/decode"
)

// worker takes in one partition. One goroutine runs it, and owns all of it but what its acknowledger gets.
type worker struct {
	runner  *runner
	log     Log
	opts    *Options
	stream  Stream
	part    Partition
	id      changelog.StreamID
	target  target
	table   *table
	decoder *decode.Decoder
	columns *columns.Applier // nil: the route has no column rules
	member  *member
	state   *partitionState
	acks    *acknowledger

	filter     *identities // nil: repeats are kept
	connector  string      // source.name of the events, and
	epoch      int         // the epoch of it that the filter's memory is of
	streaming  bool        // events that are not of a snapshot have been read
	rows       rowsBefore  // what the partition's last row was: for tables without a key
	partitions int         // of the topic, when it was asked for; 0: it was not
	twice      bool        // it was said that repeats of such a table cannot be told from rows

	next      int64  // all before is in the batch or submitted
	warmUntil int64  // records before are only remembered
	keySchema []byte // the key schema of the last record, from the key's start; nil: none yet
	bindings  map[*decode.Shape]*binding
	last      *binding // the one used last
	values    []changelog.Value
	batch     batch
	now       int64 // µs, of the batch

	rekeyed map[*decode.Shape]*rekeyed // nil: the message key is the key
	key     []byte                     // scratch
	sampled map[string]int64           // when a column's cut times were last reported, µs
	repairs bool                       // it replays what is parked
	place   int                        // of the event at hand in its record
	several bool                       // the record has more events than one

	rejects rejections
	stop    *StoppedError // the table stops after the record

	seen      seen
	shown     seenTopic
	published *binding // that shown is of
	toldTwice bool     // shown tells of twice

	freed []changelog.StaleMark // of the last append: queues whose first record waits for nothing
}

// consume takes in a stream until ctx ends or the stream does.
func (r *runner) consume(ctx context.Context, s Stream) (err error) {
	w, err := r.newWorker(s)
	if err != nil {
		return err
	}
	if err := w.table.open(ctx, w.log); err != nil {
		return final(err)
	}
	if err := w.release(ctx, w.table.freeQueues()); err != nil {
		return err
	}
	w.member = r.topic(w.part.Topic).join(w.part.Index, w.next)
	assigned := ctx
	defer func() { w.member.leave(assigned.Err() != nil) }()
	w.state.update(func(p *PartitionStatus) { p.Assigned, p.Error, p.Next = true, "", w.next })
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	w.acks = newAcknowledger(ctx, w, stop)
	defer func() {
		if failed := w.acks.stop(); failed != nil { // submitted, and maybe not durable: nobody may go on
			err = failed
		}
	}()
	return w.run(ctx)
}

func (r *runner) newWorker(s Stream) (*worker, error) {
	w := r.worker(s.Partition())
	w.stream = s
	next, known, err := w.log.Position(w.id)
	if err != nil {
		return nil, final(err)
	}
	if !known {
		next = s.Begin()
	}
	if known {
		w.rows = rowsUnknown
	}
	w.next, w.warmUntil = next, next
	return w, nil
}

// worker returns a worker of a partition that has nothing to read yet.
func (r *runner) worker(part Partition) *worker {
	t := r.router.route(part.Topic)
	w := &worker{
		runner: r, log: r.pipeline.log, opts: &r.pipeline.opts, part: part, id: part.Stream(r.source.Name()),
		target: t, table: r.pipeline.table(t.table), decoder: decode.New(t.Decode), state: r.state(part), bindings: map[*decode.Shape]*binding{},
	}
	w.decoder.SetPlan(t.Plan)
	if t.rules != nil {
		w.columns = t.rules.Applier()
		w.decoder.SetNaming(t.rules)
	}
	if !t.KeepRepeats {
		w.filter = newIdentities(r.window)
	}
	if t.Key == KeyColumns && len(t.Decode.KeyColumns) == 0 { // else the decoder gives the key
		w.rekeyed = map[*decode.Shape]*rekeyed{}
	}
	return w
}

func final(err error) error { return errors.Join(errFinal, err) }

// run returns ctx's or the stream's error, or a final one.
func (w *worker) run(ctx context.Context) error {
	for {
		b, err := w.stream.Next(ctx)
		if err != nil {
			return err
		}
		limit, err := w.limit(ctx)
		if err != nil {
			return err
		}
		if stop := w.table.stopped.Load(); stop != nil { // by another partition
			return stop
		}
		w.begin()
		for rest := b.Records; len(rest) > 0; {
			n, err := w.take(ctx, rest, limit)
			if err != nil {
				return err
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
			if err := w.submit(ctx, b.End); err != nil {
				return err
			}
			if limit, err = w.limit(ctx); err != nil { // we may stand at it
				return err
			}
			w.begin()
		}
		w.next = max(w.next, b.Next)
		if err := w.submit(ctx, b.End); err != nil {
			return err
		}
	}
}

// limit is where a barrier of the topic stops this partition. It blocks while it stands there.
func (w *worker) limit(ctx context.Context) (int64, error) {
	limit, err := w.member.limit(ctx, w.next)
	return limit, err
}

// begin starts a batch: what is the same for all its records.
func (w *worker) begin() {
	w.now = w.opts.Now().UnixMicro()
	if t := w.table.current.Load(); t != nil {
		w.decoder.SetTable(t.Schemas.Current()) // for messages without a schema
	}
	if w.filter == nil || w.connector == "" {
		return
	}
	if now := w.runner.epochs.current(w.connector); now != w.epoch {
		w.epoch = now
		w.filter.reset()
	}
}

// take takes in records before limit, as many as an append may hold, and returns how many.
func (w *worker) take(ctx context.Context, records []Record, limit int64) (int, error) {
	for i := range records {
		r := &records[i]
		if r.Offset >= limit || w.batch.records >= w.opts.BatchRecords || w.batch.bytes >= w.opts.BatchBytes {
			return i, nil
		}
		if err := w.record(ctx, r); err != nil {
			return i, err
		}
		if w.stop != nil {
			return i, w.halt(ctx)
		}
	}
	return len(records), nil
}

// record takes in one record. An error is ctx's or final.
func (w *worker) record(ctx context.Context, r *Record) error {
	if r.Offset < w.warmUntil {
		return w.remember(ctx, r)
	}
	w.warmUntil = 0
	if r.Offset < w.next {
		w.count(&w.batch.counts.Duplicate, r)
		return nil
	}
	if r.Broken != "" {
		w.reject(r, reasonRecordBroken, r.Broken, nil)
		w.saw(r, nil)
		w.passed(r)
		return nil
	}
	if w.keySchema == nil || !bytes.HasPrefix(r.Key, w.keySchema) {
		if err := w.checkKeySchema(ctx, r); err != nil {
			return err
		}
	}
	if err := w.events(ctx, r); err != nil {
		return err
	}
	w.passed(r)
	return nil
}

// events takes in the events of a record: all in one batch, whose position is behind it, or none. One that is rejected does not keep the
// others from being applied.
func (w *worker) events(ctx context.Context, r *Record) error {
	defer func() { w.place, w.several = 0, false }()
	begin := w.batch.at()
	ev, err := w.decode(ctx, r)
	for {
		w.several = w.decoder.Several()
		if err != nil {
			rejected, ok := errors.AsType[*decode.Rejected](err)
			if !ok {
				return err
			}
			w.reject(r, rejected.Reason, rejected.Detail, rejected.TableKey)
			ev = nil
		} else if err := w.event(ctx, r, ev); err != nil {
			return err
		}
		w.saw(r, ev)
		switch {
		case w.stop != nil && w.stop.Before: // the record comes again
			w.batch.back(begin)
			return nil
		case !w.decoder.More():
			return nil
		}
		w.place++
		ev, err = w.nextEvent(ctx, r)
	}
}

// count counts a record, or one event of a record that has several, with its outcome.
func (w *worker) count(outcome *int64, r *Record) {
	*outcome++
	w.seen.outcome = outcome
	if outcome == &w.batch.counts.Applied {
		w.rejects.applied()
	}
	w.batch.counts.Read++
	w.batch.records++
	if w.place == 0 {
		w.batch.bytes += len(r.Key) + len(r.Value)
	}
}

// remember takes in a record from before the resume position: only what it says about those behind it. Error: as decode's.
func (w *worker) remember(ctx context.Context, r *Record) error {
	if r.Broken != "" {
		return nil
	}
	if schema := w.keySchemaOf(r); schema != nil && !bytes.Equal(schema, w.keySchema) {
		w.member.topic.learn(schema)
		w.keySchema = append(w.keySchema[:0], schema...)
	}
	ev, err := w.decode(ctx, r)
	for {
		if _, rejected := errors.AsType[*decode.Rejected](err); err != nil && !rejected {
			return err
		}
		if err == nil { // else it was parked when it was read first
			w.recall(ev)
		}
		if !w.decoder.More() {
			return nil
		}
		ev, err = w.nextEvent(ctx, r)
	}
}

// recall takes in an event from before the resume position.
func (w *worker) recall(ev *decode.Event) {
	if ev.Kind.Skip() {
		return
	}
	w.rows.note(ev)
	if w.filter == nil {
		return
	}
	if w.follow(ev) {
		w.filter.reset()
	}
	if ev.HasIdentity {
		w.filter.seen(&ev.Identity)
	}
}

// checkKeySchema waits at a record with a key schema that is new to the topic.
func (w *worker) checkKeySchema(ctx context.Context, r *Record) error {
	schema := w.keySchemaOf(r)
	if schema == nil {
		return nil
	}
	if !w.member.topic.knows(schema) {
		if err := w.submit(ctx, Unknown); err != nil {
			return err
		}
		w.state.update(func(p *PartitionStatus) { p.Waiting = "new key schema: waits for the topic's other partitions" })
		w.runner.pipeline.metrics.barriers.WithLabelValues(w.id.Source, w.id.Topic).Inc()
		err := w.member.hold(ctx, r.Offset, schema, r.Timestamp)
		w.state.update(func(p *PartitionStatus) { p.Waiting = "" })
		if err != nil {
			return err
		}
		w.begin()
	}
	w.keySchema = append(w.keySchema[:0], schema...)
	return nil
}

// follow keeps track of the source's epochs (spec/debezium.md 2.3). It reports whether ev begins a new one.
func (w *worker) follow(ev *decode.Event) bool {
	begins := false
	if ev.SourceName != w.connector && ev.SourceName != "" {
		begins = w.connector != ""
		w.connector = strings.Clone(ev.SourceName)
		w.epoch = w.runner.epochs.current(w.connector)
	}
	switch ev.Snapshot {
	case decode.SnapshotNone:
		w.streaming = true
	case decode.SnapshotFirst:
		begins = begins || w.streaming
		w.streaming = false
	case decode.SnapshotFirstInTable, decode.SnapshotRow, decode.SnapshotLastInTable, decode.SnapshotLast, decode.SnapshotIncremental:
	}
	return begins
}

// event takes in a decoded record.
func (w *worker) event(ctx context.Context, r *Record, ev *decode.Event) error {
	if ev.Kind.Skip() {
		w.count(&w.batch.counts.Skipped, r)
		w.batch.skipped[ev.Kind]++
		return nil
	}
	if w.follow(ev) && w.filter != nil {
		w.epoch = w.runner.epochs.begin(w.connector)
		w.filter.reset()
		w.runner.pipeline.logger.Info("the source begins anew: earlier events are forgotten", "source", w.id.Source, "topic", w.id.Topic, "connector", w.connector)
	}
	if w.filter != nil && ev.HasIdentity && w.filter.seen(&ev.Identity) {
		w.count(&w.batch.counts.Replayed, r)
		return nil
	}
	if ev.Kind == decode.Truncate {
		return w.truncate(ctx, r, ev)
	}
	if w.rekeyed != nil {
		if rejected := w.rekey(ev); rejected != nil {
			w.reject(r, rejected.Reason, rejected.Detail, nil)
			return nil //nolint:nilerr // a rejection is an outcome, not an error
		}
	}
	b := w.last
	if b == nil || b.shape != ev.Shape || b.rejected != nil {
		var err error
		if b, err = w.bind(ctx, ev.Shape); err != nil {
			return err
		}
	}
	if b.rejected != nil {
		w.reject(r, b.rejected.Reason, b.rejected.Detail, ev.TableKey)
		return nil //nolint:nilerr // as above
	}
	if len(ev.Shape.Key) == 0 {
		return w.keylessChange(ctx, r, ev, b)
	}
	return w.change(ctx, r, ev, b)
}

// change takes in a change of a row.
func (w *worker) change(ctx context.Context, r *Record, ev *decode.Event, b *binding) error {
	w.key = b.mapping.Key(w.key[:0], ev.Key)
	if w.queues(w.key) {
		w.queue(r, b.table.ID)
		return nil
	}
	var row changelog.Row
	if ev.Op == changelog.OpDelete {
		if err := w.move(ctx, ev, b); err != nil {
			return err
		}
	} else if len(ev.Placeholders) > 0 {
		filled, reason, err := w.fill(ctx, r, ev, b)
		if err != nil {
			return err
		}
		if reason != "" {
			w.reject(r, reason, "", ev.TableKey)
			return nil
		}
		b, row = w.last, filled // the table may have changed
	} else {
		row = w.batch.arena.keep(b.mapping.Row(w.batch.arena.tail(), ev.After))
	}
	if b.restricted && row != nil {
		if detail, err := w.badPartition(b, row); err != nil {
			return final(err)
		} else if detail != "" {
			w.reject(r, reasonPartition, detail, ev.TableKey)
			return nil
		}
	}
	if w.isStale(w.key) {
		w.batch.stale = append(w.batch.stale, changelog.StaleMark{Table: b.table.ID, Key: w.keep(w.key)})
	}
	var before changelog.Row
	if ev.Before != nil {
		before = w.batch.arena.keep(b.mapping.Row(w.batch.arena.tail(), ev.Before))
	}
	w.batch.changes = append(w.batch.changes, changelog.Change{
		Op: ev.Op, Key: w.keep(w.key), Before: before, After: row,
		Position: w.position(r, ev.Native), SourceTime: ev.SourceTime, IngestTime: w.now, Txn: ev.Txn,
	})
	if len(ev.Reports) > 0 {
		w.report(r, ev)
	}
	w.count(&w.batch.counts.Applied, r)
	return nil
}

// keep copies bytes into the batch.
func (w *worker) keep(b []byte) []byte { return w.batch.arena.keep(append(w.batch.arena.tail(), b...)) }

func (w *worker) position(r *Record, native string) changelog.Position {
	return changelog.Position{Source: w.id.Source, Topic: w.id.Topic, Partition: w.id.Partition, Offset: r.Offset, Native: native}
}

// isStale reports whether the row of a key may be older than a rejected event.
func (w *worker) isStale(key []byte) bool {
	stale, _ := w.staleMark(key)
	return stale
}

// staleMark reports whether a key is stale, and whether its later events queue.
func (w *worker) staleMark(key []byte) (stale, hold bool) {
	if len(w.batch.stale) > 0 {
		if m := w.batch.mark(key); m != nil {
			return m.Set, m.Set && m.Hold
		}
	}
	return w.table.stale.get(key)
}

// queues reports whether an event of a key has to queue behind a parked one.
func (w *worker) queues(key []byte) bool {
	if w.target.OnParked != ParkedQueue || w.repairs {
		return false
	}
	_, hold := w.staleMark(key)
	return hold
}
