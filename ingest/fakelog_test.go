package ingest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/changelog"
	"firn/ingest"
)

// fakeLog is a model of the LogStore and of the registry in memory. It dies when it is told to, and reopens with what
// was durable by then.
type fakeLog struct {
	disk *disk

	mu       sync.Mutex
	changed  chan struct{}
	visible  view
	appends  []changelog.Append // submitted in this life
	synced   int                // of appends
	manual   bool               // sync only when asked
	dead     bool
	dieAfter int           // appends; 0: never
	full     int           // Submit says ErrFull so many times
	space    chan struct{} // if not nil, Submit says ErrFull until it is closed
	mended   chan struct{} // if not nil, Submit says ErrTableStopped until it is closed
	slow     bool          // Row takes its time, so that others come in between
	onRow    func()        // called once, by the first Row

	waits int // calls of WaitForSpace

	checkOrder bool // positions never go back
	violations []string
}

// disk is what survives.
type disk struct {
	view   view
	tables map[string]*ingest.Table
	parts  map[string][]string // terms of partition specs, by the last part of a table's name
}

// view is the state that a prefix of all appends makes.
type view struct {
	rows      map[string]changelog.Row // by table and key
	positions map[changelog.StreamID]int64
	moved     map[string]changelog.Row
	stale     map[string]string
	parked    []changelog.Parked
	changes   []tableChange
	marks     map[string]changelog.StaleMark
	nextID    uint64 // of parked records, less one
}

type tableChange struct {
	table changelog.TableID
	changelog.Change
}

var errNoParked = errors.New("no such parked record")

var errDead = errors.New("the log is dead")

func newDisk() *disk {
	return &disk{tables: map[string]*ingest.Table{}, view: view{}.clone()}
}

func (v view) clone() view {
	c := view{
		rows: maps.Clone(v.rows), positions: maps.Clone(v.positions), moved: maps.Clone(v.moved), stale: maps.Clone(v.stale),
		parked: slices.Clone(v.parked), changes: slices.Clone(v.changes),
		marks: maps.Clone(v.marks), nextID: v.nextID,
	}
	if v.marks == nil {
		c.marks = map[string]changelog.StaleMark{}
	}
	if v.rows == nil {
		c.rows, c.positions, c.moved, c.stale = map[string]changelog.Row{}, map[changelog.StreamID]int64{}, map[string]changelog.Row{}, map[string]string{}
	}
	return c
}

func openLog(d *disk) *fakeLog {
	return &fakeLog{disk: d, visible: d.view.clone(), changed: make(chan struct{})}
}

func rowKey(t changelog.TableID, key []byte) string { return fmt.Sprintf("%d/%x", t, key) }

func (v *view) apply(a changelog.Append) {
	for _, t := range a.Tables {
		for _, c := range t.Changes {
			v.changes = append(v.changes, tableChange{t.Table, c})
			switch {
			case c.Op == changelog.OpTruncate, len(c.Key) == 0:
			case c.After == nil:
				delete(v.rows, rowKey(t.Table, c.Key))
			default:
				v.rows[rowKey(t.Table, c.Key)] = c.After
			}
		}
	}
	for _, p := range a.Positions {
		v.positions[p.StreamID] = p.Next
	}
	for _, m := range a.Moved {
		v.moved[rowKey(m.Table, m.Key)+"@"+m.Native] = m.Row
	}
	first := v.nextID + 1
	for _, p := range a.Parked {
		v.nextID++
		p.ID = v.nextID
		v.parked = append(v.parked, p)
	}
	for _, id := range a.Unparked {
		v.parked = slices.DeleteFunc(v.parked, func(p changelog.Parked) bool { return p.ID == id })
	}
	for _, p := range a.Reparked {
		v.parked[v.parkedAt(p.ID)] = p
	}
	for _, s := range a.Stale {
		delete(v.marks, rowKey(s.Table, s.Key))
		if s.Set {
			if s.Record > 0 {
				s.First, s.Record = first+uint64(s.Record-1), 0
			}
			v.marks[rowKey(s.Table, s.Key)] = s
			v.stale[rowKey(s.Table, s.Key)] = s.Reason
		} else {
			delete(v.stale, rowKey(s.Table, s.Key))
		}
	}
}

func (v *view) parkedAt(id uint64) int {
	return slices.IndexFunc(v.parked, func(p changelog.Parked) bool { return p.ID == id })
}

// copyAppend keeps nothing of the caller's.
func copyAppend(a changelog.Append) changelog.Append {
	c := changelog.Append{Positions: slices.Clone(a.Positions), Parked: slices.Clone(a.Parked), Moved: slices.Clone(a.Moved), Stale: slices.Clone(a.Stale)}
	c.Unparked, c.Reparked = slices.Clone(a.Unparked), slices.Clone(a.Reparked)
	for _, t := range a.Tables {
		changes := slices.Clone(t.Changes)
		for i := range changes {
			changes[i].Key, changes[i].Before, changes[i].After = bytes.Clone(changes[i].Key), bytes.Clone(changes[i].Before), bytes.Clone(changes[i].After)
		}
		c.Tables = append(c.Tables, changelog.TableAppend{Table: t.Table, Changes: changes})
	}
	for i := range c.Parked {
		p := &c.Parked[i]
		p.Key, p.RecordKey, p.RecordValue, p.Headers = bytes.Clone(p.Key), bytes.Clone(p.RecordKey), bytes.Clone(p.RecordValue), slices.Clone(p.Headers)
	}
	for i := range c.Moved {
		c.Moved[i].Key, c.Moved[i].Row = bytes.Clone(c.Moved[i].Key), bytes.Clone(c.Moved[i].Row)
	}
	for i := range c.Stale {
		c.Stale[i].Key = bytes.Clone(c.Stale[i].Key)
	}
	return c
}

func (l *fakeLog) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLog) Submit(_ context.Context, a changelog.Append) (ingest.Ticket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.wakeLocked()
	if l.dead {
		return nil, errDead
	}
	if l.space != nil {
		select {
		case <-l.space:
		default:
			return nil, fmt.Errorf("no space: %w", ingest.ErrFull)
		}
	}
	if l.mended != nil {
		select {
		case <-l.mended:
		default:
			return nil, fmt.Errorf("it has diverged: %w", ingest.ErrTableStopped)
		}
	}
	if l.full > 0 {
		l.full--
		return nil, fmt.Errorf("no space: %w", ingest.ErrFull)
	}
	a = copyAppend(a)
	settled := slices.Clone(a.Unparked)
	for _, p := range a.Reparked {
		settled = append(settled, p.ID)
	}
	for _, id := range settled {
		if l.visible.parkedAt(id) < 0 {
			return nil, errNoParked
		}
	}
	for _, p := range a.Positions {
		if old, ok := l.visible.positions[p.StreamID]; ok && p.Next < old {
			l.violations = append(l.violations, fmt.Sprintf("position of %s from %d back to %d", p.StreamID, old, p.Next))
		}
	}
	l.visible.apply(a)
	l.appends = append(l.appends, a)
	if l.dieAfter > 0 && len(l.appends) >= l.dieAfter {
		l.dead = true
	} else if !l.manual {
		l.synced = len(l.appends)
	}
	return &fakeTicket{l, len(l.appends)}, nil
}

type fakeTicket struct {
	log *fakeLog
	n   int
}

func (t *fakeTicket) Wait(ctx context.Context) (changelog.Applied, error) {
	l := t.log
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.synced < t.n {
		if l.dead {
			return changelog.Applied{}, errDead
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return changelog.Applied{}, ctx.Err()
		}
	}
	return changelog.Applied{}, nil
}

// sync makes all that is submitted durable.
func (l *fakeLog) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.dead {
		l.synced = len(l.appends)
	}
	l.wakeLocked()
}

// crash ends this life: of what was submitted, all that was synced survives, and lucky appends after it.
func (l *fakeLog) crash(lucky int) *fakeLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	l.wakeLocked()
	for _, a := range l.appends[:min(len(l.appends), l.synced+lucky)] {
		l.disk.view.apply(a)
	}
	next := openLog(l.disk)
	next.violations, next.checkOrder = l.violations, l.checkOrder
	return next
}

func (l *fakeLog) WaitForSpace(ctx context.Context) error {
	l.mu.Lock()
	l.waits++
	space := l.space
	l.mu.Unlock()
	if space == nil {
		return nil
	}
	select {
	case <-space:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *fakeLog) Position(id changelog.StreamID) (int64, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, ok := l.visible.positions[id]
	return next, ok, nil
}

func (l *fakeLog) ResetPositions(_ context.Context, positions []changelog.StreamPosition) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range positions {
		l.visible.positions[p.StreamID] = p.Next
	}
	return nil
}

func (l *fakeLog) Row(_ context.Context, t changelog.TableID, key changelog.Key) (changelog.Row, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.onRow; f != nil {
		l.onRow = nil
		l.mu.Unlock()
		f()
		l.mu.Lock()
	}
	row, ok := l.visible.rows[rowKey(t, key)]
	if l.slow {
		l.mu.Unlock()
		time.Sleep(20 * time.Microsecond)
		l.mu.Lock()
	}
	return bytes.Clone(row), ok, nil
}

func (l *fakeLog) MovedRow(_ context.Context, t changelog.TableID, key changelog.Key, native string) (changelog.Row, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	row, ok := l.visible.moved[rowKey(t, key)+"@"+native]
	return bytes.Clone(row), ok, nil
}

func keysOf[V any](m map[string]V, t changelog.TableID) []changelog.Key {
	var keys []changelog.Key
	for k := range m {
		var id changelog.TableID
		var key []byte
		if _, err := fmt.Sscanf(k, "%d/%x", &id, &key); err == nil && id == t {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b changelog.Key) int { return bytes.Compare(a, b) })
	return keys
}

func each(keys []changelog.Key) iter.Seq2[changelog.Key, error] {
	return func(yield func(changelog.Key, error) bool) {
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}

func (l *fakeLog) Keys(_ context.Context, t changelog.TableID) iter.Seq2[changelog.Key, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	return each(keysOf(l.visible.rows, t))
}

func (l *fakeLog) StaleKeys(_ context.Context, t changelog.TableID) iter.Seq2[changelog.StaleMark, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	var marks []changelog.StaleMark
	for _, k := range keysOf(l.visible.marks, t) {
		marks = append(marks, l.visible.marks[rowKey(t, k)])
	}
	return func(yield func(changelog.StaleMark, error) bool) {
		for _, m := range marks {
			if !yield(m, nil) {
				return
			}
		}
	}
}

func (l *fakeLog) StaleMark(t changelog.TableID, key changelog.Key) (changelog.StaleMark, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.visible.marks[rowKey(t, key)]
	return m, ok, nil
}

func (l *fakeLog) ParkedGet(_ context.Context, id uint64) (changelog.Parked, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.visible.parkedAt(id); i >= 0 {
		return l.visible.parked[i], nil
	}
	return changelog.Parked{}, errNoParked
}

func (l *fakeLog) ParkedOf(ctx context.Context, t changelog.TableID, key changelog.Key, first uint64) iter.Seq2[changelog.Parked, error] {
	return func(yield func(changelog.Parked, error) bool) {
		for p := range l.ParkedList(ctx, t, max(first, 1)-1) {
			if bytes.Equal(p.Key, key) && !yield(p, nil) {
				return
			}
		}
	}
}

func (l *fakeLog) ParkedList(_ context.Context, t changelog.TableID, after uint64) iter.Seq2[changelog.Parked, error] {
	l.mu.Lock()
	all := slices.Clone(l.visible.parked)
	l.mu.Unlock()
	return func(yield func(changelog.Parked, error) bool) {
		for _, p := range all {
			if p.ID > after && p.Table == t && !yield(p, nil) {
				return
			}
		}
	}
}

// The registry: what it does is durable at once.

func (l *fakeLog) Table(name string) (*ingest.Table, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.disk.tables[name]
	return t, ok
}

func (l *fakeLog) Create(_ context.Context, name string, s *changelog.Schema, topic ingest.Topic) (*ingest.Table, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disk.tables[name] != nil {
		return nil, ingest.ErrTableExists
	}
	spec, err := changelog.ParsePartition(l.disk.parts[name[strings.LastIndexByte(name, '.')+1:]])
	if err == nil {
		spec, err = spec.Bind(s)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ingest.ErrTableUnfit, err)
	}
	t := &ingest.Table{Partition: spec, ID: changelog.TableID(len(l.disk.tables) + 1), Name: name, Schemas: changelog.Schemas{s}, Topics: []ingest.Topic{topic}}
	l.disk.tables[name] = t
	return t, nil
}

func (l *fakeLog) change(id changelog.TableID, f func(*ingest.Table) error) (*ingest.Table, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, t := range l.disk.tables {
		if t.ID == id {
			c := *t
			c.Schemas, c.Topics = slices.Clone(t.Schemas), slices.Clone(t.Topics)
			if err := f(&c); err != nil {
				return nil, err
			}
			l.disk.tables[name] = &c
			return &c, nil
		}
	}
	return nil, errors.New("no such table")
}

func (l *fakeLog) AddSchema(_ context.Context, id changelog.TableID, s *changelog.Schema) (*ingest.Table, error) {
	return l.change(id, func(t *ingest.Table) error {
		if int(s.ID) != len(t.Schemas) {
			return ingest.ErrTableChanged
		}
		t.Schemas = append(t.Schemas, s)
		return nil
	})
}

func (l *fakeLog) AddTopic(_ context.Context, id changelog.TableID, topic ingest.Topic) (*ingest.Table, error) {
	return l.change(id, func(t *ingest.Table) error { t.Topics = append(t.Topics, topic); return nil })
}

func (l *fakeLog) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.violations {
		t.Error(v)
	}
}
