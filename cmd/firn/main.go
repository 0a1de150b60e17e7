// Command firn takes database changes from Kafka into a log that serves feeds and lookups, and into Iceberg tables that
// any engine reads. See README.md, and firn help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit statuses of every verb.
const (
	exitNo    = 1 // the answer is no: a difference, a missing row
	exitUsage = 2
	exitOpen  = 3 // cannot reach or open
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills the process
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is main without the process: it runs one command line and returns the exit status.
func run(ctx context.Context, args []string) int {
	root := newRootCmd(&env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "firn:", exit.err)
		}
		return exit.code
	}
	fmt.Fprintln(os.Stderr, "firn:", err)
	return exitUsage
}

// exitError ends the program with a status of its own. A nil err says nothing more: the verb has printed its answer.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func newRootCmd(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "firn",
		Short: "Database changes into a lakehouse: readable at once, cheap to query for ever",
		Long: `firn consumes Debezium change streams, makes them durable in a log that serves change feeds and key lookups over
HTTP, writes them as Mixed-Iceberg tables and keeps those tables fast.

Exit status: 0 done; 1 the answer is no (a difference, a missing row); 2 usage; 3 cannot reach or open.`,
		Example: `  firn demo --for 60s
  firn serve -c firn.yaml
  firn get shop.orders 42`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newDemoCmd(e), newServeCmd(e),
		newGetCmd(e), newTailCmd(e), newTableCmd(e), newDumpCmd(e), newVerifyCmd(e), newOptimizeCmd(e),
		newParkedCmd(e), newSourceCmd(e), newReplayCmd(e), newBenchCmd(e), newConfigCmd(e), newVersionCmd(e),
	)
	root.SetHelpCommand(newHelpCmd())
	root.SetFlagErrorFunc(flagError)
	root.InitDefaultCompletionCmd()
	groupVerbs(root)
	return root
}

// groupVerbs has each command that only holds others say so about a verb that it does not hold.
func groupVerbs(cmd *cobra.Command) {
	if cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion" {
		cmd.Example = "  source <(firn completion bash)"
	}
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(cmd, args[0])
		}
		return cmd.Help()
	}
	for _, c := range cmd.Commands() {
		groupVerbs(c)
	}
}

func unknownVerb(cmd *cobra.Command, verb string) error {
	var verbs []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			verbs = append(verbs, c.Name())
		}
	}
	meant := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(verb); len(near) > 0 {
		meant = ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageError("%s has no verb %q%s (there are %s)", cmd.CommandPath(), verb, meant, strings.Join(verbs, ", "))
}

// flagError is an error of flags. Those of a verb that is not there are not what is wrong.
func flagError(cmd *cobra.Command, err error) error {
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 {
		return unknownVerb(cmd, cmd.Flags().Arg(0))
	}
	return usageError("%s: %w (%s -h lists the flags)", strings.TrimPrefix(cmd.CommandPath(), "firn "), err, cmd.CommandPath())
}

func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "help [VERB]",
		Short:   "Show what a verb does, with its flags and an example",
		Example: "  firn help table files",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return usageError("help: %w", err)
			}
			if len(rest) > 0 && of.HasSubCommands() {
				return unknownVerb(of, rest[0])
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}
