package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"firn/logstore/httpapi"
)

const (
	diskRecords = 3000 // their log alone, some 90 MB, does not fit under the limit
	diskKeys    = 4    // few: most rows are overwritten before they come to a file, and no compaction makes room
)

// diskRow is the row that the n-th record of the source sets, n from 1.
func diskRow(n int) shopRow {
	body := make([]byte, 15_000)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(body)
	return shopRow{fmt.Sprint(n % diskKeys), hex.EncodeToString(body)} // it does not become small by compression
}

// lastOf returns the newest record up to applied that sets the row of key.
func lastOf(key, applied int) int { return applied - (applied-key)%diskKeys }

// TestDiskFull: with nothing flushed, `firn serve` comes to its disk limit: the source waits and says why, lookups and feeds
// answer, also after kill -9 and a restart, which finds the limit reached, too. When space returns, by a flush that is
// asked for or by one that is configured, the source goes on by itself, and the rows are those of the records (P6, P7).
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it takes ten seconds")
	}
	dir := t.TempDir()
	table := newShopTable("docs", shopColumn{name: "id", literal: "int64", key: true, encode: strings.TrimSpace},
		shopColumn{name: "body", literal: "string", encode: strconv.Quote})
	writeDiskRecording(t, filepath.Join(dir, "docs.jsonl"), table)
	data, admin := freePort(t), freePort(t)
	config := func(interval string) string {
		file := filepath.Join(dir, "firn.yaml")
		text := fmt.Sprintf(`
data: %[1]s/data
listen: {data: '%[2]s', admin: '%[3]s'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
sources:
  - name: docs
    file: {path: %[1]s/docs.jsonl, follow: true}
    replay_window: 100
    routes: [{topic: 'shop\.public\.(.*)', table: 'shop.$1'}]
tables: {defaults: {flush: {interval: %[4]s, bytes: 10GiB}, optimize: {minor: {interval: 500ms}}}}
limits: {disk: 64MiB, memory: 128MiB}
`, dir, data, admin, interval)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	s := &diskServer{t: t, data: "http://" + data, admin: "http://" + admin}

	s.start(config("1h")) // nothing is flushed, so nothing can be trimmed
	first := s.full()
	s.feed(first)
	if err := s.process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.process.Wait() // "signal: killed"
	s.start(config("1h"))
	second := s.full()
	if second < first {
		t.Errorf("%d changes after the restart, %d were there before", second, first)
	}
	if code, text := s.post("/v1/tables/shop.docs/optimize"); code != http.StatusOK {
		t.Fatalf("optimize on a full disk: %d: %s", code, text)
	}
	s.until("the source goes on", func() bool { return s.applied() > second })
	s.stop()

	s.start(config("300ms"))
	s.until("all is taken in", func() bool { return s.applied() == diskRecords })
	s.until("the source waits no more", func() bool { st := s.source(); return st.State == "running" && st.Partitions[0].Lag == 0 })
	s.until("there is room", func() bool {
		code, _ := s.get(s.admin + "/-/ready")
		return code == http.StatusOK && strings.Contains(s.metrics(), "\nfirn_log_full 0\n")
	})
	if code, text := s.post("/v1/tables/shop.docs/optimize"); code != http.StatusOK {
		t.Fatalf("optimize: %d: %s", code, text)
	}
	if m := s.metrics(); strings.Contains(m, "firn_parked_records{") {
		t.Error("records are parked")
	}
	s.stop()
	checkDiskRows(t, filepath.Join(dir, "firn.yaml"))
}

func writeDiskRecording(t *testing.T, path string, table *shopTable) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := bufio.NewWriterSize(file, 1<<20)
	for n := 1; n <= diskRecords; n++ {
		op := "u"
		if n <= diskKeys {
			op = "c"
		}
		r := table.record(op, diskRow(n), int64(n)<<8, 1767225600000)
		line, err := json.Marshal(map[string]any{"key": string(r.key), "value": string(r.value)})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, `{"topic":%q,"partition":0,"offset":%d,%s`+"\n", r.topic, n-1, line[1:])
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

// diskServer is a server process of TestDiskFull.
type diskServer struct {
	t           *testing.T
	data, admin string // URLs
	process     *exec.Cmd
}

func (s *diskServer) start(config string) {
	s.t.Helper()
	s.process = startFirn(s.t, config)
	s.until("the server answers", func() bool { code, _ := s.get(s.admin + "/-/healthy"); return code == http.StatusOK })
}

func (s *diskServer) stop() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		s.t.Fatalf("after SIGTERM: %v", err)
	}
}

func (s *diskServer) until(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within 60 s: %s; %d changes, source %+v", what, s.applied(), s.source())
		}
	}
}

// get returns 0 as long as nobody listens.
func (s *diskServer) get(url string) (code int, text string) {
	s.t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return 0, ""
	}
	return s.answer(res)
}

func (s *diskServer) post(path string) (code int, text string) {
	s.t.Helper()
	res, err := http.Post(s.data+path, "", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.answer(res)
}

func (s *diskServer) answer(res *http.Response) (code int, text string) {
	s.t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func (s *diskServer) into(url string, v any) {
	s.t.Helper()
	code, text := s.get(url)
	if code != http.StatusOK {
		return // not yet: v stays as it is
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		s.t.Fatalf("%s: %v", url, err)
	}
}

func (s *diskServer) metrics() string {
	s.t.Helper()
	_, text := s.get(s.admin + "/metrics")
	return text
}

// applied returns how many changes the table has: records, for each has one.
func (s *diskServer) applied() int {
	s.t.Helper()
	var table tableAnswer
	s.into(s.data+"/v1/tables/shop.docs", &table)
	return int(table.Applied) //nolint:gosec // few
}

func (s *diskServer) source() httpapi.SourceStatus {
	s.t.Helper()
	var list struct {
		Sources []httpapi.SourceStatus `json:"sources"`
	}
	s.into(s.data+"/v1/sources", &list)
	if len(list.Sources) != 1 || len(list.Sources[0].Partitions) != 1 {
		return httpapi.SourceStatus{Partitions: make([]httpapi.PartitionStatus, 1)} // not yet
	}
	return list.Sources[0]
}

// full waits until the disk limit is reached for good, and checks what a user sees then. It returns how many changes there
// are. Overwritten rows may still give room for a few changes at first: what it has seen counts only if none came meanwhile.
func (s *diskServer) full() (applied int) {
	s.t.Helper()
	var wrong []string
	s.until("the source waits for space", func() bool {
		waits := func() bool {
			st := s.source()
			return st.State == "waiting" && strings.Contains(st.Partitions[0].Waiting, "disk limit reached")
		}
		if !waits() {
			return false
		}
		applied = s.applied()
		time.Sleep(300 * time.Millisecond) // that nothing comes is what is looked at
		wrong = s.look(applied)
		return waits() && s.applied() == applied
	})
	for _, w := range wrong {
		s.t.Errorf("full after %d changes: %s", applied, w)
	}
	return applied
}

// look returns what is wrong with what a full server shows.
func (s *diskServer) look(applied int) (wrong []string) {
	s.t.Helper()
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if p := s.source().Partitions[0]; int(p.Next) != applied || p.Lag != int64(diskRecords-applied) || applied >= diskRecords {
		bad("source is at %+v", p)
	}
	if code, text := s.get(s.admin + "/-/ready"); code != http.StatusServiceUnavailable || !strings.Contains(text, "limits.disk") {
		bad("ready: %d %s", code, text)
	}
	m := s.metrics()
	if !strings.Contains(m, "\nfirn_log_full 1\n") || !strings.Contains(m, "\nfirn_source_log_full_total ") || strings.Contains(m, "\nfirn_source_log_full_total 0\n") {
		bad("metrics do not tell")
	}
	_, text, _ := strings.Cut(m, "\nfirn_pebble_disk_bytes ")
	text, _, _ = strings.Cut(text, "\n")
	if used, err := strconv.ParseFloat(text, 64); err != nil || used < 0.9*(64<<20) || used > 2*(64<<20) { // compactions write before they free
		bad("%s bytes of disk used", text)
	}
	if strings.Contains(m, "firn_parked_records{") {
		bad("records are parked")
	}
	for key := range diskKeys {
		var got struct {
			Seq int
			Row struct{ Body string }
		}
		s.into(fmt.Sprintf("%s/v1/tables/shop.docs/rows/%d", s.data, key), &got)
		if want := lastOf(key, applied); got.Seq != want || got.Row.Body != diskRow(want)[1] {
			bad("row %d is that of record %d, want %d", key, got.Seq, want)
		}
	}
	return wrong
}

// feed checks that the table's feed has each of the last 300 changes up to applied once.
func (s *diskServer) feed(applied int) {
	s.t.Helper()
	from := applied - 300
	_, text := s.get(fmt.Sprintf("%s/v1/tables/shop.docs/changes?from=seq:%d&follow=false", s.data, from))
	n := from
	for line := range strings.Lines(text) {
		n++
		var c struct {
			Seq   int
			After map[string]any
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil || c.Seq != n || c.After["body"] != diskRow(n)[1] {
			s.t.Fatalf("change %d of the feed is %.60s, %v", n, line, err)
		}
	}
	if n != applied {
		s.t.Errorf("the feed ends at %d, want %d", n, applied)
	}
}

func checkDiskRows(t *testing.T, config string) {
	t.Helper()
	var want []string
	for key := range diskKeys {
		want = append(want, fmt.Sprint(diskRow(lastOf(key, diskRecords))))
	}
	for _, from := range []string{"index", "base", "merged", "union"} {
		out, err := firnCommand(t.Context(), "dump", "shop.docs", "--from", from, "-c", config).Output()
		if err != nil {
			t.Errorf("dump --from %s: %v", from, err)
		}
		var got []string
		for line := range strings.Lines(string(out)) {
			var row struct {
				ID   int
				Body string
			}
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(shopRow{strconv.Itoa(row.ID), row.Body}))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d rows from %s, want %d, or they differ", len(got), from, len(want))
		}
	}
	if out, err := firnCommand(t.Context(), "verify", "--deep", "-c", config).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}
