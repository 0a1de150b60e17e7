package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"firn/optimizer"
)

// optimizeTask is what a task of a round came to, or in a dry run would.
type optimizeTask struct {
	Type         string  `json:"type"`
	Action       string  `json:"action"`
	Partition    string  `json:"partition,omitempty"`
	Reason       string  `json:"reason"`
	Snapshot     int64   `json:"snapshot,omitempty"`
	RowsRead     int64   `json:"rows_read"`
	RowsWritten  int64   `json:"rows_written"`
	RowsDeleted  int64   `json:"rows_deleted"`
	BytesRead    int64   `json:"bytes_read"`
	BytesWritten int64   `json:"bytes_written"`
	FilesAdded   int     `json:"files_added"`
	FilesRemoved int     `json:"files_removed"`
	Seconds      float64 `json:"seconds"`
}

// optimizeReport is a round.
type optimizeReport struct {
	Table  string         `json:"table"`
	DryRun bool           `json:"dry_run"`
	Tasks  []optimizeTask `json:"tasks"`
	Notes  []string       `json:"notes,omitempty"`
}

// optimize runs one round of a type now; an empty type is a minor round and then a major one.
func optimize(ctx context.Context, o *optimizer.Optimizer, name, kind string, dryRun bool) (optimizeReport, error) {
	out := optimizeReport{Table: name, DryRun: dryRun, Tasks: []optimizeTask{}}
	types := []optimizer.Type{optimizer.Minor, optimizer.Major}
	if kind != "" {
		t, err := optimizer.ParseType(kind)
		if err != nil {
			return out, err
		}
		types = []optimizer.Type{t}
	}
	for _, t := range types {
		r, err := o.Once(ctx, name, t, dryRun)
		for _, d := range r.Done {
			out.Tasks = append(out.Tasks, optimizeTask{
				Type: d.Task.Type.String(), Action: d.Task.Action.String(), Partition: d.Task.Partition, Reason: d.Task.Reason,
				Snapshot: d.Snapshot, RowsRead: d.RowsRead, RowsWritten: d.RowsWritten, RowsDeleted: d.RowsDeleted,
				BytesRead: d.BytesRead, BytesWritten: d.BytesWritten, FilesAdded: d.FilesAdded, FilesRemoved: d.FilesRemoved,
				Seconds: d.Took.Seconds(),
			})
		}
		out.Notes = append(out.Notes, r.Notes...)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func newOptimizeCmd(e *env) *cobra.Command {
	var lake lakeFlags
	var kind string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "optimize TABLE",
		Short: "Run one round of optimizing now, or print its plan",
		Long: `Optimize merges a table's change files into its base files (minor), small and much deleted base files into large ones
(major), or rewrites all of them (full). Without --type it does minor, then major. A running server does it, after a flush; with
-c or --catalog-uri the lake is worked on directly: a server may run on it meanwhile, its own round is then planned again.`,
		Example: "  firn optimize shop.orders --type major --dry-run",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if kind != "" {
				if _, err := optimizer.ParseType(kind); err != nil {
					return usageError("--type: %w", err)
				}
			}
			var r optimizeReport
			var err error
			if lake.hasLake() {
				r, err = optimizeLake(cmd.Context(), lake, args[0], kind, dryRun)
			} else {
				r, err = optimizeServer(cmd.Context(), lake.server, args[0], kind, dryRun)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(r)
			}
			return r.print(e.Stdout)
		}),
	}
	lake.add(cmd)
	jsonFlag(cmd, &asJSON, "one JSON object")
	cmd.Flags().StringVar(&kind, "type", "", "minor, major or full")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only print what would be done first, and why")
	return cmd
}

func optimizeServer(ctx context.Context, server, name, kind string, dryRun bool) (r optimizeReport, err error) {
	c, err := newClient(server)
	if err != nil {
		return r, err
	}
	q := url.Values{}
	if kind != "" {
		q.Set("type", kind)
	}
	if dryRun {
		q.Set("dry_run", "true")
	}
	err = c.callJSON(ctx, http.MethodPost, tablePath(name, "/optimize", q), &r)
	return r, err
}

func optimizeLake(ctx context.Context, lake lakeFlags, name, kind string, dryRun bool) (r optimizeReport, err error) {
	cfg := defaultConfig()
	if lake.config != "" {
		if cfg, err = loadConfig(lake.config); err != nil {
			return r, &exitError{exitOpen, err}
		}
	}
	s, err := lake.open(ctx, true, false)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	o, err := optimizer.New(s.catalog, nil, optimizer.Options{Rules: cfg.Table(name).rules()})
	if err != nil {
		return r, err
	}
	return optimize(ctx, o, name, kind, dryRun)
}

func (r optimizeReport) print(w io.Writer) error {
	var b strings.Builder
	verb := "did"
	if r.DryRun {
		verb = "would do"
	}
	for _, t := range r.Tasks {
		fmt.Fprintf(&b, "%s %s %s: %s\n", verb, t.Type, t.Action, t.Reason)
		if !r.DryRun {
			fmt.Fprintf(&b, "    %d rows read, %d written, %d deleted by position; %d files added, %d removed; %.2f s\n",
				t.RowsRead, t.RowsWritten, t.RowsDeleted, t.FilesAdded, t.FilesRemoved, t.Seconds)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	if len(r.Tasks) == 0 {
		b.WriteString("nothing to do\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
