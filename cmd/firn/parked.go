package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"firn/logstore/httpapi"
)

// parkedLine is a line of GET /v1/parked.
type parkedLine struct {
	ID        uint64          `json:"id"`
	Table     *string         `json:"table"`
	Source    string          `json:"source"`
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Reason    string          `json:"reason"`
	Detail    string          `json:"detail"`
	Applied   bool            `json:"applied"`
	Key       json.RawMessage `json:"key"`
	Time      string          `json:"time"`
}

func newParkedCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parked",
		Short: "Show, edit, skip and replay records that could not be applied",
		Long: `A record that firn cannot apply, or only with a value reduced or nulled, is kept as it was received, with the reason. Later records
of its key queue behind it (on_parked: queue), and all others go on. Replay decodes what is parked again, as the configuration is now, and
applies a queue in order; edit puts another key, value or headers in its place first; skip gives a record up.`,
		Example: `  firn parked list shop.orders
  firn parked show 17
  firn parked edit 17 --value fixed.json && firn parked replay 17
  firn parked skip 17`,
	}
	cmd.AddCommand(newParkedListCmd(e), newParkedShowCmd(e), newParkedEditCmd(e), newParkedSkipCmd(e), newParkedReplayCmd(e))
	return cmd
}

func newParkedListCmd(e *env) *cobra.Command {
	var server string
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:     "list [TABLE]",
		Short:   "List parked records, of one table or of all and of none",
		Example: `  firn parked list --json | jq -r .reason | sort | uniq -c`,
		Args:    cobra.MaximumNArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError("parked list: --limit %d is negative (0: all)", limit)
			}
			c, err := newClient(server)
			if err != nil {
				return usageError("parked list: %w", err)
			}
			q := url.Values{}
			if len(args) == 1 {
				q.Set("table", args[0])
			}
			if limit > 0 {
				q.Set("limit", strconv.Itoa(limit))
			}
			out := newColumns(e.Stdout, "ID", "TABLE", "WHERE", "REASON", "APPLIED", "KEY", "TIME", "DETAIL")
			raw := bufio.NewWriter(e.Stdout)
			listed := 0
			err = c.lines(cmd.Context(), "/v1/parked?"+q.Encode(), lineReader{visit: func(line []byte) error {
				listed++
				if asJSON {
					_, _ = raw.Write(line) // bufio keeps the error for Flush
					return raw.WriteByte('\n')
				}
				var p parkedLine
				if err := json.Unmarshal(line, &p); err != nil {
					return fmt.Errorf("parked record: %w", err)
				}
				where := fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset)
				out.row(strconv.FormatUint(p.ID, 10), orDash(p.Table, func(s string) string { return s }), where, p.Reason,
					map[bool]string{true: "in part", false: "no"}[p.Applied], string(p.Key), p.Time, p.Detail)
				return nil
			}})
			if asJSON {
				return errors.Join(err, raw.Flush())
			}
			if err != nil && listed == 0 { // no header over nothing
				return err
			}
			return errors.Join(err, out.flush())
		}),
	}
	serverFlag(cmd, &server)
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many (0: all)")
	jsonFlag(cmd, &asJSON, "one JSON line a record")
	return cmd
}

// parkedRecord is the answer to GET /v1/parked/{id}.
type parkedRecord struct {
	parkedLine

	Timestamp   string         `json:"timestamp"`
	RecordKey   *payload       `json:"record_key"`
	RecordValue *payload       `json:"record_value"`
	Headers     []parkedHeader `json:"headers"`
	Cut         *struct {
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	} `json:"cut"`
	Edit *struct {
		By          string         `json:"by"`
		Time        string         `json:"time"`
		RecordKey   *payload       `json:"record_key"`
		RecordValue *payload       `json:"record_value"`
		Headers     []parkedHeader `json:"headers"`
	} `json:"edit"`
}

type parkedHeader struct {
	Key   string   `json:"key"`
	Value *payload `json:"value"`
}

// payload is bytes in JSON.
type payload struct {
	Text   *string `json:"text,omitempty"`
	Base64 string  `json:"base64,omitempty"`
}

func (p *payload) String() string {
	switch {
	case p == nil:
		return "(none)"
	case p.Text != nil:
		return *p.Text
	}
	return "base64:" + p.Base64
}

func newParkedShowCmd(e *env) *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a parked record as it was received, the rule it has broken, and how far it can be read",
		Example: `  firn parked show 17 --json | jq -r .record_value.text`,
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("parked show: %w", err)
			}
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return usageError("parked show: %q is no id", args[0])
			}
			var raw json.RawMessage
			if err := c.getJSON(cmd.Context(), "/v1/parked/"+args[0], &raw); err != nil {
				return err
			}
			if asJSON {
				_, err := fmt.Fprintf(e.Stdout, "%s\n", raw)
				return err
			}
			var p parkedRecord
			if err := json.Unmarshal(raw, &p); err != nil {
				return fmt.Errorf("parked record: %w", err)
			}
			out := newColumns(e.Stdout)
			out.row("id", strconv.FormatUint(p.ID, 10))
			out.row("table", orDash(p.Table, func(s string) string { return s }))
			out.row("source", p.Source)
			out.row("where", fmt.Sprintf("%s/%d/%d", p.Topic, p.Partition, p.Offset))
			out.row("reason", p.Reason)
			out.row("detail", p.Detail)
			out.row("applied", map[bool]string{true: "with a value reduced or nulled", false: "no"}[p.Applied])
			out.row("key", string(p.Key))
			out.row("parked", p.Time)
			out.row("record time", p.Timestamp)
			out.row("record key", p.RecordKey.String())
			for _, h := range p.Headers {
				out.row("header "+h.Key, h.Value.String())
			}
			out.row("record value", p.RecordValue.String())
			if p.Cut != nil {
				out.row("cut", fmt.Sprintf("this is the beginning of %d bytes, SHA-256 %s", p.Cut.Bytes, p.Cut.SHA256))
			}
			if ed := p.Edit; ed != nil {
				out.row("edited", ed.Time+" by "+ed.By)
				out.row("edited key", ed.RecordKey.String())
				for _, h := range ed.Headers {
					out.row("edited header "+h.Key, h.Value.String())
				}
				out.row("edited value", ed.RecordValue.String())
			}
			if err := c.explain(cmd.Context(), args[0], out); err != nil {
				return err
			}
			return out.flush()
		}),
	}
	serverFlag(cmd, &server)
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

// explain adds rows that tell why a record is parked. A server that reads no sources cannot tell.
func (c *client) explain(ctx context.Context, id string, out *columns) error {
	var x httpapi.ParkedExplanation
	err := c.getJSON(ctx, "/v1/parked/"+id+"/explain", &x)
	if p, ok := errors.AsType[*problemError](err); ok && p.Type == "not-available" {
		return nil
	}
	if err != nil {
		return err
	}
	out.row("rule", x.Rule)
	switch {
	case x.Queue:
		out.row("replay", "with the others of its key, in order")
	case x.Superseded:
		out.row("replay", "refused: a later change of its key was applied")
	}
	if x.Now != "" {
		out.row("decoded now", x.Now+": "+x.NowDetail)
	} else {
		out.row("decoded now", "yes")
	}
	for _, part := range []struct {
		name string
		r    httpapi.ParkedReading
	}{{"key", x.Key}, {"value", x.Value}} {
		if part.r.Error != "" {
			out.row(part.name+" is JSON", fmt.Sprintf("up to byte %d, at %q: %s", part.r.Bytes, part.r.Path, part.r.Error))
		}
	}
	return nil
}
