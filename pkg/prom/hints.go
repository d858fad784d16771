// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

// Hints sets the reset hints of the histograms of one series, in copies of them, to what Prometheus' storage gives: a gauge is a gauge; of a counter it is said where
// it was not reset since the histogram before, and nothing where it was, or where layouts differ. A source that leaves out samples before those that it was asked for
// calls it first, so that the first one has its hint, too.
func Hints(s *Series) {
	bare := slices.Clone(s.Histograms)
	for i, h := range bare {
		if h.CounterResetHint == histogram.CounterReset || h.CounterResetHint == histogram.NotCounterReset {
			unknown := *h
			unknown.CounterResetHint = histogram.UnknownCounterReset
			bare[i] = &unknown
		}
	}
	s.Histograms = bare
	for i, hint := range hintsOf(s) {
		if hint != bare[i].CounterResetHint {
			hinted := *bare[i]
			hinted.CounterResetHint = hint
			s.Histograms[i] = &hinted
		}
	}
}

// hintsOf are the hints of a series' histograms: those that they have, and derived ones where they have none.
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
			continue // a histogram behind a float begins a chunk, of which nothing is known
		}
		if continues(s.Histograms[i-1], h) {
			hints[i] = histogram.NotCounterReset
		}
	}
	return hints
}

// continues reports whether a histogram of a counter continues the one before in its chunk in Prometheus' storage: with the same layout, and no bucket less.
func continues(before, h *histogram.FloatHistogram) bool {
	switch {
	case before.CounterResetHint == histogram.GaugeType, value.IsStaleNaN(before.Sum), value.IsStaleNaN(h.Sum):
		return false
	case h.Count < before.Count, h.Schema != before.Schema, h.ZeroThreshold != before.ZeroThreshold, h.ZeroCount < before.ZeroCount:
		return false
	case h.UsesCustomBuckets() && !histogram.CustomBucketBoundsMatch(h.CustomValues, before.CustomValues):
		return false
	}
	return !lessThan(h.PositiveBucketIterator(), before.PositiveBucketIterator()) && !lessThan(h.NegativeBucketIterator(), before.NegativeBucketIterator())
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
