package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/flush"
	"firn/state"
)

// releaseReport is what a release did.
type releaseReport struct {
	Table   string           `json:"table"`
	Seq     changelog.SeqNum `json:"seq"` // the last change, which is in the lake
	Flushed changelog.SeqNum `json:"flushed"`
	Topics  []state.TopicRef `json:"topics"`
	Already bool             `json:"already"`
}

func newTableReleaseCmd(e *env) *cobra.Command {
	var config string
	var discard, asJSON bool
	cmd := &cobra.Command{
		Use:   "release TABLE",
		Short: "Give a table back to Amoro and forget it here",
		Long: `Release ends firn's writing to a table, adopted or made by firn. It flushes what the log has and the lake has not, moves the table's epoch so
that no other firn process writes to it any more, takes the marks out of the lake by which a firn would go on, gives self-optimizing.enabled
the value that it had before the adoption, and drops the table from the data directory: its log, lookups and position index. Base and change store
stay as they are, merged or not: Amoro goes on from there.

No server may run on the data directory. Parked records of the table are in the data directory only: with such, release refuses, unless
--discard-parked says that they may go. Take the table's topics out of the configuration before firn starts again: it would read them on, and
stop the table, because the lake's is another writer's now.

After a crash, run it again. Where it has been done already it does nothing.`,
		Example: "  firn table release shop.orders -c firn.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return withParts(cmd.Context(), config, func(p *parts) error {
				r, err := p.release(cmd.Context(), args[0], discard)
				if err != nil {
					return lakeError(err)
				}
				if asJSON {
					return json.NewEncoder(e.Stdout).Encode(r)
				}
				return r.print(e.Stdout)
			})
		}),
	}
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file: its data directory has the table")
	cmd.Flags().BoolVar(&discard, "discard-parked", false, "drop the table's parked records, too")
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

func (r releaseReport) print(w io.Writer) error {
	var b strings.Builder
	if r.Already {
		fmt.Fprintf(&b, "%s was released before, at change %d\n", r.Table, r.Seq)
	} else {
		fmt.Fprintf(&b, "released %s at change %d; %d changes were flushed for it\n", r.Table, r.Seq, r.Flushed)
	}
	for _, t := range r.Topics {
		fmt.Fprintf(&b, "topic %s of source %s fed it: take it out of the configuration, or route it to another table\n", t.Topic, t.Source)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// release gives a table back. The lake comes first: after a crash the entry in the registry is still there for the next run.
func (p *parts) release(ctx context.Context, name string, discard bool) (r releaseReport, err error) {
	r.Table = name
	defer func() {
		if err != nil {
			err = fmt.Errorf("release %s: %w", name, err)
		}
	}()
	t, err := p.catalog.Load(ctx, name)
	if err != nil {
		return r, err
	}
	entry, known := p.registry.Table(name)
	at, gone, err := t.Released()
	switch {
	case err != nil:
		return r, err
	case gone && !known:
		r.Already, r.Seq = true, at
		return r, nil
	case !known:
		return r, &exitError{exitNo, errors.New("this data directory does not have the table: release it with the configuration of the firn that writes it")}
	}
	r.Topics = entry.Topics
	if err := p.noParked(ctx, entry, discard); err != nil {
		return r, err
	}
	if !gone {
		if at, r.Flushed, err = p.flushAll(ctx, entry); err != nil {
			return r, err
		}
		if t, err = t.Reload(ctx); err != nil {
			return r, err
		}
		if err := t.Release(ctx, at); err != nil {
			return r, err
		}
	}
	r.Seq = at
	return r, p.store.Drop(ctx, entry.ID)
}

// noParked refuses to lose parked records (P6).
func (p *parts) noParked(ctx context.Context, entry *state.Table, discard bool) error {
	if discard {
		return nil
	}
	for record, err := range p.store.ParkedList(ctx, entry.ID, 0) {
		if err != nil {
			return err
		}
		return &exitError{exitNo, fmt.Errorf("it has parked records, the first is %d (%s): see firn parked list, and say --discard-parked if they may go",
			record.ID, record.Reason)}
	}
	return nil
}

// flushAll brings all that the log has into the lake. Errors: those of a flush; an adoption that was cut short has nothing to release.
func (p *parts) flushAll(ctx context.Context, entry *state.Table) (at, flushed changelog.SeqNum, err error) {
	before, err := p.registry.Progress(entry.ID)
	if err != nil {
		return 0, 0, err
	}
	if before.Rebuilding {
		return 0, 0, errors.New("its adoption or restoration was cut short: complete it (firn table adopt, or start firn), then release")
	}
	set, err := flush.New(p.store, p.registry, p.catalog, flush.Options{Logger: p.log})
	if err != nil {
		return 0, 0, err
	}
	f, err := set.Flusher(entry.ID)
	if err != nil {
		return 0, 0, err
	}
	_, applied, err := p.store.Bounds(entry.ID)
	if err != nil {
		return 0, 0, err
	}
	for {
		at, err = f.Flush(ctx)
		if err != nil || at >= applied {
			return at, at - before.Flushed, err
		}
	}
}
