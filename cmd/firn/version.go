package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
)

// release is the version of this source tree; a build from a git checkout adds its revision.
const release = "0.1.0-dev"

func newVersionCmd(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of firn and of what it is built with",
		Example: "  firn version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"firn": release, "go": runtime.Version()}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v["revision"] = s.Value
					}
				}
				for _, m := range info.Deps {
					switch m.Path {
					case "github.com/cockroachdb/pebble/v2", "github.com/apache/iceberg-go", "github.com/apache/arrow-go/v18", "github.com/twmb/franz-go":
						v[m.Path] = m.Version
					}
				}
			}
			if asJSON {
				return json.NewEncoder(e.Stdout).Encode(v)
			}
			for _, k := range sortedKeys(v) {
				fmt.Fprintf(e.Stdout, "%-34s %s\n", k, v[k])
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object")
	return cmd
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
