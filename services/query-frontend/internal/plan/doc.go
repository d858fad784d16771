// SPDX-License-Identifier: AGPL-3.0-only

// Package plan decides how a LogQL query is answered. It is pure: it reads no index and asks no worker.
//
// A metric query is an expression tree. Its leaves, the aggregations over ranges of log rows, are the only parts that touch
// rows. Parse marks each leaf, so that everything above it (topk, binary operations, label_replace, averages) is evaluated by
// Loki's engine in the frontend over the leaves' values.
//
// Invariants:
//
//  1. Rows are partitioned by segment, and a segment's rows are an arbitrary part of a stream. So a leaf is pushed to the
//     workers only when its values over any partition of the rows merge to the value over all of them: counts, bytes and
//     sums by +, minima and maxima by themselves. max by (x) (rate(...)) is not such a leaf; its rate is.
//  2. What is sent as text parses back to what was meant. Loki prints byte sizes rounded (1.2MB for 1234567B); here
//     they are printed exactly.
//  3. A rate is sent as its count or sum and divided by its seconds after merging, so a sharded rate is bit for bit the
//     unsharded one.
//  4. approx_topk is answered by topk, which is what it approximates: Loki's plain engine does not end on it.
package plan
