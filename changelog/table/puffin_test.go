package table_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// head returns the base store's newest snapshot and its statistics files.
func (l *lake) head(t *table.Table) (*table.Snapshot, []string) {
	l.t.Helper()
	now := l.load(t)
	sn := now.Base().Snapshot()
	return sn, table.Statistics(now.Base())[sn.ID]
}

// wantPuffin checks that the newest base snapshot is marked, has statistics of its own, and that the optimized sequence is s.
func (l *lake) wantPuffin(t *table.Table, s map[string]int64) {
	l.t.Helper()
	sn, files := l.head(t)
	if sn.Summary[mixed.MarkOptimizedSequence] == "" || sn.Summary[mixed.MarkBaseOptimizedTime] == "" || len(files) != 1 {
		l.t.Errorf("head %d with statistics %v and summary %v", sn.ID, files, sn.Summary)
	}
	if got := l.load(t); !maps.Equal(got.Optimized(), s) || !got.InPuffin() {
		l.t.Errorf("optimized %v in Puffin %v, want %v", got.Optimized(), got.InPuffin(), s)
	}
}

// added is a base file with a row of the id.
func (l *lake) added(t *table.Table, s *changelog.Schema, id int64) []table.NewFile {
	l.t.Helper()
	return []table.NewFile{l.file(t.Base(), s, mixed.Base, 1, 0, row{id, "x"})}
}

// testSequenceForms: from the property to Puffin and on, by the commit's own word or the table's property; back to the
// property only after a roll-back to before the mark; each state complete in one commit.
func testSequenceForms(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	_, before := l.merged(tbl, s)
	stale := l.load(tbl).Base().Properties()[mixed.PropPartitions]
	if l.load(tbl).InPuffin() || stale != `{"":{"max-txId":"2"}}` {
		t.Fatalf("property %s", stale)
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 11), Sequence: table.SequencePuffin}) // also a commit that says nothing of sequences
	l.wantPuffin(tbl, map[string]int64{"": 2})

	if kind == "sqlite" {
		if n := l.javaRows("db.users"); n >= 0 && n != 3 {
			t.Errorf("Java reads %d rows", n)
		}
	}
	seen := l.load(tbl).Base().MetadataLocation()
	_, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "p", Add: l.added(tbl, s, 12), Sequence: table.SequenceProperty, Optimized: map[string]int64{"": 3}})
	if !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), "db.users") || !strings.Contains(err.Error(), "firn.optimized-sequence to auto or puffin") {
		t.Errorf("property under a mark: %v", err)
	}
	if l.load(tbl).Base().MetadataLocation() != seen {
		t.Error("the refused commit is there")
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 13), Optimized: map[string]int64{"": 3}})
	l.wantPuffin(tbl, map[string]int64{"": 3})
	// Rows that all cancel: an empty snapshot carries the sequence, and says who made it.
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 4}, Summary: map[string]string{mixed.SummaryProducer: mixed.ProducerOptimize}})
	l.wantPuffin(tbl, map[string]int64{"": 4})
	if sn, _ := l.head(tbl); sn.Operation != "append" || sn.Summary[mixed.SummaryProducer] != mixed.ProducerOptimize || sn.Summary[table.PropCommitID] == "" ||
		sn.Summary["total-data-files"] != "3" {
		t.Errorf("empty snapshot %+v", sn)
	}
	// Pruned, and back: a partition without change files may leave the map.
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{}})
	l.wantPuffin(tbl, map[string]int64{})
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 5}})
	if got := l.load(tbl).Base().Properties()[mixed.PropPartitions]; got != stale {
		t.Errorf("property %s", got)
	}
	if err := table.SetRef(t.Context(), l.load(tbl).Base(), "main", before.ID); err != nil {
		t.Fatal(err)
	}
	if now := l.load(tbl); now.InPuffin() || now.Optimized()[""] != 2 {
		t.Errorf("rolled back: optimized %v in Puffin %v", now.Optimized(), now.InPuffin())
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 14), Optimized: map[string]int64{"": 3}, Sequence: table.SequenceProperty})
	if now := l.load(tbl); now.InPuffin() || now.Optimized()[""] != 3 || now.Base().Snapshot().Summary[mixed.MarkOptimizedSequence] != "" {
		t.Errorf("after the roll-back: optimized %v, %+v", now.Optimized(), now.Base().Snapshot())
	}
	// By the table's property, for whoever commits.
	if err := tbl.SetProperties(t.Context(), map[string]string{table.PropSequence: "puffin"}); err != nil {
		t.Fatal(err)
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 15)})
	l.wantPuffin(tbl, map[string]int64{"": 3})
	if err := tbl.SetProperties(t.Context(), map[string]string{table.PropSequence: "statistics"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "q", Add: l.added(tbl, s, 16)}); !errors.Is(err, table.ErrUnsupported) ||
		!strings.Contains(err.Error(), `"statistics" is not auto, property or puffin`) {
		t.Errorf("a form that is none: %v", err)
	}
}

// testExpireKeepsMark: whatever is expired, readers find the newest mark from the head, and its statistics, although an engine
// that knows nothing of them has committed since.
func testExpireKeepsMark(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 11), Optimized: map[string]int64{"": 2}, Sequence: table.SequencePuffin})
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 12), Optimized: map[string]int64{"": 3}})
	marked, files := l.head(tbl)
	for id := range int64(3) {
		if err := table.AddForeign(t.Context(), l.load(tbl).Base(), l.added(tbl, s, 20+id)...); err != nil {
			t.Fatal(err)
		}
	}
	l.now = l.now.Add(time.Hour)
	got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0)
	if err != nil || got.Snapshots != 3 { // two of the property, the first marked one
		t.Errorf("%+v, %v", got, err)
	}
	now := l.load(tbl)
	if now.Optimized()[""] != 3 || !slices.Equal(table.Statistics(now.Base())[marked.ID], files) || len(table.Statistics(now.Base())) != 1 {
		t.Errorf("optimized %v, statistics %v", now.Optimized(), table.Statistics(now.Base()))
	}
	if n := len(l.puffins()); n != 1 {
		t.Errorf("%d statistics files on disk", n)
	}
	if orphans, err := now.Orphans(t.Context(), time.Now().Add(time.Hour)); err != nil || len(orphans) != 0 && kind != "rest-server" {
		t.Errorf("orphans %v, %v", orphans, err)
	}
	// Our next commit marks the head, and then the others may go.
	l.now = l.now.Add(-time.Hour)
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 13)})
	l.now = l.now.Add(time.Hour)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil || got.Snapshots != 4 {
		t.Errorf("%+v, %v", got, err)
	}
	l.wantPuffin(tbl, map[string]int64{"": 3})
	if n := len(l.puffins()); n != 1 {
		t.Errorf("%d statistics files on disk", n)
	}
}

// testExpireKeepsNames: the snapshots that tags name are kept, with their files and statistics.
func testExpireKeepsNames(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	tagged := l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 11), Optimized: map[string]int64{"": 2}, Sequence: table.SequencePuffin})
	if err := table.SetRef(t.Context(), l.load(tbl).Base(), "eod", tagged.ID); err != nil {
		t.Fatal(err)
	}
	all := l.files(l.load(tbl).Base())
	l.base(tbl, table.BaseCommit{Remove: slices.DeleteFunc(slices.Clone(all), func(f table.File) bool { return f.Content != table.Data })})
	l.now = l.now.Add(time.Hour)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil || got.Snapshots != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	now := l.load(tbl)
	kept, err := now.Base().FilesAt(t.Context(), tagged.ID)
	if err != nil || len(kept) != len(all) {
		t.Errorf("%d files of the tag, %v", len(kept), err)
	}
	for _, path := range append(slices.Concat(slices.Collect(maps.Values(table.Statistics(now.Base())))...), pathsOf(kept)...) {
		if _, err := os.Stat(strings.TrimPrefix(path, "file://")); err != nil {
			t.Error(err)
		}
	}
	if n := len(table.Statistics(now.Base())); n != 2 || len(l.puffins()) != 2 {
		t.Errorf("%d entries of statistics, files %v", n, l.puffins())
	}
}

// TestExpireKeepsCheckpoint: Flink finds its newest checkpoint from the head, unless firn has taken the table over.
func TestExpireKeepsCheckpoint(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	flink := map[string]string{"flink.max-committed-checkpoint-id": "7"}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 1), Summary: flink})
	checkpoint := l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 2), Summary: flink})
	for id := range int64(3) {
		l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 10+id)})
	}
	l.now = l.now.Add(time.Hour)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil || got.Snapshots != 1 {
		t.Errorf("%+v, %v; only the older checkpoint may go", got, err)
	}
	if snaps := l.load(tbl).Base().Snapshots(); len(snaps) != 4 || snaps[0].ID != checkpoint.ID {
		t.Errorf("%d snapshots, the first is %d, the checkpoint's %d", len(snaps), snaps[0].ID, checkpoint.ID)
	}
	if _, err := tbl.ClaimEpoch(t.Context(), "w", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil {
		t.Fatal(err)
	}
	if snaps := l.load(tbl).Base().Snapshots(); len(snaps) != 1 {
		t.Errorf("%d snapshots are left of a table that firn has claimed", len(snaps))
	}
}

func pathsOf(files []table.File) (paths []string) {
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return paths
}

func (l *lake) puffins() []string {
	l.t.Helper()
	return slices.DeleteFunc(l.onDisk(), func(p string) bool { return !strings.HasSuffix(p, ".puffin") })
}

// TestExpirable: a change file goes only if both its sequence number and its transaction are merged, and never from a partition
// that has no sequence.
func TestExpirable(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	l.append(tbl, l.commit(0, 0, 2, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}), l.file(tbl.Change(), s, mixed.Insert, 7, 2, row{2, "b"})))
	files := l.files(l.load(tbl).Change())
	slices.SortFunc(files, func(a, b table.File) int { return int(a.Info.Txn - b.Info.Txn) })
	expect := func(what string, own, far bool) {
		t.Helper()
		now := l.load(tbl)
		if now.Expirable(files[0]) != own || now.Expirable(files[1]) != far {
			t.Errorf("%s: %v and %v", what, now.Expirable(files[0]), now.Expirable(files[1]))
		}
		for i, f := range files {
			if _, err := tbl.RemoveChangeFiles(t.Context(), files[i:i+1], 0); (err == nil) != now.Expirable(f) {
				t.Errorf("%s: remove %s: %v", what, f.Path, err)
			}
		}
	}
	expect("no map", false, false)
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{}})
	expect("empty map", false, false)
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"region=eu": 9}})
	expect("another partition", false, false)
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 2}})
	if !l.load(tbl).Merged(files[1]) {
		t.Error("readers see it")
	}
	expect("merged", true, false)
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 7}})
	expect("transaction merged", true, true)
}

// damage replaces a store's metadata by an edited copy.
func (l *lake) damage(s *table.Store, edit func(md map[string]any)) {
	l.t.Helper()
	b, err := os.ReadFile(strings.TrimPrefix(s.MetadataLocation(), "file://"))
	if err != nil {
		l.t.Fatal(err)
	}
	md := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // snapshot ids
	if err := d.Decode(&md); err != nil {
		l.t.Fatal(err)
	}
	edit(md)
	if b, err = json.Marshal(md); err != nil {
		l.t.Fatal(err)
	}
	l.n++
	path := fmt.Sprintf("%s/metadata/99999-%d.metadata.json", strings.TrimPrefix(s.Location(), "file://"), l.n)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		l.t.Fatal(err)
	}
	db, err := sql.Open("sqlite", l.options.URI)
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	ns, name, _ := strings.Cut(s.Name(), ".")
	if _, err := db.ExecContext(l.t.Context(), `UPDATE iceberg_tables SET metadata_location = ? WHERE table_namespace = ? AND table_name = ?`, "file://"+path, ns, name); err != nil {
		l.t.Fatal(err)
	}
}

// everything is all that a commit could touch: the files below the lake's directory with their bytes, and the catalog's rows.
func (l *lake) everything() map[string]string {
	l.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Join(l.dir, "warehouse"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	db, err := sql.Open("sqlite", l.options.URI)
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(l.t.Context(), `SELECT table_name, metadata_location FROM iceberg_tables`)
	if err != nil {
		l.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, at string
		if err := rows.Scan(&name, &at); err != nil {
			l.t.Fatal(err)
		}
		out["catalog "+name] = at
	}
	if err := rows.Err(); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// puffinTable is a table whose head is marked.
func puffinTable(t *testing.T) (*lake, *table.Table, *changelog.Schema, string) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 11), Optimized: map[string]int64{"": 2}, Sequence: table.SequencePuffin})
	_, files := l.head(tbl)
	return l, tbl, s, strings.TrimPrefix(files[0], "file://")
}

// TestStatisticsCutShort: a statistics file that is cut at any length, or gone, is an error that names table, file and way out;
// no damaged byte ends in a panic or a negative answer; nothing is written or removed.
func TestStatisticsCutShort(t *testing.T) {
	l, tbl, s, file := puffinTable(t)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range whole {
		write(whole[:n])
		_, err := tbl.Reload(t.Context())
		if !errors.Is(err, table.ErrCorrupt) || !strings.Contains(err.Error(), "db.users") || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "restore the file") {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
	write(whole)
	now := l.load(tbl)
	for i := range whole {
		for _, x := range []byte{0x01, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= x
			write(b)
			if now, err := tbl.Reload(t.Context()); err != nil && !errors.Is(err, table.ErrCorrupt) {
				t.Fatalf("byte %d: %v, %v", i, now, err)
			}
		}
	}
	write(whole[:len(whole)/2])
	before := l.everything()
	for what, err := range map[string]error{
		"base commit": second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: "b", Optimized: map[string]int64{"": 3}})),
		"manifests":   tbl.RewriteManifests(t.Context(), now.Base(), 0),
		"removal":     second(tbl.RemoveChangeFiles(t.Context(), nil, 0)),
	} {
		if !errors.Is(err, table.ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !maps.Equal(l.everything(), before) {
		t.Error("something was written or removed")
	}
	write(whole)
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 12)})
	l.wantPuffin(tbl, map[string]int64{"": 2})
}

func second[T any](_ T, err error) error { return err }

// TestStatisticsEntries: a mark without statistics, or with two entries of them, is an error that names the snapshot; so is a file
// without the blob, with two, and with one that is no map.
func TestStatisticsEntries(t *testing.T) {
	entries := func(md map[string]any) []any { return md["statistics"].([]any) }
	for name, c := range map[string]struct {
		edit func(md map[string]any)
		want string
	}{
		"none":     {func(md map[string]any) { delete(md, "statistics") }, "has 0 entries of statistics with the blob optimized-sequence"},
		"two":      {func(md map[string]any) { md["statistics"] = append(entries(md), entries(md)...) }, "has 2 entries of statistics"},
		"no blobs": {func(md map[string]any) { entries(md)[0].(map[string]any)["blob-metadata"] = []any{} }, "has 0 entries"},
		"another snapshot's": {func(md map[string]any) {
			entries(md)[0].(map[string]any)["snapshot-id"] = md["snapshots"].([]any)[0].(map[string]any)["snapshot-id"]
		}, "has 0 entries"},
	} {
		l, tbl, _, _ := puffinTable(t)
		l.damage(l.load(tbl).Base(), c.edit)
		before := l.everything()
		for _, err := range []error{
			second(tbl.Reload(t.Context())), second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: "b", Optimized: map[string]int64{"": 3}})),
		} {
			if !errors.Is(err, table.ErrCorrupt) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "db.users") || !strings.Contains(err.Error(), "roll the base store back") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !maps.Equal(l.everything(), before) {
			t.Errorf("%s: something was written or removed", name)
		}
	}
}

// TestStatisticsSpelling: partitions are compared decoded, whoever has spelled them; of two spellings of one the later sequence counts.
func TestStatisticsSpelling(t *testing.T) {
	l, tbl, s, _ := puffinTable(t)
	ours := "region=*%7E%27"
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 12), Optimized: map[string]int64{"region=%2A~%27": 5, "region=*%7E%28": 4}})
	l.wantPuffin(tbl, map[string]int64{ours: 5, "region=*%7E%28": 4})
	_, files := l.head(tbl)
	file := strings.TrimPrefix(files[0], "file://")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to string
		want     map[string]int64
	}{
		{ours, "region=%2A~%27", map[string]int64{ours: 5, "region=*%7E%28": 4}},
		{"region=*%7E%28", "region=%2A~%27", map[string]int64{ours: 5}}, // both are one
	} {
		if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(c.from), []byte(c.to)), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 20 { // maps have no order
			if got := l.load(tbl).Optimized(); !maps.Equal(got, c.want) {
				t.Fatalf("%s as %s: %v, want %v", c.from, c.to, got, c.want)
			}
		}
	}
	if _, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "back", Optimized: map[string]int64{"region=%2A~%27": 4}}); !table.IsConflict(err) {
		t.Errorf("the sequence went back: %v", err)
	}
}

// TestSequenceWithoutTime: a mark of the sequence alone, as a rewrite of one partition by Amoro leaves it, is read and carried on.
func TestSequenceWithoutTime(t *testing.T) {
	l, tbl, s, _ := puffinTable(t)
	l.damage(l.load(tbl).Base(), func(md map[string]any) {
		sn := md["snapshots"].([]any)
		delete(sn[len(sn)-1].(map[string]any)["summary"].(map[string]any), mixed.MarkBaseOptimizedTime)
		entry := md["statistics"].([]any)[0].(map[string]any)
		entry["blob-metadata"] = entry["blob-metadata"].([]any)[:1]
	})
	if got := l.load(tbl).Optimized(); got[""] != 2 {
		t.Errorf("optimized %v", got)
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 12), Optimized: map[string]int64{"": 3}})
	l.wantPuffin(tbl, map[string]int64{"": 3})
}

// testRetry: a commit that expects no certain head is built again when another comes first, whatever kind it is, until it is in vain.
func testRetry(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	next, err := s.Evolve([]changelog.Column{{Name: "late", Type: changelog.Primitive(changelog.Int)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 10), Sequence: table.SequencePuffin})
	other := l.open(table.Options{})
	inTheWay, busy := 0, false
	l.hook = func(ctx context.Context, a table.Attempt, commit func() error) error {
		if !busy && inTheWay > 0 {
			inTheWay--
			busy = true
			theirs, err := other.Load(ctx, "db.users")
			l.must(err)
			if a.Store == mixed.StoreBase {
				l.must(table.AddForeign(ctx, theirs.Base(), l.added(theirs, s, 100+int64(l.n))...))
			} else {
				l.must(table.AddForeign(ctx, theirs.Change(), l.file(theirs.Change(), s, mixed.Insert, 0, 50, row{int64(200 + l.n), "x"})))
			}
			busy = false
		}
		return commit()
	}
	merged := l.files(l.load(tbl).Change())
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"flush", func() error {
			return second(tbl.AppendChanges(t.Context(), l.commit(0, 4, 5, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"}))))
		}},
		{"base", func() error {
			return second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: fmt.Sprint("b", l.n), Add: l.added(tbl, s, 300+int64(l.n))}))
		}},
		{"schema", func() error { return tbl.SyncSchemas(t.Context(), changelog.Schemas{s, next}) }},
		{"change files", func() error { return second(tbl.RemoveChangeFiles(t.Context(), merged, 0)) }},
		{"claim", func() error { return second(tbl.ClaimEpoch(t.Context(), "w", 0)) }},
	} {
		inTheWay = 5
		if err := c.do(); err != nil || inTheWay != 0 {
			t.Errorf("%s: %v, %d commits were to come first", c.name, err, inTheWay)
		}
	}
	inTheWay = 100
	epoch, err := l.load(tbl).Epoch()
	l.must(err)
	if err := second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: "vain", Epoch: epoch, Add: l.added(tbl, s, 999)})); !table.IsConflict(err) {
		t.Errorf("always beaten: %v", err)
	}
	inTheWay = 0
	if n := len(table.Statistics(l.load(tbl).Base())); n != 2 || len(l.puffins()) != n { // those of refused snapshots are gone
		t.Errorf("%d entries of statistics, files %v", n, l.puffins())
	}
	if got := l.load(tbl); len(got.Schemas()) != 2 || len(slices.DeleteFunc(l.files(got.Change()), func(f table.File) bool { return got.Merged(f) })) < 2 {
		t.Errorf("%d schemas", len(got.Schemas()))
	}
}

// testPuffinOutcome (P2): the commit that switches to Puffin is there whole, snapshot, mark and statistics, or not at all, also where its
// answer was lost; sent again it is there once; what a lost one has left is an orphan.
func testPuffinOutcome(t *testing.T, kind string) {
	for _, landed := range []bool{true, false} {
		l, s := newLake(t, kind), users(t)
		tbl := l.create("db.users", s)
		l.merged(tbl, s)
		c := table.BaseCommit{ID: "switch", Add: l.added(tbl, s, 11), Optimized: map[string]int64{"": 3}, Sequence: table.SequencePuffin}
		l.hook = func(_ context.Context, _ table.Attempt, commit func() error) error {
			if landed {
				return errors.Join(commit(), errLost)
			}
			return errLost
		}
		if _, err := tbl.CommitBase(t.Context(), c); (err == nil) != landed {
			t.Errorf("landed %v: %v", landed, err)
		}
		l.hook = nil
		if now := l.load(tbl); now.InPuffin() != landed || now.Optimized()[""] != map[bool]int64{true: 3, false: 2}[landed] {
			t.Errorf("landed %v: optimized %v in Puffin %v", landed, now.Optimized(), now.InPuffin())
		}
		l.base(tbl, c)
		l.wantPuffin(tbl, map[string]int64{"": 3})
		if n := len(l.load(tbl).Base().Snapshots()); n != 3 {
			t.Errorf("landed %v: %d snapshots", landed, n)
		}
		left := 1
		if !landed {
			left = 2
		}
		if n := len(l.puffins()); n != left {
			t.Errorf("landed %v: %d statistics files", landed, n)
		}
		l.now = l.now.Add(2 * time.Hour)
		if _, err := tbl.RemoveOrphans(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
		if n := len(l.puffins()); n != 1 {
			t.Errorf("landed %v: %d statistics files, cleaned", landed, n)
		}
		l.wantPuffin(tbl, map[string]int64{"": 3})
		if got := l.rows(l.load(tbl).Base(), s); len(got) != 3 {
			t.Errorf("rows %v", got)
		}
	}
}

// TestNoPuffinWithoutKey: a table without a key has no optimized sequence, wherever it would go.
func TestNoPuffinWithoutKey(t *testing.T) {
	l := newLake(t, "sqlite")
	tbl, s := l.events()
	if err := tbl.SetProperties(t.Context(), map[string]string{table.PropSequence: "puffin"}); err != nil {
		t.Fatal(err)
	}
	l.append(tbl, l.commit(0, 0, 1, l.file(tbl.Base(), s, mixed.Base, 0, 0, row{1, "a"})))
	l.base(tbl, table.BaseCommit{Add: []table.NewFile{l.file(tbl.Base(), s, mixed.Base, 0, 0, row{2, "b"})}, Sequence: table.SequencePuffin})
	if sn, files := l.head(tbl); len(files) != 0 || sn.Summary[mixed.MarkOptimizedSequence] != "" {
		t.Errorf("head %+v, statistics %v", sn, files)
	}
}

// TestWatermarkOf: what flushes say of their source time, by SeqNum, and the base store's own, which does not go back.
func TestWatermarkOf(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	for n := range int64(3) {
		c := l.commit(0, changelog.SeqNum(10*n), changelog.SeqNum(10*n+10), l.file(tbl.Change(), s, mixed.Insert, 0, 10*n+1, row{n, "a"}))
		c.Watermark = 1000 * (n + 1)
		if snap := l.append(tbl, c); snap.Summary["firn.watermark"] != fmt.Sprint(c.Watermark) {
			t.Errorf("summary %v", snap.Summary)
		}
	}
	now := l.load(tbl)
	for seq, want := range map[changelog.SeqNum]int64{0: 0, 9: 0, 10: 1000, 29: 2000, 30: 3000, 99: 3000} {
		if got, err := now.WatermarkOf(seq); err != nil || got != want {
			t.Errorf("of %d: %d, %v, want %d", seq, got, err, want)
		}
	}
	if now.Change().Properties()["watermark.table"] != "3000" || now.Base().Watermark() != 0 {
		t.Errorf("watermarks %v, %d", now.Change().Properties()["watermark.table"], now.Base().Watermark())
	}
	for _, w := range []int64{2000, 1000, 0} {
		l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 3}, Watermark: w})
		if got := l.load(tbl).Base().Watermark(); got != 2000 {
			t.Errorf("base watermark %d after %d", got, w)
		}
	}
}

// TestUpgradedMeanwhile: a store that another engine has brought to format version 3 since it was loaded is not written to.
func TestUpgradedMeanwhile(t *testing.T) {
	l, s := newLake(t, "sqlite"), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	for _, store := range l.load(tbl).Stores() {
		l.damage(store, func(md map[string]any) { md["format-version"], md["next-row-id"] = 3, 0 })
	}
	change, base := l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"}), l.added(tbl, s, 5)
	before := l.everything()
	for what, err := range map[string]error{
		"load":        second(tbl.Reload(t.Context())),
		"flush":       second(tbl.AppendChanges(t.Context(), l.commit(0, 4, 5, change))),
		"base commit": second(tbl.CommitBase(t.Context(), table.BaseCommit{ID: "b", Add: base})),
		"property":    tbl.SetProperties(t.Context(), map[string]string{"x": "y"}),
		"expiry":      second(tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0)),
	} {
		if !errors.Is(err, table.ErrUnsupported) || !strings.Contains(err.Error(), "is of Iceberg's format version 3") || !strings.Contains(err.Error(), "db.users") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !maps.Equal(l.everything(), before) {
		t.Error("something was written or removed")
	}
}

// TestExpireKeepsSharedStatistics: a file that the entries of two snapshots name, as Amoro's commits of two snapshots leave it, stays
// while one of them does.
func TestExpireKeepsSharedStatistics(t *testing.T) {
	l, tbl, s, _ := puffinTable(t)
	l.base(tbl, table.BaseCommit{Add: l.added(tbl, s, 12), Optimized: map[string]int64{"": 2}})
	_, files := l.head(tbl)
	l.damage(l.load(tbl).Base(), func(md map[string]any) {
		md["statistics"].([]any)[0].(map[string]any)["statistics-path"] = files[0]
	})
	l.now = l.now.Add(time.Hour)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil || got.Snapshots != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Stat(strings.TrimPrefix(files[0], "file://")); err != nil {
		t.Error(err)
	}
	l.wantPuffin(tbl, map[string]int64{"": 2})
}
