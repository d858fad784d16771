// SPDX-License-Identifier: AGPL-3.0-only

// Package rollup makes rollups of metric points, coarser rollups of finer ones, and evaluates PromQL functions over them: those alone whose answer is the
// one that the points themselves would give. It is what the rollup service, the query workers and the planner of queries agree on.
//
// Invariants, each the name of a test:
//
//   - I1. A bucket (a, b] holds what the points at a < t <= b, in whole milliseconds, came to; stale markers are counted nowhere, the last of them has its time.
//   - I2. Counts are conserved: those of all buckets together are the points that are no stale markers, at every tier.
//   - I3. A tier made of a finer one is the one made of the points: bit for bit in ends, counts, times, first, last, min and max; sums and increases up to the
//     order of float additions (SumBound).
//   - I4. Merging is associative: windows may be added one by one, or tier by tier.
//   - I5. What Exact allows, Evaluate answers as Prometheus' engine does over the points, within the bound that Exact states.
//   - I6. What Exact does not allow, Evaluate refuses: functions that are not in the table, steps and ranges that do not fall on buckets.
//   - I7. Where buckets of allowed questions turn out not to have the answer (ErrInexact), nothing is answered: the points have to.
//
// Increases are stitched when they are asked for: a bucket knows the increase between its own points; the one between two buckets follows from the last
// value of one and the first of the next, with a reset where that is less. So points that come late change no bucket but their own. Buckets of one end, from
// two windows, need not be merged before: they are evaluated one after the other.
//
// Deltas have no resets: their increase is their sum, and rate and increase over them are the window's own sums, as package prom has it. Start times are not
// kept: evaluation is that of Prometheus without start timestamps.
//
// The package knows neither files, windows of the lake, nor the index.
package rollup
