package mixed

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strconv"
	"strings"
)

// ErrBadProperty reports a table property that is not of its form.
var ErrBadProperty = errors.New("mixed: malformed table property")

// Members of a partition's properties: its optimized sequence, and when it was last optimized, ms since 1970-01-01 UTC.
const (
	txnKey  = "max-txId"
	timeKey = "base-op-time"
)

// PartitionProperties is the table property PropPartitions: properties by partition path. Its paths are normalized
// (NormalizePath), so that every spelling of a partition meets in one. An unpartitioned table has the one path "".
type PartitionProperties map[string]map[string]string

// ParsePartitionProperties decodes the property's value; "" gives an empty map. Error: ErrBadProperty.
func ParsePartitionProperties(value string) (PartitionProperties, error) {
	p := PartitionProperties{}
	if value == "" {
		return p, nil
	}
	var raw map[string]map[string]string
	if err := json.Unmarshal([]byte(value), &raw); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", PropPartitions, ErrBadProperty, err)
	}
	for path, members := range raw {
		path = NormalizePath(path)
		if p[path] == nil {
			p[path] = map[string]string{}
		}
		for k, v := range members {
			// Two spellings of one partition: the one that is further on has seen the other.
			if k == txnKey && p[path][k] != "" && !further(v, p[path][k]) {
				continue
			}
			p[path][k] = v
		}
	}
	return p, nil
}

func further(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return errX == nil && (errY != nil || x > y)
}

// Optimized returns the optimized sequence of each partition that has one: change files of the partition with a data
// sequence number up to it are merged into the base store. Error: ErrBadProperty.
func (p PartitionProperties) Optimized() (map[string]int64, error) {
	seqs := make(map[string]int64, len(p))
	for path, members := range p {
		v, ok := members[txnKey]
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q of partition %q: %w", PropPartitions, txnKey, path, ErrBadProperty)
		}
		seqs[path] = n
	}
	return seqs, nil
}

// Times returns when each partition was last optimized, ms since 1970-01-01 UTC, as far as that is told.
func (p PartitionProperties) Times() map[string]int64 {
	times := map[string]int64{}
	for path, members := range p {
		if n, err := strconv.ParseInt(members[timeKey], 10, 64); err == nil {
			times[path] = n
		}
	}
	return times
}

// SetOptimized makes seqs the optimized sequences of all partitions: those that it lacks lose theirs. Other members
// stay.
func (p PartitionProperties) SetOptimized(seqs map[string]int64) {
	for path, members := range p {
		delete(members, txnKey)
		if len(members) == 0 {
			delete(p, path)
		}
	}
	for path, n := range seqs {
		path = NormalizePath(path)
		if p[path] == nil {
			p[path] = map[string]string{}
		}
		p[path][txnKey] = strconv.FormatInt(n, 10)
	}
}

// String encodes the property's value: paths and members are sorted.
func (p PartitionProperties) String() string {
	b, err := json.Marshal(map[string]map[string]string(p))
	if err != nil {
		panic("mixed: maps of strings always encode: " + err.Error())
	}
	return string(b)
}

// Clone returns a copy that shares nothing with p.
func (p PartitionProperties) Clone() PartitionProperties {
	c := make(PartitionProperties, len(p))
	for path, members := range p {
		c[path] = maps.Clone(members)
	}
	return c
}

// NormalizePath returns a partition path in the spelling of Java's URLEncoder. Paths come in two (Iceberg's Go library
// writes region=%2A~%27 where Java writes region=*%7E%27); both decode to the same partition.
func NormalizePath(path string) string {
	if path == "" {
		return ""
	}
	var b strings.Builder
	for i, part := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		name, value, ok := strings.Cut(part, "=")
		b.WriteString(renormalize(name))
		if ok {
			b.WriteByte('=')
			b.WriteString(renormalize(value))
		}
	}
	return b.String()
}

func renormalize(s string) string {
	decoded, err := url.QueryUnescape(s)
	if err != nil {
		return s // not escaped by anybody: keep it apart from all that are
	}
	return EscapePath(decoded)
}

// EscapePath escapes a name or a value of a partition path as Java's URLEncoder does.
func EscapePath(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '*', c == '_':
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
