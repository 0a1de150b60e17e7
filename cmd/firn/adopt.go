package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/changelog/merge"
	"firn/changelog/table"
	"firn/logstore"
	"firn/optimizer"
	"firn/state"
)

// adoptReport is what an adoption did, or in a dry run would do.
type adoptReport struct {
	Table       string           `json:"table"`
	DryRun      bool             `json:"dry_run"`
	Key         []string         `json:"key"`
	Partition   []string         `json:"partition"`
	Rows        int64            `json:"rows"`
	Seq         changelog.SeqNum `json:"seq"` // the next change gets the one after it
	BaseFiles   int              `json:"base_files"`
	DeleteFiles int              `json:"delete_files"`
	ChangeFiles int              `json:"change_files"`
	Pending     int              `json:"pending_change_files"`
	Puffin      bool             `json:"puffin"` // where the optimized sequence is kept
	Already     bool             `json:"already"`
}

// adoptPrefix begins the commit ids of adoptions.
const adoptPrefix = "adopt-"

// withParts opens what a configuration file names and calls use with it.
func withParts(ctx context.Context, config string, use func(*parts) error) (err error) {
	if config == "" {
		return usageError("-c FILE is needed: the configuration of the firn whose table it becomes, or is")
	}
	cfg, err := loadConfig(config)
	if err != nil {
		return &exitError{exitOpen, err}
	}
	p, err := openParts(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return use(p)
}

func newTableAdoptCmd(e *env) *cobra.Command {
	var config string
	var dryRun, takeOver, asJSON bool
	cmd := &cobra.Command{
		Use:   "adopt TABLE",
		Short: "Take a table that Amoro made into a data directory, so that a route may feed it",
		Long: `Adopt takes an existing mixed table, with the change files that are not merged yet: it checks that firn can write on after what is
there, registers the table, reads its rows into the lookups, builds the position index, and claims the table in the lake. Changes begin
after the greatest _file_offset of the table's change files; feeds, too: what happened before is in no feed.

No server may run on the data directory, and nobody else may write to the table: stop its writers first. Amoro's own optimizing of the table
is turned off (self-optimizing.enabled), until firn table release; it may be turned on again, both may optimize one table.

What firn cannot write to is refused, and nothing is written: files that are not Parquet, key types that Amoro loses deletes of, partition specs
outside of firn's, a missing change store, schemas out of step, Iceberg format v3, equality deletes in the base store, other files than I and ED
in the change store, change rows without _file_offset, rows with a null in the key, keys that are there twice.

After a crash, run it again. Where it has been done already it does nothing.`,
		Example: `  firn table adopt shop.orders -c firn.yaml --dry-run
  firn table adopt shop.orders -c firn.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			return withParts(cmd.Context(), config, func(p *parts) error {
				r, err := p.adopt(cmd.Context(), args[0], dryRun, takeOver)
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
	cmd.Flags().StringVarP(&config, "config", "c", "", "configuration file: its lake has the table, its data directory gets it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check and count only")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "also if another firn, which is gone for good, has adopted the table before")
	jsonFlag(cmd, &asJSON, "one JSON object")
	return cmd
}

func (r adoptReport) print(w io.Writer) error {
	if r.Already {
		_, err := fmt.Fprintf(w, "%s is this firn's table already, at change %d\n", r.Table, r.Seq)
		return err
	}
	verb, sequence, key, partition := "adopted", "the property", strings.Join(r.Key, ","), ""
	if r.DryRun {
		verb = "would adopt"
	}
	if r.Puffin {
		sequence = "Puffin"
	}
	if key == "" {
		key = "none"
	}
	if len(r.Partition) > 0 {
		partition = ", partitioned by " + strings.Join(r.Partition, ", ")
	}
	_, err := fmt.Fprintf(w, "%s %s: key %s%s; %d rows of %d base files, %d position-delete files and %d change files, %d of which are not merged\n"+
		"changes begin after %d; the optimized sequence stays in %s\n", verb, r.Table, key, partition, r.Rows, r.BaseFiles, r.DeleteFiles,
		r.ChangeFiles, r.Pending, r.Seq, sequence)
	return err
}

// adopt takes a table of the lake into the data directory. In the lake it does nothing before all else is done, so that a crash leaves
// either the table as it was, and entries in the registry that the next adoption or start drops, or the table adopted.
func (p *parts) adopt(ctx context.Context, name string, dryRun, takeOver bool) (adoptReport, error) {
	a := &adoption{parts: p, report: adoptReport{Table: name, DryRun: dryRun}}
	if err := a.run(ctx, dryRun, takeOver); err != nil {
		return a.report, fmt.Errorf("adopt %s: %w", name, err)
	}
	return a.report, nil
}

// adoption is one adoption under way.
type adoption struct {
	*parts

	report adoptReport
	lake   *table.Table
	rows   *merge.Reader
	commit string
}

func (a *adoption) run(ctx context.Context, dryRun, takeOver bool) (err error) {
	name := a.report.Table
	if a.lake, err = a.catalog.Load(ctx, name); err != nil {
		return err
	}
	entry, known := a.registry.Table(name)
	if known {
		if err := a.known(ctx, entry, dryRun); err != nil || a.report.Already {
			return err
		}
	}
	floor, err := a.owned(takeOver)
	if err != nil {
		return err
	}
	if err := a.check(ctx, floor); err != nil {
		return err
	}
	if dryRun {
		return a.eachRow(ctx, nil)
	}
	if entry, err = a.register(ctx); err != nil {
		return err
	}
	if err := a.fill(ctx, entry); err != nil {
		return errors.Join(err, a.store.Drop(context.WithoutCancel(ctx), entry.ID))
	}
	return a.publish(ctx, entry)
}

// known deals with a table that the data directory has: what an interrupted adoption has left is dropped.
func (a *adoption) known(ctx context.Context, entry *state.Table, dryRun bool) error {
	p, err := a.registry.Progress(entry.ID)
	if err != nil {
		return err
	}
	if !p.Rebuilding {
		_, gone, err := a.lake.Released()
		if gone {
			err = fmt.Errorf("its release was cut short: run firn table release %s again first", entry.Name)
		}
		a.report.Already, a.report.Seq = true, p.Flushed
		return err
	}
	if !strings.HasPrefix(p.CommitID, adoptPrefix) {
		return errors.New("this data directory is being restored from the lake: start firn, which completes it")
	}
	if dryRun {
		return nil
	}
	return a.store.Drop(ctx, entry.ID)
}

// owned refuses a table that another firn writes, and returns the change after which the next must be.
func (a *adoption) owned(takeOver bool) (changelog.SeqNum, error) {
	mark, ok, err := a.lake.LastCommit()
	if err != nil || !ok {
		return 0, err
	}
	switch {
	case mark.Writer == a.registry.WriterID() && strings.HasPrefix(mark.CommitID, adoptPrefix): // an interrupted adoption of ours
	case len(mark.Positions) > 0 || !strings.HasPrefix(mark.CommitID, adoptPrefix):
		return 0, &exitError{exitNo, fmt.Errorf("a firn writes it already (writer %s, change %d): release it there (firn table release); if the data "+
			"directory of that firn is lost, start firn with an empty one and the same sources: it takes the table back by itself", mark.Writer, mark.To)}
	case !takeOver:
		return 0, &exitError{exitNo, fmt.Errorf("another firn (writer %s) has adopted it: release it there, or with that data directory lost say --take-over",
			mark.Writer)}
	}
	return mark.To, nil
}

// check finds out whether the table can be adopted, and at which change.
func (a *adoption) check(ctx context.Context, floor changelog.SeqNum) error {
	found, err := a.lake.CheckAdoptable(ctx)
	if errors.Is(err, table.ErrUnsupported) || errors.Is(err, table.ErrHalf) {
		return &exitError{exitNo, err}
	}
	if err != nil {
		return err
	}
	if a.rows, _, err = reader(ctx, a.lake, nil, 0, ""); err != nil {
		return err
	}
	last, err := a.rows.LastOffset(ctx)
	if err != nil {
		return fmt.Errorf("change files: %w: if the row was never meant to be, take the file out of the change store; else have its writer write it again", err)
	}
	spec, err := a.lake.Partition()
	if err != nil {
		return err
	}
	r := &a.report
	r.Key, r.Partition = a.lake.Schemas().Current().KeyNames(), spec.Strings()
	r.BaseFiles, r.DeleteFiles, r.ChangeFiles, r.Pending = found.BaseFiles, found.DeleteFiles, found.ChangeFiles, found.Pending
	r.Puffin = a.lake.InPuffin()
	r.Seq = max(floor, found.Released, changelog.SeqNum(max(last, 1))) //nolint:gosec // positive
	return nil
}

// register makes the registry's entry. It is not served: Rebuilding.
func (a *adoption) register(ctx context.Context) (*state.Table, error) {
	spec, err := a.lake.Partition()
	if err != nil {
		return nil, err
	}
	a.commit = adoptPrefix + uuid.NewString()
	t := state.Table{Name: a.report.Table, Schemas: a.lake.Schemas(), Partition: spec, Properties: a.cfg.Table(a.report.Table).Properties}
	p := state.Progress{Flushed: a.report.Seq, Optimized: a.report.Seq, CommitID: a.commit, Rebuilding: true}
	if a.report.Pending > 0 {
		p.Optimized--
	}
	return a.registry.Restore(ctx, t, p, nil)
}

// eachRow counts the table's rows, looks at their keys and hands them to visit, if there is one.
func (a *adoption) eachRow(ctx context.Context, visit func(logstore.RowEntry) bool) error {
	schema := a.lake.Schemas().Current()
	optional := slices.ContainsFunc(schema.KeyOrdinals(), func(o int) bool { return !schema.Columns[o].Required })
	var values []changelog.Value
	for row, err := range a.rows.Rows(ctx) {
		if err != nil {
			return err
		}
		if optional {
			if values, err = changelog.AppendValues(values[:0], schema, row.Row); err != nil {
				return err
			}
			for _, o := range schema.KeyOrdinals() {
				if values[o].Null {
					return &exitError{exitNo, fmt.Errorf("file %s, row %d: key column %q is null, which no lookup can ask for: delete or complete the row: %w",
						row.File, row.Ordinal, schema.Columns[o].Name, table.ErrUnsupported)}
				}
			}
		}
		a.report.Rows++
		if visit != nil && !visit(logstore.RowEntry{Key: row.Key, Seq: a.report.Seq, Row: row.Row}) {
			return nil
		}
	}
	return nil
}

// fill brings the rows into the lookups and builds the position index. The lake stays as it is.
func (a *adoption) fill(ctx context.Context, entry *state.Table) error {
	if !a.lake.Keyed() {
		return a.eachRow(ctx, nil)
	}
	rows := iter.Seq2[logstore.RowEntry, error](func(yield func(logstore.RowEntry, error) bool) {
		if err := a.eachRow(ctx, func(e logstore.RowEntry) bool { return yield(e, nil) }); err != nil {
			yield(logstore.RowEntry{}, err)
		}
	})
	if err := a.store.PutRows(ctx, entry.ID, rows); err != nil {
		return err
	}
	if err := a.distinct(ctx, entry); err != nil {
		return err
	}
	o, err := optimizer.New(a.catalog, a.registry, optimizer.Options{Rules: a.cfg.Table(a.report.Table).rules()})
	if err != nil {
		return err
	}
	return o.BuildIndex(ctx, a.report.Table)
}

// distinct refuses rows that share a key: readers see all of them, lookups would find one.
func (a *adoption) distinct(ctx context.Context, entry *state.Table) (err error) {
	snap, err := a.store.Snapshot(ctx, entry.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	n := int64(0)
	for _, err := range snap.Rows(nil, nil) {
		if err != nil {
			return err
		}
		n++
	}
	if n != a.report.Rows {
		return &exitError{exitNo, fmt.Errorf("%d of its %d rows have the key of another row: delete the doubles with an engine that writes position deletes "+
			"to the base store, and run this again: %w", a.report.Rows-n, a.report.Rows, table.ErrUnsupported)}
	}
	return nil
}

// publish claims the table and marks it as ours in the lake, and then, if nobody has written to it meanwhile, opens it for use.
func (a *adoption) publish(ctx context.Context, entry *state.Table) error {
	before, err := livePaths(ctx, a.lake)
	if err != nil {
		return err
	}
	epoch, err := a.lake.ClaimEpoch(ctx, a.registry.WriterID(), 1)
	if err != nil {
		return err
	}
	if err := a.lake.SyncSchemasUnder(ctx, a.lake.Schemas(), epoch); err != nil { // a crash of its writer may have left the base store one ahead
		return err
	}
	now, err := a.lake.Reload(ctx)
	if err != nil {
		return err
	}
	after, err := livePaths(ctx, now)
	if err == nil && !slices.Equal(before, after) || len(now.Schemas()) != len(a.lake.Schemas()) {
		err = &exitError{exitNo, errors.New("somebody has written to it meanwhile: stop its writers and Amoro's optimizing, and run this again")}
	}
	if err != nil {
		return errors.Join(err, a.store.Drop(context.WithoutCancel(ctx), entry.ID))
	}
	mark := table.FlushMark{CommitID: a.commit, Writer: a.registry.WriterID(), Epoch: epoch, From: a.report.Seq, To: a.report.Seq}
	if err := now.Adopt(ctx, mark); err != nil { // it may be there all the same: the next run finds out
		return err
	}
	return a.registry.UpdateProgress(ctx, entry.ID, func(p *state.Progress) {
		p.Epoch, p.Rebuilding = epoch, false
		if s := now.Change(); s != nil && s.Snapshot() != nil {
			p.ChangeSequence = s.Snapshot().Sequence
		}
	})
}

// livePaths returns the paths of all live files, sorted.
func livePaths(ctx context.Context, t *table.Table) (paths []string, err error) {
	for _, s := range t.Stores() {
		files, err := s.Files(ctx)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			paths = append(paths, f.Path)
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// interrupted reports whether a table's entry is what an adoption has left that never came to its commit.
func interrupted(p state.Progress, t *table.Table) bool {
	mark, ok, err := t.LastCommit()
	return p.Rebuilding && strings.HasPrefix(p.CommitID, adoptPrefix) && err == nil && (!ok || mark.CommitID != p.CommitID)
}
