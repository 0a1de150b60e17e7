package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"firn/changelog"
)

// benchIngestFlags are the settings of `bench ingest`.
type benchIngestFlags struct {
	kafka, topic, dir string
	rate              int
	latencyFor, limit time.Duration
	memory            Size
	flush, json       bool
}

func newBenchIngestCmd(e *env) *cobra.Command {
	f := benchIngestFlags{memory: 384 << 20}
	cmd := &cobra.Command{
		Use:   "ingest --kafka HOST:PORT --topic TOPIC",
		Short: "Ingest a filled topic into log and index as fast as can be, then measure produce to readable at a fixed rate",
		Long: `Bench ingest runs a whole server in this process on a topic that is filled already (deploy/peers/load/fill) and measures
from its first applied record to the last: changes a second, CPU seconds of the process, peak resident memory. Then, with --rate,
it produces events of its own at that rate for --latency-for and measures from the produce call to the row being readable.
--flush writes and optimizes the Iceberg table at the same time, as serve does; without it log and index are measured alone.`,
		Example: "  firn bench ingest --kafka 127.0.0.1:9092 --topic bench.public.events --rate 25000 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.kafka == "" || f.topic == "" {
				return errors.New("bench ingest: --kafka and --topic are needed")
			}
			if f.rate < 0 || f.latencyFor <= 0 || f.limit <= 0 {
				return usageError("bench ingest: --rate must not be negative, --latency-for and --limit must be positive")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), f.limit)
			defer cancel()
			r, err := benchIngest(ctx, f)
			if err != nil {
				return &exitError{exitOpen, fmt.Errorf("bench ingest: %w", err)}
			}
			if f.json {
				return json.NewEncoder(e.Stdout).Encode(r)
			}
			for _, k := range r.keys {
				fmt.Fprintf(e.Stdout, "%-26s %s\n", k, strconv.FormatFloat(r.values[k], 'f', -1, 64))
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.kafka, "kafka", "", "broker, host:port")
	flags.StringVar(&f.topic, "topic", "", "topic that is filled already")
	flags.StringVar(&f.dir, "dir", "", "where to put data; empty: a temporary directory that is removed")
	flags.IntVar(&f.rate, "rate", 0, "events a second to produce for the latency figures; 0: none")
	flags.DurationVar(&f.latencyFor, "latency-for", 20*time.Second, "how long to produce")
	flags.DurationVar(&f.limit, "limit", 10*time.Minute, "give up after this time")
	flags.Var(sizeFlag{&f.memory}, "memory", "limits.memory of the server")
	flags.BoolVar(&f.flush, "flush", false, "write and optimize the Iceberg table, too")
	flags.BoolVar(&f.json, "json", false, "one JSON object")
	return cmd
}

// sizeFlag reads a Size from the command line.
type sizeFlag struct{ *Size }

func (f sizeFlag) Set(text string) error { return f.UnmarshalText([]byte(text)) }
func (sizeFlag) Type() string            { return "size" }

// figures is a report: names in order, with their values.
type figures struct {
	keys   []string
	values map[string]float64
}

func (r *figures) add(name string, v float64) {
	if r.values == nil {
		r.values = map[string]float64{}
	}
	r.keys = append(r.keys, name)
	r.values[name] = v
}

// MarshalJSON writes one flat object.
func (r *figures) MarshalJSON() ([]byte, error) { return json.Marshal(r.values) }

func benchIngest(ctx context.Context, f benchIngestFlags) (_ *figures, err error) {
	if f.dir == "" {
		if f.dir, err = os.MkdirTemp("", "firn-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
	}
	ends, err := topicEnds(ctx, f.kafka, f.topic)
	if err != nil {
		return nil, err
	}
	s, err := openServer(ctx, f.config(), slog.New(slog.DiscardHandler), new(slog.LevelVar))
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.run(run) }()
	r := &figures{}
	err = f.measure(ctx, s, ends, r, done)
	stop()
	return r, errors.Join(err, <-done, s.close())
}

func (f benchIngestFlags) config() *Config {
	cfg := defaultConfig()
	cfg.Data = filepath.Join(f.dir, "data")
	cfg.Listen = ListenConfig{Data: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	cfg.Catalog.URI, cfg.Catalog.Warehouse = filepath.Join(f.dir, "catalog.db"), "file:"+filepath.Join(f.dir, "lake")
	cfg.Limits.Memory = f.memory
	if !f.flush {
		cfg.Tables.Defaults.Flush = FlushConfig{Interval: 24 * time.Hour, Bytes: 1 << 50}
	}
	src := defaultSource()
	src.Name, src.Topics = "bench", []string{regexp.QuoteMeta(f.topic)}
	kafka := defaultKafka()
	kafka.Brokers, kafka.Group = []string{f.kafka}, fmt.Sprintf("firn-bench-%d", time.Now().UnixNano())
	src.Kafka = &kafka
	cfg.Sources = []SourceConfig{src}
	return cfg
}

func topicEnds(ctx context.Context, broker, topic string) (map[int32]int64, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { err, ends[o.Partition] = errors.Join(err, o.Err), o.Offset })
	return ends, err
}

// measure waits until the server has applied the topic up to ends, and fills in the figures.
func (f benchIngestFlags) measure(ctx context.Context, s *server, ends map[int32]int64, r *figures, done <-chan error) error {
	stream := func(p int32) changelog.StreamID {
		return changelog.StreamID{Source: "bench", Topic: f.topic, Partition: p}
	}
	first := make(chan struct{}, len(ends)) // some partition's first record is applied: the clock starts
	errs := make(chan error, 2*len(ends))
	for p, end := range ends {
		if end == 0 {
			errs <- nil
			continue
		}
		go func() {
			if s.store.WaitPosition(ctx, stream(p), 0) == nil {
				first <- struct{}{}
			}
		}()
		go func() { errs <- s.store.WaitPosition(ctx, stream(p), end-1) }()
	}
	select {
	case <-first:
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	start, cpu := time.Now(), cpuSeconds()
	for range ends {
		if err := <-errs; err != nil {
			return err
		}
	}
	seconds, used := time.Since(start).Seconds(), cpuSeconds()-cpu
	var changes float64
	for _, t := range s.registry.Tables() {
		_, applied, err := s.store.Bounds(t.ID)
		if err != nil {
			return err
		}
		changes += float64(applied)
	}
	r.add("changes", changes)
	r.add("seconds", seconds)
	r.add("changes_per_second", changes/seconds)
	r.add("cpu_seconds", used)
	r.add("changes_per_cpu_second", changes/used)
	r.add("peak_rss_mib", peakRSS())
	if f.rate == 0 {
		return nil
	}
	return f.latency(ctx, s, stream, r)
}

// latency produces at a fixed rate and measures, for one event in fifty, how long it takes until it can be read.
func (f benchIngestFlags) latency(ctx context.Context, s *server, stream func(int32) changelog.StreamID, r *figures) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(f.kafka), kgo.ProducerLinger(0), kgo.DefaultProduceTopic(f.topic))
	if err != nil {
		return err
	}
	defer client.Close()
	var mu sync.Mutex
	var samples []float64
	var waits sync.WaitGroup
	cpu, start := cpuSeconds(), time.Now()
	sent := 0
	for end := start.Add(f.latencyFor); time.Now().Before(end) && ctx.Err() == nil; {
		for due := int(time.Since(start).Seconds() * float64(f.rate)); sent < due; sent++ {
			at, sample := time.Now(), sent%50 == 0
			if sample {
				waits.Add(1)
			}
			client.Produce(ctx, benchRecord(sent, at), func(k *kgo.Record, err error) {
				if !sample {
					return
				}
				go func() {
					defer waits.Done()
					if err != nil || s.store.WaitPosition(ctx, stream(k.Partition), k.Offset) != nil {
						return
					}
					took := time.Since(at).Seconds() * 1000
					mu.Lock()
					samples = append(samples, took)
					mu.Unlock()
				}()
			})
		}
		time.Sleep(time.Millisecond)
	}
	waits.Wait()
	if len(samples) == 0 {
		return errors.New("no event was measured")
	}
	slices.Sort(samples)
	r.add("latency_rate", float64(sent)/f.latencyFor.Seconds())
	r.add("latency_samples", float64(len(samples)))
	r.add("latency_p50_ms", samples[len(samples)/2])
	r.add("latency_p99_ms", samples[len(samples)*99/100])
	r.add("latency_max_ms", samples[len(samples)-1])
	r.add("latency_cpu_share", (cpuSeconds()-cpu)/time.Since(start).Seconds())
	return nil
}

// benchRecord is an update of one of 100,000 rows, of the shape that deploy/peers/load/fill writes.
func benchRecord(n int, at time.Time) *kgo.Record {
	id := n*7919%100_000 + 1
	value := fmt.Sprintf(`{"before":null,"after":{"id":%d,"customer_id":%d,"status":"sent","amount":"%d.50","quantity":%d,"city":"Narvik","note":"%s",`+
		`"placed_at":%d,"updated_at":"2026-01-01T00:00:00.%06dZ"},"source":{"version":"3.6.3.Final","connector":"postgresql","name":"bench","ts_ms":%d,`+
		`"snapshot":"false","db":"bench","schema":"public","table":"events","txId":%d,"lsn":%d,"xmin":null},"op":"u","ts_ms":%d,"transaction":null}`,
		id, id%5000, n%1000, n%9+1, strings.Repeat("x", 60), at.UnixMicro(), n%1_000_000, at.UnixMilli(), n, int64(1)<<40+int64(n), at.UnixMilli())
	return &kgo.Record{Key: fmt.Appendf(nil, `{"id":%d}`, id), Value: []byte(value)}
}

// cpuSeconds returns the user and system time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// peakRSS returns the highest resident memory of this process, MiB.
func peakRSS() float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024
		}
	}
	return 0
}
