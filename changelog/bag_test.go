package changelog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestBag: folding a history from the middle on comes to what applying all of it does, row by row.
func TestBag(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all, before []string
		var b Bag
		from := r.IntN(20)
		for i := range 40 {
			if i == from {
				before = slices.Clone(all)
			}
			row := fmt.Sprint(r.IntN(4))
			switch r.IntN(12) {
			case 0:
				all = nil
				if i >= from {
					b.Truncate()
				}
			case 1, 2, 3, 4:
				if at := slices.Index(all, row); at >= 0 {
					all = slices.Delete(all, at, at+1)
				}
				if i >= from {
					b.Take([]byte(row))
				}
			default:
				all = append(all, row)
				if i >= from {
					b.Add([]byte(row))
				}
			}
		}
		var got []string
		for _, row := range before {
			if b.Keeps([]byte(row)) {
				got = append(got, row)
			}
		}
		for row, n := range b.Added {
			for range n {
				got = append(got, row)
			}
		}
		slices.Sort(got)
		slices.Sort(all)
		if !slices.Equal(got, all) {
			t.Fatalf("seed %d: %v, want %v", seed, got, all)
		}
	}
}
