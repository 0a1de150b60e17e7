// Package decode turns the records of Debezium topics into events and fits events into tables. It implements
// spec/debezium.md of the project; numbers such as 2.4 name its sections.
//
// A Decoder reads records of one topic: JSON with or without schemas, JSON, Avro or Protobuf with those of a registry, as row-change
// envelopes or, in JSON, as rows. The schema that each message repeats or names is compiled once into a Shape, a list of
// columns with their Iceberg types, and later messages are walked against it in one pass, without maps and without an
// allocation a field:
//
//	{"schema":{…},"payload":{"before":…,"after":{"id":1,…},"source":{…},"op":"c",…}}
//	└ compared with the last one ┘              └ one Value a column ┘ └ position, identity
//
// Keys and values in Avro, in Protobuf, and in JSON with a JSON Schema, name a registered schema in a frame or a header.
// Decode asks for one that it does not have by a *MissingSchema error; parsed, it becomes the same Connect schema as in JSON, and bodies in Avro and Protobuf are walked against it by readers of their own.
//
// Messages without a schema get their Shape from hints, the table's columns and, for the rest, from their values (1.4).
//
// Some records are made into such rows first. A CloudEvent's data are read as its value would be, and its attributes stand in for the source
// block (1.12). An outbox event becomes a row of JSON, payload included (1.14). MongoDB's documents are read as rows without a schema, whose
// values, in Extended JSON, tell their types.
//
// The messages of other tools (Canal, Maxwell, Oracle GoldenGate, AWS DMS) give events of the same kind; one message may give several.
//
// Plan says what a Shape needs of a table: new columns, wider types, and a Mapping that turns an event's values into
// rows and keys of the table (section 4). It is pure.
//
// Whatever the bytes are, Decode gives an event, a skip (an event of another Kind) or a *Rejected with one of the
// reasons of 5.2; never a panic, and no work or memory out of proportion to the record.
package decode
