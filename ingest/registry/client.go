// Package registry asks a schema registry, Confluent's or Apicurio's, for the schemas that records name
// (spec/debezium.md 1.6, 1.7).
package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"firn/ingest"
	"firn/ingest/decode"
)

// Options of a Client.
type Options struct {
	// URL is where the registry's REST interface begins: Confluent's (http://HOST:8081, or Apicurio's /apis/ccompat/v7), or
	// Apicurio's own (http://HOST:8080/apis/registry/v3, or v2). Required.
	URL string
	// User and Password are for HTTP's basic authentication. Default: none.
	User, Password string
	// TLS is how to trust an https server. Default: the system's authorities.
	TLS *tls.Config
	// Timeout bounds one request. Default 10s.
	Timeout time.Duration
	// Refresh is how long after the first answer that a schema is unknown it is asked for again. Default 5s.
	Refresh time.Duration
	// Negative is how long such an answer holds. Default 30s.
	Negative time.Duration
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.Timeout, 10 * time.Second}, {&o.Refresh, 5 * time.Second}, {&o.Negative, 30 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.d
		}
	}
	o.URL = strings.TrimRight(o.URL, "/")
}

// Validate reports what is wrong with o.
func (o *Options) Validate() error {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("registry: %q is not http(s)://HOST:PORT/PATH", o.URL)
	}
	return nil
}

// The bounds of 1.6, and of the cache: ids are few, and never change.
const (
	maxBody       = 4 << 20
	maxReferences = 256
	maxReferDepth = 64
	maxCached     = 10_000
)

// Client is a registry's client. It keeps what it has got, and shares requests for one schema.
type Client struct {
	o      Options
	http   *http.Client
	flight singleflight.Group

	mu struct {
		sync.Mutex
		cache map[decode.SchemaRef]answer
	}
}

var _ ingest.Schemas = (*Client)(nil)

// answer is a schema, or why there is none, which holds for a time only.
type answer struct {
	schema   decode.Schema
	rejected *decode.Rejected
	until    time.Time
}

// New returns a client. Error: o is not valid.
func New(o Options) (*Client, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: o.TLS, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
	}
	c := &Client{o: o, http: &http.Client{Transport: transport, Timeout: o.Timeout}}
	c.mu.cache = map[decode.SchemaRef]answer{}
	return c, nil
}

// Close gives connections back. Requests under way go on to their end.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Schema implements ingest.Schemas.
func (c *Client) Schema(ctx context.Context, ref decode.SchemaRef) (decode.Schema, error) {
	if a, ok := c.cached(ref); ok {
		return a.result()
	}
	shared := context.WithoutCancel(ctx) // who asked first may go; each request has its timeout
	result := c.flight.DoChan(fmt.Sprintf("%d/%d/%d/%s", ref.Kind, ref.High, ref.ID, ref.Name), func() (any, error) {
		return c.fetch(shared, ref)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return decode.Schema{}, r.Err
		}
		return r.Val.(answer).result()
	case <-ctx.Done():
		return decode.Schema{}, context.Cause(ctx)
	}
}

func (a answer) result() (decode.Schema, error) {
	if a.rejected != nil {
		rejected := *a.rejected
		return decode.Schema{}, &rejected
	}
	return a.schema, nil
}

func (c *Client) cached(ref decode.SchemaRef) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.mu.cache[ref]
	return a, ok && (a.rejected == nil || time.Now().Before(a.until))
}

func (c *Client) keep(ref decode.SchemaRef, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.cache) >= maxCached {
		for old := range c.mu.cache { // any: it is asked for again
			delete(c.mu.cache, old)
			break
		}
	}
	c.mu.cache[ref] = a
}

// fetch asks for a schema; for one that is unknown, twice: it may have been registered a moment ago. Error: the registry
// gives no answer.
func (c *Client) fetch(ctx context.Context, ref decode.SchemaRef) (answer, error) {
	schema, err := c.load(ctx, ref)
	if errors.Is(err, errUnknown) {
		time.Sleep(c.o.Refresh)
		schema, err = c.load(ctx, ref)
	}
	a := answer{schema: schema}
	if errors.Is(err, errUnknown) {
		err = &decode.Rejected{Reason: decode.ReasonSchemaUnknown, Detail: "the registry has no schema of " + ref.String()}
	}
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		a.rejected, a.until, err = rejected, time.Now().Add(c.o.Negative), nil
	}
	if err != nil {
		return answer{}, err
	}
	c.keep(ref, a)
	return a, nil
}

// errUnknown is the registry's own word that it does not have something.
var errUnknown = errors.New("registry: not known")

// load gets a schema with all that it refers to.
func (c *Client) load(ctx context.Context, ref decode.SchemaRef) (decode.Schema, error) {
	text, typ, refs, err := c.schema(ctx, ref)
	if err != nil {
		return decode.Schema{}, err
	}
	w := walk{client: c, state: map[string]int{}, native: ref.Kind > decode.RefGUID}
	for _, r := range refs {
		if err := w.visit(ctx, r, 1); err != nil {
			return decode.Schema{}, err
		}
	}
	return decode.Schema{Text: text, References: w.texts, Type: typ}, nil
}

// reference names a schema that another one uses.
type reference struct {
	Name    string
	Subject string          // Confluent's
	Version json.RawMessage // a number there, text at Apicurio's

	GroupID    string `json:"groupId"`
	ArtifactID string `json:"artifactId"`
}

// walk collects references, each after those that it has itself.
type walk struct {
	client *Client
	native bool // Apicurio's own interface
	state  map[string]int
	texts  []decode.Reference
	bytes  int
}

const (
	open = iota + 1
	done
)

func (w *walk) visit(ctx context.Context, r reference, depth int) error {
	version := strings.Trim(string(r.Version), `"`)
	var text []byte
	var refs []reference
	var err error
	key := r.Subject + "/" + version
	if w.native {
		key = artifactPath(r.GroupID, r.ArtifactID, version)
	}
	switch {
	case w.state[key] == done:
		return nil
	case w.state[key] == open:
		return invalid("reference %q is part of a circle", r.Name)
	case depth > maxReferDepth || len(w.state) >= maxReferences:
		return invalid("more than %d references, or more than %d levels of them", maxReferences, maxReferDepth)
	}
	w.state[key] = open
	if w.native {
		text, refs, err = w.client.native(ctx, "/groups/"+key, w.client.contentOf(key))
	} else {
		text, _, refs, err = w.client.confluent(ctx, "/subjects/"+url.PathEscape(r.Subject)+"/versions/"+url.PathEscape(version))
	}
	if errors.Is(err, errUnknown) {
		return invalid("reference %q (%s) is not there", r.Name, key)
	}
	if err != nil {
		return err
	}
	for _, of := range refs {
		if err := w.visit(ctx, of, depth+1); err != nil {
			return err
		}
	}
	w.state[key] = done
	if w.bytes += len(text); w.bytes > maxBody {
		return invalid("references of more than %d bytes", maxBody)
	}
	w.texts = append(w.texts, decode.Reference{Name: r.Name, Text: text})
	return nil
}

func invalid(format string, args ...any) error {
	return &decode.Rejected{Reason: decode.ReasonSchemaInvalid, Detail: fmt.Sprintf(format, args...)}
}

func artifactPath(group, artifact, version string) string {
	if group == "" {
		group = "default"
	}
	return url.PathEscape(group) + "/artifacts/" + url.PathEscape(artifact) + "/versions/" + url.PathEscape(version)
}

// contentOf returns where an artifact's text is: version 2 of the interface has no path of its own for it.
func (c *Client) contentOf(artifact string) string {
	if strings.HasSuffix(c.o.URL, "/v2") {
		return "/groups/" + artifact
	}
	return "/groups/" + artifact + "/content"
}

// schema gets one schema, its type and the names of those that it refers to.
func (c *Client) schema(ctx context.Context, ref decode.SchemaRef) (text []byte, typ string, refs []reference, err error) {
	id := fmt.Sprint(ref.ID)
	switch ref.Kind {
	case decode.RefGUID:
		return c.confluent(ctx, "/schemas/guids/"+ref.GUID())
	case decode.RefContentID:
		text, refs, err = c.native(ctx, "/ids/contentIds/"+id, "/ids/contentIds/"+id)
	case decode.RefGlobalID:
		text, refs, err = c.native(ctx, "/ids/globalIds/"+id, "/ids/globalIds/"+id)
	case decode.RefHash:
		path := "/ids/contentHashes/" + url.PathEscape(ref.Name)
		text, refs, err = c.native(ctx, path, path)
	case decode.RefArtifact:
		parts := strings.SplitN(ref.Name, "/", 3)
		path := artifactPath(parts[0], parts[1], parts[2])
		text, refs, err = c.native(ctx, "/groups/"+path, c.contentOf(path))
	case decode.RefID, decode.RefInline:
		return c.confluent(ctx, "/schemas/ids/"+id)
	}
	return text, "", refs, err
}

// confluent gets a schema over Confluent's interface. Avro is the type of those that have none.
func (c *Client) confluent(ctx context.Context, path string) (text []byte, typ string, refs []reference, err error) {
	body, err := c.get(ctx, path)
	if err != nil {
		return nil, "", nil, err
	}
	var doc struct {
		Schema     *string
		SchemaType string
		References []reference
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Schema == nil {
		return nil, "", nil, invalid("the registry's answer to %s is no schema", path)
	}
	return []byte(*doc.Schema), cmp.Or(doc.SchemaType, "AVRO"), doc.References, nil
}

// native gets a schema over Apicurio's own interface: its text, and then its references, which are under path.
func (c *Client) native(ctx context.Context, path, content string) ([]byte, []reference, error) {
	text, err := c.get(ctx, content)
	if err != nil {
		return nil, nil, err
	}
	body, err := c.get(ctx, path+"/references")
	if err != nil {
		return nil, nil, err
	}
	var refs []reference
	if err := json.Unmarshal(body, &refs); err != nil {
		return nil, nil, invalid("the registry's answer to %s/references is no list", path)
	}
	return text, refs, nil
}

// get returns the body of an answer 200. Error: errUnknown, a *decode.Rejected, ingest.ErrRegistryUnavailable; any other is a
// matter of the configuration.
func (c *Client) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.o.URL+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	req.Header.Set("Accept", "application/vnd.schemaregistry.v1+json, application/json, */*;q=0.5")
	if c.o.User != "" {
		req.SetBasicAuth(c.o.User, c.o.Password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ingest.ErrRegistryUnavailable, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: GET %s: %w", ingest.ErrRegistryUnavailable, c.o.URL+path, err)
	case len(body) > maxBody && res.StatusCode == http.StatusOK:
		return nil, invalid("the registry's answer to %s is over %d bytes", path, maxBody)
	case res.StatusCode == http.StatusOK:
		return body, nil
	case res.StatusCode == http.StatusNotFound && isOwn(body):
		return nil, errUnknown
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("registry: GET %s: %s: check registry.user, registry.password and their rights", c.o.URL+path, res.Status)
	case res.StatusCode == http.StatusNotFound, res.StatusCode >= 500, res.StatusCode == http.StatusTooManyRequests:
		return nil, fmt.Errorf("%w: GET %s: %s", ingest.ErrRegistryUnavailable, c.o.URL+path, res.Status)
	}
	return nil, fmt.Errorf("registry: GET %s: %s: check registry.url", c.o.URL+path, res.Status)
}

// isOwn reports whether the body of an answer 404 is a registry's own: a proxy's says nothing about schemas.
func isOwn(body []byte) bool {
	var doc struct {
		Code  json.Number `json:"error_code"` // Confluent's, and Apicurio's up to version 2
		Name  string      // Apicurio's
		Title string
	}
	return json.Unmarshal(body, &doc) == nil && (doc.Code != "" || doc.Name != "" && doc.Title != "")
}
