package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"
)

// TestMain is firn itself when a test runs its own binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("FIRN_TEST_MAIN") != "" {
		main()
		return
	}
	if config := os.Getenv("FIRN_TEST_AMORO"); config != "" {
		os.Exit(amoroMain(config))
	}
	os.Exit(m.Run())
}

// firnCommand returns firn as a process of its own.
func firnCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "FIRN_TEST_MAIN=1")
	return cmd
}

// TestKill kills `firn serve` with SIGKILL again and again while the shop changes, and takes its data directory away once
// (P4). At the end log, index, base, merged and union must each be exactly what the shop's changes come to (P1, P2, P5, P8); and
// so must a table without a key, whose rows no key makes right again.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it takes half a minute")
	}
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	shop := newShop()
	producer, err := openDemoProducer(t.Context(), &demoBroker{addrs: broker.ListenAddrs()}, shop, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	config := killConfig(t, dir, broker.ListenAddrs()[0])
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}

	changing, stop := context.WithCancel(t.Context())
	defer stop()
	var changes errgroup.Group
	changes.Go(func() error { return producer.run(changing, 1500) })
	visits := newVisits(t, broker.ListenAddrs())
	changes.Go(func() error { return visits.run(changing) })
	const kills = 8
	for n := range kills {
		firn := startFirn(t, config)
		time.Sleep(time.Duration(300+random.IntN(1500)) * time.Millisecond) // the moment is what is random, nothing is waited for
		if err := firn.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = firn.Wait() // "signal: killed"
		if n == kills/2 {
			if err := os.RemoveAll(cfg.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	firn := startFirn(t, config)
	stop()
	if err := changes.Wait(); err != nil {
		t.Fatal(err)
	}
	settle(t, cfg, producer, visits)
	if err := firn.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := firn.Wait(); err != nil {
		t.Fatalf("after SIGINT: %v", err)
	}
	checkKilled(t, config, shop, producer.next)
	visits.check(t, config)
}

func killConfig(t *testing.T, dir, broker string) string {
	t.Helper()
	file := filepath.Join(dir, "firn.yaml")
	text := fmt.Sprintf(`
data: %[1]s/data
listen: {data: '%[3]s', admin: '%[4]s'}
catalog: {uri: %[1]s/catalog.db, warehouse: 'file:%[1]s/lake'}
sources:
  - name: demo
    kafka: {brokers: ['%[2]s'], session_timeout: 2s}
    topics: ['shop\.public\..*']
    routes: [{topic: 'shop\.public\.(.*)', table: 'shop.$1'}]
    discovery_interval: 500ms
    keyless: full_row
tables:
  defaults: {flush: {interval: 300ms}, optimize: {minor: {interval: 700ms}}}
  overrides: # by the key; by what updates change, so that rows move; of a table without a key
    - {match: 'shop\.customers', partition: ['bucket(4, id)']}
    - {match: 'shop\.orders', partition: [status, 'bucket(2, customer_id)']}
    - {match: 'shop\.visits', partition: [page, 'bucket(2, n)']}
`, dir, broker, freePort(t), freePort(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startFirn starts a server; its log goes to the test's when the test fails.
func startFirn(t *testing.T, config string) *exec.Cmd {
	t.Helper()
	firn := firnCommand(context.WithoutCancel(t.Context()), "serve", "-c", config)
	var log bytes.Buffer
	firn.Stderr = &log
	if err := firn.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = firn.Process.Kill() // it has ended already if all went well
		_ = firn.Wait()         // so that its log is complete
		if t.Failed() {
			t.Logf("log of a server:\n%s", log.String())
		}
	})
	return firn
}

// settle waits until the server has taken in all that was produced and has it in base files.
func settle(t *testing.T, cfg *Config, p *demoProducer, v *visits) {
	t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	names := []string{strings.TrimPrefix(visitsTopic, shopTopic)}
	for _, table := range p.shop.tables {
		names = append(names, table.name)
	}
	for _, name := range names {
		ends, err := topicEnds(t.Context(), cfg.Sources[0].Kafka.Brokers[0], shopTopic+name)
		if err != nil {
			t.Fatal(err)
		}
		var want int64
		for _, end := range ends {
			want += end
		}
		if shopTopic+name == visitsTopic && want != v.count {
			t.Fatalf("%d visits in the topic, %d were produced", want, v.count)
		}
		url := "http://" + cfg.Listen.Data + "/v1/tables/shop." + name
		for !reached(t, url, want) {
			if time.Now().After(deadline) {
				t.Fatalf("shop.%s is not at its topic's end of %d records within 90 s", name, want)
			}
			time.Sleep(100 * time.Millisecond)
		}
		res, err := http.Post(url+"/optimize", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
			t.Fatalf("optimize: %s: %s", res.Status, text)
		}
		_ = res.Body.Close() // read to its end
	}
}

// reached reports whether the table's source positions sum up to want.
func reached(t *testing.T, url string, want int64) bool {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		return false // it is not up yet
	}
	defer res.Body.Close()
	var table tableAnswer
	if res.StatusCode != http.StatusOK || json.NewDecoder(res.Body).Decode(&table) != nil {
		return false
	}
	var at int64
	for _, s := range table.Sources {
		at += s.Next
	}
	return at == want
}

func checkKilled(t *testing.T, config string, shop *shop, blocks int64) {
	t.Helper()
	if out, err := firnCommand(t.Context(), "verify", "--deep", "-c", config).CombinedOutput(); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	for i, table := range shop.tables {
		var want []string
		for _, row := range shop.rows(i, blocks) {
			want = append(want, row)
		}
		slices.Sort(want)
		for _, from := range []string{"index", "base", "merged", "union"} {
			out, err := firnCommand(t.Context(), "dump", "shop."+table.name, "--from", from, "-c", config).Output()
			if err != nil {
				t.Errorf("dump --from %s: %v", from, err)
			}
			if got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"); !slices.Equal(got, want) {
				t.Errorf("shop.%s from %s has %d rows, the shop %d, or they differ", table.name, from, len(got), len(want))
			}
		}
	}
}
