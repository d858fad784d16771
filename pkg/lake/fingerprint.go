// SPDX-License-Identifier: AGPL-3.0-only

package lake

// Fingerprint is the 64-bit hash of a message template. Equal templates have equal fingerprints in every release:
// it is FNV-1a (Fowler, Noll, Vo; RFC 9923), and golden vectors freeze it.
type Fingerprint uint64

// FingerprintOf hashes a message template.
func FingerprintOf(template []byte) Fingerprint {
	h := uint64(14695981039346656037)
	for _, c := range template {
		h ^= uint64(c)
		h *= 1099511628211
	}
	return Fingerprint(h)
}
