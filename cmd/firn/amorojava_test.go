package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// javaPeer is the folder that FIRN_TEST_JAVAICEBERG names (deploy/peers/javaiceberg); "": Java is not asked.
func javaPeer() string { return os.Getenv("FIRN_TEST_JAVAICEBERG") }

// javaReads runs a program of the Java peer on tables, in one process, and returns what it printed of each: the violations that check finds
// in both stores, or the rows of the base store from dump. What it could not read is an error.
func javaReads(t *testing.T, program string, names []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	var list strings.Builder
	outs := map[string][]string{}
	for _, name := range names {
		for i, metadata := range strings.Fields(metadataOf(t, name)) {
			if i > 0 && program == "dump" {
				break
			}
			out := filepath.Join(dir, fmt.Sprintf("%s-%d", name, i))
			outs[name] = append(outs[name], out)
			fmt.Fprintf(&list, "%s\t%s\n", metadata, out)
		}
	}
	file := filepath.Join(dir, "list")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(javaPeer(), program), "--list", file).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
	said := map[string]string{}
	for name, files := range outs {
		for _, out := range files {
			if why, err := os.ReadFile(out + ".err"); err == nil {
				t.Errorf("%s of %s: %s", program, name, why)
				continue
			}
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			said[name] += string(b)
		}
	}
	return said
}

// soundForJava holds tables of Amoro's that firn has written against Iceberg's Java library: its check finds nothing in them that it had not found
// before, and reads the base rows that firn does.
func soundForJava(t *testing.T, before map[string]string, names []string) {
	t.Helper()
	known := map[string]bool{}
	for _, text := range before {
		for line := range strings.Lines(text) {
			known[line] = true
		}
	}
	for name, text := range javaReads(t, "check", names) {
		for line := range strings.Lines(text) {
			if !known[line] {
				t.Errorf("%s: check: %s", name, line)
			}
		}
	}
	for name, rows := range javaReads(t, "dump", names) {
		got := strings.Join(slices.Sorted(strings.Lines(rows)), "")
		if want := firnOK(t, "dump", name, "--from", "base", "--catalog-uri", "catalog.db"); got != want {
			t.Errorf("%s: base rows by Java: %s", name, firstLine(got, want))
		}
	}
	t.Logf("Java's check and dump: %d tables", len(names))
}
