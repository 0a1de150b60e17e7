package optimizer

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
)

// spreader writes rows into the files of a node, or of several nodes below it, each row into the one of its key.
type spreader struct {
	node    mixed.TreeNode
	nodes   int
	types   []*changelog.Type // of the key
	rows    *datafile.Rows
	parts   [][]int32  // by child, the rows of a batch
	writers []*rolling // by child; nil: no row yet
	make    func(mixed.TreeNode) *rolling
	options datafile.Options
}

// newSpreader makes a writer of a Rewrite task's rows. It sets out's row groups.
func newSpreader(l *lake, task Task, txn int64, out *outputs) *spreader {
	nodes := max(1, task.Spread)
	out.options = forNodes(out.options, nodes)
	return &spreader{
		node: task.Node, nodes: nodes, types: l.schema.KeyTypes(), rows: datafile.NewRows(l.schema),
		parts: make([][]int32, nodes), writers: make([]*rolling, nodes),
		make:    func(n mixed.TreeNode) *rolling { return out.rolling(task.Partition, n, txn) },
		options: out.options,
	}
}

// Row groups of several nodes take together what openGroups of one would, but none is smaller than leastGroup.
const (
	openGroups = 4
	leastGroup = 1 << 20
)

// forNodes returns options of files of so many nodes, which are written at the same time.
func forNodes(o datafile.Options, nodes int) datafile.Options {
	if nodes <= openGroups {
		return o
	}
	o.RowGroupBytes = max(min(o.RowGroupBytes, leastGroup), o.RowGroupBytes*openGroups/int64(nodes))
	o.BatchBytes = max(min(o.BatchBytes, leastGroup), o.BatchBytes*openGroups/int64(nodes))
	return o
}

func (s *spreader) write(ctx context.Context, batch arrow.RecordBatch) error {
	if s.nodes == 1 {
		_, _, err := s.to(0).write(batch)
		return err
	}
	if err := s.rows.Reset(batch); err != nil {
		return fmt.Errorf("node of a key: %w", err)
	}
	for i := range s.parts {
		s.parts[i] = s.parts[i][:0]
	}
	for i := range s.rows.Len() {
		c := s.child(mixed.KeyHash(s.types, s.rows.Key(i)))
		s.parts[c] = append(s.parts[c], int32(i)) //nolint:gosec // a batch is small
	}
	for c, part := range s.parts {
		if len(part) == 0 {
			continue
		}
		rows, release, err := take(ctx, s.options, batch, part)
		if err != nil {
			return err
		}
		_, _, err = s.to(c).write(rows)
		release()
		if err != nil {
			return err
		}
	}
	return nil
}

// child returns which of the nodes has a hash: the bits above those of the node itself tell.
func (s *spreader) child(hash int32) int {
	return int(int64(hash)/(s.node.Mask+1)) & (s.nodes - 1)
}

func (s *spreader) to(child int) *rolling {
	if s.writers[child] == nil {
		width := s.node.Mask + 1
		s.writers[child] = s.make(mixed.TreeNode{Mask: width*int64(s.nodes) - 1, Index: s.node.Index + int64(child)*width})
	}
	return s.writers[child]
}

func (s *spreader) finish() error {
	for _, w := range s.writers {
		if w != nil {
			if err := w.finish(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *spreader) abort() {
	for _, w := range s.writers {
		if w != nil {
			w.abort()
		}
	}
}
