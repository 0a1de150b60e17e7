package table_test

import (
	"fmt"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// events creates a table without a key.
func (l *lake) events() (*table.Table, *changelog.Schema) {
	l.t.Helper()
	s, err := changelog.NewSchema(users(l.t).Columns, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.create("db.events", s), s
}

// testUnkeyedRewrite: a rewrite of base files goes through beside flushes that append, and is refused where rows of its
// files were deleted since it was planned: they would be there again.
func testUnkeyedRewrite(t *testing.T, kind string) {
	for _, tc := range []struct {
		name     string
		deletes  []int // data files, by number, whose first row a flush deletes after the plan
		apart    bool  // in a file of deletes each
		conflict bool
	}{
		{"appended", nil, false, false},
		{"deleted from the rewritten file", []int{0}, false, true},
		{"deleted from another file", []int{2}, false, false},
		{"deleted from both at once", []int{1, 2}, false, true},
		{"deleted from both, apart", []int{2, 1}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLake(t, kind)
			tbl, s := l.events()
			for n := range int64(4) {
				l.append(tbl, l.commit(0, changelog.SeqNum(2*n), changelog.SeqNum(2*n+2), l.file(tbl.Base(), s, mixed.Base, 0, 0, row{2*n + 1, "a"}, row{2*n + 2, "b"})))
			}
			planned := l.load(tbl)
			files := l.files(planned.Base())
			byNumber := map[string]int{}
			ordered := make([]table.File, 4)
			for _, f := range files {
				byNumber[f.Path] = int(f.DataSequence) - 1
				ordered[f.DataSequence-1] = f
			}
			c := l.commit(0, 8, 9, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{9, "new"}))
			c.Expect = planned.Base().SnapshotID()
			want := map[int64]bool{}
			for id := range int64(9) {
				want[id+1] = true
			}
			var dead []datafile.PosDelete
			for _, n := range tc.deletes {
				dead = append(dead, datafile.PosDelete{Path: ordered[n].Path})
				delete(want, int64(2*n+1))
			}
			switch {
			case tc.apart:
				for _, d := range dead {
					c.AddDeletes = append(c.AddDeletes, l.deletes(tbl.Base(), 0, d))
				}
			case len(dead) > 0:
				if dead[0].Path > dead[len(dead)-1].Path {
					dead[0], dead[len(dead)-1] = dead[len(dead)-1], dead[0]
				}
				c.AddDeletes = append(c.AddDeletes, l.deletes(tbl.Base(), 0, dead...))
			}
			l.append(tbl, c)
			rewritten := l.file(tbl.Base(), s, mixed.Base, 0, 0, row{1, "a"}, row{2, "b"}, row{3, "a"}, row{4, "b"})
			_, err := planned.CommitBase(t.Context(), table.BaseCommit{
				ID: "rewrite", Add: []table.NewFile{rewritten}, Remove: ordered[:2], Replace: true,
				DataSequence: planned.Base().Snapshot().Sequence, Planned: planned.Base().Snapshot().Sequence,
			})
			if table.IsConflict(err) != tc.conflict || err != nil && !tc.conflict {
				t.Fatalf("rewrite: %v, want a conflict: %t", err, tc.conflict)
			}
			got := l.rows(l.load(tbl).Base(), s)
			if len(got) != len(want) {
				t.Errorf("%d rows %v, want %v", len(got), got, want)
			}
			for id := range want {
				if _, ok := got[id]; !ok {
					t.Errorf("row %d is gone", id)
				}
			}
		})
	}
}

// testUnkeyedFlushTakes: a flush that takes rows out commits only on the snapshot where it found them.
func testUnkeyedFlushTakes(t *testing.T, kind string) {
	l := newLake(t, kind)
	tbl, s := l.events()
	l.append(tbl, l.commit(0, 0, 2, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{1, "a"}, row{2, "b"})))
	planned := l.load(tbl)
	old := l.files(planned.Base())
	c := l.commit(0, 2, 3)
	c.Remove, c.Expect = old, planned.Base().SnapshotID()
	l.append(tbl, l.commit(0, 2, 2, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{3, "c"})))
	if _, err := planned.AppendChanges(t.Context(), c); !table.IsConflict(err) {
		t.Fatalf("flush on a head that has moved: %v", err)
	}
	now := l.load(tbl)
	c.Expect, c.Remove = now.Base().SnapshotID(), l.files(now.Base())
	l.append(tbl, c)
	if got := l.rows(l.load(tbl).Base(), s); len(got) != 0 {
		t.Errorf("rows %v", got)
	}
}

// testUnkeyedMarked: a flush whose changes come to nothing has a snapshot all the same, but not as the store's first.
func testUnkeyedMarked(t *testing.T, kind string) {
	l := newLake(t, kind)
	tbl, s := l.events()
	nothing := l.commit(0, 0, 1)
	nothing.Marked = true
	l.append(tbl, nothing)
	if now := l.load(tbl); now.Base().SnapshotID() != 0 && kind == "sqlite" { // over REST a mark alone needs one
		t.Error("an empty store has a snapshot")
	}
	l.append(tbl, l.commit(0, 1, 2, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{1, "a"})))
	nothing = l.commit(0, 2, 5)
	nothing.Marked = true
	snap := l.append(tbl, nothing)
	if got := fmt.Sprintf("%s %s %s", snap.Summary[table.PropSeqFrom], snap.Summary[table.PropSeqTo], snap.Operation); got != "2 5 append" {
		t.Errorf("snapshot %s", got)
	}
	if got := l.rows(l.load(tbl).Base(), s); len(got) != 1 {
		t.Errorf("rows %v", got)
	}
}
