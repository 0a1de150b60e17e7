// The import table of the project, as a test: who may import whom, and which tree owns which dependency.
package cmd_test

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "firn/" // the module path and a slash

// mayImport lists, for each package tree, the other trees of this module that it may import. A package belongs to
// the longest key that is a prefix of it. cmd may import everything.
var mayImport = map[string][]string{
	"changelog":          {},
	"changelog/rowjson":  {"changelog"},
	"changelog/mixed":    {"changelog"},
	"changelog/datafile": {"changelog", "changelog/mixed"},
	"changelog/merge":    {"changelog", "changelog/mixed", "changelog/datafile"},
	"changelog/table":    {"changelog", "changelog/mixed"},
	"changelog/flush":    {"changelog", "changelog/mixed", "changelog/datafile", "changelog/merge", "changelog/table", "state"},
	"state/keyspace":     {"changelog"},
	"state":              {"changelog", "state/keyspace"},
	"logstore":           {"changelog", "state", "state/keyspace"},
	"logstore/httpapi":   {"changelog", "changelog/rowjson", "logstore", "state"},
	"ingest/decode":      {"changelog"},
	"ingest/columns":     {"changelog", "changelog/rowjson", "ingest/decode"}, // masks and casts take values by the text that rows show
	"ingest":             {"changelog", "ingest/decode", "ingest/columns"},
	"ingest/kafka":       {"changelog", "ingest"},
	"ingest/file":        {"changelog", "ingest"},
	"ingest/registry":    {"ingest", "ingest/decode"}, // implements ingest.Schemas, and answers with decode's rejections
	"ingest/sourcetest":  {"changelog", "ingest"},
	"optimizer":          {"changelog", "changelog/mixed", "changelog/datafile", "changelog/merge", "changelog/table", "state"},
}

// owners lists the only trees, besides cmd, that may import a third-party module.
var owners = map[string][]string{
	"github.com/cockroachdb/pebble/": {"state", "logstore"},
	// The lake's files lie on Pebble's file system, so that tests can lose power there as they do under the log.
	"github.com/cockroachdb/pebble/v2/vfs": {"logstore", "changelog/table"},
	"github.com/twmb/franz-go":             {"ingest/kafka"},
	"github.com/apache/iceberg-go":         {"changelog/table"},
	// What the catalogs that table opens are reached with.
	"modernc.org/sqlite":   {"changelog/table"},
	"github.com/jackc/pgx": {"changelog/table"},
	"golang.org/x/oauth2":  {"changelog/table"},
	"cel.dev/cel-go":       {"ingest/columns"},
	// Columnar begins where files begin: datafile and merge own the readers and writers; flush builds the batches
	// that it hands to datafile, optimizer passes batches from merge to datafile, and table maps schemas to Arrow's.
	"github.com/apache/arrow-go/": {"changelog/datafile", "changelog/merge", "changelog/table", "optimizer"},
	// Settings and flags end in cmd: packages have Options.
	"go.yaml.in/yaml/":       {},
	"github.com/spf13/cobra": {},
}

// topLevel is all that may stand beside the dot files at the top of the checkout.
var topLevel = []string{
	"cmd", "ingest", "logstore", "changelog", "optimizer", "state", "deploy",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE",
}

// tree returns the longest key of mayImport that is p or a parent of p, or "".
func tree(p string) string {
	for ; p != "."; p = path.Dir(p) {
		if _, ok := mayImport[p]; ok {
			return p
		}
	}
	return ""
}

func violation(from, imp string) string {
	if p, ours := strings.CutPrefix(imp, module); ours {
		if to := tree(p); to != from && !slices.Contains(mayImport[from], to) {
			return "may import only " + strings.Join(mayImport[from], ", ")
		}
		return ""
	}
	owned := "" // the longest prefix: the rule for a part of a module stands before the module's
	for prefix := range owners {
		if strings.HasPrefix(imp, prefix) && len(prefix) > len(owned) {
			owned = prefix
		}
	}
	if trees := owners[owned]; owned != "" && !slices.Contains(trees, from) {
		return "only " + strings.Join(append([]string{"cmd"}, trees...), ", ") + " may"
	}
	if first, _, _ := strings.Cut(imp, "/"); from == "changelog" && strings.Contains(first, ".") {
		return "changelog itself imports the standard library only"
	}
	return ""
}

// TestViolation proves that the rules can fail.
func TestViolation(t *testing.T) {
	for _, c := range []struct {
		from, imp string
		bad       bool
	}{
		{"ingest", "firn/changelog", false},
		{"ingest", "firn/optimizer", true},
		{"ingest/kafka", "firn/ingest", false},
		{"changelog", "firn/changelog/mixed", true},
		{"changelog", "github.com/zeebo/xxh3", true},
		{"changelog", "encoding/json", false},
		{"optimizer", "firn/changelog/flush", true},
		{"optimizer", "github.com/cockroachdb/pebble/v2", true},
		{"logstore", "github.com/cockroachdb/pebble/v2/vfs", false},
		{"changelog/table", "github.com/cockroachdb/pebble/v2", true},
		{"changelog/table", "github.com/cockroachdb/pebble/v2/vfs", false},
		{"changelog/flush", "github.com/cockroachdb/pebble/v2/vfs", true},
		{"state", "github.com/spf13/cobra", true},
	} {
		if why := violation(c.from, c.imp); (why != "") != c.bad {
			t.Errorf("violation(%q, %q) = %q, want a reason: %t", c.from, c.imp, why, c.bad)
		}
	}
}

// goFiles calls visit for every non-test Go file of this module with its folder relative to the top, slash-separated.
// testdata, dot folders and nested modules (deploy/tools, deploy/peers/load) are not ours to judge.
func goFiles(t *testing.T, visit func(file, dir string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file == ".." {
				return nil
			}
			if d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel("..", filepath.Dir(file))
		if err != nil {
			return err
		}
		visit(file, filepath.ToSlash(dir))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	paths := make([]string, 0, len(f.Imports))
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		paths = append(paths, p)
	}
	return paths
}

// TestImports reads the files itself, not through "go list", so that the test cache sees every file it depends on.
func TestImports(t *testing.T) {
	for dir := range mayImport {
		if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(dir))); err != nil {
			t.Errorf("rule for a tree that is gone: %v", err)
		}
	}
	goFiles(t, func(file, dir string) {
		if dir == "cmd" || strings.HasPrefix(dir, "cmd/") {
			return
		}
		from := tree(dir)
		if from == "" {
			t.Errorf("%s: no rule for its tree", file)
			return
		}
		for _, imp := range importsOf(t, file) {
			if why := violation(from, imp); why != "" {
				t.Errorf("%s imports %s: %s", file, imp, why)
			}
		}
	})
}

// TestOwnersAreUsed keeps the owners' map honest: a right that a tree does not use is taken away.
func TestOwnersAreUsed(t *testing.T) {
	used := map[string][]string{} // tree -> imports
	goFiles(t, func(file, dir string) {
		from := tree(dir)
		used[from] = append(used[from], importsOf(t, file)...)
	})
	for prefix, trees := range owners {
		for _, from := range trees {
			if !slices.ContainsFunc(used[from], func(imp string) bool { return strings.HasPrefix(imp, prefix) }) {
				t.Errorf("owners[%q] names %s, which does not import it: remove it", prefix, from)
			}
		}
	}
}

// TestTopLevel keeps the top of the checkout to what a newcomer has to read. Names that .gitignore anchors there
// (build output, a local run's data) are no part of the project.
func TestTopLevel(t *testing.T) {
	ignored := gitignored(t)
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) && !slices.Contains(ignored, name) {
			t.Errorf("%s does not belong at the top level: only dot files and %s do", name, strings.Join(topLevel, ", "))
		}
	}
}

// gitignored returns the names that ../.gitignore anchors at the top: "/name" or "/name/".
func gitignored(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("../.gitignore")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, anchored := strings.CutPrefix(lines.Text(), "/"); anchored {
			names = append(names, strings.TrimSuffix(name, "/"))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}
