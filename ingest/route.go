package ingest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"firn/ingest/columns"
	"firn/ingest/decode"
)

// KeyRule says where a table's key comes from.
type KeyRule uint8

// The rules.
const (
	KeyMessage KeyRule = iota // the message key
	KeyColumns                // the columns that the route names
	KeyNone                   // the table has no key
)

// TruncateRule says what becomes of a truncate of the source's table.
type TruncateRule uint8

// The rules.
const (
	TruncateApply  TruncateRule = iota // deletes of all keys, if the topic has one partition and the table one topic; else it is parked
	TruncateIgnore                     // it is skipped
	TruncatePark                       // it is parked
)

// KeylessRule says what becomes of updates and deletes of a table without a key (spec/debezium.md 2.6).
type KeylessRule uint8

// The rules.
const (
	KeylessAppend  KeylessRule = iota // an update adds its new row, and the old one stays; a delete is parked
	KeylessReject                     // both are parked
	KeylessFullRow                    // one row that is equal to the old one goes; parked where the old one is not known, or order is not
)

// ParkedRule says what becomes of events of a key that has a parked one.
type ParkedRule uint8

// The rules.
const (
	ParkedSupersede ParkedRule = iota // a whole row or a delete is applied, and what is parked is superseded (spec/debezium.md 2.7)
	ParkedQueue                       // they queue behind it, in order, until it is replayed or skipped
)

// ResnapshotRule says what becomes of a snapshot that comes again for a table without a key: all its rows would be there
// twice.
type ResnapshotRule uint8

// The rules.
const (
	ResnapshotStop   ResnapshotRule = iota // the partition stops before it
	ResnapshotReload                       // the table is emptied first
)

// Route says which table a topic feeds, and how its records are read.
type Route struct {
	// Topic is an anchored regular expression. Required.
	Topic string
	// Table is the table's name; $1 or ${1} stands for what the first group of Topic matched. Default: the name of
	// the default route.
	Table string
	// Key is where the key comes from. Default: the message key.
	Key KeyRule
	// Columns are the key columns for KeyColumns.
	Columns []string
	// Keyless is what updates and deletes become where there is no key. Default: rows are only added.
	Keyless KeylessRule
	// Resnapshot is what a second snapshot of a table without a key becomes. Default: a stop.
	Resnapshot ResnapshotRule
	// Truncate is what a truncate becomes. Default: it is applied where that is safe.
	Truncate TruncateRule
	// OnParked is what becomes of events of a key that has a parked one. Default: whole rows are applied.
	OnParked ParkedRule
	// MaxRejectedRun stops the table when so many records of a partition are rejected one after the other; 0: never.
	MaxRejectedRun int
	// MaxRejectedShare stops the table when more than this share of 10,000 records of a partition is rejected; 0: never.
	MaxRejectedShare float64
	// FailFast stops the table before a record that would be parked.
	FailFast bool
	// MaxParkedBytes is how large a parked value is kept whole; of a larger one its length, SHA-256 and first 64 KiB. 0: always.
	MaxParkedBytes int64
	// KeepRepeats turns off the filter of events that a connector sends again (spec/debezium.md 2.4).
	KeepRepeats bool
	// Decode says how records are read.
	Decode decode.Options
	// Hints are added to those of Decode, by the last part of the topic's name ("": any).
	Hints map[string][]decode.Hint
	// Plan says how the table may change.
	Plan decode.PlanOptions
	// Rules change the columns of events before they are bound to the table. Columns, and Plan's renames and drops, name columns as the
	// rules leave them.
	Rules []columns.Rule

	rules *columns.Set // compiled; nil: there are none
}

// compileRules compiles the column rules.
func (r *Route) compileRules() (*columns.Set, error) {
	if len(r.Rules) == 0 {
		return nil, nil //nolint:nilnil // there are none
	}
	return columns.Compile(columns.Options{Rules: r.Rules, Key: r.Columns, NoKey: r.Key == KeyNone, WholeRows: r.Keyless == KeylessFullRow})
}

// Validate reports all that is wrong with r.
func (r *Route) Validate() error {
	var errs []error
	if _, err := regexp.Compile("^(?:" + r.Topic + ")$"); err != nil || r.Topic == "" {
		errs = append(errs, fmt.Errorf("topic pattern %q: %w", r.Topic, errors.Join(err, emptyPattern(r.Topic))))
	}
	if r.Key == KeyColumns && len(r.Columns) == 0 {
		errs = append(errs, errors.New("the key is to come from columns, and none is named"))
	}
	if r.Key != KeyColumns && len(r.Columns) > 0 {
		errs = append(errs, errors.New("key columns are named, and the key is to come from elsewhere"))
	}
	if r.MaxRejectedRun < 0 || r.MaxRejectedShare < 0 || r.MaxRejectedShare > 1 || r.MaxParkedBytes < 0 {
		errs = append(errs, errors.New("a limit of rejected records is negative, or a share above 1"))
	}
	if err := r.Decode.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := r.Plan.Validate(); err != nil {
		errs = append(errs, err)
	}
	if _, err := r.compileRules(); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("route %q: %w", r.Topic, err)
	}
	return nil
}

// sourceKey returns the key columns by the names that messages have, before the column rules.
func (r *Route) sourceKey() []string {
	names := slices.Clone(r.Columns)
	for i, name := range names {
		if r.rules != nil {
			if source, ok := r.rules.Source(name); ok {
				names[i] = source
			}
		}
	}
	return names
}

func emptyPattern(p string) error {
	if p == "" {
		return errors.New("it is empty")
	}
	return nil
}

// router finds the route of a topic: the first that matches, else the default one.
type router struct {
	routes   []Route
	patterns []*regexp.Regexp
}

func newRouter(routes []Route) *router {
	r := &router{routes: append([]Route(nil), routes...)}
	for i := range r.routes {
		d := &r.routes[i].Decode
		d.EnsureDefaults()
		d.NoKey = r.routes[i].Key == KeyNone
		d.TrustKeyless = r.routes[i].Keyless == KeylessFullRow
		r.routes[i].rules, _ = r.routes[i].compileRules() // valid
		if d.Form.Foreign() {
			d.KeyColumns = r.routes[i].sourceKey()
		}
		r.patterns = append(r.patterns, regexp.MustCompile("^(?:"+r.routes[i].Topic+")$"))
	}
	return r
}

// target is where a topic's changes go.
type target struct {
	Route
	table  string
	merges bool // a route names the table: other topics may feed it, too
}

var group = regexp.MustCompile(`\$(\d+)`)

// route returns the target of a topic.
func (r *router) route(topic string) target {
	for i, p := range r.patterns {
		match := p.FindStringSubmatchIndex(topic)
		if match == nil {
			continue
		}
		t := target{Route: r.routes[i], table: TableName(topic)}
		t.Decode.Hints = slices.Concat(t.Decode.Hints, t.Hints[topic[strings.LastIndexByte(topic, '.')+1:]], t.Hints[""])
		if t.Table != "" {
			template := group.ReplaceAllString(t.Table, `$${$1}`)
			t.table = TableName(string(p.ExpandString(nil, template, topic, match)))
			t.merges = true
		}
		return t
	}
	t := target{table: TableName(topic)}
	t.Decode.EnsureDefaults()
	return t
}

// TableName returns the name of the table that a topic feeds by the default route: the topic's last dot-part is the
// table, the parts before it are the namespace, joined by "_" ("default" if there are none); what is not a letter, a
// digit or "_" becomes "_".
func TableName(topic string) string {
	namespace, table := "default", topic
	if i := strings.LastIndexByte(topic, '.'); i >= 0 {
		namespace, table = topic[:i], topic[i+1:]
	}
	return identifier(namespace) + "." + identifier(table)
}

func identifier(s string) string {
	if s == "" {
		return "_"
	}
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}

// ClashError reports two topics that the default route takes to one table.
type ClashError struct {
	Source string
	Topic  string
	Table  string
	Other  Topic
}

// Error names the way out.
func (e *ClashError) Error() string {
	return fmt.Sprintf("topic %s of source %s would feed table %s, which topic %s of source %s feeds: route one of them elsewhere",
		e.Topic, e.Source, e.Table, e.Other.Topic, e.Other.Source)
}

// clashes returns an error for each topic that goes where another one goes without a route that says so.
func (r *router) clashes(source string, topics []string) error {
	first := map[string]string{}
	var errs []error
	for _, topic := range topics {
		t := r.route(topic)
		if other, taken := first[t.table]; taken && !t.merges {
			errs = append(errs, &ClashError{Source: source, Topic: topic, Table: t.table, Other: Topic{Source: source, Topic: other}})
			continue
		}
		first[t.table] = topic
	}
	return errors.Join(errs...)
}
