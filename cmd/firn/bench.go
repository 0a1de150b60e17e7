package main

import "github.com/spf13/cobra"

func newBenchCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measured runs: ingest, lookup",
		Example: `  firn bench lookup
  firn bench ingest --kafka 127.0.0.1:9092 --topic bench.public.events`,
		Long: "Bench runs bounded loads on this machine and prints medians, percentiles, CPU seconds and memory. Only ratios of runs\nbeside each other say something.",
	}
	cmd.AddCommand(newBenchIngestCmd(e), newBenchLookupCmd(e))
	return cmd
}
