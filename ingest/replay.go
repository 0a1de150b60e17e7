package ingest

import "encoding/binary"

// identities remembers the last n identities of a partition (spec/debezium.md 2.4): a ring of them and an index by hash
// with open addressing. It grows with what it holds: 16 bytes an identity and 8 to 16 for the index.
type identities struct {
	limit int
	ring  [][16]byte
	next  int      // the ring's oldest, once it is full
	slots []uint32 // 1 + place in ring; 0: free; length is a power of two, at least twice the ring's
	mask  uint32
}

func newIdentities(limit int) *identities { return &identities{limit: limit} }

// home returns where an identity's slot would be if none were taken. Identities are hashes: their bits are random.
func (m *identities) home(id *[16]byte) uint32 { return binary.LittleEndian.Uint32(id[:4]) & m.mask }

// seen reports whether id is remembered, and remembers it if it is not.
func (m *identities) seen(id *[16]byte) bool {
	if m.limit == 0 {
		return false
	}
	if len(m.ring) < m.limit && 2*(len(m.ring)+1) > len(m.slots) {
		m.grow()
	}
	i := m.home(id)
	for ; m.slots[i] != 0; i = (i + 1) & m.mask {
		if m.ring[m.slots[i]-1] == *id {
			return true
		}
	}
	if len(m.ring) < m.limit {
		m.ring = append(m.ring, *id)
		m.slots[i] = uint32(len(m.ring)) //nolint:gosec // Options.Validate bounds the limit
		return false
	}
	oldest := uint32(m.next) //nolint:gosec // as above
	m.forget(oldest)
	m.ring[oldest] = *id
	m.insert(oldest)
	m.next = (m.next + 1) % m.limit
	return false
}

func (m *identities) insert(place uint32) {
	i := m.home(&m.ring[place])
	for m.slots[i] != 0 {
		i = (i + 1) & m.mask
	}
	m.slots[i] = place + 1
}

// forget frees the slot of a place, and moves those behind it that would no longer be found.
func (m *identities) forget(place uint32) {
	i := m.home(&m.ring[place])
	for m.slots[i] != place+1 {
		i = (i + 1) & m.mask
	}
	for j := (i + 1) & m.mask; m.slots[j] != 0; j = (j + 1) & m.mask {
		home := m.home(&m.ring[m.slots[j]-1])
		if (j-home)&m.mask >= (j-i)&m.mask { // its way from home leads over i
			m.slots[i] = m.slots[j]
			i = j
		}
	}
	m.slots[i] = 0
}

func (m *identities) grow() {
	size := max(1024, 2*len(m.slots))
	m.slots = make([]uint32, size)
	m.mask = uint32(size - 1) //nolint:gosec // at most four times the limit
	for place := range m.ring {
		m.insert(uint32(place)) //nolint:gosec // as above
	}
	ring := make([][16]byte, len(m.ring), min(m.limit, size/2))
	copy(ring, m.ring)
	m.ring = ring
}

// reset forgets all: a new epoch of the source (spec/debezium.md 2.3).
func (m *identities) reset() {
	clear(m.slots)
	m.ring, m.next = m.ring[:0], 0
}
