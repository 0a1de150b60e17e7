package main

import (
	"bufio"
	"bytes"
	"container/heap"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
)

// lineSorter sorts lines bytewise, as sort does under LC_ALL=C. What does not fit its memory goes to files that it
// removes: Close it. Lines hold no newline.
type lineSorter struct {
	limit int // bytes in memory
	text  []byte
	ends  []int // of the lines in text
	runs  []*os.File
}

const sortMemory = 64 << 20

func newLineSorter() *lineSorter { return &lineSorter{limit: sortMemory} }

// add takes a copy of line.
func (s *lineSorter) add(line []byte) error {
	if len(s.text)+len(line)+16*len(s.ends) > s.limit && len(s.ends) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.text = append(s.text, line...)
	s.ends = append(s.ends, len(s.text))
	return nil
}

// inMemory returns the lines in memory in order.
func (s *lineSorter) inMemory() [][]byte {
	lines := make([][]byte, len(s.ends))
	start := 0
	for i, end := range s.ends {
		lines[i], start = s.text[start:end], end
	}
	slices.SortFunc(lines, bytes.Compare)
	return lines
}

func (s *lineSorter) spill() error {
	f, err := os.CreateTemp("", "firn-sort-*")
	if err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	s.runs = append(s.runs, f)
	if err := os.Remove(f.Name()); err != nil { // it lives as long as it is open
		return fmt.Errorf("sort: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for _, line := range s.inMemory() {
		_, _ = w.Write(line) // bufio keeps the error for Flush
		_ = w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	s.text, s.ends = s.text[:0], s.ends[:0]
	return nil
}

// lines yields all lines in order, once; a line is valid until the next one. An error comes last.
func (s *lineSorter) lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		memory := s.inMemory()
		if len(s.runs) == 0 {
			for _, line := range memory {
				if !yield(line, nil) {
					return
				}
			}
			return
		}
		h := runHeap{}
		for _, f := range s.runs {
			h = append(h, &sortedRun{in: bufio.NewReaderSize(f, 256<<10)})
		}
		h = append(h, &sortedRun{memory: memory})
		for i := 0; i < len(h); {
			ok, err := h[i].next()
			if err != nil {
				yield(nil, err)
				return
			}
			if ok {
				i++
			} else {
				h = slices.Delete(h, i, i+1)
			}
		}
		heap.Init(&h)
		for len(h) > 0 {
			if !yield(h[0].line, nil) {
				return
			}
			ok, err := h[0].next()
			switch {
			case err != nil:
				yield(nil, err)
				return
			case ok:
				heap.Fix(&h, 0)
			default:
				heap.Pop(&h)
			}
		}
	}
}

// Close removes the files.
func (s *lineSorter) Close() error {
	var errs []error
	for _, f := range s.runs {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// sortedRun is one sorted part: lines of a file or in memory.
type sortedRun struct {
	in     *bufio.Reader
	memory [][]byte
	line   []byte
}

func (r *sortedRun) next() (bool, error) {
	if r.in == nil {
		if len(r.memory) == 0 {
			return false, nil
		}
		r.line, r.memory = r.memory[0], r.memory[1:]
		return true, nil
	}
	line, err := readLine(r.in)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sort: %w", err)
	}
	r.line = line
	return true, nil
}

type runHeap []*sortedRun

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return bytes.Compare(h[i].line, h[j].line) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *runHeap) Push(x any) { *h = append(*h, x.(*sortedRun)) }

// Pop implements heap.Interface.
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
