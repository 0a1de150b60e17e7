package logstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"firn/changelog"
)

const (
	countPatience = 50 * time.Millisecond // that a caller waits for a count
	countRest     = 20                    // times what the last count took, before the next
	countCheck    = 4096                  // rows between two looks at whether the Store closes
)

// rowCount is a table's number of rows as it was counted last. Appends, which never read, cannot keep it.
type rowCount struct {
	sync.Mutex
	known bool
	rows  int64
	at    changelog.SeqNum
	took  time.Duration
	ended time.Time
	under chan struct{} // closed when the count under way has ended; nil: none is
}

// RowCount returns how many rows a table has. It counts them, beside the caller where that takes long, and not again while
// nothing has changed nor until the table has rested: a large table that changes answers with an earlier count. known is
// false until the first count has ended. Errors: state.ErrNotFound, ErrClosed.
func (s *Store) RowCount(ctx context.Context, id changelog.TableID) (rows int64, known bool, err error) {
	t, err := s.table(id)
	if err != nil {
		return 0, false, fmt.Errorf("count rows of table %d: %w", id, err)
	}
	c := &t.count
	c.Lock()
	stale := !c.known || c.at != t.newest()
	if stale && c.under == nil && time.Since(c.ended) >= countRest*c.took {
		if !s.runs(func() { s.countRows(context.WithoutCancel(ctx), t) }) {
			c.Unlock()
			return 0, false, fmt.Errorf("count rows of table %d: %w", id, ErrClosed)
		}
		c.under = make(chan struct{})
	}
	under := c.under
	c.Unlock()
	if stale && under != nil {
		patience := time.NewTimer(countPatience)
		defer patience.Stop()
		select {
		case <-under:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	c.Lock()
	defer c.Unlock()
	return c.rows, c.known, nil
}

// runs starts f as one of the goroutines that Close waits for, unless the Store is closed.
func (s *Store) runs(f func()) bool {
	s.closeMu.RLock()
	defer s.closeMu.RUnlock()
	if s.closeMu.closed {
		return false
	}
	s.running.Go(f)
	return true
}

func (s *Store) countRows(ctx context.Context, t *table) {
	start := time.Now()
	rows, at, err := s.count(ctx, t.id)
	c := &t.count
	c.Lock()
	defer c.Unlock()
	if err == nil {
		c.rows, c.at, c.known = rows, at, true
	} else if !errors.Is(err, ErrClosed) {
		s.opts.Logger.Warn("rows are not counted", "table", t.id, "error", err)
	}
	c.ended = time.Now()
	c.took = c.ended.Sub(start)
	close(c.under)
	c.under = nil
}

func (s *Store) count(ctx context.Context, id changelog.TableID) (rows int64, at changelog.SeqNum, err error) {
	snap, err := s.Snapshot(ctx, id) // it waits for one sync at most
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	for _, err := range snap.Rows(nil, nil) {
		if err != nil {
			return 0, 0, err
		}
		if rows++; rows%countCheck == 0 {
			select {
			case <-s.closing:
				return 0, 0, ErrClosed
			default:
			}
		}
	}
	return rows, snap.Applied, nil
}
