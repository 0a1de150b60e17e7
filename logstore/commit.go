package logstore

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// maxInFlight bounds the batches that are applied and not yet synced: while they are, further appends gather into
// the next one.
const maxInFlight = 3

// Ticket is an append on its way.
type Ticket struct {
	e       *encoded
	applied chan struct{} // closed: in memory, or failed
	synced  chan struct{} // closed: on disk, or failed
	result  changelog.Applied
	err     error
	begin   time.Time
}

// Wait blocks until the append is synced and visible to all, and tells what it became. Error: as Submit's, or ctx's:
// then the append may still become durable.
func (t *Ticket) Wait(ctx context.Context) (changelog.Applied, error) {
	select {
	case <-t.synced:
		return t.result, t.err
	case <-ctx.Done():
		return changelog.Applied{}, ctx.Err()
	}
}

// Append makes a durable in one atomic batch. It blocks until the batch is synced. Changes get dense SeqNums of their
// tables in the given order. Append copies what it keeps. Safe for concurrent use.
//
// Errors: state.ErrNotFound, no such table; ErrTooLarge; ErrNoParked, a record of Unparked or Reparked is not there; ErrFull
// and ErrParkedFull, nothing is applied and the same append may be tried again; ErrClosed; ctx's, then a may still become durable; anything else is I/O, after which the
// Store refuses writes until it is reopened.
func (s *Store) Append(ctx context.Context, a changelog.Append) (changelog.Applied, error) {
	t, err := s.submit(ctx, &a)
	if err != nil {
		return changelog.Applied{}, err
	}
	return t.Wait(ctx)
}

// Submit is Append without the wait for the sync: it returns when RowNow, from whatever goroutine, sees the append.
// What is submitted one after the other becomes durable in this order. Errors: as Append's.
func (s *Store) Submit(ctx context.Context, a changelog.Append) (*Ticket, error) {
	t, err := s.submit(ctx, &a)
	if err != nil {
		return nil, err
	}
	select {
	case <-t.applied:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-t.synced: // at once if it failed
		if t.err != nil {
			return nil, t.err
		}
	default:
	}
	return t, nil
}

// submit encodes and queues a.
func (s *Store) submit(ctx context.Context, a *changelog.Append) (*Ticket, error) {
	if err := s.admit(a); err != nil {
		return nil, err
	}
	e := s.encoded.Get().(*encoded) // the pool holds nothing else
	if err := e.encode(s.reg, a, s.nowMicro()); err != nil {
		s.release(e)
		return nil, fmt.Errorf("append: %w", err)
	}
	if err := s.settle(ctx, e, a); err != nil {
		s.release(e)
		return nil, fmt.Errorf("append: %w", err)
	}
	if err := s.parkedRows(ctx, e, a); err != nil {
		s.release(e)
		return nil, fmt.Errorf("append: %w", err)
	}
	for i := range e.tables { // here, so that the committer never reads
		if _, err := s.table(e.tables[i].id); err != nil {
			s.release(e)
			return nil, fmt.Errorf("append: %w", err)
		}
	}
	t := &Ticket{e: e, applied: make(chan struct{}), synced: make(chan struct{}), begin: time.Now()}
	s.closeMu.RLock()
	defer s.closeMu.RUnlock()
	if s.closeMu.closed {
		s.release(e)
		return nil, ErrClosed
	}
	select {
	case s.queue <- t:
		return t, nil
	case <-ctx.Done():
		s.release(e)
		return nil, ctx.Err()
	}
}

func (s *Store) admit(a *changelog.Append) error {
	if err := s.Err(); err != nil {
		return fmt.Errorf("append: the store has failed: %w", err)
	}
	if s.space.isFull() && (len(a.Tables) > 0 || len(a.Unparked) == 0) { // giving up parked records makes space
		return fmt.Errorf("append: %w", ErrFull)
	}
	if len(a.Parked) > 0 && s.parked.isFull(s.opts.ParkedBytes) {
		return fmt.Errorf("append of %d parked records: %w", len(a.Parked), ErrParkedFull)
	}
	return nil
}

// release gives e back for reuse, unless one large append has blown it up.
func (s *Store) release(e *encoded) {
	if cap(e.arena) <= 8<<20 {
		s.encoded.Put(e)
	}
}

// group is the appends of one batch.
type group struct {
	batch   *pebble.Batch
	tickets []*Ticket
	bytes   int
	begin   time.Time
	applied bool // the tickets have been told
}

// commitLoop is the committer: it takes what is queued, numbers it, and applies it in one batch.
func (s *Store) commitLoop() {
	defer close(s.synced)
	for {
		var t *Ticket
		select {
		case t = <-s.queue:
		case <-s.closing:
			select {
			case t = <-s.queue: // what was queued before
			default:
				return
			}
		}
		s.slots <- struct{}{} // meanwhile others queue up
		g := s.gather(t)
		if err := s.applyGroup(g); err != nil {
			s.failGroup(g, err)
			<-s.slots
			continue
		}
		g.applied = true
		for _, t := range g.tickets {
			close(t.applied)
		}
		s.synced <- g
		s.pause(g.bytes)
	}
}

// gather adds what is queued behind t, up to the size of a batch.
func (s *Store) gather(t *Ticket) *group {
	g := &group{tickets: []*Ticket{t}, bytes: len(t.e.arena), begin: time.Now()}
	for int64(g.bytes) < s.opts.MaxBatchBytes {
		select {
		case t := <-s.queue:
			g.tickets = append(g.tickets, t)
			g.bytes += len(t.e.arena)
		default:
			return g
		}
	}
	return g
}

// applyGroup builds and applies the batch of g. An append to a table that was dropped meanwhile leaves g with an error
// of its own.
func (s *Store) applyGroup(g *group) error {
	size := g.bytes
	for _, t := range g.tickets {
		size += 16 * len(t.e.ops)
	}
	g.batch = s.db.NewBatch(pebble.WithInitialSizeBytes(size+4096), pebble.WithMaxRetainedSizeBytes(4<<20))
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	tickets, parked := g.tickets[:0], false
	settled := map[uint64]bool{}
	for _, t := range g.tickets {
		if err := s.unsettled(t.e, settled); err != nil {
			t.fail(err)
			continue
		}
		if err := s.number(t, 0); err != nil {
			t.fail(err)
			continue
		}
		firstParked := s.parked.take(len(t.e.parked))
		if err := s.rowsOfParked(t, firstParked); err != nil {
			return err
		}
		if err := s.build(g.batch, t.e, firstParked); err != nil {
			return err
		}
		tickets, parked = append(tickets, t), parked || len(t.e.parked) > 0 || len(t.e.settled) > 0
	}
	g.tickets = tickets
	if parked {
		if err := s.parked.store(g.batch, g.tickets); err != nil {
			return err
		}
	}
	if err := s.db.apply(g.batch); err != nil {
		return err
	}
	s.wrote.Add(uint64(size)) //nolint:gosec // not negative
	return nil
}

// number gives the changes of t their SeqNums, from its table at first on.
func (s *Store) number(t *Ticket, first int) error {
	s.mu.RLock()
	for i := first; i < len(t.e.tables); i++ {
		part := &t.e.tables[i]
		if part.log = s.mu.tables[part.id]; part.log == nil {
			s.mu.RUnlock()
			return fmt.Errorf("table %d: %w", part.id, state.ErrNotFound)
		}
	}
	s.mu.RUnlock()
	if first == 0 {
		t.result.Last = make(map[changelog.TableID]changelog.SeqNum, len(t.e.tables))
	}
	for i := first; i < len(t.e.tables); i++ {
		part := &t.e.tables[i]
		part.base = part.log.next
		part.log.next += changelog.SeqNum(part.count)
		part.last = part.log.next - 1
		t.result.Last[part.id] = part.last
	}
	return nil
}

// build adds the writes of e to b. firstParked is the id of the first of its parked records.
func (s *Store) build(b *pebble.Batch, e *encoded, firstParked uint64) error {
	for i := range e.ops {
		o := &e.ops[i]
		key, val := e.arena[o.key:o.val], e.arena[o.val:o.end]
		if o.kind == opDelete {
			if err := b.Delete(key, nil); err != nil {
				return err
			}
			continue
		}
		d := b.SetDeferred(len(key), len(val))
		copy(d.Key, key)
		copy(d.Value, val)
		switch o.kind {
		case opBlock:
			part := &e.tables[o.table]
			putSeq(d.Key[keyspace.ShardLen:], uint64(part.base)+uint64(o.ref))
			putSeq(d.Value[1:], part.log.bytes)
			part.log.bytes += uint64(len(val))
		case opRow:
			putSeq(d.Value, uint64(e.tables[o.table].base)+uint64(o.ref))
		case opParked:
			putSeq(d.Key[len(d.Key)-8:], firstParked+uint64(o.ref))
		case opStale:
			putSeq(d.Value[2:], firstParked+uint64(o.ref))
		case opSet, opDelete:
		}
		if err := d.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// fail ends t, which nothing was applied of.
func (t *Ticket) fail(err error) {
	t.err = fmt.Errorf("append: %w", err)
	close(t.synced)
	close(t.applied)
}

// failGroup tells the callers of g. The numbers it took are lost with the Store, which takes no more writes.
func (s *Store) failGroup(g *group, err error) {
	err = s.db.fail(err)
	for _, t := range g.tickets {
		t.err = fmt.Errorf("append: %w", err)
		close(t.synced)
		if !g.applied {
			close(t.applied)
		}
	}
	s.notifyAll()
}

// syncLoop waits for the batches' syncs in order and publishes them.
func (s *Store) syncLoop() {
	for g := range s.synced {
		if err := s.syncGroup(g); err != nil {
			s.failGroup(g, err)
		}
		<-s.slots
	}
}

func (s *Store) syncGroup(g *group) error {
	if err := g.batch.SyncWait(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := s.Err(); err != nil { // an earlier batch has failed: this one must not be seen without it
		return err
	}
	if err := g.batch.Close(); err != nil {
		return err
	}
	changes := 0
	for _, t := range g.tickets {
		changes += s.publish(t.e)
	}
	s.metrics.synced(g, changes)
	for _, t := range g.tickets {
		s.metrics.append.Observe(time.Since(t.begin).Seconds())
		s.release(t.e)
		t.e = nil
		close(t.synced)
	}
	return nil
}

// publish makes a synced append visible: SeqNums first, then positions, so that who waits for a position sees its rows. The rows of
// parked records come before the changes of other tables, so that a flush of those finds them (P4).
func (s *Store) publish(e *encoded) (changes int) {
	for i := len(e.tables) - 1; i >= 0; i-- {
		part := &e.tables[i]
		changes += int(part.count) //nolint:gosec // bounded by maxAppendBytes
		s.mu.RLock()
		t := s.mu.tables[part.id]
		s.mu.RUnlock()
		if t == nil {
			continue // dropped meanwhile
		}
		t.mu.Lock()
		t.mu.synced = part.last
		t.mu.bytes += part.bytes
		t.mu.natives.note(part.native)
		t.notifyLocked()
		t.mu.Unlock()
	}
	if len(e.positions) > 0 {
		s.mu.Lock()
		for _, p := range e.positions {
			s.setStreamLocked(p)
		}
		s.mu.Unlock()
	}
	return changes
}
