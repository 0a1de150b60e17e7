package decode

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
	if p.value == nil {
		p.value = d.compileFramed(p, connectorOther)
	}
	d.b, d.p = body, 0
	if e == encodingAvro {
		return d.avroPayload(p.value)
	}
	return d.validUTF8(body) && d.payload(p.value) && d.end()
}

// compileFramed compiles a registered schema of values, for messages that come from a connector.
func (d *Decoder) compileFramed(p *parsed, from connector) *writerSchema {
	if p.avro != nil {
		return d.compileAvro(p.avro, from)
	}
	return d.compileConnect(&writerSchema{connect: p.connect, from: from}, p.connect)
}

// recompile compiles the schema of values for messages that come from a connector which it does not name.
func (d *Decoder) recompile(w *writerSchema, from connector) *writerSchema {
	switch {
	case w.avro != nil:
		return d.compileAvro(w.avro.root, from)
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
	if p.key == nil || p.keyFrom != d.from { // how keys are read depends on the connector, which their schema does not tell
		p.key, p.keyFrom = d.compileFramedKey(p), d.from
	}
	d.b, d.p, d.keyBytes = body, 0, body
	s := p.key
	if s.rej != nil {
		return nil, d.fail(s.rej.Reason, "%s", s.rej.Detail)
	}
	d.key = resize(d.key, len(s.row.fields))
	if e == encodingAvro {
		return s.row, d.avroKey(s)
	}
	return s.row, d.keyUTF8(body) && d.keyRecord(s.row, d.key) && d.end()
}

func (d *Decoder) compileFramedKey(p *parsed) *writerSchema {
	if p.avro != nil {
		return d.compileAvroKey(p.avro)
	}
	return d.compileConnectKey(&writerSchema{connect: p.connect}, p.connect)
}
