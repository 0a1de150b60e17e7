package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"firn/ingest"
)

// Records yields the records of a recording in the file's order. A record's bytes are its own. An error comes last.
func Records(ctx context.Context, path string) iter.Seq2[ingest.Record, error] {
	return func(yield func(ingest.Record, error) bool) {
		l, err := openLines(path)
		if err != nil {
			yield(ingest.Record{}, err)
			return
		}
		defer func() { _ = l.close() }() // nothing was written
		for ctx.Err() == nil {
			line, err := l.next(true)
			if errors.Is(err, io.EOF) {
				return
			}
			var r ingest.Record
			if err == nil && len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err == nil {
				if r, err = parse(line); err != nil {
					err = fmt.Errorf("%s, line %d: %w", path, l.number, err)
				}
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		yield(ingest.Record{}, ctx.Err())
	}
}

// Partitions returns the topics of a recording with the number of partitions that it needs of each.
func Partitions(ctx context.Context, path string) (map[string]int32, error) {
	topics := map[string]int32{}
	for r, err := range Records(ctx, path) {
		if err != nil {
			return nil, err
		}
		topics[r.Topic] = max(topics[r.Topic], r.Partition+1)
	}
	return topics, nil
}

// Partitioner gives records of a recording the partitions that Kafka's own producer would choose among n, and offsets
// to match. Order within a key is kept if the recording's is.
type Partitioner struct {
	n    int32
	ends map[ingest.Partition]int64
	turn map[string]int32 // for records without a key
}

// NewPartitioner returns a Partitioner for n partitions, at least one.
func NewPartitioner(n int32) *Partitioner {
	return &Partitioner{n: max(n, 1), ends: map[ingest.Partition]int64{}, turn: map[string]int32{}}
}

// Place sets the partition and the offset of r: by its key, and by turns where it has none.
func (p *Partitioner) Place(r *ingest.Record) {
	if r.Key == nil {
		r.Partition = p.turn[r.Topic]
		p.turn[r.Topic] = (r.Partition + 1) % p.n
	} else {
		r.Partition = int32(murmur2(r.Key)&0x7fffffff) % p.n //nolint:gosec // as Kafka does it
	}
	at := ingest.Partition{Topic: r.Topic, Index: r.Partition}
	r.Offset = p.ends[at]
	p.ends[at]++
}

// murmur2 is the hash of Kafka's default partitioner.
// Source: org.apache.kafka.common.utils.Utils.murmur2.
func murmur2(b []byte) uint32 {
	const m = 0x5bd1e995
	h := 0x9747b28c ^ uint32(len(b)) //nolint:gosec // keys are shorter
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
