package table_test

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"firn/changelog/mixed"
	"firn/changelog/table"
)

// unpackAmoro unpacks tables that Amoro wrote, and what it says about them, into the working directory: their paths are
// relative. (Metadata, manifests and statistics only: from data/amoro/tables.tar.xz, which FIRN_TEST_AMORO may name.)
func unpackAmoro(t *testing.T) {
	t.Helper()
	if whole := os.Getenv("FIRN_TEST_AMORO"); whole != "" {
		t.Chdir(t.TempDir())
		if out, err := exec.CommandContext(t.Context(), "tar", "-xJf", whole).CombinedOutput(); err != nil {
			t.Fatalf("unpack %s: %v: %s", whole, err, out)
		}
		return
	}
	f, err := os.Open(filepath.Join("testdata", "amoro.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	t.Chdir(t.TempDir())
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(h.Name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.Name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// registerAmoro registers one unpacked store.
func registerAmoro(t *testing.T, c *table.Catalog, name string) {
	t.Helper()
	dir := filepath.Join("warehouse", "amoro", name, "metadata")
	newest := 0
	for n := 1; ; n++ {
		if _, err := os.Stat(filepath.Join(dir, "v"+strconv.Itoa(n)+".metadata.json")); err != nil {
			break
		}
		newest = n
	}
	if err := c.Register(t.Context(), "amoro."+name, filepath.Join(dir, "v"+strconv.Itoa(newest)+".metadata.json")); err != nil {
		t.Fatal(err)
	}
}

// amoroFile is how Amoro classifies a file.
type amoroFile struct {
	Store, File, Content, Type, Partition string
	Node, Tx, Records, Bytes              int64
	DataSequence                          int64 `json:"data_sequence"`
	FirstOffset                           int64 `json:"first_offset"`
	LastOffset                            int64 `json:"last_offset"`
	Pending                               *bool
}

// TestAmoroTables: every file of Amoro's tables (unpartitioned and of all partition transforms, before and after each kind of optimizing)
// has the meaning that Amoro gives it, and the optimized sequences are those that Amoro reads.
func TestAmoroTables(t *testing.T) {
	unpackAmoro(t)
	l := newLakeIn(t, ".")
	checks, err := filepath.Glob("check/*.jsonl")
	if err != nil || len(checks) < 20 {
		t.Fatalf("%d tables, %v", len(checks), err)
	}
	for _, path := range checks {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "amoro."), ".jsonl")
		t.Run(name, func(t *testing.T) {
			registerAmoro(t, l.cat, name)
			if _, err := os.Stat("warehouse/amoro/" + name + "_change_"); err == nil {
				registerAmoro(t, l.cat, name+"_change_")
			}
			tbl, err := l.cat.Load(t.Context(), "amoro."+name)
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Optimized map[string]int64 `json:"optimized_sequence"`
				Key       []string         `json:"primary_key"`
			}
			if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &want) != nil {
				t.Fatalf("%v", err)
			}
			if tbl.Keyed() {
				normal := map[string]int64{}
				for k, n := range want.Optimized {
					normal[mixed.NormalizePath(k)] = n
				}
				if got := tbl.Optimized(); !maps.Equal(got, normal) {
					t.Errorf("optimized %v, want %v", got, normal)
				}
			}
			amoroFiles(t, tbl, name)
		})
	}
}

func amoroFiles(t *testing.T, tbl *table.Table, name string) {
	t.Helper()
	got := map[string]table.File{}
	for _, s := range []*table.Store{tbl.Base(), tbl.Change()} {
		if s == nil {
			continue
		}
		files, err := s.Files(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			got[s.Kind()+" "+strings.TrimPrefix(f.Path, s.Location()+"/")] = f
		}
	}
	in, err := os.Open("files/amoro." + name + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	codes := map[string]mixed.FileType{
		"BASE_FILE": mixed.Base, "INSERT_FILE": mixed.Insert, "EQ_DELETE_FILE": mixed.Delete, "POS_DELETE_FILE": mixed.PositionDelete,
	}
	n := 0
	for sc := bufio.NewScanner(in); sc.Scan(); n++ {
		var w amoroFile
		if err := json.Unmarshal(sc.Bytes(), &w); err != nil {
			t.Fatal(err)
		}
		f, ok := got[w.Store+" "+w.File]
		if !ok {
			t.Fatalf("no file %s of the %s store in %v", w.File, w.Store, got)
		}
		if f.Info.Type != codes[w.Type] || f.Info.Node.ID() != w.Node || f.Info.Txn != w.Tx || f.Records != w.Records ||
			f.Bytes != w.Bytes || f.DataSequence != w.DataSequence || f.Partition != mixed.NormalizePath(w.Partition) {
			t.Errorf("got %+v\nwant %s", f, sc.Bytes())
		}
		if w.Store == "change" && w.Pending != nil && tbl.Merged(f) == *w.Pending {
			t.Errorf("%s: merged %v, pending %v", w.File, tbl.Merged(f), *w.Pending)
		}
		if w.Store == "change" && f.FirstOffset != 0 && (f.FirstOffset != w.FirstOffset || f.LastOffset != w.LastOffset) {
			t.Errorf("%s: offsets %d to %d, want %d to %d", w.File, f.FirstOffset, f.LastOffset, w.FirstOffset, w.LastOffset)
		}
	}
	if n != len(got) {
		t.Errorf("%d files, Amoro sees %d", len(got), n)
	}
}

// TestCommitAfterAmoro: base commits to a table that Amoro has optimized keep its marks and statistics, in the newest snapshot and
// readable, through appends, rewrites of manifests and expiry; the optimized sequence lives there and not in the property.
func TestCommitAfterAmoro(t *testing.T) {
	for _, kind := range []string{"sqlite", "rest"} {
		t.Run(kind, func(t *testing.T) { testCommitAfterAmoro(t, kind) })
	}
}

func testCommitAfterAmoro(t *testing.T, kind string) {
	unpackAmoro(t)
	l := newLake(t, kind)
	registerAmoro(t, l.cat, "opt_minor_then_changes_change_")
	registerAmoro(t, l.cat, "opt_minor_then_changes")
	tbl, err := l.cat.Load(t.Context(), "amoro.opt_minor_then_changes")
	if err != nil {
		t.Fatal(err)
	}
	s := tbl.Schemas().Current()
	mark := func(want int64) {
		t.Helper()
		now := l.load(tbl)
		if got := now.Optimized(); !maps.Equal(got, map[string]int64{"": want}) {
			t.Errorf("optimized %v, want %d", got, want)
		}
		head := now.Base().Snapshot()
		if head.Summary["optimized-sequence.exist"] == "" || now.Base().Properties()["table.partition-properties"] != "" {
			t.Errorf("head %+v", head)
		}
		b, err := os.ReadFile(strings.TrimPrefix(now.Base().MetadataLocation(), "file://"))
		if kind != "sqlite" { // its server writes it
			return
		}
		if err != nil || strings.Contains(string(b), `"properties":null`) || strings.Contains(string(b), `"fields":null`) {
			t.Errorf("metadata has nulls that Java cannot read: %v", err)
		}
	}
	if got := tbl.Optimized()[""]; got != 1 {
		t.Fatalf("optimized %d", got)
	}
	l.base(tbl, table.BaseCommit{Add: []table.NewFile{l.file(tbl.Base(), s, mixed.Base, 3, 0)}})
	mark(1)
	l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": 3}}) // no files: an empty snapshot carries it
	mark(3)
	if err := l.load(tbl).RewriteManifests(t.Context(), l.load(tbl).Base(), 1); err != nil {
		t.Fatal(err)
	}
	mark(3)
	if err := tbl.SetProperties(t.Context(), map[string]string{"x": "y"}); err != nil {
		t.Fatal(err)
	}
	mark(3)
	l.now = time.Now().Add(time.Second)
	if got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0); err != nil || got.Snapshots != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	mark(3)
	if _, err := tbl.CommitBase(context.WithoutCancel(t.Context()), table.BaseCommit{ID: "back", Optimized: map[string]int64{"": 2}}); !table.IsConflict(err) {
		t.Errorf("the sequence went back: %v", err)
	}
}
