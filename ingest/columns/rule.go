package columns

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"firn/changelog"
	"firn/changelog/rowjson"
)

// Action is what a rule does.
type Action uint8

// The actions.
const (
	Drop     Action = iota + 1 // takes columns away
	Rename                     // gives columns other names
	Constant                   // adds a column with one value
	Metadata                   // adds columns that say where a row comes from (spec/debezium.md 7)
	Hash                       // masks columns by HMAC-SHA-256 of their text
	Redact                     // masks columns by one value
	Truncate                   // cuts texts
	Cast                       // changes types, without loss
	Compute                    // adds a column that an expression gives
)

var actionNames = [...]string{
	Drop: "drop", Rename: "rename", Constant: "constant", Metadata: "metadata", Hash: "hash", Redact: "redact", Truncate: "truncate", Cast: "cast", Compute: "compute",
}

// String returns the action as configurations name it.
func (a Action) String() string {
	if a > 0 && int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// ParseAction returns the action of a name; false: there is none.
func ParseAction(name string) (Action, bool) {
	i := slices.Index(actionNames[:], name)
	return Action(max(i, 0)), i > 0 //nolint:gosec // few
}

// Actions returns the names of all actions.
func Actions() []string { return slices.Clone(actionNames[Drop:]) }

// Rule is one rule.
type Rule struct {
	Action Action
	// Columns names the columns that the rule takes, as the rules before it have left them; one that an event does not have is
	// passed over. For Metadata, those to add.
	Columns []string
	// Match takes the columns that an anchored regular expression matches, in place of Columns.
	Match string
	// To is the new name; with Match, $1 or ${1} stands for what its first group matched. For Constant and Compute, the name of the column to add.
	To string
	// Value of Constant is the value, in the form that rows show (package rowjson). For Redact, what stands for all values: default REDACTED
	// in strings, null in other columns.
	Value string
	// Type of Constant, as Iceberg spells it: default string. For Cast, the new type; for Compute, the result's.
	Type string
	// Salt of Hash, a secret of at least 16 bytes.
	Salt string
	// Length of Truncate, in characters.
	Length int
	// Expr of Compute is an expression of CEL over the columns.
	Expr string
}

// reservedPrefix begins names that are the pipeline's own (spec/debezium.md 4.4).
const reservedPrefix = "_lake_"

// Options of a Set.
type Options struct {
	Rules []Rule
	// Key names the columns that the route makes the key, as the rules leave them. Default: the message key's.
	Key []string
	// NoKey says that the table has no key.
	NoKey bool
	// WholeRows says that rows without a key are found by all their values (keyless: full_row), which old rows do not have of metadata.
	WholeRows bool
}

// Set is the compiled rules of a route. It is immutable.
type Set struct {
	o     Options
	rules []rule
}

// rule is a Rule that has been checked.
type rule struct {
	Rule
	match *regexp.Regexp
	could *regexp.Regexp // of Rename with match, what its new names look like
	typ   *changelog.Type
	value changelog.Value
	expr  *expression
	meta  []int // of Metadata, places in metadata
}

// Compile checks rules. The error tells all that is wrong with them, a RuleError each.
func Compile(o Options) (*Set, error) {
	s := &Set{o: o, rules: make([]rule, len(o.Rules))}
	var errs []error
	for i, r := range o.Rules {
		s.rules[i].Rule = r
		for _, err := range s.rules[i].check() {
			errs = append(errs, &RuleError{i, err})
		}
	}
	if len(errs) == 0 {
		errs = s.checkTogether()
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// RuleError says what is wrong with one rule.
type RuleError struct {
	Rule int // from 0
	Err  error
}

// Error implements error.
func (e *RuleError) Error() string { return fmt.Sprintf("column rule %d: %v", e.Rule+1, e.Err) }

// Unwrap returns what is wrong.
func (e *RuleError) Unwrap() error { return e.Err }

// uses tells which fields an action has, beside those that say which columns it takes.
type uses struct {
	picks bool // Columns or Match
	to    bool // needs it
	value bool
	typ   bool
	salt  bool // needs it
	cut   bool // needs Length
	expr  bool // needs it
}

var fieldsOf = [...]uses{
	Drop:     {picks: true},
	Rename:   {picks: true, to: true},
	Constant: {to: true, value: true, typ: true},
	Metadata: {},
	Hash:     {picks: true, salt: true},
	Redact:   {picks: true, value: true},
	Truncate: {picks: true, cut: true},
	Cast:     {picks: true, typ: true},
	Compute:  {to: true, typ: true, expr: true},
}

// check checks a rule by itself, and fills in what is compiled of it.
func (r *rule) check() (errs []error) {
	if r.Action.String() == "unknown" {
		return []error{errors.New("no action")}
	}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	u := fieldsOf[r.Action]
	r.checkPick(u, bad)
	r.checkFields(u, bad)
	if len(errs) > 0 {
		return errs
	}
	if err := r.complete(); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// checkFields checks that a rule has what its action needs and nothing else.
func (r *rule) checkFields(u uses, bad func(string, ...any)) {
	for _, f := range []struct {
		name       string
		has, takes bool
	}{
		{"to", r.To != "", u.to}, {"value", r.Value != "", u.value}, {"type", r.Type != "", u.typ}, {"salt", r.Salt != "", u.salt}, {"length", r.Length != 0, u.cut}, {"expr", r.Expr != "", u.expr},
	} {
		if f.has && !f.takes {
			bad("%s has no %s", r.Action, f.name)
		}
	}
	switch {
	case u.to && r.To == "":
		bad("%s needs to: the new name", r.Action)
	case len(r.To) > maxName || strings.HasPrefix(r.To, reservedPrefix):
		bad("to is %q: a name has at most %d bytes, and does not begin with %s", r.To, maxName, reservedPrefix)
	case u.salt && r.Salt == "":
		bad("hash needs salt: ${ENV} or ${file:PATH}")
	case u.salt && len(r.Salt) < minSalt:
		bad("salt has %d bytes: at least %d, or values can be guessed", len(r.Salt), minSalt)
	case u.cut && r.Length < 1:
		bad("truncate needs length: the characters to keep, at least 1")
	case (r.Action == Cast || u.expr) && r.Type == "":
		bad("%s needs type", r.Action)
	case u.expr && r.Expr == "":
		bad("compute needs expr")
	}
}

const maxName = 255 // bytes (spec/debezium.md 4.4)

// checkPick checks which columns a rule takes.
func (r *rule) checkPick(u uses, bad func(string, ...any)) {
	switch {
	case r.Action == Metadata:
		r.checkMetadata(bad)
		return
	case !u.picks:
		if len(r.Columns) > 0 || r.Match != "" {
			bad("%s adds a column: it has to, and neither columns nor match", r.Action)
		}
		return
	case (len(r.Columns) > 0) == (r.Match != ""):
		bad("%s needs columns or match, one of them", r.Action)
		return
	}
	for i, name := range r.Columns {
		if name == "" || slices.Contains(r.Columns[:i], name) {
			bad("columns: %q is empty or there twice", name)
		}
	}
	if r.Match == "" {
		return
	}
	re, err := regexp.Compile("^(?:" + r.Match + ")$")
	if err != nil {
		bad("match: %v", err)
		return
	}
	r.match = re
}

var (
	group    = regexp.MustCompile(`\$(\d+)`)
	anyGroup = regexp.MustCompile(`\$(?:\$|\{\w+\}|\w+)`)
)

func mapped(parts []string, f func(string) string) []string {
	for i := range parts {
		parts[i] = f(parts[i])
	}
	return parts
}

// complete compiles what an action has of its own.
func (r *rule) complete() error {
	switch r.Action {
	case Rename:
		if len(r.Columns) > 1 {
			return fmt.Errorf("rename takes one column to one name, these are %d: %q", len(r.Columns), r.Columns)
		}
		r.To = group.ReplaceAllString(r.To, `$${$1}`)
		if r.match != nil {
			r.could = regexp.MustCompile("(?s)^" + strings.Join(mapped(anyGroup.Split(r.To, -1), regexp.QuoteMeta), ".*") + "$")
		}
		if r.match != nil && !strings.Contains(r.To, "$") {
			return fmt.Errorf("to %q has no group of match, such as $1: all columns that match would get one name", r.To)
		}
	case Constant:
		var err error
		if r.typ, err = ParseType(orElse(r.Type, "string")); err != nil {
			return err
		}
		if r.value, err = rowjson.ParseText(r.typ, r.Value); err != nil {
			return fmt.Errorf("value: %w", err)
		}
	case Cast:
		var err error
		r.typ, err = ParseType(r.Type)
		return err
	case Compute:
		var err error
		if r.typ, err = ParseType(r.Type); err != nil {
			return err
		}
		if r.expr, err = parseExpression(r.Expr); err != nil {
			return fmt.Errorf("expr: %w", err)
		}
	case Drop, Metadata, Hash, Redact, Truncate:
	}
	return nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// checkTogether checks rules against each other and against the route's key.
func (s *Set) checkTogether() (errs []error) {
	for i := range s.rules {
		r := &s.rules[i]
		bad := func(format string, args ...any) {
			errs = append(errs, &RuleError{i, fmt.Errorf(format, args...)})
		}
		if to := r.adds(); to != nil && slices.ContainsFunc(s.rules[:i], func(o rule) bool { return o.makes(to) }) {
			bad("a rule before it makes a column %s, too", strings.Join(to, ", "))
		}
		if r.Action == Metadata && s.o.WholeRows && s.o.NoKey {
			bad("%s", noWholeRows)
		}
		for _, name := range r.Columns {
			if name := s.after(i, name); r.Action == Metadata && slices.Contains(s.o.Key, name) {
				bad("%s cannot be a key column: a delete has another one than the row", name)
			}
			if slices.Contains(s.o.Key, name) && r.loses() && s.after(i+1, name) == name {
				bad("%s", r.whyNot(name))
			}
		}
	}
	return errs
}

const noWholeRows = "rows of tables without a key that are found whole (keyless: full_row) have no metadata: an old row's are not known"

// adds returns the names of the columns that a rule makes, whatever an event has.
func (r *rule) adds() []string {
	switch r.Action {
	case Constant, Compute:
		return []string{r.To}
	case Metadata:
		return r.Columns
	case Rename:
		if r.match == nil {
			return []string{r.To}
		}
	case Drop, Hash, Redact, Truncate, Cast:
	}
	return nil
}

func (r *rule) makes(names []string) bool {
	return slices.ContainsFunc(r.adds(), func(name string) bool { return slices.Contains(names, name) })
}

// loses reports whether different values of a column become the same, so that it cannot be a key.
func (r *rule) loses() bool { return r.Action == Drop || r.Action == Redact || r.Action == Truncate }

// whyNot says why a rule cannot take a key column.
func (r *rule) whyNot(name string) string {
	if r.Action == Drop {
		return fmt.Sprintf("%s is a key column and cannot be dropped: rows are found by it (hash keeps it secret)", name)
	}
	return fmt.Sprintf("%s is a key column: %s would make one row of several (hash keeps them apart)", name, r.Action)
}

// after returns the name that the rules from the ith on give the column called name there.
func (s *Set) after(i int, name string) string {
	for _, r := range s.rules[i:] {
		if to, ok := r.rename(name); ok {
			name = to
		}
	}
	return name
}

// takes reports whether a rule takes a column by its name.
func (r *rule) takes(name string) bool {
	if r.match != nil {
		return r.match.MatchString(name)
	}
	return slices.Contains(r.Columns, name)
}

// rename returns the new name that a rule gives a column; false: it leaves the name as it is.
func (r *rule) rename(name string) (string, bool) {
	if r.Action != Rename || !r.takes(name) {
		return name, false
	}
	if r.match == nil {
		return r.To, true
	}
	return string(r.match.ExpandString(nil, r.To, name, r.match.FindStringSubmatchIndex(name))), true
}

// Target implements decode.Naming.
func (s *Set) Target(name string) string {
	for i := range s.rules {
		r := &s.rules[i]
		if to, ok := r.rename(name); ok {
			name = to
		} else if r.Action != Metadata && r.takes(name) {
			return ""
		}
	}
	return name
}

// Source implements decode.Naming.
func (s *Set) Source(name string) (string, bool) {
	if slices.ContainsFunc(s.rules, func(r rule) bool { return r.Action != Rename && r.makes([]string{name}) }) {
		return "", false
	}
	source := name
	for i := len(s.rules) - 1; i >= 0; i-- {
		r := &s.rules[i]
		switch {
		case r.Action == Rename && r.match != nil:
			if r.could.MatchString(source) {
				return "", false // of more names than one
			}
		case r.Action == Rename && r.To == source:
			source = r.Columns[0]
		}
	}
	return source, s.Target(source) == name
}

// ParseType reads a type that is not nested, as Iceberg spells it.
func ParseType(text string) (*changelog.Type, error) {
	for k := changelog.Boolean; k <= changelog.TimestampTZ; k++ {
		if k != changelog.Decimal && text == k.String() {
			return changelog.Primitive(k), nil
		}
	}
	for _, k := range []changelog.Kind{changelog.String, changelog.UUID, changelog.Binary} {
		if text == k.String() {
			return changelog.Primitive(k), nil
		}
	}
	inner, ok := strings.CutPrefix(text, "decimal(")
	inner, closed := strings.CutSuffix(inner, ")")
	precision, scale, two := strings.Cut(inner, ",")
	p, err := strconv.Atoi(strings.TrimSpace(precision))
	n, err2 := strconv.Atoi(strings.TrimSpace(scale))
	if ok && closed && two && err == nil && err2 == nil && p >= 1 && p <= 38 && n >= 0 && n <= p {
		return changelog.DecimalOf(p, n), nil
	}
	return nil, fmt.Errorf("type is %q: want boolean, int, long, float, double, decimal(P,S), date, time, timestamp, timestamptz, string, uuid or binary", text)
}

// quote shows a name or a value in an error, cut to a bound.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return strconv.Quote(s[:cut]) + "…"
	}
	return strconv.Quote(s)
}
