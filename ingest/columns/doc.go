// Package columns applies the column rules of a route to decoded events, before they are bound to a table: it drops, renames,
// masks and casts columns, and adds constant, metadata and computed ones.
//
// Rules stand in a list, and each works on what those before it have left. A list is compiled once for each decode.Shape into a
// program: a few operations on registers, and the registers that the columns of the new shape are read from.
//
//	id  email  note      hash email, drop note, metadata _lake_offset
//	r0  r1     r2     →  r3 = hmac(r1), r4 = offset   →   id=r0 email=r3 _lake_offset=r4
//
// Keys go through the operations of their columns, in every place where an event has one, so that rows are found by the same
// key everywhere. What a program does depends on the record alone, so that a record read again gives the same row.
package columns
