package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"firn/changelog"
	"firn/state"
)

// tableSummary is a table in the list of all.
type tableSummary struct {
	Name       string           `json:"name"`
	Format     string           `json:"format"`
	Key        []string         `json:"key"`
	Applied    changelog.SeqNum `json:"applied"`
	Flushed    changelog.SeqNum `json:"flushed"`
	Optimized  changelog.SeqNum `json:"optimized"`
	Rows       *int64           `json:"rows"`        // null: not counted yet; without a key, those of the lake
	LagSeconds *float64         `json:"lag_seconds"` // null: not known
}

// tableDetail is one table.
type tableDetail struct {
	tableSummary

	Oldest     changelog.SeqNum       `json:"oldest"` // the oldest change held by the log
	Schema     json.RawMessage        `json:"schema"`
	Schemas    int                    `json:"schemas"`
	Partition  []string               `json:"partition"`
	Properties map[string]string      `json:"properties"`
	Rebuilding bool                   `json:"rebuilding"`
	Sources    []tableSource          `json:"sources"`
	Stores     map[string]StoreStatus `json:"stores"`
}

// tableSource is one partition that feeds a table.
type tableSource struct {
	Source string `json:"source"`
	PartitionStatus
}

// serveTables answers GET /v1/tables.
func (a *API) serveTables(w http.ResponseWriter, r *http.Request, _ [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	sources, err := a.sources(r.Context())
	if err != nil {
		return err
	}
	list := struct {
		Tables []tableSummary `json:"tables"`
	}{Tables: []tableSummary{}}
	for _, t := range a.registry.Tables() {
		s, err := a.summary(r.Context(), t, sources)
		if err != nil {
			return err
		}
		list.Tables = append(list.Tables, s)
	}
	return writeJSON(w, list)
}

func (a *API) sources(ctx context.Context) ([]SourceStatus, error) {
	if a.o.Sources == nil {
		return nil, nil
	}
	return a.o.Sources.Sources(ctx)
}

func (a *API) summary(ctx context.Context, t *state.Table, sources []SourceStatus) (tableSummary, error) {
	s := tableSummary{Name: t.Name, Format: "mixed-iceberg", Key: t.Schemas.Current().KeyNames()}
	if format := t.Properties["format"]; format != "" {
		s.Format = format
	}
	progress, err := a.registry.Progress(t.ID)
	if err != nil {
		return s, err
	}
	s.Flushed, s.Optimized = progress.Flushed, progress.Optimized
	if _, s.Applied, err = a.store.Bounds(t.ID); err != nil {
		return s, err
	}
	if s.Rows, err = a.rowCount(ctx, t, progress.Rebuilding); err != nil {
		return s, err
	}
	s.LagSeconds, err = a.lag(ctx, t, s.Applied, sources)
	return s, err
}

// rowCount returns how many rows a table has, nil if that is not known. Rows without a key are in the lake only.
func (a *API) rowCount(ctx context.Context, t *state.Table, rebuilding bool) (rows *int64, err error) {
	rows, known := new(int64), false
	switch {
	case rebuilding:
	case t.Keyed():
		*rows, known, err = a.store.RowCount(ctx, t.ID)
	case a.o.Lake != nil:
		known = true
		*rows, err = a.o.Lake.BaseRows(ctx, t)
	}
	if err != nil || !known {
		return nil, err
	}
	return rows, nil
}

// lag is how old the newest change is while its source has more; 0 if the table has all.
func (a *API) lag(ctx context.Context, t *state.Table, applied changelog.SeqNum, sources []SourceStatus) (*float64, error) {
	var behind, known bool
	for _, p := range partitionsOf(t, sources) {
		known = known || p.Lag >= 0
		behind = behind || p.Lag > 0
	}
	if !known {
		return nil, nil //nolint:nilnil // not known
	}
	lag := new(float64)
	if !behind {
		return lag, nil
	}
	if applied == 0 {
		return nil, nil //nolint:nilnil // nothing to tell it by
	}
	for c, err := range a.store.Scan(ctx, t.ID, applied-1, applied) {
		if err != nil {
			return nil, nil //nolint:nilnil // trimmed meanwhile: not known
		}
		at := c.SourceTime
		if at == 0 {
			at = c.IngestTime
		}
		*lag = max(0, float64(a.o.Now().UnixMicro()-at)/1e6)
	}
	return lag, nil
}

func partitionsOf(t *state.Table, sources []SourceStatus) []tableSource {
	out := []tableSource{}
	for _, topic := range t.Topics {
		for _, s := range sources {
			if s.Name != topic.Source {
				continue
			}
			for _, p := range s.Partitions {
				if p.Topic == topic.Topic {
					out = append(out, tableSource{Source: s.Name, PartitionStatus: p})
				}
			}
		}
	}
	return out
}

// serveTable answers GET /v1/tables/{t}.
func (a *API) serveTable(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	v, err := a.table(args[0])
	if err != nil {
		return err
	}
	sources, err := a.sources(r.Context())
	if err != nil {
		return err
	}
	d := tableDetail{
		Schema: IcebergSchema(v.schema), Schemas: len(v.t.Schemas), Partition: v.t.Partition.Strings(), Properties: v.t.Properties,
		Sources: partitionsOf(v.t, sources),
	}
	if d.Properties == nil {
		d.Properties = map[string]string{}
	}
	if d.tableSummary, err = a.summary(r.Context(), v.t, sources); err != nil {
		return err
	}
	if d.Oldest, _, err = a.store.Bounds(v.t.ID); err != nil {
		return err
	}
	progress, err := a.registry.Progress(v.t.ID)
	if err != nil {
		return err
	}
	d.Rebuilding = progress.Rebuilding
	if a.o.Lake != nil {
		if d.Stores, err = a.o.Lake.Stores(r.Context(), v.t); err != nil {
			return fmt.Errorf("stores of table %s: %w", v.t.Name, err)
		}
	}
	v.setApplied(w.Header(), d.Applied)
	return writeJSON(w, d)
}

// writeJSON answers with what is shown by people's tools rather than in a hot path.
func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Cache-Control"] = noStore
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
	return nil
}

// serveOptimize answers POST /v1/tables/{t}/optimize.
func (a *API) serveOptimize(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	v, err := a.table(args[0])
	if err != nil {
		return err
	}
	p, err := parseQuery(query, "type", "dry_run")
	if err != nil {
		return err
	}
	kind, err := p.oneOf("type", "", "minor", "major", "full")
	if err != nil {
		return err
	}
	dryRun, err := p.boolean("dry_run", false)
	if err != nil {
		return err
	}
	if a.o.Optimizer == nil {
		return problemf(http.StatusNotImplemented, "not-available", "this server does not optimize: run firn optimize")
	}
	result, err := a.o.Optimizer.Optimize(r.Context(), v.t, kind, dryRun)
	if err != nil {
		a.o.Logger.Error("optimizing failed", "table", v.t.Name, "err", err)
		return problemf(http.StatusInternalServerError, "optimize-failed", "%s", err)
	}
	return writeJSON(w, result)
}

// serveLake answers GET /v1/lake.
func (a *API) serveLake(w http.ResponseWriter, _ *http.Request, _ [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	if a.o.Catalog == (Catalog{}) {
		return problemf(http.StatusNotImplemented, "not-available", "this process has no lake")
	}
	return writeJSON(w, a.o.Catalog)
}

// serveSources answers GET /v1/sources.
func (a *API) serveSources(w http.ResponseWriter, r *http.Request, _ [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	list := struct {
		Sources []SourceStatus `json:"sources"`
	}{Sources: []SourceStatus{}}
	sources, err := a.sources(r.Context())
	if err != nil {
		return err
	}
	for _, s := range sources {
		if s.Partitions == nil {
			s.Partitions = []PartitionStatus{}
		}
		list.Sources = append(list.Sources, s)
	}
	return writeJSON(w, list)
}

// servePause answers POST /v1/sources/{source}:pause.
func (a *API) servePause(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	return a.serveSource(w, r, args[0], query, Sources.Pause)
}

// serveResume answers POST /v1/sources/{source}:resume.
func (a *API) serveResume(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	return a.serveSource(w, r, args[0], query, Sources.Resume)
}

func (a *API) serveSource(w http.ResponseWriter, r *http.Request, name, query string, act func(Sources, context.Context, string) error) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	if a.o.Sources == nil {
		return problemf(http.StatusNotImplemented, "not-available", "this process reads no sources")
	}
	if err := act(a.o.Sources, r.Context(), name); err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return noSource(name)
		}
		return err
	}
	sources, err := a.o.Sources.Sources(r.Context())
	if err != nil {
		return err
	}
	for _, s := range sources {
		if s.Name == name {
			return writeJSON(w, s)
		}
	}
	return problemf(http.StatusNotFound, "not-found", "source %q is gone", name)
}
