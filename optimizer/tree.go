package optimizer

import (
	"firn/changelog/mixed"
)

// tree is how large the base files of one partition are, by tree node, and what follows for the nodes of new files. A fixed
// number of buckets (Rules.Buckets) puts all files at the nodes of that number. Auto-bucket lets the tree grow and shrink
// node by node, each by the bytes that its keys have:
//
//	more than capBytes    large files at the node are rewritten into nodes below it, once they are enough for all of those
//	less than half        files below it that are rewritten anyway go to the node: siblings are put together
//	between               all stays: a node has to double or halve before it changes again
//
// So a partition has the fewest buckets, a power of two, of which each is at most capBytes, and a small one has only the root. Small
// files stay at the node where they are until they have grown by the rewrites of their size: a node with few bytes
// for each of those below it would write a file for each. A byte sinks at most once for each factor of maxFan (2 at the least) by which
// the number of buckets is more than one.
type tree struct {
	rules Rules
	own   map[mixed.TreeNode]int64 // live bytes of the files of a node
	below map[mixed.TreeNode]int64 // and of all under it
}

const (
	// capTargets is how many files of the target size a node may have: as much as Amoro gives one thread of its optimizer.
	capTargets = 4
	// maxFan is into how many nodes auto-bucket splits one at a time.
	maxFan = 16
	// sinkDivisor: auto-bucket writes files of at least TargetBytes/sinkDivisor when it splits.
	sinkDivisor = 4
	// maxBatch is how many target sizes a rewrite over several nodes takes at most.
	maxBatch   = 8
	maxBuckets = 1 << 16
)

func newTree(files []DataFile, partition string, r Rules) *tree {
	t := &tree{rules: r, own: map[mixed.TreeNode]int64{}, below: map[mixed.TreeNode]int64{}}
	for _, f := range files {
		if f.Partition == partition {
			t.add(f)
		}
	}
	return t
}

func (t *tree) add(f DataFile) {
	bytes := f.liveBytes()
	t.own[f.Node] += bytes
	for mask := f.Node.Mask; ; mask >>= 1 {
		t.below[f.Node.Ancestor(mask)] += bytes
		if mask == 0 {
			return
		}
	}
}

// bytes is about how many live bytes the keys of a node have: files above it count by its share of their keys.
func (t *tree) bytes(n mixed.TreeNode) int64 {
	sum, share := t.below[n], int64(1)
	for mask := n.Mask; mask > 0; {
		mask, share = mask>>1, share*2
		sum += t.own[n.Ancestor(mask)] / share
	}
	return sum
}

func (t *tree) capBytes() int64 { return capTargets * t.rules.TargetBytes }

// home returns where files of a node belong when they are rewritten: there or above.
func (t *tree) home(n mixed.TreeNode) mixed.TreeNode {
	if t.rules.Buckets > 0 {
		return n.Ancestor(int64(t.rules.Buckets) - 1)
	}
	for mask := int64(0); mask < n.Mask; mask = mask<<1 | 1 {
		if a := n.Ancestor(mask); t.bytes(a) < t.capBytes()/2 {
			return a
		}
	}
	return n
}

// fan returns over how many nodes below n rows of n go in one step, when more bytes of them come: 1 if they stay.
func (t *tree) fan(n mixed.TreeNode, more int64) int {
	if t.rules.Buckets > 0 {
		return int(max(1, min(maxOpen, int64(t.rules.Buckets)/(n.Mask+1))))
	}
	fan, bytes := int64(1), t.bytes(n)+more
	for bytes > t.capBytes()*fan && fan < maxFan && (n.Mask+1)*fan < maxBuckets {
		fan *= 2
	}
	return int(fan)
}

// least is how many bytes are to be rewritten at least for them to go over fan nodes.
func (t *tree) least(fan int) int64 {
	if t.rules.Buckets > 0 || fan == 1 {
		return 0
	}
	return int64(fan) * t.rules.TargetBytes / sinkDivisor
}

// batch is how many bytes one rewrite over fan nodes takes at most, or one file.
func (t *tree) batch(fan int) int64 {
	return min(int64(fan), maxBatch) * t.rules.TargetBytes
}
