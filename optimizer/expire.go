package optimizer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"firn/changelog/table"
)

// Expired is what expiring a table came to.
type Expired struct {
	Changes   []string // change files taken out of the change store
	Snapshots int
	Files     int // removed from the disk
	Bytes     int64
}

// Expire takes merged change files out of the change store and expires snapshots of both stores, now. A dry run only names
// the change files.
//
// A change file goes once it is merged (its data sequence number, which is what readers compare, and its transaction are at most
// its partition's optimized sequence: nobody sees it any more), Rules.ChangeTTL after its commit, and if Options.Hold does not
// ask for it. It stays on disk, readable through older snapshots of the change store, until those expire, too
// (Rules.KeepSnapshots, KeepAge). So a feed that reads change files has at least ChangeTTL + KeepAge, by default six
// minutes, from a change's flush on, for a file that it has found; a feed that is to go back further than the LogStore's
// retention needs a longer ChangeTTL, or a Hold.
func (o *Optimizer) Expire(ctx context.Context, name string, dryRun bool) (Expired, error) {
	s := o.state(name)
	s.work.Lock()
	defer s.work.Unlock()
	l, err := o.look(ctx, s)
	if err != nil {
		return Expired{}, err
	}
	for again := !dryRun; again; {
		if again, err = o.lineage(ctx, s, l); err != nil {
			return Expired{}, err
		}
		if again {
			if l, err = o.look(ctx, s); err != nil {
				return Expired{}, err
			}
		}
	}
	return o.expire(ctx, l, s, dryRun)
}

func (o *Optimizer) expire(ctx context.Context, l *lake, s *tableState, dryRun bool) (e Expired, err error) {
	who, err := o.owner(l, s)
	if err != nil {
		return e, err
	}
	dead := o.deadChanges(l, s)
	for _, f := range dead {
		e.Changes = append(e.Changes, f.Path)
	}
	if dryRun {
		return e, nil
	}
	if len(dead) > 0 {
		_, err := l.t.RemoveChangeFiles(ctx, dead, who.epoch)
		if errors.Is(err, table.ErrFenced) {
			err = fenced(ctx, l, who, err)
		}
		if err != nil {
			return Expired{}, fmt.Errorf("expire change files of %s: %w", s.name, err)
		}
		o.metrics.expired.WithLabelValues("change").Add(float64(len(dead)))
	}
	for _, store := range l.t.Stores() {
		x, err := l.t.ExpireSnapshots(ctx, store, l.rules.KeepSnapshots, l.rules.KeepAge)
		e.Snapshots, e.Files, e.Bytes = e.Snapshots+x.Snapshots, e.Files+x.Files, e.Bytes+x.Bytes
		if err != nil {
			return e, fmt.Errorf("expire snapshots of %s: %w", store.Name(), err)
		}
	}
	o.metrics.expired.WithLabelValues("snapshot").Add(float64(e.Snapshots))
	o.metrics.expired.WithLabelValues("file").Add(float64(e.Files))
	if len(dead) > 0 || e.Snapshots > 0 {
		o.log.Info("expired", "table", s.name, "change_files", len(dead), "snapshots", e.Snapshots, "files", e.Files, "bytes", e.Bytes)
	}
	return e, nil
}

// deadChanges returns the change files that may go.
func (o *Optimizer) deadChanges(l *lake, s *tableState) (dead []table.File) {
	first, hold := int64(0), false
	if o.options.Hold != nil && s.id != 0 {
		seq, ok := o.options.Hold(s.id)
		first, hold = int64(seq), ok //nolint:gosec // SeqNums do not reach 2^63
	}
	times, oldest := l.changeTimes()
	now := o.options.Now()
	for _, f := range l.view.Change {
		file := l.files[f.Path]
		at, ok := times[file.Snapshot]
		if !ok {
			at = oldest.Add(-time.Millisecond) // its snapshot is expired: it is older than all others
		}
		if l.t.Expirable(file) && now.Sub(at) >= l.rules.ChangeTTL && (!hold || file.LastOffset < first) {
			dead = append(dead, file)
		}
	}
	return dead
}
