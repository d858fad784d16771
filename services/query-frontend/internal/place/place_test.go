// SPDX-License-Identifier: AGPL-3.0-only

package place_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/services/query-frontend/internal/place"
)

func TestRendezvous(t *testing.T) {
	t.Parallel()
	workers := []string{"a", "b", "c", "d"}

	t.Run("spreads segments evenly", func(t *testing.T) {
		t.Parallel()
		counts := map[int]int{}
		for i := range 4000 {
			counts[place.First(key(i), workers)]++
		}
		for worker, n := range counts {
			if n < 800 || n > 1200 {
				t.Errorf("worker %d has %d of 4000 segments", worker, n)
			}
		}
	})

	t.Run("moves only the segments of a worker that goes", func(t *testing.T) {
		t.Parallel()
		for i := range 1000 {
			before := workers[place.First(key(i), workers)]
			after := workers[:3][place.First(key(i), workers[:3])]
			if before != "d" && before != after {
				t.Fatalf("segment %d moved from %s to %s", i, before, after)
			}
		}
	})

	t.Run("does not depend on the order of workers, and begins with First", func(t *testing.T) {
		t.Parallel()
		turned := []string{"d", "c", "b", "a"}
		for i := range 100 {
			if diff := cmp.Diff(names(place.Order(key(i), workers), workers), names(place.Order(key(i), turned), turned)); diff != "" {
				t.Fatal(diff)
			}
			if place.Order(key(i), workers)[0] != place.First(key(i), workers) {
				t.Fatal("First is not the first of Order")
			}
		}
	})

	t.Run("has no first worker of none", func(t *testing.T) {
		t.Parallel()
		if got := place.First("x", nil); got != -1 {
			t.Errorf("First = %d", got)
		}
	})
}

func key(i int) string { return fmt.Sprintf("db/acme/logs/2026-01-01/lease/%06d.parquet", i) }

func names(order []int, workers []string) []string {
	out := make([]string, len(order))
	for i, w := range order {
		out[i] = workers[w]
	}
	return out
}
