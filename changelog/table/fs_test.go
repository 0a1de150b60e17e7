package table

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestLocalPaths(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/a/b", "/a/b"},
		{"a/b", "a/b"},
		{"file:///a/b", "/a/b"},
		{"file:/a/b", "/a/b"},
		{"file:///w/region=50%25/x", "/w/region=50%25/x"}, // not decoded
		{"file:///w/region=%C3%A4%2F/x y", "/w/region=%C3%A4%2F/x y"},
		{"/w/a:b//c://d", "/w/a:b//c://d"},
	} {
		if got, err := local(c.in); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"s3://bucket/x", "hdfs://h/x", "file://host/x"} {
		if _, err := local(bad); !errors.Is(err, ErrScheme) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestOutput: a file is there whole after Commit, and not before, nor after Abort.
func TestOutput(t *testing.T) {
	s := newFS(vfs.Default)
	dir := "file://" + t.TempDir() + "/a/region=50%25"
	path := dir + "/x.parquet"
	out, err := s.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("visible before Commit: %v", err)
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
	out.Abort() // after Commit: nothing
	b, err := s.ReadFile(path)
	if err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	in, err := s.Open(path)
	if err != nil || in.Size() != 3 {
		t.Fatalf("%v", err)
	}
	in.Close()
	if out, err = s.Create(dir + "/y.parquet"); err != nil {
		t.Fatal(err)
	}
	out.Abort()
	names, err := os.ReadDir(strings.TrimPrefix(dir, "file://"))
	if err != nil || len(names) != 1 || names[0].Name() != "x.parquet" {
		t.Errorf("%v, %v", names, err)
	}
	if info, err := os.Stat(filepath.Join(strings.TrimPrefix(dir, "file://"), "x.parquet")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for range 2 { // a missing file is no error
		if err := s.Remove(path); err != nil {
			t.Error(err)
		}
	}
	if n, err := s.removeSized(path); err != nil || n != -1 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestHalfMadeDirectory: a process is killed between making a directory and syncing its parent; what the next one writes
// there outlives a power loss.
func TestHalfMadeDirectory(t *testing.T) {
	disk := vfs.NewCrashableMem()
	if err := disk.MkdirAll("/lake/shop/orders", 0o755); err != nil {
		t.Fatal(err)
	}
	s := newFS(disk)
	for _, path := range []string{"/lake/shop/orders/a", "/lake/shop/orders/b", "/lake/shop/items/c"} {
		if err := s.WriteFile(path, []byte(path)); err != nil {
			t.Fatal(err)
		}
	}
	after := newFS(disk.CrashClone(vfs.CrashCloneCfg{}))
	for _, path := range []string{"/lake/shop/orders/a", "/lake/shop/orders/b", "/lake/shop/items/c"} {
		if b, err := after.ReadFile(path); err != nil || string(b) != path {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
