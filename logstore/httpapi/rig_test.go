package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"firn/changelog"
	"firn/logstore"
	"firn/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an API over a real store in memory, behind a real server.
type rig struct {
	t      testing.TB
	reg    *state.Registry
	store  *logstore.Store
	api    *API
	server *httptest.Server
	table  *state.Table
}

func prim(k changelog.Kind) *changelog.Type { return changelog.Primitive(k) }

// newRig has one table, shop.orders, with the key (region, id), fed by topic shop.public.orders of source shop.
func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t}
	o := logstore.Options{FS: vfs.NewMem(), MinFreeBytes: -1, MemoryBytes: 32 << 20, TrimInterval: -1}
	db, err := logstore.OpenDB("db", o)
	r.must(err)
	r.reg, err = state.OpenRegistry(db.DB)
	r.must(err)
	r.store, err = logstore.Open(db, r.reg, o)
	r.must(err)
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: prim(changelog.Long)},
		{Name: "region", Type: prim(changelog.String)},
		{Name: "total", Type: changelog.DecimalOf(12, 2)},
		{Name: "at", Type: prim(changelog.TimestampTZ)},
	}, []string{"region", "id"})
	r.must(err)
	r.table, err = r.reg.Create(t.Context(), "shop.orders", schema, state.TopicRef{Source: "shop", Topic: "shop.public.orders"}, nil)
	r.must(err)
	options := Options{
		Store: r.store, Registry: r.reg, WriteTimeout: 5 * time.Second, Heartbeat: time.Minute,
		Now: func() time.Time { return time.UnixMicro(1769821323_000000) },
	}
	if change != nil {
		change(&options)
	}
	r.api, err = New(options)
	r.must(err)
	r.server = httptest.NewServer(r.api)
	t.Cleanup(func() {
		r.api.Close()
		r.server.Close()
		r.must(r.store.Close())
		r.must(db.Close())
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// counted returns once the number of rows is known: they are counted beside the caller, so that on a slow machine the first answers do
// not have it.
func (r *rig) counted() {
	r.t.Helper()
	for known := false; !known; {
		var err error
		_, known, err = r.store.RowCount(r.t.Context(), r.table.ID)
		r.must(err)
	}
}

// change is one change of an order; total "" is a delete.
func (r *rig) change(op changelog.Op, region string, id int64, total byte, offset int64) changelog.Change {
	s := r.table.Schemas[0]
	values := []changelog.Value{{I: id}, {B: []byte(region)}, {B: []byte{total}}, {I: 1769821323_123456}}
	c := changelog.Change{
		Op: op, Key: s.KeyOf(nil, values), SourceTime: 1769821323_500000, IngestTime: 1769821324_000000 + offset*1_000_000, Txn: "571",
		Position: changelog.Position{Source: "shop", Topic: "shop.public.orders", Offset: offset, Native: fmt.Sprintf("lsn:0/%X", 0x100+offset)},
	}
	if op != changelog.OpDelete {
		c.After = changelog.AppendRow(nil, s, values)
	} else {
		c.Before = changelog.AppendRow(nil, s, values)
	}
	return c
}

// append applies changes, which take the offsets from first on.
func (r *rig) append(changes ...changelog.Change) {
	r.t.Helper()
	next := changes[len(changes)-1].Position.Offset + 1
	_, err := r.store.Append(context.Background(), changelog.Append{
		Tables: []changelog.TableAppend{{Table: r.table.ID, Changes: changes}},
		Positions: []changelog.StreamPosition{{
			StreamID: changelog.StreamID{Source: "shop", Topic: "shop.public.orders"}, Next: next,
		}},
	})
	r.must(err)
}

// upserts appends n creates of region eu with ids and offsets from first on, one append.
func (r *rig) upserts(first, n int64) {
	r.t.Helper()
	changes := make([]changelog.Change, 0, n)
	for i := range n {
		changes = append(changes, r.change(changelog.OpCreate, "eu", first+i, byte((first+i)%100), first+i))
	}
	r.append(changes...)
}

// answer is what a test looks at.
type answer struct {
	status int
	header http.Header
	body   string
}

func (r *rig) do(method, path, body string, header ...string) answer {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL+path, strings.NewReader(body))
	r.must(err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.server.Client().Do(req)
	r.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	r.must(err)
	return answer{status: res.StatusCode, header: res.Header, body: string(b)}
}

func (r *rig) get(path string) answer {
	r.t.Helper()
	return r.do("GET", path, "")
}

// problem checks that the answer is a problem and returns its slug and detail.
func (r *rig) problem(a answer) (slug, detail string) {
	r.t.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" || p.Status != a.status || p.Title == "" || p.Detail == "" {
		r.t.Errorf("no problem: %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	return p.Type, p.Detail
}

// sorted returns the lines of s in order, joined by spaces.
func sorted(s string) string {
	lines := strings.Fields(strings.ReplaceAll(s, " ", "_"))
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// timeAt returns a clock that stands still.
func timeAt(s string) func() time.Time {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return func() time.Time { return at }
}
