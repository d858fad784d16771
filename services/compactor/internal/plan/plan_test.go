// SPDX-License-Identifier: AGPL-3.0-only

package plan_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// check holds a plan to the invariants that every plan has.
func check(t *testing.T, s plan.State, p plan.Policy, made plan.Plan) {
	t.Helper()
	if again := plan.Make(s, p); !reflect.DeepEqual(made, again) {
		t.Errorf("I1: the same state gives another plan: %s", cmp.Diff(made, again))
	}
	d := plan.Defaults()
	used := map[lake.SegmentID]bool{}
	total, identified := int64(0), 0
	for i, m := range made.Merges {
		total += m.Bytes()
		if m.Identified() {
			identified++
		}
		if len(m.Inputs) == 0 || len(m.Inputs) > d.FanIn || len(m.Inputs) > 1 && m.Bytes() > d.MergeBytes {
			t.Errorf("I3: a merge of %d segments and %d bytes", len(m.Inputs), m.Bytes())
		}
		if i > 0 && total > d.LeaseBytes {
			t.Errorf("I3: merges of %d bytes at once", total)
		}
		for _, in := range m.Inputs {
			live := slices.ContainsFunc(s.Segments, func(s lake.Segment) bool { return s.ID == in.ID })
			if used[in.ID] || !live {
				t.Errorf("I2: segment %d is live: %t, used: %t", in.ID, live, used[in.ID])
			}
			used[in.ID] = true
			inside := !in.Window.Start.Before(m.Window.Start) && !in.Window.End().After(m.Window.End())
			if in.Bucket != m.Inputs[0].Bucket || !inside {
				t.Errorf("I2: segment %d of bucket %s and window %v in a merge of %s and %v", in.ID, in.Bucket, in.Window, m.Inputs[0].Bucket, m.Window)
			}
			for _, rule := range m.Rules {
				due := slices.ContainsFunc(p.Due(&in, s), func(r plan.Rule) bool { return r.Name == rule })
				if !due && !slices.Contains(in.Rules, rule) {
					t.Errorf("I7: outputs are said to have rule %s, which segment %d has not and is not due for", rule, in.ID)
				}
			}
		}
	}
	if p.Sharded {
		checkShards(t, s, made)
	}
	if identified > 1 {
		t.Errorf("I14: %d merges with row identities in one lease", identified)
	}
	if made.More && made.Again.IsZero() || !made.Again.IsZero() && made.Again.Before(s.Now) {
		t.Errorf("I8: more is to be done, again at %s", made.Again)
	}
}

// checkShards holds a plan of segments of shards to its invariants.
func checkShards(t *testing.T, s plan.State, made plan.Plan) {
	t.Helper()
	for _, m := range made.Merges {
		if m.Target != 0 || m.Shards == 0 || m.Shards > plan.Defaults().MaxShards || m.Shards&(m.Shards-1) != 0 {
			t.Errorf("I15: a merge into %d shards, or of %d bytes each", m.Shards, m.Target)
		}
		for _, in := range m.Inputs {
			if in.Shard.Count > m.Shards {
				t.Errorf("I15: a shard of %d becomes one of %d", in.Shard.Count, m.Shards)
			}
			if in.Resolution > 0 {
				t.Errorf("I17: rollup %d is compacted", in.ID)
			}
		}
	}
}

// TestI1toI3HoldForAnyState plans for windows of random segments.
func TestI1toI3HoldForAnyState(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7))
	start := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for range 200 {
		s := plan.State{Window: lake.WindowOf(start, time.Hour), Latest: 5, Asked: rng.IntN(10) == 0}
		if rng.IntN(3) == 0 {
			s.Window = lake.WindowOf(start, 24*time.Hour)
		}
		s.Now = start.Add(time.Duration(rng.Int64N(int64(60 * time.Hour))))
		s.Deletes = []lake.Delete{{ID: 5, Start: start, End: start.Add(time.Duration(rng.Int64N(int64(2 * time.Hour))))}}
		for id := range rng.IntN(150) {
			s.Segments = append(s.Segments, anySegment(rng, s, id))
		}
		p := plan.Policy{Format: 2, Rules: []plan.Rule{{Name: "hash:a", After: 20 * time.Hour}, {Name: "expire:b", After: 40 * time.Hour, Expires: true}}}
		check(t, s, p, plan.Make(s, p))
		p = plan.Policy{Format: 2, Sharded: true, Rules: p.Rules[1:]}
		for i := range s.Segments {
			of := &s.Segments[i]
			of.Identified, of.Rules, of.Shard = false, nil, lake.Shard{Count: 1 << rng.IntN(4)}
			of.Shard.Index = rng.Uint32N(of.Shard.Count)
			if rng.IntN(20) == 0 {
				of.Resolution = time.Minute
			}
		}
		check(t, s, p, plan.Make(s, p))
	}
}

func anySegment(rng *rand.Rand, s plan.State, id int) lake.Segment {
	window := lake.WindowOf(s.Window.Start.Add(time.Duration(rng.Int64N(int64(s.Window.Length)))), time.Hour)
	if s.Window.Length > time.Hour && rng.IntN(8) == 0 {
		window = s.Window
	}
	made := lake.Segment{
		ID: lake.SegmentID(id + 1), Window: window, Bucket: fmt.Sprint("b", rng.IntN(8)/7), Level: rng.IntN(4), Bytes: 1 << rng.IntN(29),
		FirstTime: window.Start, LastTime: window.End().Add(-1), FormatVersion: 1 + min(1, rng.IntN(9)), AppliedDelete: lake.DeleteID(rng.IntN(2) * 5),
		CreatedAt: s.Now.Add(-time.Duration(rng.Int64N(int64(3 * time.Hour)))), Identified: rng.IntN(3) == 0, Lease: lake.LeaseID(fmt.Sprint(rng.IntN(3))),
	}
	if rng.IntN(4) == 0 {
		made.Rules = []string{"hash:a"}
	}
	if rng.IntN(9) == 0 {
		made.MaskedSources = []lake.ReceiptID{1}
	}
	return made
}

// settled is an hour that was settled long ago, with one segment.
func settled(bytes int64) plan.State {
	w := lake.WindowOf(time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), time.Hour)
	s := plan.State{Window: w, Now: w.End().Add(5 * time.Hour)}
	s.Segments = append(s.Segments, lake.Segment{
		ID: 1, Window: w, Bucket: "b", Level: 2, Bytes: bytes, FormatVersion: 2, CreatedAt: w.End().Add(20 * time.Minute), FirstTime: w.Start, LastTime: w.End().Add(-1),
	})
	return s
}

// late adds a segment of level 0.
func late(s plan.State, bytes int64) plan.State {
	fresh := s.Segments[0]
	fresh.ID, fresh.Level, fresh.Bytes, fresh.CreatedAt = lake.SegmentID(len(s.Segments)+1), 0, bytes, s.Now.Add(-16*time.Minute)
	s.Segments = append(slices.Clone(s.Segments), fresh)
	return s
}

func rewrites(p plan.Plan, id lake.SegmentID) bool {
	return slices.ContainsFunc(p.Merges, func(m plan.Merge) bool {
		return slices.ContainsFunc(m.Inputs, func(s lake.Segment) bool { return s.ID == id })
	})
}

func TestI6LateDataRewritesWhatIsSettledOnlyForAQuarter(t *testing.T) {
	t.Parallel()
	for fresh := int64(1 << 20); fresh <= 40<<20; fresh += 1 << 20 {
		s := late(settled(100<<20), fresh)
		made := plan.Make(s, plan.Policy{Format: 2})
		if want := fresh >= 25<<20; rewrites(made, 1) != want || !rewrites(made, 2) {
			t.Errorf("%d late bytes: the settled segment is rewritten: %t, want %t", fresh, rewrites(made, 1), want)
		}
	}
}

func TestI7HashedValuesAreNotMergedWithOthers(t *testing.T) {
	t.Parallel()
	s := late(settled(1<<20), 1<<20)
	s.Segments[0].Rules = []string{"hash:user"}
	policy := plan.Policy{Format: 2, Rules: []plan.Rule{{Name: "hash:user", After: 10 * time.Hour}}}
	for _, m := range plan.Make(s, policy).Merges {
		if len(m.Inputs) > 1 || len(m.Rules) > 0 {
			t.Errorf("%d segments with rules %v", len(m.Inputs), m.Rules)
		}
	}
	s.Now = s.Now.Add(10 * time.Hour)
	made := plan.Make(s, policy)
	if len(made.Merges) != 1 || len(made.Merges[0].Inputs) != 2 || !slices.Equal(made.Merges[0].Rules, []string{"hash:user"}) {
		t.Errorf("%+v", made)
	}
}

func TestI8WhatIsPutOffIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	s := late(late(settled(1<<20), 1<<20), 1<<20)
	for i := range s.Segments {
		s.Segments[i].CreatedAt = s.Now.Add(-time.Second)
	}
	for range 100 {
		made := plan.Make(s, plan.Policy{Format: 2})
		if len(made.Merges) > 0 {
			return
		}
		if !made.Again.After(s.Now) {
			t.Fatalf("now it is %s, again %s", s.Now, made.Again)
		}
		s.Now = made.Again
	}
	t.Error("it is put off for ever")
}

func TestI9DeletesDoNotWait(t *testing.T) {
	t.Parallel()
	s := late(settled(100<<20), 1<<20)
	s.Now = s.Window.Start.Add(10 * time.Minute) // hot
	for i := range s.Segments {
		s.Segments[i].CreatedAt = s.Now
	}
	s.Deletes, s.Latest = []lake.Delete{{ID: 4, Start: s.Window.Start, End: s.Window.End()}}, 4
	made := plan.Make(s, plan.Policy{Format: 2})
	if !rewrites(made, 1) || !rewrites(made, 2) || made.Merges[0].Reason != plan.ReasonDeletes {
		t.Errorf("%+v", made)
	}
}

// sharded is an hour that was settled long ago, with one segment for each shard.
func sharded(bytes int64, count uint32) plan.State {
	s := settled(bytes)
	one := s.Segments[0]
	s.Segments = nil
	for i := range count {
		one.ID, one.Shard = lake.SegmentID(i+1), lake.Shard{Index: i, Count: count}
		s.Segments = append(s.Segments, one)
	}
	return s
}

func TestI15AWindowThatGrowsHasMoreShardsAndNeverFewer(t *testing.T) {
	t.Parallel()
	policy := plan.Policy{Format: 2, Sharded: true}
	for _, c := range []struct {
		each  int64 // MiB of each of four shards
		fresh int64
		want  uint32
	}{{1, 1, 4}, {20, 25, 4}, {40, 50, 4}, {60, 70, 8}, {60, 600, 16}, {60, 780, 16}} {
		s := late(sharded(c.each<<20, 4), c.fresh<<20)
		s.Segments[4].Shard = lake.Shard{}
		made := plan.Make(s, policy)
		check(t, s, policy, made)
		most := uint32(0)
		for _, m := range made.Merges {
			most = max(most, m.Shards)
		}
		if most != c.want || !rewrites(made, 5) {
			t.Errorf("4 shards of %d MiB and %d more become %d shards, want %d", c.each, c.fresh, most, c.want)
		}
	}
}

func TestI17RollupsAreNotCompacted(t *testing.T) {
	t.Parallel()
	s := late(late(settled(1<<20), 1<<20), 1<<20)
	for i := range s.Segments {
		s.Segments[i].Resolution = time.Minute
	}
	s.Deletes, s.Latest = []lake.Delete{{ID: 4, Start: s.Window.Start, End: s.Window.End()}}, 4
	for _, asked := range []bool{false, true} {
		s.Asked = asked
		if made := plan.Make(s, plan.Policy{Format: 3, Sharded: true}); len(made.Merges) > 0 || !made.Again.IsZero() || made.Reason != "the window is empty" {
			t.Errorf("%+v", made)
		}
	}
}
