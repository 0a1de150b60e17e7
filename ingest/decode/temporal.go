package decode

import (
	"math"
	"math/bits"

	"firn/changelog"
)

// Units of times on the wire, as parts of a second.
const (
	unitMilli = 1_000
	unitMicro = 1_000_000
	unitNano  = 1_000_000_000
)

const (
	microsPerDay = 86_400 * unitMicro
	maxDay       = math.MaxInt32
	minDay       = math.MinInt32
)

// What PostgreSQL's connector sends for infinite values (3.4).
const (
	dateInfinity          = -2147472692
	dateMinusInfinity     = -2147472691
	dateSnapshotInfinity  = -622191234
	dateSnapshotMinus     = -625821272
	milliInfinity         = 9223372036825200
	milliMinusInfinity    = -9223372036832400
	microInfinity         = 9223372036825200000
	microMinusInfinity    = -9223372036832400000
	isoTimestampInfinity  = "+294247-01-10T04:00:25.2Z"
	isoTimestampMinus     = "-290308-12-21T19:59:27.6Z"
	isoDateInfinity       = "-5877611-06-21Z" // a day in the far past, as its number is
	isoDateMinus          = "-5877611-06-22Z"
	structuredInfinity    = "POSITIVE_INFINITY"
	structuredMinus       = "NEGATIVE_INFINITY"
	zonedInfinity         = "infinity"
	zonedMinus            = "-infinity"
	clampDay, clampMinDay = 2932896, -719162 // 9999-12-31 and 0001-01-01
)

// readTemporal reads dates, times and timestamps that are numbers.
func (d *Decoder) readTemporal(c *conv, v *changelog.Value) bool {
	i, ok := d.integer(c.low, c.high)
	return ok && d.temporal(c, v, i)
}

// temporal converts the number of a date, time or timestamp.
func (d *Decoder) temporal(c *conv, v *changelog.Value, i int64) bool {
	*v = changelog.Value{I: i}
	switch c.op {
	case readDate:
		if c.infinite && (i == dateInfinity || i == dateSnapshotInfinity) {
			return d.infinity(c, v, true)
		}
		if c.infinite && (i == dateMinusInfinity || i == dateSnapshotMinus) {
			return d.infinity(c, v, false)
		}
		return true
	case readTimestamp:
		if c.infinite {
			plus, minus := int64(microInfinity), int64(microMinusInfinity)
			switch c.unit {
			case unitMilli:
				plus, minus = milliInfinity, milliMinusInfinity
			case unitNano:
				plus, minus = math.MaxInt64, math.MinInt64
			}
			if i == plus || i == minus {
				return d.infinity(c, v, i == plus)
			}
		}
		return d.micros(c, v, i)
	case readTimestampNS:
		if c.infinite && (i == math.MaxInt64 || i == math.MinInt64) {
			return d.infinity(c, v, i == math.MaxInt64)
		}
		v.I = i
		return true
	default:
		if !d.micros(c, v, i) || v.Null || c.op == readDuration {
			return d.err == nil
		}
		return d.timeOfDay(v, v.I)
	}
}

// micros makes v the number of microseconds that i of the column's units are.
func (d *Decoder) micros(c *conv, v *changelog.Value, i int64) bool {
	switch c.unit {
	case unitMilli:
		if i > math.MaxInt64/1000 || i < math.MinInt64/1000 {
			return d.null(v, ReasonTemporalRange, "a time outside the range of microseconds")
		}
		v.I = i * 1000
	case unitNano:
		v.I = floorDiv(i, 1000)
		if v.I*1000 != i {
			d.report(ReasonSubMicro, "nanoseconds were cut")
		}
	default:
		v.I = i
	}
	return true
}

func (d *Decoder) timeOfDay(v *changelog.Value, micros int64) bool {
	if micros < 0 || micros >= microsPerDay {
		return d.null(v, ReasonTemporalRange, "a time of day outside the day")
	}
	v.I = micros
	return true
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// infinity applies the policy.
func (d *Decoder) infinity(c *conv, v *changelog.Value, positive bool) bool {
	what := "minus infinity"
	if positive {
		what = "infinity"
	}
	switch d.o.Infinity {
	case InfinityReject:
		return d.fail(ReasonTemporalSpecial, "%s", what)
	case InfinityClamp:
		day, rest := int64(clampMinDay), int64(0)
		if positive {
			day, rest = clampDay, microsPerDay-1
		}
		*v = changelog.Value{I: day}
		switch {
		case c.op == readTimestampNS && positive: // the years 1677 to 2262
			v.I = math.MaxInt64
		case c.op == readTimestampNS:
			v.I = math.MinInt64
		case c.typ.Kind != changelog.Date:
			v.I = day*microsPerDay + rest
		}
		d.report(ReasonTemporalSpecial, what+" was clamped")
		return true
	default:
		return d.null(v, ReasonTemporalSpecial, what)
	}
}

// moment is a date and time taken apart.
type moment struct {
	year, month, day     int64
	hour, minute, second int64
	nanos                int64
	offset               int64 // seconds east of UTC
}

var daysBefore = [...]int64{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

func leap(y int64) bool { return y%4 == 0 && (y%100 != 0 || y%400 == 0) }

// days returns the days since 1970-01-01, in the proleptic Gregorian calendar; false if there is no such date.
func (m *moment) days() (int64, bool) {
	if m.month < 1 || m.month > 12 || m.day < 1 || m.year > 999_999_999 || m.year < -999_999_999 {
		return 0, false
	}
	length := daysBefore[m.month] - daysBefore[m.month-1]
	if m.month == 2 && leap(m.year) {
		length++
	}
	if m.day > length {
		return 0, false
	}
	y := m.year - 1
	n := 365*y + floorDiv(y, 4) - floorDiv(y, 100) + floorDiv(y, 400) + daysBefore[m.month-1] + m.day - 1
	if m.month > 2 && leap(m.year) {
		n++
	}
	return n - 719_162, true // 0001-01-01 to 1970-01-01
}

func (m *moment) clock() bool {
	return m.hour >= 0 && m.hour < 24 && m.minute >= 0 && m.minute < 60 && m.second >= 0 && m.second < 60 &&
		m.nanos >= 0 && m.nanos < unitNano
}

// micros returns the time of day in microseconds and whether that is exact.
func (m *moment) micros() (int64, bool) {
	return (m.hour*3600+m.minute*60+m.second)*unitMicro + m.nanos/1000, m.nanos%1000 == 0
}

// iso reads text in the ISO forms of 3.4.
func (d *Decoder) iso(c *conv, v *changelog.Value, text []byte) bool {
	if d.o.Form.Foreign() {
		return d.sqlMoment(c, v, text)
	}
	if c.infinite {
		switch string(text) {
		case isoTimestampInfinity, isoDateInfinity, zonedInfinity:
			return d.infinity(c, v, true)
		case isoTimestampMinus, isoDateMinus, zonedMinus:
			return d.infinity(c, v, false)
		}
	}
	p := isoParser{b: text}
	var m moment
	var ok bool
	switch c.op {
	case readISODate:
		ok = p.date(&m) && p.zone(&m)
	case readISOTime:
		ok = p.clock(&m) && p.zone(&m) && m.offset == 0
	default:
		ok = p.date(&m) && p.byte('T') && p.clock(&m) && p.zone(&m)
	}
	if !ok || len(p.b) != 0 {
		return d.fail(ReasonTemporalFormat, "%s", quote(text))
	}
	if c.op == readISOTimestamp {
		m.offset = 0 // the Z is decoration
	}
	if c.op == readISOTime {
		m.year, m.month, m.day = 1970, 1, 1
	}
	return d.moment(c, v, &m)
}

// moment converts m to the column's type.
func (d *Decoder) moment(c *conv, v *changelog.Value, m *moment) bool {
	days, ok := m.days()
	if !ok || !m.clock() {
		return d.fail(ReasonTemporalFormat, "no such date or time: %d-%d-%d %d:%d:%d", m.year, m.month, m.day, m.hour, m.minute, m.second)
	}
	if c.typ.Kind == changelog.Date {
		if days > maxDay || days < minDay {
			return d.null(v, ReasonTemporalRange, "a date outside the range of days")
		}
		*v = changelog.Value{I: days}
		return true
	}
	micros, exact := m.micros()
	micros -= m.offset * unitMicro
	if c.typ.Kind == changelog.Time {
		days = 0
	}
	hi, lo := bits.Mul64(uint64(abs(days)), microsPerDay)
	if hi != 0 || lo > math.MaxInt64 {
		return d.null(v, ReasonTemporalRange, "a time outside the range of microseconds")
	}
	total := int64(lo) //nolint:gosec // checked above
	if days < 0 {
		total = -total
	}
	if sum := total + micros; (sum > total) == (micros > 0) {
		*v = changelog.Value{I: sum}
		if !exact {
			d.report(ReasonSubMicro, "nanoseconds were cut")
		}
		return true
	}
	return d.null(v, ReasonTemporalRange, "a time outside the range of microseconds")
}

func abs(i int64) int64 {
	if i < 0 {
		return -i
	}
	return i
}

// isoParser eats ISO 8601 text.
type isoParser struct{ b []byte }

func (p *isoParser) byte(c byte) bool {
	if len(p.b) == 0 || p.b[0] != c {
		return false
	}
	p.b = p.b[1:]
	return true
}

// digits reads from low to high digits.
func (p *isoParser) digits(low, high int, n *int64) bool {
	i := 0
	*n = 0
	for i < len(p.b) && i < high && p.b[i]-'0' <= 9 {
		*n = *n*10 + int64(p.b[i]-'0')
		i++
	}
	p.b = p.b[i:]
	return i >= low
}

func (p *isoParser) date(m *moment) bool {
	var ok bool
	switch {
	case p.byte('+'):
		ok = p.digits(4, 9, &m.year)
	case p.byte('-'):
		ok = p.digits(4, 9, &m.year)
		m.year = -m.year
	default:
		ok = p.digits(4, 4, &m.year)
	}
	return ok && p.byte('-') && p.digits(2, 2, &m.month) && p.byte('-') && p.digits(2, 2, &m.day)
}

func (p *isoParser) clock(m *moment) bool {
	if !p.digits(2, 2, &m.hour) || !p.byte(':') || !p.digits(2, 2, &m.minute) || !p.byte(':') || !p.digits(2, 2, &m.second) {
		return false
	}
	if !p.byte('.') {
		return true
	}
	before := len(p.b)
	if !p.digits(1, 9, &m.nanos) {
		return false
	}
	for range 9 - (before - len(p.b)) {
		m.nanos *= 10
	}
	return true
}

func (p *isoParser) zone(m *moment) bool {
	sign := int64(1)
	switch {
	case p.byte('Z'):
		return true
	case p.byte('+'):
	case p.byte('-'):
		sign = -1
	default:
		return false
	}
	var h, min, s int64
	if !p.digits(2, 2, &h) || !p.byte(':') || !p.digits(2, 2, &min) || p.byte(':') && !p.digits(2, 2, &s) {
		return false
	}
	m.offset = sign * (h*3600 + min*60 + s)
	return h < 24 && min < 60 && s < 60
}

// readStructured reads the structured forms of 3.4: members are components, and may be null.
func (d *Decoder) readStructured(c *conv, v *changelog.Value) bool {
	if d.b[d.p] != '{' {
		return d.mismatch("a structured time")
	}
	var m moment
	var special []byte
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	for more := d.open(); more; more = d.more('}') {
		name, ok := names.next()
		if !ok || !d.component(&m, string(name), &special) {
			return false
		}
	}
	return d.err == nil && d.structured(c, v, &m, special)
}

// structured converts the components of a date or time.
func (d *Decoder) structured(c *conv, v *changelog.Value, m *moment, special []byte) bool {
	switch string(special) {
	case "":
	case structuredInfinity, structuredMinus:
		return d.infinity(c, v, special[0] == 'P')
	default:
		return d.null(v, ReasonTemporalSpecial, "special value "+quote(special))
	}
	if c.typ.Kind == changelog.Time {
		m.year, m.month, m.day = 1970, 1, 1
		if m.hour == 24 {
			return d.null(v, ReasonTemporalRange, "a time of day outside the day")
		}
	} else if m.month == 0 || m.day == 0 {
		return d.null(v, ReasonTemporalRange, "a date with a zero in it")
	}
	return d.moment(c, v, m)
}

// part returns the component of that name; nil: there is none.
func (m *moment) part(name string) *int64 {
	switch name {
	case "year":
		return &m.year
	case "month":
		return &m.month
	case "day":
		return &m.day
	case "hour":
		return &m.hour
	case "minute":
		return &m.minute
	case "second":
		return &m.second
	case "nanos":
		return &m.nanos
	case "offsetSeconds":
		return &m.offset
	}
	return nil
}

const specialMember = "specialValue"

func (d *Decoder) component(m *moment, name string, special *[]byte) (ok bool) {
	to := m.part(name)
	if to == nil {
		if name == specialMember && d.peek() == '"' {
			*special, ok = d.text()
			return ok
		}
		return d.skip(maxDepth)
	}
	switch d.peek() {
	case 'n':
		return d.literal("null")
	case 0:
		return d.syntax("a value")
	}
	*to, ok = d.integer(math.MinInt32, math.MaxInt32)
	return ok
}
