// SPDX-License-Identifier: AGPL-3.0-only

package lake

// Shard is a part of the series of a window: those whose hash, modulo Count, is Index. Count is a power of two; zero and one stand for all series.
type Shard struct{ Index, Count uint32 }

// Whole reports whether the shard is all series.
func (s Shard) Whole() bool { return s.Count <= 1 }

// Holds reports whether a series of this hash is in the shard.
func (s Shard) Holds(hash uint64) bool { return s.Whole() || uint32(hash&uint64(s.Count-1)) == s.Index }

// Meets reports whether two shards, of whatever counts, may hold the same series.
func (s Shard) Meets(o Shard) bool {
	if s.Whole() || o.Whole() {
		return true
	}
	least := min(s.Count, o.Count) - 1
	return s.Index&least == o.Index&least
}
