package ingest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"firn/changelog"
	"firn/ingest"
)

// keySchemaStream is rows whose key goes from int32 to int64 while they change: with JSON schemas in the keys, most go on
// in another partition. v counts each row's versions.
func keySchemaStream(rows, rounds int) *maker {
	m := newMaker("a.b.t", 3)
	version := 0
	for _, typ := range []string{"int32", "int64"} {
		m.idType = typ
		for range rounds {
			version++
			for id := range rows {
				m.add("u", int64(id), fmt.Sprintf(`"v":%d,"note":"x"`, version))
			}
		}
	}
	return m
}

// checkVersions: each row's versions are applied in order, each once.
func checkVersions(t *testing.T, l *fakeLog, m *maker, rows, versions int) {
	t.Helper()
	table, ok := l.Table(m.table())
	if !ok {
		t.Fatal("no table")
	}
	last := map[string]int64{}
	for _, c := range l.visible.changes {
		s, err := table.Schemas.Of(c.After)
		if err != nil {
			t.Fatal(err)
		}
		values, err := changelog.AppendValues(nil, s, c.After)
		if err != nil {
			t.Fatal(err)
		}
		v := values[s.Ordinal("v")].I
		if v != last[c.Key.String()]+1 {
			t.Fatalf("key %s: version %d after %d (%d/%d)", c.Key, v, last[c.Key.String()], c.Position.Partition, c.Position.Offset)
		}
		last[c.Key.String()] = v
	}
	if len(last) != rows {
		t.Fatalf("%d rows, want %d", len(last), rows)
	}
	for k, v := range last {
		if v != int64(versions) {
			t.Fatalf("key %s ends at version %d", k, v)
		}
	}
}

// TestKeySchemaBarrier: a row that moves to another partition because its key schema has changed keeps its order,
// whichever partition is ahead (spec/debezium.md 1.2).
func TestKeySchemaBarrier(t *testing.T) {
	const rows, rounds = 30, 5
	for slow := range int32(3) {
		for _, batch := range []int{1, 7, 1000} {
			t.Run(fmt.Sprintf("slow=%d/batch=%d", slow, batch), func(t *testing.T) {
				m := keySchemaStream(rows, rounds)
				s := newMemSource(m.records)
				s.batch = batch
				s.order = func(p ingest.Partition, next int64) {
					if p.Index == slow {
						time.Sleep(5 * time.Millisecond)
					}
				}
				l := openLog(newDisk())
				if _, err := runOnce(t, l, s, nil, ingest.Options{BatchRecords: batch}); err != nil {
					t.Fatal(err)
				}
				checkVersions(t, l, m, rows, 2*rounds)
			})
		}
	}
}

// TestKeySchemaBarrierKill is the same over crashes, which forget what the barrier knew.
func TestKeySchemaBarrierKill(t *testing.T) {
	const rows, rounds = 30, 5
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		m := keySchemaStream(rows, rounds)
		l := openLog(newDisk())
		for {
			s := newMemSource(m.records)
			s.batch = 1 + rng.IntN(10)
			s.jitter = rng
			l.dieAfter = 1 + rng.IntN(40)
			_, err := runOnce(t, l, s, nil, ingest.Options{BatchRecords: 1 + rng.IntN(10), ReplayWindow: 1 + rng.IntN(20)})
			if err == nil {
				break
			}
			if !errors.Is(err, errDead) {
				t.Fatal(err)
			}
			l = l.crash(rng.IntN(2))
		}
		checkVersions(t, l, m, rows, 2*rounds)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
