package changelog

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// TransformKind is how a partition value comes from a column's value. Iceberg's.
type TransformKind uint8

// The transforms. Their names are written to disk.
const (
	Identity TransformKind = 1 // the value
	Bucket   TransformKind = 2 // Murmur3 of the value, modulo N
	Truncate TransformKind = 3 // numbers down to a multiple of N, strings to N code points
	Year     TransformKind = 4 // years, months, days, hours since 1970-01-01 00:00 UTC, rounded down
	Month    TransformKind = 5
	Day      TransformKind = 6
	Hour     TransformKind = 7
)

var transformNames = [...]string{
	Identity: "identity", Bucket: "bucket", Truncate: "truncate", Year: "year", Month: "month", Day: "day", Hour: "hour",
}

// Transform is a transform with its number.
type Transform struct {
	Kind TransformKind
	N    int // Bucket: buckets; Truncate: width; else 0
}

// String returns the transform as Iceberg's metadata spell it: identity, bucket[16], truncate[4], year, month, day, hour.
func (t Transform) String() string {
	if int(t.Kind) >= len(transformNames) || t.Kind == 0 {
		return "transform(" + strconv.Itoa(int(t.Kind)) + ")"
	}
	if t.numbered() {
		return transformNames[t.Kind] + "[" + strconv.Itoa(t.N) + "]"
	}
	return transformNames[t.Kind]
}

func (t Transform) numbered() bool { return t.Kind == Bucket || t.Kind == Truncate }

// MarshalText implements encoding.TextMarshaler.
func (t Transform) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Transform) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTransform(string(b))
	return err
}

// ErrPartition reports a partitioning that cannot be.
var ErrPartition = errors.New("partition spec")

// ParseTransform returns the transform that Transform.String spells so. Error: ErrPartition.
func ParseTransform(s string) (Transform, error) {
	name, number, numbered := strings.Cut(s, "[")
	for k, n := range transformNames {
		if n == "" || n != name {
			continue
		}
		t := Transform{Kind: TransformKind(k)} //nolint:gosec // few
		if t.numbered() != numbered {
			break
		}
		if !numbered {
			return t, nil
		}
		var err error
		if t.N, err = parseWidth(strings.TrimSuffix(number, "]")); err != nil || !strings.HasSuffix(number, "]") {
			break
		}
		return t, nil
	}
	return Transform{}, fmt.Errorf("%w: no transform %q", ErrPartition, s)
}

// maxTransform keeps Java's arithmetic of truncate, which is in ints, from going over.
const maxTransform = 1 << 30

func parseWidth(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 || n > maxTransform {
		return 0, fmt.Errorf("%w: %q is not a number from 1 to %d", ErrPartition, s, maxTransform)
	}
	return int(n), nil
}

// PartitionField is one value of a partition. Written to disk as JSON.
type PartitionField struct {
	Name      string    `json:"name"`
	Column    string    `json:"column"`             // its name when the table was made
	SourceID  int       `json:"sourceId,omitempty"` // field id of the column; 0: not bound yet
	Transform Transform `json:"transform"`
}

// String returns the field as the configuration has it, such as region, bucket(16, id), day(created_at).
func (f PartitionField) String() string {
	switch {
	case f.Transform.Kind == Identity:
		return f.Column
	case f.Transform.numbered():
		return fmt.Sprintf("%s(%d, %s)", transformNames[f.Transform.Kind], f.Transform.N, f.Column)
	}
	return fmt.Sprintf("%s(%s)", f.Transform, f.Column)
}

// PartitionSpec says how a table's rows are spread over partitions; empty: they are not.
type PartitionSpec []PartitionField

// Strings returns the fields as the configuration has them.
func (s PartitionSpec) Strings() []string {
	out := make([]string, len(s))
	for i, f := range s {
		out[i] = f.String()
	}
	return out
}

// Equal reports whether two specs spread rows alike: the same columns, transforms and names in the same order. Columns
// are compared by field id where both are bound.
func (s PartitionSpec) Equal(o PartitionSpec) bool {
	if len(s) != len(o) {
		return false
	}
	for i, f := range s {
		same := f.Column == o[i].Column
		if f.SourceID != 0 && o[i].SourceID != 0 {
			same = f.SourceID == o[i].SourceID
		}
		if !same || f.Transform != o[i].Transform || f.Name != o[i].Name {
			return false
		}
	}
	return true
}

var partitionTerm = regexp.MustCompile(`^\s*([a-z]+)\s*\(\s*(?:([^,()]*?)\s*,\s*)?([^,()]+?)\s*\)\s*$`)

// ParsePartition reads a spec from the configuration's terms: region or identity(region), bucket(16, id),
// truncate(4, name), year(at), month(at), day(at), hour(at). Field names are those that Iceberg gives: the column's, or it
// with _bucket, _trunc, _year, _month, _day, _hour. Error: ErrPartition.
func ParsePartition(terms []string) (PartitionSpec, error) {
	var spec PartitionSpec
	for _, term := range terms {
		f, err := parseTerm(term)
		if err != nil {
			return nil, err
		}
		spec = append(spec, f)
	}
	return spec, nil
}

func parseTerm(term string) (PartitionField, error) {
	if !strings.ContainsAny(term, "()") {
		column := strings.TrimSpace(term)
		if column == "" {
			return PartitionField{}, fmt.Errorf("%w: an empty term", ErrPartition)
		}
		return PartitionField{Name: column, Column: column, Transform: Transform{Kind: Identity}}, nil
	}
	m := partitionTerm.FindStringSubmatch(term)
	if m == nil {
		return PartitionField{}, fmt.Errorf("%w: %q is not of the form column, transform(column) or transform(number, column)", ErrPartition, term)
	}
	text := m[1]
	if m[2] != "" {
		text += "[" + m[2] + "]"
	}
	t, err := ParseTransform(text)
	if err != nil {
		return PartitionField{}, fmt.Errorf("%w: %q: want identity(column), bucket(n, column), truncate(n, column), "+
			"year(column), month(column), day(column) or hour(column), n from 1", ErrPartition, term)
	}
	f := PartitionField{Name: m[3], Column: m[3], Transform: t}
	switch t.Kind {
	case Identity:
	case Truncate:
		f.Name += "_trunc"
	case Bucket, Year, Month, Day, Hour:
		f.Name += "_" + transformNames[t.Kind]
	}
	return f, nil
}

// Bind returns the spec with the field ids of its columns in schema. Error: ErrPartition, a column is missing or of a
// type that its transform does not take, or a name is taken.
func (s PartitionSpec) Bind(schema *Schema) (PartitionSpec, error) {
	out := make(PartitionSpec, len(s))
	names := map[string]bool{}
	for i, f := range s {
		o := schema.Ordinal(f.Column)
		if f.SourceID != 0 {
			o = schema.OrdinalOf(f.SourceID)
		}
		if o < 0 {
			return nil, fmt.Errorf("%w: %s: the table has no top-level column %q", ErrPartition, f, f.Column)
		}
		if why := badPartitionType(f.Transform, schema.Columns[o].Type); why != "" {
			return nil, fmt.Errorf("%w: %s: column %q is of type %s: %s", ErrPartition, f, f.Column, schema.Columns[o].Type, why)
		}
		if c := schema.Ordinal(f.Name); names[f.Name] || c >= 0 && (c != o || f.Transform.Kind != Identity) {
			return nil, fmt.Errorf("%w: %s: its name, %q, is taken by another field or column", ErrPartition, f, f.Name)
		}
		names[f.Name] = true
		f.SourceID = schema.Columns[o].ID
		out[i] = f
	}
	return out, nil
}

// badPartitionType returns why a transform does not go with a column's type; "": it does. Beside what Iceberg says, values
// that partition paths do not carry back are refused (spec/mixed-format.md 5.1; org.apache.iceberg.types.Conversions).
func badPartitionType(t Transform, typ *Type) string {
	timestamp, date := false, typ.Kind == Date
	switch typ.Kind {
	case Timestamp, TimestampTZ, TimestampNS, TimestampTZNS:
		timestamp = true
	case Boolean, Float, Double:
		if t.Kind == Bucket {
			return "it has no hash"
		}
	case Struct, List, Map:
		return "nested columns have no partitions"
	default:
	}
	switch t.Kind {
	case Bucket:
		return ""
	case Year, Month, Day:
		if date || timestamp {
			return ""
		}
		return "want a date or a timestamp"
	case Hour:
		if timestamp {
			return ""
		}
		return "want a timestamp"
	case Truncate:
		if typ.Kind == Int || typ.Kind == Long || typ.Kind == Decimal || typ.Kind == String {
			return ""
		}
		return "want int, long, decimal or string"
	case Identity:
	}
	switch typ.Kind {
	case Boolean, Int, Long, Decimal, Date, String:
		return ""
	default:
		return "its values do not survive in partition paths; take bucket, or day of a timestamp"
	}
}

// Ordinals returns the places of the fields' columns in schema; -1: it has no such column.
func (s PartitionSpec) Ordinals(schema *Schema) []int {
	out := make([]int, len(s))
	for i, f := range s {
		out[i] = schema.OrdinalOf(f.SourceID)
		if f.SourceID == 0 {
			out[i] = schema.Ordinal(f.Column)
		}
	}
	return out
}

// InKey reports whether all columns of the spec are key columns of schema: a row then never leaves its partition.
func (s PartitionSpec) InKey(schema *Schema) bool {
	for _, o := range s.Ordinals(schema) {
		found := false
		for _, k := range schema.KeyOrdinals() {
			found = found || k == o
		}
		if !found {
			return false
		}
	}
	return true
}

// ResultType returns the type of a partition value: that of the column for Identity and Truncate, date for Day, else int.
func (t Transform) ResultType(column *Type) *Type {
	switch t.Kind {
	case Identity, Truncate:
		return column
	case Day:
		return Primitive(Date)
	case Bucket, Year, Month, Hour:
	}
	return Primitive(Int)
}

// Apply returns the partition value of a column's value; null stays null. Bucket is not here: its hash is the Iceberg
// library's (changelog/table).
func (t Transform) Apply(column *Type, v Value) Value {
	if v.Null {
		return NullValue
	}
	switch t.Kind {
	case Identity:
		return v
	case Truncate:
		return t.truncate(column, v)
	case Year, Month, Day, Hour:
		return Value{I: t.since(column, v.I)}
	case Bucket:
	}
	panic("changelog: " + t.String() + " is not applied here")
}

func (t Transform) truncate(column *Type, v Value) Value {
	n := int64(t.N)
	switch column.Kind {
	case String:
		return Value{B: v.B[:runes(v.B, t.N)]}
	case Decimal:
		unscaled := BigInt(v.B)
		w := big.NewInt(n)
		rest := new(big.Int).Mod(unscaled, w) // never negative
		return Value{B: AppendBigInt(nil, unscaled.Sub(unscaled, rest))}
	case Int:
		return Value{I: int64(int32(v.I - ((v.I%n)+n)%n))} //nolint:gosec // it wraps round as Java's does
	default:
		return Value{I: v.I - ((v.I%n)+n)%n}
	}
}

// runes returns the length of the first n code points of b.
func runes(b []byte, n int) int {
	at := 0
	for ; n > 0 && at < len(b); n-- {
		_, size := utf8.DecodeRune(b[at:])
		at += size
	}
	return at
}

// since returns whole years, months, days or hours from the epoch to a date or a timestamp, rounded down.
func (t Transform) since(column *Type, v int64) int64 {
	perDay, perHour := int64(1), int64(1)
	switch column.Kind {
	case Timestamp, TimestampTZ:
		perHour = 3_600_000_000
		perDay = 24 * perHour
	case TimestampNS, TimestampTZNS:
		perHour = 3_600_000_000_000
		perDay = 24 * perHour
	default:
	}
	if t.Kind == Hour {
		return floorDiv(v, perHour)
	}
	days := floorDiv(v, perDay)
	if t.Kind == Day {
		return days
	}
	year, month := civil(days)
	if t.Kind == Year {
		return year - 1970
	}
	return (year-1970)*12 + month - 1
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// civil returns the year and the month (from 1) of the date that is so many days after 1970-01-01.
func civil(days int64) (year, month int64) {
	y, m, _ := time.Unix(days*86_400, 0).UTC().Date()
	return int64(y), int64(m)
}

// BigInt returns the number whose two's complement, big-endian, is b: a Decimal Value's.
func BigInt(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b)))) //nolint:gosec // at most 16 bytes
	}
	return n
}

// AppendBigInt appends n in two's complement, big-endian, as short as can be.
func AppendBigInt(dst []byte, n *big.Int) []byte {
	bits := n.BitLen()
	if n.Sign() < 0 { // -2^k needs no more bits than 2^k-1
		bits = new(big.Int).Not(n).BitLen()
	}
	size := bits/8 + 1
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size))) //nolint:gosec // not negative
	}
	return append(dst, n.FillBytes(make([]byte, size))...)
}

// HiveNull is how Hive, and readers of its kind, spell a null partition value.
const HiveNull = "__HIVE_DEFAULT_PARTITION__"

// years that partition paths carry: Java's parser takes four digits.
const (
	minPartitionYear = 1
	maxPartitionYear = 9999
)

// Restricts reports whether BadValue may refuse any value of the spec's columns.
func (s PartitionSpec) Restricts(schema *Schema) bool {
	for i, o := range s.Ordinals(schema) {
		if o >= 0 && restricted(s[i].Transform, schema.Columns[o].Type) {
			return true
		}
	}
	return false
}

func restricted(t Transform, column *Type) bool {
	switch t.Kind {
	case Identity:
		return column.Kind == String || column.Kind == Date
	case Truncate:
		return column.Kind == String || column.Kind == Decimal
	case Year, Month, Day, Hour:
		return true
	case Bucket:
	}
	return false
}

// BadValue returns the column of a row (values, one a column of schema) whose partition value readers would take for
// another one, and why; "": there is none. Amoro's optimizing loses rows in such partitions (spec/mixed-format.md 5.1).
func (s PartitionSpec) BadValue(schema *Schema, values []Value) (column, why string) {
	for i, o := range s.Ordinals(schema) {
		if o < 0 || values[o].Null || !restricted(s[i].Transform, schema.Columns[o].Type) {
			continue
		}
		c := &schema.Columns[o]
		if why := badValue(&s[i], c.Type, values[o]); why != "" {
			return c.Name, why
		}
	}
	return "", ""
}

// maxPathPart is how long a name of a directory can be: that of a partition value is name=value, escaped.
const maxPathPart = 255

func badValue(f *PartitionField, column *Type, v Value) (why string) {
	t := f.Transform
	switch column.Kind {
	case String:
		text := t.Apply(column, v).B
		if s := string(text); s == "null" || s == HiveNull {
			return fmt.Sprintf("the partition value %q reads as no value", s)
		}
		if n := escapedLen(f.Name) + 1 + escapedLen(string(text)); n > maxPathPart {
			return fmt.Sprintf("the partition's directory would have a name of %d bytes, the most is %d", n, maxPathPart)
		}
	case Decimal:
		if n := BigInt(t.Apply(column, v).B); len(n.Abs(n).String()) > column.Precision {
			return fmt.Sprintf("its truncated value has more than %d digits", column.Precision)
		}
	default:
		year, _ := civil(Transform{Kind: Day}.since(column, v.I))
		if year < minPartitionYear || year > maxPartitionYear {
			return fmt.Sprintf("its partition is of the year %d, not of 1 to %d", year, maxPartitionYear)
		}
	}
	return ""
}

// escapedLen returns the length of s in a partition path (mixed.EscapePath).
func escapedLen(s string) int {
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(".-*_ ", c) >= 0:
			n++
		default:
			n += 3
		}
	}
	return n
}
