package table

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog/mixed"
)

// Footer is a Parquet file's footer: where a file's statistics come from. datafile.Written has it.
type Footer = *metadata.FileMetaData

// Content is what Iceberg says a file holds.
type Content uint8

// The contents of files.
const (
	Data            Content = 0 // rows; in a change store deletes (ED), too
	PositionDeletes Content = 1
	EqualityDeletes Content = 2 // never in a mixed table of ours
)

// File is a live file of a store.
type File struct {
	Path         string
	Content      Content
	Format       string // as the manifest has it: PARQUET, ORC, AVRO; firn reads PARQUET only
	Records      int64
	Bytes        int64
	DataSequence int64
	Snapshot     int64          // that added it; it may be expired
	Partition    string         // mixed.NormalizePath; "" in an unpartitioned store
	Spec         int            // id of the partition spec that it was written under
	Info         mixed.FileInfo // from its name

	// FirstOffset and LastOffset bound the _file_offset (SeqNum, P5) of a change file's rows; 0 where it tells none.
	FirstOffset, LastOffset int64

	// Of position deletes: the one data file that the file names, if it is one, and else bounds of their paths (they may be
	// cut by other writers).
	Referenced           string
	LowerPath, UpperPath string

	lower, upper map[int][]byte
}

// Bounds returns the bounds of a column in Iceberg's single-value encoding, where the file has them: every value that is
// not null lies between. Those of long strings and bytes are cut, the lower down and the upper up.
func (f *File) Bounds(fieldID int) (lower, upper []byte) { return f.lower[fieldID], f.upper[fieldID] }

// Files returns the live files of the current snapshot, data files and delete files, in the order of the manifests.
// Errors: ErrCorrupt; ErrUnsupported, a keyed table's file of an earlier partition spec; mixed.ErrBadName, a file that no
// reader can place.
func (s *Store) Files(ctx context.Context) ([]File, error) { return s.FilesAt(ctx, s.SnapshotID()) }

// FilesAt returns the live files of a snapshot that is kept; 0 stands for the empty one. Error: ErrNotFound, besides those of
// Files.
func (s *Store) FilesAt(ctx context.Context, snapshot int64) ([]File, error) {
	if snapshot == 0 {
		return nil, nil
	}
	md := s.loaded.metadata
	sn := md.SnapshotByID(snapshot)
	if sn == nil {
		return nil, fmt.Errorf("snapshot %d of %s: %w", snapshot, s.id, ErrNotFound)
	}
	var files []File
	places := s.newPartitions()
	for e, err := range s.table.catalog.entries(ctx, sn, nil) {
		if err != nil {
			return nil, fmt.Errorf("files of %s: %w", s.id, err)
		}
		f, err := s.fileOf(md, e, places)
		if err != nil {
			return nil, fmt.Errorf("files of %s: %w", s.id, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// entries yields the live entries of a snapshot's manifests for which want is true (nil: all).
func (c *Catalog) entries(ctx context.Context, sn *ice.Snapshot, want func(iceberg.ManifestFile) bool) iter.Seq2[iceberg.ManifestEntry, error] {
	return func(yield func(iceberg.ManifestEntry, error) bool) {
		manifests, err := c.manifests(sn)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, m := range manifests {
			if want != nil && !want(m) {
				continue
			}
			if ctx.Err() != nil {
				yield(nil, context.Cause(ctx))
				return
			}
			for e, err := range m.Entries(libraryFS{c.fs}, true) {
				if err != nil {
					err = fmt.Errorf("manifest %s: %w: %w", m.FilePath(), ErrCorrupt, err)
				}
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
	}
}

func (c *Catalog) manifests(sn *ice.Snapshot) ([]iceberg.ManifestFile, error) {
	if sn == nil {
		return nil, nil
	}
	m, err := sn.Manifests(libraryFS{c.fs})
	if err != nil {
		return nil, fmt.Errorf("manifest list %s: %w: %w", sn.ManifestList, ErrCorrupt, err)
	}
	return m, nil
}

func (s *Store) fileOf(md ice.Metadata, e iceberg.ManifestEntry, places *partitions) (File, error) {
	df := e.DataFile()
	f := File{
		Path: df.FilePath(), Format: string(df.FileFormat()), Records: df.Count(), Bytes: df.FileSizeBytes(),
		DataSequence: e.SequenceNum(), Snapshot: e.SnapshotID(),
		lower: df.LowerBoundValues(), upper: df.UpperBoundValues(), Spec: int(df.SpecID()),
	}
	switch df.ContentType() {
	case iceberg.EntryContentData:
		f.Content = Data
	case iceberg.EntryContentPosDeletes:
		f.Content = PositionDeletes
	case iceberg.EntryContentEqDeletes:
		f.Content = EqualityDeletes
	}
	var err error
	if s.kind == mixed.StoreChange {
		f.Info, err = mixed.ParseChange(f.Path, f.DataSequence)
	} else {
		f.Info, err = mixed.ParseBase(f.Path)
	}
	if err != nil {
		return File{}, fmt.Errorf("file %s: %w: no reader can place its rows (Amoro's never ends on node 0): take it out of the store, and write its rows under another name",
			f.Path, err)
	}
	if f.Partition, err = places.of(md, df); err != nil {
		return File{}, err
	}
	f.FirstOffset, f.LastOffset = longBound(f.lower[mixed.FileOffsetID]), longBound(f.upper[mixed.FileOffsetID])
	if f.Content == PositionDeletes {
		f.LowerPath, f.UpperPath = string(f.lower[mixed.DeletePathID]), string(f.upper[mixed.DeletePathID])
		if ref := df.ReferencedDataFile(); ref != nil {
			f.Referenced = *ref
		} else if f.LowerPath == f.UpperPath {
			f.Referenced = f.LowerPath
		}
	}
	return f, nil
}

// Foreign says why a live file of the store can be neither read nor optimized as mixed tables are, or returns nil: equality deletes in
// a base store; in a change store whatever is not I or ED. Amoro's optimizer refuses them, too, and its readers fail at them or leave
// them out unseen (spec/mixed-format.md 3.4, 6.2). Error: ErrUnsupported.
func (s *Store) Foreign(f *File) error {
	switch {
	case s.kind == mixed.StoreBase && f.Content == EqualityDeletes:
		return fmt.Errorf("%s: file %s has equality deletes, which no mixed table has: have the engine that wrote it rewrite the table's data files, "+
			"or roll the table back to before it: %w", s.id, f.Path, ErrUnsupported)
	case s.kind == mixed.StoreChange && (f.Info.Type != mixed.Insert && f.Info.Type != mixed.Delete || f.Content != Data):
		return fmt.Errorf("%s: file %s is of type %s, and change stores have I and ED only: take it out of the store, and write its rows "+
			"under a name of their type: %w", s.id, f.Path, f.Info.Type, ErrUnsupported)
	}
	return nil
}

func longBound(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b)) //nolint:gosec // bits, not a number
}
