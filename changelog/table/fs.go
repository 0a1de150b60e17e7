package table

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	iceio "github.com/apache/iceberg-go/io"
)

// FS is the local file system as a lake uses it. Paths are those of manifests: "file:///a/b", "file:/a/b" or "/a/b", taken
// literally (nothing in them is percent-decoded). A file appears under its name whole and synced, or not at all. The zero
// value is ready; safe for concurrent use.
type FS struct{}

// ErrScheme reports a path that is no local file.
var ErrScheme = errors.New("table: not a local file")

// local returns the operating system's path.
func local(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "file:")
	if !ok {
		if i := strings.Index(path, "://"); i > 0 && !strings.Contains(path[:i], "/") {
			return "", fmt.Errorf("%q: %w", path, ErrScheme)
		}
		return path, nil
	}
	if authority, ok := strings.CutPrefix(rest, "//"); ok {
		if !strings.HasPrefix(authority, "/") {
			return "", fmt.Errorf("%q names a host: %w", path, ErrScheme)
		}
		return authority, nil
	}
	return rest, nil
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".firn-"

// Output is a file being written. It becomes visible in Commit.
type Output struct {
	path string // where it will be
	file *os.File
	done bool
}

// Create starts a file at path, which must not exist at Commit; directories are made. Exactly one of Commit and Abort
// ends the Output (Abort after Commit does nothing).
func (FS) Create(path string) (*Output, error) {
	name, err := local(path)
	if err != nil {
		return nil, err
	}
	if err := mkdirs(filepath.Dir(name)); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(name), tempPrefix+"*.tmp")
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return &Output{path: name, file: f}, nil
}

// Write appends p.
func (o *Output) Write(p []byte) (int, error) {
	return o.file.Write(p) //nolint:wrapcheck // os names file and operation
}

// Commit makes the file durable and visible: it is synced, renamed, and its directory synced. On an error the file may
// or may not be there.
func (o *Output) Commit() error {
	o.done = true
	err := errors.Join(o.file.Chmod(0o644), o.file.Sync(), o.file.Close())
	if err == nil {
		err = os.Rename(o.file.Name(), o.path)
	} else {
		err = errors.Join(err, os.Remove(o.file.Name()))
	}
	if err == nil {
		err = syncDir(filepath.Dir(o.path))
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", o.path, err)
	}
	return nil
}

// Abort drops the file.
func (o *Output) Abort() {
	if o.done {
		return
	}
	o.done = true
	_ = o.file.Close()           // nothing in it is wanted
	_ = os.Remove(o.file.Name()) // a leftover .tmp is never read
}

// WriteFile writes a whole file as Create and Commit do.
func (s FS) WriteFile(path string, content []byte) error {
	o, err := s.Create(path)
	if err != nil {
		return err
	}
	if _, err := o.Write(content); err != nil {
		o.Abort()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return o.Commit()
}

// Input is an open file.
type Input struct {
	*os.File
	size int64
}

// Size returns the file's length when it was opened.
func (i *Input) Size() int64 { return i.size }

// Open opens a file to read. Error: fs.ErrNotExist.
func (FS) Open(path string) (*Input, error) {
	name, err := local(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open lake file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open lake file: %w", err), f.Close())
	}
	return &Input{File: f, size: info.Size()}, nil
}

// ReadFile returns a whole file. Error: fs.ErrNotExist.
func (s FS) ReadFile(path string) ([]byte, error) {
	in, err := s.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(in)
	return b, errors.Join(err, in.Close())
}

// Remove removes a file. One that is not there is no error.
func (FS) Remove(path string) error {
	name, err := local(path)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lake file: %w", err)
	}
	return nil
}

// removeAll removes a directory and what is in it.
func (FS) removeAll(path string) error {
	name, err := local(path)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(name); err != nil {
		return fmt.Errorf("remove lake directory: %w", err)
	}
	return nil
}

// mkdirs makes a directory and its parents, and syncs the parent of each that it made.
func mkdirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make lake directory: %w", err)
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// libraryFS shows FS to the Iceberg library, which reads manifests through it.
type libraryFS struct{ fs FS }

// Open implements io.IO.
func (l libraryFS) Open(name string) (iceio.File, error) { return l.fs.Open(name) }

// Remove implements io.IO.
func (l libraryFS) Remove(name string) error { return l.fs.Remove(name) }

// removeSized removes a file and returns how long it was, or -1 if it was not there.
func (s FS) removeSized(path string) (int64, error) {
	name, err := local(path)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove lake file: %w", err)
	}
	return info.Size(), s.Remove(path)
}
