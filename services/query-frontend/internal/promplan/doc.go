// SPDX-License-Identifier: AGPL-3.0-only

// Package promplan decides how a PromQL query is answered. It is pure: it reads no index and asks no worker.
//
// A query is an expression tree. Its leaves are the largest parts over one selector that workers can evaluate for a part of all series (a shard): either
// the value is per series, as of sel, rate(sel[5m]) * 8 or max_over_time(rate(sel[5m])[1h:]), or it is an aggregation of such a thing whose values over
// shards merge, as of sum, count, min, max, avg, topk. Parse puts a selector with a mark in place of each leaf. Everything above it, such as binary operations of two
// vectors, quantiles, label_replace, absent, is evaluated by Prometheus' engine in the frontend over the leaves' values, which stand exactly at the times
// at which the engine looks. A selector that is in no leaf, as those under info, is read as samples.
//
// Invariants:
//
//  1. A leaf's value over all series is the merged value over shards, for every partition of series by labels. What cannot promise that, such as a function that drops the
//     names of series of several metrics, which may then be the same, is Sole: one worker sees everything.
//  2. A leaf knows when it is evaluated: at the query's steps, or inside of a subquery at those of the subquery, whatever its own offsets and @ are.
//  3. What depends on the query's own range and step, as start(), step() and @ end(), is resolved before anything is cut out.
//  4. What is sent as text parses back to what was meant, or it is not sent. Where it can, it has its place in the query, so that warnings name that.
//  5. A resolution answers a leaf only if every window that is asked about is a union of its buckets (a, b], and what the function needs is in them.
package promplan
