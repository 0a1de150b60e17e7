package httpapi

import (
	_ "embed"
	"net/http"
)

//go:embed openapi.yaml
var openAPI []byte

// OpenAPI returns the OpenAPI document of the data listener.
func OpenAPI() []byte { return openAPI }

func serveOpenAPI(w http.ResponseWriter, _ *http.Request, _ [2]string, query string) error {
	if _, err := parseQuery(query); err != nil {
		return err
	}
	w.Header()["Content-Type"] = yamlType
	_, _ = w.Write(openAPI) // a client that is gone needs no answer
	return nil
}
