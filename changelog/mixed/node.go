package mixed

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
)

// ErrBadNode reports a node id that no tree has: 0 or a negative number. (Amoro's reader never ends on 0.)
var ErrBadNode = errors.New("mixed: node id is not positive")

// TreeNode is a set of keys: those whose hash has the low bits Index under Mask. Mask is 2^h-1, Index at most Mask.
// The zero TreeNode is the root, which holds every key.
//
// Source: amoro:amoro-format-iceberg/src/main/java/org/apache/amoro/data/DataTreeNode.java.
type TreeNode struct {
	Mask, Index int64
}

// NodeOf returns the node with the id Mask+1+Index. Error: ErrBadNode.
func NodeOf(id int64) (TreeNode, error) {
	if id <= 0 {
		return TreeNode{}, fmt.Errorf("%w: %d", ErrBadNode, id)
	}
	mask := int64(1)<<(bits.Len64(uint64(id))-1) - 1
	return TreeNode{Mask: mask, Index: id - mask - 1}, nil
}

// ID returns the number of the node in file names: 1 for the root.
func (n TreeNode) ID() int64 { return n.Mask + 1 + n.Index }

// String returns the id.
func (n TreeNode) String() string { return strconv.FormatInt(n.ID(), 10) }

// IsSonOf reports whether n is o or below it: whether each key of n is in o.
func (n TreeNode) IsSonOf(o TreeNode) bool {
	return n == o || n.Mask > o.Mask && n.Index&o.Mask == o.Index
}

// Related reports whether a key can be in both nodes: one is the other or above it.
func (n TreeNode) Related(o TreeNode) bool { return n.IsSonOf(o) || o.IsSonOf(n) }

// Children returns the two nodes that n splits into.
func (n TreeNode) Children() (left, right TreeNode) {
	mask := n.Mask<<1 | 1
	return TreeNode{Mask: mask, Index: n.Index}, TreeNode{Mask: mask, Index: n.Index + n.Mask + 1}
}

// NodeFor returns the node of a key's hash (KeyHash) where keys are spread over buckets nodes: a power of two, at
// least 1. Other numbers give nodes that no reader expects; ValidBuckets tells.
func NodeFor(hash int32, buckets int) TreeNode {
	mask := int64(buckets) - 1
	return TreeNode{Mask: mask, Index: int64(hash) & mask}
}

// ValidBuckets reports whether n can be a number of buckets: a power of two from 1 to 65536.
func ValidBuckets(n int) bool { return n >= 1 && n <= 1<<16 && n&(n-1) == 0 }

// ErrBuckets reports a bucket property that is no power of two.
var ErrBuckets = errors.New("not a power of two from 1 to 65536, and readers would look for rows in other tree nodes than writers put them")

// ParseBuckets returns the number of buckets that a table's property (PropBaseBuckets, PropChangeBuckets) asks for; ok is false if
// the property is not there. Error: ErrBuckets. Amoro takes any number and writes ids that decode to other nodes
// (spec/mixed-format.md 4.2).
func ParseBuckets(properties map[string]string, name string) (n int, ok bool, err error) {
	v, ok := properties[name]
	if !ok {
		return 0, false, nil
	}
	if n, err = strconv.Atoi(v); err != nil || !ValidBuckets(n) {
		return 0, false, fmt.Errorf("table property %s=%q: %w", name, v, ErrBuckets)
	}
	return n, true, nil
}

// Ancestor returns the node at or above n whose mask is at most mask (2^h-1).
func (n TreeNode) Ancestor(mask int64) TreeNode {
	if n.Mask <= mask {
		return n
	}
	return TreeNode{Mask: mask, Index: n.Index & mask}
}

// Common returns the lowest node that holds the keys of both.
func (n TreeNode) Common(o TreeNode) TreeNode {
	mask := min(n.Mask, o.Mask)
	for n.Index&mask != o.Index&mask {
		mask >>= 1
	}
	return n.Ancestor(mask)
}
