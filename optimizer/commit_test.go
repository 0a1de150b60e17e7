package optimizer

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
	"firn/state"
)

// prepared returns a world with some base files, position deletes and pending changes.
func prepared(t *testing.T) *world {
	w := newWorld(t, map[string]string{"snapshot.keep.duration": "0s"})
	w.options = small(20_000)
	w.open()
	r := rand.New(rand.NewPCG(3, 3))
	for range 3 {
		w.flush(w.random(r, 25)...)
		w.once(Minor)
	}
	w.flush(w.random(r, 25)...)
	return w
}

// onBase lets f stand round the first n commits to the base store.
func (w *world) onBase(n int, f func(commit func() error) error) {
	w.hook = func(_ context.Context, a table.Attempt, commit func() error) error {
		if a.Store != mixed.StoreBase || a.ID == "" || n == 0 {
			return commit()
		}
		n--
		return f(commit)
	}
}

// TestConflict: somebody else rewrites the base store between plan and commit; the merge is planned again and the index
// built again.
func TestConflict(t *testing.T) {
	w := prepared(t)
	w.onBase(1, func(commit func() error) error {
		other, err := table.Open(w.ctx(), w.lake(w.disk))
		w.must(err)
		defer other.Close()
		opt, err := New(other, nil, small(20_000))
		w.must(err)
		_, err = opt.Once(w.ctx(), tableName, Full, false)
		w.must(err)
		return commit()
	})
	report := w.once(Minor)
	if len(report.Done) != 1 {
		t.Errorf("done %+v", report.Done)
	}
	w.check()
	w.noLitter()
	w.same("base store", w.model, w.history[w.table().Optimized()[""]])
}

// TestFenced: a newer epoch owns the table (P3): nothing is committed, nothing is left, and the caller is told.
func TestFenced(t *testing.T) {
	w := prepared(t)
	w.must(w.reg.UpdateProgress(w.ctx(), w.id(), func(p *state.Progress) { p.Epoch = 4 }))
	_, err := w.table().ClaimEpoch(w.ctx(), "other", 5)
	w.must(err)
	before := w.table().Base().SnapshotID()
	for _, typ := range []Type{Minor, Full} {
		if _, err := w.opt.Once(w.ctx(), tableName, typ, false); !errors.Is(err, state.ErrFenced) {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if got := w.table().Base().SnapshotID(); got != before {
		t.Errorf("snapshot %d, was %d", got, before)
	}
	w.noLitter()
	w.check()
}

// TestClaimedMeanwhile: a flusher that has just started claims the table while a merge or an expiry of the same writer is under way under the
// epoch before: the work is done again under the new one, and the table is not taken for somebody else's.
func TestClaimedMeanwhile(t *testing.T) {
	for _, store := range []string{mixed.StoreBase, mixed.StoreChange} {
		t.Run(store, func(t *testing.T) {
			w := prepared(t)
			w.must(w.reg.UpdateProgress(w.ctx(), w.id(), func(p *state.Progress) { p.Epoch = 4 }))
			_, err := w.table().ClaimEpoch(w.ctx(), w.reg.WriterID(), 4)
			w.must(err)
			w.now = time.Now().Add(time.Hour)
			claimed := false
			w.hook = func(_ context.Context, a table.Attempt, commit func() error) error {
				if a.Store == store && !claimed {
					claimed = true
					lake, err := table.Open(w.ctx(), w.lake(w.disk))
					w.must(err)
					defer lake.Close()
					same, err := lake.Load(w.ctx(), tableName)
					w.must(err)
					_, err = same.ClaimEpoch(w.ctx(), w.reg.WriterID(), 5)
					w.must(err)
					w.must(w.reg.UpdateProgress(w.ctx(), w.id(), func(p *state.Progress) { p.Epoch = 5 }))
				}
				return commit()
			}
			if store == mixed.StoreBase {
				w.once(Minor)
			} else if _, err := w.opt.Expire(w.ctx(), tableName, false); !table.IsConflict(err) || errors.Is(err, state.ErrFenced) {
				t.Errorf("%v", err)
			}
			if !claimed {
				t.Fatal("no commit")
			}
			if x, err := w.opt.Expire(w.ctx(), tableName, false); err != nil || len(x.Changes) == 0 {
				t.Errorf("%+v, %v", x, err)
			}
			w.check()
			w.noLitter()
		})
	}
}

// TestFailedCommit: a commit that did not happen leaves no files (P2); one whose answer was lost did happen.
func TestFailedCommit(t *testing.T) {
	w := prepared(t)
	errDown := errors.New("catalog is down")
	w.onBase(1, func(func() error) error { return errDown })
	if _, err := w.opt.Once(w.ctx(), tableName, Minor, false); !errors.Is(err, errDown) {
		t.Errorf("got %v", err)
	}
	w.noLitter()
	w.check()
	w.onBase(1, func(commit func() error) error { return errors.Join(commit(), errDown) })
	w.once(Minor)
	w.check()
	w.noLitter()
	w.same("base store", w.model, w.history[w.table().Optimized()[""]])
}

// TestCancelled: rows that all cancel publish the optimized sequence all the same, without a snapshot.
func TestCancelled(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "here"}, op{a: 1, b: "x"})
	w.once(Minor)
	if s := w.table().Optimized()[""]; s != 1 {
		t.Errorf("optimized sequence %d", s)
	}
	if got := w.table().Base().Watermark(); got != 2 {
		t.Errorf("base watermark %d", got)
	}
	if w.table().Base().SnapshotID() != 0 || w.progress().Optimized != 2 {
		t.Errorf("snapshot %d, progress %+v", w.table().Base().SnapshotID(), w.progress())
	}
	w.check()
	w.flush(op{a: 1, b: "x", v: "again"})
	w.once(Minor)
	w.check()
}

// TestDeadFile: a data file all of whose rows a merge deletes leaves the base store, its deletes with it; a position that
// is deleted twice does not count for two.
func TestDeadFile(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "1"}, op{a: 2, b: "x", v: "2"}, op{a: 3, b: "x", v: "3"})
	w.once(Minor)
	w.flush(op{a: 1, b: "x"})
	w.once(Minor)
	w.deleteAgain(0)
	w.flush(op{a: 2, b: "x"})
	w.once(Minor)
	rows := 0
	for _, f := range w.live(table.Data) {
		s := w.table().Schemas().Current()
		w.eachRow(f.Path, s, false, func(string, string, changelog.Key, int64, int64) { rows++ })
	}
	if rows != 3 {
		t.Fatalf("%d rows in data files: the file with row 3 has to stay", rows)
	}
	w.flush(op{a: 3, b: "x"})
	w.once(Minor)
	if files := w.live(table.Data); len(files) != 0 {
		t.Errorf("data files left: %+v", files)
	}
	if files := w.live(table.PositionDeletes); len(files) != 0 {
		t.Errorf("position-delete files left: %+v", files)
	}
	w.check()
}

func (w *world) live(c table.Content) (out []table.File) {
	files, err := w.table().Base().Files(w.ctx())
	w.must(err)
	for _, f := range files {
		if f.Content == c {
			out = append(out, f)
		}
	}
	return out
}

// deleteAgain commits, as a foreign writer, a position delete of a row that is deleted already.
func (w *world) deleteAgain(row int64) {
	t := w.table()
	data := w.live(table.Data)[0].Path
	path := t.Base().DataPath(mixed.FileName{Type: mixed.PositionDelete, Txn: 1, Op: table.NewOp(), Count: 1}.String())
	out, err := w.catalog.FS().Create(path)
	w.must(err)
	written, err := datafile.WritePositionDeletes(out, []datafile.PosDelete{{Path: data, Pos: row}}, datafile.Options{})
	w.must(err)
	w.must(out.Commit())
	_, err = t.CommitBase(w.ctx(), table.BaseCommit{
		ID: "again", AddDeletes: []table.NewFile{{Path: path, Rows: 1, Bytes: written.Bytes, Footer: written.Metadata, Referenced: data}},
	})
	w.must(err)
}

// TestExpire: merged change files go after their time, unless a feed needs them; what is not merged stays; readers of the
// newest snapshots find all their files.
func TestExpire(t *testing.T) {
	w := newWorld(t, map[string]string{"snapshot.keep.duration": "0s", "snapshot.keep.min-count": "2"})
	hold := changelog.SeqNum(2)
	w.options = Options{Rules: Rules{ChangeTTL: time.Minute}, Hold: func(changelog.TableID) (changelog.SeqNum, bool) { return hold, hold > 0 }}
	w.open()
	for i := range int64(3) {
		w.flush(op{a: i, b: "x", v: "1"})
	}
	w.once(Minor)
	w.flush(op{a: 9, b: "x", v: "1"})
	expire := func(dry bool, want int) {
		t.Helper()
		e, err := w.opt.Expire(w.ctx(), tableName, dry)
		w.must(err)
		if len(e.Changes) != want {
			t.Errorf("expired %v, want %d files", e.Changes, want)
		}
		w.check()
	}
	w.now = time.Now().Add(50 * time.Second)
	expire(false, 0) // too young
	w.now = w.now.Add(time.Minute)
	expire(true, 2)
	expire(false, 2) // the files of change 1; the hold keeps those of 2 and 3
	hold = 0
	expire(false, 4)
	w.now = w.now.Add(time.Hour)
	expire(false, 0) // what is not merged stays
	w.noLitter()
	if n := len(w.table().Change().Snapshots()); n > 2 {
		t.Errorf("%d snapshots", n)
	}
	w.once(Minor)
	w.check()
}

// TestDryRun names tasks and reasons, and changes nothing.
func TestDryRun(t *testing.T) {
	w := prepared(t)
	before := w.table().Base().MetadataLocation()
	for _, typ := range []Type{Minor, Major, Full} {
		r, err := w.opt.Once(w.ctx(), tableName, typ, true)
		w.must(err)
		if len(r.Done) == 0 && typ != Major || len(r.Done) > 0 && (r.Done[0].Executed || r.Done[0].Task.Reason == "") {
			t.Errorf("%s: %+v", typ, r)
		}
	}
	if got := w.table().Base().MetadataLocation(); got != before {
		t.Errorf("the table changed: %s", got)
	}
}

// TestRun: the scheduler merges what is flushed while it runs, compacts, and stops.
func TestRun(t *testing.T) {
	w := newWorld(t, nil)
	w.options, w.clock = small(20_000), time.Now
	w.options.Rules.MinorInterval = 10 * time.Millisecond
	w.open()
	ctx, stop := context.WithCancel(w.ctx())
	ended := make(chan error, 1)
	go func() { ended <- w.opt.Run(ctx) }()
	r := rand.New(rand.NewPCG(5, 5))
	for range 3 {
		w.flush(w.random(r, 25)...)
		for deadline := time.Now().Add(30 * time.Second); w.progress().Optimized != w.seq; {
			if time.Now().After(deadline) {
				t.Fatalf("optimized up to %d of %d", w.progress().Optimized, w.seq)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	stop()
	w.must(<-ended)
	w.check()
	w.same("base store", w.model, w.history[w.table().Optimized()[""]])
}

// TestStoppedTable: a table that nothing may be written to is not due.
func TestStoppedTable(t *testing.T) {
	w := newWorld(t, nil)
	stopped := true
	w.options.Stopped = func(id changelog.TableID) bool { return stopped && id != 0 }
	w.open()
	if next := w.opt.due(w.now); next != nil {
		t.Error("due while it is stopped")
	}
	stopped = false
	if next := w.opt.due(w.now); next == nil {
		t.Error("not due")
	}
}

// TestBackoff: a failure is not repeated at once, many are repeated rarely, and success forgets them.
func TestBackoff(t *testing.T) {
	w := newWorld(t, nil)
	s := w.opt.state(tableName)
	errBad := errors.New("bad")
	for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		result{s: s, at: w.now, err: errBad}.apply(w.opt)
		if got := s.nextTry.Sub(w.now); got != want {
			t.Errorf("failure %d: %s, want %s", i+1, got, want)
		}
	}
	for range 50 {
		result{s: s, at: w.now, err: errBad}.apply(w.opt)
	}
	if got := s.nextTry.Sub(w.now); got != w.opt.options.MaxBackoff {
		t.Errorf("many failures: %s", got)
	}
	if next := w.opt.due(w.now); next != nil {
		t.Error("due within its pause")
	}
	w.now = w.now.Add(w.opt.options.MaxBackoff)
	if next := w.opt.due(w.now); next != s {
		t.Error("not due after its pause")
	}
	result{s: s, at: w.now, worked: true}.apply(w.opt)
	if s.failures != 0 || w.opt.due(w.now) != s {
		t.Errorf("after success with more work: %+v", s)
	}
}

// TestDangling: position deletes whose data files another engine has rewritten go, in a snapshot that says so.
func TestDangling(t *testing.T) {
	w := newWorld(t, nil)
	w.flush(op{a: 1, b: "x", v: "1"}, op{a: 2, b: "x", v: "2"})
	w.once(Minor)
	w.flush(op{a: 1, b: "x"})
	w.once(Minor)
	if len(w.live(table.PositionDeletes)) != 1 {
		t.Fatal("no position deletes")
	}
	lake, o := w.table(), op{a: 2, b: "x", v: "2"}
	s := lake.Schemas().Current()
	f := w.write(lake.Base(), s, mixed.Base, mixed.TreeNode{}, 2, false, 1, func(int) ([]changelog.Value, int64) { return o.values(s), 0 })
	_, err := lake.CommitBase(w.ctx(), table.BaseCommit{ID: "theirs", Replace: true, Add: []table.NewFile{f}, Remove: w.live(table.Data)})
	w.must(err)
	for _, typ := range []Type{Major, Full} {
		w.once(typ)
		w.check()
	}
	if n := len(w.live(table.PositionDeletes)); n != 0 {
		t.Errorf("%d position-delete files", n)
	}
	dangling := 0
	for _, sn := range w.table().Base().Snapshots() {
		if sn.Summary[mixed.SummaryProducer] == mixed.ProducerDangling {
			dangling++
		}
	}
	if dangling != 1 {
		t.Errorf("%d snapshots say that dangling deletes went", dangling)
	}
}
