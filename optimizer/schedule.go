package optimizer

import (
	"context"
	"errors"
	"sync"
	"time"

	"firn/changelog/table"
	"firn/state"
)

// tick is how often the scheduler looks, in memory, at which tables are due.
const tick = 500 * time.Millisecond

// firstBackoff is the pause after a first failure.
const firstBackoff = time.Second

// Run optimizes and expires the tables of the registry until ctx ends; then it finishes what was sent to the catalog and
// returns nil. A table is worked on by one goroutine at a time, one task at a time, so that all tables get their turn.
// Failures are logged and tried again with growing pauses; one table's do not hold up the others.
func (o *Optimizer) Run(ctx context.Context) error {
	if o.reg == nil {
		return errors.New("optimizer: Run without a registry")
	}
	jobs, results := make(chan *tableState), make(chan result)
	var wg sync.WaitGroup
	for range o.options.Workers {
		wg.Go(func() {
			for s := range jobs {
				results <- o.visit(ctx, s)
			}
		})
	}
	o.schedule(ctx, jobs, results)
	close(jobs)
	wg.Wait()
	return nil
}

// schedule hands due tables to the workers until ctx ends, and waits for those that are out.
func (o *Optimizer) schedule(ctx context.Context, jobs chan<- *tableState, results <-chan result) {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	out := 0
	for ctx.Err() == nil {
		var send chan<- *tableState
		next := o.due(o.options.Now())
		if next != nil {
			send = jobs
		}
		select {
		case send <- next:
			next.busy = true
			out++
		case r := <-results:
			out--
			r.apply(o)
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	for ; out > 0; out-- {
		r := <-results
		r.s.busy = false
	}
}

// due returns the table that has been due for longest, or nil. It forgets tables that are no longer registered.
func (o *Optimizer) due(now time.Time) (next *tableState) {
	tables := o.reg.Tables()
	names := make(map[string]bool, len(tables))
	var oldest time.Time
	for _, entry := range tables {
		names[entry.Name] = true
		s := o.state(entry.Name)
		if s.busy || now.Before(s.nextTry) {
			continue
		}
		at := s.lookAt
		p, err := o.reg.Progress(entry.ID)
		switch {
		case err != nil || p.Rebuilding || o.options.Stopped(entry.ID):
			continue
		case s.again:
			at = s.nextTry
		case p.Flushed > p.Optimized && s.mergeAt.Before(at):
			at = s.mergeAt
		}
		if !at.After(now) && (next == nil || at.Before(oldest)) {
			next, oldest = s, at
		}
	}
	o.forget(names)
	return next
}

func (o *Optimizer) forget(names map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, s := range o.mu.tables {
		if !names[name] && !s.busy {
			delete(o.mu.tables, name)
			o.metrics.forget(name)
		}
	}
}

// result is what a visit of a table came to.
type result struct {
	s        *tableState
	at       time.Time
	err      error
	worked   bool
	absent   bool          // the lake does not have the table yet
	interval time.Duration // the table's Rules.MinorInterval
}

// apply plans the table's next visit.
func (r result) apply(o *Optimizer) {
	s := r.s
	s.busy, s.again = false, r.worked
	switch {
	case r.err == nil:
		s.failures, s.nextTry = 0, r.at
	case table.IsConflict(r.err) && s.failures == 0:
		s.failures, s.again, s.nextTry = 1, true, r.at // plan again at once, but once
	default:
		s.failures++
		s.nextTry = r.at.Add(backoff(s.failures, o.options.MaxBackoff))
		if errors.Is(r.err, state.ErrFenced) {
			s.nextTry = r.at.Add(o.options.MaxBackoff)
		}
	}
	s.lookAt = r.at.Add(o.options.CheckInterval)
	s.mergeAt = r.at.Add(max(r.interval/4, time.Second)) // enough files may start a merge before its interval
	if r.absent {
		s.lookAt, s.mergeAt = r.at.Add(tick), r.at.Add(tick)
	}
}

func backoff(failures int, most time.Duration) time.Duration {
	d := firstBackoff
	for range failures - 1 {
		if d *= 2; d >= most {
			return most
		}
	}
	return min(d, most)
}

// visit looks at a table and does one unit of work, or expires.
func (o *Optimizer) visit(ctx context.Context, s *tableState) (r result) {
	s.work.Lock()
	defer s.work.Unlock()
	r = result{s: s, interval: o.options.Rules.MinorInterval}
	defer func() { r.at = o.options.Now() }()
	l, err := o.look(ctx, s)
	if errors.Is(err, table.ErrNotFound) {
		r.absent = true
		return r
	}
	if err == nil {
		r.interval = l.rules.MinorInterval
		r.worked, err = o.turn(ctx, s, l)
	}
	if err == nil || ctx.Err() != nil {
		return r
	}
	r.err = err
	switch {
	case errors.Is(err, state.ErrFenced):
		o.log.Error("optimizing stopped: a newer epoch owns the table", "table", s.name, "err", err)
	case table.IsConflict(err):
		o.log.Info("optimizing is planned again", "table", s.name, "err", err)
	default:
		o.log.Warn("optimizing failed, it is tried again", "table", s.name, "err", err)
	}
	return r
}

// turn is one unit of work on a table; worked is false if there was none.
func (o *Optimizer) turn(ctx context.Context, s *tableState, l *lake) (worked bool, err error) {
	now := o.options.Now()
	if again, err := o.lineage(ctx, s, l); again || err != nil {
		return again, err
	}
	if now.Sub(s.lastExpire) >= o.options.ExpireInterval {
		s.lastExpire = now
		if _, err := o.expire(ctx, l, s, false); err != nil {
			return false, err
		}
		return true, nil // look again: the files are others
	}
	switch {
	case s.lastOrphans.IsZero():
		s.lastOrphans = now
	case o.options.OrphanAge >= 0 && now.Sub(s.lastOrphans) >= o.options.OrphanInterval:
		s.lastOrphans = now
		_, err := o.removeOrphans(ctx, l, o.options.OrphanAge, false)
		return true, err
	}
	if l.rules.Disabled {
		return false, nil
	}
	tasks, notes := Plan(l.view, l.rules, now, 0)
	for _, n := range notes {
		o.log.Warn("not optimized", "table", s.name, "reason", n)
	}
	if fullDue(l.view, l.rules, now) && (len(tasks) == 0 || tasks[0].Type != Minor) {
		return true, o.fullTurn(ctx, s, l, tasks)
	}
	if len(tasks) == 0 {
		return false, o.caughtUp(ctx, l, s)
	}
	_, err = o.work(ctx, l, s, unit(tasks))
	return err == nil, err
}

// fullTurn is one step of a full round: it carries out the plan that was made at its beginning, so that no file is written
// twice. Merges come in between.
func (o *Optimizer) fullTurn(ctx context.Context, s *tableState, l *lake, planned []Task) error {
	if s.full == nil {
		s.full = append([]Task{}, planned...)
	}
	var next []Task
	if next, s.full = l.still(s.full); len(next) > 0 {
		_, err := o.work(ctx, l, s, next)
		return err
	}
	s.full = nil
	return o.ended(ctx, l, Full)
}

// caughtUp moves the table's progress where nothing is pending: a flush may have had no rows.
func (o *Optimizer) caughtUp(ctx context.Context, l *lake, s *tableState) error {
	seq, err := l.optimized(nil)
	if err != nil || s.reg == nil {
		return err
	}
	p, err := s.reg.Progress(s.id)
	if err != nil || p.Optimized >= seq {
		return err //nolint:wrapcheck // it names the table
	}
	return s.reg.UpdateProgress(ctx, s.id, func(p *state.Progress) { p.Optimized = max(p.Optimized, seq) }) //nolint:wrapcheck // as above
}
