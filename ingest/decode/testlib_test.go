package decode

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"firn/changelog"
)

const (
	samples = "testdata/debezium/"
	live    = "../testdata/live/"
)

// line is a line of the recordings (testdata/debezium/README.md).
type line struct {
	Record
	Case      string
	ID        string
	Connector string
	Expect    json.RawMessage
	Note      string
	Mode      string // of flattened samples
	Framing   string
	Decoded   json.RawMessage
}

// readLines reads a recording; a name that ends in .gz is unpacked.
func readLines(t testing.TB, name string) []line {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	var lines []line
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var raw struct {
			Topic      string
			Key, Value *string
			KeyB       *string `json:"key_b64"`
			ValueB     *string `json:"value_b64"`
			Headers    []struct {
				Key, Value string
				ValueB     *string `json:"value_b64"`
			}
			Case, ID          string
			Connector, Note   string
			Mode              string
			Framing           string
			Expect, Decoded   json.RawMessage
			Partition         int32
			Offset, Timestamp int64
		}
		if err := json.Unmarshal(scan.Bytes(), &raw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		l := line{
			Case: raw.Case, ID: raw.ID, Connector: raw.Connector, Expect: raw.Expect, Note: raw.Note, Mode: raw.Mode, Framing: raw.Framing, Decoded: raw.Decoded,
		}
		l.Topic = raw.Topic
		l.Key, l.Value = payload(t, raw.Key, raw.KeyB), payload(t, raw.Value, raw.ValueB)
		for _, h := range raw.Headers {
			l.Headers = append(l.Headers, changelog.Header{Key: h.Key, Value: payload(t, &h.Value, nil)})
			if h.ValueB != nil {
				l.Headers[len(l.Headers)-1].Value = payload(t, nil, h.ValueB)
			}
		}
		lines = append(lines, l)
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}

func payload(t testing.TB, text, b64 *string) []byte {
	switch {
	case text != nil:
		return []byte(*text)
	case b64 != nil:
		b, err := base64.StdEncoding.DecodeString(*b64)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return nil
}

// form shows a value in the common row form (spec/surfaces.md 1): as encoding/json reads it with UseNumber.
func form(t testing.TB, typ *changelog.Type, v changelog.Value) any {
	t.Helper()
	if v.Null {
		return nil
	}
	switch typ.Kind {
	case changelog.Boolean:
		return v.I == 1
	case changelog.Int, changelog.Long:
		return json.Number(strconv.FormatInt(v.I, 10))
	case changelog.Float:
		return floatForm(float64(v.Float()), 32)
	case changelog.Double:
		return floatForm(v.Double(), 64)
	case changelog.Decimal:
		return decimalForm(v.B, typ.Scale)
	case changelog.Date:
		return dateForm(v.I)
	case changelog.Time:
		return timeForm(v.I)
	case changelog.Timestamp:
		return dateForm(floorDiv(v.I, microsPerDay)) + "T" + timeForm(v.I-floorDiv(v.I, microsPerDay)*microsPerDay)
	case changelog.TimestampNS:
		micros := floorDiv(v.I, 1000)
		return dateForm(floorDiv(micros, microsPerDay)) + "T" + timeForm(micros-floorDiv(micros, microsPerDay)*microsPerDay) + fmt.Sprintf("%03d", v.I-micros*1000)
	case changelog.TimestampTZ:
		return dateForm(floorDiv(v.I, microsPerDay)) + "T" + timeForm(v.I-floorDiv(v.I, microsPerDay)*microsPerDay) + "Z"
	case changelog.String:
		return string(v.B)
	case changelog.UUID:
		return string(appendUUID(nil, v.B))
	case changelog.Binary, changelog.Fixed:
		return hex.EncodeToString(v.B)
	case changelog.List:
		elements, err := changelog.AppendElements(nil, typ, v.B)
		if err != nil {
			t.Fatal(err)
		}
		out := []any{}
		for _, e := range elements {
			out = append(out, form(t, typ.Fields[0].Type, e))
		}
		return out
	case changelog.Map:
		keys, values, err := changelog.AppendEntries(nil, nil, typ, v.B)
		if err != nil {
			t.Fatal(err)
		}
		out := []any{}
		for i := range keys {
			out = append(out, []any{form(t, typ.Fields[0].Type, keys[i]), form(t, typ.Fields[1].Type, values[i])})
		}
		slices.SortFunc(out, func(a, b any) int { return strings.Compare(text(a.([]any)[0]), text(b.([]any)[0])) })
		return out
	case changelog.Struct:
		var rr changelog.RowReader
		if err := rr.ResetStruct(typ, v.B); err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		for _, f := range typ.Fields {
			m, ok := rr.Next()
			if !ok {
				t.Fatal(rr.Err())
			}
			out[f.Name] = form(t, f.Type, m)
		}
		return out
	default:
		t.Fatalf("type %s", typ)
		return nil
	}
}

// text is the JSON text of a form, with members sorted.
func text(v any) string {
	switch v := v.(type) {
	case json.Number:
		return numberText(string(v))
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = text(v[i])
		}
		return "[" + strings.Join(parts, ",") + "]"
	case map[string]any:
		var parts []string
		for k := range v {
			parts = append(parts, strconv.Quote(k)+":"+text(v[k]))
		}
		sort.Strings(parts)
		return "{" + strings.Join(parts, ",") + "}"
	case string:
		return strconv.Quote(v)
	}
	return fmt.Sprint(v)
}

// numberText makes equal numbers equal texts: 3.0 and 3, 1e+21 and 1e21.
func numberText(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, _, err := big.ParseFloat(s, 10, 200, big.ToNearestEven)
	if err != nil {
		return s
	}
	if f.IsInt() {
		n, _ := f.Int(nil)
		return n.String()
	}
	return f.Text('g', 17)
}

func floatForm(f float64, bits int) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, bits))
}

func decimalForm(b []byte, scale int) string {
	n := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
		n.Neg(n)
	}
	s := n.String()
	for len(s) <= scale {
		s = "0" + s
	}
	if scale == 0 {
		return sign + s
	}
	return sign + s[:len(s)-scale] + "." + s[len(s)-scale:]
}

// dateForm is an independent way from days to a date: it walks years.
func dateForm(days int64) string {
	y := int64(1970)
	const era = 146097 // days of 400 years
	y += floorDiv(days, era) * 400
	days -= floorDiv(days, era) * era
	for {
		n := int64(365)
		if leap(y) {
			n++
		}
		if days < n {
			break
		}
		days -= n
		y++
	}
	m := 0
	for _, n := range [...]int64{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31} {
		if m == 1 && leap(y) {
			n++
		}
		if days < n {
			break
		}
		days -= n
		m++
	}
	year := fmt.Sprintf("%04d", y)
	if y > 9999 {
		year = "+" + year
	}
	if y < 0 {
		year = fmt.Sprintf("-%04d", -y)
	}
	return fmt.Sprintf("%s-%02d-%02d", year, m+1, days+1)
}

func timeForm(micros int64) string {
	return fmt.Sprintf("%02d:%02d:%02d.%06d", micros/3_600_000_000, micros/60_000_000%60, micros/1_000_000%60, micros%1_000_000)
}

// rejected returns what err must be.
func rejected(err error) *Rejected {
	rej, ok := errors.AsType[*Rejected](err)
	if !ok {
		panic(fmt.Sprintf("not a rejection: %v", err))
	}
	return rej
}

func reasonOf(err error) string { return rejected(err).Reason }

// parse reads JSON with numbers as text.
func parse(t testing.TB, b []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
	return v
}
