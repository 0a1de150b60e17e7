package table

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
)

// metricsMode are the modes of write.metadata.metrics.* (org.apache.iceberg.MetricsModes).
var metricsMode = regexp.MustCompile(`^(?i:\s*(none|counts|full|truncate\(0*[1-9][0-9]{0,8}\))\s*)$`)

// metricsProperties returns the properties without modes of metrics that are none: Iceberg's Java library takes the default in
// their place, and a commit must not fail for good by a property that anybody may set.
func metricsProperties(props iceberg.Properties) iceberg.Properties {
	bad := func(key, mode string) bool {
		mode, rest := strings.TrimSpace(mode), strings.TrimPrefix(key, ice.MetricsModeColumnConfPrefix+".")
		return (key == ice.DefaultWriteMetricsModeKey || rest != key) && !metricsMode.MatchString(mode)
	}
	for key, mode := range props {
		if bad(key, mode) {
			props = maps.Clone(props)
			maps.DeleteFunc(props, bad)
			return props
		}
	}
	return props
}

// flatten makes the members of structs columns of their own for the library, which keeps no bounds of what is nested; Iceberg's Java
// library does, of all but repeated values. Files without structs stay as they are.
func flatten(args *ice.DataFileArgs, footer Footer) error {
	if !slices.ContainsFunc(args.Schema.Fields(), func(f iceberg.NestedField) bool { _, is := f.Type.(*iceberg.StructType); return is }) {
		return nil
	}
	var leaves schema.FieldList
	var columns []iceberg.NestedField
	props := maps.Clone(args.Properties)
	for i := range footer.Schema.NumColumns() {
		leaf := footer.Schema.Column(i)
		node, id := leaf.SchemaNode(), int(leaf.SchemaNode().FieldID())
		typ, ok := args.Schema.FindTypeByID(id)
		if !ok {
			return fmt.Errorf("column %s has field id %d, which is not in the schema: %w", leaf.Path(), id, ErrCorrupt)
		}
		name := leaf.Path() // with a dot in it the library takes it for nested
		if leaf.MaxRepetitionLevel() == 0 {
			name = strings.Join(leaf.ColumnPath(), "\x00") // which is in no name
			if mode, ok := props[ice.MetricsModeColumnConfPrefix+"."+leaf.Path()]; ok {
				props[ice.MetricsModeColumnConfPrefix+"."+name] = mode
			}
		}
		primitive, err := schema.NewPrimitiveNodeLogical(name, node.RepetitionType(), node.LogicalType(), leaf.PhysicalType(), leaf.TypeLength(), node.FieldID())
		if err != nil {
			return fmt.Errorf("column %s: %w", leaf.Path(), err)
		}
		primitive.ColumnOrder = leaf.ColumnOrder()
		leaves, columns = append(leaves, primitive), append(columns, iceberg.NestedField{ID: id, Name: name, Type: typ})
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Repeated, leaves, -1)
	if err != nil {
		return fmt.Errorf("schema of the footer: %w", err)
	}
	flat := *footer
	flat.Schema = schema.NewSchema(root)
	args.Metadata, args.Schema, args.Properties = &flat, iceberg.NewSchema(args.Schema.ID, columns...), props
	return nil
}

// amended returns what the library made of a footer, with the counts of values that are no number, which footers do not have, and
// without the bounds of columns that they do not tell for every row group.
func amended(df iceberg.DataFile, args *ice.DataFileArgs, f *NewFile) (iceberg.DataFile, error) {
	below, above, err := unboundedColumns(f.Footer)
	if err != nil {
		return nil, err
	}
	if len(below)+len(above) == 0 && f.NaNs == nil {
		return df, nil
	}
	logical := map[int]string{}
	for _, p := range args.Spec.Fields() {
		source, _ := args.Schema.FindFieldByID(p.SourceID())
		switch p.Transform.ResultType(source.Type).(type) {
		case iceberg.DateType:
			logical[p.FieldID] = "date"
		case iceberg.DecimalType:
			logical[p.FieldID] = "decimal"
		}
	}
	b, err := iceberg.NewDataFileBuilder(args.Spec, df.ContentType(), df.FilePath(), df.FileFormat(), args.PartitionValues, logical, nil, df.Count(), df.FileSizeBytes())
	if err != nil {
		return nil, err
	}
	counts := df.ValueCounts()
	lower, upper, nans := df.LowerBoundValues(), df.UpperBoundValues(), maps.Clone(f.NaNs)
	maps.DeleteFunc(lower, func(id int, _ []byte) bool { return below[id] })
	maps.DeleteFunc(upper, func(id int, _ []byte) bool { return above[id] })
	maps.DeleteFunc(nans, func(id int, _ int64) bool { _, counted := counts[id]; return !counted })
	b.ColumnSizes(df.ColumnSizes()).ValueCounts(counts).NullValueCounts(df.NullValueCounts()).NaNValueCounts(nans).SplitOffsets(df.SplitOffsets())
	if len(lower) > 0 {
		b.LowerBoundValues(lower)
	}
	if len(upper) > 0 {
		b.UpperBoundValues(upper)
	}
	return b.Build(), nil
}

// unboundedColumns returns the field ids of columns that have values in a row group for which the footer does not tell the least, or
// the greatest: writers leave out those that are long. (Floats without bounds are no numbers: those bound nothing.) The library takes
// them for empty ones, and what the row group holds would lie outside of the bounds.
func unboundedColumns(footer Footer) (below, above map[int]bool, err error) {
	below, above = map[int]bool{}, map[int]bool{}
	for g, group := range footer.RowGroups {
		if len(group.Columns) != footer.Schema.NumColumns() {
			return nil, nil, fmt.Errorf("row group %d has %d columns, not %d: %w", g, len(group.Columns), footer.Schema.NumColumns(), ErrCorrupt)
		}
		for c, chunk := range group.Columns {
			column := footer.Schema.Column(c)
			if t := column.PhysicalType(); t != parquet.Types.ByteArray && t != parquet.Types.FixedLenByteArray {
				continue
			}
			stats, id := chunk.MetaData.Statistics, int(column.SchemaNode().FieldID())
			if stats != nil && stats.NullCount != nil && *stats.NullCount == chunk.MetaData.NumValues {
				continue
			}
			if stats == nil || stats.MinValue == nil {
				below[id] = true
			}
			if stats == nil || stats.MaxValue == nil {
				above[id] = true
			}
		}
	}
	return below, above, nil
}
