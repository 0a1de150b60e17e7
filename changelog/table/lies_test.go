package table_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// liar makes the database of a SQL catalog lie about commits; the function that it returns ends that.
type liar func(l *lake) (honest func())

// lies are what a database can say that is not so.
func lies(kind string) map[string]liar {
	exec := func(l *lake, driver, uri string, statements ...string) {
		l.t.Helper()
		db, err := sql.Open(driver, uri)
		if err != nil {
			l.t.Fatal(err)
		}
		defer db.Close()
		for _, statement := range statements {
			if _, err := db.ExecContext(context.Background(), statement); err != nil {
				l.t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	sqlite := func(trigger string) liar {
		return func(l *lake) func() {
			exec(l, "sqlite", l.options.URI, "CREATE TRIGGER lie "+trigger)
			return func() { exec(l, "sqlite", l.options.URI, "DROP TRIGGER lie") }
		}
	}
	if kind == "sqlite" {
		return map[string]liar{
			"yes": sqlite(`AFTER UPDATE ON iceberg_tables BEGIN
				UPDATE iceberg_tables SET metadata_location = OLD.metadata_location WHERE table_name = OLD.table_name; END`),
			"no such row": sqlite(`BEFORE UPDATE ON iceberg_tables BEGIN
				UPDATE iceberg_tables SET metadata_location = NEW.metadata_location WHERE table_name = OLD.table_name; SELECT RAISE(IGNORE); END`),
			"error": sqlite(`AFTER UPDATE ON iceberg_tables BEGIN SELECT RAISE(FAIL, 'not done'); END`),
		}
	}
	postgres := func(body string) liar {
		return func(l *lake) func() {
			exec(l, "pgx", l.options.URI, `CREATE OR REPLACE FUNCTION lie() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN `+body+` END $$`,
				fmt.Sprintf(`CREATE TRIGGER lie BEFORE UPDATE ON iceberg_tables FOR EACH ROW
				WHEN (OLD.catalog_name = '%s' AND pg_trigger_depth() = 0) EXECUTE FUNCTION lie()`, l.options.Name))
			return func() { exec(l, "pgx", l.options.URI, "DROP TRIGGER lie ON iceberg_tables", "DROP FUNCTION lie") }
		}
	}
	return map[string]liar{
		"yes": postgres(`RETURN OLD;`),
		"no such row": postgres(`UPDATE iceberg_tables SET metadata_location = NEW.metadata_location
			WHERE catalog_name = OLD.catalog_name AND table_name = OLD.table_name; RETURN NULL;`),
	}
}

// TestSQLLies (P2): a database that says yes and has not made the commit is not believed, and neither is one that says no and has:
// nothing that the commit names is removed before the catalog was looked at.
func TestSQLLies(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgres"} {
		if kind == "postgres" && os.Getenv("FIRN_TEST_POSTGRES") == "" {
			continue
		}
		for name, lie := range lies(kind) {
			t.Run(kind+" says "+name, func(t *testing.T) { testSQLLies(t, kind, name, lie) })
		}
	}
}

func testSQLLies(t *testing.T, kind, name string, lie liar) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	before := map[string]string{}
	if kind == "sqlite" {
		before = l.everything()
	}
	flush := l.commit(0, 4, 5, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"}))
	base := table.BaseCommit{ID: "lied to", Add: l.added(tbl, s, 6), Optimized: map[string]int64{"": 3}}
	commits := map[string]func() error{
		"flush":    func() error { return second(tbl.AppendChanges(t.Context(), flush)) },
		"mark":     func() error { return second(tbl.AppendChanges(t.Context(), l.commit(0, 5, 6))) },
		"base":     func() error { return second(tbl.CommitBase(t.Context(), base)) },
		"property": func() error { return tbl.SetProperties(t.Context(), map[string]string{"x": "y"}) },
	}
	honest := lie(l)
	for what, commit := range commits {
		err := commit()
		switch {
		case name == "error" && what == "property": // it has no id to be found by, and may be repeated
		case name != "yes" && err != nil:
			t.Errorf("%s: %v, and it is made", what, err)
		case name == "yes" && (!errors.Is(err, table.ErrUnknownOutcome) || !strings.Contains(err.Error(), "db.users") || !strings.Contains(err.Error(), "does not have it")):
			t.Errorf("%s: %v, and it is not made", what, err)
		}
	}
	if kind == "sqlite" && name == "yes" {
		after := l.everything()
		for path, was := range before {
			if after[path] != was {
				t.Errorf("%s is another or gone", path)
			}
		}
	}
	honest()
	for _, what := range []string{"flush", "base"} {
		if err := commits[what](); err != nil { // under its id: it is there once, whatever became of it
			t.Errorf("%s: %v", what, err)
		}
	}
	now := l.load(tbl)
	if n := len(l.files(now.Change())); n != 3 || now.Optimized()[""] != 3 {
		t.Errorf("%d change files, optimized %v", n, now.Optimized())
	}
	if got := l.rows(now.Base(), s); len(got) != 3 || got[6] != "x" {
		t.Errorf("rows %v", got)
	}
}

// TestRESTFeigns (P2): a server that answers with the metadata as it would be, and has not kept it, is not believed.
func TestRESTFeigns(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	c := l.commit(0, 4, 5, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"}))
	l.rest.feigns.Store(true)
	for what, err := range map[string]error{
		"flush":    second(tbl.AppendChanges(t.Context(), c)),
		"base":     second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: "b", Optimized: map[string]int64{"": 3}})),
		"property": tbl.SetProperties(t.Context(), map[string]string{"x": "y"}),
	} {
		if !errors.Is(err, table.ErrUnknownOutcome) || !strings.Contains(err.Error(), "db.users") {
			t.Errorf("%s: %v", what, err)
		}
	}
	l.rest.feigns.Store(false)
	l.append(tbl, c)
	if now := l.load(tbl); len(l.files(now.Change())) != 3 || now.Optimized()[""] != 2 {
		t.Errorf("%d files, optimized %v", len(l.files(now.Change())), now.Optimized())
	}
}
