package table_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// TestPostgresInFlight (P2): a commit whose context ends while the server holds it is of unknown outcome, and is in the table once
// when it was sent again, whether the first came or not.
func TestPostgresInFlight(t *testing.T) {
	if os.Getenv("FIRN_TEST_POSTGRES") == "" {
		t.Skip("FIRN_TEST_POSTGRES names no database")
	}
	l, s := newLake(t, "postgres"), users(t)
	tbl := l.create("db.users", s)
	db, err := sql.Open("pgx", os.Getenv("FIRN_TEST_POSTGRES"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `SELECT 1 FROM iceberg_tables WHERE catalog_name = $1 FOR UPDATE`, l.options.Name); err != nil {
		t.Fatal(err)
	}
	c := l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := tbl.AppendChanges(ctx, c); !errors.Is(err, table.ErrUnknownOutcome) {
		t.Errorf("held by the server: %v", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if l.append(tbl, c); len(l.files(l.load(tbl).Change())) != 1 {
		t.Error("not there once")
	}
}

// TestPostgresRefused: what cannot be a catalog in PostgreSQL is said, without the password.
func TestPostgresRefused(t *testing.T) {
	for uri, want := range map[string]string{
		"mysql://me:hush@127.0.0.1/x":                     "a SQL catalog is in PostgreSQL",
		"postgres://me:hush@127.0.0.1:1/x":                "connect",
		"postgres://me:hush@127.0.0.1:x/x":                "postgres://",
		"postgres://me@127.0.0.1:1/x?password=hush":       "connect",
		"postgres://me:hu%73h@127.0.0.1:1/x?sslmode=what": "sslmode",
	} {
		_, err := table.Open(t.Context(), table.Options{Type: table.TypeSQL, URI: uri, Warehouse: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: want %q, got %v", uri, want, err)
		}
	}
}
