package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"firn/logstore/httpapi"
)

// maxEdit bounds what an edit reads: a server takes bodies of 8 MiB, and base64 needs a third more.
const maxEdit = 6 << 20

func newParkedEditCmd(e *env) *cobra.Command {
	var server, keyFile, valueFile, by string
	var headers []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "edit ID",
		Short: "Put a key, a value or headers in place of a parked record's",
		Long: `What a replay reads is changed; the record as it was received is kept beside it, with who edited it and when. Files hold the bytes as a
source would send them; - is standard input. The key of a record that others queue behind cannot become another one.`,
		Example: `  firn parked show 17 --json | jq -r .record_value.text | sed 's/"v":"7x"/"v":7/' | firn parked edit 17 --value -`,
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("parked edit: %w", err)
			}
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return usageError("parked edit: %q is no id", args[0])
			}
			edit, err := parkedEdit(e, cmd, keyFile, valueFile, headers)
			if err != nil {
				return err
			}
			if edit["by"] = by; by == "" {
				edit["by"] = userName()
			}
			var raw json.RawMessage
			if err := c.postJSON(cmd.Context(), "/v1/parked/"+args[0]+":edit", edit, &raw); err != nil {
				return err
			}
			if asJSON {
				_, err = fmt.Fprintf(e.Stdout, "%s\n", raw)
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "record %[1]s is edited: firn parked replay %[1]s applies it\n", args[0])
			return err
		}),
	}
	serverFlag(cmd, &server)
	cmd.Flags().StringVar(&keyFile, "key", "", "file with the record's key")
	cmd.Flags().StringVar(&valueFile, "value", "", "file with the record's value")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "NAME=VALUE, of all headers; repeat it; --header= alone: none")
	cmd.Flags().StringVar(&by, "by", "", "who edits (default the user's name)")
	jsonFlag(cmd, &asJSON, "the record as one JSON object")
	return cmd
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// parkedEdit makes the body of an edit.
func parkedEdit(e *env, cmd *cobra.Command, keyFile, valueFile string, headers []string) (map[string]any, error) {
	edit := map[string]any{}
	if keyFile == "-" && valueFile == "-" {
		return nil, usageError("parked edit: standard input cannot be both key and value")
	}
	for name, file := range map[string]string{"record_key": keyFile, "record_value": valueFile} {
		if file == "" {
			continue
		}
		b, err := readEdit(e, file)
		if err != nil {
			return nil, err
		}
		edit[name] = payloadJSON(b)
	}
	if cmd.Flags().Changed("header") {
		all := []map[string]any{}
		for _, h := range headers {
			name, value, ok := strings.Cut(h, "=")
			if !ok && h != "" {
				return nil, usageError("parked edit: --header %q: want NAME=VALUE", h)
			}
			if h != "" {
				all = append(all, map[string]any{"key": name, "value": payloadJSON([]byte(value))})
			}
		}
		edit["headers"] = all
	}
	if len(edit) == 0 {
		return nil, usageError("parked edit: what is to be changed? Give --key, --value or --header")
	}
	return edit, nil
}

func readEdit(e *env, file string) (b []byte, err error) {
	in := e.Stdin
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, &exitError{exitOpen, fmt.Errorf("parked edit: %w", err)}
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = f
	}
	if b, err = io.ReadAll(io.LimitReader(in, maxEdit+1)); err != nil {
		return nil, &exitError{exitOpen, fmt.Errorf("parked edit: read %s: %w", file, err)}
	}
	if len(b) > maxEdit {
		return nil, usageError("parked edit: %s has more than %d bytes", file, maxEdit)
	}
	return b, nil
}

func payloadJSON(b []byte) map[string]string {
	if utf8.Valid(b) {
		return map[string]string{"text": string(b)}
	}
	return map[string]string{"base64": base64.StdEncoding.EncodeToString(b)}
}

func newParkedSkipCmd(e *env) *cobra.Command {
	var server string
	var asJSON, queue bool
	cmd := &cobra.Command{
		Use:   "skip ID",
		Short: "Give a parked record up, and replay what queues behind it",
		Long: `The record is removed. What queues behind it is replayed in order; as long as no event with a whole row, or a delete, has come, events of the
key that leave values out stay parked (key_stale): the stored row is older than what was given up. A report of a change that was applied in
part is removed by skip, too.`,
		Example: "  firn parked skip 17",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return usageError("parked skip: %q is no id", args[0])
			}
			return e.repair(cmd.Context(), server, "/v1/parked/"+args[0]+":skip?queue="+strconv.FormatBool(queue), asJSON)
		}),
	}
	serverFlag(cmd, &server)
	cmd.Flags().BoolVar(&queue, "queue", false, "give up what queues behind it, too")
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

func newParkedReplayCmd(e *env) *cobra.Command {
	var server string
	var asJSON, force bool
	cmd := &cobra.Command{
		Use:   "replay TABLE|ID",
		Short: "Decode parked records again and apply them in order",
		Long: `With an ID: the record's key is replayed from the first record of its queue to the first that fails again. With a table: every queue of the
table, and the parked records of a table without a key. A record that nothing queues behind, of a key whose later events are applied, would
undo those: --force applies it as the newest change of its key. The changes keep the positions that their records had in the source.
Exit status 1: some record is still parked.`,
		Example: `  firn parked replay shop.orders
  firn parked replay 17`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			path := "/v1/parked/" + args[0] + ":replay?force=" + strconv.FormatBool(force)
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				if force {
					return usageError("parked replay: --force is for one record: give its id, not a table")
				}
				path = "/v1/parked:replay?table=" + url.QueryEscape(args[0])
			}
			return e.repair(cmd.Context(), server, path, asJSON)
		}),
	}
	serverFlag(cmd, &server)
	cmd.Flags().BoolVar(&force, "force", false, "apply a record though later ones of its key may be applied, or build on a row that is older than a skipped event")
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

// repair posts a request and shows what became of records.
func (e *env) repair(ctx context.Context, server, path string, asJSON bool) error {
	c, err := newClient(server)
	if err != nil {
		return usageError("parked: %w", err)
	}
	var out httpapi.RepairOutcome
	if err := c.callJSON(ctx, "POST", path, &out); err != nil {
		return err
	}
	if asJSON {
		err = json.NewEncoder(e.Stdout).Encode(out)
	} else {
		_, err = fmt.Fprintf(e.Stdout, "applied %d, skipped %d, still parked %d\n", out.Applied, out.Skipped, out.Failed)
		for _, f := range out.Failures {
			_, werr := fmt.Fprintf(e.Stdout, "  %d: %s: %s\n", f.ID, f.Reason, f.Detail)
			err = errors.Join(err, werr)
		}
	}
	if err == nil && out.Failed > 0 {
		return &exitError{exitNo, fmt.Errorf("%d records are still parked", out.Failed)}
	}
	return err
}
