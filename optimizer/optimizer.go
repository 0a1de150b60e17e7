package optimizer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// Optimizer optimizes the tables of a lake. Run does it by the clock for all tables of a registry; Once by hand for one
// table, with or without a registry.
type Optimizer struct {
	catalog *table.Catalog
	reg     *state.Registry // nil: there is no Pebble instance, so no position index and no progress
	options Options
	files   datafile.Options
	log     *slog.Logger
	metrics *metrics

	// step is called between the steps of a task. Tests fail there.
	step func(name string) error

	mu struct {
		sync.Mutex
		tables map[string]*tableState
	}
}

// New returns an Optimizer of the tables of c. reg is the data directory whose firn writes them, or nil: then only Once
// may be called, and a merge reads the key columns of the whole base store instead of asking the position index.
// Registering its metrics twice panics. Error: options that cannot be.
func New(c *table.Catalog, reg *state.Registry, o Options) (*Optimizer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	opt := &Optimizer{
		catalog: c, reg: reg, options: o, files: o.Files, log: o.Logger, metrics: newMetrics(o.Registerer),
		step: func(string) error { return nil },
	}
	opt.mu.tables = map[string]*tableState{}
	return opt, nil
}

// tableState is what an Optimizer remembers of a table. All of it can be lost.
type tableState struct {
	name string

	work sync.Mutex // held by the one that works on the table; what follows is its
	x    *state.Index
	id   changelog.TableID // 0: not in the registry
	reg  *state.Registry
	// checked says that an index of the empty base store was emptied by this process: snapshot 0 proves nothing.
	checked     bool
	counts      map[string]deleteCounts // of the position-delete files that were live when last looked
	lastMinor   time.Time
	lastExpire  time.Time
	lastOrphans time.Time
	full        []Task // what is left of a full round; nil: none is under way

	// The scheduler's own: guarded by its goroutine.
	busy     bool
	failures int
	nextTry  time.Time // not before this
	lookAt   time.Time // at this at the latest
	mergeAt  time.Time // when a pending change is due
	again    bool      // there was work when last looked: there may be more
}

func (o *Optimizer) state(name string) *tableState {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.mu.tables[name]
	if s == nil {
		s = &tableState{name: name}
		o.mu.tables[name] = s
	}
	return s
}

// look loads the table and, if it is registered, its entry. s.work is held.
func (o *Optimizer) look(ctx context.Context, s *tableState) (*lake, error) {
	var props map[string]string
	if o.reg != nil {
		if entry, ok := o.reg.Table(s.name); ok {
			if s.id != entry.ID { // new, or dropped and made again
				s.x, s.id, s.reg, s.checked, s.counts, s.lastMinor, s.full = nil, entry.ID, o.reg, false, nil, time.Time{}, nil
			}
			props = entry.Properties
		}
	}
	l, err := o.open(ctx, s.name, props, s.counts)
	if err != nil {
		return nil, err
	}
	s.counts = l.counts
	s.fitBuckets(l)
	l.view.LastMinor = s.lastMinor
	o.metrics.saw(l, o.options.Now())
	return l, nil
}

// fitBuckets keeps rows at the root if a key's hash has changed: the registry may know of a wider type before the lake does.
func (s *tableState) fitBuckets(l *lake) {
	if s.reg == nil {
		return
	}
	if entry, ok := s.reg.ByID(s.id); ok {
		l.rules.Buckets = mixed.Buckets(entry.Schemas, l.rules.Buckets)
	}
}

// owner says in whose name to commit. Whoever is not the table's writer (by hand, or before the flusher has claimed its
// epoch) takes the epoch that the table has: such commits are safe by the snapshot that they expect.
func (o *Optimizer) owner(l *lake, s *tableState) (who owner, err error) {
	who.writer = byHand + rand.Text()
	if s.reg != nil {
		p, err := s.reg.Progress(s.id)
		if who = (owner{s.reg.WriterID(), p.Epoch}); err != nil || p.Epoch != 0 {
			return who, err //nolint:wrapcheck // it names the table
		}
	}
	who.epoch, err = l.t.Epoch()
	return who, err //nolint:wrapcheck // it names the table
}

// byHand begins the writer's name in commits without a position index: they are on whatever is there (see lineage).
const byHand = "optimize-"

// unseen reports whether an optimizer made the snapshot that had not looked at what others have committed before it: another than firn's, or
// firn's by hand. Of the latter only marked ones count: in a table that is not marked no other optimizer has been, and nobody knows any more
// what a commit in it has merged.
func unseen(sn *table.Snapshot) bool {
	return toCheck(sn) && (!sn.Ours() || strings.HasPrefix(sn.Summary[table.PropWriter], byHand))
}

// toCheck reports whether an optimizer made the snapshot, and it can be told what that has merged.
func toCheck(sn *table.Snapshot) bool {
	_, marked := sn.Summary[mixed.MarkOptimizedSequence]
	return byOptimizer(sn) && (marked || !sn.Ours())
}

// index makes the position index valid for l; without a registry there is none.
func (s *tableState) index(ctx context.Context, o *Optimizer, l *lake) (err error) {
	if s.reg == nil {
		return nil
	}
	if err := s.openIndex(); err != nil {
		return err
	}
	if s.valid(l) && (s.checked || l.t.Base().SnapshotID() != 0) {
		return nil
	}
	began := o.options.Now()
	at, err := l.ours(ctx)
	if err == nil {
		err = rebuild(ctx, l, at, s.x, o.files)
	}
	if at != nil && errors.Is(err, fs.ErrNotExist) { // of files that have left the table: those of the head may all be there
		o.log.Warn("foreign commits cannot be checked: a file of before them is gone", "table", s.name, "snapshot", at.snapshot.ID, "err", err)
		at = nil
		err = rebuild(ctx, l, nil, s.x, o.files)
	}
	if err != nil {
		return err
	}
	s.checked = true
	if l.t.Base().SnapshotID() != 0 {
		o.metrics.moves.WithLabelValues(s.name, "whole").Inc()
		o.log.Info("position index built from the base store", "table", s.name, "how", "whole", "snapshot", l.t.Base().SnapshotID(),
			"rows", l.baseRows, "took", o.options.Now().Sub(began))
	}
	if at != nil {
		return l.errUnchecked(at.snapshot.ID)
	}
	return nil
}

// ours returns the base store as it was at our newest commit, if other optimizers have committed since: the index is built there, so
// that what they did can be checked. nil: none has, or it is not kept.
func (l *lake) ours(ctx context.Context) (*baseState, error) {
	base := l.t.Base()
	all := base.Snapshots()
	slices.Reverse(all)
	for i := range all {
		path, ok := base.Lineage(all[i].ID)
		if !ok || !all[i].Ours() || unseen(&all[i]) {
			continue
		}
		if !slices.ContainsFunc(path, func(sn table.Snapshot) bool { return unseen(&sn) }) {
			return nil, nil //nolint:nilnil // as documented
		}
		return baseAt(ctx, l.t, all[i])
	}
	return nil, nil //nolint:nilnil // as documented
}

func (s *tableState) openIndex() (err error) {
	if s.x == nil {
		s.x, err = s.reg.OpenIndex(s.id)
	}
	return err //nolint:wrapcheck // it names the table
}

// valid reports whether the position index describes the base store as l has it.
func (s *tableState) valid(l *lake) bool {
	if s.reg == nil || s.x == nil {
		return false
	}
	p, err := s.reg.Progress(s.id)
	return err == nil && p.IndexSnapshot == l.t.Base().SnapshotID()
}

// after does what has to follow a commit, although the process may be asked to stop.
func (s *tableState) after(ctx context.Context, o *Optimizer, move func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if err := move(ctx); err != nil {
		return fmt.Errorf("move the position index of %s: %w", s.name, err)
	}
	return o.step("indexed")
}

// Report is what Once did.
type Report struct {
	Table  string
	DryRun bool
	Done   []Done   // in a dry run what would be done first: later tasks depend on it
	Notes  []string // why something was not planned
}

// onceTasks bounds the tasks of one Once: planning ends long before, or is wrong.
const onceTasks = 10_000

// Once optimizes a table now, although no trigger may say so, and whether or not it is enabled. Minor merges all that
// is pending when it begins; Major goes on until nothing is to be done; Full rewrites each base file at most once. A dry run only
// plans. It waits for whoever works on the table in this process.
//
// Errors: table.ErrNotFound; table.ErrUnsupported; state.ErrFenced; what the lake's files and catalog give. A conflict
// with another committer is tried again a few times. The report tells what was done before the error.
func (o *Optimizer) Once(ctx context.Context, name string, t Type, dryRun bool) (Report, error) {
	report := Report{Table: name, DryRun: dryRun}
	s := o.state(name)
	s.work.Lock()
	defer s.work.Unlock()
	until := int64(-1) // last sequence to merge
	var full []Task
	conflicts := 0
	for len(report.Done) < onceTasks {
		l, err := o.look(ctx, s)
		if err != nil {
			return report, err
		}
		if !dryRun {
			again, err := o.lineage(ctx, s, l)
			if table.IsConflict(err) && conflicts < commitAttempts {
				conflicts++
				continue
			}
			if err != nil {
				return report, err
			}
			if again {
				continue
			}
		}
		tasks, notes := Plan(l.view, l.rules, o.options.Now(), t)
		report.Notes = notes
		if dryRun {
			for _, task := range tasks {
				report.Done = append(report.Done, Done{Task: task})
			}
			return report, nil
		}
		switch t {
		case Minor:
			if until < 0 && len(l.pending) > 0 {
				until = l.pending[len(l.pending)-1].Sequence
			}
			if len(l.pending) > 0 && l.pending[0].Sequence > until {
				tasks = nil
			}
		case Full:
			if full == nil {
				full = tasks
			}
			tasks, full = l.still(full)
		case Major:
		}
		if len(tasks) == 0 {
			return report, errors.Join(o.ended(ctx, l, t), o.caughtUp(ctx, l, s))
		}
		done, err := o.work(ctx, l, s, unit(tasks))
		report.Done = append(report.Done, done...)
		if table.IsConflict(err) && conflicts < commitAttempts {
			conflicts++
			continue
		}
		if err != nil {
			return report, err
		}
	}
	return report, fmt.Errorf("optimize %s: not done after %d tasks", name, onceTasks)
}

// ended records that a full round is over.
func (o *Optimizer) ended(ctx context.Context, l *lake, t Type) error {
	if t != Full {
		return nil
	}
	ms := fmt.Sprint(o.options.Now().UnixMilli())
	if err := l.t.SetProperties(ctx, map[string]string{table.PropLastFull: ms}); err != nil {
		return fmt.Errorf("end of full round of %s: %w", l.t.Name(), err)
	}
	return nil
}

// still returns those tasks whose data files are all live as the plan had them, the first one alone, and what comes
// after it.
func (l *lake) still(tasks []Task) (first, rest []Task) {
	for i, task := range tasks {
		live := true
		for _, f := range task.Data {
			_, ok := l.base[f.Path]
			live = live && ok
		}
		for _, f := range task.Deletes {
			_, ok := l.counts[f.Path]
			live = live && ok
		}
		if live {
			return tasks[i : i+1], tasks[i+1:]
		}
	}
	return nil, []Task{}
}

// unit returns the tasks of a plan that are to be carried out and committed first: all merges, or one other.
func unit(tasks []Task) []Task {
	n := 1
	for tasks[0].Action == Merge && n < len(tasks) && tasks[n].Action == Merge {
		n++
	}
	return tasks[:n]
}

// work carries one unit of a plan out, counts and logs it.
func (o *Optimizer) work(ctx context.Context, l *lake, s *tableState, tasks []Task) ([]Done, error) {
	who, err := o.owner(l, s)
	if err != nil {
		return nil, err
	}
	t := tasks[0].Type
	done, err := o.execute(ctx, l, tasks, s, who)
	for _, d := range done {
		o.metrics.done(d)
		o.log.Info("optimized", "table", s.name, "type", t.String(), "action", d.Task.Action.String(), "reason", d.Task.Reason,
			"snapshot", d.Snapshot, "rows_read", d.RowsRead, "rows_written", d.RowsWritten, "rows_deleted", d.RowsDeleted,
			"bytes_read", d.BytesRead, "bytes_written", d.BytesWritten, "files_added", d.FilesAdded, "files_removed", d.FilesRemoved,
			"took", d.Took)
	}
	switch {
	case err == nil:
	case table.IsConflict(err):
		o.metrics.tasks.WithLabelValues(t.String(), "conflict").Inc()
	case !errors.Is(err, context.Canceled):
		o.metrics.tasks.WithLabelValues(t.String(), "failed").Inc()
	}
	if len(done) > 0 && t == Minor {
		s.lastMinor = o.options.Now()
	}
	return done, err
}
