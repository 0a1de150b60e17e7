package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"firn/changelog"
)

func TestRow(t *testing.T) {
	r := newRig(t, nil)
	r.append(
		r.change(changelog.OpCreate, "eu", 7, 5, 0),
		r.change(changelog.OpUpdate, "eu", 7, 99, 1),
		r.change(changelog.OpCreate, "a,b/c%", 1, 1, 2),
		r.change(changelog.OpCreate, "gone", 2, 1, 3),
		r.change(changelog.OpDelete, "gone", 2, 1, 4),
		r.change(changelog.OpCreate, "", 3, 1, 5),
	)
	const row7 = `{"id":7,"region":"eu","total":"0.99","at":"2026-01-31T01:02:03.123456Z"}`
	for _, c := range []struct {
		path   string
		status int
		want   string // the body, or the slug and a part of the detail
	}{
		{"rows/eu,7", 200, `{"row":` + row7 + `,"seq":2,"applied":6}` + "\n"},
		{"rows/eu,7?columns=total,id", 200, `{"row":{"id":7,"total":"0.99"},"seq":2,"applied":6}` + "\n"},
		{"rows/a%2Cb%2Fc%25,1?columns=region", 200, `{"row":{"region":"a,b/c%"},"seq":3,"applied":6}` + "\n"},
		{"rows/,3?columns=id", 200, `{"row":{"id":3},"seq":6,"applied":6}` + "\n"},
		{"rows/eu,7?min=seq:6&columns=id", 200, `{"row":{"id":7},"seq":2,"applied":6}` + "\n"},
		{"rows/eu,7?min=kafka:shop.public.orders/0/5&columns=id", 200, `{"row":{"id":7},"seq":2,"applied":6}` + "\n"},
		{"rows/eu,7?min=lsn:0/105&columns=id", 200, `{"row":{"id":7},"seq":2,"applied":6}` + "\n"},
		{"rows/eu,7?min=at:shop.orders/6&columns=id", 200, `{"row":{"id":7},"seq":2,"applied":6}` + "\n"},
		{"rows/eu,8", 404, "row-not-found no row with key eu,8"},
		{"rows/gone,2", 404, "row-not-found"},
		{"rows/eu", 400, "bad-key 1 values for the 2 key columns region, id"},
		{"rows/eu,x", 400, `bad-key column "id"`},
		{"rows/eu,7,8", 400, "bad-key more than 2"},
		{"rows/eu,7/why", 404, "not-found"},
		{"rows/eu,7?column=id", 400, `bad-request "column" is not known here: columns, min, timeout are`},
		{"rows/eu,7?columns=id&columns=at", 400, "bad-request is there 2 times"},
		{"rows/eu,7?columns=nope", 400, `bad-request column "nope": no such column`},
		{"rows/eu,7?columns=", 400, "bad-request empty name"},
		{"rows/eu,7?timeout=1s", 400, "bad-request nothing to wait for"},
		{"rows/eu,7?min=seq:6&timeout=1h", 400, "bad-request at most 1m0s"},
		{"rows/eu,7?min=17", 400, "bad-request not a position"},
		{"rows/eu,7?min=seq:x", 400, "bad-request not seq:N"},
		{"rows/eu,7?min=kafka:other/0/5", 400, `position-unknown topic "other" does not feed`},
		{"rows/eu,7?min=kafka:shop.public.orders/0", 400, "bad-request topic/partition/offset"},
		{"rows/eu,7?min=pulsar:t/1:2", 400, "position-unknown"},
		{"rows/eu,7?min=gtid:x", 400, "bad-request not a position of its kind"},
		{"rows/eu,7?min=at:nope/6", 400, `position-unknown no table "nope"`},
		{"rows/eu,7?min=seq:7&timeout=10ms", 503, "not-yet-applied after 10ms"},
		{"rows/eu,7?min=lsn:0/106&timeout=10ms", 503, "not-yet-applied"},
		{"rows/eu,7?min=binlog:b.000001/4&timeout=10ms", 503, "not-yet-applied"},
		{"rows/eu,7?min=kafka:shop.public.orders/0/6&timeout=0s", 503, "not-yet-applied"},
	} {
		a := r.get("/v1/tables/shop.orders/" + c.path)
		if a.status != c.status {
			t.Errorf("%s: %d %s, want %d", c.path, a.status, a.body, c.status)
			continue
		}
		if a.status == 200 {
			if a.body != c.want {
				t.Errorf("%s: %s, want %s", c.path, a.body, c.want)
			}
		} else {
			slug, detail := r.problem(a)
			wantSlug, wantDetail, _ := strings.Cut(c.want, " ")
			if slug != wantSlug || !strings.Contains(detail, wantDetail) {
				t.Errorf("%s: %s, %s; want %s", c.path, slug, detail, c.want)
			}
		}
		if a.status == 200 || a.status == 404 && strings.HasPrefix(c.want, "row-not-found") {
			if a.header.Get("Firn-Applied") != "6" || a.header.Get("Firn-Position") != "at:shop.orders/6" {
				t.Errorf("%s: headers %v", c.path, a.header)
			}
		}
		if a.status == 404 && strings.HasPrefix(c.want, "row-not-found") && !strings.Contains(a.body, `"applied":6`) {
			t.Errorf("%s: no applied in %s", c.path, a.body)
		}
		if a.status == 503 && a.header.Get("Retry-After") != "1" {
			t.Errorf("%s: no Retry-After in %v", c.path, a.header)
		}
	}
	if slug, _ := r.problem(r.get("/v1/tables/nope/rows/1")); slug != "table-not-found" {
		t.Error(slug)
	}
	if a := r.do("DELETE", "/v1/tables/shop.orders/rows/eu,7", ""); a.status != 405 || a.header.Get("Allow") != "GET" {
		t.Errorf("DELETE: %d %v", a.status, a.header)
	}
	if a := r.do("HEAD", "/v1/tables/shop.orders/rows/eu,7", ""); a.status != 200 || a.body != "" || a.header.Get("Firn-Applied") != "6" {
		t.Errorf("HEAD: %+v", a)
	}
}

// TestMinWaits: the answer comes once the position is applied, and reflects it.
func TestMinWaits(t *testing.T) {
	r := newRig(t, nil)
	for i, position := range []string{"seq:1", "kafka:shop.public.orders/0/1", "lsn:0/102", "at:shop.orders/4"} {
		got := make(chan answer, 1)
		go func() { got <- r.get(fmt.Sprintf("/v1/tables/shop.orders/rows/eu,%d?timeout=30s&min=%s", i, position)) }()
		select {
		case a := <-got:
			t.Fatalf("%s: answered too soon: %+v", position, a)
		case <-time.After(20 * time.Millisecond):
		}
		r.upserts(int64(i), 1)
		if a := <-got; a.status != 200 || !strings.Contains(a.body, fmt.Sprintf(`"applied":%d`, i+1)) {
			t.Errorf("%s: %+v", position, a)
		}
	}
}

func TestBatch(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BatchKeys, o.BatchBytes, o.BodyBytes = 5, 1000, 4000 })
	r.upserts(1, 3)
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{
			`{"keys":[["eu",3],["eu",9],["eu",1]],"columns":["id","total"]}`, 200,
			`{"applied":3,"rows":[{"id":3,"total":"0.03"},null,{"id":1,"total":"0.01"}]}` + "\n",
		},
		{`{"columns":["id"],"keys":[["eu",3],["eu",3]]}`, 200, `{"applied":3,"rows":[{"id":3},{"id":3}]}` + "\n"},
		{`{"keys":[]}`, 200, `{"applied":3,"rows":[]}` + "\n"},
		{`{}`, 400, "bad-request no keys"},
		{`{"keys":[["eu"]]}`, 400, "bad-key key 1: 1 values"},
		{`{"keys":[["eu",1],["eu",null]]}`, 400, `bad-key key 2: column "id": null for a long`},
		{`{"keys":[["eu",1]],"columns":["x"]}`, 400, `bad-request column "x"`},
		{`{"keys":[["eu",1]],"columns":"id"}`, 400, "bad-request columns is not an array"},
		{`{"keys":"x"}`, 400, "bad-request keys is not an array"},
		{`{"key":[]}`, 400, `bad-request member "key"`},
		{`{"keys":[["eu",1]]} x`, 400, "bad-request"},
		{`{"keys":[["eu",1]`, 400, "bad-request no JSON"},
		{`[]`, 400, "bad-request not an object"},
		{``, 400, "bad-request not an object"},
		{`{"keys":[],"keys":[]}`, 400, "bad-request no JSON"},
		{`{"keys":[` + strings.Repeat(`["eu",1],`, 5) + `["eu",1]]}`, 413, "too-large more than 5 keys"},
		{`{"keys":[["` + strings.Repeat("x", 5000) + `",1]]}`, 413, "too-large more than 4000 bytes"},
	} {
		a := r.do("POST", "/v1/tables/shop.orders/rows:get", c.body)
		if a.status != c.status {
			t.Errorf("%s: %d %s, want %d", c.body, a.status, a.body, c.status)
		} else if a.status == 200 {
			if a.body != c.want || a.header.Get("Firn-Applied") != "3" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: %s %v, want %s", c.body, a.body, a.header, c.want)
			}
		} else if slug, detail := r.problem(a); !strings.Contains(slug+" "+detail, strings.TrimPrefix(c.want, slug+" ")) || !strings.HasPrefix(c.want, slug) {
			t.Errorf("%s: %s %s, want %s", c.body, slug, detail, c.want)
		}
	}
	if a := r.do("POST", "/v1/tables/shop.orders/rows:get", `{"keys":[]}`, "Accept", "application/vnd.apache.arrow.stream"); a.status != 406 {
		t.Errorf("arrow: %+v", a)
	}
}

func TestPages(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BatchKeys = 50 })
	r.append(r.change(changelog.OpCreate, "eu", 2, 1, 0), r.change(changelog.OpCreate, "eu", -1, 1, 1),
		r.change(changelog.OpCreate, "eu", 10, 1, 2), r.change(changelog.OpCreate, "us", 1, 1, 3),
		r.change(changelog.OpCreate, "e", 1, 1, 4), r.change(changelog.OpDelete, "eu", 10, 1, 5))
	for query, want := range map[string]string{
		"columns=id,region":                  `[{"id":1,"region":"e"},{"id":-1,"region":"eu"},{"id":2,"region":"eu"},{"id":1,"region":"us"}],"next":null`,
		"columns=id&prefix=eu":               `[{"id":-1},{"id":2}],"next":null`,
		"columns=id&prefix=eu,2":             `[{"id":2}],"next":null`,
		"columns=id&prefix=asia":             `[],"next":null`,
		"columns=id,region&prefix=e&limit=1": `[{"id":1,"region":"e"}],"next":null`,
	} {
		if a := r.get("/v1/tables/shop.orders/rows?" + query); a.status != 200 || a.body != `{"applied":6,"rows":`+want+"}\n" {
			t.Errorf("%s: %d %s, want %s", query, a.status, a.body, want)
		}
	}
	var got []string
	for after := ""; ; {
		a := r.get("/v1/tables/shop.orders/rows?columns=id&limit=1" + after)
		_, rest, _ := strings.Cut(a.body, `"rows":[`)
		row, rest, _ := strings.Cut(rest, `],"next":`)
		got = append(got, row)
		if rest == "null}\n" {
			break
		}
		after = "&after=" + url.QueryEscape(strings.Trim(rest, "\"}\n"))
		if len(got) > 9 {
			break
		}
	}
	if strings.Join(got, "") != `{"id":1}{"id":-1}{"id":2}{"id":1}` {
		t.Errorf("page by page: %q", got)
	}
	for _, query := range []string{"limit=0", "limit=51", "limit=x", "prefix=a,b,c", "prefix=eu,x", "after=zz", "prefix=eu&after=00", "offset=1"} {
		if a := r.get("/v1/tables/shop.orders/rows?" + query); a.status != 400 {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestNoKey(t *testing.T) {
	r := newRig(t, nil)
	schema, err := changelog.NewSchema([]changelog.Column{{Name: "x", Type: prim(changelog.Int)}}, nil)
	r.must(err)
	_, err = r.reg.Create(t.Context(), "shop.events", schema, stateTopic("events"), nil)
	r.must(err)
	for _, path := range []string{"rows/1", "rows", "dump", "changes?from=snapshot&follow=false"} {
		if slug, _ := r.problem(r.get("/v1/tables/shop.events/" + path)); slug != "no-key" {
			t.Errorf("%s: %s", path, slug)
		}
	}
	if a := r.get("/v1/tables/shop.events/changes?from=earliest&follow=false"); a.status != 200 {
		t.Errorf("changes: %+v", a)
	}
}

// TestSchemaChanges: rows of every schema are shown in the newest one.
func TestSchemaChanges(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 1)
	get := func() string {
		return r.get("/v1/tables/shop.orders/rows/eu,1?columns=id").body + r.get("/v1/tables/shop.orders/rows/eu,1").body
	}
	get()
	next, err := r.table.Schemas.Current().Evolve([]changelog.Column{{Name: "note", Type: prim(changelog.String)}}, nil)
	r.must(err)
	_, err = r.reg.AddSchema(t.Context(), r.table.ID, next)
	r.must(err)
	if got := get(); !strings.Contains(got, `,"note":null}`) {
		t.Errorf("after the change: %s", got)
	}
	c := r.change(changelog.OpUpdate, "eu", 1, 1, 2)
	c.After = changelog.AppendRow(nil, next, []changelog.Value{{I: 1}, {B: []byte("eu")}, changelog.NullValue, changelog.NullValue, {B: []byte("hi")}})
	r.append(c)
	if got := get(); !strings.Contains(got, `,"note":"hi"}`) {
		t.Errorf("after an update: %s", got)
	}
}

func TestMethodsAndRoutes(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/", "/v1", "/v1/tables/", "/v1/tables/shop.orders/", "/v1/nope", "/v1/sources/x:stop", "/v1/tables/shop.orders/consumers/x"} {
		if a := r.get(path); a.status != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, path := range []string{"/v1/tables", "/v1/tables/shop.orders", "/v1/parked", "/v1/sources", "/openapi.yaml"} {
		if a := r.get(path); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := r.get(path + "?x=1"); a.status != 400 {
			t.Errorf("%s?x=1: %d", path, a.status)
		}
		if a := r.do("PUT", path, ""); a.status != 405 {
			t.Errorf("PUT %s: %d", path, a.status)
		}
	}
}
