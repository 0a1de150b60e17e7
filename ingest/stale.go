package ingest

import (
	"sync"
	"sync/atomic"

	"firn/changelog"
)

// staleKeys are the keys of one table whose stored row may be older than a rejected event (spec/debezium.md 2.7). It
// holds what is submitted; what an append being built changes, its worker holds.
type staleKeys struct {
	count atomic.Int64 // so that the usual case, none, takes no lock
	mu    sync.Mutex
	keys  map[string]bool // true: later events of the key queue
}

// get reports whether a key is stale, and whether its later events queue.
func (s *staleKeys) get(key []byte) (stale, hold bool) {
	if s.count.Load() == 0 {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	hold, stale = s.keys[string(key)]
	return stale, hold
}

// apply makes marks of a submitted append count. It returns how many keys are stale.
func (s *staleKeys) apply(marks []changelog.StaleMark) int {
	if len(marks) == 0 {
		return int(s.count.Load())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(map[string]bool)
	}
	for _, m := range marks {
		if m.Set {
			s.keys[string(m.Key)] = m.Hold
		} else {
			delete(s.keys, string(m.Key))
		}
	}
	s.count.Store(int64(len(s.keys)))
	return len(s.keys)
}

// all returns the stale keys.
func (s *staleKeys) all() []changelog.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]changelog.Key, 0, len(s.keys))
	for k := range s.keys {
		keys = append(keys, changelog.Key(k))
	}
	return keys
}
