package decode

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// scan reads a document with the scanner's skip, and says why it is refused; empty: it is not.
func scan(b []byte) string {
	if !utf8.Valid(b) {
		return ReasonUTF8
	}
	x := &scanner{b: b}
	if x.skip(maxDepth) && x.end() {
		return ""
	}
	return x.err.Reason
}

func TestScannerStrictness(t *testing.T) {
	for doc, want := range map[string]string{
		`{}`: "", ` [ ] `: "", `[1,2.5e-3,-0,"",true,false,null,{"a":{}}]`: "", `"a\u00e9\ud83d\ude42\n\/"`: "",
		"": ReasonJSONSyntax, " ": ReasonJSONSyntax, `{`: ReasonJSONSyntax, `[1,]`: ReasonJSONSyntax, `{"a":1,}`: ReasonJSONSyntax,
		`{"a"}`: ReasonJSONSyntax, `{a:1}`: ReasonJSONSyntax, `{"a":1 "b":2}`: ReasonJSONSyntax, `[1 2]`: ReasonJSONSyntax,
		`01`: ReasonJSONSyntax, `-`: ReasonJSONSyntax, `1.`: ReasonJSONSyntax, `.5`: ReasonJSONSyntax, `1e`: ReasonJSONSyntax, `1e+`: ReasonJSONSyntax,
		`+1`: ReasonJSONSyntax, `-01`: ReasonJSONSyntax, `NaN`: ReasonJSONSyntax, `nul`: ReasonJSONSyntax, `truE`: ReasonJSONSyntax,
		`"a`: ReasonJSONSyntax, `"a\"`: ReasonJSONSyntax, "\"a\tb\"": ReasonJSONSyntax, "\"\x00\"": ReasonJSONSyntax, `"\x"`: ReasonJSONSyntax,
		`"\u12g4"`: ReasonJSONSyntax, `"\u12"`: ReasonJSONSyntax, `"\ud800"`: ReasonUTF8, `"\udc00"`: ReasonUTF8,
		`"\ud800\ud800"`: ReasonUTF8, `"\udc00\udc00"`: ReasonUTF8, `"\ud800\u0041"`: ReasonUTF8, `{"\ud800":1}`: ReasonUTF8,
		"\"0123456789abcde\x1f\"": ReasonJSONSyntax, "\"0123456789abcdefg\x01\"": ReasonJSONSyntax,
		`{"a":1,"a":2}`: ReasonJSONDuplicateKey, `{"a":1,"\u0061":2}`: ReasonJSONDuplicateKey, `[{"b":{"a":1,"c":2,"a":3}}]`: ReasonJSONDuplicateKey,
		`{} {}`: ReasonJSONTrailing, `1x`: ReasonJSONTrailing, `nullnull`: ReasonJSONTrailing, "{}\x00": ReasonJSONTrailing,
		strings.Repeat("[", 64) + strings.Repeat("]", 64): "", strings.Repeat("[", 65) + strings.Repeat("]", 65): ReasonJSONDepth,
		strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65): ReasonJSONDepth,
		"\xff": ReasonUTF8, "\"\xc3\x28\"": ReasonUTF8, "\xef\xbb\xbf{}": ReasonJSONSyntax,
	} {
		if got := scan([]byte(doc)); got != want {
			t.Errorf("%.60q: %q, want %q", doc, got, want)
		}
	}
}

// TestScannerManyNames: duplicates are found in objects with many members, and in objects inside and after them.
func TestScannerManyNames(t *testing.T) {
	for _, n := range []int{30, 31, 32, 33, 34, 100, 5000} {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(`"` + strings.Repeat("x", i%7) + string(rune('A'+i%26)) + strings.Repeat("y", i) + `":{"a":1,"b":{"a":2}}`)
			if b.Len() > 1<<20 {
				break
			}
		}
		if got := scan([]byte("[{" + b.String() + `},{"a":1}]`)); got != "" {
			t.Errorf("%d names: %s", n, got)
		}
		if got := scan([]byte("[{" + b.String() + `,"A":2}]`)); got != ReasonJSONDuplicateKey {
			t.Errorf("%d names, the first again: %q", n, got)
		}
		if got := scan([]byte("[{" + b.String() + `,"z":{"q":1,"q":2}}]`)); got != ReasonJSONDuplicateKey {
			t.Errorf("%d names, one inside again: %q", n, got)
		}
	}
}

// TestScannerAgainstStandard: on mutated documents the scanner accepts what encoding/json does, but for what the
// standard decoder lets through (1.5), and reads the same texts.
func TestScannerAgainstStandard(t *testing.T) {
	seeds := []string{
		`{"before":null,"after":{"id":1,"s":"a\"b\\cé","n":-1.5e3},"op":"c","x":[true,false,null,[],{}]}`,
		`["\ud83d\ude42","",0,10,-0,0.0,1E5,"tab\tnl\n"]`,
	}
	rng := rand.New(rand.NewPCG(3, 4))
	const alphabet = `{}[]",:\/bfnrtu0123456789.eE+-  alsx` + "\t\n\x01"
	accepted := 0
	for i := range 200_000 {
		b := []byte(seeds[i%len(seeds)])
		for range 1 + rng.IntN(3) {
			p := rng.IntN(len(b))
			switch rng.IntN(3) {
			case 0:
				b[p] = alphabet[rng.IntN(len(alphabet))]
			case 1:
				b = append(b[:p], b[p+1:]...)
			default:
				b = append(b[:p], append([]byte{alphabet[rng.IntN(len(alphabet))]}, b[p:]...)...)
			}
		}
		got, valid := scan(b), json.Valid(b)
		switch {
		case got == "" && valid:
			accepted++
		case got == "" || valid && got != ReasonUTF8 && got != ReasonJSONDuplicateKey:
			t.Fatalf("%q: %q, json.Valid %v", b, got, valid)
		}
		var s string
		if x := (&scanner{b: b}); valid && got == "" && b[0] == '"' && json.Unmarshal(b, &s) == nil {
			if text, ok := x.text(); !ok || string(text) != s {
				t.Fatalf("%q: text %q, want %q", b, text, s)
			}
		}
	}
	if accepted < 1000 {
		t.Errorf("only %d documents were sound", accepted)
	}
}

// TestScannerText: strings of every length, with what ends them at every place, read as the standard decoder reads them.
func TestScannerText(t *testing.T) {
	for n := range 40 {
		for p := range n + 1 {
			for _, middle := range []string{`\n`, `\\`, `\"`, `\u0041`, `\ud83d\ude42`, "é", "🙂"} {
				doc := []byte(`"` + strings.Repeat("x", p) + middle + strings.Repeat("y", n-p) + `"`)
				var want string
				if err := json.Unmarshal(doc, &want); err != nil {
					t.Fatal(err)
				}
				x := &scanner{b: append(doc, " rest"...)}
				if got, ok := x.text(); !ok || string(got) != want || x.p != len(doc) {
					t.Fatalf("%s: %q at %d", doc, got, x.p)
				}
			}
		}
	}
}
