package table

import (
	"encoding/binary"
	"fmt"
	"math/big"

	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
	ice "github.com/apache/iceberg-go/table"
	"github.com/google/uuid"

	"firn/changelog"
	"firn/changelog/mixed"
)

// firstPartitionID is the field id of a spec's first field; the others follow. Iceberg's.
const firstPartitionID = iceberg.PartitionDataIDStart

// icebergSpec returns a spec, which is bound to the schema, as Iceberg's of a new table.
func icebergSpec(spec changelog.PartitionSpec, schema *iceberg.Schema) (iceberg.PartitionSpec, error) {
	options := make([]iceberg.PartitionOption, len(spec))
	for i, f := range spec {
		t, err := iceberg.ParseTransform(f.Transform.String())
		if err != nil {
			return iceberg.PartitionSpec{}, fmt.Errorf("partition field %s: %w: %w", f, ErrUnsupported, err)
		}
		id := firstPartitionID + i
		options[i] = iceberg.AddPartitionFieldBySourceID(f.SourceID, f.Name, t, schema, &id)
	}
	s, err := iceberg.NewPartitionSpecOpts(options...)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return s, nil
}

// CheckPartition returns a spec bound to the schema of a new table. Error: ErrUnsupported, what is wrong with it there.
func CheckPartition(spec changelog.PartitionSpec, schema *changelog.Schema) (changelog.PartitionSpec, error) {
	spec, err := spec.Bind(schema)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if f := secondDecimal(spec, schema); f != nil {
		return nil, fmt.Errorf("partition field %s: a spec has one field of decimal values at most: manifests are not written with two: %w", f, ErrUnsupported)
	}
	if len(schema.Key) == 0 {
		return spec, nil // it has no optimized sequences: what Amoro reads of partition paths does not matter
	}
	if why := mixed.BadPartition(spec); why != "" {
		return nil, fmt.Errorf("partition field %s: %w", why, ErrUnsupported)
	}
	return spec, nil
}

// secondDecimal returns the second field of a spec whose values are decimals; nil if there is none. iceberg-go 0.7.0 gives the Avro
// types of both one name, which makes a manifest's schema invalid.
func secondDecimal(spec changelog.PartitionSpec, schema *changelog.Schema) *changelog.PartitionField {
	seen := false
	for i, o := range spec.Ordinals(schema) {
		if spec[i].Transform.ResultType(schema.Columns[o].Type).Kind != changelog.Decimal {
			continue
		}
		if seen {
			return &spec[i]
		}
		seen = true
	}
	return nil
}

// partitionSpecOf returns a store's partition spec. Error: ErrUnsupported, it is one that firn does not write to.
func partitionSpecOf(md ice.Metadata, schema *changelog.Schema) (changelog.PartitionSpec, error) {
	have := md.PartitionSpec()
	var spec changelog.PartitionSpec
	for i, f := range have.Fields() {
		t, err := changelog.ParseTransform(f.Transform.String())
		if err != nil {
			return nil, fmt.Errorf("partition field %q: %w: %w", f.Name, ErrUnsupported, err)
		}
		o := schema.OrdinalOf(f.SourceID())
		if o < 0 || len(f.SourceIDs) != 1 {
			return nil, fmt.Errorf("partition field %q is not of one top-level column: %w", f.Name, ErrUnsupported)
		}
		if f.FieldID != firstPartitionID+i {
			return nil, fmt.Errorf("partition field %q has the id %d, not %d: the spec was changed: %w", f.Name, f.FieldID, firstPartitionID+i, ErrUnsupported)
		}
		spec = append(spec, changelog.PartitionField{Name: f.Name, Column: schema.Columns[o].Name, SourceID: f.SourceID(), Transform: t})
	}
	spec, err := spec.Bind(schema)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return spec, nil
}

// Partition returns the spec of the table's partitions; empty: it has none. Error: ErrUnsupported, one that firn does not
// write to; the table can be read all the same.
func (t *Table) Partition() (changelog.PartitionSpec, error) {
	spec, err := t.base.partition()
	if err != nil || t.change == nil {
		return spec, err
	}
	if why := mixed.BadPartition(spec); why != "" {
		return nil, fmt.Errorf("%s: partition field %s: %w", t.Name(), why, ErrUnsupported)
	}
	other, err := t.change.partition()
	if err != nil {
		return nil, err
	}
	if a, b := t.base.loaded.metadata, t.change.loaded.metadata; !spec.Equal(other) || a.DefaultPartitionSpec() != b.DefaultPartitionSpec() {
		return nil, fmt.Errorf("%s: its stores differ in their partition specs, %q (id %d) and %q (id %d): %w", t.Name(),
			spec.Strings(), a.DefaultPartitionSpec(), other.Strings(), b.DefaultPartitionSpec(), ErrUnsupported)
	}
	return spec, nil
}

func (s *Store) partition() (changelog.PartitionSpec, error) {
	spec, err := partitionSpecOf(s.loaded.metadata, s.table.schemas.Current())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.id, err)
	}
	return spec, nil
}

// CheckSpec refuses a data file whose rows cannot be deleted: it is of another partition spec than the store's current one, which
// new files are written under, and position deletes have to be of their data file's. Error: ErrUnsupported.
func (s *Store) CheckSpec(f *File) error {
	now := s.loaded.metadata.DefaultPartitionSpec()
	if f.Spec == now {
		return nil
	}
	return fmt.Errorf("%s: rows of file %s cannot be deleted: it is of partition spec %d, the table's is %d: have the file's rows written anew "+
		"under spec %d (rewrite_data_files of Spark does): %w", s.id, f.Path, f.Spec, now, now, ErrUnsupported)
}

// Partitioner tells of rows in which partition they are. It reuses its buffers: not safe for concurrent use. Memory: the
// paths of the partitions that it has met.
type Partitioner struct {
	spec     changelog.PartitionSpec
	ordinals []int
	columns  []*changelog.Type
	types    []*changelog.Type // of the values
	values   []changelog.Value
	tuple    []byte
	paths    map[string]string // by tuple
}

// Partitioner returns the Partitioner of rows of schema, which is one of the table's; nil if the table has no partitions.
// Error: ErrUnsupported.
func (t *Table) Partitioner(schema *changelog.Schema) (*Partitioner, error) {
	spec, err := t.Partition()
	if err != nil || len(spec) == 0 {
		return nil, err
	}
	return newPartitioner(spec, schema)
}

func newPartitioner(spec changelog.PartitionSpec, schema *changelog.Schema) (*Partitioner, error) {
	p := &Partitioner{spec: spec, ordinals: spec.Ordinals(schema), values: make([]changelog.Value, len(spec)), paths: map[string]string{}}
	for i, o := range p.ordinals {
		if o < 0 {
			return nil, fmt.Errorf("schema %d lacks column %q of the partition spec: %w", schema.ID, spec[i].Column, ErrUnsupported)
		}
		column := schema.Columns[o].Type
		p.columns, p.types = append(p.columns, column), append(p.types, spec[i].Transform.ResultType(column))
	}
	return p, nil
}

// InKey reports whether the key tells the partition: no row ever leaves its own.
func (p *Partitioner) InKey(schema *changelog.Schema) bool { return p.spec.InKey(schema) }

// Path returns the path (mixed.NormalizePath) of the partition of a row: values has one value a column of the schema.
// Equal paths are one string.
func (p *Partitioner) Path(values []changelog.Value) string {
	p.tuple = p.tuple[:0]
	for i, o := range p.ordinals {
		v := values[o]
		if t := p.spec[i].Transform; t.Kind == changelog.Bucket {
			v = bucket(t.N, p.columns[i], v)
		} else {
			v = t.Apply(p.columns[i], v)
		}
		p.values[i] = v
		p.tuple = appendTuple(p.tuple, v)
	}
	path, ok := p.paths[string(p.tuple)]
	if !ok {
		path = mixed.PartitionPath(p.spec, p.types, p.values)
		p.paths[string(p.tuple)] = path
	}
	return path
}

func appendTuple(dst []byte, v changelog.Value) []byte {
	if v.Null {
		return append(dst, 0)
	}
	dst = binary.AppendVarint(append(dst, 1), v.I)
	return append(binary.AppendUvarint(dst, uint64(len(v.B))), v.B...)
}

// bucket is Iceberg's bucket transform.
func bucket(n int, column *changelog.Type, v changelog.Value) changelog.Value {
	if v.Null {
		return changelog.NullValue
	}
	out := iceberg.BucketTransform{NumBuckets: n}.Apply(iceberg.Optional[iceberg.Literal]{Val: literalOf(column, v), Valid: true})
	number, ok := out.Val.(iceberg.Int32Literal)
	if !ok {
		panic("table: PartitionSpec.Bind lets no " + column.String() + " into bucket")
	}
	return changelog.Value{I: int64(number)}
}

// literalOf returns a value that is not null as Iceberg's.
func literalOf(t *changelog.Type, v changelog.Value) iceberg.Literal {
	switch t.Kind {
	case changelog.Boolean:
		return iceberg.BoolLiteral(v.I != 0)
	case changelog.Int:
		return iceberg.Int32Literal(v.I) //nolint:gosec // an int column's
	case changelog.Long:
		return iceberg.Int64Literal(v.I)
	case changelog.Date:
		return iceberg.DateLiteral(v.I) //nolint:gosec // a date column's
	case changelog.Time:
		return iceberg.TimeLiteral(v.I)
	case changelog.Timestamp, changelog.TimestampTZ:
		return iceberg.TimestampLiteral(v.I)
	case changelog.TimestampNS, changelog.TimestampTZNS:
		return iceberg.TimestampNsLiteral(v.I)
	case changelog.String:
		return iceberg.StringLiteral(v.B)
	case changelog.Binary:
		return iceberg.BinaryLiteral(v.B)
	case changelog.Fixed:
		return iceberg.FixedLiteral(v.B)
	case changelog.UUID:
		return iceberg.UUIDLiteral(uuid.UUID(v.B))
	case changelog.Decimal:
		return iceberg.DecimalLiteral{Val: decimal128.FromBigInt(changelog.BigInt(v.B)), Scale: t.Scale}
	case changelog.Float, changelog.Double, changelog.Struct, changelog.List, changelog.Map:
	}
	panic("table: a " + t.String() + " has no partition value")
}

// tupleOf returns the partition values of a path, by field id, as the library writes them to manifests.
func (s *Store) tupleOf(spec changelog.PartitionSpec, path string) (map[int]any, error) {
	types := s.resultTypes(spec)
	values, err := mixed.ParsePartitionPath(spec, types, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if len(values) == 0 {
		return nil, nil
	}
	tuple := make(map[int]any, len(values))
	for i, v := range values {
		tuple[firstPartitionID+i] = nil
		if !v.Null {
			tuple[firstPartitionID+i] = literalOf(types[i], v).Any()
		}
	}
	return tuple, nil
}

func (s *Store) resultTypes(spec changelog.PartitionSpec) []*changelog.Type {
	schema := s.table.schemas.Current()
	types := make([]*changelog.Type, len(spec))
	for i, o := range spec.Ordinals(schema) {
		types[i] = spec[i].Transform.ResultType(schema.Columns[o].Type)
	}
	return types
}

// partitions reads the partitions of a store's files.
type partitions struct {
	store *Store
	spec  changelog.PartitionSpec
	types []*changelog.Type
	known bool              // spec is one that firn writes to
	names map[string]string // paths by spelling: files share few
}

func (s *Store) newPartitions() *partitions {
	p := &partitions{store: s, names: map[string]string{}}
	spec, err := s.partition()
	if p.known = err == nil; p.known {
		p.spec, p.types = spec, s.resultTypes(spec)
	}
	return p
}

// of returns a file's partition path. Errors: ErrUnsupported, a keyed table's file of another spec than the current one
// (spec/mixed-format.md 1.4), or a value whose path reads as another one; ErrCorrupt.
func (p *partitions) of(md ice.Metadata, df iceberg.DataFile) (string, error) {
	if now := md.DefaultPartitionSpec(); int(df.SpecID()) != now && p.store.table.keyed() {
		return "", fmt.Errorf("file %s is of partition spec %d, the table's is %d: a keyed mixed table keeps its first spec: write its rows anew under "+
			"spec %d, or take them into a new table: %w", df.FilePath(), df.SpecID(), now, now, ErrUnsupported)
	}
	spec := md.PartitionSpecByID(int(df.SpecID()))
	if spec == nil {
		return "", fmt.Errorf("file %s: partition spec %d: %w", df.FilePath(), df.SpecID(), ErrCorrupt)
	}
	if spec.IsUnpartitioned() {
		return "", nil
	}
	path, err := p.path(md, spec, df)
	if err != nil {
		return "", fmt.Errorf("file %s: %w", df.FilePath(), err)
	}
	if same, ok := p.names[path]; ok {
		return same, nil
	}
	p.names[path] = path
	return path, nil
}

func (p *partitions) path(md ice.Metadata, spec *iceberg.PartitionSpec, df iceberg.DataFile) (string, error) {
	if !p.known || int(df.SpecID()) != md.DefaultPartitionSpec() {
		schema := md.CurrentSchema()
		return mixed.NormalizePath(spec.PartitionToPath(ice.GetPartitionRecord(df, spec.PartitionType(schema)), schema)), nil
	}
	tuple := df.Partition()
	values := make([]changelog.Value, len(p.spec))
	for i, f := range p.spec {
		v, err := valueOf(p.types[i], tuple[firstPartitionID+i])
		if err != nil {
			return "", fmt.Errorf("partition field %s: %w", f, err)
		}
		if text := string(v.B); p.types[i].Kind == changelog.String && !v.Null && (text == "null" || text == changelog.HiveNull) {
			return "", fmt.Errorf("partition field %s: the value %q reads as no value: %w", f, text, ErrUnsupported)
		}
		values[i] = v
	}
	return mixed.PartitionPath(p.spec, p.types, values), nil
}

// valueOf returns a partition value of a manifest, of the type or of one that was widened to it.
func valueOf(t *changelog.Type, v any) (changelog.Value, error) {
	switch v := v.(type) {
	case nil:
		return changelog.NullValue, nil
	case bool:
		if v {
			return changelog.Value{I: 1}, nil
		}
		return changelog.Value{}, nil
	case int32:
		return changelog.Value{I: int64(v)}, nil
	case int64:
		return changelog.Value{I: v}, nil
	case iceberg.Date:
		return changelog.Value{I: int64(v)}, nil
	case string:
		return changelog.Value{B: []byte(v)}, nil
	case iceberg.Decimal:
		return decimalValue(t, v.Val.BigInt(), v.Scale)
	case iceberg.DecimalLiteral:
		return decimalValue(t, v.Val.BigInt(), v.Scale)
	}
	return changelog.Value{}, fmt.Errorf("a %T for a %s: %w", v, t, ErrCorrupt)
}

func decimalValue(t *changelog.Type, n *big.Int, scale int) (changelog.Value, error) {
	if scale != t.Scale {
		return changelog.Value{}, fmt.Errorf("a decimal of scale %d for a %s: %w", scale, t, ErrCorrupt)
	}
	return changelog.Value{B: changelog.AppendBigInt(nil, n)}, nil
}

// withBounds returns m with the bounds of its partitions that are empty texts: the library writes them as none, and readers that
// filter by the column then skip the manifest.
func withBounds(m iceberg.ManifestFile, version int) iceberg.ManifestFile {
	fields := m.Partitions()
	lost := false
	for i := range fields {
		f := &fields[i]
		for _, bound := range []**[]byte{&f.LowerBound, &f.UpperBound} {
			if *bound != nil && *(*bound) == nil {
				*bound, lost = &[]byte{}, true
			}
		}
	}
	if !lost {
		return m
	}
	b := iceberg.NewManifestFile(version, m.FilePath(), m.Length(), m.PartitionSpecID(), m.SnapshotID()).
		SequenceNum(m.SequenceNum(), m.MinSequenceNum()).Content(m.ManifestContent()).
		AddedFiles(m.AddedDataFiles()).ExistingFiles(m.ExistingDataFiles()).DeletedFiles(m.DeletedDataFiles()).
		AddedRows(m.AddedRows()).ExistingRows(m.ExistingRows()).DeletedRows(m.DeletedRows()).Partitions(fields)
	if key := m.KeyMetadata(); key != nil {
		b.KeyMetadata(key)
	}
	return b.Build()
}
