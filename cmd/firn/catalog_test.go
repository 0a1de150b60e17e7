package main

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"firn/changelog/table"
	"firn/logstore/httpapi"
)

// TestCatalogOptions: which properties go to the client of a catalog, and which into its tables.
func TestCatalogOptions(t *testing.T) {
	for _, c := range []struct {
		config         CatalogConfig
		client, tables map[string]string
	}{
		{
			CatalogConfig{Type: "rest", URI: "http://h", Properties: map[string]string{"token": "t", "table-default.a": "b"}},
			map[string]string{"token": "t"},
			map[string]string{"a": "b"},
		},
		{
			CatalogConfig{Type: "sql", URI: "postgres://h/d", Warehouse: "file:/w", Properties: map[string]string{"table-default.a": "b", "c": "d"}},
			nil,
			map[string]string{"a": "b", "c": "d"},
		},
	} {
		o, err := c.config.options(slog.New(slog.DiscardHandler))
		if err != nil || !maps.Equal(o.Client, c.client) || !maps.Equal(o.Properties, c.tables) {
			t.Errorf("%+v: client %v, tables %v, %v", c.config, o.Client, o.Properties, err)
		}
	}
}

// TestCatalogLocation: GET /v1/lake names the catalog without secrets, and a verb that reads it says what it needs.
func TestCatalogLocation(t *testing.T) {
	for want, c := range map[string]CatalogConfig{
		"postgres://me@h/d": {Type: "sql", Name: "n", URI: "postgres://me:hush@h/d?sslpassword=hush", Warehouse: "file:/w"},
		"https://h/c":       {Type: "rest", Name: "n", URI: "https://h/c", Properties: map[string]string{"token": "hush"}},
	} {
		at, err := c.location()
		if err != nil || at.URI != want || at.Type != c.Type {
			t.Errorf("%+v, %v", at, err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"type":"` + at.Type + `","name":"n","uri":"` + at.URI + `","warehouse":""}`))
		}))
		_, err = lakeOfServer(t.Context(), server.URL)
		server.Close()
		if err == nil || !strings.Contains(err.Error(), "-c FILE") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
	}
	c := CatalogConfig{Type: table.TypeSQLite, URI: "/d/c.db", Warehouse: "file:/w", Name: "n"}
	if at, err := c.location(); err != nil || at != (httpapi.Catalog{Type: "sqlite", Name: "n", URI: "/d/c.db", Warehouse: "file:/w"}) {
		t.Errorf("%+v, %v", at, err)
	}
}
