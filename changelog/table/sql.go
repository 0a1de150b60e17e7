package table

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// sqlCatalog is Iceberg's JDBC catalog, as its Java, Python and Go libraries keep it in a database: a row a table that
// names the current metadata file. A commit replaces that name if it is still the one that the commit was made from.
//
// (Own statements and not the library's catalog: that one compares snapshots, so that a claimed epoch would not stop
// a commit in flight, renumbers the field ids of nested columns, and parses the metadata twice a commit.)
type sqlCatalog struct {
	db      *sql.DB
	dialect dialect
	name    string
	fs      FS
	typed   bool // the tables have the column iceberg_type

	mu struct {
		sync.Mutex
		cache map[ident]loaded // the newest metadata of each table that was loaded
	}
}

// dialect is what databases differ in.
type dialect struct {
	numbered bool // parameters are $1, $2, …, not ?
	remote   bool // a statement whose answer was lost may still be carried out
	// outcome tells what an error says of its statement: errMoved, errRefused, or nil, which is that nobody knows.
	outcome func(error) error
}

// The tables of the JDBC catalog.
// Source: iceberg:core/src/main/java/org/apache/iceberg/jdbc/JdbcUtil.java: schema V1; V0 has no iceberg_type.
const (
	createTables = `CREATE TABLE IF NOT EXISTS iceberg_tables (
	catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL,
	metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5),
	PRIMARY KEY (catalog_name, table_namespace, table_name))`
	createNamespaces = `CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
	catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL,
	property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key))`
)

// newSQL makes the catalog's tables where they are missing. It owns db.
func newSQL(ctx context.Context, db *sql.DB, d dialect, name string, files FS) (*sqlCatalog, error) {
	c := &sqlCatalog{db: db, dialect: d, name: name, fs: files}
	c.mu.cache = make(map[ident]loaded)
	if err := c.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return c, nil
}

func (c *sqlCatalog) prepare(ctx context.Context) error {
	columns, err := c.columns(ctx, "iceberg_tables")
	if err == nil {
		_, err = c.columns(ctx, "iceberg_namespace_properties")
	}
	if err != nil { // missing, most likely. (Asked first: who may not make tables may use those that are there.)
		for _, statement := range []string{createTables, createNamespaces} {
			if _, err := c.db.ExecContext(ctx, statement); err != nil {
				// Two processes may make them at once: then one of them is told that they exist.
				if columns, again := c.columns(ctx, "iceberg_tables"); again == nil {
					c.typed = slices.Contains(columns, "iceberg_type")
					continue
				}
				return err
			}
		}
		if columns, err = c.columns(ctx, "iceberg_tables"); err != nil {
			return err
		}
	}
	c.typed = slices.Contains(columns, "iceberg_type")
	return nil
}

// columns returns the names of a table's columns.
func (c *sqlCatalog) columns(ctx context.Context, table string) (_ []string, err error) {
	rows, err := c.db.QueryContext(ctx, `SELECT * FROM `+table+` WHERE 1 = 0`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	return rows.Columns()
}

// sql puts a statement into the database's own words: {isTable} leaves out views, where the tables tell them apart.
func (c *sqlCatalog) sql(statement string) string {
	isTable := ""
	if c.typed {
		isTable = ` AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)`
	}
	statement = strings.ReplaceAll(statement, "{isTable}", isTable)
	if !c.dialect.numbered {
		return statement
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(statement, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		fmt.Fprintf(&b, "$%d", n)
		statement = after
	}
}

func (c *sqlCatalog) settled(base, now loaded) bool {
	return !c.dialect.remote || base.location != now.location
}

func (c *sqlCatalog) comparesSnapshots() bool { return false }

func (c *sqlCatalog) ownsMetadata() bool { return false }

func (c *sqlCatalog) close() error {
	if err := c.db.Close(); err != nil {
		return fmt.Errorf("close catalog: %w", err)
	}
	return nil
}

func (c *sqlCatalog) list(ctx context.Context) (tables []ident, err error) {
	rows, err := c.db.QueryContext(ctx, c.sql(`SELECT table_namespace, table_name FROM iceberg_tables WHERE catalog_name = ?{isTable}
		ORDER BY table_namespace, table_name`), c.name)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id ident
		if err := rows.Scan(&id.namespace, &id.name); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		tables = append(tables, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return tables, nil
}

func (c *sqlCatalog) load(ctx context.Context, id ident) (loaded, error) {
	location, err := c.locationOf(ctx, id)
	if err != nil {
		return loaded{}, err
	}
	c.mu.Lock()
	cached := c.mu.cache[id]
	c.mu.Unlock()
	if cached.location == location {
		return cached, nil
	}
	b, err := c.fs.ReadFile(location)
	if err != nil {
		return loaded{}, fmt.Errorf("load %s: %w", id, err)
	}
	md, err := ice.ParseMetadataBytes(b)
	if err != nil {
		return loaded{}, fmt.Errorf("load %s from %s: %w: %w", id, location, ErrCorrupt, err)
	}
	return c.remember(id, loaded{metadata: md, location: location}), nil
}

// locationOf returns a table's metadata file. Error: ErrNotFound.
func (c *sqlCatalog) locationOf(ctx context.Context, id ident) (string, error) {
	var location sql.NullString
	err := c.db.QueryRowContext(ctx, c.sql(`SELECT metadata_location FROM iceberg_tables
		WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?{isTable}`), c.name, id.namespace, id.name).Scan(&location)
	if errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("load %s: %w", id, err)
	}
	return location.String, nil
}

func (c *sqlCatalog) remember(id ident, l loaded) loaded {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.cache[id] = l
	return l
}

// create makes all tables at once, or none.
func (c *sqlCatalog) create(ctx context.Context, tables ...newTable) error {
	locations := make(map[ident]string, len(tables))
	var err error
	for _, t := range tables {
		var l loaded
		if l, err = c.write(t.md, 0); err != nil {
			err = fmt.Errorf("create %s: %w", t.id, err)
			break
		}
		locations[t.id] = l.location
	}
	if err == nil {
		err = c.insert(ctx, locations)
	}
	if errors.Is(err, ErrExists) || len(locations) < len(tables) { // nothing names the files
		for _, l := range locations {
			err = errors.Join(err, c.fs.Remove(l))
		}
	}
	return err
}

func (c *sqlCatalog) register(ctx context.Context, id ident, metadata string) error {
	return c.insert(ctx, map[ident]string{id: metadata})
}

// insert names the metadata of new tables, in one transaction.
func (c *sqlCatalog) insert(ctx context.Context, locations map[ident]string) (err error) {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if rollback := tx.Rollback(); !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
	}()
	for id, location := range locations {
		if err := c.insertOne(ctx, tx, id, location); err != nil {
			return fmt.Errorf("create %s: %w", id, err)
		}
	}
	return tx.Commit()
}

func (c *sqlCatalog) insertOne(ctx context.Context, tx *sql.Tx, id ident, location string) error {
	if _, err := tx.ExecContext(ctx, c.sql(`INSERT INTO iceberg_namespace_properties
		(catalog_name, namespace, property_key, property_value) VALUES (?, ?, 'exists', 'true') ON CONFLICT DO NOTHING`),
		c.name, id.namespace); err != nil {
		return err
	}
	insert := `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location, iceberg_type)
		VALUES (?, ?, ?, ?, NULL, 'TABLE') ON CONFLICT DO NOTHING`
	if !c.typed {
		insert = `INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location)
		VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING`
	}
	n, err := affected(tx.ExecContext(ctx, c.sql(insert), c.name, id.namespace, id.name, location))
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrExists
	}
	return nil
}

func (c *sqlCatalog) commit(ctx context.Context, id ident, base loaded, updates []ice.Update) (loaded, error) {
	updates = append(repairs(base.metadata), updates...) // first: some of the entries may go with their snapshots
	md, err := ice.UpdateTableMetadata(base.metadata, updates, base.location)
	if err != nil {
		return loaded{}, fmt.Errorf("%w: update metadata of %s: %w", errUnsent, id, err)
	}
	l, err := c.write(md, versionOf(base.location)+1)
	if err != nil {
		return loaded{}, fmt.Errorf("%w: write metadata of %s: %w", errUnsent, id, err)
	}
	if err := c.swap(ctx, id, base.location, l.location); err != nil {
		return loaded{}, fmt.Errorf("commit %s: %w", id, err)
	}
	c.remember(id, l)
	c.dropOldMetadata(base.metadata, l.metadata)
	return l, nil
}

// swap makes a table's metadata file another one. Errors as those of backend.commit: an answer of failure is not taken at its word
// before the new file is removed, because a table that names it would be lost.
func (c *sqlCatalog) swap(ctx context.Context, id ident, from, to string) error {
	typed := ``
	if c.typed {
		typed = `, iceberg_type = 'TABLE'`
	}
	n, err := affected(c.db.ExecContext(ctx, c.sql(`UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ?`+typed+`
		WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?{isTable}`),
		to, from, c.name, id.namespace, id.name, from))
	switch {
	case err == nil && n > 0:
		return nil
	case err == nil:
		err = errMoved
	default:
		known := c.dialect.outcome(err)
		if known == nil {
			return err
		}
		err = fmt.Errorf("%w: %w", known, err)
	}
	if !errors.Is(err, errUnsent) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
		defer cancel()
		now, look := c.locationOf(ctx, id)
		switch {
		case look == nil && now == to:
			return nil // it says no, and has it
		case look != nil && !errors.Is(look, ErrNotFound):
			return fmt.Errorf("%s; and then: %w", err, look) //nolint:errorlint // what it says is not certain any more
		}
	}
	_ = c.fs.Remove(to) // named by nothing: at worst one small orphan
	return err
}

// dropOldMetadata removes the metadata files that have left the log of previous ones.
func (c *sqlCatalog) dropOldMetadata(before, after ice.Metadata) {
	if after.Properties()["write.metadata.delete-after-commit.enabled"] != "true" {
		return
	}
	kept := make(map[string]bool)
	for e := range after.PreviousFiles() {
		kept[e.MetadataFile] = true
	}
	for e := range before.PreviousFiles() {
		if !kept[e.MetadataFile] {
			_ = c.fs.Remove(e.MetadataFile) // at worst one small orphan
		}
	}
}

// write writes a metadata file and reads it back, so that what is kept in memory shares nothing with its predecessors.
func (c *sqlCatalog) write(md ice.Metadata, version int) (loaded, error) {
	b, err := json.Marshal(md)
	if err != nil {
		return loaded{}, err
	}
	fresh, err := ice.ParseMetadata(bytes.NewReader(b))
	if err != nil {
		return loaded{}, err
	}
	location := fmt.Sprintf("%s/metadata/%05d-%s.metadata.json", md.Location(), version, uuid.New())
	if err := c.fs.WriteFile(location, b); err != nil {
		return loaded{}, err
	}
	return loaded{metadata: fresh, location: location}, nil
}

func (c *sqlCatalog) drop(ctx context.Context, id ident) error {
	n, err := affected(c.db.ExecContext(ctx, c.sql(`DELETE FROM iceberg_tables
		WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?{isTable}`), c.name, id.namespace, id.name))
	if err != nil {
		return fmt.Errorf("drop %s: %w", id, err)
	}
	c.mu.Lock()
	delete(c.mu.cache, id)
	c.mu.Unlock()
	if n == 0 {
		return fmt.Errorf("drop %s: %w", id, ErrNotFound)
	}
	return nil
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// versionOf returns the number in front of a metadata file's name (00007-….metadata.json, or v7.metadata.json), or 0.
func versionOf(location string) int {
	digits, _, _ := strings.Cut(strings.TrimPrefix(path.Base(location), "v"), "-")
	digits, _, _ = strings.Cut(digits, ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}
