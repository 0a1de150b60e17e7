package optimizer

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/optimizer/amorotest"
)

// read has a round look at the sequences, long before its commit.
func (w *world) read(r *amorotest.Round) *amorotest.Round {
	w.Helper()
	w.must(r.Read(w.ctx()))
	return r
}

// repeated commits a round that has been read, as Iceberg's transaction does when it repeats itself: the sequences are those that
// were read, with the round's own raised.
func (w *world) repeated(r *amorotest.Round) {
	w.Helper()
	out := w.commitRound(r)
	if !out.Committed {
		w.Fatalf("%+v", out)
	}
	w.putBack(out.Published)
}

// putBack makes seqs the optimized sequences in the newest statistics: which no commit through the catalog can.
func (w *world) putBack(seqs map[string]int64) {
	w.Helper()
	paths := w.statistics(w.table().Base())
	path := paths[len(paths)-1]
	b, err := w.catalog.FS().ReadFile(path)
	w.must(err)
	const first = 4 // a blob begins behind the magic number
	end := bytes.IndexByte(b, '}') + 1
	blob, err := json.Marshal(seqs)
	w.must(err)
	if end <= first || len(blob) > end-first {
		w.Fatalf("%s for %q", blob, b[first:end])
	}
	copy(b[first:], append(blob, bytes.Repeat([]byte{' '}, end-first-len(blob))...))
	w.must(w.catalog.FS().Remove(path))
	w.must(w.catalog.FS().WriteFile(path, b))
	if got := w.table().Optimized(); !maps.Equal(got, seqs) {
		w.Fatalf("optimized %v, want %v", got, seqs)
	}
}

// again lets Amoro plan and commit a round, if it finds anything to do.
func (w *world) again(fragment int64) {
	w.Helper()
	if r := w.planned(w.amoro(fragment, false)); r != nil {
		w.committed(r)
	}
}

// TestSequenceBack: Amoro reads the sequences, firn merges, and Amoro's transaction is repeated with what it has read (hazard 3 of
// docs/0001): the changes of its round are merged twice, and sequences go back, in its partitions and in others, or are lost. firn
// publishes them again and takes the second rows away, at its next look or, if it commits first, after that.
func TestSequenceBack(t *testing.T) {
	for n, tc := range []struct {
		name         string
		parts        []string
		first        []op // merged before the round is planned
		round, later []op // its changes, and those that come after it has read
		published    map[string]int64
		want         map[string]int64
	}{
		{
			"lower", nil,
			[]op{put(1, "1"), put(2, "2"), put(3, "3")},
			[]op{put(2, "new"), put(4, "4")},
			[]op{put(1, ""), put(2, "newer"), put(4, ""), put(3, "new")},
			map[string]int64{"": 2},
			map[string]int64{"": 3},
		},
		{
			"lower in another partition",
			[]string{"truncate(1, v)"},
			[]op{put(1, "a1"), put(2, "b1"), put(5, "a5")},
			[]op{put(1, "a2")},
			[]op{put(2, "b2"), put(1, "b3"), put(5, "")},
			map[string]int64{"v_trunc=a": 2, "v_trunc=b": 1},
			map[string]int64{"v_trunc=a": 3, "v_trunc=b": 3},
		},
		{
			"lost",
			[]string{"truncate(1, v)"},
			[]op{put(1, "a1")},
			[]op{put(1, "a2")},
			[]op{put(2, "c1"), put(1, "c2"), put(3, "c3")},
			map[string]int64{"v_trunc=a": 2},
			map[string]int64{"v_trunc=a": 3, "v_trunc=c": 3},
		},
	} {
		for i, between := range []struct {
			name string
			do   func(*world)
		}{
			{"looked at", func(*world) {}},
			{"index lost", func(w *world) { w.must(w.opt.state(tableName).x.Reset(w.ctx())) }},
			{"merged by hand", func(w *world) { w.byHand(Minor) }},
			{"rewritten by hand", func(w *world) { w.byHand(Full) }},
			{"merged again", func(w *world) { w.again(0) }},
			{"merged and rewritten", func(w *world) { w.again(1 << 20) }},
		} {
			if sweep > 1 && (n+i)%3 > 0 {
				continue
			}
			t.Run(tc.name+", "+between.name, func(t *testing.T) {
				w := newPartedWorld(t, nil, tc.parts...)
				w.flush(tc.first...)
				w.once(Minor)
				w.flush(tc.round...)
				round := w.read(w.planned(w.amoro(0, false)))
				w.flush(tc.later...)
				w.once(Minor)
				w.check()
				w.repeated(round)
				if got := w.table().Optimized(); !maps.Equal(got, tc.published) {
					t.Fatalf("published %v, want %v", got, tc.published)
				}
				between.do(w)
				if p := w.progress(); p.IndexSnapshot == 0 {
					w.once(Minor)
				}
				w.followed()
				got := w.table().Optimized()
				for p, want := range tc.want {
					if got[p] < want {
						t.Errorf("optimized %v, want %v", got, tc.want)
					}
				}
				w.check()
				w.byNodes()
				w.sameAsRebuilt()
				w.flush(put(1, "a9"), put(2, "b9"), put(4, "c9"))
				w.once(Minor)
				w.check()
				w.upToDate()
				w.once(Full)
				w.check()
				if w.table().Base().SnapshotID() == 0 || len(w.live(table.Data)) == 0 {
					t.Error("no rows")
				}
			})
		}
	}
}

// TestSequenceBackInPart: after a sequence went back Amoro merges some of the changes again that firn had merged, and not the later ones: what
// these deleted or replaced does not come back.
func TestSequenceBackInPart(t *testing.T) {
	for _, fragment := range []int64{0, 1 << 20} {
		w := newWorld(t, nil)
		w.flush(put(1, "1"), put(2, "2"), put(3, "3"))
		w.once(Minor)
		w.flush(put(1, "one"))
		round := w.read(w.planned(w.amoro(0, false)))
		w.flush(put(4, "4"), put(5, "5"), put(2, "two"), put(3, ""))
		w.flush(put(4, ""), put(5, "five"), put(2, ""), put(3, "three"))
		w.once(Minor)
		w.repeated(round)
		a := w.amoro(fragment, false)
		a.UpTo = 3
		w.committed(w.planned(a))
		if got := w.table().Optimized(); got[""] != 3 {
			t.Fatalf("optimized %v", got)
		}
		w.followed()
		if got := w.table().Optimized(); got[""] != 4 {
			t.Errorf("optimized %v", got)
		}
		w.check()
		w.byNodes()
		w.flush(put(4, "again"), put(5, ""))
		w.once(Minor)
		w.check()
		w.sameAsRebuilt()
		w.upToDate()
	}
}

// TestMergedUnmarked: another optimizer that publishes no sequences has committed to a table that has them in its property, and then firn by
// hand. Nobody knows any more from which sequence on that has merged: its rows are not taken for ones that came back.
func TestMergedUnmarked(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(many("v")...)
	w.once(Minor)
	w.flush(put(1, ""))
	w.once(Minor)
	lake := w.table()
	_, err := lake.CommitBase(w.ctx(), table.BaseCommit{
		ID: "theirs", Summary: map[string]string{mixed.SummaryProducer: mixed.ProducerOptimize}, Replace: true,
		Add: []table.NewFile{w.copied(lake, w.live(table.Data))}, Remove: w.live(table.Data), RemoveDeletes: w.live(table.PositionDeletes),
	})
	w.must(err)
	w.flush(put(1, "new"), put(2, ""), put(9, "9"))
	w.byHand(Minor)
	w.followed()
	w.check()
	w.flush(put(2, "new"))
	w.once(Minor)
	w.check()
	w.sameAsRebuilt()
	w.upToDate()
}

// copied writes the live rows of files into one.
func (w *world) copied(t *table.Table, files []table.File) table.NewFile {
	s := t.Schemas().Current()
	all, err := t.Base().Files(w.ctx())
	w.must(err)
	dead := w.deadSets(all)
	var rows [][]changelog.Value
	for _, f := range files {
		r := datafile.NewRows(s)
		w.must(eachBatch(w.ctx(), w.catalog.FS(), f.Path, s, false, datafile.Options{}, func(b datafile.Batch) error {
			if err := r.Reset(b); err != nil {
				return err
			}
			for i := range r.Len() {
				if !dead[f.Path][b.First+int64(i)] {
					values, err := changelog.AppendValues(nil, s, r.AppendRow(nil, i))
					w.must(err)
					rows = append(rows, values)
				}
			}
			return nil
		}))
	}
	return w.write(t.Base(), s, mixed.Base, mixed.TreeNode{}, 2, false, len(rows), func(i int) ([]changelog.Value, int64) { return rows[i], 0 })
}
