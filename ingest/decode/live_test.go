package decode

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
)

// lake is a model of the tables that a pipeline would keep: it applies events one by one.
type lake struct {
	t        testing.TB
	decoders map[string]*Decoder // by topic
	tables   map[string]*lakeTable
	options  func(table string) Options
	plan     PlanOptions

	rejected map[string]int
	kinds    map[Kind]int
	reports  map[string]int
	replays  int
	seen     map[[16]byte]bool
}

type lakeTable struct {
	history  changelog.Schemas
	rows     map[string]changelog.Row // by key
	gone     map[string]changelog.Row // last rows of deleted keys
	keyless  []changelog.Row
	mappings map[*Shape]*Mapping
}

func newLake(t testing.TB, options func(table string) Options) *lake {
	return &lake{
		t: t, options: options, decoders: map[string]*Decoder{}, tables: map[string]*lakeTable{}, rejected: map[string]int{},
		kinds: map[Kind]int{}, reports: map[string]int{}, seen: map[[16]byte]bool{},
	}
}

func (l *lake) apply(r Record) {
	l.t.Helper()
	name := r.Topic[strings.LastIndexByte(r.Topic, '.')+1:]
	d := l.decoders[r.Topic]
	if d == nil {
		d = newDecoder(l.t, l.options(name))
		l.decoders[r.Topic] = d
	}
	ev, err := d.Decode(r)
	if err != nil {
		l.rejected[name+" "+reasonOf(err)]++
		if testing.Verbose() {
			l.t.Logf("%s: %v", name, err)
		}
		return
	}
	l.kinds[ev.Kind]++
	for _, rep := range ev.Reports {
		l.reports[name+"."+rep.Column+" "+rep.Reason]++
	}
	if ev.HasIdentity && l.seen[ev.Identity] {
		l.replays++
		return
	}
	if ev.HasIdentity {
		l.seen[ev.Identity] = true
	}
	table := l.tables[name]
	if ev.Kind == Truncate && table != nil {
		table.rows = map[string]changelog.Row{}
	}
	if ev.Kind != Change {
		return
	}
	if table == nil {
		table = &lakeTable{rows: map[string]changelog.Row{}, gone: map[string]changelog.Row{}, mappings: map[*Shape]*Mapping{}}
	}
	if l.change(name, table, d, ev) {
		l.tables[name] = table
	}
}

func (l *lake) change(name string, table *lakeTable, d *Decoder, ev *Event) bool {
	m := table.mappings[ev.Shape]
	if m == nil {
		var current, next *changelog.Schema
		if len(table.history) > 0 {
			current = table.history.Current()
		}
		var err error
		if m, next, err = Plan(current, ev.Shape, l.plan); err != nil {
			l.rejected[name+" "+reasonOf(err)]++
			if testing.Verbose() {
				l.t.Logf("%s: %v", name, err)
			}
			return false
		}
		if next != nil {
			table.history = append(table.history, next)
			clear(table.mappings)
			d.SetTable(next)
		}
		table.mappings[ev.Shape] = m
	}
	if len(ev.Key) == 0 {
		if ev.Op == changelog.OpCreate || ev.Op == changelog.OpRead {
			table.keyless = append(table.keyless, m.Row(nil, ev.After))
			return true
		}
		l.keylessChange(table, m, ev)
		return true
	}
	key := string(m.Key(nil, ev.Key))
	if k, ok := ev.TableKey(nil, m.Schema()); !ok || string(k) != key {
		l.t.Fatalf("%s: TableKey %s, Mapping.Key %x", name, k, key)
	}
	if ev.Op == changelog.OpDelete {
		table.gone[key] = table.rows[key]
		delete(table.rows, key)
		return true
	}
	values := m.Values(ev.After)
	if len(ev.Placeholders) > 0 {
		old := table.rows[key]
		if old == nil {
			old = table.gone[key]
		}
		if ev.OldKey != nil {
			old = table.gone[string(m.Key(nil, ev.OldKey))]
			values = m.Values(ev.After)
		}
		if old == nil {
			l.rejected[name+" placeholder_unresolved"]++
			return true
		}
		from, err := table.history.Of(old)
		if err != nil {
			l.t.Fatal(err)
		}
		p, err := changelog.NewProjection(from, m.Schema())
		if err != nil {
			l.t.Fatal(err)
		}
		stored, err := p.Values(old)
		if err != nil {
			l.t.Fatal(err)
		}
		for _, i := range ev.Placeholders {
			values[m.Ordinal(i)] = stored[m.Ordinal(i)]
		}
	}
	table.rows[key] = changelog.AppendRow(nil, m.Schema(), values)
	return true
}

func (l *lake) keylessChange(table *lakeTable, m *Mapping, ev *Event) {
	if ev.Before == nil {
		l.rejected["keyless without before"]++
		return
	}
	before := l.normal(table, m.Row(nil, ev.Before))
	i := slices.IndexFunc(table.keyless, func(r changelog.Row) bool { return l.normal(table, r) == before })
	if i < 0 {
		l.rejected["keyless not found"]++
		return
	}
	table.keyless = slices.Delete(table.keyless, i, i+1)
	if ev.Op == changelog.OpUpdate {
		table.keyless = append(table.keyless, m.Row(nil, ev.After))
	}
}

func (l *lake) normal(table *lakeTable, r changelog.Row) string {
	return text(l.form(table, r, nil))
}

// form returns a row, as the table's schema is now, limited to columns.
func (l *lake) form(table *lakeTable, r changelog.Row, columns []string) map[string]any {
	s := table.history.Current()
	from, err := table.history.Of(r)
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := changelog.NewProjection(from, s)
	if err != nil {
		l.t.Fatal(err)
	}
	values, err := p.Values(r)
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]any{}
	for i, c := range s.Columns {
		if columns == nil || slices.Contains(columns, c.Name) {
			out[c.Name] = form(l.t, c.Type, values[i])
		}
	}
	return out
}

// rows returns the texts of a table's rows, sorted.
func (l *lake) rows(name string, columns []string) []string {
	table := l.tables[name]
	if table == nil {
		return nil
	}
	var out []string
	for _, r := range table.rows {
		out = append(out, text(l.form(table, r, columns)))
	}
	for _, r := range table.keyless {
		out = append(out, text(l.form(table, r, columns)))
	}
	slices.Sort(out)
	return out
}

func (l *lake) compare(name string, want []any) {
	l.t.Helper()
	if len(want) == 0 {
		if got := l.rows(name, nil); len(got) != 0 {
			l.t.Errorf("%s: %d rows, want none", name, len(got))
		}
		return
	}
	var texts []string
	for _, w := range want {
		texts = append(texts, text(w))
	}
	slices.Sort(texts)
	got := l.rows(name, slices.Collect(maps.Keys(want[0].(map[string]any))))
	if len(got) != len(texts) {
		l.t.Errorf("%s: %d rows, want %d", name, len(got), len(texts))
	}
	bad := 0
	for i := range min(len(got), len(texts)) {
		if got[i] != texts[i] {
			if bad++; bad <= 3 {
				l.t.Errorf("%s: row\n%.900s\nwant\n%.900s", name, got[i], texts[i])
			}
		}
	}
}

func readRows(t testing.TB, name string) []any {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var rows []any
	for l := range strings.Lines(string(b)) {
		rows = append(rows, parse(t, []byte(l)))
	}
	return rows
}

// liveHints reads the column schemas that a decoder of the plain recording must be told.
func liveHints(t testing.TB) map[string][]Hint {
	t.Helper()
	b, err := os.ReadFile(live + "postgres-hints.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	hints := map[string][]Hint{}
	for table, columns := range all {
		for _, name := range slices.Sorted(maps.Keys(columns)) {
			hints[table] = append(hints[table], Hint{name, columns[name]})
		}
	}
	return hints
}

// flattenedLive are the options for the flattened recording, as its README tells how it was made.
func flattenedLive() Options {
	return Options{
		Form: FormFlattened, Deletes: DeletesRewrite, Connector: "postgresql",
		Metadata: map[string]string{"__op": "op", "__table": "source.table", "__lsn": "source.lsn", "__source_ts_ms": "source.ts_ms"},
	}
}

// TestLive: the recordings of real connectors, applied event by event, give the rows that the sources held.
func TestLive(t *testing.T) {
	hints := liveHints(t)
	for _, c := range []struct {
		file, expected string
		options        func(table string) Options
	}{
		{"postgres-json-schemas", "postgres", func(string) Options { return Options{Format: FormatSchema} }},
		{"postgres-json-plain", "postgres", func(table string) Options { return Options{Format: FormatPlain, Hints: hints[table]} }},
		{"postgres-full-identity", "postgres-full", func(string) Options { return Options{Identity: IdentityFull} }},
		{"mariadb-json-schemas", "mariadb", func(string) Options { return Options{} }},
		{"postgres-flattened", "postgres", func(string) Options { return flattenedLive() }},
	} {
		t.Run(c.file, func(t *testing.T) {
			l := newLake(t, c.options)
			for _, r := range readLines(t, live+c.file+".jsonl.gz") {
				l.apply(r.Record)
			}
			for _, name := range []string{"customers", "products", "orders", "order_items", "docs", "events", "staging", "types"} {
				if c.file == "postgres-flattened" && name == "staging" {
					continue // no truncate comes through the transformation
				}
				l.compare(name, readRows(t, live+"expected/"+c.expected+"/"+name+".jsonl"))
			}
			if len(l.rejected) != 0 || l.replays != 0 {
				t.Errorf("rejected %v, replays %d", l.rejected, l.replays)
			}
			t.Logf("kinds %v, reports %v", l.kinds, l.reports)
		})
	}
}
