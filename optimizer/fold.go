package optimizer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"

	"firn/changelog"
)

// lsn orders the rows of change files: by transaction, then by offset. Transactions are ranked within a merge, from 1,
// which keeps a lsn small; the zero lsn is before all.
type lsn struct {
	offset int64
	rank   int32
}

func (l lsn) less(o lsn) bool { return l.rank < o.rank || l.rank == o.rank && l.offset < o.offset }

// fold reduces the changes of one partition to the final state of each key: the last operation wins. A delete kills
// only inserts with a smaller lsn, so that the insert of an update wins over its own delete, which has the same one
// (spec/mixed-format.md 2.2). Of several inserts without a delete between them the last one stays: a firn table has
// one row a key. Memory: about 60 bytes and the key for each distinct key.
//
// It is an open hash table over numbered entries. These and their keys lie in chunks, so that growing copies only the
// table's slots.
type fold struct {
	slots   []uint32 // entry number plus one; 0: free. A power of two long, at most two thirds full
	entries [][]foldEntry
	n       int
	arena   [][]byte
}

const (
	entryBits    = 12 // entries of a chunk
	firstEntries = 64 // of the first chunk to begin with: a power of two
	arenaChunk   = 256 << 10
	firstArena   = 4 << 10
)

type foldEntry struct {
	deletedAt int64 // offset of the last delete
	putAt     int64 // offset of the insert that stands for the key
	keyAt     uint32
	keyChunk  uint32 // the key is at keyAt of this chunk of the arena
	size      int32  // of the key
	hash      uint32
	deletedIn int32 // rank of the last delete; 0: there is none
	putIn     int32 // rank of the insert; 0: there is none
	file      int32 // the insert file that has the row
	row       int32 // the row's ordinal in it
}

func newFold(sizeHint int) *fold {
	f := &fold{}
	f.grow(max(1024, sizeHint*2))
	return f
}

func (f *fold) at(i int) *foldEntry { return &f.entries[i>>entryBits][i&(1<<entryBits-1)] }

func (f *fold) grow(atLeast int) {
	n := 1024
	for n < atLeast {
		n *= 2
	}
	f.slots = make([]uint32, n)
	mask := uint32(n - 1) //nolint:gosec // a positive power of two, at most 2*maxRows
	for i := range f.n {
		s := f.at(i).hash & mask
		for f.slots[s] != 0 {
			s = (s + 1) & mask
		}
		f.slots[s] = uint32(i + 1) //nolint:gosec // at most maxRows
	}
}

func hashKey(key []byte) uint32 { return uint32(xxh3.Hash(key)) } //nolint:gosec // the low half

// find returns the number of the key's entry, or the slot where it would be.
func (f *fold) find(key []byte, h uint32) (entry int, slot uint32, ok bool) {
	mask := uint32(len(f.slots) - 1) //nolint:gosec // as in grow
	for slot = h & mask; f.slots[slot] != 0; slot = (slot + 1) & mask {
		i := int(f.slots[slot] - 1)
		if f.at(i).hash == h && bytes.Equal(f.key(i), key) {
			return i, slot, true
		}
	}
	return 0, slot, false
}

// entry returns the number of the key's entry, which it makes if there is none. key is copied.
func (f *fold) entry(key []byte) int {
	h := hashKey(key)
	i, slot, ok := f.find(key, h)
	if ok {
		return i
	}
	i = f.n
	f.room(i)
	f.n++
	e := f.at(i)
	e.hash, e.size = h, int32(len(key)) //nolint:gosec // a key is far smaller
	e.keyChunk, e.keyAt = f.keep(key)
	f.slots[slot] = uint32(i + 1) //nolint:gosec // at most maxRows
	if 3*f.n > 2*len(f.slots) {
		f.grow(2 * len(f.slots))
	}
	return i
}

// room makes room for entry i, the next one. The first chunk grows: there may be many folds, one a partition, of few keys.
func (f *fold) room(i int) {
	switch chunk := i >> entryBits; {
	case chunk == len(f.entries) && chunk > 0:
		f.entries = append(f.entries, make([]foldEntry, 1<<entryBits))
	case chunk == len(f.entries):
		f.entries = append(f.entries, make([]foldEntry, firstEntries))
	case i == len(f.entries[0]):
		f.entries[0] = append(make([]foldEntry, 0, 2*i), f.entries[0]...)[:2*i]
	}
}

func (f *fold) keep(key []byte) (chunk, at uint32) {
	last := len(f.arena) - 1
	if last < 0 || len(f.arena[last])+len(key) > cap(f.arena[last]) {
		size := firstArena
		if last >= 0 {
			size = min(arenaChunk, 2*cap(f.arena[last]))
		}
		f.arena = append(f.arena, make([]byte, 0, max(size, len(key))))
		last++
	}
	n := len(f.arena[last])
	f.arena[last] = append(f.arena[last], key...)
	return uint32(last), uint32(n) //nolint:gosec // far fewer than 2^32
}

// key returns the key of entry i.
func (f *fold) key(i int) changelog.Key {
	e := f.at(i)
	end := int64(e.keyAt) + int64(e.size)
	return f.arena[e.keyChunk][e.keyAt:end:end]
}

// remove says that the key was deleted at l.
func (f *fold) remove(key []byte, l lsn) {
	e := f.at(f.entry(key))
	if e.deleted().less(l) {
		e.deletedAt, e.deletedIn = l.offset, l.rank
	}
}

// insert says that row of file stands for the key from l on.
func (f *fold) insert(key []byte, l lsn, file, row int32) {
	e := f.at(f.entry(key))
	if !l.less(e.put()) { // of equals the later one
		e.putAt, e.putIn, e.file, e.row = l.offset, l.rank, file, row
	}
}

func (e *foldEntry) deleted() lsn { return lsn{e.deletedAt, e.deletedIn} }
func (e *foldEntry) put() lsn     { return lsn{e.putAt, e.putIn} }

// lives reports whether the key has a row in the end.
func (e *foldEntry) lives() bool { return e.putIn != 0 && !e.put().less(e.deleted()) }

// touched returns the rank of the last operation on the key.
func (e *foldEntry) touched() int32 { return max(e.deletedIn, e.putIn) }

// len returns the number of distinct keys.
func (f *fold) len() int { return f.n }

// sorted returns the numbers of all entries in the order of their keys.
func (f *fold) sorted() []int32 {
	items := make([]sortItem, f.n)
	for i := range items {
		items[i] = sortItem{keyPrefix(f.key(i)), int32(i)} //nolint:gosec // at most maxRows
	}
	slices.SortFunc(items, func(a, b sortItem) int {
		if a.by != b.by {
			return cmp.Compare(a.by, b.by)
		}
		return bytes.Compare(f.key(int(a.entry)), f.key(int(b.entry)))
	})
	return entriesOf(items)
}

// sortItem is an entry and what it is sorted by.
type sortItem struct {
	by    uint64
	entry int32
}

func entriesOf(items []sortItem) []int32 {
	order := make([]int32, len(items))
	for i := range items {
		order[i] = items[i].entry
	}
	return order
}

// keyPrefix returns the first 8 bytes as a number that orders like them.
func keyPrefix(k []byte) uint64 {
	if len(k) >= 8 {
		return binary.BigEndian.Uint64(k)
	}
	var b [8]byte
	copy(b[:], k)
	return binary.BigEndian.Uint64(b[:])
}

// winners returns the numbers of the entries that keep approves of, in the order of their rows: by file, then by row.
func (f *fold) winners(keep func(entry int) bool) []int32 {
	n := 0
	for i := range f.n {
		if keep(i) {
			n++
		}
	}
	items := make([]sortItem, 0, n)
	for i := range f.n {
		if keep(i) {
			e := f.at(i)
			items = append(items, sortItem{uint64(e.file)<<32 | uint64(e.row), int32(i)}) //nolint:gosec // not negative
		}
	}
	slices.SortFunc(items, func(a, b sortItem) int { return cmp.Compare(a.by, b.by) })
	return entriesOf(items)
}
