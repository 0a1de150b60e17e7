package table_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// BenchmarkCommit measures a change commit of eight files and a base commit of four data and four delete files, without the
// writing of these, in a table that keeps a number of snapshots.
func BenchmarkCommit(b *testing.B) {
	for _, kept := range []int{10, 100} {
		for _, kind := range []string{mixed.StoreChange, mixed.StoreBase} {
			b.Run(fmt.Sprintf("store=%s/snapshots=%d", kind, kept), func(b *testing.B) { benchCommit(b, kind, kept) })
		}
	}
}

func benchCommit(b *testing.B, kind string, kept int) {
	b.Helper()
	l, s := newLake(b, "sqlite"), users(b)
	tbl := l.create("db.users", s)
	data := l.file(tbl.Base(), s, mixed.Base, 1, 0, row{1, "a"})
	head := l.base(tbl, table.BaseCommit{Add: []table.NewFile{data}}).ID
	deletes := l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path, Pos: 0})
	changes := slices.Repeat([]table.NewFile{l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})}, 8)
	st, n := tbl.Base(), int64(0)
	commit := func() {
		n++
		head = l.base(tbl, table.BaseCommit{
			Add: slices.Repeat([]table.NewFile{data}, 4), AddDeletes: slices.Repeat([]table.NewFile{deletes}, 4),
			Optimized: map[string]int64{"": n}, Expect: head,
		}).ID
	}
	if kind == mixed.StoreChange {
		st = tbl.Change()
		commit = func() {
			n++
			l.append(tbl, l.commit(0, 0, changelog.SeqNum(n), changes...))
		}
	}
	for range kept {
		commit()
	}
	b.ResetTimer()
	for i := range b.N {
		if i%10 == 9 {
			b.StopTimer()
			if _, err := tbl.ExpireSnapshots(b.Context(), st, kept, -time.Hour); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		commit()
	}
}
