package merge

import (
	"context"
	"fmt"

	"firn/changelog"
	"firn/changelog/mixed"
)

// LastOffset reads the _file_offset of every row of the change files and returns the greatest. Error: changelog.ErrCorrupt, a row
// has none: no delete of its key could be told to come before or after it (spec/mixed-format.md 2.1).
func (r *Reader) LastOffset(ctx context.Context) (last int64, err error) {
	none := &changelog.Schema{}
	if err := none.Index(); err != nil {
		return 0, fmt.Errorf("offsets: %w", err)
	}
	for _, f := range distinct(r.snap.Change) {
		if f.Info.Type != mixed.Insert && f.Info.Type != mixed.Delete {
			continue
		}
		err := r.each(ctx, f, none, true, func(row *fileRow) error {
			if row.offset < 0 {
				return fmt.Errorf("%s, row %d has no %s: %w", f.Path, row.ordinal, mixed.FileOffsetColumn, changelog.ErrCorrupt)
			}
			last = max(last, row.offset)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return last, nil
}
