// Package file reads recordings as an ingest.Source: files of JSON lines, one record a line, as data/debezium/README.md
// of the specification and `firn replay` have them. Topics, partitions and offsets are those in the file. It also gives
// recordings other partitions.
//
// A line of a partition that is no whole record is given on as broken. A line that names no partition either is a record of
// a partition of its own, "file:" and the file's name, with its line number less one as offset: such lines are parked, and
// the others flow.
//
// Each partition reads the file on its own and skips the lines of the others, so that one that waits holds up no other:
// the cost is one pass over the file for each partition.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"firn/ingest"
)

// Source reads one recording. It implements ingest.Source.
type Source struct {
	opts            Options
	include, except []*regexp.Regexp

	mu struct {
		sync.Mutex
		scan   *lines // where the search for partitions stands; nil before the first
		done   bool   // the file is complete and searched
		bounds map[ingest.Partition]ingest.Bounds
	}
}

var _ ingest.Source = (*Source)(nil)

// Open returns a source. Error: o is not valid, or the file is not there.
func Open(o Options) (*Source, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Source{opts: o}
	s.mu.bounds = map[ingest.Partition]ingest.Bounds{}
	for _, p := range o.Topics {
		s.include = append(s.include, regexp.MustCompile(anchor(p)))
	}
	for _, p := range o.Exclude {
		s.except = append(s.except, regexp.MustCompile(anchor(p)))
	}
	scan, err := openLines(o.Path)
	if err != nil {
		return nil, fmt.Errorf("file source %q: %w", o.Name, err)
	}
	s.mu.scan = scan
	return s, nil
}

// Close closes the file.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.scan.close()
}

// Name implements ingest.Source.
func (s *Source) Name() string { return s.opts.Name }

func (s *Source) matches(topic []byte) bool {
	match := func(re *regexp.Regexp) bool { return re.Match(topic) }
	return (len(s.include) == 0 || slices.ContainsFunc(s.include, match)) && !slices.ContainsFunc(s.except, match)
}

// Bounds implements ingest.Source. It reads what it has not read of the file.
func (s *Source) Bounds(ctx context.Context, topic string) ([]ingest.Bounds, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.searchLocked(ctx); err != nil {
		return nil, fmt.Errorf("source %s: %w", s.opts.Name, err)
	}
	var all []ingest.Bounds
	for p, b := range s.mu.bounds {
		if topic == "" || topic == p.Topic {
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b ingest.Bounds) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Index - b.Index)
	})
	return all, nil
}

func (s *Source) searchLocked(ctx context.Context) error {
	for !s.mu.done {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := s.mu.scan.next(!s.opts.Follow)
		if errors.Is(err, io.EOF) {
			s.mu.done = !s.opts.Follow
			return nil
		}
		if err != nil {
			return err
		}
		p, offset, ok := s.place(line, s.mu.scan.number)
		if !ok {
			continue
		}
		b, ok := s.mu.bounds[p]
		if !ok {
			b = ingest.Bounds{Partition: p, Oldest: offset}
		}
		b.Oldest, b.End = min(b.Oldest, offset), max(b.End, offset+1)
		s.mu.bounds[p] = b
	}
	return nil
}

// place returns the partition and offset of a line; ok is false for one that is empty or not asked for.
func (s *Source) place(line []byte, number int) (p ingest.Partition, offset int64, ok bool) {
	if topic, index, offset, ok := head(line); ok {
		return ingest.Partition{Topic: string(topic), Index: index}, offset, s.matches(topic)
	}
	if len(bytes.TrimSpace(line)) == 0 {
		return p, 0, false
	}
	r, err := parse(line)
	if err != nil {
		return s.unplaced(), int64(number) - 1, true
	}
	return ingest.Partition{Topic: r.Topic, Index: r.Partition}, r.Offset, s.matches([]byte(r.Topic))
}

// unplaced is the partition of lines that name none. No broker allows the colon in a topic.
func (s *Source) unplaced() ingest.Partition {
	return ingest.Partition{Topic: "file:" + filepath.Base(s.opts.Path)}
}

// record returns the record of a line if it is one of the partition, from offset begin on.
func (s *Source) record(line []byte, number int, of ingest.Partition, begin int64) (ingest.Record, bool) {
	topic, index, offset, placed := head(line)
	if placed && (string(topic) != of.Topic || index != of.Index || offset < begin) || !placed && len(bytes.TrimSpace(line)) == 0 {
		return ingest.Record{}, false
	}
	r, err := parse(line)
	if err != nil {
		r = ingest.Record{Topic: of.Topic, Partition: of.Index, Offset: offset, Value: bytes.Clone(line)}
		r.Broken = fmt.Sprintf("%s, line %d: %v", s.opts.Path, number, err)
		if !placed {
			r.Offset = int64(number) - 1
			if of != s.unplaced() {
				return r, false
			}
		}
	}
	return r, r.Topic == of.Topic && r.Partition == of.Index && r.Offset >= begin
}

// Run implements ingest.Source.
func (s *Source) Run(ctx context.Context, h ingest.Handler) error {
	running, stop := context.WithCancelCause(ctx)
	var consumers sync.WaitGroup
	defer consumers.Wait()
	defer stop(ingest.ErrRevoked)
	started := map[ingest.Partition]bool{}
	for {
		bounds, err := s.Bounds(ctx, "")
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		streams, err := s.assign(ctx, h, bounds, started)
		if err != nil && ctx.Err() == nil {
			s.opts.Logger.Warn("assign partitions", "source", s.opts.Name, "err", err)
		}
		for _, st := range streams {
			consumers.Go(func() {
				defer st.close()
				h.Consume(running, st)
			})
		}
		if !s.opts.Follow && err == nil {
			consumers.Wait()
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.opts.Poll):
		}
	}
}

// assign returns streams for the partitions that have none yet: all of them, or none and an error.
func (s *Source) assign(ctx context.Context, h ingest.Handler, bounds []ingest.Bounds, started map[ingest.Partition]bool) ([]*stream, error) {
	var streams []*stream
	for _, b := range bounds {
		if started[b.Partition] {
			continue
		}
		resume, err := h.Resume(ctx, b.Partition)
		if err != nil {
			return nil, fmt.Errorf("partition %s: position: %w", b.Partition, err)
		}
		st := &stream{source: s, partition: b.Partition, begin: b.Oldest, end: b.End}
		if resume.Next != ingest.Unknown {
			st.begin = max(b.Oldest, resume.Next-resume.Rewind)
			st.failed = ingest.CheckPosition(s.opts.Name, b, resume.Next)
		}
		st.next = st.begin
		streams = append(streams, st)
	}
	for _, st := range streams {
		started[st.partition] = true
	}
	return streams, nil
}

// end returns what is known of a partition's end.
func (s *Source) end(p ingest.Partition) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bounds[p].End
}
