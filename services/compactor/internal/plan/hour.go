// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// A segment is fresh until its window was settled with it.
func (w *planner) fresh(s *lake.Segment) bool {
	return s.Level == 0 || s.Level == 1 && (w.policy.Sharded || s.Bytes < w.policy.Least)
}

// defers reports whether a segment that came late puts off its window's being settled. Of shards, level 1 is also what a window is settled by that
// is too much for one merge.
func (w *planner) defers(s *lake.Segment) bool {
	return s.Level == 0 || !w.policy.Sharded && w.fresh(s)
}

func (w *planner) small(s *lake.Segment) bool { return s.Bytes < w.policy.Least }

// hour plans for an hour, and returns the segments that it leaves alone.
func (w *planner) hour(segments []lake.Segment) (left []lake.Segment) {
	if at := w.settledAt(segments); w.state.Now.Before(at) {
		w.again(at)
		return w.hot(segments)
	}
	w.dayOf(segments)
	if w.policy.Sharded {
		return w.settleShards(segments)
	}
	return w.settle(segments)
}

// settledAt is when a window with these segments is settled: late ones put it off, but not for long.
func (w *planner) settledAt(segments []lake.Segment) time.Time {
	const patience = 4
	at := segments[0].Window.End().Add(w.policy.Settle)
	var oldest, newest time.Time
	for i := range segments {
		if s := &segments[i]; w.defers(s) {
			oldest = earlier(oldest, s.CreatedAt)
			newest = later(newest, s.CreatedAt)
		}
	}
	if newest.IsZero() {
		return at
	}
	quiet := newest.Add(w.policy.Settle)
	if impatient := oldest.Add(patience * w.policy.Settle); impatient.Before(quiet) {
		quiet = impatient
	}
	return later(at, quiet)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// hot merges what there is enough of.
func (w *planner) hot(segments []lake.Segment) (left []lake.Segment) {
	var zero, small []lake.Segment
	for i := range segments {
		switch s := segments[i]; {
		case s.Level == 0:
			zero = append(zero, s)
		case w.policy.Sharded && s.Level == 1 && s.Shard.Whole(), !w.policy.Sharded && w.small(&s):
			small = append(small, s)
		default:
			left = append(left, s)
		}
	}
	return slices.Concat(left, w.enoughFresh(zero), w.enoughSmall(small))
}

func (w *planner) enoughFresh(zero []lake.Segment) (left []lake.Segment) {
	if len(zero) < 2 {
		return zero
	}
	ripe := w.oldest(zero).Add(w.policy.FreshWait)
	if len(zero) < w.policy.FreshSegments && bytesOf(zero) < w.policy.FreshBytes && w.state.Now.Before(ripe) {
		w.again(ripe)
		w.note("%d fresh segments wait for more", len(zero))
		return zero
	}
	return w.chunks(zero, ReasonLevel0, 1)
}

func (w *planner) enoughSmall(small []lake.Segment) (left []lake.Segment) {
	if w.policy.Sharded {
		return w.enoughWhole(small)
	}
	if len(small) < 2 || len(small) < w.policy.FanIn && bytesOf(small) < w.policy.Target {
		return small
	}
	return w.chunks(small, ReasonSmall, 1)
}

func (w *planner) oldest(segments []lake.Segment) (at time.Time) {
	for i := range segments {
		at = earlier(at, segments[i].CreatedAt)
	}
	return at
}

// settle leaves few segments, none of them of level 0.
func (w *planner) settle(segments []lake.Segment) (left []lake.Segment) {
	if whole, rest := w.identified(segments); whole != nil {
		w.add(whole, ReasonSettled, max(2, levelOf(whole)))
		segments = rest
	}
	var group, settled []lake.Segment
	for i := range segments {
		switch s := segments[i]; {
		case w.fresh(&s):
			group = append(group, s)
		default:
			settled = append(settled, s)
		}
	}
	group, left = w.join(group, settled)
	w.leftovers(left)
	if len(group) == 1 && group[0].Level > 0 {
		return append(left, group...)
	}
	if len(group) == 1 {
		w.add(group, ReasonSettled, 2)
		return left
	}
	return append(left, w.chunks(group, ReasonSettled, max(2, levelOf(group)))...)
}

// quarter is which part of a settled segment's bytes must be new to make it worth a rewrite.
const quarter = 4

// join adds those of the settled segments to a group that are small against what is in it: the smallest first.
func (w *planner) join(group, settled []lake.Segment) (joined, left []lake.Segment) {
	slices.SortStableFunc(settled, func(a, b lake.Segment) int { return cmp.Compare(a.Bytes, b.Bytes) })
	size, overdue := bytesOf(group), w.overdue(settled)
	for _, s := range settled {
		fits := w.small(&s) || size+s.Bytes <= w.policy.Most
		if fits && (size > 0 && size >= s.Bytes/quarter || overdue && w.small(&s)) {
			group = append(group, s)
			size += s.Bytes
			continue
		}
		left = append(left, s)
	}
	return group, left
}

// overdue reports whether small settled segments have lain beside each other for long enough.
func (w *planner) overdue(settled []lake.Segment) bool {
	at, many := w.leftoverAt(settled)
	return many && !w.state.Now.Before(at)
}

func (w *planner) leftoverAt(settled []lake.Segment) (at time.Time, many bool) {
	n := 0
	for i := range settled {
		if s := &settled[i]; w.small(s) {
			n++
			at = later(at, s.CreatedAt)
		}
	}
	return at.Add(w.policy.Leftover), n > 1
}

// leftovers asks for a look at segments that are too small, one day.
func (w *planner) leftovers(left []lake.Segment) {
	if at, many := w.leftoverAt(left); many {
		w.again(at)
		w.note("late data is too little for a rewrite")
	}
}

// identified returns all segments with row identities if they are to be merged into one another: doubles vanish only so. As with other settled
// segments the largest ones, here of one lease, are rewritten for a quarter that is new.
func (w *planner) identified(segments []lake.Segment) (whole, rest []lake.Segment) {
	byLease := map[lake.LeaseID]int64{}
	for _, s := range segments {
		switch {
		case s.Identified:
			byLease[s.Lease] += s.Bytes
			whole = append(whole, s)
		case w.fresh(&s):
			whole = append(whole, s)
		default:
			rest = append(rest, s)
		}
	}
	largest := int64(0)
	for _, size := range byLease {
		largest = max(largest, size)
	}
	total := bytesOf(whole)
	worth := total-largest >= largest/quarter || w.overdue(whole)
	if len(byLease) < 2 || !worth || len(whole) > w.policy.FanIn || total > w.policy.MergeBytes {
		return nil, segments
	}
	return whole, rest
}

// dayOf asks for a look at the day of an hour that may be part of one.
func (w *planner) dayOf(segments []lake.Segment) {
	if bytesOf(segments) >= w.policy.Target {
		return
	}
	day := lake.WindowOf(w.state.Window.Start, 24*time.Hour)
	w.plan.Day = later(day.End().Add(w.policy.DaySettle), w.state.Now)
}
