package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/optimizer"
	"firn/state"
)

// edges returns values of a type where something could go wrong: null, the least, the greatest, and those about which encodings,
// bounds and their truncation turn.
func edges(t *changelog.Type) []changelog.Value {
	values := []changelog.Value{changelog.NullValue}
	ints := func(n ...int64) {
		for _, i := range n {
			values = append(values, changelog.Value{I: i})
		}
	}
	texts := func(s ...string) {
		for _, b := range s {
			values = append(values, changelog.Value{B: []byte(b)})
		}
	}
	switch t.Kind {
	case changelog.Boolean:
		ints(0, 1)
	case changelog.Int:
		ints(math.MinInt32, math.MaxInt32, 0, -1, 1)
	case changelog.Long:
		ints(math.MinInt64, math.MaxInt64, 0, -1, math.MaxUint32+1)
	case changelog.Float:
		for _, f := range []float32{float32(math.Inf(-1)), float32(math.Inf(1)), float32(math.NaN()), float32(math.Copysign(0, -1)), 0, math.MaxFloat32, math.SmallestNonzeroFloat32, -1.5} {
			values = append(values, changelog.FloatValue(f))
		}
	case changelog.Double:
		for _, f := range []float64{math.Inf(-1), math.Inf(1), math.NaN(), math.Copysign(0, -1), 0, math.MaxFloat64, math.SmallestNonzeroFloat64, -1.5} {
			values = append(values, changelog.DoubleValue(f))
		}
	case changelog.Decimal:
		most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)
		most.Sub(most, big.NewInt(1))
		for _, n := range []*big.Int{new(big.Int).Neg(most), most, big.NewInt(0), big.NewInt(1), big.NewInt(-1)} {
			values = append(values, changelog.Value{B: changelog.AppendBigInt(nil, n)})
		}
	case changelog.Date: // years 1 and 9999: not every reader shows others
		ints(-719162, 2932896, 0, -1, -141428)
	case changelog.Time:
		ints(0, 86_399_999_999, 1, 43_200_000_000)
	case changelog.Timestamp, changelog.TimestampTZ:
		ints(-62_135_596_800_000_000, 253_402_300_799_999_999, 0, -1, 1)
	case changelog.String:
		texts("", "a", strings.Repeat("x", 16), strings.Repeat("x", 17), strings.Repeat("\U0010FFFF", 17), strings.Repeat("é", 15)+"\uD7FF!", "\x00\n\"\\\u2028", strings.Repeat("long ", 1000))
	case changelog.UUID:
		texts(strings.Repeat("\x00", 16), strings.Repeat("\xff", 16), "\x80"+strings.Repeat("\x00", 15), "\x7f"+strings.Repeat("\xff", 15))
	case changelog.Fixed:
		texts(strings.Repeat("\x00", t.Length), strings.Repeat("\xff", t.Length), "\x80"+strings.Repeat("\x01", t.Length-1))
	case changelog.Binary:
		texts("", "\x00", strings.Repeat("\xff", 16), strings.Repeat("\xff", 17), "\x01"+strings.Repeat("\xff", 20), strings.Repeat("\x80\x00", 3000))
	default:
		panic("no edges of " + t.String())
	}
	return values
}

// everyType returns all types of Iceberg v2 that are not nested: fixed of several lengths, decimals of each physical type's first and
// last precision, or with FIRN_TYPES_DIR of every precision.
func everyType() []*changelog.Type {
	precisions := []int{1, 9, 10, 18, 19, 38}
	if os.Getenv("FIRN_TYPES_DIR") != "" {
		precisions = precisions[:0]
		for p := 1; p <= 38; p++ {
			precisions = append(precisions, p)
		}
	}
	var types []*changelog.Type
	for k := changelog.Boolean; k <= changelog.Binary; k++ {
		if k != changelog.Decimal && k != changelog.Fixed {
			types = append(types, changelog.Primitive(k))
		}
	}
	for _, p := range precisions {
		types = append(types, changelog.DecimalOf(p, p*(p%3)/2)) // scales none, half and all of it
	}
	for _, n := range []int{1, 8, 17} {
		types = append(types, &changelog.Type{Kind: changelog.Fixed, Length: n})
	}
	return types
}

// position is a place that a type has in a column: the column's type, and a value of it from values of the type.
type position struct {
	name  string
	typ   func(t *changelog.Type) *changelog.Type
	value func(col, t *changelog.Type, v []changelog.Value) changelog.Value // v[0] is the row's; the rest are others
}

func member(t *changelog.Type, required bool) *changelog.Type {
	return &changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{{Name: "m", Type: t}, {Name: "n", Type: changelog.Primitive(changelog.Int), Required: required}}}
}

func positions() []position {
	structOf := func(t *changelog.Type, v changelog.Value, n int64) changelog.Value {
		return changelog.Value{B: changelog.AppendStruct(nil, t, []changelog.Value{v, {I: n}})}
	}
	return []position{
		{"top", func(t *changelog.Type) *changelog.Type { return t }, func(_, _ *changelog.Type, v []changelog.Value) changelog.Value { return v[0] }},
		{"member", func(t *changelog.Type) *changelog.Type { return member(member(t, true), false) }, func(col, _ *changelog.Type, v []changelog.Value) changelog.Value {
			return structOf(col, structOf(col.Fields[0].Type, v[0], 7), 8)
		}},
		{"element", changelog.ListOf, func(col, _ *changelog.Type, v []changelog.Value) changelog.Value {
			return changelog.Value{B: changelog.AppendList(nil, col, v[:len(v)-1])}
		}},
		{"key", func(t *changelog.Type) *changelog.Type { return changelog.MapOf(t, changelog.Primitive(changelog.Int)) }, func(col, _ *changelog.Type, v []changelog.Value) changelog.Value {
			if v[0].Null {
				return changelog.NullValue
			}
			return changelog.Value{B: changelog.AppendMap(nil, col, v[:1], []changelog.Value{{I: 3}})}
		}},
		{"value", func(t *changelog.Type) *changelog.Type {
			return changelog.MapOf(changelog.Primitive(changelog.String), changelog.ListOf(member(t, false)))
		}, func(col, _ *changelog.Type, v []changelog.Value) changelog.Value {
			list := col.Fields[1].Type
			inner := changelog.Value{B: changelog.AppendList(nil, list, []changelog.Value{structOf(list.Fields[0].Type, v[0], 1), changelog.NullValue, structOf(list.Fields[0].Type, v[1], 2)})}
			return changelog.Value{B: changelog.AppendMap(nil, col, []changelog.Value{{B: []byte("")}, {B: []byte("k")}}, []changelog.Value{inner, changelog.NullValue})}
		}},
	}
}

// typesTable is a table with a column for each type in each place, and rows that walk through the types' edges.
type typesTable struct {
	*shopRig
	schema *changelog.Schema
	places []position
	types  []*changelog.Type
	rows   map[int64][]changelog.Value
}

func newTypesTable(t *testing.T, r *shopRig) *typesTable {
	tt := &typesTable{shopRig: r, places: positions(), types: everyType(), rows: map[int64][]changelog.Value{}}
	columns := []changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Long)}}
	for i, typ := range tt.types {
		for _, p := range tt.places {
			columns = append(columns, changelog.Column{Name: fmt.Sprintf("c%d_%s", i, p.name), Type: p.typ(typ)})
		}
	}
	tt.schema = must(changelog.NewSchema(columns, []string{"id"}))
	tt.table = must(r.reg.Create(t.Context(), "shop.types", tt.schema, state.TopicRef{Source: "shop", Topic: "types"}, nil))
	return tt
}

// values returns row number n: each column has the nth edge of its type.
func (tt *typesTable) values(id, n int64) []changelog.Value {
	values := []changelog.Value{{I: id}}
	for i, typ := range tt.types {
		all := edges(typ)
		for range (int(n) + i) % 2 { // not in step with each other
			all = append(all[1:], all[0])
		}
		at := int(n) % len(all)
		turned := append(slices.Clone(all[at:]), all[:at]...)
		for p, place := range tt.places {
			values = append(values, place.value(tt.schema.Columns[1+i*len(tt.places)+p].Type, typ, turned))
		}
	}
	return values
}

// put upserts rows with the ids, each with the edges from n on; a negative id deletes.
func (tt *typesTable) put(n int64, ids ...int64) {
	tt.t.Helper()
	var changes []changelog.Change
	for i, id := range ids {
		values := tt.values(max(id, -id), n+int64(i))
		c := changelog.Change{Op: changelog.OpUpdate, Key: tt.schema.KeyOf(nil, values), Position: changelog.Position{Source: "shop", Topic: "types", Offset: tt.offset}}
		if before, ok := tt.rows[max(id, -id)]; ok {
			c.Before = changelog.AppendRow(nil, tt.schema, before)
		}
		if c.After, tt.rows[id] = changelog.AppendRow(nil, tt.schema, values), values; id < 0 {
			c.Op, c.After = changelog.OpDelete, nil
			delete(tt.rows, id)
			delete(tt.rows, -id)
		}
		changes = append(changes, c)
		tt.offset++
	}
	must(tt.store.Append(tt.t.Context(), changelog.Append{Tables: []changelog.TableAppend{{Table: tt.table.ID, Changes: changes}}}))
}

// want returns the rows as dump shows them.
func (tt *typesTable) want() string {
	e := must(rowjson.NewEncoder(changelog.Schemas{tt.schema}, rowjson.Options{Sorted: true}))
	var lines []string
	for _, values := range tt.rows {
		lines = append(lines, string(must(e.AppendValues(nil, values)))+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (tt *typesTable) dump(when, want string, from ...string) {
	tt.t.Helper()
	for _, from := range from {
		code, out, errOut := tt.firn("", "dump", "shop.types", "--from", from, "--server", tt.at(), "--catalog-uri", tt.uri())
		if code != 0 || out != want {
			tt.t.Fatalf("%s, --from %s: %d %s\n%s", when, from, code, partingOf(out, want), errOut)
		}
	}
}

// partingOf shows about where two long texts part.
func partingOf(got, want string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	cut := func(s string) string { return s[max(0, i-60):min(len(s), i+60)] }
	return fmt.Sprintf("%d and %d bytes, from %d on: got …%s…, want …%s…", len(got), len(want), i, cut(got), cut(want))
}

// optimize runs a round that has something to do: two small files are enough for a major one.
func (tt *typesTable) optimize(kind optimizer.Type) {
	tt.t.Helper()
	o := must(optimizer.New(tt.catalog, tt.reg, optimizer.Options{Rules: optimizer.Rules{FanIn: 2}}))
	r, err := o.Once(tt.t.Context(), "shop.types", kind, false)
	if err != nil || len(r.Done) == 0 {
		tt.t.Fatalf("%s: %v, %v", kind, r, err)
	}
}

// TestEveryType takes every type of Iceberg v2, with its edges and in every place that a type can have, from the log through
// flushes, minor, major and full rounds, and through the feed: each reader shows what went in. With FIRN_TYPES_DIR the lake stays in that directory,
// beside the rows that a reader of the base store must show (types.base.jsonl): deploy/e2e/types.sh has others look.
func TestEveryType(t *testing.T) {
	r := newShopRigIn(t, typesDir(t))
	tt := newTypesTable(t, r)
	ids := func(from, to int64) (all []int64) {
		for id := from; id <= to; id++ {
			all = append(all, id)
		}
		return all
	}
	tt.put(0, ids(1, 12)...)
	tt.dump("in the log", tt.want(), "index", "log")
	tt.flush()
	tt.dump("flushed", tt.want(), "merged", "union")
	tt.optimize(optimizer.Minor)
	tt.dump("after minor", tt.want(), "base", "merged", "union")
	base := tt.want()
	tt.put(5, append(ids(3, 8), -1, -2)...)
	tt.put(9, 2, 13, 14)
	tt.flush()
	tt.dump("updated", base, "base")
	tt.dump("updated", tt.want(), "merged", "union", "index")
	tt.optimize(optimizer.Minor)
	tt.dump("after the second minor", tt.want(), "base", "merged")
	tt.put(2, 15, 16, 17)
	tt.flush()
	tt.optimize(optimizer.Minor)
	if code, _, text := tt.verify("shop.types", "--server", tt.at(), "--catalog-uri", tt.uri()); code != 0 {
		t.Errorf("verify: %d\n%s", code, text)
	}
	tt.optimize(optimizer.Major)
	tt.dump("after major", tt.want(), "base", "merged", "union")
	tt.put(7, 16, 18, -1)
	tt.flush()
	tt.optimize(optimizer.Minor)
	tt.optimize(optimizer.Full)
	tt.dump("after full", tt.want(), "base", "merged", "union")
	tt.feed()
	if dir := os.Getenv("FIRN_TYPES_DIR"); dir != "" {
		r.must(os.WriteFile(filepath.Join(dir, "types.base.jsonl"), []byte(tt.want()), 0o600))
	}
}

// images returns the before and after images of all changes, as a feed has them.
func (tt *typesTable) images() (lines []string) {
	tt.t.Helper()
	code, out, errOut := tt.firn("", "tail", "shop.types", "--server", tt.at(), "--from", "earliest", "--no-follow")
	if code != 0 {
		tt.t.Fatalf("tail: %d %s", code, errOut)
	}
	for line := range strings.Lines(out) {
		var c struct {
			Seq                int64
			Key, Before, After json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			tt.t.Fatal(err)
		}
		if c.Key != nil {
			lines = append(lines, fmt.Sprintf("%d %s %s %s", c.Seq, c.Key, c.Before, c.After))
		}
	}
	return lines
}

// feed checks that a feed has all changes with their images, the last of each key being its row, from the log and from change files.
func (tt *typesTable) feed() {
	tt.t.Helper()
	images := tt.images()
	if len(images) != int(tt.offset) {
		tt.t.Fatalf("%d changes in the feed of %d", len(images), tt.offset)
	}
	e := must(rowjson.NewEncoder(changelog.Schemas{tt.schema}, rowjson.Options{}))
	for id, values := range tt.rows {
		want := " " + string(must(e.AppendValues(nil, values)))
		last := ""
		for _, line := range images {
			if strings.Contains(line, fmt.Sprintf(` {"id":%d} `, id)) {
				last = line
			}
		}
		if !strings.HasSuffix(last, want) {
			tt.t.Errorf("feed of %d: %s", id, partingOf(last, want))
		}
	}
	tt.must(tt.store.Trim(tt.t.Context(), tt.table.ID, changelog.SeqNum(tt.offset-1))) //nolint:gosec // few
	files := tt.images()
	if got, want := strings.Join(files, "\n"), strings.Join(images, "\n"); got != want {
		tt.t.Errorf("feed from change files: %s", partingOf(got, want))
	}
}

// typesDir is where the lakes of the tests of types are.
func typesDir(t *testing.T) string {
	if dir := os.Getenv("FIRN_TYPES_DIR"); dir != "" {
		return dir
	}
	return t.TempDir()
}
