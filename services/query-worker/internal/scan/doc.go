// SPDX-License-Identifier: AGPL-3.0-only

// Package scan answers fragments of log queries over given segments.
//
// Columns are read directly, or by DuckDB, and rows chosen by what package plan found of the query: time, streams, conditions on lines and on structured
// metadata, in the row groups that the token filter leaves. These rows are a superset; Loki's own pipeline, extractors and engine give the answer.
// Where stream and time say all that the query says, rows are counted by these, or not read at all because the catalogue has counted them.
//
// Invariants:
//
//   - Every way of answering gives the answer that Loki's engine gives over the same rows.
//   - A row is never doubled and never lost; lines that are equal in all respects are several lines.
//   - Rows of masked sources and of deletes, and doubles of identified rows, are in no answer, no count of the catalogue's included.
//   - A segment that cannot be read fails the scan.
//   - Attributes of a row stand in the order of their names, then kinds: a segment keeps no other.
//   - Lines of equal time are ordered by segment key, then row; the other direction is the exact reverse.
//
// A scan changes nothing and can be repeated. It holds at most its memory limit of lines or samples in Go; DuckDB has a limit of its own.
package scan
