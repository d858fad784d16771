// SPDX-License-Identifier: AGPL-3.0-only

// Package metrics answers fragments of metric queries over given segments: samples of series, PromQL expressions, catalogues, exemplars.
//
// Rows of segments are found by their catalogues. Rows of one series, in whatever segments, are read together and become one: points of masked sources and of deletes are
// left out, of points of one time one is kept. A row of a classic histogram or a summary stands for several Prometheus series, which are made of it last. Expressions of
// the common shapes are evaluated over columns of rows (package vector), others by Prometheus' engine; rollups by package rollup.
//
// Invariants:
//
//   - Every way of evaluating gives what Prometheus' engine gives over the same samples.
//   - Of points of one series at one time, to the nanosecond, that of the lowest source is answered, of equal ones that with the lowest row hash, as a merge of segments
//     would leave it; of points within one millisecond the latest one.
//   - Series of one label set are one series, however their points are stored; only deltas are kept apart from others.
//   - A segment that cannot be read fails the scan.
//
// A scan changes nothing and can be repeated. It holds at most its memory limit of points, and ends soon after its context.
package metrics
