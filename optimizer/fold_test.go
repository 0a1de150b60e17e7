package optimizer

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// TestFoldEqualLSN: the delete and the insert of an update have one lsn, and the insert survives in either order; a
// delete with a larger lsn kills it.
func TestFoldEqualLSN(t *testing.T) {
	k := []byte("k")
	for name, ops := range map[string]func(f *fold){
		"delete first": func(f *fold) { f.remove(k, lsn{3, 1}); f.insert(k, lsn{3, 1}, 0, 7) },
		"insert first": func(f *fold) { f.insert(k, lsn{3, 1}, 0, 7); f.remove(k, lsn{3, 1}) },
		"older delete": func(f *fold) { f.insert(k, lsn{0, 2}, 0, 7); f.remove(k, lsn{9, 1}) },
		"two inserts":  func(f *fold) { f.insert(k, lsn{1, 1}, 0, 1); f.insert(k, lsn{2, 1}, 0, 7) },
	} {
		f := newFold(0)
		ops(f)
		if f.len() != 1 || !f.at(0).lives() || f.at(0).row != 7 {
			t.Errorf("%s: %+v", name, f.at(0))
		}
		if f.remove(k, lsn{4, 2}); f.at(0).lives() {
			t.Errorf("%s: lives after a later delete", name)
		}
	}
}

// TestFoldModel folds random operations in random file order and compares with the definition: the greatest insert of
// a key survives unless a greater delete exists.
func TestFoldModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type op struct {
			key     string
			at      lsn
			del     bool
			file, i int32
		}
		keys := rapid.SampledFrom([]string{"", "a", "ab", "abcdefgh", "abcdefghi", "abcdefghj", "\x00", "z"})
		ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) op {
			return op{
				key: keys.Draw(rt, "key"), del: rapid.Bool().Draw(rt, "del"),
				at: lsn{rapid.Int64Range(0, 20).Draw(rt, "offset"), rapid.Int32Range(1, 3).Draw(rt, "rank")},
			}
		}), 0, 60).Draw(rt, "ops")
		f := newFold(0)
		f.slots = make([]uint32, 2) // grows under way
		puts, dels := map[string]op{}, map[string]lsn{}
		for i, o := range ops {
			o.file, o.i = int32(i%3), int32(i)
			if o.del {
				f.remove([]byte(o.key), o.at)
				if dels[o.key].less(o.at) {
					dels[o.key] = o.at
				}
				continue
			}
			f.insert([]byte(o.key), o.at, o.file, o.i)
			if was, ok := puts[o.key]; !ok || !o.at.less(was.at) {
				puts[o.key] = o
			}
		}
		live := 0
		for i := range f.len() {
			k := string(f.key(i))
			put, ok := puts[k]
			want := ok && !put.at.less(dels[k])
			if f.at(i).lives() != want || want && (f.at(i).row != put.i || f.at(i).file != put.file) {
				rt.Fatalf("key %q: %+v lives %v, want %v of %+v", k, f.at(i), f.at(i).lives(), want, put)
			}
			if want {
				live++
			}
		}
		order := f.sorted()
		for i := 1; i < len(order); i++ {
			if bytes.Compare(f.key(int(order[i-1])), f.key(int(order[i]))) >= 0 {
				rt.Fatal("keys out of order")
			}
		}
		w := f.winners(func(e int) bool { return f.at(e).lives() })
		if len(w) != live {
			rt.Fatalf("%d winners, want %d", len(w), live)
		}
		for i := 1; i < len(w); i++ {
			a, b := f.at(int(w[i-1])), f.at(int(w[i]))
			if a.file > b.file || a.file == b.file && a.row >= b.row {
				rt.Fatal("winners out of order")
			}
		}
	})
}

func BenchmarkFold(b *testing.B) {
	const changes, distinct = 1_000_000, 100_000
	keys := make([][]byte, distinct)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%08d", i*7919%distinct)
	}
	b.ReportAllocs()
	for b.Loop() {
		f := newFold(distinct)
		for i := range changes {
			k := keys[i*31%distinct]
			f.remove(k, lsn{int64(i), 1})
			f.insert(k, lsn{int64(i), 1}, 0, int32(i))
		}
		f.sorted()
		f.winners(func(e int) bool { return f.at(e).lives() })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/changes, "ns/change")
}
