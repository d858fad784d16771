// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// expiry leases retention of logs.
func (l *lab) expiry() *lake.Lease {
	l.Helper()
	if err := l.Enqueue(l.Context(), []lake.Task{{Kind: lake.TaskExpire, Organization: acme, Signal: lake.SignalLogs}}); err != nil {
		l.Fatal(err)
	}
	return l.claim(index.Batch{Kind: lake.TaskExpire})
}

// remove takes segments out, as retention does.
func (l *lab) remove(ids ...lake.SegmentID) *lake.Lease {
	l.Helper()
	lease := l.expiry()
	l.commit(lease, lake.Edit{Remove: ids})
	return lease
}

// ship says that all records have reached the bucket.
func (l *lab) ship() {
	l.Helper()
	var ids []int64
	for _, r := range l.records(acme) {
		ids = append(ids, r.ID)
	}
	if err := l.RecordsShipped(l.Context(), ids); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) sweepable(grace time.Duration) []lake.SegmentID {
	l.Helper()
	found, err := l.Sweepable(l.Context(), acme, grace, 0)
	if err != nil {
		l.Fatal(err)
	}
	ids := []lake.SegmentID{}
	for _, s := range found {
		ids = append(ids, s.ID)
	}
	return ids
}

func (l *lab) age(interval string) {
	l.Helper()
	l.exec("UPDATE segments SET removed_at = removed_at - $1::interval WHERE removed_at IS NOT NULL", interval)
	l.exec("UPDATE leases SET ended_at = ended_at - $1::interval WHERE ended_at IS NOT NULL", interval)
}

func TestSweepingWaitsForGraceAndRecord(t *testing.T) {
	l := setup(t)
	kept, gone := l.ingested("a", 0), l.ingested("b", 0)
	lease := l.remove(gone.ID)
	want := func(ids ...lake.SegmentID) {
		t.Helper()
		if diff := cmp.Diff(append([]lake.SegmentID{}, ids...), l.sweepable(time.Hour)); diff != "" {
			t.Errorf("to be swept (-want +got):\n%s", diff)
		}
	}

	want()
	l.age("2 hours")
	want() // its record has not been shipped
	l.ship()
	want(gone.ID)
	found, err := l.Sweepable(t.Context(), acme, time.Hour, 0)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d segments: %v", len(found), err)
	}
	if s := found[0]; s.Bucket != gone.Bucket || s.Key != gone.Key || s.Bytes != gone.Bytes || s.SidecarBytes != gone.SidecarBytes || s.RemovedBy != lease.ID {
		t.Errorf("got %+v, want that of %+v", s, gone)
	}
	if waiting, err := l.SweepWaiting(t.Context(), acme, 3*time.Hour); err != nil || waiting.Segments != 1 || waiting.Bytes != gone.Bytes+gone.SidecarBytes {
		t.Errorf("%+v wait (%v), want one", waiting, err)
	}
	if others, err := l.Sweepable(t.Context(), "globex", 0, 0); err != nil || len(others) != 0 {
		t.Errorf("another organization may sweep %d segments (%v)", len(others), err)
	}

	for range 2 { // again, after an answer was lost
		if err := l.Swept(t.Context(), acme, []lake.SegmentID{gone.ID, kept.ID}); err != nil {
			t.Fatal(err)
		}
	}
	want()
	if n := l.number("SELECT count(*) FROM segments WHERE id = $1", kept.ID); n != 1 {
		t.Error("a live segment was swept")
	}
	if n := l.number("SELECT count(*) FROM segment_sources WHERE segment = $1", gone.ID); n != 0 {
		t.Errorf("%d sources of the swept segment are left", n)
	}
}

func TestARunOfRetentionIsProven(t *testing.T) {
	l := setup(t)
	a, b := l.ingested("a", 0), l.ingested("b", 0)
	due, err := l.DueSegments(t.Context(), index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Before: hour.End()})
	if err != nil || len(due) != 2 {
		t.Fatalf("%d segments are due (%v), want two", len(due), err)
	}
	if early, err := l.DueSegments(t.Context(), index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Before: hour.End().Add(-time.Second)}); err != nil || len(early) != 0 {
		t.Errorf("%d segments are due before their windows end (%v)", len(early), err)
	}
	paged := index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Before: hour.End(), Limit: 1}
	for n, want := range []lake.SegmentID{a.ID, b.ID} {
		one, err := l.DueSegments(t.Context(), paged)
		if err != nil || len(one) != 1 || one[0].ID != want {
			t.Fatalf("page %d: %+v (%v), want segment %d", n, one, err, want)
		}
		paged.After = &one[0]
	}

	count := index.Count{Segments: 2, Rows: a.Rows + b.Rows, Bytes: 2200}
	run, err := l.BeginRetention(t.Context(), index.RetentionRun{Organization: acme, Signal: lake.SignalLogs, Cutoff: hour.End(), Due: count, WindowsToRewrite: 3})
	if err != nil {
		t.Fatal(err)
	}
	lease := l.expiry()
	for _, finished := range []bool{false, true, true} {
		if err := l.RetentionRemoved(t.Context(), run, lease.ID, index.Count{}, finished); err != nil {
			t.Fatal(err)
		}
	}
	edit := lake.Edit{Remove: []lake.SegmentID{a.ID, b.ID}}
	l.commit(lease, edit)
	l.commit(lease, edit) // asked again
	proof := func() index.RetentionRun {
		t.Helper()
		runs, next, err := l.RetentionRuns(t.Context(), acme, 0, "")
		if err != nil || len(runs) != 1 || next != "" {
			t.Fatalf("%d runs, next %q: %v", len(runs), next, err)
		}
		return runs[0]
	}
	got := proof()
	if got.ID != run || got.Due != count || got.Removed != count || got.Verified != (index.Count{}) || got.FinishedAt.IsZero() || got.WindowsToRewrite != 3 {
		t.Errorf("after the removal: %+v", got)
	}
	for _, id := range []lake.SegmentID{a.ID, b.ID, b.ID} {
		if err := l.Swept(t.Context(), acme, []lake.SegmentID{id}); err != nil {
			t.Fatal(err)
		}
	}
	if got := proof(); got.Deleted != count || got.Verified != count {
		t.Errorf("after the sweep: %+v", got)
	}
	err = l.RetentionRemoved(t.Context(), run+1, lease.ID, index.Count{}, true)
	l.wantFault(err, fault.NotFound)
}

func TestAbandonedLeasesAreSwept(t *testing.T) {
	l := setup(t)
	l.receive(notice(acme, "a", "v1"))
	lease := l.claim(ingest)
	folder := fmt.Sprintf("b/db/acme/logs/2026-03-01/%s/", lease.ID)
	if err := l.Declare(t.Context(), lease.ID, []string{folder}); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context(), lease, fault.New(fault.Canceled, "shutdown")); err != nil {
		t.Fatal(err)
	}
	second := l.claim(ingest)
	l.commit(second, whole(second))

	abandoned := func(grace time.Duration) []index.AbandonedLease {
		t.Helper()
		found, err := l.AbandonedLeases(t.Context(), acme, grace, 0)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := abandoned(time.Hour); len(found) != 0 {
		t.Errorf("%d leases are abandoned within the grace", len(found))
	}
	found := abandoned(0)
	if len(found) != 1 || found[0].ID != lease.ID || found[0].Kind != lake.TaskIngest || !slices.Equal(found[0].Folders, []string{folder}) {
		t.Fatalf("got %+v, want the released lease", found)
	}
	states, err := l.LeaseStates(t.Context(), []lake.LeaseID{lease.ID, second.ID, "nobody"})
	want := map[lake.LeaseID]string{lease.ID: "released", second.ID: "committed"}
	if diff := cmp.Diff(want, states); diff != "" || err != nil {
		t.Errorf("states, %v (-want +got):\n%s", err, diff)
	}
	if err := l.ForgetLeases(t.Context(), []lake.LeaseID{lease.ID, second.ID}); err != nil {
		t.Fatal(err)
	}
	if left := abandoned(0); len(left) != 0 {
		t.Errorf("%d leases are left", len(left))
	}
	if n := l.number("SELECT count(*) FROM leases WHERE id = $1", second.ID); n != 1 {
		t.Error("a committed lease was forgotten")
	}
}

func TestMissingFilesAreNoted(t *testing.T) {
	l := setup(t)
	a, b := l.ingested("a", 0), l.ingested("b", 0)
	c := l.ingested("c", 0)
	l.remove(c.ID)

	files, err := l.SegmentsOfDay(t.Context(), acme, lake.SignalLogs, hour.Start, 0, 0)
	if err != nil || len(files) != 3 || files[0].ID != a.ID || files[0].Key != a.Key || files[0].Removed || !files[2].Removed {
		t.Errorf("got %+v (%v), want three segments, the last one removed", files, err)
	}
	if next, err := l.SegmentsOfDay(t.Context(), acme, lake.SignalLogs, hour.Start, a.ID, 1); err != nil || len(next) != 1 || next[0].ID != b.ID {
		t.Errorf("the page after the first is %+v (%v)", next, err)
	}
	if other, err := l.SegmentsOfDay(t.Context(), acme, lake.SignalLogs, hour.Start.Add(24*time.Hour), 0, 0); err != nil || len(other) != 0 {
		t.Errorf("another day has %d segments (%v)", len(other), err)
	}

	if err := l.MarkMissing(t.Context(), []lake.SegmentID{a.ID, b.ID, c.ID}, true); err != nil {
		t.Fatal(err)
	}
	missing, err := l.Missing(t.Context(), acme, 0)
	if err != nil || len(missing) != 2 || missing[0].ID != a.ID || missing[0].MissingSince.IsZero() || len(missing[0].Sources) != 1 {
		t.Fatalf("got %+v (%v), want two with their sources", missing, err)
	}
	if err := l.MarkMissing(t.Context(), []lake.SegmentID{a.ID}, true); err != nil {
		t.Fatal(err)
	}
	again, err := l.Missing(t.Context(), acme, 1)
	if err != nil || len(again) != 1 || !again[0].MissingSince.Equal(missing[0].MissingSince) {
		t.Errorf("noted again it is missing since %+v (%v)", again, err)
	}
	if err := l.MarkMissing(t.Context(), []lake.SegmentID{a.ID, b.ID}, false); err != nil {
		t.Fatal(err)
	}
	if back, err := l.Missing(t.Context(), acme, 0); err != nil || len(back) != 0 {
		t.Errorf("%d are still missing (%v)", len(back), err)
	}
}

func TestCompletenessByPrefixAndHour(t *testing.T) {
	l := setup(t)
	l.receive(notice(acme, "x/1", "v1"), notice(acme, "x/2", "v1"), notice(acme, "y/z/1", "v1"), notice("globex", "x/3", "v1"))
	prefixes, err := l.RecentPrefixes(t.Context(), acme, time.Now().Add(-time.Hour), 0)
	if diff := cmp.Diff([]index.Prefix{{Bucket: "b", Prefix: "x/", Objects: 2}, {Bucket: "b", Prefix: "y/z/", Objects: 1}}, prefixes); diff != "" || err != nil {
		t.Errorf("prefixes, %v (-want +got):\n%s", err, diff)
	}
	if later, err := l.RecentPrefixes(t.Context(), acme, time.Now().Add(time.Hour), 0); err != nil || len(later) != 0 {
		t.Errorf("%d prefixes of the future (%v)", len(later), err)
	}

	one := index.PrefixCompleteness{Organization: acme, Bucket: "b", Prefix: "x/", Hour: hour.Start, Objects: 3, Known: 2, Bytes: 10}
	two := index.PrefixCompleteness{Organization: acme, Bucket: "b", Prefix: "y/", Hour: hour.End(), Objects: 1, Known: 1, Bytes: 1}
	if err := l.RecordCompleteness(t.Context(), []index.PrefixCompleteness{two, one}); err != nil {
		t.Fatal(err)
	}
	one.Known = 3
	if err := l.RecordCompleteness(t.Context(), []index.PrefixCompleteness{one}); err != nil {
		t.Fatal(err)
	}
	list := func(q index.CompletenessQuery) []index.PrefixCompleteness {
		t.Helper()
		q.Organization = acme
		found, err := l.Completeness(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range found {
			if found[i].ComparedAt.IsZero() {
				t.Error("it is not said when they were compared")
			}
			found[i].ComparedAt = time.Time{}
		}
		return found
	}
	if diff := cmp.Diff([]index.PrefixCompleteness{two, one}, list(index.CompletenessQuery{Start: hour.Start, End: hour.End().Add(time.Hour)})); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]index.PrefixCompleteness{one}, list(index.CompletenessQuery{Start: hour.Start, End: hour.End()})); diff != "" {
		t.Errorf("one hour (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]index.PrefixCompleteness{two}, list(index.CompletenessQuery{Prefix: "y", Start: hour.Start, End: hour.End().Add(time.Hour)})); diff != "" {
		t.Errorf("one prefix (-want +got):\n%s", diff)
	}
}

func TestTheAuditLogIsAChain(t *testing.T) {
	t.Parallel()
	filled := func(t *testing.T) (*lab, string) {
		l := setup(t)
		l.wantNone(l.together(12, func(i int) error {
			org := lake.Organization("acme")
			if i%3 == 0 {
				org = "globex"
			}
			_, err := l.Audit(l.Context(), index.AuditEntry{Organization: org, Actor: "key", Action: "delete", Subject: fmt.Sprint(i % 2), Detail: fmt.Sprintf(`{"n":%d}`, i)})
			return err
		}))
		n, broken, head, err := l.VerifyAudit(l.Context())
		if n != 12 || broken != 0 || head == "" || err != nil {
			t.Fatalf("%d entries, broken at %d, head %q: %v", n, broken, head, err)
		}
		return l, head
	}

	t.Run("pages and subjects", func(t *testing.T) {
		l, _ := filled(t)
		first, next, err := l.AuditLog(t.Context(), acme, 5, "")
		if err != nil || len(first) != 5 || next == "" {
			t.Fatalf("%d entries, next %q: %v", len(first), next, err)
		}
		rest, end, err := l.AuditLog(t.Context(), acme, 5, next)
		if err != nil || len(rest) != 3 || end != "" || rest[0].ID >= first[4].ID || rest[0].Hash != first[4].PreviousHash {
			t.Errorf("the second page is %+v, next %q: %v", rest, end, err)
		}
		if all, _, err := l.AuditLog(t.Context(), "", 0, ""); err != nil || len(all) != 12 {
			t.Errorf("%d entries of all organizations: %v", len(all), err)
		}
		if some, err := l.AuditEntriesOf(t.Context(), "delete", "1"); err != nil || len(some) != 6 || some[0].ID > some[5].ID {
			t.Errorf("%d entries of a subject: %v", len(some), err)
		}
	})
	for name, sql := range map[string]string{
		"a changed text":             `UPDATE audit_log SET detail = '{"n":99}' WHERE id = 7`,
		"a changed actor":            `UPDATE audit_log SET actor = 'somebody' WHERE id = 7`,
		"a changed time":             `UPDATE audit_log SET at = at + interval '1 microsecond' WHERE id = 7`,
		"a removed first entry":      `DELETE FROM audit_log WHERE id = (SELECT min(id) FROM audit_log WHERE organization = 'acme')`,
		"a removed entry":            `DELETE FROM audit_log WHERE id = (SELECT id FROM audit_log WHERE organization = 'acme' ORDER BY id OFFSET 3 LIMIT 1)`,
		"two that changed places":    `UPDATE audit_log SET id = -id; UPDATE audit_log SET id = CASE id WHEN -4 THEN 5 WHEN -5 THEN 4 ELSE -id END`,
		"one that changed its owner": `UPDATE audit_log SET organization = 'umbrella' WHERE id = 12`,
	} {
		t.Run(name+" is found", func(t *testing.T) {
			l, _ := filled(t)
			for _, s := range splitStatements(sql) {
				l.exec(s)
			}
			if _, broken, _, err := l.VerifyAudit(t.Context()); broken == 0 || err != nil {
				t.Errorf("the chain is said to be whole: %v", err)
			}
		})
	}
	t.Run("an end that was cut off shows in the head", func(t *testing.T) {
		l, head := filled(t)
		l.exec("DELETE FROM audit_log WHERE id = 12")
		n, broken, now, err := l.VerifyAudit(t.Context())
		if n != 11 || broken != 0 || now == head || err != nil {
			t.Errorf("%d entries, broken at %d, head the same %t: %v", n, broken, now == head, err)
		}
	})
	t.Run("what is no text is refused", func(t *testing.T) {
		l := setup(t)
		_, err := l.Audit(t.Context(), index.AuditEntry{Organization: acme, Action: "a", Detail: "\x00"})
		l.wantFault(err, fault.Invalid)
	})
}

func splitStatements(sql string) []string {
	var out []string
	for begin, i := 0, 0; i <= len(sql); i++ {
		if i == len(sql) || sql[i] == ';' {
			out = append(out, sql[begin:i])
			begin = i + 1
		}
	}
	return out
}

func TestRawObjectsByPolicy(t *testing.T) {
	l := setup(t)
	receipts := l.receive(notice(acme, "p/a", "v1"), notice(acme, "p/b", "v1"), notice(acme, "q/c", "v1"))
	l.ingestAll()
	l.receive(notice(acme, "p/late", "v1"))
	query := index.RawQuery{Organization: acme, Bucket: "b", KeyPrefix: "p/", WrittenBefore: time.Now().Add(time.Hour), Limit: 1}
	var found []lake.ReceiptID
	for {
		due, notDone, err := l.RawDue(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(1 - min(1, len(found))); notDone != want {
			t.Errorf("%d objects are not done, want %d", notDone, want)
		}
		if len(due) == 0 {
			break
		}
		found, query.After = append(found, due[0].ID), due[0].ID
	}
	if want := []lake.ReceiptID{receipts[0].ID, receipts[1].ID}; !slices.Equal(found, want) {
		t.Errorf("due are %v, want %v", found, want)
	}
	if early, _, err := l.RawDue(t.Context(), index.RawQuery{Organization: acme, Bucket: "b", WrittenBefore: time.Now().Add(-time.Hour)}); err != nil || len(early) != 0 {
		t.Errorf("%d objects are due before their time (%v)", len(early), err)
	}

	a := receipts[0].ID
	if err := l.SetRaw(t.Context(), a, lake.RawKept, lake.RawMoving); err != nil {
		t.Fatal(err)
	}
	l.wantFault(l.SetRaw(t.Context(), a, lake.RawKept, lake.RawMoving), fault.Conflict)
	query.After, query.Limit = 0, 0
	if due, _, err := l.RawDue(t.Context(), query); err != nil || len(due) != 2 || due[0].Raw != lake.RawMoving {
		t.Errorf("a copy that may have been cut off is not due: %+v (%v)", due, err)
	}
	if err := l.SetRaw(t.Context(), a, lake.RawMoving, lake.RawMoved); err != nil {
		t.Fatal(err)
	}
	if due, _, err := l.RawDue(t.Context(), query); err != nil || len(due) != 1 {
		t.Errorf("%d are due after one was moved (%v)", len(due), err)
	}
	records := l.records(acme)
	if last := records[len(records)-1]; !slices.Equal(last.Buckets(), []string{"b"}) || len(last.Rows["receipts"]) == 0 {
		t.Errorf("the record says %+v", last)
	}
}

func TestPartitionsComeAndGo(t *testing.T) {
	l := setup(t)
	planned, err := l.MakePartitions(t.Context(), 2, true)
	if err != nil || len(planned) != 12 {
		t.Fatalf("a dry run plans %v (%v), want three months of three signals and of rollups", planned, err)
	}
	made, err := l.MakePartitions(t.Context(), 2, false)
	if diff := cmp.Diff(planned, made); diff != "" || err != nil {
		t.Errorf("made, %v (-want +got):\n%s", err, diff)
	}
	if again, err := l.MakePartitions(t.Context(), 2, false); err != nil || len(again) != 0 {
		t.Errorf("made again: %v (%v)", again, err)
	}

	segment := l.ingested("a", 0)
	other, err := index.Open(t.Context(), index.Config{URL: l.sql.Config().ConnString()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	before := hour.Start.AddDate(0, 2, 0)
	if dropped, err := l.DropPartitions(t.Context(), before, false); err != nil || len(dropped) != 0 {
		t.Errorf("dropped a month that is not empty: %v (%v)", dropped, err)
	}
	l.remove(segment.ID)
	if dropped, err := l.DropPartitions(t.Context(), before, false); err != nil || len(dropped) != 0 {
		t.Errorf("dropped a month with a removed segment: %v (%v)", dropped, err)
	}
	if err := l.Swept(t.Context(), acme, []lake.SegmentID{segment.ID}); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		dropped, err := other.DropPartitions(t.Context(), before, dry)
		if diff := cmp.Diff([]string{"segments_logs_202603"}, dropped); diff != "" || err != nil {
			t.Errorf("dropped with dry run %t, %v (-want +got):\n%s", dry, err, diff)
		}
	}
	t.Run("late data makes a dropped month anew, whoever dropped it", func(t *testing.T) {
		late := l.ingested("late", 0)
		if late.Window != hour {
			t.Errorf("got %+v", late)
		}
	})
}

func TestTrimKeepsWhatRulesNeed(t *testing.T) {
	l := setup(t)
	receipts := l.receive(notice(acme, "a", "v1"), notice(acme, "b", "v1"), notice(acme, "c", "v1"))
	l.ingestAll()
	segments := l.lookup(acme).Segments
	l.receive(notice(acme, "d", "v1"))
	released := l.claim(ingest)
	if err := l.Release(t.Context(), released, fault.New(fault.Canceled, "shutdown")); err != nil {
		t.Fatal(err)
	}
	last := l.claim(ingest)
	edit := whole(last)
	edit.Cost = lake.Cost{Puts: 1}
	l.commit(last, edit)
	for _, r := range receipts[:2] {
		if err := l.SetRaw(t.Context(), r.ID, lake.RawKept, lake.RawExpired); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.RecordCompleteness(t.Context(), []index.PrefixCompleteness{{Organization: acme, Bucket: "b", Hour: hour.Start}}); err != nil {
		t.Fatal(err)
	}
	l.age("40 days")
	l.exec("UPDATE receipts SET updated_at = updated_at - interval '40 days'")
	l.exec("UPDATE costs SET day = day - 40")
	trim := func(dry bool) map[string]int64 {
		t.Helper()
		n, err := l.Trim(t.Context(), index.TrimOptions{History: 30 * 24 * time.Hour, Batch: 1, DryRun: dry})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	kept := func(what, sql string, want int, args ...any) {
		t.Helper()
		if n := l.number(sql, args...); n != want {
			t.Errorf("%d %s, want %d", n, what, want)
		}
	}

	trim(true)
	kept("leases after a dry run", "SELECT count(*) FROM leases", 3)
	trim(false)
	kept("committed leases whose records were not shipped", "SELECT count(*) FROM leases WHERE state = 'committed'", 2)
	kept("abandoned leases", "SELECT count(*) FROM leases WHERE id = $1", 1, released.ID)
	kept("receipts whose rows are in segments", "SELECT count(*) FROM receipts", 4)
	kept("comparisons", "SELECT count(*) FROM completeness", 0)
	kept("costs", "SELECT count(*) FROM costs", 0)
	l.commit(last, edit) // asked again

	l.ship()
	l.remove(segments[0].ID)
	if err := l.Swept(t.Context(), acme, []lake.SegmentID{segments[0].ID}); err != nil {
		t.Fatal(err)
	}
	if n := trim(true); n["leases"] != 2 || n["receipts"] != 2 {
		t.Errorf("a dry run counts %v", n)
	}
	if n := trim(false); n["leases"] != 2 || n["receipts"] != 2 {
		t.Errorf("trimmed %v, want two leases and two receipts", n)
	}
	kept("leases: the abandoned and the newest", "SELECT count(*) FROM leases", 2)
	kept("receipts of kept objects", "SELECT count(*) FROM receipts WHERE raw = ''", 2)
	_, err := l.Trim(t.Context(), index.TrimOptions{History: time.Hour})
	l.wantFault(err, fault.Invalid)
}

func TestTrimWaitsForDeletes(t *testing.T) {
	l := setup(t)
	old := l.ingested("a", 0)
	source := l.number("SELECT receipt FROM segment_sources WHERE segment = $1", old.ID)
	d := l.createDelete(deletion(`{a="b"}`))
	lease := l.claimWindow(hour)
	l.commit(lease, lake.Edit{Remove: []lake.SegmentID{old.ID}, Deleted: []lake.DeletedRows{
		{Delete: d.ID, Source: lake.ReceiptID(source), Segment: old.ID, Rows: 1},
	}})
	if err := l.MarkDeleteSource(t.Context(), d.ID, lake.ReceiptID(source), "erased", lake.RawErased); err != nil {
		t.Fatal(err)
	}
	if err := l.Swept(t.Context(), acme, []lake.SegmentID{old.ID}); err != nil {
		t.Fatal(err)
	}
	l.exec("UPDATE receipts SET updated_at = updated_at - interval '40 days'")
	history := index.TrimOptions{History: 30 * 24 * time.Hour}
	if n, err := l.Trim(t.Context(), history); err != nil || n["receipts"] != 0 {
		t.Errorf("trimmed %v while a delete has to give account (%v)", n, err)
	}
	if segments, err := l.DeleteSegments(t.Context(), d.ID); err != nil || len(segments) != 1 || segments[0].GoneAt.IsZero() {
		t.Errorf("the delete was not told that the files are gone: %+v (%v)", segments, err)
	}
	for _, step := range [][2]lake.DeleteState{{lake.DeleteRewriting, lake.DeleteSweeping}, {lake.DeleteSweeping, lake.DeleteDone}} {
		if err := l.AdvanceDelete(t.Context(), d.ID, step[0], step[1]); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := l.Trim(t.Context(), history); err != nil || n["receipts"] != 1 {
		t.Errorf("trimmed %v after the delete was done (%v), want a receipt", n, err)
	}
}

func TestStatusTellsAllAtAGlance(t *testing.T) {
	l := setup(t)
	gone := l.ingested("a", 0)
	missing := l.ingested("b", 0)
	l.remove(gone.ID)
	if err := l.MarkMissing(t.Context(), []lake.SegmentID{missing.ID}, true); err != nil {
		t.Fatal(err)
	}
	l.createDelete(deletion(`{a="b"}`))
	l.receive(notice(acme, "c", "v1"), notice("globex", "d", "v1"))
	if err := l.RecordCompleteness(t.Context(), []index.PrefixCompleteness{{Organization: acme, Bucket: "b", Hour: time.Now().Truncate(time.Hour), Objects: 3, Known: 2}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.BeginRetention(t.Context(), index.RetentionRun{Organization: acme, Signal: lake.SignalLogs, Cutoff: hour.End()}); err != nil {
		t.Fatal(err)
	}
	now, err := l.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SnapshotWritten(t.Context(), acme, now); err != nil {
		t.Fatal(err)
	}
	all, err := l.Status(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].Organization != acme || all[1].Organization != "globex" {
		t.Fatalf("got %+v (%v), want two organizations", all, err)
	}
	got := all[0]
	if got.OldestPending.IsZero() || got.LastRetention == nil || !got.LastSnapshot.Equal(now) {
		t.Errorf("got %+v", got)
	}
	got.OldestPending, got.LastRetention, got.LastSnapshot = time.Time{}, nil, time.Time{}
	want := index.OrganizationStatus{
		Organization: acme, PendingReceipts: 1, ComparedObjects: 3, KnownObjects: 2, Missing: 1, RecordsToShip: 4, DeletesUnderWay: 1, RawBytes: 200,
		Removed: index.Count{Segments: 1, Rows: 1, Bytes: 1100},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	one, err := l.Status(t.Context(), "globex")
	if err != nil || len(one) != 1 || one[0].PendingReceipts != 1 {
		t.Errorf("status of one: %+v (%v)", one, err)
	}
	sizes, err := l.TableSizes(t.Context())
	if err != nil || !slices.ContainsFunc(sizes, func(s index.TableSize) bool { return s.Table == "segments" && s.Bytes > 0 && s.IndexBytes > 0 }) {
		t.Errorf("sizes are %+v (%v)", sizes, err)
	}
}
