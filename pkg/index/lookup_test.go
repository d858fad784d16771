// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func TestLookup(t *testing.T) {
	t.Parallel()

	t.Run("a segment comes back as it was committed", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		lease := l.claim(ingest)
		want := segment(lease, 0, hour, receipt.ID)
		want.FirstTime = hour.Start.Add(123456789 * time.Nanosecond)
		want.LastTime = hour.End().Add(-time.Nanosecond)
		l.commit(lease, lake.Edit{Add: []lake.Segment{want}, Outcomes: []lake.Outcome{done(receipt.ID)}})
		got := l.lookup(acme).Segments[0]
		want.ID, want.CreatedAt, want.Sources = got.ID, got.CreatedAt, nil
		want.Lease = lease.ID
		if diff := cmp.Diff(want, got); diff != "" {
			l.Error(diff)
		}
		of, err := l.SegmentsOf(l.Context(), receipt.ID)
		if err != nil {
			l.Fatal(err)
		}
		if diff := cmp.Diff([]lake.Segment{want}, of); diff != "" {
			l.Error(diff)
		}
	})

	t.Run("bounds are exact to the nanosecond", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		lease := l.claim(ingest)
		at := hour.Start.Add(time.Second + time.Nanosecond)
		s := segment(lease, 0, hour, receipt.ID)
		s.FirstTime, s.LastTime = at, at
		l.commit(lease, lake.Edit{Add: []lake.Segment{s}, Outcomes: []lake.Outcome{done(receipt.ID)}})
		for name, test := range map[string]struct {
			start, end time.Time
			want       int
		}{
			"starts with it":   {at, at.Add(1), 1},
			"starts after it":  {at.Add(1), at.Add(time.Hour), 0},
			"ends with it":     {hour.Start, at, 0},
			"ends after it":    {hour.Start, at.Add(1), 1},
			"all of time":      {time.Time{}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1},
			"beyond all times": {time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(200_000, 1, 1, 0, 0, 0, 0, time.UTC), 1},
			"backwards":        {at.Add(1), at, 0},
		} {
			answer, err := l.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: test.start, End: test.end})
			if err != nil || len(answer.Segments) != test.want {
				l.Errorf("%s: %d segments, %v, want %d", name, len(answer.Segments), err, test.want)
			}
		}
	})

	t.Run("a window of a day is found from any of its hours", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		lease := l.claim(ingest)
		day := lake.WindowOf(hour.Start, 24*time.Hour)
		s := segment(lease, 0, day, receipt.ID)
		s.FirstTime, s.LastTime = day.Start, day.End().Add(-1)
		l.commit(lease, lake.Edit{Add: []lake.Segment{s}, Outcomes: []lake.Outcome{done(receipt.ID)}})
		for h := range 24 {
			start := day.Start.Add(time.Duration(h) * time.Hour)
			answer, err := l.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: start, End: start.Add(time.Hour)})
			if err != nil || len(answer.Segments) != 1 {
				l.Errorf("hour %d: %d segments, %v", h, len(answer.Segments), err)
			}
		}
	})

	t.Run("other organizations and signals are not answered", func(t *testing.T) {
		l := setup(t)
		l.receive(notices("globex", 1)...)
		l.ingestAll()
		if got := len(l.lookup(acme).Segments); got != 0 {
			l.Errorf("%d segments of another organization", got)
		}
		answer, err := l.Lookup(l.Context(), index.Query{Organization: "globex", Signal: lake.SignalSpans, Start: hour.Start, End: hour.End()})
		if err != nil || len(answer.Segments) != 0 {
			l.Errorf("%d segments of another signal, %v", len(answer.Segments), err)
		}
		_, err = l.Lookup(l.Context(), index.Query{Organization: acme})
		l.wantFault(err, fault.Invalid)
	})

	t.Run("an answer says what it may lack", func(t *testing.T) {
		l := setup(t)
		early, late, failing, unknown, spans := notice(acme, "early", "1"), notice(acme, "late", "1"), notice(acme, "failing", "1"),
			notice(acme, "unknown", "1"), notice(acme, "spans", "1")
		early.Object.LastModified = hour.Start.Add(-2 * time.Hour) // written before the range began
		late.Object.LastModified = hour.End().Add(48 * time.Hour)  // may hold anything older
		unknown.Signal = lake.SignalUnknown
		spans.Signal = lake.SignalSpans
		receipts := l.receive(early, late, failing, unknown, spans)
		l.receive(notices("globex", 1)...)
		lease := l.claimReceipt(receipts[2].ID)
		l.commit(lease, lake.Edit{Outcomes: []lake.Outcome{{Receipt: receipts[2].ID, State: lake.ReceiptFailed, Reason: "broken"}}})
		got := l.lookup(acme).Completeness
		want := index.Completeness{Pending: 2, Failed: 1, OldestPending: receipts[1].CreatedAt}
		if diff := cmp.Diff(want, got); diff != "" {
			l.Error(diff)
		}
		l.ingestAll()
		l.hurry()
		if got := l.lookup("initech").Completeness; got != (index.Completeness{}) {
			l.Errorf("an organization without receipts lacks %+v", got)
		}
	})
}

func TestPartitions(t *testing.T) {
	t.Parallel()

	t.Run("many make the same months at once, while others read", func(t *testing.T) {
		l := setup(t)
		const workers, months = 8, 14
		receipts := l.receive(notices(acme, workers*months)...)
		batch := ingest
		batch.MaxTasks = months
		leases := make([]*lake.Lease, workers)
		for i := range leases {
			leases[i] = l.claim(batch)
		}
		l.wantNone(l.together(2*workers, func(i int) error {
			if i >= workers {
				_, err := l.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, End: time.Now()})
				return err
			}
			// An index of its own knows of no partition yet.
			var edit lake.Edit
			for n, r := range leases[i].Receipts {
				w := lake.WindowOf(time.Date(2025, time.Month(1+n), 1, 0, 0, 0, 0, time.UTC).Add(-time.Hour*time.Duration(i%2)), time.Hour)
				edit.Add = append(edit.Add, segment(leases[i], n, w, r.ID))
				edit.Outcomes = append(edit.Outcomes, done(r.ID))
			}
			return l.Commit(l.Context(), leases[i], edit)
		}))
		answer, err := l.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, End: time.Now().AddDate(1, 0, 0)})
		if err != nil || len(answer.Segments) != len(receipts) {
			l.Errorf("%d segments, %v, want %d", len(answer.Segments), err, len(receipts))
		}
	})

	t.Run("odd windows are refused and make none", func(t *testing.T) {
		l := setup(t)
		l.receive(notices(acme, 1)...)
		lease := l.claim(ingest)
		for _, w := range []lake.Window{
			{},
			{Start: hour.Start.Add(time.Minute), Length: time.Hour},
			{Start: hour.Start, Length: 48 * time.Hour},
			{Start: time.Unix(0, 0).Add(-time.Hour), Length: time.Hour},
			{Start: time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), Length: time.Hour},
		} {
			edit := whole(lease)
			edit.Add[0] = segment(lease, 0, w, lease.Receipts[0].ID)
			if err := l.Commit(l.Context(), lease, edit); fault.KindOf(err) != fault.Invalid {
				l.Errorf("window of %s at %s: %v, want fault.Invalid", w.Length, w.Start, err)
			}
		}
		if n := l.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'segments_logs'::regclass"); n != 0 {
			l.Errorf("%d partitions, want none", n)
		}
	})
}

func TestBackfills(t *testing.T) {
	t.Parallel()
	create := func(l *lab, prefix string) index.Backfill {
		l.Helper()
		b, err := l.CreateBackfill(l.Context(), index.Backfill{
			Bucket: "b", Prefix: prefix, ModifiedAfter: hour.Start, ObjectsPerSecond: 7, Cursor: "start",
			Estimate: index.BackfillEstimate{Objects: 10, PriceUSD: 0.5, Duration: time.Minute, Truncated: true},
		})
		if err != nil {
			l.Fatal(err)
		}
		return b
	}

	t.Run("it is driven by one, step by step, to its end", func(t *testing.T) {
		l := setup(t)
		created := create(l, "p/")
		leases := make([]*index.BackfillLease, 6)
		l.wantNone(l.together(len(leases), func(i int) (err error) {
			leases[i], err = l.ClaimBackfill(l.Context(), time.Minute)
			return err
		}))
		var lease *index.BackfillLease
		for _, got := range leases {
			if got == nil {
				continue
			}
			if lease != nil {
				l.Fatal("two drivers have it")
			}
			lease = got
		}
		if diff := cmp.Diff(created, lease.Backfill); diff != "" {
			l.Error(diff)
		}
		for step := range 3 {
			b, err := l.AdvanceBackfill(l.Context(), lease, index.BackfillStep{Cursor: fmt.Sprint(step), Objects: 2, Bytes: 20, Done: step == 2})
			if err != nil {
				l.Fatal(err)
			}
			if b.Cursor != fmt.Sprint(step) || b.ObjectsDone != int64(2+2*step) {
				l.Errorf("got %+v", b)
			}
		}
		got, err := l.Backfill(l.Context(), created.ID)
		if err != nil || got.State != index.BackfillDone || got.BytesDone != 60 {
			l.Errorf("got %+v, %v", got, err)
		}
		_, err = l.SetBackfillState(l.Context(), created.ID, index.BackfillRunning, "")
		l.wantFault(err, fault.Conflict)
	})

	t.Run("it is paused and resumed where it stopped", func(t *testing.T) {
		l := setup(t)
		created := create(l, "p/")
		lease, err := l.ClaimBackfill(l.Context(), time.Minute)
		if err != nil {
			l.Fatal(err)
		}
		if _, err := l.SetBackfillState(l.Context(), created.ID, index.BackfillPaused, ""); err != nil {
			l.Fatal(err)
		}
		b, err := l.AdvanceBackfill(l.Context(), lease, index.BackfillStep{Cursor: "here"})
		if err != nil || b.State != index.BackfillPaused {
			l.Fatalf("got %+v, %v", b, err)
		}
		if err := l.ReleaseBackfill(l.Context(), lease); err != nil {
			l.Fatal(err)
		}
		if got, err := l.ClaimBackfill(l.Context(), time.Minute); got != nil || err != nil {
			l.Fatalf("a paused one was claimed: %v, %v", got, err)
		}
		if _, err := l.SetBackfillState(l.Context(), created.ID, index.BackfillRunning, ""); err != nil {
			l.Fatal(err)
		}
		lease, err = l.ClaimBackfill(l.Context(), time.Minute)
		if err != nil || lease == nil || lease.Backfill.Cursor != "here" {
			l.Fatalf("got %+v, %v", lease, err)
		}
	})

	t.Run("a driver that lost it records nothing", func(t *testing.T) {
		l := setup(t)
		created := create(l, "p/")
		dead, err := l.ClaimBackfill(l.Context(), time.Minute)
		if err != nil {
			l.Fatal(err)
		}
		l.exec("UPDATE backfills SET lease_expires_at = clock_timestamp() - interval '1 second'")
		if heir, err := l.ClaimBackfill(l.Context(), time.Minute); err != nil || heir == nil {
			l.Fatalf("got %v, %v", heir, err)
		}
		_, err = l.AdvanceBackfill(l.Context(), dead, index.BackfillStep{Cursor: "stale", Objects: 5})
		l.wantFault(err, fault.Conflict)
		if err := l.ReleaseBackfill(l.Context(), dead); err != nil {
			l.Fatal(err)
		}
		if got, err := l.Backfill(l.Context(), created.ID); err != nil || got.Cursor != "start" {
			l.Errorf("got %+v, %v", got, err)
		}
		if got, err := l.ClaimBackfill(l.Context(), time.Minute); got != nil || err != nil {
			l.Errorf("the heir's lease was released by another: %v, %v", got, err)
		}
	})

	t.Run("pages are newest first", func(t *testing.T) {
		l := setup(t)
		for i := range 5 {
			create(l, fmt.Sprint(i))
		}
		var got []string
		token := ""
		for {
			page, next, err := l.Backfills(l.Context(), 2, token)
			if err != nil {
				l.Fatal(err)
			}
			for _, b := range page {
				got = append(got, b.Prefix)
			}
			if token = next; token == "" {
				break
			}
		}
		if diff := cmp.Diff([]string{"4", "3", "2", "1", "0"}, got); diff != "" {
			l.Error(diff)
		}
		_, err := l.Backfill(l.Context(), 4711)
		l.wantFault(err, fault.NotFound)
	})
}
