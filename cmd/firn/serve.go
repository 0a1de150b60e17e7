package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func newServeCmd(e *env) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve -c FILE",
		Short: "Run the server",
		Long: `Serve reads the sources of the configuration, keeps their changes in the log, serves lookups and feeds on the data
listener, and writes and optimizes the Iceberg tables. SIGTERM drains: sources stop, commits under way finish, exit status 0.
SIGHUP reads the configuration again, as POST /v1/config:reload on the admin listener does.`,
		Example: "  firn serve -c firn.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(file)
			if err != nil {
				return &exitError{exitOpen, err}
			}
			if err := serve(cmd.Context(), cfg, e.Stderr); err != nil {
				return cfg.hidden(&exitError{exitOpen, err})
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is above
	}
	return cmd
}

func serve(ctx context.Context, cfg *Config, logw io.Writer) (err error) {
	level := new(slog.LevelVar)
	level.Set(cfg.Log.level())
	log := cfg.newLogger(level, logw)
	s, err := openServer(ctx, cfg, log, level)
	if err != nil {
		return err
	}
	log.Info("serving", "data", s.data.Addr().String(), "admin", s.admin.Addr().String(), "version", release)
	stop := s.onHangup(ctx)
	err = s.run(ctx)
	stop()
	if cerr := s.close(); err == nil {
		err = cerr
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// newLogger returns firn's own log, without the secrets of the configuration.
func (c *Config) newLogger(level slog.Leveler, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: c.hideAttr()}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// onHangup reloads the configuration at SIGHUP until the returned function is called.
func (s *server) onHangup(ctx context.Context) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hup {
			applied, left, err := reload(s.cfg, s.level)
			if err != nil {
				s.log.ErrorContext(ctx, "configuration not reloaded", "err", err)
				continue
			}
			s.log.InfoContext(ctx, "configuration reloaded", "applied", applied, "needs_restart", left)
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
		<-done
	}
}
