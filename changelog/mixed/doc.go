// Package mixed holds the rules of Amoro's Mixed-Iceberg format that need no I/O: file names, tree nodes and the key
// hash that picks one, metadata columns, property names, optimized sequences and the spelling of partition paths.
//
// A keyed table is two Iceberg tables, a base store and a change store. What a file of either means is in its name:
//
//	{node}-{type}-{txn}-{part}-{task}-{op}-{count}.{ext}      5-I-0-00000-0-8463728193847362-00001.parquet
//
// node is a bucket of keys, a node of a binary tree over the low bits of the key's hash; deletes meet rows only in the
// same node or in one above or below it. FORMAT.md has the details and their sources.
package mixed
