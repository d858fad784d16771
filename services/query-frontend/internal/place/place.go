// SPDX-License-Identifier: AGPL-3.0-only

// Package place says which worker reads which segment: by rendezvous hashing, so that a segment stays with the worker that has
// it in its cache, and a worker that comes or goes moves only its own share.
package place

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Order returns the indexes of workers in the order in which they should be asked for key. It depends on their names alone,
// not on their order.
func Order(key string, workers []string) []int {
	type scored struct {
		index int
		score uint64
	}
	scores := make([]scored, len(workers))
	for i, name := range workers {
		scores[i] = scored{index: i, score: score(key, name)}
	}
	slices.SortFunc(scores, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(workers[a.index], workers[b.index]))
	})
	order := make([]int, len(scores))
	for i, s := range scores {
		order[i] = s.index
	}
	return order
}

// First returns the index of the worker to ask first for key, and -1 without workers.
func First(key string, workers []string) int {
	best, bestScore := -1, uint64(0)
	for i, name := range workers {
		s := score(key, name)
		if best < 0 || s > bestScore || s == bestScore && name < workers[best] {
			best, bestScore = i, s
		}
	}
	return best
}

// Spread returns the indexes of workers to ask for keys, none of them for more than its share of the distinct ones: each key goes to the first worker of its order that has
// room. It depends on the names of workers and on the keys alone, not on their order. There must be workers.
func Spread(keys, workers []string) map[string]int {
	distinct := slices.Clone(keys)
	slices.Sort(distinct)
	distinct = slices.Compact(distinct)
	most := (len(distinct) + len(workers) - 1) / max(1, len(workers))
	load := make([]int, len(workers))
	placed := make(map[string]int, len(distinct))
	for _, key := range distinct {
		for _, w := range Order(key, workers) {
			if load[w] < most {
				load[w]++
				placed[key] = w
				break
			}
		}
	}
	return placed
}

func score(key, worker string) uint64 {
	var digest xxhash.Digest
	digest.Reset()
	_, _ = digest.WriteString(worker) // a Digest's writes cannot fail
	_, _ = digest.Write([]byte{0})
	_, _ = digest.WriteString(key)
	return digest.Sum64()
}
