// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// Hints sets the reset hints of histograms of one series that are not known yet, in copies of them, as Prometheus' storage derives them. A source that leaves out
// samples before those that it was asked for calls it first, so that the first sample has its hint, too.
func Hints(s *Series) {
	hints := hintsOf(s)
	histograms := make([]*histogram.FloatHistogram, len(s.Histograms))
	for i, h := range s.Histograms {
		hinted := *h
		hinted.CounterResetHint = hints[i]
		histograms[i] = &hinted
	}
	s.Histograms = histograms
}

func hintsOf(s *Series) []histogram.CounterResetHint {
	if len(s.Histograms) == 0 {
		return nil
	}
	hints := make([]histogram.CounterResetHint, len(s.Histograms))
	float := 0
	for i, h := range s.Histograms {
		before := float
		for float < len(s.Times) && s.Times[float] < s.HistogramTimes[i] {
			float++
		}
		if hints[i] = h.CounterResetHint; hints[i] != histogram.UnknownCounterReset || i == 0 || float > before {
			continue // a histogram behind a float begins a chunk of which nothing is known
		}
		hints[i] = hintAfter(s.Histograms[i-1], h)
	}
	return hints
}

// hintAfter is the hint that a histogram of a counter has behind another in Prometheus' storage: where layouts differ, that begins a chunk of which nothing is known.
func hintAfter(before, h *histogram.FloatHistogram) histogram.CounterResetHint {
	switch {
	case before.CounterResetHint == histogram.GaugeType, value.IsStaleNaN(before.Sum), value.IsStaleNaN(h.Sum):
		return histogram.UnknownCounterReset
	case h.Count < before.Count:
		return histogram.CounterReset
	case h.Schema != before.Schema, h.ZeroThreshold != before.ZeroThreshold:
		return histogram.UnknownCounterReset
	case h.UsesCustomBuckets() && !histogram.CustomBucketBoundsMatch(h.CustomValues, before.CustomValues), h.ZeroCount < before.ZeroCount:
		return histogram.CounterReset
	case lessThan(h.PositiveBucketIterator(), before.PositiveBucketIterator()), lessThan(h.NegativeBucketIterator(), before.NegativeBucketIterator()):
		return histogram.CounterReset
	}
	return histogram.NotCounterReset
}

// lessThan reports whether a bucket of a histogram counts less than the same one of the histogram before. One that is not there counts nothing.
func lessThan(now, before histogram.BucketIterator[float64]) bool {
	more := now.Next()
	for before.Next() {
		b := before.At()
		for more && now.At().Index < b.Index {
			more = now.Next()
		}
		var count float64
		if more && now.At().Index == b.Index {
			count = now.At().Count
		}
		if count < b.Count {
			return true
		}
	}
	return false
}
