package mixed

import (
	"math"
	"strconv"
	"strings"
	"time"

	"firn/changelog"
)

// FileOffsetColumn is the last column of change files: the order of a change among those of its transaction. With us it
// is the change's SeqNum (P5). OPTIONAL INT64 and never null. Readers find it by its field id.
const (
	FileOffsetColumn = "_file_offset"
	FileOffsetID     = math.MaxInt32 - 1002
)

// Columns that readers give to change rows, and that are never written.
const (
	TransactionIDColumn = "_transaction_id"
	TransactionIDID     = math.MaxInt32 - 1001
	ChangeActionColumn  = "_change_action"
	ChangeActionID      = math.MaxInt32 - 1003
	TreeNodeColumn      = "_tree_node"
	TreeNodeID          = math.MaxInt32 - 1004
)

// Field ids of position delete files, which Iceberg reserves.
const (
	DeletePathID = math.MaxInt32 - 101
	DeletePosID  = math.MaxInt32 - 102
)

// Table properties of the format. Written to tables.
const (
	PropFormat         = "table-format"
	PropStore          = "mixed-format.table-store"
	PropKey            = "mixed-format.primary-key-fields"
	PropChange         = "mixed-format.change.identifier"
	PropCreated        = "table.create-timestamp"
	PropPartitions     = "table.partition-properties"
	PropWatermark      = "watermark.table" // ms since 1970-01-01 UTC: up to this source time the store has all rows
	PropBaseBuckets    = "base.file-index.hash-bucket"
	PropChangeBuckets  = "change.file-index.hash-bucket"
	FormatMixedIceberg = "MIXED_ICEBERG"
	StoreBase          = "base"
	StoreChange        = "change"
	DefaultBuckets     = 4
)

// Marks in snapshot summaries: the snapshot's Puffin statistics hold the optimized sequence.
const (
	MarkOptimizedSequence = "optimized-sequence.exist"
	MarkBaseOptimizedTime = "base-optimized-time.exist"
	// BlobOptimizedSequence is the type of the blob that they speak of.
	BlobOptimizedSequence = "optimized-sequence"
)

// SummaryProducer is the summary key that says what kind of work made a snapshot, and its values. Without it: rows came in.
// Amoro's expiry of data and its dashboard tell by it.
const (
	SummaryProducer    = "snapshot.producer"
	ProducerOptimize   = "OPTIMIZE"
	ProducerExpiration = "DATA_EXPIRATION"
	ProducerDangling   = "CLEAN_DANGLING_DELETE" // delete files that name no live data file went
)

// ChangeName returns the name of the change store that is created with a base store called name.
func ChangeName(name string) string { return name + "_change_" }

// commonProperties are what both stores carry (spec/mixed-format.md 1.2). key holds the key columns in key order.
func commonProperties(store string, key []string, created time.Time) map[string]string {
	p := map[string]string{
		PropFormat:  FormatMixedIceberg,
		PropStore:   store,
		PropCreated: strconv.FormatInt(created.UnixMilli(), 10),
		"write.metadata.delete-after-commit.enabled": "true",
		"flink.max-continuous-empty-commits":         strconv.Itoa(math.MaxInt32),
	}
	if len(key) > 0 {
		p[PropKey] = strings.Join(key, ",")
	}
	return p
}

// BaseProperties returns the properties that a base store is created with, besides the user's. change is the full
// identifier (namespace.name) of the change store; empty for a table without a key, which has none.
func BaseProperties(key []string, change string, created time.Time) map[string]string {
	p := commonProperties(StoreBase, key, created)
	if len(key) > 0 {
		p[PropChange] = change
	}
	return p
}

// ChangeProperties returns the properties that a change store is created with, besides the user's.
func ChangeProperties(key []string, created time.Time) map[string]string {
	return commonProperties(StoreChange, key, created)
}

// StoreOf returns StoreBase or StoreChange if the properties are those of a store of a mixed table, else "".
func StoreOf(properties map[string]string) string {
	if !strings.EqualFold(properties[PropFormat], FormatMixedIceberg) {
		return ""
	}
	switch {
	case strings.EqualFold(properties[PropStore], StoreBase):
		return StoreBase
	case strings.EqualFold(properties[PropStore], StoreChange):
		return StoreChange
	}
	return ""
}

// KeyColumns returns the names of the key columns in key order; none: the table has no key.
func KeyColumns(properties map[string]string) []string {
	var key []string
	for name := range strings.SplitSeq(properties[PropKey], ",") {
		if strings.TrimSpace(name) != "" {
			key = append(key, name)
		}
	}
	return key
}

// BadKeyName reports whether a key column's name cannot be written into PropKey.
func BadKeyName(name string) bool {
	return strings.Contains(name, ",") || strings.TrimSpace(name) == ""
}

// PropAmoroKeys is false in tables whose keys may be of types that Amoro's readers lose deletes of: no Amoro is to read or
// optimize them. Ours, in both stores.
const PropAmoroKeys = "firn.amoro-keys"

// BadKey returns the first key column that a mixed table with the properties must not have, and why; "" if none.
func BadKey(s *changelog.Schema, properties map[string]string) (column, why string) {
	native := properties[PropAmoroKeys] == "false"
	for _, o := range s.KeyOrdinals() {
		c := s.Columns[o]
		switch {
		case BadKeyName(c.Name):
			return c.Name, "its name is blank or has a comma"
		case !native && !KeyTypeOK(c.Type):
			return c.Name, "Amoro loses deletes of " + c.Type.String() + " keys (" + PropAmoroKeys + "=false in the table's properties allows them, if no Amoro reads it)"
		}
	}
	return "", ""
}
