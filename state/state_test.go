package state

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"firn/changelog"
	"firn/state/keyspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openDB(tb testing.TB, fs vfs.FS) *pebble.DB {
	tb.Helper()
	db, err := pebble.Open("d", &pebble.Options{FS: fs, Logger: quiet{tb}, FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

type quiet struct{ testing.TB }

func (quiet) Infof(string, ...any)             {}
func (q quiet) Errorf(format string, a ...any) { q.Logf(format, a...) }

// testRegistry is a registry that can be closed and opened again.
type testRegistry struct {
	*Registry
	tb testing.TB
	fs vfs.FS
}

func openRegistry(tb testing.TB, fs vfs.FS) *testRegistry {
	tb.Helper()
	r := &testRegistry{tb: tb, fs: fs}
	r.open()
	tb.Cleanup(func() {
		if err := r.db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return r
}

func (r *testRegistry) open() {
	r.tb.Helper()
	var err error
	if r.Registry, err = OpenRegistry(openDB(r.tb, r.fs)); err != nil {
		r.tb.Fatal(err)
	}
}

func (r *testRegistry) reopen() {
	r.tb.Helper()
	if err := r.db.Close(); err != nil {
		r.tb.Fatal(err)
	}
	r.open()
}

func schema(tb testing.TB, columns ...string) *changelog.Schema {
	tb.Helper()
	cols := []changelog.Column{{Name: "id", Type: changelog.Primitive(changelog.Long)}}
	for _, c := range columns {
		cols = append(cols, changelog.Column{Name: c, Type: changelog.Primitive(changelog.String)})
	}
	s, err := changelog.NewSchema(cols, []string{"id"})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func describe(r *Registry) string {
	var out strings.Builder
	for _, t := range r.Tables() {
		p, err := r.Progress(t.ID)
		fmt.Fprintf(&out, "%d %s schemas %d columns %d %v %v %+v %v\n", t.ID, t.Name, len(t.Schemas), len(t.Schema().Columns), t.Topics, t.Properties, p, err)
	}
	return out.String()
}

func TestRegistry(t *testing.T) {
	r := openRegistry(t, vfs.NewMem())
	ctx := t.Context()
	changed := r.Changed()
	a, err := r.Create(ctx, "shop.a", schema(t), TopicRef{"k", "s.a"}, map[string]string{"x": "1"})
	if err != nil || a.ID != 1 || !a.Keyed() {
		t.Fatalf("%+v %v", a, err)
	}
	select {
	case <-changed:
	default:
		t.Error("a new table is no change")
	}
	b, err := r.Create(ctx, "shop.b", schema(t, "v"), TopicRef{"k", "s.b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	next, err := a.Schema().Evolve([]changelog.Column{{Name: "n", Type: changelog.Primitive(changelog.Int)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	grown, err := r.AddSchema(ctx, a.ID, next)
	if err != nil || len(grown.Schemas) != 2 || len(a.Schemas) != 1 {
		t.Errorf("%+v %v; before: %d schemas", grown, err, len(a.Schemas))
	}
	for name, c := range map[string]struct{ got, want error }{
		"same name":        {second(r.Create(ctx, "shop.a", schema(t), TopicRef{"k", "new"}, nil)), ErrExists},
		"same topic":       {second(r.Create(ctx, "shop.c", schema(t), TopicRef{"k", "s.a"}, nil)), ErrExists},
		"topic of another": {second(r.AddTopic(ctx, b.ID, TopicRef{"k", "s.a"})), ErrExists},
		"no such table":    {second(r.AddTopic(ctx, 99, TopicRef{"k", "s.z"})), ErrNotFound},
		"progress of none": {second(r.Progress(99)), ErrNotFound},
		"update of none":   {r.UpdateProgress(ctx, 99, func(*Progress) {}), ErrNotFound},
		"drop of none":     {r.Drop(ctx, 99), ErrNotFound},
		"index of none":    {second(r.OpenIndex(99)), ErrNotFound},
		"topic again":      {second(r.AddTopic(ctx, a.ID, TopicRef{"k", "s.a"})), nil},
		"second topic":     {second(r.AddTopic(ctx, a.ID, TopicRef{"k", "s.a2"})), nil},
		"properties":       {second(r.SetProperties(ctx, a.ID, map[string]string{"x": "", "y": "2"})), nil},
		"progress":         {r.UpdateProgress(ctx, a.ID, func(p *Progress) { p.Flushed, p.CommitID = 7, "c" }), nil},
	} {
		if !errors.Is(c.got, c.want) || c.want == nil && c.got != nil {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if _, err := r.AddSchema(ctx, a.ID, schema(t)); err == nil {
		t.Error("schema 0 is added after schema 1")
	}
	if err := r.Drop(ctx, b.ID); err != nil {
		t.Fatal(err)
	}
	want := "1 shop.a schemas 2 columns 2 [{k s.a} {k s.a2}] map[y:2] {Flushed:7 CommitID:c Epoch:0 ChangeSequence:0 Optimized:0 IndexSnapshot:0 Rebuilding:false} <nil>\n"
	if got := describe(r.Registry); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	writer := r.WriterID()
	r.reopen()
	if got := describe(r.Registry); got != want || r.WriterID() != writer || len(writer) != 36 {
		t.Errorf("reopened: %s, writer %s\nwant %s, writer %s", got, r.WriterID(), want, writer)
	}
	if got, ok := r.ByTopic("k", "s.a2"); !ok || got.ID != a.ID {
		t.Errorf("by topic: %+v %t", got, ok)
	}
	if _, ok := r.ByTopic("k", "s.b"); ok {
		t.Error("the topic of a dropped table still feeds one")
	}
	if c, err := r.Create(ctx, "shop.b", schema(t), TopicRef{"k", "s.b"}, nil); err != nil || c.ID != 3 {
		t.Errorf("after a drop: %+v %v: ids are not used again", c, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestNewerFormat: a directory, or a value, of a newer firn is refused.
func TestNewerFormat(t *testing.T) {
	r := openRegistry(t, vfs.NewMem())
	if err := r.db.Set(keyspace.Meta(nil, metaFormat), []byte("2"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistry(r.db); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("format 2: %v", err)
	}
	if err := errors.Join(r.db.Set(keyspace.Meta(nil, metaFormat), []byte("1"), pebble.Sync),
		r.db.Set(keyspace.Table(nil, keyspace.SpaceTable, 1), []byte{2, '{', '}'}, pebble.Sync)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistry(r.db); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("entry of version 2: %v", err)
	}
	if err := r.db.Set(keyspace.Table(nil, keyspace.SpaceTable, 1), []byte{1, '{'}, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistry(r.db); !errors.Is(err, ErrCorrupt) {
		t.Errorf("broken entry: %v", err)
	}
}

// TestGoldenValues pins the bytes on disk.
func TestGoldenValues(t *testing.T) {
	r := openRegistry(t, vfs.NewMem())
	table := Table{Name: "shop.a", Schemas: changelog.Schemas{schema(t)}, Properties: map[string]string{"x": "1"}, Topics: []TopicRef{{"k", "s.a"}}, Created: 5}
	p := Progress{Flushed: 7, CommitID: "c", Epoch: 2, ChangeSequence: 3, Optimized: 4, IndexSnapshot: 9, Rebuilding: true}
	pos := []changelog.StreamPosition{{StreamID: changelog.StreamID{Source: "k", Topic: "s.a", Partition: 1}, Next: 300}}
	if _, err := r.Restore(t.Context(), table, p, pos); err != nil {
		t.Fatal(err)
	}
	x, err := r.OpenIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	b := x.Begin()
	defer b.Close()
	b.Set(changelog.Key("key"), b.AddFile("f.parquet"), 300)
	if err := b.Commit(t.Context(), 9, nil); err != nil {
		t.Fatal(err)
	}
	spec, err := changelog.ParsePartition([]string{"bucket(4, id)"})
	if err != nil {
		t.Fatal(err)
	}
	if spec, err = spec.Bind(schema(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Restore(t.Context(), Table{Name: "shop.b", Schemas: changelog.Schemas{schema(t)}, Partition: spec, Created: 5}, Progress{}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key  []byte
		want string
	}{
		{keyspace.Meta(nil, "format"), "1"},
		{keyspace.Meta(nil, "next-table"), "3"},
		{keyspace.Table(nil, keyspace.SpaceTable, 2), "\x01" + `{"id":2,"name":"shop.b","schemas":[{"id":0,"columns":[{"id":1,"name":"id","type":{"kind":3},"required":true}],"key":[1],"lastId":1}],"partition":[{"name":"id_bucket","column":"id","sourceId":1,"transform":"bucket[4]"}],"created":5}`},
		{keyspace.Table(nil, keyspace.SpaceTable, 1), "\x01" + `{"id":1,"name":"shop.a","schemas":[{"id":0,"columns":[{"id":1,"name":"id","type":{"kind":3},"required":true}],"key":[1],"lastId":1}],"properties":{"x":"1"},"topics":[{"source":"k","topic":"s.a"}],"created":5}`},
		{keyspace.Shard(nil, keyspace.SpaceProgress, 1, 0), "\x01" + `{"flushed":7,"commitId":"c","epoch":2,"changeSequence":3,"optimized":4,"indexSnapshot":9,"rebuilding":true}`},
		{keyspace.Source(nil, pos[0].StreamID), "\x01\xd8\x04"},
		{keyspace.Position(nil, 1, 0, changelog.Key("key")), "\x01\x01\xac\x02"},
		{keyspace.PositionFile(nil, 1, 0, 1), "\x01f.parquet"},
		{keyspace.PositionFile(nil, 1, 0, 0), "\x01\x02"},
	} {
		v, closer, err := r.db.Get(c.key)
		if err != nil {
			t.Errorf("%x: %v", c.key, err)
			continue
		}
		if string(v) != c.want {
			t.Errorf("%x: %q (%s)\nwant %q", c.key, v, hex.EncodeToString(v), c.want)
		}
		closer.Close()
	}
}

// TestRegistryCrash loses power at each write once: what was done before is there whole.
func TestRegistryCrash(t *testing.T) {
	for k := 1; ; k++ {
		disk := vfs.NewCrashableMem()
		var left atomic.Int64
		var after atomic.Pointer[vfs.MemFS]
		db := openDB(t, errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) == 0 {
				after.Store(disk.CrashClone(vfs.CrashCloneCfg{}))
			}
			return nil
		})))
		r, err := OpenRegistry(db)
		if err != nil {
			t.Fatal(err)
		}
		writer := r.WriterID()
		left.Store(int64(k))
		var done []string // descriptions after each step, from before the first one
		steps := crashSteps(t, r)
		for i := 0; i < len(steps) && after.Load() == nil; i++ {
			done = append(done, describe(r))
			if err := steps[i](); err != nil {
				t.Fatal(err)
			}
		}
		last := describe(r)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if after.Load() == nil {
			t.Logf("%d writes", k-1)
			return
		}
		db = openDB(t, after.Load())
		if r, err = OpenRegistry(db); err != nil {
			t.Fatalf("crash at write %d: %v", k, err)
		}
		// The step that was under way is there or is not.
		if got := describe(r); got != last && got != done[len(done)-1] || r.WriterID() != writer {
			t.Errorf("crash at write %d: %s\nwant %s\nor %s", k, got, done[len(done)-1], last)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func crashSteps(t *testing.T, r *Registry) []func() error {
	ctx := context.Background()
	s := schema(t)
	return []func() error{
		func() error { return second(r.Create(ctx, "shop.a", s, TopicRef{"k", "a"}, nil)) },
		func() error { return second(r.Create(ctx, "shop.b", s, TopicRef{"k", "b"}, nil)) },
		func() error { return r.UpdateProgress(ctx, 1, func(p *Progress) { p.Flushed = 5 }) },
		func() error { return second(r.SetProperties(ctx, 2, map[string]string{"p": "v"})) },
		func() error { return r.Drop(ctx, 1) },
		func() error {
			return second(r.Restore(ctx, Table{Name: "shop.c", Schemas: changelog.Schemas{s}}, Progress{Flushed: 9}, nil))
		},
		func() error { return r.db.Flush() },
		func() error { return second(r.AddTopic(ctx, 2, TopicRef{"k", "b2"})) },
	}
}

// TestIndex runs random batches on an index and on a map, with restarts, and one batch that spills.
func TestIndex(t *testing.T) {
	r := openRegistry(t, vfs.NewMem())
	ctx := t.Context()
	if _, err := r.Create(ctx, "shop.a", schema(t), TopicRef{}, nil); err != nil {
		t.Fatal(err)
	}
	x, err := r.OpenIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	type place struct {
		path string
		row  int64
	}
	want := map[string]place{}
	rng := rand.New(rand.NewPCG(1, 1))
	key := func(i int) string { return fmt.Sprintf("key-%03d", i) }
	for round := range 60 {
		b := x.Begin()
		path := fmt.Sprintf("f%d.parquet", round)
		n := b.AddFile(path)
		if rng.IntN(10) == 0 {
			b.Reset()
			clear(want)
			n = b.AddFile(path)
		}
		for range 20 {
			if k := key(rng.IntN(200)); rng.IntN(3) == 0 {
				b.Delete(changelog.Key(k))
				delete(want, k)
			} else {
				row := rng.Int64N(1000)
				b.Set(changelog.Key(k), n, row)
				want[k] = place{path, row}
			}
		}
		if rng.IntN(5) == 0 {
			b.DropFile(fmt.Sprintf("f%d.parquet", round-1))
			for k, p := range want {
				if p.path == fmt.Sprintf("f%d.parquet", round-1) {
					b.Delete(changelog.Key(k))
					delete(want, k)
				}
			}
		}
		if err := errors.Join(b.Commit(ctx, int64(round), nil), b.Close()); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(8) == 0 {
			r.reopen()
			if x, err = r.OpenIndex(1); err != nil {
				t.Fatal(err)
			}
		}
		var keys []changelog.Key
		for i := range 200 {
			keys = append(keys, changelog.Key(key(i)))
		}
		out, found := make([]RowPosition, 200), make([]bool, 200)
		if err := x.Lookup(keys, out, found); err != nil {
			t.Fatal(err)
		}
		for i := range keys {
			path, _ := x.Path(out[i].File)
			if w, ok := want[key(i)]; ok != found[i] || ok && (path != w.path || out[i].Row != w.row) {
				t.Fatalf("round %d, %s: %s %+v %t, want %+v %t", round, keys[i], path, out[i], found[i], w, ok)
			}
		}
		if p, err := r.Progress(1); err != nil || p.IndexSnapshot != int64(round) {
			t.Fatalf("round %d: %+v %v", round, p, err)
		}
	}
}

// TestIndexSpill: a batch too large for one write marks the index as not valid while it is under way.
func TestIndexSpill(t *testing.T) {
	r := openRegistry(t, vfs.NewMem())
	ctx := t.Context()
	if _, err := r.Create(ctx, "shop.a", schema(t), TopicRef{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.UpdateProgress(ctx, 1, func(p *Progress) { p.IndexSnapshot = 5 }); err != nil {
		t.Fatal(err)
	}
	x, err := r.OpenIndex(1)
	if err != nil {
		t.Fatal(err)
	}
	b := x.Begin()
	n := b.AddFile("f.parquet")
	long := strings.Repeat("k", 1000)
	total := 0
	for ; !b.spilled || total%50_000 != 0; total++ {
		b.Set(changelog.Key(fmt.Sprint(long, total)), n, int64(total))
	}
	if p, err := r.Progress(1); p.IndexSnapshot != 0 || err != nil {
		t.Errorf("while it spills: %+v %v", p, err)
	}
	if err := errors.Join(b.Commit(ctx, 6, func(p *Progress) { p.Optimized = 3 }), b.Close()); err != nil {
		t.Fatal(err)
	}
	if p, err := r.Progress(1); p.IndexSnapshot != 6 || p.Optimized != 3 || err != nil {
		t.Errorf("after it: %+v %v", p, err)
	}
	out, found := make([]RowPosition, 2), make([]bool, 2)
	keys := []changelog.Key{changelog.Key(fmt.Sprint(long, 0)), changelog.Key(fmt.Sprint(long, total-1))}
	if err := x.Lookup(keys, out, found); err != nil || slices.Contains(found, false) || out[1].Row != int64(total-1) {
		t.Errorf("%+v %v %v", out, found, err)
	}
	if err := x.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if err := x.Lookup(keys, out, found); err != nil || slices.Contains(found, true) || len(x.Paths()) != 0 {
		t.Errorf("after a reset: %v %v", found, err)
	}
}

func TestPositionValue(t *testing.T) {
	for _, next := range []int64{0, 1, -1, 300, 1 << 62} {
		if got, err := ParsePosition(AppendPosition(nil, next)); got != next || err != nil {
			t.Errorf("%d: %d %v", next, got, err)
		}
	}
	for _, bad := range [][]byte{nil, {1}, {1, 0x80}, {1, 2, 3}} {
		if _, err := ParsePosition(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x: %v", bad, err)
		}
	}
	if _, err := ParsePosition([]byte{2, 2}); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("version 2: %v", err)
	}
}
