// Package logstore is firn's second-level buffer: the change log of every table by SeqNum and the current row of every
// key, in one Pebble instance that it shares with state.
//
// An append is one atomic, synced batch: blocks of changes, current rows, source positions, parked records, stale
// marks (P1). It never reads. The caller's goroutine encodes; one committer numbers the changes and builds batches that
// group the appends of all callers; a third goroutine waits for the sync, while the next batch is built, and makes the
// changes known to feeds. FORMAT.md draws the bytes and says what was measured.
//
//	Submit ── encode ──► queue ──► committer: SeqNums, batch, apply ──► syncer: fsync, publish
//	                                    │ visible to RowNow                 │ visible to feeds, Row, positions
package logstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

var (
	// ErrTrimmed reports that changes asked for are no longer held. Change files may still have them (P5).
	ErrTrimmed = errors.New("logstore: changes are trimmed")
	// ErrFull reports that the disk limit is reached. Nothing was applied: wait for space and try again.
	ErrFull = errors.New("logstore: disk limit reached")
	// ErrParkedFull reports that the limit of parked records is reached. Nothing was applied.
	ErrParkedFull = errors.New("logstore: limit of parked records reached")
	// ErrClosed reports a Store that is closed.
	ErrClosed = errors.New("logstore: closed")
	// ErrUnknown reports a database position of a kind that the table has not seen.
	ErrUnknown = errors.New("logstore: position of an unknown kind")
)

// Store is the LogStore. Safe for concurrent use.
type Store struct {
	db      *DB
	reg     *state.Registry
	opts    Options
	metrics *metrics

	queue   chan *Ticket // to the committer
	synced  chan *group  // to the syncer
	slots   chan struct{}
	closing chan struct{}
	running sync.WaitGroup // committer, syncer, watcher, trimmer, counts
	encoded sync.Pool      // *encoded

	// closeMu is read-locked while an append is queued, so that none is queued behind the committer's back.
	closeMu struct {
		sync.RWMutex
		closed bool
	}

	// commitMu is held while a batch is numbered and applied: by the committer, and by whoever else must not meet it.
	// It is taken before Registry's lock and before every other lock here.
	commitMu sync.Mutex
	trimMu   sync.Mutex // one trim at a time; taken before commitMu

	mu struct {
		sync.RWMutex
		tables  map[changelog.TableID]*table
		streams map[changelog.StreamID]*stream
	}
	parked parkedCounts
	space  space
	pace   atomic.Int64  // nanoseconds to wait for each MiB that is applied
	wrote  atomic.Uint64 // bytes applied since the Store was opened
	trims  chan struct{} // capacity 1: trim now

	dropped atomic.Bool // blocks were dropped, by this process or an earlier one, and reclaim has not run since
}

// table is the log of one (table, shard) in memory.
type table struct {
	id changelog.TableID

	// Guarded by Store.commitMu.
	next  changelog.SeqNum
	bytes uint64 // of all blocks ever written

	count rowCount

	mu struct {
		sync.Mutex
		synced  changelog.SeqNum
		oldest  changelog.SeqNum // the first change held; next if none is
		trimmed uint64           // bytes of all blocks trimmed
		bytes   uint64           // of all blocks synced
		natives natives
		changed chan struct{} // closed at the next change of any of these; nil: nobody waits
		dropped bool
	}
}

// stream is how far a stream is applied and synced.
type stream struct {
	next    int64
	changed chan struct{} // closed when next changes; nil: nobody waits
}

// Open starts a Store on db. It reads the ends of each log, and nothing else. Close it before db. Errors: a wrong
// option, changelog.ErrCorrupt, I/O.
func Open(db *DB, reg *state.Registry, o Options) (*Store, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	s := &Store{
		db: db, reg: reg, opts: o,
		queue: make(chan *Ticket, 64), synced: make(chan *group, maxInFlight), slots: make(chan struct{}, maxInFlight),
		closing: make(chan struct{}), trims: make(chan struct{}, 1),
	}
	s.encoded.New = func() any { return &encoded{} }
	s.mu.tables, s.mu.streams = map[changelog.TableID]*table{}, map[changelog.StreamID]*stream{}
	s.space.init()
	s.dropped.Store(true)
	if err := errors.Join(s.loadStreams(), s.loadParked()); err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	for _, t := range reg.Tables() {
		if _, err := s.table(t.ID); err != nil {
			return nil, fmt.Errorf("open log store: %w", err)
		}
	}
	m, err := newMetrics(s, o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("open log store: %w", err)
	}
	s.metrics = m
	s.running.Go(s.commitLoop)
	s.running.Go(s.syncLoop)
	s.running.Go(s.watchLoop)
	s.running.Go(s.trimLoop)
	return s, nil
}

// Close waits for what is queued, stops the Store and frees its waiters with ErrClosed. Iterations and snapshots have
// to end before the DB is closed.
func (s *Store) Close() error {
	s.closeMu.Lock()
	if s.closeMu.closed {
		s.closeMu.Unlock()
		return nil
	}
	s.closeMu.closed = true
	s.closeMu.Unlock()
	close(s.closing)
	s.running.Wait()
	s.metrics.close()
	if err := s.Err(); err != nil {
		return fmt.Errorf("log store: %w", err)
	}
	return nil
}

// Err returns why the Store refuses writes until it is reopened, or nil: its health.
func (s *Store) Err() error {
	if err := s.db.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// table returns the table's log, reading its ends at the first call. Errors: state.ErrNotFound, I/O.
func (s *Store) table(id changelog.TableID) (*table, error) {
	s.mu.RLock()
	t := s.mu.tables[id]
	s.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.mu.tables[id]; t != nil {
		return t, nil
	}
	t, err := s.loadTable(id)
	if err != nil {
		return nil, fmt.Errorf("log of table %d: %w", id, err)
	}
	s.mu.tables[id] = t
	return t, nil
}

func (s *Store) loadTable(id changelog.TableID) (*table, error) {
	p, err := s.reg.Progress(id)
	if err != nil {
		return nil, err
	}
	t := &table{id: id, next: p.Flushed + 1} // never back, though the log be lost (P4)
	t.mu.oldest, t.mu.synced = t.next, p.Flushed
	it, err := s.logIter(id, 0)
	if err != nil {
		return nil, err
	}
	if it.Last() {
		last, err := blockAt(it)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		it.First()
		first, err := blockAt(it)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		t.next = max(t.next, last.Last+1)
		t.bytes = last.before + uint64(last.bytes) //nolint:gosec // not negative
		t.mu.synced, t.mu.oldest, t.mu.trimmed, t.mu.bytes = t.next-1, first.First, first.before, t.bytes
		for c, err := range last.Changes() {
			if err != nil {
				return nil, errors.Join(err, it.Close())
			}
			t.mu.natives.note(c.Position.Native)
		}
	}
	return t, errors.Join(it.Error(), it.Close())
}

// logIter iterates the log of a table from the block whose first change is from.
func (s *Store) logIter(id changelog.TableID, from changelog.SeqNum) (*pebble.Iterator, error) {
	prefix := keyspace.Shard(nil, keyspace.SpaceLog, id, 0)
	return s.db.NewIter(&pebble.IterOptions{LowerBound: keyspace.Log(nil, id, 0, from), UpperBound: keyspace.End(nil, prefix)})
}

// blockAt copies the block under the iterator.
func blockAt(it *pebble.Iterator) (*Block, error) {
	first, err := keyspace.LogSeq(it.Key())
	if err != nil {
		return nil, err
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	return parseBlock(first, append(make([]byte, 0, len(v)), v...))
}

// Drop removes a table and all that is stored of it, as Registry.Drop does, while no append is under way.
func (s *Store) Drop(ctx context.Context, id changelog.TableID) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.reg.Drop(ctx, id); err != nil {
		return err
	}
	s.mu.Lock()
	t := s.mu.tables[id]
	delete(s.mu.tables, id)
	s.mu.Unlock()
	if t != nil {
		t.mu.Lock()
		t.mu.dropped = true
		t.notifyLocked()
		t.mu.Unlock()
	}
	s.parked.drop(id)
	return nil
}

func (t *table) notifyLocked() {
	if t.mu.changed != nil {
		close(t.mu.changed)
		t.mu.changed = nil
	}
}

// Bounds returns the first change that the log of a table holds (the next to come if it holds none) and the newest one
// that is synced (0: none yet).
func (s *Store) Bounds(id changelog.TableID) (oldest, applied changelog.SeqNum, err error) {
	t, err := s.table(id)
	if err != nil {
		return 0, 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.oldest, t.mu.synced, nil
}

// LogBytes returns the size of the blocks that the log of a table holds, before compression.
func (s *Store) LogBytes(id changelog.TableID) (int64, error) {
	t, err := s.table(id)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(t.mu.bytes - t.mu.trimmed), nil //nolint:gosec // not negative
}

// nowMicro is the ingest time of this moment.
func (s *Store) nowMicro() int64 { return s.opts.Now().UnixMicro() }

// metaCounter reads a counter of the meta space, 0 if it is not there.
func (s *Store) metaCounter(name string) (uint64, error) {
	v, closer, err := s.db.Get(keyspace.Meta(nil, name))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, size := binary.Uvarint(v)
	if size != len(v) {
		return 0, errors.Join(fmt.Errorf("counter %s: %w", name, errCorrupt), closer.Close())
	}
	return n, closer.Close()
}

// sleep waits for d; false: the Store is closing.
func (s *Store) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	}
}
