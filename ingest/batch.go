package ingest

import (
	"bytes"
	"hash/maphash"
	"slices"

	"firn/changelog"
)

// batch is the append that a worker builds: the changes of one table, with all their bytes in an arena that is used
// again after the append is submitted.
type batch struct {
	changes []changelog.Change
	parked  []changelog.Parked
	moved   []changelog.MovedRow
	stale   []changelog.StaleMark
	behind  []int // of parked: those that a mark from before the batch holds
	arena   arena
	index   keyIndex
	records int // taken in, whatever became of them
	bytes   int
	counts  Counts
	skipped [kinds]int64
}

// kinds is how many kinds of events there may be.
const kinds = 16

// reset empties b, and keeps its memory.
func (b *batch) reset() {
	clear(b.changes) // drops references to record bytes
	clear(b.parked)
	b.changes, b.parked, b.moved, b.stale = b.changes[:0], b.parked[:0], b.moved[:0], b.stale[:0]
	b.behind = b.behind[:0]
	b.arena.reset()
	b.index.reset()
	b.records, b.bytes, b.counts, b.skipped = 0, 0, Counts{}, [kinds]int64{}
}

// batchMark is how far a batch was.
type batchMark struct {
	changes, parked, moved, stale, behind, records, bytes int
	counts                                                Counts
	skipped                                               [kinds]int64
}

func (b *batch) at() batchMark {
	return batchMark{len(b.changes), len(b.parked), len(b.moved), len(b.stale), len(b.behind), b.records, b.bytes, b.counts, b.skipped}
}

// back forgets what came after m. The batch was not submitted since.
func (b *batch) back(m batchMark) {
	b.changes, b.parked, b.moved = b.changes[:m.changes], b.parked[:m.parked], b.moved[:m.moved]
	b.stale, b.behind = b.stale[:m.stale], b.behind[:m.behind]
	b.records, b.bytes, b.counts, b.skipped = m.records, m.bytes, m.counts, m.skipped
	b.index.reset()
}

// empty reports whether there is nothing to submit but a position.
func (b *batch) empty() bool {
	return len(b.changes) == 0 && len(b.parked) == 0 && len(b.moved) == 0 && len(b.stale) == 0
}

// last returns the newest change of a key in the batch, or nil.
func (b *batch) last(key changelog.Key) *changelog.Change {
	if i := b.index.find(b.changes, key); i >= 0 {
		return &b.changes[i]
	}
	return nil
}

// mark returns the last mark of a key in the batch, or nil.
func (b *batch) mark(key changelog.Key) *changelog.StaleMark { return lastMark(b.stale, key) }

func lastMark(marks []changelog.StaleMark, key changelog.Key) *changelog.StaleMark {
	for i := range slices.Backward(marks) {
		if bytes.Equal(marks[i].Key, key) {
			return &marks[i]
		}
	}
	return nil
}

// movedRow returns the row kept last in the batch for a moved key.
func (b *batch) movedRow(key changelog.Key, native string) (changelog.Row, bool) {
	for _, m := range slices.Backward(b.moved) {
		if m.Native == native && bytes.Equal(m.Key, key) {
			return m.Row, true
		}
	}
	return nil, false
}

// arena hands out bytes that live until reset.
type arena struct {
	chunk []byte
	used  int // in chunks before this one
}

const (
	firstChunk = 64 << 10
	maxChunk   = 8 << 20
)

// tail returns what to append to; keep takes what was appended.
func (a *arena) tail() []byte {
	if cap(a.chunk)-len(a.chunk) < 1<<10 {
		a.used += len(a.chunk)
		a.chunk = make([]byte, 0, min(max(firstChunk, 2*cap(a.chunk)), maxChunk))
	}
	return a.chunk[len(a.chunk):]
}

// keep returns b, which grew from tail, as bytes that live until reset.
func (a *arena) keep(b []byte) []byte {
	if cap(b) == cap(a.chunk)-len(a.chunk) { // else it has outgrown the chunk, and stands alone
		a.chunk = a.chunk[:len(a.chunk)+len(b)]
	}
	return slices.Clip(b)
}

// reset frees all. The next round has one chunk if a chunk may be as large as this round was.
func (a *arena) reset() {
	if total := a.used + len(a.chunk); a.used > 0 && total < maxChunk {
		a.chunk = make([]byte, 0, max(total+total/4, cap(a.chunk)))
	}
	a.chunk, a.used = a.chunk[:0], 0
}

// keyIndex finds the newest change of a key in a batch. It is built when it is first asked, and goes on from there: a
// batch without placeholders never pays for it.
type keyIndex struct {
	seed    maphash.Seed
	seeded  bool
	slots   []int32 // 1 + place of the newest change with that hash; 0: free
	indexed int     // changes in the index
}

func (x *keyIndex) reset() {
	if x.indexed > 0 {
		clear(x.slots)
	}
	x.indexed = 0
}

func (x *keyIndex) find(changes []changelog.Change, key changelog.Key) int {
	if !x.seeded {
		x.seed, x.seeded = maphash.MakeSeed(), true
	}
	if 2*len(changes) >= len(x.slots) {
		x.slots = make([]int32, max(1024, 4*len(x.slots)))
		x.indexed = 0
	}
	for ; x.indexed < len(changes); x.indexed++ {
		if changes[x.indexed].Key != nil {
			x.slots[x.slot(changes, changes[x.indexed].Key)] = int32(x.indexed + 1) //nolint:gosec // bounded by Options.BatchRecords
		}
	}
	return int(x.slots[x.slot(changes, key)]) - 1
}

// slot returns the slot of a key, or the free one where it belongs.
func (x *keyIndex) slot(changes []changelog.Change, key changelog.Key) int {
	mask := len(x.slots) - 1
	i := int(maphash.Bytes(x.seed, key)) & mask //nolint:gosec // bits, not a number
	for x.slots[i] != 0 && !bytes.Equal(changes[x.slots[i]-1].Key, key) {
		i = (i + 1) & mask
	}
	return i
}
