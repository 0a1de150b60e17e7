package main

import (
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/table"
	"firn/state"
)

// keyless makes shop.visits, a table without a key, the rig's, with partitions by the given terms.
func (r *shopRig) keyless(terms ...string) {
	r.t.Helper()
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "page", Type: changelog.Primitive(changelog.String)}, {Name: "n", Type: changelog.Primitive(changelog.Long)},
	}, nil)
	r.must(err)
	spec, err := changelog.ParsePartition(terms)
	r.must(err)
	r.table, err = r.reg.CreatePartitioned(r.t.Context(), "shop.visits", schema, spec, state.TopicRef{Source: "shop", Topic: "visits"}, nil)
	r.must(err)
}

// visit appends changes: "+a1" puts a row in, "-a1" takes one out, "t" is a truncate.
func (r *shopRig) visit(changes ...string) {
	r.t.Helper()
	a := changelog.TableAppend{Table: r.table.ID}
	for _, c := range changes {
		change := changelog.Change{Op: changelog.OpTruncate, Position: changelog.Position{Source: "shop", Topic: "visits", Offset: r.offset}}
		r.offset++
		if c != "t" {
			row := changelog.AppendRow(nil, r.table.Schemas.Current(), []changelog.Value{{B: []byte(c[1:2])}, {I: int64(c[2] - '0')}})
			if change.Op, change.After = changelog.OpCreate, row; c[0] == '-' {
				change.Op, change.Before, change.After = changelog.OpDelete, row, nil
			}
		}
		a.Changes = append(a.Changes, change)
	}
	_, err := r.store.Append(r.t.Context(), changelog.Append{
		Tables:    []changelog.TableAppend{a},
		Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "shop", Topic: "visits"}, Next: r.offset}},
	})
	r.must(err)
}

// TestKeylessVerbs: what dump, table and verify say of a table without a key, with a server and without one.
func TestKeylessVerbs(t *testing.T) {
	for name, terms := range map[string][]string{"plain": nil, "partitions": {"page", "bucket(2, n)"}} {
		t.Run(name, func(t *testing.T) { keylessVerbs(t, terms...) })
	}
}

func keylessVerbs(t *testing.T, terms ...string) {
	r := newShopRig(t)
	r.keyless(terms...)
	r.visit("+x1", "t", "+a1", "+a1", "+b2")
	r.flush()
	r.visit("-a1", "+c3")
	r.flush()
	r.visit("+d4", "-b2", "-z9", "+a1")
	const base = `{"n":1,"page":"a"} {"n":2,"page":"b"} {"n":3,"page":"c"}`
	const now = `{"n":1,"page":"a"} {"n":1,"page":"a"} {"n":3,"page":"c"} {"n":4,"page":"d"}`
	check := func(args ...string) {
		t.Helper()
		for _, tc := range []struct{ from, want string }{{"base", base}, {"merged", base}, {"union", now}, {"log", now}} {
			code, out, errOut := r.firn("", append([]string{"dump", "shop.visits", "--from", tc.from}, args...)...)
			if got := strings.Join(strings.Fields(out), " "); code != 0 || got != tc.want {
				t.Errorf("--from %s: %d %s, want %s\n%s", tc.from, code, got, tc.want, errOut)
			}
		}
		code, out, _ := r.firn("", append([]string{"dump", "shop.visits", "--from", "union", "--columns", "page"}, args...)...)
		if got := strings.Join(strings.Fields(out), " "); code != 0 || got != `{"page":"a"} {"page":"a"} {"page":"c"} {"page":"d"}` {
			t.Errorf("one column: %d %s", code, got)
		}
		for _, from := range []string{"index", "change"} {
			if code, out, errOut := r.firn("", append([]string{"dump", "shop.visits", "--from", from}, args...)...); code == 0 || out != "" || !strings.Contains(errOut, "no key") {
				t.Errorf("--from %s: %d %q %q", from, code, out, errOut)
			}
		}
		if code, checks, text := r.verify(append([]string{"shop.visits"}, args...)...); code != 0 || !strings.HasPrefix(checks["rows"].Detail, "3 rows of the lake at 7") {
			t.Errorf("verify: %d\n%s", code, text)
		}
	}
	check("--server", r.at(), "--catalog-uri", r.uri())
	config := r.config()
	r.close()
	check("-c", config)
	if code, out, errOut := r.firn("", "table", "files", "shop.visits", "-c", config); code != 0 || strings.Count(out, "base") < 2 || !strings.Contains(out, "position-delete") {
		t.Errorf("table files: %d %s%s", code, out, errOut)
	}
}

// TestKeylessVerifyFinds: a row that a rewrite has lost, doubled or brought back shows, also when the log has been trimmed.
func TestKeylessVerifyFinds(t *testing.T) {
	for _, trimmed := range []bool{false, true} {
		for _, tc := range []struct {
			name string
			rows string // what the rewrite leaves
			want string
		}{
			{"right", "a1 b2 c3", ""},
			{"lost", "a1 c3", `not in the lake, 1 times by the log`},
			{"doubled", "a1 a1 b2 c3", "2 times in the lake, 1 times by the log"},
			{"revived", "a1 b2 c3 x1", `1 times in the lake, not by the log`},
		} {
			t.Run(fmt.Sprintf("%s/trimmed=%t", tc.name, trimmed), func(t *testing.T) {
				r := newShopRig(t)
				r.keyless()
				r.visit("+x1", "t", "+a1", "+a1")
				r.flush()
				r.visit("+b2")
				r.flush()
				r.visit("-a1", "+c3")
				r.flush()
				r.rewrite(strings.Fields(tc.rows)...)
				if trimmed {
					r.must(r.store.Trim(t.Context(), r.table.ID, 5))
				}
				code, checks, text := r.verify("--server", r.at(), "--catalog-uri", r.uri(), "shop.visits")
				rows := checks["rows"]
				if (code == 0) != (tc.want == "") || rows.OK != (tc.want == "") || !strings.Contains(text, tc.want) {
					t.Errorf("%d\n%s", code, text)
				}
				if from := "at 0 and 7 changes"; strings.Contains(rows.Detail, from) == trimmed {
					t.Errorf("detail %s", rows.Detail)
				}
			})
		}
	}
}

// rewrite replaces all base files of the rig's table by one with the given rows.
func (r *shopRig) rewrite(rows ...string) {
	r.t.Helper()
	lake, err := r.catalog.Load(r.t.Context(), r.table.Name)
	r.must(err)
	files, err := lake.Base().Files(r.t.Context())
	r.must(err)
	path := lake.Base().DataPath("1-B-0-00000-0-1-00001.parquet")
	out, err := r.catalog.FS().Create(path)
	r.must(err)
	w, err := datafile.NewWriter(out, r.table.Schemas[0], false, datafile.Options{})
	r.must(err)
	for _, row := range rows {
		r.must(w.WriteValues([]changelog.Value{{B: []byte(row[:1])}, {I: int64(row[1] - '0')}}, 0))
	}
	done, err := w.Close()
	r.must(err)
	r.must(out.Commit())
	epoch, err := lake.Epoch()
	r.must(err)
	c := table.BaseCommit{ID: "rewrite", Epoch: epoch, Replace: true, Add: []table.NewFile{{
		Path: path, Schema: r.table.Schemas[0], Rows: done.Rows, Bytes: done.Bytes, Footer: done.Metadata,
	}}}
	for _, f := range files {
		if f.Content == table.Data {
			c.Remove = append(c.Remove, f)
		} else {
			c.RemoveDeletes = append(c.RemoveDeletes, f)
		}
	}
	_, err = lake.CommitBase(r.t.Context(), c)
	r.must(err)
}
