package decode

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// TestRules: each reason has its rule in words.
func TestRules(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "reject.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	reasons := 0
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		reason, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil || Rule(reason) == "" {
			t.Errorf("%s has no rule, %v", reason, err)
		}
		reasons++
		return true
	})
	if reasons < 40 || reasons != len(rules) {
		t.Errorf("%d reasons, %d rules", reasons, len(rules))
	}
}

// TestRead: a document is read up to where it is broken, and the place is named.
func TestRead(t *testing.T) {
	for _, c := range []struct {
		doc   string
		limit int
		text  string // white space aside
		bytes int64
		path  string
		why   string
	}{
		{`{"a":[1,{"b":null}]}`, 100, `{"a":[1,{"b":null}]}`, 20, "", ""},
		{`{"a":{"b":[1,2,x]}}`, 100, `{"a":{"b":[1,2,`, 15, "/a/b/2", "invalid character 'x'"},
		{`{"a":1,"b":`, 100, `{"a":1,"b":`, 11, "/b", "unexpected EOF"},
		{`{"a":1,"a":2}`, 100, `{"a":1,`, 7, "/a", "duplicate object member name"},
		{"\x00\x00\x00\x00\x07", 100, "", 0, "", "invalid character"},
		{"", 100, "", 0, "", ""},
		{`{"a":"` + strings.Repeat("x", 100) + `"}`, 20, `{"a":"xxxxxxxxxxxxxx`, 20, "/a", "only the beginning is shown"},
	} {
		r := Read([]byte(c.doc), c.limit)
		text := strings.Join(strings.Fields(r.Text), "")
		if text != c.text || r.Bytes != c.bytes || r.Path != c.path || !strings.Contains(r.Error, c.why) || (r.Error == "") != (c.why == "") {
			t.Errorf("%q: %q, %d bytes, at %q: %q", c.doc, text, r.Bytes, r.Path, r.Error)
		}
	}
}
