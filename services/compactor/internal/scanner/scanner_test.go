// SPDX-License-Identifier: AGPL-3.0-only

package scanner

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// debts is an index of which a Scanner sees the windows alone.
type debts struct {
	now     time.Time
	windows []index.WindowDebt
	stale   []index.StaleQuery
	asked   []lake.Task
}

func (d *debts) Now(context.Context) (time.Time, error) { return d.now, nil }

func (d *debts) WindowsWithDebt(_ context.Context, after index.WindowCursor, limit int) ([]index.WindowDebt, error) {
	from := 0
	for i, w := range d.windows {
		if w.Cursor() == after {
			from = i + 1
		}
	}
	return d.windows[from:min(from+limit, len(d.windows))], nil
}

func (d *debts) StaleWindows(_ context.Context, q index.StaleQuery) ([]index.WindowDebt, error) {
	d.stale = append(d.stale, q)
	return nil, nil
}

func (d *debts) Enqueue(_ context.Context, tasks []lake.Task) error {
	d.asked = append(d.asked, tasks...)
	return nil
}

func newScanner(t *testing.T, d *debts) *Scanner {
	t.Helper()
	source, err := config.Static("organizations: [{id: acme, fields: [{name: user, action: drop, after: 30d}]}]\n")
	if err != nil {
		t.Fatal(err)
	}
	return &Scanner{Index: d, Config: source, Log: slog.New(slog.DiscardHandler), Every: time.Minute, Page: 2}
}

func window(hour int) index.WindowDebt {
	start := time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC)
	return index.WindowDebt{Organization: "acme", Signal: lake.SignalLogs, Window: lake.WindowOf(start, time.Hour), Segments: 3, Fresh: 2, Bytes: 100}
}

func (d *debts) hours() []string {
	var hours []string
	for _, task := range d.asked {
		hours = append(hours, fmt.Sprint(task.Window.Start.Hour(), " ", task.Delay))
	}
	d.asked = nil
	return hours
}

func TestAllPagesAreAskedForHotWindowsFirst(t *testing.T) {
	t.Parallel()
	d := &debts{now: time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC), windows: []index.WindowDebt{window(8), window(10), window(7)}}
	s := newScanner(t, d)
	if err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10 0s", "8 1s", "7 1s"}, d.hours()); diff != "" {
		t.Error(diff)
	}
}

func TestAWindowThatNeverChangesIsAskedForLessAndLess(t *testing.T) {
	t.Parallel()
	d := &debts{now: time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC), windows: []index.WindowDebt{window(7), window(8), window(9)}}
	d.windows[0].Fresh = 0
	s := newScanner(t, d)
	asked := map[string]int{}
	for look := range 2000 {
		d.windows[2].Bytes = int64(look) // this one changes
		if err := s.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, hour := range d.hours() {
			asked[hour]++
		}
	}
	if asked["9 1s"] != 2000 || asked["8 1s"] < 30 || asked["8 1s"] > 50 || asked["7 1s"] < 5 || asked["7 1s"] > 15 {
		t.Errorf("asked %v times", asked)
	}
}

func TestStaleSegmentsAreLookedForNowAndThen(t *testing.T) {
	t.Parallel()
	d := &debts{now: time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)}
	s := newScanner(t, d)
	for range staleEvery {
		if err := s.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []index.StaleQuery{
		{Organization: "acme", Signal: lake.SignalLogs, Before: d.now, FormatBelow: 2, Limit: 2},
		{Organization: "acme", Signal: lake.SignalLogs, Before: d.now.Add(-30 * 24 * time.Hour), MissingRule: "drop:user", Limit: 2},
		{Organization: "acme", Signal: lake.SignalMetrics, Before: d.now, FormatBelow: 1, Limit: 2},
	}
	if diff := cmp.Diff(want, d.stale); diff != "" {
		t.Error(diff)
	}
}
