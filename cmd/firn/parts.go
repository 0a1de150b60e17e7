package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"firn/changelog/table"
	"firn/logstore"
	"firn/state"
)

// parts are the opened data directory and lake of a configuration.
type parts struct {
	cfg      *Config
	log      *slog.Logger
	db       *logstore.DB
	registry *state.Registry
	store    *logstore.Store
	catalog  *table.Catalog
}

// openParts opens the data directory, which must not be in use, and the lake of a configuration, for a verb.
func openParts(ctx context.Context, cfg *Config) (*parts, error) {
	p := &parts{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	o := logstore.Options{MemoryBytes: int64(cfg.Limits.Memory) / 4, TrimInterval: -1, MinFreeBytes: -1}
	if err := p.open(ctx, o); err != nil {
		return nil, &exitError{exitOpen, cfg.hidden(errors.Join(err, p.close()))}
	}
	return p, nil
}

// open opens all, or what it can before an error: close ends that.
func (p *parts) open(ctx context.Context, o logstore.Options) (err error) {
	begin := time.Now()
	if p.db, err = openData(p.cfg.Data, o); err != nil {
		return err
	}
	if p.registry, err = state.OpenRegistry(p.db.DB); err != nil {
		return fmt.Errorf("data directory %s: %w", p.cfg.Data, err)
	}
	if p.store, err = logstore.Open(p.db, p.registry, o); err != nil {
		return fmt.Errorf("data directory %s: %w", p.cfg.Data, err)
	}
	p.log.InfoContext(ctx, "data directory is open", "dir", p.cfg.Data, "took", time.Since(begin))
	p.catalog, err = openCatalog(ctx, p.cfg.Catalog, p.log)
	return err
}

// close ends what open opened, in the order in which the parts need each other. It may be repeated.
func (p *parts) close() error {
	var errs []error
	defer func() { p.store, p.db, p.catalog = nil, nil, nil }()
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	if p.db != nil {
		errs = append(errs, p.db.Close())
	}
	if p.catalog != nil {
		errs = append(errs, p.catalog.Close())
	}
	return errors.Join(errs...)
}
