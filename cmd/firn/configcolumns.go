package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	colrules "firn/ingest/columns"
)

// columnRules returns the route's column rules.
func (r RouteConfig) columnRules() []colrules.Rule {
	var rules []colrules.Rule
	for _, c := range r.Columns {
		action, _ := colrules.ParseAction(c.Rule) // checked
		rules = append(rules, colrules.Rule{Action: action, Columns: c.Columns, Match: c.Match, To: c.To, Value: c.Value, Type: c.Type, Salt: c.Salt, Length: c.Length, Expr: c.Expr})
	}
	return rules
}

// validateColumns checks the column rules of a route of s by themselves, and against its key. What it cannot know, the columns of
// events, is checked when they come.
func (r RouteConfig) validateColumns(s *SourceConfig, path string, p *problems) {
	named := true
	for i, c := range r.Columns {
		if _, ok := colrules.ParseAction(c.Rule); !ok {
			named = false
			p.oneOf(fmt.Sprintf("%s[%d].rule", path, i), c.Rule, colrules.Actions()...)
		}
	}
	if !named || len(r.Columns) == 0 {
		return
	}
	o := colrules.Options{Rules: r.columnRules(), Key: r.Key.Columns, NoKey: r.Key.Mode == "none" || r.Key.Mode == "" && s.Shape == "plain"}
	o.WholeRows = cmp.Or(r.Keyless, s.Keyless) == "full_row"
	_, err := colrules.Compile(o)
	for _, err := range joined(err) {
		if of, ok := errors.AsType[*colrules.RuleError](err); ok {
			p.wrong(fmt.Sprintf("%s[%d]", path, of.Rule), "%s", strings.ReplaceAll(of.Err.Error(), "\n", "; "))
		}
	}
}

// joined returns the errors that errors.Join has made one.
func joined(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		return all.Unwrap()
	}
	return nil
}
