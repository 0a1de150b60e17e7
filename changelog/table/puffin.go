package table

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/apache/iceberg-go/puffin"
	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"firn/changelog/mixed"
)

// Amoro keeps optimized sequences in Puffin statistics of the base store, found by a mark in snapshot summaries. Tables that it
// has optimized stay in that form, because there the property is ignored: each snapshot that we add to them is marked and
// has its own statistics file.

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
// there is none. Error: ErrCorrupt, a mark without its statistics.
func (t *Table) readPuffin(md ice.Metadata) (seqs map[string]int64, marked bool, err error) {
	m, err := t.catalog.puffinOf(md)
	if m == nil || err != nil {
		return nil, false, err
	}
	return m.Sequence, true, nil
}

func (c *Catalog) puffinOf(md ice.Metadata) (*puffinMaps, error) {
	sn := markedSnapshot(md)
	if sn == nil {
		return nil, nil //nolint:nilnil // not marked, as documented
	}
	for st := range md.Statistics() {
		if st.SnapshotID != sn.SnapshotID {
			continue
		}
		m, err := c.readPuffinFile(st.StatisticsPath)
		if err != nil {
			return nil, err
		}
		if m.Sequence != nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("snapshot %d is marked and has no statistics: %w", sn.SnapshotID, ErrCorrupt)
}

// markedSnapshot returns the newest ancestor of the current snapshot (or itself) with Amoro's mark, or nil.
func markedSnapshot(md ice.Metadata) *ice.Snapshot {
	for sn := md.CurrentSnapshot(); sn != nil; sn = md.SnapshotByID(*sn.ParentSnapshotID) {
		if sn.Summary != nil {
			if _, ok := sn.Summary.Properties[mixed.MarkOptimizedSequence]; ok {
				return sn
			}
		}
		if sn.ParentSnapshotID == nil {
			return nil
		}
	}
	return nil
}

func (c *Catalog) readPuffinFile(path string) (*puffinMaps, error) {
	b, err := c.fs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := puffin.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("statistics %s: %w: %w", path, ErrCorrupt, err)
	}
	m := &puffinMaps{Time: map[string]int64{}}
	for i, blob := range r.Blobs() {
		if blob.Type != blobSequence && blob.Type != blobTime {
			continue
		}
		data, err := r.ReadBlob(i)
		if err != nil {
			return nil, fmt.Errorf("statistics %s: %w: %w", path, ErrCorrupt, err)
		}
		raw := map[string]int64{}
		if err := json.Unmarshal(data.Data, &raw); err != nil {
			return nil, fmt.Errorf("statistics %s: %w: %w", path, ErrCorrupt, err)
		}
		normal := make(map[string]int64, len(raw))
		for k, n := range raw {
			normal[mixed.NormalizePath(k)] = n
		}
		if blob.Type == blobSequence {
			m.Sequence = normal
		} else {
			m.Time = normal
		}
	}
	return m, nil
}

// publishPuffin marks the edit's snapshot and gives it statistics: seqs, or what the table has if seqs is nil. Where new
// sequences have no snapshot to hang on, an empty one is made.
func (s *Store) publishPuffin(e *edit, have, seqs map[string]int64) error {
	if e.snapshot == nil {
		if seqs == nil || maps.Equal(seqs, have) {
			return nil
		}
		e.snapshot = &change{operation: ice.OpAppend}
	}
	m, err := s.table.catalog.puffinOf(s.loaded.metadata)
	if err != nil {
		return err
	}
	if seqs != nil {
		now := s.table.catalog.options.Now().UnixMilli()
		for path, n := range seqs {
			if n != have[path] {
				m.Time[path] = now
			}
		}
		m.Sequence = seqs
	}
	e.snapshot.summary = merged(e.snapshot.summary, map[string]string{
		mixed.MarkOptimizedSequence: "true", mixed.MarkBaseOptimizedTime: "true",
	})
	e.puffin = m
	return nil
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
