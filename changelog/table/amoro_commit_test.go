package table_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/puffin"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// afterAmoro is a first commit of ours on a table that Amoro has optimized.
type afterAmoro struct {
	table string
	// commit does it; rows is how many more the base store then has, and s what becomes of the sequence.
	commit func(l *lake, tbl *table.Table, s map[string]int64) (rows int)
	marks  bool // it makes a snapshot of the base store
}

// row0 is a base file with one row of nulls but the key's, of any of Amoro's schemas.
func (l *lake) row0(tbl *table.Table) table.NewFile {
	l.t.Helper()
	l.n++
	s := tbl.Schemas().Current()
	values := make([]changelog.Value, len(s.Columns))
	for i, c := range s.Columns {
		switch {
		case !c.Required && !slices.Contains(s.Key, c.ID):
			values[i] = changelog.NullValue
		case c.Type.Kind == changelog.String:
			values[i] = changelog.Value{B: []byte("new")}
		default:
			values[i] = changelog.Value{I: 987_654}
		}
	}
	of, err := tbl.Partitioner(s)
	if err != nil {
		l.t.Fatal(err)
	}
	partition := ""
	if of != nil {
		partition = of.Path(values)
	}
	path := tbl.Base().DataPathIn(partition, mixed.FileName{Type: mixed.Base, Op: table.NewOp(), Count: l.n}.String())
	out, err := l.cat.FS().Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	w, err := datafile.NewWriter(out, s, false, datafile.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := w.WriteValues(values, 0); err != nil {
		l.t.Fatal(err)
	}
	written, err := w.Close()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := out.Commit(); err != nil {
		l.t.Fatal(err)
	}
	return table.NewFile{Path: path, Partition: partition, Schema: s, Rows: 1, Bytes: written.Bytes, Footer: written.Metadata}
}

func (l *lake) content(s *table.Store, c table.Content) []table.File {
	l.t.Helper()
	return slices.DeleteFunc(l.files(s), func(f table.File) bool { return f.Content != c })
}

func (l *lake) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// afterAmoroCommits are all kinds of commits that firn makes.
var afterAmoroCommits = map[string]afterAmoro{
	"rows": {"opt_minor", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		l.base(tbl, table.BaseCommit{Add: []table.NewFile{l.row0(tbl)}})
		return 1
	}, true},
	"minor": {"opt_minor_then_changes", func(l *lake, tbl *table.Table, s map[string]int64) int {
		data := l.content(tbl.Base(), table.Data)[0]
		pd := l.deletes(tbl.Base(), 1, datafile.PosDelete{Path: data.Path, Pos: 0})
		s[""]++
		l.base(tbl, table.BaseCommit{Add: []table.NewFile{l.row0(tbl)}, AddDeletes: []table.NewFile{pd}, Optimized: s})
		return 0
	}, true},
	"rewrite": {"opt_full", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		data := l.content(tbl.Base(), table.Data)
		l.base(tbl, table.BaseCommit{Replace: true, Add: []table.NewFile{l.row0(tbl)}, Remove: data, RemoveDeletes: l.content(tbl.Base(), table.PositionDeletes)})
		n := 1
		for _, f := range data {
			n -= int(f.Records)
		}
		return n
	}, true},
	"collect": {"opt_positions", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		dels := l.content(tbl.Base(), table.PositionDeletes)
		if len(dels) == 0 {
			l.t.Fatal("no position deletes")
		}
		l.base(tbl, table.BaseCommit{Replace: true, RemoveDeletes: dels[:1]})
		return int(dels[0].Records)
	}, true},
	"sequence": {"opt_buckets", func(l *lake, tbl *table.Table, s map[string]int64) int {
		s[""]++
		l.base(tbl, table.BaseCommit{Optimized: s})
		return 0
	}, true},
	"manifests": {"opt_major", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		l.must(tbl.RewriteManifests(l.t.Context(), tbl.Base(), 0))
		return 0
	}, true},
	"properties": {"part_date", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		l.must(tbl.SetProperties(l.t.Context(), map[string]string{"x": "y"}))
		return 0
	}, false},
	"epoch": {"part_day", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		l.must(second(tbl.ClaimEpoch(l.t.Context(), "w", 0)))
		return 0
	}, false},
	"schema": {"part_identity", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		next, err := tbl.Schemas().Current().Evolve([]changelog.Column{{Name: "added", Type: changelog.Primitive(changelog.Int)}}, nil)
		l.must(err)
		l.must(tbl.SyncSchemas(l.t.Context(), append(tbl.Schemas(), next)))
		return 0
	}, false},
	"expiry":                   {"opt_full", expireAmoro, false},
	"expiry under other heads": {"opt_positions", expireAmoro, false},
	"change files": {"part_two", func(l *lake, tbl *table.Table, _ map[string]int64) int {
		merged := slices.DeleteFunc(l.files(tbl.Change()), func(f table.File) bool { return !tbl.Expirable(f) })
		if len(merged) == 0 {
			l.t.Fatal("nothing merged")
		}
		l.must(second(tbl.RemoveChangeFiles(l.t.Context(), merged, 0)))
		return 0
	}, false},
}

func expireAmoro(l *lake, tbl *table.Table, _ map[string]int64) int {
	got, err := tbl.ExpireSnapshots(l.t.Context(), tbl.Base(), 1, 0)
	l.must(err)
	if got.Snapshots == 0 {
		l.t.Error("nothing expired")
	}
	return 0
}

// TestFirstCommitAfterAmoro: whatever our first commit on a table that Amoro has optimized is, the mark and its statistics are
// found from the head, and the metadata has nothing that Java cannot read. With FIRN_TEST_JAVAICEBERG, the folder
// deploy/peers/javaiceberg, and FIRN_TEST_AMORO, data/amoro/tables.tar.xz with the rows, Iceberg's Java library reads them.
func TestFirstCommitAfterAmoro(t *testing.T) {
	for name, c := range afterAmoroCommits {
		t.Run(name, func(t *testing.T) {
			unpackAmoro(t)
			l := newLake(t, "sqlite")
			registerAmoro(t, l.cat, c.table+"_change_")
			registerAmoro(t, l.cat, c.table)
			tbl, err := l.cat.Load(t.Context(), "amoro."+c.table)
			l.must(err)
			if !tbl.InPuffin() {
				t.Fatalf("Amoro has not optimized %s", c.table)
			}
			before := -1
			if os.Getenv("FIRN_TEST_AMORO") != "" {
				before = l.javaRows("amoro." + c.table)
			}
			l.now = time.Now().Add(time.Second)
			want, was := tbl.Optimized(), tbl.Base().SnapshotID()
			times := l.times(tbl)
			more := c.commit(l, tbl, want)
			now := l.load(tbl)
			if !now.InPuffin() || !maps.Equal(now.Optimized(), want) {
				t.Errorf("optimized %v in Puffin %v, want %v", now.Optimized(), now.InPuffin(), want)
			}
			sn, files := l.head(tbl)
			if (sn.ID != was) != c.marks || c.marks && (len(files) != 1 || sn.Summary[mixed.MarkOptimizedSequence] == "") {
				t.Errorf("head %d, was %d: statistics %v", sn.ID, was, files)
			}
			if after := l.times(now); maps.Equal(want, tbl.Optimized()) && !maps.Equal(after, times) || len(after) < len(times) {
				t.Errorf("optimized at %v, was %v", after, times)
			}
			l.javaCanRead(now.Base())
			if before >= 0 {
				if after := l.javaRows("amoro." + c.table); after != before+more {
					t.Errorf("Java reads %d rows, %d before, want %d more", after, before, more)
				}
			}
		})
	}
}

// times returns when each partition was optimized, as the newest statistics say.
func (l *lake) times(t *table.Table) map[string]int64 {
	l.t.Helper()
	for _, sn := range slices.Backward(t.Base().Snapshots()) {
		files := table.Statistics(t.Base())[sn.ID]
		if len(files) == 0 {
			continue
		}
		b, err := l.cat.FS().ReadFile(files[0])
		l.must(err)
		r, err := puffin.NewReader(bytes.NewReader(b))
		l.must(err)
		for i, blob := range r.Blobs() {
			if blob.Type == "base-optimized-time" {
				data, err := r.ReadBlob(i)
				l.must(err)
				times := map[string]int64{}
				l.must(json.Unmarshal(data.Data, &times))
				return times
			}
		}
	}
	l.t.Fatal("no times")
	return nil
}

// javaCanRead checks that a store's metadata has no null where Java wants a map or a list, and no entry of statistics without its
// snapshot.
func (l *lake) javaCanRead(s *table.Store) {
	l.t.Helper()
	b, err := os.ReadFile(strings.TrimPrefix(s.MetadataLocation(), "file://"))
	if err != nil {
		l.t.Fatal(err)
	}
	if text := string(b); strings.Contains(text, `"properties":null`) || strings.Contains(text, `"fields":null`) {
		l.t.Error("metadata has nulls that Java cannot read")
	}
	var md struct {
		Snapshots []struct {
			ID int64 `json:"snapshot-id"`
		}
		Statistics []struct {
			ID int64 `json:"snapshot-id"`
		}
	}
	l.must(json.Unmarshal(b, &md))
	kept := map[int64]bool{}
	for _, sn := range md.Snapshots {
		kept[sn.ID] = true
	}
	for _, st := range md.Statistics {
		if !kept[st.ID] {
			l.t.Errorf("statistics of snapshot %d, which is gone", st.ID)
		}
	}
}

// javaRows returns how many rows Iceberg's Java library reads from a table; -1: it was not asked for.
func (l *lake) javaRows(name string) int {
	l.t.Helper()
	if os.Getenv("FIRN_TEST_JAVAICEBERG") == "" {
		return -1
	}
	peer, err := filepath.Abs(filepath.Join(os.Getenv("FIRN_TEST_JAVAICEBERG"), "dump"))
	l.must(err)
	cmd := exec.CommandContext(l.t.Context(), peer, "--sqlite", l.options.URI, "--table", name, "--count")
	var errText strings.Builder
	cmd.Stderr = &errText
	out, err := cmd.Output()
	if err != nil {
		l.t.Errorf("Java reads %s: %v: %s", name, err, errText.String())
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		l.t.Errorf("Java reads %s: %q", name, out)
	}
	return n
}
