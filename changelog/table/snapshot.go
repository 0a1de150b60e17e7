package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// change is what a snapshot does to the files of a store.
type change struct {
	operation     ice.Operation
	add           []iceberg.DataFile // data files
	addDeletes    []iceberg.DataFile // position deletes
	remove        map[string]bool    // paths of data files
	removeDeletes map[string]bool    // paths of delete files
	tolerant      bool               // files to remove that are not live are left aside; if all are, there is no snapshot
	mustLive      []string           // data files that must be live; "" is none
	dataSequence  int64              // of the added data files; 0: the snapshot's own
	planned       int64              // position deletes after this sequence must not name files to remove; 0: not looked for
	mergeAll      bool               // merge all manifests
	summary       map[string]string
}

func (c *change) files() int {
	return len(c.add) + len(c.addDeletes) + len(c.remove) + len(c.removeDeletes)
}

// dataFiles describes written files as manifests do, with the statistics of their footers.
func (s *Store) dataFiles(files []NewFile, content iceberg.ManifestEntryContent) ([]iceberg.DataFile, error) {
	md := s.loaded.metadata
	spec, err := s.table.Partition()
	if err != nil {
		return nil, err
	}
	out := make([]iceberg.DataFile, 0, len(files))
	for i := range files {
		f := &files[i]
		tuple, err := s.tupleOf(spec, f.Partition)
		if err != nil {
			return nil, fmt.Errorf("file %s: partition %q of %s: %w", f.Path, f.Partition, s.id, err)
		}
		args := ice.DataFileArgs{
			Spec: md.PartitionSpec(), Format: iceberg.ParquetFile, Metadata: f.Footer, FilePath: f.Path, FileSize: f.Bytes,
			Content: content, FormatVersion: md.Version(), Properties: metricsProperties(md.Properties()), PartitionValues: tuple,
		}
		if content == iceberg.EntryContentData {
			args.Schema = icebergSchema(f.Schema, f.Offset)
			if err := flatten(&args, f.Footer); err != nil {
				return nil, fmt.Errorf("file %s: %w", f.Path, err)
			}
		} else {
			args.Schema = iceberg.PositionalDeleteSchema
			// Whole paths as bounds: a reader then knows a file of deletes that names one data file.
			args.Properties = iceberg.Properties{"write.metadata.metrics.column.file_path": "full"}
			if f.Referenced != "" {
				args.ReferencedDataFile = &f.Referenced
			}
		}
		df, err := ice.DataFileFromMetadata(args)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		if df.Count() != f.Rows {
			return nil, fmt.Errorf("file %s: its footer has %d rows, not %d: %w", f.Path, df.Count(), f.Rows, ErrCorrupt)
		}
		if content == iceberg.EntryContentData {
			if df, err = amended(df, &args, f); err != nil {
				return nil, fmt.Errorf("file %s: %w", f.Path, err)
			}
		}
		out = append(out, df)
	}
	return out, nil
}

// produced is a snapshot with its manifests written, and not yet committed.
type produced struct {
	snapshot *ice.Snapshot
	written  []string // manifests and lists that only this snapshot names
}

// discard removes what was written for a snapshot that certainly was not committed.
func (p *produced) discard(fs FS) {
	if p == nil {
		return
	}
	for _, path := range p.written {
		_ = fs.Remove(path) // at worst a small orphan
	}
}

// updatesOf turns an edit into updates of the metadata; a snapshot's manifests are written on the way.
func (s *Store) updatesOf(ctx context.Context, e edit) (*produced, []ice.Update, error) {
	updates := e.updates
	set, unset := iceberg.Properties{}, []string(nil)
	for k, v := range e.properties {
		if v == "" {
			unset = append(unset, k)
		} else {
			set[k] = v
		}
	}
	if len(set) > 0 {
		updates = append(updates, ice.NewSetPropertiesUpdate(set))
	}
	if len(unset) > 0 {
		updates = append(updates, ice.NewRemovePropertiesUpdate(unset))
	}
	if e.claim {
		return s.claimed(updates)
	}
	if e.snapshot == nil {
		return nil, updates, nil
	}
	p, err := s.produce(ctx, e.snapshot)
	if p == nil || err != nil {
		return nil, updates, err
	}
	updates = append(updates, ice.NewAddSnapshotUpdate(p.snapshot),
		ice.NewSetSnapshotRefUpdate(ice.MainBranch, p.snapshot.SnapshotID, ice.BranchRef, 0, 0, 0))
	if e.puffin != nil {
		u, err := s.writePuffin(p, e.puffin)
		if err != nil {
			p.discard(s.table.catalog.fs)
			return nil, nil, err
		}
		updates = append(updates, u)
	}
	return p, updates, nil
}

// claimed adds to the updates of a claim a move of epochRef to a snapshot of its own: without files and without a parent, so that it
// keeps no file from expiry and is in no branch. The one that it pointed to before expires with the others.
func (s *Store) claimed(updates []ice.Update) (*produced, []ice.Update, error) {
	p := s.producer(&change{operation: ice.OpAppend, summary: map[string]string{PropClaim: "true"}})
	sn, err := p.finish(nil, nil)
	if err != nil {
		(&produced{written: p.written}).discard(s.table.catalog.fs)
		return nil, nil, err
	}
	return &produced{snapshot: sn, written: p.written}, append(updates, ice.NewAddSnapshotUpdate(sn),
		ice.NewSetSnapshotRefUpdate(epochRef, sn.SnapshotID, ice.TagRef, 0, 0, 0)), nil
}

// repairs returns updates that give statistics files written by Java the empty maps and lists that the library would
// write as null, which Java cannot read.
func repairs(md ice.Metadata) []ice.Update {
	var updates []ice.Update
	for st := range md.Statistics() {
		broken := false
		blobs := append([]ice.BlobMetadata(nil), st.BlobMetadata...)
		for i := range blobs {
			if blobs[i].Properties == nil {
				blobs[i].Properties, broken = map[string]string{}, true
			}
			if blobs[i].Fields == nil {
				blobs[i].Fields, broken = []int32{}, true
			}
		}
		if broken {
			st.BlobMetadata = blobs
			updates = append(updates, ice.NewSetStatisticsUpdate(st))
		}
	}
	return updates
}

// producer puts one snapshot together.
type producer struct {
	store    *Store
	md       ice.Metadata
	change   *change
	id       int64
	sequence int64
	commit   string // in the names of its files
	written  []string
	stats    fileStats
	found    map[string]bool // files to remove, and files that must be live, that are
}

// produce writes the manifests and the list of a new snapshot on the store's head. It returns nil for a tolerant change that has
// nothing to do. Error: ConflictError, a file to remove (or that must be live) is not.
func (s *Store) produce(ctx context.Context, ch *change) (_ *produced, err error) {
	p := s.producer(ch)
	defer func() {
		if err != nil {
			(&produced{written: p.written}).discard(s.table.catalog.fs)
		}
	}()
	head := p.md.CurrentSnapshot()
	old, err := s.table.catalog.manifests(head)
	if err != nil {
		return nil, err
	}
	kept, err := p.carry(ctx, old)
	if err != nil {
		return nil, err
	}
	if len(ch.remove)+len(ch.removeDeletes) > 0 && ch.tolerant && p.stats.removed() == 0 {
		return nil, nil //nolint:nilnil // nothing to do, as documented
	}
	if err := p.verify(head); err != nil {
		return nil, err
	}
	if err := p.verifyDeletes(ctx, head); err != nil {
		return nil, err
	}
	fresh, err := p.added()
	if err != nil {
		return nil, err
	}
	manifests, err := p.merge(ctx, append(fresh, kept...))
	if err != nil {
		return nil, err
	}
	sn, err := p.finish(head, manifests)
	if err != nil {
		return nil, err
	}
	return &produced{snapshot: sn, written: p.written}, nil
}

func (s *Store) producer(ch *change) *producer {
	return &producer{
		store: s, md: s.loaded.metadata, change: ch, id: newSnapshotID(s.loaded.metadata), commit: uuid.NewString(),
		sequence: s.loaded.metadata.LastSequenceNumber() + 1, found: map[string]bool{},
	}
}

func newSnapshotID(md ice.Metadata) int64 {
	for {
		id := rand.Int64() //nolint:gosec // unique, not secret; never negative
		if id != 0 && md.SnapshotByID(id) == nil {
			return id
		}
	}
}

// carry returns the manifests of the head that live on, those with files to remove rewritten without them.
func (p *producer) carry(ctx context.Context, old []iceberg.ManifestFile) ([]iceberg.ManifestFile, error) {
	var kept []iceberg.ManifestFile
	for _, m := range old {
		if !m.HasAddedFiles() && !m.HasExistingFiles() {
			continue // only deleted entries of an earlier snapshot
		}
		if now := p.md.DefaultPartitionSpec(); int(m.PartitionSpecID()) != now && p.store.table.keyed() {
			return nil, fmt.Errorf("%s has files of partition spec %d, its spec is %d: a keyed mixed table keeps its first spec: %w",
				p.store.id, m.PartitionSpecID(), now, ErrUnsupported)
		}
		remove := p.change.remove
		if m.ManifestContent() == iceberg.ManifestContentDeletes {
			remove = p.change.removeDeletes
		}
		if len(remove) == 0 && (len(p.change.mustLive) == 0 || m.ManifestContent() == iceberg.ManifestContentDeletes) {
			kept = append(kept, m)
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		m, err := p.without(m, remove)
		if err != nil {
			return nil, err
		}
		kept = append(kept, m)
	}
	return kept, nil
}

// without returns m, or if it names files to remove a manifest in its place that marks them deleted.
func (p *producer) without(m iceberg.ManifestFile, remove map[string]bool) (iceberg.ManifestFile, error) {
	var entries []iceberg.ManifestEntry
	hit := false
	for e, err := range m.Entries(libraryFS{p.store.table.catalog.fs}, true) {
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w: %w", m.FilePath(), ErrCorrupt, err)
		}
		entries = append(entries, e)
		path := e.DataFile().FilePath()
		hit = hit || remove[path]
		p.found[path] = p.found[path] || remove[path] || len(p.change.mustLive) > 0
	}
	if !hit {
		return m, nil
	}
	return p.writeManifest(m.ManifestContent(), int(m.PartitionSpecID()), func(w *iceberg.ManifestWriter) error {
		for _, e := range entries {
			if !remove[e.DataFile().FilePath()] {
				if err := w.Existing(e); err != nil {
					return err
				}
				continue
			}
			p.stats.remove(e.DataFile())
			if err := w.Delete(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// verify reports a file that the change needs and that is not there as a conflict.
func (p *producer) verify(head *ice.Snapshot) error {
	var want int64
	if head != nil {
		want = head.SnapshotID
	}
	missing := func(path string) error {
		return &ConflictError{
			Table: p.store.table.Name(), Store: p.store.kind, Head: want, Reason: "file " + path + " is not live any more",
		}
	}
	if !p.change.tolerant {
		for _, set := range []map[string]bool{p.change.remove, p.change.removeDeletes} {
			for path := range set {
				if !p.found[path] {
					return missing(path)
				}
			}
		}
	}
	for _, f := range p.change.add {
		p.found[f.FilePath()] = true
	}
	for _, path := range p.change.mustLive {
		if path != "" && !p.found[path] {
			return missing(path)
		}
	}
	return nil
}

// verifyDeletes reports position deletes that came after the plan and may name a file that is to be removed as a conflict.
// Iceberg's own rewrites do the same: org.apache.iceberg.MergingSnapshotProducer, validateNoNewDeletesForDataFiles.
func (p *producer) verifyDeletes(ctx context.Context, head *ice.Snapshot) error {
	ch := p.change
	if ch.planned == 0 || len(ch.remove) == 0 || head == nil || head.SequenceNumber <= ch.planned {
		return nil
	}
	places := p.store.newPartitions()
	for e, err := range p.store.table.catalog.entries(ctx, head, func(m iceberg.ManifestFile) bool {
		return m.ManifestContent() == iceberg.ManifestContentDeletes
	}) {
		if err != nil {
			return err
		}
		if e.SequenceNum() <= ch.planned || ch.removeDeletes[e.DataFile().FilePath()] {
			continue
		}
		f, err := p.store.fileOf(p.md, e, places)
		if err != nil {
			return err
		}
		if named := f.mayDelete(ch.remove); named != "" {
			return &ConflictError{
				Table: p.store.table.Name(), Store: p.store.kind, Head: head.SnapshotID,
				Reason: "delete file " + f.Path + " came after the plan and may delete rows of " + named,
			}
		}
	}
	return nil
}

// mayDelete returns one of the data files that a position-delete file may name rows of, or "".
func (f *File) mayDelete(paths map[string]bool) string {
	if f.Content != PositionDeletes {
		return "" // equality deletes apply to what replaces the files, too: it keeps their sequence number
	}
	if f.Referenced != "" {
		if paths[f.Referenced] {
			return f.Referenced
		}
		return ""
	}
	for path := range paths {
		if f.LowerPath <= path && (f.UpperPath == "" || path <= f.UpperPath || strings.HasPrefix(path, f.UpperPath)) {
			return path
		}
	}
	return ""
}

// added writes the manifests of the added files.
func (p *producer) added() ([]iceberg.ManifestFile, error) {
	var out []iceberg.ManifestFile
	for _, part := range []struct {
		content  iceberg.ManifestContent
		files    []iceberg.DataFile
		sequence int64
	}{
		{iceberg.ManifestContentData, p.change.add, p.change.dataSequence},
		{iceberg.ManifestContentDeletes, p.change.addDeletes, 0},
	} {
		if len(part.files) == 0 {
			continue
		}
		m, err := p.writeManifest(part.content, p.md.DefaultPartitionSpec(), func(w *iceberg.ManifestWriter) error {
			for _, f := range part.files {
				p.stats.add(f)
				b := iceberg.NewManifestEntryBuilder(iceberg.EntryStatusADDED, &p.id, f)
				if part.sequence > 0 {
					b = b.SequenceNum(part.sequence)
				}
				if err := w.Add(b.Build()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// merge joins the manifests of earlier snapshots, of each kind and partition spec, where there are too many.
func (p *producer) merge(ctx context.Context, manifests []iceberg.ManifestFile) ([]iceberg.ManifestFile, error) {
	type kind struct {
		content iceberg.ManifestContent
		spec    int32
	}
	groups := map[kind][]iceberg.ManifestFile{}
	var order []kind
	var out []iceberg.ManifestFile
	for _, m := range manifests {
		k := kind{m.ManifestContent(), m.PartitionSpecID()}
		if m.SnapshotID() == p.id { // this snapshot's own, with its added and deleted entries
			out = append(out, m)
			continue
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], m)
	}
	for _, k := range order {
		group := groups[k]
		if len(group) < 2 || len(group) <= p.store.table.catalog.options.ManifestsMax && !p.change.mergeAll {
			out = append(out, group...)
			continue
		}
		m, err := p.writeManifest(k.content, int(k.spec), func(w *iceberg.ManifestWriter) error {
			return p.copyLive(ctx, w, group)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (p *producer) copyLive(ctx context.Context, w *iceberg.ManifestWriter, group []iceberg.ManifestFile) error {
	for _, m := range group {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for e, err := range m.Entries(libraryFS{p.store.table.catalog.fs}, true) {
			if err != nil {
				return fmt.Errorf("manifest %s: %w: %w", m.FilePath(), ErrCorrupt, err)
			}
			if err := w.Existing(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeManifest writes one manifest of the new snapshot.
func (p *producer) writeManifest(content iceberg.ManifestContent, specID int, fill func(*iceberg.ManifestWriter) error) (iceberg.ManifestFile, error) {
	spec := p.md.PartitionSpecByID(specID)
	if spec == nil {
		return nil, fmt.Errorf("partition spec %d of %s: %w", specID, p.store.id, ErrCorrupt)
	}
	var buf bytes.Buffer
	w, err := iceberg.NewManifestWriter(p.md.Version(), &buf, *spec, p.md.CurrentSchema(), p.id,
		iceberg.WithManifestWriterContent(content))
	if err == nil {
		err = errors.Join(fill(w), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("write manifest of %s: %w", p.store.id, err)
	}
	path := fmt.Sprintf("%s/metadata/%s-m%d.avro", p.md.Location(), p.commit, len(p.written))
	m, err := w.ToManifestFile(path, int64(buf.Len()), iceberg.WithManifestFileContent(content))
	if err != nil {
		return nil, fmt.Errorf("write manifest of %s: %w", p.store.id, err)
	}
	return m, p.writeFile(path, buf.Bytes())
}

func (p *producer) writeFile(path string, content []byte) error {
	p.written = append(p.written, path)
	return p.store.table.catalog.fs.WriteFile(path, content)
}

// finish writes the manifest list and returns the snapshot.
func (p *producer) finish(head *ice.Snapshot, manifests []iceberg.ManifestFile) (*ice.Snapshot, error) {
	sn := &ice.Snapshot{
		SnapshotID: p.id, SequenceNumber: p.sequence,
		TimestampMs: max(p.store.table.catalog.options.Now().UnixMilli(), p.md.LastUpdatedMillis()),
	}
	schema := p.md.CurrentSchema().ID
	sn.SchemaID = &schema
	if head != nil {
		sn.ParentSnapshotID = &head.SnapshotID
	}
	sn.ManifestList = fmt.Sprintf("%s/metadata/snap-%d-1-%s.avro", p.md.Location(), p.id, p.commit)
	for i, m := range manifests {
		manifests[i] = withBounds(m, p.md.Version())
	}
	var buf bytes.Buffer
	if err := iceberg.WriteManifestList(p.md.Version(), &buf, p.id, sn.ParentSnapshotID, &p.sequence, 0, manifests); err != nil {
		return nil, fmt.Errorf("write manifest list of %s: %w", p.store.id, err)
	}
	if err := p.writeFile(sn.ManifestList, buf.Bytes()); err != nil {
		return nil, err
	}
	sn.Summary = &ice.Summary{Operation: p.change.operation, Properties: p.stats.summary(head, p.change.summary)}
	return sn, nil
}

// fileStats counts what a snapshot adds and removes.
type fileStats struct {
	addedData, addedDeletes, addedRecords, addedPositions, addedBytes            int64
	removedData, removedDeletes, removedRecords, removedPositions, removedBytes  int64
	addedEqualityFiles, removedEqualityFiles, addedEqualities, removedEqualities int64
	partitions                                                                   map[string]bool // with a change, by tuple
}

// in counts the file's partition.
func (s *fileStats) in(f iceberg.DataFile) {
	if s.partitions == nil {
		s.partitions = map[string]bool{}
	}
	s.partitions[fmt.Sprint(f.SpecID(), f.Partition())] = true // fmt prints maps in the order of their keys
}

func (s *fileStats) add(f iceberg.DataFile) {
	s.in(f)
	s.addedBytes += f.FileSizeBytes()
	switch f.ContentType() {
	case iceberg.EntryContentData:
		s.addedData++
		s.addedRecords += f.Count()
	case iceberg.EntryContentPosDeletes:
		s.addedDeletes++
		s.addedPositions += f.Count()
	case iceberg.EntryContentEqDeletes:
		s.addedEqualityFiles++
		s.addedEqualities += f.Count()
	}
}

func (s *fileStats) remove(f iceberg.DataFile) {
	s.in(f)
	s.removedBytes += f.FileSizeBytes()
	switch f.ContentType() {
	case iceberg.EntryContentData:
		s.removedData++
		s.removedRecords += f.Count()
	case iceberg.EntryContentPosDeletes:
		s.removedDeletes++
		s.removedPositions += f.Count()
	case iceberg.EntryContentEqDeletes:
		s.removedEqualityFiles++
		s.removedEqualities += f.Count()
	}
}

func (s *fileStats) removed() int64 { return s.removedData + s.removedDeletes + s.removedEqualityFiles }

// summary returns the snapshot's summary: the caller's keys and Iceberg's counters, which win.
// Source: iceberg:core/src/main/java/org/apache/iceberg/SnapshotSummary.java.
func (s *fileStats) summary(head *ice.Snapshot, user map[string]string) iceberg.Properties {
	out := iceberg.Properties{}
	maps.Copy(out, user)
	set := func(key string, n int64) {
		if n > 0 {
			out[key] = strconv.FormatInt(n, 10)
		}
	}
	set("added-data-files", s.addedData)
	set("deleted-data-files", s.removedData)
	set("added-delete-files", s.addedDeletes+s.addedEqualityFiles)
	set("removed-delete-files", s.removedDeletes+s.removedEqualityFiles)
	set("added-position-delete-files", s.addedDeletes)
	set("removed-position-delete-files", s.removedDeletes)
	set("removed-equality-delete-files", s.removedEqualityFiles)
	set("added-records", s.addedRecords)
	set("deleted-records", s.removedRecords)
	set("added-position-deletes", s.addedPositions)
	set("removed-position-deletes", s.removedPositions)
	set("removed-equality-deletes", s.removedEqualities)
	set("added-files-size", s.addedBytes)
	set("removed-files-size", s.removedBytes)
	total := func(key string, change int64) {
		before := int64(0)
		if head != nil {
			if head.Summary == nil {
				return
			}
			n, err := strconv.ParseInt(head.Summary.Properties[key], 10, 64)
			if err != nil {
				return // the parent does not tell: neither can this one
			}
			before = n
		}
		if before+change >= 0 {
			out[key] = strconv.FormatInt(before+change, 10)
		}
	}
	total("total-data-files", s.addedData-s.removedData)
	total("total-delete-files", s.addedDeletes+s.addedEqualityFiles-s.removedDeletes-s.removedEqualityFiles)
	total("total-records", s.addedRecords-s.removedRecords)
	total("total-files-size", s.addedBytes-s.removedBytes)
	total("total-position-deletes", s.addedPositions-s.removedPositions)
	total("total-equality-deletes", s.addedEqualities-s.removedEqualities)
	set("changed-partition-count", int64(len(s.partitions)))
	return out
}

// NewOp returns a random operation id for mixed.FileName: one a writer of files.
func NewOp() int64 { return rand.Int64() } //nolint:gosec // unique, not secret
