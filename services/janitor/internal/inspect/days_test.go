// SPDX-License-Identifier: AGPL-3.0-only

package inspect

import (
	"testing"
	"time"
)

func TestDays(t *testing.T) {
	t.Parallel()
	today := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for _, turn := range []time.Duration{10 * time.Minute, time.Hour} {
		t.Run("N4: every day has its turn, each "+turn.String(), func(t *testing.T) {
			t.Parallel()
			seen := map[time.Time]bool{}
			oldest := today.Add(-30 * day)
			for n := range 1000 {
				now := today.Add(time.Duration(n) * turn)
				for _, at := range daysOf(now, oldest, turn) {
					seen[at] = true
				}
			}
			for at := oldest; !at.After(today); at = at.Add(day) {
				if !seen[at] {
					t.Errorf("%s was left out", at.Format(time.DateOnly))
				}
			}
		})
	}
	t.Run("without anything older the newest days remain", func(t *testing.T) {
		t.Parallel()
		for _, oldest := range []time.Time{{}, today, today.Add(-day)} {
			if got := daysOf(today.Add(time.Hour), oldest, time.Hour); len(got) != newest {
				t.Errorf("oldest %s: got %v", oldest, got)
			}
		}
	})
}
