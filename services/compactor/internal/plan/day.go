// SPDX-License-Identifier: AGPL-3.0-only

package plan

import (
	"time"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// levelDay is that of segments of a day.
const levelDay = 3

// wholeDay makes one window of a day whose hours hold little, and returns the segments that it leaves alone. What is to be done to an hour's
// segments otherwise is for the hour's task: none of them is among these.
func (w *planner) wholeDay(segments []lake.Segment) (left []lake.Segment) {
	var hours, days []lake.Segment
	for _, s := range segments {
		if s.Window == w.state.Window {
			days = append(days, s)
		} else {
			hours = append(hours, s)
		}
	}
	switch at := w.daySettledAt(hours); {
	case len(hours) == 0 && w.policy.Sharded:
		return w.settleShards(days)
	case len(hours) == 0:
		w.note("no hour is left")
	case w.state.Now.Before(at):
		w.again(at)
		w.note("its hours are not settled")
	case bytesOf(segments) >= w.policy.Target:
		w.note("a day of %s is left in hours", size(bytesOf(segments)))
	case w.policy.Sharded:
		return w.settleShards(segments)
	default:
		return w.lowVolume(hours, days)
	}
	return days
}

// daySettledAt is when all hours are: the day's own time, or that of an hour which still has fresh segments.
func (w *planner) daySettledAt(hours []lake.Segment) time.Time {
	at := w.state.Window.End().Add(w.policy.DaySettle)
	for i := range hours {
		s := &hours[i]
		if w.fresh(s) {
			at = later(at, w.settledAt(hours[i:i+1]))
		}
		if s.Level == 0 {
			at = later(at, w.state.Now.Add(w.policy.Settle)) // its hour's task comes first
		}
	}
	return at
}

func (w *planner) lowVolume(hours, days []lake.Segment) (left []lake.Segment) {
	group, left := w.join(hours, days)
	if len(group) < 2 && len(days) > 0 {
		w.leftovers(append(left, group...))
		return left
	}
	return append(left, w.dayChunks(group)...)
}

// dayChunks merges segments into windows of the day. A single one of an hour stays as it is.
func (w *planner) dayChunks(group []lake.Segment) (left []lake.Segment) {
	if len(group) < 2 {
		return nil
	}
	alone := w.chunks(group, ReasonSettled, levelDay)
	var days []lake.Segment
	for _, s := range alone {
		if s.Window == w.state.Window {
			days = append(days, s)
		}
	}
	return days
}
