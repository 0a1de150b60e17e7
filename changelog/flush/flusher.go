package flush

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// Log is what a Flusher needs of the LogStore. *logstore.Store implements it.
type Log interface {
	// Scan yields the changes of a table in (from, to], ascending; an error comes last.
	Scan(ctx context.Context, id changelog.TableID, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error]
	// Wait blocks until a table has a change after the given one and returns the newest, or ctx's error.
	Wait(ctx context.Context, id changelog.TableID, after changelog.SeqNum) (changelog.SeqNum, error)
	// Bounds returns the oldest and the newest change that a table's log holds.
	Bounds(id changelog.TableID) (oldest, applied changelog.SeqNum, err error)
	// Positions returns how far the streams of a source are applied. What it returns is covered by the SeqNums that Bounds
	// returns afterwards.
	Positions(source string) ([]changelog.StreamPosition, error)
}

// Registry is what a Flusher needs of the table registry. *state.Registry implements it.
type Registry interface {
	ByID(id changelog.TableID) (*state.Table, bool)
	Table(name string) (*state.Table, bool)
	Progress(id changelog.TableID) (state.Progress, error)
	UpdateProgress(ctx context.Context, id changelog.TableID, change func(*state.Progress)) error
	WriterID() string
	// Place keeps the types of the key as they are until done is called: files are placed by their hash.
	Place(ctx context.Context, id changelog.TableID) (done func(), err error)
}

// Catalog is what a Flusher needs of the lake. *table.Catalog implements it.
type Catalog interface {
	CreatePartitioned(ctx context.Context, name string, schema *changelog.Schema, partition changelog.PartitionSpec,
		props map[string]string) (*table.Table, error)
	Load(ctx context.Context, name string) (*table.Table, error)
}

// ErrDiverged reports a table whose last flush in the lake is not one that this data directory can have made: the log
// or the lake was put back to an earlier state. Nothing is written; a person must decide.
var ErrDiverged = errors.New("flush: the lake and the data directory have diverged")

// Flusher brings the log of one table into its change store. Run is called once; Flush only while Run is not running.
type Flusher struct {
	id       changelog.TableID
	name     string
	log      Log
	registry Registry
	catalog  Catalog
	o        *Options
	metrics  *metrics
	slots    chan struct{} // bounds the flushes that write at a time
	logger   *slog.Logger

	lake      *table.Table // nil: not loaded, or not there yet
	recovered bool
	epoch     changelog.Epoch
	positions positions // of the last commit
	times     sourceTimes
	pending   *prepared // written, and not known to be committed
	perChange int64     // estimated bytes
	// badBuckets is the complaint of the log about the table's bucket property; "": none.
	badBuckets string
	nudge      chan chan<- error
	done       chan struct{} // closed when Run returns

	// flushNow flushes another table of the Set.
	flushNow func(ctx context.Context, id changelog.TableID) error
}

// prepared is a commit whose files are durable.
type prepared struct {
	batch   *batch
	commit  table.Commit
	placed  func() // Registry.Place's
	unknown bool   // an attempt to commit it ended without an answer: the files may be in the lake (P2)
}

// Run flushes until ctx ends: a batch closes Options.Interval after its first change or when it is large enough.
// Whatever may pass is tried again with a growing delay. It returns nil after a clean stop; what is not flushed stays in
// the log.
//
// Errors, all permanent: state.ErrFenced, another writer owns the table (P3); ErrDiverged; state.ErrNotFound, the table
// was dropped.
func (f *Flusher) Run(ctx context.Context) error {
	defer close(f.done)
	backoff := f.o.MinBackoff
	for {
		err := f.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return errors.Join(permanent(err), f.release())
		case err == nil:
			backoff = f.o.MinBackoff
			continue
		case permanent(err) != nil:
			return errors.Join(err, f.release())
		}
		f.metrics.errors.WithLabelValues(f.name).Inc()
		f.logger.Warn("flush failed, will be tried again", slog.Any("err", err), slog.Duration("in", backoff))
		if !sleep(ctx, backoff) {
			return f.release()
		}
		backoff = min(2*backoff, f.o.MaxBackoff)
	}
}

// permanent returns err if trying again is of no use, else nil.
func permanent(err error) error {
	if errors.Is(err, state.ErrFenced) || errors.Is(err, ErrDiverged) || errors.Is(err, state.ErrNotFound) {
		return err
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// turn waits for a batch to close, or for a nudge, and flushes.
func (f *Flusher) turn(ctx context.Context) error {
	if !f.recovered {
		if err := f.recover(ctx); err != nil {
			return err
		}
	}
	var answer chan<- error
	if f.pending == nil {
		var err error
		if answer, err = f.await(ctx); err != nil {
			return err
		}
	}
	_, err := f.Flush(ctx)
	if answer != nil {
		answer <- err
	}
	return err
}

// pollEvery is how often a closing batch's size is looked at.
const pollEvery = 100 * time.Millisecond

// await returns when there is a batch to flush.
func (f *Flusher) await(ctx context.Context) (answer chan<- error, err error) {
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return nil, fmt.Errorf("flush %s: %w", f.name, err)
	}
	first := make(chan error, 1)
	waitCtx, cancel := context.WithCancel(ctx)
	go func() {
		_, err := f.log.Wait(waitCtx, f.id, p.Flushed)
		first <- err
	}()
	defer func() {
		cancel()
		if first != nil {
			<-first //nolint:errcheck // the wait was ended: its error is ours
		}
	}()
	select {
	case answer := <-f.nudge:
		return answer, nil
	case err := <-first:
		first = nil
		if err != nil {
			return nil, fmt.Errorf("flush %s: %w", f.name, err)
		}
	}
	interval, poll := time.NewTimer(f.o.Interval), time.NewTicker(min(pollEvery, f.o.Interval))
	defer interval.Stop()
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case answer := <-f.nudge:
			return answer, nil
		case <-interval.C:
			return nil, nil
		case <-poll.C:
		}
		_, applied, err := f.log.Bounds(f.id)
		if err != nil {
			return nil, fmt.Errorf("flush %s: %w", f.name, err)
		}
		n := int64(applied) - int64(p.Flushed) //nolint:gosec // SeqNums are dense from 1
		f.metrics.pending.WithLabelValues(f.name).Set(float64(n))
		if n >= int64(f.o.MaxRows) || n*f.perChange >= f.o.MaxBytes {
			return nil, nil
		}
	}
}

// Flush flushes one batch now, up to the limits of the Options, and returns up to which change the lake has all. It does
// nothing if the log has nothing new. Errors: those of Run, and what may pass.
func (f *Flusher) Flush(ctx context.Context) (changelog.SeqNum, error) {
	if !f.recovered {
		if err := f.recover(ctx); err != nil {
			return 0, err
		}
	}
	var r reach
	if f.pending == nil {
		var err error
		if r, err = f.reach(ctx); err != nil {
			return 0, fmt.Errorf("flush %s: %w", f.name, err)
		}
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	for try := 1; ; try++ {
		if f.pending == nil {
			if err := f.prepare(ctx, r); err != nil {
				return 0, err
			}
		}
		if f.pending == nil {
			break
		}
		err := f.commit(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, errAgain) || try == maxPrepared {
			return 0, err
		}
	}
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return 0, fmt.Errorf("flush %s: %w", f.name, err)
	}
	return p.Flushed, nil
}

// maxPrepared is how often a flush is prepared at once, where the optimizer commits in between.
const maxPrepared = 4

// reach is how far a flush may go.
type reach struct {
	applied changelog.SeqNum
	read    []changelog.StreamPosition // covered by applied
}

// reach returns how far the next flush may go: all that the table's parked records get by the same appends is in the lake when
// it returns.
func (f *Flusher) reach(ctx context.Context) (r reach, err error) {
	entry, ok := f.registry.ByID(f.id)
	if !ok {
		return reach{}, state.ErrNotFound
	}
	// Positions first: all that they cover is in the log up to the applied change that is asked for afterwards. The parked table
	// last: its rows are there before the positions and changes of the same append.
	if r.read, err = f.read(entry); err != nil {
		return reach{}, err
	}
	if _, r.applied, err = f.log.Bounds(f.id); err != nil {
		return reach{}, err
	}
	p, err := f.registry.Progress(f.id)
	if err != nil || r.applied <= p.Flushed || f.o.Before == nil {
		return r, err
	}
	return r, f.flushBefore(ctx, f.o.Before(f.name))
}

// flushBefore returns when the lake has all that the log has of a table now.
func (f *Flusher) flushBefore(ctx context.Context, name string) error {
	first, ok := f.registry.Table(name)
	if !ok || first.ID == f.id {
		return nil
	}
	_, applied, err := f.log.Bounds(first.ID)
	for starting := 0; err == nil; {
		var p state.Progress
		if p, err = f.registry.Progress(first.ID); err == nil && p.Flushed >= applied {
			return nil
		}
		if err == nil {
			err = f.flushNow(ctx, first.ID)
		}
		if errors.Is(err, state.ErrNotFound) && starting < maxStarting && sleep(ctx, pollEvery) {
			starting++ // the table is new, and the Set is about to run its Flusher
			err = nil
		}
	}
	// What is wrong with that table is no reason to stop this one for good: what it needs is there once the other is mended.
	return fmt.Errorf("%s has to be flushed first: %w", name, retryable{err})
}

// maxStarting is how many times a Flusher that does not run yet is looked for.
const maxStarting = 10

// retryable hides from permanent what an error is.
type retryable struct{ err error }

func (e retryable) Error() string { return e.err.Error() }

// prepare writes the files of the next batch, up to r. Where the log has no rows it leaves pending nil.
func (f *Flusher) prepare(ctx context.Context, r reach) (err error) {
	p, err := f.registry.Progress(f.id)
	if err != nil {
		return fmt.Errorf("flush %s: %w", f.name, err)
	}
	applied := r.applied
	if applied <= p.Flushed {
		return nil
	}
	placed, err := f.registry.Place(ctx, f.id)
	if err != nil {
		return fmt.Errorf("flush %s: %w", f.name, err)
	}
	defer func() {
		if f.pending == nil {
			placed()
		}
	}()
	// The schema of every applied row was in the registry before the row was applied.
	entry, ok := f.registry.ByID(f.id)
	if !ok {
		return fmt.Errorf("flush %s: %w", f.name, state.ErrNotFound)
	}
	if err := f.ready(ctx, entry); err != nil {
		return fmt.Errorf("flush %s: %w", f.name, err)
	}
	started := time.Now()
	b, err := f.newBatch(entry, applied-p.Flushed)
	if err != nil {
		return fmt.Errorf("flush %s: %w", f.name, err)
	}
	defer func() {
		if f.pending == nil {
			err = errors.Join(err, b.abort())
		}
	}()
	changes, l := f.log.Scan(ctx, f.id, p.Flushed, applied), limits{rows: f.o.MaxRows, bytes: f.o.MaxBytes}
	if !f.lake.Keyed() {
		if err := b.survey(ctx, p.Flushed, changes, l); err != nil {
			return fmt.Errorf("flush %s after %d: %w", f.name, p.Flushed, err)
		}
	}
	to, seen, err := b.fill(ctx, p.Flushed, changes, l)
	if err != nil {
		return fmt.Errorf("flush %s after %d: %w", f.name, p.Flushed, err)
	}
	add, err := b.finish()
	if err != nil {
		return fmt.Errorf("flush %s (%d, %d]: %w", f.name, p.Flushed, to, err)
	}
	c := table.Commit{
		FlushMark: table.FlushMark{CommitID: uuid.NewString(), Writer: f.registry.WriterID(), Epoch: f.epoch, From: p.Flushed, To: to},
		Add:       add,
	}
	if !f.lake.Keyed() {
		if err := f.take(ctx, b, &c); err != nil {
			return fmt.Errorf("flush %s (%d, %d]: %w", f.name, p.Flushed, to, err)
		}
	}
	f.perChange = max(1, b.bytes/int64(to-p.Flushed)) //nolint:gosec // not negative
	f.metrics.seconds.WithLabelValues(f.name).Observe(time.Since(started).Seconds())
	at := positions{}
	at.advance(f.positions.sorted())
	at.advance(seen.sorted())
	if to == applied {
		at.advance(r.read)
	}
	c.Positions = at.sorted()
	for id, ms := range f.times {
		b.times.raise(id, ms)
	}
	b.times.mark(&c.FlushMark)
	f.pending = &prepared{batch: b, commit: c, placed: placed}
	return nil
}

// read returns how far the streams that feed the table are applied.
func (f *Flusher) read(entry *state.Table) ([]changelog.StreamPosition, error) {
	topics, sources := map[state.TopicRef]bool{}, map[string]bool{}
	for _, t := range entry.Topics {
		topics[t], sources[t.Source] = true, true
	}
	var out []changelog.StreamPosition
	for source := range sources {
		all, err := f.log.Positions(source)
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if topics[state.TopicRef{Source: p.Source, Topic: p.Topic}] {
				out = append(out, p)
			}
		}
	}
	return out, nil
}

// newBatch returns the batch of n changes. Error: ErrDiverged, the lake's table has other partitions than ours.
func (f *Flusher) newBatch(entry *state.Table, n changelog.SeqNum) (*batch, error) {
	spec, err := f.lake.Partition()
	if err != nil {
		return nil, err
	}
	if !spec.Equal(entry.Partition) {
		return nil, fmt.Errorf("the lake's table is partitioned by %q, this data directory's by %q: start with an empty data directory "+
			"to take the table over as it is: %w", spec.Strings(), entry.Partition.Strings(), ErrDiverged)
	}
	buckets, least := f.bucketsFor(entry, n)
	b := newBatch(f.lake, entry.Schemas, buckets, f.o.File)
	of, err := f.lake.Partitioner(entry.Schemas.Current())
	if err != nil {
		return nil, err
	}
	if of != nil {
		b.partition(of, entry.Schemas, least)
	}
	return b, nil
}

// bucketsFor returns over how many nodes a batch of n changes is spread, and how many rows a partition must have to be.
func (f *Flusher) bucketsFor(entry *state.Table, n changelog.SeqNum) (buckets, least int) {
	buckets, least = f.o.Buckets, f.o.BucketRows
	if change := f.lake.Change(); change != nil {
		set, ok, err := mixed.ParseBuckets(change.Properties(), mixed.PropChangeBuckets)
		switch {
		case err != nil:
			if f.badBuckets != err.Error() {
				f.badBuckets = err.Error()
				f.logger.Warn("table property ignored", "err", err)
			}
		case ok:
			buckets, least = min(set, maxBuckets), 0
		}
	}
	if n < changelog.SeqNum(least) { //nolint:gosec // positive
		return 1, least
	}
	return mixed.Buckets(entry.Schemas, buckets), least
}

// maxBuckets bounds the files that are open at a time. Files of fewer nodes than a property says are right, too: readers go
// by their names.
const maxBuckets = 256

// ready loads the lake's table, or creates it, and gives it the schemas that it lacks.
func (f *Flusher) ready(ctx context.Context, entry *state.Table) error {
	if f.lake == nil {
		t, err := f.catalog.CreatePartitioned(ctx, f.name, entry.Schemas[0], entry.Partition, entry.Properties)
		if errors.Is(err, table.ErrExists) { // an earlier try, whose answer was lost, or somebody else
			return fmt.Errorf("%w: %w", f.unrecover(), err)
		}
		if err != nil {
			return err
		}
		f.lake = t
		f.logger.Info("table created in the lake")
	}
	if f.epoch == 0 {
		if err := f.claim(ctx); err != nil {
			return err
		}
	}
	return f.syncSchemas(ctx, entry.Schemas)
}

// syncSchemas gives both stores the schemas of history that they lack (P3: under our epoch).
func (f *Flusher) syncSchemas(ctx context.Context, history changelog.Schemas) error {
	if f.lake.InStep(len(history)) {
		return nil
	}
	err := f.lake.SyncSchemasUnder(ctx, history, f.epoch)
	if errors.Is(err, table.ErrFenced) {
		return fmt.Errorf("%w: %w", state.ErrFenced, err)
	}
	if err != nil {
		return err
	}
	return f.reload(ctx)
}

var errRecover = errors.New("recover first")

// unrecover makes the next try begin with recover.
func (f *Flusher) unrecover() error {
	f.recovered, f.lake = false, nil
	return errRecover
}

// commit commits what is pending and then, only then, moves the progress (P2, P5). The files stay as long as they
// might be in the lake.
func (f *Flusher) commit(ctx context.Context) error {
	p := f.pending
	started := time.Now()
	// A commit that is on its way is waited for, also by who is told to stop.
	send, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.o.CommitTimeout)
	defer cancel()
	snap, err := f.lake.AppendChanges(send, p.commit)
	outcome := table.Outcome(err)
	f.metrics.committed(outcome, time.Since(started))
	switch outcome {
	case "committed":
	case "fenced":
		err = fmt.Errorf("flush %s (%d, %d] under epoch %d: %w: %w", f.name, p.commit.From, p.commit.To, f.epoch, state.ErrFenced, err)
		if !p.unknown { // AppendChanges looks for the commit before it looks at the epoch: it is not there
			f.dropPending()
			err = errors.Join(err, p.batch.abort())
		}
		return err
	case "conflict":
		err = fmt.Errorf("flush %s (%d, %d]: %w", f.name, p.commit.From, p.commit.To, err)
		if p.commit.Expect == 0 {
			return err
		}
		// Rows were found on a head that is gone: neither this attempt nor an earlier one can land on it any more.
		f.dropPending()
		return errors.Join(errAgain, err, p.batch.abort())
	case "unknown":
		p.unknown = true
		fallthrough
	default:
		return fmt.Errorf("flush %s (%d, %d]: %w", f.name, p.commit.From, p.commit.To, err)
	}
	if err := f.advance(send, &p.commit.FlushMark, snap.Sequence); err != nil {
		return err // the same commit is found again by its id
	}
	f.dropPending()
	f.report(p, snap)
	return nil
}

// dropPending ends what is pending: it is committed, or will not be by this process.
func (f *Flusher) dropPending() {
	if f.pending != nil {
		f.pending.placed()
	}
	f.pending = nil
}

// advance records a commit that is in the lake.
func (f *Flusher) advance(ctx context.Context, m *table.FlushMark, sequence int64) error {
	err := f.registry.UpdateProgress(ctx, f.id, func(p *state.Progress) {
		p.Flushed, p.CommitID, p.ChangeSequence = m.To, m.CommitID, sequence
		if !f.lake.Keyed() {
			p.Optimized = m.To // it went to the base store
		}
	})
	if err != nil {
		return fmt.Errorf("flush %s (%d, %d], progress: %w", f.name, m.From, m.To, err)
	}
	f.positions = positions{}
	f.positions.advance(m.Positions)
	f.times = sourceTimes{}
	f.times.take(m)
	return nil
}

func (f *Flusher) report(p *prepared, snap table.Snapshot) {
	size := int64(0)
	for _, file := range p.commit.Add {
		size += file.Bytes
	}
	f.metrics.rows.WithLabelValues(f.name).Add(float64(p.commit.To - p.commit.From))
	f.metrics.bytes.WithLabelValues(f.name).Add(float64(size))
	f.metrics.files.WithLabelValues(f.name).Add(float64(len(p.commit.Add)))
	f.metrics.pending.WithLabelValues(f.name).Set(0)
	f.logger.Debug("flushed", slog.Uint64("from", uint64(p.commit.From)), slog.Uint64("seq", uint64(p.commit.To)),
		slog.String("commit", p.commit.CommitID), slog.Int64("snapshot", snap.ID), slog.Int64("bytes", size))
}

// release removes the files of a commit that was never sent, or is known not to have landed. One whose outcome is
// unknown keeps them: the next start finds out (P2).
func (f *Flusher) release() error {
	p := f.pending
	f.dropPending()
	if p == nil || p.unknown {
		return nil
	}
	return p.batch.abort()
}

func (f *Flusher) reload(ctx context.Context) error {
	t, err := f.catalog.Load(ctx, f.name)
	if err != nil {
		return err
	}
	f.lake = t
	return nil
}
