package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
	"firn/ingest/decode"
)

// TopicStatus is how the records of a topic are read, and what the newest of them were.
type TopicStatus struct {
	Topic      string
	Table      string
	Route      string // the pattern of the route that it takes
	Partitions int
	Columns    []ColumnStatus // of the newest change; none: there was none since this process began
	Rejected   string         // why changes of that kind do not fit the table; empty: they do
	Warnings   []string
	Last       *LastRecord // nil: none was read since this process began
}

// ColumnStatus is one column of a topic's newest change.
type ColumnStatus struct {
	Name    string // at the source
	Connect string // its semantic name, such as "io.debezium.time.Date"; empty: none, or not known
	Type    string // what it is read as
	Column  string // in the table; empty: it is dropped
	Stored  string // the type there
	Key     bool
}

// LastRecord is the newest record that was read of a partition.
type LastRecord struct {
	Partition  int32
	Offset     int64
	Time       int64  // of the record, ms since 1970-01-01 UTC; Unknown: not known
	Read       int64  // µs since 1970-01-01 UTC
	Outcome    string // as firn_source_records_total
	Reason     string // of parked ones
	Kind       string // as decode.Kind; empty: it could not be read
	Op         string // of changes
	Connector  string
	Position   string // the source's
	SourceTime int64  // µs since 1970-01-01 UTC; 0: not known
	Snapshot   bool
}

// seen is what a worker keeps of the record that it has read last: a few words, for each of them.
type seen struct {
	there        bool
	offset, time int64
	outcome      *int64 // which of the batch's counts it has raised
	reason       string

	read       bool // it is an event
	kind       decode.Kind
	op         changelog.Op
	snapshot   decode.Snapshot
	connector  string
	native     string
	sourceTime int64
}

// saw keeps what is to be told of a record; ev is nil if it could not be read.
func (w *worker) saw(r *Record, ev *decode.Event) {
	s := &w.seen
	s.there, s.offset, s.time, s.read = true, r.Offset, r.Timestamp, ev != nil
	if ev != nil {
		s.kind, s.op, s.snapshot, s.connector, s.native, s.sourceTime = ev.Kind, ev.Op, ev.Snapshot, ev.Connector, ev.Native, ev.SourceTime
	}
}

// seenTopic is what a partition has shown of its topic.
type seenTopic struct {
	last     *LastRecord
	columns  []ColumnStatus
	rejected string
	warnings []string
}

// publish makes what the worker has seen visible to TopicStatus.
func (w *worker) publish() {
	s := &w.seen
	if !s.there {
		return
	}
	last := &LastRecord{
		Partition: w.part.Index, Offset: s.offset, Time: s.time, Read: w.now, Outcome: w.batch.counts.outcome(s.outcome),
	}
	if last.Outcome == "parked" {
		last.Reason = s.reason
	}
	if s.read {
		last.Kind, last.Connector, last.Position, last.SourceTime = s.kind.String(), s.connector, s.native, s.sourceTime
		last.Snapshot = s.snapshot != decode.SnapshotNone
		if !s.kind.Skip() {
			last.Op = s.op.String()
		}
	}
	s.there = false
	w.shown.last = last
	if w.last != nil && (w.last != w.published || w.twice != w.toldTwice) {
		w.published, w.toldTwice = w.last, w.twice
		w.shown.columns, w.shown.rejected = w.last.columnStatus(), ""
		if w.last.rejected != nil {
			w.shown.rejected = w.last.rejected.Error()
		}
		w.shown.warnings = w.warnings(w.last)
		w.warn(w.shown.warnings)
	}
	w.state.show(w.shown)
}

// outcome names one of the counts.
func (c *Counts) outcome(of *int64) string {
	switch of {
	case &c.Applied:
		return "applied"
	case &c.Skipped:
		return "skipped"
	case &c.Parked:
		return "parked"
	case &c.Replayed:
		return "replayed"
	case &c.Duplicate:
		return "duplicate"
	}
	return ""
}

func (b *binding) columnStatus() []ColumnStatus {
	out := make([]ColumnStatus, len(b.shape.Columns))
	for i, c := range b.shape.Columns {
		out[i] = ColumnStatus{Name: c.Name, Connect: c.Connect, Type: c.Type.String(), Key: slices.Contains(b.shape.Key, i)}
		if b.mapping == nil {
			continue
		}
		if o := b.mapping.Ordinal(i); o >= 0 {
			out[i].Column, out[i].Stored = b.schema.Columns[o].Name, b.schema.Columns[o].Type.String()
		}
	}
	return out
}

// warn logs what was not said of the topic yet.
func (w *worker) warn(warnings []string) {
	r := w.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, text := range warnings {
		if said := (warning{w.part.Topic, text}); !r.mu.warned[said] {
			r.mu.warned[said] = true
			r.pipeline.logger.Warn("look at the source's settings", "source", w.id.Source, "topic", w.part.Topic, "table", w.table.name, "warning", text)
		}
	}
}

// warning is what was said of a topic.
type warning struct{ topic, text string }

// The texts of notes: what it is, and the way out. %s is the columns.
var noteTexts = map[decode.Note]string{
	decode.NoteNullDefault: "%s: optional, with a default: unless the converter has replace.null.with.default=false, nulls arrive as the default and cannot be told apart",
	decode.NoteUnsent: "%s: a value that PostgreSQL stores out of line arrives as null with each update that does not change it, and cannot be told from a null: " +
		"set REPLICA IDENTITY FULL (and identity: full), or use the connector's reselect post-processor",
	decode.NoteUnsentText: "%s: bytea as text: with binary.handling.mode base64 (hex is safe) a value that PostgreSQL stores out of line arrives as null with each update that " +
		"does not change it: set the mode to bytes or hex, or REPLICA IDENTITY FULL (and identity: full)",
	decode.NoteUnsigned: "%s: if it is BIGINT UNSIGNED, numbers above 9223372036854775807 arrive negative: set bigint.unsigned.handling.mode to precise, or " +
		"column.propagate.source.type so that firn can tell",
}

// warnings says what an operator should know of events of a binding's shape (spec/debezium.md 7).
func (w *worker) warnings(b *binding) []string {
	columns := map[decode.Note][]string{}
	for _, n := range b.shape.Notes {
		columns[n.Note] = append(columns[n.Note], n.Column)
	}
	if w.target.Decode.Identity == decode.IdentityFull {
		delete(columns, decode.NoteUnsent)
		delete(columns, decode.NoteUnsentText)
	}
	var out []string
	for note := decode.NoteNullDefault; note <= decode.NoteUnsigned; note++ {
		if names := columns[note]; len(names) > 0 {
			out = append(out, fmt.Sprintf(noteTexts[note], columnList(names)))
		}
	}
	if w.target.Decode.Form == decode.FormFlattened {
		var added []string
		for _, c := range b.shape.Columns {
			if decode.LooksAdded(c.Name) {
				added = append(added, c.Name)
			}
		}
		if len(added) > 0 {
			out = append(out, columnList(added)+": named as members that ExtractNewRecordState adds, and taken for columns: say in metadata what they are")
		}
	}
	if w.keySchema != nil && w.member != nil && !w.member.alone() {
		out = append(out, "keys hold their schema, or its id, and the topic has several partitions: when it changes rows move to other partitions, and all partitions "+
			"wait there for each other; keys as JSON without schema (key.converter.schemas.enable=false) do not move")
	}
	if w.twice {
		out = append(out, noIdentity)
	}
	return out
}

const noIdentity = "what the connector sends again of this table cannot be told from equal rows: it has no key, and its events have no place in their transaction " +
	"(provide.transaction.metadata)"

// columnList names columns, the first ten of them.
func columnList(names []string) string {
	const most = 10
	text := "columns "
	if len(names) == 1 {
		text = "column "
	}
	if len(names) > most {
		return text + strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text + strings.Join(names, ", ")
}

// show keeps what a partition has shown.
func (s *partitionState) show(t seenTopic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.shown = t
}

// Topics returns how the topics of a source are read, by name. Error: ErrNoSource.
func (p *Pipeline) Topics(source string) ([]TopicStatus, error) {
	r, err := p.runner(source)
	if err != nil {
		return nil, err
	}
	return r.topicStatus(), nil
}

func (r *runner) topicStatus() []TopicStatus {
	r.mu.Lock()
	states := make([]*partitionState, 0, len(r.mu.partitions))
	for _, s := range r.mu.partitions {
		states = append(states, s)
	}
	r.mu.Unlock()
	topics := map[string]*TopicStatus{}
	for _, s := range states {
		s.mu.Lock()
		part, shown := s.mu.PartitionStatus, s.mu.shown
		s.mu.Unlock()
		t := topics[part.Topic]
		if t == nil {
			to := r.router.route(part.Topic)
			t = &TopicStatus{Topic: part.Topic, Table: part.Table, Route: to.Topic}
			topics[part.Topic] = t
		}
		t.Partitions++
		if shown.last == nil {
			continue
		}
		newest := t.Last == nil || t.Last.Time < shown.last.Time || t.Last.Time == shown.last.Time && t.Last.Read < shown.last.Read
		if newest {
			t.Last = shown.last
		}
		if shown.columns != nil && (newest || t.Columns == nil) {
			t.Columns, t.Rejected = shown.columns, shown.rejected
		}
		for _, text := range shown.warnings {
			if !slices.Contains(t.Warnings, text) {
				t.Warnings = append(t.Warnings, text)
			}
		}
	}
	all := make([]TopicStatus, 0, len(topics))
	for _, t := range topics {
		slices.Sort(t.Warnings)
		all = append(all, *t)
	}
	slices.SortFunc(all, func(a, b TopicStatus) int { return cmp.Compare(a.Topic, b.Topic) })
	return all
}
