package changelog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

var (
	// ErrIncompatible reports a change of a column's type that Iceberg cannot make in place.
	ErrIncompatible = errors.New("incompatible change of a column's type")
	// ErrKeyColumn reports a step that a key column cannot take: it is never dropped, renamed or made optional, nor a float widened, as the
	// bytes of its keys would change (AppendKey).
	ErrKeyColumn = errors.New("key columns are never dropped, renamed or made optional, and those of floats never widened")
)

// Evolution is one step from a table's schema to the next. Columns are named as they are before the step, but in Order.
type Evolution struct {
	Drop     []string
	Rename   map[string]string // from the old name to the new one; the new ones may be names of dropped or renamed columns
	Optional []string          // required columns that may be null from now on
	// Widen maps a column to its new type. A nested type gains members and has parts widened; what it does not name stays.
	Widen map[string]*Type
	Add   []Column // at the end; optional whatever they say. Their names are free after the step; ids are given here
	Order []string // all columns in their new order, by their new names; nil: as they are, the added ones last
}

// Evolve is Apply of a step that only adds columns and widens some.
func (s *Schema) Evolve(add []Column, widen map[string]*Type) (*Schema, error) {
	return s.Apply(Evolution{Add: add, Widen: widen})
}

// Apply returns the schema that follows s by one step. It has the next SchemaID and shares nothing mutable with s; a column
// keeps its field id for life, and no id is used twice. A renamed column's Doc tells of it: without that, a rename back
// would make a schema that the table has had, and Iceberg keeps none twice.
//
// Errors: ErrIncompatible, ErrKeyColumn, a name that is not there, twice there, or missing from Order.
func (s *Schema) Apply(e Evolution) (*Schema, error) {
	n := &Schema{ID: s.ID + 1, Columns: cloneColumns(s.Columns), Key: slices.Clone(s.Key), LastID: s.LastID}
	if err := s.alter(n, &e); err != nil {
		return nil, err
	}
	n.Columns = slices.DeleteFunc(n.Columns, func(c Column) bool { return slices.Contains(e.Drop, s.nameOf(c.ID)) })
	added := cloneColumns(e.Add)
	for i := range added {
		added[i].Required = false
	}
	n.LastID = assignIDs(added, n.LastID)
	n.Columns = append(n.Columns, added...)
	if err := n.inOrder(e.Order); err != nil {
		return nil, err
	}
	return n, n.Index()
}

func (s *Schema) nameOf(id int) string {
	if o := s.OrdinalOf(id); o >= 0 {
		return s.Columns[o].Name
	}
	return ""
}

// alter changes the columns of n, the successor of s, that s has. All are still in their places.
func (s *Schema) alter(n *Schema, e *Evolution) error {
	find := func(what, name string, key bool) (*Column, error) {
		i := s.Ordinal(name)
		switch {
		case i < 0:
			return nil, fmt.Errorf("%s column %q: no such column", what, name)
		case !key && slices.Contains(s.Key, s.Columns[i].ID):
			return nil, fmt.Errorf("%s column %q: %w", what, name, ErrKeyColumn)
		}
		return &n.Columns[i], nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.Widen)) { // in order: new members get ids
		t := e.Widen[name]
		c, err := find("widen", name, true)
		if err != nil {
			return err
		}
		if !c.Type.CanWidenTo(t) {
			return fmt.Errorf("column %q from %s to %s: %w", name, c.Type, t, ErrIncompatible)
		}
		if c.Type.Kind != t.Kind && c.Type.Kind == Float && slices.Contains(s.Key, c.ID) {
			return fmt.Errorf("widen column %q: %w", name, ErrKeyColumn)
		}
		c.Type = widenType(c.Type, t, &n.LastID)
	}
	for name, to := range e.Rename {
		c, err := find("rename", name, false)
		if err != nil {
			return err
		}
		c.Name, c.Doc = to, renamedDoc(c.Doc, name, n.ID)
	}
	for _, name := range e.Optional {
		c, err := find("make optional", name, false)
		if err != nil {
			return err
		}
		c.Required = false
	}
	for _, name := range e.Drop {
		if _, err := find("drop", name, false); err != nil {
			return err
		}
	}
	return nil
}

// renamedDoc returns a column's doc with a note of its former name, the last one only.
func renamedDoc(doc, old string, id SchemaID) string {
	const note = "(formerly "
	if i := strings.LastIndex(doc, note); i >= 0 {
		doc = doc[:i]
	}
	return strings.TrimSpace(doc + " " + note + fmt.Sprintf("%q, before schema %d)", old, id))
}

// inOrder puts the columns in the order of names, unless it is nil.
func (s *Schema) inOrder(names []string) error {
	if names == nil {
		return nil
	}
	if len(names) != len(s.Columns) {
		return fmt.Errorf("order of %d columns, the schema has %d", len(names), len(s.Columns))
	}
	columns := make([]Column, 0, len(names))
	for _, name := range names {
		i := s.Ordinal(name)
		if i < 0 {
			return fmt.Errorf("order column %q: no such column", name)
		}
		columns = append(columns, s.Columns[i]) // one that is there twice: Index says so
	}
	s.Columns = columns
	return nil
}

// widenType returns from as to has it: a type of to's parameters with from's ids. Members that only to has get ids
// after *last; those that it lacks stay, optional, as a column does that its source has no more.
func widenType(from, to *Type, last *int) *Type {
	t := cloneType(to)
	if !from.Nested() {
		return t
	}
	t.Fields = cloneColumns(from.Fields)
	var added []Column
	for _, f := range to.Fields {
		i := slices.IndexFunc(t.Fields, func(c Column) bool { return c.Name == f.Name })
		if i < 0 {
			f.Required = false
			added = append(added, f)
			continue
		}
		t.Fields[i].Type = widenType(t.Fields[i].Type, f.Type, last)
	}
	added = cloneColumns(added)
	*last = assignIDs(added, *last)
	t.Fields = append(t.Fields, added...)
	return t
}

// Follows reports why next cannot be the next schema of the history; nil: it can. Errors: ErrIncompatible, ErrKeyColumn,
// an id that is out of order, a schema that the history has already (Iceberg keeps none twice).
func (h Schemas) Follows(next *Schema) error {
	if int(next.ID) != len(h) {
		return fmt.Errorf("schema %d after a history of %d", next.ID, len(h))
	}
	if len(h) == 0 {
		return nil
	}
	now := h.Current()
	if !slices.Equal(now.Key, next.Key) {
		return fmt.Errorf("schema %d has another key: %w", next.ID, ErrKeyColumn)
	}
	for _, id := range now.Key {
		was, is := now.Columns[now.OrdinalOf(id)], next.Columns[next.OrdinalOf(id)]
		if was.Name != is.Name || was.Required != is.Required || was.Type.Kind == Float && is.Type.Kind != Float {
			return fmt.Errorf("schema %d, column %q: %w", next.ID, was.Name, ErrKeyColumn)
		}
	}
	for _, c := range next.Columns {
		if now.OrdinalOf(c.ID) < 0 && c.ID <= now.LastID {
			return fmt.Errorf("schema %d, column %q: field id %d was given before", next.ID, c.Name, c.ID)
		}
	}
	for _, old := range h {
		if _, err := NewProjection(old, next); err != nil {
			return fmt.Errorf("schema %d after schema %d: %w", next.ID, old.ID, err)
		}
		if sameColumns(old.Columns, next.Columns) {
			return fmt.Errorf("schema %d is schema %d again, which Iceberg does not keep twice", next.ID, old.ID)
		}
	}
	return nil
}

func sameColumns(a, b []Column) bool {
	return slices.EqualFunc(a, b, func(a, b Column) bool {
		return a.ID == b.ID && a.Name == b.Name && a.Required == b.Required && a.Doc == b.Doc && a.Type.Kind == b.Type.Kind &&
			a.Type.Precision == b.Type.Precision && a.Type.Scale == b.Type.Scale && a.Type.Length == b.Type.Length &&
			sameColumns(a.Type.Fields, b.Type.Fields)
	})
}
