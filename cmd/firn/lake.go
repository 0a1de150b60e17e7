package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/merge"
	"firn/changelog/table"
	"firn/logstore"
	"firn/logstore/httpapi"
	"firn/state"
)

// lakeFlags name the lake, and with -c the data directory too: what verbs work on without a server. Without them the
// lake is where a running server says that it is.
type lakeFlags struct {
	server  string
	config  string
	catalog CatalogConfig
}

func (f *lakeFlags) add(cmd *cobra.Command) {
	serverFlag(cmd, &f.server)
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "configuration file of the server: its lake, and its data directory when it does not run")
	cmd.Flags().StringVar(&f.catalog.Type, "catalog-type", "sqlite", "kind of catalog, without -c: sqlite, sql, rest")
	cmd.Flags().StringVar(&f.catalog.Name, "catalog-name", "firn", "the catalog's name, without -c")
	cmd.Flags().StringVar(&f.catalog.URI, "catalog-uri", "", "the catalog's SQLite file, postgres://… or http(s)://…, without -c")
	cmd.Flags().StringVar(&f.catalog.Warehouse, "warehouse", "", "directory of the tables, without -c (file:…)")
}

// hasLake reports whether the flags name a lake.
func (f *lakeFlags) hasLake() bool { return f.config != "" || f.catalog.URI != "" }

// stores is what a verb has opened: the lake, the log and index through a client, or both.
type stores struct {
	catalog *table.Catalog // nil: the flags name none
	client  *client
	close   []func() error
}

// Close closes all that was opened.
func (s *stores) Close() error {
	var errs []error
	for _, c := range slices.Backward(s.close) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// open opens what the flags name: the lake if lake, the log and index if log. With -c and no server running, the data
// directory is opened in this process.
func (f *lakeFlags) open(ctx context.Context, lake, log bool) (_ *stores, err error) {
	s, cfg := &stores{}, &Config{Catalog: f.catalog}
	defer func() {
		if err != nil {
			err = cfg.hidden(errors.Join(err, s.Close()))
		}
	}()
	if f.config != "" {
		loaded, err := loadConfig(f.config)
		if err != nil {
			return nil, &exitError{exitOpen, err}
		}
		cfg = loaded
	}
	if lake {
		if err := s.openLake(ctx, cfg, f); err != nil {
			return nil, err
		}
	}
	if !log {
		return s, nil
	}
	if f.config != "" && f.server == "" {
		err = s.openLog(ctx, cfg)
	} else {
		s.client, err = newClient(f.server)
	}
	return s, err
}

func (s *stores) openLake(ctx context.Context, cfg *Config, f *lakeFlags) (err error) {
	if !f.hasLake() {
		if cfg.Catalog, err = lakeOfServer(ctx, f.server); err != nil {
			return err
		}
	}
	if cfg.Catalog, err = cfg.Catalog.readable(); err != nil {
		return &exitError{exitOpen, fmt.Errorf("catalog: %w", err)}
	}
	if s.catalog, err = openCatalog(ctx, cfg.Catalog, slog.New(slog.DiscardHandler)); err != nil {
		return &exitError{exitOpen, err}
	}
	s.close = append(s.close, s.catalog.Close)
	return nil
}

// lakeOfServer asks a running server where its lake is. This process must be able to open it there.
func lakeOfServer(ctx context.Context, server string) (CatalogConfig, error) {
	c, err := newClient(server)
	if err != nil {
		return CatalogConfig{}, err
	}
	var at httpapi.Catalog
	if err := c.getJSON(ctx, "/v1/lake", &at); err != nil {
		return CatalogConfig{}, fmt.Errorf("the lake is needed: name it with -c FILE, or with --catalog-uri FILE and --warehouse DIR, or run this beside its server: %w", err)
	}
	if at.Type != table.TypeSQLite {
		return CatalogConfig{}, &exitError{exitOpen, fmt.Errorf(
			"the server's lake is in a catalog of type %s, %s, and it tells nobody how to log in there: name its configuration with -c FILE", at.Type, at.URI)}
	}
	return CatalogConfig{Type: at.Type, Name: at.Name, URI: at.URI, Warehouse: at.Warehouse}, nil
}

// openLog opens the data directory, or the server that has it open.
func (s *stores) openLog(ctx context.Context, cfg *Config) error {
	if _, err := os.Stat(cfg.Data); err != nil {
		return &exitError{exitOpen, fmt.Errorf("data directory: %w", err)}
	}
	o := logstore.Options{MemoryBytes: int64(cfg.Limits.Memory) / 4, TrimInterval: -1, MinFreeBytes: -1}
	db, err := openData(cfg.Data, o)
	if err != nil { // most likely a server has it
		c, cerr := newClient(cfg.Listen.Data)
		if cerr != nil {
			return &exitError{exitOpen, err}
		}
		if cerr := c.getJSON(ctx, "/v1/tables", &struct{}{}); cerr != nil {
			return &exitError{exitOpen, errors.Join(err, cerr)}
		}
		s.client = c
		return nil
	}
	s.close = append(s.close, db.Close)
	registry, err := state.OpenRegistry(db.DB)
	if err != nil {
		return &exitError{exitOpen, fmt.Errorf("data directory %s: %w", cfg.Data, err)}
	}
	store, err := logstore.Open(db, registry, o)
	if err != nil {
		return &exitError{exitOpen, fmt.Errorf("data directory %s: %w", cfg.Data, err)}
	}
	s.close = append(s.close, store.Close)
	c, done, err := newLocalClient(store, registry, cfg)
	if err != nil {
		return &exitError{exitOpen, err}
	}
	s.client = c
	s.close = append(s.close, func() error { done(); return nil })
	return nil
}

// newLocalClient returns a client of the API over stores that this process has open. done ends its requests.
func newLocalClient(store *logstore.Store, registry *state.Registry, cfg *Config) (c *client, done func(), err error) {
	api, err := httpapi.New(httpapi.Options{Store: store, Registry: registry, Sources: storedSources{store, registry, cfg}})
	if err != nil {
		return nil, nil, err
	}
	calls := &handlerTransport{handler: api}
	return &client{base: "http://local", http: &http.Client{Transport: calls}}, func() {
		api.Close()
		calls.running.Wait()
	}, nil
}

// storedSources is the sources as a data directory knows them: nothing reads them.
type storedSources struct {
	store    *logstore.Store
	registry *state.Registry
	cfg      *Config
}

// Sources implements httpapi.Sources.
func (s storedSources) Sources(context.Context) ([]httpapi.SourceStatus, error) {
	names := map[string]bool{}
	for _, t := range s.registry.Tables() {
		for _, topic := range t.Topics {
			names[topic.Source] = true
		}
	}
	out := []httpapi.SourceStatus{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		status := httpapi.SourceStatus{Name: name, Kind: s.cfg.kind(name), State: "stopped", Partitions: []httpapi.PartitionStatus{}}
		positions, err := s.store.Positions(name)
		if err != nil {
			return nil, err
		}
		for _, p := range positions {
			status.Partitions = append(status.Partitions, httpapi.PartitionStatus{
				Topic: p.Topic, Partition: p.Partition, Next: p.Next, End: -1, Lag: -1,
			})
		}
		out = append(out, status)
	}
	return out, nil
}

// Source implements httpapi.Sources.
func (storedSources) Source(context.Context, string) (httpapi.SourceDetail, error) {
	return httpapi.SourceDetail{}, errStopped
}

// Pause implements httpapi.Sources.
func (storedSources) Pause(context.Context, string) error { return errStopped }

// Resume implements httpapi.Sources.
func (storedSources) Resume(context.Context, string) error { return errStopped }

// Reset implements httpapi.Sources.
func (storedSources) Reset(context.Context, string, httpapi.SourceReset) ([]httpapi.ResetStep, error) {
	return nil, errStopped
}

var errStopped = errors.New("no server runs: its sources are stopped")

// withTable opens the lake that the flags name, and calls use with one of its tables.
func (f *lakeFlags) withTable(ctx context.Context, name string, use func(*table.Table) error) (err error) {
	s, err := f.open(ctx, true, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	t, err := s.catalog.Load(ctx, name)
	if err != nil {
		return lakeError(err)
	}
	return use(t)
}

// reader returns a reader of a table's stores. schema is that of its rows; nil: the lake's current one.
func reader(ctx context.Context, t *table.Table, schema *changelog.Schema, snapshot int64, store string) (*merge.Reader, *changelog.Schema, error) {
	if schema == nil {
		schema = t.Schemas().Current()
	}
	s := merge.Snapshot{Optimized: t.Optimized()}
	files, err := filesOf(ctx, t.Base(), snapshot, store == "base")
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		if err := errors.Join(t.Base().Foreign(&f), readable(t, &f)); err != nil {
			return nil, nil, err
		}
		if f.Content == table.Data {
			s.Base = append(s.Base, flush.MergeFile(&f))
		} else {
			s.Deletes = append(s.Deletes, flush.MergeFile(&f))
		}
	}
	if t.Change() != nil && store != "base" {
		changes, err := filesOf(ctx, t.Change(), snapshot, store == "change")
		if err != nil {
			return nil, nil, err
		}
		for _, f := range changes {
			if err := errors.Join(t.Change().Foreign(&f), readable(t, &f)); err != nil && store != "base" {
				return nil, nil, err
			}
			s.Change = append(s.Change, flush.MergeFile(&f))
		}
	}
	r, err := merge.New(schema, s, flush.LakeFiles{FS: t.FS()}, merge.Options{})
	return r, schema, err
}

// readable refuses a table with a file that is not Parquet.
func readable(t *table.Table, f *table.File) error {
	if why := f.Unreadable(); why != "" {
		return fmt.Errorf("%s, file %s: %s: %w", t.Name(), f.Path, why, table.ErrUnsupported)
	}
	return nil
}

// filesOf returns the files of a store, of a snapshot of it if one is named.
func filesOf(ctx context.Context, s *table.Store, snapshot int64, named bool) ([]table.File, error) {
	if snapshot != 0 && named {
		return s.FilesAt(ctx, snapshot)
	}
	return s.Files(ctx)
}

// named returns the tables that args name, all if none.
func named(all iter.Seq[string], args []string) ([]string, error) {
	names := slices.Sorted(all)
	if len(args) == 0 {
		return names, nil
	}
	for _, a := range args {
		if !slices.Contains(names, a) {
			return nil, &exitError{exitNo, fmt.Errorf("no table %q", a)}
		}
	}
	return args, nil
}

// handlerTransport answers requests by a handler of this process: no listener, no port.
type handlerTransport struct {
	handler http.Handler
	running sync.WaitGroup
}

// RoundTrip implements http.RoundTripper.
func (t *handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	body, in := io.Pipe()
	w := &pipeWriter{header: http.Header{}, in: in, ready: make(chan struct{})}
	req := r.Clone(ctx)
	req.RequestURI = r.URL.RequestURI()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	t.running.Go(func() {
		defer cancel()
		t.handler.ServeHTTP(w, req)
		w.WriteHeader(http.StatusOK)
		_ = in.Close() // a pipe's Close reports nothing
	})
	<-w.ready
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: closing{body, cancel}, ContentLength: -1, Request: r,
	}, nil
}

// closing is a body whose Close ends its handler.
type closing struct {
	*io.PipeReader
	cancel func()
}

func (c closing) Close() error {
	c.cancel()
	return c.PipeReader.Close()
}

// pipeWriter is the http.ResponseWriter of a handlerTransport.
type pipeWriter struct {
	header, sent http.Header
	status       int
	in           *io.PipeWriter
	ready        chan struct{} // closed once status and sent are there
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	}
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.in.Write(p)
}

// Flush implements http.Flusher: a pipe holds nothing back.
func (w *pipeWriter) Flush() {}
