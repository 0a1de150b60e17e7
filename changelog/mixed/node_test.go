package mixed

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// TestAncestors holds Ancestor and Common against IsSonOf.
func TestAncestors(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	node := func() TreeNode {
		mask := int64(1)<<r.IntN(6) - 1
		return TreeNode{Mask: mask, Index: r.Int64N(mask + 1)}
	}
	for range 2000 {
		a, b := node(), node()
		c := a.Common(b)
		if !a.IsSonOf(c) || !b.IsSonOf(c) {
			t.Fatalf("%v and %v are not both under %v", a, b, c)
		}
		if l, r := c.Children(); a.IsSonOf(l) && b.IsSonOf(l) || a.IsSonOf(r) && b.IsSonOf(r) {
			t.Fatalf("%v and %v: %v is not the lowest", a, b, c)
		}
		mask := int64(1)<<r.IntN(7) - 1
		if up := a.Ancestor(mask); up.Mask != min(mask, a.Mask) || !a.IsSonOf(up) {
			t.Fatalf("%v above %v at mask %d", up, a, mask)
		}
	}
}

// TestParseBuckets: powers of two only.
func TestParseBuckets(t *testing.T) {
	for v, want := range map[string]int{"1": 1, "4": 4, "65536": 65536, "0": 0, "-2": 0, "3": 0, "131072": 0, "": 0, "4.0": 0} {
		n, ok, err := ParseBuckets(map[string]string{PropBaseBuckets: v}, PropBaseBuckets)
		if n != want || ok != (want > 0) || (err == nil) != (want > 0) || err != nil && !errors.Is(err, ErrBuckets) {
			t.Errorf("%q: %d, %v, %v", v, n, ok, err)
		}
	}
	if n, ok, err := ParseBuckets(map[string]string{PropChangeBuckets: "4"}, PropBaseBuckets); n != 0 || ok || err != nil {
		t.Errorf("not there: %d, %v, %v", n, ok, err)
	}
}
