package file

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"firn/changelog"
	"firn/ingest"
)

// head reads topic, partition and offset of a line that begins with them, as recordings do. The topic's bytes are the
// line's.
func head(line []byte) (topic []byte, partition int32, offset int64, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"topic":"`))
	if !ok {
		return nil, 0, 0, false
	}
	end := bytes.IndexAny(rest, `"\`)
	if end < 0 || rest[end] != '"' {
		return nil, 0, 0, false
	}
	topic, rest = rest[:end], rest[end:]
	p, rest, ok1 := member(rest, `","partition":`)
	o, _, ok2 := member(rest, `,"offset":`)
	return topic, int32(p), o, ok1 && ok2 && p == int64(int32(p)) //nolint:gosec // checked
}

// member reads a whole number behind name.
func member(b []byte, name string) (n int64, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(name))
	i := 0
	for ; i < len(b) && i < 18 && '0' <= b[i] && b[i] <= '9'; i++ {
		n = 10*n + int64(b[i]-'0')
	}
	ends := i < len(b) && (b[i] == ',' || b[i] == '}')
	return n, b[i:], ok && i > 0 && ends
}

// parse reads one line. The record's bytes are its own.
func parse(line []byte) (ingest.Record, error) {
	var r ingest.Record
	d := jsontext.NewDecoder(bytes.NewReader(line), jsontext.AllowDuplicateNames(true))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return r, fmt.Errorf("not a JSON object: %w", err)
	}
	var topic, partition, offset bool
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return r, err
		}
		switch name.String() {
		case "topic":
			var b []byte
			b, err = text(d)
			r.Topic, topic = string(b), b != nil
		case "partition":
			var n int64
			n, err = number(d)
			r.Partition, partition = int32(n), true //nolint:gosec // brokers count partitions in 32 bits
		case "offset":
			r.Offset, err = number(d)
			offset = true
		case "timestamp":
			r.Timestamp, err = number(d)
		case "key":
			r.Key, err = text(d)
		case "value":
			r.Value, err = text(d)
		case "key_b64":
			r.Key, err = base64Text(d)
		case "value_b64":
			r.Value, err = base64Text(d)
		case "headers":
			r.Headers, err = headers(d)
		default:
			err = d.SkipValue()
		}
		if err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace, or what is wrong
		return r, err
	}
	if !topic || !partition || !offset {
		return r, fmt.Errorf("topic, partition or offset is missing")
	}
	return r, nil
}

// text reads a string, or null as nil.
func text(d *jsontext.Decoder) ([]byte, error) {
	v, err := d.ReadValue()
	switch {
	case err != nil:
		return nil, err
	case v.Kind() == 'n':
		return nil, nil
	case v.Kind() != '"':
		return nil, fmt.Errorf("%s is not a string", v)
	}
	return jsontext.AppendUnquote(make([]byte, 0, len(v)), v)
}

func base64Text(d *jsontext.Decoder) ([]byte, error) {
	b, err := text(d)
	if b == nil || err != nil {
		return nil, err
	}
	return base64.StdEncoding.AppendDecode([]byte{}, b)
}

func number(d *jsontext.Decoder) (int64, error) {
	v, err := d.ReadValue()
	if err != nil || v.Kind() == 'n' {
		return 0, err
	}
	return strconv.ParseInt(string(v), 10, 64)
}

func headers(d *jsontext.Decoder) ([]changelog.Header, error) {
	if d.PeekKind() != '[' {
		return nil, d.SkipValue()
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	var all []changelog.Header
	for d.PeekKind() == '{' {
		h, err := header(d)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	_, err := d.ReadToken()
	return all, err
}

func header(d *jsontext.Decoder) (h changelog.Header, err error) {
	if _, err = d.ReadToken(); err != nil {
		return h, err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return h, err
		}
		switch name.String() {
		case "key":
			var b []byte
			b, err = text(d)
			h.Key = string(b)
		case "value":
			h.Value, err = text(d)
		case "value_b64":
			h.Value, err = base64Text(d)
		default:
			err = d.SkipValue()
		}
		if err != nil {
			return h, err
		}
	}
	_, err = d.ReadToken()
	return h, err
}
