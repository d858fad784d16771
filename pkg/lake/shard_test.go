// SPDX-License-Identifier: AGPL-3.0-only

package lake_test

import (
	"testing"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestEverySeriesIsInOneShardAndShardsThatShareOneMeet(t *testing.T) {
	t.Parallel()
	counts := []uint32{0, 1, 2, 8}
	for hash := range uint64(64) {
		var holding []lake.Shard
		for _, count := range counts {
			in := 0
			for index := range max(count, 1) {
				if s := (lake.Shard{Index: index, Count: count}); s.Holds(hash) {
					in++
					holding = append(holding, s)
				}
			}
			if in != 1 {
				t.Errorf("hash %d is in %d of %d shards", hash, in, count)
			}
		}
		for _, a := range holding {
			for _, b := range holding {
				if !a.Meets(b) {
					t.Errorf("shards %v and %v hold %d, and do not meet", a, b, hash)
				}
			}
		}
	}
	if (lake.Shard{Index: 1, Count: 2}).Meets(lake.Shard{Index: 2, Count: 8}) {
		t.Error("odd and even hashes meet")
	}
}
