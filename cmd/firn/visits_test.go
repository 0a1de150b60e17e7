package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// visits makes the changes of a table without a key, as a MariaDB connector does: rows that are often equal, updates and
// deletes by whole old rows, truncates, and after restarts of the connector the same events again.
type visits struct {
	client *kgo.Client
	random *rand.Rand
	rows   []string // in the row form
	sent   [][]byte // for repeats
	pos    int
	count  int64
}

const visitsTopic = shopTopic + "visits"

func newVisits(t *testing.T, broker []string) *visits {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker...), kgo.ProducerLinger(2*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, nil, visitsTopic); err != nil {
		t.Fatal(err)
	}
	return &visits{client: client, random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))} //nolint:gosec // any
}

func visit(page, n int) string { return fmt.Sprintf(`{"n":%d,"page":"/%d"}`, n, page) }

// run makes events until ctx ends.
func (v *visits) run(ctx context.Context) error {
	for ctx.Err() == nil {
		var records []*kgo.Record
		for range 20 {
			for _, value := range v.next() {
				records = append(records, &kgo.Record{Topic: visitsTopic, Value: value})
			}
		}
		v.count += int64(len(records))
		if err := v.client.ProduceSync(context.WithoutCancel(ctx), records...).FirstErr(); err != nil {
			return fmt.Errorf("visits: %w", err)
		}
		time.Sleep(20 * time.Millisecond) // a pace, not a wait
	}
	return nil
}

// next returns the next event, or what the connector sends again.
func (v *visits) next() [][]byte {
	if n := len(v.sent); n > 30 && v.random.IntN(100) == 0 {
		return v.sent[n-1-v.random.IntN(30):]
	}
	op, before, after := "c", "null", visit(v.random.IntN(5), v.random.IntN(3))
	at := -1
	if len(v.rows) > 0 {
		at = v.random.IntN(len(v.rows))
	}
	switch kind := v.random.IntN(200); {
	case kind == 0:
		op, after, v.rows = "t", "null", nil
	case kind < 40 && at >= 0:
		op, before, v.rows[at] = "u", v.rows[at], after
	case kind < 70 && at >= 0:
		op, before, after = "d", v.rows[at], "null"
		v.rows = slices.Delete(v.rows, at, at+1)
	default:
		v.rows = append(v.rows, after)
	}
	v.pos += 10
	value := fmt.Appendf(nil, `{"before":%s,"after":%s,"source":{"version":"3","connector":"mariadb","name":"shop","ts_ms":%d,"snapshot":"false",`+
		`"db":"shop","table":"visits","server_id":1,"file":"b.1","pos":%d,"row":0},"op":%q,"ts_ms":1}`, before, after, time.Now().UnixMilli(), v.pos, op)
	v.sent = append(v.sent, value)
	return [][]byte{value}
}

// check compares the table in the lake, alone and with the log's tail, with the rows that there should be: each of them
// counts, so that an event that is applied twice or not at all shows.
func (v *visits) check(t *testing.T, config string) {
	t.Helper()
	want := slices.Sorted(slices.Values(v.rows))
	for _, from := range []string{"base", "merged", "union"} {
		out, err := firnCommand(t.Context(), "dump", "shop.visits", "--from", from, "-c", config).Output()
		if err != nil {
			t.Errorf("dump --from %s: %v", from, err)
		}
		if got := strings.Fields(string(out)); !slices.Equal(got, want) {
			t.Errorf("shop.visits from %s has %d rows, want %d, or they differ", from, len(got), len(want))
		}
	}
}
