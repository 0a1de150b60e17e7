package logstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
	"firn/state"
	"firn/state/keyspace"
)

// This file keeps the tables of parked records: one a namespace, with a row for each record that was ever parked for a table of
// it, by the record's place in its source. Each append that parks, edits or settles records changes their rows (P1), and the
// tables go to the lake as all others do. ingest/docs/0002-parked-table.md tells what they are for.

// PropParked is the property of a table of parked records, with the value "true". Written to the lake.
const PropParked = "firn.parked"

// The states of a parked record in its table. Written to the lake.
const (
	ParkedWaits      = "parked"     // it can be replayed, edited, skipped
	ParkedReport     = "reported"   // it was applied, with a value reduced or nulled
	ParkedSuperseded = "superseded" // a later event of its key was applied
	ParkedReplayed   = "replayed"   // it was applied later
	ParkedSkipped    = "skipped"    // it was given up
)

// ParkedTable says where the rows of parked records go.
type ParkedTable struct {
	// Name is the last part of the tables' names, which stand in the namespace of the table that a record is for. Empty: there
	// are none.
	Name string
	// Target names the table that a topic goes to, for records of which it is not stored. Required with a Name.
	Target func(topic string) string
	// KeyText shows the key of a row, Rule the rule behind a reason. Default: nothing is shown.
	KeyText func(*changelog.Schema, changelog.Key) string
	Rule    func(reason string) string
}

// ErrParkedTable reports that the name of a table of parked records is taken.
var ErrParkedTable = errors.New("logstore: the name of the table of parked records is taken")

// parkedColumns are the columns of a table of parked records: new ones go to the end. The first five are its key.
func parkedColumns() []changelog.Column {
	column := func(name string, kind changelog.Kind, doc string) changelog.Column {
		return changelog.Column{Name: name, Type: changelog.Primitive(kind), Doc: doc}
	}
	return []changelog.Column{
		column("source", changelog.String, "the configured name of the source"),
		column("topic", changelog.String, ""),
		column("partition", changelog.Int, ""),
		column("offset", changelog.Long, ""),
		column("part", changelog.Int, "of a record of which several are parked; negative: a report of a replay"),
		column("id", changelog.Long, "of firn parked list"),
		column("state", changelog.String, "parked, reported, superseded, replayed or skipped"),
		column("target_table", changelog.String, "the table that the record is for"),
		column("target_key", changelog.String, "the key of its row as JSON; null: not readable"),
		column("reason", changelog.String, ""),
		column("rule", changelog.String, "the rule that the record breaks"),
		column("message", changelog.String, "what is wrong, and where"),
		column("attempts", changelog.Int, "replays that failed"),
		column("record_time", changelog.TimestampTZ, "the record's own time"),
		column("parked_at", changelog.TimestampTZ, ""),
		column("settled_at", changelog.TimestampTZ, "when it was replayed, skipped or superseded"),
		column("settled_seq", changelog.Long, "the target table's newest change then"),
		column("state_before", changelog.String, "what it was when it was settled"),
		column("record_key", changelog.Binary, "as received"),
		column("record_value", changelog.Binary, "as received; the beginning where value_bytes is not null"),
		column("value_bytes", changelog.Long, "of a value that is not kept whole"),
		column("value_sha256", changelog.Binary, "of a value that is not kept whole"),
		{Name: "headers", Type: headersType, Doc: "as received"},
		column("edited_at", changelog.TimestampTZ, "what follows is read in place of the record"),
		column("edited_by", changelog.String, ""),
		column("edited_key", changelog.Binary, ""),
		column("edited_value", changelog.Binary, ""),
		{Name: "edited_headers", Type: headersType},
		column("native_position", changelog.String, "the database's own position"),
		column("row_key", changelog.Binary, "the key of the row, as firn stores it"),
		column("holds_queue", changelog.Boolean, "later events of the key wait behind it"),
		column("row_suspect", changelog.Boolean, "the row of a skipped record is older than a lost event"),
	}
}

// parkedKey is the key of a table of parked records.
var parkedKey = []string{"source", "topic", "partition", "offset", "part"}

// parkedRow is a change of a row of a table of parked records, to be made by the committer.
type parkedRow struct {
	table   changelog.TableID // of parked records
	op      int               // 1 + place of the write that stores the record in the append; 0: it is p
	p       changelog.Parked
	target  string
	state   string
	before  string // of a record that is settled
	created bool
	queue   bool
	suspect bool
}

// IsParkedTable reports whether t is a table of parked records.
func IsParkedTable(t *state.Table) bool { return t.Properties[PropParked] == "true" }

// ParkedTableName returns the name of the table of parked records for a table; empty: there is none.
func (o *ParkedTable) ParkedTableName(of string) string {
	if i := strings.LastIndexByte(of, '.'); o.Name != "" && i > 0 {
		return of[:i+1] + o.Name
	}
	return ""
}

// parkedTable returns the table of parked records for a table called of, and makes it at its first record. 0: there is none.
// Errors: ErrParkedTable, I/O.
func (s *Store) parkedTable(ctx context.Context, of string) (changelog.TableID, error) {
	name := s.opts.ParkedTable.ParkedTableName(of)
	if name == "" {
		return 0, nil
	}
	t, ok := s.reg.Table(name)
	if !ok {
		schema, err := changelog.NewSchema(parkedColumns(), parkedKey)
		if err != nil {
			return 0, err
		}
		t, err = s.reg.Create(ctx, name, schema, state.TopicRef{}, map[string]string{PropParked: "true"})
		if errors.Is(err, state.ErrExists) {
			t, ok = s.reg.Table(name)
		} else if err != nil {
			return 0, err
		} else {
			ok = true
		}
	}
	if !ok || !IsParkedTable(t) {
		return 0, fmt.Errorf("%s is another table: %w", name, ErrParkedTable)
	}
	if _, err := s.table(t.ID); err != nil { // here, so that the committer never reads
		return 0, err
	}
	return t.ID, nil
}

// target returns the name of the table that a parked record is for.
func (s *Store) target(p *changelog.Parked) string {
	if t, ok := s.reg.ByID(p.Table); ok {
		return t.Name
	}
	if p.Target != "" {
		return p.Target
	}
	return s.opts.ParkedTable.Target(p.Position.Topic)
}

// parkedRows lists the changes that the rows of parked records get by a.
func (s *Store) parkedRows(ctx context.Context, e *encoded, a *changelog.Append) error {
	if s.opts.ParkedTable.Name == "" || len(a.Parked)+len(e.settled)+len(a.Stale) == 0 {
		return nil
	}
	add := func(r parkedRow, p *changelog.Parked) (err error) {
		r.target = s.target(p)
		if r.table, err = s.parkedTable(ctx, r.target); err == nil && r.table != 0 {
			e.rowsOf = append(e.rowsOf, r)
		}
		return err
	}
	for i := range a.Stale {
		if err := s.superseded(ctx, a, &a.Stale[i], add); err != nil {
			return err
		}
	}
	for i := range a.Parked {
		p := &a.Parked[i]
		r := parkedRow{op: e.parked[i].op + 1, state: ParkedWaits, created: true}
		mark, err := s.markAfter(a, p)
		switch {
		case err != nil:
			return err
		case p.Applied:
			r.state = ParkedReport
		case mark != nil && (!mark.Set || mark.Record > i+1):
			r.state, r.before, r.queue = ParkedSuperseded, ParkedWaits, mark.Hold
		case mark != nil:
			r.queue = mark.Hold
		}
		if err := add(r, p); err != nil {
			return err
		}
	}
	for i := range e.settled {
		part := &e.settled[i]
		r := parkedRow{op: part.op, p: part.p}
		if err := s.settledRow(a, part, &r); err != nil {
			return err
		}
		if err := add(r, &part.p); err != nil {
			return err
		}
	}
	return nil
}

// settledRow sets the state of a record that a stores again or removes.
func (s *Store) settledRow(a *changelog.Append, part *settledPart, r *parkedRow) error {
	if part.op > 0 {
		mark, err := s.markAfter(a, &part.p)
		r.state, r.queue = standing(&part.p, mark)
		return err
	}
	mark, err := s.markAfter(&changelog.Append{}, &part.p)
	r.before, r.queue = standing(&part.p, mark)
	r.state = ParkedReplayed
	if slices.Contains(a.Skipped, part.id) {
		mark := lastStale(a.Stale, part.p.Table, part.p.Key)
		r.state, r.suspect = ParkedSkipped, mark != nil && mark.Set && mark.Skipped
	}
	return err
}

// standing returns what a record that is not settled is under the mark of its key.
func standing(p *changelog.Parked, mark *changelog.StaleMark) (state string, queue bool) {
	switch {
	case p.Applied:
		return ParkedReport, false
	case p.Table != 0 && len(p.Key) > 0 && (mark == nil || !mark.Set || mark.First > p.ID):
		return ParkedSuperseded, false
	}
	return ParkedWaits, mark != nil && mark.Hold
}

// superseded adds the parked records that a mark counted and, by a, does not any more, though nobody settled them.
func (s *Store) superseded(ctx context.Context, a *changelog.Append, m *changelog.StaleMark, add func(parkedRow, *changelog.Parked) error) error {
	old, ok, err := s.StaleMark(m.Table, m.Key)
	if err != nil || !ok || lastStale(a.Stale, m.Table, m.Key) != m {
		return err
	}
	for p, err := range s.ParkedOf(ctx, m.Table, m.Key, old.First) {
		if err != nil {
			return err
		}
		if m.Set && m.Record == 0 && p.ID >= m.First {
			break
		}
		if p.Applied || slices.Contains(a.Unparked, p.ID) {
			continue
		}
		if err := add(parkedRow{p: p, state: ParkedSuperseded, before: ParkedWaits, queue: old.Hold}, &p); err != nil {
			return err
		}
	}
	return nil
}

// markAfter returns the mark that the key of a parked record has once a is applied, maybe one that is not Set; nil: none.
func (s *Store) markAfter(a *changelog.Append, p *changelog.Parked) (*changelog.StaleMark, error) {
	if p.Table == 0 || len(p.Key) == 0 {
		return nil, nil //nolint:nilnil // as said
	}
	if m := lastStale(a.Stale, p.Table, p.Key); m != nil {
		return m, nil
	}
	m, ok, err := s.StaleMark(p.Table, p.Key)
	if err != nil || !ok {
		return nil, err
	}
	return &m, nil
}

func lastStale(marks []changelog.StaleMark, table changelog.TableID, key changelog.Key) *changelog.StaleMark {
	for i := len(marks) - 1; i >= 0; i-- {
		if marks[i].Table == table && string(marks[i].Key) == string(key) {
			return &marks[i]
		}
	}
	return nil
}

// rowsOfParked makes the changes of t's rows of parked records, and numbers them. The ids of what t parks begin with first.
// The caller has commitMu; the changes of t's other tables are numbered.
func (s *Store) rowsOfParked(t *Ticket, first uint64) error {
	e := t.e
	now := s.nowMicro()
	from := len(e.tables)
	slices.SortStableFunc(e.rowsOf, func(a, b parkedRow) int { return int(a.table) - int(b.table) })
	for i := 0; i < len(e.rowsOf); {
		n := i + 1
		for n < len(e.rowsOf) && e.rowsOf[n].table == e.rowsOf[i].table {
			n++
		}
		entry, ok := s.reg.ByID(e.rowsOf[i].table)
		s.mu.RLock()
		open := s.mu.tables[e.rowsOf[i].table] != nil
		s.mu.RUnlock()
		if ok && open { // else it was dropped meanwhile, and its rows with it
			a := changelog.TableAppend{Table: entry.ID}
			for j := range e.rowsOf[i:n] {
				c, err := s.parkedChange(t, entry.Schemas.Current(), &e.rowsOf[i+j], first, now)
				if err != nil {
					return err
				}
				a.Changes = append(a.Changes, c)
			}
			e.table(entry, &a, nil, now)
		}
		i = n
	}
	return s.number(t, from)
}

// parkedChange makes the change of one row.
func (s *Store) parkedChange(t *Ticket, schema *changelog.Schema, r *parkedRow, first uint64, now int64) (changelog.Change, error) {
	p := r.p
	if r.op > 0 {
		o := &t.e.ops[r.op-1]
		id := p.ID
		if r.created {
			id = first + uint64(o.ref)
		}
		table, _, err := keyspace.ParkedID(t.e.arena[o.key:o.val])
		if err != nil {
			return changelog.Change{}, err
		}
		if p, err = parseParked(id, table, t.e.arena[o.val:o.end]); err != nil {
			return changelog.Change{}, err
		}
	}
	values := s.parkedValues(&p, r)
	if r.before != "" {
		values["settled_at"], values["state_before"] = changelog.Value{I: now}, changelog.Value{B: []byte(r.before)}
		values["settled_seq"] = changelog.Value{I: int64(s.numbered(t, &p))} //nolint:gosec // dense from 1
	}
	row := make([]changelog.Value, len(schema.Columns))
	for i, c := range schema.Columns {
		v, ok := values[c.Name]
		if row[i] = v; !ok {
			row[i] = changelog.NullValue
		}
	}
	c := changelog.Change{Op: changelog.OpUpdate, Key: schema.KeyOf(nil, row), After: changelog.AppendRow(nil, schema, row)}
	if r.created {
		c.Op = changelog.OpCreate
	}
	return c, nil
}

// numbered returns the newest change, t's included, of the table that a parked record is for.
func (s *Store) numbered(t *Ticket, p *changelog.Parked) changelog.SeqNum {
	for i := range t.e.tables {
		if part := &t.e.tables[i]; part.id == p.Table || p.Table == 0 {
			return part.last
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if of := s.mu.tables[p.Table]; of != nil {
		return of.next - 1
	}
	return 0
}

// parkedValues returns the columns of a parked record that are not null.
func (s *Store) parkedValues(p *changelog.Parked, r *parkedRow) map[string]changelog.Value {
	o := &s.opts.ParkedTable
	text := func(t string) changelog.Value { return changelog.Value{B: []byte(t)} }
	v := map[string]changelog.Value{
		"source": text(p.Position.Source), "topic": text(p.Position.Topic), "partition": {I: int64(p.Position.Partition)},
		"offset": {I: p.Position.Offset}, "part": {I: int64(p.Part)}, "id": {I: int64(p.ID)}, "state": text(r.state), "target_table": text(r.target), //nolint:gosec // a counter
		"reason": text(p.Reason), "message": text(p.Detail), "attempts": {I: int64(p.Attempts)},
		"record_time": {I: p.Timestamp * 1000}, "parked_at": {I: p.Time},
		"headers": headerList(p.Headers), "holds_queue": {I: int64(flag(r.queue))}, "row_suspect": {I: int64(flag(r.suspect))},
	}
	bytes := func(name string, b []byte) {
		if b != nil {
			v[name] = changelog.Value{B: b}
		}
	}
	bytes("record_key", p.RecordKey)
	bytes("record_value", p.RecordValue)
	bytes("row_key", p.Key)
	if p.Position.Native != "" {
		v["native_position"] = text(p.Position.Native)
	}
	if o.Rule != nil {
		v["rule"] = text(o.Rule(p.Reason))
	}
	if t, ok := s.reg.ByID(p.Table); ok && len(p.Key) > 0 && o.KeyText != nil {
		v["target_key"] = text(o.KeyText(t.Schemas.Current(), p.Key))
	}
	if p.Cut != nil {
		v["value_bytes"], v["value_sha256"] = changelog.Value{I: p.Cut.Bytes}, changelog.Value{B: p.Cut.SHA256[:]}
	}
	if p.Edit != nil {
		v["edited_at"], v["edited_by"], v["edited_headers"] = changelog.Value{I: p.Edit.Time}, text(p.Edit.By), headerList(p.Edit.Headers)
		bytes("edited_key", p.Edit.RecordKey)
		bytes("edited_value", p.Edit.RecordValue)
	}
	return v
}

// headersType is the type of the columns of headers.
var headersType = changelog.ListOf(&changelog.Type{Kind: changelog.Struct, Fields: []changelog.Column{
	{Name: "key", Type: changelog.Primitive(changelog.String)}, {Name: "value", Type: changelog.Primitive(changelog.Binary)},
}})

func headerList(headers []changelog.Header) changelog.Value {
	element := headersType.Fields[0].Type
	all := make([]changelog.Value, len(headers))
	for i, h := range headers {
		value := changelog.Value{B: h.Value, Null: h.Value == nil}
		all[i].B = changelog.AppendStruct(nil, element, []changelog.Value{{B: []byte(h.Key)}, value})
	}
	return changelog.Value{B: changelog.AppendList(nil, headersType, all)}
}
