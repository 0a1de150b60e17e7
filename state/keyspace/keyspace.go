// Package keyspace names every key of the shared Pebble instance: one byte of space, then the parts of the key. Keys
// compare bytewise; integers are big-endian; a primary key is in the order-preserving encoding of changelog.AppendKey
// and stands last, or is followed by a fixed number of bytes. state/FORMAT.md draws the keys.
//
// The functions that take dst append to it and return the extended buffer.
package keyspace

import (
	"encoding/binary"
	"errors"

	"firn/changelog"
)

// Space is the first byte of a key. Written to disk, append only.
type Space byte

// The spaces, and who writes them.
const (
	SpaceMeta         Space = 0x01 // state: format version, writer id, counters
	SpaceTable        Space = 0x02 // state: registry entry
	SpaceProgress     Space = 0x03 // state: flush and optimize progress of (table, shard)
	SpaceSource       Space = 0x04 // logstore: next position of a stream
	SpaceLog          Space = 0x10 // logstore: a block of changes
	SpaceRow          Space = 0x11 // logstore: current row, or a mark of deletion
	SpacePosition     Space = 0x12 // state: where the row of a key lies in the base store
	SpacePositionFile Space = 0x13 // state: the path of a file number of the position index
	SpaceParked       Space = 0x14 // logstore: a parked record
	SpaceParkedKey    Space = 0x15 // logstore: which parked records a key has
	SpaceParkedCount  Space = 0x16 // logstore: number and bytes of parked records by reason
	SpaceMoved        Space = 0x17 // logstore: the last row of a key that a key change deleted
	SpaceStale        Space = 0x18 // logstore: keys whose row may be older than a rejected event
	SpaceConsumer     Space = 0x19 // logstore: a named reader of a feed
)

// TableSpaces returns the spaces whose keys begin with a table id: what dropping a table empties.
func TableSpaces() []Space {
	return []Space{
		SpaceTable, SpaceProgress, SpaceLog, SpaceRow, SpacePosition, SpacePositionFile, SpaceParked, SpaceParkedKey,
		SpaceParkedCount, SpaceMoved, SpaceStale, SpaceConsumer,
	}
}

// ShardLen is the length of what begins the keys of (table, shard) spaces: space, table, shard.
const ShardLen = 1 + 4 + 2

// ErrKey reports bytes that are no key of the space asked for.
var ErrKey = errors.New("keyspace: not a key of this space")

// Meta appends the key of a value of the whole instance.
func Meta(dst []byte, name string) []byte {
	return append(append(dst, byte(SpaceMeta)), name...)
}

// Table appends what the keys of table in space begin with; for SpaceTable it is the key.
func Table(dst []byte, space Space, table changelog.TableID) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(space)), uint32(table))
}

// Shard appends what the keys of (table, shard) in space begin with; for SpaceProgress it is the key.
func Shard(dst []byte, space Space, table changelog.TableID, shard changelog.Shard) []byte {
	return binary.BigEndian.AppendUint16(Table(dst, space, table), uint16(shard))
}

// Log appends the key of the block whose first change is seq. LogSeq reads it back.
func Log(dst []byte, table changelog.TableID, shard changelog.Shard, seq changelog.SeqNum) []byte {
	return binary.BigEndian.AppendUint64(Shard(dst, SpaceLog, table, shard), uint64(seq))
}

// LogSeq returns the SeqNum in a key of SpaceLog.
func LogSeq(key []byte) (changelog.SeqNum, error) {
	if len(key) != ShardLen+8 || Space(key[0]) != SpaceLog {
		return 0, ErrKey
	}
	return changelog.SeqNum(binary.BigEndian.Uint64(key[ShardLen:])), nil
}

// Row appends the key of the current row of a primary key. KeyOf reads the primary key back.
func Row(dst []byte, table changelog.TableID, shard changelog.Shard, key changelog.Key) []byte {
	return append(Shard(dst, SpaceRow, table, shard), key...)
}

// Position appends the key of the position index for a primary key. KeyOf reads the primary key back.
func Position(dst []byte, table changelog.TableID, shard changelog.Shard, key changelog.Key) []byte {
	return append(Shard(dst, SpacePosition, table, shard), key...)
}

// PositionFile appends the key of a file number of the position index; number 0 holds the index's counter.
func PositionFile(dst []byte, table changelog.TableID, shard changelog.Shard, file uint64) []byte {
	return binary.BigEndian.AppendUint64(Shard(dst, SpacePositionFile, table, shard), file)
}

// PositionFileNumber returns the file number in a key of SpacePositionFile.
func PositionFileNumber(key []byte) (uint64, error) {
	if len(key) != ShardLen+8 || Space(key[0]) != SpacePositionFile {
		return 0, ErrKey
	}
	return binary.BigEndian.Uint64(key[ShardLen:]), nil
}

// Stale appends the key of a stale mark. KeyOf reads the primary key back.
func Stale(dst []byte, table changelog.TableID, shard changelog.Shard, key changelog.Key) []byte {
	return append(Shard(dst, SpaceStale, table, shard), key...)
}

// KeyOf returns the primary key in a key of SpaceRow, SpacePosition or SpaceStale: a part of key's bytes.
func KeyOf(key []byte) (changelog.Key, error) {
	if len(key) < ShardLen {
		return nil, ErrKey
	}
	if s := Space(key[0]); s != SpaceRow && s != SpacePosition && s != SpaceStale {
		return nil, ErrKey
	}
	return changelog.Key(key[ShardLen:]), nil
}

// Parked appends the key of a parked record; table 0 holds those that reached no table. ParkedID reads it back.
func Parked(dst []byte, table changelog.TableID, id uint64) []byte {
	return binary.BigEndian.AppendUint64(Table(dst, SpaceParked, table), id)
}

// ParkedID returns table and id in a key of SpaceParked.
func ParkedID(key []byte) (changelog.TableID, uint64, error) {
	if len(key) != 1+4+8 || Space(key[0]) != SpaceParked {
		return 0, 0, ErrKey
	}
	return changelog.TableID(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint64(key[5:]), nil
}

// ParkedKeys appends what the keys of ParkedKey for one primary key begin with.
func ParkedKeys(dst []byte, table changelog.TableID, key changelog.Key) []byte {
	return appendEscaped(Table(dst, SpaceParkedKey, table), key)
}

// ParkedKey appends the key that tells that a primary key has the parked record id: its last 8 bytes.
func ParkedKey(dst []byte, table changelog.TableID, key changelog.Key, id uint64) []byte {
	return binary.BigEndian.AppendUint64(ParkedKeys(dst, table, key), id)
}

// ParkedKeyID returns the id in a key of SpaceParkedKey.
func ParkedKeyID(key []byte) (uint64, error) {
	if len(key) < 1+4+2+8 || Space(key[0]) != SpaceParkedKey {
		return 0, ErrKey
	}
	return binary.BigEndian.Uint64(key[len(key)-8:]), nil
}

// ParkedCount appends the key of the count of a table's parked records with a reason.
func ParkedCount(dst []byte, table changelog.TableID, reason string) []byte {
	return append(Table(dst, SpaceParkedCount, table), reason...)
}

// ParkedCountOf returns table and reason in a key of SpaceParkedCount.
func ParkedCountOf(key []byte) (changelog.TableID, string, error) {
	if len(key) < 1+4 || Space(key[0]) != SpaceParkedCount {
		return 0, "", ErrKey
	}
	return changelog.TableID(binary.BigEndian.Uint32(key[1:])), string(key[5:]), nil
}

// Moved appends the key of the last row of a deleted old key at a native position.
func Moved(dst []byte, table changelog.TableID, shard changelog.Shard, key changelog.Key, native string) []byte {
	return append(appendEscaped(Shard(dst, SpaceMoved, table, shard), key), native...)
}

// Consumer appends the key of a named reader of a table's feed.
func Consumer(dst []byte, table changelog.TableID, name string) []byte {
	return append(Table(dst, SpaceConsumer, table), name...)
}

// ConsumerName returns the name in a key of SpaceConsumer.
func ConsumerName(key []byte) (string, error) {
	if len(key) < 1+4 || Space(key[0]) != SpaceConsumer {
		return "", ErrKey
	}
	return string(key[5:]), nil
}

// Sources appends what the keys of a source's streams begin with.
func Sources(dst []byte, source string) []byte {
	return appendEscaped(append(dst, byte(SpaceSource)), []byte(source))
}

// Source appends the key of the position of a stream. Stream reads it back.
func Source(dst []byte, id changelog.StreamID) []byte {
	dst = appendEscaped(Sources(dst, id.Source), []byte(id.Topic))
	return binary.BigEndian.AppendUint32(dst, uint32(id.Partition)) //nolint:gosec // bits, not a number
}

// Stream returns the stream in a key of SpaceSource.
func Stream(key []byte) (id changelog.StreamID, err error) {
	if len(key) == 0 || Space(key[0]) != SpaceSource {
		return id, ErrKey
	}
	source, rest, ok := cutEscaped(key[1:])
	if !ok {
		return id, ErrKey
	}
	topic, rest, ok := cutEscaped(rest)
	if !ok || len(rest) != 4 {
		return id, ErrKey
	}
	id = changelog.StreamID{Source: string(source), Topic: string(topic)}
	id.Partition = int32(binary.BigEndian.Uint32(rest)) //nolint:gosec // bits, not a number
	return id, nil
}

// End appends the smallest key above all keys that begin with prefix: the exclusive upper bound of an iteration or a
// range delete. prefix begins with a Space, none of which is 0xff. prefix and dst may share memory only if dst ends
// where prefix begins.
func End(dst, prefix []byte) []byte {
	n := len(dst)
	dst = append(dst, prefix...)
	for i := len(dst) - 1; i > n; i-- {
		if dst[i] != 0xff {
			dst[i]++
			return dst[:i+1]
		}
	}
	dst[n]++
	return dst[:n+1]
}

// appendEscaped makes bytes self-terminating with their order kept: 00 becomes 00 ff; then 00 01.
func appendEscaped(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, c)
		if c == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

func cutEscaped(b []byte) (out, rest []byte, ok bool) {
	for i := 0; i+1 < len(b); i++ {
		switch {
		case b[i] != 0:
			out = append(out, b[i])
		case b[i+1] == 1:
			return out, b[i+2:], true
		case b[i+1] == 0xff:
			out = append(out, 0)
			i++
		default:
			return nil, nil, false
		}
	}
	return nil, nil, false
}
