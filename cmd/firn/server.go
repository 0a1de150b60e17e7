package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/table"
	"firn/ingest"
	"firn/logstore"
	"firn/logstore/httpapi"
	"firn/optimizer"
	"firn/state"
)

// server is everything that runs in `firn serve` and `firn demo`. openServer makes it, run runs it, close ends what is
// open.
type server struct {
	parts

	level   *slog.LevelVar
	metrics *prometheus.Registry

	flushers  *flush.Set
	optimizer *optimizer.Optimizer
	pipeline  *ingest.Pipeline
	api       *httpapi.API

	data, admin net.Listener
}

// openServer opens all parts of a server and listens. Each error says which setting it is about.
func openServer(ctx context.Context, cfg *Config, log *slog.Logger, level *slog.LevelVar) (_ *server, err error) {
	s := &server{parts: parts{cfg: cfg, log: log}, level: level, metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	limitHeap(int64(cfg.Limits.Memory))
	if s.data, err = listen(ctx, "listen.data", cfg.Listen.Data); err != nil {
		return nil, err
	}
	s.data = netutil.LimitListener(s.data, cfg.Limits.Connections)
	if s.admin, err = listen(ctx, "listen.admin", cfg.Listen.Admin); err != nil {
		return nil, err
	}
	if err := s.open(ctx, s.storeOptions()); err != nil {
		return nil, err
	}
	if err := s.openStages(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// gcPercent is how much the heap may grow between two collections, in percent of what is live. Medians of paired runs: a server that
// ingests, flushes and merges a million events peaks at 654 MiB with Go's own 100, at 514 with 50, at 467 with 30. Ingest alone takes
// 6.0, 6.4 and 6.6 CPU seconds.
const gcPercent = 50

// limitHeap holds the Go heap to a memory limit in bytes, with room for what is not on it. GOGC overrides.
func limitHeap(limit int64) {
	debug.SetMemoryLimit(limit / 10 * 9)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

func listen(ctx context.Context, key, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

func (s *server) storeOptions() logstore.Options {
	l := s.cfg.Limits
	return logstore.Options{
		MemoryBytes: int64(l.Memory) / 4,
		DiskBytes:   int64(l.Disk),
		ParkedBytes: int64(l.Parked),
		ParkedTable: s.cfg.parkedTable(),
		TableRetention: func(t *state.Table) logstore.Retention {
			r := s.cfg.Table(t.Name).Retention
			return logstore.Retention{Time: r.Time, Bytes: int64(r.Bytes)}
		},
		Logger: s.log, Registerer: s.metrics,
	}
}

// openData opens the Pebble instance of a data directory.
func openData(dir string, opts logstore.Options) (*logstore.DB, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	db, err := logstore.OpenDB(filepath.Join(dir, "pebble"), opts)
	switch {
	case err == nil:
		return db, nil
	case strings.Contains(err.Error(), "resource temporarily unavailable"), strings.Contains(err.Error(), "lock held"):
		return nil, fmt.Errorf("data directory %s is in use by another process: stop that one, or give this one another directory (%w)", dir, err)
	default:
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
}

// openStages makes the parts that move changes, once the lake's tables are known.
func (s *server) openStages(ctx context.Context) (err error) {
	if err := s.restoreTables(ctx); err != nil {
		return err
	}
	if err := s.checkParkedTable(ctx); err != nil {
		return err
	}
	s.flushers, err = flush.New(s.store, s.registry, s.catalog, s.flushOptions())
	if err != nil {
		return err
	}
	s.optimizer, err = optimizer.New(s.catalog, s.registry, s.optimizerOptions())
	if err != nil {
		return err
	}
	var inputs []ingest.Input
	for _, src := range s.cfg.Sources {
		in, err := newInput(src, "firn-"+s.registry.WriterID(), s.log)
		if err != nil {
			return err
		}
		inputs = append(inputs, in)
	}
	s.warnPartitions()
	tables := ingestTables{registry: s.registry, settings: s.cfg.Table, parked: s.cfg.parkedTableOf, lake: s.catalog, log: s.log}
	s.pipeline, err = ingest.New(ingestLog{s.store, s.flushers.Stopped}, tables, inputs, ingest.Options{
		Logger: s.log, Registerer: s.metrics,
	})
	if err != nil {
		return err
	}
	if err := s.metrics.Register(newStageMetrics(s.store, s.registry, s.catalog, s.pipeline.Status)); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	at, err := s.cfg.Catalog.location()
	if err != nil {
		return err
	}
	s.api, err = httpapi.New(httpapi.Options{
		Catalog: at, Store: s.store, Registry: s.registry, ChangeFiles: changeFiles{s.catalog}, Sources: sourceStatus{s.pipeline, s.cfg}, Repairs: repairs{s.pipeline}, Lake: &lakeStatus{catalog: s.catalog},
		Optimizer: optimizeNow{s.flushers, s.optimizer}, Logger: s.log, Registerer: s.metrics,
	})
	return err
}

func (s *server) flushOptions() flush.Options {
	return flush.Options{
		Table: func(name string) (time.Duration, int64) {
			f := s.cfg.Table(name).Flush
			return f.Interval, int64(f.Bytes)
		},
		Before: s.cfg.parkedTableOf,
		Logger: s.log, Registerer: s.metrics,
	}
}

func (s *server) optimizerOptions() optimizer.Options {
	return optimizer.Options{
		TableRules: func(name string) optimizer.Rules { return s.cfg.Table(name).rules() },
		Stopped:    func(id changelog.TableID) bool { return s.flushers.Stopped(id) != nil },
		Logger:     s.log, Registerer: s.metrics,
	}
}

// rules returns the optimizer's rules for tables whose own properties say nothing else.
func (t TableConfig) rules() optimizer.Rules {
	o := t.Optimize
	r := optimizer.Rules{
		Disabled: !o.Enabled, MinorInterval: o.Minor.Interval, MinorFiles: o.Minor.Files, TargetBytes: int64(o.Target),
		DuplicateRatio: o.Major.Ratio, FanIn: o.Major.Files, FullInterval: o.Full.Interval,
		ChangeTTL: o.Expire.Grace, KeepSnapshots: o.Expire.Snapshots, KeepAge: o.Expire.Age,
		Sequence: table.SequenceForm(t.Sequence),
	}
	if r.FullInterval == 0 {
		r.FullInterval = -1
	}
	return r
}

// run runs the server until ctx ends, and then drains: sources stop, commits under way finish, listeners close.
func (s *server) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.pipeline.Run(ctx) })
	g.Go(func() error { return s.flushers.Run(ctx) })
	g.Go(func() error { return s.optimizer.Run(ctx) })
	g.Go(func() error {
		return serveHTTP(ctx, s.api.Accelerate(context.WithoutCancel(ctx), s.data), s.api, s.api.Close)
	})
	a := &admin{metrics: s.metrics, ready: s.unready, reload: func() ([]string, []string, error) { return reload(s.cfg, s.level) }}
	g.Go(func() error { return serveHTTP(ctx, s.admin, a.handler(), func() {}) })
	return g.Wait()
}

// serveHTTP serves h on l until ctx ends. stopping is called when the shutdown begins, to end requests without an end.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, stopping func()) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	srv.RegisterOnShutdown(stopping)
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		done <- errors.Join(srv.Shutdown(grace), srv.Close())
	})
	err := srv.Serve(l)
	if stop() {
		return fmt.Errorf("serve %s: %w", l.Addr(), err) // it ended by itself
	}
	if err := <-done; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down %s: %w", l.Addr(), err)
	}
	return nil
}

// unready returns why the server is not ready.
func (s *server) unready() []string {
	reasons := s.pipeline.Unready()
	if err := s.store.Err(); err != nil {
		reasons = append(reasons, "log: "+err.Error())
	}
	if full, used := s.store.Full(); full {
		reasons = append(reasons, fmt.Sprintf("log: %s used, the disk limit is reached; sources wait until there is space (limits.disk)", Size(used)))
	}
	return reasons
}

// close ends what openServer opened, in the order in which the parts need each other. run has returned.
func (s *server) close() error {
	errs := []error{s.parts.close()}
	for _, l := range []net.Listener{s.data, s.admin} {
		if l == nil {
			continue
		}
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
