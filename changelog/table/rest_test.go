package table_test

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// TestRESTFence (P3): a claim stops a commit that was sent before it and arrives after it, whatever kind of commit it is: with
// files, a mark or a sequence alone, of a schema; to stores with and without a snapshot.
func TestRESTFence(t *testing.T) {
	kinds := map[string]func(l *lake, tbl *table.Table, s *changelog.Schema, epoch changelog.Epoch) error{
		"flush": func(l *lake, tbl *table.Table, s *changelog.Schema, epoch changelog.Epoch) error {
			_, err := tbl.AppendChanges(l.t.Context(), l.commit(epoch, 1, 2, l.file(tbl.Change(), s, mixed.Insert, 0, 2, row{2, "late"})))
			return err
		},
		"mark": func(l *lake, tbl *table.Table, _ *changelog.Schema, epoch changelog.Epoch) error {
			_, err := tbl.AppendChanges(l.t.Context(), l.commit(epoch, 1, 2))
			return err
		},
		"base": func(l *lake, tbl *table.Table, s *changelog.Schema, epoch changelog.Epoch) error {
			_, err := tbl.CommitBase(l.t.Context(), table.BaseCommit{
				ID: "late", Epoch: epoch, Add: []table.NewFile{l.file(tbl.Base(), s, mixed.Base, 1, 0, row{1, "a"})}, Optimized: map[string]int64{"": 2},
			})
			return err
		},
		"sequence": func(l *lake, tbl *table.Table, _ *changelog.Schema, epoch changelog.Epoch) error {
			_, err := tbl.CommitBase(l.t.Context(), table.BaseCommit{ID: "late", Epoch: epoch, Optimized: map[string]int64{"": 2}})
			return err
		},
		"schema": func(l *lake, tbl *table.Table, s *changelog.Schema, epoch changelog.Epoch) error {
			next, err := s.Evolve([]changelog.Column{{Name: "late", Type: changelog.Primitive(changelog.Int)}}, nil)
			if err != nil {
				return err
			}
			return tbl.SyncSchemasUnder(l.t.Context(), changelog.Schemas{s, next}, epoch)
		},
	}
	for name, late := range kinds {
		for _, empty := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", no snapshot", false: ", snapshots"}[empty], func(t *testing.T) {
				l, s := newLake(t, "rest"), users(t)
				tbl := l.create("db.users", s)
				if !empty {
					l.merged(tbl, s)
				}
				first, err := tbl.ClaimEpoch(t.Context(), "writer-1", 0)
				if err != nil {
					t.Fatal(err)
				}
				// The request has left the first writer; the second claims the table before the server gets to it.
				other := l.open(table.Options{})
				var once sync.Once
				var claimed changelog.Epoch
				l.rest.inject(func(_ string, apply func() int) int {
					once.Do(func() {
						l.rest.inject(nil)
						mine, err := other.Load(t.Context(), "db.users")
						if err == nil {
							claimed, err = mine.ClaimEpoch(t.Context(), "writer-2", 0)
						}
						if err != nil {
							t.Error(err)
						}
					})
					return apply()
				})
				before := l.load(tbl)
				if err := late(l, tbl, s, first); !errors.Is(err, table.ErrFenced) {
					t.Errorf("commit across a claim: %v", err)
				}
				now := l.load(tbl)
				if claimed != 2 || len(now.Schemas()) != 1 || !maps.Equal(now.Optimized(), before.Optimized()) ||
					now.Base().SnapshotID() != before.Base().SnapshotID() || now.Change().SnapshotID() != before.Change().SnapshotID() {
					t.Errorf("epoch %d; the late commit is in the table", claimed)
				}
				if _, ok, err := now.LastCommit(); ok == empty || err != nil {
					t.Errorf("mark %v, %v", ok, err)
				}
			})
		}
	}
}

// TestRESTClaimMovesNoHead: a claim leaves both heads and the list of snapshots with rows as they are, and expiry keeps it.
func TestRESTClaimMovesNoHead(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	_, second := l.merged(tbl, s)
	for range 3 {
		if _, err := tbl.ClaimEpoch(t.Context(), "w", 0); err != nil {
			t.Fatal(err)
		}
	}
	now := l.load(tbl)
	if now.Base().SnapshotID() != second.ID || len(now.Base().Snapshots()) != 2 {
		t.Errorf("head %d of %d snapshots", now.Base().SnapshotID(), len(now.Base().Snapshots()))
	}
	l.now = l.now.Add(1e12)
	got, err := tbl.ExpireSnapshots(t.Context(), tbl.Base(), 1, 0)
	if err != nil || got.Snapshots != 3 { // the first with rows, and two claims that were overtaken
		t.Errorf("%+v, %v", got, err)
	}
	l.append(tbl, l.commit(3, 4, 5, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"})))
	if got := l.rows(l.load(tbl).Base(), s); len(got) != 2 {
		t.Errorf("rows %v", got)
	}
}

// TestRESTOutcomes (P2): every answer that leaves it open what became of a commit ends in the truth: found where it
// landed, ErrUnknownOutcome where it has not (yet), and sent again under its id it is in the table once.
func TestRESTOutcomes(t *testing.T) {
	for _, status := range []int{0, 500, 502, 503, 504, 409, 400, 403, 404, 422, 429} { // 409: a proxy has sent it twice; the rest of 4xx are lies
		l, s := newLake(t, "rest"), users(t)
		tbl := l.create("db.users", s)
		l.rest.inject(func(_ string, apply func() int) int { apply(); return status })
		c := l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}))
		if _, err := tbl.AppendChanges(t.Context(), c); err != nil {
			t.Errorf("landed, answered %d: %v", status, err)
		}
		if snap := l.append(tbl, c); snap.Sequence != 1 {
			t.Errorf("sent again after %d: %+v", status, snap)
		}
		l.rest.inject(nil)
		if got := l.rows(l.load(tbl).Change(), s); len(got) != 1 {
			t.Errorf("after %d: rows %v", status, got)
		}
	}
	for status, unknown := range map[int]bool{
		0: true, 500: true, 502: true, 503: true, 504: true, 507: true, 302: false, 400: false, 403: false, 404: false, 419: false, 422: false, 429: false,
	} {
		l, s := newLake(t, "rest"), users(t)
		tbl := l.create("db.users", s)
		l.rest.inject(func(string, func() int) int { return status })
		c := l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"}))
		_, err := tbl.AppendChanges(t.Context(), c)
		if err == nil || errors.Is(err, table.ErrUnknownOutcome) != unknown {
			t.Errorf("did not land, answered %d: %v", status, err)
		}
		left := 0
		for _, path := range l.onDisk() {
			if strings.HasSuffix(path, ".avro") {
				left++
			}
		}
		if unknown != (left == 2) {
			t.Errorf("answered %d: %d manifests and lists are left", status, left)
		}
		l.rest.inject(nil)
		if l.append(tbl, c); len(l.files(l.load(tbl).Change())) != 1 {
			t.Errorf("sent again after %d: not there", status)
		}
	}
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	l.rest.inject(func(string, func() int) int { return 409 })
	if _, err := tbl.AppendChanges(t.Context(), l.commit(0, 0, 1)); !table.IsConflict(err) {
		t.Errorf("always a conflict: %v", err)
	}
}

// TestRESTLateCommit (P2): a request that a proxy has held back and lets through after the commit was sent again, and after
// later commits, changes nothing: neither files nor mark nor sequence.
func TestRESTLateCommit(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	l.merged(tbl, s)
	var held []func() int
	hold := func(_ string, apply func() int) int { held = append(held, apply); return 0 }
	flush, mark := l.commit(0, 4, 5, l.file(tbl.Change(), s, mixed.Insert, 0, 5, row{5, "e"})), l.commit(0, 5, 6)
	for i, c := range []struct {
		name string
		send func() error
	}{
		{"flush", func() error { _, err := tbl.AppendChanges(t.Context(), flush); return err }},
		{"mark", func() error { _, err := tbl.AppendChanges(t.Context(), mark); return err }},
		{"sequence", func() error {
			_, err := tbl.CommitBase(t.Context(), table.BaseCommit{ID: "seq", Optimized: map[string]int64{"": 4}})
			return err
		}},
	} {
		held = nil
		l.rest.inject(hold)
		if err := c.send(); !errors.Is(err, table.ErrUnknownOutcome) {
			t.Fatalf("%s: %v", c.name, err)
		}
		l.rest.inject(nil)
		if err := c.send(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		to, seq := changelog.SeqNum(7+i), int64(3+i)
		l.append(tbl, l.commit(0, to-1, to))
		l.base(tbl, table.BaseCommit{Optimized: map[string]int64{"": seq}})
		if len(held) != 1 {
			t.Fatalf("%s: %d requests", c.name, len(held))
		}
		if status := held[0](); status != http.StatusConflict {
			t.Errorf("%s: the late request is answered %d", c.name, status)
		}
		now := l.load(tbl)
		if mark, _, err := now.LastCommit(); err != nil || mark.To != to || now.Optimized()[""] != seq {
			t.Errorf("%s: mark %+v, optimized %v, %v", c.name, mark, now.Optimized(), err)
		}
	}
}

// TestRESTLateClaim: a claim whose request comes late, just before the next claim of the same writer, does not end that writer.
func TestRESTLateClaim(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	var held func() int
	l.rest.inject(func(_ string, apply func() int) int { held = apply; return 0 })
	if _, err := tbl.ClaimEpoch(t.Context(), "writer-1", 0); !errors.Is(err, table.ErrUnknownOutcome) {
		t.Fatalf("got %v", err)
	}
	l.rest.inject(func(_ string, apply func() int) int {
		l.rest.inject(nil)
		if status := held(); status != http.StatusOK {
			t.Errorf("the late claim is answered %d", status)
		}
		return apply()
	})
	epoch, err := tbl.ClaimEpoch(t.Context(), "writer-1", 0)
	if err != nil || epoch != 2 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	l.append(tbl, l.commit(epoch, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})))
}

// TestRESTLies: a catalog that answers success and has not committed is not believed.
func TestRESTLies(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	l.rest.lies.Store(true)
	for _, c := range []table.Commit{l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})), l.commit(0, 0, 1)} {
		if _, err := tbl.AppendChanges(t.Context(), c); !errors.Is(err, table.ErrUnknownOutcome) || !errors.Is(err, table.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
	if err := tbl.SetProperties(t.Context(), map[string]string{"x": "y"}); !errors.Is(err, table.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

// TestRESTCreateCutShort: a creation that ended between its two stores is no table to anybody, and the next one completes it.
func TestRESTCreateCutShort(t *testing.T) {
	for _, applied := range []bool{false, true} {
		l, s := newLake(t, "rest"), users(t)
		l.rest.inject(func(path string, apply func() int) int {
			if !strings.HasSuffix(path, "/users") {
				return apply()
			}
			if applied {
				apply()
			}
			return 0
		})
		if _, err := l.cat.Create(t.Context(), "db.users", s, nil); err == nil {
			t.Fatal("created without an answer")
		}
		l.rest.inject(nil)
		other := l.open(table.Options{})
		names, err := other.List(t.Context())
		if err != nil || (len(names) == 1) != applied {
			t.Errorf("applied %v: listed %v, %v", applied, names, err)
		}
		if _, err := other.Create(t.Context(), "db.users", s, nil); errors.Is(err, table.ErrExists) != applied || err != nil && !applied {
			t.Errorf("applied %v: created again: %v", applied, err)
		}
		tbl, err := other.Load(t.Context(), "db.users")
		if err != nil {
			t.Fatal(err)
		}
		l.merged(tbl, s)
	}
	// What only looks like ours is left alone: another schema, or in use.
	l, s := newLake(t, "rest"), users(t)
	l.create("db.users", s)
	if err := l.cat.Unregister(t.Context(), "db.users"); err != nil {
		t.Fatal(err)
	}
	next, err := changelog.NewSchema(append(s.Columns[:3:3], changelog.Column{Name: "z", Type: changelog.Primitive(changelog.Int)}), []string{"id"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.cat.Create(t.Context(), "db.users", next, nil); !errors.Is(err, table.ErrExists) {
		t.Errorf("over a change store of another schema: %v", err)
	}
	tbl, err := l.cat.Create(t.Context(), "db.users", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.append(tbl, l.commit(0, 0, 1, l.file(tbl.Change(), s, mixed.Insert, 0, 1, row{1, "a"})))
	if err := l.cat.Unregister(t.Context(), "db.users"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.cat.Create(t.Context(), "db.users", s, nil); !errors.Is(err, table.ErrExists) {
		t.Errorf("over a change store with changes: %v", err)
	}
}

// testHalf: a base store whose change store is missing is completed if it was never written to, by any number of processes at
// once, and else left as it is.
func testHalf(t *testing.T, kind string) {
	l, s := newLake(t, kind), users(t)
	l.create("db.users", s)
	half := func() {
		t.Helper()
		if err := l.cat.Unregister(t.Context(), "db.users_change_"); err != nil {
			t.Fatal(err)
		}
		if _, err := l.cat.Load(t.Context(), "db.users"); !errors.Is(err, table.ErrHalf) || errors.Is(err, table.ErrNotFound) {
			t.Fatalf("loaded half a table: %v", err)
		}
	}
	half()
	var wg sync.WaitGroup
	for range 4 {
		c := l.open(table.Options{})
		wg.Go(func() {
			if _, err := c.Create(context.Background(), "db.users", s, nil); err != nil && !errors.Is(err, table.ErrExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tbl, err := l.cat.Load(t.Context(), "db.users")
	if err != nil {
		t.Fatal(err)
	}
	sameSchemas(t, tbl.Schemas(), changelog.Schemas{s})
	if p := tbl.Change().Properties(); p["mixed-format.table-store"] != "change" || p["mixed-format.change.identifier"] != "" {
		t.Errorf("change store %v", p)
	}
	l.merged(tbl, s)
	half()
	if _, err := l.cat.Create(t.Context(), "db.users", s, nil); !errors.Is(err, table.ErrHalf) {
		t.Errorf("completed a table that was written to: %v", err)
	}
	if err := l.cat.Drop(t.Context(), "db.users", true); err != nil {
		t.Error(err)
	}
	if _, err := l.cat.Load(t.Context(), "db.users"); !errors.Is(err, table.ErrNotFound) {
		t.Errorf("dropped: %v", err)
	}
}

// TestRESTElsewhere: a server that puts tables where firn cannot write is refused before anything is made, and such tables of
// others are no hindrance.
func TestRESTElsewhere(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	l.create("db.users", s)
	l.rest.scheme = "s3:/"
	if _, err := l.cat.Create(t.Context(), "db.other", s, nil); !errors.Is(err, table.ErrScheme) || !strings.Contains(err.Error(), "s3://") {
		t.Errorf("got %v", err)
	}
	if len(l.rest.tables) != 2 {
		t.Errorf("%d tables", len(l.rest.tables))
	}
}

// TestRESTMetadataIsTheServers: metadata files that the table does not name are no orphans to us: the server may need them.
func TestRESTMetadataIsTheServers(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	dir := strings.TrimPrefix(tbl.Base().Location(), "file://") + "/metadata/"
	for _, name := range []string{"old.metadata.json", "old.avro"} {
		if err := os.WriteFile(dir+name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.now = l.now.Add(2 * time.Hour)
	if got, err := tbl.Orphans(t.Context(), l.now); err != nil || len(got) != 1 || !strings.HasSuffix(got[0], "/old.avro") {
		t.Errorf("orphans %v, %v", got, err)
	}
}

// TestRESTConnect: authentication, headers, prefix, warehouse, trust; and what is wrong is said without secrets.
func TestRESTConnect(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	open := func(client map[string]string) (*table.Catalog, error) {
		return table.Open(t.Context(), table.Options{Type: table.TypeREST, URI: l.rest.url, Client: client})
	}
	l.rest.token = "hush-token"
	for _, client := range []map[string]string{
		{"token": "hush-token", "header.X-Firn": "yes", "warehouse": "there", "prefix": "mine"},
		{"credential": "me:hush"},
		{"credential": "me:hush", "scope": "catalog", "oauth2-server-uri": l.rest.url + "/v1/oauth/tokens"},
		{"header.Authorization": "Bearer "},
	} {
		if a, ok := client["header.Authorization"]; ok {
			client["header.Authorization"] = a + l.rest.token
		}
		c, err := open(client)
		if err != nil {
			t.Fatalf("%v: %v", client, err)
		}
		if client["credential"] != "" {
			l.rest.token = "revoked" // one more token is asked for
		}
		tbl, err := c.Create(t.Context(), "db.users", s, nil)
		if err != nil {
			t.Fatalf("%v: %v", client, err)
		}
		for k, v := range tbl.Base().Properties() {
			if strings.Contains(v, "hush") || strings.HasPrefix(k, "header.") || k == "credential" {
				t.Errorf("property %s = %s", k, v)
			}
		}
		if err := c.Drop(t.Context(), "db.users", true); err != nil {
			t.Fatal(err)
		}
		if client["header.X-Firn"] != "" && l.rest.seen[len(l.rest.seen)-1].Get("X-Firn") != "yes" {
			t.Error("no header")
		}
	}
	for want, client := range map[string]map[string]string{
		"401 Unauthorized":      {"token": "hush-wrong"},
		"invalid_client":        {"credential": "me:hush-wrong"},
		"no warehouse lost":     {"token": "hush-token", "warehouse": "lost"},
		`property "tokken"`:     {"tokken": "hush"},
		"only one of them":      {"token": "hush", "credential": "hush"},
		"no certificate in PEM": {"tls.ca": os.Args[0]},
	} {
		l.rest.token = "hush-token"
		if _, err := open(client); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	secure := httptest.NewUnstartedServer(l.rest)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports who does not trust it
	secure.StartTLS()
	defer secure.Close()
	l.rest.token = ""
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for trust, ok := range map[string]bool{"": false, ca: true} {
		c, err := table.Open(t.Context(), table.Options{Type: table.TypeREST, URI: secure.URL + "/at", Client: map[string]string{"tls.ca": trust}})
		if (err == nil) != ok {
			t.Errorf("trust %q: %v", trust, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}

// TestRESTLoadsOnce: metadata that has not changed is not sent again.
func TestRESTLoadsOnce(t *testing.T) {
	l, s := newLake(t, "rest"), users(t)
	tbl := l.create("db.users", s)
	before := l.rest.loads
	for range 5 {
		l.load(tbl)
	}
	if n := l.rest.loads - before; n != 0 {
		t.Errorf("%d loads of what had not changed", n)
	}
	l.append(tbl, l.commit(0, 0, 1))
	if mark, _, err := l.load(tbl).LastCommit(); err != nil || mark.To != 1 {
		t.Errorf("mark %+v, %v", mark, err)
	}
}
