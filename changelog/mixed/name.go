package mixed

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// FileType is what a file holds. In the change store of a keyed table only Insert and Delete occur.
type FileType uint8

// The file types, and their codes in names.
const (
	Base            FileType = 1 // B: rows of the base store
	Insert          FileType = 2 // I: rows that changes left (create, read, after images)
	Delete          FileType = 3 // ED: rows that changes removed (deletes, before images); Iceberg content DATA
	PositionDelete  FileType = 4 // PD: Iceberg position deletes of base files
	IcebergEqDelete FileType = 5 // IED: Iceberg equality deletes, of native tables only
	Log             FileType = 6 // L: not on disk
)

var typeCodes = [...]string{Base: "B", Insert: "I", Delete: "ED", PositionDelete: "PD", IcebergEqDelete: "IED", Log: "L"}

// String returns the type's code in file names.
func (t FileType) String() string {
	if int(t) < len(typeCodes) && typeCodes[t] != "" {
		return typeCodes[t]
	}
	return "type(" + strconv.Itoa(int(t)) + ")"
}

func typeOf(code string) (FileType, bool) {
	for t, c := range typeCodes {
		if c != "" && c == code {
			return FileType(t), true
		}
	}
	return 0, false
}

// FileName is a name to be given to a file. Part and Task are 0 with us. Op is random and not negative, one a writer
// (NewOp); Count numbers the writer's files from 1.
type FileName struct {
	Node  TreeNode
	Type  FileType
	Txn   int64 // 0: readers take the sequence number of the file's snapshot (change store)
	Part  int
	Task  int64
	Op    int64
	Count int
}

// String returns the name with the extension .parquet: the last element of a path. Its shape is part of the format.
//
// Source: amoro:amoro-format-iceberg/src/main/java/org/apache/amoro/data/FileNameRules.java.
func (n FileName) String() string {
	return fmt.Sprintf("%d-%s-%d-%05d-%d-%d-%05d.parquet", n.Node.ID(), n.Type, n.Txn, n.Part, n.Task, n.Op, n.Count)
}

// FileInfo is what a file's name says to a reader.
type FileInfo struct {
	Node TreeNode
	Type FileType
	Txn  int64
}

// ErrBadName reports a file name of the format's shape whose numbers no reader can take: node 0, or a node or
// transaction beyond int64.
var ErrBadName = errors.New("mixed: bad numbers in file name")

// ParseChange returns what a data file of a change store is. path may have directories; sequence is the file's data
// sequence number, which is the transaction where the name gives none. A foreign name means inserts at the root.
// Error: ErrBadName.
func ParseChange(path string, sequence int64) (FileInfo, error) {
	info, ok, err := parse(path)
	switch {
	case err != nil:
		return FileInfo{}, err
	case !ok:
		return FileInfo{Type: Insert, Txn: sequence}, nil
	case info.Txn == 0:
		info.Txn = sequence
	}
	return info, nil
}

// ParseBase returns what a file of a base store is. A foreign name means base rows at the root in transaction 0.
// Error: ErrBadName.
func ParseBase(path string) (FileInfo, error) {
	info, ok, err := parse(path)
	switch {
	case err != nil:
		return FileInfo{}, err
	case !ok:
		return FileInfo{Type: Base}, nil
	case info.Type == Insert:
		info.Type = Base
	}
	return info, nil
}

// parse matches the last element of path against \.?(\d+)-(\w+)-(\d+)-(\d+)-(\d+)-.* as Java does: the whole of it,
// ASCII only, no line end in the rest.
func parse(path string) (info FileInfo, ok bool, err error) {
	name := strings.TrimPrefix(path[strings.LastIndexByte(path, '/')+1:], ".")
	parts := strings.SplitN(name, "-", 6)
	if len(parts) < 6 || !digits(parts[0]) || !digits(parts[2]) || !digits(parts[3]) || !digits(parts[4]) ||
		strings.ContainsAny(parts[5], "\n\r\u0085\u2028\u2029") {
		return FileInfo{}, false, nil
	}
	t, ok := typeOf(parts[1])
	if !ok {
		return FileInfo{}, false, nil
	}
	id, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return FileInfo{}, true, fmt.Errorf("%w: node of %q is beyond 64 bits", ErrBadName, name)
	}
	node, err := NodeOf(id)
	if err != nil {
		return FileInfo{}, true, fmt.Errorf("%w: node of %q: %w", ErrBadName, name, err)
	}
	txn, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return FileInfo{}, true, fmt.Errorf("%w: transaction of %q is beyond 64 bits", ErrBadName, name)
	}
	return FileInfo{Node: node, Type: t, Txn: txn}, true, nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
