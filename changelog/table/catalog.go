// Package table keeps mixed tables in an Iceberg catalog: it creates them, lists their files, and commits to them. It is
// the only user of the Iceberg library, and of that only for metadata, manifests and file statistics: snapshots are
// put together here, one way for all kinds of commit, so that a commit
//
//   - goes through a compare-and-swap on the whole metadata, which a claimed epoch moves, too (P3);
//   - is found again by its id after an answer was lost (P2);
//   - publishes data, optimized sequence and flush mark at once;
//   - keeps manifests few, and snapshots that carry Amoro's marks marked.
//
// A *Table is what the catalog had when it was loaded; commits load afresh and leave it as it is. Everything is safe for
// concurrent use; commits to one store queue up.
package table

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Options of a Catalog.
type Options struct {
	// Type is the kind of catalog: TypeSQLite and TypeSQL, Iceberg's JDBC catalog in a SQLite file or in PostgreSQL; TypeREST,
	// Iceberg's REST catalog. Default TypeSQLite.
	Type string
	// Name is the catalog's name in the rows of a SQL catalog: other users of the same tables must give the same. Default "firn".
	Name string
	// URI is the SQLite file; postgres://USER@HOST/DATABASE; or http(s)://HOST/PATH. Required.
	URI string
	// Warehouse is the directory of new tables. Required, except for TypeREST, whose server says where tables go.
	Warehouse string
	// Client are the properties of a REST catalog's client: token, credential, oauth2-server-uri, scope, prefix, warehouse, tls.ca,
	// header.NAME. They may hold secrets.
	Client map[string]string
	// FS is where the tables' files are; a SQLite file is always the disk's. Default: the disk. Tests lose power in it.
	FS vfs.FS
	// Properties are given to new tables, on both stores, before a table's own.
	Properties map[string]string
	// ManifestsMax is how many manifests of one kind a snapshot may name before a commit merges them. Default 64.
	ManifestsMax int
	// Logger. Default: none.
	Logger *slog.Logger
	// Now is the clock of snapshots. Default time.Now.
	Now func() time.Time
	// Hook is called round each commit. Tests lose answers and race writers in it. Default: none.
	Hook Hook
}

// Attempt is one try of a commit, as a Hook sees it.
type Attempt struct {
	Table string // namespace.name of the base store
	Store string // mixed.StoreBase or mixed.StoreChange
	ID    string // the commit's id; empty: maintenance
}

// Hook stands between a commit and the catalog: it calls commit, or not, and returns what the committer shall see.
type Hook func(ctx context.Context, a Attempt, commit func() error) error

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	if o.Type == "" {
		o.Type = TypeSQLite
	}
	if o.Name == "" {
		o.Name = "firn"
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.ManifestsMax == 0 {
		o.ManifestsMax = 64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Hook == nil {
		o.Hook = func(_ context.Context, _ Attempt, commit func() error) error { return commit() }
	}
}

// Validate reports all settings that are wrong.
func (o *Options) Validate() error {
	var errs []error
	if !slices.Contains([]string{TypeSQLite, TypeSQL, TypeREST}, o.Type) {
		errs = append(errs, fmt.Errorf("catalog type %q is not %s, %s or %s", o.Type, TypeSQLite, TypeSQL, TypeREST))
	}
	if o.Type != TypeREST && len(o.Client) > 0 {
		errs = append(errs, fmt.Errorf("catalog type %s has no client properties", o.Type))
	}
	if o.URI == "" {
		errs = append(errs, errors.New("catalog URI is empty"))
	}
	if o.Warehouse == "" && o.Type != TypeREST {
		errs = append(errs, errors.New("warehouse is empty"))
	}
	if o.ManifestsMax < 2 {
		errs = append(errs, fmt.Errorf("manifests max %d is below 2", o.ManifestsMax))
	}
	return errors.Join(errs...)
}

// Catalog is an open catalog.
type Catalog struct {
	options   Options
	warehouse string // as a URI, without a slash at the end; not used where a server says where tables go
	backend   backend
	fs        FS

	mu struct {
		sync.Mutex
		queues map[ident]chan struct{} // one place a store: who is in it commits
	}
}

// Open opens a catalog. The tables of a SQL catalog, and a SQLite file, are made if they are missing.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open catalog: %w", err)
	}
	c := &Catalog{options: o, fs: newFS(o.FS)}
	c.mu.queues = make(map[ident]chan struct{})
	if o.Type != TypeREST {
		dir, err := local(o.Warehouse)
		if err == nil {
			dir, err = filepath.Abs(dir)
		}
		if err != nil {
			return nil, fmt.Errorf("open catalog: warehouse: %w", err)
		}
		if err := c.fs.mkdirs(dir); err != nil {
			return nil, err
		}
		c.warehouse = "file://" + filepath.ToSlash(dir)
	}
	var err error
	if c.backend, err = openBackend(ctx, &c.options, c.fs); err != nil {
		return nil, err
	}
	return c, nil
}

// Close releases the catalog. No call may be under way.
func (c *Catalog) Close() error { return c.backend.close() }

// FS returns the file system of the catalog's tables.
func (c *Catalog) FS() FS { return c.fs }

// List returns the names of all mixed tables, sorted; also of tables whose metadata cannot be read, because nobody can tell what they
// are: Load does.
func (c *Catalog) List(ctx context.Context) ([]string, error) {
	ids, err := c.backend.list(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, id := range ids {
		l, err := c.backend.load(ctx, id)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrScheme) { // dropped meanwhile; or not on this disk, so not ours
			continue
		}
		if errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			names = append(names, id.String())
			continue
		}
		if err != nil {
			return nil, err
		}
		if mixed.StoreOf(l.metadata.Properties()) == mixed.StoreBase {
			names = append(names, id.String())
		}
	}
	return names, nil
}

// Create is CreatePartitioned without partitions.
func (c *Catalog) Create(ctx context.Context, name string, schema *changelog.Schema, props map[string]string) (*Table, error) {
	return c.CreatePartitioned(ctx, name, schema, nil, props)
}

// CreatePartitioned creates a table with the schema, which must be the first of its history (SchemaID 0), and keeps its field ids.
// A schema without a key makes a table without a change store. props come after Options.Properties and before what the
// format demands. Both stores have the partition spec (id 0, field ids from 1000).
//
// In a SQL catalog both stores appear at once or not at all, also when the process is killed meanwhile; in a REST catalog
// where the server can do that. Else the change store is made first: alone it is no table to anybody, and whoever creates the
// table next, this process or another, takes it up if it is as it was made. So nothing is ever taken away that somebody
// else may be using. A base store that names a missing change store (not ours: we make none) and was never written to is completed.
//
// Errors: ErrExists; ErrHalf, the change store of a table in use is missing; ErrUnsupported, a name, key or partition spec that
// the format cannot carry (mixed.BadKey, mixed.BadPartition); ErrScheme, the catalog's server puts tables elsewhere than on the local disk.
func (c *Catalog) CreatePartitioned(
	ctx context.Context, name string, schema *changelog.Schema, partition changelog.PartitionSpec, props map[string]string,
) (*Table, error) {
	id, err := parseIdent(name)
	if err != nil {
		return nil, err
	}
	if schema.ID != 0 {
		return nil, fmt.Errorf("create %s: schema %d is not the first: %w", name, schema.ID, ErrUnsupported)
	}
	if column, why := mixed.BadKey(schema, props); column != "" {
		return nil, fmt.Errorf("create %s: key column %q: %s: %w", name, column, why, ErrUnsupported)
	}
	if partition, err = CheckPartition(partition, schema); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	changeID, now, key := ident{id.namespace, mixed.ChangeName(id.name)}, c.options.Now(), schema.KeyNames()
	// (Asked first: a location is not to be written to beside a table that lives there.)
	if have, err := c.backend.load(ctx, id); err == nil {
		return c.complete(ctx, id, have)
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	base, err := c.newStore(id, schema, partition, props, mixed.BaseProperties(key, changeID.String(), now))
	if err != nil {
		return nil, err
	}
	stores := []newTable{base}
	if len(key) > 0 {
		change, err := c.newStore(changeID, schema, partition, props, mixed.ChangeProperties(key, now))
		if err != nil {
			return nil, fmt.Errorf("change store: %w", err)
		}
		have, err := c.backend.load(ctx, changeID)
		switch {
		case err == nil && unused(have.metadata, change.md): // an earlier creation was cut short
		case err == nil:
			return nil, fmt.Errorf("create %s: its change store %s: %w", name, changeID, ErrExists)
		case errors.Is(err, ErrNotFound):
			stores = []newTable{change, base}
		default:
			return nil, err
		}
	}
	if err := c.backend.create(ctx, stores...); err != nil {
		return nil, err
	}
	t, err := c.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, s := range t.Stores() {
		if !sameSchema(s.loaded.metadata.CurrentSchema(), base.md.CurrentSchema()) {
			return nil, fmt.Errorf("create %s: the catalog has changed the field ids of %s: %w", name, s.id, ErrCorrupt)
		}
	}
	return t, nil
}

// unused reports whether a change store is as want, which creation makes, and was never written to.
func unused(have, want ice.Metadata) bool {
	hp, wp := have.Properties(), want.Properties()
	return mixed.StoreOf(hp) == mixed.StoreChange && slices.Equal(mixed.KeyColumns(hp), mixed.KeyColumns(wp)) &&
		untouched(have) && len(have.Schemas()) == len(want.Schemas()) && sameSchema(have.CurrentSchema(), want.CurrentSchema()) &&
		have.PartitionSpec().Equals(want.PartitionSpec())
}

// untouched reports whether a store never had a snapshot or an owner.
func untouched(md ice.Metadata) bool {
	return len(md.Snapshots()) == 0 && md.Properties()[PropEpoch] == "" && md.Properties()[PropMark] == ""
}

// complete is Create where the base store is there: it adds a change store that is missing to a base store that was never
// written to. Error: ErrExists, nothing was missing.
func (c *Catalog) complete(ctx context.Context, id ident, base loaded) (*Table, error) {
	exists := fmt.Errorf("create %s: %w", id, ErrExists)
	_, err := c.tableOf(ctx, id, base)
	if !errors.Is(err, ErrHalf) {
		return nil, exists
	}
	md := base.metadata
	if !untouched(md) {
		return nil, fmt.Errorf("%w: it was written to, so rows may be lost with it", err)
	}
	changeID, err := parseIdent(md.Properties()[mixed.PropChange])
	if err != nil {
		return nil, exists
	}
	props := maps.Clone(md.Properties())
	delete(props, mixed.PropChange)
	maps.Copy(props, mixed.ChangeProperties(mixed.KeyColumns(props), c.options.Now()))
	change, err := newMetadata(md.Schemas(), md.PartitionSpec(), c.warehouse+"/"+changeID.namespace+"/"+changeID.name, props)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", changeID, err)
	}
	// Whoever else completes it makes the same; one of us is told that it exists.
	if err := c.backend.create(ctx, newTable{changeID, change}); err != nil && !errors.Is(err, ErrExists) {
		return nil, err
	}
	c.options.Logger.WarnContext(ctx, "change store was missing and is made", "table", id.String())
	return c.Load(ctx, id.String())
}

// storeProperties are our own defaults of both stores: harmless to other readers.
func storeProperties() map[string]string {
	return map[string]string{
		"write.metadata.previous-versions-max": "20",
		"write.delete.mode":                    "merge-on-read",
		"write.update.mode":                    "merge-on-read",
		"write.merge.mode":                     "merge-on-read",
		"write.delete.isolation-level":         "snapshot",
		"write.parquet.compression-codec":      "zstd",
	}
}

// newStore returns the first metadata of a store.
func (c *Catalog) newStore(id ident, schema *changelog.Schema, partition changelog.PartitionSpec, user, format map[string]string) (newTable, error) {
	props := storeProperties()
	for _, p := range []map[string]string{c.options.Properties, user, format} {
		maps.Copy(props, p)
	}
	delete(props, "format-version")
	want := icebergSchema(schema, false)
	spec, err := icebergSpec(partition, want)
	if err != nil {
		return newTable{}, fmt.Errorf("create %s: %w", id, err)
	}
	md, err := newMetadata([]*iceberg.Schema{want}, spec, c.warehouse+"/"+id.namespace+"/"+id.name, props)
	if err != nil {
		return newTable{}, fmt.Errorf("create %s: %w", id, err)
	}
	if !sameSchema(md.CurrentSchema(), want) {
		return newTable{}, fmt.Errorf("create %s: field ids have changed: %w", id, ErrCorrupt)
	}
	return newTable{id, md}, nil
}

func newMetadata(schemas []*iceberg.Schema, spec iceberg.PartitionSpec, location string, props map[string]string) (ice.Metadata, error) {
	b, err := ice.NewMetadataBuilder(formatVersion)
	if err != nil {
		return nil, err
	}
	order := ice.UnsortedSortOrder
	for _, s := range slices.SortedFunc(slices.Values(schemas), func(a, b *iceberg.Schema) int { return a.ID - b.ID }) {
		if err := errors.Join(b.AddSchema(s), b.SetCurrentSchemaID(-1)); err != nil {
			return nil, err
		}
	}
	for _, step := range []func() error{
		func() error { return b.SetUUID(uuid.New()) },
		func() error { return b.AddSortOrder(&order) },
		func() error { return b.SetDefaultSortOrderID(-1) },
		func() error { return b.AddPartitionSpec(&spec, true) },
		func() error { return b.SetDefaultSpecID(-1) },
		func() error { return b.SetLoc(location) },
		func() error { return b.SetProperties(props) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return b.Build()
}

// Load reads a table: the base store first, then the change store, so that no change file is missed. Errors:
// ErrNotFound; ErrUnsupported, it is not a mixed table that firn can take; ErrHalf; ErrScheme, it is not on the local disk; ErrCorrupt.
func (c *Catalog) Load(ctx context.Context, name string) (*Table, error) {
	id, err := parseIdent(name)
	if err != nil {
		return nil, err
	}
	base, err := c.backend.load(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.tableOf(ctx, id, base)
}

// tableOf returns the table of a base store.
func (c *Catalog) tableOf(ctx context.Context, id ident, base loaded) (*Table, error) {
	name := id.String()
	var err error
	if mixed.StoreOf(base.metadata.Properties()) != mixed.StoreBase {
		return nil, fmt.Errorf("%s is not a mixed table: %w", name, ErrUnsupported)
	}
	if err := checkVersion(id, base.metadata); err != nil {
		return nil, err
	}
	if _, err := local(base.metadata.Location()); err != nil {
		return nil, fmt.Errorf("%s is at %w", name, err)
	}
	t := &Table{catalog: c, id: id}
	t.base = &Store{table: t, id: id, kind: mixed.StoreBase, loaded: base}
	if t.schemas, err = schemasOf(base.metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := t.readOptimized(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	changeName := base.metadata.Properties()[mixed.PropChange]
	if len(t.schemas.Current().Key) == 0 || changeName == "" {
		return t, nil
	}
	changeID, err := parseIdent(changeName)
	if err != nil {
		return nil, fmt.Errorf("%s: change store: %w", name, err)
	}
	change, err := c.backend.load(ctx, changeID)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%s names its change store %s, which is not in the catalog: %w: register it again by its newest metadata file, or drop %s",
			name, changeID, ErrHalf, name)
	}
	if err != nil {
		return nil, fmt.Errorf("change store of %s: %w", name, err)
	}
	if err := checkVersion(changeID, change.metadata); err != nil {
		return nil, err
	}
	t.change = &Store{table: t, id: changeID, kind: mixed.StoreChange, loaded: change}
	if len(change.metadata.Schemas()) > len(t.schemas) {
		// A schema came between the two: rows of the change store must not be read without its columns.
		return c.loadNewer(ctx, t)
	}
	return t, t.checkSchemas()
}

// formatVersion is Iceberg's format version of mixed tables (spec/mixed-format.md 1.4).
const formatVersion = 2

// checkVersion refuses stores of another format version: what they may have (row lineage, deletion vectors) no reader of mixed tables
// knows. Error: ErrUnsupported.
func checkVersion(id ident, md ice.Metadata) error {
	if v := md.Version(); v != formatVersion {
		return fmt.Errorf("%s is of Iceberg's format version %d, mixed tables are of version %d: copy its rows into a new table, or restore its metadata "+
			"from before the upgrade if nothing was written since: %w", id, v, formatVersion, ErrUnsupported)
	}
	return nil
}

// loadNewer completes t, whose base store was loaded before a schema that its change store has, with the base store as it
// is now: a base store gets its schemas first. Its files stay those of before, for no change file must be missed.
func (c *Catalog) loadNewer(ctx context.Context, t *Table) (*Table, error) {
	base, err := c.backend.load(ctx, t.id)
	if err != nil {
		return nil, err
	}
	if t.schemas, err = schemasOf(base.metadata); err != nil {
		return nil, fmt.Errorf("%s: %w", t.id, err)
	}
	return t, t.checkSchemas()
}

// Register takes an Iceberg table that was written elsewhere into the catalog, under a name, by its newest metadata file. A keyed
// mixed table is two of them: the change store first, under the name that the base store's properties give. Its
// files stay where they are and are the catalog's from now on. Errors: ErrExists, ErrCorrupt, ErrUnsupported.
func (c *Catalog) Register(ctx context.Context, name, metadata string) error {
	id, err := parseIdent(name)
	if err != nil {
		return err
	}
	b, err := c.fs.ReadFile(metadata)
	if err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	if _, err := ice.ParseMetadataBytes(b); err != nil {
		return fmt.Errorf("register %s: %s: %w: %w", name, metadata, ErrCorrupt, err)
	}
	if err := c.backend.register(ctx, id, metadata); err != nil {
		return fmt.Errorf("register %s: %w", name, err)
	}
	return nil
}

// Drop removes a table from the catalog, base store first; with purge its files, too. It takes one without its change store,
// too. Error: ErrNotFound.
func (c *Catalog) Drop(ctx context.Context, name string, purge bool) error {
	id, err := parseIdent(name)
	if err != nil {
		return err
	}
	base, err := c.backend.load(ctx, id)
	if err != nil {
		return err
	}
	t, err := c.tableOf(ctx, id, base)
	if errors.Is(err, ErrHalf) {
		t, err = &Table{catalog: c, id: id}, nil
		t.base = &Store{table: t, id: id, kind: mixed.StoreBase, loaded: base}
	}
	if err != nil {
		return err
	}
	for _, s := range t.Stores() {
		if err := c.backend.drop(ctx, s.id); err != nil {
			return err
		}
	}
	if !purge {
		return nil
	}
	for _, s := range t.Stores() {
		if err := c.fs.removeAll(s.Location()); err != nil {
			return err
		}
	}
	return nil
}

// enter waits for the store's turn to commit; the function that it returns ends the turn.
func (c *Catalog) enter(ctx context.Context, id ident) (leave func(), err error) {
	c.mu.Lock()
	q := c.mu.queues[id]
	if q == nil {
		q = make(chan struct{}, 1)
		c.mu.queues[id] = q
	}
	c.mu.Unlock()
	select {
	case q <- struct{}{}:
		return func() { <-q }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to commit to %s: %w", id, context.Cause(ctx))
	}
}

// epochOf reads the epoch that owns a store; 0: none.
func epochOf(props iceberg.Properties) (changelog.Epoch, error) {
	v := strings.TrimSpace(props[PropEpoch])
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("property %s: %w: %w", PropEpoch, ErrCorrupt, err)
	}
	return changelog.Epoch(n), nil
}
