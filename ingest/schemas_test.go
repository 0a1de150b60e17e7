package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/ingest"
	"firn/ingest/decode"
)

// fakeRegistry has the schemas of wire_schemas.json.
type fakeRegistry struct {
	mu    sync.Mutex
	down  error // what it answers; nil: the schema
	asked int
	ids   map[uint64][]byte
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	t.Helper()
	b, err := os.ReadFile(samples + "wire_schemas.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		IDs map[string]struct{ Schema json.RawMessage }
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	f := &fakeRegistry{ids: map[uint64][]byte{}}
	for id, s := range all.IDs {
		var n uint64
		if _, err := fmt.Sscan(id, &n); err != nil {
			t.Fatal(err)
		}
		f.ids[n] = s.Schema
	}
	return f
}

func (f *fakeRegistry) answer(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

func (f *fakeRegistry) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *fakeRegistry) Schema(_ context.Context, ref decode.SchemaRef) (decode.Schema, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.down != nil {
		return decode.Schema{}, f.down
	}
	if text := f.ids[ref.ID]; text != nil {
		return decode.Schema{Text: text}, nil
	}
	return decode.Schema{}, &decode.Rejected{Reason: decode.ReasonSchemaUnknown, Detail: ref.String()}
}

// framed are the records of the first framing: a create, an update with placeholders, a delete, a tombstone, and the create
// again, as a connector sends it after a crash.
func framed(t *testing.T) []ingest.Record {
	t.Helper()
	records := readRecording(t, "wire_avro.jsonl", 1)[:4]
	again := records[0]
	again.Offset = 4
	return append(records[:4:4], again)
}

// avroRig runs a pipeline over framed records until its stop is called.
type avroRig struct {
	*ingest.Pipeline
	t        *testing.T
	log      *fakeLog
	registry *fakeRegistry

	mu  sync.Mutex
	now time.Time
}

func newAvroRig(t *testing.T, records []ingest.Record, o ingest.Options, routes ...ingest.Route) (r *avroRig, end func() error) {
	t.Helper()
	r = &avroRig{t: t, log: openLog(newDisk()), registry: newFakeRegistry(t), now: time.Now()}
	if len(routes) == 0 {
		routes = []ingest.Route{{Topic: ".*", Table: "t.customers", Decode: decode.Options{Format: decode.FormatConfluentAvro}}}
	}
	o.Now = func() time.Time {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.now
	}
	s := newMemSource(records)
	s.batch = 1
	s.follow = make(chan struct{})
	var err error
	if r.Pipeline, err = ingest.New(r.log, r.log, []ingest.Input{{Source: s, Routes: routes, Schemas: r.registry}}, o); err != nil {
		t.Fatal(err)
	}
	return r, func() error { close(s.follow); return nil }
}

func (r *avroRig) later(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *avroRig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s: %+v", what, r.Status())
		}
	}
}

func (r *avroRig) partition() ingest.PartitionStatus {
	st := r.Status()
	if len(st) == 0 || len(st[0].Partitions) == 0 {
		return ingest.PartitionStatus{}
	}
	return st[0].Partitions[0]
}

// TestRegistryDown: a registry that gives no answer stops a partition where it is, and says so; a minute later the process is not ready. When
// it answers all goes on, and nothing is lost or parked (1.6).
func TestRegistryDown(t *testing.T) {
	r, end := newAvroRig(t, framed(t), ingest.Options{})
	r.registry.answer(fmt.Errorf("%w: connection refused", ingest.ErrRegistryUnavailable))
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("waits", func() bool {
		return strings.Contains(r.partition().Waiting, "connection refused") && r.registry.times() > 2
	})
	if len(r.Unready()) != 0 {
		t.Errorf("unready at once: %v", r.Unready())
	}
	r.later(61 * time.Second)
	if why := r.Unready(); len(why) != 1 || !strings.Contains(why[0], "connection refused") {
		t.Errorf("a minute later: %v", why)
	}
	if next := r.partition().Next; next != 0 || len(r.log.visible.changes)+len(r.log.visible.parked) != 0 {
		t.Errorf("next %d, %d changes, parked %s", next, len(r.log.visible.changes), parkedReasons(r.log))
	}
	r.registry.answer(nil)
	r.until("goes on", func() bool { return r.partition().Next == 5 })
	if why := r.Unready(); len(why) != 0 || r.partition().Waiting != "" {
		t.Errorf("after it: %v, %q", why, r.partition().Waiting)
	}
	if err := errors.Join(end(), <-done); err != nil {
		t.Error(err)
	}
	if got := rows(t, r.log, "t.customers"); got != "" || len(r.log.visible.changes) != 3 || parkedReasons(r.log) != "" { // the last one is a repeat
		t.Errorf("rows %s, %d changes, parked %s", got, len(r.log.visible.changes), parkedReasons(r.log))
	}
}

// TestRegistryAnswers: a schema that the registry does not have parks the records that name it, a whole topic of them stops the table, and a
// registry that does not let us in stops the partition at once.
func TestRegistryAnswers(t *testing.T) {
	unknown := func(n int) (all []ingest.Record) {
		for i := range n {
			r := framed(t)[0]
			r.Value = append([]byte{0, 0, 0, 0, 99}, r.Value[5:]...)
			r.Offset = int64(i)
			all = append(all, r)
		}
		return all
	}
	t.Run("unknown", func(t *testing.T) {
		records := unknown(3)
		records = append(records, framed(t)[4])
		r, end := newAvroRig(t, records, ingest.Options{})
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		r.until("reads on", func() bool { return r.partition().Next == 5 })
		if err := errors.Join(end(), <-done); err != nil {
			t.Error(err)
		}
		if got := parkedReasons(r.log); got != "0:schema_id_unknown 1:schema_id_unknown 2:schema_id_unknown" || strings.Count(rows(t, r.log, "t.customers"), "\n") != 1 {
			t.Errorf("parked %s", got)
		}
	})
	t.Run("a topic of unknown ones", func(t *testing.T) {
		route := ingest.Route{Topic: ".*", Table: "t.customers", MaxRejectedRun: 100, Decode: decode.Options{Format: decode.FormatConfluentAvro}}
		r, end := newAvroRig(t, unknown(150), ingest.Options{}, route)
		done := make(chan error, 1)
		go func() { done <- r.Run(t.Context()) }()
		r.until("stops", func() bool { return strings.Contains(strings.Join(r.Unready(), " "), "schema_id_unknown") })
		if n := len(r.log.visible.parked); n != 100 {
			t.Errorf("%d parked", n)
		}
		_ = end()
		<-done
	})
	t.Run("no access", func(t *testing.T) {
		r, end := newAvroRig(t, framed(t), ingest.Options{})
		r.registry.answer(errors.New("401 Unauthorized"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.until("stops", func() bool {
			return len(r.Unready()) == 1 && strings.Contains(r.Unready()[0]+r.partition().Error, "401 Unauthorized")
		})
		if len(r.log.visible.changes)+len(r.log.visible.parked) != 0 {
			t.Errorf("parked %s", parkedReasons(r.log))
		}
		cancel()
		_ = end()
		<-done
	})
}

// TestRegistryRepair: a replay does not wait for a registry that is down: the record stays parked and says why.
func TestRegistryRepair(t *testing.T) {
	bad := framed(t)[:1]
	bad[0].Value = append([]byte{0, 0, 0, 0, 99}, bad[0].Value[5:]...)
	r, end := newAvroRig(t, bad, ingest.Options{})
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("parks", func() bool { return r.partition().Next == 1 })
	r.registry.answer(fmt.Errorf("%w: connection refused", ingest.ErrRegistryUnavailable))
	id := r.log.visible.parked[0].ID
	out, err := r.ReplayParked(t.Context(), id, true)
	if err != nil || out.Failed != 1 || out.Failures[0].Reason != "registry_unavailable" {
		t.Errorf("%+v, %v", out, err)
	}
	if e, err := r.ExplainParked(t.Context(), id); err != nil || e.Now != "registry_unavailable" {
		t.Errorf("%+v, %v", e, err)
	}
	r.registry.answer(nil)
	r.registry.mu.Lock()
	r.registry.ids[99] = r.registry.ids[8] // it has it now
	r.registry.mu.Unlock()
	if out, err := r.ReplayParked(t.Context(), id, true); err != nil || out.Applied != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if err := errors.Join(end(), <-done); err != nil {
		t.Error(err)
	}
	if strings.Count(rows(t, r.log, "t.customers"), "\n") != 1 || parkedReasons(r.log) != "" {
		t.Errorf("rows %s, parked %s", rows(t, r.log, "t.customers"), parkedReasons(r.log))
	}
}
