// SPDX-License-Identifier: AGPL-3.0-only

// Package engine runs SQL over segment files with DuckDB, and streams the answers as Arrow record batches.
//
// Invariants:
//
//   - Results stream: memory holds a few batches of an answer, however large it is.
//   - DuckDB reads files below Config.Dir and no others, loads no extensions, and its settings cannot be changed by a query.
//   - A context that ends stops the query within milliseconds.
//   - A query beyond the memory limit spills, and beyond the spill limit fails as fault.Exhausted; the process lives on.
//
// This is the only package that uses cgo. It does not limit how many queries run at once, fetch files, or know what is in them.
package engine
