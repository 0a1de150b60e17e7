package httpapi

import (
	"errors"
	"net/http"
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
