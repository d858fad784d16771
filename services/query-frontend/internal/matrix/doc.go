// SPDX-License-Identifier: AGPL-3.0-only

// Package matrix evaluates operations of PromQL over whole series: arithmetic and comparisons of two vectors, of a vector and a number, and aggregations. Which series match
// is found once for a pair of series, where Prometheus' engine finds it at every step.
//
// Invariants:
//
//   - What it answers is what Prometheus' engine answers for the same series, but for the order in which numbers are added up.
//   - What the engine would refuse, and what is not certain to be the same, is ErrUnsure: the engine has to evaluate it. Histograms are none of its business.
//
// It knows neither leaves nor workers.
package matrix
