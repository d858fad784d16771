// SPDX-License-Identifier: AGPL-3.0-only

package e2e_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/index/indextest"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/lakerunner/internal/stack"
)

// TestRebuildOfMetrics makes the index of metrics and their rollups anew, from the bucket alone: it answers as before, of rollups, too.
func TestRebuildOfMetrics(t *testing.T) {
	t.Parallel()
	r := &recovery{end: lately().Add(20 * time.Minute), options: lakeOptions{
		settings: "    rollups: [{resolution: 10s, after: 20h}, {resolution: 1m, after: 20h}]\n",
		tune:     func(s *stack.ServiceSettings) { s.Rollup.Settle, s.Janitor.Erase = time.Millisecond, time.Second },
	}}
	r.lake = newLake(t, r.options)
	s := newShopMetrics(t, r.lake, "default", 27, r.end)
	const late = 5 // of twelve objects
	s.put(slices.Concat(s.objects[:late], s.objects[late+1:]), len(s.objects)-1)
	gap := s.start.Add(late * time.Hour / time.Duration(len(s.objects)))
	missing := s.without(gap, gap.Add(time.Hour/time.Duration(len(s.objects))))

	pod := podOfShop(t, s, "cart")
	whole := s.series
	s.series = missing
	known, _ := s.withoutPod(pod, r.end.Add(-15*time.Minute), r.end)
	s.series = whole
	roll := func() {
		t.Helper()
		r.compactMetrics(t, "default", s.start, r.end)
		r.rollUp(t, "default", 10*time.Second, s.start, r.end)
		r.rollUp(t, "default", time.Minute, s.start, r.end)
	}
	roll()
	if _, err := r.janitor().DeleteData(r.admin(), &janitorv1.DeleteDataRequest{
		Organization: "default", Signal: lakev1.Signal_SIGNAL_METRICS, Selector: "{" + podLabel + `="` + pod + `"}`, Reason: "a test",
		Start: timestamppb.New(r.end.Add(-15 * time.Minute)), End: timestamppb.New(r.end),
	}); err != nil {
		t.Fatal(err)
	}
	roll()
	truth := cumulative(t, known)
	hold := func(what string) {
		t.Helper()
		s.rounds = 1 // the same queries each time
		if _, rolled := r.holds(t, "default", truth, s.asked(dashboard()...)); rolled < 3 || t.Failed() {
			t.Fatalf("%s: %d answers are of rollups", what, rolled)
		}
	}
	hold("before")
	r.verify()
	r.ship(false)
	before := r.totals()
	r.lake.stop()

	r.objects = len(s.objects) - 1
	r.rebuild(indextest.URL(t), "--reconcile")
	s.lake = r.lake
	hold("rebuilt")
	if diff := cmp.Diff(before, r.totals(), protocmp.Transform()); diff != "" {
		t.Errorf("segments before and after (-want +got):\n%s", diff)
	}
	r.verify()

	t.Run("a late object makes rollups stale, and they are made anew", func(t *testing.T) {
		s.put(s.objects[late:late+1], len(s.objects))
		known, _ = s.withoutPod(pod, r.end.Add(-15*time.Minute), r.end)
		truth = cumulative(t, known)
		r.holds(t, "default", truth, s.asked(dashboard()...))
		roll()
		hold("rolled up again")
		r.verify()
	})
}

// totals are what the index has live.
func (r *recovery) totals() []*janitorv1.Count {
	r.t.Helper()
	status, err := r.janitor().GetStatus(r.admin(), &janitorv1.GetStatusRequest{Organization: "default"})
	if err != nil {
		r.t.Fatal(err)
	}
	o := status.GetOrganizations()[0]
	if o.GetRollups().GetSegments() == 0 || o.GetSegments().GetSegments() == 0 {
		r.t.Errorf("status %v", o)
	}
	return []*janitorv1.Count{o.GetSegments(), o.GetRollups()}
}
