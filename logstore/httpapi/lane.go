package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A lane answers lookups of single rows on a connection itself, without net/http, whose requests and headers cost as
// much as the lookup. It knows nothing else: the first request that is not the plainest GET of a row goes to the
// http.Server together with its connection, for good, with all bytes that were read.
//
//	Accept ── lane ── GET /v1/tables/{t}/rows/{key}, no body, no wait ──► answer, next request
//	            └──── anything else, or any doubt ──► http.Server
const (
	laneBuffer  = 4 << 10          // a request that is longer goes to the http.Server
	laneIdle    = 2 * time.Minute  // how long a connection may be without a request
	laneRequest = 10 * time.Second // how long a request may take to arrive, and an answer to be taken
)

// lanes is the listener of an http.Server that gives it the connections which need one.
type lanes struct {
	net.Listener

	a       *API
	ctx     context.Context // of the lookups: a lane has no caller that could hand one in
	cancel  context.CancelFunc
	handed  chan handed
	running sync.WaitGroup
	closed  chan struct{}
	once    sync.Once

	mu struct {
		sync.Mutex
		conns  map[net.Conn]struct{} // in lanes
		closed bool
	}
}

// handed is what Accept returns.
type handed struct {
	conn net.Conn
	err  error
}

// Accelerate returns a listener to be served by an http.Server whose handler is a, in place of l: it answers lookups of
// single rows itself, in the same way but faster. ctx ends lookups that wait; Close, which http.Server.Shutdown calls,
// ends idle connections and waits for lookups under way. l must not be one of TLS.
func (a *API) Accelerate(ctx context.Context, l net.Listener) net.Listener {
	s := &lanes{Listener: l, a: a, handed: make(chan handed), closed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.mu.conns = map[net.Conn]struct{}{}
	s.running.Go(s.accept)
	return s
}

func (s *lanes) accept() {
	for {
		conn, err := s.Listener.Accept()
		if err != nil {
			select {
			case s.handed <- handed{err: err}: // the http.Server knows which errors pass
				continue
			case <-s.closed:
				return
			}
		}
		if !s.enter(conn) {
			_ = conn.Close() // the server shuts down
			continue
		}
		s.running.Go(func() { s.serve(conn) })
	}
}

// Accept implements net.Listener.
func (s *lanes) Accept() (net.Conn, error) {
	select {
	case h := <-s.handed:
		return h.conn, h.err
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *lanes) Close() error {
	var err error
	s.once.Do(func() {
		s.mu.Lock()
		s.mu.closed = true
		close(s.closed) // before they are woken: see lane.read
		for conn := range s.mu.conns {
			_ = conn.SetReadDeadline(time.Unix(1, 0)) // wakes the idle ones; a closed one needs none
		}
		s.mu.Unlock()
		err = s.Listener.Close()
		s.cancel()
		s.running.Wait()
	})
	return err
}

func (s *lanes) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.mu.conns[conn] = struct{}{}
	return true
}

func (s *lanes) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, conn)
}

// serve answers requests until one is not for a lane.
func (s *lanes) serve(conn net.Conn) {
	ln := lane{s: s, conn: conn, in: make([]byte, 0, laneBuffer)}
	pass := ln.run()
	s.leave(conn)
	if !pass {
		_ = conn.Close() // broken or idle for too long
		return
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close() // broken
		return
	}
	select {
	case s.handed <- handed{conn: &readConn{Conn: conn, read: ln.in}}:
	case <-s.closed:
		_ = conn.Close() // nothing of its request is answered yet
	}
}

// readConn is a connection of which something is read already.
type readConn struct {
	net.Conn

	read []byte
}

// Read implements net.Conn.
func (c *readConn) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// lane is one connection.
type lane struct {
	s        *lanes
	conn     net.Conn
	in       []byte // read and not answered
	out      []byte
	body     []byte
	deadline time.Time // of reads
	begun    bool      // the deadline is that of a request
}

// run answers requests; pass tells that what is in ln.in is for the http.Server.
func (ln *lane) run() (pass bool) {
	for {
		end := bytes.Index(ln.in, crlf2)
		if end < 0 {
			if len(ln.out) > 0 && !ln.write() {
				return false
			}
			if len(ln.in) == cap(ln.in) {
				return true
			}
			if err := ln.read(); err != nil {
				return len(ln.in) > 0 && errors.Is(err, io.EOF) // a cut request: net/http tells
			}
			continue
		}
		start := time.Now()
		req, ok := parseLane(ln.in[:end+2])
		if !ok {
			return len(ln.out) == 0 || ln.write()
		}
		ln.answer(req)
		ln.s.a.metrics.row.Observe(time.Since(start).Seconds())
		ln.in = append(ln.in[:0], ln.in[end+4:]...)
		if bytes.Contains(ln.in, crlf2) && len(ln.out) < laneBuffer {
			continue // pipelined: answer together
		}
		if !ln.write() {
			return false
		}
	}
}

var crlf2 = []byte("\r\n\r\n")

// read reads more of a request. An error is the end of the connection.
func (ln *lane) read() error {
	if err := ln.renew(); err != nil {
		return err
	}
	select {
	case <-ln.s.closed: // Close may have woken this connection before the deadline was renewed
		return net.ErrClosed
	default:
	}
	n, err := ln.conn.Read(ln.in[len(ln.in):cap(ln.in)])
	ln.in = ln.in[:len(ln.in)+n]
	return err
}

// renew sets the deadline of the next read: one for the whole of a request that has begun, and a later one between
// requests, which is moved once a second.
func (ln *lane) renew() error {
	wait, begun := laneIdle, len(ln.in) > 0
	if begun {
		wait = laneRequest
		if ln.begun {
			return nil
		}
	}
	now := time.Now()
	if !begun && now.Add(wait-time.Second).Before(ln.deadline) {
		return nil
	}
	ln.begun, ln.deadline = begun, now.Add(wait)
	return ln.conn.SetReadDeadline(ln.deadline)
}

func (ln *lane) write() bool {
	if ln.conn.SetWriteDeadline(time.Now().Add(laneRequest)) != nil {
		return false
	}
	_, err := ln.conn.Write(ln.out)
	ln.out = ln.out[:0]
	if cap(ln.out) > keptBuffer {
		ln.out, ln.body = nil, nil
	}
	return err == nil
}

// laneRequestLine is a request that a lane answers.
type laneRequestLine struct {
	table, key, query string
	bad               string // what stands for a percent-encoding and is none: the request is wrong
}

// parseLane reads the head of a request, its last header's line end included. ok is false for whatever is not a plain GET
// of a row: it need not be wrong, net/http will tell. (A wrong percent-encoding it tells in plain text, and no handler
// sees it: those are answered here.)
func parseLane(head []byte) (req laneRequestLine, ok bool) {
	line, rest, _ := bytes.Cut(head, crlf)
	const method, version = "GET /v1/tables/", " HTTP/1.1"
	if !bytes.HasPrefix(line, []byte(method)) || !bytes.HasSuffix(line, []byte(version)) || len(line) < len(method)+len(version) {
		return req, false
	}
	target := line[len(method) : len(line)-len(version)]
	for i, c := range target {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return req, false
		}
		if req.bad == "" && c == '%' && (i+2 >= len(target) || !hexByte(target[i+1]) || !hexByte(target[i+2])) {
			req.bad = string(target[i:min(i+3, len(target))])
		}
	}
	if req.bad != "" {
		return req, plainHeaders(rest)
	}
	target, query, _ := bytes.Cut(target, []byte{'?'})
	table, key, rows := bytes.Cut(target, []byte("/rows/"))
	if !rows || len(table) == 0 || bytes.IndexByte(table, '/') >= 0 || bytes.IndexByte(key, '/') >= 0 {
		return req, false
	}
	if bytes.IndexByte(query, '%') >= 0 || bytes.Contains(query, []byte("min")) { // it may wait: its client may go
		return req, false
	}
	if !plainHeaders(rest) {
		return req, false
	}
	name, err := segment(string(table))
	return laneRequestLine{table: name, key: string(key), query: string(query)}, err == nil
}

var crlf = []byte("\r\n")

// plainHeaders reports whether none of the headers changes what an answer is, or where the next request begins.
func plainHeaders(lines []byte) bool {
	hosts := 0
	for len(lines) > 0 {
		line, rest, ok := bytes.Cut(lines, crlf)
		colon := bytes.IndexByte(line, ':')
		if !ok || colon <= 0 {
			return false
		}
		lines = rest
		for i, c := range line {
			if c < ' ' && c != '\t' || c == 0x7f || i < colon && !tokenByte(c) {
				return false
			}
		}
		switch colon { // by length first: names are long to compare
		case len("host"):
			if bytes.EqualFold(line[:colon], []byte("host")) {
				hosts++
			}
		case len("expect"):
			if bytes.EqualFold(line[:colon], []byte("expect")) {
				return false
			}
		case len("upgrade"):
			if bytes.EqualFold(line[:colon], []byte("upgrade")) {
				return false
			}
		case len("connection"):
			if bytes.EqualFold(line[:colon], []byte("connection")) && !bytes.EqualFold(bytes.TrimSpace(line[colon+1:]), []byte("keep-alive")) {
				return false
			}
		case len("content-length"):
			if bytes.EqualFold(line[:colon], []byte("content-length")) {
				return false
			}
		case len("transfer-encoding"):
			if bytes.EqualFold(line[:colon], []byte("transfer-encoding")) {
				return false
			}
		}
	}
	return hosts == 1
}

func hexByte(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

// tokenByte reports whether c may be in a header's name (RFC 9110, 5.6.2).
func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// answer appends the answer to ln.out.
func (ln *lane) answer(req laneRequestLine) {
	a := ln.s.a
	if req.bad != "" {
		ln.answerProblem("", badRequest("the path holds %q, which is no percent-encoding: write %%25 for a percent sign", req.bad))
		return
	}
	body, f, err := a.lookup(ln.s.ctx, ln.body[:0], req.table, req.key, req.query)
	ln.body = body
	if err != nil {
		ln.answerProblem(req.table, a.asProblem(err))
		return
	}
	out := append(ln.out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"...)
	if !f.row {
		out = append(ln.out, "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\n"...)
	}
	h := f.v.headersAt(f.applied)
	out = append(append(out, "Cache-Control: no-store\r\nFirn-Applied: "...), h.applied[0]...)
	out = append(append(out, "\r\nFirn-Position: "...), h.position[0]...)
	ln.out = appendEnd(append(out, crlf...), body, a.date())
}

// answerProblem appends the answer to a request about a table, or with "" about none.
func (ln *lane) answerProblem(table string, p *problemError) {
	out := strconv.AppendInt(append(ln.out, "HTTP/1.1 "...), int64(p.status), 10)
	out = append(append(append(out, ' '), http.StatusText(p.status)...), "\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"...)
	if p.retry > 0 {
		out = append(strconv.AppendInt(append(out, "Retry-After: "...), int64(p.retry), 10), crlf...)
	}
	h := http.Header{}
	ln.s.a.markApplied(h, table, p)
	for _, name := range []string{"Firn-Applied", "Firn-Position"} {
		if v := h.Get(name); v != "" {
			out = append(append(append(append(out, name...), ": "...), v...), crlf...)
		}
	}
	ln.body = append(p.append(ln.body[:0]), '\n')
	ln.out = appendEnd(out, ln.body, ln.s.a.date())
}

func appendEnd(out, body, date []byte) []byte {
	out = append(append(out, "Date: "...), date...)
	out = strconv.AppendInt(append(out, "\r\nContent-Length: "...), int64(len(body)), 10)
	return append(append(out, crlf2...), body...)
}

// dated is the text of a second.
type dated struct {
	second int64
	text   []byte
}

// date returns the value of a Date header.
func (a *API) date() []byte {
	now := time.Now()
	d := a.dated.Load()
	if d == nil || d.second != now.Unix() {
		d = &dated{second: now.Unix(), text: now.UTC().AppendFormat(nil, http.TimeFormat)}
		a.dated.Store(d)
	}
	return d.text
}
