package mixed

import (
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"

	"firn/changelog"
)

// BadPartition returns why a keyed mixed table must not have a partition spec, which is bound to its schema: what Amoro's
// optimizing loses rows on, or fails at (spec/mixed-format.md 5.1). "": it may.
func BadPartition(spec changelog.PartitionSpec) (why string) {
	sources := map[int]bool{}
	for _, f := range spec {
		switch {
		case f.Transform.Kind == changelog.Year:
			return fmt.Sprintf("%s: Amoro reads partitions by year back as other years and loses what is optimized: take month(%s)", f, f.Column)
		case sources[f.SourceID]:
			return fmt.Sprintf("%s: column %q has a partition field already, and Amoro takes one a column", f, f.Column)
		case EscapePath(f.Name) != f.Name:
			return fmt.Sprintf("%s: the field's name %q would have to be escaped in paths, which Amoro does not undo", f, f.Name)
		}
		sources[f.SourceID] = true
	}
	return ""
}

// ErrBadPath reports a partition path that is not of the table's partition spec.
var ErrBadPath = errors.New("mixed: malformed partition path")

// PartitionPath returns the path of a partition in the spelling of Iceberg's Java library, which is that of NormalizePath:
// name=value, escaped, joined by slashes. values has the partition's value for each field of spec; types are those of the values
// (Transform.ResultType).
//
// Source: org.apache.iceberg.PartitionSpec.partitionToPath, transforms.TransformUtil.
func PartitionPath(spec changelog.PartitionSpec, types []*changelog.Type, values []changelog.Value) string {
	var b strings.Builder
	for i, f := range spec {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(EscapePath(f.Name))
		b.WriteByte('=')
		b.WriteString(EscapePath(valueText(f.Transform, types[i], values[i])))
	}
	return b.String()
}

// nullText is how a path says that there is no value.
const nullText = "null"

func valueText(t changelog.Transform, typ *changelog.Type, v changelog.Value) string {
	if v.Null {
		return nullText
	}
	switch t.Kind {
	case changelog.Year:
		return fmt.Sprintf("%04d", 1970+v.I)
	case changelog.Month:
		at := time.Date(1970, time.Month(1+v.I), 1, 0, 0, 0, 0, time.UTC)
		return fmt.Sprintf("%04d-%02d", at.Year(), at.Month())
	case changelog.Day:
		return dateText(v.I)
	case changelog.Hour:
		at := time.Unix(v.I*3600, 0).UTC()
		return fmt.Sprintf("%04d-%02d-%02d-%02d", at.Year(), at.Month(), at.Day(), at.Hour())
	case changelog.Bucket:
		return strconv.FormatInt(v.I, 10)
	case changelog.Identity, changelog.Truncate:
	}
	switch typ.Kind {
	case changelog.Boolean:
		return strconv.FormatBool(v.I != 0)
	case changelog.Date:
		return dateText(v.I)
	case changelog.String:
		return string(v.B)
	case changelog.Decimal:
		return decimalText(changelog.BigInt(v.B), typ.Scale)
	default:
		return strconv.FormatInt(v.I, 10)
	}
}

func dateText(days int64) string {
	at := time.Unix(days*86_400, 0).UTC()
	return fmt.Sprintf("%04d-%02d-%02d", at.Year(), at.Month(), at.Day())
}

// decimalText is Java's BigDecimal.toString: small numbers have an exponent.
func decimalText(unscaled *big.Int, scale int) string {
	digits, sign := unscaled.String(), ""
	if unscaled.Sign() < 0 {
		digits, sign = digits[1:], "-"
	}
	switch exponent := len(digits) - 1 - scale; {
	case scale == 0:
		return sign + digits
	case exponent < -6:
		if len(digits) > 1 {
			digits = digits[:1] + "." + digits[1:]
		}
		return sign + digits + "E" + strconv.Itoa(exponent)
	case len(digits) <= scale:
		return sign + "0." + strings.Repeat("0", scale-len(digits)) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}

// ParsePartitionPath is the inverse of PartitionPath, in any escaping. Error: ErrBadPath.
func ParsePartitionPath(spec changelog.PartitionSpec, types []*changelog.Type, path string) ([]changelog.Value, error) {
	parts := strings.Split(path, "/")
	if len(spec) == 0 && path == "" {
		return nil, nil
	}
	if len(parts) != len(spec) {
		return nil, fmt.Errorf("%w: %q has %d of %d values", ErrBadPath, path, len(parts), len(spec))
	}
	values := make([]changelog.Value, len(spec))
	for i, f := range spec {
		name, value, _ := strings.Cut(parts[i], "=")
		name, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil || name != f.Name {
			return nil, fmt.Errorf("%w: %q: want a value of %s at %d", ErrBadPath, path, f.Name, i+1)
		}
		if values[i], err = parseValue(f.Transform, types[i], value); err != nil {
			return nil, fmt.Errorf("%w: %q: %s: %w", ErrBadPath, path, f.Name, err)
		}
	}
	return values, nil
}

func parseValue(t changelog.Transform, typ *changelog.Type, s string) (changelog.Value, error) {
	if s == nullText || s == changelog.HiveNull {
		return changelog.NullValue, nil
	}
	switch t.Kind {
	case changelog.Year:
		n, err := strconv.ParseInt(s, 10, 32)
		return changelog.Value{I: n - 1970}, err
	case changelog.Month:
		at, err := time.Parse("2006-01", s)
		return changelog.Value{I: int64(at.Year()-1970)*12 + int64(at.Month()) - 1}, err
	case changelog.Hour:
		at, err := time.Parse("2006-01-02-15", s)
		return changelog.Value{I: at.Unix() / 3600}, err // exact: no minutes
	case changelog.Identity, changelog.Bucket, changelog.Truncate, changelog.Day:
	}
	switch typ.Kind {
	case changelog.Boolean:
		b, err := strconv.ParseBool(s)
		if b {
			return changelog.Value{I: 1}, err
		}
		return changelog.Value{}, err
	case changelog.Int, changelog.Long:
		n, err := strconv.ParseInt(s, 10, 64)
		return changelog.Value{I: n}, err
	case changelog.Date:
		at, err := time.Parse(time.DateOnly, s)
		return changelog.Value{I: at.Unix() / 86_400}, err // exact: no hours
	case changelog.String:
		return changelog.Value{B: []byte(s)}, nil
	case changelog.Decimal:
		return parseDecimal(s, typ.Scale)
	default:
		return changelog.Value{}, fmt.Errorf("a %s cannot be a partition value", typ)
	}
}

// parseDecimal reads what decimalText writes.
func parseDecimal(s string, scale int) (changelog.Value, error) {
	bad := fmt.Errorf("%q is no decimal of scale %d", s, scale)
	number, exponent, scientific := strings.Cut(s, "E")
	shift := 0
	if scientific {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil {
			return changelog.Value{}, bad
		}
	}
	whole, fraction, _ := strings.Cut(number, ".")
	n, ok := new(big.Int).SetString(whole+fraction, 10)
	if !ok || len(fraction)-shift != scale {
		return changelog.Value{}, bad
	}
	return changelog.Value{B: changelog.AppendBigInt(nil, n)}, nil
}
