package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"firn/changelog"
	"firn/logstore/httpapi"
)

// env is the process as verbs see it.
type env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// defaultServer is where client verbs look for a server.
const defaultServer = "http://127.0.0.1:7411"

// serverFlag adds --server.
func serverFlag(cmd *cobra.Command, server *string) {
	cmd.Flags().StringVar(server, "server", "", "address of a running server (default $FIRN_SERVER, else "+defaultServer+")")
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, asJSON *bool, what string) {
	cmd.Flags().BoolVar(asJSON, "json", false, what)
}

// client asks a server, or the API of a data directory that this process has opened.
type client struct {
	base string // http://host:port
	http *http.Client
}

// newClient returns a client of the server that --server or $FIRN_SERVER names.
func newClient(server string) (*client, error) {
	if server == "" {
		server = os.Getenv("FIRN_SERVER")
	}
	if server == "" {
		server = defaultServer
	}
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("server %q: not an address such as 127.0.0.1:7411", server)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 2 * time.Minute}
	return &client{base: strings.TrimSuffix(server, "/"), http: &http.Client{Transport: transport}}, nil
}

// problemError is an error that a server told.
type problemError struct {
	Type    string           `json:"type"`
	Status  int              `json:"status"`
	Detail  string           `json:"detail"`
	Applied changelog.SeqNum `json:"applied"`
}

func (p *problemError) Error() string { return p.Detail }

// do sends a request. An answer that is not 2xx is a *problemError; no answer, or none of firn's, ends the program with
// exitOpen.
func (c *client) do(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, header)
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &exitError{exitOpen, fmt.Errorf("cannot reach a server at %s (firn serve or firn demo runs one; --server names another): %w", c.base, unwrapURL(err))}
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer closeBody(res)
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	p := &problemError{}
	if err != nil || res.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(text, p) != nil {
		return nil, &exitError{exitOpen, fmt.Errorf("%s answered %s to %s %s: is it a firn server?", c.base, res.Status, method, path)}
	}
	return nil, p
}

// closeBody closes what was read: an error of the connection has been told by the reads.
func closeBody(res *http.Response) { _ = res.Body.Close() }

// unwrapURL takes method and URL off an error of http.Client: the caller says them better.
func unwrapURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// postJSON sends a body as JSON and decodes the answer.
func (c *client) postJSON(ctx context.Context, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	res, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(text), http.Header{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	defer closeBody(res)
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return &exitError{exitOpen, fmt.Errorf("answer to POST %s: %w", path, err)}
	}
	return nil
}

// getJSON decodes the answer to a GET.
func (c *client) getJSON(ctx context.Context, path string, into any) error {
	return c.callJSON(ctx, http.MethodGet, path, into)
}

func (c *client) callJSON(ctx context.Context, method, path string, into any) error {
	res, err := c.do(ctx, method, path, nil, nil)
	if err != nil {
		return err
	}
	defer closeBody(res)
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return &exitError{exitOpen, fmt.Errorf("answer to %s %s: %w", method, path, err)}
	}
	return nil
}

// lineReader is what a caller of lines does with an answer.
type lineReader struct {
	begin func(applied changelog.SeqNum) // with Firn-Applied; may be nil: then the header is not needed
	visit func(line []byte) error        // with each line; the slice is valid during the call
	idle  func() error                   // when all that has come is visited; may be nil
}

// lines reads the lines of the answer to a GET. A feed's {"error":…} line is returned as a *problemError.
func (c *client) lines(ctx context.Context, path string, r lineReader) error {
	res, err := c.do(ctx, http.MethodGet, path, nil, http.Header{"Accept": {"application/x-ndjson"}})
	if err != nil {
		return err
	}
	defer closeBody(res)
	if r.begin != nil {
		applied, err := strconv.ParseUint(res.Header.Get("Firn-Applied"), 10, 64)
		if err != nil {
			return &exitError{exitOpen, fmt.Errorf("answer to GET %s: no Firn-Applied", path)}
		}
		r.begin(changelog.SeqNum(applied))
	}
	in := bufio.NewReaderSize(res.Body, 256<<10)
	for {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("answer to GET %s broke off: %w", path, err)
		}
		if p := errorLine(line); p != nil {
			return p
		}
		if err := r.visit(line); err != nil {
			return err
		}
		if r.idle != nil && in.Buffered() == 0 {
			if err := r.idle(); err != nil {
				return err
			}
		}
	}
}

// readLine returns a line without its newline, valid until the next call. A last line without a newline is one that
// broke off.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = in.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// errorLine returns the problem of a line that ends a feed.
func errorLine(line []byte) error {
	if !strings.HasPrefix(string(line[:min(len(line), 10)]), `{"error":{`) {
		return nil
	}
	var e struct {
		Error *problemError `json:"error"`
	}
	if err := json.Unmarshal(line, &e); err == nil && e.Error != nil && e.Error.Type != "" && e.Error.Status != 0 {
		return e.Error
	}
	return nil // a row with a column of that name
}

// asExit gives an error its exit status: what a server answered decides.
func asExit(err error) error {
	if err == nil {
		return nil
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit
	}
	if errors.Is(err, context.Canceled) {
		return &exitError{code: 130, err: errors.New("interrupted")}
	}
	p, ok := errors.AsType[*problemError](err)
	if !ok {
		return &exitError{exitOpen, err}
	}
	switch {
	case p.Status == http.StatusBadRequest, p.Status == http.StatusRequestEntityTooLarge, p.Status == http.StatusNotAcceptable:
		return &exitError{exitUsage, err}
	case p.Status == http.StatusNotFound, p.Status == http.StatusGone, p.Type == "not-yet-applied", p.Type == "refused":
		return &exitError{exitNo, err}
	}
	return &exitError{exitOpen, err}
}

// runE is a verb's run with its errors given an exit status.
func runE(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return asExit(run(cmd, args)) }
}

// usageError is an error of the command line.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func tablePath(table, rest string, query url.Values) string {
	path := "/v1/tables/" + url.PathEscape(table) + rest
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return path
}

// columnsQuery adds columns= to a query: names are encoded once by themselves, for the commas between them.
func columnsQuery(q url.Values, columns []string) {
	if len(columns) == 0 {
		return
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = strings.NewReplacer("%", "%25", ",", "%2C").Replace(c)
	}
	q.Set("columns", strings.Join(names, ","))
}

// tableAnswer is what verbs need of GET /v1/tables/{t}.
type tableAnswer struct {
	Name       string           `json:"name"`
	Key        []string         `json:"key"`
	Applied    changelog.SeqNum `json:"applied"`
	Flushed    changelog.SeqNum `json:"flushed"`
	Optimized  changelog.SeqNum `json:"optimized"`
	Oldest     changelog.SeqNum `json:"oldest"`
	Schema     json.RawMessage  `json:"schema"`
	Rebuilding bool             `json:"rebuilding"`
	Sources    []tableSource    `json:"sources"`
}

// tableSummary is a table in the list of all. What is not known is null.
type tableSummary struct {
	Name       string            `json:"name"`
	Format     string            `json:"format"`
	Key        []string          `json:"key"`
	Applied    *changelog.SeqNum `json:"applied"`
	Flushed    *changelog.SeqNum `json:"flushed"`
	Optimized  *changelog.SeqNum `json:"optimized"`
	Rows       *int64            `json:"rows"`
	LagSeconds *float64          `json:"lag_seconds"`
}

// tableDetail is one table: of GET /v1/tables/{t}, or as the lake alone tells it.
type tableDetail struct {
	tableSummary

	Oldest     *changelog.SeqNum              `json:"oldest"`
	Schema     json.RawMessage                `json:"schema"`
	Schemas    int                            `json:"schemas"`
	Partition  []string                       `json:"partition"`
	Properties map[string]string              `json:"properties"`
	Rebuilding bool                           `json:"rebuilding"`
	Sources    []tableSource                  `json:"sources"`
	Stores     map[string]httpapi.StoreStatus `json:"stores"`
}

type tableSource struct {
	Source string `json:"source"`
	httpapi.PartitionStatus
}

func (c *client) table(ctx context.Context, name string) (t tableAnswer, err error) {
	return t, c.getJSON(ctx, tablePath(name, "", nil), &t)
}

// tables returns the names of all tables.
func (c *client) tables(ctx context.Context) ([]tableAnswer, error) {
	var list struct {
		Tables []tableAnswer `json:"tables"`
	}
	return list.Tables, c.getJSON(ctx, "/v1/tables", &list)
}

// columns writes aligned columns: cells are separated by tabs.
type columns struct{ w *tabwriter.Writer }

func newColumns(w io.Writer, header ...string) *columns {
	c := &columns{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
	if len(header) > 0 {
		c.row(header...)
	}
	return c
}

func (c *columns) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, cell)
	}
	_, _ = fmt.Fprintln(c.w, strings.Join(cells, "\t")) // flush reports errors
}

func (c *columns) flush() error { return c.w.Flush() }

func orDash[T any](v *T, show func(T) string) string {
	if v == nil {
		return "-"
	}
	return show(*v)
}

func seqText(n changelog.SeqNum) string { return strconv.FormatUint(uint64(n), 10) }

func int64Text[T int | int32 | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// bytesText shows a size as people read it.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, i := float64(n)/1024, 0
	for ; f >= 1024 && i < len(units)-1; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
