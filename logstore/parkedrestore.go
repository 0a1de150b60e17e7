package logstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// backfillRecords bounds an append of BackfillParked.
const backfillRecords = 200

// BackfillParked gives rows to parked records that have none: they were parked before there was a table of them. It returns how
// many. Errors: as Append's; ErrParkedTable.
func (s *Store) BackfillParked(ctx context.Context) (n int, err error) {
	if s.opts.ParkedTable.Name == "" {
		return 0, nil
	}
	var a changelog.Append
	bytes := int64(0)
	put := func() error {
		_, err := s.Append(ctx, a)
		n += len(a.Reparked)
		a.Reparked, bytes = a.Reparked[:0], 0
		return err
	}
	for p, err := range s.ParkedAll(ctx) {
		if err != nil {
			return n, err
		}
		if found, err := s.hasParkedRow(ctx, &p); err != nil {
			return n, err
		} else if found {
			continue
		}
		a.Reparked = append(a.Reparked, p)
		if bytes += int64(len(p.RecordValue)); len(a.Reparked) >= backfillRecords || bytes >= s.opts.MaxBatchBytes {
			if err := put(); err != nil {
				return n, err
			}
		}
	}
	if len(a.Reparked) == 0 {
		return n, nil
	}
	return n, put()
}

func (s *Store) hasParkedRow(ctx context.Context, p *changelog.Parked) (bool, error) {
	id, err := s.parkedTable(ctx, s.target(p))
	if err != nil || id == 0 {
		return id == 0, err
	}
	schema := s.parkedSchema(id)
	at := &p.Position
	v, err := s.RowNow(ctx, id, schema.AppendKey(nil, []changelog.Value{
		{B: []byte(at.Source)}, {B: []byte(at.Topic)}, {I: int64(at.Partition)}, {I: at.Offset}, {I: int64(p.Part)},
	}))
	return v.Found, err
}

// parkedSchema returns the schema of a table of parked records that is there.
func (s *Store) parkedSchema(id changelog.TableID) *changelog.Schema {
	t, _ := s.reg.ByID(id)
	return t.Schemas.Current()
}

// parkedFields reads the columns of a row of a table of parked records by their names.
type parkedFields map[string]changelog.Value

func (f parkedFields) has(name string) bool {
	v, ok := f[name]
	return ok && !v.Null
}

func (f parkedFields) text(name string) string { return string(f[name].B) }
func (f parkedFields) number(name string) int64 {
	if !f.has(name) {
		return 0
	}
	return f[name].I
}

// bytes returns a copy, or nil for a null.
func (f parkedFields) bytes(name string) []byte {
	if !f.has(name) {
		return nil
	}
	return append([]byte{}, f[name].B...)
}

func (f parkedFields) headers(name string) ([]changelog.Header, error) {
	if !f.has(name) {
		return nil, nil
	}
	elements, err := changelog.AppendElements(nil, headersType, f[name].B)
	if err != nil {
		return nil, err
	}
	var all []changelog.Header
	for _, e := range elements {
		var rr changelog.RowReader
		if err := rr.ResetStruct(headersType.Fields[0].Type, e.B); err != nil {
			return nil, err
		}
		key, _ := rr.Next()
		value, _ := rr.Next()
		if rr.Err() != nil {
			return nil, rr.Err()
		}
		h := changelog.Header{Key: string(key.B)}
		if !value.Null {
			h.Value = append([]byte{}, value.B...)
		}
		all = append(all, h)
	}
	return all, nil
}

// parked returns the record that a row is of. Its bytes are its own. Error: changelog.ErrCorrupt.
func (f parkedFields) parked() (p changelog.Parked, err error) {
	p = changelog.Parked{
		ID: uint64(f.number("id")), Target: f.text("target_table"), Key: f.bytes("row_key"), Reason: f.text("reason"), Detail: f.text("message"), //nolint:gosec // a counter
		Applied: f.text("state") == ParkedReport, Time: f.number("parked_at"), Timestamp: f.number("record_time") / 1000,
		RecordKey: f.bytes("record_key"), RecordValue: f.bytes("record_value"), Attempts: int(f.number("attempts")), Part: int(f.number("part")),
		Position: changelog.Position{
			Source: f.text("source"), Topic: f.text("topic"), Partition: int32(f.number("partition")), Offset: f.number("offset"), //nolint:gosec // an int column
			Native: f.text("native_position"),
		},
	}
	if p.Headers, err = f.headers("headers"); err != nil {
		return p, err
	}
	if f.has("value_bytes") {
		p.Cut = &changelog.ParkedCut{Bytes: f.number("value_bytes")}
		copy(p.Cut.SHA256[:], f["value_sha256"].B)
	}
	if f.has("edited_at") {
		p.Edit = &changelog.ParkedEdit{By: f.text("edited_by"), Time: f.number("edited_at"), RecordKey: f.bytes("edited_key"), RecordValue: f.bytes("edited_value")}
		p.Edit.Headers, err = f.headers("edited_headers")
	}
	return p, err
}

// parkedRestore is a RestoreParked under way.
type parkedRestore struct {
	s       *Store
	b       *pebble.Batch
	changed map[ParkedKind]bool
	marks   map[string]*changelog.StaleMark // by table and key
	waiting []changelog.Parked              // whose rows say that they are settled, by what is lost
	n       int
}

// RestoreParked brings back the parked records of a table of parked records whose rows the lake has given back (P4), after the
// tables that they are for and their positions, and before anything is read. It returns how many. A crash leaves some of them,
// and it can be repeated.
//
// The table is never behind the others in the lake, but it may be ahead. What their restored positions are not behind will be
// read, and parked, again. What was settled by a change that the lake does not have is parked still.
func (s *Store) RestoreParked(ctx context.Context, id changelog.TableID) (int, error) {
	r := &parkedRestore{s: s, b: s.db.NewBatch(), changed: map[ParkedKind]bool{}, marks: map[string]*changelog.StaleMark{}}
	defer func() { _ = r.b.Close() }()
	if err := r.run(ctx, id); err != nil {
		return r.n, fmt.Errorf("restore parked records of table %d: %w", id, err)
	}
	return r.n, nil
}

func (r *parkedRestore) run(ctx context.Context, id changelog.TableID) error {
	snap, err := r.s.Snapshot(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = snap.Close() }() // a view: nothing is lost
	t, _ := r.s.reg.ByID(id)
	var values []changelog.Value
	for e, err := range snap.Rows(nil, nil) {
		if err != nil {
			return err
		}
		at, err := e.Row.SchemaID()
		if err != nil || int(at) >= len(t.Schemas) {
			return errors.Join(err, fmt.Errorf("row %s: %w", e.Key, errCorrupt))
		}
		schema := t.Schemas[at]
		if values, err = changelog.AppendValues(values[:0], schema, e.Row); err != nil {
			return err
		}
		fields := parkedFields{}
		for i, c := range schema.Columns {
			fields[c.Name] = values[i]
		}
		if err := r.row(ctx, fields); err != nil {
			return fmt.Errorf("row %s: %w", e.Key, err)
		}
		if err := r.commit(restoreBatch); err != nil {
			return err
		}
	}
	if err := r.commit(0); err != nil {
		return err
	}
	a := changelog.Append{}
	for _, m := range r.marks {
		a.Stale = append(a.Stale, *m)
	}
	slices.SortFunc(a.Stale, func(a, b changelog.StaleMark) int { return int(a.First) - int(b.First) }) //nolint:gosec // counters
	if _, err := r.s.Append(ctx, a); err != nil {
		return err
	}
	for some := range slices.Chunk(r.waiting, backfillRecords) { // so that their rows tell the truth
		if _, err := r.s.Append(ctx, changelog.Append{Reparked: some}); err != nil {
			return err
		}
	}
	return nil
}

// row takes one row in.
func (r *parkedRestore) row(ctx context.Context, f parkedFields) error {
	p, err := f.parked()
	if err != nil {
		return err
	}
	s := r.s
	s.commitMu.Lock()
	s.parked.next = max(s.parked.next, p.ID+1)
	s.commitMu.Unlock()
	next, ok, err := s.Position(changelog.StreamID{Source: p.Position.Source, Topic: p.Position.Topic, Partition: p.Position.Partition})
	if err != nil || !ok || p.Position.Offset >= next {
		return err
	}
	flushed := changelog.SeqNum(0)
	if t, ok := s.reg.Table(p.Target); ok {
		p.Table, p.Target = t.ID, ""
		progress, err := s.reg.Progress(t.ID)
		if err != nil {
			return err
		}
		flushed = progress.Flushed
	}
	state, settled := f.text("state"), changelog.SeqNum(f.number("settled_seq")) //nolint:gosec // dense from 1
	undone := settled > flushed && (state == ParkedReplayed || state == ParkedSuperseded)
	if undone {
		state, r.waiting = f.text("state_before"), append(r.waiting, p)
	}
	switch state {
	case ParkedSkipped:
		return r.skipped(ctx, &p, settled, f.number("row_suspect") == 1)
	case ParkedReplayed:
		return nil
	case ParkedWaits:
		r.mark(&p, f.number("holds_queue") == 1)
	}
	return r.put(&p)
}

// markOf returns the mark of a record's key, which is not Set if it is new; nil: it can have none.
func (r *parkedRestore) markOf(p *changelog.Parked) *changelog.StaleMark {
	if p.Table == 0 || len(p.Key) == 0 {
		return nil
	}
	at := fmt.Sprintf("%d/%s", p.Table, p.Key)
	if r.marks[at] == nil {
		r.marks[at] = &changelog.StaleMark{Table: p.Table, Key: p.Key}
	}
	return r.marks[at]
}

// mark counts a parked record in the mark of its key.
func (r *parkedRestore) mark(p *changelog.Parked, hold bool) {
	m := r.markOf(p)
	if m == nil {
		return
	}
	if m.Reason == "" || p.ID < m.First {
		m.Set, m.First, m.Reason, m.Hold = true, p.ID, p.Reason, hold
	}
}

// skipped takes a record in that was given up at a change of its table: its key stays suspect until an event with a whole row.
func (r *parkedRestore) skipped(ctx context.Context, p *changelog.Parked, at changelog.SeqNum, suspect bool) error {
	if !suspect || p.Table == 0 || len(p.Key) == 0 {
		return nil
	}
	v, err := r.s.RowNow(ctx, p.Table, p.Key)
	if err != nil || !v.Found {
		return err
	}
	progress, err := r.s.reg.Progress(p.Table)
	if err != nil || v.Seq > max(at, progress.Optimized) { // an event after it: only one with a whole row can be
		return err
	}
	m := r.markOf(p)
	m.Set, m.Skipped = true, true
	if m.Reason == "" {
		m.First = max(m.First, p.ID+1)
	}
	return nil
}

// put stores a record, unless an earlier try has.
func (r *parkedRestore) put(p *changelog.Parked) error {
	r.n++
	key := keyspace.Parked(nil, p.Table, p.ID)
	_, closer, err := r.s.db.Get(key)
	if err == nil {
		return closer.Close()
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	value := appendParked(nil, p)
	err = r.b.Set(key, value, nil)
	if p.Key != nil {
		err = errors.Join(err, r.b.Set(keyspace.ParkedKey(nil, p.Table, p.Key, p.ID), []byte{parkedVersion}, nil))
	}
	counts := &r.s.parked
	counts.mu.Lock()
	counts.addLocked(ParkedKind{p.Table, p.Reason}, ParkedCount{1, int64(len(key) + len(value))}, r.changed)
	counts.mu.Unlock()
	return err
}

// commit makes what was put durable, if it is more than a number of bytes.
func (r *parkedRestore) commit(more int) error {
	if r.b.Len() < more {
		return nil
	}
	counts := &r.s.parked
	r.s.commitMu.Lock()
	counts.mu.Lock()
	err := counts.writeLocked(r.b, r.changed)
	counts.mu.Unlock()
	r.s.commitMu.Unlock()
	if err = errors.Join(err, r.b.Commit(pebble.Sync)); err != nil {
		return err
	}
	r.b.Reset()
	clear(r.changed)
	return nil
}
