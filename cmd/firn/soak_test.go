package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"

	"firn/optimizer/amorotest"
)

// amoroCounts is what the second optimizer did.
type amoroCounts struct{ Rounds, Commits, Conflicts, Skipped, Failed int }

// amoroMain is the second optimizer as a process of its own: it works on all keyed tables of the lake until it is interrupted, then it
// finishes its round and prints its counts.
func amoroMain(config string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	cfg, err := loadConfig(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	work := context.WithoutCancel(ctx)
	catalog, err := openCatalog(work, cfg.Catalog, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer catalog.Close()
	var counts amoroCounts
	for ctx.Err() == nil {
		names, err := catalog.List(work)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		for _, name := range names {
			o := &amorotest.Optimizer{
				Catalog: catalog, Table: name, FragmentBytes: []int64{1 << 20, 0}[rand.IntN(2)], BaseOnly: rand.IntN(2) == 0,
			}
			if err := amoroRound(work, o, &counts); err != nil {
				counts.Failed++ // an executor that fails: the round is planned anew
				fmt.Fprintln(os.Stderr, name, err)
			}
		}
		time.Sleep(50 * time.Millisecond) // a table may not be there yet
	}
	_ = json.NewEncoder(os.Stdout).Encode(counts)
	return 0
}

// amoroRound is one round, with time between plan, execution and commit for others to commit.
func amoroRound(ctx context.Context, o *amorotest.Optimizer, counts *amoroCounts) error {
	r, err := o.Plan(ctx)
	if err != nil || r == nil {
		return err
	}
	counts.Rounds++
	if err := r.Execute(ctx); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(1200)) * time.Millisecond) // the moment is what is random, nothing is waited for
	out, err := r.Commit(ctx)
	counts.Commits += one(out.Committed)
	counts.Conflicts += one(out.Conflict)
	counts.Skipped += out.Skipped
	return err
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSoakOptimizers: firn's optimizer and a second one that follows Amoro's description, each in a process of its own, work on the
// same tables while changes stream in. At checkpoints nothing may be lost, revived or doubled: index, base and merged rows are
// what the shop's changes come to. FIRN_SOAK says for how long; the default is a few seconds.
func TestSoakOptimizers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it takes half a minute")
	}
	total, err := time.ParseDuration(cmp.Or(os.Getenv("FIRN_SOAK"), "4s"))
	if err != nil {
		t.Fatalf("FIRN_SOAK: %v", err)
	}
	dir := t.TempDir()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	config := killConfig(t, dir, broker.ListenAddrs()[0])
	cfg, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	visits := newVisits(t, broker.ListenAddrs())
	shop := newShop()
	segment := min(total, 30*time.Second)
	var all amoroCounts
	ours := map[string]float64{}
	began := time.Now()
	for n := 0; n == 0 || time.Since(began)+segment/2 < total; n++ {
		producer, err := openDemoProducer(t.Context(), &demoBroker{addrs: broker.ListenAddrs()}, shop, dir)
		if err != nil {
			t.Fatal(err)
		}
		firn := startFirn(t, config)
		amoro := startAmoro(t, config)
		changing, stop := context.WithTimeout(t.Context(), segment)
		var changes errgroup.Group
		changes.Go(func() error { return producer.run(changing, 200) })
		changes.Go(func() error { return visits.run(changing) })
		err = changes.Wait()
		stop()
		if err != nil {
			t.Fatal(err)
		}
		counts := amoro.stop(t)
		settle(t, cfg, producer, visits)
		addMetrics(t, ours, cfg.Listen.Admin)
		if err := firn.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := firn.Wait(); err != nil {
			t.Fatalf("after SIGINT: %v", err)
		}
		checkKilled(t, config, shop, producer.next)
		producer.Close()
		all.add(counts)
		if t.Failed() {
			t.Fatalf("after %s, checkpoint %d", time.Since(began), n)
		}
	}
	t.Logf("%s: the other optimizer %+v", time.Since(began).Round(time.Second), all)
	for _, k := range slices.Sorted(maps.Keys(ours)) {
		t.Logf("firn: %s = %g", k, ours[k])
	}
	if all.Commits == 0 {
		t.Error("the other optimizer never committed")
	}
	javaCheck(t, dir, shop)
}

func (c *amoroCounts) add(o amoroCounts) {
	c.Rounds, c.Commits, c.Conflicts = c.Rounds+o.Rounds, c.Commits+o.Commits, c.Conflicts+o.Conflicts
	c.Skipped, c.Failed = c.Skipped+o.Skipped, c.Failed+o.Failed
}

// amoroProcess is a running second optimizer.
type amoroProcess struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
}

func startAmoro(t *testing.T, config string) *amoroProcess {
	t.Helper()
	p := &amoroProcess{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0])}
	p.cmd.Env = append(os.Environ(), "FIRN_TEST_AMORO="+config)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended already if all went well
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("errors of the other optimizer:\n%s", p.err.String())
		}
	})
	return p
}

// stop interrupts the second optimizer and returns what it did.
func (p *amoroProcess) stop(t *testing.T) (counts amoroCounts) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("the other optimizer: %v\n%s", err, p.err.String())
	}
	if err := json.Unmarshal(p.out.Bytes(), &counts); err != nil {
		t.Fatalf("counts of the other optimizer: %v: %s", err, p.out.String())
	}
	return counts
}

// addMetrics adds up what firn's optimizer counted.
func addMetrics(t *testing.T, sums map[string]float64, admin string) {
	t.Helper()
	res, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 1<<24))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		for _, want := range []string{"firn_optimize_tasks_total", "firn_optimize_mended_rows_total", "firn_optimize_index_moves_total"} {
			if n, err := strconv.ParseFloat(value, 64); ok && err == nil && strings.HasPrefix(name, want) {
				if i := strings.Index(name, ",table="); i > 0 {
					name = name[:i]
				}
				if i := strings.Index(name, "{table="); i > 0 {
					name = name[:i]
				}
				sums[name] += n
			}
		}
	}
}

// javaCheck holds both stores of the shop's tables against Iceberg Java's rules, where that reader is installed.
func javaCheck(t *testing.T, dir string, shop *shop) {
	t.Helper()
	check, err := filepath.Abs("../../deploy/peers/javaiceberg/check")
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(home, ".cache/firn-peers/javaiceberg/ok")); err != nil {
		t.Log("SKIPPED javaiceberg: not installed")
		return
	}
	for _, table := range shop.tables {
		for _, store := range []string{table.name, table.name + "_change_"} {
			out, err := exec.CommandContext(t.Context(), check, "--sqlite", filepath.Join(dir, "catalog.db"), "--table", "shop."+store).CombinedOutput()
			if err != nil {
				t.Errorf("javaiceberg check shop.%s: %v\n%s", store, err, out)
			}
		}
	}
}
