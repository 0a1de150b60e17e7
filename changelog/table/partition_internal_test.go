package table

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"

	"firn/changelog"
	"firn/changelog/mixed"
)

// partitionTypes are the column types that have partition values.
func partitionTypes() []*changelog.Type {
	types := []*changelog.Type{
		changelog.DecimalOf(1, 0), changelog.DecimalOf(5, 2), changelog.DecimalOf(18, 9), changelog.DecimalOf(38, 10), {Kind: changelog.Fixed, Length: 5},
	}
	for _, k := range []changelog.Kind{
		changelog.Boolean, changelog.Int, changelog.Long, changelog.Date, changelog.Time, changelog.Timestamp, changelog.TimestampTZ,
		changelog.String, changelog.UUID, changelog.Binary,
	} {
		types = append(types, changelog.Primitive(k))
	}
	return types
}

// edges are values of a type at which arithmetic and texts go wrong, and random ones.
func edges(t *changelog.Type, r *rand.Rand) (values []changelog.Value) {
	ints := func(least, most int64, more ...int64) {
		for _, n := range append(more, least, most, -1, 0, 1, least+1, most-1) {
			values = append(values, changelog.Value{I: n})
		}
		for range 200 {
			values = append(values, changelog.Value{I: least/2 + r.Int64N(most)})
		}
	}
	switch t.Kind {
	case changelog.Boolean:
		return []changelog.Value{{I: 0}, {I: 1}}
	case changelog.Int:
		ints(math.MinInt32, math.MaxInt32)
	case changelog.Date: // 0001-01-01 to 9999-12-31
		ints(-719162, 2932896, -719162+365, 10957, 11016, 59)
	case changelog.Long:
		ints(math.MinInt64, math.MaxInt64)
	case changelog.Time:
		ints(0, 86_399_999_999)
	case changelog.Timestamp, changelog.TimestampTZ:
		ints(-62135596800000000, 253402300799999999, -86_400_000_000, -86_400_000_001, 3_600_000_000, -3_600_000_001)
	case changelog.Decimal:
		for _, b := range [][]byte{{0}, {1}, {0xff}, {9}, {0xf7}} {
			values = append(values, changelog.Value{B: b})
		}
		for range 200 {
			b := make([]byte, 1+r.IntN(max(1, t.Precision*3/8)))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if b = changelog.ShortestInt(b); len(changelog.BigInt(b).Text(10)) <= t.Precision {
				values = append(values, changelog.Value{B: b})
			}
		}
	case changelog.String:
		for _, s := range []string{
			"", " ", "a", "null ", "Null", "a/b", "50%", "%2F", "a+b", "x=y", "ä", "日本語", "😀😀😀", "\"'`", "~*_.-", "\x00", "\n", "a\u0301b", ".", "..", "null",
		} {
			values = append(values, changelog.Value{B: []byte(s)})
		}
		for range 200 {
			var b strings.Builder
			for range r.IntN(9) {
				b.WriteRune([]rune("aZ09 /%+=~*é日😀'\"\\\t")[r.IntN(18)])
			}
			values = append(values, changelog.Value{B: []byte(b.String())})
		}
	case changelog.UUID, changelog.Fixed, changelog.Binary:
		n := map[changelog.Kind]int{changelog.UUID: 16, changelog.Fixed: t.Length, changelog.Binary: 3}[t.Kind]
		for range 50 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			values = append(values, changelog.Value{B: b})
		}
	default:
	}
	return values
}

// TestTransforms holds the partition values, their paths and the values read back from those against the Iceberg
// library, for every transform that firn lets a type have; null included.
func TestTransforms(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	terms := []string{
		"identity(c)", "bucket(1, c)", "bucket(16, c)", "bucket(1000000, c)", "truncate(1, c)", "truncate(3, c)", "truncate(10, c)", "truncate(1000000, c)",
		"year(c)", "month(c)", "day(c)", "hour(c)",
	}
	pairs := 0
	for _, typ := range partitionTypes() {
		schema, err := changelog.NewSchema([]changelog.Column{{Name: "c", Type: typ}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, term := range terms {
			spec, err := changelog.ParsePartition([]string{term})
			if err != nil {
				t.Fatal(err)
			}
			if spec, err = spec.Bind(schema); err != nil {
				continue
			}
			pairs++
			t.Run(fmt.Sprint(typ, " ", term), func(t *testing.T) { againstLibrary(t, schema, spec, append(edges(typ, r), changelog.NullValue)) })
		}
	}
	if pairs < 70 {
		t.Errorf("only %d pairs of type and transform", pairs)
	}
}

func againstLibrary(t *testing.T, schema *changelog.Schema, spec changelog.PartitionSpec, values []changelog.Value) {
	columns := icebergSchema(schema, false)
	fields, err := icebergSpec(spec, columns)
	if err != nil {
		t.Fatal(err)
	}
	md, err := newMetadata([]*iceberg.Schema{columns}, fields, "file:///t", nil)
	if err != nil {
		t.Fatal(err)
	}
	tbl := &Table{schemas: changelog.Schemas{schema}}
	tbl.base = &Store{table: tbl, kind: mixed.StoreBase, loaded: loaded{metadata: md}}
	p, err := tbl.Partitioner(schema)
	if err != nil {
		t.Fatal(err)
	}
	theirs := md.PartitionSpec()
	field := theirs.Field(0)
	if theirs.ID() != 0 || field.FieldID != 1000 || field.Name != spec[0].Name {
		t.Fatalf("spec %v", theirs)
	}
	column := schema.Columns[0].Type
	for _, v := range values {
		if c, why := spec.BadValue(schema, []changelog.Value{v}); c != "" {
			if column.Kind == changelog.String && string(v.B) != "null" || why == "" {
				t.Errorf("%q is refused: %s", v.B, why)
			}
			continue
		}
		in := iceberg.Optional[iceberg.Literal]{}
		if !v.Null {
			in = iceberg.Optional[iceberg.Literal]{Val: literalOf(column, v), Valid: true}
		}
		want := field.Transform.Apply(in)
		path := p.Path([]changelog.Value{v})
		tuple, err := tbl.base.tupleOf(spec, path)
		if err != nil {
			t.Fatalf("%v: %v", v, err)
		}
		var value any
		if want.Valid {
			value = want.Val.Any()
		}
		if d, ok := value.(iceberg.DecimalLiteral); ok {
			value = iceberg.Decimal(d)
		}
		if day, ok := value.(int32); ok && spec[0].Transform.Kind == changelog.Day {
			value = iceberg.Date(day)
		}
		if tuple[1000] != value {
			t.Errorf("%v: partition value %#v by way of %q, want %#v", v, tuple[1000], path, value)
			continue
		}
		human := "null"
		if want.Valid {
			human = field.Transform.ToHumanStrType(icebergType(column), value)
		}
		if spec[0].Transform.Kind == changelog.Year && want.Valid {
			human = fmt.Sprintf("%04s", human) // as Java
		}
		if got, ok := strings.CutPrefix(path, field.Name+"="); !ok || got != mixed.EscapePath(human) {
			// Small decimals are spelled as Java's BigDecimal does, which the library's spelling is not.
			if again, err := tbl.base.tupleOf(spec, field.Name+"="+mixed.EscapePath(human)); err != nil || column.Kind != changelog.Decimal || again[1000] != value {
				t.Errorf("%v: path %q, want %q", v, path, human)
			}
		}
		if path != mixed.NormalizePath(path) {
			t.Errorf("path %q is not normal", path)
		}
	}
}
