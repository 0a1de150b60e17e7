package decode

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// rules tells of each reason which rule of spec/debezium.md a record has broken, for people.
var rules = map[string]string{
	ReasonMessageSize:       "a record has at most max_record_bytes, and 1 MiB of headers",
	ReasonEmptyPayload:      "a value has at least one byte; a deletion mark has no value at all",
	ReasonNullLiteral:       "the value is the text null, which is no event",
	ReasonUTF8:              "texts are valid UTF-8, without lone surrogates",
	ReasonJSONBOM:           "JSON has no byte-order mark",
	ReasonJSONSyntax:        "the value or key is one JSON document, by RFC 8259",
	ReasonJSONTrailing:      "nothing comes after the JSON document",
	ReasonJSONDepth:         "JSON nests at most 64 deep, schemas 128",
	ReasonJSONDuplicateKey:  "a name is in a JSON object once",
	ReasonSchemaMissing:     "the format demands a schema with each message",
	ReasonSchemaInvalid:     "the schema is one of Kafka Connect's: known types, a field once, parameters that are numbers",
	ReasonSchemaMismatch:    "the payload has the fields of its schema",
	ReasonSchemaLimit:       "a schema stays within the limits of columns and size",
	ReasonRequiredMissing:   "a field that is not optional has a value",
	ReasonEnvelopeShape:     "the value has the envelope of its shape; Debezium's: before, after, source, op",
	ReasonOpMissing:         "the envelope says what it does; Debezium's by op",
	ReasonOpUnknown:         "what the envelope does is known; of Debezium's, op is one of c, u, d, r, t, m",
	ReasonNoImage:           "a change has its row; in Debezium's envelope a create, update or read in after",
	ReasonImagesContradict:  "a delete has no row in after, and old rows are as many as new ones",
	ReasonSourceMissing:     "the envelope has a source block",
	ReasonSourceInvalid:     "the source block has the fields of its connector, snapshot among its values",
	ReasonSourceMismatch:    "the event is of the table that the route names",
	ReasonPosition:          "the event's position in the source can be read",
	ReasonKeyMissing:        "a change of a table with a key has a message key, and an update or delete needs one",
	ReasonKeyDecode:         "the message key can be read",
	ReasonKeyNull:           "no key column is null",
	ReasonKeyMismatch:       "the message key and the row agree, and an edited record keeps its key",
	ReasonKeyColumnsChanged: "the key has the columns that the table's key has",
	ReasonPlaceholderInKey:  "a key column has its value, not the placeholder of one that was not sent",
	ReasonValueReference:    "the value is in the message, not a reference to where it lies",
	ReasonTypeMismatch:      "a value has the JSON or wire form of its column's type",
	ReasonIntRange:          "an integer fits its column",
	ReasonFloatRange:        "a floating-point number is finite, or written as NaN or Infinity",
	ReasonBase64:            "bytes are in the standard alphabet of base64, padded",
	ReasonDecimalBytes:      "a decimal's bytes are a two's complement number",
	ReasonDecimalPrecision:  "a decimal has no more digits than its column",
	ReasonTemporalFormat:    "a date or time has the form of its type",
	ReasonTemporalRange:     "a date or time is within what its column can hold",
	ReasonTemporalSpecial:   "infinity is taken as the route's infinity setting says",
	ReasonSubMicro:          "times have no digits below a microsecond",
	ReasonUUID:              "a UUID has 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12",
	ReasonBitsLength:        "bits have the length of their column",
	ReasonFrameShort:        "a framed key or value has its whole frame: a byte, then an id of 4 or 8 bytes or a GUID of 16",
	ReasonMagicByte:         "a framed key or value begins with byte 0, or 1 before a GUID",
	ReasonSchemaUnknown:     "the registry has the schema that the record names",
	ReasonAvroDecode:        "the key or value is Avro of its schema",
	ReasonAvroTrailing:      "nothing comes after the Avro value",
	ReasonProtoDecode:       "the key or value is a Protobuf message of its schema",
	ReasonProtoIndex:        "the message type that the record names is in its schema",
	ReasonCastInexact:       "a value that the route's column rules cast is the same in the other type",
	ReasonExpression:        "an expression of the route's column rules has a value of its type",
	ReasonColumnRule:        "the route's column rules make columns that the table can have",
	ReasonCloudEvent:        "a CloudEvent has specversion 1.0, id, source, type, and data of a type that the format reads",
	ReasonNameCollision:     "column names differ by more than case",
	ReasonReservedName:      "column names do not begin with a prefix that firn keeps for itself",
	ReasonEvolutionBlocked:  "the table's schema can take the event's columns",
}

// Rule returns the rule that a reason stands for; "" for a reason that this package does not give.
func Rule(reason string) string { return rules[reason] }

// Reading is how far a JSON document can be read.
type Reading struct {
	Text  string // what could be read; indented if it is all
	Bytes int64  // of the document
	Path  string // where reading ends, as in /payload/after/tags/3; empty: at the top
	Error string // why it ends; empty: the whole document was read
}

// Read reads a JSON document as far as it goes, for people: at most limit bytes of it. What is not JSON ends at once.
func Read(doc []byte, limit int) Reading {
	shown := doc[:min(len(doc), limit)]
	in := jsontext.NewDecoder(bytes.NewReader(shown))
	var r Reading
	for {
		_, err := in.ReadToken()
		if errors.Is(err, io.EOF) && in.StackDepth() == 0 {
			break
		}
		if err != nil {
			r.end(in, err, len(doc) > limit)
			r.Text = strings.ToValidUTF8(string(shown[:r.Bytes]), "\uFFFD")
			return r
		}
	}
	r.Bytes = in.InputOffset()
	if whole := jsontext.Value(slices.Clone(shown)); whole.Indent(jsontext.WithIndent("  ")) == nil {
		r.Text = string(whole)
	}
	return r
}

// end takes in why a document cannot be read further. The decoder's own text names itself.
func (r *Reading) end(in *jsontext.Decoder, err error, longer bool) {
	r.Bytes, r.Path, r.Error = in.InputOffset(), string(in.StackPointer()), err.Error()
	if s, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		r.Bytes, r.Path, r.Error = s.ByteOffset, string(s.JSONPointer), s.Err.Error()
	}
	if longer && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)) {
		r.Error = "only the beginning is shown"
	}
}
