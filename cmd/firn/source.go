package main

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"firn/logstore/httpapi"
)

func newSourceCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "source",
		Short: "Show, pause and resume sources",
		Example: `  firn source list
  firn source show shop
  firn source pause shop
  firn source resume shop`,
	}
	cmd.AddCommand(newSourceListCmd(e), newSourceShowCmd(e), newSourceSetCmd(e, "pause", "Stop polling a source; what is read already is applied"),
		newSourceSetCmd(e, "resume", "Poll a paused source again, and what of it has stopped"))
	return cmd
}

func newSourceListCmd(e *env) *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List sources with position, end and lag of each partition",
		Example: `  firn source list --json`,
		Args:    cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("source list: %w", err)
			}
			var list struct {
				Sources []httpapi.SourceStatus `json:"sources"`
			}
			if err := c.getJSON(cmd.Context(), "/v1/sources", &list); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(list)
			}
			out := newColumns(e.Stdout, "SOURCE", "KIND", "STATE", "TOPIC", "PARTITION", "NEXT", "END", "LAG")
			for _, s := range list.Sources {
				state := s.State
				if s.Error != "" {
					state += ": " + s.Error
				}
				if len(s.Partitions) == 0 {
					out.row(s.Name, s.Kind, state, "-", "-", "-", "-", "-")
				}
				for _, p := range s.Partitions {
					state := state
					if p.Waiting != "" {
						state += ": " + p.Waiting
					}
					out.row(s.Name, s.Kind, state, p.Topic, int64Text(p.Partition), int64Text(p.Next), known(p.End), known(p.Lag))
				}
			}
			return out.flush()
		}),
	}
	serverFlag(cmd, &server)
	jsonFlag(cmd, &asJSON, `one object {"sources":[…]}`)
	return cmd
}

func newSourceSetCmd(e *env, verb, short string) *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Example: "  firn source " + verb + " shop",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("source %s: %w", verb, err)
			}
			var s httpapi.SourceStatus
			if err := c.callJSON(cmd.Context(), "POST", "/v1/sources/"+url.PathEscape(args[0])+":"+verb, &s); err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(s)
			}
			_, err = fmt.Fprintf(e.Stdout, "%s is %s\n", s.Name, s.State)
			return err
		}),
	}
	serverFlag(cmd, &server)
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}
