// SPDX-License-Identifier: AGPL-3.0-only

package prom

import (
	"context"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/lakerunner/lakerunner/pkg/lake"
)

// Series are samples of one label set, rising by time. Times are ms since 1970.
type Series struct {
	Labels labels.Labels
	// Delta says that each sample is what was added since the one before.
	Delta bool
	// Times and Values are the float samples.
	Times  []int64
	Values []float64
	// Starts are since when a float sample was counted up; nil: none is known. Zero: not known.
	Starts []int64
	// HistogramTimes and Histograms are the native histograms; a reset hint that is UnknownCounterReset is derived from the histogram before.
	HistogramTimes []int64
	Histograms     []*histogram.FloatHistogram
	// HistogramStarts are as Starts.
	HistogramStarts []int64
}

// Len returns the number of samples.
func (s *Series) Len() int { return len(s.Times) + len(s.HistogramTimes) }

// Selection asks for series.
type Selection struct {
	Matchers []*labels.Matcher
	// Start and End are ms since 1970, both inclusive. Samples outside of them are harmless.
	Start, End int64
	// Hints say what the engine will do with them; never nil.
	Hints *storage.SelectHints
	Shard lake.Shard
}

// Source has series. Select may be called from several goroutines at once.
type Source interface {
	// Select returns the series sorted by labels, without duplicates but for a delta one behind a cumulative one of the same labels. What it returns is not changed.
	Select(ctx context.Context, s Selection) ([]Series, error)
}

// Trim leaves the samples of a range, both ends included.
func (s *Series) Trim(start, end int64) {
	from, to := within(s.Times, start, end)
	s.Times, s.Values, s.Starts = s.Times[from:to], s.Values[from:to], part(s.Starts, from, to)
	from, to = within(s.HistogramTimes, start, end)
	s.HistogramTimes, s.Histograms, s.HistogramStarts = s.HistogramTimes[from:to], s.Histograms[from:to], part(s.HistogramStarts, from, to)
}

func within(times []int64, start, end int64) (from, to int) {
	from = sort.Search(len(times), func(i int) bool { return times[i] >= start })
	return from, max(from, sort.Search(len(times), func(i int) bool { return times[i] > end }))
}

// part is a stretch of a column that may be missing.
func part(column []int64, from, to int) []int64 {
	if column == nil {
		return nil
	}
	return column[from:to]
}

// Sorted sorts series as a source must, and makes one of those that have the same labels and temporality: of two samples of one time that of the first series is kept.
func Sorted(series []Series) []Series {
	slices.SortStableFunc(series, func(a, b Series) int {
		if c := labels.Compare(a.Labels, b.Labels); c != 0 || a.Delta == b.Delta {
			return c
		}
		if b.Delta {
			return -1
		}
		return 1
	})
	out := series[:0]
	for i := range series {
		if last := len(out) - 1; last >= 0 && out[last].Delta == series[i].Delta && labels.Equal(out[last].Labels, series[i].Labels) {
			delta := out[last].Delta
			out[last] = mergeTwo(&out[last], &series[i])
			out[last].Delta = delta
			continue
		}
		out = append(out, series[i])
	}
	return out
}

// SeriesOf makes a series of one of a matrix.
func SeriesOf(line *Line) Series {
	s := Series{Labels: line.Metric}
	for _, p := range line.Floats {
		s.Times, s.Values = append(s.Times, p.T), append(s.Values, p.F)
	}
	for _, p := range line.Histograms {
		s.HistogramTimes, s.Histograms = append(s.HistogramTimes, p.T), append(s.Histograms, p.H)
	}
	return s
}
