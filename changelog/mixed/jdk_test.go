package mixed

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"

	"firn/changelog"
)

// The hash again, written from the Javadoc of each class, in arithmetic without bounds; only the result is cut to an int.

// javaHash is Object.hashCode of what Iceberg has for a value in memory.
func javaHash(t *changelog.Type, v changelog.Value) *big.Int {
	switch {
	case v.Null:
		return big.NewInt(0) // Objects.hashCode
	case t.Kind == changelog.Boolean && v.I == 1:
		return big.NewInt(1231) // Boolean
	case t.Kind == changelog.Boolean:
		return big.NewInt(1237)
	}
	switch t.Kind {
	case changelog.Int, changelog.Date: // Integer
		return big.NewInt(v.I)
	case changelog.Float: // Float: floatToIntBits
		if math.IsNaN(float64(v.Float())) {
			return big.NewInt(0x7fc00000)
		}
		return new(big.Int).SetUint64(uint64(math.Float32bits(v.Float())))
	case changelog.Double: // Double: doubleToLongBits, then as Long
		if math.IsNaN(v.Double()) {
			return longHash(0x7ff8000000000000)
		}
		return longHash(math.Float64bits(v.Double()))
	case changelog.String: // String: s[0]*31^(n-1) + … + s[n-1]
		return polynomial(0, 31, utf16.Encode([]rune(string(v.B))))
	case changelog.UUID: // UUID: of the exclusive or of both halves
		return longHash(binary.BigEndian.Uint64(v.B[:8]) ^ binary.BigEndian.Uint64(v.B[8:]))
	case changelog.Fixed, changelog.Binary: // ByteBuffer: from the last byte to the first
		var b []int8
		for _, c := range slices.Backward(v.B) {
			b = append(b, int8(c)) //nolint:gosec // as Java's bytes are
		}
		return polynomial(1, 31, b)
	case changelog.Decimal: // BigDecimal: 31*unscaledValue.hashCode() + scale
		n := changelog.BigInt(v.B)
		mag := new(big.Int).Abs(n).FillBytes(make([]byte, 20)) // BigInteger: its magnitude's ints, times its sign
		var words []uint32
		for ; len(mag) > 0; mag = mag[4:] {
			words = append(words, binary.BigEndian.Uint32(mag))
		}
		h := polynomial(0, 31, words)
		h.Mul(h, big.NewInt(int64(n.Sign())))
		return h.Add(h.Mul(intOf(h), big.NewInt(31)), big.NewInt(int64(t.Scale)))
	default: // Long
		return longHash(uint64(v.I)) //nolint:gosec // bits
	}
}

func longHash(bits uint64) *big.Int { return new(big.Int).SetUint64(bits ^ bits>>32) }

func polynomial[N int8 | uint16 | uint32](start, factor int64, terms []N) *big.Int {
	h := big.NewInt(start)
	for _, n := range terms {
		h.Add(h.Mul(h, big.NewInt(factor)), big.NewInt(int64(n)))
	}
	return h
}

// intOf cuts a number to an int as Java does.
func intOf(n *big.Int) *big.Int {
	low := new(big.Int).And(n, big.NewInt(math.MaxUint32)) // big.Int's And is two's complement
	return big.NewInt(int64(int32(uint32(low.Uint64()))))  //nolint:gosec // Java's int
}

// javaKeyHash is PrimaryKeyData.hashCode: of Arrays.hashCode, its absolute value.
func javaKeyHash(types []*changelog.Type, values []changelog.Value) int64 {
	h := big.NewInt(1)
	for i, t := range types {
		h.Add(h.Mul(h, big.NewInt(31)), intOf(javaHash(t, values[i])))
	}
	h = intOf(h)
	return min(new(big.Int).Abs(h).Int64(), math.MaxInt32)
}

// anyKey draws the types and values of a key: all types that have a hash, edges and nulls among them.
func anyKey(t *rapid.T) (types []*changelog.Type, values []changelog.Value) {
	for range rapid.IntRange(1, 4).Draw(t, "columns") {
		typ := changelog.Primitive(changelog.Kind(rapid.Uint8Range(uint8(changelog.Boolean), uint8(changelog.Binary)).Draw(t, "kind")))
		if typ.Kind == changelog.Decimal {
			typ.Precision = rapid.IntRange(1, 38).Draw(t, "precision")
			typ.Scale = rapid.IntRange(0, typ.Precision).Draw(t, "scale")
		}
		if typ.Kind == changelog.Fixed {
			typ.Length = rapid.IntRange(1, 20).Draw(t, "length")
		}
		types, values = append(types, typ), append(values, anyKeyValue(t, typ))
	}
	return types, values
}

func anyKeyValue(t *rapid.T, typ *changelog.Type) changelog.Value {
	if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		return changelog.NullValue
	}
	raw := func(least, most int) changelog.Value {
		return changelog.Value{B: rapid.SliceOfN(rapid.Byte(), least, most).Draw(t, "bytes")}
	}
	switch typ.Kind {
	case changelog.Boolean:
		return changelog.Value{I: int64(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case changelog.Int, changelog.Date:
		return changelog.Value{I: int64(rapid.OneOf(rapid.Int32(), rapid.SampledFrom([]int32{math.MinInt32, math.MaxInt32, 2147483616, 2147483617, -31})).Draw(t, "int"))}
	case changelog.Float: // any bits: every NaN
		return changelog.Value{I: int64(rapid.OneOf(rapid.Uint32(), rapid.SampledFrom([]uint32{0, 1 << 31, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff})).Draw(t, "bits"))}
	case changelog.Double:
		bits := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1 << 63, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000001, math.MaxUint64}))
		return changelog.Value{I: int64(bits.Draw(t, "bits"))} //nolint:gosec // bits
	case changelog.Decimal:
		digits := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789")), 1, typ.Precision, -1).Draw(t, "digits")
		n, _ := new(big.Int).SetString(digits, 10)
		if rapid.Bool().Draw(t, "negative") {
			n.Neg(n)
		}
		return changelog.Value{B: changelog.AppendBigInt(nil, n)}
	case changelog.String:
		runes := rapid.OneOf(rapid.Rune(), rapid.RuneFrom([]rune("a\x00é\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0001F600\U0010FFFF")))
		return changelog.Value{B: []byte(rapid.StringOf(runes).Draw(t, "string"))}
	case changelog.UUID:
		return raw(16, 16)
	case changelog.Fixed:
		return raw(typ.Length, typ.Length)
	case changelog.Binary:
		return raw(0, 30)
	default:
		return changelog.Value{I: rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, -1, 1 << 31, 1 << 32, -1 << 31})).Draw(t, "long")}
	}
}

// TestHashModel: the hash of any key is that of the Javadoc.
func TestHashModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		types, values := anyKey(t)
		if got, want := KeyHash(types, values), javaKeyHash(types, values); int64(got) != want {
			t.Fatalf("%v of %v: %d, want %d", values, types, got, want)
		}
	})
}

// TestHashJDK: so say the JDK's own classes. FIRN_TEST_JAVA names the program java, of version 17 or later.
func TestHashJDK(t *testing.T) {
	java := os.Getenv("FIRN_TEST_JAVA")
	if java == "" {
		t.Skip("FIRN_TEST_JAVA does not name a java to ask")
	}
	var input strings.Builder
	var want []string
	key := rapid.Custom(func(t *rapid.T) string {
		types, values := anyKey(t)
		words := []string{strconv.Itoa(int(KeyHash(types, values)))}
		for i, typ := range types {
			words = append(words, javaText(typ, values[i]))
		}
		return strings.Join(words, " ")
	})
	for seed := range 5000 {
		hash, rest, _ := strings.Cut(key.Example(seed), " ")
		want = append(want, hash)
		input.WriteString(rest + "\n")
	}
	cmd := exec.CommandContext(t.Context(), java, "testdata/KeyHash.java") //nolint:gosec // who runs the test names it
	cmd.Stdin = strings.NewReader(input.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	got, keys := strings.Fields(string(out)), strings.Split(input.String(), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d hashes of %d keys", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s: %s, the JDK says %s", keys[i], want[i], got[i])
		}
	}
}

// javaText spells a value as KeyHash.java reads it.
func javaText(t *changelog.Type, v changelog.Value) string {
	if v.Null {
		return "null"
	}
	switch t.Kind {
	case changelog.Int, changelog.Date:
		return fmt.Sprint("int:", v.I)
	case changelog.Boolean, changelog.Float, changelog.Double:
		return fmt.Sprint(t.Kind, ":", v.I)
	case changelog.Decimal:
		return fmt.Sprint("decimal:", changelog.BigInt(v.B), ":", t.Scale)
	case changelog.String, changelog.UUID:
		return t.Kind.String() + ":" + hex.EncodeToString(v.B)
	case changelog.Fixed, changelog.Binary:
		return "binary:" + hex.EncodeToString(v.B)
	default:
		return fmt.Sprint("long:", v.I)
	}
}
