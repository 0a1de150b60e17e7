package decode

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/zeebo/xxh3"

	"firn/changelog"
)

// The members of the source block that mean something here (1.10, 2.2).
const (
	srcConnector = iota
	srcName
	srcDB
	srcSchema
	srcTable
	srcCollection
	srcSnapshot
	srcTsMs
	srcTsUs
	srcTsNs
	srcSequence
	srcTxID
	srcLSN
	srcGTID
	srcFile
	srcPos
	srcRow
	srcServerID
	srcCommitLSN
	srcChangeLSN
	srcSerial
	srcSCN
	srcCommitSCN
	srcRsID
	srcSSN
	srcTxSeq
	srcLCR
	srcOrd
	srcLsid
	srcTxnNumber
	srcMembers
)

func sourceMember(name []byte) int {
	switch string(name) {
	case "connector":
		return srcConnector
	case "name":
		return srcName
	case "db":
		return srcDB
	case "schema":
		return srcSchema
	case "table":
		return srcTable
	case "collection":
		return srcCollection
	case "snapshot":
		return srcSnapshot
	case "ts_ms":
		return srcTsMs
	case "ts_us":
		return srcTsUs
	case "ts_ns":
		return srcTsNs
	case "sequence":
		return srcSequence
	case "txId":
		return srcTxID
	case "lsn":
		return srcLSN
	default:
		return rareMember(name)
	}
}

func rareMember(name []byte) int {
	switch string(name) {
	case "gtid":
		return srcGTID
	case "file":
		return srcFile
	case "pos":
		return srcPos
	case "row":
		return srcRow
	case "server_id":
		return srcServerID
	case "commit_lsn":
		return srcCommitLSN
	case "change_lsn":
		return srcChangeLSN
	case "event_serial_no":
		return srcSerial
	case "scn":
		return srcSCN
	case "commit_scn":
		return srcCommitSCN
	case "rs_id":
		return srcRsID
	case "ssn":
		return srcSSN
	case "txSeq":
		return srcTxSeq
	case "lcr_position":
		return srcLCR
	case "ord":
		return srcOrd
	case "lsid":
		return srcLsid
	case "txnNumber":
		return srcTxnNumber
	}
	return srcMembers
}

// source is a source block: its members as they stand in the document; nil: absent or null.
type source [srcMembers][]byte

func (d *Decoder) readSource() bool {
	if d.peek() != '{' {
		return d.skip(maxDepth-1) && d.fail(ReasonSourceInvalid, "no object")
	}
	names := nameSet{x: &d.scanner, base: len(d.names)}
	defer names.release()
	var seen uint64
	for more := d.open(); more; more = d.more('}') {
		name, ok := d.text()
		if !ok || !d.next(':') {
			return false
		}
		m := sourceMember(name)
		if m == srcMembers {
			if !names.add(name) || !d.skip(maxDepth-2) {
				return false
			}
			continue
		}
		if seen>>m&1 == 1 {
			return d.fail(ReasonJSONDuplicateKey, "member %s is there twice", quote(name))
		}
		seen |= 1 << m
		d.peek()
		from := d.p
		if !d.skip(maxDepth - 2) {
			return false
		}
		if d.b[from] != 'n' {
			d.env.source[m] = d.b[from:d.p]
		}
	}
	return d.err == nil
}

// interned keeps the string of text that most records repeat.
type interned struct {
	raw  []byte
	text string
}

const lastText = srcCollection + 2 // the members up to srcCollection, and the transaction

// intern returns the text of a JSON string, or the bytes of another value, as a string.
func (d *Decoder) intern(slot int, raw []byte) string {
	if raw == nil {
		return ""
	}
	t := &d.texts[slot]
	if !bytes.Equal(t.raw, raw) {
		t.raw = append(t.raw[:0], raw...)
		t.text = string(d.plain(raw))
	}
	return t.text
}

// plain returns the text of a JSON string as it stands in the document, or the bytes of another value.
func (d *Decoder) plain(raw []byte) []byte {
	if len(raw) < 2 || raw[0] != '"' {
		return raw
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return d.unescaped(raw)
}

// number64 reads an integer that stands in the source block; false if it is none.
func number64(raw []byte) (int64, bool) {
	i, err := strconv.ParseInt(str(raw), 10, 64)
	return i, err == nil
}

// origin takes from the source block what an event says of where it comes from.
func (d *Decoder) origin() bool {
	s, ev := &d.env.source, &d.ev
	ev.Connector = d.intern(srcConnector, s[srcConnector])
	ev.SourceName = d.intern(srcName, s[srcName])
	ev.Database = d.intern(srcDB, s[srcDB])
	ev.Schema = d.intern(srcSchema, s[srcSchema])
	table := srcTable
	if s[srcTable] == nil {
		table = srcCollection
	}
	ev.Table = d.intern(table, s[table])
	if from := connectorOf(ev.Connector); from != d.from {
		d.from = from
		d.loose.stale = true
		if w := d.env.schema; w != nil {
			*w = *d.recompile(w, from)
			d.env.row, d.env.stale = w.row, true
		}
	}
	if want := d.o.SourceTable; want != "" && want != ev.Table && want != ev.Schema+"."+ev.Table && want != ev.Database+"."+ev.Table {
		return d.fail(ReasonSourceMismatch, "table %s", quote([]byte(ev.Table)))
	}
	if !d.snapshot(s[srcSnapshot]) {
		return false
	}
	if ev.SourceTime = sourceTime(s); ev.SourceTime == 0 {
		ev.SourceTime = d.cloudTime()
	}
	d.position()
	return true
}

func (d *Decoder) snapshot(raw []byte) bool {
	switch string(d.plain(raw)) {
	case "", "false":
		d.ev.Snapshot = SnapshotNone
	case "true":
		d.ev.Snapshot = SnapshotRow
	case "first":
		d.ev.Snapshot = SnapshotFirst
	case "first_in_data_collection":
		d.ev.Snapshot = SnapshotFirstInTable
	case "last_in_data_collection":
		d.ev.Snapshot = SnapshotLastInTable
	case "last":
		d.ev.Snapshot = SnapshotLast
	case "incremental":
		d.ev.Snapshot = SnapshotIncremental
	default:
		return d.fail(ReasonSourceInvalid, "snapshot %s", quote(raw))
	}
	return true
}

// sourceTime returns the time of the source's commit in µs, or 0.
func sourceTime(s *source) int64 {
	if us, ok := number64(s[srcTsUs]); ok {
		return us
	}
	if ms, ok := number64(s[srcTsMs]); ok && ms < 1<<53 && ms > -1<<53 {
		return ms * 1000
	}
	if ns, ok := number64(s[srcTsNs]); ok {
		return floorDiv(ns, 1000)
	}
	return 0
}

// position sets Native and Txn (2.2).
func (d *Decoder) position() {
	s, ev := &d.env.source, &d.ev
	txn := d.env.txID
	if len(txn) > 0 && txn[0] == 'n' {
		txn = nil
	}
	b := d.scratch[:0]
	other := -1 // what stands for the transaction without transaction metadata
	switch d.from {
	case connectorPostgres:
		if i := bytes.IndexByte(txn, ':'); i > 0 { // "<txId>:<the event's own LSN>"
			txn = bytes.TrimPrefix(txn[:i], []byte{'"'})
		}
		b, other = d.postgresPosition(b), srcTxID
	case connectorMySQL, connectorMariaDB:
		b, other = d.binlogPosition(b), srcGTID
	case connectorSQLServer, connectorDB2:
		b, other = d.commitPosition(b), srcCommitLSN
	case connectorOracle:
		scn := d.plain(s[srcCommitSCN])
		if len(scn) == 0 {
			scn = d.plain(s[srcSCN])
		}
		if len(scn) > 0 {
			b = append(append(b, "scn:"...), scn...)
		}
		other = srcTxID
	case connectorMongoDB:
		if txn == nil && s[srcLsid] != nil && s[srcTxnNumber] != nil {
			txn = append(append(append([]byte(nil), d.plain(s[srcLsid])...), ':'), s[srcTxnNumber]...)
		}
	case connectorOther:
	}
	if txn == nil && other >= 0 {
		txn = s[other]
	}
	if d.native != string(b) {
		d.native = string(b)
	}
	ev.Native, ev.Txn, ev.TxnOrder = d.native, d.intern(lastText-1, txn), d.env.txOrder
	d.scratch = b
}

// binlogPosition appends gtid:…, or binlog:file/pos where the source has no GTIDs.
func (d *Decoder) binlogPosition(b []byte) []byte {
	s := &d.env.source
	if gtid := d.plain(s[srcGTID]); len(gtid) > 0 {
		return append(append(b, "gtid:"...), gtid...)
	}
	if file := d.plain(s[srcFile]); len(file) > 0 && s[srcPos] != nil {
		return append(append(append(append(b, "binlog:"...), file...), '/'), s[srcPos]...)
	}
	return b
}

// commitPosition appends commit-lsn:<commit>/<change>/<serial>, as much of it as there is.
func (d *Decoder) commitPosition(b []byte) []byte {
	s := &d.env.source
	commit := d.plain(s[srcCommitLSN])
	if len(commit) == 0 {
		return b
	}
	b = append(append(b, "commit-lsn:"...), commit...)
	if change := d.plain(s[srcChangeLSN]); len(change) > 0 {
		b = append(append(b, '/'), change...)
	}
	if s[srcSerial] != nil {
		b = append(append(b, '/'), s[srcSerial]...)
	}
	return b
}

// postgresPosition appends lsn:0/1A2B. A sequence that cannot be read is reported, and the event has no identity.
func (d *Decoder) postgresPosition(b []byte) []byte {
	s := &d.env.source
	lsn, ok := number64(s[srcLSN])
	if seq := d.plain(s[srcSequence]); len(seq) > 0 {
		last, sound := sequenceLSN(seq)
		if !sound {
			d.column = ""
			d.report(ReasonPosition, "source.sequence is "+quote(seq))
			d.env.unreadable = true
		} else if !ok {
			lsn, ok = number64(last)
		}
	}
	if !ok {
		return b
	}
	u := uint64(lsn) //nolint:gosec // LSNs are unsigned
	b = append(b, "lsn:"...)
	b = appendUpperHex(b, uint32(u>>32)) //nolint:gosec // the upper half
	b = append(b, '/')
	return appendUpperHex(b, uint32(u)) //nolint:gosec // the lower half
}

func appendUpperHex(dst []byte, u uint32) []byte {
	const digits = "0123456789ABCDEF"
	shift := 28
	for shift > 0 && u>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[u>>shift&15])
	}
	return dst
}

// sequenceLSN returns the second number of ["24023128","24023400"], whose parts may be null.
func sequenceLSN(seq []byte) (last []byte, ok bool) {
	x := scanner{b: seq}
	if !x.next('[') {
		return nil, false
	}
	for i, closing := range []byte{',', ']'} {
		if x.peek() == 'n' {
			if !x.literal("null") {
				return nil, false
			}
		} else if last, ok = x.text(); !ok {
			return nil, false
		}
		if i == 0 {
			last = nil
		}
		if !x.next(closing) {
			return nil, false
		}
	}
	return last, x.end()
}

// identityMembers are the position fields of each connector's identity (2.4). The first must be there.
var identityMembers = [...][]int{
	connectorOther:     nil,
	connectorPostgres:  {srcLSN, srcTxID},
	connectorMySQL:     {srcFile, srcServerID, srcGTID, srcPos, srcRow},
	connectorMariaDB:   {srcFile, srcServerID, srcGTID, srcPos, srcRow},
	connectorSQLServer: {srcCommitLSN, srcChangeLSN, srcSerial},
	connectorDB2:       {srcCommitLSN, srcChangeLSN},
	connectorOracle:    {srcSCN, srcTxID, srcCommitSCN, srcRsID, srcSSN, srcTxSeq, srcLCR},
	connectorMongoDB:   {srcOrd, srcTsMs, srcLsid, srcTxnNumber},
}

// separates tells whether the connector's position is another one for each of several equal rows (2.2, 2.6). Where it is
// not, an identity would take a row of its own for a repeat.
func (d *Decoder) separates() bool {
	e := &d.env
	switch d.from {
	case connectorPostgres:
		return e.txOrder != nil && e.txOrder[0] != 'n'
	case connectorMySQL, connectorMariaDB:
		return e.source[srcPos] != nil && e.source[srcRow] != nil
	case connectorSQLServer:
		return e.source[srcChangeLSN] != nil && e.source[srcSerial] != nil
	case connectorOracle:
		return e.source[srcTxID] != nil && e.source[srcTxSeq] != nil
	case connectorOther, connectorDB2, connectorMongoDB:
	}
	return false
}

// identify sets the identity of a streaming event: a hash of position, operation, key and images. The images and the key
// go in as they stand, without frames: what a connector sends again, it sends in the same bytes. Without a key two events may be equal in
// all of that but their place in the transaction.
func (d *Decoder) identify(key *record, keyless bool) {
	ev, e := &d.ev, &d.env
	members := identityMembers[d.from]
	if ev.Snapshot != SnapshotNone || ev.Op == changelog.OpRead || e.unreadable || len(members) == 0 || e.source[members[0]] == nil {
		return
	}
	if keyless && !d.separates() {
		return
	}
	b := d.scratch[:0]
	for _, m := range [...]int{srcConnector, srcName, srcDB, srcSchema, srcTable, srcCollection} {
		b = append(append(b, e.source[m]...), 0)
	}
	for _, m := range members {
		b = append(append(b, e.source[m]...), 0)
	}
	b = append(b, e.op)
	b = appendHash(b, d.keyBytes)
	b = appendHash(b, d.b[e.before.from:e.before.to])
	b = appendHash(b, d.b[e.after.from:e.after.to])
	if d.from == connectorMongoDB {
		b = appendHash(b, d.b[e.update.from:e.update.to])
	}
	if key == nil {
		b = append(b, e.txOrder...)
	}
	d.scratch = b
	ev.Identity, ev.HasIdentity = xxh3.Hash128(b).Bytes(), true
}

func appendHash(dst, b []byte) []byte {
	h := xxh3.Hash128(b)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, h.Hi), h.Lo)
}
