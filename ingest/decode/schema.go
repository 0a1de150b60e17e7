package decode

import (
	"strconv"

	"firn/changelog"
)

// connectSchema is a Connect schema as the JSON converter writes it (1.4).
type connectSchema struct {
	typ        string
	optional   bool
	name       string
	params     []param
	hasDefault bool // and not null
	fields     []connectField
	items      *connectSchema
	keys       *connectSchema
	values     *connectSchema
	bad        *Rejected // there is no such type, for this reason
	entries    bool      // of maps: they are written as [{"key":…,"value":…},…], as JSON Schema's converter does (1.9)
}

type param struct{ name, value string }

type connectField struct {
	name   string
	schema *connectSchema
}

func (s *connectSchema) param(name string) (string, bool) {
	for _, p := range s.params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

func (s *connectSchema) field(name string) *connectSchema {
	for _, f := range s.fields {
		if f.name == name {
			return f.schema
		}
	}
	return nil
}

// maxMembers and maxColumns bound structs and rows (4.4).
const (
	maxMembers = 500
	maxColumns = 2000
	maxName    = 255
)

// connectSchema reads a schema. The document is known to be JSON.
func (x *scanner) connectSchema(depth int) (*connectSchema, string, bool) {
	if x.peek() != '{' {
		return nil, "", x.fail(ReasonSchemaInvalid, "schema is no object: %s", quote(x.b[x.p:min(len(x.b), x.p+16)]))
	}
	if depth == 0 {
		return nil, "", x.fail(ReasonJSONDepth, "schema has too many levels")
	}
	s, field := &connectSchema{}, ""
	names := nameSet{x: x, base: len(x.names)}
	defer names.release()
	for more := x.open(); more; more = x.more('}') {
		name, ok := names.next()
		if !ok || !x.schemaMember(s, string(name), &field, depth) {
			return nil, "", false
		}
	}
	if x.err != nil {
		return nil, "", false
	}
	if s.typ == "" {
		return nil, "", x.fail(ReasonSchemaInvalid, "schema of field %q has no type", field)
	}
	return s, field, true
}

func (x *scanner) schemaMember(s *connectSchema, name string, field *string, depth int) (ok bool) {
	switch name {
	case "type":
		s.typ, ok = x.schemaText(name)
	case "name":
		s.name, ok = x.schemaText(name)
	case "field":
		*field, ok = x.schemaText(name)
	case "optional":
		switch x.peek() {
		case 't':
			s.optional, ok = true, x.literal("true")
		case 'f':
			ok = x.literal("false")
		default:
			return x.fail(ReasonSchemaInvalid, "\"optional\" is no boolean")
		}
	case "default":
		s.hasDefault, ok = x.peek() != 'n', x.skip(maxDepth)
	case "parameters":
		ok = x.schemaParams(s)
	case "fields":
		ok = x.schemaFields(s, depth)
	case "items":
		s.items, _, ok = x.connectSchema(depth - 1)
	case "keys":
		s.keys, _, ok = x.connectSchema(depth - 1)
	case "values":
		s.values, _, ok = x.connectSchema(depth - 1)
	default:
		ok = x.skip(maxDepth)
	}
	return ok
}

// schemaText reads a string, or null as an empty one.
func (x *scanner) schemaText(what string) (string, bool) {
	if x.peek() == 'n' {
		return "", x.literal("null")
	}
	if x.peek() != '"' {
		return "", x.fail(ReasonSchemaInvalid, "%q of a schema is no string", what)
	}
	b, ok := x.text()
	return string(b), ok
}

func (x *scanner) schemaParams(s *connectSchema) bool {
	if x.peek() == 'n' {
		return x.literal("null")
	}
	if x.peek() != '{' {
		return x.fail(ReasonSchemaInvalid, "\"parameters\" is no object")
	}
	names := nameSet{x: x, base: len(x.names)}
	defer names.release()
	for more := x.open(); more; more = x.more('}') {
		name, ok := names.next()
		if !ok {
			return false
		}
		p := param{name: string(name)}
		if p.value, ok = x.schemaText(p.name); !ok {
			return false
		}
		s.params = append(s.params, p)
	}
	return x.err == nil
}

func (x *scanner) schemaFields(s *connectSchema, depth int) bool {
	if x.peek() != '[' {
		return x.fail(ReasonSchemaInvalid, "\"fields\" is no array")
	}
	x.p++
	if x.peek() == ']' {
		x.p++
		return true
	}
	seen := map[string]bool{}
	for {
		f, name, ok := x.connectSchema(depth - 1)
		switch {
		case !ok:
			return false
		case name == "":
			return x.fail(ReasonSchemaInvalid, "a struct's field has no name")
		case seen[name]:
			return x.fail(ReasonSchemaInvalid, "field %s is there twice", quote([]byte(name)))
		}
		seen[name] = true
		s.fields = append(s.fields, connectField{name, f})
		if !x.more(']') {
			return x.err == nil
		}
	}
}

// connector is a kind of source, as far as it matters to how values are read.
type connector uint8

const (
	connectorOther connector = iota
	connectorPostgres
	connectorMySQL // and MariaDB
	connectorMariaDB
	connectorSQLServer
	connectorOracle
	connectorDB2
	connectorMongoDB
)

func connectorOf(name string) connector {
	switch name {
	case "postgresql":
		return connectorPostgres
	case "mysql":
		return connectorMySQL
	case "mariadb":
		return connectorMariaDB
	case "sqlserver":
		return connectorSQLServer
	case "oracle":
		return connectorOracle
	case "db2":
		return connectorDB2
	case "mongodb":
		return connectorMongoDB
	}
	return connectorOther
}

// compiler turns Connect schemas into what values are read with.
type compiler struct {
	from  connector
	holes holes
	nanos bool // nanoseconds stay: of tables of format version 3
}

func (d *Decoder) compiler(from connector) compiler { return compiler{from, d.holes, d.o.Nanoseconds} }

// record compiles a struct: its members become fields, and columns where it is a row.
func (c compiler) record(s *connectSchema) (*record, *Rejected) {
	if s.typ != "struct" {
		return nil, reject(ReasonSchemaInvalid, "a row's schema is %q, no struct", s.typ)
	}
	if len(s.fields) > maxColumns {
		return nil, reject(ReasonSchemaLimit, "%d columns", len(s.fields))
	}
	r := &record{strict: true}
	for _, f := range s.fields {
		v, rej := c.value(f.schema)
		if rej != nil {
			rej.Detail = "column " + quote([]byte(f.name)) + ": " + rej.Detail
			return nil, rej
		}
		r.add(f.name, v, !f.schema.optional)
		r.fields[len(r.fields)-1].note = c.note(v, f.schema)
	}
	return r, nil
}

func (c compiler) member(s *connectSchema) (*conv, *Rejected) {
	c.holes = holes{} // parts of a value are never placeholders themselves
	if s == nil {
		return nil, reject(ReasonSchemaInvalid, "part of an array or map has no schema")
	}
	return c.value(s)
}

// value compiles any schema (3.1): the literal type says how to read, the semantic name what it means.
func (c compiler) value(s *connectSchema) (*conv, *Rejected) {
	v := &conv{connect: s.name}
	rej := c.fill(v, s)
	if rej != nil {
		return nil, rej
	}
	return v, nil
}

func (c compiler) fill(v *conv, s *connectSchema) *Rejected {
	if s.bad != nil {
		bad := *s.bad
		return &bad
	}
	switch s.typ {
	case "int8":
		return c.integer(v, s, -1<<7, 1<<7-1)
	case "int16":
		return c.integer(v, s, -1<<15, 1<<15-1)
	case "int32":
		return c.integer(v, s, -1<<31, 1<<31-1)
	case "int64":
		return c.integer(v, s, -1<<63, 1<<63-1)
	case "float", "float32":
		v.set(readFloat, changelog.Float)
	case "double", "float64":
		v.set(readDouble, changelog.Double)
		if s.name == timePrefix+"MicroDuration" || s.name == timePrefix+"NanoDuration" {
			v.set(readWhole, changelog.Long)
		}
	case "boolean":
		v.set(readBool, changelog.Boolean)
	case "string":
		c.text(v, s)
	case "bytes":
		return c.bytes(v, s)
	case "array":
		return c.array(v, s)
	case "map":
		return c.mapping(v, s)
	case "struct":
		return c.structure(v, s)
	default:
		return reject(ReasonSchemaInvalid, "unknown type %s", quote([]byte(s.typ)))
	}
	return nil
}

// The semantic names that change how a value is read.
const (
	nameDecimal         = "org.apache.kafka.connect.data.Decimal"
	nameConnectDate     = "org.apache.kafka.connect.data.Date"
	nameConnectTime     = "org.apache.kafka.connect.data.Time"
	nameConnectTS       = "org.apache.kafka.connect.data.Timestamp"
	nameVariableDecimal = "io.debezium.data.VariableScaleDecimal"
	nameBits            = "io.debezium.data.Bits"
	nameJSON            = "io.debezium.data.Json"
	nameUUID            = "io.debezium.data.Uuid"
	nameEnum            = "io.debezium.data.Enum"
	timePrefix          = "io.debezium.time."
)

func (c compiler) integer(v *conv, s *connectSchema, low, high int64) *Rejected {
	v.low, v.high = low, high
	mysql := c.from == connectorMySQL || c.from == connectorMariaDB
	timeOf := func(unit int64) {
		v.unit = unit
		if mysql { // a signed length of up to 838 hours
			v.set(readDuration, changelog.Long)
		} else {
			v.set(readTime, changelog.Time)
		}
	}
	switch s.name {
	case timePrefix + "Date", nameConnectDate:
		v.set(readDate, changelog.Date)
		v.low, v.high = max(low, -1<<31), min(high, 1<<31-1)
		v.infinite = c.from == connectorPostgres
	case timePrefix + "Time", nameConnectTime:
		timeOf(unitMilli)
	case timePrefix + "MicroTime":
		timeOf(unitMicro)
	case timePrefix + "NanoTime":
		timeOf(unitNano)
	case timePrefix + "Timestamp", nameConnectTS:
		v.timestamp(unitMilli, c.from)
	case timePrefix + "MicroTimestamp":
		v.timestamp(unitMicro, c.from)
	case timePrefix + "NanoTimestamp":
		v.timestamp(unitNano, c.from)
		if c.nanos {
			v.op, v.typ = readTimestampNS, changelog.Primitive(changelog.TimestampNS)
		}
	case nameInstantMillis:
		v.instant(unitMilli)
	case nameInstantMicros:
		v.instant(unitMicro)
	case nameInstantNanos:
		v.instant(unitNano)
	default:
		v.set(readInt, changelog.Int)
		if high > 1<<31-1 {
			v.set(readInt, changelog.Long)
			if t, _ := s.param("__debezium.source.column.type"); t == "BIGINT UNSIGNED" {
				v.op, v.typ = readUnsigned, changelog.DecimalOf(20, 0)
			}
		}
	}
	return nil
}

func (v *conv) timestamp(unit int64, from connector) {
	v.set(readTimestamp, changelog.Timestamp)
	v.unit, v.infinite = unit, from == connectorPostgres
}

// instant is a timestamp with a zone, of a producer that is not Connect.
func (v *conv) instant(unit int64) {
	v.set(readTimestamp, changelog.TimestampTZ)
	v.unit = unit
}

func (c compiler) text(v *conv, s *connectSchema) {
	v.set(readText, changelog.String)
	v.holes = c.holes.text(c.from)
	v.infinite = c.from == connectorPostgres
	switch s.name {
	case timePrefix + "IsoDate":
		v.set(readISODate, changelog.Date)
	case timePrefix + "IsoTime":
		v.set(readISOTime, changelog.Time)
	case timePrefix + "IsoTimestamp":
		v.set(readISOTimestamp, changelog.Timestamp)
	case timePrefix + "ZonedTimestamp":
		v.set(readZoned, changelog.TimestampTZ)
	case nameUUID:
		v.set(readUUID, changelog.UUID)
	case nameEnum:
		v.members = enumMembers(s)
		if v.members != nil {
			v.op = readEnum
		}
	case nameJSON:
		v.holes = c.holes.json(c.from)
	}
}

// enumMembers splits the parameter "allowed" if values may need it (3.5): MariaDB escapes members with a comma in some
// places and not in others.
func enumMembers(s *connectSchema) []string {
	allowed, _ := s.param("allowed")
	var members []string
	var member []byte
	escaped := false
	for i := 0; i < len(allowed); i++ {
		switch {
		case allowed[i] == '\\' && i+1 < len(allowed):
			escaped = true
			i++
			member = append(member, allowed[i])
		case allowed[i] == ',':
			members, member = append(members, string(member)), member[:0]
		default:
			member = append(member, allowed[i])
		}
	}
	if !escaped {
		return nil
	}
	return append(members, string(member))
}

func (c compiler) bytes(v *conv, s *connectSchema) *Rejected {
	switch s.name {
	case nameDecimal:
		return v.decimal(s)
	case nameBits:
		v.set(readBits, changelog.Binary)
		length, _ := s.param("length")
		n, err := strconv.ParseInt(length, 10, 32)
		if length != "" && (err != nil || n < 0) {
			return reject(ReasonSchemaInvalid, "length %s of bits", quote([]byte(length)))
		}
		v.high = (n + 7) / 8
		if length == "" {
			v.high = 1 << 31
		}
	case nameUUID:
		v.set(readUUID, changelog.UUID)
	default:
		v.set(readBytes, changelog.Binary)
		v.holes = c.holes.bytes()
	}
	return nil
}

// maxScale bounds the scale of decimals: the widest that any source has is 2^14.
const maxScale = 1 << 16

// decimal picks the type of a decimal (3.3).
func (v *conv) decimal(s *connectSchema) *Rejected {
	text, ok := s.param("scale")
	scale, err := strconv.Atoi(text)
	if !ok || err != nil || scale > maxScale || scale < -maxScale {
		return reject(ReasonSchemaInvalid, "scale %s of a decimal", quote([]byte(text)))
	}
	precision := maxPrecision
	if text, ok := s.param("connect.decimal.precision"); ok {
		if precision, err = strconv.Atoi(text); err != nil || precision < 1 || precision > maxScale {
			return reject(ReasonSchemaInvalid, "precision %s of a decimal", quote([]byte(text)))
		}
	} else if scale < 0 {
		precision += scale // what is left of 38 digits
	}
	v.scale = scale
	switch {
	case scale < 0 && precision > 0 && precision-scale <= maxPrecision:
		v.op, v.typ = readDecimal, changelog.DecimalOf(precision-scale, 0)
	case scale >= 0 && scale <= precision && precision <= maxPrecision:
		v.op, v.typ = readDecimal, changelog.DecimalOf(precision, scale)
	case scale > precision && scale <= maxPrecision:
		v.op, v.typ = readDecimal, changelog.DecimalOf(scale, scale)
	default:
		v.set(readDecimalText, changelog.String)
	}
	return nil
}

func (c compiler) array(v *conv, s *connectSchema) (rej *Rejected) {
	if v.elem, rej = c.member(s.items); rej != nil {
		return rej
	}
	v.op, v.typ = readList, changelog.ListOf(v.elem.typ)
	if c.from == connectorPostgres {
		v.holes = c.holes.list(v.typ)
	}
	return nil
}

func (c compiler) mapping(v *conv, s *connectSchema) (rej *Rejected) {
	if v.key, rej = c.member(s.keys); rej != nil {
		return rej
	}
	if v.elem, rej = c.member(s.values); rej != nil {
		return rej
	}
	if v.key.typ.Nested() {
		return reject(ReasonSchemaInvalid, "a map's key is a %s", v.key.typ)
	}
	v.op, v.typ = readPairs, changelog.MapOf(v.key.typ, v.elem.typ)
	if s.keys.typ == "string" {
		v.op = readMap
		if c.from == connectorPostgres && v.key.typ.Kind == changelog.String && v.elem.typ.Kind == changelog.String {
			v.holes = c.holes.mapping(v.typ)
		}
	}
	if s.entries {
		v.op = readEntries
	}
	return nil
}

func (c compiler) structure(v *conv, s *connectSchema) *Rejected {
	v.infinite = c.from == connectorPostgres
	switch s.name {
	case nameVariableDecimal:
		v.set(readVariable, changelog.String)
		return nil
	case timePrefix + "StructuredDate":
		v.set(readStructured, changelog.Date)
		return nil
	case timePrefix + "StructuredTime":
		v.set(readStructured, changelog.Time)
		return nil
	case timePrefix + "StructuredTimestamp":
		v.set(readStructured, changelog.Timestamp)
		return nil
	case timePrefix + "StructuredZonedTimestamp":
		v.set(readStructured, changelog.TimestampTZ)
		return nil
	}
	if len(s.fields) == 0 || len(s.fields) > maxMembers {
		return reject(ReasonSchemaLimit, "a struct of %d members", len(s.fields))
	}
	c.holes = holes{}
	rec, rej := c.record(s)
	if rej != nil {
		return rej
	}
	v.op, v.rec, v.typ = readStruct, rec, rec.structType()
	return nil
}

// compileHint compiles the schema of a hint.
func compileHint(h Hint, from connector, ho holes) (*conv, error) {
	x := &scanner{b: h.Schema}
	s, _, ok := x.connectSchema(maxSchemaDepth)
	if !ok || !x.end() {
		return nil, x.err
	}
	v, rej := compiler{from: from, holes: ho}.value(s)
	if rej != nil {
		rej.Detail = "hint for column " + quote([]byte(h.Column)) + ": " + rej.Detail
		return nil, rej
	}
	return v, nil
}
