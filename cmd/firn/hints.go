package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"firn/ingest/decode"
)

// readHints reads a file of hints: a JSON object of columns, each with its Connect schema as messages with schemas have it or a list of
// such, if the column had several; or an object of tables (the last parts of topics' names) with such objects. It returns the hints by
// table, "" for any. No path: no hints.
func readHints(path string) (map[string][]decode.Hint, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // as said
	}
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	out := map[string][]decode.Hint{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		schemas, ok := schemasOf(members[name])
		if ok {
			err = addHints(out, "", name, schemas)
		} else {
			err = tableHints(out, name, members[name])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return out, nil
}

func tableHints(out map[string][]decode.Hint, table string, text json.RawMessage) error {
	var columns map[string]json.RawMessage
	if err := json.Unmarshal(text, &columns); err != nil {
		return fmt.Errorf("%q is no schema, no list of schemas and no object of columns", table)
	}
	for _, name := range slices.Sorted(maps.Keys(columns)) {
		schemas, ok := schemasOf(columns[name])
		if !ok {
			return fmt.Errorf("column %q of %q: no schema and no list of schemas", name, table)
		}
		if err := addHints(out, table, name, schemas); err != nil {
			return err
		}
	}
	return nil
}

// schemasOf returns the schemas of a column: one, which has a type, or a list.
func schemasOf(text json.RawMessage) (schemas []json.RawMessage, ok bool) {
	var one struct{ Type *json.RawMessage }
	if json.Unmarshal(text, &one) == nil && one.Type != nil && (*one.Type)[0] == '"' {
		return []json.RawMessage{text}, true
	}
	return schemas, json.Unmarshal(text, &schemas) == nil && len(schemas) > 0
}

func addHints(out map[string][]decode.Hint, table, column string, schemas []json.RawMessage) error {
	for _, s := range schemas {
		h := decode.Hint{Column: column, Schema: s}
		if err := (&decode.Options{Hints: []decode.Hint{h}}).Validate(); err != nil {
			return fmt.Errorf("column %q: %w", column, err)
		}
		out[table] = append(out[table], h)
	}
	return nil
}
