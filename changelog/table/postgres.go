package table

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// openPostgres opens a SQL catalog in a PostgreSQL database, postgres://user@host/database: the tables of Iceberg's JDBC catalog, which
// Java's JdbcCatalog and PyIceberg's SqlCatalog share under the same catalog name.
func openPostgres(ctx context.Context, uri, name string, files FS) (backend, error) {
	shown := RedactURI(uri)
	if !strings.HasPrefix(uri, "postgres://") && !strings.HasPrefix(uri, "postgresql://") {
		return nil, fmt.Errorf("open catalog %s: a SQL catalog is in PostgreSQL: postgres://USER@HOST:PORT/DATABASE: %w", shown, ErrUnsupported)
	}
	config, err := pgx.ParseConfig(uri)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", shown, err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 10 * time.Second
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(durable))
	db.SetMaxOpenConns(8) // a process commits to few tables at a time; servers allow about a hundred connections in all
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(time.Minute)
	c, err := newSQL(ctx, db, dialect{numbered: true, remote: true, outcome: postgresOutcome}, name, files)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", shown, err)
	}
	return c, nil
}

// durable sees to it that a commit that was answered outlives a crash of the server: the log is trimmed on its word. What the
// server's own setting promises beyond that (replicas) stays.
func durable(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
	return err //nolint:wrapcheck // the caller says which catalog
}

// postgresOutcome tells what a statement's error says of it. Statements are single and commit themselves: one that the server
// reports as failed is rolled back. Errors of the connection, of a server that goes down, and its own internal ones say nothing.
// Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
func postgresOutcome(err error) error {
	var failed *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &connect), pgconn.SafeToRetry(err):
		return errUnsent
	case !errors.As(err, &failed), failed.Code == "40003": // statement_completion_unknown
		return nil
	case strings.HasPrefix(failed.Code, "40"): // rolled back for another transaction
		return errMoved
	}
	for _, class := range []string{"0A", "22", "23", "25", "26", "28", "3D", "3F", "42", "53", "54", "55"} {
		if strings.HasPrefix(failed.Code, class) {
			return errRefused
		}
	}
	return nil
}
