package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"firn/changelog"
)

type tailFlags struct {
	server   string
	from     string
	noFollow bool
	limit    int
	columns  []string
}

func newTailCmd(e *env) *cobra.Command {
	var f tailFlags
	cmd := &cobra.Command{
		Use:   "tail TABLE",
		Short: "Follow a table's change feed, one JSON line a change",
		Long: `Tail prints changes as a running server has them: seq, op (c create, u update, d delete, r read), key, before, after, source.
Lines without op say what is no change: {"truncate":N} after the deletes of a truncate, {"snapshot":"complete",…} after the rows
of --from snapshot. A connection that breaks is made again, and the feed goes on where it was.`,
		Example: `  firn tail shop.orders
  firn tail shop.orders --from snapshot --columns id,status
  firn tail shop.orders --from earliest --no-follow | jq -c 'select(.op=="d").key'`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			if f.limit < 0 {
				return usageError("tail: --limit %d is negative (0: no limit)", f.limit)
			}
			c, err := newClient(f.server)
			if err != nil {
				return usageError("tail: %w", err)
			}
			err = e.tail(cmd.Context(), c, args[0], f)
			if errors.Is(err, context.Canceled) {
				return nil // the user has seen enough
			}
			return err
		}),
	}
	serverFlag(cmd, &f.server)
	cmd.Flags().StringVar(&f.from, "from", "latest", "earliest, latest, snapshot, a SeqNum (changes after it) or a time such as 2026-01-31T01:02:03Z")
	cmd.Flags().BoolVar(&f.noFollow, "no-follow", false, "end at the newest change")
	cmd.Flags().IntVar(&f.limit, "limit", 0, "end after so many changes and snapshot rows (0: no limit)")
	cmd.Flags().StringSliceVar(&f.columns, "columns", nil, "only these columns of before and after")
	return cmd
}

// tail prints the feed. After a break it goes on where it was, as soon as the server is back.
func (e *env) tail(ctx context.Context, c *client, table string, f tailFlags) error {
	feed := tailFeed{c: c, table: table, f: f, out: bufio.NewWriterSize(e.Stdout, 64<<10), from: f.from, left: f.limit}
	if _, err := strconv.ParseUint(f.from, 10, 64); err == nil {
		feed.from = "seq:" + f.from
	}
	for failed := 0; ; failed++ {
		before := feed.printed
		err := feed.read(ctx)
		if ferr := feed.out.Flush(); ferr != nil {
			return ferr
		}
		if feed.printed > before {
			failed = 0
		}
		p, told := errors.AsType[*problemError](err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && (f.noFollow || f.limit > 0 && feed.left <= 0):
			return nil
		case err != nil && (!feed.opened || f.noFollow), told && p.Status != http.StatusServiceUnavailable:
			return err
		case feed.inSnapshot:
			return &exitError{exitOpen, errors.New("the connection broke within the snapshot: begin again")}
		}
		if failed == 0 {
			fmt.Fprintf(e.Stderr, "firn: the feed broke off, trying again from %s\n", feed.from)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(time.Duration(failed+1)*200*time.Millisecond, 5*time.Second)):
		}
	}
}

// tailFeed is a feed over one connection after another.
type tailFeed struct {
	c     *client
	table string
	f     tailFlags
	out   *bufio.Writer

	from       string // where the next connection begins
	left       int    // of limit
	printed    int    // changes and rows
	opened     bool   // a connection has been answered
	inSnapshot bool   // rows are being sent: no place to go on at
}

// read prints what one connection gives.
func (t *tailFeed) read(ctx context.Context) error {
	q := url.Values{"from": {t.from}, "follow": {strconv.FormatBool(!t.f.noFollow)}}
	columnsQuery(q, t.f.columns)
	if t.f.limit > 0 {
		q.Set("limit", strconv.Itoa(t.left))
	}
	return t.c.lines(ctx, tablePath(t.table, "/changes", q), lineReader{
		begin: func(applied changelog.SeqNum) {
			t.opened = true
			switch t.from {
			case "snapshot":
				t.inSnapshot = true
			case "latest": // should it break before a change comes
				t.from = "seq:" + seqText(applied)
			}
		},
		visit: t.print,
		idle:  t.out.Flush,
	})
}

func (t *tailFeed) print(line []byte) error {
	const change, truncate, complete = `{"seq":`, `{"truncate":`, `{"snapshot":"complete","applied":`
	head := string(line[:min(len(line), 80)])
	var at string
	switch {
	case strings.HasPrefix(head, `{"heartbeat"`):
		return nil
	case strings.HasPrefix(head, change):
		t.printed++
		t.left--
		at = head[len(change):]
	case strings.HasPrefix(head, truncate):
		at = head[len(truncate):]
	case strings.HasPrefix(head, complete):
		t.inSnapshot = false
		at = head[len(complete):]
	}
	if end := strings.IndexAny(at, ",}"); end > 0 && !t.inSnapshot {
		t.from = "seq:" + at[:end]
	}
	_, _ = t.out.Write(line) // bufio keeps the error for the last one
	return t.out.WriteByte('\n')
}
