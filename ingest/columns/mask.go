package columns

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/ingest/decode"
)

// minSalt is how many bytes a salt has at least: with less, texts could be guessed together with it.
const minSalt = 16

// hash has columns hold HMAC-SHA-256, keyed with the salt, of their text as rows show it, in 64 lower-case hex digits. Types that a
// column may be widened to hash alike: floats as doubles, decimals without zeros at their end.
func (r *rule) hash(from *changelog.Type) (unary, *changelog.Type, error) {
	if from.Nested() {
		return nil, nil, fmt.Errorf("is a %s: lists, maps and structs have no text to hash", from.Kind)
	}
	mac := hmac.New(sha256.New, []byte(r.Salt))
	return func(a *Applier, v changelog.Value) (changelog.Value, *decode.Rejected) {
		typ := from
		if typ.Kind == changelog.Float {
			typ, v = doubleType, changelog.DoubleValue(float64(v.Float()))
		}
		text := v.B
		if typ.Kind != changelog.String {
			a.scratch = rowjson.AppendText(a.scratch[:0], typ, v)
			text = a.scratch
		}
		if typ.Kind == changelog.Decimal && typ.Scale > 0 {
			text = bytes.TrimSuffix(bytes.TrimRight(text, "0"), []byte{'.'})
		}
		mac.Reset()
		mac.Write(text)
		a.sum = mac.Sum(a.sum[:0])
		return a.appended(func(dst []byte) []byte { return hex.AppendEncode(dst, a.sum) }), nil
	}, stringType, nil
}

var (
	stringType = changelog.Primitive(changelog.String)
	doubleType = changelog.Primitive(changelog.Double)
)

// redacted is what texts become unless the rule says otherwise.
const redacted = "REDACTED"

// redact has columns hold one value, or null, in place of all others. Null stays null.
func (r *rule) redact(from *changelog.Type) (unary, *changelog.Type, error) {
	v := changelog.NullValue
	switch {
	case from.Kind == changelog.String:
		v = changelog.Value{B: []byte(orElse(r.Value, redacted))}
	case r.Value != "" && from.Nested():
		return nil, nil, fmt.Errorf("is a %s: leave value out, and it is null", from.Kind)
	case r.Value != "":
		var err error
		if v, err = rowjson.ParseText(from, r.Value); err != nil {
			return nil, nil, fmt.Errorf("cannot hold value: %w", err)
		}
	}
	return func(*Applier, changelog.Value) (changelog.Value, *decode.Rejected) { return v, nil }, from, nil
}

// truncate cuts texts to a number of characters.
func (r *rule) truncate(from *changelog.Type) (unary, *changelog.Type, error) {
	if from.Kind != changelog.String {
		return nil, nil, fmt.Errorf("is a %s: only strings can be truncated", from)
	}
	return func(_ *Applier, v changelog.Value) (changelog.Value, *decode.Rejected) {
		end := 0
		for range r.Length {
			if end == len(v.B) {
				return v, nil
			}
			_, n := utf8.DecodeRune(v.B[end:])
			end += n
		}
		return changelog.Value{B: v.B[:end:end]}, nil
	}, from, nil
}
