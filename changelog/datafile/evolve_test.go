package datafile

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"pgregory.net/rapid"

	"firn/changelog"
)

// widest returns the type that t is widened to, as far as a draw says: parts of nested types, and new members, too.
func widest(t *rapid.T, typ *changelog.Type) *changelog.Type {
	if !rapid.Bool().Draw(t, "widen") {
		return typ
	}
	switch typ.Kind {
	case changelog.Int:
		return primitive(changelog.Long)
	case changelog.Float:
		return primitive(changelog.Double)
	case changelog.Decimal:
		return changelog.DecimalOf(rapid.IntRange(typ.Precision, 38).Draw(t, "precision"), typ.Scale)
	case changelog.List:
		return changelog.ListOf(widest(t, typ.Fields[0].Type))
	case changelog.Map:
		return changelog.MapOf(typ.Fields[0].Type, widest(t, typ.Fields[1].Type))
	case changelog.Struct:
		var fields []changelog.Column
		for _, f := range typ.Fields {
			f.Type = widest(t, f.Type)
			fields = append(fields, f)
		}
		name := fmt.Sprint("new", len(typ.Fields))
		return &changelog.Type{Kind: changelog.Struct, Fields: append(fields, changelog.Column{Name: name, Type: anyType(t, 1)})}
	default:
		return typ
	}
}

// anyStep draws a step of all kinds.
func anyStep(t *rapid.T, s *changelog.Schema) changelog.Evolution {
	e := changelog.Evolution{Rename: map[string]string{}, Widen: map[string]*changelog.Type{}}
	var names []string
	for _, c := range s.Columns {
		if w := widest(t, c.Type); w != c.Type {
			e.Widen[c.Name] = w
		}
		switch what := rapid.IntRange(0, 5).Draw(t, "step"); {
		case c.Required:
			names = append(names, c.Name)
		case what == 0:
			e.Drop = append(e.Drop, c.Name)
			delete(e.Widen, c.Name)
		case what == 1:
			e.Rename[c.Name] = fmt.Sprintf("r%d_%d", s.ID, c.ID)
			names = append(names, e.Rename[c.Name])
		default:
			names = append(names, c.Name)
		}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "added") {
		e.Add = append(e.Add, changelog.Column{Name: fmt.Sprintf("n%d_%d", s.ID, i), Type: anyType(t, 2)})
		names = append(names, e.Add[i].Name)
	}
	e.Order = rapid.Permutation(names).Draw(t, "order")
	return e
}

// TestEvolved: a file of any schema reads in every later one as its rows do in the row codec.
func TestEvolved(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := changelog.Schemas{anySchema(rt)}
		for range rapid.IntRange(1, 4).Draw(rt, "steps") {
			n, err := h.Current().Apply(anyStep(rt, h.Current()))
			if err != nil {
				rt.Fatal(err)
			}
			h = append(h, n)
		}
		var file bytes.Buffer
		w, err := NewWriter(&file, h[0], true, Options{BatchRows: 5})
		if err != nil {
			rt.Fatal(err)
		}
		var rows []changelog.Row
		for i := range rapid.IntRange(1, 20).Draw(rt, "rows") {
			rows = append(rows, anyRow(rt, h[0]))
			if err := w.WriteRow(rows[i], int64(i)); err != nil {
				rt.Fatal(err)
			}
		}
		if _, err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		for _, to := range h {
			mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
			got, _ := readAll(t, file.Bytes(), to, true, Options{BatchRows: rapid.IntRange(1, 9).Draw(rt, "batch"), Allocator: mem})
			p := NewProjector(h, to)
			for i := range rows {
				values, err := p.Values(rows[i])
				if err != nil {
					rt.Fatal(err)
				}
				if want := changelog.AppendRow(nil, to, values); !bytes.Equal(got[i], want) {
					rt.Fatalf("row %d in schema %d:\ngot  %x\nwant %x", i, to.ID, got[i], want)
				}
			}
			mem.AssertSize(t, 0)
		}
	})
}

// TestMovedMembers: members of a struct that another engine has put in another order are found by field id.
func TestMovedMembers(t *testing.T) {
	member := func(id int, name string) changelog.Column {
		return changelog.Column{ID: id, Name: name, Type: primitive(changelog.Int)}
	}
	schema := func(fields ...changelog.Column) *changelog.Schema {
		s := &changelog.Schema{Columns: []changelog.Column{{ID: 1, Name: "st", Type: &changelog.Type{Kind: changelog.Struct, Fields: fields}}}}
		if err := s.Index(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	row := func(s *changelog.Schema, a, b int64) changelog.Row {
		return rowOf(s, changelog.Value{B: changelog.AppendStruct(nil, s.Columns[0].Type, []changelog.Value{{I: a}, {I: b}})})
	}
	from, to := schema(member(2, "x"), member(3, "y")), schema(member(3, "y"), member(2, "x"))
	var file bytes.Buffer
	w, err := NewWriter(&file, from, false, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteRow(row(from, 20, 30), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := readAll(t, file.Bytes(), to, false, Options{}); len(got) != 1 || !bytes.Equal(got[0], row(to, 30, 20)) {
		t.Errorf("got %x, want %x", got, row(to, 30, 20))
	}
}
