package changelog

import (
	"bytes"
	"cmp"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestNullKeys: keys with nulls, which tables of others may have, come back, are told apart from all others, and sort first.
func TestNullKeys(t *testing.T) {
	s := &Schema{Columns: []Column{
		{ID: 1, Name: "a", Type: Primitive(String)}, {ID: 2, Name: "b", Type: Primitive(Long), Required: true}, {ID: 3, Name: "c", Type: &Type{Kind: Fixed, Length: 2}},
	}, Key: []int{3, 1, 2}}
	if err := s.Index(); err != nil {
		t.Fatal(err)
	}
	key := func(t *rapid.T, name string) []Value {
		text := func(least, most int) Value {
			if rapid.IntRange(0, 2).Draw(t, "null") == 0 {
				return NullValue
			}
			return Value{B: rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff, 'x'}), least, most).Draw(t, name)}
		}
		return []Value{text(2, 2), text(0, 3), {I: rapid.Int64Range(-2, 2).Draw(t, name)}}
	}
	order := func(a, b Value) int {
		switch {
		case a.Null || b.Null:
			return cmp.Compare(boolInt(!a.Null), boolInt(!b.Null))
		case a.B != nil:
			return bytes.Compare(a.B, b.B)
		}
		return cmp.Compare(a.I, b.I)
	}
	rapid.Check(t, func(t *rapid.T) {
		x, y := key(t, "x"), key(t, "y")
		a, b := s.AppendKey(nil, x), s.AppendKey(nil, y)
		want := cmp.Or(order(x[0], y[0]), order(x[1], y[1]), order(x[2], y[2]))
		if got := bytes.Compare(a, b); got != want {
			t.Fatalf("%v and %v: %x and %x", x, y, a, b)
		}
		back, err := s.KeyValues(a)
		if err != nil || order(back[0], x[0]) != 0 || order(back[1], x[1]) != 0 || back[2].I != x[2].I {
			t.Fatalf("%v came back as %v, %v", x, back, err)
		}
		if row := s.KeyOf(nil, []Value{x[1], x[2], x[0]}); !bytes.Equal(row, a) {
			t.Fatalf("%x of the row, %x", row, a)
		}
	})
	for _, bad := range []Key{{}, {2}, {1, 'x'}, {0, 1}} {
		if v, err := s.KeyValues(bad); err == nil {
			t.Errorf("%x: %v", bad, v)
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestNaNKeys: values that are no number are one key, whatever their bits; zeros of two signs are two keys.
func TestNaNKeys(t *testing.T) {
	for _, k := range []Kind{Float, Double} {
		typ := []*Type{Primitive(k)}
		of := func(bits32 uint32, bits64 uint64) string {
			v := Value{I: int64(bits32)}
			if k == Double {
				v.I = int64(bits64) //nolint:gosec // bits
			}
			return string(AppendKey(nil, typ, []Value{v}))
		}
		nan := of(0x7fc00000, 0x7ff8000000000000)
		if of(0xffffffff, math.MaxUint64) != nan || of(0x7f800001, 0x7ff0000000000001) != nan || of(0, 0) == of(1<<31, 1<<63) || of(0x7f800000, 0x7ff0000000000000) >= nan {
			t.Errorf("%s: keys of no numbers differ, or those of zeros do not", k)
		}
	}
}
