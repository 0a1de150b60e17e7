package table_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// TestAdoptRelease: an adopted table has a mark, an epoch and Amoro's optimizing turned off; a released one has none of the marks, what was set before,
// and an epoch that stops who wrote it. Both may be repeated, and neither makes a snapshot that readers see.
func TestAdoptRelease(t *testing.T) {
	for _, kind := range []string{"sqlite", "rest"} {
		for name, before := range map[string]string{"unset": "", "on": "true", "off": "false"} {
			t.Run(kind+"/"+name, func(t *testing.T) { testAdoptRelease(t, newLake(t, kind), before) })
		}
	}
}

func testAdoptRelease(t *testing.T, l *lake, before string) {
	ctx := t.Context()
	tbl := l.create("shop.users", users(t))
	if err := tbl.SetProperties(ctx, map[string]string{"self-optimizing.enabled": before}); err != nil {
		t.Fatal(err)
	}
	optimizing := func(want string) {
		t.Helper()
		for _, s := range l.load(tbl).Stores() {
			if got := s.Properties()["self-optimizing.enabled"]; got != want {
				t.Errorf("%s: self-optimizing.enabled is %q, want %q", s.Name(), got, want)
			}
		}
	}
	if !l.load(tbl).Untouched() {
		t.Error("a new table is not untouched")
	}
	epoch, err := tbl.ClaimEpoch(ctx, "w1", 0)
	if err != nil {
		t.Fatal(err)
	}
	mark := table.FlushMark{CommitID: "adopt-1", Writer: "w1", Epoch: epoch, From: 70, To: 70}
	for range 2 {
		if err := l.load(tbl).Adopt(ctx, mark); err != nil {
			t.Fatal(err)
		}
		now := l.load(tbl)
		if at, err := now.Adopted(); at != 70 || err != nil {
			t.Errorf("adopted at %d, %v", at, err)
		}
		if got, ok, err := now.LastCommit(); !ok || err != nil || got.CommitID != "adopt-1" || got.To != 70 {
			t.Errorf("mark %+v, %v", got, err)
		}
		optimizing("false")
	}
	l.append(tbl, l.commit(epoch, 70, 71, l.file(tbl.Change(), users(t), mixed.Insert, 0, 71, row{id: 1, name: "a"})))
	for range 2 {
		if err := l.load(tbl).Release(ctx, 71); err != nil {
			t.Fatal(err)
		}
		now := l.load(tbl)
		if at, ok, err := now.Released(); at != 71 || !ok || err != nil {
			t.Errorf("released at %d, %v, %v", at, ok, err)
		}
		if _, ok, _ := now.LastCommit(); ok {
			t.Error("the mark is still there")
		}
		if at, _ := now.Adopted(); at != 0 || now.Untouched() {
			t.Errorf("adopted at %d, untouched %v", at, now.Untouched())
		}
		optimizing(before)
		for _, s := range now.Stores() {
			left := maps.Clone(s.Properties())
			for _, keep := range []string{table.PropEpoch, table.PropWriter, table.PropReleased} {
				delete(left, keep)
			}
			for name := range left {
				if strings.HasPrefix(name, "firn.") {
					t.Errorf("%s keeps %s", s.Name(), name)
				}
			}
		}
	}
	if _, err := tbl.AppendChanges(ctx, l.commit(epoch, 71, 72)); !errors.Is(err, table.ErrFenced) {
		t.Errorf("a flush after the release: %v", err)
	}
	if n := len(l.load(tbl).Change().Snapshots()); n != 1 {
		t.Errorf("%d snapshots of the change store", n)
	}
	a, err := l.load(tbl).CheckAdoptable(ctx)
	if err != nil || a.Released != 71 || a.ChangeFiles != 1 || a.Pending != 1 {
		t.Errorf("to be adopted again: %+v, %v", a, err)
	}
}

// TestAdoptRefuses: what cannot be had is refused by table and file.
func TestAdoptRefuses(t *testing.T) {
	changes := func(name string) func(*testing.T, *lake, *table.Table) {
		return func(t *testing.T, l *lake, tbl *table.Table) {
			f := l.file(tbl.Change(), users(t), mixed.Insert, 0, 1, row{id: 1})
			f.Path = tbl.Change().DataPath(name) // nobody reads it
			l.append(tbl, l.commit(0, 0, 1, f))
		}
	}
	for name, c := range map[string]struct {
		spoil func(*testing.T, *lake, *table.Table)
		want  []string
	}{
		"node 0":             {changes("0-I-0-00000-0-1-00001.parquet"), []string{"shop.users_change_", "0-I-0-00000-0-1-00001.parquet", "node"}},
		"foreign kind":       {changes("1-B-0-00000-0-1-00001.parquet"), []string{"shop.users_change_", "1-B-0-00000-0-1-00001.parquet", "take it out"}},
		"transaction ahead":  {changes("1-I-5-00000-0-1-00001.parquet"), []string{"shop.users_change_", "1-I-5-00000-0-1-00001.parquet", "is at 1"}},
		"no change property": {noChangeProperty, []string{"shop.users ", "mixed-format.change.identifier", "shop.users_change_"}},
		"format v3":          {formatV3, []string{"shop.v3 ", "format version 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLake(t, "sqlite")
			tbl := l.create("shop.users", users(t))
			c.spoil(t, l, tbl)
			of := "shop.users"
			if name == "format v3" {
				of = "shop.v3"
			}
			now, err := l.cat.Load(t.Context(), of)
			if err == nil {
				_, err = now.CheckAdoptable(t.Context())
			}
			if err == nil {
				t.Fatal("it is taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

func noChangeProperty(t *testing.T, _ *lake, tbl *table.Table) {
	if err := tbl.SetProperties(t.Context(), map[string]string{mixed.PropChange: ""}); err != nil {
		t.Fatal(err)
	}
}

// formatV3 registers the base store as shop.v3, of Iceberg's format 3.
func formatV3(t *testing.T, l *lake, tbl *table.Table) {
	b, err := os.ReadFile(strings.TrimPrefix(tbl.Base().MetadataLocation(), "file://"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"format-version":2`, `"format-version":3,"next-row-id":0`, 1)
	path := filepath.Join(t.TempDir(), "00000-v3.metadata.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.cat.Register(t.Context(), "shop.v3", path); err != nil {
		t.Fatal(err)
	}
}

// TestPredates: which change files are from before an adoption.
func TestPredates(t *testing.T) {
	for _, c := range []struct {
		last    int64
		adopted changelog.SeqNum
		want    bool
	}{{5, 0, false}, {5, 5, true}, {6, 5, false}, {0, 5, true}} {
		f := table.File{LastOffset: c.last}
		if got := f.Predates(c.adopted); got != c.want {
			t.Errorf("last offset %d, adopted at %d: %v", c.last, c.adopted, got)
		}
	}
}
