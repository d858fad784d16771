// SPDX-License-Identifier: AGPL-3.0-only

package janitor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	"github.com/lakerunner/lakerunner/services/janitor"
)

// roll rolls up a window that has rows.
func (l *lab) roll(window lake.Window, resolution time.Duration) lake.Segment {
	l.Helper()
	window = lake.WindowOf(window.Start, config.RollupWindow(resolution))
	task := lake.Task{Kind: lake.TaskRollup, Organization: acme, Signal: lake.SignalLogs, Window: window, Tier: int(resolution.Seconds())}
	if err := l.index.Enqueue(l.Context(), []lake.Task{task}); err != nil {
		l.Fatal(err)
	}
	lease, err := l.index.Claim(l.Context(), index.Batch{Kind: lake.TaskRollup, Work: &task})
	if err != nil || lease == nil {
		l.Fatalf("claim: %v, %v", lease, err)
	}
	if err := l.index.Declare(l.Context(), lease.ID, []string{l.bucket.Name() + "/" + folder(lease.ID, window)}); err != nil {
		l.Fatal(err)
	}
	state, err := l.index.RollupWindow(l.Context(), acme, lake.SignalLogs, window)
	if err != nil {
		l.Fatal(err)
	}
	s := l.write(lease.ID, window, 0)
	s.Level, s.Resolution, s.AppliedDelete = 1, resolution, state.Latest
	edit := lake.Edit{Add: []lake.Segment{s}, Rolled: []lake.Rolled{{
		Signal: lake.SignalLogs, Window: window, Resolution: resolution, Version: state.Version.Version, AppliedDelete: state.Latest,
	}}}
	for _, r := range state.Rollups {
		if r.Resolution == resolution && r.Window == window {
			for _, old := range r.Segments {
				edit.Remove = append(edit.Remove, old.ID)
			}
		}
	}
	if err := l.index.Commit(l.Context(), lease, edit); err != nil {
		l.Fatal(err)
	}
	return s
}

// rolled counts the segments of current rollups of all time.
func (l *lab) rolled(resolution time.Duration) int {
	l.Helper()
	answer, err := l.index.Lookup(l.Context(), index.Query{
		Organization: acme, Signal: lake.SignalLogs, Start: time.Unix(0, 0), End: time.Now().Add(day), Resolution: resolution,
	})
	if err != nil {
		l.Fatal(err)
	}
	return len(answer.Segments)
}

const keepTiers = `, retention: [{signal: logs, resolution: raw, keep: 30d}, {signal: logs, resolution: 1h, keep: 2y}, {signal: logs, keep: 90d}]`

func TestRetentionOfRollups(t *testing.T) {
	t.Parallel()
	l := setup(t, settings{organization: keepTiers, config: janitor.Config{Grace: time.Hour}})
	for _, ago := range []time.Duration{1000 * day, 100 * day, 60 * day, day} {
		s := l.segment(ago)
		l.roll(s.Window, time.Minute)
		l.roll(s.Window, time.Hour)
	}

	t.Run("T5: rows and rollups go by policies of their own", func(t *testing.T) {
		planned := runs(must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{ValidateOnly: true}).GetRuns(), (*janitorv1.RetentionRun).GetDue)
		want := map[string]int64{"0s": 3, "1m0s": 2, "1h0m0s": 1}
		if diff := cmp.Diff(want, planned); diff != "" || l.live() != 4 {
			t.Errorf("dry run (-want +got):\n%s", diff)
		}
		done := runs(must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns(), (*janitorv1.RetentionRun).GetRemoved)
		if diff := cmp.Diff(want, done); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
		if l.live() != 1 || l.rolled(time.Minute) != 2 || l.rolled(time.Hour) != 3 {
			t.Errorf("%d segments of rows, %d of minutes, %d of hours", l.live(), l.rolled(time.Minute), l.rolled(time.Hour))
		}
		if again := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns(); len(again) != 0 {
			t.Errorf("once more: %v", again)
		}
		status := must(l, l.api.GetStatus)(&janitorv1.GetStatusRequest{}).GetOrganizations()[0]
		if status.GetSegments().GetSegments() != 1 || status.GetRollups().GetSegments() != 5 {
			t.Errorf("status: %v", status)
		}
	})

	t.Run("S1: their files are swept", func(t *testing.T) {
		l.ship()
		l.age(2 * time.Hour)
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetRemovedFiles() != 12 {
			t.Errorf("sweep: %v", swept)
		}
		for _, run := range must(l, l.api.ListRetentionRuns)(&janitorv1.ListRetentionRunsRequest{}).GetRuns() {
			if !same(run.GetDue(), run.GetVerified()) || run.GetFinishedAt() == nil {
				t.Errorf("run %v", run)
			}
		}
	})

	t.Run("N1, N3: they are no orphans, and missing when they are gone", func(t *testing.T) {
		l.sql("UPDATE leases SET claimed_at = claimed_at - interval '100 days'")
		hours, err := l.index.DueSegments(t.Context(), index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Resolution: time.Hour, Before: time.Now().Add(day)})
		if err != nil || len(hours) != 3 {
			t.Fatalf("%d segments of hours: %v", len(hours), err)
		}
		gone := hours[0]
		if err := l.bucket.Delete(t.Context(), gone.Key); err != nil {
			t.Fatal(err)
		}
		request := &janitorv1.InspectFilesRequest{Start: timestamppb.New(gone.Window.Start), End: timestamppb.New(gone.Window.End())}
		found := must(l, l.api.InspectFiles)(request)
		if found.GetOrphanedFiles() != 0 || len(found.GetMissing()) != 1 || found.GetMissing()[0].GetSegmentId() != fmt.Sprint(gone.ID) {
			t.Errorf("got %v", found)
		}
	})
}

// runs are the numbers of segments by the resolution of their runs.
func runs(all []*janitorv1.RetentionRun, count func(*janitorv1.RetentionRun) *janitorv1.Count) map[string]int64 {
	out := map[string]int64{}
	for _, run := range all {
		out[run.GetResolution().AsDuration().String()] += count(run).GetSegments()
	}
	return out
}

// TestResolutionsAgree: what can be configured is what the index takes.
func TestResolutionsAgree(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(config.Tiers(), index.Resolutions()); diff != "" {
		t.Errorf("(-configured +known):\n%s", diff)
	}
}
