package table

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Keys of table properties of adopted and released tables. Written to tables.
const (
	// PropAdopted is the SeqNum at which the table was adopted: change files with no _file_offset above it are another writer's,
	// whose offsets are no SeqNums.
	PropAdopted = "firn.adopted-at"
	// PropReleased is the SeqNum at which the table was released: who adopts it again begins no lower (P4).
	PropReleased = "firn.released-at"
	// PropKeptOptimizing is what PropOptimizing was before the adoption; "unset": nothing.
	PropKeptOptimizing = "firn.adopted-self-optimizing"
	// PropOptimizing lets Amoro optimize the table.
	PropOptimizing = "self-optimizing.enabled"
	// PropLastFull is when the last full round of optimizing ended, ms since 1970-01-01 UTC.
	PropLastFull = "firn.last-full-optimize"
)

const unset = "unset"

// released is the writer of a table that firn has given back.
const released = "released"

// Adopted returns the SeqNum at which the table was adopted; 0: firn made it. Error: ErrCorrupt.
func (t *Table) Adopted() (changelog.SeqNum, error) { return t.seqProperty(PropAdopted) }

// Released returns the SeqNum at which the table was released, if it was and nobody has adopted it since. Error: ErrCorrupt.
func (t *Table) Released() (seq changelog.SeqNum, ok bool, err error) {
	seq, err = t.seqProperty(PropReleased)
	return seq, t.flushed().loaded.metadata.Properties()[PropReleased] != "", err
}

func (t *Table) seqProperty(name string) (changelog.SeqNum, error) {
	v := t.flushed().loaded.metadata.Properties()[name]
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: property %s: %w: %w", t.Name(), name, ErrCorrupt, err)
	}
	return changelog.SeqNum(n), nil
}

// Predates reports whether a change file is from before the adoption of its table at the SeqNum adopted: its _file_offset is no SeqNum.
func (f *File) Predates(adopted changelog.SeqNum) bool {
	return adopted > 0 && f.LastOffset <= int64(adopted) //nolint:gosec // SeqNums are offsets: below 2^63
}

// Untouched reports whether nobody has written to the table since it was made, and firn never released it.
func (t *Table) Untouched() bool {
	for _, s := range t.Stores() {
		if len(s.Snapshots()) > 0 || s.loaded.metadata.Properties()[PropReleased] != "" {
			return false
		}
	}
	return true
}

// Adopt makes the table, which another writer has made, that of mark's writer as of the change mark.To, under the epoch of mark,
// which was claimed before. Amoro's optimizing of it is turned off: PropKeptOptimizing keeps what was set. It may be repeated.
// Errors: ErrFenced; ErrUnknownOutcome.
func (t *Table) Adopt(ctx context.Context, mark FlushMark) error {
	text, err := json.Marshal(&mark)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", t.Name(), err)
	}
	for _, s := range t.Stores() { // the mark comes last, with the store that flushes go to: until then nothing was done
		_, err := s.commit(ctx, plan{epoch: mark.Epoch, fenced: true, build: func(_ context.Context, s *Store) (edit, error) {
			props := iceberg.Properties{PropOptimizing: "false", PropReleased: ""}
			have := s.loaded.metadata.Properties()
			if have[PropKeptOptimizing] == "" {
				props[PropKeptOptimizing] = have[PropOptimizing]
				if have[PropOptimizing] == "" {
					props[PropKeptOptimizing] = unset
				}
			}
			if s.kind == t.flushed().kind {
				props[PropAdopted], props[PropMark] = strconv.FormatUint(uint64(mark.To), 10), string(text)
			}
			return edit{properties: props, claim: s.needsSnapshot()}, nil
		}})
		if err != nil {
			return fmt.Errorf("adopt %s: %w", t.Name(), err)
		}
	}
	return nil
}

// Release gives the table back: under a new epoch, so that no firn writes to it any more, without the marks by which one would go on,
// and with Amoro's optimizing as it was before Adopt. The epoch stays, and PropReleased keeps the SeqNum at. It may be repeated.
// Errors: ErrFenced, another writer has claimed the table meanwhile; ErrUnknownOutcome.
func (t *Table) Release(ctx context.Context, at changelog.SeqNum) error {
	epoch, err := t.ClaimEpoch(ctx, released, 0)
	if err != nil {
		return fmt.Errorf("release %s: %w", t.Name(), err)
	}
	for _, s := range t.Stores() { // the mark goes last
		_, err := s.commit(ctx, plan{epoch: epoch, fenced: true, build: func(_ context.Context, s *Store) (edit, error) {
			props := iceberg.Properties{PropAdopted: "", PropMark: "", PropCommitID: "", PropLastFull: "", PropKeptOptimizing: ""}
			switch kept := s.loaded.metadata.Properties()[PropKeptOptimizing]; kept {
			case "":
			case unset:
				props[PropOptimizing] = ""
			default:
				props[PropOptimizing] = kept
			}
			if s.kind == t.flushed().kind {
				props[PropReleased] = strconv.FormatUint(uint64(at), 10)
			}
			return edit{properties: props, claim: s.needsSnapshot()}, nil
		}})
		if err != nil {
			return fmt.Errorf("release %s: %w", t.Name(), err)
		}
	}
	return nil
}

// Adoptable is what CheckAdoptable found in a table that can be adopted.
type Adoptable struct {
	BaseFiles, DeleteFiles, ChangeFiles int
	Pending                             int              // change files that are not merged
	Released                            changelog.SeqNum // where firn had given the table back; 0: it had not
}

// CheckAdoptable looks for whatever in the table's metadata firn cannot write after, or Amoro cannot read on. Nothing is written.
// Errors: ErrUnsupported, ErrHalf and mixed.ErrBadName, with table, file and way out; ErrCorrupt; I/O.
func (t *Table) CheckAdoptable(ctx context.Context) (a Adoptable, err error) {
	if err := t.checkStores(); err != nil {
		return a, err
	}
	if a.Released, _, err = t.Released(); err != nil {
		return a, err
	}
	last := int64(-1)
	if t.change != nil {
		last = t.change.loaded.metadata.LastSequenceNumber()
	}
	for _, s := range t.Stores() {
		files, err := s.Files(ctx)
		if err != nil {
			return a, fmt.Errorf("files of %s: %w", s.id, err)
		}
		for _, f := range files {
			if why := badFile(s.kind, last, &f); why != "" {
				return a, fmt.Errorf("%s, file %s: %s: %w", s.id, f.Path, why, ErrUnsupported)
			}
			a.count(t, s, f)
		}
	}
	return a, nil
}

func (a *Adoptable) count(t *Table, s *Store, f File) {
	switch {
	case s.kind == mixed.StoreBase && f.Content == Data:
		a.BaseFiles++
	case s.kind == mixed.StoreBase:
		a.DeleteFiles++
	default:
		a.ChangeFiles++
		if !t.Merged(f) {
			a.Pending++
		}
	}
}

// checkStores looks at what both stores say of themselves.
func (t *Table) checkStores() error {
	schema := t.schemas.Current()
	if t.keyed() && t.change == nil {
		return fmt.Errorf("%s has a key and no property %s that names its change store: set it to the change store's name (%s.%s is usual): %w",
			t.id, mixed.PropChange, t.id.namespace, mixed.ChangeName(t.id.name), ErrHalf)
	}
	for _, s := range t.Stores() {
		if v := s.loaded.metadata.Version(); v != 2 {
			return fmt.Errorf("%s is of Iceberg format version %d: mixed tables are of version 2; copy its rows into a new table: %w", s.id, v, ErrUnsupported)
		}
	}
	if t.change != nil {
		props := t.change.loaded.metadata.Properties()
		if mixed.StoreOf(props) != mixed.StoreChange || !slices.Equal(mixed.KeyColumns(props), schema.KeyNames()) {
			return fmt.Errorf("%s is named as the change store of %s, but its properties do not say so, or name another key: repair %s: %w",
				t.change.id, t.id, mixed.PropChange, ErrUnsupported)
		}
		if column, why := mixed.BadKey(schema, t.base.loaded.metadata.Properties()); column != "" {
			return fmt.Errorf("%s: key column %q: %s: copy the rows into a table with a key of text: %w", t.id, column, why, ErrUnsupported)
		}
	}
	spec, err := t.Partition()
	if err != nil {
		return err
	}
	_, err = CheckPartition(spec, schema)
	if err != nil {
		return fmt.Errorf("%s: %w", t.id, err)
	}
	return nil
}

// badFile returns why firn cannot go on from a file of a store, and what to do; "": it can. last is the sequence number of the table's
// change store, -1 if it has none.
func badFile(kind string, last int64, f *File) string {
	switch why := f.Unreadable(); {
	case why != "":
		return why
	case kind == mixed.StoreChange && f.Content != Data:
		return "it is an Iceberg delete file in a change store, where readers ignore it: take it out"
	case kind == mixed.StoreChange && f.Info.Type != mixed.Insert && f.Info.Type != mixed.Delete:
		return fmt.Sprintf("it is named as a %s file, and only I and ED files belong in a change store: take it out", f.Info.Type)
	case f.Content == EqualityDeletes:
		return "it has equality deletes, on which Amoro's reader fails: let the engine that wrote them rewrite the table"
	case last >= 0 && f.Info.Txn > last:
		return fmt.Sprintf("its name says transaction %d, and the change store is at %d: later deletes would not reach its rows; "+
			"commit to the change store until it is further, or let Amoro optimize the table in full", f.Info.Txn, last)
	}
	return ""
}

// Unreadable returns why firn cannot read a live file of a table, and what to do; "": it can.
func (f *File) Unreadable() string {
	if f.Format == formatParquet {
		return ""
	}
	return fmt.Sprintf("it is %s, and firn reads Parquet only: set base.write.format and change.write.format to parquet and let Amoro optimize "+
		"the table in full, until no such file is live", f.Format)
}

// formatParquet is File.Format of what firn reads.
const formatParquet = string(iceberg.ParquetFile)
