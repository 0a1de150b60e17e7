package table_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// restFake is a REST catalog in memory, after Iceberg's specification (open-api/rest-catalog-open-api.yaml); tables are on the disk.
type restFake struct {
	t            testing.TB
	warehouse    string
	url          string
	transactions bool   // it makes tables in transactions; else it has none
	token        string // what requests must bear; "": nothing
	prefix       string // of paths
	scheme       string // of table locations
	down         atomic.Bool
	lies         atomic.Bool // answers commits with success, and does nothing
	feigns       atomic.Bool // answers commits with what would come of them, and does nothing
	// fault stands round each POST of a commit, a creation or a transaction. nil: none.
	fault atomic.Pointer[fault]

	mu     sync.Mutex
	spaces map[string]bool
	tables map[string]*fakeTable // by namespace.name
	seen   []http.Header
	loads  int // that were answered with metadata
}

type fakeTable struct {
	md       ice.Metadata
	location string
}

// fault is called with the request's path; apply carries the request out and returns its status. What it returns is answered; 0
// cuts the connection.
type fault func(path string, apply func() int) int

func newRESTFake(t testing.TB, warehouse string) *restFake {
	f := &restFake{t: t, warehouse: warehouse, scheme: "file://", prefix: "pre/fix", spaces: map[string]bool{}, tables: map[string]*fakeTable{}}
	if err := os.MkdirAll(warehouse, 0o750); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL + "/at"
	return f
}

func (f *restFake) inject(x fault) {
	if x == nil {
		f.fault.Store(nil)
		return
	}
	f.fault.Store(&x)
}

func (f *restFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.down.Load() {
		cut(w)
		return
	}
	f.mu.Lock()
	f.seen = append(f.seen, r.Header.Clone())
	f.mu.Unlock()
	if r.URL.Path == "/at/v1/oauth/tokens" {
		f.tokens(w, r)
		return
	}
	if f.token != "" && r.Header.Get("Authorization") != "Bearer "+f.token {
		fail(w, http.StatusUnauthorized, "NotAuthorizedException", "no")
		return
	}
	if r.URL.Path == "/at/v1/config" {
		f.config(w, r)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/at/v1/"+f.prefix+"/")
	if !ok {
		fail(w, http.StatusNotFound, "NoSuchPath", r.URL.Path)
		return
	}
	apply := func(w http.ResponseWriter) { f.route(w, r, path) }
	if x := f.fault.Load(); x != nil && r.Method == http.MethodPost {
		rec := httptest.NewRecorder()
		applied := false
		status := (*x)(path, func() int {
			applied = true
			apply(rec)
			return rec.Code
		})
		switch {
		case status == 0:
			cut(w)
		case applied && status == rec.Code:
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		default:
			fail(w, status, "Injected", "fault")
		}
		return
	}
	apply(w)
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

func fail(w http.ResponseWriter, status int, kind, message string) {
	if status == http.StatusFound {
		w.Header().Set("Location", "/at/v1/pre/fix/namespaces/db/tables/users_change_")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": kind, "code": status}})
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func (f *restFake) tokens(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("grant_type") != "client_credentials" || r.FormValue("client_id") != "me" || r.FormValue("client_secret") != "hush" ||
		r.FormValue("scope") != "catalog" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]any{"error": "invalid_client", "error_description": "who?"})
		return
	}
	f.mu.Lock()
	f.token = uuid.NewString()
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer(w, map[string]any{"access_token": f.token, "token_type": "bearer", "expires_in": 3600})
}

func (f *restFake) config(w http.ResponseWriter, r *http.Request) {
	endpoints := []string{"GET /v1/{prefix}/namespaces"}
	if f.transactions {
		endpoints = append(endpoints, "POST /v1/{prefix}/transactions/commit")
	}
	overrides := map[string]string{"prefix": f.prefix}
	if r.FormValue("warehouse") == "lost" {
		fail(w, http.StatusNotFound, "NoSuchWarehouseException", "no warehouse lost")
		return
	}
	answer(w, map[string]any{"defaults": map[string]string{"prefix": "wrong"}, "overrides": overrides, "endpoints": endpoints})
}

func (f *restFake) route(w http.ResponseWriter, r *http.Request, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	part := strings.Split(path, "/")
	switch key := fmt.Sprint(r.Method, " ", len(part), " ", part[len(part)-1]); {
	case path == "namespaces" && r.Method == http.MethodGet:
		f.namespaces(w, r)
	case path == "namespaces":
		f.makeNamespace(w, r)
	case path == "transactions/commit" && f.transactions:
		f.transact(w, r)
	case len(part) < 2 || part[0] != "namespaces":
		fail(w, http.StatusNotFound, "NoSuchPath", path)
	case !f.spaces[part[1]]:
		fail(w, http.StatusNotFound, "NoSuchNamespaceException", part[1])
	case len(part) == 2:
		answer(w, map[string]any{"namespace": []string{part[1]}})
	case key == "GET 3 tables":
		f.list(w, part[1])
	case key == "POST 3 tables":
		f.stage(w, r, part[1])
	case key == "POST 3 register":
		f.register(w, r, part[1])
	case len(part) == 4 && r.Method == http.MethodGet:
		f.load(w, r, part[1]+"."+part[3])
	case len(part) == 4 && r.Method == http.MethodPost:
		f.commit(w, r)
	case len(part) == 4 && r.Method == http.MethodDelete:
		f.drop(w, r, part[1]+"."+part[3])
	default:
		fail(w, http.StatusNotFound, "NoSuchPath", path)
	}
}

// namespaces answers one a page.
func (f *restFake) namespaces(w http.ResponseWriter, r *http.Request) {
	all := slices.Sorted(maps.Keys(f.spaces))
	i := 0
	if token := r.FormValue("pageToken"); token != "" {
		i = slices.Index(all, token)
	}
	page := map[string]any{"namespaces": [][]string{}}
	if i < len(all) {
		page["namespaces"] = [][]string{{all[i]}}
	}
	if i+1 < len(all) {
		page["next-page-token"] = all[i+1]
	}
	answer(w, page)
}

func (f *restFake) makeNamespace(w http.ResponseWriter, r *http.Request) {
	var body struct{ Namespace []string }
	if json.NewDecoder(r.Body).Decode(&body) != nil || len(body.Namespace) != 1 {
		fail(w, http.StatusBadRequest, "BadRequestException", "namespace")
		return
	}
	if f.spaces[body.Namespace[0]] {
		fail(w, http.StatusConflict, "AlreadyExistsException", "namespace")
		return
	}
	f.spaces[body.Namespace[0]] = true
	answer(w, body)
}

func (f *restFake) list(w http.ResponseWriter, ns string) {
	ids := []map[string]any{}
	for name := range f.tables {
		if t, ok := strings.CutPrefix(name, ns+"."); ok {
			ids = append(ids, map[string]any{"namespace": []string{ns}, "name": t})
		}
	}
	answer(w, map[string]any{"identifiers": ids})
}

func (f *restFake) load(w http.ResponseWriter, r *http.Request, name string) {
	t := f.tables[name]
	if t == nil {
		fail(w, http.StatusNotFound, "NoSuchTableException", name)
		return
	}
	if r.Header.Get("If-None-Match") == etag(t) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	f.loads++
	f.tableAnswer(w, t)
}

func etag(t *fakeTable) string {
	sum := sha256.Sum256([]byte(t.location))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (f *restFake) tableAnswer(w http.ResponseWriter, t *fakeTable) {
	w.Header().Set("ETag", etag(t))
	answer(w, map[string]any{"metadata-location": t.location, "metadata": t.md, "config": map[string]string{}})
}

func (f *restFake) stage(w http.ResponseWriter, r *http.Request, ns string) {
	var body struct {
		Name        string            `json:"name"`
		Schema      *iceberg.Schema   `json:"schema"`
		StageCreate bool              `json:"stage-create"`
		Properties  map[string]string `json:"properties"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !body.StageCreate {
		fail(w, http.StatusBadRequest, "BadRequestException", fmt.Sprint("not staged: ", err))
		return
	}
	if f.tables[ns+"."+body.Name] != nil {
		fail(w, http.StatusConflict, "AlreadyExistsException", body.Name)
		return
	}
	props := maps.Clone(body.Properties)
	props["server.own"] = "yes"
	md, err := ice.NewMetadata(body.Schema, iceberg.UnpartitionedSpec, ice.UnsortedSortOrder, f.scheme+f.warehouse+"/of-server/"+ns+"/"+body.Name, props)
	if err != nil {
		fail(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	answer(w, map[string]any{"metadata": md})
}

func (f *restFake) register(w http.ResponseWriter, r *http.Request, ns string) {
	var body struct {
		Name     string `json:"name"`
		Location string `json:"metadata-location"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	b, err := os.ReadFile(strings.TrimPrefix(body.Location, "file://"))
	if err != nil {
		fail(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	if f.tables[ns+"."+body.Name] != nil {
		fail(w, http.StatusConflict, "AlreadyExistsException", body.Name)
		return
	}
	md, err := ice.ParseMetadataBytes(b)
	if err != nil {
		fail(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	t := &fakeTable{md, body.Location}
	f.tables[ns+"."+body.Name] = t
	f.tableAnswer(w, t)
}

// fakeChange is a commit to one table.
type fakeChange struct {
	Identifier struct {
		Namespace []string `json:"namespace"`
		Name      string   `json:"name"`
	} `json:"identifier"`
	Requirements ice.Requirements `json:"requirements"`
	Updates      ice.Updates      `json:"updates"`
}

func (c *fakeChange) name() string {
	return strings.Join(append(c.Identifier.Namespace, c.Identifier.Name), ".")
}

func (f *restFake) commit(w http.ResponseWriter, r *http.Request) {
	var c fakeChange
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		fail(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	t, status, err := f.prepare(&c)
	if err != nil {
		fail(w, status, "CommitFailedException", err.Error())
		return
	}
	if f.lies.Load() {
		f.tableAnswer(w, f.tables[c.name()])
		return
	}
	if !f.feigns.Load() {
		f.tables[c.name()] = t
	}
	f.tableAnswer(w, t)
}

func (f *restFake) transact(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Changes []fakeChange `json:"table-changes"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, "BadRequestException", err.Error())
		return
	}
	made := map[string]*fakeTable{}
	for i := range body.Changes {
		t, status, err := f.prepare(&body.Changes[i])
		if err != nil {
			fail(w, status, "CommitFailedException", err.Error())
			return
		}
		made[body.Changes[i].name()] = t
	}
	maps.Copy(f.tables, made)
	w.WriteHeader(http.StatusNoContent)
}

// prepare returns what a table becomes by a commit: requirements are held against the table as it is now, whatever it was when the
// commit was made.
func (f *restFake) prepare(c *fakeChange) (*fakeTable, int, error) {
	now := f.tables[c.name()]
	var md ice.Metadata
	location := ""
	creates := slices.ContainsFunc(c.Requirements, func(r ice.Requirement) bool { return r.GetType() == "assert-create" })
	switch {
	case creates && now != nil:
		return nil, http.StatusConflict, fmt.Errorf("%s exists", c.name())
	case !creates && now == nil:
		return nil, http.StatusNotFound, fmt.Errorf("no table %s", c.name())
	case now != nil:
		md, location = now.md, now.location
		for _, req := range c.Requirements {
			if err := req.Validate(md); err != nil {
				return nil, http.StatusConflict, err
			}
		}
	}
	after, err := f.update(md, c.Updates, location)
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	b, err := json.Marshal(after)
	if err != nil {
		return nil, http.StatusInternalServerError, err
	}
	t := &fakeTable{location: after.Location() + "/metadata/" + uuid.NewString() + ".metadata.json"}
	if t.md, err = ice.ParseMetadataBytes(b); err != nil {
		return nil, http.StatusInternalServerError, err
	}
	file := strings.TrimPrefix(t.location, "file://")
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return nil, http.StatusInternalServerError, err
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, http.StatusInternalServerError, err
	}
	return t, 0, nil
}

func (f *restFake) update(md ice.Metadata, updates ice.Updates, location string) (ice.Metadata, error) {
	if md != nil {
		return ice.UpdateTableMetadata(md, updates, location)
	}
	b, err := ice.NewMetadataBuilder(2)
	if err != nil {
		return nil, err
	}
	for _, u := range updates {
		if err := u.Apply(b); err != nil {
			return nil, fmt.Errorf("%s: %w", u.Action(), err)
		}
	}
	return b.Build()
}

func (f *restFake) drop(w http.ResponseWriter, r *http.Request, name string) {
	if f.tables[name] == nil {
		fail(w, http.StatusNotFound, "NoSuchTableException", name)
		return
	}
	if r.FormValue("purgeRequested") != "false" {
		f.t.Error("the server is asked to purge")
	}
	delete(f.tables, name)
	w.WriteHeader(http.StatusNoContent)
}
