package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"firn/ingest"
	"firn/ingest/decode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a registry whose answers a test sets, by path.
type fake struct {
	mu      sync.Mutex
	answers map[string]string
	status  int // of what has no answer
	body    string
	asked   map[string]int
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[r.URL.Path]++
	if a, ok := f.answers[r.URL.Path]; ok {
		fmt.Fprint(w, a)
		return
	}
	w.WriteHeader(f.status)
	fmt.Fprint(w, f.body)
}

func newFake(t *testing.T, answers map[string]string) (*fake, *Client) {
	t.Helper()
	f := &fake{answers: answers, status: 404, body: `{"error_code":40403,"message":"Schema not found"}`, asked: map[string]int{}}
	server := httptest.NewServer(f)
	c, err := New(Options{URL: server.URL, Refresh: time.Millisecond, Negative: 50 * time.Millisecond, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return f, c
}

// TestAnswers: each answer of the registry has the consequence of 1.6.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		reason string // of the rejection
		wait   bool
	}{
		{"unknown", 404, `{"error_code":40403,"message":"x"}`, decode.ReasonSchemaUnknown, false},
		{"unknown to Apicurio", 404, `{"title":"No artifact","status":404,"name":"ArtifactNotFoundException"}`, decode.ReasonSchemaUnknown, false},
		{"a proxy's 404", 404, `<html>`, "", true},
		{"a proxy's 404 in JSON", 404, `{"message":"no route"}`, "", true},
		{"unauthorized", 401, `{"error_code":401}`, "", false},
		{"forbidden", 403, `{}`, "", false},
		{"bad gateway", 502, `{"error_code":404}`, "", true},
		{"no schema", 200, `{}`, decode.ReasonSchemaInvalid, false},
		{"too large", 200, `{"schema":"` + strings.Repeat("x", maxBody) + `"}`, decode.ReasonSchemaInvalid, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, client := newFake(t, nil)
			f.status, f.body = c.status, c.body
			_, err := client.Schema(t.Context(), decode.SchemaRef{ID: 1})
			reason := ""
			if rejected, ok := errors.AsType[*decode.Rejected](err); ok {
				reason = rejected.Reason
			}
			if err == nil || reason != c.reason || errors.Is(err, ingest.ErrRegistryUnavailable) != c.wait {
				t.Errorf("%v", err)
			}
			want := 1
			if c.reason == decode.ReasonSchemaUnknown {
				want = 2 // asked again
			}
			if n := f.asked["/schemas/ids/1"]; n != want {
				t.Errorf("asked %d times, want %d", n, want)
			}
		})
	}
	t.Run("refused connection", func(t *testing.T) {
		client, err := New(Options{URL: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Schema(t.Context(), decode.SchemaRef{ID: 1}); !errors.Is(err, ingest.ErrRegistryUnavailable) {
			t.Error(err)
		}
	})
}

// TestCache: a schema is asked for once, by many at a time too; that there is none holds for a while only.
func TestCache(t *testing.T) {
	f, client := newFake(t, map[string]string{"/schemas/ids/1": `{"schema":"\"int\""}`})
	var g sync.WaitGroup
	var failed atomic.Int32
	for range 50 {
		g.Go(func() {
			if s, err := client.Schema(context.WithoutCancel(t.Context()), decode.SchemaRef{ID: 1}); err != nil || string(s.Text) != `"int"` {
				failed.Add(1)
			}
		})
	}
	g.Wait()
	if f.asked["/schemas/ids/1"] != 1 || failed.Load() != 0 {
		t.Errorf("asked %v, %d failed", f.asked, failed.Load())
	}
	unknown := decode.SchemaRef{ID: 2}
	for range 3 {
		if _, err := client.Schema(t.Context(), unknown); err == nil {
			t.Fatal("found")
		}
	}
	if n := f.asked["/schemas/ids/2"]; n != 2 {
		t.Errorf("asked %d times", n)
	}
	f.mu.Lock()
	f.answers["/schemas/ids/2"] = `{"schema":"\"long\""}`
	f.mu.Unlock()
	time.Sleep(60 * time.Millisecond)
	if s, err := client.Schema(t.Context(), unknown); err != nil || string(s.Text) != `"long"` {
		t.Errorf("after a while: %v", err)
	}
}

// TestReferences: they come each after what it uses; circles, too many and missing ones are schema_invalid.
func TestReferences(t *testing.T) {
	refer := func(names ...string) string {
		var all []string
		for _, n := range names {
			all = append(all, fmt.Sprintf(`{"name":%q,"subject":%q,"version":1}`, n, n))
		}
		return `"references":[` + strings.Join(all, ",") + `]`
	}
	chain := map[string]string{"/schemas/ids/1": `{"schema":"main",` + refer("s0") + `}`}
	wide := map[string]string{}
	var names []string
	for i := range 300 {
		chain[fmt.Sprintf("/subjects/s%d/versions/1", i)] = `{"schema":"x",` + refer(fmt.Sprintf("s%d", i+1)) + `}`
		names = append(names, fmt.Sprintf("w%d", i))
		wide[fmt.Sprintf("/subjects/w%d/versions/1", i)] = `{"schema":"x"}`
	}
	wide["/schemas/ids/1"] = `{"schema":"main",` + refer(names...) + `}`
	for _, c := range []struct {
		name    string
		answers map[string]string
		want    string // texts; "": rejected
	}{
		{"diamond", map[string]string{
			"/schemas/ids/1":         `{"schema":"main",` + refer("a", "b") + `}`,
			"/subjects/a/versions/1": `{"schema":"A",` + refer("c") + `}`, "/subjects/b/versions/1": `{"schema":"B",` + refer("c") + `}`,
			"/subjects/c/versions/1": `{"schema":"C"}`,
		}, "C A B main"},
		{"circle", map[string]string{
			"/schemas/ids/1":         `{"schema":"main",` + refer("a") + `}`,
			"/subjects/a/versions/1": `{"schema":"A",` + refer("b") + `}`, "/subjects/b/versions/1": `{"schema":"B",` + refer("a") + `}`,
		}, ""},
		{"missing", map[string]string{"/schemas/ids/1": `{"schema":"main",` + refer("a") + `}`}, ""},
		{"deep", chain, ""},
		{"many", wide, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, client := newFake(t, c.answers)
			s, err := client.Schema(t.Context(), decode.SchemaRef{ID: 1})
			if rejected, ok := errors.AsType[*decode.Rejected](err); ok != (c.want == "") || ok && rejected.Reason != decode.ReasonSchemaInvalid {
				t.Fatal(err)
			}
			got := ""
			for _, r := range s.References {
				got += string(r.Text) + " "
			}
			if got += string(s.Text); got != c.want {
				t.Errorf("%s", got)
			}
		})
	}
}

// TestPaths: each kind of reference is asked for where the registries have it.
func TestPaths(t *testing.T) {
	_, client := newFake(t, map[string]string{
		"/schemas/guids/89791762-2336-4186-9674-299b90a802e2": `{"schema":"guid"}`,
		"/ids/contentIds/17": "content", "/ids/contentIds/17/references": "[]",
		"/ids/globalIds/7": "global", "/ids/globalIds/7/references": `[{"groupId":"g","artifactId":"a","version":"1","name":"n"}]`,
		"/groups/g/artifacts/a/versions/1/content": "artifact", "/groups/g/artifacts/a/versions/1/references": "[]",
		"/ids/contentHashes/ab": "hash", "/ids/contentHashes/ab/references": "[]",
	})
	for _, c := range []struct {
		ref  decode.SchemaRef
		want string
	}{
		{decode.SchemaRef{Kind: decode.RefGUID, High: 0x8979176223364186, ID: 0x9674299b90a802e2}, "guid"},
		{decode.SchemaRef{Kind: decode.RefContentID, ID: 17}, "content"},
		{decode.SchemaRef{Kind: decode.RefGlobalID, ID: 7}, "global"},
		{decode.SchemaRef{Kind: decode.RefHash, Name: "ab"}, "hash"},
		{decode.SchemaRef{Kind: decode.RefArtifact, Name: "g/a/1"}, "artifact"},
	} {
		s, err := client.Schema(t.Context(), c.ref)
		if err != nil || string(s.Text) != c.want {
			t.Errorf("%s: %q, %v", c.ref, s.Text, err)
		}
		if c.ref.Kind == decode.RefGlobalID && (len(s.References) != 1 || string(s.References[0].Text) != "artifact") {
			t.Errorf("references %q", s.References)
		}
	}
}

// TestTypes: a schema says what it is, and Confluent's without a type are Avro; references have the names that they are used under.
func TestTypes(t *testing.T) {
	_, client := newFake(t, map[string]string{
		"/schemas/ids/1": `{"schema":"a"}`, "/schemas/ids/2": `{"schema":"j","schemaType":"JSON"}`,
		"/schemas/ids/3":         `{"schema":"p","schemaType":"PROTOBUF","references":[{"name":"other.proto","subject":"s","version":2}]}`,
		"/subjects/s/versions/2": `{"schema":"o","schemaType":"PROTOBUF"}`,
	})
	for id, want := range map[uint64]string{1: "AVRO", 2: "JSON", 3: "PROTOBUF"} {
		s, err := client.Schema(t.Context(), decode.SchemaRef{ID: id})
		if err != nil || s.Type != want {
			t.Errorf("%d: %q, %v", id, s.Type, err)
		}
		if id == 3 && (len(s.References) != 1 || s.References[0].Name != "other.proto" || string(s.References[0].Text) != "o") {
			t.Errorf("references %q", s.References)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, u := range []string{"", "localhost:8081", "ftp://x", "http://u:p@h", "http://h?x=1"} {
		if _, err := New(Options{URL: u}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}
