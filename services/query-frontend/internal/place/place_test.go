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

	t.Run("spreads keys so that no worker has more than its share", func(t *testing.T) {
		t.Parallel()
		keys := []string{"0/4", "1/4", "2/4", "3/4", "0/4"}
		counts := map[int]int{}
		for key, w := range place.Spread(keys, workers) {
			counts[w]++
			turned := []string{"d", "c", "b", "a"}
			if workers[w] != turned[place.Spread(keys, turned)[key]] {
				t.Errorf("%s goes elsewhere when workers stand in another order", key)
			}
		}
		if diff := cmp.Diff(map[int]int{0: 1, 1: 1, 2: 1, 3: 1}, counts); diff != "" {
			t.Error(diff)
		}
		if got := place.Spread(keys, workers[:3]); len(got) != 4 {
			t.Errorf("%d keys are placed on three workers", len(got))
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
