package httpapi

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"

	"firn/changelog"
	"firn/changelog/rowjson"
)

// bagDump is a dump of what the log's changes (from, to] of a table without a key have left: rows as changelog.Bag folds
// them, those of one hash in each pass.
type bagDump struct {
	a        *API
	v        *tableView
	columns  []string
	from, to changelog.SeqNum
	seed     maphash.Seed
	passes   uint64

	whole, shown *rowjson.Encoder // rows are told apart by all columns, whichever are shown
	pass         uint64
	bag          changelog.Bag
	line         []byte
}

// run calls emit with each row. A line is valid during the call.
func (d *bagDump) run(ctx context.Context, emit func(line []byte) error) (err error) {
	if d.whole, err = d.encoder(nil); err != nil {
		return err
	}
	if len(d.columns) > 0 {
		if d.shown, err = d.encoder(d.columns); err != nil {
			return err
		}
	}
	for d.pass = range d.passes {
		d.bag = changelog.Bag{}
		if err := d.scan(ctx); err != nil {
			return err
		}
		for row, n := range d.bag.Added {
			line := []byte(row)
			line = line[bytes.IndexByte(line, 0)+1:]
			for range n {
				if err := emit(line); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// encoder returns one of the table as it is now: it knows the schemas of all changes up to d.to.
func (d *bagDump) encoder(columns []string) (*rowjson.Encoder, error) {
	e, err := d.v.encoderOf(columns, true)
	if err != nil {
		return nil, err
	}
	return d.a.renewed(d.v, e, columns, true)
}

func (d *bagDump) scan(ctx context.Context) error {
	for c, err := range d.a.store.Scan(ctx, d.v.t.ID, d.from, d.to) {
		if err != nil {
			return err
		}
		if c.Op == changelog.OpTruncate {
			d.bag.Truncate()
			continue
		}
		if err := errors.Join(d.image(c.Before, d.bag.Take), d.image(c.After, d.bag.Add)); err != nil {
			return err
		}
	}
	return nil
}

// image calls do with a row as the bag knows it: the whole row, and after a zero byte, which JSON does not have, what is
// shown of it.
func (d *bagDump) image(r changelog.Row, do func([]byte)) (err error) {
	if r == nil {
		return nil
	}
	if d.line, err = d.whole.AppendRow(d.line[:0], r); err != nil || maphash.Bytes(d.seed, d.line)%d.passes != d.pass {
		return err
	}
	if d.shown != nil {
		if d.line, err = d.shown.AppendRow(append(d.line, 0), r); err != nil {
			return err
		}
	}
	do(d.line)
	return nil
}
