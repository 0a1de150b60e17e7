package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"firn/changelog"
	"firn/state"
)

// members returns the names of an object's members, sorted.
func members(t *testing.T, body string) []string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return slices.Sorted(maps.Keys(m))
}

// fakeSources is one source that can be paused.
type fakeSources struct {
	state string
	lag   int64
}

func (f *fakeSources) Sources(context.Context) ([]SourceStatus, error) {
	return []SourceStatus{{Name: "shop", Kind: "kafka", State: f.state, Partitions: []PartitionStatus{
		{Topic: "shop.public.orders", Next: 10, End: 10 + f.lag, Lag: f.lag}, {Topic: "other", Partition: 1, Next: 1, End: 9, Lag: 8},
	}}}, nil
}

func (f *fakeSources) Source(ctx context.Context, name string) (SourceDetail, error) {
	if name != "shop" {
		return SourceDetail{}, fmt.Errorf("source %q: %w", name, state.ErrNotFound)
	}
	all, err := f.Sources(ctx)
	return SourceDetail{all[0], []TopicDetail{{Topic: "shop.public.orders", Table: "shop.orders", Policies: map[string]string{"keyless": "append"}}}}, err
}

func (f *fakeSources) Reset(_ context.Context, name string, to SourceReset) ([]ResetStep, error) {
	if name != "shop" {
		return nil, fmt.Errorf("source %q: %w", name, state.ErrNotFound)
	}
	if to.To == "7" {
		return nil, &RefusedError{"the rows would be there twice"}
	}
	return []ResetStep{{Topic: to.Topic + "!", Partition: to.Partition, Table: to.To, From: 3, To: 4, Effect: fmt.Sprint(to.DryRun)}}, nil
}

func (f *fakeSources) set(name, to string) error {
	if name != "shop" {
		return fmt.Errorf("source %q: %w", name, state.ErrNotFound)
	}
	f.state = to
	return nil
}

func (f *fakeSources) Pause(_ context.Context, name string) error  { return f.set(name, "paused") }
func (f *fakeSources) Resume(_ context.Context, name string) error { return f.set(name, "running") }

type fakeLake struct{}

func (fakeLake) Stores(context.Context, *state.Table) (map[string]StoreStatus, error) {
	return map[string]StoreStatus{"base": {Location: "file:/x", Snapshot: 5, Sequence: 2, Files: map[string]FileCount{"data": {Files: 1, Bytes: 2, Records: 3}}}}, nil
}

func (fakeLake) BaseRows(context.Context, *state.Table) (int64, error) { return 7, nil }

type fakeOptimizer struct{}

func (fakeOptimizer) Optimize(_ context.Context, t *state.Table, kind string, dryRun bool) (json.RawMessage, error) {
	if kind == "full" {
		return nil, errors.New("disk on fire")
	}
	return json.RawMessage(fmt.Sprintf(`{"table":%q,"type":%q,"dry":%v}`, t.Name, kind, dryRun)), nil
}

func TestTables(t *testing.T) {
	sources := &fakeSources{state: "running"}
	r := newRig(t, func(o *Options) { o.Sources, o.Lake = sources, fakeLake{} })
	r.upserts(1, 3)
	r.must(r.reg.UpdateProgress(t.Context(), r.table.ID, func(p *state.Progress) { p.Flushed, p.Optimized = 2, 1 }))
	r.counted()
	summary := `"name":"shop.orders","format":"mixed-iceberg","key":["region","id"],"applied":3,"flushed":2,"optimized":1,"rows":3,"lag_seconds":0`
	if a := r.get("/v1/tables"); a.body != `{"tables":[{`+summary+"}]}\n" {
		t.Errorf("list: %s", a.body)
	}
	a := r.get("/v1/tables/shop.orders")
	want := `{` + summary + `,"oldest":1,"schema":{"type":"struct","schema-id":0,"identifier-field-ids":[2,1],"fields":[` +
		`{"id":1,"name":"id","required":true,"type":"long"},{"id":2,"name":"region","required":true,"type":"string"},` +
		`{"id":3,"name":"total","required":false,"type":"decimal(12, 2)"},{"id":4,"name":"at","required":false,"type":"timestamptz"}]},` +
		`"schemas":1,"partition":[],"properties":{},"rebuilding":false,"sources":[{"source":"shop","topic":"shop.public.orders","partition":0,"position":10,"end":10,"lag":0}],` +
		`"stores":{"base":{"location":"file:/x","snapshot":5,"sequence":2,"files":{"data":{"files":1,"bytes":2,"records":3}}}}}` + "\n"
	if a.body != want || a.header.Get("Firn-Applied") != "3" {
		t.Errorf("got %s\nwant %s", a.body, want)
	}
	sources.lag = 4 // the newest change is of 01:02:03.5; it is 01:02:03 in the rig
	r.api.o.Now = timeAt("2026-01-31T01:02:08Z")
	if a := r.get("/v1/tables"); !strings.Contains(a.body, `"lag_seconds":4.5`) {
		t.Errorf("behind: %s", a.body)
	}
	if slug, _ := r.problem(r.get("/v1/tables/nope")); slug != "table-not-found" {
		t.Error(slug)
	}
}

func TestRebuilding(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 1)
	r.must(r.reg.UpdateProgress(t.Context(), r.table.ID, func(p *state.Progress) { p.Rebuilding = true }))
	for _, a := range []answer{
		r.get("/v1/tables/shop.orders/rows/eu,1"), r.get("/v1/tables/shop.orders/rows"),
		r.do("POST", "/v1/tables/shop.orders/rows:get", `{"keys":[]}`), r.get("/v1/tables/shop.orders/dump"),
		r.get("/v1/tables/shop.orders/changes?from=snapshot"),
	} {
		if slug, _ := r.problem(a); a.status != 503 || slug != "rebuilding" {
			t.Errorf("%+v", a)
		}
	}
	if a := r.get("/v1/tables/shop.orders"); a.status != 200 || !strings.Contains(a.body, `"rebuilding":true`) {
		t.Errorf("%+v", a)
	}
	if len(r.api.snapshots) != 0 || len(r.api.feeds) != 0 {
		t.Error("a refused request holds a slot")
	}
}

func TestSources(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Sources = &fakeSources{state: "running"} })
	if a := r.get("/v1/sources"); !strings.HasPrefix(a.body, `{"sources":[{"name":"shop","kind":"kafka","state":"running","partitions":[{"topic":"shop.public.orders","partition":0,"position":10,"end":10,"lag":0},`) {
		t.Errorf("list: %s", a.body)
	}
	if a := r.get("/v1/sources/shop"); a.status != 200 || !strings.HasPrefix(a.body, `{"name":"shop","kind":"kafka","state":"running","partitions":[`) ||
		!strings.Contains(a.body, `"topics":[{"topic":"shop.public.orders",`) || !strings.Contains(a.body, `"policies":{"keyless":"append"}`) {
		t.Errorf("shop: %s", a.body)
	}
	if slug, _ := r.problem(r.get("/v1/sources/nope")); slug != "not-found" {
		t.Error(slug)
	}
	if a := r.do("POST", "/v1/sources/shop:pause", ""); a.status != 200 || !strings.Contains(a.body, `"paused"`) {
		t.Errorf("pause: %+v", a)
	}
	if a := r.do("POST", "/v1/sources/shop:resume", ""); a.status != 200 || !strings.Contains(a.body, `"running"`) {
		t.Errorf("resume: %+v", a)
	}
	if a := r.do("POST", "/v1/sources/nope:pause", ""); a.status != 404 {
		t.Errorf("nope: %+v", a)
	}
	for query, want := range map[string]string{
		"to=earliest":                           `{"source":"shop","dry_run":false,"partitions":[{"topic":"!","partition":-1,"table":"earliest","from":3,"to":4,"effect":"false"}]}`,
		"to=latest&topic=a&dry_run=true":        `{"topic":"a!","partition":-1,"table":"latest","from":3,"to":4,"effect":"true"}`,
		"to=5&topic=a&partition=0":              `{"topic":"a!","partition":0,"table":"5"`,
		"to=7&topic=a&partition=0":              `"status":409,"detail":"the rows would be there twice"`,
		"":                                      `"status":400,"detail":"to=: not earliest, latest or an offset"`,
		"to=-1&topic=a&partition=0":             `"status":400`,
		"to=5&topic=a":                          `"detail":"to=5: an offset is one of a partition: topic= and partition= are needed"`,
		"to=earliest&topic=a&partition=x":       `"detail":"partition=x: not a partition's number"`,
		"to=earliest&topic=a&partition=0&when=": `"status":400`,
	} {
		if a := r.do("POST", "/v1/sources/shop:reset?"+query, ""); !strings.Contains(a.body, want) {
			t.Errorf("reset %s: %s", query, a.body)
		}
	}
	if a := r.do("POST", "/v1/sources/nope:reset?to=latest", ""); a.status != 404 {
		t.Errorf("nope: %+v", a)
	}
	none := newRig(t, nil)
	if a := none.get("/v1/sources"); a.body != `{"sources":[]}`+"\n" {
		t.Errorf("none: %+v", a)
	}
	if slug, _ := none.problem(none.do("POST", "/v1/sources/shop:pause", "")); slug != "not-available" {
		t.Error(slug)
	}
	if slug, _ := none.problem(none.get("/v1/sources/shop")); slug != "not-available" {
		t.Error(slug)
	}
}

func TestOptimize(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Optimizer = fakeOptimizer{} })
	if a := r.do("POST", "/v1/tables/shop.orders/optimize?type=minor&dry_run=true", ""); a.body != `{"table":"shop.orders","type":"minor","dry":true}`+"\n" {
		t.Errorf("%+v", a)
	}
	if slug, detail := r.problem(r.do("POST", "/v1/tables/shop.orders/optimize?type=full", "")); slug != "optimize-failed" || detail != "disk on fire" {
		t.Error(slug, detail)
	}
	if a := r.do("POST", "/v1/tables/shop.orders/optimize?type=tiny", ""); a.status != 400 {
		t.Errorf("%+v", a)
	}
	none := newRig(t, nil)
	if slug, _ := none.problem(none.do("POST", "/v1/tables/shop.orders/optimize", "")); slug != "not-available" {
		t.Error(slug)
	}
}

// parkedRig has two parked records of shop.orders and one that reached no table.
func parkedRig(t *testing.T) *rig {
	r := newRig(t, nil)
	position := changelog.Position{Source: "shop", Topic: "shop.public.orders", Partition: 2, Offset: 41}
	key := r.change(changelog.OpCreate, "eu", 7, 1, 0).Key
	_, err := r.store.Append(t.Context(), changelog.Append{Parked: []changelog.Parked{
		{
			Table: r.table.ID, Key: key, Reason: "no_schema", Detail: `column "x"`, Time: 1769821323_123456, Position: position, Timestamp: 1769821323_123,
			RecordKey: []byte(`{"id":7}`), RecordValue: []byte{0xff, 0}, Headers: []changelog.Header{{Key: "h", Value: []byte("v")}, {Key: "n"}},
		},
		{Reason: "not_json", Time: 1769821323_123456, Position: position},
		{Table: r.table.ID, Reason: "value_too_large", Applied: true, Time: 1769821323_123456, Position: position},
	}})
	r.must(err)
	return r
}

func TestParked(t *testing.T) {
	r := parkedRig(t)
	const where = `"source":"shop","topic":"shop.public.orders","partition":2,"offset":41`
	one := `{"id":1,"table":"shop.orders",` + where + `,"reason":"no_schema","detail":"column \"x\"","applied":false,"key":{"region":"eu","id":7},"time":"2026-01-31T01:02:03.123456Z"}` + "\n"
	two := `{"id":2,"table":null,` + where + `,"reason":"not_json","detail":"","applied":false,"key":null,"time":"2026-01-31T01:02:03.123456Z"}` + "\n"
	three := `{"id":3,"table":"shop.orders",` + where + `,"reason":"value_too_large","detail":"","applied":true,"key":null,"time":"2026-01-31T01:02:03.123456Z"}` + "\n"
	for query, want := range map[string]string{
		"": two + one + three, "?limit=2": two + one, "?table=shop.orders": one + three, "?table=shop.orders&after=1": three,
	} {
		if a := r.get("/v1/parked" + query); a.body != want || a.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%q: got %s\nwant %s", query, a.body, want)
		}
	}
	want := strings.TrimSuffix(one, "}\n") + `,"timestamp":"2026-01-31T01:02:03.123000Z","record_key":{"text":"{\"id\":7}"},"record_value":{"base64":"/wA="},` +
		`"headers":[{"key":"h","value":{"text":"v"}},{"key":"n","value":null}]}` + "\n"
	if a := r.get("/v1/parked/1"); a.body != want {
		t.Errorf("got %s\nwant %s", a.body, want)
	}
	for path, status := range map[string]int{"/v1/parked/9": 404, "/v1/parked/x": 400, "/v1/parked?table=nope": 404, "/v1/parked?after=1": 400, "/v1/parked?table=shop.orders&after=x": 400} {
		if a := r.get(path); a.status != status {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if a := newRig(t, nil).get("/v1/parked"); a.status != 200 || a.body != "" {
		t.Errorf("none: %+v", a)
	}
}

// TestErrorsTellApplied: an error about a table that is there tells where the table stands.
func TestErrorsTellApplied(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 3)
	for path, status := range map[string]int{
		"/rows/eu,1?min=seq:99&timeout=1ms": 503, "/rows/eu,x": 400, "/rows/eu,1?x=1": 400, "/rows/eu,99": 404,
		"/changes?from=seq:9999&follow=false": 400, "/rows?limit=x": 400,
	} {
		a := r.get("/v1/tables/shop.orders" + path)
		if a.status != status || a.header.Get("Firn-Applied") != "3" || a.header.Get("Firn-Position") != "at:shop.orders/3" {
			t.Errorf("%s: %d %q %s", path, a.status, a.header.Get("Firn-Applied"), a.body)
		}
	}
	if a := r.get("/v1/tables/nope/rows/1"); a.status != 404 || a.header.Get("Firn-Applied") != "" {
		t.Errorf("no table: %d %q", a.status, a.header.Get("Firn-Applied"))
	}
}
