package file

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// lines reads the lines of a file. A last line without an end is held back until it has one, or until the caller says
// that the file is complete.
type lines struct {
	path    string
	file    *os.File
	in      *bufio.Reader
	partial []byte // what was read of a line that had no end yet
	line    []byte
	number  int
}

const (
	readBytes    = 256 << 10
	maxLineBytes = 256 << 20
)

func openLines(path string) (*lines, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &lines{path: path, file: f}
	if !zipped(path) {
		l.in = bufio.NewReaderSize(f, readBytes)
		return l, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	l.in = bufio.NewReaderSize(z, readBytes)
	return l, nil
}

func (l *lines) close() error { return l.file.Close() }

// next returns the next line without its end, valid until the following call; io.EOF at the end of what is there, after
// which next may be called again. complete takes a last line without an end, too.
func (l *lines) next(complete bool) ([]byte, error) {
	for {
		b, err := l.in.ReadSlice('\n')
		if err == nil && len(l.partial) == 0 {
			l.number++
			return b[:len(b)-1], nil
		}
		if len(l.partial)+len(b) > maxLineBytes {
			return nil, fmt.Errorf("%s, line %d: longer than %d bytes", l.path, l.number+1, maxLineBytes)
		}
		l.partial = append(l.partial, b...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%s, line %d: %w", l.path, l.number+1, err)
		case err != nil && (!complete || len(l.partial) == 0):
			return nil, io.EOF
		}
		l.number++
		l.line, l.partial = l.partial, l.line[:0]
		if n := len(l.line); l.line[n-1] == '\n' {
			return l.line[:n-1], nil
		}
		return l.line, nil
	}
}
