package table

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"

	"firn/changelog"
	"firn/changelog/mixed"
)

// icebergSchema returns s as Iceberg's, with the ids of s. offset appends _file_offset, which is in files and in no table.
func icebergSchema(s *changelog.Schema, offset bool) *iceberg.Schema {
	fields := icebergFields(s.Columns)
	if offset {
		fields = append(fields, iceberg.NestedField{
			ID: mixed.FileOffsetID, Name: mixed.FileOffsetColumn, Type: iceberg.PrimitiveTypes.Int64,
		})
	}
	return iceberg.NewSchema(int(s.ID), fields...)
}

func icebergFields(columns []changelog.Column) []iceberg.NestedField {
	fields := make([]iceberg.NestedField, 0, len(columns)+1)
	for _, c := range columns {
		fields = append(fields, iceberg.NestedField{ID: c.ID, Name: c.Name, Type: icebergType(c.Type), Required: c.Required, Doc: c.Doc})
	}
	return fields
}

func icebergType(t *changelog.Type) iceberg.Type {
	switch t.Kind {
	case changelog.Boolean:
		return iceberg.PrimitiveTypes.Bool
	case changelog.Int:
		return iceberg.PrimitiveTypes.Int32
	case changelog.Long:
		return iceberg.PrimitiveTypes.Int64
	case changelog.Float:
		return iceberg.PrimitiveTypes.Float32
	case changelog.Double:
		return iceberg.PrimitiveTypes.Float64
	case changelog.Decimal:
		return iceberg.DecimalTypeOf(t.Precision, t.Scale)
	case changelog.Date:
		return iceberg.PrimitiveTypes.Date
	case changelog.Time:
		return iceberg.PrimitiveTypes.Time
	case changelog.Timestamp:
		return iceberg.PrimitiveTypes.Timestamp
	case changelog.TimestampTZ:
		return iceberg.PrimitiveTypes.TimestampTz
	case changelog.TimestampNS:
		return iceberg.PrimitiveTypes.TimestampNs
	case changelog.TimestampTZNS:
		return iceberg.PrimitiveTypes.TimestampTzNs
	case changelog.String:
		return iceberg.PrimitiveTypes.String
	case changelog.UUID:
		return iceberg.PrimitiveTypes.UUID
	case changelog.Fixed:
		return iceberg.FixedTypeOf(t.Length)
	case changelog.Binary:
		return iceberg.PrimitiveTypes.Binary
	case changelog.Struct:
		return &iceberg.StructType{FieldList: icebergFields(t.Fields)}
	case changelog.List:
		e := t.Fields[0]
		return &iceberg.ListType{ElementID: e.ID, Element: icebergType(e.Type), ElementRequired: e.Required}
	case changelog.Map:
		k, v := t.Fields[0], t.Fields[1]
		return &iceberg.MapType{
			KeyID: k.ID, KeyType: icebergType(k.Type), ValueID: v.ID, ValueType: icebergType(v.Type), ValueRequired: v.Required,
		}
	}
	panic("table: column of unknown kind " + t.Kind.String())
}

// schemasOf returns a table's schemas from its metadata. Error: ErrUnsupported.
func schemasOf(md ice.Metadata) (changelog.Schemas, error) {
	all := slices.Clone(md.Schemas())
	slices.SortFunc(all, func(a, b *iceberg.Schema) int { return a.ID - b.ID })
	key := mixed.KeyColumns(md.Properties())
	history := make(changelog.Schemas, len(all))
	last := 0
	for i, s := range all {
		if s.ID != i {
			return nil, fmt.Errorf("schema ids are not dense: %d follows %d others: %w", s.ID, i, ErrUnsupported)
		}
		c, err := changelogSchema(s, key)
		if err != nil {
			return nil, fmt.Errorf("schema %d: %w", s.ID, err)
		}
		last = max(last, s.HighestFieldID())
		c.LastID = last
		history[i] = c
	}
	if md.CurrentSchema().ID != len(all)-1 {
		return nil, fmt.Errorf("current schema %d is not the last of %d: %w", md.CurrentSchema().ID, len(all), ErrUnsupported)
	}
	history.Current().LastID = max(last, md.LastColumnID())
	return history, nil
}

// checkSchemas holds the schemas of the two stores against each other: the base store has at most one more, which a crash
// between the two commits leaves and the next SyncSchemas mends (spec/mixed-format.md 1.4). Error: ErrUnsupported.
func (t *Table) checkSchemas() error {
	if t.change == nil {
		return nil
	}
	have := t.change.loaded.metadata.Schemas()
	if n := len(t.schemas) - len(have); n < 0 || n > 1 {
		return fmt.Errorf("%s has %d schemas and its change store %s %d: the base store may be one ahead, no more; "+
			"repeat the schema changes that the shorter list lacks there, one at a time: %w", t.id, len(t.schemas), t.change.id, len(have), ErrUnsupported)
	}
	for _, s := range have {
		if s.ID >= len(t.schemas) || !sameSchema(s, icebergSchema(t.schemas[s.ID], false)) {
			return fmt.Errorf("schema %d of %s differs from that of its change store %s: drop the change of the one that is wrong, "+
				"or restore both from before it: %w", s.ID, t.id, t.change.id, ErrUnsupported)
		}
	}
	return nil
}

// OffRoot returns a file whose rows are of one tree node among several, or "": a base file, or a change file that is not
// merged. What another hash of a key would look for elsewhere.
func (t *Table) OffRoot(ctx context.Context) (string, error) {
	for _, s := range t.Stores() {
		files, err := s.Files(ctx)
		if err != nil {
			return "", err
		}
		for _, f := range files {
			if f.Info.Node.Mask > 0 && f.Content == Data && (s.kind == mixed.StoreBase || !t.Merged(f)) {
				return f.Path, nil
			}
		}
	}
	return "", nil
}

// InStep reports whether both stores have n schemas at least, and the same number of them.
func (t *Table) InStep(n int) bool {
	return len(t.schemas) >= n && (t.change == nil || len(t.change.loaded.metadata.Schemas()) == len(t.schemas))
}

func changelogSchema(s *iceberg.Schema, key []string) (*changelog.Schema, error) {
	columns, err := changelogColumns(s.Fields())
	if err != nil {
		return nil, err
	}
	c := &changelog.Schema{ID: changelog.SchemaID(s.ID), Columns: columns} //nolint:gosec // dense from 0
	for _, name := range key {
		o := c.Ordinal(name)
		if o < 0 {
			return nil, fmt.Errorf("key column %q is not in it: %w", name, ErrUnsupported)
		}
		c.Key = append(c.Key, c.Columns[o].ID)
	}
	if err := c.Index(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return c, nil
}

func changelogColumns(fields []iceberg.NestedField) ([]changelog.Column, error) {
	columns := make([]changelog.Column, len(fields))
	for i, f := range fields {
		t, err := changelogType(f.Type)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		columns[i] = changelog.Column{ID: f.ID, Name: f.Name, Type: t, Required: f.Required, Doc: f.Doc}
	}
	return columns, nil
}

func changelogType(t iceberg.Type) (*changelog.Type, error) {
	switch t := t.(type) {
	case iceberg.DecimalType:
		return changelog.DecimalOf(t.Precision(), t.Scale()), nil
	case iceberg.FixedType:
		return &changelog.Type{Kind: changelog.Fixed, Length: t.Len()}, nil
	case *iceberg.StructType:
		fields, err := changelogColumns(t.FieldList)
		return &changelog.Type{Kind: changelog.Struct, Fields: fields}, err
	case *iceberg.ListType:
		fields, err := changelogColumns([]iceberg.NestedField{t.ElementField()})
		return &changelog.Type{Kind: changelog.List, Fields: fields}, err
	case *iceberg.MapType:
		fields, err := changelogColumns([]iceberg.NestedField{t.KeyField(), t.ValueField()})
		return &changelog.Type{Kind: changelog.Map, Fields: fields}, err
	}
	for k := changelog.Boolean; k <= changelog.TimestampTZNS; k++ {
		p := changelog.Primitive(k)
		if !p.Nested() && k != changelog.Decimal && k != changelog.Fixed && icebergType(p).Equals(t) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("type %s: %w", t, ErrUnsupported)
}

// sameSchema reports whether two schemas have the same columns: ids, names, types and nullability, nested ones too.
func sameSchema(a, b *iceberg.Schema) bool {
	as := a.AsStruct()
	bs := b.AsStruct()
	return as.Equals(&bs)
}
