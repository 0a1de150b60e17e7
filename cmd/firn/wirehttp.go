package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/merge"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/ingest"
	"firn/logstore"
	"firn/logstore/httpapi"
	"firn/optimizer"
	"firn/state"
)

// This file fits the parts to the interfaces that the HTTP API declares.

// changeFiles serves changes that the log has trimmed from change files (P5).
type changeFiles struct{ catalog *table.Catalog }

// Oldest implements httpapi.ChangeFiles.
func (c changeFiles) Oldest(ctx context.Context, t *state.Table) (changelog.SeqNum, bool, error) {
	lake, err := c.catalog.Load(ctx, t.Name)
	if errors.Is(err, table.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil || !lake.Keyed() { // base files do not tell which change a row is of
		return 0, false, err
	}
	adopted, err := lake.Adopted()
	if err != nil {
		return 0, false, err
	}
	files, err := lake.Change().Files(ctx)
	if err != nil {
		return 0, false, err
	}
	oldest := changelog.SeqNum(0)
	for _, f := range files {
		if f.Predates(adopted) {
			continue
		}
		if first := changelog.SeqNum(max(f.FirstOffset, 0)); first > 0 && (oldest == 0 || first < oldest) { //nolint:gosec // not negative
			oldest = first
		}
	}
	return oldest, oldest > 0, nil
}

// Scan implements httpapi.ChangeFiles.
func (c changeFiles) Scan(ctx context.Context, t *state.Table, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		lake, err := c.catalog.Load(ctx, t.Name)
		var files *merge.Reader
		switch {
		case err == nil && !lake.Keyed():
			err = fmt.Errorf("%s has no change files: %w", t.Name, logstore.ErrTrimmed)
		case err == nil:
			files, err = feedReader(ctx, lake, from)
		}
		if err != nil {
			yield(changelog.Change{}, err)
			return
		}
		for change, err := range files.Feed(ctx, from, to) {
			if errors.Is(err, merge.ErrMissing) {
				err = fmt.Errorf("%w: %w", logstore.ErrTrimmed, err)
			}
			if !yield(change, err) || err != nil {
				return
			}
		}
	}
}

// feedReader returns a reader of a table's changes after from. Those from before its adoption have no SeqNums: the offsets in their
// files are another writer's. Error: logstore.ErrTrimmed, from is before the adoption.
func feedReader(ctx context.Context, t *table.Table, from changelog.SeqNum) (*merge.Reader, error) {
	adopted, err := t.Adopted()
	if err != nil {
		return nil, err
	}
	if from < adopted {
		return nil, fmt.Errorf("%s was adopted at change %d: changes from before have no numbers: %w", t.Name(), adopted, logstore.ErrTrimmed)
	}
	all, err := t.Change().Files(ctx)
	if err != nil {
		return nil, err
	}
	var s merge.Snapshot
	for _, f := range all {
		if !f.Predates(adopted) {
			s.Change = append(s.Change, flush.MergeFile(&f))
		}
	}
	return merge.New(t.Schemas().Current(), s, flush.LakeFiles{FS: t.FS()}, merge.Options{})
}

// sourceStatus is the pipeline's sources.
type sourceStatus struct {
	pipeline *ingest.Pipeline
	cfg      *Config
}

// Sources implements httpapi.Sources.
func (s sourceStatus) Sources(context.Context) ([]httpapi.SourceStatus, error) {
	out := []httpapi.SourceStatus{}
	for _, src := range s.pipeline.Status() {
		st := httpapi.SourceStatus{Name: src.Name, Kind: s.cfg.kind(src.Name), State: string(src.State), Error: src.Error, Partitions: []httpapi.PartitionStatus{}}
		for _, p := range src.Partitions {
			st.Partitions = append(st.Partitions, httpapi.PartitionStatus{Topic: p.Topic, Partition: p.Partition, Next: p.Next, End: p.End, Lag: p.Lag, Waiting: p.Waiting})
		}
		out = append(out, st)
	}
	return out, nil
}

// Source implements httpapi.Sources.
func (s sourceStatus) Source(ctx context.Context, name string) (httpapi.SourceDetail, error) {
	topics, err := s.pipeline.Topics(name)
	if err != nil {
		return httpapi.SourceDetail{}, sourceError(err)
	}
	all, err := s.Sources(ctx)
	if err != nil {
		return httpapi.SourceDetail{}, err
	}
	i := slices.IndexFunc(all, func(st httpapi.SourceStatus) bool { return st.Name == name }) // it is there: the pipeline has it
	d := httpapi.SourceDetail{SourceStatus: all[i], Topics: []httpapi.TopicDetail{}}
	for _, t := range topics {
		d.Topics = append(d.Topics, topicDetail(s.cfg.source(name), t))
	}
	return d, nil
}

// Pause implements httpapi.Sources.
func (s sourceStatus) Pause(ctx context.Context, name string) error {
	return sourceError(s.pipeline.Pause(ctx, name))
}

// Resume implements httpapi.Sources.
func (s sourceStatus) Resume(_ context.Context, name string) error {
	return sourceError(s.pipeline.Resume(name))
}

// Reset implements httpapi.Sources.
func (s sourceStatus) Reset(ctx context.Context, name string, to httpapi.SourceReset) ([]httpapi.ResetStep, error) {
	r := ingest.Reset{Topic: to.Topic, Partition: to.Partition}
	switch to.To {
	case "earliest":
		r.To = ingest.ResetEarliest
	case "latest":
		r.To = ingest.ResetLatest
	default:
		var err error
		if r.To, err = strconv.ParseInt(to.To, 10, 64); err != nil {
			return nil, &httpapi.RefusedError{Why: "to: " + err.Error()}
		}
	}
	steps, err := s.pipeline.Reset(ctx, name, r, to.DryRun)
	if refused, ok := errors.AsType[*ingest.ResetRefusedError](err); ok {
		return nil, &httpapi.RefusedError{Why: refused.Error()}
	}
	out := make([]httpapi.ResetStep, 0, len(steps))
	for _, st := range steps {
		out = append(out, httpapi.ResetStep{Topic: st.Topic, Partition: st.Index, Table: st.Table, From: st.From, To: st.To, Effect: st.Effect})
	}
	return out, sourceError(err)
}

func sourceError(err error) error {
	if errors.Is(err, ingest.ErrNoSource) {
		return fmt.Errorf("%w: %w", state.ErrNotFound, err)
	}
	return err
}

// repairs is what the pipeline does with parked records.
type repairs struct{ pipeline *ingest.Pipeline }

// Edit implements httpapi.Repairs.
func (r repairs) Edit(ctx context.Context, id uint64, c httpapi.ParkedChange) error {
	return repairError(r.pipeline.EditParked(ctx, id, ingest.ParkedChange(c)))
}

// Explain implements httpapi.Repairs.
func (r repairs) Explain(ctx context.Context, id uint64) (httpapi.ParkedExplanation, error) {
	e, err := r.pipeline.ExplainParked(ctx, id)
	return httpapi.ParkedExplanation{
		Rule: e.Rule, Queue: e.Queue, Superseded: e.Superseded, Now: e.Now, NowDetail: e.NowDetail,
		Key: httpapi.ParkedReading(e.Key), Value: httpapi.ParkedReading(e.Value),
	}, repairError(err)
}

// Skip implements httpapi.Repairs.
func (r repairs) Skip(ctx context.Context, id uint64, queue bool) (httpapi.RepairOutcome, error) {
	out, err := r.pipeline.SkipParked(ctx, id, queue)
	return repairOutcome(out), repairError(err)
}

// Replay implements httpapi.Repairs.
func (r repairs) Replay(ctx context.Context, id uint64, force bool) (httpapi.RepairOutcome, error) {
	out, err := r.pipeline.ReplayParked(ctx, id, force)
	return repairOutcome(out), repairError(err)
}

// ReplayTable implements httpapi.Repairs.
func (r repairs) ReplayTable(ctx context.Context, table string) (httpapi.RepairOutcome, error) {
	out, err := r.pipeline.ReplayTable(ctx, table)
	return repairOutcome(out), repairError(err)
}

func repairOutcome(o ingest.ParkedOutcome) httpapi.RepairOutcome {
	out := httpapi.RepairOutcome{Applied: o.Applied, Skipped: o.Skipped, Failed: o.Failed}
	for _, f := range o.Failures {
		out.Failures = append(out.Failures, httpapi.RepairFailure(f))
	}
	return out
}

func repairError(err error) error {
	if refused, ok := errors.AsType[*ingest.ParkedRefusedError](err); ok {
		return &httpapi.RefusedError{Why: refused.Error()}
	}
	switch {
	case errors.Is(err, ingest.ErrNoTable):
		return fmt.Errorf("%w: %w", state.ErrNotFound, err)
	case errors.Is(err, ingest.ErrTableStopped), errors.Is(err, ingest.ErrFull):
		return &httpapi.RefusedError{Why: err.Error()}
	}
	return err
}

// lakeStatus tells what the lake has of a table.
type lakeStatus struct {
	catalog *table.Catalog
	mu      sync.Mutex
	counts  map[changelog.TableID]baseCount
}

// baseCount is how many rows a snapshot of a base store has.
type baseCount struct{ snapshot, rows int64 }

// BaseRows implements httpapi.Lake.
func (l *lakeStatus) BaseRows(ctx context.Context, t *state.Table) (int64, error) {
	lake, err := l.catalog.Load(ctx, t.Name)
	if errors.Is(err, table.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	last, ok := l.counts[t.ID]
	l.mu.Unlock()
	now := baseCount{snapshot: lake.Base().SnapshotID()}
	if ok && last.snapshot == now.snapshot {
		return last.rows, nil
	}
	r, _, err := reader(ctx, lake, nil, 0, "base")
	if err == nil {
		now.rows, err = r.BaseCount(ctx)
	}
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[changelog.TableID]baseCount{}
	}
	l.counts[t.ID] = now
	return now.rows, nil
}

// Stores implements httpapi.Lake.
func (l *lakeStatus) Stores(ctx context.Context, t *state.Table) (map[string]httpapi.StoreStatus, error) {
	lake, err := l.catalog.Load(ctx, t.Name)
	if errors.Is(err, table.ErrNotFound) || errors.Is(err, table.ErrHalf) { // nothing is flushed yet
		return map[string]httpapi.StoreStatus{}, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]httpapi.StoreStatus{}
	for _, store := range lake.Stores() {
		if out[store.Kind()], err = storeStatus(ctx, store); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// fileKind names what a file holds: base, insert, delete, position-delete, equality-delete.
func fileKind(f table.File) string {
	switch f.Content {
	case table.PositionDeletes:
		return "position-delete"
	case table.EqualityDeletes:
		return "equality-delete"
	case table.Data:
	}
	switch f.Info.Type {
	case mixed.Insert:
		return "insert"
	case mixed.Delete:
		return "delete"
	default:
		return "base"
	}
}

// optimizeNow runs optimizing rounds on demand.
type optimizeNow struct {
	flushers  *flush.Set
	optimizer *optimizer.Optimizer
}

// Optimize implements httpapi.Optimizer. A round that is not a dry run begins with a flush, so that it takes in all that
// the log has.
func (o optimizeNow) Optimize(ctx context.Context, t *state.Table, kind string, dryRun bool) (json.RawMessage, error) {
	if !dryRun {
		if err := o.flushers.FlushNow(ctx, t.ID); err != nil {
			return nil, err
		}
	}
	report, err := optimize(ctx, o.optimizer, t.Name, kind, dryRun)
	if err != nil {
		return nil, err
	}
	return json.Marshal(report)
}
