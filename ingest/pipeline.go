package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Input is a source and where its topics go.
type Input struct {
	Source Source
	Routes []Route // the first that matches a topic; the default route if none does
	// Schemas is where records of the formats with a registry have their schemas. Needed by routes with such a format.
	Schemas Schemas
	// ReplayWindow is Options.ReplayWindow of this source. Default: that of the pipeline.
	ReplayWindow int
}

// Pipeline takes the changes of sources into the log. New makes one, Run runs it.
type Pipeline struct {
	log     Log
	tables  Tables
	opts    Options
	metrics *metrics
	runners []*runner
	logger  *slog.Logger
	repair  chan struct{} // has one element while somebody edits, skips or replays parked records

	mu struct {
		sync.Mutex
		tables map[string]*table
	}
}

// ErrNoSource says that no source has that name.
var ErrNoSource = errors.New("ingest: no such source")

// New returns a pipeline. Error: something in inputs or o is not valid.
func New(log Log, tables Tables, inputs []Input, o Options) (*Pipeline, error) {
	o.EnsureDefaults()
	errs := []error{o.Validate()}
	p := &Pipeline{log: log, tables: tables, opts: o, metrics: newMetrics(o.Registerer), logger: o.Logger, repair: make(chan struct{}, 1)}
	p.mu.tables = map[string]*table{}
	names := map[string]bool{}
	for _, in := range inputs {
		valid := true
		setDefault(&in.ReplayWindow, o.ReplayWindow)
		if in.ReplayWindow < 0 || in.ReplayWindow > maxWindow {
			errs = append(errs, fmt.Errorf("source %s: replay window %d is not between 0 and %d", in.Source.Name(), in.ReplayWindow, maxWindow))
			valid = false
		}
		for i := range in.Routes {
			if err := errors.Join(in.Routes[i].Validate(), in.needsSchemas(&in.Routes[i])); err != nil {
				errs = append(errs, fmt.Errorf("source %s: %w", in.Source.Name(), err))
				valid = false
			}
		}
		if names[in.Source.Name()] {
			errs = append(errs, fmt.Errorf("source %s is there twice", in.Source.Name()))
		}
		names[in.Source.Name()] = true
		if valid {
			p.runners = append(p.runners, newRunner(p, in))
		}
	}
	return p, errors.Join(errs...)
}

// needsSchemas returns an error if a route's format takes a registry that is not there.
func (in *Input) needsSchemas(r *Route) error {
	if in.Schemas == nil && r.Decode.NeedsSchemas() {
		return fmt.Errorf("route %q: its format needs a schema registry", r.Topic)
	}
	return nil
}

// Run reads all sources until ctx ends or they have no more data, and returns nil then. What was submitted is durable
// when it returns. An error is final: the log, the registry or a source cannot go on.
func (p *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range p.runners {
		g.Go(func() error { return r.run(ctx) })
	}
	return g.Wait()
}

// Pause stops reading a source and returns when nothing of it is read any more; what was read is durable then. A source
// stays paused until Resume. Error: ErrNoSource.
func (p *Pipeline) Pause(ctx context.Context, source string) error {
	r, err := p.runner(source)
	if err != nil {
		return err
	}
	return r.pause(ctx)
}

// Resume goes on reading a paused source, and one that has partitions or tables that stopped, from the positions that the log has.
// Error: ErrNoSource.
func (p *Pipeline) Resume(source string) error {
	r, err := p.runner(source)
	if err != nil {
		return err
	}
	r.resume()
	return nil
}

func (p *Pipeline) runner(source string) (*runner, error) {
	for _, r := range p.runners {
		if r.source.Name() == source {
			return r, nil
		}
	}
	return nil, fmt.Errorf("source %q: %w", source, ErrNoSource)
}

func (p *Pipeline) table(name string) *table {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.mu.tables[name]
	if t == nil {
		t = &table{name: name, tables: p.tables, metrics: p.metrics, appends: make(chan struct{}, 1), marks: make(chan struct{}, 1)}
		p.mu.tables[name] = t
	}
	return t
}

// stopWait bounds how long a stop waits for the sync of what is submitted.
const stopWait = 30 * time.Second
