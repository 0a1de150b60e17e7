package ingest

import (
	"context"
	"errors"
	"strings"
	"time"

	"firn/changelog"
	"firn/ingest/decode"
)

// binding is how events of one shape become rows of the table.
type binding struct {
	shape    *decode.Shape
	table    *Table
	schema   *changelog.Schema
	mapping  *decode.Mapping
	rejected *decode.Rejected // why the shape does not fit the table; nil: it does
	history  int              // how many schemas the table had then
	again    int64            // when a rejected shape is tried again, µs: it may not be the schemas alone that it waits for

	restricted bool // some rows have partition values that the lake cannot take

	holes       map[int][]int                                // see columns
	projections map[changelog.SchemaID]*changelog.Projection // from older and newer schemas to schema
}

// retryRejected is how long a shape stays rejected that the table's schemas have not changed for. What the lake refuses
// (a wider key) may be allowed when its files are rewritten.
const retryRejected = 10 * time.Second

// maxBindings bounds what a worker remembers of shapes that do not come any more.
const maxBindings = 1000

// bind returns the binding of a shape, and makes or evolves the table for it.
func (w *worker) bind(ctx context.Context, shape *decode.Shape) (*binding, error) {
	b := w.bindings[shape]
	if b != nil && b.rejected != nil {
		if now := w.table.current.Load(); w.now >= b.again || now != nil && len(now.Schemas) != b.history {
			b = nil // it may fit now
		}
	}
	if b == nil {
		var err error
		if b, err = w.rebind(ctx, shape); err != nil {
			return nil, err
		}
	}
	w.last = b
	return b, nil
}

// rebind makes a binding to the table's newest schema.
func (w *worker) rebind(ctx context.Context, shape *decode.Shape) (*binding, error) {
	topic := Topic{Source: w.id.Source, Topic: w.id.Topic}
	t, mapping, err := w.table.plan(ctx, w.log, shape, w.target.Plan, topic, w.target.merges)
	b := &binding{shape: shape, table: t, mapping: mapping}
	if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
		if rejected.Reason == decode.ReasonColumnRule && !w.repairs {
			return nil, w.misfit(ctx, rejected.Detail)
		}
		b.rejected, b.again = rejected, w.now+retryRejected.Microseconds()
		if now := w.table.current.Load(); now != nil {
			b.history = len(now.Schemas)
		}
	} else if err != nil {
		if _, clash := errors.AsType[*ClashError](err); clash {
			return nil, err // stops this topic only
		}
		return nil, final(err)
	} else {
		b.schema = mapping.Schema()
		b.restricted = t.Partition.Restricts(b.schema)
	}
	if len(w.bindings) >= maxBindings {
		clear(w.bindings)
	}
	w.bindings[shape] = b
	if t := w.table.current.Load(); t != nil {
		w.decoder.SetTable(t.Schemas.Current())
	}
	return b, nil
}

// columns returns the table's columns for a column of the shape that an event has no value of: the one that its type
// goes to, and those that hold the values of other types it has had (<name>__<type>), where the old value may be.
func (b *binding) columns(of int) []int {
	if known, ok := b.holes[of]; ok {
		return known
	}
	written := make([]bool, len(b.schema.Columns))
	for i := range b.shape.Columns {
		if o := b.mapping.Ordinal(i); o >= 0 {
			written[o] = true
		}
	}
	name := b.mapping.Name(of)
	var all []int // none if the column is dropped
	if o := b.mapping.Ordinal(of); o >= 0 {
		all = append(all, o)
	}
	for o, c := range b.schema.Columns {
		if !written[o] && (c.Name == name || strings.HasPrefix(c.Name, name+"__")) {
			all = append(all, o)
		}
	}
	if b.holes == nil {
		b.holes = map[int][]int{}
	}
	b.holes[of] = all
	return all
}
