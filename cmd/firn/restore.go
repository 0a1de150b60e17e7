package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"firn/changelog/flush"
	"firn/changelog/merge"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

// restoreTables brings tables that the lake has and the data directory has lost, or has only begun to bring back, into
// the registry and the log: schema, positions and current rows as of the last flush (P4). It takes the tables that the
// configured sources feed, and leaves all others alone: another firn may own them.
func (s *server) restoreTables(ctx context.Context) error {
	names, err := s.catalog.List(ctx)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	s.cfg.parkedLast(names)
	for _, name := range names {
		if err := s.restoreTable(ctx, name); err != nil {
			return fmt.Errorf("restore %s from the lake: %w", name, err)
		}
	}
	return nil
}

func (s *server) restoreTable(ctx context.Context, name string) error {
	entry, known := s.registry.Table(name)
	if known {
		p, err := s.registry.Progress(entry.ID)
		if err != nil || !p.Rebuilding {
			return err
		}
		if err := s.store.ClearRows(ctx, entry.ID); err != nil {
			return err
		}
	}
	t, err := s.catalog.Load(ctx, name)
	if err != nil && leftOut(err, known) {
		s.log.WarnContext(ctx, "table left out", "table", name, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	if known {
		if p, err := s.registry.Progress(entry.ID); err != nil || interrupted(p, t) {
			s.log.WarnContext(ctx, "an adoption was cut short and is undone: run firn table adopt again", "table", name)
			return errors.Join(err, s.store.Drop(ctx, entry.ID))
		}
	}
	r, ours, err := flush.Restore(ctx, t)
	if err != nil || !ours {
		return err
	}
	holds, err := s.holdsParked(ctx, t)
	if err != nil || !known && !holds && !s.feeds(r.Table.Topics) {
		return err
	}
	if !known {
		r.Table.Properties = s.cfg.Table(name).Properties
		if holds {
			r.Table.Properties = map[string]string{logstore.PropParked: "true"}
		}
		if entry, err = s.registry.Restore(ctx, r.Table, r.Progress, r.Positions); err != nil {
			return err
		}
		if err := s.store.ResetPositions(ctx, r.Positions); err != nil { // it was opened before they were there
			return err
		}
	}
	s.log.InfoContext(ctx, "restoring table from the lake", "table", name, "seq", r.Progress.Flushed)
	rows := 0
	if !t.Keyed() { // it has no current rows: schema and positions are all
		return s.registry.UpdateProgress(ctx, entry.ID, func(p *state.Progress) { p.Rebuilding = false })
	}
	lake, _, err := reader(ctx, t, nil, 0, "")
	if err != nil {
		return err
	}
	if err := s.store.PutRows(ctx, entry.ID, restoredRows(lake.Rows(ctx), r, &rows)); err != nil {
		return err
	}
	s.log.InfoContext(ctx, "restored table from the lake", "table", name, "seq", r.Progress.Flushed, "rows", rows)
	if err := s.restoreParked(ctx, entry); err != nil {
		return err
	}
	return s.registry.UpdateProgress(ctx, entry.ID, func(p *state.Progress) { p.Rebuilding = false })
}

// leftOut reports whether a table that cannot be loaded is no reason to stop. Half a table holds nothing to restore from: whoever creates
// it completes it, or says why not. One that this directory does not know may be anybody's: an Amoro table of a shape that firn does
// not take, say. If it is ours after all, its flusher stops before it writes. One that is being restored is ours.
func leftOut(err error, known bool) bool {
	return errors.Is(err, table.ErrHalf) ||
		!known && (errors.Is(err, table.ErrUnsupported) || errors.Is(err, table.ErrCorrupt) || errors.Is(err, fs.ErrNotExist))
}

// feeds reports whether each topic is of a configured source.
func (s *server) feeds(topics []state.TopicRef) bool {
	for _, t := range topics {
		found := false
		for _, src := range s.cfg.Sources {
			found = found || src.Name == t.Source
		}
		if !found {
			return false
		}
	}
	return len(topics) > 0
}

// restoredRows turns merged rows into entries of the row space. The base store does not keep which change wrote a row:
// such rows get the SeqNum up to which the base store has all changes, which wrote it or came later; those from before an
// adoption get that of the adoption.
func restoredRows(rows iter.Seq2[merge.Row, error], r flush.Restored, n *int) iter.Seq2[logstore.RowEntry, error] {
	return func(yield func(logstore.RowEntry, error) bool) {
		for row, err := range rows {
			if err != nil {
				yield(logstore.RowEntry{}, err)
				return
			}
			e := logstore.RowEntry{Key: row.Key, Seq: row.Seq, Row: row.Row}
			if e.Seq == 0 {
				e.Seq = r.Progress.Optimized
			}
			e.Seq = max(e.Seq, r.Adopted)
			*n++
			if !yield(e, nil) {
				return
			}
		}
	}
}

// warnPartitions says of each table that has other partitions than the configuration asks for that it keeps its own.
func (s *server) warnPartitions() {
	for _, t := range s.registry.Tables() {
		if logstore.IsParkedTable(t) {
			continue
		}
		settings := s.cfg.Table(t.Name)
		want, err := settings.partition()
		if err == nil && want.Equal(t.Partition) {
			continue
		}
		s.log.Warn("the table keeps the partitions that it was made with; to change them, drop the table and take it in anew", "table", t.Name,
			"partition", strings.Join(t.Partition.Strings(), "; "), "configured", strings.Join(want.Strings(), "; "))
	}
}
