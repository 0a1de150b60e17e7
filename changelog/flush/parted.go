package flush

import (
	"fmt"
	"maps"
	"slices"

	"firn/changelog"
	"firn/changelog/datafile"
	"firn/changelog/mixed"
	"firn/changelog/table"
)

// parted holds the rows of a batch by partition. Memory: the rows, and about imageBytes each.
type parted struct {
	of         *table.Partitioner
	inKey      bool // the key tells the partition
	rows       *datafile.Projector
	buckets    int // over so many nodes a partition is spread that has
	bucketRows int // so many rows
	images     map[string][]image
	arena      []byte
	current    string // the partition that is being written
}

// image is a row that waits to be written: of an I file or an ED file.
type image struct {
	kind int
	seq  changelog.SeqNum
	hash int32
	key  changelog.Key // the row is this key and nulls; nil: row is the row
	row  changelog.Row
}

// imageBytes is about what an image takes beside its row.
const imageBytes = 96

// partition makes b one of a table with partitions; a partition with fewer than bucketRows rows is not spread over nodes.
func (b *batch) partition(of *table.Partitioner, history changelog.Schemas, bucketRows int) {
	b.parted = &parted{
		of: of, inKey: of.InKey(b.schema), rows: datafile.NewProjector(history, b.schema), buckets: b.buckets, bucketRows: bucketRows,
		images: map[string][]image{},
	}
}

// holdInsert puts a row of a table without a key in its partition.
func (b *batch) holdInsert(c *changelog.Change) error {
	p := b.parted
	to, err := p.place(c.After)
	if err != nil {
		return fmt.Errorf("change %d: %w", c.Seq, err)
	}
	p.add(to, image{kind: inserts, seq: c.Seq, row: p.keep(c.After)})
	return nil
}

// hold puts the rows of a change in their partitions: the delete row in that of the before image, which kills what the key has
// there, and the insert row in that of the after image. Where rows can leave their partition, no before image means that the key
// had no row (state.Table.Partition): there is nothing to delete, and a delete row of a key and nulls would not belong where
// the new row is. A delete without one is told of where its nulls belong.
func (b *batch) hold(c *changelog.Change, key []changelog.Value) error {
	p := b.parted
	hash := int32(0)
	if p.buckets > 1 {
		hash = mixed.KeyHash(b.types, key)
	}
	to, err := p.place(c.After)
	if err != nil {
		return fmt.Errorf("change %d: %w", c.Seq, err)
	}
	from := ""
	switch {
	case p.inKey:
		from = p.of.Path(b.keyRow(key))
		to = from
	case c.Before != nil:
		if from, err = p.place(c.Before); err != nil {
			return fmt.Errorf("change %d: %w", c.Seq, err)
		}
	case c.After == nil:
		from = p.of.Path(b.keyRow(key))
	}
	if c.Before != nil {
		p.add(from, image{kind: deletes, seq: c.Seq, hash: hash, row: p.keep(c.Before)})
	} else if from != "" {
		p.add(from, image{kind: deletes, seq: c.Seq, hash: hash, key: p.keep(c.Key)})
	}
	if c.After != nil {
		p.add(to, image{kind: inserts, seq: c.Seq, hash: hash, row: p.keep(c.After)})
	}
	return nil
}

func (p *parted) add(partition string, i image) { p.images[partition] = append(p.images[partition], i) }

// place returns the partition of a row; "" for none.
func (p *parted) place(r changelog.Row) (string, error) {
	if r == nil || p.inKey {
		return "", nil
	}
	values, err := p.rows.Values(r)
	if err != nil {
		return "", err
	}
	return p.of.Path(values), nil
}

// arenaBytes is how much memory rows are copied to at a time.
const arenaBytes = 256 << 10

func (p *parted) keep(b []byte) []byte {
	if len(p.arena)+len(b) > cap(p.arena) {
		p.arena = make([]byte, 0, max(arenaBytes, len(b)))
	}
	n := len(p.arena)
	p.arena = append(p.arena, b...)
	return p.arena[n:len(p.arena):len(p.arena)]
}

// writeHeld writes what is held, one partition after the other.
func (b *batch) writeHeld() error {
	p := b.parted
	for _, path := range slices.Sorted(maps.Keys(p.images)) {
		images := p.images[path]
		delete(p.images, path)
		b.spread(1)
		if len(images) >= p.bucketRows {
			b.spread(p.buckets)
		}
		p.current = path
		first := len(b.files)
		for i := range images {
			if err := b.writeImage(&images[i]); err != nil {
				return err
			}
		}
		if err := b.closeFiles(first); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) writeImage(m *image) error {
	node := int(mixed.NodeFor(m.hash, b.buckets).Index)
	if m.key == nil {
		return b.write(m.kind, node, m.row, m.seq)
	}
	key, err := b.schema.KeyValues(m.key)
	if err != nil {
		return fmt.Errorf("change %d: %w", m.seq, err)
	}
	return b.writeValues(m.kind, node, b.keyRow(key), m.seq)
}
