package ingest_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"firn/changelog"
	"firn/ingest"
)

// checkBefore: each change of a table whose rows can leave their partition has the row that its key had, and no other.
func checkBefore(t *testing.T, l *fakeLog) {
	t.Helper()
	moving := map[changelog.TableID]bool{}
	for _, table := range l.disk.tables {
		moving[table.ID] = len(table.Partition) > 0 && !table.Partition.InKey(table.Schemas.Current())
	}
	rows, checked := map[string]changelog.Row{}, 0
	for i, c := range l.visible.changes {
		if !moving[c.table] || c.Op == changelog.OpTruncate {
			continue
		}
		key := rowKey(c.table, c.Key)
		if !bytes.Equal(c.Before, rows[key]) {
			t.Fatalf("change %d of %s: before %x, its row is %x", i, key, c.Before, rows[key])
		}
		if rows[key] = c.After; c.After == nil {
			delete(rows, key)
		}
		checked++
	}
	if checked == 0 {
		t.Error("no table has rows that can leave their partition")
	}
}

// TestBeforeImages: where changes can take rows to other partitions each has the row before it: in one batch and over
// several, after rejected events, key changes and truncates, and when two topics feed the same keys at once.
func TestBeforeImages(t *testing.T) {
	for _, topics := range []int{1, 2} {
		for _, batch := range []int{1, 5, 1000} {
			t.Run(fmt.Sprintf("topics=%d/batch=%d", topics, batch), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(batch), 2))
				var makers []*maker
				for n := range topics {
					m := newMaker(fmt.Sprint("a.b.", n), 1)
					for range 400 {
						id, v := r.Int64N(8), r.Int64N(9)
						switch r.IntN(10) {
						case 0:
							m.add("d", id, "")
						case 1:
							m.add("u", id, `"v":"no number","note":"x"`)
						case 2:
							m.move(id, id+8, fmt.Sprintf(`"v":%s,"note":"x"`, hole))
						case 3:
							m.raw("", truncateValue(m))
						case 4:
							m.add("u", id, fmt.Sprintf(`"v":%s,"note":"n%d"`, hole, v))
						default:
							m.add("u", id, fmt.Sprintf(`"v":%d,"note":"n%d"`, v, v))
						}
					}
					makers = append(makers, m)
				}
				l := openLog(newDisk())
				l.slow = topics > 1
				l.disk.parts = map[string][]string{"all": {"v"}}
				run(t, l, ingest.Options{BatchRecords: batch}, []ingest.Route{{Topic: `a\.b\..`, Table: "shop.all"}}, makers...)
				checkBefore(t, l)
			})
		}
	}
}

// TestPartitionValues: rows that the lake's partitions cannot take are parked with the reason; their key is stale, and all
// else flows (P6).
func TestPartitionValues(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"null"`)
	m.add("c", 2, `"v":1,"note":"nul"`)
	m.add("u", 2, `"v":2,"note":"__HIVE_DEFAULT_PARTITION__"`)
	m.add("u", 2, fmt.Sprintf(`"v":3,"note":%s`, hole)) // must not build on the row before the parked one
	m.add("c", 3, `"v":1,"note":null`)
	l := openLog(newDisk())
	l.disk.parts = map[string][]string{"t": {"note"}}
	run(t, l, ingest.Options{}, nil, m)
	if got, want := parkedReasons(l), "0:partition_value 2:partition_value 3:key_stale"; got != want {
		t.Errorf("parked %s, want %s", got, want)
	}
	if d := l.visible.parked[0].Detail; !strings.Contains(d, `column "note": the partition value "null" reads as no value`) {
		t.Errorf("detail %q", d)
	}
	keyless := newKeylessMaker("mariadb", 1)
	keyless.event("c", "", `1 "null"`)
	keyless.event("c", "", `1 "a"`)
	keyless.event("u", `1 "a"`, `1 "null"`) // the old row stays
	keyless.event("c", "", `2 "a"`)
	keyless.event("u", `2 "a"`, `2 null`)
	b := openLog(newDisk())
	b.disk.parts = map[string][]string{"events": {"note"}}
	run(t, b, ingest.Options{}, []ingest.Route{{Topic: ".*", Keyless: ingest.KeylessFullRow}}, keyless.maker)
	if got, want := parkedReasons(b), "0:partition_value 2:partition_value"; got != want {
		t.Errorf("without a key: parked %s, want %s", got, want)
	}
	if got := bagRows(t, b); got != `{"v":1,"note":"a"} {"v":2,"note":null}` {
		t.Errorf("without a key: rows %s", got)
	}
	if got := rows(t, l, "a_b.t"); got != `{"id":2,"v":1,"note":"nul"}`+"\n"+`{"id":3,"v":1,"note":null}`+"\n" {
		t.Errorf("rows %s", got)
	}
}

// TestTableUnfit: the records of a table whose settings do not go with its columns are parked, every one, until events come that
// have what is asked for; other tables go on.
func TestTableUnfit(t *testing.T) {
	bad, good := newMaker("a.b.bad", 1), newMaker("a.b.good", 1)
	for id := range int64(3) {
		bad.add("c", id, `"v":1,"note":"x"`)
		good.add("c", id, `"v":1,"note":"x"`)
	}
	bad.columns = "v:int64,note:string,region:string"
	bad.add("c", 9, `"v":1,"note":"x","region":"eu"`)
	l := openLog(newDisk())
	l.disk.parts = map[string][]string{"bad": {"region"}}
	run(t, l, ingest.Options{BatchRecords: 1}, nil, bad, good)
	if got, want := parkedReasons(l), "0:table_unfit 1:table_unfit 2:table_unfit"; got != want {
		t.Errorf("parked %s, want %s", got, want)
	}
	if d := l.visible.parked[0].Detail; !strings.Contains(d, `the table has no top-level column "region"`) {
		t.Errorf("detail %q", d)
	}
	if got := rows(t, l, "a_b.bad"); strings.Count(got, "\n") != 1 {
		t.Errorf("rows %s", got)
	}
	if got := rows(t, l, "a_b.good"); strings.Count(got, "\n") != 3 {
		t.Errorf("rows %s", got)
	}
}
