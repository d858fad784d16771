// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// nextHour follows hour.
var nextHour = lake.Window{Start: hour.End(), Length: time.Hour}

// deletion is a delete of the hour's rows.
func deletion(selector string) lake.Delete {
	return lake.Delete{
		Organization: acme, Signal: lake.SignalLogs, Selector: selector, Start: hour.Start, End: hour.End(), Actor: "key", Reason: "a test",
	}
}

func (l *lab) createDelete(d lake.Delete) lake.Delete {
	l.Helper()
	created, err := l.CreateDelete(l.Context(), d)
	if err != nil {
		l.Fatal(err)
	}
	return created
}

// ingested is one committed segment of one object.
func (l *lab) ingested(key string, applied lake.DeleteID) lake.Segment {
	l.Helper()
	receipt := l.receive(notice(acme, key, "v1"))[0]
	lease := l.claimReceipt(receipt.ID)
	edit := whole(lease)
	edit.Add[0].AppliedDelete = applied
	l.commit(lease, edit)
	for _, s := range l.lookup(acme).Segments {
		if s.Lease == lease.ID {
			return s
		}
	}
	l.Fatal("the segment is not there")
	return lake.Segment{}
}

func numbersOf(deletes []lake.Delete) []lake.DeleteID {
	ids := []lake.DeleteID{}
	for _, d := range deletes {
		ids = append(ids, d.ID)
	}
	return ids
}

func (l *lab) wantMasking(want ...lake.DeleteID) {
	l.Helper()
	if diff := cmp.Diff(append([]lake.DeleteID{}, want...), numbersOf(l.lookup(acme).Deletes)); diff != "" {
		l.Errorf("deletes that mask (-want +got):\n%s", diff)
	}
}

// rewrite replaces one segment by one of the same source.
func (l *lab) rewrite(old lake.Segment, applied lake.DeleteID, deleted ...lake.DeletedRows) lake.Edit {
	l.Helper()
	state, err := l.Window(l.Context(), acme, lake.SignalLogs, hour)
	if err != nil {
		l.Fatal(err)
	}
	lease := l.claimWindow(hour)
	fresh := segment(lease, 0, hour, state.Segments[0].Sources...)
	fresh.Level, fresh.AppliedDelete = 1, applied
	edit := lake.Edit{
		Add: []lake.Segment{fresh}, Remove: []lake.SegmentID{old.ID}, Expect: []lake.WindowVersion{state.Version}, Rewrite: true, Deleted: deleted,
	}
	l.commit(lease, edit)
	l.commit(lease, edit) // the answer was lost
	return edit
}

func TestRule10DeletesAreNumbered(t *testing.T) {
	t.Parallel()

	t.Run("a delete comes back as it was made", func(t *testing.T) {
		l := setup(t)
		want := deletion(`{a="b"} |= "c"`)
		want.Start = want.Start.Add(123456789)
		want.Sources = lake.SourceRedact
		got := l.createDelete(want)
		want.ID, want.CreatedAt, want.UpdatedAt, want.State = got.ID, got.CreatedAt, got.UpdatedAt, lake.DeleteRewriting
		if got.ID == 0 || got.CreatedAt.IsZero() {
			t.Errorf("a delete of number %d at %s", got.ID, got.CreatedAt)
		}
		read, err := l.Delete(t.Context(), got.ID)
		if diff := cmp.Diff(want, read); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		l.ingested("k", 0)
		if diff := cmp.Diff([]lake.Delete{want}, l.lookup(acme).Deletes); diff != "" {
			t.Errorf("in a lookup (-want +got):\n%s", diff)
		}
	})

	t.Run("of deletes made together no number is skipped by whoever reads the latest", func(t *testing.T) {
		l := setup(t)
		l.wantNone(l.together(16, func(i int) error {
			if i%2 == 0 {
				_, err := l.CreateDelete(t.Context(), deletion(`{a="b"}`))
				return err
			}
			before, latest, err := l.Deletes(t.Context(), index.DeleteQuery{Organization: acme})
			if err != nil {
				return err
			}
			after, _, err := l.Deletes(t.Context(), index.DeleteQuery{Organization: acme})
			known := map[lake.DeleteID]bool{}
			for _, d := range before {
				known[d.ID] = true
			}
			for _, d := range after {
				if d.ID <= latest && !known[d.ID] {
					t.Errorf("delete %d came after %d had been the latest", d.ID, latest)
				}
			}
			return err
		}))
	})

	t.Run("a later delete masks, an applied one does not", func(t *testing.T) {
		l := setup(t)
		first := l.createDelete(deletion(`{a="b"}`))
		l.ingested("before", first.ID)
		l.wantMasking()
		second := l.createDelete(deletion(`{a="c"}`))
		l.wantMasking(second.ID)
		l.ingested("slow", 0)
		l.wantMasking(first.ID, second.ID)
	})

	t.Run("a delete of another time, signal or organization does not mask", func(t *testing.T) {
		l := setup(t)
		l.ingested("k", 0)
		later, other, foreign := deletion(`{a="b"}`), deletion(`{a="b"}`), deletion(`{a="b"}`)
		later.Start, later.End = hour.Start.Add(2*time.Minute), hour.End() // the segment's last row is of the first minute
		other.Signal = lake.SignalSpans
		foreign.Organization = "other"
		for _, d := range []lake.Delete{later, other, foreign} {
			l.createDelete(d)
		}
		l.wantMasking()
	})

	t.Run("a delete that is over masks what was added by a worker who did not know it", func(t *testing.T) {
		l := setup(t)
		d := l.createDelete(deletion(`{a="b"}`))
		for _, step := range [][2]lake.DeleteState{{lake.DeleteRewriting, lake.DeleteSweeping}, {lake.DeleteSweeping, lake.DeleteDone}} {
			if err := l.AdvanceDelete(t.Context(), d.ID, step[0], step[1]); err != nil {
				t.Fatal(err)
			}
		}
		l.wantFault(l.AdvanceDelete(t.Context(), d.ID, lake.DeleteRewriting, lake.DeleteSweeping), fault.Conflict)
		l.ingested("slow", 0)
		l.wantMasking(d.ID)
	})

	t.Run("a delete bumps the versions of the hours that have rows", func(t *testing.T) {
		l := setup(t)
		l.ingested("k", 0)
		version := func(w lake.Window) int64 {
			v, err := l.WindowVersion(t.Context(), acme, lake.SignalLogs, w)
			if err != nil {
				t.Fatal(err)
			}
			return v.Version
		}
		before := version(hour)
		ever := deletion(`{a="b"}`)
		ever.Start, ever.End = time.Unix(0, 0), hour.End().AddDate(10, 0, 0)
		l.createDelete(ever)
		if got := version(hour); got != before+1 {
			t.Errorf("version %d after %d", got, before)
		}
		if n := l.number("SELECT count(*) FROM window_versions"); n != 1 {
			t.Errorf("%d hours have a version", n)
		}
		next := deletion(`{a="b"}`)
		next.Start, next.End = hour.End(), hour.End().Add(time.Hour)
		l.createDelete(next)
		if got := version(hour); got != before+1 {
			t.Errorf("version %d after a delete of the next hour", got)
		}
	})

	t.Run("work that was derived before a delete cannot be committed if it says so", func(t *testing.T) {
		l := setup(t)
		old := l.ingested("k", 0)
		state, err := l.Window(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil {
			t.Fatal(err)
		}
		lease := l.claimWindow(hour)
		l.createDelete(deletion(`{a="b"}`))
		edit := lake.Edit{Remove: []lake.SegmentID{old.ID}, Expect: []lake.WindowVersion{state.Version}, Rewrite: true}
		l.wantFault(l.Commit(t.Context(), lease, edit), fault.Conflict)
	})

	t.Run("a segment cannot claim a delete that has not been made", func(t *testing.T) {
		l := setup(t)
		latest := l.createDelete(deletion(`{a="b"}`)).ID
		lease := l.claimReceipt(l.receive(notices(acme, 1)...)[0].ID)
		edit := whole(lease)
		edit.Add[0].AppliedDelete = latest + 1
		l.wantFault(l.Commit(t.Context(), lease, edit), fault.Invalid)
		edit.Add[0].AppliedDelete = latest
		l.commit(lease, edit)
	})

	t.Run("a window says its deletes and the latest of all signals", func(t *testing.T) {
		l := setup(t)
		s := l.ingested("k", 0)
		d := l.createDelete(deletion(`{a="b"}`))
		other := deletion(`{a="b"}`)
		other.Signal = lake.SignalMetrics
		latest := l.createDelete(other)
		state, err := l.Window(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]lake.DeleteID{d.ID}, numbersOf(state.Deletes)); diff != "" || state.Latest != latest.ID {
			t.Errorf("the latest is %d, want %d; deletes (-want +got):\n%s", state.Latest, latest.ID, diff)
		}
		if len(state.Segments) != 1 || state.Segments[0].ID != s.ID || len(state.Segments[0].Sources) != 1 {
			t.Errorf("segments %+v", state.Segments)
		}
	})

	t.Run("deletes that cannot be are refused", func(t *testing.T) {
		l := setup(t)
		nothing, unknown, empty := deletion(`{a="b"}`), deletion(`{a="b"}`), deletion("")
		nothing.End = nothing.Start
		unknown.Signal = lake.SignalUnknown
		odd := deletion(`{a="b"}`)
		odd.Sources = "burn"
		for _, d := range []lake.Delete{nothing, unknown, empty, odd} {
			_, err := l.CreateDelete(t.Context(), d)
			l.wantFault(err, fault.Invalid)
		}
		_, err := l.Delete(t.Context(), 1)
		l.wantFault(err, fault.NotFound)
	})

	t.Run("deletes are listed by signal, state and number, either way", func(t *testing.T) {
		l := setup(t)
		var ids []lake.DeleteID
		for i := range 4 {
			d := deletion(`{a="b"}`)
			if i == 3 {
				d.Signal = lake.SignalMetrics
			}
			ids = append(ids, l.createDelete(d).ID)
		}
		if err := l.AdvanceDelete(t.Context(), ids[0], lake.DeleteRewriting, lake.DeleteSweeping); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			query index.DeleteQuery
			want  []lake.DeleteID
		}{
			"all":       {index.DeleteQuery{}, ids},
			"a signal":  {index.DeleteQuery{Signal: lake.SignalLogs}, ids[:3]},
			"a state":   {index.DeleteQuery{States: []lake.DeleteState{lake.DeleteSweeping, lake.DeleteDone}}, ids[:1]},
			"the later": {index.DeleteQuery{After: ids[1]}, ids[2:]},
			"newest":    {index.DeleteQuery{Descending: true, Limit: 1}, ids[3:]},
			"older":     {index.DeleteQuery{Descending: true, After: ids[1]}, ids[:1]},
		} {
			c.query.Organization = acme
			got, latest, err := l.Deletes(t.Context(), c.query)
			if diff := cmp.Diff(c.want, numbersOf(got)); diff != "" || latest != ids[3] || err != nil {
				t.Errorf("%s: %v, latest %d (-want +got):\n%s", name, err, latest, diff)
			}
		}
	})

	t.Run("a receipt knows when its key was first received", func(t *testing.T) {
		l := setup(t)
		l.receive(notice(acme, "k", "v1"))
		first := l.claim(ingest)
		l.commit(first, whole(first))
		d := l.createDelete(deletion(`{a="b"}`))
		l.receive(notice(acme, "k", "v2"), notice(acme, "new", "v1"))
		written := notice(acme, "late", "v1")
		written.Object.LastModified = hour.Start
		l.receive(written)
		if _, _, err := l.Replay(t.Context(), index.ReplayQuery{Organization: acme, State: lake.ReceiptDone}); err != nil {
			t.Fatal(err)
		}
		lease := l.claim(ingest)
		reached := map[string]bool{}
		for _, r := range lease.Receipts {
			reached[r.Object.Key+r.Object.Tag] = !r.ReceivedAt.After(d.CreatedAt)
		}
		want := map[string]bool{"kv1": true, "kv2": true, "newv1": false, "latev1": true}
		if diff := cmp.Diff(want, reached); diff != "" {
			t.Errorf("reached by the delete (-want +got):\n%s", diff)
		}
	})
}

func TestRule11AMarkChangesNoAnswer(t *testing.T) {
	t.Parallel()

	t.Run("a marked segment is not masked any more, and its window's version stays", func(t *testing.T) {
		l := setup(t)
		s := l.ingested("k", 0)
		d := l.createDelete(deletion(`{a="b"}`))
		l.wantMasking(d.ID)
		state, err := l.Window(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil {
			t.Fatal(err)
		}
		l.commit(l.claimWindow(hour), lake.Edit{Marks: []lake.Mark{{Segment: s.ID, AppliedDelete: d.ID, Rules: []string{"hash:b", "drop:a"}}}})
		l.wantMasking()
		again, err := l.Window(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil || again.Version != state.Version {
			t.Errorf("version %+v after %+v, %v", again.Version, state.Version, err)
		}
		l.commit(l.claimWindow(hour), lake.Edit{Marks: []lake.Mark{{Segment: s.ID, Rules: []string{"mask:c", "drop:a"}}}})
		got := l.lookup(acme).Segments[0]
		if diff := cmp.Diff([]string{"drop:a", "hash:b", "mask:c"}, got.Rules); diff != "" || got.AppliedDelete != d.ID {
			t.Errorf("applied delete %d, rules (-want +got):\n%s", got.AppliedDelete, diff)
		}
	})

	t.Run("a removed segment cannot be marked, and nothing else happens", func(t *testing.T) {
		l := setup(t)
		first, second := l.ingested("a", 0), l.ingested("b", 0)
		l.commit(l.claimWindow(hour), lake.Edit{Remove: []lake.SegmentID{first.ID}})
		edit := lake.Edit{Marks: []lake.Mark{{Segment: second.ID, Rules: []string{"drop:a"}}, {Segment: first.ID, Rules: []string{"drop:a"}}}}
		l.wantFault(l.Commit(t.Context(), l.claimWindow(hour), edit), fault.Conflict)
		if rules := l.lookup(acme).Segments[0].Rules; len(rules) != 0 {
			t.Errorf("rules %v", rules)
		}
	})

	t.Run("marks that cannot be are refused", func(t *testing.T) {
		l := setup(t)
		s := l.ingested("a", 0)
		lease := l.claimWindow(hour)
		for name, edit := range map[string]lake.Edit{
			"twice":           {Marks: []lake.Mark{{Segment: s.ID}, {Segment: s.ID}}},
			"removed as well": {Marks: []lake.Mark{{Segment: s.ID}}, Remove: []lake.SegmentID{s.ID}},
			"a comma":         {Marks: []lake.Mark{{Segment: s.ID, Rules: []string{"a,b"}}}},
			"not yet made":    {Marks: []lake.Mark{{Segment: s.ID, AppliedDelete: 1}}},
		} {
			if err := l.Commit(t.Context(), lease, edit); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("what an added segment says of itself is read back", func(t *testing.T) {
		l := setup(t)
		lease := l.claimReceipt(l.receive(notices(acme, 1)...)[0].ID)
		edit := whole(lease)
		edit.Add[0].Rules, edit.Add[0].Identified = []string{"mask:z", "drop:a"}, true
		l.commit(lease, edit)
		got := l.lookup(acme).Segments[0]
		if diff := cmp.Diff([]string{"drop:a", "mask:z"}, got.Rules); diff != "" || !got.Identified || got.Lease != lease.ID {
			t.Errorf("identified %t, lease %s, rules (-want +got):\n%s", got.Identified, got.Lease, diff)
		}
	})

	t.Run("windows whose segments lack a rule or are of an old format are found", func(t *testing.T) {
		l := setup(t)
		s := l.ingested("a", 0)
		l.ingested("b", 0)
		l.commit(l.claimWindow(hour), lake.Edit{Marks: []lake.Mark{{Segment: s.ID, Rules: []string{"drop:a"}}}})
		for name, c := range map[string]struct {
			query index.StaleQuery
			want  int64
		}{
			"lacks the rule": {index.StaleQuery{MissingRule: "drop:a", Before: hour.End()}, 1},
			"another rule":   {index.StaleQuery{MissingRule: "drop:b", Before: hour.End()}, 2},
			"not over yet":   {index.StaleQuery{MissingRule: "drop:b", Before: hour.End().Add(-1000)}, 0},
			"old format":     {index.StaleQuery{FormatBelow: 2, Before: hour.End()}, 2},
			"good format":    {index.StaleQuery{FormatBelow: 1, Before: hour.End()}, 0},
		} {
			c.query.Organization, c.query.Signal = acme, lake.SignalLogs
			windows, err := l.StaleWindows(t.Context(), c.query)
			if err != nil {
				t.Fatal(err)
			}
			var got int64
			for _, w := range windows {
				got += w.Segments
			}
			if got != c.want {
				t.Errorf("%s: %d segments, want %d", name, got, c.want)
			}
		}
	})
}

func TestRule12FoldersAreDeclared(t *testing.T) {
	t.Parallel()

	t.Run("a lease keeps the folders that were declared, each once", func(t *testing.T) {
		l := setup(t)
		lease := l.claimReceipt(l.receive(notices(acme, 1)...)[0].ID)
		first := "b/db/acme/logs/2026-03-01/" + string(lease.ID) + "/"
		second := "b/db/acme/rejects/" + string(lease.ID) + "/"
		for _, folders := range [][]string{{first}, {second, first}, nil} {
			if err := l.Declare(t.Context(), lease.ID, folders); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		if err := l.sql.QueryRow(t.Context(), "SELECT folders FROM leases WHERE id = $1", lease.ID).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{first, second}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("a lease that ended declares nothing", func(t *testing.T) {
		l := setup(t)
		lease := l.claimReceipt(l.receive(notices(acme, 1)...)[0].ID)
		l.commit(lease, whole(lease))
		l.wantFault(l.Declare(t.Context(), lease.ID, []string{"b/db/acme/logs/2026-03-01/" + string(lease.ID) + "/"}), fault.Conflict)
		l.wantFault(l.Declare(t.Context(), lake.LeaseID("none"), []string{"b/db/acme/logs/2026-03-01/none/"}), fault.Conflict)
	})

	t.Run("folders of others are refused", func(t *testing.T) {
		l := setup(t)
		lease := l.claimReceipt(l.receive(notices(acme, 1)...)[0].ID)
		for _, folder := range []string{"", "b/", "b/db/acme/logs/", "b/db/acme/logs/2026-03-01/other/", "b/raw/" + string(lease.ID) + "/", "b/db/" + string(lease.ID)} {
			l.wantFault(l.Declare(t.Context(), lease.ID, []string{folder}), fault.Invalid)
		}
	})
}

func TestRule13CountsAreOfTheCommit(t *testing.T) {
	t.Parallel()

	t.Run("a delete is followed to its end", func(t *testing.T) {
		l := setup(t)
		old := l.ingested("k", 0)
		source := l.receive(notice(acme, "k", "v1"))[0].ID
		d := deletion(`{a="b"}`)
		d.Sources = lake.SourceErase
		d = l.createDelete(d)
		l.wantProgress(d.ID, index.DeleteProgress{SegmentsLeft: 1, BytesLeft: 1100})
		under, err := l.SegmentsUnderDelete(t.Context(), d.ID, 0, 10)
		if err != nil || len(under) != 1 || under[0].ID != old.ID {
			t.Errorf("under the delete: %+v, %v", under, err)
		}
		l.rewrite(old, d.ID,
			lake.DeletedRows{Delete: d.ID, Source: source, Segment: old.ID, Rows: 2},
			lake.DeletedRows{Delete: d.ID, Source: source, Segment: old.ID, Rows: 1})
		l.wantProgress(d.ID, index.DeleteProgress{RowsDeleted: 3, FilesLeft: 1, ObjectsLeft: 1})
		l.wantMasking()
		segments, err := l.DeleteSegments(t.Context(), d.ID)
		want := []index.DeletedSegment{{Segment: old.ID, Bucket: old.Bucket, Key: old.Key, Rows: 3}}
		if diff := cmp.Diff(want, segments, cmpopts.IgnoreFields(index.DeletedSegment{}, "RemovedAt")); diff != "" || err != nil || segments[0].RemovedAt.IsZero() {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		for range 2 {
			if err := l.MarkDeleteSource(t.Context(), d.ID, source, "erased", lake.RawErased); err != nil {
				t.Fatal(err)
			}
		}
		l.wantProgress(d.ID, index.DeleteProgress{RowsDeleted: 3, FilesLeft: 1})
		sources, err := l.DeleteSources(t.Context(), d.ID, 0, 10)
		if err != nil || len(sources) != 1 || sources[0].Rows != 3 || sources[0].Action != "erased" || sources[0].DoneAt.IsZero() ||
			sources[0].Receipt.ID != source || sources[0].Receipt.Raw != lake.RawErased {
			t.Errorf("sources %+v, %v", sources, err)
		}
		if rest, err := l.DeleteSources(t.Context(), d.ID, source, 10); err != nil || len(rest) != 0 {
			t.Errorf("the next page: %+v, %v", rest, err)
		}
		l.wantFault(l.MarkDeleteSource(t.Context(), d.ID, source+1000, "erased", lake.RawErased), fault.NotFound)
		l.wantFault(l.MarkDeleteSource(t.Context(), d.ID+1, source, "erased", lake.RawErased), fault.NotFound)
	})

	t.Run("rows left out at ingest count once", func(t *testing.T) {
		l := setup(t)
		receipt := l.receive(notices(acme, 1)...)[0]
		d := l.createDelete(deletion(`{a="b"}`))
		lease := l.claimReceipt(receipt.ID)
		edit := whole(lease)
		edit.Add[0].AppliedDelete = d.ID
		edit.Deleted = []lake.DeletedRows{{Delete: d.ID, Source: receipt.ID, Rows: 7}}
		l.commit(lease, edit)
		l.commit(lease, edit)
		l.wantProgress(d.ID, index.DeleteProgress{RowsDeleted: 7})
	})

	t.Run("counts of rows that stay, or of a foreign delete, are refused", func(t *testing.T) {
		l := setup(t)
		s := l.ingested("k", 0)
		foreign := deletion(`{a="b"}`)
		foreign.Organization = "other"
		d := l.createDelete(foreign)
		stays := lake.Edit{Deleted: []lake.DeletedRows{{Delete: d.ID, Source: 1, Segment: s.ID, Rows: 1}}}
		l.wantFault(l.Commit(t.Context(), l.claimWindow(hour), stays), fault.Invalid)
		others := lake.Edit{Deleted: []lake.DeletedRows{{Delete: d.ID, Source: 1, Rows: 1}}}
		l.wantFault(l.Commit(t.Context(), l.claimWindow(nextHour), others), fault.Conflict)
	})

	t.Run("live segments and debt are counted by organization and signal", func(t *testing.T) {
		l := setup(t)
		old := l.ingested("a", 0)
		l.wantDebt(index.Debt{
			Organization: acme, Signal: lake.SignalLogs, Segments: 1, Bytes: 1100, Rows: 1, DebtSegments: 1, DebtBytes: 1100, DebtWindows: 1,
		})
		l.rewrite(old, 0)
		l.wantDebt(index.Debt{Organization: acme, Signal: lake.SignalLogs, Segments: 1, Bytes: 1100, Rows: 1})
		if n := l.number("SELECT count(*) - (SELECT sum(segments) FROM segment_totals) FROM segments WHERE removed_at IS NULL"); n != 0 {
			t.Errorf("%d segments more than are counted", n)
		}
	})

	t.Run("windows with debt are listed in pages", func(t *testing.T) {
		l := setup(t)
		var want []lake.Window
		for i := range 5 {
			w := lake.Window{Start: hour.Start.Add(time.Duration(i) * time.Hour), Length: time.Hour}
			lease := l.claimReceipt(l.receive(notice(acme, w.Start.String(), "v1"))[0].ID)
			edit := whole(lease)
			edit.Add = []lake.Segment{segment(lease, 0, w, lease.Receipts[0].ID)}
			edit.Add[0].Level = i % 2 // one small segment alone is settled
			l.commit(lease, edit)
			if i%2 == 0 {
				want = append(want, w)
			}
		}
		var got []lake.Window
		var cursor index.WindowCursor
		for {
			page, err := l.WindowsWithDebt(t.Context(), cursor, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range page {
				got = append(got, w.Window)
				cursor = w.Cursor()
			}
			if len(page) < 2 {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("windows that are settled into shards are not listed", func(t *testing.T) {
		l := setup(t)
		type place struct {
			level        int
			index, count uint32
		}
		var want, got []lake.Window
		for i, c := range []struct {
			listed   bool
			segments []place
		}{
			{false, []place{{2, 0, 2}, {2, 1, 2}}},
			{true, []place{{1, 0, 2}, {1, 1, 2}}},            // on the way
			{true, []place{{2, 0, 2}, {2, 1, 2}, {2, 1, 2}}}, // one came late
			{true, []place{{2, 0, 2}, {2, 1, 4}, {2, 3, 4}}},
			{true, []place{{2, 0, 2}, {2, 1, 2}, {0, 0, 0}}},
			{false, []place{{2, 0, 4}, {2, 3, 4}}}, // two shards have no rows
		} {
			w := lake.Window{Start: hour.Start.Add(time.Duration(i) * time.Hour), Length: time.Hour}
			lease := l.claimReceipt(l.receive(notice(acme, w.Start.String(), "v1"))[0].ID)
			edit := whole(lease)
			edit.Add = nil
			for n, p := range c.segments {
				s := segment(lease, n, w, lease.Receipts[0].ID)
				s.Level, s.Shard = p.level, lake.Shard{Index: p.index, Count: p.count}
				edit.Add = append(edit.Add, s)
			}
			edit.Outcomes[0].RowsIn, edit.Outcomes[0].RowsOut = int64(len(edit.Add)), int64(len(edit.Add))
			l.commit(lease, edit)
			if c.listed {
				want = append(want, w)
			}
		}
		page, err := l.WindowsWithDebt(t.Context(), index.WindowCursor{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range page {
			got = append(got, w.Window)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("cost is summed by organization, once a commit", func(t *testing.T) {
		l := setup(t)
		want := lake.Cost{}
		for i := range int64(3) {
			lease := l.claimReceipt(l.receive(notice(acme, string(rune('a'+i)), "v1"))[0].ID)
			edit := whole(lease)
			edit.Cost = lake.Cost{Puts: 1 + i, Gets: 2, Lists: 3, Deletes: 4, BytesRead: 5, BytesWritten: 6}
			want.Puts += 1 + i
			l.commit(lease, edit)
			l.commit(lease, edit)
		}
		want.Gets, want.Lists, want.Deletes, want.BytesRead, want.BytesWritten = 6, 9, 12, 15, 18
		now, err := l.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, org := range []lake.Organization{acme, ""} {
			got, err := l.Costs(t.Context(), org, now.AddDate(0, 0, -1))
			if diff := cmp.Diff([]index.OrganizationCost{{Organization: acme, Cost: want}}, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		}
		if got, err := l.Costs(t.Context(), acme, now.AddDate(0, 0, 1)); err != nil || len(got) != 0 {
			t.Errorf("costs of tomorrow: %+v, %v", got, err)
		}
		below := lake.Edit{Cost: lake.Cost{Gets: -1}}
		l.wantFault(l.Commit(t.Context(), l.claimWindow(hour), below), fault.Invalid)
	})

	t.Run("arrivals are new segments of level 0, whether or not they were compacted since", func(t *testing.T) {
		l := setup(t)
		first := l.ingested("a", 0)
		l.rewrite(first, 0)
		second := l.ingested("b", 0)
		arrived := func(since time.Time) []lake.SegmentID {
			query := index.Query{Organization: acme, Signal: lake.SignalLogs, Start: hour.Start, End: hour.End()}
			answer, err := l.Arrivals(t.Context(), query, since)
			if err != nil {
				t.Fatal(err)
			}
			ids := []lake.SegmentID{}
			for _, s := range answer.Segments {
				ids = append(ids, s.ID)
			}
			return ids
		}
		if diff := cmp.Diff([]lake.SegmentID{first.ID, second.ID}, arrived(time.Time{})); diff != "" {
			t.Errorf("ever (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]lake.SegmentID{second.ID}, arrived(first.CreatedAt)); diff != "" {
			t.Errorf("since the first (-want +got):\n%s", diff)
		}
	})
}

func (l *lab) wantProgress(id lake.DeleteID, want index.DeleteProgress) {
	l.Helper()
	got, err := l.DeleteProgress(l.Context(), id)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		l.Errorf("%v progress (-want +got):\n%s", err, diff)
	}
}

func (l *lab) wantDebt(want index.Debt) {
	l.Helper()
	for _, org := range []lake.Organization{acme, ""} {
		got, err := l.CompactionDebt(l.Context(), org)
		if diff := cmp.Diff([]index.Debt{want}, got, cmpopts.IgnoreFields(index.Debt{}, "OldestDebt")); diff != "" || err != nil {
			l.Errorf("%v debt (-want +got):\n%s", err, diff)
			continue
		}
		if got[0].OldestDebt.IsZero() != (want.DebtSegments == 0) {
			l.Errorf("the oldest debt is of %s", got[0].OldestDebt)
		}
	}
}

func TestRule14ADelayedTaskWaits(t *testing.T) {
	t.Parallel()
	duty := lake.Task{Kind: lake.TaskSweep, Organization: acme, Delay: time.Hour}
	sweep := index.Batch{Kind: lake.TaskSweep, MaxTasks: 1}
	enqueue := func(l *lab, delay time.Duration) {
		l.Helper()
		task := duty
		task.Delay = delay
		if err := l.Enqueue(l.Context(), []lake.Task{task}); err != nil {
			l.Fatal(err)
		}
	}

	t.Run("until it is time", func(t *testing.T) {
		l := setup(t)
		enqueue(l, time.Hour)
		l.claimNothing(sweep)
		l.hurry()
		l.claim(sweep)
	})

	t.Run("for the earlier of two times", func(t *testing.T) {
		l := setup(t)
		enqueue(l, time.Hour)
		enqueue(l, 2*time.Hour)
		enqueue(l, 0)
		enqueue(l, time.Hour)
		l.claim(sweep)
	})

	t.Run("a duty that asks for itself waits, although it was asked for meanwhile with a delay", func(t *testing.T) {
		l := setup(t)
		enqueue(l, 0)
		lease := l.claim(sweep)
		enqueue(l, time.Hour)
		l.commit(lease, lake.Edit{Next: []lake.Task{duty}})
		l.claimNothing(sweep)
		if n := l.number("SELECT count(*) FROM tasks WHERE state = 'ready' AND NOT again"); n != 1 {
			t.Errorf("%d tasks wait", n)
		}
	})

	t.Run("a duty that was asked for at once meanwhile is done at once", func(t *testing.T) {
		l := setup(t)
		enqueue(l, 0)
		lease := l.claim(sweep)
		enqueue(l, time.Hour)
		enqueue(l, 0)
		l.commit(lease, lake.Edit{Next: []lake.Task{duty}})
		l.claim(sweep)
	})

	t.Run("a task that backs off is not hurried by asking again", func(t *testing.T) {
		l := setup(t)
		enqueue(l, 0)
		if err := l.Release(t.Context(), l.claim(sweep), fault.New(fault.Unavailable, "away")); err != nil {
			t.Fatal(err)
		}
		enqueue(l, 0)
		l.claimNothing(sweep)
	})

	t.Run("exactly the work that is asked for is claimed, whatever it waits for", func(t *testing.T) {
		l := setup(t)
		other := duty
		other.Organization = "other"
		if err := l.Enqueue(t.Context(), []lake.Task{duty, other, window(hour), window(nextHour)}); err != nil {
			t.Fatal(err)
		}
		wanted := index.Batch{Kind: lake.TaskSweep, Work: &duty}
		if lease := l.claim(wanted); lease.Organization != acme || len(lease.Tasks) != 1 {
			t.Errorf("claimed %+v", lease)
		}
		l.claimNothing(wanted)
		work := window(nextHour)
		if lease := l.claim(index.Batch{Kind: lake.TaskCompact, Work: &work}); lease.Tasks[0].Window != nextHour {
			t.Errorf("claimed %+v", lease.Tasks)
		}
		_, err := l.Claim(t.Context(), index.Batch{Kind: lake.TaskCompact, Work: &duty})
		l.wantFault(err, fault.Invalid)
	})

	t.Run("delays that cannot be are refused", func(t *testing.T) {
		l := setup(t)
		for _, delay := range []time.Duration{-1, 367 * 24 * time.Hour} {
			task := duty
			task.Delay = delay
			l.wantFault(l.Enqueue(t.Context(), []lake.Task{task}), fault.Invalid)
		}
	})
}
