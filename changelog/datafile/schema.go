// Package datafile writes and reads the Parquet files of mixed tables: change files (rows and their _file_offset), base
// files and position deletes. Rows come and go as changelog.Row or as Arrow batches; no value is boxed on the way.
//
// Columns are found by field id. A reader gives batches in the schema that it is asked for: columns that a file lacks
// are null, narrower types are widened. Writers and readers hold a bounded number of rows.
package datafile

import (
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"

	"firn/changelog"
	"firn/changelog/mixed"
)

// fieldIDKey is the member of an Arrow field's metadata that becomes the Parquet field id.
const fieldIDKey = "PARQUET:field_id"

// ArrowSchema returns the Arrow schema of a table's files: one field a column, with field ids, and _file_offset at
// the end if offset. It panics on a type of no known kind.
func ArrowSchema(s *changelog.Schema, offset bool) *arrow.Schema {
	fields := make([]arrow.Field, 0, len(s.Columns)+1)
	for i := range s.Columns {
		fields = append(fields, arrowField(&s.Columns[i]))
	}
	if offset {
		fields = append(fields, arrow.Field{
			Name: mixed.FileOffsetColumn, Type: arrow.PrimitiveTypes.Int64, Nullable: true, Metadata: fieldID(mixed.FileOffsetID),
		})
	}
	return arrow.NewSchema(fields, nil)
}

func fieldID(id int) arrow.Metadata {
	return arrow.NewMetadata([]string{fieldIDKey}, []string{strconv.Itoa(id)})
}

func arrowField(c *changelog.Column) arrow.Field {
	return arrow.Field{Name: c.Name, Type: arrowType(c.Type), Nullable: !c.Required, Metadata: fieldID(c.ID)}
}

func arrowType(t *changelog.Type) arrow.DataType {
	switch t.Kind {
	case changelog.Boolean:
		return arrow.FixedWidthTypes.Boolean
	case changelog.Int:
		return arrow.PrimitiveTypes.Int32
	case changelog.Long:
		return arrow.PrimitiveTypes.Int64
	case changelog.Float:
		return arrow.PrimitiveTypes.Float32
	case changelog.Double:
		return arrow.PrimitiveTypes.Float64
	case changelog.Decimal:
		return &arrow.Decimal128Type{Precision: int32(t.Precision), Scale: int32(t.Scale)} //nolint:gosec // at most 38
	case changelog.Date:
		return arrow.FixedWidthTypes.Date32
	case changelog.Time:
		return arrow.FixedWidthTypes.Time64us
	case changelog.Timestamp:
		return &arrow.TimestampType{Unit: arrow.Microsecond}
	case changelog.TimestampTZ:
		return arrow.FixedWidthTypes.Timestamp_us
	case changelog.TimestampNS:
		return &arrow.TimestampType{Unit: arrow.Nanosecond}
	case changelog.TimestampTZNS:
		return arrow.FixedWidthTypes.Timestamp_ns
	case changelog.String:
		return arrow.BinaryTypes.String
	case changelog.UUID:
		return extensions.NewUUIDType()
	case changelog.Fixed:
		return &arrow.FixedSizeBinaryType{ByteWidth: t.Length}
	case changelog.Binary:
		return arrow.BinaryTypes.Binary
	case changelog.Struct:
		fields := make([]arrow.Field, len(t.Fields))
		for i := range t.Fields {
			fields[i] = arrowField(&t.Fields[i])
		}
		return arrow.StructOf(fields...)
	case changelog.List:
		return arrow.ListOfField(arrowField(&t.Fields[0]))
	case changelog.Map:
		return arrow.MapOfFields(arrowField(&t.Fields[0]), arrowField(&t.Fields[1]))
	}
	panic("datafile: column of unknown kind " + t.Kind.String())
}

// Project returns a schema of only those columns of s that keep names the field ids of, in the order of s: what a
// reader is opened with to read no others. The key columns that are kept stay the key if all of them are. The result
// has the SchemaID of s but is not one of the table's history.
func Project(s *changelog.Schema, keep ...int) (*changelog.Schema, error) {
	p := &changelog.Schema{ID: s.ID, LastID: s.LastID}
	wanted := make(map[int]bool, len(keep))
	for _, id := range keep {
		if s.OrdinalOf(id) < 0 {
			return nil, fmt.Errorf("project schema %d: no column with field id %d", s.ID, id)
		}
		wanted[id] = true
	}
	for _, c := range s.Columns {
		if wanted[c.ID] {
			p.Columns = append(p.Columns, c)
		}
	}
	for _, id := range s.Key {
		if !wanted[id] {
			p.Key = nil
			break
		}
		p.Key = append(p.Key, id)
	}
	return p, p.Index()
}

// ProjectKey returns the schema of only the key columns of s.
func ProjectKey(s *changelog.Schema) (*changelog.Schema, error) { return Project(s, s.Key...) }

// Projector decodes rows of any schema of a table's history into values of one of them. It keeps one Projection for each
// schema that it meets and is not safe for concurrent use.
type Projector struct {
	history changelog.Schemas
	to      *changelog.Schema
	from    []*changelog.Projection // by SchemaID
}

// NewProjector returns a projector of rows of history to the schema to.
func NewProjector(history changelog.Schemas, to *changelog.Schema) *Projector {
	return &Projector{history: history, to: to, from: make([]*changelog.Projection, len(history))}
}

// Values decodes r: one Value a column of the target, valid until the next call and as long as r's bytes are. Errors:
// changelog.ErrCorrupt, changelog.ErrIncompatible.
func (p *Projector) Values(r changelog.Row) ([]changelog.Value, error) {
	s, err := p.history.Of(r)
	if err != nil {
		return nil, err
	}
	if p.from[s.ID] == nil {
		if p.from[s.ID], err = changelog.NewProjection(s, p.to); err != nil {
			return nil, err
		}
	}
	return p.from[s.ID].Values(r)
}
