package main

import (
	"context"
	"fmt"
	"iter"
	"math"

	"github.com/spf13/cobra"

	"firn/ingest"
	"firn/ingest/file"
	"firn/ingest/kafka"
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
				return usageError("replay: --to must name a broker")
			}
			if partitions < 0 || partitions > math.MaxInt32 {
				return usageError("replay: --partitions %d is no number of partitions (0: as recorded)", partitions)
			}
			n, err := replay(cmd.Context(), args[0], to, int32(partitions)) //nolint:gosec // checked above
			if err != nil {
				return &exitError{exitOpen, fmt.Errorf("%s: %w", args[0], err)}
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
	records := file.Records(ctx, path)
	if partitions > 0 {
		for topic := range topics {
			topics[topic] = partitions
		}
		records = placed(records, file.NewPartitioner(partitions))
	}
	return kafka.Replay(ctx, kafka.Target{Brokers: []string{broker}}, topics, records)
}

// placed gives records the partitions that p chooses.
func placed(records iter.Seq2[ingest.Record, error], p *file.Partitioner) iter.Seq2[ingest.Record, error] {
	return func(yield func(ingest.Record, error) bool) {
		for r, err := range records {
			if err == nil {
				p.Place(&r)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}
