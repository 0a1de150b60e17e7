package optimizer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"firn/changelog/mixed"
)

// Type is the kind of an optimizing round. Amoro's names.
type Type uint8

// The types.
const (
	Minor Type = 1 // change files to base files and position deletes
	Major Type = 2 // small and dirty base files to larger clean ones; position-delete files put together
	Full  Type = 3 // all base files of a partition rewritten
)

// String returns minor, major or full.
func (t Type) String() string {
	switch t {
	case Minor:
		return "minor"
	case Major:
		return "major"
	case Full:
		return "full"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ParseType returns the type called s.
func ParseType(s string) (Type, error) {
	for _, t := range []Type{Minor, Major, Full} {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("optimizing type %q: not minor, major or full", s)
}

// DataFile is a live data file of the base store.
type DataFile struct {
	Path        string
	Partition   string // normalized path; "" if the table has no partitions
	Node        mixed.TreeNode
	Txn         int64
	Bytes, Rows int64
	Deleted     int64 // rows that position deletes name
}

// liveBytes is what the file would have without its deleted rows, about.
func (f DataFile) liveBytes() int64 {
	if f.Rows <= 0 {
		return f.Bytes
	}
	return int64(float64(f.Bytes) * float64(f.Rows-f.Deleted) / float64(f.Rows))
}

// DeleteFile is a live position-delete file of the base store.
type DeleteFile struct {
	Path        string
	Partition   string
	Node        mixed.TreeNode
	Bytes, Rows int64
	Live        int64 // rows that name a live data file
}

// ChangeFile is a live file of the change store.
type ChangeFile struct {
	Path        string
	Partition   string
	Type        mixed.FileType // Insert or Delete
	Txn         int64
	Sequence    int64 // data sequence number: the commit
	Bytes, Rows int64
}

func (f ChangeFile) isInsert() bool { return f.Type == mixed.Insert }

// View is what a table's metadata say, and when it was last optimized: all that Plan knows.
type View struct {
	Base      []DataFile
	Deletes   []DeleteFile
	Change    []ChangeFile
	Optimized map[string]int64 // optimized sequence of each partition that has one, by normalized path
	LastMinor time.Time        // zero: never
	LastFull  time.Time
}

// Pending returns the change files that are not merged, ascending by sequence.
func (v View) Pending() []ChangeFile {
	var pending []ChangeFile
	for _, f := range v.Change {
		if s, ok := v.Optimized[f.Partition]; !ok || f.Sequence > s {
			pending = append(pending, f)
		}
	}
	slices.SortStableFunc(pending, func(a, b ChangeFile) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return pending
}

// Action is what a task does.
type Action uint8

// The actions.
const (
	Merge   Action = 1 // fold Changes into new base files and position deletes
	Rewrite Action = 2 // write the live rows of Data into new base files
	Collect Action = 3 // write the live rows of Deletes into one position-delete file
)

// String returns the action's name.
func (a Action) String() string {
	switch a {
	case Merge:
		return "merge"
	case Rewrite:
		return "rewrite"
	case Collect:
		return "collect"
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Task is one unit of work with a commit of its own. All Merge tasks of a plan share one commit.
type Task struct {
	Type      Type
	Action    Action
	Partition string
	Node      mixed.TreeNode // of the files to write; Merge picks nodes itself
	Spread    int            // Rewrite: rows go to so many nodes below Node, by their keys' hash; up to 1: to Node
	Reason    string

	Changes []ChangeFile // Merge: pending files up to a sequence, which is the partition's next optimized one
	Data    []DataFile   // Rewrite
	Deletes []DeleteFile // Collect
}

// Plan decides what is to be done with a table now: merges first, then rewrites, then collected deletes. It reads no
// clock and no disk. force plans that type although no trigger says so; other types are left out then. notes tell why
// something was not planned.
func Plan(v View, r Rules, now time.Time, force Type) (tasks []Task, notes []string) {
	if force == Minor || force == 0 {
		merges, note := planMinor(v, r, now, force == Minor)
		tasks = append(tasks, merges...)
		if note != "" {
			notes = append(notes, note)
		}
	}
	if force == Minor {
		return tasks, notes
	}
	full := force == Full || force == 0 && fullDue(v, r, now)
	for _, g := range groups(v, r) {
		if full {
			tasks = append(tasks, g.full(r)...)
			continue
		}
		tasks = append(tasks, g.rewrites(r)...)
		tasks = append(tasks, g.collects(r)...)
	}
	return tasks, notes
}

// fullDue reports whether the table's interval of full rounds is over.
func fullDue(v View, r Rules, now time.Time) bool {
	return r.FullInterval >= 0 && now.Sub(v.LastFull) > r.FullInterval
}

func planMinor(v View, r Rules, now time.Time, force bool) (tasks []Task, note string) {
	pending := v.Pending()
	if len(pending) == 0 {
		return nil, ""
	}
	var rows, bytes int64
	files, most := map[string]int{}, 0 // of each partition: a flush may write to many of them
	for _, f := range pending {
		rows, bytes = rows+f.Rows, bytes+f.Bytes
		files[f.Partition]++
		most = max(most, files[f.Partition])
	}
	var reason string
	switch age := now.Sub(v.LastMinor); {
	case most >= r.MinorFiles:
		reason = fmt.Sprintf("%d change files are pending (trigger %d)", most, r.MinorFiles)
	case rows >= r.MaxRows || bytes >= r.MaxBytes:
		reason = fmt.Sprintf("%d rows and %d bytes of changes are pending", rows, bytes)
	case v.LastMinor.IsZero():
		reason = fmt.Sprintf("%d change files are pending since before the start", len(pending))
	case age >= r.MinorInterval:
		reason = fmt.Sprintf("%d change files are pending, the last merge was %s ago (trigger %s)", len(pending), age, r.MinorInterval)
	case force:
		reason = fmt.Sprintf("%d change files are pending", len(pending))
	default:
		return nil, ""
	}
	taken := prefix(pending, r)
	if len(taken) == 0 {
		return nil, fmt.Sprintf("no merge: none of the first %d of %d pending change files ends where the transactions of the rest begin",
			r.MaxFiles, len(pending))
	}
	if len(taken) < len(pending) {
		reason += fmt.Sprintf("; the first %d of them are taken", len(taken))
	}
	byPartition := map[string][]ChangeFile{}
	for _, f := range taken {
		byPartition[f.Partition] = append(byPartition[f.Partition], f)
	}
	for _, p := range slices.Sorted(maps.Keys(byPartition)) {
		tasks = append(tasks, Task{Type: Minor, Action: Merge, Partition: p, Reason: reason, Changes: byPartition[p]})
	}
	return tasks, ""
}

// prefix returns the longest prefix of pending, by whole commits, that is within the bounds (but at least one commit)
// and after whose transactions all others come: what is merged must not be older than what is left.
func prefix(pending []ChangeFile, r Rules) []ChangeFile {
	end := 0
	var rows, bytes int64
	for end < len(pending) {
		next := end
		for next < len(pending) && pending[next].Sequence == pending[end].Sequence {
			rows, bytes = rows+pending[next].Rows, bytes+pending[next].Bytes
			next++
		}
		if end > 0 && (next > r.MaxFiles || rows > r.MaxRows || bytes > r.MaxBytes) {
			break
		}
		end = next
	}
	for end > 0 && end < len(pending) {
		high, low := pending[0].Txn, pending[end].Txn
		for _, f := range pending[:end] {
			high = max(high, f.Txn)
		}
		for _, f := range pending[end:] {
			low = min(low, f.Txn)
		}
		if high < low {
			break
		}
		for last := pending[end-1].Sequence; end > 0 && pending[end-1].Sequence == last; {
			end--
		}
	}
	return pending[:end]
}

// group is the base files of one partition that belong at one node (tree.home), which are rewritten among themselves, and the
// position-delete files of the node.
type group struct {
	partition string
	node      mixed.TreeNode
	tree      *tree
	fan       int // over so many nodes below node its rows should be
	data      []DataFile
	deletes   []DeleteFile
}

func groups(v View, r Rules) []*group {
	trees := map[string]*tree{}
	of := func(partition string) *tree {
		if trees[partition] == nil {
			trees[partition] = newTree(nil, partition, r)
		}
		return trees[partition]
	}
	for _, f := range v.Base {
		of(f.Partition).add(f)
	}
	type place struct {
		partition string
		node      int64
	}
	byPlace := map[place]*group{}
	at := func(partition string, node mixed.TreeNode) *group {
		p := place{partition, node.ID()}
		if byPlace[p] == nil {
			byPlace[p] = &group{partition: partition, node: node, tree: of(partition), fan: of(partition).fan(node, 0)}
		}
		return byPlace[p]
	}
	for _, f := range v.Base {
		g := at(f.Partition, of(f.Partition).home(f.Node))
		g.data = append(g.data, f)
	}
	for _, f := range v.Deletes {
		g := at(f.Partition, f.Node)
		g.deletes = append(g.deletes, f)
	}
	out := slices.Collect(maps.Values(byPlace))
	slices.SortFunc(out, func(a, b *group) int {
		return cmp.Or(strings.Compare(a.partition, b.partition), cmp.Compare(a.node.ID(), b.node.ID()))
	})
	for _, g := range out {
		slices.SortFunc(g.data, func(a, b DataFile) int {
			return cmp.Or(cmp.Compare(a.liveBytes(), b.liveBytes()), strings.Compare(a.Path, b.Path))
		})
		slices.SortFunc(g.deletes, func(a, b DeleteFile) int {
			return cmp.Or(cmp.Compare(a.Live, b.Live), strings.Compare(a.Path, b.Path))
		})
	}
	return out
}

func (g *group) rewrite(t Type, files []DataFile, reason string) Task {
	task := Task{Type: t, Action: Rewrite, Partition: g.partition, Node: g.node, Data: files, Reason: reason}
	if g.enough(files) {
		task.Spread = g.fan
	}
	return task
}

// enough reports whether files are enough to be spread over the nodes below the group's.
func (g *group) enough(files []DataFile) bool {
	var bytes int64
	for _, f := range files {
		bytes += f.liveBytes()
	}
	return g.fan > 1 && bytes >= g.tree.least(g.fan)
}

// full packs all files, or those that are small or have deletes, into tasks of about the target size.
func (g *group) full(r Rules) (tasks []Task) {
	var files []DataFile
	for _, f := range g.data {
		if !r.FullKeepClean || f.Deleted > 0 || f.Bytes <= r.minTarget() || g.misplaced(f) {
			files = append(files, f)
		}
	}
	for _, bin := range pack(files, g.tree.batch(g.fan)) {
		if len(bin) == 1 && bin[0].Deleted == 0 && bin[0].Node == g.node && !g.enough(bin) {
			continue // rewriting would give the same file again
		}
		tasks = append(tasks, g.rewrite(Full, bin, fmt.Sprintf("%d files in a full rewrite", len(bin))))
	}
	if len(g.deletes) > 0 && len(tasks) == 0 {
		tasks = append(tasks, g.collect(Full, g.deletes, "position deletes of no live file"))
	}
	return tasks
}

// misplaced reports whether a file is of another node than a fixed number of buckets asks for.
func (g *group) misplaced(f DataFile) bool {
	return g.tree.rules.Buckets > 0 && (f.Node != g.node || g.fan > 1)
}

// rewrites picks base files that are to be rewritten: those without a live row, misplaced ones, dirty ones, full tiers of
// small ones, and large ones of a node that is to be split.
func (g *group) rewrites(r Rules) (tasks []Task) {
	var dead, moved, dirty, large []DataFile
	tiers := map[int][]DataFile{}
	for _, f := range g.data {
		switch {
		case f.Deleted >= f.Rows && f.Rows > 0:
			dead = append(dead, f)
		case g.misplaced(f):
			moved = append(moved, f)
		case f.Bytes > r.fragment() && float64(f.Deleted) > r.DuplicateRatio*float64(f.Rows):
			dirty = append(dirty, f)
		case f.liveBytes() <= r.minTarget():
			t := r.tier(f.liveBytes())
			tiers[t] = append(tiers[t], f)
		case g.fan > 1:
			large = append(large, f)
		}
	}
	if len(dead) > 0 {
		tasks = append(tasks, g.rewrite(Major, dead, fmt.Sprintf("%d files have no live row", len(dead))))
	}
	for _, bin := range pack(moved, g.tree.batch(g.fan)) {
		tasks = append(tasks, g.rewrite(Major, bin, fmt.Sprintf("%d files are not at the nodes of %d buckets", len(bin), r.Buckets)))
	}
	for _, bin := range pack(dirty, r.TargetBytes) {
		tasks = append(tasks, g.rewrite(Major, bin, fmt.Sprintf("more than %g of the rows of %d files are deleted", r.DuplicateRatio, len(bin))))
	}
	for _, t := range slices.Backward(slices.Sorted(maps.Keys(tiers))) {
		small := tiers[t]
		if len(small) < r.FanIn {
			continue
		}
		for _, bin := range pack(small, r.TargetBytes) {
			if len(bin) > 1 {
				tasks = append(tasks, g.rewrite(Major, bin, fmt.Sprintf("%d of %d files of at most %d bytes (trigger %d)",
					len(bin), len(small), r.TargetBytes/pow(int64(r.FanIn), t), r.FanIn)))
			}
		}
	}
	return append(tasks, g.splits(large)...)
}

// splits spreads large files over the nodes below, as far as they are enough for it.
func (g *group) splits(large []DataFile) (tasks []Task) {
	for _, bin := range pack(large, g.tree.batch(g.fan)) {
		if g.enough(bin) {
			tasks = append(tasks, g.rewrite(Major, bin, fmt.Sprintf("%d files go to %d nodes: the keys of node %s have %d bytes (trigger %d)",
				len(bin), g.fan, g.node, g.tree.bytes(g.node), g.tree.capBytes())))
		}
	}
	return tasks
}

// maxTier: files smaller than TargetBytes/FanIn^maxTier are all alike.
const maxTier = 4

// tier is how many factors of FanIn the size is below the target.
func (r Rules) tier(bytes int64) int {
	t := 0
	for limit := r.TargetBytes / int64(r.FanIn); t < maxTier && bytes <= limit; limit /= int64(r.FanIn) {
		t++
	}
	return t
}

func pow(b int64, e int) int64 {
	p := int64(1)
	for range e {
		p *= b
	}
	return p
}

func (r Rules) fragment() int64  { return r.TargetBytes / r.FragmentRatio }
func (r Rules) minTarget() int64 { return int64(float64(r.TargetBytes) * r.MinTargetRatio) }

// pack puts files, ascending by live size, into bins of at most size live bytes, or of one file. Neighbours in size stay
// together, so that a row is not rewritten with much larger files.
func pack(files []DataFile, size int64) (bins [][]DataFile) {
	var sum int64
	for _, f := range files {
		if n := len(bins); n == 0 || sum+f.liveBytes() > size {
			bins, sum = append(bins, nil), 0
		}
		n := len(bins) - 1
		bins[n], sum = append(bins[n], f), sum+f.liveBytes()
	}
	return bins
}

func (g *group) collect(t Type, files []DeleteFile, reason string) Task {
	return Task{Type: t, Action: Collect, Partition: g.partition, Node: g.node, Deletes: files, Reason: reason}
}

// collects picks position-delete files to be put together: all that name no live file; and, when there are too many, the
// small ones: at least half of them, and on as long as the next is not larger than all before it. So a delete is
// rewritten a logarithmic number of times.
func (g *group) collects(r Rules) (tasks []Task) {
	var dead, live []DeleteFile
	for _, f := range g.deletes {
		if f.Live == 0 {
			dead = append(dead, f)
		} else {
			live = append(live, f)
		}
	}
	if len(live) < r.MaxDeletes {
		if len(dead) > 0 {
			tasks = append(tasks, g.collect(Major, dead, fmt.Sprintf("%d position-delete files name no live file", len(dead))))
		}
		return tasks
	}
	n, sum := 0, int64(0)
	for n < len(live) && (n <= len(live)/2 || live[n].Live <= sum) {
		sum += live[n].Live
		n++
	}
	return append(tasks, g.collect(Major, append(dead, live[:n]...),
		fmt.Sprintf("%d position-delete files (trigger %d)", len(live), r.MaxDeletes)))
}
