package flush

import (
	"testing"

	"firn/changelog"
)

// TestWatermark: a flush publishes up to which source time all changes are in the store: the newest change of the partition that
// is least far, over restarts and for both kinds of tables; it does not go back.
func TestWatermark(t *testing.T) {
	for name, w := range map[string]*world{"keyed": newWorld(t, 3), "no key": newBagWorld(t, 3)} {
		t.Run(name, func(t *testing.T) {
			n := w.open()
			f := w.flusher(n, nil)
			next := map[int32]int64{}
			// put appends a change of a partition with a source time in µs.
			put := func(partition int32, us int64) {
				t.Helper()
				p := changelog.Position{Source: "k", Topic: "t", Partition: partition, Offset: next[partition]}
				next[partition]++
				c := w.change(next[partition], p)
				if w.bag {
					c = changelog.Change{Op: changelog.OpCreate, After: w.row(w.values(next[partition])), Position: p}
				}
				c.SourceTime = us
				must(n.store.Append(t.Context(), changelog.Append{
					Tables:    []changelog.TableAppend{{Table: n.id, Changes: []changelog.Change{c}}},
					Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "t", Partition: partition}, Next: next[partition]}},
				}))
			}
			flushed := func(what string, want int64) {
				t.Helper()
				must(f.Flush(t.Context()))
				lake := w.load()
				store := lake.Base()
				if lake.Keyed() {
					store = lake.Change()
				}
				if got := store.Watermark(); got != want {
					t.Errorf("%s: watermark %d, want %d", what, got, want)
				}
			}
			put(0, 0)
			flushed("no time", 0)
			put(0, 5_000_999)
			flushed("one partition", 4_999)
			put(0, 9_000_000)
			put(1, 8_000_000)
			flushed("two partitions", 7_999)
			put(0, 20_000_000)
			flushed("the idle one holds it", 7_999)
			put(1, 3_000_000)
			flushed("a stray does not put it back", 7_999)
			put(2, 1_000_000)
			flushed("nor does a new partition", 7_999)
			put(2, 30_000_000)
			f = w.flusher(n, nil) // restarted: the lake's mark has the times
			put(0, 40_000_000)
			flushed("after a restart", 7_999)
			put(1, 35_000_000)
			flushed("all go on", 29_999)
			mark, _, err := w.load().LastCommit()
			if err != nil || len(mark.Times) != 3 || mark.Times[0] != 40_000 || mark.Times[1] != 35_000 || mark.Times[2] != 30_000 || mark.Watermark != 29_999 {
				t.Errorf("mark %+v, %v", mark, err)
			}
		})
	}
}
