package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"firn/ingest"
)

// poll hands out records until ctx ends.
func (r *reader) poll(ctx context.Context) {
	for {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil {
			r.client.AllowRebalance()
			return
		}
		var full []*stream
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			s := r.stream(ingest.Partition{Topic: p.Topic, Index: p.Partition})
			if s == nil {
				if p.Err != nil {
					r.source.opts.Logger.Warn("fetch", "source", r.source.opts.Name, "topic", p.Topic, "partition", p.Partition, "err", p.Err)
				}
				return
			}
			if p.Err != nil {
				s.fail(r.fetchError(s, p.Err))
				return
			}
			if s.push(p.Records, p.LastStableOffset, p.HighWatermark) {
				full = append(full, s)
			}
		})
		r.client.AllowRebalance()
		r.hold(ctx, full)
	}
}

// fetchError makes a client's final error for a partition readable.
func (r *reader) fetchError(s *stream, err error) error {
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		return &ingest.PositionError{
			Bounds: ingest.Bounds{Partition: s.partition, Oldest: 0, End: loss.ResetTo},
			Source: r.source.opts.Name, Next: loss.ConsumedTo, Err: ingest.ErrBeyondEnd,
		}
	}
	return fmt.Errorf("source %s, partition %s: fetch: %w", r.source.opts.Name, s.partition, err)
}

// hold waits until the full streams have room, and pauses those that have none after pauseWait.
func (r *reader) hold(ctx context.Context, full []*stream) {
	if len(full) == 0 {
		return
	}
	timer := time.NewTimer(pauseWait)
	defer timer.Stop()
	for {
		n := 0
		for _, s := range full {
			if s.full() {
				full[n] = s
				n++
			}
		}
		if full = full[:n]; n == 0 {
			return
		}
		select {
		case <-r.room:
		case <-ctx.Done():
			return
		case <-timer.C:
			for _, s := range full {
				s.pause()
			}
			return
		}
	}
}

func (r *reader) stream(p ingest.Partition) *stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.streams[p]
}

// assigned makes the streams; adjust starts them. It waits until the reader has its client: the client may be faster with
// its first assignment than NewClient with its return.
func (r *reader) assigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	<-r.attached
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, indexes := range added {
		for _, i := range indexes {
			p := ingest.Partition{Topic: topic, Index: i}
			r.mu.streams[p] = newStream(r, p)
		}
	}
}

// adjust replaces the group's offsets by the handler's, and starts the consumers.
func (r *reader) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	if len(offsets) == 0 {
		return offsets, nil
	}
	topics := make([]string, 0, len(offsets))
	for t := range offsets {
		topics = append(topics, t)
	}
	bounds, err := r.source.bounds(ctx, topics, r.source.admin.ListEndOffsets)
	if err != nil {
		return nil, r.retry(ctx, err)
	}
	resumes := make([]ingest.Resume, len(bounds))
	for i, b := range bounds {
		if _, ok := offsets[b.Topic][b.Index]; !ok {
			continue
		}
		if resumes[i], err = r.handler.Resume(ctx, b.Partition); err != nil {
			return nil, r.retry(ctx, fmt.Errorf("source %s, partition %s: position: %w", r.source.opts.Name, b.Partition, err))
		}
	}
	for i, b := range bounds {
		if _, ok := offsets[b.Topic][b.Index]; !ok {
			continue
		}
		if s := r.stream(b.Partition); s != nil { // else revoked while we asked
			offsets[b.Topic][b.Index] = kgo.NewOffset().At(s.start(r.source.begin(b, resumes[i]))).WithEpoch(-1)
		}
	}
	return offsets, nil
}

// retry returns err after a moment: the client asks again at once.
func (r *reader) retry(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		r.source.opts.Logger.Warn("assign partitions", "source", r.source.opts.Name, "err", err)
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return err
}

// begin returns the offset to fetch from, and an error if the position cannot be served.
func (s *Source) begin(b ingest.Bounds, resume ingest.Resume) (int64, error) {
	switch {
	case resume.Next == ingest.Unknown && s.opts.Start == Latest:
		return b.End, nil
	case resume.Next == ingest.Unknown:
		return b.Oldest, nil
	}
	if err := ingest.CheckPosition(s.opts.Name, b, resume.Next); err != nil {
		return b.End, err
	}
	return max(b.Oldest, resume.Next-resume.Rewind), nil
}

func (r *reader) revoked(ctx context.Context, cl *kgo.Client, gone map[string][]int32) {
	r.stop(gone)
	if len(gone) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	if err := cl.CommitMarkedOffsets(ctx); err != nil {
		r.source.opts.Logger.Warn("mirror positions of revoked partitions", "source", r.source.opts.Name, "err", err)
	}
}

func (r *reader) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) { r.stop(gone) }

// stop ends the consumers of gone, of all partitions if gone is nil, and returns when none of them runs any more: the
// next owner may start (P1).
func (r *reader) stop(gone map[string][]int32) {
	r.mu.Lock()
	var stopped []*stream
	for p, s := range r.mu.streams {
		if gone == nil || contains(gone, p) {
			stopped = append(stopped, s)
			delete(r.mu.streams, p)
		}
	}
	r.mu.Unlock()
	for _, s := range stopped {
		s.cancel(ingest.ErrRevoked)
	}
	for _, s := range stopped {
		s.done.Wait()
		s.resume() // the pause belongs to the client: it would outlive this assignment
	}
}

func contains(m map[string][]int32, p ingest.Partition) bool {
	return slices.Contains(m[p.Topic], p.Index)
}
