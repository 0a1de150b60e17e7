package table_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

func evolved(t testing.TB, s *changelog.Schema, e changelog.Evolution) *changelog.Schema {
	t.Helper()
	n, err := s.Apply(e)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLoadAcrossSchema: a schema that comes, with rows of it, between the loading of the two stores is the loaded table's.
func TestLoadAcrossSchema(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	next := evolved(t, s, changelog.Evolution{Add: []changelog.Column{{Name: "late", Type: changelog.Primitive(changelog.Int)}}})
	raced := false
	base := filepath.Join(strings.TrimPrefix(tbl.Base().Location(), "file://"), "metadata") + "/"
	other := l.open(table.Options{FS: errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !raced && op.Kind == errorfs.OpOpen && strings.HasPrefix(op.Path, base) && strings.HasSuffix(op.Path, ".metadata.json") {
			raced = true
			if err := l.load(tbl).SyncSchemas(t.Context(), changelog.Schemas{s, next}); err != nil {
				t.Error(err)
			}
			now := l.load(tbl)
			l.append(now, l.commit(0, 4, 5, l.file(now.Change(), next, mixed.Insert, 0, 5, row{5, "e"})))
		}
		return nil
	}))})
	got, err := other.Load(t.Context(), "db.users")
	if err != nil {
		t.Fatal(err)
	}
	if !raced || len(got.Schemas()) != 2 {
		t.Errorf("raced %v: %d schemas with a change store of two", raced, len(got.Schemas()))
	}
}

// TestSchemasOutOfStep: the base store may be one schema ahead; anything else is refused, and says what to do.
func TestSchemasOutOfStep(t *testing.T) {
	add := func(s *changelog.Schema, name string) *changelog.Schema {
		return evolved(t, s, changelog.Evolution{Add: []changelog.Column{{Name: name, Type: changelog.Primitive(changelog.Int)}}})
	}
	s := users(t)
	one, other := add(s, "one"), add(s, "other")
	two := add(one, "two")
	for _, c := range []struct {
		name         string
		base, change []*changelog.Schema
		want         string // empty: it loads
	}{
		{name: "in step", base: []*changelog.Schema{one}, change: []*changelog.Schema{one}},
		{name: "one ahead", base: []*changelog.Schema{one}},
		{name: "two ahead", base: []*changelog.Schema{one, two}, want: "has 3 schemas and its change store db.users_change_ 1"},
		{name: "behind", change: []*changelog.Schema{one}, want: "has 1 schemas and its change store db.users_change_ 2"},
		{name: "another", base: []*changelog.Schema{one}, change: []*changelog.Schema{other}, want: "schema 1 of db.users differs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLake(t, "sqlite")
			tbl := l.create("db.users", s)
			for _, more := range c.base {
				if err := table.AddSchema(t.Context(), tbl.Base(), more); err != nil {
					t.Fatal(err)
				}
			}
			for _, more := range c.change {
				if err := table.AddSchema(t.Context(), tbl.Change(), more); err != nil {
					t.Fatal(err)
				}
			}
			got, err := l.cat.Load(t.Context(), "db.users")
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got.InStep(2) != (len(c.base) == len(c.change)) || got.InStep(3) {
					t.Errorf("in step: %v", got.InStep(2))
				}
				if err := got.SyncSchemas(t.Context(), changelog.Schemas{s, one}); err != nil || !l.load(tbl).InStep(2) {
					t.Errorf("repair: %v", err)
				}
				return
			}
			if !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestSchemaAgain: a schema that the table has had is refused before anything is written: Iceberg would not append it to the list,
// but make the old one current.
func TestSchemaAgain(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	names := make([]string, 0, len(s.Columns))
	for i := range s.Columns {
		names = append(names, s.Columns[len(s.Columns)-1-i].Name)
	}
	turned := evolved(t, s, changelog.Evolution{Order: names})
	again := evolved(t, turned, changelog.Evolution{Order: func() (back []string) {
		for i := range names {
			back = append(back, names[len(names)-1-i])
		}
		return back
	}()})
	err := tbl.SyncSchemas(t.Context(), changelog.Schemas{s, turned, again})
	if !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), "schema 0 again") {
		t.Errorf("got %v", err)
	}
	now := l.load(tbl)
	sameSchemas(t, now.Schemas(), changelog.Schemas{s, turned})
	if !now.InStep(2) {
		t.Error("out of step")
	}
	// A rename back is another schema, because its column tells of it.
	to := evolved(t, turned, changelog.Evolution{Rename: map[string]string{"name": "title"}})
	back := evolved(t, to, changelog.Evolution{Rename: map[string]string{"title": "name"}})
	if err := now.SyncSchemas(t.Context(), changelog.Schemas{s, turned, to, back}); err != nil {
		t.Fatal(err)
	}
	sameSchemas(t, l.load(tbl).Schemas(), changelog.Schemas{s, turned, to, back})
}
