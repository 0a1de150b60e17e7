package decode

import "math"

// framedValue reads a value with a frame.
func (d *Decoder) framedValue(r *Record) bool {
	ref, body, ok := d.frame(r.Headers, r.Value, false)
	if !ok {
		return false
	}
	e := d.o.Format.encoding()
	p, ok := d.schemaOf(ref, e)
	if !ok {
		return false
	}
	if e == encodingProtobuf {
		if p, body, ok = d.protoOf(p, r, body, false); !ok {
			return false
		}
	}
	if p.value == nil {
		p.value = d.compileFramed(p, connectorOther)
	}
	d.b, d.p = body, 0
	switch e {
	case encodingAvro:
		return d.avroPayload(p.value)
	case encodingProtobuf:
		return d.protoPayload(p.value)
	default:
	}
	return d.validUTF8(body) && d.payload(p.value) && d.end()
}

// compileFramed compiles a registered schema of values, for messages that come from a connector.
func (d *Decoder) compileFramed(p *parsed, from connector) *writerSchema {
	switch {
	case p.avro != nil:
		return d.compileAvro(p.avro, from)
	case p.proto != nil:
		return d.compileProto(p.proto, from)
	}
	return d.compileConnect(&writerSchema{connect: p.connect, from: from}, p.connect)
}

// recompile compiles the schema of values for messages that come from a connector which it does not name.
func (d *Decoder) recompile(w *writerSchema, from connector) *writerSchema {
	switch {
	case w.avro != nil:
		return d.compileAvro(w.avro.root, from)
	case w.proto != nil:
		return d.compileProto(w.proto.root, from)
	case w.connect != nil:
		return d.compileConnect(&writerSchema{connect: w.connect, from: from}, w.connect)
	}
	return d.compileFor(w.raw, from)
}

// framedKey decodes a key with a frame into d.key.
func (d *Decoder) framedKey(r *Record) (*record, bool) {
	ref, body, ok := d.frame(r.Headers, r.Key, true)
	if !ok {
		return nil, false
	}
	e := d.o.KeyFormat.encoding()
	p, ok := d.schemaOf(ref, e)
	if !ok {
		return nil, false
	}
	if e == encodingProtobuf {
		if p, body, ok = d.protoOf(p, r, body, true); !ok {
			return nil, false
		}
	}
	if p.key == nil || p.keyFrom != d.from { // how keys are read depends on the connector, which their schema does not tell
		p.key, p.keyFrom = d.compileFramedKey(p), d.from
	}
	d.b, d.p, d.keyBytes = body, 0, body
	s := p.key
	if s.rej != nil {
		return nil, d.fail(s.rej.Reason, "%s", s.rej.Detail)
	}
	d.key = resize(d.key, len(s.row.fields))
	switch e {
	case encodingAvro:
		return s.row, d.avroKey(s)
	case encodingProtobuf:
		return s.row, d.protoKey(s)
	default:
	}
	return s.row, d.keyUTF8(body) && d.keyRecord(s.row, d.key) && d.end()
}

func (d *Decoder) compileFramedKey(p *parsed) *writerSchema {
	switch {
	case p.avro != nil:
		return d.compileAvroKey(p.avro)
	case p.proto != nil:
		return d.compileProtoKey(p.proto)
	}
	return d.compileConnectKey(&writerSchema{connect: p.connect}, p.connect)
}

// protoOf takes what names a message type off a body, and returns the schema as that type's.
func (d *Decoder) protoOf(p *parsed, r *Record, body []byte, key bool) (*parsed, []byte, bool) {
	path, body, ok := d.protoType(r, body, key)
	if !ok {
		return nil, nil, false
	}
	if len(body) > math.MaxInt32 {
		return nil, nil, d.fail(ReasonMessageSize, "%d bytes", len(body))
	}
	of := p.protoAs(path)
	if of.rej != nil {
		return nil, nil, d.fail(of.rej.Reason, "%s", of.rej.Detail)
	}
	return of, body, true
}
