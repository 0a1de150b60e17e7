package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"firn/changelog"
)

type getFlags struct {
	server  string
	min     string
	timeout time.Duration
	columns []string
	json    bool
}

func newGetCmd(e *env) *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get TABLE KEY",
		Short: "Look up the current row of a key",
		Long: `Get asks a running server for the current row of a key. The values of a composite key are joined by commas, in key order;
a comma within a value is written %2C, a percent sign %25. A key that begins with a negative number is written as it is: -1, or
-1,x. Where a key column may be null (tables made elsewhere), * is null. KEY - reads keys from standard input, one a line.

Exit status 1: a key has no row, or --min was not applied within --timeout.`,
		Example: `  firn get shop.orders 42
  firn get shop.order_lines 42,3 --columns product,quantity
  firn get shop.balances -1,eu
  firn get shop.orders 42 --min kafka:shop.public.orders/0/1234
  cut -f1 keys.tsv | firn get shop.orders - --json`,
		DisableFlagParsing: true, // parseKeyArgs does it
		RunE: runE(func(cmd *cobra.Command, args []string) error {
			args, help, err := parseKeyArgs(cmd, args)
			if help || err != nil {
				return err
			}
			c, err := newClient(f.server)
			if err != nil {
				return usageError("get: %w", err)
			}
			if args[1] == "-" {
				return e.getMany(cmd.Context(), c, args[0], f)
			}
			return e.getOne(cmd.Context(), c, args[0], args[1], f)
		}),
	}
	serverFlag(cmd, &f.server)
	cmd.Flags().StringVar(&f.min, "min", "", "wait until this position is applied: seq:N, kafka:TOPIC/PARTITION/OFFSET, lsn:…, gtid:… or a Firn-Position")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 5*time.Second, "how long to wait for --min")
	cmd.Flags().StringSliceVar(&f.columns, "columns", nil, "only these columns")
	jsonFlag(cmd, &f.json, "the answer as JSON, one line a key")
	return cmd
}

// noFlag stands before an argument that looks like a flag while flags are parsed. No argument of a process holds it.
const noFlag = "\x00"

// negativeKey is a key that looks like a flag.
var negativeKey = regexp.MustCompile(`^-\.?[0-9]`)

// parseKeyArgs parses the flags of a command line TABLE KEY, and returns the two. A key that begins with a negative number
// is no flag. help: help was asked for, and is shown.
func parseKeyArgs(cmd *cobra.Command, args []string) (rest []string, help bool, err error) {
	args = slices.Clone(args)
	for i, a := range args {
		if a == "--" {
			break
		}
		if negativeKey.MatchString(a) && (i == 0 || !takesValue(cmd, args[i-1])) {
			args[i] = noFlag + a
		}
	}
	if err := cmd.Flags().Parse(args); err != nil {
		return nil, false, flagError(cmd, err)
	}
	if asked, err := cmd.Flags().GetBool("help"); err != nil || asked {
		return nil, asked, errors.Join(err, cmd.Help())
	}
	rest = cmd.Flags().Args()
	if err := cobra.ExactArgs(2)(cmd, rest); err != nil {
		return nil, false, usageError("get: %w", err)
	}
	for i, a := range rest {
		rest[i] = strings.TrimPrefix(a, noFlag)
	}
	return rest, false, nil
}

// takesValue reports whether arg is a flag whose value is the argument after it.
func takesValue(cmd *cobra.Command, arg string) bool {
	name, ok := strings.CutPrefix(arg, "--")
	if !ok {
		return false
	}
	f := cmd.Flags().Lookup(name)
	return f != nil && f.NoOptDefVal == ""
}

// rowAnswer is the answer to a lookup.
type rowAnswer struct {
	Row     json.RawMessage  `json:"row"`
	Seq     changelog.SeqNum `json:"seq"`
	Applied changelog.SeqNum `json:"applied"`
}

// lookup returns the answer as it came, without its newline. missing: the key has no row.
func (c *client) lookup(ctx context.Context, table, key string, f getFlags) (body []byte, missing *problemError, err error) {
	q := url.Values{}
	columnsQuery(q, f.columns)
	if f.min != "" {
		q.Set("min", f.min)
		q.Set("timeout", f.timeout.String())
	}
	res, err := c.do(ctx, http.MethodGet, tablePath(table, "/rows/"+keyPath(key), q), nil, nil)
	if p, ok := errors.AsType[*problemError](err); ok && p.Type == "row-not-found" {
		return nil, p, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer closeBody(res)
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("answer: %w", err)
	}
	return bytes.TrimSuffix(body, []byte{'\n'}), nil, nil
}

// keyPath encodes what a path segment cannot hold, and leaves the commas between values and encoded bytes alone.
func keyPath(key string) string {
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case c == '%' && i+2 < len(key) && isHex(key[i+1]) && isHex(key[i+2]):
			b.WriteByte(c)
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_~,:+@*", c) >= 0:
			b.WriteByte(c)
		default: // dots, too: a client or proxy would take segments of dots for directories
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func (e *env) getOne(ctx context.Context, c *client, table, key string, f getFlags) error {
	body, missing, err := c.lookup(ctx, table, key, f)
	if err != nil {
		return err
	}
	if missing != nil {
		if f.json {
			fmt.Fprintf(e.Stdout, `{"row":null,"applied":%d}`+"\n", missing.Applied)
		}
		return &exitError{exitNo, fmt.Errorf("no row: %s (applied: %d)", missing.Detail, missing.Applied)}
	}
	if f.json {
		_, err := fmt.Fprintf(e.Stdout, "%s\n", body)
		return err
	}
	var a rowAnswer
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	fields, err := fieldsOf(a.Row)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	out := newColumns(e.Stdout)
	for _, m := range fields {
		out.row(m.name, m.plain())
	}
	out.row("", "")
	out.row("(seq)", seqText(a.Seq))
	out.row("(applied)", seqText(a.Applied))
	return out.flush()
}

// getMany looks keys of standard input up, in their order.
func (e *env) getMany(ctx context.Context, c *client, table string, f getFlags) error {
	var out *columns
	missed := 0
	in := bufio.NewScanner(e.Stdin)
	in.Buffer(nil, 1<<20)
	stdout := bufio.NewWriter(e.Stdout)
	for in.Scan() {
		key := in.Text()
		body, missing, err := c.lookup(ctx, table, key, f)
		switch {
		case err != nil:
			return errors.Join(fmt.Errorf("key %s: %w", key, err), stdout.Flush())
		case missing != nil:
			missed++
			body = fmt.Appendf(nil, `{"row":null,"applied":%d}`, missing.Applied)
		}
		if f.json {
			_, _ = stdout.Write(append(body, '\n')) // the last flush reports errors
			continue
		}
		if missing != nil {
			fmt.Fprintf(e.Stderr, "firn: no row with key %s\n", key)
			continue
		}
		var a rowAnswer
		if err := json.Unmarshal(body, &a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		fields, err := fieldsOf(a.Row)
		if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		var names, cells []string
		for _, m := range fields {
			names, cells = append(names, m.name), append(cells, m.plain())
		}
		if out == nil {
			out = newColumns(stdout, names...)
		}
		out.row(cells...)
	}
	if out != nil {
		if err := out.flush(); err != nil {
			return err
		}
	}
	if err := errors.Join(in.Err(), stdout.Flush()); err != nil {
		return err
	}
	if missed > 0 {
		return &exitError{exitNo, fmt.Errorf("%d keys have no row", missed)}
	}
	return nil
}

// field is a member of a JSON object.
type field struct {
	name  string
	value jsontext.Value
}

// fieldsOf returns the members of a JSON object in their order.
func fieldsOf(object []byte) ([]field, error) {
	dec := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	var fields []field
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		f := field{name: name.String()}
		v, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		f.value = bytes.Clone(v)
		fields = append(fields, f)
	}
	return fields, nil
}

// plain shows the value without a string's quotes.
func (f field) plain() string {
	if f.value.Kind() == '"' {
		if text, err := jsontext.AppendUnquote(nil, f.value); err == nil {
			return string(text)
		}
	}
	return string(f.value)
}
