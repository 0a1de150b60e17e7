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
	keys  map[string]struct{}
}

func (s *staleKeys) has(key []byte) bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.keys[string(key)]
	return ok
}

// apply makes marks of a submitted append count. It returns how many keys are stale.
func (s *staleKeys) apply(marks []changelog.StaleMark) int {
	if len(marks) == 0 {
		return int(s.count.Load())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(map[string]struct{})
	}
	for _, m := range marks {
		if m.Set {
			s.keys[string(m.Key)] = struct{}{}
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
