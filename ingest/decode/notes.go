package decode

import (
	"slices"
	"strconv"
	"strings"
)

// Note is what an operator should know of a column, told by its schema alone.
type Note uint8

// The notes.
const (
	// NoteNullDefault: the column is optional and has a default. Unless the converter is told otherwise, its nulls arrive as that
	// default and cannot be told apart (1.4).
	NoteNullDefault Note = iota + 1
	// NoteUnsent: a value that PostgreSQL stores out of line and that has not changed arrives as null, and cannot be told from one (2.7).
	NoteUnsent
	// NoteUnsentText: the same, if binary.handling.mode is base64: the schema does not tell it from hex.
	NoteUnsentText
	// NoteUnsigned: if it is BIGINT UNSIGNED, numbers above 2^63-1 arrive negative (3.2): the schema does not tell.
	NoteUnsigned
)

// ColumnNote is a note on a column.
type ColumnNote struct {
	Column string
	Note   Note
}

// longBits is the length of a bit string that PostgreSQL may store out of line: values of about 2 kB.
const longBits = 8 * 2000

// note returns what is to be said of a row's column that is read by v; 0: nothing.
func (c compiler) note(v *conv, s *connectSchema) Note {
	source, told := s.param("__debezium.source.column.type")
	binlog := c.from == connectorMySQL || c.from == connectorMariaDB
	switch {
	case c.from == connectorPostgres && c.holes.raw != nil && unsent(v, s):
		return NoteUnsent
	case c.from == connectorPostgres && s.typ == "string" && source == "BYTEA":
		return NoteUnsentText
	case s.optional && s.hasDefault:
		return NoteNullDefault
	case binlog && s.typ == "int64" && s.name == "" && !told:
		return NoteUnsigned
	}
	return 0
}

// unsent reports whether PostgreSQL may store values of a column out of line, and the connector has no placeholder for them.
func unsent(v *conv, s *connectSchema) bool {
	switch s.typ {
	case "array":
		return v.holes == nil
	case "struct":
		return true
	case "bytes":
		length, _ := s.param("length")
		n, err := strconv.Atoi(length)
		return s.name == nameBits && err == nil && n >= longBits
	}
	return false
}

// flattenedNames are the members that ExtractNewRecordState adds without being told a prefix, and those of the source block that it is
// most often told to add.
var flattenedNames = []string{
	"__deleted", "__op", "__ts_ms", "__ts_us", "__ts_ns", "__lsn", "__db", "__schema", "__table", "__name", "__version",
	"__connector", "__snapshot", "__txId", "__xmin", "__file", "__pos", "__row", "__gtid", "__server_id", "__scn", "__commit_scn", "__commit_lsn", "__change_lsn",
}

// LooksAdded reports whether a flattened row's column has the name of a member that the transformation adds (1.13).
func LooksAdded(name string) bool {
	return slices.Contains(flattenedNames, name) || strings.HasPrefix(name, "__source_") || strings.HasPrefix(name, "__transaction_")
}
