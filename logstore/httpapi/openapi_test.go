package httpapi

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type apiDocument struct {
	Paths      map[string]map[string]yaml.Node `yaml:"paths"`
	Components struct {
		Parameters map[string]apiParameter `yaml:"parameters"`
		Schemas    map[string]struct {
			Required   []string                      `yaml:"required"`
			AllOf      []struct{ Required []string } `yaml:"allOf"`
			Properties map[string]struct {
				Enum []string `yaml:"enum"`
			} `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
}

type apiParameter struct {
	Ref  string `yaml:"$ref"`
	Name string `yaml:"name"`
	In   string `yaml:"in"`
}

func document(t *testing.T) apiDocument {
	t.Helper()
	var d apiDocument
	if err := yaml.Unmarshal(OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDocumentHasAllRoutes holds openapi.yaml and the handlers together: paths, methods and query parameters are the
// same in both.
func TestDocumentHasAllRoutes(t *testing.T) {
	d := document(t)
	r := newRig(t, nil)
	documented := map[string][]string{} // "GET /path" to query parameters
	for path, item := range d.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var op struct {
				Parameters []apiParameter `yaml:"parameters"`
			}
			if err := node.Decode(&op); err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for _, p := range op.Parameters {
				if p.Ref != "" {
					p = d.Components.Parameters[p.Ref[strings.LastIndexByte(p.Ref, '/')+1:]]
				}
				if p.In != "query" || p.Name == "" {
					t.Errorf("%s %s: parameter %+v", method, path, p)
				}
				names = append(names, p.Name)
			}
			documented[strings.ToUpper(method)+" "+path] = names
		}
	}
	known := regexp.MustCompile(`is not known here: (.*) are$`)
	for _, rt := range r.api.routes {
		names, ok := documented[rt.method+" "+rt.path]
		if !ok {
			t.Errorf("%s %s is served but not documented", rt.method, rt.path)
			continue
		}
		delete(documented, rt.method+" "+rt.path)
		path := strings.NewReplacer("{table}", "shop.orders", "{key}", "eu,1", "{id}", "1", "{source}", "shop").Replace(rt.path)
		slug, detail := r.problem(r.do(rt.method, path+"?surely_unknown=1", ""))
		var served []string
		if m := known.FindStringSubmatch(detail); m != nil {
			served = strings.Split(m[1], ", ")
		}
		slices.Sort(served)
		slices.Sort(names)
		if slug != "bad-request" || !slices.Equal(served, names) {
			t.Errorf("%s %s: %s; serves the parameters %q, documents %q", rt.method, rt.path, slug, served, names)
		}
	}
	for op := range documented {
		t.Errorf("%s is documented but not served", op)
	}
}

func TestDocumentHasAllSlugs(t *testing.T) {
	want := slices.Sorted(maps.Keys(titles))
	got := document(t).Components.Schemas["Problem"].Properties["type"].Enum
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("documented %q\n  served %q", got, want)
	}
}

// TestDocumentHasAllMembers: the members that the document requires are those that answers have.
func TestDocumentHasAllMembers(t *testing.T) {
	d := document(t)
	required := func(schema string) []string {
		s := d.Components.Schemas[schema]
		names := slices.Clone(s.Required)
		for _, part := range s.AllOf {
			names = append(names, part.Required...)
		}
		return names
	}
	table := append(required("Table"), required("TableSummary")...)
	parked := append(required("ParkedRecord"), required("Parked")...)
	r := parkedRig(t)
	for path, want := range map[string][]string{
		"/v1/tables/shop.orders": table, "/v1/parked?limit=1": required("Parked"), "/v1/parked/1": parked,
	} {
		a := r.get(path)
		got := members(t, a.body)
		slices.Sort(want)
		if a.status != http.StatusOK || !slices.Equal(got, want) {
			t.Errorf("%s: %d has the members %q, documented are %q", path, a.status, got, want)
		}
	}
}
