package merge

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"

	"firn/changelog"
	"firn/changelog/mixed"
)

// Action is what a row of a change file is: Amoro's _change_action.
type Action string

// The actions.
const (
	ActionInsert Action = "INSERT"
	ActionDelete Action = "DELETE"
)

// ChangeRow is one row of the change store with the columns that Amoro's readers add. Its bytes are valid until the
// next row.
type ChangeRow struct {
	Action Action         // _change_action
	Txn    int64          // _transaction_id
	Offset int64          // _file_offset; -1: the file has none
	Node   mixed.TreeNode // _tree_node
	Row    changelog.Row  // of the Reader's schema
}

// Changes yields the rows of the change store as it stands, optimized or not, by transaction and file. An error comes
// last. Memory: a batch of one file.
func (r *Reader) Changes(ctx context.Context) iter.Seq2[ChangeRow, error] {
	files := distinct(r.snap.Change)
	files = slices.DeleteFunc(files, func(f File) bool {
		return f.Info.Type != mixed.Insert && f.Info.Type != mixed.Delete
	})
	slices.SortStableFunc(files, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Info.Txn, b.Info.Txn), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Path, b.Path))
	})
	return func(yield func(ChangeRow, error) bool) {
		var enc []byte
		for _, f := range files {
			out := ChangeRow{Action: ActionInsert, Txn: f.Info.Txn, Node: f.Info.Node}
			if f.Info.Type == mixed.Delete {
				out.Action = ActionDelete
			}
			err := r.each(ctx, f, r.schema, true, func(row *fileRow) error {
				enc = changelog.AppendRow(enc[:0], r.schema, row.values)
				out.Offset, out.Row = row.offset, enc
				if !yield(out, nil) {
					return errStop
				}
				return nil
			})
			if errors.Is(err, errStop) {
				return
			}
			if err != nil {
				yield(ChangeRow{}, err)
				return
			}
		}
	}
}
