// SPDX-License-Identifier: AGPL-3.0-only

// Package plan reads LogQL expressions and says what of them DuckDB may decide. It is pure: it knows no segment.
//
// Invariants:
//
//   - What it pushes down is a superset: a condition never loses a row that Loki's pipeline would let through.
//   - Exact means exact: a condition so marked lets through the very rows that Loki's stages do, Loki's own simplifications of
//     regular expressions included, some of which change what they match.
//   - What it does not understand it leaves to Loki's pipeline.
package plan
