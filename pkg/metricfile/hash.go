// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

// scramble is the finalizer of MurmurHash3 (Appleby): a bijection in which every bit of x changes half of the bits.
func scramble(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
