package ingest

import (
	"context"
	"fmt"
	"slices"

	"firn/changelog"
)

// Where a reset may go beside an offset.
const (
	ResetEarliest int64 = -2 // the oldest record that there is
	ResetLatest   int64 = -3 // the end
)

// Reset says where partitions of a source are to be read on.
type Reset struct {
	Topic     string // empty: all
	Partition int32  // -1: all
	To        int64  // an offset, ResetEarliest or ResetLatest
}

// ResetStep is what a reset does to one partition.
type ResetStep struct {
	Partition

	Table  string
	From   int64 // the offset that would be read next; Unknown: the partition was never read
	To     int64
	Effect string // for people
}

// ResetRefusedError tells why a reset is not done.
type ResetRefusedError struct{ Why string }

// Error says why, and what to do.
func (e *ResetRefusedError) Error() string { return "not reset: " + e.Why }

// Reset moves the positions that partitions of a source are read on from, and returns what that means. Whoever reads the source is stopped
// meanwhile, and goes on afterwards unless it was paused. With dryRun it only tells. All of the partitions are moved, or none.
// Errors: ErrNoSource; a *ResetRefusedError; the source cannot be reached; ctx's; the log's.
func (p *Pipeline) Reset(ctx context.Context, source string, to Reset, dryRun bool) ([]ResetStep, error) {
	r, err := p.runner(source)
	if err != nil {
		return nil, err
	}
	if dryRun {
		return r.planReset(ctx, to)
	}
	if _, err := r.planReset(ctx, to); err != nil { // before it is stopped
		return nil, err
	}
	r.mu.Lock()
	paused := r.mu.paused
	r.mu.Unlock()
	if err := r.pause(ctx); err != nil {
		return nil, err
	}
	if !paused {
		defer r.resume()
	}
	steps, err := r.planReset(ctx, to)
	if err != nil {
		return nil, err
	}
	positions := make([]changelog.StreamPosition, len(steps))
	for i, s := range steps {
		positions[i] = changelog.StreamPosition{StreamID: s.Stream(source), Next: s.To}
	}
	if err := p.log.ResetPositions(ctx, positions); err != nil {
		return nil, fmt.Errorf("reset %s: %w", source, err)
	}
	for _, s := range steps {
		r.state(s.Partition).update(func(p *PartitionStatus) { p.Next = s.To })
		p.logger.Warn("position is reset", "source", source, "topic", s.Topic, "partition", s.Index, "from", s.From, "to", s.To)
	}
	return steps, nil
}

func (r *runner) planReset(ctx context.Context, to Reset) ([]ResetStep, error) {
	bounds, err := r.source.Bounds(ctx, to.Topic)
	if err != nil {
		return nil, fmt.Errorf("reset %s: %w", r.source.Name(), err)
	}
	r.mu.Lock()
	ended := r.mu.finished
	r.mu.Unlock()
	var steps []ResetStep
	for _, b := range bounds {
		if to.Topic != "" && b.Topic != to.Topic || to.Partition >= 0 && b.Index != to.Partition {
			continue
		}
		s, err := r.resetStep(b, to.To)
		if err != nil {
			return nil, err
		}
		if ended {
			s.Effect += "; the source has ended: that is at the next start"
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil, &ResetRefusedError{"the source has no such topic and partition: firn source list shows them"}
	}
	slices.SortFunc(steps, func(a, b ResetStep) int { return comparePartitions(a.Partition, b.Partition) })
	return steps, nil
}

func (r *runner) resetStep(b Bounds, to int64) (ResetStep, error) {
	s := ResetStep{Partition: b.Partition, Table: r.router.route(b.Topic).table, From: Unknown, To: to}
	switch to {
	case ResetEarliest:
		s.To = b.Oldest
	case ResetLatest:
		s.To = b.End
	}
	if s.To < b.Oldest || s.To > b.End {
		return s, &ResetRefusedError{fmt.Sprintf("offset %d of %s/%d: the partition has %d to %d", to, b.Topic, b.Index, b.Oldest, b.End)}
	}
	next, known, err := r.pipeline.log.Position(b.Stream(r.source.Name()))
	if err != nil {
		return s, err
	}
	if known {
		s.From = next
	}
	switch begin := max(s.From, b.Oldest); {
	case s.To == s.From:
		s.Effect = "stays"
	case s.To > begin:
		s.Effect = fmt.Sprintf("passes over %d offsets: what the records there say never reaches %s", s.To-begin, s.Table)
	case s.From == Unknown:
		s.Effect = "begins there"
	default:
		if t, ok := r.pipeline.tables.Table(s.Table); ok && len(t.Schemas.Current().Key) == 0 {
			return s, &ResetRefusedError{fmt.Sprintf("%s/%d: table %s has no key: the rows of the records before offset %d would be there twice", b.Topic, b.Index, s.Table, s.From)}
		}
		s.Effect = fmt.Sprintf("reads %d offsets again: rows of %s go through their old states once more, also in feeds, and end as the newest record says; "+
			"what of it is parked is parked again", s.From-s.To, s.Table)
	}
	return s, nil
}
