package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The schemas of 1.9 are read here and not by a validator: what counts is how Connect's types stand in them, and the order
// of their properties.

// jsonNode is a JSON document: nil, bool, json.Number, string, []jsonNode or *jsonObject.
type jsonNode any

// jsonObject is an object with its members in order.
type jsonObject struct {
	names  []string
	values []jsonNode
}

// get returns a member; nil: there is none.
func (o *jsonObject) get(name string) jsonNode {
	if o == nil {
		return nil
	}
	if i := slices.Index(o.names, name); i >= 0 {
		return o.values[i]
	}
	return nil
}

// text returns a member that is a string.
func (o *jsonObject) text(name string) string {
	s, _ := o.get(name).(string)
	return s
}

// parseJSON reads a document.
func parseJSON(text []byte) (jsonNode, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	n, err := readJSON(dec, maxSchemaDepth)
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the schema", len(rest))
	}
	return n, nil
}

func readJSON(dec *json.Decoder, depth int) (jsonNode, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	delim, nested := token.(json.Delim)
	switch {
	case !nested:
		return token, nil
	case depth == 0:
		return nil, fmt.Errorf("more than %d levels", maxSchemaDepth)
	case delim == '[':
		return readJSONArray(dec, depth)
	}
	o := &jsonObject{}
	var seen map[string]bool
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, _ := name.(string) // the decoder takes nothing else
		if seen[key] {
			return nil, fmt.Errorf("member %q is there twice", key)
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[key] = true
		value, err := readJSON(dec, depth-1)
		if err != nil {
			return nil, err
		}
		o.names, o.values = append(o.names, key), append(o.values, value)
	}
	_, err = dec.Token()
	return o, err
}

func readJSONArray(dec *json.Decoder, depth int) (jsonNode, error) {
	all := []jsonNode{}
	for dec.More() {
		n, err := readJSON(dec, depth-1)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	_, err := dec.Token()
	return all, err
}

// parseJSONSchema makes a Connect schema of a registered one: a JSON Schema, or Connect's own as the JSON converter writes it (1.4).
func parseJSONSchema(s Schema) (*connectSchema, *Rejected) {
	j := jsonSchemas{left: maxAvroTypes}
	for _, r := range append(slices.Clone(s.References), Reference{Text: s.Text}) {
		doc, err := parseJSON(r.Text)
		if err != nil {
			return nil, reject(ReasonSchemaInvalid, "%s", quote([]byte(err.Error())))
		}
		j.docs = append(j.docs, jsonDocument{r.Name, doc})
	}
	root := &j.docs[len(j.docs)-1]
	if o, ok := root.root.(*jsonObject); ok && o.text("type") == "struct" {
		x := &scanner{b: s.Text}
		of, _, ok := x.connectSchema(maxSchemaDepth)
		if !ok {
			return nil, x.err
		}
		return of, nil
	}
	return j.schema(root, root.root)
}

// jsonSchemas makes Connect schemas of JSON Schemas.
type jsonSchemas struct {
	docs   []jsonDocument // the schema itself is the last one
	left   int
	within []*jsonObject // schemas that are open
}

type jsonDocument struct {
	name string // as others refer to it
	root jsonNode
}

// schema reads a schema that stands in a document.
func (j *jsonSchemas) schema(doc *jsonDocument, n jsonNode) (*connectSchema, *Rejected) {
	o, ok := n.(*jsonObject)
	if !ok {
		return nil, reject(ReasonSchemaInvalid, "a schema of any value is no column")
	}
	if j.left--; j.left < 0 {
		return nil, reject(ReasonSchemaLimit, "a row of more than %d types", maxAvroTypes)
	}
	if slices.Contains(j.within, o) || len(j.within) == maxSchemaDepth {
		return nil, reject(ReasonSchemaInvalid, "schema %s contains itself, or has more than %d levels", quote([]byte(o.text("title"))), maxSchemaDepth)
	}
	j.within = append(j.within, o)
	defer func() { j.within = j.within[:len(j.within)-1] }()
	if ref, ok := o.get("$ref").(string); ok {
		doc, to, err := j.resolve(doc, ref)
		if err != nil {
			return nil, reject(ReasonSchemaInvalid, "reference %s: %v", quote([]byte(ref)), err)
		}
		return j.schema(doc, to)
	}
	for _, name := range []string{"oneOf", "anyOf", "allOf"} {
		if of, ok := o.get(name).([]jsonNode); ok {
			return j.combined(doc, name, of)
		}
	}
	typ, optional, rej := o.connectType()
	if rej != nil {
		return nil, rej
	}
	s := &connectSchema{typ: typ, optional: optional, name: o.text("title"), params: o.parameters(), hasDefault: o.get("default") != nil}
	switch typ {
	case "struct":
		rej = j.members(doc, s, o)
	case "array":
		s.items, rej = j.schema(doc, o.get("items"))
	case "map":
		rej = j.mapping(doc, s, o)
	}
	return s, rej
}

// resolve finds what a reference means: NAME#/POINTER, both parts optional.
func (j *jsonSchemas) resolve(doc *jsonDocument, ref string) (*jsonDocument, jsonNode, error) {
	name, pointer, _ := strings.Cut(ref, "#")
	if name != "" {
		i := slices.IndexFunc(j.docs, func(d jsonDocument) bool {
			o, _ := d.root.(*jsonObject)
			return d.name == name || o.text("$id") == name
		})
		if i < 0 {
			return nil, nil, errors.New("no such schema among the registered references")
		}
		doc = &j.docs[i]
	}
	n := doc.root
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" {
			break
		}
		switch at := n.(type) {
		case *jsonObject:
			n = at.get(strings.NewReplacer("~1", "/", "~0", "~", "%25", "%").Replace(step))
		case []jsonNode:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(at) {
				return nil, nil, fmt.Errorf("there is no %q", step)
			}
			n = at[i]
		default:
			n = nil
		}
		if n == nil {
			return nil, nil, fmt.Errorf("there is no %q", step)
		}
	}
	return doc, n, nil
}

// combined reads oneOf and its like: of null and one other schema, or of one alone.
func (j *jsonSchemas) combined(doc *jsonDocument, name string, of []jsonNode) (*connectSchema, *Rejected) {
	var value jsonNode
	null, others := false, 0
	for _, n := range of {
		if o, ok := n.(*jsonObject); ok && o.text("type") == "null" {
			null = true
			continue
		}
		value = n
		others++
	}
	if others != 1 || null && name == "allOf" {
		return nil, reject(ReasonSchemaInvalid, "%s of %d types is no column", name, others)
	}
	s, rej := j.schema(doc, value)
	if rej == nil && null {
		s.optional = true
	}
	return s, rej
}

// connectType returns Connect's type of a schema's values: connect.type says it, or the JSON type does.
func (o *jsonObject) connectType() (typ string, optional bool, rej *Rejected) {
	is, _ := o.get("type").(string)
	if all, ok := o.get("type").([]jsonNode); ok {
		others := slices.DeleteFunc(slices.Clone(all), func(n jsonNode) bool { return n == "null" })
		optional = len(others) < len(all)
		if len(others) == 1 {
			is, _ = others[0].(string)
		}
	}
	connect := o.text("connect.type")
	switch is {
	case "boolean":
		typ = "boolean"
	case "integer":
		typ = oneOf(connect, "int64", "int8", "int16", "int32")
	case "number":
		typ = oneOf(connect, "double", "float32", "float64", "bytes", "int8", "int16", "int32", "int64")
	case "string":
		typ = oneOf(connect, "string", "bytes")
	case "array":
		typ = oneOf(connect, "array", "map")
	case "object":
		typ = oneOf(connect, "struct", "map")
		if _, open := o.get("additionalProperties").(*jsonObject); open && o.get("properties") == nil {
			typ = "map"
		}
	case "":
		return o.untyped(optional)
	default:
		return "", false, reject(ReasonSchemaInvalid, "type %s of a schema", quote([]byte(is)))
	}
	return typ, optional, nil
}

// untyped is connectType of a schema without one type: an enum of texts, or an object by its properties.
func (o *jsonObject) untyped(optional bool) (string, bool, *Rejected) {
	if _, ok := o.get("properties").(*jsonObject); ok && o.get("type") == nil {
		return "struct", optional, nil
	}
	symbols, ok := o.get("enum").([]jsonNode)
	for _, n := range symbols {
		switch n.(type) {
		case string:
		case nil:
			optional = true
		default:
			ok = false
		}
	}
	if !ok {
		return "", false, reject(ReasonSchemaInvalid, "a schema of no single type is no column")
	}
	return "string", optional, nil
}

// oneOf returns s if it is one of some, else a default.
func oneOf(s, or string, some ...string) string {
	if slices.Contains(some, s) {
		return s
	}
	return or
}

// parameters returns connect.parameters.
func (o *jsonObject) parameters() (out []param) {
	params, _ := o.get("connect.parameters").(*jsonObject)
	if params == nil {
		return nil
	}
	for i, name := range params.names {
		if s, ok := params.values[i].(string); ok {
			out = append(out, param{name, s})
		}
	}
	return out
}

// members reads an object's properties, in the order of connect.index where all have it. Without that, one that is not
// required may be left out.
func (j *jsonSchemas) members(doc *jsonDocument, s *connectSchema, o *jsonObject) *Rejected {
	properties, _ := o.get("properties").(*jsonObject)
	required, _ := o.get("required").([]jsonNode)
	if properties == nil {
		return nil
	}
	index := make(map[string]int64, len(properties.names))
	for i, name := range properties.names {
		f, rej := j.schema(doc, properties.values[i])
		switch {
		case rej == nil:
		case rej.Reason == ReasonSchemaLimit:
			return rej
		default:
			f = &connectSchema{bad: rej} // no matter, unless it is to be a column
		}
		of, _ := properties.values[i].(*jsonObject)
		if n, ok := of.get("connect.index").(json.Number); ok {
			if at, err := n.Int64(); err == nil {
				index[name] = at
			}
		}
		if _, ok := index[name]; !ok && !slices.Contains(required, jsonNode(name)) {
			f.optional = true
		}
		s.fields = append(s.fields, connectField{name, f})
	}
	if len(index) == len(s.fields) {
		slices.SortStableFunc(s.fields, func(a, b connectField) int { return int(max(-1, min(1, index[a.name]-index[b.name]))) })
	}
	return nil
}

// mapping reads a map: an object, or an array of entries where keys are no texts.
func (j *jsonSchemas) mapping(doc *jsonDocument, s *connectSchema, o *jsonObject) (rej *Rejected) {
	if o.get("items") == nil {
		s.keys = &connectSchema{typ: "string"}
		s.values, rej = j.schema(doc, o.get("additionalProperties"))
		return rej
	}
	entry, rej := j.schema(doc, o.get("items"))
	if rej != nil {
		return rej
	}
	s.entries, s.keys, s.values = true, entry.field("key"), entry.field("value")
	if s.keys == nil || s.values == nil || len(entry.fields) != 2 {
		return reject(ReasonSchemaInvalid, "an entry of a map has other properties than key and value")
	}
	return nil
}
