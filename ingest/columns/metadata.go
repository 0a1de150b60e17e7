package columns

import (
	"slices"
	"strconv"
	"strings"

	"firn/changelog"
	"firn/ingest/decode"
)

// Origin is where a record was read.
type Origin struct {
	Topic     string
	Partition int32
	Offset    int64
}

// metadatum is a metadata column (spec/debezium.md 7). Its value depends on the record alone.
type metadatum struct {
	name string
	typ  *changelog.Type
	of   func(a *Applier, ev *decode.Event, at *Origin) changelog.Value
}

var metadata = []metadatum{
	{"_lake_source_ts", changelog.Primitive(changelog.TimestampTZ), func(_ *Applier, ev *decode.Event, _ *Origin) changelog.Value {
		return changelog.Value{I: ev.SourceTime, Null: ev.SourceTime == 0}
	}},
	{"_lake_topic", changelog.Primitive(changelog.String), func(a *Applier, _ *decode.Event, at *Origin) changelog.Value { return a.text(at.Topic) }},
	{"_lake_partition", changelog.Primitive(changelog.Int), func(_ *Applier, _ *decode.Event, at *Origin) changelog.Value {
		return changelog.Value{I: int64(at.Partition)}
	}},
	{"_lake_offset", changelog.Primitive(changelog.Long), func(_ *Applier, _ *decode.Event, at *Origin) changelog.Value {
		return changelog.Value{I: at.Offset}
	}},
	{"_lake_position", changelog.Primitive(changelog.String), func(a *Applier, ev *decode.Event, _ *Origin) changelog.Value {
		if ev.Native == "" {
			return changelog.NullValue
		}
		return a.appended(func(dst []byte) []byte { return appendSortable(dst, ev.Native) })
	}},
	{"_lake_op", changelog.Primitive(changelog.String), func(a *Applier, ev *decode.Event, _ *Origin) changelog.Value { return a.text(ev.Op.String()) }},
	{"_lake_tx_id", changelog.Primitive(changelog.String), func(a *Applier, ev *decode.Event, _ *Origin) changelog.Value { return a.text(ev.Txn) }},
	{"_lake_tx_order", changelog.Primitive(changelog.Long), func(_ *Applier, ev *decode.Event, _ *Origin) changelog.Value {
		n, err := strconv.ParseInt(strings.Trim(string(ev.TxnOrder), `"`), 10, 64)
		return changelog.Value{I: n, Null: err != nil}
	}},
	{"_lake_snapshot", changelog.Primitive(changelog.String), func(a *Applier, ev *decode.Event, _ *Origin) changelog.Value {
		return a.text(snapshotNames[ev.Snapshot])
	}},
}

// snapshotNames are the markers as Debezium writes them; "": none.
var snapshotNames = [...]string{
	decode.SnapshotNone: "", decode.SnapshotFirst: "first", decode.SnapshotFirstInTable: "first_in_data_collection", decode.SnapshotRow: "true",
	decode.SnapshotLastInTable: "last_in_data_collection", decode.SnapshotLast: "last", decode.SnapshotIncremental: "incremental",
}

// MetadataColumns returns the names of the columns that the rule metadata can add.
func MetadataColumns() []string {
	names := make([]string, len(metadata))
	for i := range metadata {
		names[i] = metadata[i].name
	}
	return names
}

func (r *rule) checkMetadata(bad func(string, ...any)) {
	if len(r.Columns) == 0 || r.Match != "" {
		bad("metadata needs columns: those to add, of %s", strings.Join(MetadataColumns(), ", "))
	}
	for i, name := range r.Columns {
		o := slices.IndexFunc(metadata, func(m metadatum) bool { return m.name == name })
		switch {
		case o < 0:
			bad("columns: %q is no metadata column: want %s", name, strings.Join(MetadataColumns(), ", "))
		case slices.Contains(r.Columns[:i], name):
			bad("columns: %q is there twice", name)
		default:
			r.meta = append(r.meta, o)
		}
	}
}

// appendSortable appends a source position so that texts of one connector compare as the positions do: LSNs have eight hex digits
// a half, other numbers that count up twenty digits.
func appendSortable(dst []byte, native string) []byte {
	kind, rest, _ := strings.Cut(native, ":")
	dst = append(append(dst, kind...), ':')
	switch kind {
	case "lsn":
		high, low, _ := strings.Cut(rest, "/")
		return appendPadded(append(appendPadded(dst, high, 8), '/'), low, 8)
	case "binlog": // file/pos
		i := strings.LastIndexByte(rest, '/') + 1
		return appendPadded(append(dst, rest[:i]...), rest[i:], 20)
	case "gtid": // MySQL: uuid:n or uuid:tag:n; MariaDB: domain-server-n
		i := strings.LastIndexAny(rest, ":-") + 1
		return appendPadded(append(dst, rest[:i]...), rest[i:], 20)
	case "scn":
		return appendPadded(dst, rest, 20)
	default:
		return append(dst, rest...)
	}
}

// appendPadded appends a number with zeros before it.
func appendPadded(dst []byte, digits string, width int) []byte {
	for range width - len(digits) {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}
