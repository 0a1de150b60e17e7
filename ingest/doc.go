// Package ingest takes changes in: it reads the partitions of sources, decodes their records, routes them to tables and
// hands them, with the positions they came from, to the log.
//
// A Source (packages kafka and file) assigns partitions. The Pipeline reads each in one goroutine, which owns all state
// of the partition:
//
//	poll → drop by position → decode → apply the route's column rules (package columns) → drop what was sent before
//	     → evolve the table → fill placeholders → Submit
//	                                              sync → acknowledge
//
// A batch is decoded while the one before it is synced. A record that cannot be applied is parked, as received, in the
// same append as the changes around it (P6); a position moves in the append of its changes and nowhere else (P1).
package ingest
