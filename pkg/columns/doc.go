// SPDX-License-Identifier: AGPL-3.0-only

// Package columns is what the rows of a signal look like, in memory and on the wire: the currency between decoders, segment files and
// query answers.
//
// Logs holds log rows between a decoder and a segment file. Its invariants:
//
//   - Attributes keep name, case and type; the same name with two types is two keys.
//   - Sort's order is the order of rows in a segment.
//   - RowHash is of a row's content alone, so sums of it prove that a rewrite neither lost, doubled nor changed a row.
//
// The package does not read or write files, and it does not know LogQL beyond the names and labels of Loki's mapping.
package columns
