package ingest_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"firn/ingest"
)

// stopOf returns why a pipeline's first partition that has stopped did.
func stopOf(p *ingest.Pipeline) (string, int64) {
	partitions := p.Status()[0].Partitions
	for _, part := range partitions {
		if part.Error != "" {
			return part.Error, part.Next
		}
	}
	if len(partitions) == 0 {
		return "", ingest.Unknown
	}
	return "", partitions[0].Next
}

// TestRejectedRun: a table stops after so many rejected records in a row, of which none is lost, and says so; records that were
// applied in between begin the count anew, and what queues behind a bad record is not counted. After a resume it goes on.
func TestRejectedRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		route  ingest.Route
		events string // b: bad of key 1, c: bad of a new key, g: good of a new key, q: good of key 1
		next   int64
		parked int
		why    string
	}{
		{"never", ingest.Route{}, "cccccccc", 8, 8, ""},
		{"run", ingest.Route{MaxRejectedRun: 3}, "gccgccgcccgg", 10, 7, "3 records were parked one after the other (max_rejected_run), the last with type_mismatch"},
		{"exactly", ingest.Route{MaxRejectedRun: 3}, "ccgccgccg", 9, 6, ""},
		{"queued ones do not count", ingest.Route{MaxRejectedRun: 3, OnParked: ingest.ParkedQueue}, "gbqqqqqqqg", 10, 8, ""},
		{"queued ones do not end a run", ingest.Route{MaxRejectedRun: 3, OnParked: ingest.ParkedQueue}, "gbqqcqcqg", 7, 6, "3 records"},
		{"share", ingest.Route{MaxRejectedShare: 0.0004}, "gcgcgcgcgcgcgcg", 10, 5, "5 of the last records, fewer than 10000, were parked (max_rejected_share)"},
		{"fail fast", ingest.Route{FailFast: true}, "gggcgg", 3, 0, "offset 3: type_mismatch: "},
	} {
		for _, batch := range []int{1, 4, 100} {
			t.Run(fmt.Sprintf("%s/batch=%d", c.name, batch), func(t *testing.T) {
				m := newMaker("a.b.t", 1)
				for i, e := range c.events {
					id, v := int64(100+i), fmt.Sprint(i)
					if e == 'b' || e == 'q' {
						id = 1
					}
					if e == 'b' || e == 'c' {
						v = `"no number"`
					}
					m.add("c", id, fmt.Sprintf(`"v":%s,"note":"n"`, v))
				}
				c.route.Topic = ".*"
				l := openLog(newDisk())
				p, err := runOnce(t, l, newMemSource(m.records), []ingest.Route{c.route}, ingest.Options{BatchRecords: batch})
				if err != nil {
					t.Fatal(err)
				}
				why, next := stopOf(p)
				if next != c.next || len(l.visible.parked) != c.parked || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
					t.Errorf("next %d, %d parked, stopped %q\nwant %d, %d, %q", next, len(l.visible.parked), why, c.next, c.parked, c.why)
				}
				if unready := p.Unready(); (len(unready) == 1) != (c.why != "") {
					t.Errorf("not ready: %q", unready)
				}
			})
		}
	}
}

// TestRejectedWindow: the share is of 10,000 records, not of all.
func TestRejectedWindow(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.columns = "v:int64"
	for i := range int64(20_100) {
		v := "1"
		if i%10_000 < 8 { // 8 in the first 10,000, 8 in the next: never above 10
			v = `"x"`
		}
		m.add("c", i, `"v":`+v)
	}
	l := openLog(newDisk())
	p, err := runOnce(t, l, newMemSource(m.records), []ingest.Route{{Topic: ".*", MaxRejectedShare: 0.001}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if why, next := stopOf(p); why != "" || next != 20_100 {
		t.Errorf("stopped at %d: %s", next, why)
	}
}

// TestResumeStopped: a stop ends all partitions of the table, not the source's other tables; resume takes up where they stopped.
func TestResumeStopped(t *testing.T) {
	m, other := newMaker("a.b.t", 2), newMaker("a.b.u", 1)
	for i := range int64(40) {
		m.add("c", i, fmt.Sprintf(`"v":%d,"note":"n"`, i))
		other.add("c", i, `"v":1,"note":"n"`)
	}
	for i := range int64(20) {
		m.add("c", 1000+i, `"v":"bad","note":"n"`)
	}
	for i := range int64(40) {
		m.add("c", 2000+i, `"v":1,"note":"n"`)
		other.add("c", 2000+i, `"v":1,"note":"n"`)
	}
	s := newMemSource(append(m.records, other.records...))
	s.batch = 3
	s.follow = make(chan struct{})
	l := openLog(newDisk())
	p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: []ingest.Route{{Topic: ".*", MaxRejectedRun: 4}}}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	resumes := 0
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not go on: %+v", p.Status())
		}
		partitions := p.Status()[0].Partitions
		stopped, read := false, len(partitions) == 3
		for _, part := range partitions {
			stopped = stopped || part.Error != ""
			read = read && part.Next == part.End && part.End > 0
		}
		if stopped {
			resumes++
			if err := p.Resume("mem"); err != nil {
				t.Fatal(err)
			}
		} else if read {
			break
		}
	}
	close(s.follow)
	running.Wait()
	if resumes < 2 || len(l.visible.parked) != 20 || strings.Count(rows(t, l, "a_b.t"), "\n") != 80 || strings.Count(rows(t, l, "a_b.u"), "\n") != 80 {
		t.Errorf("%d resumes, %d parked", resumes, len(l.visible.parked))
	}
}

// TestCut: of a value that is too large only length, hash and beginning are parked, and it is not replayed without an edit; what
// only queues is kept whole.
func TestCut(t *testing.T) {
	m := newMaker("a.b.t", 1)
	m.add("c", 1, `"v":1,"note":"a"`)
	m.add("u", 1, fmt.Sprintf(`"v":"bad","note":%q`, strings.Repeat("x", 100_000)))
	m.add("u", 1, fmt.Sprintf(`"v":2,"note":%q`, strings.Repeat("y", 100_000)))
	l := openLog(newDisk())
	p := run(t, l, ingest.Options{}, []ingest.Route{{Topic: ".*", OnParked: ingest.ParkedQueue, MaxParkedBytes: 70_000}}, m)
	if got := parkedReasons(l); got != "1:type_mismatch 2:key_queued" {
		t.Fatalf("parked %s", got)
	}
	bad, value := l.visible.parked[0], m.records[1].Value
	if bad.Cut == nil || bad.Cut.Bytes != int64(len(value)) || bad.Cut.SHA256 != sha256.Sum256(value) || string(bad.RecordValue) != string(value[:64<<10]) {
		t.Errorf("cut %+v, %d bytes kept", bad.Cut, len(bad.RecordValue))
	}
	if queued := l.visible.parked[1]; queued.Cut != nil || len(queued.RecordValue) < 100_000 {
		t.Errorf("queued: %+v, %d bytes", queued.Cut, len(queued.RecordValue))
	}
	if out, err := p.ReplayParked(t.Context(), 1, false); err != nil || out.Failed != 1 || out.Failures[0].Reason != "message_size" {
		t.Errorf("replay: %+v, %v", out, err)
	}
	key := []byte(m.keyText(1))
	if err := p.EditParked(t.Context(), 1, ingest.ParkedChange{Key: &key}); !refused(err) {
		t.Errorf("an edit of the key alone: %v", err)
	}
	if err := p.EditParked(t.Context(), 1, edited(m, "u", 1, `"v":5,"note":"z"`)); err != nil {
		t.Fatal(err)
	}
	if out, err := p.ReplayParked(t.Context(), 1, false); err != nil || out.Applied != 2 {
		t.Errorf("replay: %+v, %v", out, err)
	}
	if _, err := p.ReplayParked(t.Context(), 1, false); !errors.Is(err, errNoParked) {
		t.Error(err)
	}
}

// TestStoppedTogether: a partition reads no more when another one has stopped the table they feed.
func TestStoppedTogether(t *testing.T) {
	m := newMaker("a.b.t", 2)
	for i := range int64(30) {
		m.add("c", i, `"v":1,"note":"n"`)
	}
	zero := 0
	for i := range m.records {
		if r := &m.records[i]; r.Partition == 0 {
			if zero++; zero > 1 {
				r.Value = []byte(strings.Replace(string(r.Value), `"v":1`, `"v":"bad"`, 1))
			}
		}
	}
	s := newMemSource(m.records)
	s.batch = 1
	stopped := make(chan struct{})
	s.order = func(p ingest.Partition, next int64) {
		if p.Index == 1 && next >= 2 { // not before: at the first records the partitions wait for each other
			<-stopped
		}
	}
	l := openLog(newDisk())
	p, err := ingest.New(l, l, []ingest.Input{{Source: s, Routes: []ingest.Route{{Topic: ".*", MaxRejectedRun: 3}}}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if why, _ := stopOf(p); why != "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nothing stops: %+v", p.Status())
		}
	}
	close(stopped)
	running.Wait()
	for _, part := range p.Status()[0].Partitions {
		if !strings.Contains(part.Error, "3 records were parked") || part.Partition == 1 && part.Next > 2 {
			t.Errorf("%+v", part)
		}
	}
}
