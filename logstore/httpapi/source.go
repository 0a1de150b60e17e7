package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"firn/state"
)

// SourceDetail is how a source does, and how its topics are read.
type SourceDetail struct {
	SourceStatus

	Topics []TopicDetail `json:"topics"`
}

// TopicDetail is how the records of a topic are read, and what the newest of them was.
type TopicDetail struct {
	Topic      string            `json:"topic"`
	Partitions int               `json:"partitions"`
	Table      string            `json:"table"`
	Route      string            `json:"route"` // the pattern that it matches; default: none
	Shape      string            `json:"shape"`
	Format     string            `json:"format"`
	KeyFormat  string            `json:"key_format"`
	Key        []string          `json:"key"`    // columns; empty: there is none, or no change was read yet
	KeyOf      string            `json:"key_of"` // message, none, columns: where the key comes from
	Policies   map[string]string `json:"policies"`
	Columns    []TopicColumn     `json:"columns"`
	Rejected   string            `json:"rejected,omitempty"` // why changes of that kind do not fit the table
	Warnings   []string          `json:"warnings"`
	Last       *LastRecord       `json:"last"` // null: none was read since the process began
}

// TopicColumn is a column of a topic's newest change.
type TopicColumn struct {
	Name    string  `json:"name"`    // at the source
	Connect string  `json:"connect"` // the semantic name of its type there; empty: none, or not known
	Type    string  `json:"type"`    // what it is read as
	Column  *string `json:"column"`  // in the table; null: it is dropped
	Stored  *string `json:"stored"`  // the type there
	Key     bool    `json:"key"`
}

// LastRecord is the newest record of a topic that was read.
type LastRecord struct {
	Partition  int32   `json:"partition"`
	Offset     int64   `json:"offset"`
	Time       *string `json:"time"` // the broker's
	Read       string  `json:"read"`
	Outcome    string  `json:"outcome"`          // applied, skipped, parked, replayed, duplicate
	Reason     string  `json:"reason,omitempty"` // of parked ones
	Kind       string  `json:"kind,omitempty"`   // change, truncate, tombstone, heartbeat, …; absent: it could not be read
	Op         string  `json:"op,omitempty"`
	Snapshot   bool    `json:"snapshot"`
	Connector  string  `json:"connector,omitempty"`
	Position   string  `json:"position,omitempty"` // the source's
	SourceTime *string `json:"source_time"`
}

// serveSourceDetail answers GET /v1/sources/{source}.
func (a *API) serveSourceDetail(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	if strings.Contains(args[0], ":") { // a verb that is not there: names have none
		return noSource(args[0])
	}
	if a.o.Sources == nil {
		return problemf(http.StatusNotImplemented, "not-available", "this process reads no sources")
	}
	d, err := a.o.Sources.Source(r.Context(), args[0])
	if errors.Is(err, state.ErrNotFound) {
		return noSource(args[0])
	}
	if err != nil {
		return err
	}
	return writeJSON(w, d)
}

func noSource(name string) error {
	return problemf(http.StatusNotFound, "not-found", "no source %q: GET /v1/sources lists them", name)
}

// SourceReset says where partitions of a source are to be read on.
type SourceReset struct {
	Topic     string // empty: all
	Partition int32  // -1: all
	To        string // earliest, latest or an offset
	DryRun    bool   // only tell what it would do
}

// ResetStep is what a reset does to one partition.
type ResetStep struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Table     string `json:"table"`
	From      int64  `json:"from"` // the offset that would be read next; -1: it was never read
	To        int64  `json:"to"`
	Effect    string `json:"effect"` // for people
}

// serveReset answers POST /v1/sources/{source}:reset.
func (a *API) serveReset(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	p, err := parseQuery(query, "to", "topic", "partition", "dry_run")
	if err != nil {
		return err
	}
	to := SourceReset{Topic: p["topic"], To: p["to"]}
	if to.To != "earliest" && to.To != "latest" {
		if n, err := strconv.ParseInt(to.To, 10, 64); err != nil || n < 0 {
			return badRequest("to=%s: not earliest, latest or an offset", to.To)
		}
		if to.Topic == "" || p["partition"] == "" {
			return badRequest("to=%s: an offset is one of a partition: topic= and partition= are needed", to.To)
		}
	}
	to.Partition = -1
	if text, ok := p["partition"]; ok {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return badRequest("partition=%s: not a partition's number", text)
		}
		to.Partition = int32(n)
	}
	if to.DryRun, err = p.boolean("dry_run", false); err != nil {
		return err
	}
	if a.o.Sources == nil {
		return problemf(http.StatusNotImplemented, "not-available", "this process reads no sources")
	}
	steps, err := a.o.Sources.Reset(r.Context(), args[0], to)
	if errors.Is(err, state.ErrNotFound) {
		return noSource(args[0])
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return problemf(http.StatusConflict, "refused", "%s", refused.Why)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, struct {
		Source     string      `json:"source"`
		DryRun     bool        `json:"dry_run"`
		Partitions []ResetStep `json:"partitions"`
	}{args[0], to.DryRun, steps})
}
