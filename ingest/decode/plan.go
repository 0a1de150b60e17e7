package decode

import (
	"errors"
	"fmt"
	"maps"
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
	// Renames declares that the source has renamed columns, from the old name to the new one. The table's column is
	// renamed at the first event that has the new name and lacks the old one; events with the old name, which may come
	// later still, are written to it. Without it a rename is a new column beside the old one. Not for key columns.
	Renames map[string]string
	// NativeKeys keeps the types of uuid, binary and fixed key columns of new tables. Default false: they become strings,
	// because Amoro loses deletes of such keys (spec/mixed-format.md 6.2).
	NativeKeys bool
	// Drops names columns that the source no longer has. The table's column, with those for other types that it has had,
	// goes at the first event that lacks it; events that have it still lose the value. Without it the column stays,
	// null in later rows. Not for key columns.
	Drops []string
}

// Validate reports all that is wrong with o.
func (o *PlanOptions) Validate() error {
	var errs []error
	to := map[string]string{}
	for _, old := range slices.Sorted(maps.Keys(o.Renames)) {
		name := old
		for range o.Renames {
			if name = o.Renames[name]; name == old {
				errs = append(errs, fmt.Errorf("renames: %q would become itself: name only the way to its present name", old))
			}
		}
		target := o.Renames[old]
		switch other, taken := to[target]; {
		case old == "" || target == "" || len(target) > maxName:
			errs = append(errs, fmt.Errorf("renames: %q to %q: a name has 1 to %d bytes", old, target, maxName))
		case taken:
			errs = append(errs, fmt.Errorf("renames: both %q and %q become %q", other, old, target))
		}
		to[target] = old
	}
	for _, name := range o.Drops {
		if _, renamed := o.Renames[name]; renamed || to[name] != "" || name == "" {
			errs = append(errs, fmt.Errorf("drops: %q is empty or in renames, too", name))
		}
	}
	return errors.Join(errs...)
}

// renamed returns the names that a column has had or will have, by the declared renames, its present one not included.
func (o *PlanOptions) renamed(name string) []string {
	var all []string
	for next, ok := o.Renames[name]; ok && len(all) < len(o.Renames); next, ok = o.Renames[next] {
		all = append(all, next)
	}
	for range o.Renames {
		for old, to := range o.Renames {
			if (to == name || slices.Contains(all, to)) && old != name && !slices.Contains(all, old) {
				all = append(all, old)
			}
		}
	}
	return all
}

// The limits of 4.4.
const (
	maxNewColumns = 100
	maxVariants   = 9
)

// Plan says how rows of a shape go into a table: the mapping, and the table's next schema if it has to change; nil if
// not. The mapping is for rows of the next schema then. current is the table's schema, nil if there is no table yet. Only
// key columns are required (D8); those of a new table are of types that Amoro's readers take as keys: a uuid becomes a string with
// its canonical text, binary and fixed one with lower-case hex, unless NativeKeys says otherwise.
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
	if next != current {
		if rej := checkPaths(next); rej != nil {
			return nil, nil, rej
		}
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

	names   []string // of the current columns, after the step; "": dropped
	bases   []string // the name of each shape column in the table, whatever its type
	targets []string // the name of the column that holds its values now; "": none does
	step    changelog.Evolution
}

// ordinal returns the place of the current column that is called name after the step, or -1.
func (p *planner) ordinal(name string) int { return slices.Index(p.names, name) }

// lacks reports whether the shape has no column called name.
func (p *planner) lacks(name string) bool {
	return !slices.ContainsFunc(p.shape.Columns, func(c Column) bool { return c.Name == name })
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
		if strings.HasPrefix(c.Name, p.o.ReservedPrefix) && !c.Own || slices.Contains(metadataColumns, c.Name) {
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

// metadataColumns are the names of the columns that change files have beside the table's, for Amoro's readers and writers
// (amoro:amoro-format-iceberg/src/main/java/org/apache/amoro/table/MetadataColumns.java).
var metadataColumns = []string{"_file_offset", "_transaction_id", "_change_action", "_tree_node"}

// checkPaths refuses a schema in which two columns have one dotted path, as a.b and the member b of a have: Iceberg's libraries
// find columns by path, and load no such table (org.apache.iceberg.types.IndexByName).
func checkPaths(s *changelog.Schema) *Rejected {
	seen := map[string]bool{}
	var check func(prefix string, columns []changelog.Column) *Rejected
	check = func(prefix string, columns []changelog.Column) *Rejected {
		for _, c := range columns {
			path := prefix + c.Name
			if seen[path] {
				return reject(ReasonNameCollision, "two columns, or members of columns, are called %s", quote([]byte(path)))
			}
			seen[path] = true
			if rej := check(path+".", c.Type.Fields); rej != nil {
				return rej
			}
		}
		return nil
	}
	return check("", s.Columns)
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
		p.bases = append(p.bases, c.Name)
		if !p.isKey(i) && slices.Contains(p.o.Drops, c.Name) {
			p.targets = append(p.targets, "")
			continue
		}
		if p.isKey(i) {
			switch {
			case t.Nested() || t.Kind == changelog.Float || t.Kind == changelog.Double:
				return nil, reject(ReasonKeyDecode, "key column %s is a %s, which cannot be a key", quote([]byte(c.Name)), t)
			case hasKeyText(t) && !p.o.NativeKeys:
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
	p.step = changelog.Evolution{Rename: map[string]string{}, Widen: map[string]*changelog.Type{}}
	p.declared()
	p.bases, p.targets = make([]string, len(p.shape.Columns)), make([]string, len(p.shape.Columns))
	for i := range p.shape.Columns {
		if rej := p.column(i); rej != nil {
			return nil, rej
		}
	}
	e := &p.step
	if len(e.Add)+len(e.Widen)+len(e.Rename)+len(e.Drop)+len(e.Optional) == 0 {
		return p.current, nil
	}
	switch {
	case len(e.Add) > 0 && p.o.NoNewColumns:
		return nil, reject(ReasonEvolutionBlocked, "new column %s", quote([]byte(e.Add[0].Name)))
	case len(e.Add) > maxNewColumns:
		return nil, reject(ReasonSchemaLimit, "%d new columns at once", len(e.Add))
	case len(e.Add)+len(p.current.Columns)-len(e.Drop) > maxColumns:
		return nil, reject(ReasonSchemaLimit, "%d columns", len(e.Add)+len(p.current.Columns)-len(e.Drop))
	}
	next, err := p.current.Apply(*e)
	if err != nil {
		return nil, reject(ReasonEvolutionBlocked, "%v", err)
	}
	return next, nil
}

// declared plans what the options declare, and makes optional what a table that was made elsewhere has required: a deleted
// row may be known by its key alone, and a column may go (D8). It gives the current columns their names.
func (p *planner) declared() {
	p.names = make([]string, len(p.current.Columns))
	for i, c := range p.current.Columns {
		p.names[i] = c.Name
		if c.Required && !slices.Contains(p.current.Key, c.ID) {
			p.step.Optional = append(p.step.Optional, c.Name)
		}
	}
	for _, old := range slices.Sorted(maps.Keys(p.o.Renames)) {
		name := p.newName(old)
		if name == "" || p.current.Ordinal(old) < 0 || p.current.Ordinal(name) >= 0 {
			continue
		}
		for i, c := range p.current.Columns { // the column, and those for other types that it has had
			if to := name + strings.TrimPrefix(c.Name, old); sourceName(p.current, c) == old && p.current.Ordinal(to) < 0 {
				p.step.Rename[c.Name], p.names[i] = to, to
			}
		}
	}
	for i, c := range p.current.Columns {
		name := sourceName(p.current, c)
		if slices.Contains(p.o.Drops, name) && p.lacks(name) && !slices.Contains(p.current.Key, c.ID) {
			p.step.Drop, p.names[i] = append(p.step.Drop, c.Name), ""
		}
	}
	p.step.Optional = slices.DeleteFunc(p.step.Optional, func(name string) bool { return slices.Contains(p.step.Drop, name) })
}

// newName returns the first of the names that a column is declared to take after old that the shape has; "": none, or it
// has an earlier one still.
func (p *planner) newName(old string) string {
	name := old
	for range p.o.Renames {
		if !p.lacks(name) {
			break
		}
		name = p.o.Renames[name]
	}
	if name == old || name == "" || p.lacks(name) {
		return ""
	}
	return name
}

// base returns the name in the table of a column that an event calls name.
func (p *planner) base(name string) string {
	for to, n := name, 0; n <= len(p.o.Renames); n++ {
		if p.ordinal(to) >= 0 {
			return to
		}
		next, ok := p.o.Renames[to]
		if !ok || !p.lacks(next) {
			break
		}
		to = next
	}
	return name
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
	for _, old := range names {
		if to, ok := p.o.Renames[old]; ok && p.lacks(old) && !p.lacks(to) {
			return reject(ReasonKeyColumnsChanged, "key column %s is now %s: key columns are never renamed; read the topic into a new table",
				quote([]byte(old)), quote([]byte(to)))
		}
	}
	if !same {
		return reject(ReasonKeyColumnsChanged, "the table's key is %q, the event's has %d columns", names, len(p.shape.Key))
	}
	return nil
}

// column finds or plans the table's column for a column of the shape.
func (p *planner) column(i int) *Rejected {
	c := p.shape.Columns[i]
	p.bases[i] = c.Name
	if !p.isKey(i) {
		p.bases[i] = p.base(c.Name)
	}
	p.targets[i] = p.bases[i]
	o := p.ordinal(p.bases[i])
	switch {
	case o >= 0 && c.Fixed:
		return p.fixedColumn(i, o)
	case o >= 0 && p.isKey(i):
		return p.keyColumn(c, o)
	case o >= 0:
		if ok, rej := p.fitsOrWidens(c, o); ok || rej != nil {
			return rej
		}
		return p.variant(i)
	case !p.isKey(i) && slices.Contains(p.o.Drops, c.Name):
		p.targets[i] = ""
	default:
		p.step.Add = append(p.step.Add, changelog.Column{Name: p.bases[i], Type: c.Type})
	}
	return nil
}

// fixedColumn takes a column whose type a rule of the route gives: another type than the table's is a mistake of the rule.
func (p *planner) fixedColumn(i, o int) *Rejected {
	c := p.shape.Columns[i]
	if p.isKey(i) && hasKeyText(c.Type) && p.current.Columns[o].Type.Kind == changelog.String {
		return nil
	}
	if ok, rej := p.fitsOrWidens(c, o); ok || rej != nil {
		return rej
	}
	return reject(ReasonColumnRule, "column %s is %s by the route's column rules, the table has %s: give it another name, or read the topic into a new table",
		quote([]byte(c.Name)), c.Type, p.current.Columns[o].Type)
}

func (p *planner) keyColumn(c Column, o int) *Rejected {
	to := p.current.Columns[o].Type
	switch {
	case p.fits(c.Type, to) || hasKeyText(c.Type) && to.Kind == changelog.String:
	case c.Type.Kind == changelog.Long && to.Kind == changelog.Int:
		p.step.Widen[p.current.Columns[o].Name] = c.Type
	default:
		return reject(ReasonKeyColumnsChanged, "key column %s is %s, the table has %s", quote([]byte(c.Name)), c.Type, to)
	}
	return nil
}

// fitsOrWidens reports whether the current column at o can hold values of c, as it is or widened.
func (p *planner) fitsOrWidens(c Column, o int) (bool, *Rejected) {
	to := p.current.Columns[o].Type
	if p.fits(c.Type, to) {
		return true, nil
	}
	wide, ok := p.union(to, c.Type)
	if !ok {
		return false, nil
	}
	if n := mostMembers(wide); n > maxMembers {
		return false, reject(ReasonSchemaLimit, "column %s would have a struct of %d members", quote([]byte(c.Name)), n)
	}
	p.step.Widen[p.current.Columns[o].Name] = wide
	return true, nil
}

// union returns the type that a column of type to is widened to, to hold values of from, too; false: none.
func (p *planner) union(to, from *changelog.Type) (*changelog.Type, bool) {
	switch {
	case p.fits(from, to):
		return to, true
	case !to.Nested():
		return from, to.CanWidenTo(from)
	case from.Kind != to.Kind || to.Kind == changelog.Map && !to.Fields[0].Type.Equal(from.Fields[0].Type):
		return nil, false
	}
	wide := *to
	wide.Fields = slices.Clone(to.Fields)
	for _, f := range from.Fields {
		i := slices.IndexFunc(wide.Fields, func(c changelog.Column) bool { return c.Name == f.Name })
		if i < 0 {
			wide.Fields = append(wide.Fields, f)
			continue
		}
		t, ok := p.union(wide.Fields[i].Type, f.Type)
		if !ok {
			return nil, false
		}
		wide.Fields[i].Type = t
	}
	return &wide, true
}

// mostMembers returns the number of members of the largest struct in a type.
func mostMembers(t *changelog.Type) int {
	n := 0
	if t.Kind == changelog.Struct {
		n = len(t.Fields)
	}
	for _, f := range t.Fields {
		n = max(n, mostMembers(f.Type))
	}
	return n
}

// variant finds or plans the column <name>__<type>, for values that the column called name cannot hold.
func (p *planner) variant(i int) *Rejected {
	c := p.shape.Columns[i]
	for n := 1; n <= maxVariants; n++ {
		name := variantName(p.bases[i], c.Type, n)
		if rej := checkName(name); rej != nil {
			return rej
		}
		if !p.lacks(name) {
			return reject(ReasonNameCollision, "column %s, which is now %s, needs the name of another", quote([]byte(c.Name)), c.Type)
		}
		p.targets[i] = name
		o := p.ordinal(name)
		if o < 0 {
			p.step.Add = append(p.step.Add, changelog.Column{Name: name, Type: c.Type})
			return nil
		}
		if !c.Type.Nested() { // the name tells the type
			if p.fits(c.Type, p.current.Columns[o].Type) {
				return nil
			}
			continue
		}
		if ok, rej := p.fitsOrWidens(c, o); ok || rej != nil {
			return rej
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
	m := &Mapping{schema: s, columns: make([]mapped, len(s.Columns)), ordinals: make([]int, len(p.shape.Columns)), names: p.bases}
	for i := range m.columns {
		m.columns[i].from = -1
	}
	for i, name := range p.targets {
		m.ordinals[i] = -1
		if name == "" {
			continue
		}
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
	m.values = make([]changelog.Value, len(s.Columns))
	m.keyValues = make([]changelog.Value, len(m.key))
	return m, nil
}
