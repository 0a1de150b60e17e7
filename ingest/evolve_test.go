package ingest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
	"firn/ingest/decode"
)

// sourceColumn is a column of a table in a database that is altered while its events stream.
type sourceColumn struct {
	id         int // what it stays through renames
	name, kind string
}

var sourceKinds = map[string]string{"int16": "int32", "int32": "int64", "float": "double", "double": "", "int64": "", "string": ""} // what each widens to

// evolvingSource makes the events of such a table, declares its renames and about half of its drops, and knows the rows that must come of
// them.
type evolvingSource struct {
	*maker
	rnd     *rand.Rand
	columns []sourceColumn
	nextID  int
	names   map[int]string        // of every column that an event has had, the last one
	rows    map[int64]map[int]any // by key, by column
	gone    map[int]bool          // declared drops that an event has shown
	o       decode.PlanOptions
}

func newEvolvingSource(seed uint64, partitions int32) *evolvingSource {
	s := &evolvingSource{
		maker: newMaker("a.b.t", partitions), rnd: rand.New(rand.NewPCG(seed, 77)), names: map[int]string{}, rows: map[int64]map[int]any{}, gone: map[int]bool{},
		o: decode.PlanOptions{Renames: map[string]string{}},
	}
	for range 3 {
		s.alter(0)
	}
	return s
}

// alter changes the source's table in one way.
func (s *evolvingSource) alter(what int) {
	i := 0
	if len(s.columns) > 0 {
		i = s.rnd.IntN(len(s.columns))
	}
	switch {
	case what == 0 || len(s.columns) < 2: // add, anywhere
		s.nextID++
		kinds := slices.Sorted(maps.Keys(sourceKinds))
		c := sourceColumn{s.nextID, fmt.Sprint("c", s.nextID), kinds[s.rnd.IntN(len(kinds))]}
		s.columns = slices.Insert(s.columns, i, c)
	case what == 1: // drop
		c := s.columns[i]
		s.columns = slices.Delete(s.columns, i, i+1)
		if s.rnd.IntN(2) == 0 && s.o.Renames[c.name] == "" && !strings.Contains(c.name, "_") {
			s.o.Drops = append(s.o.Drops, c.name)
			s.gone[c.id] = true
		}
	case what == 2: // rename
		to := s.columns[i].name + "_"
		s.o.Renames[s.columns[i].name] = to
		s.columns[i].name = to
	case what == 3: // widen
		if wide := sourceKinds[s.columns[i].kind]; wide != "" {
			s.columns[i].kind = wide
		}
	case what == 4: // another order
		s.rnd.Shuffle(len(s.columns), func(i, j int) { s.columns[i], s.columns[j] = s.columns[j], s.columns[i] })
	default:
		s.idType = "int64"
	}
}

// emit makes n events of the table as it is.
func (s *evolvingSource) emit(n int) {
	var types []string
	for _, c := range s.columns {
		types = append(types, c.name+":"+c.kind)
		s.names[c.id] = c.name
	}
	s.maker.columns = strings.Join(types, ",")
	for range n {
		id := s.rnd.Int64N(25) - 10
		if s.rnd.IntN(6) == 0 {
			s.add("d", id, "")
			delete(s.rows, id)
			continue
		}
		row, text := map[int]any{}, []string(nil)
		for _, c := range s.columns {
			var v any = float64(s.rnd.IntN(100)) + 0.5
			switch {
			case s.rnd.IntN(6) == 0:
				v = nil
			case c.kind == "string":
				v = fmt.Sprint("s", s.rnd.IntN(100))
			case strings.HasPrefix(c.kind, "int"):
				v = s.rnd.IntN(200) - 100
			}
			row[c.id] = v
			b, err := json.Marshal(v)
			if err != nil {
				panic(err)
			}
			text = append(text, fmt.Sprintf("%q:%s", c.name, b))
		}
		s.add("u", id, strings.Join(text, ","))
		s.rows[id] = row
	}
}

// want returns the rows that the table must have.
func (s *evolvingSource) want(t *testing.T) (rows []json.RawMessage) {
	for id, row := range s.rows {
		all := map[string]any{"id": id}
		for c, name := range s.names {
			if !s.gone[c] {
				all[name] = row[c]
			}
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, b)
	}
	return rows
}

// TestEvolveLive alters a table at random while its events stream in, from one partition and from three;
// the log dies now and then. Whatever order the partitions come in, the rows are the source's, no column is
// there twice, and none comes back (spec/debezium.md 4.3, 4.4).
func TestEvolveLive(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 4
	}
	for _, partitions := range []int32{1, 3} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("partitions=%d/seed=%d", partitions, seed), func(t *testing.T) {
				s := newEvolvingSource(seed, partitions)
				s.emit(20)
				for range 10 {
					s.alter(s.rnd.IntN(6))
					s.emit(20)
				}
				s.emit(20)
				evolveLive(t, s, seed)
			})
		}
	}
}

func evolveLive(t *testing.T, s *evolvingSource, seed uint64) {
	l, rng := openLog(newDisk()), rand.New(rand.NewPCG(seed, 1))
	lives := 0
	for {
		source := newMemSource(s.records)
		source.batch, source.jitter = 1+rng.IntN(15), rand.New(rand.NewPCG(rng.Uint64(), 1))
		l.dieAfter = 5 + rng.IntN(15)
		_, err := runOnce(t, l, source, []ingest.Route{{Topic: ".*", Plan: s.o}}, ingest.Options{BatchRecords: 1 + rng.IntN(12), ReplayWindow: 200})
		if err == nil {
			break
		}
		if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		l = l.crash(rng.IntN(3))
		lives++
	}
	table, ok := l.Table(s.table())
	if !ok {
		t.Fatal("no table")
	}
	if len(l.visible.parked) > 0 {
		t.Errorf("parked %s: %s", parkedReasons(l), l.visible.parked[0].Detail)
	}
	compareRows(t, "t", dump(t, table, l.visible.rows), s.want(t))
	var names []string
	for c, name := range s.names {
		if !s.gone[c] {
			names = append(names, name)
		}
	}
	if got := len(table.Schemas.Current().Columns) - 1; got != len(names) {
		t.Errorf("%d columns beside the key, want %v", got, names)
	}
	for i := range table.Schemas {
		if err := table.Schemas[:i].Follows(table.Schemas[i]); err != nil {
			t.Error(err)
		}
	}
	if lives == 0 {
		t.Error("the log never died")
	}
	l.check(t)
	checkOnce(t, l)
}

// TestDropPartitionColumn: a column that the table is partitioned by is not dropped, and the event says why.
func TestDropPartitionColumn(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	l := openLog(newDisk())
	run(t, l, ingest.Options{}, nil, m)
	table := l.disk.tables["a_b.t"]
	v := table.Schemas[0].Columns[table.Schemas[0].Ordinal("v")].ID
	table.Partition = changelog.PartitionSpec{{Name: "v", Column: "v", SourceID: v, Transform: changelog.Transform{Kind: changelog.Identity}}}
	m.columns = "note:string"
	m.add("c", 2, `"note":"b"`)
	run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", Plan: decode.PlanOptions{Drops: []string{"v"}}}}, m)
	if got := parkedReasons(l); got != "1:evolution_blocked" {
		t.Fatalf("parked %q", got)
	}
	if d := l.visible.parked[0].Detail; !strings.Contains(d, "partitioned by v") {
		t.Errorf("detail %q", d)
	}
}
