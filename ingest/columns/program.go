package columns

import (
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
	"firn/ingest/decode"
)

// MisfitError says why rules do not fit the columns of events: not the records are at fault, the rules are.
type MisfitError struct {
	Rule   int // from 0
	Detail string
}

// Error names the rule.
func (e *MisfitError) Error() string { return fmt.Sprintf("column rule %d: %s", e.Rule+1, e.Detail) }

// unary makes a value of another; it is not called with null. A value that has none is rejected.
type unary func(a *Applier, v changelog.Value) (changelog.Value, *decode.Rejected)

// op is an operation: what one register is made of.
type op struct {
	in, out int
	unary   unary // of register in; nil: one of those below
	meta    int   // place in metadata, if value is nil
	value   *changelog.Value

	computed *computed
}

// column is a column as the rules so far have left it.
type column struct {
	decode.Column
	reg    int
	source int // place in the shape; -1: a rule has made it
	rule   int // that has named it last; -1: none
	masked bool
}

// program is the rules for one shape.
type program struct {
	shape     *decode.Shape
	ops       []op
	registers int
	from      []int     // the register of each column of shape
	keyFrom   []int     // the place in an event's key of each key column of shape
	keyOps    [][]unary // what a key's value goes through, in order
	columns   []column
	plain     bool // columns are the same but for their names
	misfit    *MisfitError
	missing   []string // what it does without
}

// compiler makes a program.
type compiler struct {
	set     *Set
	applier *Applier
	shape   *decode.Shape
	p       *program
	err     *MisfitError
}

func (s *Set) program(a *Applier, shape *decode.Shape) *program {
	c := compiler{set: s, applier: a, shape: shape, p: &program{registers: len(shape.Columns)}}
	for i := range shape.Columns {
		c.p.columns = append(c.p.columns, column{Column: shape.Columns[i], reg: i, source: i, rule: -1})
	}
	for i := range s.rules {
		c.apply(i, &s.rules[i])
		if c.err != nil {
			break
		}
	}
	if c.err == nil {
		c.finish()
	}
	c.p.misfit = c.err
	return c.p
}

func (c *compiler) misfit(rule int, format string, args ...any) {
	if c.err == nil {
		c.err = &MisfitError{rule, fmt.Sprintf(format, args...)}
	}
}

// keyPlace returns the place of a column in the events' key, or -1.
func (c *compiler) keyPlace(col *column) int {
	if col.source < 0 {
		return -1
	}
	return slices.Index(c.shape.Key, col.source)
}

// isKey reports whether a column is of the table's key.
func (c *compiler) isKey(i int, col *column) bool {
	switch {
	case c.set.o.NoKey:
		return false
	case len(c.set.o.Key) > 0:
		return slices.Contains(c.set.o.Key, c.set.after(i, col.Name))
	default:
		return c.keyPlace(col) >= 0
	}
}

// apply has a rule change the columns.
func (c *compiler) apply(i int, r *rule) {
	switch r.Action {
	case Constant:
		c.add(i, decode.Column{Name: r.To, Type: r.typ, Fixed: true}, op{value: &r.value})
		return
	case Metadata:
		if c.set.o.WholeRows && len(c.shape.Key)+len(c.set.o.Key) == 0 {
			c.misfit(i, noWholeRows)
		}
		for _, m := range r.meta {
			c.add(i, decode.Column{Name: metadata[m].name, Type: metadata[m].typ, Own: true, Fixed: true}, op{meta: m})
		}
		return
	case Compute:
		c.compute(i, r)
		return
	case Drop, Rename, Hash, Redact, Truncate, Cast:
	}
	kept := c.p.columns[:0]
	for _, col := range c.p.columns {
		if !r.takes(col.Name) {
			kept = append(kept, col)
			continue
		}
		if r.loses() && c.isKey(i, &col) {
			c.misfit(i, "%s", r.whyNot(quote(col.Name)))
			return
		}
		if c.take(i, r, &col) {
			kept = append(kept, col)
		}
	}
	c.p.columns = kept
}

// take has a rule change one column; false: it goes.
func (c *compiler) take(i int, r *rule, col *column) bool {
	switch r.Action {
	case Drop:
		return false
	case Rename:
		old := col.Name
		if col.Name, _ = r.rename(old); col.Name == "" || len(col.Name) > maxName {
			c.misfit(i, "%s would get a name of %d bytes", quote(old), len(col.Name))
		}
		if strings.HasPrefix(col.Name, reservedPrefix) && !col.Own {
			c.misfit(i, "%s would be called %s: names that begin with %s are for metadata", quote(old), quote(col.Name), reservedPrefix)
		}
		col.rule = i
	case Hash, Redact, Truncate, Cast:
		c.transform(i, r, col)
	case Constant, Metadata, Compute:
	}
	return true
}

// transform has a rule change a column's values.
func (c *compiler) transform(i int, r *rule, col *column) {
	var f unary
	var to *changelog.Type
	var err error
	switch r.Action {
	case Hash:
		f, to, err = r.hash(col.Type)
	case Redact:
		f, to, err = r.redact(col.Type)
	case Truncate:
		f, to, err = r.truncate(col.Type)
	default:
		f, to, err = r.cast(col.Type, c.isKey(i, col))
	}
	if err != nil {
		c.misfit(i, "column %s %v", quote(col.Name), err)
		return
	}
	name := col.Name
	c.p.ops = append(c.p.ops, op{in: col.reg, out: c.p.registers, unary: func(a *Applier, v changelog.Value) (changelog.Value, *decode.Rejected) {
		out, rejected := f(a, v)
		if rejected != nil {
			rejected.Detail = "column " + quote(name) + ": " + rejected.Detail
		}
		return out, rejected
	}})
	col.reg = c.p.registers
	c.p.registers++
	col.masked = col.masked || r.Action != Cast
	if r.Action == Hash || r.Action == Cast {
		col.Type, col.Connect, col.Fixed = to, "", true
	}
}

// add adds a column that a rule makes.
func (c *compiler) add(rule int, d decode.Column, o op) {
	o.in, o.out = -1, c.p.registers
	c.p.registers++
	c.p.ops = append(c.p.ops, o)
	c.p.columns = append(c.p.columns, column{Column: d, reg: o.out, source: -1, rule: rule})
}

// finish makes the shape that the columns are.
func (c *compiler) finish() {
	p := c.p
	p.shape = &decode.Shape{}
	p.plain = len(p.ops) == 0 && len(p.columns) == len(c.shape.Columns)
	byName := make(map[string]int, len(p.columns))
	places := make([]int, len(c.shape.Key))
	for i := range places {
		places[i] = -1
	}
	for i := range p.columns {
		col := &p.columns[i]
		if other, twice := byName[col.Name]; twice {
			c.misfit(max(col.rule, p.columns[other].rule), "two columns are called %s: %s and %s", quote(col.Name), c.origin(&p.columns[other]), c.origin(col))
			return
		}
		byName[col.Name] = i
		p.shape.Columns = append(p.shape.Columns, col.Column)
		p.from = append(p.from, col.reg)
		p.plain = p.plain && col.reg == i
		if place := c.keyPlace(col); place >= 0 {
			places[place] = i
		}
		for _, n := range c.shape.Notes {
			if col.source >= 0 && n.Column == c.shape.Columns[col.source].Name {
				n.Column = col.Name
				p.shape.Notes = append(p.shape.Notes, n)
			}
		}
	}
	for place, o := range places {
		if o < 0 {
			continue // dropped, from a key that is not the table's
		}
		p.shape.Key = append(p.shape.Key, o)
		p.keyFrom = append(p.keyFrom, place)
		p.keyOps = append(p.keyOps, p.chain(p.columns[o].reg))
	}
}

// chain returns the operations that a register's value has gone through.
func (p *program) chain(reg int) (chain []unary) {
	for i := len(p.ops) - 1; i >= 0; i-- {
		if o := &p.ops[i]; o.out == reg && o.unary != nil {
			chain = append(chain, o.unary)
			reg = o.in
		}
	}
	slices.Reverse(chain)
	return chain
}

// origin says where a column comes from.
func (c *compiler) origin(col *column) string {
	if col.source < 0 {
		return fmt.Sprintf("that of rule %d", col.rule+1)
	}
	return "the source's " + quote(c.shape.Columns[col.source].Name)
}
