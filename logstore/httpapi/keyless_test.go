package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"firn/changelog"
	"firn/state"
)

// keyless adds shop.visits, a table without a key, to a rig.
func keyless(r *rig) *state.Table {
	schema, err := changelog.NewSchema([]changelog.Column{{Name: "page", Type: prim(changelog.String)}, {Name: "n", Type: prim(changelog.Long)}}, nil)
	r.must(err)
	t, err := r.reg.Create(r.t.Context(), "shop.visits", schema, state.TopicRef{Source: "shop", Topic: "visits"}, nil)
	r.must(err)
	return t
}

// TestKeyless: a table without a key answers lookups with a problem that says where its rows are; its changes and what the
// log knows of its rows are there.
func TestKeyless(t *testing.T) {
	for _, keys := range []int{0, 1} { // the dump in one pass, in many
		r := newRig(t, func(o *Options) { o.Lake, o.DumpKeys = fakeLake{}, keys })
		v := keyless(r)
		row := func(page string, n int64) changelog.Row {
			return changelog.AppendRow(nil, v.Schemas[0], []changelog.Value{{B: []byte(page)}, {I: n}})
		}
		var cs []changelog.Change
		add := func(op changelog.Op, before, after changelog.Row) {
			cs = append(cs, changelog.Change{Op: op, Before: before, After: after, Position: changelog.Position{Source: "shop", Topic: "visits", Offset: int64(len(cs))}})
		}
		add(changelog.OpCreate, nil, row("old", 1))
		add(changelog.OpTruncate, nil, nil)
		add(changelog.OpCreate, nil, row("a", 1))
		add(changelog.OpCreate, nil, row("a", 1))
		add(changelog.OpCreate, nil, row("b", 2))
		add(changelog.OpUpdate, row("a", 1), row("a", 3))
		add(changelog.OpDelete, row("b", 2), nil)
		add(changelog.OpDelete, row("gone", 9), nil)
		add(changelog.OpCreate, nil, row("gone", 9))
		_, err := r.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: v.ID, Changes: cs}}})
		r.must(err)

		for _, path := range []string{"/rows/1", "/rows", "/dump?from=index", "/changes?from=snapshot&follow=false"} {
			a := r.get("/v1/tables/shop.visits" + path)
			if slug, detail := r.problem(a); a.status != 400 || slug != "no-key" || !strings.Contains(detail, "firn dump") {
				t.Errorf("%s: %d %s %s", path, a.status, slug, detail)
			}
		}
		a := r.do("POST", "/v1/tables/shop.visits/rows:get", `{"keys":[[1]]}`)
		if slug, _ := r.problem(a); a.status != 400 || slug != "no-key" {
			t.Errorf("rows:get: %d %s", a.status, slug)
		}
		if got := sorted(r.get("/v1/tables/shop.visits/dump?from=log").body); got != `{"n":1,"page":"a"} {"n":3,"page":"a"} {"n":9,"page":"gone"}` {
			t.Errorf("dump of the log: %s", got)
		}
		if got := sorted(r.get("/v1/tables/shop.visits/dump?from=log&columns=page").body); got != `{"page":"a"} {"page":"a"} {"page":"gone"}` {
			t.Errorf("dump of one column: %s", got)
		}
		feed := r.get("/v1/tables/shop.visits/changes?from=earliest&follow=false").body
		lines := strings.Split(strings.TrimSpace(feed), "\n")
		if len(lines) != 9 || lines[1] != `{"truncate":2}` || !strings.Contains(lines[5], `"seq":6,"op":"u","key":null,"before":{"page":"a","n":1},"after":{"page":"a","n":3}`) {
			t.Errorf("feed:\n%s", feed)
		}
		if got := r.get("/v1/tables").body; !strings.Contains(got, `"name":"shop.visits","format":"mixed-iceberg","key":[],"applied":9,"flushed":0,"optimized":0,"rows":7`) {
			t.Errorf("tables: %s", got)
		}
	}
}

// TestKeylessTrimmed: a feed from before the log's begin is told where the rows are.
func TestKeylessTrimmed(t *testing.T) {
	r := newRig(t, nil)
	v := keyless(r)
	for i := range int64(3) {
		row := changelog.AppendRow(nil, v.Schemas[0], []changelog.Value{{B: []byte("x")}, {I: i}})
		_, err := r.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: v.ID, Changes: []changelog.Change{{Op: changelog.OpCreate, After: row}}}}})
		r.must(err)
	}
	r.must(r.reg.UpdateProgress(t.Context(), v.ID, func(p *state.Progress) { p.Flushed, p.Optimized = 2, 2 }))
	r.must(r.store.Trim(t.Context(), v.ID, 2))
	a := r.get("/v1/tables/shop.visits/changes?from=seq:0&follow=false")
	if slug, detail := r.problem(a); a.status != 410 || slug != "changes-trimmed" || !strings.Contains(detail, "the rows are in the lake") {
		t.Errorf("%d %s %s", a.status, slug, detail)
	}
	if got := r.get("/v1/tables/shop.visits/changes?from=seq:2&follow=false"); got.status != 200 || strings.Count(got.body, "seq") != 1 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := fmt.Sprint(r.get("/v1/tables").body); !strings.Contains(got, `"rows":null`) {
		t.Errorf("without a lake: %s", got)
	}
}
