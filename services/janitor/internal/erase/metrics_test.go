// SPDX-License-Identifier: AGPL-3.0-only

package erase

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestDeletesOfMetricsAreChecked(t *testing.T) {
	l := setup(t)
	for name, c := range map[string]struct {
		selector string
		sources  lake.SourcePolicy
		want     error
	}{
		"a selector of series":      {`{__name__="up",pod=~"a|b"}`, lake.SourceErase, nil},
		"a name alone":              {`up`, "", nil},
		"an expression":             {`rate(up[5m])`, "", fault.Invalid},
		"one of lines":              {`{pod="a"} |= "x"`, "", fault.Invalid},
		"one that chooses anything": {`{pod=~".*"}`, "", fault.Invalid},
		"objects to redact":         {`up`, lake.SourceRedact, fault.Invalid},
	} {
		d, _, err := l.Plan(t.Context(), lake.Delete{Organization: acme, Signal: lake.SignalMetrics, Selector: c.selector, Sources: c.sources, Reason: "a test"})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if err == nil && d.Signal != lake.SignalMetrics {
			t.Errorf("%s: it is of %s", name, d.Signal)
		}
	}
	if _, _, err := l.Plan(t.Context(), lake.Delete{Organization: acme, Signal: lake.SignalSpans, Selector: "up", Reason: "a test"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("spans: %v", err)
	}
}

func TestRollupsAreHandedToWhoMakesThem(t *testing.T) {
	t.Parallel()
	hour, day := lake.WindowOf(time.Unix(1_700_000_000, 0), time.Hour), lake.WindowOf(time.Unix(1_700_000_000, 0), day)
	w := newWindows()
	for _, s := range []lake.Segment{
		{Window: hour, Bytes: 1},
		{Window: hour, Bytes: 2, Resolution: time.Minute},
		{Window: hour, Bytes: 3, Resolution: time.Minute},
		{Window: day, Bytes: 4},
		{Window: day, Bytes: 5, Resolution: time.Hour},
	} {
		s.Organization, s.Signal = acme, lake.SignalMetrics
		w.add(s)
	}
	task := func(kind lake.TaskKind, window lake.Window, tier int, bytes int64) lake.Task {
		return lake.Task{Kind: kind, Organization: acme, Signal: lake.SignalMetrics, Window: window, Tier: tier, Bytes: bytes}
	}
	want := []lake.Task{
		task(lake.TaskCompact, hour, 0, 1), task(lake.TaskRollup, hour, 60, 5), task(lake.TaskCompact, day, 1, 4), task(lake.TaskRollup, day, 3600, 5),
	}
	if diff := cmp.Diff(want, w.tasks); diff != "" {
		t.Error(diff)
	}
}
