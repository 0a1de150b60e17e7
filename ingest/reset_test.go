package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"firn/ingest"
)

// TestReset: positions move back and forth, all or none; what is read again ends in the same rows, what is passed over is never read, and
// rows that would double are refused.
func TestReset(t *testing.T) {
	m, bag := newMaker("a.b.t", 2), newMaker("a.b.bag", 1)
	for i := range int64(40) {
		m.add("c", i%8, fmt.Sprintf(`"v":%d,"note":"a"`, i))
	}
	bag.add("c", 1, `"v":1,"note":"a"`)
	bag.records[0].Key = nil
	s := newMemSource(append(m.records, bag.records...))
	s.follow = make(chan struct{})
	l := openLog(newDisk())
	p, err := ingest.New(l, l, []ingest.Input{{Source: s}}, ingest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	changes := func(want int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			n := len(l.visible.changes)
			l.mu.Unlock()
			if n == want {
				return
			}
			if n > want || time.Now().After(end) {
				t.Fatalf("%d changes, want %d", n, want)
			}
		}
	}
	changes(41)
	before := rows(t, l, "a_b.t")
	refused := func(to ingest.Reset, why string) {
		t.Helper()
		for _, dry := range []bool{true, false} {
			_, err := p.Reset(ctx, "mem", to, dry)
			if r, ok := errors.AsType[*ingest.ResetRefusedError](err); !ok || !strings.Contains(r.Why, why) {
				t.Errorf("%+v: %v, want %s", to, err, why)
			}
		}
	}
	refused(ingest.Reset{Topic: "nope", Partition: -1, To: ingest.ResetEarliest}, "no such topic")
	refused(ingest.Reset{Topic: "a.b.t", Partition: 7, To: 0}, "no such topic")
	refused(ingest.Reset{Topic: "a.b.t", Partition: 0, To: 1000}, "the partition has 0 to")
	refused(ingest.Reset{Topic: "a.b.bag", Partition: 0, To: ingest.ResetEarliest}, "has no key")
	refused(ingest.Reset{Partition: -1, To: ingest.ResetEarliest}, "has no key") // all or none
	if _, err := p.Reset(ctx, "other", ingest.Reset{}, false); !errors.Is(err, ingest.ErrNoSource) {
		t.Error(err)
	}
	steps := func(to ingest.Reset, dry bool) (got []string) {
		t.Helper()
		all, err := p.Reset(ctx, "mem", to, dry)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			got = append(got, fmt.Sprintf("%s/%d %d>%d %s", s.Topic, s.Index, s.From, s.To, strings.Fields(s.Effect)[0]))
		}
		return got
	}
	n := [2]int64{}
	for _, r := range m.records {
		n[r.Partition] = r.Offset + 1
	}
	if got, want := fmt.Sprint(steps(ingest.Reset{Topic: "a.b.t", Partition: -1, To: ingest.ResetEarliest}, true)), fmt.Sprintf("[a.b.t/0 %d>0 reads a.b.t/1 %d>0 reads]", n[0], n[1]); got != want {
		t.Errorf("plan %s, want %s", got, want)
	}
	time.Sleep(20 * time.Millisecond)
	changes(41) // a plan does nothing
	steps(ingest.Reset{Topic: "a.b.t", Partition: -1, To: ingest.ResetEarliest}, false)
	changes(81)
	if got := rows(t, l, "a_b.t"); got != before {
		t.Errorf("rows\n%s\nwere\n%s", got, before)
	}
	if st := p.Status()[0]; st.State != ingest.SourceRunning {
		t.Errorf("%+v", st)
	}

	if err := p.Pause(ctx, "mem"); err != nil {
		t.Fatal(err)
	}
	steps(ingest.Reset{Topic: "a.b.t", Partition: 0, To: 2}, false)
	if got := fmt.Sprint(steps(ingest.Reset{Topic: "a.b.t", Partition: 0, To: ingest.ResetLatest}, false)); got != fmt.Sprintf("[a.b.t/0 2>%d passes]", n[0]) {
		t.Error(got)
	}
	if got := fmt.Sprint(steps(ingest.Reset{Topic: "a.b.t", Partition: 0, To: ingest.ResetLatest}, false)); got != fmt.Sprintf("[a.b.t/0 %[1]d>%[1]d stays]", n[0]) {
		t.Error(got)
	}
	steps(ingest.Reset{Topic: "a.b.t", Partition: 1, To: n[1] - 1}, false)
	if st := p.Status()[0]; st.State != ingest.SourcePaused {
		t.Errorf("%+v", st)
	}
	changes(81) // it stays paused
	if err := p.Resume("mem"); err != nil {
		t.Fatal(err)
	}
	changes(82)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
