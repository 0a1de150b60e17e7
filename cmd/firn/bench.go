package main

import "github.com/spf13/cobra"

func newBenchCmd(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measured runs: ingest, lookup",
		Long:  "Bench runs bounded loads on this machine and prints medians, percentiles, CPU seconds and memory. Only ratios of runs\nbeside each other say something.",
	}
	cmd.AddCommand(newBenchIngestCmd(e), newBenchLookupCmd(e))
	return cmd
}
