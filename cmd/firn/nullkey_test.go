package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/optimizer"
	"firn/state"
)

// TestNullKeyTable: a table whose key columns may be null, as those that others have made, keeps its rows apart in log, change files
// and base files, in one and in several tree nodes: nulls equal each other and nothing else.
func TestNullKeyTable(t *testing.T) {
	r := newShopRig(t)
	schema := &changelog.Schema{Columns: []changelog.Column{
		{ID: 1, Name: "a", Type: changelog.Primitive(changelog.Long)}, {ID: 2, Name: "b", Type: changelog.Primitive(changelog.Double)}, {ID: 3, Name: "v", Type: changelog.Primitive(changelog.Int)},
	}, Key: []int{2, 1}, LastID: 3}
	r.must(schema.Index())
	r.table = must(r.reg.Create(t.Context(), "shop.nulls", schema, state.TopicRef{Source: "shop", Topic: "nulls"}, map[string]string{
		"base.file-index.hash-bucket": "4", "change.file-index.hash-bucket": "4",
	}))
	rows := map[string]string{}
	value := map[string]changelog.Value{
		"null": changelog.NullValue, "0": {I: 0}, "1": {I: 1}, "-1": {I: -1}, "0.5": changelog.DoubleValue(0.5), "-0": changelog.DoubleValue(math.Copysign(0, -1)),
		`"NaN"`: changelog.DoubleValue(math.NaN()),
	}
	put := func(v int64, keys ...string) { // "a b"; a sign before it deletes
		t.Helper()
		var changes []changelog.Change
		for _, k := range keys {
			k, del := strings.CutPrefix(k, "!")
			a, b, _ := strings.Cut(k, " ")
			values := []changelog.Value{value[a], value[b], {I: v}}
			c := changelog.Change{Op: changelog.OpUpdate, Key: schema.KeyOf(nil, values), After: changelog.AppendRow(nil, schema, values), Position: changelog.Position{Source: "shop", Topic: "nulls", Offset: r.offset}}
			rows[k] = fmt.Sprintf(`{"a":%s,"b":%s,"v":%d}`+"\n", a, b, v)
			if del {
				c.Op, c.After = changelog.OpDelete, nil
				delete(rows, k)
			}
			changes = append(changes, c)
			r.offset++
		}
		must(r.store.Append(t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: r.table.ID, Changes: changes}}}))
	}
	check := func(when string, from ...string) {
		t.Helper()
		want := strings.Join(slices.Sorted(maps.Values(rows)), "")
		for _, from := range from {
			if code, out, errOut := r.firn("", "dump", "shop.nulls", "--from", from, "--server", r.at(), "--catalog-uri", r.uri()); code != 0 || out != want {
				t.Errorf("%s, --from %s: %d %s%s, want %s", when, from, code, out, errOut, want)
			}
		}
	}
	round := func(kind optimizer.Type) {
		t.Helper()
		must(must(optimizer.New(r.catalog, r.reg, optimizer.Options{})).Once(t.Context(), "shop.nulls", kind, false))
	}
	put(1, "null null", "0 null", "1 null", "-1 null", "null 0", "0 0", "null 0.5", "null -0", `null "NaN"`, `1 "NaN"`)
	r.flush()
	check("flushed", "index", "log", "merged", "union")
	round(optimizer.Minor)
	check("after minor", "base", "merged")
	put(2, "null null", "!0 null", `null "NaN"`, "null 0", "!null -0")
	r.flush()
	check("updated", "index", "merged", "union")
	put(3, "0 null", "!null null")
	r.flush()
	round(optimizer.Minor)
	check("after the second minor", "base", "merged", "index")
	round(optimizer.Full)
	check("after full", "base", "merged")
	if code, out, errOut := r.firn("", "get", "shop.nulls", "*,0", "--json", "--server", r.at()); code != 0 || !strings.Contains(out, `"v":3`) {
		t.Errorf("get: %d %s%s", code, out, errOut)
	}
}
