// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import "github.com/prometheus/prometheus/model/histogram"

// Rollup is what the points of one series came to in buckets of time (end-resolution, end], by column. Times are ms since 1970.
type Rollup struct {
	Ends   []int64 // of buckets, rising
	Counts []int64 // of points that are no stale markers
	// FirstTimes and LastTimes are of the bucket's first and last point that is no stale marker; 0 where Counts is 0.
	FirstTimes, LastTimes []int64
	StaleTimes            []int64 // of the last stale marker; 0: none
	Tracks                []Track // as Series.Tracks; none of native histograms
	// Of native histograms, a bucket each; nil where the bucket has none.
	First, Last, Increase, Sum []*histogram.FloatHistogram
	// Sketches of the values, a bucket each, where they are configured; empty: of no bucket.
	Sketches [][]byte
}

// Track is one Prometheus series of a row, a value for each bucket. Where a bucket's count is 0 the values mean nothing.
type Track struct {
	First, Last []float64
	// Increase is between the bucket's own points, resets accounted for; of deltas, their sum.
	Increase      []float64
	Sum, Min, Max []float64
}

// Len returns the number of buckets.
func (r *Rollup) Len() int { return len(r.Ends) }
