package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"firn/ingest/decode"
	"firn/ingest/registry"
)

// TestReal: a real Apicurio Registry through Confluent's API and its own: schemas by Confluent's id, content id and global id, with a
// reference; no such schema. FIRN_TEST_REGISTRY and FIRN_TEST_REGISTRY_NATIVE are its two addresses (deploy/peers/registry prints them).
func TestReal(t *testing.T) {
	confluent, native := os.Getenv("FIRN_TEST_REGISTRY"), os.Getenv("FIRN_TEST_REGISTRY_NATIVE")
	if confluent == "" || native == "" {
		t.Skip("FIRN_TEST_REGISTRY and FIRN_TEST_REGISTRY_NATIVE are not set: deploy/e2e/registry.sh sets them")
	}
	client := &http.Client{}
	defer client.CloseIdleConnections()
	register := func(subject, schema, references string) (id uint64) {
		t.Helper()
		text, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"schema":%s,"references":[%s]}`, text, references)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, confluent+"/subjects/"+subject+"/versions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("register %s: %s %s %v", subject, res.Status, b, err)
		}
		var out struct{ ID uint64 }
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		return out.ID
	}
	name := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	inner := `{"type":"record","name":"Inner","namespace":"firn.real","fields":[{"name":"x","type":"int"}]}`
	innerID := register(name+"-inner", inner, "")
	outer := `{"type":"record","name":"Outer","namespace":"firn.real","fields":[{"name":"i","type":"firn.real.Inner"}]}`
	outerID := register(name+"-outer", outer, fmt.Sprintf(`{"name":"firn.real.Inner","subject":%q,"version":1}`, name+"-inner"))
	c, err := registry.New(registry.Options{URL: confluent})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Schema(t.Context(), decode.SchemaRef{Kind: decode.RefID, ID: innerID})
	if err != nil || !same(t, s.Text, inner) || len(s.References) != 0 {
		t.Errorf("%s, %v", s.Text, err)
	}
	s, err = c.Schema(t.Context(), decode.SchemaRef{Kind: decode.RefID, ID: outerID})
	if err != nil || !same(t, s.Text, outer) || len(s.References) != 1 || !same(t, s.References[0].Text, inner) {
		t.Errorf("%s with %s, %v", s.Text, s.References, err)
	}
	unknown(t, c, decode.SchemaRef{Kind: decode.RefID, ID: 1 << 30})
	own, err := registry.New(registry.Options{URL: native})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for _, kind := range []decode.RefKind{decode.RefContentID, decode.RefGlobalID} {
		if s, err := own.Schema(t.Context(), decode.SchemaRef{Kind: kind, ID: 1}); err != nil || !bytes.Contains(s.Text, []byte(`"record"`)) {
			t.Errorf("kind %d: %s, %v", kind, s.Text, err)
		}
		unknown(t, own, decode.SchemaRef{Kind: kind, ID: 1 << 30})
	}
}

func unknown(t *testing.T, c *registry.Client, ref decode.SchemaRef) {
	t.Helper()
	_, err := c.Schema(t.Context(), ref)
	var rejected *decode.Rejected
	if !errors.As(err, &rejected) || rejected.Reason != decode.ReasonSchemaUnknown {
		t.Errorf("%s: %v", ref, err)
	}
}

// same reports whether two schemas are one, whatever their spaces.
func same(t *testing.T, a []byte, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Error(err)
		return false
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}
