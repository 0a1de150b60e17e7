package decode

import (
	"fmt"

	"firn/changelog"
)

// The reasons of 5.2 that this package gives. They are labels of metrics and are stored with parked records.
const (
	ReasonMessageSize       = "message_size"
	ReasonEmptyPayload      = "empty_payload"
	ReasonNullLiteral       = "null_literal"
	ReasonUTF8              = "utf8"
	ReasonJSONBOM           = "json_bom"
	ReasonJSONSyntax        = "json_syntax"
	ReasonJSONTrailing      = "json_trailing"
	ReasonJSONDepth         = "json_depth"
	ReasonJSONDuplicateKey  = "json_duplicate_key"
	ReasonSchemaMissing     = "schema_missing"
	ReasonSchemaInvalid     = "schema_invalid"
	ReasonSchemaMismatch    = "schema_payload_mismatch"
	ReasonSchemaLimit       = "schema_limit"
	ReasonRequiredMissing   = "required_missing"
	ReasonEnvelopeShape     = "envelope_shape"
	ReasonOpMissing         = "op_missing"
	ReasonOpUnknown         = "op_unknown"
	ReasonNoImage           = "no_image"
	ReasonImagesContradict  = "images_contradict"
	ReasonSourceMissing     = "source_missing"
	ReasonSourceInvalid     = "source_invalid"
	ReasonSourceMismatch    = "source_mismatch"
	ReasonPosition          = "position_unreadable"
	ReasonKeyMissing        = "key_missing"
	ReasonKeyDecode         = "key_decode"
	ReasonKeyNull           = "key_null"
	ReasonKeyMismatch       = "key_mismatch"
	ReasonKeyColumnsChanged = "key_columns_changed"
	ReasonPlaceholderInKey  = "placeholder_in_key"
	ReasonValueReference    = "value_reference"
	ReasonTypeMismatch      = "type_mismatch"
	ReasonIntRange          = "int_range"
	ReasonFloatRange        = "float_range"
	ReasonBase64            = "base64"
	ReasonDecimalBytes      = "decimal_bytes"
	ReasonDecimalPrecision  = "decimal_precision"
	ReasonTemporalFormat    = "temporal_format"
	ReasonTemporalRange     = "temporal_range"
	ReasonTemporalSpecial   = "temporal_special"
	ReasonSubMicro          = "sub_micro"
	ReasonUUID              = "uuid"
	ReasonBitsLength        = "bits_length"
	ReasonNameCollision     = "name_collision"
	ReasonReservedName      = "reserved_name"
	ReasonEvolutionBlocked  = "evolution_blocked"
	ReasonFrameShort        = "frame_short"
	ReasonMagicByte         = "magic_byte"
	ReasonSchemaUnknown     = "schema_id_unknown"
	ReasonAvroDecode        = "avro_decode"
	ReasonAvroTrailing      = "avro_trailing"
	ReasonProtoDecode       = "proto_decode"
	ReasonProtoIndex        = "proto_index"
	ReasonCastInexact       = "cast_inexact"
	ReasonExpression        = "expression"
	ReasonColumnRule        = "column_rule" // not of a record: the route's rules are at fault
	ReasonCloudEvent        = "cloudevent_shape"
)

// Rejected says that a record, or the change of a table that it asks for, is not acceptable.
type Rejected struct { //nolint:errname // it is an outcome with a name of its own: rejections are counted and parked
	Reason string // one of the Reason constants
	Detail string // what and where; at most 256 bytes of the record's own text

	// KeyColumns and Key are the record's key where it is readable, as in Event.
	KeyColumns []Column
	Key        []changelog.Value
}

// Error implements error.
func (r *Rejected) Error() string {
	if r.Detail == "" {
		return "decode: " + r.Reason
	}
	return "decode: " + r.Reason + ": " + r.Detail
}

// TableKey appends the key of a table with schema s to dst; false if the record's key does not fit it.
func (r *Rejected) TableKey(dst changelog.Key, s *changelog.Schema) (changelog.Key, bool) {
	return tableKey(dst, s, r.KeyColumns, r.Key)
}

const maxQuote = 120

// reject makes a Rejected. Quoted texts of the record go through quote.
func reject(reason, format string, args ...any) *Rejected {
	return &Rejected{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// quote shows record text in a Detail: cut to a bound and with anything odd escaped.
func quote(b []byte) string {
	if len(b) > maxQuote {
		return fmt.Sprintf("%.*q… (%d bytes)", maxQuote, b[:maxQuote], len(b))
	}
	return fmt.Sprintf("%q", b)
}
