package rowjson

import (
	"errors"
	"strings"
)

const (
	microsPerSecond = 1_000_000
	nanosPerSecond  = 1_000_000_000
	secondsPerDay   = 86_400
)

// civil turns days since 1970-01-01 into a date of the Gregorian calendar, which also runs backwards.
func civil(days int64) (year int64, month, day int) {
	// Count from 0000-03-01: then the leap day is the last of its year.
	days += 719468
	era, rest := floorDiv(days, 146097)
	y := (rest - rest/1460 + rest/36524 - rest/146096) / 365
	rest -= 365*y + y/4 - y/100
	m := (5*rest + 2) / 153
	day = int(rest-(153*m+2)/5) + 1
	year = y + era*400
	if m >= 10 {
		return year + 1, int(m) - 9, day
	}
	return year, int(m) + 3, day
}

// daysOf is the inverse of civil, for months from 1 to 12.
func daysOf(year int64, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era, y := floorDiv(year, 400)
	rest := int64((153*(month-3)+2)/5+day-1) + 365*y + y/4 - y/100
	return era*146097 + rest - 719468
}

func daysIn(year int64, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// floorDiv rounds the quotient down, so that the rest is not negative.
func floorDiv(a, b int64) (quotient, rest int64) {
	quotient, rest = a/b, a%b
	if rest < 0 {
		quotient, rest = quotient-1, rest+b
	}
	return quotient, rest
}

func appendDate(dst []byte, days int64) []byte {
	year, month, day := civil(days)
	if year < 0 {
		dst, year = append(dst, '-'), -year
	} else if year > 9999 {
		dst = append(dst, '+')
	}
	dst = append(appendPadded(dst, year, 4), '-')
	dst = append(appendPadded(dst, int64(month), 2), '-')
	return appendPadded(dst, int64(day), 2)
}

// appendClock shows units since midnight; the fraction has as many digits as perSecond has zeros.
func appendClock(dst []byte, units, perSecond int64) []byte {
	seconds, fraction := floorDiv(units, perSecond)
	dst = append(appendPadded(dst, seconds/3600, 2), ':')
	dst = append(appendPadded(dst, seconds/60%60, 2), ':')
	dst = append(appendPadded(dst, seconds%60, 2), '.')
	if perSecond == nanosPerSecond {
		return appendPadded(dst, fraction, 9)
	}
	return appendPadded(dst, fraction, 6)
}

func appendMoment(dst []byte, units, perSecond int64) []byte {
	days, rest := floorDiv(units, secondsPerDay*perSecond)
	return appendClock(append(appendDate(dst, days), 'T'), rest, perSecond)
}

// appendPadded appends a number that is not negative with at least width digits.
func appendPadded(dst []byte, n int64, width int) []byte {
	var digits [20]byte
	i := len(digits)
	for n > 0 || i > len(digits)-width {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, digits[i:]...)
}

var (
	errDate   = errors.New("not a date such as 2026-01-31")
	errTime   = errors.New("not a time such as 01:02:03.123456")
	errMoment = errors.New("not a timestamp such as 2026-01-31T01:02:03.123456")
	errZone   = errors.New("not an instant such as 2026-01-31T01:02:03.123456Z: the zone is missing or wrong")
	errRange  = errors.New("out of range")
)

// cutDigits reads exactly n digits off the front of s.
func cutDigits(s string, n int) (value int64, rest string, ok bool) {
	if len(s) < n {
		return 0, s, false
	}
	for i := range n {
		if s[i] < '0' || s[i] > '9' {
			return 0, s, false
		}
		value = value*10 + int64(s[i]-'0')
	}
	return value, s[n:], true
}

// cutDate reads a date off the front of s: four digits of year, or a sign and four to seven.
func cutDate(s string) (days int64, rest string, err error) {
	width, negative := 4, false
	if s != "" && (s[0] == '+' || s[0] == '-') {
		negative = s[0] == '-'
		s = s[1:]
		if width = strings.IndexByte(s, '-'); width < 4 || width > 7 {
			return 0, s, errDate
		}
	}
	year, s, ok := cutDigits(s, width)
	if negative {
		year = -year
	}
	if !ok || s == "" || s[0] != '-' {
		return 0, s, errDate
	}
	month, s, ok := cutDigits(s[1:], 2)
	if !ok || month < 1 || month > 12 || s == "" || s[0] != '-' {
		return 0, s, errDate
	}
	day, s, ok := cutDigits(s[1:], 2)
	if !ok || day < 1 || int(day) > daysIn(year, int(month)) {
		return 0, s, errDate
	}
	return daysOf(year, int(month), int(day)), s, nil
}

// cutClock reads HH:MM:SS and a fraction of at most as many digits as perSecond has zeros off the front of s.
func cutClock(s string, perSecond int64) (units int64, rest string, ok bool) {
	hour, s, ok := cutDigits(s, 2)
	if !ok || hour > 23 || s == "" || s[0] != ':' {
		return 0, s, false
	}
	minute, s, ok := cutDigits(s[1:], 2)
	if !ok || minute > 59 || s == "" || s[0] != ':' {
		return 0, s, false
	}
	second, s, ok := cutDigits(s[1:], 2)
	if !ok || second > 59 {
		return 0, s, false
	}
	units = (hour*3600 + minute*60 + second) * perSecond
	if s == "" || s[0] != '.' {
		return units, s, true
	}
	s = s[1:]
	digit := perSecond
	n := 0
	for ; n < len(s) && s[n] >= '0' && s[n] <= '9'; n++ {
		if digit /= 10; digit == 0 && s[n] != '0' {
			return 0, s, false // finer than the type
		}
		units += int64(s[n]-'0') * digit
	}
	return units, s[n:], n > 0
}

func parseDate(s string) (int64, error) {
	days, rest, err := cutDate(s)
	if err == nil && rest != "" {
		err = errDate
	}
	return days, err
}

func parseTime(s string) (int64, error) {
	units, rest, ok := cutClock(s, microsPerSecond)
	if !ok || rest != "" {
		return 0, errTime
	}
	return units, nil
}

// parseMoment reads a timestamp; zoned ones need a zone, others may have one and are then taken in UTC.
func parseMoment(s string, perSecond int64, zoned bool) (int64, error) {
	days, rest, err := cutDate(s)
	if err != nil || rest == "" || rest[0] != 'T' && rest[0] != 't' && rest[0] != ' ' {
		return 0, errMoment
	}
	units, rest, ok := cutClock(rest[1:], perSecond)
	if !ok {
		return 0, errMoment
	}
	offset, zone, ok := parseZone(rest)
	if !ok || zoned && !zone {
		if zoned {
			return 0, errZone
		}
		return 0, errMoment
	}
	perDay := secondsPerDay * perSecond
	if limit := int64(1<<63-1)/perDay - 2; days > limit || days < -limit {
		return edgeMoment(days, units-offset*perSecond, perDay)
	}
	return days*perDay + units - offset*perSecond, nil
}

// edgeMoment adds up days and units near the ends of int64.
func edgeMoment(days, units, perDay int64) (int64, error) {
	extra, rest := floorDiv(units, perDay)
	days += extra
	if days < 0 { // the product alone may be below the range, the sum not
		days, rest = days+1, rest-perDay
	}
	product := days * perDay
	if product/perDay != days || (rest > 0 && product > 1<<63-1-rest) || (rest < 0 && product < -1<<63-rest) {
		return 0, errRange
	}
	return product + rest, nil
}

// parseZone reads "", Z or ±HH:MM to the end of s; offset is in seconds.
func parseZone(s string) (offset int64, zone, ok bool) {
	switch {
	case s == "":
		return 0, false, true
	case s == "Z" || s == "z":
		return 0, true, true
	case len(s) != 6 || s[0] != '+' && s[0] != '-' || s[3] != ':':
		return 0, false, false
	}
	hour, _, okHour := cutDigits(s[1:], 2)
	minute, _, okMinute := cutDigits(s[4:], 2)
	if !okHour || !okMinute || hour > 23 || minute > 59 {
		return 0, false, false
	}
	offset = hour*3600 + minute*60
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true, true
}
