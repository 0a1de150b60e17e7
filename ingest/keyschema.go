package ingest

import "bytes"

var schemaMember = []byte(`{"schema":`)

// keySchema returns the part of a message key that holds its schema, as raw bytes from the key's start: those that
// make the producer choose another partition when the schema changes (spec/debezium.md 1.2). It is nil where the key
// has none.
func keySchema(key []byte) []byte {
	if !bytes.HasPrefix(key, schemaMember) {
		return nil
	}
	depth, quoted := 0, false
	for i := len(schemaMember); i < len(key); i++ {
		switch c := key[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return key[:i+1]
			}
			if depth < 0 {
				return nil // the schema is null or a scalar
			}
		case c == ',' && depth == 0:
			return nil
		}
	}
	return nil
}
