package file_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"firn/ingest"
	"firn/ingest/file"
	"firn/ingest/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "a.b.c"

// recording writes a file in the way that a fixture asks for.
type recording struct {
	path  string
	lines [][]byte // of all partitions, in order
	ends  map[int32]int64
	zip   bool
}

func line(p int32, offset int64) []byte {
	b, err := json.Marshal(sourcetest.Value(offset))
	if err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, `{"topic":%q,"partition":%d,"offset":%d,"timestamp":1,"key":null,"value":%s}`+"\n", topic, p, offset, b)
}

func (r *recording) produce(t *testing.T, p int32, n int) {
	t.Helper()
	var added []byte
	for range n {
		l := line(p, r.ends[p])
		r.ends[p]++
		r.lines = append(r.lines, l)
		added = append(added, l...)
	}
	if r.zip {
		r.rewrite(t)
		return
	}
	f, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half := len(added) / 2 // in the middle of a line, most likely
	for _, part := range [][]byte{added[:half], added[half:]} {
		if _, err := f.Write(part); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *recording) rewrite(t *testing.T) {
	t.Helper()
	b := bytes.Join(r.lines, nil)
	if r.zip {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(b)
		w.Close()
		b = z.Bytes()
	}
	if err := os.WriteFile(r.path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *recording) trim(t *testing.T, p int32, before int64) {
	t.Helper()
	var kept [][]byte
	for _, l := range r.lines {
		var at struct {
			Partition int32
			Offset    int64
		}
		if err := json.Unmarshal(l, &at); err != nil {
			t.Fatal(err)
		}
		if at.Partition != p || at.Offset >= before {
			kept = append(kept, l)
		}
	}
	r.lines = kept
	r.rewrite(t)
}

func TestSource(t *testing.T) {
	for _, c := range []struct {
		name        string
		zip, follow bool
	}{{"plain", false, false}, {"gzip", true, false}, {"followed", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
				name := "recording.jsonl"
				if c.zip {
					name += ".gz"
				}
				r := &recording{path: filepath.Join(t.TempDir(), name), zip: c.zip, ends: map[int32]int64{}}
				return sourcetest.Fixture{
					Topic: topic, Follows: c.follow, Produce: r.produce, Trim: r.trim,
					Open: func(t *testing.T) ingest.Source {
						s, err := file.Open(file.Options{Name: "test", Path: r.path, Follow: c.follow, Poll: 5 * time.Millisecond})
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { s.Close() })
						return s
					},
				}
			})
		})
	}
}

func TestRecords(t *testing.T) {
	const lines = `{"topic":"t","partition":0,"offset":0,"timestamp":5,"key":"{\"a\":1}","value":"\u00e9\ud83d\ude42 \"q\"","headers":[{"key":"h","value":"v"},{"key":"n","value":null},{"key":"b","value_b64":"AAE="}]}
{"offset":1,"expect":{"x":[1,{"key":"no"}]},"partition":3,"topic":"t","key":null,"value":null}

{"topic":"t","partition":0,"offset":2,"timestamp":0,"key_b64":"/w==","value_b64":""}`
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r, err := range file.Records(t.Context(), path) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d %d %d %q %q %v %v %q", r.Topic, r.Partition, r.Offset, r.Timestamp, r.Key, r.Value, r.Key == nil, r.Value == nil, r.Headers))
	}
	want := []string{
		`t 0 0 5 "{\"a\":1}" "é🙂 \"q\"" false false [{"h" "v"} {"n" ""} {"b" "\x00\x01"}]`,
		`t 3 1 0 "" "" true true []`,
		`t 0 2 0 "\xff" "" false false []`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got\n%q\nwant\n%q", got, want)
	}
	for _, bad := range []string{`{"topic":"t"}`, `{`, `[]`, `{"topic":"t","partition":0,"offset":0,"key":5}`, `{"topic":"t","partition":0,"offset":0,"key_b64":"?"}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		var last error
		for _, err := range file.Records(t.Context(), path) {
			last = err
		}
		if last == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// TestPartitioner compares with org.apache.kafka.common.utils.UtilsTest.testMurmur2.
func TestPartitioner(t *testing.T) {
	for key, hash := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		for _, n := range []int32{1, 3, 100} {
			r := ingest.Record{Topic: "t", Key: []byte(key)}
			file.NewPartitioner(n).Place(&r)
			if want := int32(uint32(hash)&0x7fffffff) % n; r.Partition != want {
				t.Errorf("%q of %d: partition %d, want %d", key, n, r.Partition, want)
			}
		}
	}
	p := file.NewPartitioner(2)
	var got []string
	for _, key := range [][]byte{nil, []byte("21"), nil, nil, []byte("21")} {
		r := ingest.Record{Topic: "t", Key: key, Partition: 7, Offset: 9}
		p.Place(&r)
		got = append(got, fmt.Sprintf("%d/%d", r.Partition, r.Offset))
	}
	if fmt.Sprint(got) != "[0/0 0/1 1/0 0/2 0/3]" {
		t.Errorf("got %v", got)
	}
}

// TestBrokenLines: a line of a partition that is no record comes as a broken record of it; a line that names no partition is a
// record of the file's own, by its number. All others come as they are, whoever reads first.
func TestBrokenLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd.jsonl")
	lines := []string{
		`{"topic":"a.b.c","partition":0,"offset":0,"timestamp":1,"key":null,"value":"x"}`,
		`not json at all`,
		``,
		`{"topic":"a.b.c","partition":0,"offset":1,"timestamp":1,"key":null,"value_b64":"!"}`,
		`{"topic": 5}`,
		`{"topic":"other","partition":0,"offset":0,"key":null,"value":"y"}`,
		`{"topic":"a.b.c","partition":0,"offset":2,"timestamp":1,"key":null,"value":"z"}`,
		`{"topic":"a.b.c","partition":1,"offset":7,"timestamp":1,"key":null,"value":"p"}`,
		`{"topic":"a.b.c","parti`,
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := file.Open(file.Options{Name: "f", Path: path, Topics: []string{"a.b.c"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := &collector{records: map[string][]ingest.Record{}}
	if err := s.Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"a.b.c/0":          {"0 x", "1 broken at line 4: " + lines[3], "2 z"},
		"a.b.c/1":          {"7 p"},
		"file:odd.jsonl/0": {"1 broken at line 2: " + lines[1], "4 broken at line 5: " + lines[4], "8 broken at line 9: " + lines[8]},
	}
	got := map[string][]string{}
	for p, records := range h.records {
		for _, r := range records {
			text := fmt.Sprint(r.Offset, " ", string(r.Value))
			if at, _, ok := strings.Cut(strings.TrimPrefix(r.Broken, path+", "), ":"); ok {
				text = fmt.Sprint(r.Offset, " broken at ", at, ": ", string(r.Value))
			}
			got[p] = append(got[p], text)
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	bounds, err := s.Bounds(t.Context(), "")
	if err != nil || len(bounds) != 3 || bounds[2].Oldest != 1 || bounds[2].End != 9 {
		t.Errorf("%+v, %v", bounds, err)
	}
}

// collector keeps all records.
type collector struct {
	mu      sync.Mutex
	records map[string][]ingest.Record
}

func (c *collector) Resume(context.Context, ingest.Partition) (ingest.Resume, error) {
	return ingest.Resume{Next: ingest.Unknown}, nil
}

func (c *collector) Consume(ctx context.Context, s ingest.Stream) {
	for {
		b, err := s.Next(ctx)
		if err != nil {
			return
		}
		c.mu.Lock()
		name := fmt.Sprint(s.Partition())
		c.records[name] = append(c.records[name], b.Records...)
		c.mu.Unlock()
	}
}
