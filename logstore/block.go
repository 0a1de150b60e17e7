package logstore

import (
	"encoding/binary"
	"fmt"
	"iter"
	"unsafe"

	"firn/changelog"
)

// A block is the value of the log space: changes of one table from one append, in order. FORMAT.md draws it. The
// version and the flags are written to disk: append only.
const (
	blockVersion = 1
	blockFixed   = 1 + 8 // version, bytes of the table's log before this block

	// blockTarget closes a block: large enough that a scan seeks seldom, small enough to be read whole.
	blockTarget = 128 << 10
)

const (
	flagOp         = 0x07
	flagBefore     = 0x08
	flagAfter      = 0x10
	flagSameStream = 0x20 // as the change before; else its number follows
	flagSameNative = 0x40
	flagSameTxn    = 0x80
)

// Block is a part of a table's log: the changes First to Last. It is immutable and its bytes are its own: changes taken
// from it stay valid, and keep all of it in memory, as long as they are held. Safe for concurrent use.
type Block struct {
	First, Last changelog.SeqNum
	// Streams is how far the streams that have changes in the block are applied once the block is. Next is at most
	// one past the last record taken in with the block.
	Streams []changelog.StreamPosition

	first   changelog.SeqNum // of data; First may be later
	before  uint64           // bytes of the table's log before this block
	deletes uint64           // number of deletes in data
	ingest  int64            // of the first change
	source  int64            // of the first change
	offsets []int64          // the first offset of each stream
	changes []byte
	bytes   int
}

// IngestTime returns when the block's first change was taken in, µs since 1970-01-01 UTC.
func (b *Block) IngestTime() int64 { return b.ingest }

// Bytes returns the size of the stored block.
func (b *Block) Bytes() int { return b.bytes }

// blockStream is the state of one stream while a block is written or read.
type blockStream struct {
	id     changelog.StreamID
	offset int64 // of the last change
	first  int64
	next   int64
}

// blockWriter encodes blocks. It is reused.
type blockWriter struct {
	body    []byte
	streams []blockStream

	count, deletes uint64
	ingest, source int64 // of the first change
	last           struct {
		ingest, source int64
		native, txn    string
	}
	stream int // of the last change
}

func (w *blockWriter) reset() {
	*w = blockWriter{body: w.body[:0], streams: w.streams[:0], stream: -1}
}

// add appends c. sameRecord tells that the change after c comes from the same record.
func (w *blockWriter) add(c *changelog.Change, sameRecord bool) {
	if w.count == 0 {
		w.ingest, w.source = c.IngestTime, c.SourceTime
		w.last.ingest, w.last.source = c.IngestTime, c.SourceTime
	}
	w.count++
	if c.Op == changelog.OpDelete {
		w.deletes++
	}
	p := len(w.body)
	b := append(w.body, byte(c.Op)&flagOp)
	n := w.streamOf(&c.Position)
	if n == w.stream {
		b[p] |= flagSameStream
	} else {
		b = binary.AppendUvarint(b, uint64(n)) //nolint:gosec // an index
		w.stream = n
	}
	s := &w.streams[n]
	b = binary.AppendVarint(b, c.Position.Offset-s.offset)
	s.offset, s.next = c.Position.Offset, c.Position.Offset
	if !sameRecord {
		s.next++
	}
	b = binary.AppendVarint(b, c.SourceTime-w.last.source)
	b = binary.AppendVarint(b, c.IngestTime-w.last.ingest)
	if c.Position.Native == w.last.native {
		b[p] |= flagSameNative
	} else {
		b = appendString(b, c.Position.Native)
	}
	if c.Txn == w.last.txn {
		b[p] |= flagSameTxn
	} else {
		b = appendString(b, c.Txn)
	}
	b = appendBytes(b, c.Key)
	if c.Before != nil {
		b[p] |= flagBefore
		b = appendBytes(b, c.Before)
	}
	if c.After != nil {
		b[p] |= flagAfter
		b = appendBytes(b, c.After)
	}
	w.body, w.last.ingest, w.last.source = b, c.IngestTime, c.SourceTime
	w.last.native, w.last.txn = c.Position.Native, c.Txn
}

func (w *blockWriter) streamOf(p *changelog.Position) int {
	if w.stream >= 0 {
		if id := &w.streams[w.stream].id; id.Partition == p.Partition && id.Topic == p.Topic && id.Source == p.Source {
			return w.stream
		}
	}
	id := changelog.StreamID{Source: p.Source, Topic: p.Topic, Partition: p.Partition}
	for i := range w.streams {
		if w.streams[i].id == id {
			return i
		}
	}
	w.streams = append(w.streams, blockStream{id: id, offset: p.Offset, first: p.Offset})
	return len(w.streams) - 1
}

// appendTo appends the block to dst. Its bytes-before field is zero: the committer knows it.
func (w *blockWriter) appendTo(dst []byte) []byte {
	dst = append(dst, blockVersion, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.AppendUvarint(dst, w.count)
	dst = binary.AppendUvarint(dst, w.deletes)
	dst = binary.AppendVarint(dst, w.ingest)
	dst = binary.AppendVarint(dst, w.source)
	dst = binary.AppendUvarint(dst, uint64(len(w.streams)))
	for i := range w.streams {
		s := &w.streams[i]
		dst = appendString(dst, s.id.Source)
		dst = appendString(dst, s.id.Topic)
		dst = binary.AppendVarint(dst, int64(s.id.Partition))
		dst = binary.AppendVarint(dst, s.first)
		dst = binary.AppendVarint(dst, s.next-s.first)
	}
	return append(dst, w.body...)
}

// parseBlock reads the block that is stored under first. It keeps data.
func parseBlock(first changelog.SeqNum, data []byte) (*Block, error) {
	if len(data) < blockFixed || data[0] != blockVersion {
		return nil, fmt.Errorf("block %d of %d bytes: %w", first, len(data), errCorrupt)
	}
	r := reader{b: data[blockFixed:]}
	b := &Block{First: first, first: first, before: binary.BigEndian.Uint64(data[1:]), bytes: len(data)}
	count := r.uvarint()
	b.deletes = r.uvarint()
	b.ingest, b.source = r.varint(), r.varint()
	n := r.uvarint()
	if r.bad || count == 0 || n > uint64(len(data)) {
		return nil, fmt.Errorf("block %d of %d bytes: %w", first, len(data), errCorrupt)
	}
	b.Last = first + changelog.SeqNum(count) - 1
	b.Streams, b.offsets = make([]changelog.StreamPosition, n), make([]int64, n)
	for i := range b.Streams {
		s := &b.Streams[i]
		s.Source, s.Topic, s.Partition = r.text(), r.text(), int32(r.varint()) //nolint:gosec // written as int32
		b.offsets[i] = r.varint()
		s.Next = b.offsets[i] + r.varint()
	}
	if r.bad {
		return nil, fmt.Errorf("block %d, header: %w", first, errCorrupt)
	}
	b.changes = r.b
	return b, nil
}

// Changes yields the block's changes from First to Last. An error comes last.
func (b *Block) Changes() iter.Seq2[changelog.Change, error] {
	return func(yield func(changelog.Change, error) bool) {
		offsets := make([]int64, 0, 8)
		r := blockReader{block: b, r: reader{b: b.changes}, offsets: append(offsets, b.offsets...), stream: -1}
		r.c.Seq, r.c.SourceTime, r.c.IngestTime = b.first-1, b.source, b.ingest
		for r.c.Seq < b.Last {
			if err := r.next(); err != nil {
				yield(changelog.Change{}, err)
				return
			}
			if r.c.Seq >= b.First && !yield(r.c, nil) {
				return
			}
		}
	}
}

// blockReader reads the changes of one block in order, without allocating.
type blockReader struct {
	block   *Block
	r       reader
	c       changelog.Change
	offsets []int64 // of the last change of each stream
	stream  int
}

func (br *blockReader) next() error {
	r, c := &br.r, &br.c
	flags := r.byte()
	c.Seq++
	c.Op = changelog.Op(flags & flagOp)
	if flags&flagSameStream == 0 {
		n := r.uvarint()
		if n >= uint64(len(br.offsets)) {
			return fmt.Errorf("block %d, change %d, stream %d: %w", br.block.first, c.Seq, n, errCorrupt)
		}
		br.stream = int(n) //nolint:gosec // below the number of streams
		id := &br.block.Streams[n].StreamID
		c.Position.Source, c.Position.Topic, c.Position.Partition = id.Source, id.Topic, id.Partition
	}
	if br.stream < 0 {
		return fmt.Errorf("block %d, change %d without a stream: %w", br.block.first, c.Seq, errCorrupt)
	}
	br.offsets[br.stream] += r.varint()
	c.Position.Offset = br.offsets[br.stream]
	c.SourceTime += r.varint()
	c.IngestTime += r.varint()
	if flags&flagSameNative == 0 {
		c.Position.Native = r.text()
	}
	if flags&flagSameTxn == 0 {
		c.Txn = r.text()
	}
	c.Key, c.Before, c.After = r.bytes(), nil, nil
	if len(c.Key) == 0 {
		c.Key = nil
	}
	if flags&flagBefore != 0 {
		c.Before = r.bytes()
	}
	if flags&flagAfter != 0 {
		c.After = r.bytes()
	}
	if r.bad || c.Op < changelog.OpCreate || c.Op > changelog.OpTruncate {
		return fmt.Errorf("block %d, change %d: %w", br.block.first, c.Seq, errCorrupt)
	}
	return nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// reader cuts values off stored bytes. After a wrong one, bad is set and all further values are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes returns a part of the bytes read, not nil.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// text returns bytes as a string without a copy: whoever made the reader promises that they do not change.
func (r *reader) text() string {
	b := r.bytes()
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
