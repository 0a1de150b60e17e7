package table

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	ice "github.com/apache/iceberg-go/table"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Keys of snapshot summaries and table properties that are ours. Written to tables.
const (
	PropCommitID  = "firn.commit-id"
	PropWriter    = "firn.writer"
	PropEpoch     = "firn.epoch"
	PropShard     = "firn.shard"
	PropSeqFrom   = "firn.seq-from"
	PropSeqTo     = "firn.seq-to"
	PropPositions = "firn.positions"
	// PropWatermark is FlushMark.Watermark in the summary of the flush's snapshot.
	PropWatermark = "firn.watermark"
	// PropMark is the FlushMark of the newest flush, as JSON, in the properties of the store that flushes go to: it
	// outlives the snapshot.
	PropMark = "firn.flush-mark"
	// PropClaim marks the snapshot of a claimed epoch in the summary.
	PropClaim = "firn.claim"
)

// Table is a mixed table as the catalog had it when it was loaded. It is immutable.
type Table struct {
	catalog   *Catalog
	id        ident
	schemas   changelog.Schemas
	base      *Store
	change    *Store // nil: no key
	optimized map[string]int64
	puffin    bool // the optimized sequence is in Puffin statistics
}

// Name returns namespace.name.
func (t *Table) Name() string { return t.id.String() }

// Catalog returns the catalog that the table was loaded from.
func (t *Table) Catalog() *Catalog { return t.catalog }

// FS returns the file system of the table's files.
func (t *Table) FS() FS { return t.catalog.fs }

// Reload returns the table as it is now.
func (t *Table) Reload(ctx context.Context) (*Table, error) { return t.catalog.Load(ctx, t.Name()) }

// Schemas returns the history of schemas, from the base store, with the key from its properties. The caller must not
// change it.
func (t *Table) Schemas() changelog.Schemas { return t.schemas }

// Keyed reports whether the table has a key, and so a change store.
func (t *Table) Keyed() bool { return t.change != nil }

// Base returns the base store.
func (t *Table) Base() *Store { return t.base }

// Change returns the change store, or nil for a table without a key.
func (t *Table) Change() *Store { return t.change }

// keyed reports whether the base store's properties name a key.
func (t *Table) keyed() bool { return t.schemas != nil && len(t.schemas.Current().Key) > 0 }

// Stores returns the stores, base first.
func (t *Table) Stores() []*Store {
	if t.change == nil {
		return []*Store{t.base}
	}
	return []*Store{t.base, t.change}
}

// flushed returns the store that flushes go to.
func (t *Table) flushed() *Store {
	if t.change != nil {
		return t.change
	}
	return t.base
}

// Optimized returns, by partition path (mixed.NormalizePath; "" in an unpartitioned table), up to which data sequence
// number change files are merged into the base store. A partition that is not in it has nothing merged. The caller
// owns the map.
func (t *Table) Optimized() map[string]int64 { return maps.Clone(t.optimized) }

// Merged reports whether a change file is merged into the base store: readers leave it out.
func (t *Table) Merged(f File) bool {
	s, ok := t.optimized[f.Partition]
	return ok && f.DataSequence <= s
}

// Expirable reports whether a change file may be taken out of the change store: no reader asks for it, and no reader that compares
// its transaction, as Amoro's expiry does, either (a name may have one that is beyond the file's sequence number).
func (t *Table) Expirable(f File) bool {
	s, ok := t.optimized[f.Partition]
	return ok && f.DataSequence <= s && f.Info.Txn <= s
}

// WatermarkOf returns the source time up to which all changes with a SeqNum up to seq are in the change store, ms since 1970-01-01 UTC, as
// far as the kept flushes tell; 0: they do not.
func (t *Table) WatermarkOf(seq changelog.SeqNum) (int64, error) {
	mark, ok, err := t.LastCommit()
	if err != nil || ok && mark.To <= seq {
		return mark.Watermark, err
	}
	newest := int64(0)
	for _, sn := range t.flushed().Snapshots() {
		to, err := strconv.ParseUint(sn.Summary[PropSeqTo], 10, 64)
		if ms, bad := strconv.ParseInt(sn.Summary[PropWatermark], 10, 64); err == nil && bad == nil && changelog.SeqNum(to) <= seq {
			newest = max(newest, ms)
		}
	}
	return newest, nil
}

// Epoch returns the epoch that owns the table; 0: none was claimed.
func (t *Table) Epoch() (changelog.Epoch, error) {
	var epoch changelog.Epoch
	for _, s := range t.Stores() {
		e, err := epochOf(s.loaded.metadata.Properties())
		if err != nil {
			return 0, err
		}
		epoch = max(epoch, e)
	}
	return epoch, nil
}

// Writer returns who claimed the newest epoch; "" if nobody has.
func (t *Table) Writer() (string, error) {
	var newest changelog.Epoch
	writer := ""
	for _, s := range t.Stores() {
		props := s.loaded.metadata.Properties()
		e, err := epochOf(props)
		if err != nil {
			return "", err
		}
		if e > newest {
			newest, writer = e, props[PropWriter]
		}
	}
	return writer, nil
}

// FlushMark says what a flush brought into the lake (P2): which commit of which writer, up to which change, and how far
// the sources were applied.
type FlushMark struct {
	CommitID  string
	Writer    string
	Epoch     changelog.Epoch
	Shard     changelog.Shard
	From, To  changelog.SeqNum // changes in (From, To]
	Positions []changelog.StreamPosition
	// Times are, by their place in Positions, the source times of the newest changes that came from there, ms since 1970-01-01 UTC;
	// 0, or no place: not known.
	Times []int64 `json:",omitempty"`
	// Watermark is the source time up to which the table has all changes, ms since 1970-01-01 UTC; 0: not known. It becomes the store's
	// property mixed.PropWatermark, which does not go back.
	Watermark int64 `json:",omitempty"`
}

// LastCommit returns the mark of the newest flush; ok is false if there was none. It outlives the expiry of the flush's
// snapshot. Error: ErrCorrupt.
func (t *Table) LastCommit() (mark FlushMark, ok bool, err error) {
	v := t.flushed().loaded.metadata.Properties()[PropMark]
	if v == "" {
		return FlushMark{}, false, nil
	}
	if err := json.Unmarshal([]byte(v), &mark); err != nil {
		return FlushMark{}, false, fmt.Errorf("%s: property %s: %w: %w", t.Name(), PropMark, ErrCorrupt, err)
	}
	return mark, true, nil
}

// summary returns the mark as keys of a snapshot summary.
func (m *FlushMark) summary() (map[string]string, error) {
	positions, err := json.Marshal(m.Positions)
	if err != nil {
		return nil, err
	}
	keys := map[string]string{
		PropCommitID:  m.CommitID,
		PropWriter:    m.Writer,
		PropEpoch:     strconv.FormatUint(uint64(m.Epoch), 10),
		PropShard:     strconv.FormatUint(uint64(m.Shard), 10),
		PropSeqFrom:   strconv.FormatUint(uint64(m.From), 10),
		PropSeqTo:     strconv.FormatUint(uint64(m.To), 10),
		PropPositions: string(positions),
	}
	if m.Watermark > 0 {
		keys[PropWatermark] = strconv.FormatInt(m.Watermark, 10)
	}
	return keys, nil
}

// Store is one of a table's Iceberg tables, as it was loaded. It is immutable.
type Store struct {
	table  *Table
	id     ident
	kind   string // mixed.StoreBase or mixed.StoreChange
	loaded loaded
}

// Name returns the store's identifier in the catalog.
func (s *Store) Name() string { return s.id.String() }

// Kind returns mixed.StoreBase or mixed.StoreChange.
func (s *Store) Kind() string { return s.kind }

// Location returns the store's directory; data files go to DataPath.
func (s *Store) Location() string { return s.loaded.metadata.Location() }

// DataPath returns the path of a data or delete file with the given name in an unpartitioned store.
func (s *Store) DataPath(name string) string { return s.Location() + "/data/" + name }

// DataPathIn returns the path of a data or delete file with the given name in a partition, which is "" in an unpartitioned
// store. The directories are named as the partition's path is spelled: escaped, and never unescaped by readers.
func (s *Store) DataPathIn(partition, name string) string {
	if partition == "" {
		return s.DataPath(name)
	}
	return s.Location() + "/data/" + partition + "/" + name
}

// MetadataLocation returns the path of the metadata file.
func (s *Store) MetadataLocation() string { return s.loaded.location }

// Properties returns the store's properties. The caller owns the map.
func (s *Store) Properties() map[string]string { return maps.Clone(s.loaded.metadata.Properties()) }

// Watermark returns the source time up to which the store says that it has all rows, ms since 1970-01-01 UTC; 0: it does not say.
func (s *Store) Watermark() int64 {
	ms, err := strconv.ParseInt(s.loaded.metadata.Properties()[mixed.PropWatermark], 10, 64)
	if err != nil || ms < 0 {
		return 0
	}
	return ms
}

// setWatermark adds the watermark to an edit, if it is ahead of the store's.
func (s *Store) setWatermark(e *edit, ms int64) {
	if ms > s.Watermark() {
		e.properties[mixed.PropWatermark] = strconv.FormatInt(ms, 10)
	}
}

// Snapshot is one snapshot of a store.
type Snapshot struct {
	ID        int64
	Sequence  int64
	Parent    int64 // 0: none
	TimeMS    int64
	Operation string
	Summary   map[string]string // without the operation; not to be changed
}

// Snapshot returns the current snapshot, or nil if there is none yet.
func (s *Store) Snapshot() *Snapshot {
	cur := s.loaded.metadata.CurrentSnapshot()
	if cur == nil {
		return nil
	}
	out := snapshotOf(cur)
	return &out
}

// SnapshotID returns the id of the current snapshot, or 0.
func (s *Store) SnapshotID() int64 { return headOf(s.loaded.metadata) }

// Snapshots returns all snapshots that are kept, oldest first, without those of claims, which hold no rows.
func (s *Store) Snapshots() []Snapshot {
	all := s.loaded.metadata.Snapshots()
	out := make([]Snapshot, 0, len(all))
	for i := range all {
		if sn := snapshotOf(&all[i]); sn.Summary[PropClaim] == "" {
			out = append(out, sn)
		}
	}
	slices.SortStableFunc(out, func(a, b Snapshot) int { return int(a.Sequence - b.Sequence) })
	return out
}

func headOf(md ice.Metadata) int64 {
	if cur := md.CurrentSnapshot(); cur != nil {
		return cur.SnapshotID
	}
	return 0
}

func snapshotOf(s *ice.Snapshot) Snapshot {
	out := Snapshot{ID: s.SnapshotID, Sequence: s.SequenceNumber, TimeMS: s.TimestampMs}
	if s.ParentSnapshotID != nil {
		out.Parent = *s.ParentSnapshotID
	}
	if s.Summary != nil {
		out.Operation, out.Summary = string(s.Summary.Operation), s.Summary.Properties
	}
	return out
}

// NewFile is a file that was written and shall be committed.
type NewFile struct {
	Path   string            // as readers will see it: DataPath of the store
	Schema *changelog.Schema // of the file's rows; not used for position deletes
	Offset bool              // the file has a _file_offset column: change files
	Rows   int64
	Bytes  int64
	Footer Footer
	NaNs   map[int]int64 // how many values of each float column are no number, by field id (datafile.Written); nil: not known
	// Partition is the path of the file's partition (Partitioner, File.Partition); "" in an unpartitioned table.
	Partition string
	// Referenced is the only data file that a position delete file names; empty: more than one.
	Referenced string
}

// readOptimized reads the optimized sequences: from Puffin statistics if an ancestor of the current snapshot is marked,
// else from the property.
func (t *Table) readOptimized() error {
	md := t.base.loaded.metadata
	seqs, marked, err := t.readPuffin(md)
	if err != nil {
		return err
	}
	if marked {
		t.optimized, t.puffin = seqs, true
		return nil
	}
	props, err := mixed.ParsePartitionProperties(md.Properties()[mixed.PropPartitions])
	if err != nil {
		return err
	}
	t.optimized, err = props.Optimized()
	return err
}
