// SPDX-License-Identifier: AGPL-3.0-only

package vector

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/util/kahansum"
)

// Function is a function of the samples in a window, by its name in PromQL.
type Function string

// The functions.
const (
	// Instant is a selector without a range: the last sample, unless it is a stale marker.
	Instant  Function = ""
	Rate     Function = "rate"
	Increase Function = "increase"
	Delta    Function = "delta"
	Irate    Function = "irate"
	Idelta   Function = "idelta"
	Sum      Function = "sum_over_time"
	Average  Function = "avg_over_time"
	Min      Function = "min_over_time"
	Max      Function = "max_over_time"
	Count    Function = "count_over_time"
	First    Function = "first_over_time"
	Last     Function = "last_over_time"
	Present  Function = "present_over_time"
	Stddev   Function = "stddev_over_time"
	Stdvar   Function = "stdvar_over_time"
	Resets   Function = "resets"
	Changes  Function = "changes"
	// deltaSum and deltaRate are increase and rate of deltas.
	deltaSum  Function = "increase of deltas"
	deltaRate Function = "rate of deltas"
)

// known reports whether a function of PromQL is one of ours.
func known(name string) bool {
	switch Function(name) {
	case Rate, Increase, Delta, Irate, Idelta, Sum, Average, Min, Max, Count, First, Last, Present, Stddev, Stdvar, Resets, Changes:
		return true
	}
	return false
}

// OfDeltas is the function that stands for another where series are deltas; false: none of ours does.
func (f Function) OfDeltas() (Function, bool) {
	switch f {
	case Rate:
		return deltaRate, true
	case Increase:
		return deltaSum, true
	case Irate:
		return "", false
	}
	return f, true
}

// extrapolates reports whether it is one of Prometheus' extrapolatedRate.
func (f Function) extrapolates() bool { return f == Rate || f == Increase || f == Delta }

// counts reports whether it accounts for resets of counters.
func (f Function) counts() bool { return f == Rate || f == Increase }

// KeepsName reports whether series keep their metric names.
func (f Function) KeepsName() bool { return f == Instant || f == Last || f == First }

// OfTimes reports whether values do not matter but for stale markers.
func (f Function) OfTimes() bool { return f == Count || f == Present }

// least is how many samples a window needs.
func (f Function) least() int {
	if f.extrapolates() || f == Irate || f == Idelta {
		return 2
	}
	return 1
}

// number is a column's type: floats, or what histograms count.
type number interface{ ~uint64 | ~float64 }

// Evaluate evaluates a question over a column of values, and gives a value for each of w.Steps: what is left of them when it is told to stop means nothing. Resets
// are those of FindResets, where the function needs them.
func Evaluate[T number](q *Question, w *Windows, values []T, resets []int32, out []float64) []float64 {
	if cap(out) < len(w.Steps) {
		out = make([]float64, len(w.Steps))
	}
	out = out[:len(w.Steps)]
	switch q.Function {
	case Instant, Last:
		for i, high := range w.high {
			out[i] = float64(values[high-1])
		}
	case First:
		for i, low := range w.low {
			out[i] = float64(values[low])
		}
	case Count:
		for i := range out {
			out[i] = float64(w.high[i] - w.low[i])
		}
	case Present:
		for i := range out {
			out[i] = 1
		}
	case Rate, Increase:
		increases(q, w, values, resets, out)
	case Delta:
		for i := range out {
			out[i] = (float64(values[w.high[i]-1]) - float64(values[w.low[i]])) * w.factor[i]
		}
	case Irate, Idelta:
		lastTwo(q, w, values, out)
	default:
		overWindows(q, w, values, out)
	}
	return out
}

// askEvery is how many samples are looked at between two questions whether to stop.
const askEvery = 1 << 20

func overWindows[T number](q *Question, w *Windows, values []T, out []float64) {
	each, looked := overWindow[T](q), int32(0)
	for i := range out {
		out[i] = each(values[w.low[i]:w.high[i]])
		if looked += w.high[i] - w.low[i]; looked > askEvery {
			if looked = 0; q.Stop != nil && q.Stop() {
				return
			}
		}
	}
}

// FindResets appends where a column of a counter is less than before.
func FindResets[T number](values []T, to []int32) []int32 {
	for i := 1; i < len(values); i++ {
		if values[i] < values[i-1] {
			to = append(to, int32(i))
		}
	}
	return to
}

// NeedsResets reports whether Evaluate wants to know where resets are.
func (f Function) NeedsResets() bool { return f.counts() }

func increases[T number](q *Question, w *Windows, values []T, resets []int32, out []float64) {
	from := 0
	for i := range out {
		low, last := w.low[i], w.high[i]-1
		first := float64(values[low])
		increase := float64(values[last]) - first
		if len(resets) > 0 {
			for from < len(resets) && resets[from] <= low {
				from++
			}
			for n := from; n < len(resets) && resets[n] <= last; n++ {
				increase += float64(values[resets[n]-1])
			}
		}
		factor := w.factor[i]
		// A counter cannot have been below zero: where it would have been zero within the stretch before the first sample, it began there. The division is only done
		// where that may be.
		if increase > 0 && first >= 0 && first*w.interval[i] < w.toStart[i]*increase*(1+1e-9) {
			if toZero := w.interval[i] * (first / increase); toZero < w.toStart[i] {
				factor = q.factor(w.interval[i], toZero, w.toEnd[i])
			}
		}
		out[i] = increase * factor
	}
}

func lastTwo[T number](q *Question, w *Windows, values []T, out []float64) {
	for i, high := range w.high {
		before, last := float64(values[high-2]), float64(values[high-1])
		if q.Function == Idelta {
			out[i] = last - before
			continue
		}
		if out[i] = last; last >= before || last != last || before != before {
			out[i] = last - before
		}
		out[i] /= float64(w.times[high-1]-w.times[high-2]) / 1000
	}
}

// overWindow returns the function that is evaluated over each window as a whole.
func overWindow[T number](q *Question) func([]T) float64 {
	switch q.Function {
	case Sum, deltaSum:
		return sum[T]
	case deltaRate:
		seconds := float64(q.Width) / 1000
		return func(values []T) float64 { return sum(values) / seconds }
	case Average:
		return average[T]
	case Min:
		return least[T]
	case Max:
		return most[T]
	case Stdvar:
		return variance[T]
	case Stddev:
		return func(values []T) float64 { return math.Sqrt(variance(values)) }
	case Resets:
		return func(values []T) float64 { return countPairs(values, func(before, v T) bool { return v < before }) }
	case Changes:
		return func(values []T) float64 {
			return countPairs(values, func(before, v T) bool { return v != before && (v == v || before == before) })
		}
	}
	panic("a function that is not known: " + string(q.Function))
}

func sum[T number](values []T) float64 {
	var total, c float64
	for _, v := range values {
		total, c = kahansum.Inc(float64(v), total, c)
	}
	if math.IsInf(total, 0) {
		return total
	}
	return total + c
}

// average is Prometheus': of a sum that would overflow it is computed as it goes.
func average[T number](values []T) float64 {
	total, count, c := float64(values[0]), 1., 0.
	for i, v := range values[1:] {
		more, moreC := kahansum.Inc(float64(v), total, c)
		if math.IsInf(more, 0) {
			return averageFrom(values[i+1:], total/count, c/count, count)
		}
		total, c, count = more, moreC, float64(i+2)
	}
	return total/count + c/count
}

func averageFrom[T number](values []T, mean, c, count float64) float64 {
	for _, v := range values {
		count++
		q := (count - 1) / count
		mean, c = kahansum.Inc(float64(v)/count, q*mean, q*c)
	}
	return mean + c
}

func least[T number](values []T) float64 {
	m := values[0]
	for _, v := range values {
		if v < m || m != m {
			m = v
		}
	}
	return float64(m)
}

func most[T number](values []T) float64 {
	m := values[0]
	for _, v := range values {
		if v > m || m != m {
			m = v
		}
	}
	return float64(m)
}

func variance[T number](values []T) float64 {
	var count, mean, cMean, aux, cAux float64
	for _, v := range values {
		count++
		delta := float64(v) - (mean + cMean)
		mean, cMean = kahansum.Inc(delta/count, mean, cMean)
		aux, cAux = kahansum.Inc(delta*(float64(v)-(mean+cMean)), aux, cAux)
	}
	return (aux + cAux) / count
}

func countPairs[T number](values []T, counts func(before, v T) bool) float64 {
	n := 0
	for i := 1; i < len(values); i++ {
		if counts(values[i-1], values[i]) {
			n++
		}
	}
	return float64(n)
}

// Stale reports whether a value that Evaluate gave is none.
func Stale(v float64) bool { return v != v && value.IsStaleNaN(v) }
