package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"firn/changelog"
	"firn/logstore"
	"firn/state"
)

func stateTopic(topic string) state.TopicRef { return state.TopicRef{Source: "shop", Topic: topic} }

func key(region string, id int) string { return fmt.Sprintf(`{"region":"%s","id":%d}`, region, id) }

func row(region string, id, total int) string {
	return fmt.Sprintf(`{"id":%d,"region":"%s","total":"0.%02d","at":"2026-01-31T01:02:03.123456Z"}`, id, region, total)
}

func origin(offset int) string {
	return fmt.Sprintf(`,"source":{"topic":"shop.public.orders","partition":0,"offset":%d,"lsn":"0/%X","ts":"2026-01-31T01:02:03.500000Z"},`+
		`"ingested":"2026-01-31T01:02:%02d.000000Z","txn":"571"}`, offset, 0x100+offset, 4+offset)
}

func TestChanges(t *testing.T) {
	r := newRig(t, nil)
	r.append(r.change(changelog.OpRead, "eu", 1, 5, 0))
	r.append(r.change(changelog.OpUpdate, "eu", 1, 6, 1), r.change(changelog.OpCreate, "eu", 2, 7, 2))
	truncate := changelog.Change{Op: changelog.OpTruncate, IngestTime: 1769821328_000000, Position: changelog.Position{Source: "shop", Topic: "shop.public.orders", Offset: 3}}
	r.append(r.change(changelog.OpDelete, "eu", 2, 7, 3), truncate)

	lines := []string{
		`{"seq":1,"op":"r","key":` + key("eu", 1) + `,"before":null,"after":` + row("eu", 1, 5) + origin(0),
		`{"seq":2,"op":"u","key":` + key("eu", 1) + `,"before":null,"after":` + row("eu", 1, 6) + origin(1),
		`{"seq":3,"op":"c","key":` + key("eu", 2) + `,"before":null,"after":` + row("eu", 2, 7) + origin(2),
		`{"seq":4,"op":"d","key":` + key("eu", 2) + `,"before":` + row("eu", 2, 7) + `,"after":null` + origin(3),
		`{"truncate":5}`,
	}
	for query, want := range map[string][]string{
		"from=earliest":                      lines,
		"from=seq:0":                         lines,
		"from=seq:3":                         lines[3:],
		"from=seq:5":                         nil,
		"from=latest":                        nil,
		"":                                   nil,
		"from=earliest&limit=2":              lines[:2],
		"from=2026-01-31T01:02:05Z":          lines[1:],
		"from=2026-01-31T02:02:06%2B01:00":   lines[3:],
		"from=1999-01-01T00:00:00Z&limit=1":  lines[:1],
		"from=2030-01-01T00:00:00Z":          nil,
		"from=snapshot":                      {`{"seq":2,"op":"r","key":` + key("eu", 1) + `,"before":null,"after":` + row("eu", 1, 6) + `}`, `{"snapshot":"complete","applied":5}`},
		"from=snapshot&limit=1":              {`{"seq":2,"op":"r","key":` + key("eu", 1) + `,"before":null,"after":` + row("eu", 1, 6) + `}`},
		"from=seq:2&limit=1&columns=total":   {`{"seq":3,"op":"c","key":` + key("eu", 2) + `,"before":null,"after":{"total":"0.07"}` + origin(2)},
		"from=earliest&min=seq:5&timeout=1s": lines,
	} {
		a := r.get("/v1/tables/shop.orders/changes?follow=false&" + query)
		body := strings.Join(want, "\n")
		if body != "" {
			body += "\n"
		}
		if a.status != 200 || a.body != body || a.header.Get("Content-Type") != "application/x-ndjson" || a.header.Get("Firn-Applied") != "5" {
			t.Errorf("%s: %d\n got %s\nwant %s", query, a.status, a.body, body)
		}
	}
	sse := "id: 4\ndata: " + lines[3] + "\n\nid: 5\ndata: " + lines[4] + "\n\n"
	a := r.do("GET", "/v1/tables/shop.orders/changes?follow=false&from=earliest", "", "Accept", "text/event-stream", "Last-Event-ID", "3")
	if a.body != sse || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("SSE: got %s\nwant %s", a.body, sse)
	}
	a = r.do("GET", "/v1/tables/shop.orders/changes?follow=false&from=snapshot", "", "Accept", "text/event-stream")
	if !strings.HasPrefix(a.body, `data: {"seq":2,`) || !strings.HasSuffix(a.body, "\n\nid: 5\ndata: {\"snapshot\":\"complete\",\"applied\":5}\n\n") {
		t.Errorf("SSE snapshot: %s", a.body)
	}
	for query, status := range map[string]int{
		"from=nope": 400, "from=seq:x": 400, "from=seq:6": 400, "follow=yes": 400, "limit=0": 400, "heartbeat=x": 400,
		"columns=nope": 400, "form=earliest": 400, "heartbeat=1h": 400,
	} {
		if a := r.get("/v1/tables/shop.orders/changes?" + query); a.status != status {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if a := r.do("GET", "/v1/tables/shop.orders/changes", "", "Accept", "application/vnd.apache.arrow.stream"); a.status != 406 {
		t.Errorf("arrow: %+v", a)
	}
}

// open starts a feed and returns its lines.
func (r *rig) open(query string, header ...string) (next func() string, stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/v1/tables/shop.orders/changes?"+query, nil)
	r.must(err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.server.Client().Do(req) //nolint:bodyclose // stop does
	r.must(err)
	if res.StatusCode != 200 {
		r.t.Fatalf("%s: %s", query, res.Status)
	}
	in := bufio.NewScanner(res.Body)
	return func() string {
			if !in.Scan() {
				return fmt.Sprintf("end: %v", in.Err())
			}
			return in.Text()
		}, func() {
			cancel()
			res.Body.Close()
		}
}

func (r *rig) openFeeds() int { return len(r.api.feeds) }

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not after 5 s: %s", what)
}

// TestFollow: a feed is a dense run of SeqNums while appends go on, and from=snapshot joins rows and changes with
// neither gap nor duplicate (P5).
func TestFollow(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 10)
	next, stop := r.open("from=seq:5")
	defer stop()
	snapshotNext, snapshotStop := r.open("from=snapshot&columns=id")
	defer snapshotStop()
	go func() {
		for i := range int64(30) {
			r.upserts(11+10*i, 10)
		}
	}()
	for seq := 6; seq <= 310; seq++ {
		if line := next(); !strings.HasPrefix(line, fmt.Sprintf(`{"seq":%d,"op":"c",`, seq)) {
			t.Fatalf("want %d, got %s", seq, line)
		}
	}
	applied := 0
	for n := 0; applied == 0; n++ {
		line := snapshotNext()
		if _, err := fmt.Sscanf(line, `{"snapshot":"complete","applied":%d}`, &applied); err == nil && applied != n {
			t.Fatalf("%d rows, but %s", n, line)
		}
	}
	for seq := applied + 1; seq <= 310; seq++ {
		if line := snapshotNext(); !strings.HasPrefix(line, fmt.Sprintf(`{"seq":%d,`, seq)) {
			t.Fatalf("want %d, got %s", seq, line)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 2)
	next, stop := r.open("heartbeat=5ms")
	defer stop()
	for range 3 {
		if line := next(); line != `{"heartbeat":"2026-01-31T01:02:03.000000Z","applied":2}` {
			t.Fatal(line)
		}
	}
	r.upserts(3, 1)
	for line := next(); !strings.HasPrefix(line, `{"seq":3,`); line = next() {
		if !strings.HasPrefix(line, `{"heartbeat"`) {
			t.Fatal(line)
		}
	}
	sse, stopSSE := r.open("heartbeat=5ms", "Accept", "text/event-stream")
	defer stopSSE()
	if line := sse(); !strings.HasPrefix(line, `data: {"heartbeat"`) {
		t.Error(line)
	}
}

// TestVanishedClients: a feed whose client is gone releases its slot.
func TestVanishedClients(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := newRig(t, func(o *Options) { o.Feeds, o.Snapshots, o.Registerer = 3, 1, registry })
	r.upserts(1, 2)
	var stops []func()
	for range 3 {
		next, stop := r.open("from=snapshot&heartbeat=0s")
		for range 3 {
			next()
		}
		eventually(t, "the snapshot is released", func() bool { return true })
		stops = append(stops, stop)
		if len(stops) == 1 {
			break
		}
	}
	for range 2 {
		_, stop := r.open("heartbeat=0s")
		stops = append(stops, stop)
	}
	if a := r.get("/v1/tables/shop.orders/changes"); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("one too many: %+v", a)
	}
	if n := gauge(t, registry, "firn_feed_connections"); n != 3 {
		t.Errorf("%v feeds are open", n)
	}
	for _, stop := range stops {
		stop()
	}
	eventually(t, "all feeds are released", func() bool { return r.openFeeds() == 0 })
	eventually(t, "none is counted", func() bool { return gauge(t, registry, "firn_feed_connections") == 0 })
}

func gauge(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestSlowReader: a client that reads slowly gets everything; one that reads nothing is cut off, and holds no more than
// its buffer meanwhile.
func TestSlowReader(t *testing.T) {
	r := newRig(t, func(o *Options) { o.WriteTimeout = 300 * time.Millisecond })
	const n = 40_000
	for i := range int64(n / 1000) {
		r.upserts(1+i*1000, 1000)
	}
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	r.must(err)
	defer conn.Close()
	r.must(conn.(*net.TCPConn).SetReadBuffer(4 << 10))
	_, err = io.WriteString(conn, "GET /v1/tables/shop.orders/changes?from=earliest HTTP/1.1\r\nHost: x\r\n\r\n")
	r.must(err)
	eventually(t, "the feed is open", func() bool { return r.openFeeds() == 1 })
	eventually(t, "the feed is cut off", func() bool { return r.openFeeds() == 0 })

	res, err := r.server.Client().Get(r.server.URL + "/v1/tables/shop.orders/changes?from=earliest&limit=" + fmt.Sprint(n))
	r.must(err)
	defer res.Body.Close()
	in := bufio.NewReaderSize(res.Body, 64<<10)
	count := 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		count++
		if want := fmt.Sprintf(`{"seq":%d,`, count); !strings.HasPrefix(line, want) {
			t.Fatalf("want %s, got %s", want, line)
		}
		if count%4000 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if count != n {
		t.Errorf("%d lines, want %d", count, n)
	}
}

// TestManyFeeds: a feed that may hold nothing while it waits sends the same.
func TestManyFeeds(t *testing.T) {
	r := newRig(t, nil)
	const n = 5000
	r.upserts(1, n)
	get := func() string { return r.get("/v1/tables/shop.orders/changes?from=earliest&follow=false").body }
	want := get()
	for range feedBursts {
		r.api.bursts <- struct{}{}
	}
	if got := get(); got != want || strings.Count(got, "\n") != n {
		t.Errorf("%d lines, want %d, or they differ", strings.Count(got, "\n"), n)
	}
}

// TestCloseEndsFeeds: a server that shuts down does not wait for followers.
func TestCloseEndsFeeds(t *testing.T) {
	r := newRig(t, nil)
	next, stop := r.open("")
	defer stop()
	done := make(chan string, 1)
	go func() { done <- next() }()
	waiting := make(chan answer, 1)
	go func() { waiting <- r.get("/v1/tables/shop.orders/rows/eu,1?min=seq:9&timeout=1m") }()
	time.Sleep(20 * time.Millisecond)
	r.api.Close()
	if line := <-done; !strings.HasPrefix(line, "end:") {
		t.Error(line)
	}
	if slug, _ := r.problem(<-waiting); slug != "shutting-down" {
		t.Error(slug)
	}
}

func TestTrimmed(t *testing.T) {
	r := newRig(t, nil)
	r.upserts(1, 5)
	r.upserts(6, 5)
	r.must(r.reg.UpdateProgress(t.Context(), r.table.ID, func(p *state.Progress) { p.Flushed = 10 }))
	r.must(r.store.Trim(t.Context(), r.table.ID, 5))
	for _, from := range []string{"seq:0", "seq:4", "1999-01-01T00:00:00Z"} {
		a := r.get("/v1/tables/shop.orders/changes?from=" + from)
		slug, detail := r.problem(a)
		if a.status != 410 || slug != "changes-trimmed" || !strings.Contains(detail, "from=snapshot") || !strings.Contains(a.body, `"oldest":6`) {
			t.Errorf("%s: %s", from, a.body)
		}
	}
	for _, from := range []string{"seq:5", "earliest"} {
		if a := r.get("/v1/tables/shop.orders/changes?follow=false&limit=1&from=" + from); !strings.HasPrefix(a.body, `{"seq":6,`) {
			t.Errorf("%s: %s", from, a.body)
		}
	}
}

// changeFiles is a ChangeFiles that holds changes in memory.
type changeFiles struct {
	oldest  changelog.SeqNum
	changes []changelog.Change // the index is the SeqNum - 1
}

func (f *changeFiles) Oldest(context.Context, *state.Table) (changelog.SeqNum, bool, error) {
	return f.oldest, f.oldest > 0, nil
}

func (f *changeFiles) Scan(_ context.Context, _ *state.Table, from, to changelog.SeqNum) iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		if from+1 < f.oldest {
			yield(changelog.Change{}, fmt.Errorf("change %d: %w", from+1, logstore.ErrTrimmed))
			return
		}
		for _, c := range f.changes {
			if c.Seq > from && c.Seq <= to && !yield(c, nil) {
				return
			}
		}
	}
}

// TestChangeFiles: what the log no longer holds comes out of change files, with the same numbers (P5).
func TestChangeFiles(t *testing.T) {
	files := &changeFiles{oldest: 3}
	r := newRig(t, func(o *Options) { o.ChangeFiles = files })
	r.upserts(1, 5)
	r.upserts(6, 5)
	for c, err := range r.store.Scan(t.Context(), r.table.ID, 0, 10) {
		r.must(err)
		files.changes = append(files.changes, c)
	}
	r.must(r.reg.UpdateProgress(t.Context(), r.table.ID, func(p *state.Progress) { p.Flushed = 10 }))
	r.must(r.store.Trim(t.Context(), r.table.ID, 5))
	for from, first := range map[string]int{"seq:2": 3, "seq:4": 5, "seq:7": 8, "earliest": 3} {
		a := r.get("/v1/tables/shop.orders/changes?follow=false&from=" + from)
		seq := first
		for line := range strings.Lines(a.body) {
			if !strings.HasPrefix(line, fmt.Sprintf(`{"seq":%d,`, seq)) {
				t.Fatalf("%s: want %d, got %s", from, seq, line)
			}
			seq++
		}
		if seq != 11 {
			t.Errorf("%s: ends before %d", from, seq)
		}
	}
	if a := r.get("/v1/tables/shop.orders/changes?from=seq:1"); a.status != 410 || !strings.Contains(a.body, `"oldest":3`) {
		t.Errorf("before the files: %+v", a)
	}
}

func TestDump(t *testing.T) {
	r := newRig(t, func(o *Options) { o.DumpKeys = 2 })
	r.upserts(1, 5)
	r.append(r.change(changelog.OpDelete, "eu", 3, 1, 6), r.change(changelog.OpUpdate, "eu", 1, 42, 7))
	index := r.get("/v1/tables/shop.orders/dump")
	want := `{"at":"2026-01-31T01:02:03.123456Z","id":1,"region":"eu","total":"0.42"}` + "\n"
	if !strings.HasPrefix(index.body, want) || strings.Count(index.body, "\n") != 4 || index.header.Get("Firn-Applied") != "7" {
		t.Errorf("index: %+v", index)
	}
	log := r.get("/v1/tables/shop.orders/dump?from=log")
	if sorted(log.body) != sorted(index.body) || log.header.Get("Firn-Applied") != "7" {
		t.Errorf("log: %s\nindex: %s", log.body, index.body)
	}
	if a := r.get("/v1/tables/shop.orders/dump?from=log&columns=id"); sorted(a.body) != `{"id":1} {"id":2} {"id":4} {"id":5}` {
		t.Errorf("columns: %s", a.body)
	}
	if a := r.get("/v1/tables/shop.orders/dump?from=base"); a.status != 400 {
		t.Errorf("base: %+v", a)
	}
}
