// SPDX-License-Identifier: AGPL-3.0-only

// Package vector evaluates the common shapes of PromQL over columns of numbers: a selector, a function of a range of it, and an aggregation of either. Which samples a
// step looks at, and what follows from their times alone, is found once for all series that share their times; values are then read where windows begin and end,
// and added up into their groups without making a result of each series.
//
// Invariants:
//
//   - What Evaluate says of a series is what Prometheus' engine says of it, operation by operation: the same floats, the same steps.
//   - Groups are those of the engine; sums are compensated as there, so that only the order of additions is another.
//   - What the engine would remark is remarked; what it would refuse is refused, or left to it (ErrUnsure).
//   - Expressions of other shapes are no plan: the engine has them.
//
// The package does not know segments. It evaluates without start timestamps, and removes names where Prometheus does by default. Histograms are the engine's.
package vector
