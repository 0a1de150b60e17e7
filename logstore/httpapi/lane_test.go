package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/changelog"
)

// laneRig serves the rig's API through lanes, too.
func laneRig(t testing.TB) (r *rig, addr string, stop func()) {
	t.Helper()
	r = newRig(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	srv := &http.Server{Handler: r.api}
	srv.RegisterOnShutdown(r.api.Close)
	lanes := r.api.Accelerate(context.Background(), l)
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Serve(lanes); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			r.must(srv.Shutdown(ctx))
			running.Wait()
		})
	}
	t.Cleanup(stop)
	return r, l.Addr().String(), stop
}

// ask sends text on a new connection, then closes its side, and returns all that comes back, without Date.
func ask(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "Connection: close") { // then the server ends it; an end of ours would end a request that waits
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// responses parses what came back: status, headers that matter, body; one string a response.
func responses(t *testing.T, raw string) []string {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(raw))
	var out []string
	for {
		if _, err := in.Peek(1); err != nil {
			return out
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if res.Header.Get("Date") == "" && res.StatusCode != 400 {
			t.Errorf("no Date in %q", raw)
		}
		h := res.Header
		out = append(out, fmt.Sprintf("%s %d [%s %s %s %s %s] %s", res.Status, res.ContentLength, h.Get("Content-Type"), h.Get("Cache-Control"),
			h.Get("Firn-Applied"), h.Get("Firn-Position"), h.Get("Retry-After"), body))
	}
}

// TestLanes: a lane answers exactly as net/http does, and hands over what it does not know.
func TestLanes(t *testing.T) {
	r, addr, _ := laneRig(t)
	r.append(r.change(changelog.OpCreate, "eu", 7, 5, 0), r.change(changelog.OpCreate, "a,b/c", 1, 1, 1), r.change(changelog.OpCreate, "", 2, 1, 2))
	r.counted()
	plain := r.server.Listener.Addr().String()
	const rows = "GET /v1/tables/shop.orders/rows/"
	const host = " HTTP/1.1\r\nHost: x\r\n"
	for _, requests := range []string{
		rows + "eu,7" + host + "\r\n",
		rows + "eu,8" + host + "\r\n",
		rows + "eu,x" + host + "\r\n",
		rows + ",2" + host + "\r\n",
		rows + "a%2Cb%2Fc,1" + host + "Accept: */*\r\nUser-Agent: curl/8\r\n\r\n",
		rows + "eu,7?columns=id,total" + host + "\r\n",
		rows + "eu,7?columns=nope" + host + "\r\n",
		rows + "eu,7?x=1" + host + "\r\n",
		rows + "eu,7?min=seq:1" + host + "\r\n",
		rows + "eu,7?m%69n=seq:9&timeout=1ms" + host + "Connection: close\r\n\r\n",
		rows + "eu,7/why" + host + "\r\n",
		"GET /v1/tables/nope/rows/1" + host + "\r\n",
		"GET /v1/tables/shop%2Eorders/rows/eu,7" + host + "\r\n",
		"GET /v1/tables//rows/eu,7" + host + "\r\n",
		"GET /v1/tables" + host + "\r\n",
		rows + "eu,7 HTTP/1.0\r\n\r\n",
		rows + "eu,7 HTTP/1.1\r\n\r\n", // no host
		rows + "eu,7 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		rows + "eu,7" + host + "Connection: close\r\n\r\n",
		rows + "eu,7" + host + "Connection: Keep-Alive\r\n\r\n",
		rows + "eu,7" + host + "Content-Length: 3\r\n\r\nabc" + rows + "eu,7" + host + "\r\n",
		rows + "eu,7" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + rows + "eu,8" + host + "\r\n",
		rows + "eu,7" + host + "Bad Name: x\r\n\r\n",
		rows + "eu,7" + host + "A: b\r\n folded\r\n\r\n",
		rows + "eu,7" + host + "\r\n" + rows + "eu,8" + host + "\r\n" + rows + "eu,7?columns=id" + host + "\r\n", // pipelined
		rows + "eu,7" + host + "\r\nPOST /v1/tables/shop.orders/rows:get" + host + "Content-Length: 21\r\n\r\n" + `{"keys":[["eu", 7 ]]}` + rows + "eu,8" + host + "\r\n",
		rows + "eu,7" + host + "X: " + strings.Repeat("x", 5000) + "\r\n\r\n" + rows + "eu,8" + host + "\r\n",
		rows + "eu,7" + host,
		"",
		"nonsense\r\n\r\n",
	} {
		got, want := responses(t, ask(t, addr, requests)), responses(t, ask(t, plain, requests))
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q:\n got %q\nwant %q", requests, got, want)
		}
	}
}

// TestLaneBadEscape: what is no percent-encoding gets a problem, as all errors do, where net/http has a line of text.
func TestLaneBadEscape(t *testing.T) {
	_, addr, _ := laneRig(t)
	for _, path := range []string{"%zz", "eu,%zz", "a%2", "%"} {
		got := responses(t, ask(t, addr, "GET /v1/tables/shop.orders/rows/"+path+" HTTP/1.1\r\nHost: x\r\n\r\n"))
		if len(got) != 1 || !strings.HasPrefix(got[0], "400 Bad Request") || !strings.Contains(got[0], "application/problem+json") || !strings.Contains(got[0], `"type":"bad-request"`) {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestLaneSlowRequest: bytes that come one by one are a request; a feed begins on a connection that a lane served.
func TestLaneSlowRequest(t *testing.T) {
	r, addr, _ := laneRig(t)
	r.upserts(1, 3)
	conn, err := net.Dial("tcp", addr)
	r.must(err)
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, b := range []byte("GET /v1/tables/shop.orders/rows/eu,1 HTTP/1.1\r\nHost: x\r\n\r\n") {
		_, err := conn.Write([]byte{b})
		r.must(err)
	}
	r.skip(in)
	_, err = io.WriteString(conn, "GET /v1/tables/shop.orders/changes?from=earliest HTTP/1.1\r\nHost: x\r\n\r\n")
	r.must(err)
	res, err := http.ReadResponse(in, nil) //nolint:bodyclose // Close would read to the end of a feed that has none
	r.must(err)
	lines := bufio.NewScanner(res.Body)
	for range 3 {
		if !lines.Scan() {
			t.Fatal("the feed ended")
		}
	}
}

// skip reads an answer.
func (r *rig) skip(in *bufio.Reader) {
	r.t.Helper()
	res, err := http.ReadResponse(in, nil)
	r.must(err)
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	r.must(err)
}

// TestLaneShutdown: idle connections end at once, and nothing is left running (goleak).
func TestLaneShutdown(t *testing.T) {
	r, addr, stop := laneRig(t)
	r.upserts(1, 1)
	var conns []net.Conn
	for range 5 {
		conn, err := net.Dial("tcp", addr)
		r.must(err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /v1/tables/shop.orders/rows/eu,1 HTTP/1.1\r\nHost: x\r\n\r\n")
		r.must(err)
		r.skip(bufio.NewReader(conn))
		conns = append(conns, conn)
	}
	start := time.Now()
	stop()
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("shutdown took %s", took)
	}
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the shutdown: %v", err)
		}
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("still listening")
	}
}

// FuzzParseLane: what a lane takes, net/http takes too, and reads the same in it: no bytes belong to another request.
func FuzzParseLane(f *testing.F) {
	f.Add([]byte("GET /v1/tables/t/rows/1 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n"))
	f.Add([]byte("GET /v1/tables/a%2eb/rows/a%2C,1?columns=x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n"))
	f.Add([]byte("GET /v1/tables/t/rows/1 HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n"))
	f.Add([]byte("GET /v1/tables/t/rows/1 HTTP/1.1\r\nHost: x\r\nTransfer-encoding:\tchunked\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if i := bytes.Index(head, crlf2); i >= 0 {
			head = head[:i+2]
		}
		req, ok := parseLane(head)
		if !ok || req.bad != "" || !bytes.HasSuffix(head, crlf) {
			return
		}
		in := bufio.NewReader(bytes.NewReader(append(append([]byte(nil), head...), "\r\nREST"...)))
		r, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("%q: %v", head, err)
		}
		if r.Method != "GET" || r.ContentLength != 0 || len(r.TransferEncoding) != 0 || r.Close || r.ProtoMinor != 1 || r.Header.Get("Expect") != "" {
			t.Fatalf("%q: %+v", head, r)
		}
		path, query := target(r)
		if want := "/rows/" + req.key; !strings.HasSuffix(path, want) || query != req.query {
			t.Fatalf("%q: %+v, but %s?%s", head, req, path, query)
		}
		if rest, _ := io.ReadAll(in); string(rest) != "REST" {
			t.Fatalf("%q: %q is left", head, rest)
		}
	})
}
