package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct {
	header http.Header
	status int
	bytes  int
}

func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }
func (d *discard) Write(p []byte) (int, error) {
	d.bytes += len(p)
	return len(p), nil
}

// BenchmarkRow is the handler alone; BenchmarkLoopback has the server, a connection and a bare client, too.
func BenchmarkRow(b *testing.B) {
	r := newRig(b, nil)
	const rows = 100_000
	for i := range int64(rows / 1000) {
		r.upserts(i*1000, 1000)
	}
	for _, bench := range []struct{ name, key string }{{"hit", "eu,"}, {"miss", "us,"}} {
		b.Run(bench.name, func(b *testing.B) {
			w := &discard{header: http.Header{}}
			req := httptest.NewRequest("GET", "/v1/tables/shop.orders/rows/eu,1", nil)
			paths := make([]string, 4096)
			for i := range paths {
				paths[i] = fmt.Sprintf("/v1/tables/shop.orders/rows/%s%d", bench.key, i*7919%rows)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				req.RequestURI = paths[i%len(paths)]
				i++
				clear(w.header)
				r.api.ServeHTTP(w, req)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkBatch(b *testing.B) {
	r := newRig(b, nil)
	for i := range int64(100) {
		r.upserts(i*1000, 1000)
	}
	for _, n := range []int{1, 100, 1000} {
		b.Run("keys="+strconv.Itoa(n), func(b *testing.B) {
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf(`["eu",%d]`, i*7919%100_000)
			}
			body := `{"keys":[` + strings.Join(keys, ",") + `]}`
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				req := httptest.NewRequest("POST", "/v1/tables/shop.orders/rows:get", strings.NewReader(body))
				r.api.ServeHTTP(w, req)
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

func BenchmarkLoopback(b *testing.B) {
	r := newRig(b, nil)
	for i := range int64(100) {
		r.upserts(i*1000, 1000)
	}
	constant := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = jsonType
		_, _ = w.Write(bytes.Repeat([]byte{'x'}, 130))
	}))
	defer constant.Close()
	for _, bench := range []struct {
		name, path string
		server     *httptest.Server
	}{{"constant", "/v1/x/", constant}, {"hit", "/v1/tables/shop.orders/rows/eu,", r.server}, {"miss", "/v1/tables/shop.orders/rows/us,", r.server}} {
		b.Run(bench.name, func(b *testing.B) {
			conn, err := net.Dial("tcp", bench.server.Listener.Addr().String())
			r.must(err)
			defer conn.Close()
			in := bufio.NewReader(conn)
			var out []byte
			i := 0
			for b.Loop() {
				out = append(strconv.AppendInt(append(append(out[:0], "GET "...), bench.path...), int64(i*7919%100_000), 10), " HTTP/1.1\r\nHost: x\r\n\r\n"...)
				i++
				_, err := conn.Write(out)
				r.must(err)
				length := 0
				for {
					line, err := in.ReadSlice('\n')
					r.must(err)
					if len(line) == 2 {
						break
					}
					if rest, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
						length, err = strconv.Atoi(string(rest[:len(rest)-2]))
						r.must(err)
					}
				}
				_, err = io.CopyN(io.Discard, in, int64(length))
				r.must(err)
			}
		})
	}
}

// BenchmarkFeed is a catch-up over a log that is cached.
func BenchmarkFeed(b *testing.B) {
	r := newRig(b, nil)
	for i := range int64(100) {
		r.upserts(i*1000, 1000)
	}
	req := httptest.NewRequest("GET", "/v1/tables/shop.orders/changes?from=earliest&follow=false", nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		w.bytes = 0
		r.api.ServeHTTP(w, req)
	}
	b.SetBytes(int64(w.bytes))
	b.ReportMetric(float64(b.N)*100_000/b.Elapsed().Seconds(), "changes/s")
}
