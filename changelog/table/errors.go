package table

import (
	"errors"
	"fmt"
)

// Errors that callers branch on.
var (
	// ErrNotFound reports that the catalog has no such table.
	ErrNotFound = errors.New("table: no such table")
	// ErrExists reports that a table of the name is there already.
	ErrExists = errors.New("table: table exists")
	// ErrFenced reports that a newer epoch owns the table (P3). It is permanent: the holder stops.
	ErrFenced = errors.New("table: fenced by a newer epoch")
	// ErrUnknownOutcome reports that a commit was sent and neither its success nor its failure could be seen (P2). Nothing
	// of it may be deleted. The same commit may be sent again under the same id: if it landed, that is found.
	ErrUnknownOutcome = errors.New("table: outcome of commit is unknown")
	// ErrUnsupported reports a table that firn can not take: not a mixed table, or of a shape that it does not write.
	ErrUnsupported = errors.New("table: not supported")
	// ErrHalf reports a base store that names a change store which the catalog does not have. Catalog.Create completes one that
	// was never written to.
	ErrHalf = errors.New("table: base store without its change store")
	// ErrCorrupt reports metadata or a manifest that cannot be read. Nothing is deleted.
	ErrCorrupt = errors.New("table: corrupt metadata")
)

// ConflictError reports that the table moved while a commit was prepared. Nothing was applied; the commit may be planned
// again on what the table has become.
type ConflictError struct {
	Table, Store string
	Want, Head   int64 // the snapshot that the commit assumed, and the one that is there; 0: none
	Reason       string
}

// Error says what moved.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("commit to %s store of %s: conflict: %s (snapshot %d, head %d)", e.Store, e.Table, e.Reason, e.Want, e.Head)
}

// IsConflict reports whether err is a ConflictError: the same work may be planned and committed again.
func IsConflict(err error) bool {
	_, ok := errors.AsType[*ConflictError](err)
	return ok
}

// Outcome names how a commit ended, by its error: committed, fenced, unknown, conflict or failed.
func Outcome(err error) string {
	switch {
	case err == nil:
		return "committed"
	case errors.Is(err, ErrFenced):
		return "fenced"
	case errors.Is(err, ErrUnknownOutcome):
		return "unknown"
	case IsConflict(err):
		return "conflict"
	}
	return "failed"
}
