package main

import (
	"testing"

	"firn/ingest"
	"firn/ingest/decode"
)

// TestShapes: what the settings of event shapes mean for the reading of records, and where a route's key comes from.
func TestShapes(t *testing.T) {
	cfg, err := loadConfig("testdata/config/outbox.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := cfg.Sources[0]
	r := newRoute(s)
	if d := r.Decode; r.Key != ingest.KeyNone || d.Form != decode.FormOutbox || d.Payload != decode.PayloadExpanded || d.Metadata["tenant"] != "header" || d.Validate() != nil {
		t.Errorf("%+v", r)
	}
	if s.Routes[0].Key.Mode != "columns" || s.Routes[1].Key.Mode != "none" {
		t.Errorf("keys of routes: %+v", s.Routes)
	}
	s = cfg.Sources[1]
	if d := newRoute(s).Decode; d.Form != decode.FormOutbox || d.Format != decode.FormatCloudEvents || d.KeyFormat != decode.FormatAuto || d.Payload != decode.PayloadText || d.Validate() != nil {
		t.Errorf("%+v", d)
	}
	s.Shape, s.Format, s.Payload, s.Documents = "envelope", "cloudevents_avro", "binary", "text"
	for keys, want := range map[string]decode.Format{"": decode.FormatAuto, "confluent_avro": decode.FormatConfluentAvro} {
		value, key := s.formats(RouteConfig{KeyFmt: keys})
		if value != decode.FormatCloudEventsAvro || key != want {
			t.Errorf("keys %q: formats %d and %d", keys, value, key)
		}
	}
	if d := newRoute(s).Decode; d.Payload != decode.PayloadBinary || d.Documents != decode.DocumentText {
		t.Errorf("%+v", d)
	}
}
