package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"firn/changelog/table"
	"firn/logstore/httpapi"
)

// tableDefault begins the names of catalog properties that are properties of new tables, as in Iceberg's own catalogs.
const tableDefault = "table-default."

// validate reports what is wrong with the settings together; whether the catalog can be reached is seen when it is opened.
func (c CatalogConfig) validate(p *problems) {
	p.oneOf("catalog.type", c.Type, table.TypeSQLite, table.TypeSQL, table.TypeREST)
	if c.Name == "" {
		p.wrong("catalog.name", "must not be empty")
	}
	if c.Type != table.TypeREST {
		if dir, ok := strings.CutPrefix(c.Warehouse, "file:"); !ok {
			p.bad("catalog.warehouse", c.Warehouse, "does not begin with file: (others are not built yet)")
		} else if strings.Trim(dir, "/") == "" {
			p.bad("catalog.warehouse", c.Warehouse, "names no directory")
		}
	}
	scheme, _, isURL := strings.Cut(c.URI, "://")
	switch {
	case c.Type == table.TypeSQLite && (isURL || c.URI == ""):
		p.bad("catalog.uri", c.URI, "is no file: type sqlite needs the path of one")
	case c.Type == table.TypeSQL && (!isURL || scheme != "postgres" && scheme != "postgresql"):
		p.bad("catalog.uri", c.URI, "does not suit type sql, which needs postgres://USER@HOST:PORT/DATABASE")
	case c.Type == table.TypeREST && (!isURL || scheme != "http" && scheme != "https"):
		p.bad("catalog.uri", c.URI, "does not suit type rest, which needs http(s)://HOST:PORT/PATH")
	}
	for k := range c.Properties {
		if c.Type != table.TypeREST && secretProperty(k) {
			p.wrong("catalog.properties."+k, "is of a REST catalog: here it would be written into every table")
		}
	}
}

// secretProperty reports whether a catalog property of the name holds a secret.
func secretProperty(name string) bool {
	return name == "token" || name == "credential" || strings.HasPrefix(name, "header.")
}

// options returns the settings as those of a catalog.
func (c CatalogConfig) options(log *slog.Logger) (table.Options, error) {
	o := table.Options{Type: c.Type, Name: c.Name, URI: c.URI, Properties: map[string]string{}, Logger: log}
	for k, v := range c.Properties {
		name, isDefault := strings.CutPrefix(k, tableDefault)
		if c.Type == table.TypeREST && !isDefault {
			if o.Client == nil {
				o.Client = map[string]string{}
			}
			o.Client[k] = v
		} else {
			o.Properties[name] = v
		}
	}
	if c.Type == table.TypeREST { // its server says where tables go
		return o, nil
	}
	var err error
	o.Warehouse, err = c.warehouse()
	return o, err
}

func openCatalog(ctx context.Context, c CatalogConfig, log *slog.Logger) (*table.Catalog, error) {
	o, err := c.options(log)
	if err != nil {
		return nil, err
	}
	if o.Type == table.TypeSQLite {
		if err := os.MkdirAll(filepath.Dir(c.URI), 0o750); err != nil {
			return nil, fmt.Errorf("catalog.uri: %w", err)
		}
	}
	catalog, err := table.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("catalog %s: %w", table.RedactURI(c.URI), err)
	}
	return catalog, nil
}

// readable completes what flags or a server say of a catalog, for verbs that make no tables in it. Error: fs.ErrNotExist, there is
// no such SQLite file.
func (c CatalogConfig) readable() (CatalogConfig, error) {
	if c.Type != table.TypeSQLite {
		return c, nil
	}
	if c.Warehouse == "" { // where new tables would go: none is made here
		c.Warehouse = "file:" + filepath.Dir(c.URI)
	}
	_, err := os.Stat(c.URI)
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(c.URI, "://") {
		err = fmt.Errorf("%s: a catalog that is no SQLite file needs --catalog-type sql or rest: %w", table.RedactURI(c.URI), fs.ErrNotExist)
	}
	return c, err
}

// warehouse returns the warehouse as an absolute file: location, so that tables can be read from any directory.
func (c CatalogConfig) warehouse() (string, error) {
	if c.Warehouse == "" {
		return "", errors.New("warehouse is empty: a sql catalog needs the directory of its tables (catalog.warehouse, --warehouse)")
	}
	path, err := filepath.Abs(strings.TrimPrefix(strings.TrimPrefix(c.Warehouse, "file://"), "file:"))
	if err != nil {
		return "", fmt.Errorf("warehouse %s: %w", c.Warehouse, err)
	}
	return "file:" + path, nil
}

// location returns where the lake is, in absolute paths and without secrets.
func (c CatalogConfig) location() (at httpapi.Catalog, err error) {
	at = httpapi.Catalog{Type: c.Type, Name: c.Name, URI: table.RedactURI(c.URI)}
	if c.Type != table.TypeREST {
		if at.Warehouse, err = c.warehouse(); err != nil {
			return httpapi.Catalog{}, err
		}
	}
	if c.Type == table.TypeSQLite {
		if at.URI, err = filepath.Abs(c.URI); err != nil {
			return httpapi.Catalog{}, fmt.Errorf("catalog %s: %w", c.URI, err)
		}
	}
	return at, nil
}
