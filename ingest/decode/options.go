package decode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"firn/changelog"
)

// Format is how keys or values are written.
type Format uint8

// The formats.
const (
	FormatAuto   Format = iota // each record tells: one whose first member is "schema" or "payload" has a schema
	FormatSchema               // {"schema":…,"payload":…}, nothing else
	FormatPlain                // the payload itself
)

// TopicKind is what a topic carries.
type TopicKind uint8

// The kinds of topics.
const (
	TopicAuto  TopicKind = iota // tell by schema names and by the topic's name (1.15)
	TopicTable                  // a table's topic, whatever it is called
)

// Identity says what a table's events hold as the old row (1.10).
type Identity uint8

// The identities.
const (
	IdentityAuto    Identity = iota // the whole row from mysql, mariadb, sqlserver and oracle; nothing to trust from others
	IdentityFull                    // the whole row (REPLICA IDENTITY FULL)
	IdentityDefault                 // nothing to trust: Before is always nil
)

// Infinity is what becomes of PostgreSQL's infinite dates and timestamps (3.4).
type Infinity uint8

// The policies.
const (
	InfinityNull   Infinity = iota // null, with a report
	InfinityClamp                  // 9999-12-31T23:59:59.999999 and 0001-01-01, with a report
	InfinityReject                 // the event is rejected
)

// Hint tells the Connect schema of one column, for topics without schemas. One column may have several hints of
// different JSON types (it changed in mid-stream): the first that reads a value is used.
type Hint struct {
	Column string
	Schema []byte // as in a message's schema: {"type":"int64","name":"io.debezium.time.MicroTimestamp",…}
}

// Options of a Decoder.
type Options struct {
	// Format of values. Default FormatAuto.
	Format Format
	// KeyFormat is the format of keys. Default: as Format.
	KeyFormat Format
	// Topic says that the topic is a table's. Default: each record tells.
	Topic TopicKind
	// HeartbeatPrefix begins the names of heartbeat topics. Default "__debezium-heartbeat".
	HeartbeatPrefix string
	// Placeholder stands for a value that the source did not send (2.7), as the connector is configured: text, or
	// "hex:" and octets in hex. Default "__debezium_unavailable_value".
	Placeholder string
	// Identity says whether Before can be trusted. Default IdentityAuto.
	Identity Identity
	// Infinity is what infinite times become. Default InfinityNull.
	Infinity Infinity
	// Hints are for messages without a schema.
	Hints []Hint
	// SourceTable is the only table that events may come from, as "table" or "schema.table" (or "db.table" for
	// sources without schemas). Default: any.
	SourceTable string
	// NullKey is a key that stands for no key. Default: none.
	NullKey string
	// NoKey passes over all keys: the table has none, whatever the messages have.
	NoKey bool
	// TrustKeyless says that Before of messages without a key is the whole old row: PostgreSQL refuses updates and deletes
	// of a table that has no key unless it logs whole rows (REPLICA IDENTITY FULL).
	TrustKeyless bool
	// MaxMessageBytes bounds key and value together; larger records are rejected. Default 64 MiB.
	MaxMessageBytes int64
}

const defaultPlaceholder = "__debezium_unavailable_value"

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.KeyFormat == FormatAuto {
		o.KeyFormat = o.Format
	}
	if o.HeartbeatPrefix == "" {
		o.HeartbeatPrefix = "__debezium-heartbeat"
	}
	if o.Placeholder == "" {
		o.Placeholder = defaultPlaceholder
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 64 << 20
	}
}

// Validate reports all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	if o.Format > FormatPlain || o.KeyFormat > FormatPlain || o.Topic > TopicTable || o.Identity > IdentityDefault || o.Infinity > InfinityReject {
		errs = append(errs, errors.New("decode: unknown value of an enumerated option"))
	}
	if o.MaxMessageBytes < 0 {
		errs = append(errs, fmt.Errorf("decode: MaxMessageBytes %d is negative", o.MaxMessageBytes))
	}
	if _, err := placeholderBytes(o.Placeholder); err != nil {
		errs = append(errs, err)
	}
	for _, h := range o.Hints {
		if _, err := compileHint(h, connectorOther, holes{}); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func placeholderBytes(s string) ([]byte, error) {
	octets, ok := strings.CutPrefix(s, "hex:")
	if !ok {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(octets)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("decode: placeholder %q: no octets in hex after \"hex:\"", s)
	}
	return bytes.Clone(b), nil
}

// Record is one record as the broker gave it. A nil Key or Value is a null one.
type Record struct {
	Topic   string
	Key     []byte
	Value   []byte
	Headers []changelog.Header
}
