// SPDX-License-Identifier: AGPL-3.0-only

// Package metricfile writes and reads one metric segment: a Parquet file whose rows are series, and the sidecar beside it.
//
// A row has the labels of a series once, and its points as columns of bytes, one value vector a column (package chunk). A classic histogram or a
// summary is one row under its base name, for all the Prometheus series that it stands for: Series.Tracks. The same container holds rollups, whose
// rows are series too, with aggregates for each bucket of time. The sidecar has the catalogue: symbols, families, series in the order of rows, and where
// the pages of each column lie, so that one series can be read without the file's footer. The README describes the format.
//
// Invariants:
//
//   - Points come out as they went in: every bit of every value, times in nanoseconds, start times, sources, exemplars.
//   - Rows are sorted by Compare, points of a row by time, source and hash; no row is there twice.
//   - Written.RowHash is the sum of the hashes of points (or of a rollup's buckets), which Store.RowHash and Points.RowHash tell beforehand.
//   - Catalogue.Select never leaves out a row that stands for a series asked for.
//   - Nothing that is read is trusted: damaged bytes are an error, never a panic, nor memory without bounds.
//   - A file of any earlier format version stays readable, and the sidecar can be made anew from the Parquet file.
//   - Writing needs memory for one row group, and for the catalogue.
//
// The package does not know object stores, does not resolve duplicates across segments, and evaluates nothing.
package metricfile
