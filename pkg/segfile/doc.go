// SPDX-License-Identifier: AGPL-3.0-only

// Package segfile writes and reads one segment: a Parquet file, and the sidecar beside it.
//
// The Parquet file has a column for each fixed field of a row, one for each attribute that many rows have, and one, `attributes`, for
// the rest; streams and origins are tables in the catalogue, and rows have their numbers. Sidecar and Parquet file both carry the
// catalogue; the sidecar has the token filter besides. The README describes the format.
//
// Invariants:
//
//   - Rows come out as they went in: content, types, order. Written.RowHash is the sum of columns.Logs.RowHash.
//   - Row groups never cross an event hour.
//   - Sidecar.Candidates never leaves out a row group that holds a row asked for.
//   - A file of any earlier format version stays readable.
//   - Merge makes of sorted segments what one writer would make of all their rows, but for those that are to leave, and accounts for every row.
//   - Writing needs memory for one row group and the token filter, not for the file; merging, for one row group of each input as well.
//
// The package does not know object stores, and it does not filter rows: package engine does.
package segfile
