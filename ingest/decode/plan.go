package decode

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
)

// PlanOptions are the policies of schema evolution. The zero value has the defaults.
type PlanOptions struct {
	// FoldNames is set where the catalog, or an engine that reads the tables, does not tell case in column names:
	// names that differ in case only are then refused. Default false.
	FoldNames bool
	// ReservedPrefix begins the names of columns that the writer itself may add. Default "_lake_".
	ReservedPrefix string
	// NoNewColumns refuses to add columns to a table that exists. For schemaless topics that are not trusted: each
	// message there can invent columns. Default false.
	NoNewColumns bool
	// KeepReducedScale keeps writing decimals whose scale shrinks to the column that they had, where no digit can be
	// lost. Default false: they get a column of their own.
	KeepReducedScale bool
}

// The limits of 4.4.
const (
	maxNewColumns = 100
	maxVariants   = 9
)

// Plan says how rows of a shape go into a table: the mapping, and the table's next schema if it has to change; nil if
// not. The mapping is for rows of the next schema then. current is the table's schema, nil if there is no table yet. Only
// key columns are required (D8); a UUID in the key becomes a string, for Iceberg orders UUIDs in two ways.
//
// What a column cannot become in place gets a column of its own, <name>__<type> (4.3, D12). Errors are *Rejected: a key
// that is not the table's, names that are not to be had, limits.
func Plan(current *changelog.Schema, shape *Shape, o PlanOptions) (*Mapping, *changelog.Schema, error) {
	if o.ReservedPrefix == "" {
		o.ReservedPrefix = "_lake_"
	}
	p := planner{o: o, shape: shape, current: current}
	if rej := p.checkNames(); rej != nil {
		return nil, nil, rej
	}
	var next *changelog.Schema
	var rej *Rejected
	if current == nil {
		next, rej = p.create()
	} else {
		next, rej = p.evolve()
	}
	if rej != nil {
		return nil, nil, rej
	}
	m, err := p.mapping(next)
	if err != nil {
		return nil, nil, err
	}
	if next == current {
		next = nil
	}
	return m, next, nil
}

type planner struct {
	o       PlanOptions
	shape   *Shape
	current *changelog.Schema

	targets []string // the name of each shape column's column in the table
	add     []changelog.Column
	widen   map[string]*changelog.Type
}

func (p *planner) checkNames() *Rejected {
	if len(p.shape.Columns) > maxColumns {
		return reject(ReasonSchemaLimit, "%d columns", len(p.shape.Columns))
	}
	seen := make(map[string]string, len(p.shape.Columns))
	for _, c := range p.shape.Columns {
		if rej := checkName(c.Name); rej != nil {
			return rej
		}
		if strings.HasPrefix(c.Name, p.o.ReservedPrefix) {
			return reject(ReasonReservedName, "column %s", quote([]byte(c.Name)))
		}
		if rej := checkMembers(c.Type); rej != nil {
			return rej
		}
		seen[p.fold(c.Name)] = c.Name
	}
	if len(seen) < len(p.shape.Columns) {
		return p.collision(seen)
	}
	if p.current == nil || !p.o.FoldNames {
		return nil
	}
	for _, c := range p.current.Columns {
		if name, ok := seen[p.fold(c.Name)]; ok && name != c.Name {
			return reject(ReasonNameCollision, "columns %s and %s", quote([]byte(name)), quote([]byte(c.Name)))
		}
	}
	return nil
}

func (p *planner) collision(seen map[string]string) *Rejected {
	for _, c := range p.shape.Columns {
		if other := seen[p.fold(c.Name)]; other != c.Name {
			return reject(ReasonNameCollision, "columns %s and %s", quote([]byte(c.Name)), quote([]byte(other)))
		}
	}
	return reject(ReasonNameCollision, "a column is there twice")
}

func (p *planner) fold(name string) string {
	if p.o.FoldNames {
		return strings.ToLower(name)
	}
	return name
}

func checkName(name string) *Rejected {
	if name == "" || len(name) > maxName {
		return reject(ReasonSchemaLimit, "a name of %d bytes: %s", len(name), quote([]byte(name)))
	}
	return nil
}

// checkMembers checks the names of a struct's members, at any depth.
func checkMembers(t *changelog.Type) *Rejected {
	for _, f := range t.Fields {
		if rej := checkName(f.Name); rej != nil {
			return rej
		}
		if rej := checkMembers(f.Type); rej != nil {
			return rej
		}
	}
	return nil
}

func (p *planner) isKey(column int) bool { return slices.Contains(p.shape.Key, column) }

// create makes the first schema.
func (p *planner) create() (*changelog.Schema, *Rejected) {
	var columns []changelog.Column
	for i, c := range p.shape.Columns {
		t := c.Type
		if p.isKey(i) {
			switch {
			case t.Nested() || t.Kind == changelog.Float || t.Kind == changelog.Double:
				return nil, reject(ReasonKeyDecode, "key column %s is a %s, which cannot be a key", quote([]byte(c.Name)), t)
			case t.Kind == changelog.UUID:
				t = changelog.Primitive(changelog.String)
			}
		}
		columns = append(columns, changelog.Column{Name: c.Name, Type: t})
		p.targets = append(p.targets, c.Name)
	}
	var key []string
	for _, o := range p.shape.Key {
		key = append(key, p.shape.Columns[o].Name)
	}
	s, err := changelog.NewSchema(columns, key)
	if err != nil {
		return nil, reject(ReasonSchemaInvalid, "%v", err)
	}
	return s, nil
}

// evolve makes the schema after the current one, or returns that if it will do.
func (p *planner) evolve() (*changelog.Schema, *Rejected) {
	if rej := p.checkKey(); rej != nil {
		return nil, rej
	}
	p.widen = map[string]*changelog.Type{}
	p.targets = make([]string, len(p.shape.Columns))
	for i := range p.shape.Columns {
		if rej := p.column(i); rej != nil {
			return nil, rej
		}
	}
	if len(p.add) == 0 && len(p.widen) == 0 {
		return p.current, nil
	}
	switch {
	case len(p.add) > 0 && p.o.NoNewColumns:
		return nil, reject(ReasonEvolutionBlocked, "new column %s", quote([]byte(p.add[0].Name)))
	case len(p.add) > maxNewColumns:
		return nil, reject(ReasonSchemaLimit, "%d new columns at once", len(p.add))
	case len(p.add)+len(p.current.Columns) > maxColumns:
		return nil, reject(ReasonSchemaLimit, "%d columns", len(p.add)+len(p.current.Columns))
	}
	next, err := p.current.Evolve(p.add, p.widen)
	if err != nil {
		return nil, reject(ReasonEvolutionBlocked, "%v", err)
	}
	return next, nil
}

func (p *planner) checkKey() *Rejected {
	names := p.current.KeyNames()
	if len(names) > 0 && len(p.shape.Key) == 0 {
		return reject(ReasonKeyMissing, "the table's key is %q", names)
	}
	same := len(names) == len(p.shape.Key)
	for _, o := range p.shape.Key {
		same = same && slices.Contains(names, p.shape.Columns[o].Name)
	}
	if !same {
		return reject(ReasonKeyColumnsChanged, "the table's key is %q, the event's has %d columns", names, len(p.shape.Key))
	}
	return nil
}

// column finds or plans the table's column for a column of the shape.
func (p *planner) column(i int) *Rejected {
	c := p.shape.Columns[i]
	p.targets[i] = c.Name
	o := p.current.Ordinal(c.Name)
	if o < 0 {
		p.add = append(p.add, changelog.Column{Name: c.Name, Type: c.Type})
		return nil
	}
	to := p.current.Columns[o].Type
	if p.isKey(i) {
		switch {
		case p.fits(c.Type, to) || c.Type.Kind == changelog.UUID && to.Kind == changelog.String:
		case c.Type.Kind == changelog.Long && to.Kind == changelog.Int:
			p.widen[c.Name] = c.Type
		default:
			return reject(ReasonKeyColumnsChanged, "key column %s is %s, the table has %s", quote([]byte(c.Name)), c.Type, to)
		}
		return nil
	}
	if p.fits(c.Type, to) {
		return nil
	}
	if to.CanWidenTo(c.Type) {
		p.widen[c.Name] = c.Type
		return nil
	}
	return p.variant(i)
}

// variant finds or plans the column <name>__<type>, for values that the column called name cannot hold.
func (p *planner) variant(i int) *Rejected {
	c := p.shape.Columns[i]
	for n := 1; n <= maxVariants; n++ {
		name := variantName(c.Name, c.Type, n)
		if rej := checkName(name); rej != nil {
			return rej
		}
		if slices.ContainsFunc(p.shape.Columns, func(o Column) bool { return o.Name == name }) {
			return reject(ReasonNameCollision, "column %s, which is now %s, needs the name of another", quote([]byte(c.Name)), c.Type)
		}
		p.targets[i] = name
		o := p.current.Ordinal(name)
		if o < 0 {
			p.add = append(p.add, changelog.Column{Name: name, Type: c.Type})
			return nil
		}
		if p.fits(c.Type, p.current.Columns[o].Type) {
			return nil
		}
	}
	return reject(ReasonEvolutionBlocked, "column %s has had %d types of the kind %s", quote([]byte(c.Name)), maxVariants, c.Type.Kind)
}

// variantName is the name of the nth column that holds values of type t of the column called name. Nested types, whose
// names do not tell them apart, may need several.
func variantName(name string, t *changelog.Type, n int) string {
	name += "__" + typeSuffix(t)
	if n > 1 {
		name += fmt.Sprintf("_%d", n)
	}
	return name
}

func typeSuffix(t *changelog.Type) string {
	switch t.Kind {
	case changelog.Decimal:
		return fmt.Sprintf("decimal_%d_%d", t.Precision, t.Scale)
	case changelog.Fixed:
		return fmt.Sprintf("fixed_%d", t.Length)
	default:
		return t.Kind.String()
	}
}

// sourceName returns the name of the source's column that a column of a table is for: they differ where a change of type
// made Plan add a column.
func sourceName(s *changelog.Schema, c changelog.Column) string {
	for n := 1; n <= maxVariants; n++ {
		if name, ok := strings.CutSuffix(c.Name, variantName("", c.Type, n)); ok && s.Ordinal(name) >= 0 {
			return name
		}
		if !c.Type.Nested() {
			break
		}
	}
	return c.Name
}

// fits reports whether each value of one type can be held by a column of another as it is.
func (p *planner) fits(from, to *changelog.Type) bool {
	switch {
	case from.Kind == changelog.Int && to.Kind == changelog.Long, from.Kind == changelog.Float && to.Kind == changelog.Double:
		return true
	case from.Kind != to.Kind:
		return false
	case from.Kind == changelog.Decimal && from.Scale == to.Scale:
		return from.Precision <= to.Precision
	case from.Kind == changelog.Decimal:
		return p.o.KeepReducedScale && from.Scale < to.Scale && from.Precision-from.Scale <= to.Precision-to.Scale
	case from.Kind == changelog.Map && !from.Fields[0].Type.Equal(to.Fields[0].Type):
		return false
	case from.Kind == changelog.Fixed:
		return from.Length == to.Length
	}
	for _, f := range from.Fields {
		i := slices.IndexFunc(to.Fields, func(t changelog.Column) bool { return t.Name == f.Name })
		if i < 0 || !p.fits(f.Type, to.Fields[i].Type) {
			return false
		}
	}
	return true
}

func (p *planner) mapping(s *changelog.Schema) (*Mapping, error) {
	m := &Mapping{schema: s, columns: make([]mapped, len(s.Columns)), ordinals: make([]int, len(p.shape.Columns))}
	for i := range m.columns {
		m.columns[i].from = -1
	}
	for i, name := range p.targets {
		o := s.Ordinal(name)
		if o < 0 || m.columns[o].from >= 0 {
			return nil, errors.New("decode: plan has lost a column") // not possible
		}
		m.ordinals[i] = o
		m.columns[o] = mapped{from: i, convert: converterOf(p.shape.Columns[i].Type, s.Columns[o].Type)}
	}
	for _, o := range s.KeyOrdinals() {
		c := m.columns[o]
		m.key = append(m.key, mapped{from: slices.Index(p.shape.Key, c.from), convert: c.convert})
	}
	m.keyTypes = s.KeyTypes()
	m.values = make([]changelog.Value, len(s.Columns))
	m.keyValues = make([]changelog.Value, len(m.key))
	return m, nil
}
