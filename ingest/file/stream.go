package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"firn/ingest"
)

// stream is one partition of a recording, with a place in the file of its own.
type stream struct {
	source    *Source
	partition ingest.Partition
	begin     int64
	next      int64
	end       int64
	failed    error
	lines     *lines
	records   []ingest.Record
}

var _ ingest.Stream = (*stream)(nil)

// Partition implements ingest.Stream.
func (s *stream) Partition() ingest.Partition { return s.partition }

// Begin implements ingest.Stream.
func (s *stream) Begin() int64 { return s.begin }

// Acknowledge implements ingest.Stream: nobody is to be told.
func (s *stream) Acknowledge(int64) {}

func (s *stream) close() {
	if s.lines != nil {
		_ = s.lines.close() // nothing was written
	}
}

// A batch is at most as much as this.
const (
	batchRecords = 1024
	batchBytes   = 1 << 20
)

// Next implements ingest.Stream.
func (s *stream) Next(ctx context.Context) (ingest.Batch, error) {
	if s.failed != nil {
		return ingest.Batch{}, s.failed
	}
	clear(s.records)
	s.records = s.records[:0]
	for {
		if ctx.Err() != nil {
			return ingest.Batch{}, context.Cause(ctx)
		}
		err := s.fill(ctx)
		if len(s.records) > 0 {
			s.end = max(s.end, s.source.end(s.partition), s.next)
			return ingest.Batch{Records: s.records, Next: s.next, End: s.end}, nil
		}
		switch {
		case ctx.Err() != nil:
		case !errors.Is(err, io.EOF):
			return ingest.Batch{}, s.fail(err)
		case !s.source.opts.Follow:
			return ingest.Batch{}, s.fail(io.EOF)
		default:
			select {
			case <-ctx.Done():
			case <-time.After(s.source.opts.Poll):
			}
		}
	}
}

func (s *stream) fail(err error) error {
	if !errors.Is(err, io.EOF) {
		err = fmt.Errorf("source %s, partition %s: %w", s.source.opts.Name, s.partition, err)
	}
	s.failed = err
	return err
}

// fill reads records until a batch is full, the file is at its end, or ctx ends.
func (s *stream) fill(ctx context.Context) error {
	if s.lines == nil {
		l, err := openLines(s.source.opts.Path)
		if err != nil {
			return err
		}
		s.lines = l
	}
	for size, n := 0, 0; len(s.records) < batchRecords && size < batchBytes; n++ {
		if err := ctx.Err(); n%1024 == 0 && err != nil {
			return err
		}
		line, err := s.lines.next(!s.source.opts.Follow)
		if err != nil {
			return err
		}
		r, ok := s.source.record(line, s.lines.number, s.partition, s.begin)
		if !ok {
			continue
		}
		s.records = append(s.records, r)
		size += len(r.Key) + len(r.Value)
		s.next = max(s.next, r.Offset+1)
	}
	return nil
}
