package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"firn/changelog"
	"firn/changelog/merge"
	"firn/changelog/rowjson"
	"firn/changelog/table"
	"firn/ingest"
	"firn/logstore"
	"firn/state"
)

// This file fits the tables of parked records into the server: ingest/docs/0002-parked-table.md.

// parkedTable returns the settings of the tables of parked records for the log.
func (c *Config) parkedTable() logstore.ParkedTable {
	return logstore.ParkedTable{
		Name:   c.Parked.Table,
		Target: ingest.TableName, // of records from before the log kept it
		KeyText: func(s *changelog.Schema, key changelog.Key) string {
			text, err := rowjson.AppendKeyObject(nil, s, key)
			if err != nil {
				return "" // it was written by another schema of the key
			}
			return string(text)
		},
		Rule: ingest.Rule,
	}
}

// parkedTableOf returns the name of the table of parked records for a table; empty: there is none.
func (c *Config) parkedTableOf(name string) string {
	t := c.parkedTable()
	return t.ParkedTableName(name)
}

// checkParkedTable refuses a name that another table has, and gives rows to what was parked without.
func (s *server) checkParkedTable(ctx context.Context) error {
	for _, t := range s.registry.Tables() {
		if s.cfg.parkedTableOf(t.Name) == t.Name && !logstore.IsParkedTable(t) {
			return fmt.Errorf("parked.table: %s is a table of your own: give the tables of parked records another name, or none (parked: {table: ''})", t.Name)
		}
	}
	n, err := s.store.BackfillParked(ctx)
	if n > 0 {
		s.log.InfoContext(ctx, "parked records have rows now that had none", "records", n)
	}
	if errors.Is(err, logstore.ErrFull) {
		s.log.WarnContext(ctx, "parked records are without rows until there is space and firn is started again", "err", err)
		return nil
	}
	return err
}

// holdsParked reports whether a table of the lake is one of parked records of the configured sources. Error: it is, of others, too.
func (s *server) holdsParked(ctx context.Context, t *table.Table) (bool, error) {
	if s.cfg.parkedTableOf(t.Name()) != t.Name() || t.Base().Properties()[logstore.PropParked] != "true" {
		return false, nil
	}
	lake, _, err := reader(ctx, t, nil, 0, "")
	if err != nil {
		return false, err
	}
	known, others := false, ""
	for row, err := range lake.Rows(ctx) {
		if err != nil {
			return false, err
		}
		source, err := sourceOf(t, row)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(s.cfg.Sources, func(c SourceConfig) bool { return c.Name == source }) {
			known = true
		} else {
			others = source
		}
	}
	if known && others != "" {
		return false, fmt.Errorf("it has parked records of source %q, which is not configured: configure it, or, if it is another firn's, let this one's parked.table be another name", others)
	}
	return known, nil
}

// sourceOf returns the source of a parked record: the first column of the key.
func sourceOf(t *table.Table, row merge.Row) (string, error) {
	values, err := t.Schemas().Current().KeyValues(row.Key)
	if err != nil {
		return "", err
	}
	return string(values[0].B), nil
}

// restoreParked brings back the parked records of a restored table of them.
func (s *server) restoreParked(ctx context.Context, entry *state.Table) error {
	if !logstore.IsParkedTable(entry) {
		return nil
	}
	n, err := s.store.RestoreParked(ctx, entry.ID)
	if err == nil {
		s.log.InfoContext(ctx, "restored parked records from the lake", "table", entry.Name, "records", n)
	}
	return err
}

// parkedLast moves the tables of parked records behind those that they are for.
func (c *Config) parkedLast(names []string) {
	slices.SortStableFunc(names, func(a, b string) int {
		switch last := c.parkedTableOf(a) == a; {
		case last == (c.parkedTableOf(b) == b):
			return strings.Compare(a, b)
		case last:
			return 1
		}
		return -1
	})
}
