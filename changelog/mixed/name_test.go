package mixed

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// amoroName is FileNameRules' pattern. Go's engine has no "whole of it" and other line ends: both are spelt out.
var amoroName = regexp.MustCompile(`\A\.?([0-9]+)-([A-Za-z0-9_]+)-([0-9]+)-([0-9]+)-([0-9]+)-[^\n\r\x{85}\x{2028}\x{2029}]*\z`)

// nameModel is what Amoro makes of a path: type "" if the name is foreign; bad where it hangs or throws.
func nameModel(path string) (node, txn int64, typ string, bad bool) {
	m := amoroName.FindStringSubmatch(path[strings.LastIndex(path, "/")+1:])
	if m == nil || !strings.Contains(" B I ED PD IED L ", " "+m[2]+" ") {
		return 0, 0, "", false
	}
	number := func(s string) int64 {
		n, _ := new(big.Int).SetString(s, 10)
		bad = bad || n.BitLen() > 63
		return n.Int64()
	}
	node, txn = number(m[1]), number(m[3])
	return node, txn, m[2], bad || node == 0
}

// anyName draws names that are nearly right: each part may be what looks like one and is none.
func anyName(t *rapid.T) string {
	number := rapid.OneOf(
		rapid.StringMatching(`0{0,3}[0-9]{1,20}`), rapid.SampledFrom([]string{"", "0", "1", "007", "-1", "+1", "1.0", "１", "٣", "9223372036854775807", "9223372036854775808", "00000000000000000000000001", "1 "}),
	)
	code := rapid.SampledFrom([]string{"B", "I", "ED", "PD", "IED", "L", "b", "ed", "", "X", "B_", "É", "I ", "12"})
	rest := rapid.OneOf(rapid.SampledFrom([]string{"1-00001.parquet", "", ".", "a-b-c", "x\n", "x\ry", "\u0085", "\u2028", "a\u2029b", "é", "1-00001.parquet.crc", "\n"}), rapid.StringMatching(`[a-z0-9-]{0,12}`))
	dash := rapid.SampledFrom([]string{"-", "-", "-", "-", "-", "-", "-", "–", "", "--"})
	name := ""
	for i, part := range []*rapid.Generator[string]{number, code, number, number, number, rest} {
		if i > 0 {
			name += dash.Draw(t, "dash")
		}
		name += part.Draw(t, "part")
	}
	return rapid.SampledFrom([]string{"", "", "", ".", "..", "/", "data/", "file:///a b/x=1-B-0/", "5-I-0-00000-0-/", "x/./."}).Draw(t, "before") + name + rapid.SampledFrom([]string{"", "", "", "", "/", "\n"}).Draw(t, "after")
}

// checkName holds both parsers against the model.
func checkName(path string, sequence int64) error {
	node, txn, typ, bad := nameModel(path)
	base, errBase := ParseBase(path)
	change, errChange := ParseChange(path, sequence)
	if bad {
		if !errors.Is(errBase, ErrBadName) || !errors.Is(errChange, ErrBadName) {
			return fmt.Errorf("%q: want %w: %w", path, ErrBadName, errors.Join(errBase, errChange))
		}
		return nil
	}
	if errBase != nil || errChange != nil {
		return fmt.Errorf("%q: %w", path, errors.Join(errBase, errChange))
	}
	want := fmt.Sprintf("%d B 0, %d I %d", 1, 1, sequence)
	if typ != "" {
		own, inBase := txn, strings.Replace(" "+typ, " I", " B", 1)[1:]
		if typ == "IED" {
			inBase = typ
		}
		if txn == 0 {
			txn = sequence
		}
		want = fmt.Sprintf("%d %s %d, %d %s %d", node, inBase, own, node, typ, txn)
	}
	if got := fmt.Sprintf("%d %s %d, %d %s %d", base.Node.ID(), base.Type, base.Txn, change.Node.ID(), change.Type, change.Txn); got != want {
		return fmt.Errorf("%q: %s, want %s", path, got, want)
	}
	return nil
}

// TestNameModel: names, right ones and others, are to us what they are to the pattern.
func TestNameModel(t *testing.T) {
	known := 0
	rapid.Check(t, func(t *rapid.T) {
		for range 50 {
			path := anyName(t)
			if _, _, typ, _ := nameModel(path); typ != "" {
				known++
			}
			if err := checkName(path, rapid.Int64Range(1, math.MaxInt64).Draw(t, "sequence")); err != nil {
				t.Fatal(err)
			}
		}
	})
	if known < 20 {
		t.Errorf("%d names had the pattern's form: too few to tell", known)
	}
}

// FuzzName looks for names that are something else to us.
func FuzzName(f *testing.F) {
	for _, name := range []string{"5-I-0-00000-3-8463728193847362-00001.parquet", "a/.1-ED-7-1-1-", "0-B-0-0-0-x", "1-PD-9223372036854775808-0-0-x", "1-L-1-1-1-x\u2028", "00000-0-4f3c-00001.parquet"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if err := checkName(path, 17); err != nil {
			t.Fatal(err)
		}
	})
}
