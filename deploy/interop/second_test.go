package interop

// The second reader of mixed tables. It is written from spec/mixed-format.md alone (sections 3 to 6 are named where they are
// followed), holds everything in memory, and shares nothing with firn: iceberg-go decodes manifests, arrow-go decodes Parquet,
// the rest is here. Where a simpler way is slower it takes the simpler way.

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
)

// The metadata of an Iceberg table, as far as a read needs it.
type (
	metadata struct {
		Location   string            `json:"location"`
		Properties map[string]string `json:"properties"`
		Current    *int64            `json:"current-snapshot-id"`
		SchemaID   int               `json:"current-schema-id"`
		Schemas    []schema          `json:"schemas"`
		SpecID     int               `json:"default-spec-id"`
		Specs      []spec            `json:"partition-specs"`
		Snapshots  []snapshot        `json:"snapshots"`
		Statistics []statistics      `json:"statistics"`
	}
	schema struct {
		ID     int     `json:"schema-id"`
		Fields []field `json:"fields"`
	}
	field struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
		Type kind   `json:"type"`
	}
	spec struct {
		ID     int         `json:"spec-id"`
		Fields []specField `json:"fields"`
	}
	specField struct {
		Name      string `json:"name"`
		Transform string `json:"transform"`
		Source    int    `json:"source-id"`
		ID        int    `json:"field-id"`
	}
	snapshot struct {
		ID       int64             `json:"snapshot-id"`
		Parent   *int64            `json:"parent-snapshot-id"`
		Summary  map[string]string `json:"summary"`
		Manifest string            `json:"manifest-list"`
	}
	statistics struct {
		Snapshot int64  `json:"snapshot-id"`
		Path     string `json:"statistics-path"`
		Blobs    []struct {
			Type string `json:"type"`
		} `json:"blob-metadata"`
	}
)

// kind is a type: a primitive one, or a list.
type kind struct {
	name    string // decimal(9, 2) is decimal
	scale   int
	element *kind // of a list
}

var decimalType = regexp.MustCompile(`^decimal\(\d+, *(\d+)\)$`)

func (k *kind) UnmarshalJSON(b []byte) error {
	var nested struct {
		Type    string `json:"type"`
		Element *kind  `json:"element"`
	}
	if b[0] == '{' {
		err := json.Unmarshal(b, &nested)
		*k = kind{name: nested.Type, element: nested.Element}
		return err
	}
	if err := json.Unmarshal(b, &k.name); err != nil {
		return err
	}
	if m := decimalType.FindStringSubmatch(k.name); m != nil {
		k.name = "decimal"
		k.scale, _ = strconv.Atoi(m[1])
	}
	return nil
}

// second reads tables, and remembers what it read of a file: files are immutable.
type second struct {
	rows map[string][]map[int]any
}

func newSecond() *second { return &second{rows: map[string][]map[int]any{}} }

func onDisk(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "file:"), "//")
}

func readMetadata(path string) *metadata {
	m := &metadata{}
	check(json.Unmarshal(must(os.ReadFile(onDisk(path))), m))
	return m
}

func (m *metadata) schema() schema {
	return m.Schemas[slices.IndexFunc(m.Schemas, func(s schema) bool { return s.ID == m.SchemaID })]
}

func (m *metadata) spec() spec {
	return m.Specs[slices.IndexFunc(m.Specs, func(s spec) bool { return s.ID == m.SpecID })]
}

// head returns the current snapshot, nil if there is none.
func (m *metadata) head() *snapshot {
	if m.Current == nil {
		return nil
	}
	return m.snapshot(*m.Current)
}

func (m *metadata) snapshot(id int64) *snapshot {
	for i := range m.Snapshots {
		if m.Snapshots[i].ID == id {
			return &m.Snapshots[i]
		}
	}
	return nil
}

// lakeFile is a live file of a store, with what its name says.
type lakeFile struct {
	path      string
	deletes   bool // position deletes
	sequence  int64
	partition string // the values of its partition, decoded
	name
}

// name is what a file's name says (section 3).
type name struct {
	node uint64
	typ  string
	tx   int64
}

var fileName = regexp.MustCompile(`^\.?([0-9]+)-([0-9A-Za-z_]+)-([0-9]+)-([0-9]+)-([0-9]+)-.*$`)

// parse reads the last segment of a path by section 3.2; ok is false if it does not match.
func parse(path string) (n name, ok bool) {
	m := fileName.FindStringSubmatch(path[strings.LastIndexByte(path, '/')+1:])
	if m == nil || !slices.Contains([]string{"B", "I", "ED", "PD", "IED", "L"}, m[2]) {
		return name{}, false
	}
	node, tx := must(strconv.ParseUint(m[1], 10, 63)), must(strconv.ParseInt(m[3], 10, 64))
	return name{node, m[2], tx}, true
}

// files lists the live files of a store. change tells which of the two meanings of section 3.3 names have.
func (m *metadata) files(change bool) []lakeFile {
	head := m.head()
	if head == nil {
		return nil
	}
	var out []lakeFile
	for _, list := range must(iceberg.ReadManifestList(opened(head.Manifest))) {
		for _, e := range must(iceberg.ReadManifest(list, opened(list.FilePath()), true)) {
			d := e.DataFile()
			if d.ContentType() == iceberg.EntryContentEqDeletes {
				panic(fmt.Errorf("%s is an Iceberg equality delete", d.FilePath()))
			}
			f := lakeFile{
				path: d.FilePath(), deletes: d.ContentType() == iceberg.EntryContentPosDeletes, sequence: e.SequenceNum(),
				partition: m.partition(d.Partition()),
			}
			f.name = meaning(f.path, f.sequence, change)
			out = append(out, f)
		}
	}
	return out
}

func opened(path string) *bytes.Reader { return bytes.NewReader(must(os.ReadFile(onDisk(path)))) }

// meaning is the table of section 3.3.
func meaning(path string, sequence int64, change bool) name {
	n, ok := parse(path)
	switch {
	case change && !ok:
		return name{1, "I", sequence}
	case change && n.tx == 0:
		n.tx = sequence
	case !change && !ok:
		return name{1, "B", 0}
	case !change && n.typ == "I":
		n.typ = "B"
	}
	return n
}

// partition returns the values of a partition tuple as Iceberg's partition paths have them, decoded.
func (m *metadata) partition(values map[int]any) string {
	var out []string
	for _, f := range m.spec().Fields {
		out = append(out, human(f.Transform, values[f.ID]))
	}
	return strings.Join(out, "\x00")
}

// path decodes the key of a map of optimized sequences (section 5.1) to what partition returns.
func (m *metadata) path(key string) string {
	fields := m.spec().Fields
	if len(fields) == 0 {
		return ""
	}
	var out []string
	for i, segment := range strings.Split(key, "/") {
		_, value, _ := strings.Cut(segment, "=")
		value = must(url.QueryUnescape(value))
		if d, ok := new(big.Rat).SetString(value); ok && m.kindOf(fields[i]) == "decimal" {
			value = d.RatString()
		}
		out = append(out, value)
	}
	return strings.Join(out, "\x00")
}

// kindOf returns the name of the type of a partition field's values, as far as it matters here.
func (m *metadata) kindOf(f specField) string {
	if f.Transform != "identity" && !strings.HasPrefix(f.Transform, "truncate") {
		return f.Transform
	}
	for _, c := range m.schema().Fields {
		if c.ID == f.Source {
			return c.Type.name
		}
	}
	panic(fmt.Errorf("partition field %s has no column", f.Name))
}

// human spells a partition value as Iceberg's Transform.toHumanString does, decimals as fractions.
func human(transform string, v any) string {
	if v == nil {
		return "null"
	}
	if d, ok := v.(iceberg.DecimalLiteral); ok {
		pow := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(d.Scale)), nil)
		return new(big.Rat).SetFrac(d.Val.BigInt(), pow).RatString()
	}
	if _, isDate := v.(iceberg.Date); isDate {
		transform = "day"
	}
	n := reflect.ValueOf(v)
	if !n.CanInt() {
		return fmt.Sprint(v)
	}
	epoch := time.Unix(0, 0).UTC()
	switch transform {
	case "month":
		return epoch.AddDate(0, int(n.Int()), 0).Format("2006-01")
	case "day":
		return epoch.AddDate(0, 0, int(n.Int())).Format("2006-01-02")
	case "hour":
		return epoch.Add(time.Duration(n.Int()) * time.Hour).Format("2006-01-02-15")
	}
	return strconv.FormatInt(n.Int(), 10)
}

// optimized returns the optimized sequence by partition (section 5): of Puffin from the newest marked ancestor, else of the property.
func (m *metadata) optimized() map[string]int64 {
	out := map[string]int64{}
	for s := m.head(); s != nil; {
		if _, marked := s.Summary["optimized-sequence.exist"]; marked {
			for key, n := range puffin(m.statisticsOf(s.ID), "optimized-sequence") {
				out[m.path(key)] = n
			}
			return out
		}
		if s.Parent == nil {
			break
		}
		s = m.snapshot(*s.Parent)
	}
	var property map[string]map[string]string
	if text := m.Properties["table.partition-properties"]; text != "" {
		check(json.Unmarshal([]byte(text), &property))
	}
	for key, p := range property {
		if n, ok := p["max-txId"]; ok {
			out[m.path(key)] = must(strconv.ParseInt(n, 10, 64))
		}
	}
	return out
}

func (m *metadata) statisticsOf(id int64) string {
	for _, s := range m.Statistics {
		for _, b := range s.Blobs {
			if s.Snapshot == id && b.Type == "optimized-sequence" {
				return s.Path
			}
		}
	}
	panic(fmt.Errorf("snapshot %d is marked and has no statistics", id))
}

// puffin returns the JSON map in the blob of a type. The file: magic, blobs, magic, JSON of blobs, its length, flags, magic.
func puffin(path, typ string) (out map[string]int64) {
	b := must(os.ReadFile(onDisk(path)))
	size := int(binary.LittleEndian.Uint32(b[len(b)-12:]))
	var footer struct {
		Blobs []struct {
			Type   string `json:"type"`
			Offset int64  `json:"offset"`
			Length int64  `json:"length"`
		} `json:"blobs"`
	}
	check(json.Unmarshal(b[len(b)-12-size:len(b)-12], &footer))
	for _, blob := range footer.Blobs {
		if blob.Type == typ {
			check(json.Unmarshal(b[blob.Offset:blob.Offset+blob.Length], &out))
			return out
		}
	}
	panic(fmt.Errorf("%s has no blob %s", path, typ))
}

// The ids of columns that are in files only.
const (
	fileOffset = 2147482645
	deletePath = 2147483546
	deletePos  = 2147483545
)

// lsn orders rows and deletes (section 0).
type lsn struct{ tx, offset int64 }

func (a lsn) after(b lsn) bool { return a.tx > b.tx || a.tx == b.tx && a.offset > b.offset }

// related reports whether one of two tree nodes is the other's ancestor, or both are one (section 4.1).
func related(a, b uint64) bool { return under(a, b) || under(b, a) }

// under is isSonOf: x is y or below it. A node is 2^h + index, and its children add a higher bit to the index.
func under(x, y uint64) bool {
	mask := func(id uint64) uint64 {
		m := uint64(0)
		for m+1+m < id {
			m = 2*m + 1
		}
		return m
	}
	mx, my := mask(x), mask(y)
	return x == y || mx > my && (x-mx-1)&my == y-my-1
}

// base reads the base store as any Iceberg engine does.
func (r *second) base(basePath string) []string {
	m := readMetadata(basePath)
	return r.merge(m, m.files(false), nil, m.schema(), nil)
}

// merged is section 6. changePath is empty for a table without a key.
func (r *second) merged(basePath, changePath string) []string {
	m := readMetadata(basePath)
	if changePath == "" {
		return r.base(basePath)
	}
	seen := m.optimized()
	var changes []lakeFile
	c := readMetadata(changePath)
	for _, f := range c.files(true) {
		if s, ok := seen[f.partition]; !f.deletes && (!ok || f.sequence > s) {
			changes = append(changes, f)
		}
	}
	sch := m.schema()
	var key []field
	for n := range strings.SplitSeq(m.Properties["mixed-format.primary-key-fields"], ",") {
		key = append(key, sch.Fields[slices.IndexFunc(sch.Fields, func(f field) bool { return f.Name == n })])
	}
	return r.merge(m, m.files(false), changes, sch, key)
}

// merge is section 6.2 for one data file after another: the deletes that meet it are looked for anew.
func (r *second) merge(m *metadata, base, changes []lakeFile, sch schema, key []field) []string {
	var out []string
	for _, d := range slices.Concat(base, changes) {
		if d.deletes || d.typ != "B" && d.typ != "I" {
			continue
		}
		dead, killed := r.positions(d, base), map[string]lsn{}
		if len(key) > 0 {
			killed = r.killed(d, changes, key)
		}
		for i, row := range r.read(d.path) {
			at := lsn{d.tx, 1<<63 - 1}
			if d.typ == "I" {
				at.offset = row[fileOffset].(int64)
			}
			l, ok := killed[keyText(key, row)]
			if !dead[int64(i)] && (!ok || !l.after(at)) {
				out = append(out, line(sch.Fields, row))
			}
		}
	}
	slices.Sort(out)
	return out
}

// positions returns the rows of a data file that position deletes name.
func (r *second) positions(d lakeFile, base []lakeFile) map[int64]bool {
	dead := map[int64]bool{}
	for _, p := range base {
		if !p.deletes || p.partition != d.partition || p.sequence < d.sequence || !under(d.node, p.node) {
			continue
		}
		for _, row := range r.read(p.path) {
			if row[deletePath] == d.path {
				dead[row[deletePos].(int64)] = true
			}
		}
	}
	return dead
}

// killed returns the newest delete of each key among the delete files that meet a data file.
func (r *second) killed(d lakeFile, changes []lakeFile, key []field) map[string]lsn {
	out := map[string]lsn{}
	for _, e := range changes {
		if e.typ != "ED" || e.partition != d.partition || !related(e.node, d.node) {
			continue
		}
		for _, row := range r.read(e.path) {
			l := lsn{e.tx, row[fileOffset].(int64)}
			if k := keyText(key, row); !out[k].after(l) {
				out[k] = l
			}
		}
	}
	return out
}

func keyText(key []field, row map[int]any) string { return line(key, row) }

// read returns the rows of a Parquet file in order, each as values by field id.
func (r *second) read(path string) []map[int]any {
	if rows, ok := r.rows[path]; ok {
		return rows
	}
	pf := must(file.OpenParquetFile(onDisk(path), false))
	defer pf.Close()
	fr := must(pqarrow.NewFileReader(pf, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator))
	t := must(fr.ReadTable(context.Background()))
	defer t.Release()
	rows := make([]map[int]any, t.NumRows())
	for i := range rows {
		rows[i] = map[int]any{}
	}
	for c := range int(t.NumCols()) {
		id := must(strconv.Atoi(must(idOf(t.Schema().Field(c)))))
		i := 0
		for _, chunk := range t.Column(c).Data().Chunks() {
			for j := range chunk.Len() {
				rows[i][id] = boxed(chunk, j)
				i++
			}
		}
	}
	r.rows[path] = rows
	return rows
}

func idOf(f arrow.Field) (string, error) {
	if id, ok := f.Metadata.GetValue("PARQUET:field_id"); ok {
		return id, nil
	}
	return "", fmt.Errorf("column %s has no field id", f.Name)
}

// boxed returns a value of an Arrow array: nil, bool, int64, float32, float64, string, *big.Int (a decimal, unscaled), [16]byte,
// or []any.
func boxed(a arrow.Array, i int) any {
	if a.IsNull(i) {
		return nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		return a.Value(i)
	case *array.Int32:
		return int64(a.Value(i))
	case *array.Int64:
		return a.Value(i)
	case *array.Float32:
		return a.Value(i)
	case *array.Float64:
		return a.Value(i)
	case *array.String:
		return strings.Clone(a.Value(i))
	case *array.Date32:
		return int64(a.Value(i))
	case *array.Time64:
		return int64(a.Value(i))
	case *array.Timestamp:
		return int64(a.Value(i))
	case *array.Decimal128:
		return a.Value(i).BigInt()
	case *array.List:
		from, to := a.ValueOffsets(i)
		out := []any{}
		for j := from; j < to; j++ {
			out = append(out, boxed(a.ListValues(), int(j)))
		}
		return out
	}
	panic(fmt.Errorf("arrow type %s is not read here", a.DataType()))
}
