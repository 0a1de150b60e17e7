package ingest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"firn/changelog"
)

// Partition names one partition of one topic of a source: the unit in which order is kept.
type Partition struct {
	Topic string
	Index int32
}

// String shows the partition as topic/index.
func (p Partition) String() string { return p.Topic + "/" + strconv.Itoa(int(p.Index)) }

// Stream returns the partition's name among all sources.
func (p Partition) Stream(source string) changelog.StreamID {
	return changelog.StreamID{Source: source, Topic: p.Topic, Partition: p.Index}
}

// Unknown is an offset that is not known.
const Unknown int64 = -1

// Bounds is what a partition holds: offsets in [Oldest, End). End counts what a reader may see now, and is Unknown
// where the source cannot tell.
type Bounds struct {
	Partition
	Oldest int64
	End    int64
}

// Resume says where to begin to read a partition.
type Resume struct {
	// Next is the first offset that is not applied yet, or Unknown: the source's own setting decides.
	Next int64
	// Rewind is how many offsets before Next to read as well, as far as they are still there.
	Rewind int64
}

// Batch is a run of records of one partition. It is valid until the stream's following call of Next.
type Batch struct {
	Records []Record // ascending by offset, maybe with gaps; empty when only Next or End has moved
	Next    int64    // the offset after the batch; it passes offsets that hold no record
	End     int64    // as in Bounds, as far as the source has heard; not below Next
}

// Source reads partitions. sourcetest.Run is the contract that each implementation passes.
type Source interface {
	// Name is the configured name. It is part of stored positions.
	Name() string

	// Run hands each partition that is assigned to this process to h, until ctx ends, and returns when no Consume
	// runs any more: nil after a clean stop or at the end of all data. It retries what may pass (a broker that is
	// away); an error is final.
	Run(ctx context.Context, h Handler) error

	// Bounds asks for the partitions of a topic, of all topics of the source if it is empty, sorted. It works
	// while Run runs; it fails when the source cannot be reached.
	Bounds(ctx context.Context, topic string) ([]Bounds, error)
}

// Handler takes the partitions of a source.
type Handler interface {
	// Resume is asked before a partition is read. An error is taken as passing: the source asks again.
	Resume(ctx context.Context, p Partition) (Resume, error)

	// Consume reads s until ctx ends or s does, in a goroutine of its own. A partition is never in two calls at
	// once: the source ends ctx when it loses the partition (context.Cause is ErrRevoked) and waits for Consume
	// to return before anybody else may have it.
	Consume(ctx context.Context, s Stream)
}

// Stream is one assigned partition, read from where the Handler's Resume said. One goroutine uses it.
type Stream interface {
	Partition() Partition

	// Begin returns the offset where reading begins: the resume position, less what could be rewound.
	Begin() int64

	// Next blocks until there is a batch. What the stream reads ahead is bounded: not calling Next holds the partition back, and no other one.
	//
	// Errors: ctx's own; io.EOF, there is no more and never will be; a *PositionError; anything else is final for
	// this partition.
	Next(ctx context.Context) (Batch, error)

	// Acknowledge says that all before next is durable (P1). The source may tell its broker, for others to see;
	// it never reads from there. Safe for concurrent use with Next.
	Acknowledge(next int64)
}

var (
	// ErrRevoked is the cause that ends Consume's context when the source gives a partition to somebody else.
	ErrRevoked = errors.New("ingest: partition is assigned to another reader")
	// ErrTrimmed says that the source no longer holds the position to resume from. Records are lost if it had any there.
	ErrTrimmed = errors.New("the source holds nothing that old any more")
	// ErrBeyondEnd says that the position to resume from is after all that the source holds: another or a restored topic.
	ErrBeyondEnd = errors.New("the source ends before the position: was the topic made anew or restored?")
)

// PositionError reports a stored position that its source cannot serve.
type PositionError struct {
	Bounds
	Source string
	Next   int64
	Err    error // ErrTrimmed or ErrBeyondEnd
}

// CheckPosition returns a *PositionError if next is neither within b nor its end.
func CheckPosition(source string, b Bounds, next int64) error {
	switch {
	case next < b.Oldest:
		return &PositionError{Bounds: b, Source: source, Next: next, Err: ErrTrimmed}
	case b.End != Unknown && next > b.End:
		return &PositionError{Bounds: b, Source: source, Next: next, Err: ErrBeyondEnd}
	}
	return nil
}

// Error says what is wrong and what the ways out are.
func (e *PositionError) Error() string {
	return fmt.Sprintf("source %s, partition %s: resume at offset %d, it holds [%d,%d): %v; `firn source reset %s --to` "+
		"earliest or latest sets the position, at the price of what lies between", e.Source, e.Partition, e.Next, e.Oldest, e.End, e.Err, e.Source)
}

func (e *PositionError) Unwrap() error { return e.Err }
