// SPDX-License-Identifier: AGPL-3.0-only

package scanner

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/rollup/internal/debt"
)

// owing is an index whose windows are in debt for ever.
type owing struct {
	windows []lake.Window
	asked   []lake.Task
	fail    error
	now     time.Time
}

func (o *owing) Now(context.Context) (time.Time, error) { return o.now, nil }

func (o *owing) CompactionDebt(context.Context, lake.Organization) ([]index.Debt, error) {
	return []index.Debt{{Organization: "acme", Signal: lake.SignalLogs}, {Organization: "acme", Signal: lake.SignalMetrics}, {Organization: "b"}}, nil
}

func (o *owing) RollupDebt(_ context.Context, query index.RollupQuery) (debts []index.RollupDebt, err error) {
	for _, t := range query.Tiers {
		d := index.RollupDebt{Resolution: t.Resolution}
		for _, w := range o.windows {
			if query.Organization == "acme" && query.Signal == lake.SignalMetrics && t.Length == w.Length && !w.Start.Before(t.From) && !w.End().After(t.Until) {
				d.Windows = append(d.Windows, w)
				d.Count++
			}
		}
		debts = append(debts, d)
	}
	return debts, o.fail
}

func (o *owing) Enqueue(_ context.Context, tasks []lake.Task) error {
	o.asked = append(o.asked, tasks...)
	return nil
}

func TestWindowsAreAskedForEverLessOften(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 30, 0, 0, time.UTC)
	hour := func(before int) lake.Window {
		return lake.WindowOf(now.Add(-time.Duration(before)*time.Hour), time.Hour)
	}
	source, err := config.Static("rollups: [{resolution: 1m}]\n")
	if err != nil {
		t.Fatal(err)
	}
	x := &owing{now: now, windows: []lake.Window{hour(400), hour(5), hour(0)}}
	lags := 0
	s := &Scanner{Index: x, Config: source, Log: slog.New(slog.DiscardHandler), Lag: func(_ context.Context, tiers []debt.Tier) {
		lags++
		if len(tiers) != 2 || tiers[0].Organization != "acme" || tiers[0].Count != 2 || tiers[0].Lag != 399*time.Hour+30*time.Minute {
			t.Errorf("%+v", tiers)
		}
	}}
	got := map[string][]int{}
	for look := range 31 {
		x.asked = nil
		if err := s.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, task := range x.asked {
			if task.Kind != lake.TaskRollup || task.Organization != "acme" || task.Signal != lake.SignalMetrics || task.Tier != 60 {
				t.Errorf("%+v", task)
			}
			got[task.Window.Start.Format("02T15")] = append(got[task.Window.Start.Format("02T15")], look)
		}
	}
	want := map[string][]int{"10T07": {0, 2, 6, 14, 30}, "21T20": {0, 15, 30}}
	if diff := cmp.Diff(want, got); diff != "" || lags != 3 {
		t.Errorf("told of lags %d times; asked at looks (-want +got):\n%s", lags, diff)
	}
	x.fail = errors.New("gone")
	if err := s.Look(t.Context()); !errors.Is(err, x.fail) {
		t.Errorf("got %v", err)
	}
}
