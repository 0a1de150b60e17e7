package flush

import (
	"cmp"
	"slices"

	"firn/changelog"
)

// positions is how far streams are applied: the next offset of each.
type positions map[changelog.StreamID]int64

// note takes the position of a change.
func (p positions) note(at *changelog.Position) {
	p[changelog.StreamID{Source: at.Source, Topic: at.Topic, Partition: at.Partition}] = at.Offset + 1
}

// cut takes the position of the first change that is left out. If it is of the record that the last change came from
// (a truncate, a key change), the stream must be read again from that record.
func (p positions) cut(at *changelog.Position) {
	id := changelog.StreamID{Source: at.Source, Topic: at.Topic, Partition: at.Partition}
	if next, ok := p[id]; ok && next == at.Offset+1 {
		p[id] = at.Offset
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
