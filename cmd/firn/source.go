package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"firn/logstore/httpapi"
)

func newSourceCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "source",
		Short: "Show, pause, resume and reset sources",
		Example: `  firn source list
  firn source show shop
  firn source pause shop
  firn source resume shop
  firn source reset shop --topic shop.public.orders --to earliest`,
	}
	cmd.AddCommand(newSourceListCmd(e), newSourceShowCmd(e), newSourceSetCmd(e, "pause", "Stop polling a source; what is read already is applied"),
		newSourceSetCmd(e, "resume", "Poll a paused source again, and what of it has stopped"),
		newSourceResetCmd(e))
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

func newSourceResetCmd(e *env) *cobra.Command {
	var server, topic, to string
	var partition int
	var asJSON, dryRun bool
	cmd := &cobra.Command{
		Use:   "reset NAME",
		Short: "Read a source on from other offsets: tells what that means, then does it",
		Example: `  firn source reset shop --to earliest --dry-run
  firn source reset shop --topic shop.public.orders --partition 0 --to 4711`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			c, err := newClient(server)
			if err != nil {
				return usageError("source reset: %w", err)
			}
			query := url.Values{"to": {to}}
			if topic != "" {
				query.Set("topic", topic)
			}
			if cmd.Flags().Changed("partition") {
				query.Set("partition", strconv.Itoa(partition))
			}
			reset := func(dry bool) (done resetAnswer, err error) {
				query.Set("dry_run", strconv.FormatBool(dry))
				return done, c.callJSON(cmd.Context(), "POST", "/v1/sources/"+url.PathEscape(args[0])+":reset?"+query.Encode(), &done)
			}
			plan, err := reset(true)
			if err != nil {
				return err
			}
			if !asJSON {
				if err := plan.show(e); err != nil {
					return err
				}
			}
			if !dryRun {
				if plan, err = reset(false); err != nil {
					return err
				}
			}
			switch {
			case asJSON:
				return json.NewEncoder(e.Stdout).Encode(plan)
			case dryRun:
				_, err = fmt.Fprintln(e.Stdout, "nothing is changed: --dry-run")
			default:
				_, err = fmt.Fprintf(e.Stdout, "%s is reset\n", args[0])
			}
			return err
		}),
	}
	serverFlag(cmd, &server)
	cmd.Flags().StringVar(&to, "to", "", "earliest, latest, or an offset of --topic and --partition")
	cmd.Flags().StringVar(&topic, "topic", "", "only this topic")
	cmd.Flags().IntVar(&partition, "partition", 0, "only this partition")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell what it would do")
	_ = cmd.MarkFlagRequired("to") // it is there
	jsonFlag(cmd, &asJSON, `one object {"source","dry_run","partitions":[…]}`)
	return cmd
}

// resetAnswer is the answer of POST /v1/sources/{source}:reset.
type resetAnswer struct {
	Source     string              `json:"source"`
	DryRun     bool                `json:"dry_run"`
	Partitions []httpapi.ResetStep `json:"partitions"`
}

func (a *resetAnswer) show(e *env) error {
	out := newColumns(e.Stdout, "TOPIC", "PARTITION", "FROM", "TO", "EFFECT")
	for _, p := range a.Partitions {
		out.row(p.Topic, int64Text(p.Partition), known(p.From), int64Text(p.To), p.Effect)
	}
	return out.flush()
}
