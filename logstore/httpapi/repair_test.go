package httpapi

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"firn/logstore"
	"firn/state"
)

// fakeRepairs does nothing, and says what it was asked.
type fakeRepairs struct{ asked string }

func (f *fakeRepairs) Edit(_ context.Context, id uint64, c ParkedChange) error {
	text := func(b *[]byte) string {
		if b == nil {
			return "-"
		}
		return fmt.Sprintf("%q/%t", *b, *b == nil)
	}
	f.asked = fmt.Sprintf("edit %d by %s: key %s value %s", id, c.By, text(c.Key), text(c.Value))
	if c.Headers != nil {
		f.asked += fmt.Sprintf(" headers %q", *c.Headers)
	}
	return f.answer(id)
}

func (f *fakeRepairs) Explain(_ context.Context, id uint64) (ParkedExplanation, error) {
	return ParkedExplanation{Rule: "r", Now: "utf8", Value: ParkedReading{Text: "{", Bytes: 1, Path: "/a", Error: "x"}}, f.answer(id)
}

func (f *fakeRepairs) answer(id uint64) error {
	switch id {
	case 7:
		return &RefusedError{Why: "parked record 7: it queues behind record 3"}
	case 8:
		return fmt.Errorf("parked record 8: %w", logstore.ErrNoParked)
	}
	return nil
}

func (f *fakeRepairs) Skip(_ context.Context, id uint64, queue bool) (RepairOutcome, error) {
	f.asked = fmt.Sprintf("skip %d %t", id, queue)
	return RepairOutcome{Skipped: 1}, f.answer(id)
}

func (f *fakeRepairs) Replay(_ context.Context, id uint64, force bool) (RepairOutcome, error) {
	f.asked = fmt.Sprintf("replay %d %t", id, force)
	return RepairOutcome{Applied: 2, Failed: 1, Failures: []RepairFailure{{ID: 3, Reason: "utf8", Detail: "x"}}}, f.answer(id)
}

func (f *fakeRepairs) ReplayTable(_ context.Context, table string) (RepairOutcome, error) {
	f.asked = "replay " + table
	if table == "shop.nope" {
		return RepairOutcome{}, state.ErrNotFound
	}
	return RepairOutcome{}, nil
}

// TestRepair: what requests ask of parked records, and what they are answered.
func TestRepair(t *testing.T) {
	f := &fakeRepairs{}
	rig := parkedRig(t)
	rig.api.o.Repairs = f
	for _, c := range []struct {
		path, body, asked string
		status            int
		answer            string
	}{
		{"/v1/parked/1:skip", "", "skip 1 false", 200, `{"applied":0,"skipped":1,"failed":0,"failures":[]}`},
		{"/v1/parked/1:skip?queue=true", "", "skip 1 true", 200, `"skipped":1`},
		{"/v1/parked/1:replay?force=true", "", "replay 1 true", 200, `{"applied":2,"skipped":0,"failed":1,"failures":[{"id":3,"reason":"utf8","detail":"x"}]}`},
		{"/v1/parked:replay?table=shop.orders", "", "replay shop.orders", 200, `"applied":0`},
		{"/v1/parked:replay?table=shop.nope", "", "replay shop.nope", 404, `not-found`},
		{"/v1/parked:replay", "", "", 400, `table= is needed`},
		{"/v1/parked/7:replay", "", "replay 7 false", 409, `refused`},
		{"/v1/parked/8:skip", "", "skip 8 false", 404, `no parked record 8`},
		{"/v1/parked/x:skip", "", "", 400, `not a number`},
		{"/v1/parked/1:skip?queue=maybe", "", "", 400, `not true or false`},
		{"/v1/parked/1:edit", `{"by":"ann","record_value":{"text":"v"}}`, `edit 1 by ann: key - value "v"/false`, 200, `"id":1`},
		{
			"/v1/parked/1:edit", `{"record_key":null,"record_value":{"base64":"/wA="},"headers":[{"key":"h","value":null}]}`,
			`edit 1 by : key ""/true value "\xff\x00"/false headers [{"h" ""}]`, 200, `"id":1`,
		},
		{"/v1/parked/1:edit", `{"by":"ann"}`, "", 400, `nothing is edited`},
		{"/v1/parked/1:edit", `{"record_key":{"text":"a","base64":"/wA="}}`, "", 400, `record_key`},
		{"/v1/parked/1:edit", `{`, "", 400, `body`},
		{"/v1/parked/7:edit", `{"headers":[]}`, `edit 7 by : key - value - headers []`, 409, `refused`},
	} {
		f.asked = ""
		a := rig.do("POST", c.path, c.body)
		if a.status != c.status || f.asked != c.asked || !strings.Contains(a.body, c.answer) {
			t.Errorf("%s %s: asked %q, answered %d %s\nwant %q, %d %s", c.path, c.body, f.asked, a.status, a.body, c.asked, c.status, c.answer)
		}
	}
	const explained = `{"rule":"r","queue":false,"superseded":false,"now":"utf8","now_detail":"","key":{"text":"","bytes":0,"path":"","error":""},"value":{"text":"{","bytes":1,"path":"/a","error":"x"}}`
	if a := rig.get("/v1/parked/1/explain"); a.body != explained+"\n" {
		t.Errorf("explain: %s", a.body)
	}
	if a := rig.get("/v1/parked/8/explain"); a.status != 404 {
		t.Errorf("explain what is not there: %+v", a)
	}
	none := newRig(t, nil)
	for _, path := range []string{"/v1/parked/1:skip", "/v1/parked/1:edit", "/v1/parked:replay?table=x.y"} {
		if slug, _ := none.problem(none.do("POST", path, "")); slug != "not-available" {
			t.Errorf("%s: %s", path, slug)
		}
	}
}
