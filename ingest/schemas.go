package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"firn/ingest/decode"
)

// Schemas is a schema registry.
type Schemas interface {
	// Schema returns the schema that records name by ref. Error: a *decode.Rejected, if there is no such schema or it is
	// of no use; ErrRegistryUnavailable, if the registry does not say; ctx's; any other stops the partition.
	Schema(ctx context.Context, ref decode.SchemaRef) (decode.Schema, error)
}

// ErrRegistryUnavailable says that the schema registry gives no answer now: the partition waits (spec/debezium.md 1.6).
var ErrRegistryUnavailable = errors.New("schema registry is unavailable")

// registryGrace is how long a registry may be down before the process is not ready.
const registryGrace = 60 * time.Second

// decode decodes a record, with the schemas that it names, and applies the route's column rules. Error: a *decode.Rejected, ctx's, or one
// that stops the partition.
func (w *worker) decode(ctx context.Context, r *Record) (*decode.Event, error) {
	ev, err := w.read(ctx, r)
	if w.columns == nil {
		return ev, err
	}
	return w.ruled(ctx, r, ev, err)
}

// read decodes a record, with the schemas that it names. Error: as decode's.
func (w *worker) read(ctx context.Context, r *Record) (*decode.Event, error) {
	for {
		ev, err := w.decoder.Decode(decode.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp})
		missing, ok := errors.AsType[*decode.MissingSchema](err)
		if !ok {
			return ev, err
		}
		if err := w.fetch(ctx, missing.Ref); err != nil {
			return nil, err
		}
	}
}

// fetch gives the decoder the schema that it needs. It waits for a registry that is down; what was read before the record is
// submitted first. A repair does neither: its record stays parked. An error is ctx's, final, or stops the partition.
func (w *worker) fetch(ctx context.Context, ref decode.SchemaRef) error {
	if w.runner.schemas == nil {
		return final(errors.New("ingest: a route reads a format with a schema registry, and the source has none")) // New has checked it
	}
	if !w.repairs && w.batch.records > 0 {
		if err := w.submit(ctx, Unknown); err != nil {
			return err
		}
		w.begin()
	}
	defer w.state.registry(nil, w.opts.Now())
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 10*time.Second) {
		schema, err := w.runner.schemas.Schema(ctx, ref)
		if err == nil {
			w.decoder.AddSchema(ref, schema)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
			w.decoder.RefuseSchema(ref, rejected)
			return nil
		}
		if !errors.Is(err, ErrRegistryUnavailable) {
			return fmt.Errorf("%s: schema of %s: %w", w.part, ref, err)
		}
		if w.repairs {
			w.decoder.RefuseSchema(ref, &decode.Rejected{Reason: reasonRegistry, Detail: err.Error()})
			return nil
		}
		if w.state.registry(err, w.opts.Now()) {
			w.runner.pipeline.metrics.registry.WithLabelValues(w.id.Source, w.id.Topic).Inc()
			w.runner.pipeline.logger.Warn("reading waits", "source", w.id.Source, "topic", w.id.Topic, "partition", w.id.Partition, "err", err)
		}
		select {
		case <-time.After(delay/2 + rand.N(delay/2)): //nolint:gosec // spreads the partitions' requests
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// registry notes that the partition waits for the registry, or, with nil, that it does not. It reports whether it did not
// wait before.
func (s *partitionState) registry(err error, now time.Time) (begins bool) {
	s.update(func(p *PartitionStatus) {
		switch {
		case err != nil:
			begins = s.mu.registryDown.IsZero()
			if begins {
				s.mu.registryDown = now
			}
			p.Waiting = err.Error()
		case !s.mu.registryDown.IsZero():
			s.mu.registryDown, p.Waiting = time.Time{}, ""
		}
	})
	return begins
}

// registryDown returns why a partition has waited too long for the registry; "": none has.
func (r *runner) registryDown(now time.Time) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	why := ""
	for _, s := range r.mu.partitions {
		s.mu.Lock()
		if down := s.mu.registryDown; !down.IsZero() && now.Sub(down) >= registryGrace && (why == "" || s.mu.Waiting < why) {
			why = s.mu.Waiting
		}
		s.mu.Unlock()
	}
	return why
}

// keySchemaOf returns the part of a record's key that says how the rest is written; nil: none does.
func (w *worker) keySchemaOf(r *Record) []byte {
	if schema := keySchema(r.Key); schema != nil {
		return schema
	}
	return bytes.Clone(w.decoder.KeyFrame(decode.Record{Topic: r.Topic, Key: r.Key, Headers: r.Headers}))
}
