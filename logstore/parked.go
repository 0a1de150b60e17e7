package logstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// parkedVersion begins the value of a parked record. Written to disk, append only.
const (
	parkedVersion = 1
	parkedMore    = 2 // of a record with what flags tell of: they follow the headers

	flagCut      = 0x01
	flagEdit     = 0x02
	flagTarget   = 0x04
	flagAttempts = 0x08
	flagPart     = 0x10
)

const metaNextParked = "next-parked"

// ErrNoParked reports a parked record that is not there.
var ErrNoParked = errors.New("logstore: no such parked record")

// park adds the writes of a parked record; its id is the committer's to give.
func (e *encoded) park(p *changelog.Parked) {
	n := len(e.parked)
	key := e.begin()
	e.arena = keyspace.Parked(e.arena, p.Table, 0)
	val := e.begin()
	e.arena = appendParked(e.arena, p)
	e.parked = append(e.parked, parkedPart{table: p.Table, reason: p.Reason, bytes: int64(e.begin() - key), op: len(e.ops)})
	e.end(opParked, key, val, 0, n)
	if p.Key != nil {
		key = e.begin()
		e.arena = keyspace.ParkedKey(e.arena, p.Table, p.Key, 0)
		val = e.begin()
		e.arena = append(e.arena, parkedVersion)
		e.end(opParked, key, val, 0, n)
	}
}

// appendParked appends the stored form of p, all but ID and Table, which its key has.
func appendParked(dst []byte, p *changelog.Parked) []byte {
	more := flag(p.Cut != nil)*flagCut | flag(p.Edit != nil)*flagEdit | flag(p.Table == 0 && p.Target != "")*flagTarget | flag(p.Attempts > 0)*flagAttempts | flag(p.Part != 0)*flagPart
	version := byte(parkedVersion)
	if more != 0 {
		version = parkedMore
	}
	dst = append(dst, version)
	dst = appendString(dst, p.Reason)
	dst = appendString(dst, p.Detail)
	dst = append(dst, flag(p.Applied))
	dst = binary.AppendVarint(dst, p.Time)
	dst = appendString(dst, p.Position.Source)
	dst = appendString(dst, p.Position.Topic)
	dst = binary.AppendVarint(dst, int64(p.Position.Partition))
	dst = binary.AppendVarint(dst, p.Position.Offset)
	dst = appendString(dst, p.Position.Native)
	dst = binary.AppendVarint(dst, p.Timestamp)
	dst = appendNullable(dst, p.Key)
	dst = appendNullable(dst, p.RecordKey)
	dst = appendNullable(dst, p.RecordValue)
	dst = appendHeaders(dst, p.Headers)
	if more == 0 {
		return dst
	}
	dst = append(dst, more)
	if p.Cut != nil {
		dst = append(binary.AppendVarint(dst, p.Cut.Bytes), p.Cut.SHA256[:]...)
	}
	if p.Edit != nil {
		dst = binary.AppendVarint(appendString(dst, p.Edit.By), p.Edit.Time)
		dst = appendNullable(appendNullable(dst, p.Edit.RecordKey), p.Edit.RecordValue)
		dst = appendHeaders(dst, p.Edit.Headers)
	}
	if more&flagTarget != 0 {
		dst = appendString(dst, p.Target)
	}
	if more&flagAttempts != 0 {
		dst = binary.AppendUvarint(dst, uint64(p.Attempts)) //nolint:gosec // positive
	}
	if more&flagPart != 0 {
		dst = binary.AppendVarint(dst, int64(p.Part))
	}
	return dst
}

func appendHeaders(dst []byte, headers []changelog.Header) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(headers)))
	for _, h := range headers {
		dst = appendString(dst, h.Key)
		dst = appendNullable(dst, h.Value)
	}
	return dst
}

func (r *reader) headers() []changelog.Header {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	var all []changelog.Header
	for range n {
		all = append(all, changelog.Header{Key: r.text(), Value: r.nullable()})
	}
	return all
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendNullable appends the length plus one, or 0 for nil, and the bytes.
func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

func (r *reader) nullable() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	if n-1 > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[: n-1 : n-1]
	r.b = r.b[n-1:]
	return v
}

// parseParked reads what appendParked wrote. It keeps val.
func parseParked(id uint64, table changelog.TableID, val []byte) (changelog.Parked, error) {
	r := reader{b: val}
	version := r.byte()
	if version != parkedVersion && version != parkedMore {
		return changelog.Parked{}, fmt.Errorf("parked record %d of version %d: %w", id, version, errCorrupt)
	}
	p := changelog.Parked{ID: id, Table: table}
	p.Reason, p.Detail, p.Applied, p.Time = r.text(), r.text(), r.byte() == 1, r.varint()
	p.Position.Source, p.Position.Topic = r.text(), r.text()
	p.Position.Partition, p.Position.Offset = int32(r.varint()), r.varint() //nolint:gosec // written as int32
	p.Position.Native, p.Timestamp = r.text(), r.varint()
	p.Key, p.RecordKey, p.RecordValue = r.nullable(), r.nullable(), r.nullable()
	p.Headers = r.headers()
	if version == parkedMore {
		r.more(&p)
	}
	if r.bad {
		return changelog.Parked{}, fmt.Errorf("parked record %d of %d bytes: %w", id, len(val), errCorrupt)
	}
	return p, nil
}

// more reads what follows the headers of a record of version parkedMore.
func (r *reader) more(p *changelog.Parked) {
	flags := r.byte()
	if flags&flagCut != 0 {
		p.Cut = &changelog.ParkedCut{Bytes: r.varint()}
		if r.bad = r.bad || len(r.b) < len(p.Cut.SHA256); r.bad {
			return
		}
		r.b = r.b[copy(p.Cut.SHA256[:], r.b):]
	}
	if flags&flagEdit != 0 {
		p.Edit = &changelog.ParkedEdit{By: r.text(), Time: r.varint()}
		p.Edit.RecordKey, p.Edit.RecordValue = r.nullable(), r.nullable()
		p.Edit.Headers = r.headers()
	}
	if flags&flagTarget != 0 {
		p.Target = r.text()
	}
	if flags&flagAttempts != 0 {
		p.Attempts = int(r.uvarint()) //nolint:gosec // written as int
	}
	if flags&flagPart != 0 {
		p.Part = int(r.varint())
	}
}

// ParkedKind is what parked records are counted by.
type ParkedKind struct {
	Table  changelog.TableID // 0: they reached no table
	Reason string
}

// ParkedCount is a number of parked records.
type ParkedCount struct {
	Records, Bytes int64
}

// parkedCounts is the counts as stored and the next id. next, and the counts while a batch is built, are guarded by
// Store.commitMu, too.
type parkedCounts struct {
	next uint64

	mu struct {
		sync.Mutex
		counts map[ParkedKind]ParkedCount
		bytes  int64
	}
}

func (s *Store) loadParked() error {
	next, err := s.metaCounter(metaNextParked)
	if err != nil {
		return err
	}
	s.parked.next = max(next, 1)
	s.parked.mu.counts = map[ParkedKind]ParkedCount{}
	return s.each([]byte{byte(keyspace.SpaceParkedCount)}, func(key, value []byte) error {
		table, reason, err := keyspace.ParkedCountOf(key)
		if err != nil {
			return err
		}
		c, err := parseParkedCount(value)
		if err != nil {
			return fmt.Errorf("count of parked records of table %d: %w", table, err)
		}
		s.parked.mu.counts[ParkedKind{table, reason}] = c
		s.parked.mu.bytes += c.Bytes
		return nil
	})
}

func appendParkedCount(dst []byte, c ParkedCount) []byte {
	return binary.AppendVarint(binary.AppendVarint(append(dst, parkedVersion), c.Records), c.Bytes)
}

func parseParkedCount(val []byte) (ParkedCount, error) {
	r := reader{b: val}
	version := r.byte()
	c := ParkedCount{Records: r.varint(), Bytes: r.varint()}
	if r.bad || version != parkedVersion {
		return ParkedCount{}, errCorrupt
	}
	return c, nil
}

// take reserves n ids and returns the first.
func (p *parkedCounts) take(n int) uint64 {
	first := p.next
	p.next += uint64(n) //nolint:gosec // not negative
	return first
}

func (p *parkedCounts) isFull(limit int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.bytes >= limit
}

// store adds the counts that the tickets change, and the next id, to b.
func (p *parkedCounts) store(b *pebble.Batch, tickets []*Ticket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := map[ParkedKind]bool{}
	for _, t := range tickets {
		for _, part := range t.e.parked {
			p.addLocked(ParkedKind{part.table, part.reason}, ParkedCount{1, part.bytes}, changed)
		}
		for _, part := range t.e.settled {
			p.addLocked(part.from, ParkedCount{-1, -part.bytes}, changed)
			if part.to.Reason != "" {
				p.addLocked(part.to, ParkedCount{1, part.size}, changed)
			}
		}
	}
	return p.writeLocked(b, changed)
}

func (p *parkedCounts) addLocked(k ParkedKind, add ParkedCount, changed map[ParkedKind]bool) {
	c := p.mu.counts[k]
	c.Records += add.Records
	c.Bytes += add.Bytes
	p.mu.counts[k] = c
	p.mu.bytes += add.Bytes
	changed[k] = true
}

func (p *parkedCounts) writeLocked(b *pebble.Batch, changed map[ParkedKind]bool) error {
	for k := range changed {
		key := keyspace.ParkedCount(nil, k.Table, k.Reason)
		var err error
		if c := p.mu.counts[k]; c.Records > 0 {
			err = b.Set(key, appendParkedCount(nil, c), nil)
		} else {
			delete(p.mu.counts, k)
			err = b.Delete(key, nil)
		}
		if err != nil {
			return err
		}
	}
	return b.Set(keyspace.Meta(nil, metaNextParked), binary.AppendUvarint(nil, p.next), nil)
}

func (p *parkedCounts) drop(id changelog.TableID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.mu.counts {
		if k.Table == id {
			p.mu.bytes -= c.Bytes
			delete(p.mu.counts, k)
		}
	}
}

// ParkedCounts returns the numbers of parked records.
func (s *Store) ParkedCounts() map[ParkedKind]ParkedCount {
	s.parked.mu.Lock()
	defer s.parked.mu.Unlock()
	return maps.Clone(s.parked.mu.counts)
}

// parkedTables returns table 0 and all tables that have parked records.
func (s *Store) parkedTables() []changelog.TableID {
	ids := []changelog.TableID{0}
	for k := range s.ParkedCounts() {
		ids = append(ids, k.Table)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// ParkedList yields the parked records of a table (0: those that reached no table) with ids above after, ascending. An
// error comes last.
func (s *Store) ParkedList(ctx context.Context, id changelog.TableID, after uint64) iter.Seq2[changelog.Parked, error] {
	return func(yield func(changelog.Parked, error) bool) {
		errStop := errors.New("stop") // never leaves
		prefix := keyspace.Table(nil, keyspace.SpaceParked, id)
		err := s.eachFrom(keyspace.Parked(nil, id, after+1), keyspace.End(nil, prefix), func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			table, n, err := keyspace.ParkedID(key)
			if err != nil {
				return err
			}
			p, err := parseParked(n, table, slices.Clone(value))
			if err != nil {
				return err
			}
			if !yield(p, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(changelog.Parked{}, fmt.Errorf("parked records of table %d: %w", id, err))
		}
	}
}

// ParkedAll yields the parked records of all tables, by table and id. An error comes last.
func (s *Store) ParkedAll(ctx context.Context) iter.Seq2[changelog.Parked, error] {
	return func(yield func(changelog.Parked, error) bool) {
		for _, id := range s.parkedTables() {
			for p, err := range s.ParkedList(ctx, id, 0) {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
	}
}

// ParkedGet returns the parked record with the id, of whatever table. Error: ErrNoParked.
func (s *Store) ParkedGet(_ context.Context, n uint64) (changelog.Parked, error) {
	for _, id := range s.parkedTables() {
		v, closer, err := s.db.Get(keyspace.Parked(nil, id, n))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return changelog.Parked{}, fmt.Errorf("parked record %d: %w", n, err)
		}
		p, err := parseParked(n, id, slices.Clone(v))
		return p, errors.Join(err, closer.Close())
	}
	return changelog.Parked{}, fmt.Errorf("parked record %d: %w", n, ErrNoParked)
}

// ParkedOf yields the parked records of a key with ids from first, ascending. An error comes last.
func (s *Store) ParkedOf(ctx context.Context, id changelog.TableID, key changelog.Key, first uint64) iter.Seq2[changelog.Parked, error] {
	return func(yield func(changelog.Parked, error) bool) {
		errStop := errors.New("stop") // never leaves
		end := keyspace.End(nil, keyspace.ParkedKeys(nil, id, key))
		err := s.eachFrom(keyspace.ParkedKey(nil, id, key, first), end, func(key, _ []byte) error {
			n, err := keyspace.ParkedKeyID(key)
			if err != nil {
				return err
			}
			p, err := s.ParkedGet(ctx, n)
			if errors.Is(err, ErrNoParked) {
				return nil // removed meanwhile
			}
			if err != nil {
				return err
			}
			if !yield(p, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(changelog.Parked{}, fmt.Errorf("parked records of key %s in table %d: %w", key, id, err))
		}
	}
}

// Unpark removes parked records, because they are to be skipped, in one synced append. Error: ErrNoParked for any of them,
// then none is removed; Append's.
func (s *Store) Unpark(ctx context.Context, ids ...uint64) error {
	if _, err := s.Append(ctx, changelog.Append{Unparked: ids, Skipped: ids}); err != nil {
		return fmt.Errorf("unpark %d records: %w", len(ids), err)
	}
	return nil
}

// settledPart is a parked record that an append removes, or stores again.
type settledPart struct {
	id       uint64
	from, to ParkedKind // to has no reason: it is removed
	bytes    int64      // of it as it is stored
	size     int64      // as it is to be

	p  changelog.Parked // as it is stored; its bytes are its own
	op int              // 1 + place of the write that stores it again; 0: it is removed
}

// settle adds the writes for parked records that a removes or replaces. Whether they are still there, the committer looks.
func (s *Store) settle(ctx context.Context, e *encoded, a *changelog.Append) error {
	for _, n := range slices.Compact(slices.Sorted(slices.Values(a.Unparked))) {
		p, err := s.ParkedGet(ctx, n)
		if err != nil {
			return err
		}
		key := e.begin()
		e.arena = keyspace.Parked(e.arena, p.Table, n)
		e.end(opDelete, key, e.begin(), 0, 0)
		if p.Key != nil {
			key = e.begin()
			e.arena = keyspace.ParkedKey(e.arena, p.Table, p.Key, n)
			e.end(opDelete, key, e.begin(), 0, 0)
		}
		e.settled = append(e.settled, settledPart{id: n, from: ParkedKind{p.Table, p.Reason}, bytes: storedBytes(&p), p: p})
	}
	for i := range a.Reparked {
		now := &a.Reparked[i]
		p, err := s.ParkedGet(ctx, now.ID)
		if err != nil {
			return err
		}
		if p.Table != now.Table || !slices.Equal(p.Key, now.Key) || now.Reason == "" {
			return fmt.Errorf("parked record %d: its table or key is another one, or it has no reason", p.ID)
		}
		key := e.begin()
		e.arena = keyspace.Parked(e.arena, p.Table, p.ID)
		val := e.begin()
		e.arena = appendParked(e.arena, now)
		e.end(opSet, key, val, 0, 0)
		e.settled = append(e.settled, settledPart{
			p: p, op: len(e.ops),
			id: p.ID, from: ParkedKind{p.Table, p.Reason}, to: ParkedKind{p.Table, now.Reason}, bytes: storedBytes(&p), size: int64(e.begin() - key),
		})
	}
	return nil
}

// storedBytes is what a parked record counts with: its key in the store, and its value.
func storedBytes(p *changelog.Parked) int64 {
	return int64(len(appendParked(keyspace.Parked(nil, p.Table, p.ID), p)))
}

// unsettled reports ErrNoParked for a parked record that e is about and that is gone, or that an earlier append of the same
// batch settles; done holds those. The caller has commitMu.
func (s *Store) unsettled(e *encoded, done map[uint64]bool) error {
	for i := range e.settled {
		part := &e.settled[i]
		if done[part.id] {
			return fmt.Errorf("parked record %d: %w", part.id, ErrNoParked)
		}
		_, closer, err := s.db.Get(keyspace.Parked(nil, part.from.Table, part.id))
		if errors.Is(err, pebble.ErrNotFound) {
			return fmt.Errorf("parked record %d: %w", part.id, ErrNoParked)
		}
		if err == nil {
			err = closer.Close()
		}
		if err != nil {
			return fmt.Errorf("parked record %d: %w", part.id, err)
		}
	}
	for i := range e.settled {
		done[e.settled[i].id] = true
	}
	return nil
}

// eachFrom calls visit for the pairs in [low, high), in key order. Their bytes are valid in the call only.
func (s *Store) eachFrom(low, high []byte, visit func(key, value []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = visit(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Error(), it.Close())
}
