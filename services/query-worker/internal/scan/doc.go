// SPDX-License-Identifier: AGPL-3.0-only

// Package scan answers fragments of log queries over given segments.
//
// DuckDB reads the files and applies what package plan found of the query: time, streams, conditions on lines and on structured metadata, as
// row ranges where the token filter rules others out. Its rows are a superset; Loki's own pipeline, extractors and engine give the answer.
// Where SQL says all that the query says, rows are counted by DuckDB, or not read at all because the catalogue has counted them.
//
// Invariants:
//
//   - Every way of answering gives the answer that Loki's engine gives over the same rows.
//   - A row is never doubled and never lost; lines that are equal in all respects are several lines.
//   - A masked source's rows are in no answer, no count of the catalogue's included.
//   - A segment that cannot be read fails the scan.
//   - Attributes of a row stand in the order of their names, then kinds: a segment keeps no other.
//   - Lines of equal time are ordered by segment key, then row; the other direction is the exact reverse.
//
// A scan changes nothing and can be repeated. It holds at most its memory limit of lines or samples in Go; DuckDB has a limit of its own.
package scan
