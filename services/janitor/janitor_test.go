// SPDX-License-Identifier: AGPL-3.0-only

package janitor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lakerunner/lakerunner/pkg/archive"
	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
	janitorv1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/janitor/v1"
	lakev1 "github.com/lakerunner/lakerunner/proto/gen/lakerunner/lake/v1"
	"github.com/lakerunner/lakerunner/services/janitor"
)

const keepMonth = ", retention: [{signal: logs, keep: 30d}]"

func TestRetention(t *testing.T) {
	t.Parallel()

	t.Run("T3: due, removed, deleted and seen to be gone end equal", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{organization: keepMonth, config: janitor.Config{Grace: time.Hour}})
		var due int64
		for range 3 {
			s := l.segment(60 * day)
			due += s.Bytes + s.SidecarBytes
		}
		kept := l.segment(day)
		count := &janitorv1.Count{Segments: 3, Rows: 30, Bytes: due}

		planned := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{ValidateOnly: true}).GetRuns()
		if len(planned) != 1 || !same(count, planned[0].GetDue()) || planned[0].GetRunId() != "" || l.live() != 4 {
			t.Fatalf("dry run: %v", planned)
		}
		runs := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns()
		if len(runs) != 1 || !same(count, runs[0].GetDue()) || !same(count, runs[0].GetRemoved()) || runs[0].GetDeleted().GetSegments() != 0 || runs[0].GetFinishedAt() == nil {
			t.Fatalf("run: %v", runs)
		}
		if l.live() != 1 || len(l.segmentFiles()) != 8 {
			t.Fatalf("%d segments, files %v", l.live(), l.segmentFiles())
		}

		// S1: the grace, and the record.
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetRemovedFiles() != 0 || swept.GetWaitingSegments() != 3 {
			t.Fatalf("within the grace: %v", swept)
		}
		l.age(2 * time.Hour)
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetRemovedFiles() != 0 {
			t.Fatalf("before the record was shipped: %v", swept)
		}
		l.ship()
		if dry := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{ValidateOnly: true}); dry.GetRemovedFiles() != 6 || dry.GetRemovedBytes() != due || len(l.segmentFiles()) != 8 {
			t.Fatalf("dry run: %v", dry)
		}
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetRemovedFiles() != 6 || swept.GetRemovedBytes() != due {
			t.Fatalf("sweep: %v", swept)
		}
		if diff := cmp.Diff([]string{kept.Key, lake.SidecarKey(kept.Key)}, l.segmentFiles()); diff != "" {
			t.Error(diff)
		}
		run := must(l, l.api.ListRetentionRuns)(&janitorv1.ListRetentionRunsRequest{}).GetRuns()[0]
		for name, got := range map[string]*janitorv1.Count{"due": run.GetDue(), "removed": run.GetRemoved(), "deleted": run.GetDeleted(), "verified": run.GetVerified()} {
			if diff := cmp.Diff(count, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if again := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns(); len(again) != 0 {
			t.Errorf("once more: %v", again)
		}
	})

	t.Run("T1: rows that a longer policy may keep are left to compaction", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{organization: `, retention: [{signal: logs, selector: '{service_name="audit"}', keep: 90d}, {signal: logs, keep: 30d}]`})
		l.segment(100 * day)
		between := l.segment(60 * day)
		l.segment(day)
		runs := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{Signal: lakev1.Signal_SIGNAL_LOGS}).GetRuns()
		if len(runs) != 1 || runs[0].GetRemoved().GetSegments() != 1 || runs[0].GetWindowsToRewrite() != 1 || l.live() != 2 {
			t.Errorf("%d live, runs %v", l.live(), runs)
		}
		task := lake.Task{Kind: lake.TaskCompact, Organization: acme, Signal: lake.SignalLogs, Window: between.Window}
		if lease, err := l.index.Claim(t.Context(), index.Batch{Kind: lake.TaskCompact, Work: &task}); err != nil || lease == nil {
			t.Errorf("the window was not handed to compaction: %v", err)
		}
	})

	t.Run("T1: without a policy nothing goes", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{})
		l.segment(1000 * day)
		if runs := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns(); len(runs) != 0 || l.live() != 1 {
			t.Errorf("runs %v", runs)
		}
	})

	t.Run("T2: no commit removes more than a thousand segments", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{organization: keepMonth})
		window := lake.WindowOf(time.Now().Add(-60*day), time.Hour)
		for range 3 {
			lease := l.claim(window)
			var segments []lake.Segment
			for n := range 500 {
				key := lake.SegmentKey(acme, lake.SignalLogs, window, lease.ID, n)
				segments = append(segments, lake.Segment{
					Organization: acme, Signal: lake.SignalLogs, Window: window, Bucket: l.bucket.Name(), Key: key, Bytes: 1, Rows: 1,
					FirstTime: window.Start, LastTime: window.Start, FormatVersion: 2,
				})
			}
			l.commit(lease, segments...)
		}
		runs := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns()
		if len(runs) != 1 || runs[0].GetDue().GetSegments() != 1500 || runs[0].GetRemoved().GetSegments() != 1500 || l.live() != 0 {
			t.Errorf("%d live, runs %v", l.live(), runs)
		}
	})

	for _, step := range []string{"retention-begun", "retention-counted"} {
		t.Run("T3: a crash at "+step+" changes no number", func(t *testing.T) {
			t.Parallel()
			l := setup(t, settings{organization: keepMonth})
			l.segment(60 * day)
			l.crash = step
			if _, err := l.api.RunRetention(l.ctx, &janitorv1.RunRetentionRequest{}); err == nil || l.live() != 1 {
				t.Fatalf("it did not crash: %v", err)
			}
			l.sql("UPDATE tasks SET not_before = now()")
			runs := must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{}).GetRuns()
			if len(runs) != 1 || !same(runs[0].GetDue(), runs[0].GetRemoved()) || runs[0].GetDue().GetSegments() != 1 || l.live() != 0 {
				t.Errorf("runs %v", runs)
			}
		})
	}
}

func same(a, b *janitorv1.Count) bool { return cmp.Diff(a, b, protocmp.Transform()) == "" }

func TestSweep(t *testing.T) {
	t.Parallel()

	t.Run("S2: files of a dead lease go after the grace, those of a living one stay", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Grace: time.Hour}})
		window := lake.WindowOf(time.Now(), time.Hour)
		dead, living := l.claim(window), l.claim(window)
		l.write(dead.ID, window, 0)
		l.write(living.ID, window, 0)
		if err := l.index.Release(t.Context(), dead, errors.New("crashed")); err != nil {
			t.Fatal(err)
		}
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetOrphanedFiles() != 0 || len(l.segmentFiles()) != 4 {
			t.Fatalf("within the grace: %v", swept)
		}
		l.age(2 * time.Hour)
		if dry := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{ValidateOnly: true}); dry.GetOrphanedFiles() != 2 || len(l.segmentFiles()) != 4 {
			t.Fatalf("dry run: %v", dry)
		}
		if swept := must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{}); swept.GetOrphanedFiles() != 2 {
			t.Fatalf("sweep: %v", swept)
		}
		for _, key := range l.segmentFiles() {
			if !strings.Contains(key, string(living.ID)) {
				t.Errorf("left: %s", key)
			}
		}
		if len(l.segmentFiles()) != 2 {
			t.Errorf("left: %v", l.segmentFiles())
		}
	})

	for _, step := range []string{"sweep-requested", "sweep-deleted", "sweep-swept", "sweep-orphans-deleted"} {
		t.Run("S4: a crash at "+step+" is made good", func(t *testing.T) {
			t.Parallel()
			l := setup(t, settings{organization: keepMonth, config: janitor.Config{Grace: time.Hour}})
			l.segment(60 * day)
			window := lake.WindowOf(time.Now(), time.Hour)
			dead := l.claim(window)
			l.write(dead.ID, window, 0)
			if err := l.index.Release(t.Context(), dead, errors.New("crashed")); err != nil {
				t.Fatal(err)
			}
			must(l, l.api.RunRetention)(&janitorv1.RunRetentionRequest{})
			l.ship()
			l.age(2 * time.Hour)
			l.crash = step
			if _, err := l.api.SweepFiles(l.ctx, &janitorv1.SweepFilesRequest{}); err == nil {
				t.Fatal("it did not crash")
			}
			l.sql("UPDATE tasks SET not_before = now()")
			must(l, l.api.SweepFiles)(&janitorv1.SweepFilesRequest{})
			run := must(l, l.api.ListRetentionRuns)(&janitorv1.ListRetentionRunsRequest{}).GetRuns()[0]
			if left := l.segmentFiles(); len(left) != 0 || !same(run.GetDue(), run.GetVerified()) || !same(run.GetDue(), run.GetDeleted()) {
				t.Errorf("left %v, run %v", left, run)
			}
		})
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()

	t.Run("N3: a segment whose file is gone is missing until the file is back", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{})
		s := l.segment(0)
		if err := l.bucket.Delete(t.Context(), s.Key); err != nil {
			t.Fatal(err)
		}
		if dry := must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{ValidateOnly: true}); len(dry.GetMissing()) != 1 {
			t.Fatalf("dry run: %v", dry)
		}
		if listed := must(l, l.api.ListMissingFiles)(&janitorv1.ListMissingFilesRequest{}).GetMissing(); len(listed) != 0 {
			t.Fatalf("a dry run marked %v", listed)
		}
		must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{})
		listed := must(l, l.api.ListMissingFiles)(&janitorv1.ListMissingFilesRequest{}).GetMissing()
		if len(listed) != 1 || listed[0].GetKey() != s.Key || listed[0].GetRows() != 10 || len(listed[0].GetReceiptIds()) != 1 || listed[0].GetMissingSince() == nil {
			t.Fatalf("listed: %v", listed)
		}
		status := must(l, l.api.GetStatus)(&janitorv1.GetStatusRequest{}).GetOrganizations()
		if len(status) != 1 || status[0].GetMissing() != 1 {
			t.Errorf("status: %v", status)
		}
		if _, err := l.bucket.Put(t.Context(), s.Key, strings.NewReader(s.Key), int64(len(s.Key))); err != nil {
			t.Fatal(err)
		}
		must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{})
		if left := must(l, l.api.ListMissingFiles)(&janitorv1.ListMissingFilesRequest{}).GetMissing(); len(left) != 0 {
			t.Errorf("still missing: %v", left)
		}
	})

	t.Run("N1: a file that nobody has is deleted, if it is old and of no living lease", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Grace: time.Millisecond}})
		window := lake.WindowOf(time.Now(), time.Hour)
		known := l.segment(0)
		living := l.claim(window)
		kept := l.write(living.ID, window, 0)
		nobodys := l.write("nobody", window, 0)
		recorded := l.write("recorded-lease-0123456789", window, 0)
		if _, err := archive.WriteRecords(t.Context(), l.bucket, acme, archive.Batch{Last: 1, At: time.Now(), Lines: []byte(`{"lease":"recorded-lease-0123456789"}` + "\n")}); err != nil {
			t.Fatal(err)
		}
		dry := must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{Signal: lakev1.Signal_SIGNAL_LOGS, ValidateOnly: true, Start: timestamppb.New(window.Start)})
		if dry.GetFiles() != 8 || dry.GetOrphanedFiles() != 2 || len(l.segmentFiles()) != 8 {
			t.Fatalf("dry run: %v, files %v", dry, l.segmentFiles())
		}
		done := must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{Signal: lakev1.Signal_SIGNAL_LOGS, Start: timestamppb.New(window.Start)})
		var want []string
		for _, s := range []lake.Segment{known, kept, recorded} {
			want = append(want, s.Key, lake.SidecarKey(s.Key))
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, l.segmentFiles()); diff != "" || done.GetOrphanedFiles() != 2 || done.GetOrphanedBytes() != nobodys.Bytes+nobodys.SidecarBytes {
			t.Errorf("%v: %s", done, diff)
		}
	})

	t.Run("N1: a file that is committed while it is compared is left alone", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Grace: time.Millisecond}})
		window := lake.WindowOf(time.Now(), time.Hour)
		lease := l.claim(window)
		late := l.write(lease.ID, window, 0)
		l.during = map[string]func(){"inspect-compared": func() { l.commit(lease, late) }}
		must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{Signal: lakev1.Signal_SIGNAL_LOGS, Start: timestamppb.New(window.Start)})
		if diff := cmp.Diff([]string{late.Key, lake.SidecarKey(late.Key)}, l.segmentFiles()); diff != "" || l.live() != 1 {
			t.Errorf("%d segments live, their files: %s", l.live(), diff)
		}
	})

	t.Run("N1: a young file is left alone", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Grace: time.Hour}})
		l.write("nobody", lake.WindowOf(time.Now(), time.Hour), 0)
		if got := must(l, l.api.InspectFiles)(&janitorv1.InspectFilesRequest{}); got.GetOrphanedFiles() != 0 || len(l.segmentFiles()) != 2 {
			t.Errorf("got %v", got)
		}
	})
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	const folder = "logs-raw/acme/gateway/"

	t.Run("R1: an object whose event was lost is handed to the notifier, and completeness says so", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Settle: time.Millisecond}})
		l.receive(l.object(folder + "1.log"))
		lost := l.object(folder + "2.log")
		dry := must(l, l.api.ReconcileObjects)(&janitorv1.ReconcileObjectsRequest{ValidateOnly: true})
		if dry.GetObjects() != 2 || dry.GetMissed() != 1 || dry.GetFirstMissed()[0].GetKey() != lost.Key || dry.GetRequests() == 0 {
			t.Fatalf("dry run: %v", dry)
		}
		if hours := must(l, l.api.ListCompleteness)(&janitorv1.ListCompletenessRequest{}).GetHours(); len(hours) != 0 {
			t.Fatalf("a dry run kept %v", hours)
		}
		got := must(l, l.api.ReconcileObjects)(&janitorv1.ReconcileObjectsRequest{})
		if got.GetMissed() != 1 || got.GetMissedBytes() != lost.Size {
			t.Fatalf("got %v", got)
		}
		receipts, _, err := l.index.Receipts(t.Context(), index.ReceiptQuery{Organization: acme, State: lake.ReceiptPending})
		if err != nil || len(receipts) != 2 {
			t.Fatalf("receipts %v, %v", receipts, err)
		}
		hours := must(l, l.api.ListCompleteness)(&janitorv1.ListCompletenessRequest{}).GetHours()
		if len(hours) != 1 || hours[0].GetPrefix() != folder || hours[0].GetObjects() != 2 || hours[0].GetKnown() != 1 || hours[0].GetBytes() == 0 {
			t.Fatalf("hours %v", hours)
		}
		if again := must(l, l.api.ReconcileObjects)(&janitorv1.ReconcileObjectsRequest{}); again.GetMissed() != 0 {
			t.Errorf("again: %v", again)
		}
		hours = must(l, l.api.ListCompleteness)(&janitorv1.ListCompletenessRequest{Prefix: folder}).GetHours()
		if len(hours) != 1 || hours[0].GetKnown() != 2 {
			t.Errorf("hours %v", hours)
		}
	})

	t.Run("R1: the round over everything finds what lies under no recent prefix", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Settle: time.Millisecond, ReconcileObjects: 2}})
		for n := range 7 {
			l.object(fmt.Sprintf("logs-raw/acme/old-%d/1.log", n))
		}
		l.segment(0) // our own files are passed over
		l.run(janitor.Config{Settle: time.Millisecond, ReconcileObjects: 2, Reconcile: 5 * time.Millisecond}, func() bool {
			receipts, _, err := l.index.Receipts(t.Context(), index.ReceiptQuery{Organization: acme, State: lake.ReceiptPending})
			return err == nil && len(receipts) == 7
		})
	})

	t.Run("R2: an object whose event may still come is not missed", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Settle: time.Hour}})
		l.object(folder + "1.log")
		if got := must(l, l.api.ReconcileObjects)(&janitorv1.ReconcileObjectsRequest{Prefix: folder}); got.GetObjects() != 0 || got.GetMissed() != 0 {
			t.Errorf("got %v", got)
		}
	})

	t.Run("R3: figures are of whole folders", func(t *testing.T) {
		t.Parallel()
		l := setup(t, settings{config: janitor.Config{Settle: time.Millisecond}})
		l.object(folder + "1.log")
		l.object(folder + "deep/2.log")
		must(l, l.api.ReconcileObjects)(&janitorv1.ReconcileObjectsRequest{Prefix: folder + "d"})
		hours := must(l, l.api.ListCompleteness)(&janitorv1.ListCompletenessRequest{}).GetHours()
		if len(hours) != 1 || hours[0].GetPrefix() != folder+"deep/" {
			t.Errorf("hours %v", hours)
		}
	})
}

// run runs a janitor until a condition holds.
func (l *lab) run(c janitor.Config, until func() bool) {
	l.Helper()
	ctx, stop := context.WithTimeout(l.Context(), time.Minute)
	defer stop()
	var running sync.WaitGroup
	service := l.service(c)
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			l.Error(err)
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !until() {
		select {
		case <-ctx.Done():
			l.Error("the condition did not come to hold")
			running.Wait()
			return
		case <-tick.C:
		}
	}
	stop()
	running.Wait()
}

func TestTwoJanitorsAtOnce(t *testing.T) {
	t.Parallel()
	c := janitor.Config{
		Grace: time.Second, Retention: 5 * time.Millisecond, Sweep: 5 * time.Millisecond, Ship: 5 * time.Millisecond, Inspect: 5 * time.Millisecond,
		Reconcile: 5 * time.Millisecond, Settle: time.Hour, Upkeep: 50 * time.Millisecond, Raw: 20 * time.Millisecond,
	}
	l := setup(t, settings{organization: keepMonth, config: c})
	for range 5 {
		l.segment(60 * day)
	}
	kept := l.segment(day)
	other := make(chan struct{})
	gone := func() bool { return len(l.segmentFiles()) == 2 }
	go func() {
		defer close(other)
		l.run(c, gone)
	}()
	l.run(c, gone)
	<-other
	if diff := cmp.Diff([]string{kept.Key, lake.SidecarKey(kept.Key)}, l.segmentFiles()); diff != "" {
		t.Error(diff)
	}
	run := must(l, l.api.ListRetentionRuns)(&janitorv1.ListRetentionRunsRequest{}).GetRuns()
	var removed, verified int64
	for _, r := range run {
		removed += r.GetRemoved().GetSegments()
		verified += r.GetVerified().GetSegments()
	}
	if removed != 5 || verified > 5 {
		t.Errorf("removed %d, verified %d in %v", removed, verified, run)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	l := setup(t, settings{})
	nobody := config.WithIdentity(t.Context(), config.Identity{KeyID: "root", Scopes: []config.Scope{config.ScopeAdmin}})
	if _, err := l.api.SweepFiles(nobody, &janitorv1.SweepFilesRequest{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("no organization: %v", err)
	}
	other := config.WithIdentity(t.Context(), config.Identity{KeyID: "k", Organization: "globex", Scopes: []config.Scope{config.ScopeQuery}})
	if _, err := l.api.SweepFiles(other, &janitorv1.SweepFilesRequest{Organization: "acme"}); !errors.Is(err, fault.Denied) {
		t.Errorf("another organization: %v", err)
	}
	if _, err := l.api.ListRetentionRuns(l.ctx, &janitorv1.ListRetentionRunsRequest{PageSize: 5000}); !errors.Is(err, fault.Invalid) {
		t.Errorf("page size: %v", err)
	}
}
