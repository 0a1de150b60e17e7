// Package httpapi serves what the LogStore holds over HTTP: lookups by key, change feeds, the registry of tables, parked
// records and sources. openapi.yaml is the contract; a test holds it and the handlers together.
//
// Rows have the one JSON form of package rowjson. Every answer about a table carries Firn-Applied, the SeqNum that it
// reflects, and Firn-Position, a token that a later request may wait for (min=). Errors are application/problem+json.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/logstore"
	"firn/state"
)

// Store is what the API needs of the LogStore. *logstore.Store implements it.
type Store interface {
	// Row looks one key up; a miss is not an error.
	Row(ctx context.Context, table changelog.TableID, key changelog.Key) (logstore.RowView, error)
	// Rows looks keys up, all of one moment.
	Rows(ctx context.Context, table changelog.TableID, keys []changelog.Key) ([]logstore.RowView, error)
	// Snapshot opens a consistent view of a table's rows.
	Snapshot(ctx context.Context, table changelog.TableID) (*logstore.Snapshot, error)
	// RowCount returns how many rows a table has, or had when they were counted last; known: they were.
	RowCount(ctx context.Context, table changelog.TableID) (rows int64, known bool, err error)

	// Bounds returns the oldest change held (newest+1 if none is) and the newest synced one.
	Bounds(table changelog.TableID) (oldest, applied changelog.SeqNum, err error)
	// SeqAt returns the SeqNum after which a feed from a time (µs since 1970-01-01 UTC) begins.
	SeqAt(ctx context.Context, table changelog.TableID, micros int64) (changelog.SeqNum, error)
	// Scan yields the changes in (from, to], ascending. logstore.ErrTrimmed: from+1 is no longer held.
	Scan(ctx context.Context, table changelog.TableID, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error]
	// Wait blocks until the table has a synced change after seq and returns the newest.
	Wait(ctx context.Context, table changelog.TableID, after changelog.SeqNum) (changelog.SeqNum, error)
	// WaitPosition blocks until the record at offset of a stream is applied.
	WaitPosition(ctx context.Context, stream changelog.StreamID, offset int64) error
	// WaitNative blocks until a change at or after the database's own position, such as "lsn:0/1A2B", is applied to
	// the table. logstore.ErrUnknown: its changes carry none of this kind.
	WaitNative(ctx context.Context, table changelog.TableID, native string) error

	// ParkedList yields the parked records of a table with IDs above after, ascending.
	ParkedList(ctx context.Context, table changelog.TableID, after uint64) iter.Seq2[changelog.Parked, error]
	// ParkedAll yields the parked records of all tables and of none, by table and ID.
	ParkedAll(ctx context.Context) iter.Seq2[changelog.Parked, error]
	// ParkedGet returns one parked record. logstore.ErrNoParked.
	ParkedGet(ctx context.Context, id uint64) (changelog.Parked, error)
}

// Registry is what the API needs of the registry. *state.Registry implements it.
type Registry interface {
	Tables() []*state.Table
	Table(name string) (*state.Table, bool)
	ByID(id changelog.TableID) (*state.Table, bool)
	Progress(id changelog.TableID) (state.Progress, error)
}

// ChangeFiles serves changes that the log no longer holds from the change store (P5).
type ChangeFiles interface {
	// Oldest returns the oldest change that the files hold without a gap up to the log; ok is false if there is none.
	Oldest(ctx context.Context, t *state.Table) (oldest changelog.SeqNum, ok bool, err error)
	// Scan is Store.Scan. logstore.ErrTrimmed: the files no longer reach so far back.
	Scan(ctx context.Context, t *state.Table, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error]
}

// Sources is the sources that feed the tables.
type Sources interface {
	Sources(ctx context.Context) ([]SourceStatus, error)
	// Source returns state.ErrNotFound for a source that is not there.
	Source(ctx context.Context, name string) (SourceDetail, error)
	// Pause and Resume return state.ErrNotFound for a source that is not there.
	Pause(ctx context.Context, name string) error
	Resume(ctx context.Context, name string) error
	// Reset moves positions. Errors: state.ErrNotFound for a source that is not there; a *RefusedError.
	Reset(ctx context.Context, name string, to SourceReset) ([]ResetStep, error)
}

// SourceStatus is how a source does.
type SourceStatus struct {
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`  // kafka, file, unknown
	State      string            `json:"state"` // starting, running, waiting, paused, unreachable, finished, failed
	Error      string            `json:"error,omitempty"`
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus is how one partition of a source does.
type PartitionStatus struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"position"`          // the offset to read next
	End       int64  `json:"end"`               // the offset that the broker gives next; -1: not known
	Lag       int64  `json:"lag"`               // End - Next; -1: not known
	Waiting   string `json:"waiting,omitempty"` // why it does not go on for now
}

// Lake tells about a table's stores.
type Lake interface {
	// Stores returns the stores by name: base, change.
	Stores(ctx context.Context, t *state.Table) (map[string]StoreStatus, error)
	// BaseRows returns how many rows the base store has: all that is flushed of a table without a key.
	BaseRows(ctx context.Context, t *state.Table) (int64, error)
}

// StoreStatus is one store of a table.
type StoreStatus struct {
	Location string               `json:"location"`
	Snapshot int64                `json:"snapshot"` // 0: none yet
	Sequence int64                `json:"sequence"`
	Files    map[string]FileCount `json:"files"` // by kind

	WatermarkMS int64 `json:"watermark_ms,omitempty"` // source time up to which it has all rows, ms since 1970-01-01 UTC; 0: not known
}

// FileCount sums files up.
type FileCount struct {
	Files   int64 `json:"files"`
	Bytes   int64 `json:"bytes"`
	Records int64 `json:"records"`
}

// Catalog tells where the lake is, for verbs that read it themselves: paths are absolute.
type Catalog struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	URI       string `json:"uri"`
	Warehouse string `json:"warehouse"`
}

// Optimizer runs rounds on demand.
type Optimizer interface {
	// Optimize runs one round of a kind (minor, major, full; empty: what is due) or only plans it, and returns the
	// result as JSON.
	Optimize(ctx context.Context, t *state.Table, kind string, dryRun bool) (json.RawMessage, error)
}

// Options are the parts and settings of an API.
type Options struct {
	Store    Store
	Registry Registry
	// ChangeFiles, Sources, Repairs, Lake and Optimizer may be nil: what needs them then answers 501, or leaves its part out.
	ChangeFiles ChangeFiles
	Sources     Sources
	Repairs     Repairs
	Lake        Lake
	Optimizer   Optimizer

	// Catalog is what GET /v1/lake answers; its zero value: 501.
	Catalog Catalog

	// BodyBytes bounds the body of a request. Default 8 MiB.
	BodyBytes int64
	// BatchKeys bounds the keys of one batch and the rows of one page. Default 10,000.
	BatchKeys int
	// BatchBytes bounds the answer to one batch or page: a page ends early, a batch is refused (413). Default 64 MiB.
	BatchBytes int
	// Feeds bounds the feeds and dumps open at once; more get 503. Default 1000.
	Feeds int
	// Snapshots bounds the views of whole tables (from=snapshot, dumps) open at once: each pins what it reads.
	// Default 16.
	Snapshots int
	// MaxWait bounds timeout= of a request that waits. Default 1 minute.
	MaxWait time.Duration
	// WriteTimeout ends a feed whose client takes nothing for so long. Default 30s.
	WriteTimeout time.Duration
	// Heartbeat is how often an idle feed says that it lives, unless heartbeat= tells otherwise. Default 15s.
	Heartbeat time.Duration
	// DumpKeys bounds the keys that a dump of the log folds at once: more changes take more passes. Default 250,000.
	DumpKeys int

	// Now tells the time of heartbeats. Default time.Now.
	Now func() time.Time
	// Logger receives what went wrong inside. Default: none.
	Logger *slog.Logger
	// Registerer receives the metrics. Default: none.
	Registerer prometheus.Registerer
}

// EnsureDefaults replaces zero values by defaults.
func (o *Options) EnsureDefaults() {
	setDefault(&o.BodyBytes, 8<<20)
	setDefault(&o.BatchKeys, 10_000)
	setDefault(&o.BatchBytes, 64<<20)
	setDefault(&o.Feeds, 1000)
	setDefault(&o.Snapshots, 16)
	setDefault(&o.MaxWait, time.Minute)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.Heartbeat, 15*time.Second)
	setDefault(&o.DumpKeys, 250_000)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Validate reports everything that is wrong, at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Store == nil || o.Registry == nil {
		errs = append(errs, errors.New("Store and Registry are required"))
	}
	for name, v := range map[string]int64{
		"BodyBytes": o.BodyBytes, "BatchKeys": int64(o.BatchKeys), "BatchBytes": int64(o.BatchBytes), "Feeds": int64(o.Feeds),
		"Snapshots": int64(o.Snapshots), "MaxWait": int64(o.MaxWait), "WriteTimeout": int64(o.WriteTimeout),
		"Heartbeat": int64(o.Heartbeat), "DumpKeys": int64(o.DumpKeys),
	} {
		if v < 1 {
			errs = append(errs, fmt.Errorf("%s is %d, must be positive", name, v))
		}
	}
	return errors.Join(errs...)
}

// API is the handlers. Safe for concurrent use.
type API struct {
	o         Options
	store     Store
	registry  Registry
	metrics   *metrics
	routes    []route
	tables    sync.Map // changelog.TableID to *tableView
	dated     atomic.Pointer[dated]
	feeds     chan struct{}
	snapshots chan struct{}
	bursts    chan struct{}
	closing   chan struct{} // closed by Close: feeds end
	closeOnce sync.Once
}

// New returns the API. Error: what Options.Validate reports.
func New(o Options) (*API, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("http api: %w", err)
	}
	a := &API{
		o: o, store: o.Store, registry: o.Registry, metrics: newMetrics(o.Registerer),
		feeds: make(chan struct{}, o.Feeds), snapshots: make(chan struct{}, o.Snapshots), bursts: make(chan struct{}, feedBursts), closing: make(chan struct{}),
	}
	a.routes = routesOf(a)
	return a, nil
}

// Close ends all feeds and waiting requests soon, so that http.Server.Shutdown, which waits for them, returns. Register
// it with http.Server.RegisterOnShutdown.
func (a *API) Close() { a.closeOnce.Do(func() { close(a.closing) }) }

// Register mounts the API on mux: /v1/ and /openapi.yaml. Paths with empty or dot segments, which only keys can have,
// are redirected by a ServeMux: a server without other routes uses the API as its handler.
func (a *API) Register(mux *http.ServeMux) {
	mux.Handle("/v1/", a)
	mux.Handle("/openapi.yaml", a)
}

// tableView is what is prepared once for each state of a table.
type tableView struct {
	t       *state.Table
	schema  *changelog.Schema
	encoder *rowjson.Encoder
	headers atomic.Pointer[headers] // of the newest answer
}

// table returns the view of the table called name.
func (a *API) table(name string) (*tableView, error) {
	t, ok := a.registry.Table(name)
	if !ok {
		return nil, problemf(http.StatusNotFound, "table-not-found", "no table %q: GET /v1/tables lists them", name)
	}
	return a.view(t)
}

func (a *API) view(t *state.Table) (*tableView, error) {
	if v, ok := a.tables.Load(t.ID); ok {
		if view, _ := v.(*tableView); view.t == t { // entries are immutable: the same one is the same state
			return view, nil
		}
	}
	encoder, err := rowjson.NewEncoder(t.Schemas, rowjson.Options{})
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.Name, err)
	}
	v := &tableView{t: t, schema: t.Schemas.Current(), encoder: encoder}
	a.tables.Store(t.ID, v)
	return v, nil
}

// keyed returns the view of a table that has a key.
func (a *API) keyed(name string) (*tableView, error) {
	v, err := a.table(name)
	if err == nil && len(v.schema.Key) == 0 {
		return nil, problemf(http.StatusBadRequest, "no-key",
			"table %q has no key, so no row can be looked up: read its changes (from=earliest), or its rows in the lake (firn dump --from union)", name)
	}
	return v, err
}

// encoderOf returns the encoder of the named columns; none: all.
func (v *tableView) encoderOf(columns []string, sorted bool) (*rowjson.Encoder, error) {
	if len(columns) == 0 && !sorted {
		return v.encoder, nil
	}
	e, err := rowjson.NewEncoder(v.t.Schemas, rowjson.Options{Columns: columns, Sorted: sorted})
	if errors.Is(err, rowjson.ErrColumn) {
		return nil, problemf(http.StatusBadRequest, "bad-request", "table %q, %s", v.t.Name, err.Error())
	}
	return e, err
}

// renewed returns encoder, or one of the newest schema if the table has changed since v was taken: rows that were read
// after v may be of it.
func (a *API) renewed(v *tableView, encoder *rowjson.Encoder, columns []string, sorted bool) (*rowjson.Encoder, error) {
	t, ok := a.registry.ByID(v.t.ID)
	if !ok || t == v.t {
		return encoder, nil
	}
	newer, err := a.view(t)
	if err != nil {
		return nil, err
	}
	return newer.encoderOf(columns, sorted)
}
