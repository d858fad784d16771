// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"fmt"
	"time"
)

// Function is what is asked of the samples in a range: a function of PromQL by its name, or Instant.
type Function string

// The functions that rollups can answer.
const (
	// Instant is a selector without a range: the last sample within the lookback, unless that is a stale marker.
	Instant Function = ""
	// Timestamp is timestamp() of a selector without a range: the time of that sample.
	Timestamp Function = "timestamp"

	Rate     Function = "rate"
	Increase Function = "increase"
	Delta    Function = "delta"

	Count    Function = "count_over_time"
	Sum      Function = "sum_over_time"
	Average  Function = "avg_over_time"
	Min      Function = "min_over_time"
	Max      Function = "max_over_time"
	First    Function = "first_over_time"
	Last     Function = "last_over_time"
	Present  Function = "present_over_time"
	Quantile Function = "quantile_over_time"

	FirstTime Function = "ts_of_first_over_time"
	LastTime  Function = "ts_of_last_over_time"
)

const (
	// SumBound is how far an answer that is added up of samples may be from Prometheus' own, relative to the sum of their magnitudes: additions are
	// done in another order.
	SumBound = 0x1p-48
	// SketchBound is how far a quantile may be from Prometheus' own, relative to the larger of the two samples between which it lies.
	SketchBound = 0.01
)

// need is a set of columns that a function looks at, beside ends and counts.
type need uint16

const (
	needFirstTimes need = 1 << iota
	needLastTimes
	needStaleTimes
	needFirst
	needLast
	needIncrease
	needSum
	needMin
	needMax
	needSketches
)

// allowed is a row of the table of functions.
type allowed struct {
	bound float64
	need  need
}

// table is which functions rollups can answer, how exactly, and of which columns.
func table(f Function) (allowed, bool) {
	switch f {
	case Instant:
		return allowed{0, needLastTimes | needStaleTimes | needLast}, true
	case Timestamp:
		return allowed{0, needLastTimes | needStaleTimes}, true
	case Rate, Increase:
		return allowed{SumBound, needFirstTimes | needLastTimes | needFirst | needLast | needIncrease | needSum}, true
	case Delta:
		return allowed{SumBound, needFirstTimes | needLastTimes | needFirst | needLast | needSum}, true
	case Count, Present:
		return allowed{0, 0}, true
	case Sum:
		return allowed{SumBound, needSum}, true
	case Average:
		return allowed{SumBound, needSum | needMin | needMax}, true
	case Min:
		return allowed{0, needMin}, true
	case Max:
		return allowed{0, needMax}, true
	case First:
		return allowed{0, needFirstTimes | needFirst}, true
	case Last:
		return allowed{0, needLastTimes | needLast}, true
	case FirstTime:
		return allowed{0, needFirstTimes}, true
	case LastTime:
		return allowed{0, needLastTimes}, true
	case Quantile:
		return allowed{SketchBound, needMin | needMax | needSketches}, true
	}
	return allowed{}, false
}

// Ranged reports whether a function is of samples in a range, which a lookback is not.
func (f Function) Ranged() bool { return f != Instant && f != Timestamp }

// Exact reports whether rollups of a resolution have the answer that the samples themselves would give, and how far it may be from that: zero, SumBound or
// SketchBound. Else reason says why not. The function is asked at start, start+step, ... (step zero: at start alone), each time less the offset, over the
// range before; width is that range, or the lookback. Quantile is exact only over series for which sketches were made: over others Evaluate returns ErrInexact.
func Exact(f Function, width, step, offset time.Duration, start time.Time, resolution time.Duration) (ok bool, bound float64, reason string) {
	row, known := table(f)
	switch {
	case !known:
		return false, 0, fmt.Sprintf("%s cannot be answered from rollups", f)
	case resolution <= 0 || resolution%time.Millisecond != 0:
		return false, 0, fmt.Sprintf("%s is no resolution of rollups", resolution)
	case f.Ranged() && (width <= 0 || width%resolution != 0):
		return false, 0, fmt.Sprintf("the range %s is no multiple of %s", width, resolution)
	case step%resolution != 0:
		return false, 0, fmt.Sprintf("the step %s is no multiple of %s", step, resolution)
	case aligned(start, offset, resolution) != 0:
		return false, 0, fmt.Sprintf("steps do not fall on multiples of %s", resolution)
	}
	return true, row.bound, ""
}

// aligned is how far the first time looked at is behind the end of a bucket.
func aligned(start time.Time, offset, resolution time.Duration) int64 {
	at := start.UnixMilli() - offset.Milliseconds()
	width := resolution.Milliseconds()
	return (at%width + width) % width
}
