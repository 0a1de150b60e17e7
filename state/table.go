package state

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"firn/changelog"
)

// TopicRef names a topic of a source.
type TopicRef struct {
	Source string `json:"source"`
	Topic  string `json:"topic"`
}

// Table is a registry entry. A *Table that the Registry gave is immutable: a change makes a new one.
type Table struct {
	ID         changelog.TableID `json:"id"`
	Name       string            `json:"name"`    // namespace.table
	Schemas    changelog.Schemas `json:"schemas"` // history; the index is the SchemaID
	Properties map[string]string `json:"properties,omitempty"`
	// Partition is bound to Schemas[0], and the lake's table is created with it. It never changes.
	Partition changelog.PartitionSpec `json:"partition,omitempty"`
	Topics    []TopicRef              `json:"topics,omitempty"` // what feeds it
	Created   int64                   `json:"created"`          // µs since 1970-01-01 UTC
}

// Keyed reports whether the table has a primary key.
func (t *Table) Keyed() bool { return len(t.Schemas.Current().Key) > 0 }

// Schema returns the current schema.
func (t *Table) Schema() *changelog.Schema { return t.Schemas.Current() }

func (t *Table) clone() *Table {
	c := *t
	c.Schemas, c.Topics, c.Properties = slices.Clone(t.Schemas), slices.Clone(t.Topics), maps.Clone(t.Properties)
	c.Partition = slices.Clone(t.Partition)
	return &c
}

// Progress is how far a (table, shard) has gone down the layers.
type Progress struct {
	Flushed        changelog.SeqNum `json:"flushed"`                  // all up to here is committed to the change store
	CommitID       string           `json:"commitId,omitempty"`       // of that flush
	Epoch          changelog.Epoch  `json:"epoch,omitempty"`          // our epoch
	ChangeSequence int64            `json:"changeSequence,omitempty"` // Iceberg sequence number of that commit
	Optimized      changelog.SeqNum `json:"optimized,omitempty"`      // all up to here is in the base store
	IndexSnapshot  int64            `json:"indexSnapshot,omitempty"`  // base snapshot that the position index describes; 0: none
	Rebuilding     bool             `json:"rebuilding,omitempty"`     // rows are being rebuilt from the lake: not to be served (P4)
}

// Values are a version byte and JSON. Written to disk, append only.
const valueVersion = 1

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return append([]byte{valueVersion}, b...), nil
}

func decode(b []byte, v any) error {
	if len(b) == 0 {
		return fmt.Errorf("%T of 0 bytes: %w", v, ErrCorrupt)
	}
	if b[0] > valueVersion {
		return fmt.Errorf("%T of version %d: %w", v, b[0], ErrNewerFormat)
	}
	if err := json.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("%T: %w: %w", v, ErrCorrupt, err)
	}
	return nil
}
