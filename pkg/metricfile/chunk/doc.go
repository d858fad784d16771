// SPDX-License-Identifier: AGPL-3.0-only

// Package chunk encodes vectors of numbers as bytes, without losing a bit of them.
//
// Integers become differences of some order, of which whatever divides them all and the usual one are taken off; what is left is packed, 32 at a time,
// into as many bits as the largest of the 32 needs, and where most of them are zero only the others are. Floats become integers: as they are, or times a
// power of ten that gives them back, or by their bits; the few that would spoil the others (stale markers, other NaN, infinities, -0) stand apart.
// The encoder takes whichever is smallest. What it makes is as dense as its entropy, so that compressing it again gains next to nothing, and costs ten times
// as much as decoding.
//
// The number of values is not encoded: who decodes knows it.
//
// Invariants:
//
//   - Every vector of int64 and of float64 comes out bit by bit as it went in.
//   - Decoding reads no more than the vector's own bytes, returns the rest, and fails on bytes that are damaged beyond sense, without ever panicking.
//   - What was encoded once is decoded for ever.
package chunk
