package table

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Properties of a REST catalog's client (Options.Client), named as Iceberg's own clients name them, except tls.ca.
const (
	clientToken      = "token"             // bearer token
	clientCredential = "credential"        // ID:SECRET, or SECRET: exchanged for a token (OAuth2 client credentials)
	clientOAuthURI   = "oauth2-server-uri" // where; default URI/v1/oauth/tokens
	clientScope      = "scope"             // default catalog
	clientPrefix     = "prefix"            // of paths; the server's own configuration wins
	clientWarehouse  = "warehouse"         // which of the server's warehouses
	clientTLSCA      = "tls.ca"            // PEM file of the authorities to trust, besides the system's
	clientHeader     = "header."           // header.X: a header of every request
)

// Bounds of one request: how long an answer may take, and how large it may be.
const (
	restTimeout  = time.Minute
	restMaxBytes = 256 << 20
)

// restClient speaks with the server of a REST catalog. Safe for concurrent use.
type restClient struct {
	base      *url.URL // with /v1/{prefix}/ at its end
	http      *http.Client
	header    http.Header
	endpoints []string // what the server offers; nil: it does not say

	mu struct {
		sync.Mutex
		oauth *clientcredentials.Config // nil: no credential
		token oauth2.TokenSource        // nil: no authentication
	}
}

// newRESTClient asks the server for its configuration.
// Source: the operation getConfig; precedence as in Iceberg's Java client: defaults, ours, overrides.
func newRESTClient(ctx context.Context, uri string, props map[string]string) (*restClient, error) {
	base, err := url.Parse(strings.TrimSuffix(uri, "/"))
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("a REST catalog's URI is http(s)://HOST:PORT/PATH: %w", ErrUnsupported)
	}
	if err := checkClientProperties(props); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
	if transport.TLSClientConfig, err = tlsOf(props[clientTLSCA]); err != nil {
		return nil, err
	}
	c := &restClient{base: base.JoinPath("v1/"), header: http.Header{}}
	c.http = &http.Client{Transport: transport, Timeout: restTimeout, CheckRedirect: noRedirects}
	for k, v := range props {
		if name, ok := strings.CutPrefix(k, clientHeader); ok {
			c.header.Set(name, v)
		}
	}
	c.authenticate(ctx, props)
	query := url.Values{}
	if w := props[clientWarehouse]; w != "" {
		query.Set("warehouse", w)
	}
	var config struct {
		Defaults  map[string]string `json:"defaults"`
		Overrides map[string]string `json:"overrides"`
		Endpoints []string          `json:"endpoints"`
	}
	if _, err := c.do(ctx, http.MethodGet, "config", query, nil, nil, &config); err != nil {
		c.close()
		return nil, err
	}
	prefix := config.Defaults[clientPrefix]
	for _, p := range []map[string]string{props, config.Overrides} {
		if v, ok := p[clientPrefix]; ok {
			prefix = v
		}
	}
	c.base, c.endpoints = c.base.JoinPath(prefix, "/"), config.Endpoints
	return c, nil
}

// noRedirects: a POST that is redirected may become a GET, whose answer looks like success; and headers with secrets would go along.
func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func checkClientProperties(props map[string]string) error {
	known := []string{
		clientToken, clientCredential, clientOAuthURI, clientScope, clientPrefix, clientWarehouse, clientTLSCA,
	}
	for k := range props {
		if !slices.Contains(known, k) && !strings.HasPrefix(k, clientHeader) {
			return fmt.Errorf("property %q: a REST catalog has %s, %sNAME and table-default.NAME: %w", k, strings.Join(known, ", "), clientHeader, ErrUnsupported)
		}
	}
	if props[clientToken] != "" && props[clientCredential] != "" {
		return fmt.Errorf("properties %s and %s: only one of them: %w", clientToken, clientCredential, ErrUnsupported)
	}
	return nil
}

func tlsOf(ca string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca == "" {
		return config, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("property %s: %w", clientTLSCA, err)
	}
	if config.RootCAs, err = x509.SystemCertPool(); err != nil {
		config.RootCAs = x509.NewCertPool()
	}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("property %s: %s holds no certificate in PEM: %w", clientTLSCA, ca, ErrUnsupported)
	}
	return config, nil
}

func (c *restClient) authenticate(ctx context.Context, props map[string]string) {
	if token := props[clientToken]; token != "" {
		c.mu.token = oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})
		return
	}
	credential := props[clientCredential]
	if credential == "" {
		return
	}
	id, secret, both := strings.Cut(credential, ":")
	if !both {
		id, secret = "", credential
	}
	o := &clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: props[clientOAuthURI], Scopes: []string{"catalog"}, AuthStyle: oauth2.AuthStyleInParams,
	}
	if o.TokenURL == "" {
		o.TokenURL = c.base.JoinPath("oauth/tokens").String()
	}
	if scope := props[clientScope]; scope != "" {
		o.Scopes = strings.Fields(scope)
	}
	c.mu.oauth = o
	c.renew(ctx)
}

// renew drops the token that the credential was exchanged for; false: there is no credential. c.mu is held, or c is not shared yet.
func (c *restClient) renew(ctx context.Context) bool {
	if c.mu.oauth == nil {
		return false
	}
	// The token outlives the request that asks for it first; the client's timeout bounds it.
	c.mu.token = c.mu.oauth.TokenSource(context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, c.http))
	return true
}

func (c *restClient) close() { c.http.CloseIdleConnections() }

// offers reports whether the server says that it has an endpoint. Those that say nothing have only those of the
// specification's first version.
func (c *restClient) offers(method, path string) bool {
	return slices.Contains(c.endpoints, method+" /v1/{prefix}/"+path)
}

// statusError is an answer that is no success.
type statusError struct {
	status        int
	kind, message string // as the server gives them
}

// Error says what the server said.
func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the catalog answers %d %s: %s %s", e.status, http.StatusText(e.status), e.kind, e.message))
}

// statusOf returns the status of an answer that is no success; 0: err is none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
}

// errNotSent reports a request that never reached the server.
var errNotSent = errors.New("request was not sent")

// do makes one request, with body as JSON if there is one, and reads the answer into answer. It never repeats one that may
// have been carried out. Errors: statusError (all from 300 on), errNotSent; after others it is not known whether the server has
// carried it out.
func (c *restClient) do(ctx context.Context, method, path string, query url.Values, header http.Header, body, answer any) (http.Header, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
	got, err := c.once(ctx, method, path, query, header, payload, answer)
	if s := statusOf(err); s == http.StatusUnauthorized || s == 419 { // 419: the token's time is over. Nothing was done.
		c.mu.Lock()
		renewed := c.renew(ctx)
		c.mu.Unlock()
		if renewed {
			return c.once(ctx, method, path, query, header, payload, answer)
		}
	}
	return got, err
}

func (c *restClient) once(ctx context.Context, method, path string, query url.Values, header http.Header, payload []byte, answer any) (http.Header, error) {
	at := *c.base
	at.RawPath = at.EscapedPath() + path // path is escaped
	unescaped, err := url.PathUnescape(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	at.Path += unescaped
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(payload))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	for _, set := range []http.Header{c.header, header} {
		maps.Copy(req.Header, set)
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if err := c.sign(req); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			err = fmt.Errorf("%w: %w", errNotSent, err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, restMaxBytes+1))
	switch {
	case resp.StatusCode >= 300:
		return resp.Header, answeredError(resp.StatusCode, b)
	case err != nil:
		return nil, fmt.Errorf("%s %s: read the answer: %w", method, at.Redacted(), err)
	case len(b) > restMaxBytes:
		return nil, fmt.Errorf("%s %s: the answer is larger than %d bytes: %w", method, at.Redacted(), restMaxBytes, ErrUnsupported)
	case answer == nil:
		return resp.Header, nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return nil, fmt.Errorf("%s %s: the answer is not what a REST catalog gives: %w", method, at.Redacted(), err)
	}
	return resp.Header, nil
}

// sign adds the token. The catalog's own header.Authorization stands where there is none.
func (c *restClient) sign(req *http.Request) error {
	c.mu.Lock()
	source := c.mu.token
	c.mu.Unlock()
	if source == nil {
		return nil
	}
	token, err := source.Token()
	if err != nil {
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its text would quote the server's whole answer
			return fmt.Errorf("token for the catalog's credential: %s %s %s", refused.Response.Status, refused.ErrorCode, refused.ErrorDescription)
		}
		return fmt.Errorf("token for the catalog's credential: %w", err)
	}
	token.SetAuthHeader(req)
	return nil
}

// answeredError reads an error's body: {"error": {"message", "type", "code"}}; from proxies it may be anything.
func answeredError(status int, body []byte) error {
	var e struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil {
		e.Error.Message = strings.TrimSpace(string(body[:min(len(body), 200)]))
	}
	if len(e.Error.Message) > 500 {
		e.Error.Message = e.Error.Message[:500] + "…"
	}
	return &statusError{status, e.Error.Type, e.Error.Message}
}
