package ingest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"firn/ingest"
)

// TestGenerated takes in the streams that FIRN_TEST_STREAMS names, a pattern of files NAME.jsonl.gz, with schemas, beside
// NAME.expected.json, as gen_debezium.py writes them (T6). They keep the partitions that they have. Nothing of a keyed
// table may be parked, and it has the rows expected.
func TestGenerated(t *testing.T) {
	pattern := os.Getenv("FIRN_TEST_STREAMS")
	if pattern == "" {
		t.Skip("FIRN_TEST_STREAMS names no streams")
	}
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no files, %v", pattern, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			expected := readExpected(t, strings.TrimSuffix(path, ".jsonl.gz")+".expected.json")
			records := readRecording(t, path, 1)
			partitions := int32(1)
			for _, r := range records {
				partitions = max(partitions, r.Partition+1)
			}
			for _, batch := range []int{1, 7, 1000} {
				l := openLog(newDisk())
				if _, err := runOnce(t, l, newMemSource(records), nil, ingest.Options{BatchRecords: batch}); err != nil {
					t.Fatal(err)
				}
				compareTables(t, l, expected, keyed...)
				checkParked(t, l, partitions)
				checkOnce(t, l)
			}
			testKill(t, expected, path, 1, 7, 97)
		})
	}
}
