package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/ingest"
	"firn/logstore"
	"firn/state"
)

// realLog is the LogStore as cmd shows it to a pipeline.
type realLog struct{ *logstore.Store }

func (l realLog) Submit(ctx context.Context, a changelog.Append) (ingest.Ticket, error) {
	t, err := l.Store.Submit(ctx, a)
	if err != nil {
		return nil, err
	}
	return t, nil
}

func (l realLog) Row(ctx context.Context, table changelog.TableID, key changelog.Key) (changelog.Row, bool, error) {
	v, err := l.RowNow(ctx, table, key)
	return v.Row, v.Found, err
}

func (l realLog) MovedRow(_ context.Context, table changelog.TableID, key changelog.Key, native string) (changelog.Row, bool, error) {
	return l.Store.MovedRow(table, key, native)
}

func (l realLog) Keys(ctx context.Context, table changelog.TableID) iter.Seq2[changelog.Key, error] {
	return func(yield func(changelog.Key, error) bool) {
		snap, err := l.Snapshot(ctx, table)
		if err != nil {
			yield(nil, err)
			return
		}
		defer snap.Close()
		for e, err := range snap.Rows(nil, nil) {
			if !yield(e.Key, err) || err != nil {
				return
			}
		}
	}
}

type realTables struct{ *state.Registry }

func realTable(t *state.Table, err error) (*ingest.Table, error) {
	if errors.Is(err, state.ErrExists) {
		return nil, ingest.ErrTableExists
	}
	if err != nil {
		return nil, err
	}
	out := &ingest.Table{ID: t.ID, Name: t.Name, Schemas: t.Schemas}
	for _, ref := range t.Topics {
		out.Topics = append(out.Topics, ingest.Topic(ref))
	}
	return out, nil
}

func (r realTables) Table(name string) (*ingest.Table, bool) {
	t, ok := r.Registry.Table(name)
	if !ok {
		return nil, false
	}
	out, err := realTable(t, nil)
	return out, err == nil
}

func (r realTables) Create(ctx context.Context, name string, s *changelog.Schema, topic ingest.Topic) (*ingest.Table, error) {
	return realTable(r.Registry.Create(ctx, name, s, state.TopicRef(topic), nil))
}

func (r realTables) AddSchema(ctx context.Context, id changelog.TableID, s *changelog.Schema) (*ingest.Table, error) {
	return realTable(r.Registry.AddSchema(ctx, id, s))
}

func (r realTables) AddTopic(ctx context.Context, id changelog.TableID, topic ingest.Topic) (*ingest.Table, error) {
	return realTable(r.Registry.AddTopic(ctx, id, state.TopicRef(topic)))
}

// TestLogStoreCrash takes the recorded stream into the real LogStore, which loses power at random moments (P1).
func TestLogStoreCrash(t *testing.T) {
	expected := expectedTables(t)
	for _, partitions := range []int32{1, 3} {
		for _, name := range []string{"stream_2000_schema.jsonl.gz", "stream_2000.jsonl.gz"} {
			t.Run(fmt.Sprintf("%s/partitions=%d", name, partitions), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(7, uint64(partitions)))
				records := readRecording(t, name, partitions)
				routes := routesOf(t, expected, name == "stream_2000.jsonl.gz")
				disk := vfs.NewCrashableMem()
				lives := 0
				for done := false; !done; lives++ {
					disk, done = oneLife(t, disk, records, routes, rng, lives > 25, func(s *logstore.Store, r *state.Registry) {
						compareReal(t, s, r, expected, partitions)
					})
				}
				t.Logf("%d lives", lives)
			})
		}
	}
}

// oneLife runs a pipeline on a disk until the power fails, or to its end, which check looks at. It returns the disk as it
// is afterwards.
func oneLife(t *testing.T, disk *vfs.MemFS, records []ingest.Record, routes []ingest.Route, rng *rand.Rand, last bool, check func(*logstore.Store, *state.Registry)) (*vfs.MemFS, bool) {
	t.Helper()
	o := logstore.Options{FS: disk, MinFreeBytes: -1}
	db, err := logstore.OpenDB("d", o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	reg, err := state.OpenRegistry(db.DB)
	if err != nil {
		t.Fatal(err)
	}
	store, err := logstore.Open(db, reg, o)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := newMemSource(records)
	s.batch = 1 + rng.IntN(30)
	s.order = func(ingest.Partition, int64) { time.Sleep(200 * time.Microsecond) }
	p, err := ingest.New(realLog{store}, realTables{reg}, []ingest.Input{{Source: s, Routes: routes}}, ingest.Options{BatchRecords: 1 + rng.IntN(50), ReplayWindow: 400})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var after *vfs.MemFS
	var power sync.WaitGroup
	if life := time.Duration(2+rng.IntN(30)) * time.Millisecond; !last {
		power.Go(func() {
			select {
			case <-time.After(life):
				after = disk.CrashClone(vfs.CrashCloneCfg{})
			case <-ctx.Done():
			}
			cancel()
		})
	}
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	power.Wait()
	if after != nil {
		return after, false
	}
	check(store, reg)
	return disk, true
}

func compareReal(t *testing.T, store *logstore.Store, reg *state.Registry, expected map[string]expectedTable, partitions int32) {
	t.Helper()
	tables := keyed
	if partitions == 1 {
		tables = append(slices.Clone(keyed), "staging")
	}
	for _, name := range tables {
		table, ok := reg.Table(ingest.TableName(expected[name].Topic))
		if !ok {
			t.Fatalf("no table %s", name)
		}
		snap, err := store.Snapshot(t.Context(), table.ID)
		if err != nil {
			t.Fatal(err)
		}
		rows := map[string]changelog.Row{}
		for e, err := range snap.Rows(nil, nil) {
			if err != nil {
				t.Fatal(err)
			}
			rows[rowKey(table.ID, e.Key)] = slices.Clone(e.Row)
		}
		snap.Close()
		shown, _ := realTable(table, nil)
		compareRows(t, name, dump(t, shown, rows), expected[name].Rows)
		last := map[changelog.StreamID]int64{}
		for c, err := range store.Scan(t.Context(), table.ID, 0, snap.Applied) {
			if err != nil {
				t.Fatal(err)
			}
			id := changelog.StreamID{Topic: c.Position.Topic, Partition: c.Position.Partition}
			at, seen := last[id]
			if truncates := c.Op == changelog.OpDelete || c.Op == changelog.OpTruncate; seen && (c.Position.Offset < at || c.Position.Offset == at && !truncates) {
				t.Fatalf("%s: offset %d after %d", id, c.Position.Offset, at)
			}
			last[id] = c.Position.Offset
		}
	}
	for r, err := range store.ParkedAll(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !r.Applied && (partitions == 1 || r.Reason != "truncate_unsafe") {
			t.Errorf("parked %s/%d/%d: %s", r.Position.Topic, r.Position.Partition, r.Position.Offset, r.Reason)
		}
	}
}
