// SPDX-License-Identifier: AGPL-3.0-only

package promplan

import (
	"fmt"
	"time"
)

// SketchBound is the largest relative error of a quantile that comes of a sketch.
const SketchBound = 0.01

// Bound returns the largest relative error with which rollups answer the shape; 0: they answer exactly.
func (s *Shape) Bound() float64 {
	if s.Function == "quantile_over_time" {
		return SketchBound
	}
	return 0
}

// Answers reports whether rollups of a resolution answer a leaf at all its times; reason says why not.
//
// A bucket (a, b] tells count, sum, minimum and maximum of its samples, the first and the last with their times, the last stale marker, and how much a counter rose
// between its own samples. What rose between two buckets follows from the last of one and the first of the next. So a window that begins and ends where buckets do is told exactly. What only looks at
// the last sample need not begin where a bucket does: the bucket has its time.
func (l *Leaf) Answers(resolution time.Duration) (ok bool, reason string) {
	s := l.Shape
	switch {
	case s == nil:
		return false, "not a function of one range"
	case s.Extended:
		return false, "needs samples outside of its range, or start times"
	case l.Sole:
		return false, "drops the names of several metrics"
	case !answers(s.Function):
		return false, fmt.Sprintf("%s cannot be told from rollups", s.Function)
	}
	ms := resolution.Milliseconds()
	if needsStart(s.Function) && s.Window.Milliseconds()%ms != 0 {
		return false, fmt.Sprintf("its range of %s is no multiple of %s", s.Window, resolution)
	}
	times := l.Asked()
	if s.At != nil {
		times = Grid{Start: *s.At, End: *s.At}
	}
	if (times.Start-s.Offset.Milliseconds())%ms != 0 {
		return false, fmt.Sprintf("its times are no multiples of %s", resolution)
	}
	if times.Len() > 1 && times.Step%ms != 0 {
		return false, fmt.Sprintf("its step of %s is no multiple of %s", time.Duration(times.Step)*time.Millisecond, resolution)
	}
	return true, ""
}

// answers reports whether rollups have what a function needs. Two samples in one bucket are not told apart: irate, idelta, changes, resets, deriv and the like are not among them.
func answers(function string) bool {
	switch function {
	case "", "rate", "increase", "delta", "count_over_time", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time",
		"last_over_time", "first_over_time", "present_over_time", "quantile_over_time":
		return true
	}
	return false
}

// needsStart reports whether it matters where the window begins.
func needsStart(function string) bool {
	switch function {
	case "", "last_over_time", "present_over_time":
		return false
	}
	return true
}
