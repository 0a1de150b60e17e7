package table

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"

	"github.com/apache/iceberg-go/puffin"
	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"firn/changelog/mixed"
)

// Amoro keeps optimized sequences in Puffin statistics of the base store, found by a mark in snapshot summaries. Tables that it
// has optimized stay in that form, because there the property is ignored: each snapshot that we add to them is marked and
// has its own statistics file. So do tables whose SequenceForm is SequencePuffin.

// Blob types of Amoro's statistics files.
const (
	blobSequence = mixed.BlobOptimizedSequence
	blobTime     = "base-optimized-time"
)

// puffinMaps are the two blobs, by partition path.
type puffinMaps struct {
	Sequence map[string]int64
	Time     map[string]int64 // ms since 1970-01-01 UTC
}

// readPuffin returns the optimized sequences that the newest marked ancestor of the current snapshot has; marked is false if
// there is none. Error: ErrCorrupt, a mark without its statistics, or with ones that no reader can take.
func (t *Table) readPuffin(md ice.Metadata) (seqs map[string]int64, marked bool, err error) {
	seqs, err = t.catalog.markedMap(md, mixed.MarkOptimizedSequence, blobSequence)
	return seqs, seqs != nil, err
}

// markedMap returns the map that the newest ancestor of the current snapshot with a mark has in its statistics, by normalized
// path; nil if none is marked. As in Amoro's readers exactly one entry of that snapshot must list the blob, and its file have
// one such blob.
// Source: amoro:amoro-format-iceberg/src/main/java/org/apache/amoro/utils/MixedTableUtil.java.
func (c *Catalog) markedMap(md ice.Metadata, mark, blob string) (map[string]int64, error) {
	return c.markedMapAt(md, md.CurrentSnapshot(), mark, blob)
}

// markedMapAt is markedMap as it was at a snapshot.
func (c *Catalog) markedMapAt(md ice.Metadata, at *ice.Snapshot, mark, blob string) (map[string]int64, error) {
	sn := markedFrom(md, at, mark)
	if sn == nil {
		return nil, nil //nolint:nilnil // not marked, as documented
	}
	var paths []string
	for st := range md.Statistics() {
		lists := func(b ice.BlobMetadata) bool { return string(b.Type) == blob }
		if st.SnapshotID == sn.SnapshotID && slices.ContainsFunc(st.BlobMetadata, lists) {
			paths = append(paths, st.StatisticsPath)
		}
	}
	if len(paths) != 1 {
		return nil, fmt.Errorf("snapshot %d of the base store is marked %s and has %d entries of statistics with the blob %s, not one %q: "+
			"without it nobody can tell which change files are merged. Restore the table's metadata from before the entry was lost or "+
			"doubled, or roll the base store back to an earlier snapshot: %w", sn.SnapshotID, mark, len(paths), blob, paths, ErrCorrupt)
	}
	m, err := c.readBlob(paths[0], blob)
	if err != nil {
		return nil, fmt.Errorf("statistics %s of base snapshot %d: %w; restore the file, or roll the base store back to an earlier snapshot",
			paths[0], sn.SnapshotID, err)
	}
	return m, nil
}

// markedSnapshot returns the newest ancestor of the current snapshot (or itself) that bears a mark, or nil.
func markedSnapshot(md ice.Metadata, mark string) *ice.Snapshot {
	return markedFrom(md, md.CurrentSnapshot(), mark)
}

func markedFrom(md ice.Metadata, at *ice.Snapshot, mark string) *ice.Snapshot {
	for sn := range ancestorsOf(md, at) {
		if sn.Summary != nil {
			if _, ok := sn.Summary.Properties[mark]; ok {
				return sn
			}
		}
	}
	return nil
}

// ancestors yields the current snapshot, its parent and so on, as far as they are kept.
func ancestors(md ice.Metadata) iter.Seq[*ice.Snapshot] {
	return ancestorsOf(md, md.CurrentSnapshot())
}

func ancestorsOf(md ice.Metadata, at *ice.Snapshot) iter.Seq[*ice.Snapshot] {
	return func(yield func(*ice.Snapshot) bool) {
		left := len(md.Snapshots()) // damaged metadata may have a circle
		for sn := at; sn != nil && left > 0 && yield(sn); left-- {
			if sn.ParentSnapshotID == nil {
				return
			}
			sn = md.SnapshotByID(*sn.ParentSnapshotID)
		}
	}
}

// readBlob returns the map in the only blob of a type in a statistics file, by normalized path. Error: ErrCorrupt.
func (c *Catalog) readBlob(path, blob string) (map[string]int64, error) {
	b, err := c.fs.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	r, err := puffin.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	at := -1
	for i, have := range r.Blobs() {
		switch {
		case string(have.Type) != blob:
		case at >= 0:
			return nil, fmt.Errorf("%w: it has two blobs %s", ErrCorrupt, blob)
		default:
			at = i
		}
	}
	if at < 0 {
		return nil, fmt.Errorf("%w: it has no blob %s", ErrCorrupt, blob)
	}
	data, err := r.ReadBlob(at)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	var raw map[string]int64
	if err := json.Unmarshal(data.Data, &raw); err != nil || raw == nil {
		return nil, fmt.Errorf("%w: blob %s is no object of numbers: %w", ErrCorrupt, blob, err)
	}
	m := make(map[string]int64, len(raw))
	for k, n := range raw { // of two spellings of a partition the one that is further on has seen the other
		k = mixed.NormalizePath(k)
		if have, ok := m[k]; !ok || n > have {
			m[k] = n
		}
	}
	return m, nil
}

// publishPuffin marks the edit's snapshot and gives it statistics: seqs, or what t has if seqs is nil. Where new sequences have
// no snapshot to hang on, there is an empty one with a summary. A table that had them in its property keeps that as it is, as
// after Amoro's own switch: while a marked ancestor is there nobody reads it, and after a roll-back to before the mark it is right.
func (s *Store) publishPuffin(e *edit, t *Table, seqs map[string]int64, summary map[string]string) error {
	if e.snapshot == nil {
		if seqs == nil || maps.Equal(seqs, t.optimized) {
			return nil
		}
		e.snapshot = &change{operation: ice.OpAppend, summary: summary}
	}
	m := &puffinMaps{Sequence: t.optimized}
	var err error
	if m.Time, err = s.optimizedTimes(); err != nil {
		return err
	}
	if seqs != nil {
		now := s.table.catalog.options.Now().UnixMilli()
		for path, n := range seqs {
			if have, ok := t.optimized[path]; !ok || n != have {
				m.Time[path] = now
			}
		}
		maps.DeleteFunc(m.Time, func(path string, _ int64) bool { _, ok := seqs[path]; return !ok })
		m.Sequence = seqs
	}
	e.snapshot.summary = merged(e.snapshot.summary, map[string]string{
		mixed.MarkOptimizedSequence: "true", mixed.MarkBaseOptimizedTime: "true",
	})
	e.puffin = m
	return nil
}

// optimizedTimes returns when each partition was last optimized: from statistics, where an ancestor has their mark (not every one
// with the other mark has it), else from the property.
func (s *Store) optimizedTimes() (map[string]int64, error) {
	md := s.loaded.metadata
	times, err := s.table.catalog.markedMap(md, mixed.MarkBaseOptimizedTime, blobTime)
	if times != nil || err != nil {
		return times, err
	}
	props, err := mixed.ParsePartitionProperties(md.Properties()[mixed.PropPartitions])
	if err != nil {
		return nil, err
	}
	return props.Times(), nil
}

// writePuffin writes the statistics file of a produced snapshot.
func (s *Store) writePuffin(p *produced, m *puffinMaps) (ice.Update, error) {
	var buf bytes.Buffer
	w, err := puffin.NewWriter(&buf)
	if err != nil {
		return nil, fmt.Errorf("write statistics: %w", err)
	}
	st := ice.StatisticsFile{SnapshotID: p.snapshot.SnapshotID}
	for _, blob := range []struct {
		kind string
		data map[string]int64
	}{{blobSequence, m.Sequence}, {blobTime, m.Time}} {
		data, err := json.Marshal(blob.data)
		if err != nil {
			return nil, fmt.Errorf("write statistics: %w", err)
		}
		_, err = w.AddBlob(puffin.BlobMetadataInput{
			Type: puffin.BlobType(blob.kind), SnapshotID: p.snapshot.SnapshotID, SequenceNumber: p.snapshot.SequenceNumber,
			Fields: []int32{},
		}, data)
		if err != nil {
			return nil, fmt.Errorf("write statistics: %w", err)
		}
		st.BlobMetadata = append(st.BlobMetadata, ice.BlobMetadata{
			Type: ice.BlobType(blob.kind), SnapshotID: p.snapshot.SnapshotID, SequenceNumber: p.snapshot.SequenceNumber,
			Fields: []int32{}, Properties: map[string]string{},
		})
	}
	if err := w.Finish(); err != nil {
		return nil, fmt.Errorf("write statistics: %w", err)
	}
	b := buf.Bytes()
	// A footer is magic, payload, payload size, flags, magic: four bytes each but the payload.
	payload := int32(binary.LittleEndian.Uint32(b[len(b)-12:])) //nolint:gosec // the file's own number
	st.StatisticsPath = fmt.Sprintf("%s/data/puffin/%d-%s.puffin", s.Location(), p.snapshot.SnapshotID, uuid.New())
	st.FileSizeInBytes, st.FileFooterSizeInBytes = int64(len(b)), int64(payload)+16
	p.written = append(p.written, st.StatisticsPath)
	if err := s.table.catalog.fs.WriteFile(st.StatisticsPath, b); err != nil {
		return nil, err
	}
	return ice.NewSetStatisticsUpdate(st), nil
}
