package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
)

// restCatalog is a catalog behind Iceberg's REST interface. Its server writes the metadata: a commit is requirements and updates.
//
// Requirements name references, schema and partition spec, and cannot name properties. So a commit that another must not overtake
// moves a reference: main, or, for a claimed epoch (P3), the tag epochRef, which every commit requires to be where it saw it.
//
// (Plain HTTP and not the library's client: that one renumbers field ids at creation, hides which errors leave the outcome open,
// has no conditional loads, and brings a cloud's SDK.)
//
// Source of paths, bodies and statuses: iceberg:open-api/rest-catalog-open-api.yaml.
type restCatalog struct {
	http *restClient
	fs   FS

	mu struct {
		sync.Mutex
		cache map[ident]tagged // the newest metadata of each table that was loaded
	}
}

// tagged is metadata with the ETag of the answer that it came in; "": none.
type tagged struct {
	loaded
	etag string
}

// epochRef is the tag that a claim of an epoch moves, in catalogs that compare references. Written to tables.
const epochRef = "firn-epoch"

func openREST(ctx context.Context, o *Options, files FS) (backend, error) {
	client, err := newRESTClient(ctx, o.URI, o.Client)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", RedactURI(o.URI), err)
	}
	c := &restCatalog{http: client, fs: files}
	c.mu.cache = make(map[ident]tagged)
	return c, nil
}

func (c *restCatalog) close() error {
	c.http.close()
	return nil
}

func (c *restCatalog) comparesSnapshots() bool { return true }

func (c *restCatalog) ownsMetadata() bool { return true }

// identifier is a table's name as JSON.
type identifier struct {
	Namespace []string `json:"namespace"`
	Name      string   `json:"name"`
}

func identifierOf(id ident) identifier { return identifier{[]string{id.namespace}, id.name} }

func namespacePath(namespace string) string { return "namespaces/" + url.PathEscape(namespace) }

func tablePath(id ident) string {
	return namespacePath(id.namespace) + "/tables/" + url.PathEscape(id.name)
}

func (c *restCatalog) list(ctx context.Context) ([]ident, error) {
	var namespaces []string
	err := c.pages(ctx, "namespaces", func(p listPage) {
		for _, ns := range p.Namespaces {
			if len(ns) == 1 { // mixed tables have one level
				namespaces = append(namespaces, ns[0])
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var tables []ident
	for _, ns := range namespaces {
		err := c.pages(ctx, namespacePath(ns)+"/tables", func(p listPage) {
			for _, t := range p.Identifiers {
				if id := (ident{ns, t.Name}); slices.Equal(t.Namespace, []string{ns}) && !strings.ContainsAny(ns+t.Name, "./\\\x00") {
					tables = append(tables, id)
				}
			}
		})
		if statusOf(err) == http.StatusNotFound { // dropped meanwhile
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list tables of %s: %w", ns, err)
		}
	}
	slices.SortFunc(tables, func(a, b ident) int { return strings.Compare(a.String(), b.String()) })
	return tables, nil
}

// listPage is one page of namespaces or of tables.
type listPage struct {
	Namespaces  [][]string   `json:"namespaces"`
	Identifiers []identifier `json:"identifiers"`
	Next        string       `json:"next-page-token"`
}

// pages calls each with all pages of a list. Servers that know no pages answer with one.
func (c *restCatalog) pages(ctx context.Context, path string, each func(listPage)) error {
	seen := map[string]bool{}
	for token := ""; ; {
		var page listPage
		if _, err := c.http.do(ctx, http.MethodGet, path, url.Values{"pageToken": {token}}, nil, nil, &page); err != nil {
			return err
		}
		each(page)
		if page.Next == "" {
			return nil
		}
		if seen[page.Next] {
			return fmt.Errorf("page token %q comes again: %w", page.Next, ErrCorrupt)
		}
		token, seen[page.Next] = page.Next, true
	}
}

// tableAnswer is what loading, creating and committing answer.
type tableAnswer struct {
	Location string          `json:"metadata-location"`
	Metadata json.RawMessage `json:"metadata"`
}

func (a *tableAnswer) parse(id ident) (loaded, error) {
	md, err := ice.ParseMetadataBytes(a.Metadata)
	if err != nil {
		return loaded{}, fmt.Errorf("%s from %s: %w: %w", id, a.Location, ErrCorrupt, err)
	}
	return loaded{metadata: md, location: a.Location}, nil
}

func (c *restCatalog) load(ctx context.Context, id ident) (loaded, error) {
	c.mu.Lock()
	cached := c.mu.cache[id]
	c.mu.Unlock()
	header := http.Header{}
	if cached.etag != "" {
		header.Set("If-None-Match", cached.etag)
	}
	var a tableAnswer
	got, err := c.http.do(ctx, http.MethodGet, tablePath(id), nil, header, nil, &a)
	switch {
	case statusOf(err) == http.StatusNotFound:
		return loaded{}, fmt.Errorf("%s: %w", id, ErrNotFound)
	case statusOf(err) == http.StatusNotModified && cached.metadata != nil:
		return cached.loaded, nil
	case err != nil:
		return loaded{}, fmt.Errorf("load %s: %w", id, err)
	}
	if cached.metadata != nil && a.Location != "" && cached.location == a.Location {
		c.remember(id, tagged{cached.loaded, got.Get("ETag")})
		return cached.loaded, nil
	}
	l, err := a.parse(id)
	if err != nil {
		return loaded{}, fmt.Errorf("load %w", err)
	}
	c.remember(id, tagged{l, got.Get("ETag")})
	return l, nil
}

func (c *restCatalog) remember(id ident, t tagged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.cache[id] = t
}

// create makes all tables at once where the server takes creations in a transaction. Else it makes one after the other: what is
// there after an error stays, because nothing tells whether somebody else has taken it up meanwhile, and is taken up by
// the next Catalog.Create.
func (c *restCatalog) create(ctx context.Context, tables ...newTable) error {
	changes := make([]tableChange, len(tables))
	for i, t := range tables {
		if err := c.makeNamespace(ctx, t.id.namespace); err != nil {
			return fmt.Errorf("create %s: %w", t.id, err)
		}
		change, err := c.stage(ctx, t)
		if err != nil {
			return fmt.Errorf("create %s: %w", t.id, err)
		}
		changes[i] = change
	}
	if len(tables) > 1 && c.http.offers(http.MethodPost, "transactions/commit") {
		_, err := c.http.do(ctx, http.MethodPost, "transactions/commit", nil, nil, map[string]any{"table-changes": changes}, nil)
		switch statusOf(err) {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
			// The server has transactions, and none that create tables: Iceberg's own loads each table first.
		case http.StatusConflict:
			return fmt.Errorf("create %s: %w: %w", tables[len(tables)-1].id, ErrExists, err)
		default:
			if err != nil {
				return fmt.Errorf("create %s: %w", tables[len(tables)-1].id, err)
			}
			return nil
		}
	}
	for i, t := range tables {
		_, err := c.http.do(ctx, http.MethodPost, tablePath(t.id), nil, nil, changes[i], nil)
		if statusOf(err) == http.StatusConflict {
			err = fmt.Errorf("%w: %w", ErrExists, err)
		}
		if err != nil {
			return fmt.Errorf("create %s: %w", t.id, err)
		}
	}
	return nil
}

func (c *restCatalog) makeNamespace(ctx context.Context, namespace string) error {
	_, err := c.http.do(ctx, http.MethodGet, namespacePath(namespace), nil, nil, nil, nil)
	if statusOf(err) != http.StatusNotFound {
		return err
	}
	body := map[string]any{"namespace": []string{namespace}, "properties": map[string]string{}}
	_, err = c.http.do(ctx, http.MethodPost, "namespaces", nil, nil, body, nil)
	if statusOf(err) == http.StatusConflict { // somebody else has made it
		return nil
	}
	return err
}

// tableChange is a commit as JSON.
type tableChange struct {
	Identifier   identifier        `json:"identifier"`
	Requirements []ice.Requirement `json:"requirements"`
	Updates      []ice.Update      `json:"updates"`
}

// stage asks the server where a new table goes, and returns the commit that makes it: with our field ids, which creation at once
// would renumber. Error: ErrScheme, the server's place is not on the local disk; ErrExists.
func (c *restCatalog) stage(ctx context.Context, t newTable) (tableChange, error) {
	md := t.md
	props := iceberg.Properties{"format-version": "2"}
	maps.Copy(props, md.Properties())
	var a tableAnswer
	_, err := c.http.do(ctx, http.MethodPost, namespacePath(t.id.namespace)+"/tables", nil, nil, map[string]any{
		"name": t.id.name, "schema": md.CurrentSchema(), "stage-create": true, "properties": props,
	}, &a)
	if statusOf(err) == http.StatusConflict {
		return tableChange{}, fmt.Errorf("%w: %w", ErrExists, err)
	}
	if err != nil {
		return tableChange{}, err
	}
	staged, err := a.parse(t.id)
	if err != nil {
		return tableChange{}, err
	}
	location := strings.TrimSuffix(staged.metadata.Location(), "/")
	if _, err := local(location); err != nil {
		return tableChange{}, fmt.Errorf("the catalog puts the table at %w", err)
	}
	spec, order := md.PartitionSpec(), md.SortOrder()
	ours := iceberg.Properties{} // what the server adds by itself, and then what we want
	for _, p := range []iceberg.Properties{staged.metadata.Properties(), md.Properties()} {
		maps.Copy(ours, p)
	}
	updates := []ice.Update{
		ice.NewAssignUUIDUpdate(staged.metadata.TableUUID()),
		ice.NewUpgradeFormatVersionUpdate(md.Version()),
	}
	schemas := md.Schemas()
	for _, s := range schemas {
		updates = append(updates, ice.NewAddSchemaUpdate(s), ice.NewSetCurrentSchemaUpdate(-1))
	}
	updates = append(updates,
		ice.NewAddPartitionSpecUpdate(&spec, true), ice.NewSetDefaultSpecUpdate(-1),
		ice.NewAddSortOrderUpdate(&order), ice.NewSetDefaultSortOrderUpdate(-1),
		ice.NewSetLocationUpdate(location), ice.NewSetPropertiesUpdate(ours),
	)
	return tableChange{identifierOf(t.id), []ice.Requirement{ice.AssertCreate()}, updates}, nil
}

func (c *restCatalog) commit(ctx context.Context, id ident, base loaded, updates []ice.Update) (loaded, error) {
	body := tableChange{identifierOf(id), requirementsOf(base.metadata), updates}
	var a tableAnswer
	got, err := c.http.do(ctx, http.MethodPost, tablePath(id), nil, nil, body, &a)
	switch status := statusOf(err); {
	case err == nil:
	case status == http.StatusConflict:
		return loaded{}, fmt.Errorf("commit %s: %w: %w", id, errMoved, err)
	case status == http.StatusNotFound:
		return loaded{}, fmt.Errorf("commit %s: %w: %w: %w", id, errRefused, ErrNotFound, err)
	case errors.Is(err, errNotSent):
		return loaded{}, fmt.Errorf("commit %s: %w: %w", id, errUnsent, err)
	case status >= 300 && status < 500:
		return loaded{}, fmt.Errorf("commit %s: %w: %w", id, errRefused, err)
	default: // no answer, or one that leaves it open: 500, 502, 504; and 503, which proxies give, too
		return loaded{}, fmt.Errorf("commit %s: %w", id, err)
	}
	l, err := a.parse(id)
	if err == nil {
		err = kept(updates, l.metadata)
	}
	if err != nil {
		return loaded{}, fmt.Errorf("commit %w", err)
	}
	c.remember(id, tagged{l, got.Get("ETag")})
	return l, nil
}

// requirementsOf names all that a server can compare of a table.
func requirementsOf(md ice.Metadata) []ice.Requirement {
	return []ice.Requirement{
		ice.AssertTableUUID(md.TableUUID()),
		ice.AssertRefSnapshotID(ice.MainBranch, refOf(md, ice.MainBranch)),
		ice.AssertRefSnapshotID(epochRef, refOf(md, epochRef)),
		ice.AssertCurrentSchemaID(md.CurrentSchema().ID),
		ice.AssertDefaultSpecID(md.DefaultPartitionSpec()),
	}
}

// refOf returns where a reference points to; nil: there is none.
func refOf(md ice.Metadata, name string) *int64 {
	if name == ice.MainBranch {
		if cur := md.CurrentSnapshot(); cur != nil {
			return &cur.SnapshotID
		}
		return nil
	}
	for have, ref := range md.Refs() {
		if have == name {
			return &ref.SnapshotID
		}
	}
	return nil
}

// settled: a commit still on its way is refused by the server once one of its requirements fails.
func (c *restCatalog) settled(base, now loaded) bool {
	for _, r := range requirementsOf(base.metadata) {
		if r.Validate(now.metadata) != nil {
			return true
		}
	}
	return false
}

// kept reports an answer of success whose metadata does not have what was committed: the outcome is then not known.
func kept(updates []ice.Update, md ice.Metadata) error {
	for _, u := range updates {
		b, err := json.Marshal(u)
		if err != nil {
			return err
		}
		var want struct {
			Snapshot struct {
				ID int64 `json:"snapshot-id"`
			} `json:"snapshot"`
			SnapshotID int64             `json:"snapshot-id"`
			Updates    map[string]string `json:"updates"`
			Statistics struct {
				Path string `json:"statistics-path"`
			} `json:"statistics"`
		}
		if err := json.Unmarshal(b, &want); err != nil {
			return err
		}
		switch u.Action() {
		case ice.UpdateAddSnapshot:
			if md.SnapshotByID(want.Snapshot.ID) == nil {
				return fmt.Errorf("the catalog says that snapshot %d is committed, and its answer does not have it: %w", want.Snapshot.ID, ErrCorrupt)
			}
		case ice.UpdateSetProperties:
			for k, v := range want.Updates {
				if md.Properties()[k] != v {
					return fmt.Errorf("the catalog says that it has set property %s, and its answer does not have it: %w", k, ErrCorrupt)
				}
			}
		case ice.UpdateSetStatistics:
			found := false
			for st := range md.Statistics() {
				found = found || st.StatisticsPath == want.Statistics.Path
			}
			if !found {
				return fmt.Errorf("the catalog says that it has set statistics of snapshot %d, and its answer does not have them: %w", want.SnapshotID, ErrCorrupt)
			}
		}
	}
	return nil
}

func (c *restCatalog) drop(ctx context.Context, id ident) error {
	_, err := c.http.do(ctx, http.MethodDelete, tablePath(id), url.Values{"purgeRequested": {"false"}}, nil, nil, nil)
	c.mu.Lock()
	delete(c.mu.cache, id)
	c.mu.Unlock()
	if statusOf(err) == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("drop %s: %w", id, err)
	}
	return nil
}

func (c *restCatalog) register(ctx context.Context, id ident, metadata string) error {
	if err := c.makeNamespace(ctx, id.namespace); err != nil {
		return err
	}
	body := map[string]any{"name": id.name, "metadata-location": metadata}
	_, err := c.http.do(ctx, http.MethodPost, namespacePath(id.namespace)+"/register", nil, nil, body, nil)
	if statusOf(err) == http.StatusConflict {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}
