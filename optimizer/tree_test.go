package optimizer

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// TestTogether: the deletes of several nodes that are put together are those of the lowest node above all of them.
func TestTogether(t *testing.T) {
	for _, tc := range []struct {
		nodes []int64
		want  int64
	}{
		{[]int64{9, 11, 13, 15}, 3},          // all odd: of one half
		{[]int64{8, 10, 12, 14}, 2},          // all even
		{[]int64{16, 20, 24, 28}, 4},         // of one quarter
		{[]int64{8, 10, 12, 14, 9}, 1},       // one of the other half
		{[]int64{2, 8, 12, 16, 20}, 2},       // of several levels
		{[]int64{1, 8, 9, 10}, 1},            // the root
		{[]int64{5, 9, 13, 25}, 5},           // 9 and 13 are the children of 5
		{[]int64{31, 63, 127, 255, 511}, 31}, // one under the other
	} {
		byNode, txns, files := map[mixed.TreeNode]map[string]*rowSet{}, map[mixed.TreeNode]int64{}, 0
		for i, id := range tc.nodes {
			n, err := mixed.NodeOf(id)
			if err != nil {
				t.Fatal(err)
			}
			byNode[n] = map[string]*rowSet{fmt.Sprint("a", id): {}, fmt.Sprint("b", id): {}}
			txns[n], files = int64(10+i*7%5), files+2
		}
		all, txn := together(byNode, txns)
		if len(all) != 1 || len(txn) != 1 {
			t.Fatalf("%v: %v, %v", tc.nodes, all, txn)
		}
		for n, sets := range all {
			if n.ID() != tc.want || len(sets) != files || txn[n] != 14 && len(tc.nodes) >= 5 || txn[n] < 10 {
				t.Errorf("%v: node %s, %d files, transaction %d; want node %d, %d files", tc.nodes, n, len(sets), txn[n], tc.want, files)
			}
			for below := range byNode {
				if !below.IsSonOf(n) {
					t.Errorf("%v: the deletes of node %s do not reach %s", tc.nodes, n, below)
				}
			}
		}
	}
}

// TestDeletesTogether: a merge that deletes rows in more than maxDeleteNodes nodes writes one file of deletes, of the node above these and
// not above more, and all readers honour it.
func TestDeletesTogether(t *testing.T) {
	w := newWorld(t, nil)
	w.setBuckets(16, 0)
	w.open()
	w.flush(w.allPut("v")...)
	w.once(Minor)
	if n := len(w.placed()); n != 16 {
		t.Fatalf("rows in %d of 16 nodes", n)
	}
	s := w.table().Schemas().Current()
	for _, half := range []int64{1, 0} {
		var ops []op
		seen := map[int64]bool{}
		for o := range w.allKeys() {
			h, err := mixed.HashOf(s, s.KeyOf(nil, o.values(s)))
			w.must(err)
			if n := int64(h) & 15; n&1 == half && !seen[n] {
				seen[n] = true
				ops = append(ops, o) // a delete
			}
		}
		if len(ops) != 8 {
			t.Fatalf("keys of nodes %v", seen)
		}
		before := map[string]bool{}
		for _, f := range w.live(table.PositionDeletes) {
			before[f.Path] = true
		}
		w.flush(ops...)
		w.once(Minor)
		var nodes []int64
		for _, f := range w.live(table.PositionDeletes) {
			if !before[f.Path] {
				nodes = append(nodes, f.Info.Node.ID())
			}
		}
		if len(nodes) != 1 || nodes[0] != 2+half {
			t.Errorf("deletes in the nodes of half %d are of nodes %v", half, nodes)
		}
		w.check()
		w.byNodes()
	}
	w.once(Full)
	w.check()
	w.byNodes()
	w.upToDate()
}

// TestAutoBucketSettles: a node that has been split is put together again only below half of what splits it, and one that was put
// together is split only above: sizes that move to and fro around either bound, or anywhere between them, change nothing.
func TestAutoBucketSettles(t *testing.T) {
	const file = 100 << 20
	r := defaultRules()
	trigger := newTree(nil, "", r).capBytes()
	settle := func(base []DataFile, name string) (after []DataFile, moved int) {
		for round := 0; ; round++ {
			tasks, _ := Plan(View{Base: base}, r, time.Unix(0, 0), 0)
			if len(tasks) == 0 {
				return base, moved
			}
			if round > 10 {
				t.Fatalf("%s: planning does not end: %+v", name, tasks)
			}
			for _, task := range tasks {
				for _, f := range task.Data {
					if task.Spread > 1 || f.Node != task.Node {
						moved++
					}
				}
			}
			base, _ = applyRewrites(base, tasks, 0, fmt.Sprintf("%s-%d", name, round))
		}
	}
	// dirty deletes a share of the rows of all files, which has them rewritten; grow adds files at the nodes that there are.
	dirty := func(base []DataFile, share float64) (out []DataFile) {
		for _, f := range base {
			f.Deleted = int64(float64(f.Rows) * share)
			out = append(out, f)
		}
		return out
	}
	nodes := func(base []DataFile) map[mixed.TreeNode]bool {
		all := map[mixed.TreeNode]bool{}
		for _, f := range base {
			all[f.Node] = true
		}
		return all
	}
	size := func(base []DataFile) (sum int64) {
		for _, f := range base {
			sum += f.liveBytes()
		}
		return sum
	}
	grow := func(base []DataFile, to int64, name string) []DataFile {
		at := nodes(base)
		for i := 0; to-size(base) >= int64(len(at)); i++ {
			bytes := min(file, to-size(base)) / int64(len(at))
			for n := range at {
				base = append(base, DataFile{Path: fmt.Sprintf("%s-%s-%d", name, n, i), Node: n, Bytes: bytes, Rows: 100_000})
			}
		}
		return base
	}
	one := grow([]DataFile{{Path: "first", Bytes: file, Rows: 100_000}}, 4*file, "one")
	one, moved := settle(one, "one")
	if moved > 0 || len(nodes(one)) != 1 {
		t.Fatalf("%d files moved below the trigger, nodes %v", moved, nodes(one))
	}
	two, moved := settle(grow(one, 6*file, "two"), "two")
	if moved == 0 || len(nodes(two)) != 2 || nodes(two)[mixed.TreeNode{}] {
		t.Fatalf("not split: %d files moved, nodes %v", moved, nodes(two))
	}
	for name, bounds := range map[string][2]float64{ // shares of the trigger to shrink and to grow to
		"around the trigger":    {0.85, 1.1},
		"between":               {0.6, 0.9},
		"just above the half":   {0.53, 0.7},
		"up to all of two":      {0.9, 1.8},
		"all between the two":   {0.55, 1.9},
		"around, in many steps": {0.95, 1.05},
	} {
		base := two
		for i := range 8 {
			tag := fmt.Sprintf("%s-%d", name, i)
			var out, in int
			low := int64(bounds[0] * float64(trigger))
			if have := size(base); have > low {
				base, out = settle(dirty(base, 1-float64(low)/float64(have)), tag+"-out")
			}
			base, in = settle(grow(base, int64(bounds[1]*float64(trigger)), tag), tag+"-in")
			if out+in > 0 || !maps.Equal(nodes(base), nodes(two)) {
				t.Fatalf("%s, round %d: %d files moved when the table shrank, %d when it grew; nodes %v", name, i, out, in, nodes(base))
			}
		}
	}
	// Below the half they are put together, and stay so up to the trigger.
	low := dirty(two, 1-float64(trigger)*0.4/float64(size(two)))
	base, moved := settle(low, "low")
	if moved == 0 || len(nodes(base)) != 1 {
		t.Fatalf("not put together: %d files moved, nodes %v", moved, nodes(base))
	}
	for i := range 8 {
		base, moved = settle(grow(base, trigger*98/100, fmt.Sprint("high", i)), fmt.Sprint("high", i))
		if moved > 0 {
			t.Fatalf("%d files moved below the trigger", moved)
		}
		if base, moved = settle(dirty(base, 0.6), fmt.Sprint("again", i)); moved > 0 {
			t.Fatalf("%d files moved when the table shrank", moved)
		}
	}
}
