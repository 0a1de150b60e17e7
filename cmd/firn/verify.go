package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

func newVerifyCmd(e *env) *cobra.Command {
	var f lakeFlags
	var deep, asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [TABLE…]",
		Short: "Prove that log, lookups and lake hold the same rows, and that the lake is what its metadata says",
		Long: `Verify checks tables from the outside, a line a check (P8):

  lake          (only if not) the table's metadata can be loaded
  rows          base and change files with the log's tail on top are the rows that lookups answer from; without a key:
                the base store of an earlier flush with the log's changes on top is the base store as it is
  statistics    row counts and sizes in the manifests are those of the files
  references    no file of a snapshot is missing; no other file lies in the table's directories
  positions     flushes follow each other without a gap; positions never go back; log, change store, base store in order
  log           (--deep) what the changes in the log left of their keys is what lookups answer from
  data          (--deep) every file can be read; values lie within the manifests' bounds, position deletes within files, rows in
                their partitions

Lake, log and lookups are those of the running server, which must be on this machine, or with -c those of the configuration:
of its server if that runs, else of its data directory. With --lake-only only the lake is checked.

Exit status 1: something differs; the lines below the check say what, keys by name.`,
		Example: `  firn verify
  firn verify -c firn.yaml
  firn verify shop.orders --deep -c firn.yaml
  firn verify --catalog-uri firn-data/catalog.db --lake-only --json`,
		RunE: runE(func(cmd *cobra.Command, args []string) (err error) {
			lakeOnly, err := cmd.Flags().GetBool("lake-only")
			if err != nil {
				return err
			}
			s, err := f.open(cmd.Context(), true, !lakeOnly)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			v := &verifier{stores: s, deep: deep, json: asJSON, out: e.Stdout}
			if err := v.run(cmd.Context(), args); err != nil {
				return err
			}
			if v.failed > 0 {
				return &exitError{exitNo, fmt.Errorf("verify: %d of %d checks found differences", v.failed, v.checks)}
			}
			return nil
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&deep, "deep", false, "also read all data, and hold the log against the lookups")
	cmd.Flags().Bool("lake-only", false, "check only the lake: no server, no data directory")
	jsonFlag(cmd, &asJSON, "one JSON line a check")
	return cmd
}

// verifyLake is what a process that has all parts open verifies.
type verifyLake struct {
	catalog  *table.Catalog
	registry *state.Registry
	store    *logstore.Store
	cfg      *Config
}

// verify checks the named tables (none: all) and writes a line a check to w. ok is false if anything differs.
func verify(ctx context.Context, l verifyLake, tables []string, deep bool, w io.Writer) (ok bool, err error) {
	c, done, err := newLocalClient(l.store, l.registry, l.cfg)
	if err != nil {
		return false, err
	}
	defer done()
	v := &verifier{stores: &stores{catalog: l.catalog, client: c}, deep: deep, out: w}
	err = v.run(ctx, tables)
	return v.failed == 0, err
}

// verifier runs the checks of tables.
type verifier struct {
	stores *stores
	deep   bool
	json   bool
	out    io.Writer

	checks, failed int
}

// shownDifferences is how many differences of a check are told one by one.
const shownDifferences = 20

// check is one check of one table.
type check struct {
	Table       string   `json:"table"`
	Check       string   `json:"check"`
	OK          bool     `json:"ok"`
	Detail      string   `json:"detail"` // what was compared, with counts
	Differences []string `json:"differences,omitempty"`
	Count       int      `json:"difference_count"`
}

func (c *check) differ(format string, args ...any) {
	c.Count++
	if len(c.Differences) < shownDifferences {
		c.Differences = append(c.Differences, fmt.Sprintf(format, args...))
	}
}

// verified is a table that is being verified.
type verified struct {
	name string
	lake *table.Table // nil: nothing is flushed yet
	keys []string
	log  *tableAnswer // nil: there is no server and no data directory
	bad  error        // why the lake's table cannot be loaded
}

func (v *verifier) run(ctx context.Context, names []string) error {
	tables, err := v.tables(ctx, names)
	if err != nil {
		return err
	}
	for _, t := range tables {
		for _, c := range []struct {
			name string
			run  func(context.Context, *verified, *check) error
			when bool
		}{
			{"lake", checkLoads, t.bad != nil},
			{"rows", v.checkRows, t.log != nil && len(t.keys) > 0 && t.bad == nil},
			{"rows", v.checkBag, t.log != nil && len(t.keys) == 0 && t.lake != nil},
			{"log", v.checkLog, v.deep && t.log != nil && len(t.keys) > 0},
			{"statistics", v.checkStatistics, t.lake != nil},
			{"data", v.checkData, v.deep && t.lake != nil},
			{"references", v.checkReferences, t.lake != nil},
			{"positions", v.checkPositions, t.bad == nil},
		} {
			if !c.when {
				continue
			}
			if err := v.runCheck(ctx, t, c.name, c.run); err != nil {
				return fmt.Errorf("verify %s, %s: %w", t.name, c.name, err)
			}
		}
	}
	return nil
}

// tries is how often a check is begun afresh when a file went from under it: optimizing and expiry go on meanwhile.
const tries = 3

func (v *verifier) runCheck(ctx context.Context, t *verified, name string, run func(context.Context, *verified, *check) error) error {
	for n := 1; ; n++ {
		c := &check{Table: t.name, Check: name}
		err := run(ctx, t, c)
		if gone := errors.Is(err, fs.ErrNotExist); gone && n < tries {
			if t.lake, err = t.lake.Reload(ctx); err != nil {
				return err
			}
			continue
		} else if gone {
			c.differ("%s", err) // it is missing for good
			err = nil
		}
		if err != nil {
			return err
		}
		c.OK = c.Count == 0
		v.checks++
		if !c.OK {
			v.failed++
		}
		return v.print(c)
	}
}

func (v *verifier) print(c *check) error {
	if v.json {
		return json.NewEncoder(v.out).Encode(c)
	}
	result := "ok"
	if !c.OK {
		result = "DIFFERS"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %-11s %-8s %s\n", c.Table, c.Check, result, c.Detail)
	for _, d := range c.Differences {
		fmt.Fprintf(&b, "    %s\n", d)
	}
	if more := c.Count - len(c.Differences); more > 0 {
		fmt.Fprintf(&b, "    and %d more\n", more)
	}
	_, err := io.WriteString(v.out, b.String())
	return err
}

// tables returns the named tables, all of the registry and the lake if none is.
func (v *verifier) tables(ctx context.Context, names []string) ([]*verified, error) {
	all := map[string]*verified{}
	if v.stores.client != nil {
		list, err := v.stores.client.tables(ctx)
		if err != nil {
			return nil, err
		}
		for i := range list {
			all[list[i].Name] = &verified{name: list[i].Name, keys: list[i].Key, log: &list[i]}
		}
	}
	lake, err := v.stores.catalog.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range lake {
		t := all[name]
		if t == nil {
			t = &verified{name: name}
			all[name] = t
		}
		switch t.lake, err = v.stores.catalog.Load(ctx, name); {
		case ctx.Err() != nil:
			return nil, err
		case err != nil:
			t.lake, t.bad = nil, err
			continue
		}
		t.keys = t.lake.Schemas().Current().KeyNames()
	}
	if names, err = named(maps.Keys(all), names); err != nil {
		return nil, err
	}
	tables := make([]*verified, len(names))
	for i, name := range names {
		tables[i] = all[name]
	}
	return tables, nil
}

// checkLoads reports a table that cannot be loaded: the others are verified all the same.
func checkLoads(_ context.Context, t *verified, c *check) error {
	c.differ("%s", t.bad)
	return nil
}

// checkPositions: flushes join without a gap, source positions never go back, and log, change store and base store are
// in this order.
func (v *verifier) checkPositions(ctx context.Context, t *verified, c *check) error {
	flushes, streams := 0, 0
	var mark table.FlushMark
	var gaps []seqRange
	if t.lake != nil {
		var err error
		if flushes, gaps, err = checkFlushes(t.lake, c); err != nil {
			return err
		}
		if mark, _, err = t.lake.LastCommit(); err != nil {
			return err
		}
	}
	c.Detail = fmt.Sprintf("%d flushes, the last to %d", flushes, mark.To)
	if t.log == nil {
		return nil
	}
	for _, g := range gaps {
		if err := v.checkGap(ctx, t.name, g, c); err != nil {
			return err
		}
	}
	now, err := v.stores.client.table(ctx, t.name) // after the lake: it can only be further
	if err != nil {
		return err
	}
	if now.Optimized > now.Flushed || now.Flushed > now.Applied {
		c.differ("optimized %d, flushed %d, applied %d are not in order", now.Optimized, now.Flushed, now.Applied)
	}
	if mark.To > now.Applied {
		c.differ("the lake has changes up to %d, the log only %d", mark.To, now.Applied)
	}
	for _, p := range mark.Positions {
		for _, s := range now.Sources {
			if s.Source == p.Source && s.Topic == p.Topic && s.Partition == p.Partition {
				streams++
				if p.Next > s.Next {
					c.differ("%s: the lake is at offset %d, the log at %d", p.StreamID, p.Next, s.Next)
				}
			}
		}
	}
	c.Detail += fmt.Sprintf("; applied %d, flushed %d, optimized %d; %d source positions", now.Applied, now.Flushed, now.Optimized, streams)
	return nil
}

// seqRange is the changes (From, To].
type seqRange struct{ From, To changelog.SeqNum }

// checkGap: a flush of nothing but truncate markers leaves no snapshot; every other change between two flushes is lost.
func (v *verifier) checkGap(ctx context.Context, name string, g seqRange, c *check) error {
	q := url.Values{"from": {"seq:" + seqText(g.From)}, "follow": {"false"}, "limit": {"1"}}
	err := v.stores.client.lines(ctx, tablePath(name, "/changes", q), lineReader{visit: func(line []byte) error {
		var change struct {
			Seq changelog.SeqNum `json:"seq"`
		}
		if err := json.Unmarshal(line, &change); err != nil {
			return err
		}
		if change.Seq > 0 && change.Seq <= g.To {
			c.differ("no flush has change %d: one ends at %d, the next begins after %d", change.Seq, g.From, g.To)
		}
		return nil
	}})
	if p, ok := errors.AsType[*problemError](err); ok && p.Type == "changes-trimmed" {
		return nil // nothing left to tell by
	}
	return err
}

// checkFlushes walks the flushes whose snapshots are kept, oldest first.
func checkFlushes(t *table.Table, c *check) (flushes int, gaps []seqRange, err error) {
	store := t.Change()
	if store == nil {
		store = t.Base()
	}
	var last table.FlushMark
	for _, s := range store.Snapshots() {
		mark, ok, err := flushMark(s.Summary)
		if err != nil {
			c.differ("snapshot %d: %s", s.ID, err)
			continue
		}
		if !ok {
			continue
		}
		if mark.To < mark.From {
			c.differ("snapshot %d: changes (%d, %d]", s.ID, mark.From, mark.To)
		}
		if flushes++; flushes > 1 {
			switch {
			case mark.From < last.To:
				c.differ("snapshot %d begins after change %d, the flush before it ended at %d", s.ID, mark.From, last.To)
			case mark.From > last.To:
				gaps = append(gaps, seqRange{last.To, mark.From})
			}
			if mark.Epoch < last.Epoch {
				c.differ("snapshot %d is of epoch %d, the flush before it of %d", s.ID, mark.Epoch, last.Epoch)
			}
			for _, d := range wentBack(last.Positions, mark.Positions) {
				c.differ("snapshot %d: %s", s.ID, d)
			}
		}
		last = mark
	}
	newest, ok, err := t.LastCommit()
	if err != nil {
		return flushes, gaps, err
	}
	if flushes > 0 && (!ok || newest.To < last.To) {
		c.differ("the table's mark says %d, its last flush %d", newest.To, last.To)
	}
	return flushes, gaps, nil
}
