// SPDX-License-Identifier: AGPL-3.0-only

package rollup

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"
)

// summed is the Kahan sum of the sums of buckets.
func (s *span) summed() (sum, compensation float64) {
	for i := s.from; i < s.to; i++ {
		if s.counts[i] > 0 {
			sum, compensation = kahansum.Inc(s.sum[i], sum, compensation)
		}
	}
	return sum, compensation
}

func (s *span) average() (float64, error) {
	infinite := false
	for i := s.from; i < s.to; i++ {
		if s.counts[i] == 0 || !math.IsInf(s.sum[i], 0) {
			continue
		}
		if !math.IsInf(s.min[i], -1) && !math.IsInf(s.max[i], 1) {
			return 0, inexact("a sum overflowed")
		}
		infinite = true
	}
	sum, compensation := s.summed()
	if math.IsInf(sum, 0) && !infinite {
		return 0, inexact("a sum overflowed")
	}
	n := float64(s.count())
	return sum/n + compensation/n, nil
}

func (s *span) least() float64 {
	v := s.min[s.from]
	for i := s.from + 1; i < s.to; i++ {
		if s.counts[i] > 0 {
			v = lesser(v, s.min[i])
		}
	}
	return v
}

func (s *span) most() float64 {
	v := s.max[s.from]
	for i := s.from + 1; i < s.to; i++ {
		if s.counts[i] > 0 {
			v = greater(v, s.max[i])
		}
	}
	return v
}

// quantile merges the sketches of buckets. What is between the least and the greatest value it keeps there.
func (e *evaluation) quantile(s *span) (float64, error) {
	q := e.q.Parameter
	if math.IsNaN(q) || q < 0 || q > 1 {
		e.a.Notes |= NoteQuantile
		return e.sketcher.quantile(q), nil
	}
	e.sketcher.open()
	for i := s.from; i < s.to; i++ {
		if s.counts[i] == 0 {
			continue
		}
		if i >= len(s.sketches) || !e.sketcher.add(s.sketches[i]) {
			return 0, inexact("there is no sketch of its values")
		}
	}
	return min(max(e.sketcher.quantile(q), s.least()), s.most()), nil
}

// rate is Prometheus' rate, increase or delta of the range before a time. It is not there with one sample alone.
func (s *span) rate(q *Question, end int64) (v float64, there bool, err error) {
	n, final := s.count(), s.final()
	if n < 2 {
		return 0, false, nil
	}
	first := s.first[s.from]
	result := s.last[final] - first
	if q.Function != Delta {
		resets, err := s.resets(final)
		if err != nil {
			return 0, false, err
		}
		result += resets
	}
	x := extrapolation{
		counter: q.Function != Delta, samples: n, firstTime: s.firstTimes[s.from], lastTime: s.lastTimes[final],
		start: end - q.Width, end: end, first: first, increase: result,
	}
	return result * x.factor(q), true, nil
}

// resets is what was there before each reset of the counter.
func (s *span) resets(final int) (float64, error) {
	resets, before := 0.0, s.first[s.from]
	for i := s.from; i <= final; i++ {
		if s.counts[i] == 0 {
			continue
		}
		if s.first[i] < before {
			resets += before
		}
		before = s.last[i]
		within := resetsOf(s.first[i], s.last[i], s.increase[i], s.counts[i] == 1)
		if math.IsNaN(within) {
			return 0, inexact("a counter is not finite")
		}
		resets += within
	}
	return resets, nil
}

// extrapolation is how Prometheus goes from the increase between samples to that of a range.
type extrapolation struct {
	counter             bool
	samples             int64
	firstTime, lastTime int64
	start, end          int64
	// first is the first value, increase that between the first and the last: of native histograms, their counts.
	first, increase float64
}

// factor is extrapolatedRate of Prometheus' functions.go, without start timestamps.
func (x *extrapolation) factor(q *Question) float64 {
	toStart, toEnd := float64(x.firstTime-x.start)/1000, float64(x.end-x.lastTime)/1000
	sampled := float64(x.lastTime-x.firstTime) / 1000
	average := sampled / float64(x.samples-1)
	threshold := average * 1.1
	if toStart >= threshold {
		toStart = average / 2
	}
	if x.counter && x.increase > 0 && x.first >= 0 {
		if toZero := sampled * (x.first / x.increase); toZero < toStart {
			toStart = toZero
		}
	}
	if toEnd >= threshold {
		toEnd = average / 2
	}
	factor := 1.0
	if sampled != 0 {
		factor = (sampled + toStart + toEnd) / sampled
	}
	if q.Function == Rate {
		factor /= float64(q.Width) / 1000
	}
	return factor
}
