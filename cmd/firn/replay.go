package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"firn/ingest/file"
)

func newReplayCmd(e *env) *cobra.Command {
	var to string
	var partitions int
	cmd := &cobra.Command{
		Use:   "replay FILE --to HOST:PORT",
		Short: "Produce a recorded topic file to a Kafka broker, order kept within a partition",
		Long: `Replay produces the records of a recording (one JSON object a line; gzip by name) to a Kafka broker, keys, values, headers
and timestamps as recorded. Topics that are missing are made, without a time of retention: recorded timestamps are old. Order within a partition is kept; with --partitions N, order
within a key: each record goes to the partition that Kafka's own producer would choose among N.`,
		Example: "  firn replay shop.jsonl.gz --to 127.0.0.1:9092 --partitions 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return errors.New("replay: --to must name a broker")
			}
			n, err := replay(cmd.Context(), args[0], to, int32(partitions)) //nolint:gosec // validated by the broker
			if err != nil {
				return &exitError{exitOpen, fmt.Errorf("replay %s: %w", args[0], err)}
			}
			fmt.Fprintf(e.Stdout, "%d records\n", n)
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "broker to produce to, host:port")
	cmd.Flags().IntVar(&partitions, "partitions", 0, "partitions of each topic, chosen by key (0: as recorded)")
	return cmd
}

// replay produces a recording and returns how many records the broker has taken.
func replay(ctx context.Context, path, broker string, partitions int32) (int64, error) {
	topics, err := file.Partitions(ctx, path)
	if err != nil {
		return 0, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(20))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	place := file.NewPartitioner(partitions)
	forever := "-1" // else the broker deletes at once what was recorded longer ago than its retention
	for topic, recorded := range topics {
		if partitions > 0 {
			recorded = partitions
		}
		made, err := kadm.NewClient(client).CreateTopic(ctx, recorded, -1, map[string]*string{"retention.ms": &forever}, topic)
		if err == nil {
			err = made.Err
		}
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return 0, fmt.Errorf("create topic %s: %w", topic, err)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var taken atomic.Int64
	for r, err := range file.Records(ctx, path) {
		if err != nil {
			return taken.Load(), errors.Join(err, context.Cause(ctx))
		}
		if partitions > 0 {
			place.Place(&r)
		}
		k := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		client.Produce(ctx, k, func(_ *kgo.Record, err error) {
			if err != nil {
				cancel(fmt.Errorf("produce: %w", err))
				return
			}
			taken.Add(1)
		})
	}
	if err := client.Flush(ctx); err != nil {
		return taken.Load(), errors.Join(err, context.Cause(ctx))
	}
	return taken.Load(), context.Cause(ctx)
}
