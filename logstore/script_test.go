package logstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"

	"firn/changelog"
	"firn/state"
)

// script runs the commands of testdata/store on one Store: its clock stands until "clock" moves it.
type script struct {
	*testStore
	disk   *vfs.MemFS
	now    time.Time
	offset int64
}

func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata/store", func(t *testing.T, path string) {
		sc := &script{disk: vfs.NewCrashableMem(), now: time.UnixMicro(1_000_000).UTC()}
		sc.reopen(t)
		defer func() { sc.close() }()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			sc.tb = t
			out, err := sc.run(t, d)
			if err != nil {
				out += sc.errText(err) + "\n"
			}
			return out
		})
	})
}

func (sc *script) reopen(t *testing.T) {
	o := testOptions(sc.disk)
	o.Now = func() time.Time { return sc.now }
	s, err := tryOpen(t, "d", o)
	if err != nil {
		t.Fatal(err)
	}
	sc.testStore = s
}

// errText names the sentinel; the rest of the text is for people.
func (sc *script) errText(err error) string {
	for _, e := range []error{ErrTrimmed, ErrNoParked, ErrUnknown, ErrParkedFull, ErrFull, state.ErrNotFound, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return "error: " + e.Error()
		}
	}
	return "error: " + err.Error()
}

func idOf(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// arg returns a number argument of the command.
func arg(t *testing.T, d *datadriven.TestData, name string, def int64) int64 {
	d.MaybeScanArgs(t, name, &def)
	return def
}

func (sc *script) run(t *testing.T, d *datadriven.TestData) (string, error) {
	var out strings.Builder
	ctx := t.Context()
	switch d.Cmd {
	case "append": // a line each: insert|update|read|delete ID [VALUE], truncate, park REASON ID, stale|whole ID, hold ID [FIRST], unpark N, repark N REASON, moved ID VALUE; options: at=OFFSET, next=OFFSET
		r, err := sc.Append(ctx, sc.parse(t, d))
		if err == nil {
			fmt.Fprintf(&out, "last seq %d\n", r.Last[sc.table])
		}
		return out.String(), err
	case "scan", "blocks":
		from, to := changelog.SeqNum(arg(t, d, "from", 0)), changelog.SeqNum(arg(t, d, "to", 1<<60))
		if d.Cmd == "blocks" {
			return sc.blocks(ctx, from, to)
		}
		for c, err := range sc.Scan(ctx, sc.table, from, to) {
			if err != nil {
				return out.String(), err
			}
			fmt.Fprintf(&out, "%d %s %s: %s -> %s @%d\n", c.Seq, c.Op, sc.keyText(c.Key), sc.text(c.Before), sc.text(c.After), c.Position.Offset)
		}
		return out.String(), nil
	case "rows":
		return sc.rows(ctx, strings.Fields(d.Input))
	case "snapshot":
		return sc.snapshot(ctx, arg(t, d, "after", -1))
	case "bounds":
		oldest, applied, err := sc.Bounds(sc.table)
		held, herr := sc.LogBytes(sc.table)
		return fmt.Sprintf("oldest %d applied %d, bytes held: %t\n", oldest, applied, held > 0), errors.Join(err, herr)
	case "flushed":
		err := sc.reg.UpdateProgress(ctx, sc.table, func(p *state.Progress) { p.Flushed = changelog.SeqNum(arg(t, d, "to", 0)) })
		return "", err
	case "trim":
		return "", sc.Trim(ctx, sc.table, changelog.SeqNum(arg(t, d, "to", 0)))
	case "expire": // what retention lets go: age=SECONDS bytes=N
		table, _ := sc.reg.ByID(sc.table)
		upTo, err := sc.expired(ctx, table, Retention{Time: time.Duration(arg(t, d, "age", 0)) * time.Second, Bytes: arg(t, d, "bytes", 0)})
		return fmt.Sprintf("up to %d\n", upTo), err
	case "seqat":
		seq, err := sc.SeqAt(ctx, sc.table, arg(t, d, "s", 0)*1e6)
		return fmt.Sprintln("after", seq), err
	case "clock":
		sc.now = time.Unix(arg(t, d, "s", 0), 0)
		return "", nil
	case "consumer":
		c := Consumer{Name: "c", Acked: changelog.SeqNum(arg(t, d, "acked", 0)), LeaseUntil: arg(t, d, "until", 0) * 1e6}
		return "", sc.SetConsumer(ctx, sc.table, c)
	default:
		return sc.runMore(t, d)
	}
}

func (sc *script) runMore(t *testing.T, d *datadriven.TestData) (string, error) {
	var out strings.Builder
	ctx := t.Context()
	switch d.Cmd {
	case "parked":
		for p, err := range sc.ParkedAll(ctx) {
			if err != nil {
				return out.String(), err
			}
			fmt.Fprintf(&out, "%d table %d key %s: %s %q @%d\n", p.ID, p.Table, sc.keyText(p.Key), p.Reason, p.RecordValue, p.Position.Offset)
		}
		counts := sc.ParkedCounts()
		for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b ParkedKind) int { return strings.Compare(a.Reason, b.Reason) }) {
			fmt.Fprintf(&out, "table %d %s: %d\n", k.Table, k.Reason, counts[k].Records)
		}
		return out.String(), nil
	case "parked-of":
		for p, err := range sc.ParkedOf(ctx, sc.table, testKey(arg(t, d, "id", 0)), uint64(arg(t, d, "first", 0))) {
			if err != nil {
				return out.String(), err
			}
			fmt.Fprintln(&out, p.ID, p.Reason)
		}
		return out.String(), nil
	case "unpark":
		return "", sc.Unpark(ctx, uint64(arg(t, d, "id", 0)))
	case "stale":
		for m, err := range sc.StaleKeys(ctx, sc.table) {
			if err != nil {
				return out.String(), err
			}
			fmt.Fprintf(&out, "%s %s", sc.keyText(m.Key), m.Reason)
			if m.Hold || m.First > 0 {
				fmt.Fprintf(&out, " hold=%t first=%d", m.Hold, m.First)
			}
			fmt.Fprintln(&out)
		}
		return out.String(), nil
	case "moved":
		row, ok, err := sc.MovedRow(sc.table, testKey(arg(t, d, "id", 0)), "lsn:0/1")
		return fmt.Sprintln(ok, sc.text(row)), err
	case "expire-moved":
		return "", sc.trimMoved(ctx)
	case "positions":
		ps, err := sc.Positions("k")
		for _, p := range ps {
			fmt.Fprintln(&out, p.StreamID, p.Next)
		}
		return out.String(), err
	case "reset-position":
		return "", sc.ResetPositions(ctx, []changelog.StreamPosition{{StreamID: testStream, Next: arg(t, d, "to", 0)}})
	case "natives":
		n, err := sc.Natives(sc.table)
		return fmt.Sprintln(n), err
	case "drop":
		return "", sc.Drop(ctx, sc.table)
	case "flush":
		return "", sc.db.Flush()
	case "reopen": // crash: power is lost first
		if d.HasArg("crash") {
			disk := sc.disk.CrashClone(vfs.CrashCloneCfg{})
			sc.close()
			sc.disk = disk
		} else {
			sc.close()
		}
		sc.reopen(t)
		return "", nil
	}
	t.Fatalf("%s: no such command", d.Cmd)
	return "", nil
}

func (sc *script) parse(t *testing.T, d *datadriven.TestData) changelog.Append {
	a := changelog.Append{}
	var changes []changelog.Change
	sc.offset = arg(t, d, "at", sc.offset)
	ops := map[string]changelog.Op{"insert": changelog.OpCreate, "update": changelog.OpUpdate, "delete": changelog.OpDelete, "read": changelog.OpRead}
	for line := range strings.Lines(d.Input) {
		w := append(strings.Fields(line), "", "")
		id, _ := strconv.ParseInt(w[1], 10, 64)
		at := changelog.Position{Source: "k", Topic: "t", Offset: sc.offset}
		switch w[0] {
		case "truncate":
			changes = append(changes, changelog.Change{Op: changelog.OpTruncate, Position: at})
		case "park":
			p := changelog.Parked{Table: sc.table, Reason: w[1], RecordValue: []byte("{"), Position: at}
			if id, err := strconv.ParseInt(w[2], 10, 64); err == nil {
				p.Key = testKey(id)
			} else {
				p.Table = 0
			}
			a.Parked = append(a.Parked, p)
		case "stale", "whole":
			a.Stale = append(a.Stale, changelog.StaleMark{Table: sc.table, Key: testKey(id), Set: w[0] == "stale", Reason: "why"})
			continue
		case "hold": // behind the record parked last, or behind a number
			m := changelog.StaleMark{Table: sc.table, Key: testKey(id), Set: true, Reason: "why", Hold: true, Record: len(a.Parked)}
			if w[2] != "" {
				m.First, m.Record = uint64(idOf(t, w[2])), 0
			}
			a.Stale = append(a.Stale, m)
			continue
		case "unpark":
			a.Unparked = append(a.Unparked, uint64(id))
			continue
		case "repark":
			p, err := sc.ParkedGet(t.Context(), uint64(id))
			if err != nil {
				p = changelog.Parked{ID: uint64(id)}
			}
			p.Reason = w[2]
			a.Reparked = append(a.Reparked, p)
			continue
		case "moved":
			a.Moved = append(a.Moved, changelog.MovedRow{Table: sc.table, Key: testKey(id), Native: "lsn:0/1", Row: testRow(sc.schema, id, w[2])})
			continue
		default:
			c := sc.put(ops[w[0]], id, w[2], sc.offset)
			c.Position.Native = fmt.Sprintf("lsn:0/%X", sc.offset+16)
			if v := w[3]; v != "" { // update ID AFTER BEFORE
				c.Before = testRow(sc.schema, id, v)
			}
			changes = append(changes, c)
		}
		sc.offset++
	}
	if len(changes) > 0 {
		a.Tables = []changelog.TableAppend{{Table: sc.table, Changes: changes}}
	}
	a.Positions = []changelog.StreamPosition{{StreamID: testStream, Next: arg(t, d, "next", sc.offset)}}
	return a
}

func (sc *script) keyText(k changelog.Key) string {
	if k == nil {
		return "-"
	}
	v, err := sc.schema.KeyValues(k)
	if err != nil {
		return err.Error()
	}
	return strconv.FormatInt(v[0].I, 10)
}

func (sc *script) blocks(ctx context.Context, from, to changelog.SeqNum) (string, error) {
	var out strings.Builder
	for b, err := range sc.Blocks(ctx, sc.table, from, to) {
		if err != nil {
			return out.String(), err
		}
		fmt.Fprintf(&out, "%d-%d taken in at %ds:", b.First, b.Last, b.IngestTime()/1e6)
		for _, p := range b.Streams {
			fmt.Fprintf(&out, " %s next %d", p.StreamID, p.Next)
		}
		n := 0
		for _, err := range b.Changes() {
			if err != nil {
				return out.String(), err
			}
			n++
		}
		fmt.Fprintf(&out, ", %d changes\n", n)
	}
	return out.String(), nil
}

func (sc *script) rows(ctx context.Context, ids []string) (string, error) {
	var out strings.Builder
	keys := make([]changelog.Key, len(ids))
	for i, s := range ids {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return "", err
		}
		keys[i] = testKey(id)
	}
	views, err := sc.Rows(ctx, sc.table, keys)
	for i, v := range views {
		fmt.Fprintf(&out, "%s: %s seq %d found %t applied %d\n", ids[i], sc.text(v.Row), v.Seq, v.Found, v.Applied)
		one, err := sc.Row(ctx, sc.table, keys[i])
		if err != nil || one.Seq != v.Seq || string(one.Row) != string(v.Row) || one.Found != v.Found {
			fmt.Fprintf(&out, "  Row says %+v, %v\n", one, err)
		}
	}
	return out.String(), err
}

func (sc *script) snapshot(ctx context.Context, after int64) (string, error) {
	var out strings.Builder
	snap, err := sc.Snapshot(ctx, sc.table)
	if err != nil {
		return "", err
	}
	var from changelog.Key
	if after >= 0 {
		from = testKey(after)
	}
	fmt.Fprintf(&out, "applied %d\n", snap.Applied)
	for e, err := range snap.Rows(nil, from) {
		if err != nil {
			return out.String(), errors.Join(err, snap.Close())
		}
		fmt.Fprintf(&out, "%s: %s seq %d\n", sc.keyText(e.Key), sc.text(e.Row), e.Seq)
	}
	return out.String(), snap.Close()
}
