// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// count is how many shards a segment's is one of.
func count(s *lake.Segment) uint32 { return max(1, s.Shard.Count) }

// countOf is the highest count of segments.
func countOf(segments []lake.Segment) uint32 {
	most := uint32(1)
	for i := range segments {
		most = max(most, count(&segments[i]))
	}
	return most
}

// shards is how many shards so many bytes make.
func (w *planner) shards(bytes int64) uint32 {
	n := uint32(1)
	for n < w.policy.MaxShards && bytes > int64(n)*w.policy.Shard {
		n *= 2
	}
	return n
}

// enoughWhole merges segments of a hot window that are not of shards only where they are as many as one merge can take, since all of them are merged
// once more when the window is settled.
func (w *planner) enoughWhole(whole []lake.Segment) (left []lake.Segment) {
	for len(whole) >= w.policy.FanIn || bytesOf(whole) >= w.policy.MergeBytes {
		n := w.chunk(whole)
		if n > 1 {
			w.add(whole[:n], ReasonSmall, 1)
		} else {
			left = append(left, whole[0])
		}
		whole = whole[n:]
	}
	return append(left, whole...)
}

// settleShards leaves one segment for each shard; beside them, until that is worth a rewrite, what came late. Of a day, its hours are what is fresh.
func (w *planner) settleShards(segments []lake.Segment) (left []lake.Segment) {
	if len(segments) == 0 {
		return nil
	}
	shards := w.shardsOf(segments)
	for _, region := range regions(segments) {
		left = append(left, w.settleRegion(region, shards)...)
	}
	return slices.DeleteFunc(left, func(s lake.Segment) bool { return s.Window != w.state.Window })
}

// shardsOf is how many shards a window of these segments is to have: never less than it has.
func (w *planner) shardsOf(segments []lake.Segment) uint32 {
	return max(countOf(segments), w.shards(bytesOf(segments)))
}

func (w *planner) settleRegion(segments []lake.Segment, shards uint32) (left []lake.Segment) {
	var fresh, settled []lake.Segment
	for i := range segments {
		if s := segments[i]; w.unsettled(&s) {
			fresh = append(fresh, s)
		} else {
			settled = append(settled, s)
		}
	}
	main, late := w.mainShards(settled)
	if w.worth(main, late, fresh) {
		return w.intoShards(segments, ReasonSettled, shards)
	}
	late, joined := w.joinLate(fresh, late)
	switch {
	case w.day() && len(joined) < 2: // a late hour waits for another
		late = append(late, joined...)
	case len(joined) > 0:
		late = append(late, w.intoShards(joined, ReasonSettled, w.shardsOf(joined))...)
	}
	if at := w.lateAt(late); len(late) > 0 && w.state.Now.Before(at) {
		w.again(at)
		w.note("late data is too little for a rewrite")
	}
	return append(main, late...)
}

// unsettled reports whether a segment is still to be settled: a fresh one, or in a day one of an hour.
func (w *planner) unsettled(s *lake.Segment) bool {
	if w.day() {
		return s.Window != w.state.Window
	}
	return w.fresh(s)
}

// mainShards are the settled segments that hold most of a window, one of each shard. The others came late.
func (w *planner) mainShards(settled []lake.Segment) (main, late []lake.Segment) {
	byCount := map[uint32]int64{}
	for i := range settled {
		byCount[count(&settled[i])] += settled[i].Bytes
	}
	most := uint32(0)
	for n, bytes := range byCount {
		if bytes > byCount[most] || bytes == byCount[most] && n > most {
			most = n
		}
	}
	slices.SortStableFunc(settled, func(a, b lake.Segment) int { return cmp.Compare(b.Bytes, a.Bytes) })
	has := map[uint32]bool{}
	for _, s := range settled {
		if count(&s) == most && !has[s.Shard.Index] {
			has[s.Shard.Index] = true
			main = append(main, s)
		} else {
			late = append(late, s)
		}
	}
	return main, late
}

// sliver is which part of a settled window's bytes what is late must be to be worth a rewrite of that once it is old.
const sliver = 16

// worth reports whether what is new is worth a rewrite of all that is settled.
func (w *planner) worth(main, late, fresh []lake.Segment) bool {
	if len(late)+len(fresh) == 0 {
		return false
	}
	settled, others := bytesOf(main), bytesOf(late)+bytesOf(fresh)
	if others >= settled/quarter {
		return true
	}
	waiting := slices.DeleteFunc(slices.Concat(late, fresh), func(s lake.Segment) bool { return s.Level == 0 })
	old := len(waiting) > 0 && !w.state.Now.Before(w.lateAt(waiting))
	return old && (others >= settled/sliver || settled < w.policy.Least)
}

// lateAt is when segments that came late are old enough to be merged with the others.
func (w *planner) lateAt(late []lake.Segment) (at time.Time) {
	for i := range late {
		at = later(at, late[i].CreatedAt)
	}
	return at.Add(w.policy.Leftover)
}

// joinLate adds those of the late segments that are small against the fresh ones to these.
func (w *planner) joinLate(fresh, late []lake.Segment) (left, joined []lake.Segment) {
	joined = slices.Clone(fresh)
	slices.SortStableFunc(late, func(a, b lake.Segment) int { return cmp.Compare(a.Bytes, b.Bytes) })
	size := bytesOf(joined)
	for _, s := range late {
		if size > 0 && size >= s.Bytes/quarter {
			joined = append(joined, s)
			size += s.Bytes
		} else {
			left = append(left, s)
		}
	}
	return left, joined
}

// intoShards leaves one segment of each shard, where one merge can do that: of all segments, or of all that hold rows of some shards. Where it cannot, it
// makes less of them, and the window is looked at again soon.
func (w *planner) intoShards(segments []lake.Segment, reason Reason, shards uint32) (left []lake.Segment) {
	level := 2
	if w.day() {
		level = levelDay
	}
	for _, region := range regions(segments) {
		switch {
		case len(region) == 1 && region[0].Level > 0 && count(&region[0]) == shards:
			left = append(left, region[0])
		case w.chunk(region) == len(region):
			w.addOf(region, reason, max(level, levelOf(region)), shards)
		default:
			left = append(left, w.divide(region, reason, shards)...)
		}
	}
	return left
}

// regions are segments that hold rows of the same shards: what is in one of them has nothing to do with the others.
func regions(segments []lake.Segment) [][]lake.Segment {
	least := leastCount(segments)
	all := make([][]lake.Segment, least)
	for _, s := range segments {
		i := s.Shard.Index & (least - 1)
		all[i] = append(all[i], s)
	}
	return slices.DeleteFunc(all, func(region []lake.Segment) bool { return len(region) == 0 })
}

func leastCount(segments []lake.Segment) uint32 {
	least := count(&segments[0])
	for i := range segments {
		least = min(least, count(&segments[i]))
	}
	return least
}

// divide merges some of the segments of a region that are too much for one merge: first those of so large shards that one merge could not take all of
// such a shard, into smaller ones; when there are none, as many at a time as one merge can take.
func (w *planner) divide(region []lake.Segment, reason Reason, shards uint32) (left []lake.Segment) {
	fits := w.fits(region, shards, w.policy.MergeBytes)
	var large []lake.Segment
	for _, s := range region {
		if count(&s) < fits {
			large = append(large, s)
		} else {
			left = append(left, s)
		}
	}
	if len(large) == 0 {
		large, left = left, nil
	} else {
		fits = w.fits(region, shards, w.policy.MergeBytes/2) // shards are not alike
	}
	level := 1 // it is still to be settled
	if w.day() {
		level = levelDay
	}
	planned := len(w.plan.Merges)
	for len(large) > 0 {
		n := w.chunk(large)
		if some := large[:n]; n > 1 || count(&some[0]) < fits {
			w.addOf(some, reason, level, max(fits, countOf(some)))
		} else {
			left = append(left, some...)
		}
		large = large[n:]
	}
	if len(w.plan.Merges) > planned {
		w.again(w.state.Now.Add(w.policy.FreshWait))
		w.note("%s are settled in several steps", size(bytesOf(region)))
	}
	return left
}

// fits is how many shards the window must have for one merge to take so many bytes at most, when it takes all that a region has of such a shard.
func (w *planner) fits(region []lake.Segment, shards uint32, most int64) uint32 {
	n := leastCount(region)
	for rest := bytesOf(region); n < shards && rest > most; rest /= 2 {
		n *= 2
	}
	return n
}
