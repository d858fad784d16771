// SPDX-License-Identifier: AGPL-3.0-only

package index_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/fault"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

var day = lake.WindowOf(hour.Start, 24*time.Hour)

// rollupWindow reads a window as the rollup service does.
func (l *lab) rollupWindow(w lake.Window) index.RollupState {
	l.Helper()
	state, err := l.RollupWindow(l.Context(), acme, lake.SignalLogs, w)
	if err != nil {
		l.Fatal(err)
	}
	return state
}

// claimRollup leases the work of rolling a window up.
func (l *lab) claimRollup(w lake.Window, resolution time.Duration) *lake.Lease {
	l.Helper()
	task := lake.Task{Kind: lake.TaskRollup, Organization: acme, Signal: lake.SignalLogs, Window: w, Tier: int(resolution.Seconds())}
	if err := l.Enqueue(l.Context(), []lake.Task{task}); err != nil {
		l.Fatal(err)
	}
	return l.claim(index.Batch{Kind: lake.TaskRollup, Work: &task})
}

// rollupSegment is the n-th segment of a lease, of a rollup.
func rollupSegment(lease *lake.Lease, n int, w lake.Window, resolution time.Duration, applied lake.DeleteID) lake.Segment {
	s := segment(lease, n, w)
	s.Rows, s.Level, s.Resolution, s.AppliedDelete = 1, 1, resolution, applied
	return s
}

// rolledUp is the edit that makes a rollup of what a window was read to be, in one segment.
func rolledUp(lease *lake.Lease, state index.RollupState, resolution time.Duration) lake.Edit {
	w := state.Version.Window
	edit := lake.Edit{
		Add:    []lake.Segment{rollupSegment(lease, 0, w, resolution, state.Latest)},
		Rolled: []lake.Rolled{{Signal: lake.SignalLogs, Window: w, Resolution: resolution, Version: state.Version.Version, AppliedDelete: state.Latest}},
	}
	for _, r := range state.Rollups {
		if r.Resolution != resolution || r.Window != w {
			continue
		}
		for _, s := range r.Segments {
			edit.Remove = append(edit.Remove, s.ID)
		}
	}
	return edit
}

// ofItself is such an edit of what deletes leave of a rollup.
func ofItself(edit lake.Edit) lake.Edit {
	edit.Rolled[0].OfItself = true
	return edit
}

// roll makes a rollup, or says why not.
func (l *lab) roll(w lake.Window, resolution time.Duration) error {
	l.Helper()
	state := l.rollupWindow(w)
	lease := l.claimRollup(w, resolution)
	edit := rolledUp(lease, state, resolution)
	if err := l.Commit(l.Context(), lease, edit); err != nil {
		if err := l.Release(l.Context(), lease, err); err != nil {
			l.Fatal(err)
		}
		return err
	}
	if err := l.Commit(l.Context(), lease, edit); err != nil {
		l.Errorf("asked again: %v", err)
	}
	return nil
}

func (l *lab) rollOrFail(w lake.Window, resolution time.Duration) {
	l.Helper()
	if err := l.roll(w, resolution); err != nil {
		l.Fatal(err)
	}
}

// lookupRollups asks for a day's rollups.
func (l *lab) lookupRollups(resolution time.Duration) index.Answer {
	l.Helper()
	answer, err := l.Lookup(l.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: day.Start, End: day.End(), Resolution: resolution})
	if err != nil {
		l.Fatal(err)
	}
	return answer
}

// wantRollups says of how many segments an answer at a resolution is to be, and which hours after noon it is to lack.
func (l *lab) wantRollups(resolution time.Duration, segments int, uncovered ...int) {
	l.Helper()
	answer := l.lookupRollups(resolution)
	want := []lake.Window{}
	for _, n := range uncovered {
		want = append(want, hourAt(n))
	}
	if diff := cmp.Diff(want, append([]lake.Window{}, answer.Uncovered...)); diff != "" || len(answer.Segments) != segments {
		l.Errorf("%d segments, want %d; uncovered (-want +got):\n%s", len(answer.Segments), segments, diff)
	}
	for _, s := range answer.Segments {
		if s.Resolution != resolution || s.Signal != lake.SignalLogs {
			l.Errorf("got segment %+v", s)
		}
	}
}

// hourAt is the n-th hour after noon.
func hourAt(n int) lake.Window {
	return lake.Window{Start: hour.Start.Add(time.Duration(n) * time.Hour), Length: time.Hour}
}

// ingestAt commits a segment of one object in some hour.
func (l *lab) ingestAt(key string, w lake.Window) lake.Segment {
	l.Helper()
	receipt := l.receive(notice(acme, key, "v1"))[0]
	lease := l.claimReceipt(receipt.ID)
	edit := lake.Edit{Outcomes: []lake.Outcome{done(receipt.ID)}, Add: []lake.Segment{segment(lease, 0, w, receipt.ID)}}
	edit.Add[0].AppliedDelete = l.rollupWindow(w).Latest
	l.commit(lease, edit)
	for _, s := range l.rollupWindow(w).Segments {
		if s.Lease == lease.ID {
			return s
		}
	}
	l.Fatal("the segment is not there")
	return lake.Segment{}
}

func (l *lab) debt(tiers ...index.RollupTier) [][]lake.Window {
	l.Helper()
	for i := range tiers {
		tiers[i].From, tiers[i].Until = day.Start.AddDate(-3, 0, 0), day.End()
	}
	debts, err := l.RollupDebt(l.Context(), index.RollupQuery{Organization: acme, Signal: lake.SignalLogs, Tiers: tiers})
	if err != nil {
		l.Fatal(err)
	}
	var windows [][]lake.Window
	for _, d := range debts {
		if int(d.Count) != len(d.Windows) {
			l.Errorf("%d windows, %d of them named", d.Count, len(d.Windows))
		}
		windows = append(windows, d.Windows)
	}
	return windows
}

var (
	minutes = index.RollupTier{Resolution: time.Minute, Length: time.Hour}
	hours   = index.RollupTier{Resolution: time.Hour, Length: 24 * time.Hour}
)

func (l *lab) wantRollupDebt(want ...[]lake.Window) {
	l.Helper()
	if diff := cmp.Diff(want, l.debt(minutes, hours)); diff != "" {
		l.Errorf("debt (-want +got):\n%s", diff)
	}
}

func TestRule18RollupsStandApart(t *testing.T) {
	t.Parallel()

	t.Run("who asks for rows never comes by them", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		only := func(what string, segments []lake.Segment) {
			if len(segments) != 1 || segments[0].ID != raw.ID || segments[0].Resolution != 0 {
				t.Errorf("%s: got %+v", what, segments)
			}
		}
		only("lookup", l.lookup(acme).Segments)
		arrivals, err := l.Arrivals(t.Context(), index.Query{Organization: acme, Signal: lake.SignalLogs, Start: day.Start, End: day.End()}, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		only("arrivals", arrivals.Segments)
		for _, w := range []lake.Window{hour, day} {
			state, err := l.Window(t.Context(), acme, lake.SignalLogs, w)
			if err != nil {
				t.Fatal(err)
			}
			only("window", state.Segments)
		}
		due, err := l.DueSegments(t.Context(), index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Before: day.End()})
		if err != nil {
			t.Fatal(err)
		}
		only("due", due)
		debts, err := l.CompactionDebt(t.Context(), acme)
		if err != nil || len(debts) != 1 || debts[0].Segments != 1 || debts[0].DebtSegments != 1 || debts[0].Rollups != (index.Count{Segments: 1, Rows: 1, Bytes: 1100}) {
			t.Errorf("debt: %+v (%v)", debts, err)
		}
		windows, err := l.WindowsWithDebt(t.Context(), index.WindowCursor{}, 0)
		if err != nil || len(windows) != 1 || windows[0].Segments != 1 {
			t.Errorf("windows with debt: %+v (%v)", windows, err)
		}
		stale, err := l.StaleWindows(t.Context(), index.StaleQuery{Organization: acme, Signal: lake.SignalLogs, Before: day.End(), MissingRule: "a"})
		if err != nil || len(stale) != 1 || stale[0].Segments != 1 {
			t.Errorf("stale windows: %+v (%v)", stale, err)
		}
	})

	t.Run("who looks after files knows them", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		files, err := l.SegmentsOfDay(t.Context(), acme, lake.SignalLogs, day.Start, 0, 0)
		if err != nil || len(files) != 2 {
			t.Errorf("files: %+v (%v)", files, err)
		}
		due, err := l.DueSegments(t.Context(), index.DueQuery{Organization: acme, Signal: lake.SignalLogs, Resolution: time.Minute, Before: day.End()})
		if err != nil || len(due) != 1 || due[0].Resolution != time.Minute || due[0].Signal != lake.SignalLogs {
			t.Fatalf("due: %+v (%v)", due, err)
		}
		if err := l.MarkMissing(t.Context(), []lake.SegmentID{due[0].ID}, true); err != nil {
			t.Fatal(err)
		}
		missing, err := l.Missing(t.Context(), acme, 0)
		if err != nil || len(missing) != 1 || missing[0].ID != due[0].ID || len(missing[0].Sources) != 0 {
			t.Errorf("missing: %+v (%v)", missing, err)
		}
		l.remove(due[0].ID)
		l.ship()
		if got := l.sweepable(0); !slices.Equal(got, []lake.SegmentID{due[0].ID}) {
			t.Errorf("sweepable: %v", got)
		}
		if err := l.Swept(t.Context(), acme, []lake.SegmentID{due[0].ID}); err != nil {
			t.Fatal(err)
		}
		if n := l.number("SELECT count(*) FROM segments") + l.number("SELECT count(*) FROM segment_sources WHERE receipt = 0"); n != 1 {
			t.Errorf("%d rows are left, want the one of the rows", n)
		}
	})

	t.Run("they come only with what they are, and in place of all that were before", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		refused := func(what string, kind fault.Kind, change func(edit *lake.Edit, lease *lake.Lease)) {
			l.Helper()
			state := l.rollupWindow(hour)
			lease := l.claimRollup(hour, time.Minute)
			edit := rolledUp(lease, state, time.Minute)
			change(&edit, lease)
			if err := l.Commit(t.Context(), lease, edit); fault.KindOf(err) != kind || err == nil {
				t.Errorf("%s: got %v, want %s", what, err, kind)
			}
			if err := l.Release(t.Context(), lease, fault.New(fault.Canceled, "again")); err != nil {
				t.Fatal(err)
			}
		}
		for what, change := range map[string]func(edit *lake.Edit, lease *lake.Lease){
			"no rollup is made":      func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled = nil },
			"of another window":      func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].Window = hourAt(1) },
			"of another resolution":  func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].Resolution = time.Hour },
			"of no known resolution": func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].Resolution = 7 * time.Second },
			"of a window of half an hour": func(edit *lake.Edit, _ *lake.Lease) {
				edit.Rolled[0].Window.Length = 30 * time.Minute
			},
			"skipped, with a segment": func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].Skipped = true },
			"twice":                   func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled = append(edit.Rolled, edit.Rolled[0]) },
			"with another delete":     func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].AppliedDelete++ },
			"with a delete that was not made": func(edit *lake.Edit, _ *lake.Lease) {
				edit.Rolled[0].AppliedDelete, edit.Add[0].AppliedDelete = 9, 9
			},
			"a shard beyond the last":   func(edit *lake.Edit, _ *lake.Lease) { edit.Add[0].Shard = lake.Shard{Index: 4, Count: 4} },
			"shards of no power of two": func(edit *lake.Edit, _ *lake.Lease) { edit.Add[0].Shard = lake.Shard{Index: 1, Count: 3} },
			"with changes of the rows": func(edit *lake.Edit, lease *lake.Lease) {
				edit.Add = append(edit.Add, segment(lease, 1, hour, 1))
			},
		} {
			refused(what, fault.Invalid, change)
		}
		refused("of another version", fault.Conflict, func(edit *lake.Edit, _ *lake.Lease) { edit.Rolled[0].Version++ })
		l.rollOrFail(hour, time.Minute)
		refused("one before stays", fault.Conflict, func(edit *lake.Edit, _ *lake.Lease) { edit.Remove = nil })
		refused("removed by nobody who may", fault.Invalid, func(edit *lake.Edit, _ *lake.Lease) { edit.Add, edit.Rolled = nil, nil })
		l.wantRollups(time.Minute, 1)
		if n := l.number("SELECT count(*) FROM rollups"); n != 1 {
			t.Errorf("%d rollups are noted, want one", n)
		}
	})

	t.Run("of two first ones one stands", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		state := l.rollupWindow(hour)
		var leases []*lake.Lease
		for i := range 8 {
			leases = append(leases, l.claimRollup(hourAt(i), time.Minute))
		}
		errs := l.together(len(leases), func(i int) error { return l.Commit(t.Context(), leases[i], rolledUp(leases[i], state, time.Minute)) })
		if got := l.succeeded(errs); got != 1 {
			t.Errorf("%d rollups stand, want one", got)
		}
		l.wantRollups(time.Minute, 1)
	})

	t.Run("shards, and their window, are answered as they were added", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		state := l.rollupWindow(day)
		lease := l.claimRollup(day, time.Hour)
		edit := rolledUp(lease, state, time.Hour)
		edit.Add[0].Shard = lake.Shard{Index: 0, Count: 2}
		edit.Add = append(edit.Add, rollupSegment(lease, 1, day, time.Hour, 0))
		edit.Add[1].Shard = lake.Shard{Index: 1, Count: 2}
		l.commit(lease, edit)
		got := l.lookupRollups(time.Hour).Segments
		if len(got) != 2 || got[0].Shard != edit.Add[0].Shard || got[1].Shard != edit.Add[1].Shard || got[0].Window != day || got[0].Sources != nil {
			t.Errorf("got %+v", got)
		}
		compaction := l.claimWindow(hour)
		merged := lake.Edit{Rewrite: true, Remove: []lake.SegmentID{state.Segments[0].ID}}
		for i := range uint32(4) {
			s := segment(compaction, int(i), hour, state.Segments[0].Sources...)
			s.Shard = lake.Shard{Index: i, Count: 4}
			merged.Add = append(merged.Add, s)
		}
		l.commit(compaction, merged)
		for i, s := range l.lookup(acme).Segments {
			if s.Shard != merged.Add[i].Shard {
				t.Errorf("segment %d: got shard %+v", i, s.Shard)
			}
		}
		l.wantRollups(time.Hour, 2)
	})
}

func TestRule19OnlyCurrentRollupsAnswer(t *testing.T) {
	t.Parallel()

	t.Run("compaction, which changes no rows, makes none stale", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		l.rollOrFail(day, time.Hour)
		l.rewrite(raw, 0)
		l.wantRollups(time.Minute, 1)
		l.wantRollups(time.Hour, 1)
		l.wantRollupDebt(nil, nil)
		mark := lake.Mark{Segment: l.lookup(acme).Segments[0].ID, Rules: []string{"drop:a"}}
		l.commit(l.claimWindow(hour), lake.Edit{Rewrite: true, Marks: []lake.Mark{mark}})
		l.wantRollups(time.Minute, 1)
	})

	t.Run("hours without one are named", func(t *testing.T) {
		l := setup(t)
		for n := range 3 {
			l.ingestAt(string(rune('a'+n)), hourAt(n))
		}
		l.wantRollups(time.Minute, 0, 0, 1, 2)
		l.rollOrFail(hourAt(1), time.Minute)
		l.wantRollups(time.Minute, 1, 0, 2)
		l.wantRollups(10*time.Second, 0, 0, 1, 2)
		l.rollOrFail(day, time.Hour)
		l.wantRollups(time.Hour, 1)
		part, err := l.Lookup(t.Context(), index.Query{
			Organization: acme, Signal: lake.SignalLogs, Resolution: time.Minute, Start: hourAt(1).Start.Add(time.Second), End: hourAt(2).Start.Add(time.Second),
		})
		l.exec("UPDATE segments SET first_time = last_time WHERE signal > 10 AND window_start = $1", hourAt(1).Start) // the end of its only bucket
		if before, err := l.Lookup(t.Context(), index.Query{
			Organization: acme, Signal: lake.SignalLogs, Resolution: time.Minute, Start: hourAt(1).Start, End: hourAt(1).Start.Add(time.Second),
		}); err != nil || len(before.Segments) != 1 {
			t.Errorf("of a part of the bucket: %+v (%v)", before, err)
		}
		if err != nil || len(part.Segments) != 1 || !cmp.Equal(part.Uncovered, []lake.Window{hourAt(2)}) || part.At.IsZero() {
			t.Errorf("of a part: %+v (%v)", part, err)
		}
		if metrics, err := l.Lookup(t.Context(), index.Query{Organization: acme, Signal: lake.SignalMetrics, Resolution: time.Hour, Start: day.Start, End: day.End()}); err != nil ||
			len(metrics.Segments)+len(metrics.Uncovered) != 0 {
			t.Errorf("of another signal: %+v (%v)", metrics, err)
		}
	})

	t.Run("late rows make it stale, and it is made anew once", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		l.rollOrFail(day, time.Hour)
		l.wantRollupDebt(nil, nil)
		l.ingestAt("late", hour)
		l.wantRollups(time.Minute, 0, 0)
		l.wantRollups(time.Hour, 0, 0)
		l.wantRollupDebt([]lake.Window{hour}, []lake.Window{day})
		state := l.rollupWindow(day)
		if len(state.Rollups) != 2 || state.Rollups[0].Current || state.Rollups[1].Current || len(state.Rollups[0].Segments) != 1 || len(state.Hours) != 1 {
			t.Errorf("state %+v", state)
		}
		l.rollOrFail(hour, time.Minute)
		l.wantRollups(time.Minute, 1)
		l.wantRollups(time.Hour, 0, 0)
		l.wantRollupDebt(nil, []lake.Window{day})
		if state = l.rollupWindow(day); !state.Rollups[0].Current || state.Rollups[1].Current {
			t.Errorf("state %+v", state)
		}
		l.rollOrFail(day, time.Hour)
		l.wantRollupDebt(nil, nil)
		if n := l.number("SELECT count(*) FROM segments WHERE signal = 11 AND removed_at IS NULL"); n != 2 {
			t.Errorf("%d segments of rollups are live, want two", n)
		}
	})

	t.Run("compaction makes none stale, masking rows does", func(t *testing.T) {
		l := setup(t)
		receipts := l.receive(replacing("a", "v1"))
		l.ingestAll()
		l.rollOrFail(hour, time.Minute)
		old := l.lookup(acme).Segments[0]
		lease := l.claimWindow(hour)
		l.commit(lease, lake.Edit{Rewrite: true, Remove: []lake.SegmentID{old.ID}, Add: []lake.Segment{segment(lease, 0, hour, receipts[0].ID)}})
		l.wantRollups(time.Minute, 1)
		l.receive(replacing("a", "v2"))
		l.ingestAll()
		l.wantRollups(time.Minute, 0, 0)
	})

	t.Run("a tier that is skipped answers nothing, and is no debt until rows change", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		skip := func() {
			state := l.rollupWindow(hour)
			lease := l.claimRollup(hour, time.Minute)
			edit := rolledUp(lease, state, time.Minute)
			edit.Add, edit.Rolled[0].Skipped = nil, true
			l.commit(lease, edit)
		}
		skip()
		l.wantRollups(time.Minute, 0, 0)
		l.wantRollupDebt(nil, []lake.Window{day})
		if r := l.rollupWindow(hour).Rollups; len(r) != 1 || r[0].Standing != index.RollupSkipped || !r[0].Current {
			t.Errorf("got %+v", r)
		}
		l.ingestAt("b", hour)
		l.wantRollupDebt([]lake.Window{hour}, []lake.Window{day})
		l.rollOrFail(hour, time.Minute)
		skip() // it removes what there was
		l.wantRollups(time.Minute, 0, 0)
	})

	t.Run("an empty one answers that there is nothing", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		state := l.rollupWindow(hour)
		lease := l.claimRollup(hour, time.Minute)
		edit := rolledUp(lease, state, time.Minute)
		edit.Add = nil
		l.commit(lease, edit)
		l.wantRollups(time.Minute, 0)
	})

	t.Run("segments of longer windows are read for the hours in them", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hourAt(1))
		lease := l.claimWindow(hour)
		whole := segment(lease, 0, day, 1)
		l.commit(lease, lake.Edit{Rewrite: true, Remove: []lake.SegmentID{raw.ID}, Add: []lake.Segment{whole}})
		state := l.rollupWindow(hourAt(1))
		if len(state.Segments) != 1 || state.Segments[0].Window != day || len(state.Segments[0].Sources) != 1 {
			t.Errorf("got %+v", state.Segments)
		}
		if next := l.rollupWindow(lake.Window{Start: day.End(), Length: time.Hour}); len(next.Segments) != 0 {
			t.Errorf("the day after has %+v", next.Segments)
		}
	})
}

func TestRule20RollupsOutliveTheirRows(t *testing.T) {
	t.Parallel()

	t.Run("retention of rows makes none stale", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		before, err := l.WindowVersion(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil {
			t.Fatal(err)
		}
		l.remove(raw.ID)
		l.wantRollups(time.Minute, 1)
		l.wantVisible(acme)
		after, err := l.WindowVersion(t.Context(), acme, lake.SignalLogs, hour)
		if err != nil || after.Version != before.Version+1 {
			t.Errorf("version %d after %d (%v): what was made of the rows before must not stand", after.Version, before.Version, err)
		}
		state := l.rollupWindow(hour)
		if !state.Expired || !state.Rollups[0].Current {
			t.Errorf("state %+v", state)
		}
		l.ingestAt("late", hour)
		l.wantRollups(time.Minute, 1)
		l.wantRollupDebt(nil, []lake.Window{day})
	})

	t.Run("nor does retention of some rows of segments, which compaction leaves out; without a rollup there is one of what is left", func(t *testing.T) {
		l := setup(t)
		for i, rolled := range []bool{true, false} {
			w := hourAt(i)
			raw := l.ingestAt(w.Start.String(), w)
			if rolled {
				l.rollOrFail(w, time.Minute)
			}
			state := l.rollupWindow(w)
			lease := l.claimWindow(w)
			made := segment(lease, 0, w, raw.Sources...)
			made.Level = 2
			edit := lake.Edit{Add: []lake.Segment{made}, Remove: []lake.SegmentID{raw.ID}, Rewrite: true, Expired: true, Expect: []lake.WindowVersion{state.Version}}
			l.commit(lease, edit)
			after := l.rollupWindow(w)
			if after.Expired != rolled || after.Version.Version != state.Version.Version+1 {
				t.Errorf("%s: expired %t, version %d after %d", w.Start, after.Expired, after.Version.Version, state.Version.Version)
			}
		}
		l.wantRollups(time.Minute, 1, 1)
		l.rollOrFail(hourAt(1), time.Minute)
		l.wantRollups(time.Minute, 2)
		l.wantFault(l.Commit(t.Context(), l.claimRollup(hourAt(0), time.Minute), lake.Edit{Rolled: []lake.Rolled{{
			Signal: lake.SignalLogs, Window: hourAt(0), Resolution: time.Minute, Version: l.rollupWindow(hourAt(0)).Version.Version,
		}}, Remove: []lake.SegmentID{l.rollupWindow(hourAt(0)).Rollups[0].Segments[0].ID}}), fault.Conflict)
	})

	t.Run("what is not all there is not rolled up, but from finer rollups that have it", func(t *testing.T) {
		l := setup(t)
		first, second := l.ingestAt("a", hourAt(0)), l.ingestAt("b", hourAt(1))
		l.rollOrFail(hourAt(1), time.Minute)
		stale := l.rollupWindow(hourAt(0))
		l.remove(first.ID, second.ID)
		l.wantFault(l.roll(hourAt(0), time.Minute), fault.Conflict)
		l.wantFault(l.roll(day, time.Hour), fault.Conflict)
		lease := l.claimRollup(hourAt(0), time.Minute)
		l.wantFault(l.Commit(t.Context(), lease, rolledUp(lease, stale, time.Minute)), fault.Conflict)
		l.wantRollupDebt(nil, nil)

		other := setupAgain(l)
		first, second = other.ingestAt("a", hourAt(0)), other.ingestAt("b", hourAt(1))
		other.rollOrFail(hourAt(0), time.Minute)
		other.rollOrFail(hourAt(1), time.Minute)
		other.remove(first.ID, second.ID)
		other.wantRollupDebt(nil, []lake.Window{day})
		other.rollOrFail(day, time.Hour)
		other.wantRollups(time.Hour, 1)
		other.wantRollups(time.Minute, 2)
	})

	t.Run("retention of a tier leaves a gap that nobody fills", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		l.remove(l.lookupRollups(time.Minute).Segments[0].ID)
		l.wantRollups(time.Minute, 0, 0)
		l.wantRollupDebt(nil, []lake.Window{day})
		if r := l.rollupWindow(hour).Rollups; len(r) != 1 || r[0].Standing != index.RollupExpired || r[0].Current {
			t.Errorf("got %+v", r)
		}
		l.rollOrFail(hour, time.Minute) // who says so may
		l.wantRollups(time.Minute, 1)
	})

	t.Run("the rows of one retention are those of its resolution", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		run := index.RetentionRun{
			Organization: acme, Signal: lake.SignalLogs, Resolution: time.Minute, Cutoff: day.End(), Due: index.Count{Segments: 1, Rows: 1, Bytes: 1100},
		}
		id, err := l.BeginRetention(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		lease := l.expiry()
		if err := l.RetentionRemoved(t.Context(), id, lease.ID, index.Count{}, true); err != nil {
			t.Fatal(err)
		}
		l.commit(lease, lake.Edit{Remove: []lake.SegmentID{l.lookupRollups(time.Minute).Segments[0].ID}})
		runs, _, err := l.RetentionRuns(t.Context(), acme, 10, "")
		if err != nil || len(runs) != 1 || runs[0].Resolution != time.Minute || runs[0].Signal != lake.SignalLogs || runs[0].Removed != run.Due {
			t.Errorf("got %+v (%v)", runs, err)
		}
	})
}

func TestRule21DeletesReachRollups(t *testing.T) {
	t.Parallel()

	t.Run("what a delete reaches is stale from then on", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hourAt(0))
		l.ingestAt("b", hourAt(1))
		for n := range 2 {
			l.rollOrFail(hourAt(n), time.Minute)
		}
		l.createDelete(deletion(`{a="b"}`)) // of the first hour
		l.wantRollups(time.Minute, 1, 0)
		l.wantRollupDebt([]lake.Window{hourAt(0)}, []lake.Window{day})
		l.exec("UPDATE segments SET first_time = last_time WHERE signal > 10") // the end of its only bucket
		late := deletion(`{a="b"}`)
		late.End = hour.Start.Add(time.Second)
		d := l.createDelete(late)
		under, err := l.SegmentsUnderDelete(t.Context(), d.ID, 0, 0)
		if err != nil || len(under) != 2 || under[1].Resolution != time.Minute {
			t.Errorf("under the delete: %+v (%v)", under, err)
		}
		before := deletion(`{a="b"}`)
		before.Start, before.End = hour.Start.Add(-time.Hour), hour.Start
		none := l.createDelete(before)
		if p, err := l.DeleteProgress(t.Context(), none.ID); err != nil || p.SegmentsLeft != 0 {
			t.Errorf("under a delete that ends where the window begins: %+v (%v)", p, err)
		}
		state := l.rollupWindow(hourAt(0))
		if len(state.Deletes) != 2 || state.Latest != none.ID || state.Rollups[0].Current {
			t.Errorf("state %+v", state)
		}
		l.rollOrFail(hourAt(0), time.Minute)
		l.wantRollups(time.Minute, 2)
		if p, err := l.DeleteProgress(t.Context(), d.ID); err != nil || p.SegmentsLeft != 1 || p.FilesLeft != 1 {
			t.Errorf("progress %+v (%v), want the segment of rows left, and the file of the rollup before", p, err)
		}
		l.ship()
		if err := l.Swept(t.Context(), acme, l.sweepable(0)); err != nil {
			t.Fatal(err)
		}
		if p, err := l.DeleteProgress(t.Context(), d.ID); err != nil || p.FilesLeft != 0 {
			t.Errorf("progress %+v (%v), want no file left", p, err)
		}
	})

	t.Run("one that was made before is not committed", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		state := l.rollupWindow(hour)
		lease := l.claimRollup(hour, time.Minute)
		l.createDelete(deletion(`{a="b"}`))
		l.wantFault(l.Commit(t.Context(), lease, rolledUp(lease, state, time.Minute)), fault.Conflict)
	})

	t.Run("for it a rollup is made anew of itself, or marked, though the rows are gone", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		l.rollOrFail(day, time.Hour)
		l.remove(raw.ID)
		d := l.createDelete(deletion(`{a="b"}`))
		l.wantRollups(time.Minute, 0, 0)
		l.wantFault(l.roll(hour, time.Minute), fault.Conflict)
		state := l.rollupWindow(hour)
		if !state.Rollups[0].Held || state.Rollups[0].Current || len(state.Segments) != 0 || len(state.Deletes) != 1 || state.Deletes[0].ID != d.ID {
			t.Errorf("got %+v", state)
		}
		lease := l.claimRollup(hour, time.Minute)
		l.commit(lease, ofItself(rolledUp(lease, state, time.Minute)))
		l.wantRollups(time.Minute, 1)
		l.wantRollups(time.Hour, 0, 0)

		lease = l.claimErase()
		l.commit(lease, lake.Edit{Marks: []lake.Mark{{Segment: l.rollupWindow(day).Rollups[1].Segments[0].ID, AppliedDelete: d.ID}}})
		l.wantRollups(time.Hour, 1)
		if under, err := l.SegmentsUnderDelete(t.Context(), d.ID, 0, 0); err != nil || len(under) != 0 {
			t.Errorf("under the delete: %+v (%v)", under, err)
		}
		fresh := rebuilt(t, nil, l.records(acme))
		fresh.wantRollups(time.Minute, 1)
		fresh.wantRollups(time.Hour, 1)
	})

	t.Run("but not of one that lacks rows, and a mark of one shard is not of all", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		state := l.rollupWindow(hour)
		lease := l.claimRollup(hour, time.Minute)
		edit := rolledUp(lease, state, time.Minute)
		edit.Add = append(edit.Add, rollupSegment(lease, 1, hour, time.Minute, 0))
		l.commit(lease, edit)
		d := l.createDelete(deletion(`{a="b"}`))
		segments := l.rollupWindow(hour).Rollups[0].Segments
		for i, want := range []int{0, 2} {
			lease = l.claimErase()
			l.commit(lease, lake.Edit{Marks: []lake.Mark{{Segment: segments[i].ID, AppliedDelete: d.ID}}})
			if got := len(l.lookupRollups(time.Minute).Segments); got != want {
				t.Errorf("after %d marks %d segments are answered, want %d", i+1, got, want)
			}
		}
		l.ingestAt("late", hour)
		l.createDelete(deletion(`{a="b"}`))
		lease = l.claimRollup(hour, time.Minute)
		stale := ofItself(rolledUp(lease, l.rollupWindow(hour), time.Minute))
		l.wantFault(l.Commit(t.Context(), lease, stale), fault.Conflict)

		l.remove(l.lookup(acme).Segments[0].ID)
		l.commit(lease, lake.Edit{Remove: stale.Remove})
		if left := l.rollupWindow(hour).Rollups[0]; left.Standing != index.RollupDropped || len(left.Segments) != 0 {
			t.Errorf("what cannot be made anew is there still: %+v", left)
		}
	})

	t.Run("its files go, and it is made anew where the rows are", func(t *testing.T) {
		l := setup(t)
		raw := l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		l.rollOrFail(day, time.Hour)
		l.remove(raw.ID)
		l.createDelete(deletion(`{a="b"}`))
		lease := l.claimErase()
		var edit lake.Edit
		for _, r := range l.rollupWindow(day).Rollups {
			for _, s := range r.Segments {
				edit.Remove = append(edit.Remove, s.ID)
			}
		}
		l.commit(lease, edit)
		l.wantRollups(time.Minute, 0, 0)
		l.wantRollupDebt(nil, nil) // the rows are gone
		if r := l.rollupWindow(hour).Rollups; len(r) != 1 || r[0].Standing != index.RollupDropped || r[0].Current {
			t.Errorf("got %+v", r)
		}

		other := setupAgain(l)
		other.ingestAt("a", hour)
		other.rollOrFail(hour, time.Minute)
		lease = other.claimErase()
		other.commit(lease, lake.Edit{Remove: []lake.SegmentID{other.lookupRollups(time.Minute).Segments[0].ID}})
		other.wantRollupDebt([]lake.Window{hour}, []lake.Window{day})
	})
}

// claimErase leases the work of deletes.
func (l *lab) claimErase() *lake.Lease {
	l.Helper()
	if err := l.Enqueue(l.Context(), []lake.Task{{Kind: lake.TaskErase, Organization: acme, Signal: lake.SignalLogs}}); err != nil {
		l.Fatal(err)
	}
	return l.claim(index.Batch{Kind: lake.TaskErase})
}

// setupAgain is another lab in the same test.
func setupAgain(l *lab) *lab {
	l.Helper()
	return rebuilt(l.T, nil, nil)
}

func TestRule22ARebuiltIndexHasTheSameRollups(t *testing.T) {
	t.Parallel()

	t.Run("over late rows, retention and deletes", func(t *testing.T) {
		l := setup(t)
		raw := []lake.Segment{l.ingestAt("a", hourAt(0)), l.ingestAt("b", hourAt(1)), l.ingestAt("c", hourAt(2)), l.ingestAt("d", hourAt(3))}
		for n := range raw {
			l.rollOrFail(hourAt(n), time.Minute)
		}
		l.rollOrFail(day, time.Hour)
		l.remove(raw[0].ID)
		d := deletion(`{a="b"}`)
		d.Start, d.End = hourAt(1).Start, hourAt(1).End()
		l.createDelete(d)
		l.ingestAt("late", hourAt(2))
		l.remove(l.lookupRollups(time.Minute).Segments[1].ID)
		l.wantRollups(time.Minute, 1, 1, 2, 3)
		parts, err := l.snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, fresh := range map[string]*lab{"records": rebuilt(t, nil, l.records(acme)), "snapshot": rebuilt(t, parts, nil)} {
			fresh.wantRollups(time.Minute, 1, 1, 2, 3)
			fresh.wantRollups(time.Hour, 0, 0, 1, 2, 3)
			if state := fresh.rollupWindow(hourAt(0)); !state.Expired {
				t.Errorf("%s: it is not known that rows were removed", name)
			}
			if diff := cmp.Diff(l.debt(minutes, hours), fresh.debt(minutes, hours)); diff != "" {
				t.Errorf("%s: debt (-before +rebuilt):\n%s", name, diff)
			}
			if diff := cmp.Diff(l.contents(), fresh.contents()); diff != "" {
				t.Errorf("%s: (-before +rebuilt):\n%s", name, diff)
			}
		}
	})

	t.Run("after a record that tells no versions none of its hours is", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hourAt(0))
		l.ingestAt("b", hourAt(1))
		l.rollOrFail(hourAt(0), time.Minute)
		l.rollOrFail(hourAt(1), time.Minute)
		records := l.records(acme)
		records[0].Version = 1 // of hour 0
		delete(records[0].Rows, "window_versions")
		for range 2 {
			slices.Reverse(records)
			rebuilt(t, nil, records).wantRollups(time.Minute, 1, 0)
		}
	})

	t.Run("what is known to be removed can be said to be", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		l.rollOrFail(hour, time.Minute)
		record, err := index.RemovalRecord(acme, l.lookupRollups(time.Minute).Segments, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if result, err := l.Adopt(t.Context(), acme, []index.Record{record}); err != nil || result.Removed != 1 {
			t.Errorf("got %+v (%v)", result, err)
		}
		l.wantRollups(time.Minute, 0)
		if got := len(l.lookup(acme).Segments); got != 1 {
			t.Errorf("%d segments of rows are live, want one", got)
		}
	})

	t.Run("what was read before an adoption does not stand after it", func(t *testing.T) {
		l := setup(t)
		l.ingestAt("a", hour)
		first := l.records(acme)
		l.ingestAt("late", hour)
		older := rebuilt(t, nil, first)
		state := older.rollupWindow(hour)
		lease := older.claimRollup(hour, time.Minute)
		if _, err := older.Adopt(t.Context(), acme, l.records(acme)); err != nil {
			t.Fatal(err)
		}
		older.wantFault(older.Commit(t.Context(), lease, rolledUp(lease, state, time.Minute)), fault.Conflict)
	})
}
