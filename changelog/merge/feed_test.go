package merge

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"firn/changelog"
	"firn/changelog/mixed"
)

func (l *lake) feed(r *Reader, from, to changelog.SeqNum) (out []string, err error) {
	for c, err := range r.Feed(l.t.Context(), from, to) {
		if err != nil {
			return out, err
		}
		out = append(out, l.show(c))
	}
	return out, nil
}

// show prints a change with its images in the current schema.
func (l *lake) show(c changelog.Change) string {
	image := func(r changelog.Row) string {
		if r == nil {
			return "-"
		}
		p := must(changelog.NewProjection(must(l.schemas.Of(r)), l.schema()))
		return l.text(must(p.Values(r)), 0)
	}
	return fmt.Sprint(c.Seq, c.Op, " ", c.Key, " ", image(c.Before), " -> ", image(c.After))
}

// TestFeed: change files give back the changes that they were made of (P5), from anywhere to anywhere.
func TestFeed(t *testing.T) {
	for seed := range uint64(60) {
		l := newLake(t, 600+seed)
		l.play(25)
		if l.seq == 0 {
			continue
		}
		var want []string
		for _, c := range l.changes {
			want = append(want, l.show(c))
		}
		readers := []*Reader{must(newReader(l.schema(), l.snap, l, Options{}))}
		if seed < 4 {
			readers = append(readers, must(New(l.schema(), l.snap, l.parquet(), Options{})))
		}
		for _, r := range readers {
			for range 6 {
				from := changelog.SeqNum(l.rnd.IntN(int(l.seq)))             //nolint:gosec // small
				to := from + changelog.SeqNum(1+l.rnd.IntN(int(l.seq-from))) //nolint:gosec // small
				got, err := l.feed(r, from, to)
				if err != nil {
					t.Fatal(err)
				}
				diff(t, fmt.Sprintf("seed %d (%d, %d]", seed, from, to), got, want[from:to])
			}
		}
	}
}

// TestFeedMissing: expired change files are an error, not a gap.
func TestFeedMissing(t *testing.T) {
	l := newLake(t, 3)
	l.commit(10, 60, 4)
	l.commit(10, 60, 4)
	l.snap.Change = slices.DeleteFunc(l.snap.Change, func(f File) bool { return f.Sequence == 1 })
	r := must(New(l.schema(), l.snap, l.parquet(), Options{}))
	if _, err := l.feed(r, 9, 20); !errors.Is(err, ErrMissing) {
		t.Errorf("from 9: %v", err)
	}
	if got, err := l.feed(r, 10, 20); err != nil || len(got) != 10 {
		t.Errorf("from 10: %d changes, %v", len(got), err)
	}
	l.snap.Change = nil
	r = must(New(l.schema(), l.snap, l.parquet(), Options{}))
	if _, err := l.feed(r, 10, 20); !errors.Is(err, ErrMissing) {
		t.Errorf("no files: %v", err)
	}
}

// TestFeedTwice: the same SeqNum in two commits (a flush that landed twice) is an error.
func TestFeedTwice(t *testing.T) {
	l := newLake(t, 3)
	l.commit(10, 60, 4)
	l.seq = 8
	l.commit(10, 60, 4)
	r := must(New(l.schema(), l.snap, l.parquet(), Options{}))
	if _, err := l.feed(r, 0, 18); !errors.Is(err, changelog.ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

// TestChanges: the change read shows each row of each file with what Amoro's readers add.
func TestChanges(t *testing.T) {
	l := newLake(t, 5)
	l.play(20)
	got, want := map[string]int{}, map[string]int{}
	for _, f := range l.snap.Change {
		for i, values := range l.files[f.Path].rows {
			action := ActionInsert
			if f.Info.Type == mixed.Delete {
				action = ActionDelete
			}
			for len(values) < len(l.schema().Columns) {
				values = append(slices.Clone(values), changelog.NullValue)
			}
			want[fmt.Sprint(action, f.Info.Txn, " ", l.files[f.Path].offsets[i], f.Info.Node, l.text(values, 0))]++
		}
	}
	last := int64(0)
	for row, err := range must(newReader(l.schema(), l.snap, l, Options{})).Changes(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if row.Txn < last {
			t.Fatalf("transaction %d after %d", row.Txn, last)
		}
		last = row.Txn
		values := must(changelog.AppendValues(nil, l.schema(), bytes.Clone(row.Row)))
		got[fmt.Sprint(row.Action, row.Txn, " ", row.Offset, row.Node, l.text(values, 0))]++
	}
	if len(want) == 0 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
