// Package state holds what must survive a crash around the data itself: the registry of tables, how far each has been
// flushed and optimized, and the position index of the base store. It shares one Pebble instance with logstore; the
// keys are in keyspace, the values are drawn in FORMAT.md. Each change of state is one synced batch.
package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"firn/changelog"
	"firn/state/keyspace"
)

// FormatVersion is the version of all that firn keeps in its Pebble instance. It only rises; an older firn refuses a
// newer directory. Written to disk.
const FormatVersion = 1

const (
	metaFormat    = "format"
	metaWriter    = "writer"
	metaNextTable = "next-table"
)

// Registry is the tables of one data directory. Reads come from memory and take no I/O. Safe for concurrent use.
type Registry struct {
	db     *pebble.DB
	writer string

	placing placing

	mu struct {
		sync.RWMutex
		next     changelog.TableID
		tables   map[changelog.TableID]*Table
		byName   map[string]*Table
		byTopic  map[TopicRef]*Table
		sorted   []*Table
		progress map[changelog.TableID]Progress
		changed  chan struct{}
	}
}

// OpenRegistry reads the registry of db and makes the writer id of a new one. Errors: ErrNewerFormat, ErrCorrupt, I/O.
func OpenRegistry(db *pebble.DB) (*Registry, error) {
	r := &Registry{db: db}
	r.mu.tables, r.mu.byName = map[changelog.TableID]*Table{}, map[string]*Table{}
	r.mu.byTopic, r.mu.progress = map[TopicRef]*Table{}, map[changelog.TableID]Progress{}
	r.mu.changed = make(chan struct{})
	if err := r.openFormat(); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	return r, nil
}

func (r *Registry) openFormat() error {
	format, err := r.meta(metaFormat)
	if err != nil {
		return err
	}
	if format == "" {
		r.writer, r.mu.next = newUUID(), 1
		b := r.db.NewBatch()
		defer b.Close()
		return errors.Join(b.Set(keyspace.Meta(nil, metaFormat), []byte(strconv.Itoa(FormatVersion)), nil),
			b.Set(keyspace.Meta(nil, metaWriter), []byte(r.writer), nil), b.Commit(pebble.Sync))
	}
	if v, err := strconv.Atoi(format); err != nil {
		return fmt.Errorf("format version %q: %w", format, ErrCorrupt)
	} else if v > FormatVersion {
		return fmt.Errorf("format version %d, this firn knows %d: %w", v, FormatVersion, ErrNewerFormat)
	}
	if r.writer, err = r.meta(metaWriter); err != nil {
		return err
	}
	next, err := r.meta(metaNextTable)
	if err != nil || next == "" {
		r.mu.next = 1
		return err
	}
	n, err := strconv.ParseUint(next, 10, 32)
	if err != nil {
		return fmt.Errorf("next table id %q: %w", next, ErrCorrupt)
	}
	r.mu.next = changelog.TableID(n)
	return nil
}

// meta returns a value of the meta space, or "".
func (r *Registry) meta(name string) (string, error) {
	v, closer, err := r.db.Get(keyspace.Meta(nil, name))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	value := string(v) // before Close, in a statement of its own: the order of the two is not defined
	return value, closer.Close()
}

func (r *Registry) load() error {
	err := r.each(keyspace.SpaceTable, func(_, value []byte) error {
		t := &Table{}
		if err := decode(value, t); err != nil {
			return err
		}
		for _, s := range t.Schemas {
			if err := s.Index(); err != nil {
				return fmt.Errorf("table %s, schema %d: %w: %w", t.Name, s.ID, ErrCorrupt, err)
			}
		}
		if len(t.Schemas) == 0 {
			return fmt.Errorf("table %s has no schema: %w", t.Name, ErrCorrupt)
		}
		r.putLocked(t)
		return nil
	})
	if err != nil {
		return err
	}
	return r.each(keyspace.SpaceProgress, func(key, value []byte) error {
		var p Progress
		if err := decode(value, &p); err != nil {
			return err
		}
		for id := range r.mu.tables {
			if string(keyspace.Shard(nil, keyspace.SpaceProgress, id, 0)) == string(key) {
				r.mu.progress[id] = p
			}
		}
		return nil
	})
}

// each calls visit for the pairs of a space in key order.
func (r *Registry) each(space keyspace.Space, visit func(key, value []byte) error) error {
	prefix := []byte{byte(space)}
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: keyspace.End(nil, prefix)})
	if err != nil {
		return err
	}
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = visit(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Error(), it.Close())
}

func (r *Registry) putLocked(t *Table) {
	if old := r.mu.tables[t.ID]; old != nil {
		r.dropLocked(old)
	}
	r.mu.tables[t.ID], r.mu.byName[t.Name] = t, t
	for _, topic := range t.Topics {
		r.mu.byTopic[topic] = t
	}
	r.mu.next = max(r.mu.next, t.ID+1)
	r.sortLocked()
}

func (r *Registry) dropLocked(t *Table) {
	delete(r.mu.tables, t.ID)
	delete(r.mu.byName, t.Name)
	for _, topic := range t.Topics {
		delete(r.mu.byTopic, topic)
	}
	r.sortLocked()
}

func (r *Registry) sortLocked() {
	r.mu.sorted = slices.SortedFunc(maps.Values(r.mu.tables), func(a, b *Table) int { return strings.Compare(a.Name, b.Name) })
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// WriterID returns the random UUID of this data directory, made when it was.
func (r *Registry) WriterID() string { return r.writer }

// Changed returns a channel that is closed at the next change of a table (not of progress). To miss nothing, take the
// channel first and read the tables then.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.changed
}

// Tables returns all tables, sorted by name. The caller must not change the slice.
func (r *Registry) Tables() []*Table {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.mu.sorted
}

// Table returns the table called name.
func (r *Registry) Table(name string) (*Table, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t, ok := r.mu.byName[name]
	return t, ok
}

// ByID returns the table with the id.
func (r *Registry) ByID(id changelog.TableID) (*Table, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t, ok := r.mu.tables[id]
	return t, ok
}

// ByTopic returns the table that the topic of a source feeds.
func (r *Registry) ByTopic(source, topic string) (*Table, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t, ok := r.mu.byTopic[TopicRef{Source: source, Topic: topic}]
	return t, ok
}

// Create is CreatePartitioned without partitions.
func (r *Registry) Create(ctx context.Context, name string, schema *changelog.Schema, topic TopicRef, props map[string]string) (*Table, error) {
	return r.CreatePartitioned(ctx, name, schema, nil, topic, props)
}

// CreatePartitioned makes a table that topic feeds (the zero TopicRef: none does). schema is schema 0 and is kept, and partition
// bound to it. Errors: ErrExists for the name or the topic, changelog.ErrPartition, I/O.
func (r *Registry) CreatePartitioned(ctx context.Context, name string, schema *changelog.Schema, partition changelog.PartitionSpec,
	topic TopicRef, props map[string]string,
) (*Table, error) {
	t := Table{Name: name, Schemas: changelog.Schemas{schema}, Properties: maps.Clone(props)}
	if len(partition) > 0 {
		var err error
		if t.Partition, err = partition.Bind(schema); err != nil {
			return nil, fmt.Errorf("create table %s: %w", name, err)
		}
	}
	if topic != (TopicRef{}) {
		t.Topics = []TopicRef{topic}
	}
	return r.insert(ctx, t, Progress{}, nil)
}

// Restore makes a table that the lake has, with its history, progress and the source positions of its last flush, in
// one batch (P4). t.ID is ignored: the table gets the next one. Errors: ErrExists, I/O.
func (r *Registry) Restore(ctx context.Context, t Table, p Progress, positions []changelog.StreamPosition) (*Table, error) {
	return r.insert(ctx, *t.clone(), p, positions)
}

func (r *Registry) insert(ctx context.Context, t Table, p Progress, positions []changelog.StreamPosition) (*Table, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, s := range t.Schemas {
		if int(s.ID) != i {
			return nil, fmt.Errorf("create table %s: schema %d of its history has id %d", t.Name, i, s.ID)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.freeLocked(&t); err != nil {
		return nil, fmt.Errorf("create table %s: %w", t.Name, err)
	}
	t.ID = r.mu.next
	if t.Created == 0 {
		t.Created = time.Now().UnixMicro()
	}
	b := r.db.NewBatch()
	defer b.Close()
	next := strconv.FormatUint(uint64(t.ID)+1, 10)
	err := errors.Join(r.setTable(b, &t), r.setProgress(b, t.ID, p),
		b.Set(keyspace.Meta(nil, metaNextTable), []byte(next), nil))
	for _, pos := range positions {
		err = errors.Join(err, b.Set(keyspace.Source(nil, pos.StreamID), AppendPosition(nil, pos.Next), nil))
	}
	if err = errors.Join(err, commit(b, err)); err != nil {
		return nil, fmt.Errorf("create table %s: %w", t.Name, err)
	}
	r.putLocked(&t)
	r.mu.progress[t.ID] = p
	return &t, nil
}

func (r *Registry) freeLocked(t *Table) error {
	if r.mu.byName[t.Name] != nil {
		return ErrExists
	}
	for _, topic := range t.Topics {
		if other := r.mu.byTopic[topic]; other != nil {
			return fmt.Errorf("topic %s of source %s feeds %s: %w", topic.Topic, topic.Source, other.Name, ErrExists)
		}
	}
	return nil
}

// AddSchema appends s to the table's history; s.ID is the length of the history so far, and s is kept. Errors:
// ErrNotFound; ErrExists, the history has that many already; a schema that cannot follow (changelog.Schemas.Follows); I/O.
func (r *Registry) AddSchema(ctx context.Context, id changelog.TableID, s *changelog.Schema) (*Table, error) {
	return r.update(ctx, id, func(t *Table) error {
		if int(s.ID) != len(t.Schemas) {
			return fmt.Errorf("schema %d after a history of %d: %w", s.ID, len(t.Schemas), ErrExists)
		}
		if err := t.Schemas.Follows(s); err != nil {
			return err
		}
		t.Schemas = append(t.Schemas, s)
		return nil
	})
}

// AddTopic lets one more topic feed the table; one that does already is no error. Errors: ErrNotFound, ErrExists: the
// topic feeds another table, I/O.
func (r *Registry) AddTopic(ctx context.Context, id changelog.TableID, topic TopicRef) (*Table, error) {
	return r.update(ctx, id, func(t *Table) error {
		switch other := r.mu.byTopic[topic]; {
		case other == nil:
			t.Topics = append(t.Topics, topic)
		case other.ID != id:
			return fmt.Errorf("topic %s of source %s feeds %s: %w", topic.Topic, topic.Source, other.Name, ErrExists)
		}
		return nil
	})
}

// SetProperties sets properties of the table; an empty value removes one. Errors: ErrNotFound, I/O.
func (r *Registry) SetProperties(ctx context.Context, id changelog.TableID, props map[string]string) (*Table, error) {
	return r.update(ctx, id, func(t *Table) error {
		if t.Properties == nil {
			t.Properties = map[string]string{}
		}
		for k, v := range props {
			if v == "" {
				delete(t.Properties, k)
			} else {
				t.Properties[k] = v
			}
		}
		return nil
	})
}

// update applies change to a copy of the table and stores it. change is called with the lock held.
func (r *Registry) update(ctx context.Context, id changelog.TableID, change func(*Table) error) (*Table, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.mu.tables[id]
	if old == nil {
		return nil, notFound(id)
	}
	t := old.clone()
	if err := change(t); err != nil {
		return nil, fmt.Errorf("table %s: %w", t.Name, err)
	}
	b := r.db.NewBatch()
	defer b.Close()
	err := r.setTable(b, t)
	if err = errors.Join(err, commit(b, err)); err != nil {
		return nil, fmt.Errorf("table %s: %w", t.Name, err)
	}
	r.putLocked(t)
	return t, nil
}

// Drop removes the table and all that is stored of it here; the lake is not touched. With an open logstore.Store, call
// its Drop instead. Errors: ErrNotFound, I/O.
func (r *Registry) Drop(ctx context.Context, id changelog.TableID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.mu.tables[id]
	if t == nil {
		return notFound(id)
	}
	b := r.db.NewBatch()
	defer b.Close()
	var err error
	for _, space := range keyspace.TableSpaces() {
		prefix := keyspace.Table(nil, space, id)
		err = errors.Join(err, b.DeleteRange(prefix, keyspace.End(nil, prefix), nil))
	}
	if err = errors.Join(err, commit(b, err)); err != nil {
		return fmt.Errorf("drop table %s: %w", t.Name, err)
	}
	r.dropLocked(t)
	delete(r.mu.progress, id)
	return nil
}

// Progress returns how far the table has gone. Error: ErrNotFound.
func (r *Registry) Progress(id changelog.TableID) (Progress, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.mu.tables[id] == nil {
		return Progress{}, notFound(id)
	}
	return r.mu.progress[id], nil
}

// UpdateProgress changes the table's progress and syncs it. change is called with the registry locked: it must not
// call the registry. Errors: ErrNotFound, I/O.
func (r *Registry) UpdateProgress(ctx context.Context, id changelog.TableID, change func(*Progress)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := r.db.NewBatch()
	defer b.Close()
	return r.commitProgress(b, id, change)
}

// commitProgress commits b together with a change of progress.
func (r *Registry) commitProgress(b *pebble.Batch, id changelog.TableID, change func(*Progress)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.tables[id] == nil {
		return notFound(id)
	}
	p := r.mu.progress[id]
	change(&p)
	err := r.setProgress(b, id, p)
	if err = errors.Join(err, commit(b, err)); err != nil {
		return fmt.Errorf("progress of table %s: %w", r.mu.tables[id].Name, err)
	}
	r.mu.progress[id] = p
	return nil
}

func (r *Registry) setTable(b *pebble.Batch, t *Table) error {
	v, err := encode(t)
	if err != nil {
		return err
	}
	return b.Set(keyspace.Table(nil, keyspace.SpaceTable, t.ID), v, nil)
}

func (r *Registry) setProgress(b *pebble.Batch, id changelog.TableID, p Progress) error {
	v, err := encode(p)
	if err != nil {
		return err
	}
	return b.Set(keyspace.Shard(nil, keyspace.SpaceProgress, id, 0), v, nil)
}

// commit syncs b unless building it has failed.
func commit(b *pebble.Batch, err error) error {
	if err != nil {
		return nil //nolint:nilerr // the caller reports it
	}
	return b.Commit(pebble.Sync)
}

// newUUID returns a random (version 4) UUID as text.
func newUUID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails: crypto/rand ends the process instead
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
