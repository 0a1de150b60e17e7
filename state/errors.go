package state

import (
	"errors"
	"fmt"
)

var (
	// ErrFenced reports that a newer epoch owns the table. It is permanent: the holder stops (P3).
	ErrFenced = errors.New("state: fenced by a newer epoch")
	// ErrExists reports a table, a schema, or a topic of another table, that is there already.
	ErrExists = errors.New("state: exists already")
	// ErrNotFound reports a table that is not in the registry.
	ErrNotFound = errors.New("state: not found")
	// ErrNewerFormat reports a data directory that a newer firn has written. Nothing in it is touched.
	ErrNewerFormat = errors.New("state: written by a newer version of firn")
	// ErrCorrupt reports a stored value that cannot be read.
	ErrCorrupt = errors.New("state: corrupt value")
)

func notFound(what any) error { return fmt.Errorf("table %v: %w", what, ErrNotFound) }
