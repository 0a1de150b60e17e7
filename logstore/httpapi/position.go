package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"firn/changelog"
	"firn/logstore"
	"firn/state"
)

// defaultWait is timeout= where min= has none.
const defaultWait = 5 * time.Second

// Token returns the text of Firn-Position: all changes of the table up to seq are applied. Any table may wait for it.
func Token(table string, seq changelog.SeqNum) string {
	return "at:" + url.PathEscape(table) + "/" + strconv.FormatUint(uint64(seq), 10)
}

// headers are the header values of a table at one SeqNum.
type headers struct {
	seq               changelog.SeqNum
	applied, position []string
}

// headersAt returns the header values of seq: the newest are kept, as most answers share them.
func (v *tableView) headersAt(seq changelog.SeqNum) *headers {
	known := v.headers.Load()
	if known == nil || known.seq != seq {
		known = &headers{
			seq: seq, applied: []string{strconv.FormatUint(uint64(seq), 10)}, position: []string{Token(v.t.Name, seq)},
		}
		v.headers.Store(known)
	}
	return known
}

// setApplied sets Firn-Applied and Firn-Position, and that the answer is not to be stored.
func (v *tableView) setApplied(h http.Header, seq changelog.SeqNum) {
	known := v.headersAt(seq)
	h["Firn-Applied"], h["Firn-Position"], h["Cache-Control"] = known.applied, known.position, noStore
}

// awaitMin waits until the position of min= is applied, if it is given.
func (a *API) awaitMin(ctx context.Context, v *tableView, p parameters) error {
	text, ok := p["min"]
	if !ok {
		if _, alone := p["timeout"]; alone {
			return badRequest("timeout= without min=: there is nothing to wait for")
		}
		return nil
	}
	timeout, err := p.duration("timeout", defaultWait, a.o.MaxWait)
	if err != nil {
		return err
	}
	ctx, cancel := a.ending(ctx)
	defer cancel()
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	err = a.await(ctx, v.t, text)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		_, applied, err := a.store.Bounds(v.t.ID)
		if err != nil {
			return err
		}
		return &problemError{
			status: http.StatusServiceUnavailable, slug: "not-yet-applied", retry: 1, applied: applied, known: true,
			detail: "position " + text + " is not applied after " + timeout.String() + ": try again, or wait longer with timeout=",
		}
	}
	return err
}

// ending returns a context that ends with ctx and with the API.
func (a *API) ending(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// await blocks until a position is applied.
func (a *API) await(ctx context.Context, t *state.Table, text string) error {
	kind, rest, ok := strings.Cut(text, ":")
	if !ok || rest == "" {
		return badRequest("min=%s: not a position such as seq:17, kafka:topic/0/42, lsn:0/1A2B or the Firn-Position of an answer", text)
	}
	switch kind {
	case "seq":
		seq, err := strconv.ParseUint(rest, 10, 64)
		if err != nil {
			return badRequest("min=%s: not seq:N", text)
		}
		return a.awaitSeq(ctx, t.ID, changelog.SeqNum(seq))
	case "at":
		return a.awaitToken(ctx, text, rest)
	case "kafka":
		return a.awaitOffset(ctx, t, text, rest)
	case "lsn", "gtid", "binlog", "scn":
		return a.awaitNative(ctx, t.ID, text)
	}
	return problemf(http.StatusBadRequest, "position-unknown", "min=%s: positions are seq:, kafka:, lsn:, gtid:, binlog:, scn: or a Firn-Position", text)
}

// awaitNative waits for a position of the database, also before the first change that has one of its kind.
func (a *API) awaitNative(ctx context.Context, table changelog.TableID, text string) error {
	if strings.IndexByte("0123456789", text[len(text)-1]) < 0 && !strings.HasPrefix(text, "lsn:") {
		return badRequest("min=%s: not a position of its kind", text) // all kinds end in a number
	}
	for {
		_, applied, err := a.store.Bounds(table)
		if err != nil {
			return err
		}
		if err := a.store.WaitNative(ctx, table, text); !errors.Is(err, logstore.ErrUnknown) {
			return err
		}
		if _, err := a.store.Wait(ctx, table, applied); err != nil {
			return err
		}
	}
}

func (a *API) awaitSeq(ctx context.Context, table changelog.TableID, seq changelog.SeqNum) error {
	if _, applied, err := a.store.Bounds(table); err != nil || applied >= seq {
		return err
	}
	_, err := a.store.Wait(ctx, table, seq-1)
	return err
}

func (a *API) awaitToken(ctx context.Context, text, rest string) error {
	raw, number, ok := strings.Cut(rest, "/")
	name, err := url.PathUnescape(raw)
	seq, numberErr := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || numberErr != nil {
		return badRequest("min=%s: not a token of this server", text)
	}
	t, ok := a.registry.Table(name)
	if !ok {
		return problemf(http.StatusBadRequest, "position-unknown", "min=%s: no table %q", text, name)
	}
	return a.awaitSeq(ctx, t.ID, changelog.SeqNum(seq))
}

// awaitOffset waits for topic/partition/offset. The table's own topics say which source that is.
func (a *API) awaitOffset(ctx context.Context, t *state.Table, text, rest string) error {
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return badRequest("min=%s: not kafka:topic/partition/offset", text)
	}
	partition, err := strconv.ParseInt(parts[1], 10, 32)
	offset, offsetErr := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || offsetErr != nil || partition < 0 || offset < 0 {
		return badRequest("min=%s: not kafka:topic/partition/offset", text)
	}
	for _, topic := range t.Topics {
		if topic.Topic == parts[0] {
			stream := changelog.StreamID{Source: topic.Source, Topic: topic.Topic, Partition: int32(partition)}
			return a.store.WaitPosition(ctx, stream, offset)
		}
	}
	return problemf(http.StatusBadRequest, "position-unknown", "min=%s: topic %q does not feed table %q", text, parts[0], t.Name)
}
