package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"firn/ingest"
	"firn/logstore/httpapi"
)

// topicDetail puts together what the configuration says for a topic and what the pipeline has seen of it.
func topicDetail(s SourceConfig, t ingest.TopicStatus) httpapi.TopicDetail {
	route := defaultRoute()
	route.Key.Mode = defaultKey(s)
	name := "default"
	if i := slices.IndexFunc(s.Routes, func(r RouteConfig) bool { return r.Topic == t.Route }); i >= 0 {
		route, name = s.Routes[i], t.Route
	}
	d := httpapi.TopicDetail{
		Topic: t.Topic, Partitions: t.Partitions, Table: t.Table, Route: name, Shape: s.Shape, Key: []string{}, KeyOf: route.Key.Mode,
		Policies: policies(s, route), Columns: []httpapi.TopicColumn{}, Rejected: t.Rejected,
		Warnings: append(shapeWarnings(s), t.Warnings...),
	}
	d.Format, d.KeyFormat = s.formatNames(route)
	for _, c := range t.Columns {
		column := httpapi.TopicColumn{Name: c.Name, Connect: c.Connect, Type: c.Type, Key: c.Key}
		if c.Column != "" {
			column.Column, column.Stored = &c.Column, &c.Stored
		}
		if c.Key {
			d.Key = append(d.Key, cmp.Or(c.Column, c.Name))
		}
		d.Columns = append(d.Columns, column)
	}
	if l := t.Last; l != nil {
		d.Last = &httpapi.LastRecord{
			Partition: l.Partition, Offset: l.Offset, Read: *timeText(time.UnixMicro(l.Read)), Outcome: l.Outcome, Reason: l.Reason,
			Kind: l.Kind, Op: l.Op, Snapshot: l.Snapshot, Connector: l.Connector, Position: l.Position,
		}
		if l.Time > 0 {
			d.Last.Time = timeText(time.UnixMilli(l.Time))
		}
		if l.SourceTime != 0 {
			d.Last.SourceTime = timeText(time.UnixMicro(l.SourceTime))
		}
	}
	return d
}

func timeText(t time.Time) *string {
	s := t.UTC().Format(time.RFC3339Nano)
	return &s
}

// policies are the settings that decide what becomes of a topic's records, by their names in the configuration.
func policies(s SourceConfig, r RouteConfig) map[string]string {
	p := map[string]string{
		"identity": s.Identity, "placeholder": s.Placeholder, "infinity": s.Infinity, "on_truncate": s.OnTruncate,
		"replay_filter": s.ReplayFilter, "replay_window": strconv.Itoa(s.ReplayWindow),
		"keyless": cmp.Or(r.Keyless, s.Keyless), "keyless_resnapshot": s.KeylessResnapshot,
		"on_parked": cmp.Or(r.OnParked, s.OnParked), "max_rejected_run": strconv.Itoa(s.MaxRejectedRun),
		"max_rejected_share": strconv.FormatFloat(s.MaxRejectedShare, 'g', -1, 64), "fail_fast": strconv.FormatBool(s.FailFast),
		"dlq_max_bytes": s.DLQMaxBytes.String(), "max_record_bytes": s.MaxRecordBytes.String(), "amoro_keys": strconv.FormatBool(r.AmoroKeys),
		"schema": s.Schema,
	}
	switch s.Shape {
	case "envelope":
		p["documents"] = s.Documents
	case "outbox":
		p["payload"], p["metadata"] = s.Payload, pairs(s.Metadata)
	case "flattened":
		p["deletes"], p["metadata"], p["connector"] = s.Deletes, pairs(s.Metadata), s.Connector
	default:
		p["connector"] = s.Connector
	}
	if hints := cmp.Or(r.Hints, s.Hints); hints != "" {
		p["hints"] = hints
	}
	if r.SourceTable != "" {
		p["source_table"] = r.SourceTable
	}
	var rules []string
	for _, c := range r.Columns {
		rules = append(rules, strings.Join(slices.DeleteFunc([]string{c.Rule, strings.Join(c.Columns, " "), c.Match, c.To}, func(part string) bool { return part == "" }), " "))
	}
	if len(rules) > 0 {
		p["columns"] = strings.Join(rules, ", ")
	}
	if len(r.Renames) > 0 {
		p["renames"] = pairs(r.Renames)
	}
	if len(r.Drops) > 0 {
		p["drops"] = strings.Join(r.Drops, ", ")
	}
	return p
}

func pairs(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+": "+m[k])
	}
	return strings.Join(all, ", ")
}

func newSourceShowCmd(e *env) *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Explain how each topic of a source is read: route, format, key, types, policies, warnings, its newest record",
		Example: `  firn source show shop`,
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("source show: %w", err)
			}
			var d httpapi.SourceDetail
			if err := c.getJSON(cmd.Context(), "/v1/sources/"+url.PathEscape(args[0]), &d); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(d)
			}
			return showSource(e, d)
		}),
	}
	serverFlag(cmd, &server)
	jsonFlag(cmd, &asJSON, "one JSON object, as GET /v1/sources/NAME")
	return cmd
}

func showSource(e *env, d httpapi.SourceDetail) error {
	state := d.State
	if d.Error != "" {
		state += ": " + d.Error
	}
	out := newColumns(e.Stdout)
	out.row("source", d.Name)
	out.row("kind", d.Kind)
	out.row("state", state)
	if err := out.flush(); err != nil {
		return err
	}
	for i := range d.Topics {
		if err := showTopic(e, &d.Topics[i]); err != nil {
			return err
		}
	}
	return nil
}

func showTopic(e *env, t *httpapi.TopicDetail) error {
	if _, err := fmt.Fprintln(e.Stdout); err != nil {
		return err
	}
	out := newColumns(e.Stdout)
	out.row("topic", fmt.Sprintf("%s (partitions: %d)", t.Topic, t.Partitions))
	out.row("table", t.Table)
	out.row("route", t.Route)
	out.row("shape", t.Shape)
	out.row("format", t.Format+", keys "+t.KeyFormat)
	out.row("key", keyLine(t))
	for _, name := range slices.Sorted(maps.Keys(t.Policies)) {
		out.row(name, cmp.Or(t.Policies[name], "-"))
	}
	out.row("newest record", lastLine(t.Last))
	if t.Rejected != "" {
		out.row("rejected", t.Rejected)
	}
	for _, w := range t.Warnings {
		out.row("warning", w)
	}
	if err := out.flush(); err != nil {
		return err
	}
	if len(t.Columns) == 0 {
		return nil
	}
	columns := newColumns(e.Stdout, "COLUMN", "SOURCE TYPE", "READ AS", "IN THE TABLE", "STORED AS")
	for _, c := range t.Columns {
		name := c.Name
		if c.Key {
			name += " (key)"
		}
		text := func(s string) string { return s }
		stored := orDash(c.Column, text)
		if c.Column == nil && t.Rejected == "" {
			stored = "dropped"
		}
		columns.row(name, cmp.Or(c.Connect, "-"), c.Type, stored, orDash(c.Stored, text))
	}
	return columns.flush()
}

func keyLine(t *httpapi.TopicDetail) string {
	switch {
	case t.KeyOf == "none":
		return "none"
	case len(t.Key) == 0:
		return "not known yet (key: " + t.KeyOf + ")"
	}
	return strings.Join(t.Key, ", ") + " (key: " + t.KeyOf + ")"
}

func lastLine(l *httpapi.LastRecord) string {
	if l == nil {
		return "none since the server began"
	}
	outcome := l.Outcome
	if l.Reason != "" {
		outcome += " (" + l.Reason + ")"
	}
	parts := []string{fmt.Sprintf("partition %d, offset %d, read %s: %s", l.Partition, l.Offset, l.Read, outcome)}
	for _, part := range []string{l.Kind, l.Op, l.Connector, l.Position} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if l.Snapshot {
		parts = append(parts, "snapshot")
	}
	if l.SourceTime != nil {
		parts = append(parts, "committed "+*l.SourceTime)
	}
	return strings.Join(parts, ", ")
}
