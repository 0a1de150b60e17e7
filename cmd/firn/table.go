package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/logstore/httpapi"
)

func newTableCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "table",
		Short: "Show tables: schema, key, positions, lag, files, snapshots; adopt and release them",
		Example: `  firn table list
  firn table show shop.orders
  firn table files shop.orders`,
	}
	cmd.AddCommand(newTableListCmd(e), newTableShowCmd(e), newTableFilesCmd(e), newTableSnapshotsCmd(e),
		newTableAdoptCmd(e), newTableReleaseCmd(e))
	return cmd
}

func newTableListCmd(e *env) *cobra.Command {
	var f lakeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List all tables",
		Long: `List asks a running server. With --catalog-uri, or -c and no server, it lists the tables of the lake.

ROWS is what lookups find; APPLIED is the newest change in the log, FLUSHED in the change store, OPTIMIZED in the base store. The lake
alone does not know ROWS, APPLIED and LAG: they are - (null with --json), and so is what a table has that firn never flushed.`,
		Example: `  firn table list
  firn table list --catalog-uri firn-data/catalog.db --json`,
		Args: cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			tables, raw, bad, err := f.listTables(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				_, err := fmt.Fprintf(e.Stdout, "%s\n", raw)
				return errors.Join(err, bad)
			}
			out := newColumns(e.Stdout, "TABLE", "KEY", "ROWS", "APPLIED", "FLUSHED", "OPTIMIZED", "LAG")
			for _, t := range tables {
				out.row(t.Name, strings.Join(t.Key, ","), orDash(t.Rows, int64Text), orDash(t.Applied, seqText), orDash(t.Flushed, seqText),
					orDash(t.Optimized, seqText), orDash(t.LagSeconds, lagText))
			}
			return errors.Join(out.flush(), bad)
		}),
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON, `one object {"tables":[…]}`)
	return cmd
}

func lagText(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}

// listTables returns all tables and their JSON: of the server or data directory, else of the lake. bad tells of those in the lake that
// cannot be read, and are left out.
func (f *lakeFlags) listTables(ctx context.Context) (tables []tableSummary, raw []byte, bad, err error) {
	s, err := f.open(ctx, f.catalog.URI != "", f.catalog.URI == "")
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.client != nil {
		var list json.RawMessage
		if err := s.client.getJSON(ctx, "/v1/tables", &list); err != nil {
			return nil, nil, nil, err
		}
		var parsed struct {
			Tables []tableSummary `json:"tables"`
		}
		err = json.Unmarshal(list, &parsed)
		return parsed.Tables, list, nil, err
	}
	names, err := s.catalog.List(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	tables = []tableSummary{}
	for _, name := range names {
		d, err := s.lakeTable(ctx, name)
		if ctx.Err() != nil {
			return nil, nil, nil, err
		}
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		tables = append(tables, d.tableSummary)
	}
	raw, err = json.Marshal(map[string]any{"tables": tables})
	return tables, raw, bad, err
}

// lakeTable is a table as the lake alone tells it: up to the last flush.
func (s *stores) lakeTable(ctx context.Context, name string) (d tableDetail, err error) {
	t, err := s.catalog.Load(ctx, name)
	if err != nil {
		return d, lakeError(err)
	}
	schema := t.Schemas().Current()
	d = tableDetail{
		tableSummary: tableSummary{Name: name, Format: "mixed-iceberg", Key: schema.KeyNames()},
		Schema:       httpapi.IcebergSchema(schema), Schemas: len(t.Schemas()), Partition: partitionText(t),
		Properties: t.Base().Properties(), Stores: map[string]httpapi.StoreStatus{}, Sources: []tableSource{},
	}
	r, ours, err := flush.Restore(ctx, t)
	if err != nil {
		return d, err
	}
	if ours {
		d.Flushed, d.Optimized = &r.Progress.Flushed, &r.Progress.Optimized
		for _, p := range r.Positions {
			d.Sources = append(d.Sources, tableSource{Source: p.Source, PartitionStatus: httpapi.PartitionStatus{
				Topic: p.Topic, Partition: p.Partition, Next: p.Next, End: -1, Lag: -1,
			}})
		}
	}
	for _, store := range t.Stores() {
		if d.Stores[store.Kind()], err = storeStatus(ctx, store); err != nil {
			return d, err
		}
	}
	return d, nil
}

// partitionText returns the fields of a table's partition spec as the configuration has them, or why firn cannot write to it.
func partitionText(t *table.Table) []string {
	spec, err := t.Partition()
	if err != nil {
		return []string{err.Error()}
	}
	return spec.Strings()
}

// storeStatus sums the files of a store up by kind.
func storeStatus(ctx context.Context, s *table.Store) (httpapi.StoreStatus, error) {
	status := httpapi.StoreStatus{Location: s.Location(), Files: map[string]httpapi.FileCount{}, WatermarkMS: s.Watermark()}
	if snapshot := s.Snapshot(); snapshot != nil {
		status.Snapshot, status.Sequence = snapshot.ID, snapshot.Sequence
	}
	files, err := s.Files(ctx)
	if err != nil {
		return status, fmt.Errorf("files of %s: %w", s.Name(), err)
	}
	for _, f := range files {
		kind := fileKind(f)
		c := status.Files[kind]
		status.Files[kind] = httpapi.FileCount{Files: c.Files + 1, Bytes: c.Bytes + f.Bytes, Records: c.Records + f.Records}
	}
	return status, nil
}

func newTableShowCmd(e *env) *cobra.Command {
	var f lakeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show TABLE",
		Short: "Show one table: schema, key, positions, lag, files by kind",
		Example: `  firn table show shop.orders
  firn table show shop.orders --catalog-uri firn-data/catalog.db`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			s, err := f.open(cmd.Context(), f.catalog.URI != "", f.catalog.URI == "")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			var d tableDetail
			if s.client != nil {
				err = s.client.getJSON(cmd.Context(), tablePath(args[0], "", nil), &d)
			} else {
				d, err = s.lakeTable(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(d)
			}
			return showTable(e.Stdout, d)
		}),
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

func showTable(w io.Writer, d tableDetail) error {
	schema, err := httpapi.ParseIcebergSchema(d.Schema)
	if err != nil {
		return err
	}
	out := newColumns(w)
	out.row("table", d.Name)
	out.row("format", d.Format)
	out.row("key", strings.Join(d.Key, ", "))
	if len(d.Partition) > 0 {
		out.row("partition", strings.Join(d.Partition, "; "))
	}
	out.row("rows", orDash(d.Rows, int64Text))
	for _, p := range []struct {
		name, where string
		seq         *changelog.SeqNum
	}{{"applied", " (log)", d.Applied}, {"flushed", " (change store)", d.Flushed}, {"optimized", " (base store)", d.Optimized}, {"oldest", " (in the log)", d.Oldest}} {
		out.row(p.name, orDash(p.seq, func(n changelog.SeqNum) string { return seqText(n) + p.where }))
	}
	out.row("lag", orDash(d.LagSeconds, lagText))
	out.row("watermark", watermarkText(d.Stores))
	if d.Rebuilding {
		out.row("rebuilding", "rows are being rebuilt from the lake")
	}
	if err := out.flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(w) // the tables below report errors
	out = newColumns(w, "ID", "COLUMN", "TYPE", "")
	for _, c := range schema.Columns {
		out.row(strconv.Itoa(c.ID), c.Name, c.Type.String(), keyText(schema, c))
	}
	if err := out.flush(); err != nil {
		return err
	}
	if len(d.Sources) > 0 {
		_, _ = fmt.Fprintln(w)
		out = newColumns(w, "SOURCE", "TOPIC", "PARTITION", "NEXT", "END", "LAG")
		for _, p := range d.Sources {
			out.row(p.Source, p.Topic, int64Text(p.Partition), int64Text(p.Next), known(p.End), known(p.Lag))
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	if len(d.Stores) == 0 {
		return nil
	}
	_, _ = fmt.Fprintln(w)
	out = newColumns(w, "STORE", "KIND", "FILES", "ROWS", "BYTES", "SNAPSHOT")
	for _, name := range slices.Sorted(maps.Keys(d.Stores)) {
		s := d.Stores[name]
		if len(s.Files) == 0 {
			out.row(name, "-", "0", "0", "0 B", int64Text(s.Snapshot))
		}
		for _, kind := range slices.Sorted(maps.Keys(s.Files)) {
			c := s.Files[kind]
			out.row(name, kind, int64Text(c.Files), int64Text(c.Records), bytesText(c.Bytes), int64Text(s.Snapshot))
		}
	}
	return out.flush()
}

// watermarkText shows up to which source time the stores have all rows.
func watermarkText(stores map[string]httpapi.StoreStatus) string {
	var texts []string
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(stores))) { // change, base
		if ms := stores[name].WatermarkMS; ms > 0 {
			texts = append(texts, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")+" ("+name+" store)")
		}
	}
	if texts == nil {
		return "-"
	}
	return strings.Join(texts, ", ")
}

func keyText(s *changelog.Schema, c changelog.Column) string {
	if i := slices.Index(s.Key, c.ID); i >= 0 {
		return "key " + strconv.Itoa(i+1)
	}
	return ""
}

// known shows a number that is -1 where it is not known.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return int64Text(n)
}

func newTableFilesCmd(e *env) *cobra.Command {
	var f lakeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "files TABLE",
		Short: "List the live files of a table's stores",
		Long: `Files reads the lake: that of the running server, or of -c or --catalog-uri. MERGED change files are in the base store already and wait for
their expiry.`,
		Example: `  firn table files shop.orders -c firn.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			return f.withTable(cmd.Context(), args[0], func(t *table.Table) error { return listFiles(cmd.Context(), e.Stdout, t, asJSON) })
		}),
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON, "one JSON line a file")
	return cmd
}

// fileLine is a file in `table files --json`.
type fileLine struct {
	Store     string           `json:"store"`
	Kind      string           `json:"kind"`
	Path      string           `json:"path"`
	Records   int64            `json:"records"`
	Bytes     int64            `json:"bytes"`
	Sequence  int64            `json:"sequence"`
	Node      int64            `json:"node"`
	SeqFrom   changelog.SeqNum `json:"seq_from,omitempty"` // the smallest _file_offset
	SeqTo     changelog.SeqNum `json:"seq_to,omitempty"`
	Partition string           `json:"partition,omitempty"`
	Merged    bool             `json:"merged,omitempty"`
}

func listFiles(ctx context.Context, w io.Writer, t *table.Table, asJSON bool) error {
	out := newColumns(w, "STORE", "KIND", "ROWS", "BYTES", "SEQUENCE", "NODE", "CHANGES", "MERGED", "FILE")
	lines := json.NewEncoder(w)
	for _, store := range t.Stores() {
		files, err := store.Files(ctx)
		if err != nil {
			return err
		}
		for _, f := range files {
			line := fileLine{
				Store: store.Kind(), Kind: fileKind(f), Path: f.Path, Records: f.Records, Bytes: f.Bytes, Sequence: f.DataSequence,
				Node: f.Info.Node.ID(), Partition: f.Partition,
				SeqFrom: changelog.SeqNum(max(f.FirstOffset, 0)), SeqTo: changelog.SeqNum(max(f.LastOffset, 0)), //nolint:gosec // not negative
				Merged: store.Kind() == mixed.StoreChange && t.Merged(f),
			}
			if asJSON {
				if err := lines.Encode(line); err != nil {
					return err
				}
				continue
			}
			changes, merged := "-", ""
			if line.SeqTo > 0 {
				changes = seqText(line.SeqFrom) + "-" + seqText(line.SeqTo)
			}
			if line.Merged {
				merged = "yes"
			}
			name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
			if f.Partition != "" {
				name = f.Partition + "/" + name
			}
			out.row(line.Store, line.Kind, int64Text(f.Records), bytesText(f.Bytes), int64Text(f.DataSequence), int64Text(line.Node),
				changes, merged, name)
		}
	}
	if asJSON {
		return nil
	}
	return out.flush()
}

func newTableSnapshotsCmd(e *env) *cobra.Command {
	var f lakeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "snapshots TABLE",
		Short:   "List the snapshots of a table's stores",
		Long:    "Snapshots reads the lake: that of the running server, or of -c or --catalog-uri.",
		Example: `  firn table snapshots shop.orders -c firn.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			return f.withTable(cmd.Context(), args[0], func(t *table.Table) error { return listSnapshots(e.Stdout, t, asJSON) })
		}),
	}
	f.add(cmd)
	jsonFlag(cmd, &asJSON, "one JSON line a snapshot")
	return cmd
}

func listSnapshots(w io.Writer, t *table.Table, asJSON bool) error {
	out := newColumns(w, "STORE", "SEQUENCE", "SNAPSHOT", "TIME", "OPERATION", "CHANGES", "COMMIT")
	lines := json.NewEncoder(w)
	for _, store := range t.Stores() {
		for _, sn := range store.Snapshots() {
			if asJSON {
				if err := lines.Encode(map[string]any{
					"store": store.Kind(), "snapshot": sn.ID, "sequence": sn.Sequence, "parent": sn.Parent, "time_ms": sn.TimeMS,
					"operation": sn.Operation, "summary": sn.Summary,
				}); err != nil {
					return err
				}
				continue
			}
			changes := ""
			if to := sn.Summary[table.PropSeqTo]; to != "" {
				changes = sn.Summary[table.PropSeqFrom] + "-" + to
			}
			out.row(store.Kind(), int64Text(sn.Sequence), int64Text(sn.ID), time.UnixMilli(sn.TimeMS).UTC().Format(time.RFC3339),
				sn.Operation, changes, sn.Summary[table.PropCommitID])
		}
	}
	if asJSON {
		return nil
	}
	return out.flush()
}
