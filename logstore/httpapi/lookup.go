package httpapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/logstore"
)

// buffers are reused for answers; large ones are left to the collector.
var buffers = sync.Pool{New: func() any { return new(make([]byte, 0, 4<<10)) }}

const keptBuffer = 256 << 10

func takeBuffer() *[]byte {
	b, _ := buffers.Get().(*[]byte)
	return b
}

func giveBuffer(b *[]byte) {
	if cap(*b) <= keptBuffer {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// serving refuses lookups while the table's rows are being rebuilt: misses would be wrong (P4).
func (a *API) serving(v *tableView) error {
	p, err := a.registry.Progress(v.t.ID)
	if err == nil && p.Rebuilding {
		return &problemError{
			status: http.StatusServiceUnavailable, slug: "rebuilding", retry: 5,
			detail: fmt.Sprintf("the rows of table %q are being rebuilt from the lake: try again", v.t.Name),
		}
	}
	return err
}

// found is the answer to a lookup of one key.
type found struct {
	v       *tableView
	row     bool // else there is none, and the body is a problem
	applied changelog.SeqNum
}

// serveRow answers GET /v1/tables/{t}/rows/{key}. It is the hot path: no maps, no reflection, pooled buffers. A lane
// answers most of these requests before they come here.
func (a *API) serveRow(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	start := time.Now()
	buf := takeBuffer()
	defer giveBuffer(buf)
	body, f, err := a.lookup(r.Context(), (*buf)[:0], args[0], args[1], query)
	*buf = body
	if err != nil {
		return err
	}
	h := w.Header()
	f.v.setApplied(h, f.applied)
	if f.row {
		h["Content-Type"] = jsonType
	} else {
		h["Content-Type"] = problemType
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = w.Write(body) // a client that is gone needs no answer
	a.metrics.row.Observe(time.Since(start).Seconds())
	return nil
}

// lookup appends the body of the answer to a lookup of one key. keyText and query are not decoded.
func (a *API) lookup(ctx context.Context, dst []byte, table, keyText, query string) ([]byte, found, error) {
	v, err := a.keyed(table)
	if err != nil {
		return dst, found{}, err
	}
	encoder, columns := v.encoder, []string(nil)
	if query != "" {
		if encoder, columns, err = a.rowParameters(ctx, v, query); err != nil {
			return dst, found{}, err
		}
	}
	if err := a.serving(v); err != nil {
		return dst, found{}, err
	}
	var keyBytes [128]byte
	key, err := rowjson.ParseKey(keyBytes[:0], v.schema, keyText)
	if err != nil {
		return dst, found{}, err
	}
	row, err := a.store.Row(ctx, v.t.ID, key)
	if err != nil {
		return dst, found{}, err
	}
	if !row.Found {
		return appendMiss(dst, v, keyText, row.Applied), found{v: v, applied: row.Applied}, nil
	}
	if encoder, err = a.renewed(v, encoder, columns, false); err != nil {
		return dst, found{}, err
	}
	dst, err = appendHit(dst, encoder, row)
	return dst, found{v: v, row: true, applied: row.Applied}, err
}

func (a *API) rowParameters(ctx context.Context, v *tableView, query string) (*rowjson.Encoder, []string, error) {
	p, err := parseQuery(query, "columns", "min", "timeout")
	if err != nil {
		return nil, nil, err
	}
	columns, err := p.columns()
	if err != nil {
		return nil, nil, err
	}
	encoder, err := v.encoderOf(columns, false)
	if err != nil {
		return nil, nil, err
	}
	return encoder, columns, a.awaitMin(ctx, v, p)
}

func appendHit(dst []byte, encoder *rowjson.Encoder, row logstore.RowView) ([]byte, error) {
	dst = append(dst, `{"row":`...)
	dst, err := encoder.AppendRow(dst, row.Row)
	if err != nil {
		return dst, err
	}
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, uint64(row.Seq), 10)
	dst = append(dst, `,"applied":`...)
	dst = strconv.AppendUint(dst, uint64(row.Applied), 10)
	return append(dst, '}', '\n'), nil
}

func appendMiss(dst []byte, v *tableView, keyText string, applied changelog.SeqNum) []byte {
	p := problemError{
		status: http.StatusNotFound, slug: "row-not-found", applied: applied, known: true,
		detail: "table " + v.t.Name + " has no row with key " + keyText,
	}
	return append(p.append(dst), '\n')
}

// batch is the body of rows:get.
type batch struct {
	keys    []changelog.Key
	columns []string
}

// serveBatch answers POST /v1/tables/{t}/rows:get.
func (a *API) serveBatch(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	start := time.Now()
	v, err := a.keyed(args[0])
	if err != nil {
		return err
	}
	p, err := parseQuery(query, "min", "timeout")
	if err != nil {
		return err
	}
	if bytes.Contains([]byte(r.Header.Get("Accept")), []byte("arrow")) {
		return problemf(http.StatusNotAcceptable, "not-acceptable", "Arrow answers are not built: accept application/json")
	}
	in := takeBuffer()
	defer giveBuffer(in)
	if *in, err = readAll((*in)[:0], http.MaxBytesReader(w, r.Body, a.o.BodyBytes)); err != nil {
		return tooLarge(err)
	}
	b, err := a.parseBatch(v, *in)
	if err != nil {
		return err
	}
	encoder, err := v.encoderOf(b.columns, false)
	if err != nil {
		return err
	}
	if err := a.awaitMin(r.Context(), v, p); err != nil {
		return err
	}
	if err := a.serving(v); err != nil {
		return err
	}
	out := takeBuffer()
	defer giveBuffer(out)
	var applied changelog.SeqNum
	if *out, applied, err = a.answerBatch(r.Context(), (*out)[:0], v, b, encoder); err != nil {
		return err
	}
	h := w.Header()
	v.setApplied(h, applied)
	h["Content-Type"] = jsonType
	_, _ = w.Write(*out) // a client that is gone needs no answer
	a.metrics.batch.Observe(time.Since(start).Seconds())
	return nil
}

// answerBatch looks the keys up and renders the answer into dst.
func (a *API) answerBatch(ctx context.Context, dst []byte, v *tableView, b batch, encoder *rowjson.Encoder) ([]byte, changelog.SeqNum, error) {
	_, applied, err := a.store.Bounds(v.t.ID)
	if err != nil {
		return dst, 0, err
	}
	rows, err := a.store.Rows(ctx, v.t.ID, b.keys)
	if err != nil {
		return dst, 0, err
	}
	if encoder, err = a.renewed(v, encoder, b.columns, false); err != nil {
		return dst, 0, err
	}
	if len(rows) > 0 {
		applied = rows[0].Applied // all are of one moment
	}
	dst = strconv.AppendUint(append(dst, `{"applied":`...), uint64(applied), 10)
	dst = append(dst, `,"rows":[`...)
	for i := range rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !rows[i].Found {
			dst = append(dst, "null"...)
			continue
		}
		if dst, err = encoder.AppendRow(dst, rows[i].Row); err != nil {
			return dst, 0, err
		}
		if len(dst) > a.o.BatchBytes {
			return dst, 0, problemf(http.StatusRequestEntityTooLarge, "too-large", "the answer has more than %d bytes: ask for fewer keys", a.o.BatchBytes)
		}
	}
	return append(dst, "]}\n"...), applied, nil
}

func (a *API) parseBatch(v *tableView, body []byte) (batch, error) {
	var b batch
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	err := func() error {
		if dec.PeekKind() != '{' {
			return badRequest(`the body is not an object {"keys":[[…],…],"columns":[…]}`)
		}
		if _, err := dec.ReadToken(); err != nil {
			return err
		}
		for dec.PeekKind() == '"' {
			token, err := dec.ReadToken()
			if err != nil {
				return err
			}
			switch member := token.String(); member {
			case "keys":
				err = a.parseKeys(v, dec, &b)
			case "columns":
				err = parseColumns(dec, &b)
			default:
				return badRequest("member %q of the body is not known: keys, columns are", member)
			}
			if err != nil {
				return err
			}
		}
		if _, err := dec.ReadToken(); err != nil { // the closing brace
			return err
		}
		if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
			return badRequest("the body goes on after its object")
		}
		return nil
	}()
	if _, known := errors.AsType[*problemError](err); err != nil && !known && !errors.Is(err, rowjson.ErrKey) {
		err = badRequest("the body is no JSON: %s", err)
	}
	if err == nil && b.keys == nil {
		err = badRequest("the body has no keys")
	}
	return b, err
}

func (a *API) parseKeys(v *tableView, dec *jsontext.Decoder, b *batch) error {
	if dec.PeekKind() != '[' {
		return badRequest("keys is not an array of arrays")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	b.keys = make([]changelog.Key, 0, 128)
	var arena []byte
	for dec.PeekKind() != ']' {
		if len(b.keys) == a.o.BatchKeys {
			return problemf(http.StatusRequestEntityTooLarge, "too-large", "more than %d keys: split the request", a.o.BatchKeys)
		}
		if cap(arena)-len(arena) < 256 {
			arena = make([]byte, 0, 8<<10)
		}
		key, err := rowjson.ReadKey(arena[len(arena):], v.schema, dec)
		if err != nil {
			return fmt.Errorf("key %d: %w", len(b.keys)+1, err)
		}
		if n := len(arena) + len(key); n <= cap(arena) {
			arena = arena[:n]
		}
		b.keys = append(b.keys, slices.Clip(key))
	}
	_, err := dec.ReadToken()
	return err
}

func parseColumns(dec *jsontext.Decoder, b *batch) error {
	if dec.PeekKind() != '[' {
		return badRequest("columns is not an array of names")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		b.columns = append(b.columns, token.String())
	}
	if dec.PeekKind() != ']' {
		return badRequest("columns is not an array of names")
	}
	_, err := dec.ReadToken()
	return err
}

// readAll appends r to dst. Error: r's own.
func readAll(dst []byte, r io.Reader) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// page is what GET /v1/tables/{t}/rows asks for.
type page struct {
	prefix  []byte
	after   changelog.Key
	limit   int
	columns []string
	encoder *rowjson.Encoder
}

// serveRows answers GET /v1/tables/{t}/rows.
func (a *API) serveRows(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	start := time.Now()
	v, err := a.keyed(args[0])
	if err != nil {
		return err
	}
	p, err := parseQuery(query, "prefix", "limit", "after", "columns", "min", "timeout")
	if err != nil {
		return err
	}
	pg, err := a.parsePage(v, p)
	if err != nil {
		return err
	}
	if err := a.awaitMin(r.Context(), v, p); err != nil {
		return err
	}
	if err := a.serving(v); err != nil {
		return err
	}
	snapshot, err := a.store.Snapshot(r.Context(), v.t.ID)
	if err != nil {
		return err
	}
	out := takeBuffer()
	defer giveBuffer(out)
	applied := snapshot.Applied
	if pg.encoder, err = a.renewed(v, pg.encoder, pg.columns, false); err == nil {
		*out, err = a.appendPage((*out)[:0], snapshot, pg)
	}
	if err := errors.Join(err, snapshot.Close()); err != nil {
		return err
	}
	h := w.Header()
	v.setApplied(h, applied)
	h["Content-Type"] = jsonType
	_, _ = w.Write(*out) // a client that is gone needs no answer
	a.metrics.scan.Observe(time.Since(start).Seconds())
	return nil
}

func (a *API) parsePage(v *tableView, p parameters) (pg page, err error) {
	if text, ok := p["prefix"]; ok {
		if pg.prefix, err = rowjson.ParsePrefix(nil, v.schema, text); err != nil {
			return pg, err
		}
	}
	if text, ok := p["after"]; ok {
		if pg.after, err = hex.DecodeString(text); err != nil || !bytes.HasPrefix(pg.after, pg.prefix) {
			return pg, badRequest("after=%s: not a cursor of a page with this prefix", text)
		}
	}
	if pg.limit, err = p.number("limit", min(100, a.o.BatchKeys), a.o.BatchKeys); err != nil {
		return pg, err
	}
	if pg.columns, err = p.columns(); err != nil {
		return pg, err
	}
	pg.encoder, err = v.encoderOf(pg.columns, false)
	return pg, err
}

func (a *API) appendPage(dst []byte, s *logstore.Snapshot, pg page) ([]byte, error) {
	dst = append(dst, `{"applied":`...)
	dst = strconv.AppendUint(dst, uint64(s.Applied), 10)
	dst = append(dst, `,"rows":[`...)
	var last []byte
	n, more := 0, false
	for row, err := range s.Rows(pg.prefix, pg.after) {
		if err != nil {
			return dst, err
		}
		if more = n == pg.limit || len(dst) > a.o.BatchBytes; more {
			break
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		if dst, err = pg.encoder.AppendRow(dst, row.Row); err != nil {
			return dst, err
		}
		last = append(last[:0], row.Key...)
		n++
	}
	if !more {
		return append(dst, "],\"next\":null}\n"...), nil
	}
	dst = hex.AppendEncode(append(dst, `],"next":"`...), last)
	return append(dst, "\"}\n"...), nil
}
