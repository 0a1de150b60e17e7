package flush

import (
	"cmp"
	"slices"

	"firn/changelog"
	"firn/changelog/table"
)

// positions is how far streams are applied: the next offset of each.
type positions map[changelog.StreamID]int64

// note takes the position of a change, if it came from a source. A replayed one has the position that it was parked at, behind
// which its stream is.
func (p positions) note(at *changelog.Position) {
	if at.Source == "" { // a row of a parked record
		return
	}
	id := changelog.StreamID{Source: at.Source, Topic: at.Topic, Partition: at.Partition}
	if next, ok := p[id]; !ok || at.Offset >= next {
		p[id] = at.Offset + 1
	}
}

// cut takes the position of the first change that is left out. If it is of the record that the last change came from
// (a truncate, a key change), the stream must be read again from that record.
func (p positions) cut(at *changelog.Position) {
	id := changelog.StreamID{Source: at.Source, Topic: at.Topic, Partition: at.Partition}
	if next, ok := p[id]; ok && next == at.Offset+1 {
		p[id] = at.Offset
	}
}

// sourceTimes is the source time of the newest change of each stream, ms since 1970-01-01 UTC.
type sourceTimes map[changelog.StreamID]int64

// note takes the time of a change, if it has one. A stream's time does not go back.
func (t sourceTimes) note(c *changelog.Change) {
	t.raise(changelog.StreamID{Source: c.Position.Source, Topic: c.Position.Topic, Partition: c.Position.Partition}, c.SourceTime/1000)
}

func (t sourceTimes) raise(id changelog.StreamID, ms int64) {
	if ms > t[id] {
		t[id] = ms
	}
}

// take takes the times that a mark has.
func (t sourceTimes) take(m *table.FlushMark) {
	for i, at := range m.Positions {
		if i < len(m.Times) {
			t.raise(at.StreamID, m.Times[i])
		}
	}
}

// mark puts the times into a mark, and the watermark: all changes up to it are in the lake. It is before the millisecond of the
// newest change, of which more may come, of the stream that is least far. A stream that never gave the table a change does not count.
func (t sourceTimes) mark(m *table.FlushMark) {
	m.Times, m.Watermark = nil, 0
	for i, at := range m.Positions {
		ms := t[at.StreamID]
		if ms == 0 {
			continue
		}
		if m.Times == nil {
			m.Times = make([]int64, len(m.Positions))
		}
		m.Times[i] = ms
		if m.Watermark == 0 || ms-1 < m.Watermark {
			m.Watermark = ms - 1
		}
	}
}

// advance raises positions to those of others; none goes back.
func (p positions) advance(others []changelog.StreamPosition) {
	for _, o := range others {
		if next, ok := p[o.StreamID]; !ok || o.Next > next {
			p[o.StreamID] = o.Next
		}
	}
}

// sorted returns the positions in order of their streams.
func (p positions) sorted() []changelog.StreamPosition {
	out := make([]changelog.StreamPosition, 0, len(p))
	for id, next := range p {
		out = append(out, changelog.StreamPosition{StreamID: id, Next: next})
	}
	slices.SortFunc(out, func(a, b changelog.StreamPosition) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return out
}
