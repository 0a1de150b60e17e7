package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"unicode/utf8"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/logstore"
)

// parkedSummary is a parked record in a list.
type parkedSummary struct {
	ID        uint64          `json:"id"`
	Table     *string         `json:"table"` // null: the record reached none
	Source    string          `json:"source"`
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Reason    string          `json:"reason"`
	Detail    string          `json:"detail"`
	Applied   bool            `json:"applied"` // the change was applied, with a value reduced or nulled
	Key       json.RawMessage `json:"key"`     // null: not readable
	Time      string          `json:"time"`
}

// parkedDetail is one parked record as it was received.
type parkedDetail struct {
	parkedSummary

	Timestamp   string         `json:"timestamp"` // the record's own
	RecordKey   payload        `json:"record_key"`
	RecordValue payload        `json:"record_value"`
	Headers     []parkedHeader `json:"headers"`
	Cut         *parkedCut     `json:"cut,omitempty"`  // the value is the beginning of a larger one
	Edit        *parkedEdited  `json:"edit,omitempty"` // what a replay reads instead
}

type parkedHeader struct {
	Key   string  `json:"key"`
	Value payload `json:"value"`
}

// payload is bytes as they were received: {"text":…} if they are UTF-8, else {"base64":…}; null if there were none.
type payload []byte

// MarshalJSON implements json.Marshaler.
func (p payload) MarshalJSON() ([]byte, error) {
	switch {
	case p == nil:
		return []byte("null"), nil
	case utf8.Valid(p):
		return append(rowjson.AppendString([]byte(`{"text":`), []byte(p)), '}'), nil
	}
	return append(base64.StdEncoding.AppendEncode([]byte(`{"base64":"`), p), `"}`...), nil
}

// serveParked answers GET /v1/parked: one JSON line a record, by table and id.
func (a *API) serveParked(w http.ResponseWriter, r *http.Request, _ [2]string, query string) error {
	p, err := parseQuery(query, "table", "after", "limit")
	if err != nil {
		return err
	}
	limit, err := p.number("limit", 1<<31-1, 1<<31-1)
	if err != nil {
		return err
	}
	list, err := a.parkedOf(p)
	if err != nil {
		return err
	}
	release, err := a.admit(a.snapshots, "snapshots")
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := a.ending(r.Context())
	defer cancel()
	out := &feedWriter{}
	for record, err := range list(ctx) {
		if err == nil && out.w == nil {
			w.Header()["Cache-Control"] = noStore
			out.begin(w, a)
			defer out.end()
		}
		if err != nil {
			return out.fail(a, err)
		}
		line, err := json.Marshal(a.summarize(&record))
		if err != nil {
			return out.fail(a, err)
		}
		out.control(line)
		if limit--; limit == 0 {
			break
		}
		if out.full() {
			if err := out.flush(); err != nil {
				return nil // the client is gone
			}
		}
	}
	if out.w == nil {
		out.begin(w, a)
		defer out.end()
	}
	_ = out.flush() // a client that is gone needs no answer
	return nil
}

// parkedOf returns the list that the parameters ask for.
func (a *API) parkedOf(p parameters) (func(context.Context) iter.Seq2[changelog.Parked, error], error) {
	name, ok := p["table"]
	if !ok {
		if _, ok := p["after"]; ok {
			return nil, badRequest("after= without table=: ids ascend within a table")
		}
		return a.store.ParkedAll, nil
	}
	v, err := a.table(name)
	if err != nil {
		return nil, err
	}
	var after uint64
	if text, ok := p["after"]; ok {
		if after, err = strconv.ParseUint(text, 10, 63); err != nil {
			return nil, badRequest("after=%s: not the id of a parked record", text)
		}
	}
	return func(ctx context.Context) iter.Seq2[changelog.Parked, error] {
		return a.store.ParkedList(ctx, v.t.ID, after)
	}, nil
}

// fail tells the client of an error: as the answer if nothing is sent yet, else as its last line.
func (o *feedWriter) fail(a *API, err error) error {
	if o.w == nil {
		return err
	}
	o.control(append(a.asProblem(err).append([]byte(`{"error":`)), '}'))
	_ = o.flush() // the answer is over anyway
	return nil
}

func (a *API) summarize(p *changelog.Parked) parkedSummary {
	s := parkedSummary{
		ID: p.ID, Source: p.Position.Source, Topic: p.Position.Topic, Partition: p.Position.Partition, Offset: p.Position.Offset,
		Reason: p.Reason, Detail: p.Detail, Applied: p.Applied, Time: instantText(p.Time),
	}
	t, ok := a.registry.ByID(p.Table)
	if !ok {
		return s
	}
	s.Table = &t.Name
	if p.Key != nil {
		if key, err := rowjson.AppendKeyObject(nil, t.Schemas.Current(), p.Key); err == nil {
			s.Key = key
		}
	}
	return s
}

// serveParkedRecord answers GET /v1/parked/{id}.
func (a *API) serveParkedRecord(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return badRequest("parked record %q: not a number", args[0])
	}
	p, err := a.store.ParkedGet(r.Context(), id)
	if err != nil {
		if errors.Is(err, logstore.ErrNoParked) {
			return problemf(http.StatusNotFound, "not-found", "no parked record %d: GET /v1/parked lists them", id)
		}
		return err
	}
	d := parkedDetail{
		parkedSummary: a.summarize(&p), RecordKey: p.RecordKey, RecordValue: p.RecordValue, Headers: headersOf(p.Headers), Timestamp: instantText(p.Timestamp * 1000),
	}
	d.extras(&p)
	return writeJSON(w, d)
}

// instantText shows a time in µs since 1970-01-01 UTC.
func instantText(micros int64) string {
	return string(rowjson.AppendText(nil, instant, changelog.Value{I: micros}))
}
