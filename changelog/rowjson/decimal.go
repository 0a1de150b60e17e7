package rowjson

import (
	"errors"
	"math/big"
	"strings"

	"firn/changelog"
)

// appendDecimal shows an unscaled two's complement number with exactly scale digits after the point.
func appendDecimal(dst, unscaled []byte, scale int) []byte {
	negative := len(unscaled) > 0 && unscaled[0]&0x80 != 0
	var digits [64]byte // 38 are the most that a decimal has
	i := len(digits)
	if len(unscaled) <= 8 {
		n := int64(0)
		if negative {
			n = -1
		}
		for _, b := range unscaled {
			n = n<<8 | int64(b)
		}
		u := uint64(n) //nolint:gosec // the magnitude of a negative number follows
		if negative {
			u = -u
		}
		for u > 0 {
			i--
			digits[i] = byte('0' + u%10)
			u /= 10
		}
	} else {
		text := new(big.Int).Abs(bigOf(unscaled)).String()
		i -= len(text)
		copy(digits[max(i, 0):], text)
		i = max(i, 0)
	}
	for len(digits)-i <= scale {
		i--
		digits[i] = '0'
	}
	if negative {
		dst = append(dst, '-')
	}
	point := len(digits) - scale
	dst = append(dst, digits[i:point]...)
	if scale > 0 {
		dst = append(append(dst, '.'), digits[point:]...)
	}
	return dst
}

func bigOf(twos []byte) *big.Int {
	n := new(big.Int).SetBytes(twos)
	if len(twos) > 0 && twos[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(twos))))
	}
	return n
}

var errDecimal = errors.New("not a decimal number such as 12.30")

// parseDecimal reads [-]digits[.digits]; digits after the scale may only be zeros.
func parseDecimal(s string, t *changelog.Type) ([]byte, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && fraction == "" || !allDigits(whole) || !allDigits(fraction) {
		return nil, errDecimal
	}
	if len(fraction) > t.Scale {
		if strings.Trim(fraction[t.Scale:], "0") != "" {
			return nil, errors.New("more digits after the point than the type has")
		}
		fraction = fraction[:t.Scale]
	}
	whole = strings.TrimLeft(whole, "0")
	if len(whole) > t.Precision-t.Scale {
		return nil, errors.New("more digits before the point than the type has")
	}
	n, ok := new(big.Int).SetString("0"+whole+fraction+strings.Repeat("0", t.Scale-len(fraction)), 10)
	if !ok {
		return nil, errDecimal
	}
	if negative {
		n.Neg(n)
	}
	return twosComplement(n), nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// twosComplement returns n, of at most 127 bits, in the form of a Decimal value.
func twosComplement(n *big.Int) []byte {
	var wide [17]byte
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 8*uint(len(wide))))
	}
	return changelog.ShortestInt(n.FillBytes(wide[:]))
}
