// SPDX-License-Identifier: AGPL-3.0-only

package cli

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	cases := map[string]time.Time{
		"now":                       now,
		"now-90m":                   now.Add(-90 * time.Minute),
		"now-2d":                    now.Add(-48 * time.Hour),
		"2026-02-01T10:00:00Z":      time.Date(2026, 2, 1, 10, 0, 0, 0, time.UTC),
		"2026-02-01T10:00:00.5Z":    time.Date(2026, 2, 1, 10, 0, 0, 500000000, time.UTC),
		"2026-02-01":                time.Date(2026, 2, 1, 0, 0, 0, 0, zone),
		"2026-02-01 10:30":          time.Date(2026, 2, 1, 10, 30, 0, 0, zone),
		"1770000000":                time.Unix(1770000000, 0),
		"1770000000.25":             time.Unix(1770000000, 250000000),
		"1770000000123456789":       time.Unix(0, 1770000000123456789),
		"2026-02-01T10:00:00+02:00": time.Date(2026, 2, 1, 8, 0, 0, 0, time.UTC),
	}
	for in, want := range cases {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			got, err := parseTime(in, now)
			if err != nil || !got.Equal(want) {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
	for _, in := range []string{"", "yesterday", "now-", "now-x", "2026-13-01"} {
		t.Run("refuses "+in, func(t *testing.T) {
			t.Parallel()
			if got, err := parseTime(in, now); err == nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	t.Run("since counts back from the end", func(t *testing.T) {
		t.Parallel()
		start, end, err := (&span{since: "1h", to: "now-1h"}).resolve(now)
		if err != nil || !start.Equal(now.Add(-2*time.Hour)) || !end.Equal(now.Add(-time.Hour)) {
			t.Errorf("got %v to %v, %v", start, end, err)
		}
	})
	t.Run("from wins over since", func(t *testing.T) {
		t.Parallel()
		start, _, err := (&span{since: "1h", from: "now-1d"}).resolve(now)
		if err != nil || !start.Equal(now.Add(-24*time.Hour)) {
			t.Errorf("got %v, %v", start, err)
		}
	})
	t.Run("an empty range is refused", func(t *testing.T) {
		t.Parallel()
		if _, _, err := (&span{since: "1h", from: "now"}).resolve(now); !isUsage(err) {
			t.Errorf("got %v", err)
		}
	})
}
