// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Points are the points of one series by column, sorted by time, source and hash. Columns that a kind has not, or that were not asked for, are empty.
type Points struct {
	Times []int64 // ns since 1970
	// Starts are the times since which cumulative points count, ns since 1970; 0: not known; nil: of none is it known.
	Starts  []int64
	Sources []lake.ReceiptID
	// Values are the values of floats; of classic histograms and summaries the sum (0 where there is none). The bits of a stale marker say that the whole
	// point is one, of every track.
	Values []float64
	Counts []uint64 // classic, summary
	// Buckets of a classic histogram, [bucket][point], the one above all bounds last: observations of that bucket alone.
	Buckets   [][]uint64
	Quantiles [][]float64 // summary, [quantile][point]
	// Histograms are whole; CounterResetHint is GaugeType for gauges and else derived from the histogram before, unknown for the first. A stale marker has
	// the bits of one as its sum.
	Histograms []*histogram.FloatHistogram
	Exemplars  []Exemplar // of the series, sorted by time
}

// Exemplar is one observation that stands for others.
type Exemplar struct {
	Labels labels.Labels
	Value  float64
	Time   int64 // ns since 1970
	Source lake.ReceiptID
	Track  int // which of the Prometheus series of the row it belongs to
}

// Len returns the number of points.
func (p *Points) Len() int { return len(p.Times) }

// Reset empties p and keeps its memory.
func (p *Points) Reset() {
	p.Times, p.Starts, p.Sources, p.Values, p.Counts = p.Times[:0], p.Starts[:0], p.Sources[:0], p.Values[:0], p.Counts[:0]
	p.Buckets, p.Quantiles = p.Buckets[:0], p.Quantiles[:0]
	p.Histograms, p.Exemplars = p.Histograms[:0], p.Exemplars[:0]
}

// Stale reports whether a point is a stale marker.
func (p *Points) Stale(i int) bool {
	if len(p.Histograms) > 0 {
		return value.IsStaleNaN(p.Histograms[i].Sum)
	}
	return value.IsStaleNaN(p.Values[i])
}

// Track appends to dst the values of one Prometheus series of the row, a point each: buckets cumulated over le, stale markers included. Native
// histograms have no such values.
func (p *Points) Track(s *Series, track int, dst []float64) []float64 {
	switch s.Kind {
	case KindFloat:
		return append(dst, p.Values...)
	case KindClassic:
		if track < len(s.Bounds) {
			return p.cumulated(track, dst)
		}
		if track == len(s.Bounds) { // le="+Inf"
			return p.counts(dst)
		}
		track -= len(s.Bounds) + 1
	case KindSummary:
		if track < len(s.Bounds) {
			return p.marked(dst, p.Quantiles[track])
		}
		track -= len(s.Bounds)
	default:
		return dst
	}
	if track == 0 && !s.NoSum {
		return append(dst, p.Values...)
	}
	return p.counts(dst)
}

// AllTracks returns the values of all Prometheus series of the row, as Track has them one by one, in the memory of dst. Cumulating buckets once, it is much
// faster than asking for each.
func (p *Points) AllTracks(s *Series, dst [][]float64) [][]float64 {
	n := s.NumTracks()
	dst = slices.Grow(dst[:0], n)[:n]
	if s.Kind != KindClassic || len(p.Buckets) == 0 {
		for track := range dst {
			dst[track] = p.Track(s, track, dst[track][:0])
		}
		return dst
	}
	sums := make([]uint64, len(p.Values))
	for track := range s.Bounds {
		values := dst[track][:0]
		for i, v := range p.Buckets[track] {
			sums[i] += v
			values = append(values, float64(sums[i]))
		}
		dst[track] = values
	}
	for i, v := range p.Values {
		if value.IsStaleNaN(v) {
			for track := range s.Bounds {
				dst[track][i] = v
			}
		}
	}
	for track := len(s.Bounds); track < n; track++ {
		dst[track] = p.Track(s, track, dst[track][:0])
	}
	return dst
}

func (p *Points) counts(dst []float64) []float64 {
	for i, n := range p.Counts {
		dst = append(dst, p.staleOr(i, float64(n)))
	}
	return dst
}

func (p *Points) marked(dst, values []float64) []float64 {
	for i, v := range values {
		dst = append(dst, p.staleOr(i, v))
	}
	return dst
}

func (p *Points) cumulated(bucket int, dst []float64) []float64 {
	for i := range p.Values {
		sum := uint64(0)
		for b := range bucket + 1 {
			sum += p.Buckets[b][i]
		}
		dst = append(dst, p.staleOr(i, float64(sum)))
	}
	return dst
}

func (p *Points) staleOr(i int, v float64) float64 {
	if value.IsStaleNaN(p.Values[i]) {
		return math.Float64frombits(value.StaleNaN)
	}
	return v
}
