package decode

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"firn/changelog"
)

// Format is how keys or values are written.
type Format uint8

// The formats.
const (
	FormatAuto              Format = iota // each record tells: one whose first member is "schema" or "payload" has a schema
	FormatSchema                          // {"schema":…,"payload":…}, nothing else
	FormatPlain                           // the payload itself
	FormatConfluentAvro                   // Confluent's frame or header, and Avro (1.6)
	FormatApicurioAvro                    // Apicurio's (1.7)
	FormatConfluentJSON                   // Confluent's frame or header, and JSON with a JSON Schema (1.9)
	FormatApicurioJSON                    // Apicurio's; the schema is a JSON Schema, or Connect's as Apicurio's own converter registers it
	FormatConfluentProtobuf               // Confluent's frame or header, message indexes, and Protobuf (1.9)
	FormatApicurioProtobuf                // Apicurio's
	FormatCloudEvents                     // of values: CloudEvents in JSON (1.12)
	FormatCloudEventsAvro                 // the same, where data may be Avro in Confluent's frame
)

// ProtobufRef is what names the message type between Apicurio's id and a body in Protobuf, where no header does (1.7).
type ProtobufRef uint8

// The ways.
const (
	ProtobufRefDelimited ProtobufRef = iota // a message with the type's name, its length before it
	ProtobufRefIndexes                      // Confluent's list of indexes
	ProtobufRefNone                         // nothing: it is the first message of the schema
)

// Form is what the values of a table's topic are.
type Form uint8

// The forms.
const (
	FormEnvelope  Form = iota // Debezium's envelope: before, after, source, op (1.10)
	FormFlattened             // the row itself, as the transformation ExtractNewRecordState makes it (1.13)
	FormPlain                 // the row itself, of any producer: each adds a row, and null values say nothing
	FormOutbox                // the payload of an event, as the transformation EventRouter makes it: each adds a row (1.14)
	FormCanal                 // Alibaba Canal's flat message: several rows of one statement (canal.go)
	FormMaxwell               // Maxwell's daemon (maxwell.go)
	FormOGG                   // Oracle GoldenGate's JSON formatter, operation modeled (ogg.go)
	FormDMS                   // AWS DMS with a Kafka or Kinesis target (dms.go)
)

// Deletes says how a flattened topic tells of a delete: the transformation's delete.tombstone.handling.mode (1.13).
type Deletes uint8

// The ways.
const (
	DeletesNull    Deletes = iota // by a null value (tombstone, delete-to-tombstone)
	DeletesRewrite                // by a row whose metadata say so; null values say nothing (rewrite, rewrite-with-tombstone)
	DeletesDrop                   // not at all; null values say nothing (drop)
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
	// KeyFormat is the format of keys, which are no CloudEvents. Default: as Format, or FormatAuto.
	KeyFormat Format
	// Form of values. Default FormEnvelope.
	Form Form
	// Deletes says how a flattened topic tells of a delete. Default: by a null value.
	Deletes Deletes
	// Metadata names the members of flattened rows that are no columns, and what they are (1.13): op, deleted, ts_ms, ts_us, ts_ns,
	// transaction.id, transaction.total_order, transaction.data_collection_order, or source. and a member of the source block. Nothing is
	// metadata by its name alone, but __deleted where Deletes is DeletesRewrite and nothing else is said to be deleted.
	//
	// Of an outbox: the headers, or members beside payload, that hold id, type, aggregatetype or aggregateid, or are to go into column
	// headers ("header"). A value that has payload and none but these members is an envelope. Default: header id is id.
	Metadata map[string]string
	// Documents is what a table of MongoDB's documents has of them, in an envelope. Default DocumentColumns.
	Documents Documents
	// Payload is what an outbox table has of payloads. Default PayloadText.
	Payload Payload
	// Connector is the kind of source of flattened topics, which do not say it: postgresql, mysql, mariadb, sqlserver, oracle, db2. It
	// decides how some types are read (3.4). Default: none of them.
	Connector string
	// IDWidth is of the ids in Apicurio's frames. Default: told by each frame, as Apicurio's fallback handler does.
	IDWidth IDWidth
	// GlobalIDs says that the ids in Apicurio's frames are global ids. Default: content ids.
	GlobalIDs bool
	// ProtobufRef is what names the message type in Apicurio's frames. Default: a message with its name.
	ProtobufRef ProtobufRef
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
	// Nanoseconds keeps the nanoseconds of io.debezium.time.NanoTimestamp, in columns of type timestamp_ns, which tables of format version 3
	// have. Default: cut to microseconds, and reported.
	Nanoseconds bool
	// Hints are for messages without a schema.
	Hints []Hint
	// SourceTable is the only table that events may come from, as "table" or "schema.table" (or "db.table" for
	// sources without schemas). Default: any.
	SourceTable string
	// NullKey is a key that stands for no key. Default: none.
	NullKey string
	// NoKey passes over all keys: the table has none, whatever the messages have.
	NoKey bool
	// KeyColumns are the columns of the key in the envelopes of other tools, whatever their messages say of it. Default: those that each
	// message names.
	KeyColumns []string
	// TrustKeyless says that Before of messages without a key is the whole old row: PostgreSQL refuses updates and deletes
	// of a table that has no key unless it logs whole rows (REPLICA IDENTITY FULL).
	TrustKeyless bool
	// MaxMessageBytes bounds key and value together; larger records are rejected. Default 64 MiB.
	MaxMessageBytes int64
}

const defaultPlaceholder = "__debezium_unavailable_value"

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.KeyFormat == FormatAuto && !o.Format.isCloud() {
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
	if o.Form == FormFlattened && o.Deletes == DeletesRewrite && !slices.Contains(slices.Collect(maps.Values(o.Metadata)), "deleted") {
		o.Metadata = maps.Clone(o.Metadata)
		if o.Metadata == nil {
			o.Metadata = map[string]string{}
		}
		o.Metadata["__deleted"] = "deleted"
	}
}

// Validate reports all that is wrong with o.
func (o *Options) Validate() error {
	var errs []error
	if o.Format > FormatCloudEventsAvro || o.KeyFormat > FormatCloudEventsAvro || o.KeyFormat.isCloud() || o.ProtobufRef > ProtobufRefNone || o.IDWidth > IDWidth8 || o.Topic > TopicTable || o.Identity > IdentityDefault || o.Infinity > InfinityReject {
		errs = append(errs, errors.New("decode: unknown value of an enumerated option"))
	}
	if o.Form > FormDMS || o.Deletes > DeletesDrop || o.Payload > PayloadBinary || o.Documents > DocumentText {
		errs = append(errs, errors.New("decode: unknown form or way of deletes"))
	}
	if o.Form != FormFlattened && (o.Deletes != DeletesNull || len(o.Metadata) > 0 && o.Form != FormOutbox) {
		errs = append(errs, errors.New("decode: deletes and metadata are of flattened topics only, metadata of outboxes, too"))
	}
	if o.Form == FormOutbox && (o.Format.framed() || o.Format == FormatCloudEventsAvro) || o.Form != FormOutbox && o.Payload != PayloadText {
		errs = append(errs, errors.New("decode: outboxes are read from JSON only, and payloads are theirs only"))
	}
	switch e := o.Format.encoding(); {
	case o.Form.Foreign() && (o.Format.framed() || o.Format == FormatSchema):
		errs = append(errs, fmt.Errorf("decode: messages of %s are JSON without a schema", formNames[o.Form]))
	case o.Form != FormEnvelope && (e == encodingAvro || e == encodingProtobuf):
		errs = append(errs, fmt.Errorf("decode: flattened and plain rows are read from JSON, not from %s", e))
	}
	if len(o.KeyColumns) > 0 && !o.Form.Foreign() {
		errs = append(errs, errors.New("decode: key columns are of the envelopes of other tools only"))
	}
	if o.Connector != "" && connectorOf(o.Connector) == connectorOther {
		errs = append(errs, fmt.Errorf("decode: connector %q: not postgresql, mysql, mariadb, sqlserver, oracle or db2", o.Connector))
	}
	checkMetadata := outboxMetadata
	if o.Form != FormOutbox {
		checkMetadata = func(names map[string]string) error { _, err := metadataOf(names); return err }
	}
	if err := checkMetadata(o.Metadata); err != nil {
		errs = append(errs, err)
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
	Topic     string
	Key       []byte
	Value     []byte
	Headers   []changelog.Header
	Timestamp int64 // ms since 1970; 0 or negative: not known. Only outboxes have a use for it
}
