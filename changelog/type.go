package changelog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of a column type. The kinds are Iceberg's. Written to disk, append only.
type Kind uint8

// The kinds, and what a Value holds for each.
const (
	Boolean       Kind = 1  // I: 0, 1
	Int           Kind = 2  // I
	Long          Kind = 3  // I
	Float         Kind = 4  // I: the IEEE 754 bits, low 32
	Double        Kind = 5  // I: the IEEE 754 bits
	Decimal       Kind = 6  // B: the unscaled value, two's complement, big-endian, 1 to 16 bytes, as short as can be
	Date          Kind = 7  // I: days since 1970-01-01
	Time          Kind = 8  // I: µs since midnight
	Timestamp     Kind = 9  // I: µs since 1970-01-01, no zone
	TimestampTZ   Kind = 10 // I: µs since 1970-01-01 UTC
	String        Kind = 11 // B: UTF-8
	UUID          Kind = 12 // B: 16 bytes
	Fixed         Kind = 13 // B: Type.Length bytes
	Binary        Kind = 14 // B
	Struct        Kind = 15 // B: encoded, see Value.Fields
	List          Kind = 16 // B: encoded, see Value.Elements
	Map           Kind = 17 // B: encoded, see Value.Entries
	TimestampNS   Kind = 18 // I: ns since 1970-01-01, no zone (format v3)
	TimestampTZNS Kind = 19 // I: ns since 1970-01-01 UTC (format v3)
)

var kindNames = [...]string{
	Boolean: "boolean", Int: "int", Long: "long", Float: "float", Double: "double", Decimal: "decimal", Date: "date",
	Time: "time", Timestamp: "timestamp", TimestampTZ: "timestamptz", String: "string", UUID: "uuid", Fixed: "fixed",
	Binary: "binary", Struct: "struct", List: "list", Map: "map", TimestampNS: "timestamp_ns",
	TimestampTZNS: "timestamptz_ns",
}

// String returns Iceberg's name of the kind, without parameters.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Type is the type of a column, or of a part of a nested one. It is immutable once it is in a Schema.
type Type struct {
	Kind      Kind     `json:"kind"`
	Precision int      `json:"precision,omitempty"` // Decimal: 1 to 38
	Scale     int      `json:"scale,omitempty"`     // Decimal: 0 to Precision
	Length    int      `json:"length,omitempty"`    // Fixed
	Fields    []Column `json:"fields,omitempty"`    // Struct: its fields; List: "element"; Map: "key" and "value"
}

// Primitive returns the type of a kind without parameters.
func Primitive(k Kind) *Type { return &Type{Kind: k} }

// DecimalOf returns decimal(precision, scale).
func DecimalOf(precision, scale int) *Type {
	return &Type{Kind: Decimal, Precision: precision, Scale: scale}
}

// ListOf returns a list with optional elements.
func ListOf(element *Type) *Type {
	return &Type{Kind: List, Fields: []Column{{Name: "element", Type: element}}}
}

// MapOf returns a map with optional values.
func MapOf(key, value *Type) *Type {
	return &Type{Kind: Map, Fields: []Column{{Name: "key", Type: key, Required: true}, {Name: "value", Type: value}}}
}

// Nested reports whether values of t have parts.
func (t *Type) Nested() bool { return t.Kind == Struct || t.Kind == List || t.Kind == Map }

// String spells the type as Iceberg does; nested types as list<T>, map<K,V> and struct<name:T,…>.
func (t *Type) String() string {
	switch t.Kind {
	case Decimal:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case Fixed:
		return fmt.Sprintf("fixed[%d]", t.Length)
	case List:
		return "list<" + t.Fields[0].Type.String() + ">"
	case Map:
		return "map<" + t.Fields[0].Type.String() + "," + t.Fields[1].Type.String() + ">"
	case Struct:
		var b strings.Builder
		for i, f := range t.Fields {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(f.Name + ":" + f.Type.String())
		}
		return "struct<" + b.String() + ">"
	default:
		return t.Kind.String()
	}
}

// Equal reports whether t and o are the same type, field ids aside.
func (t *Type) Equal(o *Type) bool {
	if t.Kind != o.Kind || t.Precision != o.Precision || t.Scale != o.Scale || t.Length != o.Length || len(t.Fields) != len(o.Fields) {
		return false
	}
	for i := range t.Fields {
		if t.Fields[i].Name != o.Fields[i].Name || !t.Fields[i].Type.Equal(o.Fields[i].Type) {
			return false
		}
	}
	return true
}

// CanWidenTo reports whether a column of type t may become o in place by the promotions of Iceberg v2: int to long,
// float to double, decimal(P,S) to decimal(P',S) with P' >= P, and these inside nested types, whose structs may have other
// members, too. The keys of a map stay as they are. A type can always "widen" to itself.
func (t *Type) CanWidenTo(o *Type) bool {
	switch {
	case t.Kind == Int && o.Kind == Long, t.Kind == Float && o.Kind == Double:
		return true
	case t.Kind == Decimal && o.Kind == Decimal:
		return t.Scale == o.Scale && o.Precision >= t.Precision
	case t.Kind == Map && o.Kind == Map && !t.Fields[0].Type.Equal(o.Fields[0].Type):
		return false
	case t.Nested() && t.Kind == o.Kind:
		for _, f := range o.Fields {
			i := slices.IndexFunc(t.Fields, func(c Column) bool { return c.Name == f.Name })
			if i >= 0 && !t.Fields[i].Type.CanWidenTo(f.Type) {
				return false
			}
		}
		return true
	default:
		return t.Equal(o)
	}
}
