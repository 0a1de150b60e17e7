package decode

import (
	"slices"

	"firn/changelog"
)

// loose is what is known of rows that come without a schema (1.4).
//
// A message is read by the base record, which has the hinted columns and the table's; or, if that does not fit it, by a
// record made for what it holds: the base's fields, some of them read another way, and extra ones for its other members.
// Such a record serves later messages that have all its extra members too. What one odd message holds thus never becomes
// part of how others are read, unless the table takes it up.
type loose struct {
	table      *changelog.Schema
	plan       PlanOptions
	stale      bool // base and candidates are to be made anew
	candidates map[string][]candidate
	base       *record
	recent     []*record // made for messages; most recent first
	last       *record   // read the last message
	read       *record   // has read After of the message at hand
	keys       []*record // most recent first
	naming     Naming
	renamed    map[string][]candidate // ways to read columns of the table, by their names there; of a naming only
}

// Naming is how a route's column rules name the columns of messages without a schema.
type Naming interface {
	// Target returns the name in the table of a column of messages whose values go there as they are; "": none does.
	Target(name string) string
	// Source returns the name in messages of a column of the table; false: the table has it from a rule, or no name can be told.
	Source(name string) (string, bool)
}

// SetNaming tells that columns have other names in the table, before the first record.
func (d *Decoder) SetNaming(n Naming) { d.loose.naming, d.loose.stale = n, true }

// candidate is one way to read a column.
type candidate struct {
	conv   *conv
	hinted bool // the connector's own schema: a value of the right JSON type must fit
}

const (
	maxRecent = 16
	maxKeys   = 4
)

// guess returns the record to try first; nil: none yet.
func (l *loose) guess() *record {
	if l.stale {
		return nil
	}
	return l.last
}

// rebuild makes the base from the hints and the table.
func (d *Decoder) rebuildLoose() {
	l := &d.loose
	*l = loose{table: l.table, plan: l.plan, naming: l.naming, candidates: map[string][]candidate{}, base: &record{}}
	for _, h := range d.o.Hints {
		v, err := compileHint(h, d.from, d.holes)
		if err != nil {
			continue // Options.Validate has read it
		}
		l.candidates[h.Column] = append(l.candidates[h.Column], candidate{v, true})
		if _, ok := l.base.index[h.Column]; !ok {
			l.base.add(h.Column, v, false)
		}
	}
	if d.o.Form == FormOutbox {
		d.outboxFields(func(name string, v *conv) {
			l.candidates[name] = append(l.candidates[name], candidate{v, true})
			l.base.add(name, v, false)
		})
	}
	if l.table != nil {
		for _, c := range l.table.Columns {
			l.addTableColumn(sourceName(l.table, c), d.compiler(d.from).ofTable(c.Type))
		}
	}
	l.base.extra = len(l.base.fields)
	l.last = l.base
}

// addTableColumn adds the ways to read the column of the table called name there.
func (l *loose) addTableColumn(name string, ways []*conv) {
	if l.naming == nil {
		l.addColumn(name, ways)
		return
	}
	if source, ok := l.naming.Source(name); ok {
		l.addColumn(source, ways)
		return
	}
	if l.renamed == nil {
		l.renamed = map[string][]candidate{}
	}
	for _, v := range ways {
		l.renamed[name] = append(l.renamed[name], candidate{v, false})
	}
}

// ways returns the ways to read a column of messages, the first to be tried first.
func (l *loose) ways(name string) []candidate {
	known := l.candidates[name]
	if l.naming != nil && len(l.renamed) > 0 {
		if to := l.naming.Target(name); to != "" {
			return append(slices.Clip(known), l.renamed[to]...)
		}
	}
	return known
}

// addColumn adds the ways to read a column of the table. One that is declared to be renamed is read alike under all its
// names; it, and one that is to be dropped, is part of the rows of messages that have it, not of others.
func (l *loose) addColumn(name string, ways []*conv) {
	others := l.plan.renamed(name)
	inBase := len(others) == 0 && !slices.Contains(l.plan.Drops, name)
	for _, v := range ways {
		for _, n := range append(others, name) {
			l.candidates[n] = append(l.candidates[n], candidate{v, false})
		}
		if _, ok := l.base.index[name]; !ok && inBase {
			l.base.add(name, v, false)
		}
	}
}

// ofTable returns how a value that a table has as t may be written. Times as numbers are left out: a number does not tell
// its unit.
func (c compiler) ofTable(t *changelog.Type) []*conv {
	v := &conv{typ: t, infinite: c.from == connectorPostgres}
	switch t.Kind {
	case changelog.Boolean:
		v.op = readBool
	case changelog.Int:
		v.op, v.low, v.high = readInt, -1<<31, 1<<31-1
	case changelog.Long:
		v.op, v.low, v.high = readInt, -1<<63, 1<<63-1
	case changelog.Float:
		v.op = readFloat
	case changelog.Double:
		v.op = readDouble
	case changelog.Decimal:
		v.op, v.scale = readDecimal, t.Scale
	case changelog.Date:
		iso := *v
		iso.op = readISODate
		v.op, v.low, v.high = readDate, -1<<31, 1<<31-1
		return []*conv{v, &iso}
	case changelog.Time:
		v.op = readISOTime
	case changelog.Timestamp:
		v.op = readISOTimestamp
	case changelog.TimestampTZ:
		v.op = readZoned
	case changelog.String:
		v.op, v.holes = readText, c.holes.text(c.from)
	case changelog.UUID:
		v.op = readUUID
	case changelog.Binary:
		v.op, v.holes = readBytes, c.holes.bytes()
	case changelog.Struct, changelog.List, changelog.Map:
		return c.nestedOfTable(v)
	default:
		return nil
	}
	return []*conv{v}
}

func (c compiler) nestedOfTable(v *conv) []*conv {
	parts := make([]*conv, len(v.typ.Fields))
	for i, f := range v.typ.Fields {
		ways := compiler{from: c.from, nanos: c.nanos}.ofTable(f.Type)
		if len(ways) == 0 {
			return nil
		}
		parts[i] = ways[0]
	}
	switch v.typ.Kind {
	case changelog.List:
		v.op, v.elem, v.holes = readList, parts[0], c.holes.list(v.typ)
	case changelog.Map:
		v.op, v.key, v.elem = readPairs, parts[0], parts[1]
		if parts[0].typ.Kind == changelog.String {
			v.op, v.holes = readMap, c.holes.mapping(v.typ)
		}
	default:
		v.op, v.rec = readStruct, &record{extra: len(parts)}
		for i, f := range v.typ.Fields {
			v.rec.add(f.Name, parts[i], false)
		}
	}
	return []*conv{v}
}

// looseRow returns how the row of the message at hand, which has no schema, is read, and has read After that way.
func (d *Decoder) looseRow() (*record, bool) {
	l := &d.loose
	if l.stale {
		d.rebuildLoose()
	} else if l.read != nil {
		return l.read, true
	}
	e := &d.env
	at := e.after
	if !at.given() {
		if at = e.before; !at.given() || !d.trusted() {
			return l.base, true
		}
	}
	rec, ok := d.recordFor(at.from, extent{})
	if !ok {
		return nil, false
	}
	l.last = rec
	if !e.after.given() {
		return rec, true
	}
	d.after = resize(d.after, len(rec.fields))
	d.p, d.unknown = e.after.from, false
	d.marks = d.marks[:0]
	// Members that rec still does not have are nulls, empty arrays and empty objects.
	return rec, d.record(rec, d.after, &d.marks, maxDepth-1)
}

// recordFor returns the record that fits the object at from, with those members of the one at rest, if that is given, that it lacks.
func (d *Decoder) recordFor(from int, rest extent) (*record, bool) {
	l := &d.loose
	rec := &record{extra: l.base.extra}
	for _, f := range l.base.fields {
		rec.fields = append(rec.fields, field{name: f.name, quoted: f.quoted, conv: f.conv})
	}
	members, ok := d.addMembers(rec, from, nil)
	if ok && rest.given() {
		has := map[string]bool{}
		d.p = from
		for more := d.open(); more; more = d.more('}') {
			name, ok := d.text()
			if !ok || !d.next(':') || !d.skip(maxDepth-2) {
				return nil, false
			}
			has[string(name)] = true
		}
		_, ok = d.addMembers(rec, rest.from, has)
	}
	if !ok {
		return nil, false
	}
	rec.fields, rec.meta = append(rec.fields, members...), len(members)
	return l.keep(rec), true
}

// addMembers adds the members of the object at from, but for some, to a record that begins as the base. It returns those that are no
// columns.
func (d *Decoder) addMembers(rec *record, from int, but map[string]bool) (members []field, ok bool) {
	d.p = from
	if d.peek() != '{' {
		return nil, d.fail(ReasonTypeMismatch, "the row is no object: %s", d.here())
	}
	l := &d.loose
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return nil, false
		}
		if m := d.metadata[string(name)]; m > 0 {
			if members = append(members, field{name: string(name), quoted: quoted(string(name)), meta: m, conv: noConv}); !d.skip(maxDepth - 2) {
				return nil, false
			}
			continue
		}
		if but[str(name)] {
			if !d.skip(maxDepth - 2) {
				return nil, false
			}
			continue
		}
		v, ok := d.convFor(string(name))
		switch {
		case !ok:
			return nil, false
		case v == nil: // null, or an empty array: nothing to go by
		default:
			if i, ok := l.base.index[string(name)]; ok {
				rec.fields[i].conv = v
			} else if rec.fields = append(rec.fields, field{name: string(name), quoted: quoted(string(name)), conv: v}); len(rec.fields) > maxColumns {
				return nil, d.fail(ReasonSchemaLimit, "%d columns", len(rec.fields))
			}
		}
	}
	return members, d.err == nil
}

// noConv is of fields that are no columns.
var noConv = &conv{typ: changelog.Primitive(changelog.String)} //nolint:gochecknoglobals // read only

// keep returns the record that reads as rec does, which may be rec itself.
func (l *loose) keep(rec *record) *record {
	if l.base.reads(rec) {
		return l.base
	}
	if i := slices.IndexFunc(l.recent, rec.reads); i >= 0 {
		rec = l.recent[i]
		l.recent = slices.Delete(l.recent, i, i+1)
	} else {
		rec.index = make(map[string]int, len(rec.fields))
		for i, f := range rec.fields {
			rec.index[f.name] = i
		}
	}
	if len(l.recent) == maxRecent {
		l.recent = l.recent[:maxRecent-1]
	}
	l.recent = slices.Insert(l.recent, 0, rec)
	return rec
}

func (r *record) reads(o *record) bool {
	return slices.EqualFunc(r.fields, o.fields, func(a, b field) bool { return a.name == b.name && a.conv.reads(b.conv) })
}

func (v *conv) reads(o *conv) bool {
	return v == o || v.op == o.op && v.unit == o.unit && v.scale == o.scale && v.typ.Equal(o.typ)
}

// convFor picks how the next value, of the column called name, is read, and skips it; nil: the value does not tell.
func (d *Decoder) convFor(name string) (*conv, bool) {
	d.peek()
	at := d.p
	if !d.skip(maxDepth - 2) {
		return nil, false
	}
	end := d.p
	defer func() { d.p = end }()
	if d.b[at] == 'n' {
		return nil, true
	}
	if d.documents() && name == idColumn {
		return d.idRecord().fields[0].conv, true
	}
	for _, c := range d.loose.ways(name) {
		if d.documents() && d.fits(c.conv, at) || !d.documents() && d.accepts(c, at, end) {
			return c.conv, true
		}
	}
	v, ok := d.infer(at, maxDepth-2)
	if ok && v != nil && v.op == readList && d.from == connectorPostgres {
		v.holes = d.holes.list(v.typ)
	}
	if ok && v != nil && v.op == readText {
		v.holes = d.holes.text(d.from)
	}
	return v, ok
}

// accepts reports whether a candidate reads the value that stands from at to end. A candidate that the table suggests
// must take the value itself, where another could do better.
func (d *Decoder) accepts(c candidate, at, end int) bool {
	try := !c.hinted
	switch d.b[at] {
	case '"':
		switch c.conv.op {
		case readText, readEnum, readBytes, readBits, readUUID, readISODate, readISOTime, readISOTimestamp, readZoned,
			readDecimal, readDecimalText:
			return true
		case readFloat, readDouble:
			text := string(d.b[at:end])
			return text == `"NaN"` || text == `"Infinity"` || text == `"-Infinity"`
		default:
			return false
		}
	case 't', 'f':
		return c.conv.op == readBool
	case '[':
		if c.conv.op != readList && c.conv.op != readPairs {
			return false
		}
	case '{':
		switch c.conv.op {
		case readMap, readStruct, readVariable, readStructured:
		default:
			return false
		}
	default:
		switch c.conv.op {
		case readFloat, readDouble, readWhole, readDecimal, readDecimalText:
			return true
		case readInt, readUnsigned, readDate, readTime, readDuration, readTimestamp, readTimestampNS:
			if !slices.ContainsFunc(d.b[at:end], func(b byte) bool { return b == '.' || b|0x20 == 'e' }) {
				break
			}
			return false
		default:
			return false
		}
	}
	return !try || d.fits(c.conv, at)
}

// fits tries to read the value at from.
func (d *Decoder) fits(c *conv, from int) bool {
	saved, stack, reports := d.scanner, len(d.stack), len(d.ev.Reports)
	d.p, d.unknown = from, false
	var v changelog.Value
	ok := d.value(c, &v, maxDepth-2) && !d.unknown
	saved.arena = d.arena[:len(saved.arena)]
	d.scanner, d.stack, d.ev.Reports, d.unknown, d.hole = saved, d.stack[:stack], d.ev.Reports[:reports], false, false
	return ok
}

// infer makes a conv from the value at at, which is known to be sound; nil: null, or nothing to go by.
func (d *Decoder) infer(at, depth int) (*conv, bool) {
	d.p = at
	v := &conv{}
	switch d.b[at] {
	case '"':
		v.set(readText, changelog.String)
		return v, d.skip(depth)
	case 't', 'f':
		v.set(readBool, changelog.Boolean)
		return v, d.skip(depth)
	case 'n':
		return nil, d.skip(depth)
	case '[':
		return d.inferList(depth)
	case '{':
		if d.documents() {
			if v, is, ok := d.inferExtended(at, depth); is || !ok {
				return v, ok
			}
		}
		return d.inferStruct(depth)
	}
	_, integer, ok := d.number()
	if integer {
		v.set(readInt, changelog.Long)
		v.low, v.high = -1<<63, 1<<63-1
	} else {
		v.set(readDouble, changelog.Double)
	}
	return v, ok
}

func (d *Decoder) inferList(depth int) (*conv, bool) {
	start := d.p
	d.p++
	if d.peek() == ']' {
		d.p++
		return nil, true
	}
	var elem *conv
	for more := true; more; more = d.more(']') {
		d.peek()
		if at := d.p; elem != nil && d.fits(elem, at) { // as almost always; it allocates nothing
			if !d.skip(depth - 1) {
				return nil, false
			}
			continue
		}
		v, ok := d.infer(d.p, depth-1)
		if !ok {
			return nil, false
		}
		if elem, ok = unify(elem, v); !ok && d.documents() {
			d.p = start
			return rawConv(), d.skip(depth)
		} else if !ok {
			return nil, d.fail(ReasonTypeMismatch, "an array has elements of several types")
		}
	}
	if elem == nil {
		return nil, d.err == nil
	}
	return &conv{op: readList, typ: changelog.ListOf(elem.typ), elem: elem}, d.err == nil
}

func (d *Decoder) inferStruct(depth int) (*conv, bool) {
	start := d.p
	rec := &record{}
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return nil, false
		}
		d.peek()
		v, ok := d.infer(d.p, depth-1)
		if !ok {
			return nil, false
		}
		if v != nil {
			rec.add(string(name), v, false)
		}
	}
	if d.err != nil || len(rec.fields) == 0 {
		return nil, d.err == nil
	}
	if len(rec.fields) > maxMembers && d.documents() {
		d.p = start
		return rawConv(), d.skip(depth)
	}
	if len(rec.fields) > maxMembers {
		return nil, d.fail(ReasonSchemaLimit, "an object of %d members", len(rec.fields))
	}
	rec.extra = len(rec.fields)
	return &conv{op: readStruct, typ: rec.structType(), rec: rec}, true
}

// unify returns a conv that reads what either does. Both are of infer, and the result may be one of them, changed.
func unify(a, b *conv) (*conv, bool) {
	switch {
	case a == nil:
		return b, true
	case b == nil:
		return a, true
	case a.op == readStruct && b.op == readStruct:
		for _, f := range b.rec.fields {
			i, both := a.rec.index[f.name]
			if !both {
				a.rec.add(f.name, f.conv, false)
				a.typ.Fields = append(a.typ.Fields, changelog.Column{Name: f.name, Type: f.conv.typ})
				continue
			}
			v, ok := unify(a.rec.fields[i].conv, f.conv)
			if !ok {
				return nil, false
			}
			a.rec.fields[i].conv, a.typ.Fields[i].Type = v, v.typ
		}
		a.rec.extra = len(a.rec.fields)
		return a, len(a.rec.fields) <= maxMembers
	case a.op == readList && b.op == readList:
		elem, ok := unify(a.elem, b.elem)
		if !ok {
			return nil, false
		}
		return &conv{op: readList, typ: changelog.ListOf(elem.typ), elem: elem}, true
	case a.op == b.op:
		return a, true
	case a.op == readInt && b.op == readDouble:
		return b, true
	case a.op == readDouble && b.op == readInt:
		return a, true
	}
	return nil, false
}

// looseKey reads a key without a schema.
func (d *Decoder) looseKey() (*record, bool) {
	l := &d.loose
	if l.stale {
		d.rebuildLoose()
	}
	if d.peek() != '{' {
		return nil, d.skip(maxDepth) && d.fail(ReasonKeyDecode, "the key is no object of key columns")
	}
	start := d.p
	if len(l.keys) > 0 {
		key := l.keys[0]
		d.key = resize(d.key, len(key.fields))
		if d.keyRecord(key, d.key) && !d.unknown {
			return key, d.end()
		}
		if d.err != nil && structural(d.err.Reason) {
			return nil, false
		}
		d.p, d.err, d.unknown, d.hole, d.stack = start, nil, false, false, d.stack[:0]
	}
	if !d.skip(maxDepth) || !d.end() {
		return nil, false
	}
	key, ok := d.keyFor(start)
	if !ok {
		return nil, false
	}
	d.p, d.unknown = start, false
	d.key = resize(d.key, len(key.fields))
	return key, d.keyRecord(key, d.key)
}

func (d *Decoder) keyFor(start int) (*record, bool) {
	l := &d.loose
	d.p = start
	key := &record{}
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return nil, false
		}
		v, ok := d.convFor(string(name))
		if !ok {
			return nil, false
		}
		if v == nil {
			return nil, d.fail(ReasonKeyNull, "column %s", quote(name))
		}
		key.add(string(name), v, true)
	}
	if d.err != nil || len(key.fields) == 0 || len(key.fields) > maxMembers {
		return nil, d.fail(ReasonKeyDecode, "the key is no object of key columns")
	}
	if i := slices.IndexFunc(l.keys, key.reads); i >= 0 {
		key = l.keys[i]
		l.keys = slices.Delete(l.keys, i, i+1)
	}
	if len(l.keys) == maxKeys {
		l.keys = l.keys[:maxKeys-1]
	}
	l.keys = slices.Insert(l.keys, 0, key)
	return key, true
}
