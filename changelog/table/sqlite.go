package table

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// openSQLite opens a SQL catalog in a SQLite file, which is made if it is missing.
func openSQLite(ctx context.Context, file, name string, files FS) (backend, error) {
	file = strings.TrimPrefix(strings.TrimPrefix(file, "sqlite:"), "file:")
	dsn := "file:" + (&url.URL{Path: file}).EscapedPath() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", file, err)
	}
	// A statement that has returned is over, whatever it returned: the file tells what became of it.
	c, err := newSQL(ctx, db, dialect{outcome: func(error) error { return nil }}, name, files)
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", file, err)
	}
	return c, nil
}
