package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/logstore"
	"firn/state"
)

// problemError is an error that the client sees (RFC 9457). Slugs are stable: clients branch on them.
type problemError struct {
	status  int
	slug    string
	detail  string // what, where, what to do next
	applied changelog.SeqNum
	known   bool   // applied is known and told
	oldest  uint64 // changes-trimmed: the oldest SeqNum held
	allow   string // 405
	retry   int    // seconds, for Retry-After; 0: none
}

func (p *problemError) Error() string { return p.slug + ": " + p.detail }

func problemf(status int, slug, format string, args ...any) *problemError {
	return &problemError{status: status, slug: slug, detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *problemError {
	return problemf(http.StatusBadRequest, "bad-request", format, args...)
}

// titles are the sentences of the slugs; openapi.yaml lists the slugs.
var titles = map[string]string{
	"bad-request":      "the request is wrong",
	"bad-key":          "the key does not fit the table",
	"no-key":           "the table has no key",
	"table-not-found":  "no such table",
	"row-not-found":    "the key has no row",
	"not-found":        "no such thing",
	"method":           "the path has other methods",
	"not-acceptable":   "no such representation",
	"not-yet-applied":  "the position is not applied yet",
	"changes-trimmed":  "the changes are no longer held",
	"position-unknown": "the position cannot be waited for",
	"too-large":        "more than one request may be or ask for",
	"too-many":         "too many of these requests at once",
	"not-available":    "this process does not serve it",
	"rebuilding":       "the table's rows are being rebuilt from the lake",
	"failed":           "something failed inside",
	"shutting-down":    "the server is shutting down",
	"optimize-failed":  "the round failed",
	"refused":          "what was asked is not done",
}

// asProblem turns any error into what the client sees. What is not a problem yet is ours: logged, and told in general.
func (a *API) asProblem(err error) *problemError {
	if p, ok := errors.AsType[*problemError](err); ok {
		return p
	}
	switch {
	case errors.Is(err, rowjson.ErrKey):
		return &problemError{status: http.StatusBadRequest, slug: "bad-key", detail: err.Error()}
	case errors.Is(err, state.ErrNotFound):
		return &problemError{status: http.StatusNotFound, slug: "not-found", detail: err.Error()}
	case errors.Is(err, logstore.ErrTrimmed):
		return &problemError{status: http.StatusGone, slug: "changes-trimmed", detail: err.Error() + ": start with from=snapshot"}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, logstore.ErrClosed):
		return &problemError{status: http.StatusServiceUnavailable, slug: "shutting-down", detail: "the request was ended: try again", retry: 1}
	}
	a.o.Logger.Error("request failed", "err", err)
	return &problemError{status: http.StatusInternalServerError, slug: "failed", detail: "see the server's log"}
}

// append writes the problem's JSON.
func (p *problemError) append(dst []byte) []byte {
	dst = append(dst, `{"type":`...)
	dst = rowjson.AppendString(dst, p.slug)
	dst = append(dst, `,"title":`...)
	dst = rowjson.AppendString(dst, titles[p.slug])
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(p.status), 10)
	dst = append(dst, `,"detail":`...)
	dst = rowjson.AppendString(dst, p.detail)
	if p.known {
		dst = append(dst, `,"applied":`...)
		dst = strconv.AppendUint(dst, uint64(p.applied), 10)
	}
	if p.oldest > 0 {
		dst = append(dst, `,"oldest":`...)
		dst = strconv.AppendUint(dst, p.oldest, 10)
	}
	return append(dst, '}')
}

// fail answers with err.
func (a *API) fail(w http.ResponseWriter, err error) {
	p := a.asProblem(err)
	h := w.Header()
	h["Content-Type"] = problemType
	h["Cache-Control"] = noStore
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retry))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(append(p.append(nil), '\n')) // a client that is gone needs no answer
}

// markApplied sets Firn-Applied and Firn-Position on an error about a table that is there: to what the error says, or
// to where the table is.
func (a *API) markApplied(h http.Header, table string, err error) {
	if h.Get("Firn-Applied") != "" {
		return
	}
	v, verr := a.table(table)
	if verr != nil {
		return
	}
	if p, ok := errors.AsType[*problemError](err); ok && p.known {
		v.setApplied(h, p.applied)
	} else if _, applied, berr := a.store.Bounds(v.t.ID); berr == nil {
		v.setApplied(h, applied)
	}
}
