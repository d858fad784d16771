// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

func start() time.Time { return time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) }

func hour(n int) lake.Window {
	return lake.WindowOf(start().Add(time.Duration(n)*time.Hour), time.Hour)
}

func day() lake.Window { return lake.WindowOf(start(), 24*time.Hour) }

// rows is a segment of rows of an hour, or of the day (-1), that came long ago.
func rows(id lake.SegmentID, n int) lake.Segment {
	s := lake.Segment{ID: id, Signal: lake.SignalMetrics, Window: day(), CreatedAt: start().Add(26 * time.Hour)}
	if n >= 0 {
		s.Window = hour(n)
	}
	return s
}

// tier is a current rollup with one segment.
func tier(id lake.SegmentID, w lake.Window, resolution time.Duration) index.Rollup {
	return index.Rollup{
		Window: w, Resolution: resolution, Standing: index.RollupRolled, Current: true,
		Segments: []lake.Segment{{ID: id, Window: w, Resolution: resolution}},
	}
}

// state is a day with rows in some hours, two days later.
func state(resolution time.Duration, hours ...int) State {
	s := State{Resolution: resolution}
	s.Version = lake.WindowVersion{Signal: lake.SignalMetrics, Window: day(), Version: 7}
	s.At = start().Add(72 * time.Hour)
	for _, n := range hours {
		s.Hours = append(s.Hours, hour(n))
		s.Segments = append(s.Segments, rows(lake.SegmentID(n+1), n))
	}
	return s
}

// deleted are rollups that a delete reaches.
func (s *State) deleted(rollups ...index.Rollup) {
	s.Deletes = append(s.Deletes, lake.Delete{ID: 3, Signal: lake.SignalMetrics, Start: start(), End: start().Add(time.Minute)})
	for _, r := range rollups {
		r.Current, r.Held = false, true
		r.Segments[0].Signal = lake.SignalMetrics
		s.Rollups = append(s.Rollups, r)
	}
}

func policy(resolution time.Duration) Policy {
	return Policy{Tier: &config.RollupPolicy{Signal: lake.SignalMetrics, Resolution: resolution, After: time.Hour}, Settle: time.Minute, MaxInputs: 100}
}

// text is a plan in a line.
func text(p Plan) string {
	var b strings.Builder
	fmt.Fprint(&b, p.Action)
	for _, source := range p.Sources {
		fmt.Fprintf(&b, " %02d+%s:%s", source.Window.Start.Hour(), source.Window.Length, source.Resolution)
		for _, s := range source.Segments {
			fmt.Fprintf(&b, " #%d", s.ID)
		}
	}
	if len(p.Remove) > 0 {
		b.WriteString(" remove")
		for _, s := range p.Remove {
			fmt.Fprintf(&b, " #%d", s.ID)
		}
	}
	if !p.Again.IsZero() {
		fmt.Fprintf(&b, " again %s", p.Again.Format("02T15:04:05"))
	}
	return b.String()
}

func TestPlans(t *testing.T) {
	t.Parallel()
	const m, m5, h = time.Minute, 5 * time.Minute, time.Hour
	for name, c := range map[string]struct {
		resolution time.Duration
		hours      []int
		change     func(s *State, p *Policy)
		want       string
	}{
		"P3: rows of hours that follow one another are one stretch": {m5, []int{0, 1, 5}, nil, "roll 00+2h0m0s:0s #1 #2 05+1h0m0s:0s #6"},
		"P3: the coarsest finer rollup of each hour, else its rows": {h, []int{0, 1, 2}, func(s *State, _ *Policy) {
			s.Rollups = []index.Rollup{tier(10, hour(0), m), tier(11, hour(0), 10*time.Second), tier(12, hour(2), 10*time.Second)}
		}, "roll 00+1h0m0s:1m0s #10 01+1h0m0s:0s #2 02+1h0m0s:10s #12"},
		"P3: one rollup of all hours is one source": {h, []int{0, 1, 5}, func(s *State, _ *Policy) {
			s.Rollups = []index.Rollup{tier(10, day(), m5), tier(11, hour(0), m)}
		}, "roll 00+24h0m0s:5m0s #10"},
		"P3: rollups that are not current, or are skipped, are no source": {h, []int{0, 1}, func(s *State, _ *Policy) {
			old, skipped := tier(10, hour(0), m), tier(11, hour(1), m)
			old.Current, skipped.Standing = false, index.RollupSkipped
			s.Rollups = []index.Rollup{old, skipped}
		}, "roll 00+2h0m0s:0s #1 #2"},
		"P3: rows of longer windows are read for each hour that they have": {m5, []int{3}, func(s *State, _ *Policy) {
			s.Segments = append(s.Segments, rows(9, -1))
		}, "roll 03+1h0m0s:0s #4 #9"},
		"P3: a tier without the sketches is no source of one with them": {h, []int{0}, func(s *State, p *Policy) {
			s.Rollups, p.Unusable = []index.Rollup{tier(10, hour(0), m)}, []time.Duration{m}
		}, "roll 00+1h0m0s:0s #1"},
		"P2: current": {m5, []int{0}, func(s *State, _ *Policy) { s.Rollups = []index.Rollup{tier(10, day(), m5)} }, "none remove #10"},
		"P2: current, whoever asks": {m5, []int{0}, func(s *State, _ *Policy) {
			s.Rollups, s.Asked = []index.Rollup{tier(10, day(), m5)}, true
		}, "none remove #10"},
		"P6: what has changed replaces what was there": {m5, []int{0}, func(s *State, _ *Policy) {
			old := tier(10, day(), m5)
			old.Current = false
			old.Segments = append(old.Segments, lake.Segment{ID: 11})
			s.Rollups = []index.Rollup{old}
		}, "roll 00+1h0m0s:0s #1 remove #10 #11"},
		"P4: the window is not over for long enough": {m5, []int{0}, func(s *State, _ *Policy) { s.At = day().End().Add(59 * time.Minute) }, "wait again 02T01:00:00"},
		"P4: that does not hold for those who ask":   {m5, []int{0}, func(s *State, _ *Policy) { s.At, s.Asked = day().End(), true }, "roll 00+1h0m0s:0s #1"},
		"P4: it has just changed":                    {m5, []int{0}, func(s *State, _ *Policy) { s.Segments[0].CreatedAt = s.At.Add(-50 * time.Second) }, "wait again 04T00:00:10"},
		"P4: it changes all the time": {m5, []int{0, 1}, func(s *State, _ *Policy) {
			s.Segments[0].CreatedAt, s.Segments[1].CreatedAt = s.At.Add(-50*time.Second), s.At.Add(-10*time.Minute)
		}, "roll 00+2h0m0s:0s #1 #2"},
		"P4: what was made before is made again at once": {m5, []int{0}, func(s *State, _ *Policy) {
			old := tier(10, day(), m5)
			old.Current, s.At = false, day().End().Add(2*time.Hour+time.Minute)
			s.Rollups = []index.Rollup{old}
		}, "roll 00+1h0m0s:0s #1 remove #10"},
		"P7: too many segments of rows": {m5, []int{0, 1, 2}, func(_ *State, p *Policy) { p.MaxInputs = 2 }, "wait again 04T00:01:00"},
		"a tier that nobody wants":      {m5, []int{0}, func(_ *State, p *Policy) { p.Tier = nil }, "none"},
		"a tier that somebody asks for": {m5, []int{0}, func(s *State, p *Policy) { p.Tier, s.Asked = nil, true }, "roll 00+1h0m0s:0s #1"},
		"no rows":                       {m5, nil, nil, "none"},
		"P5: rows are gone":             {m5, []int{0, 1}, func(s *State, _ *Policy) { s.Expired = true }, "refuse"},
		"P5: rows are gone, and one finer rollup has them all": {h, []int{0, 1}, func(s *State, _ *Policy) {
			s.Expired = true
			s.Rollups = []index.Rollup{tier(10, hour(0), m), tier(11, hour(1), m), tier(12, hour(0), 10*time.Second)}
		}, "roll 00+1h0m0s:1m0s #10 01+1h0m0s:1m0s #11"},
		"P5: rows are gone, and no one finer rollup has them all": {h, []int{0, 1}, func(s *State, _ *Policy) {
			s.Expired = true
			s.Rollups = []index.Rollup{tier(10, hour(0), m), tier(11, hour(1), 10*time.Second)}
		}, "refuse"},
		"P5: rows are gone, so sketches that are missing do not matter": {h, []int{0}, func(s *State, p *Policy) {
			s.Expired, p.Unusable = true, []time.Duration{m}
			s.Rollups = []index.Rollup{tier(10, hour(0), m)}
		}, "roll 00+1h0m0s:1m0s #10"},
		"P8: deleted, and its rows are there": {m5, []int{0}, func(s *State, p *Policy) { s.deleted(tier(10, day(), m5)); p.Tier = nil }, "roll 00+1h0m0s:0s #1 remove #10"},
		"P8: deleted, and its rows are gone": {m5, []int{0}, func(s *State, p *Policy) {
			s.deleted(tier(10, day(), m5))
			s.Expired, p.Tier = true, nil
		}, "erase remove #10"},
		"P8: deleted, and a finer one has its rows": {m5, []int{0}, func(s *State, _ *Policy) {
			s.deleted(tier(10, day(), m5))
			s.Expired, s.Rollups = true, append(s.Rollups, tier(11, hour(0), m))
		}, "roll 00+1h0m0s:1m0s #11 remove #10"},
		"P8: deleted, and so is a finer one": {m5, []int{0}, func(s *State, _ *Policy) {
			s.deleted(tier(10, day(), m5), tier(11, hour(0), m))
			s.Expired = true
		}, "wait remove #10 again 04T00:01:00"},
		"P8: deleted, and lacks rows as well": {m5, []int{0}, func(s *State, _ *Policy) {
			s.deleted(tier(10, day(), m5))
			s.Expired, s.Rollups[0].Held = true, false
		}, "drop remove #10"},
		"a rollup that retention has removed": {m5, []int{0}, func(s *State, _ *Policy) {
			gone := tier(10, day(), m5)
			gone.Standing, gone.Current, gone.Segments = index.RollupExpired, false, nil
			s.Rollups = []index.Rollup{gone}
		}, "none"},
		"a rollup that was dropped for a delete": {m5, []int{0}, func(s *State, _ *Policy) {
			gone := tier(10, day(), m5)
			gone.Standing, gone.Current, gone.Segments = index.RollupDropped, false, nil
			s.Rollups = []index.Rollup{gone}
		}, "roll 00+1h0m0s:0s #1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := state(c.resolution, c.hours...), policy(c.resolution)
			if c.change != nil {
				c.change(&s, &p)
			}
			got := Make(s, p)
			if text(got) != c.want {
				t.Errorf("got  %s (%s)\nwant %s", text(got), got.Reason, c.want)
			}
			if got.Reason == "" || (got.Action == Wait) != !got.Again.IsZero() {
				t.Errorf("%+v", got)
			}
			if diff := cmp.Diff(got, Make(s, p)); diff != "" {
				t.Errorf("P1: another plan of the same state: %s", diff)
			}
		})
	}
}

func TestTheNextCoarserRollupFollows(t *testing.T) {
	t.Parallel()
	s, p := state(time.Minute, 3), policy(time.Minute)
	s.Version.Window = hour(3)
	s.At = hour(3).End().Add(2 * time.Hour)
	p.Coarser = []config.RollupPolicy{{Resolution: 5 * time.Minute, After: time.Hour}, {Resolution: time.Hour, After: 2 * time.Hour}}
	got := Make(s, p).Next
	want := []lake.Task{
		{Kind: lake.TaskRollup, Signal: lake.SignalMetrics, Window: day(), Tier: 300, Delay: 19 * time.Hour},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTiersAreSkippedOnlyWhereRowsStay(t *testing.T) {
	t.Parallel()
	const d = 24 * time.Hour
	for _, c := range []struct {
		raw, tier time.Duration
		may       bool
	}{{0, 0, true}, {0, d, true}, {30 * d, 30 * d, true}, {30 * d, 40 * d, false}, {30 * d, 0, false}} {
		p := policy(time.Minute)
		p.RawKeep, p.TierKeep = c.raw, c.tier
		if got := Make(state(time.Minute, 0), p).MaySkip; got != c.may {
			t.Errorf("rows for %s, rollups for %s: got %t", c.raw, c.tier, got)
		}
	}
	s := state(time.Hour, 0, 1)
	s.Rollups = []index.Rollup{tier(10, hour(0), time.Minute)}
	if Make(s, policy(time.Hour)).MaySkip {
		t.Error("a tier of which a part was worth while")
	}
}

func TestLinesWaitForCompaction(t *testing.T) {
	t.Parallel()
	logs := func(change func(*State)) Plan {
		s := state(time.Minute, 0)
		s.Version.Signal, s.Asked = lake.SignalLogs, true
		s.Segments = append(s.Segments, s.Segments[0])
		for i := range s.Segments {
			s.Segments[i].Signal, s.Segments[i].ID, s.Segments[i].Lease = lake.SignalLogs, lake.SegmentID(i+1), lake.LeaseID(fmt.Sprint(i))
		}
		change(&s)
		return Make(s, policy(time.Minute))
	}
	identified := func(s *State) {
		for i := range s.Segments {
			s.Segments[i].Identified = true
		}
	}
	deleted := func(d lake.Delete) func(s *State) {
		return func(s *State) { s.Deletes = []lake.Delete{d} }
	}
	d := lake.Delete{ID: 3, Signal: lake.SignalLogs, Start: hour(0).Start.Add(time.Minute), End: hour(0).End()}
	elsewhere := d
	elsewhere.Start, elsewhere.End = hour(1).Start, hour(2).Start
	for name, c := range map[string]struct {
		change func(*State)
		want   Action
	}{
		"nothing is hidden":                {func(*State) {}, Roll},
		"doubles may be":                   {identified, Wait},
		"one lease has no doubles":         {func(s *State) { identified(s); s.Segments[1].Lease = s.Segments[0].Lease }, Roll},
		"a delete may reach rows":          {deleted(d), Wait},
		"a delete reaches another hour":    {deleted(elsewhere), Roll},
		"a delete that is applied already": {func(s *State) { deleted(d)(s); s.Segments[0].AppliedDelete, s.Segments[1].AppliedDelete = 3, 4 }, Roll},
	} {
		if got := logs(c.change); got.Action != c.want {
			t.Errorf("%s: got %s (%s)", name, got.Action, got.Reason)
		}
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	of := func(counts ...uint32) []Source {
		var s Source
		for _, c := range counts {
			s.Segments = append(s.Segments, lake.Segment{Shard: lake.Shard{Count: c}})
		}
		return []Source{s}
	}
	var got []uint32
	for _, c := range []struct {
		sources []Source
		bytes   int64
	}{{of(0), 1000}, {of(4, 8, 0), 1000}, {of(4, 8), 390}, {of(8), 50}, {nil, 1}} {
		got = append(got, Shards(c.sources, c.bytes, 100))
	}
	if want := []uint32{1, 8, 4, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
