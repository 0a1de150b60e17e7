package flush

import (
	"testing"

	"firn/changelog"
)

// TestReplayedPosition: a change that was parked and is replayed later does not take its stream's position back, nor does the
// record at which a batch ends.
func TestReplayedPosition(t *testing.T) {
	at := func(offset int64) *changelog.Position {
		return &changelog.Position{Source: "s", Topic: "t", Offset: offset}
	}
	p := positions{}
	for _, offset := range []int64{7, 9, 3} {
		p.note(at(offset))
	}
	p.cut(at(4))
	if got := p.sorted(); len(got) != 1 || got[0].Next != 10 {
		t.Errorf("%v, want one position, 10", got)
	}
	if p.cut(at(9)); p.sorted()[0].Next != 9 {
		t.Errorf("cut in the newest record: %v", p.sorted())
	}
}
