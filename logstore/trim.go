package logstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

const (
	// markBatch is how many marks of deletion one batch removes. Appends wait for it: it reads them.
	markBatch = 256
	// movedInterval is how often the moved rows are searched for old ones.
	movedInterval = 10 * time.Minute
)

// trimLoop applies retention until the Store is closed.
func (s *Store) trimLoop() {
	if s.opts.TrimInterval < 0 {
		return
	}
	ctx := closingContext{s.closing}
	tick := time.NewTicker(s.opts.TrimInterval)
	defer tick.Stop()
	var lastMoved time.Time
	for {
		select {
		case <-tick.C:
		case <-s.trims:
		case <-s.closing:
			return
		}
		s.trimAll(ctx)
		if time.Since(lastMoved) > movedInterval {
			lastMoved = time.Now()
			if err := s.trimMoved(ctx); err != nil && !errors.Is(err, context.Canceled) {
				s.opts.Logger.Warn("moved rows are not trimmed", slog.Any("err", err))
			}
		}
	}
}

// closingContext is a context that ends when the Store closes: the trimmer has no caller to give it one.
type closingContext struct{ closing <-chan struct{} }

// Deadline implements context.Context.
func (closingContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c closingContext) Done() <-chan struct{} { return c.closing }

// Err implements context.Context.
func (c closingContext) Err() error {
	select {
	case <-c.closing:
		return context.Canceled
	default:
		return nil
	}
}

// Value implements context.Context.
func (closingContext) Value(any) any { return nil }

// trimAll trims every table by its retention, or, when the disk is nearly full, of all that may go, and then sees to it
// that a full disk gets the space.
func (s *Store) trimAll(ctx context.Context) {
	for _, t := range s.reg.Tables() {
		r := s.opts.Retention
		if s.opts.TableRetention != nil {
			r = s.opts.TableRetention(t)
		}
		upTo, err := s.expired(ctx, t, r)
		if err == nil && upTo > 0 {
			err = s.Trim(ctx, t.ID, upTo)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrNotFound) {
			s.metrics.trimErrors.Inc()
			s.opts.Logger.Warn("log is not trimmed", slog.String("table", t.Name), slog.Any("err", err))
		}
	}
	if err := s.reclaim(ctx); err != nil && ctx.Err() == nil {
		s.metrics.trimErrors.Inc()
		s.opts.Logger.Warn("trimmed log still takes space", slog.Any("err", err))
	}
}

// reclaim compacts the log's space if the disk is full and blocks were dropped since it last did. A range delete is small:
// it need not start a compaction, and while appends wait nothing else does, so that what it covers could stay for ever. What
// is read is small, too: the blocks themselves are in blob files, which go away as a whole, or, where they also hold rows, once Pebble
// rewrites them. Pebble looks for such files after flushes and compactions only: so there is a flush while garbage is left.
func (s *Store) reclaim(ctx context.Context) error {
	if s.db.broken.Load() != nil || !s.space.isFull() {
		return nil
	}
	if s.dropped.Swap(false) {
		space := []byte{byte(keyspace.SpaceLog)}
		if err := s.db.Compact(ctx, space, keyspace.End(nil, space), false); err != nil {
			s.dropped.Store(true)
			return fmt.Errorf("compact the log: %w", err)
		}
	}
	if blobs := s.db.Metrics().BlobFiles; float64(blobs.ReferencedValueSize) < (1-blobGarbage)*float64(blobs.ValueSize) {
		if _, err := s.db.AsyncFlush(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	return nil
}

// expired returns the last change that retention lets go.
func (s *Store) expired(ctx context.Context, t *state.Table, r Retention) (changelog.SeqNum, error) {
	limit, err := s.trimLimit(t.ID)
	if err != nil {
		return 0, err
	}
	log, err := s.table(t.ID)
	if err != nil {
		return 0, err
	}
	log.mu.Lock()
	oldest, held, trimmed := log.mu.oldest, log.mu.bytes-log.mu.trimmed, log.mu.trimmed
	log.mu.Unlock()
	if limit < oldest {
		return 0, nil
	}
	if s.space.isTight() {
		return limit, nil
	}
	upTo := changelog.SeqNum(0)
	if r.Time > 0 {
		if upTo, err = s.SeqAt(ctx, t.ID, s.opts.Now().Add(-r.Time).UnixMicro()); err != nil {
			return 0, err
		}
	}
	if over := int64(held) - r.Bytes; r.Bytes > 0 && over > 0 { //nolint:gosec // not negative
		n, err := s.seqAtBytes(t.ID, oldest, limit, trimmed+uint64(over))
		if err != nil {
			return 0, err
		}
		upTo = max(upTo, n)
	}
	return min(upTo, limit), nil
}

// seqAtBytes returns the last change of the newest block in [low, high] that begins before the log's byte at.
func (s *Store) seqAtBytes(id changelog.TableID, low, high changelog.SeqNum, at uint64) (changelog.SeqNum, error) {
	last := low - 1
	for low <= high {
		b, err := s.blockHolding(id, low+(high-low)/2)
		switch {
		case err != nil:
			return 0, err
		case b == nil || b.Last < low:
			return last, nil // trimmed meanwhile
		case b.before < at:
			last, low = b.Last, b.Last+1
		default:
			high = b.first - 1
		}
	}
	return last, nil
}

// trimLimit returns the last change that may go: flushed, and not leased.
func (s *Store) trimLimit(id changelog.TableID) (changelog.SeqNum, error) {
	p, err := s.reg.Progress(id)
	if err != nil {
		return 0, err
	}
	limit := p.Flushed
	consumers, err := s.Consumers(id)
	if err != nil {
		return 0, err
	}
	for _, c := range consumers {
		if c.LeaseUntil > s.nowMicro() {
			limit = min(limit, c.Acked)
		}
	}
	return limit, nil
}

// Trim drops the blocks of a table that lie wholly at or below upTo, and never beyond what is flushed and leased. The
// marks of the deletes among them go, too, unless the key has changed since. Safe to repeat; a crash leaves either
// bound. Errors: state.ErrNotFound, ctx's, I/O.
func (s *Store) Trim(ctx context.Context, id changelog.TableID, upTo changelog.SeqNum) error {
	s.trimMu.Lock()
	defer s.trimMu.Unlock()
	begin := time.Now()
	t, err := s.table(id)
	if err != nil {
		return fmt.Errorf("trim table %d: %w", id, err)
	}
	limit, err := s.trimLimit(id)
	if err != nil {
		return fmt.Errorf("trim table %d: %w", id, err)
	}
	upTo = min(upTo, limit, t.newest())
	last, err := s.unmark(ctx, t, upTo)
	if err == nil && last != nil {
		err = s.dropBlocks(t, last)
	}
	if err != nil {
		return fmt.Errorf("trim table %d up to %d: %w", id, upTo, err)
	}
	if last != nil {
		s.metrics.trim.Observe(time.Since(begin).Seconds())
	}
	return nil
}

// unmark removes the marks of the deletes in the blocks up to upTo and returns the last of these blocks, nil if there
// is none. It comes before the blocks are dropped: after a crash in between, it is done again, in vain.
func (s *Store) unmark(ctx context.Context, t *table, upTo changelog.SeqNum) (*Block, error) {
	t.mu.Lock()
	from := t.mu.oldest - 1
	t.mu.Unlock()
	var last *Block
	deletes := make([]deleted, 0, markBatch)
	for b, err := range s.Blocks(ctx, t.id, from, upTo) {
		if err != nil {
			return nil, err
		}
		last = b
		if b.deletes == 0 {
			continue
		}
		for c, err := range b.Changes() {
			if err != nil {
				return nil, err
			}
			if c.Op != changelog.OpDelete || len(c.Key) == 0 {
				continue
			}
			if deletes = append(deletes, deleted{c.Key, c.Seq}); len(deletes) == markBatch {
				if err := s.removeMarks(t.id, deletes); err != nil {
					return nil, err
				}
				deletes = deletes[:0]
			}
		}
	}
	return last, s.removeMarks(t.id, deletes)
}

type deleted struct {
	key changelog.Key
	seq changelog.SeqNum
}

// removeMarks removes the marks that are still those of the deletes. It reads twice: first without stopping appends,
// which brings the marks into the cache, then while no append can come in between.
func (s *Store) removeMarks(id changelog.TableID, deletes []deleted) error {
	keys, err := s.marked(id, deletes)
	if err != nil || len(keys) == 0 {
		return err
	}
	s.commitMu.Lock()
	b, err := s.unmarkBatch(id, keys)
	if err == nil {
		err = s.db.apply(b)
	}
	s.commitMu.Unlock()
	if err != nil {
		return err
	}
	if err := b.SyncWait(); err != nil {
		return s.db.fail(fmt.Errorf("sync: %w", err))
	}
	return b.Close()
}

func (s *Store) unmarkBatch(id changelog.TableID, deletes []deleted) (*pebble.Batch, error) {
	keys, err := s.marked(id, deletes)
	if err != nil {
		return nil, err
	}
	b := s.db.NewBatch()
	var key []byte
	for _, d := range keys {
		key = keyspace.Row(key[:0], id, 0, d.key)
		if err := b.Delete(key, nil); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// marked returns those of deletes whose mark is the key's current row.
func (s *Store) marked(id changelog.TableID, deletes []deleted) ([]deleted, error) {
	if len(deletes) == 0 {
		return nil, nil
	}
	r, err := s.rowReader(id)
	if err != nil {
		return nil, err
	}
	out := make([]deleted, 0, len(deletes))
	for _, d := range deletes {
		var v RowView
		r.key = append(r.key[:keyspace.ShardLen], d.key...)
		if !r.it.SeekPrefixGE(r.key) {
			continue
		}
		val, err := r.it.ValueAndErr()
		if err == nil {
			_, err = parseRow(val, &v)
		}
		if err != nil {
			return nil, errors.Join(err, r.it.Close())
		}
		if !v.Found && v.Seq == d.seq {
			out = append(out, d)
		}
	}
	return out, errors.Join(r.it.Error(), r.it.Close())
}

// dropBlocks removes the blocks up to last by one range delete from the space's start.
func (s *Store) dropBlocks(t *table, last *Block) error {
	b := s.db.NewBatch()
	start := keyspace.Shard(nil, keyspace.SpaceLog, t.id, 0)
	if err := b.DeleteRange(start, logKey(t.id, last.Last+1), nil); err != nil {
		return errors.Join(err, b.Close())
	}
	// Readers first: one that still reads below gets ErrTrimmed, not a hole.
	t.mu.Lock()
	t.mu.oldest, t.mu.trimmed = last.Last+1, last.before+uint64(last.bytes) //nolint:gosec // not negative
	t.mu.Unlock()
	if err := s.db.commit(b); err != nil {
		return err
	}
	s.dropped.Store(true)
	if s.space.isTight() { // the space comes free when the range delete is flushed
		if _, err := s.db.AsyncFlush(); err != nil {
			return err
		}
	}
	return nil
}

// trimMoved removes the moved rows that are older than their retention.
func (s *Store) trimMoved(ctx context.Context) error {
	before := s.opts.Now().Add(-s.opts.MovedRetention).UnixMicro()
	var old [][]byte
	err := s.each([]byte{byte(keyspace.SpaceMoved)}, func(key, value []byte) error {
		micros, _, err := parseMoved(value)
		if err != nil {
			return err
		}
		if micros < before {
			old = append(old, bytes.Clone(key))
		}
		return ctx.Err()
	})
	if err != nil || len(old) == 0 {
		return err
	}
	b := s.db.NewBatch()
	for _, k := range old {
		if err := b.Delete(k, nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return s.db.commit(b)
}

// consumerVersion begins the value of a consumer. Written to disk, append only.
const consumerVersion = 1

// Consumer is a named reader of a table's feed. While its lease lasts, what it has not acknowledged is not trimmed.
type Consumer struct {
	Name       string
	Acked      changelog.SeqNum
	LeaseUntil int64 // µs since 1970-01-01 UTC; 0: no lease
}

// SetConsumer stores a consumer. Errors: state.ErrNotFound, ctx's, I/O.
func (s *Store) SetConsumer(ctx context.Context, id changelog.TableID, c Consumer) error {
	if _, err := s.table(id); err != nil {
		return fmt.Errorf("consumer %s: %w", c.Name, err)
	}
	b := s.db.NewBatch()
	v := binary.AppendVarint(binary.AppendUvarint([]byte{consumerVersion}, uint64(c.Acked)), c.LeaseUntil)
	err := errors.Join(ctx.Err(), b.Set(keyspace.Consumer(nil, id, c.Name), v, nil))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := s.db.commit(b); err != nil {
		return fmt.Errorf("consumer %s of table %d: %w", c.Name, id, err)
	}
	return nil
}

// DeleteConsumer removes a consumer; one that is not there is no error.
func (s *Store) DeleteConsumer(ctx context.Context, id changelog.TableID, name string) error {
	b := s.db.NewBatch()
	err := errors.Join(ctx.Err(), b.Delete(keyspace.Consumer(nil, id, name), nil))
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := s.db.commit(b); err != nil {
		return fmt.Errorf("consumer %s of table %d: %w", name, id, err)
	}
	return nil
}

// Consumers returns a table's consumers by name.
func (s *Store) Consumers(id changelog.TableID) ([]Consumer, error) {
	var out []Consumer
	err := s.each(keyspace.Table(nil, keyspace.SpaceConsumer, id), func(key, value []byte) error {
		name, err := keyspace.ConsumerName(key)
		if err != nil {
			return err
		}
		r := reader{b: value}
		version := r.byte()
		c := Consumer{Name: name, Acked: changelog.SeqNum(r.uvarint()), LeaseUntil: r.varint()}
		if r.bad || version != consumerVersion {
			return fmt.Errorf("consumer %s: %w", name, errCorrupt)
		}
		out = append(out, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("consumers of table %d: %w", id, err)
	}
	return out, nil
}
