// SPDX-License-Identifier: AGPL-3.0-only

// Package plan decides what is to be done about the rollup of one window at one resolution: make it, and of what; wait; or refuse.
//
// It is pure. Invariants, each the name of a test:
//
//   - P1. The same state and policy give the same plan.
//   - P2. What is current is not made again; what has changed since is, whoever asks.
//   - P3. Sources cover every hour of the window that has rows, each once: by the coarsest finer rollup that is current, else by the rows themselves.
//   - P4. A rollup is made when its window is over for as long as the policy says; one that was made before is made again as soon as its window has settled.
//   - P5. Hours that retention has removed rows of are never taken for hours without rows: without a finer rollup of all hours the rollup is refused.
//   - P6. Making a rollup removes every earlier segment of its window and resolution.
//   - P7. What is put off has a time at which the window is looked at again.
//   - P8. What deletes of data chose leaves every rollup that has files, configured or not. Where the rows are gone, and no finer rollup has them, it is made of
//     what is left of itself; one that nobody answers, since it lacks more than deletes, goes.
package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/config"
	"github.com/lakerunner/lakerunner/pkg/index"
	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Action is what is to be done.
type Action string

// The actions.
const (
	None   Action = "none"   // nothing: it is current, or there are no rows
	Roll   Action = "roll"   // make it
	Wait   Action = "wait"   // nothing yet
	Refuse Action = "refuse" // the rows that it would be made of are gone
	Erase  Action = "erase"  // make it of itself, without what deletes chose
	Drop   Action = "drop"   // remove it: a delete reaches it, and there is nothing to make it of
)

// State is what one snapshot of the index says of a window, and which of its rollups it is about.
type State struct {
	Resolution time.Duration
	index.RollupState
	// Asked says that somebody asked for it: whether or not it is due, or configured.
	Asked bool
}

// Policy is what an organization has of a tier.
type Policy struct {
	// Tier is nil where the organization has none of the resolution.
	Tier *config.RollupPolicy
	// Coarser are the tiers that can be made of this one, finest first.
	Coarser []config.RollupPolicy
	// RawKeep is how long rows are kept; zero: for ever. TierKeep likewise of this tier.
	RawKeep, TierKeep time.Duration
	// Unusable are finer tiers that this one cannot be made of, since they lack sketches that it has.
	Unusable []time.Duration
	// Settle is how long after its last change a window is rolled up again. MaxInputs is how many segments of rows may be read.
	Settle    time.Duration
	MaxInputs int
}

// Source is a stretch of the window, and the finer rollup it is made of.
type Source struct {
	Window     lake.Window
	Resolution time.Duration // zero: the rows themselves
	Segments   []lake.Segment
}

// Plan is what is to be done.
type Plan struct {
	Action Action
	Reason string
	// Again is when the window is to be looked at again. Zero: when its rows change.
	Again time.Time
	// Sources are in the order of time. Segments of rows may be in several of them.
	Sources []Source
	// Remove are the earlier segments of this window and resolution.
	Remove []lake.Segment
	// MaySkip says that there need be no such tier where the rows are no finer than it.
	MaySkip bool
	// Held says that what there is lacks nothing but deletes: it will do as it is, if these have nothing to change in it.
	Held bool
	// Next is the coarser rollup to be looked at afterwards, if there is one.
	Next []lake.Task
}

// Make makes the plan.
func Make(s State, p Policy) Plan {
	m := maker{State: s, Policy: p}
	own, known := m.own()
	m.plan = Plan{Remove: own.Segments, Held: own.Held && !own.Current && len(own.Segments) > 0, Next: m.next()}
	m.decide(own, known)
	return m.plan
}

type maker struct {
	State
	Policy
	plan Plan
}

func (m *maker) decide(own index.Rollup, known bool) {
	switch {
	case known && own.Current:
		m.is(None, "it is current")
	case known && own.Standing == index.RollupExpired:
		m.is(None, "it is beyond its retention")
	case m.Tier == nil && !m.Asked && !m.reached(own):
		m.is(None, "the organization has no such rollup")
	case len(m.Hours) == 0:
		m.is(None, "the window has no rows")
	case m.Expired && m.whole() == 0 && m.reached(own):
		m.erase(own)
	case m.Expired && m.whole() == 0:
		m.is(Refuse, "rows of the window are beyond their retention, and no finer rollup has them all")
	case m.Version.Signal == lake.SignalLogs && m.hidden() != "":
		m.is(Wait, "%s", m.hidden())
		m.plan.Again = m.At.Add(max(m.Settle, time.Minute))
	case m.waits(known):
	default:
		m.roll(known)
	}
}

func (m *maker) is(a Action, format string, args ...any) {
	m.plan.Action, m.plan.Reason = a, fmt.Sprintf(format, args...)
}

func (m *maker) window() lake.Window { return m.Version.Window }

// own is the rollup that there is.
func (m *maker) own() (index.Rollup, bool) {
	for _, r := range m.Rollups {
		if r.Resolution == m.Resolution && r.Window == m.window() {
			return r, true
		}
	}
	return index.Rollup{}, false
}

// reached reports whether a delete may have chosen what is in the files of a rollup.
func (m *maker) reached(r index.Rollup) bool {
	return slices.ContainsFunc(r.Segments, func(s lake.Segment) bool {
		return slices.ContainsFunc(m.Deletes, func(d lake.Delete) bool { return masks(d, s) })
	})
}

// erase decides about a rollup that holds what deletes chose, and which nothing else has the rows of.
func (m *maker) erase(own index.Rollup) {
	finer := func(r index.Rollup) bool { return r.Resolution < m.Resolution && r.Held && m.reached(r) }
	switch {
	case slices.ContainsFunc(m.Rollups, finer):
		// Of that one less is lost, and this one may be made of what is left.
		m.is(Wait, "deleted rows leave finer rollups first")
		m.plan.Again = m.At.Add(max(m.Settle, time.Second))
	case own.Held:
		m.is(Erase, "the rows are beyond their retention: what deletes chose is left out of the rollup that there is")
	default:
		m.is(Drop, "rows of it were deleted, and there is nothing to make it anew of")
	}
}

// usable reports whether this rollup can be made of a finer one.
func (m *maker) usable(r index.Rollup) bool {
	return r.Current && r.Standing == index.RollupRolled && r.Resolution < m.Resolution && m.Resolution%r.Resolution == 0
}

// finer is the coarsest current rollup that is finer than this one and covers an hour; of one resolution alone, if that is not zero.
func (m *maker) finer(hour lake.Window, only time.Duration) (index.Rollup, bool) {
	var best index.Rollup
	for _, r := range m.Rollups {
		wanted := only == r.Resolution || only == 0 && !slices.Contains(m.Unusable, r.Resolution)
		if wanted && m.usable(r) && r.Resolution > best.Resolution && covers(r.Window, hour) {
			best = r
		}
	}
	return best, best.Resolution > 0
}

// whole is the coarsest finer resolution that covers all hours; zero: there is none. Where rows are gone, it is taken even without sketches.
func (m *maker) whole() time.Duration {
	for _, resolution := range slices.Backward(config.Tiers()) {
		lacks := func(hour lake.Window) bool { _, covered := m.finer(hour, resolution); return !covered }
		if resolution < m.Resolution && !slices.ContainsFunc(m.Hours, lacks) {
			return resolution
		}
	}
	return 0
}

func covers(w, hour lake.Window) bool {
	return !w.Start.After(hour.Start) && !w.End().Before(hour.End())
}

// rows are the segments of rows that overlap a stretch of time.
func (m *maker) rows(stretch lake.Window) []lake.Segment {
	var out []lake.Segment
	for _, s := range m.Segments {
		if s.Window.Start.Before(stretch.End()) && stretch.Start.Before(s.Window.End()) {
			out = append(out, s)
		}
	}
	return out
}

// hidden says why lines cannot be counted yet. Which of them deletes choose, and which are doubles of one another, is found out by compaction.
func (m *maker) hidden() string {
	leases := map[lake.Window]lake.LeaseID{}
	for _, source := range m.sources() {
		for _, s := range source.Segments {
			if source.Resolution > 0 {
				continue
			}
			if slices.ContainsFunc(m.Deletes, func(d lake.Delete) bool { return masks(d, s) }) {
				return "compaction is to take out the rows of deletes first"
			}
			if !s.Identified {
				continue
			}
			for hour := lake.WindowOf(s.Window.Start, time.Hour); hour.Start.Before(s.Window.End()); hour.Start = hour.End() {
				if other, known := leases[hour]; known && other != s.Lease {
					return "compaction is to take out doubles first"
				}
				leases[hour] = s.Lease
			}
		}
	}
	return ""
}

func masks(d lake.Delete, s lake.Segment) bool {
	return d.ID > s.AppliedDelete && d.Signal == s.Signal && d.Start.Before(s.Window.End()) && s.Window.Start.Before(d.End)
}

// waits decides whether it is too early.
func (m *maker) waits(known bool) bool {
	if m.Asked || m.Tier == nil {
		return false
	}
	if due := m.window().End().Add(m.Tier.After); !known && m.At.Before(due) {
		m.is(Wait, "the window is rolled up %s after its end", m.Tier.After)
		m.plan.Again = due
		return true
	}
	if settled := m.changed().Add(m.Settle); m.At.Before(settled) && m.At.Before(m.patience()) {
		m.is(Wait, "the window has just changed")
		m.plan.Again = settled
		return true
	}
	if n := m.inputs(); n > m.MaxInputs && m.MaxInputs > 0 {
		m.is(Wait, "%d segments of rows are to be compacted first", n)
		m.plan.Again = m.At.Add(max(m.Settle, time.Minute))
		return true
	}
	return false
}

// changed is when the window's newest segment of rows came.
func (m *maker) changed() time.Time {
	var last time.Time
	for _, s := range m.Segments {
		if s.Level == 0 && s.CreatedAt.After(last) {
			last = s.CreatedAt
		}
	}
	return last
}

// patience is how long a window that never settles is waited for: ten times that long after its first fresh segment.
func (m *maker) patience() time.Time {
	var first time.Time
	for _, s := range m.Segments {
		if s.Level == 0 && (first.IsZero() || s.CreatedAt.Before(first)) {
			first = s.CreatedAt
		}
	}
	return first.Add(10 * m.Settle)
}

// inputs counts the segments of rows that would be read.
func (m *maker) inputs() int {
	seen := map[lake.SegmentID]bool{}
	for _, source := range m.sources() {
		if source.Resolution == 0 {
			for _, s := range source.Segments {
				seen[s.ID] = true
			}
		}
	}
	return len(seen)
}

func (m *maker) roll(known bool) {
	m.plan.Sources = m.sources()
	outlived := m.RawKeep > 0 && (m.TierKeep == 0 || m.TierKeep > m.RawKeep)
	ofRows := !slices.ContainsFunc(m.plan.Sources, func(s Source) bool { return s.Resolution > 0 })
	m.plan.MaySkip = !m.Asked && m.Version.Signal == lake.SignalMetrics && !outlived && ofRows
	if known {
		m.is(Roll, "the window has changed since it was rolled up")
		return
	}
	m.is(Roll, "it was not rolled up")
}

// sources cover the hours that have rows.
func (m *maker) sources() []Source {
	var out []Source
	only := time.Duration(0)
	if m.Expired {
		only = m.whole()
	}
	for _, hour := range m.Hours {
		r, covered := m.finer(hour, only)
		last := len(out) - 1
		switch {
		case covered && last >= 0 && out[last].Resolution == r.Resolution && covers(out[last].Window, hour):
			// An earlier hour has brought it.
		case covered:
			out = append(out, Source{Window: r.Window, Resolution: r.Resolution, Segments: r.Segments})
		case last >= 0 && out[last].Resolution == 0 && out[last].Window.End().Equal(hour.Start):
			out[last].Window.Length += hour.Length
			out[last].Segments = m.rows(out[last].Window)
		default:
			out = append(out, Source{Window: hour, Segments: m.rows(hour)})
		}
	}
	return out
}

// next asks for the coarser rollup that this one is a source of, when that is due; it asks for the one after.
func (m *maker) next() []lake.Task {
	if len(m.Coarser) == 0 {
		return nil
	}
	tier := m.Coarser[0]
	window := lake.WindowOf(m.window().Start, max(config.RollupWindow(tier.Resolution), m.window().Length))
	task := TaskOf("", m.Version.Signal, window, tier.Resolution)
	task.Delay = max(window.End().Add(tier.After).Sub(m.At), m.Settle)
	return []lake.Task{task}
}

// TaskOf is the task of a rollup.
func TaskOf(organization lake.Organization, signal lake.Signal, window lake.Window, resolution time.Duration) lake.Task {
	return lake.Task{Kind: lake.TaskRollup, Organization: organization, Signal: signal, Window: window, Tier: int(resolution / time.Second)}
}

// Shards is how many parts a rollup of so many bytes is written in: a power of two, not more than its sources have.
func Shards(sources []Source, bytes, target int64) uint32 {
	most := uint32(1)
	for _, source := range sources {
		for _, s := range source.Segments {
			most = max(most, s.Shard.Count)
		}
	}
	count := uint32(1)
	for count < most && bytes > target*int64(count) {
		count *= 2
	}
	return count
}
