// SPDX-License-Identifier: AGPL-3.0-only

package metricfile

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Kind is what the points of a series are.
type Kind uint8

// The kinds.
const (
	KindFloat     Kind = iota // a number
	KindClassic               // a histogram with explicit bounds: count, sum, buckets
	KindSummary               // count, sum, values of quantiles
	KindHistogram             // a native (exponential) histogram
)

// String returns "float", "classic", "summary" or "histogram".
func (k Kind) String() string {
	switch k {
	case KindFloat:
		return "float"
	case KindClassic:
		return "classic"
	case KindSummary:
		return "summary"
	case KindHistogram:
		return "histogram"
	}
	return "unknown"
}

// Suffixes of the Prometheus series that a row of a classic histogram or a summary stands for, and the labels that tell them apart.
const (
	BucketSuffix  = "_bucket"
	SumSuffix     = "_sum"
	CountSuffix   = "_count"
	BucketLabel   = model.BucketLabel
	QuantileLabel = model.QuantileLabel
)

// Family is what a metric name says of its series.
type Family struct {
	Type model.MetricType
	Unit string
	Help string
}

// Series is who a row is.
type Series struct {
	// Labels are the final Prometheus labels, __name__ among them; of a classic histogram or a summary with the base name, without le and quantile.
	Labels labels.Labels
	Kind   Kind
	// Delta: each point counts what happened since the one before.
	Delta bool
	// NoSum: points of a classic histogram or summary have no sum, so there is no series _sum.
	NoSum bool
	// Bounds are the upper bounds of a classic histogram without +Inf, rising; the quantiles of a summary.
	Bounds []float64
	// Family is not part of the identity.
	Family Family
}

// Name returns the metric name: of a classic histogram or a summary the base name.
func (s *Series) Name() string { return s.Labels.Get(model.MetricNameLabel) }

// Hash is what shards are made by: of the labels alone, the same in every release.
func (s *Series) Hash() uint64 { return labels.StableHash(s.Labels) }

// Identity is a hash of all that makes a row another one than its neighbour, the same in every release: row hashes begin with it.
func (s *Series) Identity() uint64 { return s.identity(s.Hash()) }

func (s *Series) identity(hash uint64) uint64 {
	h := hash + uint64(s.Kind)
	if s.Delta {
		h += 1 << 8
	}
	if s.NoSum {
		h += 1 << 9
	}
	h = scramble(h)
	for _, b := range s.Bounds {
		h = scramble(h ^ math.Float64bits(b))
	}
	return h
}

// Equal reports whether s and o are the same row. Families do not count.
func (s *Series) Equal(o *Series) bool {
	return s.Kind == o.Kind && s.Delta == o.Delta && s.NoSum == o.NoSum && labels.Equal(s.Labels, o.Labels) && compareBounds(s.Bounds, o.Bounds) == 0
}

// Compare is the order of rows: by metric name, hash, labels, kind, temporality, having a sum, bounds.
func Compare(a, b *Series) int {
	if labels.Equal(a.Labels, b.Labels) {
		return compareShapes(a, b)
	}
	return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.Hash(), b.Hash()), labels.Compare(a.Labels, b.Labels), compareShapes(a, b))
}

// compareShapes compares rows of the same labels.
func compareShapes(a, b *Series) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareBools(a.Delta, b.Delta), compareBools(a.NoSum, b.NoSum), compareBounds(a.Bounds, b.Bounds))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compareBounds compares bits, since NaN and -0 are bounds like others here.
func compareBounds(a, b []float64) int {
	return slices.CompareFunc(a, b, func(x, y float64) int { return cmp.Compare(math.Float64bits(x), math.Float64bits(y)) })
}

// Clone copies a series with all that it refers to.
func (s *Series) Clone() *Series {
	c := *s
	c.Labels = s.Labels.Copy()
	c.Bounds = slices.Clone(s.Bounds)
	return &c
}

// NumTracks is how many Prometheus series a row stands for; each point counts as so many samples.
func (s *Series) NumTracks() int {
	switch s.Kind {
	case KindClassic:
		return len(s.Bounds) + 1 + s.totals()
	case KindSummary:
		return len(s.Bounds) + s.totals()
	}
	return 1
}

// totals counts the series _sum and _count.
func (s *Series) totals() int {
	if s.NoSum {
		return 1
	}
	return 2
}

// Tracks returns the labels of the Prometheus series that a row stands for, in the order of tracks. float: one; classic: _bucket with le of each
// bound, then le="+Inf", _sum unless NoSum, _count; summary: each quantile, _sum, _count; histogram: one.
func (s *Series) Tracks() []labels.Labels {
	if s.Kind != KindClassic && s.Kind != KindSummary {
		return []labels.Labels{s.Labels}
	}
	tracks := make([]labels.Labels, 0, s.NumTracks())
	b := labels.NewBuilder(s.Labels)
	add := func(suffix, label, value string) {
		b.Reset(s.Labels)
		b.Set(model.MetricNameLabel, s.Name()+suffix)
		if label != "" {
			b.Set(label, value)
		}
		tracks = append(tracks, b.Labels())
	}
	for _, bound := range s.Bounds {
		if s.Kind == KindClassic {
			add(BucketSuffix, BucketLabel, FormatBound(bound))
		} else {
			add("", QuantileLabel, FormatBound(bound))
		}
	}
	if s.Kind == KindClassic {
		add(BucketSuffix, BucketLabel, "+Inf")
	}
	if !s.NoSum {
		add(SumSuffix, "", "")
	}
	add(CountSuffix, "", "")
	return tracks
}

// FormatBound writes a bound as the labels le and quantile have it.
func FormatBound(bound float64) string { return strconv.FormatFloat(bound, 'f', -1, 64) }
