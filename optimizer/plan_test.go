package optimizer

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"firn/changelog/mixed"
)

// TestPlan runs the scripts of testdata/plan: files are declared one a line, plan prints the tasks.
func TestPlan(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		var v View
		r := defaultRules()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "reset":
				v, r = View{}, defaultRules()
			case "rules":
				setRules(t, &r, d.CmdArgs)
			case "base", "deletes", "change":
				for line := range strings.Lines(d.Input) {
					declare(t, &v, d.Cmd, strings.Fields(line))
				}
			case "optimized":
				v.Optimized = map[string]int64{}
				for _, a := range d.CmdArgs {
					v.Optimized[strings.Trim(a.Key, "_")] = number(t, a.Vals[0])
				}
			case "plan":
				return printPlan(t, v, r, d.CmdArgs)
			default:
				d.Fatalf(t, "unknown command")
			}
			return ""
		})
	})
}

func defaultRules() Rules {
	var r Rules
	r.EnsureDefaults()
	return r
}

func setRules(t *testing.T, r *Rules, args []datadriven.CmdArg) {
	for _, a := range args {
		v := a.Vals[0]
		switch a.Key {
		case "interval":
			r.MinorInterval, _ = time.ParseDuration(v)
		case "full":
			r.FullInterval, _ = time.ParseDuration(v)
		case "keep-clean":
			r.FullKeepClean = v == "true"
		case "max-files":
			r.MaxFiles = int(number(t, v))
		case "max-rows":
			r.MaxRows = number(t, v)
		case "fan-in":
			r.FanIn = int(number(t, v))
		case "buckets":
			r.Buckets = int(number(t, v))
		case "max-deletes":
			r.MaxDeletes = int(number(t, v))
		default:
			t.Fatalf("unknown rule %s", a.Key)
		}
	}
}

func declare(t *testing.T, v *View, what string, words []string) {
	if len(words) == 0 {
		return
	}
	args, n := map[string]string{}, 1
	for _, w := range words[1:] {
		k, x, _ := strings.Cut(w, "=")
		args[k] = x
	}
	get := func(name string, def int64) int64 {
		if s, ok := args[name]; ok {
			return number(t, s)
		}
		return def
	}
	if args["n"] != "" {
		n = int(number(t, args["n"]))
	}
	node, err := mixed.NodeOf(get("node", 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		name := words[0]
		if n > 1 {
			name += strconv.Itoa(i)
		}
		bytes, rows := get("bytes", 1000), get("rows", 100)
		switch what {
		case "base":
			v.Base = append(v.Base, DataFile{Path: name, Partition: args["p"], Node: node, Bytes: bytes, Rows: rows, Deleted: get("deleted", 0)})
		case "deletes":
			v.Deletes = append(v.Deletes, DeleteFile{Path: name, Partition: args["p"], Node: node, Bytes: bytes, Rows: rows, Live: get("live", rows)})
		case "change":
			seq := get("seq", 1)
			f := ChangeFile{Path: name, Partition: args["p"], Type: mixed.Insert, Sequence: seq, Txn: get("tx", seq), Bytes: bytes, Rows: rows}
			if args["ed"] != "" {
				f.Type = mixed.Delete
			}
			v.Change = append(v.Change, f)
		}
	}
}

func number(t *testing.T, s string) int64 {
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "k": 1000, "M": 1_000_000} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = rest, u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * unit
}

func printPlan(t *testing.T, v View, r Rules, args []datadriven.CmdArg) string {
	now := time.Unix(1_000_000, 0)
	v.LastMinor, v.LastFull = now, now
	var force Type
	for _, a := range args {
		switch a.Key {
		case "minor", "full":
			at := time.Time{}
			if a.Vals[0] != "never" {
				d, err := time.ParseDuration(a.Vals[0])
				if err != nil {
					t.Fatal(err)
				}
				at = now.Add(-d)
			}
			if a.Key == "minor" {
				v.LastMinor = at
			} else {
				v.LastFull = at
			}
		case "force":
			var err error
			if force, err = ParseType(a.Vals[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	var b strings.Builder
	tasks, notes := Plan(v, r, now, force)
	for _, task := range tasks {
		fmt.Fprintf(&b, "%s %s", task.Type, task.Action)
		if task.Partition != "" {
			fmt.Fprintf(&b, " p=%s", task.Partition)
		}
		if task.Spread > 1 {
			fmt.Fprintf(&b, " over=%d", task.Spread)
		}
		if task.Node.ID() != 1 {
			fmt.Fprintf(&b, " node=%s", task.Node)
		}
		for _, f := range task.Changes {
			fmt.Fprintf(&b, " %s", f.Path)
		}
		for _, f := range task.Data {
			fmt.Fprintf(&b, " %s", f.Path)
		}
		for _, f := range task.Deletes {
			fmt.Fprintf(&b, " %s", f.Path)
		}
		fmt.Fprintf(&b, ": %s\n", task.Reason)
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// TestPlanAmplification lets minors add one fragment after another and applies the planned rewrites: however long it
// goes on, the small files stay few and a byte is rewritten a logarithmic number of times; so it is with a tree that grows
// by auto-bucket, of which no node gets much larger than it should.
func TestPlanAmplification(t *testing.T) {
	for _, tc := range []struct {
		fragment int64
		n        int
	}{{10 << 10, 5000}, {1 << 20, 2000}, {20 << 20, 800}, {100 << 20, 500}} {
		r := defaultRules()
		var v View
		var written, sunk, added int64
		most := 0
		for i := range tc.n {
			v.Base = append(v.Base, DataFile{Path: fmt.Sprintf("m%d", i), Bytes: tc.fragment, Rows: 1000})
			added += tc.fragment
			for round := 0; ; round++ {
				tasks, _ := Plan(v, r, time.Unix(0, 0), 0)
				if len(tasks) == 0 {
					break
				}
				if round > 10 {
					t.Fatalf("fragment %d, round %d: planning does not end: %+v", tc.fragment, i, tasks)
				}
				for _, task := range tasks {
					if task.Spread > 1 {
						for _, f := range task.Data {
							sunk += f.Bytes
						}
					}
				}
				v.Base, written = applyRewrites(v.Base, tasks, written, fmt.Sprintf("r%d-%d", i, round))
			}
			small := map[mixed.TreeNode]int{}
			for _, f := range v.Base {
				if f.Bytes <= r.minTarget() {
					small[f.Node]++
					most = max(most, small[f.Node])
				}
			}
		}
		tree := newTree(v.Base, "", r)
		buckets, largest := 1, int64(0)
		for n := range tree.own {
			buckets = max(buckets, int(n.Mask)+1)
		}
		for n := range tree.own {
			if int(n.Mask)+1 == buckets {
				largest = max(largest, tree.bytes(n))
			}
		}
		amplification, sinks := float64(written)/float64(added), float64(sunk)/float64(added)
		t.Logf("fragments of %d: at most %d small files of a node, %.2f bytes rewritten for each added, %.2f of them in splits; %d files, %d buckets of at most %d bytes",
			tc.fragment, most, amplification, sinks, len(v.Base), buckets, largest)
		if steps := float64(bits.Len(uint(buckets)) - 1); most > (maxTier+1)*r.FanIn || sinks > steps || amplification > maxTier+1+2*steps {
			t.Errorf("fragments of %d: %d small files, amplification %.2f, %.2f in splits", tc.fragment, most, amplification, sinks)
		}
		if largest > 2*tree.capBytes() || int64(buckets) > 4*(added/tree.capBytes()+1) {
			t.Errorf("fragments of %d: %d buckets, the largest has %d bytes", tc.fragment, buckets, largest)
		}
	}
}

func applyRewrites(base []DataFile, tasks []Task, written int64, name string) ([]DataFile, int64) {
	gone := map[string]bool{}
	for i, task := range tasks {
		var bytes, rows int64
		for _, f := range task.Data {
			gone[f.Path] = true
			bytes, rows = bytes+f.liveBytes(), rows+f.Rows-f.Deleted
		}
		written += bytes
		fan := int64(max(1, task.Spread))
		width := task.Node.Mask + 1
		for child := range fan {
			node := mixed.TreeNode{Mask: width*fan - 1, Index: task.Node.Index + child*width}
			roll := rollAt(bytes/fan, 128<<20)
			for left := bytes / fan; left > 0; left -= roll {
				size := min(left, roll)
				base = append(base, DataFile{Path: fmt.Sprintf("%s-%d-%d-%d", name, i, child, left), Node: node, Bytes: size, Rows: max(1, rows*size/bytes)})
			}
		}
	}
	var left []DataFile
	for _, f := range base {
		if !gone[f.Path] {
			left = append(left, f)
		}
	}
	return left, written
}

// TestRulesOf: Amoro's property names override, bad values are reported and change nothing.
func TestRulesOf(t *testing.T) {
	base := defaultRules()
	got, err := base.Of(map[string]string{
		"self-optimizing.enabled": "false", "self-optimizing.minor.trigger.interval": "1000", "self-optimizing.target-size": "1048576",
		"self-optimizing.full.rewrite-all-files": "false", "change.data.ttl.minutes": "7", "self-optimizing.minor.trigger.file-count": "x",
	})
	want := base
	want.Disabled, want.MinorInterval, want.TargetBytes, want.FullKeepClean, want.ChangeTTL = true, time.Second, 1<<20, true, 7*time.Minute
	if err == nil || got != want {
		t.Errorf("got %+v, %v; want %+v and an error", got, err, want)
	}
	for _, tc := range []struct {
		buckets, auto string
		want          int
		fails         bool
	}{
		{"", "", 0, false},
		{"8", "", 8, false},
		{"65536", "false", 65536, false},
		{"8", "true", 0, false},
		{"", "false", 4, false},
		{"", "true", 0, false},
		{"6", "", 0, true},
		{"131072", "", 0, true},
		{"-4", "", 0, true},
		{"8", "maybe", 0, true},
	} {
		props := map[string]string{"self-optimizing.enabled": "false"} // a bad number must not hide it
		if tc.buckets != "" {
			props["base.file-index.hash-bucket"] = tc.buckets
		}
		if tc.auto != "" {
			props["firn.auto-bucket"] = tc.auto
		}
		got, err := base.Of(props)
		if got.Buckets != tc.want || !got.Disabled || (err != nil) != tc.fails {
			t.Errorf("buckets %q, auto %q: %d, disabled %v, %v", tc.buckets, tc.auto, got.Buckets, got.Disabled, err)
		}
	}
	if got, err := base.Of(map[string]string{"self-optimizing.target-size": "-1"}); err == nil || got != base {
		t.Errorf("negative target: %+v, %v", got, err)
	}
}

// TestPlanManyPartitions: of a table with many partitions few of which have many small change files these start a merge, others alone do not, however
// many they are together; one merge takes whole commits up to its bounds, each partition that they touch once, and those that follow take
// the rest: what is planned for a partition does not grow with the partitions.
func TestPlanManyPartitions(t *testing.T) {
	const partitions, busy, commits = 200, 5, 40
	r := defaultRules()
	name := func(i int) string { return fmt.Sprintf("day=%03d", i) }
	var v View
	now := time.Unix(1_000_000, 0)
	v.LastMinor, v.Optimized = now, map[string]int64{}
	add := func(seq int64, p int) {
		for _, typ := range []mixed.FileType{mixed.Insert, mixed.Delete} {
			v.Change = append(v.Change, ChangeFile{
				Path: fmt.Sprintf("%d-%s-%v", seq, name(p), typ), Partition: name(p), Type: typ, Sequence: seq, Txn: seq, Bytes: 10_000, Rows: 100,
			})
		}
	}
	for p := range partitions { // a flush that touches all
		add(1, p)
	}
	if tasks, _ := Plan(v, r, now.Add(time.Second), 0); len(tasks) > 0 {
		t.Fatalf("%d partitions with two files each start %d merges before the interval", partitions, len(tasks))
	}
	if tasks, _ := Plan(v, r, now.Add(r.MinorInterval), 0); len(tasks) != partitions {
		t.Fatalf("%d tasks when the interval is over", len(tasks))
	}
	for p := range partitions {
		v.Optimized[name(p)] = 1
	}
	for c := range int64(commits) {
		for p := range busy {
			add(c+2, p*17)
		}
	}
	r.MaxFiles = 60
	merged, rounds := map[string]int{}, 0
	for ; ; rounds++ {
		tasks, notes := Plan(v, r, now.Add(time.Second), 0)
		if len(tasks) == 0 {
			break
		}
		files := 0
		for _, task := range tasks {
			if task.Action != Merge || len(notes) > 0 {
				t.Fatalf("%+v, %v", task, notes)
			}
			files += len(task.Changes)
			for _, f := range task.Changes {
				if f.Partition != task.Partition || f.Sequence <= v.Optimized[task.Partition] {
					t.Fatalf("partition %s is to merge %+v", task.Partition, f)
				}
				merged[f.Path]++
			}
		}
		if len(tasks) != busy || files > r.MaxFiles {
			t.Fatalf("round %d: %d tasks of %d files", rounds, len(tasks), files)
		}
		for _, task := range tasks {
			v.Optimized[task.Partition] = task.Changes[len(task.Changes)-1].Sequence
		}
	}
	left := len(v.Pending()) / busy
	if want := 2 * busy * commits / r.MaxFiles; rounds != want || left >= r.MinorFiles || len(merged) != 2*busy*commits-left*busy {
		t.Errorf("%d rounds, %d files left in each partition, %d merged", rounds, left, len(merged))
	}
	for path, n := range merged {
		if n != 1 {
			t.Errorf("%s is merged %d times", path, n)
		}
	}
}
