package state

import (
	"encoding/binary"
	"fmt"
)

// AppendPosition appends the stored form of a stream's next offset to dst: a version byte, then a varint. The registry
// writes positions when it restores a table, logstore with every append.
func AppendPosition(dst []byte, next int64) []byte {
	return binary.AppendVarint(append(dst, valueVersion), next)
}

// ParsePosition reads what AppendPosition wrote.
func ParsePosition(b []byte) (next int64, err error) {
	if len(b) < 2 {
		return 0, fmt.Errorf("position of %d bytes: %w", len(b), ErrCorrupt)
	}
	if b[0] > valueVersion {
		return 0, fmt.Errorf("position of version %d: %w", b[0], ErrNewerFormat)
	}
	next, n := binary.Varint(b[1:])
	if n != len(b)-1 {
		return 0, fmt.Errorf("position of %d bytes: %w", len(b), ErrCorrupt)
	}
	return next, nil
}
