package merge

import (
	"cmp"
	"maps"
	"slices"

	"firn/changelog/mixed"
)

// task is the files of one tree node of one partition, and the delete files that may concern its rows.
type task struct {
	data      []dataFile // base files, then inserts
	deletes   []File     // ED files of related nodes
	positions []File     // PD files of the partition
}

// dataFile is a file of rows with what its rows' LSNs are made of.
type dataFile struct {
	File
	base bool // the offset of its rows is infinite
}

// rows returns how many delete rows the task has to hold.
func (t *task) rows() int64 {
	n := int64(0)
	for _, f := range t.deletes {
		n += f.Records
	}
	return n
}

type place struct {
	partition string
	node      mixed.TreeNode
}

// plan splits a snapshot into tasks, ordered by partition and node: spec/mixed-format.md 6.1. A node that has only
// delete files makes none.
func plan(s *Snapshot) []task {
	optimized := make(map[string]int64, len(s.Optimized))
	for path, seq := range s.Optimized {
		optimized[mixed.NormalizePath(path)] = seq
	}
	data := map[place][]dataFile{}
	deletes := map[string][]File{} // by partition
	for _, f := range distinct(s.Base) {
		p := place{f.Partition, f.Info.Node}
		data[p] = append(data[p], dataFile{f, true})
	}
	for _, f := range distinct(s.Change) {
		if seq, ok := optimized[mixed.NormalizePath(f.Partition)]; ok && f.Sequence <= seq {
			continue // the base store has its rows
		}
		p := place{f.Partition, f.Info.Node}
		switch f.Info.Type {
		case mixed.Insert:
			data[p] = append(data[p], dataFile{f, false})
		case mixed.Base: // no writer puts one there; Amoro reads it so
			data[p] = append(data[p], dataFile{f, true})
		case mixed.Delete:
			deletes[f.Partition] = append(deletes[f.Partition], f)
		case mixed.PositionDelete, mixed.IcebergEqDelete, mixed.Log:
		}
	}
	positions := map[string][]File{}
	for _, f := range distinct(s.Deletes) {
		positions[f.Partition] = append(positions[f.Partition], f)
	}
	places := slices.SortedFunc(maps.Keys(data), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.node.ID(), b.node.ID()))
	})
	tasks := make([]task, 0, len(places))
	for _, p := range places {
		t := task{data: data[p]}
		for _, f := range deletes[p.partition] {
			if f.Info.Node.Related(p.node) {
				t.deletes = append(t.deletes, f)
			}
		}
		for _, f := range positions[p.partition] {
			if p.node.IsSonOf(f.Info.Node) { // data.node isSonOf delete.node
				t.positions = append(t.positions, f)
			}
		}
		slices.SortStableFunc(t.data, func(a, b dataFile) int {
			if a.base != b.base {
				if a.base {
					return -1
				}
				return 1
			}
			return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Path, b.Path))
		})
		tasks = append(tasks, t)
	}
	return tasks
}

// distinct drops repeated paths.
func distinct(files []File) []File {
	seen := make(map[string]bool, len(files))
	out := make([]File, 0, len(files))
	for _, f := range files {
		if !seen[f.Path] {
			seen[f.Path] = true
			out = append(out, f)
		}
	}
	return out
}
