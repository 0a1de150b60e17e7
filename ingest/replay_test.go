package ingest

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestIdentitiesAgainstModel(t *testing.T) {
	for _, limit := range []int{0, 1, 2, 7, 1000, 5000} {
		rng := rand.New(rand.NewPCG(1, uint64(limit)))
		m := newIdentities(limit)
		var order [][16]byte
		held := map[[16]byte]bool{}
		for i := range 30000 {
			var id [16]byte
			// few different homes, so that chains are long and wrap around
			binary.LittleEndian.PutUint32(id[:], uint32(rng.IntN(40)-20))
			binary.LittleEndian.PutUint64(id[4:], uint64(rng.IntN(2*limit+3)))
			if limit > 100 {
				binary.LittleEndian.PutUint32(id[:], rng.Uint32()%4096)
			}
			if got, want := m.seen(&id), held[id]; got != want {
				t.Fatalf("limit %d, step %d: seen %v, want %v", limit, i, got, want)
			}
			if held[id] || limit == 0 {
				continue
			}
			if order, held[id] = append(order, id), true; len(order) > limit {
				delete(held, order[0])
				order = order[1:]
			}
			if rng.IntN(20000) == 0 {
				m.reset()
				order, held = nil, map[[16]byte]bool{}
			}
		}
	}
}

func BenchmarkIdentities(b *testing.B) {
	m := newIdentities(100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		var id [16]byte
		binary.LittleEndian.PutUint64(id[:], rng.Uint64())
		binary.LittleEndian.PutUint64(id[8:], rng.Uint64())
		m.seen(&id)
	}
}
