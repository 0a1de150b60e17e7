package table

import (
	"context"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog"
)

// Unregister takes one Iceberg table, mixed or not, out of the catalog.
func (c *Catalog) Unregister(ctx context.Context, name string) error {
	id, err := parseIdent(name)
	if err != nil {
		return err
	}
	return c.backend.drop(ctx, id)
}

// AddSchema adds a schema to one store alone, as nobody should.
func AddSchema(ctx context.Context, s *Store, schema *changelog.Schema) error {
	return s.syncSchema(ctx, schema, plan{})
}

// AddForeign commits files to a store as an engine does that knows nothing of mixed tables: no mark, no sequence.
func AddForeign(ctx context.Context, s *Store, files ...NewFile) error {
	ch, err := s.changeOf(&BaseCommit{Add: files})
	if err != nil {
		return err
	}
	_, err = s.commit(ctx, plan{build: func(context.Context, *Store) (edit, error) {
		own := *ch
		return edit{snapshot: &own}, nil
	}})
	return err
}

// SetRef makes a branch or tag name a snapshot.
func SetRef(ctx context.Context, s *Store, name string, snapshot int64) error {
	kind := ice.TagRef
	if name == ice.MainBranch {
		kind = ice.BranchRef
	}
	_, err := s.commit(ctx, plan{build: func(context.Context, *Store) (edit, error) {
		return edit{updates: []ice.Update{ice.NewSetSnapshotRefUpdate(name, snapshot, kind, 0, 0, 0)}}, nil
	}})
	return err
}

// Statistics returns the paths of a store's statistics files, by snapshot.
func Statistics(s *Store) map[int64][]string {
	out := map[int64][]string{}
	for st := range s.loaded.metadata.Statistics() {
		out[st.SnapshotID] = append(out[st.SnapshotID], st.StatisticsPath)
	}
	return out
}

// Metrics is what a manifest says of a file's columns, by field id.
type Metrics struct {
	Sizes, Values, Nulls, NaNs map[int]int64
	Lower, Upper               map[int][]byte
}

// Metrics returns what a commit of the file to the store would say of it.
func (s *Store) Metrics(f NewFile) (Metrics, error) {
	files, err := s.dataFiles([]NewFile{f}, iceberg.EntryContentData)
	if err != nil {
		return Metrics{}, err
	}
	df := files[0]
	return Metrics{df.ColumnSizes(), df.ValueCounts(), df.NullValueCounts(), df.NaNValueCounts(), df.LowerBoundValues(), df.UpperBoundValues()}, nil
}
