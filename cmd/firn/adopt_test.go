package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

const adoptable = "amoro.opt_minor_then_changes"

// firnOK runs a command line that must succeed.
func firnOK(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errText := firnVerb(t.Context(), "", args...)
	if code != 0 {
		t.Fatalf("firn %s: exit %d %s", strings.Join(args, " "), code, errText)
	}
	return out
}

// TestAdoptVerbs: the life of a table between Amoro and firn, by command lines.
func TestAdoptVerbs(t *testing.T) {
	_, config := amoroLake(t, "opt_minor_then_changes")
	rows := said(t, "expected", "opt_minor_then_changes")
	head := metadataOf(t, adoptable)
	dry := firnOK(t, "table", "adopt", adoptable, "-c", config, "--dry-run")
	if !strings.HasPrefix(dry, "would adopt "+adoptable+": key id; 63 rows of 4 base files") || !strings.Contains(dry, "changes begin after 87; the optimized sequence stays in Puffin\n") {
		t.Errorf("dry run: %s", dry)
	}
	if metadataOf(t, adoptable) != head {
		t.Error("the dry run has written to the lake")
	}
	if code, _, errText := firnVerb(t.Context(), "", "dump", adoptable, "-c", config); code != exitNo {
		t.Errorf("after the dry run: exit %d %s", code, errText)
	}
	if out := firnOK(t, "table", "adopt", adoptable, "-c", config); out != strings.Replace(dry, "would adopt", "adopted", 1) {
		t.Errorf("got %swant %s", out, dry)
	}
	head = metadataOf(t, adoptable)
	if out := firnOK(t, "table", "adopt", adoptable, "-c", config); out != adoptable+" is this firn's table already, at change 87\n" {
		t.Error(out)
	}
	if metadataOf(t, adoptable) != head {
		t.Error("the second adoption has written to the lake")
	}
	for _, from := range []string{"index", "merged", "union"} {
		if got := firnOK(t, "dump", adoptable, "--from", from, "-c", config); got != rows {
			t.Errorf("%s: %s", from, firstLine(got, rows))
		}
	}
	firnOK(t, "verify", adoptable, "--deep", "-c", config)

	w := newAdopted(t, openTestParts(t, config), adoptable, 2)
	code, _, errText := firnVerb(t.Context(), "", "table", "release", adoptable, "-c", config)
	if code != exitOpen || !strings.Contains(errText, "in use by another process") {
		t.Errorf("while another process has the directory: exit %d %s", code, errText)
	}
	w.change(20)
	w.feeds()
	w.change(5)
	if err := w.p.close(); err != nil {
		t.Fatal(err)
	}

	out := firnOK(t, "table", "release", adoptable, "-c", config)
	if out != "released "+adoptable+" at change 112; 5 changes were flushed for it\n" {
		t.Error(out)
	}
	if out := firnOK(t, "table", "release", adoptable, "-c", config); out != adoptable+" was released before, at change 112\n" {
		t.Error(out)
	}
	if code, _, errText := firnVerb(t.Context(), "", "dump", adoptable, "-c", config); code != exitNo {
		t.Errorf("index after the release: exit %d %s", code, errText)
	}
	merged := firnOK(t, "dump", adoptable, "--from", "merged", "-c", config)
	if merged == rows {
		t.Error("the changes are not in the lake")
	}
	if out := firnOK(t, "table", "adopt", adoptable, "-c", config); !strings.Contains(out, "changes begin after 112;") {
		t.Errorf("adopted again: %s", out)
	}
	if got := firnOK(t, "dump", adoptable, "--from", "index", "-c", config); got != merged {
		t.Error(firstLine(got, merged))
	}
	if code, _, errText := firnVerb(t.Context(), "", "table", "release", "amoro.nope", "-c", config); code != exitNo {
		t.Errorf("a table that is not there: exit %d %s", code, errText)
	}
}

// feeds: what change files say of the changes since the adoption is what the log says; there are none of before.
func (w *adopted) feeds() {
	w.t.Helper()
	w.flush()
	ctx, files := w.t.Context(), changeFiles{w.p.catalog}
	if oldest, ok, err := files.Oldest(ctx, w.entry); oldest != 88 || !ok || err != nil {
		w.t.Errorf("oldest change in files: %d, %v, %v", oldest, ok, err)
	}
	n := changelog.SeqNum(0)
	for c, err := range files.Scan(ctx, w.entry, 87, 107) {
		w.must(err)
		if n++; c.Seq != 87+n {
			w.t.Fatalf("change %d at %d", c.Seq, n)
		}
	}
	if n != 20 {
		w.t.Errorf("%d changes", n)
	}
	for _, err := range files.Scan(ctx, w.entry, 50, 107) {
		if !errors.Is(err, logstore.ErrTrimmed) || !strings.Contains(err.Error(), "was adopted at change 87") {
			w.t.Errorf("from before the adoption: %v", err)
		}
	}
	w.withoutForeign(func() {
		for _, err := range files.Scan(ctx, w.entry, 87, 107) {
			w.must(err)
		}
	})
}

// withoutForeign runs f while the change files of before the adoption are away.
func (w *adopted) withoutForeign(f func()) {
	w.t.Helper()
	lake, err := w.p.catalog.Load(w.t.Context(), w.entry.Name)
	w.must(err)
	all, err := lake.Change().Files(w.t.Context())
	w.must(err)
	away := 0
	for _, file := range all {
		if path := localPath(file.Path); file.Predates(87) {
			away++
			w.must(os.Rename(path, path+".away"))
			defer func() { w.must(os.Rename(path+".away", path)) }()
		}
	}
	if away == 0 {
		w.t.Fatal("no change file is from before the adoption")
	}
	f()
}

// restart opens the data directory anew, as firn serve does, and closes it.
func restart(t *testing.T, config string) {
	t.Helper()
	p := openTestParts(t, config)
	s := &server{parts: parts{cfg: p.cfg, log: p.cfg.newLogger(nil, t.Output()), registry: p.registry, store: p.store, catalog: p.catalog}}
	if err := errors.Join(s.restoreTables(t.Context()), p.close()); err != nil {
		t.Fatal(err)
	}
}

// cutShort runs an adoption up to one of its steps: filled, claimed, marked.
func cutShort(t *testing.T, config, step string) {
	t.Helper()
	p := openTestParts(t, config)
	a := &adoption{parts: p, report: adoptReport{Table: adoptable}}
	ctx := t.Context()
	var entry *state.Table
	for _, s := range []struct {
		name string
		run  func() error
	}{
		{"checked", func() (err error) {
			if a.lake, err = p.catalog.Load(ctx, adoptable); err != nil {
				return err
			}
			return a.check(ctx, 0)
		}},
		{"registered", func() (err error) { entry, err = a.register(ctx); return err }},
		{"filled", func() error { return a.fill(ctx, entry) }},
		{"claimed", func() error { _, err := a.lake.ClaimEpoch(ctx, p.registry.WriterID(), 1); return err }},
		{"marked", func() error {
			epoch, err := a.lake.ClaimEpoch(ctx, p.registry.WriterID(), 1)
			if err != nil {
				return err
			}
			return a.lake.Adopt(ctx, table.FlushMark{CommitID: a.commit, Writer: p.registry.WriterID(), Epoch: epoch, From: a.report.Seq, To: a.report.Seq})
		}},
	} {
		if err := s.run(); err != nil {
			t.Fatal(err)
		}
		if s.name == step {
			break
		}
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
}

// TestAdoptCutShort: an adoption that ends at any step is completed by running it again; a start in between undoes it, or, once it is in the
// lake, completes it. Either way lookups and the lake agree, and the table is written on.
func TestAdoptCutShort(t *testing.T) {
	for _, step := range []string{"filled", "claimed", "marked"} {
		for _, then := range []string{"again", "start and again"} {
			t.Run(step+", "+then, func(t *testing.T) {
				_, config := amoroLake(t, "opt_minor_then_changes")
				cutShort(t, config, step)
				if strings.HasPrefix(then, "start") {
					restart(t, config)
					code, out, errText := firnVerb(t.Context(), "", "dump", adoptable, "--from", "index", "-c", config)
					if step != "marked" && code != exitNo || step == "marked" && out != said(t, "expected", "opt_minor_then_changes") {
						t.Errorf("after the start: exit %d %s", code, errText)
					}
				}
				firnOK(t, "table", "adopt", adoptable, "-c", config)
				p := openTestParts(t, config)
				if n := len(p.registry.Tables()); n != 1 {
					t.Errorf("%d tables", n)
				}
				w := newAdopted(t, p, adoptable, 3)
				w.verify("adopted")
				w.change(10)
				w.flush()
				w.check("adopted")
			})
		}
	}
}

// TestReleaseCutShort: a release that ends after the lake, or in the middle of it, is completed by running it again.
func TestReleaseCutShort(t *testing.T) {
	for _, step := range []string{"base store", "lake"} {
		t.Run(step, func(t *testing.T) {
			_, config := amoroLake(t, "opt_minor_then_changes")
			firnOK(t, "table", "adopt", adoptable, "-c", config)
			stop := errors.New("cut short")
			cfg := table.Options{URI: "catalog.db", Warehouse: "file:lake"}
			commits := 0
			cfg.Hook = func(_ context.Context, a table.Attempt, commit func() error) error {
				if commits++; step == "base store" && commits == 4 { // two claims, the base store
					return stop
				}
				return commit()
			}
			c, err := table.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			lake, err := c.Load(t.Context(), adoptable)
			if err != nil {
				t.Fatal(err)
			}
			if err := lake.Release(t.Context(), 87); errors.Is(err, stop) != (step == "base store") {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if step == "lake" {
				code, _, errText := firnVerb(t.Context(), "", "table", "adopt", adoptable, "-c", config)
				if code == 0 || !strings.Contains(errText, "run firn table release "+adoptable+" again") {
					t.Errorf("adopt: exit %d %s", code, errText)
				}
			}
			firnOK(t, "table", "release", adoptable, "-c", config)
			if out := firnOK(t, "table", "release", adoptable, "-c", config); !strings.Contains(out, "released before, at change 87") {
				t.Error(out)
			}
			if p := openTestParts(t, config); len(p.registry.Tables()) != 0 {
				t.Error("the table is still in the data directory")
			}
		})
	}
}

// TestAdoptOwned: a table that another firn has adopted or writes is not taken from it unasked.
func TestAdoptOwned(t *testing.T) {
	_, config := amoroLake(t, "opt_minor_then_changes")
	firnOK(t, "table", "adopt", adoptable, "-c", config)
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	other := "other.yaml"
	if err := os.WriteFile(other, []byte(strings.Replace(string(b), "data: data", "data: other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	adopt := func(want string, args ...string) {
		t.Helper()
		code, _, errText := firnVerb(t.Context(), "", append([]string{"table", "adopt", adoptable, "-c", other}, args...)...)
		if (code == 0) != (want == "") || !strings.Contains(errText, want) {
			t.Errorf("exit %d %s, want %q", code, errText, want)
		}
	}
	adopt("say --take-over")
	adopt("", "--take-over")
	w := newAdopted(t, openTestParts(t, config), adoptable, 4)
	w.change(1)
	if _, err := w.flusher.Flush(t.Context()); !errors.Is(err, state.ErrFenced) {
		t.Errorf("the first one writes on: %v", err)
	}
}

// TestAdoptBadRows: rows that no lookup could tell apart or be asked for, and rows without an offset, are refused by file.
func TestAdoptBadRows(t *testing.T) {
	long, text := changelog.Primitive(changelog.Long), changelog.Primitive(changelog.String)
	schema := &changelog.Schema{Columns: []changelog.Column{{ID: 1, Name: "id", Type: long}, {ID: 2, Name: "v", Type: text}}, Key: []int{1}, LastID: 2}
	if err := schema.Index(); err != nil {
		t.Fatal(err)
	}
	row := func(id int64) []changelog.Value { return []changelog.Value{{I: id}, {B: []byte("x")}} }
	for name, c := range map[string]struct {
		rows   [][]changelog.Value
		offset bool
		want   string
	}{
		"null key":  {[][]changelog.Value{row(1), {changelog.NullValue, {B: []byte("x")}}}, true, `row 1: key column "id" is null`},
		"doubles":   {[][]changelog.Value{row(1), row(2), row(1)}, true, "1 of its 3 rows have the key of another row"},
		"no offset": {[][]changelog.Value{row(1)}, false, "row 0 has no _file_offset"},
	} {
		t.Run(name, func(t *testing.T) {
			_, config := amoroLake(t, "empty")
			p := openTestParts(t, config)
			lake, err := p.catalog.Create(t.Context(), "amoro.bad", schema, nil)
			if err != nil {
				t.Fatal(err)
			}
			f := writeChanges(t, lake, schema, c.offset, c.rows)
			mark := table.FlushMark{CommitID: "c", Writer: "amoro", To: 3}
			if _, err := lake.AppendChanges(t.Context(), table.Commit{FlushMark: mark, Add: []table.NewFile{f}}); err != nil {
				t.Fatal(err)
			}
			if err := lake.Release(t.Context(), 0); err != nil { // firn has nothing to do with it any more
				t.Fatal(err)
			}
			head := metadataOf(t, "amoro.bad")
			_, err = p.adopt(t.Context(), "amoro.bad", false, false)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "adopt amoro.bad") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if name != "doubles" && !strings.Contains(err.Error(), filepath.Base(f.Path)) {
				t.Errorf("%v does not name the file", err)
			}
			if metadataOf(t, "amoro.bad") != head || len(p.registry.Tables()) != 0 {
				t.Error("it was written to")
			}
		})
	}
}

// writeChanges writes a change file of inserts.
func writeChanges(t *testing.T, lake *table.Table, schema *changelog.Schema, offset bool, rows [][]changelog.Value) table.NewFile {
	t.Helper()
	path := lake.Change().DataPath(mixed.FileName{Type: mixed.Insert, Op: table.NewOp(), Count: 1}.String())
	out, err := lake.FS().Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := datafile.NewWriter(out, schema, offset, datafile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		if err := w.WriteValues(r, int64(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	written, err := w.Close()
	if err == nil {
		err = out.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	return table.NewFile{Path: path, Schema: schema, Offset: offset, Rows: written.Rows, Bytes: written.Bytes, Footer: written.Metadata}
}
