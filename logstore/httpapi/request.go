package httpapi

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Header values that every answer shares: a ResponseWriter copies the slices' strings, it does not change them.
var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
	ndjsonType  = []string{"application/x-ndjson"}
	sseType     = []string{"text/event-stream"}
	yamlType    = []string{"application/yaml"}
	noStore     = []string{"no-store"}
)

// target splits a request's path and query, neither of them decoded.
func target(r *http.Request) (path, query string) {
	path = r.RequestURI
	if !strings.HasPrefix(path, "/") { // a proxy's absolute form
		return r.URL.EscapedPath(), r.URL.RawQuery
	}
	path, query, _ = strings.Cut(path, "?")
	return path, query
}

// segment decodes a path segment.
func segment(raw string) (string, error) {
	if strings.IndexByte(raw, '%') < 0 {
		return raw, nil
	}
	s, err := url.PathUnescape(raw)
	if err != nil {
		return "", badRequest("path segment %q: %s", raw, err)
	}
	return s, nil
}

// handler answers a request: args are the path's parts in braces, the first one decoded, query is not decoded. An error
// is returned only if nothing is written yet.
type handler func(w http.ResponseWriter, r *http.Request, args [2]string, query string) error

// route is one method of one path.
type route struct {
	method, path string
	pieces       []string // of the path, between the parts in braces
	serve        handler
}

// routesOf lists all routes, the hot one first.
func routesOf(a *API) []route {
	routes := []route{
		{method: "GET", path: "/v1/tables/{table}/rows/{key}", serve: a.serveRow},
		{method: "POST", path: "/v1/tables/{table}/rows:get", serve: a.serveBatch},
		{method: "GET", path: "/v1/tables/{table}/rows", serve: a.serveRows},
		{method: "GET", path: "/v1/tables/{table}/changes", serve: a.serveChanges},
		{method: "GET", path: "/v1/tables/{table}/dump", serve: a.serveDump},
		{method: "POST", path: "/v1/tables/{table}/optimize", serve: a.serveOptimize},
		{method: "GET", path: "/v1/tables/{table}", serve: a.serveTable},
		{method: "GET", path: "/v1/tables", serve: a.serveTables},
		{method: "GET", path: "/v1/lake", serve: a.serveLake},
		{method: "GET", path: "/v1/parked/{id}/explain", serve: a.serveParkedExplain},
		{method: "POST", path: "/v1/parked/{id}:edit", serve: a.serveParkedEdit},
		{method: "POST", path: "/v1/parked/{id}:skip", serve: a.serveParkedSkip},
		{method: "POST", path: "/v1/parked/{id}:replay", serve: a.serveParkedReplay},
		{method: "POST", path: "/v1/parked:replay", serve: a.serveParkedReplayTable},
		{method: "GET", path: "/v1/parked/{id}", serve: a.serveParkedRecord},
		{method: "GET", path: "/v1/parked", serve: a.serveParked},
		{method: "GET", path: "/v1/sources", serve: a.serveSources},
		{method: "POST", path: "/v1/sources/{source}:pause", serve: a.servePause},
		{method: "POST", path: "/v1/sources/{source}:resume", serve: a.serveResume},
		{method: "POST", path: "/v1/sources/{source}:reset", serve: a.serveReset},
		{method: "GET", path: "/v1/sources/{source}", serve: a.serveSourceDetail},
		{method: "GET", path: "/openapi.yaml", serve: serveOpenAPI},
	}
	for i := range routes {
		rest := routes[i].path
		for {
			literal, after, more := strings.Cut(rest, "{")
			routes[i].pieces = append(routes[i].pieces, literal)
			if !more {
				break
			}
			_, rest, _ = strings.Cut(after, "}")
		}
	}
	return routes
}

// match takes the parts in braces out of a path. A part holds no slash.
func (rt *route) match(path string) (args [2]string, ok bool) {
	rest, ok := strings.CutPrefix(path, rt.pieces[0])
	if !ok {
		return args, false
	}
	for i, piece := range rt.pieces[1:] {
		end := strings.IndexByte(rest, '/')
		if i == len(rt.pieces)-2 { // the last one: the piece ends the path
			if end = len(rest) - len(piece); end < 0 || strings.IndexByte(rest[:end], '/') >= 0 {
				return args, false
			}
		}
		if end < 0 || !strings.HasPrefix(rest[end:], piece) {
			return args, false
		}
		args[i], rest = rest[:end], rest[end+len(piece):]
	}
	return args, rest == ""
}

// ServeHTTP routes a request. HEAD is GET without a body, which net/http drops.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := a.route(w, r); err != nil {
		a.fail(w, err)
	}
}

func (a *API) route(w http.ResponseWriter, r *http.Request) error {
	path, query := target(r)
	allow := ""
	for i := range a.routes {
		rt := &a.routes[i]
		args, ok := rt.match(path)
		if !ok || args[0] == "" && len(rt.pieces) > 1 {
			continue
		}
		if r.Method != rt.method && (r.Method != http.MethodHead || rt.method != http.MethodGet) {
			allow = rt.method
			continue
		}
		var err error
		if args[0], err = segment(args[0]); err != nil {
			return err
		}
		if err = rt.serve(w, r, args, query); err != nil && strings.HasPrefix(rt.path, "/v1/tables/{table}") {
			a.markApplied(w.Header(), args[0], err)
		}
		return err
	}
	if allow == "" {
		return problemf(http.StatusNotFound, "not-found", "nothing is served at %s: see /openapi.yaml", path)
	}
	p := problemf(http.StatusMethodNotAllowed, "method", "%s is not served here, %s is", r.Method, allow)
	p.allow = allow
	return p
}

// parameters are a request's query parameters, decoded. Each is known and there once.
type parameters map[string]string

// parseQuery decodes a query. Parameters that are not among known are an error: a misspelt one must not be ignored.
func parseQuery(query string, known ...string) (parameters, error) {
	if query == "" {
		return nil, nil //nolint:nilnil // no parameters: a nil map reads as an empty one
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, badRequest("query: %s", err)
	}
	p := make(parameters, len(values))
	for name, v := range values {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return nil, badRequest("no query parameter is known here, not %q", name)
			}
			return nil, badRequest("query parameter %q is not known here: %s are", name, strings.Join(known, ", "))
		}
		if len(v) != 1 {
			return nil, badRequest("query parameter %s is there %d times", name, len(v))
		}
		p[name] = v[0]
	}
	return p, nil
}

// columns returns the names of columns=a,b; commas within a name are percent-encoded once more.
func (p parameters) columns() ([]string, error) {
	text, ok := p["columns"]
	if !ok {
		return nil, nil
	}
	names := strings.Split(text, ",")
	for i, n := range names {
		name, err := segment(n)
		if err != nil {
			return nil, err
		}
		if name == "" {
			return nil, badRequest("columns=%s: an empty name", text)
		}
		names[i] = name
	}
	return names, nil
}

// number returns a whole number from 1 to most, or missing if it is not given.
func (p parameters) number(name string, missing, most int) (int, error) {
	text, ok := p[name]
	if !ok {
		return missing, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badRequest("%s=%s: not a whole number from 1 to %d", name, text, most)
	}
	return n, nil
}

// duration returns a duration such as 5s or 250ms, from 0 to most, or missing if it is not given.
func (p parameters) duration(name string, missing, most time.Duration) (time.Duration, error) {
	text, ok := p[name]
	if !ok {
		return missing, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		return 0, badRequest("%s=%s: not a duration such as 5s, at most %s", name, text, most)
	}
	return d, nil
}

// boolean returns true or false, or missing if it is not given.
func (p parameters) boolean(name string, missing bool) (bool, error) {
	switch text, ok := p[name]; {
	case !ok:
		return missing, nil
	case text == "true":
		return true, nil
	case text == "false":
		return false, nil
	default:
		return false, badRequest("%s=%s: not true or false", name, text)
	}
}

// oneOf returns one of the values, or the first if it is not given.
func (p parameters) oneOf(name string, values ...string) (string, error) {
	text, ok := p[name]
	if !ok {
		return values[0], nil
	}
	if !slices.Contains(values, text) {
		return "", badRequest("%s=%s: %s are known", name, text, strings.Join(values, ", "))
	}
	return text, nil
}

// tooLarge turns what http.MaxBytesReader returns into a problem.
func tooLarge(err error) error {
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return problemf(http.StatusRequestEntityTooLarge, "too-large", "the body has more than %d bytes: split it", limit.Limit)
	}
	return err
}
