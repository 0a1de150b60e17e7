package merge

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// collect reads all rows as text, sorted.
func (l *lake) collect(rows iter.Seq2[Row, error], seqs bool) []string {
	l.t.Helper()
	var out []string
	for row, err := range rows {
		if err != nil {
			l.t.Fatal(err)
		}
		values, err := changelog.AppendValues(nil, l.schema(), row.Row)
		if err != nil {
			l.t.Fatal(err)
		}
		if key := l.schema().KeyOf(nil, values); string(key) != string(row.Key) {
			l.t.Fatalf("key %s, the row's is %s", row.Key, key)
		}
		if !seqs {
			row.Seq = 0
		}
		out = append(out, l.text(values, row.Seq))
	}
	slices.Sort(out)
	return out
}

func diff(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: %d rows, want %d", what, len(got), len(want))
	for _, s := range got {
		if !slices.Contains(want, s) {
			t.Errorf("  extra   %s", s)
		}
	}
	for _, s := range want {
		if !slices.Contains(got, s) {
			t.Errorf("  missing %s", s)
		}
	}
	t.FailNow()
}

// TestRowsModel runs random histories and compares the merged read with a second implementation and with a model of the
// rows; with all keys in memory and with a few at a time.
func TestRowsModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			l := newLake(t, seed)
			for range 4 {
				l.play(5)
				want := l.naive()
				for _, keys := range []int{0, 3} {
					r := must(newReader(l.schema(), l.snap, l, Options{MaxKeys: keys}))
					diff(t, fmt.Sprint("naive, max keys ", keys), l.collect(r.Rows(t.Context()), true), want)
					diff(t, fmt.Sprint("model, max keys ", keys), l.collect(r.Rows(t.Context()), false), l.want())
				}
			}
		})
	}
}

// TestRowsParquet does the same through Parquet files.
func TestRowsParquet(t *testing.T) {
	for seed := range uint64(8) {
		l := newLake(t, 1000+seed)
		l.play(25)
		r := must(New(l.schema(), l.snap, l.parquet(), Options{MaxKeys: 50}))
		diff(t, "naive", l.collect(r.Rows(t.Context()), true), l.naive())
		diff(t, "model", l.collect(r.Rows(t.Context()), false), l.want())
	}
}

// TestBase: after optimizing everything, the base store alone is the table.
func TestBase(t *testing.T) {
	l := newLake(t, 7)
	l.play(20)
	l.minor("p=p0", 4)
	l.minor("p=p1", 4)
	r := must(newReader(l.schema(), l.snap, l, Options{}))
	diff(t, "base", l.collect(r.Base(t.Context()), false), l.want())
	l.commit(10, 60, 4)
	r = must(newReader(l.schema(), l.snap, l, Options{}))
	if got := l.collect(r.Base(t.Context()), false); slices.Equal(got, l.want()) {
		t.Error("base shows pending changes")
	}
}

// TestUnion gives the last changes as a log instead of as files.
func TestUnion(t *testing.T) {
	for seed := range uint64(40) {
		l := newLake(t, 300+seed)
		l.play(15)
		snap, flushed, from := l.snap, l.seq, len(l.changes)
		snap.Change, snap.Base, snap.Deletes = slices.Clone(snap.Change), slices.Clone(snap.Base), slices.Clone(snap.Deletes)
		l.commit(1+int(seed)%40, 60, 4)
		if seed%3 == 0 {
			l.evolve()
			l.commit(20, 60, 4)
		}
		tail := Tail{From: flushed, To: l.seq, Schemas: l.schemas, Changes: func(yield func(changelog.Change, error) bool) {
			for _, c := range l.changes[max(0, from-3):] { // a log may begin earlier
				if !yield(c, nil) {
					return
				}
			}
		}}
		for _, keys := range []int{0, 4} {
			r := must(newReader(l.schema(), snap, l, Options{MaxKeys: keys}))
			diff(t, fmt.Sprintf("seed %d, max keys %d", seed, keys), l.collect(r.Union(t.Context(), tail), false), l.want())
		}
	}
}

// TestRowsByHand has the rules that random histories of right writers do not reach.
func TestRowsByHand(t *testing.T) {
	type file struct {
		name string
		seq  int64
		rows []int64 // keys
		offs []int64
		pos  []datafile.PosDelete
	}
	for _, tc := range []struct {
		name              string
		base, change, pds []file
		optimized         map[string]int64
		want              []int64
	}{
		{
			name:   "equal lsn keeps the row",
			change: []file{{name: "1-I-0-00000-0-1-00001.parquet", seq: 1, rows: []int64{1, 2}, offs: []int64{1, 2}}, {name: "1-ED-0-00000-0-1-00002.parquet", seq: 1, rows: []int64{1, 2}, offs: []int64{1, 3}}},
			want:   []int64{1},
		},
		{
			name:   "a transaction in the name wins over the sequence number",
			base:   []file{{name: "1-B-5-00000-0-1-00001.parquet", seq: 9, rows: []int64{1, 2}}},
			change: []file{{name: "1-ED-5-00000-0-1-00001.parquet", seq: 7, rows: []int64{1}, offs: []int64{9}}, {name: "1-ED-6-00000-0-1-00001.parquet", seq: 8, rows: []int64{2}, offs: []int64{1}}},
			want:   []int64{1},
		},
		{
			name:   "a base file of a foreign name loses against any delete",
			base:   []file{{name: "00000-0-2f0b-00001.parquet", seq: 9, rows: []int64{1, 2}}},
			change: []file{{name: "1-ED-0-00000-0-1-00001.parquet", seq: 1, rows: []int64{1}, offs: []int64{1}}},
			want:   []int64{2},
		},
		{
			name:   "a foreign name in the change store is inserts",
			change: []file{{name: "00000-0-2f0b-00001.parquet", seq: 3, rows: []int64{1, 1}, offs: []int64{1, 2}}, {name: "1-PD-0-00000-0-1-00001.parquet", seq: 3, rows: []int64{1}, offs: []int64{7}}},
			want:   []int64{1, 1},
		},
		{
			name:   "unrelated nodes do not meet",
			change: []file{{name: "4-I-0-00000-0-1-00001.parquet", seq: 1, rows: []int64{1, 2}, offs: []int64{1, 2}}, {name: "5-ED-0-00000-0-1-00001.parquet", seq: 2, rows: []int64{1}, offs: []int64{3}}, {name: "8-ED-0-00000-0-1-00001.parquet", seq: 2, rows: []int64{2}, offs: []int64{4}}},
			want:   []int64{1},
		},
		{
			name: "a position delete needs the exact path, a node above and a younger file",
			base: []file{{name: "5-B-1-00000-0-1-00001.parquet", seq: 2, rows: []int64{1, 2, 3, 4}}},
			pds:  []file{{name: "5-PD-1-00000-0-1-00001.parquet", seq: 2, pos: []datafile.PosDelete{{Path: "5-B-1-00000-0-1-00001.parquet", Pos: 0}}}, {name: "10-PD-1-00000-0-1-00001.parquet", seq: 2, pos: []datafile.PosDelete{{Path: "5-B-1-00000-0-1-00001.parquet", Pos: 1}}}, {name: "1-PD-1-00000-0-1-00001.parquet", seq: 1, pos: []datafile.PosDelete{{Path: "5-B-1-00000-0-1-00001.parquet", Pos: 2}}}, {name: "5-PD-1-00000-0-1-00002.parquet", seq: 3, pos: []datafile.PosDelete{{Path: "x/5-B-1-00000-0-1-00001.parquet", Pos: 3}}}},
			want: []int64{2, 3, 4},
		},
		{
			name:      "optimized files are not read, in either spelling of the path",
			change:    []file{{name: "1-I-0-00000-0-1-00001.parquet", seq: 1, rows: []int64{1}, offs: []int64{1}}, {name: "1-I-0-00000-0-2-00001.parquet", seq: 2, rows: []int64{2}, offs: []int64{2}}},
			optimized: map[string]int64{"r=%2A~": 1},
			want:      []int64{2},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLake(t, 1)
			add := func(f file, part string, change bool) File {
				m := &memFile{File: File{Path: f.name, Sequence: f.seq, Partition: part, Records: int64(len(f.rows))}, schema: l.schema(), offsets: f.offs, deletes: f.pos}
				for _, id := range f.rows {
					m.rows = append(m.rows, []changelog.Value{{I: id}, {B: []byte("p")}, {I: 0}})
				}
				if change {
					m.Info = must(mixed.ParseChange(f.name, f.seq))
				} else {
					m.Info = must(mixed.ParseBase(f.name))
				}
				l.files[f.name] = m
				return m.File
			}
			part := ""
			if tc.optimized != nil {
				part = "r=*%7E"
			}
			for _, f := range tc.base {
				l.snap.Base = append(l.snap.Base, add(f, part, false))
			}
			for _, f := range tc.pds {
				l.snap.Deletes = append(l.snap.Deletes, add(f, part, false))
			}
			for _, f := range tc.change {
				l.snap.Change = append(l.snap.Change, add(f, part, true))
			}
			l.snap.Change = append(l.snap.Change, l.snap.Change...) // repeated paths count once
			l.snap.Optimized = tc.optimized
			var got []int64
			for row, err := range must(newReader(l.schema(), l.snap, l, Options{})).Rows(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, must(changelog.AppendValues(nil, l.schema(), row.Row))[0].I)
			}
			slices.Sort(got)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// TestNoOffset: a change file without offsets is read as long as no delete concerns it.
func TestNoOffset(t *testing.T) {
	l := newLake(t, 1)
	l.commit(20, 1000, 1)
	for i, f := range l.snap.Change {
		if f.Info.Type == mixed.Insert {
			l.files[l.snap.Change[i].Path].offsets = nil
		}
	}
	var failed error
	for _, err := range must(newReader(l.schema(), l.snap, l, Options{})).Rows(t.Context()) {
		failed = err
	}
	if !errors.Is(failed, changelog.ErrCorrupt) || !strings.Contains(failed.Error(), "no _file_offset") {
		t.Errorf("error %v", failed)
	}
}
