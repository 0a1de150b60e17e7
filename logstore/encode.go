package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// maxAppendBytes bounds one Append: Pebble's batches end at 4 GiB.
const maxAppendBytes = 1 << 30

// ErrTooLarge reports an Append that no batch can hold.
var ErrTooLarge = errors.New("logstore: append is too large")

// The value of the row space: 8 bytes SeqNum, which the committer fills in, a kind, and for a row its bytes. The kinds
// are written to disk, append only.
const (
	rowFixed   = 8 + 1
	rowLive    = 0x01 // version 1: a row follows
	rowDeleted = 0x02 // version 1: a mark of deletion
)

type opKind uint8

const (
	opSet    opKind = iota // as it is
	opDelete               // no value
	opBlock                // the key ends in the SeqNum; the value has the bytes before it
	opRow                  // the value begins with the SeqNum
	opParked               // the key ends in the parked id
	opStale                // the value has the parked id after version and flags
)

// op is one write of an append; its key and value lie in the arena. ref is the change's place among the table's
// changes (opBlock, opRow) or the record's among the parked ones (opParked, opStale).
type op struct {
	key, val, end uint32
	ref           uint32
	table         int32
	kind          opKind
}

// tablePart is what an append does to one table.
type tablePart struct {
	id     changelog.TableID
	count  uint64
	bytes  uint64 // of blocks
	native string // of the last change that has one

	log        *table // these are the committer's
	base, last changelog.SeqNum
}

type parkedPart struct {
	table  changelog.TableID
	reason string
	bytes  int64
	op     int // place of the write that stores it
}

// encoded is an append as the committer takes it. It is made by the caller's goroutine and reused.
type encoded struct {
	arena     []byte
	ops       []op
	tables    []tablePart
	positions []changelog.StreamPosition
	parked    []parkedPart
	settled   []settledPart
	rowsOf    []parkedRow // in tables of parked records

	block  blockWriter
	newest newest
}

func (e *encoded) reset() {
	e.arena, e.ops, e.tables = e.arena[:0], e.ops[:0], e.tables[:0]
	e.positions, e.parked, e.settled = e.positions[:0], e.parked[:0], e.settled[:0]
	clear(e.rowsOf) // they hold records
	e.rowsOf = e.rowsOf[:0]
}

// begin and end bracket the writing of one op: key, value, end.
func (e *encoded) begin() uint32 { return uint32(len(e.arena)) } //nolint:gosec // bounded by maxAppendBytes

func (e *encoded) end(kind opKind, key, val uint32, table int, ref int) {
	e.ops = append(e.ops, op{key: key, val: val, end: e.begin(), kind: kind, table: int32(table), ref: uint32(ref)}) //nolint:gosec // small
}

// encode fills e from a. now is the ingest time of changes without one, µs. Errors: state.ErrNotFound, ErrTooLarge.
func (e *encoded) encode(reg *state.Registry, a *changelog.Append, now int64) error {
	e.reset()
	size := 0
	for i := range a.Tables {
		t, ok := reg.ByID(a.Tables[i].Table)
		if !ok {
			return fmt.Errorf("table %d: %w", a.Tables[i].Table, state.ErrNotFound)
		}
		for j := range a.Tables[i].Changes {
			c := &a.Tables[i].Changes[j]
			size += 2*len(c.Key) + len(c.Before) + 2*len(c.After) + 64
		}
		if size > maxAppendBytes {
			return fmt.Errorf("%d changes of table %s and others: %w", len(a.Tables[i].Changes), t.Name, ErrTooLarge)
		}
		if len(a.Tables[i].Changes) > 0 {
			e.table(t, &a.Tables[i], a.Positions, now)
		}
	}
	for _, p := range a.Positions {
		key := e.begin()
		e.arena = keyspace.Source(e.arena, p.StreamID)
		val := e.begin()
		e.arena = state.AppendPosition(e.arena, p.Next)
		e.end(opSet, key, val, 0, 0)
		e.positions = append(e.positions, p)
	}
	for i := range a.Parked {
		e.park(&a.Parked[i])
	}
	for i := range a.Moved {
		e.moved(&a.Moved[i], now)
	}
	for i := range a.Stale {
		e.stale(&a.Stale[i])
	}
	if len(e.arena) > maxAppendBytes {
		return fmt.Errorf("%d bytes: %w", len(e.arena), ErrTooLarge)
	}
	return nil
}

func (e *encoded) table(t *state.Table, a *changelog.TableAppend, positions []changelog.StreamPosition, now int64) {
	part := len(e.tables)
	e.tables = append(e.tables, tablePart{id: t.ID, count: uint64(len(a.Changes))})
	w := &e.block
	w.reset()
	first := 0
	for i := range a.Changes {
		c := &a.Changes[i]
		if c.Position.Native != "" {
			e.tables[part].native = c.Position.Native
		}
		if ingest := c.IngestTime; ingest == 0 { // the caller's change is not ours to touch
			own := *c
			own.IngestTime = now
			w.add(&own, sameRecord(a.Changes, i))
		} else {
			w.add(c, sameRecord(a.Changes, i))
		}
		last := i == len(a.Changes)-1
		if last {
			w.advance(positions)
		}
		if last || len(w.body) >= blockTarget {
			key := e.begin()
			e.arena = keyspace.Log(e.arena, t.ID, 0, 0)
			val := e.begin()
			e.arena = w.appendTo(e.arena)
			e.end(opBlock, key, val, part, first)
			e.tables[part].bytes += uint64(e.begin() - val)
			w.reset()
			first = i + 1
		}
	}
	if t.Keyed() {
		e.rows(t.ID, part, a.Changes)
	}
}

// sameRecord tells whether the change after i comes from the same record: a block that ends between them has not
// applied the record.
func sameRecord(changes []changelog.Change, i int) bool {
	if i+1 == len(changes) {
		return false
	}
	p, q := &changes[i].Position, &changes[i+1].Position
	return p.Offset == q.Offset && p.Partition == q.Partition && p.Topic == q.Topic && p.Source == q.Source
}

// advance moves the streams of an append's last block to where the append leaves them.
func (w *blockWriter) advance(positions []changelog.StreamPosition) {
	for _, p := range positions {
		for i := range w.streams {
			if s := &w.streams[i]; s.id == p.StreamID {
				s.next = max(s.next, p.Next)
			}
		}
	}
}

// rows writes the row that each key has after the changes: of several changes of a key, the last one's.
func (e *encoded) rows(table changelog.TableID, part int, changes []changelog.Change) {
	e.newest.reset(len(changes))
	for i := range changes {
		if len(changes[i].Key) > 0 {
			e.newest.put(changes, i)
		}
	}
	for i := range changes {
		c := &changes[i]
		if len(c.Key) == 0 || !e.newest.is(i) {
			continue
		}
		key := e.begin()
		e.arena = keyspace.Row(e.arena, table, 0, c.Key)
		val := e.begin()
		e.arena = append(e.arena, 0, 0, 0, 0, 0, 0, 0, 0)
		if c.Op == changelog.OpDelete || c.After == nil {
			e.arena = append(e.arena, rowDeleted)
		} else {
			e.arena = append(append(e.arena, rowLive), c.After...)
		}
		e.end(opRow, key, val, part, i)
	}
}

// newest finds the last change of each key of an append: an open hash table that is reused.
type newest struct {
	seed  maphash.Seed
	slots []int32 // change + 1, at the hash of its key
	old   []bool  // by change: a later one has its key
}

func (n *newest) reset(changes int) {
	size := 16
	for size < 2*changes {
		size *= 2
	}
	if n.seed == (maphash.Seed{}) {
		n.seed = maphash.MakeSeed()
	}
	if cap(n.slots) < size {
		n.slots = make([]int32, size)
	}
	n.slots = n.slots[:size]
	clear(n.slots)
	if cap(n.old) < changes {
		n.old = make([]bool, changes)
	}
	n.old = n.old[:changes]
	clear(n.old)
}

func (n *newest) put(changes []changelog.Change, i int) {
	mask := uint64(len(n.slots) - 1)
	for h := maphash.Bytes(n.seed, changes[i].Key) & mask; ; h = (h + 1) & mask {
		switch j := n.slots[h]; {
		case j == 0:
			n.slots[h] = int32(i) + 1 //nolint:gosec // an append has fewer than 2^31 changes: maxAppendBytes
			return
		case string(changes[j-1].Key) == string(changes[i].Key):
			n.old[j-1] = true
			n.slots[h] = int32(i) + 1 //nolint:gosec // as above
			return
		}
	}
}

func (n *newest) is(i int) bool { return !n.old[i] }

// putSeq fills in a SeqNum or a counter that the caller's goroutine could not know.
func putSeq(b []byte, v uint64) { binary.BigEndian.PutUint64(b, v) }
