package optimizer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	mor "firn/changelog/merge"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// lakeFiles opens files for package merge.
type lakeFiles struct{ fs table.FS }

func (l lakeFiles) Open(_ context.Context, path string) (mor.ReadAtCloser, int64, error) {
	in, err := l.fs.Open(path)
	if err != nil {
		return nil, 0, err
	}
	return in, in.Size(), nil
}

// byNodes reads the table as Amoro does, node by node (spec/mixed-format.md 6), and compares it with the model.
func (w *world) byNodes() {
	w.Helper()
	t := w.table()
	snapshot := mor.Snapshot{Optimized: t.Optimized()}
	for _, st := range t.Stores() {
		files, err := st.Files(w.ctx())
		w.must(err)
		for _, f := range files {
			m := mor.File{Path: f.Path, Partition: f.Partition, Sequence: f.DataSequence, Records: f.Records, Info: f.Info}
			switch {
			case st == t.Change():
				snapshot.Change = append(snapshot.Change, m)
			case f.Content == table.Data:
				snapshot.Base = append(snapshot.Base, m)
			default:
				snapshot.Deletes = append(snapshot.Deletes, m)
			}
		}
	}
	s := t.Schemas().Current()
	r, err := mor.New(s, snapshot, lakeFiles{w.catalog.FS()}, mor.Options{})
	w.must(err)
	got := map[string]string{}
	for row, err := range r.Rows(w.ctx()) {
		w.must(err)
		values, err := changelog.AppendValues(nil, s, row.Row)
		w.must(err)
		key, text := text(s, values)
		if _, twice := got[key]; twice {
			w.Errorf("by nodes: key %s is there twice", key)
		}
		got[key] = text
	}
	w.same("by nodes", got, w.model)
}

// placed fails at a base row that is not in the node of its file. It returns the base files' nodes.
func (w *world) placed() map[mixed.TreeNode]int {
	w.Helper()
	t := w.table()
	s := t.Schemas().Current()
	nodes := map[mixed.TreeNode]int{}
	for _, f := range w.live(table.Data) {
		nodes[f.Info.Node]++
		w.eachRow(f.Path, s, false, func(key, _ string, k changelog.Key, _, _ int64) {
			h, err := mixed.HashOf(s, k)
			w.must(err)
			if int64(h)&f.Info.Node.Mask != f.Info.Node.Index {
				w.Errorf("key %s of hash %d is in a file of node %s", key, h, f.Info.Node)
			}
		})
	}
	return nodes
}

// setBuckets sets both properties; 0 removes one.
func (w *world) setBuckets(base, change int) {
	props := map[string]string{mixed.PropBaseBuckets: "", mixed.PropChangeBuckets: ""}
	for name, n := range map[string]int{mixed.PropBaseBuckets: base, mixed.PropChangeBuckets: change} {
		if n > 0 {
			props[name] = strconv.Itoa(n)
		}
	}
	w.must(w.table().SetProperties(w.ctx(), props))
}

// TestNodesModel runs random histories in which the buckets of both stores change again and again, between numbers that are set and
// auto-bucket, with sizes at which that splits: after each step all readers see the model, each row is in the node of
// its file, and the position index is right.
func TestNodesModel(t *testing.T) {
	seeds := 3
	if testing.Short() || sweep > 1 {
		seeds = 1
	}
	seen := map[mixed.TreeNode]bool{}
	for seed := range seeds {
		w := newPartedWorld(t, nil, [][]string{nil, {"truncate(1, b)"}}[seed%2]...)
		w.options = small([]int64{4000, 9000}[seed/2%2])
		w.open()
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		w.setBuckets(16>>seed, 0)
		for range 16 {
			switch r.IntN(7) {
			case 0, 1:
				w.buckets = 1 << r.IntN(6)
				w.flush(w.random(r, 1+r.IntN(40))...)
			case 2, 3:
				w.once(Minor)
			case 4:
				w.once([]Type{Major, Full}[r.IntN(2)])
			case 5, 6:
				w.setBuckets([]int{0, 1, 4, 16}[r.IntN(4)], 0)
				w.once(Major)
			}
			w.check()
			w.byNodes()
			for n := range w.placed() {
				seen[n] = true
			}
		}
		w.once(Minor)
		w.once(Major)
		w.check()
		w.byNodes()
		w.upToDate()
	}
	if len(seen) < 8 {
		t.Errorf("base files of nodes %v only", seen)
	}
}

// TestBuckets: a number that is set is where all base rows are after a major, from below and from above, and nothing is done
// after that; auto-bucket puts small siblings together again.
func TestBuckets(t *testing.T) {
	w := newWorld(t, nil)
	w.options = small(4000)
	w.open()
	r := rand.New(rand.NewPCG(3, 3))
	fill := func() { w.flush(w.random(r, 40)...) }
	for _, buckets := range []int{1, 8, 2, 32, 1} {
		w.setBuckets(buckets, 0)
		fill()
		w.once(Minor)
		w.once(Major)
		w.check()
		w.byNodes()
		for n := range w.placed() {
			if n.Mask != int64(buckets)-1 {
				t.Errorf("%d buckets: a file of node %s", buckets, n)
			}
		}
		if again := w.once(Major); len(again.Done) > 0 {
			t.Errorf("%d buckets: %d tasks more", buckets, len(again.Done))
		}
	}
	w.setBuckets(32, 0)
	w.once(Major)
	w.setBuckets(0, 0)
	w.options = small(1 << 20)
	w.open()
	w.once(Full)
	if nodes := w.placed(); len(nodes) != 1 || nodes[mixed.TreeNode{}] != 1 {
		t.Errorf("a small table has files of nodes %v", nodes)
	}
	w.check()
}

// TestAutoBucketGrows: with rows the number of buckets grows, minors go on between the steps, and it ends; what of it a delete
// of most rows makes too much goes again.
func TestAutoBucketGrows(t *testing.T) {
	w := newWorld(t, nil)
	w.options = Options{Rules: Rules{TargetBytes: 10_000, FanIn: 3, MaxDeletes: 3}}
	w.open()
	most := 0
	put := func(from, to int, v string) {
		var ops []op
		for i := from; i < to; i++ {
			ops = append(ops, op{a: int64(i), b: "x", v: v})
			if v != "" {
				ops[len(ops)-1].v = fmt.Sprintf("%s%x", v, rand.NewPCG(uint64(i), 5).Uint64())
			}
		}
		w.flush(ops...)
	}
	for i := range 6 {
		put(i*1000, (i+1)*1000, "v")
		w.once(Minor)
		w.once(Major)
		for n := range w.placed() {
			most = max(most, int(n.Mask)+1)
		}
		w.byNodes()
	}
	w.check()
	if most < 4 {
		t.Errorf("only %d buckets", most)
	}
	put(0, 5_900, "")
	w.once(Minor)
	w.once(Major)
	w.once(Full)
	nodes := w.placed()
	if len(nodes) != 1 || nodes[mixed.TreeNode{}] == 0 {
		t.Errorf("after most rows went, there are files of nodes %v", nodes)
	}
	w.check()
	w.byNodes()
	t.Logf("up to %d buckets", most)
}

// TestForeignDeletes: a position delete of a node that is not the data file's or above it does not count (spec/mixed-format.md 6.1), and a
// rewrite, the collecting of deletes and a new position index keep to it; one of the root, of an ancestor or with a
// foreign name counts.
func TestForeignDeletes(t *testing.T) {
	w := newWorld(t, nil)
	w.options = small(1 << 20)
	w.open()
	data := mixed.TreeNode{Mask: 3, Index: 1}
	s := w.table().Schemas().Current()
	var rows [][]changelog.Value
	for i := int64(0); len(rows) < 6; i++ { // of one node
		o := op{a: i, b: "x", v: "v"}
		values := o.values(s)
		if h := mixed.KeyHash(s.KeyTypes(), []changelog.Value{values[s.OrdinalOf(bColumn)], values[s.OrdinalOf(aColumn)]}); int64(h)&3 == 1 {
			rows = append(rows, values)
		}
	}
	base := w.write(w.table().Base(), s, mixed.Base, data, 0, false, len(rows), func(i int) ([]changelog.Value, int64) { return rows[i], 0 })
	var names []string
	for _, n := range []mixed.TreeNode{{}, {Mask: 1, Index: 1}, data, {Mask: 3, Index: 2}, {Mask: 7, Index: 1}} {
		names = append(names, mixed.FileName{Node: n, Type: mixed.PositionDelete, Txn: 1, Op: table.NewOp(), Count: 1}.String())
	}
	names = append(names, "spark-deletes.parquet")
	c := table.BaseCommit{ID: "foreign", Add: []table.NewFile{base}, Expect: table.ExpectNone}
	for i, name := range names {
		c.AddDeletes = append(c.AddDeletes, w.foreignDelete(name, base.Path, int64(i)))
	}
	_, err := w.table().CommitBase(w.ctx(), c)
	w.must(err)
	for i, values := range rows {
		if i == 3 || i == 4 { // neither a sibling's nor one below
			key, row := text(s, values)
			w.model[key] = row
		}
	}
	w.byNodes()
	w.flush(op{a: rows[3][s.OrdinalOf(aColumn)].I, b: "x", v: "new"})
	w.once(Minor)
	w.byNodes()
	if _, err := w.opt.Once(w.ctx(), tableName, Full, false); err != nil {
		t.Fatal(err)
	}
	w.byNodes()
	if n := len(w.live(table.PositionDeletes)); n != 0 {
		t.Errorf("%d position-delete files are left", n)
	}
	got := slices.Sorted(maps.Keys(w.model))
	if len(got) != 2 {
		t.Errorf("model of %q", got)
	}
}

// foreignDelete writes a position-delete file of a name.
func (w *world) foreignDelete(name, data string, pos int64) table.NewFile {
	path := w.table().Base().DataPathIn("", name)
	out, err := w.catalog.FS().Create(path)
	w.must(err)
	dw, err := datafile.NewDeleteWriter(out, datafile.Options{})
	w.must(err)
	w.must(dw.Write(datafile.PosDelete{Path: data, Pos: pos}))
	written, err := dw.Close()
	w.must(err)
	w.must(out.Commit())
	return table.NewFile{Path: path, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata, Referenced: data}
}

// TestNodesBesideMerge: rows move to other nodes, by a number that is set or by auto-bucket, while somebody else flushes and merges, between plan
// and commit of a rewrite or between its commit and the index; and the other way round. What was planned on another snapshot is a
// conflict and planned again, and no row is lost, doubled or in a wrong node.
func TestNodesBesideMerge(t *testing.T) {
	const auto = 0
	type form struct {
		buckets int
		target  int64
	}
	large, tiny := int64(1<<20), int64(1250)
	for n, tc := range []struct {
		name     string
		from, to form
	}{
		{"split", form{1, large}, form{4, large}},
		{"put together", form{8, large}, form{1, large}},
		{"split and put together", form{2, tiny}, form{16, large}},
		{"auto split", form{1, large}, form{auto, tiny}},
		{"auto put together", form{16, large}, form{auto, large}},
	} {
		for i, place := range []struct {
			step      string
			do, other Type
		}{
			{"written", Major, Minor},
			{"committed", Major, Minor},
			{"committed", Minor, Full},
			{"written", Minor, Full},
		} {
			if sweep > 1 && (n+i)%4 > 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s, %s at %s of %s", tc.name, place.other, place.step, place.do), func(t *testing.T) {
				w := newWorld(t, nil)
				set := func(f form) {
					w.options = small(f.target)
					w.options.Rules.MaxRows, w.options.Rules.FanIn = 1000, 8
					w.setBuckets(f.buckets, 0)
					w.open()
				}
				set(tc.from)
				r := rand.New(rand.NewPCG(4, 4))
				all := w.allPut("v")
				for i := range all { // rows are to be larger than what a file has besides
					for range 19 {
						all[i].v += fmt.Sprintf("%016x", r.Uint64())
					}
				}
				w.flush(all...)
				w.once(Minor)
				w.once(Full)
				before := w.placed()
				set(tc.to)
				do, other := place.do, place.other
				if do == Major && tc.to.buckets == auto && tc.to.target == large {
					do = Full // small files stay at their nodes until there are many
				}
				w.flush(w.random(r, 20)...)
				written, came := 0, false
				w.opt.step = func(name string) error {
					if name == "written" {
						written++
					}
					if name == place.step && !came {
						came = true
						w.buckets = 4
						w.flush(w.random(r, 10)...)
						w.byHand(other)
					}
					return nil
				}
				done := len(w.once(do).Done)
				if conflicts := written - done; !came || conflicts != count(place.step == "written") {
					t.Errorf("%d tasks done, %d times written, somebody else came: %v", done, written, came)
				}
				w.followed()
				w.check()
				w.byNodes()
				w.once(do)
				w.flush(w.random(r, 5)...)
				w.once(Minor)
				w.check()
				w.byNodes()
				w.sameAsRebuilt()
				w.upToDate()
				w.noLitter()
				after := w.placed()
				for node := range after {
					if tc.to.buckets > 0 && place.do == Major && int(node.Mask)+1 != tc.to.buckets {
						t.Errorf("a file of node %s", node)
					}
				}
				if maps.Equal(before, after) || len(before) == len(after) {
					t.Errorf("nodes %v, before %v", after, before)
				}
			})
		}
	}
}
