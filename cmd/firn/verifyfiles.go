package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// checkStatistics: rows and bytes that the manifests tell of each live file are those of the file and its footer.
func (v *verifier) checkStatistics(ctx context.Context, t *verified, c *check) error {
	var files, rows, size int64
	for _, store := range t.lake.Stores() {
		live, err := store.Files(ctx)
		if err != nil {
			return err
		}
		for _, f := range live {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := store.Foreign(&f); err != nil {
				c.differ("%s", err)
				continue
			}
			have, length, err := footer(t.lake, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Path, err)
			}
			if have != f.Records || length != f.Bytes {
				c.differ("%s: the manifest says %d rows in %d bytes, the file %d in %d", f.Path, f.Records, f.Bytes, have, length)
			}
			files, rows, size = files+1, rows+have, size+length
		}
	}
	c.Detail = fmt.Sprintf("%d files, %d rows, %s", files, rows, bytesText(size))
	return nil
}

// footer returns how many rows and bytes a file has.
func footer(t *table.Table, f table.File) (rows, size int64, err error) {
	in, err := t.FS().Open(f.Path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if f.Content == table.PositionDeletes {
		r, err := datafile.OpenDeletes(in, in.Size(), datafile.Options{})
		if err != nil {
			return 0, 0, err
		}
		return r.Rows(), in.Size(), r.Close()
	}
	r, err := datafile.Open(in, in.Size(), t.Schemas().Current(), false, datafile.Options{})
	if err != nil {
		return 0, 0, err
	}
	return r.Rows(), in.Size(), r.Close()
}

// checkData reads every live file whole.
func (v *verifier) checkData(ctx context.Context, t *verified, c *check) error {
	var files, rows, deletes int64
	records := map[string]int64{} // rows of base files, by path
	for _, store := range t.lake.Stores() {
		live, err := store.Files(ctx)
		if err != nil {
			return err
		}
		for _, f := range live {
			if f.Content == table.Data {
				if store.Kind() == mixed.StoreBase {
					records[f.Path] = f.Records
				}
				n, err := checkFile(ctx, t.lake, f, store.Kind() == mixed.StoreChange, c)
				if err != nil {
					return fmt.Errorf("%s: %w", f.Path, err)
				}
				files, rows = files+1, rows+n
			}
		}
		for _, f := range live {
			if f.Content == table.PositionDeletes {
				n, err := checkDeletes(t.lake, f, records, c)
				if err != nil {
					return fmt.Errorf("%s: %w", f.Path, err)
				}
				files, deletes = files+1, deletes+n
			}
		}
	}
	c.Detail = fmt.Sprintf("%d files, %d rows and %d position deletes read", files, rows, deletes)
	return nil
}

// checkFile reads a file of rows: each value lies within the bounds of the manifest, each change has its number.
func checkFile(ctx context.Context, t *table.Table, f table.File, change bool, c *check) (rows int64, err error) {
	in, err := t.FS().Open(f.Path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	schema := t.Schemas().Current()
	r, err := datafile.Open(in, in.Size(), schema, change, datafile.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	bounds := boundsOf(schema, &f)
	var places *table.Partitioner
	if f.Partition != "" {
		if places, err = t.Partitioner(schema); err != nil {
			return 0, err
		}
	}
	view := datafile.NewRows(schema)
	for batch, err := range r.Batches(ctx) {
		if err != nil {
			return rows, err
		}
		if err := view.Reset(batch.RecordBatch); err != nil {
			return rows, err
		}
		for i := range view.Len() {
			rows++
			if places != nil {
				if p := places.Path(view.Values(i)); p != f.Partition {
					c.differ("%s, row %d: belongs to partition %s, not %s", f.Path, rows-1, p, f.Partition)
				}
			}
			for o, value := range view.Values(i) {
				if !bounds[o].holds(value) {
					c.differ("%s, row %d: column %q is outside of the manifest's bounds", f.Path, rows-1, schema.Columns[o].Name)
				}
			}
			if !change {
				continue
			}
			offset, ok := view.Offset(i)
			if !ok {
				c.differ("%s, row %d: no %s: readers fail at it once a delete is pending", f.Path, rows-1, mixed.FileOffsetColumn)
				continue
			}
			if f.LastOffset > 0 && (offset < f.FirstOffset || offset > f.LastOffset) {
				c.differ("%s, row %d: %s %d, the manifest says %d to %d", f.Path, rows-1, mixed.FileOffsetColumn, offset, f.FirstOffset, f.LastOffset)
			}
		}
	}
	if rows != f.Records {
		c.differ("%s: the manifest says %d rows, %d can be read", f.Path, f.Records, rows)
	}
	return rows, nil
}

// bound is the manifest's bounds of a column, of the kinds that they can be told of simply. nil: none.
type bound struct {
	kind         changelog.Kind
	lower, upper []byte
}

func boundsOf(s *changelog.Schema, f *table.File) []bound {
	out := make([]bound, len(s.Columns))
	for i, col := range s.Columns {
		lower, upper := f.Bounds(col.ID)
		out[i] = bound{kind: col.Type.Kind, lower: lower, upper: upper}
	}
	return out
}

// holds reports whether a value lies within the bounds (Iceberg's single-value encoding).
func (b *bound) holds(v changelog.Value) bool {
	if v.Null {
		return true
	}
	switch b.kind {
	case changelog.Int, changelog.Long, changelog.Date, changelog.Time, changelog.Timestamp, changelog.TimestampTZ,
		changelog.TimestampNS, changelog.TimestampTZNS:
		lower, okLower := integer(b.lower)
		upper, okUpper := integer(b.upper)
		return (!okLower || v.I >= lower) && (!okUpper || v.I <= upper)
	case changelog.String, changelog.Binary:
		return (b.lower == nil || bytes.Compare(v.B, b.lower) >= 0) && (b.upper == nil || bytes.Compare(v.B, b.upper) <= 0)
	default:
		return true
	}
}

func integer(b []byte) (int64, bool) {
	switch len(b) {
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b))), true //nolint:gosec // bits
	case 8:
		return int64(binary.LittleEndian.Uint64(b)), true //nolint:gosec // bits
	}
	return 0, false
}

// checkDeletes reads a position delete file: each position is one of a row of its file. Deletes of files that are no
// longer live are harmless and only left over.
func checkDeletes(t *table.Table, f table.File, records map[string]int64, c *check) (n int64, err error) {
	in, err := t.FS().Open(f.Path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := datafile.OpenDeletes(in, in.Size(), datafile.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = r.Each(func(path []byte, pos int64) error {
		n++
		if rows, ok := records[string(path)]; ok && (pos < 0 || pos >= rows) {
			c.differ("%s: deletes row %d of %s, which has %d", f.Path, pos, path, rows)
		}
		return nil
	})
	if err == nil && n != f.Records {
		c.differ("%s: the manifest says %d deletes, %d can be read", f.Path, f.Records, n)
	}
	return n, err
}

// inFlight is how young a file is that no snapshot names yet, or that a crash left: such files are no difference. It is
// longer than the optimizer leaves them (Options.OrphanAge and OrphanInterval).
const inFlight = 60 * time.Hour

// ownName is the shape of the names that firn and Iceberg's writers give to files: data and delete files, manifests and
// their lists, metadata, statistics, and files being written.
var ownName = regexp.MustCompile(`^(?:\d+-(?:B|I|ED|PD)-\d+-\d+-\d+-\d+-\d+\.parquet|snap-.*\.avro|.*-m\d+\.avro|\d+-[0-9a-f-]{36}(?:\.gz)?\.metadata\.json|.*\.puffin|\.firn-.*\.tmp)$`)

// checkReferences: all files that the kept snapshots name are there, and nothing else lies in the stores' directories.
func (v *verifier) checkReferences(ctx context.Context, t *verified, c *check) error {
	var there, young int
	named := map[string]bool{}
	for _, store := range t.lake.Stores() {
		if err := addReferences(ctx, store, t.lake.FS(), named); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(named)) {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if again, err := t.lake.Reload(ctx); err == nil && !sameMetadata(again, t.lake) {
				return fmt.Errorf("%s: %w", path, fs.ErrNotExist) // expired meanwhile: begin afresh
			}
			c.differ("missing: %s", path)
		}
	}
	for _, store := range t.lake.Stores() {
		err := filepath.WalkDir(localPath(store.Location()), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreGone(err)
			}
			if hadoopFile(d.Name()) {
				return nil
			}
			there++
			if named[path] {
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return ignoreGone(err)
			}
			age := time.Since(info.ModTime())
			if age < inFlight && ownName.MatchString(d.Name()) {
				young++
				return nil
			}
			c.differ("not referenced: %s (%s, %s old)", path, bytesText(info.Size()), age.Round(time.Second))
			return nil
		})
		if err != nil {
			return err
		}
	}
	c.Detail = fmt.Sprintf("%d files named by snapshots, %d in the directories", len(named), there)
	if young > 0 {
		c.Detail += fmt.Sprintf(" (%d of them less than %s old, of commits under way or a crash)", young, inFlight)
	}
	return nil
}

// ignoreGone: files may be expired while the directories are walked.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func sameMetadata(a, b *table.Table) bool {
	for i, s := range a.Stores() {
		if s.MetadataLocation() != b.Stores()[i].MetadataLocation() {
			return false
		}
	}
	return true
}

// addReferences adds the local paths of all files that a store's metadata names.
func addReferences(ctx context.Context, s *table.Store, files table.FS, named map[string]bool) error {
	text, err := files.ReadFile(s.MetadataLocation())
	if err != nil {
		return err
	}
	var md struct {
		Log []struct {
			File string `json:"metadata-file"`
		} `json:"metadata-log"`
		Snapshots []struct {
			ID   int64  `json:"snapshot-id"`
			List string `json:"manifest-list"`
		} `json:"snapshots"`
		Statistics []struct {
			Path string `json:"statistics-path"`
		} `json:"statistics"`
	}
	if err := json.Unmarshal(text, &md); err != nil {
		return fmt.Errorf("%s: %w", s.MetadataLocation(), err)
	}
	named[localPath(s.MetadataLocation())] = true
	for _, l := range md.Log {
		named[localPath(l.File)] = true
	}
	for _, st := range md.Statistics {
		named[localPath(st.Path)] = true
	}
	for _, sn := range md.Snapshots {
		named[localPath(sn.List)] = true
		list, err := files.ReadFile(sn.List)
		if err != nil {
			return err
		}
		manifests, err := iceberg.ReadManifestList(bytes.NewReader(list))
		if err != nil {
			return fmt.Errorf("%s: %w", sn.List, err)
		}
		for _, m := range manifests {
			named[localPath(m.FilePath())] = true
		}
		live, err := s.FilesAt(ctx, sn.ID)
		if err != nil {
			return err
		}
		for _, f := range live {
			named[localPath(f.Path)] = true
		}
	}
	return nil
}

// localPath returns the path of a file: location.
func localPath(location string) string {
	path, ok := strings.CutPrefix(location, "file:")
	if !ok {
		return filepath.Clean(location)
	}
	return filepath.Clean("/" + strings.TrimLeft(path, "/"))
}

// hadoopFile reports whether a file is one that Hadoop's catalog and local file system keep beside those of a table: an adopted one has them.
func hadoopFile(name string) bool {
	return name == "version-hint.text" || strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".crc")
}
