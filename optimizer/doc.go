// Package optimizer presses the change files of mixed tables into base files and keeps the base files few, large
// and clean:
//
//	minor   change files ──► base files + position deletes         the base store catches up
//	major   small and dirty base files ──► larger, clean ones      readers open few files and skip few rows
//	full    all base files of a partition, on an interval or by hand
//	expire  merged change files, old snapshots and files that nothing names go
//
// What is to be done is decided by Plan, a pure function of file metadata, and carried out in three steps: write new
// files, commit them to the base store (P2: under an id that is looked for; P3: under the table's epoch; only on the
// snapshot that was planned on), and then move the position index, in one synced batch that names the new snapshot. A
// crash between the last two leaves an index of another snapshot than the table's, and so does a commit of somebody else: before
// the next merge the index follows by what is different between the two snapshots, or is built again from the base store's key
// columns. What another optimizer committed is checked on the way: docs/0001-shared-tables.md.
//
// A table without a key has no change files and no index: its flushes go to the base store, beside a rewrite that is under
// way. So a rewrite is committed on whatever snapshot is there, as long as its files are live and no delete has come for
// them since.
//
// Base files are of nodes of a tree over the keys' hash (type tree), as a property says or as a partition's size asks for. All that moves
// rows between nodes is the rewriting of files, of which each is a commit of its own.
//
// A merge reads O(changes): the index says where the base rows of the changed keys are, no base file is read. All bulk
// work is on Arrow batches; no row is decoded but its key.
package optimizer
