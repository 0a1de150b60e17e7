package httpapi

import (
	"context"
	"hash/maphash"
	"net/http"

	"firn/changelog"
	"firn/changelog/rowjson"
)

// serveDump answers GET /v1/tables/{t}/dump: rows as JSON lines, columns sorted by name.
func (a *API) serveDump(w http.ResponseWriter, r *http.Request, args [2]string, query string) error {
	if r.Method == http.MethodHead {
		return badRequest("HEAD of a dump: GET it")
	}
	v, err := a.table(args[0])
	if err != nil {
		return err
	}
	p, err := parseQuery(query, "from", "columns", "min", "timeout")
	if err != nil {
		return err
	}
	from, err := p.oneOf("from", "index", "log")
	if err != nil {
		return err
	}
	if from == "index" {
		if _, err := a.keyed(args[0]); err != nil {
			return err
		}
	}
	columns, err := p.columns()
	if err != nil {
		return err
	}
	if err := a.awaitMin(r.Context(), v, p); err != nil {
		return err
	}
	releaseFeed, err := a.admit(a.feeds, "feeds")
	if err != nil {
		return err
	}
	defer releaseFeed()
	releaseSnapshot, err := a.admit(a.snapshots, "snapshots")
	if err != nil {
		return err
	}
	defer releaseSnapshot()
	ctx, cancel := a.ending(r.Context())
	defer cancel()
	out := &feedWriter{}
	begin := func(applied changelog.SeqNum) {
		v.setApplied(w.Header(), applied)
		out.begin(w, a)
	}
	emit := func(line []byte) error {
		out.control(line)
		if out.full() {
			return out.flush()
		}
		return nil
	}
	if from == "log" {
		err = a.DumpLog(ctx, v.t.Name, columns, begin, emit)
	} else {
		err = a.DumpIndex(ctx, v.t.Name, columns, begin, emit)
	}
	switch {
	case out.err != nil:
		return nil // the client is gone
	case err != nil:
		return out.fail(a, err)
	}
	_ = out.flush() // a client that is gone needs no answer
	out.end()
	return nil
}

// DumpIndex calls begin with the SeqNum that the rows reflect and then emit with each row of the key index, columns
// sorted by name, in key order. A line is valid during the call.
func (a *API) DumpIndex(ctx context.Context, table string, columns []string, begin func(changelog.SeqNum), emit func(line []byte) error) error {
	v, encoder, err := a.dumping(table, columns)
	if err != nil {
		return err
	}
	snapshot, err := a.openSnapshot(ctx, v)
	if err != nil {
		return err
	}
	defer snapshot.Close() //nolint:errcheck // read only: what it could not read it has said already
	if encoder, err = a.renewed(v, encoder, columns, true); err != nil {
		return err
	}
	begin(snapshot.Applied)
	buf := takeBuffer()
	defer giveBuffer(buf)
	for row, err := range snapshot.Rows(nil, nil) {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if *buf, err = encoder.AppendRow((*buf)[:0], row.Row); err != nil {
			return err
		}
		if err := emit(*buf); err != nil {
			return err
		}
	}
	return nil
}

// DumpLog is DumpIndex for the rows that the changes held by the log have left, in no order. It reads no row of the
// index. Memory is bounded: a long log takes several passes.
func (a *API) DumpLog(ctx context.Context, table string, columns []string, begin func(changelog.SeqNum), emit func(line []byte) error) error {
	v, encoder, err := a.dumping(table, columns)
	if err != nil {
		return err
	}
	oldest, applied, err := a.store.Bounds(v.t.ID)
	if err != nil {
		return err
	}
	begin(applied)
	from := max(oldest, 1) - 1
	passes := uint64(applied-from)/uint64(a.o.DumpKeys) + 1 //nolint:gosec // validated as positive
	seed := maphash.MakeSeed()
	if !v.t.Keyed() {
		d := bagDump{a: a, v: v, columns: columns, from: from, to: applied, seed: seed, passes: passes}
		return d.run(ctx, emit)
	}
	for pass := range passes {
		rows := map[string]changelog.Row{}
		for c, err := range a.store.Scan(ctx, v.t.ID, from, applied) {
			if err != nil {
				return err
			}
			if c.Key == nil || maphash.Bytes(seed, c.Key)%passes != pass {
				continue
			}
			if c.After == nil {
				delete(rows, string(c.Key))
			} else {
				rows[string(c.Key)] = append(changelog.Row(nil), c.After...)
			}
		}
		if encoder, err = a.renewed(v, encoder, columns, true); err != nil {
			return err
		}
		if err := emitRows(encoder, rows, emit); err != nil {
			return err
		}
	}
	return nil
}

func emitRows(encoder *rowjson.Encoder, rows map[string]changelog.Row, emit func(line []byte) error) error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for _, r := range rows {
		var err error
		if *buf, err = encoder.AppendRow((*buf)[:0], r); err != nil {
			return err
		}
		if err := emit(*buf); err != nil {
			return err
		}
	}
	return nil
}

func (a *API) dumping(table string, columns []string) (*tableView, *rowjson.Encoder, error) {
	v, err := a.table(table)
	if err != nil {
		return nil, nil, err
	}
	encoder, err := v.encoderOf(columns, true)
	return v, encoder, err
}
