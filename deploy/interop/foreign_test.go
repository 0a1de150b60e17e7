package interop

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"firn/changelog"
)

// The readers that know nothing of firn: deploy/peers. Each takes a list of tables and reads them in one process.

// job is one table for one reader.
type job struct {
	h        *history
	what     string // for failures
	metadata string
	where    *filter
	want     []string
	out      string // the reader's output; set by ask
}

// filter is one condition on a column, which foreign readers push down to partitions and bounds.
type filter struct {
	column changelog.Column
	op     string // =, <, >=, null, not-null
	value  any
}

func (f *filter) String() string {
	return fmt.Sprintf("%s %s %s", f.column.Name, f.op, f.literal())
}

// literal is the value as the readers take it: the row form without quotes, timestamps with zone by their offset.
func (f *filter) literal() string {
	if f.value == nil {
		return ""
	}
	if s, ok := f.value.(string); ok {
		return s
	}
	k := kindOf(f.column.Type)
	s := strings.Trim(text(&k, f.value), `"`)
	if f.column.Type.Kind == changelog.TimestampTZ {
		s = strings.TrimSuffix(s, "Z") + "+00:00"
	}
	return s
}

// keeps tells whether a value passes: null passes no comparison.
func (f *filter) keeps(v any) bool {
	if v == nil || f.value == nil {
		return (v == nil) == (f.op == "null")
	}
	switch c := compare(v, f.value); f.op {
	case "=":
		return c == 0
	case "<":
		return c < 0
	case ">=":
		return c >= 0
	default:
		return true
	}
}

func compare(a, b any) int {
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64))
	case string:
		return cmp.Compare(a, b.(string))
	case *big.Int:
		return a.Cmp(b.(*big.Int))
	case bool:
		return cmp.Compare(value(nil, a).I, value(nil, b).I)
	default:
		panic(fmt.Errorf("a %T is not compared here", a))
	}
}

// filters makes up conditions on a run's columns: on each that the table is partitioned by, and on two others with bounds.
func (h *history) filters() []*filter {
	var out []*filter
	for _, c := range h.schema().Columns {
		sourced := slices.ContainsFunc(h.terms, func(t string) bool {
			words := strings.FieldsFunc(t, func(r rune) bool { return strings.ContainsRune("(), ", r) })
			return words[len(words)-1] == c.Name
		})
		first := c.ID == h.schemas[0].Columns[h.r.IntN(len(h.schemas[0].Columns))].ID
		switch c.Type.Kind {
		case changelog.Float, changelog.Double, changelog.List, changelog.Time:
			continue
		default:
		}
		domain := slices.DeleteFunc(slices.Clone(h.domain[c.ID]), func(v any) bool { return v == nil })
		if sourced || first {
			v := domain[h.r.IntN(len(domain))]
			if s, ok := v.(string); ok && strings.ContainsAny(s, "\t\n") {
				v = "a"
			}
			op := []string{"=", "<", ">="}[h.r.IntN(3)]
			if c.Type.Kind == changelog.Boolean {
				op = "="
			}
			out = append(out, &filter{c, op, v}, &filter{c, "null", nil}, &filter{c, "not-null", nil})
		}
	}
	return out
}

func (h *history) wantWhere(f *filter) []string {
	rows := slices.DeleteFunc(slices.Clone(h.model(h.optimized)), func(row map[int]any) bool { return !f.keeps(row[f.column.ID]) })
	return h.lines(rows)
}

// reader is one of deploy/peers.
type reader struct {
	name    string
	command []string
	checks  bool // it prints what is wrong, and no rows
	filters bool
}

func readers(peers string) []reader {
	at := func(parts ...string) string { return filepath.Join(append([]string{peers}, parts...)...) }
	return []reader{
		{name: "javaiceberg", command: []string{at("javaiceberg", "dump")}},
		{name: "check", command: []string{at("javaiceberg", "check")}, checks: true},
		{name: "pyiceberg", command: []string{at("pyiceberg", "dump")}, filters: true},
		{name: "duckdb", command: []string{at("duckdb", "dump")}, filters: true},
		{name: "spark", command: []string{at("spark", "dump")}},
	}
}

// jobs are what a reader is to do with runs.
func (r *reader) jobs(runs []*history) []job {
	var out []job
	for _, h := range runs {
		t := must(h.catalog.Load(h.ctx, h.name))
		base := t.Base().MetadataLocation()
		if r.checks {
			for _, s := range t.Stores() {
				out = append(out, job{h: h, what: s.Kind() + " store", metadata: s.MetadataLocation()})
			}
			continue
		}
		out = append(out, job{h: h, what: "base", metadata: base, want: h.want(h.optimized)})
		if r.filters && h.seed == 1 {
			for _, f := range h.conditions {
				if r.wrong(f) {
					continue
				}
				out = append(out, job{h: h, what: "base where " + f.String(), metadata: base, where: f, want: h.wantWhere(f)})
			}
		}
	}
	return out
}

// wrong tells of filters that a reader is known to get wrong. DuckDB 1.5.5 rounds days, months and hours before 1970 up instead of
// down when it compares them with partitions, and so leaves out files whose rows pass.
func (r *reader) wrong(f *filter) bool {
	switch n, _ := f.value.(int64); f.column.Type.Kind {
	case changelog.Date, changelog.Timestamp, changelog.TimestampTZ:
		return r.name == "duckdb" && n < 0
	default:
		return false
	}
}

// ask has a reader do jobs, in one process, and counts the results in the runs.
func (r *reader) ask(ctx context.Context, dir string, runs []*history, each func(h *history, outcome string)) {
	jobs := r.jobs(runs)
	var list bytes.Buffer
	for i := range jobs {
		j := &jobs[i]
		j.out = filepath.Join(dir, fmt.Sprintf("%s-%d", r.name, i))
		fmt.Fprintf(&list, "%s\t%s", j.metadata, j.out)
		if j.where != nil {
			fmt.Fprintf(&list, "\t%s\t%s\t%s", j.where.column.Name, j.where.op, j.where.literal())
		}
		list.WriteByte('\n')
	}
	file := filepath.Join(dir, r.name+".list")
	check(os.WriteFile(file, list.Bytes(), 0o600))
	start := time.Now()
	out, err := exec.CommandContext(ctx, r.command[0], append(r.command[1:], "--list", file)...).CombinedOutput()
	fmt.Printf("# %s: %d jobs in %.0f s\n", r.name, len(jobs), time.Since(start).Seconds())
	if err != nil { // once: it says nothing of single tables
		each(jobs[0].h, fmt.Sprintf("%s failed on %d jobs: %v: %.500s", r.name, len(jobs), err, out))
		return
	}
	for _, j := range jobs {
		each(j.h, r.judge(j))
	}
}

const cannot = "cannot: "

// judge returns "" for a job that went well, what begins with cannot for what the reader is known not to support.
func (r *reader) judge(j job) string {
	if why, err := os.ReadFile(j.out + ".err"); err == nil {
		if rest, is := strings.CutPrefix(string(why), cannot); is {
			return cannot + rest
		}
		if r.name == "pyiceberg" && strings.Contains(string(why), "apache-datasketches-theta-v1") {
			return cannot + "PyIceberg loads no table with sequences in Puffin"
		}
		return fmt.Sprintf("%s, %s: %s", r.name, j.what, why)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err.Error()
	}
	b, err := os.ReadFile(j.out)
	if err != nil {
		return err.Error()
	}
	if r.checks {
		if len(b) > 0 {
			return fmt.Sprintf("%s, %s: %.300s", r.name, j.what, b)
		}
		return ""
	}
	got := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(b) == 0 {
		got = nil
	}
	slices.Sort(got)
	if why := differ(got, j.want); why != "" {
		return fmt.Sprintf("%s, %s: %s", r.name, j.what, why)
	}
	return ""
}

// amoro asks Amoro's own program for its merge on read of the runs: all tables of their catalog in one process.
func amoro(ctx context.Context, peers string, runs []*history, each func(h *history, outcome string)) {
	l := runs[0].lake
	dir := filepath.Join(l.dir, "amoro")
	args := []string{
		"dump", "--part", "merged", "--out", dir, "--catalog-properties",
		"type=jdbc,uri=jdbc:sqlite:" + l.uri() + ",warehouse=" + filepath.Join(l.dir, "lake") + ",name=firn",
	}
	for _, h := range runs {
		args = append(args, "--table", h.name)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(peers, "amoro", "amoro"), args...).CombinedOutput()
	for _, h := range runs {
		rows := filepath.Join(dir, h.name+".jsonl")
		outcome := fmt.Sprintf("amoro: no rows of %s: %v: %.500s", h.name, err, out)
		if _, err := os.Stat(rows); err == nil {
			r := reader{name: "amoro"}
			outcome = r.judge(job{what: "merged", want: h.want(h.flushed), out: rows})
		}
		each(h, outcome)
	}
}

// outcomes counts, by reader, what became of the jobs of a cell. Safe for concurrent use.
type outcomes struct {
	mu     sync.Mutex
	good   map[string]int
	cannot map[string]string
	bad    []string
}

func (o *outcomes) add(name, outcome string, h *history) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch why, is := strings.CutPrefix(outcome, cannot); {
	case is:
		o.cannot[name] = why
	case outcome == "":
		o.good[name]++
	default:
		o.bad = append(o.bad, fmt.Sprintf("seed %d, %s: %s", h.seed, h.name, outcome))
	}
}
