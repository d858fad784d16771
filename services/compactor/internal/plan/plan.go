// SPDX-License-Identifier: AGPL-3.0-only

// Package plan decides what compaction does to a window. It is pure: the same state, policy and time give the same plan.
//
// A window is hot until Policy.Settle after its end, and again while late data keeps coming; else it is settled. Levels: 0 is what ingest
// writes, 1 was merged while its window was hot, 2 was settled, 3 is of a day. Segments of logs are cut by size; those of metrics are of shards, of which
// a window has more when it holds more (Policy.Sharded). The invariants are in the service's README, and each is the name of a test.
//
// It does not read segments: whether a delete or a rule finds anything in one is for others to look up (Merge.Doubtful).
package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Policy says how windows are compacted. Zero sizes and times are those of Defaults.
type Policy struct {
	// FreshSegments and FreshBytes of level 0 are enough to be merged while a window is hot; two are, once the oldest is FreshWait old.
	FreshSegments int
	FreshBytes    int64
	FreshWait     time.Duration
	// Settle is how long after a window's end, or after its last late segment, it is settled.
	Settle time.Duration
	// Target is the size aimed at. A segment of Least or more is not merged for its size, and a merge of up to Most makes one segment.
	Target, Least, Most int64
	// DaySettle is how long after a day's end its hours may become one window.
	DaySettle time.Duration
	// Leftover is how old what is too small for a rewrite of its window becomes before it gets one.
	Leftover time.Duration
	// FanIn and MergeBytes bound the inputs of one merge, LeaseBytes those of a plan's merges.
	FanIn                  int
	MergeBytes, LeaseBytes int64
	// Sharded says that outputs are of shards, and not cut by size: a settled window has one segment for each. Of row identities nothing is known then:
	// all rows have them.
	Sharded bool
	// Shard is what one is to have at most in a settled window, and MaxShards how many of them there are at most: a power of two.
	Shard     int64
	MaxShards uint32
	// Rules change or drop rows of windows that are old enough.
	Rules []Rule
	// Format is the version that segments are to have. Older ones are rewritten when they are settled.
	Format int
}

// Rule is something that is to be done, once, to the segments of every window that is old enough. A segment remembers it by its name.
type Rule struct {
	Name  string
	After time.Duration // from the window's end
	// Expires says that rows leave by it; else it changes fields.
	Expires bool
}

// Defaults returns the policy of an organization that has none of its own.
func Defaults() Policy {
	return Policy{
		FreshSegments: 16, FreshBytes: 32 << 20, FreshWait: 90 * time.Second, Settle: 15 * time.Minute,
		Target: 128 << 20, Least: 64 << 20, Most: 256 << 20,
		DaySettle: time.Hour, Leftover: 24 * time.Hour, FanIn: 64, MergeBytes: 1 << 30, LeaseBytes: 2 << 30, Shard: 64 << 20, MaxShards: 64,
	}
}

// State is what one snapshot of the index says of a window.
type State struct {
	Window lake.Window
	// Segments are live, and their windows lie in Window. Rollups among them are not looked at.
	Segments []lake.Segment
	// Deletes of data that overlap the window; Latest is the highest number there is.
	Deletes []lake.Delete
	Latest  lake.DeleteID
	// Now is the database's time of the snapshot.
	Now time.Time
	// Asked says that somebody wants it compacted, due or not.
	Asked bool
}

// Reason is why a merge is done.
type Reason string

// The reasons, in the order in which merges are done.
const (
	ReasonDeletes Reason = "deletes" // a delete of data may have rows in it
	ReasonExpired Reason = "expired" // rows may be past their retention
	ReasonRules   Reason = "rules"   // a field rule is due
	ReasonMasked  Reason = "masked"  // it has rows of superseded objects
	ReasonLevel0  Reason = "level0"  // there is enough fresh data
	ReasonSmall   Reason = "small"   // there are enough small segments
	ReasonSettled Reason = "settled" // the window is over
	ReasonFormat  Reason = "format"  // it has an older format
	ReasonAsked   Reason = "asked"   // somebody asked
)

// Must reports whether a segment is rewritten for the reason even alone.
func (r Reason) Must() bool {
	return r == ReasonDeletes || r == ReasonExpired || r == ReasonRules || r == ReasonMasked || r == ReasonFormat
}

func order() []Reason {
	return []Reason{
		ReasonDeletes, ReasonExpired, ReasonRules, ReasonMasked, ReasonLevel0, ReasonSmall, ReasonSettled, ReasonFormat, ReasonAsked,
	}
}

// Merge is one rewriting of segments.
type Merge struct {
	Inputs []lake.Segment
	Window lake.Window
	Level  int
	Reason Reason
	// Target is where an output ends; see segfile.MergeOptions. Zero: of Shards.
	Target int64
	// Shards is how many shards the outputs are of; zero: they are not of shards. Inputs that are of shards themselves, of the same or fewer, have only
	// rows of some of them.
	Shards uint32
	// Doubtful says that there is nothing to do if neither the input's Deletes nor its Rules find anything in it: a mark will do.
	Doubtful bool
	// Rules are those of the outputs, sorted.
	Rules []string
}

// Bytes are those of the inputs.
func (m *Merge) Bytes() int64 { return bytesOf(m.Inputs) }

// Identified reports whether rows of the inputs have identities.
func (m *Merge) Identified() bool {
	return slices.ContainsFunc(m.Inputs, func(s lake.Segment) bool { return s.Identified })
}

// Plan is what is to be done to a window.
type Plan struct {
	// Merges have no input in common, and are in the order in which they are to be done.
	Merges []Merge
	// More says that merges are left for the next time: there are too many bytes, or several with row identities.
	More bool
	// Again is when the window is to be looked at if nothing changes. Zero: not at all.
	Again time.Time
	// Day is when the day of an hour is to be looked at. Zero: not for this hour's sake.
	Day time.Time
	// Reason says in a sentence why it is so.
	Reason string
}

// Make plans.
func Make(s State, p Policy) Plan {
	w := planner{state: s, policy: p.orDefaults()}
	w.state.Segments = slices.DeleteFunc(slices.Clone(s.Segments), func(s lake.Segment) bool { return s.Resolution > 0 })
	for _, part := range w.parts() {
		w.part(part)
	}
	return w.finish()
}

func (p Policy) orDefaults() Policy {
	d := Defaults()
	p.FreshSegments = cmp.Or(p.FreshSegments, d.FreshSegments)
	p.FreshBytes = cmp.Or(p.FreshBytes, d.FreshBytes)
	p.FreshWait = cmp.Or(p.FreshWait, d.FreshWait)
	p.Settle = cmp.Or(p.Settle, d.Settle)
	p.Target = cmp.Or(p.Target, d.Target)
	p.Least = cmp.Or(p.Least, p.Target/2)
	p.Most = cmp.Or(p.Most, 2*p.Target)
	p.DaySettle = cmp.Or(p.DaySettle, d.DaySettle)
	p.Leftover = cmp.Or(p.Leftover, d.Leftover)
	p.FanIn = cmp.Or(p.FanIn, d.FanIn)
	p.MergeBytes = cmp.Or(p.MergeBytes, d.MergeBytes)
	p.LeaseBytes = cmp.Or(p.LeaseBytes, d.LeaseBytes)
	p.Shard = cmp.Or(p.Shard, d.Shard)
	p.MaxShards = cmp.Or(p.MaxShards, d.MaxShards)
	return p
}

type planner struct {
	state  State
	policy Policy
	plan   Plan
	// notes are what the reason is made of.
	notes []string
}

// day reports whether the window is one of a day.
func (w *planner) day() bool { return w.state.Window.Length > time.Hour }

// parts are segments that may be merged with each other: of one bucket, and with the same rules that are not to be applied twice.
func (w *planner) parts() [][]lake.Segment {
	byKey := map[string][]lake.Segment{}
	var keys []string
	for _, s := range w.state.Segments {
		key := fmt.Sprintf("%s %q", s.Bucket, w.once(&s))
		if byKey[key] == nil {
			keys = append(keys, key)
		}
		byKey[key] = append(byKey[key], s)
	}
	slices.Sort(keys)
	parts := make([][]lake.Segment, len(keys))
	for i, key := range keys {
		slices.SortFunc(byKey[key], func(a, b lake.Segment) int { return cmp.Compare(a.ID, b.ID) })
		parts[i] = byKey[key]
	}
	return parts
}

// part plans for segments that may be merged with each other.
func (w *planner) part(segments []lake.Segment) {
	var left []lake.Segment
	switch {
	case w.state.Asked:
		left = w.asked(segments)
	case w.day():
		left = w.wholeDay(segments)
	default:
		left = w.hour(segments)
	}
	for i := range left {
		w.alone(&left[i])
	}
}

// asked merges all there is.
func (w *planner) asked(segments []lake.Segment) (left []lake.Segment) {
	if w.policy.Sharded {
		return w.intoShards(segments, ReasonAsked, w.shardsOf(segments))
	}
	if len(segments) == 1 && segments[0].Level > 0 {
		return segments
	}
	level := 2
	if w.day() {
		level = levelDay
	}
	return w.chunks(segments, ReasonAsked, max(level, levelOf(segments)))
}

// again asks for another look.
func (w *planner) again(at time.Time) { w.plan.Again = earlier(w.plan.Again, at) }

// earlier returns the earlier of two times of which the zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (w *planner) note(format string, arguments ...any) {
	if note := fmt.Sprintf(format, arguments...); !slices.Contains(w.notes, note) {
		w.notes = append(w.notes, note)
	}
}

// finish orders the merges, and cuts off what is too much for once.
func (w *planner) finish() Plan {
	plan := w.plan
	if len(plan.Merges) > 0 {
		// What was made may be made into less, and a day of it. When it is not, this ends.
		plan.Again = earlier(plan.Again, w.state.Now.Add(w.policy.Settle))
	}
	reasons := order()
	slices.SortStableFunc(plan.Merges, func(a, b Merge) int {
		return cmp.Compare(slices.Index(reasons, a.Reason), slices.Index(reasons, b.Reason))
	})
	if kept := w.atOnce(plan.Merges); len(kept) < len(plan.Merges) {
		plan.Merges, plan.More, plan.Again = kept, true, w.state.Now
	}
	plan.Reason = w.reason(&plan)
	return plan
}

// atOnce are the merges that one lease does: not too many bytes, and one with row identities. Of the segments that a lease merged queries believe that
// they have no doubles among themselves, and two merges know nothing of each other.
func (w *planner) atOnce(merges []Merge) []Merge {
	var kept []Merge
	total, identified := int64(0), false
	for i := range merges {
		m := &merges[i]
		if m.Identified() && identified || len(kept) > 0 && total+m.Bytes() > w.policy.LeaseBytes {
			continue
		}
		identified = identified || m.Identified()
		total += m.Bytes()
		kept = append(kept, *m)
	}
	return kept
}
