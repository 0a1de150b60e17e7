package table

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	ice "github.com/apache/iceberg-go/table"
)

// ident is a table's name in the catalog.
type ident struct{ namespace, name string }

func (i ident) String() string { return i.namespace + "." + i.name }

// parseIdent splits namespace.name. More levels do not work in mixed tables.
func parseIdent(name string) (ident, error) {
	ns, t, ok := strings.Cut(name, ".")
	if !ok || ns == "" || t == "" || strings.ContainsAny(name, "/\\\x00") || strings.Contains(t, ".") {
		return ident{}, fmt.Errorf("table %q is not named namespace.name: %w", name, ErrUnsupported)
	}
	return ident{namespace: ns, name: t}, nil
}

// loaded is a table as the catalog has it: immutable.
type loaded struct {
	metadata ice.Metadata
	location string // of the metadata file
}

// newTable is a table to be made.
type newTable struct {
	id ident
	md ice.Metadata
}

// Errors of a backend's commit that tell what became of it. After any other the outcome is not known (P2).
var (
	// errMoved: the commit's base is no longer what the catalog has. It was not applied, unless something between us and the
	// catalog has sent it twice: whoever drops what it names looks first.
	errMoved = errors.New("table: metadata has moved")
	// errRefused: the commit never reached the catalog, or the catalog will not have it. It was not applied, by the catalog's word.
	errRefused = errors.New("table: commit is not possible")
	// errUnsent, an errRefused: nothing was sent.
	errUnsent = fmt.Errorf("%w: it was not sent", errRefused)
)

// backend is a kind of catalog. All calls are safe for concurrent use.
type backend interface {
	// list returns all tables, mixed or not.
	list(ctx context.Context) ([]ident, error)
	// load reads a table's current metadata. Errors: ErrNotFound, ErrCorrupt, ErrScheme.
	load(ctx context.Context, id ident) (loaded, error)
	// create makes tables, which come in the order in which readers need each other: one whose name stands in another comes
	// first. Their namespaces are made if they are missing. Either all of them appear at once, or one after the other; what is
	// there after an error, Catalog.Create completes. Error: ErrExists.
	create(ctx context.Context, tables ...newTable) error
	// commit makes the result of updates on base the table's metadata, if the table still is what base says, as far as the
	// catalog can compare (see comparesSnapshots). Errors: errMoved, errRefused, errUnsent; after others the outcome is not known.
	// Nothing that a commit which came all the same would need is removed before the catalog was looked at again.
	commit(ctx context.Context, id ident, base loaded, updates []ice.Update) (loaded, error)
	// settled reports whether a commit made on base, whose outcome was not known, and which is not in now, is certain never to
	// come: false while a request may still be on its way.
	settled(base, now loaded) bool
	// drop takes a table out; its files stay. Error: ErrNotFound.
	drop(ctx context.Context, id ident) error
	// register takes a table in by its metadata file. Error: ErrExists.
	register(ctx context.Context, id ident, metadata string) error
	// comparesSnapshots reports that commit compares the table's snapshot references, schema and partition spec, and not the
	// whole of its metadata: a commit that must stop another one moves a reference.
	comparesSnapshots() bool
	// ownsMetadata reports that the catalog's server, and not this process, writes and removes metadata files.
	ownsMetadata() bool
	close() error
}

// Kinds of catalogs: Options.Type.
const (
	TypeSQLite = "sqlite"
	TypeSQL    = "sql"
	TypeREST   = "rest"
)

func openBackend(ctx context.Context, o *Options, files FS) (backend, error) {
	switch o.Type {
	case TypeSQL:
		return openPostgres(ctx, o.URI, o.Name, files)
	case TypeREST:
		return openREST(ctx, o, files)
	}
	return openSQLite(ctx, o.URI, o.Name, files)
}

// RedactURI returns a catalog's URI without what may be secret in it: user's password and query.
func RedactURI(uri string) string {
	if !strings.Contains(uri, "://") {
		return uri
	}
	u, err := url.Parse(uri)
	if err != nil {
		scheme, _, _ := strings.Cut(uri, "://")
		return scheme + "://…"
	}
	if _, has := u.User.Password(); has {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery, u.Fragment = "", ""
	return u.String()
}
