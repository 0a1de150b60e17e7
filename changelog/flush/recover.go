package flush

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"firn/changelog"
	"firn/changelog/table"
	"firn/state"
)

// recover brings the data directory and the lake together before the first flush: it takes over a commit of ours whose
// answer or progress a crash has lost (P2), stops before another writer's table (P3), and claims the table.
func (f *Flusher) recover(ctx context.Context) error {
	if _, ok := f.registry.ByID(f.id); !ok {
		return fmt.Errorf("flush %s: %w", f.name, state.ErrNotFound)
	}
	f.lake, f.epoch, f.positions, f.times = nil, 0, positions{}, sourceTimes{}
	err := f.reload(ctx)
	if errors.Is(err, table.ErrNotFound) || errors.Is(err, table.ErrHalf) { // its creation completes half a table, or says why not
		return f.recoverNew()
	}
	if err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	// Compared before the claim, so that a stale directory does not fence the right writer; and after it, because
	// only then nobody else can commit any more.
	if err := f.compare(ctx); err != nil {
		return err
	}
	if err := f.claim(ctx); err != nil {
		return err
	}
	if err := f.reload(ctx); err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	if err := f.compare(ctx); err != nil {
		return err
	}
	// A crash between the two commits of a schema has left the base store one ahead: Amoro's readers would commit what
	// the change store lacks, so that it is not left to the next flush.
	if err := f.syncSchemas(ctx, f.lake.Schemas()); err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	f.recovered = true
	return nil
}

// recoverNew is for a table that the lake does not have.
func (f *Flusher) recoverNew() error {
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	if p.Flushed > 0 {
		return fmt.Errorf("recover %s: all up to %d was flushed in commit %s, and the lake has no such table: %w",
			f.name, p.Flushed, p.CommitID, ErrDiverged)
	}
	f.recovered = true // the first flush creates and claims it
	return nil
}

// compare holds the lake's newest flush against the progress, and adopts it if it is ours and not recorded yet.
func (f *Flusher) compare(ctx context.Context) error {
	mark, ok, err := f.lake.LastCommit()
	if err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	_, applied, err := f.log.Bounds(f.id)
	if err != nil {
		return fmt.Errorf("recover %s: %w", f.name, err)
	}
	if !ok && p.CommitID == "" && !f.lake.Untouched() {
		return fmt.Errorf("recover %s: another writer has written the lake's table, or firn has released it, and this data directory does not know "+
			"its rows: take it in with firn table adopt, or let the route name another table: %w", f.name, ErrDiverged)
	}
	switch judge(mark, ok, p, applied, f.registry.WriterID()) {
	case inStep:
		f.positions.advance(mark.Positions)
		f.times.take(&mark)
		return nil
	case ahead:
		f.logger.Info("flush adopted that a crash had interrupted", slog.String("commit", mark.CommitID),
			slog.Uint64("from", uint64(mark.From)), slog.Uint64("seq", uint64(mark.To)))
		return f.advance(ctx, &mark, f.sequenceOf(mark.CommitID))
	case foreign:
		return fmt.Errorf("recover %s: its last flush, commit %s up to %d under epoch %d, is by writer %s; this data directory (writer %s) "+
			"had flushed up to %d in commit %q: stop the other writer, or start with an empty data directory to take the table over: %w",
			f.name, mark.CommitID, mark.To, mark.Epoch, mark.Writer, f.registry.WriterID(), p.Flushed, p.CommitID, state.ErrFenced)
	case apart:
	}
	return fmt.Errorf("recover %s: the lake's last flush is commit %q (%d, %d]; this data directory has flushed up to %d in commit %q, "+
		"and its log ends at %d: %w", f.name, mark.CommitID, mark.From, mark.To, p.Flushed, p.CommitID, applied, ErrDiverged)
}

// verdict says how a data directory and the lake's last flush go together.
type verdict uint8

const (
	inStep  verdict = iota // the same flush is the last one in both
	ahead                  // the lake has one more flush, which is ours (P2)
	foreign                // another writer has flushed since (P3)
	apart                  // none of these: one of the two was put back
)

// judge compares the lake's last flush (if ok) with the progress and the log of the data directory of writer.
func judge(mark table.FlushMark, ok bool, p state.Progress, applied changelog.SeqNum, writer string) verdict {
	switch {
	case !ok && p.Flushed == 0 && p.CommitID == "":
		return inStep
	case !ok:
		return apart
	case mark.CommitID == p.CommitID && mark.To == p.Flushed:
		return inStep
	case mark.Writer != writer:
		return foreign
	case mark.From == p.Flushed && mark.To <= applied:
		return ahead
	}
	return apart
}

// sequenceOf returns the Iceberg sequence number of a commit, or that of the current snapshot if its own has expired.
func (f *Flusher) sequenceOf(commit string) int64 {
	store := f.lake.Base()
	if f.lake.Keyed() {
		store = f.lake.Change()
	}
	sequence := int64(0)
	for _, s := range store.Snapshots() {
		sequence = s.Sequence
		if s.Summary[table.PropCommitID] == commit {
			break
		}
	}
	return sequence
}

// claim makes us the table's writer (P3).
func (f *Flusher) claim(ctx context.Context) error {
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return fmt.Errorf("claim %s: %w", f.name, err)
	}
	epoch, err := f.lake.ClaimEpoch(ctx, f.registry.WriterID(), p.Epoch+1)
	if err != nil {
		if errors.Is(err, table.ErrFenced) {
			err = fmt.Errorf("%w: %w", state.ErrFenced, err)
		}
		return fmt.Errorf("claim %s: %w", f.name, err)
	}
	if err := f.registry.UpdateProgress(ctx, f.id, func(p *state.Progress) { p.Epoch = epoch }); err != nil {
		return fmt.Errorf("claim %s: %w", f.name, err)
	}
	f.epoch = epoch
	f.logger.Info("table claimed", slog.Uint64("epoch", uint64(epoch)))
	return nil
}
