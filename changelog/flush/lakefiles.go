package flush

import (
	"context"

	"firn/changelog/merge"
	"firn/changelog/table"
)

// LakeFiles opens the files of a table for package merge, which does not know of catalogs.
type LakeFiles struct{ FS table.FS }

// Open implements merge.Opener.
func (l LakeFiles) Open(_ context.Context, path string) (merge.ReadAtCloser, int64, error) {
	in, err := l.FS.Open(path)
	if err != nil {
		return nil, 0, err
	}
	return in, in.Size(), nil
}

// MergeFile tells package merge of a file of a table.
func MergeFile(f *table.File) merge.File {
	return merge.File{Path: f.Path, Partition: f.Partition, Sequence: f.DataSequence, Records: f.Records, Info: f.Info}
}
