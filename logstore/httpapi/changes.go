package httpapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"firn/changelog"
	"firn/changelog/rowjson"
	"firn/logstore"
)

// feedChunk is how much a feed renders before it writes: its whole buffer, whatever the client's pace.
const feedChunk = 64 << 10

// maxHeartbeat bounds heartbeat=.
const maxHeartbeat = 10 * time.Minute

// feed is one change feed: a state machine of "all up to next is sent".
type feed struct {
	a       *API
	v       *tableView
	encoder *rowjson.Encoder
	columns []string
	out     *feedWriter

	next      changelog.SeqNum // all up to it is sent
	left      int              // changes still to send; -1: no limit
	follow    bool
	heartbeat time.Duration // 0: none
	snapshot  bool          // begins with the rows
}

// errLimit ends a feed whose limit= is reached.
var errLimit = errors.New("limit reached")

// serveChanges answers GET /v1/tables/{t}/changes.
func (a *API) serveChanges(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if r.Method == http.MethodHead {
		return badRequest("HEAD of a feed: GET it with limit=")
	}
	v, err := a.table(args[0])
	if err != nil {
		return err
	}
	f, err := a.parseFeed(r, v, query)
	if err != nil {
		return err
	}
	release, err := a.admit(a.feeds, "feeds")
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := a.ending(r.Context())
	defer cancel()
	var snapshot *logstore.Snapshot
	if f.snapshot {
		releaseSnapshot, err := a.admit(a.snapshots, "snapshots")
		if err != nil {
			return err
		}
		defer releaseSnapshot()
		if snapshot, err = a.openSnapshot(ctx, v); err != nil {
			return err
		}
	}
	a.metrics.feeds.Inc()
	defer a.metrics.feeds.Dec()
	_, applied, err := a.store.Bounds(v.t.ID)
	if err != nil {
		return err
	}
	if snapshot != nil {
		applied = snapshot.Applied
	}
	h := w.Header()
	v.setApplied(h, applied)
	h["X-Accel-Buffering"] = []string{"no"} // a proxy must not hold changes back
	f.out.begin(w, a)
	defer f.out.end()
	err = f.run(ctx, snapshot)
	a.metrics.feedsClosed.WithLabelValues(f.reason(err)).Inc()
	return nil
}

// admit takes a slot; release gives it back.
func (a *API) admit(slots chan struct{}, what string) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		p := problemf(http.StatusServiceUnavailable, "too-many", "%d %s are open already: try again", cap(slots), what)
		p.retry = 1
		return nil, p
	}
}

func (a *API) openSnapshot(ctx context.Context, v *tableView) (*logstore.Snapshot, error) {
	if err := a.serving(v); err != nil {
		return nil, err
	}
	return a.store.Snapshot(ctx, v.t.ID)
}

func (a *API) parseFeed(r *http.Request, v *tableView, query string) (*feed, error) {
	p, err := parseQuery(query, "from", "follow", "limit", "columns", "heartbeat", "min", "timeout")
	if err != nil {
		return nil, err
	}
	f := &feed{a: a, v: v, left: -1, out: &feedWriter{}}
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/event-stream"):
		f.out.sse = true
	case strings.Contains(accept, "arrow") && !strings.Contains(accept, "json"):
		return nil, problemf(http.StatusNotAcceptable, "not-acceptable", "Arrow feeds are not built: accept application/x-ndjson or text/event-stream")
	}
	if f.follow, err = p.boolean("follow", true); err != nil {
		return nil, err
	}
	if f.heartbeat, err = p.duration("heartbeat", a.o.Heartbeat, maxHeartbeat); err != nil {
		return nil, err
	}
	if _, ok := p["limit"]; ok {
		if f.left, err = p.number("limit", 0, 1<<31-1); err != nil {
			return nil, err
		}
	}
	if f.columns, err = p.columns(); err != nil {
		return nil, err
	}
	if f.encoder, err = v.encoderOf(f.columns, false); err != nil {
		return nil, err
	}
	if err := a.awaitMin(r.Context(), v, p); err != nil {
		return nil, err
	}
	from := p["from"]
	if id := r.Header.Get("Last-Event-ID"); id != "" { // a browser that comes back repeats its first query
		from = "seq:" + id
	}
	return f, f.start(r.Context(), from)
}

// start resolves from=.
func (f *feed) start(ctx context.Context, from string) error {
	oldest, applied, err := f.a.store.Bounds(f.v.t.ID)
	if err != nil {
		return err
	}
	switch number, isSeq := strings.CutPrefix(from, "seq:"); {
	case from == "" || from == "latest":
		f.next = applied
		return nil
	case from == "earliest":
		f.next, err = f.earliest(ctx, oldest)
		return err
	case from == "snapshot":
		if !f.v.t.Keyed() {
			return problemf(http.StatusBadRequest, "no-key", "table %q has no key, so its rows are in the lake only: read them there (firn dump --from base), and changes from=earliest", f.v.t.Name)
		}
		f.snapshot = true
		return nil
	case isSeq:
		seq, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return badRequest("from=%s: not seq:N", from)
		}
		return f.startAt(ctx, changelog.SeqNum(seq), oldest, applied)
	}
	v, err := rowjson.ParseText(changelog.Primitive(changelog.TimestampTZ), from)
	if err != nil {
		return badRequest("from=%s: not earliest, latest, snapshot, seq:N or a time such as 2026-01-31T01:02:03Z", from)
	}
	if f.next, err = f.a.store.SeqAt(ctx, f.v.t.ID, v.I); err != nil {
		return err
	}
	if f.next+1 == oldest && oldest > 1 { // what was trimmed may be as young as the time
		return f.trimmed(oldest, fmt.Sprintf("changes at %s may be trimmed already", from))
	}
	return nil
}

func (f *feed) startAt(ctx context.Context, seq, oldest, applied changelog.SeqNum) error {
	if seq > applied {
		p := badRequest("from=seq:%d: the newest change is %d: read from=snapshot if this feed was read further before", seq, applied)
		p.applied, p.known = applied, true
		return p
	}
	f.next = seq
	if seq+1 >= oldest {
		return nil
	}
	held, err := f.earliest(ctx, oldest)
	if err == nil && seq < held {
		err = f.trimmed(held+1, fmt.Sprintf("change %d is no longer held", seq+1))
	}
	return err
}

// earliest returns the SeqNum after which everything is held, by the log or by change files.
func (f *feed) earliest(ctx context.Context, oldest changelog.SeqNum) (changelog.SeqNum, error) {
	if f.a.o.ChangeFiles == nil || oldest <= 1 {
		return max(oldest, 1) - 1, nil
	}
	held, ok, err := f.a.o.ChangeFiles.Oldest(ctx, f.v.t)
	if err != nil {
		return 0, err
	}
	if ok {
		oldest = min(oldest, held)
	}
	return max(oldest, 1) - 1, nil
}

func (f *feed) trimmed(oldest changelog.SeqNum, detail string) *problemError {
	way := "begin with from=snapshot, which sends the rows and then what follows"
	if !f.v.t.Keyed() {
		way = "the rows are in the lake: read the base store there, whose newest flush says up to which change (firn.seq-to), and then from=seq: that"
	}
	p := problemf(http.StatusGone, "changes-trimmed", "%s: the oldest is %d; %s", detail, oldest, way)
	p.oldest = uint64(oldest)
	return p
}

// reason names the end of a feed for the metrics, and tells the client what it can still be told.
func (f *feed) reason(err error) string {
	switch {
	case err == nil || errors.Is(err, errLimit):
		return "done"
	case f.out.err != nil:
		return "client"
	case errors.Is(err, context.Canceled):
		select {
		case <-f.a.closing:
			return "shutdown"
		default:
			return "client"
		}
	}
	p := f.a.asProblem(err)
	f.out.control(append(p.append([]byte(`{"error":`)), '}'))
	_ = f.out.flush() // the feed is over anyway
	if p.slug == "changes-trimmed" {
		return "trimmed"
	}
	return "failed"
}

// run sends until the feed is over. It closes snapshot.
func (f *feed) run(ctx context.Context, snapshot *logstore.Snapshot) error {
	if snapshot != nil {
		err := f.sendSnapshot(snapshot)
		if err := errors.Join(err, snapshot.Close()); err != nil {
			return err
		}
		f.next = snapshot.Applied
		if f.left == 0 {
			return errLimit
		}
	}
	for {
		_, applied, err := f.a.store.Bounds(f.v.t.ID)
		if err != nil {
			return err
		}
		for f.next < applied {
			if err := f.send(ctx, applied); err != nil {
				return err
			}
		}
		if err := f.out.flush(); err != nil || !f.follow {
			return err
		}
		if err := f.wait(ctx); err != nil {
			return err
		}
	}
}

func (f *feed) sendSnapshot(s *logstore.Snapshot) error {
	for row, err := range s.Rows(nil, nil) {
		if err != nil {
			return err
		}
		if f.left == 0 {
			return f.out.flush()
		}
		c := changelog.Change{Seq: row.Seq, Op: changelog.OpRead, Key: row.Key, After: row.Row}
		if err := f.append(&c, true); err != nil {
			return err
		}
		if f.out.full() {
			if err := f.out.flush(); err != nil {
				return err
			}
		}
	}
	if f.left == 0 {
		return f.out.flush()
	}
	line := strconv.AppendUint([]byte(`{"snapshot":"complete","applied":`), uint64(s.Applied), 10)
	f.out.controlAt(s.Applied, append(line, '}'))
	return f.out.flush()
}

// feedBursts is how many feeds may hold a part of the log while they wait for their clients.
const feedBursts = 64

// send sends what follows next, up to the end of an iteration. While it waits for the client, a few feeds at a time hold
// the part of the log that they have read; any other one holds nothing but its buffer, and reads the log again for the
// next one. Change files, which are slow to open, stay open until their changes are sent.
func (f *feed) send(ctx context.Context, to changelog.SeqNum) error {
	changes, hold := f.changes(ctx, to)
	if !hold {
		select {
		case f.a.bursts <- struct{}{}:
			hold = true
			defer func() { <-f.a.bursts }()
		default:
		}
	}
	var failed error
	for c, err := range changes {
		if failed = err; failed != nil {
			break
		}
		if failed = f.append(&c, false); failed != nil {
			break
		}
		f.next = c.Seq
		if f.left == 0 {
			failed = errLimit
			break
		}
		if !f.out.full() {
			continue
		}
		if !hold {
			break
		}
		if err := f.out.flush(); err != nil {
			return err
		}
	}
	if err := f.out.flush(); err != nil {
		return err
	}
	if errors.Is(failed, logstore.ErrTrimmed) {
		oldest, _, err := f.a.store.Bounds(f.v.t.ID)
		if err != nil {
			return err
		}
		return f.trimmed(oldest, fmt.Sprintf("change %d is no longer held", f.next+1))
	}
	return failed
}

// changes yields what follows next, from change files where the log no longer reaches (P5).
func (f *feed) changes(ctx context.Context, to changelog.SeqNum) (changes iter.Seq2[changelog.Change, error], files bool) {
	oldest, _, err := f.a.store.Bounds(f.v.t.ID)
	if err == nil && f.next+1 < oldest && f.a.o.ChangeFiles != nil {
		return f.a.o.ChangeFiles.Scan(ctx, f.v.t, f.next, min(to, oldest-1)), true
	}
	return f.a.store.Scan(ctx, f.v.t.ID, f.next, to), false
}

// wait returns when there is more to send; meanwhile it sends heartbeats and holds no buffer.
func (f *feed) wait(ctx context.Context) error {
	f.out.rest()
	for {
		waitCtx, cancel := ctx, context.CancelFunc(func() {})
		if f.heartbeat > 0 {
			waitCtx, cancel = context.WithTimeout(ctx, f.heartbeat)
		}
		_, err := f.a.store.Wait(waitCtx, f.v.t.ID, f.next)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		line := append([]byte(`{"heartbeat":"`), rowjson.AppendText(nil, instant, changelog.Value{I: f.a.o.Now().UnixMicro()})...)
		line = strconv.AppendUint(append(line, `","applied":`...), uint64(f.next), 10)
		f.out.control(append(line, '}'))
		if err := f.out.flush(); err != nil {
			return err
		}
	}
}

var instant = changelog.Primitive(changelog.TimestampTZ)

// append renders one change. row tells that it is a row of a snapshot: its SeqNum is no place to resume at.
func (f *feed) append(c *changelog.Change, row bool) error {
	if c.Op == changelog.OpTruncate {
		line := strconv.AppendUint([]byte(`{"truncate":`), uint64(c.Seq), 10)
		f.out.controlAt(c.Seq, append(line, '}'))
		return nil
	}
	if err := f.follows(c); err != nil {
		return err
	}
	o := f.out
	start := len(o.buffer())
	o.open(c.Seq, !row)
	buf, err := f.appendChange(o.buffer(), c, row)
	if err != nil {
		*o.buf = buf[:start] // no half line
		return err
	}
	*o.buf = buf
	o.close()
	if f.left > 0 {
		f.left--
	}
	f.a.metrics.feedChanges.Inc()
	return nil
}

func (f *feed) appendChange(buf []byte, c *changelog.Change, row bool) (_ []byte, err error) {
	buf = strconv.AppendUint(append(buf, `{"seq":`...), uint64(c.Seq), 10)
	buf = append(append(buf, `,"op":"`...), c.Op.String()...)
	buf = append(buf, `","key":`...)
	if c.Key == nil {
		buf = append(buf, "null"...)
	} else if buf, err = f.encoder.AppendKey(buf, c.Key); err != nil {
		return buf, err
	}
	if buf, err = f.appendImage(append(buf, `,"before":`...), c.Before); err != nil {
		return buf, err
	}
	if buf, err = f.appendImage(append(buf, `,"after":`...), c.After); err != nil {
		return buf, err
	}
	if !row {
		buf = appendOrigin(buf, c)
	}
	return append(buf, '}'), nil
}

// follows moves the feed to a newer schema of the table when a change is of one.
func (f *feed) follows(c *changelog.Change) error {
	newest := len(f.v.t.Schemas)
	for _, r := range [...]changelog.Row{c.Before, c.After} {
		if r == nil {
			continue
		}
		id, err := r.SchemaID()
		if err != nil {
			return err
		}
		if int(id) < newest {
			continue
		}
		t, ok := f.a.registry.ByID(f.v.t.ID)
		if !ok {
			return problemf(http.StatusNotFound, "table-not-found", "table %q is dropped", f.v.t.Name)
		}
		if f.v, err = f.a.view(t); err != nil {
			return err
		}
		if f.encoder, err = f.v.encoderOf(f.columns, false); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) appendImage(dst []byte, r changelog.Row) ([]byte, error) {
	if r == nil {
		return append(dst, "null"...), nil
	}
	return f.encoder.AppendRow(dst, r)
}

// appendOrigin appends where and when a change came from.
func appendOrigin(dst []byte, c *changelog.Change) []byte {
	dst = rowjson.AppendString(append(dst, `,"source":{"topic":`...), c.Position.Topic)
	dst = strconv.AppendInt(append(dst, `,"partition":`...), int64(c.Position.Partition), 10)
	dst = strconv.AppendInt(append(dst, `,"offset":`...), c.Position.Offset, 10)
	if kind, at, ok := strings.Cut(c.Position.Native, ":"); ok {
		dst = append(rowjson.AppendString(append(dst, ','), kind), ':')
		dst = rowjson.AppendString(dst, at)
	}
	dst = append(dst, `,"ts":`...)
	if c.SourceTime == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = appendInstant(dst, c.SourceTime)
	}
	dst = appendInstant(append(dst, `},"ingested":`...), c.IngestTime)
	if c.Txn != "" {
		dst = rowjson.AppendString(append(dst, `,"txn":`...), c.Txn)
	}
	return dst
}

func appendInstant(dst []byte, micros int64) []byte {
	return append(rowjson.AppendText(append(dst, '"'), instant, changelog.Value{I: micros}), '"')
}
