package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/logstore"
	"firn/logstore/httpapi"
	"firn/state"
)

type benchLookupFlags struct {
	rows        int64
	connections int
	batch       int
	duration    time.Duration
	rounds      int
	memory      string
	dir         string
	server      string
	table       string
	profile     string
	json        bool
}

func newBenchLookupCmd(e *env) *cobra.Command {
	var f benchLookupFlags
	cmd := &cobra.Command{
		Use:   "lookup",
		Short: "Measure lookups over HTTP against net/http's constant answer in the same run",
		Long: `Lookup fills a new data directory with rows, serves it on a loopback port of this process and asks for single rows (hits and
misses, uniformly drawn) and batches over keep-alive connections, each one request at a time. Before each of them a plain
net/http server that always gives the same answer, as long as a row's, is measured the same way: RATIO is to that. The load
generator is part of the process, so CPU counts both sides. The rounds alternate; rates are the medians of the rounds.

With --server a running server is measured instead, on the first 10,000 keys of --table.`,
		Example: `  firn bench lookup --rows 1000000 --duration 5s
  firn bench lookup --server 127.0.0.1:7411 --table shop.orders --json`,
		Args: cobra.NoArgs,
		RunE: runE(func(cmd *cobra.Command, _ []string) error {
			if f.rows < 1 || f.connections < 1 || f.batch < 1 || f.batch > 10_000 || f.rounds < 1 || f.duration < time.Millisecond {
				return usageError("bench lookup: rows, connections, batch (at most 10,000), rounds and duration must be positive")
			}
			if (f.server == "") != (f.table == "") {
				return usageError("bench lookup: --server and --table go together")
			}
			return e.benchLookup(cmd.Context(), f)
		}),
	}
	cmd.Flags().Int64Var(&f.rows, "rows", 200_000, "rows to fill in")
	cmd.Flags().IntVar(&f.connections, "connections", 32, "keep-alive connections")
	cmd.Flags().IntVar(&f.batch, "batch", 100, "keys of a batch")
	cmd.Flags().DurationVar(&f.duration, "duration", 2*time.Second, "of each phase in each round")
	cmd.Flags().IntVar(&f.rounds, "rounds", 3, "alternating rounds")
	cmd.Flags().StringVar(&f.memory, "memory", "256MiB", "the store's memory")
	cmd.Flags().StringVar(&f.dir, "dir", "", "directory to fill and leave there (default: a temporary one)")
	cmd.Flags().StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of the lookups of single rows that exist")
	cmd.Flags().StringVar(&f.server, "server", "", "measure this server")
	cmd.Flags().StringVar(&f.table, "table", "", "on this table of it")
	jsonFlag(cmd, &f.json, "one JSON object")
	return cmd
}

// lookupTarget is what is measured: where, and the requests.
type lookupTarget struct {
	addr  string
	host  string
	bytes int // of an answer to a hit
	// hit, miss and batch append a whole HTTP request. miss may be nil.
	hit, miss, batch func(dst []byte, r *rand.Rand) []byte
}

// phase is the result of one kind of request over all rounds.
type phase struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"per_second"` // requests; median of the rounds
	Keys      float64 `json:"keys_per_second"`
	Ratio     float64 `json:"ratio"` // of PerSecond to the constant answer's
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_us"` // of both sides, a request
	Requests  int64   `json:"requests"`
	rates     []float64
	cpu       time.Duration
	latency   latencies
}

func (e *env) benchLookup(ctx context.Context, f benchLookupFlags) error {
	target, done, err := f.target(ctx, e.Stderr)
	if err != nil {
		return err
	}
	defer done()
	constant, stop, err := constantServer(ctx, target.bytes)
	if err != nil {
		return err
	}
	defer stop()
	request := fmt.Sprintf("GET /v1/constant HTTP/1.1\r\nHost: %s\r\n\r\n", constant)
	phases := []*phase{{Name: "constant"}, {Name: "hit"}, {Name: "miss"}, {Name: "batch"}}
	for range f.rounds {
		for _, p := range phases {
			addr, next, status := target.addr, target.hit, "200"
			switch p.Name {
			case "constant":
				addr, next = constant, func(dst []byte, _ *rand.Rand) []byte { return append(dst, request...) }
			case "miss":
				next, status = target.miss, "404"
			case "batch":
				next = target.batch
			}
			if next == nil {
				continue
			}
			profiled := func() {}
			if p.Name == "hit" && f.profile != "" {
				if profiled, err = startProfile(f.profile); err != nil {
					return err
				}
			}
			err := p.measure(ctx, addr, f, next, status)
			profiled()
			if err != nil {
				return fmt.Errorf("bench lookup, %s: %w", p.Name, err)
			}
		}
	}
	return e.reportLookup(f, phases)
}

// startProfile begins a CPU profile: the last round's stays.
func startProfile(file string) (stop func(), err error) {
	w, err := os.Create(file) //nolint:gosec // the user names the file
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = w.Close() // a profile that is cut says so when it is read
	}, nil
}

func (e *env) reportLookup(f benchLookupFlags, phases []*phase) error {
	for _, p := range phases {
		if len(p.rates) == 0 {
			continue
		}
		slices.Sort(p.rates)
		p.PerSecond = p.rates[len(p.rates)/2]
		p.Ratio = p.PerSecond / phases[0].PerSecond
		p.Keys = p.PerSecond
		if p.Name == "batch" {
			p.Keys *= float64(f.batch)
		}
		p.P50, p.P99 = p.latency.quantile(0.5), p.latency.quantile(0.99)
		p.CPU = float64(p.cpu.Microseconds()) / float64(p.Requests)
	}
	phases = slices.DeleteFunc(phases, func(p *phase) bool { return len(p.rates) == 0 })
	rss := maxRSS()
	if f.json {
		return json.NewEncoder(e.Stdout).Encode(map[string]any{
			"phases": phases, "rows": f.rows, "connections": f.connections, "batch": f.batch, "peak_rss_bytes": rss,
		})
	}
	out := newColumns(e.Stdout, "REQUEST", "PER SECOND", "KEYS/S", "RATIO", "P50 ms", "P99 ms", "CPU µs", "REQUESTS")
	for _, p := range phases {
		out.row(p.Name, fmt.Sprintf("%.0f", p.PerSecond), fmt.Sprintf("%.0f", p.Keys), fmt.Sprintf("%.2f", p.Ratio), fmt.Sprintf("%.3f", p.P50),
			fmt.Sprintf("%.3f", p.P99), fmt.Sprintf("%.1f", p.CPU), int64Text(p.Requests))
	}
	if err := out.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.Stdout, "peak RSS %s, %d connections, batches of %d keys\n", bytesText(rss), f.connections, f.batch)
	return err
}

// target opens what is measured.
func (f *benchLookupFlags) target(ctx context.Context, progress io.Writer) (*lookupTarget, func(), error) {
	if f.server != "" {
		t, err := f.remoteTarget(ctx)
		return t, func() {}, err
	}
	dir := f.dir
	remove := func() {}
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "firn-bench-*"); err != nil {
			return nil, nil, err
		}
		remove = func() { _ = os.RemoveAll(dir) } // a temporary directory: at worst it stays
	}
	t, stop, err := f.localTarget(ctx, dir, progress)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return t, func() { stop(); remove() }, nil
}

// localTarget fills a data directory and serves it.
func (f *benchLookupFlags) localTarget(ctx context.Context, dir string, progress io.Writer) (_ *lookupTarget, stop func(), err error) {
	var memory Size
	if err := memory.UnmarshalText([]byte(f.memory)); err != nil {
		return nil, nil, usageError("bench lookup: --memory: %w", err)
	}
	o := logstore.Options{MemoryBytes: int64(memory), TrimInterval: -1, MinFreeBytes: -1}
	db, err := logstore.OpenDB(filepath.Join(dir, "pebble"), o)
	if err != nil {
		return nil, nil, err
	}
	closers := []func(){func() { _ = db.Close() }} // a benchmark's data
	stop = func() {
		for _, c := range slices.Backward(closers) {
			c()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	registry, err := state.OpenRegistry(db.DB)
	if err != nil {
		return nil, nil, err
	}
	store, err := logstore.Open(db, registry, o)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() { _ = store.Close() })
	table, err := fillLookup(ctx, registry, store, f.rows, progress)
	if err != nil {
		return nil, nil, err
	}
	api, err := httpapi.New(httpapi.Options{Store: store, Registry: registry, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return nil, nil, err
	}
	addr, stopServer, err := serveLoopback(ctx, api, func(l net.Listener) net.Listener { return api.Accelerate(ctx, l) })
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, stopServer, api.Close)
	path := "GET /v1/tables/" + table + "/rows/"
	rest := " HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
	one := func(dst []byte, id int64) []byte {
		return append(strconv.AppendInt(append(dst, path...), id, 10), rest...)
	}
	t := &lookupTarget{
		addr: addr, host: addr,
		hit:  func(dst []byte, r *rand.Rand) []byte { return one(dst, r.Int64N(f.rows)) },
		miss: func(dst []byte, r *rand.Rand) []byte { return one(dst, f.rows+r.Int64N(f.rows)) },
		batch: func(dst []byte, r *rand.Rand) []byte {
			body := make([]byte, 0, 16*f.batch)
			for i := range f.batch {
				if i > 0 {
					body = append(body, ',')
				}
				body = append(strconv.AppendInt(append(body, '['), r.Int64N(f.rows), 10), ']')
			}
			return appendBatch(dst, table, addr, body)
		},
	}
	t.bytes, err = t.answerBytes(ctx)
	return t, stop, err
}

func appendBatch(dst []byte, table, host string, keys []byte) []byte {
	return fmt.Appendf(dst, "POST /v1/tables/%s/rows:get HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{\"keys\":[%s]}",
		table, host, len(keys)+len(`{"keys":[]}`), keys)
}

// answerBytes returns the length of an answer's body.
func (t *lookupTarget) answerBytes(ctx context.Context) (int, error) {
	c, err := dialLookup(ctx, t.addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	_, n, err := c.roundTrip(t.hit(nil, rand.New(rand.NewPCG(1, 1)))) //nolint:gosec // load, not secrets
	return n, err
}

// fillLookup makes a table with n rows of about 150 bytes, keys 0 to n-1 in a scattered order.
func fillLookup(ctx context.Context, registry *state.Registry, store *logstore.Store, n int64, progress io.Writer) (string, error) {
	const name = "bench.lookup"
	schema, err := changelog.NewSchema([]changelog.Column{
		{Name: "id", Type: changelog.Primitive(changelog.Long)},
		{Name: "customer_id", Type: changelog.Primitive(changelog.Long)},
		{Name: "status", Type: changelog.Primitive(changelog.String)},
		{Name: "total", Type: changelog.DecimalOf(12, 2)},
		{Name: "note", Type: changelog.Primitive(changelog.String)},
		{Name: "updated", Type: changelog.Primitive(changelog.TimestampTZ)},
	}, []string{"id"})
	if err != nil {
		return "", err
	}
	if t, ok := registry.Table(name); ok {
		if _, applied, err := store.Bounds(t.ID); err != nil || applied >= changelog.SeqNum(n) { //nolint:gosec // positive
			return name, err
		}
		return "", errors.New("the directory holds a smaller table: name an empty one")
	}
	table, err := registry.Create(ctx, name, schema, state.TopicRef{}, nil)
	if err != nil {
		return "", err
	}
	random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // data, not secrets
	note := make([]byte, 80)
	const step = 1000
	scatter := func(i int64) int64 { return int64(bits.Reverse64(uint64(i)) % uint64(n)) } //nolint:gosec // an order
	seen := make([]bool, n)
	for i := int64(0); i < n; {
		changes := make([]changelog.Change, 0, step)
		for ; i < n && len(changes) < step; i++ {
			id := scatter(i)
			for seen[id] {
				id = (id + 1) % n
			}
			seen[id] = true
			for j := range note {
				note[j] = byte('a' + random.IntN(26))
			}
			values := []changelog.Value{
				{I: id},
				{I: random.Int64N(n)},
				{B: []byte("placed")},
				{B: changelog.ShortestInt([]byte{0, byte(id >> 8), byte(id)})},
				{B: note},
				{I: 1_769_821_323_123_456 + id},
			}
			changes = append(changes, changelog.Change{Op: changelog.OpCreate, Key: schema.KeyOf(nil, values), After: changelog.AppendRow(nil, schema, values)})
		}
		if _, err := store.Append(ctx, changelog.Append{Tables: []changelog.TableAppend{{Table: table.ID, Changes: changes}}}); err != nil {
			return "", err
		}
		if i%1_000_000 == 0 {
			fmt.Fprintf(progress, "filled in %d rows\n", i)
		}
	}
	return name, nil
}

// serveLoopback serves h on a free port until stop is called.
func serveLoopback(ctx context.Context, h http.Handler, wrap func(net.Listener) net.Listener) (addr string, stop func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(wrap(l)) }) // it ends with the listener
	return l.Addr().String(), func() {
		_ = srv.Close() // nobody is left to serve
		running.Wait()
	}, nil
}

// constantServer is the least that net/http does: one answer of n bytes.
func constantServer(ctx context.Context, n int) (addr string, stop func(), err error) {
	body := bytes.Repeat([]byte{'x'}, n)
	return serveLoopback(ctx, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the load generator sees what it lacks
	}), func(l net.Listener) net.Listener { return l })
}

// remoteTarget takes keys from a running server.
func (f *benchLookupFlags) remoteTarget(ctx context.Context) (*lookupTarget, error) {
	c, err := newClient(f.server)
	if err != nil {
		return nil, usageError("bench lookup: %w", err)
	}
	u, err := url.Parse(c.base)
	if err != nil || u.Scheme != "http" {
		return nil, usageError("bench lookup: --server %q: only http is measured", f.server)
	}
	answer, err := c.table(ctx, f.table)
	if err != nil {
		return nil, err
	}
	var page struct {
		Rows []json.RawMessage `json:"rows"`
	}
	q := url.Values{"limit": {"10000"}}
	columnsQuery(q, answer.Key)
	if err := c.getJSON(ctx, tablePath(f.table, "/rows", q), &page); err != nil {
		return nil, err
	}
	if len(page.Rows) == 0 {
		return nil, &exitError{exitNo, fmt.Errorf("table %q has no rows", f.table)}
	}
	f.rows = int64(len(page.Rows))
	paths, arrays, err := keysOf(page.Rows, answer.Key)
	if err != nil {
		return nil, err
	}
	table := url.PathEscape(f.table)
	t := &lookupTarget{
		addr: u.Host, host: u.Host,
		hit: func(dst []byte, r *rand.Rand) []byte {
			return fmt.Appendf(dst, "GET /v1/tables/%s/rows/%s HTTP/1.1\r\nHost: %s\r\n\r\n", table, paths[r.IntN(len(paths))], u.Host)
		},
		batch: func(dst []byte, r *rand.Rand) []byte {
			keys := make([]string, f.batch)
			for i := range keys {
				keys[i] = arrays[r.IntN(len(arrays))]
			}
			return appendBatch(dst, table, u.Host, []byte(strings.Join(keys, ",")))
		},
	}
	t.bytes, err = t.answerBytes(ctx)
	return t, err
}

// keysOf returns the keys of rows as path segments and as JSON arrays.
func keysOf(rows []json.RawMessage, key []string) (paths, arrays []string, err error) {
	for _, r := range rows {
		fields, err := fieldsOf(r)
		if err != nil {
			return nil, nil, err
		}
		var path, array []string
		for _, name := range key {
			i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
			if i < 0 {
				return nil, nil, fmt.Errorf("a row without the key column %q", name)
			}
			path, array = append(path, url.PathEscape(fields[i].plain())), append(array, string(fields[i].value))
		}
		for i := range path {
			path[i] = strings.ReplaceAll(path[i], ",", "%2C")
		}
		paths, arrays = append(paths, strings.Join(path, ",")), append(arrays, "["+strings.Join(array, ",")+"]")
	}
	return paths, arrays, nil
}

// measure runs one round: every connection asks again as soon as it is answered.
func (p *phase) measure(ctx context.Context, addr string, f benchLookupFlags, next func([]byte, *rand.Rand) []byte, status string) error {
	ctx, cancel := context.WithTimeout(ctx, f.duration)
	defer cancel()
	clients := make([]*lookupClient, f.connections)
	for i := range clients {
		c, err := dialLookup(ctx, addr)
		if err != nil {
			return err
		}
		defer c.close()
		clients[i] = c
	}
	var running sync.WaitGroup
	cpu, start := cpuTime(), time.Now()
	errs := make([]error, len(clients))
	for i, c := range clients {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), uint64(len(p.rates)))) //nolint:gosec // load, not secrets
			errs[i] = c.run(ctx, func(dst []byte) []byte { return next(dst, random) }, status)
		})
	}
	running.Wait()
	took := time.Since(start)
	p.cpu += cpuTime() - cpu
	var n int64
	for _, c := range clients {
		n += c.requests
		p.latency.add(&c.latency)
	}
	p.Requests += n
	p.rates = append(p.rates, float64(n)/took.Seconds())
	return errors.Join(errs...)
}

// lookupClient is one keep-alive connection with the least of an HTTP client.
type lookupClient struct {
	conn     net.Conn
	in       *bufio.Reader
	requests int64
	latency  latencies
}

func dialLookup(ctx context.Context, addr string) (*lookupClient, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &exitError{exitOpen, err}
	}
	return &lookupClient{conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}, nil
}

func (c *lookupClient) close() { _ = c.conn.Close() } // all answers are read

func (c *lookupClient) run(ctx context.Context, next func(dst []byte) []byte, want string) error {
	var request []byte
	for ctx.Err() == nil {
		request = next(request[:0])
		start := time.Now()
		status, _, err := c.roundTrip(request)
		if err != nil {
			return err
		}
		if status != want {
			return fmt.Errorf("status %s, want %s", status, want)
		}
		c.latency.observe(time.Since(start))
		c.requests++
	}
	return nil
}

// roundTrip sends a request and reads the answer, which has a Content-Length or is chunked.
func (c *lookupClient) roundTrip(request []byte) (status string, n int, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return "", 0, err
	}
	length, chunked := 0, false
	for first := true; ; first = false {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return "", 0, err
		}
		line = line[:len(line)-2]
		switch {
		case first && len(line) > 12:
			status = string(line[9:12])
		case len(line) == 0:
			if chunked {
				n, err = c.discardChunks()
			} else {
				n, err = c.in.Discard(length)
			}
			return status, n, err
		case len(line) > 16 && line[0]|0x20 == 'c' && bytes.EqualFold(line[:15], []byte("content-length:")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[15:]))); err != nil {
				return "", 0, err
			}
		case bytes.EqualFold(line, []byte("transfer-encoding: chunked")):
			chunked = true
		}
	}
}

func (c *lookupClient) discardChunks() (n int, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return n, err
		}
		size, err := strconv.ParseInt(string(line[:len(line)-2]), 16, 32)
		if err != nil {
			return n, err
		}
		if _, err := c.in.Discard(int(size) + 2); err != nil || size == 0 {
			return n, err
		}
		n += int(size)
	}
}

// latencies counts durations in buckets of a sixteenth of a power of two.
type latencies [64 * 16]int64

func (l *latencies) observe(d time.Duration) {
	ns := uint64(max(d, 1))
	top := bits.Len64(ns) - 1
	sub := 0
	if top >= 4 {
		sub = int(ns>>(top-4)) & 15
	}
	l[top*16+sub]++
}

func (l *latencies) add(o *latencies) {
	for i := range l {
		l[i] += o[i]
	}
}

// quantile returns the upper bound of the bucket that holds it, in milliseconds.
func (l *latencies) quantile(q float64) float64 {
	var total, seen int64
	for _, n := range l {
		total += n
	}
	for i, n := range l {
		if seen += n; seen > 0 && float64(seen) >= q*float64(total) {
			top, sub := i/16, i%16
			return float64(uint64(1)<<top) * (1 + float64(sub+1)/16) / 1e6
		}
	}
	return 0
}

// cpuTime returns the CPU time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// maxRSS returns the process's peak resident size in bytes.
func maxRSS() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss << 10
}
