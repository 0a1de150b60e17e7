package interop

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

// line renders a row, values by field id, in the common row form of deploy/peers/README.md. A column that it lacks is null; a value
// that was written before its column was widened is widened.
func line(fields []field, row map[int]any) string {
	fields = slices.Clone(fields)
	slices.SortFunc(fields, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	var out strings.Builder
	out.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(quoted(f.Name) + ":" + text(&f.Type, row[f.ID]))
	}
	out.WriteByte('}')
	return out.String()
}

// text renders one value: what boxed returns.
func text(k *kind, v any) string {
	if v == nil {
		return "null"
	}
	switch k.name {
	case "boolean":
		return strconv.FormatBool(v.(bool))
	case "int", "long":
		return strconv.FormatInt(v.(int64), 10)
	case "float":
		return number(float64(v.(float32)), v.(float32))
	case "double":
		if f, ok := v.(float32); ok {
			v = float64(f)
		}
		return number(v.(float64), v)
	case "decimal":
		return `"` + scaled(v.(*big.Int), k.scale) + `"`
	case "string":
		return quoted(v.(string))
	case "date":
		return time.Unix(v.(int64)*86400, 0).UTC().Format(`"2006-01-02"`)
	case "time":
		return time.UnixMicro(v.(int64)).UTC().Format(`"15:04:05.000000"`)
	case "timestamp":
		return time.UnixMicro(v.(int64)).UTC().Format(`"2006-01-02T15:04:05.000000"`)
	case "timestamptz":
		return time.UnixMicro(v.(int64)).UTC().Format(`"2006-01-02T15:04:05.000000Z"`)
	case "list":
		var parts []string
		for _, e := range v.([]any) {
			parts = append(parts, text(k.element, e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	panic(fmt.Errorf("type %s has no text here", k.name))
}

// number spells a float as ECMAScript does: encoding/json's way, and the three that JSON lacks. v is float32 or float64.
func number(f float64, v any) string {
	switch {
	case math.IsNaN(f):
		return `"NaN"`
	case math.IsInf(f, 1):
		return `"Infinity"`
	case math.IsInf(f, -1):
		return `"-Infinity"`
	}
	return string(must(json.Marshal(v)))
}

func scaled(unscaled *big.Int, scale int) string {
	digits := new(big.Int).Abs(unscaled).String()
	if pad := scale + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	if scale > 0 {
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if unscaled.Sign() < 0 {
		digits = "-" + digits
	}
	return digits
}

// quoted spells a string with only the escapes that JSON demands.
func quoted(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch i := strings.IndexRune("\"\\\b\f\n\r\t", r); {
		case i >= 0:
			out.WriteByte('\\')
			out.WriteByte(`"\bfnrt`[i])
		case r < 0x20:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// must and check end a run by a panic, which run makes its error.
func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
