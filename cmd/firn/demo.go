package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"firn/changelog"
)

type demoFlags struct {
	duration time.Duration
	dir      string
	kafka    string
	rate     int
}

func newDemoCmd(e *env) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the whole pipeline with nothing installed: broker, changes, log, lake",
		Long: `Demo runs a Kafka broker in this process, a shop whose customers, orders and order items change, as Debezium events, and the
server: log, index, SQLite catalog, Iceberg tables in a local directory. It prints addresses (firn replay FILE --to the
broker's gives it more tables) and commands to try, then a line a second. At the end (Ctrl-C, or --for) it verifies that index, lake and the shop itself hold the same rows: exit status 1 if not.`,
		Example: "  firn demo --for 60s\n  firn demo --dir /tmp/shop --rate 10000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), f, e.Stdout, e.Stderr)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.duration, "for", 0, "end after this time; 0: at Ctrl-C")
	flags.StringVar(&f.dir, "dir", "", "keep state here and continue it; empty: a temporary directory that is removed")
	flags.IntVar(&f.rate, "rate", 1000, "changes a second")
	flags.StringVar(&f.kafka, "kafka", "", "use this broker (host:port) instead of one in the process")
	return cmd
}

// demo runs the pipeline and then checks it. What the demo itself says goes to out; the server's warnings go to logw.
func demo(ctx context.Context, f demoFlags, out, logw io.Writer) (err error) {
	if f.rate <= 0 || f.duration < 0 {
		return usageError("demo: --rate must be positive, and --for must not be negative")
	}
	if f.dir == "" {
		if f.dir, err = os.MkdirTemp("", "firn-demo-"); err != nil {
			return &exitError{exitOpen, err}
		}
		defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
	} else if err := os.MkdirAll(f.dir, 0o750); err != nil {
		return &exitError{exitOpen, err}
	}
	started := time.Now()
	work := context.WithoutCancel(ctx) // broker and server outlive the end of the changes: the check needs them
	broker, err := openDemoBroker(f.dir, f.kafka)
	if err != nil {
		return &exitError{exitOpen, err}
	}
	defer broker.Close()
	shop := newShop()
	producer, err := openDemoProducer(work, broker, shop, f.dir)
	if err != nil {
		return &exitError{exitOpen, err}
	}
	defer producer.Close()
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	cfg := demoConfig(f, broker)
	s, err := openServer(work, cfg, cfg.newLogger(level, logw), level)
	if err != nil {
		return &exitError{exitOpen, err}
	}
	d := &demoRun{demoFlags: f, server: s, producer: producer, shop: shop, out: out, started: started}
	err = d.run(ctx)
	return errors.Join(err, s.close())
}

func demoConfig(f demoFlags, b *demoBroker) *Config {
	cfg := defaultConfig()
	cfg.Data = filepath.Join(f.dir, "data")
	cfg.Catalog.URI, cfg.Catalog.Warehouse = filepath.Join(f.dir, "catalog.db"), "file:"+filepath.Join(f.dir, "lake")
	cfg.Listen = ListenConfig{Data: freeOr(cfg.Listen.Data), Admin: freeOr(cfg.Listen.Admin)}
	cfg.Tables.Defaults.Flush.Interval = 2 * time.Second
	cfg.Tables.Defaults.Optimize.Minor.Interval = 5 * time.Second
	cfg.Log.Level = "warn"
	src := defaultSource()
	src.Name, src.Topics = "demo", []string{`shop\.public\..*`}
	if b.fake != nil { // nobody else's: what is replayed to it becomes tables, too
		src.Topics = []string{".*"}
	}
	kafka := defaultKafka()
	kafka.Brokers, kafka.Group = b.addrs, "firn-demo"
	src.Kafka = &kafka
	src.Routes = []RouteConfig{{Topic: `shop\.public\.(.*)`, Table: "shop.$1"}}
	src.DiscoveryInterval = time.Second
	cfg.Sources = []SourceConfig{src}
	return cfg
}

// freeOr returns addr if nothing listens there, else a free port on loopback.
func freeOr(addr string) string {
	l, err := net.Listen("tcp", addr) //nolint:noctx // loopback, at once
	if err != nil {
		return "127.0.0.1:0"
	}
	_ = l.Close() // it was never used
	return addr
}

// demoRun is one run of the demo.
type demoRun struct {
	demoFlags
	server   *server
	producer *demoProducer
	shop     *shop
	out      io.Writer
	started  time.Time
	lastSeq  changelog.SeqNum
	lastAt   time.Time
}

func (d *demoRun) run(ctx context.Context) error {
	d.welcome()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return d.server.run(serving) })
	g.Go(func() error {
		defer stopServing()
		changing, stop := context.WithCancel(serving)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		if d.duration > 0 {
			defer time.AfterFunc(d.duration, stop).Stop()
		}
		lines, work := errgroup.WithContext(changing)
		lines.Go(func() error { return d.producer.run(work, d.rate) })
		lines.Go(func() error { return d.progress(work) })
		if err := lines.Wait(); err != nil {
			return &exitError{exitOpen, err}
		}
		return d.check(serving)
	})
	return g.Wait()
}

func (d *demoRun) welcome() {
	data, admin := d.server.data.Addr().String(), d.server.admin.Addr().String()
	server := ""
	if data != defaultConfig().Listen.Data {
		server = " --server http://" + data
	}
	fmt.Fprintf(d.out, "firn demo: %d changes a second, state in %s\n\n", d.rate, d.dir)
	for _, line := range [][2]string{
		{"HTTP", "http://" + data + "/v1/tables   (API: http://" + data + "/openapi.yaml)"},
		{"broker", strings.Join(d.server.cfg.Sources[0].Kafka.Brokers, ", ") + "   (Kafka)"},
		{"metrics", "http://" + admin + "/metrics"},
		{"lake", filepath.Join(d.dir, "lake") + ", catalog " + filepath.Join(d.dir, "catalog.db")},
	} {
		fmt.Fprintf(d.out, "  %-8s %s\n", line[0], line[1])
	}
	fmt.Fprint(d.out, "\nTry, in another terminal:\n")
	for _, line := range []string{
		"firn get shop.orders 1" + server, "firn tail shop.orders --from latest --limit 5" + server, "firn table list" + server,
		"curl -s http://" + data + "/v1/tables/shop.customers/rows/1",
		"firn replay RECORDING.jsonl.gz --to " + d.server.cfg.Sources[0].Kafka.Brokers[0],
	} {
		fmt.Fprintf(d.out, "  %s\n", line)
	}
	fmt.Fprintln(d.out)
}

// progress prints a line a second, and one when the first row can be looked up.
func (d *demoRun) progress(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	d.lastAt = time.Now()
	fast := time.NewTicker(20 * time.Millisecond)
	defer fast.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-fast.C:
			found, err := d.firstRow(ctx)
			if err != nil && ctx.Err() == nil {
				return err
			}
			if found {
				fmt.Fprintf(d.out, "first row by lookup %.1f s after the start\n", time.Since(d.started).Seconds())
				fast.Stop()
			}
		case <-tick.C:
			if err := d.line(); err != nil {
				return err
			}
		}
	}
}

func (d *demoRun) firstRow(ctx context.Context) (bool, error) {
	t, ok := d.server.registry.Table("shop.customers")
	if !ok {
		return false, nil
	}
	key := t.Schema().KeyOf(nil, append([]changelog.Value{{I: 1}}, make([]changelog.Value, len(t.Schema().Columns)-1)...))
	v, err := d.server.store.Row(ctx, t.ID, key)
	return v.Found, err
}

func (d *demoRun) line() error {
	var applied, flushed, optimized changelog.SeqNum
	for _, t := range d.server.registry.Tables() {
		_, a, err := d.server.store.Bounds(t.ID)
		if err != nil {
			return err
		}
		p, err := d.server.registry.Progress(t.ID)
		if err != nil {
			return err
		}
		applied, flushed, optimized = applied+a, flushed+p.Flushed, optimized+p.Optimized
	}
	now := time.Now()
	perSecond := float64(applied-min(d.lastSeq, applied)) / now.Sub(d.lastAt).Seconds()
	d.lastSeq, d.lastAt = applied, now
	fmt.Fprintf(d.out, "%4.0f s  %7.0f changes/s   readable %d   in change files %d   in base files %d\n",
		time.Since(d.started).Seconds(), perSecond, applied, flushed, optimized)
	return nil
}

// check waits until all that was produced is in the lake, and holds index and lake against each other and the shop.
func (d *demoRun) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fmt.Fprintf(d.out, "\nno more changes: verifying\n")
	if err := d.settle(ctx); err != nil {
		return &exitError{exitNo, fmt.Errorf("demo: %w", err)}
	}
	ok, err := verify(ctx, verifyLake{catalog: d.server.catalog, registry: d.server.registry, store: d.server.store, cfg: d.server.cfg}, nil, true, d.out)
	if err != nil {
		return &exitError{exitNo, fmt.Errorf("demo: %w", err)}
	}
	for i, t := range d.shop.tables {
		same, err := d.checkShop(ctx, i, t)
		if err != nil {
			return &exitError{exitNo, fmt.Errorf("demo: %w", err)}
		}
		ok = ok && same
	}
	if !ok {
		return &exitError{exitNo, errors.New("demo: verification failed: see the lines above")}
	}
	fmt.Fprintln(d.out, "verified: shop, index and lake hold the same rows")
	return nil
}

// settle waits until every record of the topics is applied, and has the log flushed and optimized.
func (d *demoRun) settle(ctx context.Context) error {
	for _, t := range d.shop.tables {
		ends, err := topicEnds(ctx, d.server.cfg.Sources[0].Kafka.Brokers[0], shopTopic+t.name)
		if err != nil {
			return err
		}
		for p, end := range ends {
			id := changelog.StreamID{Source: "demo", Topic: shopTopic + t.name, Partition: p}
			if end > 0 {
				if err := d.server.store.WaitPosition(ctx, id, end-1); err != nil {
					return fmt.Errorf("wait for %s up to offset %d: %w", id, end-1, err)
				}
			}
		}
	}
	for _, t := range d.server.registry.Tables() {
		if err := d.server.flushers.FlushNow(ctx, t.ID); err != nil {
			return fmt.Errorf("flush %s: %w", t.Name, err)
		}
		if _, err := optimize(ctx, d.server.optimizer, t.Name, "", false); err != nil {
			return fmt.Errorf("optimize %s: %w", t.Name, err)
		}
	}
	return nil
}

// checkShop holds the index of a table against what the shop's changes come to.
func (d *demoRun) checkShop(ctx context.Context, i int, t *shopTable) (bool, error) {
	want := make([]string, 0, 1024)
	for _, row := range d.shop.rows(i, d.producer.next) {
		want = append(want, row)
	}
	slices.Sort(want)
	var lines []string
	err := d.server.api.DumpIndex(ctx, "shop."+t.name, nil, func(changelog.SeqNum) {}, func(line []byte) error {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\n"))))
		return nil
	})
	if err != nil {
		return false, err
	}
	slices.Sort(lines)
	same := slices.Equal(lines, want)
	word := "ok  "
	if !same {
		word = "DIFF"
	}
	fmt.Fprintf(d.out, "%s  shop.%s: %d rows of the shop, %d in the index\n", word, t.name, len(want), len(lines))
	return same, nil
}
