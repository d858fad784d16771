// SPDX-License-Identifier: AGPL-3.0-only

package plan_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
	"github.com/lakerunner/lakerunner/services/compactor/internal/plan"
)

// simulation is a day of one signal, whose hours are compacted as its plans say. Merging saves nothing: outputs are as large as inputs.
type simulation struct {
	t        *testing.T
	policy   plan.Policy
	now      time.Time
	segments []lake.Segment
	ids      lake.SegmentID
	// looks are when a window is to be looked at.
	looks map[lake.Window]time.Time
	// ingested and written are bytes of level 0, and of all others.
	ingested, written int64
	plans, merges     int
	// hot is the most segments that an hour had while it was not settled.
	hot int
}

func newSimulation(t *testing.T, policy plan.Policy) *simulation {
	return &simulation{t: t, policy: policy, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), looks: map[lake.Window]time.Time{}}
}

// ingest adds a segment of level 0 to the window of an event time.
func (s *simulation) ingest(at time.Time, bytes int64) {
	w := lake.WindowOf(at, time.Hour)
	s.add(w, 0, bytes, lake.Shard{})
	s.ingested += bytes
	s.look(w, s.now.Add(10*time.Second))
}

func (s *simulation) add(w lake.Window, level int, bytes int64, shard lake.Shard) {
	s.ids++
	s.segments = append(s.segments, lake.Segment{
		Shard: shard,
		ID:    s.ids, Window: w, Level: level, Bytes: bytes, CreatedAt: s.now, FormatVersion: 2, Bucket: "b", FirstTime: w.Start, LastTime: w.End().Add(-1),
	})
}

func (s *simulation) look(w lake.Window, at time.Time) {
	if before, ok := s.looks[w]; !ok || at.Before(before) {
		s.looks[w] = at
	}
}

// step compacts what is due, and lets time pass.
func (s *simulation) step() {
	for w, at := range s.looks {
		if !at.After(s.now) {
			delete(s.looks, w)
			s.compact(w)
		}
	}
	s.now = s.now.Add(10 * time.Second)
}

func (s *simulation) compact(w lake.Window) {
	state := plan.State{Window: w, Now: s.now}
	for _, segment := range s.segments {
		if !segment.Window.Start.Before(w.Start) && !segment.Window.End().After(w.End()) {
			state.Segments = append(state.Segments, segment)
		}
	}
	if w.Length == time.Hour {
		s.hot = max(s.hot, len(state.Segments))
	}
	made := plan.Make(state, s.policy)
	check(s.t, state, s.policy, made)
	s.plans++
	for _, m := range made.Merges {
		s.merge(m)
	}
	if !made.Again.IsZero() {
		s.look(w, made.Again)
	}
	if !made.Day.IsZero() {
		s.look(lake.WindowOf(w.Start, 24*time.Hour), made.Day)
	}
}

func (s *simulation) merge(m plan.Merge) {
	s.merges++
	s.segments = slices.DeleteFunc(s.segments, func(have lake.Segment) bool {
		return slices.ContainsFunc(m.Inputs, func(in lake.Segment) bool { return in.ID == have.ID })
	})
	left := m.Bytes()
	s.written += left
	if m.Shards > 0 {
		s.spread(m)
		return
	}
	outputs := 0
	for left > 0 {
		n := left
		if left > m.Target && left-m.Target >= m.Target/8 {
			n = m.Target
		}
		s.add(m.Window, m.Level, n, lake.Shard{})
		outputs++
		left -= n
	}
	if outputs > len(m.Inputs) {
		s.t.Errorf("I4: %d segments became %d", len(m.Inputs), outputs)
	}
}

// spread gives each shard its part of the inputs.
func (s *simulation) spread(m plan.Merge) {
	for index := range m.Shards {
		shard, bytes := lake.Shard{Index: index, Count: m.Shards}, int64(0)
		for _, in := range m.Inputs {
			if parts := int64(m.Shards / max(1, in.Shard.Count)); in.Shard.Meets(shard) {
				bytes += in.Bytes / parts
				if int64(index/max(1, in.Shard.Count)) < in.Bytes%parts {
					bytes++
				}
			}
		}
		if bytes > 0 {
			s.add(m.Window, m.Level, bytes, shard)
		}
	}
}

// amplification is how many bytes compaction wrote for each that ingest did.
func (s *simulation) amplification() float64 { return float64(s.written) / float64(s.ingested) }

func (s *simulation) until(at time.Time, each func()) {
	for s.now.Before(at) {
		each()
		s.step()
	}
}

// TestI4WriteAmplificationIsBounded simulates days of several kinds. Compaction writes each byte at most about three times, settled hours have few
// segments, and in the end nothing is left to do.
func TestI4WriteAmplificationIsBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hours    int
		load     func(s *simulation, rng *rand.Rand)
		most     float64 // write amplification
		hot, end int     // segments of an hour while it is hot, and of the day in the end
	}{
		"a trickle of 5 kB every ten seconds": {24, func(s *simulation, _ *rand.Rand) { s.ingest(s.now, 5_000) }, 3.0, 60, 1},
		"2 MB every ten seconds":              {6, func(s *simulation, _ *rand.Rand) { s.ingest(s.now, 2_000_000) }, 3.0, 60, 6 * 12},
		"30 MB every ten seconds": {3, func(s *simulation, _ *rand.Rand) {
			s.ingest(s.now, 15_000_000)
			s.ingest(s.now, 15_000_000)
		}, 2.1, 120, 3 * 100},
		"bursts every ten minutes": {12, func(s *simulation, rng *rand.Rand) {
			if s.now.Minute()%10 == 0 && s.now.Second() == 0 {
				for range 30 {
					s.ingest(s.now, 1_000_000+rng.Int64N(5_000_000))
				}
			}
		}, 3.0, 60, 12 * 12},
		"a twentieth comes up to six hours late": {24, func(s *simulation, rng *rand.Rand) {
			at := s.now
			if rng.IntN(20) == 0 {
				at = at.Add(-time.Duration(rng.Int64N(int64(6 * time.Hour))))
			}
			s.ingest(at, 300_000)
		}, 3.3, 60, 24 * 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, rng := newSimulation(t, plan.Policy{Format: 2}), rand.New(rand.NewPCG(1, 2))
			start := s.now
			s.until(start.Add(time.Duration(c.hours)*time.Hour), func() { c.load(s, rng) })
			s.until(start.Add(96*time.Hour), func() {})
			t.Logf("write amplification %.2f, %d plans, %d merges, up to %d segments of an hour, %d in the end of %d MB",
				s.amplification(), s.plans, s.merges, s.hot, len(s.segments), s.ingested/1e6)
			if s.amplification() > c.most {
				t.Errorf("write amplification %.2f, want %.2f at most", s.amplification(), c.most)
			}
			if s.hot > c.hot || len(s.segments) > c.end {
				t.Errorf("%d segments of a hot hour, %d in the end, want %d and %d at most", s.hot, len(s.segments), c.hot, c.end)
			}
			s.isSettled()
		})
	}
}

// isSettled wants nothing to be left to do, nor anything to be lost.
func (s *simulation) isSettled() {
	s.t.Helper()
	if len(s.looks) > 0 {
		s.t.Errorf("I5: there are still looks to be had: %v", s.looks)
	}
	total := int64(0)
	for _, segment := range s.segments {
		total += segment.Bytes
		if segment.Level == 0 {
			s.t.Errorf("I5: a settled window has a segment of level 0")
		}
	}
	if total != s.ingested {
		s.t.Errorf("%d bytes of %d are left", total, s.ingested)
	}
}

// TestI16SettledWindowsHaveOneSegmentOfEachShard simulates days of segments of shards.
func TestI16SettledWindowsHaveOneSegmentOfEachShard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hours    int
		load     func(s *simulation, rng *rand.Rand)
		most     float64 // write amplification
		hot, end int     // segments of an hour while it is hot, and of the day in the end
		late     int     // segments of a window beside those of its shards
	}{
		"a trickle of 5 kB every ten seconds": {8, func(s *simulation, _ *rand.Rand) { s.ingest(s.now, 5_000) }, 3.0, 60, 1, 0},
		"200 kB every ten seconds":            {6, func(s *simulation, _ *rand.Rand) { s.ingest(s.now, 200_000) }, 2.1, 60, 6 * 2, 0},
		"2 MB every ten seconds":              {6, func(s *simulation, _ *rand.Rand) { s.ingest(s.now, 2_000_000) }, 2.1, 60, 6 * 16, 0},
		"30 MB every ten seconds": {3, func(s *simulation, _ *rand.Rand) {
			s.ingest(s.now, 15_000_000)
			s.ingest(s.now, 15_000_000)
		}, 3.1, 300, 3 * 64, 0},
		"a backlog of many little ones": {1, func(s *simulation, _ *rand.Rand) {
			for range 20 {
				s.ingest(s.now.Add(-48*time.Hour), 20_000)
			}
		}, 3.5, 2000, 48, 0},
		"a twentieth comes up to six hours late": {12, func(s *simulation, rng *rand.Rand) {
			at := s.now
			if rng.IntN(20) == 0 {
				at = at.Add(-time.Duration(rng.Int64N(int64(6 * time.Hour))))
			}
			s.ingest(at, 300_000)
		}, 3.3, 60, 12 * 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, rng := newSimulation(t, plan.Policy{Format: 2, Sharded: true}), rand.New(rand.NewPCG(1, 2))
			start := s.now
			s.until(start.Add(time.Duration(c.hours)*time.Hour), func() { c.load(s, rng) })
			s.until(start.Add(96*time.Hour), func() {})
			t.Logf("write amplification %.2f, %d plans, %d merges, up to %d segments of an hour, %d in the end of %d MB",
				s.amplification(), s.plans, s.merges, s.hot, len(s.segments), s.ingested/1e6)
			if s.amplification() > c.most {
				t.Errorf("write amplification %.2f, want %.2f at most", s.amplification(), c.most)
			}
			if s.hot > c.hot || len(s.segments) > c.end {
				t.Errorf("%d segments of a hot hour, %d in the end, want %d and %d at most", s.hot, len(s.segments), c.hot, c.end)
			}
			s.isSettled()
			s.isSharded(c.late)
		})
	}
}

// isSharded wants a window to have one segment of each shard, of no more bytes than a shard is to have, and some late ones at most.
func (s *simulation) isSharded(late int) {
	s.t.Helper()
	type shard struct {
		lake.Window
		lake.Shard
	}
	most := map[lake.Window]uint32{}
	beside := map[lake.Window]int{}
	for _, segment := range s.segments {
		most[segment.Window] = max(most[segment.Window], segment.Shard.Count)
	}
	seen := map[shard]bool{}
	for _, segment := range s.segments {
		of := shard{segment.Window, segment.Shard}
		if seen[of] || segment.Shard.Count < most[segment.Window] {
			beside[segment.Window]++
		}
		seen[of] = true
		if d := plan.Defaults(); segment.Shard.Count < d.MaxShards && segment.Bytes > d.Shard {
			s.t.Errorf("a segment of %d bytes is one of %d shards", segment.Bytes, segment.Shard.Count)
		}
	}
	for window, n := range beside {
		if n > late {
			s.t.Errorf("%v has %d segments beside those of its shards", window, n)
		}
	}
}
