package table

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestPostgresOutcome: only an error that says so means that a statement was not carried out.
func TestPostgresOutcome(t *testing.T) {
	code := func(c string) error { return fmt.Errorf("update: %w", &pgconn.PgError{Severity: "ERROR", Code: c}) }
	for _, c := range []struct {
		err  error
		want error
	}{
		{code("40001"), errMoved},
		{code("40P01"), errMoved},
		{code("22001"), errRefused},
		{code("42501"), errRefused},
		{code("53100"), errRefused},
		{code("25006"), errRefused},
		{&pgconn.ConnectError{}, errRefused},
		{code("40003"), nil},
		{code("57P01"), nil},
		{code("57014"), nil},
		{code("08006"), nil},
		{code("XX000"), nil},
		{code("58030"), nil},
		{errors.New("connection reset by peer"), nil},
		{context.DeadlineExceeded, nil},
	} {
		if got := postgresOutcome(c.err); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// TestRedactURI: what is shown of a URI has no secret.
func TestRedactURI(t *testing.T) {
	for uri, want := range map[string]string{
		"/d/catalog.db":                        "/d/catalog.db",
		"postgres://me:pw@h:5432/d?password=x": "postgres://me@h:5432/d",
		"https://h/path?token=x#y":             "https://h/path",
		"https://me:p%w@h/path":                "https://…",
	} {
		if got := RedactURI(uri); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
}
