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

	"github.com/prometheus/client_golang/prometheus"

	"firn/ingest"
	"firn/ingest/decode"
)

// fakeRegistry has the schemas of wire_schemas.json.
type fakeRegistry struct {
	mu    sync.Mutex
	down  error // what it answers; nil: the schema
	asked int
	ids   map[uint64][]byte
	types map[uint64]string
	out   uint64 // no answer for this id
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
	if f.out != 0 && f.out == ref.ID {
		return decode.Schema{}, fmt.Errorf("%w: timeout", ingest.ErrRegistryUnavailable)
	}
	if text := f.ids[ref.ID]; text != nil {
		return decode.Schema{Text: text, Type: f.types[ref.ID]}, nil
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

// TestRegistryDownLater: what was read before a record whose schema is not to be had is durable and acknowledged while that one waits.
func TestRegistryDownLater(t *testing.T) {
	records := framed(t)[:2]
	records[1].Value = append([]byte{0, 0, 0, 0, 77}, records[1].Value[5:]...)
	r, end := newAvroRig(t, records, ingest.Options{})
	r.registry.ids[77], r.registry.out = r.registry.ids[8], 77
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("waits", func() bool { return strings.Contains(r.partition().Waiting, "timeout") })
	r.until("the first one is there", func() bool { return r.partition().Next == 1 })
	r.registry.mu.Lock()
	r.registry.out = 0
	r.registry.mu.Unlock()
	r.until("goes on", func() bool { return r.partition().Next == 2 })
	if err := errors.Join(end(), <-done); err != nil || len(r.log.visible.changes) != 2 {
		t.Errorf("%v, %d changes", err, len(r.log.visible.changes))
	}
}

// TestFramedKeyBarrier: a key schema's id stands in the key's bytes, which choose the partition: a new id waits for the topic's other partitions
// (1.2).
func TestFramedKeyBarrier(t *testing.T) {
	var records []ingest.Record
	for i := range int64(4) {
		r := framed(t)[0]
		r.Partition, r.Offset = int32(i%2), i/2
		if i/2 == 1 {
			r.Key = append([]byte{0, 0, 0, 0, 9}, r.Key[5:]...)
		}
		records = append(records, r)
	}
	reg := prometheus.NewRegistry()
	r, end := newAvroRig(t, records, ingest.Options{Registerer: reg})
	r.registry.ids[9] = r.registry.ids[7]
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("reads all", func() bool {
		st := r.Status()
		return len(st[0].Partitions) == 2 && st[0].Partitions[0].Next == 2 && st[0].Partitions[1].Next == 2
	})
	if err := errors.Join(end(), <-done); err != nil {
		t.Error(err)
	}
	if n := counter(t, reg, "firn_source_key_schema_barriers_total"); n == 0 {
		t.Error("no partition waited at the new key schema")
	}
}

// TestFramedJSON: records in JSON name their schemas as those in Avro do: what the registry does not have, or has as another type, is parked,
// and a key may be in Avro beside it.
func TestFramedJSON(t *testing.T) {
	record := func(offset int64, schema byte, id int, name string) ingest.Record {
		r := framed(t)[0]
		r.Offset, r.Key = offset, []byte{0, 0, 0, 0, 7, byte(2 * id)}
		r.Value = append([]byte{0, 0, 0, 0, schema}, fmt.Sprintf(`{"before":null,"after":{"id":%d,"name":%q},"source":{"connector":"postgresql"},"op":"c"}`, id, name)...)
		return r
	}
	route := ingest.Route{Topic: ".*", Table: "t.customers", Decode: decode.Options{Format: decode.FormatConfluentJSON, KeyFormat: decode.FormatConfluentAvro}}
	r, end := newAvroRig(t, []ingest.Record{record(0, 20, 1, "a"), record(1, 21, 2, "b"), record(2, 8, 3, "c"), record(3, 20, 1, "d")}, ingest.Options{}, route)
	r.registry.ids[20] = []byte(`{"type":"object","title":"E","properties":{"after":{"oneOf":[{"type":"null"},{"type":"object","properties":{"id":{"type":"integer","connect.type":"int32","connect.index":0},"name":{"type":"string","connect.index":1}}}]},` +
		`"before":{"type":"null"},"source":{"type":"object","properties":{"connector":{"type":"string"}}},"op":{"type":"string"}}}`)
	r.registry.types = map[uint64]string{20: "JSON", 7: "AVRO", 8: "AVRO"}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("reads all", func() bool { return r.partition().Next == 4 })
	if err := errors.Join(end(), <-done); err != nil {
		t.Error(err)
	}
	if got := parkedReasons(r.log); got != "1:schema_id_unknown 2:schema_invalid" {
		t.Errorf("parked %s", got)
	}
	if got := rows(t, r.log, "t.customers"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "d") {
		t.Errorf("rows %s", got)
	}
}

// TestFramedProtobuf: records in Protobuf go the same way; a message type that the schema does not have parks them.
func TestFramedProtobuf(t *testing.T) {
	record := func(offset int64, index byte, id byte, name string) ingest.Record {
		r := framed(t)[0]
		r.Offset, r.Key = offset, []byte{0, 0, 0, 0, 7, 2 * id}
		row := append([]byte{8, id, 18, byte(len(name))}, name...)
		r.Value = append([]byte{0, 0, 0, 0, 30, 2, 2 * index, 18, byte(len(row))}, row...)
		r.Value = append(r.Value, "\x1a\x0c\x0a\x0apostgresql\x22\x01c"...)
		return r
	}
	route := ingest.Route{Topic: ".*", Table: "t.customers", Decode: decode.Options{Format: decode.FormatConfluentProtobuf, KeyFormat: decode.FormatConfluentAvro}}
	r, end := newAvroRig(t, []ingest.Record{record(0, 1, 1, "a"), record(1, 5, 2, "b"), record(2, 0, 3, "c"), record(3, 1, 1, "d")}, ingest.Options{}, route)
	r.registry.ids[30] = []byte(`syntax = "proto3"; message Row { int32 id = 1; string name = 2; }
message Envelope { Row before = 1; Row after = 2; Source source = 3; string op = 4; message Source { string connector = 1; } }`)
	r.registry.types = map[uint64]string{30: "PROTOBUF"}
	done := make(chan error, 1)
	go func() { done <- r.Run(t.Context()) }()
	r.until("reads all", func() bool { return r.partition().Next == 4 })
	if err := errors.Join(end(), <-done); err != nil {
		t.Error(err)
	}
	if got := parkedReasons(r.log); got != "1:proto_index 2:envelope_shape" {
		t.Errorf("parked %s", got)
	}
	if got := rows(t, r.log, "t.customers"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "d") {
		t.Errorf("rows %s", got)
	}
}
