package flush

import (
	"context"
	"fmt"

	"firn/changelog"
	"firn/changelog/table"
	"firn/state"
)

// Restored is what the lake knows of a table whose data directory is lost (P4): what state.Registry.Restore takes. The
// rows come from merge.Reader.Rows over the same *table.Table.
type Restored struct {
	Table     state.Table // without an ID; Properties are not known
	Progress  state.Progress
	Positions []changelog.StreamPosition // where the sources are to be read on
	Adopted   changelog.SeqNum           // at which the table was adopted; rows of before are of no known change. 0: firn made it
}

// Restore reads what the last flush has left in the lake. Progress.Rebuilding is set: whoever has put the rows back
// clears it. ok is false if firn never flushed the table. Errors: I/O, table.ErrCorrupt.
func Restore(ctx context.Context, t *table.Table) (r Restored, ok bool, err error) {
	mark, ok, err := t.LastCommit()
	if err != nil || !ok {
		return Restored{}, false, err
	}
	r.Table = state.Table{Name: t.Name(), Schemas: t.Schemas()}
	if r.Table.Partition, err = t.Partition(); err != nil {
		return Restored{}, false, err
	}
	seen := map[state.TopicRef]bool{}
	for _, p := range mark.Positions {
		topic := state.TopicRef{Source: p.Source, Topic: p.Topic}
		if !seen[topic] {
			seen[topic] = true
			r.Table.Topics = append(r.Table.Topics, topic)
		}
	}
	r.Positions = mark.Positions
	// The epoch is not ours: the Flusher claims a higher one.
	r.Progress = state.Progress{Flushed: mark.To, CommitID: mark.CommitID, Epoch: mark.Epoch, Optimized: mark.To, Rebuilding: true}
	if !t.Keyed() {
		return r, true, nil
	}
	if s := t.Change().Snapshot(); s != nil {
		r.Progress.ChangeSequence = s.Sequence
	}
	if r.Adopted, err = t.Adopted(); err != nil {
		return Restored{}, false, err
	}
	files, err := t.Change().Files(ctx)
	if err != nil {
		return Restored{}, false, fmt.Errorf("restore %s: %w", t.Name(), err)
	}
	for _, f := range files {
		first := changelog.SeqNum(max(f.FirstOffset, 1)) //nolint:gosec // positive
		if f.Predates(r.Adopted) {
			first = r.Adopted // of changes before the adoption
		}
		if !t.Merged(f) {
			r.Progress.Optimized = min(r.Progress.Optimized, first-1)
		}
	}
	return r, true, nil
}
