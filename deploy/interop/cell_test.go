package interop

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"

	"firn/changelog"
)

// cell is one table shape of the matrix, run once a seed.
type cell struct {
	key  string // of keys, or unkeyed
	part string // of partitionings
	evo  string // of evolutions
}

const unkeyed = "unkeyed"

func (c cell) String() string { return "key=" + c.key + " part=" + c.part + " evo=" + c.evo }

// column is a column of a cell's tables and the values that it takes. Few, so that keys meet and partitions fill.
type column struct {
	name   string
	typ    *changelog.Type
	values []any // what boxed returns; a key column with nil among them is optional
}

func prim(k changelog.Kind) *changelog.Type { return changelog.Primitive(k) }

// keys are the types of key, by name. What is not here, and why, is in unfit.
var keys = []struct {
	name    string
	columns []column
}{
	{"int", []column{keyColumn("k", prim(changelog.Int), ints(math.MinInt32, math.MaxInt32)...)}},
	{"long", []column{keyColumn("k", prim(changelog.Long), ints(math.MinInt64, math.MaxInt64)...)}},
	{"string", []column{keyColumn("k", prim(changelog.String), oddTexts...)}},
	{"decimal(9,2)", []column{keyColumn("k", changelog.DecimalOf(9, 2), decimals("0", "1", "-1", "100", "-10050", "999999999", "-999999999", "12", "120")...)}},
	{"decimal(38,10)", []column{keyColumn("k", changelog.DecimalOf(38, 10),
		decimals("0", "1", "-1", "10000000000", "-18446744073709551616", strings.Repeat("9", 38), "-"+strings.Repeat("9", 38), "123456789012345678901")...)}},
	{"date", []column{keyColumn("k", prim(changelog.Date), integers(0, -1, 1, 19_000, -135_140, 2_932_896, 20_500)...)}},
	{"timestamp", []column{keyColumn("k", prim(changelog.Timestamp), moments...)}},
	{"timestamptz", []column{keyColumn("k", prim(changelog.TimestampTZ), moments...)}},
	{"time", []column{keyColumn("k", prim(changelog.Time), integers(0, 1, 86_399_999_999, 3_600_000_000, 43_200_000_001)...)}},
	{"boolean,int", []column{
		{"k", prim(changelog.Boolean), []any{true, false}}, {"k2", prim(changelog.Int), integers(-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)},
	}},
	{"float", []column{keyColumn("k", prim(changelog.Float), float32(0), float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)),
		float32(math.Inf(-1)), float32(0.1), float32(-1.5), float32(math.MaxFloat32), float32(math.SmallestNonzeroFloat32))}},
	{"double", []column{keyColumn("k", prim(changelog.Double), 0.0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 0.1, -1.5,
		math.MaxFloat64, math.SmallestNonzeroFloat64, 1e21)}},
	{"uuid as text", []column{keyColumn("k", prim(changelog.String), "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"f79c3e09-677c-4bbd-a479-3f349cb785e7", "7fffffff-ffff-ffff-8000-000000000000")}},
	{"int,string", []column{{"k", prim(changelog.Int), integers(-1, 0, 7)}, {"k2", prim(changelog.String), []any{"", "a", "ä/%", "a\x01", "b", "c", "d", "日本", "e", "f"}}}},
	{"long,date,string", []column{
		{"k", prim(changelog.Long), integers(math.MinInt64, 5)},
		{"k2", prim(changelog.Date), integers(-1, 20_000, 20_001)},
		{"k3", prim(changelog.String), []any{"x", "日本", "x,y", "y", "z"}},
	}},
	{"string or null", []column{keyColumn("k", prim(changelog.String), nil, "", "null", "a", "日本")}},
	{"int or null,string or null", []column{
		{"k", prim(changelog.Int), []any{nil, int64(0), int64(-7)}},
		{"k2", prim(changelog.String), []any{nil, "", "null", "a", "ä/%", "b", "c", "d", "日本", "e", "f"}},
	}},
}

// unfit are key types of the spec that have no cells, each with its reason.
var unfit = [][2]string{
	{"uuid, binary, fixed", "Amoro loses their deletes in Parquet (spec 6.2); as text, which design section 7 makes of them, they are the cells of string and uuid as text"},
}

var (
	oddTexts = []any{"", "a", "héllo", "日本語", "😀", "a/b", "50%", "100%25", "x=1", "a+b c", "null ", "..", "~*'\"\\", "tab\tnl\n", "longer than eight bytes"}
	// Midnight, the moment before it, before 1970, far ahead.
	moments = integers(0, 86_400_000_000, 86_399_999_999, -1, -86_400_000_001, 1_700_000_000_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000)
)

// keyColumn adds plain values to the odd ones, so that a flush leaves most rows alone: base files then get position deletes.
func keyColumn(name string, t *changelog.Type, values ...any) column {
	for i := range int64(24) {
		switch t.Kind {
		case changelog.Boolean:
		case changelog.Float:
			values = append(values, float32(i)+0.25)
		case changelog.Double:
			values = append(values, float64(i)+0.25)
		case changelog.Decimal:
			values = append(values, big.NewInt(1000+7*i))
		case changelog.String:
			values = append(values, fmt.Sprintf("key %d", i))
		default:
			values = append(values, 1000+i)
		}
	}
	return column{name, t, values}
}

func ints(least, most int64) []any { return integers(0, 1, -1, 2, 3, 42, -2_147_483_617, least, most) }

func integers(n ...int64) []any {
	out := make([]any, len(n))
	for i := range n {
		out[i] = n[i]
	}
	return out
}

func decimals(unscaled ...string) []any {
	out := make([]any, len(unscaled))
	for i, s := range unscaled {
		n, _ := new(big.Int).SetString(s, 10)
		out[i] = n
	}
	return out
}

// payload are the columns beside the key. Partitions are of s, i, b, dec, ts, tz and dt; the rest evolves.
func payload() []column {
	long := integers(math.MinInt32, -1, 0, 7, math.MaxInt32)
	return []column{
		{"s", prim(changelog.String), []any{"a", "ab", "äb/c", "50%25", "x=y&z", "", "~*+ '"}},
		{"i", prim(changelog.Int), integers(-11, -1, 0, 9, 10)},
		{"b", prim(changelog.Boolean), []any{true, false}},
		{"dec", changelog.DecimalOf(9, 2), decimals("0", "-150", "149", "1050")},
		{"ts", prim(changelog.Timestamp), integers(-1, 0, 1_700_000_000_123_456, 1_700_000_000_123_457, 1_700_090_000_000_000)},
		{"tz", prim(changelog.TimestampTZ), integers(-3_600_000_001, 0, 1_700_000_000_000_000, 1_700_003_600_000_000)},
		{"dt", prim(changelog.Date), integers(-1, 0, 19_675, 19_700)},
		{"n", prim(changelog.Int), long},
		{"f", prim(changelog.Float), []any{float32(0.1), float32(-0.5), float32(math.Inf(1)), float32(1e-30)}},
		{"d", changelog.DecimalOf(9, 4), decimals("1", "-999999999", "123450000")},
		{"x", prim(changelog.String), []any{"gone", "going"}},
		{"r", prim(changelog.String), []any{"one", "two", "three"}},
		{"l", changelog.ListOf(prim(changelog.Int)), []any{[]any{}, []any{int64(1), nil, int64(-3)}, []any{int64(7)}}},
	}
}

// partitionings are ways to spread rows, each in variants of which a seed takes one. KEY is the first key column.
var partitionings = []struct {
	name     string
	variants [][]string
}{
	{"none", [][]string{nil}},
	{"identity", [][]string{{"s"}, {"i"}, {"dt"}, {"dec"}, {"b"}}},
	{"bucket", [][]string{{"bucket(3, s)"}, {"bucket(4, KEY)"}, {"bucket(4, i)"}, {"bucket(5, ts)"}, {"bucket(2, dec)"}}},
	{"truncate", [][]string{{"truncate(1, s)"}, {"truncate(10, i)"}, {"truncate(100, dec)"}, {"truncate(2, s)"}, {"truncate(3, i)"}}},
	{"day", [][]string{{"day(ts)"}, {"day(dt)"}, {"day(tz)"}, {"day(ts)"}, {"day(tz)"}}},
	{"month", [][]string{{"month(dt)"}, {"month(ts)"}, {"month(tz)"}, {"month(dt)"}, {"month(ts)"}}},
	{"hour", [][]string{{"hour(ts)"}, {"hour(tz)"}, {"hour(ts)"}, {"hour(tz)"}, {"hour(ts)"}}},
	{"two", [][]string{{"b", "day(tz)"}, {"s", "bucket(2, i)"}, {"truncate(1, s)", "hour(ts)"}, {"dt", "b"}, {"bucket(2, KEY)", "i"}}},
}

// variant returns the terms of a partitioning for a seed. What the type of key cannot be hashed for takes another column.
func (c cell) variant(seed uint64) []string {
	i := slices.IndexFunc(partitionings, func(p struct {
		name     string
		variants [][]string
	},
	) bool {
		return p.name == c.part
	})
	variants := partitionings[i].variants
	key := "k"
	if c.key == unkeyed || c.key == "float" || c.key == "double" || c.key == "boolean,int" {
		key = "tz"
	}
	var out []string
	for _, term := range variants[int((seed-1)%uint64(len(variants)))] { //nolint:gosec // small
		out = append(out, strings.ReplaceAll(term, "KEY", key))
	}
	return out
}

type (
	// evolution is a row of steps that a cell's tables take while they live.
	evolution struct {
		name  string
		steps []step
	}
	// step makes the next schema from the one before it.
	step func(*changelog.Schema) changelog.Evolution
)

var evolutions = []evolution{
	{"none", nil},
	{"add", []step{add}},
	{"widen", []step{widen}},
	{"drop", []step{drop}},
	{"rename", []step{rename}},
	{"reorder", []step{reorder}},
	{"all", []step{add, widen, drop, rename, reorder, again}},
}

// keyWiden is the evolution of cells beside the cross: few types of key have a wider one. Its tables have one tree node as long as
// firn asks it of a table whose key is to widen: until it has.
var keyWiden = evolution{"widen key", []step{widenKey}}

// partWiden is another: most partitionings have no column with a wider type.
var partWiden = evolution{"widen partition", []step{widenPartition}}

// wideParts are the partitionings of it, for one key and for none.
var wideParts = []string{"identity", "bucket", "truncate", "two"}

// wideKeys are the keys with a column that widenKey widens. A float key has no wider one: firn refuses it, as a key's bytes would change.
var wideKeys = []string{"int", "decimal(9,2)", "boolean,int", "int,string", "int or null,string or null"}

func add(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Add: []changelog.Column{{Name: "a1", Type: prim(changelog.Long)}, {Name: "a2", Type: changelog.DecimalOf(20, 3)}}}
}

func widen(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Widen: map[string]*changelog.Type{
		"n": prim(changelog.Long), "f": prim(changelog.Double), "d": changelog.DecimalOf(30, 4), "l": changelog.ListOf(prim(changelog.Long)),
	}}
}

func widenKey(s *changelog.Schema) changelog.Evolution {
	wider := map[string]*changelog.Type{}
	for _, o := range s.KeyOrdinals() {
		switch c := s.Columns[o]; c.Type.Kind {
		case changelog.Int:
			wider[c.Name] = prim(changelog.Long)
		case changelog.Decimal:
			wider[c.Name] = changelog.DecimalOf(c.Type.Precision+20, c.Type.Scale) // from an int32 in Parquet to fixed bytes
		default:
		}
	}
	return changelog.Evolution{Widen: wider}
}

// widenPartition widens i and dec: the values that they are partitioned by stay what they are.
func widenPartition(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Widen: map[string]*changelog.Type{"i": prim(changelog.Long), "dec": changelog.DecimalOf(20, 2)}}
}

func drop(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Drop: []string{"x", "d"}}
}

// rename gives r's name to n: readers by name would mix them up.
func rename(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Rename: map[string]string{"r": "r renamed", "n": "r"}}
}

func reorder(s *changelog.Schema) changelog.Evolution {
	var names []string
	for _, c := range s.Columns {
		names = append(names, c.Name)
	}
	slices.Reverse(names)
	return changelog.Evolution{Order: names}
}

// again adds a column by the name of a dropped one, of another type.
func again(*changelog.Schema) changelog.Evolution {
	return changelog.Evolution{Add: []changelog.Column{{Name: "x", Type: prim(changelog.Int)}}}
}

// cells returns the cells of a size. full is the whole cross. The others cover pairs: default all pairs of two dimensions, small
// every value of each; empty has none.
func cells(size string) []cell {
	var out []cell
	for k, key := range append(keyNames(), unkeyed) {
		for p, part := range partitionings {
			for e, evo := range evolutions {
				switch {
				case size == "":
				case size == "default" && e != (k+p)%len(evolutions):
				case size == "small" && (e != (k+p)%len(evolutions) || p != k*5%len(partitionings)):
				default:
					out = append(out, cell{key, part.name, evo.name})
				}
			}
		}
	}
	for _, part := range wideParts {
		if size == "full" || size == "default" {
			out = append(out, cell{"string", part, partWiden.name}, cell{unkeyed, part, partWiden.name})
		}
	}
	for k, key := range wideKeys {
		for p, part := range partitionings {
			if size == "full" || size == "default" && (k+p)%2 == 0 || size == "small" && p == 3*k%len(partitionings) {
				out = append(out, cell{key, part.name, keyWiden.name})
			}
		}
	}
	return out
}

func keyNames() []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.name)
	}
	return out
}

func (c cell) keyColumns() []column {
	for _, k := range keys {
		if k.name == c.key {
			return k.columns
		}
	}
	return nil
}

// columns returns all columns that a cell's tables begin with: some of the payload stands before the key.
func (c cell) columns() []column {
	if c.key == unkeyed {
		return payload()
	}
	p := payload()
	return slices.Concat(p[:2], c.keyColumns(), p[2:])
}

// draw returns a value of the type, null sometimes: of a column's first values if it has any left, else made up.
func draw(r *rand.Rand, t *changelog.Type, values []any) any {
	if r.IntN(8) == 0 {
		return nil
	}
	if len(values) > 0 && r.IntN(3) > 0 {
		return widened(t, values[r.IntN(len(values))])
	}
	switch t.Kind {
	case changelog.Long:
		if len(values) > 0 || r.IntN(2) == 0 {
			return int64(r.Uint64()) //nolint:gosec // any bits
		}
		return int64(r.IntN(5))
	case changelog.Int:
		if len(values) == 0 {
			return int64(int32(r.Uint32())) //nolint:gosec // any bits
		}
	case changelog.Double:
		return r.NormFloat64()
	case changelog.Decimal:
		if len(values) == 0 || t.Precision > 9 {
			return big.NewInt(r.Int64N(1e15) - 5e14)
		}
	default:
	}
	if len(values) == 0 {
		return nil
	}
	return widened(t, values[r.IntN(len(values))])
}

// widened returns a value as the type has it now.
func widened(t *changelog.Type, v any) any {
	if f, ok := v.(float32); ok && t.Kind == changelog.Double {
		return float64(f)
	}
	return v
}

// value is a boxed value as firn has it.
func value(t *changelog.Type, v any) changelog.Value {
	switch v := widened(t, v).(type) {
	case nil:
		return changelog.NullValue
	case bool:
		if v {
			return changelog.Value{I: 1}
		}
		return changelog.Value{}
	case int64:
		return changelog.Value{I: v}
	case float32:
		return changelog.FloatValue(v)
	case float64:
		return changelog.DoubleValue(v)
	case *big.Int:
		return changelog.Value{B: changelog.ShortestInt(changelog.AppendBigInt(nil, v))}
	case string:
		return changelog.Value{B: []byte(v)}
	case []any:
		var elements []changelog.Value
		for _, e := range v {
			elements = append(elements, value(t.Fields[0].Type, e))
		}
		return changelog.Value{B: changelog.AppendList(nil, t, elements)}
	default:
		panic(fmt.Errorf("no value for a %T", v))
	}
}
