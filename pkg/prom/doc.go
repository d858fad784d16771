// SPDX-License-Identifier: AGPL-3.0-only

// Package prom is PromQL as Prometheus evaluates it, over series from anywhere: the one package that imports Prometheus' engine. It parses with all
// experimental functions, adapts a Source to the engine's storage, and encodes series as Arrow record batches.
//
// Invariants:
//
//   - Values keep their bits: stale markers, negative zeros and the payloads of other NaNs come out of a batch and out of the engine's storage as they went in.
//   - Histograms keep schema, zero bucket, spans, custom bounds and reset hint. Where a hint is not known it is derived as Prometheus' own storage does.
//   - Evaluate changes neither its expression nor the series that it is given.
//   - Where no series of a selector is a delta, the expression is evaluated word for word.
//
// # Deltas
//
// A delta series holds what was added since the sample before. rate, increase and irate of it are the window's own sums, with nothing extrapolated and no
// resets: increase(x[r]) is the sum of its samples in (t-r, t], rate(x[r]) that sum divided by r, and irate(x[r]) the last sample of the window divided by the
// time that it covers, which is since its start or, where that is not known, since the sample before it in the window. A series that changes temporality has
// both parts added up: (C + D) or C or D, with C over its cumulative samples and D over its deltas. Native histograms are added up likewise; as deltas they
// are gauges, as Prometheus ingests them. All other functions see deltas as they are, a series of both kinds as one.
//
// The package does not know segments, shards' places or HTTP.
package prom
