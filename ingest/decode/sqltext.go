package decode

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"firn/changelog"
)

// This file reads values that are text as SQL shows it: all of Canal's, whose messages say the types of columns, and dates and times in
// the messages of other tools.

// sqlConv returns how values of a column type of MySQL are read, as information_schema shows it: int(11) unsigned, enum('a','b').
func sqlConv(typ string) *conv {
	name, rest, _ := strings.Cut(strings.TrimSpace(typ), "(")
	words := strings.Fields(strings.ToLower(name))
	args, after, _ := strings.Cut(rest, ")")
	unsigned := strings.Contains(strings.ToLower(name+after), "unsigned") || strings.Contains(strings.ToLower(name+after), "zerofill")
	v := &conv{low: -1 << 63, high: 1<<63 - 1}
	if len(words) == 0 {
		words = []string{""}
	}
	switch words[0] {
	case "tinyint", "smallint", "mediumint", "year", "bool", "boolean":
		v.set(readInt, changelog.Int)
		v.low, v.high = -1<<31, 1<<31-1
	case "int", "integer":
		v.set(readInt, changelog.Int)
		if v.low, v.high = -1<<31, 1<<31-1; unsigned {
			v.set(readInt, changelog.Long)
			v.low, v.high = 0, 1<<32-1
		}
	case "bigint":
		v.set(readInt, changelog.Long)
		if unsigned {
			v.op, v.typ = readDecimal, changelog.DecimalOf(20, 0)
		}
	case "float":
		v.set(readFloat, changelog.Float)
	case "double", "real":
		v.set(readDouble, changelog.Double)
	case "decimal", "numeric":
		v.sqlDecimal(args)
	case "bit":
		v.sqlBit(args)
	case "date":
		v.set(readISODate, changelog.Date)
	case "datetime", "timestamp":
		v.set(readISOTimestamp, changelog.Timestamp)
	case "time": // a signed length of up to 838 hours, as a Debezium connector has it
		v.set(readDuration, changelog.Long)
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry", "point", "linestring", "polygon",
		"multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection":
		v.set(readBytes, changelog.Binary)
	case "enum", "set":
		v.set(readText, changelog.String)
		v.members = sqlMembers(rest)
		v.infinite = words[0] == "set" // its number is a set of bits
	default:
		v.set(readText, changelog.String)
	}
	return &conv{op: readSQL, typ: v.typ, elem: v}
}

// sqlDecimal is a decimal of precision and scale; without them, as some producers write it, its text.
func (v *conv) sqlDecimal(args string) {
	precision, scale, _ := strings.Cut(args, ",")
	p, err := strconv.Atoi(strings.TrimSpace(precision))
	s, none := strconv.Atoi(strings.TrimSpace(scale))
	if none != nil {
		s = 0
	}
	if err != nil || p < 1 || p > maxPrecision || s < 0 || s > p {
		v.set(readDecimalText, changelog.String)
		return
	}
	v.op, v.typ, v.scale = readDecimal, changelog.DecimalOf(p, s), s
}

// sqlBit is one bit, or the number that several are.
func (v *conv) sqlBit(args string) {
	switch strings.TrimSpace(args) {
	case "1":
		v.set(readBool, changelog.Boolean)
	case "64":
		v.op, v.typ = readUnsigned, changelog.DecimalOf(20, 0)
	default:
		v.set(readInt, changelog.Long)
	}
}

// sqlMembers returns the members of what follows enum( or set(: quoted, a quote in them doubled.
func sqlMembers(s string) []string {
	var members []string
	for {
		_, rest, ok := strings.Cut(s, "'")
		if !ok {
			return members
		}
		var member strings.Builder
		for {
			text, after, ok := strings.Cut(rest, "'")
			if !ok {
				return nil
			}
			member.WriteString(text)
			if rest, ok = strings.CutPrefix(after, "'"); !ok {
				s = after
				break
			}
			member.WriteByte('\'')
		}
		members = append(members, member.String())
	}
}

// The types of java.sql.Types that Canal gives columns.
const (
	jdbcBit, jdbcTinyint, jdbcBigint, jdbcBoolean       = -7, -6, -5, 16
	jdbcInteger, jdbcSmallint, jdbcReal, jdbcFloat      = 4, 5, 7, 6
	jdbcDouble, jdbcNumeric, jdbcDecimal                = 8, 2, 3
	jdbcDate, jdbcTime, jdbcTimestamp                   = 91, 92, 93
	jdbcBinary, jdbcVarbinary, jdbcLongbinary, jdbcBlob = -2, -3, -4, 2004
)

// jdbcConv returns how values of a type of java.sql.Types are read, where the column's own type is not known.
func jdbcConv(typ int64) *conv {
	switch typ {
	case jdbcTinyint, jdbcSmallint, jdbcInteger:
		return sqlConv("int")
	case jdbcBit, jdbcBigint:
		return sqlConv("bigint")
	case jdbcBoolean:
		return sqlConv("bit(1)")
	case jdbcReal:
		return sqlConv("float")
	case jdbcFloat, jdbcDouble:
		return sqlConv("double")
	case jdbcNumeric, jdbcDecimal:
		return sqlConv("decimal")
	case jdbcDate:
		return sqlConv("date")
	case jdbcTime:
		return sqlConv("time")
	case jdbcTimestamp:
		return sqlConv("datetime")
	case jdbcBinary, jdbcVarbinary, jdbcLongbinary, jdbcBlob:
		return sqlConv("blob")
	}
	return sqlConv("")
}

// readSQL reads a value that is text, or, as some producers write it, a JSON number or boolean.
func (d *Decoder) readSQL(c *conv, v *changelog.Value) bool {
	if d.b[d.p] == '"' {
		text, ok := d.text()
		return ok && d.sqlText(c.elem, v, text)
	}
	switch c.elem.op {
	case readInt, readUnsigned, readFloat, readDouble, readDecimal, readDecimalText, readBool:
		return d.value(c.elem, v, 0)
	default:
		return d.mismatch("a string")
	}
}

// sqlText converts the text of a value.
func (d *Decoder) sqlText(c *conv, v *changelog.Value, text []byte) bool {
	switch c.op {
	case readText:
		*v = changelog.Value{B: d.sqlMember(c, text)}
		return true
	case readBytes:
		return d.latin1(v, text)
	case readISODate, readISOTimestamp:
		return d.sqlMoment(c, v, text)
	case readDuration:
		return d.sqlTime(v, text)
	case readBool:
		return d.sqlBool(v, text)
	default:
		return d.sqlNumber(c, v, text)
	}
}

// sqlNumber reads a number from the text of a string.
func (d *Decoder) sqlNumber(c *conv, v *changelog.Value, text []byte) bool {
	b, p := d.b, d.p
	ok := len(text) > 0 && (text[0] == '-' || text[0]-'0' <= 9)
	if d.b, d.p = text, 0; ok {
		ok = d.value(c, v, 0) && d.p == len(text)
	}
	d.b, d.p = b, p
	if !ok && (d.err == nil || structural(d.err.Reason)) {
		d.err = reject(ReasonTypeMismatch, "a number expected, found the text %s", quote(text))
	}
	return ok
}

func (d *Decoder) sqlBool(v *changelog.Value, text []byte) bool {
	switch string(text) {
	case "1", "true":
		*v = changelog.Value{I: 1}
	case "0", "false":
		*v = changelog.Value{}
	default:
		return d.fail(ReasonTypeMismatch, "0 or 1 expected, found the text %s", quote(text))
	}
	return true
}

// sqlMember returns the member of an enum or the members of a set that a number stands for, as the binlog has them: of an enum its place from
// 1, 0 for an invalid value, which is an empty text; of a set a bit each. Other text is as it is.
func (d *Decoder) sqlMember(c *conv, text []byte) []byte {
	if len(c.members) == 0 {
		return text
	}
	n, err := strconv.ParseUint(str(text), 10, 64)
	switch {
	case err != nil || slices.Contains(c.members, str(text)):
		return text
	case !c.infinite && n == 0:
		return text[:0]
	case !c.infinite && n <= uint64(len(c.members)):
		return []byte(c.members[n-1])
	case !c.infinite, n>>min(63, len(c.members)) != 0 && len(c.members) < 64:
		return text
	}
	start := len(d.arena)
	for i, m := range c.members {
		if i > 63 || n>>i&1 == 0 {
			continue
		}
		if len(d.arena) > start {
			d.arena = append(d.arena, ',')
		}
		d.arena = append(d.arena, m...)
	}
	return d.arena[start:len(d.arena):len(d.arena)]
}

// latin1 reads bytes that Canal writes as the characters U+0000 to U+00FF.
func (d *Decoder) latin1(v *changelog.Value, text []byte) bool {
	start := len(d.arena)
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r > 0xff {
			return d.fail(ReasonTypeMismatch, "bytes as characters up to U+00FF expected, found %s", quote(text[i:i+n]))
		}
		d.arena = append(d.arena, byte(r)) //nolint:gosec // checked
		i += n
	}
	*v = changelog.Value{B: d.arena[start:len(d.arena):len(d.arena)]}
	return true
}

// sqlMoment reads a date, a time of day, or both as SQL or ISO 8601 has them. MySQL's dates with a zero in them are null (3.4). The zone of
// a column without one says nothing.
func (d *Decoder) sqlMoment(c *conv, v *changelog.Value, text []byte) bool {
	p := isoParser{b: text}
	m := moment{}
	zone := func() bool { return len(p.b) == 0 || p.zone(&m) }
	var ok bool
	switch c.op {
	case readISOTime:
		ok = p.clock(&m) && zone() && m.offset == 0
		m.year, m.month, m.day = 1970, 1, 1
	case readZoned:
		ok = p.date(&m) && (p.byte('T') || p.byte(' ')) && p.clock(&m) && (p.byte(' ') || true) && p.zone(&m)
	default:
		ok = p.date(&m) && (len(p.b) == 0 || (p.byte('T') || p.byte(' ')) && p.clock(&m) && zone())
		m.offset = 0
		ok = ok && (c.op != readISODate || m.hour+m.minute+m.second+m.nanos == 0)
	}
	switch {
	case !ok || len(p.b) != 0:
		return d.fail(ReasonTemporalFormat, "%s", quote(text))
	case m.month == 0 || m.day == 0:
		return d.null(v, ReasonTemporalRange, "a date with a zero in it")
	}
	return d.moment(c, v, &m)
}

// sqlTime reads MySQL's TIME, in µs.
func (d *Decoder) sqlTime(v *changelog.Value, text []byte) bool {
	p := isoParser{b: text}
	negative := p.byte('-')
	var hours int64
	digits := 0
	for digits < len(p.b) && p.b[digits]-'0' <= 9 {
		digits++
	}
	if digits > 2 && digits <= 3 {
		_ = p.digits(digits-2, digits-2, &hours)
		hours *= 100
	}
	m := moment{}
	if !p.clock(&m) || len(p.b) != 0 || m.minute > 59 || m.second > 59 {
		return d.fail(ReasonTemporalFormat, "%s", quote(text))
	}
	m.hour += hours
	micros, exact := m.micros()
	if negative {
		micros = -micros
	}
	if !exact {
		d.report(ReasonSubMicro, "nanoseconds were cut")
	}
	*v = changelog.Value{I: micros}
	return true
}
