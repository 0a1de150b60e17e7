package ingest

import (
	"fmt"

	"firn/changelog"
	"firn/ingest/decode"
)

// rekeyed is a shape whose key is the columns that the route names.
type rekeyed struct {
	shape   *decode.Shape
	message []int // the place in the message key of each key column; -1: it is not there
	key     []changelog.Value
}

// rekey gives ev the key that the route names.
func (w *worker) rekey(ev *decode.Event) *decode.Rejected {
	k := w.rekeyed[ev.Shape]
	if k == nil {
		var rejected *decode.Rejected
		if k, rejected = newRekeyed(ev.Shape, w.target.Columns); rejected != nil {
			return rejected
		}
		if len(w.rekeyed) >= maxBindings {
			clear(w.rekeyed)
		}
		w.rekeyed[ev.Shape] = k
	}
	for i, o := range k.shape.Key {
		switch {
		case ev.After != nil:
			k.key[i] = ev.After[o]
		case ev.Before != nil:
			k.key[i] = ev.Before[o]
		case k.message[i] >= 0:
			k.key[i] = ev.Key[k.message[i]]
		default:
			return &decode.Rejected{Reason: decode.ReasonKeyMissing, Detail: fmt.Sprintf(
				"a delete without column %q: its message key does not have it, and before is not to be trusted", w.target.Columns[i])}
		}
		if k.key[i].Null {
			return &decode.Rejected{Reason: decode.ReasonKeyNull, Detail: fmt.Sprintf("column %q", w.target.Columns[i])}
		}
	}
	ev.Shape, ev.Key, ev.OldKey, ev.NewKey = k.shape, k.key, nil, nil
	return nil
}

func newRekeyed(shape *decode.Shape, columns []string) (*rekeyed, *decode.Rejected) {
	s := *shape
	s.Key = make([]int, len(columns))
	k := &rekeyed{shape: &s, message: make([]int, len(columns)), key: make([]changelog.Value, len(columns))}
	for i, name := range columns {
		s.Key[i], k.message[i] = -1, -1
		for o, c := range shape.Columns {
			if c.Name == name {
				s.Key[i] = o
			}
		}
		if s.Key[i] < 0 {
			return nil, &decode.Rejected{Reason: decode.ReasonKeyMissing, Detail: fmt.Sprintf("the route's key column %q is not in the row", name)}
		}
		for place, o := range shape.Key {
			if o == s.Key[i] {
				k.message[i] = place
			}
		}
	}
	return k, nil
}
