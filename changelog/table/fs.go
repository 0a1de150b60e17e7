package table

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS is the local file system as a lake uses it. Paths are those of manifests: "file:///a/b", "file:/a/b" or "/a/b", taken
// literally (nothing in them is percent-decoded). A file appears under its name whole and synced, or not at all. Options.FS
// tells what lies under it. Safe for concurrent use.
type FS struct {
	disk  vfs.FS
	known *sync.Map // directories that will still be there after a power loss
}

func newFS(disk vfs.FS) FS { return FS{disk: disk, known: new(sync.Map)} }

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
	fs   FS
	path string // where it will be
	temp string // where it is
	file vfs.File
	buf  []byte // not written yet
	done bool
}

// outputBuffer is how much of an Output is written at once.
const outputBuffer = 64 << 10

// Create starts a file at path, which must not exist at Commit; directories are made. Exactly one of Commit and Abort
// ends the Output (Abort after Commit does nothing).
func (s FS) Create(path string) (*Output, error) {
	name, err := local(path)
	if err != nil {
		return nil, err
	}
	dir := s.disk.PathDir(name)
	if err := s.mkdirs(dir); err != nil {
		return nil, err
	}
	temp := s.disk.PathJoin(dir, fmt.Sprintf("%s%016x.tmp", tempPrefix, rand.Uint64()))
	f, err := s.disk.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return &Output{fs: s, path: name, temp: temp, file: f}, nil
}

// Write appends p, which it copies: what is under it may change the bytes that it is given (vfs.File.Write).
func (o *Output) Write(p []byte) (n int, err error) {
	if o.buf == nil {
		o.buf = make([]byte, 0, outputBuffer)
	}
	for len(p) > n {
		if len(o.buf) == cap(o.buf) {
			if err := o.flush(); err != nil {
				return n, err
			}
		}
		k := copy(o.buf[len(o.buf):cap(o.buf)], p[n:])
		o.buf = o.buf[:len(o.buf)+k]
		n += k
	}
	return n, nil
}

func (o *Output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	_, err := o.file.Write(o.buf)
	o.buf = o.buf[:0]
	return err //nolint:wrapcheck // the disk names file and operation
}

// Commit makes the file durable and visible: it is synced, renamed, and its directory synced. On an error the file may
// or may not be there.
func (o *Output) Commit() error {
	o.done = true
	err := o.flush()
	if err == nil {
		err = o.file.Sync()
	}
	if err = errors.Join(err, o.file.Close()); err == nil {
		err = o.fs.disk.Rename(o.temp, o.path)
	} else {
		err = errors.Join(err, o.fs.disk.Remove(o.temp))
	}
	if err == nil {
		err = o.fs.syncDir(o.fs.disk.PathDir(o.path))
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
	_ = o.fs.disk.Remove(o.temp) // a leftover .tmp is never read
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
	*io.SectionReader
	file vfs.File
}

// Stat tells of the file.
func (i *Input) Stat() (fs.FileInfo, error) { return i.file.Stat() } //nolint:wrapcheck // the disk names the file

// Close releases the file.
func (i *Input) Close() error { return i.file.Close() } //nolint:wrapcheck // the disk names the file

// Open opens a file to read. Error: fs.ErrNotExist.
func (s FS) Open(path string) (*Input, error) {
	name, err := local(path)
	if err != nil {
		return nil, err
	}
	f, err := s.disk.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open lake file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open lake file: %w", err), f.Close())
	}
	return &Input{SectionReader: io.NewSectionReader(f, 0, info.Size()), file: f}, nil
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
func (s FS) Remove(path string) error {
	name, err := local(path)
	if err != nil {
		return err
	}
	if err := s.disk.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove lake file: %w", err)
	}
	return nil
}

// removeAll removes a directory and what is in it.
func (s FS) removeAll(path string) error {
	name, err := local(path)
	if err != nil {
		return err
	}
	if err := s.disk.RemoveAll(name); err != nil {
		return fmt.Errorf("remove lake directory: %w", err)
	}
	return nil
}

// mkdirs makes a directory and its parents, and sees to it that a power loss takes none of them: the parents of those that
// this process has not made or asked for are synced, too, for another may have been killed between the two.
func (s FS) mkdirs(dir string) error {
	if _, ok := s.known.Load(dir); ok {
		return nil
	}
	_, err := s.disk.Stat(dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err != nil && !made {
		return fmt.Errorf("make lake directory: %w", err)
	}
	parent := s.disk.PathDir(dir)
	if parent == dir {
		return nil
	}
	if err := s.mkdirs(parent); err != nil {
		return err
	}
	if made {
		if err := s.disk.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make lake directory: %w", err)
		}
	}
	// (A parent that may not be read is an old one of the system: lakes make theirs readable.)
	if err := s.syncDir(parent); err != nil && (made || !errors.Is(err, fs.ErrPermission)) {
		return err
	}
	s.known.Store(dir, nil)
	return nil
}

func (s FS) syncDir(dir string) error {
	d, err := s.disk.OpenDir(dir)
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
	info, err := s.disk.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("remove lake file: %w", err)
	}
	return info.Size(), s.Remove(path)
}
