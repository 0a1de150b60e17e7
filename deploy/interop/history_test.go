package interop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/merge"
	"firn/changelog/rowjson"
	"firn/changelog/table"
	"firn/logstore"
	"firn/optimizer"
	"firn/state"
)

// lake is a SQLite catalog with local files and a data directory: firn without its sources. Many runs share one.
type lake struct {
	dir     string
	catalog *table.Catalog
	db      *logstore.DB
	reg     *state.Registry
	store   *logstore.Store
}

func openLake(ctx context.Context, dir string) *lake {
	l := &lake{dir: dir}
	l.catalog = must(table.Open(ctx, table.Options{URI: l.uri(), Warehouse: "file://" + filepath.Join(dir, "lake")}))
	o := logstore.Options{MemoryBytes: 32 << 20, MinFreeBytes: -1, TrimInterval: -1}
	l.db = must(logstore.OpenDB(filepath.Join(dir, "data"), o))
	l.reg = must(state.OpenRegistry(l.db.DB))
	l.store = must(logstore.Open(l.db, l.reg, o))
	return l
}

func (l *lake) uri() string { return filepath.Join(l.dir, "catalog.db") }

func (l *lake) close() error { return errors.Join(l.store.Close(), l.db.Close(), l.catalog.Close()) }

// history is one run: a table of a cell, what its seed makes of it, and the model of what it must hold.
type history struct {
	*lake
	cell
	ctx     context.Context
	seed    uint64
	name    string
	r       *rand.Rand
	second  *second
	id      changelog.TableID
	schemas changelog.Schemas
	terms   []string
	moves   bool          // rows can leave their partition: then every change has the row before it
	domain  map[int][]any // by field id: the values that a column draws from

	rows  map[string]stored // the model now, by key
	last  map[int]any       // the key that changed last
	done  []op              // what led to it: the change of number n is at n-1
	bag   []map[int]any     // the model of a table without a key
	steps int               // how often all reads were compared

	flushed, optimized changelog.SeqNum

	conditions []*filter // for foreign readers
}

// stored is a row of the model: values by field id, and the bytes that were given to firn.
type stored struct {
	values map[int]any
	row    changelog.Row
}

// op is what a change did to the model; values nil: the key is gone.
type op struct {
	key    string
	values map[int]any
}

// puffinSequences are the properties of a table whose optimized sequences are in Puffin: those of seeds 2, 7, … from the first
// commit on, those of seeds 3, 8, … after some by property.
var puffinSequences = map[string]string{table.PropSequence: string(table.SequencePuffin)}

var errUnfit = errors.New("not a table that firn makes")

func newHistory(ctx context.Context, l *lake, c cell, seed uint64, name string) *history {
	h := &history{
		lake: l, cell: c, ctx: ctx, seed: seed, name: name, r: rand.New(rand.NewPCG(seed, 41)), second: newSecond(),
		rows: map[string]stored{}, domain: map[int][]any{}, terms: c.variant(seed),
	}
	var columns []changelog.Column
	var key []string
	for _, col := range c.columns() {
		columns = append(columns, changelog.Column{Name: col.name, Type: col.typ})
	}
	for _, col := range c.keyColumns() {
		key = append(key, col.name)
	}
	s := must(changelog.NewSchema(columns, key))
	for i, col := range c.columns() {
		h.domain[s.Columns[i].ID] = col.values
		s.Columns[i].Required = s.Columns[i].Required && !slices.Contains(col.values, nil)
	}
	h.schemas = changelog.Schemas{s}
	spec := must(changelog.ParsePartition(h.terms))
	bound := must(spec.Bind(s))
	h.moves = len(spec) > 0 && !bound.InKey(s) && c.key != unkeyed
	var props map[string]string
	if seed%5 == 2 {
		props = puffinSequences
	}
	entry, err := l.reg.CreatePartitioned(ctx, name, s, spec, state.TopicRef{Source: "m", Topic: name}, props)
	if errors.Is(err, changelog.ErrPartition) && c.key == unkeyed {
		panic(fmt.Errorf("%w: %w", errUnfit, err))
	}
	check(err)
	h.id = entry.ID
	return h
}

func (h *history) schema() *changelog.Schema { return h.schemas.Current() }

// play runs the history: rounds of changes and flushes, with minors, majors, expiry and steps of evolution between them.
// Everything is compared after each. At the end there mostly are changes that the base store does not have.
func (h *history) play() {
	const rounds = 9
	steps := h.evolution()
	h.append(30)
	for round := range rounds {
		h.append(3 + h.r.IntN(12))
		for i, step := range steps {
			if 1+i*6/max(1, len(steps)) == round {
				h.evolve(step(h.schema()))
				h.append(h.r.IntN(6))
			}
		}
		h.flush()
		switch round {
		case 1, 2, 6: // several in a row leave several base files, which one file of position deletes then names
			h.optimize(optimizer.Minor)
		case 3:
			if h.seed%5 == 3 && h.key != unkeyed {
				check(must(h.catalog.Load(h.ctx, h.name)).SetProperties(h.ctx, puffinSequences))
			}
			h.expire()
			h.optimize(optimizer.Minor)
		case 4:
			h.optimize(optimizer.Minor)
			h.optimize(optimizer.Major)
			h.expire()
		case 7:
			h.optimize([]optimizer.Type{optimizer.Major, optimizer.Full}[h.r.IntN(2)])
		case 8:
			if h.seed%3 == 0 {
				h.optimize(optimizer.Minor)
			}
		}
	}
	if puffin := must(h.catalog.Load(h.ctx, h.name)).InPuffin(); puffin != (h.key != unkeyed && (h.seed%5 == 2 || h.seed%5 == 3)) {
		panic(fmt.Errorf("sequences in Puffin: %t", puffin))
	}
	h.conditions = h.filters()
}

func (h *history) evolution() []step {
	for _, e := range append(evolutions, keyWiden, partWiden) {
		if e.name == h.evo {
			return e.steps
		}
	}
	panic("no evolution " + h.evo)
}

// evolve takes the registry one schema further; the lake follows at the next flush.
func (h *history) evolve(e changelog.Evolution) {
	next := must(h.schema().Apply(e))
	must(h.reg.AddSchema(h.ctx, h.id, next))
	h.schemas = append(h.schemas, next)
}

// append gives the log n changes, in appends of one to a few.
func (h *history) append(n int) {
	for n > 0 {
		var changes []changelog.Change
		if h.r.IntN(60) == 0 {
			changes = h.truncate()
		}
		for range min(n, 1+h.r.IntN(5)) {
			changes = append(changes, h.change())
			n--
		}
		must(h.store.Append(h.ctx, changelog.Append{
			Tables:    []changelog.TableAppend{{Table: h.id, Changes: changes}},
			Positions: []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "m", Topic: h.name}, Next: int64(len(h.done))}},
		}))
	}
}

func (h *history) position() changelog.Position {
	return changelog.Position{Source: "m", Topic: h.name, Offset: int64(len(h.done))}
}

// change makes up the next change and applies it to the model.
func (h *history) change() changelog.Change {
	if h.key == unkeyed {
		return h.bagChange()
	}
	s := h.schema()
	values := map[int]any{}
	if h.last == nil || h.r.IntN(4) > 0 { // else the key of the change before
		h.last = map[int]any{}
		for _, o := range s.KeyOrdinals() {
			d := h.domain[s.Columns[o].ID]
			h.last[s.Columns[o].ID] = d[h.r.IntN(len(d))]
		}
	}
	maps.Copy(values, h.last)
	key := s.KeyOf(nil, h.encode(values))
	old, had := h.rows[string(key)]
	c := changelog.Change{Op: changelog.OpDelete, Key: key, Position: h.position()}
	if had && (h.moves || h.r.IntN(3) > 0) {
		c.Before = h.image(old)
	}
	if roll := h.r.IntN(20); had && roll < 5 || !had && roll < 2 {
		delete(h.rows, string(key))
		h.done = append(h.done, op{key: string(key)})
		return c
	}
	for _, col := range s.Columns {
		if _, isKey := values[col.ID]; !isKey {
			values[col.ID] = h.next(col, old.values)
		}
	}
	c.Op, c.After = changelog.OpCreate, changelog.AppendRow(nil, s, h.encode(values))
	if had {
		c.Op = changelog.OpUpdate
	}
	h.rows[string(key)] = stored{values, c.After}
	h.done = append(h.done, op{string(key), values})
	return c
}

// next returns a column's value in the next state of a row: often the one that it has.
func (h *history) next(c changelog.Column, old map[int]any) any {
	if v, ok := old[c.ID]; ok && h.r.IntN(2) == 0 {
		return widened(c.Type, v)
	}
	return draw(h.r, c.Type, h.domain[c.ID])
}

// image returns a row as a before image: as it was written, or as the newest schema has it.
func (h *history) image(old stored) changelog.Row {
	if h.r.IntN(2) == 0 {
		return old.row
	}
	return changelog.AppendRow(nil, h.schema(), h.encode(old.values))
}

func (h *history) encode(values map[int]any) []changelog.Value {
	var out []changelog.Value
	for _, c := range h.schema().Columns {
		out = append(out, value(c.Type, values[c.ID]))
	}
	return out
}

// truncate is what a truncate becomes: deletes of all rows, and a marker.
func (h *history) truncate() []changelog.Change {
	var out []changelog.Change
	for _, key := range slices.Sorted(maps.Keys(h.rows)) {
		out = append(out, changelog.Change{Op: changelog.OpDelete, Key: changelog.Key(key), Before: h.image(h.rows[key]), Position: h.position()})
		h.done = append(h.done, op{key: key})
	}
	h.rows, h.bag = map[string]stored{}, nil
	h.done = append(h.done, op{})
	return append(out, changelog.Change{Op: changelog.OpTruncate, Position: h.position()})
}

// bagChange adds a row, takes one out, or both.
func (h *history) bagChange() changelog.Change {
	h.done = append(h.done, op{})
	c := changelog.Change{Op: changelog.OpCreate, Position: h.position()}
	if len(h.bag) > 0 && h.r.IntN(3) == 0 {
		i := h.r.IntN(len(h.bag))
		c.Op, c.Before = changelog.OpDelete, changelog.AppendRow(nil, h.schema(), h.encode(h.bag[i]))
		h.bag = slices.Delete(h.bag, i, i+1)
		if h.r.IntN(2) == 0 {
			return c
		}
		c.Op = changelog.OpUpdate
	}
	values := map[int]any{}
	if len(h.bag) > 0 && h.r.IntN(4) == 0 { // a row that is there
		values = h.bag[h.r.IntN(len(h.bag))]
	} else {
		for _, col := range h.schema().Columns {
			values[col.ID] = h.next(col, nil)
		}
	}
	h.bag = append(h.bag, values)
	c.After = changelog.AppendRow(nil, h.schema(), h.encode(values))
	return c
}

// flush brings all of the log into the lake, by a flusher as after a start.
func (h *history) flush() {
	f := must(must(flush.New(h.store, h.reg, h.catalog, flush.Options{
		MaxRows: 4 + h.r.IntN(60), BucketRows: 1 + h.r.IntN(30), Buckets: h.buckets([]int{1, 2, 4}[h.r.IntN(3)]),
	})).Flusher(h.id))
	for last := changelog.SeqNum(0); ; {
		seq, err := f.Flush(h.ctx)
		if h.key == unkeyed && len(h.terms) > 0 && errors.Is(err, table.ErrUnsupported) {
			panic(fmt.Errorf("%w: %w", errUnfit, err))
		}
		check(err)
		if seq == last {
			break
		}
		last = seq
	}
	h.verify("flush")
}

// buckets is what the settings say of the number of tree nodes: one if a key is to widen, as firn demands; once it has, firn itself
// keeps to the root whatever they say.
func (h *history) buckets(n int) int {
	if h.evo == keyWiden.name && len(h.schemas) == 1 {
		return 1
	}
	return n
}

// rules make rounds of a few rows do what production does with millions.
func (h *history) optimizer() *optimizer.Optimizer {
	return must(optimizer.New(h.catalog, h.reg, optimizer.Options{Rules: optimizer.Rules{
		TargetBytes: []int64{20_000, 2000, 6000}[h.seed%3], FanIn: 3, MaxDeletes: 3, Buckets: h.buckets([]int{1, 4}[h.seed%2]),
		KeepSnapshots: 3, KeepAge: time.Nanosecond, ChangeTTL: time.Nanosecond,
	}}))
}

func (h *history) optimize(t optimizer.Type) {
	must(h.optimizer().Once(h.ctx, h.name, t, false))
	h.verify(t.String())
}

func (h *history) expire() {
	must(h.optimizer().Expire(h.ctx, h.name, false))
	h.verify("expiry")
}

// verify compares our merged read and base read, and the second reader's, with the model.
func (h *history) verify(after string) {
	h.steps++
	t := must(h.catalog.Load(h.ctx, h.name))
	p := must(h.reg.Progress(h.id))
	h.flushed, h.optimized = p.Flushed, p.Optimized
	if int(h.flushed) != len(h.done) {
		panic(fmt.Errorf("step %d, %s: flushed up to %d of %d", h.steps, after, h.flushed, len(h.done)))
	}
	change := ""
	if t.Keyed() {
		change = t.Change().MetadataLocation()
	}
	merged, base := h.want(h.flushed), h.want(h.optimized)
	ours, oursBase := h.ours(t)
	for _, c := range []struct {
		what      string
		got, want []string
	}{
		{"our merged read", ours, merged},
		{"the second reader's merged read", h.second.merged(t.Base().MetadataLocation(), change), merged},
		{"our base read", oursBase, base},
		{"the second reader's base read", h.second.base(t.Base().MetadataLocation()), base},
	} {
		if why := differ(c.got, c.want); why != "" {
			panic(fmt.Errorf("step %d, after %s (flushed %d, optimized %d): %s: %s", h.steps, after, h.flushed, h.optimized, c.what, why))
		}
	}
}

// fields are the columns of the newest schema as line wants them.
func (h *history) fields() []field {
	var out []field
	for _, c := range h.schema().Columns {
		out = append(out, field{c.ID, c.Name, kindOf(c.Type)})
	}
	return out
}

func kindOf(t *changelog.Type) kind {
	k := kind{name: t.Kind.String(), scale: t.Scale}
	if t.Kind == changelog.List {
		e := kindOf(t.Fields[0].Type)
		k.element = &e
	}
	return k
}

// model returns the model's rows after a change.
func (h *history) model(seq changelog.SeqNum) []map[int]any {
	if h.key == unkeyed {
		return h.bag // it is flushed to the base store
	}
	rows := map[string]map[int]any{}
	for _, o := range h.done[:seq] {
		if o.values == nil {
			delete(rows, o.key)
		} else {
			rows[o.key] = o.values
		}
	}
	return slices.Collect(maps.Values(rows))
}

func (h *history) want(seq changelog.SeqNum) []string { return h.lines(h.model(seq)) }

func (h *history) lines(rows []map[int]any) []string {
	var out []string
	fields := h.fields()
	for _, row := range rows {
		out = append(out, line(fields, row))
	}
	slices.Sort(out)
	return out
}

// ours reads a table with firn's own reader, as firn dump does.
func (h *history) ours(t *table.Table) (merged, base []string) {
	s := merge.Snapshot{Optimized: t.Optimized()}
	for _, f := range must(t.Base().Files(h.ctx)) {
		if f.Content == table.Data {
			s.Base = append(s.Base, flush.MergeFile(&f))
		} else {
			s.Deletes = append(s.Deletes, flush.MergeFile(&f))
		}
	}
	if t.Keyed() {
		for _, f := range must(t.Change().Files(h.ctx)) {
			s.Change = append(s.Change, flush.MergeFile(&f))
		}
	}
	current := t.Schemas().Current()
	r := must(merge.New(current, s, flush.LakeFiles{FS: t.FS()}, merge.Options{}))
	history := make(changelog.Schemas, current.ID+1) // rows name their schema by its place
	for i := range history {
		history[i] = current
	}
	e := must(rowjson.NewEncoder(history, rowjson.Options{Sorted: true}))
	for row, err := range r.Rows(h.ctx) {
		check(err)
		merged = append(merged, string(must(e.AppendRow(nil, row.Row))))
	}
	for row, err := range r.Base(h.ctx) {
		check(err)
		base = append(base, string(must(e.AppendRow(nil, row.Row))))
	}
	slices.Sort(merged)
	slices.Sort(base)
	return merged, base
}

// differ says how rows, both sorted, differ; "": they do not.
func differ(got, want []string) string {
	if slices.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("%d rows, want %d; too much: %.300s; missing: %.300s", len(got), len(want), first(got, want), first(want, got))
}

// first returns the first line of a that b lacks.
func first(a, b []string) string {
	left := map[string]int{}
	for _, l := range b {
		left[l]++
	}
	for _, l := range a {
		if left[l]--; left[l] < 0 {
			return l
		}
	}
	return "-"
}
