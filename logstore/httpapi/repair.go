package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"firn/changelog"
	"firn/logstore"
	"firn/state"
)

// Repairs is what is done with parked records. Its errors: logstore.ErrNoParked; state.ErrNotFound, no such table; a
// *RefusedError.
type Repairs interface {
	Edit(ctx context.Context, id uint64, e ParkedChange) error
	Skip(ctx context.Context, id uint64, queue bool) (RepairOutcome, error)
	Replay(ctx context.Context, id uint64, force bool) (RepairOutcome, error)
	ReplayTable(ctx context.Context, table string) (RepairOutcome, error)
	// Explain decodes a record and changes nothing.
	Explain(ctx context.Context, id uint64) (ParkedExplanation, error)
}

// ParkedExplanation tells why a record is parked, and how far its bytes can be read.
type ParkedExplanation struct {
	Rule       string        `json:"rule"`       // that it has broken
	Queue      bool          `json:"queue"`      // it is replayed with the others of its key
	Superseded bool          `json:"superseded"` // a later change of its key was applied
	Now        string        `json:"now"`        // the reason why it cannot be decoded as the route is now; empty: it can
	NowDetail  string        `json:"now_detail"`
	Key        ParkedReading `json:"key"`
	Value      ParkedReading `json:"value"`
}

// ParkedReading is how far bytes can be read as JSON.
type ParkedReading struct {
	Text  string `json:"text"`
	Bytes int64  `json:"bytes"`
	Path  string `json:"path"`  // where reading ends, as in /payload/after/tags/3
	Error string `json:"error"` // why; empty: all was read
}

// ParkedChange is an edit. What is nil stays.
type ParkedChange struct {
	By      string
	Key     *[]byte
	Value   *[]byte
	Headers *[]changelog.Header
}

// RepairOutcome is what became of parked records.
type RepairOutcome struct {
	Applied  int             `json:"applied"`
	Skipped  int             `json:"skipped"`
	Failed   int             `json:"failed"`   // still parked
	Failures []RepairFailure `json:"failures"` // the first of them
}

// RepairFailure is a record that is still parked.
type RepairFailure struct {
	ID     uint64 `json:"id"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

// RefusedError says that what was asked is not done, and what to do instead.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

// serveParkedExplain answers GET /v1/parked/{id}/explain.
func (a *API) serveParkedExplain(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	n, err := a.repairable(args[0])
	if err != nil {
		return err
	}
	e, err := a.o.Repairs.Explain(r.Context(), n)
	if err != nil {
		return repairProblem(err, args[0])
	}
	return writeJSON(w, e)
}

// serveParkedSkip answers POST /v1/parked/{id}:skip.
func (a *API) serveParkedSkip(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	return a.repair(w, r, args[0], query, "queue", Repairs.Skip)
}

// serveParkedReplay answers POST /v1/parked/{id}:replay.
func (a *API) serveParkedReplay(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	return a.repair(w, r, args[0], query, "force", Repairs.Replay)
}

func (a *API) repair(w http.ResponseWriter, r *http.Request, id, query, flag string, do func(Repairs, context.Context, uint64, bool) (RepairOutcome, error)) error {
	p, err := parseQuery(query, flag)
	if err != nil {
		return err
	}
	set, err := p.boolean(flag, false)
	if err != nil {
		return err
	}
	n, err := a.repairable(id)
	if err != nil {
		return err
	}
	out, err := do(a.o.Repairs, r.Context(), n, set)
	if err != nil {
		return repairProblem(err, id)
	}
	return writeOutcome(w, out)
}

func writeOutcome(w http.ResponseWriter, out RepairOutcome) error {
	if out.Failures == nil {
		out.Failures = []RepairFailure{}
	}
	return writeJSON(w, out)
}

// serveParkedReplayTable answers POST /v1/parked:replay.
func (a *API) serveParkedReplayTable(w http.ResponseWriter, r *http.Request, _ [2]string, query string) error {
	p, err := parseQuery(query, "table")
	if err != nil {
		return err
	}
	name, ok := p["table"]
	if !ok {
		return badRequest("table= is needed: whose parked records are to be replayed")
	}
	if a.o.Repairs == nil {
		return noRepairs()
	}
	out, err := a.o.Repairs.ReplayTable(r.Context(), name)
	if errors.Is(err, state.ErrNotFound) {
		return problemf(http.StatusNotFound, "not-found", "no table %q: GET /v1/tables lists them", name)
	}
	if err != nil {
		return repairProblem(err, "of "+name)
	}
	return writeOutcome(w, out)
}

func noRepairs() error {
	return problemf(http.StatusNotImplemented, "not-available", "this process reads no sources: a running server explains, edits, skips and replays parked records")
}

// repairable reads the id of a record to repair.
func (a *API) repairable(id string) (uint64, error) {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return 0, badRequest("parked record %q: not a number", id)
	}
	if a.o.Repairs == nil {
		return 0, noRepairs()
	}
	return n, nil
}

func repairProblem(err error, id string) error {
	if errors.Is(err, logstore.ErrNoParked) {
		return problemf(http.StatusNotFound, "not-found", "no parked record %s: GET /v1/parked lists them", id)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return problemf(http.StatusConflict, "refused", "%s", refused.Why)
	}
	return err
}

// parkedEdit is the body of POST /v1/parked/{id}:edit. What is not there stays as it is.
type parkedEdit struct {
	By          string          `json:"by"`
	RecordKey   json.RawMessage `json:"record_key"`
	RecordValue json.RawMessage `json:"record_value"`
	Headers     *[]struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
	} `json:"headers"`
}

// serveParkedEdit answers POST /v1/parked/{id}:edit with the record.
func (a *API) serveParkedEdit(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	n, err := a.repairable(args[0])
	if err != nil {
		return err
	}
	body, err := readAll(nil, http.MaxBytesReader(w, r.Body, a.o.BodyBytes))
	if err != nil {
		return tooLarge(err)
	}
	c, err := parseEdit(body)
	if err != nil {
		return err
	}
	if err := a.o.Repairs.Edit(r.Context(), n, c); err != nil {
		return repairProblem(err, args[0])
	}
	return a.serveParkedRecord(w, r, args, "")
}

func parseEdit(body []byte) (ParkedChange, error) {
	var e parkedEdit
	if err := json.Unmarshal(body, &e); err != nil {
		return ParkedChange{}, badRequest("body: %s", err)
	}
	c := ParkedChange{By: e.By}
	var err error
	if c.Key, err = parsePayload("record_key", e.RecordKey); err != nil {
		return c, err
	}
	if c.Value, err = parsePayload("record_value", e.RecordValue); err != nil {
		return c, err
	}
	if e.Headers != nil {
		headers := []changelog.Header{}
		for _, h := range *e.Headers {
			value, err := parsePayload("header "+h.Key, h.Value)
			if err != nil {
				return c, err
			}
			if value == nil {
				value = new([]byte)
			}
			headers = append(headers, changelog.Header{Key: h.Key, Value: *value})
		}
		c.Headers = &headers
	}
	if c.Key == nil && c.Value == nil && c.Headers == nil {
		return c, badRequest("the body has none of record_key, record_value and headers: nothing is edited")
	}
	return c, nil
}

// parsePayload reads {"text":…}, {"base64":…} or null. nil: it is not there.
func parsePayload(name string, raw json.RawMessage) (*[]byte, error) {
	if raw == nil {
		return nil, nil //nolint:nilnil // nothing is no error
	}
	var v *struct {
		Text   *string `json:"text"`
		Base64 *[]byte `json:"base64"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, badRequest("%s: %s", name, err)
	}
	var b []byte
	switch {
	case v == nil:
	case v.Text != nil && v.Base64 == nil:
		b = []byte(*v.Text)
	case v.Base64 != nil && v.Text == nil:
		b = *v.Base64
	default:
		return nil, badRequest(`%s: want {"text":…}, {"base64":…} or null`, name)
	}
	return &b, nil
}

// parkedEdited is an edit as GET /v1/parked/{id} shows it.
type parkedEdited struct {
	By          string         `json:"by"`
	Time        string         `json:"time"`
	RecordKey   payload        `json:"record_key"`
	RecordValue payload        `json:"record_value"`
	Headers     []parkedHeader `json:"headers"`
}

// parkedCut tells of a value that is not kept whole.
type parkedCut struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// extras shows what was done to a parked record.
func (d *parkedDetail) extras(p *changelog.Parked) {
	if p.Cut != nil {
		d.Cut = &parkedCut{Bytes: p.Cut.Bytes, SHA256: fmt.Sprintf("%x", p.Cut.SHA256)}
	}
	if p.Edit != nil {
		d.Edit = &parkedEdited{
			By: p.Edit.By, Time: instantText(p.Edit.Time), RecordKey: p.Edit.RecordKey, RecordValue: p.Edit.RecordValue, Headers: headersOf(p.Edit.Headers),
		}
	}
}

func headersOf(all []changelog.Header) []parkedHeader {
	out := []parkedHeader{}
	for _, h := range all {
		out = append(out, parkedHeader{Key: h.Key, Value: h.Value})
	}
	return out
}
