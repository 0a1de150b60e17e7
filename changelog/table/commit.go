package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Commit is a flush: change files and what they bring.
type Commit struct {
	FlushMark
	// Summary is added to the snapshot's.
	Summary map[string]string
	// Add are the change files (I and ED), or in a table without a key base files. None is fine: the mark alone moves.
	Add []NewFile

	// The rest is for tables without a key, whose flushes go to the base store: position deletes, live files that go, and the
	// snapshot on which these were found (as BaseCommit.Expect; needed with them).
	AddDeletes            []NewFile
	Remove, RemoveDeletes []File
	Expect                int64
	// Marked makes a snapshot, which names the mark, although no file comes or goes; not the store's first one.
	Marked bool
}

// BaseCommit is a commit to the base store: rows of a bulk load, a minor or a major optimizing.
type BaseCommit struct {
	ID      string // unique; the same again finds what it became
	Writer  string
	Epoch   changelog.Epoch
	Summary map[string]string

	Add        []NewFile // data files
	AddDeletes []NewFile // position deletes
	// Remove and RemoveDeletes are live files to be taken out. One that is not live any more is a conflict.
	Remove, RemoveDeletes []File

	// Replace says that rows only move: the added files hold what the removed ones held (operation replace).
	Replace bool
	// DataSequence is the data sequence number of the added data files: that of the snapshot which was read to write
	// them, so that later deletes still apply. 0: the commit's own.
	DataSequence int64
	// Expect is the snapshot on which the commit was planned: any other head is a conflict. ExpectNone: no snapshot yet; 0:
	// any head will do.
	Expect int64
	// Planned, where any head will do, is the sequence number of the snapshot on which the commit was planned: a position
	// delete that came after it and may name a file in Remove is a conflict, because the row would live on in the file that
	// replaces it. 0: not looked for.
	Planned int64
	// Optimized becomes the optimized sequence of every partition: the whole map. nil: as it is. One that would go back is
	// a conflict.
	Optimized map[string]int64
	// From are the sequences that the commit's merges begin with, by partition: where the optimized sequence has reached that, somebody has
	// merged the same changes meanwhile, perhaps without a snapshot, and the commit is a conflict (spec/mixed-format.md 7.3).
	From map[string]int64
	// Sequence is where Optimized goes. "": as the base store's property PropSequence says, else SequenceAuto.
	Sequence SequenceForm
	// Watermark is the source time up to which the base store then has all rows, ms since 1970-01-01 UTC; 0, or one that the store is
	// ahead of: it stays.
	Watermark int64
}

// ExpectNone is the BaseCommit.Expect of a store without a snapshot.
const ExpectNone = -1

// commitTimeout bounds the look at what became of a commit after its own context ended.
const commitTimeout = 30 * time.Second

// maxAttempts bounds how often a commit that expects no certain head is rebuilt on a new one.
const maxAttempts = 16

// AppendChanges commits a flush to the change store (to the base store of a table without a key): one snapshot that names
// the mark, and the mark again in a property (P2). A commit that is there already, by its id, is found and not repeated.
// It has no snapshot of its own if Add is empty, unless the catalog compares snapshots; then the current one is returned, if any.
//
// Errors: ErrFenced, c.Epoch is not the newest; ConflictError, the table is not as c expects: plan again; ErrUnknownOutcome;
// after others nothing was applied.
func (t *Table) AppendChanges(ctx context.Context, c Commit) (Snapshot, error) {
	mark, err := json.Marshal(&c.FlushMark)
	if err != nil {
		return Snapshot{}, fmt.Errorf("commit %s: %w", c.CommitID, err)
	}
	summary, err := c.summary()
	if err != nil {
		return Snapshot{}, fmt.Errorf("commit %s: %w", c.CommitID, err)
	}
	s := t.flushed()
	ch, err := s.changeOf(&BaseCommit{Add: c.Add, AddDeletes: c.AddDeletes, Remove: c.Remove, RemoveDeletes: c.RemoveDeletes})
	if err != nil {
		return Snapshot{}, fmt.Errorf("commit %s: %w", c.CommitID, err)
	}
	ch.summary = merged(c.Summary, summary)
	return s.commit(ctx, plan{
		id: c.CommitID, epoch: c.Epoch, fenced: true, expect: c.Expect,
		build: func(_ context.Context, s *Store) (edit, error) {
			e := edit{properties: iceberg.Properties{PropMark: string(mark)}}
			s.setWatermark(&e, c.Watermark)
			if ch.files() > 0 || c.Marked && s.SnapshotID() != 0 || s.needsSnapshot() {
				own := *ch
				e.snapshot = &own
			}
			if s.kind == mixed.StoreBase {
				return e, s.publish(&e, publication{form: SequenceAuto})
			}
			return e, nil
		},
	})
}

// CommitBase commits to the base store: files, deletes and optimized sequences at once. A commit that is there already, by
// its id, is found and not repeated. Without files there is no new snapshot; the current one is returned, if any.
//
// Errors: ErrFenced; ConflictError, the table is not as the commit expects: plan again; ErrUnknownOutcome; ErrUnsupported,
// c.Sequence cannot be (CheckSequence).
func (t *Table) CommitBase(ctx context.Context, c BaseCommit) (Snapshot, error) {
	ours := map[string]string{
		PropCommitID: c.ID, PropWriter: c.Writer, PropEpoch: strconv.FormatUint(uint64(c.Epoch), 10),
	}
	ch, err := t.base.changeOf(&c)
	if err != nil {
		return Snapshot{}, fmt.Errorf("commit %s: %w", c.ID, err)
	}
	ch.summary = merged(c.Summary, ours)
	if c.Expect == 0 {
		for _, f := range c.AddDeletes {
			ch.mustLive = append(ch.mustLive, f.Referenced)
		}
	}
	return t.base.commit(ctx, plan{
		id: c.ID, epoch: c.Epoch, fenced: true, expect: c.Expect,
		build: func(_ context.Context, s *Store) (edit, error) {
			if err := s.merges(c.From); err != nil {
				return edit{}, err
			}
			e := edit{properties: iceberg.Properties{PropCommitID: c.ID}}
			s.setWatermark(&e, c.Watermark)
			if ch.files() > 0 || s.needsSnapshot() {
				own := *ch
				e.snapshot = &own
			}
			return e, s.publish(&e, publication{seqs: c.Optimized, form: c.Sequence, summary: ch.summary})
		},
	})
}

// merges reports a partition whose changes from a sequence on are merged already as a conflict.
func (s *Store) merges(from map[string]int64) error {
	if len(from) == 0 {
		return nil
	}
	t := &Table{catalog: s.table.catalog, id: s.table.id, base: s}
	if err := t.readOptimized(); err != nil {
		return fmt.Errorf("%s: %w", t.id, err)
	}
	for path, first := range from {
		if have, ok := t.optimized[mixed.NormalizePath(path)]; ok && have >= first {
			return &ConflictError{
				Table: t.Name(), Store: s.kind, Head: headOf(s.loaded.metadata),
				Reason: fmt.Sprintf("changes of partition %q from sequence %d on are merged up to %d already", path, first, have),
			}
		}
	}
	return nil
}

// changeOf returns what a commit does to the store's files.
func (s *Store) changeOf(c *BaseCommit) (*change, error) {
	add, err := s.dataFiles(c.Add, iceberg.EntryContentData)
	if err != nil {
		return nil, err
	}
	deletes, err := s.dataFiles(c.AddDeletes, iceberg.EntryContentPosDeletes)
	if err != nil {
		return nil, err
	}
	return &change{
		operation: operationOf(c), add: add, addDeletes: deletes, remove: paths(c.Remove), removeDeletes: paths(c.RemoveDeletes),
		dataSequence: c.DataSequence, planned: c.Planned,
	}, nil
}

// operationOf names the snapshot's operation as Iceberg's Java library does.
func operationOf(c *BaseCommit) ice.Operation {
	switch {
	case c.Replace:
		return ice.OpReplace
	case len(c.Remove) == 0 && len(c.AddDeletes) == 0 && len(c.RemoveDeletes) == 0:
		return ice.OpAppend
	case len(c.Add) == 0 && len(c.RemoveDeletes) == 0:
		return ice.OpDelete
	}
	return ice.OpOverwrite
}

// RemoveChangeFiles takes merged change files out of the change store: one snapshot with the operation delete. Files that
// are gone already are left aside; if none is left nothing is committed. The files themselves go when the snapshots that
// name them expire.
//
// Errors: ErrFenced; ErrUnsupported, a file that a reader may still need (Expirable); ErrUnknownOutcome.
func (t *Table) RemoveChangeFiles(ctx context.Context, files []File, epoch changelog.Epoch) (Snapshot, error) {
	if t.change == nil {
		return Snapshot{}, fmt.Errorf("%s has no change store: %w", t.Name(), ErrUnsupported)
	}
	now, err := t.Reload(ctx) // what is merged is asked of the base store as it is
	if err != nil {
		return Snapshot{}, err
	}
	for _, f := range files {
		if !now.Expirable(f) {
			return Snapshot{}, fmt.Errorf("change file %s is not merged: %w", f.Path, ErrUnsupported)
		}
	}
	return t.change.commit(ctx, plan{
		epoch: epoch, fenced: true,
		build: func(context.Context, *Store) (edit, error) {
			return edit{snapshot: &change{
				operation: ice.OpDelete, remove: paths(files), tolerant: true,
				summary: map[string]string{
					PropEpoch: strconv.FormatUint(uint64(epoch), 10), mixed.SummaryProducer: mixed.ProducerExpiration,
				},
			}}, nil
		},
	})
}

// RewriteManifests merges the manifests of a store, data and deletes each, if they are more than most: one snapshot
// with the operation replace. It changes no file and is not fenced.
func (t *Table) RewriteManifests(ctx context.Context, s *Store, most int) error {
	current, err := t.catalog.manifests(s.loaded.metadata.CurrentSnapshot())
	if err != nil || len(current) <= most {
		return err
	}
	_, err = s.commit(ctx, plan{build: func(_ context.Context, s *Store) (edit, error) {
		e := edit{
			snapshot: &change{
				operation: ice.OpReplace, mergeAll: true, summary: map[string]string{mixed.SummaryProducer: mixed.ProducerOptimize},
			},
			properties: iceberg.Properties{},
		}
		if s.kind == mixed.StoreBase {
			return e, s.publish(&e, publication{form: SequenceAuto})
		}
		return e, nil
	}})
	return err
}

// SetProperties changes properties of both stores, base first; an empty value removes one.
func (t *Table) SetProperties(ctx context.Context, set map[string]string) error {
	for _, s := range t.Stores() {
		_, err := s.commit(ctx, plan{build: func(context.Context, *Store) (edit, error) {
			return edit{properties: set}, nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// ClaimEpoch makes writer the table's owner under a new epoch, which is above every earlier one and at least atLeast: all
// commits under older ones fail from now on (P3). Error: ErrFenced, another claim overtook this one.
func (t *Table) ClaimEpoch(ctx context.Context, writer string, atLeast changelog.Epoch) (changelog.Epoch, error) {
	now, err := t.Reload(ctx)
	if err != nil {
		return 0, err
	}
	epoch, err := now.Epoch()
	if err != nil {
		return 0, err
	}
	epoch = max(epoch+1, atLeast)
	for _, s := range t.Stores() {
		_, err := s.commit(ctx, plan{build: func(_ context.Context, s *Store) (edit, error) {
			have, err := epochOf(s.loaded.metadata.Properties())
			if err != nil {
				return edit{}, err
			}
			if have >= epoch && s.loaded.metadata.Properties()[PropWriter] != writer {
				return edit{}, fmt.Errorf("claim epoch %d of %s: epoch %d has it: %w", epoch, s.id, have, ErrFenced)
			}
			epoch = max(epoch, have+1) // an earlier claim of ours, whose answer was lost, has come after all
			return edit{
				properties: iceberg.Properties{PropEpoch: strconv.FormatUint(uint64(epoch), 10), PropWriter: writer},
				claim:      s.needsSnapshot(),
			}, nil
		}})
		if err != nil {
			return 0, err
		}
	}
	return epoch, nil
}

// SyncSchemas is SyncSchemasUnder without an epoch: for who owns no table, such as tests and tools.
func (t *Table) SyncSchemas(ctx context.Context, history changelog.Schemas) error {
	return t.syncSchemas(ctx, history, plan{})
}

// SyncSchemasUnder brings both stores to the schemas of history, one schema a step, base first, so that their lists never
// differ by more than one. Schemas that are there already must be the same, ids included.
//
// Errors: ErrFenced, epoch is not the newest; ErrUnsupported, a schema differs from the one of the same id.
func (t *Table) SyncSchemasUnder(ctx context.Context, history changelog.Schemas, epoch changelog.Epoch) error {
	return t.syncSchemas(ctx, history, plan{epoch: epoch, fenced: true})
}

func (t *Table) syncSchemas(ctx context.Context, history changelog.Schemas, p plan) error {
	for _, want := range history {
		for _, s := range t.Stores() {
			if err := s.syncSchema(ctx, want, p); err != nil {
				return fmt.Errorf("schema %d of %s: %w", want.ID, s.id, err)
			}
		}
	}
	return nil
}

func (s *Store) syncSchema(ctx context.Context, want *changelog.Schema, p plan) error {
	schema := icebergSchema(want, false)
	if ok, err := hasSchema(s.loaded.metadata, schema); ok || err != nil {
		return err
	}
	p.build = func(_ context.Context, s *Store) (edit, error) {
		md := s.loaded.metadata
		if ok, err := hasSchema(md, schema); ok || err != nil {
			return edit{}, err
		}
		if len(md.Schemas()) != schema.ID {
			return edit{}, fmt.Errorf("the table has %d schemas: %w", len(md.Schemas()), ErrUnsupported)
		}
		if again := slices.IndexFunc(md.Schemas(), schema.Equals); again >= 0 { // would become current in place of a new one
			return edit{}, fmt.Errorf("it is schema %d again, which Iceberg does not keep twice: %w", md.Schemas()[again].ID, ErrUnsupported)
		}
		return edit{updates: []ice.Update{ice.NewAddSchemaUpdate(schema), ice.NewSetCurrentSchemaUpdate(-1)}}, nil
	}
	_, err := s.commit(ctx, p)
	return err
}

// hasSchema reports whether a table has the schema already. Error: ErrUnsupported, it has another one of the id.
func hasSchema(md ice.Metadata, want *iceberg.Schema) (bool, error) {
	for _, have := range md.Schemas() {
		if have.ID != want.ID {
			continue
		}
		if !sameSchema(have, want) {
			return false, fmt.Errorf("the table has another one: %w", ErrUnsupported)
		}
		return true, nil
	}
	return false, nil
}

// plan is one commit to a store, to be built on whatever the store is when its turn comes.
type plan struct {
	id     string // empty: maintenance, which is not looked for
	epoch  changelog.Epoch
	fenced bool
	expect int64 // as BaseCommit.Expect
	// build says what to change. It may be called again on a newer store.
	build func(ctx context.Context, s *Store) (edit, error)
}

// edit is what a commit changes.
type edit struct {
	snapshot   *change // nil: no snapshot
	properties iceberg.Properties
	updates    []ice.Update
	puffin     *puffinMaps // nil: no statistics go with the snapshot
	claim      bool        // move epochRef
}

// needsSnapshot reports that a commit which no other may overtake, or come after unseen, has to make a snapshot although it
// changes no files: the catalog compares nothing else (backend.comparesSnapshots).
func (s *Store) needsSnapshot() bool { return s.table.catalog.backend.comparesSnapshots() }

// commit carries a plan out: on the store as it is in the catalog now, not as s has it. It returns the new snapshot, or the
// current one if the plan makes none.
func (s *Store) commit(ctx context.Context, p plan) (Snapshot, error) {
	leave, err := s.table.catalog.enter(ctx, s.id)
	if err != nil {
		return Snapshot{}, err
	}
	defer leave()
	for attempt := 1; ; attempt++ {
		snap, err := s.try(ctx, p)
		if !errors.Is(err, errMoved) {
			return snap, err
		}
		if p.expect != 0 || attempt == maxAttempts {
			return Snapshot{}, &ConflictError{Table: s.table.Name(), Store: s.kind, Want: max(p.expect, 0), Reason: "another commit came first"}
		}
	}
}

// try is one attempt of commit. Error: errMoved, besides those of commit.
func (s *Store) try(ctx context.Context, p plan) (Snapshot, error) {
	now, err := s.reload(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	if snap, ok := now.find(p.id); ok {
		return snap, nil
	}
	if err := now.check(p); err != nil {
		return Snapshot{}, err
	}
	e, err := p.build(ctx, now)
	if err != nil {
		return Snapshot{}, err
	}
	made, updates, err := now.updatesOf(ctx, e)
	if err != nil {
		return Snapshot{}, err
	}
	if len(updates) == 0 {
		return now.currentSnapshot(), nil
	}
	var after loaded
	err = s.table.catalog.options.Hook(ctx, Attempt{Table: s.table.Name(), Store: s.kind, ID: p.id}, func() (err error) {
		after, err = s.table.catalog.backend.commit(ctx, s.id, now.loaded, updates)
		return err
	})
	if err != nil {
		return now.resolve(ctx, p, made, err)
	}
	if err := now.confirm(ctx, p, made, after); err != nil {
		return Snapshot{}, err
	}
	if made != nil && e.snapshot != nil {
		return snapshotOf(made.snapshot), nil
	}
	now.loaded = after
	return now.currentSnapshot(), nil
}

// confirm looks for a commit that the catalog says it has made (P2): on its word the log is trimmed and old files go. Where it cannot
// be looked at, its word stands. Error: ErrUnknownOutcome, the commit is not there.
func (s *Store) confirm(ctx context.Context, p plan, made *produced, after loaded) error {
	now, err := s.reload(ctx)
	if err != nil || now.loaded.location == after.location && after.location != "" {
		return nil
	}
	if _, ok := now.find(p.id); ok || now.has(made) {
		return nil
	}
	for e := range now.loaded.metadata.PreviousFiles() { // another commit came after it
		if e.MetadataFile == after.location {
			return nil
		}
	}
	return fmt.Errorf("commit %q to %s: the catalog says that it is made, and does not have it: look after the catalog before its log is lost: %w",
		p.id, s.id, ErrUnknownOutcome)
}

// has reports whether the store has a snapshot that was made for it.
func (s *Store) has(made *produced) bool {
	return made != nil && s.loaded.metadata.SnapshotByID(made.snapshot.SnapshotID) != nil
}

// resolve finds out what became of a commit on s that ended in an error (P2): it looks for the commit's id, or for its
// snapshot, in the table as it is, and takes no catalog's word for it that nothing was done.
func (s *Store) resolve(ctx context.Context, p plan, made *produced, cause error) (Snapshot, error) {
	backend, fs := s.table.catalog.backend, s.table.catalog.fs
	if errors.Is(cause, errUnsent) {
		made.discard(fs)
		return Snapshot{}, cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	now, err := s.reload(ctx)
	if errors.Is(err, ErrNotFound) && errors.Is(cause, errRefused) { // dropped meanwhile
		made.discard(fs)
		return Snapshot{}, cause
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("commit %q to %s: %w: %w", p.id, s.id, ErrUnknownOutcome, errors.Join(cause, err))
	}
	if snap, ok := now.find(p.id); ok {
		return snap, nil
	}
	if now.has(made) {
		return snapshotOf(made.snapshot), nil
	}
	switch {
	case errors.Is(cause, errMoved), errors.Is(cause, errRefused):
		made.discard(fs)
		return Snapshot{}, cause
	case !backend.settled(s.loaded, now.loaded):
		return Snapshot{}, fmt.Errorf("commit %q to %s: %w: it is not there yet: %w", p.id, s.id, ErrUnknownOutcome, cause)
	}
	// (The manifests stay, to be found by the orphan cleaner.)
	return Snapshot{}, fmt.Errorf("commit %q to %s: %w", p.id, s.id, cause)
}

// reload returns the store as it is now.
func (s *Store) reload(ctx context.Context) (*Store, error) {
	l, err := s.table.catalog.backend.load(ctx, s.id)
	if err != nil {
		return nil, err
	}
	return &Store{table: s.table, id: s.id, kind: s.kind, loaded: l}, nil
}

// find looks for a commit by its id: in the snapshots, and in the properties that the newest one of its kind has left.
func (s *Store) find(id string) (Snapshot, bool) {
	if id == "" {
		return Snapshot{}, false
	}
	md := s.loaded.metadata
	all := md.Snapshots()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Summary != nil && all[i].Summary.Properties[PropCommitID] == id {
			return snapshotOf(&all[i]), true
		}
	}
	var mark FlushMark
	if v := md.Properties()[PropMark]; v != "" && json.Unmarshal([]byte(v), &mark) == nil && mark.CommitID == id {
		return s.currentSnapshot(), true
	}
	return s.currentSnapshot(), md.Properties()[PropCommitID] == id
}

// check refuses a plan that the store as it is does not allow.
func (s *Store) check(p plan) error {
	if err := checkVersion(s.id, s.loaded.metadata); err != nil { // upgraded since the table was loaded
		return err
	}
	epoch, err := epochOf(s.loaded.metadata.Properties())
	if err != nil {
		return fmt.Errorf("%s: %w", s.id, err)
	}
	if p.fenced && epoch > p.epoch { // P3
		return fmt.Errorf("commit %q to %s under epoch %d: epoch %d has it: %w", p.id, s.id, p.epoch, epoch, ErrFenced)
	}
	head := headOf(s.loaded.metadata)
	if p.expect == ExpectNone && head != 0 || p.expect > 0 && p.expect != head {
		return &ConflictError{Table: s.table.Name(), Store: s.kind, Want: max(p.expect, 0), Head: head, Reason: "the head has moved"}
	}
	return nil
}

// publication is what a commit to the base store says of the optimized sequences.
type publication struct {
	seqs    map[string]int64 // nil: they stay
	form    SequenceForm
	summary map[string]string // of a snapshot that is made for them alone
}

// publish adds the optimized sequences to an edit of the base store: as a property, or as Puffin statistics where the
// table has them there or is to have them.
func (s *Store) publish(e *edit, p publication) error {
	t := &Table{catalog: s.table.catalog, id: s.table.id, base: s}
	if err := t.readOptimized(); err != nil {
		return fmt.Errorf("%s: %w", t.id, err)
	}
	form, err := s.sequenceForm(p.form)
	if err != nil {
		return err
	}
	if err := t.CheckSequence(form); err != nil {
		return err
	}
	seqs := p.seqs
	if seqs != nil {
		seqs = make(map[string]int64, len(p.seqs))
		for path, n := range p.seqs {
			seqs[mixed.NormalizePath(path)] = n
		}
		for path, have := range t.optimized {
			if n, ok := seqs[path]; ok && n < have {
				return &ConflictError{
					Table: t.Name(), Store: s.kind, Head: headOf(s.loaded.metadata),
					Reason: fmt.Sprintf("optimized sequence of partition %q would go back from %d to %d", path, have, n),
				}
			}
		}
	}
	if t.puffin || form == SequencePuffin && s.table.keyed() {
		return s.publishPuffin(e, t, seqs, p.summary)
	}
	if seqs == nil {
		return nil
	}
	props, err := mixed.ParsePartitionProperties(s.loaded.metadata.Properties()[mixed.PropPartitions])
	if err != nil {
		return fmt.Errorf("%s: %w", t.id, err)
	}
	props.SetOptimized(seqs)
	e.properties[mixed.PropPartitions] = props.String()
	return nil
}

func (s *Store) currentSnapshot() Snapshot {
	if cur := s.Snapshot(); cur != nil {
		return *cur
	}
	return Snapshot{}
}

func paths(files []File) map[string]bool {
	set := make(map[string]bool, len(files))
	for _, f := range files {
		set[f.Path] = true
	}
	return set
}

// merged returns the union of two maps; ours wins.
func merged(user, ours map[string]string) map[string]string {
	m := make(map[string]string, len(user)+len(ours))
	maps.Copy(m, user)
	maps.Copy(m, ours)
	return m
}
