// SPDX-License-Identifier: AGPL-3.0-only

package vector

import "slices"

// Grid is when a question is asked: ms since 1970.
type Grid struct {
	Start, Step int64
	Steps       int
}

// At is the time of a step.
func (g *Grid) At(step int) int64 { return g.Start + int64(step)*g.Step }

// Question is what is asked of each series.
type Question struct {
	Grid
	Function Function
	// Width is the range, or the lookback of Instant: samples of (t-Width, t] are looked at.
	Width int64
	// Offset is taken from each time.
	Offset int64
	// Stop is asked now and then, if it is not nil, whether an answer is still wanted.
	Stop func() bool
}

// First and Last are the times between which samples are looked at, both inclusive.
func (q *Question) First() int64 { return q.Start - q.Offset - q.Width + 1 }

// Last is the last time at which samples are looked at.
func (q *Question) Last() int64 { return q.At(q.Steps-1) - q.Offset }

// Windows are the samples that the steps of a question look at, for all series of the same times.
type Windows struct {
	times []int64
	valid bool
	// Steps are those with enough samples, rising; low and high are of their samples the first, and the one behind the last.
	Steps     []int32
	low, high []int32
	// Of rates: seconds between the first and last sample, how far beyond them the series is thought to reach, and the factor that follows.
	interval, toStart, toEnd, factor []float64
}

// Find finds the windows of a question over rising times. Those of the times that it was asked about last are kept.
func (w *Windows) Find(q *Question, times []int64) {
	if w.valid && slices.Equal(w.times, times) {
		return
	}
	w.valid, w.times = true, append(w.times[:0], times...)
	w.Steps, w.low, w.high = w.Steps[:0], w.low[:0], w.high[:0]
	least := int32(q.Function.least())
	low, high := 0, 0
	for step := range q.Steps {
		end := q.At(step) - q.Offset
		for high < len(times) && times[high] <= end {
			high++
		}
		for low < high && times[low] <= end-q.Width {
			low++
		}
		if int32(high-low) >= least {
			w.Steps, w.low, w.high = append(w.Steps, int32(step)), append(w.low, int32(low)), append(w.high, int32(high))
		}
	}
	if q.Function.extrapolates() {
		w.extrapolate(q)
	}
}

// extrapolate computes of each window what of Prometheus' extrapolatedRate depends on times alone.
func (w *Windows) extrapolate(q *Question) {
	w.interval, w.toStart, w.toEnd, w.factor = w.interval[:0], w.toStart[:0], w.toEnd[:0], w.factor[:0]
	for i, step := range w.Steps {
		end := q.At(int(step)) - q.Offset
		first, last := w.times[w.low[i]], w.times[w.high[i]-1]
		toStart, toEnd := float64(first-(end-q.Width))/1000, float64(end-last)/1000
		interval := float64(last-first) / 1000
		average := interval / float64(w.high[i]-w.low[i]-1)
		threshold := average * 1.1
		if toStart >= threshold {
			toStart = average / 2
		}
		if toEnd >= threshold {
			toEnd = average / 2
		}
		w.interval, w.toStart, w.toEnd = append(w.interval, interval), append(w.toStart, toStart), append(w.toEnd, toEnd)
		w.factor = append(w.factor, q.factor(interval, toStart, toEnd))
	}
}

// factor is by how much the increase between samples is extended.
func (q *Question) factor(interval, toStart, toEnd float64) float64 {
	factor := (interval + toStart + toEnd) / interval
	if q.Function == Rate {
		factor /= float64(q.Width) / 1000
	}
	return factor
}

// Without makes the windows of another without those of which the last sample is none.
func (w *Windows) Without(o *Windows, none func(last int) bool) {
	w.valid, w.times = false, o.times
	w.Steps, w.low, w.high = w.Steps[:0], w.low[:0], w.high[:0]
	for i, step := range o.Steps {
		if !none(int(o.high[i]) - 1) {
			w.Steps, w.low, w.high = append(w.Steps, step), append(w.low, o.low[i]), append(w.high, o.high[i])
		}
	}
}

// Samples is how many samples the steps look at, as Prometheus counts: of Instant one each.
func (w *Windows) Samples(q *Question) int64 {
	if q.Function == Instant {
		return int64(len(w.Steps))
	}
	var n int64
	for i := range w.Steps {
		n += int64(w.high[i] - w.low[i])
	}
	return n
}
